"""Scenarios drawn from a catalogue on the device; scenario b is the same whatever else is drawn with it.

Every random number has its own key, made from names alone: fold the scenario's index into the seed's key,
then the hash of the quantity's name, then that of the name along each of its axes (threefry as a keyed hash).
Adding a GPU, reordering names, another chunk or a longer run therefore change no other number, and two
catalogues share their draws (common random numbers).

Cost of one default scenario: about 1,000 threefry blocks of 120 integer operations and 13 KB written.
"""

from __future__ import annotations

import operator
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.scipy.special import ndtri
from jaxtyping import Float64, Int64, UInt32

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
    load_catalog,
)
from rodiu_jax.catalog.recipes import operands
from rodiu_jax.errors import InputError
from rodiu_jax.model.fields import FIELD_SPECS, FILE_FIELDS, Fields, absent_fields
from rodiu_jax.model.instance import Instances, check_uncertainty, number_devices
from rodiu_jax.runtime.block_sizes import BlockSize, block_size
from rodiu_jax.runtime.blocks import RUNNER
from rodiu_jax.runtime.threefry import fold, hash32

_KINDS = {
    "affine": (),
    "log_uniform": ("least", "most"),
    "normal": ("least", "most", "mean", "sd"),
    "choice": ("first",),
}
"""Kinds of draws (a fixed value is affine with slope 0) and their parameters besides base and slope."""
_TOGETHER = hash32("drawn together")
"""Stands in the place of a quantity's name in the keys of what is drawn together."""

_MOST_SCENARIOS = 2**32  # an index is one 32-bit word of the key

Params = dict[str, Any]


def sample(
    catalog: Catalog | str | Path = "seed",
    *,
    n: int,
    seed: int = 0,
    uncertainty: str = "ddu",
    start: int = 0,
) -> Instances:
    """Draw scenarios ``start`` to ``start + n - 1``; a field that no draw touches comes without batch axis.

    Args:
      catalog: a catalogue, its name, or its file.
      seed: from 0 to 2**63 - 1; with the index it determines a scenario.
      uncertainty: ``none``, ``diu`` or ``ddu``, passed on to the instances.

    Raises:
      InputError: a bad catalogue or argument; two names with the same hash.

    Source: MODEL sections 1 and 7.
    """
    mode = check_uncertainty(uncertainty, "uncertainty")
    catalog = catalog if isinstance(catalog, Catalog) else load_catalog(catalog)
    wanted = [name for name in FILE_FIELDS if name in catalog.quantities]
    values: dict[str, Any] = absent_fields() | dict(_values(catalog, wanted, n, seed, start))
    values["tp_degree"] = np.array(catalog.sets["tp"], dtype=np.int64)
    for name, spec in FIELD_SPECS.items():
        if spec.integer:
            values[name] = values[name].astype(np.int64)
    if "gpu_quota" in wanted:
        values["gpu_device"] = number_devices(catalog.gpu_devices)
    # Not validated again: loading the catalogue showed from the ranges that every value is admissible.
    names = (catalog.sets["query"], catalog.sets["model"], catalog.sets["gpu"])
    instances = Instances(*names, mode, Fields(**values), catalog.gpu_devices)
    return instances if instances.batched else instances.take(np.zeros(n, np.int64))


def sample_quantities(
    catalog: Catalog,
    names: Collection[str] | None = None,
    *,
    n: int,
    seed: int = 0,
    start: int = 0,
) -> dict[str, Float64[np.ndarray, "*_"]]:
    """Values of quantities (all by default), float64, over their axes; with a leading n where they are drawn.

    Arguments and errors as in `sample`.
    """
    wanted = list(catalog.quantities if names is None else names)
    values = _values(catalog, wanted, n, seed, start)
    return {name: values[name] for name in wanted}


