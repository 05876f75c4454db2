"""Price lists: what one GPU costs in an hour, of every offer, and which offers are outliers."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from rodiu_jax.catalog import Catalog, load_catalog
from rodiu_jax.catalog.readers.document import cell_number, read_rows, read_tree
from rodiu_jax.catalog.readers.imported import (
    Imported,
    Origin,
    Value,
    choice,
    find_likes,
    list_files,
    read_pairs,
    refuse_again,
    settle_name,
)
from rodiu_jax.errors import InputError
from rodiu_jax.io.number_text import significant

Term = Literal["on-demand", "spot"]
Per = Literal["gpu", "instance"]

OUTLIER = 3.0
"""An offer under a third of, or over three times, its device's median is named and left out."""

_MOST_VALUES = 101
_SKYPILOT = {
    "gpu": "AcceleratorName",
    "count": "AcceleratorCount",
    "price": "Price",
    "spot": "SpotPrice",
    "region": "Region",
}
_KEYS = ("gpu", "price", "spot", "count", "region")


@dataclass(frozen=True)
class Offer:
    """One offer of a list.

    Attributes:
      price: $/GPU/h.
      device: the GPU as the list calls it.
    """

    device: str
    price: float
    region: str
    at: str
    gpus: float = 1.0


@dataclass
class _Group:
    """The offers of one GPU configuration."""

    offers: list[Offer] = field(default_factory=list)
    dropped: int = 0
    outliers: list[Offer] = field(default_factory=list)


