"""Padding and cropping."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from . import _checks as checks
from ._explicit import left_to_xla

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Array, Shaped

    from ._types import ArrayLike

    Pads = tuple[tuple[int, int], ...]

_MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def pad(
    x: Shaped[ArrayLike, "*shape"], pad: Sequence[int], mode: str = "constant", value: float | None = None
) -> Shaped[Array, "*padded"]:
    r"""Add elements at the ends of the last axes, or take some away.

    Args:
        x: array of any dtype, with at least as many axes as ``pad`` has pairs.
        pad: how many elements to add at the start and the end of the last axis, then of the one
            before it, and so on: ``(left, right, top, bottom)`` for images. Negative numbers take
            elements away.
        mode: what to add: ``"constant"``: ``value``; ``"reflect"``: the image mirrored at its first and last
            elements, which are not repeated; ``"replicate"``: the first and the last element;
            ``"circular"``: the other end of the image.
        value: the number to add in mode ``"constant"``; ``None``: 0.

    Returns:
        Array of the dtype of ``x``. Each padded axis has ``size + before + after`` elements.

    Raises:
        ShapeMismatchError: too few axes, more is taken away than there is, or an axis is too short to be
            mirrored or repeated.
        TypeError: ``x`` is not an array, or a number has the wrong type.
        ValueError: an unknown mode, an odd number of paddings, or a value in another mode than
            ``"constant"``.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> x = jnp.array([1, 2, 3])
        >>> F.pad(x, (1, 2)).tolist()
        [0, 1, 2, 3, 0, 0]
        >>> F.pad(x, (2, 1), mode="reflect").tolist()
        [3, 2, 1, 2, 3, 2]
        >>> F.pad(x, (-1, 0)).tolist()
        [2, 3]

    Reference:
        ``torch.nn.functional.pad``.
    """
    return pad_spatial("pad", x, pad, mode, value)


def pad_spatial(function: str, x: Any, pads: Any, mode: str, value: Any) -> Array:
    """Pad as ``pad`` does, in the name of a function or layer."""
    x = checks.to_array(x, function, "x")
    pairs = checks.cached(_pairs, function, pads, mode)
    if len(pairs) > len(x.shape):
        checks.shape_error(
            function,
            f"pad holds {len(pairs)} pairs, one for each axis from the last on, but x has {len(x.shape)} axes.",
            "Give fewer paddings, or add axes to x.",
            x=x,
        )
    if mode != "constant" and value is not None and value != 0:
        raise ValueError(f"{function}: value={value!r} has no meaning in mode {mode!r}. Leave it out.")
    _check_sizes(function, x, pairs, mode)
    if mode != "constant":
        return _pad_with_image(x, pads=pairs, mode=mode)
    return _pad_with_value(x, _fill(function, 0 if value is None else value, x.dtype), pads=pairs)


@functools.lru_cache(maxsize=1024, typed=True)
def _pairs(function: str, pads: Any, mode: str) -> Pads:
    """Check the options, and return pairs (before, after), that of the last axis first."""
    if mode not in _MODES:
        raise ValueError(f"{function}: mode must be 'constant', 'reflect', 'replicate' or 'circular', got {mode!r}.")
    if not isinstance(pads, tuple):
        raise TypeError(f"{function}: pad must be a tuple of ints, got {pads!r} ({type(pads).__name__}).")
    if len(pads) % 2:
        raise ValueError(f"{function}: pad must hold two numbers for each axis, got {pads}.")
    numbers = tuple(checks.integer(p, function, "pad") for p in pads)
    return tuple(zip(numbers[::2], numbers[1::2], strict=True))


def _check_sizes(function: str, x: Array, pairs: Pads, mode: str) -> None:
    for i, (before, after) in enumerate(pairs):
        axis = len(x.shape) - 1 - i
        size = x.shape[axis]
        if before == after == 0:
            continue
        if size + min(before, 0) + min(after, 0) < 0 or size + before + after < 0:
            checks.shape_error(
                function,
                f"the paddings {(before, after)} take away more than the {size} elements of axis {axis}.",
                "Take away less.",
                x=x,
            )
        most = {"reflect": size - 1, "circular": size + min(before, 0) + min(after, 0)}.get(mode)
        if mode == "replicate" and size == 0 and max(before, after) > 0:
            most = 0
        if most is not None and max(before, after) > max(most, 0):
            checks.shape_error(
                function,
                f"mode {mode!r} can add at most {max(most, 0)} elements to an end of axis {axis}, not "
                f"{max(before, after)}.",
                "Pad less, or use mode 'constant'.",
                x=x,
            )


def _fill(function: str, value: Any, dtype: Any) -> np.ndarray:
    """Return the number to pad with as a scalar of the array's dtype."""
    number: Any = check_value(value, function)
    is_complex = isinstance(value, (complex, np.complexfloating))
    if jnp.issubdtype(dtype, np.inexact):
        fits = dtype.kind == "c" or not is_complex
    else:
        fits = not is_complex and np.isfinite(number) and number == int(number)
    if not fits:
        raise TypeError(f"{function}: value={value!r} is no number of dtype {dtype}. Cast x first.")
    if dtype.kind not in "iu":
        return np.asarray(number).astype(dtype)
    try:
        return np.asarray(int(number), dtype)
    except OverflowError:
        raise ValueError(f"{function}: value={value!r} does not fit into {dtype}.") from None


def check_value(value: Any, function: str) -> Any:
    """Return a number to pad with."""
    if not isinstance(value, (bool, int, float, complex, np.number, np.bool_)):
        raise TypeError(f"{function}: value must be a Python number, got {value!r} ({type(value).__name__}).")
    return value


@functools.partial(jax.jit, static_argnames="pads")
def _pad_with_value(x: Array, value: Array, *, pads: Pads) -> Array:
    config = [(0, 0, 0)] * (x.ndim - len(pads)) + [(*p, 0) for p in reversed(pads)]
    return lax.pad(x, value, config)


@functools.partial(jax.jit, static_argnames=("pads", "mode"))
@left_to_xla
def _pad_with_image(x: Array, *, pads: Pads, mode: str) -> Array:
    lead = [(0, 0)] * (x.ndim - len(pads))
    added = lead + [(max(a, 0), max(b, 0)) for a, b in reversed(pads)]
    removed = lead + [(min(a, 0), min(b, 0)) for a, b in reversed(pads)]
    # A circle is closed after cropping, but the mirror stands where the image ended before.
    if mode == "circular":
        return jnp.pad(_crop(x, removed), added, _MODES[mode])
    return _crop(jnp.pad(x, added, _MODES[mode]), removed)


def _crop(x: Array, removed: list[tuple[int, int]]) -> Array:
    if not any(map(any, removed)):
        return x
    return lax.pad(x, jnp.zeros((), x.dtype), [(*r, 0) for r in removed])
