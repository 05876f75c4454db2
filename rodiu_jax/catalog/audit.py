"""Checks a catalogue: real data, ranges, memory, compute, worked examples, contradictions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from rodiu_jax.catalog import Catalog, Distribution, Draws, Measure, load_catalog
from rodiu_jax.catalog.file_format import Axis
from rodiu_jax.catalog.findings import count_bases, find_findings
from rodiu_jax.catalog.sampling import sample_quantities
from rodiu_jax.io.number_text import interval, percent
from rodiu_jax.model.tolerances import RECOMPUTED

_BYTES_PER_BLOCK = 64 * 2**20
PACKAGED = ("seed", "corrected")
_EXAMPLE_DRAWS = 4

Values = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Report:
    """The results of `validate`, as data frames.

    Attributes:
      comparisons: name, unit, low, high (of our draws), stated_low, stated_high, observed_low, observed_high,
        verdict (``inside``, ``overlaps`` or ``outside`` the observed range), source.
      draws: per quantity the range declared (least, most), the range drawn (low, high), whether it is within.
      memory: per (model, gpu, tp) weights and room in GB, ``weights_fit``, ``fits`` (with the whole of any
        one query type, in every scenario), reason why not, and ``kv_share[QUERY]``: the mean share of a type
        whose KV cache fits when it is alone.
      compute: per (gpu, tp, query) capacity and demand in TFLOPs, mean share that fits, ``fits`` (whole, in
        every scenario).
      examples: stated, expected and sampled value of each worked example, ``ok``.
      contradictions: per name concerned the values in ``seed``, ``corrected`` and ``this`` catalogue, and
        which of them it ``follows`` (``both alike``, ``seed``, ``corrected`` or ``neither``).
      unservable: query types that no (model, GPU, degree) can serve in some scenario, as its weights fit nowhere, no KV
        cache is left or its throughput is 0 there, with the ``share`` of such scenarios.
      findings: what is odd about the values (`rodiu_jax.catalog.findings`): ``kind``, ``at``, ``text``.
      bases: per field how many values are ``measured``, ``predicted`` and ``assumed``.
    """

    catalog: str
    n: int
    seed: int
    comparisons: pd.DataFrame
    draws: pd.DataFrame
    memory: pd.DataFrame
    compute: pd.DataFrame
    examples: pd.DataFrame
    contradictions: pd.DataFrame
    unservable: pd.DataFrame
    findings: pd.DataFrame
    bases: pd.DataFrame

    @property
    def failures(self) -> list[str]:
        """List what is wrong: a worked example with another result, a draw outside the range declared for it.

        A comparison that says ``outside`` or a model that fits no GPU is a finding about the data, not a
        failure (the seed's own 70B model fits none).
        """
        found = [
            f"worked example, {r['name']}: {_write_range(r['low'], r['high'])}, not {r['expected']:.6g} {r['unit']}"
            for r in self.examples.to_dict("records")
            if not r["ok"]
        ]
        for r in self.draws.to_dict("records"):
            if not r["within"]:
                drawn, declared = _write_range(r["low"], r["high"]), _write_range(r["least"], r["most"])
                found.append(f"{r['quantity']}: drawn {drawn}, declared {declared} {r['unit']}")
        return found

    @property
    def ok(self) -> bool:
        """True if nothing failed."""
        return not self.failures


def validate(catalog: Catalog | str | Path = "seed", *, n: int = 2000, seed: int = 0) -> Report:
    """Check a catalogue against what it states about itself, on ``n`` scenarios drawn from it.

    Memory of type i alone on (j, k, n): ``B_j + kv_demand[i,j] x <= n C_k``, so the share
    ``min(1, (n C_k - B_j) / kv_demand[i,j])`` fits. Compute: ``compute_demand[i] x <= n P_k``.

    Raises:
      InputError: a bad catalogue, ``n`` or ``seed``.

    Source: MODEL sections 1, 5 and 7.
    """
    catalog = catalog if isinstance(catalog, Catalog) else load_catalog(catalog)
    draws, measures = _Extremes(), _Extremes()
    memory, compute = _Memory(catalog), _Compute(catalog)
    for values, count in _blocks(catalog, n, seed):
        one_per_scenario = {k: v if k in catalog.varying else v[None] for k, v in values.items()}
        for name, value in one_per_scenario.items():
            draws.add(name, value)
        for position, c in enumerate(catalog.comparisons):
            measures.add(str(position), _measure(catalog, c.measure, values))
        memory.add(one_per_scenario, count)
        compute.add(one_per_scenario, count)
    return Report(
        catalog=catalog.name,
        n=n,
        seed=seed,
        comparisons=_compare_ranges(catalog, measures),
        draws=_summarise_draws(catalog, draws),
        memory=memory.frame(),
        compute=compute.frame(),
        examples=_run_examples(catalog, seed),
        contradictions=_list_contradictions(catalog),
        unservable=memory.list_unservable(),
        findings=find_findings(catalog),
        bases=count_bases(catalog),
    )


class _Extremes:
    """Smallest and largest value over scenarios, by name."""

    def __init__(self) -> None:
        self.low: dict[str, np.ndarray] = {}
        self.high: dict[str, np.ndarray] = {}

    def add(self, name: str, values: np.ndarray) -> None:
        low, high = np.asarray(values.min(axis=0)), np.asarray(values.max(axis=0))
        seen = name in self.low
        self.low[name] = np.minimum(self.low[name], low) if seen else low
        self.high[name] = np.maximum(self.high[name], high) if seen else high


def _blocks(catalog: Catalog, n: int, seed: int) -> Iterator[tuple[Values, int]]:
    """Draw all quantities, a block of scenarios at a time, so that memory does not grow with ``n``."""
    cells = sum(int(np.prod(catalog.shape(name))) for name in catalog.quantities)
    cells += int(np.prod([len(names) for names in catalog.sets.values()]))
    size = max(1, _BYTES_PER_BLOCK // (8 * cells))
    for start in range(0, n, size) or (0,):
        count = min(size, n - start)
        yield sample_quantities(catalog, n=count, seed=seed, start=start), count


def _measure(catalog: Catalog, measure: Measure, values: Values) -> np.ndarray:
    """Compute a measure for every scenario and every name that it leaves open."""
    over = catalog.quantities[measure.quantity].over

    def at(places: Mapping[Axis, str]) -> np.ndarray:
        index = [catalog.sets[a].index(places[a]) if a in places else None for a in over]
        return values[measure.quantity][..., *(slice(i, None if i is None else i + 1) for i in index)]

    result = at(measure.at)
    if measure.relative_to is not None:
        with np.errstate(divide="ignore", invalid="ignore"):
            result = result / at(measure.relative_to)
    return result.ravel() - measure.minus


def _compare_ranges(catalog: Catalog, measures: _Extremes) -> pd.DataFrame:
    rows = []
    for position, c in enumerate(catalog.comparisons):
        low, high = float(measures.low[str(position)]), float(measures.high[str(position)])
        observed = (c.observed[0], c.observed[1])
        if observed[0] <= low and high <= observed[1]:
            verdict = "inside"
        else:
            verdict = "overlaps" if low <= observed[1] and high >= observed[0] else "outside"
        rows.append((c.name, c.unit, low, high, c.stated[0], c.stated[1], *observed, verdict, c.source))
    columns = "name unit low high stated_low stated_high observed_low observed_high verdict source"
    return pd.DataFrame(rows, columns=pd.Index(columns.split()))


def _summarise_draws(catalog: Catalog, drawn: _Extremes) -> pd.DataFrame:
    rows = []
    for name, q in catalog.quantities.items():
        least, most = catalog.ranges[name]
        low, high = drawn.low[name], drawn.high[name]
        largest = np.maximum(np.abs(least), np.abs(most))
        room = np.where(np.isfinite(largest), RECOMPUTED * largest, 0.0)
        within = bool(((low >= least - room) & (high <= most + room)).all())
        rows.append((name, q.unit, least.min(), most.max(), low.min(), high.max(), within))
    columns = ["quantity", "unit", "least", "most", "low", "high", "within"]
    return pd.DataFrame(rows, columns=pd.Index(columns))


def _run_examples(catalog: Catalog, seed: int) -> pd.DataFrame:
    """Compute each example several times with its givens fixed and all else drawn, which shows a draw left open."""
    rows = []
    for e in catalog.examples:
        pinned = catalog.with_fixed(e.given)
        values = sample_quantities(pinned, [e.quantity], n=_EXAMPLE_DRAWS, seed=seed)
        value = _measure(pinned, Measure(quantity=e.quantity, at=e.at), values)
        ok = bool(np.all(np.abs(value - e.expected) <= RECOMPUTED * abs(e.expected)))
        low, high = float(value.min()), float(value.max())
        rows.append((e.name, e.unit, e.stated, e.expected, low, high, ok, e.note, e.source))
    columns = ["name", "unit", "stated", "expected", "low", "high", "ok", "note", "source"]
    return pd.DataFrame(rows, columns=pd.Index(columns))


class _Memory:
    """Mean share of each query type that fits every (model, GPU, degree), over blocks of scenarios."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.degrees = np.array(catalog.sets["tp"], dtype=np.float64)
        shape = tuple(len(catalog.sets[a]) for a in ("query", "model", "gpu", "tp"))
        self.share, self.always = np.zeros(shape), np.ones(shape[1:], bool)
        self.weights_fit = np.ones(shape[1:], bool)
        self.unservable = np.zeros(shape[0], np.int64)  # scenarios, by query type
        self.weights, self.room, self.count = np.zeros(shape[1]), np.zeros(shape[2]), 0

    def add(self, values: Values, count: int) -> None:
        """Add scenarios; every array has a leading axis, of length 1 where all scenarios are alike."""
        weights, room = values["weight_memory"], values["gpu_memory"]
        tokens = values["input_tokens"] + values["output_tokens"]
        stay = values["residency_hours"]
        stay = stay if stay.ndim > 1 else stay[:, None, None, None]
        waiting = (tokens * values["arrival_rate"])[:, :, None, None] * stay
        kv = waiting * values["kv_per_token"][:, None, :, None]  # GB, over K where the residency is
        free = room[:, None, :, None] * self.degrees - weights[:, :, None, None]
        fits = free >= 0
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.maximum(free, 0.0)[:, None] / kv[..., None]
        share = np.where(fits[:, None], np.minimum(np.where(kv[..., None] > 0, share, 1.0), 1.0), 0.0)
        self.share += share.mean(axis=0) * count
        self.always &= (share == 1.0).all(axis=(0, 1))
        able = share > 0
        if "throughput" in values:
            able = able & (values["throughput"] > 0)
        if "max_replicas" in values:
            able = able & (values["max_replicas"] > 0)[:, None, :, :, None]
        nobody = np.asarray(~able.any(axis=(2, 3, 4)))
        self.unservable += nobody.sum(axis=0) * (count // len(nobody))
        self.weights_fit &= fits.all(axis=0)
        self.weights += weights.mean(axis=0) * count
        self.room += room.mean(axis=0) * count
        self.count += count

    def list_unservable(self) -> pd.DataFrame:
        """List the query types that nobody can serve in some scenario."""
        rows = [
            (name, count / self.count)
            for name, count in zip(self.catalog.sets["query"], self.unservable.tolist(), strict=True)
            if count
        ]
        return pd.DataFrame(rows, columns=pd.Index(["query", "share"]))

    def frame(self) -> pd.DataFrame:
        queries, models, gpus, degrees = (self.catalog.sets[a] for a in ("query", "model", "gpu", "tp"))
        share, weights, room = self.share / self.count, self.weights / self.count, self.room / self.count
        rows = []
        for j, k, d in np.ndindex(self.always.shape):
            held = room[k] * self.degrees[d]
            reason = ""
            if not self.weights_fit[j, k, d]:
                reason = (
                    f"weights need {weights[j]:.5g} GB, {degrees[d]} x {room[k]:.5g} GB hold {held:.5g} GB"
                )
            elif not self.always[j, k, d]:
                parts = [
                    f"{percent(s)} of {q}" for q, s in zip(queries, share[:, j, k, d], strict=True) if s < 1
                ]
                left = held - weights[j]
                reason = f"{left:.5g} GB beside the weights hold the KV cache for {', '.join(parts)}"
            flags = bool(self.weights_fit[j, k, d]), bool(self.always[j, k, d])
            row = (models[j], gpus[k], int(degrees[d]), weights[j], held, *flags, reason, *share[:, j, k, d])
            rows.append(row)
        columns = ["model", "gpu", "tp", "weights_gb", "room_gb", "weights_fit", "fits", "reason"]
        return pd.DataFrame(rows, columns=pd.Index([*columns, *(f"kv_share[{q}]" for q in queries)]))


class _Compute:
    """Mean share of each query type that every (GPU, degree) has the compute for, by blocks of scenarios."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.degrees = np.array(catalog.sets["tp"], dtype=np.float64)
        shape = tuple(len(catalog.sets[a]) for a in ("query", "gpu", "tp"))
        self.share, self.always = np.zeros(shape), np.ones(shape, bool)
        self.demand, self.most, self.capacity = np.zeros(shape[0]), np.zeros(shape[0]), np.zeros(shape[1])
        self.count = 0

    def add(self, values: Values, count: int) -> None:
        """As `_Memory.add`."""
        demand = values["compute_per_token"] * (values["input_tokens"] + values["output_tokens"])
        capacity = values["gpu_compute"]
        with np.errstate(divide="ignore", invalid="ignore"):
            share = (capacity[:, :, None] * self.degrees)[:, None] / demand[:, :, None, None]
        share = np.minimum(np.where(demand[:, :, None, None] > 0, share, 1.0), 1.0)
        self.share += share.mean(axis=0) * count
        self.always &= (share == 1.0).all(axis=0)
        self.demand += demand.mean(axis=0) * count
        self.most = np.maximum(self.most, demand.max(axis=0))
        self.capacity += capacity.mean(axis=0) * count
        self.count += count

    def frame(self) -> pd.DataFrame:
        queries, gpus, degrees = (self.catalog.sets[a] for a in ("query", "gpu", "tp"))
        share, demand, capacity = (x / self.count for x in (self.share, self.demand, self.capacity))
        rows = [
            (
                gpus[k],
                int(degrees[d]),
                queries[i],
                capacity[k] * self.degrees[d],
                demand[i],
                self.most[i],
                share[i, k, d],
                bool(self.always[i, k, d]),
            )
            for k, d, i in np.ndindex(len(gpus), len(degrees), len(queries))
        ]
        columns = ["gpu", "tp", "query", "capacity", "demand_mean", "demand_max", "share", "fits"]
        return pd.DataFrame(rows, columns=pd.Index(columns))


def _list_contradictions(catalog: Catalog) -> pd.DataFrame:
    others = {name: load_catalog(name) for name in PACKAGED} if catalog.contradictions else {}
    rows = []
    for c in catalog.contradictions:
        over = catalog.quantities[c.quantity].over
        concerned = [(name,) for name in c.names] or catalog.names(c.quantity)
        for names in concerned:
            own = _find_statement(catalog, c.quantity, names)
            said = {name: _find_statement(other, c.quantity, names) for name, other in others.items()}
            alike = [name for name, value in said.items() if value == own]
            follows = "both alike" if len(alike) == len(PACKAGED) else (alike[0] if alike else "neither")
            shown = [_write_statement(v) for v in (*said.values(), own)]
            row = (
                c.where,
                c.quantity,
                catalog.quantities[c.quantity].unit,
                " / ".join(names) if over else "-",
            )
            rows.append((*row, *shown, follows, c.why))
    columns = ["where", "quantity", "unit", "name", *PACKAGED, "this", "follows", "why"]
    return pd.DataFrame(rows, columns=pd.Index(columns))


def _find_statement(
    catalog: Catalog, quantity: str, names: tuple[str, ...]
) -> Distribution | tuple[float, float] | None:
    """Find what a catalogue states: a distribution, or the range of what it derives; None if it has no such name."""
    if quantity not in catalog.quantities or names not in catalog.names(quantity):
        return None
    if isinstance(catalog.quantities[quantity].recipe, Draws):
        return catalog.entry(quantity, names).distribution
    position = catalog.names(quantity).index(names)
    low, high = catalog.ranges[quantity]
    return float(low.ravel()[position]), float(high.ravel()[position])


def _write_statement(value: Distribution | tuple[float, float] | None) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, Distribution) else _write_range(*value)


def _write_range(low: float, high: float) -> str:
    return interval(low, high, "{:.6g}".format)
