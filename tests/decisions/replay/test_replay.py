"""A plan, the nominal one and the one for 1.2 times the traffic under the same requests."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import rodiu_jax as rj
from rodiu_jax.decisions.plan_folder import Alternative, PlanFolder, read_plan_folder
from rodiu_jax.decisions.replay.replay import THE_PLAN, Replay
from rodiu_jax.decisions.replay.replicas import describe_pool
from rodiu_jax.errors import InputError
from rodiu_jax.export.settings import Settings
from rodiu_jax.report.text.replay_section import describe_replay, replay_to_json
from tests.cli.calls import TRACE

HOURS = 0.02


@pytest.fixture(scope="module")
def found(plan_folder: Path) -> PlanFolder:
    return read_plan_folder(plan_folder)


@pytest.fixture(scope="module")
def replayed(found: PlanFolder) -> Replay:
    return rj.replay(found, hours=HOURS, seed=3)


def test_every_request_is_served_or_counted(replayed: Replay, found: PlanFolder):
    plans = replayed.plans.set_index("plan")
    assert [*plans.index] == [THE_PLAN, "nominal", "headroom 1.2"]
    queries = replayed.queries
    assert (queries["served"] + queries["rejected"] + queries["elsewhere"] == queries["requests"]).all()
    assert queries.groupby("query")["requests"].nunique().eq(1).all(), "all plans meet the same requests"
    for name, pools in replayed.pools.groupby("plan"):
        mine = queries[queries["plan"] == name]
        assert pools["requests"].sum() == mine["requests"].sum() - mine["elsewhere"].sum()
        assert pools["rejected"].sum() == mine["rejected"].sum()
    rate = found.instances.one(0).arrival_rate
    counts = queries[queries["plan"] == THE_PLAN]["requests"].to_numpy()
    assert (np.abs(counts - rate * HOURS) < 5 * np.sqrt(rate * HOURS)).all(), (
        "Poisson at the scenario's rates"
    )


def test_loads_are_those_that_the_plan_counts(replayed: Replay, found: PlanFolder):
    """Requests have mean lengths here: the load of a pool is sum of lambda x / q over the replicas."""
    fields, names = found.instances.one(0), found.instances.names
    plans = {THE_PLAN: found.plan} | {name: other.plan for name, other in found.alternatives.items()}
    for (name, model, gpu), pool in replayed.pools.set_index(["plan", "model", "gpu"]).iterrows():
        j, k, n = names.models.index(model), names.gpus.index(gpu), names.degrees.index(pool["tp"])
        load = 0.0
        for route in plans[name].routes:
            if (route.model, route.gpu) == (model, gpu):
                i = names.queries.index(route.query)
                load += fields.arrival_rate[i] * route.share / fields.throughput[i, j, k, n]
        assert pool["load"] == pytest.approx(load / pool["replicas"], rel=0.1)
        assert 0 < pool["batch"] <= 1
        assert pool["load"] < 0.95


def test_robustness_keeps_promises_that_the_nominal_plan_breaks(found: PlanFolder):
    """The rate of one query type falls 22 % short on all pairs, which is what the robust plan was asked to bear."""
    shortfalls = {"Document_QA": 0.22}
    plans = rj.replay(found, hours=0.05, shortfall=shortfalls).plans.set_index("plan")
    robust, nominal = plans.loc[THE_PLAN], plans.loc["nominal"]
    assert (robust["kept"], robust["promises"]) == (5, 5)
    assert robust["within"] > 0.999
    assert nominal["kept"] < 5
    assert nominal["within"] < 0.9
    prices = robust["rent_per_hour"], nominal["rent_per_hour"], plans.loc["headroom 1.2", "rent_per_hour"]
    assert prices == pytest.approx((52.46, 45.80, 57.08), abs=0.01)


def test_a_shortfall_slows_what_it_names(found: PlanFolder, replayed: Replay):
    slowed = rj.replay(found, hours=HOURS, seed=3, shortfall={"Chat:Llama-3.1-8B@H100": 0.1, "Chat": 0.0})
    keys = ["plan", "query"]
    before, after = (r.queries.set_index(keys) for r in (replayed, slowed))
    pd.testing.assert_series_equal(before["requests"], after["requests"])
    ratio = (after["e2e_mean"] / before["e2e_mean"]).loc[THE_PLAN]
    assert 1.07 < ratio["Chat"] < 1.3, "seven tenths of it are served there"
    assert ratio.drop("Chat").max() < 1.07
    assert ratio["Code_Generation"] == pytest.approx(1.0, abs=1e-9), "on other replicas alone"
    pools = ["plan", "model", "gpu"]
    loads = slowed.pools.set_index(pools)["load"] / replayed.pools.set_index(pools)["load"]
    assert loads[(THE_PLAN, "Llama-3.1-8B", "H100")] > 1.02
    assert loads[(THE_PLAN, "Qwen3-30B-A3B", "B200")] == 1.0


def test_a_replica_is_read_off_the_scenario_and_the_curves(found: PlanFolder):
    """Rates that the scenario states a fifth lower stretch every latency; memory is what the weights leave."""
    fields, names = found.instances.one(0), found.instances.names
    pair = next(d for d in found.plan.deployments if d.model == "Qwen3-30B-A3B")
    slower = found.instances.with_fields(throughput=fields.throughput * 0.8)
    usual, other = (
        describe_pool(pair, found.plan, instances, found.catalog, {"Chat": 0.5})
        for instances in (found.instances, slower)
    )
    j, k = names.models.index(pair.model), names.gpus.index(pair.gpu)
    assert usual.kv_room == pair.tp * fields.gpu_memory[k] - fields.weight_memory[j]
    curves = {c.cell: c for c in found.catalog.curves}
    for one, two in zip(usual.types, other.types, strict=True):
        curve = curves[one.query, pair.model, pair.gpu, str(pair.tp)]
        i = names.queries.index(one.query)
        half = 0.5 if one.query == "Chat" else 1.0
        assert one.rate * 3600 == pytest.approx(fields.throughput[i, j, k, 0] * half)
        assert two.rate == pytest.approx(one.rate * 0.8)
        assert np.array(two.rest) == pytest.approx(np.array(one.rest) / 0.8)
        assert np.array(one.first) * 1000 * half == pytest.approx(
            [p.latencies["ttft_mean"] for p in curve.points]
        )
        at_once = [p.rate / 3600 * p.latencies["e2e_mean"] / 1000 for p in curve.points]
        assert np.array(one.fills) / one.weight == pytest.approx(at_once)
        assert max(f for f in one.fills if f <= 1) == pytest.approx(1.0), "the rate is that of a point"
    sizes = [t.fills[-1] / t.weight for t in usual.types]  # requests at once, none of them below 50
    assert usual.largest_fill == pytest.approx(
        min(round(size) * t.weight for size, t in zip(sizes, usual.types, strict=True))
    )


def test_the_same_seed_gives_the_same_numbers(found: PlanFolder):
    one, again, other = (rj.replay(found, hours=0.002, seed=seed) for seed in (3, 3, 4))
    for name in ("plans", "queries", "pools"):
        pd.testing.assert_frame_equal(getattr(again, name), getattr(one, name))
    assert (other.queries["requests"] != one.queries["requests"]).any()


def test_a_trace_faster_for_some_hours_with_others_at_random(found: PlanFolder):
    """The excerpt has 200 requests; as often as the plan has code generation it lasts a hundredth of an hour."""
    options = {"query": "Code_Generation", "rate_scale": "plan", "hours": HOURS}
    rate = dict(zip(found.instances.query_names, found.instances.one(0).arrival_rate, strict=True))
    alone = rj.replay(found, TRACE, **options)
    counts = alone.queries[alone.queries["plan"] == THE_PLAN].set_index("query")["requests"]
    assert counts["Code_Generation"] == pytest.approx(rate["Code_Generation"] * HOURS, rel=0.03)
    assert counts.drop("Code_Generation").eq(0).all()
    assert alone.settings["sources"]["Chat"] == "none"
    assert alone.plans["promises"].eq(1).all()
    both = rj.replay(found, TRACE, others=True, **options)
    counts = both.queries[both.queries["plan"] == THE_PLAN].set_index("query")["requests"]
    for query in ("Chat", "Document_QA"):
        assert counts[query] == pytest.approx(rate[query] * HOURS, rel=0.15)
    twice = rj.replay(found, TRACE, query="Code_Generation", rate_scale=2.0)
    times = _times()
    span = float(times.max())
    assert twice.settings["seconds"] == pytest.approx(span)
    # The second round begins half a mean gap after the end of the first.
    later = times / 2 + span * (1 + 1 / (len(times) - 1)) / 2
    assert twice.plans["requests"].eq(len(times) + (later <= span).sum()).all()


def _times() -> np.ndarray:
    """Seconds since the first request of the excerpt."""
    times = pd.to_datetime(pd.read_csv(TRACE)["TIMESTAMP"])
    return (times - times.min()).dt.total_seconds().to_numpy()


def test_lengths_of_requests_count_relative_to_the_scenarios(
    plan_folder: Path, tmp_path: Path, found: PlanFolder
):
    """Alone on its replica a request takes its own lengths times the curve's first point."""
    fields = found.instances.one(0)
    i = found.instances.query_names.index("Code_Generation")
    inputs, outputs = float(fields.input_tokens[i]), float(fields.output_tokens[i])
    rows = [(0, inputs, outputs), (600, 2 * inputs, outputs), (1200, inputs, 3 * outputs), (1800, inputs, 0)]
    path = tmp_path / "t.csv"
    path.write_text("s,in,out,kind\n" + "".join(f"{t},{a:.0f},{b:.0f},gen\n" for t, a, b in rows))
    result = rj.replay(
        found,
        path,
        query_column="kind",
        names="gen=Code_Generation",
        columns="time=s,input=in,output=out",
        unit="s",
    )
    assert result.settings["failed"] == 1
    row = result.queries.set_index(["plan", "query"]).loc[(THE_PLAN, "Code_Generation")]
    curve = next(
        c for c in found.catalog.curves if c.cell == ("Code_Generation", "Qwen3-30B-A3B", "B200", "1")
    )
    least = curve.points[0].latencies
    first, whole, token = (least[name] for name in ("ttft_mean", "e2e_mean", "tpot_mean"))
    assert row["ttft_mean"] == pytest.approx(first * (1 + 2 + 1) / 3, rel=1e-6)
    assert row["e2e_mean"] == pytest.approx((first * 4 + (whole - first) * 5) / 3, rel=1e-6)
    assert row["tpot_mean"] == pytest.approx(token, rel=0.02), "whatever the length"
    assert (row["served"], row["wait_max"]) == (3, 0.0)


