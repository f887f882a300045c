"""Pure functions on arrays: the computations of the layers.

Each function checks its arguments, and is compiled once for each shape when called outside of
another compiled function.
"""

from ._activation import (
    celu as celu,
    elu as elu,
    gelu as gelu,
    logsigmoid as logsigmoid,
    mish as mish,
    selu as selu,
    sigmoid as sigmoid,
    silu as silu,
    softplus as softplus,
    softsign as softsign,
    tanh as tanh,
    tanhshrink as tanhshrink,
)
from ._activation_piecewise import (
    hardshrink as hardshrink,
    hardsigmoid as hardsigmoid,
    hardswish as hardswish,
    hardtanh as hardtanh,
    leaky_relu as leaky_relu,
    prelu as prelu,
    relu as relu,
    relu6 as relu6,
    rrelu as rrelu,
    softshrink as softshrink,
    threshold as threshold,
)
from ._activation_softmax import (
    glu as glu,
    gumbel_softmax as gumbel_softmax,
    log_softmax as log_softmax,
    softmax as softmax,
    softmin as softmin,
)
from ._conv import conv2d as conv2d
from ._dropout import dropout as dropout
from ._embedding import embedding as embedding
from ._linear import flatten as flatten, linear as linear
from ._norm import (
    batch_norm_eval as batch_norm_eval,
    batch_norm_train as batch_norm_train,
    layer_norm as layer_norm,
    update_running_statistics as update_running_statistics,
)
from ._pool import avg_pool2d as avg_pool2d, max_pool2d as max_pool2d
