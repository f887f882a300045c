"""Networks as compiled programs in files, which run without the code of the network."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from ..._state import Entry, entries
from ...core import Frame, ModuleBase, Variable, random_stream
from ...core._jax import without_locations
from .._files import save
from .._paths import checked_path
from ._exported import FORMAT, KEY, PROGRAM, Exported, jax_export, load_exported
from ._trees import describe, fill

__all__ = ["export"]

_PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
_FORMATS = ("stablehlo", "onnx")


def export(
    net: Any,
    *specs: Any,
    path: str | os.PathLike[str],
    parameters: str = "beside",
    platforms: Sequence[str] = ("cpu", "cuda", "tpu"),
    format: str = "stablehlo",
) -> Exported | None:
    """Write a network as a program, which runs without its code: StableHLO for JAX, or ONNX for other runtimes.

    A file of StableHLO is a safetensors file: the bytes of the program (``jax.export``), and the parameters and buffers
    as ordinary tensors, which can be replaced by others later.

    The program computes what the network does in the mode that it is in, so that is normally evaluation mode. It has no
    state: a network that writes buffers or draws random numbers is refused.

    Args:
        net: a module whose shapes are known.
        *specs: what it is called with: :func:`brickwork.spec`, arrays, or nests of these. A size may be a name,
            ``bw.spec("batch", 4)``; the program then runs for any such size.
        path: where to. No ending is added; the file is replaced atomically.
        parameters: ``"beside"`` the program, as tensors; or ``"inside"``, as constants of it.
        platforms: what it shall run on: ``"cpu"``, ``"cuda"``, ``"rocm"``, ``"tpu"``.
        format: ``"stablehlo"``; or ``"onnx"``, through the package jax2onnx (``pip install 'brickwork[onnx]'``): a file
            with all inside, for ONNX Runtime and others on whatever they run on. It is written only if ONNX Runtime
            computes the same as the network.

    Returns:
        What :func:`load_exported` gives for the file; ``None`` for ONNX.

    Raises:
        ValueError: the network writes buffers or draws random numbers; an unknown platform.
        TypeError: an argument or a result that is no nest of arrays.
        DeferredShapeError: a shape is not known yet.
        MissingExtraError: a package for the format isn't installed.
        CheckpointError: the file can't be written.

    Example:
        >>> import os, tempfile
        >>> import brickwork as bw
        >>> from brickwork import nn
        >>> import jax.numpy as jnp
        >>> net = nn.Sequential(nn.Linear(3, in_features=4), nn.Dropout(0.5)).eval()
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, "net.safetensors")
        ...     program = bw.export(net, bw.spec("b", 4), path=path)
        ...     program = bw.load_exported(path)
        >>> program
        Exported((x: float32[b, 4]) -> float32[b, 3], parameters beside, for cpu, cuda, tpu)
        >>> program(jnp.ones((2, 4))).shape
        (2, 3)
    """
    net = getattr(net, "__brickwork_module__", net)
    if not isinstance(net, ModuleBase):
        raise TypeError(f"export: net must be a module, got {type(net).__name__}")
    if parameters not in ("inside", "beside"):
        raise ValueError(f"export: parameters must be 'inside' or 'beside', got {parameters!r}")
    if format not in _FORMATS:
        raise ValueError(f"export: format must be one of {', '.join(map(repr, _FORMATS))}, got {format!r}")
    chosen = _checked_platforms(platforms)
    path = checked_path(path, "export(net, *specs, path=path)")
    given: list[Any] = []
    inputs = [describe(spec, f"argument {i}", given) for i, spec in enumerate(specs)]
    named = dict(net.named_variables())
    values = {name: variable.value for name, variable in named.items()}
    beside = parameters == "beside" and format == "stablehlo"
    run = _Program(net, named, None if beside else values, inputs)
    arguments = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in given]
    if format == "onnx":
        from ._onnx import write_onnx

        return write_onnx(run, arguments, _argument_names(net, len(inputs)), path)
    made = _exported(run, [list(values.values())] if beside else [], arguments, chosen)
    program = bytes(made.serialize())
    about = {
        "format": FORMAT,
        "sha256": hashlib.sha256(program).hexdigest(),
        "calling_convention": made.calling_convention_version,
        "platforms": list(chosen),
        "parameters": parameters,
        "inputs": inputs,
        "input_names": _argument_names(net, len(inputs)),
        "outputs": run.outputs,
        "versions": {"brickwork": _version(), "jax": jax.__version__},
        "names": list(values) if beside else [],
        "optional": [name for name, v in named.items() if not v.persistent] if beside else [],
        "parts": _parts(net) if beside else {},
    }
    tree = {PROGRAM: np.frombuffer(program, np.uint8)} | (values if beside else {})
    save(path, tree, metadata={KEY: json.dumps(about)}, aliases=_aliases(net) if beside else None)
    return load_exported(path)


class _Program:
    """The function that is exported: lists of arrays in, a list of arrays out."""

    def __init__(
        self, net: Any, named: dict[str, Variable], constants: dict[str, Any] | None, inputs: list[Any]
    ) -> None:
        self.net, self.named, self.constants, self.inputs = net, named, constants, inputs
        self.outputs: Any = None

    def __call__(self, *lists: list[Any]) -> list[Any]:
        arrays = iter(lists[-1])
        values = lists[0] if self.constants is None else list(self.constants.values())
        args = [fill(node, arrays) for node in self.inputs]
        with Frame() as frame:
            for variable, value in zip(self.named.values(), values, strict=True):
                frame.bind(variable, value)
            found: list[Any] = []
            self.outputs = describe(self.net(*args), "the result", found)
            arrays_out = [x.value if isinstance(x, Variable) else x for x in found]
            self._require_pure(frame)
        return arrays_out

    def _require_pure(self, frame: Frame) -> None:
        written = frame.writes()[0]
        if not written:
            return
        paths = {id(v): name for name, v in self.named.items()}
        names = sorted(paths[id(v)] for v in written if id(v) in paths)
        what = [f"writes {', '.join(names[:5])}{' ...' if len(names) > 5 else ''}"] if names else []
        what += ["draws random numbers"] if any(v is random_stream() for v in written) else []
        what += ["writes variables that aren't part of it"] if not what else []
        training = any(m.training for m in self.net.modules())
        fix = (
            "It is in training mode: call net.eval() first" if training else "Let it take and return such state instead"
        )
        raise ValueError(f"export: the network {' and '.join(what)}, but an exported program has no state. {fix}.")


def _exported(run: _Program, values: list[Any], arguments: list[Any], platforms: tuple[str, ...]) -> Any:
    try:
        with without_locations():  # paths on this machine are nobody's business elsewhere
            return jax_export().export(jax.jit(run), platforms=platforms)(*values, arguments)
    except NotImplementedError as error:
        raise ValueError(
            f"export: the network can't be lowered for all of {', '.join(platforms)}: {error}. Give fewer: "
            f"platforms=({platforms[0]!r},)"
        ) from error


def _checked_platforms(platforms: Any) -> tuple[str, ...]:
    found = (platforms,) if isinstance(platforms, str) else tuple(platforms)
    odd = [p for p in found if p not in _PLATFORMS]
    if odd or not found:
        hint = "; an NVIDIA GPU is 'cuda', an AMD one 'rocm'" if "gpu" in odd else ""
        raise ValueError(f"export: platforms must be some of {', '.join(map(repr, _PLATFORMS))}, got {found}{hint}")
    return found


def _argument_names(net: Any, count: int) -> list[str]:
    parameters = list(inspect.signature(net.forward).parameters.values())
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)][:count]
    return [*names, *(f"argument{i}" for i in range(len(names), count))]


def _version() -> str:
    from ... import __version__

    return __version__


def _aliases(net: Any) -> dict[str, str]:
    """Other names of the parameters, as in the files of ``net.save``."""
    first = {id(v): name for name, v in net.named_variables()}
    names = ((e.name, first[id(e.variable)]) for e in entries(net, aliases=True) if not e.index)
    return {alias: name for alias, name in names if alias != name}


def _parts(net: Any) -> dict[str, list[Any]]:
    """The names that parts of stacked variables have in files, with the variable's and where the part is in it."""
    first = {id(v): name for name, v in net.named_variables()}
    found = (e for e in entries(net, aliases=True) if e.index)
    return {e.name: [first[id(e.variable)], list(_place(e))] for e in found}


def _place(entry: Entry) -> list[int | None]:
    where = dict(zip(entry.axes, entry.index, strict=True))
    return [where.get(axis) for axis in range(max(entry.axes) + 1)]
