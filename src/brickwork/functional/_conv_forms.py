"""The forms in which convolutions are computed.

XLA's convolution (``plain``) is the reference, and what other devices than CPUs use. On a CPU it is up to a hundred
times as slow as it could be in some cases, forwards or in one of its gradients: few channels, groups, three spatial
axes, an output larger than the input, and the gradient by the weights where there are many outputs.
``_form`` says which form is used instead; all have the same values but for rounding. (Some multiply by zeros where
the reference does not: infinities and NaN then reach more outputs, those of the same row or block of groups.)
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_derivatives import SymbolicZero

from .._onednn import chosen
from ..core._jax import varying_alike
from . import _checks as checks

if TYPE_CHECKING:
    from jaxtyping import Array

_LARGEST_UNFOLDED = 64  # how many times the size of the output unfolded windows may take
_LARGEST_SHIFTED = 64  # elements of a window that are multiplied one by one; more make a program of too many slices
_MANY_CHANNELS = 128 * 128  # of input times output, from which windows twice as many as outputs are unfolded
_MANY_OUTPUTS = 2**19  # numbers of an output from which its gradient no longer stays in a core's cache
_BLOCK = 32  # channels in a block of groups: fewer are too little work at a time, more are mostly zeros
_FEWEST_ROWS = 128  # of a product with a band matrix, which has to be put together first
_MOST_BLOCKS = 16  # each is a convolution to compile


class Geometry(NamedTuple):
    """How windows lie on their input: one entry for each spatial axis, padding as pairs (low, high)."""

    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int = 1


CODES = {
    1: ("NCH", "OIH", "NCH"),
    2: ("NCHW", "OIHW", "NCHW"),
    3: ("NCDHW", "OIDHW", "NCDHW"),
}


def convolve(x: Array, weight: Array, g: Geometry) -> Array:
    """Convolve ``x`` ``(N, C, *size)`` with ``weight`` ``(O, C / groups, *kernel)`` of the same dtype."""
    return _form(x, weight, g)(x, weight, g)


def plain(x: Array, weight: Array, g: Geometry) -> Array:
    """XLA's convolution."""
    return lax.conv_general_dilated(
        x,
        weight,
        g.stride,
        g.padding,
        rhs_dilation=g.dilation,
        dimension_numbers=CODES[x.ndim - 2],
        feature_group_count=g.groups,
    )


def _thinned(x: Array, weight: Array, g: Geometry) -> Array:
    """XLA's convolution, of only those elements that windows of one element see."""
    if math.prod(weight.shape[2:]) == 1 and set(g.stride) != {1}:
        window = weight.shape[2:]
        (x,) = shifted(pad(x, g.padding), output_size(x.shape, weight.shape, g), window, g)
        g = g._replace(stride=(1,) * len(g.stride), padding=((0, 0),) * len(g.stride))
    return plain(x, weight, g)


def _form(x: Array, weight: Array, g: Geometry) -> Callable[[Array, Array, Geometry], Array]:
    """Return the form that is fastest for arrays of these shapes, as measured (``benchmarks/convolutions.py``)."""
    if not on_cpu(x, weight):
        return plain
    if g.groups == 1:
        if chosen() and x.ndim < 5:
            return _bands if _suits_bands(x.shape, weight.shape, g) else _thinned
        if _suits_product(x.shape, weight.shape, g):
            return _product
        if x.ndim == 5:
            return _planes
        if _suits_bands(x.shape, weight.shape, g):
            return _bands
        if _suits_columns(x, weight, g):
            return _columns
        out = output_size(x.shape, weight.shape, g)
        return _padded_first if math.prod(out) > math.prod(x.shape[2:]) else plain
    if g.groups == weight.shape[0] == x.shape[1] and math.prod(weight.shape[2:]) <= _LARGEST_SHIFTED:
        return _depthwise
    return _blocks


def on_cpu(x: Array, weight: Array) -> bool:
    """Whether the forms for CPUs apply: they need to know all sizes, none of them 0, and sum in floating point."""
    known = all(type(size) is int and size for size in (*x.shape, *weight.shape))
    return jax.default_backend() == "cpu" and known and checks.is_inexact(x)


