"""One case per file format: a valid file is made bad, a command reads it, and what it accepts is not a lie.

A case draws its mutation and checks two things. The command ends as `tests.fuzzing.run.fit` asks: status 0, 1 or 2 and
a line. What was accepted means what the file says, by a witness that reads the file in another way.
"""

import csv
import io
import math
import shutil
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

from rodiu_jax.catalog import load_catalog
from rodiu_jax.model.fields import FIELD_SPECS, FILE_FIELDS, REQUIRED_FIELDS
from rodiu_jax.model.npz import load_instances
from rodiu_jax.model.plan_json import load_plans
from rodiu_jax.model.verdict import COSTS
from rodiu_jax.sweeps.spec import load_spec
from rodiu_jax.sweeps.store import read_rows
from tests.fuzzing.mutate import NUMBERS, TEXTS, as_json, as_toml, mutated, spoiled
from tests.fuzzing.plan_folder import plan_folder
from tests.fuzzing.run import fit, rodiu
from tests.fuzzing.valid import tree

Draw = Callable[[Any], Any]
_SLACK = 1e-6


class Folder:
    """The valid files, and the exact optimum of each scenario of ``two.npz``."""

    def __init__(self, path: Path, optima: dict[int, float]) -> None:
        self.path, self.optima = path, optima

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def bad(self, name: str, content: bytes) -> Path:
        """A bad file beside the valid ones."""
        path = self.path / f"bad-{name}"
        path.write_bytes(content)
        return path


# ---- catalogues ----


def catalogue(draw: Draw, here: Folder) -> None:
    """Names, tables and numbers of a catalogue changed."""
    whole = draw(st.booleans())
    _catalogue(here, as_toml(draw(mutated(tree(here / ("whole.toml" if whole else "tiny.toml"))))), draw)


def catalogue_bytes(draw: Draw, here: Folder) -> None:
    """Bytes of a catalogue changed."""
    _catalogue(here, draw(spoiled((here / "tiny.toml").read_bytes())), draw)


def _catalogue(here: Folder, content: bytes, draw: Draw) -> None:
    path = here.bad("catalogue.toml", content)
    ran = fit(rodiu("describe", "--catalog", path), path)
    if ran.code != 0:
        assert ran.code == 2, ran
        return
    catalog = load_catalog(path)
    for name, spec in FIELD_SPECS.items():  # nothing that can be drawn is outside what a field may be
        if name not in catalog.quantities:
            continue
        low, high = catalog.ranges[name]
        assert spec.infinite or np.isfinite(high).all(), name
        assert (np.asarray(low) >= spec.low).all(), (name, low)
        assert (np.asarray(high) <= spec.high).all(), (name, high)
        assert (np.asarray(low) <= np.asarray(high)).all(), name
    if draw(st.integers(0, 60)) == 0:  # compiles
        made = here / "made.npz"
        fit(rodiu("sample", "--catalog", path, "--n", 2, "-o", made), path)
        load_instances(made)


# ---- specs of sweeps and their points ----


def sweep_spec(draw: Draw, here: Folder) -> None:
    """Keys and values of a sweep's spec changed."""
    name = draw(st.sampled_from(["sweep.toml", "drawn.toml", "points.toml"]))
    _spec(here, as_toml(draw(mutated(tree(here / name)))))


def sweep_spec_bytes(draw: Draw, here: Folder) -> None:
    """Bytes of a sweep's spec changed."""
    name = draw(st.sampled_from(["sweep.toml", "drawn.toml", "points.toml"]))
    _spec(here, draw(spoiled((here / name).read_bytes())))


def _spec(here: Folder, content: bytes) -> None:
    path = here.bad("sweep.toml", content)
    # The folder holds a sweep: what is accepted is refused there, before any work.
    ran = fit(rodiu("sweep", path, "-o", here / "out"), path, "bad-sweep", "sweep", here.path)
    assert ran.code == 2, ran
    if "a folder without a sweep" in ran.err:
        kept = load_spec(path).to_dict()
        _agree(tree(path), kept, "")


