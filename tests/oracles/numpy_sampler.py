"""The seed's scenarios drawn one by one in NumPy: the peer of the batched sampler, and a witness for tests.

It restates the seed document and MODEL section 7 as one function, on purpose without the catalogue files.
"""

from __future__ import annotations

from typing import Any

import numpy as np

QUERY_NAMES = ("Summarization", "Code_Gen", "Translation", "Math_Solving", "Image_Gen", "Video_Gen")
MODEL_NAMES = (
    "Llama-3.2-1B",
    "Llama-3.2-3B",
    "Llama-3.1-8B",
    "Llama-3.2-11B-Vision",
    "Llama-3.2-31B",
    "Llama-3.1-70B",
)
GPU_NAMES = (
    *("A6000_FP16", "A6000_INT8", "A6000_INT4"),
    *("RTX_4090_FP16", "RTX_4090_INT8", "RTX_4090_INT4"),
    *("A100_FP16", "A100_INT8", "H100_FP16", "H100_INT8"),
)

_COMPUTE = np.array([40.7, 58.1, 67.0, 77.4, 82.6, 123.9, 165.2, 468.0, 989.0, 1483.5])
_PRECISION = [name.rsplit("_", 1)[1] for name in GPU_NAMES]
_MODEL_LEVEL = np.array([0, 0, 1, 1, 2, 2])
_LOWEST_IMPACT = np.array([0.2, 0.4, 0.6, 0.8])

# Columns: literal seed, corrected.
_GPU_MEMORY = np.array(
    [[48, 48, 80, 48, 24, 24, 24, 40, 80, 80], [48, 48, 48, 24, 24, 24, 40, 40, 80, 80]], float
)
_PRICE = np.array(
    [
        [0.65, 0.65, 2.5, 0.65, 0.35, 0.35, 1.2, 1.2, 2.0, 2.5],
        [0.65, 0.65, 0.65, 0.35, 0.35, 0.35, 1.2, 1.2, 2.5, 2.5],
    ]
)
_WEIGHTS = np.array([[2, 6, 16, 22, 140, 810], [2, 6, 16, 22, 62, 140]], float)
_KV = np.array([[0.02, 0.05, 0.15, 0.25, 1.4, 8.0], [2e-5, 5e-5, 1.5e-4, 2.5e-4, 6.2e-4, 1.4e-3]])

_RANGES = {
    "arrival_rate": [(80, 120), (60, 100), (100, 140), (40, 80), (20, 60), (10, 30)],
    "compute_per_token": [(0.3, 0.7), (0.6, 1.0), (0.2, 0.4), (1.0, 1.5), (2.0, 3.0), (3.5, 4.5)],
    "token_size": [(0.0008, 0.0012)] * 4 + [(0.004, 0.006), (0.008, 0.012)],
    "delay_penalty": [
        (0.005, 0.01),
        (0.015, 0.025),
        (0.005, 0.01),
        (0.01, 0.02),
        (0.025, 0.035),
        (0.04, 0.06),
    ],
    "unmet_penalty": [(30, 50), (80, 100), (20, 40), (80, 100), (150, 200), (150, 200)],
    "base_delay": [(0.4, 0.6), (0.7, 0.9), (0.3, 0.4), (1.0, 1.2), (2.0, 2.5), (3.5, 4.0)],
    "base_error": [(0.03, 0.05), (0.02, 0.03), (0.02, 0.03), (0.05, 0.07), (0.06, 0.08), (0.08, 0.10)],
}
_CONSTANTS: dict[str, Any] = {
    "input_tokens": np.array([512.0, 256.0, 128.0, 64.0, 32.0, 48.0]),
    "output_tokens": np.array([256.0, 512.0, 128.0, 256.0, 1024.0, 2048.0]),
    "gpu_compute": _COMPUTE,
    "delay_threshold": np.array([1000.0, 1500.0, 800.0, 2000.0, 4000.0, 5000.0]),
    "error_threshold": np.array([0.08, 0.10, 0.08, 0.10, 0.15, 0.25]),
    "gamma_delay": 10.0,
    "gamma_error": 10.0,
    "budget": 5000.0,
    "rental_hours": 12.0,
    "storage_capacity": 1000.0,
    "residency_hours": 0.1,
    "unmet_cap": 1.0,
    "max_routes": 0,
    "tp_degree": np.array([1, 2, 4, 8]),
    "tp_speedup": np.ones(4),
}


def names() -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Names of query types, models and GPU configurations, in the order of the arrays of `sample_one`."""
    return QUERY_NAMES, MODEL_NAMES, GPU_NAMES


def _impact(rng: np.random.Generator, classes: np.ndarray) -> np.ndarray:
    return _LOWEST_IMPACT[classes] + rng.uniform(0.0, 0.05, classes.shape)


def sample_one(rng: np.random.Generator, *, corrected: bool = False) -> dict[str, Any]:
    """One scenario of the ``seed`` catalogue (or the ``corrected`` one), all numeric fields of an instance.

    Source: the seed document; MODEL section 7.
    """
    c = int(corrected)
    drawn = {name: rng.uniform(*np.array(pairs, dtype=np.float64).T) for name, pairs in _RANGES.items()}
    speed = _COMPUTE[0] / _COMPUTE
    size_factor = np.array([0.3, 0.5, 1.5, 2.5, 3.5, 5.0])
    capacity = np.array([0.5, 1.5, 3.0, 2.5, 5.0, 8.0])
    precision = np.array([{"FP16": 1.0, "INT8": 1.15, "INT4": 1.35}[p] for p in _PRECISION])
    delay = np.einsum("i,j,k->ijk", drawn.pop("base_delay"), size_factor, speed)
    error = np.einsum("i,j,k->ijk", drawn.pop("base_error"), 1.0 / capacity, precision)
    power = np.searchsorted([150.0, 400.0, 900.0], _COMPUTE, side="right")
    level = np.clip(power + np.array([{"FP16": 1, "INT8": 0, "INT4": -1}[p] for p in _PRECISION]), 0, 3)
    pairing = np.clip(power[None, :] - _MODEL_LEVEL[:, None] + 1, 0, 3)
    quality = (2 * _MODEL_LEVEL[:, None] + level[None, :]) / 3.0
    return {
        **_CONSTANTS,
        **drawn,
        "compute_per_token": drawn["compute_per_token"] / (1000.0 if corrected else 1.0),
        "weight_memory": _WEIGHTS[c],
        "kv_per_token": _KV[c],
        "gpu_memory": _GPU_MEMORY[c],
        "gpu_price": _PRICE[c] * rng.uniform(0.8, 1.2, len(GPU_NAMES)),
        "storage_price": rng.uniform(0.001, 0.005),
        "delay_nominal": delay,
        "delay_deviation": delay * rng.uniform(0.1, 0.25, delay.shape),
        "error_nominal": error,
        "error_deviation": error * rng.uniform(0.1, 0.25, error.shape),
        "delay_impact": _impact(rng, pairing),
        "error_impact": _impact(rng, np.searchsorted([0.75, 1.5, 2.25], quality, side="right")),
    }
