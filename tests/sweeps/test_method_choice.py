"""Method auto: the faster of exact and cascade by a small cost model, whose figures a machine keeps."""

import json
from dataclasses import replace

import numpy as np
import pytest

from rodiu_jax.catalog import load_catalog
from rodiu_jax.catalog.sampling import sample
from rodiu_jax.sweeps import METHODS, read_rows, sweep
from rodiu_jax.sweeps.manifest import read_manifest
from rodiu_jax.sweeps.method_choice import Pace, choose_method, find_pace, keep_pace, settle_method
from rodiu_jax.sweeps.store import read_spec
from tests.golden import numbers
from tests.oracles.instances import random_instances
from tests.oracles.serving import serving_instances
from tests.sweeps.small import fake, spec, toy


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """A folder where this machine keeps programs and paces."""
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "programs"))
    return tmp_path / "programs"


@pytest.fixture(scope="module")
def default():
    return sample("seed", n=1, seed=0)


def test_few_rows_are_solved_and_many_are_bracketed(default):
    chosen = [choose_method(default, rows, gap=0.01, workers=2).method for rows in (1, 120, 240, 5000, 10**6)]
    assert chosen == ["exact", "exact", "exact", "cascade", "cascade"]
    assert choose_method(default, 10**6, gap=1e-6, workers=2).method == "exact", "HiGHS closes them anyway"


def test_what_only_brackets_can_do_is_bracketed(default):
    found = choose_method(default, 1, gap=0.01, workers=2, needs_brackets="certificates")
    assert (found.method, found.reason) == ("cascade", "certificates needs brackets")
    large = random_instances(0, (2, 13, 12, 1))
    assert choose_method(large, 1, gap=0.01, workers=2).method == "cascade"
    assert choose_method(serving_instances(0, (2, 2, 2, 2)), 10**6, gap=0.01, workers=2).method == "exact"


def test_paces_are_kept_and_decide(default, kept):
    assert choose_method(default, 1000, gap=0.01, workers=2).method == "cascade"
    keep_pace("exact", default, 2, 0.01, first=(64, 2.0), whole=(1064, 3.0))
    assert find_pace("exact", default, 2, 0.01) == Pace(2.0 - 64 * 0.001, 0.001)
    assert choose_method(default, 1000, gap=0.01, workers=2).method == "exact"
    assert choose_method(default, 1000, gap=0.01, workers=3).method == "cascade", "kept of two workers"
    assert choose_method(default, 1000, gap=1e-4, workers=2).method == "exact"
    assert find_pace("exact", default, 2, 1e-4) != find_pace("exact", default, 2, 0.01), "kept of another gap"
    keep_pace(
        "exact", default, 2, 0.01, first=(64, 100.0), whole=(64, 100.0)
    )  # too few rows to tell what a row takes
    assert find_pace("exact", default, 2, 0.01) == Pace(100.0 - 64 * 0.001, 0.001)
    assert len(json.loads((kept / "paces.json").read_text())) == 1


def test_a_busy_machine_is_slow_with_the_other_method_too(default, kept):
    """120 rows by exact: 5.6 s estimated, 56 s taken; the cascade's 10.4 s will be some 104 s, not 10.4 s."""
    keep_pace("exact", default, 2, 0.01, first=(30, 20.0), whole=(90, 44.0))
    found = choose_method(default, 120, gap=0.01, workers=2)
    assert found.method == "exact"
    assert numbers(found.reason) == [120.0, 56.0, 1e2]


@pytest.mark.parametrize(
    "text", ["", "[]", '{"a": 1}', '{"a": {"start": -1, "row": 1}}', '{"a": {"start": "x"}}']
)
def test_a_damaged_file_of_paces_counts_as_none(default, kept, text):
    before = find_pace("cascade", default, 2, 0.01)
    kept.mkdir()
    (kept / "paces.json").write_text(text)
    assert find_pace("cascade", default, 2, 0.01) == before
    keep_pace("cascade", default, 2, 0.01, first=(10, 1.0), whole=(1010, 2.0))
    assert find_pace("cascade", default, 2, 0.01).row == pytest.approx(0.001)


def test_paces_of_another_mode_of_uncertainty_are_found(kept):
    keep_pace("exact", sample("seed", n=1, uncertainty="diu"), 2, 0.01, first=(64, 2.0), whole=(1064, 3.0))
    small = spec(method="auto", samples=1000, uncertainty="diu")
    found, _ = settle_method(small, load_catalog("seed"), 2)
    assert found.method == "exact"
    found, _ = settle_method(small.model_copy(update={"uncertainty": "ddu"}), load_catalog("seed"), 2)
    assert found.method == "cascade"


def test_nothing_is_kept_where_no_programs_are(default, monkeypatch, tmp_path):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.chdir(tmp_path)
    keep_pace("exact", default, 2, 0.01, first=(64, 2.0), whole=(1064, 3.0))
    assert not list(tmp_path.iterdir())


def test_a_sweep_says_what_was_chosen_and_goes_on_with_it(tmp_path, kept, monkeypatch):
    monkeypatch.setitem(METHODS, "exact", replace(METHODS["exact"], call=fake))
    monkeypatch.setitem(METHODS, "cascade", replace(toy(fake), name="cascade"))
    small = spec(method="auto")
    sweep(small, tmp_path / "out", quiet=True, workers=1)
    (run,) = read_manifest(tmp_path / "out").runs
    made = read_spec(tmp_path / "out")
    assert (run.method_chosen, made.method, made.gap) == ("exact", "exact", 0.01)
    assert "rows take about" in (run.method_reason or "")
    (pace,) = json.loads((kept / "paces.json").read_text()).values()
    assert set(pace) == {"start", "row"}
    # Brackets are faster from now on; what was begun goes on as it was.
    (kept / "paces.json").unlink()
    monkeypatch.setattr(
        "rodiu_jax.sweeps.method_choice._estimate_pace",
        lambda method, *_: Pace(float(method == "exact"), 0.0),
    )
    sweep(small, tmp_path / "out", quiet=True, workers=1, resume=True, samples=small.samples + 1)
    assert read_spec(tmp_path / "out").method == "exact"
    assert read_manifest(tmp_path / "out").runs[-1].method_reason == "the sweep was begun so"
    assert len(read_rows(tmp_path / "out")) == (small.samples + 1) * small.points
    sweep(small, tmp_path / "other", quiet=True, workers=1)
    assert read_spec(tmp_path / "other").method == "cascade"


def test_both_choices_hold_the_same_optima(default):
    """The method called by itself chooses for the scenarios that it is given."""
    few = sample("seed", n=2, seed=3)
    options = {"time_limit": np.inf, "workers": 1, "audited": np.zeros(2, bool), "exact": "gap", "plans": ()}
    parts = list(METHODS["auto"].load()(few, gap=0.01, certificates=False, **options))
    upper = np.concatenate([part.upper for part in parts])
    best = np.concatenate(
        [part.upper for part in METHODS["exact"].load()(few, gap=1e-6, certificates=False, **options)]
    )
    assert (upper >= best * (1 - 1e-9)).all()
    assert (upper <= best * 1.0101).all()
