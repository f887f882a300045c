"""Wrong uses of transforms: what the errors say, and that nothing changes."""

from __future__ import annotations

import dataclasses
import operator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.exactness.harness import assert_same

import brickwork as bw
from brickwork import nn, optim
from brickwork.errors import ShapeMismatchError, StructureError, TraceLeakError

X = jnp.linspace(-1.0, 1.0, 12).reshape(4, 3)


class Named(bw.Module):
    def __init__(self):
        self.state = bw.Buffer(jnp.zeros(()))

    def set(self, value):
        self.state.value = value
        return 0.0


class Tally(bw.Module):
    def __init__(self):
        self.total = bw.Buffer(jnp.zeros(()))


class Maker(bw.Module):
    def __init__(self):
        self.linear = nn.Linear(2)

    def build(self, x):
        self.scale = bw.Parameter(jnp.ones(2))

    def forward(self, x):
        return self.linear(x) * self.scale


STACK = bw.stack([nn.Linear(2, in_features=3), nn.Linear(2, in_features=3)])
NAMED, NET, LINEAR = Named(), nn.Linear(1, in_features=3), nn.Linear(2, in_features=3)
MADE: list[nn.Module] = []


def values():
    return [np.asarray(v.value) for net in (NAMED, NET, LINEAR) for v in net.variables()]


def runs(fn):
    """A loop whose body calls ``fn`` for its side effect."""
    return lambda: bw.scan(lambda c, x: (c + fn(), None), 0.0, length=2)


def traced(yes, no, *operands):
    return lambda: bw.compile(lambda p, *ops: bw.cond(p, yes, no, *ops))(jnp.asarray(True), *operands)


def grows():
    MADE.append(nn.BatchNorm1d())
    MADE[-1](X)
    return 0.0


def fills_gradient():
    return bw.backward(lambda: NET(X).sum(), NET)()


def frozen():
    made = nn.Linear(2, in_features=3)
    made.freeze("weight")
    return made


def hooked():
    made = nn.Linear(2, in_features=3)
    made.register_forward_hook(lambda *args: None)
    return made


def each(stacked, *args):
    return bw.vmap(lambda net, *args: net(*args), in_axes=(0, None))(stacked, *args)


ALIKE = "cond: the branches must give results of the same structure, shapes and dtypes, but "

VMAP = [
    (lambda: bw.vmap(3), TypeError, "vmap: fn must be a function or a module, got int"),
    (lambda: bw.vmap(jnp.sin, in_axes="a")(X), TypeError, "in_axes must be a number, None or a tuple of these"),
    (lambda: bw.vmap(jnp.sin, in_axes=True)(X), TypeError, "in_axes must be a number, None or a tuple of these"),
    (lambda: bw.vmap(jnp.sin, in_axes=(0.5,))(X), TypeError, "in_axes must consist of numbers and None, got 0.5"),
    (lambda: bw.vmap(jnp.sin, out_axes=(True,))(X), TypeError, "out_axes must consist of numbers and None, got True"),
    (lambda: bw.vmap(jnp.sin, in_axes=(0, 0))(X), ValueError, "in_axes has 2 entries for 1 positional arguments"),
    (
        lambda: bw.vmap(jnp.sin, in_axes=((0, 0),))(X),
        ValueError,
        r"in_axes=\(\(0, 0\),\) does not have the structure of the arguments, \(float32\[4, 3\]\)",
    ),
    (
        lambda: bw.vmap(jnp.sin, out_axes=(0, 0))(X),
        ValueError,
        r"out_axes=\(0, 0\) does not have the structure of the result, float32\[3\]",
    ),
    (lambda: bw.vmap(jnp.sin, out_axes=2)(X), ValueError, r"out_axes=2, but a result has shape \(3,\) in a lane"),
    (lambda: bw.vmap(jnp.sin, out_axes=None)(X), ValueError, r"a result \(float32\[3\]\) differs from lane to lane"),
    (lambda: bw.vmap(lambda x: x, in_axes=2)(X), ShapeMismatchError, r"argument x has shape \(4, 3\), so there is no"),
    (lambda: bw.vmap(lambda x: x)(jnp.ones(())), ShapeMismatchError, r"argument x has shape \(\), so there is no axis"),
    (
        lambda: bw.vmap(lambda x, y: x)(X, {"a": X[0]}),
        ShapeMismatchError,
        r"argument y\['a'\] has shape \(3,\), so there are 3 lanes along its axis 0, but 4 elsewhere",
    ),
    (lambda: bw.vmap(lambda x: x, axis_size=3)(X), ShapeMismatchError, "4 lanes along its axis 0, but 3 elsewhere"),
    (lambda: bw.vmap(lambda x: x, in_axes=None)(X), ValueError, "no argument of '<lambda>' is mapped; give one"),
    (lambda: bw.vmap(lambda x, n: x, in_axes=(0, 0))(X, 3), ValueError, "argument n is a int, which has no axis 0"),
    (
        lambda: bw.vmap(lambda n, x: x, in_axes=(1, 0))(nn.Linear(2, in_features=3), X),
        ValueError,
        "argument n is a module, whose variables can be mapped along axis 0, not 1",
    ),
    (
        lambda: bw.vmap(lambda n, x: x)(bw.stack([Tally(), Tally()]), X),
        ShapeMismatchError,
        r"Buffer 'total' has shape \(2,\), which has no first axis of 4 for the lanes",
    ),
    (
        lambda: bw.vmap(lambda n, x: x, in_axes=(0, 0))(Tally(), X),
        ShapeMismatchError,
        r"Buffer 'total' has shape \(\), which has no first axis.*Stack the modules with bw.stack",
    ),
    (lambda: bw.vmap(lambda x: Tally())(X), TypeError, "vmap: the function returned a Tally; modules are changed in"),
]

