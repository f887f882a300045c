"""Running networks that were exported as programs, and checking the files they are in."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from ...core._jax import Tracer, custom_calls, is_differentiated
from ...errors import CheckpointError, LoadError, MissingExtraError
from .._files import load
from .._paths import checked_path
from ._trees import Sizes, check_template, fill, leaves, show

__all__ = ["FORMAT", "KEY", "PROGRAM", "Exported", "jax_export", "load_exported"]

KEY = "brickwork.exported"  # our entry in the metadata of a file
PROGRAM = "__program__"  # the tensor with the program's bytes
FORMAT = 1
# Code outside of a program that a file may call: XLA's own, and linear algebra. Others run what a file says, such as
# callbacks into Python by address.
_ALLOWED = (
    "AllocateBuffer ApproxTopK Eigh LuDecomposition ProductOfElementaryHouseholderReflectors Qr SPMDFullToShardShape "
    "SPMDShardToFullShape Sharding annotate_device_placement shape_assertion stablehlo.dynamic_approx_top_k "
    "stablehlo.dynamic_reduce_window stablehlo.dynamic_rng_bit_generator stablehlo.dynamic_top_k"
)
_ALLOWED_FAMILIES = ("lapack_", "cusolver_", "hipsolver_", "cusparse_", "cu_", "hip_")


def jax_export() -> Any:
    """The module ``jax.export``, if what it needs is there."""
    try:
        importlib.import_module("flatbuffers")
    except ImportError as error:
        raise MissingExtraError(
            "programs are stored with the package flatbuffers, which isn't installed: pip install 'brickwork[export]'"
        ) from error
    from jax import export

    return export


class Exported:
    """A network out of a file of :func:`export`. Call it as the network was called.

    Attributes:
        parameters: the values of parameters and buffers by name; empty where they are inside of the program.
        platforms: what it runs on.
        versions: of the libraries that it was written with.
    """

    def __init__(self, path: str, about: dict[str, Any], program: Any, values: dict[str, Any], aliases: Any) -> None:
        self.path = path
        self.platforms: tuple[str, ...] = tuple(about["platforms"])
        self.versions: dict[str, str] = about["versions"]
        self.parameters: dict[str, jax.Array] = values
        self._about, self._aliases, self._exported = about, aliases, program
        self._call = jax.jit(program.call)

    def __call__(self, *args: Any) -> Any:
        """Run the program.

        Raises:
            TypeError: another number of arguments; an argument of another structure or dtype; the call is mapped
                over or differentiated.
            ShapeMismatchError: an argument of another shape.
            ValueError: the program isn't for the platform that JAX runs on.
        """
        names, inputs = self._about["input_names"], self._about["inputs"]
        if len(args) != len(inputs):
            raise TypeError(f"{self._title} takes {len(inputs)} arguments ({', '.join(names)}), got {len(args)}")
        sizes = Sizes()
        for name, node, value in zip(names, inputs, args, strict=True):
            sizes.take(node, value, f"{self._title}: {name}")
        self._require_platform(sizes.arrays)
        first = [list(self.parameters.values())] if self._about["parameters"] == "beside" else []
        return fill(self._about["outputs"], iter(self._run(first, sizes.arrays)))

    def _run(self, parameters: Any, arrays: list[Any]) -> Any:
        start = f"{self._title} is compiled as it is and can't be"
        if any(map(is_differentiated, arrays)):
            fix = "Load the network itself, or export the function that computes the gradient."
            raise TypeError(f"{start} differentiated. {fix}")
        try:
            return self._call(*parameters, arrays)
        except NotImplementedError as error:  # how JAX says that there is no rule to map over a program
            if not str(error).startswith("Batching rule"):
                raise
            fix = "Export the function that maps, or the network with an axis of any size."
            raise TypeError(f"{start} mapped over (vmap). {fix}") from error

    @property
    def _title(self) -> str:
        return f"the program of {os.path.basename(self.path)}"

    def _require_platform(self, arrays: list[Any]) -> None:
        known = (x for x in (*self.parameters.values(), *arrays) if not isinstance(x, Tracer))
        devices = next((x.devices() for x in known), None)
        backend = next(iter(devices)).client if devices else jax.devices()[0].client
        name = "cpu" if backend.platform == "cpu" else "tpu" if backend.platform == "tpu" else _gpu(backend)
        if name not in self.platforms:
            raise ValueError(
                f"{self._title} is for {', '.join(self.platforms)}, but its arrays are on a {name} device; export it "
                f"again with platforms=(..., {name!r})"
            )

    def load(self, source: str | os.PathLike[str] | Mapping[str, Any], strict: bool = True) -> None:
        """Replace the parameters by others: those of a file, such as ``net.save`` writes, or of a dict.

        All are replaced or, when something doesn't fit, none.

        Args:
            source: the file, or arrays by name.
            strict: whether missing and unexpected names are errors. Mismatched shapes always are.

        Raises:
            LoadError: they don't fit, or are inside of the program.
            CheckpointError: the file can't be read.
        """
        if self._about["parameters"] != "beside":
            raise LoadError(
                f"{self._title} has its parameters inside, as constants; export it with parameters='beside'"
            )
        if isinstance(source, Mapping):
            what, state, aliases = "the state", dict(source), {}
        else:
            what = os.fspath(source)
            state, info = load(what, with_metadata=True)
            aliases = info.aliases
            if not isinstance(state, dict):
                raise CheckpointError(f"{what}: holds a {type(state).__name__}, not a dict from names to arrays")
        for alias, name in aliases.items():
            if name in state:
                state.setdefault(alias, state[name])
        new = _Replacement(self, state)
        if new.problems or (strict and (new.missing or new.unexpected)):
            raise LoadError(new.explain(what))
        self.parameters = new.values

    def stablehlo(self) -> str:
        """The program as text."""
        return self._exported.mlir_module()

    def __repr__(self) -> str:
        about = self._about
        pairs = zip(about["input_names"], about["inputs"], strict=True)
        inputs = ", ".join(f"{name}: {show(node)}" for name, node in pairs)
        platforms = ", ".join(self.platforms)
        return f"Exported(({inputs}) -> {show(about['outputs'])}, parameters {about['parameters']}, for {platforms})"


def _gpu(client: Any) -> str:
    return "rocm" if "rocm" in str(client.platform_version).lower() else "cuda"


class _Replacement:
    """New values for the parameters of a program, and what is wrong with them."""

    def __init__(self, exported: Exported, state: dict[str, Any]) -> None:
        about, old = exported._about, exported.parameters
        self.values = dict(old)
        self.problems: list[str] = []
        parts: dict[str, Any] = {name: where for name, where in about["parts"].items() if name in state}
        whole: dict[str, np.ndarray] = {}
        for name, (owner, place) in parts.items():
            target = whole.setdefault(owner, np.array(old[owner]))
            index = tuple(slice(None) if i is None else i for i in place)
            if self._fits(name, state[name], target[index].shape):
                target[index] = np.asarray(state[name])
        aliases = {alias: name for alias, name in exported._aliases.items() if alias in state and name not in state}
        found = {name: state[name] for name in old if name in state}
        found |= {name: state[alias] for alias, name in aliases.items()}
        for name, value in (found | whole).items():
            if self._fits(name, value, old[name].shape):
                value = jax.numpy.asarray(value).astype(old[name].dtype)
                self.values[name] = jax.device_put(value, old[name].sharding)
        optional = set(about["optional"])
        self.missing = [name for name in old if name not in found and name not in whole and name not in optional]
        known = {*old, *parts, *exported._aliases, PROGRAM}
        self.unexpected = [name for name in state if name not in known]

    def _fits(self, name: str, value: Any, shape: Any) -> bool:
        fits = tuple(np.shape(value)) == tuple(shape)
        if not fits:
            self.problems.append(f"{name}: the program has {tuple(shape)}, the state {tuple(np.shape(value))}")
        return fits

    def explain(self, what: str) -> str:
        """All that is wrong."""
        groups = (
            ("missing (the program has it, the state does not)", self.missing),
            ("unexpected (the state has it, the program does not)", self.unexpected),
            ("mismatched", self.problems),
        )
        lines = [f"{what} does not fit the program:"]
        for title, items in groups:
            if items:
                more = [f"    ... and {len(items) - 20} more"] if len(items) > 20 else []
                lines += [f"  {title}:", *(f"    {item}" for item in items[:20]), *more]
        return "\n".join(lines)


def load_exported(path: str | os.PathLike[str]) -> Exported:
    """Load a program that :func:`export` has written. The code of the network isn't needed.

    A program computes; it can't do anything else: one that calls code outside of XLA is refused. What was damaged
    on the way is recognised by a checksum. A program that someone made to do harm can take forever, as any computation
    can, or crash JAX's reader of programs, so run only those whose authors you trust that far.

    Args:
        path: the file.

    Raises:
        CheckpointError: there is no such file, it is damaged or of another kind, or it needs a newer JAX.

    Example:
        See :func:`export`.
    """
    path = checked_path(path, "load_exported(path)")
    tree, info = load(path, with_metadata=True)
    text = info.metadata.get(KEY)
    if text is None or not isinstance(tree, dict) or PROGRAM not in tree:
        raise CheckpointError(f"{path}: holds no program of bw.export; read its arrays with bw.load")
    try:
        about = _checked(json.loads(text))
        values = {name: tree[name] for name in about["names"]}
        program = _deserialized(tree.pop(PROGRAM), about, values)
    except KeyError as error:
        raise CheckpointError(f"{path}: damaged program: the tensor {error} is not in the file") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: damaged program: {error}") from error
    return Exported(path, about, program, values, info.aliases)


def _checked(about: Any) -> dict[str, Any]:
    """What a file says about its program, if it is well-formed."""
    if not isinstance(about, dict) or type(about.get("format")) is not int:
        raise ValueError("its description does not say its format")
    if about["format"] > FORMAT:
        raise ValueError(
            f"it has format {about['format']}, and this brickwork reads {FORMAT}; install a newer brickwork"
        )
    for name, kind in (("inputs", list), ("parts", dict), ("versions", dict), ("sha256", str), ("parameters", str)):
        if not isinstance(about.get(name), kind):
            raise ValueError(f"its description has no proper {name!r}")
    for name in ("platforms", "names", "input_names", "optional"):
        if not isinstance(about.get(name), list) or not all(isinstance(x, str) for x in about[name]):
            raise ValueError(f"its description has no proper {name!r}")
    if len(about["inputs"]) != len(about["input_names"]) or about["parameters"] not in ("inside", "beside"):
        raise ValueError("its description contradicts itself")
    for owner, place in _pairs(about["parts"]):
        if owner not in about["names"] or not all(i is None or (type(i) is int and i >= 0) for i in place):
            raise ValueError("its description has no proper 'parts'")
    for node in (*about["inputs"], about.get("outputs")):
        check_template(node)
    return about


def _pairs(parts: dict[str, Any]) -> list[tuple[str, list[Any]]]:
    found = list(parts.values())
    if not all(isinstance(x, list) and len(x) == 2 and isinstance(x[0], str) and isinstance(x[1], list) for x in found):
        raise ValueError("its description has no proper 'parts'")
    return [(owner, place) for owner, place in found]


def _deserialized(stored: Any, about: dict[str, Any], values: dict[str, Any]) -> Any:
    api = jax_export()
    data = bytearray(np.asarray(stored).tobytes())
    if hashlib.sha256(data).hexdigest() != about["sha256"]:
        raise ValueError("the bytes of the program are not those that were written; get the file again")
    version, newest = about.get("calling_convention"), api.maximum_supported_calling_convention_version
    if type(version) is not int:
        raise ValueError("its description has no proper 'calling_convention'")
    if version > newest:
        raise ValueError(
            f"it has the calling convention {version} of JAX {about['versions'].get('jax')}, and JAX {jax.__version__} "
            f"here knows up to {newest}; install a newer JAX"
        )
    if version < api.minimum_supported_calling_convention_version:
        raise ValueError(
            f"it has the calling convention {version} of JAX {about['versions'].get('jax')}, which JAX "
            f"{jax.__version__} no longer knows; export the network again"
        )
    try:
        program = api.deserialize(data)
        calls = custom_calls(program.mlir_module_serialized)
    except Exception as error:  # whatever bytes make a reader of someone else's do
        raise ValueError(f"JAX can't read it: {type(error).__name__}: {error}") from error
    odd = sorted(name for name in calls if name not in _ALLOWED.split() and not name.startswith(_ALLOWED_FAMILIES))
    if odd:
        raise ValueError(f"it calls code outside of XLA, {', '.join(odd)}, which a file may not do")
    expected = [jax.ShapeDtypeStruct(v.shape, v.dtype) for v in values.values()] if values else []
    sizes = [(tuple(map(str, x.shape)), np.dtype(x.dtype).name) for x in expected]
    sizes += [(tuple(map(str, x["shape"])), x["dtype"]) for node in about["inputs"] for x in leaves(node)]
    results = [(tuple(map(str, x["shape"])), x["dtype"]) for x in leaves(about["outputs"])]
    for what, found, told in (("takes", program.in_avals, sizes), ("gives", program.out_avals, results)):
        if [(tuple(map(str, x.shape)), np.dtype(x.dtype).name) for x in found] != told:
            raise ValueError(f"what the program {what} is not what its description says")
    return program
