"""Sweeps: specs and their faults, the grid of scenarios, and a store that survives every kind of end."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rodiu_jax.catalog import load_catalog
from rodiu_jax.changes import apply_changes, parse_change
from rodiu_jax.check import check_plan
from rodiu_jax.errors import InputError, WorkFailed
from rodiu_jax.files import write_text
from rodiu_jax.instance import FIELD_SPECS
from rodiu_jax.plan import Deployment, Plan, Route, plan_from_json
from rodiu_jax.sampling import sample
from rodiu_jax.sweeps import METHODS, load_spec, local, preset_names, read_rows, sweep
from rodiu_jax.sweeps import progress as progress_module
from rodiu_jax.sweeps.estimate import estimate
from rodiu_jax.sweeps.progress import progress
from rodiu_jax.sweeps.run import scenarios
from rodiu_jax.sweeps.spec import SweepSpec, make_spec
from rodiu_jax.sweeps.verification import verify_sweep
from solvers.pool import usable_cores
from solvers.result import Result

COSTS = ("rental_cost", "storage_cost", "delay_cost", "unmet_cost")


def answer(fields, b: int) -> Result:
    """A result worked out from the scenario, so that rows tell which scenario they belong to."""
    costs = {
        "rental_cost": float(np.sum(fields.gpu_price)),
        "storage_cost": float(fields.storage_price),
        "delay_cost": float(np.sum(fields.delay_penalty)),
        "unmet_cost": float(fields.budget) / 1000.0,
    }
    total = sum(costs.values())
    plan = Plan(
        b,
        (Deployment("Llama-3.2-1B", "H100_FP16", 2), Deployment("Llama-3.2-3B", "A6000_INT8", 1)),
        (Route("Code_Gen", "Llama-3.2-1B", "H100_FP16", 1.0),),
        {"Summarization": 1.0, "Video_Gen": 0.5},
    )
    return Result(b, "gap_limit", total, 0.99 * total, {"total_cost": total, **costs}, plan, 0.25)


def fake(instances, **_):
    """Answers at once; one scenario in seven has no plan."""
    for b in range(instances.size):
        fields = instances.one(b)
        if int(fields.storage_price * 1e7) % 7 == 0:
            yield Result(b, "time_limit", bound=1.0, seconds=1.0)
        else:
            yield answer(fields, b)


class Stopping:
    """The fake method, ended by ``error`` after ``count`` answers in all."""

    def __init__(self, count: int, error: BaseException) -> None:
        self.left, self.error, self.closed = count, error, 0

    def __call__(self, instances, **options):
        try:
            for result in fake(instances, **options):
                if self.left == 0:
                    raise self.error
                self.left -= 1
                yield result
        finally:
            self.closed += 1


@pytest.fixture(autouse=True)
def _fake_method(monkeypatch):
    monkeypatch.setitem(METHODS, "fake", fake)


def spec(**changes) -> SweepSpec:
    values = {
        "name": "small",
        "title": "A small sweep",
        "method": "fake",
        "samples": 3,
        "factors": [
            {"field": "gpu_price", "names": "H100_*", "scale": [0.5, 1.0, 2.0]},
            {"field": "budget", "value": [100.0, 2000.0]},
        ],
    }
    return make_spec(values | changes)


def plan_json(*, model="Llama-3.2-3B", tp=8, share=0.9) -> dict:
    """One pair for all but a tenth of the traffic."""
    names = sample("seed", n=1).query_names
    return {
        "instance": 5,
        "deployments": [{"model": model, "gpu": "H100_FP16", "tp": tp}],
        "routes": [{"query": q, "model": model, "gpu": "H100_FP16", "share": share} for q in names],
        "unmet": dict.fromkeys(names, 1.0 - share),
    }


def run(out, a_spec=None, **options) -> pd.DataFrame:
    return sweep(a_spec or spec(), out, quiet=True, **options)


def parts(out) -> list[str]:
    return sorted(p.name for p in (out / "scenarios").iterdir())


# ---- specs -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "factors"),  # MODEL section 8, in hundredths
    [
        ("cost-budget", {"gpu_price": range(40, 66, 5), "budget": range(30, 51, 5)}),
        ("delay-error", {"delay_threshold": range(1, 10, 2), "error_threshold": range(40, 141, 10)}),
        ("gpu-cost-error", {"gpu_price": range(50, 151, 10), "error_threshold": range(40, 141, 10)}),
        ("memory-error", {"gpu_memory": range(60, 201, 20), "error_threshold": range(60, 201, 20)}),
    ],
)
def test_presets_are_those_of_the_model(name, factors):
    preset = load_spec(name)
    assert preset.name == name
    assert preset.question.endswith("?")
    assert (preset.catalog, preset.uncertainty, preset.method) == ("seed", "ddu", "cascade")
    assert preset.columns == tuple(factors)
    for factor, hundredths in zip(preset.factors, factors.values(), strict=True):
        assert factor.names is None
        assert factor.scale == tuple(h / 100 for h in hundredths)


def test_preset_names():
    assert preset_names() == ["cost-budget", "delay-error", "gpu-cost-error", "memory-error"]


def test_points_are_row_major_and_the_text_reads_back(tmp_path):
    a_spec = spec(
        set=["budget*=2", 'delay_threshold[Code_Gen]=7"'[:-1]], time_limit=3, question='"Why"\t\\ ü?'
    )
    assert (a_spec.shape, a_spec.points, a_spec.rows) == ((3, 2), 6, 18)
    prices, budgets = a_spec.levels_at(np.arange(6))
    assert prices.tolist() == [0.5, 0.5, 1.0, 1.0, 2.0, 2.0]
    assert budgets.tolist() == [100.0, 2000.0] * 3
    path = tmp_path / "mine.toml"
    path.write_text(a_spec.to_toml(), encoding="utf-8")
    assert load_spec(path) == a_spec


def test_a_catalogue_path_is_relative_to_the_spec(tmp_path):
    (tmp_path / "mine.toml").write_text('[catalog]\nname = "mine"\nextends = "seed"\n')
    text = spec(catalog="mine.toml").to_toml()
    (tmp_path / "sweep.toml").write_text(text)
    rows = sweep(tmp_path / "sweep.toml", tmp_path / "out", quiet=True)
    assert len(rows) == 18


def test_columns_name_the_pattern_where_two_factors_share_a_field():
    both = spec(factors=[{"field": "gpu_price", "names": n, "scale": [1, 2]} for n in ("H100_*", "A100_*")])
    assert both.columns == ("gpu_price[H100_*]", "gpu_price[A100_*]")


GOOD = {"field": "budget", "scale": [1.0]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"factors": []}, r"factors: got \[\], expected at least one"),
        (
            {"factors": [{"field": "budget", "scale": []}]},
            r"factors\[0\]\.scale: got \[\], expected at least one",
        ),
        ({"factors": None}, r"factors: got None, expected a valid (list|tuple)"),
        ({"factors": [{"scale": [1.0]}]}, r"factors\[0\]\.field: expected this key, which is missing"),
        ({"factors": [{"field": "budgte", "scale": [1]}]}, r"factors\[0\]\.field: .*did you mean budget\?"),
        ({"factors": [{"field": "budget"}]}, r"factors\[0\]: .*exactly one of scale, shift and value"),
        ({"factors": [GOOD | {"value": [1]}]}, r"factors\[0\]: .*exactly one of scale"),
        (
            {"factors": [GOOD, {"field": "budget", "scale": ["2"]}]},
            r"factors\[1\]\.scale\[0\]: got '2', expected a",
        ),
        ({"factors": [{"field": "budget", "scale": [True]}]}, r"factors\[0\]\.scale\[0\]: got True"),
        ({"factors": [{"field": "budget", "scale": [1, math.nan]}]}, r"factors\[0\]\.scale\[1\]: .*finite"),
        (
            {"factors": [{"field": "budget", "scale": [1, -0.5]}]},
            r"factors\[0\]\.scale\[1\]: got -0.5, expected multipliers >= 0",
        ),
        (
            {"factors": [{"field": "rental_hours", "scale": [0]}]},
            r"factors\[0\]\.scale\[0\]: got 0.0, expected multipliers > 0",
        ),
        (
            {"factors": [{"field": "unmet_cap", "value": [0.5, 1.5]}]},
            r"factors\[0\]\.value\[1\]: got 1.5, .*<= 1 \(fraction\)",
        ),
        (
            {"factors": [{"field": "max_routes", "value": [1.5]}]},
            r"factors\[0\]\.value\[0\]: got 1.5, expected whole numbers",
        ),
        ({"factors": [{"field": "budget", "scale": [1, 2, 1]}]}, r"factors\[0\]\.scale: .*distinct levels"),
        (
            {"factors": [GOOD | {"nmes": "H100"}]},
            r"factors\[0\]: got 'nmes', .*field, names.*did you mean names\?",
        ),
        ({"smaples": 3}, r"got 'smaples', expected only the keys.*did you mean samples\?"),
        ({"changes": ["budget=3"]}, r"got 'changes', expected only the keys .*set"),
        ({"samples": "4"}, r"samples: got '4', expected a valid integer"),
        ({"samples": 0}, r"samples: got 0, expected greater than or equal to 1"),
        ({"seed": -1}, r"seed: got -1"),
        ({"gap": 2}, r"gap: got 2"),
        ({"name": ""}, r"name: got ''"),
        ({"uncertainty": "dud"}, r"uncertainty: got 'dud', expected none or diu or ddu"),
        ({"method": "guess"}, r"method: got 'guess', expected one of cascade, bracket, exact"),
        ({"exact": "some"}, r"exact: got 'some', expected 'gap', 'top', 'all' or 'none'"),
        ({"audit": 1.5}, r"audit: got 1.5"),
        ({"exact": "top"}, r"top: expected how many rows to solve exactly"),
        ({"top": 3}, r"top: got 3, expected exact = top beside it"),
        ({"exact": "all", "by": "gap"}, r"by: got 'gap', expected exact = top beside it"),
        ({"exact": "top", "top": 3, "by": "totl_cost"}, r"by: .*did you mean total_cost\?"),
        ({"exact": "top", "top": 0}, r"top: got 0"),
        ({"method": "bracket", "audit": 0.1}, r"audit: got 0.1, expected no such key with method bracket"),
        ({"method": "exact", "exact": "all"}, r"exact: got 'all', expected no such key with method exact"),
        ({"method": "exact", "certificates": True}, r"certificates: expected method cascade or bracket"),
        ({"method": "evaluate"}, r"plans: expected a file of plans, which method evaluate needs"),
        ({"plans": ["{}"]}, r"plans: expected no such key with method fake"),
        ({"method": "evaluate", "plans": ["{}"], "audit": 0.1}, r"audit: got 0.1, expected no such key"),
        ({"set": ["budget"]}, r"set\[0\]: got 'budget', expected FIELD=VALUE"),
        ({"set": "budget=3"}, r"set: got 'budget=3'"),
    ],
)
def test_bad_specs(changes, message):
    with pytest.raises(InputError, match=f"^sweep: {message}") as caught:
        spec(**changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"factors": [GOOD | {"names": "H*"}]},
            r"factors\[0\]: names: got 'H\*', expected no names: budget is one",
        ),
        (
            {"factors": [{"field": "gpu_price", "names": "B200*", "scale": [1]}]},
            r"factors\[0\]: names: got 'B200\*', expected a pattern that fits a gpu among A6000_FP16",
        ),
        (
            {"factors": [GOOD, {"field": "budget", "value": [3]}]},
            r"factors\[1\]\.names: .*as factors\[0\] does",
        ),
        (
            {
                "factors": [
                    {"field": "gpu_price", "names": n, "scale": [1]} for n in ("H100*", "A100*", "*INT8")
                ]
            },
            r"factors\[2\]\.names: got '\*INT8', expected cells of gpu_price that no other",
        ),
        # Drawn up to 0.85: 1.2 would be too much for some samples only.
        (
            {"factors": [{"field": "delay_impact", "scale": [1.1, 1.2]}]},
            r"factors\[0\]\.scale\[1\]: got 1.2, .*<= 1",
        ),
        (
            {"factors": [{"field": "tp_degree", "value": [2]}]},
            r"factors\[0\]\.field: got 'tp_degree', expected another field: the degrees are the same",
        ),
        ({"set": ["unmet_cap*=2"]}, r"unmet_cap.*got 2.0"),
        (
            {"method": "evaluate", "plans": [json.dumps(plan_json(model="Llama-9"))]},
            r"^small: plans\[0\]\.deployments\[0\]\.model: got 'Llama-9', expected one of",
        ),
        ({"catalog": "seeed"}, r"catalog: got 'seeed', .*did you mean seed\?"),
    ],
)
def test_specs_that_do_not_fit_the_catalogue_leave_no_folder(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        run(tmp_path / "out", spec(**changes))
    assert not (tmp_path / "out").exists()


def test_unknown_presets_and_files(tmp_path):
    with pytest.raises(
        InputError, match=r"got 'cost-bugdet', expected a preset \(cost-budget.*mean cost-budget\?"
    ):
        load_spec("cost-bugdet")
    with pytest.raises(InputError, match=r"none\.toml: expected a readable file"):
        load_spec(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("name = ")
    with pytest.raises(InputError, match=r"bad\.toml: expected TOML"):
        load_spec(tmp_path / "bad.toml")
    (tmp_path / "wrong.toml").write_text(spec().to_toml().replace("samples = 3", 'samples = "3"'))
    with pytest.raises(InputError, match=r"wrong\.toml: samples: got '3'"):
        load_spec(str(tmp_path / "wrong.toml"))


def test_options_replace_the_specs_keys(tmp_path):
    rows = run(
        tmp_path,
        samples=2,
        seed=5,
        gap=0.1,
        uncertainty="diu",
        changes=["storage_price=0.5"],
        catalog="corrected",
    )
    kept = load_spec(tmp_path / "spec.toml")
    assert (kept.samples, kept.seed, kept.gap, kept.uncertainty) == (2, 5, 0.1, "diu")
    assert (kept.catalog, kept.changes) == ("corrected", ("storage_price=0.5",))
    assert len(rows) == 12
    assert (rows["storage_cost"].dropna() == 0.5).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 0}, "--samples: got 0"),
        ({"seed": -3}, "--seed: got -3"),
        ({"gap": 1.5}, "--gap: got 1.5"),
        ({"time_limit": 0}, "--time-limit: got 0"),
        ({"changes": ["budget=much"]}, "--set: budget: got 'much'"),
        ({"method": "guess"}, "small: method: got 'guess'"),
    ],
)
def test_bad_options_are_named(tmp_path, options, message):
    with pytest.raises(InputError, match=re.escape(message)):
        run(tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


# ---- scenarios and rows ----------------------------------------------------------------------------------


def test_scenarios_are_the_samples_changed_as_the_point_says():
    """Row by row against one sample with `apply_changes`: common random numbers and the grid in one."""
    a_spec = spec(
        set=["delay_penalty*=3"],
        seed=4,
        factors=[
            {"field": "gpu_price", "names": "H100_*", "scale": [0.5, 2.0]},
            {"field": "gpu_price", "names": "A100_*", "value": [1.0, 9.0]},
            {"field": "max_routes", "value": [0, 2]},
            {"field": "delay_nominal", "names": "*INT8", "scale": [1.0, 1.5]},
        ],
    )
    drawn = sample("seed", n=3, seed=4)
    batch = scenarios(a_spec, load_catalog("seed"), 10, 37)
    assert batch.size == 27
    for b in (0, 5, 6, 17, 26):
        s, point = divmod(10 + b, a_spec.points)
        changes = [parse_change("delay_penalty*=3")]
        for factor, (level,) in zip(a_spec.factors, a_spec.levels_at(np.array([point])), strict=True):
            changes.append(factor.change(float(level)))
        expected = apply_changes(drawn.take([s]), changes).one(0)
        for name in FIELD_SPECS:
            found = getattr(batch.one(b), name)
            np.testing.assert_array_equal(found, getattr(expected, name), err_msg=name)
            assert found.dtype == getattr(expected, name).dtype


def test_rows(tmp_path):
    rows = run(tmp_path)
    assert rows["sample"].tolist() == np.repeat(range(3), 6).tolist()
    assert rows["point"].tolist() == list(range(6)) * 3
    assert rows["gpu_price"].tolist() == [0.5, 0.5, 1.0, 1.0, 2.0, 2.0] * 3
    assert rows["budget"].tolist() == [100.0, 2000.0] * 9
    assert (rows["method"] == "exact").all()
    drawn = sample("seed", n=3)
    for r, row in rows.iterrows():
        fields = drawn.one(int(row["sample"]))
        if row["status"] == "time_limit":
            missing = [
                "upper_bound",
                "gap",
                "total_cost",
                *COSTS,
                "unmet_share",
                "gpus_rented",
                "pairs_deployed",
            ]
            assert row[missing].isna().all()
            assert row["lower_bound"] == 1.0
            continue
        assert row["storage_cost"] == fields.storage_price
        assert row["unmet_cost"] == row["budget"] / 1000
        assert row["total_cost"] == row["upper_bound"] == pytest.approx(sum(row[c] for c in COSTS))
        assert row["gap"] == pytest.approx(0.01)
        assert (row["gpus_rented"], row["pairs_deployed"]) == (3, 2)
        assert row["deployments"] == "Llama-3.2-1B@H100_FP16 x2; Llama-3.2-3B@A6000_INT8 x1"
        rate = dict(zip(drawn.query_names, fields.arrival_rate, strict=True))
        unmet = rate["Summarization"] + 0.5 * rate["Video_Gen"]
        assert row["unmet_share"] == pytest.approx(unmet / sum(rate.values())), r


def test_an_error_is_a_row_with_missing_numbers(tmp_path, monkeypatch):
    def failing(instances, **_):
        return iter([Result(b, "error", message=f"no {b}") for b in range(instances.size)])

    monkeypatch.setitem(METHODS, "fake", failing)
    rows = run(tmp_path)
    assert rows["status"].tolist() == ["error"] * 18
    assert rows["message"].tolist() == [f"no {b}" for b in range(18)]
    numbers = ["lower_bound", "upper_bound", "gap", "total_cost", "gpus_rented", "unmet_share", "seconds"]
    assert rows[numbers].isna().all(axis=None)


def test_an_infeasible_scenario_has_no_infinite_numbers(tmp_path, monkeypatch):
    def infeasible(instances, **_):
        return iter([Result(b, "infeasible", bound=math.inf) for b in range(instances.size)])

    monkeypatch.setitem(METHODS, "fake", infeasible)
    assert run(tmp_path)[["lower_bound", "upper_bound", "gap"]].isna().all(axis=None)


def test_given_plans_are_evaluated_in_every_scenario(tmp_path):
    """Against the checker, scenario by scenario: the cheapest plan that it accepts, or nothing."""
    plans = [
        plan_json(tp=1),
        plan_json(model="Llama-3.1-8B", tp=2),
        plan_json(model="Llama-3.1-70B", share=0.5),
    ]
    (tmp_path / "mine.json").write_text(json.dumps(plans))
    a_spec = spec(
        method="evaluate",
        plans=str(tmp_path / "mine.json"),
        catalog="corrected",
        samples=8,
        factors=[
            {"field": "error_threshold", "scale": [0.1, 0.3, 1.0]},
            {"field": "budget", "value": [5.0, 400.0]},
        ],
    )
    rows = run(tmp_path / "out", a_spec)
    batch = scenarios(a_spec, load_catalog("corrected"), 0, 48)
    named = [plan_from_json(p | {"instance": None}, batch) for p in plans]
    texts = read_rows(tmp_path / "out", plans=True)["plan"]
    seen = set()
    for b, row in rows.iterrows():
        verdicts = [check_plan(plan, batch, int(b)) for plan in named]
        fit = [p for p, verdict in enumerate(verdicts) if verdict.feasible]
        assert row["method"] == "evaluate"
        assert np.isnan(row["lower_bound"])
        if not fit:
            assert row["status"] == "unknown"
            assert row["message"] == f"no plan fits; the first breaks {verdicts[0].binding}"
            assert (
                row[["upper_bound", "gap", "total_cost", *COSTS, "gpus_rented", "unmet_share"]].isna().all()
            )
            assert pd.isna(texts[b])
            seen.add(None)
            continue
        best = min(fit, key=lambda p: verdicts[p].costs["total_cost"])
        seen.add(best)
        assert row["status"] == "feasible"
        assert row["upper_bound"] == pytest.approx(verdicts[best].costs["total_cost"], rel=1e-12)
        for name, cost in verdicts[best].costs.items():
            assert row[name] == pytest.approx(cost, rel=1e-12, abs=1e-12)
        assert row["gpus_rented"] == plans[best]["deployments"][0]["tp"]
        assert row["unmet_share"] == pytest.approx(next(iter(plans[best]["unmet"].values())))
        assert json.loads(texts[b])["routes"] == plans[best]["routes"]
    assert seen == {0, 1, 2, None}, "every plan is the best somewhere, and somewhere none is"
    assert sum(len(v) for v in verify_sweep(tmp_path / "out")) == 48
    assert all(v["ok"].all() for v in verify_sweep(tmp_path / "out"))
    (tmp_path / "mine.json").unlink()  # the spec in the folder holds them
    part = next((tmp_path / "out" / "scenarios").glob("part-*"))
    part.unlink()
    again = sweep(tmp_path / "out" / "spec.toml", tmp_path / "out", resume=True, quiet=True)
    pd.testing.assert_frame_equal(again.drop(columns="seconds"), rows.drop(columns="seconds"))


def test_plans_of_a_spec_are_found_beside_it(tmp_path):
    (tmp_path / "mine.json").write_text(json.dumps([plan_json()]))
    head = 'name = "n"\ntitle = "t"\nmethod = "evaluate"\nplans = "mine.json"\n'
    (tmp_path / "sweep.toml").write_text(head + '[[factors]]\nfield = "budget"\nscale = [1]\n')
    (plan,) = load_spec(tmp_path / "sweep.toml").plan_texts
    assert json.loads(plan) == plan_json()
    for wrong, message in (("[]", "at least one plan"), ("{", "JSON"), ("3", "a list")):
        (tmp_path / "mine.json").write_text(wrong)
        with pytest.raises(InputError, match=rf"mine\.json: .*{message}"):
            load_spec(tmp_path / "sweep.toml")


def test_options_reach_the_method(tmp_path, monkeypatch):
    seen = []
    audits = []

    def watching(instances, *, audited, workers, **options):
        audits.append(audited)
        seen.append(options | {"workers": workers.workers})
        return fake(instances)

    monkeypatch.setitem(METHODS, "fake", watching)
    run(tmp_path / "a", gap=0.02, time_limit=7.0, workers=3)
    run(tmp_path / "b")
    run(tmp_path / "c", exact="all", audit=0.0)
    run(tmp_path / "d", audit=0.5)
    wide = {"exact": "gap", "certificates": False, "plans": ()}
    assert seen == [
        {"gap": 0.02, "time_limit": 7.0, "workers": 3, **wide},
        {"gap": 1e-6, "time_limit": math.inf, "workers": usable_cores(), **wide},
        {"gap": 1e-6, "time_limit": math.inf, "workers": usable_cores(), **wide, "exact": "all"},
        {"gap": 1e-6, "time_limit": math.inf, "workers": usable_cores(), **wide},
    ]
    assert [a.sum() for a in audits] == [1, 1, 0, 9], "a small sweep audits one scenario"
    assert load_spec(tmp_path / "d" / "spec.toml").audit == 0.5


@pytest.mark.parametrize("share", [0.0, 0.001, 0.03, 0.3, 0.5, 0.7, 1.0])
def test_audits_are_a_choice_that_more_samples_only_add_to(share):
    small, large = (spec(audit=share, samples=n, seed=3) for n in (5, 500))
    whole = large.audited(0, 3000)
    np.testing.assert_array_equal(small.audited(0, 30), whole[:30])
    pieces = [large.audited(a, min(a + 71, 3000)) for a in range(0, 3000, 71)]
    np.testing.assert_array_equal(np.concatenate(pieces), whole)
    assert abs(whole.sum() - share * 3000) <= 1
    assert small.audited(0, 6).any() == (share > 0), "one of the first sample, which every sweep has"
    assert share in (0.0, 1.0) or (whole != spec(audit=share, samples=500, seed=4).audited(0, 3000)).any()


@pytest.mark.parametrize("chunk", [1, 4, 6, 7, 17])
def test_rows_do_not_depend_on_the_chunk(tmp_path, chunk):
    whole = run(tmp_path / "whole")
    pd.testing.assert_frame_equal(run(tmp_path / "chunks", chunk=chunk), whole)
    assert len(parts(tmp_path / "chunks")) == math.ceil(18 / chunk)
    again = read_rows(tmp_path / "chunks", plans=True)
    pd.testing.assert_frame_equal(again, read_rows(tmp_path / "whole", plans=True))


def test_first_samples_of_a_longer_sweep_are_the_same(tmp_path):
    short, long = run(tmp_path / "short", samples=2), run(tmp_path / "long", samples=5)
    pd.testing.assert_frame_equal(long.iloc[:12], short)


def test_anyone_reads_the_folder_with_pandas(tmp_path):
    rows = run(tmp_path, chunk=5)
    (tmp_path / "scenarios" / ".part-000000000000-5.parquet.x1.parquet").write_bytes(b"half")
    read = pd.read_parquet(tmp_path / "scenarios")
    assert read["plan"].notna().sum() == rows["total_cost"].notna().sum()
    pd.testing.assert_frame_equal(read[rows.columns], rows)


def test_rows_wait_no_longer_than_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(local, "FLUSH_SECONDS", -1.0)
    run(tmp_path)
    assert parts(tmp_path) == [f"part-{r:012d}-1.parquet" for r in range(18)]


# ---- resuming --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", [0, 1, 5, 6, 13, 17])
@pytest.mark.parametrize("chunk", [4, 100])
def test_an_interrupted_sweep_keeps_its_rows_and_goes_on(tmp_path, monkeypatch, stop, chunk):
    whole = run(tmp_path / "whole")
    method = Stopping(stop, KeyboardInterrupt())
    monkeypatch.setitem(METHODS, "fake", method)
    with pytest.raises(
        WorkFailed, match=f"^interrupted: {stop} of 18 rows are kept in .*scenarios.*--resume"
    ):
        run(tmp_path / "cut", chunk=chunk)
    assert method.closed == stop // chunk + 1
    pd.testing.assert_frame_equal(read_rows(tmp_path / "cut"), whole.iloc[:stop], check_dtype=False)
    counting = Stopping(18 - stop, AssertionError("did more than was missing"))
    monkeypatch.setitem(METHODS, "fake", counting)
    pd.testing.assert_frame_equal(run(tmp_path / "cut", chunk=chunk, resume=True), whole)
    assert counting.left == 0


def test_resuming_a_finished_sweep_does_nothing(tmp_path, monkeypatch):
    whole = run(tmp_path)
    monkeypatch.setitem(METHODS, "fake", Stopping(0, AssertionError("nothing to do")))
    pd.testing.assert_frame_equal(run(tmp_path, resume=True), whole)


def test_resuming_nothing_starts(tmp_path):
    assert len(run(tmp_path / "new" / "folder", resume=True)) == 18


def test_a_method_that_breaks_keeps_the_rows_before(tmp_path, monkeypatch):
    monkeypatch.setitem(METHODS, "fake", Stopping(8, ZeroDivisionError("bug")))
    with pytest.raises(ZeroDivisionError):
        run(tmp_path)
    assert len(read_rows(tmp_path)) == 8


@pytest.mark.parametrize("wrong", ["short", "order"])
def test_a_method_that_miscounts_is_found_out(tmp_path, monkeypatch, wrong):
    def method(instances, **options):
        answers = list(fake(instances, **options))
        return iter(answers[:-1] if wrong == "short" else answers[::-1])

    monkeypatch.setitem(METHODS, "fake", method)
    message = "answered 17 of 18 scenarios" if wrong == "short" else "answered scenario 17 in place of 0"
    with pytest.raises(WorkFailed, match=message):
        run(tmp_path)


def damage(path: Path, how: str) -> None:
    data = path.read_bytes()
    if how == "truncated":
        path.write_bytes(data[: len(data) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "flipped":  # inside the first page: only its checksum can tell
        path.write_bytes(data[:40] + bytes([data[40] ^ 0x10]) + data[41:])
    elif how == "other rows":
        path.write_bytes((path.parent / "part-000000000000-4.parquet").read_bytes())
    else:
        path.rename(path.with_name("part-000000000002-4.parquet"))


@pytest.mark.parametrize("how", ["truncated", "empty", "flipped", "other rows", "overlap"])
def test_a_damaged_part_is_named_and_done_again(tmp_path, capsys, how):
    whole = run(tmp_path, chunk=4)
    victim = tmp_path / "scenarios" / "part-000000000004-4.parquet"
    damage(victim, how)
    named = sorted(set(parts(tmp_path)) & {victim.name, "part-000000000002-4.parquet"})[0]
    if how in ("truncated", "empty", "flipped"):
        with pytest.raises(InputError, match=rf"{named}: .*--resume"):
            read_rows(tmp_path)
    rows = sweep(spec(), tmp_path, resume=True)
    pd.testing.assert_frame_equal(rows, whole)
    assert re.search(rf"{named}: .*done again", capsys.readouterr().err.replace("\n", ""))


def test_leftovers_of_a_killed_run_are_removed(tmp_path):
    run(tmp_path)
    leftovers = [
        tmp_path / "scenarios" / ".part-000000000000-18.parquet.abcdef_1.parquet",
        tmp_path / ".manifest.json.abcdef_1.json",
    ]
    for leftover in leftovers:
        leftover.write_bytes(b"half")
    run(tmp_path, resume=True)
    assert not any(leftover.exists() for leftover in leftovers)


def test_an_existing_sweep_is_never_overwritten(tmp_path):
    run(tmp_path)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.*")}
    for again in (spec(), spec(samples=9)):
        with pytest.raises(InputError, match=r"spec\.toml: expected a folder without a sweep, or --resume"):
            run(tmp_path, again)
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.*")} == before


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"samples": 2}, "samples: got 2, expected 3, or more, as in the sweep to resume"),
        ({"seed": 1}, "seed: got 1, expected 0"),
        ({"gap": 0.5}, "gap: got 0.5"),
        ({"time_limit": 1.0}, "time_limit: got 1.0, expected None"),
        ({"uncertainty": "none"}, "uncertainty: got 'none', expected 'ddu'"),
        ({"method": "exact"}, "method: got 'exact'"),
        ({"changes": ["budget=3"]}, "set: got"),
        ({"catalog": "corrected"}, "catalog_sha256: got"),
    ],
)
def test_another_sweep_is_not_resumed(tmp_path, options, key):
    run(tmp_path)
    with pytest.raises(InputError, match=re.escape(key)):
        run(tmp_path, resume=True, **options)
    with pytest.raises(InputError, match="factors: got"):
        run(tmp_path, spec(factors=[GOOD]), resume=True)
    assert len(run(tmp_path, spec(title="Other words"), resume=True)) == 18


def test_more_samples_go_on_with_the_same_sweep(tmp_path):
    for audit in (None, 0.3):
        out = tmp_path / str(audit)
        run(out / "grown", audit=audit, samples=2)
        before = {p.name: p.stat().st_mtime_ns for p in (out / "grown" / "scenarios").iterdir()}
        grown = run(out / "grown", audit=audit, samples=5, resume=True)
        pd.testing.assert_frame_equal(grown, run(out / "whole", audit=audit, samples=5))
        after = {p.name: p.stat().st_mtime_ns for p in (out / "grown" / "scenarios").iterdir()}
        assert before.items() <= after.items()
        assert load_spec(out / "grown" / "spec.toml").samples == 5


def test_more_samples_would_change_who_is_on_top(tmp_path):
    top = spec(exact="top", top=2)
    write_text(tmp_path / "spec.toml", top.to_toml())
    with pytest.raises(InputError, match="samples: got 9, expected 3 as in the sweep to resume"):
        run(tmp_path, top, samples=9, resume=True)


def test_rows_without_their_spec_are_not_resumed(tmp_path):
    run(tmp_path)
    (tmp_path / "spec.toml").unlink()
    with pytest.raises(InputError, match=r"spec\.toml: expected this file"):
        run(tmp_path, resume=True)


def test_a_stranger_among_the_parts_is_named(tmp_path):
    run(tmp_path)
    (tmp_path / "scenarios" / "part-mine.parquet").write_bytes(b"")
    with pytest.raises(InputError, match=r"part-mine\.parquet"):
        run(tmp_path, resume=True)


def test_a_part_without_a_column_is_named(tmp_path):
    run(tmp_path)
    (name,) = parts(tmp_path)
    path = tmp_path / "scenarios" / name
    pd.read_parquet(path).drop(columns="gap").to_parquet(path, index=False)
    with pytest.raises(InputError, match=rf"{name}: expected a part of this sweep; .*no column gap"):
        read_rows(tmp_path)


def test_other_words_in_the_catalogue_and_a_manifest_without_runs_still_resume(tmp_path):
    catalog = tmp_path / "mine.toml"
    text = '[catalog]\nname = "mine"\nextends = "seed"\n[quantity.budget]\nnote = "{}"\n{}'
    catalog.write_text(text.format("before", ""))
    out = tmp_path / "out"
    first = run(out, catalog=str(catalog))
    catalog.write_text(text.format("after", ""))
    (out / "manifest.json").write_text(
        json.dumps({"catalog_sha256": json.loads((out / "manifest.json").read_text())["catalog_sha256"]})
    )
    pd.testing.assert_frame_equal(run(out, catalog=str(catalog), resume=True), first)
    assert len(json.loads((out / "manifest.json").read_text())["runs"]) == 1
    catalog.write_text(text.format("after", "each = 1\n"))
    with pytest.raises(InputError, match="catalog_sha256"):
        run(out, catalog=str(catalog), resume=True)


def test_a_name_with_the_delete_character_reads_back(tmp_path):
    run(tmp_path, spec(name="a\x7fb", set=["budget*=1"]))
    assert load_spec(tmp_path / "spec.toml").name == "a\x7fb"


def test_two_writers_are_refused(tmp_path, monkeypatch):
    def nested(instances, **options):
        with pytest.raises(InputError, match="no other sweep is writing now"):
            run(tmp_path, resume=True)
        return fake(instances, **options)

    monkeypatch.setitem(METHODS, "fake", nested)
    assert len(run(tmp_path)) == 18


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_folder_that_cannot_be_made(tmp_path, place):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match=r"file.*a folder that can be written"):
        run(tmp_path / place)


def test_a_full_disk_keeps_the_finished_parts(tmp_path, monkeypatch):
    from rodiu_jax.sweeps import store

    real, calls = store.pq.write_table, []

    def full(*args, **options):
        calls.append(args)
        if len(calls) > 2:
            raise OSError(28, "No space left on device")
        return real(*args, **options)

    monkeypatch.setattr(store.pq, "write_table", full)
    with pytest.raises(WorkFailed, match="No space left on device; 8 of 18 rows are kept"):
        run(tmp_path, chunk=4)
    assert parts(tmp_path) == ["part-000000000000-4.parquet", "part-000000000004-4.parquet"]


def test_the_manifest_says_how_it_was_made(tmp_path, monkeypatch):

    import jax

    monkeypatch.setitem(METHODS, "fake", Stopping(3, KeyboardInterrupt()))
    with pytest.raises(WorkFailed):
        run(tmp_path)
    monkeypatch.setitem(METHODS, "fake", fake)
    run(tmp_path, resume=True)
    made = json.loads((tmp_path / "manifest.json").read_text())
    assert made["catalog"] == "seed"
    assert re.fullmatch("[0-9a-f]{64}", made["catalog_sha256"])
    assert len(made["runs"]) == 2
    for each in made["runs"]:
        assert each["versions"]["jax"] == jax.__version__
        assert each["devices"] == sorted({d.device_kind for d in jax.devices()})
        assert each["started"].endswith("+00:00")


KILLED = """
import sys, time
sys.path.insert(0, {root!r})
from tests.test_sweeps import METHODS, fake, spec
from rodiu_jax.sweeps import local, sweep

