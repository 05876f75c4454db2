"""Certified lower bounds in batch: the Lagrangian dual of the tight formulation, ascended by optax.

`coefficients` turns a scenario into numbers, `function` is the dual function, `opening` starts an ascent, `ascent` runs
it, `bounds` does so for a batch. What needs JAX is loaded when it is first used: solver processes read the coefficients
and the dual function through NumPy, and must start fast.
"""

from typing import TYPE_CHECKING

from rodiu_jax.runtime.lazy_call import name_loader
from solvers.dual.coefficients import (
    FEASIBILITY_WEIGHT,
    Coefficients,
    count_rent_alone,
    derive_coefficients,
    exclude_unaffordable,
    highest_cost,
    limit_shares_to_promises,
    widen_limits,
)
from solvers.dual.function import (
    DualValue,
    Multipliers,
    certify,
    evaluate_dual,
    feasible,
    least_by_pair,
    lengthen_ray,
)

if TYPE_CHECKING:
    from solvers.dual.ascent import (
        Ascended,
        Ascent,
        Reach,
        ascend,
        ascend_and_certify,
        climb_together,
        in_single,
        open_ascent,
    )
    from solvers.dual.bounds import Bounds, lower_bound_values, lower_bounds
    from solvers.dual.opening import Opening, cold_start, promise, scarce_start

_HOME = {
    "Ascended": "solvers.dual.ascent",
    "Ascent": "solvers.dual.ascent",
    "Reach": "solvers.dual.ascent",
    "Bounds": "solvers.dual.bounds",
    "Opening": "solvers.dual.opening",
    "ascend": "solvers.dual.ascent",
    "ascend_and_certify": "solvers.dual.ascent",
    "climb_together": "solvers.dual.ascent",
    "cold_start": "solvers.dual.opening",
    "in_single": "solvers.dual.ascent",
    "lower_bound_values": "solvers.dual.bounds",
    "lower_bounds": "solvers.dual.bounds",
    "open_ascent": "solvers.dual.ascent",
    "promise": "solvers.dual.opening",
    "scarce_start": "solvers.dual.opening",
}

__all__ = [
    "FEASIBILITY_WEIGHT",
    "Ascended",
    "Ascent",
    "Bounds",
    "Coefficients",
    "DualValue",
    "Multipliers",
    "Opening",
    "Reach",
    "ascend",
    "ascend_and_certify",
    "certify",
    "climb_together",
    "cold_start",
    "count_rent_alone",
    "derive_coefficients",
    "evaluate_dual",
    "exclude_unaffordable",
    "feasible",
    "highest_cost",
    "in_single",
    "least_by_pair",
    "lengthen_ray",
    "limit_shares_to_promises",
    "lower_bound_values",
    "lower_bounds",
    "open_ascent",
    "promise",
    "scarce_start",
    "widen_limits",
]


__getattr__ = name_loader(__name__, _HOME)
