"""Parameters that are computed from others: a chain of modules between what is stored and what a layer reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import jax

from ..core import Buffer, ModuleBase, Parameter, TrackedDict, TrackedList, Variable
from ..core._arrays import as_array, show_shape
from ..core._manners import ArrayMethods
from ..core._variable import depth
from ..errors import DeferredShapeError, ShapeMismatchError, StructureError
from ..functional import _checks as checks
from ..module import Module
from ..transform._vmap import vmap

if TYPE_CHECKING:
    Shape = tuple[int | None, ...]

Layer = TypeVar("Layer", bound=Module)


class ParametrizationList(Module):
    """What stands behind a parametrised attribute: the variables that are stored, and the modules that compute it.

    Made by :func:`parametrize`. The variable, if there is one, is called ``original``; several are
    ``original0``, ``original1``, ...
    """

    _bw_nameless = "_chain"

    def __init__(self, originals: list[Variable], single: bool, shape: Shape | None, position: int) -> None:
        for i, variable in enumerate(originals):
            setattr(self, "original" if single else f"original{i}", variable)
        self._chain = TrackedList()
        self._count = 0 if single else len(originals)
        self._shape = shape  # of what is computed; None: that of the last variable, which may not be known yet
        self._position = position  # among the attributes of the layer

    @property
    def originals(self) -> list[Variable]:
        """The variables that are stored."""
        if not self._count:
            return [vars(self)["original"]]
        return [getattr(self, f"original{i}") for i in range(self._count)]

    @property
    def shape(self) -> Shape:
        """The shape of what is computed; ``None`` for a size that is not known yet."""
        return self.originals[-1].shape if self._shape is None else self._shape

    def complete(self, shape: Any) -> None:
        """Fill in sizes that are not known yet."""
        last = self.originals[-1]
        if self._shape is None:
            last.shape = shape
        elif len(shape) != len(self._shape) or any(n not in (None, m) for n, m in zip(shape, self._shape, strict=True)):
            raise ShapeMismatchError(
                f"the parametrised {last.described()} has shape {show_shape(self._shape)}, which contradicts "
                f"{show_shape(shape)}: the input's sizes don't match those the layer was given or has seen before"
            )
        for module in self._chain:
            if hasattr(module, "complete"):
                module.complete(*self.originals)

    def forward(self) -> jax.Array:
        """Compute what the layer reads."""
        value: Any = tuple(v.value for v in self.originals)
        for module in self._chain:
            value = module(*value) if isinstance(value, tuple) else module(value)
        self._require_like(value, self.shape, self.originals[-1].dtype)
        return value

    def compute(self) -> jax.Array:
        """As a call; of a stack, for each of the modules in it."""
        run: Any = type(self).__call__
        for _ in range(max(map(depth, self.originals))):
            run = vmap(run)
        return run(self)

    def _require_like(self, value: Any, shape: Shape, dtype: Any) -> None:
        if not hasattr(value, "dtype") or value.shape != shape or value.dtype != dtype:
            names = ", ".join(type(m).__name__ for m in self._chain)
            found = f"{value.dtype}{list(value.shape)}" if hasattr(value, "dtype") else f"a {type(value).__name__}"
            raise ShapeMismatchError(
                f"parametrize: {names} must return an array of the shape and dtype of the parameter, "
                f"{dtype}{list(shape)}, but returned {found}."
            )

    def invert(self, value: jax.Array) -> None:
        """Change what is stored such that ``value`` is computed."""
        self._require_like(value, self.shape, self.originals[-1].dtype)
        for module in reversed(self._chain):
            if not hasattr(module, "right_inverse"):
                raise TypeError(
                    f"{type(module).__name__} defines no right_inverse(value), so the parametrised value can't be "
                    "assigned; add the method, or assign to what is stored: .parametrizations"
                )
            value = module.right_inverse(value)
        values = value if isinstance(value, tuple) else (value,)
        for variable, new in zip(self.originals, values, strict=True):
            variable.value = new

    def edges(self) -> Iterator[tuple[str, Any]]:
        """The variables, then the modules under their numbers."""
        for name, value in self.__dict__.items():
            if name != "_chain":
                yield name, value
        yield from self._chain.edges()

    def __len__(self) -> int:
        return len(self._chain)

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[Any]:
        return iter(self._chain)

    def __getitem__(self, index: int) -> Any:
        return self._chain[index]


class Computed(ArrayMethods):
    """What a layer finds in place of a parameter: an array, computed at each reading of its ``value``.

    It can be used as a parameter can, as far as that makes sense for something that is not stored.
    """

    __slots__ = ("_source",)

    def __init__(self, source: ParametrizationList) -> None:
        self._source = source

    @property
    def value(self) -> jax.Array:
        """The array. Assigning changes what is stored, by the ``right_inverse`` of the parametrisations."""
        return self._source.compute()

    @value.setter
    def value(self, new: Any) -> None:
        self._source.invert(as_array(new, self, self.dtype))

    @property
    def shape(self) -> Any:
        """The shape, with ``None`` for sizes that are not known yet. Assigning fills in unknown sizes."""
        return self._source.shape

    @shape.setter
    def shape(self, new: Any) -> None:
        self._source.complete(new)

    @property
    def known_shape(self) -> tuple[int, ...]:
        """The shape, when every size is known."""
        source = self._source
        return source.originals[-1].known_shape if source._shape is None else self.shape

    @property
    def dtype(self) -> Any:
        """The dtype of the array."""
        return self._source.originals[-1].dtype

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return len(self.shape)

    @property
    def name(self) -> str:
        """The path of what is stored."""
        return self._source.originals[-1].name

    @property
    def trainable(self) -> bool:
        """Whether anything that it is computed from is trained."""
        return any(v.trainable for v in self._source.originals)

    @property
    def init(self) -> Any:
        """The initializer of what is stored, if it has one."""
        return self._source.originals[-1].init

    def described(self) -> str:
        return f"the parametrised {self._source.originals[-1].described()}"

    def __repr__(self) -> str:
        names = ", ".join(type(m).__name__ for m in self._source)
        return f"Computed(shape={show_shape(self.shape)}, dtype={self.dtype}, by {names})"


def _first(_: None, leaves: Any) -> Any:
    return leaves[0]


jax.tree_util.register_pytree_node(Computed, lambda x: ((x.value,), None), _first)


def parametrize(module: Layer, name: str, parametrization: Module) -> Layer:
    """Let a parameter of a layer be computed from what is stored in its place.

    From then on the layer reads ``parametrization(original)`` wherever it read the parameter, which lives
    on as ``parametrizations.<name>.original``, is trained, saved and loaded under that name, and keeps its value.
    A second parametrisation of the same parameter is applied to the result of the first.

    If the parametrisation has a method ``right_inverse(value)``, its result is stored instead of the value:
    one array, or a tuple of them, which are then called ``original0``, ``original1``, ... and given to the
    parametrisation as arguments. It also makes ``layer.weight.value = ...`` work.

    Args:
        module: the layer, which is changed.
        name: the attribute, a parameter or buffer.
        parametrization: a module from what is stored to an array of the parameter's shape and dtype.

    Returns:
        The layer.

    Raises:
        ValueError: the layer has no parameter of this name.
        DeferredShapeError: the parametrisation has a ``right_inverse``, which needs the value of the
            parameter, but its shape is not known yet.
        ShapeMismatchError: the parametrisation returns something of another shape or dtype.

    Example:
        >>> from brickwork import nn
        >>> import jax.numpy as jnp
        >>> class Symmetric(nn.Module):
        ...     def forward(self, x):
        ...         return jnp.triu(x) + jnp.triu(x, 1).T
        >>> layer = nn.parametrize(nn.Linear(3, in_features=3), "weight", Symmetric())
        >>> bool((layer.weight == layer.weight.T).all())
        True
        >>> list(layer.state_dict())
        ['bias', 'parametrizations.weight.original']

    Reference:
        ``torch.nn.utils.parametrize.register_parametrization``.
    """
    if not isinstance(module, ModuleBase):
        raise TypeError(f"parametrize: module must be a module, got a {type(module).__name__}.")
    if not isinstance(parametrization, ModuleBase):
        kind = type(parametrization).__name__
        raise TypeError(f"parametrize: parametrization must be a module that computes {name}, got a {kind}.")
    if is_parametrized(module, name):
        _append(_sources(module)[name], parametrization)
        return module
    variable = module.__dict__.get(name) if isinstance(name, str) else None
    if not isinstance(variable, Variable):
        names = [n for n, v in module.__dict__.items() if isinstance(v, Variable)]
        raise ValueError(f"parametrize: {type(module).__name__} has no parameter {name!r}; it has {names}.")
    source = _source(variable, parametrization, list(module.__dict__).index(name))
    _swap_class(module, (*_names(module), name))
    del module.__dict__[name]
    if _PLACE not in module.__dict__:
        setattr(module, _PLACE, TrackedDict())
    _sources(module)[name] = source
    module.touched()
    return module


def remove_parametrizations(module: Layer, name: str, leave_parametrized: bool = True) -> Layer:
    """Make a parametrised parameter an ordinary one again.

    Args:
        module: the layer, which is changed.
        name: the attribute.
        leave_parametrized: whether it keeps the value that was computed; otherwise it gets the one that was stored.

    Returns:
        The layer.

    Raises:
        ValueError: the attribute is not parametrised, or it is computed from several variables, of which none
            is the parameter.

    Example:
        >>> from brickwork import nn
        >>> layer = nn.weight_norm(nn.Linear(3, in_features=2))
        >>> list(nn.remove_parametrizations(layer, "weight").state_dict())
        ['weight', 'bias']

    Reference:
        ``torch.nn.utils.parametrize.remove_parametrizations``.
    """
    if not is_parametrized(module, name):
        raise ValueError(f"remove_parametrizations: {name!r} of {type(module).__name__} is not parametrised.")
    source = _sources(module)[name]
    variable = source.originals[-1]
    checks.flag(leave_parametrized, "remove_parametrizations", "leave_parametrized")
    if not leave_parametrized and source._count:
        raise ValueError(
            f"remove_parametrizations: {name!r} is computed from {source._count} variables, so none of them can take "
            "its place; pass leave_parametrized=True."
        )
    if leave_parametrized:
        value = source.compute()
        if variable.shape == value.shape:
            variable.value = value
        else:
            kind = Parameter if isinstance(variable, Parameter) else Buffer
            stacked, variable = depth(variable), kind(value)
            variable._stacked = stacked
    remaining = tuple(n for n in _names(module) if n != name)
    del _sources(module)[name]
    if not remaining:
        delattr(module, _PLACE)
    _swap_class(module, remaining)
    setattr(module, name, variable)
    attributes = list(module.__dict__.items())
    attributes.insert(source._position, attributes.pop())
    module.__dict__.clear()
    module.__dict__.update(attributes)
    return module


def is_parametrized(module: Any, name: str | None = None) -> bool:
    """Whether a parameter of a layer is computed from others, or any of them is if no name is given.

    Args:
        module: a layer.
        name: an attribute.

    Example:
        >>> from brickwork import nn
        >>> layer = nn.weight_norm(nn.Linear(3))
        >>> nn.is_parametrized(layer, "weight"), nn.is_parametrized(layer, "bias")
        (True, False)

    Reference:
        ``torch.nn.utils.parametrize.is_parametrized``.
    """
    names = _names(module)
    return bool(names) if name is None else name in names


def recipes(module: Any) -> Iterator[tuple[str, str, dict[str, Any], Shape]]:
    """How to parametrise a new layer as this one: attribute, function, its arguments, and the attribute's shape."""
    for name in _names(module):
        for parametrization in _sources(module)[name]:
            known = getattr(parametrization, "recipe", None)
            function, arguments = known() if known else ("parametrize", {"parametrization": parametrization})
            yield name, function, arguments, _sources(module)[name].shape


