"""Plans as files that engines, clusters and routers take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rodiu_jax.catalog import Catalog, load_catalog
from rodiu_jax.decisions.plan_folder import (
    check_catalog_names,
    choose_in_file,
    choose_in_folder,
    is_there,
    read_plan_folder,
)
from rodiu_jax.errors import InputError, nearest
from rodiu_jax.export.fleet import arrange_fleet
from rodiu_jax.export.formats import FORMATS
from rodiu_jax.export.settings import OPTIONS, Settings, list_given
from rodiu_jax.model.plan import Plan

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
        memory_utilization, backends, listen, elsewhere, elsewhere_models.

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
    found, known = _find_plan(plan, catalog, chosen)
    return FORMATS[to].write(arrange_fleet(found, known), given)


def _find_plan(
    plan: str | Path | Plan, catalog: str | Path | Catalog | None, chosen: str | None
) -> tuple[Plan, Catalog]:
    """Return the plan that is meant, and the catalogue that has its names."""
    if isinstance(plan, Plan) or not is_there(Path(plan), folder=True):
        known = (
            catalog
            if isinstance(catalog, Catalog)
            else load_catalog("serving" if catalog is None else catalog)
        )
        if not isinstance(plan, Plan):
            return choose_in_file(plan, known, chosen), known
        check_catalog_names(plan, known)
        return plan, known
    folder = read_plan_folder(plan)
    found, known = choose_in_folder(folder, chosen), folder.catalog
    if catalog is not None:
        known = catalog if isinstance(catalog, Catalog) else load_catalog(catalog)
        check_catalog_names(found, known, source=folder.path)
    return found, known
