"""Layers and containers."""

from ..core import Buffer as Buffer, Parameter as Parameter
from ..module import Module as Module
from ._activation import (
    CELU as CELU,
    ELU as ELU,
    GELU as GELU,
    SELU as SELU,
    LogSigmoid as LogSigmoid,
    Mish as Mish,
    Sigmoid as Sigmoid,
    SiLU as SiLU,
    Softplus as Softplus,
    Softsign as Softsign,
    Tanh as Tanh,
    Tanhshrink as Tanhshrink,
)
from ._activation_piecewise import (
    Hardshrink as Hardshrink,
    Hardsigmoid as Hardsigmoid,
    Hardswish as Hardswish,
    Hardtanh as Hardtanh,
    LeakyReLU as LeakyReLU,
    PReLU as PReLU,
    ReLU as ReLU,
    ReLU6 as ReLU6,
    RReLU as RReLU,
    Softshrink as Softshrink,
    Threshold as Threshold,
)
from ._activation_softmax import (
    GLU as GLU,
    LogSoftmax as LogSoftmax,
    Softmax as Softmax,
    Softmax2d as Softmax2d,
    Softmin as Softmin,
)
from ._containers import Sequential as Sequential
from ._conv import Conv2d as Conv2d
from ._dropout import Dropout as Dropout
from ._embedding import Embedding as Embedding
from ._linear import Flatten as Flatten, Identity as Identity, Linear as Linear
from ._norm import (
    BatchNorm1d as BatchNorm1d,
    BatchNorm2d as BatchNorm2d,
    LayerNorm as LayerNorm,
)
from ._pool import AvgPool2d as AvgPool2d, MaxPool2d as MaxPool2d
from ._repeat import Repeat as Repeat
