"""The coefficients that the witness of dual bounds needs, in NumPy float64, sharing no code with the solvers.

Where rounding could shrink what a plan may do (room, shares, what fits), the value is rounded up: a larger set of
plans has a smaller bound.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from rodiu_jax.certificates.leaf_codec import Ranges
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.tolerances import PROMISE_BAND, RENT_BAND

UNIT = 2.0**-53

EXCLUDED_BAND = RENT_BAND * (1 - 1e-3)
"""Part of a limit above which a triple is given up: below where a solver does so, above what a plan may break."""


@dataclass(frozen=True)
class Problem:
    """Coefficients of L leaves (a leading axis of L or 1); P pairs, O options each, T = P O. Money in $ per period.

    An option is a degree with a range of replicas, of exactly one where scenarios know none; ``least`` is the fewest
    over the largest. Rent, room, power, load_room and gpus are those of the largest number.
    """

    hold: np.ndarray  # L,T  what the weights cost, once
    rent: np.ndarray  # L,T
    least: np.ndarray  # L,T
    fits: np.ndarray  # L,T
    base: np.ndarray  # L,I
    per_ms: np.ndarray  # L,I  omega
    nominal: np.ndarray  # L,I,P  ms at share 1
    excess: np.ndarray  # L,I,P
    slowness: np.ndarray  # L,1,1,O or L,I,P,O
    error: np.ndarray  # L,I,P
    error_excess: np.ndarray  # L,I,P
    kv: np.ndarray  # L,I,P
    work: np.ndarray  # L,I
    load: np.ndarray | None  # L,I,T  replicas at share 1; None without rates
    load_excess: np.ndarray | None  # L,I,T
    room: np.ndarray  # L,T
    power: np.ndarray  # L,T
    load_room: np.ndarray  # L,T
    gpus: np.ndarray  # L,T
    most: np.ndarray  # L,I,T
    weights: np.ndarray  # L,T
    unmet_cost: np.ndarray  # L,I
    delay_limit: np.ndarray  # L,I
    error_limit: np.ndarray  # L,I
    budget: np.ndarray  # L
    storage: np.ndarray  # L
    unmet_cap: np.ndarray  # L
    gamma_delay: np.ndarray  # L
    gamma_error: np.ndarray  # L
    gamma_load: np.ndarray  # L
    quota: np.ndarray  # L,K  of the device whose first configuration is k; inf without one
    device: Int64[np.ndarray, " T"]  # position of that configuration


def derive_problem(instances: Instances, scenario: np.ndarray, ranges: Ranges | None) -> Problem:
    """Derive MODEL sections 1 to 5 and 9 for the scenarios ``scenario`` (L,).

    Args:
      ranges: the options of every pair; None where each degree is one option of one replica.
    """
    types, models, gpus, degrees = instances.shape
    pairs = models * gpus
    taken = instances.take(scenario)
    stated = [(n, 1, 1) for n in range(degrees)] if ranges is None else ranges
    at, fewest, largest = (np.array(column, np.int64) for column in zip(*stated, strict=True))
    options = len(at)

    def get(name: str, axes: int | None = None) -> np.ndarray:
        """Return a field with its scenarios first, and at least ``axes`` axes (of 1) after them."""
        value = np.asarray(getattr(taken.fields, name), np.float64)
        value = value if name in taken.batched else value[None]
        return value if axes is None or value.ndim > 1 else value.reshape(-1, *(1,) * axes)

    def cells(values: np.ndarray) -> np.ndarray:
        wide = np.broadcast_to(values, (len(values), types, models, gpus))
        return wide.reshape(len(values), types, pairs)

    def triples(values: np.ndarray) -> np.ndarray:  # of K,O, the same for every model
        wide = np.broadcast_to(values[:, None], (len(values), models, gpus, options))
        return wide.reshape(len(values), pairs * options)

    impact = 1.0 if instances.uncertainty == "ddu" else 0.0
    tokens = get("input_tokens") + get("output_tokens")
    degree, hours, rate = get("tp_degree")[:, None, at], get("rental_hours")[:, None], get("arrival_rate")
    price = get("storage_price")[:, None]
    weights = np.repeat(get("weight_memory"), gpus * options, axis=1)
    memory = triples(get("gpu_memory")[:, :, None] * degree)
    power = triples(get("gpu_compute")[:, :, None] * degree)
    gpu_count = triples(np.broadcast_to(degree, (len(degree), gpus, options)))
    rent, hold = hours * triples(get("gpu_price")[:, :, None] * degree), hours * price * weights
    room = memory - weights + 8 * UNIT * (memory + weights)
    fits = (room >= 0) & (weights <= get("storage_capacity")[:, None])
    room = np.maximum(room, 0.0)
    stay = get("residency_hours")
    stay = stay[:, None, None, None] if stay.ndim == 1 else stay
    kv = cells((tokens * rate)[:, :, None, None] * stay * get("kv_per_token")[:, None, :, None])
    work = get("compute_per_token") * tokens
    utilization = get("max_utilization")[:, None]
    load, load_excess, alone = None, None, np.zeros((1, 1, 1))
    gamma_load = 0.0 * get("gamma_throughput") if instances.uncertainty == "none" else get("gamma_throughput")
    if np.ndim(instances.fields.throughput):
        sustained = get("throughput")[..., at].reshape(-1, types, pairs * options)
        short = np.repeat(cells(get("throughput_shortfall", 3)), options, axis=2)
        load, load_excess = _loads(rate, sustained, short)
        alone = load + np.minimum(gamma_load, 1.0)[:, None, None] * load_excess
    carried = np.minimum(
        _over(room[:, None], np.repeat(kv, options, axis=2)), _over(power[:, None], work[:, :, None])
    )
    carried = np.minimum(np.minimum(carried, _over(utilization[:, None], alone)), 1.0)

    replicas, least = np.ones((1, pairs * options)), np.ones((1, pairs * options))
    quota = np.broadcast_to(get("gpu_quota", 1), (len(get("gpu_quota")), gpus))
    device = _devices(instances)[np.tile(np.repeat(np.arange(gpus), options), models)]
    if ranges is None:
        fits = fits & ((hold + rent) * (1 - 16 * UNIT) <= get("budget")[:, None])
    else:
        used = (carried > 0).astype(np.float64)
        shares = [
            _over((np.repeat(kv, options, axis=2) * used).sum(1), room),
            _over((work[:, :, None] * used).sum(1), power),
            (np.where(used > 0, alone, 0.0) * used).sum(1) / utilization,
        ]
        shares = np.broadcast_arrays(*shares)
        needed = np.max([np.where(np.isfinite(s), s, 1.0) for s in shares], axis=0)
        # More only cost rent. Nothing but rounding is taken off: prices without bounds would find any more.
        useful = np.maximum(np.ceil(needed * (1 - 4 * (types + 8) * UNIT)), 1.0)
        allowed = np.broadcast_to(get("max_replicas", 2), (len(get("max_replicas")), models, gpus))
        useful = np.minimum(useful, np.repeat(allowed.reshape(-1, pairs), options, axis=1))
        useful = np.minimum(useful, np.floor(quota[:, device] * (1 + EXCLUDED_BAND) / gpu_count))
        fewest_of, largest_of = (np.tile(a, pairs)[None].astype(np.float64) for a in (fewest, largest))
        replicas = np.maximum(np.minimum(largest_of, useful), fewest_of)
        least = fewest_of / replicas
        fits = fits & (fewest_of <= useful)
        fits = fits & (hold + rent * fewest_of <= get("budget")[:, None] * (1 + EXCLUDED_BAND))
    most = np.where(fits[:, None], np.minimum(carried * replicas[:, None] * (1 + 16 * UNIT), 1.0), 0.0)

    def gamma(name: str) -> np.ndarray:
        """The adversary's budget; infinite where it reaches every route that a plan may use."""
        budget = 0.0 * get(name) if instances.uncertainty == "none" else get(name)
        routes = get("max_routes")
        return np.where((routes > 0) & (budget >= routes), math.inf, budget)

    def excess(what: str) -> np.ndarray:
        return cells(get(f"{what}_deviation") * (1.0 - impact * get(f"{what}_impact"))[:, None])

    speed = get("tp_speedup")[..., at]
    slowness = 1.0 / (speed.reshape(-1, types, pairs, options) if speed.ndim > 2 else speed[:, None, None])
    nominal = cells(get("delay_nominal")) * tokens[:, :, None]
    error, error_excess = cells(get("error_nominal")), excess("error")
    slower, faulty = excess("delay") * tokens[:, :, None], np.ones((1, 1, 1, options))
    for _ in range(3):
        for usual, most_over, name, factor in (
            (nominal, slower, "delay", slowness),
            (error, error_excess, "error", faulty),
        ):
            most = _repaired(
                most,
                usual,
                most_over,
                get(f"{name}_threshold"),
                np.minimum(gamma(f"gamma_{name}"), pairs),
                get("max_routes"),
                factor,
            )

    return Problem(
        hold=hold,
        rent=rent * replicas,
        least=least,
        fits=fits,
        base=hours * price * get("token_size") * tokens * rate / 1000.0,
        per_ms=hours * get("delay_penalty") * rate,
        nominal=nominal,
        excess=slower,
        slowness=slowness,
        error=error,
        error_excess=error_excess,
        kv=kv,
        work=work,
        load=None if load is None else np.where(np.isfinite(load), load, 0.0),
        load_excess=load_excess,
        room=room * replicas,
        power=power * replicas,
        load_room=utilization * replicas,
        gpus=gpu_count * replicas,
        most=most,
        weights=weights,
        unmet_cost=hours * get("unmet_penalty") * rate,
        delay_limit=get("delay_threshold"),
        error_limit=get("error_threshold"),
        budget=get("budget"),
        storage=get("storage_capacity"),
        unmet_cap=get("unmet_cap"),
        gamma_delay=gamma("gamma_delay"),
        gamma_error=gamma("gamma_error"),
        gamma_load=gamma_load,
        quota=quota,
        device=device,
    )


