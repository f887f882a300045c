"""Checkpoints: what is in them, when they are written, and what misuse leads to."""

from __future__ import annotations

import datetime
import json
import os
import random
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from tests.io.training.checkpoints import Run, same, saved, small

import brickwork as bw
from brickwork import nn, optim
from brickwork.errors import CheckpointError, DeferredShapeError, LoadError
from brickwork.io.training import _snapshot

# --- what is in a checkpoint -----------------------------------------------------------------------


def test_training_goes_on_bit_for_bit(tmp_path):
    run = Run()
    run.train(4)
    with bw.Checkpointer(tmp_path) as checkpoints:
        assert checkpoints.latest is None
        assert checkpoints.save(4, run.net, run.opt, {"epoch": 1, "order": np.arange(3)}, metrics={"loss": 0.5})
        assert checkpoints.latest == 4
    expected = run.train(5)

    new = Run(seed=7)  # with sizes that aren't known yet
    restored = bw.Checkpointer(tmp_path).restore(new.net, new.opt)
    assert (restored.step, restored.metrics, restored.skipped) == (4, {"loss": 0.5}, ())
    assert restored.extra["epoch"] == 1
    np.testing.assert_array_equal(restored.extra["order"], np.arange(3))
    assert new.train(5) == expected
    same(new.state(), run.state())


def test_going_back_in_the_same_process_compiles_nothing(tmp_path):
    run = Run()
    run.train(2)
    with bw.Checkpointer(tmp_path) as checkpoints:
        checkpoints.save(2, run.net, run.opt)
        expected = run.train(3)
        checkpoints.restore(run.net, run.opt)
        with bw.no_recompile():
            assert run.train(3) == expected


def test_random_numbers_go_on(tmp_path):
    bw.seed(3)
    net, rng = small(), np.random.default_rng(5)
    random.seed(1)
    random.gauss(0, 1)
    np.random.seed(1)
    np.random.standard_normal()
    rng.random()

    def draw():
        values = [random.gauss(0, 1), random.random(), np.random.standard_normal(), np.random.rand(), rng.random()]
        later = nn.Linear(2, in_features=2).weight.value.tolist()  # drawn by seed and number of the parameter
        return [*values, later, jax.random.uniform(bw.random.key()).tolist()]

    with bw.Checkpointer(tmp_path) as checkpoints:
        checkpoints.save(1, net, extra={"rng": rng.bit_generator.state})
        expected = draw()
        other = draw()
        assert other != expected
        bw.seed(99)
        rng.bit_generator.state = checkpoints.restore(net).extra["rng"]
        assert draw() == expected
        rng.bit_generator.state = checkpoints.restore(net, random=False).extra["rng"]
        assert draw()[-1] != expected[-1]


def test_gradients_added_up_so_far(tmp_path):
    net, opt = small(1.0), None
    opt = optim.sgd(net, 0.1)
    x = jnp.ones((1, 3))
    bw.backward(lambda: net(x).sum(), net)()
    with bw.Checkpointer(tmp_path) as checkpoints:
        checkpoints.save(1, net, opt)
        bw.backward(lambda: net(x).sum(), net)()
        opt.step()
        expected = net.state_dict()
        checkpoints.restore(net, opt)
        np.testing.assert_array_equal(net.weight.grad, np.ones((2, 3)))
        bw.backward(lambda: net(x).sum(), net)()
        opt.step()
        assert all((net.state_dict()[name] == value).all() for name, value in expected.items())
        checkpoints.save(2, net, opt)
        bw.backward(lambda: net(x).sum(), net)()
        checkpoints.restore(net, opt)
        assert net.weight.grad is None


def test_extra_of_every_kind(tmp_path):
    extra = {
        "plain": [1, 2.5, None, "x", b"y", (True, 2**100), float("inf")],
        "numpy": np.arange(3, dtype=np.int64),
        "jax": jnp.ones(2, jnp.bfloat16),
        "key": jax.random.key(3),
    }
    with bw.Checkpointer(tmp_path) as checkpoints:
        checkpoints.save(1, extra=extra)
        found = checkpoints.restore().extra
    assert found["plain"] == extra["plain"]
    assert found["numpy"].dtype == np.int64
    assert isinstance(found["jax"], jax.Array)
    assert (jax.random.key_data(found["key"]) == jax.random.key_data(extra["key"])).all()


