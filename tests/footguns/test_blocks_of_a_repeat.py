"""`repeat[i]` is a copy of a block"""

import numpy as np

from brickwork import nn

SEVERITY = "high"


def test_what_happens():
    """`nn.Repeat` keeps the parameters of its blocks stacked, one array for all. Indexing takes one block out, with the
    values it has; what is done to it doesn't reach the network, as it would in a `Sequential`.
    """
    net = nn.Repeat(lambda: nn.Linear(3, in_features=3), 2)
    before = np.asarray(net.block.weight)
    net[0].weight[:] = 0
    assert np.array_equal(net.block.weight, before)


def test_the_right_way():
    """Write into the stacked parameter, whose first axis counts the blocks, or load a state by the names of the
    blocks.
    """
    net = nn.Repeat(lambda: nn.Linear(3, in_features=3), 2)
    net.block.weight[0] = 0
    assert not np.any(net[0].weight)
    net.load_state_dict(net.state_dict() | {"1.weight": np.ones((3, 3), np.float32)})
    assert np.all(np.asarray(net[1].weight) == 1)
