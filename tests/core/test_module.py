"""Modules: attributes, names, calls, copies, walks over everything inside."""

from __future__ import annotations

import contextlib
import copy
import gc
import pickle
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import brickwork as bw
from brickwork.errors import DeviceMismatchError, LoadError, ShapeMismatchError, StructureError


class Linear(bw.Module):
    def __init__(self, out, *, in_features=None):
        self.weight = bw.Parameter(shape=(out, in_features))
        self.bias = bw.Parameter(shape=(out,))

    def build(self, x):
        self.weight.shape = (None, x.shape[-1])

    def forward(self, x):
        return x @ self.weight.T + self.bias

    def extra_repr(self):
        return f"{self.weight.shape[1] or '?'} → {self.weight.shape[0]}"


class Net(bw.Module):
    def __init__(self):
        self.a = Linear(4)
        self.layers = [Linear(4), {"inner": Linear(3), "tuple": (Linear(2), [Linear(1)])}]
        self.scale = bw.Buffer(jnp.ones(()))
        self.cache = bw.Buffer(jnp.ones(()), persistent=False)

    def forward(self, x):
        x = self.layers[0](self.a(x))
        d = self.layers[1]
        return d["tuple"][1][0](d["tuple"][0](d["inner"](x))) * self.scale


NAMES = [
    "a", "layers.0", "layers.1.inner", "layers.1.tuple.0", "layers.1.tuple.1.0",
]  # fmt: skip
PARAMETERS = [f"{n}.{p}" for n in NAMES for p in ("weight", "bias")]


def x():
    return jnp.ones((2, 5))


@pytest.fixture
def net():
    made = Net()
    made(x())
    return made


# -- names ---------------------------------------------------------------------------------------


def test_names(net):
    assert [n for n, _ in net.named_parameters()] == PARAMETERS
    assert [n for n, _ in net.named_buffers()] == ["scale", "cache"]
    assert [n for n, _ in net.named_modules()] == ["", *NAMES]
    assert [n for n, _ in net.named_children()] == NAMES
    assert len(net.parameters()) == 10 and len(net.variables()) == 12
    assert [p.name for p in net.parameters()] == PARAMETERS
    assert list(net.state_dict()) == [*PARAMETERS, "scale"]


def test_patterns_match_in_full(net):
    assert [n for n, _ in net.named_parameters(r"a\..*")] == ["a.weight", "a.bias"]
    assert net.parameters("weight") == []
    assert len(net.parameters(r".*\.weight")) == 5


def test_tuples_of_plain_values_are_no_part_of_the_network():
    class Conv(bw.Module):
        def __init__(self):
            self.kernel_size = (3, 3)
            self.padding = ((1, 1), "same", None)
            self.weight = bw.Parameter(jnp.ones(2))
            self.pair = (Linear(1), 2.0)

    net = Conv()
    assert [n for n, _ in net.named_parameters()] == ["weight", "pair.0.weight", "pair.0.bias"]
    assert "Conv" in repr(net)
    assert len(net.clone().parameters()) == 3


def test_get_by_path(net):
    assert net.get_parameter("layers.1.tuple.0.bias") is net.layers[1]["tuple"][0].bias
    assert net.get_submodule("layers.1.inner") is net.layers[1]["inner"]
    assert net.get_submodule("") is net
    with pytest.raises(KeyError, match=r"no Parameter at 'a.weigth'; did you mean .*'a.weight'"):
        net.get_parameter("a.weigth")
    with pytest.raises(KeyError, match=r"no Module at 'b'"):
        net.get_submodule("b")
    with pytest.raises(KeyError):
        net.get_parameter("a")


def test_tied(net):
    net.layers[0].weight = net.a.weight
    net.last = net.a
    assert len(net.parameters()) == 9
    assert net.get_parameter("layers.0.weight") is net.a.weight
    assert net.get_parameter("last.weight") is net.a.weight
    assert net.a.weight.name == "a.weight"
    assert [n for n, _ in net.named_modules()] == ["", *NAMES]