def _agree(given: Any, kept: Any, at: str) -> None:
    """Every value given is the value kept."""
    if at in (".catalog", ".design", ".plans"):  # paths and columns of a file are resolved
        return
    if isinstance(given, dict):
        for key, value in given.items():
            assert key in kept, f"{at}.{key}"
            _agree(value, kept[key], f"{at}.{key}")
    elif isinstance(given, list):
        assert len(given) == len(kept), at
        for m, pair in enumerate(zip(given, kept, strict=True)):
            _agree(*pair, f"{at}[{m}]")
    elif isinstance(given, str) and isinstance(kept, list):
        return  # the column of a file of points
    else:
        assert type(given) is type(kept) or {type(given), type(kept)} == {int, float}, (at, given, kept)
        assert given == kept, (at, given, kept)


def points(draw: Draw, here: Folder) -> None:
    """Cells or bytes of a CSV of points changed."""
    source = (here / "points.csv").read_text()
    content = _csv(draw, source)
    (here / "bad").mkdir(exist_ok=True)
    shutil.copy(here / "tiny.toml", here / "bad/tiny.toml")
    (here / "bad/points.csv").write_bytes(content)
    spec = here / "bad/points.toml"
    shutil.copy(here / "points.toml", spec)
    ran = fit(rodiu("sweep", spec, "-o", here / "out"), spec, "points.csv", here / "out")
    assert ran.code == 2, ran
    if "a folder without a sweep" in ran.err:
        rows = [row for row in csv.reader(io.StringIO(content.decode().removeprefix("\ufeff"))) if row]
        heads = [cell.strip() for cell in rows[0]]
        for factor, name in zip(load_spec(spec).factors, ("b", "p"), strict=True):
            found = [float(row[heads.index(name)]) for row in rows[1:]]
            assert all(map(math.isfinite, found)), found
            assert list(factor.levels) == found


def _csv(draw: Draw, text: str) -> bytes:
    """Cells changed, or bytes."""
    if draw(st.booleans()):
        return draw(spoiled(text.encode()))
    rows = [line.split(",") for line in text.splitlines()]
    for _ in range(draw(st.integers(1, 3))):
        row = draw(st.sampled_from(rows))
        if row:
            at = draw(st.integers(0, len(row) - 1))
            kind = draw(st.sampled_from(["number", "text", "drop", "add"]))
            if kind == "drop":
                del row[at]
            elif kind == "add":
                row.insert(at, "1")
            else:
                row[at] = str(draw(NUMBERS if kind == "number" else TEXTS))
    return ("\n".join(",".join(row) for row in rows) + "\n").encode("utf-8", "surrogatepass")


# ---- traces ----


def trace(draw: Draw, here: Folder) -> None:
    """Cells or bytes of a trace changed."""
    content = _csv(draw, (here / "trace.csv").read_text())
    path, made = here.bad("trace.csv", content), here / "made.toml"
    ran = fit(
        rodiu("calibrate", path, "--query", "Code_Gen", "--catalog", here / "tiny.toml", "-o", made),
        path, "window",
    )  # fmt: skip
    if ran.code != 0:
        assert ran.code == 2, ran
        return
    rows = [r for r in csv.reader(io.StringIO(content.decode().removeprefix("\ufeff"), newline="")) if any(r)]
    heads = [cell.strip() for cell in rows[0]]
    for quantity, head in (("input_tokens", "ContextTokens"), ("output_tokens", "GeneratedTokens")):
        answered = [row for row in rows[1:] if float(row[heads.index("GeneratedTokens")]) > 0]
        given = sorted(float(row[heads.index(head)]) for row in answered)
        drawn = load_catalog(made).entry(quantity, ("Code_Gen",)).distribution.numbers
        assert sorted(drawn) == given  # few requests: all of them are kept
        assert all(x >= 0 and x == math.floor(x) for x in given)


