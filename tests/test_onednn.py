"""Products and convolutions by oneDNN: the same numbers, wherever it is chosen, and nowhere else."""

from __future__ import annotations

import functools
import itertools
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, strategies as st
from jax import lax

import brickwork as bw
from brickwork import _onednn, losses, nn, optim

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    _there = _onednn.usable()

pytestmark = pytest.mark.skipif(not _there, reason="oneDNN needs JAX 0.12 and an x86 processor")
CALLS = ("__onednn$matmul", "__onednn$convolution")


@pytest.fixture(autouse=True)
def _however_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_onednn, "_FEWEST", {"matmul": 0, "convolution": 0})


def compiled(fn: Any, *args: Any) -> tuple[Any, str]:
    """What a function gives with oneDNN, and the text of its program."""
    with _onednn.choosing(True), _onednn.lowering(True) as calls:
        # A function of its own each time: JAX would find the program that it compiled without oneDNN.
        lowered = jax.jit(lambda *args: fn(*args)).lower(*args)
        text = lowered.as_text()
        assert calls or "__onednn$" not in text
        return lowered.compile()(*args), text


def normal(shape: tuple[int, ...], seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def whole(shape: tuple[int, ...], seed: int = 0) -> Any:
    """Small integers, of which sums are exact."""
    return np.random.default_rng(seed).integers(-4, 5, shape).astype(np.float32)


def same(found: Any, wanted: Any) -> None:
    for a, b in zip(jax.tree_util.tree_leaves(found), jax.tree_util.tree_leaves(wanted), strict=True):
        scale = np.abs(b).max(initial=1e-30)
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * scale)


# -- matrix products -----------------------------------------------------------------------------


@pytest.mark.parametrize("a", [0, 1])
@pytest.mark.parametrize("b", [0, 1])
@pytest.mark.parametrize("batch", [(), (3,), (2, 3), (1,) * 12])
def test_a_product_of_matrices_and_its_gradients(a: int, b: int, batch: tuple[int, ...]):
    n = len(batch)
    shapes = (*batch, *((5, 7) if a else (7, 5))), (*batch, *((4, 5) if b else (5, 4)))
    x, y = normal(shapes[0]), normal(shapes[1], 1)
    axes = tuple(range(n))
    # a: whether the first has its contracted axis first
    over = ((n,) if a else (n + 1,)), ((n + 1,) if b else (n,))

    def product(x: Any, y: Any) -> Any:
        return jnp.sin(lax.dot_general(x, y, (over, (axes, axes)))).sum()

    both = jax.value_and_grad(product, (0, 1))
    found, text = compiled(both, x, y)
    assert text.count(CALLS[0]) == 3
    same(found, both(x, y))


@pytest.mark.parametrize(
    ("x", "y", "numbers"),
    [
        ((4, 5, 6), (6, 7), (((2,), (0,)), ((), ()))),  # no matrix: more axes than a product has
        ((5, 6), (5, 6, 7), (((0, 1), (0, 1)), ((), ()))),
        ((4, 6), (6, 1), (((1,), (0,)), ((), ()))),  # a vector
        ((4, 6), (6,), (((1,), (0,)), ((), ()))),
        ((6,), (6,), (((0,), (0,)), ((), ()))),
        ((6,), (5,), (((), ()), ((), ()))),
        ((6, 4, 5), (5, 6, 3), (((2,), (0,)), ((0,), (1,)))),  # the batch is not in front
    ],
)
def test_products_of_other_kinds_are_left_to_xla(x: Any, y: Any, numbers: Any):
    def product(x: Any, y: Any) -> Any:
        return lax.dot_general(x, y, numbers)

    found, text = compiled(product, normal(x), normal(y))
    assert "__onednn$" not in text
    same(found, product(normal(x), normal(y)))


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float16, jnp.bfloat16, jnp.int32])
def test_other_types_are_left_to_xla(dtype: Any):
    with jax.enable_x64(True):
        x = jnp.ones((4, 4), dtype)
        assert "__onednn$" not in compiled(jnp.matmul, x, x)[1]
        assert "__onednn$" not in compiled(functools.partial(jnp.matmul, preferred_element_type=jnp.float64), x, x)[1]


def test_algorithms_of_their_own_and_empty_arrays_are_left_to_xla():
    x = normal((4, 4))
    algorithm = functools.partial(jnp.matmul, precision=lax.DotAlgorithmPreset.F32_F32_F32)
    assert "__onednn$" not in compiled(algorithm, x, x)[1]
    assert "__onednn$" in compiled(functools.partial(jnp.matmul, precision="highest"), x, x)[1]
    assert "__onednn$" not in compiled(jnp.matmul, x[:0], x)[1]


