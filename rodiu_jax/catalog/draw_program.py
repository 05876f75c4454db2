"""What is drawn from a catalogue as a program: the structure that the compiler sees, and the numbers that it is given.

Two catalogues of the same structure share one compiled program (`rodiu_jax.catalog.sampling` runs it).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from rodiu_jax.catalog import (
    Catalog,
    Classes,
    Distribution,
    Draws,
    Level,
    Patched,
    Product,
    Quantity,
    WeightedSum,
)
from rodiu_jax.catalog.recipes import operands
from rodiu_jax.errors import InputError
from rodiu_jax.runtime.threefry import hash32

KINDS = {
    "affine": (),
    "log_uniform": ("least", "most"),
    "normal": ("least", "most", "mean", "sd"),
    "choice": ("first",),
}
"""Kinds of draws (a fixed value is affine with slope 0) and their parameters besides base and slope."""

Params = dict[str, Any]


@dataclass(frozen=True)
class Step:
    """What is done for one quantity; numbers are in the parameters, so that a changed value compiles nothing.

    ``axes`` are positions in (query, model, gpu, tp), ``reads`` earlier steps by position, of which the last
    ``divides`` are divisors. ``kinds`` are the kinds of distributions used (none where nothing is drawn),
    ``patch_kinds`` those of the draws that stand in a rule's place for some names.
    """

    rule: str
    axes: tuple[int, ...]
    reads: tuple[int, ...] = ()
    divides: int = 0
    kinds: tuple[str, ...] = ()
    patch_kinds: tuple[str, ...] = ()


@dataclass(frozen=True)
class Program:
    """The structure of a catalogue's draws, all that the compiler sees of it: no names and no numbers.

    ``together``: some entries share their draws by group.
    """

    steps: tuple[Step, ...]
    outputs: tuple[int, ...]
    together: bool = False


def _hash_names(names: Sequence[str], what: str, source: Path) -> np.ndarray:
    """Hash distinct names; two with the same hash would share their draws."""
    seen: dict[int, str] = {}
    for name in names:
        if seen.setdefault(hash32(name), name) != name:
            raise InputError(source, what, f"another name: its hash is that of {seen[hash32(name)]}", name)
    return np.array([hash32(name) for name in names], dtype=np.uint32)


def make_program(catalog: Catalog, wanted: Sequence[str]) -> tuple[Program, dict[str, Any]]:
    """Make the steps for the quantities ``wanted`` and what they read, and the numbers that they use.

    Raises:
      InputError: two names with the same hash.
    """
    needed = set(wanted)
    for name in reversed(list(catalog.quantities)):
        if name in needed and name in catalog.varying:
            needed |= set(operands(catalog.quantities[name].recipe))
    names = tuple(name for name in catalog.quantities if name in needed)
    position = {name: s for s, name in enumerate(names)}
    steps, params = [], []
    groups = {name: _list_groups(catalog, name) for name in names}
    known = sorted({g for cells in groups.values() for g in cells if g is not None})
    for name in names:
        step, numbers = _make_step(catalog, catalog.quantities[name], position)
        if any(g is not None for g in groups[name]):
            shared = [-1 if g is None else known.index(g) for g in groups[name]]
            numbers["group"] = np.array(shared, dtype=np.int32).reshape(catalog.shape(name))
        steps.append(step)
        params.append(numbers)
    axis_hashes = [
        _hash_names(catalog.sets[a], f"sets.{a}", catalog.path) for a in ("query", "model", "gpu", "tp")
    ]
    all_hashes = dict(
        zip(catalog.quantities, _hash_names(list(catalog.quantities), "quantity", catalog.path), strict=True)
    )
    quantity_hashes = np.array([all_hashes[name] for name in names], dtype=np.uint32)
    program = Program(tuple(steps), tuple(position[name] for name in wanted), bool(known))
    made: dict[str, Any] = {"steps": params, "axes": axis_hashes, "quantities": quantity_hashes}
    if known:
        made["groups"] = _hash_names(known, "together", catalog.path)
    return program, made


def _list_groups(catalog: Catalog, name: str) -> list[str | None]:
    """List the group with which each entry of a quantity is drawn, in the order of the array."""
    if name not in catalog.varying:
        return []
    entries = [catalog.find_entry(name, names) for names in catalog.names(name)]
    return [None if e is None else e.together for e in entries]


def _make_step(catalog: Catalog, q: Quantity, position: dict[str, int]) -> tuple[Step, Params]:
    axes = tuple(("query", "model", "gpu", "tp").index(a) for a in q.over)
    if q.name not in catalog.varying:
        return Step("shared", axes), {"value": catalog.fixed(q.name)}
    reads = tuple(position[o] for o in operands(q.recipe))
    match q.recipe:
        case Draws():
            drawn = [e.distribution for e in catalog.entries(q.name)]
            return _make_draw_step("draw", axes, (), drawn, catalog.shape(q.name))
        case Classes(of, bounds, entries):
            drawn = [e.distribution for e in entries]
            if of in catalog.varying:
                step, params = _make_draw_step("classes", axes, reads, drawn, (len(drawn),))
                return step, params | {"cuts": np.array(bounds)}
            score = np.broadcast_to(catalog.aligned(catalog.fixed(of), of, q.over), catalog.shape(q.name))
            chosen = [drawn[sum(s >= b for b in bounds)] for s in score.ravel()]
            return _make_draw_step("draw", axes, (), chosen, catalog.shape(q.name))
        case Patched():
            return _make_patched_step(catalog, q, position)
        case Product(divide=divide):
            return Step("product", axes, reads, divides=len(divide)), {}
        case Level(cuts=cuts):
            return Step("level", axes, reads), {"cuts": np.array(cuts)}
        case WeightedSum(terms, divisor, clip):
            weights = np.array([w for _, w in terms])
            return Step("sum", axes, reads), {"weights": weights, "divisor": divisor, "clip": np.array(clip)}


def _make_patched_step(catalog: Catalog, q: Quantity, position: dict[str, int]) -> tuple[Step, Params]:
    """Make a rule's step, and draws in its place for some names. A rule that no draw touches is its values."""
    assert isinstance(q.recipe, Patched)
    rule = replace(q, recipe=q.recipe.rule)
    axes = tuple(("query", "model", "gpu", "tp").index(a) for a in q.over)
    low, high = catalog.rule_range(q.name)
    own = isinstance(rule.recipe, Classes) and any(e.distribution.varies for e in rule.recipe.entries)
    if own or any(o in catalog.varying for o in operands(rule.recipe)):
        step, params = _make_step(catalog, rule, position)
    else:
        assert (low == high).all(), "nothing that is drawn is read"
        step, params = Step("shared", axes), {"value": low.copy()}
    given = [q.recipe.values.get(names) for names in catalog.names(q.name)]
    drawn = [Distribution("fixed", (0.0,)) if e is None else e.distribution for e in given]
    patch, numbers = _make_draw_step("draw", axes, (), drawn, catalog.shape(q.name))
    mask = np.array([e is not None for e in given]).reshape(catalog.shape(q.name))
    return replace(step, patch_kinds=patch.kinds), params | {"patch": numbers | {"mask": mask}}


