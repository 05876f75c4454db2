"""Certificates of brackets: a compact Parquet file, and its independent verification in NumPy float64.

A lower bound is certified by the leaves of a search tree. Each leaf holds the triples decided on its path and
multipliers y; the Lagrangian dual function g(y) over the leaf's plans never exceeds the cost of any of them, and the
leaves together hold every plan, so the least g over the leaves is a bound. An upper bound is certified by its plan.

The dual function, for pairs p = (model, GPU), degrees n and triples t = p N + n (prices over one rental period):

    r[i,t] = base[i] (1 + mu_b) + (omega[i] + eta[i]) (d[i,p] + xi[i,p] dev[i,p]) / s[n] - eta[i] Delta[i]
             + zeta[i] (e[i,p] + psi[i,p] edev[i,p] - eps[i]) - pi[i]
    V[t]   = D[t] (1 + mu_b) + mu_s B[p] - m[t] room[t] - c[t] power[t]
             - sum_i most[i,t] max(-r[i,t] - m[t] kv[i,p] - c[t] work[i], 0)
    g      = sum_i (pi[i] - u_max max(pi[i] - Phi[i], 0)) - mu_b delta - mu_s C_s + sum_p term[p]

where term[p] is V of the deployed degree, or the least of 0 and V over the degrees that are still open. Any
eta, zeta, mu, m, c >= 0, any pi and any xi, psi in U(Gamma) give a valid bound (weak duality), so a damaged file can
only lower what is recomputed. This module shares no code with the solvers or with `rodiu_jax.evaluation`.

Rounding. With u = 2^-53, k = 4 (I + P + 40) and A(v) the sum of absolute values of the terms of v, an expression of
this depth errs by less than k u A. So each V is lowered by k u A(V), and g by k u A(g): what is left is a bound.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rodiu_jax.check import check_plan
from rodiu_jax.errors import InputError
from rodiu_jax.files import write_whole
from rodiu_jax.instance import Instances
from rodiu_jax.parquet import read_parquet
from rodiu_jax.plan import Plan, plan_from_json
from rodiu_jax.verdict import COSTS

if TYPE_CHECKING:
    import pandas as pd


class CertifiedLeaf(Protocol):
    """A leaf as the solver gives it: splits from the root, and multipliers named as in `solvers.dual`."""

    @property
    def path(self) -> tuple[int, ...]: ...

    @property
    def multipliers(self) -> Any: ...


class CertifiedBracket(Protocol):
    """What `save_certificates` needs of a bracket."""

    @property
    def instance(self) -> int: ...

    @property
    def plan(self) -> Plan | None: ...

    @property
    def leaves(self) -> Sequence[CertifiedLeaf]: ...


class Certificate(NamedTuple):
    """One scenario's proof.

    Attributes:
      paths: of each leaf, the splits from the root: +(t + 1) where triple t is deployed, -(t + 1) where it is not.
      pairs: of each leaf, the pairs listed in ``values``, increasing.
      values: of each leaf, float32: pi (I), eta (I), zeta (I), mu_b, mu_s, then for each listed pair
        m (N), c (N), xi (I), psi (I). A pair that is not listed has 0 in all four.
      plan: whose cost is the upper bound, or None.
    """

    paths: list[np.ndarray]
    pairs: list[np.ndarray]
    values: list[np.ndarray]
    plan: Plan | None


_COLUMNS = {
    "instance": pa.int64(),
    "leaf": pa.int32(),
    "path": pa.list_(pa.int32()),
    "pairs": pa.list_(pa.int32()),
    "values": pa.list_(pa.float32()),
    "plan": pa.string(),
}


def _about(instances: Instances) -> dict[str, Any]:
    """What gives the positions in a certificate their meaning; kept in the file."""
    return {
        "queries": list(instances.query_names),
        "models": list(instances.model_names),
        "gpus": list(instances.gpu_names),
        "degrees": list(instances.axis_names("N")),
        "uncertainty": instances.uncertainty,
    }


def save_certificates(path: str | Path, brackets: Iterable[CertifiedBracket], instances: Instances) -> None:
    """Write the certificates of brackets made with ``certificates=True``: a row per leaf, whole or not at all.

    Columns: ``instance``, ``leaf`` (from 0), ``path``, ``pairs``, ``values`` (see `Certificate`) and ``plan`` (its
    JSON on leaf 0). Multipliers that are not finite, of a scenario that failed, are written as 0: also valid.
    """
    write_certificates(path, certificate_table(brackets, instances, source=path))


def write_certificates(path: str | Path, table: pa.Table) -> None:
    """Write what `certificate_table` made, whole or not at all."""
    with write_whole(path) as temporary:
        pq.write_table(table, temporary, compression="zstd", write_page_checksum=True)


def certificate_table(
    brackets: Iterable[CertifiedBracket], instances: Instances, *, source: str | Path = "certificates"
) -> pa.Table:
    """The table that `save_certificates` writes."""
    columns: dict[str, list[Any]] = {n: [] for n in _COLUMNS}
    for bracket in brackets:
        if not bracket.leaves:
            raise InputError(
                source, f"instance {bracket.instance}", "a bracket that was made with its certificate"
            )
        for number, leaf in enumerate(bracket.leaves):
            pairs, values = _sparse(leaf.multipliers)
            plan = bracket.plan if number == 0 else None
            columns["instance"].append(bracket.instance)
            columns["leaf"].append(number)
            columns["path"].append(leaf.path)
            columns["pairs"].append(pairs)
            columns["values"].append(values)
            columns["plan"].append(None if plan is None else json.dumps(plan.to_json(), allow_nan=False))
    schema = pa.schema(_COLUMNS, metadata={"rodiu": json.dumps(_about(instances))})
    return pa.table(columns, schema=schema)


def _sparse(multipliers: Any) -> tuple[np.ndarray, np.ndarray]:
    """(pairs, values) of one leaf's multipliers, in the order of `Certificate`."""
    y = {n: np.nan_to_num(np.asarray(a, np.float32), posinf=0.0, neginf=0.0)
         for n, a in multipliers._asdict().items()}  # fmt: skip
    by_pair = np.concatenate(
        [y["memory"], y["compute"], y["delay_adversary"].T, y["error_adversary"].T], axis=1
    )
    pairs = np.flatnonzero(by_pair.any(1))
    head = [np.ravel(y[n]) for n in ("demand", "delay", "error", "budget", "storage")]
    return pairs.astype(np.int32), np.concatenate([*head, by_pair[pairs].ravel()])


