"""The independent checker: one plan on one instance, by name, in NumPy float64.

It restates MODEL sections 3 to 5 and shares no arithmetic with `rodiu_jax.model.evaluation` or the solvers, so that one
mistake cannot hide in both. Every plan that the program reports has passed through here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from rodiu_jax.errors import InputError
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import Plan, validate_plan
from rodiu_jax.model.tolerances import MARGIN_TOLERANCE, RECOMPUTED
from rodiu_jax.model.verdict import COSTS, FAMILIES, Verdict

if TYPE_CHECKING:
    import pandas as pd


def _largest_excess(weights: list[float], budget: float) -> float:
    """Sum of the ``floor(budget)`` largest weights plus the fraction of the next one."""
    ordered = sorted(weights, reverse=True)
    whole = min(math.floor(budget), len(ordered))
    total = math.fsum(ordered[:whole])
    if whole < len(ordered):
        total += (budget - whole) * ordered[whole]
    return total


def check_plan(plan: Plan, instances: Instances, b: int) -> Verdict:
    """Costs, margins and feasibility of ``plan`` on scenario ``b``.

    Raises:
      InputError: no such scenario, or as `validate_plan`; a share below 0 or not a number is a verdict.

    Source: MODEL sections 3, 4 and 5; tolerance and scales as `Verdict` says.
    """
    validate_plan(plan, instances)
    f = instances.one(b)
    query = {name: i for i, name in enumerate(instances.query_names)}
    model = {name: j for j, name in enumerate(instances.model_names)}
    gpu = {name: k for k, name in enumerate(instances.gpu_names)}
    speed = {int(n): float(s) for n, s in zip(f.tp_degree, f.tp_speedup, strict=True)}
    tp = {(d.model, d.gpu): d.tp for d in plan.deployments}
    tokens = [float(h) + float(o) for h, o in zip(f.input_tokens, f.output_tokens, strict=True)]
    hours = float(f.rental_hours)
    adversary_d = 0.0 if instances.uncertainty == "none" else float(f.gamma_delay)
    adversary_e = 0.0 if instances.uncertainty == "none" else float(f.gamma_error)

    delay_cost = unmet_cost = 0.0
    moved_data = 0.0  # GB of the served traffic
    kv = dict.fromkeys(tp, 0.0)
    flops = dict.fromkeys(tp, 0.0)
    named: dict[str, float] = {}  # every single constraint's margin, by its full name
    for name, i in query.items():
        mine = [r for r in plan.routes if r.query == name]
        rate, length = float(f.arrival_rate[i]), tokens[i]
        mean_delay = mean_error = served = 0.0
        excess_d: list[float] = []
        excess_e: list[float] = []
        for r in mine:
            j, k, pair = model[r.model], gpu[r.gpu], (r.model, r.gpu)
            shrink_d = shrink_e = 1.0
            if instances.uncertainty == "ddu" and r.share > 0:
                shrink_d -= float(f.delay_impact[j, k])
                shrink_e -= float(f.error_impact[j, k])
            ms = length * r.share / speed[tp[pair]]
            mean_delay += float(f.delay_nominal[i, j, k]) * ms
            excess_d.append(float(f.delay_deviation[i, j, k]) * shrink_d * ms)
            mean_error += float(f.error_nominal[i, j, k]) * r.share
            excess_e.append(float(f.error_deviation[i, j, k]) * shrink_e * r.share)
            served += r.share
            kv[pair] += float(f.kv_per_token[j]) * length * rate * float(f.residency_hours) * r.share
            flops[pair] += float(f.compute_per_token[i]) * length * r.share
            moved_data += float(f.token_size[i]) * length * rate / 1000.0 * r.share
        worst_delay = mean_delay + _largest_excess(excess_d, adversary_d)
        worst_error = mean_error + _largest_excess(excess_e, adversary_e)
        unmet = plan.unmet.get(name, 0.0)
        delay_cost += hours * float(f.delay_penalty[i]) * rate * worst_delay
        unmet_cost += hours * float(f.unmet_penalty[i]) * rate * unmet
        cap, limit = float(f.unmet_cap), int(f.max_routes)
        most_ms, most_errors = float(f.delay_threshold[i]), float(f.error_threshold[i])
        named[f"demand[{name}]"] = -abs(served + unmet - 1.0)
        named[f"unmet[{name}]"] = (cap - unmet) / (cap or 1.0)
        if limit > 0:
            used = sum(r.share > 0 for r in mine)
            named[f"routes[{name}]"] = (limit - used) / limit
        named[f"delay[{name}]"] = (most_ms * served - worst_delay) / (most_ms or 1.0)
        named[f"error[{name}]"] = (most_errors * served - worst_error) / (most_errors or 1.0)

    rental_cost = 0.0
    weights = 0.0
    for (m, g), n in tp.items():
        j, k = model[m], gpu[g]
        rental_cost += hours * float(f.gpu_price[k]) * n
        weights += float(f.weight_memory[j])
        memory, compute = float(f.gpu_memory[k]), float(f.gpu_compute[k]) * n
        needed = (float(f.weight_memory[j]) + kv[m, g]) / n
        named[f"memory[{m},{g}]"] = (memory - needed) / (memory or 1.0)
        named[f"compute[{m},{g}]"] = (compute - flops[m, g]) / (compute or 1.0)
    storage_cost = hours * float(f.storage_price) * (weights + moved_data)
    room, money = float(f.storage_capacity), float(f.budget)
    named["storage"] = (room - weights) / (room or 1.0)
    named["budget"] = (money - rental_cost - storage_cost) / (money or 1.0)

    margins: dict[str, float] = dict.fromkeys(FAMILIES, math.inf)
    for constraint, margin in named.items():
        family = constraint.partition("[")[0]
        margins[family] = min(margins[family], margin)
    broken_demand = margins["demand"] < -MARGIN_TOLERANCE
    tight = {n: v for n, v in named.items() if broken_demand or not n.startswith("demand[")}
    costs = {
        "total_cost": rental_cost + storage_cost + delay_cost + unmet_cost,
        "rental_cost": rental_cost,
        "storage_cost": storage_cost,
        "delay_cost": delay_cost,
        "unmet_cost": unmet_cost,
    }
    return Verdict(
        feasible=all(v >= -MARGIN_TOLERANCE for v in named.values()) and not _negative(plan),
        costs=costs,
        margins=margins,
        binding=min(tight, key=lambda n: tight[n]),
    )


class Everywhere(NamedTuple):
    """Verdicts on one plan in B scenarios.

    Attributes:
      feasible: bool, shape (B,).
      costs: by name, as `Verdict.costs`; shape (B,) each.
      margins: by family, as `Verdict.margins`; shape (B,) each.
      binding: position in ``names`` of the tightest constraint; shape (B,).
      names: every constraint of the plan.
    """

    feasible: np.ndarray
    costs: dict[str, np.ndarray]
    margins: dict[str, np.ndarray]
    binding: np.ndarray
    names: tuple[str, ...]


def check_everywhere(plan: Plan, instances: Instances) -> Everywhere:
    """What `check_plan` says of ``plan`` on every scenario, all at once; about a thousandth of its time.

    Raises:
      InputError: as `validate_plan`.

    Source: MODEL sections 3, 4 and 5.
    """
    validate_plan(plan, instances)
    size = instances.size

    def of(name: str) -> np.ndarray:  # leading axis of scenarios, or of 1
        value = np.asarray(getattr(instances.fields, name), float)
        return value if name in instances.batched else value[None]

    model = {name: j for j, name in enumerate(instances.model_names)}
    gpu = {name: k for k, name in enumerate(instances.gpu_names)}
    degree = {name: n for n, name in enumerate(instances.axis_names("N"))}
    tp = {(d.model, d.gpu): d.tp for d in plan.deployments}
    hours, rates, tokens = of("rental_hours"), of("arrival_rate"), of("input_tokens") + of("output_tokens")
    known, decides = instances.uncertainty == "none", instances.uncertainty == "ddu"
    delay_cost, unmet_cost, moved_data = (np.zeros(size) for _ in range(3))
    kv = {pair: np.zeros(size) for pair in tp}
    flops = {pair: np.zeros(size) for pair in tp}
    named: dict[str, np.ndarray] = {}
    for i, name in enumerate(instances.query_names):
        mine = [r for r in plan.routes if r.query == name]
        rate, length = rates[:, i], tokens[:, i]
        mean_delay, mean_error, served = np.zeros(size), np.zeros(size), 0.0
        excess_d, excess_e = (np.zeros((size, len(mine))) for _ in range(2))
        for m, r in enumerate(mine):
            j, k, pair = model[r.model], gpu[r.gpu], (r.model, r.gpu)
            shrinks = decides and r.share > 0
            ms = length * r.share / of("tp_speedup")[:, degree[str(tp[pair])]]
            mean_delay += of("delay_nominal")[:, i, j, k] * ms
            mean_error += of("error_nominal")[:, i, j, k] * r.share
            left_d, left_e = (1.0 - of(n)[:, j, k] * shrinks for n in ("delay_impact", "error_impact"))
            excess_d[:, m] = of("delay_deviation")[:, i, j, k] * left_d * ms
            excess_e[:, m] = of("error_deviation")[:, i, j, k] * left_e * r.share
            served += r.share
            kv[pair] += of("kv_per_token")[:, j] * length * rate * of("residency_hours") * r.share
            flops[pair] += of("compute_per_token")[:, i] * length * r.share
            moved_data += of("token_size")[:, i] * length * rate / 1000.0 * r.share
        if not known:
            mean_delay += _largest_excesses(excess_d, of("gamma_delay"))
            mean_error += _largest_excesses(excess_e, of("gamma_error"))
        unmet = plan.unmet.get(name, 0.0)
        delay_cost += hours * of("delay_penalty")[:, i] * rate * mean_delay
        unmet_cost += hours * of("unmet_penalty")[:, i] * rate * unmet
        used, limit = sum(r.share > 0 for r in mine), of("max_routes")
        named[f"demand[{name}]"] = np.full(1, -abs(served + unmet - 1.0))
        named[f"unmet[{name}]"] = _margin(of("unmet_cap"), unmet)
        named[f"routes[{name}]"] = np.where(limit > 0, 1.0 - used / np.where(limit > 0, limit, 1.0), math.inf)
        for family, worst in (("delay", mean_delay), ("error", mean_error)):
            most = of(f"{family}_threshold")[:, i]
            named[f"{family}[{name}]"] = (most * served - worst) / np.where(most > 0, most, 1.0)
    rental_cost, weights = np.zeros(size), np.zeros(size)
    for (m, g), n in tp.items():
        j, k = model[m], gpu[g]
        weight = of("weight_memory")[:, j]
        rental_cost += hours * of("gpu_price")[:, k] * n
        weights += weight
        named[f"memory[{m},{g}]"] = _margin(of("gpu_memory")[:, k], (weight + kv[m, g]) / n)
        named[f"compute[{m},{g}]"] = _margin(of("gpu_compute")[:, k] * n, flops[m, g])
    storage_cost = hours * of("storage_price") * (weights + moved_data)
    named["storage"] = _margin(of("storage_capacity"), weights)
    named["budget"] = _margin(of("budget"), rental_cost + storage_cost)

    every = np.stack([np.broadcast_to(margin, (size,)) for margin in named.values()])
    families = [name.partition("[")[0] for name in named]
    margins = {
        family: every[[m for m, of_family in enumerate(families) if of_family == family]].min(
            0, initial=math.inf
        )
        for family in FAMILIES
    }
    demand = np.array([family == "demand" for family in families])
    met = margins["demand"] >= -MARGIN_TOLERANCE
    binding = np.where(demand[:, None] & met[None], math.inf, every).argmin(0)
    total = rental_cost + storage_cost + delay_cost + unmet_cost
    costs: dict[str, np.ndarray] = dict(
        zip(COSTS, (total, rental_cost, storage_cost, delay_cost, unmet_cost), strict=True)
    )
    kept = np.all(every >= -MARGIN_TOLERANCE, axis=0, keepdims=True)[0]
    feasible = kept if not _negative(plan) else np.zeros_like(kept)
    return Everywhere(feasible, costs, margins, binding, tuple(named))


def _margin(limit: np.ndarray, value: np.ndarray | float) -> np.ndarray:
    return (limit - value) / np.where(limit > 0, limit, 1.0)


def _largest_excesses(weights: np.ndarray, budget: np.ndarray) -> np.ndarray:
    """`_largest_excess` of each row of ``weights``."""
    ordered = np.sort(weights, axis=1)[:, ::-1]
    return (ordered * np.clip(budget[:, None] - np.arange(weights.shape[1]), 0.0, 1.0)).sum(1)


def check_scores(
    table: pd.DataFrame, plans: Sequence[Plan], instances: Instances, *, source: str | Path = "table"
) -> pd.DataFrame:
    """Check a table of `rodiu_jax.model.evaluation.evaluate` row by row against `check_plan`.

    A row holds where its costs and margins are the checker's to 1e-9 (relative to the total cost; margins absolute,
    relative to their own size above 1), and ``feasible`` too, unless a margin is that near to the tolerance.

    Args:
      source: what errors name as the origin of ``table``.

    Returns:
      a row per row of ``table``: ``plan``, ``instance``, ``ok``, ``reason`` (empty where ok).

    Raises:
      InputError: a column is missing or not of numbers, or a plan or scenario does not exist.
    """
    import pandas as pd

    wanted = ("plan", "instance", "feasible", *COSTS, *(f"margin_{n}" for n in FAMILIES))
    if missing := [n for n in wanted if n not in table.columns]:
        raise InputError(source, missing[0], "this column, which is missing")
    found = []
    for n in wanted:
        kinds = "b" if n == "feasible" else "iu" if n in ("plan", "instance") else "iuf"
        if getattr(table[n].dtype, "kind", "?") not in kinds:
            what = {"b": "true or false", "iu": "whole numbers"}.get(kinds, "numbers")
            raise InputError(source, n, f"a column of {what}", str(table[n].dtype))
    columns = {str(n): table[n].tolist() for n in wanted}
    for values in zip(*columns.values(), strict=True):
        row = dict(zip(columns, values, strict=True))
        p, b = row["plan"], instances.check_index(row["instance"], str(source))
        if not 0 <= p < len(plans):
            raise InputError(source, "plan", f"a whole number from 0 to {len(plans) - 1}", p)
        verdict = check_plan(plans[p], instances, b)
        near = RECOMPUTED * (1.0 + abs(verdict.costs["total_cost"]))
        reasons = [
            f"{n} is not that of the plan" for n in COSTS if not abs(row[n] - verdict.costs[n]) <= near
        ]
        for n in FAMILIES:
            claimed, margin = row[f"margin_{n}"], verdict.margins[n]
            if claimed != margin and not abs(claimed - margin) <= RECOMPUTED * (1.0 + abs(margin)):
                reasons.append(f"margin_{n} is not that of the plan")
        least = min(verdict.margins.values())
        if bool(row["feasible"]) is not verdict.feasible and not abs(least + MARGIN_TOLERANCE) <= RECOMPUTED:
            reasons.append(
                "the plan is feasible" if verdict.feasible else f"not feasible: it breaks {verdict.binding}"
            )
        found.append((p, b, not reasons, "; ".join(reasons)))
    return pd.DataFrame(found, columns=["plan", "instance", "ok", "reason"])


def _negative(plan: Plan) -> bool:
    """True where a share is below 0 or not a number (files are refused earlier; solvers are not)."""
    return not all(s >= 0 for s in [*(r.share for r in plan.routes), *plan.unmet.values()])
