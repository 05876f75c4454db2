"""The independent checker: one plan on one instance, by name, in NumPy float64.

It restates MODEL sections 3 to 5 and 9 and shares no arithmetic with `rodiu_jax.model.evaluation` or the solvers, so
that one mistake cannot hide in both. Every plan that the program reports has passed through here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int32, Int64, Integer

from rodiu_jax.errors import InputError
from rodiu_jax.model.fields import Fields
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import DeployedPair, Plan, validate_plan
from rodiu_jax.model.slots import split_slots
from rodiu_jax.model.tolerances import MARGIN_TOLERANCE, RECOMPUTED
from rodiu_jax.model.verdict import COSTS, Verdict

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

    Source: MODEL sections 3, 4, 5 and 9; tolerance and scales as `Verdict` says.
    """
    validate_plan(plan, instances)
    f = instances.one(b)
    query = {name: i for i, name in enumerate(instances.query_names)}
    model = {name: j for j, name in enumerate(instances.model_names)}
    gpu = {name: k for k, name in enumerate(instances.gpu_names)}
    degree = {int(n): m for m, n in enumerate(f.tp_degree)}
    tp = {(d.model, d.gpu): d.tp for d in plan.deployments}
    copies = {(d.model, d.gpu): d.replicas for d in plan.deployments}
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
            n = degree[tp[pair]]
            ms = (
                length
                * r.share
                / float(f.tp_speedup[n] if f.tp_speedup.ndim == 1 else f.tp_speedup[i, j, k, n])
            )
            mean_delay += float(f.delay_nominal[i, j, k]) * ms
            excess_d.append(float(f.delay_deviation[i, j, k]) * shrink_d * ms)
            mean_error += float(f.error_nominal[i, j, k]) * r.share
            excess_e.append(float(f.error_deviation[i, j, k]) * shrink_e * r.share)
            served += r.share
            stay = float(f.residency_hours if f.residency_hours.ndim == 0 else f.residency_hours[i, j, k])
            kv[pair] += float(f.kv_per_token[j]) * length * rate * stay * r.share
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
        j, k, count = model[m], gpu[g], copies[m, g]
        rental_cost += hours * float(f.gpu_price[k]) * n * count
        weights += float(f.weight_memory[j])
        memory, compute = float(f.gpu_memory[k]), float(f.gpu_compute[k]) * n * count
        needed = (float(f.weight_memory[j]) + kv[m, g] / count) / n
        named[f"memory[{m},{g}]"] = (memory - needed) / (memory or 1.0)
        named[f"compute[{m},{g}]"] = (compute - flops[m, g]) / (compute or 1.0)
    storage_cost = hours * float(f.storage_price) * (weights + moved_data)
    room, money = float(f.storage_capacity), float(f.budget)
    named["storage"] = (room - weights) / (room or 1.0)
    named["budget"] = (money - rental_cost - storage_cost) / (money or 1.0)

    named |= _serving_margins(plan, instances, f)
    margins: dict[str, float] = dict.fromkeys(instances.families, math.inf)
    for constraint, margin in named.items():
        family = constraint.partition("[")[0]
        margins[family] = min(margins[family], margin)
    # What often holds with equality binds only when broken.
    quiet = tuple(f"{n}[" for n in ("demand", "replicas") if margins.get(n, 0.0) >= -MARGIN_TOLERANCE)
    tight = {n: v for n, v in named.items() if not n.startswith(quiet)}
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


