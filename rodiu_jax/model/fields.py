"""The fields of one scenario: axes, units and admissible values, and what is derived from them.

No JAX here: solver processes load this module and must start fast.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

Array: TypeAlias = Any

Uncertainty = Literal["none", "diu", "ddu"]
UNCERTAINTY_MODES: tuple[str, ...] = get_args(Uncertainty)

AXES = {"I": "query", "J": "model", "K": "gpu", "N": "tensor-parallel degree"}
NAME_FIELDS = ("query_names", "model_names", "gpu_names")


@dataclass(frozen=True)
class FieldSpec:
    """What one field of an instance is: its axes (letters of `AXES`), unit, symbol and admissible values.

    Attributes:
      low, high: the admissible range, without its ends where ``above_low``, ``below_high``.
      infinite: inf is admissible too, and means that there is no limit.
      absent: what a field that may be left out means then; None for a field that every scenario must have. It is held
        as a single number where it has axes, so that the number of axes alone says that it is absent.
      also: axes that it may have instead of ``axes``, where measured values are finer.
      derived: made when scenarios are assembled or prepared for a solver, and in no file.
    """

    axes: str
    unit: str
    symbol: str
    meaning: str
    low: float = 0.0
    above_low: bool = False
    high: float = np.inf
    integer: bool = False
    below_high: bool = False
    infinite: bool = False
    absent: float | None = None
    also: str | None = None
    derived: bool = False

    @property
    def expected(self) -> str:
        """The admissible values in words."""
        kind = "whole numbers" if self.integer else "numbers" if self.infinite else "finite numbers"
        text = f"{kind} {'>' if self.above_low else '>='} {self.low:g}"
        text += " and < 2^53" if self.integer else ""
        text += f" and {'<' if self.below_high else '<='} {self.high:g}" if np.isfinite(self.high) else ""
        return text + (", or inf" if self.infinite else "")

    def bad(self, values: Shaped[np.ndarray, "*n"]) -> Bool[np.ndarray, "*n"]:
        """Return the mask of the values that are not admissible."""
        inside = ~np.isnan(values) if self.infinite else np.isfinite(values)
        inside &= (values < self.high) if self.below_high else (values <= self.high)
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
    "residency_hours": FieldSpec("", "h", "T_res", "time a query's KV cache stays in memory", also="IJK"),
    "unmet_cap": FieldSpec("", "fraction", "u_max", "largest unmet share of a query type", high=1.0),
    "max_routes": FieldSpec("", "-", "R", "most pairs that serve one type, 0 = no limit", integer=True),
    "tp_degree": FieldSpec("N", "GPUs", "n", "tensor-parallel degrees", low=1.0, integer=True),
    "tp_speedup": FieldSpec("N", "-", "s_n", "speed-up of each degree", above_low=True, also="IJKN"),
    "max_replicas": FieldSpec("JK", "-", "R_jk", "most replicas of a pair", integer=True, absent=1.0),
    "throughput": FieldSpec(
        "IJKN", "queries/h", "q", "what one replica sustains of a type alone", infinite=True, absent=np.inf
    ),
    "throughput_shortfall": FieldSpec(
        "IJK",
        "fraction",
        "s",
        "largest missing part of the throughput",
        high=1.0,
        below_high=True,
        absent=0.0,
    ),
    "gamma_throughput": FieldSpec("", "-", "Gamma_q", "budget of uncertainty of the throughputs", absent=0.0),
    "max_utilization": FieldSpec(
        "", "fraction", "U", "most load of a replica", above_low=True, high=1.0, absent=1.0
    ),
    "gpu_quota": FieldSpec("K", "GPUs", "Q", "most GPUs of a device", infinite=True, absent=np.inf),
    "gpu_device": FieldSpec(
        "K", "-", "-", "first configuration of the same device", integer=True, absent=0.0, derived=True
    ),
    "fewest_replicas": FieldSpec(
        "N",
        "-",
        "-",
        "fewest replicas of an option (`solvers.options`)",
        integer=True,
        absent=1.0,
        derived=True,
    ),
    "largest_replicas": FieldSpec(
        "N", "-", "-", "most replicas of an option", integer=True, absent=1.0, derived=True
    ),
}

REQUIRED_FIELDS = tuple(n for n, spec in FIELD_SPECS.items() if spec.absent is None)
"""The fields that every scenario must have."""

PROMISE = "promise"
"""What sweeps and changes call the limits of a catalogue's promises, of which throughputs are read off curves."""

VARIED_SPECS = FIELD_SPECS | {PROMISE: FieldSpec("I", "ms", "-", "promised latencies", above_low=True)}
"""What a factor of a sweep may vary: the fields, and promises."""

FILE_FIELDS = tuple(n for n, spec in FIELD_SPECS.items() if not spec.derived)
"""The fields that files hold and changes may name."""


