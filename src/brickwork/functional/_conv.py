"""Convolution."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax import lax

from . import _checks as checks

if TYPE_CHECKING:
    from jaxtyping import Array, Float

    from ._types import ArrayLike

_LARGEST_UNFOLDED = 64  # how many times the size of the output unfolded windows may take


def conv2d(
    x: Float[ArrayLike, "*n c h w"],
    weight: Float[ArrayLike, "out c_per_group kh kw"],
    bias: Float[ArrayLike, " out"] | None = None,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] | str = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
) -> Float[Array, "*n out ho wo"]:
    r"""Slide a kernel over images (cross-correlation, as everywhere in deep learning).

    .. math:: y_{n,o,i,j} = b_o + \sum_{c,u,v} W_{o,c,u,v}
        \, x_{n,\, c,\, s i + d u - p,\, s j + d v - p}

    Args:
        x: images ``(N, C, H, W)``, or one image ``(C, H, W)``.
        weight: kernels ``(O, C / groups, KH, KW)``.
        bias: ``(O,)``, or ``None``.
        stride: the step between windows; an int or a pair (height, width), as below.
        padding: zeros added on each side; or ``"valid"`` (none), or ``"same"`` (as many as keep
            the size; only for stride 1).
        dilation: the step between the elements of a window.
        groups: the number of parts into which the channels are split, each seen only by its
            own ``O / groups`` kernels.

    Returns:
        Array of shape ``(N, O, HO, WO)`` or ``(O, HO, WO)``, with
        ``HO = (H + 2 * padding - dilation * (KH - 1) - 1) // stride + 1``.

    Raises:
        ShapeMismatchError: the shapes do not fit, or a window is larger than the padded image.
        TypeError: an argument is not an array, or ``x`` holds integers and ``weight`` floats.
        ValueError: an option is out of range.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> F.conv2d(jnp.ones((1, 3, 8, 8)), jnp.ones((4, 3, 3, 3)), padding=1).shape
        (1, 4, 8, 8)

    Reference:
        ``torch.nn.functional.conv2d``.
    """
    x = checks.to_array(x, "conv2d", "x")
    weight = checks.to_array(weight, "conv2d", "weight")
    bias = checks.optional_array(bias, "conv2d", "bias")
    shape, kernel = x.shape, weight.shape
    if len(kernel) != 4:
        checks.shape_error(
            "conv2d",
            f"weight must have 4 axes (out, in, height, width), not {len(kernel)}.",
            "Reshape the weight.",
            weight=weight,
        )
    checks.require_spatial(x, 2, "conv2d")
    strides, pads, dilations, groups = checks.cached(_geometry, kernel[2:], stride, padding, dilation, groups)
    if shape[-3] != kernel[1] * groups or kernel[0] % groups:
        _wrong_channels(x, weight, groups)
    for axis in (0, 1):
        if shape[axis - 2] + sum(pads[axis]) <= dilations[axis] * (kernel[axis + 2] - 1):
            checks.window_too_large(x, "conv2d", kernel[2:], dilations, pads)
    if bias is not None and bias.shape != kernel[:1]:
        checks.require_length(bias, kernel[0], "conv2d", "bias", "output channel", weight=weight)
    if x.dtype != weight.dtype:
        checks.require_castable(x, weight, "conv2d")
    return _conv2d(x, weight, bias, stride=strides, padding=pads, dilation=dilations, groups=groups)


@functools.lru_cache(maxsize=1024, typed=True)
def _geometry(
    kernel: tuple[int, int], stride: Any, padding: Any, dilation: Any, groups: Any
) -> tuple[Any, Any, Any, int]:
    """Check the options, and return them all in pairs (padding as a pair of (low, high))."""
    strides = checks.sizes(stride, 2, "conv2d", "stride")
    dilations = checks.sizes(dilation, 2, "conv2d", "dilation")
    groups = checks.integer(groups, "conv2d", "groups", 1)
    if not isinstance(padding, str):
        pads = tuple((p, p) for p in checks.sizes(padding, 2, "conv2d", "padding", 0))
    elif padding == "valid":
        pads = ((0, 0), (0, 0))
    elif padding == "same":
        if strides != (1, 1):
            raise ValueError(
                f"conv2d: padding='same' keeps the size of the image, which needs stride 1, "
                f"got stride={stride}. Give the padding as a number instead."
            )
        totals = [d * (k - 1) for d, k in zip(dilations, kernel, strict=True)]
        pads = tuple((t // 2, t - t // 2) for t in totals)
    else:
        raise ValueError(f"conv2d: padding must be an int, a pair of ints, 'same' or 'valid', got {padding!r}.")
    return strides, pads, dilations, groups


def _wrong_channels(x: Array, weight: Array, groups: int) -> None:
    out, per_group = weight.shape[:2]
    if out % groups:
        checks.shape_error(
            "conv2d",
            f"groups={groups} must divide the {out} output channels of weight.",
            "Change groups or the number of output channels.",
            weight=weight,
        )
    channels, expected = x.shape[-3], per_group * groups
    fix = f"Check the data, or make the layer for {channels} input channels."
    if x.shape[-1] == expected:
        fix = f"The data looks channels-last; make it channels-first with {checks.channels_first(x, 2)}."
    elif x.ndim == 3 and expected == 1:
        fix = "If the first axis is the batch, add the channel axis: x[:, None]."
    per = f" x {groups} groups" if groups > 1 else ""
    checks.shape_error(
        "conv2d",
        f"x has {channels} channels in axis {x.ndim - 3}, but weight of shape {weight.shape}{per} expects {expected}.",
        fix,
        x=x,
    )


@functools.partial(jax.jit, static_argnames=("stride", "padding", "dilation", "groups"))
def _conv2d(
    x: Array,
    weight: Array,
    bias: Array | None,
    *,
    stride: tuple[int, int],
    padding: tuple[tuple[int, int], tuple[int, int]],
    dilation: tuple[int, int],
    groups: int,
) -> Array:
    dtype = jnp.result_type(x, weight)
    batch = (x if x.ndim == 4 else x[None]).astype(dtype)
    weight = weight.astype(dtype)
    if dilation == (1, 1) and groups == 1 and _suits_product(batch.shape, weight.shape, stride, padding):
        y = _product(batch, weight, stride, padding)
    else:
        y = lax.conv_general_dilated(
            batch,
            weight,
            stride,
            padding,
            rhs_dilation=dilation,
            dimension_numbers=("NCHW", "OIHW", "NCHW"),
            feature_group_count=groups,
        )
    if bias is not None:
        y = y + bias[:, None, None]
    return y if x.ndim == 4 else y[0]


def _suits_product(images: tuple[int, ...], kernel: tuple[int, ...], stride: Any, padding: Any) -> bool:
    """Whether to unfold the windows and multiply matrices instead of calling XLA's convolution.

    On a CPU that is faster where there is nothing to unfold, and where the unfolded windows are no more numbers
    than the weights, which the convolution rearranges at every call. Where the output is smaller than a window, it
    is up to a hundred times as slow.
    """
    if jax.default_backend() != "cpu":
        return False
    if kernel[2:] == (1, 1):
        return padding == ((0, 0), (0, 0))
    rows, columns = _output_size(images, kernel, stride, padding)
    if images[0] * rows * columns <= kernel[0]:
        return True
    return (rows < kernel[2] or columns < kernel[3]) and kernel[2] * kernel[3] <= _LARGEST_UNFOLDED


def _output_size(images: tuple[int, ...], kernel: tuple[int, ...], stride: Any, padding: Any) -> tuple[int, int]:
    rows, columns = ((images[axis] + sum(padding[axis - 2]) - kernel[axis]) // stride[axis - 2] + 1 for axis in (2, 3))
    return rows, columns


def _product(x: Array, weight: Array, stride: tuple[int, int], padding: Any) -> Array:
    """Convolution as one product: weights ``(O, C * KH * KW)`` by windows ``(N, C * KH * KW, HO * WO)``."""
    n, c = x.shape[:2]
    out, _, height, width = weight.shape
    rows, columns = _output_size(x.shape, weight.shape, stride, padding)
    if any(map(any, padding)):
        x = jnp.pad(x, ((0, 0), (0, 0), *padding))
    shifted = [
        lax.slice(
            x,
            (0, 0, i, j),
            (n, c, i + (rows - 1) * stride[0] + 1, j + (columns - 1) * stride[1] + 1),
            (1, 1, *stride),
        )
        for i in range(height)
        for j in range(width)
    ]
    windows = jnp.stack(shifted, 2) if len(shifted) > 1 else shifted[0]
    windows = windows.reshape(n, c * height * width, rows * columns)
    y = lax.dot_general(weight.reshape(out, c * height * width), windows, (((1,), (1,)), ((), ())))
    return y.transpose(1, 0, 2).reshape(n, out, rows, columns)
