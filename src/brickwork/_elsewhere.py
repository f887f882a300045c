"""What to say of names that other frameworks have and brickwork doesn't: where the same thing is found here."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import jax.numpy as jnp

from .core._manners import ArrayMethods, missing

_PURE = "arrays can't be changed in place"
_NO_GRAD = (
    "leave it out: gradients are computed only where bw.grad, bw.value_and_grad or bw.backward asks for them; "
    "jax.lax.stop_gradient keeps them from a part"
)
_LAYERS = {
    "Activation": "write the layer itself, nn.ReLU(), or nn.Lambda(function)",
    "Add": "nn.Residual, or nn.Parallel(..., mode='sum')",
    "BatchNorm": "nn.BatchNorm1d, nn.BatchNorm2d or nn.BatchNorm3d",
    "BatchNormalization": "nn.BatchNorm1d, nn.BatchNorm2d or nn.BatchNorm3d",
    "Block": "bw.Module",
    "Concatenate": "nn.Parallel",
    "Container": "bw.Module",
    "Conv": "nn.Conv1d, nn.Conv2d or nn.Conv3d",
    "DataParallel": "bw.shard_map, or arrays that are placed on several devices",
    "Dense": "nn.Linear(out_features)",
    "Embed": "nn.Embedding",
    "GlobalAveragePooling1D": "nn.AdaptiveAvgPool1d(1)",
    "GlobalAveragePooling2D": "nn.AdaptiveAvgPool2d(1)",
    "GlobalMaxPooling1D": "nn.AdaptiveMaxPool1d(1)",
    "GlobalMaxPooling2D": "nn.AdaptiveMaxPool2d(1)",
    "HybridBlock": "bw.Module",
    "HybridSequential": "nn.Sequential, and bw.compile",
    "Input": "leave it out: sizes come with the first input, or with net.initialize(bw.spec(...))",
    "InputLayer": "leave it out: sizes come with the first input, or with net.initialize(bw.spec(...))",
    "Layer": "bw.Module",
    "LayerNormalization": "nn.LayerNorm",
    "MultiHeadAttention": "nn.MultiheadAttention",
    "MultiHeadDotProductAttention": "nn.MultiheadAttention",
    "NLLLoss2d": "nn.NLLLoss",
    "PackedSequence": "the argument lengths= of recurrent layers",
    "Param": "bw.Parameter",
    "Permute": "nn.Lambda(lambda x: jnp.transpose(x, ...))",
    "RNNBase": "nn.RNN, nn.LSTM or nn.GRU",
    "Reshape": "nn.Flatten, nn.Unflatten, or nn.Lambda(lambda x: jnp.reshape(x, ...))",
    "Rngs": "leave it out: bw.seed(number) seeds everything",
    "Swish": "nn.SiLU",
    "TimeDistributed": "leave it out where a layer takes leading axes, as nn.Linear does; else bw.vmap",
    "checkpoint": "bw.remat",
    "functional": "brickwork.functional",
    "init": "brickwork.init; an initialiser is given to a parameter, or to net.initialize(init=...)",
    "jit": "bw.compile",
    "utils": "nn.weight_norm, nn.spectral_norm and nn.parametrize are here; gradients are clipped by "
    "optax.clip_by_global_norm in an optimiser's chain",
}
_FUNCTIONS = {
    "batch_norm": "functional.batch_norm_train or batch_norm_eval: a pure function can't write its arguments",
    "conv": "functional.conv1d, conv2d or conv3d",
    "multi_head_attention_forward": "nn.MultiheadAttention, or functional.scaled_dot_product_attention",
    "upsample": "functional.interpolate",
    "upsample_bilinear": "functional.interpolate(x, ..., mode='bilinear', align_corners=True)",
    "upsample_nearest": "functional.interpolate(x, ..., mode='nearest')",
}
_INITIALISERS = {
    "he_normal": "init.kaiming_normal",
    "he_uniform": "init.kaiming_uniform",
    "glorot_normal": "init.xavier_normal",
    "glorot_uniform": "init.xavier_uniform",
    "trunc_normal": "init.truncated_normal; the standard deviation comes first",
}
_LOSSES = {
    "binary_crossentropy": "losses.bce, or losses.bce_with_logits",
    "categorical_crossentropy": "losses.cross_entropy, of logits",
    "mean_absolute_error": "losses.l1",
    "mean_squared_error": "losses.mse",
    "sparse_categorical_crossentropy": "losses.cross_entropy, of logits",
}
_TOP = {
    "DataLoader": "any loader will do whose batches are NumPy arrays",
    "Tensor": "jax.Array",
    **{name: f"jnp.{name}" for name in ("arange", "bfloat16", "float16", "float32", "float64", "ones", "zeros")},
    "as_tensor": "jnp.asarray",
    "checkpoint": "bw.remat, to compute again in the backward pass; bw.Checkpointer, for files",
    **dict.fromkeys(("detach", "stop_gradient"), "jax.lax.stop_gradient"),
    "autocast": "net.to(jnp.bfloat16), or a layer's dtype=",
    "cat": "jnp.concatenate",
    "cuda": "bw.gpu(), and net.to(...)",
    "from_numpy": "jnp.asarray",
    "jit": "bw.compile",
    "manual_seed": "bw.seed",
    "nnx": "bw.nn",
    **dict.fromkeys(("enable_grad", "inference_mode", "no_grad", "set_grad_enabled"), _NO_GRAD),
    "rand": "jax.random.uniform(bw.random.key(), shape)",
    "randn": "jax.random.normal(bw.random.key(), shape)",
    "set_seed": "bw.seed",
    "tensor": "jnp.asarray",
}
_OF_OPTAX = ("Adadelta", "Adafactor", "Adagrad", "Adamax", "Lion", "NAdam", "RAdam", "RMSprop", "Rprop")


def _optax(name: str) -> str:
    return f"optim.Optimizer(net, optax.{name.lower()}(...)); its defaults are optax's"


_OPTIMISERS = {
    **{form(name): _optax(name) for name in _OF_OPTAX for form in (str, str.lower)},
    **dict.fromkeys(("LBFGS", "lbfgs"), "optax.lbfgs on `pure, state = bw.functional(net)`, as optax shows"),
    "Muon": "optim.Optimizer(net, optax.contrib.muon(...))",
    "Adam": "optim.adam(net, learning_rate)",
    "AdamW": "optim.adamw(net, learning_rate)",
    "SGD": "optim.sgd(net, learning_rate)",
    "lr_scheduler": "optax's schedules, in place of the learning rate",
}
_METHODS = {
    "add_module": "setattr(net, name, module): attributes are the registry",
    "bfloat16": "net.to(jnp.bfloat16)",
    "collect_params": "net.named_parameters()",
    "compile": "bw.compile(net), or bw.compile around a training step",
    "cpu": "net.to(bw.cpu())",
    "cuda": "net.to(bw.gpu())",
    "double": "net.to(jnp.float64)",
    "fit": "a loop over a training step; the README shows one",
    "float": "net.to(jnp.float32)",
    "get_buffer": "dict(net.named_buffers())[name]",
    "get_weights": "net.state_dict()",
    "half": "net.to(jnp.float16)",
    "hybridize": "bw.compile(net)",
    "num_parameters": "sum(p.size for p in net.parameters())",
    "predict": "net.eval(), and bw.compile(net)(x)",
    "register_buffer": "net.name = bw.Buffer(value): attributes are the registry",
    "register_module": "setattr(net, name, module): attributes are the registry",
    "register_parameter": "net.name = bw.Parameter(value): attributes are the registry",
    "requires_grad_": "net.freeze() and net.unfreeze()",
    "set_submodule": "setattr(net, name, module): attributes are the registry",
    "set_weights": "net.load_state_dict(state)",
    "trainable_variables": "[p for p in net.parameters() if p.trainable]",
    "trainable_weights": "[p for p in net.parameters() if p.trainable]",
    "type": "net.to(dtype)",
    "weights": "net.variables()",
    "zero_grad": "leave it out after bw.grad, whose gradients are new each time; after bw.backward, opt.zero_grad()",
}
_VARIABLES = {
    "backward": "bw.grad, bw.value_and_grad or bw.backward, of a function that returns the loss",
    "cpu": "p.move(bw.cpu())",
    "cuda": "p.move(bw.gpu())",
    "data": "p.value",
    "detach": "jax.lax.stop_gradient(p.value)",
    "dim": "p.ndim",
    "numel": "p.size",
    "numpy": "np.asarray(p)",
    "requires_grad": "p.trainable",
    "requires_grad_": "p.trainable = True or False",
}
OF_OPTIMISERS = {  # arguments
    "amsgrad": "optim.Optimizer(net, optax.amsgrad(...))",
    "beta_1": "b1",
    "beta_2": "b2",
    "betas": "b1 and b2",
    "dampening": "no dampening",
    "epsilon": "eps",
    "lr": "learning_rate",
    "params": "the network, or a list of parameters, in the first place",
    "wd": "weight_decay",
}
_TABLES = {
    "brickwork": _TOP,
    "brickwork.functional": _FUNCTIONS,
    "brickwork.init": _INITIALISERS,
    "brickwork.losses": _LOSSES,
    "brickwork.nn": _LAYERS,
    "brickwork.optim": _OPTIMISERS,
}


def unknown_in(module: str) -> Callable[[str], NoReturn]:
    """The ``__getattr__`` of a module: raise an ``AttributeError`` that says what a missing name is called here."""

    def missing(name: str) -> NoReturn:
        start = f"module {module!r} has no attribute {name!r}"
        advice = None if name.startswith("__") else _advice(module, name)
        if advice:
            raise AttributeError(f"{start}. {advice}", name="")  # without a name, Python would add a guess of its own
        raise AttributeError(start, name=name, obj=sys.modules[module])  # Python knows similar names

    return missing


def missing_from(net: Any, name: str) -> Any:
    """The ``__getattr__`` of a network, which says what a missing method is called here."""
    here = _METHODS.get(name)
    return missing(net, name, f"Here: {here}." if here else None)


def _of_variables(name: str) -> str | None:
    if name in _VARIABLES:
        return f"Here: {_VARIABLES[name]}."
    if name.endswith("_") and not name.startswith("_"):
        return "Arrays can't be changed in place; give it a new one: p.value = ..."
    return None


class _Elsewhere:
    """What other frameworks assign to: says what it is called here, when read as when assigned."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, owner: Any, kind: type | None = None) -> Any:
        if owner is None:
            return self
        raise AttributeError(self.name)  # upon which Python asks __getattr__

    def __set__(self, owner: Any, value: Any) -> None:
        missing(owner, self.name, _of_variables(self.name))


