"""Names that other frameworks have: the error says what is meant here."""

import re
import traceback

import jax
import jax.numpy as jnp
import optax
import pytest

import brickwork as bw
from brickwork import _elsewhere, functional, init, losses, nn, optim

SAID = {
    (nn, "Dense"): "Here: nn.Linear(out_features).",
    (nn, "LazyConv2d"): "Here: nn.Conv2d; every layer takes the sizes that it isn't given from its first input.",
    (nn, "Swish"): "Here: nn.SiLU.",
    (nn, "Conv2D"): "Did you mean nn.Conv2d?",
    (nn, "Flaten"): "Did you mean nn.Flatten?",
    (nn, "relu"): "Here: functional.relu.",
    (nn, "functional"): "Here: brickwork.functional.",
    (functional, "ReLU"): "Here: nn.ReLU.",
    (functional, "relu_"): "Here: functional.relu; arrays can't be changed in place.",
    (functional, "max_pool2d_with_indices"): "Here: functional.max_pool2d with return_indices=True.",
    (functional, "mse"): "Here: losses.mse.",
    (losses, "mse_loss"): "Here: functional.mse_loss.",
    (losses, "mean_squared_error"): "Here: losses.mse.",
    (losses, "CrossEntropyLoss"): "Here: nn.CrossEntropyLoss.",
    (init, "xavier_uniform_"): "Here: init.xavier_uniform; arrays can't be changed in place.",
    (init, "glorot_uniform"): "Here: init.xavier_uniform.",
    (optim, "Adam"): "Here: optim.adam(net, learning_rate).",
    (optim, "RMSprop"): "Here: optim.Optimizer(net, optax.rmsprop(...)); its defaults are optax's.",
    (optim, "rmsprop"): "Here: optim.Optimizer(net, optax.rmsprop(...)); its defaults are optax's.",
    (bw, "checkpoint"): "Here: bw.remat, to compute again in the backward pass; bw.Checkpointer, for files.",
    (bw, "where"): "Here: jnp.where.",
    (bw, "Linear"): "Here: nn.Linear.",
    (bw, "manual_seed"): "Here: bw.seed.",
    (bw, "zeros"): "Here: jnp.zeros.",
    (bw, "Sequental"): "Did you mean brickwork.Sequential?",
}


@pytest.mark.parametrize(("module", "name"), SAID, ids=lambda x: getattr(x, "__name__", x))
def test_what_is_said(module, name):
    with pytest.raises(AttributeError) as error:
        getattr(module, name)
    text = f"module {module.__name__!r} has no attribute {name!r}. {SAID[module, name]}"
    assert str(error.value) == text
    shown = "".join(traceback.format_exception_only(error.value))
    assert shown == f"AttributeError: {text}\n"  # and no guess of Python's own


@pytest.mark.parametrize("module", [bw, nn, functional, losses, init, optim], ids=lambda m: m.__name__)
def test_other_names(module):
    with pytest.raises(AttributeError) as error:
        module.xyzzy
    assert str(error.value) == f"module {module.__name__!r} has no attribute 'xyzzy'"
    assert not hasattr(module, "__wrapped__")


def test_what_is_recommended_exists():
    places = {"bw": bw, "brickwork": bw, "jnp": jnp, "jax": jax, "optax": optax}
    places |= {"nn": nn, "functional": functional, "init": init, "losses": losses, "optim": optim}
    names, found = "|".join(places), 0
    for table in _elsewhere._TABLES.values():
        for advice in table.values():
            for path in re.findall(rf"\b(?:{names})(?:\.\w+)+", advice):
                first, *rest = path.split(".")
                value = places[first]
                for name in rest:
                    value = getattr(value, name)
                found += 1
    assert found > 40


NET = nn.Linear(2, in_features=3)
OF_OBJECTS = [
    (lambda: NET.half(), "'Linear' object has no attribute 'half'. Here: net.to(jnp.float16)."),
    (lambda: bw.compile(NET).half(), "'Linear' object has no attribute 'half'. Here: net.to(jnp.float16)."),
    (
        lambda: NET.register_buffer("b", 1),
        "'Linear' object has no attribute 'register_buffer'. Here: net.name = bw.Buffer(value): attributes are the "
        "registry.",
    ),
    (lambda: nn.Sequential(NET).half(), "'Sequential' object has no attribute 'half'. Here: net.to(jnp.float16)."),
    (lambda: nn.ModuleDict().xyzzy, "'ModuleDict' object has no attribute 'xyzzy'"),
    (lambda: NET.xyzzy, "'Linear' object has no attribute 'xyzzy'"),
    (lambda: NET.weight.data, "'Parameter' object has no attribute 'data'. Here: p.value."),
    (
        lambda: NET.weight.add_(1),
        "'Parameter' object has no attribute 'add_'. Arrays can't be changed in place; give it a new one: "
        "p.value = ...",
    ),
    (lambda: NET.weight.xyzzy, "'Parameter' object has no attribute 'xyzzy'"),
]


@pytest.mark.parametrize(("use", "text"), OF_OBJECTS)
def test_attributes_of_networks_and_parameters(use, text):
    with pytest.raises(AttributeError) as error:
        use()
    assert str(error.value) == text


def test_python_s_own_guess_and_attributes_that_may_be_missing():
    with pytest.raises(AttributeError) as error:
        NET.wieght
    assert (error.value.name, error.value.obj) == ("wieght", NET)
    assert getattr(NET, "half", None) is None
    assert not hasattr(NET, "_xyzzy")


def test_the_error_within_a_property_is_the_one_that_is_seen():
    class Net(nn.Module):
        @property
        def width(self):
            return self.nothing

    with pytest.raises(AttributeError, match="'Net' object has no attribute 'nothing'"):
        Net().width


KEYWORDS = [
    (lambda: optim.adamw(NET, lr=1e-3), "adamw: got an unexpected argument 'lr'. Here: learning_rate."),
    (lambda: optim.adam(NET, betas=(0.9, 0.99)), "adam: got an unexpected argument 'betas'. Here: b1 and b2."),
    (lambda: nn.GRU(4, proj_size=2), "got an unexpected argument 'proj_size'. Only an LSTM projects its states."),
]


@pytest.mark.parametrize(("use", "text"), KEYWORDS)
def test_keywords(use, text):
    with pytest.raises(TypeError, match=re.escape(text)):
        use()
