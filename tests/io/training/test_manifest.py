"""Checkpoints that were damaged after they were written."""

from __future__ import annotations

import json
import os
import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from tests.io.training.checkpoints import flip, small

import brickwork as bw
from brickwork import optim
from brickwork.errors import CheckpointError


@pytest.fixture
def three(tmp_path):
    """Checkpoints 1, 2 and 3; the network's first weight is the step."""
    with bw.Checkpointer(tmp_path) as checkpoints:
        for step in (1, 2, 3):
            net = small(step)
            checkpoints.save(step, net, optim.adam(net, 0.1), extra=step)
    return checkpoints


FILES = ["net.safetensors", "opt.safetensors", "state.safetensors", "manifest.json"]
DAMAGE = {
    "flipped": (flip, r"damaged(: (its contents|Expecting|Extra data)| safetensors file, at byte )"),
    "truncated": (lambda path: os.truncate(path, 100), r"(truncated: it has 100 bytes|damaged: )"),
    "emptied": (lambda path: os.truncate(path, 0), r"(truncated: it has 0 bytes|damaged: )"),
    "extended": (lambda path: path.write_bytes(path.read_bytes() + b"x"), r"(longer than it was|damaged: )"),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("file", FILES)
def test_damage(three, file, damage):
    path = three.path(3) / file
    harm, message = DAMAGE[damage]
    harm(path)
    assert three.latest == 3
    net = small()
    opt = optim.adam(net, 0.1)
    with pytest.raises(CheckpointError) as caught:
        three.restore(net, opt)
    assert re.match(f"{path}: {message}", str(caught.value))
    assert str(caught.value).endswith("; restore(fallback=True) takes the one before")
    assert (np.array(net.weight) == 0).all()
    restored = three.restore(net, opt, fallback=True)
    assert restored.step == restored.extra == net.weight.value[0, 0] == 2
    assert restored.skipped[0].startswith(str(path))


def test_a_missing_file(three):
    (three.path(3) / "net.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"step_00000003/net.safetensors: cannot be read: No such file"):
        three.restore(small())
    assert three.restore().extra == 3  # what isn't asked for need not be there


def test_all_damaged(three):
    for step in (1, 2, 3):
        flip(three.path(step) / "state.safetensors")
    with pytest.raises(CheckpointError) as caught:
        three.restore(fallback=True)
    lines = str(caught.value).splitlines()
    assert lines[0] == f"all checkpoints in '{three.directory}' are damaged:"
    assert [re.search(r"step_0000000(\d)", line)[1] for line in lines[1:]] == ["3", "2", "1"]


def test_fallback_from_a_given_step(three):
    flip(three.path(2) / "net.safetensors")
    assert three.restore(small(), step=2, fallback=True).step == 1


def test_damaged_ones_do_not_count(three):
    """With keep=1, and a latest one that is known to be damaged, the one before stays until there is a new one."""
    flip(three.path(3) / "manifest.json")
    flip(three.path(2) / "net.safetensors")
    with bw.Checkpointer(three.directory, keep=2) as checkpoints:
        assert checkpoints.restore(small(), fallback=True).step == 1
        checkpoints.save(2, small(22), extra=22)
        assert checkpoints.steps() == [1, 3, 2]
        assert checkpoints.restore().extra == 22
        checkpoints.save(3, small(33), extra=33)
        assert checkpoints.steps() == [2, 3]
        assert checkpoints.restore().extra == 33


def test_foreign_manifests(three):
    path = three.path(3) / "manifest.json"
    os.rename(three.path(3), three.directory / "step_00000005")
    with pytest.raises(CheckpointError, match=r"manifest.json: is that of step 3; was the directory renamed\?"):
        three.restore(step=5)
    path = three.path(2) / "manifest.json"
    for text in ("[]", "{}", "3", "[" * 100_000, '{"crc32": 1}', "\xff", '{"a": NaN}'):
        path.write_text(text, encoding="latin-1")
        with pytest.raises(CheckpointError, match=r"step_00000002/manifest.json: damaged: "):
            three.restore(step=2)


def test_a_newer_format(three):
    from brickwork.io.training._manifest import _checksum

    path = three.path(3) / "manifest.json"
    body = json.loads(path.read_text())
    del body["crc32"]
    body["format"] = 2
    path.write_text(json.dumps(body | {"crc32": _checksum(body)}))
    with pytest.raises(CheckpointError, match="it has format 2; install a newer brickwork"):
        three.restore()
    body["format"], body["files"]["../x"] = 1, body["files"]["net.safetensors"]
    path.write_text(json.dumps(body | {"crc32": _checksum(body)}))
    with pytest.raises(CheckpointError, match="it names a file in another directory"):
        three.restore()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_bit(three, data):
    path = three.path(3) / data.draw(st.sampled_from(FILES))
    good = path.read_bytes()
    bad = bytearray(good)
    bad[data.draw(st.integers(0, len(good) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(bad)
    net = small()
    opt = optim.adam(net, 0.1)
    try:
        restored = three.restore(net, opt)
    except CheckpointError as error:
        assert str(path) in str(error)
        assert net.weight.value[0, 0] == 0
    else:  # white space in the manifest, for one
        assert restored.step == restored.extra == net.weight.value[0, 0] == 3
    finally:
        path.write_bytes(good)
