"""Reading images and volumes at any place: sampling on a grid, and the grids of affine maps."""

from __future__ import annotations

import functools
import itertools
import math
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax import lax

from . import _checks as checks

if TYPE_CHECKING:
    from jaxtyping import Array, Float

    from ._types import ArrayLike

_MODES = ("bilinear", "nearest", "bicubic")
_PADDINGS = ("zeros", "border", "reflection")
_CUBIC = -0.75  # the slope parameter of cubic convolution
_LAYOUTS = {2: ("images (N, C, H, W)", "(N, HO, WO, 2)"), 3: ("volumes (N, C, D, H, W)", "(N, DO, HO, WO, 3)")}


def grid_sample(
    x: Float[ArrayLike, "n c *spatial"],
    grid: Float[ArrayLike, "n *out axes"],
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool = False,
) -> Float[Array, "n c *out"]:
    r"""Read images or volumes at the places that a grid names.

    .. math:: y_{n,c,i,j} = \sum_{h,w} x_{n,c,h,w} \, k(h - v_{n,i,j}) \, k(w - u_{n,i,j})

    :math:`u` and :math:`v` are the grid's coordinates in elements: -1 stands for one end of an axis and 1 for the
    other, so that :math:`u = ((g + 1) W - 1) / 2`, or :math:`(g + 1) (W - 1) / 2` with ``align_corners``. The kernel
    is :math:`k(d) = \max(0, 1 - |d|)`, a cubic one that reaches over four elements, or 1 for the nearest element.

    Args:
        x: images ``(N, C, H, W)`` or volumes ``(N, C, D, H, W)``.
        grid: ``(N, HO, WO, 2)`` or ``(N, DO, HO, WO, 3)``: the places, in the order x (along ``W``), y (along ``H``),
            z (along ``D``).
        mode: ``"bilinear"`` (for volumes too, along three axes), ``"nearest"``, or ``"bicubic"`` for images.
        padding_mode: what lies outside: ``"zeros"``, the nearest element of the ``"border"``, or the image mirrored
            at its ends, ``"reflection"``.
        align_corners: whether -1 and 1 are the centres of the first and last elements instead of their outer edges.

    Returns:
        Array of shape ``(N, C, HO, WO)`` or ``(N, C, DO, HO, WO)``, in the dtype of ``x``; half precision is computed
        in float32. A coordinate that is NaN lies outside with ``"zeros"``, and at the beginning otherwise.

    Raises:
        ShapeMismatchError: ``x`` and ``grid`` do not fit, or ``x`` has no elements to read.
        TypeError: one of them is not an array of floating-point numbers.
        ValueError: no such mode.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> image = jnp.arange(4.0).reshape(1, 1, 2, 2)
        >>> F.grid_sample(image, jnp.zeros((1, 1, 1, 2))).tolist()  # the centre
        [[[[1.5]]]]

    Reference:
        Jaderberg et al., "Spatial Transformer Networks", 2015; ``torch.nn.functional.grid_sample``.
    """
    x, grid = checks.to_array(x, "grid_sample", "x"), checks.to_array(grid, "grid_sample", "grid")
    checks.require_floats(x, "grid_sample", "x")
    checks.require_floats(grid, "grid_sample", "grid")
    ndim = x.ndim - 2
    if ndim not in _LAYOUTS:
        known = ", or ".join(images for images, _ in _LAYOUTS.values())
        checks.shape_error("grid_sample", f"x must be {known}, not of {x.ndim} axes.", "Reshape the data.", x=x)
    images, places = _LAYOUTS[ndim]
    if grid.ndim != x.ndim or grid.shape[0] != x.shape[0] or grid.shape[-1] != ndim:
        problem = f"for {images} the grid must be {places}, with the same N={x.shape[0]}."
        checks.shape_error("grid_sample", problem, "Check the two.", x=x, grid=grid)
    if 0 in x.shape[2:]:
        checks.shape_error("grid_sample", "x has no elements to read.", "Check the data.", x=x)
    _choice(mode, _MODES, "grid_sample", "mode")
    _choice(padding_mode, _PADDINGS, "grid_sample", "padding_mode")
    if mode == "bicubic" and ndim != 2:
        raise ValueError(f"grid_sample: mode 'bicubic' is for images, use 'bilinear'. Got {checks.describe(x)}.")
    align = checks.flag(align_corners, "grid_sample", "align_corners")
    return _grid_sample(x, grid, mode=mode, padding=padding_mode, align=align)


