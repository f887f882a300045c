"""Writing is atomic, reading maps, and messages say which file and what to do."""

from __future__ import annotations

import errno
import gc
import os
import pathlib
import pickle
import re
import shutil
import stat
import subprocess
import sys
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from brickwork.errors import CheckpointError
from brickwork.io import _files, load, save

TREE = {"w": jnp.arange(6.0).reshape(2, 3), "step": 3}


def message_of(call, *arguments, error=CheckpointError):
    with pytest.raises(error) as caught:
        call(*arguments)
    return str(caught.value)


# --- atomic writing -------------------------------------------------------------------------------


def test_paths_of_every_kind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in ("a", pathlib.Path("b"), str(tmp_path / "c.safetensors"), "ü x"):
        save(path, TREE)
        assert load(path)["step"] == 3
    assert sorted(os.listdir()) == ["a", "b", "c.safetensors", "ü x"]


@pytest.mark.parametrize("where", ["os.fsync", "os.replace"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt()])
def test_failures_leave_the_old_file(tmp_path, monkeypatch, where, error):
    path = tmp_path / "x"
    save(path, {"old": 1})

    def fail(*args, **kw):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(where, fail)
        if isinstance(error, OSError):
            message = message_of(save, path, TREE)
            assert message == (f"cannot write {str(path)!r}: No space left; the file that was there is unchanged")
        else:
            with pytest.raises(KeyboardInterrupt):
                save(path, TREE)
    assert load(path) == {"old": 1}
    assert os.listdir(tmp_path) == ["x"]


def test_failures_while_writing_tensors(tmp_path, monkeypatch):
    path = tmp_path / "x"
    save(path, {"old": 1})

    def fail(value):
        raise ZeroDivisionError("device lost")

    with monkeypatch.context() as patch:
        patch.setattr("brickwork.io._structure._to_host", fail)
        message_of(save, path, TREE, error=ZeroDivisionError)
        message_of(save, tmp_path / "new", TREE, error=ZeroDivisionError)
    assert load(path) == {"old": 1}
    assert os.listdir(tmp_path) == ["x"]


def test_the_error_number_is_kept(tmp_path, monkeypatch):
    def fail(*args, **kw):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError) as caught:
        save(tmp_path / "x", TREE)
    assert caught.value.errno == errno.ENOSPC


def test_killed_while_writing(tmp_path):
    path = tmp_path / "x"
    save(path, {"old": 1})
    program = (
        "import os, signal, sys\n"
        "import numpy as np\n"
        "from brickwork.io import save\n"
        "os.fsync = lambda fd: os.kill(os.getpid(), signal.SIGKILL)\n"
        "save(sys.argv[1], {'x': np.ones(100_000)})\n"
    )
    source = os.path.dirname(os.path.dirname(os.path.dirname(_files.__file__)))
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)],
        env={**os.environ, "PYTHONPATH": source},
        check=False,
    )
    assert done.returncode == -9
    assert load(path) == {"old": 1}


def test_data_reach_the_disk_before_the_name(tmp_path, monkeypatch):
    calls = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, _real=real, _name=name: (calls.append(_name), _real(*a))[1])
    save(tmp_path / "x", TREE)
    assert calls == ["fsync", "replace", "fsync"]


def test_permissions(tmp_path):
    old = os.umask(0o027)
    try:
        save(tmp_path / "new", TREE)
        assert stat.S_IMODE(os.stat(tmp_path / "new").st_mode) == 0o640
        os.chmod(tmp_path / "new", 0o604)
        save(tmp_path / "new", TREE)
        assert stat.S_IMODE(os.stat(tmp_path / "new").st_mode) == 0o604
    finally:
        os.umask(old)


def test_links_stay_links(tmp_path):
    (tmp_path / "real").mkdir()
    save(tmp_path / "real" / "x", {"old": 1})
    (tmp_path / "link").symlink_to(tmp_path / "real" / "x")
    save(tmp_path / "link", {"new": 2})
    assert (tmp_path / "link").is_symlink()
    assert load(tmp_path / "real" / "x") == {"new": 2}


def test_long_names(tmp_path):
    path = tmp_path / ("x" * 250)
    save(path, TREE)
    assert load(path)["step"] == 3