# -- what is stored --------------------------------------------------------------------------------


def _source(variable: Variable, parametrization: Any, position: int) -> ParametrizationList:
    """The list for one variable, with its value kept where the parametrisation has an inverse."""
    shape: Shape | None = None
    originals, single = [variable], True
    if hasattr(parametrization, "originals"):  # ours, which know what to store before there are values
        originals = parametrization.originals(variable)
        single = len(originals) == 1
    elif hasattr(parametrization, "right_inverse"):
        if None in variable.shape:
            raise DeferredShapeError(
                f"parametrize: right_inverse of {type(parametrization).__name__} needs the value of "
                f"{variable.described()}, whose shape {show_shape(variable.shape)} is not known yet. Call the network "
                "on data once before, give it the shape of its input with net.initialize(bw.spec(...)), or give the "
                "size when constructing the layer."
            )
        shape = variable.known_shape
        stored = parametrization.right_inverse(variable.value)
        originals, single = _stored(variable, stored), not isinstance(stored, tuple)
    source = ParametrizationList(originals, single, shape, position)
    _append(source, parametrization)
    return source


def _stored(variable: Variable, stored: Any) -> list[Variable]:
    """Variables for what is to be stored; the old one, if it can hold it."""
    if not isinstance(stored, tuple):
        if stored.shape == variable.shape and stored.dtype == variable.dtype:
            variable.value = stored
            return [variable]
        stored = (stored,)
    if isinstance(variable, Parameter):
        return [Parameter(x, trainable=variable.trainable) for x in stored]
    return [Buffer(x, persistent=variable.persistent) for x in stored]


