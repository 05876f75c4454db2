"""Profiles of Melange and AIBrix: the rate of one GPU for buckets of lengths, each of which becomes a query type."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rodiu_jax.catalog import Catalog, load_catalog
from rodiu_jax.catalog.promises import Curve, Limit, Point, Promise, find_sustained, is_latency, parse_promise
from rodiu_jax.catalog.readers.document import Tree, read_tree
from rodiu_jax.catalog.readers.imported import (
    Imported,
    Names,
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
from rodiu_jax.io.number_text import significant

_MOST_BUCKETS = 400

Buckets = Mapping[tuple[float, float], float]
"""Rates in requests/s by (input, output) tokens."""


@dataclass(frozen=True)
class _Profile:
    """One file.

    Attributes:
      gpu: what the file calls its GPU; ``where`` is the configuration of the base.
      promise: the limits within which the rates were found; None where the file does not say them in such words.
      said: those limits in words.
    """

    path: Path
    origin: Origin
    gpu: str
    where: str
    buckets: Buckets
    promise: Promise | None
    said: str
    cost: float | None


def import_profile(
    files: str | Path | Sequence[str | Path],
    *,
    query_prefix: str,
    model: str,
    gpu: str | None = None,
    names: str | Mapping[str, str] | None = None,
    tp: int = 1,
    promise: str | None = None,
    base: str | Path = "seed",
    like: str | Mapping[str, str] | None = None,
    write: bool = True,
) -> Imported:
    """Read ``throughput`` of query types from profiles: ``tputs[output bucket][input bucket]`` in requests/s.

    A bucket becomes the query type ``PREFIX_inINPUT_outOUTPUT`` with those lengths and, where ``base`` has no such
    type, the arrival rate 0, as a profile knows no demand. 0.0 in a profile means that the promise holds at no rate.

    Profiles of one GPU within different limits make a curve: a rate found within a limit keeps it, and the highest rate
    whose limits are within the promise counts. One profile alone is a plain rate, which no other promise can change.

    Args:
      files: JSON with ``gpu``, ``tputs``, ``indexes``, ``slos``; one GPU a file.
      gpu: the configuration of ``base`` that was profiled, where the files are of one GPU and its name there is none;
      names: or, for several GPUs, ``GPU OF THE FILE=NAME,...``.
      tp: GPUs of a replica; a profile is of one.
      promise: what is promised to all the query types, such as ``e2e_p99<=5s``, where a GPU has several profiles.
      base: catalogue to extend, by name or path.
      like: names of ``base`` that new ones are like (``query=NAME``); query types are like its first if none is named,
        and the catalogue says that this is assumed.
      write: False to read alone: the names need not be in ``base``, and nothing can be saved.

    Raises:
      InputError: no such file, a profile whose tables do not fit each other, a rate that is no number >= 0, a GPU that
        nobody names, profiles of different buckets, different limits without a promise.

    Source: Griggs et al., Mélange, 2024; vllm-project/aibrix, GPU optimizer.
    """
    paths = list_files(files)
    catalog = load_catalog(base)
    likes, renamed = find_likes(like), read_pairs(names, "map")
    if write and str(tp) not in catalog.sets["tp"]:
        raise InputError("tp", "", f"a degree of {catalog.name}: {', '.join(catalog.sets['tp'])}", tp)
    if not query_prefix:
        raise InputError("query_prefix", "", "the beginning of the names of query types", query_prefix)
    added: dict[str, dict[str, str]] = {}
    if write and (new := settle_name(catalog, "model", model, likes.get("model"), "model")):
        added["model"] = {new[0]: new[1]}
    read: list[_Profile] = []
    for path in paths:
        profile = _read_profile(path, gpu, renamed)
        if write:
            where = _find_gpu(catalog, profile, gpu, likes, added)
            profile = replace(profile, where=where)
        read.append(profile)
    _check_alike(read, gpu)
    promised = _find_promise(read, promise)
    types = {f"{query_prefix}_in{i:g}_out{o:g}": (i, o) for i, o in read[0].buckets}
    values: dict[tuple[str, Names], Value] = {}
    curves: list[Curve] = []
    for name, pair in types.items():
        values |= {(v.quantity, v.names): v for v in _value_type(name, pair, read[0].origin)}
        default = likes.get("query", catalog.sets["query"][0])
        if write and (new := settle_name(catalog, "query", name, default, "query")):
            added.setdefault("query", {})[new[0]] = new[1]
        elif write:
            del values["arrival_rate", (name,)]  # the base knows the demand
        for where, mine in _group(read).items():
            cell = (name, model, where, str(tp))
            made = _make_rate(cell, pair, mine, promised)
            if isinstance(made, Curve):
                curves.append(made)
            else:
                values["throughput", cell] = made
    rates = {c.cell: _sustain(c, promised) for c in curves}
    rates |= {names: v.values[0] for (quantity, names), v in values.items() if quantity == "throughput"}
    records = [
        {
            "gpu": where,
            "file_gpu": mine[0].gpu,
            "throughput": {name: rates[name, model, where, str(tp)] for name in types},
        }
        for where, mine in _group(read).items()
    ]
    lines = [_summarise(p) for p in read]
    if promised is not None:
        lines.append(f"Several profiles of a GPU make a curve, of which {promised} chooses the rate.")
    never = sum(rate == 0 for rate in rates.values())
    lines.append(
        f"{len(types)} query types {query_prefix}_in.._out..; {never} of {len(rates)} buckets at no rate. Every pair "
        "without a measurement has throughput 0."
    )
    lines += describe_added(catalog, added)
    if "query" in added:
        lines.append("The arrival rate of new query types is 0.")
    first = records[0] if len(records) == 1 else {"profiles": records}
    return Imported(
        kind="profile",
        name=f"{catalog.name}, {query_prefix} on {model} from {', '.join(p.stem for p in paths)}",
        description=f"{catalog.name} with query types by length and what {model} was measured to sustain of each",
        base=base,
        values=tuple(values.values()),
        record={"model": model, "tp": tp, **first, "units": "queries/h of one replica"},
        summary="\n".join(lines),
        curves=tuple(curves),
        promises=dict.fromkeys(types, promised) if promised is not None else {},
        likes=added,
    )


def _read_profile(path: Path, gpu: str | None, renamed: Mapping[str, str]) -> _Profile:
    tree, origin = read_tree(path)
    named, cost = tree.need("gpu").text(), tree.get("cost")
    promise, said = _read_promise(tree)
    price = cost.number() if cost is not None else None
    where = gpu or renamed.get(named, named)
    return _Profile(path, origin, named, where, _read_buckets(tree), promise, said, price)


def _group(read: Sequence[_Profile]) -> dict[str, list[_Profile]]:
    """Profiles by GPU configuration."""
    groups: dict[str, list[_Profile]] = {}
    for p in read:
        groups.setdefault(p.where, []).append(p)
    return groups


def _check_alike(read: Sequence[_Profile], gpu: str | None) -> None:
    """Refuse files that are one twice, of other buckets, or of several GPUs under one name."""
    first = read[0]
    for n, p in enumerate(read[1:], 1):
        refuse_again(p.path, p.origin, [other.origin for other in read[:n]])
        if p.buckets.keys() != first.buckets.keys():
            raise InputError(
                p.path, "indexes", "the same buckets in every file", [len(p.buckets), len(first.buckets)]
            )
        if gpu is not None and p.gpu != first.gpu:
            raise InputError("gpu", "", f"--map for several GPUs: {first.path.name} is of {first.gpu}", p.gpu)


def _find_promise(read: Sequence[_Profile], given: str | None) -> Promise | None:
    """What is promised where profiles make curves; None where each GPU has one profile, all within the same limits."""
    groups = _group(read)
    if all(len(mine) == 1 for mine in groups.values()):
        said = {p.said: p for p in read}
        if len(said) > 1:
            first, other = read[0], next(p for p in read if p.said != read[0].said)
            expected = f"limits as in {first.path.name}, where {first.said}; or several profiles of each GPU"
            raise InputError(other.path, "slos", expected)
        if given is not None:
            expected = "no promise: one profile of a GPU is within the limits that it states"
            raise InputError("promise", "", expected, given)
        return None
    for mine in groups.values():
        for p in mine:
            if p.promise is None:
                expected = (
                    "percentile, and ttft, tpot or e2e in s, by which profiles of one GPU are told apart"
                )
                raise InputError(p.path, "slos", expected)
            if sum(p.promise == other.promise for other in mine) > 1:
                raise InputError(p.path, "slos", f"each limit in one profile of {p.where}", str(p.promise))
    if given is None:
        known = "; ".join(dict.fromkeys(str(p.promise) for p in read))
        raise InputError("promise", "", f"--promise with what counts: the files are within {known}")
    return parse_promise(given, "promise")


def _value_type(name: str, pair: tuple[float, float], origin: Origin) -> Iterator[Value]:
    """Demand and lengths of the query type of a bucket."""
    said = "no demand is stated: set it, or import a trace"
    yield Value("arrival_rate", (name,), fixed(0.0), str(origin), said, "assumed")
    for quantity, tokens in zip(("input_tokens", "output_tokens"), pair, strict=True):
        yield Value(quantity, (name,), fixed(tokens), str(origin), "upper end of the bucket")


def _make_rate(
    cell: tuple[str, str, str, str],
    pair: tuple[float, float],
    mine: Sequence[_Profile],
    promised: Promise | None,
) -> Value | Curve:
    """What one GPU sustains of a bucket: a rate, or a curve of the rates within each profile's limits."""
    sources = "; ".join(str(p.origin) for p in mine)
    note = f"requests/s x 3600 of one GPU, {mine[0].gpu}"
    found = [p for p in mine if p.buckets[pair] > 0]
    if promised is None or not found:
        rate = 3600 * max(p.buckets[pair] for p in mine)
        said = (
            f"{note}: the largest rate at which {mine[0].said}"
            if rate
            else f"at no rate {mine[0].said} on {mine[0].gpu}"
        )
        return Value("throughput", cell, fixed(rate), sources, said)
    points = [
        Point(3600 * p.buckets[pair], {limit.latency: limit.most for limit in p.promise.limits}, pair)
        for p in sorted(found, key=lambda p: p.buckets[pair])
        if p.promise is not None
    ]
    return Curve(
        *cell, tuple(points), sources, f"{note}; latencies are the limits of the profiles", "measured", ""
    )


