"""Networks as programs in files: what they compute, what is refused, and what a file may do."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from jax import export as jax_export

import brickwork as bw
from brickwork import nn
from brickwork.errors import CheckpointError, DeferredShapeError, LoadError, MissingExtraError, ShapeMismatchError
from brickwork.io.export._exported import KEY, PROGRAM

X = jnp.linspace(-1, 1, 8).reshape(2, 4)
(B,) = jax_export.symbolic_shape("b")


class Pair(NamedTuple):
    first: object
    second: object


class Several(bw.Module):
    """Takes and gives nests."""

    def __init__(self):
        self.layer = nn.Linear(3, in_features=4)

    def forward(self, x, others, *more):
        y = self.layer(x)
        return {
            "sum": y + others["a"],
            "pair": Pair(y, (others["b"][0], None)),
            "list": [2 * m for m in more],
            "bias": self.layer.bias,
        }


def network():
    return nn.Sequential(nn.Linear(8), nn.BatchNorm1d(), nn.Dropout(0.5), jax.nn.relu, nn.Linear(2)).initialize(
        bw.spec(2, 4)
    )


@pytest.fixture
def path(tmp_path):
    return tmp_path / "net.safetensors"


def close(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-6), a, b)
    assert jax.tree.structure(a) == jax.tree.structure(b)


# -- what is computed ------------------------------------------------------------------------------


@pytest.mark.parametrize("parameters", ["inside", "beside"])
def test_the_same_as_the_network(path, parameters):
    net = network()
    net(X)
    net.eval()
    written = bw.export(net, bw.spec(2, 4), path=path, parameters=parameters)
    program = bw.load_exported(path)
    close(program(X), net(X))
    close(written(np.asarray(X)), net(X))
    assert repr(program) == (
        f"Exported((x: float32[2, 4]) -> float32[2, 2], parameters {parameters}, for cpu, cuda, tpu)"
    )
    assert program.platforms == ("cpu", "cuda", "tpu")
    assert program.versions == {"brickwork": bw.__version__, "jax": jax.__version__}
    assert "stablehlo" in program.stablehlo()
    names = set(safetensors.numpy.load_file(path))
    assert names == {PROGRAM} | (set(net.state_dict()) if parameters == "beside" else set())


def test_any_size_of_the_batch(path):
    net = network().eval()
    program = bw.export(net, bw.spec(B, 4), path=path)
    for n in (1, 2, 7):
        x = jax.random.normal(jax.random.key(n), (n, 4))
        close(program(x), net(x))
    assert "x: float32[b, 4]" in repr(program)


def test_nests_of_arrays(path):
    net = Several()
    others = {"a": jnp.ones(3), "b": [jnp.arange(2)]}
    program = bw.export(net, X, others, bw.spec(2, dtype=jnp.int32), path=path)
    more = jnp.arange(2, dtype=jnp.int32)
    y, z = program(X, others, more), net(X, others, more)
    assert list(y) == list(z)
    assert type(y["pair"]).__name__ == "Pair"
    assert y["pair"]._fields == ("first", "second")
    assert y["pair"].second[1] is None
    close(
        [*y["pair"].second[:1], y["pair"].first, y["list"], y["sum"]],
        [others["b"][0], z["pair"].first, z["list"], z["sum"]],
    )
    close(y["bias"], net.layer.bias.value)


def test_without_the_code(path):
    net = network().eval()
    bw.export(net, bw.spec(B, 4), path=path)
    code = (
        "import sys, numpy as np, brickwork as bw; "
        "print(bw.load_exported(sys.argv[1])(np.linspace(-1, 1, 8, dtype='float32').reshape(2, 4)).tolist())"
    )
    env = {"PYTHONPATH": os.pathsep.join(sys.path), "JAX_PLATFORMS": "cpu"}
    out = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, env=env)
    assert not out.returncode, out.stderr
    np.testing.assert_allclose(json.loads(out.stdout), net(X), rtol=1e-6, atol=1e-6)


def test_tied_stacked_quantised_and_wide_layers(path):
    net = nn.Sequential(nn.Linear(4), nn.Repeat(lambda: nn.Linear(4), 3), nn.Linear(4)).initialize(X)
    net[2].weight = net[0].weight
    nn.quantize(net, "2")
    net[0].to(jnp.bfloat16).to(jnp.float32)
    program = bw.export(net, bw.spec(B, 4), path=path)
    close(program(X), net(X))
    tied = nn.Sequential(nn.Linear(4, in_features=4), nn.Linear(4, in_features=4))
    tied[1].weight = tied[0].weight
    program = bw.export(tied, X, path=path)
    assert list(program.parameters) == ["0.weight", "0.bias", "1.bias"]
    close(program(X), tied(X))


def test_a_compiled_network(path):
    net = network().eval()
    close(bw.export(bw.compile(net), X, path=path)(X), net(X))


# -- other parameters ------------------------------------------------------------------------------


def test_parameters_can_be_replaced(path, tmp_path):
    net = nn.Sequential(nn.Linear(4), nn.Repeat(lambda: nn.Linear(4), 3), nn.Linear(4)).initialize(X)
    net[2].weight = net[0].weight
    program = bw.export(net, X, path=path)
    other = net.clone()
    for i, p in enumerate(other.parameters()):
        p.value = jax.random.normal(jax.random.key(i), p.shape)
    program.load(other.state_dict())
    close(program(X), other(X))
    program = bw.load_exported(path)
    other.save(tmp_path / "other")
    program.load(tmp_path / "other")
    close(program(X), other(X))
    program.load({"2.bias": jnp.zeros(4)}, strict=False)
    other[2].bias.value = jnp.zeros(4)
    close(program(X), other(X))
    program.load(path)
    close(program(X), net(X))
    program.load({name: np.asarray(v) for name, v in program.parameters.items()})
    alias = dict(net.state_dict())
    alias["2.weight"] = alias.pop("0.weight")
    program.load(alias)
    close(program(X), net(X))


def test_parameters_that_do_not_fit(path):
    net = network().eval()
    program = bw.export(net, X, path=path)
    state = net.state_dict()
    wrong = dict(state) | {"extra": jnp.ones(3), "0.weight": jnp.ones((3, 3))}
    del wrong["4.bias"]
    with pytest.raises(LoadError) as caught:
        program.load(wrong)
    assert str(caught.value) == (
        "the state does not fit the program:\n"
        "  missing (the program has it, the state does not):\n"
        "    4.bias\n"
        "  unexpected (the state has it, the program does not):\n"
        "    extra\n"
        "  mismatched:\n"
        "    0.weight: the program has (8, 4), the state (3, 3)"
    )
    close(program(X), net(X))
    inside = bw.export(net, X, path=path, parameters="inside")
    with pytest.raises(LoadError, match=r"has its parameters inside, as constants; export it with parameters='beside'"):
        inside.load(state)


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (
            network,
            r"the network writes 1.num_batches_tracked, 1.running_mean, 1.running_var and draws random numbers, "
            r"but an exported program has no state. It is in training mode: call net.eval\(\) first",
        ),
        (lambda: nn.Dropout(0.5), r"the network draws random numbers, .* call net.eval\(\) first"),
        (lambda: Counting().eval(), r"the network writes count, but .* no state. Let it take and return such state"),
    ],
)
def test_networks_with_state(path, make, match):
    with pytest.raises(ValueError, match=match):
        bw.export(make(), X, path=path)
    assert not path.exists()


class Counting(nn.Module):
    def __init__(self):
        self.count = nn.Buffer(jnp.zeros(()))

    def forward(self, x):
        self.count += 1
        return x * self.count


def test_dropout_that_does_nothing_in_training_mode(path):
    assert bw.export(nn.Sequential(nn.Linear(2, in_features=4), nn.Dropout(0.0)), X, path=path)(X).shape == (2, 2)


def test_arguments_of_export(path):
    net = network().eval()
    with pytest.raises(TypeError, match="export: net must be a module, got function"):
        bw.export(lambda x: x, X, path=path)
    with pytest.raises(ValueError, match="parameters must be 'inside' or 'beside', got 'none'"):
        bw.export(net, X, path=path, parameters="none")
    with pytest.raises(
        ValueError, match=r"platforms must be some of 'cpu', .*, got \('gpu',\); an NVIDIA GPU is 'cuda'"
    ):
        bw.export(net, X, path=path, platforms="gpu")
    with pytest.raises(ValueError, match="format must be one of 'stablehlo', 'onnx', got 'tflite'"):
        bw.export(net, X, path=path, format="tflite")
    with pytest.raises(
        TypeError, match=r"export: argument 0 is 3, of type int; an exported program takes and gives arrays"
    ):
        bw.export(net, 3, path=path)
    with pytest.raises(ShapeMismatchError, match="expects 4"):
        bw.export(net, bw.spec(2, 5), path=path)
    with pytest.raises(DeferredShapeError, match="weight"):
        bw.export(nn.Linear(3), X, path=path)
    with pytest.raises(CheckpointError, match=r"the directory .* does not exist"):
        bw.export(net, X, path=path / "x" / "y")
    assert not path.exists()


def test_results_that_are_no_arrays(path):
    class Odd(nn.Module):
        def forward(self, x):
            return x, "text"

    with pytest.raises(TypeError, match=r"export: the result\[1\] is 'text', of type str"):
        bw.export(Odd(), X, path=path)


def test_arguments_of_programs(path):
    program = bw.export(Pairwise(), bw.spec(B, 4), {"y": (bw.spec(B, 4), None)}, path=path)
    name = "the program of net.safetensors"
    y = {"y": (X, None)}
    close(program(X, y), 2 * X)
    for args, error, match in (
        ((X,), TypeError, rf"{name} takes 2 arguments \(x, nest\), got 1"),
        (
            (X[0], y),
            ShapeMismatchError,
            rf"{name}: x must be float32\[b, 4\], got float32\[4\], which has another number",
        ),
        ((X[:, 1:], y), ShapeMismatchError, r"x must be float32\[b, 4\], got float32\[2, 3\]: axis 1 has 3, not 4"),
        (
            (X[:1], y),
            ShapeMismatchError,
            rf"nest\['y'\]\[0\] must be .*: axis 0 has 2, not 1, which b is by axis 0 of {name}: x",
        ),
        (
            (X.astype(int), y),
            TypeError,
            r"x must be float32\[b, 4\], got int32\[2, 4\]; convert it with .astype\('float32'\)",
        ),
        ((X, X), TypeError, r"nest must be a dict with the keys \['y'\], got float32\[2, 4\]"),
        ((X, {"z": 1}), TypeError, r"nest must have the keys \['y'\], it has the keys \['z'\]"),
        ((X, {"y": (X,)}), TypeError, r"nest\['y'\] must have 2 items, it has 1 items"),
        ((X, {"y": (X, X)}), TypeError, r"nest\['y'\]\[1\] must be None, got float32\[2, 4\]"),
        (("x", y), TypeError, r"x must be an array float32\[b, 4\], got str 'x'"),
    ):
        with pytest.raises(error, match=match):
            program(*args)


class Pairwise(nn.Module):
    def forward(self, x, nest):
        return x + nest["y"][0]


def test_another_platform(path):
    program = bw.export(nn.Tanh(), X, path=path, platforms=["tpu"])
    with pytest.raises(
        ValueError, match=r"is for tpu, but its arrays are on a cpu device; export it again with platforms"
    ):
        program(X)


# -- what a file may do ----------------------------------------------------------------------------


def edit(path, change, program=None):
    """Change what a file says about its program; ``change`` may return another description."""
    tree, info = bw.load(path, with_metadata=True)
    about = json.loads(info.metadata[KEY])
    if program is not None:
        tree[PROGRAM] = np.frombuffer(program, np.uint8)
        about["sha256"] = hashlib.sha256(program).hexdigest()
    about = change(about) or about
    bw.save(path, tree, metadata={KEY: json.dumps(about)}, aliases=info.aliases)


@pytest.fixture
def exported(path):
    bw.export(network().eval(), bw.spec(B, 4), path=path)
    return path


@pytest.mark.parametrize(
    ("more", "match"),
    [
        ({"format": 2}, "it has format 2, and this brickwork reads 1; install a newer brickwork"),
        ({"format": None}, "does not say its format"),
        (
            {"calling_convention": 99},
            r"has the calling convention 99 of JAX .*, and JAX .* here knows up to \d+; install a",
        ),
        ({"calling_convention": 1}, "has the calling convention 1 of JAX .* no longer knows; export the network again"),
        ({"calling_convention": "9"}, "no proper 'calling_convention'"),
        ({"sha256": "0"}, "the bytes of the program are not those that were written; get the file again"),
        ({"inputs": []}, "contradicts itself"),
        ({"inputs": [{"shape": [2], "dtype": "float32"}]}, "what the program takes is not what its description says"),
        ({"outputs": {"shape": [2], "dtype": "float32"}}, "what the program gives is not what its description says"),
        ({"outputs": {"shape": [-2], "dtype": "float32"}}, "impossible shape"),
        ({"outputs": {"shape": [2], "dtype": "floot"}}, "unknown dtype 'floot'"),
        ({"outputs": {"call": 3}}, "describes no arrays"),
        ({"outputs": {"namedtuple": "class", "fields": [], "values": []}}, "malformed named tuple"),
        ({"names": ["gone"]}, "the tensor 'gone' is not in the file"),
        ({"names": 3}, "no proper 'names'"),
        ({"names": []}, "what the program takes is not"),
        ({"platforms": [3]}, "no proper 'platforms'"),
        ({"parts": {"x": 1}}, "no proper 'parts'"),
        ({"parts": {"x": ["gone", [0]]}}, "no proper 'parts'"),
        ({"parameters": "elsewhere"}, "contradicts itself"),
    ],
)
def test_descriptions_that_are_wrong(exported, more, match):
    edit(exported, lambda about: about | more)
    with pytest.raises(CheckpointError, match=match) as caught:
        bw.load_exported(exported)
    assert str(exported) in str(caught.value)


def test_files_of_another_kind(path):
    network().save(path)
    with pytest.raises(CheckpointError, match=r"holds no program of bw.export; read its arrays with bw.load"):
        bw.load_exported(path)
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        bw.load_exported(path.with_suffix(".gone"))


def test_files_that_were_damaged(exported):
    """Whatever byte it is that changes, it is noticed, or it is one of a parameter or a label."""
    whole = exported.read_bytes()
    program = bw.load(exported)[PROGRAM].tobytes()
    start = whole.index(program)
    rng = np.random.default_rng(0)
    for at in (*rng.integers(start, start + len(program), 40), start, start + len(program) - 1):
        damaged = bytearray(whole)
        damaged[at] ^= int(rng.integers(1, 256))
        exported.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="the bytes of the program are not those that were written"):
            bw.load_exported(exported)
    for n in rng.integers(0, len(whole), 40):
        exported.write_bytes(whole[:n])
        with pytest.raises(CheckpointError):
            bw.load_exported(exported)


def test_programs_that_are_none(exported, capfd):
    program = bw.load(exported)[PROGRAM].tobytes()
    for wrong in (b"", b"x", bytes(1000), program[: len(program) // 2], program[:-40]):
        edit(exported, lambda about: None, wrong)
        with pytest.raises(CheckpointError, match=r"damaged program: JAX can't read it: "):
            bw.load_exported(exported)
    assert capfd.readouterr().err == ""


def test_programs_say_nothing_of_where_they_were_made(exported):
    program = bw.load(exported)[PROGRAM].tobytes()
    assert b".py" not in program
    assert os.getcwd().encode() not in program


def test_programs_that_leave_xla(path):
    bw.export(nn.Tanh(), X, path=path)
    call = jax.ffi.ffi_call("anything", jax.ShapeDtypeStruct((2, 4), jnp.float32))
    unchecked = [jax_export.DisabledSafetyCheck.custom_call("anything")]
    hostile = jax_export.export(jax.jit(lambda xs: [call(xs[0])]), platforms=["cpu"], disabled_checks=unchecked)([X])
    edit(path, lambda about: None, bytes(hostile.serialize()))
    with pytest.raises(CheckpointError, match="it calls code outside of XLA, anything, which a file may not do"):
        bw.load_exported(path)


def test_linear_algebra_is_no_code_outside(path):
    class Solve(nn.Module):
        def forward(self, x):
            return jnp.linalg.qr(x)[0], jnp.linalg.svd(x)[1]

    close(bw.export(Solve(), X, path=path, platforms=["cpu"])(X), Solve()(X))


# -- packages that may be missing --------------------------------------------------------------------


@pytest.mark.parametrize(("package", "more"), [("flatbuffers", {}), ("jax2onnx", {"format": "onnx"})])
def test_packages_that_are_missing(path, monkeypatch, package, more):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"{package}, which isn't installed: pip install 'brickwork\["):
        bw.export(network().eval(), X, path=path, **more)
    assert not path.exists()


class Attended(nn.Module):
    def __init__(self):
        self.body = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(2, dim_feedforward=16, batch_first=True), 2, nn.LayerNorm()
        )
        self.recurrent = nn.LSTM(4, batch_first=True)
        self.out = nn.Linear(3)

    def forward(self, x, scale):
        y, (h, _) = self.recurrent(self.body(x))
        return {"y": self.out(y[:, -1]) * scale, "h": h}


def convolutions():
    block = [nn.Conv2d(4, 3, padding=1, bias=False), nn.BatchNorm2d(), nn.ReLU()]
    return nn.Sequential(nn.Conv2d(4, 5, stride=2), nn.Residual(*block), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(2))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("make", "shapes"),
    [
        (network, [(4,)]),
        (convolutions, [(3, 16, 16)]),
        (Attended, [(5, 8), (3,)]),
        (lambda: nn.Repeat(lambda: nn.Sequential(nn.Linear(4), nn.Tanh()), 3), [(4,)]),
    ],
)
def test_onnx(tmp_path, make, shapes):
    pytest.importorskip("jax2onnx")
    runtime = pytest.importorskip("onnxruntime")
    net = make().initialize(*(bw.spec(2, *shape) for shape in shapes)).eval()
    path = tmp_path / "net.onnx"
    assert bw.export(net, *(bw.spec(B, *shape) for shape in shapes), path=path, format="onnx") is None
    session = runtime.InferenceSession(path)
    for n in (1, 3):
        xs = [jax.random.normal(jax.random.key(i), (n, *shape)) for i, shape in enumerate(shapes)]
        given = {i.name: np.asarray(x) for i, x in zip(session.get_inputs(), xs, strict=True)}
        expected = net(*xs)
        ys = session.run(None, given)
        expected = [expected["y"], expected["h"]] if isinstance(expected, dict) else [expected]
        for y, z in zip(ys, expected, strict=True):
            np.testing.assert_allclose(y, z, rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_what_onnx_cannot_do(tmp_path):
    pytest.importorskip("jax2onnx")
    pytest.importorskip("onnxruntime")
    path = tmp_path / "net.onnx"
    cumsum = jnp.cumsum
    volumes = nn.ConvTranspose3d(2, (1, 2, 2), in_channels=2, bias=False, dilation=2, padding=(0, 1, 0))
    with pytest.raises(ValueError, match=r"export: jax2onnx can't convert this network: .* Export it as StableHLO"):
        bw.export(volumes, bw.spec(2, 2, 1, 2, 3), path=path, format="onnx")
    quantised = nn.quantize(nn.Sequential(nn.Linear(2, in_features=4)))
    with pytest.raises(ValueError, match="export: ONNX Runtime can't run what jax2onnx made of this network: "):
        bw.export(quantised, X, path=path, format="onnx")
    assert not path.exists()
    assert jnp.cumsum is cumsum  # which jax2onnx replaces


def test_programs_inside_of_transforms(path):
    net = nn.Linear(4, in_features=3).eval()
    x = jnp.ones((5, 3))
    bw.export(net, bw.spec(5, 3), path=path)
    program = bw.load_exported(path)
    for run in (bw.compile(program), bw.compile(lambda x: program(x)), jax.jit(program)):
        np.testing.assert_allclose(run(x), net(x), rtol=1e-6)
    with pytest.raises(
        TypeError, match=r"the program of .* is compiled as it is and can't be mapped over \(vmap\)\. Export"
    ):
        jax.vmap(program)(x[None])
    with pytest.raises(TypeError, match=r"can't be differentiated\. Load the network itself, or export the function"):
        bw.grad(lambda x: program(x).sum(), wrt=0)(x)
