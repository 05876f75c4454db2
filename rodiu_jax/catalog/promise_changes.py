"""Changes of promises: ``promise[QUERY]=LIMITS`` and ``promise[QUERY]*=FACTOR``, after which curves are read anew.

Other changes alter scenarios that were drawn; these alter the catalogue before it is drawn from, as the curves are in
the catalogue alone.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rodiu_jax.catalog.promises import Promise, parse_promise
from rodiu_jax.catalog.quantities import Catalog
from rodiu_jax.errors import InputError
from rodiu_jax.model.changes import Change, parse_change, split_change
from rodiu_jax.model.fields import PROMISE


@dataclass(frozen=True)
class PromiseChange:
    """Replace the promises of some query types, or multiply all their limits.

    Attributes:
      names: pattern of the query types, as shells match names; None for all.
      promise: what replaces them; None where ``factor`` multiplies the right side of every limit.
    """

    names: str | None
    promise: Promise | None = None
    factor: float = 1.0


def split_changes(texts: Iterable[str], source: str = "changes") -> tuple[list[PromiseChange], list[Change]]:
    """Read changes; those of promises come apart from those of fields.

    Raises:
      InputError: as `parse_change`; a promise that cannot be read, or a factor that is not above 0.
    """
    promises: list[PromiseChange] = []
    others: list[Change] = []
    for text in texts:
        parts = split_change(text)
        if parts is None or parts[0] != PROMISE:
            others.append(parse_change(text, source))
            continue
        _, names, kind, value = parts
        if kind == "set":
            promises.append(PromiseChange(names, parse_promise(value, source, PROMISE)))
            continue
        try:
            factor = float(value) if kind == "scale" else math.nan
        except ValueError:
            factor = math.nan
        if not 0 < factor < math.inf:
            expected = "promise=LIMITS, or promise*=FACTOR with a factor above 0"
            raise InputError(source, PROMISE, expected, text)
        promises.append(PromiseChange(names, None, factor))
    return promises, others


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
        if change.promise is not None:
            promises |= dict.fromkeys(chosen, change.promise)
            continue
        held = [q for q in chosen if q in promises]
        if not held:
            expected = (
                f"query types to which something is promised: {', '.join(promises) or 'there are none'}"
            )
            raise InputError(source, PROMISE, expected, change.names or "*")
        promises |= {q: promises[q].scaled(change.factor) for q in held}
    return catalog.with_promises(promises)