def test_several_networks_and_optimisers(tmp_path):
    nets = {"generator": small(1), "discriminator": small(2)}
    opts = {name: optim.adam(net, 0.1) for name, net in nets.items()}
    with bw.Checkpointer(tmp_path) as checkpoints:
        checkpoints.save(1, nets, opts)
        fresh = {name: small() for name in nets}
        checkpoints.restore(fresh, {name: optim.adam(net, 0.1) for name, net in fresh.items()})
        assert fresh["generator"].weight.value[0, 0] == 1
        assert fresh["discriminator"].weight.value[0, 0] == 2
        one = small()
        checkpoints.restore({"discriminator": one})
        assert one.weight.value[0, 0] == 2


def test_files_are_those_of_save(tmp_path):
    net = nn.Sequential(nn.Linear(3, in_features=3), nn.Linear(3, in_features=3))
    net[1].weight = net[0].weight
    with bw.Checkpointer(tmp_path) as checkpoints:
        checkpoints.save(12, net, optim.adam(net, 0.1), {"epoch": 2})
        folder = checkpoints.path()
    assert folder == tmp_path / "step_00000012"
    assert sorted(os.listdir(folder)) == [
        "manifest.json",
        "net.safetensors",
        "opt.safetensors",
        "state.safetensors",
    ]
    net.save(tmp_path / "saved")
    assert (folder / "net.safetensors").read_bytes() == (tmp_path / "saved").read_bytes()
    assert bw.load(folder / "state.safetensors")["extra"] == {"epoch": 2}
    fresh = nn.Sequential(nn.Linear(3), nn.Linear(3))
    fresh.load(folder / "net.safetensors")
    np.testing.assert_array_equal(fresh[1].weight, net[0].weight)


def test_compiled_network(tmp_path):
    net = small(4)
    with bw.Checkpointer(tmp_path) as checkpoints:
        checkpoints.save(1, bw.compile(net))
        fresh = small()
        checkpoints.restore(bw.compile(fresh))
    assert fresh.weight.value[0, 0] == 4


def test_sharded_arrays(tmp_path, devices):
    mesh = Mesh(np.array(devices), ("x",))
    placed = NamedSharding(mesh, PartitionSpec("x"))
    net = nn.Linear(16, in_features=8, bias=False).to(placed)
    expected = np.array(net.weight)
    with bw.Checkpointer(tmp_path) as checkpoints:
        checkpoints.save(1, net)
        fresh = nn.Linear(16, in_features=8, bias=False).to(placed)
        checkpoints.restore(fresh)
        assert fresh.weight.sharding == placed
        np.testing.assert_array_equal(fresh.weight, expected)
        single = nn.Linear(16, bias=False)
        checkpoints.restore(single)
        np.testing.assert_array_equal(single.weight, expected)


def test_a_run_on_a_mesh_goes_on_in_the_same_process(tmp_path, devices):
    run = Run()
    everywhere = NamedSharding(Mesh(np.array(devices), ("x",)), PartitionSpec())
    run.net.initialize(bw.spec(8, 5))
    run.net.to(everywhere)
    run.train(2)
    with bw.Checkpointer(tmp_path) as checkpoints:
        checkpoints.save(2, run.net, run.opt)
        expected = run.train(3)
        checkpoints.restore(run.net, run.opt)
        assert run.train(3) == expected
    assert run.net.first.weight.sharding == everywhere


def test_the_learning_rate_and_frozen_parameters(tmp_path):
    run = Run()
    run.train(2)
    run.net.freeze(r"first\..*")
    run.opt.learning_rate = 0.001
    run.train(1)
    with bw.Checkpointer(tmp_path) as checkpoints:
        checkpoints.save(3, run.net, run.opt)
    run.net.unfreeze()
    expected = run.train(3)
    new = Run()
    new.net.freeze(r"first\..*")
    bw.Checkpointer(tmp_path).restore(new.net, new.opt)
    assert float(new.opt.learning_rate) == np.float32(0.001)
    new.net.unfreeze()
    assert new.train(3) == expected


# --- all or nothing --------------------------------------------------------------------------------