ArrayMethods._other_names = staticmethod(_of_variables)
for _name in ("data", "requires_grad"):
    setattr(ArrayMethods, _name, _Elsewhere(_name))


def _advice(module: str, name: str) -> str | None:
    known = vars(sys.modules[module])
    table = _TABLES.get(module, {})
    short = module.rpartition(".")[2]
    if name in table:
        return f"Here: {table[name]}."
    if name.endswith("_") and (name[:-1] in known or name[:-1] in table):
        return f"Here: {table.get(name[:-1], f'{short}.{name[:-1]}')}; {_PURE}."
    if name.endswith("_with_indices") and name.removesuffix("_with_indices") in known:
        return f"Here: {short}.{name.removesuffix('_with_indices')} with return_indices=True."
    if module == "brickwork.nn" and name.startswith("Lazy") and name[4:] in known:
        return f"Here: nn.{name[4:]}; every layer takes the sizes that it isn't given from its first input."
    found = _elsewhere(module, name) or _similar(short, name, known)
    return found or (f"Here: jnp.{name}." if module == "brickwork" and hasattr(jnp, name) else None)


def _elsewhere(module: str, name: str) -> str | None:
    """The place of a name that another of the public modules has."""
    for other in ("nn", "functional", "losses", "optim", "init", "random"):
        found = sys.modules.get(f"brickwork.{other}")
        if found is not None and f"brickwork.{other}" != module and name in _public(vars(found)):
            return f"Here: {other}.{name}."
    return None


def _similar(short: str, name: str, known: dict[str, Any]) -> str | None:
    public = _public(known)
    same = [other for other in public if other.lower().replace("_", "") == name.lower().replace("_", "")]
    close = same or difflib.get_close_matches(name, public, 1, 0.75)
    return f"Did you mean {short}.{close[0]}?" if close else None


def _public(known: dict[str, Any]) -> list[str]:
    return [
        name
        for name, value in known.items()
        if not name.startswith("_") and getattr(value, "__module__", "").startswith("brickwork")
    ]
