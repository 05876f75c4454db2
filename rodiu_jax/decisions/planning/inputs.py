"""From a request to one scenario: the catalogue with what the planner gave in it, and its nominal values."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rodiu_jax.catalog import Catalog, load_catalog
from rodiu_jax.catalog.promises import Curve, Promise, parse_promise
from rodiu_jax.catalog.readers.imported import Imported, Value, fixed
from rodiu_jax.decisions.planning.lengths import carry_lengths
from rodiu_jax.decisions.planning.request import SOURCE, PlanRequest, require_known
from rodiu_jax.decisions.planning.traffic import Traffic, read_traffic, require_values
from rodiu_jax.errors import InputError, nearest
from rodiu_jax.io.files import toml_value
from rodiu_jax.io.number_text import significant
from rodiu_jax.model.fields import FIELD_SPECS, has_rates
from rodiu_jax.model.instance import Instances

_AXES = {"I": "query", "J": "model", "K": "gpu", "N": "tp"}


@dataclass(frozen=True)
class PlanInputs:
    """What is planned with.

    Attributes:
      catalog: what the request made of its catalogue, loaded.
      nominal: the same with every distribution at its mean.
      scenario: the one scenario that is planned, B = 1.
      traffic: of the types that carry any; the scenario has no others.
      idle: the catalogue's other types, which carry none.
      notes: what a reader must know about the inputs, as sentences.
    """

    request: PlanRequest
    catalog: Catalog
    nominal: Catalog
    scenario: Instances
    traffic: tuple[Traffic, ...]
    idle: tuple[str, ...]
    notes: tuple[str, ...]
    _imported: Imported
    _extra: str

    def catalog_text(self, folder: str | Path) -> str:
        """Write the catalogue as TOML for a file in ``folder``."""
        return _write_catalog(self._imported, self._extra, folder)


def prepare(request: PlanRequest) -> PlanInputs:
    """Read everything that a request names, and make the scenario that is planned.

    Raises:
      InputError: an unknown name, a file or number that cannot be read, a promise about a latency that was not
        measured or that nobody can keep, no traffic, no GPU that may be rented, a catalogue without rates.
    """
    from rodiu_jax.catalog.sampling import sample

    base = load_catalog(request.catalog, source=SOURCE, key="catalog")
    if "throughput" not in base.quantities:
        expected = "a catalogue with rates (quantity.throughput), such as serving: without them no fleet can be sized"
        raise InputError(SOURCE, "catalog", expected, str(request.catalog))
    means = base.at_means()
    traffic, values = read_traffic(request, means)
    values = list(values)
    promises = _read_promises(request, base)
    listed: list[str] = []
    if request.prices is not None:
        prices = _read_prices(request)
        values += prices.values
        listed = [" ".join(prices.summary.splitlines())]
    prices_elsewhere = _state_api_prices(request, base, traffic)
    values += _state_quotas(request, base) + prices_elsewhere
    carried = carry_lengths(base, means, traffic, promises, [v.names[0] for v in prices_elsewhere])
    values += carried.values
    named = [t.query for t in traffic]
    imported = Imported(
        kind="plan",
        name=f"{base.name}, planned",
        description=f"{base.name} with the traffic, prices, quotas and promises of a plan",
        base=request.catalog,
        values=tuple(values),
        record=None,
        summary="",
        curves=carried.curves,
        measures=False,
        promises={q: p for q, p in (dict(carried.promises) | promises).items() if q in named},
    )
    extra = _write_extra(request, base, named)
    catalog = _load_text(imported, extra)
    nominal = catalog.at_means()
    scenario = sample(nominal, n=1)
    if not has_rates(scenario.fields):
        expected = "a catalogue that states rates (throughput) of replicas, such as serving"
        raise InputError(SOURCE, "catalog", expected, str(request.catalog))
    scenario = scenario.with_fields(
        arrival_rate=np.array([t.rate for t in traffic], np.float64),
        input_tokens=np.array([t.input_tokens for t in traffic], np.float64),
        output_tokens=np.array([t.output_tokens for t in traffic], np.float64),
    )
    _check_promises(catalog, request)
    _check_quotas(scenario)
    idle = tuple(q for q in base.sets["query"] if q not in named)
    notes = [*_write_notes(request, base, idle), *carried.notes, *listed]
    return PlanInputs(
        request, catalog, nominal, scenario, tuple(traffic), idle, tuple(notes), imported, extra
    )


# ---- what was given, as values of the catalogue ----


def _read_prices(request: PlanRequest) -> Imported:
    from rodiu_jax.catalog.readers import import_prices

    assert request.prices is not None
    try:
        return import_prices(request.prices, names=request.price_map, base=request.catalog)
    except InputError as error:
        if error.source == "map":
            raise error.move_to(SOURCE, "price_map") from None
        raise


def _state_quotas(request: PlanRequest, base: Catalog) -> list[Value]:
    """State quotas of devices: every configuration of the device of a GPU that is named gets the number."""
    values, given = [], {}
    for name, count in request.quotas.items():
        names = (*base.sets["gpu"], *base.gpu_devices)
        require_known(name, names, "quotas", "GPU")
        mine = [
            gpu
            for gpu, device in zip(base.sets["gpu"], base.gpu_devices, strict=True)
            if name == device
            or device == dict(zip(base.sets["gpu"], base.gpu_devices, strict=True)).get(name)
        ]
        for gpu in mine:
            if given.setdefault(gpu, count) != count:
                expected = f"{given[gpu]}, as another --quota says of the same device"
                raise InputError(SOURCE, "quotas", expected, f"{name}={count}")
            require_values(base, "gpu_quota", "GPUs")
            said = f"--quota {name}={count}"
            values.append(Value("gpu_quota", (gpu,), fixed(count), said, basis="assumed"))
    return values


def _state_api_prices(request: PlanRequest, base: Catalog, traffic: list[Traffic]) -> list[Value]:
    """State what a query costs elsewhere: its tokens at a price for a million of them."""
    named = {t.query: t for t in traffic}
    for name in request.api_prices:
        if name and name not in named:
            require_known(name, base.sets["query"], "api_prices", "query type")
            expected = f"a query type that carries traffic: {', '.join(named)}"
            raise InputError(SOURCE, "api_prices", expected, name)
    values = []
    for query, t in named.items():
        price = request.api_prices.get(query, request.api_prices.get(""))
        if price is None:
            continue
        require_values(base, "unmet_penalty", "$/query")
        said = f"--api-price ${price:g}/Mtok for {significant(t.tokens, 4)} tokens a query"
        values.append(Value("unmet_penalty", (query,), fixed(price * t.tokens / 1e6), said, basis="assumed"))
    return values


def _write_extra(request: PlanRequest, base: Catalog, named: list[str]) -> str:
    """Write what is stated for all names at once: the query types that carry traffic, shortfalls, Gamma, quotas."""
    lines: list[str] = []
    if named != list(base.sets["query"]):
        lines += ["", "[sets]", f"query = {toml_value(named)}"]
    stated: dict[str, tuple[float, str]] = {}
    if request.shortfall is not None:
        stated["throughput_shortfall"] = request.shortfall, f"--shortfall {request.shortfall:g}"
    if request.gamma is not None:
        stated["gamma_throughput"] = request.gamma, f"--gamma {request.gamma:g}"
    if request.headroom is not None:
        said = f"--headroom {request.headroom:g}: every rate is trusted, more traffic is bought for"
        stated["gamma_throughput"] = 0.0, said
    if request.quotas and "gpu_quota" not in base.quantities:
        stated["gpu_quota"] = math.inf, "no quota is stated"
    for name, (value, source) in stated.items():
        spec = FIELD_SPECS[name]
        axes = toml_value([_AXES[a] for a in spec.axes])
        lines += ["", f"[quantity.{name}]", f"over = {axes}", f"unit = {toml_value(spec.unit)}"]
        number = "inf" if math.isinf(value) else repr(float(value))
        lines += [f"source = {toml_value(source)}", 'basis = "assumed"', f"each = {number}"]
    return "\n".join(lines) + "\n" if lines else ""


def _write_catalog(imported: Imported, extra: str, folder: str | Path) -> str:
    first, _, rest = imported.text(folder).partition("\n")
    return f"{first.replace('import plan', 'plan')}\n{rest}{extra}"


def _load_text(imported: Imported, extra: str) -> Catalog:
    """Load the catalogue as its file will be loaded."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "catalog.toml"
        path.write_text(_write_catalog(imported, extra, folder), encoding="utf-8")
        try:
            return load_catalog(path)
        except InputError as error:
            raise error.move_to(SOURCE, error.field) if error.source == str(path) else error from None


