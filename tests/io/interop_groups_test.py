# SPDX-License-Identifier: MIT
"""Group scales in GGUF files of the trit command against decoders and encoders in NumPy, written from the formats'
descriptions alone: Q2_0, PQ2_0, PTQ1_0. No package knows the last two."""

import json
import struct
import unittest
from pathlib import Path

import numpy
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from interop_files import Folder, call, pack_rows, refusal, save_own, trit

TYPES = {"q2_0": 42, "pq2_0": 142, "ptq1_0": 143}
BLOCKS = {"q2_0": (64, 18), "pq2_0": (128, 34), "ptq1_0": (128, 28)}
# Of the bytes of a PTQ1_0 block: first byte, number of bytes, digits in each, first weight.
DIGITS = ((0, 16, 5, 0), (16, 8, 5, 80), (24, 2, 4, 120))


def decode(kind: str, data: bytes, columns: int) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Codes minus one [rows, columns] and scales [rows, blocks] of a matrix's bytes."""
    weights, size = BLOCKS[kind]
    blocks = numpy.frombuffer(data, numpy.uint8).reshape(-1, columns // weights, size)
    if kind == "ptq1_0":
        q = numpy.empty((*blocks.shape[:2], weights), numpy.int64)
        for first, count, digits, weight in DIGITS:
            for m in range(count):
                for n in range(digits):
                    fraction = blocks[..., first + m].astype(numpy.int64) * 3 ** n % 256
                    q[..., weight + n * count + m] = fraction * 3 // 256
        d = blocks[..., 26:]
    else:
        q = numpy.stack([blocks[..., 2:] >> shift & 3 for shift in (0, 2, 4, 6)], -1).astype(numpy.int64)
        d = blocks[..., :2]
    scales = numpy.ascontiguousarray(d).view(numpy.float16)[..., 0]
    return q.reshape(len(blocks), columns) - 1, scales


def encode(kind: str, t: numpy.ndarray, scales: numpy.ndarray) -> bytes:
    """The inverse of decode()."""
    weights, size = BLOCKS[kind]
    q = (t + 1).reshape(len(t), -1, weights).astype(numpy.int64)
    blocks = numpy.zeros((*q.shape[:2], size), numpy.uint8)
    d = scales.astype(numpy.float16)[..., None].view(numpy.uint8)
    if kind == "ptq1_0":
        for first, count, digits, weight in DIGITS:
            for m in range(count):
                number = sum(q[..., weight + n * count + m] * 3 ** (4 - n) for n in range(digits))
                blocks[..., first + m] = (number * 256 + 242) // 243
        blocks[..., 26:] = d
    else:
        fields = q.reshape(*q.shape[:2], -1, 4)
        blocks[..., 2:] = sum(fields[..., i] << 2 * i for i in range(4))
        blocks[..., :2] = d
    return blocks.tobytes()


class Reader:
    """A GGUF file: its keys, and name -> (shape, type, data)."""

    SIZES = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}

    def __init__(self, path: Path):
        self.data, self.at = path.read_bytes(), 0
        magic, version, tensors, pairs = self.take("<4sIQQ")
        assert (magic, version) == (b"GGUF", 3)
        self.keys = {}
        for _ in range(pairs):
            key = self.string()
            self.keys[key] = self.value(self.take("<I")[0])
        self.tensors = {}
        entries = []
        for _ in range(tensors):
            name = self.string()
            shape = self.take(f"<{self.take('<I')[0]}Q")[::-1]
            entries.append((name, shape, *self.take("<IQ")))
        begin = (self.at + 31) // 32 * 32
        for name, shape, kind, offset in entries:
            self.tensors[name] = (shape, kind, self.data[begin + offset:])

    def take(self, form: str) -> tuple:
        values = struct.unpack_from(form, self.data, self.at)
        self.at += struct.calcsize(form)
        return values

    def string(self) -> str:
        size, = self.take("<Q")
        self.at += size
        return self.data[self.at - size:self.at].decode()

    def value(self, kind: int):
        if kind == 8:
            return self.string()
        if kind == 9:
            element, count = self.take("<IQ")
            return [self.value(element) for _ in range(count)]
        return self.take("<" + self.SIZES[kind])[0]


