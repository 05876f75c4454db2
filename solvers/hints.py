"""What may be known of a scenario before it is solved exactly."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from rodiu_jax.model.plan import Plan


@dataclass(frozen=True, eq=False)
class Hints:
    """What is known of a scenario before it is solved: it changes the time, not what is proven.

    Whoever gives ``lower``, ``triples`` and ``elsewhere`` has proven them: a certified dual function does
    (`solvers.dual`), at multipliers of any quality.

    Attributes:
      plan: a good plan to start from; it is checked, and ignored where it is not feasible.
      lower: a lower bound of the optimal cost, $ per period.
      triples: bool (J,K,N): where False, every plan that deploys that model on that GPU at that degree costs at
        least ``elsewhere``. Solved is only what is left; the result's bound is at most ``elsewhere``.
      elsewhere: $ per period; usually the cost of ``plan``.
    """

    plan: Plan | None = None
    lower: float = -math.inf
    triples: np.ndarray | None = None
    elsewhere: float = math.inf


NOTHING = Hints()
"""What is known of a scenario nobody has looked at."""
