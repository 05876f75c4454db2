"""Robust deployment of LLMs on rented GPUs: scenarios in batch, checked plans, proven optima, sweeps.

The names below are loaded when first used, so that ``import rodiu_jax`` is instant and changes no setting.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rodiu_jax.calibration import calibrate
    from rodiu_jax.catalog import Catalog, catalog_names, load_catalog
    from rodiu_jax.changes import Change, apply_changes, parse_change
    from rodiu_jax.check import check_plan
    from rodiu_jax.decisions.choose import choose
    from rodiu_jax.decisions.diagnose import diagnose
    from rodiu_jax.decisions.robustness import robustness
    from rodiu_jax.decisions.stress import stress
    from rodiu_jax.errors import InputError, WorkFailed
    from rodiu_jax.evaluation import evaluate
    from rodiu_jax.instance import Instances, load_instances, make_instances
    from rodiu_jax.plan import Deployment, Plan, Route, load_plans, save_plans
    from rodiu_jax.report import write_report
    from rodiu_jax.report.pictures import plot
    from rodiu_jax.sampling import sample
    from rodiu_jax.sweeps import load_spec, read_rows, sweep
    from rodiu_jax.trends import check_trends
    from rodiu_jax.validation import validate
    from solvers.pool import solve

_HOME = {
    "Catalog": "rodiu_jax.catalog",
    "Change": "rodiu_jax.changes",
    "Deployment": "rodiu_jax.plan",
    "InputError": "rodiu_jax.errors",
    "Instances": "rodiu_jax.instance",
    "Plan": "rodiu_jax.plan",
    "Route": "rodiu_jax.plan",
    "WorkFailed": "rodiu_jax.errors",
    "apply_changes": "rodiu_jax.changes",
    "calibrate": "rodiu_jax.calibration",
    "catalog_names": "rodiu_jax.catalog",
    "check_plan": "rodiu_jax.check",
    "check_trends": "rodiu_jax.trends",
    "choose": "rodiu_jax.decisions.choose",
    "diagnose": "rodiu_jax.decisions.diagnose",
    "evaluate": "rodiu_jax.evaluation",
    "load_catalog": "rodiu_jax.catalog",
    "load_instances": "rodiu_jax.instance",
    "load_plans": "rodiu_jax.plan",
    "load_spec": "rodiu_jax.sweeps",
    "make_instances": "rodiu_jax.instance",
    "parse_change": "rodiu_jax.changes",
    "plot": "rodiu_jax.report.pictures",
    "read_rows": "rodiu_jax.sweeps",
    "robustness": "rodiu_jax.decisions.robustness",
    "sample": "rodiu_jax.sampling",
    "save_plans": "rodiu_jax.plan",
    "solve": "solvers.pool",
    "stress": "rodiu_jax.decisions.stress",
    "sweep": "rodiu_jax.sweeps",
    "validate": "rodiu_jax.validation",
    "write_report": "rodiu_jax.report",
}

__all__ = [
    "Catalog",
    "Change",
    "Deployment",
    "InputError",
    "Instances",
    "Plan",
    "Route",
    "WorkFailed",
    "apply_changes",
    "calibrate",
    "catalog_names",
    "check_plan",
    "check_trends",
    "choose",
    "diagnose",
    "evaluate",
    "load_catalog",
    "load_instances",
    "load_plans",
    "load_spec",
    "make_instances",
    "parse_change",
    "plot",
    "read_rows",
    "robustness",
    "sample",
    "save_plans",
    "solve",
    "stress",
    "sweep",
    "validate",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
