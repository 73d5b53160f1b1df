# SPDX-License-Identifier: MIT
"""trit pack and trit run, from float weights to outputs, against the golden bits of the numerics contract."""
import json
import math
import struct
import unittest

from trit_files import (CommandTest, bits, chain, checksum, f32, floats, lcg, pack_codes, read_safetensors,
                        stored_form, write_safetensors)

N, K, M = 5, 600, 3
VALUES = lcg(5405)
W = [(v - 16384) / 131072 for v in VALUES[:N * K]]
X = [(v - 16384) / 4096 for v in VALUES[N * K:(N + M) * K]]
G = [v / 32768 + 0.5 for v in VALUES[(N + M) * K:(N + M + 1) * K]]
BIAS = [(v - 16384) / 16384 for v in VALUES[(N + M + 1) * K:]]
BETA = "3d7fca57"
BETA_ROWS = "3d7a536d 3d8059ae 3d807b16 3d81ad09 3d7f9cab"
Y_PLAIN = ("3ffe3fb0 bfb4be41 3faaecf9 3f09f2e8 3ff671f2 c0526b72 bfde16ba 409a5538 c04de713 c00e89d0 "
           "3f917049 c05641fc c05baaec 3e02d82d be12f2c8")
Y_NORM_BIAS = ("3f50b020 beca0948 bea00d24 bf063ba2 3f819adb bfa70bcc 3f07c403 3f7b3386 c0162a84 be85ef50 "
               "bde6c5d8 bebfb7b4 bff671e4 bfc8959d bf38c845")
Y_NORM_ROWS = ("3f73ef12 bf968aae 3eab7af3 3ee22d92 3f9ae92d bf63fa29 bed5eb3e 3fd13dea bfc147ca bd810634 "
               "bcf0dbe2 bfa900de bfa481d7 bf3ebb59 bf05dc5a")
# Groups of 128 inputs: tests/format/golden_groups.py.
BETA_GROUPS = ("3d7c3960 3d602bb0 3d8f9ff8 3d6c1f70 3d7c8f74", "3d81dd58 3d7bdd30 3d843a78 3d825f60 3d722a74",
               "3d80f188 3d785200 3d813d98 3d83aaa0 3d805a80", "3d7f0b70 3d82d6d8 3d808048 3d82db18 3d831bdd",
               "3d876068 3d7e6410 3d794750 3d80d360 3d719c46")
Y_GROUPS = ("3f744ba4 be87f430 bec5dcb9 bef033b5 3f8f0318 bf808294 3efd337a 3f8b2ced c01df506 beb335da "
            "be5d64ce bf1ff062 bffb5622 bfe0d028 bf720e36")
OWN_FORM = ("31f44f5fffd17f5451f0f5747d3413c07c01cdc0cd00570f1dff57c131c0d54d437471d07074131c3d10f10451f5453dc01dcffc"
            "31454c0cfd1171fcf5f35c11")


def half(values: list[float], kind: str) -> bytes:
    if kind == "F16":
        return struct.pack(f"<{len(values)}e", *values)
    return b"".join(struct.pack("<f", value)[2:] for value in values)  # exact for values with 8 bits


