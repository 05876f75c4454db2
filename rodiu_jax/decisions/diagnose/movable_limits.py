"""The limits of a scenario that a planner could move, and variants of a scenario in which some fields are moved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rodiu_jax.model.fields import FIELD_SPECS, Fields
from rodiu_jax.model.instance import Instances, make_instances


@dataclass(frozen=True)
class Limit:
    """One number that a constraint compares with.

    Attributes:
      constraint: family as in MODEL section 5 (``memory`` and ``compute`` are those of all pairs on a GPU).
      name: which one of the family; empty where there is only one.
      field, position: the field of the instance and the place in it.
      highest: largest admissible value.
    """

    constraint: str
    name: str
    field: str
    position: tuple[int, ...]
    highest: float = np.inf

    @property
    def unit(self) -> str:
        """Unit of a price of this limit."""
        unit = FIELD_SPECS[self.field].unit
        return "$ per $" if unit.startswith("$") else f"$ per {unit}"

    @property
    def label(self) -> str:
        """``constraint[name]``, or the constraint alone."""
        return f"{self.constraint}[{self.name}]" if self.name else self.constraint

    def value(self, fields: Fields) -> float:
        """What it is in one instance."""
        return float(np.asarray(getattr(fields, self.field))[self.position])

    def at(self, fields: Fields, value: float) -> dict[str, np.ndarray]:
        """The field with this limit at another value."""
        moved = np.array(getattr(fields, self.field), np.float64)
        moved[self.position] = value
        return {self.field: moved}


def limits(instances: Instances) -> list[Limit]:
    """Every limit of a scenario, in the order of MODEL section 5."""
    queries, gpus = enumerate(instances.query_names), enumerate(instances.gpu_names)
    per_gpu = list(gpus)
    by_type = list(queries)
    return [
        *(Limit("memory", g, "gpu_memory", (k,)) for k, g in per_gpu),
        *(Limit("compute", g, "gpu_compute", (k,)) for k, g in per_gpu),
        Limit("unmet", "", "unmet_cap", (), 1.0),
        Limit("storage", "", "storage_capacity", ()),
        Limit("budget", "", "budget", ()),
        *(Limit("delay", q, "delay_threshold", (i,)) for i, q in by_type),
        *(Limit("error", q, "error_threshold", (i,)) for i, q in by_type),
    ]


def variants(instances: Instances, b: int, changes: Sequence[dict[str, np.ndarray]]) -> Instances:
    """Scenario ``b`` once per change, with the fields of that change replaced (validated)."""
    fields = {name: np.asarray(value) for name, value in instances.one(b)._asdict().items()}
    moved = {name for change in changes for name in change} | {"budget"}  # at least one field varies
    for name in moved:
        fields[name] = np.stack([np.asarray(change.get(name, fields[name])) for change in changes])
    names = instances.query_names, instances.model_names, instances.gpu_names
    return make_instances(*names, instances.uncertainty, fields, source="a variant of the scenario")
