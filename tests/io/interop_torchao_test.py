# SPDX-License-Identifier: MIT
"""torchao's packed int8, as its own code packs it, read by the trit command."""

import unittest

import numpy
import torch
from safetensors.numpy import load_file, save_file
from torchao.prototype.quantized_training.bitnet import _pack_i2_in_i8

from interop_files import Folder, pack_rows, trit


class Torchao(Folder):
    def test_we_read_its_packing(self):
        t = self.ternary(9, 40)
        packed = _pack_i2_in_i8(torch.from_numpy(t)).numpy()
        save_file({"fc.weight.int_data": packed, "fc.weight.scale": numpy.array(0.5, numpy.float32)}, self.root / "x")
        trit("convert", self.root / "x", self.root / "own", "--to", "trit")
        numpy.testing.assert_array_equal(load_file(self.root / "own")["fc.weight"], pack_rows(t))


if __name__ == "__main__":
    unittest.main()