# ---- instances ----


def instances(draw: Draw, here: Folder) -> None:
    """Arrays of an archive changed: values, types, shapes, names."""
    with np.load(here / "two.npz") as archive:
        arrays: dict[str, Any] = {n: archive[n] for n in archive.files}
    for _ in range(draw(st.integers(1, 2))):
        _array(draw, arrays)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    _instances(here, buffer.getvalue())


def _array(draw: Draw, arrays: dict[str, Any]) -> None:
    name = draw(st.sampled_from(sorted(arrays)))
    old = np.asarray(arrays[name])
    kind = draw(st.sampled_from(["cell"] * 6 + ["drop", "rename", "type", "shape", "extra", "axis", "empty"]))
    if kind == "cell":
        text = old.dtype.kind == "U"
        new = old.astype(object)
        at = tuple(draw(st.integers(0, n - 1)) for n in old.shape) if old.size else ()
        new[at] = (
            draw(TEXTS) if text else draw(NUMBERS.filter(lambda x: abs(x) < 1e300 or x != x or x > 1e307))
        )
        try:
            arrays[name] = new.astype("U") if text else new.astype(np.float64)
        except (OverflowError, TypeError):  # too large; a cell of an array made complex before
            arrays[name] = new
    elif kind == "drop":
        del arrays[name]
    elif kind == "rename":
        arrays[draw(st.sampled_from([f"{name}s", name.upper(), "budgets"]))] = arrays.pop(name)
    elif kind == "type":
        to = draw(
            st.sampled_from(["float32", "float16", "int64", "uint8", "complex64", "bool", "O", "S", "U"])
        )
        try:
            with np.errstate(all="ignore"), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of an imaginary part made before
                arrays[name] = old.astype(to)
        except (ValueError, TypeError, UnicodeError):
            arrays[name] = np.array([{}], object)
    elif kind == "shape":
        arrays[name] = old[..., None] if draw(st.booleans()) else old.T.copy()
    elif kind == "axis":
        arrays[name] = np.stack([old] * draw(st.integers(1, 3)))
    elif kind == "empty":
        arrays[name] = old[:0] if old.ndim else old.reshape(1)[:0]
    else:
        arrays[draw(st.sampled_from(["x", "tp", "gpu_prices"]))] = old


def instances_bytes(draw: Draw, here: Folder) -> None:
    """Bytes of an archive changed."""
    _instances(here, draw(spoiled((here / "two.npz").read_bytes())))


