"""Generated bad input over every file format and every option: never a traceback, a hang or an accepted lie.

`pytest -m faults --faults 10000` makes so many; the usual run makes few.
"""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from rodiu_jax.cli import cli
from tests.fuzzing.formats import CASES, SELDOM, Folder
from tests.fuzzing.options import CALLS, command_line
from tests.fuzzing.valid import make

pytestmark = pytest.mark.faults


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    path = tmp_path_factory.mktemp("fuzzing")
    return Folder(path, make(path))


@pytest.mark.parametrize("name", CASES)
def test_files(name: str, here: Folder, faults: int):
    _try_many(CASES[name], here, faults, faults // (2 * len(CASES) * SELDOM.get(name, 1)))


@pytest.mark.slow
def test_options(here: Folder, faults: int, monkeypatch: pytest.MonkeyPatch):
    assert set(CALLS) == set(cli.commands)
    monkeypatch.chdir(here.path)
    _try_many(command_line, here, faults, faults // 2)


def _try_many(case: Callable[[Any, Folder], None], here: Folder, faults: int, share: int) -> None:
    @settings(max_examples=max(share, 2), deadline=None, suppress_health_check=list(HealthCheck), database=None,
              phases=(Phase.generate, Phase.shrink), derandomize=faults < 1000, print_blob=True)  # fmt: skip
    @given(st.data())
    def try_one(data: Any) -> None:
        case(data.draw, here)

    try_one()
