"""What planners read first of a plan: GPUs, rent, price of a token, load of each pair, quotas used, headroom."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rodiu_jax.decisions.pair_load import measure_load
from rodiu_jax.io.files import json_number
from rodiu_jax.model.fields import has_rates, tokens_per_query
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import DeployedPair, Plan, validate_plan

if TYPE_CHECKING:
    from solvers.headroom import Headroom


@dataclass(frozen=True)
class QuotaUse:
    """How many GPUs of a device are rented, and how many may be; inf without a quota."""

    device: str
    gpus: int
    quota: float


@dataclass(frozen=True)
class FleetSummary:
    """What `summarize_fleet` found.

    Attributes:
      gpus: rented, by GPU configuration.
      rent_per_hour: $/h.
      cost_per_million_tokens: rent in $ for a million served tokens; nan where none are served.
      utilization: load of a replica of each deployed pair in the worst case: the left side of ``throughput`` over the
        replicas; inf where a type is sent to it that it cannot serve. Empty where scenarios have no rates.
      quotas: of the devices that the plan rents.
      headroom: how much traffic the same deployment can take.
    """

    gpus: dict[str, int]
    rent_per_hour: float
    cost_per_million_tokens: float
    utilization: tuple[tuple[DeployedPair, float], ...]
    quotas: tuple[QuotaUse, ...]
    headroom: Headroom

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; what is infinite or not known is null."""
        return {
            "gpus": self.gpus,
            "rent_per_hour": self.rent_per_hour,
            "cost_per_million_tokens": json_number(self.cost_per_million_tokens),
            "utilization": [
                {"model": pair.model, "gpu": pair.gpu, "utilization": json_number(load)}
                for pair, load in self.utilization
            ],
            "quota": [
                {"device": use.device, "gpus": use.gpus, "quota": json_number(use.quota)}
                for use in self.quotas
            ],
            "headroom": {
                "factor": json_number(self.headroom.factor),
                "full": list(self.headroom.full),
            },
        }


def summarize_fleet(plan: Plan, instances: Instances, b: int) -> FleetSummary:
    """Say what planners read first of a plan in scenario ``b``.

    The **headroom** is the largest factor on all arrival rates at which the deployment, with its replicas, still serves
    everyone, routed anew (`solvers.headroom.find_headroom`): 1.37 says that it takes 1.37 times this traffic, 0.8 that
    it serves everyone at four fifths of it. Throughput and promises count in their worst cases, memory by the KV cache
    of the traffic, and the budget with the stored data of the traffic. ``compute`` knows no rate and is left out.

    Raises:
      InputError: no such scenario, or a plan that names what the scenarios do not have.
    """
    from solvers.headroom import find_headroom

    instances.check_index(b)
    validate_plan(plan, instances)
    fields = instances.one(b)
    gpus: dict[str, int] = {}
    devices: dict[str, int] = {}
    rent = 0.0
    for pair in plan.deployments:
        k, count = instances.gpu_names.index(pair.gpu), pair.tp * pair.replicas
        gpus[pair.gpu] = gpus.get(pair.gpu, 0) + count
        devices[instances.gpu_devices[k]] = devices.get(instances.gpu_devices[k], 0) + count
        rent += float(fields.gpu_price[k]) * count
    quota = np.broadcast_to(fields.gpu_quota, len(instances.gpu_names))
    served = 1.0 - np.array([plan.unmet.get(name, 0.0) for name in instances.query_names])
    tokens = float((fields.arrival_rate * tokens_per_query(fields) * served).sum())
    return FleetSummary(
        gpus=gpus,
        rent_per_hour=rent,
        cost_per_million_tokens=rent / (tokens / 1e6) if tokens > 0 else math.nan,
        utilization=_measure_utilization(plan, instances, b),
        quotas=tuple(
            QuotaUse(device, count, float(quota[instances.gpu_devices.index(device)]))
            for device, count in devices.items()
        ),
        headroom=find_headroom(instances, b, plan.deployments),
    )


def _measure_utilization(plan: Plan, instances: Instances, b: int) -> tuple[tuple[DeployedPair, float], ...]:
    """Return the load of a replica of each deployed pair, in the worst case."""
    if not has_rates(instances.one(b)):
        return ()
    found = measure_load(plan, instances, b)
    return tuple(zip(plan.deployments, (found.worst / found.replicas).tolist(), strict=True))
