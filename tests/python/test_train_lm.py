# SPDX-License-Identifier: MIT
"""examples/python/train_lm.py on this repository's documents: one process, and two that are interrupted and resumed."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "examples" / "python" / "train_lm.py"
SMALL = ["--text", ROOT / "docs", "--hidden", "64", "--layers", "2", "--sequence", "64", "--batch", "16", "--vocab", "300",
         "--tokens", "61440", "--every", "10"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "CUDA_VISIBLE_DEVICES": ""}


def started(*options, processes=1):
    launcher = [] if processes == 1 else ["-m", "torch.distributed.run", f"--nproc-per-node={processes}", "--standalone"]
    return subprocess.Popen([sys.executable, *launcher, SCRIPT, *options], env=ENVIRONMENT, text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE)


def ended(process):
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors[-4000:] + output
    return output


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lm")
    return folder, ended(started(*SMALL, "--out", folder))


def results_of(folder):
    return json.loads((folder / "results.json").read_text())


def test_results(uninterrupted):
    folder, output = uninterrupted
    results = results_of(folder)
    assert results["tokens"] == 61440 and 2 < results["held_out_perplexity"] < 150, output
    assert abs(results["packed_perplexity"] / results["held_out_perplexity"] - 1) < 1e-3
    assert "step 60 of 60" in output and "\nThe " in output, output
    assert any((folder / "tensorboard").iterdir())
    command = os.environ.get("TRIT_COMMAND")
    if command:
        told = subprocess.run([command, "diff", folder / "huggingface", folder / "model.gguf", "--tolerance", "1e-3"],
                              capture_output=True, text=True, check=False)
        assert told.returncode == 0, told.stdout + told.stderr


def test_interrupt_and_resume(uninterrupted, tmp_path):
    """FSDP2 in two processes until a Ctrl-C, then one process to the end: as without the interrupt, but for the order of
    additions."""
    process = started(*SMALL, "--out", tmp_path, "--parallel", "fsdp", processes=2)
    while not (tmp_path / "checkpoints" / "00000010").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=300)
    (saved,) = (path.name for path in (tmp_path / "checkpoints").iterdir())
    assert 10 <= int(saved) < 60 and "interrupted at step" in output, output + errors[-3000:]
    assert "interrupted" not in ended(started(*SMALL, "--out", tmp_path, "--resume"))
    found, want = (results_of(folder)["held_out_perplexity"] for folder in (tmp_path, uninterrupted[0]))
    assert abs(found / want - 1) < 0.02, (found, want)


def test_refuses_to_start_anew(uninterrupted, monkeypatch):
    monkeypatch.syspath_prepend(SCRIPT.parent)
    monkeypatch.setattr(sys, "argv", list(map(str, [SCRIPT, *SMALL, "--out", uninterrupted[0]])))
    import train_lm
    with pytest.raises(SystemExit, match="has checkpoints: --resume goes on"):
        train_lm.main()


@pytest.mark.parametrize("option", ["--tokens", "--batch", "--sequence", "--hidden", "--layers", "--every", "--lr"])
def test_numbers_out_of_range(option, monkeypatch, capsys):
    monkeypatch.syspath_prepend(SCRIPT.parent)
    import train_lm
    for text in ("nan", "inf", "-1", "0", "x", *(["1.5", "1e30"] if option != "--lr" else [])):
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), "--text", ".", f"{option}={text}"])
        with pytest.raises(SystemExit) as ended:
            train_lm.options()
        assert ended.value.code == 2 and option in capsys.readouterr().err, text


def test_bytes(monkeypatch):
    """A byte is its own token, as the tokenizer has it."""
    monkeypatch.syspath_prepend(SCRIPT.parent)
    import lm_text
    tokenizer = lm_text.train_tokenizer([], 256)
    text = "".join(map(chr, range(0x500))) + "   \n\n\t trit "
    assert lm_text.encode(tokenizer, [text]).tolist() == [256, *text.encode()] == [256, *tokenizer.encode(text).ids]
    assert tokenizer.decode(tokenizer.encode(text).ids) == text
