"""optax behind a stateful face."""

from __future__ import annotations

import functools
import re
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import NamedSharding

from ..core import Buffer, ModuleBase, Parameter
from ..core._frame import current_frame, note_module, outside
from ..core._jax import Tracer, is_device_error
from ..core._patterns import no_match
from ..core._places import settled, undivided
from ..errors import DeviceMismatchError
from ..module import Module

if TYPE_CHECKING:
    import optax

_REST = "rest"


@dataclass(frozen=True)
class _Rule:
    """Which transformation is for which parameters; hashable, so that it can be a static argument."""

    transformation: Any
    groups: tuple[tuple[str, Any], ...]
    names: tuple[str, ...]

    def label(self, name: str) -> str:
        """The group that a parameter belongs to: the first pattern that matches its whole path."""
        return next((pattern for pattern, _ in self.groups if re.fullmatch(pattern, name)), _REST)

    @property
    def combined(self) -> Any:
        """One transformation for all parameters."""
        if not self.groups:
            return self.transformation
        import optax

        labels = {name: self.label(name) for name in self.names}
        rules: dict[Any, Any] = dict(self.groups) | {_REST: self.transformation}
        return optax.partition(rules, labels)


class _Compiled:
    """The two functions of a rule, compiled; shared by the optimisers that have the rule, and gone with the last."""

    __slots__ = ("__weakref__", "init", "update")

    def __init__(self, rule: _Rule) -> None:
        self.init = jax.jit(functools.partial(_init, rule))
        self.update = jax.jit(functools.partial(_update, rule))


_compiled: weakref.WeakValueDictionary[_Rule, _Compiled] = weakref.WeakValueDictionary()


def _init(rule: _Rule, values: dict[str, jax.Array]) -> Any:
    with jax.numpy_dtype_promotion("standard"):  # optax mixes integer counts with floats
        return rule.combined.init(values)


def _update(rule: _Rule, grads: Any, state: Any, values: Any) -> tuple[Any, Any]:
    import optax

    with jax.numpy_dtype_promotion("standard"):
        updates, state = rule.combined.update(grads, state, values)
        return optax.apply_updates(values, updates), state


class _Target:
    """A network that the optimiser refers to without it becoming part of the optimiser's own state."""

    __slots__ = ("__weakref__", "net")

    def __init__(self, net: ModuleBase) -> None:
        self.net = net


class _Seen:
    """Which parameter objects the state was made for; copies and pickles start without."""

    __slots__ = ("__weakref__", "parameters")

    def __init__(self) -> None:
        self.parameters: dict[str, weakref.ref[Parameter]] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> _Seen:
        return _Seen()

    def __reduce__(self) -> Any:
        return _Seen, ()

    def replaced(self, parameters: dict[str, Parameter]) -> set[str]:
        """The paths at which there is another parameter than before; remembers the present ones."""
        known = self.parameters
        changed = {path for path, p in parameters.items() if path in known and known[path]() is not p}
        self.parameters = known | {path: weakref.ref(p) for path, p in parameters.items()}
        return changed


class _Kept(dict[_Rule, _Compiled]):
    """The compiled functions that an optimiser uses; copies and pickles start without."""

    def __deepcopy__(self, memo: dict[int, Any]) -> _Kept:
        return _Kept()

    def __reduce__(self) -> Any:
        return _Kept, ()


class _Loose(Module):
    """A module around a list of parameters and modules, named as their gradients are."""

    def __init__(self, given: Sequence[Parameter | ModuleBase]) -> None:
        names = [x.any_name if isinstance(x, Parameter) else str(i) for i, x in enumerate(given)]
        unique = len(set(names)) == len(names)
        self.names = tuple(names if unique else (f"{i}.{n}" for i, n in enumerate(names)))
        # Not an ordinary assignment: the parameters keep the names they have elsewhere.
        self.__dict__["given"] = tuple(given)

    def edges(self) -> Iterator[tuple[str, Any]]:
        yield from zip(self.names, self.__dict__["given"], strict=True)