def _values(
    catalog: Catalog, wanted: Sequence[str], n: int, seed: int, start: int
) -> dict[str, Float64[np.ndarray, "*_"]]:
    """The quantities ``wanted``: those that are drawn with a leading axis n, the fixed ones without."""
    n = _whole(n, "n", 1, _MOST_SCENARIOS)
    seed = _whole(seed, "seed", 0, 2**63 - 1)
    start = _whole(start, "start", 0, _MOST_SCENARIOS - n)
    for name in wanted:
        if name not in catalog.quantities:
            raise InputError("sample", "names", f"one of {', '.join(catalog.quantities)}", name)
    values = {name: catalog.fixed(name).copy() for name in wanted if name not in catalog.varying}
    varying = [name for name in wanted if name in catalog.varying]
    if not varying:
        return values
    program, params = _compiled(catalog, varying)
    words = np.array([seed >> 32, seed & 0xFFFFFFFF], dtype=np.uint32)
    with jax.enable_x64(True):
        params = jax.device_put(params)

        def take(rows: Int64[np.ndarray, " C"]) -> tuple[Params, np.ndarray, np.ndarray]:
            return params, words, (start + rows).astype(np.uint32)

        drawn = RUNNER.run(_draw, take, n, _block_size(catalog, varying), program=program)
    for array in drawn:
        assert array.dtype == np.float64, "draws are float64 on every device"
    return values | dict(zip(varying, drawn, strict=True))


def _whole(value: Any, name: str, low: int, high: int) -> int:
    expected = f"a whole number from {low} to {high}"
    try:
        number = operator.index(value)
    except TypeError:
        raise InputError("sample", name, expected, value) from None
    if isinstance(value, bool) or not low <= number <= high:
        raise InputError("sample", name, expected, value)
    return number


@dataclass(frozen=True)
class _Step:
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
class _Program:
    """The structure of a catalogue's draws, all that the compiler sees of it: no names and no numbers.

    ``together``: some entries share their draws by group.
    """

    steps: tuple[_Step, ...]
    outputs: tuple[int, ...]
    together: bool = False


def _hashes(names: Sequence[str], what: str, source: Path) -> np.ndarray:
    """Hashes of distinct names; two with the same hash would share their draws."""
    seen: dict[int, str] = {}
    for name in names:
        if seen.setdefault(hash32(name), name) != name:
            raise InputError(source, what, f"another name: its hash is that of {seen[hash32(name)]}", name)
    return np.array([hash32(name) for name in names], dtype=np.uint32)


def _compiled(catalog: Catalog, wanted: Sequence[str]) -> tuple[_Program, dict[str, Any]]:
    """The steps for the quantities ``wanted`` and what they read, and the numbers that they use."""
    needed = set(wanted)
    for name in reversed(list(catalog.quantities)):
        if name in needed and name in catalog.varying:
            needed |= set(operands(catalog.quantities[name].recipe))
    names = tuple(name for name in catalog.quantities if name in needed)
    position = {name: s for s, name in enumerate(names)}
    steps, params = [], []
    groups = {name: _groups(catalog, name) for name in names}
    known = sorted({g for cells in groups.values() for g in cells if g is not None})
    for name in names:
        step, numbers = _step(catalog, catalog.quantities[name], position)
        if any(g is not None for g in groups[name]):
            shared = [-1 if g is None else known.index(g) for g in groups[name]]
            numbers["group"] = np.array(shared, dtype=np.int32).reshape(catalog.shape(name))
        steps.append(step)
        params.append(numbers)
    axis_hashes = [
        _hashes(catalog.sets[a], f"sets.{a}", catalog.path) for a in ("query", "model", "gpu", "tp")
    ]
    all_hashes = dict(
        zip(catalog.quantities, _hashes(list(catalog.quantities), "quantity", catalog.path), strict=True)
    )
    quantity_hashes = np.array([all_hashes[name] for name in names], dtype=np.uint32)
    program = _Program(tuple(steps), tuple(position[name] for name in wanted), bool(known))
    made: dict[str, Any] = {"steps": params, "axes": axis_hashes, "quantities": quantity_hashes}
    if known:
        made["groups"] = _hashes(known, "together", catalog.path)
    return program, made


