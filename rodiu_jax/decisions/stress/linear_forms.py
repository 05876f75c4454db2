"""What deviations can do to a plan: its promises and its cost as linear forms of the deviations, by route.

With xi in [0, 1] per route and a common scale s, type i on scenario b has

    delay[i] = sum_r d_bar T_i x_r / speed + s sum_r a_r xi_r,   a_r = d_hat T_i x_r / speed (shrunk by pairing in ddu)

and errors alike; the plan's cost is its nominal cost plus s sum_i omega_i sum_r a_r xi_r with omega_i = Delta_T rho_i
lambda_i. So one set of xi serves every scale.

Where replicas sustain limited rates (MODEL section 9), shortfalls add to the load of a pair d with r replicas

    load[d] / (U r) = (sum_i l x_id + s sum_i lh x_id chi_i) / (U r),   lh = l s_hat / (1 - s_hat)

with a chi in [0, 1] of its own per route: at 1 the rate falls short by all of `throughput_shortfall`, s_hat. Between 0
and 1 this is at least the load l / (1 - chi s_hat) of a rate that falls short by chi s_hat, which is convex in chi.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64, UInt32

from rodiu_jax.model.evaluation import score_pairs
from rodiu_jax.model.fields import axes_of, extra_load, has_rates, replica_load, worst_case_inputs
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import PlanArrays
from rodiu_jax.model.tolerances import MARGIN_TOLERANCE
from rodiu_jax.model.uncertainty import worst_vertex
from rodiu_jax.runtime.threefry import fold, hash32

PROMISES = ("delay", "error")
"""Families of constraints that deviations can break, a constraint per query type."""

RATES = "throughput"
"""The family that shortfalls of rates can break, a constraint per deployed pair."""

_COEFFICIENT_BITS = 26
"""Significant bits of a coefficient: its product with a xi of 27 bits is exact in float64 (relative error 2^-26)."""


class Forms(NamedTuple):
    """The linear forms of M (plan, scenario) pairs, R routes per type; a missing route has coefficients 0.

    Promises run over delays of the I types, then errors of the I types, then, where scenarios have rates, the loads of
    the E slots of deployed pairs, in units of what the pair may have: D = 2I or 2I + E.
    """

    key0: UInt32[Any, "M I R"]  # threefry key of the route's deviations: the same for every plan
    key1: UInt32[Any, "M I R"]
    delay: Float64[Any, "M I R"]  # ms at xi = 1
    error: Float64[Any, "M I R"]  # fraction at xi = 1
    money: Float64[Any, "M I R"]  # cost that the route adds at xi = 1, divided by ``swing``
    room: Float64[Any, "M D"]  # deviation the promise bears, tolerance included; < 0: broken as measured
    load_key0: UInt32[Any, "M I E"] | None = None  # as above, of the shortfalls; None without rates
    load_key1: UInt32[Any, "M I E"] | None = None
    load: Float64[Any, "M I E"] | None = None  # share of what the pair's load may be, at chi = 1


@dataclass(frozen=True)
class Exposure:
    """M (plan, scenario) pairs: the forms, and what does not move.

    Attributes:
      forms: for the device.
      vertex: (M,D) deviations at the adversary's best point of U(Gamma), scale 1: the worst case W.
      vertex_cost: (M,) what it adds to the cost, $ per period.
      nominal_cost: (M,) $ per period without deviations.
      swing: (M,) $ per period added when every xi is 1.
      broken: (M,) families of other constraints that the plan breaks whatever the deviations, with commas.
    """

    forms: Forms
    vertex: np.ndarray
    vertex_cost: np.ndarray
    nominal_cost: np.ndarray
    swing: np.ndarray
    broken: list[str]


def rounded(values: np.ndarray) -> np.ndarray:
    """The nearest float64 with `_COEFFICIENT_BITS` significant bits."""
    mantissa, exponent = np.frexp(values)
    return np.ldexp(np.round(np.ldexp(mantissa, _COEFFICIENT_BITS)), exponent - _COEFFICIENT_BITS)


def expose(
    instances: Instances,
    plans: PlanArrays,
    plan_index: np.ndarray,
    instance_index: np.ndarray,
    *,
    reality: str,
    seed: int,
    routes: int | None = None,
) -> Exposure:
    """The exposure of plan ``plan_index[m]`` on scenario ``instance_index[m]`` for every m.

    Args:
      reality: ``ddu`` (pairing shrinks deviations) or ``diu``, what really happens, whatever the plan assumed.
      seed: of the draws; a route's key folds seed, scenario and the names of query, model and GPU.
      routes: R, at least what the plans need; by default just that.
    """
    f, batched = instances.fields, instances.batched
    b = instance_index
    share = plans.share[plan_index]  # M,I,D
    model, gpu, degree = (a[plan_index] for a in plans[:3])  # M,D

    def per_type(name: str) -> np.ndarray:  # M,I
        value = np.asarray(getattr(f, name))
        return value[b] if name in batched else np.broadcast_to(value, (len(b), *value.shape))

    def scalar(name: str) -> np.ndarray:  # M
        value = np.asarray(getattr(f, name))
        return value[b] if name in batched else np.broadcast_to(value, len(b))

    def per_route(value: np.ndarray) -> np.ndarray:  # I,J,K or B,I,J,K -> M,I,D
        value = np.asarray(value)
        if value.ndim == 4:
            return value[b[:, None], :, model, gpu].swapaxes(1, 2)
        return value[:, model, gpu].swapaxes(0, 1)

    speed = np.asarray(f.tp_speedup)
    if axes_of("tp_speedup", speed.ndim) == "IJKN":
        place = (model, gpu, np.maximum(degree, 0))
        own = "tp_speedup" in batched
        speed = speed[b[:, None], :, *place].swapaxes(1, 2) if own else speed[:, *place].swapaxes(0, 1)
    else:
        speed = (speed[b[:, None], degree] if "tp_speedup" in batched else speed[degree])[:, None]  # M,1,D
    tokens = per_type("input_tokens") + per_type("output_tokens")
    time_share = tokens[:, :, None] * share / np.where(degree[:, None] >= 0, speed, 1.0)
    delay_deviation, error_deviation, _, _ = worst_case_inputs(f, reality)
    delay = per_route(delay_deviation) * time_share
    error = per_route(error_deviation) * share
    served = share.sum(-1)
    nominal = {
        "delay": (per_route(f.delay_nominal) * time_share).sum(-1),
        "error": (per_route(f.error_nominal) * share).sum(-1),
    }
    room = []
    for name in PROMISES:
        limit = per_type(f"{name}_threshold")
        room.append(limit * served - nominal[name] + MARGIN_TOLERANCE * np.where(limit > 0, limit, 1.0))

    order = np.argsort(share <= 0, axis=-1, kind="stable")  # the routes in use first
    most = max(int((share > 0).sum(-1).max(initial=1)), routes or 1)
    order = order[:, :, : min(most, order.shape[-1])]
    used = np.take_along_axis(share > 0, order, -1)
    delay, error = (rounded(np.where(used, np.take_along_axis(a, order, -1), 0.0)) for a in (delay, error))
    omega = scalar("rental_hours")[:, None] * per_type("delay_penalty") * per_type("arrival_rate")
    spend = omega[:, :, None] * delay
    swing = spend.sum((1, 2))
    money = rounded(spend / np.where(swing > 0, swing, 1.0)[:, None, None])

    loads, load_room, worst_load = None, [], []
    if has_rates(f):
        load, extra = _derive_loads(instances, plans, plan_index, b)
        loads = rounded(extra)
        load_room = [1.0 + MARGIN_TOLERANCE - load]
        by_pair = loads.swapaxes(1, 2)  # M,E,I: the adversary picks types of a pair
        worst_load = [(worst_vertex(by_pair, scalar("gamma_throughput")[:, None]) * by_pair).sum(-1)]
    worst_delay = (worst_vertex(delay, scalar("gamma_delay")[:, None]) * delay).sum(-1)
    worst_error = (worst_vertex(error, scalar("gamma_error")[:, None]) * error).sum(-1)
    key0, key1 = _route_keys(instances, model, gpu, b, order, seed)
    load_keys: tuple[Any, Any] = (None, None)
    if loads is not None:
        slots = np.broadcast_to(np.arange(share.shape[2]), share.shape)
        own = _route_keys(instances, model, gpu, b, slots, seed)
        load_keys = _fold_words(own, np.array([hash32(RATES)], np.uint32))
    scores = score_pairs(instances.with_uncertainty("none"), plans, plan_index, instance_index)
    margins = np.asarray(scores.margins)
    families = instances.families
    moving = PROMISES if loads is None else (*PROMISES, RATES)
    fixed = [name for name in families if name not in moving]
    kept = np.stack([margins[:, families.index(name)] >= -MARGIN_TOLERANCE for name in fixed], axis=1)
    return Exposure(
        Forms(
            key0, key1, delay, error, money, np.concatenate([*room, *load_room], axis=1), *load_keys, loads
        ),
        np.concatenate([worst_delay, worst_error, *worst_load], axis=1),
        (omega * worst_delay).sum(-1),
        np.asarray(scores.costs)[:, 0],
        swing,
        [", ".join(n for n, ok in zip(fixed, row, strict=True) if not ok) for row in kept.tolist()],
    )


def _derive_loads(
    instances: Instances, plans: PlanArrays, plan_index: np.ndarray, instance_index: np.ndarray
) -> tuple[Float64[np.ndarray, "M E"], Float64[np.ndarray, "M I E"]]:
    """Derive the load of each deployed pair as measured, and what each type adds when it falls short by all it may.

    Both are shares of what the pair's load may be; a load is inf where a type is sent that it cannot serve.
    """
    f, batched, b = instances.fields, instances.batched, instance_index
    model, gpu, degree, share, _, replicas = (a[plan_index] for a in plans)

    def read(name: str, *place: np.ndarray) -> np.ndarray:  # M,... or, without a place, M,I or M
        value = np.asarray(getattr(f, name))
        if name not in batched:
            return (
                value[(slice(None), *place)].swapaxes(0, 1)
                if place
                else np.broadcast_to(value, (len(b), *value.shape))
            )
        return value[(b[:, None], slice(None), *place)].swapaxes(1, 2) if place else value[b]

    throughput = read("throughput", model, gpu, np.maximum(degree, 0))  # M,I,E
    short = read("throughput_shortfall", model, gpu) if np.ndim(f.throughput_shortfall) else np.zeros(())
    load = replica_load(read("arrival_rate")[:, :, None], throughput)
    extra = extra_load(load, short) * share
    most = read("max_utilization")[:, None] * replicas  # M,E
    load = (np.where(share > 0, load, 0.0) * share).sum(1) / most
    return load, extra / most[:, None]


def _fold_words(
    key: tuple[np.ndarray, np.ndarray], word: np.ndarray
) -> tuple[UInt32[np.ndarray, "*n"], UInt32[np.ndarray, "*n"]]:
    with np.errstate(over="ignore"):  # threefry adds modulo 2^32
        first, second = fold(key[0], key[1], word)
    return np.asarray(first, np.uint32), np.asarray(second, np.uint32)


def _route_keys(
    instances: Instances,
    model: np.ndarray,
    gpu: np.ndarray,
    instance: np.ndarray,
    order: np.ndarray,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Threefry keys (M,I,R) of the routes, folded from seed, "stress", scenario, query, model and GPU names."""

    def hashes(names: tuple[str, ...]) -> np.ndarray:
        return np.array([hash32(n) for n in names], np.uint32)

    words = np.array([seed >> 32], np.uint32), np.array([seed & 0xFFFFFFFF], np.uint32)
    key = _fold_words(words, np.array([hash32("stress")], np.uint32))
    key = _fold_words(key, instance.astype(np.uint32))
    key = _fold_words((key[0][:, None], key[1][:, None]), hashes(instances.query_names)[None])
    on_route = [np.take_along_axis(np.broadcast_to(a[:, None], (*order.shape[:2], a.shape[1])), order, -1)
                for a in (hashes(instances.model_names)[model], hashes(instances.gpu_names)[gpu])]  # fmt: skip
    key = _fold_words((key[0][:, :, None], key[1][:, :, None]), on_route[0])
    return _fold_words(key, on_route[1])
