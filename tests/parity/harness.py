"""Comparing a layer with PyTorch's: its state moved over by name; outputs, all gradients, and updated buffers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

import brickwork as bw

# The precision of each dtype: (relative tolerance, numpy's name, torch's, jax's)
_DTYPES: dict[str, tuple[float, Any, Any]] = {
    "float32": (1e-5, torch.float32, jnp.float32),
    "float64": (1e-12, torch.float64, jnp.float64),
    "bfloat16": (2e-2, torch.bfloat16, jnp.bfloat16),
}


def normal(seed: int, *shape: int) -> np.ndarray:
    """Standard normal numbers, float64."""
    return np.random.default_rng(seed).standard_normal(shape)


def to_numpy(tensor: Any) -> np.ndarray:
    """A tensor's or array's values; bfloat16 as float32."""
    if isinstance(tensor, torch.Tensor):
        tensor = tensor.detach()
        return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    array = np.asarray(tensor)
    return array.astype(np.float32) if array.dtype == jnp.bfloat16 else array


def assert_close(found: Any, expected: Any, tolerance: float, what: str) -> None:
    """Equal but for rounding, which grows with the largest number involved."""
    found, expected = to_numpy(found), to_numpy(expected)
    assert found.shape == expected.shape, f"{what}: {found.shape}, but torch {expected.shape}"
    with np.errstate(invalid="ignore"):
        finite = np.abs(expected[np.isfinite(expected)])
    scale = max(float(finite.max(initial=0)), 1e-3)
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance * scale, err_msg=what)


def tensors_in(result: Any) -> list[Any]:
    """The arrays of a nest of tuples, lists and dicts, in order; ``None`` left out."""
    return [leaf for leaf in jax.tree.leaves(result) if hasattr(leaf, "shape")]


def move_state(ours: Any, theirs: Any) -> None:
    """Load torch's state dict by name; both must have the same names, shapes and kinds of numbers."""
    state = {name: _as_jax(t) for name, t in theirs.state_dict().items()}
    ours.load_state_dict(state)
    assert list(ours.state_dict()) == list(state)


def _as_jax(t: Any) -> jax.Array:
    return jnp.asarray(to_numpy(t)).astype(jnp.bfloat16) if t.dtype == torch.bfloat16 else jnp.asarray(to_numpy(t))


def compare_layers(
    ours: Any,
    theirs: Any,
    *inputs: Any,
    dtype: str = "float32",
    tolerance: float | None = None,
    training: bool = True,
    gradients: bool = True,
    wrt: Sequence[int] | None = None,
    call: Callable[..., Any] | None = None,
    call_torch: Callable[..., Any] | None = None,
    **keywords: Any,
) -> None:
    """Compare ``ours(*inputs, **keywords)`` with ``theirs``.

    The state of ``theirs`` moves over by name. Compared are the outputs, the gradients of a weighted sum of all of
    them by every input of floats and by every parameter, and the buffers afterwards.

    Args:
        ours: our layer; its sizes may be deferred.
        theirs: PyTorch's.
        *inputs: NumPy arrays (floats are cast to ``dtype``), or anything else, passed as it is.
        dtype: ``"float32"``, ``"float64"`` or ``"bfloat16"``.
        tolerance: relative to the largest number of each array; that of the dtype by default (1e-5, 1e-12, 2e-2).
        training: the mode of both.
        gradients: whether to compare gradients.
        wrt: the inputs by which; all of floats by default.
        call: ``call(layer, *inputs, **keywords)``, to call our layer in another way.
        call_torch: the same for theirs.
        **keywords: arguments of both calls; NumPy arrays become tensors and arrays.
    """
    default, torch_dtype, jax_dtype = _DTYPES[dtype]
    tolerance = default if tolerance is None else tolerance
    call = call or (lambda layer, *a, **k: layer(*a, **k))
    call_torch = call_torch or call
    with jax.enable_x64(True) if dtype == "float64" else contextlib.nullcontext():
        theirs = theirs.to(torch_dtype).train(training)
        ours = ours.to(jax_dtype).train(training)
        move_state(ours, theirs)
        places = [i for i, x in enumerate(inputs) if _is_float(x) and (wrt is None or i in wrt)]
        tensors = [_tensor(x, torch_dtype, gradients and i in places) for i, x in enumerate(inputs)]
        arrays = [_array(x, jax_dtype) for x in inputs]
        their_keywords = {k: _tensor(v, torch_dtype, False) for k, v in keywords.items()}
        our_keywords = {k: _array(v, jax_dtype) for k, v in keywords.items()}
        expected = tensors_in(call_torch(theirs, *tensors, **their_keywords))
        if gradients:
            found, by_input, by_parameter = _differentiate(ours, call, arrays, our_keywords)
        else:
            found = tensors_in(call(ours, *arrays, **our_keywords))
        assert len(found) == len(expected)
        for i, (a, b) in enumerate(zip(found, expected, strict=True)):
            assert_close(a, b, tolerance, f"output {i}")
        for name, buffer in dict(theirs.named_buffers()).items():
            assert_close(ours.state_dict()[name], buffer, tolerance, f"buffer {name}")
        if gradients:
            total = sum((t * torch.tensor(_weights(t.shape)).to(t.dtype)).sum() for t in expected if _is_float(t))
            total.backward()
            for i in places:
                wanted = torch.zeros_like(tensors[i]) if tensors[i].grad is None else tensors[i].grad
                assert_close(by_input[i], wanted, tolerance, f"gradient by input {i}")
            for name, p in theirs.named_parameters():
                wanted = torch.zeros_like(p) if p.grad is None else p.grad
                assert_close(by_parameter[name], wanted, tolerance, f"gradient by {name}")


def _differentiate(layer: Any, call: Any, arrays: list[Any], keywords: Any) -> Any:
    def run(layer: Any, *given: Any) -> Any:
        result = tensors_in(call(layer, *given, **keywords))
        return [y for y in result if _is_float(y)], result

    floats, pull, outputs = bw.vjp(run, layer, *arrays, has_aux=True)
    by_parameter, *by_input = pull([jnp.asarray(_weights(y.shape).astype(y.dtype)) for y in floats])
    return outputs, by_input, by_parameter


def _weights(shape: Any) -> np.ndarray:
    """Different weights for all outputs, so that no mistake cancels."""
    return np.cos(np.arange(int(np.prod(shape)), dtype=np.float64) * 1.7).reshape(tuple(shape)) + 0.1


def _is_float(x: Any) -> bool:
    if isinstance(x, torch.Tensor):
        return x.dtype.is_floating_point
    return hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jnp.floating)


def _tensor(x: Any, dtype: Any, requires_grad: bool) -> Any:
    if isinstance(x, (tuple, list)):
        return type(x)(_tensor(v, dtype, False) for v in x)
    if not isinstance(x, np.ndarray):
        return x
    if not _is_float(x):
        return torch.tensor(x.astype(np.int64) if x.dtype.kind in "iu" else x)
    return torch.tensor(x).to(dtype).requires_grad_(requires_grad)


def _array(x: Any, dtype: Any) -> Any:
    if isinstance(x, (tuple, list)):
        return type(x)(_array(v, dtype) for v in x)
    if not isinstance(x, np.ndarray):
        return x
    if not _is_float(x):
        return jnp.asarray(x.astype(np.int32) if x.dtype.kind in "iu" else x)
    return jnp.asarray(x, dtype)
