"""What can be chosen about a compiled function, and what can't."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import pytest

import brickwork as bw
from brickwork import _onednn


@pytest.fixture
def _as_if_new() -> Iterator[None]:
    _onednn._available.cache_clear()
    yield
    _onednn._available.cache_clear()


@pytest.mark.parametrize("option", ["onednn", "donate"])
@pytest.mark.parametrize("value", [1, None, "yes"])
def test_switches_are_true_or_false(option, value):
    with pytest.raises(TypeError, match=f"compile: {option} must be True or False, got {value!r}"):
        bw.compile(jnp.matmul, **{option: value})
    with pytest.raises(TypeError, match=f"compile: {option} must be True or False"):
        bw.compile(**{option: value})


def test_a_class_of_modules_is_no_function():
    with pytest.raises(TypeError, match=r"compile: Linear is a class; compile an instance of it, Linear\(\.\.\.\)"):
        bw.compile(bw.nn.Linear)


def test_other_ways_of_control_flow():
    with pytest.raises(ValueError, match='must be "speculate" or "error", got \'trace\''):
        bw.compile(jnp.matmul, control_flow="trace")


def test_what_is_compiled_already_keeps_its_options():
    step = bw.compile(lambda x: x + 1, donate=False)
    assert bw.compile(step) is step
    assert bw.compile(step, donate=False) is step
    with pytest.raises(
        ValueError, match=r"compile: <lambda> is compiled already, and can't be compiled with onednn=True "
    ):
        bw.compile(step, onednn=True)
    with pytest.raises(
        ValueError, match=r"with donate=False, control_flow='error' in addition\. Give the options where"
    ):
        bw.compile(step, donate=False, control_flow="error")


@pytest.mark.usefixtures("_as_if_new")
def test_where_there_is_no_onednn_a_warning_says_so_once(monkeypatch):
    monkeypatch.setattr(jax, "__version_info__", (0, 12, 0))
    monkeypatch.setattr(_onednn, "_complaint", lambda: "UNIMPLEMENTED: no such custom call")
    x = jnp.arange(16.0).reshape(4, 4)
    with pytest.warns(RuntimeWarning, match=r"compile\(onednn=True\): oneDNN can't be used here: UNIMPLEMENTED"):
        assert (bw.compile(lambda x: x @ x, onednn=True)(x) == x @ x).all()
    assert (bw.compile(lambda x: x @ x + 1, onednn=True)(x) == x @ x + 1).all()


@pytest.mark.usefixtures("_as_if_new")
def test_with_an_older_jax_a_warning_says_which_one_it_needs(monkeypatch):
    monkeypatch.setattr(jax, "__version__", "0.11.3")
    monkeypatch.setattr(jax, "__version_info__", (0, 11, 3))
    with pytest.warns(RuntimeWarning, match=r"it needs JAX 0\.12 or later, this is 0\.11\.3\. Programs are"):
        bw.compile(lambda x: x @ x, onednn=True)(jnp.ones((4, 4)))
