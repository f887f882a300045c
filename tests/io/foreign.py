"""Files that other frameworks wrote, and what is in them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from brickwork.io._source import Contents, Reader, Source

FIXTURES = Path(__file__).parents[1] / "fixtures"
PWNED = Path("/tmp/pwned_by_pickle")  # what every malicious fixture would create


def read(reader: Reader, path: Path, verify: bool = False) -> Contents:
    with open(path, "rb") as file:
        return reader(Source.of(path.name, file, verify))


def source_of(data: bytes, what: str = "file", verify: bool = False) -> Source:
    return Source("x", np.frombuffer(data, np.uint8), what, verify)


def expected(framework: str, name: str) -> dict[str, np.ndarray]:
    """The arrays of ``weights_<name>.npz``; bits are given the dtype they stand for."""
    found = {}
    with np.load(FIXTURES / framework / f"weights_{name}.npz", allow_pickle=False) as file:
        for key, array in file.items():
            base, _, kind = key.partition("__")
            if kind == "bits_uint16" or name.endswith("_bits"):
                found[base] = array.view(ml_dtypes.bfloat16)
            elif kind == "bits_uint8":
                found[base] = array.view(getattr(ml_dtypes, base))
            elif not kind:
                found[key] = array
    return found


def arrays(tree: Any, path: str = "") -> Iterator[tuple[str, np.ndarray]]:
    """Every array in ``tree``, by its path."""
    if isinstance(tree, np.ndarray):
        yield path, tree
    elif isinstance(tree, (dict, list, tuple)):
        for key, item in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from arrays(item, f"{path}/{key}" if path else str(key))


def same(found: np.ndarray, wanted: np.ndarray) -> None:
    """The same dtype, shape and bits, and nobody can write to it."""
    assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape)
    assert found.tobytes() == wanted.tobytes()
    assert not found.flags.writeable and found.flags.aligned


def same_arrays(tree: Any, wanted: dict[str, np.ndarray]) -> None:
    found = dict(arrays(tree))
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        same(found[name], array)
