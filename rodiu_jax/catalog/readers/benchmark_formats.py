"""What the formats of benchmarks say: one measurement for each rate, latencies in ms whatever the file has them in.

`TPOT` is the time per output token after the first in every format: vLLM's and InferenceX's ``tpot``, AIPerf's and
GuideLLM's ``inter_token_latency``, ``time_per_output_token`` of inference-perf and llm-d.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal

from rodiu_jax.catalog.promises import is_latency
from rodiu_jax.catalog.readers.document import Tree
from rodiu_jax.errors import InputError

Unit = Literal["s", "ms"]
_MS = {"s": 1000.0, "sec": 1000.0, "seconds": 1000.0, "s/token": 1000.0, "ms": 1.0, "ms/token": 1.0}
_MOST_MS = 1e9
"""Longest latency that is one: twelve days."""


@dataclass
class Engine:
    """What a report says of the servers that were measured."""

    role: str
    gpu: str
    tp: int
    replicas: int


@dataclass
class Measurement:
    """One measured point of a file.

    Attributes:
      rate: requests/s, of all that was measured together.
      latencies: ms, by names such as ``ttft_p99``.
      stated: unit that the latencies have in the file, and who says so.
      tokens: mean input and output tokens of a request; None where the file does not say.
      engines: what served, where the file says it.
    """

    tool: str
    at: str
    rate: float
    latencies: dict[str, float]
    stated: str
    completed: int | None = None
    failed: int = 0
    seconds: float | None = None
    concurrency: float | None = None
    tokens: tuple[float, float] | None = None
    model: str = ""
    gpus: tuple[str, ...] = ()
    engines: list[Engine] = field(default_factory=list)


def read_measurements(tree: Tree, unit: Unit | None) -> list[Measurement]:
    """Tell the format of a benchmark and read it.

    Args:
      unit: of all latencies of the file, whatever it says itself.

    Raises:
      InputError: an unknown format, a value that is missing or no measurement.
    """
    for _, fits, read in FORMATS:
        if fits(tree):
            found = read(tree, unit)
            if not found:
                raise InputError(tree.source, "", "at least one measured point")
            return found
    if not isinstance(tree.value, dict):
        raise InputError(tree.source, "", "an object with the results of a benchmark", tree.value)
    per_gpu = [key for key in tree.value if str(key).endswith("_per_gpu")]
    if per_gpu:
        expected = "request_throughput, the requests/s of the server; tokens/s per GPU do not say them"
        raise InputError(tree.source, per_gpu[0], expected, tree.value[per_gpu[0]])
    names = ", ".join(name for name, _, _ in FORMATS)
    raise InputError(tree.source, "", f"a benchmark of {names}", [str(k) for k in list(tree.value)[:8]])


# ---- vllm bench serve, InferenceX ----

_FLAT = re.compile(r"(mean|median|p\d{1,2}(?:\.\d+)?)_(ttft|tpot|e2el)(_ms)?")


def _is_flat(tree: Tree) -> bool:
    return tree.has("request_throughput") and not isinstance(tree.value["request_throughput"], dict)


def _read_flat(tree: Tree, unit: Unit | None) -> list[Measurement]:
    """Read ``median_ttft_ms`` of `vllm bench serve`, or ``median_ttft`` of InferenceX, which is in seconds."""
    latencies: dict[str, float] = {}
    in_ms: set[bool] = set()
    for key, value in tree.items():
        found = _FLAT.fullmatch(key)
        if found is None or value.value is None:
            continue
        in_ms.add(found[3] is not None)
        scale = _MS[unit] if unit else 1.0 if found[3] else 1000.0
        _put(latencies, "e2e" if found[2] == "e2el" else found[2], found[1], value, scale)
    if len(in_ms) > 1:
        raise InputError(tree.source, "", "latencies all with _ms in their names, or all without", "both")
    plain = in_ms == {False}
    completed = tree.get("completed")
    tokens = _mean_tokens(tree, completed.whole() if completed else None)
    concurrency, seconds = tree.get("max_concurrency"), tree.get("duration")
    failed, model = tree.get("failed"), tree.get("model_id")
    made = Measurement(
        tool="InferenceX" if plain else "vllm bench serve",
        at="",
        rate=tree.need("request_throughput").number(above=True),
        latencies=latencies,
        stated="s, as InferenceX has them" if plain else "ms, as the keys say",
        completed=completed.whole() if completed else None,
        failed=failed.whole() if failed else 0,
        seconds=seconds.number(above=True) if seconds else None,
        concurrency=concurrency.number(above=True) if concurrency else None,
        tokens=tokens,
        model=model.text() if model else "",
    )
    if plain and unit is None:
        _check_seconds(tree, made)
    return [made]


def _check_seconds(tree: Tree, made: Measurement) -> None:
    """Hold the unit that a format does not write against Little's law: requests in the system = rate x latency."""
    e2e = made.latencies.get("e2e_mean", made.latencies.get("e2e_p50"))
    if made.concurrency is None or e2e is None:
        return
    inside = made.rate * e2e / 1000
    if not 0.05 * made.concurrency <= inside <= 3 * made.concurrency:
        expected = (
            f"--unit s or --unit ms: in seconds, rate x latency is {inside:.3g} requests at a time, not the "
            f"{made.concurrency:g} of max_concurrency"
        )
        key = "median_e2el" if "e2e_mean" not in made.latencies else "mean_e2el"
        raise InputError(tree.source, key, expected, tree.value[key])