_LARGEST_LOAD = 1e30
"""Loads above this, in replicas, count as this (MODEL section 9)."""


def _loads(rate: np.ndarray, sustained: np.ndarray, short: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return l and what a shortfall adds (L,I,T), of rates (L,I), throughput and shortfall (L,I,T); inf, 0 without."""
    able = sustained > 0
    slowest = np.maximum(np.where(able, sustained, 1.0), rate[:, :, None] / _LARGEST_LOAD)
    load = np.where(able, np.minimum(rate[:, :, None] / slowest, _LARGEST_LOAD), math.inf)
    extra = np.where(able, load, 0.0) * (short / (1.0 - short))
    return load, np.minimum(extra, _LARGEST_LOAD)


def _devices(instances: Instances) -> Int64[np.ndarray, " K"]:
    """Return of each configuration the first one of its device."""
    names = list(instances.gpu_devices)
    return np.array([names.index(name) for name in names], np.int64)


def _repaired(
    most: np.ndarray,
    usual: np.ndarray,
    excess: np.ndarray,
    threshold: np.ndarray,
    gamma: np.ndarray,
    routes: np.ndarray,
    factor: np.ndarray,
) -> np.ndarray:
    """Largest shares (L,I,T) of pairs that break a promise: what shares of the best other pair can repair.

    Args:
      usual, excess (L,I,P); threshold (L,I); gamma, routes (L,); factor (L,1,1,O) or (L,I,P,O) on a promise.
    """
    shape = (*most.shape[:2], usual.shape[2], factor.shape[-1])
    alone = routes == 1  # nobody repairs
    one = np.minimum(gamma, 1.0)[:, None, None]
    # Every pair of a type is slow at once where the budget reaches all that a plan may use; else perhaps none is.
    reach = np.minimum(np.where(routes > 0, routes, shape[2]), shape[2])
    every = np.where(reach <= np.maximum(gamma, 1.0), 1.0, 0.0)[:, None, None]
    worst = ((usual + one * excess)[..., None] * factor).reshape(-1, shape[1], most.shape[2])
    better = ((usual + every * one * excess)[..., None] * factor).reshape(-1, shape[1], most.shape[2])
    limit = (threshold + PROMISE_BAND * np.where(threshold > 0, threshold, 1.0))[:, :, None]
    best = np.where(most > 0, better, np.inf).min(2, keepdims=True)
    best = np.where(np.isfinite(best), best, 0.0)
    breaks = worst > limit
    repaired = np.where(limit > best, _over(np.maximum(limit - best, 0.0), worst - best), 0.0)
    repaired = np.where(alone[:, None, None], 0.0, repaired * (1 + 32 * UNIT))
    return np.where(breaks, np.minimum(most, repaired), most)


def _over(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """above / below, infinite where ``below`` is 0."""
    shape = np.broadcast_shapes(above.shape, below.shape)
    return np.divide(above, below, out=np.full(shape, math.inf), where=np.broadcast_to(below > 0, shape))
