"""Costs and margins of many plans on many scenarios by plain NumPy: what a careful user would write without JAX.

The formulas of `tests.oracles.numpy_evaluator` (MODEL sections 3 to 5), over the few pairs that each plan deploys and
over blocks of scenarios that stay in the caches.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from rodiu_jax.model.fields import Fields
from tests.oracles.numpy_evaluator import _margin, _scale

_BLOCK = 512
"""Scenarios per block."""


class SlotPlans(NamedTuple):
    """Plans over D slots, with a leading axis B, or without it one plan for all scenarios.

    ``model``, ``gpu`` and ``gpus`` (per replica, 0: an empty slot) D; ``speed`` D; ``share`` I,D; ``unmet`` I.
    """

    model: np.ndarray
    gpu: np.ndarray
    gpus: np.ndarray
    speed: np.ndarray
    share: np.ndarray
    unmet: np.ndarray


class BatchEvaluation(NamedTuple):
    """``costs`` B,5: total, rental, storage, delay, unmet; ``margins`` B,9: the smallest of each family."""

    costs: np.ndarray
    margins: np.ndarray


def _worst(deviation: np.ndarray, gamma: np.ndarray) -> np.ndarray:
    """Sum of the ``floor(gamma)`` largest entries along the last axis, plus the fraction of the next."""
    falling = -np.sort(-deviation, axis=-1)
    counted = np.clip(gamma[..., None] - np.arange(falling.shape[-1]), 0.0, 1.0)  # B,D or D
    return (falling * counted[..., None, :]).sum(-1)


def evaluate_batch(fields: Fields, uncertainty: str, plans: SlotPlans) -> BatchEvaluation:
    """Evaluate plan b on scenario b, or one plan on all.

    Args:
      fields: of B scenarios, each field with a leading axis B or without one; `arrival_rate` has it.
    """
    size = np.shape(fields.arrival_rate)[0]
    parts = []
    for start in range(0, size, _BLOCK):
        mine = slice(start, start + _BLOCK)
        some = fields._replace(**{name: getattr(fields, name)[mine] for name in _batched(fields)})
        chosen = plans if plans.model.ndim == 1 else SlotPlans(*(a[mine] for a in plans))
        parts.append(_evaluate(some, uncertainty, chosen))
    return BatchEvaluation(*(np.concatenate(part) for part in zip(*parts, strict=True)))


_AXES = {
    **dict.fromkeys(("storage_price", "gamma_delay", "gamma_error", "budget", "rental_hours"), 0),
    **dict.fromkeys(("storage_capacity", "residency_hours", "unmet_cap", "max_routes"), 0),
    **dict.fromkeys(("arrival_rate", "input_tokens", "output_tokens", "weight_memory", "kv_per_token"), 1),
    **dict.fromkeys(("gpu_memory", "gpu_compute", "gpu_price", "compute_per_token", "token_size"), 1),
    **dict.fromkeys(("delay_penalty", "unmet_penalty", "delay_threshold", "error_threshold"), 1),
    **dict.fromkeys(("delay_impact", "error_impact"), 2),
    **dict.fromkeys(("delay_nominal", "delay_deviation", "error_nominal", "error_deviation"), 3),
}
"""Axes of each field of one scenario."""


def _batched(fields: Fields) -> list[str]:
    return [name for name, axes in _AXES.items() if np.ndim(getattr(fields, name)) > axes]


def _evaluate(f: Fields, uncertainty: str, plan: SlotPlans) -> BatchEvaluation:
    batch = np.arange(np.shape(f.arrival_rate)[0])
    model, gpu = np.atleast_2d(plan.model), np.atleast_2d(plan.gpu)  # B,D or 1,D

    def number(name: str) -> np.ndarray:
        return np.asarray(getattr(f, name), np.float64)

    def of_slots(name: str, *positions: np.ndarray) -> np.ndarray:
        """B,D or 1,D: a field of models, GPUs or both at the slots."""
        value = getattr(f, name)
        return value[(batch[:, None], *positions)] if name in batched else value[positions]

    def of_cells(name: str) -> np.ndarray:
        """B,I,D or 1,I,D: a field of types, models and GPUs at the slots."""
        value = getattr(f, name)
        types = np.arange(value.shape[-3])[None, :, None]
        cell = types, model[:, None, :], gpu[:, None, :]
        return value[(batch[:, None, None], *cell)] if name in batched else value[cell]

    batched = set(_batched(f))
    x, unmet, on = plan.share, plan.unmet, plan.gpus > 0
    tokens = number("input_tokens") + number("output_tokens")  # B,I
    rate, hours = number("arrival_rate"), number("rental_hours")
    ms = x * tokens[..., None] / plan.speed[..., None, :]  # B,I,D
    delay_excess, error_excess = of_cells("delay_deviation") * ms, of_cells("error_deviation") * x
    if uncertainty == "ddu":
        delay_excess = delay_excess * (1.0 - of_slots("delay_impact", model, gpu))[:, None, :]
        error_excess = error_excess * (1.0 - of_slots("error_impact", model, gpu))[:, None, :]
    active = 0.0 if uncertainty == "none" else 1.0
    delay = (of_cells("delay_nominal") * ms).sum(-1) + _worst(delay_excess, active * number("gamma_delay"))
    error = (of_cells("error_nominal") * x).sum(-1) + _worst(error_excess, active * number("gamma_error"))
    served = x.sum(-1)  # B,I

    weights = np.where(on, of_slots("weight_memory", model), 0.0)  # B,D
    data = (number("token_size") * tokens * rate / 1000.0 * served).sum(-1)
    rental = hours * (of_slots("gpu_price", gpu) * plan.gpus).sum(-1)
    storage = hours * number("storage_price") * (weights.sum(-1) + data)
    delay_cost = hours * (number("delay_penalty") * rate * delay).sum(-1)
    unmet_cost = hours * (number("unmet_penalty") * rate * unmet).sum(-1)
    costs = [rental + storage + delay_cost + unmet_cost, rental, storage, delay_cost, unmet_cost]

    resident = tokens * rate * number("residency_hours")[..., None]  # B,I
    kv = of_slots("kv_per_token", model) * (resident[..., None] * x).sum(-2)  # B,D
    compute = ((number("compute_per_token") * tokens)[..., None] * x).sum(-2)
    gpus = np.where(on, plan.gpus, 1.0)
    most = number("max_routes")[..., None]
    used = (x > 0).sum(-1)
    routes = np.where(most > 0, (most - used) / np.where(most > 0, most, 1.0), np.inf)
    memory = _margin(of_slots("gpu_memory", gpu), (weights + kv) / gpus)
    power = _margin(of_slots("gpu_compute", gpu) * gpus, compute)
    slow, wrong = number("delay_threshold"), number("error_threshold")
    families = [
        -np.abs(served + unmet - 1.0),
        _margin(number("unmet_cap")[..., None], unmet),
        routes,
        np.where(on, memory, np.inf),
        np.where(on, power, np.inf),
        _margin(number("storage_capacity"), weights.sum(-1))[..., None],
        _margin(number("budget"), rental + storage)[..., None],
        (slow * served - delay) / _scale(slow),
        (wrong * served - error) / _scale(wrong),
    ]
    size = (len(batch),)
    return BatchEvaluation(
        np.stack([np.broadcast_to(cost, size) for cost in costs], axis=-1),
        np.stack([np.broadcast_to(margin.min(-1), size) for margin in families], axis=-1),
    )
