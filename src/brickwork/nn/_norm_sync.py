"""Batch normalisation over the batches of all devices."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp

from ..core._frame import lane_axes, other_axes
from ..core._jax import named_axes
from ..core._parameter import Slot
from ..functional import _checks as checks
from . import _args as args
from ._norm import BatchNorm

if TYPE_CHECKING:
    from ..module import Module

    AxisName = Hashable | Sequence[Hashable]


class SyncBatchNorm(BatchNorm):
    r"""Normalise each channel by its mean and variance over the batches of all devices.

    .. math:: y = \frac{x - \mu_c}{\sqrt{\sigma_c^2 + \epsilon}} \gamma_c + \beta_c

    It differs from the other BatchNorms in training mode inside of ``shard_map`` and ``vmap`` only (brickwork's; or
    JAX's, where the axis has a name), where every device or lane sees its own part of the batch: here
    the mean and the variance are those of all parts together, there those of the own part (the running
    statistics are those of the whole batch in both). A batch that is merely sharded is one batch for every
    layer, in a compiled function as outside.

    Args:
        num_features: number of channels; taken from the first input when not given.
        eps: added to the variance.
        momentum: the weight :math:`m` of the batch; ``None``: the plain average over all batches.
        affine: whether there are :math:`\gamma` and :math:`\beta`.
        track_running_stats: whether there are running statistics; without them those of the
            batch are used in evaluation mode too.
        axis_name: the name of a mapped axis (of the mesh, or of ``vmap``), or several: the batches along
            it are taken together. All mapped axes around when not given. Where no axis is
            mapped, it has no effect.
        bias: whether there is :math:`\beta`, where there is :math:`\gamma`.
        dtype: of the parameters; statistics are at least float32.

    Shape:
        ``(N, C, *)``; the output has the shape of the input.

    Parameters:
        weight: :math:`\gamma`, ``(C,)``, ones.
        bias: :math:`\beta`, ``(C,)``, zeros.
        running_mean: buffer ``(C,)``, zeros.
        running_var: buffer ``(C,)``, ones.
        num_batches_tracked: buffer ``()``, int32, zero.

    Raises:
        ValueError: axes are mapped around the call, but ``axis_name`` is none of them.

    Example:
        >>> import brickwork as bw
        >>> from brickwork import nn
        >>> import jax.numpy as jnp
        >>> layer = nn.SyncBatchNorm()
        >>> halves = jnp.array([[[1.0], [1.0]], [[3.0], [3.0]]])
        >>> bw.vmap(layer)(halves).flatten().round().tolist()
        [-1.0, -1.0, 1.0, 1.0]

    Reference:
        Ioffe and Szegedy, "Batch Normalization", 2015; ``torch.nn.SyncBatchNorm``.
    """

    axis_name: AxisName | None

    @args.torch_order("num_features", "eps", "momentum", "affine", "track_running_stats", "process_group")
    def __init__(
        self,
        *,
        num_features: int | None = None,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        axis_name: AxisName | None = None,
        bias: bool = True,
        dtype: Any = jnp.float32,
    ) -> None:
        self._declare(num_features, eps, momentum, affine, track_running_stats, bias, dtype)
        self.axis_name = _hashable(axis_name)

    def _require_axes(self, x: Any) -> None:
        rank = len(checks.shape_of(x, type(self).__name__))
        if rank < 2:
            problem = f"x must have at least 2 axes (N, C, ...), not {rank}."
            checks.shape_error(type(self).__name__, problem, "Add the batch axis: x[None].", x=x)

    def _together(self, x: Any) -> tuple[Hashable, ...]:
        if not self.training:
            return ()
        shared = self.running_mean if self.running_mean is not None else self.weight
        around = (*lane_axes(Slot.outlasting() if shared is None else shared, x), *other_axes(x))
        if self.axis_name is None:
            return around
        names = self.axis_name if isinstance(self.axis_name, tuple) else (self.axis_name,)
        unknown = set(names).difference(named_axes())
        if not unknown:
            return names
        if around:
            raise ValueError(
                f"SyncBatchNorm: axis_name={self.axis_name!r}, but the axes mapped around this call are "
                f"{', '.join(map(repr, around))}. Use one of these, or leave axis_name out to take all of them."
            )
        return ()

    @classmethod
    def convert_sync_batchnorm(cls, module: Module, axis_name: AxisName | None = None) -> Module:
        """Turn every BatchNorm in a network, or the one given, into this kind of layer, in place.

        Parameters, statistics, ties, hooks and names stay what they are.

        Args:
            module: a network.
            axis_name: as for the layer.

        Returns:
            The module.

        Example:
            >>> from brickwork import nn
            >>> net = nn.Sequential(nn.Linear(3), nn.BatchNorm1d())
            >>> nn.SyncBatchNorm.convert_sync_batchnorm(net, "data")
            Sequential(
              (0): Linear(? → 3)
              (1): SyncBatchNorm(?, axis_name='data')
            )
        """
        for inner in module.modules():
            if isinstance(inner, BatchNorm):
                object.__setattr__(inner, "__class__", cls)
                inner.axis_name = _hashable(axis_name)  # which tells compiled functions that something has changed
                inner.touched()
        return module

    def extra_repr(self) -> str:
        return super().extra_repr() + args.options(self, axis_name=None)


def _hashable(axis_name: AxisName | None) -> AxisName | None:
    return tuple(axis_name) if isinstance(axis_name, list) else axis_name
