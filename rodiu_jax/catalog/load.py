"""Loads catalogue files into a checked `Catalog`: follows ``extends``, merges the files, checks all references."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rodiu_jax.catalog import file_format as schema
from rodiu_jax.catalog.curve_values import FOLLOWING
from rodiu_jax.catalog.file_format import AXES, Axis
from rodiu_jax.catalog.labels import check_labels
from rodiu_jax.catalog.promises import Curve, Point, Promise, parse_promise
from rodiu_jax.catalog.quantities import Catalog, Quantity
from rodiu_jax.catalog.recipes import (
    Classes,
    Draws,
    Entry,
    Level,
    Patched,
    Product,
    Recipe,
    Rule,
    WeightedSum,
    operands,
)
from rodiu_jax.catalog.statements import add_statements
from rodiu_jax.errors import InputError, nearest
from rodiu_jax.io.files import read_toml
from rodiu_jax.model.instance import check_names

_FOLDER = Path(__file__).parent
_PLAIN_KEYS = ("over", "unit", "source", "reliability", "basis", "note")
_RULE_KEYS = {key for way, keys in schema.RECIPES.items() if way != "each or values" for key in keys}

Names = tuple[str, ...]


def catalog_names() -> tuple[str, ...]:
    """List the names of the catalogues that come with the package."""
    return tuple(sorted(p.stem for p in _FOLDER.glob("*.toml")))


def load_catalog(name_or_path: str | Path, *, source: str | Path = "catalog", key: str = "") -> Catalog:
    """Load a catalogue by name, or from a TOML file, together with the catalogues it extends.

    Args:
      source, key: where the name stands, for the error where there is no such catalogue.

    Raises:
      InputError: no such catalogue, a wrong key, type, name, bound or reference, a missing value, a cycle.
    """
    return _load_chain(_find_file(name_or_path, Path(), source, key), ())[1]


def _find_file(name: str | Path, folder: Path, source: str | Path, key: str) -> Path:
    known = catalog_names()
    if str(name) in known:
        return _FOLDER / f"{name}.toml"
    path = folder / name
    try:
        exists = path.is_file()
    except OSError:  # such as a name that is too long
        exists = False
    if not exists:
        expected = f"{' or '.join(known)}, or the path of a TOML file{nearest(name, known)}"
        raise InputError(source, key, expected, str(name))
    return path


@dataclass
class _Draft:
    """A quantity as merged so far; ``values`` are by names, or by label."""

    keys: dict[str, Any]
    values: dict[Names, schema.EntryTable]
    catalog: str


@dataclass
class _Merged:
    """A chain of files merged up to one of them."""

    layers: tuple[str, ...] = ()
    sets: dict[Axis, Names] = field(default_factory=dict)
    attributes: dict[Axis, dict[str, dict[str, str]]] = field(default_factory=dict)
    drafts: dict[str, _Draft] = field(default_factory=dict)
    promises: dict[str, Promise] = field(default_factory=dict)
    curves: dict[Names, Curve] = field(default_factory=dict)


def _load_chain(path: Path, children: tuple[Path, ...]) -> tuple[_Merged, Catalog]:
    if path.resolve() in children:
        raise InputError(
            children[0], "catalog.extends", "catalogues that do not extend each other in a circle", str(path)
        )
    layer = schema.parse(read_toml(path), path)
    parent, parent_catalog = _Merged(), None
    if layer.catalog.extends is not None:
        above = _find_file(layer.catalog.extends, path.parent, path, "catalog.extends")
        parent, parent_catalog = _load_chain(above, (path.resolve(), *children))
    if layer.catalog.name in parent.layers:
        raise InputError(path, "catalog.name", "a name that no catalogue it extends has", layer.catalog.name)
    merged = _merge(parent, layer, path)
    _check_together(merged, path)
    quantities = {name: _make_quantity(name, draft, merged, path) for name, draft in merged.drafts.items()}
    _check_followers(quantities, path)
    catalog = Catalog(
        name=layer.catalog.name,
        description=layer.catalog.description,
        path=path,
        layers=merged.layers,
        sets=merged.sets,
        attributes=merged.attributes,
        quantities=_sort_by_dependency(quantities, path),
        comparisons=(),
        examples=(),
        contradictions=(),
        curves=tuple(merged.curves.values()),
    ).with_promises(merged.promises)
    return merged, add_statements(catalog.checked(), layer, parent_catalog)


def _merge(parent: _Merged, layer: schema.CatalogFile, path: Path) -> _Merged:
    sets = dict(parent.sets)
    for axis in AXES:
        names = getattr(layer.sets, axis)
        if names is not None:
            sets[axis] = check_names(names, f"sets.{axis}", path)
        if axis not in sets:
            raise InputError(path, f"sets.{axis}", "this list, which is missing")
    degrees = [int(n) for n in sets["tp"]]
    if degrees != sorted(degrees):
        raise InputError(path, "sets.tp", "increasing degrees", degrees)
    attributes: dict[Axis, dict[str, dict[str, str]]] = {}
    for axis in AXES:
        kept = {n: dict(v) for n, v in parent.attributes.get(axis, {}).items() if n in sets[axis]}
        for name, labels in layer.attributes.get(axis, {}).items():
            _check_known(name, sets[axis], path, f"attributes.{axis}")
            check_labels(axis, name, labels, path)
            kept[name] = kept.get(name, {}) | labels
        attributes[axis] = kept
    drafts = {n: _Draft(dict(d.keys), dict(d.values), d.catalog) for n, d in parent.drafts.items()}
    for name, table in layer.quantity.items():
        drafts[name] = _overlay(drafts.get(name), table, path, f"quantity.{name}")
    merged = _Merged((*parent.layers, layer.catalog.name), sets, attributes, drafts)
    merged.promises.update({n: p for n, p in parent.promises.items() if n in sets["query"]})
    for name, promise in layer.promise.items():
        _check_known(name, sets["query"], path, "promise")
        merged.promises[name] = parse_promise(promise.limits)
    _merge_curves(parent, merged, layer, path)
    for name, draft in drafts.items():
        _prune(name, draft, merged, layer, path)
    return merged


def _merge_curves(parent: _Merged, merged: _Merged, layer: schema.CatalogFile, path: Path) -> None:
    """Keep the curves of names that are still there; each fills its cell of ``throughput``; the later file counts."""
    stated = layer.quantity.get("throughput")
    own = _flatten(stated.values or {}) if stated is not None else {}
    anew = stated is not None and bool(stated.model_fields_set & {"each", *_RULE_KEYS})
    for cell, curve in parent.curves.items():
        known = all(n in merged.sets[a] for n, a in zip(cell, AXES, strict=True))
        if known and not anew and cell not in own:
            merged.curves[cell] = curve
    for position, table in enumerate(layer.curve):
        at = f"curve[{position}]"
        cell = (table.query, table.model, table.gpu, str(table.tp))
        for axis, name in zip(AXES, cell, strict=True):
            _check_known(name, merged.sets[axis], path, f"{at}.{axis}")
        if cell in own or any(c.catalog == layer.catalog.name for c in (merged.curves.get(cell),) if c):
            expected = (
                "one statement of this throughput in a file: a value, or one curve with all of its points"
            )
            raise InputError(path, at, expected, ".".join(cell))
        points = sorted((_make_point(p, table.tokens) for p in table.points), key=lambda p: p.rate)
        about = table.source, table.note, table.basis
        merged.curves[cell] = Curve(*cell, tuple(points), *about, layer.catalog.name)
    if not merged.curves:
        return
    draft = merged.drafts.get("throughput")
    if (
        draft is None
        or draft.keys.get("over") != list(AXES)
        or draft.keys.keys() & _RULE_KEYS
        or "by" in draft.keys
    ):
        expected = f"values over {', '.join(AXES)}, which curves can fill"
        raise InputError(path, "quantity.throughput", expected)
    for cell, curve in merged.curves.items():  # the promises decide the number, in `Catalog.with_promises`
        entry = schema.EntryTable(fixed=0.0, source=curve.source, note=curve.note, basis=curve.basis)
        draft.values[cell] = entry.place(curve.catalog)


def _make_point(table: schema.PointTable, shared: list[float] | None) -> Point:
    given, made = table.tokens or shared or (0.0, 0.0)
    return Point(table.rate, dict(table.ms), (given, made) if given + made > 0 else None)


def _check_followers(quantities: Mapping[str, Quantity], path: Path) -> None:
    """Only numbers that curves can tell may follow them: delays, residencies and speed-ups of a pair."""
    for name, q in quantities.items():
        entries = q.recipe.values if isinstance(q.recipe, Draws | Patched) else {}
        for names, entry in entries.items():
            if entry.at_curve and (name not in FOLLOWING or q.over[:3] != AXES[:3]):
                expected = f"at_curve in {', '.join(FOLLOWING)} over {', '.join(AXES[:3])} alone"
                raise InputError(path, ".".join((f"quantity.{name}.values", *names)), expected, True)


def _check_together(merged: _Merged, path: Path) -> None:
    """Values drawn together are choices of as many values: a draw is a position in all of them."""
    lengths: dict[str, tuple[int, str]] = {}
    for name, draft in merged.drafts.items():
        entries = {(): draft.keys["each"]} if draft.keys.get("each") is not None else {}
        for names, entry in (entries | draft.values).items():
            if entry.together is None:
                continue
            at, count = ".".join((f"quantity.{name}.values", *names)), len(entry.choice or ())
            first, where = lengths.setdefault(entry.together, (count, at))
            if count != first:
                expected = f"a choice of {first} values, as {where} has, which is drawn together with it"
                raise InputError(path, at, expected, count)


def _overlay(parent: _Draft | None, table: schema.QuantityTable, path: Path, at: str) -> _Draft:
    """Put this file's keys over the parent's quantity; another way of getting the values replaces the parent's."""
    keys, values = (dict(parent.keys), dict(parent.values)) if parent else ({}, {})
    given = {k: getattr(table, k) for k in table.model_fields_set}
    chosen = [r for r, parts in schema.RECIPES.items() if given.keys() & set(parts)]
    if len(chosen) > 1:
        raise InputError(path, at, f"one of {'; '.join(schema.RECIPES)}", " and ".join(chosen))
    if (
        parent
        and chosen == ["each or values"]
        and not given.keys() & {"each", "by"}
        and keys.keys() & _RULE_KEYS
    ):
        own = given.pop("values") or {}  # measurements over a rule: the rule stays for all the other names
        if given.get("over", keys["over"]) != keys["over"]:
            values = {}
        return _Draft(keys | given, values | _flatten(own), table.catalog)
    if chosen:
        mine = schema.RECIPES[chosen[0]]
        keys = {k: v for k, v in keys.items() if k in mine or k in _PLAIN_KEYS}
        if "values" not in mine or "each" in given:  # every entry is given anew
            keys.pop("by", None)
            values = {}
    if given.get("over", keys.get("over")) != keys.get("over"):
        values = {}
    keys |= given
    return _Draft(keys, values | _flatten(given.get("values") or {}), table.catalog)


