"""Plans by name (what people and JSON hold) and as compact arrays (what the batched evaluation holds).

A plan is sparse: two to four deployed pairs of the 60 of the default catalogue. The arrays therefore list the
deployed pairs, padded to a common length, instead of a dense I x J x K block.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float64, Int32

from rodiu_jax.errors import InputError
from rodiu_jax.io.files import read_json, write_text
from rodiu_jax.model.instance import Instances


@dataclass(frozen=True)
class DeployedPair:
    """One deployed pair: model ``model`` on ``tp`` GPUs of configuration ``gpu``."""

    model: str
    gpu: str
    tp: int


Deployment: TypeAlias = tuple[DeployedPair, ...]
"""All that is deployed together: each (model, GPU) pair at most once."""


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
    deployments: Deployment
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


def _text(value: Any, source: str | Path, path: str) -> str:
    if not isinstance(value, str):
        raise InputError(source, path, "a name (text)", value)
    return value


def _whole(value: Any, source: str | Path, path: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputError(source, path, "a whole number", value)
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
    """Read one JSON plan and validate it against the names and degrees of ``instances``.

    Raises:
      InputError: missing or unknown key, wrong type, no such instance, negative share, or as `validate_plan`.
    """
    item = _object(value, "plan", source, path)
    deployments = []
    for m, entry in enumerate(_list(item["deployments"], source, f"{path}.deployments")):
        at = f"{path}.deployments[{m}]"
        entry = _object(entry, "deployment", source, at)
        names = {key: _text(entry[key], source, f"{at}.{key}") for key in ("model", "gpu")}
        deployments.append(DeployedPair(**names, tp=_whole(entry["tp"], source, f"{at}.tp")))
    routes = []
    for m, entry in enumerate(_list(item["routes"], source, f"{path}.routes")):
        at = f"{path}.routes[{m}]"
        entry = _object(entry, "route", source, at)
        names = {key: _text(entry[key], source, f"{at}.{key}") for key in ("query", "model", "gpu")}
        routes.append(Route(**names, share=_share(entry["share"], source, f"{at}.share")))
    if not isinstance(item["unmet"], dict):
        raise InputError(source, f"{path}.unmet", "an object of query name to share", item["unmet"])
    unmet = {query: _share(u, source, f"{path}.unmet.{query}") for query, u in item["unmet"].items()}
    instance = _index(item["instance"], instances, source, f"{path}.instance")
    plan = Plan(instance, tuple(deployments), tuple(routes), unmet)
    validate_plan(plan, instances, source=source, path=path)
    return plan


def validate_plan(plan: Plan, instances: Instances, *, source: str | Path = "plan", path: str = "") -> None:
    """Check that a plan can be meant for ``instances``: its names, its degrees, its routes.

    Whether its shares are any good is a verdict (`rodiu_jax.model.check`), and so not asked here.

    Args:
      path: of the plan inside ``source``.

    Raises:
      InputError: unknown name or degree, a pair deployed or routed twice, or a route on a pair that is not
        deployed.
    """
    inside = f"{path}." if path else ""
    queries, models, gpus = instances.query_names, instances.model_names, instances.gpu_names
    degrees = instances.axis_names("N")
    deployed: set[tuple[str, str]] = set()
    for m, d in enumerate(plan.deployments):
        at = f"{inside}deployments[{m}]"
        _known(d.model, models, source, at, ".model")
        _known(d.gpu, gpus, source, at, ".gpu")
        if str(d.tp) not in degrees:
            raise InputError(source, f"{at}.tp", f"one of {', '.join(degrees)}", d.tp)
        if (d.model, d.gpu) in deployed:
            raise InputError(source, at, "each pair deployed once", f"{d.model} on {d.gpu}")
        deployed.add((d.model, d.gpu))
    routed: set[tuple[str, str, str]] = set()
    for m, r in enumerate(plan.routes):
        at = f"{inside}routes[{m}]"
        _known(r.query, queries, source, at, ".query")
        _known(r.model, models, source, at, ".model")
        _known(r.gpu, gpus, source, at, ".gpu")
        if (r.model, r.gpu) not in deployed:
            raise InputError(source, at, "a pair that the plan deploys", f"{r.model} on {r.gpu}")
        if (r.query, r.model, r.gpu) in routed:
            raise InputError(source, at, "each route once", f"{r.query} to {r.model} on {r.gpu}")
        routed.add((r.query, r.model, r.gpu))
    for name in plan.unmet:
        _known(name, queries, source, inside, "unmet")


def _known(name: str, names: Sequence[str], source: str | Path, at: str, key: str) -> None:
    if name not in names:
        raise InputError(source, f"{at}{key}", f"one of {', '.join(names)}", name)


def load_plans(path: str | Path, instances: Instances) -> list[Plan]:
    """Read a JSON list of plans (MODEL section 8) and validate each against ``instances``.

    Raises:
      InputError: as `plan_from_json`, or the file is not a JSON list.
    """
    items = read_json(path)
    if not isinstance(items, list):
        raise InputError(path, "", "a JSON list of plans", items)
    for p, item in enumerate(items):
        if isinstance(item, dict) and "plan" in item:
            hint = "this looks like the output of `rodiu solve --json`: use `rodiu solve --plans`"
            raise InputError(path, f"[{p}]", f"a plan; {hint}")
    return [plan_from_json(item, instances, source=path, path=f"[{p}]") for p, item in enumerate(items)]


def save_plans(plans: Iterable[Plan], path: str | Path) -> None:
    """Write the JSON list of MODEL section 8."""
    write_text(path, json.dumps([p.to_json() for p in plans], indent=1, allow_nan=False) + "\n")


def deployed_triples(instances: Instances, deployments: Sequence[DeployedPair]) -> np.ndarray:
    """(D,3) positions (model, GPU, degree) of deployments whose names ``instances`` have."""
    degrees = instances.axis_names("N")
    rows = [
        (instances.model_names.index(d.model), instances.gpu_names.index(d.gpu), degrees.index(str(d.tp)))
        for d in deployments
    ]
    return np.array(rows, np.int64).reshape(-1, 3)


def plan_arrays(plans: Sequence[Plan], instances: Instances, *, slots: int | None = None) -> PlanArrays:
    """Plans as arrays over D deployment slots.

    Args:
      slots: D; by default the smallest power of two, at least 4, that holds every plan, so that plans of
        about the same size share one compiled program.

    Raises:
      InputError: as `validate_plan`.
    """
    types, _, _, _ = instances.shape
    most = max((len(p.deployments) for p in plans), default=0)
    width = slots or max(4, 1 << max(most - 1, 0).bit_length())
    query = {n: i for i, n in enumerate(instances.query_names)}
    model = {n: j for j, n in enumerate(instances.model_names)}
    gpu = {n: k for k, n in enumerate(instances.gpu_names)}
    degree = {n: t for t, n in enumerate(instances.axis_names("N"))}
    arrays = PlanArrays(
        np.zeros((len(plans), width), np.int32),
        np.zeros((len(plans), width), np.int32),
        np.full((len(plans), width), -1, np.int32),
        np.zeros((len(plans), types, width)),
        np.zeros((len(plans), types)),
    )
    for p, plan in enumerate(plans):
        validate_plan(plan, instances, source=f"plan {p}")
        slot: dict[tuple[str, str], int] = {}
        for s, d in enumerate(plan.deployments):
            slot[d.model, d.gpu] = s
            arrays.model[p, s], arrays.gpu[p, s] = model[d.model], gpu[d.gpu]
            arrays.degree[p, s] = degree[str(d.tp)]
        for r in plan.routes:
            arrays.share[p, query[r.query], slot[r.model, r.gpu]] = r.share
        for name, share in plan.unmet.items():
            arrays.unmet[p, query[name]] = share
    return arrays


def read_plan_texts(path: str) -> tuple[str, ...]:
    """The plans of a JSON file, one text each.

    Raises:
      InputError: no list of at least one plan.
    """
    found = read_json(path)
    if not isinstance(found, list) or not found:
        raise InputError(path, "", "a list of at least one plan")
    return tuple(json.dumps(item, ensure_ascii=False) for item in found)


def parse_plans(texts: Sequence[str], instances: Instances, source: str = "sweep") -> list[Plan]:
    """The plans of a spec, for every scenario whatever ``instance`` says; validated as by `plan_from_json`."""
    items = [json.loads(text) for text in texts]
    everywhere = [item | {"instance": None} if isinstance(item, dict) else item for item in items]
    return [
        plan_from_json(item, instances, source=source, path=f"plans[{p}]")
        for p, item in enumerate(everywhere)
    ]
