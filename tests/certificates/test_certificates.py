"""Certificates: what the solver proves is verified without it, and no false claim passes."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rodiu_jax.catalog.sampling import sample
from rodiu_jax.certificates import (
    Certificate,
    dual_values,
    load_certificates,
    tabulate_leaves,
    verify_rows,
    write_certificates,
)
from rodiu_jax.errors import InputError
from rodiu_jax.model.check import check_plan
from rodiu_jax.model.fields import REQUIRED_FIELDS
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import Plan
from rodiu_jax.model.status import Status
from rodiu_jax.model.verdict import COSTS
from rodiu_jax.sweeps.rows import proofs_of
from solvers.answers import Answer, Answers, Leaves
from solvers.bracket import brackets
from solvers.dual import Multipliers
from solvers.effort import Effort
from tests.oracles.enumeration import cheapest
from tests.oracles.instances import random_instances

SMALL = (2, 2, 2, 2)
LITTLE = Effort(rounds=1, tree_rounds=4)
Columns = dict[str, list[Any]]


def claims(proven: Answers) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "instance": np.arange(len(proven)),
            "lower_bound": proven.lower,
            "upper_bound": proven.upper,
            "gap": proven.gap,
            "status": Status.words(proven.status),
            **dict(zip(COSTS, proven.costs.T, strict=True)),
        }
    )


def save_certificates(path: Path, proven: Answers, instances: Instances, *, first: int = 0) -> None:
    """Write the certificates of scenarios numbered from ``first``."""
    assert proven.leaves is not None
    leaves = replace(proven.leaves, scenario=proven.leaves.scenario + first)
    plans = dict(enumerate(proven.plans(range(first, first + len(proven))), first))
    write_certificates(path, tabulate_leaves(leaves, plans, instances))


@pytest.fixture(scope="module")
def small() -> tuple[Instances, Answers]:
    """Small scenarios of many kinds, some of whose trees branch."""
    return _of_routes(np.zeros(4, int))


@pytest.fixture(scope="module")
def limited() -> tuple[Instances, Answers]:
    """The same with limits of routes, which want programs of their own."""
    return _of_routes(np.array([0, 1, 2, 0]))


def _of_routes(most: np.ndarray) -> tuple[Instances, Answers]:
    kinds = {"max_routes": most, "gamma_delay": np.array([1.3, 1.5, 7.0, 2.0])}
    instances = random_instances(8, SMALL, batch=4, **kinds)
    return instances, brackets(instances, gap=1e-4, effort=LITTLE, certificates=True)


@pytest.fixture(scope="module")
def default() -> tuple[Instances, Answers]:
    instances = sample("seed", n=2, seed=3)
    return instances, brackets(instances, gap=0.001, effort=LITTLE, certificates=True)


@pytest.fixture(params=["small", *(pytest.param(n, marks=pytest.mark.slow) for n in ("limited", "default"))])
def case(request: pytest.FixtureRequest) -> tuple[Instances, Answers]:
    return request.getfixturevalue(request.param)


def edited(path: Path, edit: Callable[[Columns], None]) -> None:
    """Rewrite a file of certificates with its columns changed."""
    table = pq.read_table(path)
    columns = table.to_pydict()
    edit(columns)
    pq.write_table(pa.table(columns, schema=table.schema), path)


def test_what_the_solver_proves_is_verified(case: tuple[Instances, Answers], tmp_path: Path) -> None:
    instances, proven = case
    assert (proven.nodes > 1).any(), "this test wants trees"
    save_certificates(tmp_path / "c.parquet", proven, instances)
    table = claims(proven)
    result = verify_rows(table, load_certificates(tmp_path / "c.parquet", instances), instances)
    assert result["ok"].all(), result.to_string()
    assert (result["reason"] == "").all()
    np.testing.assert_allclose(result["lower_recomputed"], table["lower_bound"], rtol=1e-3)
    np.testing.assert_allclose(result["upper_recomputed"], table["upper_bound"], rtol=1e-12)


@pytest.mark.parametrize(
    ("mode", "change"),
    [
        pytest.param("none", {"delay_threshold": 0.01}, marks=pytest.mark.slow),
        pytest.param(
            "ddu", {"delay_threshold": 0.01, "max_routes": 2, "gamma_delay": 2.0}, marks=pytest.mark.slow
        ),
        pytest.param("ddu", {"error_threshold": 0.2, "max_routes": 1}, marks=pytest.mark.slow),
        pytest.param("diu", {"error_threshold": 0.0}, marks=pytest.mark.slow),
    ],
)
def test_promises_that_no_pair_keeps_are_verified_too(mode: str, change: dict, tmp_path: Path) -> None:
    instances = sample("seed", n=3, seed=3, uncertainty=mode)
    scaled = {n: v * np.asarray(getattr(instances.fields, n)) for n, v in change.items() if "thres" in n}
    instances = instances.with_fields(**{**change, **scaled})
    proven = brackets(instances, gap=0.01, effort=Effort(tree_rounds=0), certificates=True)
    assert (np.isfinite(proven.lower) & (proven.lower > 0)).all()
    save_certificates(tmp_path / "c.parquet", proven, instances)
    result = verify_rows(claims(proven), load_certificates(tmp_path / "c.parquet", instances), instances)
    assert result["ok"].all(), result.to_string()


def test_round_trip(small: tuple[Instances, Answers], tmp_path: Path) -> None:
    instances, proven = small
    save_certificates(tmp_path / "c.parquet", proven, instances)
    read = load_certificates(tmp_path / "c.parquet", instances)
    types, models, gpus, degrees = instances.shape
    assert sorted(read) == list(range(len(proven)))
    leaves = proven.leaves
    for b, plan in enumerate(proven.plans()):
        found, own = read[b], np.flatnonzero(leaves.scenario == b)
        assert found.plan == plan
        assert [p.tolist() for p in found.paths] == [p[p != 0].tolist() for p in leaves.path[own]]
        for row, pairs, values in zip(own, found.pairs, found.values, strict=True):
            y = Multipliers(**{n: a[row] for n, a in leaves.multipliers.items()})
            head = 3 * types + 2
            start = np.concatenate([y.demand, y.delay, y.error, [y.budget], [y.storage]])
            np.testing.assert_array_equal(values[:head], start)
            dense = np.zeros((models * gpus, 2 * (types + degrees)), np.float32)
            dense[pairs] = values[head:].reshape(len(pairs), dense.shape[1])
            ends = (degrees, 2 * degrees, 2 * degrees + types)
            for part, array in zip(
                np.split(dense, ends, axis=1),
                (y.memory, y.compute, y.delay_adversary.T, y.error_adversary.T),
                strict=True,
            ):
                np.testing.assert_array_equal(part, array)


@pytest.mark.parametrize("mode", ["none", "diu", "ddu"])
def test_random_multipliers_of_any_sign_prove_no_more_than_the_optimum(mode: str) -> None:
    """Weak duality, with routes limited and unmet shares capped; enumeration gives the optimum."""
    rng = np.random.default_rng(5)
    shape = types, models, gpus, degrees = (2, 2, 1, 2)
    pairs, width = models * gpus, 2 * (types + degrees)
    instances = random_instances(
        16,
        shape,
        batch=4,
        mode=mode,
        max_routes=np.array([0, 1, 2, 0]),
        gamma_delay=np.array([1.5, 1, 2.5, 0]),
        unmet_cap=np.array([1, 1, 1, 0.9]),
    )
    optimum = np.array([cheapest(instances, b) for b in range(4)])
    assert np.isfinite(optimum).all()
    best = np.full(4, -math.inf)
    for _ in range(60):
        price, noise = rng.uniform(0.0, 1.0), rng.choice([0.0, 0.1, 1.0])
        held = {}
        for b in range(4):
            units = np.repeat([50, 0.1, 50, 0.1], [types, types, types, 2])
            head = rng.normal(0, noise, 3 * types + 2) * units
            head[:types] += price * optimum[b] / types
            tail = rng.normal(0, noise, (pairs, width))
            values = np.concatenate([head, tail.ravel()]).astype(np.float32)
            held[b] = Certificate((np.array([], np.int32),), (np.arange(pairs, dtype=np.int32),), (values,))
        table = pd.DataFrame({"instance": range(4), "lower_bound": -math.inf, "upper_bound": math.inf})
        found = verify_rows(table, held, instances)
        assert found["ok"].all()
        assert (found["lower_recomputed"] <= optimum * (1 + 1e-6)).all()
        best = np.maximum(best, found["lower_recomputed"])
    assert (best / optimum).max() > 0.5, "else this proves little"


def _first(columns: Columns, wanted: Callable[[int], bool]) -> int:
    return next(r for r in range(len(columns["leaf"])) if wanted(r))


def _leaf_removed(columns: Columns) -> None:
    row = _first(columns, lambda r: len(columns["path"][r]) > 0 and columns["leaf"][r] > 0)
    for column in columns.values():
        del column[row]


def _sign_flipped(columns: Columns) -> None:
    row = _first(columns, lambda r: len(columns["path"][r]) > 0)
    columns["path"][row][-1] *= -1


def _price_raised(columns: Columns) -> None:
    """A demand price so high that every type would be served at a loss, or left unmet at one."""
    columns["values"][0][0] += 1e6


def _prices_removed(columns: Columns) -> None:
    columns["values"][0] = [0.0] * len(columns["values"][0])


def _plan_changed(columns: Columns) -> None:
    row = _first(columns, lambda r: columns["plan"][r] is not None and '"share"' in columns["plan"][r])
    plan = json.loads(columns["plan"][row])
    plan["routes"][0]["share"] *= 0.98
    columns["plan"][row] = json.dumps(plan)


def _plan_removed(columns: Columns) -> None:
    columns["plan"][0] = None


@pytest.mark.parametrize(
    ("corrupt", "reason"),
    [
        (_leaf_removed, "cover"),
        (_sign_flipped, "cover"),
        (_price_raised, "lower bound"),
        (_prices_removed, "lower bound"),
        (_plan_changed, "the plan breaks"),
        (_plan_removed, "upper bound"),
    ],
)
def test_a_corrupted_certificate_no_longer_proves_its_row(
    small: tuple[Instances, Answers], tmp_path: Path, corrupt: Callable[[Columns], None], reason: str
) -> None:
    instances, proven = small
    save_certificates(tmp_path / "c.parquet", proven, instances)
    edited(tmp_path / "c.parquet", corrupt)
    result = verify_rows(claims(proven), load_certificates(tmp_path / "c.parquet", instances), instances)
    assert (~result["ok"]).sum() == 1
    assert reason in result.loc[~result["ok"], "reason"].item()


@pytest.mark.parametrize(
    ("column", "change", "reason"),
    [
        ("lower_bound", lambda v: v * 1.02, "lower bound"),
        ("lower_bound", lambda v: math.nan, "without two bounds"),
        ("lower_bound", lambda v: math.inf, "infeasibility"),
        ("upper_bound", lambda v: v * (1 - 1e-6), "upper bound"),
        ("upper_bound", lambda v: math.nan, "without two bounds"),
        ("total_cost", lambda v: v + 0.01, "total_cost"),
        ("rental_cost", lambda v: math.nan, "rental_cost"),
        ("gap", lambda v: v * 0.5 - 1e-6, "gap"),
    ],
)
def test_a_false_claim_is_told_with_its_row(
    small: tuple[Instances, Answers], tmp_path: Path, column: str, change: Callable, reason: str
) -> None:
    instances, proven = small
    save_certificates(tmp_path / "c.parquet", proven, instances)
    table = claims(proven)
    table.loc[1, column] = change(table.loc[1, column])
    result = verify_rows(table, load_certificates(tmp_path / "c.parquet", instances), instances)
    assert result.index[~result["ok"]].tolist() == [1]
    assert reason in result.loc[1, "reason"]


def test_a_row_without_certificate_fails_and_a_row_without_claims_needs_no_plan(
    small: tuple[Instances, Answers], tmp_path: Path
) -> None:
    instances, proven = small
    save_certificates(tmp_path / "c.parquet", proven.take(slice(1, None)), instances, first=1)
    held = load_certificates(tmp_path / "c.parquet", instances)
    held[1] = replace(held[1], plan=None)
    table = pd.DataFrame(
        {
            "instance": [0, 1, 1],
            "lower_bound": [0.0, proven.lower[1], -math.inf],
            "upper_bound": [math.inf, math.nan, math.inf],
        }
    )
    result = verify_rows(table, held, instances)
    assert result["ok"].tolist() == [False, True, True]
    assert "no certificate" in result.loc[0, "reason"]


def test_a_status_of_infeasible_wants_a_proof_whatever_the_bounds_say() -> None:
    instances = random_instances(1, SMALL, unmet_cap=1.0)
    values = np.zeros(3 * 2 + 2, np.float32)
    held = {0: Certificate((np.array([], np.int32),), (np.array([], np.int32),), (values,))}
    for lower in (-1.0, -math.inf, math.nan):
        row = {"instance": [0], "lower_bound": [lower], "upper_bound": [math.inf], "status": ["infeasible"]}
        assert not verify_rows(pd.DataFrame(row), held, instances)["ok"].any()


def test_limits_of_any_size_forgive_nothing() -> None:
    """A budget that stands for no limit must not be what rounding is measured by."""
    instances = random_instances(1, SMALL, unmet_cap=1.0, budget=1e15)
    plan = Plan(None, (), (), dict.fromkeys(instances.query_names, 1.0))
    cost = check_plan(plan, instances, 0).costs["total_cost"]
    values = np.zeros(3 * 2 + 2, np.float32)
    held = {0: Certificate((np.array([], np.int32),), (np.array([], np.int32),), (values,), plan)}
    row = {"instance": [0], "lower_bound": [-math.inf], "upper_bound": [cost]}
    assert verify_rows(pd.DataFrame(row), held, instances)["ok"].all()
    assert not verify_rows(pd.DataFrame(row | {"upper_bound": [cost + 1.0]}), held, instances)["ok"].any()
    assert not verify_rows(pd.DataFrame(row | {"lower_bound": [1.0]}), held, instances)["ok"].any()


def test_infeasibility_is_proven_by_a_bound_above_any_cost() -> None:
    """Weights that fit nowhere and a cap of 0.2 on unmet shares: the bound grows by 0.8 pi, without end."""
    instances = random_instances(1, SMALL, weight_memory=np.full(2, 1e6), unmet_cap=0.2)
    values = np.zeros(3 * 2 + 2, np.float32)
    values[:2] = 1e7
    held = {0: Certificate((np.array([], np.int32),), (np.array([], np.int32),), (values,))}
    table = pd.DataFrame({"instance": [0], "lower_bound": [math.inf], "upper_bound": [math.inf]})
    assert verify_rows(table, held, instances)["ok"].all()
    values[:2] = 1.0
    assert not verify_rows(table, held, instances)["ok"].any()


def test_a_failed_scenario_does_not_spoil_the_file(small: tuple[Instances, Answers], tmp_path: Path) -> None:
    instances, proven = small
    failed = Answers.stack([Answer.of(instances.names, Status.ERROR)], names=instances.names)
    broken = {n: np.full_like(a[:1], np.nan) for n, a in proven.leaves.multipliers.items()}
    failed = replace(failed, leaves=Leaves(np.zeros(1, np.int64), np.zeros((1, 0), np.int32), broken))
    both = Answers.concatenate([failed, proven.take(slice(1, None))], names=instances.names)
    save_certificates(tmp_path / "c.parquet", both, instances)
    held = load_certificates(tmp_path / "c.parquet", instances)
    assert verify_rows(claims(both), held, instances)["ok"].all()


def _set(name: str, value: Any, at: int = 0) -> Callable[[Columns], None]:
    def edit(columns: Columns) -> None:
        columns[name][at] = value(columns[name][at]) if callable(value) else value

    return edit


@pytest.mark.parametrize(
    ("edit", "field"),
    [
        (_set("values", lambda v: [math.nan, *v[1:]]), "values"),
        (_set("values", lambda v: [math.inf, *v[1:]]), "values"),
        (_set("values", lambda v: v[:-1]), "values"),
        (_set("values", None), "values"),
        (_set("values", lambda v: [None, *v[1:]]), "values"),
        (_set("pairs", lambda v: [*v[:-1], 4]), "pairs"),
        (_set("pairs", lambda v: [v[1], v[0], *v[2:]]), "pairs"),
        (_set("path", [0]), "path"),
        (_set("path", [9]), "path"),
        (_set("instance", 6), "instance"),
        (_set("leaf", 0, at=-1), "leaf"),
        (_set("leaf", -1), "leaf"),
        (_set("plan", "{"), "plan"),
        (_set("plan", lambda v: v.replace("q0", "unknown")), "plan"),
        (_set("plan", lambda v: v.replace('"instance": 0', '"instance": 1')), "plan"),
    ],
)
def test_damaged_rows_are_refused(
    small: tuple[Instances, Answers], tmp_path: Path, edit: Callable[[Columns], None], field: str
) -> None:
    instances, proven = small
    path = tmp_path / "c.parquet"
    kept = (proven.nodes > 1) | (np.arange(len(proven)) == 0)
    assert proven.leaves is not None
    plans = {b: plan for b, plan in enumerate(proven.plans()) if kept[b]}
    leaves = proven.leaves
    rows = np.flatnonzero(kept[leaves.scenario])
    multipliers = {n: a[rows] for n, a in leaves.multipliers.items()}
    write_certificates(
        path, tabulate_leaves(Leaves(leaves.scenario[rows], leaves.path[rows], multipliers), plans, instances)
    )
    edited(path, edit)
    with pytest.raises(InputError, match=field) as error:
        load_certificates(path, instances)
    assert str(path) in str(error.value)


def test_damaged_files_are_refused(small: tuple[Instances, Answers], tmp_path: Path) -> None:
    instances, proven = small
    path = tmp_path / "c.parquet"
    save_certificates(path, proven, instances)
    whole = path.read_bytes()
    for cut in (len(whole) // 2, len(whole) - 5, 0):
        path.write_bytes(whole[:cut])
        with pytest.raises(InputError, match="whole Parquet"):
            load_certificates(path, instances)
    with pytest.raises(InputError, match="readable"):
        load_certificates(tmp_path / "absent.parquet", instances)
    path.write_bytes(whole)
    table = pq.read_table(path)
    pq.write_table(table.drop_columns(["pairs"]), path)
    with pytest.raises(InputError, match="pairs"):
        load_certificates(path, instances)
    pq.write_table(table.replace_schema_metadata({}), path)
    with pytest.raises(InputError, match="metadata"):
        load_certificates(path, instances)


def test_certificates_of_other_names_or_another_mode_are_refused(
    small: tuple[Instances, Answers], tmp_path: Path
) -> None:
    instances, proven = small
    save_certificates(tmp_path / "c.parquet", proven, instances)
    with pytest.raises(InputError, match="uncertainty"):
        load_certificates(tmp_path / "c.parquet", instances.with_uncertainty("diu"))
    with pytest.raises(InputError, match="queries"):
        load_certificates(tmp_path / "c.parquet", random_instances(0, (3, 2, 2, 2), batch=6))


def test_brackets_without_certificates_are_refused(small: tuple[Instances, Answers], tmp_path: Path) -> None:
    instances, proven = small
    with pytest.raises(InputError, match="certificate"):
        proofs_of(0, replace(proven, leaves=None), instances)


def test_tables_that_name_no_scenario_are_refused(small: tuple[Instances, Answers]) -> None:
    instances, proven = small
    table = claims(proven)
    with pytest.raises(InputError, match="upper_bound"):
        verify_rows(table.drop(columns="upper_bound"), {}, instances)
    with pytest.raises(InputError, match="instance"):
        verify_rows(table.assign(instance=6), {}, instances)
    with pytest.raises(InputError, match="lower_bound"):
        verify_rows(table.assign(lower_bound="low"), {}, instances)


@pytest.mark.parametrize("kept", ["gpu_price", "delay_threshold", "delay_nominal", "max_routes"])
def test_a_field_that_scenarios_share_counts_as_in_each_of_them(kept: str) -> None:
    """Four scenarios of which only one field has a row each: as if every field had."""
    one = random_instances(3, (2, 2, 2, 2), max_routes=2)
    shared = {n: v[0] if n in one.batched else v for n, v in one.fields._asdict().items()}
    rows = {n: np.stack([np.asarray(shared[n])] * 4) for n in REQUIRED_FIELDS}
    rows["delay_threshold"] = rows["delay_threshold"] * 0.02  # some pairs break the promise alone
    shared["delay_threshold"] = rows["delay_threshold"][0]
    few, all_ = one.with_fields(**shared | {kept: rows[kept]}), one.with_fields(**rows)
    assert (few.batched, all_.size) == ({kept}, 4)
    rng = np.random.default_rng(0)
    leaves = [
        (np.zeros(0, np.int32), np.arange(4, dtype=np.int32), rng.uniform(0, 1, 8 + 4 * 8).astype(np.float32))
        for _ in range(4)
    ]
    at = np.arange(4)
    np.testing.assert_allclose(dual_values(few, at, leaves), dual_values(all_, at, leaves), rtol=1e-12)


def test_the_proof_is_checked_without_the_code_that_made_it():
    code = (
        "import sys, rodiu_jax.certificates;"
        "print([m for m in sys.modules if m.split('.')[0] in ('solvers', 'jax') or m == 'rodiu_jax.model.evaluation'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
