"""Profiles of Melange and AIBrix: the rate of one GPU for buckets of lengths, each of which becomes a query type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rodiu_jax.catalog import Catalog, load_catalog
from rodiu_jax.catalog.readers.document import Tree, read_tree
from rodiu_jax.catalog.readers.imported import (
    Imported,
    Origin,
    Value,
    find_likes,
    fixed,
    read_pairs,
    settle_name,
)
from rodiu_jax.errors import InputError
from rodiu_jax.io.number_text import significant

_MOST_BUCKETS = 400


def import_profile(
    files: str | Path | Sequence[str | Path],
    *,
    query_prefix: str,
    model: str,
    gpu: str | None = None,
    names: str | Mapping[str, str] | None = None,
    tp: int = 1,
    base: str | Path = "seed",
    like: str | Mapping[str, str] | None = None,
    write: bool = True,
) -> Imported:
    """Read ``throughput`` of query types from profiles: ``tputs[output bucket][input bucket]`` in requests/s.

    A bucket becomes the query type ``PREFIX_inINPUT_outOUTPUT`` with those lengths and, where ``base`` has no such
    type, the arrival rate 0, as a profile knows no demand. 0.0 in a profile means that the promise holds at no rate.

    Args:
      files: JSON with ``gpu``, ``tputs``, ``indexes``, ``slos``; one GPU a file.
      gpu: the configuration of ``base`` that was profiled, where the file's own name is none; or
      names: for several files, ``GPU OF THE FILE=NAME,...``.
      tp: GPUs of a replica; a profile is of one.
      base: catalogue to extend, by name or path.
      like: names of ``base`` that new ones are like (``query=NAME``); query types are like its first if none is named,
        and the catalogue says that this is assumed.
      write: False to read alone: the names need not be in ``base``, and nothing can be saved.

    Raises:
      InputError: no such file, a profile whose tables do not fit each other, a rate that is no number >= 0, a GPU that
        nobody names, profiles of different buckets or promises.

    Source: Griggs et al., Mélange, 2024; vllm-project/aibrix, GPU optimizer.
    """
    paths = [files] if isinstance(files, str | Path) else list(files)
    if not paths:
        raise InputError("files", "", "at least one file")
    catalog = load_catalog(base)
    likes, renamed = find_likes(like), read_pairs(names, "map")
    if write and str(tp) not in catalog.sets["tp"]:
        raise InputError("tp", "", f"a degree of {catalog.name}: {', '.join(catalog.sets['tp'])}", tp)
    if not query_prefix:
        raise InputError("query_prefix", "", "the beginning of the names of query types", query_prefix)
    added: dict[str, dict[str, str]] = {}
    if write and (new := settle_name(catalog, "model", model, likes.get("model"), "model")):
        added["model"] = {new[0]: new[1]}
    values: dict[tuple[str, tuple[str, ...]], Value] = {}
    throughput: dict[str, float] = {}
    records, lines = [], []
    lengths: dict[str, tuple[float, float]] = {}
    for path in paths:
        tree, origin = read_tree(path)
        buckets = _read_buckets(tree)
        named = tree.need("gpu").text()
        mine = gpu if len(paths) == 1 else None
        if write:
            where = _find_gpu(catalog, named, mine, renamed, Path(path), likes, added)
        else:
            where = mine or renamed.get(named, named)
        promise = _read_promise(tree)
        types = {f"{query_prefix}_in{i:g}_out{o:g}": (i, o) for i, o in buckets}
        if lengths and types != lengths:
            raise InputError(path, "indexes", "the same buckets in every file", [len(types), len(lengths)])
        lengths = types
        for name, pair in types.items():
            default = likes.get("query", catalog.sets["query"][0])
            if write and (new := settle_name(catalog, "query", name, default, "query")):
                added.setdefault("query", {})[new[0]] = new[1]
                said = "no demand is stated: set it, or import a trace"
                values["arrival_rate", (name,)] = Value(
                    "arrival_rate", (name,), fixed(0.0), str(origin), said, "assumed"
                )
            for quantity, tokens in zip(("input_tokens", "output_tokens"), pair, strict=True):
                note = "upper end of the bucket"
                values[quantity, (name,)] = Value(quantity, (name,), fixed(tokens), str(origin), note)
            rate = 3600 * buckets[pair]
            cell = (name, model, where, str(tp))
            if ("throughput", cell) in values:
                raise InputError(path, "gpu", f"each GPU in one file; another is of {where} too", named)
            note = f"requests/s x 3600 of one GPU, {named}: the largest rate at which {promise}"
            if rate == 0:
                note = f"at no rate {promise} on {named}"
            values["throughput", cell] = Value("throughput", cell, fixed(rate), str(origin), note)
            if len(paths) == 1:
                throughput[name] = rate
        records.append({"gpu": where, "file_gpu": named, "throughput": _rates(values, where, model)})
        lines.append(_summarise(origin, named, where, tree, buckets, promise))
    never = sum(v.quantity == "throughput" and v.values == (0.0,) for v in values.values())
    lines.append(
        f"{len(lengths)} query types {query_prefix}_in.._out..; {never} of {len(lengths) * len(paths)} buckets at no "
        "rate. Every pair without a measurement has throughput 0."
    )
    lines += [
        f"{catalog.name} has no {axis} {', '.join(list(pairs)[:3])}{' ...' if len(pairs) > 3 else ''}: all else is "
        f"assumed as {', '.join(dict.fromkeys(pairs.values()))}'s"
        + (", and the arrival rate is 0." if axis == "query" else ".")
        for axis, pairs in added.items()
    ]
    first = records[0] | {"throughput": throughput} if len(paths) == 1 else {"profiles": records}
    record = {"model": model, "tp": tp, **first, "units": "queries/h of one replica"}
    return Imported(
        kind="profile",
        name=f"{catalog.name}, {query_prefix} on {model} from {', '.join(Path(p).stem for p in paths)}",
        description=f"{catalog.name} with query types by length and what {model} was measured to sustain of each",
        base=base,
        values=tuple(values.values()),
        record=record,
        summary="\n".join(lines),
        likes=added,
    )


def _rates(values: Mapping[tuple[str, tuple[str, ...]], Value], gpu: str, model: str) -> dict[str, float]:
    return {
        names[0]: value.values[0]
        for (quantity, names), value in values.items()
        if quantity == "throughput" and names[1:3] == (model, gpu)
    }


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


def _read_promise(tree: Tree) -> str:
    slos = tree.get("slos")
    if slos is None:
        return "the profile's promise holds"
    percentile = slos.get("percentile")
    level = percentile.number(most=100) if percentile else None
    limits = []
    for key in ("ttft", "tpot", "tpat", "e2e"):
        if (limit := slos.get(key)) is not None:
            limits.append(f"{key} stays within {limit.number(above=True):g} s")
    return f"p{level:g} {' and '.join(limits)}" if level and limits else "the profile's promise holds"


def _find_gpu(
    catalog: Catalog,
    named: str,
    gpu: str | None,
    renamed: Mapping[str, str],
    path: Path,
    likes: Mapping[str, str],
    added: dict[str, dict[str, str]],
) -> str:
    where = gpu or renamed.get(named)
    if where is None:
        if named in catalog.sets["gpu"]:
            return named
        known = ", ".join(catalog.sets["gpu"])
        expected = f"--gpu (or --map '{named}=NAME') with a GPU configuration of {catalog.name}: {known}"
        raise InputError(path, "gpu", expected, named)
    if new := settle_name(catalog, "gpu", where, likes.get("gpu"), "gpu" if gpu else "map"):
        added.setdefault("gpu", {})[new[0]] = new[1]
    return where


def _summarise(
    origin: Origin,
    named: str,
    where: str,
    tree: Tree,
    buckets: Mapping[tuple[float, float], float],
    promise: str,
) -> str:
    rates = [3600 * rate for rate in buckets.values()]
    cost = tree.get("cost")
    told = f" Its cost of {cost.number():g} $/h is not read: import prices." if cost is not None else ""
    return (
        f"{where} from {origin.short}, profiled as {named}: {len(buckets)} buckets, {significant(min(rates), 5)} to "
        f"{significant(max(rates), 5)} queries/h (requests/s x 3600) at which {promise}.{told}"
    )
