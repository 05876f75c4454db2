"""Costs, margins and feasibility of plan x instance pairs, in batch on the device, in float64.

One pair's mathematics is written once and batched by `vmap` over a fixed chunk of instances and a fixed block of
plans, so the number of pairs never recompiles anything. Deployed pairs are few: each pair gathers only the I x D
cells it needs (D slots of `PlanArrays`) and never touches the I x J x K block again; where each plan meets one scenario
only, the host gathers them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Float64, Int

from rodiu_jax.model.fields import (
    FIELD_SPECS,
    Fields,
    axes_of,
    batch_axes,
    extra_load,
    has_quotas,
    has_rates,
    has_replicas,
    replica_load,
    stored_data,
    throughput_budget,
    tokens_per_query,
    uses_serving,
)
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import Plan, PlanArrays, plan_arrays
from rodiu_jax.model.scenario_blocks import run_scenarios
from rodiu_jax.model.tolerances import MARGIN_TOLERANCE
from rodiu_jax.model.uncertainty import worst_case
from rodiu_jax.model.verdict import COSTS
from rodiu_jax.runtime.block_sizes import BlockSize, block_size
from rodiu_jax.runtime.blocks import RUNNER
from rodiu_jax.runtime.kept_programs import kept_program

if TYPE_CHECKING:
    import pandas as pd

_MOST_PLANS = 64
"""Plans of a compiled block: more scenarios beside fewer plans keep a device as busy and take less memory."""


class Scores(NamedTuple):
    """Of one pair: ``costs`` in the order of `COSTS`, smallest ``margins`` in that of `Instances.families`, and the
    position of the binding constraint in the families laid end to end (see `_layout`)."""

    costs: Float64[Array | np.ndarray, "*pairs 5"]  # $ per rental period
    margins: Float64[Array | np.ndarray, "*pairs F"]
    binding: Int[Array | np.ndarray, "*pairs"]


def _relative(limit: Float[Array, "*n"], value: Float[Array, "*m"]) -> Float[Array, "*m"]:
    return (limit - value) / _scale(limit)


_OF_SLOTS = tuple(n for n, spec in FIELD_SPECS.items() if set("JKN") & {*spec.axes, *(spec.also or "")})
"""Fields of which a plan's slots take some values."""


class _Slots:
    """A plan's slots, D, as positions in the fields of its scenario; or those of R plans, each with its own scenario.

    Args:
      plan: of NumPy's arrays or JAX's.
      scenario: (R,) positions of the scenarios in the batch, where there are R plans.
    """

    def __init__(self, plan: PlanArrays, scenario: Int[np.ndarray, " R"] | None = None) -> None:
        xp = np if isinstance(plan.degree, np.ndarray) else jnp
        self._at = {"J": plan.model, "K": plan.gpu, "N": xp.maximum(plan.degree, 0)}  # D, or R,D
        self._scenario = scenario
        self._known: dict[tuple[str, bool], Any] = {}

    def of(self, name: str, value: Any, *, batched: bool = False) -> Any:
        """Return a field at the slots: (I,D) or (D,), or with a leading R; what has no axis of theirs as it is."""
        axes = axes_of(name, value.ndim - batched)
        if not set("JKN") & set(axes):
            return value
        if (axes, batched) not in self._known:
            self._known[axes, batched] = self._positions(axes, value.shape[batched:], batched=batched)
        flat, positions = value.reshape(-1), self._known[axes, batched]
        return flat.take(positions) if isinstance(value, np.ndarray) else flat[positions]

    def _positions(self, axes: str, shape: tuple[int, ...], *, batched: bool) -> Any:
        """Return where the values are in the flattened field, whose axes have this shape."""
        by_type = "I" in axes
        found: Any = self._scenario if batched else 0
        if batched:
            found = found[:, None, None] if by_type else found[:, None]
        for axis, size in zip(axes, shape, strict=True):
            if axis == "I":
                at = np.arange(size, dtype=self._at["J"].dtype)[:, None]
            else:
                at = self._at[axis][..., None, :] if by_type else self._at[axis]
            found = found * size + at
        return found


