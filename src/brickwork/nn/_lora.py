"""Low-rank adapters around layers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeVar

from .._draw import as_initializer
from .._init_base import finite
from ..core import Parameter, next_key, walk
from ..core._calls import line_of
from ..errors import StructureError
from ..functional import dropout as drop
from ..functional._dropout import check_rate
from ..functional._low_rank import add_projected, add_scaled, low_rank
from ..init import kaiming_uniform
from ..module import Module
from . import _args as args
from ._attention import MultiheadAttention
from ._quantize import Quantized
from ._wrapping import LAYERS, choose, kind_of, module_of, replace, require_stored, standing_in, with_attributes

if TYPE_CHECKING:
    from jaxtyping import Array

Net = TypeVar("Net")
_ADAPTED: dict[type[Any], str] = {**LAYERS, MultiheadAttention: "attention"}


class LoRA(Module):
    r"""A layer that is left as it is, and a change of its weight of low rank that is trained.

    .. math:: y = f_W(x) + \frac{\alpha}{r} \, f_{B A}(x)

    where :math:`f_W` is the layer with the weight :math:`W`, and :math:`B A` has the shape of :math:`W`. At first
    :math:`B` is zero, so that nothing changes. Usually made by :func:`lora`. The weight of ``MultiheadAttention`` is
    the one that makes queries, keys and values, ``in_proj_weight``, to which :math:`B A` is added.

    The layer's parameters keep their names, as if it weren't wrapped, and are frozen. Its attributes can be read
    through this module.

    Args:
        base: a ``Linear``, ``Embedding``, ``Conv1d``, ``Conv2d`` or ``Conv3d``, such a layer with a quantised weight,
            or a ``MultiheadAttention`` without ``kdim`` and ``vdim``; or one of a subclass with the same ``forward``.
        rank: the rank :math:`r` of the change.
        alpha: the change is multiplied by ``alpha / rank``; ``rank`` by default.
        dropout: the probability with which elements of the input of :math:`A` are set to zero in training mode; not
            for ``Embedding``, whose input are indices, nor for ``MultiheadAttention``.
        init: the initialiser of ``lora_A``.

    Shape:
        As that of the layer.

    Parameters:
        lora_A: ``(rank, in / groups, *kernel)``, drawn from :math:`U(-k, k)` with :math:`k = 1 / \sqrt{n}`
            for :math:`n` inputs of each row; ``(rank, embedding_dim)`` for ``Embedding``.
        lora_B: ``(out, rank)`` zeros; ``(num_embeddings, rank)`` for ``Embedding``.

    Raises:
        StructureError: the weight is computed by a parametrisation.
        TypeError: a layer of another kind.
        ValueError: ``dropout`` for ``MultiheadAttention``.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> layer = nn.LoRA(nn.Linear(3), rank=2)
        >>> layer(jnp.ones((4, 5))).shape
        (4, 3)
        >>> layer
        LoRA(Linear(5 → 3), rank=2)
        >>> list(layer.state_dict())
        ['weight', 'bias', 'lora_A', 'lora_B']

    Reference:
        Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021.
    """

    def __init__(
        self, base: Module, rank: int, *, alpha: float | None = None, dropout: float = 0.0, init: Any = None
    ) -> None:
        if not suits(base) or isinstance(base, LoRA):
            names = ", ".join(cls.__name__ for cls in _ADAPTED)
            raise TypeError(f"LoRA: base must be one of {names}, got a {type(base).__name__}")
        require_stored(base, "LoRA", _name_of_weight(base))
        self.rank = args.size(rank, "LoRA", "rank")
        self.alpha = self.rank if alpha is None else finite("LoRA", "alpha", alpha)
        self.dropout = check_rate(dropout, "LoRA", "dropout")
        if self.dropout and isinstance(base, MultiheadAttention):
            raise ValueError(
                f"LoRA: dropout={dropout} is not for MultiheadAttention, whose weight is changed before it is used. "
                "Leave it out, or adapt attention layers apart from the others, with a pattern of their own."
            )
        self.base: Any = base
        self.training = base.training
        init = kaiming_uniform(a=math.sqrt(5)) if init is None else as_initializer(init)
        weight = self._weight
        stack, (rows, *rest) = weight.shape[: weight.stacked], weight.shape[weight.stacked :]
        self.lora_A = self._stacked((*stack, self.rank, *rest), init)
        self.lora_B = self._stacked((*stack, rows, self.rank), 0)
        base.freeze()

    def constructor_arguments(self) -> dict[str, Any]:
        """The arguments that make such a module."""
        alpha = None if self.alpha is self.rank else self.alpha
        return {"base": self.base, "rank": self.rank, "alpha": alpha, "dropout": self.dropout}

    def _stacked(self, shape: Any, init: Any) -> Parameter:
        """A parameter that has as many values as the weight."""
        floats = self.base.scale if isinstance(self.base, Quantized) else self._weight
        new = Parameter(shape=shape, dtype=floats.dtype, init=init)
        if self._weight.stacked:
            new._stacked = self._weight.stacked
            new._number = new._fresh_number()
        new.follow(self._weight)
        return new

    @property
    def _weight(self) -> Any:
        """The parameter that is changed."""
        return weight_of(self.base)

    @property
    def uses_random(self) -> bool:
        """Whether a call draws random numbers in training mode."""
        return self.dropout > 0 or getattr(self.base, "uses_random", False)

    @property
    def scaling(self) -> float:
        """What the change is multiplied by."""
        return self.alpha / self.rank

    def build(self, *args: Any, **kwargs: Any) -> None:
        """Let the layer complete its shapes, and take the adapter's from them."""
        if not self.base._bw.built:
            self.base._build(args, kwargs)
        rows, *rest = self._weight.shape
        self.lora_A.shape = (self.rank, *rest)
        self.lora_B.shape = (rows, self.rank)

    def forward(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """Apply the layer and the adapter, and add."""
        require_stored(self.base, "LoRA", _name_of_weight(self.base))
        form = self.base._form if isinstance(self.base, Quantized) else self.base
        kind = kind_of(form, _ADAPTED)
        if kind == "attention":
            changed = add_scaled(self._weight.value, self.change(), scale=1.0)
            return with_attributes(form, in_proj_weight=changed).forward(x, *args, **kwargs)
        y = self.base(x, *args, **kwargs)
        if kind == "embedding":
            low = standing_in(form, self.lora_B).forward(x)
            return add_projected(y, low, self.lora_A.value.T, axis=-1, scale=self.scaling)
        if self.dropout and self.training:
            x = drop(x, self.dropout, next_key())
        if kind == "convolution" and form.groups > 1:  # each group has its own rows of the one matrix
            shape = self.base.weight.shape
            change = low_rank(self.lora_A.value, self.lora_B.value, shape=shape, scale=1.0)
            return add_scaled(y, standing_in(form, change).forward(x), scale=self.scaling)
        low = standing_in(form, self.lora_A).forward(x)
        axis = 1 - self.base.weight.ndim  # the channels; the last axis for a matrix
        return add_projected(y, low, self.lora_B.value, axis=axis, scale=self.scaling)

    def change(self) -> Array:
        """What the adapter adds to the weight."""
        return low_rank(self.lora_A.value, self.lora_B.value, shape=tuple(self._weight.known_shape), scale=self.scaling)

    def edges(self) -> Any:
        """The attributes; the layer itself adds nothing to names."""
        return (("" if name == "base" else name, value) for name, value in super().edges())

    def __getattr__(self, name: str) -> Any:
        base = self.__dict__.get("base")
        if base is None or name.startswith("_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(base, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self.__dict__ and name in getattr(self.__dict__.get("base"), "__dict__", ()):
            raise StructureError(
                f"LoRA: {name!r} belongs to the layer that is wrapped; set it there, `.base.{name} = ...`. To tie "
                "weights, do so before the adapters are added."
            )
        super().__setattr__(name, value)

    def extra_repr(self) -> str:
        more = f", alpha={self.alpha}" if self.alpha != self.rank else ""
        more += f", dropout={self.dropout}" if self.dropout else ""
        return f"{line_of(self.base)}, rank={self.rank}{more}"


def suits(layer: Any) -> bool:
    """Whether a layer can have an adapter, or has one."""
    if isinstance(layer, MultiheadAttention) and layer.in_proj_weight is None:
        return False  # its three weights may have several widths
    return isinstance(layer, (LoRA, Quantized)) or kind_of(layer, _ADAPTED) is not None


def _name_of_weight(layer: Any) -> str:
    return "in_proj_weight" if isinstance(layer, MultiheadAttention) else "weight"


def weight_of(layer: Any) -> Any:
    """The parameter of a layer that an adapter changes."""
    return getattr(layer, _name_of_weight(layer))


def lora(
    net: Net, pattern: str, rank: int, *, alpha: float | None = None, dropout: float = 0.0, init: Any = None
) -> Net:
    """Add low-rank adapters to layers, and train nothing else.

    Each layer that matches is replaced by a :class:`LoRA` around it, wherever it is held; a layer or weight that is
    used twice has one adapter. The output stays the same until the adapters are trained. Every other parameter of the
    network is frozen; ``net.unfreeze(pattern)`` trains some of them as well. Supported are ``Linear``, ``Embedding``,
    ``Conv1d``, ``Conv2d`` and ``Conv3d``, those of them that :func:`quantize` has replaced, and the projections of
    queries, keys and values inside ``MultiheadAttention``. All others are left alone, also where the pattern matches:
    transposed convolutions, recurrent layers, and layers of subclasses with a ``forward`` of their own, which may use
    the weight in another way.

    Parameters keep their names, and the adapters' are ``lora_A`` and ``lora_B`` beside them. So a file of the network
    without adapters can be loaded before, or after with ``strict=False``.

    Args:
        net: a module. It is changed; sizes may be unknown.
        pattern: a regular expression that must match the whole path of a layer.
        rank, alpha, dropout, init: see :class:`LoRA`.

    Returns:
        The network.

    Raises:
        ValueError: the pattern matches no such layer (the message lists them), or one that has an adapter.
        StructureError: a weight is used by a layer that the pattern doesn't match, so that they would differ; or it
            is computed by a parametrisation.

    Example:
        >>> import brickwork as bw
        >>> from brickwork import nn, optim
        >>> net = nn.Sequential(nn.Linear(64), nn.ReLU(), nn.Linear(2)).initialize(bw.spec(1, 32))
        >>> nn.lora(net, r"0", rank=4, alpha=8)
        Sequential(
          (0): LoRA(Linear(32 → 64), rank=4, alpha=8.0)
          (1): ReLU()
          (2): Linear(64 → 2)
        )
        >>> [name for name, p in net.named_parameters() if p.trainable]
        ['0.lora_A', '0.lora_B']
        >>> nn.merge_lora(net)[0]
        Linear(32 → 64)

    Reference:
        Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021.
    """
    module = module_of(net, "lora")
    around = [m for m in module.modules() if isinstance(m, LoRA)]
    inside = {id(m.base) for m in around}
    found = choose(module, pattern, "lora", lambda layer: suits(layer) and id(layer) not in inside, _ADAPTED)
    for path, layer in found:
        if isinstance(layer, LoRA):
            raise ValueError(f"lora: {path!r} has an adapter already; fold it in with nn.merge_lora(net) first")
        require_stored(layer, f"lora: {path!r}", _name_of_weight(layer))
    _require_whole_ties(module, found)
    trainable = [p for p in module.parameters() if p.trainable]
    new: dict[int, LoRA] = {}
    first: dict[int, LoRA] = {}  # by weight
    for _, layer in found:
        made = new[id(layer)] = LoRA(layer, rank, alpha=alpha, dropout=dropout, init=init)
        other = first.setdefault(id(weight_of(layer)), made)
        made.lora_A, made.lora_B = other.lora_A, other.lora_B
    replace(module, new)
    adapters = {id(p) for m in around for p in (m.lora_A, m.lora_B)}
    for parameter in trainable:
        if id(parameter) not in adapters:
            parameter.trainable = False
    return net


def _require_whole_ties(net: Any, found: list[tuple[str, Any]]) -> None:
    """Refuse to adapt a weight in one place and not in another."""
    layers = {id(layer) for _, layer in found}
    weights = {id(weight_of(layer)): path for path, layer in found}
    for outer, module in net.named_modules():
        inside = walk(module, into_modules=False) if id(module) not in layers else ()
        for name, item in inside:
            if id(item) in weights:
                place = f"{outer}.{name}".lstrip(".")
                raise StructureError(
                    f"lora: the weight of {weights[id(item)]!r} is also {place!r}, which gets no adapter, so the two "
                    "would differ. Let the pattern match both, or untie them: give one a Parameter of its own."
                )


def merge_lora(net: Net) -> Net:
    """Fold the adapters of :func:`lora` into the weights, and put the layers themselves back where they were.

    They are the same objects as before, so ties hold. Their parameters stay frozen until ``net.unfreeze()``.

    Args:
        net: a module with adapters. It is changed.

    Returns:
        The network.

    Raises:
        ValueError: there are no adapters.
        StructureError: the weight below an adapter is quantised; nothing is changed.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> net = nn.Sequential(nn.Linear(2))
        >>> layer = net[0]
        >>> nn.merge_lora(nn.lora(net, "0", 1))[0] is layer
        True
    """
    module = module_of(net, "merge_lora")
    found = [(path, m) for path, m in module.named_modules() if isinstance(m, LoRA)]
    if not found:
        raise ValueError(f"merge_lora: {type(module).__name__} has no adapters inside")
    merged: dict[int, tuple[Any, Any]] = {}
    for path, wrapper in found:
        if isinstance(wrapper.base, Quantized):
            raise StructureError(
                f"merge_lora: the weight of {path!r} is quantised, so it can't take the adapter in; keep the adapter"
            )
        weight = wrapper._weight
        if id(weight) not in merged and weight.is_drawable:  # else there is nothing to fold yet
            merged[id(weight)] = weight, add_scaled(weight.value, wrapper.change(), scale=1.0)
    for weight, value in merged.values():
        weight.value = value
    replace(module, {id(wrapper): wrapper.base for _, wrapper in found})
    return net
