"""A sweep's certificates: kept with its rows through every kind of end, and no false row passes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rodiu_jax.errors import InputError, WorkFailed
from rodiu_jax.sweeps import METHODS, read_rows, sweep
from rodiu_jax.sweeps.engines import local
from rodiu_jax.sweeps.spec import SweepSpec, make_spec
from rodiu_jax.sweeps.verify_sweep import Tally, verify_sweep
from solvers import cascade as cascade_module
from solvers.pool import Pool
from tests.sweeps.small import indexed, recount

TINY = """
[catalog]
name = "tiny"
extends = "corrected"
[sets]
query = ["Code_Gen", "Translation", "Math_Solving"]
model = ["Llama-3.1-8B", "Llama-3.2-1B", "Llama-3.2-3B"]
gpu = ["A6000_FP16", "A100_FP16", "H100_FP16"]
tp = [1, 2]
"""
PARTS = ("part-000000000000-4.parquet", "part-000000000004-4.parquet")
EXACT_ROW = 5
"""Of the sweep below: solved by HiGHS too, as the audited one."""

Row = dict[str, Any]


@pytest.fixture(scope="module", autouse=True)
def _parts_are_chunks() -> Iterator[None]:
    """However slow the machine is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "FLUSH_SECONDS", 1e6)
        yield


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("catalog") / "tiny.toml"
    path.write_text(TINY)
    return path


@pytest.fixture(scope="module")
def made(tiny: Path) -> SweepSpec:
    """Eight rows in two parts."""
    return make_spec(
        {
            "name": "eight",
            "title": "Eight rows",
            "catalog": str(tiny),
            "samples": 2,
            "gap": 0.05,
            "factors": [
                {"field": "budget", "scale": [0.1, 1.0]},
                {"field": "gpu_price", "scale": [0.5, 1.0]},
            ],
        }
    )


def audit_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SweepSpec, "audited", lambda self, a, b: np.arange(a, b) == EXACT_ROW)


