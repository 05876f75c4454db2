"""Random scenarios of every kind that has been hard: nothing fits, nothing costs, nobody comes, all ties."""

import numpy as np

from rodiu_jax.model.instance import Instances
from tests.oracles.instances import random_instances

CASES: dict[str, dict] = {
    "as drawn": {},
    "tight delays": {"delay_threshold": 150.0},
    "no adversary": {"gamma_delay": 0.0, "gamma_error": 0.0},
    "fractional adversary": {"gamma_delay": 0.3, "gamma_error": 1.6, "delay_threshold": 200.0},
    "adversary of every pair": {"gamma_delay": 6.0, "gamma_error": 99.0, "error_threshold": 0.12},
    "nothing fits": {"gpu_memory": 0.0},
    "room for nothing else": {"gpu_memory": 40.0, "weight_memory": 40.0},
    "no storage": {"storage_capacity": 0.0},
    "no budget": {"budget": 0.0},
    "scarce budget": {"budget": 30.0},
    "free GPUs": {"gpu_price": 0.0},
    "free GPUs and storage": {"gpu_price": 0.0, "storage_price": 0.0},
    "only unmet costs": {"gpu_price": 0.0, "storage_price": 0.0, "delay_penalty": 0.0},
    "no cost at all": {"gpu_price": 0.0, "storage_price": 0.0, "delay_penalty": 0.0, "unmet_penalty": 0.0},
    "serving is worthless": {"unmet_penalty": 0.0},
    "equal GPUs": {"gpu_price": 1.0, "gpu_memory": 60.0, "gpu_compute": 300.0},
    "equal everything": {"gpu_price": 1.0, "gpu_memory": 60.0, "gpu_compute": 300.0, "weight_memory": 20.0,
                         "delay_nominal": 0.4, "delay_deviation": 0.1, "delay_impact": 0.5, "kv_per_token": 0.01},
    "no delay allowed": {"delay_threshold": 0.0},
    "no error allowed": {"error_threshold": 0.0},
    "no deviation": {"delay_deviation": 0.0, "error_deviation": 0.0},
    "pairing removes all": {"delay_impact": 1.0, "error_impact": 1.0},
    "no compute": {"gpu_compute": 0.0},
    "no need of compute": {"compute_per_token": 0.0},
    "weightless": {"weight_memory": 0.0, "kv_per_token": 0.0},
    "large speed-ups": {"tp_speedup": [1.0, 1.9], "delay_threshold": 150.0},
    "slow-downs": {"tp_speedup": [1.0, 0.6]},
    "unmet at most 0.3": {"unmet_cap": 0.3},
    "unmet at most 0.8, tight": {"unmet_cap": 0.8, "delay_threshold": 200.0},
    "everything served": {"unmet_cap": 0.0, "error_threshold": 0.3, "delay_threshold": 2e3},
    "nobody comes": {"arrival_rate": 0.0},
    "one type only": {"arrival_rate": [0.0, 50.0]},
    "no tokens": {"input_tokens": 0.0, "output_tokens": 0.0},
    "one route": {"max_routes": 1, "gamma_delay": 1.0, "gamma_error": 1.0, "delay_threshold": 200.0},
    "one route, small adversary": {"max_routes": 1, "gamma_delay": 0.4, "error_threshold": 0.12},
    "two routes": {"max_routes": 2, "gamma_delay": 2.0, "gamma_error": 1.5, "kv_per_token": 0.02},
}  # fmt: skip


def hard_instances(
    seed: int, shape: tuple[int, int, int, int], *, each: int = 1, mode: str = "ddu"
) -> Instances:
    """A batch with ``each`` random scenarios of every case; which fields are batched does not depend on the cases."""
    drawn = random_instances(seed, shape, batch=each * len(CASES), mode=mode)
    values = {n: np.array(v) for n, v in drawn.fields._asdict().items()}
    values["tp_speedup"] = np.tile(values["tp_speedup"], (drawn.size, 1))
    for first, case in enumerate(CASES.values()):
        for name, value in case.items():
            rows = values[name][first * each : (first + 1) * each]
            rows[...] = np.broadcast_to(value, rows.shape)
    return drawn.with_fields(**values)