def _flatten(values: Mapping[str, Any], before: Names = ()) -> dict[Names, schema.EntryTable]:
    flat: dict[Names, schema.EntryTable] = {}
    for name, value in values.items():
        if isinstance(value, schema.EntryTable):
            flat[*before, name] = value
        else:
            flat |= _flatten(value, (*before, name))
    return flat


def _prune(name: str, draft: _Draft, merged: _Merged, layer: schema.CatalogFile, path: Path) -> None:
    """Drop inherited values of names that are no longer in the sets; names that the file itself uses must be known."""
    over = draft.keys.get("over")
    if over is None:
        raise InputError(path, f"quantity.{name}.over", "this key, which is missing")
    if over != [a for a in AXES if a in over]:
        raise InputError(path, f"quantity.{name}.over", f"distinct axes in the order {', '.join(AXES)}", over)
    by = draft.keys.get("by")
    if by is not None and len(over) != 1:
        raise InputError(path, f"quantity.{name}.by", "a quantity over exactly one axis", over)
    known: list[Iterable[str]] = [merged.sets[a] for a in over]
    if by is not None:
        labels = merged.attributes[over[0]]
        known = [{labels[n][by] for n in merged.sets[over[0]] if by in labels.get(n, {})}]
    for names in list(draft.values):
        entry = draft.values[names]
        own = entry.catalog == layer.catalog.name
        at = f"quantity.{name}.values"
        if len(names) != len(over):
            axes = f"one name for each of {', '.join(over)}" if over else "each instead, for one number"
            raise InputError(path, at, axes, ".".join(names))
        for n, admitted in zip(names, known, strict=True):
            if n not in admitted:
                if own:
                    _check_known(n, admitted, path, at)
                draft.values.pop(names, None)


