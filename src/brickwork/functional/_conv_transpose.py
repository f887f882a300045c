"""Transposed convolution."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from .._onednn import chosen
from . import _checks as checks
from ._conv import add_bias, kernel_arrays, require_bias, wrong_input_channels
from ._conv_forms import Geometry
from ._conv_phases import transpose
from ._explicit import left_to_xla

if TYPE_CHECKING:
    from jaxtyping import Array, Float

    from ._types import ArrayLike


def conv_transpose1d(
    x: Float[ArrayLike, "*n c l"],
    weight: Float[ArrayLike, "c out_per_group k"],
    bias: Float[ArrayLike, " out"] | None = None,
    stride: int | tuple[int] = 1,
    padding: int | tuple[int] = 0,
    output_padding: int | tuple[int] = 0,
    groups: int = 1,
    dilation: int | tuple[int] = 1,
) -> Float[Array, "*n out lo"]:
    r"""Add up kernels along sequences, each multiplied by an input: the transpose of :func:`conv1d`.

    .. math:: y_{n,o,\, s i + d u - p} = b_o + \sum_{c,i,u} W_{c,o,u} \, x_{n,c,i}

    Args:
        x: sequences ``(N, C, L)``, or one sequence ``(C, L)``.
        weight: kernels ``(C, O / groups, K)``.
        bias: ``(O,)``, or ``None``.
        stride: the step between the kernels in the output.
        padding: how many elements of the output are left out on each side.
        output_padding: how many elements the output has more at its end; less than ``stride`` or
            ``dilation``.
        groups: the number of parts into which the channels are split, each of which gives its own
            ``O / groups`` channels.
        dilation: the step between the elements of a kernel in the output.

    Returns:
        Array of shape ``(N, O, LO)`` or ``(O, LO)``, with
        ``LO = (L - 1) * stride - 2 * padding + dilation * (K - 1) + output_padding + 1``.

    Raises:
        ShapeMismatchError: the shapes do not fit, or nothing is left of the output.
        TypeError: an argument is not an array, or ``x`` holds integers and ``weight`` floats.
        ValueError: an option is out of range.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> F.conv_transpose1d(jnp.array([[1.0, 2.0]]), jnp.array([[[1.0, 10.0]]]), stride=2).tolist()
        [[1.0, 10.0, 2.0, 20.0]]

    Reference:
        ``torch.nn.functional.conv_transpose1d``.
    """
    return conv_transpose_nd(1, x, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose2d(
    x: Float[ArrayLike, "*n c h w"],
    weight: Float[ArrayLike, "c out_per_group kh kw"],
    bias: Float[ArrayLike, " out"] | None = None,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    output_padding: int | tuple[int, int] = 0,
    groups: int = 1,
    dilation: int | tuple[int, int] = 1,
) -> Float[Array, "*n out ho wo"]:
    r"""Add up kernels over images, each multiplied by an input: the transpose of :func:`conv2d`.

    .. math:: y_{n,o,\, s i + d u - p,\, s j + d v - p} = b_o + \sum_{c,i,j,u,v} W_{c,o,u,v} \, x_{n,c,i,j}

    Args:
        x: images ``(N, C, H, W)``, or one image ``(C, H, W)``.
        weight: kernels ``(C, O / groups, KH, KW)``.
        bias: ``(O,)``, or ``None``.
        stride: the step between the kernels in the output; an int or a pair (height, width), as below.
        padding: how many rows and columns of the output are left out on each side.
        output_padding: how many rows and columns the output has more at its end; less than
            ``stride`` or ``dilation``.
        groups: the number of parts into which the channels are split, each of which gives its own
            ``O / groups`` channels.
        dilation: the step between the elements of a kernel in the output.

    Returns:
        Array of shape ``(N, O, HO, WO)`` or ``(O, HO, WO)``, with
        ``HO = (H - 1) * stride - 2 * padding + dilation * (KH - 1) + output_padding + 1``.

    Raises:
        ShapeMismatchError: the shapes do not fit, or nothing is left of the output.
        TypeError: an argument is not an array, or ``x`` holds integers and ``weight`` floats.
        ValueError: an option is out of range.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> x, weight = jnp.ones((1, 8, 7, 7)), jnp.ones((8, 4, 4, 4))
        >>> F.conv_transpose2d(x, weight, stride=2, padding=1).shape
        (1, 4, 14, 14)

    Reference:
        ``torch.nn.functional.conv_transpose2d``.
    """
    return conv_transpose_nd(2, x, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose3d(
    x: Float[ArrayLike, "*n c d h w"],
    weight: Float[ArrayLike, "c out_per_group kd kh kw"],
    bias: Float[ArrayLike, " out"] | None = None,
    stride: int | tuple[int, int, int] = 1,
    padding: int | tuple[int, int, int] = 0,
    output_padding: int | tuple[int, int, int] = 0,
    groups: int = 1,
    dilation: int | tuple[int, int, int] = 1,
) -> Float[Array, "*n out do ho wo"]:
    r"""Add up kernels in volumes, each multiplied by an input: the transpose of :func:`conv3d`.

    .. math:: y_{n,o,\, s i + d t - p,\, s j + d u - p,\, s k + d v - p} =
        b_o + \sum_{c,i,j,k,t,u,v} W_{c,o,t,u,v} \, x_{n,c,i,j,k}

    Args:
        x: volumes ``(N, C, D, H, W)``, or one volume ``(C, D, H, W)``.
        weight: kernels ``(C, O / groups, KD, KH, KW)``.
        bias: ``(O,)``, or ``None``.
        stride: the step between the kernels in the output; an int or a triple (depth, height, width),
            as below.
        padding: how many elements of the output are left out on each side.
        output_padding: how many elements the output has more at its ends; less than ``stride`` or
            ``dilation``.
        groups: the number of parts into which the channels are split, each of which gives its own
            ``O / groups`` channels.
        dilation: the step between the elements of a kernel in the output.

    Returns:
        Array of shape ``(N, O, DO, HO, WO)`` or ``(O, DO, HO, WO)``, with
        ``DO = (D - 1) * stride - 2 * padding + dilation * (KD - 1) + output_padding + 1``.

    Raises:
        ShapeMismatchError: the shapes do not fit, or nothing is left of the output.
        TypeError: an argument is not an array, or ``x`` holds integers and ``weight`` floats.
        ValueError: an option is out of range.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> F.conv_transpose3d(jnp.ones((1, 8, 2, 7, 7)), jnp.ones((8, 4, 2, 2, 2)), stride=2).shape
        (1, 4, 4, 14, 14)

    Reference:
        ``torch.nn.functional.conv_transpose3d``.
    """
    return conv_transpose_nd(3, x, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose_nd(
    ndim: int,
    x: Any,
    weight: Any,
    bias: Any,
    stride: Any,
    padding: Any,
    output_padding: Any,
    groups: Any,
    dilation: Any,
) -> Array:
    """Convolve backwards along ``ndim`` axes."""
    function = f"conv_transpose{ndim}d"
    x, weight, bias = kernel_arrays(ndim, function, x, weight, bias, "in, out")
    kernel = weight.shape
    g, extra = checks.cached(_geometry, ndim, stride, padding, output_padding, groups, dilation)
    if kernel[0] % g.groups:
        checks.shape_error(
            function,
            f"groups={g.groups} must divide the {kernel[0]} input channels of weight.",
            "Change groups or the number of input channels.",
            weight=weight,
        )
    if x.shape[-ndim - 1] != kernel[0]:
        wrong_input_channels(ndim, function, x, weight, "", kernel[0])
    smallest = output_sizes(x.shape[-ndim:], kernel[2:], g)
    out = tuple(n + e for n, e in zip(smallest, extra, strict=True))
    if any(type(n) is int and n < 1 for n in out):
        checks.shape_error(
            function,
            f"nothing is left of an output of size {' x '.join(map(str, out))}.",
            "Use less padding, a larger kernel or a larger input.",
            x=x,
        )
    require_bias(bias, kernel[1] * g.groups, weight, function)
    if x.dtype != weight.dtype:
        checks.require_castable(x, weight, function)
    return _conv_transpose(x, weight, bias, geometry=g, out=out, onednn=chosen())


def output_sizes(sizes: tuple[int, ...], kernel: tuple[int, ...], g: Geometry) -> tuple[int, ...]:
    """Return the size of the output along each spatial axis, without ``output_padding``."""
    return tuple(
        (size - 1) * s - sum(p) + d * (k - 1) + 1
        for size, k, s, p, d in zip(sizes, kernel, g.stride, g.padding, g.dilation, strict=True)
    )


@functools.lru_cache(maxsize=1024, typed=True)
def _geometry(
    ndim: int, stride: Any, padding: Any, output_padding: Any, groups: Any, dilation: Any
) -> tuple[Geometry, tuple[int, ...]]:
    """Check the options, and return them for each axis."""
    return transposed_geometry(ndim, f"conv_transpose{ndim}d", stride, padding, output_padding, groups, dilation)


def transposed_geometry(
    ndim: int, function: str, stride: Any, padding: Any, output_padding: Any, groups: Any, dilation: Any
) -> tuple[Geometry, tuple[int, ...]]:
    """Check the options of a function or layer, and return them for each axis, and the output's padding."""
    strides = checks.sizes(stride, ndim, function, "stride")
    pads = checks.sizes(padding, ndim, function, "padding", 0)
    extra = checks.sizes(output_padding, ndim, function, "output_padding", 0)
    dilations = checks.sizes(dilation, ndim, function, "dilation")
    if any(e >= max(s, d) for e, s, d in zip(extra, strides, dilations, strict=True)):
        raise ValueError(
            f"{function}: output_padding must be less than stride or dilation, "
            f"got output_padding={output_padding}, stride={stride}, dilation={dilation}."
        )
    groups = checks.integer(groups, function, "groups", 1)
    return Geometry(strides, tuple((p, p) for p in pads), dilations, groups), extra


