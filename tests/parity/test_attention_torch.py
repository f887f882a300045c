"""Attention against PyTorch."""

from __future__ import annotations

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from tests.parity.harness import assert_close, compare_layers, normal

from brickwork import functional as F, nn

L, S, N, E, H = 3, 5, 2, 4, 2
TOLERANCE = {"float32": 1e-5, "float64": 1e-12, "bfloat16": 3e-2}


def booleans(seed, *shape):
    """Masks with both values, and in PyTorch's ``attn_mask`` a row that sees nothing."""
    return np.random.default_rng(seed).random(shape) < 0.6


def blind(mask):
    mask = mask.copy()
    mask[..., 1, :] = False
    return mask


def floats(seed, *shape):
    mask = normal(seed, *shape)
    mask[..., 2, :] = -np.inf
    mask[..., 0, 1] = -np.inf
    return mask


CASES = {
    "plain": {},
    "causal": {"is_causal": True},
    "causal, more queries than keys": {"is_causal": True, "shapes": ((1, 2, 5, 4), (1, 2, 3, 4), (1, 2, 3, 4))},
    "another width of the values": {"shapes": ((2, 3, 4), (2, 5, 4), (2, 5, 7)), "scale": 0.3},
    "matrices": {"shapes": ((3, 4), (5, 4), (5, 2))},
    "five axes": {"shapes": ((2, 1, 2, 3, 4), (2, 1, 2, 5, 4), (2, 1, 2, 5, 4)), "is_causal": True},
    "leading axes that broadcast": {"shapes": ((2, 1, 3, 4), (1, 3, 5, 4), (1, 3, 5, 4))},
    "booleans": {"mask": blind(booleans(0, L, S))},
    "booleans of each head": {"mask": blind(booleans(1, N, H, L, S))},
    "booleans of each example": {"mask": booleans(2, N, 1, 1, S) | (np.arange(S) == 2)},
    "floats": {"mask": floats(3, L, S)},
    "floats of each example": {"mask": floats(4, N, 1, L, S)},
    "floats of each key": {"mask": normal(5, 1, S)},
    "grouped heads": {"shapes": ((2, 4, 3, 4), (2, 2, 5, 4), (2, 2, 5, 4)), "enable_gqa": True, "is_causal": True},
    "one head for all": {
        "shapes": ((2, 4, 3, 4), (2, 1, 5, 4), (2, 1, 5, 4)),
        "enable_gqa": True,
        "mask": blind(booleans(6, 2, 4, L, S)),
    },
    "no examples": {"shapes": ((0, 2, 3, 4), (0, 2, 5, 4), (0, 2, 5, 4))},
    "no queries": {"shapes": ((2, 2, 0, 4), (2, 2, 5, 4), (2, 2, 5, 4))},
    "no keys": {"shapes": ((2, 2, 3, 4), (2, 2, 0, 4), (2, 2, 0, 4))},
}


RUNS = [
    *((case, "float32") for case in CASES),
    *((case, "float64") for case in ("causal", "booleans", "floats", "grouped heads")),
    *((case, "bfloat16") for case in ("causal", "floats")),
]


@pytest.mark.parametrize(("case", "dtype"), RUNS)
def test_scaled_dot_product_attention(case, dtype):
    options = dict(CASES[case])
    shapes = options.pop("shapes", ((N, H, L, E), (N, H, S, E), (N, H, S, E)))
    mask = options.pop("mask", None)
    with jax.enable_x64(True) if dtype == "float64" else contextlib.nullcontext():
        inputs = [normal(i, *shape) for i, shape in enumerate(shapes)]
        arrays = [jnp.asarray(x, dtype) for x in inputs]
        theirs = [torch.tensor(x).to(getattr(torch, dtype)).requires_grad_() for x in inputs]
        if mask is not None and mask.dtype != bool:
            arrays.append(jnp.asarray(mask, dtype))
            theirs.append(torch.tensor(mask).to(getattr(torch, dtype)).requires_grad_())
        elif mask is not None:
            arrays.append(jnp.asarray(mask))
            theirs.append(torch.tensor(mask))
        expected = torch.nn.functional.scaled_dot_product_attention(*theirs, **options)
        weight = np.cos(np.arange(expected.numel())).reshape(expected.shape)

        def loss(*arrays):
            y = F.scaled_dot_product_attention(*arrays, **options)
            return (y * jnp.asarray(weight, y.dtype)).sum(), y

        wrt = [i for i, x in enumerate(arrays) if x.dtype != bool]
        (_, y), gradients = jax.value_and_grad(loss, wrt, has_aux=True)(*arrays)
        assert y.dtype == dtype
        assert_close(y, expected, TOLERANCE[dtype], "output")
        (expected * torch.tensor(weight).to(expected.dtype)).sum().backward()
        for i, gradient in zip(wrt, gradients, strict=True):
            assert_close(gradient, theirs[i].grad, TOLERANCE[dtype], f"gradient by {i}")


