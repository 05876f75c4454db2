"""One scenario as the coefficients of its optimisation problem, for NumPy and JAX alike. No JAX is imported here.

`derive_coefficients` is the only place of the solvers that turns the fields of MODEL section 1 into prices, demands
and capacities; `solvers.terms`, the dual function and the routings all read its result. Both array libraries are
reached through ``__array_namespace__`` of the arrays given.

``max_routes`` enters only through what follows from it for every plan: Gamma >= max_routes makes the worst case a
plain sum, and a pair that breaks a promise alone serves nobody whose one route it would be (`limit_shares`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from rodiu_jax.errors import InputError
from rodiu_jax.model.fields import (
    Array,
    Fields,
    axes_of,
    compute_demand,
    extra_load,
    has_options,
    has_quotas,
    has_rates,
    has_replicas,
    kv_demand,
    replica_load,
    stored_data,
    throughput_budget,
    tokens_per_query,
    uses_serving,
    worst_case_inputs,
)
from rodiu_jax.model.tolerances import PROMISE_BAND, RENT_BAND


class Rates(NamedTuple):
    """What replicas sustain (MODEL section 9); loads are replicas that a type takes when served whole."""

    load: Float[Array, "I P N"]
    excess: Float[Array, "I P N"]  # what a shortfall adds to it at most
    room: Float[Array, "P N"]  # most load: replicas times their utilization
    gamma: Float[Array, ""]  # the adversary's budget, types per triple

    def alone(self) -> Float[Array, "I P N"]:
        """Return the load of each type served whole in its own worst case."""
        xp = self.load.__array_namespace__()
        return self.load + xp.minimum(self.gamma, 1.0) * self.excess


class OptionSizes(NamedTuple):
    """Replicas where the axis of degrees is one of options (`solvers.options`), and what they leave open."""

    hold: Float[Array, " P"]  # $, storage of the weights alone
    most: Float[Array, "P N"]  # replicas of an option; deploy, room and power are those of so many
    least: Float[Array, "P N"]  # fewest replicas over most
    allowed: Float[Array, " P"]  # replicas that a pair may have


class Quotas(NamedTuple):
    """GPUs that can be had."""

    gpus: Float[Array, "P N"]  # of a triple
    # 1 where the pair is of the device whose first configuration is k, and that has a quota
    device: Float[Array, "P K"]
    quota: Float[Array, " K"]  # inf without one


class Coefficients(NamedTuple):
    """What the dual needs of one scenario; P = J K pairs in row-major order, N degrees. Money in $ per period.

    A new family of constraints adds its coefficients here, a term in `solvers.dual.function.reduced_gain` or in V
    there, and a function in `solvers.formulation`.
    """

    deploy: Float[Array, "P N"]  # D: rental and storage of weights
    fits: Bool[Array, "P N"]  # weights fit GPU, storage and budget
    base: Float[Array, " I"]  # storage of served data at share 1
    nominal: Float[Array, "I P"]  # ms at share 1, before the speed-up
    excess: Float[Array, "I P"]  # largest excess, after the mode's collapse
    slowness: Float[Array, " N"] | Float[Array, "I P N"]  # 1 / speed-up
    error: Float[Array, "I P"]
    error_excess: Float[Array, "I P"]
    kv: Float[Array, "I P"]  # GB at share 1
    compute: Float[Array, " I"]  # TFLOPs at share 1
    room: Float[Array, "P N"]  # GB left by the weights over all GPUs of the triple, at least 0
    power: Float[Array, "P N"]  # TFLOPs
    most: Float[Array, "I P N"]  # largest share of the type that the triple can carry
    delay_weight: Float[Array, " I"]  # omega, $/ms
    unmet_cost: Float[Array, " I"]  # Phi
    delay_limit: Float[Array, " I"]  # Delta, ms
    error_limit: Float[Array, " I"]  # epsilon
    budget: Float[Array, ""]
    storage: Float[Array, ""]
    weights: Float[Array, " P"]  # B, GB
    unmet_cap: Float[Array, ""]
    gamma_delay: Float[Array, ""]
    gamma_error: Float[Array, ""]
    max_routes: Float[Array, ""]  # 0: no limit
    decided: Int[Array, "P N"]  # int8: 1 deployed, -1 not deployed, 0 open (a node of a search tree)
    rates: Rates | None = None
    options: OptionSizes | None = None
    quotas: Quotas | None = None


def derive_coefficients(
    fields: Fields, uncertainty: str, *, tighten: bool = True, serving: bool = False
) -> Coefficients:
    """Derive the coefficients of one scenario (no batch axis), in the precision of ``fields``.

    Args:
      tighten: close what no plan uses: shares of triples that do not fit, and shares that break a promise for good
        (`limit_shares`); an adversary that reaches every route then has an unlimited budget. Without it ``most``
        knows capacities alone, and everything is of one replica.
      serving: count rates, quotas and the replicas of options too (MODEL section 9).

    Raises:
      InputError: as `refuse_serving`, where ``tighten`` and not ``serving``.
    """
    if tighten and not serving:
        refuse_serving(fields)
    xp = fields.delay_nominal.__array_namespace__()
    types, models, gpus = fields.delay_nominal.shape
    pairs = models * gpus
    tokens = tokens_per_query(fields)
    degree = fields.tp_degree.astype(tokens.dtype)  # N
    degrees = degree.shape[0]
    hours = fields.rental_hours
    delay_deviation, error_deviation, gamma_delay, gamma_error = worst_case_inputs(fields, uncertainty)

    def flat(values: Any) -> Any:
        return values.reshape(types, pairs)

    def for_every_model(values: Any) -> Any:  # K -> P,N
        wide = (values[:, None] * degree[None, :])[None]
        return xp.broadcast_to(wide, (models, gpus, degrees)).reshape(pairs, degrees)

    weights = xp.repeat(fields.weight_memory, gpus)
    power = for_every_model(fields.gpu_compute)
    rent = for_every_model(fields.gpu_price)
    deploy = hours * (rent + (fields.storage_price * weights)[:, None])
    room = for_every_model(fields.gpu_memory) - weights[:, None]
    ranged = serving and has_options(fields)
    limit = fields.budget * (1.0 + RENT_BAND) if ranged else fields.budget  # as `_multiply` has it
    fits = (room >= 0) & (weights <= fields.storage_capacity)[:, None] & (deploy <= limit)
    room = xp.maximum(room, 0.0)
    kv = flat(xp.broadcast_to(kv_demand(fields), (types, models, gpus)))
    compute = compute_demand(fields)
    by_memory = ratio(room[None], kv[:, :, None])
    by_compute = ratio(power[None], compute[:, None, None])
    slowness = 1.0 / fields.tp_speedup
    if _is_speed_by_pair(fields):
        slowness = slowness.reshape(types, pairs, degrees)
    c = Coefficients(
        deploy=deploy,
        fits=fits,
        base=hours * fields.storage_price * stored_data(fields),
        nominal=flat(fields.delay_nominal * tokens[:, None, None]),
        excess=flat(delay_deviation * tokens[:, None, None]),
        slowness=slowness,
        error=flat(fields.error_nominal),
        error_excess=flat(error_deviation),
        kv=kv,
        compute=compute,
        room=room,
        power=power,
        most=xp.minimum(xp.minimum(by_memory, by_compute), 1.0),
        delay_weight=hours * fields.delay_penalty * fields.arrival_rate,
        unmet_cost=hours * fields.unmet_penalty * fields.arrival_rate,
        delay_limit=fields.delay_threshold,
        error_limit=fields.error_threshold,
        budget=fields.budget,
        storage=fields.storage_capacity,
        weights=weights,
        unmet_cap=fields.unmet_cap,
        gamma_delay=gamma_delay,
        gamma_error=gamma_error,
        max_routes=xp.asarray(fields.max_routes).astype(tokens.dtype),
        decided=xp.zeros(fits.shape, xp.int8),
    )
    if serving:
        c = _add_serving(c, fields, uncertainty)
    if not tighten:
        return c

    def reach(gamma: Any) -> Any:
        everywhere = (c.max_routes > 0) & (gamma >= c.max_routes)
        return xp.where(everywhere, xp.maximum(gamma, pairs), gamma)

    most = xp.where(c.fits[None], c.most, 0.0)
    c = c._replace(most=most, gamma_delay=reach(gamma_delay), gamma_error=reach(gamma_error))
    return c._replace(most=limit_shares_to_promises(c))


def _add_serving(c: Coefficients, fields: Fields, uncertainty: str) -> Coefficients:
    """Add rates, quotas and the replicas of options to coefficients of one replica, where the scenario has them."""
    xp = c.base.__array_namespace__()
    serving = derive_serving(fields, uncertainty)
    if serving is None:
        return c
    _, models, gpus = fields.delay_nominal.shape
    if has_rates(fields):
        able = xp.isfinite(serving.load)
        load = xp.where(able, serving.load, 0.0)
        excess = xp.where(able, serving.load_excess, 0.0)
        alone = load + xp.minimum(serving.gamma_load, 1.0) * excess
        c = c._replace(
            rates=Rates(load, excess, serving.utilization * xp.ones_like(c.deploy), serving.gamma_load),
            most=xp.where(able, xp.minimum(c.most, ratio(serving.utilization, alone)), 0.0),
        )
    if has_quotas(fields):
        gpu = np.tile(np.arange(gpus), models)
        degree = fields.tp_degree.astype(c.base.dtype)[None]
        of_device = (serving.device[gpu][:, None] == np.arange(gpus)[None]).astype(c.base.dtype)
        limited = xp.isfinite(serving.quota)[None].astype(c.base.dtype)
        c = c._replace(quotas=Quotas(degree * xp.ones_like(c.deploy), of_device * limited, serving.quota))
    return _multiply(c, fields, serving.most_replicas) if has_options(fields) else c


def _multiply(c: Coefficients, fields: Fields, allowed: Float[Array, " P"]) -> Coefficients:
    """Give each option its replicas: at most as many as its pair may have, and as serve every type whole."""
    xp = c.base.__array_namespace__()
    kind = c.base.dtype
    fewest, largest = (a.astype(kind)[None] for a in (fields.fewest_replicas, fields.largest_replicas))
    useful = xp.minimum(_needed_replicas(c), allowed[:, None])
    if c.quotas is not None:
        quota = xp.where(c.quotas.device > 0, c.quotas.quota[None], xp.inf).min(axis=1)[:, None]
        useful = xp.minimum(useful, xp.floor(quota * (1.0 + RENT_BAND) / c.quotas.gpus))
    replicas = xp.maximum(xp.minimum(largest, useful), fewest)
    hold = fields.rental_hours * fields.storage_price * c.weights
    rent = c.deploy - hold[:, None]
    return c._replace(
        deploy=hold[:, None] + rent * replicas,
        fits=c.fits & (fewest <= useful) & (hold[:, None] + rent * fewest <= c.budget * (1.0 + RENT_BAND)),
        room=c.room * replicas,
        power=c.power * replicas,
        most=xp.minimum(c.most * replicas[None], 1.0),
        rates=None if c.rates is None else c.rates._replace(room=c.rates.room * replicas),
        options=OptionSizes(hold, replicas, fewest / replicas, allowed),
        quotas=None if c.quotas is None else c.quotas._replace(gpus=c.quotas.gpus * replicas),
    )


def _needed_replicas(c: Coefficients) -> Float[Array, "P N"]:
    """Return the replicas of each triple that serve every type whole; more only cost rent.

    Args:
      c: of one replica each.
    """
    xp = c.base.__array_namespace__()
    served = (c.most > 0).astype(c.base.dtype)
    needed = [
        ratio((c.kv[:, :, None] * served).sum(0), c.room),
        ratio((c.compute[:, None, None] * served).sum(0), c.power),
    ]
    if c.rates is not None:
        needed.append((c.rates.alone() * served).sum(0) / c.rates.room)
    most = xp.stack([xp.where(xp.isfinite(n), n, 1.0) for n in needed]).max(0)
    return xp.maximum(xp.ceil(most), 1.0)


def slow(c: Coefficients) -> Array:
    """Return 1 / speed-up with axes of types and pairs, (1,1,N) where all share it; batch axes at the end pass."""
    return c.slowness if c.slowness.ndim - c.budget.ndim == 3 else c.slowness[None, None]


def _is_speed_by_pair(fields: Fields) -> bool:
    return axes_of("tp_speedup", np.ndim(fields.tp_speedup)) == "IJKN"


def serving_field(fields: Fields) -> str | None:
    """Return a field of MODEL section 9 that takes the exact solver or `solvers.bracket`; None without.

    Replicas, rates, quotas and speed-ups per pair: recourse and diagnosis by linear programs know none.
    """
    used = {
        "max_replicas": has_replicas(fields),
        "throughput": has_rates(fields),
        "gpu_quota": has_quotas(fields),
        "tp_speedup": _is_speed_by_pair(fields),
    }
    return next((name for name, is_used in used.items() if is_used), None)


def refuse_serving(fields: Fields) -> None:
    """Refuse scenarios with a field that the caller does not know.

    Raises:
      InputError: as `serving_field` says (MODEL section 9).
    """
    if name := serving_field(fields):
        raise InputError(
            "instances", name, "no such field here: only solve, bound and sweeps know it", "given"
        )


class Serving(NamedTuple):
    """What MODEL section 9 adds to the coefficients of one scenario; pairs and degrees as in `Coefficients`."""

    most_replicas: Float[Array, " P"]
    load: Float[
        Array, "I P N"
    ]  # replicas that the type takes when served whole; inf where it cannot be served
    load_excess: Float[Array, "I P N"]  # what the shortfall adds to it at most
    utilization: Float[Array, ""]  # U, most load of a replica
    gamma_load: Float[Array, ""]  # the adversary's budget, types per pair
    quota: Float[Array, " K"]  # GPUs, inf without one
    device: Int[Array, " K"]  # position of the first configuration of the same device


def derive_serving(fields: Fields, uncertainty: str) -> Serving | None:
    """Derive what MODEL section 9 adds to one scenario (no batch axis); None where it adds nothing.

    It adds something, too, where a speed-up is stated per type and pair.
    """
    if not uses_serving(fields) and not _is_speed_by_pair(fields):
        return None
    xp = fields.delay_nominal.__array_namespace__()
    types, models, gpus = fields.delay_nominal.shape
    pairs, degrees = models * gpus, fields.tp_degree.shape[0]
    kind = fields.arrival_rate.dtype

    load = xp.zeros((types, pairs, degrees), kind)
    excess = load
    if has_rates(fields):
        load = replica_load(fields.arrival_rate[:, None, None, None], fields.throughput)
        short = xp.broadcast_to(fields.throughput_shortfall, (types, models, gpus))
        excess = extra_load(load, short[..., None]).reshape(types, pairs, degrees)
        load = load.reshape(types, pairs, degrees)
    own = xp.arange(gpus)
    return Serving(
        most_replicas=xp.broadcast_to(fields.max_replicas, (models, gpus)).reshape(pairs).astype(kind),
        load=load,
        load_excess=excess,
        utilization=fields.max_utilization,
        gamma_load=throughput_budget(fields, uncertainty),
        quota=xp.broadcast_to(fields.gpu_quota, (gpus,)),
        device=fields.gpu_device if has_quotas(fields) else own,
    )


def limit_shares_to_promises(c: Coefficients) -> Float[Array, "I P N"]:
    """Lower ``most`` to what the promises let each triple serve in any plan, see `limit_shares`."""
    xp = c.most.__array_namespace__()
    pairs = float(c.nominal.shape[1])
    spread = xp.where(c.max_routes > 0, xp.minimum(c.max_routes, pairs), pairs)
    promises = []
    for nominal, excess, gamma, limit in (
        (
            c.nominal[:, :, None] * slow(c),
            c.excess[:, :, None] * slow(c),
            c.gamma_delay,
            c.delay_limit,
        ),
        (c.error[:, :, None], c.error_excess[:, :, None], c.gamma_error, c.error_limit),
    ):
        alone = nominal + xp.minimum(gamma, 1.0) * excess
        surely = xp.where(spread <= xp.maximum(gamma, 1.0), xp.minimum(gamma, 1.0), 0.0)
        slack = PROMISE_BAND * xp.where(limit > 0, limit, 1.0)
        promises.append(Promise(alone, nominal + surely * excess, (limit + slack)[:, None, None]))
    return limit_shares(c.most, promises, spread)


class Promise(NamedTuple):
    """What a share does to a promise, per unit of share; arrays (I,...) that broadcast against the shares."""

    alone: Float[Array, "I ..."]  # the least that a triple's own worst case is where it serves the type
    surely: Float[Array, "I ..."]  # the least that a partner's part is in the worst case of them all
    limit: Float[Array, "I ..."]  # with the slack of whoever asks


def limit_shares(
    most: Float[Array, "I ..."], promises: Sequence[Promise], spread: Any
) -> Float[Array, "I ..."]:
    """Lower the largest shares where those of other pairs have to make good what a slow or faulty one breaks.

    Of a triple whose worst case a is above the limit L while every other one's is at least m < L, the promise
    a x + m y <= L (x + y) and x + y <= 1 leave x <= (L - m) / (a - m). Three rounds, as triples that carry nothing
    make nothing good.

    Args:
      spread: most pairs that serve a type; where it is 1 there is no other pair.
    """
    xp = most.__array_namespace__()
    axes = tuple(range(1, most.ndim))
    if 0 in most.shape:  # no triple is left: there is no least of them
        return most
    for _ in range(3):
        for alone, surely, limit in promises:
            least = xp.where(most > 0, surely, xp.inf).min(axis=axes, keepdims=True)
            least = xp.where(xp.isfinite(least), least, 0.0)  # nobody serves the type
            short = xp.where(alone > least, alone - least, 1.0)
            share = xp.where((spread > 1) & (limit > least), (limit - least) / short, 0.0)
            most = xp.where(alone > limit, xp.minimum(most, share), most)
    return most


def exclude_unaffordable(c: Coefficients) -> Coefficients:
    """Exclude open triples that do not fit, or do not go into what the deployed ones leave of budget and storage.

    No plan of the node deploys them: rents and weights alone would break a limit.
    """
    xp = c.deploy.__array_namespace__()
    inside = c.decided > 0
    deploy = c.deploy
    if c.options is not None:
        deploy = c.options.hold[:, None] + (deploy - c.options.hold[:, None]) * c.options.least
    rent = c.budget * (1.0 + RENT_BAND) - xp.where(inside, deploy, 0.0).sum()
    weights = c.storage * (1.0 + RENT_BAND) - xp.where(inside.any(axis=1), c.weights, 0.0).sum()
    beyond = ~c.fits | (deploy > rent) | (c.weights > weights)[:, None]
    if c.quotas is not None:
        gpus = c.quotas.gpus if c.options is None else c.quotas.gpus * c.options.least
        taken = (xp.where(inside, gpus, 0.0).sum(axis=1)[:, None] * c.quotas.device).sum(axis=0)  # K
        left = c.quotas.quota * (1.0 + RENT_BAND) - taken
        left = xp.where(c.quotas.device > 0, left[None], xp.inf).min(axis=1)
        beyond = beyond | (gpus > left[:, None])
    return c._replace(decided=xp.where((c.decided == 0) & beyond, -1, c.decided).astype(xp.int8))


FEASIBILITY_WEIGHT = 2.0**-32
"""What other costs than rents count for where only feasibility is asked (`count_rent_alone`): almost nothing, so that
what rents exceed the budget by is worth more than any plan costs. A power of two: multipliers are scaled without
rounding.
"""

_SPARE = 4.0
"""Budgets that `count_rent_alone` has: enough that its budget has no price unless rents are far beyond the real one."""


def widen_limits(c: Coefficients, part: Any) -> Coefficients:
    """Raise every limit by a part of it: a scenario without a plan there has none that the checker accepts either."""
    more = 1.0 + part
    return c._replace(
        room=c.room * more,
        power=c.power * more,
        most=c.most * more,
        delay_limit=c.delay_limit * more,
        error_limit=c.error_limit * more,
        budget=c.budget * more,
        storage=c.storage * more,
        unmet_cap=c.unmet_cap * more + part,
        rates=None if c.rates is None else c.rates._replace(room=c.rates.room * more),
        quotas=None if c.quotas is None else c.quotas._replace(quota=c.quotas.quota * more),
    )


def count_rent_alone(c: Coefficients, weight: Any) -> Coefficients:
    """Count rents and storage alone as costs, under the same constraints with a larger budget, where ``weight`` < 1.

    There is a plan only if the least of them is within the budget. That problem has an optimum of a natural size,
    which an ascent nears; the feasibility problem has none, only a ray along which its dual value grows or falls.
    Its multipliers, with 1 as the price of the budget and as long as ``weight`` is small, prove of the scenario itself
    a bound of about (least rent - budget) / weight. Above `highest_cost` that proves that there is no plan.

    Args:
      weight: 1 leaves the scenario as it is.
    """
    xp = c.deploy.__array_namespace__()
    return c._replace(
        delay_weight=weight * c.delay_weight,
        unmet_cost=weight * c.unmet_cost,
        budget=xp.where(weight < 1.0, _SPARE * c.budget, c.budget),
    )


def highest_cost(c: Coefficients) -> Float[Array, ""]:
    """Bound what any plan can cost, $ per period: the budget, all penalties, and every type's delay as promised."""
    return c.budget + (c.unmet_cost + c.delay_weight * c.delay_limit).sum()


