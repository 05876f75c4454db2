"""Instances of the deployment problem: the fields of one scenario, a batch of them, and their ``.npz`` file.

No JAX here: solver processes load this module and must start fast.
"""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, TypeAlias, get_args

import numpy as np

from rodiu_jax.errors import InputError, nearest
from rodiu_jax.io.files import MOST_BYTES, open_file, size_text, write_whole

Array: TypeAlias = Any
"""An array of NumPy or of JAX; the mathematics below is written for both."""

Uncertainty = Literal["none", "diu", "ddu"]
UNCERTAINTY_MODES: tuple[str, ...] = get_args(Uncertainty)

AXES = {"I": "query", "J": "model", "K": "gpu", "N": "tensor-parallel degree"}
_NAME_FIELDS = ("query_names", "model_names", "gpu_names")


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
    collapses (MODEL section 3).

    Returns:
      delay deviation (I,J,K; ms/token), error deviation (I,J,K; fraction), Gamma_d, Gamma_e.
    """
    keep = 1.0 if uncertainty == "ddu" else 0.0
    active = 0.0 if uncertainty == "none" else 1.0
    return (
        fields.delay_deviation * (1.0 - keep * fields.delay_impact)[None],
        fields.error_deviation * (1.0 - keep * fields.error_impact)[None],
        active * fields.gamma_delay,
        active * fields.gamma_error,
    )


@dataclass(frozen=True)
class Instances:
    """A batch of B scenarios over the same names; a field without a leading axis is shared by all of them.

    Construct through `make_instances` (or `load`), which validate.
    """

    query_names: tuple[str, ...]
    model_names: tuple[str, ...]
    gpu_names: tuple[str, ...]
    uncertainty: str
    fields: Fields
    batched: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        varying = {n for n, v in self.fields._asdict().items() if np.ndim(v) > len(FIELD_SPECS[n].axes)}
        object.__setattr__(self, "batched", frozenset(varying))

    @property
    def size(self) -> int:
        """B, the number of scenarios (1 where every field is shared)."""
        return next((getattr(self.fields, n).shape[0] for n in sorted(self.batched)), 1)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(I, J, K, N)."""
        degrees = self.fields.tp_degree.shape[-1]
        return len(self.query_names), len(self.model_names), len(self.gpu_names), degrees

    def axis_names(self, axis: str) -> tuple[str, ...]:
        """Names along axis ``I``, ``J``, ``K`` or ``N`` (degrees as text)."""
        if axis == "N":
            degrees = np.asarray(self.fields.tp_degree)  # the same in every scenario
            return tuple(str(n) for n in degrees.reshape(-1, degrees.shape[-1])[0].tolist())
        return {"I": self.query_names, "J": self.model_names, "K": self.gpu_names}[axis]

    def one(self, b: int) -> Fields:
        """The fields of scenario ``b``, without batch axis."""
        self.check_index(b)
        return Fields(
            **{n: np.asarray(v[b] if n in self.batched else v) for n, v in self.fields._asdict().items()}
        )

    def check_index(self, b: int, source: str = "instance") -> int:
        """Return ``b`` if there is such a scenario."""
        if not 0 <= b < self.size:
            raise InputError(source, "instance", f"a whole number from 0 to {self.size - 1}", b)
        return b

    def take(self, indices: Sequence[int] | np.ndarray) -> Instances:
        """The scenarios ``indices``, in that order; at least one field is batched in the result."""
        index = np.asarray(indices, dtype=np.int64)
        values = self.fields._asdict()
        taken = {n: (v[index] if n in self.batched else v) for n, v in values.items()}
        if not self.batched:  # all scenarios are alike: keep the count in one field
            taken["budget"] = np.broadcast_to(taken["budget"], index.shape).copy()
        return replace(self, fields=Fields(**taken))

    def with_fields(self, *, source: str = "instances", **values: Any) -> Instances:
        """The same instances with some fields replaced, validated anew."""
        return make_instances(
            self.query_names,
            self.model_names,
            self.gpu_names,
            self.uncertainty,
            {**self.fields._asdict(), **values},
            source=source,
        )

    def with_uncertainty(self, uncertainty: str) -> Instances:
        """The same instances under another uncertainty mode."""
        return replace(self, uncertainty=check_uncertainty(uncertainty, "uncertainty"))

    def save(self, path: str | Path) -> None:
        """Write the ``.npz`` of MODEL section 8, whole or not at all."""
        arrays: dict[str, Any] = dict(self.fields._asdict())
        arrays |= {n: np.array(getattr(self, n), dtype=np.str_) for n in _NAME_FIELDS}
        arrays["uncertainty"] = np.array(self.uncertainty, dtype=np.str_)
        with write_whole(path) as temporary, temporary.open("wb") as stream:
            np.savez(stream, **arrays)