def attention(options, **torch_options):
    """Ours with sizes from the data, and PyTorch's; the widths of PyTorch's are E unless given."""
    return nn.MultiheadAttention(H, **options), torch.nn.MultiheadAttention(E, H, **options, **torch_options)


CALLS = {
    "weights": {},
    "no weights": {"need_weights": False},
    "weights of each head": {"average_attn_weights": False},
    "padding": {"key_padding_mask": np.array([[False] * 4 + [True], [False, True, True, False, False]])},
    "padding of floats": {"key_padding_mask": normal(7, N, S), "need_weights": False},
    "booleans": {"attn_mask": ~(booleans(8, L, S) | (np.arange(S) == 1)), "need_weights": False},
    "floats of each head": {"attn_mask": normal(9, N * H, L, S)},
    "booleans of each head and padding": {
        "attn_mask": ~(booleans(8, N * H, L, S) | (np.arange(S) == 1)),
        "key_padding_mask": np.array([[False] * 4 + [True]] * 2),
    },
    "floats and padding of floats": {"attn_mask": normal(9, L, S), "key_padding_mask": normal(7, N, S)},
    "a mask that is causal, too": {
        "attn_mask": np.triu(np.ones((L, S), bool), 1),
        "is_causal": True,
        "need_weights": False,
    },
}
KINDS = {
    "stacked": {},
    "batch first": {"batch_first": True},
    "no biases": {"bias": False},
    "more keys": {"add_bias_kv": True, "add_zero_attn": True},
    "other widths": {"kdim": 6, "vdim": 3, "batch_first": True},
    "another width of the keys": {"kdim": 6},
}


CHOSEN = [
    *(("stacked", call) for call in CALLS),
    *(("more keys", call) for call in ("weights", "padding of floats", "booleans of each head and padding")),
    *((kind, "booleans") for kind in ("batch first", "no biases", "other widths", "another width of the keys")),
    ("other widths", "padding"),
]


@pytest.mark.parametrize(("kind", "call"), CHOSEN)
def test_multihead_attention(kind, call):
    options = KINDS[kind]
    ours, theirs = attention(options)
    widths = (E, options.get("kdim", E), options.get("vdim", E))
    shapes = [(n, N, width) for n, width in zip((L, S, S), widths, strict=True)]
    if options.get("batch_first"):
        shapes = [(n, length, width) for length, n, width in shapes]
    compare_layers(ours, theirs, *(normal(i, *shape) for i, shape in enumerate(shapes)), **CALLS[call])


@pytest.mark.parametrize(("dtype", "need_weights"), [("float64", True), ("bfloat16", False)])
def test_multihead_attention_in_other_dtypes(dtype, need_weights):
    ours, theirs = attention({"add_bias_kv": True})
    x, y = normal(0, L, N, E), normal(1, S, N, E)
    mask = ~(booleans(8, L, S) | (np.arange(S) == 1))
    compare_layers(
        ours, theirs, x, y, y, dtype=dtype, attn_mask=mask, need_weights=need_weights, tolerance=TOLERANCE[dtype]
    )


@pytest.mark.parametrize("how", ["self", "memory", "unbatched", "one example", "no examples"])
def test_multihead_attention_of_fewer_inputs(how):
    """The products of inputs that are the same are one; those of a sequence alone have no batch."""
    ours, theirs = attention({"batch_first": how != "memory"})
    x, y = normal(0, N, L, E), normal(1, N, S, E)
    if how == "self":
        compare_layers(
            ours, theirs, x, call=lambda net, x, **k: net(x, x, x, **k), attn_mask=np.triu(np.ones((L, L), bool), 1)
        )
    elif how == "memory":
        compare_layers(ours, theirs, x.swapaxes(0, 1), y.swapaxes(0, 1), call=lambda net, x, y: net(x, y, y))
    elif how == "unbatched":
        mask = np.array([False, True, False, False, True])
        compare_layers(ours, theirs, x[0], y[0], y[1], key_padding_mask=mask, average_attn_weights=False)
    else:
        n = 1 if how == "one example" else 0
        compare_layers(ours, theirs, x[:n], y[:n], y[:n], need_weights=n == 1)


@pytest.mark.parametrize("kind", KINDS)
def test_initial_values_are_pytorchs(kind):
    """The same ranges and variances; the parameters are many enough for both to be close."""
    options = KINDS[kind]
    width = 96
    wide = {name: 48 for name in ("kdim", "vdim") if name in options}
    theirs = torch.nn.MultiheadAttention(width, 4, **(options | wide))
    ours = nn.MultiheadAttention(4, embed_dim=width, **(options | wide))
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for name, expected in theirs.state_dict().items():
        found, expected = np.asarray(ours.state_dict()[name]), expected.numpy()
        assert found.shape == expected.shape
        if name.startswith("bias_"):  # normal
            np.testing.assert_allclose(found.std(), np.sqrt(2 / (2 * width)), rtol=0.3)
            continue
        np.testing.assert_allclose(abs(found).max(), abs(expected).max(), rtol=0.01, err_msg=name)
        np.testing.assert_allclose(found.std(), expected.std(), rtol=0.05, err_msg=name)