def test_a_name_follows_a_removed_tie(net):
    net.last = Linear(4)
    net.last.weight = net.a.weight
    del net.a
    assert [n for n, _ in net.named_parameters()][-2:] == ["last.weight", "last.bias"]
    assert net.last.weight.name == "last.weight"


class Child(bw.Module):
    def __init__(self, parent):
        self.parent = parent
        self.weight = bw.Parameter(jnp.ones(2))

    def forward(self, v):
        return v * self.weight


class Parent(bw.Module):
    def __init__(self):
        self.child = Child(self)

    def forward(self, v):
        return self.child(v)


@pytest.mark.timeout(10)
def test_a_module_that_refers_to_its_parent():
    net = Parent()
    assert [n for n, _ in net.named_parameters()] == ["child.weight"]
    assert len(net.modules()) == 2 and "shared" in repr(net)
    twin = net.clone()
    assert twin.child.parent is twin
    again = pickle.loads(pickle.dumps(net))
    assert again.child.parent is again
    net.apply(lambda m: None)
    f = bw.compile(lambda v: net(v))
    np.testing.assert_array_equal(f(jnp.ones(2)), [1, 1])
    bw.grad(lambda v: net(v).sum(), net)(jnp.ones(2))


@pytest.mark.timeout(10)
def test_names_in_a_cycle_end():
    a, b = bw.Module(), bw.Module()
    a.b, b.a = b, a
    b.weight = bw.Parameter(jnp.ones(1))
    assert "weight" in b.weight.name


def test_an_attribute_called_parent():
    class Child(bw.Module):
        def __init__(self, parent):
            self._parent = parent
            self.weight = bw.Parameter(jnp.ones(2))

    net = bw.Module()
    net.child = Child(net)
    assert [n for n, _ in net.named_parameters()] == ["child.weight"]
    assert net.child.weight.name == "child.weight"


# -- attributes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [jnp.ones(4), np.ones(4), 1.0, 3, [1.0], np.float32(2)])
def test_an_array_over_a_variable_is_refused(net, value):
    with pytest.raises(TypeError, match=r"Linear\.bias is a Parameter.*\.bias\.value = "):
        net.a.bias = value
    assert isinstance(net.a.bias, bw.Parameter)


def test_other_things_over_a_variable(net):
    with pytest.raises(TypeError, match=r"del net\.bias"):
        net.a.bias = "text"
    net.a.bias = None
    assert len(net.parameters()) == 9
    new = bw.Parameter(jnp.ones(4))
    net.a.bias = new
    net.a.bias += 1
    assert net.a.bias is new
    np.testing.assert_array_equal(new, [2, 2, 2, 2])
    del net.a.bias
    assert not hasattr(net.a, "bias")
    with pytest.raises(AttributeError, match="no attribute 'bias'"):
        del net.a.bias


def test_containers_that_cannot_be_tracked(net):
    from collections import OrderedDict, defaultdict, deque

    for bad in ({Linear(1)}, OrderedDict(a=Linear(1)), defaultdict(list, a=[Linear(1)])):
        with pytest.raises(StructureError, match="Use a plain list or dict"):
            net.more = bad
    with pytest.raises(StructureError):
        net.more = deque([Linear(1)])


def test_class_attributes_are_refused():
    with pytest.raises(StructureError, match=r"class Bad.*'layer'.*every instance would share"):

        class Bad(bw.Module):
            layer = Linear(1)


def test_properties_and_class_attributes():
    class P(bw.Module):
        kind = "k"

        @property
        def doubled(self):
            return self._d * 2

        @doubled.setter
        def doubled(self, v):
            self._d = v / 2

    net = P()
    net.doubled = 4.0
    assert net._d == 2.0 and net.doubled == 4.0 and net.kind == "k"
    net.kind = "other"
    assert P.kind == "k"