class Fields(NamedTuple):
    """The numeric fields of one scenario, or of a batch (leading axis B) where a field varies. Also a JAX pytree.

    Axes: I query types, J models, K GPU configurations, N tensor-parallel degrees; units in `FIELD_SPECS`. The arrays
    are NumPy's or JAX's; what is derived from them below works for both. A field that is absent is a single number
    (`absent_fields`). Source: MODEL sections 1 and 9.
    """

    arrival_rate: Float[Any, "*B I"]  # queries/h
    input_tokens: Float[Any, "*B I"]  # tokens
    output_tokens: Float[Any, "*B I"]  # tokens
    weight_memory: Float[Any, "*B J"]  # GB
    kv_per_token: Float[Any, "*B J"]  # GB/token
    gpu_memory: Float[Any, "*B K"]  # GB
    gpu_compute: Float[Any, "*B K"]  # TFLOPs
    gpu_price: Float[Any, "*B K"]  # $/GPU/h
    compute_per_token: Float[Any, "*B I"]  # TFLOPs/token
    token_size: Float[Any, "*B I"]  # MB/token
    storage_price: Float[Any, "*B"]  # $/GB/h
    delay_penalty: Float[Any, "*B I"]  # $/ms/query
    unmet_penalty: Float[Any, "*B I"]  # $/query
    delay_nominal: Float[Any, "*B I J K"]  # ms/token
    delay_deviation: Float[Any, "*B I J K"]  # ms/token
    error_nominal: Float[Any, "*B I J K"]  # fraction
    error_deviation: Float[Any, "*B I J K"]  # fraction
    delay_impact: Float[Any, "*B J K"]
    error_impact: Float[Any, "*B J K"]
    delay_threshold: Float[Any, "*B I"]  # ms
    error_threshold: Float[Any, "*B I"]  # fraction
    gamma_delay: Float[Any, "*B"]
    gamma_error: Float[Any, "*B"]
    budget: Float[Any, "*B"]  # $/period
    rental_hours: Float[Any, "*B"]  # h
    storage_capacity: Float[Any, "*B"]  # GB
    residency_hours: Float[Any, "*B"] | Float[Any, "*B I J K"]  # h
    unmet_cap: Float[Any, "*B"]  # fraction
    max_routes: Int[Any, "*B"]
    tp_degree: Int[Any, "*B N"]  # GPUs
    tp_speedup: Float[Any, "*B N"] | Float[Any, "*B I J K N"]
    max_replicas: Int[Any, "*B J K"] | Int[Any, ""]
    throughput: Float[Any, "*B I J K N"] | Float[Any, ""]  # queries/h
    throughput_shortfall: Float[Any, "*B I J K"] | Float[Any, ""]  # fraction
    gamma_throughput: Float[Any, "*B"]
    max_utilization: Float[Any, "*B"]  # fraction
    gpu_quota: Float[Any, "*B K"] | Float[Any, ""]  # GPUs
    gpu_device: Int[Any, " K"] | Int[Any, ""]  # position of the first configuration of the same device
    fewest_replicas: Int[Any, " N"] | Int[Any, ""]
    largest_replicas: Int[Any, " N"] | Int[Any, ""]


def axes_of(name: str, dimensions: int) -> str:
    """Return the axes (letters) that an array of a field has, its batch axis left out; none where it is absent.

    Raises:
      ValueError: no array of the field has that many dimensions.
    """
    spec = FIELD_SPECS[name]
    if dimensions == 0 and spec.absent is not None:
        return ""
    for axes in (spec.axes, spec.also):
        if axes is not None and dimensions - len(axes) in (0, 1):
            return axes
    raise ValueError(f"{name} with {dimensions} dimensions")


def absent_fields() -> dict[str, np.ndarray]:
    """Return how the fields that may be left out are held then."""
    return {
        n: np.asarray(spec.absent, np.int64 if spec.integer else np.float64)
        for n, spec in FIELD_SPECS.items()
        if spec.absent is not None
    }


def is_absent(name: str, values: Array) -> bool:
    """True if a field is left out; a single number at its default means the same."""
    spec = FIELD_SPECS[name]
    if spec.absent is None or np.ndim(values):
        return False
    return bool(spec.axes) or float(values) == spec.absent


# What scenarios use of MODEL section 9, known from the shapes alone: also while a program is traced, of one scenario.


def has_replicas(fields: Fields) -> bool:
    """True if a pair may have more than one replica."""
    return np.ndim(fields.max_replicas) > 0


def has_options(fields: Fields) -> bool:
    """True if the axis of degrees is one of options: a degree with a range of replicas (`solvers.options`)."""
    return np.ndim(fields.largest_replicas) > 0


def has_rates(fields: Fields) -> bool:
    """True if replicas sustain limited rates (throughput)."""
    return np.ndim(fields.throughput) > 0


def has_quotas(fields: Fields) -> bool:
    """True if the GPUs of a device are limited."""
    return np.ndim(fields.gpu_quota) > 0


def uses_serving(fields: Fields) -> bool:
    """True if a constraint or decision of MODEL section 9 exists."""
    return has_replicas(fields) or has_rates(fields) or has_quotas(fields)


def has_pair_values(fields: Fields) -> bool:
    """True if a speed-up or a residency is stated per type and pair."""
    return axes_of("tp_speedup", np.ndim(fields.tp_speedup)) == "IJKN" or (
        axes_of("residency_hours", np.ndim(fields.residency_hours)) == "IJK"
    )


