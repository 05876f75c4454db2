"""Plans by name (what people and JSON hold) and as compact arrays (what the batched evaluation holds).

A plan is sparse: two to four deployed pairs of the 60 of the default catalogue. The arrays therefore list the
deployed pairs, padded to a common length, instead of a dense I x J x K block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float64, Int32

from rodiu_jax.errors import InputError, nearest
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.slots import Names


@dataclass(frozen=True)
class DeployedPair:
    """One deployed pair: ``replicas`` copies of model ``model``, each on ``tp`` GPUs of configuration ``gpu``."""

    model: str
    gpu: str
    tp: int
    replicas: int = 1

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object of MODEL section 8; a single replica is not told."""
        item: dict[str, Any] = {"model": self.model, "gpu": self.gpu, "tp": self.tp}
        return item if self.replicas == 1 else item | {"replicas": self.replicas}

    def __str__(self) -> str:
        """Write the pair for tables: ``model@gpu x tp``, and its replicas where there are several."""
        several = f", {self.replicas} replicas" if self.replicas > 1 else ""
        return f"{self.model}@{self.gpu} x{self.tp}{several}"


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
            "deployments": [d.to_json() for d in self.deployments],
            "routes": [
                {"query": r.query, "model": r.model, "gpu": r.gpu, "share": r.share} for r in self.routes
            ],
            "unmet": dict(self.unmet),
        }

    def summary(self) -> str:
        """One line for tables: ``model@gpu x tp`` of every deployed pair, sorted by name."""
        return "; ".join(sorted(map(str, self.deployments))) or "nothing"


class PlanArrays(NamedTuple):
    """P plans over D deployment slots; an unused slot has ``degree`` -1, shares 0 and one replica.

    Arrays: ``model``, ``gpu``, ``degree`` are positions on the axes J, K, N.
    """

    model: Int32[np.ndarray, "P D"]
    gpu: Int32[np.ndarray, "P D"]
    degree: Int32[np.ndarray, "P D"]
    share: Float64[np.ndarray, "P I D"]
    unmet: Float64[np.ndarray, "P I"]
    replicas: Int32[np.ndarray, "P D"]


def validate_plan(plan: Plan, instances: Instances, *, source: str | Path = "plan", path: str = "") -> None:
    """Check that a plan can be meant for ``instances``: its names, its degrees, its replicas, its routes.

    Whether its shares are any good is a verdict (`rodiu_jax.model.check`), and so not asked here.

    Args:
      path: of the plan inside ``source``.

    Raises:
      InputError: as `validate_names`, or replicas that are more than any scenario allows.
    """
    validate_names(plan, instances.names, source=source, path=path)
    inside = f"{path}." if path else ""
    for m, pair in enumerate(plan.deployments):
        _check_replicas(pair, instances, source, f"{inside}deployments[{m}].replicas")


def validate_names(plan: Plan, names: Names, *, source: str | Path = "plan", path: str = "") -> None:
    """Check that a plan speaks of ``names`` alone, and that it is whole in itself.

    Args:
      path: of the plan inside ``source``.

    Raises:
      InputError: unknown name or degree, replicas that are not whole, a pair deployed or routed twice, or a route on a
        pair that is not deployed.
    """
    inside = f"{path}." if path else ""
    degrees = [str(n) for n in names.degrees]
    deployed: set[tuple[str, str]] = set()
    for m, d in enumerate(plan.deployments):
        at = f"{inside}deployments[{m}]"
        _known(d.model, names.models, source, at, ".model")
        _known(d.gpu, names.gpus, source, at, ".gpu")
        if str(d.tp) not in degrees:
            raise InputError(source, f"{at}.tp", f"one of {', '.join(degrees)}", d.tp)
        if type(d.replicas) is not int or d.replicas < 1:
            raise InputError(source, f"{at}.replicas", "a whole number >= 1", d.replicas)
        if (d.model, d.gpu) in deployed:
            raise InputError(source, at, "each pair deployed once", f"{d.model} on {d.gpu}")
        deployed.add((d.model, d.gpu))
    routed: set[tuple[str, str, str]] = set()
    for m, r in enumerate(plan.routes):
        at = f"{inside}routes[{m}]"
        _known(r.query, names.queries, source, at, ".query")
        _known(r.model, names.models, source, at, ".model")
        _known(r.gpu, names.gpus, source, at, ".gpu")
        if (r.model, r.gpu) not in deployed:
            raise InputError(source, at, "a pair that the plan deploys", f"{r.model} on {r.gpu}")
        if (r.query, r.model, r.gpu) in routed:
            raise InputError(source, at, "each route once", f"{r.query} to {r.model} on {r.gpu}")
        routed.add((r.query, r.model, r.gpu))
    for name in plan.unmet:
        _known(name, names.queries, source, inside, "unmet")


def _check_replicas(pair: DeployedPair, instances: Instances, source: str | Path, at: str) -> None:
    if pair.replicas == 1:
        return
    limit = np.asarray(instances.fields.max_replicas)
    if limit.ndim:
        limit = limit[..., instances.model_names.index(pair.model), instances.gpu_names.index(pair.gpu)]
    most = int(np.max(limit))  # of all scenarios: of one that allows fewer the verdict says so
    if pair.replicas > most:
        expected = f"at most {most}, the max_replicas of {pair.model} on {pair.gpu}"
        raise InputError(source, at, expected, pair.replicas)


def _known(name: str, names: Sequence[str], source: str | Path, at: str, key: str) -> None:
    if name not in names:
        raise InputError(source, f"{at}{key}", f"one of {', '.join(names)}{nearest(name, names)}", name)


def deployed_triples(instances: Instances, deployments: Sequence[DeployedPair]) -> np.ndarray:
    """(D,3) positions (model, GPU, degree) of deployments whose names ``instances`` have."""
    degrees = instances.axis_names("N")
    rows = [
        (instances.model_names.index(d.model), instances.gpu_names.index(d.gpu), degrees.index(str(d.tp)))
        for d in deployments
    ]
    return np.array(rows, np.int64).reshape(-1, 3)


def plan_arrays(
    plans: Sequence[Plan], instances: Instances, *, slots: int | None = None, any_replicas: bool = False
) -> PlanArrays:
    """Plans as arrays over D deployment slots.

    Args:
      slots: D; by default the smallest power of two, at least 4, that holds every plan, so that plans of
        about the same size share one compiled program.
      any_replicas: take plans with more replicas than these scenarios allow, whose margin says so.

    Raises:
      InputError: as `validate_plan`; with ``any_replicas`` as `validate_names`.
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
        np.ones((len(plans), width), np.int32),
    )
    for p, plan in enumerate(plans):
        if any_replicas:
            validate_names(plan, instances.names, source=f"plan {p}")
        else:
            validate_plan(plan, instances, source=f"plan {p}")
        slot: dict[tuple[str, str], int] = {}
        for s, d in enumerate(plan.deployments):
            slot[d.model, d.gpu] = s
            arrays.model[p, s], arrays.gpu[p, s] = model[d.model], gpu[d.gpu]
            arrays.degree[p, s], arrays.replicas[p, s] = degree[str(d.tp)], d.replicas
        for r in plan.routes:
            arrays.share[p, query[r.query], slot[r.model, r.gpu]] = r.share
        for name, share in plan.unmet.items():
            arrays.unmet[p, query[name]] = share
    return arrays
