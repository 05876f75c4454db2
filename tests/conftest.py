"""Strict settings for every test: JAX's promotions raise, shapes and types are checked at run time."""

import getpass
import importlib
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import jax
import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

from tests.cli.calls import Ran, Run
from tests.golden import Golden

# beartype checks a random item of a container. It draws from a generator of its own here: every run checks the same
# items, and the global generator, which hypothesis watches, stays as it is.
with mock.patch("random.getrandbits", random.Random(0).getrandbits):
    importlib.import_module("beartype")

os.environ.setdefault("JAX_ENABLE_COMPILATION_CACHE", "false")  # commands that tests start keep nothing

# What one test process has compiled the others need not compile again: that is most of what the tests wait for.
_PROGRAMS = Path(tempfile.gettempdir()) / f"rodiu-tests-{getpass.getuser()}"
jax.config.update("jax_enable_compilation_cache", True)  # workers inherit the environment's false
jax.config.update("jax_compilation_cache_dir", str(_PROGRAMS))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.05)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")

# Before these are imported; nothing above imports them. `plan_json` is pydantic's, which checks its own types.
_MODEL = sorted(p.stem for p in (Path(__file__).parents[1] / "rodiu_jax" / "model").glob("[!_]*.py"))
_CHECKED = (
    "rodiu_jax.analysis",
    "rodiu_jax.io.number_text",
    "rodiu_jax.report.data",
    "rodiu_jax.report.text",
    *(f"rodiu_jax.model.{name}" for name in _MODEL if name != "plan_json"),
    "rodiu_jax.runtime",
    "rodiu_jax.io.files",
    "rodiu_jax.certificates",
    "rodiu_jax.catalog.draw_program",
    "rodiu_jax.catalog.sampling",
    "rodiu_jax.decisions.stress.linear_forms",
    "rodiu_jax.decisions.diagnose.linear_programs",
    "rodiu_jax.decisions.diagnose.threshold",
    "rodiu_jax.decisions.fleet",
    "rodiu_jax.decisions.pair_load",
    "rodiu_jax.decisions.rate_robustness",
    "rodiu_jax.decisions.plan_folder",
    "rodiu_jax.decisions.replay.replay",  # not its event loop, which would take ten times as long
    "rodiu_jax.decisions.replay.tally",
    "rodiu_jax.decisions.replay.traffic",
    "rodiu_jax.export",
    *(f"rodiu_jax.decisions.planning.{name}" for name in ("traffic", "even_routing", "day", "schedule")),
    "solvers",
)
install_import_hook(list(_CHECKED), "beartype.beartype")


@pytest.fixture
def rodiu(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Calls the entry point of the command line in this process."""
    from rodiu_jax.cli import main

    def run(*args: object) -> Ran:
        monkeypatch.setattr(sys, "argv", ["rodiu", *map(str, args)])
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = 0 if stop.code is None else int(stop.code)
        return Ran(code, *capsys.readouterr())

    return run


@pytest.fixture(scope="session", autouse=True)
def _sweep_in_this_process() -> Iterator[None]:
    """Sweeps start no workers that a test does not ask for, on machines with many cores too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rodiu_jax.sweeps.engines.local._CORES_EACH", 10**6)
        yield


settings.register_profile("repeatable", derandomize=True, deadline=None, max_examples=60)
settings.load_profile("repeatable")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--faults", type=int, default=100, metavar="N", help="Generated bad inputs (tests marked faults)."
    )
    parser.addoption("--as-shipped", action="store_true", help="Programs compiled as users have them.")
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="Write the words in tests/golden anew instead of comparing.",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Let XLA compile sooner, to slower programs: compiling is most of what the tests wait for.

    The long lane computes more, and gets programs that are as fast as those of users.
    """
    if hasattr(config, "workerinput") or "XLA_FLAGS" in os.environ or config.getoption("--as-shipped"):
        return
    level = f"--xla_backend_optimization_level={int(config.option.markexpr == 'slow')}"
    sooner = f"{level} --xla_cpu_use_fusion_emitters=false"
    os.environ["XLA_FLAGS"] = sooner if _is_known(sooner) else level


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip tests of shipped programs where programs are not."""
    if not config.getoption("--as-shipped"):
        for item in items:
            if item.get_closest_marker("shipped"):
                item.add_marker(pytest.mark.skip(reason="of programs as they ship: --as-shipped"))


def _is_known(flags: str) -> bool:
    """Return whether this jaxlib knows the flags: it ends the process that has any other."""
    told = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    tried = subprocess.run([sys.executable, "-c", "import jax; jax.devices()"], env=told, capture_output=True)
    return tried.returncode == 0


@pytest.fixture(scope="session")
def golden(request: pytest.FixtureRequest) -> Golden:
    """Compares text with its file in ``tests/golden``."""
    return Golden(update=bool(request.config.getoption("--update-golden")))


@pytest.fixture(scope="session")
def faults(request: pytest.FixtureRequest) -> int:
    """How many bad inputs to generate in all."""
    return int(request.config.getoption("--faults"))
