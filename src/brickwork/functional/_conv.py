"""Convolution."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, NoReturn

import jax
import jax.numpy as jnp

from .._onednn import chosen
from . import _checks as checks
from ._conv_forms import Geometry, convolve
from ._explicit import left_to_xla, products

if TYPE_CHECKING:
    from jaxtyping import Array, Float

    from ._types import ArrayLike

_AXES = {1: "length", 2: "height, width", 3: "depth, height, width"}
_KINDS = {1: "sequence", 2: "image", 3: "volume"}
_PADDINGS = {1: "an int", 2: "an int, a pair of ints", 3: "an int, a triple of ints"}
_PAD_MODES = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}  # NumPy's names


def conv1d(
    x: Float[ArrayLike, "*n c l"],
    weight: Float[ArrayLike, "out c_per_group k"],
    bias: Float[ArrayLike, " out"] | None = None,
    stride: int | tuple[int] = 1,
    padding: int | tuple[int] | str = 0,
    dilation: int | tuple[int] = 1,
    groups: int = 1,
) -> Float[Array, "*n out lo"]:
    r"""Slide a kernel along sequences (cross-correlation, as everywhere in deep learning).

    .. math:: y_{n,o,i} = b_o + \sum_{c,u} W_{o,c,u} \, x_{n,\, c,\, s i + d u - p}

    Args:
        x: sequences ``(N, C, L)``, or one sequence ``(C, L)``.
        weight: kernels ``(O, C / groups, K)``.
        bias: ``(O,)``, or ``None``.
        stride: the step between windows.
        padding: zeros added on each side; or ``"valid"`` (none), or ``"same"`` (as many as keep
            the size; only for stride 1).
        dilation: the step between the elements of a window.
        groups: the number of parts into which the channels are split, each seen only by its
            own ``O / groups`` kernels.

    Returns:
        Array of shape ``(N, O, LO)`` or ``(O, LO)``, with
        ``LO = (L + 2 * padding - dilation * (K - 1) - 1) // stride + 1``.

    Raises:
        ShapeMismatchError: the shapes do not fit, or a window is larger than the padded sequence.
        TypeError: an argument is not an array, or ``x`` holds integers and ``weight`` floats.
        ValueError: an option is out of range.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> F.conv1d(jnp.arange(5.0)[None], jnp.array([[[-1.0, 1.0]]])).tolist()
        [[1.0, 1.0, 1.0, 1.0]]

    Reference:
        ``torch.nn.functional.conv1d``.
    """
    return conv_nd(1, x, weight, bias, stride, padding, dilation, groups)


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
    return conv_nd(2, x, weight, bias, stride, padding, dilation, groups)


def conv3d(
    x: Float[ArrayLike, "*n c d h w"],
    weight: Float[ArrayLike, "out c_per_group kd kh kw"],
    bias: Float[ArrayLike, " out"] | None = None,
    stride: int | tuple[int, int, int] = 1,
    padding: int | tuple[int, int, int] | str = 0,
    dilation: int | tuple[int, int, int] = 1,
    groups: int = 1,
) -> Float[Array, "*n out do ho wo"]:
    r"""Slide a kernel through volumes (cross-correlation, as everywhere in deep learning).

    .. math:: y_{n,o,i,j,k} = b_o + \sum_{c,t,u,v} W_{o,c,t,u,v}
        \, x_{n,\, c,\, s i + d t - p,\, s j + d u - p,\, s k + d v - p}

    Args:
        x: volumes ``(N, C, D, H, W)``, or one volume ``(C, D, H, W)``.
        weight: kernels ``(O, C / groups, KD, KH, KW)``.
        bias: ``(O,)``, or ``None``.
        stride: the step between windows; an int or a triple (depth, height, width), as below.
        padding: zeros added on each side; or ``"valid"`` (none), or ``"same"`` (as many as keep
            the size; only for stride 1).
        dilation: the step between the elements of a window.
        groups: the number of parts into which the channels are split, each seen only by its
            own ``O / groups`` kernels.

    Returns:
        Array of shape ``(N, O, DO, HO, WO)`` or ``(O, DO, HO, WO)``, with
        ``DO = (D + 2 * padding - dilation * (KD - 1) - 1) // stride + 1``.

    Raises:
        ShapeMismatchError: the shapes do not fit, or a window is larger than the padded volume.
        TypeError: an argument is not an array, or ``x`` holds integers and ``weight`` floats.
        ValueError: an option is out of range.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> F.conv3d(jnp.ones((1, 3, 4, 8, 8)), jnp.ones((4, 3, 3, 3, 3)), padding=1).shape
        (1, 4, 4, 8, 8)

    Reference:
        ``torch.nn.functional.conv3d``.
    """
    return conv_nd(3, x, weight, bias, stride, padding, dilation, groups)


def conv_nd(
    ndim: int,
    x: Any,
    weight: Any,
    bias: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: Any,
    padding_mode: str = "zeros",
) -> Array:
    """Convolve along ``ndim`` axes, with padding of any mode."""
    function = f"conv{ndim}d"
    x, weight, bias = kernel_arrays(ndim, function, x, weight, bias, "out, in")
    shape, kernel = x.shape, weight.shape
    g = checks.cached(_geometry, ndim, kernel[2:], stride, padding, dilation, groups)
    if shape[-ndim - 1] != kernel[1] * g.groups or kernel[0] % g.groups:
        _wrong_channels(ndim, x, weight, g.groups)
    for size, pads, d, k in zip(shape[-ndim:], g.padding, g.dilation, kernel[2:], strict=True):
        if type(size) is int and size + pads[0] + pads[1] <= d * (k - 1):
            checks.window_too_large(x, function, kernel[2:], g.dilation, g.padding)
    if padding_mode != "zeros":
        _require_padding(ndim, x, g.padding, padding_mode)
    require_bias(bias, kernel[0], weight, function)
    if x.dtype != weight.dtype:
        checks.require_castable(x, weight, function)
    return _conv(x, weight, bias, geometry=g, padding_mode=padding_mode, onednn=chosen())


def kernel_arrays(
    ndim: int, function: str, x: Any, weight: Any, bias: Any, channels: str
) -> tuple[Array, Array, Array | None]:
    """Return the arguments as arrays of the right number of axes."""
    x = checks.to_array(x, function, "x")
    weight = checks.to_array(weight, function, "weight")
    bias = checks.optional_array(bias, function, "bias")
    if len(weight.shape) != ndim + 2:
        checks.shape_error(
            function,
            f"weight must have {ndim + 2} axes ({channels}, {_AXES[ndim]}), not {len(weight.shape)}.",
            "Reshape the weight.",
            weight=weight,
        )
    checks.require_spatial(x, ndim, function)
    return x, weight, bias


def require_bias(bias: Array | None, channels: int, weight: Array, function: str) -> None:
    """Raise ``ShapeMismatchError`` unless there is a bias for each output channel, or none."""
    if bias is not None and bias.shape != (channels,):
        checks.require_length(bias, channels, function, "bias", "output channel", weight=weight)


def same_needs_stride_1(ndim: int, stride: Any, function: str) -> NoReturn:
    """Raise for a padding that can't be."""
    raise ValueError(
        f"{function}: padding='same' keeps the size of the {_KINDS[ndim]}, which needs stride 1, "
        f"got stride={stride}. Give the padding as a number instead."
    )


