"""What one more GPU, one more replica or fuller replicas would change: limits of a fleet, one step looser."""

from __future__ import annotations

import numpy as np

from rodiu_jax.decisions.diagnose.resolve import Change
from rodiu_jax.model.fields import has_quotas, has_rates, has_replicas
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import Plan

_FULLER = 0.05
"""What is added to the most load of a replica."""


def loosen_fleet(instances: Instances, b: int, plan: Plan | None) -> dict[str, Change]:
    """Return changes of scenario ``b`` by name: each finite quota by a GPU, replicas where a pair has all it may, load.

    Where there is no plan every pair that has a limit on replicas counts as having all it may, together.
    """
    return _loosen_quotas(instances, b) | _loosen_replicas(instances, b, plan) | _loosen_load(instances, b)


def _loosen_quotas(instances: Instances, b: int) -> dict[str, Change]:
    fields = instances.one(b)
    if not has_quotas(fields):
        return {}
    changes: dict[str, Change] = {}
    for k, device in enumerate(instances.gpu_devices):
        quota = float(fields.gpu_quota[k])
        if np.isfinite(quota) and instances.gpu_devices.index(device) == k:
            mine = np.array([d == device for d in instances.gpu_devices])
            changes[f"quota of {device} {quota:g} -> {quota + 1:g}"] = {
                "gpu_quota": np.where(mine, fields.gpu_quota + 1.0, fields.gpu_quota)
            }
    return changes


def _loosen_replicas(instances: Instances, b: int, plan: Plan | None) -> dict[str, Change]:
    fields = instances.one(b)
    if not has_replicas(fields):
        return {}
    if plan is None:
        return {"one more replica of every pair": {"max_replicas": fields.max_replicas + 1}}
    changes: dict[str, Change] = {}
    for pair in plan.deployments:
        at = instances.model_names.index(pair.model), instances.gpu_names.index(pair.gpu)
        most = int(fields.max_replicas[at])
        if pair.replicas == most:
            moved = fields.max_replicas.copy()
            moved[at] += 1
            changes[f"replicas of {pair.model}@{pair.gpu} {most} -> {most + 1}"] = {"max_replicas": moved}
    return changes


def _loosen_load(instances: Instances, b: int) -> dict[str, Change]:
    fields = instances.one(b)
    now = float(fields.max_utilization)
    if not has_rates(fields) or now >= 1.0:
        return {}
    more = min(now + _FULLER, 1.0)
    return {f"load of a replica {now:g} -> {more:g}": {"max_utilization": np.asarray(more)}}
