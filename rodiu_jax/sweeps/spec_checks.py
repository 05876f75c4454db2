"""What the keys of a spec must mean together: with the method, with the design, and with what can be drawn."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from rodiu_jax.catalog import Catalog
from rodiu_jax.catalog.promise_changes import apply_promise_changes
from rodiu_jax.catalog.promises import is_latency
from rodiu_jax.errors import InputError, nearest
from rodiu_jax.model.changes import apply_changes, check_field, chosen_cells
from rodiu_jax.model.fields import PROMISE, VARIED_SPECS
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan_json import parse_plans
from rodiu_jax.sweeps.columns import RANKED
from rodiu_jax.sweeps.method_table import METHODS, names_that

if TYPE_CHECKING:
    from rodiu_jax.sweeps.spec import Factor, SweepSpec


def check_spec(spec: SweepSpec, extremes: Instances, source: str, catalog: Catalog) -> None:
    """Check that every level of every factor gives admissible scenarios, whatever is drawn.

    Args:
      extremes: the smallest and the largest values that can be drawn, with the spec's own changes applied.
      catalog: what is drawn from, with the spec's own promises.

    Raises:
      InputError: a pattern that fits no name, two factors that change the same cell, a level that leaves the
        field's physical range, or a plan of other names.
    """
    if spec.plan_texts:
        parse_plans(spec.plan_texts, extremes, source)
    chosen: list[np.ndarray] = []
    for m, factor in enumerate(spec.factors):
        where = f"{source}: factors[{m}]"
        if factor.field == PROMISE:  # of the catalogue: the scenarios do not hold it
            chosen.append(chosen_cells(PROMISE, factor.names, extremes, where, axes="I"))
            for level in factor.levels:
                apply_promise_changes(catalog, [factor.change_promise(level)], where)
            _check_overlap(spec, m, chosen, source)
            continue
        chosen.append(chosen_cells(factor.field, factor.names, extremes, where))
        for at in _decisive(factor):
            try:
                apply_changes(extremes, [factor.change(factor.levels[at])])
            except InputError as error:
                expected = f"a level that leaves {error.field} {error.expected}"
                raise InputError(
                    source, f"factors[{m}].{factor.key}[{at}]", expected, factor.levels[at]
                ) from None
        _check_overlap(spec, m, chosen, source)


def _check_overlap(spec: SweepSpec, m: int, chosen: list[np.ndarray], source: str) -> None:
    """Refuse a factor that changes what an earlier one changes, too: the same cells, and of promises the same limit."""
    factor = spec.factors[m]
    for other, earlier in enumerate(spec.factors[:m]):
        alike = factor.field == earlier.field and (
            factor.latency is None or earlier.latency is None or factor.latency == earlier.latency
        )
        if alike and (chosen[m] & chosen[other]).any():
            expected = f"cells of {factor.field} that no other factor changes, as factors[{other}] does"
            raise InputError(source, f"factors[{m}].names", expected, factor.names or "*")


def _decisive(factor: Factor) -> list[int]:
    """Find the levels that are admissible only if all are, by their positions.

    Every change is monotone in its level, so they are the least and the greatest; all distinct ones where whole numbers
    are asked for.
    """
    levels = np.array(factor.levels)
    if VARIED_SPECS[factor.field].integer:
        return sorted(np.unique(levels, return_index=True)[1].tolist())
    return sorted({int(levels.argmin()), int(levels.argmax())})


def check_proofs(spec: SweepSpec, source: str) -> None:
    """Check that the keys about proofs and plans suit the method, as its entry in `METHODS` says."""
    info = METHODS[spec.method]
    for key in ("exact", "top", "by", "audit"):
        if (value := getattr(spec, key)) is not None and not info.audits:
            raise InputError(source, key, f"no such key with method {spec.method}", value)
    if spec.opening and (not info.audits or spec.certificates or spec.exact in ("top", "none")):
        expected = "no such key where HiGHS may not answer every row: method cascade, no certificates, exact gap or all"
        raise InputError(source, "opening", expected, spec.opening)
    for key in ("top", "by"):
        if (value := getattr(spec, key)) is not None and spec.exact != "top":
            raise InputError(source, key, "exact = top beside it", value)
    if spec.exact == "top" and spec.top is None:
        raise InputError(source, "top", "how many rows to solve exactly")
    if spec.by is not None and spec.by not in RANKED:
        raise InputError(source, "by", f"one of {', '.join(RANKED)}{nearest(spec.by, RANKED)}", spec.by)
    if spec.plans and not info.takes_plans:
        raise InputError(source, "plans", f"no such key with method {spec.method}")
    if info.takes_plans and not spec.plans:
        raise InputError(source, "plans", f"a file of plans, which method {spec.method} needs")
    if spec.certificates and not info.certifies:
        able = names_that(lambda method: method.certifies)
        raise InputError(
            source, "certificates", f"method {able}: {spec.method} leaves no certificate of lower bounds"
        )


def check_factor(factor: Factor, source: str, path: str) -> None:
    """Check that the field exists and may vary, and that exactly one kind of change is given."""
    try:
        if factor.field != PROMISE:
            check_field(factor.field, source)
        elif factor.given != ["scale"] and (factor.given != ["value"] or factor.latency is None):
            expected = (
                "scale; or value, in ms, with the latency that it is the limit of, as latency = 'ttft_p99'"
            )
            raise InputError(source, path, expected, factor.field)
    except InputError as error:
        raise InputError(source, f"{path}.field", error.expected, factor.field) from None
    if factor.latency is not None and (factor.field != PROMISE or not is_latency(factor.latency)):
        expected = "one such as ttft_p99, tpot_p50 or e2e_mean, beside field = 'promise'"
        raise InputError(source, f"{path}.latency", expected, factor.latency)
    if factor.field == "tp_degree":
        expected = "another field: the degrees are the same at every point (`set` changes them for all)"
        raise InputError(source, f"{path}.field", expected, factor.field)
    if len(factor.given) != 1:
        raise InputError(source, path, "exactly one of scale, shift and value", factor.field)


def check_levels(spec: SweepSpec, m: int, source: str) -> None:
    """Check that factor ``m`` gives what the design needs: levels of its kind, or a range."""
    design, factor, path = spec.design, spec.factors[m], f"factors[{m}]"
    key, levels, kind = f"{path}.{factor.key}", list(factor.levels), design.kind
    field = VARIED_SPECS[factor.field]
    if not design.draws:
        if factor.spacing is not None:
            expected = f"no such key: a design {kind} draws from no range"
            raise InputError(source, f"{path}.spacing", expected, factor.spacing)
        if kind == "points":
            first = len(spec.factors[0].levels)
            if len(levels) != first:
                raise InputError(source, key, f"{first} numbers, one per point as in factors[0]", levels)
            return
        if len(set(levels)) < len(levels):
            raise InputError(source, key, "distinct levels", levels)
        if kind == "one-at-a-time" and factor.base in levels:
            expected = f"levels other than {factor.base:g}, which changes nothing as point 0 does"
            raise InputError(source, f"{key}[{levels.index(factor.base)}]", expected, factor.base)
        return
    if len(levels) != 2 or not levels[0] < levels[1]:
        raise InputError(
            source, key, f"[low, high] with low < high, the range that {kind} draws from", levels
        )
    if factor.spacing == "log" and levels[0] <= 0:
        raise InputError(source, f"{key}[0]", "a number > 0, for spacing log", levels[0])
    if field.integer and factor.key == "scale":
        expected = f"shift or value: {factor.field} is a whole number, and a drawn multiple need not be"
        raise InputError(source, key, expected, levels)
    if field.integer and (odd := [at for at in (0, 1) if levels[at] != math.floor(levels[at])]):
        raise InputError(source, f"{key}[{odd[0]}]", f"a whole number, as {factor.field} is", levels[odd[0]])


def first_inadmissible(factor: Factor) -> int | None:
    """Find the first level that no scenario could have, by its position."""
    levels, field = np.array(factor.levels), VARIED_SPECS[factor.field]
    if factor.key == "shift":
        return None
    bad = field.bad(levels)
    if factor.key == "scale":
        bad = levels <= 0 if field.above_low else levels < 0
    return int(np.argmax(bad)) if bad.any() else None


def admissible_levels(factor: Factor) -> str:
    """Say in words what `first_inadmissible` asks for."""
    field = VARIED_SPECS[factor.field]
    if factor.key == "scale":
        return f"multipliers {'>' if field.above_low else '>='} 0"
    return f"{field.expected} ({field.unit})"
