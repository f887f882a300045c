"""Resizing sequences, images and volumes."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from . import _checks as checks, _windows as win
from ._pool_adaptive import adaptive_means
from ._resample import Taps, resample

if TYPE_CHECKING:
    from jaxtyping import Array, Num

    from ._types import ArrayLike

_RANKS = {"linear": 3, "bilinear": 4, "bicubic": 4, "trilinear": 5}  # the others are for all of 3, 4 and 5 axes
_KINDS = {3: "sequences (N, C, L)", 4: "images (N, C, H, W)", 5: "volumes (N, C, D, H, W)"}
_MODES = ("nearest", "nearest-exact", "linear", "bilinear", "bicubic", "trilinear", "area")
_CUBIC = -0.75  # the slope parameter of cubic convolution
_CUBIC_ANTIALIAS = -0.5


class _Axis(NamedTuple):
    """How to resize one axis."""

    size: int
    out: int
    factor: float | None  # the factor that was given, if coordinates depend on it


def interpolate(
    x: Num[ArrayLike, "n c *spatial"],
    size: int | tuple[int, ...] | None = None,
    scale_factor: float | tuple[float, ...] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Num[Array, "n c *resized"]:
    r"""Resize sequences, images or volumes to a size or by a factor.

    Output element ``i`` of an axis of ``S`` elements, resized to ``O``, lies at

    .. math:: \frac{S}{O} \big( i + \tfrac12 \big) - \tfrac12 \quad \text{or, with align\_corners,} \quad
        \frac{S - 1}{O - 1} \, i

    of the input, and is a weighted sum of the elements around it: of 2 along each axis for
    ``"linear"``, ``"bilinear"`` and ``"trilinear"``, of 4 for ``"bicubic"``. ``"nearest"`` takes element
    :math:`\lfloor i S / O \rfloor`, ``"nearest-exact"`` element :math:`\lfloor (i + 1/2) S / O \rfloor`, and
    ``"area"`` the mean of ``adaptive_avg_pool``. Where ``scale_factor`` is given, its inverse takes the place of
    :math:`S / O`, but for ``"nearest"`` where an image keeps or doubles its size along the axis.

    Args:
        x: sequences ``(N, C, L)``, images ``(N, C, H, W)`` or volumes ``(N, C, D, H, W)``.
        size: the new size, an int or one for each spatial axis.
        scale_factor: or the factor, a number or one for each spatial axis; the new size is rounded down.
        mode: ``"nearest"``, ``"nearest-exact"``, ``"area"``; ``"linear"`` (sequences), ``"bilinear"``,
            ``"bicubic"`` (images), ``"trilinear"`` (volumes).
        align_corners: whether the centres of the first and last elements stay where they are, instead of
            the outer edges; only for the linear and cubic modes, ``False`` by default.
        recompute_scale_factor: whether to compute positions from the sizes (``S / O`` above), where
            ``scale_factor`` is given. By default its inverse takes the place of ``S / O``.
        antialias: when making images smaller, average over as many elements as one output covers;
            only for ``"bilinear"`` and ``"bicubic"``.

    Returns:
        Array of the dtype of ``x``. Half precision is computed in float32. So are images of bytes (``uint8``), which
        ``"bilinear"`` and ``"bicubic"`` take too, and rounded along each axis; PyTorch's may differ by 1.

    Raises:
        ShapeMismatchError: a number of axes that the mode is not for, or nothing to resize.
        TypeError: ``x`` is not an array, or holds other integers in another mode than the nearest ones.
        ValueError: an option is out of range, or two contradict.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> F.interpolate(jnp.array([[[1.0, 3.0]]]), scale_factor=2, mode="linear").tolist()
        [[[1.0, 1.5, 2.5, 3.0]]]

    Reference:
        ``torch.nn.functional.interpolate``.
    """
    x = checks.to_array(x, "interpolate", "x")
    rank = len(x.shape)
    if rank not in _KINDS:
        checks.shape_error(
            "interpolate",
            f"x must have 3 to 5 axes, {', '.join(_KINDS.values())}, not {rank}.",
            "Add the missing axes (the batch too: x[None]), or reshape the data.",
            x=x,
        )
    if isinstance(size, np.ndarray):
        size = tuple(size.tolist()) if size.ndim else size.item()
    if isinstance(scale_factor, np.ndarray):
        scale_factor = tuple(scale_factor.tolist()) if scale_factor.ndim else scale_factor.item()
    options = (size, scale_factor, mode, align_corners, recompute_scale_factor, antialias)
    axes = checks.cached(_geometry, "interpolate", x.shape[2:], *options)
    if _RANKS.get(mode, rank) != rank:
        fits = [m for m in _MODES if _RANKS.get(m) == rank]
        checks.shape_error(
            "interpolate",
            f"mode {mode!r} is for {_KINDS[_RANKS[mode]]}, not for {rank} axes.",
            f"Use mode {' or '.join(map(repr, fits))}, or reshape the data.",
            x=x,
        )
    if not (mode.startswith("nearest") or (x.dtype == np.uint8 and mode in ("bilinear", "bicubic"))):
        checks.require_inexact(x, "interpolate", "x")
    if any(a.size == 0 for a in axes):
        checks.shape_error("interpolate", "x has no elements to resize.", "Check the data.", x=x)
    return _interpolate(x, axes=axes, mode=mode, align_corners=bool(align_corners), antialias=bool(antialias))


@functools.lru_cache(maxsize=1024, typed=True)
def _geometry(
    function: str,
    image: tuple[int, ...],
    size: Any,
    scale_factor: Any,
    mode: Any,
    align: Any,
    recompute: Any,
    anti: Any,
) -> tuple[_Axis, ...]:
    check_options(function, size, scale_factor, mode, align, recompute, anti)
    if size is not None:
        sizes = _for_each(function, "size", size, len(image))
        return tuple(_Axis(n, o, None) for n, o in zip(image, sizes, strict=True))
    factors = _for_each(function, "scale_factor", scale_factor, len(image))
    axes = []
    for n, factor in zip(image, factors, strict=True):
        out = int(n * float(factor))
        if out < 1 and n:
            raise ValueError(f"{function}: scale_factor={scale_factor} of {image} leaves nothing. Use a larger one.")
        axes.append(_Axis(n, out, None if recompute or mode == "area" or align else float(factor)))
    return tuple(axes)


def _for_each(function: str, argument: str, value: Any, ndim: int) -> tuple[Any, ...]:
    values = value if isinstance(value, tuple) else (value,) * ndim
    if len(values) != ndim:
        raise ValueError(f"{function}: {argument} must be one number, or one for each of {ndim} axes, got {value!r}.")
    return values


def check_options(
    function: str, size: Any, factor: Any, mode: Any, align: Any, recompute: Any, antialias: Any = False
) -> None:
    """Raise for options of ``interpolate`` that are out of range or contradict each other."""
    if mode not in _MODES:
        raise ValueError(f"{function}: mode must be one of {', '.join(map(repr, _MODES))}, got {mode!r}.")
    for name, value in (("align_corners", align), ("recompute_scale_factor", recompute)):
        if value is not None:
            checks.flag(value, function, name)
    checks.flag(antialias, function, "antialias")
    if (size is None) == (factor is None):
        raise ValueError(f"{function}: give size or scale_factor, one of the two.")
    for n in size if isinstance(size, (tuple, list)) else (size,):
        if n is not None or isinstance(size, (tuple, list)):
            checks.integer(n, function, "size", 1)
    for f in factor if isinstance(factor, (tuple, list)) else (factor,):
        if f is not None or isinstance(factor, (tuple, list)):
            _check_factor(function, f)
    if align is not None and mode not in _RANKS:
        raise ValueError(f"{function}: align_corners has no meaning in mode {mode!r}. Leave it out.")
    if recompute and size is not None:
        raise ValueError(f"{function}: recompute_scale_factor has no meaning with size. Leave it out.")
    if antialias and mode not in ("bilinear", "bicubic"):
        raise ValueError(f"{function}: antialias is for modes 'bilinear' and 'bicubic', not for {mode!r}.")


def _check_factor(function: str, factor: Any) -> None:
    if isinstance(factor, bool) or not isinstance(factor, (int, float, np.floating, np.integer)):
        raise TypeError(f"{function}: scale_factor must be a Python number, got {factor!r} ({type(factor).__name__}).")
    if not 0 < factor < math.inf:
        raise ValueError(f"{function}: scale_factor must be positive and finite, got {factor!r}.")


@functools.partial(jax.jit, static_argnames=("axes", "mode", "align_corners", "antialias"))
def _interpolate(x: Array, *, axes: tuple[_Axis, ...], mode: str, align_corners: bool, antialias: bool) -> Array:
    if mode == "area":
        return adaptive_means(x, windows=tuple(win.adaptive(a.size, a.out) for a in axes))
    pixels = x.dtype == jnp.uint8
    wide = jnp.float32 if pixels else checks.statistics_dtype(x.dtype)
    if mode.startswith("nearest"):
        pixels, wide = False, x.dtype
    if mode == "nearest" and len(axes) == 2:  # of images alone, as in PyTorch
        axes = tuple(a._replace(factor=None) if a.out in (a.size, 2 * a.size) else a for a in axes)
    y = x.astype(wide)
    for i, axis in reversed(list(enumerate(axes, 2))):
        y = resample(y, i, _taps(axis, mode, align_corners, antialias))
        if pixels:  # after each axis, as others do
            y = jnp.clip(jnp.floor(y + 0.5), 0, 255)
    return y.astype(x.dtype)


@functools.lru_cache(maxsize=128)
def _taps(axis: _Axis, mode: str, align_corners: bool, antialias: bool) -> Taps:
    """Return which elements make each output, and with which weights."""
    if mode.startswith("nearest"):
        return _nearest(axis, 0.5 if mode == "nearest-exact" else 0.0)
    ratio = axis.size / axis.out if axis.factor is None else 1 / axis.factor
    if align_corners:
        ratio = (axis.size - 1) / (axis.out - 1) if axis.out > 1 else 0.0
    if antialias:
        return _antialiased(axis, ratio, mode == "bicubic")
    outputs = np.arange(axis.out)
    position = ratio * outputs if align_corners else ratio * (outputs + 0.5) - 0.5
    if axis.size == axis.out and mode != "bicubic":
        position = outputs.astype(np.float64)  # whatever the factor is
    start = np.floor(position).astype(np.int64)
    t = position - start
    if mode != "bicubic":
        return Taps(start[:, None] + np.arange(2), np.stack([1 - t, t], 1), axis.size)
    distances = np.stack([t + 1, t, 1 - t, 2 - t], 1)
    return Taps(start[:, None] + np.arange(-1, 3), _cubic(distances, _CUBIC), axis.size)


def _nearest(axis: _Axis, shift: float) -> Taps:
    # In float32, as others round: with 7 elements out of 49, exact arithmetic would choose others.
    factor = np.float32(axis.size) / np.float32(axis.out) if axis.factor is None else np.float32(1 / axis.factor)
    places = np.floor((np.arange(axis.out, dtype=np.float32) + np.float32(shift)) * factor).astype(np.int64)
    places = np.minimum(places, axis.size - 1)[:, None]
    return Taps(places, np.ones(places.shape), axis.size)


def _cubic(distance: np.ndarray, a: float) -> np.ndarray:
    """Return the weights of cubic convolution for distances of up to 2."""
    d = abs(distance)
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((d - 5) * d + 8) * d * a - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0))


def _antialiased(axis: _Axis, ratio: float, cubic: bool) -> Taps:
    if axis.size == axis.out:  # whatever the factor is
        ratio = 1.0
    width = max(ratio, 1.0)
    support = (2 if cubic else 1) * width
    centre = ratio * (np.arange(axis.out) + 0.5)
    start = np.maximum((centre - support + 0.5).astype(np.int64), 0)
    end = np.minimum((centre + support + 0.5).astype(np.int64), axis.size)
    places = start[:, None] + np.arange(int((end - start).max()))
    distance = (places - centre[:, None] + 0.5) / width
    weights = _cubic(distance, _CUBIC_ANTIALIAS) if cubic else np.maximum(1 - abs(distance), 0)
    weights = np.where(places < end[:, None], weights, 0)
    return Taps(np.minimum(places, end[:, None] - 1), weights / weights.sum(1, keepdims=True), axis.size)
