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
from ._conv import Conv1d as Conv1d, Conv2d as Conv2d, Conv3d as Conv3d
from ._conv_transpose import (
    ConvTranspose1d as ConvTranspose1d,
    ConvTranspose2d as ConvTranspose2d,
    ConvTranspose3d as ConvTranspose3d,
)
from ._dropout import Dropout as Dropout
from ._embedding import Embedding as Embedding
from ._fold import Fold as Fold, Unfold as Unfold
from ._linear import Flatten as Flatten, Identity as Identity, Linear as Linear
from ._norm import (
    BatchNorm1d as BatchNorm1d,
    BatchNorm2d as BatchNorm2d,
    LayerNorm as LayerNorm,
)
from ._pool import AvgPool2d as AvgPool2d, MaxPool2d as MaxPool2d
from ._repeat import Repeat as Repeat