# ---- promises ----


def _read_promises(request: PlanRequest, base: Catalog) -> dict[str, Promise]:
    """Read promises, and refuse those about latencies that the curves of a type lack."""
    found: dict[str, Promise] = {}
    for name, text in request.promises.items():
        require_known(name, base.sets["query"], "promises", "query type")
        if request.named and name not in request.named:
            expected = f"a query type with traffic: {', '.join(request.named)}"
            raise InputError(SOURCE, "promises", expected, f"{name}={text}")
        try:
            promise = parse_promise(text, SOURCE, "promises")
        except InputError as error:
            raise InputError(SOURCE, "promises", error.expected, f"{name}={text}") from None
        curves = [c for c in base.curves if c.query == name]
        if not curves:
            expected = f"a query type with curves, off which rates are read: {base.name} has none of {name}"
            raise InputError(SOURCE, "promises", expected, f"{name}={text}")
        known = _common_latencies(curves)
        for latency in promise.latencies:
            if latency not in known:
                expected = (
                    f"a latency that the curves of {name} have: {', '.join(known)}{nearest(latency, known)}"
                )
                raise InputError(SOURCE, "promises", expected, f"{name}={text}")
        found[name] = promise
    return found


def _common_latencies(curves: list[Curve]) -> list[str]:
    return sorted(set.intersection(*(set(p.latencies) for c in curves for p in c.points)))