class Optimizer(Module):
    """Updates the trainable parameters of a network with an optax transformation.

    The optimiser's state lives in buffers, so it takes part in compiled functions, in ``state_dict``,
    ``save`` and ``load``. It is created when first needed, for the parameters that are trainable then;
    when some are frozen, added or replaced later, the others keep their state. A tied parameter has
    one share. Counts of steps are one for all parameters, as in optax: for a parameter that joins late, Adam doesn't
    correct its means for having just begun, and the first steps are up to five times as large as in PyTorch, which
    counts for each; where that matters, make a new optimiser.

    Args:
        net: a module, or a list of parameters or modules: the one that gradients are taken by, in the same order.
        transformation: an ``optax.GradientTransformation``.
        groups: other transformations for some parameters, by pattern: ``{r".*bias": optax.sgd(0.1)}``.
            A pattern is a regular expression that must match the whole path; the first that does wins.

    Raises:
        TypeError: arguments of other kinds.

    Example:
        >>> import brickwork as bw
        >>> from brickwork import nn, optim
        >>> import jax.numpy as jnp, optax
        >>> net = nn.Linear(1)
        >>> opt = optim.Optimizer(net, optax.sgd(0.1))
        >>> loss, grads = bw.value_and_grad(lambda x: net(x).mean(), net)(jnp.ones((4, 3)))
        >>> before = net.bias.value
        >>> opt.step(grads)
        >>> (net.bias - before).round(3)
        Array([-0.1], dtype=float32)
    """

    def __init__(
        self,
        net: ModuleBase | Parameter | Sequence[Parameter | ModuleBase],
        transformation: optax.GradientTransformation,
        groups: Mapping[str, optax.GradientTransformation] | None = None,
    ) -> None:
        self._target = _Target(_as_module(net))
        _check_transformation(transformation, "transformation")
        for pattern, other in (groups or {}).items():
            _check_transformation(other, f"groups[{pattern!r}]")
            if not self.net.parameters(pattern):
                raise no_match("groups", pattern, [path for path, _ in self.net.named_parameters()])
        self._transformation = transformation
        self._groups = tuple((groups or {}).items())
        self._buffers: tuple[Buffer, ...] = ()
        self._buffer_names: tuple[str, ...] = ()
        self._owners: tuple[str | None, ...] = ()  # the parameter that a buffer belongs to
        self._seen = _Seen()
        self._kept = _Kept()
        self._idle: tuple[Buffer, ...] = ()  # the buffers of parameters that are frozen at present
        self._idle_names: tuple[str, ...] = ()
        self._idle_owners: tuple[str | None, ...] = ()
        self._tree: Any = None
        self._wanted_rate: float | None = None  # set before there was a state to keep it in
        self._covers: tuple[tuple[str, tuple[int, ...]], ...] = ()

    def edges(self) -> Iterator[tuple[str, Any]]:
        """The buffers of the state, under names such as ``inner.mu.hidden.weight``; also of what is frozen."""
        yield from zip(self._buffer_names, self._buffers, strict=True)
        yield from zip(self._idle_names, self._idle, strict=True)

    @property
    def net(self) -> Any:
        """The network whose parameters are updated."""
        return self._target.net

    def targets(self) -> dict[str, Parameter]:
        """The parameters that a step updates, by path: the trainable ones, a tied one once."""
        note_module(self)
        note_module(self.net)
        return {path: p for path, p in self.net.named_parameters() if p.trainable}

    def step(self, grads: Mapping[str, Any] | None = None) -> None:
        """Update the parameters once.

        Args:
            grads: gradients by path, as :func:`brickwork.value_and_grad` gives them. Without them those
                in ``p.grad`` are used and then cleared; a parameter without one is left as it is.

        Raises:
            ValueError: the names or shapes of ``grads`` aren't those of the parameters, or no parameter
                has a gradient.
            DeferredShapeError: a shape is not known yet.
        """
        parameters = self.targets()
        if grads is None:
            given = _collected(parameters)
            skipped = {path for path in parameters if path not in given}
        else:
            given, skipped = _matching(grads, parameters), set()
        values = {path: p.value for path, p in parameters.items()}
        for path in skipped:
            given[path] = jnp.zeros_like(values[path])
        self._fit_state(parameters)
        state = jax.tree_util.tree_unflatten(self._tree, [b.value for b in self._buffers])
        # Within a trace the plain function: what it passes on unchanged is then seen to be the same.
        rule = self._rule(tuple(values))
        if current_frame() is None:
            update = self._jitted(rule).update
        else:
            update = functools.partial(_update, rule)
            # State that was made just now comes as arrays, not tracers. For every function that JAX has jitted once
            # for all and that is called with an array while tracing, it would keep the trace.
            state = jax.tree_util.tree_map(lambda x: x if isinstance(x, Tracer) else lax.optimization_barrier(x), state)
        try:
            new_values, new_state = update(given, state, values)
        except TypeError as error:
            if "required keyword-only argument" not in str(error):
                raise
            raise TypeError(
                f"step: the transformation wants more than gradients, state and parameters ({error}), as line searches "
                "do, which evaluate the loss themselves. Call it on `pure, state = bw.functional(net)` as optax shows."
            ) from error
        except ValueError as error:
            if is_device_error(error):
                raise DeviceMismatchError(
                    "step: the optimiser's state, the gradients and the parameters are not all on the same device. "
                    "Move the optimiser along with the network: opt.to(device)."
                ) from error
            raise
        for path, p in parameters.items():
            if path not in skipped:
                p.value = new_values[path]
        new_leaves = jax.tree_util.tree_leaves(new_state)
        for buffer, owner, leaf in zip(self._buffers, self._owners, new_leaves, strict=True):
            if owner not in skipped:
                buffer.value = leaf
        if grads is None:
            for p in parameters.values():
                p.grad = None

    def zero_grad(self) -> None:
        """Clear the gradients that :func:`brickwork.backward` has added up."""
        for p in self.net.parameters():
            p.grad = None

    # -- hyperparameters -----------------------------------------------------------------------

    @property
    def hyperparameters(self) -> dict[str, Buffer]:
        """Hyperparameters that may be changed while training, by name; changing one compiles nothing.

        Those of transformations made with ``optax.inject_hyperparams``; for ``sgd``, ``adam`` and
        ``adamw`` it is the learning rate. In a parameter group the name begins with its pattern.
        """
        if self._tree is None:
            self._fit_state(self.targets())
        found = {}
        for name, buffer in zip(self._buffer_names, self._buffers, strict=True):
            front, marker, last = name.rpartition("hyperparams.")
            if marker:
                group = next((p for p, _ in self._groups if f".{p}." in f".{front}"), "")
                found[f"{group}: {last}" if group else last] = buffer
        return found

    @property
    def learning_rate(self) -> Any:
        """The learning rate, where the transformation has one that can be changed; assign to change it.

        With parameter groups this is that of the parameters in no group; see ``hyperparameters``.
        """
        if self._waiting():
            known = self._wanted_rate if self._wanted_rate is not None else self._given_rate()
            if known is not None:
                return known
        return self._learning_rate().value

    @learning_rate.setter
    def learning_rate(self, new: Any) -> None:
        rate = new.value if isinstance(new, Buffer) else new
        if not isinstance(rate, Tracer) and (np.shape(rate) != () or not 0 <= float(rate) < float("inf")):
            raise ValueError(f"the learning rate must be a finite number that is not negative, got {new!r:.60}")
        if self._waiting() and self._given_rate() is not None:
            self._wanted_rate = float(rate)
            return
        buffer = self._learning_rate()
        if any("hyperparams_states." in name for name in self._buffer_names):
            raise AttributeError(
                "the learning rate follows a schedule, which would overwrite the new value; make the optimiser "
                "with a number to set it by hand"
            )
        buffer.value = jnp.asarray(rate, buffer.dtype)

    lr = learning_rate

    def _waiting(self) -> bool:
        """Whether the state can't exist yet, because a shape is not known."""
        return self._tree is None and any(None in p.shape for p in self.targets().values())

    def _given_rate(self) -> float | None:
        """The number that the optimiser was made with, if it was one."""
        rate = dict(getattr(self._transformation, "settings", ())).get("learning_rate")
        return None if callable(rate) else rate

    def _learning_rate(self) -> Buffer:
        found = self.hyperparameters.get("learning_rate")
        if found is None:
            raise AttributeError(
                "this optimiser's learning rate can't be changed: make its transformation with "
                "optax.inject_hyperparams(optax.sgd)(learning_rate=0.1), or use optim.sgd, optim.adam, optim.adamw"
            )
        return found

    # -- the state -----------------------------------------------------------------------------

    def _rule(self, names: tuple[str, ...]) -> _Rule:
        return _Rule(self._transformation, self._groups, names if self._groups else ())

    def _jitted(self, rule: _Rule) -> _Compiled:
        """The compiled functions of a rule; kept here, so that they live as long as somebody uses them."""
        found = _compiled.get(rule)
        if found is None:
            found = _compiled[rule] = _Compiled(rule)
        self._kept[rule] = found
        return found

    def _fit_state(self, parameters: dict[str, Parameter]) -> None:
        """Create the state, or fit it to the parameters that are trained now."""
        covers = tuple((path, p.known_shape) for path, p in parameters.items())
        replaced = self._seen.replaced(parameters)
        if covers == self._covers and self._tree is not None and not replaced:
            return
        if not parameters:
            why = (
                "every parameter of the network is frozen" if self.net.parameters() else "the network has no parameters"
            )
            raise ValueError(f"the optimiser has nothing to train: {why}")
        leaves, tree = self._initial(parameters)
        names = tuple(_leaf_name(path) for path, _ in leaves)
        old_names, old_owners = (*self._buffer_names, *self._idle_names), (*self._owners, *self._idle_owners)
        old = dict(zip(old_names, (*self._buffers, *self._idle), strict=True))
        buffers = []
        for name, (path, leaf) in zip(names, leaves, strict=True):
            kept = None if _owner(path, parameters) in replaced else old.get(name)
            keep = kept is not None and kept.shape == leaf.shape and kept.dtype == leaf.dtype
            with outside():
                buffers.append(kept if keep else Buffer(leaf))
        present = {path: p.shape for path, p in self.net.named_parameters()}
        idle = [
            (name, owner, old[name])
            for name, owner in sorted(zip(old_names, old_owners, strict=True), key=lambda pair: pair[0])
            if name not in names and owner in present and old[name].shape == present[owner]
        ]
        self._buffer_names = self._idle_names = ()
        self._buffers, self._idle = tuple(buffers), tuple(buffer for _, _, buffer in idle)
        self._owners = tuple(_owner(path, parameters) for path, _ in leaves)
        self._idle_names, self._idle_owners = tuple(n for n, _, _ in idle), tuple(o for _, o, _ in idle)
        self._buffer_names, self._tree, self._covers = names, tree, covers
        if self._wanted_rate is not None:
            rate, self._wanted_rate = self._wanted_rate, None
            self.learning_rate = rate

    def _initial(self, parameters: dict[str, Parameter]) -> tuple[list[tuple[Any, Any]], Any]:
        """A new state, as leaves with their paths and a tree; each leaf lies where the parameter does that it is of."""
        with outside():
            values = {path: p.value for path, p in parameters.items()}
            compiled = self._jitted(self._rule(tuple(values)))
            places = [v.sharding for v in values.values() if v.committed]
            widest = max(places, key=lambda place: len(place.device_set), default=None)
            if not isinstance(widest, NamedSharding):
                state = compiled.init(values)
                return jax.tree_util.tree_flatten_with_path(state if widest is None else settled(state, widest))
            whole = undivided(widest)

            def home(path: Any, leaf: Any) -> Any:
                name = _owner(path, parameters)
                if name is None or values[name].shape != leaf.shape:
                    return whole
                place = values[name].sharding
                return place if isinstance(place, NamedSharding) else whole

            homes = jax.tree_util.tree_map_with_path(home, jax.eval_shape(compiled.init, values))
            # Not moved there afterwards: the whole state may be too much for the first device.
            return jax.tree_util.tree_flatten_with_path(jax.jit(compiled.init, out_shardings=homes)(values))

    def settle(self) -> None:
        """Fit the state to the parameters that are trained now, so that freezing in turns finds earlier programs."""
        targets = self.targets()
        if self._tree is not None and targets and not any(None in p.shape for p in targets.values()):
            self._fit_state(targets)

    def prepare_state(self, names: Iterable[str] = ()) -> None:
        """Create the state if need be; also that of frozen parameters, as far as ``names`` has it."""
        targets = self.targets()
        if targets:
            self._fit_state(targets)
        missing = set(names) - set(self._buffer_names) - set(self._idle_names)
        frozen = {path: p for path, p in self.net.named_parameters() if not p.trainable and p.is_drawable}
        if not missing or not frozen:
            return
        leaves, _ = self._initial(targets | frozen)
        with outside():
            found = [(_leaf_name(path), _owner(path, frozen), Buffer(leaf)) for path, leaf in leaves]
        found = [(name, owner, buffer) for name, owner, buffer in found if name in missing and owner is not None]
        old_names, old_owners = self._idle_names, self._idle_owners
        self._idle_names = ()
        self._idle = (*self._idle, *(buffer for _, _, buffer in found))
        self._idle_owners = (*old_owners, *(owner for _, owner, _ in found))
        self._idle_names = (*old_names, *(name for name, _, _ in found))

    def __getstate__(self) -> dict[str, Any]:
        # The tree has optax's own classes in it; it is made anew, and the buffers found by name.
        state = super().__getstate__()
        return state | {"attributes": state["attributes"] | {"_tree": None, "_covers": ()}}

    def extra_repr(self) -> str:
        return f"{len(self._buffers)} arrays of state for a {type(self.net).__name__}"