def _check_known(name: str, known: Iterable[str], path: Path, at: str) -> str:
    if name not in known:
        raise InputError(path, at, f"one of {', '.join(sorted(known))}{nearest(name, known)}", name)
    return name


def _make_quantity(name: str, draft: _Draft, merged: _Merged, path: Path) -> Quantity:
    at = f"quantity.{name}"
    for key in ("unit", "source"):
        if draft.keys.get(key) is None:
            raise InputError(path, f"{at}.{key}", "this key, which is missing")
    recipe = _make_recipe(draft, path, at)
    q = Quantity(
        name=name,
        over=tuple(draft.keys["over"]),
        unit=draft.keys["unit"],
        recipe=recipe,
        source=draft.keys["source"],
        reliability=draft.keys.get("reliability"),
        note=draft.keys.get("note") or "",
        catalog=draft.catalog,
        basis=draft.keys.get("basis"),
    )
    if isinstance(recipe, Draws):
        _check_complete(q, recipe, merged, path)
    for other in operands(recipe):
        if other not in merged.drafts:
            raise InputError(path, at, f"the name of a quantity{nearest(other, merged.drafts)}", other)
        extra = [a for a in merged.drafts[other].keys["over"] if a not in q.over]
        if extra:
            raise InputError(path, f"{at}.over", f"{', '.join(extra)} too, as {other} has", list(q.over))
    return q


