"""The kinds of variables: parameters, buffers, slots."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from ..errors import ShapeMismatchError
from ._arrays import Shape, as_array, show_shape
from ._epoch import bump
from ._frame import leak, local
from ._jax import Tracer
from ._variable import Variable

if TYPE_CHECKING:
    from typing import Self


_serials = itertools.count()


class Parameter(Variable):
    """A variable that is trained.

    Args:
        value, shape, dtype, init: as for :class:`Variable`. Without ``init``, a parameter of two or
            more dimensions is drawn from U(-1/sqrt(fan_in), 1/sqrt(fan_in)), others are zeros.
        trainable: ``False`` keeps it out of gradients and optimisers.

    Raises:
        TypeError: a trainable parameter of integers.

    Example:
        >>> import brickwork as bw
        >>> p = bw.Parameter(shape=(3, None), init=bw.init.ones)
        >>> p.shape
        (3, None)
        >>> p.shape = (None, 2)
        >>> p.value.shape
        (3, 2)
    """

    __slots__ = ("_grad", "_serial")

    def __init__(
        self,
        value: Any = None,
        *,
        shape: Any = None,
        dtype: Any = None,
        init: Any = None,
        trainable: bool = True,
    ) -> None:
        super().__init__(value, shape=shape, dtype=dtype, init=init)
        if trainable:
            _require_trainable(self._dtype)
        self._trainable = bool(trainable)

    def _setup(self) -> None:
        super()._setup()
        self._grad: Slot | None = None
        self._serial: int | None = None

    def _accept(self, new: Any) -> Any:
        known: Shape = self._shape if self._value is None else self.shape
        if len(known) != new.ndim or any(a is not None and a != b for a, b in zip(known, new.shape, strict=True)):
            raise ShapeMismatchError(
                f"{self.described()} has shape {show_shape(known)}, got a value of shape {new.shape}. "
                "Transpose or reshape the value, or assign a new Parameter to the attribute."
            )
        if self._trainable and not jnp.issubdtype(new.dtype, jnp.inexact):
            new = new.astype(self.dtype)  # integers can't be trained
        return new

    @property
    def any_name(self) -> str:
        """The ``name``, or for a parameter outside of any module one that no other such parameter has."""
        if self.name:
            return self.name
        if self._serial is None:
            self._serial = next(_serials)
        return f"parameter{self._serial}"

    @property
    def trainable(self) -> bool:
        """Whether gradients and optimisers take this parameter into account."""
        return self._trainable

    @trainable.setter
    def trainable(self, flag: bool) -> None:
        if flag == self._trainable:
            return
        if flag:
            _require_trainable(self._dtype)
        self._trainable = bool(flag)
        bump()

    @property
    def grad(self) -> Any:
        """The gradient that :func:`brickwork.backward` has added up; ``None`` before."""
        if self._grad is None:
            if local.context.frame is None:
                return None
            self._grad = Slot.outlasting()
        return self._grad.value

    @grad.setter
    def grad(self, new: Any) -> None:
        if new is not None:
            new = self._accept(as_array(new, self))
        if self._grad is None:
            if new is None:
                return
            self._grad = Slot.outlasting()
        self._grad.value = new


def _require_trainable(dtype: Any) -> None:
    if not jnp.issubdtype(dtype, jnp.inexact):
        raise TypeError(f"Parameter: dtype {dtype} can't be trained; use bw.Buffer, or pass trainable=False")


class Buffer(Variable):
    """State that isn't trained: running statistics, caches, constants, the state of an optimiser.

    Args:
        value, shape, dtype, init: as for :class:`Variable`; a shape without ``init`` gives zeros.
        persistent: whether it belongs to the ``state_dict`` and to saved files.

    Example:
        >>> import brickwork as bw
        >>> import jax.numpy as jnp
        >>> b = bw.Buffer(jnp.zeros(3))
        >>> b += 1
        >>> b.value
        Array([1., 1., 1.], dtype=float32)
    """

    __slots__ = ("persistent",)

    def __init__(
        self,
        value: Any = None,
        *,
        shape: Any = None,
        dtype: Any = None,
        init: Any = None,
        persistent: bool = True,
    ) -> None:
        if shape is not None and init is None:
            init = 0
        super().__init__(value, shape=shape, dtype=dtype, init=init)
        self.persistent = persistent

    def _setup(self) -> None:
        super()._setup()
        self.persistent = True

    def _settings(self) -> dict[str, Any]:
        return super()._settings() | {"persistent": self.persistent}


class Slot(Buffer):
    """A buffer that may be empty, and may hold a nest of arrays: a gradient, a captured output."""

    __slots__ = ()

    @classmethod
    def outlasting(cls) -> Self:
        """An empty slot that outlives the trace it is made in."""
        new = object.__new__(cls)
        new._setup()
        new.persistent = False
        new._trace = None
        return new

    @property
    def value(self) -> Any:
        """The contents, or ``None``."""
        context = local.context
        if context.frame is not None:
            return context.frame.read(self)
        self.lend()
        return self._value

    @value.setter
    def value(self, new: Any) -> None:
        self._store(new)
        self.lend()

    def _store(self, new: Any) -> None:
        if local.context.frame is None:
            if any(isinstance(x, Tracer) for x in jax.tree_util.tree_leaves(new)):
                raise leak(self, "a raw JAX transform")
            if (self._value is None) != (new is None):
                bump()
            self._value = new
        else:
            super()._store(new)

    def concrete(self) -> Any:
        return self._value

    @property
    def is_drawable(self) -> bool:
        return False