def import_prices(
    files: str | Path | Sequence[str | Path],
    *,
    names: str | Mapping[str, str] | None = None,
    term: Term = "on-demand",
    region: str | None = None,
    columns: str | Mapping[str, str] | None = None,
    per: Per | None = None,
    base: str | Path = "seed",
    like: str | Mapping[str, str] | None = None,
    write: bool = True,
) -> Imported:
    """Read ``gpu_price`` of GPU configurations from price lists: every offer is equally likely.

    An offer under a third or over three times the median of its device is an outlier: it is named, and not drawn. Of
    two offers so far apart the price in ``base`` tells which is; what is left and far from ``base`` is warned of.

    Args:
      files: SkyPilot catalogues, other CSV files, or JSON with ``gpu_types`` and ``cost_per_hour_...``. The price of a
        SkyPilot row is of the instance and is divided by its GPUs; other lists say it by a column, or ``per`` does.
      names: ``PATTERN=NAME,...``: which GPUs of a list are which configuration of ``base``, as shells match names, the
        first that fits; by default those that are called alike. One pattern may stand before several names with ``+``.
      term: ``on-demand`` or ``spot``.
      region: pattern of the regions that count (``us-*``); by default all.
      columns: of other CSV files: ``gpu=COLUMN,price=COLUMN`` and perhaps ``spot``, ``count``, ``region``.
      per: whether prices are of a ``gpu`` or of an ``instance`` with ``count`` GPUs, where the list leaves it open.
      base: catalogue to extend, by name or path.
      like: GPU of ``base`` that a new one is like (``gpu=NAME``).
      write: False to read alone: GPUs without a name in ``names`` keep their own, and nothing can be saved.

    Raises:
      InputError: an unknown list, a price that is no number >= 0, an instance without GPUs, no offer of any
        configuration, a price that may be per GPU or per instance.
    """
    paths = list_files(files)
    for name, value, known in (("term", term, get_args(Term)), ("per", per, (None, *get_args(Per)))):
        if value not in known:
            raise InputError(name, "", " or ".join(k for k in known if k), value)
    catalog = load_catalog(base)
    likes = find_likes(like)
    mapping = [(p, n) for p, targets in read_pairs(names, "map").items() for n in targets.split("+")]
    given = read_pairs(columns, "columns") if columns is not None else None
    groups: dict[str, _Group] = {}
    added: dict[str, str] = {}
    for _, name in mapping if write else ():
        if new := settle_name(catalog, "gpu", name, likes.get("gpu"), "map"):
            added[new[0]] = new[1]
    used: set[str] = set()
    unmatched: dict[str, int] = {}
    origins: list[Origin] = []
    lists: list[str] = []
    for path in paths:
        origin, kind, offers = _read_list(path, term, given, per)
        refuse_again(path, origin, origins)
        if not offers:
            raise InputError(path, "", "at least one offer")
        origins.append(origin)
        lists.append(kind)
        for offer in offers:
            targets = _match(offer.device, mapping, catalog, used) or (
                [] if write or mapping else [offer.device]
            )
            if not targets:
                unmatched[offer.device] = unmatched.get(offer.device, 0) + 1
            for name in targets:
                group = groups.setdefault(name, _Group())
                outside = region is not None and not fnmatch.fnmatchcase(offer.region, region)
                if outside or offer.price <= 0:  # nothing is free: such a row has no offer
                    group.dropped += 1
                else:
                    group.offers.append(offer)
    _check_found(paths[0], groups, mapping, used, unmatched, catalog, region)
    values, record, lines = [], {}, []
    source = "; ".join(map(str, origins))
    for name, group in groups.items():
        if not group.offers:
            continue
        warning = _find_outliers(name, groups, catalog)
        prices = np.sort([o.price for o in group.offers])
        note = _write_note(group, prices, lists, term, region)
        values.append(Value("gpu_price", (name,), _draw(prices), source, note))
        record[name] = {
            "low": float(prices[0]),
            "median": float(np.median(prices)),
            "high": float(prices[-1]),
            "offers": len(prices),
            "dropped": group.dropped,
            "outliers": [_write_offer(o) for o in group.outliers],
            "warnings": [warning] if warning else [],
            "unmatched_in_files": sum(unmatched.values()),
            "term": term,
            "unit": "$/GPU/h",
        }
        lines.append(_summarise(name, group, prices, term, catalog))
        if name in added:
            lines[-1] += f" {catalog.name} has no {name}: all else is assumed as {added[name]}'s."
        lines += [f"Warning: {warning}"] if warning else []
    empty = [name for name, group in groups.items() if not group.offers]
    if not values:
        expected = f"an offer with a {term} price{f' in {region}' if region else ''} of {', '.join(empty)}"
        raise InputError(paths[0], "", expected)
    lines += [
        f"{name}: no {term} offer, {groups[name].dropped:,} rows dropped; its price stays as it was."
        for name in empty
    ]
    if unmatched:
        shown = ", ".join(f"{device} ({count:,})" for device, count in list(unmatched.items())[:6])
        more = f" and {len(unmatched) - 6} more" if len(unmatched) > 6 else ""
        lines.append(f"Offers of no GPU of {catalog.name}, not read: {shown}{more}.")
    where = ", ".join(o.short for o in origins)
    return Imported(
        kind="prices",
        name=f"{catalog.name}, {term} prices from {', '.join(p.stem for p in paths)}",
        description=f"{catalog.name} with the {term} prices of {', '.join(record)} as listed",
        base=base,
        values=tuple(values),
        record=record,
        summary="\n".join([f"$/GPU/h from {where}.", *lines]),
        likes={"gpu": added},
    )


def _match(device: str, mapping: Sequence[tuple[str, str]], catalog: Catalog, used: set[str]) -> list[str]:
    first = next((pattern for pattern, _ in mapping if fnmatch.fnmatchcase(device, pattern)), None)
    if first is not None:
        used.add(first)
        return [name for pattern, name in mapping if pattern == first]
    return [device] if not mapping and device in catalog.sets["gpu"] else []


def _check_found(
    path: str | Path,
    groups: Mapping[str, _Group],
    mapping: Sequence[tuple[str, str]],
    used: set[str],
    unmatched: Mapping[str, int],
    catalog: Catalog,
    region: str | None,
) -> None:
    devices = ", ".join(list(unmatched)[:12]) or "nothing"
    for pattern, _ in mapping:
        if pattern not in used:
            raise InputError(
                "map",
                "",
                f"a pattern of a GPU that the files have and no earlier one takes: {devices}",
                pattern,
            )
    if not groups:
        known = ", ".join(catalog.sets["gpu"])
        expected = (
            f"GPUs of {catalog.name} ({known}), or --map 'PATTERN=NAME,..' for what the files have: {devices}"
        )
        raise InputError(path, "", expected)


# ---- lists ----


