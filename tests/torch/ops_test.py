# SPDX-License-Identifier: MIT
"""The operators as Python's dispatcher sees them: schemas, Meta against CPU, autograd registration (opcheck), and what
a layer saves for its backward.

usage: ops_test.py LIBRARY    (libtrit_torch.so)
"""

import sys

import torch


def saved_bytes(run):
    """Bytes of the distinct tensors that run() saves for its backward, inputs by reference included."""
    saved = {}

    def pack(tensor):
        saved[(tensor.untyped_storage().data_ptr())] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        run()
    return sum(saved.values())


def check_operators():
    torch.manual_seed(0)
    x, w, b, g = torch.randn(6, 22), torch.randn(9, 22), torch.randn(9), torch.rand(22) + 0.5
    ops = torch.ops.trit
    q, s, r, q_sum = ops.norm_quant(x, g, True, 1e-6)
    beta = ops.absmean(w, False)
    codes = ops.ternarize_pack(w, beta)
    grad = torch.randn(6, 9)
    wide_x, wide = torch.randn(6, 70), torch.randn(9, 70)
    group_beta = ops.absmean(wide, False, 32)
    group_codes = ops.ternarize_pack(wide, group_beta, 32)
    calls = [
        (ops.norm_quant.default, (x, g, True, 1e-6)),
        (ops.norm_quant.default, (x, None, False, 1e-6)),
        (ops.absmean.default, (w, True)),
        (ops.ternarize_pack.default, (w, beta)),
        (ops.dequantize.default, (codes, beta, 22, torch.bfloat16)),
        (ops.packed_linear.default, (q, s, q_sum, codes, beta, 22, b, torch.float16)),
        (ops.linear_backward_input.default, (grad, codes, beta, 22)),
        (ops.bit_linear_train.default, (x, w, b, g, True, 1e-6, False)),
        (ops.linear_backward_weight.default, (grad, q, s, 22)),
        (ops.linear_backward_int8.default, (grad, q, s, codes, beta, 22, torch.float32, [True, True], False)),
        (ops.absmean.default, (wide, False, 32)),
        (ops.ternarize_pack.default, (wide, group_beta, 32)),
        (ops.dequantize.default, (group_codes, group_beta, 70, torch.bfloat16, 32)),
        (ops.linear_backward_input.default, (grad, group_codes, group_beta, 70, 32)),
        (ops.bit_linear_train.default, (wide_x, wide, b, None, True, 1e-6, False, 32)),
        (ops.packed_linear.default, (*ops.norm_quant(wide_x, None, True, 1e-6)[:2], q_sum, group_codes, group_beta, 70, b,
                                     torch.float32, 32)),
        (ops.rms_norm.default, (x.clone().requires_grad_(), g.clone().requires_grad_(), 1e-6)),
        (ops.rms_norm_backward.default, (x, x, r, g, [True, True])),
    ]
    for shape in [(6, 22), (2, 3, 22), (22,)]:
        leaves = [t.clone().requires_grad_() for t in (torch.randn(shape), w, b, g)]
        calls.append((ops.bit_linear.default, (*leaves, True, 1e-6, False)))
        calls.append((ops.bit_linear.default, (leaves[0], leaves[1], None, None, False, 1e-6, True)))
        calls.append((ops.bit_linear.default, (*leaves, True, 1e-6, False, "int8_all")))
        calls.append((ops.bit_linear.default, (*leaves, True, 1e-6, False, "exact", False, 32)))
    for op, args in calls:
        torch.library.opcheck(op, args)
    print(f"opcheck: {len(calls)} calls")


def check_gradients_of_parts():
    w = torch.randn(9, 22, requires_grad=True)
    try:
        torch.ops.trit.absmean(w, False).sum().backward()
    except RuntimeError as error:
        assert "not implemented" in str(error), error
    else:
        sys.exit("absmean alone has no gradient and must say so")


def check_saved_bytes():
    tokens, inputs, outputs = 128, 4096, 512
    x = torch.randn(tokens, inputs, requires_grad=True)
    w = torch.randn(outputs, inputs, requires_grad=True)
    g = torch.ones(inputs, requires_grad=True)
    ours = saved_bytes(lambda: torch.ops.trit.bit_linear(x, w, None, g, True, 1e-6, False))
    linear = torch.nn.functional.linear
    theirs = saved_bytes(lambda: linear(torch.ops.trit.rms_norm(x, g, 1e-6)[0], w))
    atens = saved_bytes(lambda: linear(torch.nn.functional.rms_norm(x, (inputs,), g, 1e-6), w))
    # x and g by reference, q at a byte, the weight at two bits, s and r of a row, beta.
    want = 4 * tokens * inputs + 4 * inputs + tokens * inputs + outputs * inputs // 4 + 8 * tokens + 4
    assert ours == want, (ours, want)
    assert ours < theirs <= atens, (ours, theirs, atens)
    print(f"saved for backward: {ours} bytes, RMSNorm + Linear {theirs}, with ATen's rms_norm {atens}")


def check_packed_weight():
    w = torch.randn(9, 22)
    packed = torch.classes.trit.PackedWeight.from_float(w, False)
    again = torch.classes.trit.PackedWeight(packed.codes(), packed.scale(), packed.in_features())
    x = torch.randn(5, 22)
    want = torch.ops.trit.bit_linear(x, w, None, None, True, 1e-6, False)
    assert torch.equal(torch.ops.trit.bit_linear.prepared(x, w, again, None, None, True, 1e-6), want)
    scale = torch.ops.trit.absmean(w, False, 32)
    grouped = torch.classes.trit.PackedWeight(torch.ops.trit.ternarize_pack(w, scale, 32), scale, 22, 32)
    assert grouped.group() == 32 and packed.group() == 0
    want = torch.ops.trit.bit_linear(x, w, None, None, True, 1e-6, False, group=32)
    assert torch.equal(torch.ops.trit.bit_linear.prepared(x, w, grouped, None, None, True, 1e-6), want)
    try:
        torch.classes.trit.PackedWeight(packed.codes(), packed.scale(), 30)
    except RuntimeError as error:
        assert "in_features = 30" in str(error), error
    else:
        sys.exit("a PackedWeight whose sizes do not fit must be refused")


def main():
    torch.ops.load_library(sys.argv[1])
    check_operators()
    check_gradients_of_parts()
    check_saved_bytes()
    check_packed_weight()


if __name__ == "__main__":
    main()
