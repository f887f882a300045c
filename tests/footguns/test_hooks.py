"""Hooks run while tracing, like everything that is Python"""

import jax
import jax.numpy as jnp
import numpy as np

import brickwork as bw
from brickwork import nn

SEVERITY = "medium"


def test_what_happens():
    """A hook that collects outputs in a list collects tracers, once. Using one afterwards is an error of JAX's."""
    net = nn.Linear(2, in_features=3)
    outputs = []

    def collect(module, args, output):
        outputs.append(output)

    net.register_forward_hook(collect)
    compiled = bw.compile(net)
    for _ in range(3):
        compiled(np.ones((1, 3), np.float32))
    assert len(outputs) == 1
    assert isinstance(outputs[0], jax.core.Tracer)


def test_the_right_way():
    """`net.capture` makes the outputs of inner layers results of the program. A hook may compute, replace an output,
    and write buffers.
    """
    net = nn.Sequential(nn.Linear(2, in_features=3), nn.Tanh())
    largest = bw.Buffer(np.zeros((), np.float32))

    def track(module, args, output):
        largest.value = jnp.maximum(largest.value, output.max())

    net[0].register_forward_hook(track)
    compiled = bw.compile(net)
    x = np.ones((1, 3), np.float32)
    with net.capture("0") as outputs:
        y = compiled(x)
    assert np.allclose(jnp.tanh(outputs["0"]), y)
    assert np.allclose(largest, jnp.maximum(0, outputs["0"].max()))