def test_who_is_compared(found: PlanFolder):
    def names(**options: Any) -> list[str]:
        return rj.replay(found, hours=0.001, **options).plans["plan"].tolist()

    assert names(against=["headroom 1.2"]) == [THE_PLAN, "headroom 1.2"]
    assert names(against=[]) == [THE_PLAN]
    assert names(against=["all"]) == [THE_PLAN, "nominal", "headroom 1.2"]
    twins = {name: Alternative(found.plan, "the same") for name in ("a", "b")}
    alike = rj.replay(replace(found, alternatives=twins), hours=0.001)
    assert alike.plans["plan"].tolist() == [THE_PLAN, "a", "b"], "all where nothing else is known"
    assert alike.queries.drop(columns="plan").drop_duplicates().shape[0] == 5
    with pytest.raises(InputError, match=r"against: got 'nominel', .*mean nominal"):
        names(against=["nominel"])


def test_words_and_json(replayed: Replay):
    section = describe_replay(replayed)
    assert [table.name for table in section.tables] == ["replay_plans", "replay_queries", "replay_pools"]
    assert [len(table.rows) for table in section.tables] == [3, 15, len(replayed.pools)]
    assert sum(point.startswith("Not modelled: ") for point in section.points) >= 5
    (memory,) = [point for point in section.points if "--memory-utilization" in point]
    assert f"given a part of it, {Settings().used_memory:g} unless" in memory
    assert any("$6.66/h (14.5%) more than nominal" in point for point in section.points)
    values = json.loads(json.dumps(replay_to_json(replayed), allow_nan=False))
    assert [row["plan"] for row in values["plans"]] == [*replayed.plans["plan"]]
    assert values["seed"] == 3


