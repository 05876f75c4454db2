"""What if: the changes of a scenario that planners ask about, each solved again and bracketed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from rodiu_jax.catalog import Catalog
from rodiu_jax.catalog.curve_values import FOLLOWING
from rodiu_jax.decisions.diagnose.fleet_limits import loosen_fleet
from rodiu_jax.decisions.diagnose.movable_limits import variants
from rodiu_jax.io.files import json_number
from rodiu_jax.model.fields import FIELD_SPECS, is_absent
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import Plan

if TYPE_CHECKING:
    from solvers.answers import Answer

Change = dict[str, np.ndarray]
"""Fields of one scenario and their new values."""

DEARER, TIGHTER, SLOWER = 1.2, 0.8, 0.78
"""How much dearer a GPU, how much tighter promises, and how much lower rates are asked about."""

GROWTH = (1.5, 2.0)
"""Factors on the traffic that are asked about."""

_ANY_REPLICAS = 10**6


class Solve(Protocol):
    """Solves every scenario of a batch, in order."""

    def __call__(self, batch: Instances) -> list[Answer]: ...


@dataclass(frozen=True)
class Question:
    """A change of the scenario, before it is solved.

    Attributes:
      name: short, for tables and files; ``what`` says it in a sentence.
      group: ``traffic``, ``price``, ``gone``, ``promises``, ``quota``, ``one GPU``, ``one model``, ``rates`` or
        ``limit``.
    """

    group: str
    name: str
    what: str
    change: Change


@dataclass(frozen=True)
class WhatIf:
    """A question and its answer; money in $/h.

    Attributes:
      status: word of the solver's status.
      lower: no plan costs less; ``upper``: the cost of the plan found; inf where there is none.
      rent, elsewhere: what the plan rents, and what it buys elsewhere.
      gpus: rented, by GPU configuration.
      unmet: share of all queries that nobody serves: they are bought elsewhere.
      plan: None where there is none.
    """

    group: str
    name: str
    what: str
    status: str
    lower: float
    upper: float
    rent: float
    elsewhere: float
    gpus: dict[str, int]
    unmet: float
    plan: Plan | None

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; what is not known is null."""
        return {
            "group": self.group,
            "name": self.name,
            "what": self.what,
            "status": self.status,
            "lower_bound": json_number(self.lower),
            "upper_bound": json_number(self.upper),
            "rent_per_hour": json_number(self.rent),
            "elsewhere_per_hour": json_number(self.elsewhere),
            "gpus": self.gpus,
            "unmet_share": json_number(self.unmet),
        }


def spread_fields(scenario: Instances) -> Instances:
    """Give the fields that a question may change their axes, where the scenario leaves them out."""
    fields, moved = scenario.fields, {}
    for name in ("max_replicas", "gpu_quota", "throughput_shortfall"):
        held = np.asarray(getattr(fields, name))
        if is_absent(name, held):
            moved[name] = np.full([len(scenario.axis_names(a)) for a in FIELD_SPECS[name].axes], held)
    return scenario.with_fields(**moved) if moved else scenario


def ask_questions(scenario: Instances, plan: Plan, catalog: Catalog) -> list[Question]:
    """List the questions about a scenario whose best plan is known.

    Args:
      scenario: B = 1, from `spread_fields`.
      catalog: the nominal one, whose curves are read anew for tighter promises.
    """
    return [
        *_ask_traffic(scenario),
        *_ask_prices(scenario, plan),
        *_ask_promises(scenario, catalog),
        *_ask_quota(scenario),
        *_ask_one_gpu(scenario),
        *_ask_one_model(scenario),
        *_ask_rates(scenario),
    ]


def ask_limits(scenario: Instances, plan: Plan) -> list[Question]:
    """List the limits of a fleet, each one step looser."""
    return [
        Question("limit", name, f"{name}.", change)
        for name, change in loosen_fleet(scenario, 0, plan).items()
    ]


def answer_questions(scenario: Instances, questions: Sequence[Question], solve: Solve) -> list[WhatIf]:
    """Solve the scenario once per question."""
    if not questions:
        return []
    batch = variants(scenario, 0, [q.change for q in questions])
    answers = solve(batch)
    return [
        make_what_if(q.group, q.name, q.what, batch, b, answer)
        for b, (q, answer) in enumerate(zip(questions, answers, strict=True))
    ]