def output_size(images: tuple[int, ...], kernel: tuple[int, ...], g: Geometry) -> tuple[int, ...]:
    """Return how many windows there are along each spatial axis."""
    return tuple(
        (size + sum(p) - d * (k - 1) - 1) // s + 1
        for size, k, s, p, d in zip(images[2:], kernel[2:], g.stride, g.padding, g.dilation, strict=True)
    )


def pad(x: Array, padding: tuple[tuple[int, int], ...]) -> Array:
    """Add zeros along the spatial axes; take elements away where the padding is negative."""
    if not any(map(any, padding)):
        return x
    config = [(0, 0, 0), (0, 0, 0), *((low, high, 0) for low, high in padding)]
    return lax.pad(x, jnp.zeros((), x.dtype), config)


def shifted(x: Array, out: tuple[int, ...], kernel: tuple[int, ...], g: Geometry) -> list[Array]:
    """Return each element of the windows of padded images: for each an array ``(N, C, *out)``."""
    found = []
    for offset in itertools.product(*map(range, kernel)):
        start = [u * d for u, d in zip(offset, g.dilation, strict=True)]
        limit = [a + (n - 1) * s + 1 for a, n, s in zip(start, out, g.stride, strict=True)]
        found.append(lax.slice(x, (0, 0, *start), (*x.shape[:2], *limit), (1, 1, *g.stride)))
    return found


def _shifted_along(x: Array, axis: int, n: int, kernel: int, stride: int, dilation: int) -> list[Array]:
    """Return each element of ``n`` windows along one axis alone: for each an array of ``n`` there."""
    starts = (u * dilation for u in range(kernel))
    return [lax.slice_in_dim(x, start, start + (n - 1) * stride + 1, stride, axis) for start in starts]


# -- a matrix product ----------------------------------------------------------------------------


def _suits_product(images: tuple[int, ...], kernel: tuple[int, ...], g: Geometry) -> bool:
    """Whether to unfold the windows and multiply matrices instead of calling XLA's convolution.

    That is faster where there is nothing to unfold, and where the unfolded windows are not many more numbers than the
    weights, which the convolution rearranges at every call. Where the output is smaller than a window, it is up to a
    hundred times as slow.
    """
    window = kernel[2:]
    if math.prod(window) == 1:
        return not any(map(any, g.padding))
    if any(d > 1 and k > 1 for d, k in zip(g.dilation, window, strict=True)):
        return False
    out = output_size(images, kernel, g)
    many = kernel[0] * kernel[1] >= _MANY_CHANNELS
    if images[0] * math.prod(out) <= kernel[0] * (2 if many else 1):
        return True
    return any(n < k for n, k in zip(out, window, strict=True)) and math.prod(window) <= _LARGEST_UNFOLDED


def _product(x: Array, weight: Array, g: Geometry) -> Array:
    """One product: weights ``(O, C * KH * KW)`` by windows ``(N, C * KH * KW, HO * WO)``."""
    n, c = x.shape[:2]
    window = weight.shape[2:]
    out = output_size(x.shape, weight.shape, g)
    parts = shifted(pad(x, g.padding), out, window, g)
    windows = jnp.stack(parts, 2) if len(parts) > 1 else parts[0]
    windows = windows.reshape(n, c * len(parts), math.prod(out))
    y = lax.dot_general(weight.reshape(-1, c * len(parts)), windows, (((1,), (1,)), ((), ())))
    return y.transpose(1, 0, 2).reshape(n, -1, *out)


# -- few channels --------------------------------------------------------------------------------


def _suits_bands(images: tuple[int, ...], kernel: tuple[int, ...], g: Geometry) -> bool:
    """Whether to multiply rows, or blocks of them: where that was faster by a clear margin, with gradients.

    Measured for square kernels of 3, 5 and 7 with 1 to 32 channels to 4 to 64, on 8 to 64 columns. XLA's convolution
    works at two percent of a matrix product's speed for one channel, and catches up with both numbers of channels;
    the product has more zeros the more columns there are in a block. So it is their product that decides.
    """
    if len(images) != 4 or set(g.stride) | set(g.dilation) != {1}:
        return False
    out, inputs, height, width = kernel
    rows, columns = output_size(images, kernel, g)
    few = inputs * out <= 48 or inputs * out * columns <= 192 * min(width, 5)
    return out <= 16 and few and 3 <= width <= 7 and height <= 7 and images[0] * rows >= _FEWEST_ROWS


