"""The format of a catalogue file, as pydantic models whose errors are one readable line.

One file may be a fragment that extends another, so everything here is optional; what the whole must have is
checked in `rodiu_jax.catalog.load` once the files are merged.
"""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PrivateAttr,
    Tag,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from typing_extensions import TypeAliasType

from rodiu_jax.catalog.distributions import Distribution
from rodiu_jax.catalog.promises import GRAMMAR, Basis, is_latency, parse_promise
from rodiu_jax.errors import InputError
from rodiu_jax.io.strict_table import StrictTable, input_error, tag, wrong

Axis = Literal["query", "model", "gpu", "tp"]
AXES: tuple[Axis, ...] = get_args(Axis)


def _refuse_nan(value: float) -> float:
    if math.isnan(value):
        raise wrong("a finite number", value)
    return value


Number = Annotated[float, Field(allow_inf_nan=False)]
Constant = Annotated[float, AfterValidator(_refuse_nan)]
"""A number that may be inf, where its field says that there is no limit; the catalogue as a whole checks that."""
Name = Annotated[str, Field(min_length=1)]
Pair = Annotated[list[Number], Field(min_length=2, max_length=2)]
Range = Annotated[tuple[Number, Number], Field(strict=False)]  # TOML has lists only


class NormalTable(StrictTable):
    """A normal distribution cut to a range."""

    mean: Number
    sd: Number
    low: Number
    high: Number


class _PlacedTable(StrictTable):
    """A table that knows which catalogue's file holds it."""

    _catalog: str = PrivateAttr("")

    def model_post_init(self, context: Any) -> None:
        """Remember the file that holds this table."""
        if context:
            self._catalog = context["catalog"]

    @property
    def catalog(self) -> str:
        """Name of the catalogue that holds this table: the last, where several change it."""
        return self._catalog

    def place(self, catalog: str) -> Self:
        """Say which catalogue holds this table, where it was made instead of read."""
        self._catalog = catalog
        return self


class EntryTable(_PlacedTable):
    """A fixed value or a distribution, with what differs from its quantity in provenance."""

    fixed: Constant | None = None
    uniform: Pair | None = None
    log_uniform: Pair | None = None
    normal: NormalTable | None = None
    choice: list[Number] | None = None
    together: Name | None = None
    at_curve: Literal[True] | None = None
    source: str | None = None
    reliability: Annotated[int, Field(ge=1, le=5)] | None = None
    basis: Basis | None = None
    note: str | None = None

    @model_validator(mode="after")
    def _one_distribution(self) -> EntryTable:
        self.distribution()
        return self

    def distribution(self) -> Distribution:
        """The distribution, its bounds checked."""
        given = [k for k in Distribution.KINDS if getattr(self, k) is not None]
        if len(given) != 1:
            raise wrong(f"exactly one of {', '.join(Distribution.KINDS)}", " and ".join(given) or "none")
        kind = given[0]
        value = getattr(self, kind)
        if kind == "fixed":
            numbers = (value,)
        elif kind == "normal":
            numbers = (value.mean, value.sd, value.low, value.high)
        else:
            numbers = tuple(value)
        result = Distribution(kind, tuple(float(x) for x in numbers))
        if fault := result.fault():
            raise wrong(f"{kind} with {fault}", list(numbers) if len(numbers) != 1 else numbers[0])
        if self.together is not None and kind != "choice":
            raise wrong("a choice beside together, as its position is what is drawn together", kind)
        if self.at_curve and kind != "fixed":
            raise wrong("a fixed number beside at_curve, which counts where there is no curve", kind)
        return result


class ClassTable(EntryTable):
    """The distribution of one class: the scores below a bound that no earlier class took."""

    below: Number | None = None


def _wrap_number(value: Any) -> Any:
    return {"fixed": value} if not isinstance(value, dict) else value


def _tell_kind(value: Any) -> str:
    """Tell an entry ``{uniform = [1, 2]}`` from a table by name ``{A = 1, B = {fixed = 2}}``."""
    if isinstance(value, EntryTable) or not isinstance(value, dict):
        return tag("entry")
    named = value and all(isinstance(v, dict | int | float) for v in value.values())
    return tag("names" if named and not set(value) & set(EntryTable.model_fields) else "entry")


Entry = Annotated[EntryTable, BeforeValidator(_wrap_number)]


Values = TypeAliasType(
    "Values",
    Annotated[
        Annotated[Entry, Tag(tag("entry"))] | Annotated["dict[Name, Values]", Tag(tag("names"))],  # pyright: ignore[reportInvalidTypeForm]
        Discriminator(_tell_kind),
    ],
)
"""An entry, or a table of them by name: one level of names per axis."""