def test_no_forward():
    with pytest.raises(TypeError, match=r"Net2 defines no forward"):
        type("Net2", (bw.Module,), {})()(1)


# -- everything at once --------------------------------------------------------------------------


def test_apply_visits_children_first(net):
    net.last = net.a
    order = []
    assert net.apply(lambda m: order.append(m)) is net
    assert order[-1] is net and len(order) == 6 and len(set(map(id, order))) == 6


def test_modes_and_freezing(net):
    assert net.training and net.eval() is net and not net.layers[1]["tuple"][1][0].training
    net.train()
    assert all(m.training for m in net.modules())
    assert net.freeze(r"layers\..*") is net
    assert [n for n, p in net.named_parameters() if p.trainable] == ["a.weight", "a.bias"]
    net.unfreeze()
    assert all(p.trainable for p in net.parameters())


def test_to_dtype(net):
    assert net.to(jnp.bfloat16) is net
    assert {p.dtype for p in net.parameters()} == {jnp.dtype("bfloat16")}
    assert net(x().astype(jnp.bfloat16)).dtype == jnp.bfloat16
    net.count = bw.Buffer(jnp.zeros((), jnp.int32))
    net.to("float32")
    assert net.count.dtype == jnp.int32 and net.a.bias.dtype == jnp.float32
    for bad in (jnp.int32, "int8"):
        with pytest.raises(TypeError, match="can't hold them"):
            net.to(bad)
    for bad in (3.5, "cpu"):
        with pytest.raises(TypeError, match=r"expected a jax\.Device"):
            net.to(bad)
    with pytest.raises(ValueError, match="64-bit"):
        net.to(jnp.float64)


def test_to_device(net, devices):
    net.to(devices[1])
    assert net.device == devices[1]
    assert net(jax.device_put(x(), devices[1])).devices() == {devices[1]}
    with pytest.raises(DeviceMismatchError, match=r"argument 0 is on .*weight.*net\.to\(device\)"):
        net(jax.device_put(x(), devices[2]))
    net.a.to(devices[2])
    with pytest.raises(DeviceMismatchError, match=r"several devices: .*a\.weight.*layers\.0"):
        net.device
    later = Linear(2).to(devices[3])
    assert later.device is None
    later.weight.shape = (2, 5)
    assert later.weight.value.devices() == {devices[3]}


def test_a_deferred_copy_stays_on_its_device(devices):
    later = Linear(2).to(devices[3]).clone()
    later.weight.shape = (2, 5)
    assert later.weight.value.devices() == {devices[3]}


def test_to_sharding(net, devices):
    mesh = jax.sharding.Mesh(np.array(devices[:2]), ("d",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    net.to(sharding)
    assert net.device == sharding or net.a.weight.sharding == sharding


# -- copies --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "how",
    [bw.Module.clone, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))],
    ids=["clone", "deepcopy", "pickle"],
)
def test_copies(net, how):
    net.layers[0].weight = bw.Parameter(net.a.weight.value[:, :4], trainable=False)
    net.tied = net.a
    net.tied_weight = net.layers[1]["inner"].weight
    net.eval()
    twin = how(net)
    assert twin.tied is twin.a and twin.tied_weight is twin.layers[1]["inner"].weight
    assert twin.a is not net.a and not twin.training and not twin.a.training
    assert not twin.layers[0].weight.trainable
    assert not twin.cache.persistent
    assert [n for n, _ in twin.named_variables()] == [n for n, _ in net.named_variables()]
    for (_, a), (_, b) in zip(net.named_variables(), twin.named_variables()):
        assert a is not b
        np.testing.assert_array_equal(a, b)
    twin.a.bias.value = jnp.full(4, 9.0)
    assert not np.array_equal(net.a.bias, twin.a.bias)
    twin.layers.append(Linear(1))
    assert len(net.layers) == 2
    assert twin.a.weight.name == "a.weight"