def _mean_tokens(tree: Tree, completed: int | None) -> tuple[float, float] | None:
    totals = tree.get("total_input_tokens"), tree.get("total_output_tokens")
    if not completed or totals[0] is None or totals[1] is None:
        return None
    return totals[0].number() / completed, totals[1].number() / completed


# ---- AIPerf ----


def _is_aiperf(tree: Tree) -> bool:
    return tree.get("request_throughput", "avg") is not None and tree.has("request_latency")


def _read_aiperf(tree: Tree, unit: Unit | None) -> list[Measurement]:
    rate = tree.need("request_throughput")
    _need_unit(rate, "unit", ("requests/sec", "requests/s"))
    latencies: dict[str, float] = {}
    said: set[str] = set()
    for key, metric in (
        ("time_to_first_token", "ttft"),
        ("inter_token_latency", "tpot"),
        ("request_latency", "e2e"),
    ):
        if (table := tree.get(key)) is not None:
            said.add(_read_table(latencies, metric, table, unit, unit_key="unit", mean="avg"))
    count, bad = tree.get("request_count", "avg"), tree.get("error_request_count", "avg")
    lengths = tree.get("input_sequence_length", "avg"), tree.get("output_sequence_length", "avg")
    concurrency = tree.get("input_config", "loadgen", "concurrency")
    models = tree.get("input_config", "endpoint", "model_names")
    seconds = tree.get("benchmark_duration", "avg")
    return [
        Measurement(
            tool="AIPerf",
            at="",
            rate=rate.need("avg").number(above=True),
            latencies=latencies,
            stated=f"{' and '.join(sorted(said))}, as the file says",
            completed=count.whole() if count else None,
            failed=bad.whole() if bad else 0,
            seconds=seconds.number(above=True) if seconds else None,
            concurrency=concurrency.number(above=True) if concurrency else None,
            tokens=(lengths[0].number(), lengths[1].number()) if lengths[0] and lengths[1] else None,
            model=", ".join(m.text() for m in models.list()) if models else "",
            gpus=tuple(_list_gpus(tree)),
        )
    ]


def _list_gpus(tree: Tree) -> Iterable[str]:
    endpoints = tree.get("telemetry_data", "endpoints")
    for _, endpoint in endpoints.items() if endpoints else ():
        gpus = endpoint.get("gpus")
        for _, gpu in gpus.items() if gpus else ():
            if (name := gpu.get("gpu_name")) is not None:
                yield name.text()


# ---- GuideLLM ----


def _is_guidellm(tree: Tree) -> bool:
    benchmarks = tree.get("benchmarks")
    if benchmarks is None or not isinstance(benchmarks.value, list) or not benchmarks.value:
        return False
    return benchmarks.list()[0].get("metrics", "requests_per_second") is not None


