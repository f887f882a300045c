"""Pure functions on arrays: the computations of the layers.

Each function checks its arguments, and is compiled once for each shape when called outside of
another compiled function.

Called itself, ``brickwork.functional(net)`` takes a module apart: it returns ``(pure, state)``, for any transform of
JAX. ``pure(state, *args)`` returns ``(output, new state)`` and changes nothing; ``state`` is a dict from path to array,
with the random stream under ``"__random__"`` where the module draws. ``net.load_state_dict(state, strict=False)`` puts
it back.
"""

from typing import TYPE_CHECKING

from .._elsewhere import unknown_in as _unknown_in
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
from ._attention import (
    scaled_dot_product_attention as scaled_dot_product_attention,
)
from ._conv import (
    conv1d as conv1d,
    conv2d as conv2d,
    conv3d as conv3d,
)
from ._conv_transpose import (
    conv_transpose1d as conv_transpose1d,
    conv_transpose2d as conv_transpose2d,
    conv_transpose3d as conv_transpose3d,
)
from ._dropout import (
    alpha_dropout as alpha_dropout,
    dropout as dropout,
    dropout1d as dropout1d,
    dropout2d as dropout2d,
    dropout3d as dropout3d,
    feature_alpha_dropout as feature_alpha_dropout,
)
from ._embedding import (
    embedding as embedding,
    embedding_renorm as embedding_renorm,
    one_hot as one_hot,
)
from ._embedding_bag import (
    embedding_bag as embedding_bag,
)
from ._fold import (
    fold as fold,
    unfold as unfold,
)
from ._grid import (
    affine_grid as affine_grid,
    grid_sample as grid_sample,
)
from ._linear import (
    bilinear as bilinear,
    flatten as flatten,
    linear as linear,
    unflatten as unflatten,
)
from ._loss_binary import (
    binary_cross_entropy as binary_cross_entropy,
    binary_cross_entropy_with_logits as binary_cross_entropy_with_logits,
    kl_div as kl_div,
    sigmoid_focal_loss as sigmoid_focal_loss,
)
from ._loss_classification import (
    cross_entropy as cross_entropy,
    nll_loss as nll_loss,
)
from ._loss_ctc import (
    ctc_loss as ctc_loss,
)
from ._loss_distance import (
    cosine_embedding_loss as cosine_embedding_loss,
    cosine_similarity as cosine_similarity,
    pairwise_distance as pairwise_distance,
    pdist as pdist,
    triplet_margin_loss as triplet_margin_loss,
    triplet_margin_with_distance_loss as triplet_margin_with_distance_loss,
)
from ._loss_linear import (
    adaptive_log_softmax as adaptive_log_softmax,
    linear_cross_entropy as linear_cross_entropy,
)
from ._loss_margin import (
    hinge_embedding_loss as hinge_embedding_loss,
    margin_ranking_loss as margin_ranking_loss,
    multi_margin_loss as multi_margin_loss,
    multilabel_margin_loss as multilabel_margin_loss,
    multilabel_soft_margin_loss as multilabel_soft_margin_loss,
    soft_margin_loss as soft_margin_loss,
)
from ._loss_regression import (
    gaussian_nll_loss as gaussian_nll_loss,
    huber_loss as huber_loss,
    l1_loss as l1_loss,
    mse_loss as mse_loss,
    poisson_nll_loss as poisson_nll_loss,
    smooth_l1_loss as smooth_l1_loss,
)
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
from ._norm_layer import (
    layer_norm as layer_norm,
    rms_norm as rms_norm,
)
from ._norm_response import (
    cross_map_lrn2d as cross_map_lrn2d,
    local_response_norm as local_response_norm,
    normalize as normalize,
)
from ._pad import (
    pad as pad,
)
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
from ._positions import (
    apply_rotary as apply_rotary,
    rotary_tables as rotary_tables,
    sinusoidal_positions as sinusoidal_positions,
)
from ._quantize import (
    dequantize as dequantize,
    quantize as quantize,
)
from ._recurrent import (
    gru as gru,
    lstm as lstm,
    rnn as rnn,
)
from ._recurrent_cells import (
    gru_cell as gru_cell,
    lstm_cell as lstm_cell,
    rnn_cell as rnn_cell,
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

if not TYPE_CHECKING:  # a type checker would take it that every name exists
    __getattr__ = _unknown_in(__name__)
