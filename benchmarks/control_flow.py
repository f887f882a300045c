"""Python's ``if`` and ``while`` on array values: eager, speculative, and written by hand.

    python benchmarks/control_flow.py

Two networks. The first is the guide's ``FixedHiddenMLP``, which halves its output in a ``while`` loop until it is
small; the second has three stages and stops after the first that is sure of its answer. "speculative" is
``bw.compile`` of the network as it is: each path is a program of its own, checked at each call. "by hand" is
``bw.compile`` of ``bw.while_loop`` and ``bw.cond``, one program for all paths.

"same path": one input, again and again. "three paths": three inputs in turn, of which none takes another's path, so
that the path taken last time is always the wrong guess.
"""

from __future__ import annotations

import argparse
import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import brickwork as bw
from _common import console, interleaved, missing, record, table
from brickwork import nn

EAGER = "brickwork, eager"
SURE = 0.9  # how probable an answer has to be for the network to stop there

Call = Callable[[], Any]


class FixedHiddenMLP(bw.Module):
    """One layer used twice, a constant weight, and a loop on values."""

    def __init__(self) -> None:
        self.rand_weight = bw.Buffer(jax.random.uniform(jax.random.key(1), (20, 20)))
        self.dense = nn.Linear(20)

    def hidden(self, x: jax.Array) -> jax.Array:
        x = self.dense(x)
        x = jax.nn.relu(x @ self.rand_weight + 1)
        return self.dense(x)  # the same layer, with the same parameters

    def forward(self, x: jax.Array) -> jax.Array:
        x = self.hidden(x)
        while jnp.abs(x).sum() > 1:
            x = x / 2
        return x.sum()


class LoopByHand(FixedHiddenMLP):
    """The same with ``bw.while_loop``."""

    def forward(self, x: jax.Array) -> jax.Array:
        x = bw.while_loop(lambda x: jnp.abs(x).sum() > 1, lambda x: x / 2, self.hidden(x))
        return x.sum()


class EarlyExit(bw.Module):
    """Three stages, each with a head; answers as soon as a head is sure."""

    def __init__(self, width: int = 64, classes: int = 10) -> None:
        self.stages = [nn.Sequential(nn.Linear(width, in_features=width), nn.ReLU()) for _ in range(3)]
        self.heads = [nn.Linear(classes, in_features=width) for _ in range(3)]

    def forward(self, x: jax.Array) -> jax.Array:
        for stage, head in zip(self.stages[:-1], self.heads[:-1], strict=True):
            x = stage(x)
            answer = jax.nn.softmax(head(x))
            if answer.max() > SURE:
                return answer
        return jax.nn.softmax(self.heads[-1](self.stages[-1](x)))


class ExitByHand(EarlyExit):
    """The same with ``bw.cond``."""

    def forward(self, x: jax.Array) -> jax.Array:
        return self.after(0, x)

    def after(self, i: int, x: jax.Array) -> jax.Array:
        x = self.stages[i](x)
        answer = jax.nn.softmax(self.heads[i](x))
        if i == len(self.stages) - 1:
            return answer
        return bw.cond(answer.max() > SURE, lambda x: answer, lambda x: self.after(i + 1, x), x)


def in_turn(fn: Callable[[Any], Any], inputs: list[Any]) -> Call:
    """A function that calls with the next input each time."""
    each = itertools.cycle(inputs)
    return lambda: jax.block_until_ready(fn(next(each)))


def loop_inputs() -> list[jax.Array]:
    """Inputs that are halved different numbers of times."""
    x = jax.random.uniform(jax.random.key(0), (2, 20))
    return [x, 8 * x, 64 * x]


def exit_inputs(net: EarlyExit) -> list[jax.Array]:
    """Inputs that leave after the first, the second and the third stage."""
    rng = np.random.default_rng(0)
    found: dict[int, jax.Array] = {}
    for scale in np.geomspace(0.1, 1000, 200):
        x = jnp.asarray(scale * rng.normal(size=(1, 64)), jnp.float32)
        y, left = x, 2
        for i in range(2):
            y = net.stages[i](y)
            if float(jax.nn.softmax(net.heads[i](y)).max()) > SURE:
                left = i
                break
        found.setdefault(left, x)
    if len(found) < 3:
        raise SystemExit(f"no input leaves after stage {({0, 1, 2} - found.keys()).pop() + 1}")
    return [found[i] for i in range(3)]


def torch_loop(inputs: list[jax.Array]) -> Callable[[Any], Any]:
    """The first network in PyTorch."""
    import torch

    dense, weight = torch.nn.Linear(20, 20), torch.rand(20, 20)
    known = {id(x): torch.from_numpy(np.array(x)) for x in inputs}

    @torch.no_grad()
    def forward(x: Any) -> Any:
        x = dense(torch.relu(dense(known[id(x)]) @ weight + 1))
        while x.abs().sum() > 1:
            x = x / 2
        return x.sum()

    return forward


def networks(absent: list[str]) -> dict[str, tuple[list[jax.Array], dict[str, Callable[[Any], Any]]]]:
    """For each network its inputs and its variants."""
    halving, by_hand = FixedHiddenMLP(), LoopByHand()
    inputs = loop_inputs()
    halving(inputs[0])
    by_hand(inputs[0])
    by_hand.load_state_dict(halving.state_dict())
    loop = {
        EAGER: halving,
        "brickwork, speculative": bw.compile(halving),
        "brickwork, by hand": bw.compile(by_hand),
    }
    if "torch" not in absent:
        loop["PyTorch, eager"] = torch_loop(inputs)

    leaving, exit_by_hand = EarlyExit(), ExitByHand()
    exit_by_hand.load_state_dict(leaving.state_dict())
    early = {
        EAGER: leaving,
        "brickwork, speculative": bw.compile(leaving),
        "brickwork, by hand": bw.compile(exit_by_hand),
    }
    return {
        "FixedHiddenMLP": (inputs, loop),
        "three stages with early exits": (exit_inputs(leaving), early),
    }


def main() -> None:
    """Time every variant on one path and on three in turn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--calls", type=int, default=60, help="timed calls per round and variant, at most")
    parser.add_argument("--json", type=Path, help="file for the results; printed without it")
    args = parser.parse_args()

    os.environ["BRICKWORK_CACHE"] = "off"
    results = []
    for title, (inputs, variants) in networks(missing(["torch"])).items():
        expected = [np.asarray(variants[EAGER](x)) for x in inputs]
        for name, fn in variants.items():
            if name.startswith("brickwork"):
                for x, y in zip(inputs, expected, strict=True):
                    np.testing.assert_allclose(np.asarray(fn(x)), y, rtol=1e-5, err_msg=name)
        for case, given in (("same path", inputs[1:2]), ("three paths", inputs)):
            with console.status(f"measuring {title}, {case}"):
                calls = {name: in_turn(fn, given) for name, fn in variants.items()}
                timings = interleaved(calls, rounds=args.rounds, calls=args.calls, turn=0.2)
            rows = []
            for name, timing in timings.items():
                over = timing.over(timings[EAGER])
                row = {"network": title, "case": case, "variant": name, "median_us": timing.median * 1e6}
                results.append(row | {"best_us": timing.best * 1e6, "over_eager": over})
                rows.append((name, f"{timing.median * 1e6:.0f}", f"{timing.best * 1e6:.0f}", f"{over:.2f}"))
            table(f"{title}, {case}", ("variant", "median µs", "least µs", "x eager"), rows)
    record("control_flow", results, args.json)


if __name__ == "__main__":
    main()
