"""How the values of a quantity come about: draws of entries, rules over other quantities, or draws over a rule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from rodiu_jax.catalog.distributions import Distribution


@dataclass(frozen=True)
class Entry:
    """One number or distribution, with its source and the catalogue that states it.

    Attributes:
      at_curve: the number follows the curves of its names (`rodiu_jax.catalog.curve_values`).
    """

    distribution: Distribution
    source: str
    reliability: int | None
    note: str
    catalog: str
    basis: str | None = None
    together: str | None = None
    at_curve: bool = False


@dataclass(frozen=True)
class Draws:
    """Independent draws: ``values`` by names (one per axis), ``each`` for the names without one.

    With ``by``, the keys of ``values`` are labels of that attribute of the names instead.
    """

    each: Entry | None
    values: Mapping[tuple[str, ...], Entry]
    by: str | None = None


@dataclass(frozen=True)
class Product:
    """Product of ``multiply`` divided by each of ``divide``, in that order, broadcast by name of axis."""

    multiply: tuple[str, ...]
    divide: tuple[str, ...]


@dataclass(frozen=True)
class Level:
    """Number of ``cuts`` that are <= the value of ``of``."""

    of: str
    cuts: tuple[float, ...]


@dataclass(frozen=True)
class WeightedSum:
    """Sum of weight x quantity over ``terms``, divided by ``divisor``, cut to ``clip``."""

    terms: tuple[tuple[str, float], ...]
    divisor: float
    clip: tuple[float, float]


@dataclass(frozen=True)
class Classes:
    """Independent draws, from the first entry whose bound is above the value of ``of``, else the last."""

    of: str
    bounds: tuple[float, ...]
    entries: tuple[Entry, ...]


Rule: TypeAlias = Product | Level | WeightedSum | Classes


@dataclass(frozen=True)
class Patched:
    """A rule, with draws in its place for the names in ``values`` (one per axis): measurements over a formula."""

    rule: Rule
    values: Mapping[tuple[str, ...], Entry]


Recipe: TypeAlias = Draws | Rule | Patched


def operands(recipe: Recipe) -> tuple[str, ...]:
    """List the names of the quantities that a recipe reads."""
    match recipe:
        case Product():
            return recipe.multiply + recipe.divide
        case Level() | Classes():
            return (recipe.of,)
        case WeightedSum():
            return tuple(name for name, _ in recipe.terms)
        case Patched(rule):
            return operands(rule)
        case Draws():
            return ()
