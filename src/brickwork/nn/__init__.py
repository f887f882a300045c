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
from ._branches import Lambda as Lambda, Parallel as Parallel, Residual as Residual
from ._containers import ModuleDict as ModuleDict, ModuleList as ModuleList, Sequential as Sequential
from ._conv import Conv2d as Conv2d
from ._dropout import Dropout as Dropout
from ._embedding import Embedding as Embedding
from ._linear import Flatten as Flatten, Identity as Identity, Linear as Linear
from ._lora import LoRA as LoRA, lora as lora, merge_lora as merge_lora
from ._norm import (
    BatchNorm1d as BatchNorm1d,
    BatchNorm2d as BatchNorm2d,
    LayerNorm as LayerNorm,
)
from ._parameters import ParameterDict as ParameterDict, ParameterList as ParameterList
from ._pool import AvgPool2d as AvgPool2d, MaxPool2d as MaxPool2d
from ._quantize import Quantized as Quantized, quantize as quantize
from ._repeat import Repeat as Repeat
