"""A compiled module inside another one is the plain module"""

import numpy as np

import brickwork as bw
from brickwork import nn

SEVERITY = "low"


def test_what_happens():
    """`bw.compile(net)` gives an object for calling `net`. Where a module holds it, in a `Sequential` or an attribute,
    it holds `net` itself, so that names, files and structure are those of the network alone. Calling the outer module
    eagerly runs the inner one eagerly.
    """
    encoder = bw.compile(nn.Linear(2))
    net = nn.Sequential(encoder, nn.ReLU())
    net(np.ones((1, 3), np.float32))
    assert type(net[0]) is nn.Linear and encoder.stats().calls == 0


def test_the_right_way():
    """Compile the outermost call: the parts become one program."""
    net = bw.compile(nn.Sequential(nn.Linear(2), nn.ReLU()))
    net(np.ones((1, 3), np.float32))
    assert net.stats().calls == 1