def _sustain(curve: Curve, promised: Promise | None) -> float:
    point = find_sustained(curve, promised, "promise")
    return 0.0 if point is None else point.rate


def _read_buckets(tree: Tree) -> dict[tuple[float, float], float]:
    """Rates by (input, output) tokens, requests/s."""
    indexes = tree.need("indexes").list()
    if len(indexes) != 2:
        raise InputError(tree.source, "indexes", "two lists: output lengths, input lengths", len(indexes))
    outputs, inputs = ([float(n.whole(low=1, most=10**9)) for n in axis.list()] for axis in indexes)
    if not outputs or not inputs or len(outputs) * len(inputs) > _MOST_BUCKETS:
        expected = f"from 1 to {_MOST_BUCKETS} buckets"
        raise InputError(tree.source, "indexes", expected, len(outputs) * len(inputs))
    if len(set(outputs)) < len(outputs) or len(set(inputs)) < len(inputs):
        raise InputError(tree.source, "indexes", "each length once", indexes[0].value)
    rows = tree.need("tputs").list()
    if len(rows) != len(outputs):
        raise InputError(tree.source, "tputs", f"{len(outputs)} rows, one for each output length", len(rows))
    found = {}
    for output, row in zip(outputs, rows, strict=True):
        cells = row.list()
        if len(cells) != len(inputs):
            raise InputError(
                tree.source, row.at, f"{len(inputs)} rates, one for each input length", len(cells)
            )
        for given, cell in zip(inputs, cells, strict=True):
            found[given, output] = cell.number(most=1e6)
    return found


