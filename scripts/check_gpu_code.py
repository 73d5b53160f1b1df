#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Fails when the machine code of src/cuda and src/runtime/cuda is not what the kernels were written for.

    check_gpu_code.py [--build FOLDER]     FOLDER: a build with TRIT_CUDA=ON; default: build-cuda, built here

What ptxas said lies beside each object (cmake/keep_ptxas_log.sh).

Looked at, for each kernel and architecture:
  * registers, at most the number stated here (from them follows how many blocks a multiprocessor runs at a time)
  * no stack frame and no spills
  * no C7510 .. C7520 from ptxas: wgmma instructions that it has serialised
  * in the machine code, the matrix instruction: IMMA (mma.sync) or IGMMA (wgmma) of integers, HGMMA of 16-bit floats
It needs nvcc (on the PATH, as CUDACXX, or in /usr/local/cuda) and says so where there is none; that is no failure. The last
check needs cuobjdump: the toolkit's, or the one that comes with triton in .venv.
"""
import argparse
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
SOURCES = ("src/cuda", "src/runtime/cuda")

# Kernel (a pattern of its name in C++) -> registers at most, and why that many.
REGISTERS = {
    r"decode_kernel<": (128, "512 threads fill the 65,536 registers of a multiprocessor"),
    r"decode_one_ring_kernel<": (64, "two blocks of 512 threads, so that the next kernel's one can start early"),
    r"decode_one_ring_groups_kernel<": (64, "likewise"),
    r"decode_one_direct_kernel<1": (32, "64 warps a multiprocessor"),
    r"decode_one_direct_kernel<2, 1": (48, "two blocks of 20 warps, 2,560 inputs"),
    r"decode_one_direct_kernel<2, 2": (56, "a block of 32 warps beside a part of the next one"),
    r"decode_one_direct_groups_kernel<1": (48, "two blocks of 20 warps, 2,560 inputs"),
    r"decode_one_direct_groups_kernel<2, \d, \w+, true": (64, "1,024 threads; scales of the token beside those of the weights"),
    r"decode_one_direct_groups_kernel<2": (56, "a block of 32 warps beside a part of the next one"),
    r"decode_(whole_)?groups_kernel<": (128, "512 threads fill the 65,536 registers of a multiprocessor"),
    r"gemm_sm80_kernel<64": (255, "two blocks of 128 threads; 128 accumulators"),
    r"gemm_sm80_kernel<32, false": (128, "four blocks of 128 threads"),
    r"gemm_sm80_kernel<32, true": (208, "two blocks of 128 threads; 32 int32 sums of a group and 32 fp32 sums"),
    r"norm_quant_kernel<": (40, "six blocks of 256 threads"),
    r"norm_quant_registers_kernel<\d, true, true, 64": (255, "two blocks of 128 threads, up to 32 KB of a row each in flight; three on sm_90"),
    r"norm_quant_registers_kernel<\d, \w+, \w+, 64": (128, "four blocks of 128 threads"),
    r"norm_quant_registers_kernel<\d, true, true": (96, "five blocks of 128 threads; x g of a row as floats"),
    r"norm_quant_registers_kernel<": (64, "eight blocks of 128 threads, 16 KB of rows each in flight"),
    r"norm_quant_lanes_kernel<\d, 16": (96, "five blocks of 128 threads; 32 inputs' weights and 16 words of a row"),
    r"norm_quant_lanes_kernel<": (128, "four blocks of 128 threads; 64 inputs' weights and 32 words of a row"),
    r"norm_quant_rows_kernel<": (80, "twelve blocks of two warps, as many as their rows leave shared memory for"),
    r"norm_quant_few_kernel<": (64, "1,024 threads"),
    r"norm_quant_rotated_kernel<": (168, "three blocks of 128 threads; 64 inputs of a rotation and their weights each"),
    r"norm_quant_groups_registers_kernel<": (128, "512 threads: two blocks of 256 hold 8192 inputs each"),
    r"norm_quant_groups_kernel<": (128, "two blocks of 256 threads; 32 inputs of a rotation each"),
    r"(group_absmean|group_scales)_kernel": (64, "four blocks of 256 threads"),
    r"(abs_sum|mean)_kernel": (40, "six blocks of 256 threads"),
    r"(ternarize_pack|prepare_\w+)_kernel": (64, "1,024 threads"),
    r"pack_tile_groups_kernel<": (128, "four blocks of 128 threads; 16 x 128 weights of a warp each"),
    r"pack_groups_kernel<": (64, "four blocks of 256 threads"),
    r"pack_weights_kernel<": (80, "three blocks of 256 threads, all of which must be there at once"),
    r"gpu::(normalize|bias_relu|add|pool|gelu|scale_shift)_kernel": (40, "six blocks of 256 threads: bound by memory"),
    r"gpu::look_up_kernel": (48, "five blocks of 256 threads; 16 inputs of a rotation each"),
    r"norm_backward_lanes_kernel<\d, \w+, (4|5), ": (64, "1,024 threads; 8 or 10 inputs of u, x and dg's sums each"),
    r"norm_backward_lanes_kernel<\d, \w+, 16, ": (128, "512 threads; 32 inputs of u, x and dg's sums each"),
    r"quantize_gradient_rows_kernel<": (128, "a block of up to 512 threads: the rows of a group, the next group's, and maxima"),
    r"(quantize_gradient_row|gradient_maxima)_kernel<": (40, "six blocks of 256 threads"),
    r"quantize_gradient_outputs_kernel<\d, true": (128, "two blocks of 256 threads; 32 gradients each, and their random numbers"),
    r"quantize_gradient_outputs_kernel<": (64, "four blocks of 256 threads; 32 gradients each"),
    r"transpose_activations_kernel": (40, "six blocks of 256 threads: bound by memory"),
    r"dequantize_rows_kernel<": (40, "six blocks of 256 threads: bound by memory"),
    r"gemm_sm90_persistent_kernel<Tile<1, \d+, 4, ": (224, "256 threads: one warpgroup of consumers, two sets of sums; 255 would fit"),
    r"gemm_sm90_persistent_kernel<": (168, "three warpgroups at launch; setmaxnreg moves registers between them"),
    r"gemm_sm90_split_kernel<Tile<1, 32": (64, "16 accumulators; a block of 320 threads fills the multiprocessor by its memory"),
    r"gemm_sm90_split_kernel<Tile<1, 64": (80, "32 accumulators"),
    r"gemm_sm90_split_kernel<Tile<1, 96": (96, "48 accumulators"),
    r"gemm_sm90_split_kernel<Tile<1, 128": (112, "64 accumulators"),
    r"gemm_sm90_split_kernel<Tile<2, 32": (104, "32 accumulators, twice the A registers"),
    r"gemm_sm90_split_kernel<Tile<2, 64": (136, "64 accumulators"),
    r"gemm_sm90_split_kernel<Tile<2, 96": (168, "96 accumulators; the most that 320 threads can have"),
}
# Source in src/cuda -> the instruction that its product is made of, by architecture.
INSTRUCTIONS = {
    "decode/groups": {"sm_80": "IMMA", "sm_90a": "IMMA"},
    "decode/kernel": {"sm_80": "IMMA", "sm_90a": "IMMA"},
    "decode/whole_groups": {"sm_80": "IMMA", "sm_90a": "IMMA"},
    "decode_one/direct": {"sm_80": "IMMA", "sm_90a": "IMMA"},
    "decode_one/direct_groups": {"sm_80": "IMMA", "sm_90a": "IMMA"},
    "decode_one/ring": {"sm_80": "IMMA", "sm_90a": "IMMA"},
    "decode_one/ring_groups": {"sm_80": "IMMA", "sm_90a": "IMMA"},
    "gemm_sm80/kernel": {"sm_80": "IMMA", "sm_90a": "IMMA"},
    "gemm_sm90/float": {"sm_90a": "HGMMA"},
    "gemm_sm90/groups": {"sm_90a": "IGMMA"},
    "gemm_sm90/groups_float32": {"sm_90a": "IGMMA"},
    "gemm_sm90/int8": {"sm_90a": "IGMMA"},
    "gemm_sm90/persistent_128": {"sm_90a": "IGMMA"},
    "gemm_sm90/persistent_256": {"sm_90a": "IGMMA"},
    "gemm_sm90/split": {"sm_90a": "IGMMA"},
}


def find_nvcc() -> str | None:
    for candidate in (os.environ.get("CUDACXX"), shutil.which("nvcc"), "/usr/local/cuda/bin/nvcc", "/opt/cuda/bin/nvcc"):
        if candidate and pathlib.Path(candidate).exists():
            return candidate
    return None


def find_cuobjdump(nvcc: str) -> str | None:
    beside = pathlib.Path(nvcc).parent / "cuobjdump"
    in_venv = sorted((ROOT / ".venv").glob("lib/python3*/site-packages/triton/backends/nvidia/bin/cuobjdump"))
    for candidate in [shutil.which("cuobjdump"), beside, *in_venv]:
        if candidate and pathlib.Path(candidate).exists():
            return str(candidate)
    return None


def build(nvcc: str) -> pathlib.Path:
    cmake = shutil.which("cmake", path=f"{ROOT / '.venv/bin'}:{os.environ['PATH']}")
    if cmake is None:
        sys.exit("check_gpu_code: no cmake in .venv or on the PATH")
    configure = [cmake, "--preset", "cuda", f"-DCMAKE_CUDA_COMPILER={nvcc}"]
    make = [cmake, "--build", "--preset", "cuda", "--target", "trit_cuda_objects", "trit_cuda_sm90_objects", "trit_runtime_cuda_objects", "--parallel", str(os.cpu_count())]
    for command in (configure, make):
        if subprocess.run(command, cwd=ROOT).returncode != 0:
            sys.exit(f"check_gpu_code: {' '.join(command)} failed")
    return ROOT / "build-cuda"


def objects(folder: pathlib.Path) -> list[pathlib.Path]:
    """Of the kernels that the library has. The build's own list: its folder may hold objects of older sources."""
    entries = json.loads((folder / "compile_commands.json").read_text())
    outputs = [folder.resolve() / entry["output"] for entry in entries]
    return sorted(path for path in outputs if path.name.endswith(".cu.o") and "racecheck" not in str(path)
                  and path.relative_to(folder.resolve()).as_posix().startswith(SOURCES))


