"""Memory: what is overwritten in place, and that nothing the user holds ever is."""

from __future__ import annotations

import gc

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import brickwork as bw

N = 1000


class Net(bw.Module):
    def __init__(self):
        self.w = bw.Parameter(jnp.ones(N))
        self.n = bw.Buffer(jnp.zeros(()))


@pytest.fixture
def net():
    return Net()


@pytest.fixture
def step(net):
    @bw.compile
    def step():
        net.w.value = net.w.value * 2
        net.n.value = net.n.value + 1

    for _ in range(3):
        step()
    return step


def all_are(array, number):
    np.testing.assert_array_equal(np.asarray(array), np.full(N, number, np.float32))


def test_kept_value(net, step):
    kept = net.w.value
    step()
    step()
    all_are(kept, 8)
    all_are(net.w, 32)


def test_kept_view(net, step):
    view = np.asarray(net.w)
    step()
    step()
    all_are(view, 8)


def test_kept_through_device_put(net, step):
    alias = jax.device_put(net.w.value, net.w.device)
    step()
    all_are(alias, 8)


def test_kept_state_dict(net, step):
    state = net.state_dict()
    step()
    all_are(state["w"], 8)
    net.load_state_dict(state)
    step()
    all_are(state["w"], 8)
    all_are(net.w, 16)


def test_kept_in_a_tree(net, step):
    leaves = jax.tree_util.tree_leaves(net)
    step()
    all_are(next(v for v in leaves if v.shape == (N,)), 8)


def test_clone_shares_arrays(net, step):
    twin = net.clone()
    step()
    all_are(twin.w, 8)
    twin_step = bw.compile(lambda m: setattr(m.w, "value", m.w.value + 1))
    for _ in range(3):
        twin_step(twin)
    all_are(twin.w, 11)
    all_are(net.w, 16)


def test_two_variables_around_one_array():
    array = jnp.ones(N)
    a, b = bw.Parameter(array), bw.Parameter(array)

    @bw.compile
    def step():
        a.value = a.value + b.value
        b.value = b.value * 3

    step()
    all_are(array, 1), all_are(a, 2), all_are(b, 3)
    b.value = a.value
    step()
    all_are(a, 4), all_are(b, 6)
    step()
    all_are(a, 10)


def test_array_given_by_the_user(net, step):
    mine = jnp.full(N, 3.0, jnp.float32)
    net.w.value = mine
    for _ in range(3):
        step()
    all_are(mine, 3)
    all_are(net.w, 24)


def test_numpy_memory(net, step):
    mine = np.full(N, 3.0, np.float32)
    net.w.value = mine
    step()
    step()
    all_are(mine, 3)
    mine[:] = 0
    all_are(net.w, 12)


def test_a_numpy_array_given_to_a_parameter_is_copied():
    mine = np.ones(N, np.float32)
    p = bw.Parameter(mine)
    mine[:] = 5
    all_are(p, 1)


def test_returned_arrays(net):
    @bw.compile
    def step():
        net.w.value = net.w.value * 2
        return net.w.value, net.w

    results = [step() for _ in range(4)]
    for i, (a, b) in enumerate(results):
        all_are(a, 2 ** (i + 1)), all_are(b, 2 ** (i + 1))


def test_returned_by_another_function(net, step):
    read = bw.compile(lambda: net.w.value)
    read()
    kept = read()
    step()
    step()
    all_are(kept, 8)


def test_old_value_returned(net):
    @bw.compile
    def step():
        old = net.w.value
        net.w.value = old * 2
        return old

    results = [step() for _ in range(4)]
    for i, r in enumerate(results):
        all_are(r, 2**i)


def test_argument_that_is_the_value(net):
    @bw.compile
    def step(v):
        net.w.value = net.w.value + v

    step(net.w.value)
    all_are(net.w, 2)
    mine = net.w.value
    step(mine)
    all_are(mine, 2), all_are(net.w, 4)


def test_kept_gradients(net):
    net.w.grad = jnp.ones(N)

    @bw.compile
    def step():
        net.w.grad = net.w.grad + 1

    step()
    kept = net.w.grad
    step()
    step()
    all_are(kept, 2), all_are(net.w.grad, 4)


def test_kept_by_value_and_grad_and_optimiser(net):
    opt = bw.optim.sgd(net, 0.5, momentum=0.9)

    @bw.compile
    def step():
        _, grads = bw.value_and_grad(lambda: net.w.sum(), net)()
        opt.step(grads)
        return grads

    step()
    state, weights, grads = opt.state_dict(), net.w.value, step()
    copies = {k: np.array(v) for k, v in state.items()}
    before = np.array(weights)
    step()
    for k, v in state.items():
        np.testing.assert_array_equal(v, copies[k])
    np.testing.assert_array_equal(weights, before)
    all_are(grads["w"], 1)