LOOPS = [
    (lambda: bw.scan(3, 0.0, X), TypeError, "scan: expected a function, got 3"),
    (lambda: bw.fori_loop(0, 1, None, 0.0), TypeError, "fori_loop: expected a function, got None"),
    (lambda: bw.while_loop(True, jnp.sin, 0.0), TypeError, "while_loop: expected a function, got True"),
    (lambda: bw.scan(lambda c, x: c, 0.0, X), TypeError, r"must return a pair \(carry, output\), got float32\[\]"),
    (lambda: bw.scan(lambda c, x: [c, x], 0.0, X), TypeError, r"must return a pair \(carry, output\)"),
    (lambda: bw.scan(lambda c, x: None, 0.0, X), TypeError, "got None; return None as the output if there is none"),
    (lambda: bw.scan(lambda c, x: (c, x), 0.0), ValueError, "scan: give xs or length"),
    (
        lambda: bw.scan(lambda c, x: (c, x), 0.0, length=2.5),
        TypeError,
        "length must be a non-negative integer, got 2.5",
    ),
    (lambda: bw.scan(lambda c, x: (c, x), 0.0, length=-1), TypeError, "length must be a non-negative integer, got -1"),
    (
        lambda: bw.scan(lambda c, x: (c, x), 0.0, (X, X.T)),
        ShapeMismatchError,
        r"an array in xs has shape \(3, 4\), so 3 steps, but there are 4 by the others or by length=",
    ),
    (
        lambda: bw.scan(lambda c, x: (c, x), 0.0, X, length=3),
        ShapeMismatchError,
        r"\(4, 3\), so 4 steps, but there are 3",
    ),
    (lambda: bw.scan(lambda c, x: (c, x), 0.0, jnp.float32(1)), ShapeMismatchError, "xs holds a scalar"),
    (
        lambda: bw.scan(lambda c, x: (c, x), 0.0, NET),
        StructureError,
        "scan: Linear is not a stack of modules; make one",
    ),
    (
        lambda: bw.scan(lambda c, x: (c, None), 0.0, bw.stack([Named(), Named()]), length=3),
        ShapeMismatchError,
        r"Buffer 'state' has shape \(2,\), which has no first axis of 3 for the steps. Stack .*: reach it from outside",
    ),
    (
        lambda: bw.scan(lambda c, x: (c, x), NET, X),
        TypeError,
        "scan: init holds a Linear; modules keep their own state",
    ),
    (lambda: bw.scan(lambda c, x: (c, NET), 0.0, X), TypeError, "scan: the function returned a Linear; modules are"),
    (lambda: bw.scan(lambda c, x: (NET, x), 0.0, X), TypeError, "the carry was float32.*and became Linear"),
    (
        lambda: bw.scan(lambda c, x: ((c, c), x), 0.0, X),
        TypeError,
        r"became \(float32\[\], float32\[\]\); its structure",
    ),
    (lambda: bw.scan(lambda c, x: ((c[0], "b"), x), (0.0, "a"), X), TypeError, r"was \(float32\[\], 'a'\) and became"),
    (
        lambda: bw.scan(lambda c, x: (x, x), 0.0, X),
        ShapeMismatchError,
        r"the carry was float32\[\] and became float32\[3\]",
    ),
    (
        lambda: bw.fori_loop(0, 2, lambda i, c: (c[1], c[0]), (X, X.T)),
        ShapeMismatchError,
        r"fori_loop: the carry \(part 0\) was float32\[4, 3\] and became float32\[3, 4\]",
    ),
    (
        lambda: bw.while_loop(lambda c: c < 3, lambda c: c.astype(jnp.float32), jnp.int32(0)),
        TypeError,
        r"while_loop: the carry was int32\[\] and became float32\[\]; convert it with .astype",
    ),
    (
        lambda: bw.scan(lambda c, x: (1.5, x), jnp.int32(0), X),
        TypeError,
        r"was int32\[\] and became float32\[\]; convert",
    ),
    (lambda: bw.scan(lambda c, x: (1, x), True, X), TypeError, r"the carry was bool\[\] and became int32\[\]; convert"),
    (
        runs(lambda: NAMED.set(jnp.int32(1))),
        TypeError,
        r"scan: Buffer 'state' was float32\[\] and would become int32\[\]; inside scan a variable keeps its shape and "
        r"dtype. Convert what is written, for example with .astype",
    ),
    (
        runs(lambda: NAMED.set(X)),
        ShapeMismatchError,
        r"scan: Buffer 'state' was float32\[\] and would become float32\[4, 3\]; inside scan a variable keeps its",
    ),
    (runs(grows), StructureError, "scan: every trace of the body writes new variables; create them outside"),
    (
        lambda: bw.while_loop(lambda n: n < 2, lambda n: n + 1 + fills_gradient(), 0),
        StructureError,
        r"while_loop: a gradient or captured output is empty before, and would .* `p.grad = jnp.zeros\(p.shape\)`",
    ),
    (
        lambda: bw.fori_loop(0, jnp.int32(2), lambda i, n: n + fills_gradient(), 0),
        StructureError,
        r"fori_loop: a gradient or captured output is empty before, and would be set inside or perhaps not",
    ),
    (lambda: bw.fori_loop(0, 2.5, lambda i, c: c, 0), TypeError, "fori_loop: upper must be an integer, got 2.5"),
    (
        lambda: bw.fori_loop(X, 2, lambda i, c: c, 0),
        TypeError,
        r"fori_loop: lower must be an integer, got float32\[4, 3\]",
    ),
    (lambda: bw.fori_loop("0", 2, lambda i, c: c, 0), TypeError, "fori_loop: lower must be an integer, got '0'"),
    (
        lambda: bw.while_loop(lambda c: c < 3, lambda c: c, X),
        TypeError,
        r"condition must be a scalar, got bool\[4, 3\]; use",
    ),
    (lambda: bw.while_loop(lambda c: "no", lambda c: c, 0), TypeError, "the condition must be a boolean, got 'no'"),
    (lambda: bw.while_loop(lambda c: None, lambda c: c, 0), TypeError, "the condition must be a boolean, got None"),
]

