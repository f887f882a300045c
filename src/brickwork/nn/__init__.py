"""Layers and containers."""

from ..core import Buffer as Buffer, Parameter as Parameter
from ..module import Module as Module
from ._activation import (
    GELU as GELU,
    ReLU as ReLU,
    Sigmoid as Sigmoid,
    Softmax as Softmax,
    Tanh as Tanh,
)
from ._containers import Sequential as Sequential
from ._conv import Conv2d as Conv2d
from ._dropout import Dropout as Dropout
from ._embedding import Embedding as Embedding
from ._linear import Flatten as Flatten, Identity as Identity, Linear as Linear
from ._norm import (
    BatchNorm1d as BatchNorm1d,
    BatchNorm2d as BatchNorm2d,
    BatchNorm3d as BatchNorm3d,
)
from ._norm_group import (
    CrossMapLRN2d as CrossMapLRN2d,
    GroupNorm as GroupNorm,
    LocalResponseNorm as LocalResponseNorm,
)
from ._norm_instance import (
    InstanceNorm1d as InstanceNorm1d,
    InstanceNorm2d as InstanceNorm2d,
    InstanceNorm3d as InstanceNorm3d,
)
from ._norm_layer import LayerNorm as LayerNorm, RMSNorm as RMSNorm
from ._norm_sync import SyncBatchNorm as SyncBatchNorm
from ._parametrize import (
    is_parametrized as is_parametrized,
    parametrize as parametrize,
    remove_parametrizations as remove_parametrizations,
)
from ._pool import AvgPool2d as AvgPool2d, MaxPool2d as MaxPool2d
from ._repeat import Repeat as Repeat
from ._weight_norm import spectral_norm as spectral_norm, weight_norm as weight_norm
