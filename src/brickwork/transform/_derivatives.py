"""Derivatives beyond gradients: products with Jacobians, Jacobians, Hessians."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..core._arrays import show_shape
from ..core._jax import is_forward_mode_error, setting
from ..core._manners import unbox
from ..errors import ShapeMismatchError
from ._autodiff import PureCall, result_arrays
from ._lift import is_array
from ._wrt import Argument, Selection, arrange, check_function, check_wrt, select, select_arguments, show

_FLOAT0 = jax.dtypes.float0  # JAX's dtype of derivatives of integers


def vjp(fn: Callable[..., Any], *primals: Any, has_aux: bool = False) -> Any:
    """The value of ``fn``, and the function that takes a cotangent of it back to the arguments.

    Every floating-point array in the arguments counts, and every trainable parameter of the modules in
    them; a module that ``fn`` merely captures is a constant. Anything else (integers, strings, integer
    arrays, random keys, buffers) is passed to ``fn`` as it is and has ``None`` in the result. What ``fn``
    writes is stored once.

    Args:
        fn: a function that returns an array or a nest of arrays.
        *primals: its arguments: arrays, modules, nests of these, anything else.
        has_aux: whether ``fn`` returns a pair ``(result, auxiliary data)``.

    Returns:
        ``(result, pull)``, or ``(result, pull, aux)`` with ``has_aux``. ``pull(cotangent)``, for a
        cotangent like the result, gives a tuple with one entry for each argument, in the form of the
        argument, with a dict from path to array in place of a module. ``None`` in a cotangent stands for
        zeros. ``pull`` may be called many times, and returned from a compiled function.

    Raises:
        TypeError: ``fn`` returns something other than arrays, or a cotangent has another dtype.
        ValueError: a cotangent has another structure or shape than the result.

    Example:
        >>> import brickwork as bw
        >>> from brickwork import nn
        >>> import jax.numpy as jnp
        >>> net, x = nn.Linear(2), jnp.ones((4, 3))
        >>> y, pull = bw.vjp(lambda net, x: net(x), net, x)
        >>> to_net, to_x = pull(jnp.ones_like(y))
        >>> to_net["bias"], to_x.shape
        (Array([4., 4.], dtype=float32), (4, 3))
    """
    check_function("vjp", fn)
    selection = select_arguments("vjp", fn, primals)
    call = PureCall(selection, has_aux, result_arrays)
    out, transpose, extra = jax.vjp(call, selection.values(), has_aux=True)
    aux = call.finish(extra)
    pull = jax.tree_util.Partial(_Pull(selection.place, out), transpose)
    return (out, pull, aux) if has_aux else (out, pull)


class _Pull:
    """What :func:`vjp` does around JAX's transpose. Holds no arrays, so that it can be a constant of a pytree."""

    def __init__(self, place: Any, out: Any) -> None:
        self.place = place
        flat, self.tree = jax.tree_util.tree_flatten_with_path(out)
        self.like = [jax.ShapeDtypeStruct(x.shape, x.dtype) for _, x in flat]
        self.names = [f"vjp: the cotangent{jax.tree_util.keystr(path)}" for path, _ in flat]

    def __call__(self, transpose: Callable[..., Any], cotangent: Any) -> Any:
        parts = _like_tree("vjp: the cotangent", cotangent, self.tree)
        given = [_derivative(name, x, s) for name, x, s in zip(self.names, parts, self.like, strict=True)]
        full = [_zeros(s) if x is None else x for x, s in zip(given, self.like, strict=True)]
        return arrange(self.place, transpose(self.tree.unflatten(full))[0])