def check_uncertainty(mode: object, source: str | Path) -> str:
    """Return ``mode`` if it is one of the three."""
    if mode not in UNCERTAINTY_MODES:
        raise InputError(source, "uncertainty", " or ".join(UNCERTAINTY_MODES), mode)
    return str(mode)


def check_names(names: Iterable[object], what: str, source: str | Path) -> tuple[str, ...]:
    """Return the names if they are distinct, printable and not empty."""
    result = tuple(str(n) for n in names)
    if not result:
        raise InputError(source, what, "at least one name")
    for n in result:
        if not n.strip() or not n.isprintable():
            raise InputError(source, what, "printable names that are not blank", n)
    doubled = (
        next((n for n in result if result.count(n) > 1), None) if len(set(result)) < len(result) else None
    )
    if doubled is not None:
        raise InputError(source, what, "distinct names", doubled)
    return result


def _check_field(name: str, value: Any, sizes: dict[str, int], source: str | Path) -> np.ndarray:
    spec = FIELD_SPECS[name]
    array = np.asarray(value)
    if array.dtype.kind not in "iuf":
        raise InputError(source, name, "an array of real numbers", str(array.dtype))
    array = array.astype(np.float64)
    shape = tuple(sizes[a] for a in spec.axes)
    if array.shape != shape and (array.ndim != len(shape) + 1 or array.shape[1:] != shape):
        axes = ",".join(spec.axes) or "scalar"
        raise InputError(
            source, name, f"shape {shape} ({axes}) or the same with a leading batch axis", array.shape
        )
    bad = spec.bad(array)
    if bad.any():
        where = tuple(int(i) for i in np.argwhere(bad)[0])
        cell = f"{name}[{','.join(map(str, where))}]" if where else name
        raise InputError(source, cell, f"{spec.expected} ({spec.unit})", float(array[where]))
    return array.astype(np.int64) if spec.integer else array


def make_instances(
    query_names: Iterable[object],
    model_names: Iterable[object],
    gpu_names: Iterable[object],
    uncertainty: object,
    values: dict[str, Any],
    *,
    source: str | Path = "instances",
) -> Instances:
    """Validate and assemble instances.

    Args:
      values: every field of `FIELD_SPECS`, in the shape of its axes or with a leading batch axis.
      source: what errors name as the origin.

    Raises:
      InputError: a field is missing, unknown, of the wrong shape or type, not finite or out of range; batch
        sizes differ; names are not distinct; the mode is unknown.
    """
    names = (
        check_names(query_names, "query_names", source),
        check_names(model_names, "model_names", source),
        check_names(gpu_names, "gpu_names", source),
    )
    if unknown := sorted(set(values) - set(FIELD_SPECS)):
        hint = nearest(unknown[0], FIELD_SPECS)
        raise InputError(source, unknown[0], f"only the fields {', '.join(FIELD_SPECS)}{hint}")
    if missing := [n for n in FIELD_SPECS if n not in values]:
        raise InputError(source, missing[0], "this field, which is missing")
    degrees = np.asarray(values["tp_degree"])
    if degrees.ndim not in (1, 2) or degrees.shape[-1] == 0:
        raise InputError(source, "tp_degree", "shape (N,) with at least one degree", degrees.shape)
    sizes = {"I": len(names[0]), "J": len(names[1]), "K": len(names[2]), "N": degrees.shape[-1]}
    arrays = {n: _check_field(n, values[n], sizes, source) for n in FIELD_SPECS}
    if (np.diff(arrays["tp_degree"], axis=-1) <= 0).any():
        raise InputError(source, "tp_degree", "increasing degrees", arrays["tp_degree"].tolist())
    if arrays["tp_degree"].ndim > 1 and (arrays["tp_degree"] != arrays["tp_degree"][:1]).any():
        # a plan names degrees, and may be meant for all scenarios
        raise InputError(
            source, "tp_degree", "the same degrees in every scenario", arrays["tp_degree"].tolist()
        )
    result = Instances(*names, check_uncertainty(uncertainty, source), Fields(**arrays))
    counts = {n: arrays[n].shape[0] for n in sorted(result.batched)}
    if 0 in counts.values():
        raise InputError(source, min(counts, key=lambda n: counts[n]), "at least one scenario", 0)
    if len(set(counts.values())) > 1:
        usual, _ = Counter(counts.values()).most_common(1)[0]
        odd = [n for n, count in counts.items() if count != usual]
        like = next(n for n, count in counts.items() if count == usual)
        raise InputError(source, ", ".join(odd), f"{usual} scenarios as in {like}", counts[odd[0]])
    return result


