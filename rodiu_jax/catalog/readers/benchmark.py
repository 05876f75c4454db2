"""Benchmarks of one server as a measured curve: what a replica sustains while it keeps what is promised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

from rodiu_jax.catalog import Catalog, load_catalog
from rodiu_jax.catalog.curve_values import SAME_LENGTHS, find_end_to_end, read_curve_value
from rodiu_jax.catalog.file_format import AXES
from rodiu_jax.catalog.promises import METRICS, Curve, Point, Promise, best_point, parse_promise
from rodiu_jax.catalog.readers.benchmark_formats import Measurement, Unit, read_measurements
from rodiu_jax.catalog.readers.document import read_tree
from rodiu_jax.catalog.readers.imported import (
    Imported,
    Kind,
    Origin,
    Value,
    describe_added,
    find_likes,
    fixed,
    list_files,
    refuse_again,
    settle_name,
)
from rodiu_jax.errors import InputError
from rodiu_jax.io.number_text import significant

_LEAST_TPOT = 0.2
"""ms. A faster user would get 5,000 tokens/s: the unit is another."""

_MOST_TPOT = 10_000.0
_SAME_RATE = 3.0
_ROUNDING = 0.001
"""Files round latencies to some digits."""


def import_benchmark(
    files: str | Path | Sequence[str | Path],
    *,
    query: str,
    model: str,
    gpu: str | None = None,
    tp: int | None = None,
    promise: str | None = None,
    replicas: int | None = None,
    unit: Unit | None = None,
    base: str | Path = "seed",
    like: str | Mapping[str, str] | None = None,
    write: bool = True,
) -> Imported:
    """Read one curve of rates and latencies from benchmarks of one server, at several loads.

    ``throughput`` of (query, model, gpu, tp) is the highest measured rate at which every limit of the promise holds,
    0 if none; the points and the promise are kept in the catalogue, so that another promise is read off them. At that
    point (the slowest, where the promise holds at none) the mean end-to-end latency, or the median where a file has no
    mean, divided by the tokens gives ``delay_nominal``, and gives ``residency_hours`` where ``base`` has one per pair;
    both follow another promise too. Every pair that nobody measured gets ``throughput`` 0.

    Args:
      files: `vllm bench serve`, InferenceX, AIPerf, GuideLLM, inference-perf, or llm-d benchmark reports; points of
        one curve may be in one file or in several.
      query, model, gpu: names of ``base`` that were measured; a GPU that a report names need not be named again.
      tp: GPUs of a replica; a report that says it need not be told.
      promise: such as ``ttft_p99<=500ms,tpot_p50<=30ms``; by default what ``base`` promises to the query type.
      replicas: servers that were measured together: rates are divided by them. 1, or what a report says.
      unit: of all latencies, ``s`` or ``ms``, where a file does not say it or says it wrongly.
      base: catalogue to extend, by name or path.
      like: names of ``base`` that new ones are like: ``query=NAME,model=NAME,gpu=NAME``.
      write: False to read alone: the names need not be in ``base``, and nothing can be saved.

    Raises:
      InputError: a file of no known format; a value that is missing or impossible; units, degree, GPU, replicas or
        promise that nobody says; files about different models or lengths; a promise about what was not measured.
    """
    paths = list_files(files)
    if unit not in (None, *get_args(Unit)):
        raise InputError("unit", "", "s or ms", unit)
    for name, number in (("tp", tp), ("replicas", replicas)):
        if number is not None and (isinstance(number, bool) or not 1 <= number <= 100_000):
            raise InputError(name, "", "a whole number >= 1", number)
    catalog = load_catalog(base)
    likes, added = find_likes(like), dict[str, dict[str, str]]()
    measured: list[tuple[Measurement, Path, Origin]] = []
    for path in paths:
        tree, origin = read_tree(path)
        refuse_again(path, origin, [known for _, _, known in measured])
        for found in read_measurements(tree, unit):
            _check_point(found, path, unit)
            _check_order(found, path)
            measured.append((found, path, origin))
    _check_alike(measured)
    gpu = gpu or _find_gpu(measured, catalog if write else None)
    degree, count, how = _find_replicas(measured, tp, replicas)
    for axis, name in (("query", query), ("model", model), ("gpu", gpu)):
        kind: Kind = "query" if axis == "query" else "model" if axis == "model" else "gpu"
        if write and (new := settle_name(catalog, kind, name, likes.get(axis), axis)):
            added.setdefault(axis, {})[new[0]] = new[1]
    if write and str(degree) not in catalog.sets["tp"]:
        raise InputError("tp", "", f"a degree of {catalog.name}: {', '.join(catalog.sets['tp'])}", degree)
    promised = _find_promise(promise, catalog, query)
    points = [Point(3600 * m.rate / count, m.latencies, m.tokens) for m, _, _ in measured]
    for (m, path, _), point in zip(measured, points, strict=True):
        missing = [name for name in promised.latencies if name not in point.latencies]
        if missing:
            expected = f"latencies that {path.name} has: {', '.join(sorted(point.latencies)) or 'none'}"
            raise InputError(path, f"{m.at}: promise".removeprefix(": "), expected, missing[0])
    best = best_point(tuple(points), promised)
    source = "; ".join(dict.fromkeys(str(origin) for _, _, origin in measured))
    note = _write_note(measured, unit, how)
    order = sorted(range(len(points)), key=lambda n: points[n].rate)
    curve = Curve(
        query, model, gpu, str(degree), tuple(points[n] for n in order), source, note, "measured", ""
    )
    values = _value_latencies(catalog, curve, None if best is None else points[best])
    warnings = [*_find_warnings(measured, catalog, query), *_find_replaced(catalog, curve, promised)]
    record: dict[str, Any] = {
        "query": query,
        "model": model,
        "gpu": gpu,
        "tp": degree,
        "promise": str(promised),
        "throughput": 0.0 if best is None else points[best].rate,
        **_record_best(None if best is None else points[best]),
        "points": [_record_point(measured[n], points[n], promised) for n in order],
        "replicas": count,
        "units": "throughput and rate in queries/h of one replica, latencies in ms",
        "warnings": warnings,
    }
    return Imported(
        kind="benchmark",
        name=f"{catalog.name}, {query} on {model} {gpu} x{degree} from {paths[0].stem}",
        description=f"{catalog.name} with what {model} on {degree} x {gpu} was measured to sustain of {query}",
        base=base,
        values=values,
        record=record,
        summary=_write_summary(record, measured, catalog, note, added),
        curves=(curve,),
        promises={query: promised},
        likes=added,
    )


def _check_point(m: Measurement, path: Path, unit: Unit | None) -> None:
    """Refuse latencies whose unit cannot be what the file says, unless somebody said it."""
    if not m.latencies:
        raise InputError(path, m.at, "ttft, tpot or e2e latencies with percentiles or means")
    if m.completed == 0:
        raise InputError(path, m.at, "a point with completed requests", 0)
    tpot = m.latencies.get("tpot_p50", m.latencies.get("tpot_mean"))
    if unit is None and tpot is not None and not _LEAST_TPOT <= tpot <= _MOST_TPOT:
        expected = (
            f"--unit s or --unit ms: read in {m.stated}, it would be {1000 / tpot:,.4g} tokens/s for one user"
            if tpot
            else "--unit s or --unit ms: it is 0"
        )
        raise InputError(
            path, f"{m.at}: time per output token".removeprefix(": "), expected, f"{tpot:.6g} ms"
        )


def _check_order(m: Measurement, path: Path) -> None:
    """Refuse latencies that contradict each other: a first token after the last, a percentile above a higher one.

    A request's first token is not later than its last, so no statistic of TTFT exceeds that of end-to-end latency.
    """
    for metric in METRICS:
        names = sorted(
            (n for n in m.latencies if n.startswith(f"{metric}_p")), key=lambda n: float(n[len(metric) + 2 :])
        )
        for lower, higher in pairwise(names):
            if m.latencies[lower] > (1 + _ROUNDING) * m.latencies[higher]:
                expected = f"at most the {m.latencies[higher]:.6g} ms of {higher}"
                value = f"{m.latencies[lower]:.6g} ms"
                raise InputError(path, f"{m.at}: {lower}".removeprefix(": "), expected, value)
    for name, value in m.latencies.items():
        last = m.latencies.get(name.replace("ttft_", "e2e_"))
        if name.startswith("ttft_") and last is not None and value > (1 + _ROUNDING) * last:
            expected = (
                f"at most the {last:.6g} ms of {name.replace('ttft_', 'e2e_')}: one of them has another unit"
            )
            raise InputError(path, f"{m.at}: {name}".removeprefix(": "), expected, f"{value:.6g} ms")


def _check_alike(measured: Sequence[tuple[Measurement, Path, Origin]]) -> None:
    """Refuse files that cannot be one curve: other models, other lengths of requests."""
    first, path, _ = measured[0]
    for m, other, _ in measured[1:]:
        if m.model and first.model and m.model != first.model:
            raise InputError(
                other, "model", f"{first.model}, as {path.name} has it: one curve is of one model", m.model
            )
        if m.tokens is None or first.tokens is None:
            continue
        for side, a, b in zip(("input", "output"), m.tokens, first.tokens, strict=True):
            if max(a, b) > SAME_LENGTHS * min(a, b):
                expected = (
                    f"about {b:.6g} {side} tokens a request, as {path.name} has: one curve is of one workload"
                )
                raise InputError(other, m.at, expected, round(a, 3))


def _find_gpu(measured: Sequence[tuple[Measurement, Path, Origin]], catalog: Catalog | None) -> str:
    """The GPU that the files name, where it is a name of the base (any, without one)."""
    named = sorted({gpu for m, _, _ in measured for gpu in m.gpus})
    if len(named) == 1 and (catalog is None or named[0] in catalog.sets["gpu"]):
        return named[0]
    said = f"the file says {' and '.join(named)}" if named else "the file does not name it"
    known = f" of {catalog.name}: {', '.join(catalog.sets['gpu'])}" if catalog is not None else ""
    expected = f"--gpu with a GPU configuration{known}; {said}"
    raise InputError(measured[0][1], "gpu", expected)


def _find_replicas(
    measured: Sequence[tuple[Measurement, Path, Origin]], tp: int | None, replicas: int | None
) -> tuple[int, int, str]:
    """Degree and number of the replicas that rates are of, and how that is known."""
    first, path, _ = measured[0]
    engines = first.engines
    for m, other, _ in measured[1:]:
        if [(e.tp, e.replicas) for e in m.engines] != [(e.tp, e.replicas) for e in engines]:
            raise InputError(other, "engines", f"the same servers as {path.name}: one curve is of one server")
    degrees = sorted({e.tp for e in engines if e.tp})
    count = sum(e.replicas for e in engines)
    if len(degrees) > 1 and (tp is None or replicas is None):
        kinds = ", ".join(f"{e.replicas} x {e.role} on {e.tp} x {e.gpu}" for e in engines)
        expected = (
            "--tp and --replicas together, which say by what the rate is divided: it is of all of "
            f"{kinds}, which are no replicas of one kind"
        )
        raise InputError(path, "engines", expected, f"{len(engines)} engines")
    if len(degrees) == 1:
        if tp is not None and tp != degrees[0]:
            raise InputError("tp", "", f"{degrees[0]}, as {path.name} says", tp)
        if replicas is not None and replicas != count:
            raise InputError("replicas", "", f"{count}, as {path.name} says", replicas)
        tp, replicas = degrees[0], count
        how = f"rate divided by {count} replicas, as the file says" if count > 1 else ""
        return tp, replicas, how
    if tp is None:
        expected = "--tp, the GPUs of one replica, which the file does not say"
        raise InputError(path, "tp", expected)
    how = f"rate divided by {replicas} replicas" if replicas and replicas > 1 else ""
    return tp, replicas or 1, how


def _find_promise(promise: str | None, catalog: Catalog, query: str) -> Promise:
    if promise is not None:
        return parse_promise(promise, "promise")
    if query in catalog.promises:
        return catalog.promises[query]
    expected = f"--promise such as ttft_p99<=500ms,tpot_p50<=30ms: {catalog.name} promises nothing to {query}"
    raise InputError("promise", "", expected)


def _record_best(point: Point | None) -> dict[str, Any]:
    """What the best point says besides its rate, as JSON."""
    found = find_end_to_end(point) if point is not None else None
    if point is None or found is None:
        return {"e2e_ms": None, "e2e_is": None, "delay_ms_per_token": None}
    total = sum(point.tokens or ())
    return {
        "e2e_ms": found[1],
        "e2e_is": found[0],
        "delay_ms_per_token": found[1] / total if total > 0 else None,
    }


def _value_latencies(catalog: Catalog, curve: Curve, best: Point | None) -> tuple[Value, ...]:
    """Delay per token and residency, which follow the curve as the promise changes."""
    values = []
    for quantity in ("delay_nominal", "residency_hours"):
        if catalog.quantities[quantity].over != AXES[:3]:
            continue
        speedups = {curve.tp: _find_speedup(catalog, curve.tp)}
        read = read_curve_value(quantity, {curve.tp: best}, {curve.tp: curve.points[0]}, speedups)
        if read is not None:
            number, note = read
            values.append(Value(quantity, curve.cell[:3], fixed(number), curve.source, note, at_curve=True))
    return tuple(values)


def _find_speedup(catalog: Catalog, degree: str) -> float | None:
    """The speed-up of a degree where the base gives one number for it."""
    q = catalog.quantities["tp_speedup"]
    return catalog.find_speedup((degree,)) if q.over == ("tp",) and degree in catalog.sets["tp"] else None


def _write_note(measured: Sequence[tuple[Measurement, Path, Origin]], unit: Unit | None, how: str) -> str:
    first = measured[0][0]
    stated = f"{unit}, as --unit says" if unit else first.stated
    parts = [f"{first.tool}: requests/s x 3600; latencies from {stated}"]
    parts += [how] if how else []
    if first.model:
        parts.append(f"the file's model is {first.model}")
    if first.gpus:
        parts.append(f"its GPU {' and '.join(dict.fromkeys(first.gpus))}")
    if first.tokens:
        parts.append(f"{first.tokens[0]:.6g} input and {first.tokens[1]:.6g} output tokens a request")
    if failed := sum(m.failed for m, _, _ in measured):
        done = sum(m.completed or 0 for m, _, _ in measured)
        parts.append(
            f"{failed:,} requests failed and {done:,} did not; rates and latencies are of the latter"
        )
    return "; ".join(parts)


def _find_warnings(
    measured: Sequence[tuple[Measurement, Path, Origin]], catalog: Catalog, query: str
) -> list[str]:
    """What a careful reader would ask about: rates against counts, failures, lengths other than the catalogue's."""
    found = []
    for m, path, _ in measured:
        where = f"{path.name} {m.at}".strip()
        if m.completed and m.seconds:
            counted = m.completed / m.seconds
            if not 1 / _SAME_RATE <= m.rate / counted <= _SAME_RATE:
                found.append(
                    f"{where}: the rate is {m.rate:.4g} requests/s, but {m.completed:,} requests in "
                    f"{m.seconds:.4g} s are {counted:.4g}"
                )
        if m.failed and m.failed > 0.01 * ((m.completed or 0) + m.failed):
            found.append(f"{where}: {m.failed:,} of {(m.completed or 0) + m.failed:,} requests failed")
    first = measured[0][0]
    if first.tokens and query in catalog.sets["query"]:
        at = catalog.sets["query"].index(query)
        for quantity, tokens in zip(("input_tokens", "output_tokens"), first.tokens, strict=True):
            low, high = (float(x[at]) for x in catalog.ranges[quantity])
            if not low / 2 <= tokens <= 2 * high:
                written = f"{low:.6g}" if low == high else f"{low:.6g} to {high:.6g}"
                found.append(
                    f"measured with {tokens:.6g} {quantity.replace('_', ' ')} a request, while {query} of "
                    f"{catalog.name} has {written}: the rate is that of the measured lengths"
                )
    return found


