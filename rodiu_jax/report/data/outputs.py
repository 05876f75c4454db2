"""What a reader may ask to see of a sweep: its columns with labels and units, and its figures."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rodiu_jax.errors import InputError, nearest
from rodiu_jax.model.fields import VARIED_SPECS
from rodiu_jax.model.status import Status

if TYPE_CHECKING:
    from rodiu_jax.sweeps.spec import SweepSpec

SETTLED = tuple(status.word for status in Status if status.closed)
"""Statuses that leave nothing to prove: no plan exists, or the plan found is good to the gap."""


@dataclass(frozen=True)
class Output:
    """A numeric column of a sweep's rows.

    Attributes:
      factor: turns the column's values into the unit shown.
      from_zero: the colours of its maps start at 0.
    """

    column: str
    label: str
    unit: str
    factor: float = 1.0
    from_zero: bool = False


OUTPUTS = (
    Output("total_cost", "Total cost", "$ per period"),
    Output("rental_cost", "Rental cost", "$ per period"),
    Output("storage_cost", "Storage cost", "$ per period"),
    Output("delay_cost", "Cost of delay", "$ per period"),
    Output("unmet_cost", "Cost of unmet queries", "$ per period"),
    Output("unmet_share", "Queries not served", "% of arrivals", 100.0, True),
    Output("gpus_rented", "GPUs rented", "GPUs"),
    Output("gap", "Proven gap", "% of the cost", 100.0, True),
)


def output_of(column: str) -> Output:
    """Find the output of a column.

    Raises:
      InputError: no such output.
    """
    known = {o.column: o for o in OUTPUTS}
    if column not in known:
        raise InputError("plot", "output", f"one of {', '.join(known)}{nearest(column, known)}", column)
    return known[column]


FIGURES = {
    "map": "mean of an output over two factors",
    "regimes": "deployment that most scenarios choose, over two factors or by level of each",
    "costs": "parts of the cost by level of each factor",
    "constraints": "which constraints bind the plans (evaluated again, on a share of the rows)",
    "tornado": "swing of an output from the lowest to the highest level of each factor",
    "effects": "mean of an output by level of each factor, with what the brackets leave",
    "indices": "Sobol or Morris indices of an output, where the rows are such a design",
}
"""The figures that `plot` knows, and what they show."""


@dataclass(frozen=True)
class Axis:
    """A varied column: its label, and whether its levels multiply the field or are values of it."""

    column: str
    label: str
    multiplier: bool = False

    def ticks(self, levels: Iterable[int | float]) -> list[str]:
        """Write levels with equal decimals: multipliers as x0.40, values without a sign."""
        numbers = [float(level) for level in levels]
        shown = [f"{n:.6g}" for n in numbers]
        if any("e" in s for s in shown):
            return [f"x{s}" if self.multiplier else s for s in shown]
        places = max((len(s.partition(".")[2]) for s in shown), default=0)
        return [f"{'x' if self.multiplier else ''}{n:,.{places}f}" for n in numbers]


def axes_of(spec: SweepSpec) -> tuple[Axis, ...]:
    """Make an axis per factor of a sweep, in the order of the spec."""
    axes = []
    for factor, column in zip(spec.factors, spec.columns, strict=True):
        field = VARIED_SPECS[factor.field]
        of = f" of {factor.names}" if factor.names else ""
        unit = "multiplier" if factor.key == "scale" else field.unit
        label = f"{field.meaning} ({factor.column}{of}), {unit}"
        axes.append(Axis(column, label[0].upper() + label[1:], factor.key == "scale"))
    return tuple(axes)


def decimals(values: np.ndarray) -> int:
    """Choose how many decimals (0 to 3) tell the finite ``values`` apart."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return 0
    spread = float(finite.max() - finite.min())
    if spread < 1e-9 * max(1.0, float(np.abs(finite).max())):
        whole = np.allclose(finite, np.round(finite), rtol=0, atol=1e-9)
        return 0 if whole or float(np.abs(finite).max()) >= 1000 else 2
    return min(3, max(0, math.ceil(-math.log10(spread / 20))))
