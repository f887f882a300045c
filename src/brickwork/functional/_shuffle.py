"""Moving elements between channels and space, and between channels."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import jax

from . import _checks as checks
from ._explicit import left_to_xla

if TYPE_CHECKING:
    from jaxtyping import Array, Shaped

    from ._types import ArrayLike


def pixel_shuffle(x: Shaped[ArrayLike, "*n c h w"], upscale_factor: int) -> Shaped[Array, "*n co ho wo"]:
    r"""Make an image ``r`` times as high and wide out of ``r * r`` times as many channels.

    .. math:: y_{c,\, r i + u,\, r j + v} = x_{c r^2 + u r + v,\, i,\, j}

    Args:
        x: array ``(*, C * r * r, H, W)`` of any dtype.
        upscale_factor: ``r``.

    Returns:
        Array of shape ``(*, C, H * r, W * r)``.

    Raises:
        ShapeMismatchError: fewer than 3 axes, or a number of channels that ``r * r`` does not divide.
        TypeError: ``x`` is not an array, or the factor is no int.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> F.pixel_shuffle(jnp.arange(4).reshape(4, 1, 1), 2).tolist()
        [[[0, 1], [2, 3]]]

    Reference:
        Shi et al., "Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel
        Convolutional Neural Network", 2016; ``torch.nn.functional.pixel_shuffle``.
    """
    x = checks.to_array(x, "pixel_shuffle", "x")
    factor = checks.integer(upscale_factor, "pixel_shuffle", "upscale_factor", 1)
    _require_axes(x, "pixel_shuffle", "(*, C, H, W)")
    if x.shape[-3] % factor**2:
        checks.shape_error(
            "pixel_shuffle",
            f"x has {x.shape[-3]} channels in axis {len(x.shape) - 3}, which upscale_factor squared, "
            f"{factor**2}, does not divide.",
            "Check the factor, or the data (channels come before height and width).",
            x=x,
        )
    return _pixel_shuffle(x, factor=factor)


def pixel_unshuffle(x: Shaped[ArrayLike, "*n c h w"], downscale_factor: int) -> Shaped[Array, "*n co ho wo"]:
    r"""Undo ``pixel_shuffle``: an image ``1 / r`` as high and wide, with ``r * r`` times as many channels.

    .. math:: y_{c r^2 + u r + v,\, i,\, j} = x_{c,\, r i + u,\, r j + v}

    Args:
        x: array ``(*, C, H * r, W * r)`` of any dtype.
        downscale_factor: ``r``.

    Returns:
        Array of shape ``(*, C * r * r, H, W)``.

    Raises:
        ShapeMismatchError: fewer than 3 axes, or a height or width that ``r`` does not divide.
        TypeError: ``x`` is not an array, or the factor is no int.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> F.pixel_unshuffle(jnp.arange(4).reshape(1, 2, 2), 2).tolist()
        [[[0]], [[1]], [[2]], [[3]]]

    Reference:
        ``torch.nn.functional.pixel_unshuffle``.
    """
    x = checks.to_array(x, "pixel_unshuffle", "x")
    factor = checks.integer(downscale_factor, "pixel_unshuffle", "downscale_factor", 1)
    _require_axes(x, "pixel_unshuffle", "(*, C, H, W)")
    if x.shape[-2] % factor or x.shape[-1] % factor:
        checks.shape_error(
            "pixel_unshuffle",
            f"downscale_factor={factor} must divide the height {x.shape[-2]} and the width {x.shape[-1]} of x.",
            "Pad or crop the images, or use another factor.",
            x=x,
        )
    return _pixel_unshuffle(x, factor=factor)


def channel_shuffle(x: Shaped[ArrayLike, "n c *spatial"], groups: int) -> Shaped[Array, "n c *spatial"]:
    r"""Mix the channels of ``g`` groups: first the first of each group, then the second of each, and so on.

    .. math:: y_{n,\, k g + j} = x_{n,\, j C / g + k}

    Args:
        x: array ``(N, C, *)`` of any dtype, with at least 3 axes.
        groups: ``g``.

    Returns:
        Array of the same shape.

    Raises:
        ShapeMismatchError: fewer than 3 axes, or a number of channels that ``g`` does not divide.
        TypeError: ``x`` is not an array, or ``groups`` is no int.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> F.channel_shuffle(jnp.arange(6).reshape(1, 6, 1), 2).ravel().tolist()
        [0, 3, 1, 4, 2, 5]

    Reference:
        Zhang et al., "ShuffleNet: An Extremely Efficient Convolutional Neural Network for Mobile
        Devices", 2018; ``torch.nn.functional.channel_shuffle``.
    """
    x = checks.to_array(x, "channel_shuffle", "x")
    groups = checks.integer(groups, "channel_shuffle", "groups", 1)
    _require_axes(x, "channel_shuffle", "(N, C, *)")
    if x.shape[1] % groups:
        checks.shape_error(
            "channel_shuffle",
            f"groups={groups} must divide the {x.shape[1]} channels of x (axis 1).",
            "Check the data (channels come second), or change groups.",
            x=x,
        )
    return _channel_shuffle(x, groups=groups)


def _require_axes(x: Any, function: str, axes: str) -> None:
    if len(x.shape) < 3:
        checks.shape_error(
            function, f"x must have at least 3 axes {axes}, not {len(x.shape)}.", "Add the missing axes.", x=x
        )


@functools.partial(jax.jit, static_argnames="factor")
@left_to_xla
def _pixel_shuffle(x: Array, *, factor: int) -> Array:
    *lead, c, h, w = x.shape
    n, r = len(lead), factor
    parts = x.reshape(*lead, c // r**2, r, r, h, w)
    mixed = parts.transpose(*range(n), n, n + 3, n + 1, n + 4, n + 2)
    return mixed.reshape(*lead, c // r**2, h * r, w * r)


@functools.partial(jax.jit, static_argnames="factor")
@left_to_xla
def _pixel_unshuffle(x: Array, *, factor: int) -> Array:
    *lead, c, h, w = x.shape
    n, r = len(lead), factor
    parts = x.reshape(*lead, c, h // r, r, w // r, r)
    mixed = parts.transpose(*range(n), n, n + 2, n + 4, n + 1, n + 3)
    return mixed.reshape(*lead, c * r**2, h // r, w // r)


@functools.partial(jax.jit, static_argnames="groups")
@left_to_xla
def _channel_shuffle(x: Array, *, groups: int) -> Array:
    n, c, *rest = x.shape
    return x.reshape(n, groups, c // groups, *rest).swapaxes(1, 2).reshape(x.shape)
