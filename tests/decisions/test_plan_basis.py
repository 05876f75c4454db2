"""What plans rest on, weighed by hand: rent by prices, load by rates, and each value read once."""

from __future__ import annotations

from pathlib import Path

import pytest

from rodiu_jax.catalog import load_catalog
from rodiu_jax.catalog.sampling import sample
from rodiu_jax.decisions.plan_basis import find_plan_basis
from rodiu_jax.errors import InputError
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import DeployedPair, Plan, Route
from tests.catalog.test_measurements import CURVE, load

OWN = """
[quantity.gpu_price.values]
A6000_FP16 = { fixed = 0.5, basis = "assumed" }
H100_FP16 = { fixed = 2, basis = "measured" }
[quantity.arrival_rate.values]
Code_Gen = { fixed = 3600, basis = "measured" }
Translation = { fixed = 1200, basis = "predicted" }
[quantity.throughput.values.Translation."Llama-3.1-8B".A6000_FP16]
1 = { fixed = 2400, basis = "predicted" }
"""

PLAN = Plan(
    None,
    (DeployedPair("Llama-3.1-8B", "H100_FP16", 2, 2), DeployedPair("Llama-3.1-8B", "A6000_FP16", 1)),
    (
        Route("Code_Gen", "Llama-3.1-8B", "H100_FP16", 1.0),
        Route("Translation", "Llama-3.1-8B", "A6000_FP16", 0.5),
    ),
    {"Translation": 0.5},
)


def test_shares_by_hand(tmp_path: Path):
    catalog = load(tmp_path, CURVE + OWN)
    found = find_plan_basis(catalog, [(PLAN, sample(catalog, n=2), 1)])
    table = found.tabulate().set_index("field")[["measured", "predicted", "assumed"]]
    # Rent: 4 GPUs at $2 and one at $0.50. Load: 3600 / 7200 measured, 600 / 2400 predicted. Queries: 3600 and 1200.
    assert table.loc["gpu_price"].tolist() == pytest.approx([8 / 8.5, 0, 0.5 / 8.5])
    assert table.loc["throughput"].tolist() == pytest.approx([2 / 3, 1 / 3, 0])
    assert table.loc["arrival_rate"].tolist() == pytest.approx([0.75, 0.25, 0])
    # Half of Translation, alone, is bought elsewhere.
    assert found.find_shares("unmet_penalty")[found.find("unmet_penalty", ("Translation",))] == 1.0
    cells = {names for name, names in found.read if name == "throughput"}
    assert cells == {
        ("Code_Gen", "Llama-3.1-8B", "H100_FP16", "2"),
        ("Translation", "Llama-3.1-8B", "A6000_FP16", "1"),
    }
    assert {names for name, names in found.read if name == "weight_memory"} == {("Llama-3.1-8B",)}
    assert ("budget", ()) in found.read
    bases = [found.find(*value) for value in found.read]
    assert table.loc["all values"].tolist() == pytest.approx(
        [bases.count(b) / len(bases) for b in ("measured", "predicted", "assumed")]
    )
    assert (
        "rent at prices: 94.1% measured, 5.88% assumed; load at rates: 66.7% measured, 33.3%"
        in found.describe()
    )


def test_a_catalogue_of_other_names_is_refused(tmp_path: Path):
    drawn: Instances = sample(load(tmp_path, CURVE + OWN), n=1)
    with pytest.raises(InputError, match=r"catalog: sets\.query: got 'Summarization"):
        find_plan_basis(load_catalog("corrected"), [(PLAN, drawn, 0)])


def test_without_plans_there_is_nothing_to_say():
    found = find_plan_basis("corrected", [])
    assert found.tabulate().empty
    assert found.describe() == ""
