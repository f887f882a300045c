"""What is particular about attention: its own backward pass, empty rows, dropout, the forms for other cases."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from jax.sharding import PartitionSpec as P

from brickwork import functional as F
from brickwork.functional import _attention as module

FLAT = module._attention.__wrapped__  # without the cache of programs, in which the choice of a form is kept


def draw(seed, *shape, dtype=jnp.float32):
    return jax.random.normal(jax.random.key(seed), shape, jnp.float32).astype(dtype)


def plain(q, k, v, mask=None, causal=False, scale=None, kept=None):
    """The definition, with nothing of its own: JAX differentiates it."""
    scores = jnp.einsum("...ld,...sd->...ls", q, k) * (1 / math.sqrt(q.shape[-1]) if scale is None else scale)
    if mask is not None:
        scores = jnp.where(mask, scores, -jnp.inf) if mask.dtype == bool else scores + mask
    if causal:
        scores = jnp.where(jnp.tri(*scores.shape[-2:], dtype=bool), scores, -jnp.inf)
    weights = jax.nn.softmax(scores, -1)
    return (weights if kept is None else weights * kept) @ v


def arrays(batch=(2, 2), length=3, other=5, width=4, dtype=jnp.float32):
    return tuple(
        draw(i, *batch, n, w, dtype=dtype) for i, (n, w) in enumerate([(length, width), (other, width), (other, 3)])
    )


def close(a, b, tolerance=1e-5):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance)


def gradients(f, *inputs):
    """The output, and the gradients of a weighted sum of it."""

    def loss(*a):
        y = f(*a)
        return (y * draw(9, *y.shape)).sum(), y

    (_, y), found = jax.jit(jax.value_and_grad(loss, tuple(range(len(inputs))), has_aux=True))(*inputs)
    return y, *found


def test_second_derivatives():
    q, k, v = arrays()
    mask = draw(7, 3, 5)

    def twice(f):
        def inner(*a):
            return sum((g**2).sum() for g in jax.grad(lambda *b: jnp.sin(f(*b)).sum(), (0, 1, 2, 3))(*a))

        return jax.jit(jax.grad(inner, (0, 1, 2, 3)))(q, k, v, mask)

    close(twice(lambda q, k, v, m: F.scaled_dot_product_attention(q, k, v, m, is_causal=True)),
          twice(lambda q, k, v, m: plain(q, k, v, m, causal=True)), 2e-4)  # fmt: skip


def test_vmap_and_its_gradient():
    q, k, v = arrays((3, 2))
    mask = draw(7, 3, 3, 5) > 0
    mask = mask.at[..., 0].set(True)

    def mapped(f):
        return lambda q, k, v: jax.vmap(f, (0, None, 0, 0))(q, k[0], v, mask)

    ours, expected = mapped(F.scaled_dot_product_attention), mapped(plain)
    close(gradients(ours, q, k, v), gradients(expected, q, k, v))


def test_a_hessian():
    q, k, v = arrays((), 2, 3, 2)
    close(
        jax.hessian(lambda q: (F.scaled_dot_product_attention(q, k, v) ** 2).sum())(q),
        jax.hessian(lambda q: (plain(q, k, v) ** 2).sum())(q),
    )


@pytest.mark.parametrize("kind", ["booleans", "floats", "with causality"])
def test_rows_that_see_nothing_are_zero_and_have_no_gradient(kind):
    q, k, v = arrays()
    mask = jnp.ones((3, 5), bool).at[1].set(False)
    if kind == "floats":
        mask = jnp.where(mask, 0.5, -jnp.inf)
    if kind == "with causality":
        mask = jnp.ones((3, 5), bool).at[1, :2].set(False)  # and the others come later

    def f(q, k, v):
        return F.scaled_dot_product_attention(q, k, v, mask, is_causal=kind == "with causality")

    y, by_query, *others = gradients(f, q, k, v)
    assert bool((y[:, :, 1] == 0).all())
    assert not bool((y[:, :, [0, 2]] == 0).any())
    assert bool((by_query[:, :, 1] == 0).all())
    assert all(bool(jnp.isfinite(g).all()) for g in others)
    second = jax.grad(lambda q: (jax.grad(lambda a: (f(a, k, v) ** 2).sum())(q) ** 2).sum())(q)
    assert bool(jnp.isfinite(second).all())


def test_dropout_uses_one_mask_in_both_passes():
    q, k, v = arrays((1, 2), 6, 8)
    key = jax.random.key(3)
    rate = 0.25
    kept = F.dropout(jnp.ones((1, 2, 6, 8)), rate, key)

    def ours(q, k, v):
        return F.scaled_dot_product_attention(q, k, v, None, rate, True, dropout_key=key)

    def expected(q, k, v):
        return plain(q, k, v, causal=True, kept=kept)

    assert bool((kept == 0).any())
    close(gradients(ours, q, k, v), gradients(expected, q, k, v))


def test_dropout_of_nothing_and_of_everything():
    q, k, v = arrays()
    close(F.scaled_dot_product_attention(q, k, v, dropout_p=0.0), plain(q, k, v))
    gone = F.scaled_dot_product_attention(q, k, v, dropout_p=1.0, dropout_key=jax.random.key(0))
    assert bool((gone == 0).all())


CASES = {
    "causal": {"causal": True},
    "booleans, causal": {"mask": (draw(7, 9, 7) > -0.5).at[4].set(False), "causal": True},
    "floats": {"mask": draw(7, 2, 1, 1, 7)},
    "floats, causal": {"mask": jnp.where(draw(8, 2, 2, 9, 7) > 0, draw(7, 2, 2, 9, 7), -jnp.inf), "causal": True},
    "grouped": {"groups": 2, "mask": draw(7, 1, 2, 9, 7) > -0.5, "causal": True},
}


@pytest.mark.parametrize(("mask", "rate"), [(None, 0.5), ((7, 9), 0.0), ((2, 1, 1, 9), 0.0)])
def test_blocks_of_queries_are_the_same(mask, rate, monkeypatch):
    """Causal attention leaves out keys that no query of a block may see."""
    q, k, v = draw(0, 2, 2, 7, 4), draw(1, 2, 1, 9, 4), draw(2, 2, 1, 9, 3)
    m = jnp.zeros(()) if mask is None else draw(7, *mask)
    key = jax.random.key(1) if rate else None

    def f(q, k, v, m):
        return FLAT(q, k, v, m, key, form=module._Form((2, 2, 7, 9), 0.3, True), groups=2, rate=rate)

    expected = gradients(f, q, k, v, m)
    monkeypatch.setattr(module, "_BLOCK", 2)
    close(gradients(f, q, k, v, m), expected)
    assert len(module._row_blocks(module._Form((2, 2, 7, 9), 0.3, True))) == 4


def in_form(form, monkeypatch):
    if form == "chunks":
        monkeypatch.setattr(module, "_LONG", 0)
        monkeypatch.setattr(module, "_CHUNK", 1)
        monkeypatch.setattr(module, "_FEWEST_ROWS", 4)
    else:
        monkeypatch.setattr(jax, "default_backend", lambda: "gpu")


@pytest.mark.parametrize("form", ["chunks", "stock"])
@pytest.mark.parametrize("case", CASES)
def test_the_other_forms_are_the_same(form, case, monkeypatch):
    """For long sequences, and for other devices."""
    options = CASES[case] | {}
    groups, causal, mask = options.pop("groups", 1), options.get("causal", False), options.get("mask")
    q, k, v = draw(0, 2, 2, 9, 4), draw(1, 2, 2 // groups, 7, 4), draw(2, 2, 2 // groups, 7, 4)

    def f(q, k, v):
        return FLAT(q, k, v, mask, None, form=module._Form((2, 2, 9, 7), 0.3, causal), groups=groups, rate=0.0)

    expected = gradients(f, q, k, v)
    in_form(form, monkeypatch)
    close(gradients(f, q, k, v), expected)


def test_dropout_of_other_forms(monkeypatch):
    q, k, v = arrays((2, 2), 9, 7)
    key = jax.random.key(1)

    def f(q, k, v):
        return FLAT(q, k, v, None, key, form=module._Form((2, 2, 9, 7), 0.3, True), groups=1, rate=0.5)

    expected = gradients(f, q, k, v)
    with monkeypatch.context() as m:
        in_form("stock", m)
        close(gradients(f, q, k, v), expected)
    in_form("chunks", monkeypatch)
    y, _, _, check = gradients(f, q, k, v)
    share = float((y[:, :, 0] == 0).mean())  # whole rows, since the first query sees one key only
    assert 0 < share < 1
    shifted = (f(q, k, v + 1e-2 * check) - y) * draw(9, *y.shape)
    np.testing.assert_allclose(shifted.sum(), 1e-2 * (check**2).sum(), rtol=1e-3)  # linear in the values


def test_memory_of_long_sequences_grows_with_their_length_only():
    def bytes_needed(length):
        x = jax.ShapeDtypeStruct((1, 1, length, 8), jnp.float32)
        f = jax.grad(lambda q: F.scaled_dot_product_attention(q, q, q, is_causal=True).sum())
        return jax.jit(f).lower(x).compile().memory_analysis().temp_size_in_bytes

    assert bytes_needed(16384) < 16384**2  # a quarter of the probabilities


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    q, k, v = arrays((2, 2), 8, 64, 16, dtype)
    wide = [x.astype(jnp.float32) for x in (q, k, v)]
    y = F.scaled_dot_product_attention(q * 8, k, v)
    assert y.dtype == dtype
    # only the rounding of the weights and of the output is left
    tolerance = 2 * float(jnp.finfo(dtype).eps)
    close(y.astype(jnp.float32), plain(wide[0] * 8, *wide[1:]), tolerance * 2)


def test_numpy_arrays_and_strict_dtypes():
    q, k, v = (np.asarray(x) for x in arrays())
    close(F.scaled_dot_product_attention(q, k, v, np.ones((3, 5), bool)), plain(*map(jnp.asarray, (q, k, v))))
    half = tuple(jnp.asarray(x, jnp.bfloat16) for x in (q, k, v))
    assert F.scaled_dot_product_attention(*half, jnp.zeros((3, 5))).dtype == jnp.bfloat16  # a mask of float32


def test_symbolic_sizes():
    n, length = export.symbolic_shape("n, t")
    spec = jax.ShapeDtypeStruct((n, 2, length, 4), jnp.float32)
    f = jax.jit(lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=True))
    exported = export.export(f)(spec)
    x = draw(0, 3, 2, 5, 4)
    close(exported.call(x), f(x))


def test_shard_map():
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    q, k, v = arrays((4, 2))
    mask = draw(7, 3, 5)

    def f(q, k, v, mask):
        local = jax.shard_map(
            lambda *a: F.scaled_dot_product_attention(*a),
            mesh=mesh,
            in_specs=(*[P("data")] * 3, P()),
            out_specs=P("data"),
        )
        return local(q, k, v, mask)

    close(gradients(f, q, k, v, mask), gradients(plain, q, k, v, mask))