def _bands(x: Array, weight: Array, g: Geometry) -> Array:
    """One product of rows, in blocks of columns: all columns of a block and all channels are contracted at once.

    The weights become a matrix with a band, from ``(KH, C, columns)`` to ``(O, columns)``, most of it zeros; a product
    with it is faster nevertheless than a convolution of few channels.
    """
    n, c, _, width = x.shape
    out, _, height, kernel = weight.shape
    rows, columns = output_size(x.shape, weight.shape, g)
    blocks = _cheapest_blocks(width, columns, kernel, out)
    size = -(-columns // blocks)  # windows in a block
    low, around = g.padding[1][0], (0, 0)  # of a single block, the padding stays in the band
    if blocks > 1:
        low, around = 0, (low, blocks * size + kernel - 1 - low - width)
        width = size + kernel - 1
    x = pad(x, (g.padding[0], around)).swapaxes(1, 2)
    x = jnp.stack([lax.slice_in_dim(x, i * size, i * size + width, 1, 3) for i in range(blocks)], 2)
    parts = _shifted_along(x.reshape(n, -1, blocks, c * width), 1, rows, height, 1, 1)
    band = jnp.asarray(_band(width, size, kernel, low), x.dtype)
    matrix = jnp.einsum("vaj,ocuv->ucaoj", band, weight).reshape(height * c * width, out * size)
    y = jnp.concatenate(parts, 3).reshape(n * rows * blocks, -1) @ matrix
    return y.reshape(n, rows, blocks, out, size).transpose(0, 3, 1, 2, 4).reshape(n, out, rows, -1)[..., :columns]


def _cheapest_blocks(width: int, columns: int, kernel: int, out: int) -> int:
    """Return how many blocks of columns take the least work.

    A number of the input costs as much as multiplying it by 50 others, besides those of its block's outputs, which
    are computed 16 at a time.
    """

    def work(blocks: int) -> int:
        size = -(-columns // blocks)
        inputs = width if blocks == 1 else size + kernel - 1
        return blocks * inputs * (-(-out * size // 16) * 16 + 50)

    return min(range(1, columns // 2 + 1), key=work, default=1)


@functools.lru_cache(maxsize=64)
def _band(width: int, columns: int, kernel: int, padding: int) -> np.ndarray:
    """Return 1 where element ``v`` of window ``j`` is column ``a``, and 0 elsewhere, as ``[v, a, j]``."""
    v, a, j = np.ogrid[:kernel, :width, :columns]
    return a == j + v - padding


# -- many outputs --------------------------------------------------------------------------------


def _suits_columns(x: Array, weight: Array, g: Geometry) -> bool:
    """Whether to compute the gradient by the weights in a form of its own: where that was faster, with all gradients.

    Measured for windows of 1 to 7 and 1 to 256 channels. XLA takes three to eight times as long for this gradient as
    for the convolution, once there are many outputs; the other forms copy the input or the output's gradient, whichever
    has fewer channels, as often as a window is wide.
    """
    if x.ndim != 4 or x.dtype != jnp.float32:
        return False
    out, inputs, _, width = weight.shape
    many = x.shape[0] * out * math.prod(output_size(x.shape, weight.shape, g)) >= _MANY_OUTPUTS
    return many and (inputs <= out or g.stride[1] == 1) and (width <= 4 or min(inputs, out) >= 64)


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def _columns(x: Array, weight: Array, g: Geometry) -> Array:
    """XLA's convolution, with one of the forms below in place of its gradient by the weights."""
    return plain(x, weight, g)


@functools.partial(_columns.defjvp, symbolic_zeros=True)
def _columns_jvp(g: Geometry, primals: tuple[Array, Array], tangents: tuple[Any, Any]) -> tuple[Array, Any]:
    (x, weight), (dx, dweight) = primals, tangents
    terms = [] if isinstance(dx, SymbolicZero) else [plain(dx, weight, g)]
    if not isinstance(dweight, SymbolicZero):
        fewer = weight.shape[0] <= weight.shape[1] and g.stride[1] == 1
        terms.append((_outputs_aside if fewer else _inputs_aside)(x, dweight, g))
    return _columns(x, weight, g), functools.reduce(lax.add, terms)  # one is there: JAX asks for no tangent otherwise


def _inputs_aside(x: Array, weight: Array, g: Geometry) -> Array:
    """As a convolution along columns, with the columns of a window side by side as channels."""
    out, inputs, height, width = weight.shape
    columns = output_size(x.shape, weight.shape, g)[1]
    parts = _shifted_along(pad(x, ((0, 0), g.padding[1])), 3, columns, width, g.stride[1], g.dilation[1])
    sequences = jnp.concatenate([_sequences(part) for part in parts])
    kernel = weight.transpose(2, 3, 1, 0).reshape(height, width * inputs, out)
    return _along_columns(sequences, kernel, g, columns)


def _outputs_aside(x: Array, weight: Array, g: Geometry) -> Array:
    """As a convolution along columns to all that a column adds to outputs, as channels; then each is added there."""
    out, inputs, height, width = weight.shape
    columns = output_size(x.shape, weight.shape, g)[1]
    kernel = weight.transpose(2, 1, 3, 0).reshape(height, inputs, width * out)
    y = _along_columns(_sequences(x), kernel, g, x.shape[3])
    parts = []
    for i, part in enumerate(lax.split(y, (out,) * width, 1)):
        first = g.padding[1][0] - i * g.dilation[1]  # the output to which the first column adds
        parts.append(pad(part, ((0, 0), (first, columns - x.shape[3] - first))))
    return functools.reduce(lax.add, parts)


def _sequences(x: Array) -> Array:
    """Return the columns of images ``(N, C, H, W)`` one after another: ``(C, H, N * W)``."""
    return x.transpose(1, 2, 0, 3).reshape(x.shape[1], x.shape[2], -1)


def _along_columns(sequences: Array, kernel: Array, g: Geometry, columns: int) -> Array:
    """Convolve ``(C, H, N * columns)`` with ``(KH, C, O)`` to ``(N, O, HO, columns)``.

    The transposed form, from the output to the weights, contracts each row with all of them: long sums, which is what
    makes it fast.
    """
    order = ("CHN", "HIO", "HNC")
    y = lax.conv_general_dilated(
        sequences, kernel, g.stride[:1], g.padding[:1], rhs_dilation=g.dilation[:1], dimension_numbers=order
    )
    return y.reshape(y.shape[0], -1, columns, y.shape[2]).transpose(1, 3, 0, 2)


# -- more output than input ----------------------------------------------------------------------


def _padded_first(x: Array, weight: Array, g: Geometry) -> Array:
    """Pad just as much beforehand as makes the input as large as the output.

    XLA swaps input and output gradient in the gradient by the weights where the latter is larger, into a form that it
    has only a slow loop for. The barrier keeps it from putting the padding back into the convolution.
    """
    first, rest = [], []
    for size, n, (low, high) in zip(x.shape[2:], output_size(x.shape, weight.shape, g), g.padding, strict=True):
        missing = max(n - size, 0)
        after = min(missing - missing // 2, max(high, 0))
        first.append((missing - after, after))
        rest.append((low - missing + after, high - after))
    x = lax.optimization_barrier(pad(x, tuple(first)))
    return plain(x, weight, g._replace(padding=tuple(rest)))


# -- three spatial axes --------------------------------------------------------------------------


def _planes(x: Array, weight: Array, g: Geometry) -> Array:
    """As a convolution of planes, with the planes of a window side by side as channels."""
    n, c, *_, height, width = x.shape
    out, _, depth, *window = weight.shape
    planes = output_size(x.shape, weight.shape, g)[0]
    x = pad(x, (g.padding[0], (0, 0), (0, 0))).swapaxes(1, 2)
    parts = _shifted_along(x, 1, planes, depth, g.stride[0], g.dilation[0])
    flat = Geometry(g.stride[1:], g.padding[1:], g.dilation[1:])
    x = jnp.concatenate(parts, 2).reshape(n * planes, depth * c, height, width)
    y = convolve(x, weight.swapaxes(1, 2).reshape(out, depth * c, *window), flat)
    return y.reshape(n, planes, *y.shape[1:]).swapaxes(1, 2)


# -- groups --------------------------------------------------------------------------------------


def _blocks(x: Array, weight: Array, g: Geometry) -> Array:
    """As a few convolutions of several groups each, with zeros between the channels of different groups."""
    inputs, outputs = weight.shape[1], weight.shape[0] // g.groups
    size = max(_BLOCK // max(inputs, outputs), -(-g.groups // _MOST_BLOCKS), 1)
    parts = []
    for first in range(0, g.groups, size):
        last = min(first + size, g.groups)
        kernels = []
        for i in range(first, last):
            around = ((0, 0), ((i - first) * inputs, (last - 1 - i) * inputs), *((0, 0),) * (x.ndim - 2))
            kernels.append(jnp.pad(weight[i * outputs : (i + 1) * outputs], around))
        channels = x[:, first * inputs : last * inputs]
        parts.append(convolve(channels, jnp.concatenate(kernels), g._replace(groups=1)))
    return jnp.concatenate(parts, 1)


def _depthwise(x: Array, weight: Array, g: Geometry) -> Array:
    """A kernel for each channel: shifted images, each multiplied by an element of the kernel, are added up."""
    dtype = checks.statistics_dtype(x.dtype)
    wide = pad(x.astype(dtype), g.padding)
    return _sum_shifted(g.stride, g.dilation, *varying_alike(wide, weight[:, 0].astype(dtype))).astype(x.dtype)


def _sum_shifted_plain(stride: tuple[int, ...], dilation: tuple[int, ...], x: Array, weight: Array) -> Array:
    g, window = _unpadded(stride, dilation), weight.shape[1:]
    parts = shifted(x, output_size(x.shape, (0, *weight.shape), g), window, g)
    factors = weight.reshape(weight.shape[0], -1, *(1 for _ in window))
    return functools.reduce(lax.add, (part * factors[:, i] for i, part in enumerate(parts)))


def _unpadded(stride: tuple[int, ...], dilation: tuple[int, ...]) -> Geometry:
    return Geometry(stride, ((0, 0),) * len(stride), dilation)


def _sum_shifted_forward(stride: Any, dilation: Any, x: Array, weight: Array) -> tuple[Array, tuple[Array, Array]]:
    return _sum_shifted_plain(stride, dilation, x, weight), (x, weight)


def _sum_shifted_backward(stride: Any, dilation: Any, saved: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    """Return the gradients: by ``x`` the same with flipped kernels, by the weights sums over images and positions."""
    x, weight = saved
    window = weight.shape[1:]
    config = [(0, 0, 0), (0, 0, 0)]
    for size, n, k, s, d in zip(x.shape[2:], dy.shape[2:], window, stride, dilation, strict=True):
        unused = size - (n - 1) * s - 1  # rows on the far side of the last window's first element
        config.append((d * (k - 1), unused, s - 1))
    spread = lax.pad(dy, jnp.zeros((), dy.dtype), config)
    flipped = jnp.flip(weight, tuple(range(1, weight.ndim)))
    dx = _sum_shifted_plain((1,) * len(window), dilation, spread, flipped)  # forward mode goes over it
    parts = shifted(x, dy.shape[2:], window, _unpadded(stride, dilation))
    sums: list[Array] = []
    for i in range(0, len(parts), 16):  # some at a time: more than registers hold would be slower
        sums += _sums([part * dy for part in parts[i : i + 16]])
    return dx, jnp.stack(sums, 1).reshape(weight.shape)


_sum_shifted = jax.custom_vjp(_sum_shifted_plain, nondiff_argnums=(0, 1))
_sum_shifted.defvjp(_sum_shifted_forward, _sum_shifted_backward)


@jax.custom_jvp
def _sums(arrays: list[Array]) -> list[Array]:
    """Sum each of several arrays ``(N, C, *size)`` over all axes but the channels, in one pass.

    One loop with several sums is several times faster than as many loops, each of which waits for its sum.
    """
    axes = tuple(range(2, arrays[0].ndim - 1)) or (0,)
    zeros = [jnp.zeros((), x.dtype) for x in arrays]
    partial = lax.reduce(arrays, zeros, lambda a, b: [x + y for x, y in zip(a, b, strict=True)], axes)
    rest = (0, 2) if len(axes) > 1 or axes != (0,) else (1,)
    return [x.sum(rest) for x in lax.optimization_barrier(partial)]


@_sums.defjvp
def _sums_jvp(primals: tuple[list[Array]], tangents: tuple[list[Array]]) -> tuple[list[Array], list[Array]]:
    axes = (0, *range(2, primals[0][0].ndim))
    return _sums(*primals), [t.sum(axes) for t in tangents[0]]