def test_places_that_cannot_be_written(tmp_path, monkeypatch):
    folder = tmp_path / "missing"
    assert message_of(save, folder / "x", TREE, error=FileNotFoundError) == (
        f"cannot write {str(folder / 'x')!r}: the directory {str(folder)!r} does not exist; create "
        "it with os.makedirs first"
    )
    assert message_of(save, tmp_path, TREE, error=IsADirectoryError) == (
        f"cannot write {str(tmp_path)!r}: it is a directory; give the name of a file in it"
    )
    os.mkfifo(tmp_path / "pipe")
    assert message_of(save, tmp_path / "pipe", TREE) == (
        f"cannot write {str(tmp_path / 'pipe')!r}: it is not a regular file"
    )
    assert message_of(load, tmp_path / "pipe2").startswith("cannot load ")

    def deny(*args, **kw):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("os.open", deny)
    monkeypatch.chdir(tmp_path)
    message = message_of(save, "x", TREE, error=PermissionError)
    assert message == f"cannot write 'x' ({tmp_path / 'x'}): Permission denied"


@pytest.mark.parametrize(
    ("call", "usage"), [(lambda path: save(path, TREE), "save(path, tree)"), (load, "load(path)")], ids=["save", "load"]
)
@pytest.mark.parametrize("path", [TREE, 3, None])
def test_what_is_no_path(call, usage, path):
    message = f"path must be a string or a pathlib.Path, got {type(path).__name__}; the path comes first: {usage}"
    assert message_of(call, path, error=TypeError) == message


# --- metadata and aliases -------------------------------------------------------------------------


def test_metadata(tmp_path):
    save(tmp_path / "x", TREE, metadata={"author": "é", "a": ""})
    _, info = load(tmp_path / "x", with_metadata=True)
    assert info.metadata == {"author": "é", "a": ""}
    assert (info.kind, info.aliases) == ("brickwork", {})


@pytest.mark.parametrize(
    ("metadata", "error", "message"),
    [
        ({"a": 1}, TypeError, "metadata takes strings only, got 'a': 1"),
        ({1: "a"}, TypeError, "metadata takes strings only, got 1: 'a'"),
        ({"a": "\ud800"}, ValueError, "metadata 'a' is not valid Unicode text: "),
        (
            {"brickwork": ""},
            ValueError,
            "metadata may not have the key 'brickwork', which brickwork itself uses",
        ),
    ],
)
def test_wrong_metadata(tmp_path, metadata, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}"):
        save(tmp_path / "x", TREE, metadata=metadata)


def test_aliases(tmp_path):
    w, b = jnp.ones((2, 2)), jnp.ones(2)
    save(tmp_path / "x", {"a.w": w, "b": b}, aliases={"c.w": "a.w"})
    tree, info = load(tmp_path / "x", with_metadata=True)
    assert list(tree) == ["a.w", "b"]
    assert info.aliases == {"c.w": "a.w"}
    save(tmp_path / "x", {"a.w": w, "b": b, "c.w": w}, aliases={"c.w": "a.w", "d": "c.w"})
    tree, info = load(tmp_path / "x", with_metadata=True)
    assert tree["a.w"] is tree["c.w"]
    assert info.aliases == {"c.w": "a.w", "d": "a.w"}
    save(tmp_path / "x", {"a": w, "b": w})
    assert load(tmp_path / "x", with_metadata=True)[1].aliases == {"b": "a"}


@pytest.mark.parametrize(
    ("tree", "aliases", "error", "message"),
    [
        ([1], {"a": "b"}, TypeError, "aliases go with a flat dict of names and arrays only"),
        ({"x": 1}, {"a": "b"}, TypeError, "aliases go with a flat dict of names and arrays only"),
        (
            {"x": jnp.ones(1)},
            {"a": "b"},
            ValueError,
            "aliases: 'a' stands for 'b', which is not in the tree",
        ),
        (
            {"x": jnp.ones(1), "y": jnp.ones(1)},
            {"x": "y"},
            ValueError,
            "aliases: 'x' and 'y' are both in the tree and differ",
        ),
    ],
)
def test_wrong_aliases(tmp_path, tree, aliases, error, message):
    assert message_of(lambda: save(tmp_path / "x", tree, aliases=aliases), error=error) == message


# --- reading --------------------------------------------------------------------------------------


def mapped_files():
    """The lines of the kernel's table of mapped files."""
    maps = pathlib.Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("only Linux lists what is mapped")
    return maps.read_text().splitlines()


