"""What NVIDIA's open performance data say of models and GPUs, as predicted curves of a catalogue's query types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rodiu_jax.catalog import Catalog, load_catalog
from rodiu_jax.catalog.curve_values import choose_degree, read_curve_value
from rodiu_jax.catalog.file_format import AXES
from rodiu_jax.catalog.promises import Curve, Point, Promise, best_point, parse_promise
from rodiu_jax.catalog.readers.imported import (
    Imported,
    Kind,
    Value,
    describe_added,
    find_likes,
    fixed,
    read_pairs,
    settle_name,
)
from rodiu_jax.catalog.readers.performance_model import MODES, Case, OperatingPoint, PerformanceModel
from rodiu_jax.errors import InputError
from rodiu_jax.io.number_text import significant
from rodiu_jax.runtime.progress import progress

PREDICTED = ("ttft_mean", "tpot_mean", "e2e_mean")
"""The latencies that are predicted: means, so a promise about a percentile cannot be held against them."""

FACTORS = (0.5, 1.0, 2.0)
"""A curve has the fastest point within so many times the promise, so that other promises can be read off it."""

BACKENDS = ("vllm", "sglang", "trtllm")
_ANY = 1e9


@dataclass(frozen=True)
class _Found:
    """The curve of one cell and where on it the promise holds; no point where no rate keeps it."""

    cell: tuple[str, str, str, int]
    points: tuple[Point, ...]
    best: int | None
    source: str

    @property
    def rate(self) -> float:
        """Queries/h of one replica that keeps the promise."""
        return 0.0 if self.best is None else self.points[self.best].rate


def import_aiconfigurator(
    *,
    models: str | Mapping[str, str],
    systems: str | Mapping[str, str],
    degrees: str | Sequence[int] | None = None,
    promise: str | Sequence[str] = (),
    backend: str = "vllm",
    mode: str = "HYBRID",
    base: str | Path = "seed",
    like: str | Mapping[str, str] | None = None,
    write: bool = True,
    quiet: bool = True,
) -> Imported:
    """Predict what replicas sustain of every query type of ``base``, at its mean token lengths and its promises.

    ``throughput`` of (query, model, gpu, tp) is the highest predicted rate at which every limit of the promise holds;
    the curve keeps the fastest points within half, once and twice the promise. At the degree that serves most queries
    per GPU the end-to-end latency divided by the tokens gives ``delay_nominal``, and gives ``residency_hours`` where
    ``base`` has one per pair; those of other degrees give ``tp_speedup`` where ``base`` has one per pair. All follow
    another promise, as far as the curve goes. A case that
    the package does not support is named and left out; every pair without a prediction has ``throughput`` 0.

    Args:
      models: what the catalogue and the package call a model: ``Llama-3.1-8B=meta-llama/Meta-Llama-3.1-8B,...``.
      systems: the same for GPU configurations: ``H100_FP16=h100_sxm,...``.
      degrees: GPUs of a replica: ``1,2,4`` (default: all of ``base``).
      promise: limits such as ``ttft_mean<=500ms,tpot_mean<=30ms``, or ``QUERY=LIMITS`` for one query type, in place
        of those of ``base``. The package predicts means alone.
      backend: ``vllm``, ``sglang`` or ``trtllm``, perhaps with the version whose data count: ``vllm=0.24.0``.
      mode: HYBRID (measured kernels, the rest scaled from them), SILICON, EMPIRICAL, or SOL: the hardware's limits.
      base: catalogue to extend, by name or path.
      like: names of ``base`` that new ones are like: ``model=NAME,gpu=NAME``.
      write: False to read alone: models and GPUs need not be in ``base``, and nothing can be saved.
      quiet: show no progress.

    Raises:
      InputError: the package is not installed; a model or system that it does not describe; an unknown name, degree,
        backend or mode; a query type without a promise, or with one about percentiles.

    Source: NVIDIA, AIConfigurator, Apache-2.0.
    """
    catalog = load_catalog(base)
    likes, added = find_likes(like), dict[str, dict[str, str]]()
    pairs = {"model": read_pairs(models, "models"), "gpu": read_pairs(systems, "systems")}
    chosen = _read_degrees(degrees, catalog, write)
    kind, _, version = backend.partition("=")
    if kind not in BACKENDS:
        raise InputError("backend", "", f"one of {', '.join(BACKENDS)}, or NAME=VERSION", backend)
    if mode not in MODES:
        raise InputError("mode", "", f"one of {', '.join(MODES)}", mode)
    axes: tuple[tuple[Kind, str], ...] = (("model", "models"), ("gpu", "systems"))
    for axis, option in axes:
        for name in pairs[axis]:
            if write and (new := settle_name(catalog, axis, name, likes.get(axis), option)):
                added.setdefault(axis, {})[new[0]] = new[1]
    promises = _find_promises(catalog, promise)
    package = PerformanceModel()
    for model in pairs["model"].values():
        for system in pairs["gpu"].values():
            package.check(model, system)
    cells: list[_Found] = []
    left_out: dict[str, list[str]] = {}
    kept = 0
    asked = [(q, m, g) for m in pairs["model"] for g in pairs["gpu"] for q in catalog.sets["query"]]
    shown = nullcontext(None) if quiet else progress("Predictions", len(asked), stage="predictions")
    with shown as bar:
        for query, model, gpu in asked:
            case = Case(
                pairs["model"][model],
                pairs["gpu"][gpu],
                kind,
                version,
                mode,
                *_find_lengths(catalog, query),
                chosen,
                _bound_latencies(promises[query], _find_lengths(catalog, query)[1]),
            )
            found, before = package.predict(case)
            kept += before
            if bar is not None:
                bar.advance()
            if found.fault:
                left_out.setdefault(f"{model} on {gpu}: {found.fault}", []).append(query)
                continue
            source = (
                f"aiconfigurator {package.version}, {kind} {found.data or version} on {case.system}, "
                f"{mode.lower()} data: {case.model}"
            )
            for degree in chosen:
                points = [p for p in found.points if p.degree == degree]
                cell = query, model, gpu, degree
                cells.append(
                    _choose_points(cell, points, promises[query], source, _find_lengths(catalog, query))
                )
    return Imported(
        kind="aiconfigurator",
        name=f"{catalog.name}, {', '.join(pairs['model'])} on {', '.join(pairs['gpu'])} as predicted",
        description=f"{catalog.name} with what aiconfigurator {package.version} predicts that replicas sustain",
        base=base,
        values=_value_latencies(catalog, cells),
        record=_write_record(cells, promises, left_out, package.version),
        summary=_summarise(catalog, cells, left_out, kept, len(asked), package.version, added),
        curves=tuple(
            Curve(*c.cell[:3], str(c.cell[3]), c.points, c.source, "", "predicted", "")
            for c in cells
            if c.points
        ),
        promises=promises,
        likes=added,
    )


def _read_degrees(degrees: str | Sequence[int] | None, catalog: Catalog, write: bool) -> tuple[int, ...]:
    known = catalog.sets["tp"]
    texts = known if degrees is None else degrees.split(",") if isinstance(degrees, str) else degrees
    try:
        chosen = tuple(sorted({int(t) for t in texts}))
    except (TypeError, ValueError):
        chosen = ()
    if not chosen or chosen[0] < 1 or (write and not {str(n) for n in chosen} <= set(known)):
        expected = f"degrees of {catalog.name} with commas between: {', '.join(known)}"
        raise InputError("degrees", "", expected, degrees)
    return chosen


def _find_promises(catalog: Catalog, given: str | Sequence[str]) -> dict[str, Promise]:
    """What is promised to each query type, in means alone."""
    found = dict(catalog.promises)
    for text in [given] if isinstance(given, str) else given:
        query, sign, limits = text.partition("=")
        one = sign and query.strip() in catalog.sets["query"]
        read = parse_promise(limits if one else text, "promise")
        found |= dict.fromkeys([query.strip()] if one else catalog.sets["query"], read)
    for query in catalog.sets["query"]:
        option = f"--promise '{query}=ttft_mean<=500ms,tpot_mean<=30ms'"
        if query not in found:
            raise InputError("promise", "", f"{option}: {catalog.name} promises nothing to {query}")
        odd = [n for n in found[query].latencies if n not in PREDICTED]
        if odd:
            expected = (
                f"{option} or the like: only {', '.join(PREDICTED)} are predicted, and {query} has {odd[0]}"
            )
            raise InputError("promise", "", expected, str(found[query]))
    return found


def _find_lengths(catalog: Catalog, query: str) -> tuple[int, int]:
    """Mean input and output tokens of a type; whole, and at least one, as the package counts."""
    at = catalog.sets["query"].index(query)
    ends = [[float(end[at]) for end in catalog.ranges[name]] for name in ("input_tokens", "output_tokens")]
    given, made = (max(1, round((low + high) / 2)) for low, high in ends)
    return given, made


def _bound_latencies(promise: Promise, output_tokens: int) -> tuple[tuple[float, float], ...]:
    """Limits of TTFT and TPOT that every promised limit implies, at each of the factors.

    All terms of a limit are positive, so each latency is at most the limit over its weight; TTFT is part of the
    end-to-end latency, and so are ``output_tokens - 1`` times TPOT.
    """
    ttft = tpot = _ANY
    for limit in promise.limits:
        for weight, name in limit.terms:
            most = limit.most / weight
            if name in ("ttft_mean", "e2e_mean"):
                ttft = min(ttft, most)
            if name == "tpot_mean":
                tpot = min(tpot, most)
            if name == "e2e_mean":
                tpot = min(tpot, most / max(output_tokens - 1, 1))
    return tuple((ttft * f, tpot * f) for f in FACTORS)


def _choose_points(
    cell: tuple[str, str, str, int],
    found: Sequence[OperatingPoint],
    promise: Promise,
    source: str,
    tokens: tuple[float, float],
) -> _Found:
    """The fastest point within each multiple of the promise, in the order of their rates."""
    points = tuple(Point(round(3600 * p.rate, 3), p.latencies, tokens) for p in found)
    best = {best_point(points, promise.scaled(f)) for f in FACTORS}
    kept = tuple(sorted((points[n] for n in best if n is not None), key=lambda p: p.rate))
    return _Found(cell, kept, best_point(kept, promise), source)


def _value_latencies(catalog: Catalog, cells: Sequence[_Found]) -> tuple[Value, ...]:
    """Delay per token and residency at the degree with most queries per GPU, and the speed-ups of the others."""
    values: list[Value] = []
    groups: dict[tuple[str, str, str], dict[str, _Found]] = {}
    for c in cells:
        if c.points:
            groups.setdefault(c.cell[:3], {})[str(c.cell[3])] = c
    for names, group in groups.items():
        points = {tp: None if c.best is None else c.points[c.best] for tp, c in group.items()}
        slowest = {tp: c.points[0] for tp, c in group.items()}
        one = dict.fromkeys(group, 1.0)
        speedups = (
            one
            if catalog.quantities["tp_speedup"].over == AXES
            else {tp: catalog.find_speedup((tp,)) for tp in group}
        )
        source = group[choose_degree(points) or min(group, key=int)].source
        asked = [("delay_nominal", names, ""), ("residency_hours", names, "")]
        asked += [("tp_speedup", (*names, tp), tp) for tp in group]  # pyright: ignore[reportArgumentType]
        for quantity, at, tp in asked:
            read = read_curve_value(quantity, points, slowest, speedups, tp)
            if read is not None and catalog.quantities[quantity].over == AXES[: len(at)]:
                rounded = fixed(float(f"{read[0]:.6g}"))
                values.append(Value(quantity, at, rounded, source, read[1], "predicted", at_curve=True))
    return tuple(values)


def _write_record(
    cells: Sequence[_Found],
    promises: Mapping[str, Promise],
    left_out: Mapping[str, Sequence[str]],
    version: str,
) -> dict[str, Any]:
    rows = []
    for c in cells:
        latencies = {} if c.best is None else dict(c.points[c.best].latencies)
        query, model, gpu, degree = c.cell
        rows.append(
            {"query": query, "model": model, "gpu": gpu, "tp": degree, "throughput": c.rate, **latencies}
        )
    return {
        "version": version,
        "promises": {q: str(p) for q, p in promises.items()},
        "predictions": rows,
        "left_out": [{"case": case, "queries": list(queries)} for case, queries in left_out.items()],
        "units": "throughput in queries/h of one replica, latencies in ms",
    }


def _summarise(
    catalog: Catalog,
    cells: Sequence[_Found],
    left_out: Mapping[str, Sequence[str]],
    kept: int,
    asked: int,
    version: str,
    added: Mapping[str, Mapping[str, str]],
) -> str:
    able = [c for c in cells if c.best is not None]
    never = len(cells) - len(able)
    lines = [
        f"aiconfigurator {version}: {asked} cases, {kept} of them kept from before; {len(cells)} cells predicted, "
        f"{never} of them at no rate that keeps the promise or fits the memory. "
        + _write_ends(able)
        + "Predictions are means under a steady load, and their users measured less: set throughput_shortfall. "
        "Every pair without a prediction has throughput 0."
    ]
    lines += [
        f"Left out ({', '.join(queries)}): {case[:200]}" for case, queries in list(left_out.items())[:12]
    ]
    if len(left_out) > 12:
        lines.append(f"And {len(left_out) - 12} more left out: --json lists all.")
    if left_out:
        lines.append(
            "Where the package has no measured kernels, --mode SOL --backend vllm=VERSION asks for the hardware's "
            "limits."
        )
    return "\n".join([*lines, *describe_added(catalog, added)])


def _write_ends(able: Sequence[_Found]) -> str:
    if not able:
        return ""
    ends = [
        f"{significant(c.rate, 4)} ({c.cell[0]} on {c.cell[1]}, {c.cell[3]} x {c.cell[2]})"
        for c in (min(able, key=lambda c: c.rate), max(able, key=lambda c: c.rate))
    ]
    return f"The others sustain {ends[0]} to {ends[1]} queries/h. "