def _read_list(
    path: Path, term: Term, columns: Mapping[str, str] | None, per: Per | None
) -> tuple[Origin, str, list[Offer]]:
    """The offers of a file, per GPU (0 where a row has no price for the term), and what was done to the prices."""
    if path.suffix.lower() == ".json":
        origin, offers = _read_json_list(path, term, per)
        return origin, "price as listed, per GPU as --per says", offers
    heads, rows, origin = read_rows(path)
    named = columns
    if named is None and all(h in heads for h in _SKYPILOT.values() if h != "Region"):
        if per == "gpu":
            raise InputError(
                "per", "", f"instance, as prices of SkyPilot's lists such as {path.name} are", per
            )
        named, per = {k: h for k, h in _SKYPILOT.items() if h in heads}, "instance"
    elif named is None:
        named = {key: key for key in _KEYS if key in heads}
    for key in named:
        if key not in _KEYS:
            raise InputError("columns", "", f"keys among {', '.join(_KEYS)}", key)
    key = "spot" if term == "spot" and "spot" in named else "price"
    if term == "spot" and key == "price":
        expected = "--columns with spot=COLUMN: nothing says which column has spot prices"
        raise InputError(path, "spot", expected, heads)
    for need in ("gpu", key):
        if need not in named or named[need] not in heads:
            expected = "this column, or --columns gpu=COLUMN,price=COLUMN[,count=COLUMN,region=COLUMN]"
            raise InputError(path, named.get(need, need), expected, heads)
    for column in named.values():
        if column not in heads:
            raise InputError(path, column, "this column", heads)
    if per is None:
        raise InputError(path, named[key], "--per gpu or --per instance: nothing says of what the prices are")
    if per == "instance" and "count" not in named:
        raise InputError(path, "count", "--columns with count=COLUMN, the GPUs of an instance", heads)
    offers = list(_read_offers(path, rows, named, key, per))
    return (
        origin,
        "price of the instance divided by its GPUs" if per == "instance" else "price per GPU",
        offers,
    )


def _read_offers(
    path: Path, rows: Iterator[tuple[int, dict[str, str]]], named: Mapping[str, str], key: str, per: Per
) -> Iterator[Offer]:
    for line, row in rows:
        device, text = row[named["gpu"]], row[named[key]]
        region = row[named["region"]] if "region" in named else ""
        if not device:  # an instance without a GPU, as cloud lists have them
            continue
        price = cell_number(text, path, f"line {line}: {named[key]}") if text else 0.0
        gpus = 1.0
        if per == "instance":
            at, said = f"line {line}: {named['count']}", row[named["count"]]
            gpus = cell_number(said, path, at, expected="a number of GPUs above 0")
            if gpus <= 0:
                raise InputError(path, at, "a number of GPUs above 0", said)
        if price / gpus > 1e6:
            raise InputError(
                path, f"line {line}: {named[key]}", "a price of at most $1,000,000 an hour", text
            )
        yield Offer(device, price / gpus, region, f"line {line}", gpus)


def _read_json_list(path: Path, term: Term, per: Per | None) -> tuple[Origin, list[Offer]]:
    tree, origin = read_tree(path)
    offers: list[Offer] = []
    for entry in tree.need("gpu_types").list():
        device = entry.need("gpu_type").text()
        prices = [(k, v) for k, v in entry.items() if k.startswith("cost_per_hour_") and v.value is not None]
        if not prices:
            raise InputError(path, f"{entry.at}.cost_per_hour_usd", "this key, which is missing")
        clouds = [(k, v) for k, v in prices if k != "cost_per_hour_usd"] or prices  # usd sums the others up
        for key, value in clouds:
            cloud = key.removeprefix("cost_per_hour_")
            offers.append(Offer(device, value.number(most=1e6), cloud, value.at))
    if term == "spot":
        raise InputError(path, "term", "on-demand: the file has list prices only", term)
    if per != "gpu":
        expected = (
            "--per gpu, if a price is of one GPU: the file says neither that nor how many an instance has"
        )
        raise InputError(path, "gpu_types[0].cost_per_hour_usd", expected, per)
    return origin, offers


# ---- outliers ----