def instances_headers(draw: Draw, here: Folder) -> None:
    """Bytes inside the members of an archive changed, whose checksums are right again."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(here / "two.npz") as old, zipfile.ZipFile(buffer, "w") as new:
        chosen = draw(st.sampled_from(old.namelist()))
        for name in old.namelist():
            content = old.read(name)
            if name == chosen:
                head = content[:128]
                if draw(st.booleans()):
                    size = draw(
                        st.sampled_from([b"0", b"-1", b"999999999999", b"10**9", b"(2, 2), (2", b"2, " * 70])
                    )
                    head = head.replace(b"'shape': (", b"'shape': (" + size + b", ", 1)
                    content = head + content[128:]
                else:
                    content = draw(spoiled(content))
            new.writestr(name, content)
    _instances(here, buffer.getvalue())


def _instances(here: Folder, content: bytes) -> None:
    path = here.bad("two.npz", content)
    ran = fit(
        rodiu("evaluate", path, here / "plans.json", "-o", here / "made.parquet"), path, here / "plans.json"
    )
    if ran.code != 0:
        assert ran.code == 2, ran
        if str(path) in ran.err:
            return
    read = load_instances(path)
    with zipfile.ZipFile(path) as archive:
        raw = {
            n.removesuffix(".npy"): np.lib.format.read_array(io.BytesIO(archive.read(n)))
            for n in archive.namelist()
        }
    names = {"query_names", "model_names", "gpu_names", "uncertainty"}
    assert {*REQUIRED_FIELDS, *names} <= set(raw) <= {*FILE_FIELDS, *names, "gpu_devices"}
    for name in raw.keys() - names - {"gpu_devices"}:
        spec = FIELD_SPECS[name]
        kept = np.asarray(getattr(read.fields, name))
        assert raw[name].dtype.kind in "iuf"
        assert kept.shape == raw[name].shape
        assert (kept == raw[name]).all(), name
        assert spec.infinite or np.isfinite(kept).all(), name
        assert (kept >= spec.low).all(), name
        assert (kept <= spec.high).all(), name
        assert not spec.above_low or (kept > spec.low).all(), name
    for name in ("query_names", "model_names", "gpu_names"):
        assert list(getattr(read, name)) == raw[name].tolist()
    assert read.uncertainty == str(raw["uncertainty"])


# ---- plans ----


def plans(draw: Draw, here: Folder) -> None:
    """Keys and values of plans changed."""
    _plans(here, as_json(draw(mutated(tree(here / "plans.json")))))


def plans_bytes(draw: Draw, here: Folder) -> None:
    """Bytes of plans changed."""
    _plans(here, draw(spoiled((here / "plans.json").read_bytes())))


def _plans(here: Folder, content: bytes) -> None:
    path = here.bad("plans.json", content)
    ran = fit(rodiu("evaluate", here / "two.npz", path, "-o", here / "made.parquet"), path)
    if ran.code != 0:
        assert ran.code == 2, ran
        return
    given = tree(path)
    assert isinstance(given, list)
    read = [plan.to_json() for plan in load_plans(path, load_instances(here / "two.npz"))]
    assert read == given
    for plan in read:
        shares = [route["share"] for route in plan["routes"]] + list(plan["unmet"].values())
        assert all(0 <= share < math.inf for share in shares)
    table = pd.read_parquet(here / "made.parquet")
    for row in table.to_dict("records"):  # a feasible plan serves everyone or says whom it does not
        if row["feasible"]:
            for query in ("Code_Gen", "Translation"):
                plan = read[row["plan"]]
                served = sum(r["share"] for r in plan["routes"] if r["query"] == query)
                assert abs(served + plan["unmet"].get(query, 0.0) - 1) <= 2e-6


# ---- tables, certificates and their verification ----


def _table(draw: Draw, path: Path) -> tuple[bytes, pa.Table | None]:
    """A Parquet file with cells, columns or rows changed, or its bytes (then no table)."""
    if draw(st.integers(0, 2)) == 0:
        return draw(spoiled(path.read_bytes())), None
    kept = pq.read_table(path)
    frame = kept.to_pandas()
    for _ in range(draw(st.integers(1, 2))):
        column = draw(st.sampled_from(list(frame.columns)))
        row = draw(st.integers(0, max(len(frame) - 1, 0)))
        kind = draw(
            st.sampled_from(["cell"] * 8 + ["drop", "rename", "cut", "twice", "empty", "text", "move"])
        )
        if kind == "cell" and len(frame):
            old = frame[column].tolist()
            number = isinstance(old[row], int | float) and not isinstance(old[row], bool)
            values = [v.tolist() if isinstance(v, np.ndarray) else v for v in old]
            if isinstance(values[row], list) and values[row]:
                spot = draw(st.integers(0, len(values[row]) - 1))
                values[row][spot] = draw(st.sampled_from([-values[row][spot], 99, 0, 1, -1]))
            elif number:
                small = st.sampled_from([old[row] * (1 + 1e-4), old[row] * (1 - 1e-4), -old[row]])
                values[row] = draw(
                    small | NUMBERS.filter(lambda x: abs(x) < 2**63 or x != x or isinstance(x, float))
                )
            else:
                values[row] = draw(TEXTS | st.sampled_from([None, values[row]]))
            frame[column] = pd.Series(values, dtype=object if not number else None)
        elif kind == "drop":
            frame = frame.drop(columns=[column])
        elif kind == "rename":
            frame = frame.rename(columns={column: f"{column}s"})
        elif kind == "cut":
            frame = frame.iloc[:row]
        elif kind == "twice":
            frame = pd.concat([frame, frame.iloc[[row]]], ignore_index=True) if len(frame) else frame
        elif kind == "empty":
            frame = frame.iloc[:0]
        elif kind == "text":
            frame[column] = [str(value) for value in frame[column]]
        elif kind == "move":
            frame = frame.iloc[::-1].reset_index(drop=True)
        if not len(frame.columns):
            break
    try:
        made = pa.Table.from_pandas(frame, preserve_index=False)
        metadata = kept.schema.metadata
        if made.schema.names == kept.schema.names and draw(st.booleans()):
            made = made.cast(kept.schema.remove_metadata())
        made = made.replace_schema_metadata(metadata)
    except (pa.ArrowException, OverflowError, TypeError):
        return b"PAR1", None
    buffer = io.BytesIO()
    pq.write_table(made, buffer)
    return buffer.getvalue(), made


def bounds(draw: Draw, here: Folder) -> None:
    """Claims of `rodiu bound` changed: what verify lets pass must be true by HiGHS's optimum."""
    content, _ = _table(draw, here / "bounds.parquet")
    path = here.bad("bounds.parquet", content)
    ran = fit(rodiu("verify", path, here / "certificates.parquet", here / "two.npz"), path)
    if ran.code == 0:
        _true(pd.read_parquet(path).to_dict("records"), here.optima)


