# SPDX-License-Identifier: MIT
"""What the tests of the `trit` command share: safetensors files written and read by hand, the generator of the
golden vectors, small models, and running the command."""
import json
import os
import pathlib
import random
import struct
import subprocess
import tempfile
import unittest

TRIT = os.environ.get("TRIT_COMMAND", str(pathlib.Path(__file__).resolve().parents[2] / "build" / "bin" / "trit"))
SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "U8": 1}
DRAWN = ["disc", "ring", "square", "frame", "triangle", "plus", "cross", "stripes", "checker", "crescent"]


def numel(shape: list[int]) -> int:
    product = 1
    for size in shape:
        product *= size
    return product


def f32(values: list[float]) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


def floats(data: bytes) -> tuple[float, ...]:
    return struct.unpack(f"<{len(data) // 4}f", data)


def bits(data: bytes) -> str:
    """float32 values as the hexadecimal words of docs/format.md and docs/numerics.md."""
    return " ".join(f"{word:08x}" for word in struct.unpack(f"<{len(data) // 4}I", data))


def write_safetensors(path: pathlib.Path, tensors: dict, metadata: dict | None = None) -> pathlib.Path:
    """tensors: name -> (dtype, shape, bytes)."""
    header: dict = {"__metadata__": metadata} if metadata else {}
    offset, body = 0, b""
    for name, (dtype, shape, data) in sorted(tensors.items(), key=lambda item: (-SIZES[item[1][0]], item[0])):
        assert numel(shape) * SIZES[dtype] == len(data), name
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
        body += data
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)
    return path


def read_safetensors(path: pathlib.Path) -> tuple[dict, dict]:
    """name -> (dtype, shape, bytes), and the metadata."""
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + length])
    metadata = header.pop("__metadata__", {})
    body = data[8 + length:]
    return {name: (entry["dtype"], entry["shape"], body[slice(*entry["data_offsets"])])
            for name, entry in header.items()}, metadata


def crc32c(data: bytes, crc: int = 0) -> int:
    crc ^= 0xffffffff
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82f63b78 if crc & 1 else 0)
    return crc ^ 0xffffffff


def checksum(tensors: dict, metadata: dict) -> str:
    """The metadata "trit.crc32c" of a file, as docs/format.md defines it."""
    content = b""
    for key in sorted(metadata):
        if key != "trit.crc32c":
            content += key.encode() + b"\0" + metadata[key].encode() + b"\0"
    for name in sorted(tensors):
        dtype, shape, data = tensors[name]
        content += f"{name}\0{dtype}\0[{', '.join(map(str, shape))}]\0".encode() + data
    return f"{crc32c(content):08x}"


def pack_codes(rows: list[list[int]]) -> bytes:
    """Weights -1, 0, +1 to the stored form: four per byte, low bits first, two's complement."""
    out = bytearray()
    for row in rows:
        for first in range(0, len(row), 4):
            out.append(sum((t & 3) << (2 * i) for i, t in enumerate(row[first:first + 4])))
    return bytes(out)


def lcg(count: int) -> list[int]:
    """v = s >> 16 of s = (1103515245 s + 12345) mod 2^31, from s = 1: the source of the golden vectors."""
    state, values = 1, []
    for _ in range(count):
        state = (1103515245 * state + 12345) & 0x7fffffff
        values.append(state >> 16)
    return values


def stored_form(graph: dict) -> dict:
    return {"trit.version": "1", "trit.layout": "rows-2bit", "trit.scale": "multiply", "trit.model": json.dumps(graph)}


def chain(shape: list[int], nodes: list[dict], **about_input) -> dict:
    """A graph in which every node reads the one before it."""
    return {"input": {"shape": shape, **about_input},
            "nodes": [{"op": "input"}, *({**node, "inputs": [i]} for i, node in enumerate(nodes))]}


def ternary(generator: random.Random, rows: int, columns: int, scale: float) -> dict:
    codes = pack_codes([[generator.randint(-1, 1) for _ in range(columns)] for _ in range(rows)])
    return {"weight": ("U8", [rows, (columns + 3) // 4], codes), "weight_scale": ("F32", [1], f32([scale]))}


def image_model(path: pathlib.Path, mean: list[float] = [0.5] * 3, std: list[float] = [0.25] * 3,
                classes: list[str] = DRAWN, with_checksum: bool = True) -> pathlib.Path:
    """A small network for images: conv, ReLU, pool, two ternary layers."""
    generator = random.Random(7)
    layers = {"fc1": ternary(generator, 16, 256, 0.0625), "fc2": ternary(generator, 10, 16, 0.25)}
    tensors = {f"{layer}.{name}": tensor for layer, own in layers.items() for name, tensor in own.items()}
    tensors["conv1.weight"] = ("F32", [4, 3, 3, 3], f32([generator.uniform(-0.3, 0.3) for _ in range(108)]))
    tensors["conv1.bias"] = ("F32", [4], f32([0.1, -0.1, 0.2, 0.0]))
    tensors["fc1.norm.weight"] = ("F32", [256], f32([1 + i / 512 for i in range(256)]))
    tensors["fc2.bias"] = ("F32", [10], f32([i / 16 for i in range(10)]))
    metadata = stored_form(chain(
        [3, 32, 32],
        [{"op": "conv2d", "name": "conv1", "stride": 1, "padding": 1}, {"op": "relu"},
         {"op": "max_pool2d", "kernel": 4, "stride": 4}, {"op": "flatten"},
         {"op": "bit_linear", "name": "fc1", "norm": "rms", "eps": 1e-6}, {"op": "relu"},
         {"op": "bit_linear", "name": "fc2", "norm": "none"}],
        mean=mean, std=std, classes=classes))
    if with_checksum:
        metadata["trit.crc32c"] = checksum(tensors, metadata)
    return write_safetensors(path, tensors, metadata)


class CommandTest(unittest.TestCase):
    """Each test has its own folder, self.root."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = pathlib.Path(folder.name)

    def trit(self, *arguments, timeout: float = 300, environment: dict | None = None,
             **options) -> subprocess.CompletedProcess:
        variables = {key: value for key, value in os.environ.items() if key not in ("TRIT_BACKEND", "TRIT_CIFAR10")}
        return subprocess.run([TRIT, *map(str, arguments)], capture_output="stdout" not in options, text=True,
                              timeout=timeout, env={**variables, **(environment or {})}, **options)

    def succeeds(self, *arguments, **options) -> subprocess.CompletedProcess:
        result = self.trit(*arguments, **options)
        self.assertEqual(result.returncode, 0, f"trit {arguments}: {result.stderr}")
        return result

    def json(self, *arguments, **options) -> dict:
        """The one JSON object on standard output."""
        return json.loads(self.succeeds(*arguments, "--json", **options).stdout)

    def fails(self, *arguments, code: int = 1, says: str | tuple[str, ...] = (), **options) -> str:
        """Exit code `code`, nothing on standard output, every text of `says` on standard error."""
        result = self.trit(*arguments, **options)
        self.assertEqual(result.returncode, code, f"trit {arguments}: {result.stdout}{result.stderr}")
        if "stdout" not in options:
            self.assertEqual(result.stdout, "")
        for text in (says,) if isinstance(says, str) else says:
            self.assertIn(text, result.stderr)
        self.assertTrue(result.stderr.strip(), "an error without a message")
        return result.stderr