def _find_outliers(name: str, groups: Mapping[str, _Group], catalog: Catalog) -> str:
    """Move the outliers of a configuration to their own list; return a warning where what is left is odd.

    Of two offers far apart either may be the mistake, so the price in the base decides; the median of three or more
    decides alone.
    """
    group = groups[name]
    devices = dict(zip(catalog.sets["gpu"], catalog.gpu_devices, strict=True))
    same = [g for g in groups if devices.get(g, g) == devices.get(name, name)]
    usual = None
    if name in catalog.sets["gpu"]:
        usual = tuple(float(end[catalog.sets["gpu"].index(name)]) for end in catalog.ranges["gpu_price"])
    prices = [o.price for o in group.offers]
    around = usual if len(prices) == 2 and max(prices) > OUTLIER * min(prices) else None
    if len(prices) > 2:
        pool = {(o.at, o.price) for g in same for o in (*groups[g].offers, *groups[g].outliers)}
        around = (float(np.median([price for _, price in pool])),) * 2
    odd = [o for o in group.offers if around and not around[0] / OUTLIER <= o.price <= OUTLIER * around[1]]
    if odd and len(odd) < len(prices):
        group.outliers += odd
        group.offers = [o for o in group.offers if o not in odd]
        prices = [o.price for o in group.offers]
    if usual is not None:
        odd = [o for o in group.offers if not usual[0] / OUTLIER <= o.price <= OUTLIER * usual[1]]
        if odd:
            text = f"{usual[0]:.4g}" if usual[0] == usual[1] else f"{usual[0]:.4g} to {usual[1]:.4g}"
            return f"{name}: ${odd[0].price:.4g}/GPU/h, while {catalog.name} has {text}."
    if max(prices) > OUTLIER * min(prices) and len(prices) == 2:
        return f"{name}: ${min(prices):.4g} and ${max(prices):.4g}/GPU/h are more than three times apart."
    return ""


def _draw(prices: np.ndarray) -> Any:
    if len(prices) <= _MOST_VALUES:
        return choice(prices.tolist())
    at = (np.arange(_MOST_VALUES) + 0.5) / _MOST_VALUES
    return choice(np.quantile(prices, at, method="inverted_cdf").tolist())


def _write_offer(offer: Offer) -> dict[str, Any]:
    return {"gpu": offer.device, "price": offer.price, "region": offer.region, "at": offer.at}


def _write_note(
    group: _Group, prices: np.ndarray, lists: Sequence[str], term: Term, region: str | None
) -> str:
    parts = [
        f"{len(prices):,} {term} offers{f' in {region}' if region else ''}: {'; '.join(dict.fromkeys(lists))}"
    ]
    if len(prices) > _MOST_VALUES:
        parts.append(f"{_MOST_VALUES} equally likely quantiles of them")
    if group.dropped:
        parts.append(
            f"{group.dropped:,} rows dropped, with no {term} price{' or elsewhere' if region else ''}"
        )
    if group.outliers:
        shown = ", ".join(f"${o.price:.4g} ({o.at})" for o in group.outliers[:5])
        parts.append(
            f"{len(group.outliers):,} outliers left out: {shown}{' ...' if len(group.outliers) > 5 else ''}"
        )
    return "; ".join(parts)


def _summarise(name: str, group: _Group, prices: np.ndarray, term: Term, catalog: Catalog) -> str:
    text = (
        f"{name} ({', '.join(dict.fromkeys(o.device for o in group.offers))}): {len(prices):,} {term} offers, "
        f"{significant(float(prices[0]), 4)} / {significant(float(np.median(prices)), 4)} / "
        f"{significant(float(prices[-1]), 4)} (low / median / high), {group.dropped:,} rows dropped"
    )
    if name in catalog.sets["gpu"]:
        low, high = (float(x[catalog.sets["gpu"].index(name)]) for x in catalog.ranges["gpu_price"])
        text += f" ({catalog.name}: {low:.4g} to {high:.4g})"
    if group.outliers:
        shown = ", ".join(f"${o.price:.4g} ({o.at})" for o in group.outliers[:5])
        text += f". Outliers, under a third or over three times the usual price, left out: {shown}"
        text += f" and {len(group.outliers) - 5:,} more" if len(group.outliers) > 5 else ""
    return text + "."
