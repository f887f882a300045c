"""Parametrisations of weights: a norm apart from the direction, and a largest singular value of one."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any, TypeVar

import jax
import numpy as np

from .._draw import draw_array
from ..core import Buffer, Parameter, Variable
from ..core._variable import depth
from ..errors import ShapeMismatchError, StructureError
from ..functional import _checks as checks, normalize
from ..init import Initializer
from ..module import Module
from . import _args as args
from ._parametrize import is_parametrized, parametrize

if TYPE_CHECKING:
    from jaxtyping import Array, Float

Layer = TypeVar("Layer", bound=Module)


def weight_norm(module: Layer, name: str = "weight", dim: int | None = 0) -> Layer:
    r"""Let a weight be given by its length and its direction.

    .. math:: W = g \frac{v}{\lVert v \rVert}

    :math:`g` is stored as ``parametrizations.weight.original0``, :math:`v` as ``original1``; at first
    they are such that the weight is what it was. A state with the names of earlier releases of PyTorch,
    ``weight_g`` and ``weight_v``, loads too.

    Args:
        module: the layer, which is changed.
        name: the parameter.
        dim: the axis along which each slice has its own length, 0 for the outputs of ``Linear`` and
            ``Conv2d``; ``None`` or -1, as in PyTorch: one length for the whole weight.

    Returns:
        The layer.

    Raises:
        ValueError: the layer has no parameter of this name.
        ShapeMismatchError: the parameter has no axis ``dim``.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> layer = nn.weight_norm(nn.Linear(3))
        >>> layer(jnp.ones((2, 5))).shape
        (2, 3)
        >>> [(name, p.shape) for name, p in layer.named_parameters()][1:]
        [('parametrizations.weight.original0', (3, 1)), ('parametrizations.weight.original1', (3, 5))]

    Reference:
        Salimans and Kingma, "Weight Normalization", 2016; ``torch.nn.utils.parametrizations.weight_norm``.
    """
    weight = _weight_of(module, name, "weight_norm")
    if dim is not None:
        dim = None if dim == -1 else checks.axis(dim, len(weight.shape), "weight_norm")
    return parametrize(module, name, WeightNorm(dim))


def spectral_norm(
    module: Layer, name: str = "weight", n_power_iterations: int = 1, eps: float = 1e-12, dim: int | None = None
) -> Layer:
    r"""Divide a weight by its largest singular value.

    .. math:: W = \frac{V}{\sigma(V)}, \quad \sigma(V) = u^T V v

    :math:`V` is stored as ``parametrizations.weight.original``. The singular vectors :math:`u` and :math:`v` are
    buffers, which come closer to those of the present weight by power iteration whenever it is read in
    training mode. A weight of more than two axes counts as a matrix, whose rows go along ``dim``; one of
    a single axis is divided by its length. A state with the names of earlier releases of PyTorch,
    ``weight_orig``, ``weight_u`` and ``weight_v``, loads too.

    Args:
        module: the layer, which is changed.
        name: the parameter.
        n_power_iterations: the number of iterations at each reading.
        eps: the smallest length to divide by in the iterations.
        dim: the axis of the outputs; 1 for transposed convolutions, 0 for other layers, if not given.

    Returns:
        The layer.

    Raises:
        ValueError: the layer has no parameter of this name, or there are no iterations.
        ShapeMismatchError: the parameter has no axis ``dim``.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> layer = nn.spectral_norm(nn.Linear(3))
        >>> for _ in range(20):  # each call in training mode comes closer
        ...     y = layer(jnp.ones((2, 5)))
        >>> abs(float(jnp.linalg.norm(layer.weight.value, 2)) - 1) < 0.01
        True

    Reference:
        Miyato et al., "Spectral Normalization for Generative Adversarial Networks", 2018;
        ``torch.nn.utils.parametrizations.spectral_norm``.
    """
    weight = _weight_of(module, name, "spectral_norm")
    iterations = args.integer(n_power_iterations, "spectral_norm", "n_power_iterations", 1)
    eps = args.epsilon(eps, "spectral_norm")
    if dim is None:
        dim = int(any(kind.__name__.startswith("ConvTranspose") for kind in type(module).__mro__))
        dim = min(dim, len(weight.shape) - 1)
    axis = checks.axis(dim, len(weight.shape), "spectral_norm")
    return parametrize(module, name, SpectralNorm(weight, iterations, axis, eps))


def _weight_of(module: Any, name: Any, function: str) -> Any:
    if not isinstance(module, Module):
        raise TypeError(f"{function}: module must be a module, got a {type(module).__name__}.")
    if is_parametrized(module, name):
        raise ValueError(
            f"{function}: {name!r} of {type(module).__name__} is parametrised already; "
            "use nn.parametrize to add to that."
        )
    weight = module.__dict__.get(name) if isinstance(name, str) else None
    if not isinstance(weight, Variable):
        names = [n for n, v in module.__dict__.items() if isinstance(v, Variable)]
        raise ValueError(f"{function}: {type(module).__name__} has no parameter {name!r}; it has {names}.")
    if depth(weight):
        raise StructureError(
            f"{function}: {type(module).__name__} is a stack of {weight.shape[0]} modules. Call nn.{function} on each "
            "of them before they are stacked; for nn.Repeat, in the function that makes a block."
        )
    if not weight.shape:
        raise ShapeMismatchError(f"{function}: {name!r} of {type(module).__name__} is a scalar, which has no axes.")
    return weight


class WeightNorm(Module):
    """The module of :func:`weight_norm`."""

    former_suffixes = {"_g": "original0", "_v": "original1"}  # of torch.nn.utils.weight_norm

    def __init__(self, dim: int | None = 0) -> None:
        self.dim = dim

    def originals(self, weight: Variable) -> list[Variable]:
        """What to store for a weight: its lengths, and itself."""
        if weight.is_drawn:
            return [Parameter(_lengths(weight.value, self.dim), trainable=weight.trainable), weight]
        shape = self._shape_of_lengths(weight.shape)
        lengths = Parameter(shape=shape, dtype=weight.dtype, init=_Lengths(weight, self.dim))
        lengths.trainable = weight.trainable
        lengths._number = weight._number  # drawn from the same numbers, also in each of several blocks
        return [lengths, weight]

    def _shape_of_lengths(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return () if self.dim is None else tuple(n if i == self.dim else 1 for i, n in enumerate(shape))

    def complete(self, lengths: Variable, weight: Variable) -> None:
        """Fill in a size of the lengths, when the weight has got it."""
        if None in lengths.shape:
            lengths.shape = self._shape_of_lengths(weight.shape)

    def forward(self, lengths: Float[Array, "*lengths"], weight: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Give the direction its length."""
        return _with_lengths(lengths, weight, dim=self.dim)

    def right_inverse(self, weight: Float[Array, "*shape"]) -> tuple[Float[Array, "*lengths"], Float[Array, "*shape"]]:
        """Length and direction."""
        return _lengths(weight, self.dim), weight

    def recipe(self) -> tuple[str, dict[str, Any]]:
        """The function that parametrises a layer so, and its arguments."""
        return "weight_norm", {"dim": self.dim}

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class SpectralNorm(Module):
    """The module of :func:`spectral_norm`."""

    former_suffixes = {"_orig": "original", "_u": "0._u", "_v": "0._v"}  # of torch.nn.utils.spectral_norm

    def __init__(self, weight: Variable, n_power_iterations: int = 1, dim: int = 0, eps: float = 1e-12) -> None:
        self.n_power_iterations, self.dim, self.eps = n_power_iterations, dim, eps
        if len(weight.shape) < 2:
            return
        self._u = Buffer(shape=(None,), dtype=weight.dtype, init=_SingularVector(weight, dim, eps, left=True))
        self._v = Buffer(shape=(None,), dtype=weight.dtype, init=_SingularVector(weight, dim, eps, left=False))
        for vector in (self._u, self._v):
            vector._number = weight._number if weight._number is not None else self._u._number
            vector.follow(weight)
        self.complete(weight)
        if weight.is_drawn:  # it may change before they are needed
            _ = self._u.value, self._v.value

    def complete(self, weight: Variable) -> None:
        """Take the lengths of the vectors from the weight, as far as they are known."""
        shape = list(weight.shape)
        if len(shape) > 1:
            rows = shape.pop(self.dim)
            self._u.shape = (rows,)
            self._v.shape = (None if None in shape else math.prod(shape),)

    def build(self, weight: Any) -> None:
        """Take the lengths of the vectors from the weight."""
        self.complete(weight)

    def forward(self, weight: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Divide by the largest singular value, and improve the vectors in training mode."""
        if weight.ndim == 1:
            return normalize(weight, dim=0, eps=self.eps)
        steps = self.n_power_iterations if self.training else 0
        out, u, v = _spectral_norm(weight, self._u.value, self._v.value, dim=self.dim, eps=self.eps, steps=steps)
        if self.training:
            self._u.value, self._v.value = u, v
        return out

    def right_inverse(self, weight: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The weight itself, which should have a largest singular value of one."""
        return weight

    def originals(self, weight: Variable) -> list[Variable]:
        """What to store for a weight: itself."""
        return [weight]

    def recipe(self) -> tuple[str, dict[str, Any]]:
        """The function that parametrises a layer so, and its arguments."""
        return "spectral_norm", {"dim": self.dim, "n_power_iterations": self.n_power_iterations, "eps": self.eps}

    def extra_repr(self) -> str:
        return f"dim={self.dim}{args.options(self, n_power_iterations=1, eps=1e-12)}"


def _lengths(weight: Any, dim: int | None) -> Any:
    wide = weight.astype(checks.statistics_dtype(weight.dtype))
    axes = tuple(i for i in range(weight.ndim) if i != dim)
    squares = (wide * wide).sum(axes, keepdims=dim is not None)
    return (squares**0.5).astype(weight.dtype)


@functools.partial(jax.jit, static_argnames="dim")
def _with_lengths(lengths: Array, weight: Array, *, dim: int | None) -> Array:
    dtype = checks.statistics_dtype(weight.dtype)
    wide = weight.astype(dtype)
    return (wide * (lengths.astype(dtype) / _lengths(wide, dim))).astype(weight.dtype)


def _unit(vector: Any, eps: float) -> Any:
    wide = vector.astype(checks.statistics_dtype(vector.dtype))
    length = (wide * wide).sum() ** 0.5
    return (wide / length.clip(eps)).astype(vector.dtype)


def _as_matrix(weight: Any, dim: int) -> Any:
    rest = [i for i in range(weight.ndim) if i != dim]
    return weight.transpose(dim, *rest).reshape(weight.shape[dim], -1)


@functools.partial(jax.jit, static_argnames=("dim", "eps", "steps"))
def _spectral_norm(weight: Array, u: Array, v: Array, *, dim: int, eps: float, steps: int) -> tuple[Array, ...]:
    dtype = checks.statistics_dtype(weight.dtype)
    matrix = _as_matrix(weight.astype(dtype), dim)
    fixed = jax.lax.stop_gradient(matrix)
    u, v = jax.lax.stop_gradient((u.astype(dtype), v.astype(dtype)))
    for _ in range(steps):
        u = _unit(fixed @ v, eps)
        v = _unit(fixed.T @ u, eps)
    sigma = u @ (matrix @ v)
    return (weight.astype(dtype) / sigma).astype(weight.dtype), u.astype(weight.dtype), v.astype(weight.dtype)


class _OfWeight(Initializer):
    """An initializer of something that depends on the initial value of a weight."""

    def __init__(self, weight: Variable) -> None:
        self._weight = weight  # never back, as with a bias: there is no reference cycle

    @property
    def ready(self) -> bool:
        """Whether the weight can be drawn."""
        return self._weight.is_drawable or self._weight.is_drawn

    def _value(self, rng: np.random.Generator) -> np.ndarray:
        """The weight, or that one of several stacked ones whose number the generator has."""
        weight, init = self._weight, self._weight.init
        if init is None or (weight.is_drawn and not weight.stacked):
            value = np.asarray(weight.concrete())[(0,) * weight.stacked]
        else:
            shape = weight.known_shape[weight.stacked :]
            seed, stream = rng.bit_generator.state["state"]["key"]
            value = draw_array(init, seed=int(seed), stream=int(stream), shape=shape, dtype=weight.dtype)
        return value.astype(np.float32) if value.dtype.itemsize < 4 else value


class _Lengths(_OfWeight):
    """The lengths that a weight has at first."""

    def __init__(self, weight: Variable, dim: int | None) -> None:
        super().__init__(weight)
        self.dim = dim

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> Any:
        """Compute them."""
        return np.asarray(_lengths(self._value(rng), self.dim)).astype(dtype)


class _SingularVector(_OfWeight):
    """A vector close to the first singular one of a weight, from fifteen iterations."""

    def __init__(self, weight: Variable, dim: int, eps: float, left: bool) -> None:
        super().__init__(weight)
        self.dim, self.eps, self.left = dim, eps, left

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> Any:
        """Compute it; both vectors start from the same numbers, so that their signs agree."""
        matrix = _as_matrix(self._value(rng), self.dim)
        v = rng.standard_normal(matrix.shape[1]).astype(matrix.dtype)
        for _ in range(15):
            v = _unit(matrix.T @ _unit(matrix @ v, self.eps), self.eps)
        return (_unit(matrix @ v, self.eps) if self.left else v).astype(dtype)
