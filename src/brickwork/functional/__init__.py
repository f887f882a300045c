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
    update_running_statistics as update_running_statistics,
)
from ._norm_group import (
    group_norm as group_norm,
    instance_norm as instance_norm,
    instance_norm_train as instance_norm_train,
)
from ._norm_layer import layer_norm as layer_norm, rms_norm as rms_norm
from ._norm_response import (
    cross_map_lrn2d as cross_map_lrn2d,
    local_response_norm as local_response_norm,
    normalize as normalize,
)
from ._pool import avg_pool2d as avg_pool2d, max_pool2d as max_pool2d