def test_a_failed_restore_changes_nothing(tmp_path):
    run = Run(width=6)
    run.train(2)
    with bw.Checkpointer(tmp_path) as checkpoints:
        checkpoints.save(2, run.net, run.opt)

    other = Run(seed=5, rule=lambda net, rate: optim.sgd(net, rate, momentum=0.9))  # deferred, with another optimiser
    np.random.seed(7)
    expected = np.random.rand(), jax.random.key_data(bw.random.key()).tolist()
    bw.seed(5)
    np.random.seed(7)
    with pytest.raises(LoadError, match=r"opt.safetensors does not fit the network:\n  missing") as caught:
        checkpoints.restore(other.net, other.opt)
    advice = str(caught.value).splitlines()[-1]
    assert re.fullmatch(r"  Restore into modules .*: \.load\('.*opt\.safetensors', strict=False\)\.", advice)
    assert other.net.first.weight.shape == (6, None)
    assert (np.random.rand(), jax.random.key_data(bw.random.key()).tolist()) == expected

    trained = Run(seed=5, rule=lambda net, rate: optim.sgd(net, rate, momentum=0.9))
    trained.train(2)
    twin = Run(seed=5, rule=lambda net, rate: optim.sgd(net, rate, momentum=0.9))
    twin.train(2)
    trained.net.first.weight.grad = jnp.ones((6, 5))
    with pytest.raises(LoadError):
        checkpoints.restore(trained.net, trained.opt)
    same(trained.state(), twin.state())
    np.testing.assert_array_equal(trained.net.first.weight.grad, np.ones((6, 5)))
    bw.seed(11)
    after = trained.train(3)
    bw.seed(11)
    assert after == twin.train(3)


def test_a_failed_restore_of_an_optimiser_that_starts_from_the_parameters(tmp_path):
    """Its state must not be made of the parameters that were loaded and taken back."""
    import optax

    net = small(1.0)
    opt = optim.Optimizer(net, optax.contrib.schedule_free_sgd(0.1))
    with bw.Checkpointer(tmp_path) as checkpoints:
        checkpoints.save(1, {"a": net, "b": small()}, {"x": opt, "y": optim.sgd(net, 0.1)})
    fresh = small(5.0)
    new = optim.Optimizer(fresh, optax.contrib.schedule_free_sgd(0.1))
    with pytest.raises(LoadError):
        checkpoints.restore({"a": fresh}, {"x": new, "y": optim.adam(fresh, 0.1)})
    assert (np.array(fresh.weight) == 5).all()
    averages = [value for name, value in new.state_dict().items() if name.endswith("weight")]
    assert averages
    assert all((np.array(value) == 5).all() for value in averages)


def test_another_network(tmp_path):
    with bw.Checkpointer(tmp_path) as checkpoints:
        checkpoints.save(1, small())
        with pytest.raises(LoadError, match=r"net.safetensors does not fit(.|\n)*weight: the network has \(5, 3\)"):
            checkpoints.restore(nn.Linear(5, in_features=3))


def test_random_keys_of_another_kind(tmp_path):
    with bw.Checkpointer(tmp_path) as checkpoints:
        checkpoints.save(1, net := small(1.0))
        path = checkpoints.path() / "state.safetensors"
    state = bw.load(path)
    state["random"]["brickwork"]["stream"] = np.zeros(5, np.uint32)
    bw.save(path, state)
    manifest = json.loads((path.parent / "manifest.json").read_text())
    record = _snapshot.take(state, copy=True).write(tmp_path / "again")
    os.replace(tmp_path / "again", path)
    from brickwork.io.training._manifest import _checksum

    del manifest["crc32"]
    manifest["files"]["state.safetensors"] = {"bytes": record.size, "crc32": f"{record.checksum:08x}"}
    (path.parent / "manifest.json").write_text(json.dumps(manifest | {"crc32": _checksum(manifest)}))
    net.weight.value = jnp.zeros((2, 3))
    message = r"has 5 words, and here it has 3: .* jax_default_prng_impl; restore\(random=False\) leaves"
    with pytest.raises(LoadError, match=message):
        checkpoints.restore(net)
    assert net.weight.value[0, 0] == 0
    checkpoints.restore(net, random=False)
    assert net.weight.value[0, 0] == 1


# --- misuse ----------------------------------------------------------------------------------------


def message_of(error, call, *args, **kwargs):
    with pytest.raises(error) as caught:
        call(*args, **kwargs)
    return str(caught.value)


def test_what_a_checkpoint_lacks(tmp_path):
    net = small()
    with bw.Checkpointer(tmp_path) as checkpoints:
        checkpoints.save(1, net)
        checkpoints.save(2, {"a": net, "b": net})
        one, two = checkpoints.path(1), checkpoints.path(2)
        opt = optim.adam(net, 0.1)
        assert message_of(LoadError, checkpoints.restore, net, opt, step=1) == (
            f"{one} has no opt: it was saved without opt=, so it can't be restored with opt=..."
        )
        assert message_of(LoadError, checkpoints.restore, net, step=2) == (
            f"{two} can't be restored with net=...: it was saved with a dict with the keys 'a', 'b'; pass "
            "net={name: ...} with these names"
        )
        assert message_of(LoadError, checkpoints.restore, {"c": net}, step=1) == (
            f"{one} can't be restored with net={{'c': ...}}: it was saved with one net; pass net=..."
        )


