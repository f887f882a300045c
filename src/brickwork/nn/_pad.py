"""Layers that pad or crop."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ..functional import _checks as checks
from ..functional._pad import check_value, pad_spatial
from ..module import Module
from . import _args as args

if TYPE_CHECKING:
    from jaxtyping import Array, Shaped

    Padding = int | tuple[int, ...]

_SIDES = ("left, right", "left, right, top, bottom", "left, right, top, bottom, front, back")


class _Pad(Module):
    _ndim: ClassVar[int]
    _mode: ClassVar[str]
    value: float | None = None

    def __init__(self, padding: Padding) -> None:
        name = type(self).__name__
        if not isinstance(padding, (tuple, list)):
            self.padding = args.integer(padding, name, "padding")
        elif len(padding) == 2 * self._ndim:
            self.padding = tuple(args.integer(p, name, "padding") for p in padding)
        else:
            raise ValueError(f"{name}: padding must be an int or ({_SIDES[self._ndim - 1]}), got {padding!r}.")

    def forward(self, x: Shaped[Array, "*n_c_spatial"]) -> Shaped[Array, "*n_c_padded"]:
        """Pad."""
        name = type(self).__name__
        checks.shape_of(x, name)
        checks.require_spatial(x, self._ndim, name)
        padding = self.padding if isinstance(self.padding, tuple) else (self.padding,) * (2 * self._ndim)
        return pad_spatial(name, x, padding, self._mode, self.value)

    def extra_repr(self) -> str:
        return f"padding={self.padding}"


class _ConstantPad(_Pad):
    _mode = "constant"

    def __init__(self, padding: Padding, value: float) -> None:
        super().__init__(padding)
        self.value = check_value(value, type(self).__name__)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, value={self.value}"


class _ZeroPad(_Pad):
    _mode = "constant"


class _ReflectionPad(_Pad):
    _mode = "reflect"


class _ReplicationPad(_Pad):
    _mode = "replicate"


class _CircularPad(_Pad):
    _mode = "circular"


class ConstantPad1d(_ConstantPad):
    r"""Add a number at the ends of sequences.

    Args:
        padding: how many elements to add on all sides, or ``(left, right)``.
            Negative numbers take elements away.
        value: the number.

    Shape:
        ``(N, C, L)`` to ``(N, C, LO)``, or the same without ``N``, with
        ``LO = L + left + right``.

    Raises:
        ShapeMismatchError: wrong number of axes.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> nn.ConstantPad1d((2, 1), 7.0)(jnp.array([[1.0, 2.0]])).tolist()
        [[7.0, 7.0, 1.0, 2.0, 7.0]]

    Reference:
        ``torch.nn.ConstantPad1d``.
    """

    _ndim = 1


class ConstantPad2d(_ConstantPad):
    r"""Add a number at the ends of images.

    Args:
        padding: how many elements to add on all sides, or ``(left, right, top, bottom)``.
            Negative numbers take elements away.
        value: the number.

    Shape:
        ``(N, C, H, W)`` to ``(N, C, HO, WO)``, or the same without ``N``, with
        ``HO = H + top + bottom`` and ``WO = W + left + right``.

    Raises:
        ShapeMismatchError: wrong number of axes.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> nn.ConstantPad2d(1, 0.5)(jnp.ones((1, 3, 4, 4))).shape
        (1, 3, 6, 6)

    Reference:
        ``torch.nn.ConstantPad2d``.
    """

    _ndim = 2


class ConstantPad3d(_ConstantPad):
    r"""Add a number at the ends of volumes.

    Args:
        padding: how many elements to add on all sides, or ``(left, right, top, bottom, front, back)``.
            Negative numbers take elements away.
        value: the number.

    Shape:
        ``(N, C, D, H, W)`` to ``(N, C, DO, HO, WO)``, or the same without ``N``, with
        ``DO = D + front + back``.

    Raises:
        ShapeMismatchError: wrong number of axes.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> nn.ConstantPad3d(1, 0.5)(jnp.ones((1, 3, 2, 4, 4))).shape
        (1, 3, 4, 6, 6)

    Reference:
        ``torch.nn.ConstantPad3d``.
    """

    _ndim = 3


class ZeroPad1d(_ZeroPad):
    r"""Add zeros at the ends of sequences.

    Args:
        padding: how many elements to add on all sides, or ``(left, right)``.
            Negative numbers take elements away.

    Shape:
        ``(N, C, L)`` to ``(N, C, LO)``, or the same without ``N``, with
        ``LO = L + left + right``.

    Raises:
        ShapeMismatchError: wrong number of axes.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> nn.ZeroPad1d((2, 1))(jnp.array([[1.0, 2.0]])).tolist()
        [[0.0, 0.0, 1.0, 2.0, 0.0]]

    Reference:
        ``torch.nn.ZeroPad1d``.
    """

    _ndim = 1


class ZeroPad2d(_ZeroPad):
    r"""Add zeros at the ends of images.

    Args:
        padding: how many elements to add on all sides, or ``(left, right, top, bottom)``.
            Negative numbers take elements away.

    Shape:
        ``(N, C, H, W)`` to ``(N, C, HO, WO)``, or the same without ``N``, with
        ``HO = H + top + bottom`` and ``WO = W + left + right``.

    Raises:
        ShapeMismatchError: wrong number of axes.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> nn.ZeroPad2d((1, 1, 2, 0))(jnp.ones((1, 3, 4, 4))).shape
        (1, 3, 6, 6)

    Reference:
        ``torch.nn.ZeroPad2d``.
    """

    _ndim = 2


class ZeroPad3d(_ZeroPad):
    r"""Add zeros at the ends of volumes.

    Args:
        padding: how many elements to add on all sides, or ``(left, right, top, bottom, front, back)``.
            Negative numbers take elements away.

    Shape:
        ``(N, C, D, H, W)`` to ``(N, C, DO, HO, WO)``, or the same without ``N``, with
        ``DO = D + front + back``.

    Raises:
        ShapeMismatchError: wrong number of axes.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> nn.ZeroPad3d(1)(jnp.ones((1, 3, 2, 4, 4))).shape
        (1, 3, 4, 6, 6)

    Reference:
        ``torch.nn.ZeroPad3d``.
    """

    _ndim = 3


class ReflectionPad1d(_ReflectionPad):
    r"""Continue sequences by their mirror image, without repeating the first and last elements.

    Args:
        padding: how many elements to add on all sides, or ``(left, right)``.
            Negative numbers take elements away. Less than the size.

    Shape:
        ``(N, C, L)`` to ``(N, C, LO)``, or the same without ``N``, with
        ``LO = L + left + right``.

    Raises:
        ShapeMismatchError: wrong number of axes, or a sequence too short for the padding.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> nn.ReflectionPad1d(2)(jnp.array([[1.0, 2.0, 3.0]])).tolist()
        [[3.0, 2.0, 1.0, 2.0, 3.0, 2.0, 1.0]]

    Reference:
        ``torch.nn.ReflectionPad1d``.
    """

    _ndim = 1


class ReflectionPad2d(_ReflectionPad):
    r"""Continue images by their mirror image, without repeating the first and last elements.

    Args:
        padding: how many elements to add on all sides, or ``(left, right, top, bottom)``.
            Negative numbers take elements away. Less than the size.

    Shape:
        ``(N, C, H, W)`` to ``(N, C, HO, WO)``, or the same without ``N``, with
        ``HO = H + top + bottom`` and ``WO = W + left + right``.

    Raises:
        ShapeMismatchError: wrong number of axes, or an image too small for the padding.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> nn.ReflectionPad2d(1)(jnp.ones((1, 3, 4, 4))).shape
        (1, 3, 6, 6)

    Reference:
        ``torch.nn.ReflectionPad2d``.
    """

    _ndim = 2


class ReflectionPad3d(_ReflectionPad):
    r"""Continue volumes by their mirror image, without repeating the first and last elements.

    Args:
        padding: how many elements to add on all sides, or ``(left, right, top, bottom, front, back)``.
            Negative numbers take elements away. Less than the size.

    Shape:
        ``(N, C, D, H, W)`` to ``(N, C, DO, HO, WO)``, or the same without ``N``, with
        ``DO = D + front + back``.

    Raises:
        ShapeMismatchError: wrong number of axes, or a volume too short for the padding.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> nn.ReflectionPad3d(1)(jnp.ones((1, 3, 2, 4, 4))).shape
        (1, 3, 4, 6, 6)

    Reference:
        ``torch.nn.ReflectionPad3d``.
    """

    _ndim = 3


class ReplicationPad1d(_ReplicationPad):
    r"""Continue sequences by their first and last elements.

    Args:
        padding: how many elements to add on all sides, or ``(left, right)``.
            Negative numbers take elements away.

    Shape:
        ``(N, C, L)`` to ``(N, C, LO)``, or the same without ``N``, with
        ``LO = L + left + right``.

    Raises:
        ShapeMismatchError: wrong number of axes.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> nn.ReplicationPad1d(2)(jnp.array([[1.0, 2.0, 3.0]])).tolist()
        [[1.0, 1.0, 1.0, 2.0, 3.0, 3.0, 3.0]]

    Reference:
        ``torch.nn.ReplicationPad1d``.
    """

    _ndim = 1


class ReplicationPad2d(_ReplicationPad):
    r"""Continue images by their first and last elements.

    Args:
        padding: how many elements to add on all sides, or ``(left, right, top, bottom)``.
            Negative numbers take elements away.

    Shape:
        ``(N, C, H, W)`` to ``(N, C, HO, WO)``, or the same without ``N``, with
        ``HO = H + top + bottom`` and ``WO = W + left + right``.

    Raises:
        ShapeMismatchError: wrong number of axes.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> nn.ReplicationPad2d(1)(jnp.ones((1, 3, 4, 4))).shape
        (1, 3, 6, 6)

    Reference:
        ``torch.nn.ReplicationPad2d``.
    """

    _ndim = 2


class ReplicationPad3d(_ReplicationPad):
    r"""Continue volumes by their first and last elements.

    Args:
        padding: how many elements to add on all sides, or ``(left, right, top, bottom, front, back)``.
            Negative numbers take elements away.

    Shape:
        ``(N, C, D, H, W)`` to ``(N, C, DO, HO, WO)``, or the same without ``N``, with
        ``DO = D + front + back``.

    Raises:
        ShapeMismatchError: wrong number of axes.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> nn.ReplicationPad3d(1)(jnp.ones((1, 3, 2, 4, 4))).shape
        (1, 3, 4, 6, 6)

    Reference:
        ``torch.nn.ReplicationPad3d``.
    """

    _ndim = 3


class CircularPad1d(_CircularPad):
    r"""Continue sequences by their other ends, as if they closed to a circle.

    Args:
        padding: how many elements to add on all sides, or ``(left, right)``.
            Negative numbers take elements away. At most the size.

    Shape:
        ``(N, C, L)`` to ``(N, C, LO)``, or the same without ``N``, with
        ``LO = L + left + right``.

    Raises:
        ShapeMismatchError: wrong number of axes, or a sequence too short for the padding.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> nn.CircularPad1d(2)(jnp.array([[1.0, 2.0, 3.0]])).tolist()
        [[2.0, 3.0, 1.0, 2.0, 3.0, 1.0, 2.0]]

    Reference:
        ``torch.nn.CircularPad1d``.
    """

    _ndim = 1


class CircularPad2d(_CircularPad):
    r"""Continue images by their other ends, as if they closed to a circle.

    Args:
        padding: how many elements to add on all sides, or ``(left, right, top, bottom)``.
            Negative numbers take elements away. At most the size.

    Shape:
        ``(N, C, H, W)`` to ``(N, C, HO, WO)``, or the same without ``N``, with
        ``HO = H + top + bottom`` and ``WO = W + left + right``.

    Raises:
        ShapeMismatchError: wrong number of axes, or an image too small for the padding.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> nn.CircularPad2d(1)(jnp.ones((1, 3, 4, 4))).shape
        (1, 3, 6, 6)

    Reference:
        ``torch.nn.CircularPad2d``.
    """

    _ndim = 2


class CircularPad3d(_CircularPad):
    r"""Continue volumes by their other ends, as if they closed to a circle.

    Args:
        padding: how many elements to add on all sides, or ``(left, right, top, bottom, front, back)``.
            Negative numbers take elements away. At most the size.

    Shape:
        ``(N, C, D, H, W)`` to ``(N, C, DO, HO, WO)``, or the same without ``N``, with
        ``DO = D + front + back``.

    Raises:
        ShapeMismatchError: wrong number of axes, or a volume too short for the padding.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> nn.CircularPad3d(1)(jnp.ones((1, 3, 2, 4, 4))).shape
        (1, 3, 4, 6, 6)

    Reference:
        ``torch.nn.CircularPad3d``.
    """

    _ndim = 3
