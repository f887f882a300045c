"""Losses with dense layers inside: cross-entropy of many classes, and softmax over classes in clusters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from ..functional import _checks as checks, adaptive_log_softmax, linear_cross_entropy
from ..functional._loss_linear import AdaptiveLogSoftmaxOutput
from ..module import Module
from . import _args as args
from ._attention import fill_outputs, open_linear
from ._containers import ModuleList, Sequential
from ._linear import Linear
from ._loss_base import Loss, class_weights

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int

    from ..functional._types import ArrayLike


class LinearCrossEntropyLoss(Loss):
    r"""Cross-entropy of the scores of a dense layer, some examples at a time.

    .. math:: z_n = W x_n + b, \quad \ell_n = -w_{t_n} \log \frac{e^{z_{n,t_n}}}{\sum_c e^{z_{n,c}}}

    The scores of all examples are never in memory at once.

    Args:
        num_classes: number of classes :math:`C`.
        in_features: size of the input's last axis; taken from the first input when not given.
        out_features: sizes of further axes, for several targets of each example.
        bias: whether to add :math:`b`.
        dtype: of the dense layer's parameters.
        weight: one number for each class, ``(C,)``.
        ignore_index: the class index that counts for nothing; -100 if not given.
        label_smoothing: the part of each target that is spread evenly over all classes, in ``[0, 1]``.
        reduction: ``"mean"``, ``"sum"``, or ``"none"``.
        chunk: how many examples at a time; by default as many as give four million scores.

    Shape:
        Inputs ``(N, E)`` or ``(E,)``, and class indices ``(N, *out_features)`` or ``out_features``, or class
        probabilities ``(N, C, *out_features)``, to ``()``; with ``reduction="none"`` to the shape of class indices.

    Parameters:
        linear: those of :class:`Linear`, with ``C`` times the product of ``out_features`` outputs.
        weight: buffer ``(C,)``, where given.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> loss = nn.LinearCrossEntropyLoss(1000)
        >>> round(float(loss(jnp.zeros((4, 16)), jnp.array([1, 2, 3, 4]))), 4)  # log 1000
        6.9078

    Reference:
        ``torch.nn.LinearCrossEntropyLoss``; see ``brickwork.losses.linear_cross_entropy``.
    """

    _shown = {"bias": False, "ignore_index": None, "label_smoothing": 0.0}

    @args.torch_order("in_features", "num_classes")
    def __init__(
        self,
        num_classes: int,
        *,
        in_features: int | None = None,
        out_features: Sequence[int] = (),
        bias: bool = False,
        dtype: Any = jnp.float32,
        weight: Float[ArrayLike, " c"] | None = None,
        ignore_index: int | None = None,
        label_smoothing: float = 0.0,
        reduction: str = "mean",
        chunk: int | None = None,
    ) -> None:
        name = "LinearCrossEntropyLoss"
        super().__init__(reduction=reduction)
        self.num_classes = args.size(num_classes, name, "num_classes")
        if not isinstance(out_features, (tuple, list)):
            raise TypeError(f"{name}: out_features must be a tuple of ints, got {out_features!r:.60}.")
        self.out_features = tuple(args.size(n, name, "out_features") for n in out_features)
        self.bias = args.flag(bias, name, "bias")
        inputs = args.optional_size(in_features, name, "in_features")
        outputs = self.num_classes * math.prod(self.out_features)
        self.weight = class_weights(weight, name)
        if self.weight is not None and self.weight.shape != (self.num_classes,):
            problem = f"weight must have shape ({self.num_classes},), one number for each class."
            checks.shape_error(name, problem, "Check weight.", weight=self.weight)
        self.linear = Linear(outputs, in_features=inputs, bias=self.bias, dtype=dtype)
        self.ignore_index = None if ignore_index is None else args.integer(ignore_index, name, "ignore_index")
        self.label_smoothing = args.number(label_smoothing, name, "label_smoothing", 0, 1)
        self.chunk = args.optional_size(chunk, name, "chunk")

    @property
    def in_features(self) -> int | None:
        """Size of the input's last axis; ``None`` while it is not known."""
        return self.linear.in_features

    def build(self, x: Any, target: Any) -> None:
        """Take the number of features from the last axis."""
        _require_rows(x, type(self).__name__, self.in_features)
        self.linear.build(x)

    def forward(
        self, x: Float[Array, "n features"], target: Int[Array, " n *d"] | Float[Array, "n c *d"]
    ) -> Float[Array, "*reduced"]:
        """Return the loss."""
        sizes = (self.num_classes, *self.out_features)
        weight, bias = self.linear.weight.value, self.linear.bias
        return linear_cross_entropy(
            x,
            weight.reshape(*sizes, weight.shape[-1]),
            target,
            linear_bias=None if bias is None else bias.value.reshape(sizes),
            weight=self.weight,
            ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing,
            reduction=self.reduction,
            chunk=self.chunk,
        )

    def extra_repr(self) -> str:
        more = f", out_features={self.out_features}" if self.out_features else ""
        options = super().extra_repr()
        return f"{args.show(self.in_features)} → {self.num_classes}{more}{', ' if options else ''}{options}"


