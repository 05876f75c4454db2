"""What a catalogue claims about itself (comparisons, examples, contradictions), checked against its names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from rodiu_jax.catalog.file_format import Axis, CatalogFile, Comparison, Contradiction, Example, Measure
from rodiu_jax.catalog.quantities import Catalog, Draws
from rodiu_jax.errors import InputError, nearest

_Claim = TypeVar("_Claim", Comparison, Example, Contradiction)


def with_claims(catalog: Catalog, layer: CatalogFile, parent: Catalog | None) -> Catalog:
    """Add the claims of the file ``layer``; where it has none of a kind, the inherited ones that still apply.

    Raises:
      InputError: a claim names a quantity, axis or name that the catalogue lacks.
    """
    return replace(
        catalog,
        comparisons=_chosen(catalog, "comparison", layer.comparison, parent.comparisons if parent else ()),
        examples=_chosen(catalog, "example", layer.example, parent.examples if parent else ()),
        contradictions=_chosen(
            catalog, "contradiction", layer.contradiction, parent.contradictions if parent else ()
        ),
    )


def _chosen(
    catalog: Catalog, kind: str, own: Sequence[_Claim] | None, inherited: tuple[_Claim, ...]
) -> tuple[_Claim, ...]:
    if own is None:
        return tuple(
            c for c in inherited if not any(n not in known for _, n, known in _references(catalog, c))
        )
    for position, claim in enumerate(own):
        for key, name, known in _references(catalog, claim):
            if name not in known:
                expected = f"one of {', '.join(known)}{nearest(name, known)}" if known else "no name here"
                raise InputError(catalog.path, f"{kind}[{position}].{key}", expected, name)
    return tuple(own)


def _references(
    catalog: Catalog, claim: Comparison | Example | Contradiction
) -> Iterable[tuple[str, str, Sequence[str]]]:
    """Key, name and admitted names of each reference; each may assume that those before it are right."""
    match claim:
        case Comparison():
            yield from _measure_references(catalog, claim.measure)
        case Example():
            yield from _place_references(catalog, "", claim.quantity, claim.at)
            for axis in catalog.quantities[claim.quantity].over:
                yield "at", axis, list(claim.at)
            drawn = [name for name, q in catalog.quantities.items() if isinstance(q.recipe, Draws)]
            for name, value in claim.given.items():
                yield "given", name, drawn
                for inner in value if isinstance(value, Mapping) else ():
                    yield f"given.{name}", inner, _names(catalog, name)
        case Contradiction():
            yield "quantity", claim.quantity, list(catalog.quantities)
            for name in claim.names:
                yield "names", name, _names(catalog, claim.quantity)


def _measure_references(catalog: Catalog, measure: Measure) -> Iterable[tuple[str, str, Sequence[str]]]:
    yield from _place_references(catalog, "measure.", measure.quantity, measure.at)
    for axis, name in (measure.relative_to or {}).items():
        yield "measure.relative_to", axis, catalog.quantities[measure.quantity].over
        yield f"measure.relative_to.{axis}", name, catalog.sets[axis]


def _place_references(
    catalog: Catalog, before: str, quantity: str, at: Mapping[Axis, str]
) -> Iterable[tuple[str, str, Sequence[str]]]:
    yield f"{before}quantity", quantity, list(catalog.quantities)
    for axis in catalog.sets:
        if axis in at:
            yield f"{before}at", axis, catalog.quantities[quantity].over
            yield f"{before}at.{axis}", at[axis], catalog.sets[axis]


def _names(catalog: Catalog, quantity: str) -> Sequence[str]:
    """Names of a quantity over one axis; none where it has several, or none."""
    over = catalog.quantities[quantity].over
    return catalog.sets[over[0]] if len(over) == 1 else ()