def jvp(fn: Callable[..., Any], primals: Any, tangents: Any, has_aux: bool = False) -> Any:
    """The value of ``fn``, and its derivative when its arguments move along ``tangents``.

    Only what has a tangent moves; ``None`` for an argument, or for a part of one, holds it still. What
    ``fn`` writes is stored once. A function with a backward pass of its own (``jax.custom_vjp``), as batch
    normalisation has in training mode, can't be differentiated this way; a gradient of it can, so
    ``bw.jvp(bw.grad(fn, net), ...)``, a product with the Hessian, works.

    Args:
        fn: a function that returns an array or a nest of arrays.
        primals: a tuple of its arguments: arrays, modules, nests of these, anything else.
        tangents: a tuple of directions, each in the form of its argument; for a module a dict from path to
            array, where paths that are missing stand still.
        has_aux: whether ``fn`` returns a pair ``(result, auxiliary data)``.

    Returns:
        ``(result, tangent)``, or ``(result, tangent, aux)`` with ``has_aux``. The tangent has the form of
        the result, with ``None`` for integer arrays.

    Raises:
        TypeError: ``fn`` returns something other than arrays or has no forward-mode derivative; a tangent
            is no array or has another dtype than what it belongs to.
        ValueError: a tangent has another structure or shape than what it belongs to, or an unknown path.

    Example:
        A product of the Hessian with a vector:

        >>> import brickwork as bw
        >>> from brickwork import nn
        >>> import jax.numpy as jnp
        >>> net, x = nn.Linear(1), jnp.ones((4, 3))
        >>> gradient = bw.grad(lambda net: (net(x) ** 2).sum())
        >>> grads, product = bw.jvp(gradient, (net,), ({"bias": jnp.ones(1)},))
        >>> product["bias"]
        Array([8.], dtype=float32)
    """
    check_function("jvp", fn)
    if not isinstance(primals, (tuple, list)) or not isinstance(tangents, (tuple, list)):
        got = f"{type(primals).__name__} and {type(tangents).__name__}"
        raise TypeError(f"jvp: primals and tangents must be tuples, one entry for each argument; got {got}")
    if len(primals) != len(tangents):
        raise ValueError(f"jvp: there are {len(primals)} primals, but {len(tangents)} tangents")
    selection = select_arguments("jvp", fn, tuple(primals))
    given = _Tangents(selection, tangents).found
    moving = [i for i, tangent in enumerate(given) if tangent is not None]
    values = selection.values()
    call = PureCall(selection, has_aux, result_arrays)

    def move(moved: list[Any]) -> Any:
        now = dict(zip(moving, moved, strict=True))
        return call([now.get(i, value) for i, value in enumerate(values)])

    with _forward_mode("jvp", "use bw.vjp"):
        start, direction = [values[i] for i in moving], [given[i] for i in moving]
        out, tangent, extra = jax.jvp(move, (start,), (direction,), has_aux=True)
    aux = call.finish(extra)
    tangent = jax.tree_util.tree_map(lambda t: None if t.dtype == _FLOAT0 else t, tangent)
    return (out, tangent, aux) if has_aux else (out, tangent)


def jacobian(fn: Callable[..., Any], wrt: Any = None, has_aux: bool = False, mode: str = "rev") -> Callable[..., Any]:
    """A function that returns the Jacobian of ``fn``.

    What ``fn`` writes is stored once, as if it had been called directly.

    Args:
        fn: a function that returns an array or a nest of arrays.
        wrt: what to differentiate by, in the forms that :func:`value_and_grad` takes.
        has_aux: whether ``fn`` returns a pair ``(result, auxiliary data)``.
        mode: ``"rev"`` computes it row by row, which is best for few results of many inputs; ``"fwd"``
            column by column, for many results of few inputs.

    Returns:
        A function with the arguments of ``fn`` that returns the Jacobian, or ``(jacobian, aux)`` with
        ``has_aux``. It has the form of the result, with the form of a gradient in place of each array; an
        array of shape ``S`` differentiated by one of shape ``T`` gives an array of shape ``S + T``.

    Raises:
        TypeError, ValueError: as :func:`value_and_grad`, except that any shape can be differentiated;
            TypeError also if ``fn`` has no forward-mode derivative.

    Example:
        >>> import brickwork as bw
        >>> from brickwork import nn
        >>> import jax.numpy as jnp
        >>> net, x = nn.Linear(2), jnp.ones((4, 3))
        >>> {path: j.shape for path, j in bw.jacobian(lambda net: net(x))(net).items()}
        {'weight': (4, 2, 2, 3), 'bias': (4, 2, 2)}
        >>> bw.jacobian(jnp.square)(jnp.array([1.0, 2.0]))
        Array([[2., 0.],
               [0., 4.]], dtype=float32)
    """
    if mode not in ("rev", "fwd"):
        raise ValueError(f'jacobian: mode must be "rev" or "fwd", got {mode!r}')
    transform = jax.jacrev if mode == "rev" else jax.jacfwd
    return _matrix("jacobian", fn, wrt, has_aux, transform, 'use mode="rev"', lambda s, blocks: s.arrange(blocks))