def _groups(catalog: Catalog, name: str) -> list[str | None]:
    """The group with which each entry of a quantity is drawn, in the order of the array."""
    if name not in catalog.varying:
        return []
    entries = [catalog.find_entry(name, names) for names in catalog.names(name)]
    return [None if e is None else e.together for e in entries]


def _step(catalog: Catalog, q: Quantity, position: dict[str, int]) -> tuple[_Step, Params]:
    axes = tuple(("query", "model", "gpu", "tp").index(a) for a in q.over)
    if q.name not in catalog.varying:
        return _Step("shared", axes), {"value": catalog.fixed(q.name)}
    reads = tuple(position[o] for o in operands(q.recipe))
    match q.recipe:
        case Draws():
            drawn = [e.distribution for e in catalog.entries(q.name)]
            return _draw_step("draw", axes, (), drawn, catalog.shape(q.name))
        case Classes(of, bounds, entries):
            drawn = [e.distribution for e in entries]
            if of in catalog.varying:
                step, params = _draw_step("classes", axes, reads, drawn, (len(drawn),))
                return step, params | {"cuts": np.array(bounds)}
            score = np.broadcast_to(catalog.aligned(catalog.fixed(of), of, q.over), catalog.shape(q.name))
            chosen = [drawn[sum(s >= b for b in bounds)] for s in score.ravel()]
            return _draw_step("draw", axes, (), chosen, catalog.shape(q.name))
        case Patched():
            return _patched_step(catalog, q, position)
        case Product(divide=divide):
            return _Step("product", axes, reads, divides=len(divide)), {}
        case Level(cuts=cuts):
            return _Step("level", axes, reads), {"cuts": np.array(cuts)}
        case WeightedSum(terms, divisor, clip):
            weights = np.array([w for _, w in terms])
            return _Step("sum", axes, reads), {"weights": weights, "divisor": divisor, "clip": np.array(clip)}


def _patched_step(catalog: Catalog, q: Quantity, position: dict[str, int]) -> tuple[_Step, Params]:
    """A rule's step, and draws in its place for some names. A rule that no draw touches is its values."""
    assert isinstance(q.recipe, Patched)
    rule = replace(q, recipe=q.recipe.rule)
    axes = tuple(("query", "model", "gpu", "tp").index(a) for a in q.over)
    low, high = catalog.rule_range(q.name)
    own = isinstance(rule.recipe, Classes) and any(e.distribution.varies for e in rule.recipe.entries)
    if own or any(o in catalog.varying for o in operands(rule.recipe)):
        step, params = _step(catalog, rule, position)
    else:
        assert (low == high).all(), "nothing that is drawn is read"
        step, params = _Step("shared", axes), {"value": low.copy()}
    given = [q.recipe.values.get(names) for names in catalog.names(q.name)]
    drawn = [Distribution("fixed", (0.0,)) if e is None else e.distribution for e in given]
    patch, numbers = _draw_step("draw", axes, (), drawn, catalog.shape(q.name))
    mask = np.array([e is not None for e in given]).reshape(catalog.shape(q.name))
    return replace(step, patch_kinds=patch.kinds), params | {"patch": numbers | {"mask": mask}}


def _draw_step(
    rule: str,
    axes: tuple[int, ...],
    reads: tuple[int, ...],
    drawn: list[Distribution],
    shape: tuple[int, ...],
) -> tuple[_Step, Params]:
    """Parameters of a block of draws: see `_transform`, which undoes this packing."""
    table: list[float] = []
    packed = {distribution: _packed(distribution, table) for distribution in dict.fromkeys(drawn)}
    rows = [packed[distribution] for distribution in drawn]
    kinds = tuple(k for c, k in enumerate(_KINDS) if any(row["kind"] == c for row in rows))
    used = ["base", "slope"] + ["kind"] * (len(kinds) > 1)
    used += [k for kind in kinds for k in _KINDS[kind]]
    params: Params = {k: np.array([row[k] for row in rows]).reshape(shape) for k in used}
    if "choice" in kinds:
        params["table"] = np.array(table)
    return _Step(rule, axes, reads, kinds=kinds), params