def require_padding_name(ndim: int, padding: str, function: str) -> None:
    """Raise ``ValueError`` unless the padding is ``"same"`` or ``"valid"``."""
    if padding not in ("same", "valid"):
        raise ValueError(f"{function}: padding must be {_PADDINGS[ndim]}, 'same' or 'valid', got {padding!r}.")


@functools.lru_cache(maxsize=1024, typed=True)
def _geometry(ndim: int, kernel: tuple[int, ...], stride: Any, padding: Any, dilation: Any, groups: Any) -> Geometry:
    """Check the options, and return them for each axis."""
    function = f"conv{ndim}d"
    strides = checks.sizes(stride, ndim, function, "stride")
    dilations = checks.sizes(dilation, ndim, function, "dilation")
    groups = checks.integer(groups, function, "groups", 1)
    if not isinstance(padding, str):
        pads = tuple((p, p) for p in checks.sizes(padding, ndim, function, "padding", 0))
        return Geometry(strides, pads, dilations, groups)
    require_padding_name(ndim, padding, function)
    totals = [0] * ndim
    if padding == "same":
        if any(s != 1 for s in strides):
            same_needs_stride_1(ndim, stride, function)
        totals = [d * (k - 1) for d, k in zip(dilations, kernel, strict=True)]
    return Geometry(strides, tuple((t // 2, t - t // 2) for t in totals), dilations, groups)


def _wrong_channels(ndim: int, x: Array, weight: Array, groups: int) -> None:
    function = f"conv{ndim}d"
    out, per_group = weight.shape[:2]
    if out % groups:
        checks.shape_error(
            function,
            f"groups={groups} must divide the {out} output channels of weight.",
            "Change groups or the number of output channels.",
            weight=weight,
        )
    per = f" x {groups} groups" if groups > 1 else ""
    wrong_input_channels(ndim, function, x, weight, per, per_group * groups)


def wrong_input_channels(ndim: int, function: str, x: Array, weight: Array, per: str, expected: int) -> NoReturn:
    """Raise for an input with another number of channels than the weight expects."""
    channels = x.shape[-ndim - 1]
    fix = f"Check the data, or make the layer for {channels} input channels."
    if x.shape[-1] == expected:
        fix = f"The data looks channels-last; make it channels-first with {checks.channels_first(x, ndim)}."
    elif len(x.shape) == ndim + 1 and expected == 1:
        fix = "If the first axis is the batch, add the channel axis: x[:, None]."
    axis = len(x.shape) - ndim - 1
    checks.shape_error(
        function,
        f"x has {channels} channels in axis {axis}, but weight of shape {weight.shape}{per} expects {expected}.",
        fix,
        x=x,
    )


def _require_padding(ndim: int, x: Array, padding: tuple[tuple[int, int], ...], mode: str) -> None:
    """Raise ``ShapeMismatchError`` where an axis is too short to be padded with its own elements."""
    spare = {"reflect": 1, "replicate": None, "circular": 0}[mode]
    for axis, pads in enumerate(padding, len(x.shape) - ndim):
        size, most = x.shape[axis], max(pads)
        if not most or type(size) is not int:
            continue
        if size == 0 or (spare is not None and most > size - spare):
            room = "at least 1" if spare is None else f"at least {most + spare}"
            checks.shape_error(
                f"conv{ndim}d",
                f"padding {most} with padding_mode={mode!r} takes elements of the {_KINDS[ndim]} itself, "
                f"so the size of axis {axis} must be {room}, not {size}.",
                f"Use less padding, a larger {_KINDS[ndim]} or padding_mode='zeros'.",
                x=x,
            )


@functools.partial(jax.jit, static_argnames=("geometry", "padding_mode", "onednn"))
@functools.partial(left_to_xla, divided=products)
def _conv(
    x: Array, weight: Array, bias: Array | None, *, geometry: Geometry, padding_mode: str, onednn: bool
) -> Array:  # onednn: what the form depends on belongs to the key of its trace
    ndim = weight.ndim - 2
    dtype = jnp.result_type(x, weight)
    batch = (x if x.ndim == ndim + 2 else x[None]).astype(dtype)
    if padding_mode != "zeros" and any(map(any, geometry.padding)):
        batch = jnp.pad(batch, ((0, 0), (0, 0), *geometry.padding), mode=_PAD_MODES[padding_mode])
        geometry = geometry._replace(padding=((0, 0),) * ndim)
    y = add_bias(convolve(batch, weight.astype(dtype), geometry), bias)
    return y if x.ndim == ndim + 2 else y[0]


def add_bias(y: Array, bias: Array | None) -> Array:
    """Add a number for each channel."""
    return y if bias is None else y + bias.reshape(-1, *(1,) * (y.ndim - 2))
