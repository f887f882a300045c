"""Matrix products and convolutions by oneDNN, on CPUs.

jaxlib for x86 contains oneDNN, the library that computes PyTorch's convolutions on CPUs, and XLA runs it for custom
calls of certain names; by itself it makes none. Under :func:`lowering`, JAX's own products and convolutions become such
calls wherever oneDNN is faster, so that derivatives and ``vmap`` are JAX's.

Only float32, for which oneDNN has an implementation on every x86 processor: where it has none, XLA ends the process.
"""

from __future__ import annotations

import functools
import itertools
import json
import math
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .core._jax import lower_by, out_of_cache

TARGET = "__onednn$"  # how the names of its custom calls begin
_FEWEST = {"matmul": 2**19, "convolution": 2**17}  # multiplications, below which a call takes longer than they do
_FEW_COLUMNS = 4  # of an output: too few to be computed at a time

_Plan = Callable[..., Callable[..., Any] | None]


class _State(threading.local):
    chosen = False  # while a function is traced
    calls: list[str] | None = None  # what has been lowered to oneDNN, while programs are lowered


_state = _State()


def chosen() -> bool:
    """Whether what is traced on this thread will be lowered to oneDNN."""
    return _state.chosen


@contextmanager
def choosing(wanted: bool) -> Iterator[None]:
    """While a function is traced: take the forms that suit oneDNN, if that is wanted."""
    before, _state.chosen = _state.chosen, wanted
    try:
        yield
    finally:
        _state.chosen = before


@contextmanager
def lowering(wanted: bool) -> Iterator[list[str]]:
    """While a program is lowered and compiled, or may be: call oneDNN, if that is wanted.

    The calls are added to the list. Nothing is written to the compilation cache meanwhile: XLA fails to.
    """
    calls: list[str] = []
    if not wanted:
        yield calls
        return
    before, _state.calls = _state.calls, calls
    try:
        with out_of_cache():
            yield calls
    finally:
        _state.calls = before


def usable() -> bool:
    """Whether oneDNN can be called: on a CPU, if it is there; says once if it is not."""
    return jax.default_backend() == "cpu" and _available()


@functools.cache
def _available() -> bool:
    """Whether XLA has oneDNN here, and it computes what it should; says once if not."""
    why = f"it needs JAX 0.12 or later, this is {jax.__version__}" if jax.__version_info__ < (0, 12) else _complaint()
    if not why:
        _install()
        return True
    warnings.warn(
        f"bw.compile(onednn=True): oneDNN can't be used here: {why}. Programs are compiled with XLA's own products and "
        "convolutions.",
        RuntimeWarning,
        stacklevel=2,
    )
    return False


def _complaint() -> str:
    """What is wrong with oneDNN in this jaxlib, on this processor."""
    a, b = np.arange(6, dtype=np.float32).reshape(2, 3), np.arange(12, dtype=np.float32).reshape(3, 4)
    try:
        with out_of_cache():
            product = np.asarray(jax.jit(_product(False, False, (2, 4)))(a, b))
            around = np.asarray(jax.jit(_Window((1,), ((1, 1),), (1,), (2, 1, 0)).convolve)(a[None], b[None]))
    except jax.errors.JaxRuntimeError as error:
        return str(error).splitlines()[0]
    # A window of one element, moved over two rows between two of zeros.
    zeros = np.zeros((1, 1, 4), np.float32)
    right = np.array_equal(product, a @ b) and np.array_equal(around, np.concatenate([zeros, (a @ b)[None], zeros], 1))
    return "" if right else "its results are wrong"


def _install() -> None:
    for primitive, plan in ((lax.dot_general_p, _plan_product), (lax.conv_general_dilated_p, _plan_convolution)):
        lower_by(primitive, "cpu", functools.partial(_lower, plan))


def _lower(plan: _Plan, *avals: Any, **options: Any) -> Callable[..., Any] | None:
    """Return what computes an operation by oneDNN, or ``None`` to leave it to XLA."""
    calls = _state.calls
    if calls is None or any(a.dtype != np.float32 for a in avals):
        return None
    if not all(type(n) is int and n for a in avals for n in a.shape):
        return None
    if options["preferred_element_type"] not in (None, np.float32) or not _is_plain(options["precision"]):
        return None
    found = plan(*avals, **options)
    if found is not None:
        calls.append(plan.__name__)
    return found


def _is_plain(precision: Any) -> bool:
    """Whether a precision is one of JAX's three, which are all the same on a CPU, and no algorithm of its own."""
    each = precision if isinstance(precision, tuple) else (precision,)
    return all(p is None or isinstance(p, lax.Precision) for p in each)


