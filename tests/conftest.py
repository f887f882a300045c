"""What every test runs under.

Eight virtual CPU devices, strict dtype promotion, no compile cache but one that the processes of a
run share and that ends with it, the same seed at the start of each test, and a time limit.
Environment variables are set before anything imports JAX, which reads them once.
"""

from __future__ import annotations

import importlib.metadata
import os
import signal
import tempfile
import threading
from collections.abc import Iterator
from types import FrameType

_DEVICES = 8
_TIME_LIMIT = 120.0  # seconds; @pytest.mark.timeout(n) sets another one

os.environ.setdefault("JAX_PLATFORMS", "cpu")
_flags = os.environ.get("XLA_FLAGS", "")
if os.environ.get("BRICKWORK_TESTS_CODEGEN") == "quick":
    # The same programs after the same optimisations of XLA, translated to machine code in a third of the time.
    _flags += " --xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
    if importlib.metadata.version("jaxlib").startswith("0.10."):  # later ones have no other way
        _flags += " --xla_cpu_use_fusion_emitters=false"
if "xla_force_host_platform_device_count" not in _flags:
    os.environ["XLA_FLAGS"] = f"{_flags} --xla_force_host_platform_device_count={_DEVICES}".strip()
os.environ["BRICKWORK_CACHE"] = "off"  # a test of the cache turns it on for itself
if "PYTEST_XDIST_WORKER" not in os.environ:
    _cache = tempfile.TemporaryDirectory(prefix="brickwork-tests-")  # removed at exit
    os.environ["BRICKWORK_TESTS_CACHE"] = _cache.name
os.environ.setdefault("MPLBACKEND", "Agg")

import jax  # noqa: E402
import pytest  # noqa: E402

from brickwork.core._jax import use_compilation_cache  # noqa: E402

jax.config.update("jax_numpy_dtype_promotion", "strict")
# By the configuration and not the environment, which processes that tests start would take over.
use_compilation_cache(os.environ["BRICKWORK_TESTS_CACHE"])


@pytest.fixture(autouse=True)
def _seed() -> None:
    """Every test starts from seed 0, whichever tests ran before it."""
    import brickwork as bw

    bw.seed(0)


@pytest.fixture(autouse=True)
def _leak_check(request: pytest.FixtureRequest) -> Iterator[None]:
    """Turn on JAX's tracer leak check for tests marked ``leaks``.

    The check switches JAX's trace caches off, so it is too slow to have it everywhere.
    """
    if request.node.get_closest_marker("leaks") is None:
        yield
        return
    with jax.checking_leaks():
        yield


@pytest.fixture(autouse=True)
def _time_limit(request: pytest.FixtureRequest) -> Iterator[None]:
    """Raise in a test that runs longer than its limit, where signals allow it.

    Native code that never returns can't be interrupted this way; pytest's ``faulthandler_timeout``
    ends the process then.
    """
    marker = request.node.get_closest_marker("timeout")
    seconds = float(marker.args[0]) if marker is not None else _TIME_LIMIT
    usable = hasattr(signal, "SIGALRM") and threading.current_thread() is threading.main_thread()
    if not usable:
        yield
        return

    def expire(signum: int, frame: FrameType | None) -> None:
        pytest.fail(f"still running after its time limit of {seconds:g} s", pytrace=True)

    previous = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, previous)


@pytest.fixture
def devices() -> list[jax.Device]:
    """The eight virtual CPU devices."""
    found = jax.devices("cpu")
    if len(found) < _DEVICES:
        pytest.skip(f"needs {_DEVICES} CPU devices, found {len(found)}")
    return found
