"""A catalogue in memory: names, quantities in the order of their dependencies, the source of each number."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from rodiu_jax.catalog.curve_values import FOLLOWING, read_curve_value
from rodiu_jax.catalog.distributions import Distribution
from rodiu_jax.catalog.file_format import Axis, Comparison, Contradiction, Example
from rodiu_jax.catalog.promises import Curve, Point, Promise, explain_rate, find_sustained
from rodiu_jax.catalog.recipes import (
    Classes,
    Draws,
    Entry,
    Level,
    Patched,
    Product,
    Recipe,
    WeightedSum,
    operands,
)
from rodiu_jax.errors import InputError
from rodiu_jax.model.fields import FIELD_SPECS, FILE_FIELDS, FieldSpec

FIELD_AXES: dict[str, Axis] = {"I": "query", "J": "model", "K": "gpu", "N": "tp"}
"""Letters of `rodiu_jax.model.instance.FieldSpec.axes` as axes of a catalogue."""

Range: TypeAlias = tuple[np.ndarray, np.ndarray]


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
    basis: str | None = None


_ANY_NUMBER = FieldSpec("", "", "", "any quantity that is no field", low=-np.inf)


@dataclass(frozen=True)
class Catalog:
    """A catalogue whose every reference, name and range has been checked.

    Attributes:
      layers: names of the catalogues it is built from, the most basic one first, itself last.
      sets: names along each axis (degrees as text), in the order of the arrays.
      attributes: text labels of names, by axis, name, attribute.
      quantities: by name; each one after those it reads.
      promises: what is promised to the queries of a type, by its name.
      curves: what was measured; ``throughput`` holds what the promises make of it.
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
    promises: Mapping[str, Promise] = field(default_factory=dict)
    curves: tuple[Curve, ...] = ()

    def shape(self, quantity: str) -> tuple[int, ...]:
        """Return the number of names along each axis of a quantity."""
        return tuple(len(self.sets[a]) for a in self.quantities[quantity].over)

    def names(self, quantity: str) -> list[tuple[str, ...]]:
        """List every combination of names of a quantity, in the order of its flattened array."""
        return list(product(*(self.sets[a] for a in self.quantities[quantity].over)))

    def entry(self, quantity: str, names: tuple[str, ...]) -> Entry:
        """Find the draw of one combination of names of a quantity given by values.

        Raises:
          KeyError: the quantity is derived (at these names), or no such names.
        """
        q = self.quantities[quantity]
        if isinstance(q.recipe, Patched):
            return q.recipe.values[names]
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
        """List the draws of a quantity, in the order of `names`."""
        return [self.entry(quantity, names) for names in self.names(quantity)]

    def find_entry(self, quantity: str, names: tuple[str, ...]) -> Entry | None:
        """Find the draw of one combination of names; None where a rule gives the value."""
        try:
            return self.entry(quantity, names)
        except KeyError:
            return None

    @cached_property
    def ranges(self) -> dict[str, Range]:
        """Smallest and largest possible value of each quantity, arrays over its axes (interval arithmetic).

        Where a quantity reads another twice the range may be too wide, never too narrow.

        Raises:
          InputError: a divisor can be 0.
        """
        found: dict[str, Range] = {}
        with np.errstate(all="ignore"):  # `checked` reports what overflows
            for name, q in self.quantities.items():
                found[name] = self._range(q, found)
        return found

    @property
    def gpu_devices(self) -> tuple[str, ...]:
        """The device of each GPU configuration: its attribute ``device``, or else its own name."""
        labels = self.attributes.get("gpu", {})
        return tuple(labels.get(name, {}).get("device", name) for name in self.sets["gpu"])

    def label(self, axis: Axis, name: str, attribute: str) -> str | None:
        """Return an attribute of a name, such as the ``repository`` of a model; None where nobody stated it."""
        return self.attributes.get(axis, {}).get(name, {}).get(attribute)

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
                case Patched(rule, values):
                    given = [*values.values(), *(rule.entries if isinstance(rule, Classes) else ())]
                    own = any(e.distribution.varies for e in given)
                case _:
                    own = False
            if own or any(o in found for o in operands(q.recipe)):
                found.add(name)
        return frozenset(found)

    def fixed(self, quantity: str) -> np.ndarray:
        """Return the values of a quantity that no draw touches (float64, shape of its axes)."""
        if quantity in self.varying:
            raise KeyError(quantity)
        return self.ranges[quantity][0]

    def checked(self) -> Catalog:
        """Return this catalogue if it has every field that an instance must have, and all take admissible values only.

        Raises:
          InputError: a field is missing, has other axes or another unit, or can leave its range; configurations of one
            device state different quotas.
        """
        for name in FILE_FIELDS:
            spec = FIELD_SPECS[name]
            if name == "tp_degree":  # the set of degrees itself
                continue
            if name not in self.quantities:
                if spec.absent is not None:
                    continue
                raise InputError(self.path, f"quantity.{name}", "this quantity, which is missing")
            q = self.quantities[name]
            layouts = [spec.axes] if spec.also is None else [spec.axes, spec.also]
            known = [tuple(FIELD_AXES[a] for a in axes) for axes in layouts]
            if q.over not in known:
                expected = " or ".join(str(list(over)) for over in known)
                raise InputError(self.path, f"quantity.{name}.over", expected, list(q.over))
            if q.unit != spec.unit:
                raise InputError(self.path, f"quantity.{name}.unit", repr(spec.unit), q.unit)
        for name, (low, high) in self.ranges.items():
            spec = FIELD_SPECS.get(name, _ANY_NUMBER)
            bad = (spec.bad(low) | spec.bad(high)).ravel()
            if spec.integer:
                bad |= [not self._whole(name, names) for names in self.names(name)]
            if bad.any():
                worst = int(np.argmax(bad))
                least, most = float(low.ravel()[worst]), float(high.ravel()[worst])
                found = least if least == most else f"{least:.12g} to {most:.12g}"
                q = self.quantities[name]
                at = ".".join((f"quantity.{name}", *self.names(name)[worst]))
                raise InputError(self.path, at, f"{spec.expected} ({q.unit})", found)
        self._check_quotas()
        return self

    def _check_quotas(self) -> None:
        if "gpu_quota" not in self.quantities:
            return
        if "gpu_quota" in self.varying and len(set(self.gpu_devices)) < len(self.gpu_devices):
            expected = "fixed values, as configurations of one device share their quota"
            raise InputError(self.path, "quantity.gpu_quota", expected)
        quota = self.ranges["gpu_quota"][0]
        for k, (name, device) in enumerate(zip(self.sets["gpu"], self.gpu_devices, strict=True)):
            first = self.gpu_devices.index(device)
            if quota[k] != quota[first]:
                expected = f"{quota[first]:g}, as {self.sets['gpu'][first]} says of the same device {device}"
                raise InputError(self.path, f"quantity.gpu_quota.{name}", expected, float(quota[k]))

    def _whole(self, name: str, names: tuple[str, ...]) -> bool:
        """Tell whether an entry of a field of whole numbers is always whole."""
        if not isinstance(self.quantities[name].recipe, Draws):
            return False
        drawn = self.entry(name, names).distribution
        return drawn.kind in ("fixed", "choice") and all(x == math.floor(x) for x in drawn.numbers)

    def aligned(self, values: np.ndarray, quantity: str, over: Sequence[Axis]) -> np.ndarray:
        """Reshape an array over a quantity's axes, with axes of length 1 where only ``over`` has one."""
        own = self.quantities[quantity].over
        return values.reshape(tuple(len(self.sets[a]) if a in own else 1 for a in over))

    def rule_range(self, quantity: str) -> Range:
        """Return the smallest and the largest value that the rule of a `Patched` quantity gives, as `ranges` does."""
        q = self.quantities[quantity]
        assert isinstance(q.recipe, Patched)
        with np.errstate(all="ignore"):
            return self._range(replace(q, recipe=q.recipe.rule), self.ranges)

    def _range(self, q: Quantity, found: Mapping[str, Range]) -> Range:
        shape = self.shape(q.name)

        def operand(name: str) -> Range:
            low, high = found[name]
            return self.aligned(low, name, q.over), self.aligned(high, name, q.over)

        match q.recipe:
            case Patched(rule, values):
                low, high = (x.copy() for x in self._range(replace(q, recipe=rule), found))
                for position, names in enumerate(self.names(q.name)):
                    if names in values:
                        low.flat[position], high.flat[position] = values[names].distribution.range
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
                        raise InputError(
                            self.path, f"quantity.{q.name}.divide", "a divisor that cannot be 0", name
                        )
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
                low, high = (_count_reached(x, cuts).astype(np.float64) for x in operand(of))
            case Classes(of, bounds, entries):
                first, last = (np.broadcast_to(_count_reached(x, bounds), shape) for x in operand(of))
                low, high = np.full(shape, np.inf), np.full(shape, -np.inf)
                for c, entry in enumerate(entries):
                    reached = (first <= c) & (c <= last)
                    least, most = entry.distribution.range
                    low = np.where(reached, np.minimum(low, least), low)
                    high = np.where(reached, np.maximum(high, most), high)
        return np.broadcast_to(low, shape), np.broadcast_to(high, shape)

    @cached_property
    def digest(self) -> str:
        """SHA-256 in hex of what numbers depend on: names in order, values, rules; not sources or notes."""
        content: list[Any] = [self.sets]
        for name in sorted(self.quantities):
            q = self.quantities[name]
            rule = q.recipe.rule if isinstance(q.recipe, Patched) else q.recipe
            recipe: Any = (
                [repr(e.distribution) for e in self.entries(name)] if isinstance(rule, Draws) else None
            )
            if isinstance(rule, Classes):
                recipe = [rule.of, rule.bounds, [repr(e.distribution) for e in rule.entries]]
            content.append([name, q.over, q.unit, type(rule).__name__, recipe or repr(rule)])
            if isinstance(q.recipe, Patched):
                content.append(
                    [[*names, repr(e.distribution)] for names, e in sorted(q.recipe.values.items())]
                )
            if groups := self._drawn_together(name):
                content.append(groups)
        if self.curves:  # factors of a sweep change promises, which read all points
            content.append(
                [[c.cell, [[p.rate, p.latencies, p.tokens] for p in c.points]] for c in self.curves]
            )
            content.append({query: str(promise) for query, promise in sorted(self.promises.items())})
            content.append([[name, *names] for name, names, _ in self._list_followers(self.quantities)])
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def _drawn_together(self, quantity: str) -> list[list[str]]:
        found = [(names, self.find_entry(quantity, names)) for names in self.names(quantity)]
        return [[*names, e.together] for names, e in found if e is not None and e.together is not None]

    @property
    def following(self) -> tuple[str, ...]:
        """The quantities that change with a promise: ``throughput`` and what is read off curves beside it."""
        others = dict.fromkeys(name for name, _, _ in self._list_followers(self.quantities))
        return ("throughput", *others) if self.curves else ()

    def _list_followers(self, quantities: Mapping[str, Quantity]) -> list[tuple[str, tuple[str, ...], Entry]]:
        """List the entries that follow curves, with quantity and names."""
        found = []
        for name in FOLLOWING:
            recipe = quantities[name].recipe if name in quantities else None
            if isinstance(recipe, Draws | Patched):
                found += [(name, names, entry) for names, entry in recipe.values.items() if entry.at_curve]
        return found

    def with_promises(self, promises: Mapping[str, Promise]) -> Catalog:
        """Replace what is promised to some query types; the curves are read anew.

        ``throughput`` follows, and so do delays, residencies and speed-ups that are read off curves (``at_curve``).

        Args:
          promises: by query type; the others keep theirs.

        Raises:
          InputError: an unknown query type, or a promise about a latency that was not measured.
        """
        for name in promises:
            if name not in self.sets["query"]:
                raise InputError(self.path, "promise", f"one of {', '.join(self.sets['query'])}", name)
        merged = dict(self.promises) | dict(promises)
        changed = dict(self.quantities)
        if self.curves:
            best = {c.cell: find_sustained(c, merged.get(c.query), self.path) for c in self.curves}
            values: dict[tuple[str, tuple[str, ...]], tuple[float, str]] = {}
            for curve in self.curves:
                why = explain_rate(curve, merged.get(curve.query), best[curve.cell])
                point = best[curve.cell]
                rate = 0.0 if point is None else point.rate
                values["throughput", curve.cell] = rate, f"{curve.note}; {why}" if curve.note else why
            values |= self._read_followers(best)
            for name in self.following:
                q = changed[name]
                assert isinstance(q.recipe, Draws | Patched), "what follows curves has values"
                given = dict(q.recipe.values)
                for (quantity, names), (number, note) in values.items():
                    if quantity == name:
                        drawn = Distribution("fixed", (number,))
                        given[names] = replace(given[names], distribution=drawn, note=note)
                changed[name] = replace(q, recipe=replace(q.recipe, values=given))
        return replace(self, quantities=changed, promises=merged)

    def _read_followers(
        self, best: Mapping[tuple[str, ...], Point | None]
    ) -> dict[tuple[str, tuple[str, ...]], tuple[float, str]]:
        """Read delays, residencies and speed-ups off the curves, at the sustained rates."""
        groups: dict[tuple[str, ...], dict[str, Curve]] = {}
        for curve in sorted(self.curves, key=lambda c: int(c.tp)):
            groups.setdefault(curve.cell[:3], {})[curve.tp] = curve
        found = {}
        for name, names, _ in self._list_followers(self.quantities):
            curves = groups.get(names[:3], {})
            points = {tp: best[curve.cell] for tp, curve in curves.items()}
            slowest = {tp: curve.points[0] for tp, curve in curves.items()}
            speedups = {tp: self.find_speedup(curve.cell) for tp, curve in curves.items()}
            read = read_curve_value(name, points, slowest, speedups, names[-1])
            if read is not None:
                found[name, names] = read
        return found

    def find_speedup(self, cell: tuple[str, ...]) -> float | None:
        """Find the speed-up of a degree where it is one certain number; 1 where curves give it.

        Args:
          cell: query type, model, GPU and degree.
        """
        over = self.quantities["tp_speedup"].over if "tp_speedup" in self.quantities else None
        if over is None:
            return 1.0
        entry = self.find_entry("tp_speedup", cell[-len(over) :] if over else ())
        if entry is None or entry.distribution.varies:
            return None
        return 1.0 if entry.at_curve else entry.distribution.numbers[0]

    def with_fixed(self, given: Mapping[str, float | Mapping[str, float]]) -> Catalog:
        """Replace some draws of the catalogue by fixed values: ``{"base_delay": {"Code_Gen": 0.8}}``.

        Args:
          given: by quantity, one number for all its entries, or a number per name (quantities over one axis).

        Raises:
          InputError: an unknown quantity or name, a derived quantity, a number per name on several axes, or a
            value that a field cannot have.
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
            numbers = named if named is not None else dict.fromkeys(self.names(name), value)
            entries = dict(zip(self.names(name), self.entries(name), strict=True))
            for key, number in numbers.items():
                names = (key,) if isinstance(key, str) else key
                if (
                    isinstance(number, bool)
                    or not isinstance(number, int | float)
                    or not math.isfinite(number)
                ):
                    raise InputError(self.path, f"given.{name}", "a finite number", number)
                entries[names] = replace(
                    entries[names],
                    distribution=Distribution("fixed", (float(number),)),
                    source="given",
                    note="",
                )
            changed[name] = replace(q, recipe=Draws(None, entries))
        return replace(self, quantities=changed).checked()

    def at_means(self) -> Catalog:
        """Replace every distribution by its mean, so that all draws are one scenario, the nominal one.

        Rules (products, sums, classes) are then rules of means. What must be whole takes the lower median instead.
        """

        def settle(entry: Entry, whole: bool) -> Entry:
            drawn = entry.distribution
            value = sorted(drawn.numbers)[(len(drawn.numbers) - 1) // 2] if whole else drawn.mean
            return replace(entry, distribution=Distribution("fixed", (float(value),)))

        changed = {}
        for name, q in self.quantities.items():
            whole = FIELD_SPECS.get(name, _ANY_NUMBER).integer
            rule = q.recipe.rule if isinstance(q.recipe, Patched) else q.recipe
            if isinstance(rule, Classes):
                rule = replace(rule, entries=tuple(settle(e, whole) for e in rule.entries))
            if isinstance(rule, Draws):
                each = None if rule.each is None else settle(rule.each, whole)
                rule = replace(rule, each=each, values={n: settle(e, whole) for n, e in rule.values.items()})
            recipe: Recipe = rule
            if isinstance(q.recipe, Patched):
                assert not isinstance(rule, Draws), "only rules are patched"
                recipe = Patched(rule, {n: settle(e, whole) for n, e in q.recipe.values.items()})
            changed[name] = replace(q, recipe=recipe)
        return replace(self, quantities=changed)


def _count_reached(values: np.ndarray, cuts: Sequence[float]) -> np.ndarray:
    return sum(((values >= c).astype(np.int64) for c in cuts), np.zeros(values.shape, np.int64))