def _make_recipe(draft: _Draft, path: Path, at: str) -> Recipe:
    keys = draft.keys

    def entry(table: schema.EntryTable) -> Entry:
        return Entry(
            distribution=table.distribution(),
            source=keys["source"] if table.source is None else table.source,
            reliability=keys.get("reliability") if table.reliability is None else table.reliability,
            note=(keys.get("note") or "") if table.note is None else table.note,
            catalog=table.catalog,
            basis=keys.get("basis") if table.basis is None else table.basis,
            together=table.together,
            at_curve=bool(table.at_curve),
        )

    def need(key: str) -> Any:
        if keys.get(key) is None:
            raise InputError(path, f"{at}.{key}", "this key, which is missing")
        return keys[key]

    values = {n: entry(e) for n, e in draft.values.items()}
    if any(keys.get(k) is not None for k in schema.RECIPES["each or values"]):
        each = keys.get("each")
        return Draws(None if each is None else entry(each), values, keys.get("by"))
    rule = _make_rule(keys, entry, need, path, at)
    return Patched(rule, values) if values else rule


def _make_rule(
    keys: Mapping[str, Any],
    entry: Callable[[schema.EntryTable], Entry],
    need: Callable[[str], Any],
    path: Path,
    at: str,
) -> Rule:
    """Make the rule that the keys state; ``need`` returns a key's value or refuses the file."""
    if keys.get("multiply") is not None or keys.get("divide") is not None:
        return Product(tuple(keys.get("multiply") or ()), tuple(keys.get("divide") or ()))
    if keys.get("level_of") is not None or keys.get("cuts") is not None:
        return Level(need("level_of"), tuple(need("cuts")))
    if any(keys.get(k) is not None for k in schema.RECIPES["sum"]):
        clip = keys.get("clip") or (-math.inf, math.inf)
        return WeightedSum(tuple(need("sum").items()), keys.get("divisor") or 1.0, (clip[0], clip[1]))
    if keys.get("class_of") is not None or keys.get("classes") is not None:
        classes = need("classes")
        bounds = tuple(c.below for c in classes if c.below is not None)
        return Classes(need("class_of"), bounds, tuple(entry(c) for c in classes))
    raise InputError(path, at, f"one of {'; '.join(schema.RECIPES)}")


def _check_complete(q: Quantity, recipe: Draws, merged: _Merged, path: Path) -> None:
    at = f"quantity.{q.name}"
    if recipe.by is not None:
        for name in merged.sets[q.over[0]]:
            if recipe.by not in merged.attributes[q.over[0]].get(name, {}):
                expected = f"this attribute, which {at}.by needs"
                raise InputError(path, f"attributes.{q.over[0]}.{name}.{recipe.by}", expected)
    if recipe.each is None:
        wanted: Iterable[Names] = [()]
        for axis in q.over:
            names = merged.sets[axis]
            if recipe.by is not None:
                names = tuple(merged.attributes[axis][n][recipe.by] for n in names)
            wanted = [(*before, n) for before in wanted for n in names]
        for names in wanted:
            if names not in recipe.values:
                field_path = ".".join((at, "values", *names)) if names else f"{at}.each"
                raise InputError(path, field_path, "this value, which is missing")


def _sort_by_dependency(quantities: dict[str, Quantity], path: Path) -> dict[str, Quantity]:
    """Put each quantity after those it reads, otherwise in the order of the files."""
    done: dict[str, Quantity] = {}
    for root in quantities:
        trail: list[str] = [root]
        while trail:
            name = trail[-1]
            waiting = next((o for o in operands(quantities[name].recipe) if o not in done), None)
            if name in done or waiting is None:
                done.setdefault(name, quantities[name])
                trail.pop()
            elif waiting in trail:
                circle = " reads ".join([*trail[trail.index(waiting) :], waiting])
                raise InputError(
                    path,
                    f"quantity.{name}",
                    "quantities that do not read themselves",
                    circle,
                )
            else:
                trail.append(waiting)
    return done
