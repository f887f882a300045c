"""Layers that pool windows at random distances."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import jax.numpy as jnp

from ..core import Buffer, next_key
from ..functional import _checks as checks, fractional_max_pool2d, fractional_max_pool3d
from ..functional._pool_fractional import check_output
from ..module import Module
from . import _args as args

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Num

    from ..functional._types import ArrayLike

    Sizes = int | tuple[int, ...]
    Ratios = float | tuple[float, ...]


class _FractionalMaxPool(Module):
    uses_random = True
    _ndim: ClassVar[int]
    _pool: ClassVar[Callable[..., Any]]

    def __init__(
        self,
        kernel_size: Sizes,
        output_size: Sizes | None = None,
        output_ratio: Ratios | None = None,
        return_indices: bool = False,
        _random_samples: Float[ArrayLike, "n c axes"] | None = None,
    ) -> None:
        name = type(self).__name__
        self.kernel_size = args.sizes_or_int(kernel_size, self._ndim, name, "kernel_size")
        sizes, ratios = check_output(output_size, output_ratio, self._ndim, name)
        self.output_size = sizes and (sizes if isinstance(output_size, (tuple, list)) else sizes[0])
        self.output_ratio = ratios and (ratios if isinstance(output_ratio, (tuple, list)) else ratios[0])
        self.return_indices = args.flag(return_indices, name, "return_indices")
        given = checks.optional_array(_random_samples, name, "_random_samples")
        self._random_samples = None if given is None else Buffer(jnp.asarray(given))

    def forward(self, x: Num[Array, "*n_c_spatial"]) -> Any:
        """Draw the windows in training mode, and take the maxima."""
        options = (self.kernel_size, self.output_size, self.output_ratio, self.return_indices)
        if self._random_samples is not None:
            return self._pool(x, *options, self._random_samples)
        if self.training:
            return self._pool(x, *options, key=next_key())
        checks.shape_of(x, type(self).__name__)
        checks.require_spatial(x, self._ndim, type(self).__name__)
        channels = x.shape[: -self._ndim]
        shape = channels if len(channels) == 2 else (1, *channels)
        return self._pool(x, *options, jnp.full((*shape, self._ndim), 0.5, jnp.float32))

    def extra_repr(self) -> str:
        rest = args.options(self, output_size=None, output_ratio=None, return_indices=False)
        return f"kernel_size={self.kernel_size}{rest}"


class FractionalMaxPool2d(_FractionalMaxPool):
    r"""Largest value of windows whose distances are random, one sequence for each channel and axis.

    Along an axis of ``S`` elements, with ``O`` windows of ``K`` elements and a random number ``u``
    from ``[0, 1)``, window ``i`` starts at

    .. math:: \lfloor \alpha (i + u) \rfloor - \lfloor \alpha u \rfloor, \quad
        \alpha = \frac{S - K}{O - 1},

    and the last one at :math:`S - K`. Random numbers come from the stream that ``bw.seed`` sets. In
    evaluation mode, ``u`` is 1/2 everywhere.

    Args:
        kernel_size: size of the window; an int or a pair (height, width), as below.
        output_size: number of windows along each axis.
        output_ratio: the same as a fraction of the image, between 0 and 1; give one of the two.
        return_indices: also return the index of each maximum into its flattened channel, for ``nn.MaxUnpool2d``.
        _random_samples: the numbers ``u`` to use always, ``(N, C, 2)``: for the width first, then for
            the height.

    Shape:
        ``(N, C, H, W)`` to ``(N, C, HO, WO)``, the given sizes, or the same without ``N``.

    Raises:
        ShapeMismatchError: wrong number of axes, or more windows than fit into the image.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> nn.FractionalMaxPool2d(2, output_ratio=0.7)(jnp.ones((1, 8, 9, 9))).shape
        (1, 8, 6, 6)

    Reference:
        Graham, "Fractional Max-Pooling", 2014; ``torch.nn.FractionalMaxPool2d``, which draws in
        evaluation mode too.
    """

    _ndim = 2
    _pool = staticmethod(fractional_max_pool2d)


class FractionalMaxPool3d(_FractionalMaxPool):
    r"""Largest value of windows whose distances are random, in volumes.

    The windows lie as in ``nn.FractionalMaxPool2d``. Random numbers come from the stream that
    ``bw.seed`` sets. In evaluation mode, they are 1/2 everywhere.

    Args:
        kernel_size: size of the window; an int or a triple (depth, height, width), as below.
        output_size: number of windows along each axis.
        output_ratio: the same as a fraction of the volume, between 0 and 1; give one of the two.
        return_indices: also return the index of each maximum into its flattened channel, for ``nn.MaxUnpool3d``.
        _random_samples: the random numbers to use always, ``(N, C, 3)``: for the depth, the height and
            the width.

    Shape:
        ``(N, C, D, H, W)`` to ``(N, C, DO, HO, WO)``, the given sizes, or the same without ``N``.

    Raises:
        ShapeMismatchError: wrong number of axes, or more windows than fit into the volume.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> nn.FractionalMaxPool3d(2, output_size=3)(jnp.ones((1, 8, 5, 5, 5))).shape
        (1, 8, 3, 3, 3)

    Reference:
        Graham, "Fractional Max-Pooling", 2014; ``torch.nn.FractionalMaxPool3d``, which draws in
        evaluation mode too.
    """

    _ndim = 3
    _pool = staticmethod(fractional_max_pool3d)
