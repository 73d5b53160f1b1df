# SPDX-License-Identifier: MIT
"""What the Python benchmarks share: the name of the machine, result files, and workers behind standard input."""
import json
import math
import os
import pathlib
import re
import statistics
import sys
import time


def machine() -> dict:
    """The CPU and its cores as bench/lib/machine.cpp names them."""
    text = pathlib.Path("/proc/cpuinfo").read_text()

    def field(key: str) -> str:
        found = re.search(rf"^{key}\s*: (.*)$", text, re.M)
        return found[1].strip() if found else ""

    name = re.sub(" +", " ", field("model name").replace("(R)", "")).strip() or "unknown CPU"
    if name.startswith("QEMU") or not re.search(r"\d", name):  # made up by the host of a virtual machine
        flags = field("flags").split()
        has = [text for flag, text in (("amx_int8", "AMX"), ("avx512_vnni", "AVX-512 VNNI"), ("avx_vnni", "AVX-VNNI"),
                                       ("avx2", "AVX2")) if flag in flags]
        name = name.split(" Processor")[0] + (f" ({has[0]})" if has else "")
    elif field("cpu family"):
        name += f" (family {field('cpu family')} model {field('model')})"
    return {"cpu": name, "cores": len(os.sched_getaffinity(0))}


def read_results(path: pathlib.Path) -> tuple[pathlib.Path, dict]:
    """The file and its results on this machine; a folder means <machine>.json in it. Results of another machine are
    dropped."""
    here = machine()
    if path.is_dir():
        slug = re.sub("[^a-z0-9]+", "-", f"{here['cpu']} {here['cores']} cores".lower()).strip("-")
        path = path / f"{slug}.json"
    data = json.loads(path.read_text()) if path.exists() else {}
    if {key: data.get("machine", {}).get(key) for key in here} != here:
        data = {"machine": here}
    return path, data


def store(path: pathlib.Path, key: str, value: dict) -> None:
    """Writes `value` under `key`, beside the results of other programs."""
    path, data = read_results(path)
    data[key] = value
    path.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n")


def geometric_mean(values) -> float:
    return math.exp(statistics.fmean(math.log(value) for value in values))


class Layer:
    """A layer that a worker measures: step() computes `products` products; `error` is that of the first one."""
    products = 1
    error = 0.0

    def step(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        """Frees memory that Python does not know of."""

    def run(self, seconds: float) -> float:
        """Microseconds of one product, measured for about `seconds`."""
        start, steps = time.perf_counter(), 0
        while True:
            self.step()
            steps += 1
            taken = time.perf_counter() - start
            if taken >= seconds:
                return taken / (steps * self.products) * 1e6


def relative_error(found, wanted) -> float:
    """Root mean square of NumPy arrays."""
    return float((((found - wanted) ** 2).mean() / (wanted**2).mean()) ** 0.5)


def serve(name: str, load) -> None:
    """Obeys standard input, for external_peers.py:

    load N K M     load((N, K, M)) makes a layer -> "ready ERROR" (relative, root mean square)
    run SECONDS    -> microseconds of one product
    """
    layer = Layer()
    print(name, flush=True)
    for line in sys.stdin:
        verb, *values = line.split()
        if verb == "load":
            layer.close()
            layer = None
            layer = load(tuple(int(value) for value in values))
            print(f"ready {layer.error}", flush=True)
        elif verb == "run":
            print(layer.run(float(values[0])), flush=True)
