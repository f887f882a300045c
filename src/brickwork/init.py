"""How parameters get their initial values.

Pass one of these as ``init=`` to a ``Parameter`` or to ``net.initialize``; a class that needs no
arguments may be passed as it is (``init.zeros``). Numbers and JAX-style functions
``fn(key, shape, dtype)``, all of ``jax.nn.initializers`` for example, are accepted there as well.
To write your own, subclass :class:`Initializer` and define ``draw``.

Shapes are in PyTorch's order, ``(out, in, *kernel)``, and the distributions are those of
``torch.nn.init``. Values depend on ``bw.seed``, on the parameter's number and on its shape, never
on devices. A complex parameter gets independent real and imaginary parts, each with half of the
variance.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ._draw import (
    ElementwiseInitializer as ElementwiseInitializer,
    Initializer as Initializer,
    Shape,
    as_initializer as as_initializer,
    constant as constant,
    current_parameter as current_name,
    subject,
)
from ._elsewhere import unknown_in as _unknown_in
from ._init_base import (
    Scaled,
    calculate_gain as calculate_gain,
    fan_in_and_out,
    fans as fans,
    finite,
    has_weight,
    interval,
    not_negative,
    require_float,
    standard,
    truncated,
    working_dtype,
)
from .errors import ShapeMismatchError

__all__ = [
    "ElementwiseInitializer",
    "Initializer",
    "as_initializer",
    "calculate_gain",
    "constant",
    "current_name",
    "dirac",
    "eye",
    "fans",
    "kaiming_normal",
    "kaiming_uniform",
    "lecun_normal",
    "lecun_uniform",
    "normal",
    "ones",
    "orthogonal",
    "sparse",
    "truncated_normal",
    "uniform",
    "xavier_normal",
    "xavier_uniform",
    "zeros",
]


class zeros(ElementwiseInitializer):
    """Every element is 0.

    Example:
        >>> import numpy as np
        >>> from brickwork import init
        >>> init.zeros().draw(np.random.default_rng(0), (2,), np.float32)
        array([0., 0.], dtype=float32)
    """

    def fill_value(self, dtype: Any) -> int:
        """Zero."""
        return 0


class ones(ElementwiseInitializer):
    """Every element is 1.

    Example:
        >>> import numpy as np
        >>> from brickwork import init
        >>> init.ones().draw(np.random.default_rng(0), (2,), np.float32)
        array([1., 1.], dtype=float32)
    """

    def fill_value(self, dtype: Any) -> int:
        """One."""
        return 1


class normal(ElementwiseInitializer):
    """Normal distribution, N(mean, std**2).

    Args:
        std: standard deviation. It comes first, since it is the one that is usually given; in
            ``torch.nn.init.normal_`` the mean does.
        mean: expected value.

    Raises:
        ValueError: ``std`` is negative, or it is 0 and ``mean`` isn't, as with arguments in the other order.

    Example:
        >>> import numpy as np
        >>> from brickwork import init
        >>> bool(init.normal(0.01).draw(np.random.default_rng(0), (64, 64), np.float32).std() < 0.011)
        True
    """

    def __init__(self, std: float = 1.0, mean: float = 0.0) -> None:
        self.std = not_negative("normal", "std", std)
        self.mean = finite("normal", "mean", mean)
        if self.std == 0 and self.mean:
            raise ValueError(
                f"normal(std=0, mean={mean}): every element would be {mean}. The standard deviation comes first: write "
                f"normal({mean}) for one of {mean}, or constant({mean})."
            )

    def draw_block(self, rng: np.random.Generator, n: int, shape: Shape, dtype: Any) -> Any:
        """Draw ``n`` of them."""
        require_float(self, dtype)
        values = standard(rng, n, dtype, uniform=False)
        values *= self.std
        if self.mean:
            values += self.mean
        return values


class uniform(ElementwiseInitializer):
    """Uniform distribution on [low, high).

    Args:
        low: lower bound, included.
        high: upper bound, excluded.

    Example:
        >>> import numpy as np
        >>> from brickwork import init
        >>> values = init.uniform(-10, 10).draw(np.random.default_rng(0), (64,), np.float32)
        >>> bool((abs(values) <= 10).all())
        True
    """

    def __init__(self, low: float = 0.0, high: float = 1.0) -> None:
        self.low, self.high = interval("uniform", low, high)

    def draw_block(self, rng: np.random.Generator, n: int, shape: Shape, dtype: Any) -> Any:
        """Draw ``n`` of them."""
        require_float(self, dtype, allow_complex=False)
        values = rng.random(n, dtype)
        values *= self.high - self.low
        values += self.low
        if self.low < self.high:  # rounding may have reached the bound
            np.minimum(values, np.nextafter(values.dtype.type(self.high), -np.inf), out=values)
        return values


class truncated_normal(ElementwiseInitializer):
    """Normal distribution N(mean, std**2), restricted to [low, high].

    Drawn by inverting the cumulative distribution; what lies outside is not clipped to the bounds.

    Args:
        std: standard deviation before the restriction; it comes first, in ``torch.nn.init.trunc_normal_`` the mean.
        mean: expected value before the restriction.
        low: lower bound, in absolute terms (``a`` in PyTorch), not in standard deviations.
        high: upper bound (``b`` in PyTorch).

    Example:
        >>> import numpy as np
        >>> from brickwork import init
        >>> cut = init.truncated_normal(std=0.02, low=-0.04, high=0.04)
        >>> bool(abs(cut.draw(np.random.default_rng(0), (1000,), np.float32)).max() <= 0.04)
        True
    """

    def __init__(self, std: float = 1.0, mean: float = 0.0, low: float = -2.0, high: float = 2.0) -> None:
        self.std = not_negative("truncated_normal", "std", std)
        self.mean = finite("truncated_normal", "mean", mean)
        self.low, self.high = interval("truncated_normal", low, high)
        if self.std == 0:
            if not self.low <= self.mean <= self.high:
                raise ValueError(f"{self!r}: with std=0, mean must lie between low and high")
        elif self.low < self.high and not has_weight(*self._cut()):
            raise ValueError(
                f"{self!r}: the interval is so far from the mean, in standard deviations, that "
                "the distribution has no weight there; use uniform(low, high) or move the mean"
            )

    def draw_block(self, rng: np.random.Generator, n: int, shape: Shape, dtype: Any) -> Any:
        """Draw ``n`` of them."""
        require_float(self, dtype, allow_complex=False)
        return truncated(rng, n, dtype, *self._cut())

    def _cut(self) -> tuple[float, float, float, float]:
        return self.std, self.mean, self.low, self.high


class _Xavier(Scaled):
    def __init__(self, gain: float = 1.0) -> None:
        self.gain = finite(type(self).__name__, "gain", gain)

    def scale(self, shape: Shape) -> float:
        """The standard deviation for a parameter of ``shape``."""
        return self.gain * math.sqrt(2.0 / max(1, sum(fan_in_and_out(subject(self), shape))))


class xavier_uniform(_Xavier):
    """Uniform on [-b, b) with b = gain * sqrt(6 / (fan_in + fan_out)).

    Args:
        gain: see :func:`calculate_gain`.

    Reference:
        X. Glorot, Y. Bengio: Understanding the difficulty of training deep feedforward neural
        networks, AISTATS 2010.

    Example:
        >>> import numpy as np
        >>> from brickwork import init
        >>> values = init.xavier_uniform().draw(np.random.default_rng(0), (4, 2), np.float32)
        >>> bool(abs(values).max() <= 1.0)
        True
    """

    _uniform = True


class xavier_normal(_Xavier):
    """Normal with mean 0 and std = gain * sqrt(2 / (fan_in + fan_out)).

    Args:
        gain: see :func:`calculate_gain`.

    Reference:
        X. Glorot, Y. Bengio: Understanding the difficulty of training deep feedforward neural
        networks, AISTATS 2010.

    Example:
        >>> from brickwork import init
        >>> init.xavier_normal(gain=2.0).scale((4, 4))
        1.0
    """


class _Kaiming(Scaled):
    def __init__(self, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu") -> None:
        owner = type(self).__name__
        self.a = finite(owner, "a", a)
        if mode not in ("fan_in", "fan_out"):
            raise ValueError(f"{owner}: mode must be 'fan_in' or 'fan_out', got {mode!r}")
        self.mode = mode
        calculate_gain(nonlinearity, self.a)
        self.nonlinearity = nonlinearity

    def scale(self, shape: Shape) -> float:
        """The standard deviation for a parameter of ``shape``."""
        fan = fan_in_and_out(subject(self), shape)[self.mode == "fan_out"]
        return calculate_gain(self.nonlinearity, self.a) / math.sqrt(max(1, fan))


class kaiming_uniform(_Kaiming):
    """Uniform on [-b, b) with b = gain * sqrt(3 / fan).

    Args:
        a: negative slope of the rectifier that follows, for ``leaky_relu``.
        mode: ``"fan_in"`` keeps the variance of the forward pass, ``"fan_out"`` that of the
            gradients.
        nonlinearity: what follows, a name that :func:`calculate_gain` knows.

    Reference:
        K. He et al.: Delving deep into rectifiers, ICCV 2015.

    Example:
        >>> import numpy as np
        >>> from brickwork import init
        >>> values = init.kaiming_uniform().draw(np.random.default_rng(0), (4, 6), np.float32)
        >>> bool(abs(values).max() <= 1.0)
        True
    """

    _uniform = True


class kaiming_normal(_Kaiming):
    """Normal with mean 0 and std = gain / sqrt(fan).

    Args:
        a: negative slope of the rectifier that follows, for ``leaky_relu``.
        mode: ``"fan_in"`` keeps the variance of the forward pass, ``"fan_out"`` that of the
            gradients.
        nonlinearity: what follows, a name that :func:`calculate_gain` knows.

    Reference:
        K. He et al.: Delving deep into rectifiers, ICCV 2015.

    Example:
        >>> from brickwork import init
        >>> round(init.kaiming_normal(mode="fan_out", nonlinearity="relu").scale((8, 3)), 6)
        0.5
    """


class lecun_uniform(Scaled):
    """Uniform on [-b, b) with b = sqrt(3 / fan_in).

    Reference:
        Y. LeCun et al.: Efficient backprop, in Neural Networks: Tricks of the Trade, 1998.

    Example:
        >>> from brickwork import init
        >>> init.lecun_uniform().scale((8, 4))
        0.5
    """

    _uniform = True

    def scale(self, shape: Shape) -> float:
        """The standard deviation for a parameter of ``shape``."""
        return 1 / math.sqrt(max(1, fan_in_and_out(subject(self), shape)[0]))


class lecun_normal(ElementwiseInitializer):
    """Normal with mean 0, cut at two standard deviations, and then std = sqrt(1 / fan_in).

    The same as in Keras and ``jax.nn.initializers``.

    Reference:
        Y. LeCun et al.: Efficient backprop, in Neural Networks: Tricks of the Trade, 1998.

    Example:
        >>> import numpy as np
        >>> from brickwork import init
        >>> values = init.lecun_normal().draw(np.random.default_rng(0), (100, 100), np.float32)
        >>> bool(abs(values.std() - 0.1) < 0.005)
        True
    """

    # The standard deviation of N(0, 1) after the cut at -2 and 2.
    _cut_std = 0.8796256610342398

    def draw_block(self, rng: np.random.Generator, n: int, shape: Shape, dtype: Any) -> Any:
        """Draw ``n`` of them."""
        require_float(self, dtype, allow_complex=False)
        std = 1 / math.sqrt(max(1, fan_in_and_out(subject(self), shape)[0])) / self._cut_std
        return truncated(rng, n, dtype, std, 0.0, -2 * std, 2 * std)


class eye(Initializer):
    """The identity matrix, for parameters of two dimensions; ones on the diagonal if not square.

    Example:
        >>> import numpy as np
        >>> from brickwork import init
        >>> init.eye().draw(np.random.default_rng(0), (2, 3), np.float32)
        array([[1., 0., 0.],
               [0., 1., 0.]], dtype=float32)
    """

    def draw(self, rng: np.random.Generator, shape: Shape, dtype: Any) -> Any:
        """Return the matrix."""
        if len(shape) != 2:
            raise ShapeMismatchError(f"{subject(self)} needs a shape of 2 dimensions, got {shape}")
        return np.eye(*shape, dtype=dtype)


class dirac(Initializer):
    """Convolution kernels that pass their input on, for parameters of 3, 4 or 5 dimensions.

    The kernel of output channel d is one in the middle of input channel d and zero elsewhere.

    Args:
        groups: in how many groups of output channels to do so, as in a grouped convolution.

    Example:
        >>> import numpy as np
        >>> from brickwork import init
        >>> init.dirac().draw(np.random.default_rng(0), (1, 1, 3), np.float32)
        array([[[0., 1., 0.]]], dtype=float32)
    """

    def __init__(self, groups: int = 1) -> None:
        if isinstance(groups, bool) or not isinstance(groups, (int, np.integer)) or groups < 1:
            raise ValueError(f"dirac: groups must be a positive integer, got {groups!r}")
        self.groups = int(groups)

    def draw(self, rng: np.random.Generator, shape: Shape, dtype: Any) -> Any:
        """Return the kernels."""
        if len(shape) not in (3, 4, 5):
            raise ShapeMismatchError(
                f"{subject(self)} needs the shape of a convolution, (out, in, *kernel) with 3 to 5 "
                f"dimensions, got {shape}"
            )
        per_group, rest = divmod(shape[0], self.groups)
        if rest:
            raise ShapeMismatchError(
                f"{subject(self)}: the {shape[0]} output channels of shape {shape} cannot be "
                f"divided into {self.groups} groups"
            )
        values = np.zeros(shape, dtype)
        middle = tuple(k // 2 for k in shape[2:])
        if values.size:
            for channel in range(min(per_group, shape[1])):
                values[(slice(channel, None, per_group), channel, *middle)] = 1
        return values


class orthogonal(Initializer):
    """An orthogonal matrix of the Haar distribution, times ``gain``.

    A shape ``(out, in, *kernel)`` is taken as a matrix of ``out`` rows; the rows or the columns,
    whichever are fewer, are orthonormal. Complex parameters get a unitary matrix. The factorisation
    is LAPACK's, so that different machines may differ in the last bits.

    Args:
        gain: see :func:`calculate_gain`.

    Reference:
        A. Saxe et al.: Exact solutions to the nonlinear dynamics of learning in deep linear neural
        networks, ICLR 2014.

    Example:
        >>> import numpy as np
        >>> from brickwork import init
        >>> q = init.orthogonal().draw(np.random.default_rng(0), (3, 5), np.float32)
        >>> bool(np.allclose(q @ q.T, np.eye(3), atol=1e-6))
        True
    """

    def __init__(self, gain: float = 1.0) -> None:
        self.gain = finite("orthogonal", "gain", gain)

    def draw(self, rng: np.random.Generator, shape: Shape, dtype: Any) -> Any:
        """Return the matrix, in ``shape``."""
        require_float(self, dtype)
        if len(shape) < 2:
            raise ShapeMismatchError(f"{subject(self)} needs a shape of at least 2 dimensions, got {shape}")
        from scipy.linalg import qr  # works in single precision, as numpy.linalg does not

        rows, columns = shape[0], math.prod(shape[1:])
        if 0 in (rows, columns):
            return np.empty(shape, dtype)
        matrix = standard(rng, rows * columns, working_dtype(dtype), uniform=False)
        matrix = matrix.reshape(max(rows, columns), min(rows, columns))
        factors: Any = qr(matrix, mode="economic", overwrite_a=True, check_finite=False)
        q, r = factors
        diagonal = np.diagonal(r)
        # The signs of LAPACK's R are arbitrary; a positive diagonal makes Q uniform.
        q *= self.gain * np.where(diagonal == 0, 1, diagonal / np.maximum(abs(diagonal), 1e-30))
        return (q if rows >= columns else q.T).reshape(shape)


class sparse(Initializer):
    """Normal values, a share of them zero in each column, for parameters of two dimensions.

    Args:
        sparsity: the share of zeros in a column, from 0 to 1; rounded up to whole elements.
        std: standard deviation of the others.

    Reference:
        J. Martens: Deep learning via Hessian-free optimization, ICML 2010.

    Example:
        >>> import numpy as np
        >>> from brickwork import init
        >>> values = init.sparse(0.75).draw(np.random.default_rng(0), (8, 2), np.float32)
        >>> (values == 0).sum(0)
        array([6, 6])
    """

    def __init__(self, sparsity: float, std: float = 0.01) -> None:
        self.sparsity = finite("sparse", "sparsity", sparsity)
        if not 0 <= self.sparsity <= 1:
            raise ValueError(f"sparse: sparsity must be from 0 to 1, got {self.sparsity}")
        self.std = not_negative("sparse", "std", std)

    def draw(self, rng: np.random.Generator, shape: Shape, dtype: Any) -> Any:
        """Return the matrix."""
        require_float(self, dtype)
        if len(shape) != 2:
            raise ShapeMismatchError(f"{subject(self)} needs a shape of 2 dimensions, got {shape}")
        values = standard(rng, math.prod(shape), working_dtype(dtype), uniform=False).reshape(shape)
        values *= self.std
        count = math.ceil(self.sparsity * shape[0])
        order = rng.random(shape, np.float32).argsort(axis=0, kind="stable")
        np.put_along_axis(values, order[:count], 0, axis=0)
        return values


if not TYPE_CHECKING:  # a type checker would take it that every name exists
    __getattr__ = _unknown_in(__name__)