def test_no_checkpoint(tmp_path):
    missing = bw.Checkpointer(tmp_path / "runs")
    assert missing.latest is None
    assert missing.steps() == []
    assert "the directory does not exist" in message_of(FileNotFoundError, missing.restore, small())
    assert not (tmp_path / "runs").exists()
    with bw.Checkpointer(tmp_path) as checkpoints:
        assert message_of(CheckpointError, checkpoints.restore, small()) == (
            f"no checkpoint in '{tmp_path}': there is none in it"
        )
        saved(checkpoints, [1, 2])
        assert message_of(CheckpointError, checkpoints.restore, step=5) == (
            f"no checkpoint of step 5 in '{tmp_path}'; there are those of [1, 2]"
        )
        message_of(CheckpointError, checkpoints.path, 5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep": 0}, "keep must be a positive integer or None, got 0"),
        ({"keep": True}, "keep must be a positive integer or None, got True"),
        ({"keep_every": 0}, "keep_every must be a positive integer or None, got 0"),
        ({"every": 2.5}, "every must be a positive number of steps .* got 2.5; for seconds: timedelta"),
        ({"every": 0}, "every must be a positive number of steps"),
        ({"every": datetime.timedelta(0)}, "every must be a positive number of steps"),
        ({"keep_best": {"loss": "low"}}, "is 'min' or 'max', got 'low'"),
        ({"directory": 3}, "directory must be a string or a pathlib.Path, got int"),
    ],
)
def test_wrong_options(tmp_path, options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        bw.Checkpointer(**({"directory": tmp_path} | options))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((small(),), "step must be an integer that is not negative, and comes first, got Linear"),
        ((-1, small()), "step must be an integer .* got -1"),
        ((1.5, small()), "step must be an integer .* got 1.5"),
        ((True, small()), "step must be an integer .* got True"),
        ((1,), "give at least one of net=..., opt=... and extra=..."),
        ((1, jnp.ones(3)), "net must be a module or a dict of such, got ArrayImpl; arrays .* go in extra="),
        ((1, small(), (1, 2)), "opt must be an optimiser .brickwork.optim.Optimizer. or a dict of such, got tuple"),
        ((1, {"a/b": small()}), "the keys of a dict become names of files: .* got 'a/b'"),
        ((1, {"a": 3}), r"net\['a'\] must be a module"),
        ((1, small(), None, {"x": {1, 2}}), r"extra\['x'\] is a set; save sorted"),
    ],
)
def test_wrong_arguments(tmp_path, arguments, message):
    with bw.Checkpointer(tmp_path) as checkpoints:
        with pytest.raises((TypeError, ValueError), match=message):
            checkpoints.save(*arguments)
        assert checkpoints.latest is None


def test_wrong_metrics(tmp_path):
    with (
        bw.Checkpointer(tmp_path) as checkpoints,
        pytest.raises(TypeError, match=r"metrics\['loss'\] must be a number"),
    ):
        checkpoints.save(1, small(), metrics={"loss": "low"})


def test_a_network_without_shapes(tmp_path):
    with bw.Checkpointer(tmp_path) as checkpoints:
        with pytest.raises(DeferredShapeError):
            checkpoints.save(1, nn.Linear(3))
        assert checkpoints.latest is None


def test_inside_of_a_compiled_function(tmp_path):
    net = small()
    checkpoints = bw.Checkpointer(tmp_path)

    @bw.compile
    def step():
        net.weight.value = net.weight.value + 1
        checkpoints.save(1, net)

    with pytest.raises(TypeError, match=r"call save outside of compiled and transformed functions"):
        step()
    assert checkpoints.latest is None
    checkpoints.close()


def test_several_processes(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 4)
    checkpoints = bw.Checkpointer(tmp_path)
    for call in (lambda: checkpoints.save(1, small()), lambda: checkpoints.restore(small())):
        with pytest.raises(RuntimeError, match=r"jax.process_count\(\) is 4: .* Use orbax.checkpoint"):
            call()


def test_repr(tmp_path):
    assert repr(bw.Checkpointer(tmp_path, every=5)) == f"Checkpointer('{tmp_path}', keep=3, every=5)"
    assert Path(bw.Checkpointer("a").directory).is_absolute()
