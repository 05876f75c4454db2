"""Checks what a catalogue states about itself (comparisons, examples, contradictions) against its names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from rodiu_jax.catalog.file_format import Axis, CatalogFile, Comparison, Contradiction, Example, Measure
from rodiu_jax.catalog.quantities import Catalog
from rodiu_jax.catalog.recipes import Draws
from rodiu_jax.errors import InputError, nearest

_Claim = TypeVar("_Claim", Comparison, Example, Contradiction)


def add_statements(catalog: Catalog, layer: CatalogFile, parent: Catalog | None) -> Catalog:
    """Add the statements of the file ``layer`` to a catalogue; where it has none of a kind, inherited ones.

    Raises:
      InputError: a statement names a quantity, axis or name that the catalogue lacks.
    """
    return replace(
        catalog,
        comparisons=_choose_claims(
            catalog, "comparison", layer.comparison, parent.comparisons if parent else ()
        ),
        examples=_choose_claims(catalog, "example", layer.example, parent.examples if parent else ()),
        contradictions=_choose_claims(
            catalog, "contradiction", layer.contradiction, parent.contradictions if parent else ()
        ),
    )


def _choose_claims(
    catalog: Catalog, kind: str, own: Sequence[_Claim] | None, inherited: tuple[_Claim, ...]
) -> tuple[_Claim, ...]:
    if own is None:
        return tuple(
            c for c in inherited if not any(n not in known for _, n, known in _list_references(catalog, c))
        )
    for position, claim in enumerate(own):
        for key, name, known in _list_references(catalog, claim):
            if name not in known:
                expected = f"one of {', '.join(known)}{nearest(name, known)}" if known else "no name here"
                raise InputError(catalog.path, f"{kind}[{position}].{key}", expected, name)
    return tuple(own)


def _list_references(
    catalog: Catalog, claim: Comparison | Example | Contradiction
) -> Iterable[tuple[str, str, Sequence[str]]]:
    """Yield key, name and admitted names of each reference; each may assume that those before it are right."""
    match claim:
        case Comparison():
            yield from _list_measure_references(catalog, claim.measure)
        case Example():
            yield from _list_place_references(catalog, "", claim.quantity, claim.at)
            for axis in catalog.quantities[claim.quantity].over:
                yield "at", axis, list(claim.at)
            drawn = [name for name, q in catalog.quantities.items() if isinstance(q.recipe, Draws)]
            for name, value in claim.given.items():
                yield "given", name, drawn
                for inner in value if isinstance(value, Mapping) else ():
                    yield f"given.{name}", inner, _names_of(catalog, name)
        case Contradiction():
            yield "quantity", claim.quantity, list(catalog.quantities)
            for name in claim.names:
                yield "names", name, _names_of(catalog, claim.quantity)


def _list_measure_references(catalog: Catalog, measure: Measure) -> Iterable[tuple[str, str, Sequence[str]]]:
    yield from _list_place_references(catalog, "measure.", measure.quantity, measure.at)
    for axis, name in (measure.relative_to or {}).items():
        yield "measure.relative_to", axis, catalog.quantities[measure.quantity].over
        yield f"measure.relative_to.{axis}", name, catalog.sets[axis]


def _list_place_references(
    catalog: Catalog, before: str, quantity: str, at: Mapping[Axis, str]
) -> Iterable[tuple[str, str, Sequence[str]]]:
    yield f"{before}quantity", quantity, list(catalog.quantities)
    for axis in catalog.sets:
        if axis in at:
            yield f"{before}at", axis, catalog.quantities[quantity].over
            yield f"{before}at.{axis}", at[axis], catalog.sets[axis]


def _names_of(catalog: Catalog, quantity: str) -> Sequence[str]:
    """Return the names of a quantity over one axis; none where it has several axes, or none."""
    over = catalog.quantities[quantity].over
    return catalog.sets[over[0]] if len(over) == 1 else ()