class GoldenTest(CommandTest):
    def packed(self, *options: str) -> dict:
        source = write_safetensors(self.root / "w.safetensors", {"fc.weight": ("F32", [N, K], f32(W))})
        self.succeeds("pack", source, self.root / "packed.safetensors", *options)
        return read_safetensors(self.root / "packed.safetensors")[0]

    def run_model(self, tensors: dict, norm: str, backend: str = "auto", metadata: dict = {}) -> str:
        graph = chain([K], [{"op": "bit_linear", "name": "fc", "norm": norm, "eps": 1e-6}])
        model = write_safetensors(self.root / "model.safetensors", tensors, {**stored_form(graph), **metadata})
        x = write_safetensors(self.root / "x.safetensors", {"x": ("F32", [M, K], f32(X))})
        self.succeeds("run", model, "--input", x, "--output", self.root / "y.safetensors", "--backend", backend)
        (dtype, shape, data) = read_safetensors(self.root / "y.safetensors")[0]["y"]
        self.assertEqual((dtype, shape), ("F32", [M, N]))
        return bits(data)

    def test_stored_form(self) -> None:
        # Ternary weights times a power of two come back as they are: the 16x16 golden matrix.
        matrix = [(v % 3) - 1 for v in lcg(256)]
        self.assertEqual(pack_codes([matrix[i:i + 16] for i in range(0, 256, 16)]).hex(), OWN_FORM)
        source = write_safetensors(self.root / "t.safetensors", {"t.weight": ("F32", [16, 16], f32(matrix))})
        self.succeeds("pack", source, self.root / "p.safetensors")
        self.assertEqual(read_safetensors(self.root / "p.safetensors")[0]["t.weight"],
                         ("U8", [16, 4], bytes.fromhex(OWN_FORM)))

    def test_scales_and_codes(self) -> None:
        tensors = self.packed()
        self.assertEqual(tensors["fc.weight"][:2], ("U8", [N, K // 4]))
        self.assertEqual((tensors["fc.weight_scale"][1], bits(tensors["fc.weight_scale"][2])), ([1], BETA))
        codes = self.json("info", self.root / "packed.safetensors", "--codes")["layers"][0]["codes"]
        self.assertEqual(codes, {"minus_one": 1107, "zero": 763, "plus_one": 1130})
        rows = self.packed("--scale", "row")
        self.assertEqual((rows["fc.weight_scale"][1], bits(rows["fc.weight_scale"][2])), ([N], BETA_ROWS))

    def test_outputs_on_every_backend(self) -> None:
        backends = self.succeeds("--help").stdout.split("Backends of this machine: ")[1].split(".")[0].split(", ")
        self.assertIn("scalar", backends)
        per_tensor, per_row = self.packed(), self.packed("--scale", "row")
        norm = {"fc.norm.weight": ("F32", [K], f32(G))}
        bias = {"fc.bias": ("F32", [N], f32(BIAS))}
        for backend in backends:
            with self.subTest(backend):
                self.assertEqual(self.run_model(per_tensor, "none", backend), Y_PLAIN)
                self.assertEqual(self.run_model({**per_tensor, **norm, **bias}, "rms", backend), Y_NORM_BIAS)
                self.assertEqual(self.run_model({**per_row, **norm}, "rms", backend), Y_NORM_ROWS)

    def test_group_scales(self) -> None:
        tensors = self.packed("--scale", "group:128")
        metadata = read_safetensors(self.root / "packed.safetensors")[1]
        self.assertEqual(metadata["trit.group"], "128")
        self.assertEqual((tensors["fc.weight_scale"][:2], bits(tensors["fc.weight_scale"][2])),
                         (("F32", [N, 5]), " ".join(BETA_GROUPS)))
        codes = self.json("info", self.root / "packed.safetensors", "--codes")["layers"][0]["codes"]
        self.assertEqual(codes, {"minus_one": 1114, "zero": 752, "plus_one": 1134})
        layer = {**tensors, "fc.norm.weight": ("F32", [K], f32(G)), "fc.bias": ("F32", [N], f32(BIAS))}
        self.assertEqual(self.run_model(layer, "rms", metadata={"trit.group": "128"}), Y_GROUPS)
        source = self.root / "w.safetensors"
        for scale in ("group", "group:", "group:0", "group:16", "group:100", "group:-32", "group:128x", "column"):
            self.fails("pack", source, self.root / "no.safetensors", "--scale", scale, code=2,
                       says=("--scale", "tensor, row or group:G"))

    def test_a_packed_graph_runs(self) -> None:
        graph = chain([K], [{"op": "linear", "name": "fc"}])
        path = write_safetensors(self.root / "m.safetensors", {"fc.weight": ("F32", [N, K], f32(W))}, stored_form(graph))
        self.succeeds("pack", path, path)  # onto itself
        tensors, metadata = read_safetensors(path)
        self.assertEqual(json.loads(metadata["trit.model"])["nodes"][1],
                         {"op": "bit_linear", "name": "fc", "inputs": [0], "norm": "none"})
        self.assertEqual(metadata["trit.crc32c"], checksum(tensors, metadata))
        self.assertEqual(self.run_model(tensors, "none"), Y_PLAIN)
        self.fails("pack", path, path, says="nothing to pack")

    def test_a_float_embedding_is_packed_and_looked_up(self) -> None:
        graph = chain([2], [{"op": "embedding", "name": "tok", "features": K}])
        path = write_safetensors(self.root / "m.safetensors", {"tok.weight": ("F32", [N, K], f32(W))}, stored_form(graph))
        x = write_safetensors(self.root / "x.safetensors", {"x": ("F32", [1, 2], f32([N - 1, 0]))})
        run = ("run", path, "--input", x, "--output", self.root / "y.safetensors")
        self.fails(*run, says=("tok.weight", "is float", "trit pack"))
        self.succeeds("pack", "--scale", "row", path, path)
        tensors, metadata = read_safetensors(path)
        self.assertEqual(json.loads(metadata["trit.model"]), graph)
        self.succeeds(*run)
        _, shape, y = read_safetensors(self.root / "y.safetensors")[0]["y"]
        self.assertEqual(shape, [1, 2, K])
        scale = floats(tensors["tok.weight_scale"][2])
        for at, row in enumerate((N - 1, 0)):
            values = floats(y)[at * K:(at + 1) * K]
            self.assertLessEqual(set(values), {-scale[row], 0.0, scale[row]})
            self.assertEqual([value > 0 for value in values], [round(w / scale[row]) > 0 for w in W[row * K:(row + 1) * K]])
        write_safetensors(x, {"x": ("F32", [1, 2], f32([0, N]))})
        self.fails(*run, says=("index 1 of batch row 0", f"from 0 to {N - 1}"))
        self.assertIn("embedding", self.succeeds("info", path, "--codes").stdout)

    def test_a_float_bit_linear_node_is_packed_with_its_norm(self) -> None:
        graph = chain([K], [{"op": "bit_linear", "name": "fc", "norm": "rms", "eps": 1e-6}])
        path = write_safetensors(self.root / "m.safetensors", {
            "fc.weight": ("F32", [N, K], f32(W)), "fc.norm.weight": ("F32", [K], f32(G)),
            "fc.bias": ("F32", [N], f32(BIAS))}, stored_form(graph))
        x = write_safetensors(self.root / "x.safetensors", {"x": ("F32", [M, K], f32(X))})
        run = ("run", path, "--input", x, "--output", self.root / "y.safetensors")
        self.fails(*run, says=("fc.weight", "is float", "trit pack"))
        self.succeeds("pack", path, path)
        self.assertEqual(json.loads(read_safetensors(path)[1]["trit.model"]), graph)
        self.succeeds(*run)
        self.assertEqual(bits(read_safetensors(self.root / "y.safetensors")[0]["y"][2]), Y_NORM_BIAS)


class PackTest(CommandTest):
    def pack(self, tensors: dict, *options: str, metadata: dict | None = None) -> tuple[dict, dict]:
        source = write_safetensors(self.root / "in.safetensors", tensors, metadata)
        self.succeeds("pack", source, self.root / "out.safetensors", *options)
        return read_safetensors(self.root / "out.safetensors")

    def refuses(self, tensors: dict, *options: str, says, metadata: dict | None = None, also: list = []) -> None:
        source = write_safetensors(self.root / "in.safetensors", tensors, metadata)
        out = self.root / "out.safetensors"
        out.write_text("as it was")
        self.fails("pack", source, out, *options, says=says)
        self.assertEqual(out.read_text(), "as it was")
        self.assertEqual({path.name for path in self.root.iterdir()}, {"in.safetensors", "out.safetensors", *also})

    def test_what_is_packed_and_what_is_copied(self) -> None:
        tensors = {"a.weight": ("F32", [2, 3], f32([1, -1, 0, 0, 1, 1])), "a.bias": ("F16", [2], half([0.5, 2], "F16")),
                   "a.norm.weight": ("BF16", [3], half([1, 2, 3], "BF16")), "b.weight": ("F32", [4], f32([1, 2, 3, 4])),
                   "c.weight": ("I64", [1, 2], bytes(16)), "emb": ("F32", [1, 4], f32([1, 0, 0, -1]))}
        out, metadata = self.pack(tensors, metadata={"format": "pt", "trit.crc32c": "old"})
        self.assertEqual(out["a.weight"], ("U8", [2, 1], pack_codes([[1, -1, 0], [0, 1, 1]])))
        self.assertEqual(out["a.bias"], ("F32", [2], f32([0.5, 2])))
        self.assertEqual(out["a.norm.weight"], ("F32", [3], f32([1, 2, 3])))
        for name in ("b.weight", "c.weight", "emb"):
            self.assertEqual(out[name], tensors[name])
        self.assertEqual(sorted(out), sorted([*tensors, "a.weight_scale"]))
        self.assertEqual(metadata["format"], "pt")
        self.assertEqual(metadata["trit.in_features.a.weight"], "3")
        self.assertEqual(metadata["trit.crc32c"], checksum(out, metadata))
        rows = {row["name"]: row for row in self.json("info", self.root / "out.safetensors")["layers"]}
        self.assertEqual((rows["a.weight"]["type"], rows["a.weight"]["shape"]), ("ternary", [2, 3]))

    def test_filter(self) -> None:
        tensors = {name: ("F32", [1, 4], f32([1, 0, 0, -1])) for name in ("l.0.q.weight", "l.0.k.weight", "head.weight", "emb")}
        self.assertEqual({name for name, tensor in self.pack(tensors, "--filter", r"^l\.\d+\.|emb")[0].items() if tensor[0] == "U8"},
                         {"l.0.q.weight", "l.0.k.weight", "emb"})
        self.refuses(tensors, "--filter", "nowhere", says=("nothing to pack", "'nowhere'"))

    def test_what_a_linear_layer_holds(self) -> None:
        """Without a graph: chosen by config.json and names. --filter overrides both."""
        floats = ("F32", [1, 4], f32([1, 0.5, 0, -0.25]))
        tensors = {name: floats for name in (
            "model.embed_tokens.weight", "wpe.weight", "lm_head.weight", "l.0.norm.weight", "l.0.q_proj.weight",
            "l.0.up_proj.weight", "table")}
        tensors["l.0.experts.weight"] = ("F32", [1, 1, 4], f32([1, 2, 3, 4]))
        tensors["l.0.conv.weight"] = ("F32", [1, 1, 2, 2], f32([1, 2, 3, 4]))
        source = write_safetensors(self.root / "in.safetensors", tensors)
        out = self.root / "out.safetensors"

        def packed(*options: str) -> set:
            self.said = self.succeeds("pack", source, out, *options).stderr
            found = read_safetensors(out)[0]
            for name, tensor in tensors.items():
                self.assertIn(found[name][0], ("U8", "F32"))
                if found[name][0] == "F32":
                    self.assertEqual(found[name], tensor)
            return {name for name in tensors if found[name][0] == "U8"}

        self.assertEqual(packed(), {"l.0.q_proj.weight", "l.0.up_proj.weight"})
        for text in ("model.embed_tokens.weight, wpe.weight (an embedding)", "lm_head.weight (the output layer)",
                     "l.0.norm.weight (a norm)", "l.0.experts.weight (3 dimensions)", "l.0.conv.weight (4 dimensions)",
                     'table (its name does not end in ".weight")', "--filter", "trained in float costs"):
            self.assertIn(text, self.said)
        left = self.json("pack", source, out)["left_float"]
        self.assertIn({"name": "lm_head.weight", "why": "the output layer"}, left)
        self.assertEqual(packed("--filter", "embed_tokens|lm_head|table"),
                         {"model.embed_tokens.weight", "lm_head.weight", "table"})
        config = self.root / "config.json"
        bitnet = {"quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "online"}
        config.write_text(json.dumps({"quantization_config": {**bitnet, "modules_to_not_convert": ["lm_head", "l.0.q_proj"]}}))
        self.assertEqual(packed(), {"l.0.up_proj.weight"})
        self.assertIn("l.0.q_proj.weight, lm_head.weight (named by modules_to_not_convert", self.said)
        self.assertNotIn("trained in float", self.said)
        self.assertEqual(packed("--filter", "q_proj"), {"l.0.q_proj.weight"})
        config.write_text("{")
        self.assertEqual(packed(), {"l.0.q_proj.weight", "l.0.up_proj.weight"})
        self.assertIn("not used: config.json: not valid JSON", self.said)
        self.refuses({"wte.weight": floats}, says=("nothing to pack", "left float: wte.weight (an embedding)"), also=["config.json"])

    def test_weights_that_are_ternary_already_cost_nothing(self) -> None:
        source = write_safetensors(self.root / "in.safetensors", {"w.weight": ("F32", [2, 4], f32([0.5, 0, -0.5, 0.5] * 2))})
        said = self.succeeds("pack", source, self.root / "out.safetensors").stderr
        self.assertNotIn("trained in float", said)

    def test_dtypes_that_are_only_copied(self) -> None:
        sizes = {"C64": 8, "F8_E8M0": 1, "F8_E4M3FNUZ": 1, "F8_E5M2FNUZ": 1, "F8_E4M3": 1, "F6_E2M3": 0.75, "F6_E3M2": 0.75, "F4": 0.5}
        tensors = {"w.weight": ("F32", [2, 4], f32([0.5, 0, -0.5, 0.5] * 2))}
        tensors |= {f"{kind}.weight": (kind, [2, 4], bytes(range(int(8 * size)))) for kind, size in sizes.items()}
        header, body = {}, b""
        for name, (kind, shape, data) in tensors.items():
            header[name] = {"dtype": kind, "shape": shape, "data_offsets": [len(body), len(body) + len(data)]}
            body += data
        text = json.dumps(header).encode()
        source = self.root / "in.safetensors"
        source.write_bytes(struct.pack("<Q", len(text)) + text + body)
        listed = {row["name"]: (row["type"], row["shape"]) for row in self.json("info", source)["layers"]}
        self.assertEqual(listed, {name: (tensor[0], tensor[1]) for name, tensor in tensors.items()})
        for command in (("pack", source, self.root / "out"), ("convert", source, self.root / "out", "--to", "trit"),
                        ("convert", source, self.root / "hf", "--to", "hf")):
            self.succeeds(*command)
            path = self.root / "out" if command[0] == "pack" or "trit" in command else self.root / "hf" / "model.safetensors"
            found = read_safetensors(path)[0]
            for kind in sizes:
                self.assertEqual(found[f"{kind}.weight"], tensors[f"{kind}.weight"], (command, kind))
        self.assertEqual(self.trit("diff", source, self.root / "hf").returncode, 0)

    def test_dtypes(self) -> None:
        values = [1.5, -0.5, 0.25, -2.0]
        for kind, data in (("F16", half(values, "F16")), ("BF16", half(values, "BF16")), ("F64", struct.pack("<4d", *values))):
            out, _ = self.pack({"w.weight": (kind, [1, 4], data)})
            self.assertEqual(out["w.weight"], ("U8", [1, 1], pack_codes([[1, 0, 0, -1]])), kind)
            self.assertEqual(floats(out["w.weight_scale"][2]), (1.0625,))

    def test_values_that_are_not_finite(self) -> None:
        for value, text in ((math.nan, "nan"), (math.inf, "inf"), (-math.inf, "-inf")):
            weights = [1.0] * 12
            weights[7] = value
            self.refuses({"good.weight": ("F32", [1, 4], f32([1.0] * 4)), "w.weight": ("F32", [3, 4], f32(weights))},
                         says=("w.weight", "row 1, column 3", text))
            self.refuses({"w.weight": ("F32", [1, 4], f32([1.0] * 4)), "w.bias": ("F32", [1], f32([value]))},
                         says=("w.bias", "index 0", text))
        self.refuses({"w.weight": ("F32", [1, 4], f32([3e38] * 4))}, "--scale", "row", says="w.weight_scale")

    def test_what_cannot_be_packed(self) -> None:
        matrix = ("F32", [1, 4], f32([1.0] * 4))
        self.refuses({"w": ("F32", [4], f32([1.0] * 4))}, says="nothing to pack")
        self.refuses({"w.weight": ("I64", [1, 4], bytes(32))}, says="nothing to pack")
        self.refuses({"w.weight": matrix, "w.weight_scale": ("F32", [1], f32([1]))}, says="is already a tensor w.weight_scale")
        graph = stored_form(chain([4], [{"op": "linear", "name": "fc"}]))
        self.refuses({"fc.weight": matrix, "other.weight": matrix}, metadata=graph, says="other.weight is not the weight")
        self.refuses({"fc.weight": matrix}, metadata={**graph, "trit.model": "[" * 1000}, says="trit.model")
        conv = stored_form(chain([4], [{"op": "conv2d", "name": "fc"}]))
        self.refuses({"fc.weight": matrix}, metadata=conv, says="conv2d")
        # What the runtime would refuse of the packed model: an op, a shape, a tensor that no node has.
        linear = {"op": "linear", "name": "fc"}
        for nodes, says in (([linear, {"op": "gelu"}], "gelu"), ([{**linear, "bias": True}], "bias"),
                            ([{"op": "relu", "kernel": 2}, linear], "kernel")):
            self.refuses({"fc.weight": matrix}, metadata=stored_form(chain([4], nodes)), says=(says, "node"))
        self.refuses({"fc.weight": matrix}, metadata=stored_form(chain([5], [linear])), says=("fc.weight", "[1, 4]", "[any, 5]"))
        self.refuses({"fc.weight": matrix, "extra": ("F32", [1], f32([1]))}, metadata=graph, says='"extra"')
        self.refuses({"fc.weight": matrix, "fc.bias": ("F32", [3], f32([1] * 3))}, metadata=graph, says="fc.bias")
        self.fails("pack", self.root / "missing", self.root / "out", says="missing")
        write_safetensors(self.root / "in.safetensors", {"w.weight": matrix})
        self.fails("pack", self.root / "in.safetensors", self.root / "no" / "out", says=str(self.root / "no"))

    def test_json(self) -> None:
        source = write_safetensors(self.root / "in.safetensors", {"w.weight": ("F32", [2, 4], f32([1.0] * 8))})
        result = self.json("pack", source, self.root / "out.safetensors")
        self.assertEqual(result["packed"], [{"name": "w.weight", "shape": [2, 4]}])
        self.assertEqual(result["output_bytes"], (self.root / "out.safetensors").stat().st_size)
        size = source.stat().st_size
        onto_itself = self.json("pack", source, source)
        self.assertEqual((onto_itself["input_bytes"], onto_itself["output_bytes"]), (size, source.stat().st_size))
        self.assertNotEqual(size, source.stat().st_size)
        folder = self.root / "shards"  # the bytes of an index are those of its files
        folder.mkdir()
        shards = [write_safetensors(folder / f"{i}.safetensors", {f"{i}.weight": ("F32", [2, 4], f32([1.0] * 8))}) for i in "ab"]
        index = folder / "model.safetensors.index.json"
        index.write_text(json.dumps({"weight_map": {f"{i}.weight": f"{i}.safetensors" for i in "ab"}}))
        for name in (index, folder):
            self.assertEqual(self.json("pack", name, self.root / "packed")["input_bytes"], sum(s.stat().st_size for s in shards))


class RunTest(CommandTest):
    def setUp(self) -> None:
        super().setUp()
        graph = chain([2, 3], [{"op": "flatten"}, {"op": "bit_linear", "name": "fc", "norm": "none"}])
        tensors = {"fc.weight": ("U8", [1, 2], pack_codes([[1, -1, 0, 0, 1, 1]])), "fc.weight_scale": ("F32", [1], f32([0.5]))}
        self.model = write_safetensors(self.root / "model.safetensors", tensors, stored_form(graph))
        self.output = self.root / "y.safetensors"

    def run_on(self, kind: str, shape: list[int], data: bytes, name: str = "x") -> list:
        return ["run", self.model, "--output", self.output, "--input",
                write_safetensors(self.root / "x.safetensors", {name: (kind, shape, data)})]

    def test_dtypes_give_the_same(self) -> None:
        values = [1.0, -0.5, 2.0, 0.0, 127.0, -127.0]
        outputs = []
        for kind, data in (("F32", f32(values)), ("F16", half(values, "F16")), ("BF16", half(values, "BF16"))):
            result = self.json(*self.run_on(kind, [1, 2, 3], data))
            self.assertEqual(result["shape"], [1, 1])
            outputs.append(read_safetensors(self.output)[0]["y"])
        # q = rint(x): 1 - (-0) + 127 - 127 (-0.5 rounds to even), times s = 1, times 0.5
        self.assertEqual(outputs, [("F32", [1, 1], f32([0.5]))] * 3)

    def test_batches(self) -> None:
        self.succeeds(*self.run_on("F32", [0, 2, 3], b""))
        self.assertEqual(read_safetensors(self.output)[0]["y"], ("F32", [0, 1], b""))
        self.succeeds(*self.run_on("F32", [300, 2, 3], f32([127.0, 0, 0, 0, 0, 0] * 300)))
        self.assertEqual(floats(read_safetensors(self.output)[0]["y"][2]), (63.5,) * 300)

    def test_bad_inputs(self) -> None:
        six = f32([1.0] * 6)
        for arguments, says in ((("F32", [6], six), ("[6]", "[batch, 2, 3]")),
                                (("F32", [1, 3, 2], six), ("[1, 3, 2]", "[batch, 2, 3]")),
                                (("F32", [2, 3], six), ("[2, 3]", "[batch, 2, 3]")),
                                (("I64", [1, 2, 3], bytes(48)), ("I64", "F32, F16 or BF16")),
                                (("F32", [1, 2, 3], six, "input"), ('no tensor "x"', "input"))):
            self.fails(*self.run_on(*arguments), says=says)
            self.assertFalse(self.output.exists())
        self.fails("run", self.model, "--input", self.root / "none", "--output", self.output, says="none")
        self.fails("run", self.root / "none", "--input", self.root / "x.safetensors", "--output", self.output, says="none")

    def test_rows_do_not_touch_each_other(self) -> None:
        rows = [127.0, 0, 0, 0, 0, 0] + [math.nan] * 6 + [0, 127.0, 0, 0, 0, 0]
        self.succeeds(*self.run_on("F32", [3, 2, 3], f32(rows)))
        first, bad, last = floats(read_safetensors(self.output)[0]["y"][2])
        self.assertEqual((first, last), (63.5, -63.5))
        self.assertTrue(math.isnan(bad))


if __name__ == "__main__":
    unittest.main()
