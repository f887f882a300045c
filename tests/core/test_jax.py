"""The parts of JAX that are not documented as stable, one by one, so that a release that changes one fails here."""

from __future__ import annotations

import operator
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from brickwork.core import _jax


def turns(x):
    """A loop whose number of turns is traced."""
    return jax.lax.fori_loop(0, x.astype(int), lambda i, c: c + 1, x)


def inside(fn, *args):
    """What ``fn`` returns while JAX traces it."""
    found = []
    jax.make_jaxpr(lambda *tracers: found.append(fn(*tracers)))(*args)
    return found[0]


# -- traces -----------------------------------------------------------------------------------------


def test_stamps_tell_traces_apart():
    states = [_jax.base_state()]
    assert _jax.trace_state() == states[0]
    jax.make_jaxpr(lambda x: states.append(_jax.trace_state()))(1.0)
    jax.vmap(lambda x: states.append(_jax.trace_state()))(jnp.ones(2))
    assert all(a != b for i, a in enumerate(states) for b in states[:i])
    assert _jax.trace_state() == _jax.base_state()
    other = threading.Thread(target=lambda: states.append(_jax.trace_state()))
    other.start()
    other.join()
    assert states[-1] == _jax.base_state()


def test_leaving_and_entering_a_trace():
    def fn(x):
        trace = _jax.current_trace()
        assert isinstance(x + 1, _jax.Tracer)
        with _jax.untraced():
            y = jnp.ones(2) + 1
            assert not isinstance(y, _jax.Tracer) and _jax.trace_state() == _jax.base_state()
            with _jax.in_trace(trace):
                assert isinstance(x + 1, _jax.Tracer)
        assert _jax.current_trace() is trace
        return y

    np.testing.assert_array_equal(inside(fn, 1.0), [2, 2])


def test_what_is_staged():
    assert not _jax.is_staged()
    assert inside(lambda x: _jax.is_staged(), 1.0)
    seen = []
    jax.grad(lambda x: seen.append(_jax.is_staged()) or x)(1.0)
    inside(jax.grad(lambda x: seen.append(_jax.is_staged()) or x), 1.0)
    jax.vmap(lambda x: seen.append(_jax.is_staged()))(jnp.ones(2))
    jax.vmap(lambda x: jax.jit(lambda y: seen.append(_jax.is_staged()))(x))(jnp.ones(2))
    assert seen == [False, True, False, True]


def test_kinds_of_tracers():
    found = []

    def lane(x, y):
        trace = _jax.current_trace()
        found.append((_jax.is_batched(x, trace), _jax.is_batched(y, trace), _jax.is_batched(x + y, trace)))

    jax.vmap(lane, in_axes=(0, None))(jnp.ones(2), jnp.ones(()))
    assert found == [(True, False, True)]
    jax.grad(lambda x: found.append((_jax.is_differentiated(x), _jax.is_differentiated(1.0))) or x)(1.0)
    assert found[-1] == (True, False)


def test_axes_along_which_values_vary(devices):
    mesh = jax.sharding.Mesh(devices[:2], "i")
    seen = []

    def body(x, y):
        seen.extend([_jax.varying_axes(x), _jax.varying_axes(y)])
        return x

    spec = jax.sharding.PartitionSpec
    jax.shard_map(body, mesh=mesh, in_specs=(spec("i"), spec()), out_specs=spec("i"))(jnp.ones(2), jnp.ones(2))
    assert seen[:2] == [{"i"}, frozenset()]
    assert _jax.varying_axes(jnp.ones(2)) == frozenset()


# -- jaxprs -----------------------------------------------------------------------------------------


def test_running_a_jaxpr_and_its_inputs():
    closed = jax.make_jaxpr(lambda x, y, z: (jnp.sin(x) + jnp.ones(2), z))(jnp.ones(2), 2.0, 3.0)
    first, second = _jax.evaluate_jaxpr(closed.jaxpr, closed.consts, [jnp.zeros(2), 2.0, 5.0])
    assert first.tolist() == [1, 1] and second == 5
    assert _jax.used_inputs(closed) == [True, False, True]