def _read_guidellm(tree: Tree, unit: Unit | None) -> list[Measurement]:
    model = tree.get("config", "spec", "backend", "model")
    found = []
    for benchmark in tree.need("benchmarks").list():
        metrics = benchmark.need("metrics")
        latencies: dict[str, float] = {}
        for key, metric, scale in (
            ("time_to_first_token_ms", "ttft", 1.0),
            ("inter_token_latency_ms", "tpot", 1.0),
            ("request_latency", "e2e", 1000.0),  # seconds: GuideLLM writes the unit where it is another
        ):
            table = metrics.get(key, "successful")
            if table is None:
                continue
            scale = _MS[unit] if unit else scale
            for name in ("mean", "median"):
                if (value := table.get(name)) is not None:
                    _put(latencies, metric, name, value, scale)
            percentiles = table.get("percentiles")
            for name, value in percentiles.items() if percentiles else ():
                # p999 is 99.9 %, and p05 is 5 %
                text = f"p{name[1:3].lstrip('0') or '0'}.{name[3:]}" if len(name) > 3 else name
                _put(latencies, metric, re.sub(r"^p0(\d)$", r"p\1", text), value, scale)
        totals = metrics.get("request_totals")
        bad = [totals.get(name) for name in ("errored", "incomplete")] if totals else []
        good = totals.get("successful") if totals else None
        lengths = [metrics.get(f"{side}_token_count", "successful", "mean") for side in ("prompt", "output")]
        seconds = benchmark.get("duration")
        found.append(
            Measurement(
                tool="GuideLLM",
                at=benchmark.at,
                rate=metrics.need("requests_per_second", "successful", "mean").number(above=True),
                latencies=latencies,
                stated="ms as the keys say, request_latency in s as GuideLLM has it",
                completed=good.whole() if good else None,
                failed=sum(b.whole() for b in bad if b is not None),
                seconds=seconds.number(above=True) if seconds else None,
                tokens=(lengths[0].number(), lengths[1].number()) if lengths[0] and lengths[1] else None,
                model=model.text() if model else "",
            )
        )
    return found


# ---- inference-perf ----


def _is_inference_perf(tree: Tree) -> bool:
    return tree.get("successes", "latency") is not None


def _read_inference_perf(tree: Tree, unit: Unit | None) -> list[Measurement]:
    good = tree.need("successes")
    latencies: dict[str, float] = {}
    for key, metric in _LLMD_METRICS:
        if (table := good.get("latency", key)) is not None:
            _read_table(latencies, metric, table, unit or "s")
    count, bad = good.get("count"), tree.get("failures", "count")
    lengths = good.get("prompt_len", "mean"), good.get("output_len", "mean")
    seconds = tree.get("benchmark_time_seconds")
    return [
        Measurement(
            tool="inference-perf",
            at="",
            rate=good.need("throughput", "requests_per_sec").number(above=True),
            latencies=latencies,
            stated="s, as inference-perf has them",
            completed=count.whole() if count else None,
            failed=bad.whole() if bad else 0,
            seconds=seconds.number(above=True) if seconds else None,
            tokens=(lengths[0].number(), lengths[1].number()) if lengths[0] and lengths[1] else None,
        )
    ]


# ---- llm-d benchmark reports ----

_LLMD_METRICS = (
    ("time_to_first_token", "ttft"),
    ("time_per_output_token", "tpot"),
    ("request_latency", "e2e"),
)


def _is_report(tree: Tree) -> bool:
    version = tree.get("version")
    return version is not None and str(version.value).startswith("0.") and tree.has("scenario")


def _read_report(tree: Tree, unit: Unit | None) -> list[Measurement]:
    old = tree.get("metrics")
    results = old if old is not None else tree.need("results", "request_performance", "aggregate")
    latencies: dict[str, float] = {}
    said: set[str] = set()
    for key, metric in _LLMD_METRICS:
        if (table := results.get("latency", key)) is not None:
            said.add(_read_table(latencies, metric, table, unit, unit_key="units"))
    if old is not None:
        rate = results.need("throughput", "requests_per_sec").number(above=True)
    else:
        table = results.need("throughput", "request_rate")
        _need_unit(table, "units", ("queries/s", "requests/s", "req/s"))
        rate = table.need("mean").number(above=True)
    requests = results.get("requests")
    total = requests.get("total") if requests else None
    bad = [requests.get(name) for name in ("failures", "incomplete")] if requests else []
    failed = sum(b.whole() for b in bad if b is not None)
    lengths = [results.get("requests", f"{side}_length", "mean") for side in ("input", "output")]
    model = tree.get("scenario", "model", "name")
    seconds = tree.get("metrics", "time", "duration")
    engines = _list_old_engines(tree) if old is not None else _list_engines(tree)
    return [
        Measurement(
            tool=f"an llm-d report {tree.value['version']}",
            at=results.at,
            rate=rate,
            latencies=latencies,
            stated=f"{' and '.join(sorted(said))}, as the file says",
            completed=max(total.whole() - failed, 0) if total else None,
            failed=failed,
            seconds=seconds.number(above=True) if seconds else _read_duration(tree),
            tokens=(lengths[0].number(), lengths[1].number()) if lengths[0] and lengths[1] else None,
            model=model.text() if model else "",
            gpus=tuple(e.gpu for e in engines if e.gpu),
            engines=engines,
        )
    ]


