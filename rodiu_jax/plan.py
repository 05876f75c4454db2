"""Plans by name (what people and JSON hold) and as compact arrays (what the batched evaluation holds).

A plan is sparse: two to four deployed pairs of the 60 of the default catalogue. The arrays therefore list the
deployed pairs, padded to a common length, instead of a dense I x J x K block.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64, Int32

from rodiu_jax.errors import InputError
from rodiu_jax.files import read_json, write_text
from rodiu_jax.instance import Instances


@dataclass(frozen=True)
class Deployment:
    """Model ``model`` on ``tp`` GPUs of configuration ``gpu``."""

    model: str
    gpu: str
    tp: int


@dataclass(frozen=True)
class Route:
    """``share`` of the traffic of type ``query`` goes to ``model`` on ``gpu``."""

    query: str
    model: str
    gpu: str
    share: float


@dataclass(frozen=True)
class Plan:
    """A deployment and a routing (MODEL section 2).

    ``instance`` is the scenario the plan was made for, ``None`` when it is meant for all of them. ``unmet``
    holds the share of each query type that is not served; a type not named there has 0.
    """

    instance: int | None
    deployments: tuple[Deployment, ...]
    routes: tuple[Route, ...]
    unmet: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """The JSON object of MODEL section 8."""
        return {
            "instance": self.instance,
            "deployments": [{"model": d.model, "gpu": d.gpu, "tp": d.tp} for d in self.deployments],
            "routes": [
                {"query": r.query, "model": r.model, "gpu": r.gpu, "share": r.share} for r in self.routes
            ],
            "unmet": dict(self.unmet),
        }

    def summary(self) -> str:
        """One line for tables: ``model@gpu x tp`` of every deployed pair, sorted by name."""
        return "; ".join(sorted(f"{d.model}@{d.gpu} x{d.tp}" for d in self.deployments)) or "nothing"


class PlanArrays(NamedTuple):
    """P plans over D deployment slots; an unused slot has ``degree`` -1 and shares 0.

    Arrays: ``model``, ``gpu``, ``degree`` are positions on the axes J, K, N.
    """

    model: Int32[np.ndarray, "P D"]
    gpu: Int32[np.ndarray, "P D"]
    degree: Int32[np.ndarray, "P D"]
    share: Float64[np.ndarray, "P I D"]
    unmet: Float64[np.ndarray, "P I"]


_LARGEST_SHARE = 1e6
"""Above 1 a share is a broken demand, which the verdict says; this far above it is no share at all."""

_KEYS = {
    "plan": ("instance", "deployments", "routes", "unmet"),
    "deployment": ("model", "gpu", "tp"),
    "route": ("query", "model", "gpu", "share"),
}


def _object(value: Any, kind: str, source: str | Path, path: str) -> dict[str, Any]:
    keys = _KEYS[kind]
    if not isinstance(value, dict):
        raise InputError(source, path, f"an object with {', '.join(keys)}", value)
    for key in keys:
        if key not in value:
            raise InputError(source, f"{path}.{key}", "this field, which is missing")
    for key in value:
        if key not in keys:
            raise InputError(source, f"{path}.{key}", f"only the fields {', '.join(keys)}")
    return value


def _list(value: Any, source: str | Path, path: str) -> list[Any]:
    if not isinstance(value, list):
        raise InputError(source, path, "a list", value)
    return value


def _share(value: Any, source: str | Path, path: str) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= value <= _LARGEST_SHARE:
        raise InputError(source, path, f"a finite number from 0 to {_LARGEST_SHARE:g} (a share)", value)
    return float(value)


def _name(value: Any, names: Sequence[str], source: str | Path, path: str) -> str:
    if not isinstance(value, str) or value not in names:
        raise InputError(source, path, f"one of {', '.join(names)}", value)
    return value


def _index(value: Any, instances: Instances, source: str | Path, path: str) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < instances.size:
        raise InputError(source, path, f"null or a whole number from 0 to {instances.size - 1}", value)
    return value


def plan_from_json(
    value: Any, instances: Instances, *, source: str | Path = "plan", path: str = "plan"
) -> Plan:
    """Validate one JSON plan against the names and degrees of ``instances``.

    Raises:
      InputError: missing or unknown key, unknown name or degree, negative share, a pair deployed or routed
        twice, or a share on a pair that is not deployed.
    """
    item = _object(value, "plan", source, path)
    instance = _index(item["instance"], instances, source, f"{path}.instance")
    degrees = instances.axis_names("N", instance or 0)
    deployments: dict[tuple[str, str], Deployment] = {}
    for m, entry in enumerate(_list(item["deployments"], source, f"{path}.deployments")):
        at = f"{path}.deployments[{m}]"
        entry = _object(entry, "deployment", source, at)
        model = _name(entry["model"], instances.model_names, source, f"{at}.model")
        gpu = _name(entry["gpu"], instances.gpu_names, source, f"{at}.gpu")
        tp = entry["tp"]
        if isinstance(tp, bool) or not isinstance(tp, int) or str(tp) not in degrees:
            raise InputError(source, f"{at}.tp", f"one of {', '.join(degrees)}", tp)
        if (model, gpu) in deployments:
            raise InputError(source, at, "each pair deployed once", f"{model} on {gpu}")
        deployments[model, gpu] = Deployment(model, gpu, tp)
    routes: dict[tuple[str, str, str], Route] = {}
    for m, entry in enumerate(_list(item["routes"], source, f"{path}.routes")):
        at = f"{path}.routes[{m}]"
        entry = _object(entry, "route", source, at)
        query = _name(entry["query"], instances.query_names, source, f"{at}.query")
        model = _name(entry["model"], instances.model_names, source, f"{at}.model")
        gpu = _name(entry["gpu"], instances.gpu_names, source, f"{at}.gpu")
        share = _share(entry["share"], source, f"{at}.share")
        if (model, gpu) not in deployments:
            raise InputError(source, at, "a pair that the plan deploys", f"{model} on {gpu}")
        if (query, model, gpu) in routes:
            raise InputError(source, at, "each route once", f"{query} to {model} on {gpu}")
        routes[query, model, gpu] = Route(query, model, gpu, share)
    if not isinstance(item["unmet"], dict):
        raise InputError(source, f"{path}.unmet", "an object of query name to share", item["unmet"])
    unmet = {}
    for query, share in item["unmet"].items():
        _name(query, instances.query_names, source, f"{path}.unmet")
        unmet[query] = _share(share, source, f"{path}.unmet.{query}")
    return Plan(instance, tuple(deployments.values()), tuple(routes.values()), unmet)


def load_plans(path: str | Path, instances: Instances) -> list[Plan]:
    """Read a JSON list of plans (MODEL section 8) and validate each against ``instances``.

    Raises:
      InputError: as `plan_from_json`, or the file is not a JSON list.
    """
    items = read_json(path)
    if not isinstance(items, list):
        raise InputError(path, "", "a JSON list of plans", items)
    return [plan_from_json(item, instances, source=path, path=f"[{p}]") for p, item in enumerate(items)]


def save_plans(plans: Iterable[Plan], path: str | Path) -> None:
    """Write the JSON list of MODEL section 8."""
    write_text(path, json.dumps([p.to_json() for p in plans], indent=1, allow_nan=False) + "\n")


def plan_arrays(plans: Sequence[Plan], instances: Instances, *, slots: int | None = None) -> PlanArrays:
    """Plans as arrays over D deployment slots.

    Args:
      slots: D; by default the smallest power of two, at least 4, that holds every plan, so that plans of
        about the same size share one compiled program.
    """
    types, _, _, _ = instances.shape
    most = max((len(p.deployments) for p in plans), default=0)
    width = slots or max(4, 1 << max(most - 1, 0).bit_length())
    query = {n: i for i, n in enumerate(instances.query_names)}
    model = {n: j for j, n in enumerate(instances.model_names)}
    gpu = {n: k for k, n in enumerate(instances.gpu_names)}
    shared_degrees = None if "tp_degree" in instances.batched else instances.axis_names("N")
    arrays = PlanArrays(
        np.zeros((len(plans), width), np.int32),
        np.zeros((len(plans), width), np.int32),
        np.full((len(plans), width), -1, np.int32),
        np.zeros((len(plans), types, width)),
        np.zeros((len(plans), types)),
    )
    for p, plan in enumerate(plans):
        degrees = shared_degrees or instances.axis_names("N", plan.instance or 0)
        slot: dict[tuple[str, str], int] = {}
        for s, d in enumerate(plan.deployments):
            slot[d.model, d.gpu] = s
            arrays.model[p, s], arrays.gpu[p, s] = model[d.model], gpu[d.gpu]
            arrays.degree[p, s] = degrees.index(str(d.tp))
        for r in plan.routes:
            arrays.share[p, query[r.query], slot[r.model, r.gpu]] = r.share
        for name, share in plan.unmet.items():
            arrays.unmet[p, query[name]] = share
    return arrays