def _append(source: ParametrizationList, parametrization: Any) -> None:
    source._chain.append(parametrization)
    if None in source.shape:
        return  # seen to at the first reading
    try:
        source.complete(source.shape)
        values = [jax.ShapeDtypeStruct(v.known_shape, v.dtype) for v in source.originals]
        found = _abstract(source, values)
        source._require_like(found, source.shape, source.originals[-1].dtype)
    except BaseException:
        source._chain.pop()
        raise


def _abstract(source: ParametrizationList, values: list[Any]) -> Any:
    """The shape of what is computed; nothing is, and no state changes."""
    from ..core import dry_run

    def run(*arrays: Any) -> Any:
        value: Any = arrays
        for module in source._chain:
            value = module(*value) if isinstance(value, tuple) else module(value)
        return value

    return dry_run(run, *values)


# -- the class of a parametrised layer -------------------------------------------------------------

_classes: dict[tuple[type, tuple[str, ...]], type] = {}


class _Attribute:
    """A parametrised attribute, in the class of the layer that has it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, module: Any, owner: type) -> Any:
        return self if module is None else Computed(_sources(module)[self.name])

    def __set__(self, module: Any, value: Any) -> None:
        raise StructureError(
            f"{type(module).__name__}.{self.name} is computed by its parametrisation. Assign an array to "
            f".{self.name}.value, or call nn.remove_parametrizations(layer, {self.name!r}) first."
        )


_PLACE = "parametrizations"


def _sources(module: Any) -> TrackedDict:
    return module.__dict__[_PLACE]


def _names(module: Any) -> tuple[str, ...]:
    return getattr(type(module), "_parametrized", ())


def _swap_class(module: Any, names: tuple[str, ...]) -> None:
    base = type(module).__mro__[1] if _names(module) else type(module)
    object.__setattr__(module, "__class__", _class_of(base, names))


def _class_of(base: type, names: tuple[str, ...]) -> type:
    """The class of layers of a class with parametrised attributes; one for all of them, so that they compare equal."""
    if not names:
        return base
    if (base, names) not in _classes:
        settings = {
            "__module__": base.__module__,
            "__doc__": base.__doc__,
            "__reduce_ex__": _reduce,
            "keeps_nothing": vars(base)["keeps_nothing"],
            "_parametrized": names,
            "former_names": property(_former_names),
            **{name: _Attribute(name) for name in names},
        }
        _classes[base, names] = type(f"Parametrized{base.__name__}", (base,), settings)
    return _classes[base, names]


def class_without(module: Any, names: Iterable[str]) -> type:
    """The class of layers like this one, in which attributes of some names aren't computed but can be set."""
    present, given = _names(module), set(names)
    remaining = tuple(n for n in present if n not in given)
    return type(module) if remaining == present else _class_of(type(module).__mro__[1], remaining)


def _former_names(module: Any) -> dict[str, str]:
    """The names under which earlier releases of PyTorch keep what stands behind a parametrised attribute."""
    found: dict[str, str] = dict(type(module).__mro__[1].former_names)
    for name, source in _sources(module).items():
        suffixes = getattr(source[0], "former_suffixes", {}) if len(source) == 1 else {}
        found |= {f"{name}{suffix}": f"{_PLACE}.{name}.{path}" for suffix, path in suffixes.items()}
    return found


def _reduce(self: Any, protocol: Any) -> Any:
    return _empty, (type(self).__mro__[1], _names(self)), self.__getstate__()


def _empty(base: type, names: tuple[str, ...]) -> Any:
    kind: Any = _class_of(base, names)
    return kind.__new__(kind)
