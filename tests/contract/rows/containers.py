"""Containers, and what is put around layers."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from tests.contract.row import Row, same, with_inputs

from brickwork import init, nn

LoRA = with_inputs(nn.LoRA, lambda x: (x, x, x))


def _residual(**sizes):
    return nn.Residual(
        nn.Linear(4, **sizes), jnp.tanh, shortcut=nn.Linear(4, bias=False, **sizes), activation=jax.nn.relu
    )


def _trained(layer):
    """An adapter that changes something."""
    layer.lora_B = nn.Parameter(shape=layer.lora_B.shape, init=init.normal(0.5))
    return layer


ROWS = [
    Row(
        "Repeat",
        lambda: nn.Repeat(lambda: nn.Linear(5), 3),
        lambda: nn.Repeat(lambda: nn.Linear(5, in_features=5), 3),
        (4, 5),
        integer="",
        parameters=("block.weight", "block.bias"),
        leaf=False,
    ),
    Row(
        "Repeat with state and random numbers",
        lambda: nn.Repeat(lambda: nn.Sequential(nn.BatchNorm1d(), nn.Dropout(0.5)), 2, remat=True),
        lambda: nn.Repeat(lambda: nn.Sequential(nn.BatchNorm1d(num_features=3), nn.Dropout(0.5)), 2, remat=True),
        (6, 3),
        integer="",
        random=True,
        stateful=True,
        parameters=("block.0.weight", "block.0.bias"),
        leaf=False,
    ),
    Row(
        "Sequential with names",
        lambda: nn.Sequential({"first": nn.Linear(3), "act": jnp.tanh, "last": nn.LayerNorm()}),
        lambda: nn.Sequential(
            {"first": nn.Linear(3, in_features=5), "act": jnp.tanh, "last": nn.LayerNorm(normalized_shape=3)}
        ),
        (4, 5),
        integer="",
        parameters=("first.weight", "first.bias", "last.weight", "last.bias"),
        leaf=False,
    ),
    Row(
        "Parallel",
        lambda: nn.Parallel(nn.Linear(3), nn.Linear(2, bias=False)),
        lambda: nn.Parallel(nn.Linear(3, in_features=5), nn.Linear(2, in_features=5, bias=False)),
        (4, 5),
        integer="",
        parameters=("0.weight", "0.bias", "1.weight"),
        leaf=False,
    ),
    Row(
        "Parallel that takes the mean, with state and random numbers",
        lambda: nn.Parallel(nn.BatchNorm1d(), nn.Dropout(0.5), jnp.tanh, mode="mean"),
        lambda: nn.Parallel(nn.BatchNorm1d(num_features=3), nn.Dropout(0.5), jnp.tanh, mode="mean"),
        (6, 3),
        integer="",
        random=True,
        stateful=True,
        parameters=("0.weight", "0.bias"),
        leaf=False,
    ),
    Row(
        "Residual",
        lambda: nn.Residual(nn.Linear(6), nn.Tanh(), nn.Linear(5)),
        lambda: nn.Residual(nn.Linear(6, in_features=5), nn.Tanh(), nn.Linear(5, in_features=6)),
        (4, 5),
        integer="",
        parameters=("0.weight", "0.bias", "2.weight", "2.bias"),
        leaf=False,
    ),
    Row(
        "Residual with a shortcut",
        lambda: _residual(),
        lambda: _residual(in_features=5),
        (4, 5),
        integer="",
        parameters=("0.weight", "0.bias", "shortcut.weight"),
        leaf=False,
    ),
    Row("Lambda", **same(lambda: nn.Lambda(jnp.tanh)), shape=(2, 3), integer="accepted", leaf=False),
    Row(
        "LoRA around Linear",
        lambda: _trained(nn.LoRA(nn.Linear(3), 2, alpha=3)),
        lambda: _trained(nn.LoRA(nn.Linear(3, in_features=5), 2, alpha=3)),
        (4, 5),
        integer="",
        parameters=("weight", "bias", "lora_A", "lora_B"),
        leaf=False,
    ),
    Row(
        "LoRA with dropout around a convolution with groups",
        lambda: _trained(nn.LoRA(nn.Conv2d(4, 2, groups=2), 2, dropout=0.5)),
        lambda: _trained(nn.LoRA(nn.Conv2d(4, 2, in_channels=2, groups=2), 2, dropout=0.5)),
        (2, 2, 3, 3),
        integer="",
        random=True,
        parameters=("weight", "bias", "lora_A", "lora_B"),
        leaf=False,
    ),
    Row(
        "LoRA around Embedding",
        **same(lambda: _trained(nn.LoRA(nn.Embedding(4, 3), 2))),
        shape=(2, 3),
        integer="needed",
        parameters=("weight", "lora_A", "lora_B"),
        leaf=False,
    ),
    Row(
        "LoRA around MultiheadAttention",
        lambda: _trained(LoRA(nn.MultiheadAttention(2), 2)),
        lambda: _trained(LoRA(nn.MultiheadAttention(2, embed_dim=4), 2)),
        (3, 2, 4),
        integer="",
        parameters=("in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias", "lora_A", "lora_B"),
        leaf=False,
    ),
    Row(
        "Quantized Linear",
        **same(lambda: nn.Quantized(nn.Linear(3, in_features=5))),
        shape=(4, 5),
        integer="",
        parameters=("bias",),
        leaf=False,
    ),
    Row(
        "Quantized Conv2d",
        **same(lambda: nn.Quantized(nn.Conv2d(4, 2, in_channels=2, padding=1, bias=False))),
        shape=(2, 2, 3, 3),
        integer="",
        leaf=False,
    ),
    Row(
        "Quantized Embedding",
        **same(lambda: nn.Quantized(nn.Embedding(4, 3))),
        shape=(2, 3),
        integer="needed",
        leaf=False,
    ),
    Row(
        "LoRA around a quantised layer",
        **same(lambda: _trained(nn.LoRA(nn.Quantized(nn.Linear(3, in_features=5)), 2))),
        shape=(4, 5),
        integer="",
        parameters=("bias", "lora_A", "lora_B"),
        leaf=False,
    ),
]
