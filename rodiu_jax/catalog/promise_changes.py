"""Changes of promises, after which curves are read anew.

``promise[QUERY]=LIMITS`` replaces a promise, ``promise[QUERY]*=FACTOR`` multiplies all its limits;
``promise[QUERY].LATENCY=500ms`` and ``promise[QUERY].LATENCY*=FACTOR`` change the limit on one latency. Other changes
alter scenarios that were drawn; these alter the catalogue before it is drawn from, as the curves are in the catalogue
alone.
"""

from __future__ import annotations

import fnmatch
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rodiu_jax.catalog.promises import GRAMMAR, Promise, is_latency, parse_promise, parse_time
from rodiu_jax.catalog.quantities import Catalog
from rodiu_jax.errors import InputError
from rodiu_jax.model.changes import Change, parse_change, split_change
from rodiu_jax.model.fields import PROMISE

_ONE_LATENCY = re.compile(
    rf"\s*{PROMISE}\s*(?:\[(?P<names>[^\]]*)\])?\s*\.\s*(?P<latency>[\w.]+?)\s*(?P<op>[*+]?=)\s*(?P<value>.+?)\s*"
)


@dataclass(frozen=True)
class PromiseChange:
    """Replace the promises of some query types, or change their limits.

    Attributes:
      names: pattern of the query types, as shells match names; None for all.
      promise: what replaces them.
      factor: what multiplies the right side of the limits, where nothing replaces them.
      latency: the one latency whose limit is meant; empty for all limits.
      most: the limit that ``latency`` gets, ms.
    """

    names: str | None
    promise: Promise | None = None
    factor: float = 1.0
    latency: str = ""
    most: float | None = None

    def apply(self, old: Promise | None) -> Promise | None:
        """Change a promise; None where there is none that could be multiplied."""
        if self.promise is not None:
            return self.promise
        if self.most is not None:
            return (old or Promise(())).limited(self.latency, self.most)
        meant = old is not None and (
            not self.latency or any(limit.latency == self.latency for limit in old.limits)
        )
        return old.scaled(self.factor, self.latency) if old is not None and meant else None


def split_changes(texts: Iterable[str], source: str = "changes") -> tuple[list[PromiseChange], list[Change]]:
    """Read changes; those of promises come apart from those of fields.

    Raises:
      InputError: as `parse_change`; a promise that cannot be read, or a factor that is not above 0.
    """
    promises: list[PromiseChange] = []
    others: list[Change] = []
    for text in texts:
        if (one := _ONE_LATENCY.fullmatch(text)) is not None:
            promises.append(_read_one(one, text, source))
            continue
        parts = split_change(text)
        if parts is None or parts[0] != PROMISE:
            others.append(parse_change(text, source))
            continue
        _, names, kind, value = parts
        if kind == "set":
            promises.append(PromiseChange(names, parse_promise(value, source, PROMISE)))
            continue
        factor = _read_factor(value) if kind == "scale" else None
        if factor is None:
            expected = "promise=LIMITS, promise*=FACTOR with a factor above 0, or promise.LATENCY=500ms"
            raise InputError(source, PROMISE, expected, text)
        promises.append(PromiseChange(names, None, factor))
    return promises, others


def _read_one(found: re.Match[str], text: str, source: str) -> PromiseChange:
    """Read a change of the limit on one latency."""
    latency, number = found["latency"], None
    if not is_latency(latency):
        raise InputError(source, PROMISE, f"a latency after the point, as in {GRAMMAR}", latency)
    if found["op"] == "=" and (number := parse_time(found["value"])) is not None:
        return PromiseChange(found["names"], latency=latency, most=number)
    if found["op"] == "*=" and (number := _read_factor(found["value"])) is not None:
        return PromiseChange(found["names"], factor=number, latency=latency)
    expected = (
        f"promise.{latency}=500ms (or s; ms where there is no unit), or promise.{latency}*=FACTOR, above 0"
    )
    raise InputError(source, PROMISE, expected, text)


def _read_factor(text: str) -> float | None:
    try:
        factor = float(text)
    except ValueError:
        return None
    return factor if 0 < factor < math.inf else None


def apply_promise_changes(
    catalog: Catalog, changes: Sequence[PromiseChange], source: str | Path = "changes"
) -> Catalog:
    """Return the catalogue with its promises changed in order, and its throughputs read off the curves anew.

    Raises:
      InputError: the catalogue has no curves, no query type fits, none that fits has a promise to be multiplied, or a
        promise is about what was not measured.
    """
    if not changes:
        return catalog
    if not catalog.curves:
        expected = f"a catalogue with curves (rodiu import benchmark), which {catalog.name} has none of"
        raise InputError(source, PROMISE, expected)
    promises = dict(catalog.promises)
    for change in changes:
        known = catalog.sets["query"]
        chosen = [q for q in known if change.names is None or fnmatch.fnmatchcase(q, change.names.strip())]
        if not chosen:
            expected = f"a pattern that fits a query among {', '.join(known)}"
            raise InputError(source, PROMISE, expected, change.names)
        measured = {c.query for c in catalog.curves}
        if not measured & set(chosen):
            expected = f"a query type with curves, off which rates are read: {', '.join(sorted(measured))}"
            raise InputError(source, PROMISE, expected, change.names or "*")
        changed = {q: change.apply(promises.get(q)) for q in chosen}
        kept = {q: promise for q, promise in changed.items() if promise is not None}
        if not kept:
            what = f"a limit on {change.latency} alone" if change.latency else "something"
            expected = f"query types to which {what} is promised; promised are {_list_promises(promises)}"
            raise InputError(source, PROMISE, expected, change.names or "*")
        promises |= kept
    return catalog.with_promises(promises)


def _list_promises(promises: Mapping[str, Promise]) -> str:
    return "; ".join(f"{query}: {promise}" for query, promise in promises.items()) or "none"
