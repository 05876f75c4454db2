"""Robust deployment of LLMs on rented GPUs: scenarios in batch, checked plans, proven optima, sweeps.

The names below are loaded when first used, so that ``import rodiu_jax`` is instant and changes no setting.
"""

import warnings
from typing import TYPE_CHECKING, Any

from rodiu_jax.runtime.lazy_call import name_loader

if TYPE_CHECKING:
    from rodiu_jax.analysis.sensitivity import sensitivity
    from rodiu_jax.analysis.trends import check_trends
    from rodiu_jax.catalog import Catalog, catalog_names, load_catalog
    from rodiu_jax.catalog.audit import validate
    from rodiu_jax.catalog.calibration import calibrate
    from rodiu_jax.catalog.describe import describe
    from rodiu_jax.catalog.readers import (
        Imported,
        import_aiconfigurator,
        import_benchmark,
        import_model,
        import_prices,
        import_profile,
        import_quality,
        import_trace,
    )
    from rodiu_jax.catalog.sampling import sample
    from rodiu_jax.decisions.choose.search import choose
    from rodiu_jax.decisions.diagnose.diagnosis import diagnose
    from rodiu_jax.decisions.fleet import summarize_fleet
    from rodiu_jax.decisions.plan_basis import find_plan_basis
    from rodiu_jax.decisions.planning.plan import FleetAnswer, plan_fleet
    from rodiu_jax.decisions.replay.replay import replay
    from rodiu_jax.decisions.robustness import robustness
    from rodiu_jax.decisions.stress.draws import stress
    from rodiu_jax.errors import InputError, WorkFailed
    from rodiu_jax.export import export_plan
    from rodiu_jax.model.changes import Change, apply_changes, parse_change
    from rodiu_jax.model.check import check_plan
    from rodiu_jax.model.evaluation import evaluate
    from rodiu_jax.model.instance import Instances, make_instances
    from rodiu_jax.model.npz import load_instances
    from rodiu_jax.model.plan import DeployedPair, Plan, Route
    from rodiu_jax.model.plan_json import load_plans, save_plans
    from rodiu_jax.report import write_report
    from rodiu_jax.report.figures.pictures import plot
    from rodiu_jax.report.plan_folder import write_plan
    from rodiu_jax.sweeps import load_spec, read_rows, sweep
    from rodiu_jax.sweeps.verify import verify
    from solvers.bound import bound
    from solvers.pool import solve

_HOME = {
    "Catalog": "rodiu_jax.catalog",
    "Change": "rodiu_jax.model.changes",
    "DeployedPair": "rodiu_jax.model.plan",
    "FleetAnswer": "rodiu_jax.decisions.planning.plan",
    "Imported": "rodiu_jax.catalog.readers",
    "InputError": "rodiu_jax.errors",
    "Instances": "rodiu_jax.model.instance",
    "Plan": "rodiu_jax.model.plan",
    "Route": "rodiu_jax.model.plan",
    "WorkFailed": "rodiu_jax.errors",
    "apply_changes": "rodiu_jax.model.changes",
    "bound": "solvers.bound",
    "calibrate": "rodiu_jax.catalog.calibration",
    "catalog_names": "rodiu_jax.catalog",
    "check_plan": "rodiu_jax.model.check",
    "check_trends": "rodiu_jax.analysis.trends",
    "choose": "rodiu_jax.decisions.choose.search",
    "describe": "rodiu_jax.catalog.describe",
    "diagnose": "rodiu_jax.decisions.diagnose.diagnosis",
    "evaluate": "rodiu_jax.model.evaluation",
    "find_plan_basis": "rodiu_jax.decisions.plan_basis",
    "export_plan": "rodiu_jax.export",
    "import_aiconfigurator": "rodiu_jax.catalog.readers",
    "import_benchmark": "rodiu_jax.catalog.readers",
    "import_model": "rodiu_jax.catalog.readers",
    "import_prices": "rodiu_jax.catalog.readers",
    "import_profile": "rodiu_jax.catalog.readers",
    "import_quality": "rodiu_jax.catalog.readers",
    "import_trace": "rodiu_jax.catalog.readers",
    "load_catalog": "rodiu_jax.catalog",
    "load_instances": "rodiu_jax.model.npz",
    "load_plans": "rodiu_jax.model.plan_json",
    "load_spec": "rodiu_jax.sweeps",
    "make_instances": "rodiu_jax.model.instance",
    "parse_change": "rodiu_jax.model.changes",
    "plan_fleet": "rodiu_jax.decisions.planning.plan",
    "plot": "rodiu_jax.report.figures.pictures",
    "read_rows": "rodiu_jax.sweeps",
    "replay": "rodiu_jax.decisions.replay.replay",
    "robustness": "rodiu_jax.decisions.robustness",
    "sample": "rodiu_jax.catalog.sampling",
    "save_plans": "rodiu_jax.model.plan_json",
    "sensitivity": "rodiu_jax.analysis.sensitivity",
    "solve": "solvers.pool",
    "stress": "rodiu_jax.decisions.stress.draws",
    "summarize_fleet": "rodiu_jax.decisions.fleet",
    "sweep": "rodiu_jax.sweeps",
    "validate": "rodiu_jax.catalog.audit",
    "verify": "rodiu_jax.sweeps.verify",
    "write_plan": "rodiu_jax.report.plan_folder",
    "write_report": "rodiu_jax.report",
}

_DEPRECATED = {"Deployment": "DeployedPair"}
"""Names of one release ago, and what they are called now."""

__all__ = [
    "Catalog",
    "Change",
    "DeployedPair",
    "FleetAnswer",
    "Imported",
    "InputError",
    "Instances",
    "Plan",
    "Route",
    "WorkFailed",
    "apply_changes",
    "bound",
    "calibrate",
    "catalog_names",
    "check_plan",
    "check_trends",
    "choose",
    "describe",
    "diagnose",
    "evaluate",
    "export_plan",
    "find_plan_basis",
    "import_aiconfigurator",
    "import_benchmark",
    "import_model",
    "import_prices",
    "import_profile",
    "import_quality",
    "import_trace",
    "load_catalog",
    "load_instances",
    "load_plans",
    "load_spec",
    "make_instances",
    "parse_change",
    "plan_fleet",
    "plot",
    "read_rows",
    "replay",
    "robustness",
    "sample",
    "save_plans",
    "sensitivity",
    "solve",
    "stress",
    "summarize_fleet",
    "sweep",
    "validate",
    "verify",
    "write_plan",
    "write_report",
]

_load_name = name_loader(__name__, _HOME)


def __getattr__(name: str) -> Any:
    if name in _DEPRECATED:
        new = _DEPRECATED[name]
        warnings.warn(f"rodiu_jax.{name} is now rodiu_jax.{new}", DeprecationWarning, stacklevel=2)
        return _load_name(new)
    return _load_name(name)


def __dir__() -> list[str]:
    return sorted(__all__)
