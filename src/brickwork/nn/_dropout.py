"""Dropout layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..core import next_key
from ..functional import (
    _checks as checks,
    alpha_dropout,
    dropout,
    dropout1d,
    dropout2d,
    dropout3d,
    feature_alpha_dropout,
)
from ..functional._dropout import check_rate
from ..module import Module

if TYPE_CHECKING:
    from jaxtyping import Array, Float


class _Dropout(Module):
    """What the layers share; ``_function`` says how they drop."""

    uses_random = True
    _function: Callable[[Any, float, Any], Any]

    def __init__(self, p: float = 0.5) -> None:
        self.p = check_rate(p, type(self).__name__, "p")

    def forward(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Drop in training mode."""
        x = checks.to_array(x, type(self).__name__, "x")
        if not self.training or self.p == 0:
            return x
        return self._function(x, self.p, next_key())

    def extra_repr(self) -> str:
        return f"p={self.p}"


class Dropout(_Dropout):
    r"""Set elements to zero at random in training mode; return the input in evaluation mode.

    .. math:: y_i = \frac{x_i m_i}{1 - p}, \quad m_i \sim \mathrm{Bernoulli}(1 - p)

    Random numbers come from the stream that ``bw.seed`` sets.

    Args:
        p: the probability of dropping an element, in ``[0, 1]``.

    Shape:
        Any; the output has the shape of the input.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> layer = nn.Dropout(0.5)
        >>> sorted(set(layer(jnp.ones(1000)).tolist()))
        [0.0, 2.0]
        >>> layer.eval()(jnp.ones(2)).tolist()
        [1.0, 1.0]

    Reference:
        Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting",
        2014; ``torch.nn.Dropout``.
    """

    _function = staticmethod(dropout)


class Dropout1d(_Dropout):
    r"""Set whole channels of sequences to zero at random in training mode; return the input in evaluation mode.

    .. math:: y_{n,c} = \frac{x_{n,c} m_{n,c}}{1 - p}, \quad m_{n,c} \sim \mathrm{Bernoulli}(1 - p)

    Random numbers come from the stream that ``bw.seed`` sets.

    Args:
        p: the probability of dropping a channel, in ``[0, 1]``.

    Shape:
        ``(N, C, L)`` or ``(C, L)``; the output has the shape of the input.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> layer = nn.Dropout1d(0.5)
        >>> y = layer(jnp.ones((100, 3, 5)))
        >>> sorted(set(y.reshape(300, 5).mean(1).tolist()))
        [0.0, 2.0]

    Reference:
        Tompson et al., "Efficient Object Localization Using Convolutional Networks", 2015;
        ``torch.nn.Dropout1d``.
    """

    _function = staticmethod(dropout1d)


class Dropout2d(_Dropout):
    r"""Set whole channels of images to zero at random in training mode; return the input in evaluation mode.

    .. math:: y_{n,c} = \frac{x_{n,c} m_{n,c}}{1 - p}, \quad m_{n,c} \sim \mathrm{Bernoulli}(1 - p)

    Random numbers come from the stream that ``bw.seed`` sets.

    Args:
        p: the probability of dropping a channel, in ``[0, 1]``.

    Shape:
        ``(N, C, H, W)``; the output has the shape of the input. One image needs a batch axis, ``x[None]``: three
        axes are sequences for ``torch``, for which there is :class:`Dropout1d`.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> layer = nn.Dropout2d(0.5)
        >>> y = layer(jnp.ones((100, 3, 2, 2)))
        >>> sorted(set(y.reshape(300, 4).mean(1).tolist()))
        [0.0, 2.0]

    Reference:
        Tompson et al., "Efficient Object Localization Using Convolutional Networks", 2015;
        ``torch.nn.Dropout2d``.
    """

    _function = staticmethod(dropout2d)


class Dropout3d(_Dropout):
    r"""Set whole channels of volumes to zero at random in training mode; return the input in evaluation mode.

    .. math:: y_{n,c} = \frac{x_{n,c} m_{n,c}}{1 - p}, \quad m_{n,c} \sim \mathrm{Bernoulli}(1 - p)

    Random numbers come from the stream that ``bw.seed`` sets.

    Args:
        p: the probability of dropping a channel, in ``[0, 1]``.

    Shape:
        ``(N, C, D, H, W)`` or ``(C, D, H, W)``; the output has the shape of the input.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> layer = nn.Dropout3d(0.5)
        >>> y = layer(jnp.ones((100, 3, 2, 2, 2)))
        >>> sorted(set(y.reshape(300, 8).mean(1).tolist()))
        [0.0, 2.0]

    Reference:
        Tompson et al., "Efficient Object Localization Using Convolutional Networks", 2015;
        ``torch.nn.Dropout3d``.
    """

    _function = staticmethod(dropout3d)


class AlphaDropout(_Dropout):
    r"""Drop elements at random, keeping mean 0 and variance 1, in training mode; for networks of SELUs.

    .. math:: y_i = a (x_i m_i + \alpha' (1 - m_i)) + b, \quad m_i \sim \mathrm{Bernoulli}(1 - p)

    with :math:`\alpha' \approx -1.7581`, what SELU tends to for small numbers,
    :math:`a = ((1 - p) (1 + p \alpha'^2))^{-1/2}` and :math:`b = -a p \alpha'`. In evaluation mode the input is
    returned. Random numbers come from the stream that ``bw.seed`` sets.

    Args:
        p: the probability of dropping an element, in ``[0, 1]``.

    Shape:
        Any; the output has the shape of the input.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> y = nn.AlphaDropout(0.5)(jnp.zeros(1000))
        >>> sorted({round(v, 3) for v in y.tolist()})
        [-0.779, 0.779]

    Reference:
        Klambauer et al., "Self-Normalizing Neural Networks", 2017; ``torch.nn.AlphaDropout``.
    """

    _function = staticmethod(alpha_dropout)


class FeatureAlphaDropout(_Dropout):
    r"""Drop whole channels at random, keeping mean 0 and variance 1, in training mode; for networks of SELUs.

    .. math:: y_{n,c} = a (x_{n,c} m_{n,c} + \alpha' (1 - m_{n,c})) + b,
        \quad m_{n,c} \sim \mathrm{Bernoulli}(1 - p)

    with the numbers of :class:`AlphaDropout`. In evaluation mode the input is returned. Random numbers come from
    the stream that ``bw.seed`` sets.

    Args:
        p: the probability of dropping a channel, in ``[0, 1]``.

    Shape:
        ``(N, C, *)``; the output has the shape of the input.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> nn.FeatureAlphaDropout(0.5)(jnp.ones((2, 3, 4))).shape
        (2, 3, 4)

    Reference:
        Klambauer et al., "Self-Normalizing Neural Networks", 2017; ``torch.nn.FeatureAlphaDropout``.
    """

    _function = staticmethod(feature_alpha_dropout)
