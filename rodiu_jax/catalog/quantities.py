"""A catalogue in memory: names, quantities in the order of their dependencies, and where each number came from."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np

from rodiu_jax.errors import InputError

Axis = Literal["query", "model", "gpu", "tp"]
AXES: tuple[Axis, ...] = ("query", "model", "gpu", "tp")
FIELD_AXES: dict[str, Axis] = {"I": "query", "J": "model", "K": "gpu", "N": "tp"}
"""Letters of `rodiu_jax.instance.FieldSpec.axes` as axes of a catalogue."""

Range: TypeAlias = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Distribution:
    """How one number is drawn.

    ``numbers`` by kind: fixed (value), uniform and log_uniform (low, high), normal (mean, sd, low, high; cut to
    [low, high]), choice (the values, equally likely).
    """

    KINDS: ClassVar[tuple[str, ...]] = ("fixed", "uniform", "log_uniform", "normal", "choice")

    kind: str
    numbers: tuple[float, ...]

    @property
    def range(self) -> tuple[float, float]:
        """Smallest and largest value."""
        if self.kind == "choice":
            return min(self.numbers), max(self.numbers)
        return (self.numbers[0], self.numbers[0]) if self.kind == "fixed" else self.numbers[-2:]  # type: ignore[return-value]

    @property
    def varies(self) -> bool:
        """Whether more than one value can come out."""
        return self.range[0] < self.range[1]

    def fault(self) -> str:
        """What the numbers should have been, empty when they are right."""
        if self.kind == "choice":
            return "" if self.numbers else "at least one value"
        low, high = self.range
        if not low <= high:
            return "low <= high"
        if self.kind == "log_uniform" and not low > 0:
            return "low > 0"
        if self.kind == "normal":
            if not self.numbers[1] > 0:
                return "sd > 0"
            if not low < high:
                return "low < high"
            if not max(self.tail_masses()) > 0:
                return "a range within about 37 sd of the mean"
        return ""

    def tail_masses(self) -> tuple[float, float, float]:
        """For a normal: the signed sd, and the standard normal's mass below the range's start and inside the range.

        A range above the mean is mirrored (negative sd), so that the masses are small numbers told exactly
        instead of differences from 1.
        """
        mean, sd, low, high = self.numbers
        a, b = (low - mean) / sd, (high - mean) / sd
        if a > 0:
            a, b, sd = -b, -a, -sd
        below, up_to = (0.5 * math.erfc(-x / math.sqrt(2.0)) for x in (a, b))
        return sd, below, up_to - below

    def __str__(self) -> str:
        """In words, for tables."""
        n = [f"{x:.12g}" for x in self.numbers]
        if self.kind == "fixed":
            return n[0]
        if self.kind == "normal":
            return f"normal, mean {n[0]}, sd {n[1]}, cut to {n[2]} to {n[3]}"
        if self.kind == "choice":
            low, high = self.range
            few = ", ".join(n)
            return f"choice of {few}" if len(n) <= 6 else f"choice of {len(n)} values, {low:.12g} to {high:.12g}"
        return f"{self.kind.replace('_', '-')} {n[0]} to {n[1]}"


@dataclass(frozen=True)
class Entry:
    """One number or distribution, with its provenance and the catalogue that says so."""

    distribution: Distribution
    source: str
    reliability: int | None
    note: str
    catalog: str


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
    """Independent draws, each from the first of ``entries`` whose bound is above the value of ``of``, else the last."""

    of: str
    bounds: tuple[float, ...]
    entries: tuple[Entry, ...]


Recipe: TypeAlias = Draws | Product | Level | WeightedSum | Classes


def operands(recipe: Recipe) -> tuple[str, ...]:
    """Names of the quantities that a recipe reads."""
    match recipe:
        case Product():
            return recipe.multiply + recipe.divide
        case Level() | Classes():
            return (recipe.of,)
        case WeightedSum():
            return tuple(name for name, _ in recipe.terms)
        case Draws():
            return ()


@dataclass(frozen=True)
class Quantity:
    """A number per combination of names along ``over`` (axes in the order query, model, gpu, tp)."""

    name: str
    over: tuple[Axis, ...]
    unit: str
    recipe: Recipe
    source: str
    reliability: int | None
    note: str
    catalog: str
    path: Path = field(compare=False)


@dataclass(frozen=True)
class Measure:
    """``quantity`` at the names ``at`` (everything else ranges), divided by itself at ``relative_to``, less ``minus``."""

    quantity: str
    at: Mapping[Axis, str]
    relative_to: Mapping[Axis, str] | None
    minus: float


@dataclass(frozen=True)
class Comparison:
    """A stated range of a measure, and the range observed elsewhere."""

    name: str
    unit: str
    stated: tuple[float, float]
    observed: tuple[float, float]
    source: str
    measure: Measure


@dataclass(frozen=True)
class Example:
    """A worked example: ``quantity`` at the names ``at`` when some entries are ``given`` (see `Catalog.with_fixed`)."""

    name: str
    quantity: str
    at: Mapping[Axis, str]
    given: Mapping[str, float | Mapping[str, float]]
    unit: str
    stated: float
    expected: float
    source: str
    note: str


@dataclass(frozen=True)
class Contradiction:
    """Where the source disagrees with itself; ``both`` when every catalogue acts on it alike."""

    where: str
    quantity: str
    names: tuple[str, ...]
    both: bool
    why: str


@dataclass(frozen=True)
class Catalog:
    """A catalogue whose every reference, name and range has been checked.

    Attributes:
      layers: names of the catalogues it is built from, the most basic one first, itself last.
      sets: names along each axis (degrees as text), in the order of the arrays.
      attributes: text labels of names, by axis, name, attribute.
      quantities: by name; each one after those it reads.
    """

    name: str
    description: str
    path: Path = field(compare=False)
    layers: tuple[str, ...]
    sets: Mapping[Axis, tuple[str, ...]]
    attributes: Mapping[Axis, Mapping[str, Mapping[str, str]]]
    quantities: Mapping[str, Quantity]
    comparisons: tuple[Comparison, ...]
    examples: tuple[Example, ...]
    contradictions: tuple[Contradiction, ...]

    def shape(self, quantity: str) -> tuple[int, ...]:
        """Number of names along each axis of a quantity."""
        return tuple(len(self.sets[a]) for a in self.quantities[quantity].over)

    def names(self, quantity: str) -> list[tuple[str, ...]]:
        """Every combination of names of a quantity, in the order of its array laid flat."""
        return list(product(*(self.sets[a] for a in self.quantities[quantity].over)))

    def entry(self, quantity: str, names: tuple[str, ...]) -> Entry:
        """The draw of one combination of names of a quantity given by values.

        Raises:
          KeyError: the quantity is derived, or no such names.
        """
        q = self.quantities[quantity]
        if not isinstance(q.recipe, Draws):
            raise KeyError(quantity)
        key = names
        if q.recipe.by is not None:
            key = (self.attributes[q.over[0]][names[0]][q.recipe.by],)
        found = q.recipe.values.get(key, q.recipe.each)
        if found is None:
            raise KeyError((quantity, *names))
        return found

    def entries(self, quantity: str) -> list[Entry]:
        """The draws of `names` (quantity), in that order."""
        return [self.entry(quantity, names) for names in self.names(quantity)]

    @cached_property
    def ranges(self) -> dict[str, Range]:
        """Smallest and largest possible value of each quantity, arrays over its axes (interval arithmetic).

        Where a quantity reads another twice the range may be too wide, never too narrow.

        Raises:
          InputError: a divisor can be 0.
        """
        found: dict[str, Range] = {}
        for name, q in self.quantities.items():
            found[name] = self._range(q, found)
        return found

    @cached_property
    def varying(self) -> frozenset[str]:
        """The quantities that a draw touches; all the others are the same in every scenario."""
        found: set[str] = set()
        for name, q in self.quantities.items():
            match q.recipe:
                case Draws():
                    own = any(e.distribution.varies for e in self.entries(name))
                case Classes():
                    own = any(e.distribution.varies for e in q.recipe.entries)
                case _:
                    own = False
            if own or any(o in found for o in operands(q.recipe)):
                found.add(name)
        return frozenset(found)

    def fixed(self, quantity: str) -> np.ndarray:
        """The values of a quantity that no draw touches (float64, shape of its axes)."""
        if quantity in self.varying:
            raise KeyError(quantity)
        return self.ranges[quantity][0]

    def aligned(self, values: np.ndarray, quantity: str, over: Sequence[Axis]) -> np.ndarray:
        """An array over a quantity's axes, with axes of length 1 put where only ``over`` has one."""
        own = self.quantities[quantity].over
        return values.reshape(tuple(len(self.sets[a]) if a in own else 1 for a in over))

    def _range(self, q: Quantity, found: Mapping[str, Range]) -> Range:
        shape = self.shape(q.name)

        def operand(name: str) -> Range:
            low, high = found[name]
            return self.aligned(low, name, q.over), self.aligned(high, name, q.over)

        match q.recipe:
            case Draws():
                ends = np.array([e.distribution.range for e in self.entries(q.name)], dtype=np.float64)
                return ends[:, 0].reshape(shape), ends[:, 1].reshape(shape)
            case Product(multiply, divide):
                low = high = np.ones(shape)
                for name in multiply:
                    corners = [a * b for a in (low, high) for b in operand(name)]
                    low, high = np.minimum.reduce(corners), np.maximum.reduce(corners)
                for name in divide:
                    least, most = operand(name)
                    if ((least <= 0) & (most >= 0)).any():
                        raise InputError(q.path, f"quantity.{q.name}.divide", "a divisor that cannot be 0", name)
                    corners = [a / b for a in (low, high) for b in (least, most)]
                    low, high = np.minimum.reduce(corners), np.maximum.reduce(corners)
            case WeightedSum(terms, divisor, clip):
                low = high = np.zeros(shape)
                for name, weight in terms:
                    ends = [weight * x for x in operand(name)]
                    low, high = low + np.minimum(*ends), high + np.maximum(*ends)
                ends = [np.clip(x / divisor, *clip) for x in (low, high)]
                low, high = np.minimum(*ends), np.maximum(*ends)
            case Level(of, cuts):
                low, high = (_count(x, cuts).astype(np.float64) for x in operand(of))
            case Classes(of, bounds, entries):
                first, last = (np.broadcast_to(_count(x, bounds), shape) for x in operand(of))
                low, high = np.full(shape, np.inf), np.full(shape, -np.inf)
                for c, entry in enumerate(entries):
                    reached = (first <= c) & (c <= last)
                    least, most = entry.distribution.range
                    low = np.where(reached, np.minimum(low, least), low)
                    high = np.where(reached, np.maximum(high, most), high)
        return np.broadcast_to(low, shape), np.broadcast_to(high, shape)

    @cached_property
    def digest(self) -> str:
        """SHA-256, in hex, of all that numbers depend on: names in order, values and rules; not of notes or sources."""
        content: list[Any] = [self.sets]
        for name in sorted(self.quantities):
            q = self.quantities[name]
            recipe: Any = [repr(e.distribution) for e in self.entries(name)] if isinstance(q.recipe, Draws) else None
            if isinstance(q.recipe, Classes):
                recipe = [q.recipe.of, q.recipe.bounds, [repr(e.distribution) for e in q.recipe.entries]]
            content.append([name, q.over, q.unit, type(q.recipe).__name__, recipe or repr(q.recipe)])
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def with_fixed(self, given: Mapping[str, float | Mapping[str, float]]) -> Catalog:
        """The same catalogue with some draws replaced by fixed values: ``{"base_delay": {"Code_Gen": 0.8}}``.

        Args:
          given: by quantity, one number for all its entries, or a number per name (quantities over one axis).

        Raises:
          InputError: an unknown quantity or name, a derived quantity, a number per name on several axes.
        """
        changed = dict(self.quantities)
        for name, value in given.items():
            q = changed.get(name)
            if q is None or not isinstance(q.recipe, Draws):
                raise InputError(self.path, f"given.{name}", "the name of a quantity given by values", name)
            named = value if isinstance(value, Mapping) else None
            if named is not None and (len(q.over) != 1 or set(named) - set(self.sets[q.over[0]])):
                known = ", ".join(self.sets[q.over[0]]) if len(q.over) == 1 else "one number"
                raise InputError(self.path, f"given.{name}", known, sorted(named))
            numbers = named if named is not None else {names: value for names in self.names(name)}
            entries = dict(zip(self.names(name), self.entries(name), strict=True))
            for key, number in numbers.items():
                names = (key,) if isinstance(key, str) else key
                if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
                    raise InputError(self.path, f"given.{name}", "a finite number", number)
                entries[names] = replace(
                    entries[names], distribution=Distribution("fixed", (float(number),)), source="given", note=""
                )
            changed[name] = replace(q, recipe=Draws(None, entries))
        return replace(self, quantities=changed)


def _count(values: np.ndarray, cuts: Sequence[float]) -> np.ndarray:
    return sum(((values >= c).astype(np.int64) for c in cuts), np.zeros(values.shape, np.int64))
