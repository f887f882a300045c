"""Drawing initial values: the same numbers whole, in slices, in threads and on every run."""

from __future__ import annotations

import copy
import pickle
import re

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import brickwork as bw
from brickwork import _draw, init, nn
from brickwork._draw import BLOCK, as_initializer, current_parameter, draw_array
from brickwork.errors import ShapeMismatchError


def draw(initializer, shape=(4, 6), dtype="float32", seed=0, stream=0, **kw):
    made = as_initializer(initializer)
    return draw_array(made, seed=seed, stream=stream, shape=shape, dtype=dtype, **kw)


class Ramp(init.ElementwiseInitializer):
    """Counts the blocks it draws."""

    def __init__(self):
        self._blocks = []

    def draw_block(self, rng, n, shape, dtype):
        self._blocks.append(n)
        return rng.random(n, dtype)


class Custom(init.Initializer):
    def __init__(self, result):
        self._result = result

    def draw(self, rng, shape, dtype):
        return self._result(rng, shape, dtype) if callable(self._result) else self._result


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of 8 elements, so that small arrays have many of them."""
    monkeypatch.setattr(_draw, "BLOCK", 8)
    monkeypatch.setattr(_draw, "_GROUP", 24)


# --- what a seed means ----------------------------------------------------------------------------


# Pinned: initial values are part of what a release promises.
GOLDEN = [
    (init.normal, [0.059911035, 0.015559634, -1.1644385, -0.13264713]),
    (init.uniform, [0.034741879, 0.011546731, 0.6119502, 0.2415492]),
    (init.truncated_normal, [-1.8280436, -0.6641137, -1.1306269, 0.15473211]),
    (init.xavier_uniform, [-1.139645, -1.1964613, 0.27422091, -0.63307261]),
    (init.sparse(0.5), [0.0, 0.0098384228, 0.0011760513, 0.0]),
    (init.orthogonal, [-0.99342287, 0.1145032, 0.1145032, 0.99342287]),
]


@pytest.mark.parametrize(("initializer", "values"), GOLDEN, ids=lambda x: str(x)[:20])
def test_values_of_seed_zero(initializer, values):
    np.testing.assert_allclose(draw(initializer, (2, 2)).ravel(), values, rtol=2e-7)


def test_block_size_is_part_of_the_meaning_of_a_seed():
    assert BLOCK == 65536


def test_second_block_has_its_own_counter_range():
    key = np.array([3, 7], np.uint64)
    second = np.random.Philox(key=key, counter=np.array([0, 0, 0, 1], np.uint64))
    reference = np.random.Generator(second).standard_normal(5, np.float32)
    values = draw(init.normal(), (BLOCK + 5,), seed=3, stream=7)
    np.testing.assert_array_equal(values[BLOCK:], reference)


def test_depends_on_seed_and_stream_only():
    same = draw(init.normal(), (50,), seed=5, stream=9)
    np.testing.assert_array_equal(same, draw(init.normal(), (50,), seed=5, stream=9))
    for seed, stream in ((9, 5), (5, 10), (6, 9)):
        assert not np.array_equal(same, draw(init.normal(), (50,), seed=seed, stream=stream))


def test_seeds_of_any_size():
    np.testing.assert_array_equal(draw(init.normal(), seed=2**64 + 3), draw(init.normal(), seed=3))
    assert draw(init.normal(), seed=2**200 + 2**63).shape == (4, 6)


@pytest.mark.parametrize(
    ("seed", "error", "message"),
    [
        (-1, ValueError, "seed must not be negative, got -1"),
        (1.5, TypeError, "seed must be an integer, got float 1.5"),
    ],
)
def test_impossible_seeds(seed, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        draw(init.normal(), seed=seed)


# --- slices and threads ---------------------------------------------------------------------------


@hypothesis.settings(max_examples=150, deadline=None, derandomize=True)
@hypothesis.given(st.data())
def test_slices_equal_the_whole(data):
    shape = tuple(data.draw(st.lists(st.integers(0, 9), max_size=4)))
    index = []
    for n in shape:
        start = data.draw(st.integers(0, n))
        index.append(slice(start, data.draw(st.integers(start, n))))
    index = tuple(index)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_draw, "BLOCK", 8)
        patch.setattr(_draw, "_GROUP", data.draw(st.sampled_from([8, 24])))
        whole = draw(init.normal(), shape)
        np.testing.assert_array_equal(draw(init.normal(), shape, index=index), whole[index])


@pytest.mark.parametrize("initializer", [init.normal(), init.orthogonal(), init.ones(), 0.25])
def test_slices_of_every_kind_of_initializer(initializer):
    whole = draw(initializer, (30, 40))
    index = (slice(3, 17), slice(None))
    np.testing.assert_array_equal(draw(initializer, (30, 40), index=index), whole[index])
    index = (slice(None, None, 1), slice(-10, None))
    np.testing.assert_array_equal(draw(initializer, (30, 40), index=index), whole[index])


def test_slices_of_real_blocks():
    shape = (7, 3, 40_000)
    whole = draw(init.normal(), shape)
    for index in (
        (slice(2, 5), slice(1, 3), slice(100, 39_000)),
        (slice(6, 7), slice(0, 3), slice(0, 40_000)),
        (slice(0, 7), slice(2, 3), slice(39_999, 40_000)),
    ):
        np.testing.assert_array_equal(draw(init.normal(), shape, index=index), whole[index])


def test_a_slice_draws_few_blocks(small_blocks):
    ramp = Ramp()
    draw(ramp, (100, 80), index=(slice(50, 52), slice(0, 80)))
    assert len(ramp._blocks) <= 2 * 10 + 2
    ramp = Ramp()
    draw(ramp, (10, 800), index=(slice(0, 10), slice(400, 408)))
    assert len(ramp._blocks) == 10


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_do_not_matter(monkeypatch, threads):
    shape = (1100, 1003)
    monkeypatch.setattr(_draw, "_threads", lambda size: threads)
    values = draw(init.normal(), shape)
    for block in (0, 3, 16):
        flat = values.reshape(-1)[block * BLOCK : block * BLOCK + 10]
        key, counter = np.array([0, 0], np.uint64), np.array([0, 0, 0, block], np.uint64)
        rng = np.random.Generator(np.random.Philox(key=key, counter=counter))
        np.testing.assert_array_equal(flat, rng.standard_normal(10, np.float32))


def test_small_arrays_start_no_threads():
    assert _draw._threads(1000) == 1
    assert _draw._threads(4 * BLOCK) == 1


def test_a_matrix_of_a_million_elements_is_worth_two_threads(monkeypatch):
    monkeypatch.setattr(_draw.os, "sched_getaffinity", lambda pid: {0, 1}, raising=False)
    assert _draw._threads(10**6) == 2


RANDOM = [init.normal(), init.truncated_normal(), init.kaiming_uniform(), init.orthogonal(), init.sparse(0.5)]


@pytest.mark.parametrize("initializer", RANDOM, ids=repr)
def test_one_device_a_mesh_of_eight_and_shard_by_shard(initializer, devices):
    """Element for element the same, however they are placed and whoever draws them."""
    shape = (16, 24)
    mesh = jax.sharding.Mesh(np.array(devices).reshape(4, 2), ("data", "model"))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data", "model"))

    def parameter():
        bw.seed(3)
        return nn.Sequential(nn.Linear(16, in_features=24)).initialize(init=initializer, pattern="0.weight")

    alone = np.asarray(parameter()[0].weight)
    net = parameter().to(sharding.mesh.devices.flat[5])
    np.testing.assert_array_equal(net[0].weight, alone)
    bw.seed(3)
    early = bw.Parameter(shape=shape, init=initializer)
    early.move(sharding)  # before it is drawn
    assert early.value.sharding.is_equivalent_to(sharding, 2)
    bw.seed(3)
    np.testing.assert_array_equal(early, bw.Parameter(shape=shape, init=initializer))
    bw.seed(3)
    number = bw.Parameter(shape=shape, init=initializer)._number
    pieces = jax.make_array_from_callback(
        shape, sharding, lambda index: draw(initializer, shape, seed=number[0], stream=number[1], index=index)
    )
    np.testing.assert_array_equal(pieces, early)
    assert 1 <= _draw._threads(10**9) <= 10**9


def test_errors_leave_threads(monkeypatch):
    class Broken(init.ElementwiseInitializer):
        def draw_block(self, rng, n, shape, dtype):
            raise ZeroDivisionError("no such luck")

    monkeypatch.setattr(_draw, "_threads", lambda size: 3)
    with pytest.raises(ZeroDivisionError, match="no such luck"):
        draw(Broken(), (2000, 1000))
    assert current_parameter() is None


def test_index_must_fit():
    message = "index needs one slice per axis of shape (4, 6), got (slice(0, 1, None),)"
    with pytest.raises(ValueError, match=re.escape(message)):
        draw(init.normal(), index=(slice(0, 1),))
    message = "index has step 2 on axis 1; only step 1 can be drawn"
    with pytest.raises(ValueError, match=re.escape(message)):
        draw(init.normal(), index=(slice(0, 1), slice(0, 4, 2)))


# --- shapes and dtypes ----------------------------------------------------------------------------

FLOATS = ["float32", "float64", "float16", jnp.bfloat16, jnp.float8_e4m3fn, jnp.float8_e5m2]


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,), (2, 3, 4, 5)])
@pytest.mark.parametrize("initializer", [init.zeros, init.normal, init.uniform, 3])
def test_every_shape(initializer, shape):
    values = draw(initializer, shape)
    assert values.shape == shape
    assert values.dtype == np.float32


@pytest.mark.parametrize("dtype", [*FLOATS, "complex64", "complex128"])
@pytest.mark.parametrize("initializer", [init.zeros, init.ones, 0.5, init.normal, init.orthogonal])
def test_every_dtype(initializer, dtype):
    values = draw(initializer, (5, 3), dtype)
    assert values.dtype == np.dtype(dtype)
    assert np.isfinite(values.astype(np.complex128)).all()


@pytest.mark.parametrize("dtype", FLOATS[2:])
def test_narrow_floats_are_rounded_float32(dtype):
    wide = draw(init.normal(), (100,))
    np.testing.assert_array_equal(draw(init.normal(), (100,), dtype), wide.astype(dtype))


def test_float64_has_all_its_bits():
    values = draw(init.normal(), (100,), "float64")
    assert (values != values.astype(np.float32)).any()


@pytest.mark.parametrize("dtype", ["int32", "uint8", "bool", jnp.int4])
@pytest.mark.parametrize("initializer", [init.zeros, init.ones, 1, 1.0, True])
def test_whole_numbers_fit_integers(initializer, dtype):
    values = draw(initializer, (3,), dtype)
    assert values.dtype == np.dtype(dtype)
    assert (values.astype(int) == (0 if initializer is init.zeros else 1)).all()


@pytest.mark.parametrize(
    ("value", "dtype"),
    [(0.5, "int32"), (300, "uint8"), (-1, "uint8"), (2, "bool"), (1j, "float32")],
)
def test_constants_that_do_not_fit(value, dtype):
    message = f"constant(value={value!r}) (for parameter 'a.b'): a parameter of dtype {dtype} "
    with pytest.raises(TypeError, match=re.escape(message + f"cannot hold {value!r}")):
        draw(value, (3,), dtype, name="a.b")


def test_negative_zero_and_infinity_are_kept():
    assert np.signbit(draw(-0.0, (3,))).all()
    assert (draw(-np.inf, (3,)) == -np.inf).all()
    assert np.isnan(draw(float("nan"), (3,))).all()


@pytest.mark.parametrize("initializer", [init.normal(), init.zeros(), 7.0, init.eye()])
def test_jax_takes_the_memory_over(initializer):
    values = draw(initializer, (64, 64))
    assert values.ctypes.data % 64 == 0
    assert jax.device_put(values).unsafe_buffer_pointer() == values.ctypes.data


# --- what users write -----------------------------------------------------------------------------


def test_custom_draw_gets_everything():
    seen = []

    class Mine(init.Initializer):
        def draw(self, rng, shape, dtype):
            seen.append((type(rng), shape, dtype, init.current_name()))
            return rng.uniform(-1, 1, shape)

    values = draw(Mine(), (3, 2), jnp.bfloat16, name="net.weight")
    assert seen == [(np.random.Generator, (3, 2), np.dtype(jnp.bfloat16), "net.weight")]
    assert values.dtype == jnp.bfloat16
    np.testing.assert_array_equal(values, draw(Mine(), (3, 2), jnp.bfloat16))
    assert init.current_name() is None


def test_custom_draw_is_independent_of_blocks():
    plain = draw(Custom(lambda rng, shape, dtype: rng.standard_normal(shape, dtype)), (10,))
    assert not np.array_equal(plain, draw(init.normal(), (10,)))


def test_name_is_known_in_every_thread(monkeypatch):
    names = set()

    class Mine(init.ElementwiseInitializer):
        def draw_block(self, rng, n, shape, dtype):
            names.add(current_parameter())
            return np.zeros(n)

    monkeypatch.setattr(_draw, "_threads", lambda size: 4)
    draw(Mine(), (3_000_000,), name="w")
    assert names == {"w"}


def test_another_initializer_inside():
    class Half(init.Initializer):
        def draw(self, rng, shape, dtype):
            values = init.uniform(-10, 10).draw(rng, shape, dtype)
            return values * (abs(values) >= 5)

    values = draw(Half(), (1000,))
    assert set(np.unique(abs(values) >= 5)) == {True, False}
    assert ((values == 0) | (abs(values) >= 5)).all()
    assert init.zeros().draw(np.random.default_rng(0), (2,), jnp.bfloat16).dtype == jnp.bfloat16
    assert init.normal().draw(np.random.default_rng(0), (2,), jnp.bfloat16).dtype == jnp.bfloat16


@pytest.mark.parametrize("result", [[[1, 2], [3, 4]], jnp.ones((2, 2)), np.eye(2), np.eye(2) > 0])
def test_custom_results_are_converted(result):
    values = draw(Custom(result), (2, 2))
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, np.asarray(result))


@pytest.mark.parametrize(
    ("result", "error", "message"),
    [
        (np.zeros((3, 2)), ShapeMismatchError, "values of shape (3, 2) where (2, 3) was asked for"),
        (np.zeros(()), ShapeMismatchError, "values of shape () where (2, 3) was asked for"),
        (np.zeros((2, 3), complex), TypeError, "dtype complex128, which a parameter of dtype "),
        (np.full((2, 3), "a"), TypeError, "dtype <U1, which a parameter of dtype float32"),
        (np.full((2, 3), None), TypeError, "dtype object, which a parameter of dtype float32"),
        (lambda *a: print, TypeError, "returned a function, not an array; if it makes an "),
    ],
)
def test_wrong_results_name_the_initializer(result, error, message):
    expected = re.escape("Custom() (for parameter 'w') returned ") + ".*" + re.escape(message)
    if "function" in message:
        expected = re.escape("Custom() (for parameter 'w') " + message)
    with pytest.raises(error, match=expected):
        draw(Custom(result), (2, 3), name="w")


def test_real_values_do_not_become_integers():
    with pytest.raises(TypeError, match="of dtype float64, which a parameter of dtype int32"):
        draw(Custom(np.zeros(2)), (2,), "int32")


def test_wrong_blocks_name_the_initializer():
    class Mine(init.ElementwiseInitializer):
        def draw_block(self, rng, n, shape, dtype):
            return np.zeros(shape)

    with pytest.raises(ShapeMismatchError, match=r"Mine\(\) returned values of shape \(2, 3\)"):
        draw(Mine(), (2, 3))


def test_missing_methods():
    class Nothing(init.Initializer):
        pass

    class NoBlock(init.ElementwiseInitializer):
        pass

    with pytest.raises(TypeError, match=r"Nothing does not define draw\(self, rng, "):
        draw(Nothing())
    with pytest.raises(TypeError, match=r"NoBlock does not define draw_block\(self, "):
        draw(NoBlock())


def test_repr_shows_the_settings():
    class Mine(init.Initializer):
        def __init__(self):
            self.scale, self._hidden = 2, 3

    assert repr(Mine()) == "Mine(scale=2)"
    assert repr(init.normal(0.01)) == "normal(std=0.01, mean=0.0)"
    assert repr(init.zeros()) == "zeros()"
    assert repr(as_initializer(0)) == "constant(value=0)"


def test_pickle_and_copy():
    for made in (init.normal(0.5), init.constant(2), init.orthogonal()):
        for other in (copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
            np.testing.assert_array_equal(draw(made), draw(other))


# --- as_initializer -------------------------------------------------------------------------------


def test_classes_and_instances_are_the_same():
    np.testing.assert_array_equal(draw(init.zeros), draw(init.zeros()))
    np.testing.assert_array_equal(draw(init.normal), draw(init.normal()))
    made = init.normal()
    assert as_initializer(made) is made


@pytest.mark.parametrize("number", [0, 1.5, True, np.float32(2), np.int64(3), np.bool_(True)])
def test_numbers_are_constants(number):
    assert (draw(number) == number).all()


@pytest.mark.parametrize(
    "fn",
    [
        jax.nn.initializers.he_normal(),
        jax.nn.initializers.zeros,
        jax.nn.initializers.orthogonal(),
        lambda key, shape, dtype: jax.random.normal(key, shape, dtype),
        lambda key, shape, dtype=jnp.float32: np.ones(shape, dtype),
    ],
)
def test_jax_functions(fn):
    values = draw(fn, stream=1)
    assert (values.shape, values.dtype) == ((4, 6), np.float32)
    np.testing.assert_array_equal(values, draw(fn, stream=1))


def test_jax_functions_get_different_keys():
    keys = []

    def fn(key, shape, dtype):
        keys.append(jax.random.key_data(key).tolist())
        return jnp.zeros(shape, dtype)

    for seed, stream in ((0, 0), (0, 1), (1, 0), (2**63, 0)):
        draw(fn, seed=seed, stream=stream)
    assert len({tuple(key) for key in keys}) == 4


def test_jax_functions_inside_of_traces():
    expected = draw(jax.nn.initializers.he_normal(), stream=2)
    seen = []

    @jax.jit
    def traced(x):
        seen.append(draw(jax.nn.initializers.he_normal(), stream=2))
        return x

    traced(1.0)
    jax.vmap(traced)(jnp.ones(3))
    jax.grad(lambda x: traced(x))(1.0)
    for values in seen:
        assert isinstance(values, np.ndarray)
        np.testing.assert_array_equal(values, expected)


def test_jax_functions_run_on_the_cpu(devices):
    seen = []

    def fn(key, shape, dtype):
        seen.append(jnp.zeros(()).devices())
        return jnp.zeros(shape, dtype)

    with jax.default_device(devices[3]):
        draw(fn)
    assert seen == [{devices[0]}]


class TakesNothing:
    def __call__(self):
        pass


@pytest.mark.parametrize(
    ("obj", "message"),
    [
        ("zeros", "; got str 'zeros'"),
        (None, "; got NoneType None"),
        (np.ones(2), "; got ndarray array([1., 1.])"),
        (init.constant, "init=constant lacks its arguments: pass constant(value)"),
        (init.sparse, "init=sparse lacks its arguments: pass sparse(sparsity, std)"),
        (jax.nn.initializers.normal, "; got normal(stddev, dtype), which cannot be called with "),
        (lambda tensor: None, "<lambda>(tensor), which cannot be called with (key, shape, dtype)"),
        (TakesNothing(), "(), which cannot be called with (key, shape, dtype). If it makes an "),
    ],
)
def test_what_is_no_initializer(obj, message):
    with pytest.raises(TypeError, match=re.escape(message)):
        as_initializer(obj)
    if "lacks" not in message:
        accepted = "init= takes an initializer such as init.normal(0.01), a number, or a function "
        with pytest.raises(TypeError, match=re.escape(accepted)):
            as_initializer(obj)


def test_factories_that_look_like_functions():
    with pytest.raises(TypeError, match="he_normal returned a function, not an array"):
        draw(jax.nn.initializers.he_normal)


def test_constant_takes_one_number():
    message = "constant(value) takes one number, got list [1, 2]; to start from an array, "
    with pytest.raises(TypeError, match=re.escape(message)):
        init.constant([1, 2])