@pytest.mark.parametrize(
    ("fn", "calls", "loops"),
    [
        (jnp.sin, False, False),
        (lambda x: jax.debug.print("{}", x), True, False),
        (lambda x: jax.debug.callback(lambda v: None, x), True, False),
        (lambda x: jax.pure_callback(lambda v: v, x, x), True, False),
        (lambda x: jax.jit(lambda y: jax.pure_callback(lambda v: v, y, y))(x), True, False),
        (lambda x: jax.lax.cond(x > 0, lambda: jax.debug.print("a"), lambda: None), True, False),
        (lambda x: jax.lax.while_loop(lambda c: c < 1, lambda c: c + 1, x), False, True),
        (lambda x: jax.lax.scan(lambda c, _: (c, None), x, None, length=3), False, False),
        (lambda x: jax.lax.cond(x > 0, turns, jnp.sin, x), False, True),
        (lambda x: jax.random.poisson(jax.random.key(0), x), False, True),
    ],
)
def test_what_is_in_a_jaxpr(fn, calls, loops):
    closed = jax.make_jaxpr(fn)(jnp.asarray(1.0))
    assert _jax.calls_python(closed) == _jax.calls_python(closed.jaxpr) == calls
    assert _jax.has_loops(closed.jaxpr) == loops


def test_a_jaxpr_in_parts():
    def fn(x, y):
        a = jnp.sin(x)
        b = a * y
        c = jnp.cos(b)
        return c + a, x, b

    closed = jax.make_jaxpr(fn)(1.0, 2.0)
    jaxpr = closed.jaxpr
    assert _jax.known_after(jaxpr, jaxpr.outvars) == [4, 0, 2]
    for ends in ([], [2], [0, 1, 2, 3, 4], [4], [2, 2]):
        parts = _jax.parts(jaxpr, ends)
        assert sum(len(p.jaxpr.eqns) for p in parts) == 4 and not any(p.loops for p in parts)
        values = dict(zip(jaxpr.invars, (1.0, 2.0), strict=True))
        for part in parts:
            out = _jax.evaluate_jaxpr(part.jaxpr, (), [values[v] for v in part.reads])
            values.update(zip(part.gives, out, strict=True))
        np.testing.assert_allclose([values[v] for v in jaxpr.outvars], fn(1.0, 2.0), rtol=1e-6)
    first, second = _jax.parts(jaxpr, [2])
    assert (len(first.reads), len(first.gives), len(second.reads), len(second.gives)) == (2, 2, 2, 1)


# -- errors and settings ------------------------------------------------------------------------------


def test_errors_are_recognised(devices):
    with pytest.raises(ValueError) as caught:
        jax.device_put(jnp.ones(2), devices[0]) + jax.device_put(jnp.ones(2), devices[1])
    assert _jax.is_device_error(caught.value) and not _jax.is_device_error(ValueError("another"))

    @jax.custom_vjp
    def f(x):
        return x

    f.defvjp(lambda x: (x, None), lambda _, t: (t,))
    with pytest.raises(TypeError) as caught:
        jax.jvp(f, (1.0,), (1.0,))
    assert _jax.is_forward_mode_error(caught.value) and not _jax.is_forward_mode_error(TypeError("another"))


def test_settings_are_part_of_what_is_traced():
    before = _jax.trace_config()
    assert before == _jax.trace_config() and hash(before) == hash(_jax.trace_config())
    with jax.default_matmul_precision("highest"):
        assert _jax.trace_config() != before
    with jax.enable_x64(True):
        assert _jax.trace_config() != before
    assert _jax.setting("jax_default_prng_impl") == "threefry2x32"


