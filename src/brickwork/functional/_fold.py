"""Windows of images as columns, and back."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from ..core._jax import varying_alike
from . import _checks as checks
from ._conv_forms import Geometry, output_size as windows_of, pad, shifted
from ._explicit import left_to_xla

if TYPE_CHECKING:
    from jaxtyping import Array, Num

    from ._types import ArrayLike


def unfold(
    x: Num[ArrayLike, "*n c h w"],
    kernel_size: int | tuple[int, int],
    dilation: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    stride: int | tuple[int, int] = 1,
) -> Num[Array, "*n ckk l"]:
    r"""Write the windows of images as columns.

    .. math:: y_{n,\, (c,u,v),\, (i,j)} = x_{n,\, c,\, s i + d u - p,\, s j + d v - p}

    Args:
        x: images ``(N, C, H, W)``, or one image ``(C, H, W)``.
        kernel_size: size of the window; an int or a pair (height, width), as below.
        dilation: the step between the elements of a window.
        padding: zeros added on each side.
        stride: the step between windows.

    Returns:
        Array of shape ``(N, C * KH * KW, L)`` or ``(C * KH * KW, L)``, with ``L = HO * WO`` windows
        and ``HO = (H + 2 * padding - dilation * (KH - 1) - 1) // stride + 1``.

    Raises:
        ShapeMismatchError: wrong number of axes, or a window larger than the padded image.
        TypeError: ``x`` is not an array.
        ValueError: an option is out of range.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> F.unfold(jnp.arange(9.0).reshape(1, 3, 3), 2)[:, 0].tolist()
        [0.0, 1.0, 3.0, 4.0]

    Reference:
        ``torch.nn.functional.unfold``.
    """
    x = checks.to_array(x, "unfold", "x")
    checks.require_spatial(x, 2, "unfold")
    kernel, g = checks.cached(_geometry, "unfold", kernel_size, dilation, padding, stride)
    if min(windows_of((1, 1, *x.shape[-2:]), (1, 1, *kernel), g)) < 1:
        checks.window_too_large(x, "unfold", kernel, g.dilation, g.padding)
    return _unfold(x, kernel=kernel, geometry=g)


def fold(
    x: Num[ArrayLike, "*n ckk l"],
    output_size: int | tuple[int, int],
    kernel_size: int | tuple[int, int],
    dilation: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    stride: int | tuple[int, int] = 1,
) -> Num[Array, "*n c h w"]:
    r"""Add up columns as windows of images: the transpose of :func:`unfold`.

    .. math:: y_{n,c,h,w} = \sum_{u,v,i,j} x_{n,\, (c,u,v),\, (i,j)}
        \quad \text{over} \quad s i + d u - p = h, \; s j + d v - p = w

    Args:
        x: columns ``(N, C * KH * KW, L)``, or ``(C * KH * KW, L)`` of one image, for each of the ``L``
            windows that an image has.
        output_size: size of the images; an int or a pair (height, width), as below.
        kernel_size: size of the window.
        dilation: the step between the elements of a window.
        padding: rows and columns on each side of the image, which are left out of the result.
        stride: the step between windows.

    Returns:
        Array of shape ``(N, C, H, W)`` or ``(C, H, W)``. Half precision is summed in float32.

    Raises:
        ShapeMismatchError: wrong number of axes, rows or columns, or a window larger than the padded image.
        TypeError: ``x`` is not an array.
        ValueError: an option is out of range.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> F.fold(F.unfold(jnp.ones((1, 3, 3)), 2), 3, 2).tolist()  # how many windows there are
        [[[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]]]

    Reference:
        ``torch.nn.functional.fold``.
    """
    x = checks.to_array(x, "fold", "x")
    image = checks.sizes(output_size, 2, "fold", "output_size")
    kernel, g = checks.cached(_geometry, "fold", kernel_size, dilation, padding, stride)
    rank = len(x.shape)
    if rank not in (2, 3):
        fix = "Reshape the data: channels and elements of a window in one axis, windows in the next."
        checks.shape_error("fold", f"x must have 3 axes (N, C * KH * KW, L), or 2 axes, not {rank}.", fix, x=x)
    counts = windows_of((1, 1, *image), (1, 1, *kernel), g)
    if min(counts) < 1:
        padded = " x ".join(str(n + sum(p)) for n, p in zip(image, g.padding, strict=True))
        window = " x ".join(str(d * (k - 1) + 1) for d, k in zip(g.dilation, kernel, strict=True))
        fix = "Use a larger output_size, more padding or a smaller kernel."
        checks.shape_error("fold", f"the window {window} is larger than the padded image {padded}.", fix, x=x)
    elements, windows = x.shape[-2:]
    if elements % math.prod(kernel):
        checks.shape_error(
            "fold",
            f"x has {elements} rows in axis {rank - 2}, no multiple of the {math.prod(kernel)} elements of a "
            f"window {' x '.join(map(str, kernel))}.",
            "Check kernel_size, or the data.",
            x=x,
        )
    if windows != math.prod(counts):
        checks.shape_error(
            "fold",
            f"x has {windows} windows in axis {rank - 1}, but an image of {' x '.join(map(str, image))} has "
            f"{' x '.join(map(str, counts))} = {math.prod(counts)}.",
            "Check output_size, kernel_size, dilation, padding and stride, or the data.",
            x=x,
        )
    return _fold(x, image=image, kernel=kernel, geometry=g)


@functools.lru_cache(maxsize=1024, typed=True)
def _geometry(
    function: str, kernel_size: Any, dilation: Any, padding: Any, stride: Any
) -> tuple[tuple[int, ...], Geometry]:
    """Check the options, and return them for each axis."""
    kernel = checks.sizes(kernel_size, 2, function, "kernel_size")
    dilations = checks.sizes(dilation, 2, function, "dilation")
    pads = tuple((p, p) for p in checks.sizes(padding, 2, function, "padding", 0))
    return kernel, Geometry(checks.sizes(stride, 2, function, "stride"), pads, dilations)


@functools.partial(jax.jit, static_argnames=("kernel", "geometry"))
@left_to_xla
def _unfold(x: Array, *, kernel: tuple[int, ...], geometry: Geometry) -> Array:
    batch = x if x.ndim == 4 else x[None]
    n, c = batch.shape[:2]
    out = windows_of(batch.shape, (1, 1, *kernel), geometry)
    columns = jnp.stack(shifted(pad(batch, geometry.padding), out, kernel, geometry), 2)
    columns = columns.reshape(n, c * math.prod(kernel), math.prod(out))
    return columns if x.ndim == 4 else columns[0]


@functools.partial(jax.jit, static_argnames=("image", "kernel", "geometry"))
@left_to_xla
def _fold(x: Array, *, image: tuple[int, ...], kernel: tuple[int, ...], geometry: Geometry) -> Array:
    batch = x if x.ndim == 3 else x[None]
    if x.dtype == bool:  # in sums, true is what is not zero
        dtype = jnp.dtype(jnp.int32)
    else:
        dtype = checks.statistics_dtype(x.dtype) if checks.is_inexact(x) else x.dtype
    n, elements, _ = batch.shape
    batch, like = varying_alike(batch.astype(dtype), jnp.zeros((n, elements // math.prod(kernel), *image), dtype))
    transposed = jax.linear_transpose(lambda y: _unfold(y, kernel=kernel, geometry=geometry), like)
    (y,) = transposed(batch)
    return (y if x.ndim == 3 else y[0]).astype(x.dtype)
