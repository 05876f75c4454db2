"""Query types that nobody can serve are named, with the reason: by the solver's commands, by diagnosis, by validate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rodiu_jax.catalog import load_catalog
from rodiu_jax.catalog.audit import validate
from rodiu_jax.decisions.choose.search import choose
from rodiu_jax.decisions.diagnose.diagnosis import diagnose
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.status import Status
from rodiu_jax.report.text.audit_tables import describe_audit
from rodiu_jax.report.text.choose_section import write_sentences as say_choice
from rodiu_jax.report.text.diagnosis_section import write_sentences
from solvers.answers import Answer, Answers
from solvers.exact import solve_instance
from solvers.unservable import explain_no_plan, find_unservable
from tests.oracles.instances import random_instances
from tests.oracles.serving import serving_instances

SHAPE = (3, 2, 2, 2)


def with_rates(**values: Any) -> Instances:
    """A scenario in which q1 cannot be served anywhere."""
    instances = serving_instances(1, SHAPE, unmet_cap=0.5, max_replicas=np.full((2, 2), 3), **values)
    throughput = np.array(instances.fields.throughput)
    throughput[1] = 0.0
    return instances.with_fields(throughput=throughput)


REASONS = {
    "its throughput is 0 wherever a model fits": with_rates,
    "no model fits any GPU within storage, budget, quotas and max_replicas": lambda: random_instances(
        0, SHAPE, unmet_cap=0.5, gpu_memory=[1.0, 1.0]
    ),
    "no model and GPU keeps its promises": lambda: random_instances(
        0, SHAPE, unmet_cap=0.5, delay_threshold=[500.0, 1e-3, 500.0]
    ),
    "no GPU has memory and compute for any of it beside a model's weights": lambda: random_instances(
        0, SHAPE, unmet_cap=0.5, compute_per_token=[0.0, 1.0, 0.0], gpu_compute=[0.0, 0.0]
    ),
}


@pytest.mark.parametrize("reason", REASONS)
def test_reasons(reason: str):
    instances = REASONS[reason]()
    found = find_unservable(instances, 0)
    expected = set(instances.query_names) if reason.startswith("no model fits") else {"q1"}
    assert found == dict.fromkeys(expected, reason)
    assert solve_instance(instances, 0).status is Status.INFEASIBLE
    assert "q1" in explain_no_plan(instances, 0)
    free = instances.with_fields(unmet_cap=1.0)
    assert explain_no_plan(free, 0) == ""
    plan = solve_instance(free, 0).plan
    assert plan is not None
    assert plan.unmet["q1"] == 1.0


@pytest.mark.parametrize("mode", ["none", "diu", "ddu"])
def test_no_type_is_named_that_a_plan_can_serve(mode: str):
    named = 0
    for seed in range(12):
        hard = {"throughput": np.where(np.random.default_rng(seed).random(SHAPE) < 0.8, 0.0, 50.0)}
        instances = serving_instances(seed, SHAPE, mode=mode, **hard)
        for name in find_unservable(instances, 0):
            named += 1
            dear = np.where(np.array(instances.query_names) == name, 1e6, 0.0)  # serving any of it pays
            answer = solve_instance(instances.with_fields(unmet_penalty=dear), 0)
            assert answer.plan is not None
            assert answer.plan.unmet.get(name, 0.0) == pytest.approx(1.0)
    assert named >= 5


def test_diagnosis_says_which():
    found = diagnose(with_rates(), 0, workers=1)
    assert "q1" in found.reason
    assert "q1" in write_sentences(found)[0]
    assert found.to_json()["reason"] == found.reason


@pytest.mark.slow  # it brackets
def test_choice_says_which():
    instances = random_instances(0, (2, 2, 2, 2), unmet_cap=0.5, delay_threshold=[500.0, 1e-3], batch=2)
    answers = Answers.stack([Answer.of(instances.names, Status.INFEASIBLE)] * 2, names=instances.names)
    found = choose(instances, answers=answers)
    assert found.hopeless == 2
    assert found.unservable == {"q1: no model and GPU keeps its promises": 2}
    assert found.to_json()["unservable"] == found.unservable
    assert any("In 2 nobody can serve q1" in line for line in say_choice(found))


CATALOG = """[catalog]
name = "fleet"
extends = "corrected"

[quantity.throughput]
over = ["query", "model", "gpu", "tp"]
unit = "queries/h"
source = "bench.json"
each = { fixed = 0, source = "nobody measured it" }
"""


def test_validate_says_which(tmp_path: Path):
    path = tmp_path / "fleet.toml"
    queries = load_catalog("corrected").sets["query"]
    measured = [f'values.{q}."Llama-3.2-1B".H100_FP16.1 = 20' for q in queries if q != "Code_Gen"]
    path.write_text(CATALOG + "\n".join(measured), encoding="utf-8")
    report = validate(path, n=20)
    assert report.unservable.to_dict("records") == [{"query": "Code_Gen", "share": 1.0}]
    assert report.ok
    lines = [part.text for part in describe_audit(report) if hasattr(part, "text")]
    assert any("Code_Gen in 100%" in line for line in lines)
    assert not len(validate("corrected", n=20).unservable)