# -- convolutions --------------------------------------------------------------------------------

LETTERS = {1: "H", 2: "HW"}


@st.composite
def convolutions(draw: Any) -> tuple[Any, Any, Any]:
    """Any convolution along one or two axes: shapes of arrays, and the options of ``conv_general_dilated``."""
    ndim = draw(st.integers(1, 2))

    def each(low: int, high: int) -> list[int]:
        return [draw(st.integers(low, high)) for _ in range(ndim)]

    most = {1: 12, 2: 8}[ndim]
    size, window, spread, dilation = each(1, most), each(1, 4), each(1, 3), each(1, 3)
    stride = each(1, 3)
    # One of the three: the gradients of two are left to XLA, which ends the process in some cases.
    kind = draw(st.integers(0, 2))
    spread, dilation, stride = (n if i == kind else [1] * ndim for i, n in enumerate((spread, dilation, stride)))
    padding = []
    for n, k, s, d in zip(size, window, spread, dilation):
        wide, reach = (n - 1) * s + 1, d * (k - 1) + 1
        low = draw(st.integers(-min(2, wide - 1), 4))
        padding.append((low, max(draw(st.integers(-2, 4)), reach - wide - low)))
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    if groups > 1:  # their gradient by the weights is left to XLA
        padding = [(max(low, 0), max(high, 0)) for low, high in padding]
    inputs, outputs = draw(st.integers(1, 6)), groups * draw(st.integers(1, 4))
    images = draw(st.integers(1, 9))
    letters = LETTERS[ndim]
    orders = [f"NC{letters}", f"N{letters}C", f"C{letters}N", f"{letters}NC"]
    kernels = [f"OI{letters}", f"{letters}IO", f"I{letters}O", f"O{letters}I"]
    order = draw(st.sampled_from(orders)), draw(st.sampled_from(kernels)), draw(st.sampled_from(orders))
    shapes = {"N": images, "C": inputs * groups, "O": outputs, "I": inputs}
    x = [{**shapes, **dict(zip(letters, size))}[a] for a in order[0]]
    kernel = [{**shapes, **dict(zip(letters, window))}[a] for a in order[1]]
    options = {
        "window_strides": stride,
        "padding": padding,
        "lhs_dilation": spread,
        "rhs_dilation": dilation,
        "dimension_numbers": order,
        "feature_group_count": groups,
    }
    return tuple(x), tuple(kernel), options


def by_hand(x: Any, kernel: Any, dy: Any, options: Any) -> tuple[Any, tuple[Any, Any]]:
    """A convolution and its gradients, one element of the window after the other.

    XLA of JAX 0.10 has wrong gradients where padding is negative, and that of JAX 0.12 ends the process in some.
    """
    orders = [
        [name.index(letter) for letter in first + LETTERS[x.ndim - 2]]
        for name, first in zip(options["dimension_numbers"], ("NC", "OI", "NC"), strict=True)
    ]
    x, kernel, dy = (a.transpose(order) for a, order in zip((x, kernel, dy), orders, strict=True))
    spread, dilation, stride = (options[k] for k in ("lhs_dilation", "rhs_dilation", "window_strides"))
    wide, inside, seen = [], [], []  # the size with zeros, where the input lies in it, and what is left of it
    for n, s, (low, high) in zip(x.shape[2:], spread, options["padding"], strict=True):
        size, first = (n - 1) * s + 1, max(low, 0)
        wide.append(size + first + max(high, 0))
        inside.append(slice(first, first + size, s))
        seen.append(slice(max(-low, 0), wide[-1] - max(-high, 0)))
    around, slope = np.zeros((2, *x.shape[:2], *wide), np.float32)
    around[(..., *inside)] = x
    around, left = around[(..., *seen)], slope[(..., *seen)]
    y, slopes = np.zeros_like(dy), np.zeros_like(kernel)
    inputs, outputs = kernel.shape[1], kernel.shape[0] // options["feature_group_count"]
    for group, offset in itertools.product(range(options["feature_group_count"]), np.ndindex(kernel.shape[2:])):
        steps = zip(offset, dilation, stride, dy.shape[2:], strict=True)
        part = [slice(u * d, u * d + (n - 1) * s + 1, s) for u, d, s, n in steps]
        here = slice(None), slice(group * inputs, (group + 1) * inputs), *part
        there = slice(group * outputs, (group + 1) * outputs)
        weights = kernel[(there, slice(None), *offset)]
        y[:, there] += np.einsum("nc...,oc->no...", around[here], weights)
        left[here] += np.einsum("no...,oc->nc...", dy[:, there], weights)
        flat = (a.reshape(*a.shape[:2], -1) for a in (around[here], dy[:, there]))
        slopes[(there, slice(None), *offset)] = np.einsum("ncx,nox->oc", *flat)
    back = [np.argsort(order) for order in orders]
    return y.transpose(back[2]), (slope[(..., *inside)].transpose(back[0]), slopes.transpose(back[1]))