def score(fields: Fields, plan: PlanArrays, uncertainty: str) -> Scores:
    """Costs and margins of one plan (no leading axis) on one instance (no batch axis).

    Source: MODEL sections 3 to 5 and 9; the scale of margins is told in `rodiu_jax.model.verdict.Verdict`.
    """
    slots = _Slots(jax.tree.map(jnp.asarray, plan))
    chosen = {n: slots.of(n, jnp.asarray(getattr(fields, n))) for n in _OF_SLOTS}
    return _score_slots(fields._replace(**chosen), plan, uncertainty)


def _score_slots(fields: Fields, plan: PlanArrays, uncertainty: str) -> Scores:
    """`score`, of fields at the plan's slots (`_Slots`)."""
    share, unmet = jnp.asarray(plan.share), jnp.asarray(plan.unmet)  # I,D and I
    used = plan.degree >= 0
    gpus = jnp.where(used, fields.tp_degree, 0).astype(share.dtype)  # D
    tokens = tokens_per_query(fields)
    speed = jnp.atleast_2d(fields.tp_speedup)  # I,D or 1,D
    replicas = jnp.where(used, plan.replicas, 1).astype(share.dtype)
    rented = gpus * replicas if has_replicas(fields) else gpus
    decides = 1.0 if uncertainty == "ddu" else 0.0
    active = 0.0 if uncertainty == "none" else 1.0

    time_share = tokens[:, None] * share / speed
    delay_excess = (1.0 - decides * fields.delay_impact)[None, :] * time_share
    error_excess = (1.0 - decides * fields.error_impact)[None, :] * share
    types = unmet.shape
    delay = (fields.delay_nominal * time_share).sum(-1) + worst_case(
        fields.delay_deviation * delay_excess, jnp.broadcast_to(active * fields.gamma_delay, types)
    )
    error = (fields.error_nominal * share).sum(-1) + worst_case(
        fields.error_deviation * error_excess, jnp.broadcast_to(active * fields.gamma_error, types)
    )

    served = share.sum(-1)
    weights = jnp.where(used, fields.weight_memory, 0.0)
    hours = fields.rental_hours
    rental = hours * (fields.gpu_price * rented).sum()
    storage = hours * fields.storage_price * (weights.sum() + (stored_data(fields) * served).sum())
    delay_cost = hours * (fields.delay_penalty * fields.arrival_rate * delay).sum()
    unmet_cost = hours * (fields.unmet_penalty * fields.arrival_rate * unmet).sum()
    costs = jnp.stack([rental + storage + delay_cost + unmet_cost, rental, storage, delay_cost, unmet_cost])

    if np.ndim(fields.residency_hours):
        traffic = (tokens * fields.arrival_rate)[:, None] * fields.residency_hours
    else:
        traffic = (tokens * fields.arrival_rate * fields.residency_hours)[:, None]
    kv = fields.kv_per_token * (traffic * share).sum(0)  # traffic: tokens resident when served whole
    compute = ((fields.compute_per_token * tokens)[:, None] * share).sum(0)
    safe_gpus = jnp.maximum(gpus, 1.0)
    held, power = weights + kv, fields.gpu_compute * safe_gpus
    if has_replicas(fields):
        held, power = weights + kv / replicas, power * replicas
    limit = jnp.asarray(fields.max_routes).astype(share.dtype)
    routes = jnp.where(
        limit > 0, 1.0 - (share > 0).sum(-1).astype(share.dtype) / jnp.maximum(limit, 1.0), jnp.inf
    )
    families = {
        "demand": -jnp.abs(served + unmet - 1.0),
        "unmet": _relative(jnp.broadcast_to(fields.unmet_cap, types), unmet),
        "routes": routes,
        "memory": jnp.where(used, _relative(fields.gpu_memory, held / safe_gpus), jnp.inf),
        "compute": jnp.where(used, _relative(power, compute), jnp.inf),
        "storage": _relative(fields.storage_capacity, weights.sum())[None],
        "budget": _relative(fields.budget, rental + storage)[None],
        "delay": (fields.delay_threshold * served - delay) / _scale(fields.delay_threshold),
        "error": (fields.error_threshold * served - error) / _scale(fields.error_threshold),
    }
    if uses_serving(fields):
        families |= {
            "throughput": _throughput_margins(fields, plan, replicas, uncertainty),
            "quota": _quota_margins(fields, plan, rented),
            "replicas": jnp.where(used, _replica_margins(fields, plan, replicas), jnp.inf),
        }
    margins = jnp.stack([margin.min() for margin in families.values()])
    # What often holds with equality binds only when broken.
    ranked = families | {
        name: jnp.where(families[name].min() >= -MARGIN_TOLERANCE, jnp.inf, families[name])
        for name in ("demand", "replicas")
        if name in families
    }
    return Scores(costs, margins, jnp.argmin(jnp.concatenate([ranked[name] for name in families])))


