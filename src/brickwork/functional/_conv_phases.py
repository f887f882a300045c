"""The forms in which transposed convolutions are computed: XLA's, and one for CPUs.

XLA's has zeros between the elements of the input, which a CPU multiplies like any others, and is slower still in its
gradients. The other one is an ordinary convolution that gives several outputs at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import jax.numpy as jnp
from jax import lax

from ._conv_forms import CODES, Geometry, convolve, on_cpu, pad

if TYPE_CHECKING:
    from jaxtyping import Array


def transpose(x: Array, weight: Array, g: Geometry, out: tuple[int, ...]) -> Array:
    """Convolve backwards: ``x`` ``(N, C, *size)``, ``weight`` ``(C, O / groups, *kernel)``, padding as pairs of equals.

    The output has the size ``out``.
    """
    kernels = _exchanged(weight, g.groups)
    return _phases(x, kernels, g, out) if on_cpu(x, weight) else plain_transposed(x, kernels, g, out)


def _exchanged(weight: Array, groups: int) -> Array:
    """Return kernels ``(C, O / groups, ...)`` as ``(O, C / groups, ...)``."""
    inputs, outputs, *window = weight.shape
    parts = weight.reshape(groups, inputs // groups, outputs, *window).swapaxes(1, 2)
    return parts.reshape(groups * outputs, inputs // groups, *window)


def plain_transposed(x: Array, kernels: Array, g: Geometry, out: tuple[int, ...]) -> Array:
    """XLA's convolution with zeros between the elements of the input."""
    padding = []
    axes = zip(x.shape[2:], kernels.shape[2:], g.stride, g.padding, g.dilation, out, strict=True)
    for size, k, s, (p, _), d, n in axes:
        padding.append((d * (k - 1) - p, n - 1 - (size - 1) * s + p))
    return lax.conv_general_dilated(
        x,
        jnp.flip(kernels, tuple(range(2, kernels.ndim))),
        (1,) * len(out),
        padding,
        lhs_dilation=g.stride,
        rhs_dilation=g.dilation,
        dimension_numbers=CODES[x.ndim - 2],
        feature_group_count=g.groups,
    )


class _Phases(NamedTuple):
    """One axis of a transposed convolution, of which each window gives ``step`` outputs."""

    step: int
    taps: int  # of the kernel of each of these outputs
    dilation: int
    spread: tuple[int, int, int]  # zeros to add to the kernel: before, after, between
    padding: tuple[int, int]
    start: int  # of the output that is wanted


def _phases_of(size: int, kernel: int, stride: int, padding: int, dilation: int, out: int) -> _Phases:
    apart = dilation > 1 and (stride > 1 or size == 1)  # write the zeros between the kernel's elements out
    reach = dilation * (kernel - 1) + 1 if apart else kernel
    gap = 1 if apart else dilation
    step = reach if size == 1 else stride  # a single window may have any stride, and this makes it a matrix product
    taps = -(-reach // step)
    skipped, start = divmod(padding, step)
    low = gap * (taps - 1) - skipped
    high = -(-(start + out) // step) + gap * (taps - 1) - size - low
    spread = (0, taps * step - reach, dilation - 1 if apart else 0)
    return _Phases(step, taps, gap, spread, (low, high), start)


def _phases(x: Array, kernels: Array, g: Geometry, out: tuple[int, ...]) -> Array:
    """As a convolution that gives the ``stride`` outputs between two elements of the input as channels.

    It multiplies by no zeros, and its gradients are those of an ordinary convolution.
    """
    ndim = len(out)
    padding = (low for low, _ in g.padding)
    axes = [*map(_phases_of, x.shape[2:], kernels.shape[2:], g.stride, padding, g.dilation, out)]
    steps, taps = [a.step for a in axes], [a.taps for a in axes]
    kernels = lax.pad(kernels, jnp.zeros((), kernels.dtype), [(0, 0, 0), (0, 0, 0), *(a.spread for a in axes)])
    outputs, inputs = kernels.shape[:2]
    kernels = kernels.reshape(outputs, inputs, *(n for a in axes for n in (a.taps, a.step)))
    order = (0, *range(3, 3 + 2 * ndim, 2), 1, *range(2, 2 + 2 * ndim, 2))
    kernels = jnp.flip(kernels.transpose(order).reshape(-1, inputs, *taps), tuple(range(2, 2 + ndim)))
    x = pad(x, tuple((min(low, 0), min(high, 0)) for low, high in (a.padding for a in axes)))
    around = tuple((max(low, 0), max(high, 0)) for low, high in (a.padding for a in axes))
    y = convolve(x, kernels, Geometry((1,) * ndim, around, tuple(a.dilation for a in axes), g.groups))
    order = (0, 1, *(axis for i in range(ndim) for axis in (2 + ndim + i, 2 + i)))
    size = [n * step for n, step in zip(y.shape[2:], steps, strict=True)]
    y = y.reshape(x.shape[0], outputs, *steps, *y.shape[2:]).transpose(order).reshape(x.shape[0], outputs, *size)
    limits = [a.start + n for a, n in zip(axes, out, strict=True)]
    return lax.slice(y, (0, 0, *(a.start for a in axes)), (x.shape[0], outputs, *limits))
