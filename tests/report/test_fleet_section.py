"""The page of a sweep of fleets, in which delays cost nothing: figures against the rows, words, nothing broken."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from rodiu_jax.decisions.fleet import FleetSummary
from rodiu_jax.report import write_report
from rodiu_jax.report.data.digest import read_digest
from rodiu_jax.report.page.fleet_section import read_fleets, write_fleet_sentences
from rodiu_jax.sweeps import sweep
from rodiu_jax.sweeps.spec import make_spec
from solvers.headroom import Headroom
from tests.golden import Golden
from tests.oracles.tiny import quantity
from tests.page_structure import Structure

CATALOG = """
[catalog]
name = "fleet"
extends = "corrected"
[sets]
query = ["Summarization", "Code_Gen"]
model = ["Llama-3.2-1B", "Llama-3.1-8B"]
gpu = ["A100_FP16", "H100_FP16", "H100_INT8"]
tp = [1, 2]
"""
CATALOG += quantity("delay_penalty", "query", "$/ms/query", "0")  # delays are promised, not paid
CATALOG += quantity("max_replicas", "model gpu", "-", "6")
CATALOG += quantity("throughput", "query model gpu tp", "queries/h", "{ uniform = [15, 60] }")
CATALOG += quantity("gpu_quota", "gpu", "GPUs", "3")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two samples at four points, solved exactly and reported."""
    folder = tmp_path_factory.mktemp("fleet")
    (folder / "fleet.toml").write_text(CATALOG)
    values: dict[str, Any] = {
        "name": "fleet", "title": "Fleets", "catalog": str(folder / "fleet.toml"), "samples": 2, "method": "exact",
        "factors": [
            {"field": "arrival_rate", "scale": [0.5, 1.0]},
            {"field": "gpu_price", "scale": [1.0, 2.0]},
        ],
    }  # fmt: skip
    sweep(make_spec(values), folder / "out", quiet=True)
    write_report(folder / "out")
    return folder / "out"


@pytest.fixture(scope="module")
def rows(folder: Path) -> pd.DataFrame:
    return pd.concat([pd.read_parquet(p) for p in sorted((folder / "scenarios").glob("*.parquet"))])


def test_figures_are_those_of_the_rows(folder: Path, rows: pd.DataFrame):
    fleets = read_fleets(folder, read_digest(folder))
    assert fleets is not None
    assert len(fleets.found) == fleets.looked == len(rows) == 8
    hours = 12.0
    for row in rows.to_dict("records"):
        found = fleets.found[row["sample"], row["point"]]
        assert sum(found.gpus.values()) == row["gpus_rented"]
        assert found.rent_per_hour == pytest.approx(row["rental_cost"] / hours)
        loads = {f"{p.model}@{p.gpu}": load for p, load in found.utilization}
        assert set(loads) == {f"{d['model']}@{d['gpu']}" for d in json.loads(row["plan"])["deployments"]}
        assert max(loads.values()) <= 1 + 1e-6
        if row["unmet_share"] == 0:
            assert found.headroom.factor >= 1 - 1e-6
    gpus = pd.read_csv(folder / "tables" / "fleet-gpus.csv")
    assert gpus["mean_gpus"].sum() == pytest.approx(rows["gpus_rented"].mean())
    quotas = pd.read_csv(folder / "tables" / "fleet-quotas.csv")
    assert (quotas["mean_used"] <= 1).all()
    assert len(quotas) == len(gpus) >= 2, "each configuration here is a device of its own"
    full = pd.read_csv(folder / "tables" / "fleet-full.csv")
    assert full["plans"].sum() == 8
    binding = pd.read_csv(folder / "tables" / "binding.csv").set_index("constraint")
    assert {"throughput", "quota", "replicas"} <= set(binding.index)
    assert binding.loc["throughput", "smallest_margin"] == pytest.approx(0.0, abs=1e-6)


def test_page_of_scenarios_in_which_delays_cost_nothing(folder: Path, rows: pd.DataFrame, golden: Golden):
    assert (rows["delay_cost"] == 0).all()
    page = Structure((folder / "report.html").read_text())
    words = page.words()
    _, _, part = words.rpartition("What the fleet takes")
    golden("page/fleet", part[: part.index("What is not served")], numbers=False)
    assert not re.search(r"\bnan\b|\binf\b", words)


def test_sentences_where_nothing_is_served_or_nothing_is_full():
    nothing = FleetSummary({}, 0.0, math.nan, (), (), Headroom(0.0, ("demand[q0]",)))
    endless = FleetSummary({"g0": 2}, 4.0, 0.5, (), (), Headroom(math.inf, ()))
    assert write_fleet_sentences([nothing]) == [
        "Rent: $0.00/h on average.",
        "No plan serves any tokens.",
        "Traffic that a fleet takes: x 0.00 on average.",
    ]
    assert write_fleet_sentences([nothing, endless])[1:] == [
        "Rent for a million served tokens: $0.50 on average.",
        "Traffic that a fleet takes: x 0.00 on average.",
        "50% of the fleets take any traffic.",
    ]


def test_the_page_says_what_its_plans_rest_on(folder: Path, rows: pd.DataFrame):
    """Nobody says what the rates of this catalogue rest on, so they are assumed."""
    table = pd.read_csv(folder / "tables" / "basis.csv").set_index("field")
    assert table[["measured", "predicted", "assumed"]].sum(axis=1).tolist() == pytest.approx(
        [1.0] * len(table)
    )
    assert table.loc["throughput", "assumed"] == 1.0
    page = (folder / "report.html").read_text()
    assert 'id="basis"' in page
    assert "What the plans rest on: rent at prices" in page
