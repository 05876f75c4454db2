"""Certificates as a compact Parquet file: a row per leaf of a scenario's search tree, and the scenario's plan.

What is read is validated: names, degrees and mode are those of the instances, positions exist, numbers are finite.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int

from rodiu_jax.certificates.leaf_codec import LeafCodec, Lists, Ranges, check_ranges, split_lists
from rodiu_jax.errors import InputError
from rodiu_jax.io.parquet import read_parquet, write_parquet
from rodiu_jax.model.fields import has_replicas
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import Plan
from rodiu_jax.model.plan_json import plan_from_json


@dataclass(frozen=True)
class Certificate:
    """One scenario's proof.

    Attributes:
      paths: of each leaf, its splits from the root (`rodiu_jax.certificates.leaf_codec`).
      pairs: of each leaf, the pairs listed in ``values``, increasing.
      values: of each leaf, its multipliers, float32.
      plan: whose cost is the upper bound, or None.
      ranges: the options that paths and values are about, where scenarios know replicas; None: degrees.
    """

    paths: tuple[np.ndarray, ...] = ()
    pairs: tuple[np.ndarray, ...] = ()
    values: tuple[np.ndarray, ...] = ()
    plan: Plan | None = None
    ranges: Ranges | None = None

    @property
    def leaves(self) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """The leaves as (path, pairs, values)."""
        return list(zip(self.paths, self.pairs, self.values, strict=True))


@runtime_checkable
class TreeLeaves(Protocol):
    """What `tabulate_leaves` needs of a batch's leaves: columns with a leading axis L."""

    @property
    def scenario(self) -> Int[np.ndarray, " L"]: ...

    @property
    def path(self) -> Int[np.ndarray, "L T"]: ...

    @property
    def multipliers(self) -> Mapping[str, Float[np.ndarray, "L ..."]]: ...

    @property
    def ranges(self) -> Ranges | None: ...


_COLUMNS = {
    "instance": pa.int64(),
    "leaf": pa.int32(),
    "path": pa.list_(pa.int32()),
    "pairs": pa.list_(pa.int32()),
    "values": pa.list_(pa.float32()),
    "plan": pa.string(),
}


def _describe(instances: Instances, ranges: Ranges | None) -> dict[str, Any]:
    """Return what gives the positions in a certificate their meaning; it is kept in the file."""
    options = {} if ranges is None else {"options": [list(option) for option in ranges]}
    return {
        **options,
        "queries": list(instances.query_names),
        "models": list(instances.model_names),
        "gpus": list(instances.gpu_names),
        "degrees": list(instances.axis_names("N")),
        "uncertainty": instances.uncertainty,
    }


def write_certificates(path: str | Path, table: pa.Table) -> str:
    """Write what `tabulate_leaves` made, whole or not at all; return the SHA-256 of the file."""
    return write_parquet(path, table, compression="zstd")


def tabulate_leaves(leaves: TreeLeaves, plans: Mapping[int, Plan | None], instances: Instances) -> pa.Table:
    """Make the table that `write_certificates` writes, from the leaves of a batch in columns: a row per leaf.

    Columns: ``instance``, ``leaf`` (from 0), ``path``, ``pairs``, ``values`` (`rodiu_jax.certificates.leaf_codec`) and
    ``plan`` (its JSON on leaf 0).

    Args:
      leaves: grouped by scenario; a path ends at its first 0. The table numbers scenarios as they do.
      plans: by scenario, as numbered there; a scenario that is not in it, or whose plan is None, has none.
    """
    depth = (leaves.path != 0).sum(1)
    paths = [path[:d] for path, d in zip(leaves.path, depth.tolist(), strict=True)]
    schema = pa.schema(_COLUMNS, metadata={"rodiu": json.dumps(_describe(instances, leaves.ranges))})
    if not len(leaves.scenario):
        return schema.empty_table()
    pairs, values = LeafCodec.of(instances, leaves.ranges).pack(leaves.multipliers)
    return _tabulate(leaves.scenario, {"path": paths, "pairs": pairs, "values": values}, plans, schema)


def _tabulate(
    scenario: Int[np.ndarray, " L"],
    lists: Mapping[str, Lists],
    plans: Mapping[int, Plan | None],
    schema: pa.Schema,
) -> pa.Table:
    begins = np.flatnonzero(np.diff(scenario, prepend=scenario[0] - 1))  # the first leaf of each scenario
    number = np.arange(len(scenario)) - np.repeat(begins, np.diff(begins, append=len(scenario)))
    texts: list[str | None] = [None] * len(scenario)
    for row in begins.tolist():
        plan = plans.get(int(scenario[row]))
        texts[row] = None if plan is None else json.dumps(plan.to_json(), allow_nan=False)
    columns = [scenario, number.astype(np.int32), *map(_list_column, lists.values()), texts]
    arrays = [pa.array(c, kind) for c, kind in zip(columns, _COLUMNS.values(), strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)


def _list_column(lists: Lists) -> pa.ListArray:
    """Return arrays as a column of lists, without a Python object for each number."""
    offsets = np.cumsum([0, *map(len, lists)])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(np.concatenate(lists)))


