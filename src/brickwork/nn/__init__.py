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
from ._attention import MultiheadAttention as MultiheadAttention
from ._cache import KVCache as KVCache
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
from ._positions import RotaryEmbedding as RotaryEmbedding, SinusoidalPositions as SinusoidalPositions
from ._repeat import Repeat as Repeat
from ._transformer import (
    TransformerDecoderLayer as TransformerDecoderLayer,
    TransformerEncoderLayer as TransformerEncoderLayer,
)
from ._transformer_stacks import (
    Transformer as Transformer,
    TransformerDecoder as TransformerDecoder,
    TransformerEncoder as TransformerEncoder,
)