@pytest.fixture(scope="module")
def whole(made: SweepSpec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sweep") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        audit_one(patch)
        sweep(made, out, certificates=True, chunk=4, workers=1, quiet=True)
    return out


@pytest.fixture
def out(whole: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def verified(folder: Path) -> Tally:
    found = Tally()
    for verdicts in verify_sweep(folder):
        found.add(verdicts)
    return found


def edit_row(folder: Path, number: int, edit: Callable[[Row], object]) -> None:
    """Change one row where it is stored; its part is whole again."""
    path = folder / "scenarios" / PARTS[number // 4]
    table = pq.read_table(path)
    rows = table.to_pylist()
    edit(rows[number % 4])
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)


def test_every_row_holds_and_what_rests_on_highs_is_counted(whole: Path) -> None:
    rows = read_rows(whole)
    assert rows.index[rows["method"] != "bracket"].tolist() == [EXACT_ROW]
    assert (rows["certified_lower_bound"] <= rows["lower_bound"]).all()
    on_highs = int((rows["certified_lower_bound"] < rows["lower_bound"] * (1 - 1e-8)).sum())
    found = verified(whole)
    assert (found.rows, found.held, found.plans, found.first) == (8, 8, 8, None)
    assert (found.certified, found.by_highs) == (8 - on_highs, on_highs)
    assert sorted(p.name for p in (whole / "certificates").iterdir()) == list(PARTS)


def _plan_edit(row: Row) -> None:
    plan = json.loads(row["plan"])
    plan["unmet"] = {}
    plan["routes"] = plan["routes"][1:]
    row["plan"] = json.dumps(plan)


def _lower_raised(row: Row) -> None:
    """To just below the upper bound, and the gap with it: nothing in the row contradicts itself."""
    row["lower_bound"] = row["upper_bound"] * (1 - 1e-5)
    row["gap"] = (row["upper_bound"] - row["lower_bound"]) / row["upper_bound"]


def _upper_lowered(row: Row) -> None:
    change = row["upper_bound"] * 1e-5
    for name in ("upper_bound", "total_cost", "rental_cost"):
        row[name] -= change
    row["gap"] = (row["upper_bound"] - row["lower_bound"]) / row["upper_bound"]


FALSE = {
    "lower bound raised": (_lower_raised, "the lower bound is above what its certificate proves"),
    "upper bound lowered": (_upper_lowered, "the upper bound is not the cost of its plan"),
    "certified bound raised": (lambda r: r.update(certified_lower_bound=r["upper_bound"]), "certified"),
    "cost moved": (lambda r: r.update(delay_cost=r["delay_cost"] + 0.01), "delay_cost"),
    "plan broken": (_plan_edit, "the plan breaks demand"),
    "plan unreadable": (lambda r: r.update(plan="{"), "its plan cannot be read"),
    "plan of another shape": (lambda r: r.update(plan="[]"), "its plan cannot be read"),
    "plan removed": (lambda r: r.update(plan=None), "the upper bound is not the cost of its plan"),
    "more GPUs": (lambda r: r.update(gpus_rented=r["gpus_rented"] + 1), "gpus_rented"),
    "more unmet": (lambda r: r.update(unmet_share=r["unmet_share"] + 0.01), "unmet_share"),
    "other names": (lambda r: r.update(deployments="nothing"), "deployments"),
    "deployments missing": (lambda r: r.update(gpus_rented=None), "gpus_rented"),
    "level moved": (lambda r: r.update(budget=0.11), "budget is not that of the point"),
    "optimal by word": (lambda r: r.update(status="optimal", gap=0.01), "optimal"),
    "infeasible by word": (
        lambda r: r.update(status="infeasible", lower_bound=None, gap=None),
        "infeasibility is not proven",
    ),
}


@pytest.mark.parametrize("what", FALSE)
def test_a_false_row_is_named(out: Path, what: str) -> None:
    edit, reason = FALSE[what]
    edit_row(out, 6, edit)
    found = verified(out)
    assert found.held == 7
    assert found.first is not None
    assert found.first[:2] == (1, 2)
    assert reason in found.first[2]


def test_a_bound_of_highs_is_not_recomputed_but_its_certificate_is(out: Path) -> None:
    def raise_lower(row: Row) -> None:
        row["lower_bound"] = row["upper_bound"]
        row["gap"] = 0.0

    edit_row(out, EXACT_ROW, raise_lower)
    found = verified(out)
    assert (found.held, found.by_highs) == (8, 1)
    edit_row(out, EXACT_ROW, lambda r: r.update(certified_lower_bound=r["upper_bound"] * (1 + 1e-6)))
    found = verified(out)
    assert found.first is not None
    assert "certified lower bound" in found.first[2]
    edit_row(
        out, EXACT_ROW, lambda r: r.update(certified_lower_bound=0.0, lower_bound=r["upper_bound"] * 1.1)
    )
    found = verified(out)
    assert found.first is not None
    assert "above the upper bound" in found.first[2]


def _flip(path: Path) -> None:
    data = path.read_bytes()
    middle = len(data) // 3
    path.write_bytes(data[:middle] + bytes([data[middle] ^ 0x10]) + data[middle + 1 :])


def _values_lowered(path: Path) -> None:
    table = pq.read_table(path)
    columns = table.to_pydict()
    for values in columns["values"]:
        values[0] *= 0.5
    pq.write_table(pa.table(columns, schema=table.schema), path)


def _of_other_rows(path: Path) -> None:
    path.write_bytes((path.parent / PARTS[0]).read_bytes())


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_flip, "cannot be read"),
        (lambda path: path.write_bytes(path.read_bytes()[:-9]), "cannot be read"),
        (Path.unlink, "cannot be read"),
        (_of_other_rows, "cannot be read"),
        (_values_lowered, "the lower bound is above what its certificate proves"),
    ],
)
def test_a_corrupted_part_of_certificates_is_named_by_its_first_row(
    out: Path, spoil: Callable[[Path], object], reason: str
) -> None:
    spoil(out / "certificates" / PARTS[1])
    found = verified(out)
    assert found.held == 4
    assert found.first is not None
    assert found.first[:2] == (1, 0)
    assert reason in found.first[2]


