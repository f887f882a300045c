"""Every layer is built again from a file."""

from __future__ import annotations

import numpy as np
from tests.contract.catalogue import Row, every_row, rows_where
from tests.contract.rows.loss import squared
from tests.contract.rows.parametrize import Bounded
from tests.contract.test_state import assert_same_state, run

import brickwork as bw
from brickwork import nn


def rebuilt(layer, path):
    layer.save(path, architecture=True)
    return bw.load_module(path, classes=[squared, Bounded, *{type(m) for m in layer.modules()}])


@every_row
def test_built_from_a_file(row: Row, tmp_path):
    layer = row.built()
    if not row.transient:  # what that has seen is not saved
        layer(row.data())  # so that running statistics aren't those of the start
    for i, p in enumerate(layer.parameters()):
        p.value = np.random.default_rng(i).standard_normal(p.shape).astype(np.float32)
    twin = rebuilt(layer, tmp_path / "layer")
    assert type(twin) is type(layer)
    if not row.transient:
        assert repr(twin) == repr(layer)
        assert_same_state(layer, twin)
    np.testing.assert_array_equal(run(twin, row.data(1)), run(layer, row.data(1)))


@rows_where(lambda row: row.has_parameters)
def test_built_from_a_file_inside_of_a_network(row: Row, tmp_path):
    layer = row.built()
    net = nn.Sequential({"first": layer, "again": layer}).eval()
    net.freeze(f"first.{row.parameters[0]}")
    twin = rebuilt(net, tmp_path / "net")
    assert twin.first is twin.again
    assert not any(m.training for m in twin.modules())
    assert repr(twin) == repr(net)
    assert_same_state(net, twin)