def _read_promise(tree: Tree) -> tuple[Promise | None, str]:
    """The limits within which the rates of a profile were found, as a promise and in words."""
    slos = tree.get("slos")
    if slos is None:
        return None, "the profile's promise holds"
    percentile = slos.get("percentile")
    level = percentile.number(above=True, most=100) if percentile else None
    limits, words = [], []
    for key in ("ttft", "tpot", "tpat", "e2e"):
        if (limit := slos.get(key)) is not None:
            most = limit.number(above=True, most=1e6)
            words.append(f"{key} stays within {most:g} s")
            limits.append(Limit(((1.0, f"{key}_p{level:g}"),), 1000 * most))
    if not level or not limits:
        return None, "the profile's promise holds"
    told = all(is_latency(limit.latency) for limit in limits)
    return Promise(tuple(limits)) if told else None, f"p{level:g} {' and '.join(words)}"


def _find_gpu(
    catalog: Catalog,
    profile: _Profile,
    gpu: str | None,
    likes: Mapping[str, str],
    added: dict[str, dict[str, str]],
) -> str:
    """The configuration of the base that was profiled."""
    if gpu is None and profile.where == profile.gpu:  # no option names it
        if profile.gpu in catalog.sets["gpu"]:
            return profile.gpu
        known = ", ".join(catalog.sets["gpu"])
        expected = (
            f"--gpu (or --map '{profile.gpu}=NAME') with a GPU configuration of {catalog.name}: {known}"
        )
        raise InputError(profile.path, "gpu", expected, profile.gpu)
    if new := settle_name(catalog, "gpu", profile.where, likes.get("gpu"), "gpu" if gpu else "map"):
        added.setdefault("gpu", {})[new[0]] = new[1]
    return profile.where


def _summarise(p: _Profile) -> str:
    rates = [3600 * rate for rate in p.buckets.values()]
    told = f" Its cost of {p.cost:g} $/h is not read: import prices." if p.cost is not None else ""
    return (
        f"{p.where} from {p.origin.short}, profiled as {p.gpu}: {len(p.buckets)} buckets, "
        f"{significant(min(rates), 5)} to {significant(max(rates), 5)} queries/h (requests/s x 3600) at which {p.said}."
        f"{told}"
    )
