"""Answers as rows of a sweep's table, and stored rows as answers again."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float64, Int8, Int64

from rodiu_jax.certificates import tabulate_leaves
from rodiu_jax.errors import InputError
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import Plan
from rodiu_jax.model.plan_columns import deployment_texts, distinct_plans, plan_texts
from rodiu_jax.model.plan_json import plan_from_json
from rodiu_jax.model.slots import split_slots
from rodiu_jax.model.status import Prover, Status
from rodiu_jax.model.verdict import COSTS
from rodiu_jax.sweeps.columns import ANSWERS, KEYS

if TYPE_CHECKING:
    from rodiu_jax.sweeps.spec import SweepSpec
    from solvers.answers import Answers


def schema_of(spec: SweepSpec) -> pa.Schema:
    """Return the columns of a sweep's table."""
    return pa.schema({**KEYS, **dict.fromkeys(spec.columns, pa.float64()), **ANSWERS})


def table_of(
    spec: SweepSpec, rows: Int64[np.ndarray, " B"], answers: Answers, instances: Instances
) -> pa.Table:
    """Return the table of answers; what is not known is missing, never 0 or an infinity.

    Args:
      rows: the number of each scenario answered, as in `SweepSpec.rows`.
      instances: the scenarios; answer b is about scenario b.
    """
    samples, points = np.divmod(np.asarray(rows, np.int64), spec.points)
    given = answers.prover == Prover.EVALUATE  # nothing was searched
    columns = {
        "lower_bound": answers.lower,
        "upper_bound": answers.upper,
        "certified_lower_bound": answers.certified,
        "gap": answers.gap,
        **dict(zip(COSTS, answers.costs.T, strict=True)),
        **plan_columns(answers, instances),
        "status": _words(Status, answers.status),
        "method": _words(Prover, answers.prover),
        "nodes": pa.array(answers.nodes, mask=given),
        "steps": pa.array(answers.steps, mask=given),
        "seconds": answers.seconds,
        "message": pa.array(answers.message, pa.string(), mask=answers.message == ""),
    }
    arrays = [
        pa.array(samples),
        pa.array(points),
        *(pa.array(a, pa.float64()) for a in spec.levels_at(points)),
    ]
    arrays += [_array(columns[name], kind) for name, kind in ANSWERS.items()]
    return pa.Table.from_arrays(arrays, schema=schema_of(spec))


def proofs_of(first: int, answers: Answers, instances: Instances) -> pa.Table:
    """Return the certificates of answers, numbered as the sweep's rows from ``first``; their plans are in the rows."""
    if answers.leaves is None:
        raise InputError("certificates", f"row {first}", "an answer that was made with its certificate")
    leaves = replace(answers.leaves, scenario=answers.leaves.scenario + first)
    return tabulate_leaves(leaves, {}, instances)


def plan_columns(answers: Answers, instances: Instances) -> dict[str, Any]:
    """Return what is deployed and the share of arriving queries not served; missing where there is no plan.

    Texts are written once for each distinct plan: given plans are few, however many the rows.
    """
    first, kind = distinct_plans(answers.slots, answers.shares, answers.unmet, answers.replicas)
    kinds = answers.take(first)
    none = ~kinds.has_plan
    used = kinds.slots >= 0  # U,D
    degree = split_slots(np.where(used, kinds.slots, 0), answers.names).degree
    gpus = np.where(used, np.array(answers.names.degrees)[degree], 0)
    if kinds.replicas is not None:
        gpus = gpus * kinds.replicas
    deployments = deployment_texts(answers.names, kinds.slots, kinds.replicas)
    plans = plan_texts(answers.names, kinds.slots, kinds.shares, np.nan_to_num(kinds.unmet), kinds.replicas)
    columns = {
        "gpus_rented": pa.array(gpus.sum(1), pa.int64(), mask=none),
        "pairs_deployed": pa.array(used.sum(1), pa.int64(), mask=none),
        "deployments": pa.array(np.array(deployments, object), pa.string(), mask=none),
        "plan": pa.array(np.array(plans, object), pa.string(), mask=none),
    }
    rates = np.broadcast_to(np.asarray(instances.fields.arrival_rate), answers.unmet.shape)
    share = unmet_shares(answers.unmet, rates)
    return {"unmet_share": share} | {name: column.take(kind) for name, column in columns.items()}


def unmet_shares(
    unmet: Float64[np.ndarray, "B I"], rates: Float64[np.ndarray, "B I"]
) -> Float64[np.ndarray, " B"]:
    """Return the share of arriving queries that is not served; nan where nothing arrives, or there is no plan."""
    total = rates.sum(1)
    return np.divide((rates * unmet).sum(1), total, out=np.full(len(total), math.nan), where=total > 0)


def answers_from_rows(table: pa.Table, instances: Instances, *, source: str | Path) -> Answers:
    """Return stored rows as the answers they were made from; leaves, and what is promising, are not in the rows.

    Args:
      instances: the scenarios; row b is about scenario b.
      source: what errors name as the origin.

    Raises:
      InputError: a status, a method or a plan that cannot be read.
    """
    from solvers.answers import Answer, Answers

    names = instances.names
    plans, faults = plans_from_rows(table, instances)
    if any(faults):
        raise InputError(source, "plan", f"a plan that can be read ({next(f for f in faults if f)})")
    try:
        status = Status.codes(table["status"].to_pylist())
        prover = Prover.codes(table["method"].to_pylist())
    except ValueError as error:
        raise InputError(source, "status, method", str(error)) from None
    empty = Answers.stack([Answer.of(names, Status.UNKNOWN, plan=plan) for plan in plans], names=names)
    proven = np.where(status == Status.INFEASIBLE, math.inf, -math.inf)
    return replace(
        empty,
        status=status,
        prover=prover,
        lower=_numbers(table, "lower_bound", proven),
        upper=_numbers(table, "upper_bound", math.inf),
        certified=_numbers(table, "certified_lower_bound", proven),
        costs=np.stack([_numbers(table, name) for name in COSTS], axis=1),
        seconds=_numbers(table, "seconds"),
        nodes=_numbers(table, "nodes", 0).astype(np.int64),
        steps=_numbers(table, "steps", 0).astype(np.int64),
        message=np.array([text or "" for text in table["message"].to_pylist()], object),
    )


def plans_from_rows(table: pa.Table, instances: Instances) -> tuple[list[Plan | None], list[str]]:
    """Return the plans of stored rows by name, and per row why its plan cannot be read, mostly empty."""
    plans: list[Plan | None] = []
    faults: list[str] = []
    for text in table["plan"].to_pylist():
        plan, fault = None, ""
        if text is not None:
            try:
                plan = plan_from_json(json.loads(text), instances)
            except (ValueError, TypeError, RecursionError) as error:
                fault = f"its plan cannot be read ({error})"
        plans.append(plan)
        faults.append(fault)
    return plans, faults


def _words(kind: type[Status | Prover], codes: Int8[np.ndarray, " B"]) -> pa.Array:
    """Return the word of each code."""
    return pa.array([member.word for member in kind]).take(pa.array(codes))


def _numbers(table: pa.Table, name: str, missing: Any = math.nan) -> Float64[np.ndarray, " B"]:
    """Return a column of numbers with ``missing`` where it has none."""
    values = table[name].to_numpy().astype(np.float64)
    return np.where(np.isnan(values), missing, values)


def _array(values: Any, kind: pa.DataType) -> pa.Array:
    """Return a column of the table; a number that is not finite is missing."""
    if isinstance(values, pa.Array):
        return values.cast(kind)
    return pa.array(values, kind, mask=~np.isfinite(values))