def _packed(distribution: Distribution, table: list[float]) -> dict[str, float | int]:
    """One distribution as numbers: a base and a slope for the uniform u, and what its kind needs besides."""
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
            row["slope"] = _round_down(high - low)
        case "log_uniform":
            row |= {
                "kind": 1,
                "base": float(np.log(low)),
                "slope": _round_down(float(np.log(high) - np.log(low))),
            }
        case "normal":
            sd, below, inside = distribution.tail_masses()
            row |= {"kind": 2, "base": below, "slope": _round_down(inside), "mean": distribution.numbers[0]}
            row["sd"] = float(np.copysign(_round_down(abs(sd), bits=29), sd))
        case "choice":
            row |= {"kind": 3, "base": 0.0, "slope": float(len(distribution.numbers)), "first": len(table)}
            table.extend(distribution.numbers)
    return row


def _round_down(width: float, bits: int = 24) -> float:
    """The largest number <= width with this many significant bits."""
    mantissa, exponent = np.frexp(width)
    return float(np.ldexp(np.floor(np.ldexp(mantissa, bits)), exponent - bits))


def _block_size(catalog: Catalog, names: Sequence[str]) -> BlockSize:
    """Scenarios in a block: the largest power of two whose results fit the bytes of the table."""
    scenario = 8 * sum(int(np.prod(catalog.shape(name))) for name in names)
    return block_size("draw", bytes_per_row=scenario)


@partial(jax.jit, static_argnames=("program",))
def _draw(
    params: dict[str, Any], seed: UInt32[Array, 2], scenario: UInt32[Array, " C"], *, program: _Program
) -> tuple[Float64[Array, "C ..."], ...]:
    """Each output of the scenarios numbered ``scenario``, batch axis first.

    Inside, the batch is the last axis: few names (10 GPUs) would fill vector registers badly.
    """
    keys = fold(seed[0], seed[1], scenario)
    bits = _bits(params, keys, program)
    values: list[Array] = []
    for s, (step, numbers) in enumerate(zip(program.steps, params["steps"], strict=True)):
        operand = [_spread(values[r], program.steps[r].axes, step.axes) for r in step.reads]
        value = _apply(step, numbers, operand, bits.get(s))
        values.append(
            jnp.broadcast_to(value, (*(len(params["axes"][a]) for a in step.axes), value.shape[-1]))
        )
    return tuple(jnp.moveaxis(values[s], -1, 0) for s in program.outputs)


def _bits(params: dict[str, Any], keys: tuple[Array, Array], program: _Program) -> dict[int, Array]:
    """32 random bits per drawn entry, by step: quantities over the same axes are folded together."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for s, step in enumerate(program.steps):
        if step.kinds or step.patch_kinds:
            groups.setdefault(step.axes, []).append(s)
    found: dict[int, Array] = {}
    parents = fold(keys[0][None], keys[1][None], params["quantities"][:, None])
    for axes, members in groups.items():
        pair = (parents[0][np.array(members)], parents[1][np.array(members)])
        for axis in axes:
            pair = _children(pair, params["axes"][axis])
        order = (*reversed(range(len(axes))), len(axes))  # the last axis folded is the first of the array
        found |= {s: pair[0][..., g, :].transpose(order) for g, s in enumerate(members)}
    if program.together:
        # Keyed by the group alone: the same position in every choice of the group, whatever quantity it is of.
        shared = fold(*fold(keys[0][None], keys[1][None], np.uint32(_TOGETHER)), params["groups"][:, None])[0]
        for s, numbers in enumerate(params["steps"]):
            if "group" in numbers:
                group = numbers["group"]
                found[s] = jnp.where(group[..., None] >= 0, shared[jnp.maximum(group, 0)], found[s])
    return found


def _children(parent: tuple[Array, Array], words: Array) -> tuple[Array, Array]:
    """Fold each word into every parent; a new first axis runs over the words.

    A loop, because XLA on CPU drops optimisation barriers and would fold each parent again for each child.
    """
    return lax.scan(lambda carry, word: (carry, fold(*parent, word)), None, words)[1]


def _spread(value: Array, own: tuple[int, ...], axes: tuple[int, ...]) -> Array:
    """An operand's array with an axis of length 1 for each axis that it lacks."""
    missing = tuple(a for a, axis in enumerate(axes) if axis not in own)
    return jnp.expand_dims(value, missing)