def test_what_cannot_be_verified_is_refused(out: Path, tmp_path: Path, tiny: Path) -> None:
    with pytest.raises(InputError, match=r"holds no spec\.toml"):
        verified(tmp_path)
    path = out / "scenarios" / PARTS[0]
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match=PARTS[0]):
        verified(out)
    shutil.copytree(out, tmp_path / "other")
    made = json.loads((out / "manifest.json").read_text()) | {"catalog_sha256": "0"}
    (out / "manifest.json").write_text(json.dumps(made))
    with pytest.raises(InputError, match="the catalogue that the sweep was made from"):
        verified(out)


# ---- keeping them ----


def same(folder: Path, whole: Path) -> None:
    pd.testing.assert_frame_equal(
        read_rows(folder, plans=True).drop(columns="seconds"),
        read_rows(whole, plans=True).drop(columns="seconds"),
    )
    assert verified(folder).held == 8


@pytest.mark.parametrize(
    "lost", ["scenarios", "certificates", "certificates damaged", "rows of a killed run"]
)
def test_a_resumed_sweep_has_the_certificates_of_all_its_rows(
    out: Path, whole: Path, made: SweepSpec, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    audit_one(monkeypatch)
    if lost == "certificates damaged":
        _flip(out / "certificates" / PARTS[1])
    elif lost == "rows of a killed run":  # between the two files of a part
        (out / "scenarios" / PARTS[1]).unlink()
        (out / "certificates" / PARTS[1]).rename(out / "certificates" / "part-000000000004-3.parquet")
        (out / "certificates" / ".part-000000000004-3.parquet.ab12cd_9.parquet").write_bytes(b"half")
    else:
        (out / lost / PARTS[1]).unlink()
    sweep(made, out, chunk=4, workers=1, resume=True, quiet=True)  # it stays a sweep with certificates
    same(out, whole)
    for folder in ("scenarios", "certificates"):
        assert sorted(p.name for p in (out / folder).iterdir()) == list(PARTS)
    assert indexed(out) == recount(out)


def test_an_interrupted_sweep_keeps_rows_with_certificates(
    tmp_path: Path, whole: Path, made: SweepSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    audit_one(monkeypatch)
    real = METHODS["cascade"]

    def cut(instances: Any, **options: Any) -> Any:
        left = 2
        for part in real.load()(instances, **options):
            yield part.take(slice(left))
            left -= len(part)
            if left <= 0:
                raise KeyboardInterrupt

    monkeypatch.setitem(METHODS, "cascade", replace(real, call=cut))
    with pytest.raises(WorkFailed, match="2 of 8 rows"):
        sweep(made, tmp_path / "cut", certificates=True, workers=1, quiet=True)
    assert verified(tmp_path / "cut").held == 2
    monkeypatch.setitem(METHODS, "cascade", real)
    sweep(made, tmp_path / "cut", workers=1, resume=True, quiet=True)
    same(tmp_path / "cut", whole)


def test_a_sweep_without_certificates_stays_so_and_proves_only_its_plans(
    tmp_path: Path, made: SweepSpec
) -> None:
    sweep(made, tmp_path / "bare", samples=1, audit=0.0, exact="none", quiet=True)
    assert not (tmp_path / "bare" / "certificates").exists()
    found = verified(tmp_path / "bare")
    assert (found.held, found.certified, found.plans) == (0, 0, 4)
    assert found.first == (0, 0, "no certificate")
    with pytest.raises(InputError, match="certificates: got True, expected False"):
        sweep(made, tmp_path / "bare", samples=1, audit=0.0, exact="none", certificates=True, resume=True)


def test_exact_sweeps_rest_on_highs_and_keep_no_certificates(tmp_path: Path, made: SweepSpec) -> None:
    sweep(made, tmp_path / "exact", samples=1, method="exact", workers=1, quiet=True)
    found = verified(tmp_path / "exact")
    assert (found.held, found.certified, found.by_highs, found.plans) == (4, 0, 4, 4)
    with pytest.raises(InputError, match="certificates: expected method cascade or bracket"):
        sweep(made, tmp_path / "no", method="exact", certificates=True)
    assert not (tmp_path / "no").exists()


# ---- the policy top ----


TOP = {"exact": "top", "top": 3, "by": "total_cost", "audit": 0.0, "certificates": True}


@pytest.fixture(scope="module")
def ranked(made: SweepSpec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sweep") / "ranked"
    sweep(made, out, chunk=4, workers=1, quiet=True, **TOP)
    return out


def test_top_solves_the_rows_with_the_largest_value_of_the_whole_sweep(ranked: Path, whole: Path) -> None:
    rows = read_rows(ranked)
    dearest = read_rows(whole)["total_cost"].nlargest(3).index
    solved = rows.index[rows["method"] != "bracket"]
    assert sorted(dearest) == solved.tolist()
    assert (rows["status"][solved] == "optimal").all()
    assert (rows["nodes"] >= 1).all()
    assert verified(ranked).held == 8
    assert sorted(p.name for p in (ranked / "scenarios").iterdir()) == list(PARTS)
    assert indexed(ranked) == recount(ranked), "parts that were written twice"


def test_top_goes_on_with_its_first_choice(
    tmp_path: Path, ranked: Path, made: SweepSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, asked = cascade_module.exactly, []

    def cut(groups: Any, **options: Any) -> Any:
        for number, answers in enumerate(real(groups, **options)):
            if number == 1:
                raise KeyboardInterrupt
            yield answers

    def counting(self: Pool, task: Any) -> Any:
        asked.append(task)
        return submit(self, task)

    solved = read_rows(ranked).query("method != 'bracket'").index
    assert len(set(solved // 2)) > 1, "else nothing is left after the first part"
    monkeypatch.setattr(cascade_module, "exactly", cut)
    with pytest.raises(WorkFailed, match="interrupted: 8 of 8 rows"):
        sweep(made, tmp_path / "cut", chunk=2, workers=1, quiet=True, **TOP)
    partly = read_rows(tmp_path / "cut")
    done = int((partly["method"] != "bracket").sum())
    assert 0 < done < 3
    submit = Pool.submit
    monkeypatch.setattr(Pool, "submit", counting)
    monkeypatch.setattr(cascade_module, "exactly", real)
    sweep(made, tmp_path / "cut", chunk=2, workers=1, resume=True, quiet=True, **TOP)
    assert len(asked) == 3 - done
    same(tmp_path / "cut", ranked)
    sweep(made, tmp_path / "cut", chunk=2, workers=1, resume=True, quiet=True, **TOP)
    assert len(asked) == 3 - done, "a finished sweep solves nothing"


def test_a_contradiction_among_the_top_stops_the_sweep_with_its_evidence(
    tmp_path: Path, ranked: Path, made: SweepSpec
) -> None:
    out = Path(shutil.copytree(ranked, tmp_path / "lie"))
    first = json.loads((out / "top.json").read_text())["rows"][0]
    edit_row(out, first, lambda r: r.update(method="bracket", lower_bound=r["upper_bound"] * 1.1))
    with pytest.raises(WorkFailed, match="contradicts"):
        sweep(made, out, workers=1, resume=True, quiet=True, **TOP)
    assert (out / f"audit-failed-row-{first}.npz").exists()


# ---- workers ----


@pytest.mark.slow
def test_workers_change_no_row_and_no_certificate(made: SweepSpec, tmp_path: Path) -> None:
    """Two processes, each on its share of the cores, and chunks of another size."""
    alone = sweep(made, tmp_path / "alone", certificates=True, chunk=8, workers=1, quiet=True)
    beside = sweep(made, tmp_path / "beside", certificates=True, chunk=3, workers=2, quiet=True)
    pd.testing.assert_frame_equal(
        beside.drop(columns="seconds"), alone.drop(columns="seconds"), check_exact=True
    )
    kept = [pq.read_table(tmp_path / name / "certificates") for name in ("alone", "beside")]
    assert kept[0].equals(kept[1])
    assert verified(tmp_path / "beside").held == 8