def test_jax_uses_the_mapped_file(tmp_path):
    save(tmp_path / "x", {"w": jnp.ones((64, 64))})
    host = np.asarray(load(tmp_path / "x")["w"])
    mapped = [line for line in mapped_files() if str(tmp_path / "x") in line]
    start, stop = (int(n, 16) for n in mapped[0].split()[0].split("-"))
    assert start <= host.ctypes.data < stop
    assert not host.flags.writeable


def test_files_are_unmapped_when_nothing_uses_them(tmp_path):
    save(tmp_path / "x", {"w": jnp.ones((64, 64))})
    tree = load(tmp_path / "x")
    del tree
    gc.collect()  # JAX lets go of host memory at its next opportunity
    jax.block_until_ready(jnp.ones(3) + 1)
    assert not any(str(tmp_path / "x") in line for line in mapped_files())


def test_replacing_the_file_leaves_loaded_arrays(tmp_path):
    path = tmp_path / "x"
    save(path, {"w": jnp.full((64, 64), 1.0)})
    first = load(path)
    save(path, {"w": first["w"] + 1})
    second = load(path)
    save(path, second)  # from the mapped file onto itself
    os.unlink(path)
    assert (first["w"] == 1).all()
    assert (second["w"] == 2).all()


def test_donated_arrays_do_not_touch_the_file(tmp_path):
    save(tmp_path / "x", {"w": jnp.ones((64, 64))})
    update = jax.jit(lambda x: x.at[0].set(5), donate_argnums=0)
    assert float(update(load(tmp_path / "x")["w"])[0, 0]) == 5
    assert (load(tmp_path / "x")["w"] == 1).all()


def test_numpy_arrays_do_not_touch_the_file(tmp_path):
    save(tmp_path / "x", {"w": np.ones(64)})
    load(tmp_path / "x")["w"][:] = 5
    assert (load(tmp_path / "x")["w"] == 1).all()


def test_loading_inside_of_a_trace(tmp_path):
    save(tmp_path / "x", TREE)
    seen = []

    @jax.jit
    def f(x):
        seen.append(load(tmp_path / "x"))
        return x

    f(1.0)
    np.testing.assert_array_equal(np.asarray(seen[0]["w"]), TREE["w"])


def test_file_systems_that_cannot_map(tmp_path, monkeypatch):
    save(tmp_path / "x", TREE)

    def fail(*args, **kw):
        raise OSError(errno.ENODEV, "No such device")

    monkeypatch.setattr("mmap.mmap", fail)
    np.testing.assert_array_equal(load(tmp_path / "x")["w"], TREE["w"])


def test_missing_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save("mlp.safetensors", TREE)
    assert message_of(load, "mpl.safetensors", error=FileNotFoundError) == (
        f"cannot load 'mpl.safetensors' ({tmp_path / 'mpl.safetensors'}): there is no such file; "
        "did you mean 'mlp.safetensors'?"
    )
    assert message_of(load, "mlp").endswith("no such file; did you mean 'mlp.safetensors'?")
    assert message_of(load, "other").endswith(": there is no such file")
    assert message_of(load, "no/x").endswith(f"the directory {str(tmp_path / 'no')!r} does not exist")
    assert message_of(load, "~/no/x").endswith("; ~ is not expanded, use os.path.expanduser")
    with pytest.raises(FileNotFoundError) as caught:
        load("other")
    assert caught.value.errno == errno.ENOENT


def test_directories(tmp_path):
    folder = str(tmp_path)
    empty = f"cannot load {folder!r}: it is a directory without a checkpoint in it"
    (tmp_path / "notes.txt").write_text("nothing")
    assert message_of(load, folder, error=IsADirectoryError) == empty
    save(tmp_path / "a", TREE)
    assert load(folder).keys() == TREE.keys()
    save(tmp_path / "b", TREE)
    several = f"cannot load {folder!r}: it is a directory of several checkpoints; name one: 'a', 'b'"
    assert message_of(load, folder, error=IsADirectoryError) == several


def test_unreadable_files(tmp_path, monkeypatch):
    save(tmp_path / "x", TREE)

    def deny(*args, **kw):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("builtins.open", deny)
    with pytest.raises(PermissionError) as caught:
        load(tmp_path / "x")
    monkeypatch.undo()
    assert str(caught.value) == f"cannot load {str(tmp_path / 'x')!r}: Permission denied"
    assert isinstance(caught.value, CheckpointError)