def _serving_margins(plan: Plan, instances: Instances, f: Fields) -> dict[str, float]:
    """Margins of the constraints of MODEL section 9, by full name; none where the scenarios use none of them."""
    if not {"throughput", "quota", "replicas"} & set(instances.families):
        return {}
    named: dict[str, float] = {}
    rented: dict[str, float] = {}
    quota: dict[str, float] = {}
    for d in plan.deployments:
        j, k = instances.model_names.index(d.model), instances.gpu_names.index(d.gpu)
        most = int(f.max_replicas[j, k] if f.max_replicas.ndim else f.max_replicas)
        named[f"replicas[{d.model},{d.gpu}]"] = (most - d.replicas) / (most or 1)
        device = instances.gpu_devices[k]
        rented[device] = rented.get(device, 0.0) + d.tp * d.replicas
        quota[device] = float(f.gpu_quota[k] if f.gpu_quota.ndim else f.gpu_quota)
        if f.throughput.ndim:
            room = float(f.max_utilization) * d.replicas
            named[f"throughput[{d.model},{d.gpu}]"] = (room - _pair_load(plan, instances, f, d)) / room
    for device, limit in quota.items():
        if math.isfinite(limit):
            named[f"quota[{device}]"] = (limit - rented[device]) / (limit or 1.0)
    return named


def _pair_load(plan: Plan, instances: Instances, f: Fields, pair: DeployedPair) -> float:
    """Load of a pair in replicas, in the worst case; inf where a type is sent to it that it cannot serve."""
    j, k = instances.model_names.index(pair.model), instances.gpu_names.index(pair.gpu)
    n = f.tp_degree.tolist().index(pair.tp)
    loads, extras = [0.0], []
    for r in plan.routes:
        if (r.model, r.gpu) != (pair.model, pair.gpu) or not r.share > 0:
            continue
        i = instances.query_names.index(r.query)
        sustained = float(f.throughput[i, j, k, n])
        if sustained == 0:
            return math.inf
        short = float(
            f.throughput_shortfall[i, j, k] if f.throughput_shortfall.ndim else f.throughput_shortfall
        )
        loads.append(min(float(f.arrival_rate[i]) / sustained, _LARGEST_LOAD) * r.share)
        extras.append(loads[-1] * short / (1.0 - short))
    adversary = 0.0 if instances.uncertainty == "none" else float(f.gamma_throughput)
    return math.fsum(loads) + _largest_excess(extras, adversary)


_LARGEST_LOAD = 1e30
"""As the model says: loads of more replicas count as this."""


class Checks(NamedTuple):
    """Verdicts on R plans, each in a scenario of its own.

    Attributes:
      feasible: as `Verdict.feasible`.
      costs: $ per period in the order of `COSTS`.
      margins: the smallest of each family, in the order of `Instances.families`.
    """

    feasible: Bool[np.ndarray, " R"]
    costs: Float64[np.ndarray, "R 5"]
    margins: Float64[np.ndarray, "R F"]