def batch_axes(batched: frozenset[str]) -> Fields:
    """Return where `jax.vmap` finds the scenarios in each field: axis 0 where it varies, None where it is shared."""
    return Fields(*(0 if n in batched else None for n in FIELD_SPECS))


SETTLED_MODE = "diu"
"""The mode in which `settle` leaves scenarios: deviations and budgets count as they are."""


def settle(fields: Fields, uncertainty: str) -> Fields:
    """Apply the mode to one scenario; in `SETTLED_MODE` it means afterwards what it meant in ``uncertainty``."""
    delay, error, gamma_delay, gamma_error = worst_case_inputs(fields, uncertainty)
    return fields._replace(
        delay_deviation=delay,
        error_deviation=error,
        gamma_delay=gamma_delay,
        gamma_error=gamma_error,
        gamma_throughput=throughput_budget(fields, uncertainty),
    )


def select_scenarios(fields: Fields, rows: Any, batched: frozenset[str]) -> Fields:
    """Return the fields of some scenarios; what all of them share stays as it is.

    Args:
      rows: positions on the batch axis, as NumPy and JAX index: of a slice, arrays of NumPy are views.
      batched: names of the fields that have a batch axis.
    """
    return Fields(*(v[rows] if n in batched else v for n, v in zip(FIELD_SPECS, fields, strict=True)))


def tokens_per_query(fields: Fields) -> Float[Any, "*B I"]:
    """Return T[i] = h + f, tokens."""
    return fields.input_tokens + fields.output_tokens


def kv_demand(fields: Fields) -> Float[Any, "I J #K"]:
    """Return the KV cache (GB) when model j serves type i whole, before dividing by the degree.

    The axis K has length 1 where queries stay in memory equally long on every pair.
    """
    traffic = tokens_per_query(fields) * fields.arrival_rate
    if np.ndim(fields.residency_hours):
        return (traffic[:, None, None] * fields.residency_hours) * fields.kv_per_token[None, :, None]
    per_type = traffic * fields.residency_hours
    return (per_type[:, None] * fields.kv_per_token[None, :])[..., None]


LARGEST_LOAD = 1e30
"""Loads above this, in replicas, count as this: they are as good as infinite, and no product of them overflows."""


def replica_load(rate: Float[Any, "*m"], throughput: Float[Any, "*n"]) -> Float[Any, "*n"]:
    """Return the part of one replica that serving types whole takes; inf where it cannot serve them.

    Args:
      rate: queries/h; ``throughput``: queries/h, inf where not limited.
    """
    xp = throughput.__array_namespace__()
    able = throughput > 0
    sustained = xp.maximum(xp.where(able, throughput, 1.0), rate / LARGEST_LOAD)
    return xp.where(able, xp.minimum(rate / sustained, LARGEST_LOAD), xp.inf)


def extra_load(load: Float[Any, "*n"], shortfall: Float[Any, "*m"]) -> Float[Any, "*n"]:
    """Return the load that a shortfall adds: l s / (1 - s); 0 where the type cannot be served."""
    xp = load.__array_namespace__()
    able = xp.isfinite(load)
    extra = xp.where(able, load, 0.0) * (shortfall / (1.0 - shortfall))
    return xp.minimum(extra, LARGEST_LOAD)


def throughput_budget(fields: Fields, uncertainty: str) -> Float[Any, ""]:
    """Return Gamma_q once the mode is applied."""
    return fields.gamma_throughput * 0.0 if uncertainty == "none" else fields.gamma_throughput


def compute_demand(fields: Fields) -> Float[Any, "*B I"]:
    """Return alpha_i T_i, TFLOPs."""
    return fields.compute_per_token * tokens_per_query(fields)


def stored_data(fields: Fields) -> Float[Any, "*B I"]:
    """Return the data of one hour's arrivals, GB."""
    return fields.token_size * tokens_per_query(fields) * fields.arrival_rate / 1000.0


def worst_case_inputs(
    fields: Fields, uncertainty: str
) -> tuple[Float[Any, "... I J K"], Float[Any, "... I J K"], Float[Any, "*_"], Float[Any, "*_"]]:
    """Return the deviations and budgets of uncertainty that the adversary has once the mode is applied.

    ``none`` sets both budgets to 0; ``diu`` ignores the impact of pairing; ``ddu`` shrinks each deviation by
    ``1 - impact``: a deviation only matters where the pair serves (z = 1, as x <= z), so the product with z
    collapses (MODEL section 3). Leading axes of a batch pass through.

    Returns:
      delay deviation (ms/token), error deviation (fraction), Gamma_d, Gamma_e.
    """
    keep = 1.0 if uncertainty == "ddu" else 0.0
    active = 0.0 if uncertainty == "none" else 1.0
    return (
        fields.delay_deviation * (1.0 - keep * fields.delay_impact)[..., None, :, :],
        fields.error_deviation * (1.0 - keep * fields.error_impact)[..., None, :, :],
        active * fields.gamma_delay,
        active * fields.gamma_error,
    )
