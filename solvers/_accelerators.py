"""What makes the exact solver fast; none of it changes an optimum. Private: benchmarks and tests turn parts off.

The product always uses `ALL`; `solvers.exact._solve_with` takes others.
"""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Accelerators:
    """Switches, all on by default; `none` turns all off.

    Attributes:
      tightened: smaller shares for pairs that break a promise alone (`solvers.terms.tighten`).
      pricing: solve the LP relaxation first; where its bound meets a known plan, stop; leave out triples with which,
        by the dual function, no plan is cheaper than the best one known.
      nearby: of fleets, look near the relaxation's for a good one first (`solvers.nearby_fleets`). Wants ``pricing``.
      core: search the few triples of least dual value first, for the plan that the line above wants.
      split: plans of no more pairs than the adversary's budget have a plain sum as worst case and are searched without
        its variables; the others, where they cannot be excluded, apart. Wants ``pricing``.
      options: HiGHS with few cuts, and without its heuristics, which look for plans where one is known.
    """

    tightened: bool = True
    pricing: bool = True
    nearby: bool = True
    core: bool = True
    split: bool = True
    options: bool = True

    @classmethod
    def none(cls) -> Accelerators:
        """All off."""
        return cls(**{f.name: False for f in fields(cls)})


ALL = Accelerators()
