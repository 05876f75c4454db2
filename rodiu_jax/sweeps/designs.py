"""Designs: which combinations of levels the points of a sweep are. A fixed function of the spec, whatever runs it."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from jaxtyping import Float64
from pydantic import ConfigDict, Field, field_validator, model_validator

from rodiu_jax.errors import InputError, nearest
from rodiu_jax.io.files import read_text
from rodiu_jax.io.strict_table import StrictTable, wrong

KINDS: dict[str, tuple[str, ...]] = {
    "grid": (),
    "one-at-a-time": (),
    "points": ("file",),
    "latin-hypercube": ("points", "seed"),
    "sobol": ("points", "seed"),
    "random": ("points", "seed"),
    "saltelli": ("points", "seed", "second_order"),
    "morris": ("points", "seed", "levels"),
}
"""The designs, each with its keys beside ``kind``. Those with ``points`` draw from ranges, the others list levels."""

_DEFAULTS: dict[str, dict[str, Any]] = {"saltelli": {"second_order": True}, "morris": {"levels": 4}}


class Design(StrictTable):
    """How the points are chosen.

    Over listed levels: ``grid``, all combinations, the last factor moving fastest; ``one-at-a-time``, point 0 with
    nothing changed and then every level of every factor alone; ``points``, point p has every factor's level p.
    Over ranges, with D factors and n = ``points``: ``latin-hypercube``, one point in each of n strata of every
    factor; ``sobol``, a scrambled Sobol sequence; ``random``, independent and uniform; ``saltelli``, n (2D + 2)
    points for Sobol indices, n (D + 2) without ``second_order``; ``morris``, n trajectories of D + 1 points on
    ``levels`` levels for elementary effects.

    Attributes:
      points: points drawn; the scheme of saltelli and morris adds theirs to each. A power of two for sobol and
        saltelli.
      seed: of the design; the sweep's seed by default.
      second_order: also the points that second-order indices need.
      levels: an even number of levels in each range.
      file: a CSV with a row per point and a column per factor; read when the spec is made, and its numbers
        then stand in the factors, so a spec that is kept needs no file.

    Sources: `scipy.stats.qmc` (Sobol: Owen 2020, arXiv:2008.08051), SALib (Saltelli 2002,
    doi:10.1016/S0010-4655(02)00280-1; Morris 1991, doi:10.1080/00401706.1991.10484804).
    """

    model_config = ConfigDict(frozen=True)

    kind: str = "grid"
    points: Annotated[int, Field(ge=1, lt=2**30)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    second_order: bool | None = None
    levels: Annotated[int, Field(ge=2)] | None = None
    file: Annotated[str, Field(min_length=1)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _with_defaults(cls, value: Any) -> Any:
        if isinstance(value, dict) and isinstance(kind := value.get("kind"), str):
            return _DEFAULTS.get(kind, {}) | value
        return value

    @field_validator("kind")
    @classmethod
    def _known(cls, kind: str) -> str:
        if kind not in KINDS:
            raise wrong(f"one of {', '.join(KINDS)}{nearest(kind, KINDS)}", kind)
        return kind

    @property
    def draws(self) -> bool:
        """Whether the factors give ranges to draw from, rather than levels."""
        return "points" in KINDS[self.kind]

    def check(self, source: str) -> None:
        """Check that the design has the keys of its kind, and no other.

        Raises:
          InputError: naming the key.
        """
        keys = KINDS[self.kind]
        for key, value in self.model_dump(exclude_none=True).items():
            if key not in ("kind", *keys):
                has = f"only kind and {', '.join(keys)}" if keys else "only kind"
                raise InputError(source, f"design.{key}", f"{has} in a design {self.kind}", value)
        if not self.draws:
            return
        if self.points is None:
            raise InputError(source, "design.points", f"this key, which a design {self.kind} needs")
        if self.kind in ("sobol", "saltelli") and self.points & (self.points - 1):
            near = 2 ** round(math.log2(self.points))
            raise InputError(source, "design.points", f"a power of two, such as {near}", self.points)
        if self.levels is not None and self.levels % 2:
            raise InputError(source, "design.levels", "an even number", self.levels)

    def count(self, sizes: Sequence[int]) -> int:
        """Count the points of the whole design; ``sizes`` are the numbers of levels of the factors."""
        if self.kind == "grid":
            return math.prod(sizes)
        if self.kind == "one-at-a-time":
            return 1 + sum(sizes)
        if self.points is None:
            return sizes[0]
        each = {"saltelli": (2 if self.second_order else 1) * len(sizes) + 2, "morris": len(sizes) + 1}
        return self.points * each.get(self.kind, 1)

    def draw_unit(self, dimensions: int, seed: int) -> Float64[np.ndarray, "P D"]:
        """Draw the points of a design that draws, in [0, 1]^D."""
        if self.points is None:
            raise ValueError(f"design {self.kind} does not draw")
        if self.kind == "random":
            return np.random.default_rng(seed).random((self.points, dimensions))
        if self.kind in ("latin-hypercube", "sobol"):
            from scipy.stats import qmc

            if self.kind == "latin-hypercube":
                return qmc.LatinHypercube(dimensions, rng=seed).random(self.points)
            return qmc.Sobol(dimensions, rng=seed).random_base2(self.points.bit_length() - 1)
        problem = {
            "num_vars": dimensions,
            "names": [f"x{d}" for d in range(dimensions)],
            "bounds": [[0.0, 1.0]] * dimensions,
        }
        if self.kind == "saltelli":
            from SALib.sample.sobol import sample

            return sample(problem, self.points, calc_second_order=bool(self.second_order), seed=seed)
        from SALib.sample.morris import sample

        return sample(problem, self.points, num_levels=self.levels or 0, seed=seed)


def draw_one_at_a_time(
    levels: Sequence[Sequence[float]], bases: Sequence[float]
) -> Float64[np.ndarray, "P D"]:
    """Return point 0 at every factor's base, then each level of each factor alone: 1 + number of levels points."""
    table = np.tile(np.array(bases, float), (1 + sum(map(len, levels)), 1))
    first = 1
    for m, column in enumerate(levels):
        table[first : first + len(column), m] = column
        first += len(column)
    return table