BRANCHES = [
    (lambda: bw.cond(True, 1, jnp.cos, X), TypeError, "cond: expected a function for each branch, got 1"),
    (lambda: bw.cond(True, jnp.cos, None, X), TypeError, "cond: expected a function for each branch, got None"),
    (
        lambda: bw.cond(X, jnp.sin, jnp.cos, X),
        TypeError,
        r"pred must be a scalar, got float32\[4, 3\]; use .any",
    ),
    (lambda: bw.cond("yes", jnp.sin, jnp.cos, X), TypeError, "cond: pred must be a boolean, got 'yes'"),
    (lambda: bw.cond(None, jnp.sin, jnp.cos, X), TypeError, "cond: pred must be a boolean, got None"),
    (lambda: bw.cond(jax.random.key(0), jnp.sin, jnp.cos, X), TypeError, r"pred must be a boolean, got key<fry>\[\]"),
    (traced(lambda: X, lambda: X[0]), TypeError, ALIKE + r"false_fn gives float32\[3\] and true_fn float32\[4, 3\]"),
    (traced(lambda: (X,), lambda: X), TypeError, ALIKE + r"false_fn gives float32\[4, 3\] and true_fn \(float32"),
    (traced(lambda: None, lambda: X), TypeError, ALIKE + r"false_fn gives float32\[4, 3\] and true_fn None"),
    (
        traced(lambda: ("a", X), lambda: ("b", X)),
        TypeError,
        ALIKE + r"false_fn gives \('b', float32\[4, 3\]\) and true_fn \('a'",
    ),
    (traced(lambda: 1, lambda: 2.0), TypeError, ALIKE + "false_fn gives 2.0 and true_fn 1"),
    (traced(lambda: NET, lambda: NET), TypeError, "cond: the function returned a Linear; modules are changed in place"),
    (
        traced(lambda: NAMED.set(jnp.int32(1)), lambda: 0.0),
        TypeError,
        r"cond: Buffer 'state' was float32\[\] and would become int32\[\]; inside cond a variable keeps its shape and",
    ),
    (
        traced(lambda: 0.0, lambda: NAMED.set(X)),
        ShapeMismatchError,
        r"cond: Buffer 'state' was float32\[\] and would become float32\[4, 3\]",
    ),
    (
        traced(fills_gradient, lambda: 0.0),
        StructureError,
        r"cond: a gradient or captured output is empty before, and would be set inside or perhaps not",
    ),
    (lambda: bw.switch(0, []), ValueError, "switch: there are no branches"),
    (lambda: bw.switch(0, [jnp.sin, 1]), TypeError, "switch: expected a function for each branch, got 1"),
    (lambda: bw.switch(1.0, [jnp.sin], X), TypeError, "switch: index must be an integer scalar, got 1.0"),
    (lambda: bw.switch(True, [jnp.sin], X), TypeError, "switch: index must be an integer scalar, got True"),
    (lambda: bw.switch("0", [jnp.sin], X), TypeError, "switch: index must be an integer scalar, got '0'"),
    (lambda: bw.switch(jnp.arange(2), [jnp.sin], X), TypeError, r"index must be an integer scalar, got int32\[2\]"),
    (
        lambda: bw.compile(lambda i: bw.switch(i, [lambda: 7, lambda: 8, lambda: X]))(jnp.int32(0)),
        TypeError,
        r"switch: the branches must .* but branch 0 gives 7 and branch 2 float32\[4, 3\]",
    ),
]