def _leaf_name(path: Any) -> str:
    parts = []
    for key in path:
        for attribute in ("name", "key", "idx"):
            if hasattr(key, attribute):
                parts.append(str(getattr(key, attribute)))
                break
    return ".".join(parts)


def _owner(path: Any, parameters: dict[str, Parameter]) -> str | None:
    last = getattr(path[-1], "key", None) if path else None
    return last if last in parameters else None


def _as_module(net: Any) -> ModuleBase:
    given: list[Any] = list(net) if isinstance(net, (list, tuple)) and net else [net]
    items: list[Any] = [getattr(x, "__brickwork_module__", x) for x in given]
    if len(items) == 1 and isinstance(items[0], ModuleBase):
        return items[0]
    if all(isinstance(x, (ModuleBase, Parameter)) for x in items):
        return _Loose(items)
    fix = ""
    if any(isinstance(x, Mapping) for x in items):
        fix = '. Other settings for some parameters go by pattern: groups={r".*bias": {"learning_rate": 0.1}}'
    elif isinstance(net, Iterator):
        fix = ". Pass the network itself; what is frozen is left out"
    raise TypeError(
        "an optimiser takes a module or a non-empty list of parameters or modules, got "
        f"{type(net).__name__}: {net!r:.60}{fix}"
    )


