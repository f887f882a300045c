"""The public :class:`Module`: the mechanism of ``core`` with files and summaries."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from ._draw import Initializer
from ._elsewhere import missing_from
from ._hooks import Capture, HookHandle, add_hook
from ._state import LoadReport, load_state, state_of
from .core import ModuleBase, Parameter, dry_run
from .core._arrays import check_dtype
from .core._epoch import bump
from .core._patterns import no_match
from .core._places import check_fits
from .errors import DeviceMismatchError

if TYPE_CHECKING:
    from typing import Self

_methods: dict[str, Callable[..., Any]] = {}


def implement(**functions: Callable[..., Any]) -> None:
    """Enter what methods of :class:`Module` call that stands above it: files know the layers, which know ``Module``."""
    _methods.update(functions)


def _above(name: str) -> Callable[..., Any]:
    if name not in _methods:
        import_module(f"{__package__}.io")  # enters them; not before, because it takes its time
    return _methods[name]


class Module(ModuleBase):
    """Base class of layers and networks.

    Write ``__init__``, in which parameters and other modules become attributes, and ``forward``.
    Attributes are the registry: modules, variables, and lists, tuples and dicts of them are found,
    however deeply nested. Names are paths: ``hidden.weight``, ``layers.0.bias``. The same object in
    two places is tied: it is counted, trained and saved once.

    A layer whose parameters' shapes depend on its input leaves those sizes ``None`` and defines
    ``build(self, *inputs)``, which completes them; it is called once, before the first ``forward``.

    An attribute that was renamed keeps opening old files with ``former_names = {"fc": "head"}`` in the class: what a
    state has below ``fc`` is taken for ``head``.

    Calling a module eagerly runs it operation by operation; inside :func:`brickwork.compile` it
    becomes part of one XLA program.

    Example:
        >>> import brickwork as bw
        >>> from brickwork import nn
        >>> import jax, jax.numpy as jnp
        >>> class MLP(bw.Module):
        ...     def __init__(self, width=256):
        ...         self.hidden = nn.Linear(width)
        ...         self.out = nn.Linear(10)
        ...
        ...     def forward(self, x):
        ...         return self.out(jax.nn.relu(self.hidden(x)))
        >>> net = MLP()
        >>> net
        MLP(
          (hidden): Linear(? → 256)
          (out): Linear(? → 10)
        )
        >>> net(jnp.ones((2, 20))).shape
        (2, 10)
        >>> [name for name, _ in net.named_parameters()]
        ['hidden.weight', 'hidden.bias', 'out.weight', 'out.bias']
    """

    __slots__ = ()

    former_names: Mapping[str, str] = MappingProxyType({})

    if not TYPE_CHECKING:  # to which every name would be an attribute
        __getattr__ = missing_from

    # -- hooks ---------------------------------------------------------------------------------

    def register_forward_hook(self, fn: Callable[..., Any]) -> HookHandle:
        """Call ``fn(module, args, output)`` after every ``forward``.

        A result other than ``None`` replaces the output. Returns a handle with ``remove()``, which is
        a context manager too.
        """
        return add_hook(self, self._bw.hooks, fn)

    def register_forward_pre_hook(self, fn: Callable[..., Any]) -> HookHandle:
        """Call ``fn(module, args)`` before every ``forward``; a result replaces the arguments."""
        return add_hook(self, self._bw.pre_hooks, fn)

    def capture(self, pattern: str = r".*") -> Capture:
        """Record the outputs of inner modules whose path matches ``pattern`` in full.

        Example:
            >>> import brickwork as bw
            >>> from brickwork import nn
            >>> import jax.numpy as jnp
            >>> net = nn.Sequential(nn.Linear(4), nn.ReLU())
            >>> with net.capture(r"0") as acts:
            ...     out = net(jnp.ones((2, 3)))
            >>> acts["0"].shape
            (2, 4)
        """
        found: dict[str, Any] = {}
        for path, module in self.named_modules(pattern):
            if path:
                found.setdefault(path, module)  # the outer one, where a module inside adds nothing to the path
        if not found:
            raise no_match("capture", pattern, [path for path, _ in self.named_modules() if path])
        return Capture(list(found.items()))

    # -- changing all of it --------------------------------------------------------------------

    def apply(self, fn: Callable[[Any], Any]) -> Self:
        """Call ``fn(module)`` on every module inside, children first, then on this one."""
        _apply(self, fn, set())
        return self

    def train(self, mode: bool = True) -> Self:
        """Put this module and all inside it into training mode (or, with ``False``, evaluation)."""
        _set_training(self, bool(mode), set())
        return self

    def eval(self) -> Self:
        """Put this module and all inside it into evaluation mode."""
        return self.train(False)

    def freeze(self, pattern: str | None = None) -> Self:
        """Stop training the parameters whose path matches in full (all without a pattern)."""
        for parameter in self._matching("freeze", pattern):
            parameter.trainable = False
        return self

    def _matching(self, what: str, pattern: str | None) -> list[Parameter]:
        """The parameters that a pattern matches; at least one."""
        found = self.parameters(pattern)
        if pattern is not None and not found:
            raise no_match(what, pattern, [path for path, _ in self.named_parameters()])
        return found

    def unfreeze(self, pattern: str | None = None) -> Self:
        """Train the parameters whose path matches in full (all without a pattern)."""
        for parameter in self._matching("unfreeze", pattern):
            parameter.trainable = True
        return self

    def initialize(self, *specs: Any, init: Any = None, pattern: str | None = None) -> Self:
        """Infer shapes and draw initial values.

        Args:
            *specs: what the network will be called with, as :func:`brickwork.spec` or arrays. Every
                shape is inferred by abstract evaluation; nothing is computed and no parameter is
                allocated. Without ``init`` values are then drawn when first read.
            init: an initializer for the parameters of two or more dimensions, or, with ``pattern``,
                for whatever matches. It is used at once where the shape is known, and later where
                not. Parameters drawn already are drawn again.
            pattern: a regular expression that must match the whole path of a parameter.

        Returns:
            This module.
        """
        for spec in specs:
            if isinstance(spec, Initializer):
                raise TypeError(f"initialize: pass the initializer by name: initialize(init={spec!r})")
        _refuse_shapes("initialize", specs)
        matching = self._matching("initialize", pattern)
        if specs:
            dry_run(self, *specs)
            matching = self._matching("initialize", pattern)  # building may have replaced some
        for variable in matching:
            chosen = init if pattern is not None or len(variable.shape) - variable.stacked >= 2 else None
            if chosen is None and variable.init is None:
                continue  # given by value: there is nothing to draw from
            if specs and init is None:
                variable.initialize_later()
            else:
                variable.initialize(chosen)
        return self

    def to(self, target: Any) -> Self:
        """Move to a device or sharding, or convert floating-point variables to a dtype.

        Args:
            target: a ``jax.Device``, a ``jax.sharding.Sharding``, or a floating-point dtype.
        """
        if isinstance(target, str) and target.split(":")[0] in ("cpu", "gpu", "cuda", "tpu"):
            raise TypeError(
                f"to: expected a jax.Device, a sharding or a dtype, got {target!r} (str); a device is bw.cpu(), "
                "bw.gpu(0) or one of jax.devices()"
            )
        if target is None:
            raise TypeError("to: expected a jax.Device, a sharding or a dtype, got None")
        if isinstance(target, (jax.Device, jax.sharding.Sharding)):
            for path, variable in self.named_variables():  # all of them or none
                check_fits(variable.shape, target, f"to: {type(variable).__name__} {path!r}")
            for variable in self.variables():
                variable.move(target)
        else:
            try:
                dtype = check_dtype(target, "to")
            except TypeError:
                raise TypeError(
                    f"to: expected a jax.Device, a sharding or a dtype, got {target!r} ({type(target).__name__})"
                ) from None
            if not jnp.issubdtype(dtype, jnp.inexact):
                raise TypeError(f"to: parameters are floating-point, so dtype {dtype} can't hold them")
            for variable in self.variables():
                variable.cast(dtype)
        bump()
        return self

    @property
    def device(self) -> Any:
        """The device (or sharding) that all variables are on; ``None`` while there are no values.

        Raises:
            DeviceMismatchError: they are on different devices.
        """
        found: dict[Any, str] = {}
        for path, variable in self.named_variables():
            if variable.is_drawn:
                found.setdefault(variable.device, path)
        if len(found) > 1:
            places = ", ".join(f"{path} on {device}" for device, path in found.items())
            raise DeviceMismatchError(
                f"{type(self).__name__} is spread over several devices: {places}. Move it with net.to(device)."
            )
        return next(iter(found), None)

    # -- state ---------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, jax.Array]:
        """The values of all parameters and persistent buffers by path; a tied one once.

        Raises:
            DeferredShapeError: a shape is not known yet.
        """
        self.prepare_state()
        return state_of(self)

    def prepare_state(self, names: Iterable[str] = ()) -> None:
        """Called before the state is read, or replaced by one with ``names``, for modules that create some late."""

    def load_state_dict(
        self, state: Any, strict: bool = True, rename: dict[str, str] | Callable[[str], str] | None = None
    ) -> LoadReport:
        """Take over values by path; all of them or, when something doesn't fit, none.

        Shapes that are not known yet are filled from the values; values are converted to the
        variables' dtypes. A tied variable accepts any of its names.

        Args:
            state: a mapping from path to array.
            strict: whether missing and unexpected names are errors. Mismatched shapes always are, and so are
                integers of 8 bits for a parameter of floats (a quantised weight) and fractions for integers.
            rename: ``{pattern: replacement}``, applied with ``re.sub``, or a function on names.

        Raises:
            LoadError: the state doesn't fit; the message lists everything that is wrong.
        """
        return load_state(self, state, strict=strict, rename=rename)

    def clone(self) -> Self:
        """A deep copy in which tied variables stay tied."""
        return copy.deepcopy(self)

    # -- files and description -----------------------------------------------------------------

    def save(self, path: str | os.PathLike[str], architecture: bool = False) -> None:
        """Write parameters and persistent buffers to a safetensors file, a tied one once.

        The file is replaced atomically: it holds the old contents or the new.

        Args:
            path: where to. No ending is added.
            architecture: whether the file is to say how to build the network as well, so that
                :func:`brickwork.load_module` can. To make sure, a network is built by it and compared with this one.

        Raises:
            DeferredShapeError: a shape is not known yet; nothing is written.
            TypeError: the architecture holds something that can't be recorded; nothing is written.
            CheckpointError: the file can't be written.
        """
        _above("save")(self, path, architecture)

    def load(
        self,
        path: str | os.PathLike[str],
        strict: bool = True,
        rename: dict[str, str] | Callable[[str], str] | None = None,
        prefix: str = "",
    ) -> LoadReport:
        """Take over parameters and buffers from a file; shapes not known yet are filled from it.

        Names and layouts of other frameworks become those of the network. Files of PyTorch and Paddle must have the
        network's names; files of MXNet's Gluon too, but for the numbers of positions, since its layers contain their
        activations. Keras makes up names: layers are found by the names that were given to them or to attributes,
        then by their order among layers of one kind, then by what fits nowhere else, and never by a guess. Behind a
        flattened image the inputs of a dense layer are put into the order of channels first, if the file (a whole
        model) or the network (by an ``nn.Flatten``) says that it is one. What only PyTorch counts,
        ``num_batches_tracked``, stays as it is.

        Args:
            path: a file that :meth:`save` wrote, any safetensors file, or one of PyTorch, MXNet, Paddle, Keras or
                TensorFlow; see :func:`brickwork.load`.
            strict: whether names that are missing or unexpected are errors.
            rename: ``{pattern: replacement}``, applied to the file's own names with ``re.sub``, or a
                function on names; those are the names that :func:`brickwork.load` gives.
            prefix: take only what has a name that begins so, and drop that from the names, before ``rename``. Names in
                a nest of dicts, such as a training checkpoint, are its keys joined with dots: ``prefix="model."``.

        Returns:
            What was missing or unexpected.

        Example:
            >>> import os, tempfile
            >>> import brickwork as bw
            >>> from brickwork import nn
            >>> net = nn.Sequential(nn.Linear(3, in_features=2), nn.Linear(1, in_features=3))
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     path = os.path.join(folder, "run.safetensors")
            ...     bw.save(path, {"epoch": 3, "model": net.state_dict()})
            ...     report = net[1].load(path, prefix="model.1.")  # a part of the file into a part of the network
            >>> report
            LoadReport(missing=[], unexpected=[], mismatched=[])

        Raises:
            LoadError: the contents don't fit, or it can't be told which layer is which; the network stays as it was.
            CheckpointError: the file can't be read.
        """
        return _above("load")(self, path, strict=strict, rename=rename, prefix=prefix)

    def summary(self, *specs: Any) -> Any:
        """A table of path, layer, output shape and parameters, to be printed.

        Args:
            *specs: what the network would be called with, as :func:`brickwork.spec` or arrays;
                nothing is computed. Without them output shapes are left out.
        """
        from .inspect import summarize

        _refuse_shapes("summary", specs)
        return summarize(self, *specs)


def _set_training(module: Module, mode: bool, seen: set[int]) -> None:
    """Set the mode of a module and all inside; one that has a ``train`` of its own does so itself."""
    seen.add(id(module))
    module.training = mode
    for child in module.children():
        if id(child) not in seen:
            if type(child).train is Module.train:
                _set_training(child, mode, seen)
            else:
                seen.add(id(child))
                child.train(mode)


def _refuse_shapes(what: str, specs: tuple[Any, ...]) -> None:
    for spec in specs:
        if isinstance(spec, tuple) and all(isinstance(n, int) for n in spec):
            raise TypeError(f"{what}: {spec} is a shape; pass bw.spec{spec}")


def _apply(module: Module, fn: Callable[[Any], Any], seen: set[int]) -> None:
    seen.add(id(module))
    for child in module.children():
        if id(child) not in seen:
            _apply(child, fn, seen)
    fn(module)