def certified_rows(path: str | Path) -> np.ndarray:
    """The scenarios that a whole file of certificates is about, sorted; none where the file cannot be used."""
    try:
        return np.unique(_read(path)["instance"].to_numpy())
    except InputError:
        return np.array([], np.int64)


def load_certificates(path: str | Path, instances: Instances, *, first: int = 0) -> dict[int, Certificate]:
    """Read and validate certificates of ``instances``, by scenario.

    Args:
      first: the number that the file gives to scenario 0.

    Raises:
      InputError: the file is missing, damaged or of other columns; its names, degrees or mode are not those of
        ``instances``; a scenario, triple or pair does not exist; lengths do not fit; a number is not finite; a leaf
        number or a plan is doubled; a plan is not valid.
    """
    table = _read(path)
    _check_about(table, instances, path)
    types, models, gpus, degrees = instances.shape
    pairs, triples = models * gpus, models * gpus * degrees
    columns = {n: table[n].combine_chunks() for n in _COLUMNS}
    for n in _COLUMNS:
        if n != "plan" and (
            columns[n].null_count or (n in ("path", "pairs", "values") and _holes(columns[n]))
        ):
            raise InputError(path, n, "no missing values")
    scenario, leaf = columns["instance"].to_numpy() - first, columns["leaf"].to_numpy()
    path_of, pairs_of, values_of = (_ragged(columns[n]) for n in ("path", "pairs", "values"))

    def refuse(bad: np.ndarray, field: str, expected: str, value: np.ndarray) -> None:
        if bad.any():
            row = int(np.argmax(bad))
            raise InputError(path, f"row {row}: {field}", expected, value[row].item())

    def worst(lists: list[np.ndarray], bad: Any) -> np.ndarray:
        if not lists or not bad(np.concatenate(lists)).any():  # nearly always, and much faster
            return np.zeros(len(lists), bool)
        return np.array([bool(bad(a).any()) for a in lists], bool)

    refuse((scenario < 0) | (scenario >= instances.size), "instance",
           f"a whole number from {first} to {first + instances.size - 1}", scenario + first)  # fmt: skip
    refuse(leaf < 0, "leaf", "a whole number from 0", leaf)
    refuse(worst(path_of, lambda a: (a == 0) | (np.abs(a.astype(np.int64)) > triples)), "path",
           f"triples from 1 to {triples}, or minus that", scenario)  # fmt: skip
    refuse(worst(pairs_of, lambda a: (a < 0) | (a >= pairs) | (np.diff(a, prepend=-1) <= 0)), "pairs",
           f"increasing whole numbers from 0 to {pairs - 1}", scenario)  # fmt: skip
    counts = np.array([len(a) for a in values_of], np.int64)
    needed = 3 * types + 2 + np.array([len(a) for a in pairs_of], np.int64) * 2 * (types + degrees)
    refuse(counts != needed, "values", "as many numbers as types and pairs need", counts)
    refuse(worst(values_of, lambda a: ~np.isfinite(a)), "values", "finite numbers", scenario)
    result: dict[int, Certificate] = {}
    numbers: set[tuple[int, int]] = set()
    for row, (b, number, text) in enumerate(zip(scenario.tolist(), leaf.tolist(), columns["plan"].to_pylist(),
                                                strict=True)):  # fmt: skip
        if (b, number) in numbers:
            raise InputError(path, f"row {row}: leaf", f"each leaf of instance {b} once", number)
        numbers.add((b, number))
        held = result.setdefault(b, Certificate([], [], [], None))
        if text is not None:
            if held.plan is not None:
                raise InputError(path, f"row {row}: plan", f"one plan of instance {b}")
            result[b] = held = held._replace(plan=_plan(text, b, instances, path, row))
        for kept, found in zip(held[:3], (path_of, pairs_of, values_of), strict=True):
            kept.append(found[row])
    return result