STACKS = [
    (lambda: bw.stack([]), ValueError, "stack: there are no modules"),
    (lambda: bw.stack([LINEAR, 3]), TypeError, "stack: expected a list of modules, got 3 in it"),
    (lambda: bw.stack([X]), TypeError, r"stack: expected a list of modules, got float32\[4, 3\] in it"),
    (lambda: bw.stack([LINEAR] * 3), StructureError, "stack: the same Linear is there more than once"),
    (lambda: bw.stack([nn.ReLU(), nn.Tanh()]), StructureError, "modules 0 and 1 differ in structure: ReLU became Tanh"),
    (
        lambda: bw.stack([nn.Dropout(0.5), nn.Dropout(0.5), nn.Dropout(0.1)]),
        StructureError,
        "modules 0 and 2 differ in structure: p: 0.5 became 0.1. Only modules equal but for their values",
    ),
    (
        lambda: bw.stack([nn.Sequential(nn.Linear(2), nn.ReLU()), nn.Sequential(nn.Linear(2))]),
        StructureError,
        "modules 0 and 1 differ in structure: 2 items became 1",
    ),
    (lambda: bw.stack([LINEAR, frozen()]), StructureError, "weight.trainable: True became False"),
    (lambda: bw.stack([LINEAR, nn.Linear(2, in_features=3).eval()]), StructureError, "training: True became False"),
    (lambda: bw.stack([LINEAR, hooked()]), StructureError, "differ in structure: other hooks"),
    (
        lambda: bw.stack([LINEAR, nn.Linear(2, in_features=4)]),
        ShapeMismatchError,
        r"stack: 'weight' differs from module to module: Parameter float32\[2, 3\], Parameter float32\[2, 4\]",
    ),
    (
        lambda: bw.stack([LINEAR, nn.Linear(2, in_features=3).to(jnp.bfloat16)]),
        ShapeMismatchError,
        r"'weight' differs .* Parameter float32\[2, 3\], Parameter bfloat16\[2, 3\]",
    ),
    (lambda: bw.unstack(LINEAR), StructureError, "unstack: Linear is not a stack made by bw.stack$"),
    (
        lambda: bw.unstack(bw.stack([nn.ReLU(), nn.ReLU()])),
        StructureError,
        "it has no parameters or buffers",
    ),
    (lambda: bw.stack(LINEAR), TypeError, r"expected a list of modules, got a Linear; write bw.stack\(\[net1, net2"),
    (
        lambda: bw.vmap(lambda e, x: e(x), in_axes=(0, None))(bw.stack([nn.ReLU(), nn.ReLU()]), X),
        ValueError,
        "pass a stack of modules that have variables, or say axis_size",
    ),
    (
        lambda: bw.vmap(lambda net, x: net(x), in_axes=(0, None))(bw.stack([Maker(), Maker()]), X),
        StructureError,
        r"the build of Maker makes variables, each module its own; call the modules on data.*before bw.stack",
    ),
    (
        lambda: STACK(X),
        StructureError,
        "Linear is a stack of 2 modules, which can't be called as one. Map over it: b",
    ),
    (lambda: bw.compile(STACK)(X), StructureError, r"Or call one of them: bw.unstack\(stack\)\[i\]"),
    (lambda: bw.vmap(lambda x: STACK(x))(X), StructureError, "Linear is a stack of 2 modules"),
    (lambda: bw.grad(lambda x: STACK(x).sum(), STACK)(X), StructureError, "Linear is a stack of 2 modules"),
    (lambda: STACK.initialize(bw.spec(4, 3)), StructureError, "Linear is a stack of 2 modules"),
    (lambda: nn.Repeat(lambda: nn.Linear(3), 2).block(X), StructureError, r"and repeat\[i\] of an nn.Repeat"),
    (lambda: bw.unstack(X), TypeError, r"unstack: expected a module, got float32\[4, 3\]"),
]


