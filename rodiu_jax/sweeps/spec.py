"""What a sweep varies: a validated TOML spec, the presets, and the points that the spec stands for."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from jaxtyping import Bool, Float64, Int
from pydantic import ConfigDict, Discriminator, Field, Tag, ValidationError

from rodiu_jax.catalog.promise_changes import PromiseChange, split_changes
from rodiu_jax.errors import InputError, nearest
from rodiu_jax.io.files import read_toml, toml_value
from rodiu_jax.io.strict_table import StrictTable, input_error, tag
from rodiu_jax.model.changes import Change, Kind
from rodiu_jax.model.fields import VARIED_SPECS
from rodiu_jax.model.instance import check_uncertainty
from rodiu_jax.model.plan_json import read_plan_texts
from rodiu_jax.sweeps.designs import Design, PointFile, draw_one_at_a_time, read_points, to_levels
from rodiu_jax.sweeps.method_table import AUTO, METHODS
from rodiu_jax.sweeps.spec_checks import (
    admissible_levels,
    check_factor,
    check_levels,
    check_proofs,
    first_inadmissible,
)

AUDIT_SHARE = 1e-3
"""Share of a sweep's scenarios whose brackets are audited by default."""

_PRESETS = Path(__file__).parent / "presets"
_Text = Annotated[str, Field(min_length=1)]
_Number = Annotated[float, Field(allow_inf_nan=False)]
_Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
_Numbers = Annotated[tuple[_Number, ...], Field(strict=False, min_length=1)]  # TOML knows lists, not tuples
_Levels = Annotated[
    Annotated[_Numbers, Tag(tag("numbers"))] | Annotated[_Text, Tag(tag("column"))],
    Discriminator(lambda value: tag("column" if isinstance(value, str) else "numbers")),
]

_KINDS: dict[str, tuple[Kind, float]] = {
    "scale": ("scale", 1.0),
    "shift": ("shift", 0.0),
    "value": ("set", math.nan),
}
"""The ways a factor changes a field, each with the level that changes nothing (for values: NaN)."""


class Factor(StrictTable):
    """One varied field and its levels: multipliers (``scale``), shifts or values in the field's unit.

    Exactly one of ``scale``, ``shift`` and ``value`` is given. What it holds depends on the design: a list of
    levels (grid, one-at-a-time, points), the ends ``[low, high]`` of the range to draw from, or the name of a
    column of the design's CSV file, which is replaced by the column's numbers when the spec is made.

    Attributes:
      field: a field of `FIELD_SPECS`, or ``promise``: multiples of it, or values of the limit on one latency, in ms.
      latency: of ``promise``: the latency whose limit is meant, such as ``ttft_p99``; all limits by default.
      names: the cells meant, as `chosen_cells` reads them; all of them by default.
      spacing: of a range: ``linear`` (the default), or ``log`` for a uniform logarithm.
    """

    model_config = ConfigDict(frozen=True)

    field: str
    names: str | None = None
    latency: str | None = None
    scale: _Levels | None = None
    shift: _Levels | None = None
    value: _Levels | None = None
    spacing: Literal["linear", "log"] | None = None

    @property
    def given(self) -> list[str]:
        """Those of ``scale``, ``shift`` and ``value`` that are given: one, in a spec that was checked."""
        return [key for key in _KINDS if getattr(self, key) is not None]

    @property
    def key(self) -> str:
        """``scale``, ``shift`` or ``value``, whichever the factor has."""
        return self.given[0]

    @property
    def levels(self) -> tuple[float, ...]:
        """The numbers given, in the order written: levels, or the ends of a range."""
        given = getattr(self, self.key)
        return () if isinstance(given, str) else given

    @property
    def base(self) -> float:
        """The level that changes nothing; NaN where no value does."""
        return _KINDS[self.key][1]

    @property
    def kind(self) -> Kind:
        """What `Change` calls this factor's change."""
        return _KINDS[self.key][0]

    @property
    def column(self) -> str:
        """What the factor's column is called, where no other factor is of the same field: ``promise.ttft_p99``."""
        return f"{self.field}.{self.latency}" if self.latency else self.field

    def change_promise(self, level: float) -> PromiseChange:
        """Return the change of promises that puts this factor, of the field ``promise``, at ``level``."""
        if self.key == "value":
            return PromiseChange(self.names, latency=self.latency or "", most=level)
        return PromiseChange(self.names, factor=level, latency=self.latency or "")

    def change(self, level: float) -> Change:
        """Return the change that puts this factor at ``level``."""
        return Change(self.field, self.kind, level, self.names)


