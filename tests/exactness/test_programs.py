"""The catalogue: each program leaves the same behind run eagerly, compiled and, where that can be, in plain Python."""

from __future__ import annotations

import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import brickwork as bw
from brickwork.core import random_stream
from brickwork.core._jax import Tracer

from . import plain, programs_control, programs_functions, programs_state, programs_structure, programs_training
from .harness import EAGER, PROGRAMS, SEED, assert_same, run, values, variables

EVERY = pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.name)


@EVERY
def test_program(program):
    eager, _ = run(program, EAGER, compiled=False)
    compiled, fn = run(program, bw, compiled=True)
    for i, (a, b) in enumerate(zip(eager, compiled, strict=True)):
        assert_same(a, b, program.rtol, f"call {i}, eager and compiled")
    assert program.compilations in (fn.stats().compilations, None)
    if program.plain:
        expected, _ = run(program, plain, compiled=False)
        for i, (a, b) in enumerate(zip(eager, expected, strict=True)):
            assert_same(a, b, program.rtol, f"call {i}, eager and plain Python")


@EVERY
def test_a_failure_at_the_very_end_leaves_nothing(program):
    bw.seed(SEED)
    fn, state, calls = program.build(bw)
    before, random = values(state), np.asarray(random_stream().value)

    def fails(*args):
        fn(*args)
        raise KeyError("at the very end")

    with pytest.raises(KeyError, match="at the very end"):
        bw.compile(fails)(*calls[0])
    assert not any(isinstance(v._value, Tracer) for _, v in variables(state))
    after = values(state)
    kept = [name for name in before if name in after]  # a module may have put another in the place of its child
    assert_same({name: after[name] for name in kept}, {name: before[name] for name in kept}, 0.0)
    np.testing.assert_array_equal(np.asarray(random_stream().value), random)


def test_catalogue():
    """Names are distinct, and there are as many programs as the catalogue is meant to have."""
    assert {p.build.__module__ for p in PROGRAMS} == {
        m.__name__
        for m in (programs_control, programs_functions, programs_state, programs_structure, programs_training)
    }
    names = [p.name for p in PROGRAMS]
    assert len(set(names)) == len(names) >= 40


# -- threads -----------------------------------------------------------------------------------------


def in_threads(*work):
    """Call functions at the same time; raise what one of them raised."""
    errors, start = [], threading.Barrier(len(work))

    def call(fn):
        try:
            start.wait()
            fn()
        except BaseException as error:  # to be raised where pytest sees it
            errors.append(error)

    threads = [threading.Thread(target=call, args=(fn,)) for fn in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


QUIET = (  # programs that draw no random numbers, of which there is one stream for all threads
    "swap_and_alias",
    "branches_in_branches_in_a_loop",
    "a_tie_across_a_scan_boundary",
    "batch_norm_in_branches",
)


def test_two_programs_in_two_threads():
    """Tracing, compiling and running at the same time, each with state of its own."""
    chosen = [p for p in PROGRAMS if p.name in QUIET]
    expected = {p.name: run(p, EAGER, compiled=False)[0] for p in chosen}
    built = {}
    for p in chosen:
        bw.seed(SEED)
        built[p.name] = p.build(bw)
    records = {p.name: [] for p in chosen}

    def work(program):
        fn, state, calls = built[program.name]
        step = bw.compile(fn)
        for args in calls:
            records[program.name].append({"result": step(*args), "state": values(state)})

    in_threads(*[lambda p=p: work(p) for p in chosen])
    for p in chosen:
        for record, wanted in zip(records[p.name], expected[p.name], strict=True):
            assert_same(record, {k: wanted[k] for k in record}, p.rtol, p.name)


def test_one_compiled_function_in_two_threads():
    """Calls that write take turns: none is lost, and no random key is drawn twice."""
    count, keys = bw.Buffer(jnp.zeros((), jnp.int32)), []

    @bw.compile
    def step(x):
        def body(c, _):
            count.value += 1
            return c + 1, jax.random.key_data(bw.random.key())

        return bw.scan(body, x, length=3)[1]

    def work():
        for _ in range(20):
            keys.append(np.asarray(step(jnp.int32(0))))

    in_threads(work, work)
    assert int(count) == 120
    assert len(np.unique(np.concatenate(keys), axis=0)) == 120
    assert int(random_stream().value[-1]) == 120
    assert step.stats().compilations == 1


def test_a_trace_in_one_thread_is_unseen_in_another():
    """A value written while one thread traces is read by another as it was."""
    b, inside, go = bw.Buffer(jnp.float32(1)), threading.Event(), threading.Event()
    seen = []

    @bw.compile
    def step(x):
        def body(c, _):
            b.value = b.value * 2
            inside.set()
            go.wait(20)
            return c + b.value, None

        return bw.scan(body, x, length=2)[0]

    def other():
        inside.wait(20)
        seen.append(float(bw.vmap(lambda x: x * b)(jnp.ones(2)).sum()))
        go.set()

    in_threads(lambda: step(jnp.float32(0)), other)
    assert seen == [2.0]
    assert float(b) == 4