def _call(name: str, kind: str, shape: Sequence[int], config: dict[str, Any]) -> Callable[..., Any]:
    options = {"user_scratchpad": False, "weights_prepacked": False, "bias_broadcast": False}
    text = json.dumps({f"onednn_{kind}_config": {**config, "optimization_config": options}})
    result = jax.ShapeDtypeStruct(tuple(shape), np.float32)
    return jax.ffi.ffi_call(TARGET + name, result, custom_call_api_version=1, legacy_backend_config=text)


# -- matrix products -----------------------------------------------------------------------------


def _plan_product(a: Any, b: Any, y: Any, *, dimension_numbers: Any, out_sharding: Any, **_: Any) -> Any:
    """Matrices, or a batch of them in the first axes, either one transposed."""
    (over_a, over_b), (batch_a, batch_b) = dimension_numbers
    first = len(a.shape) - 2
    batch = tuple(range(first))
    if first < 0 or len(b.shape) != len(a.shape) or len(over_a) != 1 or out_sharding is not None:
        return None
    if tuple(batch_a) != batch or tuple(batch_b) != batch or 1 in y.shape[-2:]:
        return None
    if math.prod(y.shape) * a.shape[over_a[0]] < _FEWEST["matmul"]:
        return None
    matrices = (math.prod(y.shape[:-2]),) if first else ()  # of which it takes no more than a dozen axes
    product = _product(over_a[0] == first, over_b[0] == first + 1, (*matrices, *y.shape[-2:]))
    return lambda a, b: product(*(x.reshape(*matrices, *x.shape[-2:]) for x in (a, b))).reshape(y.shape)


def _product(transpose_a: bool, transpose_b: bool, shape: Sequence[int]) -> Callable[..., Any]:
    return _call("matmul", "matmul", shape, {"transpose_a": transpose_a, "transpose_b": transpose_b})


# -- convolutions --------------------------------------------------------------------------------


def _plan_convolution(
    x: Any,
    kernel: Any,
    y: Any,
    *,
    window_strides: Any,
    padding: Any,
    lhs_dilation: Any,
    rhs_dilation: Any,
    dimension_numbers: Any,
    feature_group_count: int,
    batch_group_count: int,
    **_: Any,
) -> Any:
    """Convolutions, and their gradients by the input and (without groups) by the weights."""
    order = dimension_numbers
    ndim = len(window_strides)
    inputs = kernel.shape[order.rhs_spec[1]]
    window = [kernel.shape[i] for i in order.rhs_spec[2:]]
    spread = any(n > 1 for n in lhs_dilation)
    if batch_group_count != 1 or ndim > 2:
        return None
    if spread and (set(window_strides) != {1} or set(rhs_dilation) != {1}):
        return None
    work = math.prod(y.shape) * inputs * math.prod(window) // math.prod(lhs_dilation)
    if work < _FEWEST["convolution"]:
        return None
    aside = large = False
    images, columns = x.shape[order.lhs_spec[0]], y.shape[order.out_spec[-1]]
    if not spread and feature_group_count == 1:
        # In a gradient by the weights, the "images" are the channels of the input, and the output is a window.
        large = math.prod(window) > math.prod(y.shape[i] for i in order.out_spec[2:])
        aside = large or columns <= _FEW_COLUMNS <= images
    axes = (ndim + 1, 0, *range(1, ndim + 1)) if large else tuple(order.rhs_spec)
    geometry = _Window(tuple(window_strides), tuple(padding), tuple(rhs_dilation), axes, feature_group_count)
    convolve = geometry.convolve_aside if aside else geometry.convolve
    if spread:
        convolve = functools.partial(_convolve_spread, geometry, tuple(lhs_dilation))

    def convolution(x: jax.Array, kernel: jax.Array) -> jax.Array:
        # What comes before is computed once, and not again for each order of axes in which the result is needed.
        x, kernel = lax.optimization_barrier((x, kernel))
        x = x.transpose(order.lhs_spec[0], *order.lhs_spec[2:], order.lhs_spec[1])
        if large:  # an image itself, channels last in memory
            kernel = kernel.transpose(order.rhs_spec[1], *order.rhs_spec[2:], order.rhs_spec[0])
        axes = (order.out_spec[0], *order.out_spec[2:], order.out_spec[1])
        return convolve(x, kernel).transpose(*np.argsort(axes))

    return convolution


