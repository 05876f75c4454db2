"""Scenarios and rows: the samples changed as the points say, what a row holds, and that chunks change nothing."""

import json
import math

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rodiu_jax.catalog import load_catalog
from rodiu_jax.catalog.sampling import sample
from rodiu_jax.errors import InputError, WorkFailed
from rodiu_jax.model.changes import apply_changes, parse_change
from rodiu_jax.model.check import check_plan
from rodiu_jax.model.fields import FIELD_SPECS
from rodiu_jax.model.plan_json import plan_from_json
from rodiu_jax.model.status import Status
from rodiu_jax.runtime.cores import usable_cores
from rodiu_jax.sweeps import METHODS, given_plans, load_spec, read_rows, sweep
from rodiu_jax.sweeps.engines import local
from rodiu_jax.sweeps.rows import answers_from_rows, table_of
from rodiu_jax.sweeps.scenarios import scenarios
from rodiu_jax.sweeps.spec import make_spec
from rodiu_jax.sweeps.verify_sweep import verify_sweep
from solvers.answers import Answer, Answers
from tests.oracles.answers import assert_same
from tests.sweeps.small import fake, parts, plan_json, run, spec, toy

COSTS = ("rental_cost", "storage_cost", "delay_cost", "unmet_cost")


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
        failed = [Answer.of(instances.names, Status.ERROR, message=f"no {b}") for b in range(instances.size)]
        yield Answers.stack(failed, names=instances.names)

    monkeypatch.setitem(METHODS, "fake", toy(failing))
    rows = run(tmp_path)
    assert rows["status"].tolist() == ["error"] * 18
    assert rows["message"].tolist() == [f"no {b}" for b in range(18)]
    numbers = ["lower_bound", "upper_bound", "gap", "total_cost", "gpus_rented", "unmet_share", "seconds"]
    assert rows[numbers].isna().all(axis=None)


def test_an_infeasible_scenario_has_no_infinite_numbers(tmp_path, monkeypatch):
    def infeasible(instances, **_):
        none = [Answer.of(instances.names, Status.INFEASIBLE)] * instances.size
        yield Answers.stack(none, names=instances.names)

    monkeypatch.setitem(METHODS, "fake", toy(infeasible))
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
    assert rows[["nodes", "steps"]].isna().all(axis=None), "nothing is searched"
    assert seen == {0, 1, 2, None}, "every plan is the best somewhere, and somewhere none is"
    assert sum(len(v) for v in verify_sweep(tmp_path / "out")) == 48
    assert all(v["ok"].all() for v in verify_sweep(tmp_path / "out"))
    (tmp_path / "mine.json").unlink()  # the spec in the folder holds them
    part = next((tmp_path / "out" / "scenarios").glob("part-*"))
    part.unlink()
    again = sweep(tmp_path / "out" / "spec.toml", tmp_path / "out", resume=True, quiet=True)
    pd.testing.assert_frame_equal(again.drop(columns="seconds"), rows.drop(columns="seconds"))


def test_options_reach_the_method(tmp_path, monkeypatch):
    seen = []
    audits = []

    def watching(instances, *, audited, workers, **options):
        audits.append(audited)
        seen.append(options | {"workers": workers.workers})
        return fake(instances)

    monkeypatch.setitem(METHODS, "fake", toy(watching))
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


def test_an_evaluator_that_the_checker_contradicts_stops_the_work(monkeypatch):
    batch = sample("seed", n=3, seed=1)
    nothing = {
        "instance": None,
        "deployments": [],
        "routes": [],
        "unmet": dict.fromkeys(batch.query_names, 1.0),
    }
    (found,) = given_plans.take_cheapest(batch, [json.dumps(nothing)])
    assert found.is_any(Status.FEASIBLE).all()
    real = given_plans.check_columns
    monkeypatch.setattr(
        given_plans, "check_columns", lambda *a, **o: (c := real(*a, **o))._replace(costs=1.001 * c.costs)
    )
    with pytest.raises(WorkFailed, match="audit: plan 0 in scenario 0"):
        list(given_plans.take_cheapest(batch, [json.dumps(nothing)]))


def test_rows_are_the_answers_they_were_made_from(tmp_path):
    run(tmp_path / "out")
    a_spec, made = spec(), scenarios(spec(), load_catalog("seed"), 0, 18)
    before = Answers.concatenate(list(fake(made)), names=made.names)
    parts_of = [pq.read_table(p) for p in sorted((tmp_path / "out" / "scenarios").iterdir())]
    after = answers_from_rows(pa.concat_tables(parts_of), made, source="out")
    assert_same(after, before)
    table = table_of(a_spec, np.arange(18), after, made)
    assert table.equals(pa.concat_tables(parts_of).combine_chunks())
    odd = table.set_column(table.schema.get_field_index("status"), "status", pa.array(["solved"] * 18))
    with pytest.raises(InputError, match="solved"):
        answers_from_rows(odd, made, source="out")