def _apply(step: _Step, params: Params, operand: list[Array], bits: Array | None) -> Array:
    if step.patch_kinds:
        assert bits is not None
        patch = {k: v if k == "table" else v[..., None] for k, v in params["patch"].items() if k != "mask"}
        plain = {k: v for k, v in params.items() if k != "patch"}
        rule = _apply(replace(step, patch_kinds=()), plain, operand, bits if step.kinds else None)
        return jnp.where(params["patch"]["mask"][..., None], _transform(step.patch_kinds, patch, bits), rule)
    match step.rule:
        case "shared":
            return params["value"][..., None]
        case "product":
            plain = len(operand) - step.divides
            value = operand[0] if plain else 1.0 / operand[0]
            for o in operand[1:plain]:
                value = value * o
            for o in operand[max(plain, 1) :]:
                value = value / o
            return value
        case "sum":
            terms = [params["weights"][t] * o for t, o in enumerate(operand)]
            return jnp.clip(
                sum(terms[1:], terms[0]) / params["divisor"], params["clip"][0], params["clip"][1]
            )
        case "level":
            return _count(operand[0], params["cuts"]).astype(operand[0].dtype)
        case "classes":
            assert bits is not None
            chosen = jnp.broadcast_to(_count(operand[0], params["cuts"]), bits.shape)
            own = {
                k: v if k == "table" else v[chosen] for k, v in params.items() if k not in ("cuts", "group")
            }
            return _transform(step.kinds, own, bits)
    assert bits is not None
    plain = {k: v if k == "table" else v[..., None] for k, v in params.items() if k != "group"}
    return _transform(step.kinds, plain, bits)


def _count(value: Array, cuts: Array) -> Array:
    """How many cuts are <= value."""
    none = jnp.zeros(value.shape, jnp.int32)
    return sum(((value >= cuts[c]).astype(jnp.int32) for c in range(cuts.shape[0])), none)


def _transform(kinds: tuple[str, ...], params: Params, bits: Array) -> Array:
    """32 random bits to a draw of each entry's distribution.

    u is a multiple of 2^-29 and every slope has 24 significant bits, so slope * u is exact in float64 and
    base + slope * u is rounded once, whether or not the compiler fuses the two: alike on every device.
    """
    u = (bits >> np.uint32(3)).astype(jnp.float64) * 2.0**-29
    t = params["base"] + params["slope"] * u
    found: dict[str, Array] = {}
    for kind in kinds:
        match kind:
            case "affine":
                found[kind] = t
            case "log_uniform":
                # Libraries differ in the last bits of exp and ndtri: 32 and 24 bits are kept of them.
                value = lax.reduce_precision(jnp.exp(t), 11, 31)
                found[kind] = jnp.clip(value, params["least"], params["most"])
            case "normal":
                score = lax.reduce_precision(ndtri(t), 11, 23)
                found[kind] = jnp.clip(params["mean"] + params["sd"] * score, params["least"], params["most"])
            case "choice":
                found[kind] = params["table"][params["first"] + jnp.floor(t).astype(params["first"].dtype)]
    value = found[kinds[0]]
    for kind in kinds[1:]:
        value = jnp.where(params["kind"] == list(_KINDS).index(kind), found[kind], value)
    return value