class _Window(NamedTuple):
    """How windows lie on their input, which is ``(N, *size, C)`` here."""

    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    axes: tuple[int, ...]  # of the kernel: outputs, inputs, and the window's
    groups: int = 1

    def convolve(self, x: Any, kernel: Any) -> Any:
        """Convolve along all axes between the first and the last."""
        ndim = len(self.stride)
        window = [kernel.shape[i] for i in self.axes[2:]]
        x, around = _padded(x, self.padding, [d * (k - 1) for k, d in zip(window, self.dilation)])
        if window == list(x.shape[1:-1]) and self.groups == 1 and not any(map(any, around)):
            return self._whole(x, kernel)
        steps = zip(x.shape[1:], window, self.stride, around, self.dilation)
        size = [(n + sum(p) - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in steps]
        images = {"batch_dim": 0, "feature_dim": ndim + 1, "spatial_dims": [*range(1, ndim + 1)]}
        names = {"output_feature_dim": self.axes[0], "input_feature_dim": self.axes[1], "spatial_dims": self.axes[2:]}
        config = {
            "dims": ndim + 2,
            "feature_groups": self.groups,
            "input": {"data": images},
            "kernel": {"filter": {**names, "shape": kernel.shape}},
            "output": {"data": images},
            "window": {
                "strides": self.stride,
                "pad_left": [low for low, _ in around],
                "pad_right": [high for _, high in around],
                "window_dilations": self.dilation,
            },
        }
        return _call("convolution", "conv", (x.shape[0], *size, kernel.shape[self.axes[0]]), config)(x, kernel)

    def _whole(self, x: Any, kernel: Any) -> Any:
        """One window, as large as the input: a product, which oneDNN 3.12 gets wrong as a convolution."""
        kernel = kernel.transpose(*self.axes[2:], self.axes[1], self.axes[0])
        images, outputs = x.shape[0], kernel.shape[-1]
        product = _product(False, False, (images, outputs))
        y = product(x.reshape(images, -1), kernel.reshape(-1, outputs))
        return y.reshape(images, *(1 for _ in self.stride), outputs)

    def convolve_aside(self, x: Any, kernel: Any) -> Any:
        """The same, with images as one more axis along which a window has one element.

        oneDNN computes several columns at a time, as rows of a matrix; where an output has few, images are more.
        """
        ndim = len(self.stride)
        axes = (*self.axes, ndim + 2)
        wider = _Window((*self.stride, 1), (*self.padding, (0, 0)), (*self.dilation, 1), axes)
        y = wider.convolve(x.transpose(*range(1, ndim + 1), 0, ndim + 1)[None], kernel[..., None])[0]
        return y.transpose(ndim, *range(ndim), ndim + 1)


def _padded(x: Any, padding: Sequence[tuple[int, int]], reach: Sequence[int]) -> tuple[Any, Sequence[tuple[int, int]]]:
    """Pad beforehand where it isn't as usual: something is taken away, or windows would lie in the padding alone."""
    if all(0 <= n <= most for p, most in zip(padding, reach) for n in p):
        return x, padding
    around = [(0, 0, 0), *((low, high, 0) for low, high in padding), (0, 0, 0)]
    return lax.pad(x, np.zeros((), x.dtype), around), [(0, 0)] * len(padding)


def _convolve_spread(geometry: _Window, spread: tuple[int, ...], x: Any, kernel: Any) -> Any:
    """Convolve an input that has zeros between its elements, as in the gradient of a convolution with a stride.

    The outputs at each distance from an element see only every n-th element of the kernel: a convolution of its
    own, without the zeros. They are put together in turns.
    """
    ndim = len(spread)
    window = [kernel.shape[i] for i in geometry.axes[2:]]
    size = [(n - 1) * s + 1 + sum(p) - k + 1 for n, k, p, s in zip(x.shape[1:], window, geometry.padding, spread)]
    counts = [-(-n // s) for n, s in zip(size, spread)]
    phases = []
    for phase in itertools.product(*map(range, spread)):
        taps, around = kernel, []
        for i, (r, s, (low, _), count) in enumerate(zip(phase, spread, geometry.padding, counts)):
            axis = geometry.axes[2 + i]
            first = (low - r) % s
            taps = lax.slice_in_dim(taps, min(first, taps.shape[axis]), None, s, axis)
            before = (low - r - first) // s
            around.append((before, count + taps.shape[axis] - 1 - before - x.shape[1 + i]))
        if 0 in taps.shape:
            phases.append(jnp.zeros((x.shape[0], *counts, kernel.shape[geometry.axes[0]]), x.dtype))
        else:
            phases.append(geometry._replace(padding=tuple(around)).convolve(x, taps))
    y = jnp.stack(phases, -2).reshape(x.shape[0], *counts, *spread, -1)
    turns = (0, *(axis for i in range(ndim) for axis in (1 + i, 1 + ndim + i)), 2 * ndim + 1)
    y = y.transpose(turns).reshape(x.shape[0], *(n * s for n, s in zip(counts, spread)), -1)
    return lax.slice(y, (0,) * y.ndim, (x.shape[0], *size, y.shape[-1]))