def affine_grid(
    theta: Float[ArrayLike, "n axes columns"], size: tuple[int, ...], align_corners: bool = False
) -> Float[Array, "n *out axes"]:
    r"""Make the grid that reads images as an affine map moves them.

    .. math:: g_{n,i,j} = \theta_n \, (u_j, v_i, 1)^T

    where :math:`u_j` and :math:`v_i` are the coordinates of the output's elements, from -1 to 1.

    Args:
        theta: the maps, ``(N, 2, 3)``, or ``(N, 3, 4)`` for volumes.
        size: the shape of the output that is to be read, ``(N, C, H, W)`` or ``(N, C, D, H, W)``.
        align_corners: whether -1 and 1 are the centres of the first and last elements instead of their outer edges;
            the same as for :func:`grid_sample`.

    Returns:
        The grid, ``(N, H, W, 2)`` or ``(N, D, H, W, 3)``, in the dtype of ``theta``.

    Raises:
        ShapeMismatchError: ``theta`` and ``size`` do not fit.
        TypeError: ``theta`` is not an array of floating-point numbers, or ``size`` not a tuple of integers.
        ValueError: a size is less than 1.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> image = jnp.arange(4.0).reshape(1, 1, 2, 2)
        >>> mirror = jnp.array([[[-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]])
        >>> F.grid_sample(image, F.affine_grid(mirror, image.shape)).tolist()
        [[[[1.0, 0.0], [3.0, 2.0]]]]

    Reference:
        Jaderberg et al., "Spatial Transformer Networks", 2015; ``torch.nn.functional.affine_grid``.
    """
    theta = checks.to_array(theta, "affine_grid", "theta")
    checks.require_floats(theta, "affine_grid", "theta")
    if not isinstance(size, (tuple, list)):
        raise TypeError(f"affine_grid: size must be a tuple of ints, got {size!r} ({type(size).__name__}).")
    sizes = tuple(checks.integer(n, "affine_grid", "size", 1) for n in size)
    ndim = len(sizes) - 2
    if ndim not in _LAYOUTS:
        raise ValueError(
            f"affine_grid: size must be that of {' or '.join(i for i, _ in _LAYOUTS.values())}, got {size}."
        )
    if theta.shape != (sizes[0], ndim, ndim + 1):
        problem = f"for a size of {sizes} theta must have shape {(sizes[0], ndim, ndim + 1)}."
        checks.shape_error("affine_grid", problem, "Check the two.", theta=theta)
    align = checks.flag(align_corners, "affine_grid", "align_corners")
    return _affine_grid(theta, sizes=sizes[2:], align=align)


def _choice(value: Any, allowed: tuple[str, ...], function: str, argument: str) -> None:
    if value not in allowed:
        raise ValueError(f"{function}: {argument} must be one of {', '.join(map(repr, allowed))}, got {value!r}.")


@functools.partial(jax.jit, static_argnames=("sizes", "align"))
def _affine_grid(theta: Array, *, sizes: tuple[int, ...], align: bool) -> Array:
    wide = theta.astype(checks.statistics_dtype(theta.dtype))
    axes = []
    for n in reversed(sizes):  # x, which goes along the last axis, is first
        ends = 1.0 if align else 1 - 1 / n
        axes.append(jnp.linspace(-ends, ends, n, dtype=wide.dtype) if n > 1 else jnp.zeros(1, wide.dtype))
    grid = 0
    for k, places in enumerate((*axes, jnp.ones((), wide.dtype))):
        along = places.reshape((-1,) + (1,) * k) if k < len(axes) else places
        grid = grid + along[..., None] * wide[:, :, k].reshape(-1, *(1 for _ in sizes), len(sizes))
    return jnp.broadcast_to(grid, (theta.shape[0], *sizes, len(sizes))).astype(theta.dtype)