def test_inputs_that_are_found_while_tracing():
    """They may be read in any transform inside, and not at all."""
    values = [jnp.arange(3.0), jnp.asarray(2, jnp.int32), jax.random.key(0)]
    late = []

    def f(x, y):
        trace = _jax.current_trace()

        def inner(x):
            read = [_jax.late_input(trace, value) for value in values]
            late.extend(tracer.val for tracer in read)
            return (x * read[0]).sum()

        return jax.grad(inner)(x) + y

    closed = _jax.with_late_inputs(jax.make_jaxpr(f)(jnp.ones(3), 1.0), late, 1)
    assert [v.aval.shape for v in closed.jaxpr.invars] == [(3,), (3,), (), (), ()]
    assert _jax.used_inputs(closed) == [True, True, False, False, True]
    out = _jax.evaluate_jaxpr(closed.jaxpr, closed.consts, [jnp.ones(3), *values, jnp.asarray(5.0)])
    assert out[0].tolist() == [5, 6, 7]


# -- values behind tracers ----------------------------------------------------------------------------


@pytest.fixture
def hook():
    """Sets what answers conversions, for the length of a test."""
    before = _jax._hooked[:]
    yield _jax.answer_conversions
    if before:
        _jax.answer_conversions(before[0])
    else:
        _jax.answer_conversions(lambda tracer, convert: NotImplemented)


def test_questions_come_to_the_hook(hook):
    asked = []

    def answer(tracer, convert):
        asked.append(convert)
        return convert(np.asarray(3, tracer.dtype))

    assert hook(answer)

    def fn(x):
        return bool(x), int(x), float(x), complex(x), operator.index(x), x.item(), "abcd"[x]

    assert inside(fn, jnp.asarray(1)) == (True, 3, 3.0, 3 + 0j, 3, 3, "d")
    assert asked == [bool, int, float, complex, operator.index, _jax.item_of, operator.index]
    assert hook(lambda tracer, convert: NotImplemented)
    for convert in (bool, int, float, complex, operator.index, lambda x: x.item(), lambda x: x.item(0)):
        with pytest.raises((jax.errors.ConcretizationTypeError, jax.errors.TracerIntegerConversionError)):
            inside(convert, jnp.asarray(1))
    assert jnp.asarray(2).item() == 2 and bool(jnp.asarray(True))  # arrays are not tracers


def shadowed(fn, *args):
    """``fn`` with a shadow that knows the arguments, in a trace."""
    fetched = []

    def run(*tracers):
        shadow = _jax.Shadow(tracers, lambda: fetched.append(1) or args)
        return fn(shadow, *tracers)

    return inside(run, *args), len(fetched)


def test_a_shadow_computes_what_is_asked_for():
    outside = jnp.asarray(10.0)

    def fn(shadow, x, y):
        z = jnp.sin(x) * 2 + outside
        w = jax.jit(lambda v: v + 1)(z)
        _ = y / 0
        return [shadow.value(v) for v in (w, z, x, jnp.asarray(2.0) * 1, w)], len(shadow._values)

    (values, count), fetched = shadowed(fn, jnp.asarray(1.0), jnp.asarray(2.0))
    assert not any(isinstance(v, _jax.Tracer) for v in values)
    np.testing.assert_allclose(values, [np.sin(1) * 2 + 11, np.sin(1) * 2 + 10, 1, 2, np.sin(1) * 2 + 11], rtol=1e-6)
    assert fetched == 1 and count < 9
    assert shadowed(lambda shadow, x: None, 1.0)[1] == 0  # and nothing if nothing is asked


def test_a_shadow_of_a_long_chain():
    def fn(shadow, x):
        for _ in range(3000):
            x = x + 1
        return shadow.value(x)

    assert float(shadowed(fn, jnp.asarray(0.0))[0]) == 3000


