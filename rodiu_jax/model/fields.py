"""The fields of one scenario: axes, units and admissible values, and what is derived from them.

No JAX here: solver processes load this module and must start fast.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import numpy as np

Array: TypeAlias = Any
"""An array of NumPy or of JAX; the mathematics below is written for both."""

Uncertainty = Literal["none", "diu", "ddu"]
UNCERTAINTY_MODES: tuple[str, ...] = get_args(Uncertainty)

AXES = {"I": "query", "J": "model", "K": "gpu", "N": "tensor-parallel degree"}
NAME_FIELDS = ("query_names", "model_names", "gpu_names")


@dataclass(frozen=True)
class FieldSpec:
    """What one field of an instance is: its axes (letters of `AXES`), unit, symbol and admissible values."""

    axes: str
    unit: str
    symbol: str
    meaning: str
    low: float = 0.0
    above_low: bool = False
    high: float = np.inf
    integer: bool = False

    @property
    def expected(self) -> str:
        """The admissible values in words."""
        kind = "whole numbers" if self.integer else "finite numbers"
        text = f"{kind} {'>' if self.above_low else '>='} {self.low:g}"
        text += " and < 2^53" if self.integer else ""
        return text + (f" and <= {self.high:g}" if np.isfinite(self.high) else "")

    def bad(self, values: np.ndarray) -> np.ndarray:
        """Mask of the values that are not admissible."""
        inside = np.isfinite(values) & (values <= self.high)
        inside &= (values > self.low) if self.above_low else (values >= self.low)
        if self.integer:
            inside &= (values == np.floor(values)) & (values < 2**53)  # beyond, float64 skips whole numbers
        return np.asarray(~inside)


FIELD_SPECS: dict[str, FieldSpec] = {
    "arrival_rate": FieldSpec("I", "queries/h", "lambda", "queries that arrive per hour"),
    "input_tokens": FieldSpec("I", "tokens", "h", "tokens of a query's prompt"),
    "output_tokens": FieldSpec("I", "tokens", "f", "tokens generated for a query"),
    "weight_memory": FieldSpec("J", "GB", "B", "memory of the model's weights"),
    "kv_per_token": FieldSpec("J", "GB/token", "beta", "KV cache per token"),
    "gpu_memory": FieldSpec("K", "GB", "C", "memory of one GPU"),
    "gpu_compute": FieldSpec("K", "TFLOPs", "P", "compute of one GPU"),
    "gpu_price": FieldSpec("K", "$/GPU/h", "p_c", "rental price of one GPU"),
    "compute_per_token": FieldSpec("I", "TFLOPs/token", "alpha", "compute per token"),
    "token_size": FieldSpec("I", "MB/token", "theta", "stored data per token"),
    "storage_price": FieldSpec("", "$/GB/h", "p_s", "price of storage"),
    "delay_penalty": FieldSpec("I", "$/ms/query", "rho", "cost of a millisecond of delay"),
    "unmet_penalty": FieldSpec("I", "$/query", "phi", "cost of a query not served"),
    "delay_nominal": FieldSpec("IJK", "ms/token", "d_bar", "delay per token as measured"),
    "delay_deviation": FieldSpec("IJK", "ms/token", "d_hat", "largest excess of the delay"),
    "error_nominal": FieldSpec("IJK", "fraction", "e_bar", "error rate as measured"),
    "error_deviation": FieldSpec("IJK", "fraction", "e_hat", "largest excess of the error rate"),
    "delay_impact": FieldSpec("JK", "-", "gamma", "share of delay deviation removed by pairing", high=1.0),
    "error_impact": FieldSpec("JK", "-", "epsilon[j,k]", "share of error deviation removed", high=1.0),
    "delay_threshold": FieldSpec("I", "ms", "Delta", "promised mean delay"),
    "error_threshold": FieldSpec("I", "fraction", "epsilon", "promised mean error rate"),
    "gamma_delay": FieldSpec("", "-", "Gamma_d", "budget of uncertainty of the delays"),
    "gamma_error": FieldSpec("", "-", "Gamma_e", "budget of uncertainty of the error rates"),
    "budget": FieldSpec("", "$/period", "delta", "most that rental and storage may cost"),
    "rental_hours": FieldSpec("", "h", "Delta_T", "length of the rental period", above_low=True),
    "storage_capacity": FieldSpec("", "GB", "C_s", "room for model weights"),
    "residency_hours": FieldSpec("", "h", "T_res", "time a query's KV cache stays in memory"),
    "unmet_cap": FieldSpec("", "fraction", "u_max", "largest unmet share of a query type", high=1.0),
    "max_routes": FieldSpec("", "-", "R", "most pairs that serve one type, 0 = no limit", integer=True),
    "tp_degree": FieldSpec("N", "GPUs", "n", "tensor-parallel degrees", low=1.0, integer=True),
    "tp_speedup": FieldSpec("N", "-", "s_n", "speed-up of each degree", above_low=True),
}


class Fields(NamedTuple):
    """The numeric fields of one instance, or of a batch (leading axis) where a field varies. Also a JAX pytree.

    Axes: I query types, J models, K GPU configurations, N tensor-parallel degrees; units in `FIELD_SPECS`.
    Source: MODEL section 1.
    """

    arrival_rate: Array  # I, queries/h
    input_tokens: Array  # I, tokens
    output_tokens: Array  # I, tokens
    weight_memory: Array  # J, GB
    kv_per_token: Array  # J, GB/token
    gpu_memory: Array  # K, GB
    gpu_compute: Array  # K, TFLOPs
    gpu_price: Array  # K, $/GPU/h
    compute_per_token: Array  # I, TFLOPs/token
    token_size: Array  # I, MB/token
    storage_price: Array  # scalar, $/GB/h
    delay_penalty: Array  # I, $/ms/query
    unmet_penalty: Array  # I, $/query
    delay_nominal: Array  # I,J,K, ms/token
    delay_deviation: Array  # I,J,K, ms/token
    error_nominal: Array  # I,J,K, fraction
    error_deviation: Array  # I,J,K, fraction
    delay_impact: Array  # J,K
    error_impact: Array  # J,K
    delay_threshold: Array  # I, ms
    error_threshold: Array  # I, fraction
    gamma_delay: Array  # scalar
    gamma_error: Array  # scalar
    budget: Array  # scalar, $/period
    rental_hours: Array  # scalar, h
    storage_capacity: Array  # scalar, GB
    residency_hours: Array  # scalar, h
    unmet_cap: Array  # scalar, fraction
    max_routes: Array  # scalar, integer
    tp_degree: Array  # N, GPUs, integer
    tp_speedup: Array  # N


def batch_axes(batched: frozenset[str]) -> Fields:
    """Where `jax.vmap` finds the scenarios in each field: axis 0 where it varies, None where it is shared."""
    return Fields(*(0 if n in batched else None for n in FIELD_SPECS))


def tokens_per_query(fields: Fields) -> Array:
    """T[i] = h + f, tokens; shape I."""
    return fields.input_tokens + fields.output_tokens


def kv_demand(fields: Fields) -> Array:
    """KV cache in GB when type i is served whole by model j, before dividing by the degree; shape I,J."""
    per_type = tokens_per_query(fields) * fields.arrival_rate * fields.residency_hours
    return per_type[:, None] * fields.kv_per_token[None, :]


def compute_demand(fields: Fields) -> Array:
    """alpha_i T_i, TFLOPs; shape I."""
    return fields.compute_per_token * tokens_per_query(fields)


def stored_data(fields: Fields) -> Array:
    """Data of one hour's arrivals, GB; shape I."""
    return fields.token_size * tokens_per_query(fields) * fields.arrival_rate / 1000.0


def worst_case_inputs(fields: Fields, uncertainty: str) -> tuple[Array, Array, Array, Array]:
    """Deviations and budgets of uncertainty that the adversary really has, after the mode is applied.

    ``none`` sets both budgets to 0; ``diu`` ignores the impact of pairing; ``ddu`` shrinks each deviation by
    ``1 - impact``: a deviation only matters where the pair serves (z = 1, as x <= z), so the product with z
    collapses (MODEL section 3). Leading axes of a batch pass through.

    Returns:
      delay deviation (I,J,K; ms/token), error deviation (I,J,K; fraction), Gamma_d, Gamma_e.
    """
    keep = 1.0 if uncertainty == "ddu" else 0.0
    active = 0.0 if uncertainty == "none" else 1.0
    return (
        fields.delay_deviation * (1.0 - keep * fields.delay_impact)[..., None, :, :],
        fields.error_deviation * (1.0 - keep * fields.error_impact)[..., None, :, :],
        active * fields.gamma_delay,
        active * fields.gamma_error,
    )