@functools.partial(jax.jit, static_argnames=("mode", "padding", "align"))
def _grid_sample(x: Array, grid: Array, *, mode: str, padding: str, align: bool) -> Array:
    dtype = jnp.promote_types(checks.statistics_dtype(x.dtype), checks.statistics_dtype(grid.dtype))
    n, channels, *sizes = x.shape
    out = grid.shape[1:-1]
    taps = []  # along each axis: positions, whether they are inside, and weights
    for k, size in enumerate(sizes):
        place = grid[..., len(sizes) - 1 - k].reshape(n, math.prod(out)).astype(dtype)
        place = (place + 1) * ((size - 1) / 2) if align else ((place + 1) * size - 1) / 2
        taps.append(_taps(place, size, mode, padding, align))
    rows = x.reshape(n, channels, math.prod(sizes)).swapaxes(
        1, 2
    )  # one for each place, so that channels lie side by side
    look = jax.vmap(lambda table, where: table.at[where].get(mode="fill", fill_value=0))
    y = jnp.zeros((n, taps[0][0][0].shape[1], channels), dtype)
    for corner in itertools.product(*taps):
        index, inside, weight = corner[0]
        for (more, here, factor), size in zip(corner[1:], sizes[1:], strict=True):
            index, inside, weight = index * size + more, inside & here, weight * factor
        found = look(rows, jnp.where(inside, index, rows.shape[1])).astype(dtype)  # nothing is read outside
        y = y + found * jnp.where(inside, weight, 0)[..., None]
    return y.swapaxes(1, 2).reshape(n, channels, *out).astype(x.dtype)


def _taps(place: Array, size: int, mode: str, padding: str, align: bool) -> list[tuple[Array, Array, Array]]:
    """Which elements along an axis are read, whether there are such, and their weights."""
    if mode == "bicubic":
        start = jnp.floor(place)
        t = place - start
        distances = ((t + 1, False), (t, True), (1 - t, True), (2 - t, False))
        places = [_padded(lax.stop_gradient(start) + k, size, padding, align) for k in (-1, 0, 1, 2)]
        return [_tap(p, size, _cubic(d, near)) for p, (d, near) in zip(places, distances, strict=True)]
    place = _padded(place, size, padding, align)
    if mode == "nearest":
        return [_tap(jnp.round(place), size, jnp.ones_like(place))]
    start = lax.stop_gradient(jnp.floor(place))
    t = place - start
    return [_tap(start, size, 1 - t), _tap(start + 1, size, t)]


def _tap(place: Array, size: int, weight: Array) -> tuple[Array, Array, Array]:
    inside = (place >= 0) & (place < size)
    return jnp.where(inside, place, 0).astype(jnp.int32), inside, weight


def _padded(place: Array, size: int, padding: str, align: bool) -> Array:
    """Bring coordinates into the image. The comparisons give PyTorch's gradients at the ends, and 0 for NaN."""
    if padding == "zeros":
        return place
    if padding == "reflection":
        low, span = (0.0, size - 1.0) if align else (-0.5, float(size))
        if span == 0:
            return jnp.zeros_like(place)
        distance = place - low
        distance = jnp.where(distance < 0, -distance, distance)
        turns = lax.stop_gradient(jnp.floor(distance / span))
        extra = lax.rem(distance, jnp.full_like(distance, span))
        place = jnp.where(turns % 2 == 0, extra + low, span - extra + low)
    return jnp.where(place > 0, jnp.where(place < size - 1, place, size - 1), 0)


def _cubic(d: Array, near: bool) -> Array:
    """The weight of cubic convolution for an element at a distance of up to 1, or of 1 to 2."""
    a = _CUBIC
    return ((a + 2) * d - (a + 3)) * d * d + 1 if near else ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
