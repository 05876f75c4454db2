"""A random kill of a sweep, as `python -m bench.kills` does by the hundred, and what would be found."""

import sys

import pytest

from bench.kills import kill_and_resume, list_differences, write_arguments
from rodiu_jax.sweeps import sweep

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="kills process groups")


@pytest.mark.slow
def test_a_killed_sweep_is_resumed_to_the_same_table(tmp_path):
    tally = kill_and_resume(write_arguments(tmp_path, "evaluate", 30), tmp_path, kills=1, seed=1)
    assert (tally.kills, tally.wrong) == (1, [])


def test_differences_are_found(tmp_path):
    plans = write_arguments(tmp_path, "evaluate", 1)[-1]
    whole, other = tmp_path / "whole", tmp_path / "other"
    options = {"method": "evaluate", "catalog": "corrected", "samples": 1, "plans": plans, "quiet": True}
    sweep("cost-budget", whole, **options)
    sweep("cost-budget", other, seed=1, **options)
    assert list_differences(whole, whole) == []
    (other / "scenarios" / ".part-1").touch()
    (other / "more").touch()
    found = list_differences(whole, other)
    assert found[0].startswith("rows: ")
    assert found[1:] == ["files: {'more'}", "left over: .part-1"]
