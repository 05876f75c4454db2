"""The columns of a sweep's table: their names, their types, and which of them may rank rows."""

from __future__ import annotations

import pyarrow as pa

from rodiu_jax.model.verdict import COSTS

KEYS: dict[str, pa.DataType] = {"sample": pa.int64(), "point": pa.int64()}
ANSWERS: dict[str, pa.DataType] = {
    "lower_bound": pa.float64(),
    "upper_bound": pa.float64(),
    "certified_lower_bound": pa.float64(),
    "gap": pa.float64(),
    **dict.fromkeys(COSTS, pa.float64()),
    "unmet_share": pa.float64(),
    "gpus_rented": pa.int64(),
    "pairs_deployed": pa.int64(),
    "deployments": pa.string(),
    "status": pa.string(),
    "method": pa.string(),
    "nodes": pa.int64(),
    "steps": pa.int64(),
    "seconds": pa.float64(),
    "message": pa.string(),
    "plan": pa.string(),
}

RANKED = (
    "gap",
    "total_cost",
    "rental_cost",
    "storage_cost",
    "delay_cost",
    "unmet_cost",
    "unmet_share",
    "gpus_rented",
)
"""Columns by which the exact policy ``top`` may rank rows, the largest first."""