class Built(bw.Module):
    def build(self, x):
        self.scale = bw.Parameter(jnp.ones(x.shape))

    def forward(self, x):
        return self.scale * x


def total(net, x):
    return net(x).sum()


GRADIENTS = [
    (
        lambda: bw.grad(total)(nn.ReLU(), X),
        TypeError,
        "^grad: ReLU has no parameters to differentiate by; choose another module, or an argument by its position, as",
    ),
    (
        lambda: bw.value_and_grad(lambda x: X.sum(), [nn.ReLU(), nn.Tanh()])(X),
        TypeError,
        "^value_and_grad: ReLU has no parameters to .*; Tanh has no parameters to",
    ),
    (lambda: bw.grad(total, 0)(nn.ReLU(), X), TypeError, r"^grad: argument 0 \(net\) has no parameters to"),
    (
        lambda: bw.grad(total)(Built(), X),
        TypeError,
        "^grad: Built has no parameters to differentiate by yet; call it once on data before, so that its build can",
    ),
    (lambda: bw.grad(total)(LINEAR.clone().freeze(), X), TypeError, "no trainable parameter .*: all are frozen$"),
]


@dataclasses.dataclass(frozen=True)
class Batch:
    image: jax.Array
    label: int = 0


@dataclasses.dataclass
class Options:
    rate: float = 0.1


class Box:
    __hash__ = None

    def __init__(self):
        self.content = np.ones(3)


UNHASHABLE = [
    (
        lambda: bw.compile(lambda b: b.image)(Batch(X)),
        TypeError,
        "^argument b is a Batch, which is neither an array nor hashable and holds an array, 'image'; let JAX see its "
        r"fields: jax\.tree_util\.register_dataclass\(Batch\), once, after the class$",
    ),
    (
        lambda: bw.compile(lambda options: 0)(options=[Options()]),
        TypeError,
        r"argument options\[0\] is a Options, which is neither an array nor hashable; let JAX see its fields: .*"
        r"\(Options\), once, after the class; or make it hashable \(frozen, with fields that are hashable\)$",
    ),
    (
        lambda: bw.compile(lambda b: b.content)(Box()),
        TypeError,
        "argument b is a Box, .* holds an array, 'content'; make it a dataclass and let JAX see its fields: ",
    ),
]


@pytest.mark.parametrize(("call", "error", "text"), [*VMAP, *LOOPS, *BRANCHES, *STACKS, *GRADIENTS, *UNHASHABLE])
def test_wrong_uses(call, error, text):
    before = values()
    MADE.clear()
    with pytest.raises(error, match=text):
        call()
    assert_same(values(), before)
    assert NET.weight.grad is None