def write_gguf(path: Path, tensors: dict, keys: dict | None = None) -> None:
    """name -> (shape, type, data); keys -> value: int as u32, list of int as i32, str, list of str, bool."""
    text = lambda value: struct.pack("<Q", len(value.encode())) + value.encode()  # noqa: E731
    def packed(value) -> bytes:
        if isinstance(value, bool):
            return struct.pack("<I?", 7, value)
        if isinstance(value, int):
            return struct.pack("<II", 4, value)
        if isinstance(value, str):
            return struct.pack("<I", 8) + text(value)
        of_text = bool(value) and isinstance(value[0], str)
        body = b"".join(text(one) for one in value) if of_text else struct.pack(f"<{len(value)}i", *value)
        return struct.pack("<IIQ", 9, 8 if of_text else 5, len(value)) + body
    keys = {"general.architecture": "qwen35", **(keys or {})}
    header = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(keys))
    header += b"".join(text(key) + packed(value) for key, value in keys.items())
    data = b""
    for name, (shape, kind, bytes_) in tensors.items():
        header += text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape[::-1], kind, len(data))
        data += bytes_ + bytes(-len(bytes_) % 32)
    path.write_bytes(header + bytes(-len(header) % 32) + data)


class Groups(Folder):
    def matrix(self, rows: int, columns: int, group: int) -> tuple[numpy.ndarray, numpy.ndarray]:
        """Weights, and float16 scales of the whole positive range."""
        scales = self.random.integers(1, 0x7c00, (rows, columns // group)).astype(numpy.uint16).view(numpy.float16)
        return self.ternary(rows, columns), scales

    def values(self, t: numpy.ndarray, scales: numpy.ndarray) -> numpy.ndarray:
        return t.astype(numpy.float32) * numpy.repeat(scales.astype(numpy.float32), t.shape[1] // scales.shape[1], 1)

    def test_the_encoders_invert_the_decoders(self):
        for kind, (weights, _) in BLOCKS.items():
            t, scales = self.matrix(5, 3 * weights, weights)
            found, d = decode(kind, encode(kind, t, scales), t.shape[1])
            numpy.testing.assert_array_equal(found, t)
            numpy.testing.assert_array_equal(d, scales)

    def test_what_we_write(self):
        t, scales = self.matrix(7, 768, 128)
        embedding, of_embedding = self.matrix(33, 256, 128)
        norm = numpy.ones(768, numpy.float32)
        save_own(self.root / "own", {"w.weight": (t, scales), "token_embd.weight": (embedding, of_embedding)},
                 {"norm": norm}, group=128)
        for kind, (weights, size) in BLOCKS.items():
            with self.subTest(kind=kind):
                path = self.root / kind
                trit("convert", self.root / "own", path, "--to", "gguf", "--type", kind)
                tensors = Reader(path).tensors
                for name, matrix, factors in (("w.weight", t, scales), ("token_embd.weight", embedding, of_embedding)):
                    shape, number, data = tensors[name]
                    self.assertEqual((shape, number), (matrix.shape, TYPES[kind]))
                    wanted = encode(kind, matrix, numpy.repeat(factors, 128 // weights, 1))
                    self.assertEqual(data[:len(wanted)], wanted)
                    found, d = decode(kind, data[:len(wanted)], matrix.shape[1])
                    numpy.testing.assert_array_equal(self.values(found, d), self.values(matrix, factors))
                trit("diff", self.root / "own", path)
                trit("convert", path, self.root / "back", "--to", "trit")
                back = load_file(self.root / "back")
                numpy.testing.assert_array_equal(back["w.weight"], pack_rows(t))
                self.assertEqual(back["w.weight_scale"].dtype, numpy.float16)
                numpy.testing.assert_array_equal(back["w.weight_scale"], numpy.repeat(scales, 128 // weights, 1))
        self.assertIn("per 128 inputs", trit("info", self.root / "own"))
        row = json.loads(trit("info", self.root / "own", "--json"))["layers"][-1]
        self.assertEqual((row["group"], row["scale_range"]), (128, [float(scales.min()), float(scales.max())]))
        self.assertIn("per 128 inputs", trit("info", self.root / "pq2_0", "--codes"))
        # Without --type, the type that suits the groups.
        trit("convert", self.root / "own", self.root / "x", "--to", "gguf")
        self.assertEqual(Reader(self.root / "x").tensors["w.weight"][1], 142)

    def test_what_we_read(self):
        """Negative scales and blocks with d = 0 as well; and the blocks of 128 that older files have under type 42."""
        for kind, number in (*TYPES.items(), ("pq2_0", 42)):
            with self.subTest(kind=kind, number=number):
                weights, _ = BLOCKS[kind]
                t, scales = self.matrix(9, 6 * weights, weights)
                signed = scales * self.random.choice([-1, 1], scales.shape).astype(numpy.float16)
                signed[self.random.random(scales.shape) < 0.1] = 0
                values = self.values(t, signed)
                path = self.root / "x"
                write_gguf(path, {"w.weight": (t.shape, number, encode(kind, t, signed))}, {"prism.made_by": "a test"})
                trit("convert", path, self.root / "own", "--to", "trit")
                own = load_file(self.root / "own")
                factors = own["w.weight_scale"]
                self.assertTrue((factors > 0).all())
                numpy.testing.assert_array_equal(factors[signed != 0], numpy.abs(signed)[signed != 0])
                packed = own["w.weight"]
                found = numpy.stack([packed >> shift & 3 for shift in (0, 2, 4, 6)], -1).reshape(t.shape).astype(numpy.int8)
                numpy.testing.assert_array_equal(self.values(numpy.where(found == 3, -1, found), factors), values)
                trit("diff", path, self.root / "own")

    def test_experts(self):
        t, scales = self.matrix(12, 256, 128)
        write_gguf(self.root / "x", {"blk.0.ffn_up_exps.weight": ((3, 4, 256), 142, encode("pq2_0", t, scales))})
        trit("convert", self.root / "x", self.root / "y", "--to", "gguf", "--type", "ptq1_0")
        shape, number, data = Reader(self.root / "y").tensors["blk.0.ffn_up_exps.weight"]
        self.assertEqual((shape, number), ((3, 4, 256), 143))
        self.assertEqual(data[:12 * 2 * 28], encode("ptq1_0", t, scales))
        self.assertIn("a stack of matrices", refusal("convert", self.root / "x", self.root / "hf", "--to", "hf"))
        trit("convert", self.root / "x", self.root / "own", "--to", "trit")
        trit("diff", self.root / "x", self.root / "own")
        trit("convert", self.root / "x", self.root / "z", "--to", "safetensors")
        numpy.testing.assert_array_equal(load_file(self.root / "z")["blk.0.ffn_up_exps.weight"],
                                         self.values(t, scales).reshape(3, 4, 256).astype(numpy.float16))

    def test_unpacked(self):
        """Floats that are ternary in groups of 128, as models are published for programs without such kernels."""
        t, scales = self.matrix(8, 640, 128)
        values = self.values(t, scales)
        other = self.random.standard_normal((8, 640)).astype(numpy.float32)
        for dtype in (numpy.float16, numpy.float32):
            save_file({"a.up_proj.weight": values.astype(dtype), "lm_head.weight": values.astype(dtype)}, self.root / "x")
            trit("convert", self.root / "x", self.root / "y", "--to", "gguf", "--type", "pq2_0", "--unpacked")
            for name, (shape, number, data) in Reader(self.root / "y").tensors.items():
                self.assertEqual((shape, number), ((8, 640), 142), name)
                numpy.testing.assert_array_equal(self.values(*decode("pq2_0", data[:8 * 5 * 34], 640)), values)
            trit("convert", self.root / "y", self.root / "z", "--to", "safetensors")
            back = load_file(self.root / "z")
            numpy.testing.assert_array_equal(back["a.up_proj.weight"], values.astype(numpy.float16))
        save_file({"a.up_proj.weight": values, "lm_head.weight": other}, self.root / "x")
        trit("convert", self.root / "x", self.root / "y", "--to", "trit", "--unpacked", "--group", "64")
        own = load_file(self.root / "y")
        self.assertEqual(own["a.up_proj.weight_scale"].shape, (8, 10))
        numpy.testing.assert_array_equal(own["lm_head.weight"], other)
        values[5, 200] = 1.5 * scales[5, 1]
        save_file({"a.up_proj.weight": values}, self.root / "x")
        said = refusal("convert", self.root / "x", self.root / "z", "--to", "trit", "--unpacked")
        self.assertIn('"a.up_proj.weight" is not ternary: row 5, columns 192 to 223', said)
        said = refusal("convert", self.root / "x", self.root / "z", "--to", "trit", "--unpacked", "--group", "128")
        self.assertIn("row 5, columns 128 to 255", said)
        call("convert", self.root / "x", self.root / "z", "--to", "trit", "--group", "128", expect=2)

    def test_rotated_weights(self):
        t, scales = self.matrix(4, 1024, 128)
        signs = self.random.choice([-1, 1], 1024).tolist()
        keys = {"version": 1, "block_size": 1024, "transform": "normalized-sylvester-walsh-hadamard",
                "axis": "input-last-dimension", "sign_mode": "explicit", "sign_widths": [1024], "sign_values": signs,
                "weight_names": ["blk.0.ffn_down.weight"], "gdn_v_grouped": True}
        keys = {f"prism.hadamard.{name}": value for name, value in keys.items()}
        tensors = {"blk.0.ffn_down.weight": (t.shape, 143, encode("ptq1_0", t, scales))}
        write_gguf(self.root / "x", tensors, keys)
        self.assertIn("rotated weights (prism.hadamard, blocks of 1024)", trit("info", self.root / "x"))
        trit("convert", self.root / "x", self.root / "y", "--to", "gguf", "--type", "pq2_0")
        kept = {key: value for key, value in Reader(self.root / "y").keys.items() if key.startswith("prism.")}
        self.assertEqual(kept, keys)
        trit("convert", self.root / "x", self.root / "own", "--to", "trit")
        self.assertIn("rotated weights", trit("info", self.root / "own"))
        trit("convert", self.root / "own", self.root / "z", "--to", "gguf", "--type", "ptq1_0", "--architecture", "qwen35")
        kept = {key: value for key, value in Reader(self.root / "z").keys.items() if key.startswith("prism.")}
        self.assertEqual(kept, keys)
        self.assertIn("prism.hadamard.*", refusal("convert", self.root / "x", self.root / "hf", "--to", "hf"))
        write_gguf(self.root / "x", tensors, keys | {"prism.hadamard.sign_values": signs[:-1]})
        self.assertIn("prism.hadamard.sign_values", refusal("info", self.root / "x"))

    def test_rotated_weights_under_other_names(self):
        """A model of transformers gets llama.cpp's names in a GGUF file: the keys name the matrices so."""
        t, scales = self.matrix(512, 512, 128)
        name, other = "model.layers.0.mlp.up_proj.weight", "blk.0.ffn_up.weight"
        config = {"architectures": ["Qwen3ForCausalLM"], "hidden_size": 512, "intermediate_size": 512, "num_hidden_layers": 1,
                  "num_attention_heads": 4, "num_key_value_heads": 4, "max_position_embeddings": 64, "rms_norm_eps": 1e-6,
                  "vocab_size": 8, "head_dim": 128}
        save_own(self.root / "own", {name: (t, scales)}, {}, config=config, group=128)
        keys = {"version": 1, "block_size": 512, "transform": "normalized-sylvester-walsh-hadamard",
                "axis": "input-last-dimension", "sign_mode": "identity", "weight_names": [name]}
        keys = {f"prism.hadamard.{key}": value for key, value in keys.items()}
        trit("convert", self.root / "own", self.root / "model.safetensors", "--to", "safetensors")
        (self.root / "config.json").write_text(json.dumps(config))
        (self.root / "hadamard.json").write_text(json.dumps(keys))
        trit("convert", self.root / "model.safetensors", self.root / "x", "--to", "gguf", "--type", "ptq1_0", "--unpacked")
        reader = Reader(self.root / "x")
        self.assertEqual(reader.tensors[other][:2], ((512, 512), 143))
        self.assertEqual(reader.keys["prism.hadamard.weight_names"], [other])
        (self.root / "hadamard.json").unlink()
        trit("convert", self.root / "x", self.root / "back", "--to", "trit")
        with safe_open(self.root / "back", "numpy") as back:
            self.assertEqual(json.loads(back.metadata()["trit.hadamard"])["prism.hadamard.weight_names"], [name])
            numpy.testing.assert_array_equal(back.get_tensor(name), pack_rows(t))


if __name__ == "__main__":
    unittest.main()