def _throughput_margins(
    fields: Fields, plan: PlanArrays, replicas: Float[Array, " D"], uncertainty: str
) -> Float[Array, " D"]:
    """(U r - load) / (U r) of every slot; -inf where a type is sent to a slot that cannot serve it."""
    used, share = plan.degree >= 0, jnp.asarray(plan.share)
    if not has_rates(fields):
        return jnp.full(used.shape, jnp.inf, share.dtype)
    load = replica_load(fields.arrival_rate[:, None], fields.throughput)  # I,D
    extra = extra_load(load, fields.throughput_shortfall)
    carried = jnp.where(share > 0, load, 0.0) * share
    gamma = jnp.broadcast_to(throughput_budget(fields, uncertainty), used.shape)
    total = carried.sum(0) + worst_case((extra * share).T, gamma)
    return jnp.where(used, _relative(fields.max_utilization * replicas, total), jnp.inf)


def _quota_margins(fields: Fields, plan: PlanArrays, rented: Float[Array, " D"]) -> Float[Array, " D"]:
    """(quota - GPUs) / quota of the device of every slot; inf without a quota."""
    used = plan.degree >= 0
    if not has_quotas(fields):
        return jnp.full(used.shape, jnp.inf, rented.dtype)
    device, quota = fields.gpu_device, fields.gpu_quota
    together = jnp.where(device[:, None] == device[None, :], rented[None, :], 0.0).sum(1)
    limited = used & jnp.isfinite(quota)
    return jnp.where(limited, _relative(jnp.where(limited, quota, 1.0), together), jnp.inf)


def _replica_margins(fields: Fields, plan: PlanArrays, replicas: Float[Array, " D"]) -> Float[Array, " D"]:
    """(limit - replicas) / limit of every slot."""
    most = jnp.asarray(fields.max_replicas).astype(replicas.dtype)
    return _relative(jnp.broadcast_to(most, replicas.shape), replicas)


def _scale(limit: Float[Array, "*n"]) -> Float[Array, "*n"]:
    return jnp.where(limit > 0, limit, 1.0)


@kept_program("uncertainty", "batched")
def _score_pair_block(
    fields: Fields, plans: PlanArrays, *, uncertainty: str, batched: frozenset[str]
) -> Scores:
    """C plans, each on its own instance, whose fields are at the plan's slots."""
    one = partial(_score_slots, uncertainty=uncertainty)
    return jax.vmap(one, in_axes=(batch_axes(batched), 0))(fields, plans)


@kept_program("uncertainty", "batched")
def _score_crossed_block(
    fields: Fields, plans: PlanArrays, *, uncertainty: str, batched: frozenset[str]
) -> Scores:
    """C instances against the same Q plans each."""
    one = partial(score, uncertainty=uncertainty)
    per_plan = jax.vmap(one, in_axes=(None, 0))
    return jax.vmap(per_plan, in_axes=(batch_axes(batched), None))(fields, plans)


