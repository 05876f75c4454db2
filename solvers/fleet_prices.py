"""Which triples (model, GPU, degree) good fleets deploy, by the prices of the linear relaxations of some scenarios.

There replicas may be parts, so that capacity costs what it rents for. The multipliers of a whole fleet's own routing
say less: what is not full costs nothing there.

No JAX here.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64

from rodiu_jax.model.instance import Instances
from solvers.formulation import Formulation
from solvers.highs import run_highs
from solvers.pricing import price
from solvers.terms import collect, tighten


def price_triples(instances: Instances) -> Float64[np.ndarray, "J K N"]:
    """Return what plans that deploy each triple cost at least above the relaxation, $ per period, on average.

    The average is over the scenarios. It is inf for a triple that does not fit or may not be had in one of them.

    Raises:
      SolverFailed: HiGHS refused a program.
    """
    gpus, shape = len(instances.gpu_names), instances.shape[1:]
    total = np.zeros(shape)
    for b in range(instances.size):
        terms = tighten(collect(instances, b))
        found = price(terms, gpus, _relax, np.zeros(len(terms.pair), bool))
        above = np.full(shape, np.inf)
        above[tuple(terms.triple.T)] = found.reduced
        total += above
    return total / instances.size


def _relax(formulation: Formulation) -> tuple[float, np.ndarray] | None:
    answer = run_highs(formulation, relax=True, presolve="off")
    return None if answer.row_dual is None else (answer.objective, answer.row_dual)