def _read(path: str | Path) -> pa.Table:
    table = read_parquet(path, what="a readable, whole Parquet file of certificates")
    for name, kind in _COLUMNS.items():
        if name not in table.column_names:
            raise InputError(path, name, "this column, which is missing")
        if table.schema.field(name).type != kind:
            raise InputError(path, name, f"a column of {kind}", str(table.schema.field(name).type))
    return table


def _check_about(table: pa.Table, instances: Instances, path: str | Path) -> None:
    """Refuse certificates of other names, degrees or mode: their positions would mean something else."""
    try:
        about = json.loads((table.schema.metadata or {}).get(b"rodiu", b"null"))
    except (ValueError, RecursionError):
        about = None
    if not isinstance(about, dict):
        raise InputError(path, "metadata", "names of queries, models and GPUs, which are missing")
    for key, mine in _about(instances).items():
        if about.get(key) != mine:
            raise InputError(path, key, f"{mine} as in the instances", about.get(key))


def _holes(column: Any) -> bool:
    return column.flatten().null_count > 0


def _ragged(column: Any) -> list[np.ndarray]:
    """The rows of a list column as arrays."""
    offsets = column.offsets.to_numpy()
    flat = column.values.to_numpy(zero_copy_only=False)
    return [flat[a:b] for a, b in pairwise(offsets)]


def _plan(text: str, b: int, instances: Instances, path: str | Path, row: int) -> Plan:
    where = f"row {row}: plan"
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(path, where, f"JSON ({error})") from None
    plan = plan_from_json(value, instances, source=path, path=where)
    if plan.instance not in (None, b):
        raise InputError(path, f"{where}.instance", f"{b} or null", plan.instance)
    return plan


@dataclass(frozen=True)
class _Problem:
    """Coefficients of L leaves (a leading axis of L or 1); P pairs, T = P N triples. Money in $ per period."""

    deploy: np.ndarray  # L,T
    fits: np.ndarray  # L,T
    base: np.ndarray  # L,I
    per_ms: np.ndarray  # L,I  omega
    nominal: np.ndarray  # L,I,P  ms at share 1
    excess: np.ndarray  # L,I,P
    slowness: np.ndarray  # L,N
    error: np.ndarray  # L,I,P
    error_excess: np.ndarray  # L,I,P
    kv: np.ndarray  # L,I,P
    work: np.ndarray  # L,I
    room: np.ndarray  # L,T
    power: np.ndarray  # L,T
    most: np.ndarray  # L,I,T
    weights: np.ndarray  # L,T
    unmet_cost: np.ndarray  # L,I
    delay_limit: np.ndarray  # L,I
    error_limit: np.ndarray  # L,I
    budget: np.ndarray  # L
    storage: np.ndarray  # L
    unmet_cap: np.ndarray  # L
    gamma_delay: np.ndarray  # L
    gamma_error: np.ndarray  # L


_UNIT = 2.0**-53


