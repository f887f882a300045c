"""Differentiation: the engine that all derivatives share, and gradients."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ..core import ModuleBase, Variable
from ..core._calls import describe
from ..core._containers import made_here
from ..core._deferred import is_box
from ._held import refuse_held
from ._lift import Split, is_array
from ._wrt import Selection, check_function, check_wrt, select

_EXPECTED = "fn must return a scalar to be differentiated, got"


def value_and_grad(fn: Callable[..., Any], wrt: Any = None, has_aux: bool = False) -> Callable[..., Any]:
    """A function that returns the value of ``fn`` and its gradient.

    What ``fn`` writes (running statistics, the random stream, a counter) is stored once, as if it had been
    called directly.

    Args:
        fn: a function that returns a scalar, or, with ``has_aux``, a scalar and anything else.
        wrt: what to differentiate by; see below.
        has_aux: whether ``fn`` returns a pair ``(scalar, auxiliary data)``.

    Returns:
        A function with the arguments of ``fn`` that returns ``(value, gradient)``, or
        ``((value, aux), gradient)`` with ``has_aux``. The form of the gradient depends on ``wrt``:

        * a module, a parameter, or a list of these: a dict from path to array. Only trainable parameters
          count; a tied one is there once, with its contributions added. Paths begin at the module; for
          several they begin with its number in the list, and for parameters they are their ``any_name``.
        * a string: such a dict, of the parameters whose path matches this regular expression in full.
          Paths are those of the module among the arguments, or of ``fn`` if it is a module. Of several
          modules they begin with the name of the argument.
        * an integer: the position of an argument, as in ``jax.grad``; the gradient has the form of the
          argument, with a dict from path to array in place of a module.
        * a tuple or list with integers in it: a tuple with one such gradient for each entry, complete in
          itself: an array that belongs to two entries has its whole gradient in both.
        * ``None``: every module among the arguments, or ``fn`` itself if it is one. If there is none,
          argument 0, provided that ``fn`` reads no trainable parameter.

    While a shape is not known yet, ``fn`` is first run once more, abstractly, to infer the shapes.

    Raises:
        TypeError: there is nothing to differentiate by, an argument to differentiate by isn't made of
            floating-point arrays, or ``fn`` does not return a floating-point number.
        ValueError: ``fn`` does not return a scalar, a pattern matches nothing, or there is no argument at
            a position.

    Example:
        >>> import brickwork as bw
        >>> from brickwork import nn
        >>> import jax.numpy as jnp
        >>> net = nn.Linear(1)
        >>> loss, grads = bw.value_and_grad(lambda x: net(x).sum(), net)(jnp.ones((4, 3)))
        >>> {name: g.shape for name, g in grads.items()}
        {'weight': (1, 3), 'bias': (1,)}
    """
    return _value_and_grad("value_and_grad", fn, wrt, has_aux)


def grad(fn: Callable[..., Any], wrt: Any = None, has_aux: bool = False) -> Callable[..., Any]:
    """Like :func:`value_and_grad`, but returns the gradient only, or ``(gradient, aux)``.

    Example:
        >>> import brickwork as bw
        >>> from brickwork import nn
        >>> import jax.numpy as jnp
        >>> net = nn.Linear(1)
        >>> sorted(bw.grad(lambda x: net(x).sum(), net)(jnp.ones((4, 3))))
        ['bias', 'weight']
        >>> bw.grad(lambda x: (x**2).sum())(jnp.arange(3.0))
        Array([0., 2., 4.], dtype=float32)
        >>> to_net, to_x = bw.grad(lambda net, x: net(x).sum(), wrt=(0, 1))(net, jnp.ones((4, 3)))
        >>> to_net["bias"], to_x.shape
        (Array([4.], dtype=float32), (4, 3))
    """
    both = _value_and_grad("grad", fn, wrt, has_aux)

    @functools.wraps(fn, updated=())
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        value, gradient = both(*args, **kwargs)
        return (gradient, value[1]) if has_aux else gradient

    return wrapped


def backward(fn: Callable[..., Any], wrt: Any = None, has_aux: bool = False) -> Callable[..., Any]:
    """A function that adds the gradients of ``fn`` into ``p.grad`` and returns the value of ``fn``.

    ``opt.step()`` without arguments uses these gradients and clears them. A parameter that ``fn`` doesn't read gets
    none, so that momentum and weight decay leave it as it is too; in the gradients that :func:`grad` returns it has
    zeros. The arguments are those of :func:`value_and_grad`, where ``wrt`` must choose parameters.

    Example:
        >>> import brickwork as bw
        >>> from brickwork import nn
        >>> import jax.numpy as jnp
        >>> net = nn.Linear(1)
        >>> loss = bw.backward(lambda x: net(x).sum(), net)(jnp.ones((4, 3)))
        >>> net.bias.grad
        Array([4.], dtype=float32)
    """
    check_function("backward", fn)
    wrt = check_wrt("backward", wrt)

    @functools.wraps(fn, updated=())
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        selection = select("backward", fn, wrt, args, kwargs)
        parameters = selection.parameters
        if len(parameters) < len(selection.sources):
            raise TypeError(
                f"backward adds gradients to parameters, but wrt={wrt!r:.60} chooses an array among the arguments; "
                "use bw.grad or bw.value_and_grad, which return them"
            )
        selection.read = set()
        out, aux, gradients = _gradients(selection, has_aux)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if id(parameter) not in selection.read:  # it has none, and a step leaves it as it is
                continue
            old = parameter.grad
            parameter.grad = gradient if old is None else old + gradient
        return (out, aux) if has_aux else out

    return wrapped


def _value_and_grad(what: str, fn: Callable[..., Any], wrt: Any, has_aux: bool) -> Callable[..., Any]:
    check_function(what, fn)
    wrt = check_wrt(what, wrt)

    @functools.wraps(fn, updated=())
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        selection = select(what, fn, wrt, args, kwargs)
        out, aux, gradients = _gradients(selection, has_aux)
        return ((out, aux) if has_aux else out), selection.arrange(gradients)

    return wrapped


def _gradients(selection: Selection, has_aux: bool) -> tuple[jax.Array, Any, list[jax.Array]]:
    call = PureCall(selection, has_aux, _scalar)
    (out, extra), gradients = jax.value_and_grad(call, has_aux=True)(selection.values())
    return out, call.finish(extra), gradients


class PureCall:
    """A call as a pure function of the arrays that it is differentiated by, for a transform of JAX.

    JAX is given the object itself, which takes the arrays and returns ``(result, extra)``; auxiliary data
    and what the call wrote go into ``extra``. Hand that to :meth:`finish` outside of the transform.

    Args:
        selection: the call, and the arrays.
        has_aux: whether the function returns a pair of a result and auxiliary data.
        check: what makes of a result one that JAX can differentiate, or complains.
    """

    def __init__(self, selection: Selection, has_aux: bool, check: Callable[[Any], Any]) -> None:
        self.selection, self.has_aux, self.check = selection, has_aux, check
        self.__name__ = getattr(selection.fn, "__name__", type(selection.fn).__name__)

    def __call__(self, flat: list[Any]) -> tuple[Any, list[Any]]:
        with self.selection.frame() as frame:
            out, aux = self.selection.call(frame, flat), None
            if self.has_aux:
                if not isinstance(out, tuple) or len(out) != 2:
                    raise TypeError(f"has_aux=True: fn must return a pair (result, aux), got {describe(out)}")
                out, aux = out
            out = self.check(out)
            self.written, new = frame.writes()
            # A module or variable made in here would leak its tracers, so it goes out as a pytree.
            leaves, self.tree = jax.tree_util.tree_flatten((aux, new), is_leaf=_outlives)
            for leaf in leaves:
                refuse_held(f"{self.selection.what}: {self.__name__}", leaf)
        self.out_tree = jax.tree_util.tree_structure(out)
        self.extra = Split(leaves)
        return out, self.extra.arrays

    def finish(self, arrays: list[Any]) -> Any:
        """Store what the call wrote, one level up, and return the auxiliary data."""
        aux, new = self.tree.unflatten(self.extra.fill(arrays))
        for variable, value in zip(self.written, new, strict=True):
            variable.value = value
        return aux


def _outlives(x: Any) -> bool:
    if not is_box(x):
        return False
    return not made_here(x._trace if isinstance(x, Variable) else x._bw.trace)


def _scalar(out: Any) -> jax.Array:
    if out is None:
        raise TypeError(f"{_EXPECTED} None; is a `return` missing?")
    if isinstance(out, tuple):
        raise TypeError(f"{_EXPECTED} a tuple of {len(out)}; for (loss, anything else) pass has_aux=True")
    if not is_array(out) and not isinstance(out, (bool, int, float, complex, Variable)):
        raise TypeError(f"{_EXPECTED} a {type(out).__name__}")
    array = jnp.asarray(out)
    if array.ndim:
        raise ValueError(f"{_EXPECTED} {array.dtype}{list(array.shape)}; reduce it, for example with .mean()")
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(f"fn must return a floating-point scalar to be differentiated, got {array.dtype}")
    return array


def result_arrays(out: Any) -> Any:
    """A result that is a nest of arrays, with variables as their values."""
    if out is None:
        raise TypeError("fn must return arrays to be differentiated, got None; is a `return` missing?")
    flat, tree = jax.tree_util.tree_flatten_with_path(out, is_leaf=is_box)
    arrays = []
    for path, leaf in flat:
        if isinstance(leaf, ModuleBase) or not (is_array(leaf) or isinstance(leaf, (int, float, complex, Variable))):
            where = f" at {jax.tree_util.keystr(path)}" if path else ""
            raise TypeError(
                f"fn must return arrays to be differentiated, got a {type(leaf).__name__}{where}; return anything "
                "else as auxiliary data: (result, aux) with has_aux=True"
            )
        arrays.append(jnp.asarray(leaf))
    return tree.unflatten(arrays)
