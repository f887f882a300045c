"""Low-rank adapters: nothing changes at first, only they are trained, and they can be folded in."""

from __future__ import annotations

import math
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import brickwork as bw
from brickwork import init, nn, optim
from brickwork.errors import LoadError, StructureError

X = jnp.asarray(np.random.default_rng(0).normal(size=(3, 2, 5, 5)), jnp.float32)


def make():
    return nn.Sequential(
        nn.Conv2d(4, 3, padding=1),
        nn.BatchNorm2d(),
        nn.Conv2d(4, 3, groups=2, stride=2),
        nn.Flatten(),
        nn.Linear(6),
        nn.ReLU(),
        nn.Linear(3, bias=False),
    )


def built():
    net = make()
    net(X)
    return net


def trained(net):
    """Adapters that change something."""
    for i, p in enumerate(net.parameters(r".*lora_B")):
        p.value = jax.random.normal(jax.random.key(i), p.shape).astype(p.dtype) * 0.3
    return net


def trainable(net):
    return [name for name, p in net.named_parameters() if p.trainable]


def test_the_output_is_unchanged_at_first():
    net = built().eval()
    before = net(X)
    assert nn.lora(net, r".*", rank=2) is net
    np.testing.assert_array_equal(net(X), before)
    assert (trained(net)(X) != before).any()


def test_only_the_adapters_are_trained():
    net = nn.lora(built(), r"[46]", rank=2)
    assert trainable(net) == ["4.lora_A", "4.lora_B", "6.lora_A", "6.lora_B"]
    opt = optim.adam(net, 0.02)
    before = {name: np.asarray(p) for name, p in net.named_parameters()}

    @bw.compile
    def step(x):
        loss, grads = bw.value_and_grad(lambda x: ((net(x) - 1) ** 2).mean(), net)(x)
        opt.step(grads)
        return loss, grads

    losses = [float(step(X)[0]) for _ in range(30)]
    assert losses[-1] < 0.5 * losses[0]
    assert list(step(X)[1]) == trainable(net)
    assert step.stats().compilations == 1
    changed = [name for name, p in net.named_parameters() if (before[name] != np.asarray(p)).any()]
    assert changed == trainable(net)


def test_parts_can_be_trained_as_well():
    net = nn.lora(built(), r"4", rank=2)
    net.unfreeze(r"6\.weight")
    assert trainable(net) == ["4.lora_A", "4.lora_B", "6.weight"]
    nn.lora(net, r"0", rank=1)  # another time, which leaves the earlier adapters alone
    assert trainable(net) == ["0.lora_A", "0.lora_B", "4.lora_A", "4.lora_B"]


def test_merging_restores_the_layers():
    net = built().eval()
    layers = list(net)
    weights = [net[i].weight for i in (0, 2, 4, 6)]
    trained(nn.lora(net, r".*", rank=2, alpha=3))
    expected = net(X)
    assert nn.merge_lora(net) is net
    assert all(a is b for a, b in zip(net, layers, strict=True))
    assert all(net[i].weight is w for i, w in zip((0, 2, 4, 6), weights, strict=True))
    np.testing.assert_allclose(net(X), expected, rtol=1e-5, atol=1e-6)
    assert list(net.state_dict()) == list(built().state_dict())
    assert trainable(net) == []
    assert trainable(net.unfreeze()) == trainable(built())