def _find_replaced(catalog: Catalog, curve: Curve, promised: Promise) -> list[str]:
    """The promise of the base that this one replaces, where other curves are read off again by it."""
    old = catalog.promises.get(curve.query)
    others = sum(c.query == curve.query and c.cell != curve.cell for c in catalog.curves)
    if old is None or old == promised or not others:
        return []
    return [
        f"{catalog.name} promised {old} to {curve.query}: its other curves ({others}) are read off again, too"
    ]


def _record_point(
    measured: tuple[Measurement, Path, Origin], point: Point, promise: Promise
) -> dict[str, Any]:
    m, path, _ = measured
    about = {"file": path.name, "concurrency": m.concurrency, "requests": m.completed, "failed": m.failed}
    latencies = {k: point.latencies[k] for k in sorted(point.latencies)}
    return {"rate": point.rate, "holds": promise.holds(point.latencies), **latencies, **about}


def _write_summary(
    record: Mapping[str, Any],
    measured: Sequence[tuple[Measurement, Path, Origin]],
    catalog: Catalog,
    note: str,
    added: Mapping[str, Mapping[str, str]],
) -> str:
    names = ", ".join(dict.fromkeys(origin.short for _, _, origin in measured))
    holding = [p for p in record["points"] if p["holds"]]
    count = len(record["points"])
    text = (
        f"{record['query']} on {record['model']}, {record['tp']} x {record['gpu']}, from {names}: "
        f"{count} point{'s' if count > 1 else ''}, {record['promise']} holds at {len(holding)}. "
    )
    if holding:
        text += f"One replica sustains {significant(record['throughput'], 6)} queries/h"
        if record["e2e_ms"] is not None:
            text += f" ({record['e2e_is']} {significant(record['e2e_ms'], 4)} ms"
            delay = record["delay_ms_per_token"]
            text += f", {significant(delay, 4)} ms/token)" if delay is not None else ")"
        text += "."
    else:
        text += "It sustains no measured rate: its throughput is 0."
    text += f" {note[0].upper()}{note[1:]}. Every pair without a measurement has throughput 0."
    if "max_replicas" not in catalog.quantities:
        text += f" {catalog.name} allows one replica of a pair (max_replicas)."
    lines = [text, *describe_added(catalog, added)]
    return "\n".join([*lines, *(f"Warning: {w}." for w in record["warnings"])])
