"""What lower bounds are held against: HiGHS's optimum of the linear relaxation."""

import math

import numpy as np

from rodiu_jax.model.instance import Instances
from solvers.formulation import assemble
from solvers.highs import run_highs
from solvers.terms import collect, tighten

_EXACT = {"primal_feasibility_tolerance": 1e-9, "dual_feasibility_tolerance": 1e-9, "solver": "simplex"}
"""Options of HiGHS that solve the relaxation as nearly as its simplex can."""


def relaxed_optimum(instances: Instances, b: int) -> float:
    """Optimum of the LP relaxation with the shares that promises allow; inf where there is none."""
    terms = tighten(collect(instances, b))
    answer = run_highs(assemble(terms, len(instances.gpu_names)), relax=True, **_EXACT)
    return answer.objective if math.isfinite(answer.bound) else math.inf


def above(bounds: np.ndarray, optima: np.ndarray) -> np.ndarray:
    """Mask of the bounds that pass their optimum; a cost of 0 leaves 1e-9 $ for HiGHS's tolerance."""
    return ~(bounds <= optima + 1e-9 * np.maximum(np.abs(optima), 1.0))