class QuantityTable(_PlacedTable):
    """One quantity: its axes, unit, provenance and exactly one way of getting its values."""

    over: list[Axis] | None = None
    unit: str | None = None
    source: str | None = None
    reliability: Annotated[int, Field(ge=1, le=5)] | None = None
    basis: Basis | None = None
    note: str | None = None
    each: Entry | None = None
    values: dict[Name, Values] | None = None
    by: Name | None = None
    multiply: list[Name] | None = None
    divide: list[Name] | None = None
    level_of: Name | None = None
    cuts: Annotated[list[Number], Field(min_length=1)] | None = None
    sum: Annotated[dict[Name, Number], Field(min_length=1)] | None = None
    divisor: Number | None = None
    clip: Pair | None = None
    class_of: Name | None = None
    classes: Annotated[list[ClassTable], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _bounds(self) -> QuantityTable:
        for name in ("cuts", "clip"):
            numbers = getattr(self, name)
            if numbers is not None and any(b <= a for a, b in pairwise(numbers)):
                raise wrong(f"increasing numbers in {name}", numbers)
        if self.classes is not None:
            bounds = [c.below for c in self.classes]
            numbers = [b for b in bounds[:-1] if b is not None]
            increasing = all(b > a for a, b in pairwise(numbers))
            if bounds[-1] is not None or len(numbers) < len(bounds) - 1 or not increasing:
                raise wrong("increasing values of below in classes, and none in the last class", bounds)
        if self.divisor == 0:
            raise wrong("a divisor other than 0", 0)
        return self


RECIPES: dict[str, tuple[str, ...]] = {
    "each or values": ("each", "values", "by"),
    "multiply or divide": ("multiply", "divide"),
    "level_of": ("level_of", "cuts"),
    "sum": ("sum", "divisor", "clip"),
    "class_of": ("class_of", "classes"),
}
"""The ways of getting a quantity's values, each with its keys."""


class SetsTable(StrictTable):
    """The names along each axis, in the order of the arrays."""

    query: Annotated[list[Name], Field(min_length=1)] | None = None
    model: Annotated[list[Name], Field(min_length=1)] | None = None
    gpu: Annotated[list[Name], Field(min_length=1)] | None = None
    tp: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)] | None = None


class HeaderTable(StrictTable):
    """The name of the catalogue and what it builds on."""

    name: Name
    description: str = ""
    extends: Name | None = None


class PromiseTable(_PlacedTable):
    """What is promised to the queries of one type, as `rodiu_jax.catalog.promises` reads it."""

    limits: Name
    source: str | None = None
    note: str | None = None

    @model_validator(mode="after")
    def _readable(self) -> PromiseTable:
        try:
            parse_promise(self.limits)
        except InputError:
            raise wrong(GRAMMAR, self.limits) from None
        return self


_Length = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Lengths = Annotated[list[_Length], Field(min_length=2, max_length=2)]


class PointTable(StrictTable):
    """One measured point: queries/h of one replica, and latencies in ms by names such as ``ttft_p99``."""

    tokens: _Lengths | None = None
    rate: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    ms: Annotated[dict[Name, Annotated[float, Field(ge=0, allow_inf_nan=False)]], Field(min_length=1)]

    @model_validator(mode="after")
    def _latencies(self) -> PointTable:
        for name in self.ms:
            if not is_latency(name):
                raise wrong("latencies such as ttft_p99, tpot_p50, e2e_mean", name)
        return self


class CurveTable(_PlacedTable):
    """What was measured of one replica that serves one query type; promises decide what counts of it.

    ``tokens`` are the mean input and output tokens of a request, of all points that do not state their own.
    """

    tokens: _Lengths | None = None
    query: Name
    model: Name
    gpu: Name
    tp: Annotated[int, Field(ge=1)]
    points: Annotated[list[PointTable], Field(min_length=1)]
    source: str
    basis: Basis = "measured"
    note: str = ""


class _Claim(StrictTable):
    """A statement about the catalogue, kept as it is."""

    model_config = ConfigDict(frozen=True)


class Measure(_Claim):
    """``quantity`` at the names ``at``, divided by itself at ``relative_to``, less ``minus``.

    The axes without a name range over all of theirs.
    """

    quantity: Name
    at: dict[Axis, Name] = Field(default_factory=dict)
    relative_to: dict[Axis, Name] | None = None
    minus: Number = 0.0


class Comparison(_Claim):
    """The range of a measure that the source states, and the range observed elsewhere."""

    name: Name
    unit: str
    stated: Range
    observed: Range
    source: str
    measure: Measure


class Example(_Claim):
    """A worked example: ``quantity`` at the names ``at`` when some draws are ``given``.

    ``stated`` is the source's figure, ``expected`` what its formula gives exactly.
    """

    name: Name
    quantity: Name
    at: dict[Axis, Name]
    given: dict[Name, Number | dict[Name, Number]] = Field(default_factory=dict)
    unit: str
    stated: Number
    expected: Number
    source: str
    note: str = ""


class Contradiction(_Claim):
    """Where the source disagrees with itself: the quantity and names concerned (all if none is named)."""

    where: Name
    quantity: Name
    names: list[Name] = Field(default_factory=list)
    catalogs: Literal["corrected", "both"]
    why: Name

    @property
    def both(self) -> bool:
        """True if every catalogue treats it alike."""
        return self.catalogs == "both"


class CatalogFile(StrictTable):
    """A whole catalogue file."""

    catalog: HeaderTable
    sets: SetsTable = SetsTable()
    attributes: dict[Axis, dict[Name, dict[Name, str]]] = Field(default_factory=dict)
    quantity: dict[Name, QuantityTable] = Field(default_factory=dict)
    promise: dict[Name, PromiseTable] = Field(default_factory=dict)
    curve: list[CurveTable] = Field(default_factory=list)
    comparison: list[Comparison] | None = None
    example: list[Example] | None = None
    contradiction: list[Contradiction] | None = None

    @model_validator(mode="wrap")
    @classmethod
    def _origin(cls, value: Any, handler: Any, info: ValidationInfo) -> Any:
        header = value.get("catalog") if isinstance(value, dict) else None
        if isinstance(header, dict) and isinstance(info.context, dict):
            info.context["catalog"] = header.get("name", "")
        return handler(value)


def parse(data: dict[str, Any], path: Path) -> CatalogFile:
    """Validate one file's content.

    Raises:
      InputError: with path, value and expectation of the first fault, and the number of the others.
    """
    try:
        return CatalogFile.model_validate(data, context={"catalog": ""})
    except ValidationError as error:
        raise input_error(error, path) from None