def check_columns(
    instances: Instances,
    slots: Int32[np.ndarray, "R D"],
    shares: Float64[np.ndarray, "R I D"],
    unmet: Float64[np.ndarray, "R I"],
    *,
    replicas: Int32[np.ndarray, "R D"] | None = None,
    scenario: Int64[np.ndarray, " R"] | None = None,
) -> Checks:
    """Return what `check_plan` says of each plan, all at once; about a thousandth of its time.

    A plan that deploys a pair twice, or routes to a slot that is empty, is not feasible.

    Args:
      slots, shares, unmet, replicas: the plans (`rodiu_jax.model.plan_columns`).
      scenario: in which each is checked; plan r in scenario r by default.

    Source: MODEL sections 3, 4, 5 and 9.
    """
    rows = np.arange(len(slots)) if scenario is None else scenario
    read = _Reader(instances, rows)
    used = slots >= 0  # R,D
    place = split_slots(np.where(used, slots, 0), instances.names)
    j, k, n = place.model, place.gpu, place.degree
    i = np.arange(unmet.shape[1])[None, :, None]
    cell = (i, j[:, None, :], k[:, None, :])
    fields = instances.fields
    by_pair = np.ndim(fields.tp_speedup) - ("tp_speedup" in instances.batched) == 4
    speed = read("tp_speedup", *cell, n[:, None, :]) if by_pair else read("tp_speedup", n)[:, None, :]
    ms_each = (read("input_tokens") + read("output_tokens"))[:, :, None] / speed
    stated = np.ones(used.shape) if replicas is None else np.where(used, replicas, 1).astype(np.float64)
    copies = np.maximum(stated, 1.0)
    rate, hours = read("arrival_rate"), read("rental_hours")  # R,I and R
    length = read("input_tokens") + read("output_tokens")
    left_d = left_e = np.ones(used.shape)
    if instances.uncertainty == "ddu":
        left_d, left_e = 1.0 - read("delay_impact", j, k), 1.0 - read("error_impact", j, k)
    delay = (read("delay_nominal", *cell) * ms_each * shares).sum(2)  # R,I
    error = (read("error_nominal", *cell) * shares).sum(2)
    if instances.uncertainty != "none":
        excess = read("delay_deviation", *cell) * left_d[:, None, :] * ms_each * shares
        delay += _largest_excesses(excess, read("gamma_delay"))
        excess = read("error_deviation", *cell) * left_e[:, None, :] * shares
        error += _largest_excesses(excess, read("gamma_error"))

    gpus = np.where(used, read("tp_degree", n), 0.0)  # R,D
    weights = np.where(used, read("weight_memory", j), 0.0)
    served = shares.sum(2)  # R,I
    moved = (read("token_size") * length * rate / 1000.0 * served).sum(1)
    rental_cost = hours * (read("gpu_price", k) * gpus * copies).sum(1)
    storage_cost = hours * read("storage_price") * (weights.sum(1) + moved)
    delay_cost = hours * (read("delay_penalty") * rate * delay).sum(1)
    unmet_cost = hours * (read("unmet_penalty") * rate * unmet).sum(1)
    parts = (rental_cost, storage_cost, delay_cost, unmet_cost)

    by_pair = np.ndim(fields.residency_hours) - ("residency_hours" in instances.batched) == 3
    stay = read("residency_hours", *cell) if by_pair else read("residency_hours")[:, None, None]
    resident = (length * rate)[:, :, None] * stay * shares  # R,I,D tokens
    kv = read("kv_per_token", j) * resident.sum(1)
    flops = ((read("compute_per_token") * length)[:, :, None] * shares).sum(1)
    each = np.maximum(gpus, 1.0)
    limit = read("max_routes")[:, None]
    routes = 1.0 - (shares > 0).sum(2) / np.maximum(limit, 1.0)
    margins = {
        "demand": -np.abs(served + unmet - 1.0),
        "unmet": _margin(read("unmet_cap")[:, None], unmet),
        "routes": np.where(limit > 0, routes, math.inf),
        "memory": np.where(used, _margin(read("gpu_memory", k), (weights + kv / copies) / each), math.inf),
        "compute": np.where(used, _margin(read("gpu_compute", k) * each * copies, flops), math.inf),
        "storage": _margin(read("storage_capacity"), weights.sum(1))[:, None],
        "budget": _margin(read("budget"), rental_cost + storage_cost)[:, None],
        "delay": _margin(read("delay_threshold"), delay, read("delay_threshold") * served),
        "error": _margin(read("error_threshold"), error, read("error_threshold") * served),
    }
    if "quota" in instances.families:
        most = read("max_replicas", j, k) if np.ndim(fields.max_replicas) else np.ones(used.shape)
        margins["replicas"] = np.where(used, _margin(most, copies), math.inf)
        margins["quota"] = _quota_margins(instances, read, k, gpus * copies)
        margins["throughput"] = np.where(
            used, _throughput_margins(instances, read, j, k, n, shares, copies), math.inf
        )
    least = np.stack([margins[family].min(1, initial=math.inf) for family in instances.families], axis=1)
    pairs = np.sort(np.where(used, j * len(instances.gpu_names) + k, -1 - np.arange(used.shape[1])), axis=1)
    sound = (np.diff(pairs, axis=1) != 0).all(1) & ~(shares * ~used[:, None, :]).any((1, 2))
    sound &= (shares >= 0).all((1, 2)) & (unmet >= 0).all(1)  # and no number that is none
    sound &= (stated >= 1).all(1)
    if "replicas" not in instances.families:
        sound &= (stated == 1).all(1)
    costs = np.stack([sum(parts), *parts], axis=1)
    return Checks((least >= -MARGIN_TOLERANCE).all(1) & sound, costs, least)


