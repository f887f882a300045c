"""Sets, deques, very long lists, proxies and the environment are not watched"""

import collections
import contextvars
import os

import numpy as np

import brickwork as bw

SEVERITY = "high"


def test_what_happens():
    """At each call a compiled function compares the globals, captured variables, attributes, and the items of lists
    and dicts that its code mentions; of modules also what their hooks mention, and the objects that they hold. It
    can't look into objects written in C, such as sets, deques and context variables, where proxies often keep what
    they stand for, into more than 256 items in all, or at what lies outside of the process. Nor does it know
    attributes whose names stand nowhere in the code that asks for them, as in `getattr(o, prefix + name)` or
    `f(**vars(o))`.
    """

    class Proxy:
        def __init__(self, target):
            self._stack = {target}

        def __getattr__(self, name):
            return getattr(next(iter(self._stack)), name)

    class Settings:
        rate = 1.0

    flags, queue, long = {"plain"}, collections.deque([1.0]), [1.0] * 1000
    settings, scale = Settings(), contextvars.ContextVar("scale", default=1.0)
    proxy = Proxy(settings)

    @bw.compile
    def scaled(x):
        gain = 2.0 if "loud" in flags else 1.0
        gain *= proxy.rate * scale.get() * float(os.environ.get("GAIN", "1"))
        return x * gain * queue[0] * long[-1]

    x = np.ones((), np.float32)
    assert float(scaled(x)) == 1
    flags.add("loud")
    queue[0] = long[-1] = settings.rate = 3.0
    scale.set(4.0)
    os.environ["GAIN"] = "5"
    try:
        assert float(scaled(x)) == 1
    finally:
        del os.environ["GAIN"]


def test_the_right_way():
    """Keep what may change in plain attributes, lists or dicts of moderate size, or pass it as an argument. An equal
    value leads back to the earlier program.
    """
    settings = {"loud": False, "gains": [1.0, 1.0]}

    @bw.compile
    def scaled(x):
        gain = 2.0 if settings["loud"] else 1.0
        return x * gain * settings["gains"][-1]

    x = np.ones((), np.float32)
    assert float(scaled(x)) == 1
    settings["loud"] = True
    settings["gains"][-1] = 3.0
    assert float(scaled(x)) == 6
    settings["loud"], settings["gains"][-1] = False, 1.0
    assert float(scaled(x)) == 1
    assert scaled.stats().compilations == 2
