"""The folder that `rodiu plan` writes: one plan with its scenario, its catalogue and the plans it is compared with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rodiu_jax.catalog import Catalog, load_catalog
from rodiu_jax.errors import InputError, nearest
from rodiu_jax.io.files import read_json
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.npz import load_instances
from rodiu_jax.model.plan import Plan, validate_names
from rodiu_jax.model.plan_json import load_plans, plan_from_json, read_plan
from rodiu_jax.model.slots import Names

PLAN, SCENARIO, CATALOG, ALTERNATIVES = "plan.json", "scenario.npz", "catalog.toml", "alternatives.json"


@dataclass(frozen=True)
class Alternative:
    """Another plan for the same scenario, and a sentence that says what was asked for."""

    plan: Plan
    what: str


@dataclass(frozen=True)
class PlanFolder:
    """What such a folder holds.

    Attributes:
      instances: one scenario.
      alternatives: by name, such as ``nominal``; empty where the folder has none.
    """

    path: Path
    plan: Plan
    instances: Instances
    catalog: Catalog
    alternatives: Mapping[str, Alternative]


def is_there(path: Path, *, folder: bool = False) -> bool:
    """Tell whether there is such a file, or folder; a path that cannot be one is not there."""
    try:
        return path.is_dir() if folder else path.is_file()
    except (OSError, ValueError):  # a name that is too long, or has a NUL
        return False


def read_plan_folder(folder: str | Path) -> PlanFolder:
    """Read the folder of a plan.

    Raises:
      InputError: a file is missing or not what it should be; more or less than one plan or scenario; a name of the
        scenario that the catalogue lacks.
    """
    folder = Path(folder)
    for name in (PLAN, SCENARIO, CATALOG):
        if not is_there(folder / name):
            expected = f"the folder of `rodiu plan`, with {PLAN}, {SCENARIO} and {CATALOG}"
            raise InputError(folder, name, expected)
    instances = load_instances(folder / SCENARIO)
    if instances.size != 1:
        raise InputError(folder / SCENARIO, "", "one scenario", instances.size)
    plans = load_plans(folder / PLAN, instances)
    if len(plans) != 1:
        raise InputError(folder / PLAN, "", "a list of one plan", len(plans))
    catalog = load_catalog(folder / CATALOG)
    named = zip(("query", "model", "gpu"), instances.names[:3], strict=True)
    for axis, names in named:
        for name in names:
            if name not in catalog.sets[axis]:
                expected = f"names that {folder / CATALOG} has, such as {', '.join(catalog.sets[axis])}"
                raise InputError(folder / SCENARIO, f"{axis}_names", expected, name)
    return PlanFolder(folder, plans[0], instances, catalog, _read_alternatives(folder, instances))


def _read_alternatives(folder: Path, instances: Instances) -> dict[str, Alternative]:
    path = folder / ALTERNATIVES
    if not is_there(path):
        return {}
    items = read_json(path)
    if not isinstance(items, dict):
        raise InputError(path, "", "an object of plans by name", items)
    found = {}
    for name, item in items.items():
        if not isinstance(item, dict) or not isinstance(item.get("what"), str) or "plan" not in item:
            raise InputError(path, name, 'an object {"plan": ..., "what": "a sentence"}', item)
        plan = plan_from_json(item["plan"], instances, source=path, path=f"{name}.plan")
        found[name] = Alternative(plan, item["what"])
    return found


def choose_in_folder(folder: PlanFolder, chosen: str | None) -> Plan:
    """Return the plan of a folder, or one of its alternatives by name.

    Raises:
      InputError: the folder has no such alternative.
    """
    if chosen is None:
        return folder.plan
    if chosen not in folder.alternatives:
        known = ", ".join(folder.alternatives) or f"nothing, as {folder.path} has no {ALTERNATIVES}"
        raise InputError("chosen", "", f"one of {known}{nearest(chosen, folder.alternatives)}", chosen)
    return folder.alternatives[chosen].plan


def choose_in_file(path: str | Path, catalog: Catalog, chosen: str | None) -> Plan:
    """Return one plan of a JSON list of plans.

    Args:
      catalog: whose names the plan has.
      chosen: the position of the plan, from 0; by default the only one.

    Raises:
      InputError: no such file or plan; a plan that names what the catalogue does not have.
    """
    items = read_json(path)
    if not isinstance(items, list) or not items:
        raise InputError(path, "", "a JSON list of plans, at least one", items)
    positions = [str(p) for p in range(len(items))]
    if chosen is None and len(items) > 1:
        raise InputError("chosen", "", f"which of the {len(items)} plans of {path}: 0 to {len(items) - 1}")
    if chosen is not None and chosen not in positions:
        raise InputError("chosen", "", f"a whole number from 0 to {len(items) - 1}", chosen)
    at = int(chosen or 0)
    plan = read_plan(items[at], source=path, path=f"[{at}]")
    check_catalog_names(plan, catalog, source=path, path=f"[{at}]")
    return plan


def check_catalog_names(plan: Plan, catalog: Catalog, *, source: str | Path = "plan", path: str = "") -> None:
    """Check that a plan speaks of the names of a catalogue alone, and that it is whole in itself.

    Raises:
      InputError: as `rodiu_jax.model.plan.validate_names`.
    """
    sets = catalog.sets
    names = Names(sets["query"], sets["model"], sets["gpu"], tuple(int(n) for n in sets["tp"]))
    validate_names(plan, names, source=source, path=path)