def _make_draw_step(
    rule: str,
    axes: tuple[int, ...],
    reads: tuple[int, ...],
    drawn: list[Distribution],
    shape: tuple[int, ...],
) -> tuple[Step, Params]:
    """Make the parameters of a block of draws, which `rodiu_jax.catalog.sampling` unpacks."""
    table: list[float] = []
    packed = {distribution: _pack(distribution, table) for distribution in dict.fromkeys(drawn)}
    rows = [packed[distribution] for distribution in drawn]
    kinds = tuple(k for c, k in enumerate(KINDS) if any(row["kind"] == c for row in rows))
    used = ["base", "slope"] + ["kind"] * (len(kinds) > 1)
    used += [k for kind in kinds for k in KINDS[kind]]
    params: Params = {k: np.array([row[k] for row in rows]).reshape(shape) for k in used}
    if "choice" in kinds:
        params["table"] = np.array(table)
    return Step(rule, axes, reads, kinds=kinds), params


def _pack(distribution: Distribution, table: list[float]) -> dict[str, float | int]:
    """Write one distribution as numbers: a base and a slope for the uniform u, and what its kind needs besides."""
    low, high = distribution.range
    row: dict[str, float | int] = {
        "kind": 0,
        "base": low,
        "slope": 0.0,
        "least": low,
        "most": high,
        "mean": 0.0,
        "sd": 0.0,
        "first": 0,
    }
    match distribution.kind:
        case "uniform":
            row["slope"] = round_down(high - low)
        case "log_uniform":
            row |= {
                "kind": 1,
                "base": float(np.log(low)),
                "slope": round_down(float(np.log(high) - np.log(low))),
            }
        case "normal":
            sd, below, inside = distribution.tail_masses()
            row |= {"kind": 2, "base": below, "slope": round_down(inside), "mean": distribution.numbers[0]}
            row["sd"] = float(np.copysign(round_down(abs(sd), bits=29), sd))
        case "choice":
            row |= {"kind": 3, "base": 0.0, "slope": float(len(distribution.numbers)), "first": len(table)}
            table.extend(distribution.numbers)
    return row


def round_down(width: float, bits: int = 24) -> float:
    """Return the largest number <= width with this many significant bits."""
    mantissa, exponent = np.frexp(width)
    return float(np.ldexp(np.floor(np.ldexp(mantissa, bits)), exponent - bits))
