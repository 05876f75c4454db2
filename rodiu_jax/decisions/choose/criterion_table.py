"""The criteria by which `choose` compares deployments. A new one is a file with a class and one entry here.

The table imports no criterion, so that a command's help stays instant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rodiu_jax.runtime.lazy_call import load_function

if TYPE_CHECKING:
    from rodiu_jax.decisions.choose.criteria import Criterion


@dataclass(frozen=True)
class CriterionInfo:
    """A criterion's name, the class at ``place`` (``module:class``), and one clause for the command's help."""

    name: str
    place: str
    summary: str

    def load(self) -> type[Criterion]:
        """Import the criterion."""
        return load_function(self.place)  # type: ignore[return-value]


_MODULE = "rodiu_jax.decisions.choose.criteria"

CRITERIA: dict[str, CriterionInfo] = {
    info.name: info
    for info in (
        CriterionInfo("expected", f"{_MODULE}:Expected", "expected cost"),
        CriterionInfo("cvar", f"{_MODULE}:Cvar", "mean of the dearest share 1 - level"),
        CriterionInfo("worst", f"{_MODULE}:Worst", "dearest scenario"),
        CriterionInfo("regret", f"{_MODULE}:Regret", "largest excess over a scenario's own optimum"),
    )
}
"""The criteria by name; the first is the default."""