EMPTY = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
BAD: dict[str, tuple[str | None, dict[str, Any], str]] = {
    "no query": (EMPTY, {}, "query: expected --query NAME, or --query-column"),
    "empty": (EMPTY, {"query": "Chat"}, "at least one request"),
    "all failed": (EMPTY + "2023-11-16 18:17:03,5,0\n", {"query": "Chat"}, "an output token"),
    "one time": (EMPTY + "2023-11-16 18:17:03,5,1\n" * 2, {"query": "Chat"}, "more than one time"),
    "unknown type": (EMPTY, {"query": "Chatt"}, "query: got 'Chatt', .*did you mean Chat"),
    "unknown value": (
        "TIMESTAMP,ContextTokens,GeneratedTokens,k\n2023-11-16 18:17:03,5,1,chat\n2023-11-16 18:18:03,5,1,Chat\n",
        {"query_column": "k"},
        "t.csv: k: got 'chat'",
    ),
    "option without a trace": (None, {"query": "Chat"}, "replay: query: expected .*trace"),
    "others without a trace": (None, {"others": True}, "replay: others: expected .*trace"),
    "no scale": (None, {"rate_scale": 0.0}, "rate_scale: got 0.0"),
    "endless scale": (None, {"rate_scale": float("inf")}, "rate_scale: got inf"),
    "no hours": (None, {"hours": 0.0}, "hours: got 0.0"),
    "a moment": (None, {"hours": 1e-9}, "at least one request"),
    "too many": (None, {"hours": 1e6}, "at most 10,000,000 requests"),
    "shortfall of all": (None, {"shortfall": 1.0}, "shortfall: got 1.0"),
    "shortfall of nobody": (
        None,
        {"shortfall": {"Qwen3-30B-A3B@H20": 0.1}},
        "got 'Qwen3-30B-A3B@H20', expected .*QUERY:MODEL@GPU.*mean Qwen3-30B-A3B@H200",
    ),
    "shortfall that is none": (None, {"shortfall": {"Chat": float("nan")}}, "shortfall: Chat: got nan"),
    "seed": (None, {"seed": -1}, "seed: got -1"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line(found: PlanFolder, tmp_path: Path, case: str):
    text, options, message = BAD[case]
    path = None
    if text is not None:
        path = tmp_path / "t.csv"
        path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        rj.replay(found, path, **options)
    assert "\n" not in str(caught.value)


HEAD = '[catalog]\nname = "cut"\nextends = "serving"\n'
THROUGHPUT = '[quantity.throughput]\nover = ["query", "model", "gpu", "tp"]\neach = 5\n'
CATALOGS = {
    "no curves": (HEAD + THROUGHPUT, r"curve: expected a curve of \w+ on Llama-3.1-8B@H100 x1"),
    "a point that takes no time": (
        HEAD
        + '[[curve]]\nquery = "Chat"\nmodel = "Llama-3.1-8B"\ngpu = "H100"\ntp = 1\nsource = "x"\n'
        + "points = [{ rate = 5, ms = { ttft_mean = 0, tpot_mean = 0 } }]\n",
        "an end-to-end latency above 0",
    ),
    "a promise that no point keeps": (
        HEAD + '[promise.Chat]\nlimits = "ttft_mean<=1ms"\n',
        r"curve of Chat on Llama-3.1-8B@H100 x1: expected a point at which ttft_mean<=1ms holds",
    ),
}


@pytest.mark.parametrize("case", CATALOGS)
def test_catalogues_that_cannot_tell(plan_folder: Path, tmp_path: Path, case: str):
    text, message = CATALOGS[case]
    folder = shutil.copytree(plan_folder, tmp_path / "copy")
    (folder / "catalog.toml").write_text(text)
    with pytest.raises(InputError, match=message):
        rj.replay(folder, hours=HOURS)


@pytest.mark.slow
def test_an_hour(found: PlanFolder):
    """Some 30 s: 620,000 requests on three plans; robust rates against the shortfall that they are for."""
    plans = rj.replay(found, hours=1.0, shortfall={"Document_QA": 0.22}).plans.set_index("plan")
    assert (plans["kept"] == plans["promises"])[[THE_PLAN, "headroom 1.2"]].all()
    assert plans.loc["nominal", "kept"] < 5
    assert plans.loc["nominal", "within"] < plans.loc[THE_PLAN, "within"]
