"""Certificates as a compact Parquet file: a row per leaf of a scenario's search tree, and the scenario's plan.

What is read is validated: names, degrees and mode are those of the instances, positions exist, numbers are finite.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rodiu_jax.errors import InputError
from rodiu_jax.io.files import write_whole
from rodiu_jax.io.parquet import read_parquet
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import Plan
from rodiu_jax.model.plan_json import plan_from_json


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
