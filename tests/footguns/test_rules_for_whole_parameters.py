"""To an optimiser, the blocks of `nn.Repeat` are one parameter"""

import numpy as np
import optax

import brickwork as bw
from brickwork import nn, optim

SEVERITY = "medium"


def test_what_happens():
    """Rules that look at a parameter as a whole, by its norm as LAMB does or by its rows as Adafactor does, see the
    stack of all blocks. Adam and SGD go element by element, and give what they give on separate blocks.
    """
    layer = lambda: nn.Linear(3, in_features=3)
    x = np.ones((1, 3), np.float32)
    for rule, alike in ((optax.sgd(0.1), True), (optax.lars(0.1), False)):
        together, apart = nn.Repeat(layer, 2), nn.Sequential(layer(), layer())
        apart.load_state_dict(together.state_dict())
        for net in (together, apart):
            optim.Optimizer(net, rule).step(bw.grad(lambda x, net=net: (net(x) ** 2).sum(), net)(x))
        a, b = together.state_dict(), apart.state_dict()
        assert np.allclose(a["0.weight"], b["0.weight"]) == alike


def test_the_right_way():
    """For such rules use a `Sequential`, whose layers are separate parameters. In a compiled function equal layers in a
    row become a loop all the same.
    """
    layer = lambda: nn.Linear(3, in_features=3)
    net = nn.Sequential(layer(), layer())
    opt = optim.Optimizer(net, optax.lars(0.1))

    @bw.compile
    def step(x):
        loss, grads = bw.value_and_grad(lambda x: (net(x) ** 2).sum(), net)(x)
        opt.step(grads)
        return loss

    x = np.ones((1, 3), np.float32)
    assert float(step(x)) != float(step(x))
