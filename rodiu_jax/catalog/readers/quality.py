"""Accuracies of models as error rates: what was measured, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rodiu_jax.catalog import Catalog, load_catalog
from rodiu_jax.catalog.readers.document import Tree, cell_number, read_rows, read_tree
from rodiu_jax.catalog.readers.imported import (
    Imported,
    Origin,
    Value,
    describe_added,
    find_likes,
    fixed,
    list_files,
    read_pairs,
    refuse_again,
    settle_name,
)
from rodiu_jax.errors import InputError

CONFIDENCE = 1.96
"""Standard errors that hold 95 % of what another measurement would find."""

_SAME_ERROR = 0.1
"""A stated standard error may be off by this, relative, as lists round it and divide by n - 1."""

_COLUMNS = {
    "task": ("task",),
    "model": ("model",),
    "precision": ("precision", "dtype"),
    "accuracy": ("accuracy", "acc"),
    "n": ("n", "n_examples"),
    "stderr": ("stderr", "stderr_binomial"),
}
_METRICS = ("exact_match", "acc", "pass@1")


@dataclass(frozen=True)
class Accuracy:
    """One measured accuracy."""

    task: str
    model: str
    precision: str
    accuracy: float
    n: int
    stderr: float
    source: str
    at: str

    @property
    def model_at(self) -> str:
        """The model at its precision, as names of models may have it."""
        return f"{self.model}@{self.precision}"


def import_quality(
    files: str | Path | Sequence[str | Path],
    *,
    names: str | Mapping[str, str] | None = None,
    query: str | None = None,
    model: str | None = None,
    precision: str | None = None,
    metric: str | None = None,
    base: str | Path = "seed",
    like: str | Mapping[str, str] | None = None,
    write: bool = True,
) -> Imported:
    """Read ``error_nominal`` = 1 - accuracy and ``error_deviation`` = 1.96 standard errors from accuracy tables.

    The standard error is the file's, where it has one, else that of n yes-or-no answers, ``sqrt(a (1 - a) / n)``. A
    row is for a query type (its task), a model, and every GPU configuration of ``base`` with its precision; where no
    configuration states a precision, as it belongs to the model there, for every one.

    Args:
      files: CSV with task, model, precision, accuracy, n; or results of lm-eval-harness as JSON.
      names: what the file's tasks, models and precisions are called in ``base``: ``gsm8k=Math_Solving,BF16=FP16``; a
        model at one precision is ``MODEL@PRECISION``.
      query, model, precision: what all rows are, where a file does not say it or each is to count as that.
      metric: of lm-eval-harness, such as ``exact_match,strict-match``, where a task has several.
      base: catalogue to extend, by name or path.
      like: names of ``base`` that new ones are like: ``query=NAME,model=NAME``.
      write: False to read alone: the names need not be in ``base``, and nothing can be saved.

    Raises:
      InputError: an accuracy outside 0 to 1, n that is no whole number >= 1, a standard error that contradicts both,
        two rows for one value, a metric that nobody names, no row that ``base`` has names for.
    """
    paths = list_files(files)
    catalog = load_catalog(base)
    renamed, likes = read_pairs(names, "map"), find_likes(like)
    rows: list[Accuracy] = []
    origins: list[Origin] = []
    for path in paths:
        origin, found = _read_file(path, metric)
        refuse_again(path, origin, origins)
        origins.append(origin)
        rows += found
    if not rows:
        raise InputError(paths[0], "", "at least one accuracy")
    for name in renamed:
        if not any(name in (r.task, r.model, r.precision, r.model_at) for r in rows):
            told = sorted({x for r in rows for x in (r.task, r.model, r.precision) if x})
            raise InputError("map", "", f"tasks, models and precisions of the files: {', '.join(told)}", name)
    values, dropped, added = {}, {}, dict[str, dict[str, str]]()
    record = []
    for row in rows:
        task = query or renamed.get(row.task, row.task)
        called = model or renamed.get(row.model_at, renamed.get(row.model, row.model))
        kind = precision or renamed.get(row.precision, row.precision)
        cells = _find_cells(catalog, task, called, kind, likes, added) if write else []
        if isinstance(cells, str):
            dropped[cells] = dropped.get(cells, 0) + 1
            cells = []
        error, deviation = 1 - row.accuracy, CONFIDENCE * row.stderr
        record.append(
            {
                "query": task,
                "model": called,
                "precision": kind,
                "task": row.task,
                "error_nominal": error,
                "error_deviation": deviation,
                "n": row.n,
                "gpus": [cell[2] for cell in cells],
                "at": row.at,
            }
        )
        for cell in cells:
            if ("error_nominal", cell) in values:
                expected = (
                    f"one accuracy of {', '.join(cell)}; --map, with {row.model_at}=NAME, or --precision tells rows "
                    "apart"
                )
                raise InputError(paths[0], row.at, expected, row.accuracy)
            how = f"{row.task} of {row.model} at {row.precision or 'the precision named'}"
            how += f", accuracy {row.accuracy:g}, n {row.n:,}"
            spread = f"{CONFIDENCE} standard errors of {row.stderr:.4g}: {how}"
            pairs = ("error_nominal", error, f"1 - accuracy: {how}"), ("error_deviation", deviation, spread)
            for quantity, number, note in pairs:
                values[quantity, cell] = Value(quantity, cell, fixed(number), row.source, note)
    if write and not values:
        reason = "; ".join(f"{why} ({count})" for why, count in list(dropped.items())[:6])
        expected = f"rows of names that {catalog.name} has; --map 'FILE=CATALOGUE,..' names them: {reason}"
        raise InputError(paths[0], "", expected)
    lines = [f"Accuracies from {', '.join(o.short for o in origins)}: {len(rows)} rows."]
    for r in record:
        if r["gpus"] or not write:
            on = f" on {', '.join(r['gpus'])}" if r["gpus"] else f" at {r['precision']}"
            lines.append(
                f"{r['query']}, {r['model']}{on}: error {r['error_nominal']:.4g}, deviation {r['error_deviation']:.4g} "
                f"(n {r['n']:,})."
            )
    lines += [f"Dropped: {count} row{'s' if count > 1 else ''}, {why}." for why, count in dropped.items()]
    lines += describe_added(catalog, added)
    return Imported(
        kind="quality",
        name=f"{catalog.name}, accuracies from {', '.join(p.stem for p in paths)}",
        description=f"{catalog.name} with measured error rates",
        base=base,
        values=tuple(values.values()),
        record=record,
        summary="\n".join(lines),
        likes=added,
    )


def _find_cells(
    catalog: Catalog,
    query: str,
    model: str,
    precision: str,
    likes: Mapping[str, str],
    added: dict[str, dict[str, str]],
) -> list[tuple[str, str, str]] | str:
    """The cells of a row, or why it has none."""
    labels = catalog.attributes.get("gpu", {})
    stated = {g: labels.get(g, {}).get("precision", "") for g in catalog.sets["gpu"]}
    gpus = [g for g, known in stated.items() if known == precision or not any(stated.values())]
    if not gpus:
        return f"no GPU of {catalog.name} has the precision {precision or '(none stated)'}"
    for axis, name in (("query", query), ("model", model)):
        if name in catalog.sets["query" if axis == "query" else "model"]:
            continue
        if axis not in likes or not name:
            return f"no {axis} {name or '(none stated)'} in {catalog.name}"
    for axis, name in (("query", query), ("model", model)):
        if new := settle_name(catalog, "query" if axis == "query" else "model", name, likes.get(axis), axis):
            added.setdefault(axis, {})[new[0]] = new[1]
    return [(query, model, gpu) for gpu in gpus]


def _read_file(path: Path, metric: str | None) -> tuple[Origin, list[Accuracy]]:
    if path.suffix.lower() == ".json":
        tree, origin = read_tree(path)
        return origin, list(_read_harness(tree, str(origin), metric))
    heads, rows, origin = read_rows(path)
    named = {key: next((n for n in known if n in heads), None) for key, known in _COLUMNS.items()}
    for key in ("task", "model", "accuracy", "n"):
        if named[key] is None:
            expected = "the columns task, model, precision, accuracy, n (or n_examples), perhaps stderr"
            raise InputError(path, key, expected, heads)
    return origin, list(_read_table(path, rows, named, str(origin)))


def _read_table(
    path: Path, rows: Iterator[tuple[int, dict[str, str]]], named: Mapping[str, str | None], source: str
) -> Iterator[Accuracy]:
    def cell(row: Mapping[str, str], key: str) -> str:
        column = named[key]
        return row[column] if column is not None else ""

    for line, row in rows:
        at = f"line {line}"
        for key in ("task", "model"):
            if not cell(row, key):
                raise InputError(path, f"{at}: {key}", "a name", "")
        accuracy = cell_number(cell(row, "accuracy"), path, f"{at}: {named['accuracy']}")
        n = cell_number(cell(row, "n"), path, f"{at}: {named['n']}", expected="a whole number >= 1")
        stated = cell(row, "stderr")
        error = cell_number(stated, path, f"{at}: {named['stderr']}") if stated else None
        about = path, at, str(named["accuracy"]), str(named["n"]), str(named["stderr"])
        stderr = _check(accuracy, n, error, *about)
        yield Accuracy(
            cell(row, "task"),
            cell(row, "model"),
            cell(row, "precision"),
            accuracy,
            int(n),
            stderr,
            source,
            at,
        )


def _check(
    accuracy: float,
    n: float,
    stderr: float | None,
    path: Path,
    at: str,
    acc_name: str,
    n_name: str,
    err_name: str,
) -> float:
    """Return the standard error; refuse an accuracy, a count or a standard error that cannot be."""
    if accuracy > 1:
        raise InputError(path, f"{at}: {acc_name}", "a fraction from 0 to 1 (0.878, not 87.8)", accuracy)
    if n < 1 or n != math.floor(n) or n > 1e12:
        raise InputError(path, f"{at}: {n_name}", "a whole number >= 1", n)
    binomial = math.sqrt(accuracy * (1 - accuracy) / n)
    if stderr is None:
        return binomial
    sample = math.sqrt(accuracy * (1 - accuracy) / max(n - 1, 1))
    if abs(stderr - binomial) > _SAME_ERROR * sample + 1e-3:
        expected = f"about {binomial:.4g}, the standard error of {n:,.0f} answers with accuracy {accuracy:g}"
        raise InputError(path, f"{at}: {err_name}", expected, stderr)
    return stderr


def _read_harness(tree: Tree, source: str, metric: str | None) -> Iterator[Accuracy]:
    """Results of lm-eval-harness: ``results.TASK."METRIC,FILTER"``, counts in ``n-samples``."""
    model = next((m for m in (tree.get("model_name"), tree.get("config", "model")) if m is not None), None)
    kind = tree.get("config", "model_dtype")
    for task, table in tree.need("results").items():
        keys = [k for k, v in table.items() if "," in k and "_stderr," not in k and _is_metric(k, metric, v)]
        if not keys:
            continue  # a group, or a task that has no accuracy
        if len(keys) > 1:
            raise InputError(
                tree.source, table.at, f"--metric with one of {'; '.join(keys)}", f"{len(keys)} metrics"
            )
        name, _, filtered = keys[0].partition(",")
        value, error = table.need(keys[0]), table.get(f"{name}_stderr,{filtered}")
        count = tree.need("n-samples", task).need("effective")
        accuracy, n = value.number(most=1.0), count.whole(low=1)
        if error is not None and isinstance(error.value, str):  # "N/A"
            error = None
        stated = error.number() if error is not None else None
        stderr = _check(
            accuracy, n, stated, tree.source, table.at, keys[0], "n-samples", f"{name}_stderr,{filtered}"
        )
        dtype = str(kind.value).removeprefix("torch.") if kind is not None and kind.value else ""
        yield Accuracy(
            task, model.text() if model is not None else "", dtype, accuracy, n, stderr, source, table.at
        )


def _is_metric(key: str, metric: str | None, value: Tree) -> bool:
    if not isinstance(value.value, int | float) or isinstance(value.value, bool):
        return False
    return key == metric if metric is not None else key.split(",")[0] in _METRICS