@pytest.mark.parametrize(
    ("layer", "x"),
    [
        (nn.Linear(4, in_features=3), jnp.ones((2, 5, 3))),
        (nn.Linear(4, in_features=3), jnp.ones(3)),
        (nn.Conv2d(4, (2, 3), in_channels=2, stride=2, padding=1, dilation=(1, 2)), X),
        (nn.Conv2d(4, 3, in_channels=2, padding="same", bias=False), X[0]),
        (nn.Conv2d(4, 3, in_channels=2, groups=2), X),
        (nn.Embedding(7, 3, padding_idx=1), jnp.array([[0, 1], [6, 1]])),
    ],
    ids=lambda v: repr(v) if isinstance(v, nn.Module) else "",
)
def test_against_the_weight_written_out(layer, x):
    """``f(x; W) + s f(x; BA)`` is ``f(x; W + s BA)``, for every kind of layer."""
    layer = layer.clone()
    wrapper = nn.LoRA(layer, 2, alpha=5)
    trained(wrapper)
    if isinstance(layer, nn.Embedding):
        wrapper.lora_B[1] = 0.0  # as it stays: the row of padding gets no gradient
    a, b = np.asarray(wrapper.lora_A), np.asarray(wrapper.lora_B)
    change = 2.5 * np.einsum("or,rk->ok", b, a.reshape(2, -1)).reshape(layer.weight.shape)
    np.testing.assert_allclose(wrapper.change(), change, rtol=1e-5, atol=1e-6)
    y = wrapper(x)
    other = layer.clone().unfreeze()
    other.weight.value = other.weight.value + change
    np.testing.assert_allclose(y, other(x), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(bw.compile(wrapper)(x), y, rtol=1e-5, atol=1e-5)
    # and so are gradients
    gradients = bw.grad(lambda: (wrapper(x) ** 2).sum(), wrapper)()
    by_weight = bw.grad(lambda: (other(x) ** 2).sum(), [other.weight])()
    g = np.asarray(next(iter(jax.tree.leaves(by_weight)))).reshape(len(b), -1)
    np.testing.assert_allclose(gradients["lora_B"], 2.5 * g @ a.reshape(2, -1).T, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(gradients["lora_A"].reshape(2, -1), 2.5 * b.T @ g, rtol=1e-3, atol=1e-3)


def test_initial_values():
    wrapper = nn.LoRA(nn.Linear(3, in_features=400), 50)
    a = np.asarray(wrapper.lora_A)
    assert a.shape == (50, 400) and not np.asarray(wrapper.lora_B).any()
    assert abs(a).max() <= 1 / math.sqrt(400)
    assert a.std() == pytest.approx(1 / math.sqrt(3 * 400), rel=0.02)
    conv = nn.LoRA(nn.Conv2d(8, 3, in_channels=4), 16)
    assert conv.lora_A.shape == (16, 4, 3, 3) and conv.lora_B.shape == (8, 16)
    assert 0.95 / 6 < abs(np.asarray(conv.lora_A)).max() <= 1 / 6
    table = nn.LoRA(nn.Embedding(10, 3), 2)
    assert table.lora_A.shape == (2, 3) and table.lora_B.shape == (10, 2)
    assert (np.asarray(nn.LoRA(nn.Linear(3, in_features=4), 2, init=init.ones).lora_A) == 1).all()


def test_sizes_that_are_not_known_yet():
    net = nn.lora(make(), r".*", rank=2)
    assert net[0].lora_A.shape == (2, None, 3, 3) and net[4].lora_A.shape == (2, None)
    assert repr(net[4]) == "LoRA(Linear(? → 6), rank=2)"
    early = make()
    bw.seed(0)
    early = nn.lora(make(), r".*", rank=2).initialize(bw.spec(*X.shape))
    assert repr(early[4]) == "LoRA(Linear(16 → 6), rank=2)"
    assert bw.compile(net)(X).shape == (3, 3)
    assert net[0].lora_A.shape == (2, 2, 3, 3)
    assert repr(nn.merge_lora(nn.lora(make(), r".*", 2))) == repr(make())


def test_a_deferred_network_merges_after_its_first_call():
    net = nn.lora(make().eval(), r".*", rank=2)
    net(X)
    expected = trained(net)(X)
    np.testing.assert_allclose(nn.merge_lora(net)(X), expected, rtol=1e-5, atol=1e-6)


# --- names and files ------------------------------------------------------------------------------


def test_parameters_keep_their_names():
    net = built()
    before = list(net.state_dict())
    nn.lora(net, r"4", rank=2)
    assert net[4].weight.name == "4.weight" and net[4].lora_A.name == "4.lora_A"
    assert [name for name in net.state_dict() if "lora" not in name] == before
    assert net.get_parameter("4.weight") is net[4].base.weight
    assert type(net.get_submodule("4")) is nn.LoRA


def test_files(tmp_path):
    plain = built().eval()
    plain.save(tmp_path / "plain")
    before = nn.lora(make(), r"[04]", rank=2).eval()
    report = before.load(tmp_path / "plain", strict=False)
    assert report.missing == ["0.lora_A", "0.lora_B", "4.lora_A", "4.lora_B"] and not report.unexpected
    np.testing.assert_array_equal(before(X), plain(X))
    after = make().eval()
    after.load(tmp_path / "plain")
    np.testing.assert_array_equal(nn.lora(after, r"4", rank=2)(X), plain(X))
    with pytest.raises(LoadError, match=r"4\.lora_A"):
        nn.lora(make(), r"4", rank=2).load(tmp_path / "plain")
    trained(before).save(tmp_path / "adapted")
    again = nn.lora(make(), r"[04]", rank=2).eval()
    assert not again.load(tmp_path / "adapted")
    np.testing.assert_array_equal(again(X), before(X))


def test_copies():
    net = trained(nn.lora(built().eval(), r".*", rank=2))
    for twin in (net.clone(), pickle.loads(pickle.dumps(net)), jax.tree.map(lambda v: v, net)):
        np.testing.assert_array_equal(twin(X), net(X))
        assert twin[0].base is not net[0].base
        assert twin[0].weight.trainable is False
        assert trainable(twin) == trainable(net)


# --- where layers are held ------------------------------------------------------------------------


class Holder(nn.Module):
    def __init__(self):
        self.attribute = nn.Linear(4)
        self.items = [nn.Linear(4), {"key": nn.Linear(4)}]
        self.pair = (nn.Linear(4), (nn.Linear(4), jnp.tanh))
        self.modules_list = nn.ModuleList([nn.Linear(4)])
        self.modules_dict = nn.ModuleDict({"a": nn.Linear(4)})
        self.chain = nn.Sequential({"named": nn.Linear(4)})
        self.again = self.attribute

    def forward(self, x):
        x = self.items[1]["key"](self.items[0](self.attribute(x)))
        x = self.pair[1][1](self.pair[1][0](self.pair[0](x)))
        return self.again(self.chain(self.modules_dict["a"](self.modules_list[0](x))))


def test_layers_are_found_wherever_they_are():
    net, x = Holder(), jnp.ones((2, 4))
    expected = net(x)
    inner = [m for m in net.modules() if isinstance(m, nn.Linear)]
    nn.lora(net, r".*", rank=2)
    wrappers = [m for m in net.modules() if isinstance(m, nn.LoRA)]
    assert len(wrappers) == len(inner) == 8
    assert net.attribute is net.again
    np.testing.assert_array_equal(net(x), expected)
    compiled = bw.compile(net)
    expected = trained(net)(x)
    np.testing.assert_allclose(compiled(x), expected, rtol=1e-6)
    nn.merge_lora(net)
    assert [m for m in net.modules() if isinstance(m, nn.Linear)] == inner
    np.testing.assert_allclose(net(x), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(compiled(x), expected, rtol=1e-5, atol=1e-6)


class Tied(nn.Module):
    def __init__(self):
        self.encoder = nn.Embedding(7, 4)
        self.decoder = nn.Linear(7, in_features=4, bias=False)
        self.decoder.weight = self.encoder.weight

    def forward(self, x):
        return self.decoder(self.encoder(x))


def test_a_tied_weight_has_one_adapter():
    net, x = Tied(), jnp.array([[0, 3, 6]])
    before = net(x)
    nn.lora(net, r".*coder", rank=2)
    np.testing.assert_array_equal(net(x), before)
    assert net.encoder.lora_A is net.decoder.lora_A and net.encoder.lora_B is net.decoder.lora_B
    assert list(net.state_dict()) == ["encoder.weight", "encoder.lora_A", "encoder.lora_B"]
    expected = trained(net)(x)
    assert net.clone().encoder.lora_B is not net.encoder.lora_B
    twin = net.clone()
    assert twin.encoder.lora_B is twin.decoder.lora_B and twin.encoder.base.weight is twin.decoder.base.weight
    nn.merge_lora(net)
    np.testing.assert_allclose(net(x), expected, rtol=1e-5, atol=1e-6)
    assert net.decoder.weight is net.encoder.weight


def test_half_of_a_tie_is_refused():
    net = Tied()
    with pytest.raises(
        StructureError, match=r"the weight of 'decoder' is also 'encoder\.weight', which gets no adapter"
    ):
        nn.lora(net, r"decoder", rank=2)
    assert type(net.decoder) is nn.Linear and trainable(net) == ["encoder.weight"]


def test_in_a_repeat():
    net = nn.Repeat(lambda: nn.Sequential(nn.Linear(4), nn.Tanh()), 3)
    x = jnp.ones((2, 4))
    expected = net(x)
    nn.lora(net, r"block\.0", rank=2)
    np.testing.assert_array_equal(net(x), expected)
    assert net.block[0].lora_A.shape == (3, 2, 4) and net.block[0].lora_B.shape == (3, 4, 2)
    a = np.asarray(net.block[0].lora_A)
    assert (a[0] != a[1]).any()
    assert list(net.state_dict())[:4] == ["0.0.weight", "0.0.bias", "0.0.lora_A", "0.0.lora_B"]
    adapted = trained(net)(x)
    assert (adapted != expected).any()
    np.testing.assert_allclose(bw.compile(net)(x), adapted, rtol=1e-5, atol=1e-6)
    assert list(bw.grad(lambda x: net(x).sum(), net)(x)) == ["block.0.lora_A", "block.0.lora_B"]
    np.testing.assert_allclose(nn.merge_lora(net)(x), adapted, rtol=1e-5, atol=1e-6)
    later = nn.lora(nn.Repeat(lambda: nn.Linear(4), 2), r"block", rank=1)
    assert bw.compile(later)(x).shape == (2, 4)


# --- modes, dtypes, attributes --------------------------------------------------------------------


def test_dropout_in_training_mode_only():
    net = trained(nn.lora(built(), r"4", rank=2, dropout=0.5))
    net[1].eval()
    assert repr(net[4]) == "LoRA(Linear(16 → 6), rank=2, dropout=0.5)"
    assert (np.asarray(net(X)) != np.asarray(net(X))).any()
    net.eval()
    np.testing.assert_array_equal(net(X), net(X))
    without = net.clone()
    without[4].dropout = 0.0
    np.testing.assert_array_equal(net(X), without(X))
    # the layer itself sees what it always sees
    only = nn.LoRA(nn.Linear(3, in_features=4), 2, dropout=0.9)
    np.testing.assert_array_equal(only(jnp.ones((2, 4))), only.base(jnp.ones((2, 4))))


def test_bfloat16():
    net = trained(nn.lora(built().eval(), r".*", rank=2))
    wide = net(X)
    net.to(jnp.bfloat16)
    y = net(X.astype(jnp.bfloat16))
    assert y.dtype == jnp.bfloat16 and net[4].lora_A.dtype == jnp.bfloat16
    np.testing.assert_allclose(y.astype(jnp.float32), wide, rtol=0.1, atol=0.1)
    late = nn.lora(built().to(jnp.bfloat16), r"4", rank=2)
    assert late[4].lora_A.dtype == jnp.bfloat16
    nn.merge_lora(net)
    assert net[4].weight.dtype == jnp.bfloat16


def test_the_layers_attributes_can_be_read():
    net = nn.lora(built(), r"[04]", rank=2)
    assert net[4].in_features == 16 and net[4].out_features == 6 and net[0].kernel_size == 3
    assert net[4].weight is net[4].base.weight
    assert not hasattr(net[4], "no_such_thing")
    with pytest.raises(StructureError, match="'weight' belongs to the layer that is wrapped"):
        net[4].weight = net[4].base.weight


def test_hooks_and_capture():
    net = built().eval()
    seen = []
    net[4].register_forward_hook(lambda module, args, output: seen.append(output))
    trained(nn.lora(net, r"4", rank=2))
    with net.capture("4") as acts:
        net(X)
    assert len(seen) == 1
    np.testing.assert_allclose(acts["4"], net[4](net[:4](X)), rtol=1e-6)
    assert (np.asarray(acts["4"]) != np.asarray(seen[0])).any()
    assert "LoRA(Linear(16 → 6), rank=2)" in str(net.summary(bw.spec(*X.shape)))


def test_freed_when_merged():
    import gc
    import weakref

    net = nn.lora(built(), r"4", rank=2)
    dead = weakref.ref(net[4])
    gc.collect()
    nn.merge_lora(net)
    gc.collect()
    assert dead() is None


def test_outputs_that_are_not_known_yet():
    """Of a layer inside another that learns them from its input, as in attention."""

    class Square(nn.Module):
        def __init__(self):
            self.out = nn.Linear(1, bias=False)
            self.out.weight = nn.Parameter(shape=(None, None))

        def build(self, x):
            self.out.weight.shape = (x.shape[-1], None)

        def forward(self, x):
            return self.out(x)

    net = nn.lora(Square(), r"out", rank=2)
    assert net.out.lora_B.shape == (None, 2)
    assert bw.compile(net)(jnp.ones((3, 4))).shape == (3, 4)
    assert net.out.lora_B.shape == (4, 2) and net.out.lora_A.shape == (2, 4)


def test_computed_weights_are_refused():
    net = nn.Sequential(nn.Linear(4, in_features=3), nn.Linear(2, in_features=4))
    nn.spectral_norm(net[0])
    advice = r"is computed by a parametrisation; take that away first, nn\.remove_parametrizations\(layer, 'weight'\)"
    with pytest.raises(StructureError, match=rf"lora: '0': the weight of ParametrizedLinear {advice}"):
        nn.lora(net, ".*", rank=1)
    assert not isinstance(net[1], nn.LoRA)
    with pytest.raises(StructureError, match=advice):
        nn.quantize(net)
    nn.lora(net, "1", rank=1)
    nn.weight_norm(net[1].base)
    with pytest.raises(StructureError, match=advice):
        net(np.ones((1, 3), np.float32))


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (lambda: nn.Linear(4), (2, 5)),
        (lambda: nn.Conv1d(4, 3), (2, 4, 6)),
        (lambda: nn.Conv1d(4, 3, groups=2), (2, 4, 6)),
    ],
)
@pytest.mark.parametrize("first", [False, True])
def test_a_computed_bias_counts_once(layer, shape, first):
    x = jax.random.normal(jax.random.key(0), shape)
    net = nn.Sequential(layer())
    net(x)
    nn.parametrize(net[0], "bias", nn.Tanh())
    y = net(x)
    if not first:
        nn.remove_parametrizations(net[0], "bias", leave_parametrized=False)
    nn.lora(net, "0", rank=2)
    if not first:
        nn.parametrize(net[0].base, "bias", nn.Tanh())
    np.testing.assert_array_equal(net(x), y)
    changed = bw.compile(trained(net))(x)
    assert (changed != y).any()
    bias = net[0].base.bias.value
    names = ["0.weight", "0.parametrizations.bias.original"]
    assert list(nn.merge_lora(net).state_dict()) == names
    np.testing.assert_allclose(net(x), changed, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(net[0].bias, bias)


# --- attention ------------------------------------------------------------------------------------

TOKENS = jnp.asarray(np.random.default_rng(1).normal(size=(2, 5, 8)), jnp.float32)


def encoder():
    layer = nn.TransformerEncoderLayer(2, dim_feedforward=16, batch_first=True)
    return nn.TransformerEncoder(layer, 2)


def test_attention_with_a_computed_bias():
    net = nn.TransformerEncoderLayer(2, dim_feedforward=16, batch_first=True).eval()
    net(TOKENS)
    bias = net.self_attn.in_proj_bias
    bias.value = bias.value + 1
    nn.parametrize(net.self_attn, "in_proj_bias", nn.Tanh())
    y = net(TOKENS)
    np.testing.assert_allclose(nn.lora(net, "self_attn", rank=2)(TOKENS), y, rtol=1e-5, atol=1e-6)


def attending(pattern=r".*self_attn"):
    net = encoder().eval()
    net(TOKENS)
    return nn.lora(net, pattern, rank=2)


def test_the_projections_of_attention():
    plain = encoder().eval()
    before, names = plain(TOKENS), list(plain.state_dict())
    net = nn.lora(plain, r".*self_attn", rank=2)
    np.testing.assert_array_equal(net(TOKENS), before)
    assert trainable(net) == [f"layers.{i}.self_attn.lora_{x}" for i in (0, 1) for x in "AB"]
    assert net.layers[0].self_attn.lora_A.shape == (2, 8) and net.layers[0].self_attn.lora_B.shape == (24, 2)
    after = trained(net)(TOKENS)
    assert (after != before).any()
    np.testing.assert_allclose(bw.compile(net)(TOKENS), after, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(nn.merge_lora(net)(TOKENS), after, rtol=1e-4, atol=1e-5)
    assert list(net.state_dict()) == names and type(net.layers[0].self_attn) is nn.MultiheadAttention


def test_attention_with_its_adapter_written_out():
    attention = nn.MultiheadAttention(2, batch_first=True)
    net = nn.Sequential(attention)
    net[0](TOKENS, TOKENS, TOKENS)
    adapted = trained(nn.lora(net, "0", rank=2))[0]
    change = adapted.lora_B.value @ adapted.lora_A.value
    found, weights = adapted(TOKENS, TOKENS + 1, TOKENS - 1, average_attn_weights=False)
    attention.in_proj_weight.value += change
    expected, expected_weights = attention(TOKENS, TOKENS + 1, TOKENS - 1, average_attn_weights=False)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(weights, expected_weights, rtol=1e-4, atol=1e-5)


def test_attention_is_trained():
    net = attending(r".*(self_attn|out_proj)")
    assert len(trainable(net)) == 8
    opt = optim.adam(net, 0.02)

    @bw.compile
    def step(x):
        loss, grads = bw.value_and_grad(lambda x: ((net(x) - 1) ** 2).mean(), net)(x)
        opt.step(grads)
        return loss

    losses = [float(step(TOKENS)) for _ in range(20)]
    assert losses[-1] < losses[0]
    assert all((np.asarray(p) != 0).any() for p in net.parameters(r".*lora_B"))


def test_attention_in_a_repeat_and_in_files(tmp_path):
    make = lambda: nn.Repeat(lambda: nn.TransformerEncoderLayer(2, dim_feedforward=16, batch_first=True), 2)
    net = make().eval()
    before = net(TOKENS)
    nn.lora(net, r".*self_attn", rank=2)
    np.testing.assert_allclose(net(TOKENS), before, rtol=1e-5, atol=1e-6)
    trained(net).save(tmp_path / "adapted")
    again = nn.lora(make(), r".*self_attn", rank=2).eval()
    assert not again.load(tmp_path / "adapted")
    np.testing.assert_allclose(again(TOKENS), net(TOKENS), rtol=1e-6)


def test_attention_without_adapters():
    separate = nn.Sequential(nn.MultiheadAttention(2, kdim=4))
    assert nn.lora(separate, r".*", rank=2) is separate  # its output projection has one
    assert trainable(separate) == ["0.out_proj.lora_A", "0.out_proj.lora_B"]
    message = (
        r"LoRA: dropout=0\.1 is not for MultiheadAttention, whose weight is changed before it is used\. Leave it "
        r"out, or adapt attention layers apart from the others, with a pattern of their own\."
    )
    net = encoder()
    with pytest.raises(ValueError, match=message):
        nn.lora(net, r".*self_attn", rank=2, dropout=0.1)
    assert type(net.layers[0].self_attn) is nn.MultiheadAttention and all(p.trainable for p in net.parameters())