def test_without_donation(net):
    @bw.compile(donate=False)
    def step():
        net.w.value = net.w.value * 2

    step()
    step()
    assert step.stats().donated == 0
    all_are(net.w, 4)


def test_written_variables_are_donated(net, step):
    assert step.stats().donated >= 4 * N
    before = net.w._value
    pointer = before.unsafe_buffer_pointer()
    del before
    step()
    step()
    assert pointer in {net.w._value.unsafe_buffer_pointer(), pointer}


def test_read_only_variables_are_not_donated(net):
    f = bw.compile(lambda: net.w.sum())
    f()
    f()
    assert f.stats().donated == 0
    all_are(net.w, 1)


def test_one_copy_of_parameters_and_optimiser_state():
    net = Net()
    opt = bw.optim.adam(net, 0.1)

    @bw.compile
    def step():
        _, grads = bw.value_and_grad(lambda: (net.w * net.w).sum(), net)()
        opt.step(grads)

    for _ in range(3):
        step()
    gc.collect()
    net_arrays = {id(a) for a in jax.live_arrays() if a.shape == (N,) and a.size == N}
    mine = {id(v._value) for v in (*net.variables(), *opt.variables()) if v.shape == (N,)}
    assert len(mine) == 3
    assert mine <= net_arrays
    before = len(net_arrays)
    for _ in range(3):
        step()
    gc.collect()
    assert len([a for a in jax.live_arrays() if a.shape == (N,)]) == before
    assert step.stats().donated >= 3 * 4 * N


def test_no_stray_copies_of_a_network():
    gc.collect()
    before = len([a for a in jax.live_arrays() if a.shape == (N + 1,)])
    p = bw.Parameter(shape=(N + 1,), init=bw.init.normal(1.0))

    @bw.compile
    def step():
        p.value = p.value * 2

    for _ in range(3):
        step()
    gc.collect()
    assert len([a for a in jax.live_arrays() if a.shape == (N + 1,)]) == before + 1


def test_a_failing_call_destroys_nothing(net, step):
    def boom():
        raise RuntimeError("no")

    @bw.compile
    def bad():
        net.w.value = net.w.value * 2
        boom()

    with pytest.raises(RuntimeError, match="no"):
        bad()
    all_are(net.w, 8)


def test_a_failure_while_running_destroys_nothing(net):
    fail = [False]

    def check(v):
        if fail[0]:
            raise ValueError("on purpose")
        return v

    @bw.compile
    def step():
        shape = jax.ShapeDtypeStruct((N,), jnp.float32)
        net.w.value = jax.pure_callback(check, shape, net.w.value) * 2

    step()
    step()
    fail[0] = True
    with pytest.raises(Exception, match="on purpose"):
        step()
        jax.block_until_ready(net.w._value)
    fail[0] = False
    all_are(net.w, 4)


def test_sharing_between_two_compiled_functions(net):
    double = bw.compile(lambda: setattr(net.w, "value", net.w.value * 2))
    halve = bw.compile(lambda: setattr(net.w, "value", net.w.value / 2))
    for _ in range(4):
        double(), halve()
    all_are(net.w, 1)


def test_functional_state_survives(net, step):
    class Apply(Net):
        def forward(self, v):
            return self.w * v

    net = Apply()
    pure, state = bw.functional(net)
    bump = bw.compile(lambda: setattr(net.w, "value", net.w.value + 1))
    bump(), bump()
    all_are(state["w"], 1)
    out, _ = pure(state, 2.0)
    all_are(out, 2)


def test_loaded_arrays(net, step):
    mine = jnp.full(N, 3.0, jnp.float32)
    net.load_state_dict({"w": mine, "n": jnp.zeros(())})
    step()
    step()
    all_are(mine, 3)


def test_a_gradient_given_by_the_user(net):
    @bw.compile
    def step():
        net.w.grad = net.w.grad + 1

    net.w.grad = jnp.zeros(N)
    step()
    step()
    mine = jnp.full(N, 3.0, jnp.float32)
    net.w.grad = mine
    step()
    step()
    all_are(mine, 3)


def test_a_call_inside_a_raw_trace_leaves_the_boxes(net):
    kept = net.w.value

    @bw.compile
    def step(v):
        net.w.value = net.w.value + v

    step(np.ones(N, np.float32))
    net.w.value
    with pytest.raises(bw.errors.TraceLeakError):
        jax.jit(lambda: step(np.ones(N, np.float32)))()
    assert not isinstance(net.w._value, jax.core.Tracer)
    all_are(net.w, 2)
    all_are(kept, 1)


def test_an_alias_made_inside_a_forward():
    class Alias(Net):
        def forward(self):
            return jax.device_put(self.w.value, self.w.device)

    net = Alias()
    step = bw.compile(lambda: setattr(net.w, "value", net.w.value + 1))
    step(), step(), step()
    kept = net()
    step(), step()
    all_are(kept, 4)