def ratio(over: Float[Array, " *X"], under: Float[Array, " *Y"]) -> Float[Array, " *Z"]:
    """Divide, with infinity where ``under`` is 0."""
    xp = over.__array_namespace__()
    positive = under > 0
    return xp.where(positive, over / xp.where(positive, under, 1.0), xp.inf)


def take_pairs(c: Coefficients, index: Int[Array, " Q"]) -> Coefficients:
    """Keep the pairs ``index`` alone."""
    by_pair = {n: getattr(c, n)[index] for n in ("deploy", "fits", "room", "power", "weights", "decided")}
    by_type = {
        n: getattr(c, n)[:, index] for n in ("nominal", "excess", "error", "error_excess", "kv", "most")
    }
    taken = c._replace(**by_pair, **by_type)
    if c.slowness.ndim == 3:
        taken = taken._replace(slowness=c.slowness[:, index])
    if c.rates is not None:
        load, excess = c.rates.load[:, index], c.rates.excess[:, index]
        taken = taken._replace(rates=Rates(load, excess, c.rates.room[index], c.rates.gamma))
    if c.options is not None:
        taken = taken._replace(options=OptionSizes(*(a[index] for a in c.options)))
    if c.quotas is not None:
        gpus, device = c.quotas.gpus[index], c.quotas.device[index]
        taken = taken._replace(quotas=Quotas(gpus, device, c.quotas.quota))
    return taken
