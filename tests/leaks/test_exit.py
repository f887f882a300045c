"""The end of a process: modules and compiled functions that are alive then say nothing."""

import subprocess
import sys
import textwrap


def test_nothing_is_said_at_the_end():
    program = textwrap.dedent(
        """
        import numpy as np

        import brickwork as bw
        from brickwork import nn, optim

        net = nn.Sequential(nn.Linear(3), nn.BatchNorm1d(), nn.Dropout(0.5))
        opt = optim.adam(net, 1e-3)

        @bw.compile
        def step(x):
            loss, grads = bw.value_and_grad(lambda x: net(x).sum(), net)(x)
            opt.step(grads)
            return loss

        other = bw.compile(net)
        step(np.ones((2, 4), np.float32))
        step(np.ones((3, 4), np.float32))
        other(np.ones((3, 4), np.float32))
        kept = [lambda: (net, opt, step, other)]  # a reference from outside, so that the end is in no good order
        """
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