def slow(instances, **options):
    for result in fake(instances, **options):
        time.sleep(0.05)
        yield result

METHODS["fake"] = slow
local.FLUSH_SECONDS = 0.2
sweep(spec(samples=40), {out!r}, chunk=50, quiet=True)
"""


def test_a_killed_sweep_is_resumed_to_the_same_table(tmp_path):
    out = tmp_path / "killed"
    root = str(Path(__file__).parent.parent)
    child = subprocess.Popen([sys.executable, "-c", KILLED.format(root=root, out=str(out))])
    deadline = time.monotonic() + 60
    while (
        len(list(out.glob("scenarios/part-*"))) < 2 and child.poll() is None and time.monotonic() < deadline
    ):
        time.sleep(0.02)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    kept = read_rows(out)
    assert 0 < len(kept) < 240
    resumed = run(out, spec(samples=40), resume=True)
    whole = run(tmp_path / "whole", spec(samples=40))
    pd.testing.assert_frame_equal(resumed, whole)
    pd.testing.assert_frame_equal(kept, whole.iloc[: len(kept)], check_dtype=False)


# ---- progress and the real thing -------------------------------------------------------------------------


def test_progress_is_quiet_where_nobody_watches(tmp_path, capsys):
    sweep(spec(), tmp_path)
    sweep(spec(), tmp_path, resume=True, quiet=True)
    assert capsys.readouterr() == ("", "")


def test_events_are_lines_of_json(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(progress_module, "_EVENT_SECONDS", 0.0)
    log, out = tmp_path / "log.jsonl", tmp_path / "out"
    monkeypatch.setitem(METHODS, "fake", Stopping(6, KeyboardInterrupt()))
    with pytest.raises(WorkFailed):
        run(out, log=log, chunk=4)
    monkeypatch.setitem(METHODS, "fake", fake)
    damage(out / "scenarios" / "part-000000000000-4.parquet", "truncated")
    capsys.readouterr()
    run(out, log="-", resume=True)
    lines = [log.read_text(), capsys.readouterr().out]
    first, second = ([json.loads(line) for line in text.splitlines()] for text in lines)
    assert [e["event"] for e in first] == [
        "start",
        *["progress"] * 4,
        "part",
        *["progress"] * 2,
        "part",
        "end",
    ]
    assert first[0]["rows"] == 18
    assert (first[0]["sweep"], first[0]["method"], first[0]["folder"]) == ("small", "fake", str(out))
    assert [(e["first"], e["rows"]) for e in first if e["event"] == "part"] == [(0, 4), (4, 2)]
    assert not first[-1]["ok"]
    assert first[-1]["message"].startswith("interrupted: 6 of 18 rows are kept")
    assert [e["event"] for e in second if e["event"] != "progress"] == [
        "start",
        "fault",
        "part",
        "part",
        "end",
    ]
    assert "part-000000000000-4.parquet: damaged" in second[1]["message"]
    assert all(Path(e["path"]).exists() for e in second if e["event"] == "part")
    told = [e for e in second if e["event"] == "progress"]
    assert [e["done"] for e in told] == list(range(3, 19))
    assert told[-1]["widest_gap"] == pytest.approx(0.01)
    assert told[-1]["closed_by_exact"] == told[-1]["statuses"]["gap_limit"] / 16
    assert told[-1]["seconds_left"] == 0.0
    assert second[-1]["ok"]
    for event in first + second:
        assert event["time"].endswith("+00:00")


def test_a_log_that_cannot_be_written_is_refused_before_the_work(tmp_path):
    with pytest.raises(
        InputError, match=r"--log-json: got .*none/log.*, expected a file that can be written"
    ):
        run(tmp_path / "out", log=tmp_path / "none" / "log")
    assert not (tmp_path / "out").exists()


def test_the_rate_is_that_of_the_last_minute(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    with progress("long", 1000, done=10) as bar:
        now[0] = 100.0  # compiling
        for _ in range(30):
            now[0] += 5.0
            bar.advance("gap_limit", 0.01, "bracket", 2)
        bar.advance("optimal", 0.0, "bracket+exact")
        bar.advance("unknown", math.inf, "bracket")
    numbers = bar.numbers()
    assert numbers["rate"] == pytest.approx(26 / 60)
    assert numbers["seconds_left"] == pytest.approx((1000 - 10 - 62) / (26 / 60))
    assert numbers["closed_by_bracket"] == 60 / 62
    assert numbers["closed_by_exact"] == 1 / 62
    assert (numbers["rows"], numbers["done"], numbers["widest_gap"]) == (1000, 72, math.inf)


def test_an_estimate_answers_rows_and_writes_nothing(tmp_path, monkeypatch):
    """At a known pace: 2 ms a row, and half a second for the first call."""
    calls = []

    def paced(instances, **options):
        assert not options["audited"].any()
        time.sleep(0.002 * instances.size + (0.5 if not calls else 0.0))
        calls.append(instances.size)
        return fake(instances)

    monkeypatch.setitem(METHODS, "fake", paced)
    monkeypatch.chdir(tmp_path)
    found = estimate(spec(), samples=2000, changes=["budget*=2"])
    assert calls == [32, 32, 64, 128, 256]
    assert found.spec.rows == 12_000
    assert found.spec.changes == ("budget*=2",)
    assert found.start_seconds >= 0.5
    assert 100 < found.rate < 500
    assert found.seconds == found.start_seconds + 12_000 / found.rate
    assert found.memory is None or 5e7 < found.memory < 2e10
    assert list(tmp_path.iterdir()) == []
    lines = found.lines()
    assert lines[1] == "Rows: 12000 (6 points x 2000 samples)"
    assert lines[2] == "Design: grid 3 x 2, 6 points; factors: gpu_price, budget"
    monkeypatch.setitem(METHODS, "fake", fake)
    run(tmp_path / "out", samples=200)
    disk = sum(p.stat().st_size for p in (tmp_path / "out" / "scenarios").iterdir())
    assert disk / 3 < estimate(spec(), samples=200).disk < disk * 3
    assert len(estimate(spec(samples=1)).lines()) == 8


def test_progress_in_a_terminal(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("TERM", "xterm")
    with progress("a [title]", 4, done=1, where="some/[folder]") as bar:
        bar.advance("optimal", 1e-7, "exact")
        bar.advance("gap_limit", 0.25, "bracket")
        bar.advance("time_limit")
    err = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().err)
    assert "a [title]" in err
    assert "4/4" in err
    assert "closed 33% by bracket, 33% exactly, widest gap 0.25" in err
    assert "4 of 4 rows in some/[folder]" in err


def test_solved_exactly_from_the_sampler_to_the_table(tmp_path):
    """The real sampler and solver; every stored plan is checked again by name, and the bracket holds."""
    a_spec = spec(method="exact", samples=1, gap=0.01, set=["budget=60", "gpu_price*=3"])
    a_spec = make_spec(a_spec.to_dict() | {"factors": [{"field": "unmet_penalty", "scale": [0.05, 1.0]}]})
    rows = run(tmp_path, a_spec)
    assert set(rows["status"]) <= {"optimal", "gap_limit"}
    assert (rows["lower_bound"] <= rows["upper_bound"] * (1 + 1e-9)).all()
    assert (rows["gap"] <= 0.01).all()
    batch = scenarios(a_spec, load_catalog("seed"), 0, 2)
    for b, text in enumerate(read_rows(tmp_path, plans=True)["plan"]):
        verdict = check_plan(plan_from_json(json.loads(text), batch), batch, b)
        assert verdict.feasible
        assert verdict.costs["total_cost"] == pytest.approx(rows["total_cost"][b], rel=1e-9)
    assert rows["total_cost"].is_monotonic_increasing