def _block_size(instances: Instances, plans: int) -> BlockSize:
    """Scenarios in a block, each with ``plans`` plans: a power of two within the bytes and pairs of the table."""
    bytes_per_scenario = sum(getattr(instances.fields, n)[:1].nbytes for n in instances.batched)
    return block_size("evaluate", bytes_per_row=max(bytes_per_scenario, 1), rows_per_scenario=plans)


def score_pairs(
    instances: Instances,
    plans: PlanArrays,
    plan_index: Int[np.ndarray, " M"],
    instance_index: Int[np.ndarray, " M"],
) -> Scores:
    """Score plan ``plan_index[m]`` on instance ``instance_index[m]`` for every m (NumPy float64 results).

    A plan uses a hundredth of its scenario's numbers: the host picks them out, and only these are sent to the device.
    """
    take, static = _take_pairs(instances, plans, plan_index, instance_index)
    with jax.enable_x64(True):
        return RUNNER.run(_score_pair_block, take, len(plan_index), block_size("evaluate pairs"), **static)


def _take_pairs(
    instances: Instances,
    plans: PlanArrays,
    plan_index: Int[np.ndarray, " M"],
    instance_index: Int[np.ndarray, " M"],
) -> tuple[Callable[[Int[np.ndarray, " C"]], tuple[Fields, PlanArrays]], dict[str, Any]]:
    """Return what picks the arguments of `_score_pair_block` for some of M pairs, and its static ones."""
    batch = instances.as_batch()
    values = Fields(*(np.asarray(v) for v in batch.fields))
    of_slots = {n for n in _OF_SLOTS if axes_of(n, getattr(values, n).ndim - (n in batch.batched))}

    def take(rows: Int[np.ndarray, " C"]) -> tuple[Fields, PlanArrays]:
        mine, scenario = PlanArrays(*(a[plan_index[rows]] for a in plans)), instance_index[rows]
        slots = _Slots(mine, scenario)
        chosen = {n: slots.of(n, getattr(values, n), batched=n in batch.batched) for n in of_slots}
        whole = {n: getattr(values, n)[scenario] for n in batch.batched - of_slots}
        return values._replace(**chosen, **whole), mine

    return take, {"uncertainty": batch.uncertainty, "batched": batch.batched | of_slots}


def score_crossed(instances: Instances, plans: PlanArrays) -> Scores:
    """Score every plan on every instance; the results have leading axes (plans, instances)."""
    batch = instances.as_batch()
    count = len(plans.model)
    size = min(_MOST_PLANS, 1 << max(count - 1, 0).bit_length())
    blocks = [np.arange(first, first + size) for first in range(0, count, size)]
    chosen = [PlanArrays(*(a[np.where(at < count, at, at[0])] for a in plans)) for at in blocks]
    with jax.enable_x64(True):
        scores = run_scenarios(
            _score_plan_blocks, batch, np.arange(batch.size), (), _block_size(batch, size), plans=chosen
        )
    joined = (np.concatenate(parts, axis=1)[:, :count] for parts in zip(*scores, strict=True))
    return Scores(*(a.swapaxes(0, 1) for a in joined))


def _score_plan_blocks(
    fields: Fields, *, plans: list[PlanArrays], uncertainty: str, batched: frozenset[str]
) -> list[Scores]:
    """C instances, which are sent to the device once, against several blocks of plans."""
    fields = jax.device_put(fields)
    return [_score_crossed_block(fields, block, uncertainty=uncertainty, batched=batched) for block in plans]


