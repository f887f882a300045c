"""The inputs that PyTorch's own test suite gives to its modules, given to both.

By default a dozen inputs of each module, spread over its list; all of them with ``BRICKWORK_ALL_INPUTS=1``.
"""

from __future__ import annotations

import inspect
import os
import warnings
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("expecttest")

from tests.parity.harness import compare_layers  # noqa: E402

from brickwork import functional as F, nn  # noqa: E402

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from torch.testing._internal.common_modules import module_db

MOST = None if os.environ.get("BRICKWORK_ALL_INPUTS") else 12

# Modules of the list that are not here, and why.
ABSENT = {
    "LazyConv1d": "every layer is lazy: Conv1d without in_channels",
    "LazyConv2d": "every layer is lazy",
    "LazyConv3d": "every layer is lazy",
    "LazyConvTranspose1d": "every layer is lazy",
    "LazyConvTranspose2d": "every layer is lazy",
    "LazyConvTranspose3d": "every layer is lazy",
}
# Inputs that don't apply, and why.
LEFT_OUT = {
    (
        "FractionalMaxPool3d",
        "ratio_no_batch_dim",
    ): "samples for a batch of two, of which PyTorch takes the first",
    ("FractionalMaxPool3d", "size_no_batch_dim"): "the same",
}
# Losses whose gradient by the targets PyTorch doesn't have, or has as NaN; of CTC there is another test.
BY_INPUTS_ONLY = {"SoftMarginLoss", "PoissonNLLLoss"}
NO_GRADIENTS = {"CTCLoss"}
# Arguments of constructors that are for torch alone.
TORCH_ONLY = {"device", "dtype", "inplace", "options", "size_average", "reduce", "sparse"}


def options_of(kind: type, given: Any) -> dict[str, Any]:
    """The arguments of a constructor by name, as our layer takes them."""
    bound = inspect.signature(kind).bind(*given.args, **given.kwargs).arguments
    extra = bound.pop("kwargs", {})
    return {name: convert(value) for name, value in (bound | extra).items() if name not in TORCH_ONLY}


def convert(value: Any) -> Any:
    """An option for our layer: modules and functions become ours, tensors arrays."""
    if isinstance(value, torch.nn.TransformerEncoderLayer | torch.nn.TransformerDecoderLayer):
        attention = value.self_attn
        return getattr(nn, type(value).__name__)(
            attention.num_heads,
            d_model=attention.embed_dim,
            dim_feedforward=value.linear1.out_features,
            dropout=value.dropout.p,
            activation=convert(value.activation),
            batch_first=attention.batch_first,
            norm_first=value.norm_first,
            bias=value.linear1.bias is not None,
        )
    if isinstance(value, torch.nn.LayerNorm):
        return nn.LayerNorm(normalized_shape=value.normalized_shape, eps=value.eps)
    if isinstance(value, torch.Tensor):
        return value.detach().numpy()
    name = getattr(value, "__name__", "")
    return getattr(F, name) if name and getattr(torch.nn.functional, name, None) is value else value


def to_array(value: Any) -> Any:
    """An input as the harness takes it."""
    if isinstance(value, torch.Tensor):
        return value.detach().numpy()
    if isinstance(value, (tuple, list)):
        return type(value)(to_array(v) for v in value)
    return value


def samples(info: Any, training: bool) -> list[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        found = info.module_inputs_func(info, device="cpu", dtype=torch.float32, requires_grad=False, training=training)
    found = [s for s in found if s.forward_input is not None]
    if MOST is None or len(found) <= MOST:
        return found
    return [found[i] for i in np.linspace(0, len(found) - 1, MOST).astype(int)]


INFOS = {info.name.removeprefix("nn."): info for info in module_db}


@pytest.mark.timeout(1200 if MOST is None else 240)
@pytest.mark.parametrize("name", [name for name in INFOS if name not in ABSENT])
def test_inputs_of_pytorch(name: str) -> None:
    info = INFOS[name]
    kind = info.module_cls
    for training in (True, False) if info.train_and_eval_differ else (True,):
        for sample in samples(info, training):
            options = options_of(kind, sample.constructor_input)
            if (options.get("dropout") and training) or (name, sample.desc) in LEFT_OUT:
                continue  # dropout has other random numbers
            keywords = {k: to_array(v) for k, v in sample.forward_input.kwargs.items()}
            inputs = [to_array(x) for x in sample.forward_input.args]
            if "input" in keywords:
                inputs.insert(0, keywords.pop("input"))
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    torch.manual_seed(1)
                    theirs = kind(*sample.constructor_input.args, **sample.constructor_input.kwargs)
                    compare_layers(
                        getattr(nn, name)(**options),
                        theirs,
                        *inputs,
                        training=training,
                        tolerance=1e-4,
                        gradients=name not in NO_GRADIENTS,
                        wrt=(0,) if name in BY_INPUTS_ONLY else None,
                        **keywords,
                    )
            except BaseException as error:
                error.add_note(f"{name} {sample.desc} {options}, training={training}")
                raise


def test_the_list_of_absent_modules() -> None:
    assert {name for name in INFOS if not hasattr(nn, name)} == set(ABSENT)
