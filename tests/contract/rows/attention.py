"""Attention, transformers, positions."""

from __future__ import annotations

import jax
from tests.contract.row import Row, same, with_inputs

import brickwork as bw
from brickwork import nn

MultiheadAttention = with_inputs(nn.MultiheadAttention, lambda x: (x, x, x))
Causal = with_inputs(nn.MultiheadAttention, lambda x: (x, x, x, None, False, None, True, True))
Decoder = with_inputs(nn.TransformerDecoderLayer, lambda x: (x, x))
DecoderStack = with_inputs(nn.TransformerDecoder, lambda x: (x, x))
Transformer = with_inputs(nn.Transformer, lambda x: (x, x))
KVCache = with_inputs(nn.KVCache, lambda x: (x, x), lambda y: y[0])
for name in ("Causal", "Decoder", "DecoderStack"):
    globals()[name].__name__ = globals()[name].__qualname__ = name


class Separate(nn.MultiheadAttention):
    def forward(self, x):
        return super().forward(*cut(x))[0]

    def build(self, x):
        super().build(*jax.eval_shape(cut, x))  # nothing is computed in build


def cut(x):
    return x[..., :4], x, x[..., :2]


ATTENTION = ("in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias")
REST = tuple(f"{name}.{kind}" for name in ("linear1", "linear2", "norm1", "norm2") for kind in ("weight", "bias"))
ENCODER = (*(f"self_attn.{name}" for name in ATTENTION), *REST)
DECODER = (
    *(f"{kind}.{name}" for kind in ("self_attn", "multihead_attn") for name in ATTENTION),
    *REST,
    "norm3.weight",
    "norm3.bias",
)
NORM = ("norm.weight", "norm.bias")


def layer(kind, **options):
    return lambda: kind(2, **({"dim_feedforward": 3, "dropout": 0.0, "batch_first": True} | options))


def stack(kind, of, **options):
    return lambda: kind(layer(of, **options)(), 1, nn.LayerNorm(normalized_shape=options.get("d_model")))


def whole(**options):
    sizes = {"num_encoder_layers": 1, "num_decoder_layers": 1, "dim_feedforward": 3, "batch_first": True}
    return lambda: Transformer(nhead=2, dropout=0.0, **sizes, **options)


ROWS = [
    Row(
        "MultiheadAttention",
        lambda: MultiheadAttention(2, batch_first=True),
        lambda: MultiheadAttention(2, embed_dim=4, batch_first=True),
        (2, 3, 4),
        wrong_rank=(4,),
        wrong_width=(2, 3, 6),
        integer="",
        parameters=ATTENTION,
        leaf=False,
    ),
    Row(
        "MultiheadAttention, causal and with dropout",
        lambda: Causal(2, bias=False, dropout=0.5, batch_first=True),
        lambda: Causal(2, embed_dim=4, bias=False, dropout=0.5, batch_first=True),
        (2, 3, 4),
        wrong_rank=(4,),
        wrong_width=(2, 3, 6),
        integer="",
        random=True,
        parameters=("in_proj_weight", "out_proj.weight"),
        leaf=False,
    ),
    Row(
        "MultiheadAttention of several widths",
        lambda: Separate(2, kdim=6, vdim=2, add_bias_kv=True, add_zero_attn=True, batch_first=True),
        lambda: Separate(2, embed_dim=4, kdim=6, vdim=2, add_bias_kv=True, add_zero_attn=True, batch_first=True),
        (2, 3, 6),
        wrong_width=(2, 3, 7),
        integer="",
        parameters=(
            *("q_proj_weight", "k_proj_weight", "v_proj_weight", "in_proj_bias", "bias_k", "bias_v"),
            *("out_proj.weight", "out_proj.bias"),
        ),
        leaf=False,
    ),
    Row(
        "TransformerEncoderLayer",
        layer(nn.TransformerEncoderLayer),
        layer(nn.TransformerEncoderLayer, d_model=4),
        (2, 3, 4),
        integer="",
        parameters=ENCODER,
        leaf=False,
    ),
    Row(
        "TransformerEncoderLayer, normalising first, with dropout",
        layer(nn.TransformerEncoderLayer, norm_first=True, dropout=0.5, activation="gelu"),
        layer(nn.TransformerEncoderLayer, d_model=4, norm_first=True, dropout=0.5, activation="gelu"),
        (2, 3, 4),
        integer="",
        random=True,
        parameters=ENCODER,
        leaf=False,
    ),
    Row(
        "TransformerDecoderLayer",
        lambda: layer(Decoder, activation=nn.Tanh())(),
        lambda: layer(Decoder, d_model=4, activation=nn.Tanh())(),
        (2, 3, 4),
        integer="",
        parameters=DECODER,
        leaf=False,
    ),
    Row(
        "TransformerEncoder",
        stack(nn.TransformerEncoder, nn.TransformerEncoderLayer),
        stack(nn.TransformerEncoder, nn.TransformerEncoderLayer, d_model=4),
        (2, 3, 4),
        integer="",
        parameters=tuple(f"layers.0.{name}" for name in ENCODER) + NORM,
        leaf=False,
    ),
    Row(
        "TransformerDecoder",
        stack(DecoderStack, nn.TransformerDecoderLayer),
        stack(DecoderStack, nn.TransformerDecoderLayer, d_model=4),
        (2, 3, 4),
        integer="",
        parameters=tuple(f"layers.0.{name}" for name in DECODER) + NORM,
        leaf=False,
    ),
    Row(
        "Transformer",
        whole(),
        whole(d_model=4),
        (2, 3, 4),
        integer="",
        parameters=tuple(
            f"{part}.{name}"
            for part, names in (("encoder", ENCODER), ("decoder", DECODER))
            for name in (*(f"layers.0.{name}" for name in names), *NORM)
        ),
        leaf=False,
    ),
    Row(
        "KVCache",
        lambda: KVCache(40),
        lambda: KVCache(40).initialize(bw.spec(2, 3, 2, 4)),
        (2, 3, 2, 4),
        wrong_rank=(2, 3, 4),
        wrong_width=(2, 3, 2, 5),
        stateful=True,
        transient=True,
    ),
    Row(
        "RotaryEmbedding",
        **same(lambda: nn.RotaryEmbedding()),
        shape=(2, 3, 4),
        wrong_rank=(4,),
        wrong_width=(2, 3, 5),
    ),
    Row(
        "RotaryEmbedding of some features",
        **same(lambda: nn.RotaryEmbedding(dim=2, interleaved=True, base=100.0)),
        shape=(2, 3, 4),
        wrong_rank=(4,),
        wrong_width=(2, 3, 1),
    ),
    Row(
        "SinusoidalPositions",
        **same(lambda: nn.SinusoidalPositions()),
        shape=(2, 3, 4),
        wrong_rank=(4,),
        wrong_width=(2, 3, 5),
    ),
]
