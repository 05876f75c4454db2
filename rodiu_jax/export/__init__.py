"""Plans as files that engines, clusters and routers take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rodiu_jax.catalog import Catalog, load_catalog
from rodiu_jax.decisions.plan_folder import CATALOG, choose_plan, is_there
from rodiu_jax.errors import InputError, nearest
from rodiu_jax.export.fleet import arrange_fleet
from rodiu_jax.export.formats import FORMATS
from rodiu_jax.export.settings import OPTIONS, Settings, list_given
from rodiu_jax.model.plan import Plan, validate_names
from rodiu_jax.model.slots import Names

__all__ = ["FORMATS", "export_plan"]


def export_plan(
    plan: str | Path | Plan,
    to: str,
    *,
    catalog: str | Path | Catalog | None = None,
    chosen: str | None = None,
    **settings: Any,
) -> dict[str, str]:
    """Write a plan as files of vLLM, Kubernetes, nginx, LiteLLM or SkyPilot.

    Every deployed pair is a pool of equal replicas; its label, made of model, GPU and degree, is its name in all
    formats. A router splits the requests of each query type over pools by the plan's shares, in hundredths of a
    percent; what the plan leaves unmet goes to ``elsewhere`` or is answered by 503.

    Args:
      plan: the folder that `rodiu plan` wrote, a JSON list of plans, or a plan.
      to: ``vllm``, ``kubernetes``, ``nginx``, ``litellm`` or ``skypilot``.
      catalog: whose names the plan has, and which says what models and GPUs are called elsewhere; by default the
        folder's, or ``serving``.
      chosen: an alternative of the folder by name, or the position of a plan in the list.
      settings: as `rodiu_jax.export.settings.Settings` has them: model_ids, gpu_names, image, namespace, port,
        memory_utilization, backends, listen, elsewhere.

    Returns:
      Texts by the names of their files.

    Raises:
      InputError: an unknown format, plan or name; a setting that the format does not have or that cannot stand in
        its files; a model or GPU of which nobody says what it is called there; shares that do not add up to 1.
    """
    if to not in FORMATS:
        raise InputError("--to", "", f"one of {', '.join(FORMATS)}{nearest(to, FORMATS)}", to)
    unknown = [name for name in settings if name not in OPTIONS]
    if unknown:
        raise InputError("export", unknown[0], f"one of {', '.join(OPTIONS)}{nearest(unknown[0], OPTIONS)}")
    given = Settings(**settings).check()
    for name in list_given(given):
        if name not in FORMATS[to].reads:
            users = ", ".join(f.name for f in FORMATS.values() if name in f.reads)
            raise InputError(OPTIONS[name], "", f"this option with --to {users} alone", to)
    known = _load_catalog(plan, catalog)
    if isinstance(plan, Plan):
        source, found = "plan", plan
    else:
        source, found = str(plan), choose_plan(plan, known, chosen)
    _check_names(found, known, source)
    return FORMATS[to].write(arrange_fleet(found, known), given)


def _load_catalog(plan: str | Path | Plan, catalog: str | Path | Catalog | None) -> Catalog:
    if isinstance(catalog, Catalog):
        return catalog
    if catalog is None and not isinstance(plan, Plan) and is_there(Path(plan) / CATALOG):
        return load_catalog(Path(plan) / CATALOG)
    return load_catalog("serving" if catalog is None else catalog)


def _check_names(plan: Plan, catalog: Catalog, source: str) -> None:
    sets = catalog.sets
    names = Names(sets["query"], sets["model"], sets["gpu"], tuple(int(n) for n in sets["tp"]))
    validate_names(plan, names, source=source)