def _read_duration(tree: Tree) -> float | None:
    """``PT49.97S`` in seconds, as reports of version 0.2 have it."""
    written = tree.get("run", "time", "duration")
    found = re.fullmatch(r"PT(\d+(?:\.\d+)?)S", str(written.value)) if written is not None else None
    return float(found[1]) if found and float(found[1]) > 0 else None


def _list_engines(tree: Tree) -> list[Engine]:
    stack = tree.get("scenario", "stack")
    found = []
    for part in stack.list() if stack else ():
        engine = part.get("standardized")
        if engine is None or (kind := engine.get("kind")) is None or kind.value != "inference_engine":
            continue
        role, replicas = engine.get("role"), engine.get("replicas")
        count = replicas.whole(low=1) if replicas else 1
        found.append(_read_engine(engine.get("accelerator"), role.text() if role else "engine", count))
    return found


def _list_old_engines(tree: Tree) -> list[Engine]:
    accelerators = tree.get("scenario", "host", "accelerator")
    roles = tree.get("scenario", "host", "type")
    names = [r.text() for r in roles.list()] if roles else []
    found = []
    for n, accelerator in enumerate(accelerators.list() if accelerators else ()):
        found.append(_read_engine(accelerator, names[n] if n < len(names) else "engine", 1))
    return found


def _read_engine(accelerator: Tree | None, role: str, replicas: int) -> Engine:
    if accelerator is None:
        return Engine(role, "", 0, replicas)
    gpu = accelerator.get("model")
    degree = 1
    for name in ("tp", "pp"):
        if (value := accelerator.get("parallelism", name)) is not None:
            degree *= value.whole(low=1, most=1024)
    if (dp := accelerator.get("parallelism", "dp")) is not None:
        replicas *= dp.whole(low=1, most=1024)
    return Engine(role, gpu.text() if gpu else "", degree, replicas)


# ---- tables of one latency ----


def _read_table(
    into: dict[str, float],
    metric: str,
    table: Tree,
    unit: Unit | None,
    *,
    unit_key: str = "",
    mean: str = "mean",
) -> str:
    """Put mean and percentiles of one latency into ``into``; return the unit that they are in."""
    said: str = unit or ""
    if not unit:
        written = table.get(unit_key)
        if written is None or not isinstance(written.value, str) or written.value not in _MS:
            expected = "s or ms; --unit s or --unit ms says it where the file does not"
            value = written.value if written is not None else None
            raise InputError(table.source, f"{table.at}.{unit_key}", expected, value)
        said = str(written.value)
    for key, value in table.items():
        if key == mean or key == "median" or re.fullmatch(r"p\d{1,2}(\.\d+)?", key):
            if value.value is not None:
                _put(into, metric, "mean" if key == mean else key, value, _MS[said])
        elif found := re.fullmatch(r"p(\d{1,2})p(\d+)", key):  # p99p9 is 99.9 %
            _put(into, metric, f"p{found[1]}.{found[2]}", value, _MS[said])
    return said.split("/")[0]


def _put(into: dict[str, float], metric: str, statistic: str, value: Tree, scale: float) -> None:
    name = f"{metric}_{'p50' if statistic == 'median' else statistic}"
    if not is_latency(name):
        return
    number = value.number(most=_MOST_MS / scale) * scale
    if into.setdefault(name, number) != number and abs(into[name] - number) > 1e-3 * number:
        if statistic == "median":  # the p50 of the same table, which may be rounded to a sample
            return
        into[name] = number


def _need_unit(table: Tree, key: str, known: tuple[str, ...]) -> None:
    unit = table.need(key)
    if unit.value not in known:
        raise InputError(table.source, unit.at, " or ".join(known), unit.value)


FORMATS: tuple[tuple[str, Callable[[Tree], bool], Callable[[Tree, Unit | None], list[Measurement]]], ...] = (
    ("vllm bench serve or InferenceX", _is_flat, _read_flat),
    ("AIPerf", _is_aiperf, _read_aiperf),
    ("GuideLLM", _is_guidellm, _read_guidellm),
    ("inference-perf", _is_inference_perf, _read_inference_perf),
    ("llm-d (benchmark report)", _is_report, _read_report),
)
"""Name of each format, how it is told by its keys, and who reads it."""