class SweepSpec(StrictTable):
    """The points of a ``design`` over ``factors``, each point with the same ``samples`` scenarios.

    A key with a description is an option of `rodiu sweep` too; the description is the option's help.

    Attributes:
      catalog: ``seed``, ``corrected``, or the path of a catalogue file.
      seed: with a scenario's number, the key of its draws.
      method: a name of `METHODS`.
      plans: once the spec is made, the plans themselves, each as JSON.
      opening: first rows that HiGHS answers, so that some are there while the programs of brackets are compiled; method
        ``auto`` asks for them where it is the cascade.
      changes: (``set`` in the file) changes of every scenario, such as ``budget=3000``, before the factors.
      design: which points; the full grid by default.
    """

    model_config = ConfigDict(frozen=True)

    name: _Text
    title: _Text
    question: str = ""
    catalog: _Text = "seed"
    uncertainty: str = "ddu"
    samples: int = Field(
        4, ge=1, lt=2**32, description="Scenarios drawn, the same ones at every point (default 4)."
    )
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    method: str = Field(AUTO, description="How scenarios are answered (default auto).")
    gap: _Share | None = Field(
        None, description="Relative gap to prove (default 0.01; where method exact is asked for: 1e-6)."
    )
    time_limit: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        None, description="Seconds per scenario (default: no limit)."
    )
    exact: Literal["gap", "top", "all", "none"] | None = Field(
        None,
        description="Scenarios that the cascade also solves exactly. gap (default): those whose bracket is wider than "
        "the gap; top: once all are bracketed, the rows with the largest values in a column; all; none.",
    )
    top: Annotated[int, Field(ge=1)] | None = Field(None, description="With exact top: how many rows.")
    by: str | None = Field(
        None, description="With exact top: the column, such as gap (default) or total_cost."
    )
    audit: _Share | None = Field(
        None, description="Share of the brackets that HiGHS audits, at least one (default 0.001; 0: none)."
    )
    certificates: bool = Field(
        False, description="Keep what proves the lower bounds in DIR/certificates, for `rodiu verify DIR`."
    )
    opening: Annotated[int, Field(ge=0)] = 0
    plans: Annotated[tuple[_Text, ...], Field(strict=False)] | _Text | None = Field(
        None,
        description="Plans for method evaluate: the cheapest of them that is feasible is a scenario's upper bound.",
    )
    changes: Annotated[tuple[str, ...], Field(strict=False, alias="set")] = ()
    design: Design = Design()
    factors: Annotated[tuple[Factor, ...], Field(strict=False, min_length=1)]

    @property
    def is_grid(self) -> bool:
        """Whether the points are all combinations of the factors' levels."""
        return self.design.kind == "grid"

    @property
    def shape(self) -> tuple[int, ...]:
        """Levels per factor of a grid; any other design is one axis of points."""
        return tuple(len(f.levels) for f in self.factors) if self.is_grid else (self.points,)

    @property
    def wanted_gap(self) -> float:
        """The gap asked for, or the method's own."""
        return METHODS[self.method].gap if self.gap is None else self.gap

    @property
    def points(self) -> int:
        """Points of the design."""
        return self.design.count([len(f.levels) for f in self.factors])

    @property
    def plan_texts(self) -> tuple[str, ...]:
        """The plans given, each as JSON."""
        return self.plans if isinstance(self.plans, tuple) else ()

    @property
    def layout(self) -> str:
        """The design in words: ``grid 6 x 5, 30 points``."""
        shape = f" {' x '.join(map(str, self.shape))}" if self.is_grid and len(self.factors) > 1 else ""
        return f"{self.design.kind}{shape}, {self.points} point" + ("s" if self.points != 1 else "")

    @property
    def rows(self) -> int:
        """Scenarios of the whole sweep; row r is sample r // points at point r % points."""
        return self.samples * self.points

    @property
    def columns(self) -> tuple[str, ...]:
        """One column name per factor: the field, with its pattern where two factors share the field."""
        fields = [f.column for f in self.factors]
        return tuple(
            f"{f.column}[{f.names}]" if fields.count(f.column) > 1 else f.column for f in self.factors
        )

    def audited(self, first: int, stop: int) -> Bool[np.ndarray, " R"]:
        """Draw which of rows ``first`` to ``stop - 1`` are audited: about ``audit`` of a sweep's, at least 1 of any.

        One row is drawn from each stretch of 1/``audit`` rows, by the design's seed; the first from the first sample
        alone. So the choice stays when the sweep is given more samples. Rows of the opening have no bracket: in the
        place of one, the row as far behind the opening is audited.
        """
        behind = self._drawn_for_audit(first - self.opening, stop - self.opening)
        behind[first + np.arange(stop - first) >= 2 * self.opening] = False
        mask = self._drawn_for_audit(first, stop) | behind
        mask[first + np.arange(stop - first) < self.opening] = False
        return mask

    def _drawn_for_audit(self, first: int, stop: int) -> Bool[np.ndarray, " R"]:
        """Draw as `audited`, whatever answers the rows; of rows below 0 none."""
        share = AUDIT_SHARE if self.audit is None else self.audit
        mask = np.zeros(stop - first, bool)
        if share == 0:
            return mask
        least, most = max(math.floor(first * share) - 1, 0), max(math.ceil(stop * share) + 1, 0)
        edges = np.floor(np.arange(least, most + 1) / share + 1e-9)
        starts, sizes = edges[:-1], np.diff(edges)
        if least == 0:
            sizes[0] = min(sizes[0], self.points)
        draws = np.random.PCG64([self.seed, self.points])
        draws.advance(least)  # one number for each stretch from the first on
        rows = (starts + np.floor(np.random.Generator(draws).random(len(starts)) * sizes)).astype(np.int64)
        mask[rows[(rows >= first) & (rows < stop)] - first] = True
        return mask

    @cached_property
    def table(self) -> Float64[np.ndarray, "P D"]:
        """The levels of all P points, of a design other than a grid, over D factors; not to be written."""
        levels = [f.levels for f in self.factors]
        if self.design.kind == "one-at-a-time":
            table = draw_one_at_a_time(levels, [f.base for f in self.factors])
        elif self.design.draws:
            table = self.design.draw_unit(
                len(levels), self.seed if self.design.seed is None else self.design.seed
            )
            for m, factor in enumerate(self.factors):
                low, high = factor.levels
                whole = VARIED_SPECS[factor.field].integer
                table[:, m] = to_levels(table[:, m], low, high, log=factor.spacing == "log", whole=whole)
        else:
            table = np.array(levels, float).T
        table.flags.writeable = False
        return table

    def levels_at(self, points: Int[np.ndarray, " P"]) -> tuple[Float64[np.ndarray, " P"], ...]:
        """Return the level of each factor at ``points``.

        NaN where a factor changes nothing and no value says so: point 0 of one-at-a-time with ``value``.
        """
        if not self.is_grid:
            return tuple(self.table[points].T)
        positions = np.unravel_index(points, self.shape)
        return tuple(np.array(f.levels)[at] for f, at in zip(self.factors, positions, strict=True))

    def to_dict(self) -> dict[str, Any]:
        """Return the spec as the TOML file holds it, every default written out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    def to_toml(self) -> str:
        """Write the spec as TOML text that `load_spec` reads back to the same spec."""
        values = self.to_dict()
        tables = [("[design]", values.pop("design")), *(("[[factors]]", f) for f in values.pop("factors"))]
        text = [f"{k} = {toml_value(v)}" for k, v in values.items()]
        for head, table in tables:
            text += ["", head, *(f"{k} = {toml_value(v)}" for k, v in table.items())]
        return "\n".join(text) + "\n"


def preset_names() -> list[str]:
    """List the names of the presets, sorted."""
    return sorted(path.stem for path in _PRESETS.glob("*.toml"))


def load_spec(name_or_path: str | Path) -> SweepSpec:
    """Read a preset by name, or a TOML file; paths of a catalogue or of points in it are relative to that file.

    Raises:
      InputError: no such preset or file; not TOML; a key that is missing, unknown, of the wrong type or out
        of range; a field or design that does not exist; levels that do not suit the design, or that no
        scenario could have; a CSV of points with a fault.
    """
    if str(name_or_path) in preset_names():
        path = _PRESETS / f"{name_or_path}.toml"
        return make_spec(read_toml(path), f"preset {name_or_path}")
    path = Path(name_or_path)
    if path.suffix != ".toml" and not path.is_file():
        known = preset_names()
        expected = f"a preset ({', '.join(known)}) or a TOML file{nearest(name_or_path, known)}"
        raise InputError("sweep", "", expected, str(name_or_path))
    values = read_toml(path)
    if isinstance(values.get("catalog"), str) and is_file_name(values["catalog"]):
        values["catalog"] = str(path.resolve().parent / values["catalog"])
    if isinstance(file := values.get("plans"), str) and file:
        values["plans"] = str(path.parent / file)
    design = values.get("design")
    if isinstance(design, dict) and isinstance(file := design.get("file"), str) and file:
        values["design"] = design | {"file": str(path.parent / file)}
    return make_spec(values, str(path))


def make_spec(values: dict[str, Any], source: str = "sweep") -> SweepSpec:
    """Validate the keys of a spec, named as in its TOML file; raises as `load_spec`."""
    return _complete(_read_keys(values, source), source)


def override(spec: SweepSpec, keys: Mapping[str, Any]) -> SweepSpec:
    """Replace keys of ``spec``: ``None`` keeps the spec's own, ``changes`` are added to the spec's.

    Raises:
      InputError: naming the key at fault, as an argument of `sweep`.
    """
    given = {key: value for key, value in keys.items() if value is not None}
    for key in given:
        if key not in SweepSpec.model_fields:
            known = list(SweepSpec.model_fields)
            raise InputError("sweep", key, f"one of {', '.join(known)}{nearest(key, known)}")
    split_changes(given.get("changes", ()))
    if is_file_name(catalog := str(given.get("catalog", ""))):
        given["catalog"] = str(Path(catalog).resolve())
    if isinstance(given.get("plans"), Path):
        given["plans"] = str(given["plans"])
    given["set"] = [*spec.changes, *given.pop("changes", ())]
    return _complete(_read_keys(spec.to_dict() | given, "sweep"), spec.name)


def _read_keys(values: dict[str, Any], source: str) -> SweepSpec:
    try:
        return SweepSpec.model_validate(values)
    except ValidationError as error:
        raise input_error(error, source) from None


def _complete(spec: SweepSpec, source: str) -> SweepSpec:
    """Check what the keys mean together, and read the plans and the points that stand in files of their own."""
    check_uncertainty(spec.uncertainty, source)
    if spec.method not in METHODS:
        raise InputError(source, "method", f"one of {', '.join(METHODS)}", spec.method)
    check_proofs(spec, source)
    if isinstance(spec.plans, str):
        spec = spec.model_copy(update={"plans": read_plan_texts(spec.plans)})
    for m, text in enumerate(spec.changes):
        split_changes([text], f"{source}: set[{m}]")
    spec.design.check(source)
    for m, factor in enumerate(spec.factors):
        check_factor(factor, source, f"factors[{m}]")
    columns = [getattr(factor, factor.key) for factor in spec.factors]
    file = _read_columns(spec.design, columns, source)
    if file is not None:
        read = [
            factor.model_copy(update={factor.key: file.columns[column]})
            for factor, column in zip(spec.factors, columns, strict=True)
        ]
        spec = spec.model_copy(update={"design": Design(kind="points"), "factors": tuple(read)})
    for m, factor in enumerate(spec.factors):
        check_levels(spec, m, source)
        at = first_inadmissible(factor)
        if at is not None:
            place, key = source, f"factors[{m}].{factor.key}[{at}]"
            if file is not None:
                place, key = file.path, f"line {file.lines[at]}: {columns[m]}"
            raise InputError(place, key, admissible_levels(factor), factor.levels[at])
    return spec


def _read_columns(design: Design, columns: list[Any], source: str) -> PointFile | None:
    """Read the design's CSV file; ``columns`` are what the factors give, names of its columns if there is one."""
    for m, column in enumerate(columns):
        if design.file is None and isinstance(column, str):
            expected = "numbers; a column's name only beside design.file"
            raise InputError(source, f"factors[{m}]", expected, column)
        if design.file is not None and not isinstance(column, str):
            expected = f"the name of a column of {design.file}"
            raise InputError(source, f"factors[{m}]", expected, list(column))
    return None if design.file is None else read_points(design.file, columns)


def is_file_name(catalog: str) -> bool:
    """True if ``catalog`` is the path of a file, not a name."""
    return catalog.endswith(".toml") or os.sep in catalog