# --- other kinds of files -------------------------------------------------------------------------


def archive(path, *names):
    with zipfile.ZipFile(path, "w") as made:
        for name in names:
            made.writestr(name, b"x")


KINDS = [
    (b"", "it is empty"),
    (b"abc", "it has 3 bytes, too few for any checkpoint"),
    (b"GGUF" + bytes(20), "this looks like a GGUF file (llama.cpp)"),
    (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:",
        "this looks like a Git LFS pointer, a placeholder for the file itself; run `git lfs pull` where it was cloned",
    ),
    (b"<!DOCTYPE html><html>", "this looks like a web page"),
    (b"\x1f\x8b\x08" + bytes(20), "this looks like a gzip archive"),
    (bytes(257) + b"ustar" + bytes(20), "this looks like a tar archive"),
    (
        b"just some text",
        "it is of no known format; it begins with b'just some text'. Known are safetensors and what PyTorch, MXNet, "
        "PaddlePaddle, Keras, TensorFlow (checkpoints) and NumPy write",
    ),
]


@pytest.mark.parametrize(("data", "message"), KINDS, ids=lambda x: str(x)[:30])
def test_kinds_by_their_first_bytes(tmp_path, data, message):
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    assert message_of(load, path).startswith(f"cannot load {str(path)!r}: {message}")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x93NUMPY\x01\x00v\x00rest", "damaged NumPy file, at byte 10: the header should take 118 bytes, but 4 are"),
        (b"\x89HDF\r\n\x1a\n" + bytes(20), "cannot load this HDF5 file: its addresses are not of 8 bytes"),
        (b"\x12\x01" + bytes(20), "damaged MXNet parameter file, at byte 16: the number of arrays should take 8 bytes"),
        (
            b"PK\x03\x04" + bytes(20),
            "damaged zip archive, at byte 24: the directory that ends a zip archive is missing",
        ),
        (pickle.dumps(print, 2), "cannot load this PaddlePaddle file: at byte 2 it asks for `__builtin__ print`"),
    ],
    ids=lambda x: str(x)[:30],
)
def test_beginnings_of_other_formats(tmp_path, data, message):
    (tmp_path / "x").write_bytes(data)
    assert message_of(load, tmp_path / "x").startswith(f"{tmp_path / 'x'}: {message}")


def test_archives_of_something_else(tmp_path):
    archive(tmp_path / "x", "readme.txt")
    assert "this looks like a zip archive; unpack it, and load what is inside" in message_of(load, tmp_path / "x")


FIXTURES = pathlib.Path(__file__).parents[1] / "fixtures"


@pytest.mark.parametrize(
    ("file", "kind", "name"),
    [
        ("torch/mlp.params", "torch", "hidden.weight"),
        ("torch/mlp_legacy.params", "torch", "hidden.weight"),
        ("torch/mlp.safetensors", "safetensors", "hidden.weight"),
        ("mxnet/mlp.params", "mxnet", "hidden.weight"),
        ("mxnet2/mlp.params", "numpy", "hidden.weight"),
        ("paddle/mlp.pdparams", "paddle", "hidden.weight"),
        ("keras/mlp.weights.h5", "keras", "layers/dense/vars/0"),
        ("keras/mlp.keras", "keras", "layers/dense/vars/0"),
        ("keras/mlp_tfckpt.index", "tensorflow", "model/_functional/_operations/1/_kernel/.ATTRIBUTES/VARIABLE_VALUE"),
    ],
)
def test_every_format_is_known_by_its_contents(tmp_path, file, kind, name):
    """Whatever the file is called."""
    source = FIXTURES / file
    target = tmp_path / ("x" if kind != "tensorflow" else "x.index")
    shutil.copy(source, target)
    if kind == "tensorflow":
        shutil.copy(FIXTURES / "keras" / "mlp_tfckpt.data-00000-of-00001", tmp_path / "x.data-00000-of-00001")
    tree, info = load(target, with_metadata=True)
    assert info.kind == kind
    assert isinstance(tree[name], jax.Array)
    (only,) = load(target, names=re.escape(name)).values()
    np.testing.assert_array_equal(only, tree[name])
