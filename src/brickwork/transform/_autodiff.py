"""Differentiation with respect to the parameters of modules."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..core import Frame, ModuleBase, Parameter, dry_run
from ..core._frame import current_frame, note_module
from ..errors import ControlFlowError


def value_and_grad(fn: Callable[..., Any], wrt: Any = None, has_aux: bool = False) -> Callable[..., Any]:
    """A function that returns the value of ``fn`` and its gradient with respect to parameters.

    Args:
        fn: a function that returns a scalar, or, with ``has_aux``, a scalar and anything else.
        wrt: a module, a parameter or a list of parameters; by default every module among the
            arguments. Only trainable parameters count.
        has_aux: whether ``fn`` returns a pair ``(scalar, auxiliary data)``.

    Returns:
        A function with the arguments of ``fn`` that returns ``(value, gradients)``, or
        ``((value, aux), gradients)`` with ``has_aux``. Gradients are a dict from path to array, a tied
        parameter once with its contributions added. With several modules among the arguments, paths
        begin with the name of the argument; for parameters they are their ``any_name``.

    While a shape is not known yet, ``fn`` is first run once more, abstractly, to infer the shapes.

    Raises:
        TypeError: there is nothing to differentiate with respect to.
        ValueError: ``fn`` does not return a scalar.

    Example:
        >>> import brickwork as bw
        >>> from brickwork import nn
        >>> import jax.numpy as jnp
        >>> net = nn.Linear(1)
        >>> loss, grads = bw.value_and_grad(lambda x: net(x).sum(), net)(jnp.ones((4, 3)))
        >>> {name: g.shape for name, g in grads.items()}
        {'weight': (1, 3), 'bias': (1,)}
    """
    if not callable(fn):
        raise TypeError(f"value_and_grad: fn must be a function, got {type(fn).__name__}")
    if wrt is not None:
        _targets(wrt)  # complain now rather than at the first call

    @functools.wraps(fn, updated=())
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        parameters = _parameters(fn, wrt, args, kwargs)
        out, aux, gradients = _differentiate(fn, parameters, has_aux, args, kwargs)
        return ((out, aux) if has_aux else out), gradients

    return wrapped


def grad(fn: Callable[..., Any], wrt: Any = None, has_aux: bool = False) -> Callable[..., Any]:
    """Like :func:`value_and_grad`, but returns the gradients only, or ``(gradients, aux)``.

    Example:
        >>> import brickwork as bw
        >>> from brickwork import nn
        >>> import jax.numpy as jnp
        >>> net = nn.Linear(1)
        >>> sorted(bw.grad(lambda x: net(x).sum(), net)(jnp.ones((4, 3))))
        ['bias', 'weight']
    """
    both = value_and_grad(fn, wrt, has_aux)

    @functools.wraps(fn, updated=())
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        value, gradients = both(*args, **kwargs)
        return (gradients, value[1]) if has_aux else gradients

    return wrapped


def backward(fn: Callable[..., Any], wrt: Any = None, has_aux: bool = False) -> Callable[..., Any]:
    """A function that adds the gradients of ``fn`` into ``p.grad`` and returns the value of ``fn``.

    ``opt.step()`` without arguments uses these gradients and clears them.

    Example:
        >>> import brickwork as bw
        >>> from brickwork import nn
        >>> import jax.numpy as jnp
        >>> net = nn.Linear(1)
        >>> loss = bw.backward(lambda x: net(x).sum(), net)(jnp.ones((4, 3)))
        >>> net.bias.grad
        Array([4.], dtype=float32)
    """
    if wrt is not None:
        _targets(wrt)

    @functools.wraps(fn, updated=())
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        parameters = _parameters(fn, wrt, args, kwargs)
        out, aux, gradients = _differentiate(fn, parameters, has_aux, args, kwargs)
        for path, parameter in parameters.items():
            old = parameter.grad
            parameter.grad = gradients[path] if old is None else old + gradients[path]
        return (out, aux) if has_aux else out

    return wrapped


def _differentiate(
    fn: Callable[..., Any], parameters: dict[str, Parameter], has_aux: bool, args: Any, kwargs: Any
) -> tuple[Any, Any, dict[str, jax.Array]]:
    def pure(values: dict[str, Any]) -> tuple[Any, tuple[Any, Any]]:
        with Frame() as frame:
            for path, parameter in parameters.items():
                frame.bind(parameter, values[path])
            out = fn(*args, **kwargs)
            aux = None
            if has_aux:
                if not isinstance(out, tuple) or len(out) != 2:
                    raise TypeError(f"has_aux=True: fn must return a pair (loss, aux), got {type(out).__name__}")
                out, aux = out
            out = _scalar(out)
            written.extend(frame.writes()[0])
            return out, (aux, frame.writes()[1])

    written: list[Any] = []
    values = {path: p.value for path, p in parameters.items()}
    (out, (aux, new_values)), gradients = jax.value_and_grad(pure, has_aux=True)(values)
    for variable, value in zip(written, new_values, strict=True):
        variable.value = value
    # JAX sorts the keys of dicts; give them back in the order of the network.
    return out, aux, {path: gradients[path] for path in parameters}


def _scalar(out: Any) -> jax.Array:
    if out is None:
        raise TypeError("fn must return a scalar to be differentiated, got None; is a `return` missing?")
    if isinstance(out, tuple):
        raise TypeError(
            f"fn must return a scalar to be differentiated, got a tuple of {len(out)}; for (loss, anything else) "
            "pass has_aux=True"
        )
    if isinstance(out, (dict, list, str)) or not hasattr(jnp.asarray(out) if np.isscalar(out) else out, "dtype"):
        raise TypeError(f"fn must return a scalar to be differentiated, got a {type(out).__name__}")
    array = jnp.asarray(out)
    if array.ndim:
        raise ValueError(
            f"fn must return a scalar to be differentiated, got {array.dtype}{list(array.shape)}; "
            "reduce it, for example with .mean()"
        )
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(f"fn must return a floating-point scalar to be differentiated, got {array.dtype}")
    return array


def _targets(wrt: Any) -> list[Any]:
    """``wrt`` as a list of modules and parameters."""
    wrt = getattr(wrt, "__brickwork_module__", wrt)
    items = [wrt] if isinstance(wrt, (ModuleBase, Parameter)) else wrt
    if isinstance(items, Iterable) and not isinstance(items, (str, dict)):
        found = list(items)
        if found and all(isinstance(x, (ModuleBase, Parameter)) for x in found):
            return found
    raise TypeError(
        f"wrt must be a module, a parameter or a non-empty list of them, got {type(wrt).__name__}: {wrt!r:.80}"
    )


def _parameters(fn: Callable[..., Any], wrt: Any, args: Any, kwargs: Any) -> dict[str, Parameter]:
    """The trainable parameters to differentiate by, by path; shapes are inferred first if need be."""
    if wrt is None:
        named = _named_arguments(fn, args, kwargs)
        if not named:
            raise TypeError(
                "there is no module among the arguments to differentiate by; "
                "pass it as wrt: bw.value_and_grad(fn, net)(x, y)"
            )
    else:
        targets = _targets(wrt)
        named = [("" if len(targets) == 1 else None, t) for t in targets]
    found = _collect(named)
    if any(not p.is_drawable for _, p in found):
        _infer_shapes(fn, args, kwargs)
        found = _collect(named)  # building may have replaced parameters
    if not found:
        raise TypeError("there is no trainable parameter to differentiate by: all are frozen")
    return _unique_names(found)


def _infer_shapes(fn: Callable[..., Any], args: Any, kwargs: Any) -> None:
    try:
        dry_run(fn, *args, **kwargs)
    except ControlFlowError:
        if current_frame() is not None:
            raise
        with Frame():  # the function looks at values: rehearse it with these, forgetting what it writes
            fn(*args, **kwargs)


def _collect(named: list[tuple[str | None, Any]]) -> list[tuple[str, Parameter]]:
    found: list[tuple[str, Parameter]] = []
    seen: set[int] = set()
    for i, (prefix, target) in enumerate(named):
        if isinstance(target, Parameter):
            pairs = [(target.any_name, target)]
        else:
            note_module(target)
            front = "" if prefix == "" else f"{i if prefix is None else prefix}."
            pairs = [(front + path, p) for path, p in target.named_parameters()]
        for path, parameter in pairs:
            if parameter.trainable and id(parameter) not in seen:
                seen.add(id(parameter))
                found.append((path, parameter))
    return found


def _unique_names(found: list[tuple[str, Parameter]]) -> dict[str, Parameter]:
    names = [path for path, _ in found]
    if len(set(names)) == len(names):
        return dict(found)
    return {f"{i}.{path}": p for i, (path, p) in enumerate(found)}


def _named_arguments(fn: Callable[..., Any], args: Any, kwargs: Any) -> list[tuple[str | None, Any]]:
    fn = getattr(fn, "__brickwork_module__", fn)
    args = [getattr(a, "__brickwork_module__", a) for a in args]
    modules = [(i, a) for i, a in enumerate(args) if isinstance(a, ModuleBase)]
    keyed = [(k, a) for k, a in kwargs.items() if isinstance(a, ModuleBase)]
    own = [fn] if isinstance(fn, ModuleBase) and not modules and not keyed else []
    if len(modules) + len(keyed) + len(own) == 1:
        only: ModuleBase = next(iter((*own, *(a for _, a in modules), *(a for _, a in keyed))))
        return [("", only)]
    try:
        names = list(inspect.signature(fn).parameters)
    except (TypeError, ValueError):
        names = []
    positional = [(names[i] if i < len(names) else str(i), a) for i, a in modules]
    return [*positional, *keyed]
