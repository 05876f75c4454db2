"""The catalogue `serving`: it loads without the extra, says where each value is from, and is planned for in seconds."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest

import rodiu_jax as rj
from rodiu_jax.catalog import Catalog, load_catalog
from rodiu_jax.catalog.findings import count_bases
from rodiu_jax.catalog.promise_changes import apply_promise_changes, split_changes
from rodiu_jax.model.status import Status

FACTS = Path(__file__).parents[2] / "docs" / "serving_facts.toml"


@pytest.fixture(scope="module")
def serving() -> Catalog:
    return load_catalog("serving")


def test_every_value_has_a_source_and_a_basis(serving: Catalog):
    for name, quantity in serving.quantities.items():
        for names in serving.names(name):
            entry = serving.entry(name, names)
            assert entry.source or quantity.source, (name, names)
            assert entry.basis in ("measured", "predicted", "assumed"), (name, names)
    bases = count_bases(serving).set_index("field")
    rates = bases.loc["throughput"]
    assert (rates["measured"], rates["predicted"]) == (0, len(serving.curves))
    assert bases.loc["gpu_price"].tolist() == [5, 0, 1]  # that of L40S is no quote
    assert bases.loc["error_nominal"].tolist() == [
        30,
        0,
        150,
    ]  # one model's accuracy was measured as it is served


def test_sizes(serving: Catalog):
    assert {axis: len(names) for axis, names in serving.sets.items()} == {
        "query": 5,
        "model": 6,
        "gpu": 6,
        "tp": 4,
    }
    assert serving.shape("throughput") == (5, 6, 6, 4)
    able = serving.fixed("throughput") > 0
    assert able.any(axis=(1, 2, 3)).all()
    assert able.any(axis=(0, 1, 3)).all()
    assert able.any(axis=(0, 2, 3)).all()
    assert able.mean() > 0.3


def test_it_holds_the_facts_that_people_wrote(serving: Catalog):
    """Whoever changes the facts runs the script again."""
    facts = tomllib.loads(FACTS.read_text(encoding="utf-8"))
    written = tomllib.loads(serving.path.read_text(encoding="utf-8"))
    assert written["catalog"] == facts["catalog"]
    assert written["sets"] == facts["sets"]
    assert written["promise"] == facts["promise"]
    for name, table in facts["quantity"].items():
        found = written["quantity"][name]
        assert {k: found[k] for k in table} == table, name


def test_published_numbers(serving: Catalog):
    """Llama 3.1 70B has 70.6e9 parameters of 2 bytes; 80 layers keep 2 x 8 heads x 128 numbers of 2 bytes a token."""
    known = serving.entry("weight_memory", ("Llama-3.1-70B",)).distribution.numbers[0]
    assert known == pytest.approx(141.1, rel=0.01)
    cache = serving.entry("kv_per_token", ("Llama-3.1-70B",)).distribution.numbers[0]
    assert cache == pytest.approx(80 * 2 * 8 * 128 * 2 / 1e9, rel=1e-6)
    price = serving.entry("gpu_price", ("H100",)).distribution
    assert price.numbers == (4.90, 4.23, 5.50)
    # Measured on the L4 are no kernels: its rates may be 4.6 times less.
    short = serving.fixed("throughput_shortfall")
    assert np.unique(short[:, :, 1:]).tolist() == [0.22]
    assert np.unique(short[:, :, 0]).tolist() == [pytest.approx(1 - 1 / 4.6, abs=1e-3)]


def test_a_tighter_promise_lowers_rates(serving: Catalog):
    before = serving.fixed("throughput")
    tighter = apply_promise_changes(serving, split_changes(["promise*=0.5"])[0]).fixed("throughput")
    assert (tighter <= before).all()
    assert (tighter < before).sum() > 100


def test_a_fleet_of_replicas_serves_everyone_or_buys_elsewhere(serving: Catalog):
    instances = rj.sample(serving, n=2, seed=1)
    answers = rj.solve(instances, [0, 1])
    for b in (0, 1):
        answer = answers[b]
        assert answer.status is Status.OPTIMAL
        plan = answer.plan_for(b)
        assert plan is not None
        assert sum(d.replicas for d in plan.deployments) > 3
        fleet = rj.summarize_fleet(plan, instances, b)
        assert 5 <= sum(fleet.gpus.values()) <= 100
        assert all(use.gpus <= use.quota for use in fleet.quotas)
        costs = instances.one(b)
        elsewhere = float((costs.arrival_rate * costs.unmet_penalty).sum()) * float(costs.rental_hours)
        assert answer.upper < 0.5 * elsewhere
