"""What recourse answers, and how it writes deployments: brackets of costs, reasons, rows of slots. No JAX here."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int8, Int32

from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import Deployment, Plan, deployed_triples, validate_names
from rodiu_jax.model.slots import EMPTY, join_slots

_LEAST_SLOTS = 4
"""Fewest slots of a deployment; wider ones have powers of two, so that few widths are compiled for."""


class Reason(IntEnum):
    """Why a deployment has no plan in a scenario."""

    FEASIBLE = 0  # it has one
    MEMORY = 1  # the weights alone break memory, ...
    STORAGE = 2  # storage
    BUDGET = 3  # or the rent the budget
    REPLICAS = 4  # there are more replicas than the scenario allows
    QUOTA = 5  # or more GPUs of a device than can be had
    UNMET = 6  # provably too much stays unmet
    UNKNOWN = 7  # no plan was found, nothing is proven
    ERROR = 8  # a number is out of range

    @property
    def word(self) -> str:
        """Say the reason as files do; nothing for a deployment that has a plan."""
        return "" if self is Reason.FEASIBLE else self.name.lower()


class Recourse(NamedTuple):
    """Brackets of Q deployments in B scenarios.

    ``lower`` <= cost of the best routing <= ``upper``, $ per period: both inf where the deployment provably has no
    plan; ``upper`` inf and ``lower`` finite where that is open. ``reason`` holds `Reason`s.
    """

    lower: Float64[np.ndarray, "Q B"]
    upper: Float64[np.ndarray, "Q B"]
    reason: Int8[np.ndarray, "Q B"]


class DeploymentRows(NamedTuple):
    """Q deployments as rows of D slots (`rodiu_jax.model.slots`), sorted, the empty ones last; these have 1 replica."""

    slots: Int32[np.ndarray, "Q D"]
    replicas: Int32[np.ndarray, "Q D"]


def write_rows(instances: Instances, deployments: Sequence[Deployment]) -> DeploymentRows:
    """Write deployments as rows of slots and replicas.

    Raises:
      InputError: a deployment names a model, GPU or degree that ``instances`` lack, or a pair twice. More
        replicas than a scenario allows are no error: the deployment has no plan there (`Reason.REPLICAS`).
    """
    most = max(map(len, deployments), default=0)
    width = max(_LEAST_SLOTS, 1 << max(most - 1, 0).bit_length())
    slots = np.full((len(deployments), width), EMPTY, np.int32)
    replicas = np.ones_like(slots)
    for q, deployment in enumerate(deployments):
        validate_names(Plan(None, deployment, (), {}), instances.names, source=f"deployment {q}")
        model, gpu, degree = deployed_triples(instances, deployment).T
        row = join_slots(model, gpu, degree, instances.names)
        order = np.argsort(row)
        slots[q, : len(row)] = row[order]
        replicas[q, : len(row)] = np.array([d.replicas for d in deployment], np.int32)[order]
    return DeploymentRows(slots, replicas)