def padding_for(
    layer: str, x: Any, output_size: Any, kernel: tuple[int, ...], stride: Any, padding: Any, dilation: Any
) -> tuple[int, ...]:
    """Return the ``output_padding`` that gives an output of this size."""
    ndim = len(kernel)
    shape = checks.shape_of(x, layer)
    rank = len(shape)
    if not isinstance(output_size, (tuple, list)):
        raise TypeError(f"{layer}: output_size must be a tuple of sizes, got {type(output_size).__name__}.")
    if len(output_size) not in (ndim, rank):
        raise ValueError(f"{layer}: output_size must have {ndim} or {rank} sizes, got {output_size!r}.")
    wanted = tuple(checks.integer(n, layer, "output_size") for n in output_size[-ndim:])
    g, _ = transposed_geometry(ndim, layer, stride, padding, 0, 1, dilation)
    smallest = output_sizes(shape[-ndim:], kernel, g)
    extra = tuple(n - least for n, least in zip(wanted, smallest, strict=True))
    if any(not 0 <= e < s for e, s in zip(extra, g.stride, strict=True)):
        ranges = ", ".join(f"{n} to {n + s - 1}" for n, s in zip(smallest, g.stride, strict=True))
        raise ValueError(
            f"{layer}: output_size {wanted} is out of reach of an input of size {tuple(shape[-ndim:])}, "
            f"which gives sizes from {ranges}."
        )
    return extra


@functools.partial(jax.jit, static_argnames=("geometry", "out", "onednn"))
@left_to_xla
def _conv_transpose(
    x: Array, weight: Array, bias: Array | None, *, geometry: Geometry, out: tuple[int, ...], onednn: bool
) -> Array:  # onednn: what the form depends on belongs to the key of its trace
    ndim = weight.ndim - 2
    dtype = jnp.result_type(x, weight)
    batch = (x if x.ndim == ndim + 2 else x[None]).astype(dtype)
    y = add_bias(transpose(batch, weight.astype(dtype), geometry, out), bias)
    return y if x.ndim == ndim + 2 else y[0]
