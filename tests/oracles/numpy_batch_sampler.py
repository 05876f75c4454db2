"""The seed's scenarios drawn in batch by plain NumPy: what a careful user would write without JAX.

The same formulas as `tests.oracles.numpy_sampler`, vectorised over blocks that stay in the caches. One generator
draws everything in order, so scenario b cannot be drawn alone: it gives up what the keyed sampler promises.
"""

from __future__ import annotations

import numpy as np

from tests.oracles.numpy_sampler import (
    _COMPUTE,
    _LOWEST_IMPACT,
    _MODEL_LEVEL,
    _PRECISION,
    _PRICE,
    _RANGES,
    GPU_NAMES,
)

_BLOCK = 256
"""Scenarios per block, 3.3 MB of results: the fastest of 32 to 1,024, by little."""


def sample_batch(rng: np.random.Generator, n: int) -> dict[str, np.ndarray]:
    """``n`` scenarios of the ``seed`` catalogue: the fields that vary, float64, with a leading axis n."""
    types, models, gpus = 6, 6, len(GPU_NAMES)
    cells, pairs = (types, models, gpus), (models, gpus)
    bounds = {name: np.array(ranges, dtype=np.float64).T for name, ranges in _RANGES.items()}
    precision = np.array([{"FP16": 1.0, "INT8": 1.15, "INT4": 1.35}[p] for p in _PRECISION])
    slowness = np.outer([0.3, 0.5, 1.5, 2.5, 3.5, 5.0], _COMPUTE[0] / _COMPUTE)
    weakness = np.outer(1.0 / np.array([0.5, 1.5, 3.0, 2.5, 5.0, 8.0]), precision)
    power = np.searchsorted([150.0, 400.0, 900.0], _COMPUTE, side="right")
    level = np.clip(power + np.array([{"FP16": 1, "INT8": 0, "INT4": -1}[p] for p in _PRECISION]), 0, 3)
    pairing = _LOWEST_IMPACT[np.clip(power - _MODEL_LEVEL[:, None] + 1, 0, 3)]
    quality = (2 * _MODEL_LEVEL[:, None] + level) / 3.0
    lowest_error = _LOWEST_IMPACT[np.searchsorted([0.75, 1.5, 2.25], quality, side="right")]

    shapes = {name: (types,) for name in bounds if not name.startswith("base_")}
    shapes |= {"gpu_price": (gpus,), "storage_price": ()}
    shapes |= dict.fromkeys(("delay_nominal", "delay_deviation", "error_nominal", "error_deviation"), cells)
    shapes |= {"delay_impact": pairs, "error_impact": pairs}
    found = {name: np.empty((n, *shape)) for name, shape in shapes.items()}
    for start in range(0, n, _BLOCK):
        block = {name: values[start : start + _BLOCK] for name, values in found.items()}
        count = len(block["gpu_price"])
        for name, (low, high) in bounds.items():
            if name in block:
                block[name][:] = rng.uniform(low, high, (count, types))
        for what, factor in (("delay", slowness), ("error", weakness)):
            low, high = bounds[f"base_{what}"]
            base = rng.uniform(low, high, (count, types))
            np.multiply(base[:, :, None, None], factor, out=block[f"{what}_nominal"])
            deviation = block[f"{what}_deviation"]
            rng.random(out=deviation)
            deviation *= 0.15
            deviation += 0.1
            deviation *= block[f"{what}_nominal"]
        for what, lowest in (("delay", pairing), ("error", lowest_error)):
            impact = block[f"{what}_impact"]
            rng.random(out=impact)
            impact *= 0.05
            impact += lowest
        block["gpu_price"][:] = _PRICE[0] * rng.uniform(0.8, 1.2, (count, gpus))
        block["storage_price"][:] = rng.uniform(0.001, 0.005, count)
    return found
