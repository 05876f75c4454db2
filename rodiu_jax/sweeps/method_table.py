"""The methods that can answer a sweep's scenarios. A new one is a file with a function and one entry here.

Specs, engines, progress, commands and reports read what they need to know about a method from this table. It imports
no method, so that a command's help stays instant.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rodiu_jax.model.tolerances import CASCADE_GAP, OPTIMAL_GAP
from rodiu_jax.runtime.lazy_call import load_function


@dataclass(frozen=True)
class MethodInfo:
    """What the rest of the program knows about a method.

    Attributes:
      name: as specs and commands write it.
      call: the function, or its place ``module:function``; its form is `rodiu_jax.sweeps.methods.Method`.
      summary: one clause for the command's help.
      gap: relative gap where none is asked for; 1e-6 counts as optimal.
      chunk: scenarios that the local engine makes at a time for each CPU.
      task_rows: fewest and most rows of a chunk for a worker: enough that a batch is full, few enough that the
        workers end together.
      side_by_side: Python works so long between its batches that several processes, with a share of the cores each,
        answer sooner than one with all of them.
      prepare: the place of a function of scenarios that compiles what the method needs, for a thread beside other
        work; empty where that is little.
      begins_with_highs: HiGHS is asked for the first rows.
      audits: an exact solver can confirm its brackets: the keys ``exact``, ``top``, ``by`` and ``audit`` apply.
      certifies: it leaves certificates of its lower bounds.
      takes_plans: it answers for given plans, and needs them.
      chosen_by_auto: the method ``auto`` may be it, where it is expected to end first.
    """

    name: str
    call: str | Callable[..., Any]
    summary: str = ""
    gap: float = OPTIMAL_GAP
    chunk: int = 2048
    task_rows: tuple[int, int] = (256, 256)
    side_by_side: bool = False
    prepare: str = ""
    begins_with_highs: bool = False
    audits: bool = False
    certifies: bool = False
    takes_plans: bool = False
    chosen_by_auto: bool = False

    @property
    def solves(self) -> bool:
        """True if it finds plans itself."""
        return not self.takes_plans

    def is_split(self) -> bool:
        """Return whether processes of this machine share its work: never on an accelerator, which one keeps busy."""
        from rodiu_jax.runtime.devices import by_device

        return self.side_by_side and by_device(cpu=True, accelerator=False)

    def load(self) -> Callable[..., Any]:
        """Import the function of the method."""
        return load_function(self.call)


_MODULE = "rodiu_jax.sweeps.methods"

AUTO = "auto"
"""The method that is another one, chosen when a sweep begins (`rodiu_jax.sweeps.method_choice`)."""

METHODS: dict[str, MethodInfo] = {
    info.name: info
    for info in (
        MethodInfo(
            AUTO,
            f"{_MODULE}:answer_soonest",
            "exact or cascade, whichever is expected to end first",
            gap=CASCADE_GAP,
            task_rows=(256, 1024),
            begins_with_highs=True,
            audits=True,
            certifies=True,
        ),
        MethodInfo(
            "cascade",
            f"{_MODULE}:run_cascade",
            "brackets in batch, HiGHS where they stay wide, 0.1 % audited",
            gap=CASCADE_GAP,
            task_rows=(256, 1024),
            side_by_side=True,
            prepare="solvers.bracket:compile_programs",
            audits=True,
            certifies=True,
            chosen_by_auto=True,
        ),
        MethodInfo(
            "bracket",
            f"{_MODULE}:bracket_scenarios",
            "no HiGHS",
            gap=CASCADE_GAP,
            task_rows=(256, 1024),
            side_by_side=True,
            certifies=True,
        ),
        MethodInfo(
            "exact",
            f"{_MODULE}:solve_exactly",
            "HiGHS for every scenario",
            begins_with_highs=True,
            chosen_by_auto=True,
        ),
        MethodInfo(
            "evaluate",
            f"{_MODULE}:evaluate_plans",
            "no optimisation, what the plans of --plans cost",
            chunk=4096,
            task_rows=(4096, 4096),
            takes_plans=True,
        ),
    )
}
"""The methods by name; the first is the default."""


def names_that(have: Callable[[MethodInfo], bool]) -> str:
    """Write the names of the methods that ``have`` a property: ``cascade or bracket``."""
    return " or ".join(name for name, info in METHODS.items() if have(info) and name != AUTO)