def _quota_margins(
    instances: Instances, read: _Reader, k: Integer[np.ndarray, "R D"], rented: Float64[np.ndarray, "R D"]
) -> Float64[np.ndarray, "R D"]:
    """Return the margin of the quota of each slot's device; inf where there is none, or nothing is rented."""
    if not np.ndim(instances.fields.gpu_quota):
        return np.full(rented.shape, math.inf)
    names = np.array(instances.gpu_devices)[k]
    total = ((names[:, :, None] == names[:, None, :]) * rented[:, None, :]).sum(2)
    quota = read("gpu_quota", k)
    limited = (rented > 0) & (quota < math.inf)
    return np.where(limited, _margin(np.where(limited, quota, 1.0), total), math.inf)


def _throughput_margins(
    instances: Instances,
    read: _Reader,
    j: Integer[np.ndarray, "R D"],
    k: Integer[np.ndarray, "R D"],
    n: Integer[np.ndarray, "R D"],
    shares: Float64[np.ndarray, "R I D"],
    copies: Float64[np.ndarray, "R D"],
) -> Float64[np.ndarray, "R D"]:
    """Return the margin of the load of each slot, -inf where it is sent a type that it cannot serve."""
    fields = instances.fields
    if not np.ndim(fields.throughput):
        return np.full(copies.shape, math.inf)
    cell = (np.arange(shares.shape[1])[None, :, None], j[:, None, :], k[:, None, :])
    sustained = read("throughput", *cell, n[:, None, :])
    with np.errstate(over="ignore"):
        each = np.minimum(
            read("arrival_rate")[:, :, None] / np.where(sustained > 0, sustained, 1.0), _LARGEST_LOAD
        )
    load = each * shares
    short = (
        read("throughput_shortfall", *cell) if np.ndim(fields.throughput_shortfall) else np.zeros(load.shape)
    )
    total = load.sum(1)
    if instances.uncertainty != "none":
        extra = (load * short / (1.0 - short)).swapaxes(1, 2)
        total = total + _largest_excesses(extra, read("gamma_throughput"))
    room = read("max_utilization")[:, None] * copies
    impossible = ((shares > 0) & (sustained == 0)).any(1)
    return np.where(impossible, -math.inf, (room - total) / room)


class _Reader:
    """Reads fields at the scenarios of R rows."""

    def __init__(self, instances: Instances, rows: Int64[np.ndarray, " R"]) -> None:
        self._instances, self._rows = instances, rows

    def __call__(self, name: str, *at: np.ndarray) -> np.ndarray:
        """Return a field whole, or at positions on its axes that each have a leading axis of rows (or of 1)."""
        values = np.asarray(getattr(self._instances.fields, name))
        rows = self._rows.reshape(-1, *(1,) * (at[0].ndim - 1 if at else 0))
        if name in self._instances.batched:
            values = values[(rows, *at)] if at else values[rows]
        elif at:
            values = values[at]
        else:
            values = np.broadcast_to(values, (len(rows), *values.shape))
        return values.astype(np.float64)


def _margin(
    limit: Float64[np.ndarray, "*S"], value: np.ndarray, allowed: np.ndarray | None = None
) -> np.ndarray:
    """Return (allowed - value) / limit, where a limit of 0 counts as 1; allowed is the limit unless it is given."""
    return ((limit if allowed is None else allowed) - value) / np.where(limit > 0, limit, 1.0)


def _largest_excesses(
    weights: Float64[np.ndarray, "R I D"], budget: Float64[np.ndarray, " R"]
) -> Float64[np.ndarray, "R I"]:
    """Return `_largest_excess` of each row of ``weights``."""
    ordered = np.sort(weights, axis=2)[:, :, ::-1]
    places = np.clip(budget[:, None] - np.arange(weights.shape[2]), 0.0, 1.0)
    return (ordered * places[:, None, :]).sum(2)


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

    families = instances.families
    wanted = ("plan", "instance", "feasible", *COSTS, *(f"margin_{n}" for n in families))
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
        for n in families:
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