@given(convolutions())
def test_any_convolution_and_its_gradients(case: Any):
    x, kernel, options = whole(case[0]), whole(case[1], 1), case[2]

    def convolve(x: Any, kernel: Any) -> Any:
        return lax.conv_general_dilated(x, kernel, **options)

    def both(x: Any, kernel: Any, dy: Any) -> Any:
        y, pull = jax.vjp(convolve, x, kernel)
        return y, pull(dy)

    dy = whole(jax.eval_shape(convolve, x, kernel).shape, 2)
    found, text = compiled(both, x, kernel, dy)
    assert "__onednn$" in text
    jax.tree_util.tree_map(np.testing.assert_array_equal, found, by_hand(x, kernel, dy, options))


def test_a_batch_of_kernels():
    x, kernel = normal((3, 2, 4, 8, 8)), normal((3, 5, 4, 3, 3), 1)
    convolve = jax.vmap(functools.partial(lax.conv_general_dilated, window_strides=(1, 1), padding="SAME"))
    found, text = compiled(convolve, x, kernel)
    assert CALLS[1] in text
    same(found, convolve(x, kernel))


def test_second_derivatives_and_forward_mode():
    x, kernel = normal((2, 6, 6, 3)), normal((3, 3, 3, 4), 1)

    def energy(kernel: Any) -> Any:
        y = lax.conv_general_dilated(x, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return (jnp.tanh(y) ** 2).sum()

    def both(kernel: Any) -> Any:
        return jax.jvp(jax.grad(energy), (kernel,), (jnp.ones_like(kernel),))

    found, text = compiled(both, kernel)
    assert text.count(CALLS[1]) >= 4
    same(found, both(kernel))


# -- where it is chosen --------------------------------------------------------------------------


class Net(nn.Module):
    """A little of everything that multiplies."""

    def __init__(self) -> None:
        self.images = nn.Sequential(
            nn.Conv2d(6, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(8, 3, stride=2, padding=1, groups=2),
            nn.Conv2d(8, 1, stride=2),
        )
        self.upwards = nn.ConvTranspose2d(4, 2, stride=2)
        self.sequence = nn.LSTM(8)
        self.attention = nn.MultiheadAttention(2)
        self.head = nn.Linear(5)

    def forward(self, x: Any) -> Any:
        y = self.upwards(self.images(x))
        y = self.sequence(y.reshape(*y.shape[:2], -1))[0]
        return self.head(self.attention(y, y, y)[0]).mean(1)


def training(net: Any, **options: Any) -> tuple[Any, Any, Any]:
    opt = optim.adam(net, 0.01)

    @bw.compile(**options)
    def step(x: Any, y: Any) -> Any:
        loss, grads = bw.value_and_grad(lambda x: losses.cross_entropy(net(x), y), net)(x)
        opt.step(grads)
        return loss

    return step, jnp.asarray(normal((4, 3, 12, 12))), jnp.asarray([0, 1, 2, 3])


def test_a_network_learns_the_same():
    trained = []
    for onednn in (False, True):
        bw.seed(0)
        net = Net()
        step, x, y = training(net, onednn=onednn)
        found = [float(step(x, y)) for _ in range(3)]
        program = str(step.explain(x, y, hlo=True).hlo)
        assert all((call in program) == onednn for call in CALLS)
        assert step.stats().compilations == 1
        trained.append((found, net.state_dict()))
    (before, state), (after, other) = trained
    np.testing.assert_allclose(before, after, rtol=1e-5)
    for name, value in state.items():
        np.testing.assert_allclose(value, other[name], atol=1e-4, err_msg=name)


def test_compiled_modules_bound_methods_copies_and_pickles_keep_the_option():
    import copy
    import pickle

    class Double:
        @bw.compile(onednn=True)
        def run(self, x: Any) -> Any:
            return x @ x

    x = jnp.asarray(normal((4, 4)))
    net = bw.compile(nn.Linear(3), onednn=True)
    for compiled_function in (net, copy.deepcopy(net), pickle.loads(pickle.dumps(net)), Double().run):
        assert CALLS[0] in str(compiled_function.explain(x, hlo=True).hlo)


def test_what_is_compiled_by_others_is_left_alone():
    x = normal((4, 4))
    inside = jax.jit(lambda x: x @ x)
    compiled(lambda x: x @ x, x)
    assert "__onednn$" not in inside.lower(x).as_text()
    step = bw.compile(lambda x: inside(x) @ x, onednn=True)
    assert str(step.explain(jnp.asarray(x), hlo=True).hlo).count(f'"{CALLS[0]}"') == 2
    assert "__onednn$" not in str(bw.compile(lambda x: x @ x).explain(jnp.asarray(x), hlo=True).hlo)


def test_programs_for_several_devices_are_left_to_xla():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    x = jax.device_put(
        jnp.asarray(normal((8, 4))), jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    )
    step = bw.compile(lambda x: x @ x.T, onednn=True)
    assert "__onednn$" not in str(step.explain(x, hlo=True).hlo)
    same(step(x), np.asarray(x) @ np.asarray(x).T)


def test_an_exported_program_runs_everywhere():
    x = normal((4, 4))
    with _onednn.lowering(True) as calls:
        exported = jax.export.export(jax.jit(lambda x: x @ x))(x)
    assert not calls
    assert "__onednn$" not in exported.mlir_module()
    same(exported.call(x), x @ x)


def test_inside_loops():
    w = jnp.asarray(normal((4, 4)))
    step = bw.compile(lambda x: bw.fori_loop(0, 3, lambda _, x: jnp.tanh(x @ w), x), onednn=True)
    x = jnp.asarray(normal((4, 4), 1))
    assert CALLS[0] in str(step.explain(x, hlo=True).hlo)
    same(step(x), functools.reduce(lambda x, _: jnp.tanh(x @ w), range(3), x))


def test_small_ones_are_left_to_xla(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.undo()
    assert "__onednn$" not in compiled(jnp.matmul, normal((16, 16)), normal((16, 16)))[1]
    assert "__onednn$" in compiled(jnp.matmul, normal((128, 64)), normal((64, 128)))[1]
    net = nn.Conv2d(4, 3, in_channels=2)
    assert "__onednn$" not in compiled(net, normal((1, 2, 8, 8)))[1]
    assert "__onednn$" in compiled(net, normal((16, 2, 32, 32)))[1]


def test_inputs_that_lie_elsewhere_are_computed_by_it_too():
    step = bw.compile(lambda x: x @ x, onednn=True)
    x = jnp.asarray(normal((4, 4)))
    for place in (None, jax.devices()[0], jax.devices()[1]):
        moved = x if place is None else jax.device_put(x, place)
        same(step(moved), np.asarray(x) @ np.asarray(x))
        assert CALLS[0] in str(step.explain(moved, hlo=True).hlo)


def test_explain_counts_its_calls():
    x = jnp.asarray(normal((4, 4)))
    explained = bw.compile(lambda x: x @ x @ x, onednn=True).explain(x)
    assert explained.onednn == 2
    assert "besides: 2 calls of oneDNN" in str(explained)
    explained = bw.compile(lambda x: x @ x @ x).explain(x)
    assert explained.onednn == 0
    assert "oneDNN" not in str(explained)


CACHED = """
import warnings
warnings.simplefilter("error")
import brickwork as bw, jax.numpy as jnp
x = jnp.ones((256, 256))
plain = bw.compile(lambda x: x @ x)
fast = bw.compile(lambda x: x @ x + 1, onednn=True)
assert (plain(x) + 1 == fast(x)).all()
assert "__onednn$" in str(fast.explain(x, hlo=True).hlo)
info = bw.cache_info()
print(info.hits, info.misses)
"""


def test_its_programs_are_not_written_to_the_cache(tmp_path: Path):
    def run() -> list[int]:
        environment = os.environ | {"BRICKWORK_CACHE": str(tmp_path)}
        done = subprocess.run(
            [sys.executable, "-c", CACHED], env=environment, capture_output=True, text=True, check=False
        )
        assert not done.returncode, done.stderr
        return [int(n) for n in done.stdout.split()]

    run()
    entries = sorted(path.name for path in tmp_path.iterdir())
    again = run()
    assert sorted(path.name for path in tmp_path.iterdir()) == entries
    assert again[0] >= 1  # the other program is there