def to_levels(
    unit: Float64[np.ndarray, " P"], low: float, high: float, *, log: bool, whole: bool
) -> Float64[np.ndarray, " P"]:
    """Move numbers in [0, 1] to levels in [low, high]: uniform, or uniform in the logarithm.

    ``whole``: whole numbers, each with the share of [low, high + 1] that starts at it.
    """
    top = high + 1 if whole else high
    start, end = (math.log(low), math.log(top)) if log else (low, top)
    levels = unit * (end - start) + start
    levels = np.exp(levels) if log else levels
    return np.clip(np.floor(levels) if whole else levels, low, high)


@dataclass(frozen=True)
class PointFile:
    """The wanted columns of a CSV of points, and the line that each row stands on."""

    path: str
    columns: dict[str, tuple[float, ...]]
    lines: tuple[int, ...]


def read_points(path: str | Path, wanted: Iterable[str]) -> PointFile:
    """Read a CSV with a header and a row per point; it has the columns ``wanted`` and no other.

    Raises:
      InputError: the file cannot be read, is empty or has no row; a column is missing, doubled or meant by no
        factor; a row has another number of values; a value is not a finite number.
    """
    names = list(dict.fromkeys(wanted))
    text = read_text(path).removeprefix("\ufeff")
    reader = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True)
    try:
        rows = [(reader.line_num, row) for row in reader if row]
    except csv.Error as error:
        raise InputError(path, f"line {reader.line_num}", f"CSV ({error})") from None
    if not rows:
        raise InputError(path, "", f"a header with the columns {', '.join(names)}, but the file is empty")
    header = [name.strip() for name in rows[0][1]]
    for name in names:
        if name not in header:
            known = [h for h in header if h not in names]
            raise InputError(path, "header", f"a column {name}{nearest(name, known)}", ",".join(header))
    for name in header:
        if name not in names:
            raise InputError(path, "header", f"only columns that a factor names: {', '.join(names)}", name)
        if header.count(name) > 1:
            raise InputError(path, "header", "each column once", name)
    if len(rows) == 1:
        raise InputError(path, "", "at least one point below the header")
    for line, row in rows[1:]:
        if len(row) != len(header):
            raise InputError(path, f"line {line}", f"{len(header)} values as in the header", ",".join(row))
    lines = tuple(line for line, _ in rows[1:])
    columns = {
        name: tuple(_number(row[at], f"{path}: line {line}", name) for line, row in rows[1:])
        for at, name in enumerate(header)
    }
    return PointFile(str(path), columns, lines)


def _number(text: str, source: str, column: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise InputError(source, column, "a finite number", text)
    return number
