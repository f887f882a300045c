"""Decoding step by step, positions, and what is particular about multi-head attention and transformers."""

from __future__ import annotations

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.errors.checks import refuse

import brickwork as bw
from brickwork import functional as F, nn, optim

N, T, E = 2, 6, 8


def draw(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def close(a, b, tolerance=1e-5):
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


class Grouped(nn.Module):
    """Attention as in Llama: rotated, and with fewer heads for keys and values."""

    def __init__(self):
        self.q, self.k, self.v = nn.Linear(E), nn.Linear(E // 2), nn.Linear(E // 2)
        self.rotary = nn.RotaryEmbedding()

    def heads(self, x):
        return x.reshape(*x.shape[:2], -1, 2).transpose(0, 2, 1, 3)

    def forward(self, x, cache=None):
        q, k, v = self.heads(self.q(x)), self.heads(self.k(x)), self.heads(self.v(x))
        start = 0 if cache is None else cache.length.value
        q, k, mask = self.rotary(q, start), self.rotary(k, start), None
        if cache is not None:
            k, v, mask = cache.update(k, v)
        return F.scaled_dot_product_attention(q, k, v, mask, is_causal=cache is None, enable_gqa=True)


def at(y, i, axis):
    return jax.lax.slice_in_dim(y, i, i + 1, axis=axis)


LAYERS = {
    "MultiheadAttention": (
        lambda: nn.MultiheadAttention(2, batch_first=True),
        lambda net, x, cache=None: net(x, x, x, need_weights=False, is_causal=True, cache=cache)[0],
        1,
    ),
    "MultiheadAttention, batch second": (
        lambda: nn.MultiheadAttention(2),
        lambda net, x, cache=None: net(x, x, x, is_causal=True, cache=cache)[0],
        0,
    ),
    "TransformerEncoderLayer": (
        lambda: nn.TransformerEncoderLayer(2, dim_feedforward=5, dropout=0.0, batch_first=True),
        lambda net, x, cache=None: net(x, is_causal=True, cache=cache),
        1,
    ),
    "TransformerDecoderLayer": (
        lambda: nn.TransformerDecoderLayer(2, dim_feedforward=5, dropout=0.0, batch_first=True, norm_first=True),
        lambda net, x, cache=None: net(x, jnp.ones((N, 3, E)), tgt_is_causal=True, cache=cache),
        1,
    ),
    "grouped heads": (Grouped, lambda net, x, cache=None: net(x, cache), 2),
}


@pytest.mark.parametrize("case", LAYERS)
def test_decoding_token_by_token_gives_what_the_whole_sequence_gives(case):
    make, call, axis = LAYERS[case]
    net, cache = make(), nn.KVCache(T + 2)
    batch_second = case.endswith("second")
    x = draw(0, T, N, E) if batch_second else draw(0, N, T, E)
    along = 0 if batch_second else 1
    whole = call(net, x)
    step = bw.compile(lambda token: call(net, token, cache))
    for _ in range(2):
        for i in range(T):
            close(step(at(x, i, along)), at(whole, i, axis))
        assert int(cache.length) == T
        cache.reset()
    assert step.stats().compilations == 1


def test_a_prompt_at_once_and_then_token_by_token_eagerly():
    net, cache = nn.MultiheadAttention(2, batch_first=True), nn.KVCache(T)
    x = draw(0, N, T, E)
    whole, weights = net(x, x, x, is_causal=True)
    y, seen = net(x[:, :4], x[:, :4], x[:, :4], cache=cache)
    close(y, whole[:, :4])
    close(seen, weights[:, :4])
    for i in (4, 5):
        token = x[:, i : i + 1]
        close(net(token, token, token, need_weights=False, cache=cache)[0], whole[:, i : i + 1])


def test_decoding_as_a_loop():
    net, cache = nn.MultiheadAttention(2, batch_first=True), nn.KVCache(T)
    x = draw(0, N, T, E)
    whole, _ = net(x, x, x, is_causal=True)
    cache.initialize(bw.spec(N, 2, 1, E // 2), bw.spec(N, 2, 1, E // 2))

    @bw.compile
    def decode(x):
        def step(carry, token):
            token = token[:, None]
            return carry, net(token, token, token, need_weights=False, cache=cache)[0][:, 0]

        return bw.scan(step, 0, x.swapaxes(0, 1))[1].swapaxes(0, 1)

    close(decode(x), whole)
    assert int(cache.length) == T


def test_a_sequence_without_a_batch_and_a_padding_mask_with_a_cache():
    net, cache = nn.MultiheadAttention(2), nn.KVCache(T)
    x = draw(0, T, E)
    padding = jnp.arange(T) == 1
    whole = net(x, x, x, padding, is_causal=True, need_weights=False)[0]
    for i in range(T):
        y, _ = net(x[i : i + 1], x[i : i + 1], x[i : i + 1], padding, cache=cache, need_weights=False)
        close(y[0], whole[i])


def test_a_full_cache():
    cache = nn.KVCache(2)
    k = draw(0, 1, 1, 1, 2)
    compiled = bw.compile(lambda k: cache.update(k, k))
    for _ in range(2):
        keys, _, mask = compiled(k)
        assert bool(jnp.isfinite(keys).all())
    close(keys[0, 0], jnp.concatenate([k, k])[:, 0, 0])
    assert mask.tolist() == [[True, True]]
    with pytest.raises(ValueError, match="no room for 1 more positions after 2"):
        cache.update(k, k)
    keys, _, _ = compiled(k)  # which can't raise
    assert bool(jnp.isnan(keys).any())
    cache.reset()
    close(cache.update(k, k)[0][0, 0, 0], k[0, 0, 0])
    with pytest.raises(ValueError, match="no room for 3 more positions after 1"):
        cache.update(jnp.ones((1, 1, 3, 2)), jnp.ones((1, 1, 3, 2)))


def test_a_cache_of_another_dtype_and_none_in_files():
    cache = nn.KVCache(3, dtype=jnp.bfloat16)
    keys, _, _ = cache.update(draw(0, 1, 1, 1, 2), draw(1, 1, 1, 1, 2))
    assert (keys.dtype, cache.key.dtype) == (jnp.float32, jnp.bfloat16)
    assert not cache.state_dict()
    close(keys[0, 0, 0], draw(0, 1, 1, 1, 2)[0, 0, 0].astype(jnp.bfloat16).astype(jnp.float32))


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("used", [False, True])
def test_a_stack_of_caches(used, compiled):
    """Fresh ones, or such as have been used before, each with positions of its own."""
    k = draw(0, 3, 1, 2, 1, 4)
    caches = [nn.KVCache(5) for _ in range(3)]
    for i, cache in enumerate(caches if used else []):
        for _ in range(i + 1):
            cache.update(k[i], k[i])
    stack = bw.stack(caches)
    step = bw.vmap(lambda cache, k: cache.update(k, k)[0])
    step = bw.compile(step) if compiled else step
    for n in (1, 2, 1):
        keys = step(stack, k)[:, 0, 0]
        start = np.arange(1, 4) * used
        np.testing.assert_array_equal(stack.length, n + start)
        for i in range(3):
            close(keys[i, start[i] + n - 1], k[i, 0, 0, 0])
        if n == 2:
            stack.reset()
            np.testing.assert_array_equal(stack.length, np.zeros(3))
            used = False
    assert [int(cache.length) for cache in bw.unstack(stack)] == [1, 1, 1]


def test_a_stack_of_layers_with_caches():
    nets = [nn.MultiheadAttention(2, embed_dim=E, batch_first=True) for _ in range(3)]
    x = draw(0, 3, N, T, E)
    stack, caches = bw.stack(nets), bw.stack([nn.KVCache(T) for _ in nets])
    step = bw.vmap(lambda net, cache, x: net(x, x, x, cache=cache)[0])
    first = step(stack, caches, x[:, :, :2])
    rest = step(stack, caches, x[:, :, 2:])
    for i, net in enumerate(nets):
        whole = net(x[i], x[i], x[i], is_causal=True)[0]
        close(jnp.concatenate([first[i], rest[i]], 1), whole)


class Cached(nn.Module):
    def __init__(self):
        self.attention, self.cache = nn.MultiheadAttention(2, batch_first=True), nn.KVCache(T)

    def forward(self, x):
        return x + self.attention(x, x, x, cache=self.cache)[0]


@pytest.mark.parametrize("compiled", [False, True])
def test_caches_inside_of_repeated_blocks(compiled):
    net, x = nn.Repeat(Cached, 3), draw(0, N, T, E)
    step = bw.compile(net) if compiled else net
    whole = step(x)
    for _ in range(2):
        net.block.cache.reset()
        np.testing.assert_array_equal(net.block.cache.length, np.zeros(3))
        close(jnp.concatenate([step(x[:, :4]), step(x[:, 4:])], 1), whole)
    with pytest.raises(ValueError, match="no room") if not compiled else contextlib.nullcontext():
        assert jnp.isnan(step(x)).any()


def test_prompts_of_two_lengths_are_padded_on_the_left():
    net, x = nn.MultiheadAttention(2, batch_first=True), draw(0, 2, T, E)
    cache, padding = nn.KVCache(T), jnp.arange(T) < jnp.array([[2], [0]])
    rows = [x[:1, 2:], x[1:]]
    steps = [net(p, p, p, padding, cache=cache)[0] for p in (x[:, :4], x[:, 4:5], x[:, 5:])]
    y = jnp.concatenate(steps, 1)
    for i, row in enumerate(rows):
        close(y[i, -row.shape[1] :], net(row, row, row, is_causal=True)[0][0])


def test_causality_doesnt_hide_the_added_keys():
    x = draw(0, 3, N, E)
    net = nn.MultiheadAttention(2, add_bias_kv=True, add_zero_attn=True)
    mask = ~jnp.tri(3, dtype=bool)
    expected, weights = net(x, x, x, attn_mask=mask)
    assert bool((weights[..., 3:] > 0).all())
    for options in ({"attn_mask": mask}, {}):
        close(net(x, x, x, need_weights=False, is_causal=True, **options)[0], expected)


def test_queries_that_see_nothing_give_the_bias():
    net = nn.MultiheadAttention(2, batch_first=True)
    x = draw(0, N, 3, E)
    padding = jnp.array([[True] * 3, [False] * 3])
    for need_weights in (True, False):
        y, weights = net(x, x, x, padding, need_weights)
        close(y[0], jnp.broadcast_to(net.out_proj.bias.value, (3, E)))
        assert weights is None or not bool(weights[0].any())


def test_dropout_is_that_of_the_returned_weights():
    net = nn.MultiheadAttention(1, dropout=0.5, batch_first=True, bias=False)
    x = draw(0, N, T, E)
    y, weights = net(x, x, x)
    assert bool((weights == 0).any())
    values = F.linear(x, net.in_proj_weight.value[2 * E :])
    close(y, net.out_proj(weights @ values))
    bw.seed(1)
    a, _ = net(x, x, x, need_weights=False)
    bw.seed(1)
    close(a, net(x, x, x)[0])  # and the same without the weights
    assert not bool((net.eval()(x, x, x)[1] == 0).any())


def test_only_dropout_makes_attention_random():
    assert not nn.MultiheadAttention(2).uses_random
    assert nn.MultiheadAttention(2, dropout=0.1).uses_random


@pytest.mark.parametrize("interleaved", [False, True])
def test_rotary_products_depend_on_distance_only(interleaved):
    rotary = nn.RotaryEmbedding(interleaved=interleaved)
    q, k = draw(0, 1, E), draw(1, 1, E)
    products = [float((rotary(q, i + 3) * rotary(k, i)).sum()) for i in (0, 5, 100_000)]
    np.testing.assert_allclose(products, products[0], rtol=1e-5)
    close(rotary(q, 0), q)
    close(jnp.linalg.norm(rotary(q, 77)), jnp.linalg.norm(q))


def test_rotary_is_that_of_the_definition():
    x = draw(0, 2, 3, 4, 6)
    angles = np.arange(4)[:, None] * 100.0 ** (-np.arange(0, 4, 2) / 4)
    z = np.exp(1j * angles)
    pairs = np.asarray(x[..., :4]).reshape(2, 3, 4, 2, 2)
    rotated = (pairs[..., 0] + 1j * pairs[..., 1]) * z
    expected = np.stack([rotated.real, rotated.imag], -1).reshape(2, 3, 4, 4)
    y = nn.RotaryEmbedding(dim=4, base=100.0, interleaved=True)(x)
    close(y, np.concatenate([expected, x[..., 4:]], -1))
    halves = jnp.concatenate([x[..., 0:4:2], x[..., 1:4:2], x[..., 4:]], -1)
    y = nn.RotaryEmbedding(dim=4, base=100.0)(halves)
    close(y, np.concatenate([expected[..., ::2], expected[..., 1::2], x[..., 4:]], -1))


def test_positions_of_each_sequence_and_of_a_cache():
    rotary, x = nn.RotaryEmbedding(), draw(0, N, 2, 3, 4)
    y = rotary(x, jnp.array([[0, 1, 2], [5, 6, 7]])[:, None])
    close(y, jnp.concatenate([rotary(x[:1]), rotary(x[1:], 5)]))
    sines = nn.SinusoidalPositions()
    cache = nn.KVCache(4)
    cache.update(x[..., :1, :], x[..., :1, :])
    close(sines(x, cache.length), sines(x, jnp.arange(1, 4)))
    assert rotary(x.astype(jnp.bfloat16)).dtype == sines(x.astype(jnp.bfloat16)).dtype == jnp.bfloat16


@pytest.mark.parametrize("layer", [nn.SinusoidalPositions(), nn.RotaryEmbedding()])
@pytest.mark.parametrize("first", [np.uint8(250), np.int8(120), np.uint16(65_530), np.array(250, np.uint8)])
def test_positions_after_a_first_one_of_any_dtype(layer, first):
    x = draw(0, 10, 4)
    np.testing.assert_array_equal(layer(x, positions=first), layer(x, positions=int(first)))
    np.testing.assert_array_equal(layer(x, positions=jnp.asarray(first)), layer(x, positions=int(first)))


def test_large_positions_of_other_dtypes():
    with jax.enable_x64(True):
        expected = F.sinusoidal_positions(jnp.array([2**31 + 5, 2**32, -(2**31), -7]), 4)
        assert jnp.isnan(expected[1]).all()  # known to 32 bits only
        angles = np.array([[2**31 + 5], [-(2**31)], [-7]]) * [1.0, 0.01]
        np.testing.assert_allclose(expected[jnp.array([0, 2, 3]), ::2], np.sin(angles), atol=1e-4)
        assert jnp.isnan(F.sinusoidal_positions(jnp.array(2**40, jnp.uint64), 4)).all()
    unsigned = F.sinusoidal_positions(jnp.array(2**31 + 5, jnp.uint32), 4)
    np.testing.assert_allclose(unsigned, expected[0], atol=1e-6)
    least = F.sinusoidal_positions(jnp.array(-(2**31), jnp.int32), 4)
    np.testing.assert_allclose(least, expected[2], atol=1e-6)
    np.testing.assert_array_equal(F.sinusoidal_positions(jnp.array(-128, jnp.int8), 4), F.sinusoidal_positions(-128, 4))


@pytest.mark.parametrize("dim", [2, 64])
def test_positions_are_exact_wherever_they_are(dim):
    positions = np.array([0, 1, 2, 500, 65_535, 65_536, 1_000_000, -1, -70_000])
    angles = positions[:, None] * 10000.0 ** (-np.arange(0, dim, 2) / dim)
    cos, sin = F.rotary_tables(jnp.asarray(positions, jnp.int32), dim)
    np.testing.assert_allclose(cos, np.cos(angles), atol=3e-7, rtol=0)
    np.testing.assert_allclose(sin, np.sin(angles), atol=3e-7, rtol=0)
    table = F.sinusoidal_positions(positions, dim)
    np.testing.assert_array_equal(table[..., ::2], sin)
    np.testing.assert_array_equal(table[..., 1::2], cos)


class GPT(nn.Module):
    def __init__(self, depth=2):
        self.tokens = nn.Embedding(5, E)
        self.positions = nn.SinusoidalPositions()
        self.blocks = nn.Repeat(
            lambda: nn.TransformerEncoderLayer(2, dim_feedforward=16, batch_first=True, norm_first=True), depth
        )
        self.norm, self.head = nn.LayerNorm(), nn.Linear(5)

    def forward(self, tokens):
        x = self.positions(self.tokens(tokens))
        return self.head(self.norm(self.blocks(x, is_causal=True)))


def test_a_gpt_learns():
    bw.seed(0)
    net = GPT()
    tokens = jnp.asarray((np.arange(9) + np.arange(8)[:, None]) * 2 % 5)
    net(tokens[:, :-1])
    opt = optim.adam(net, 1e-2)

    @bw.compile
    def step(tokens):
        loss, gradients = bw.value_and_grad(
            lambda t: bw.losses.cross_entropy(net(t[:, :-1]).reshape(-1, 5), t[:, 1:].reshape(-1)), net
        )(tokens)
        opt.step(gradients)
        return loss

    losses = [float(step(tokens)) for _ in range(60)]
    assert losses[0] > 1.2
    assert losses[-1] < 0.3
    assert step.stats().compilations == 1
    # nothing is seen of the future
    net.eval()
    a = net(tokens[:, :6])
    close(a, net(tokens)[:, :6], 1e-4)


@pytest.mark.parametrize("options", [{}, {"src_key_padding_mask": jnp.arange(T)[None] > jnp.array([[4], [5]])}])
def test_a_repeat_of_layers_equals_a_sequence_of_them(options):
    def make():
        return nn.TransformerEncoderLayer(2, dim_feedforward=5, batch_first=True, dropout=0.0)

    repeat = nn.Repeat(make, 3)
    plain = nn.Sequential(*(make() for _ in range(3)))
    x = draw(0, N, T, E)
    repeat(x, is_causal=True, **options)
    plain(x)
    plain.load_state_dict(repeat.state_dict())

    def one_by_one(x):
        for layer in plain:
            x = layer(x, is_causal=True, **options)
        return x

    expected = one_by_one(x)
    close(repeat(x, is_causal=True, **options), expected)
    compiled = bw.compile(lambda x: repeat(x, is_causal=True, **options))
    close(compiled(x), expected)
    close(
        bw.compile(bw.grad(lambda x: (repeat(x, is_causal=True, **options) ** 2).sum(), 0))(x),
        bw.compile(bw.grad(lambda x: (one_by_one(x) ** 2).sum(), 0))(x),
        1e-4,
    )


def test_a_cache_that_was_too_small_begins_anew():
    """What found no room is NaN; after ``reset`` nothing is left of it."""
    layer, x = nn.MultiheadAttention(2, batch_first=True).eval(), jnp.ones((1, 1, 4))
    cache, fresh = nn.KVCache(2), nn.KVCache(2)
    step = bw.compile(lambda x: layer(x, x, x, cache=cache)[0])
    assert np.isnan([step(x) for _ in range(3)][-1]).all()
    cache.reset()
    assert np.array_equal(step(x), layer(x, x, x, cache=fresh)[0])
    nn.KVCache(2).reset()  # before its sizes are known


class OwnEncoderLayer(nn.TransformerEncoderLayer):
    def forward(self, src, src_mask=None, **options):
        return super().forward(src, src_mask, **options)


class OwnDecoderLayer(nn.TransformerDecoderLayer):
    def forward(self, tgt, memory, tgt_is_causal=False, **options):
        return super().forward(tgt, memory, tgt_is_causal=tgt_is_causal, **options)


def test_stacks_call_layers_by_keyword():
    """As PyTorch's do, so that a layer of one's own may leave options out of its signature, or change their order."""
    x = jnp.ones((2, 3, 4))
    mask = jnp.triu(jnp.ones((3, 3), bool), 1)
    for own, plain, args in [
        (OwnEncoderLayer, nn.TransformerEncoderLayer, (x, mask)),
        (OwnDecoderLayer, nn.TransformerDecoderLayer, (x, x, mask)),
    ]:
        stack = nn.TransformerEncoder if len(args) == 2 else nn.TransformerDecoder
        bw.seed(0)
        net = stack(own(2, dim_feedforward=8, batch_first=True, dropout=0.0), 2)
        bw.seed(0)
        twin = stack(plain(2, dim_feedforward=8, batch_first=True, dropout=0.0), 2)
        np.testing.assert_array_equal(net(*args), twin(*args))


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_decoding_with_a_stack(kind):
    """A token at a time, each layer with a cache of its own: as the whole sequence at once."""
    options = {"dim_feedforward": 8, "batch_first": True, "dropout": 0.0}
    memory = jnp.ones((2, 3, 4))
    if kind == "encoder":
        net = nn.TransformerEncoder(nn.TransformerEncoderLayer(2, **options), 2)
        whole, part = (lambda x: net(x, is_causal=True)), (lambda x: net(x, caches=caches))
    else:
        net = nn.TransformerDecoder(nn.TransformerDecoderLayer(2, **options), 2)
        whole, part = (lambda x: net(x, memory, tgt_is_causal=True)), (lambda x: net(x, memory, caches=caches))
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 5, 4)), jnp.float32)
    expected = whole(x)
    caches = nn.ModuleList([nn.KVCache(8) for _ in range(2)])
    step = bw.compile(part)
    found = [step(x[:, :2]), *(step(x[:, i : i + 1]) for i in range(2, 5))]
    close(jnp.concatenate(found, 1), expected)
    assert step.stats().compilations == 2  # for the prompt, and for one token


def test_what_is_said_of_caches_that_do_not_fit_a_stack():
    net = nn.TransformerEncoder(nn.TransformerEncoderLayer(2, dim_feedforward=8, batch_first=True), 2)
    x, cache = jnp.ones((1, 1, 4)), nn.KVCache(4)
    refuse(
        lambda: net(x, caches=[cache, cache]),
        ValueError,
        "TransformerEncoder: caches must hold a cache of its own for each of the 2 layers, got 2, different ones: 1. "
        "Make them so: [nn.KVCache(max_length) for _ in range(2)].",
        note=...,
    )
    refuse(
        lambda: net(x, caches=[cache]),
        ValueError,
        "TransformerEncoder: caches must hold a cache of its own for each of the 2 layers, got 1, different ...",
        note=...,
    )
    refuse(
        lambda: net(x, caches=[cache, None]),
        TypeError,
        "TransformerEncoder: caches must be a list of nn.KVCache, one for each layer, got [KVCache(...",
        note=...,
    )
    assert int(cache.length) == 0