def _check_promises(catalog: Catalog, request: PlanRequest) -> None:
    """Refuse a promise that no point of any curve keeps, with how far the nearest one misses it."""
    for query in catalog.sets["query"]:
        promise = catalog.promises.get(query)
        curves = [c for c in catalog.curves if c.query == query]
        if promise is None or not curves:
            continue
        nearest_miss: tuple[float, str] = (math.inf, "")
        for curve in curves:
            for point in curve.points:
                ratio, limit = max(
                    ((limit.value(point.latencies) / limit.most, limit) for limit in promise.limits),
                    key=lambda pair: pair[0],
                )
                if ratio < nearest_miss[0]:
                    left = str(limit).partition("<=")[0]
                    said = (
                        f"{left} is {significant(limit.value(point.latencies), 4)} ms at best, on {curve.model} on "
                        f"{curve.tp} x {curve.gpu}, {significant(ratio, 3)} times the {limit.most:g} ms promised"
                    )
                    nearest_miss = ratio, said
        if nearest_miss[0] > 1.0:
            expected = f"a promise that somebody can keep: {nearest_miss[1]}"
            raise InputError(SOURCE, "promises", expected, f"{query}={promise}")


def _check_quotas(scenario: Instances) -> None:
    quota = np.broadcast_to(scenario.one(0).gpu_quota, len(scenario.gpu_names))
    if not (quota >= 1).any():
        expected = "a quota of at least one GPU: with 0 of every device no fleet can be rented"
        raise InputError(SOURCE, "quotas", expected, 0)


# ---- what a reader must know ----


def _write_notes(request: PlanRequest, base: Catalog, idle: tuple[str, ...]) -> list[str]:
    notes = []
    if request.named and idle:
        notes.append(f"Only the named types carry traffic; planned without: {', '.join(idle)}.")
    if base.varying:
        drawn = [n for n in ("arrival_rate", "gpu_price") if n in base.varying]
        kept = [n for n in drawn if n != "arrival_rate" or not request.named]
        if kept:
            what = {"arrival_rate": "traffic", "gpu_price": "prices"}
            names = " and ".join(what[n] for n in kept)
            notes.append(f"What {base.name} states as a range is planned at its mean ({names}).")
    return notes


def describe_promises(catalog: Catalog) -> Mapping[str, str]:
    """Return what is promised to each query type, as text."""
    return {query: str(promise) for query, promise in catalog.promises.items()}
