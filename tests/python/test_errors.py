# SPDX-License-Identifier: MIT
"""Bad input: an error that says what was found and what is wanted, and never a crash."""

import os
import subprocess
import sys

import pytest
import torch

import trit
from trit import ops
from trit.nn import BitLinear


def test_shapes_and_types():
    x, weight = torch.randn(3, 8), torch.randn(4, 8)
    beta = ops.absmean(weight)
    codes = ops.ternarize_pack(weight, beta)
    quantised = ops.norm_quant(x)
    for message, call in [
        (r"x must be \[..., 8\], found Float \[3, 9\]", lambda: ops.bit_linear(torch.randn(3, 9), weight)),
        (r"x must be float32, bfloat16 or float16, found Double", lambda: ops.bit_linear(x.double(), weight)),
        (r"the weight must be a float matrix .* found Float \[4\]", lambda: ops.bit_linear(x, weight[:, 0])),
        (r"the weight must be a float matrix .* found Int", lambda: ops.bit_linear(x, weight.int())),
        (r"the bias must be \[4\], found Float \[5\]", lambda: ops.bit_linear(x, weight, torch.randn(5))),
        (r"norm's weight must be \[8\], found Float \[4\]", lambda: ops.bit_linear(x, weight, None, torch.randn(4))),
        (r"in_features = 9, found Byte \[4, 2\]", lambda: ops.prepare(codes, 9)),
        (r"the weight's scale must be \[1\] or \[4\]", lambda: ops.ternarize_pack(weight, torch.ones(3))),
        (r"x must be \[tokens, in_features >= 1\]", lambda: ops.norm_quant(torch.randn(2, 3, 4))),
        (r"wanted q int8 \[tokens, 12\]", lambda: ops.prepared_linear(quantised, ops.prepare(codes, 8), beta, 4, 9)),
        (r"not made by prepare_weight", lambda: ops.bit_linear_prepared(x, torch.zeros(4096, dtype=torch.uint8), beta, 4, 8)),
        (r"fewer than its header", lambda: ops.bit_linear_prepared(x, codes.reshape(-1), beta, 4, 8)),
        (r"these bytes hold \[4, 8\]", lambda: ops.bit_linear_prepared(x, ops.prepare(codes, 8), beta, 5, 8)),
        (r"do not fit together", lambda: torch.ops.trit_stable.rms_norm_backward(x, x[:2], beta, None, True, False)),
        (r"grad must be \[tokens, 4\]", lambda: ops.linear_backward_input(x, codes, beta, 8)),
        (r"wanted scales contiguous float32 \[2, tokens\], found Float \[3\]", lambda: torch.ops.trit_stable.bit_linear_backward(
            torch.randn(3, 4), None, None, quantised.q, quantised.scale, codes, beta, 8, torch.float32, False, True, True, True)),
        (r"weight must be \[8\]", lambda: ops.rms_norm(x, torch.ones(7))),
    ]:
        with pytest.raises(RuntimeError, match=message):
            call()
    with pytest.raises(RuntimeError, match=r"x must be \[..., 8\]"):
        trit.freeze(BitLinear(8, 4))(torch.randn(2, 7))
    with pytest.raises(RuntimeError, match="scale float32"):  # one row of scales is not one for each token
        ops.dequantize_tokens(quantised.q, quantised.scale.unsqueeze(0), 8)


def test_shapes_compiled():
    for shape in [(3, 9), (2, 16), (0, 16)]:
        torch.compiler.reset()
        compiled = torch.compile(BitLinear(8, 4), backend="aot_eager")
        with pytest.raises(Exception, match=r"x must be \[..., 8\], found .*\[\d, \d+\]"):
            compiled(torch.randn(shape))


def test_prepared_for_another_backend():
    """Bytes that one backend prepared are refused by another, and not misread."""
    names = [name for name in trit.backends() if name != "cuda"]
    code = """
import sys, torch, trit
if len(sys.argv) == 2:
    torch.save(trit.ops.prepare(torch.zeros(4, 2, dtype=torch.uint8), 8), sys.argv[1])
else:
    trit.ops.bit_linear_prepared(torch.randn(2, 8), torch.load(sys.argv[1]), torch.ones(1), 4, 8)
"""
    if len(names) == 1:
        pytest.skip("this machine has one backend")

    def run(backend, *arguments):
        return subprocess.run([sys.executable, "-c", code, *arguments], env={**os.environ, "TRIT_BACKEND": backend},
                              capture_output=True, text=True, check=False)

    import tempfile
    with tempfile.TemporaryDirectory() as folder:
        assert run(names[0], f"{folder}/p").returncode == 0
        assert run(names[0], f"{folder}/p", "use").returncode == 0
        wrong = run(names[1], f"{folder}/p", "use")
        assert f"prepared for the backend {names[0]}, while this process runs {names[1]}" in wrong.stderr


def imported(environment=(), before=""):
    return subprocess.run([sys.executable, "-c", before + "\nimport trit"], env={**os.environ, **dict(environment)},
                          capture_output=True, text=True, check=False).stderr


def test_import_errors(tmp_path):
    assert "ImportError: trit: /nowhere does not exist (TRIT_LIBRARY)" in imported({"TRIT_LIBRARY": "/nowhere"})
    wrong = tmp_path / "libtrit_torch_stable.so"
    wrong.write_bytes(b"\x7fELF nothing")
    assert "does not load into torch" in imported({"TRIT_LIBRARY": str(wrong)})
    old = "import torch; torch.__version__ = '2.4.1+cpu'"
    assert "torch 2.4.1 found, 2.11 or newer wanted: pip install 'torch>=2.11'" in imported(before=old)
    assert "nonsense" in imported({"TRIT_BACKEND": "nonsense"})


@pytest.mark.skipif(trit._library.INFO.cuda, reason="this build has the GPU half")
def test_no_gpu_half():
    with torch.device("meta"):
        x = torch.randn(2, 8)
    with pytest.raises(RuntimeError, match="no GPU half. Wanted: a wheel with it"):
        trit._fake._no_gpu_half(x)
    registered = torch._C._dispatch_has_kernel_for_dispatch_key("trit_stable::bit_linear_train", "CUDA")
    assert registered