def _problem(instances: Instances, scenario: np.ndarray) -> _Problem:
    """MODEL sections 1 to 5 for the scenarios ``scenario`` (L,).

    Where rounding could shrink what a plan may do (room, fits), the value is rounded up: a larger set of plans has
    a smaller bound.
    """
    types, models, gpus, degrees = instances.shape
    pairs = models * gpus
    taken = instances.take(scenario)

    def get(name: str) -> np.ndarray:
        value = np.asarray(getattr(taken.fields, name), np.float64)
        return value if name in taken.batched else value[None]

    def cells(values: np.ndarray) -> np.ndarray:
        return values.reshape(len(values), types, pairs)

    def triples(values: np.ndarray) -> np.ndarray:  # of K,N, the same for every model
        wide = np.broadcast_to(values[:, None], (len(values), models, gpus, degrees))
        return wide.reshape(len(values), pairs * degrees)

    impact = 1.0 if instances.uncertainty == "ddu" else 0.0
    tokens = get("input_tokens") + get("output_tokens")
    degree, hours, rate = get("tp_degree")[:, None], get("rental_hours")[:, None], get("arrival_rate")
    price = get("storage_price")[:, None]
    weights = np.repeat(get("weight_memory"), gpus * degrees, axis=1)
    memory = triples(get("gpu_memory")[:, :, None] * degree)
    power = triples(get("gpu_compute")[:, :, None] * degree)
    deploy = hours * (triples(get("gpu_price")[:, :, None] * degree) + price * weights)
    room = memory - weights + 8 * _UNIT * (memory + weights)
    fits = (room >= 0) & (weights <= get("storage_capacity")[:, None])
    fits = fits & (deploy * (1 - 16 * _UNIT) <= get("budget")[:, None])
    room = np.maximum(room, 0.0)
    kv_cells = (tokens * rate * get("residency_hours")[:, None])[:, :, None] * np.repeat(
        get("kv_per_token"), gpus, axis=1
    )[:, None]
    work = get("compute_per_token") * tokens
    carried = np.minimum(
        _over(room[:, None], np.repeat(kv_cells, degrees, axis=2)), _over(power[:, None], work[:, :, None])
    )
    most = np.where(fits[:, None], np.minimum(carried * (1 + 16 * _UNIT), 1.0), 0.0)

    def gamma(name: str) -> np.ndarray:
        """The adversary's budget; infinite where it reaches every route that a plan may use."""
        budget = 0.0 * get(name) if instances.uncertainty == "none" else get(name)
        routes = get("max_routes")
        return np.where((routes > 0) & (budget >= routes), math.inf, budget)

    def excess(what: str) -> np.ndarray:
        return cells(get(f"{what}_deviation") * (1.0 - impact * get(f"{what}_impact"))[:, None])

    nominal, slowness = cells(get("delay_nominal")) * tokens[:, :, None], 1.0 / get("tp_speedup")
    error, error_excess = cells(get("error_nominal")), excess("error")
    slower, faulty = excess("delay") * tokens[:, :, None], np.ones((1, 1, 1, degrees))
    for _ in range(3):
        for usual, most_over, name, factor in (
            (nominal, slower, "delay", slowness[:, None, None]),
            (error, error_excess, "error", faulty),
        ):
            most = _repaired(
                most,
                usual,
                most_over,
                get(f"{name}_threshold"),
                np.minimum(gamma(f"gamma_{name}"), pairs),
                get("max_routes"),
                factor,
            )

    return _Problem(
        deploy=deploy,
        fits=fits,
        base=hours * price * get("token_size") * tokens * rate / 1000.0,
        per_ms=hours * get("delay_penalty") * rate,
        nominal=nominal,
        excess=slower,
        slowness=slowness,
        error=error,
        error_excess=error_excess,
        kv=kv_cells,
        work=work,
        room=room,
        power=power,
        most=most,
        weights=weights,
        unmet_cost=hours * get("unmet_penalty") * rate,
        delay_limit=get("delay_threshold"),
        error_limit=get("error_threshold"),
        budget=get("budget"),
        storage=get("storage_capacity"),
        unmet_cap=get("unmet_cap"),
        gamma_delay=gamma("gamma_delay"),
        gamma_error=gamma("gamma_error"),
    )


_BROKEN = 2e-6
"""How far beyond a promise, relatively, a pair counts as breaking it."""


def _repaired(
    most: np.ndarray,
    usual: np.ndarray,
    excess: np.ndarray,
    threshold: np.ndarray,
    gamma: np.ndarray,
    routes: np.ndarray,
    factor: np.ndarray,
) -> np.ndarray:
    """Largest shares (L,I,T) of pairs that break a promise: what shares of the best other pair can repair.

    Args:
      usual, excess (L,I,P); threshold (L,I); gamma, routes (L,); factor (L,1,1,N) on a promise of a degree.
    """
    shape = (*most.shape[:2], usual.shape[2], factor.shape[-1])
    alone = routes == 1  # nobody repairs
    one = np.minimum(gamma, 1.0)[:, None, None]
    # Every pair of a type is slow at once where the budget reaches all that a plan may use; else perhaps none is.
    reach = np.minimum(np.where(routes > 0, routes, shape[2]), shape[2])
    every = np.where(reach <= np.maximum(gamma, 1.0), 1.0, 0.0)[:, None, None]
    worst = ((usual + one * excess)[..., None] * factor).reshape(-1, shape[1], most.shape[2])
    better = ((usual + every * one * excess)[..., None] * factor).reshape(-1, shape[1], most.shape[2])
    limit = (threshold + _BROKEN * np.where(threshold > 0, threshold, 1.0))[:, :, None]
    best = np.where(most > 0, better, np.inf).min(2, keepdims=True)
    best = np.where(np.isfinite(best), best, 0.0)
    breaks = worst > limit
    repaired = np.where(limit > best, _over(np.maximum(limit - best, 0.0), worst - best), 0.0)
    repaired = np.where(alone[:, None, None], 0.0, repaired * (1 + 32 * _UNIT))
    return np.where(breaks, np.minimum(most, repaired), most)