def logs(folder: pathlib.Path) -> str:
    """What ptxas said of every object."""
    texts = []
    for path in objects(folder):
        log = path.with_name(path.name + ".ptxas")
        if not log.exists() or log.stat().st_mtime < path.stat().st_mtime - 60:
            sys.exit(f"check_gpu_code: {log} is missing or older than its object")
        texts.append(log.read_text())
    return "".join(texts)


def short_name(function: str) -> str:
    """void trit::cuda::(anonymous namespace)::f_kernel<(trit::DataType)1, true>(...) -> f_kernel<1, true>"""
    function = re.sub(r"\(anonymous namespace\)::|\(trit::\w+\)|trit::cuda::|^void ", "", function)
    return re.sub(r"\(.*", "", function)


def check_log(log: str) -> bool:
    clean = True
    kernels = 0
    log = subprocess.run(["c++filt"], input=log, capture_output=True, text=True, check=True).stdout
    name = architecture = ""
    for line in log.splitlines():
        if found := re.search(r"Compiling entry function '(.*)' for '(\w+)'", line):
            name, architecture = short_name(found[1]), found[2]
            kernels += 1
        elif found := re.search(r"\bC75(1[0-9]|20)\b", line):
            print(f"check_gpu_code: {line.strip()}", file=sys.stderr)
            clean = False
        elif (found := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", line)) and any(map(int, found.groups())):
            print(f"check_gpu_code: {architecture} {name}: {found[0]}", file=sys.stderr)
            clean = False
        elif found := re.search(r"Used (\d+) registers", line):
            limit = next((limit for pattern, (limit, _) in REGISTERS.items() if re.search(pattern, name)), None)
            verdict = "no limit is stated here" if limit is None else f"at most {limit}"
            print(f"check_gpu_code: {architecture} {name}: {found[1]} registers, {verdict}")
            clean = clean and limit is not None and int(found[1]) <= limit
    if kernels == 0:
        print("check_gpu_code: the build said nothing of kernels", file=sys.stderr)
    return clean and kernels > 0


def check_instructions(cuobjdump: str, folder: pathlib.Path) -> bool:
    clean = True
    for source, wanted in INSTRUCTIONS.items():
        found = [path for path in objects(folder) if path.as_posix().endswith(f"/{source}.cu.o")]
        if not found:
            print(f"check_gpu_code: no object of {source}.cu", file=sys.stderr)
            clean = False
        for path in found:
            text = subprocess.run([cuobjdump, "--dump-sass", path], capture_output=True, text=True, check=True).stdout
            parts = re.split(r"^\s*arch = (\w+)$", text, flags=re.MULTILINE)
            code: dict[str, str] = {}
            for architecture, part in zip(parts[1::2], parts[2::2]):
                code[architecture] = code.get(architecture, "") + part
            for architecture, instruction in wanted.items():
                count = len(re.findall(rf"\b{instruction}\.", code.get(architecture, "")))
                print(f"check_gpu_code: {source}.cu {architecture}: {count} {instruction}")
                clean = clean and count > 0
    return clean


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path)
    args = parser.parse_args()
    nvcc = find_nvcc()
    if nvcc is None:
        print("check_gpu_code: not checked: no nvcc on the PATH, as CUDACXX or in /usr/local/cuda")
        return 0
    folder = args.build or build(nvcc)
    clean = check_log(logs(folder))
    cuobjdump = find_cuobjdump(nvcc)
    if cuobjdump is None:
        print("check_gpu_code: machine code not looked at: no cuobjdump beside nvcc, on the PATH or in .venv")
    else:
        clean = check_instructions(cuobjdump, folder) and clean
    print(f"check_gpu_code: {'as it should be' if clean else 'see above'}")
    return 0 if clean else 1


if __name__ == "__main__":
    sys.exit(main())