class AdaptiveLogSoftmaxWithLoss(Module):
    r"""Softmax over very many classes: frequent ones first, rare ones in clusters with narrower layers.

    The first ``cutoffs[0]`` classes and one score for each cluster come from the head; classes from ``cutoffs[i]`` on
    to ``cutoffs[i + 1]`` form cluster ``i``, whose scores come from a projection to ``in_features / div_value ** (i +
    1)`` features and a dense layer. The probability of a class in a cluster is that of the cluster times that of the
    class in it. Classes should be in the order of their frequency.

    Shapes can't depend on values here, so every cluster is computed for every example.

    Args:
        n_classes: number of classes.
        cutoffs: where clusters begin: increasing integers between 1 and ``n_classes - 1``.
        in_features: size of the input's last axis; taken from the first input when not given.
        div_value: how much narrower each projection is than the one before.
        head_bias: whether the head has a bias.
        dtype: of the parameters.

    Shape:
        Inputs ``(N, in_features)`` or ``(in_features,)``, and class indices ``(N,)`` or ``()``, to a named tuple of
        ``output``, the log-probabilities of these classes, of the shape of the indices, and ``loss`` ``()``.

    Parameters:
        head: those of :class:`Linear`, with ``cutoffs[0] + len(cutoffs)`` outputs.
        tail: for each cluster those of two :class:`Linear` without biases.

    Raises:
        ValueError: ``cutoffs`` are not increasing, or out of range.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> layer = nn.AdaptiveLogSoftmaxWithLoss(1000, [20, 200])
        >>> output, loss = layer(jnp.ones((4, 64)), jnp.array([0, 10, 100, 999]))
        >>> output.shape, loss.shape
        ((4,), ())
        >>> layer.predict(jnp.ones((4, 64))).shape
        (4,)

    Reference:
        Grave et al., "Efficient softmax approximation for GPUs", 2017; ``torch.nn.AdaptiveLogSoftmaxWithLoss``.
    """

    @args.torch_order("in_features", "n_classes", "cutoffs", "div_value", "head_bias")
    def __init__(
        self,
        n_classes: int,
        cutoffs: Sequence[int],
        *,
        in_features: int | None = None,
        div_value: float = 4.0,
        head_bias: bool = False,
        dtype: Any = jnp.float32,
    ) -> None:
        name = type(self).__name__
        self.n_classes = args.size(n_classes, name, "n_classes")
        self.cutoffs = [*_cutoffs(cutoffs, self.n_classes, name), self.n_classes]
        self.div_value = args.number(div_value, name, "div_value", above=0)
        self.head_bias = args.flag(head_bias, name, "head_bias")
        inputs = args.optional_size(in_features, name, "in_features")
        outputs = self.shortlist_size + self.n_clusters
        self.head = Linear(outputs, in_features=inputs, bias=self.head_bias, dtype=dtype)
        sizes = [b - a for a, b in zip(self.cutoffs, self.cutoffs[1:], strict=False)]
        widths = [None if inputs is None else self._width(i, inputs) for i in range(self.n_clusters)]
        self.tail = ModuleList(
            Sequential(
                open_linear(width, inputs, bias=False, dtype=dtype),
                Linear(size, in_features=width, bias=False, dtype=dtype),
            )
            for width, size in zip(widths, sizes, strict=True)
        )

    @property
    def in_features(self) -> int | None:
        """Size of the input's last axis; ``None`` while it is not known."""
        return self.head.in_features

    @property
    def shortlist_size(self) -> int:
        """Number of classes that the head itself scores."""
        return self.cutoffs[0]

    @property
    def n_clusters(self) -> int:
        """Number of clusters."""
        return len(self.cutoffs) - 1

    def _width(self, cluster: int, inputs: int) -> int:
        """Number of features between the two layers of a cluster."""
        width = int(inputs // self.div_value ** (cluster + 1))
        if width < 1:
            raise ValueError(
                f"{type(self).__name__}: in_features={inputs} divided by div_value={self.div_value} ** {cluster + 1} "
                f"leaves nothing for cluster {cluster}. Use fewer cutoffs, a smaller div_value or more features."
            )
        return width

    def build(self, x: Any, *_: Any) -> None:
        """Take the number of features from the last axis."""
        shape = _require_rows(x, type(self).__name__, self.in_features)
        self.head.build(x)
        for i, projection in enumerate(self.tail):
            fill_outputs(projection[0], self._width(i, shape[-1]))

    def forward(self, x: Float[Array, "n features"], target: Int[Array, " n"]) -> AdaptiveLogSoftmaxOutput:
        """Return the log-probabilities of the classes, and the loss."""
        x = checks.to_array(x, type(self).__name__, "x")
        checks.require_floats(x, type(self).__name__, "x")
        _require_rows(x, type(self).__name__, self.in_features)
        return adaptive_log_softmax(self.head(x), [projection(x) for projection in self.tail], target)

    def log_prob(self, x: Float[Array, "n features"]) -> Float[Array, "n classes"]:
        """The log-probabilities of all classes, ``(N, n_classes)``."""
        if not self._bw.built:
            self._build((x,), {})
        head = jax.nn.log_softmax(self.head(x), -1)
        parts = [head[..., : self.shortlist_size]]
        for i, projection in enumerate(self.tail):
            of_cluster = head[..., self.shortlist_size + i, None]
            parts.append(of_cluster + jax.nn.log_softmax(projection(x), -1))
        return jnp.concatenate(parts, -1)

    def predict(self, x: Float[Array, "n features"]) -> Int[Array, " n"]:
        """The most probable classes, ``(N,)``."""
        return self.log_prob(x).argmax(-1)

    def extra_repr(self) -> str:
        options = args.options(self, div_value=4.0, head_bias=False)
        return f"{args.show(self.in_features)} → {self.n_classes}, cutoffs={list(self.cutoffs[:-1])}{options}"


def _require_rows(x: Any, name: str, features: int | None) -> tuple[int, ...]:
    shape = checks.shape_of(x, name)
    if len(shape) not in (1, 2):
        problem = f"x must be (N, features) or (features,), not of {len(shape)} axes."
        checks.shape_error(name, problem, "Reshape the data.", x=x)
    if features is not None and shape[-1] != features:
        problem = f"x must have {features} features in its last axis, as the layer was given or has seen before"
        fix = "Check the data, or make a new layer."
        checks.shape_error(name, f"{problem}, not {shape[-1]}.", fix, x=x)
    return shape


def _cutoffs(cutoffs: Any, classes: int, name: str) -> list[int]:
    if not isinstance(cutoffs, (tuple, list)):
        raise TypeError(f"{name}: cutoffs must be a list of ints, got {cutoffs!r:.60}.")
    found = [args.integer(c, name, "cutoffs") for c in cutoffs]
    if not found or found != sorted(set(found)) or found[0] < 1 or found[-1] >= classes:
        raise ValueError(
            f"{name}: cutoffs must be increasing integers between 1 and n_classes - 1 = {classes - 1}, got {cutoffs}."
        )
    return found
