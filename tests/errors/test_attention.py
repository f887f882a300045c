"""Messages of attention, transformers and positions."""

from __future__ import annotations

import jax.numpy as jnp
import pytest
from tests.errors.checks import refuse

from brickwork import functional as F, nn
from brickwork.errors import ShapeMismatchError


def x(*shape, dtype=jnp.float32):
    return jnp.ones(shape, dtype)


SDPA = "scaled_dot_product_attention: "
MHA = "MultiheadAttention: "


def attend(q=(2, 3, 4), k=(2, 5, 4), v=(2, 5, 4), **options):
    return lambda: F.scaled_dot_product_attention(x(*q), x(*k), x(*v), **options)


def heads(*shapes, make=lambda: nn.MultiheadAttention(2, batch_first=True), **options):
    return lambda: make()(*(x(*shape) for shape in shapes), **options)


def encoder(**options):
    return lambda: nn.TransformerEncoderLayer(2, **options)


CASES = {
    "widths": (
        attend(k=(2, 5, 6)),
        ShapeMismatchError,
        SDPA + "query and key must have the same number of features (last axis), not 4 and 6. "
        "Got query: float32[2, 3, 4], key: float32[2, 5, 6]. Project them to one width.",
    ),
    "lengths": (attend(v=(2, 6, 4)), ShapeMismatchError, SDPA + "key and value must have the same length (axis -2)..."),
    "a vector": (attend(q=(4,)), ShapeMismatchError, SDPA + "query must have at least 2 axes (*, length, features)..."),
    "batches": (
        attend(k=(3, 5, 4), v=(3, 5, 4)),
        ShapeMismatchError,
        SDPA + "the leading axes (all but the last two) of query, key and value must fit together. ...enable_gqa=True.",
    ),
    "groups": (
        attend(q=(3, 3, 4), enable_gqa=True),
        ShapeMismatchError,
        SDPA + "with enable_gqa the 3 heads of query (axis -3) must be a multiple of those of key and value. ...",
    ),
    "a mask": (
        attend(attn_mask=x(3, 4)),
        ShapeMismatchError,
        SDPA + "attn_mask must broadcast to (2, 3, 5), the leading axes, queries and keys. Got attn_mask: "
        "float32[3, 4]. A mask for each example of a batch needs an axis for the heads: mask[:, None].",
    ),
    "a mask of integers": (
        attend(attn_mask=jnp.ones((3, 5), jnp.int32)),
        TypeError,
        SDPA + "attn_mask must hold booleans (True takes part) or floats (added to the scores), got "
        "int32[3, 5]. Cast it: attn_mask.astype(bool).",
    ),
    "dtypes": (
        lambda: F.scaled_dot_product_attention(x(3, 4), x(5, 4, dtype=jnp.bfloat16), x(5, 4)),
        TypeError,
        SDPA + "key is bfloat16, but query float32. Cast it: key.astype(jnp.float32).",
    ),
    "integers": (
        lambda: F.scaled_dot_product_attention(x(3, 4, dtype=jnp.int32), x(5, 4), x(5, 4)),
        TypeError,
        SDPA + "query holds int32 values, but floating-point values are needed. ...",
    ),
    "dropout without a key": (
        attend(dropout_p=0.5),
        TypeError,
        SDPA + "dropout_p=0.5 needs a random key. Pass dropout_key=bw.random.key(), or dropout_p=0.0.",
    ),
    "a rate": (attend(dropout_p=1.5), ValueError, SDPA + "dropout_p must be in [0, 1], got 1.5."),
    "no rate": (attend(dropout_p=float("nan")), ValueError, SDPA + "dropout_p must be in [0, 1], got nan."),
    "a flag": (attend(is_causal=1), TypeError, SDPA + "is_causal must be True or False, got 1 (int)."),
    "an array as a scale": (
        attend(scale=jnp.float32(1)),
        TypeError,
        SDPA + "scale must be a Python number, got Array(...). To scale by an array, scale the query.",
    ),
    "a scale": (attend(scale=float("nan")), ValueError, SDPA + "scale must be finite, got nan."),
    "PyTorch's order": (
        lambda: nn.MultiheadAttention(512, 8),
        TypeError,
        "MultiheadAttention(num_heads, *, embed_dim=None): got 2 positional sizes (512, 8); write "
        "nn.MultiheadAttention(8) and let the input decide, or nn.MultiheadAttention(8, embed_dim=512)",
    ),
    "PyTorch's order of a layer": (
        lambda: nn.TransformerEncoderLayer(512, 8),
        TypeError,
        "TransformerEncoderLayer(nhead, *, d_model=None): got 2 positional sizes (512, 8); write "
        "nn.TransformerEncoderLayer(8) and let the input decide, or nn.TransformerEncoderLayer(8, d_model=512)",
    ),
    "PyTorch's first argument": (
        lambda: nn.Transformer(512),
        TypeError,
        "Transformer(*, d_model=None): got 1 positional size (512); write nn.Transformer() and let the input "
        "decide, or nn.Transformer(d_model=512)",
    ),
    "heads that don't divide": (
        lambda: nn.MultiheadAttention(3, embed_dim=8),
        ValueError,
        MHA + "num_heads=3 must divide embed_dim=8.",
    ),
    "heads that don't divide the data": (
        heads((2, 3, 5), (2, 3, 5), (2, 3, 5)),
        ShapeMismatchError,
        MHA + "num_heads=2 must divide the 5 features of query (last axis). Got query: float32[2, 3, 5]. "
        "Change num_heads, or project the query.",
    ),
    "a width of the keys": (
        heads((2, 3, 4), (2, 3, 6), (2, 3, 4)),
        ShapeMismatchError,
        MHA + "key has 6 features in its last axis, but 4 are expected. Got key: float32[2, 3, 6]. "
        "Check the data, or make the layer with kdim=6.",
    ),
    "axes": (
        heads((4,), (4,), (4,)),
        ShapeMismatchError,
        MHA + "query must have 3 axes (N, L, E), or all of them 2 axes (L, E), not 1. Got query: float32[4]. "
        "Add the missing axes, or reshape the data.",
    ),
    "batch sizes": (
        heads((2, 3, 4), (3, 3, 4), (3, 3, 4)),
        ShapeMismatchError,
        MHA + "key and value must have one length, and all three one batch size (axis 0). ...batch_first.",
    ),
    "a padding mask": (
        heads((2, 3, 4), (2, 5, 4), (2, 5, 4), key_padding_mask=jnp.zeros((2, 3), bool)),
        ShapeMismatchError,
        MHA + "key_padding_mask must have shape (2, 5). Got key_padding_mask: bool[2, 3]. Check the mask.",
    ),
    "an attention mask": (
        heads((2, 3, 4), (2, 5, 4), (2, 5, 4), attn_mask=jnp.zeros((2, 3, 5), bool)),
        ShapeMismatchError,
        MHA + "attn_mask must have shape (3, 5) or (4, 3, 5). Got attn_mask: bool[2, 3, 5]. Check the mask.",
    ),
    "an attention mask of integers": (
        heads((2, 3, 4), (2, 5, 4), (2, 5, 4), attn_mask=jnp.zeros((3, 5), jnp.int32)),
        TypeError,
        MHA + "attn_mask must hold booleans (True is ignored) or floats (added to the scores), got int32[3, 5]. ...",
    ),
    "a flag of attention": (
        heads((2, 3, 4), (2, 5, 4), (2, 5, 4), need_weights=None),
        TypeError,
        MHA + "need_weights must be True or False, got None (NoneType).",
    ),
    "no cache": (
        heads((2, 3, 4), (2, 3, 4), (2, 3, 4), cache={}),
        TypeError,
        MHA + "cache must be an nn.KVCache, got dict.",
    ),
    "a cache and added keys": (
        heads(*[(2, 3, 4)] * 3, make=lambda: nn.MultiheadAttention(2, add_zero_attn=True), cache=nn.KVCache(4)),
        ValueError,
        MHA + "a cache doesn't go with add_bias_kv or add_zero_attn.",
    ),
    "a cache and other keys": (
        heads((2, 1, 4), (2, 5, 4), (2, 5, 4), cache=nn.KVCache(8)),
        ShapeMismatchError,
        MHA + "with a cache, query and key must have one length, got 1 and 5. Pass the new positions only, in all "
        "three; the cache has the keys and values of those before.",
    ),
    "a mask with a cache": (
        heads(*[(2, 3, 4)] * 3, cache=nn.KVCache(8), attn_mask=x(3, 3)),
        ShapeMismatchError,
        MHA + "attn_mask must have shape (3, 8) or (4, 3, 8). Got attn_mask: float32[3, 3]. With a cache masks are as "
        "wide as that is long: max_length=8.",
    ),
    "padding with a cache": (
        heads(*[(2, 3, 4)] * 3, cache=nn.KVCache(8), key_padding_mask=x(2, 3)),
        ShapeMismatchError,
        MHA + "key_padding_mask must have shape (2, 8). Got key_padding_mask: float32[2, 3]. With a cache masks are as "
        "wide as that is long: max_length=8.",
    ),
    "a cache of integers": (
        lambda: nn.KVCache(4, dtype=jnp.int8),
        TypeError,
        "KVCache: dtype must be a floating-point dtype, such as jnp.bfloat16, got int8.",
    ),
    "a cache of complex numbers": (lambda: nn.KVCache(4, dtype=jnp.complex64), TypeError, "KVCache: dtype must ..."),
    "a cache of booleans": (lambda: nn.KVCache(4, dtype=bool), TypeError, "KVCache: dtype must ..., got bool."),
    "axes of a cache": (
        lambda: nn.KVCache(4).update(x(2, 3, 4), x(2, 3, 4)),
        ShapeMismatchError,
        "KVCache: key must have 4 axes (N, H, T, D), not 3. Got key: float32[2, 3, 4]. Split the heads, and add ...",
    ),
    "a length": (lambda: nn.KVCache(True), TypeError, "KVCache: max_length must be an int, got True (bool)."),
    "an activation": (
        encoder(activation="swish"),
        ValueError,
        "TransformerEncoderLayer: activation must be 'relu', 'gelu' or a function, got 'swish'.",
    ),
    "an activation's class": (
        encoder(activation=nn.GELU),
        TypeError,
        "TransformerEncoderLayer: activation is the class GELU, not a layer; write GELU().",
    ),
    "no activation": (
        encoder(activation=3),
        TypeError,
        "TransformerEncoderLayer: activation must be 'relu', 'gelu' or a function, got 3.",
    ),
    "no layer": (
        lambda: nn.TransformerEncoder(512, 6),
        TypeError,
        "TransformerEncoder: encoder_layer must be a layer, got int 512.",
    ),
    "no norm": (
        lambda: nn.TransformerDecoder(nn.TransformerDecoderLayer(2), 6, 1e-5),
        TypeError,
        "TransformerDecoder: norm must be a layer such as nn.LayerNorm(), or None, got 1e-05.",
    ),
    "batches of source and target": (
        lambda: nn.Transformer(nhead=2, batch_first=True)(x(2, 3, 4), x(3, 3, 4)),
        ShapeMismatchError,
        "Transformer: src and tgt must have one batch size and one number of features. ...batch_first.",
    ),
    "an odd width": (
        lambda: nn.RotaryEmbedding()(x(2, 3, 5)),
        ShapeMismatchError,
        "RotaryEmbedding: x has 5 features in its last axis, but needs an even number, since they come in pairs. ...",
    ),
    "an odd size": (
        lambda: nn.RotaryEmbedding(dim=3),
        ValueError,
        "RotaryEmbedding: dim must be even, since features come in pairs, got 3.",
    ),
    "a base": (
        lambda: nn.RotaryEmbedding(base=0),
        ValueError,
        "RotaryEmbedding: base must be positive and finite, ...",
    ),
    "no base": (
        lambda: nn.SinusoidalPositions(base="a"),
        TypeError,
        "SinusoidalPositions: base must be a number, got...",
    ),
    "positions": (
        lambda: nn.RotaryEmbedding()(x(2, 3, 4), jnp.zeros((2,), jnp.int32)),
        ShapeMismatchError,
        "RotaryEmbedding: positions must broadcast to (2, 3), all axes of x but the last. ...positions[:, None].",
    ),
    "positions that are floats": (
        lambda: nn.SinusoidalPositions()(x(2, 3, 4), 1.5),
        TypeError,
        "SinusoidalPositions: positions must be integers, got ...",
    ),
    "positions of floats": (
        lambda: F.rotary_tables(x(3), 4),
        TypeError,
        "rotary_tables: positions must be integers, got float32[3]. Cast them: positions.astype(jnp.int32).",
    ),
    "tables": (
        lambda: F.apply_rotary(x(2, 3, 4), x(3, 4), x(3, 4)),
        ShapeMismatchError,
        "apply_rotary: cos and sin must broadcast to (*, T, half) for x of shape (*, T, D), with half at most...",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_message(case):
    call, kind, message = CASES[case]
    refuse(call, kind, message, note=...)


def test_another_batch_in_a_cache():
    cache = nn.KVCache(4)
    cache.update(x(1, 2, 1, 4), x(1, 2, 1, 4))
    refuse(
        lambda: cache.update(x(3, 2, 1, 4), x(3, 2, 1, 4)),
        ShapeMismatchError,
        "KVCache: key must have shape (1, 2, 1, 4), as the cache has seen before. Got key: float32[3, 2, 1, 4]. "
        "Make a new nn.KVCache for another batch.",
        note="in net (KVCache((1, 2, 4, 4))), called with float32[3, 2, 1, 4], float32[3, 2, 1, 4]",
    )


def test_a_cache_is_as_before_after_an_error():
    net, cache = nn.MultiheadAttention(2, batch_first=True), nn.KVCache(8)
    ones = x(2, 3, 4)
    net(ones, ones, ones, cache=cache)
    for options in ({"attn_mask": x(3, 3)}, {"key_padding_mask": x(2, 3)}):
        with pytest.raises(ShapeMismatchError):
            net(ones, ones, ones, cache=cache, **options)
    with pytest.raises(ShapeMismatchError):
        net(ones[:, :1], ones, ones, cache=cache)
    assert int(cache.length) == 3


@pytest.mark.parametrize("layer", [nn.TransformerEncoderLayer, nn.TransformerDecoderLayer])
def test_another_width_than_the_layer_was_made_for(layer):
    x = jnp.ones((5, 2, 4))
    given = (x,) if layer is nn.TransformerEncoderLayer else (x, x)
    with pytest.raises(ShapeMismatchError, match=r"x has 4 features in its last axis, but 2 are expected\. Got x: "):
        layer(2, d_model=2)(*given)
