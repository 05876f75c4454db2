"""Answers as rows: the columns of a sweep's table, made for many scenarios at once."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from rodiu_jax.certificates import certificate_table
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import Plan
from rodiu_jax.model.verdict import COSTS
from rodiu_jax.sweeps.columns import ANSWERS, KEYS

if TYPE_CHECKING:
    from rodiu_jax.sweeps.spec import SweepSpec
    from solvers.result import Result

_PLAN = ("unmet_share", "gpus_rented", "pairs_deployed", "deployments", "plan")


@dataclass(frozen=True)
class Block:
    """Answers to consecutive scenarios, column by column: what a cheap method gives in place of single results.

    Attributes:
      instance: the first scenario.
      size: scenarios.
      columns: by name, of the columns after the factors: arrays (NumPy's, Arrow's) or lists of ``size`` entries,
        or one value for all.
        A column that is not there, a None and a number that is not finite are missing in the table.
    """

    instance: int
    size: int
    columns: Mapping[str, Any]


def schema_of(spec: SweepSpec) -> pa.Schema:
    """The columns of a sweep's table."""
    return pa.schema({**KEYS, **dict.fromkeys(spec.columns, pa.float64()), **ANSWERS})


def table_of(
    spec: SweepSpec, rows: np.ndarray, answers: Sequence[Result | Block], instances: Instances
) -> pa.Table:
    """The table of answers; what is not known is missing, never 0 or an infinity.

    Args:
      rows: the number of each scenario answered, as in `SweepSpec.rows`.
      answers: results one by one or in blocks, in the order of ``rows``; ``instances`` are whose they are.
    """
    parts, at = [], 0
    for group in _runs(answers):
        if isinstance(group, Block):
            size, columns = group.size, group.columns
        else:
            size, columns = len(group), _columns_of(group, instances)
        parts.append(_table(spec, rows[at : at + size], columns))
        at += size
    return pa.concat_tables(parts).combine_chunks() if parts else schema_of(spec).empty_table()


def proofs_of(first: int, answers: Iterable[Result | Block], instances: Instances) -> pa.Table:
    """The certificates of answers, numbered as the sweep's rows from ``first``; their plans are in the rows."""
    proofs = []
    for m, answer in enumerate(answers):
        assert not isinstance(answer, Block), "a cheap method proves no lower bound"
        proofs.append(replace(answer, instance=first + m, plan=None))
    return certificate_table(proofs, instances)


def plan_columns(plan: Plan | None, instances: Instances, b: int) -> dict[str, Any]:
    """What is deployed and the share of arriving queries not served; nothing where there is no plan."""
    if plan is None:
        return {}
    rates = np.asarray(instances.fields.arrival_rate)
    rates = rates[b] if "arrival_rate" in instances.batched else rates
    return plan_constants(plan) | {"unmet_share": float(unmet_shares(plan, rates, instances.query_names))}


def plan_constants(plan: Plan) -> dict[str, Any]:
    """The columns that are the plan's own, whatever the scenario."""
    return {
        "gpus_rented": sum(d.tp for d in plan.deployments),
        "pairs_deployed": len(plan.deployments),
        "deployments": plan.summary(),
        "plan": json.dumps(plan.to_json() | {"instance": None}, allow_nan=False),
    }


def unmet_shares(plan: Plan, rates: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Share of arriving queries not served, for rates of shape (..., I); nan where nothing arrives."""
    unmet = np.array([plan.unmet.get(name, 0.0) for name in names])
    total = rates.sum(-1)
    return np.divide(rates @ unmet, total, out=np.full(np.shape(total), math.nan), where=total > 0)


def _runs(answers: Iterable[Result | Block]) -> Iterator[Block | list[Result]]:
    """Blocks one by one, and results that follow each other together."""
    singles: list[Result] = []
    for answer in answers:
        if not isinstance(answer, Block):
            singles.append(answer)
            continue
        if singles:
            yield singles
            singles = []
        yield answer
    if singles:
        yield singles


def _columns_of(results: Sequence[Result], instances: Instances) -> dict[str, Any]:
    costs = [r.costs or {} for r in results]
    plans = [plan_columns(r.plan, instances, r.instance) for r in results]
    return {
        "lower_bound": np.array([r.bound for r in results], float),
        "upper_bound": np.array([r.objective for r in results], float),
        "certified_lower_bound": np.array([r.certified for r in results], float),
        "gap": np.array([r.gap for r in results], float),
        **{n: np.array([c.get(n, math.nan) for c in costs], float) for n in COSTS},
        **{n: [p.get(n) for p in plans] for n in _PLAN},
        "status": [r.status for r in results],
        "method": [r.method for r in results],
        "nodes": [r.nodes for r in results],
        "steps": [r.steps for r in results],
        "seconds": np.array([r.seconds for r in results], float),
        "message": [r.message or None for r in results],
    }


def _table(spec: SweepSpec, rows: np.ndarray, columns: Mapping[str, Any]) -> pa.Table:
    samples, points = np.divmod(np.asarray(rows, np.int64), spec.points)
    levels = dict(zip(spec.columns, spec.levels_at(points), strict=True))
    schema = schema_of(spec)
    arrays = [
        pa.array(samples),
        pa.array(points),
        *(pa.array(level, pa.float64()) for level in levels.values()),
    ]
    for name, kind in ANSWERS.items():
        arrays.append(_array(columns.get(name), kind, len(rows)))
    return pa.Table.from_arrays(arrays, schema=schema)


def _array(values: Any, kind: pa.DataType, size: int) -> pa.Array:
    if values is None:
        return pa.nulls(size, kind)
    if isinstance(values, pa.Array):
        return values.cast(kind)
    if isinstance(values, str | int | float):
        return pa.repeat(pa.scalar(values, kind), size)
    if pa.types.is_floating(kind):
        numbers = np.asarray(
            [math.nan if v is None else v for v in values] if isinstance(values, list) else values
        )
        return pa.array(numbers, kind, mask=~np.isfinite(numbers))
    return pa.array(values, kind)