_MOST_TIMES = 1000
"""An archive may unpack to this many times its length, or to `MOST_BYTES`, whichever is more."""


def _unpacked(stream: BinaryIO, path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of an archive: the names are looked at, and how much it is, before anything is unpacked."""
    known = {f"{n}.npy": n for n in (*FIELD_SPECS, *_NAME_FIELDS, "uncertainty")}
    most = max(MOST_BYTES, _MOST_TIMES * stream.seek(0, 2))
    stream.seek(0)
    if stream.read(6) == b"\x93NUMPY":
        raise InputError(path, "", "an .npz archive, not a single array")
    values: dict[str, np.ndarray] = {}
    with zipfile.ZipFile(stream) as archive:
        members = archive.infolist()
        for m in members:
            if m.filename not in known:
                hint = nearest(m.filename.removesuffix(".npy"), known.values())
                expected = f"only the fields {', '.join(known.values())}{hint}"
                raise InputError(path, m.filename.removesuffix(".npy"), expected)
        if sum(m.file_size for m in members) > most:
            raise InputError(path, "", f"an archive that unpacks to at most {size_text(most)}")
        for m in members:
            name = known[m.filename]
            if name in values:
                raise InputError(path, name, "each field once")
            with archive.open(m) as file:
                values[name] = np.lib.format.read_array(file, allow_pickle=False)
                if file.read(1):  # the end is also where the checksum is compared
                    raise InputError(path, name, "an array, and nothing after it")
    return values


def load_instances(path: str | Path) -> Instances:
    """Read and validate an ``.npz`` of instances (MODEL section 8), whoever wrote it.

    Raises:
      InputError: as `make_instances`, or the file is missing, damaged or holds pickled objects.
    """
    try:
        with open_file(path) as stream:
            values = _unpacked(stream, path)
    except InputError:
        raise
    except OSError as error:
        raise InputError(path, "", f"a readable .npz file ({error.strerror or 'damaged'})") from None
    except Exception as error:  # zlib.error and whatever else a damaged archive raises
        said = " ".join(str(error).split()) or type(error).__name__
        raise InputError(path, "", f"a whole .npz file without pickled objects ({said})") from None
    texts: dict[str, np.ndarray] = {}
    for n in (*_NAME_FIELDS, "uncertainty"):
        if n not in values:
            raise InputError(path, n, "this field, which is missing")
        texts[n] = values.pop(n)
        axes = 0 if n == "uncertainty" else 1
        if texts[n].dtype.kind != "U" or texts[n].ndim != axes:
            kind = "one text" if axes == 0 else "a list of texts"
            raise InputError(path, n, kind, f"{texts[n].dtype} array of shape {texts[n].shape}")
    mode = str(texts["uncertainty"])
    queries, models, gpus = (texts[n].tolist() for n in _NAME_FIELDS)
    return make_instances(queries, models, gpus, mode, values, source=path)