def _true(rows: list[dict[Any, Any]], optima: dict[int, float]) -> None:
    for row in rows:
        best = optima[row["instance"]]
        slack = _SLACK * best
        low, high = row["lower_bound"], row["upper_bound"]
        assert low is None or low != low or low <= best + slack, row
        assert high is None or high != high or high >= best - slack, row


def certificates(draw: Draw, here: Folder) -> None:
    """Certificates changed: verify recomputes, so that the claims which pass stay true."""
    content, _ = _table(draw, here / "certificates.parquet")
    path = here.bad("certificates.parquet", content)
    ran = fit(rodiu("verify", here / "bounds.parquet", path, here / "two.npz"), path)
    if ran.code == 0:
        _true(pd.read_parquet(here / "bounds.parquet").to_dict("records"), here.optima)


def scores(draw: Draw, here: Folder) -> None:
    """Scores of plans changed: none passes that is not the score there was."""
    content, made = _table(draw, here / "scores.parquet")
    path = here.bad("scores.parquet", content)
    ran = fit(rodiu("verify", path, here / "plans.json", here / "two.npz"), path)
    if ran.code == 0 and made is not None:
        right = pd.read_parquet(here / "scores.parquet").set_index(["plan", "instance"])
        for row in pd.read_parquet(path).to_dict("records"):
            if (row["plan"], row["instance"]) not in right.index:
                continue  # another pair than there was, which verify has computed
            true: Any = right.loc[(row["plan"], row["instance"])]
            assert bool(row["feasible"]) == bool(true["feasible"]), row
            for name in COSTS:
                assert abs(row[name] - true[name]) <= 1e-6 * (1 + abs(true[name])), (name, row, true)


def table(draw: Draw, here: Folder) -> None:
    """A table for the sensitivity analysis changed: CSV or Parquet."""
    if draw(st.booleans()):
        path = here.bad("table.csv", _csv(draw, (here / "table.csv").read_text()))
    else:
        made = here / "table.parquet"
        if not made.exists():
            pd.read_csv(here / "table.csv").to_parquet(made)
        path = here.bad("table.parquet", _table(draw, made)[0])
    ran = fit(rodiu("sensitivity", path, "--factors", "a,b", "--output", "y", "--json"), path)
    assert ran.code != 1, ran
    assert "NaN" not in ran.out


