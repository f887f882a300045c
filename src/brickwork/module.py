"""The public :class:`Module`: the mechanism of ``core`` with files and summaries."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from typing import Any

from .core import LoadReport, ModuleBase

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

        return summarize(self, *specs)
