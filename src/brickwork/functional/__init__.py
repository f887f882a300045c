"""Pure functions on arrays: the computations of the layers.

Each function checks its arguments, and is compiled once for each shape when called outside of
another compiled function.
"""

from ._activation import (
    gelu as gelu,
    log_softmax as log_softmax,
    relu as relu,
    sigmoid as sigmoid,
    softmax as softmax,
    tanh as tanh,
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
from ._pad import pad as pad
from ._pool_adaptive import (
    adaptive_avg_pool1d as adaptive_avg_pool1d,
    adaptive_avg_pool2d as adaptive_avg_pool2d,
    adaptive_avg_pool3d as adaptive_avg_pool3d,
    adaptive_max_pool1d as adaptive_max_pool1d,
    adaptive_max_pool2d as adaptive_max_pool2d,
    adaptive_max_pool3d as adaptive_max_pool3d,
)
from ._pool_avg import (
    avg_pool1d as avg_pool1d,
    avg_pool2d as avg_pool2d,
    avg_pool3d as avg_pool3d,
    lp_pool1d as lp_pool1d,
    lp_pool2d as lp_pool2d,
    lp_pool3d as lp_pool3d,
)
from ._pool_fractional import (
    fractional_max_pool2d as fractional_max_pool2d,
    fractional_max_pool3d as fractional_max_pool3d,
)
from ._pool_max import (
    max_pool1d as max_pool1d,
    max_pool2d as max_pool2d,
    max_pool3d as max_pool3d,
)
from ._resize import (
    interpolate as interpolate,
)
from ._shuffle import (
    channel_shuffle as channel_shuffle,
    pixel_shuffle as pixel_shuffle,
    pixel_unshuffle as pixel_unshuffle,
)
from ._unpool import (
    max_unpool1d as max_unpool1d,
    max_unpool2d as max_unpool2d,
    max_unpool3d as max_unpool3d,
)