def _over(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """above / below, infinite where ``below`` is 0."""
    shape = np.broadcast_shapes(above.shape, below.shape)
    return np.divide(above, below, out=np.full(shape, math.inf), where=np.broadcast_to(below > 0, shape))


def _inside(xi: np.ndarray, gamma: np.ndarray) -> np.ndarray:
    """xi (L,I,P) scaled into U(gamma), with room for the rounding of its sum."""
    xi = np.clip(xi, 0.0, 1.0)
    total = xi.sum(2, keepdims=True)
    limit = np.broadcast_to((gamma * (1 - 4 * xi.shape[2] * _UNIT))[:, None, None], total.shape)
    factor = np.divide(limit, total, out=np.ones_like(total), where=total > limit)
    return xi * factor


def dual_values(
    instances: Instances, scenario: np.ndarray, leaves: list[tuple[np.ndarray, np.ndarray, np.ndarray]]
) -> np.ndarray:
    """Lower bounds (L,) of leaves (path, pairs, values) of the scenarios ``scenario`` (L,).

    inf where a leaf holds no plan (its path deploys what cannot be deployed), -inf where arithmetic fails.
    """
    types, models, gpus, degrees = instances.shape
    pairs, count = models * gpus, len(leaves)
    c = _problem(instances, scenario)
    head = np.array([v[: 3 * types + 2] for _, _, v in leaves], np.float64)
    by_pair = np.zeros((count, pairs, 2 * (degrees + types)))
    row = np.repeat(np.arange(count), [len(p) for _, p, _ in leaves])
    listed = np.concatenate([p for _, p, _ in leaves])
    tails = np.concatenate([v[3 * types + 2 :] for _, _, v in leaves])
    by_pair[row, listed] = tails.reshape(-1, by_pair.shape[2])
    demand = head[:, :types]
    delay = np.maximum(head[:, types : 2 * types], 0.0)
    error = np.maximum(head[:, 2 * types : 3 * types], 0.0)
    mu_budget, mu_storage = np.maximum(head[:, -2:], 0.0).T[:, :, None]
    m = np.maximum(by_pair[:, :, :degrees], 0.0).reshape(count, -1)
    work_price = np.maximum(by_pair[:, :, degrees : 2 * degrees], 0.0).reshape(count, -1)
    ends = 2 * degrees + types
    xi = _inside(by_pair[:, :, 2 * degrees : ends].transpose(0, 2, 1), c.gamma_delay)
    psi = _inside(by_pair[:, :, ends:].transpose(0, 2, 1), c.gamma_error)

    ms = (c.per_ms + delay)[:, :, None] * (c.nominal + xi * c.excess)
    mistakes = error[:, :, None] * (c.error + psi * c.error_excess)
    bonus = delay * c.delay_limit + error * c.error_limit
    served = c.base * (1.0 + mu_budget)
    paid = (ms[..., None] * c.slowness[:, None, None]).reshape(count, types, -1)
    paid += np.repeat(mistakes + served[:, :, None], degrees, axis=2)
    gain = (bonus + demand)[:, :, None] - paid  # -r
    rough = paid + (bonus + np.abs(demand))[:, :, None]  # the terms of r in absolute value
    fixed = c.deploy * (1.0 + mu_budget) + mu_storage * c.weights

    taken, shut, empty = _decisions(leaves, count, pairs, degrees)
    slack = 4 * (types + pairs + 40) * _UNIT
    cells, flat = gain.shape, fixed.shape
    kv = np.repeat(c.kv, degrees, axis=2)
    of_type = (np.broadcast_to(a, cells) for a in (gain, rough, kv, c.work[:, :, None], c.most))
    fits, room, power = (np.broadcast_to(a, flat) for a in (c.fits, c.room, c.power))
    triples = _Triples(fixed, room, power, *of_type)
    value = triples.worth(m, work_price, slack)
    at = np.nonzero(fits & ~shut & (taken | ~(value >= 0)))  # the others count 0 at any m and c
    value[at] = np.fmax(value[at], triples.at(*at).improved(m[at], work_price[at], slack))
    value = np.where(fits, value, math.inf)
    impossible = empty | (taken & ~fits).any(1)

    def per_pair(a: np.ndarray) -> np.ndarray:
        return a.reshape(count, pairs, degrees)

    chosen = per_pair(taken).any(2)
    deployed = np.where(per_pair(taken), per_pair(value), 0.0).sum(2)
    open_best = np.minimum(np.where(per_pair(shut), math.inf, per_pair(value)).min(2), 0.0)
    term = np.where(chosen, deployed, open_best)
    over = c.unmet_cap[:, None] * np.maximum(demand - c.unmet_cost, 0.0)
    caps = mu_budget[:, 0] * c.budget + mu_storage[:, 0] * c.storage
    bound = (demand - over).sum(1) - caps + term.sum(1)
    size = (np.abs(demand) + c.unmet_cap[:, None] * (np.abs(demand) + c.unmet_cost)).sum(1)
    bound = bound - slack * (size + caps + np.abs(term).sum(1))
    assert bound.dtype == np.float64, "certificates are float64"
    return np.where(impossible, math.inf, np.where(np.isfinite(bound), bound, -math.inf))


def _decisions(
    leaves: list[tuple[np.ndarray, np.ndarray, np.ndarray]], count: int, pairs: int, degrees: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Triples deployed and triples excluded (L,T), and leaves whose path contradicts itself (L,)."""
    taken = np.zeros((count, pairs * degrees), bool)
    out = np.zeros_like(taken)
    row = np.repeat(np.arange(count), [len(p) for p, _, _ in leaves])
    step = np.concatenate([p for p, _, _ in leaves]).astype(np.int64)
    taken[row[step > 0], step[step > 0] - 1] = True
    out[row[step < 0], -step[step < 0] - 1] = True
    by_pair = taken.reshape(count, pairs, degrees)
    empty = (taken & out).any(1) | (by_pair.sum(2) > 1).any(1)
    shut = out | (np.repeat(by_pair.any(2), degrees, axis=1) & ~taken)
    return taken, shut, empty


class _Triples(NamedTuple):
    """What V needs beside m and c: arrays (...,T), those by type (...,I,T)."""

    fixed: np.ndarray
    room: np.ndarray
    power: np.ndarray
    gain: np.ndarray  # by type: -r
    rough: np.ndarray  # by type: the terms of r in absolute value, summed
    kv: np.ndarray  # by type
    work: np.ndarray  # by type
    most: np.ndarray  # by type

    def at(self, row: np.ndarray, triple: np.ndarray) -> _Triples:
        """Those of the leaves ``row`` and triples ``triple`` (S,): arrays (S,) and (I,S)."""
        by_type = (np.ascontiguousarray(a[row, :, triple].T) for a in self[3:])
        return _Triples(*(a[row, triple] for a in self[:3]), *by_type)

    def worth(self, m: np.ndarray, c: np.ndarray, slack: float) -> np.ndarray:
        """V less its rounding at memory and compute prices ``m`` and ``c``."""
        price = m[..., None, :] * self.kv + c[..., None, :] * self.work
        used = m * self.room + c * self.power
        value = self.fixed - used - (self.most * np.maximum(self.gain - price, 0.0)).sum(-2)
        return value - slack * (self.fixed + used + (self.most * (self.rough + price)).sum(-2))

    def improved(self, m: np.ndarray, c: np.ndarray, slack: float) -> np.ndarray:
        """The best V (S,) over prices found one after the other, from ``m`` and ``c``, in both orders."""
        kv, work, most = self.kv, self.work, self.most
        memory_first = _cheapest(self.gain - c * work, kv, most, self.room)
        compute_then = _cheapest(self.gain - memory_first * kv, work, most, self.power)
        compute_first = _cheapest(self.gain - m * kv, work, most, self.power)
        memory_then = _cheapest(self.gain - compute_first * work, kv, most, self.room)
        one = self.worth(memory_first, compute_then, slack)
        return np.fmax(one, self.worth(memory_then, compute_first, slack))


def _cheapest(gain: np.ndarray, weight: np.ndarray, most: np.ndarray, capacity: np.ndarray) -> np.ndarray:
    """argmin (S,) over z >= 0 of z capacity + sum_i most max(gain - z weight, 0); arrays (I,S).

    Convex and piecewise linear: going through the breakpoints gain / weight upwards, the minimum is the first where
    the load of the types that still gain is at most the capacity.
    """
    gains = (gain > 0) & (weight > 0)
    at = np.divide(gain, weight, out=np.zeros_like(gain), where=gains)
    load = np.where(gains, most * weight, 0.0)
    order = np.argsort(at, axis=0)
    at, load = np.take_along_axis(at, order, 0), np.take_along_axis(load, order, 0)
    passed = np.cumsum(load, axis=0)
    first = np.argmax(passed[-1] - passed <= capacity, axis=0)  # nothing is left beyond the last
    chosen = np.take_along_axis(at, first[None], 0)[0]
    return np.where(passed[-1] <= capacity, 0.0, chosen)


def _covers(paths: list[np.ndarray]) -> bool:
    """True where every plan is in some leaf: at each depth all paths split on one triple, and both sides go on."""
    open_sets = [(0, [p.tolist() for p in paths])]
    while open_sets:
        depth, group = open_sets.pop()
        if len(group) == 1 and len(group[0]) == depth:
            continue
        if not group or any(len(p) <= depth for p in group) or len({abs(p[depth]) for p in group}) > 1:
            return False
        open_sets += [(depth + 1, [p for p in group if (p[depth] > 0) is side]) for side in (True, False)]
    return True


def _highest_cost(instances: Instances, b: int) -> float:
    """No plan costs more: the budget, and per type the penalty of all or a delay within its promise."""
    f = instances.one(b)
    per_hour = f.arrival_rate * (f.unmet_penalty + f.delay_penalty * f.delay_threshold)
    return float(f.budget + f.rental_hours * per_hour.sum())


_TOLERANCE = 1e-9
"""Relative: claims and what is recomputed come from different orders of the same operations."""

_FLOOR = 1e-12
"""Of the highest cost a plan can have (plus $1): what rounding leaves of a bound that is 0."""

_OPTIMAL = 1e-6
"""Relative gap at or below which a row may call itself optimal."""

_TWO_SIDED = ("optimal", "gap_limit", "bracket")
"""Statuses that say both bounds are finite."""

_CHUNK = 64
"""Leaves evaluated at once: few enough for the arrays to stay in cache, and memory bounded."""


def verify_rows(
    table: pd.DataFrame,
    certificates: dict[int, Certificate],
    instances: Instances,
    *,
    source: str | Path = "table",
) -> pd.DataFrame:
    """Recompute every bound that ``table`` claims.

    A row holds where all of these do, to 1e-9 relative: ``lower_bound`` is at most the recomputed one (inf, or status
    ``infeasible``, no plan exists: that one exceeds any possible cost); ``upper_bound`` is the cost of the
    certificate's plan, which the checker accepts, and not below the lower bound; the columns of costs and ``gap``,
    where present, are that plan's and that bracket's; a ``status`` that says both bounds are known, or equal, has them
    so. -inf or a missing lower, inf or a missing upper bound claim nothing.

    Where the column ``method`` says that HiGHS had a part, a lower bound above the recomputed one rests on HiGHS: it
    cannot be recomputed here, and ``lower_by`` says so. What is still checked is ``certified_lower_bound``, the part
    of it that the certificate proves, where the table has that column.

    Args:
      table: a row per scenario: ``instance``, ``lower_bound``, ``upper_bound``; other columns may stand beside.
      certificates: by scenario, as `load_certificates` gives them; one without leaves proves no lower bound.
      source: what errors name as the origin of ``table``.

    Returns:
      a row per row of ``table``: ``instance``, ``lower_claimed``, ``lower_recomputed``, ``upper_claimed``,
      ``upper_recomputed``, ``lower_by`` (``certificate``, ``HiGHS``, or empty where nothing is claimed or it does not
      hold), ``upper_by`` (``plan`` or empty), ``ok``, ``reason`` (empty where ok).

    Raises:
      InputError: a column is missing or not numeric, or names a scenario that does not exist.
    """
    import pandas as pd

    scenario = _numbers(table, "instance", source)
    lower_claims, upper_claims = (_numbers(table, n, source) for n in ("lower_bound", "upper_bound"))
    wrong = ~((scenario >= 0) & (scenario < instances.size) & (scenario == np.floor(scenario)))
    if wrong.any():
        expected = f"a whole number from 0 to {instances.size - 1}"
        raise InputError(
            source, f"row {int(np.argmax(wrong))}: instance", expected, float(scenario[wrong][0])
        )
    lowers = _recomputed(
        sorted(set(scenario.astype(int).tolist()) & certificates.keys()), certificates, instances
    )
    beside, rows = _Beside(table, source), []
    lower_claims = np.where(beside.infeasible & np.isnan(lower_claims), math.inf, lower_claims)
    for row, b in enumerate(scenario.astype(int).tolist()):
        held = certificates.get(b)
        lower, upper = lowers.get(b, -math.inf), math.inf
        claimed = float(lower_claims[row]), float(upper_claims[row])
        reasons: list[str] = []
        bare = held is None or not held.paths
        if bare:
            lower = -math.inf
        elif held and not _covers(held.paths):
            reasons.append("the leaves do not cover every plan")
            lower = -math.inf
        highest = _highest_cost(instances, b)
        floor = _FLOOR * (1.0 + highest)

        proven = partial(_proven, lower=lower, highest=highest, floor=floor)
        lower_by = upper_by = ""
        if claimed[0] > -math.inf:
            if proven(claimed[0]):
                lower_by = "certificate"
            elif beside.exact[row]:
                lower_by = "HiGHS"
            elif bare:
                reasons.append("no certificate")
            elif claimed[0] == math.inf:
                reasons.append("infeasibility is not proven")
            else:
                reasons.append("the lower bound is above what its certificate proves")
        if not proven(beside.certified[row]):
            why = (
                "no certificate" if bare else "the certified lower bound is above what its certificate proves"
            )
            reasons += [why] if why not in reasons else []
        costs: dict[str, float] = {}
        if held and held.plan is not None:
            verdict = check_plan(held.plan, instances, b)
            if verdict.feasible:
                costs, upper = verdict.costs, verdict.costs["total_cost"]
            elif claimed[1] < math.inf:
                reasons.append(f"the plan breaks {verdict.binding}")
        if claimed[1] < math.inf:
            if _same(claimed[1], upper, upper, floor):
                upper_by = "plan"
            else:
                reasons.append("the upper bound is not the cost of its plan")
            if claimed[0] > claimed[1] + _TOLERANCE * abs(claimed[1]) + floor:
                reasons.append("the lower bound is above the upper bound")
                lower_by = ""
        reasons += beside.faults(row, *claimed, costs, floor)
        rows.append(
            (b, claimed[0], lower, claimed[1], upper, lower_by, upper_by, not reasons, "; ".join(reasons))
        )
    names = (
        "instance",
        "lower_claimed",
        "lower_recomputed",
        "upper_claimed",
        "upper_recomputed",
        "lower_by",
        "upper_by",
        "ok",
        "reason",
    )
    return pd.DataFrame(rows, columns=list(names))


def _proven(claim: float, *, lower: float, highest: float, floor: float) -> bool:
    """Whether a claimed lower bound (inf: no plan exists; nan: no claim) follows from the recomputed ``lower``."""
    if claim == math.inf:
        return lower > highest
    return claim <= lower or not claim > lower + _TOLERANCE * abs(claim) + floor


def _numbers(table: pd.DataFrame, name: str, source: str | Path) -> np.ndarray:
    """A column as float64, missing values NaN."""
    if name not in table.columns:
        raise InputError(source, name, "this column, which is missing")
    column = table[name]
    numbers = getattr(column.dtype, "kind", "?") in "iuf" or bool(column.isna().to_numpy().all())
    if not numbers:  # texts that look like numbers are none
        raise InputError(source, name, "a column of numbers", str(column.dtype))
    return column.to_numpy(np.float64, na_value=math.nan)


def _same(claimed: float, found: float, scale: float, floor: float) -> bool:
    """True where both are finite and differ by no more than rounding."""
    return math.isfinite(found) and bool(abs(claimed - found) <= _TOLERANCE * abs(scale) + floor)


class _Beside:
    """The columns that stand beside the bounds."""

    def __init__(self, table: pd.DataFrame, source: str | Path) -> None:
        self._status = table["status"].tolist() if "status" in table.columns else None
        self._gap = _numbers(table, "gap", source) if "gap" in table.columns else None
        self._costs = {n: _numbers(table, n, source) for n in COSTS if n in table.columns}
        self.infeasible = np.array([s == "infeasible" for s in self._status or [""] * len(table)], bool)
        methods = table["method"].tolist() if "method" in table.columns else [""] * len(table)
        self.exact = [isinstance(m, str) and "exact" in m for m in methods]
        known = "certified_lower_bound" in table.columns
        self.certified: list[float] = (
            _numbers(table, "certified_lower_bound", source).tolist() if known else [math.nan] * len(table)
        )

    def faults(
        self, row: int, lower: float, upper: float, costs: dict[str, float], floor: float
    ) -> list[str]:
        """What is wrong there, given the bounds claimed and the costs of the checked plan."""
        known = math.isfinite(lower) and math.isfinite(upper)
        reasons = []
        if self._status is not None and self._status[row] in _TWO_SIDED and not known:
            reasons.append(f"status {self._status[row]} without two bounds")
        wide = (upper - lower) / abs(upper) if known and upper else math.nan
        if self._status is not None and self._status[row] == "optimal" and wide > _OPTIMAL + _TOLERANCE:
            reasons.append("status optimal with a wider gap")
        if self._gap is not None and math.isfinite(wide) and not abs(self._gap[row] - wide) <= _TOLERANCE:
            reasons.append("the gap is not that of the bounds")
        for name, column in self._costs.items() if math.isfinite(upper) else ():
            if not _same(column[row], costs.get(name, math.nan), upper, floor):
                reasons.append(f"{name} is not that of the plan")
        return reasons


def _recomputed(
    wanted: list[int], certificates: dict[int, Certificate], instances: Instances
) -> dict[int, float]:
    """The least dual value over the leaves of each scenario."""
    scenario = np.array([b for b in wanted for _ in certificates[b].paths], np.int64)
    leaves = [leaf for b in wanted for leaf in zip(*certificates[b][:3], strict=True)]
    found = dict.fromkeys(wanted, math.inf)
    for first in range(0, len(leaves), _CHUNK):
        part = scenario[first : first + _CHUNK]
        with np.errstate(over="ignore", invalid="ignore"):  # such a leaf proves nothing, and says -inf
            values = dual_values(instances, part, leaves[first : first + _CHUNK])
        for b, value in zip(part.tolist(), values.tolist(), strict=True):
            found[b] = min(found[b], value)
    return found
