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
from ._dropout import (
    alpha_dropout as alpha_dropout,
    dropout as dropout,
    dropout1d as dropout1d,
    dropout2d as dropout2d,
    dropout3d as dropout3d,
    feature_alpha_dropout as feature_alpha_dropout,
)
from ._embedding import embedding as embedding, embedding_renorm as embedding_renorm
from ._embedding_bag import embedding_bag as embedding_bag
from ._linear import bilinear as bilinear, flatten as flatten, linear as linear, unflatten as unflatten
from ._norm import (
    batch_norm_eval as batch_norm_eval,
    batch_norm_train as batch_norm_train,
    layer_norm as layer_norm,
    update_running_statistics as update_running_statistics,
)
from ._pool import avg_pool2d as avg_pool2d, max_pool2d as max_pool2d
from ._recurrent import gru as gru, lstm as lstm, rnn as rnn
from ._recurrent_cells import gru_cell as gru_cell, lstm_cell as lstm_cell, rnn_cell as rnn_cell
