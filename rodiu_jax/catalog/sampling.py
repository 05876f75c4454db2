"""Scenarios drawn from a catalogue on the device; scenario b is the same whatever else is drawn with it.

Every random number has its own key, made from names alone: fold the scenario's index into the seed's key,
then the hash of the quantity's name, then that of the name along each of its axes (threefry as a keyed hash).
Adding a GPU, reordering names, another chunk or a longer run therefore change no other number, and two
catalogues share their draws (common random numbers).

Cost of one default scenario: about 1,000 threefry blocks of 120 integer operations and 13 KB written.
"""

from __future__ import annotations

import math
import operator
import weakref
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.scipy.special import ndtri
from jaxtyping import Float64, Int64, UInt32

from rodiu_jax.catalog import Catalog, load_catalog
from rodiu_jax.catalog.draw_program import KINDS, Params, Program, Step, make_program
from rodiu_jax.errors import InputError
from rodiu_jax.model.fields import FIELD_SPECS, FILE_FIELDS, Fields, absent_fields
from rodiu_jax.model.instance import Instances, check_uncertainty, number_devices
from rodiu_jax.runtime.block_sizes import BlockSize, block_size
from rodiu_jax.runtime.blocks import RUNNER
from rodiu_jax.runtime.devices import devices
from rodiu_jax.runtime.kept_programs import kept_program
from rodiu_jax.runtime.threefry import fold, hash32

_TOGETHER = hash32("drawn together")
"""Stands in the place of a quantity's name in the keys of what is drawn together."""

_MOST_SCENARIOS = 2**32  # an index is one 32-bit word of the key


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
    words = np.array([seed >> 32, seed & 0xFFFFFFFF], dtype=np.uint32)
    with jax.enable_x64(True):
        program, params = _prepare(catalog, tuple(varying))

        def take(rows: Int64[np.ndarray, " C"]) -> tuple[Params, np.ndarray, np.ndarray]:
            return params, words, (start + rows).astype(np.uint32)

        drawn = RUNNER.run(_draw, take, n, _block_size(catalog, varying, n), program=program)
    for array in drawn:
        assert array.dtype == np.float64, "draws are float64 on every device"
    return values | dict(zip(varying, drawn, strict=True))


_PREPARED: dict[int, dict[Any, tuple[Program, Params]]] = {}
"""Programs and the numbers they use, on a device: by catalogue (its ``id``), then by what is drawn and the device."""


def _prepare(catalog: Catalog, varying: tuple[str, ...]) -> tuple[Program, Params]:
    """Make the program of the quantities ``varying``, once for a catalogue: it takes as long as drawing hundreds."""
    if id(catalog) not in _PREPARED:
        _PREPARED[id(catalog)] = {}
        weakref.finalize(catalog, _PREPARED.pop, id(catalog), None)
    prepared = _PREPARED[id(catalog)]
    key = varying, devices()[0]
    if key not in prepared:
        program, params = make_program(catalog, varying)
        prepared[key] = program, jax.device_put(params, devices()[0])
    return prepared[key]


def _whole(value: Any, name: str, low: int, high: int) -> int:
    expected = f"a whole number from {low} to {high}"
    try:
        number = operator.index(value)
    except TypeError:
        raise InputError("sample", name, expected, value) from None
    if isinstance(value, bool) or not low <= number <= high:
        raise InputError("sample", name, expected, value)
    return number


def _block_size(catalog: Catalog, names: Sequence[str], n: int) -> BlockSize:
    """Scenarios in a block of a draw of ``n``: as many as the bytes of the table allow."""
    scenario = 8 * sum(math.prod(catalog.shape(name)) for name in names)
    return block_size("draw", bytes_per_row=scenario, count=n)


@kept_program("program")
def _draw(
    params: dict[str, Any], seed: UInt32[Array, 2], scenario: UInt32[Array, " C"], *, program: Program
) -> tuple[Float64[Array, "C ..."], ...]:
    """Each output of the scenarios numbered ``scenario``, batch axis first."""
    keys = fold(seed[0], seed[1], scenario)
    bits = _bits(params, keys, program)
    values: list[Array] = []
    for s, (step, numbers) in enumerate(zip(program.steps, params["steps"], strict=True)):
        operand = [_spread(values[r], program.steps[r].axes, step.axes) for r in step.reads]
        value = _apply(step, numbers, operand, bits.get(s))
        lengths = [len(params["axes"][a]) for a in step.axes]
        values.append(jnp.broadcast_to(value, (len(value), *lengths)))
    return tuple(values[s] for s in program.outputs)


def _bits(params: dict[str, Any], keys: tuple[Array, Array], program: Program) -> dict[int, Array]:
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
        # The axis folded last is the first of the array, and the batch the last.
        found |= {s: pair[0][..., g, :].T for g, s in enumerate(members)}
    if program.together:
        # Keyed by the group alone: the same position in every choice of the group, whatever quantity it is of.
        shared = fold(*fold(keys[0][None], keys[1][None], np.uint32(_TOGETHER)), params["groups"][:, None])[0]
        for s, numbers in enumerate(params["steps"]):
            if "group" in numbers:
                group = numbers["group"]
                found[s] = jnp.where(group[None] >= 0, shared.T[:, jnp.maximum(group, 0)], found[s])
    return found


def _children(parent: tuple[Array, Array], words: Array) -> tuple[Array, Array]:
    """Fold each word into every parent; a new first axis runs over the words.

    A loop, because XLA on CPU drops optimisation barriers and would fold each parent again for each child.
    """
    return lax.scan(lambda carry, word: (carry, fold(*parent, word)), None, words)[1]


def _spread(value: Array, own: tuple[int, ...], axes: tuple[int, ...]) -> Array:
    """An operand's array with an axis of length 1 for each axis that it lacks."""
    missing = tuple(1 + a for a, axis in enumerate(axes) if axis not in own)
    return jnp.expand_dims(value, missing)


def _apply(step: Step, params: Params, operand: list[Array], bits: Array | None) -> Array:
    if step.patch_kinds:
        assert bits is not None
        patch = {k: v if k == "table" else v[None] for k, v in params["patch"].items() if k != "mask"}
        plain = {k: v for k, v in params.items() if k != "patch"}
        rule = _apply(replace(step, patch_kinds=()), plain, operand, bits if step.kinds else None)
        return jnp.where(params["patch"]["mask"][None], _transform(step.patch_kinds, patch, bits), rule)
    match step.rule:
        case "shared":
            return params["value"][None]
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
    plain = {k: v if k == "table" else v[None] for k, v in params.items() if k != "group"}
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
        value = jnp.where(params["kind"] == list(KINDS).index(kind), found[kind], value)
    return value