def test_a_shadow_sees_through_differentiation_only():
    found = {}

    def fn(shadow, x):
        def note(name):
            def inner(y):
                root = shadow.root(y * 2)
                found[name] = None if root is None else float(shadow.value(root))
                return y

            return inner

        note("plain")(x)
        jax.grad(note("grad"))(x)
        jax.jvp(note("jvp"), (x,), (x,))
        jax.hessian(note("hessian"))(x)
        jax.jacfwd(note("jacfwd"))(x)
        jax.vmap(note("vmap"))(x[None])
        jax.vmap(jax.grad(note("grad in vmap")))(x[None])
        jax.jit(note("jit"))(x)
        jax.lax.scan(lambda c, _: (note("scan")(c), None), x, None, length=1)
        jax.checkpoint(note("checkpoint"))(x)

    shadowed(fn, jnp.asarray(3.0))
    known = {"plain", "grad", "jvp", "hessian", "jacfwd"}
    assert {name for name, value in found.items() if value == 6} == known
    assert all(found[name] is None for name in found.keys() - known) and len(found) == 10


def test_a_shadow_has_no_effects():
    calls = []

    def fn(shadow, x):
        y = jax.experimental.io_callback(lambda v: calls.append(1) or v, x, x) + 1
        ref = jax.new_ref(x)
        ref[...] = x + 1
        return shadow.value(y), shadow.value(ref[...]), float(shadow.value(x + 1))

    assert shadowed(fn, jnp.asarray(1.0))[0] == (None, None, 2.0)
    assert not calls


def test_a_shadow_inside_another_trace():
    one = jnp.asarray(1.0)

    def outer(y):
        def fn(shadow, x):
            return shadow.value(x + y), shadow.value(x + 1)

        values, _ = shadowed(fn, one)
        assert values[0] is None and float(values[1]) == 2
        return y

    jax.jit(outer)(1.0)


# -- exported programs ------------------------------------------------------------------------------


def _program(fn, **options):
    x = jax.ShapeDtypeStruct((2, 2), jnp.float32)
    return jax.export.export(jax.jit(fn), platforms=["cpu"], **options)(x).mlir_module_serialized


def test_custom_calls_are_found(capfd):
    assert _jax.custom_calls(_program(jnp.sin)) == set()
    assert _jax.custom_calls(_program(jnp.linalg.qr)) >= {"lapack_sgeqrf_ffi"}
    call = jax.ffi.ffi_call("anything", jax.ShapeDtypeStruct((2, 2), jnp.float32))
    unchecked = [jax.export.DisabledSafetyCheck.custom_call("anything")]
    looped = lambda x: jax.lax.fori_loop(0, 3, lambda i, v: call(v), x)
    assert _jax.custom_calls(_program(looped, disabled_checks=unchecked)) == {"anything"}
    with pytest.raises(ValueError, match="it is not a portable StableHLO program"):
        _jax.custom_calls(_program(jnp.sin)[:-20])
    assert capfd.readouterr() == ("", "")


def test_an_operation_can_be_lowered_in_another_way(monkeypatch):
    from jax._src.interpreters import mlir

    monkeypatch.setitem(mlir._platform_specific_lowerings, "cpu", dict(mlir._platform_specific_lowerings["cpu"]))
    asked = []

    def choose(x, y, **params):
        asked.append((x.shape, y.shape))
        return (lambda x: x + 40) if x.shape == (2,) else None

    _jax.lower_by(jax.lax.erf_inv_p, "cpu", choose)
    x = jnp.zeros(2)
    assert jax.jit(lambda x: jax.lax.erf_inv(x))(x).tolist() == [40, 40]
    assert jax.jit(lambda x: jax.lax.erf_inv(x))(x[:1]).tolist() == [0]
    assert asked == [((2,), (2,)), ((1,), (1,))]
    exported = jax.export.export(jax.jit(lambda x: jax.lax.erf_inv(x)))(x)
    assert exported.call(x).tolist() == [0, 0]
    mesh = jax.make_mesh((2,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    divided = jax.device_put(x, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x")))
    assert jax.jit(lambda x: jax.lax.erf_inv(x))(divided).tolist() == [0, 0]
    assert len(asked) == 2


def test_programs_can_be_kept_out_of_the_cache():
    before = _jax.setting("jax_persistent_cache_min_compile_time_secs")
    with _jax.out_of_cache():
        assert _jax.setting("jax_persistent_cache_min_compile_time_secs") == float("inf")
    assert _jax.setting("jax_persistent_cache_min_compile_time_secs") == before
