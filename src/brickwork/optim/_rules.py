"""The usual optimisers, by their usual names."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, ParamSpec

import jax
import jax.numpy as jnp
import numpy as np

from .._elsewhere import OF_OPTIMISERS
from ..core import ModuleBase, Parameter
from ._optimizer import Optimizer

_P = ParamSpec("_P")
Net = ModuleBase | Parameter | Sequence[Parameter | ModuleBase]
Rate = float | Callable[[Any], Any]
Groups = Mapping[str, Mapping[str, Any]] | None


def _knowing_other_names(make: Callable[_P, Optimizer]) -> Callable[_P, Optimizer]:
    """Let the function of an optimiser say what a keyword of another framework is called here."""

    @functools.wraps(make)
    def checked(*args: _P.args, **kwargs: _P.kwargs) -> Optimizer:
        for theirs in kwargs.keys() & OF_OPTIMISERS.keys():
            raise TypeError(f"{make.__name__}: got an unexpected argument {theirs!r}. Here: {OF_OPTIMISERS[theirs]}.")
        return make(*args, **kwargs)

    return checked


@_knowing_other_names
def sgd(
    net: Net,
    learning_rate: Rate,
    momentum: float = 0.0,
    nesterov: bool = False,
    weight_decay: float = 0.0,
    groups: Groups = None,
) -> Optimizer:
    """Stochastic gradient descent, with momentum if wished.

    v <- momentum * v + g + weight_decay * p;  p <- p - learning_rate * v

    Args:
        net: a module, or a list of parameters or modules.
        learning_rate: a number, which ``opt.learning_rate = ...`` changes without compiling anew, or a
            schedule, such as ``optax.cosine_decay_schedule(0.1, 1000)``.
        momentum: the factor of the running sum of gradients.
        nesterov: whether to look ahead.
        weight_decay: L2 penalty, added to the gradient as in PyTorch.
        groups: other settings for some parameters, by pattern, full match on the path, first match
            wins: ``{r".*bias": {"weight_decay": 0.0}}``.

    Raises:
        ValueError: a negative setting, or Nesterov without momentum.
        TypeError: an unknown setting in a group.

    Example:
        >>> from brickwork import nn, optim
        >>> opt = optim.sgd(nn.Linear(1, in_features=2), 0.1, momentum=0.9)
        >>> opt.learning_rate = 0.01
    """
    settings = {
        "learning_rate": learning_rate,
        "momentum": momentum,
        "nesterov": nesterov,
        "weight_decay": weight_decay,
    }
    return _make(net, "sgd", settings, groups)


@_knowing_other_names
def adam(
    net: Net,
    learning_rate: Rate = 1e-3,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    groups: Groups = None,
) -> Optimizer:
    """Adam (Kingma and Ba, 2015, https://arxiv.org/abs/1412.6980).

    Args:
        net: a module, or a list of parameters or modules.
        learning_rate: a number or a schedule; see :func:`sgd`.
        b1: the decay of the running mean of gradients.
        b2: the decay of the running mean of their squares.
        eps: added to the root of the latter.
        weight_decay: L2 penalty, added to the gradient as in PyTorch; :func:`adamw` has it apart from the gradient.
        groups: other settings for some parameters, by pattern; see :func:`sgd`.

    Example:
        >>> from brickwork import nn, optim
        >>> opt = optim.adam(nn.Linear(1, in_features=2), 1e-3)
        >>> sorted(opt.state_dict())[:2]
        ['hyperparams.learning_rate', 'inner.count']
    """
    settings = {"learning_rate": learning_rate, "b1": b1, "b2": b2, "eps": eps, "weight_decay": weight_decay}
    return _make(net, "adam", settings, groups)


@_knowing_other_names
def adamw(
    net: Net,
    learning_rate: Rate = 1e-3,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.01,
    groups: Groups = None,
) -> Optimizer:
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019, https://arxiv.org/abs/1711.05101).

    Args:
        net: a module, or a list of parameters or modules.
        learning_rate: a number or a schedule; see :func:`sgd`.
        b1, b2, eps: as in :func:`adam`.
        weight_decay: the share of a parameter, times the learning rate, that each step takes away.
        groups: other settings for some parameters, by pattern; see :func:`sgd`.

    Example:
        >>> from brickwork import nn, optim
        >>> net = nn.Linear(1, in_features=2)
        >>> opt = optim.adamw(net, 1e-3, groups={r".*bias": {"weight_decay": 0.0}})
    """
    settings = {"learning_rate": learning_rate, "b1": b1, "b2": b2, "eps": eps, "weight_decay": weight_decay}
    return _make(net, "adamw", settings, groups)


def _make(net: Net, name: str, settings: dict[str, Any], groups: Groups) -> Optimizer:
    _check(name, settings)
    others: dict[str, Any] = {}
    for pattern, changes in (groups or {}).items():
        if not isinstance(changes, Mapping):
            raise TypeError(f"{name}: groups[{pattern!r}] must be a dict of settings, got {type(changes).__name__}")
        unknown = sorted(set(changes) - set(settings))
        if unknown:
            raise TypeError(f"{name}: groups[{pattern!r}] has unknown settings {unknown}; known are {sorted(settings)}")
        merged = settings | dict(changes)
        _check(f"{name}: groups[{pattern!r}]", merged)
        others[pattern] = Recipe(name, tuple(merged.items()))
    recipe: Any = Recipe(name, tuple(settings.items()))
    return Optimizer(net, recipe, groups=others)


def _check(what: str, settings: dict[str, Any]) -> None:
    for key, value in settings.items():
        if key == "learning_rate" and callable(value):
            continue
        if isinstance(value, str) or not hasattr(value, "__float__"):
            raise TypeError(f"{what}: {key} must be a number, got {value!r}")
        if not float(value) >= 0:
            raise ValueError(f"{what}: {key} must not be negative, got {value!r}")
        if key in ("b1", "b2", "momentum") and not float(value) < 1:
            raise ValueError(f"{what}: {key} must be below 1, got {value!r}")
    if settings.get("nesterov") and not settings.get("momentum"):
        raise ValueError(f"{what}: nesterov=True needs a momentum")


@dataclass(frozen=True)
class Recipe:
    """A transformation by name and settings: unlike optax's closures it can be compared and pickled."""

    name: str
    settings: tuple[tuple[str, Any], ...]

    def transformation(self, dtype: Any) -> Any:
        """The transformation, with its learning rate as part of the state, where it can be changed."""
        import optax

        fixed = dict(self.settings)
        rate = fixed.pop("learning_rate")
        rule = _RULES[self.name](**fixed)
        if not callable(rate):
            return _with_rate(rule, rate, dtype)

        def scheduled(learning_rate: Any) -> Any:
            return optax.chain(rule, optax.scale_by_learning_rate(learning_rate))

        return optax.inject_hyperparams(scheduled, hyperparam_dtype=dtype)(learning_rate=rate)

    def init(self, params: Any) -> Any:
        """The initial state, as optax names it."""
        return self.transformation(_rate_dtype(params)).init(params)

    def update(self, updates: Any, state: Any, params: Any = None) -> Any:
        """One step, as optax names it."""
        return self.transformation(_rate_dtype(updates)).update(updates, state, params)

    def __getstate__(self) -> dict[str, Any]:
        return {"name": self.name, "settings": self.settings}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


def _rate_dtype(tree: Any) -> Any:
    """The dtype of a learning rate: float32, or float64 where there is anything of that."""
    wide = any(x.dtype in (np.float64, np.complex128) for x in jax.tree_util.tree_leaves(tree))
    return np.float64 if wide else np.float32


class RateState(NamedTuple):
    """The state of a rule whose learning rate may be changed while training."""

    hyperparams: dict[str, Any]
    inner: Any


def _with_rate(rule: Any, rate: float, dtype: Any) -> Any:
    """A rule followed by ``-learning_rate``, which is state: one array less than optax's general way."""
    import optax

    def init(params: Any) -> RateState:
        return RateState({"learning_rate": jnp.asarray(rate, dtype)}, rule.init(params))

    def update(updates: Any, state: RateState, params: Any = None) -> tuple[Any, RateState]:
        updates, inner = rule.update(updates, state.inner, params)
        minus = -state.hyperparams["learning_rate"]
        updates = jax.tree_util.tree_map(lambda u: minus.astype(u.dtype) * u, updates)
        return updates, RateState(state.hyperparams, inner)

    apply: Any = update  # optax types states as pytrees in general
    return optax.GradientTransformation(init, apply)


# The rules without their learning rates.


def _sgd(momentum: float, nesterov: bool, weight_decay: float) -> Any:
    import optax

    plain = optax.trace(momentum, nesterov) if momentum else optax.identity()
    return optax.chain(optax.add_decayed_weights(weight_decay), plain) if weight_decay else plain


def _adam(b1: float, b2: float, eps: float, weight_decay: float = 0.0) -> Any:
    import optax

    plain = optax.scale_by_adam(b1=b1, b2=b2, eps=eps)
    return optax.chain(optax.add_decayed_weights(weight_decay), plain) if weight_decay else plain


def _adamw(b1: float, b2: float, eps: float, weight_decay: float) -> Any:
    import optax

    return optax.chain(optax.scale_by_adam(b1=b1, b2=b2, eps=eps), optax.add_decayed_weights(weight_decay))


_RULES: dict[str, Callable[..., Any]] = {"sgd": _sgd, "adam": _adam, "adamw": _adamw}