def evaluate(plans: Sequence[Plan], instances: Instances) -> pd.DataFrame:
    """Evaluate each plan on its instance, or on all of them where its ``instance`` is None.

    Returns:
      A row per (plan, instance), sorted: ``plan``, ``instance``, ``feasible``, the costs in $ per rental period,
      ``margin_<family>`` for every family that the instances have (see `rodiu_jax.model.verdict.Verdict`), ``binding``.

    Raises:
      InputError: a plan names an instance that does not exist, or as `rodiu_jax.model.plan.validate_plan`.
    """
    arrays = plan_arrays(plans, instances)
    everywhere = [p for p, plan in enumerate(plans) if plan.instance is None]
    single = [p for p, plan in enumerate(plans) if plan.instance is not None]
    for p in single:
        instances.check_index(plans[p].instance or 0, source=f"plan {p}")
    nothing = np.zeros(0, np.int64)
    no_scores = Scores(np.zeros((0, len(COSTS))), np.zeros((0, len(instances.families))), nothing)
    tables = [_table(instances, arrays, nothing, nothing, no_scores)]
    if single:
        plan_index = np.array(single)
        instance_index = np.array([plans[p].instance for p in single])
        scores = score_pairs(instances, arrays, plan_index, instance_index)
        tables.append(_table(instances, arrays, plan_index, instance_index, scores))
    if everywhere:
        crossed = score_crossed(instances, PlanArrays(*(a[everywhere] for a in arrays)))
        flat = Scores(*(np.asarray(a).reshape(-1, *a.shape[2:]) for a in crossed))
        plan_index = np.repeat(everywhere, instances.size)
        instance_index = np.tile(np.arange(instances.size), len(everywhere))
        tables.append(_table(instances, arrays, plan_index, instance_index, flat))
    import pandas as pd

    filled = [t for t in tables if len(t)] or tables[:1]
    return pd.concat(filled, ignore_index=True).sort_values(["plan", "instance"], ignore_index=True)


def _table(
    instances: Instances, plans: PlanArrays, plan: np.ndarray, instance: np.ndarray, scores: Scores
) -> pd.DataFrame:
    import pandas as pd

    margins, costs = np.asarray(scores.margins), np.asarray(scores.costs)
    assert margins.dtype == costs.dtype == np.float64, "verdicts are float64 on every device"
    shares_valid = np.logical_and(
        (plans.share >= 0).all((1, 2)), (plans.unmet >= 0).all(1)
    )  # files are refused earlier
    return pd.DataFrame(
        {
            "plan": plan.astype(np.int64),
            "instance": instance.astype(np.int64),
            "feasible": (margins >= -MARGIN_TOLERANCE).all(-1) & shares_valid[plan],
            **{name: costs[:, c] for c, name in enumerate(COSTS)},
            **{f"margin_{name}": margins[:, c] for c, name in enumerate(instances.families)},
            "binding": name_binding(instances, plans, plan, np.asarray(scores.binding)),
        }
    )


_PAIR_FAMILIES = ("memory", "compute", "throughput", "quota", "replicas")
"""Families of a constraint per deployed pair; of its device, for quotas."""


def _layout(families: Sequence[str], types: int, slots: int) -> dict[str, int]:
    """Number of constraints of each family, in the order that `score` lays them end to end."""
    count = dict.fromkeys(families, types) | {"storage": 1, "budget": 1}
    return {name: slots if name in _PAIR_FAMILIES else count[name] for name in families}


def name_binding(instances: Instances, plans: PlanArrays, plan: np.ndarray, code: np.ndarray) -> np.ndarray:
    """Names such as ``delay[Code_Gen]`` or ``memory[Llama-3.1-8B,H100_FP16]`` of positions in the layout."""
    pair_names = np.array(
        [f"{m},{g}" for m in instances.model_names for g in instances.gpu_names], dtype=object
    )
    device_names = np.array([d for _ in instances.model_names for d in instances.gpu_devices], dtype=object)
    pair_code = plans.model.astype(np.int64) * len(instances.gpu_names) + plans.gpu
    result = np.empty(len(code), dtype=object)
    first = 0
    for family, count in _layout(
        instances.families, len(instances.query_names), plans.model.shape[1]
    ).items():
        rows = np.flatnonzero((code >= first) & (code < first + count))
        inside = code[rows] - first
        if family in ("storage", "budget"):
            result[rows] = family
        else:
            pairs = family in _PAIR_FAMILIES
            names = pair_names if pairs else np.array(instances.query_names, dtype=object)
            names = device_names if family == "quota" else names
            full = np.array([f"{family}[{n}]" for n in names], dtype=object)
            result[rows] = full[pair_code[plan[rows], inside] if pairs else inside]
        first += count
    return result
