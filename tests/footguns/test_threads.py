"""Two threads that update one variable eagerly lose an update"""

import threading

import numpy as np

import brickwork as bw

SEVERITY = "medium"


def test_what_happens():
    """`total += x` reads, adds and writes. Between the first and the last another thread may have written."""
    total = bw.Buffer(np.zeros((), np.float32))
    both_have_read = threading.Barrier(2)

    def add(x):
        old = total.value
        both_have_read.wait()  # the unlucky moment
        total.value = old + x

    threads = [threading.Thread(target=add, args=(1.0,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert float(total) == 1


def test_the_right_way():
    """Compiled functions that write take turns, each call in one piece. Hold a lock around eager updates."""
    total = bw.Buffer(np.zeros((), np.float32))

    @bw.compile
    def add(x):
        total.value += x

    add(np.float32(0))
    threads = [threading.Thread(target=lambda: [add(np.float32(1)) for _ in range(20)]) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert float(total) == 40
