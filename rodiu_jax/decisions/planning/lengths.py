"""What a catalogue states of requests of one length, carried to requests of another: limits, prices, rates, latencies.

A catalogue promises an end-to-end latency, and quotes a price elsewhere, for requests of its own mean lengths; its
rates are of the lengths that its curves state. Where a trace brings other lengths,

- the end-to-end limit and the price elsewhere keep their amount **per token**: they grow as a request's tokens do;
- a rate is divided by ``max(1, in' / in, out' / out)``. Where a request costs a + b in + c out of a replica's time,
  with a, b, c >= 0 that nobody need know, it costs at most so many times as much. What grows faster than the length, as
  attention does, is not in that. Latencies to the first token and of each further one, and limits on them, stay;
- an end-to-end latency grows as ``ttft + tpot (out - 1)`` does, or where the curve does not tell these, as much as its
  rate is divided by; so does the time that a query stays in memory (`delay_nominal` is per token).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from rodiu_jax.catalog import Catalog, Draws
from rodiu_jax.catalog.curve_values import describe_other_lengths
from rodiu_jax.catalog.promises import Basis, Curve, Point, Promise
from rodiu_jax.catalog.readers.imported import Value, fixed
from rodiu_jax.catalog.recipes import Entry
from rodiu_jax.catalog.service_times import read_latency
from rodiu_jax.decisions.planning.traffic import Traffic, require_values
from rodiu_jax.io.number_text import interval, significant

_TOLD = 0.03
"""Lengths that differ by more than this part are told; smaller differences are carried in silence."""

_END_TO_END = "e2e_"


@dataclass(frozen=True)
class Carried:
    """What a plan states of its query types beside their traffic.

    Attributes:
      values: end-to-end limits, prices elsewhere, rates without a curve, times in memory.
      curves: those of types with other lengths than theirs.
      promises: of the catalogue, where their end-to-end limits grew.
      notes: a sentence for each type whose lengths differ by more than a few per cent from its trace's, or from those
        that its curves state.
    """

    values: tuple[Value, ...]
    curves: tuple[Curve, ...]
    promises: Mapping[str, Promise]
    notes: tuple[str, ...]


def carry_lengths(
    base: Catalog,
    means: Catalog,
    traffic: Sequence[Traffic],
    promises: Mapping[str, Promise],
    priced: Sequence[str],
) -> Carried:
    """Carry what the catalogue states of traced types to the lengths of their traces.

    An end-to-end limit that the user promises is of his own requests, and takes the place of the catalogue's as it is.

    Args:
      means: the catalogue with every distribution at its mean.
      promises: those that the user gave, by query type.
      priced: the query types for which the user gave a price elsewhere.

    Raises:
      InputError: the user promises an end-to-end latency, and the catalogue derives its limits by a rule.
    """
    values: list[Value] = []
    curves: list[Curve] = []
    moved: dict[str, Promise] = {}
    notes: list[str] = []
    lengths = {
        query: (float(given), float(made))
        for query, given, made in zip(
            means.sets["query"],
            means.ranges["input_tokens"][0],
            means.ranges["output_tokens"][0],
            strict=True,
        )
    }
    for t in traffic:
        own = find_end_to_end_limit(promises.get(t.query))
        if own is not None:
            require_values(base, "delay_threshold", "ms")
            said = f"--promise {t.query}={promises[t.query]}"
            values.append(Value("delay_threshold", (t.query,), fixed(own), said, basis="assumed"))
        if t.statistics is None:
            given, made = lengths[t.query]
            ranges = (given, given), (made, made)
            text = describe_other_lengths(base.curves, t.query, ranges, same=1 + _TOLD)
            notes += [f"{text}."] if text else []
            continue
        growth = _divide(t.tokens, sum(lengths[t.query]))
        kept = [] if own is not None else ["delay_threshold"]
        kept += [] if t.query in priced else ["unmet_penalty"]
        stated = [name for name in kept if _is_stated(base, name)]
        for name in stated if growth != 1 else ():
            values.append(_grow(base, name, (t.query,), growth, t, lengths[t.query]))
        old = base.promises.get(t.query)
        if t.query not in promises and old is not None and growth != 1:
            moved[t.query] = _grow_promise(old, growth)
        mine = [_carry_curve(c, t, lengths[t.query]) for c in base.curves if c.query == t.query]
        curves += [c for c, _ in mine if c is not None]
        rates, stretches = _carry_rates(base, t, lengths[t.query])
        values += rates
        values += _carry_stays(base, t, lengths[t.query])
        stretches += [stretch for _, stretch in mine]
        notes += _write_note(base, t, lengths[t.query], kept, stated, growth, stretches)
    return Carried(tuple(values), tuple(curves), moved, tuple(notes))


def find_end_to_end_limit(promise: Promise | None) -> float | None:
    """Find the tightest limit that a promise puts on the mean end-to-end latency alone, ms; None where there is none.

    Percentiles are held against the curves; the model's own limit is one on the mean.
    """
    found = [
        limit.most / limit.terms[0][0]
        for limit in (promise.limits if promise is not None else ())
        if limit.latency == f"{_END_TO_END}mean"
    ]
    return min(found, default=None)


def stretch_rate(old: tuple[float, float], new: tuple[float, float]) -> float:
    """Return by how much a request of other lengths can cost more of a replica's time, at most; 1 where it cannot.

    A side of no tokens before, of which nobody can know the cost, counts by all tokens.
    """
    sides = [after / before for before, after in zip(old, new, strict=True) if before > 0]
    return max(1.0, _divide(sum(new), sum(old)), *sides)


def _divide(new: float, old: float) -> float:
    return new / old if old > 0 else 1.0


def _is_stated(base: Catalog, quantity: str) -> bool:
    """Tell whether a quantity has a value for each query type, which another can take the place of."""
    return _has_entries(base, quantity) and base.quantities[quantity].over == ("query",)


def _has_entries(base: Catalog, quantity: str) -> bool:
    """Tell whether a quantity has a value for each name, and no rule that derives it."""
    held = base.quantities.get(quantity)
    return held is not None and isinstance(held.recipe, Draws) and held.recipe.by is None


def _soften(basis: str | None) -> Basis:
    """Return what a carried value rests on: nobody measured it at these lengths."""
    return "predicted" if basis in ("measured", "predicted") else "assumed"


def _write_lengths(lengths: tuple[float, float]) -> str:
    return " + ".join(significant(x, 4) for x in lengths)


def _grow(
    base: Catalog, quantity: str, names: tuple[str, ...], factor: float, t: Traffic, old: tuple[float, float]
) -> Value:
    """Multiply a value of the catalogue."""
    entry: Entry = base.entry(quantity, names)
    spread = entry.distribution
    said = (
        f"{base.name}: {significant(spread.mean, 6)} for {_write_lengths(old)} tokens, times {significant(factor, 4)} "
        f"for {_write_lengths((t.input_tokens, t.output_tokens))}"
    )
    return Value(
        quantity,
        names,
        spread.scaled(factor),
        said,
        entry.note,
        _soften(entry.basis or base.quantities[quantity].basis),
        entry.together or "",
        entry.at_curve,
    )


def _grow_promise(promise: Promise, factor: float) -> Promise:
    limits = [
        replace(limit, most=limit.most * factor) if limit.latency.startswith(_END_TO_END) else limit
        for limit in promise.limits
    ]
    return Promise(tuple(limits))


def _carry_curve(curve: Curve, t: Traffic, lengths: tuple[float, float]) -> tuple[Curve | None, float]:
    """Carry a curve, from the lengths that it states, or else the catalogue's; None where they are those of the trace.

    Returns:
      the curve, and by how much its rates are divided.
    """
    new = t.input_tokens, t.output_tokens
    olds = [point.tokens or lengths for point in curve.points]
    stretches = [stretch_rate(old, new) for old in olds]
    if all(old == new for old in olds):
        return None, 1.0
    points = [
        Point(point.rate / stretch, _grow_latencies(point.latencies, old[1], new[1], stretch), new)
        for point, old, stretch in zip(curve.points, olds, stretches, strict=True)
    ]
    said = f"of {_write_lengths(olds[0])} tokens, carried to {_write_lengths(new)}: rates over {stretches[0]:.4g}"
    note = f"{curve.note}; {said}" if curve.note else said
    carried = replace(curve, points=tuple(points), note=note, basis=_soften(curve.basis))
    return carried, max(stretches)


def _grow_latencies(
    latencies: Mapping[str, float], old_output: float, output: float, stretch: float
) -> dict[str, float]:
    """Grow end-to-end latencies of a point as its first and further tokens say, or else by ``stretch``."""
    first, token = (read_latency(latencies, name) for name in ("ttft", "tpot"))
    factor = stretch
    if first is not None and token is not None:
        before, after = (first + token * max(tokens - 1.0, 0.0) for tokens in (old_output, output))
        factor = _divide(after, before)
    return {name: ms * factor if name.startswith(_END_TO_END) else ms for name, ms in latencies.items()}


def _carry_rates(base: Catalog, t: Traffic, old: tuple[float, float]) -> tuple[list[Value], list[float]]:
    """Carry the rates that are stated without a curve; return by how much each is divided, too."""
    if not _has_entries(base, "throughput"):
        return [], []
    stretch = stretch_rate(old, (t.input_tokens, t.output_tokens))
    measured = {c.cell for c in base.curves}
    cells = [
        names
        for names in base.names("throughput")
        if names[0] == t.query
        and names not in measured
        and base.entry("throughput", names).distribution.range[1] > 0
    ]
    if stretch == 1:
        return [], [1.0] * len(cells)
    grown = [_grow(base, "throughput", names, 1.0 / stretch, t, old) for names in cells]
    return grown, [stretch] * len(cells)


def _carry_stays(base: Catalog, t: Traffic, old: tuple[float, float]) -> list[Value]:
    """Carry the times that queries stay in memory, where no curve tells them."""
    stretch = stretch_rate(old, (t.input_tokens, t.output_tokens))
    if stretch == 1 or not _has_entries(base, "residency_hours"):
        return []
    if base.quantities["residency_hours"].over[:1] != ("query",):
        return []
    told = {c.cell[:3] for c in base.curves if any(n.startswith(_END_TO_END) for n in c.points[0].latencies)}
    found = []
    for names in base.names("residency_hours"):
        entry = base.entry("residency_hours", names)
        if names[0] != t.query or entry.distribution.range[1] == 0 or (entry.at_curve and names in told):
            continue
        found.append(_grow(base, "residency_hours", names, stretch, t, old))
    return found


def _write_note(
    base: Catalog,
    t: Traffic,
    old: tuple[float, float],
    kept: Sequence[str],
    stated: Sequence[str],
    growth: float,
    stretches: Sequence[float],
) -> list[str]:
    """Say what was carried, where lengths differ by more than a few per cent."""
    new = t.input_tokens, t.output_tokens
    told = max(stretches, default=1.0) > 1 + _TOLD or any(
        abs(_divide(after, before) - 1) > _TOLD for before, after in zip(old, new, strict=True)
    )
    if not told:
        return []
    words = {"delay_threshold": "end-to-end limit", "unmet_penalty": "price elsewhere"}
    parts = []
    if stated:
        names = " and ".join(words[name] for name in stated)
        plural = "keep their amounts" if len(stated) > 1 else "keeps its amount"
        parts.append(f"the {names} {plural} per token (times {significant(growth, 4)})")
    for name in kept:
        if name not in stated:
            parts.append(f"the {words[name]} is what the rule of {base.name} makes of these lengths")
    low, high = min(stretches, default=1.0), max(stretches, default=1.0)
    if high > 1:
        by = interval(low, high, lambda x: significant(x, 4))
        parts.append(
            f"every rate is divided by {by}: whatever a token in and a token out cost, a request costs at most so many "
            "times as much"
        )
    else:
        parts.append("rates stay as they are")
    if any(c.query == t.query for c in base.curves):
        parts.append(
            "latencies to the first token and of each further one are those of the curves' own lengths"
        )
    return [
        f"{t.query}: the trace's requests have {_write_lengths(new)} tokens, those of {base.name} "
        f"{_write_lengths(old)}: {'; '.join(parts)}. Measure them, or ask again (rodiu import aiconfigurator)."
    ]