@pytest.mark.parametrize("how", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_deferred_copies_draw_the_same(how):
    net = Net()
    twin = how(net)
    assert twin.a.weight.shape == (4, None)
    np.testing.assert_array_equal(net(x()), twin(x()))


def test_shallow_copy_shares_variables(net):
    twin = copy.copy(net)
    assert twin.a is net.a
    twin.layers.append(Linear(1))
    twin.more = 3
    assert len(net.layers) == 2 and not hasattr(net, "more")
    assert net.a.weight.name == "a.weight"


def hook(module, args, output):
    return output + 1


def test_hooks_travel(net):
    net.register_forward_hook(hook)
    plain = net(x())
    for twin in (net.clone(), pickle.loads(pickle.dumps(net))):
        np.testing.assert_allclose(twin(x()), plain, rtol=1e-6)


def test_as_a_pytree(net):
    net.tied = net.a
    leaves = jax.tree.leaves(net)
    assert len(leaves) == 12
    double = jax.tree.map(lambda v: v * 2, net)
    assert type(double) is Net and double.tied is double.a and double.a.weight.name == "a.weight"
    np.testing.assert_array_equal(double.a.weight, 2 * net.a.weight.value)
    paths = [jax.tree_util.keystr(k) for k, _ in jax.tree_util.tree_flatten_with_path(net)[0]]
    assert any("layers.1.inner.weight" in p for p in paths)
    np.testing.assert_allclose(jax.jit(lambda m, v: m(v))(net, x()), net(x()), rtol=1e-5)
    assert jax.tree.structure(net) == jax.tree.structure(net.clone())


# -- state ---------------------------------------------------------------------------------------


def test_loading_fills_unknown_shapes(net):
    twin = Net()
    report = twin.load_state_dict(net.state_dict())
    assert not report
    np.testing.assert_array_equal(twin(x()), net(x()))


def test_a_bad_load_lists_everything_and_changes_nothing(net):
    before = {k: np.array(v) for k, v in net.state_dict().items()}
    state = {k: v + 1 for k, v in net.state_dict().items()}
    state["a.weight"] = jnp.ones((4, 6))
    state["b.weight"] = state.pop("layers.0.weight")
    del state["scale"]
    with pytest.raises(LoadError) as info:
        net.load_state_dict(state)
    text = str(info.value)
    for part in (
        "missing",
        "layers.0.weight",
        "scale",
        "unexpected",
        "b.weight",
        "mismatched",
        "a.weight: the network has (4, 5), the state (4, 6)",
    ):
        assert part in text
    assert isinstance(info.value, ValueError)
    with pytest.raises(LoadError):
        net.load_state_dict(state, strict=False)
    for k, v in net.state_dict().items():
        np.testing.assert_array_equal(v, before[k])


def test_not_strict(net):
    report = net.load_state_dict({"a.bias": np.ones(4), "zz": np.ones(1)}, strict=False)
    assert report.unexpected == ["zz"] and len(report.missing) == 10 and report
    np.testing.assert_array_equal(net.a.bias, np.ones(4))


def test_rename(net):
    state = {f"module.{k}": v for k, v in net.state_dict().items()}
    assert not net.load_state_dict(state, rename={r"^module\.": ""})
    assert not net.load_state_dict(state, rename=lambda n: n.removeprefix("module."))
    with pytest.raises(LoadError, match="two names become 'k'"):
        net.load_state_dict(state, rename={".*weight": "k"})


def test_tied_names_in_a_state(net):
    net.layers[0].bias = net.a.bias
    state = dict(net.state_dict())
    state["layers.0.bias"] = state.pop("a.bias")
    assert not net.load_state_dict(state)
    state["a.bias"] = state["layers.0.bias"] + 1
    with pytest.raises(LoadError, match="tied to"):
        net.load_state_dict(state)


def test_an_unconvertible_value_changes_nothing(net):
    state = {k: np.asarray(v) + 1 for k, v in net.state_dict().items()}
    state["scale"] = np.array("text")
    before = np.array(net.a.bias)
    with pytest.raises((TypeError, LoadError)):
        net.load_state_dict(state)
    np.testing.assert_array_equal(net.a.bias, before)
    with pytest.raises(TypeError, match="expected a mapping"):
        net.load_state_dict([1])


# -- calls ---------------------------------------------------------------------------------------


def notes(error):
    return "\n".join(getattr(error, "__notes__", []))


def test_the_note_on_an_exception(net):
    with pytest.raises(Exception) as info:
        net(jnp.ones((2, 21)))
    text = notes(info.value)
    assert text.count("in net") == 1
    assert "in net.a (Linear(5 → 4)), called with float32[2, 21]" in text


def test_notes_through_containers():
    class Bad(bw.Module):
        def forward(self, v, *, flag=None):
            raise KeyError("inner")

    class Outer(bw.Module):
        def __init__(self):
            self.blocks = [bw.Sequential(Linear(2, in_features=5), Bad()), {"k": Bad()}]
            self.shared = self.blocks[1]["k"]

        def forward(self, v, which):
            return self.blocks[0](v) if which == 0 else self.shared(v, flag=3)

    net = Outer()
    for which, want in (
        (0, "net.blocks.0.1 (Bad()), called with float32[2, 2]"),
        (1, "net.blocks.1.k (Bad()), called with float32[2, 5], flag=3"),
    ):
        with pytest.raises(KeyError) as info:
            net(x(), which)
        assert want in notes(info.value) and notes(info.value).count("in net") == 1
        with pytest.raises(KeyError) as info:
            bw.compile(lambda v, which=which: net(v, which))(x())
        assert want in notes(info.value)


def test_notes_in_recursion():
    class Rec(bw.Module):
        def forward(self, n):
            if n == 0:
                raise ValueError("bottom")
            return self(n - 1)

    net = bw.Module()
    net.rec = Rec()
    with pytest.raises(ValueError) as info:
        net.rec(3)
    assert notes(info.value).count("called with") == 1


def test_a_caught_exception_leaves_no_trace(net):
    class Try(bw.Module):
        def __init__(self):
            self.inner = Linear(2)

        def forward(self, v):
            try:
                self.inner(jnp.ones((2, 3, 4, 5)).reshape(-1))
                self.inner("text")
            except Exception:
                pass
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine") as info:
        Try()(x())
    assert "in net (Try" in notes(info.value)


def test_a_failing_first_call_can_be_repeated():
    net = Net()
    net.layers[0] = Linear(4, in_features=3)
    with pytest.raises(ShapeMismatchError, match="contradicts"):
        net(jnp.ones((2, 7)))
    assert net.a.weight.shape == (4, None)
    net.layers[0] = Linear(4)
    assert net(x()).shape == (2, 1)


def test_lax_functions_get_a_hint():
    class L(bw.Module):
        def __init__(self):
            self.weight = bw.Parameter(jnp.ones(2))

        def forward(self, v):
            return jax.lax.mul(v, self.weight)

    with pytest.raises((TypeError, ValueError)) as info:  # JAX's own error, whichever it is
        L()(jnp.ones(2))
    assert "pass `.value`" in notes(info.value)


def test_freed_by_reference_counting(net):
    gc.collect()
    gc.disable()
    try:
        other = Net()
        other(x())
        other.clone()
        bw.grad(lambda v: other(v).sum(), other)(x())
        with contextlib.suppress(Exception):
            other(jnp.ones((2, 9)))
        str(other), other.state_dict()
        reference, weight = weakref.ref(other), weakref.ref(other.a.weight)
        del other
        assert reference() is None and weight() is None
    finally:
        gc.enable()


def test_dataclass_modules():
    from dataclasses import dataclass

    @dataclass
    class D(bw.Module):
        inner: bw.Module
        width: int = 3

        def forward(self, v):
            return self.inner(v)

    a, b = D(Linear(2)), D(Linear(2))
    a.items, b.items = [a.inner], [b.inner]
    b.items = a.items
    assert len(a.parameters()) == 2 and a(x()).shape == (2, 2)
    assert bw.compile(lambda v: a(v))(x()).shape == (2, 2)


def test_a_module_may_change_its_class():
    class Doubled(Linear):
        def forward(self, v):
            return 2 * super().forward(v)

    net = bw.Sequential(Linear(2))
    step = bw.compile(lambda v: net(v))
    before, names = step(x()), list(net.state_dict())
    net[0].__class__ = Doubled
    assert type(net[0]) is Doubled
    assert list(net.state_dict()) == names
    np.testing.assert_allclose(step(x()), 2 * before)
    with pytest.raises(TypeError, match="__class__"):
        net[0].__class__ = int


# -- printing ------------------------------------------------------------------------------------


def test_repr():
    net = bw.Module()
    net.a = Linear(4)
    net.items = [Linear(2, in_features=3), net.a]
    net.w = bw.Parameter(shape=(3, None))
    assert repr(net) == (
        "Module(\n  (w): Parameter(3, ?)\n  (a): Linear(? → 4)\n  (items): list(\n"
        "    (0): Linear(3 → 2)\n    (1): Linear(? → 4)  (shared)\n  )\n)"
    )


def test_what_jax_returns_of_modules_that_it_differentiates_forwards():
    """JAX takes such a result apart when its trace has ended."""
    net = Linear(3, in_features=2)

    def loss(net):
        return jnp.tanh(net(jnp.ones((4, 2)))).sum()

    _, tangent = jax.jvp(lambda n: jax.tree.map(lambda a: 2 * a, n), (net,), (net,))
    np.testing.assert_array_equal(tangent.weight, 2 * net.weight.value)
    for wrap in (lambda f: f, jax.jit):
        product = wrap(lambda n: jax.jvp(jax.grad(loss), (n,), (n,))[1])(net)
        hessian = wrap(jax.hessian(loss))(net)
        block = hessian.weight.value.weight.value
        np.testing.assert_allclose(
            product.weight,
            jnp.tensordot(block, net.weight.value, 2) + hessian.weight.value.bias.value @ net.bias.value,
            rtol=1e-5,
            atol=1e-6,
        )
    again = jax.jacfwd(jax.jacfwd(loss))(net).weight.value.weight.value
    np.testing.assert_allclose(again, block, rtol=1e-5, atol=1e-6)


class Frozen(bw.Module):
    """Its norm stays in evaluation mode: ``train`` says so."""

    def __init__(self):
        self.norm = Linear(2)
        self.other = Linear(2)

    def train(self, mode=True):
        super().train(mode)
        self.norm.eval()
        return self


def test_a_train_of_ones_own_counts_inside_too():
    net = bw.Module()
    net.first, net.several = Frozen(), [Frozen(), Linear(2)]
    net.again, net.self = net.first, net
    assert net.train() is net
    for part in (net.first, net.several[0]):
        assert part.training and part.other.training and not part.norm.training
    assert net.several[1].training
    net.eval()
    assert not any(m.training for m in net.modules())


def test_a_tied_variable_takes_sizes_from_what_it_replaces():
    sized, deferred = Linear(4, in_features=3), Linear(4)
    sized.weight = deferred.weight
    assert deferred.weight.shape == (4, 3)
    fresh = bw.Parameter(shape=(4, None))  # of no other module: for another input
    sized.weight = fresh
    assert fresh.shape == (4, None)
    other = Linear(5)
    sized.weight = other.weight  # of another size: whatever comes of it
    assert other.weight.shape == (5, None)