def hessian(fn: Callable[..., Any], wrt: Any = None, has_aux: bool = False) -> Callable[..., Any]:
    """A function that returns the Hessian of ``fn``: all its second derivatives.

    What ``fn`` writes is stored once, as if it had been called directly. It is computed in forward mode
    over reverse mode. For the product with a vector alone, see :func:`jvp`.

    Args:
        fn: a function that returns an array, mostly a scalar, or a nest of arrays.
        wrt: what to differentiate by, in the forms that :func:`value_and_grad` takes.
        has_aux: whether ``fn`` returns a pair ``(result, auxiliary data)``.

    Returns:
        A function with the arguments of ``fn`` that returns the Hessian, or ``(hessian, aux)`` with
        ``has_aux``. It has the form of a gradient, with the form of a gradient again in place of each
        array: by a module, a dict from path to a dict from path to array. An array of shape ``S`` and one
        of shape ``T`` give a block of shape ``S + T``. If ``fn`` doesn't return a scalar, there is one
        Hessian in place of each array in its result, and its shape comes first.

    Raises:
        TypeError, ValueError: as :func:`jacobian`.

    Example:
        >>> import brickwork as bw
        >>> from brickwork import nn
        >>> import jax.numpy as jnp
        >>> net, x = nn.Linear(1), jnp.ones((4, 3))
        >>> h = bw.hessian(lambda net: (net(x) ** 2).sum())(net)
        >>> h["weight"]["bias"].shape, h["bias"]["bias"]
        ((1, 3, 1), Array([[8.]], dtype=float32))
        >>> bw.hessian(lambda x: (x**3).sum())(jnp.array([1.0, 2.0]))
        Array([[ 6.,  0.],
               [ 0., 12.]], dtype=float32)
    """

    def transform(call: Any, has_aux: bool) -> Any:
        return jax.jacfwd(jax.jacrev(call, has_aux=has_aux), has_aux=has_aux)

    def form(selection: Selection, rows: list[Any]) -> Any:
        return selection.arrange([selection.arrange(row) for row in rows])

    advice = "bw.jacobian(bw.grad(fn, wrt), wrt) uses reverse mode twice"
    return _matrix("hessian", fn, wrt, has_aux, transform, advice, form)


def _matrix(
    what: str,
    fn: Callable[..., Any],
    wrt: Any,
    has_aux: bool,
    transform: Callable[..., Any],
    advice: str,
    form: Callable[[Selection, list[Any]], Any],
) -> Callable[..., Any]:
    """A function that returns all derivatives of one kind. ``transform`` gives nested lists of blocks for each
    array in the result, and ``form`` puts them into dicts.
    """
    check_function(what, fn)
    wrt = check_wrt(what, wrt)

    @functools.wraps(fn, updated=())
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        selection = select(what, fn, wrt, args, kwargs)
        call = PureCall(selection, has_aux, _real_arrays)
        promotion = setting("jax_numpy_dtype_promotion")

        def strict(flat: list[Any]) -> Any:
            with jax.numpy_dtype_promotion(promotion):
                return call(flat)

        # JAX joins the unit vectors of all inputs in one array, which strict promotion forbids for mixed dtypes.
        with _forward_mode(what, advice), jax.numpy_dtype_promotion("standard"):
            blocks, extra = transform(strict, has_aux=True)(selection.values())
        aux = call.finish(extra)
        matrix = call.out_tree.unflatten([form(selection, b) for b in call.out_tree.flatten_up_to(blocks)])
        return (matrix, aux) if has_aux else matrix

    return wrapped


def _real_arrays(out: Any) -> Any:
    out = result_arrays(out)
    for path, leaf in jax.tree_util.tree_flatten_with_path(out)[0]:
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            where = f" at {jax.tree_util.keystr(path)}" if path else ""
            raise TypeError(
                f"fn must return floating-point arrays to be differentiated, got {leaf.dtype}{where}; return "
                "anything else as auxiliary data: (result, aux) with has_aux=True"
            )
    return out


