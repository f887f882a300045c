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
from ._dropout import (
    AlphaDropout as AlphaDropout,
    Dropout as Dropout,
    Dropout1d as Dropout1d,
    Dropout2d as Dropout2d,
    Dropout3d as Dropout3d,
    FeatureAlphaDropout as FeatureAlphaDropout,
)
from ._embedding import Embedding as Embedding, EmbeddingBag as EmbeddingBag
from ._linear import (
    Bilinear as Bilinear,
    Flatten as Flatten,
    Identity as Identity,
    Linear as Linear,
    Unflatten as Unflatten,
)
from ._norm import (
    BatchNorm1d as BatchNorm1d,
    BatchNorm2d as BatchNorm2d,
    LayerNorm as LayerNorm,
)
from ._pool import AvgPool2d as AvgPool2d, MaxPool2d as MaxPool2d
from ._recurrent import GRU as GRU, LSTM as LSTM, RNN as RNN
from ._recurrent_cells import GRUCell as GRUCell, LSTMCell as LSTMCell, RNNCell as RNNCell
from ._repeat import Repeat as Repeat