def make_what_if(group: str, name: str, what: str, batch: Instances, b: int, answer: Answer) -> WhatIf:
    """Read an answer in $/h."""
    fields = batch.one(b)
    hours, plan = float(fields.rental_hours), answer.plan
    costs = answer.cost_by_name
    gpus: dict[str, int] = {}
    unmet = math.nan
    if plan is not None:
        for pair in plan.deployments:
            gpus[pair.gpu] = gpus.get(pair.gpu, 0) + pair.tp * pair.replicas
        shares = np.array([plan.unmet.get(q, 0.0) for q in batch.query_names])
        unmet = float((fields.arrival_rate * shares).sum() / fields.arrival_rate.sum())
    return WhatIf(
        group=group,
        name=name,
        what=what,
        status=answer.status.word,
        lower=answer.lower / hours,
        upper=answer.upper / hours,
        rent=math.nan if costs is None else costs["rental_cost"] / hours,
        elsewhere=math.nan if costs is None else costs["unmet_cost"] / hours,
        gpus=gpus,
        unmet=unmet,
        plan=plan,
    )


def _ask_traffic(scenario: Instances) -> list[Question]:
    rate = scenario.one(0).arrival_rate
    return [
        Question(
            "traffic",
            f"traffic x {factor:g}",
            f"All traffic grows to {factor:g} times what is planned.",
            {"arrival_rate": rate * factor},
        )
        for factor in GROWTH
    ]


def _ask_prices(scenario: Instances, plan: Plan) -> list[Question]:
    """Ask of each device that the plan rents: dearer by a fifth, or gone."""
    price = scenario.one(0).gpu_price
    rented = {scenario.gpu_devices[scenario.gpu_names.index(d.gpu)] for d in plan.deployments}
    found = []
    for device in dict.fromkeys(scenario.gpu_devices):
        if device not in rented:
            continue
        mine = np.array([d == device for d in scenario.gpu_devices])
        found.append(
            Question(
                "price",
                f"{device} 20% dearer",
                f"The price of {device} rises by a fifth.",
                {"gpu_price": np.where(mine, price * DEARER, price)},
            )
        )
        gone = f"No {device} can be had any more."
        found.append(Question("gone", f"no {device}", gone, _forbid(scenario, ~mine[None, :])))
    return found


def _forbid(scenario: Instances, allowed: np.ndarray) -> Change:
    """Return the change after which only pairs where ``allowed`` (J,K, or broadcast to it) may have replicas."""
    return {"max_replicas": np.where(allowed, scenario.one(0).max_replicas, 0)}


def _ask_promises(scenario: Instances, catalog: Catalog) -> list[Question]:
    """Ask for limits of latency a fifth tighter: those that rates are read off curves by, and the end-to-end one."""
    promises = {q: catalog.promises[q] for q in scenario.query_names if q in catalog.promises}
    if not promises or not catalog.curves:
        return []
    tight = catalog.with_promises({q: p.scaled(TIGHTER) for q, p in promises.items()})
    # Delays, stays in memory and speed-ups are read off the same points as the rates.
    follows = [name for name in ("throughput", *FOLLOWING) if name in tight.quantities]
    change = {name: tight.ranges[name][0] for name in follows}
    change["delay_threshold"] = scenario.one(0).delay_threshold * TIGHTER
    what = (
        "Every promise of latency is a fifth tighter, the end-to-end limit too; rates and latencies are read off the "
        "same curves."
    )
    return [Question("promises", "promises 20% tighter", what, change)]


def _ask_quota(scenario: Instances) -> list[Question]:
    fields = scenario.one(0)
    if not np.isfinite(fields.gpu_quota).any():
        return []
    change = {
        "gpu_quota": np.full(len(scenario.gpu_names), np.inf),
        "max_replicas": np.where(fields.max_replicas > 0, _ANY_REPLICAS, 0),
    }
    return [
        Question(
            "quota", "no quota", "Any number of every GPU can be had, in any number of replicas.", change
        )
    ]


def _ask_one_gpu(scenario: Instances) -> list[Question]:
    devices = tuple(dict.fromkeys(scenario.gpu_devices))
    if len(devices) < 2:
        return []
    return [
        Question(
            "one GPU",
            f"{device} only",
            f"Only {device} is rented, within its quota.",
            _forbid(scenario, np.array([d == device for d in scenario.gpu_devices])[None, :]),
        )
        for device in devices
    ]


def _ask_one_model(scenario: Instances) -> list[Question]:
    if len(scenario.model_names) < 2:
        return []
    return [
        Question(
            "one model",
            f"{model} only",
            f"Only {model} is deployed.",
            _forbid(scenario, np.array([m == model for m in scenario.model_names])[:, None]),
        )
        for model in scenario.model_names
    ]


def _ask_rates(scenario: Instances) -> list[Question]:
    what = "Every rate of every replica is 22% lower than stated, and may fall short of that as before."
    return [Question("rates", "rates 22% lower", what, {"throughput": scenario.one(0).throughput * SLOWER})]