@contextmanager
def _forward_mode(what: str, advice: str) -> Iterator[None]:
    """Say what to do where forward mode meets a function that has only a backward pass."""
    try:
        yield
    except TypeError as error:
        if not is_forward_mode_error(error):
            raise
        better = TypeError(
            f"{what}: forward-mode differentiation met a function with a backward pass of its own (jax.custom_vjp), "
            "which says nothing of the forward mode. GroupNorm, InstanceNorm, attention, LSTM and depthwise "
            f"convolutions have one; so has BatchNorm, but not in evaluation mode, net.eval(). Here {advice}"
        )
        for note in getattr(error, "__notes__", ()):
            if note.startswith("  "):  # the module's path, and not JAX's remarks
                better.add_note(note)
        raise better from error


# -- tangents and cotangents -------------------------------------------------------------------


class _Tangents:
    """The tangents of a call, one for each source of the selection; ``None`` for what stands still."""

    def __init__(self, selection: Selection, tangents: Any) -> None:
        self.selection = selection
        self.found: list[Any] = [None] * len(selection.sources)
        for i, tangent in enumerate(tangents):
            if tangent is not None:
                self._argument(selection.argument(i), tangent)

    def _argument(self, argument: Argument, tangent: Any) -> None:
        what = f"jvp: the tangent of argument {self.selection.name_of(argument.position)}"
        parts = _like_tree(what, tangent, argument.tree)
        for leaf, place, name, part in zip(argument.leaves, argument.places, argument.names(), parts, strict=True):
            what = f"jvp: the tangent of argument {name}"
            if isinstance(place, dict):
                self._module(what, place, part)
            elif place is not None:
                self._put(what, place, part)
            elif part is not None and getattr(part, "dtype", None) != _FLOAT0:
                raise _no_derivative(what, leaf)

    def _module(self, what: str, numbers: dict[str, int], given: Any) -> None:
        if given is None:
            return
        if not isinstance(given, Mapping):
            raise TypeError(f"{what} must be a dict from path to array, got {type(given).__name__}")
        for path, part in given.items():
            if path not in numbers:
                near = difflib.get_close_matches(str(path), numbers, n=3, cutoff=0.4) or list(numbers)[:5]
                raise ValueError(
                    f"{what} has an entry {path!r}, which isn't the path of a trainable parameter; "
                    f"did you mean {' or '.join(map(repr, near))}?"
                )
            self._put(f"{what} at {path!r}", numbers[path], part)

    def _put(self, what: str, number: int, part: Any) -> None:
        source = self.selection.sources[number]
        if part is not None and self.found[number] is not None:
            raise ValueError(f"{what} is given twice: the parameter is tied; give one tangent, and None elsewhere")
        if part is not None:
            self.found[number] = _derivative(what, part, source)


def _like_tree(what: str, given: Any, tree: Any) -> list[Any]:
    """The parts of a nest that must have a certain structure."""
    try:
        return tree.flatten_up_to(given)
    except ValueError:
        got = jax.tree_util.tree_structure(given)
        raise ValueError(f"{what} must have the structure {tree}, got {got}") from None


def _derivative(what: str, given: Any, like: Any) -> Any:
    """A tangent or cotangent of ``like``, checked; ``None`` if there is none."""
    given = unbox(given)
    if given is None or getattr(given, "dtype", None) == _FLOAT0:
        return None
    if not jnp.issubdtype(like.dtype, jnp.inexact):
        raise _no_derivative(what, like)
    if not is_array(given) and not isinstance(given, (int, float, complex)):
        raise TypeError(f"{what} must be an array, {show(like)}, got {type(given).__name__}")
    array = jnp.asarray(given)
    if array.shape != like.shape:
        raise ShapeMismatchError(f"{what} has shape {show_shape(array.shape)}, expected {show_shape(like.shape)}")
    if array.dtype == like.dtype:
        return array
    if array.weak_type and jnp.can_cast(array.dtype, like.dtype, "same_kind"):
        return array.astype(like.dtype)
    raise TypeError(f"{what} has dtype {array.dtype}, expected {like.dtype}; convert it with .astype({like.dtype})")


def _no_derivative(what: str, like: Any) -> TypeError:
    return TypeError(f"{what} must be None, since {show(like)} can't be differentiated")


def _zeros(like: jax.ShapeDtypeStruct) -> Any:
    if jnp.issubdtype(like.dtype, jnp.inexact):
        return jnp.zeros(like.shape, like.dtype)
    return np.zeros(like.shape, _FLOAT0)