def certified_rows(path: str | Path) -> Int[np.ndarray, " B"]:
    """Return the scenarios that a whole file of certificates is about, sorted; none where the file cannot be used."""
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
        ``instances``, or its options do not hold every number of replicas; a scenario, triple or pair does not exist;
        lengths do not fit; a number is not finite; a leaf number or a plan is doubled; a plan is not valid.
    """
    table = _read(path)
    ranges = _check_names(table, instances, path)
    columns = {n: table[n].combine_chunks() for n in _COLUMNS}
    for name, column in columns.items():
        holes = name in ("path", "pairs", "values") and column.flatten().null_count
        if name != "plan" and (column.null_count or holes):
            raise InputError(path, name, "no missing values")
    scenario, leaf = columns["instance"].to_numpy() - first, columns["leaf"].to_numpy()
    lists = {
        name: split_lists(
            columns[name].values.to_numpy(zero_copy_only=False), columns[name].offsets.to_numpy()
        )
        for name in ("path", "pairs", "values")
    }
    _check_leaves(path, instances, ranges, scenario, leaf, lists, first)
    plans = _read_plans(path, instances, scenario, columns["plan"].to_pylist())
    rows: dict[int, list[int]] = {}
    for row, b in enumerate(scenario.tolist()):
        rows.setdefault(b, []).append(row)
    certificates = {}
    for b, own in rows.items():
        paths, pairs, values = (tuple(lists[n][r] for r in own) for n in ("path", "pairs", "values"))
        certificates[b] = Certificate(paths, pairs, values, plans.get(b), ranges)
    return certificates


def _check_leaves(
    path: str | Path,
    instances: Instances,
    ranges: Ranges | None,
    scenario: Int[np.ndarray, " L"],
    leaf: Int[np.ndarray, " L"],
    lists: dict[str, Lists],
    first: int,
) -> None:
    """Refuse leaves of scenarios, triples or pairs that do not exist, of wrong lengths, doubled, or not finite."""
    codec = LeafCodec.of(instances, ranges)

    def refuse(bad: np.ndarray, field: str, expected: str, value: np.ndarray) -> None:
        if bad.any():
            row = int(np.argmax(bad))
            raise InputError(path, f"row {row}: {field}", expected, value[row].item())

    def any_in(name: str, bad: Any) -> np.ndarray:
        """Return which leaves have a number in list ``name`` that is ``bad``."""
        parts = lists[name]
        if not parts or not bad(np.concatenate(parts)).any():  # nearly always, and much faster
            return np.zeros(len(parts), bool)
        return np.array([bool(bad(a).any()) for a in parts], bool)

    last = first + instances.size - 1
    outside = (scenario < 0) | (scenario >= instances.size)
    refuse(outside, "instance", f"a whole number from {first} to {last}", scenario + first)
    refuse(leaf < 0, "leaf", "a whole number from 0", leaf)
    no_triple = any_in("path", lambda a: (a == 0) | (np.abs(a.astype(np.int64)) > codec.triples))
    refuse(no_triple, "path", f"triples from 1 to {codec.triples}, or minus that", scenario)
    no_pair = any_in("pairs", lambda a: (a < 0) | (a >= codec.pairs) | (np.diff(a, prepend=-1) <= 0))
    refuse(no_pair, "pairs", f"increasing whole numbers from 0 to {codec.pairs - 1}", scenario)
    counts = np.array([len(a) for a in lists["values"]], np.int64)
    needed = codec.sizes(np.array([len(a) for a in lists["pairs"]], np.int64))
    refuse(counts != needed, "values", "as many numbers as types and pairs need", counts)
    refuse(any_in("values", lambda a: ~np.isfinite(a)), "values", "finite numbers", scenario)
    _, firsts = np.unique(np.stack([scenario, leaf]), axis=1, return_index=True)
    doubled = np.ones(len(leaf), bool)
    doubled[firsts] = False
    refuse(doubled, "leaf", "each leaf of a scenario once", leaf)


def _read_plans(
    path: str | Path, instances: Instances, scenario: Int[np.ndarray, " L"], texts: list[str | None]
) -> dict[int, Plan]:
    """Return the plan of each scenario that has one."""
    plans: dict[int, Plan] = {}
    for row, (b, text) in enumerate(zip(scenario.tolist(), texts, strict=True)):
        if text is not None:
            if b in plans:
                raise InputError(path, f"row {row}: plan", f"one plan of instance {b}")
            plans[b] = _read_plan(text, b, instances, path, f"row {row}: plan")
    return plans


def _read_plan(text: str, b: int, instances: Instances, path: str | Path, field: str) -> Plan:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(path, field, f"JSON ({error})") from None
    plan = plan_from_json(value, instances, source=path, path=field)
    if plan.instance not in (None, b):
        raise InputError(path, f"{field}.instance", f"{b} or null", plan.instance)
    return plan


def _read(path: str | Path) -> pa.Table:
    table = read_parquet(path, what="a readable, whole Parquet file of certificates")
    for name, kind in _COLUMNS.items():
        if name not in table.column_names:
            raise InputError(path, name, "this column, which is missing")
        if table.schema.field(name).type != kind:
            raise InputError(path, name, f"a column of {kind}", str(table.schema.field(name).type))
    return table


def _check_names(table: pa.Table, instances: Instances, path: str | Path) -> Ranges | None:
    """Refuse certificates of other names, degrees or mode: their positions would mean something else.

    Returns:
      the options that positions are about, where scenarios know replicas.
    """
    try:
        written = json.loads((table.schema.metadata or {}).get(b"rodiu", b"null"))
    except (ValueError, RecursionError):
        written = None
    if not isinstance(written, dict):
        raise InputError(path, "metadata", "names of queries, models and GPUs, which are missing")
    for key, own in _describe(instances, None).items():
        if written.get(key) != own:
            raise InputError(path, key, f"{own} as in the instances", written.get(key))
    if not has_replicas(instances.fields):
        return None
    options, largest = written.get("options"), float(np.max(instances.fields.max_replicas))
    if not isinstance(options, list) or not all(isinstance(option, list) for option in options):
        raise InputError(path, "options", "lists of a degree, fewest and largest replicas", options)
    if wrong := check_ranges(options, instances.shape[3], largest):
        raise InputError(path, "options", wrong)
    return tuple((degree, fewest, most) for degree, fewest, most in options)
