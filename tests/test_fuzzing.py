"""Generated bad input over every file format and every option: never a traceback, a hang or an accepted lie.

`pytest -m faults --faults 10000` makes so many; the usual run makes few.
"""

from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.fuzzing.formats import CASES, SLOW, Folder
from tests.fuzzing.valid import make

pytestmark = pytest.mark.faults


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    path = tmp_path_factory.mktemp("fuzzing")
    return Folder(path, make(path))


@pytest.mark.parametrize("name", CASES)
def test_files(name: str, here: Folder, faults: int):
    share = faults // (10 * len(CASES) if name in SLOW else len(CASES))

    @settings(max_examples=max(share, 2), deadline=None, suppress_health_check=list(HealthCheck), database=None,
              phases=(Phase.generate, Phase.shrink), derandomize=faults < 1000, print_blob=True)  # fmt: skip
    @given(st.data())
    def try_one(data: Any) -> None:
        CASES[name](data.draw, here)

    try_one()