# -- variables made inside a compiled function ---------------------------------------------------


def _steps(net):
    def step(x):
        opt = optim.adam(net, 1e-3)
        loss, grads = bw.value_and_grad(lambda: net(x).sum(), net)()
        opt.step(grads)
        return loss

    return step


def _grows(net):
    def step(x):
        net.extra = nn.Linear(3)
        return net.extra(net(x))

    return step


def _free(net):
    return lambda x: net(x) * bw.Parameter(shape=(2,))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (_steps, "Buffer 'hyperparams.learning_rate' of Optimizer and 5 more"),
        (_grows, "Parameter 'extra.weight' of Linear and 1 more"),
        (_free, "a Parameter"),
    ],
)
def test_variables_made_inside(make, text):
    net = nn.Linear(2, in_features=3)
    before = list(vars(net))
    step = bw.compile(make(net))
    step.__wrapped__.__name__ = "step"
    with pytest.raises(TraceLeakError) as caught:
        step(X)
    assert str(caught.value) == (
        f"every trace of 'step' reads new variables: {text}, made inside the function, which would start from new "
        "values at each call. Create what holds them before 'step', or in __init__ of a module, and use it inside."
    )
    assert list(vars(net)) == before


def test_attributes_are_what_they_were_after_a_trace_that_failed():
    net = nn.Linear(2, in_features=3)
    net.a, net.b = 1, 2

    def fails(x):
        net.a, net.c = 3, nn.ReLU()
        del net.b
        raise KeyError("half way")

    before = dict(vars(net))
    for call in (bw.compile(fails), bw.compile(lambda x: bw.compile(fails)(x))):
        with pytest.raises(KeyError, match="half way"):
            call(X)
        assert list(vars(net).items()) == list(before.items())
    with pytest.raises(KeyError, match="half way"):  # no trace: as in any Python
        fails(X)
    assert net.a == 3 and isinstance(net.c, nn.ReLU) and not hasattr(net, "b")


CHANGES = {
    "append": lambda net: net.items.append(nn.ReLU()),
    "extend": lambda net: net.items.extend([1, 2]),
    "+=": lambda net: operator.iadd(net.items, [1]),
    "insert": lambda net: net.items.insert(0, 7),
    "item": lambda net: operator.setitem(net.items, 0, 7),
    "slice": lambda net: operator.setitem(net.items, slice(None), [7]),
    "pop": lambda net: net.items.pop(),
    "reverse": lambda net: net.items.reverse(),
    "clear": lambda net: net.items.clear(),
    "key": lambda net: operator.setitem(net.table, "b", nn.ReLU()),
    "update": lambda net: net.table.update(a=2, b=3),
    "delete": lambda net: operator.delitem(net.table, "a"),
    "popitem": lambda net: net.table.popitem(),
    "in a list of a dict": lambda net: net.table["a"].append(nn.ReLU()),
}


@pytest.mark.parametrize("change", CHANGES)
def test_lists_and_dicts_are_what_they_were_after_a_trace_that_failed(change):
    net = nn.Linear(2, in_features=3)
    net.items, net.table = [nn.Tanh(), 1, 2], {"a": [1]}
    before = (list(net.items), {key: list(value) for key, value in net.table.items()})
    containers = (net.items, net.table, net.table["a"])

    def fails(x):
        CHANGES[change](net)
        raise KeyError("half way")

    with pytest.raises(KeyError, match="half way"):
        bw.compile(fails)(X)
    assert (net.items, net.table) == before
    assert all(x is y for x, y in zip((net.items, net.table, net.table["a"]), containers, strict=True))
    with pytest.raises(KeyError, match="half way"):
        fails(X)
    assert (net.items, net.table) != before


def test_a_list_made_in_a_trace_that_failed():
    with pytest.raises(KeyError, match="half way"):

        @bw.compile
        def fails(x):
            made = nn.ModuleList([nn.ReLU()])
            made.append(nn.Tanh())
            raise KeyError("half way")

        fails(X)


def test_attributes_stay_after_a_trace():
    net = nn.Linear(2, in_features=3)

    def grows(x):
        net.seen = x.shape
        return net(x)

    bw.compile(grows)(X)
    assert net.seen == (4, 3)