# ---- the folder of a sweep ----


def _spoil_folder(draw: Draw, here: Folder) -> Path:
    copy = here / "bad-out"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(here / "out", copy)
    shutil.copy(here / "tiny.toml", here / "bad-tiny.toml")
    files = sorted(p for p in copy.rglob("*") if p.suffix in (".toml", ".json", ".jsonl", ".parquet"))
    for path in draw(st.lists(st.sampled_from(files), min_size=1, max_size=2, unique=True)):
        kind = draw(st.sampled_from(["inside"] * 8 + ["gone", "folder", "empty", "name"]))
        if kind == "gone":
            path.unlink()
        elif kind == "folder":
            path.unlink()
            path.mkdir()
        elif kind == "empty":
            path.write_bytes(b"")
        elif kind == "name":
            path.rename(
                path.with_name(draw(st.sampled_from(["part-000000000001-4.parquet", "part-x.parquet", "y"])))
            )
        elif path.suffix == ".parquet":
            path.write_bytes(_table(draw, path)[0])
        elif path.suffix == ".jsonl" or draw(st.booleans()):
            path.write_bytes(draw(spoiled(path.read_bytes())))
        else:
            path.write_bytes((as_toml if path.suffix == ".toml" else as_json)(draw(mutated(tree(path)))))
    return copy


def folder(draw: Draw, here: Folder) -> None:
    """Files of a sweep's folder changed, and read by what reads folders: verify lets no untrue bound pass."""
    copy = _spoil_folder(draw, here)
    right = pd.concat(pd.read_parquet(p) for p in sorted((here / "out/scenarios").glob("part-*.parquet")))
    command = draw(st.sampled_from([("verify",)] * 6 + [("sensitivity",)] * 3 + [("plot",)]))
    options = ("--figure", "effects", "-o", here / "made.svg") if command == ("plot",) else ()
    ran = fit(rodiu(*command, copy, *options), "bad-out", "bad-tiny")
    if (
        command == ("verify",)
        and ran.code == 0
        and (copy / "spec.toml").read_bytes() == (here / "out/spec.toml").read_bytes()
    ):
        parts = sorted((copy / "scenarios").glob("part-*.parquet"))
        for row in pd.concat([pd.read_parquet(p) for p in parts] or [right]).to_dict("records"):
            same = right[(right["sample"] == row["sample"]) & (right["point"] == row["point"])].iloc[0]
            assert row["lower_bound"] <= same["upper_bound"] * (1 + _SLACK), row
            assert row["upper_bound"] >= same["lower_bound"] * (1 - _SLACK), row


def resume(draw: Draw, here: Folder) -> None:
    """A spoiled folder resumed: the rows are those there were, or the command says what is wrong."""
    copy = _spoil_folder(draw, here)
    names = ("bad-out", "bad-tiny", "two budgets", "sweep")
    ran = fit(rodiu("sweep", here / "sweep.toml", "-o", copy, "--resume", "--quiet"), *names)
    if ran.code == 0:
        columns = ["sample", "point", "budget", "gpu_price", "lower_bound", "upper_bound", "status"]
        assert read_rows(copy)[columns].equals(read_rows(here / "out")[columns])


CASES: dict[str, Callable[[Draw, Folder], None]] = {
    f.__name__: f
    for f in (
        catalogue, catalogue_bytes, sweep_spec, sweep_spec_bytes, points, trace, instances, instances_bytes,
        instances_headers, plans, plans_bytes, bounds, certificates, scores, table, folder, resume,
        plan_folder,
    )
}  # fmt: skip
SELDOM = {"folder": 4, "resume": 40, "plan_folder": 10}
"""Cases that cost much more than milliseconds: so many times fewer."""
