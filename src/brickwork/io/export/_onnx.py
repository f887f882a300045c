"""Networks as ONNX files, through jax2onnx, checked with ONNX Runtime."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...errors import MissingExtraError
from .._paths import replacing
from ._trees import leaves

__all__ = ["write_onnx"]

_MOST = 2**31 - 1  # bytes of a protocol buffer
_TOLERANCE = 1e-3  # of what ONNX Runtime computes, relative to the largest element


def write_onnx(run: Any, arguments: list[Any], names: list[str], path: str) -> None:
    """Write a program as an ONNX file, with its parameters inside.

    Args:
        run: the program, a function from a list of arrays to a list of arrays.
        arguments: the abstract arrays of its arguments.
        names: those of the arguments of the network.
        path: where to.

    Raises:
        MissingExtraError: a package isn't installed.
        ValueError: jax2onnx can't convert it, or ONNX Runtime doesn't compute the same; nothing is written.
    """
    # jax2onnx replaces functions of jax.numpy while it traces; a program traced before consists of what it expects.
    traced = jax.make_jaxpr(jax.jit(lambda *arrays: run(list(arrays))))(*arguments)
    wide = any(a.dtype.name in ("float64", "complex128") for a in (*arguments, *traced.consts))
    inputs = [name for argument, node in zip(names, run.inputs, strict=True) for name in _names(argument, node)]
    with _unpatched():
        try:
            jax2onnx: Any = importlib.import_module("jax2onnx")
            onnxruntime: Any = importlib.import_module("onnxruntime")
        except ImportError as error:
            raise MissingExtraError(
                f"export: ONNX is written with the package {error.name}, which isn't installed: "
                "pip install 'brickwork[onnx]'"
            ) from error
        try:
            model: Any = jax2onnx.to_onnx(
                _as_function(traced),
                arguments,
                model_name=type(run.net).__name__,
                enable_double_precision=wide,
                input_names=inputs,
                output_names=_names("output", run.outputs),
            )
        except Exception as error:
            raise ValueError(
                f"export: jax2onnx can't convert this network: {_text(error)}. Export it as StableHLO"
            ) from error
    size = model.ByteSize()
    if size > _MOST:
        raise ValueError(
            f"export: the network takes {size:,} bytes, and an ONNX file holds at most {_MOST:,}; export it as "
            "StableHLO"
        )
    data = model.SerializeToString()
    _check(onnxruntime, data, run, arguments)
    with replacing(path) as file:
        file.write(data)


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".rstrip(".")


@contextmanager
def _unpatched() -> Iterator[None]:
    """Undo what jax2onnx changes in JAX when it is imported and used."""
    modules = [m for name, m in sys.modules.items() if name.split(".")[0] == "jax" and "._" not in name]
    before = [(m, {name: x for name, x in vars(m).items() if callable(x)}) for m in modules]
    try:
        yield
    finally:
        for module, functions in before:
            for name, function in functions.items():
                if vars(module).get(name) is not function:
                    setattr(module, name, function)


def _as_function(traced: Any) -> Callable[..., Any]:
    from jax.extend.core import jaxpr_as_fun

    function = jaxpr_as_fun(traced)
    return lambda *arrays: tuple(function(*arrays))


def _names(name: str, node: Any) -> list[str]:
    """Names for the arrays of a nest: ``x``, or ``x_0``, ``x_1`` ..."""
    count = sum(1 for _ in leaves(node))
    return [name] if count == 1 else [f"{name}_{i}" for i in range(count)]


def _check(onnxruntime: Any, data: bytes, run: Any, arguments: list[Any]) -> None:
    """Compare what ONNX Runtime computes on some input with what the network does."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        given = _examples(arguments)
        if given is None:
            return
        named = {x.name: array for x, array in zip(session.get_inputs(), given, strict=True)}
        found = session.run(None, named)
    except Exception as error:  # ONNX Runtime's own, which derive from nothing more special
        raise ValueError(
            f"export: ONNX Runtime can't run what jax2onnx made of this network: {_text(error)}. Export it as StableHLO"
        ) from error
    for got, wanted in zip(found, run([jnp.asarray(x) for x in given]), strict=True):
        expected = np.asarray(wanted, got.dtype)
        scale = float(np.max(np.abs(expected), initial=0.0)) if expected.dtype.kind in "fc" else 0.0
        if got.shape != expected.shape or not np.allclose(got, expected, _TOLERANCE, _TOLERANCE * scale, True):
            raise ValueError(
                "export: ONNX Runtime computes something else than this network with what jax2onnx made of it. Export "
                "it as StableHLO"
            )


def _examples(arguments: list[Any]) -> list[np.ndarray] | None:
    """Arrays that fit; ``None`` where a symbolic size is more than a name."""
    rng = np.random.default_rng(0)
    sizes = [[n if isinstance(n, int) else str(n) for n in x.shape] for x in arguments]
    if not all(isinstance(n, int) or n.isidentifier() for shape in sizes for n in shape):
        return None
    shapes = [[2 if isinstance(n, str) else n for n in shape] for shape in sizes]
    return [
        rng.standard_normal(shape).astype(x.dtype)
        if jnp.issubdtype(x.dtype, jnp.floating)
        else np.zeros(shape, x.dtype)
        for shape, x in zip(shapes, arguments, strict=True)
    ]