def _check_transformation(transformation: Any, what: str) -> None:
    if not (hasattr(transformation, "init") and hasattr(transformation, "update")):
        raise TypeError(
            f"{what} must be an optax.GradientTransformation such as optax.adam(1e-3), "
            f"got {type(transformation).__name__}"
        )


def _collected(parameters: dict[str, Parameter]) -> dict[str, Any]:
    given = {path: p.grad for path, p in parameters.items()}
    given = {path: g for path, g in given.items() if g is not None}
    if not given:
        raise ValueError(
            "step() without gradients: no parameter has one; call bw.backward(fn, net)(...) first, or pass "
            "the gradients that bw.value_and_grad returns"
        )
    return given


def _matching(grads: Any, parameters: dict[str, Parameter]) -> dict[str, Any]:
    if not isinstance(grads, Mapping):
        raise TypeError(f"step: grads must be a dict from path to array, got {type(grads).__name__}")
    missing = [path for path in parameters if path not in grads]
    extra = [path for path in grads if path not in parameters]
    if missing or extra:
        raise ValueError(
            "step: the gradients aren't those of the optimiser's parameters: "
            + (f"missing {missing[:5]}{' ...' if len(missing) > 5 else ''}" if missing else "")
            + (" and " if missing and extra else "")
            + (f"unexpected {extra[:5]}{' ...' if len(extra) > 5 else ''}" if extra else "")
            + ". Differentiate by the same network: bw.value_and_grad(fn, net)."
        )
    for path, p in parameters.items():
        if tuple(np.shape(grads[path])) != p.known_shape:
            raise ValueError(
                f"step: the gradient of {path!r} has shape {np.shape(grads[path])}, the parameter {p.shape}"
            )
    return {path: grads[path] for path in parameters}
