"""The ascent of the dual function in float32, by optax, and its certificate in float64.

The maxima of `solvers.dual.function` are smoothed (softplus, log-sum-exp) with a temperature that falls from
`Ascent.warm` to `Ascent.cold`; Adam works on multipliers in natural units. A far-reaching ascent (`Ascent.far`) works
on their inverse hyperbolic sines, linear near zero and logarithmic far off, so that a price can climb to a penalty a
thousand times its start; and it counts capacities' prices in rents at the current price of the budget.

Only the pairs that could pay (`Ascent.pairs` of them) are iterated: the certificate is over all of them, with m and c
of each triple improved in closed form, so a pair wrongly left out can only cost tightness. The adversary ascends by its
gradient less the price of its budget (the ceil(Gamma)-th largest gradient, exact at the optimum) and is projected.
The gradient of psi is taken as if zeta had a floor: at zeta = 0 psi would otherwise never learn, and then zeta neither.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float, Int

from rodiu_jax.model.fields import Array
from rodiu_jax.model.tolerances import PROOF_BAND
from solvers.dual.coefficients import Coefficients, count_rent_alone, take_pairs, widen_limits
from solvers.dual.function import (
    HUGE,
    Multipliers,
    certify,
    charge_load,
    least_by_pair,
    lengthen_ray,
    price_gpus,
    reduced_gain,
    scale_inside,
    shorten_ray,
)
from solvers.dual.opening import Opening, Units, choose_units, cold_start, promise, scale_money, scarce_start


class Iterate(NamedTuple):
    """The ascent's variables in natural units, on the Q pairs that are iterated; batch axes at the end or none."""

    demand: Float[Array, "I ..."]
    delay: Float[Array, "I ..."]
    error: Float[Array, "I ..."]
    budget: Float[Array, " *B"]
    storage: Float[Array, " *B"]
    memory: Float[Array, "Q N *B"]
    compute: Float[Array, "Q N *B"]
    xi: Float[Array, "I Q *B"]
    psi: Float[Array, "I Q *B"]
    throughput: Float[Array, "Q N *B"] | None = None  # of scenarios with rates
    chi: Float[Array, "Q N I *B"] | None = None
    quota: Float[Array, "K ..."] | None = None  # of scenarios with quotas


class Reach(NamedTuple):
    """What of an ascent is static: every value is a program of its own."""

    pairs: int
    far: bool = False


@dataclass(frozen=True)
class Ascent:
    """How the ascent runs; all but ``pairs`` and ``far`` are data and recompile nothing.

    Attributes:
      steps: gradient steps.
      rate: first learning rate, in natural units; it falls by a cosine to ``rate * last_rate``.
      warm, cold: first and last temperature, relative to the scale of the cost.
      pairs: pairs iterated (at most P).
      far: whether prices may climb far from where they start, as they must where capacity or budget is scarce.
    """

    steps: int = 150
    rate: float = 0.1
    last_rate: float = 0.03
    warm: float = 0.015
    cold: float = 8e-5
    pairs: int = 16
    far: bool = False

    @property
    def reach(self) -> Reach:
        """What is static to the compiled ascent."""
        return Reach(self.pairs, self.far)

    @property
    def controls(self) -> Float[np.ndarray, " 5"]:
        """What is data to the compiled ascent: steps, rate, last_rate, warm, cold."""
        return np.array([self.steps, self.rate, self.last_rate, self.warm, self.cold], np.float32)


_FARTHEST = 25.0
"""Largest variable of a far-reaching ascent: the multiplier is then 3.6e10 units."""


def _restore_units(v: Iterate, u: Units, c: Coefficients, *, far: bool) -> Multipliers:
    base = c.base
    rent, stored = jnp.ones_like(v.budget), jnp.zeros_like(base)  # axes of a batch at the end, or none
    if far:
        prices = jax.tree.map(lambda a: jnp.sinh(jnp.clip(a, -_FARTHEST, _FARTHEST)), v)
        v = prices._replace(xi=v.xi, psi=v.psi, chi=v.chi)
        rent, stored = 1.0 + v.budget, base * v.budget[None]
    return Multipliers(
        v.demand * u.demand + stored,
        v.delay * u.delay,
        v.error * u.error,
        v.budget,
        v.storage * u.storage,
        v.memory * u.memory * rent[None, None],
        v.compute * u.compute * rent[None, None],
        v.xi,
        v.psi,
        None if v.throughput is None else v.throughput * u.throughput * rent[None, None],
        v.chi,
        None if v.quota is None or u.quota is None else v.quota * (u.quota * rent)[None],
    )


def _count_in_units(
    y: Multipliers, u: Units, c: Coefficients, money: Float[Array, ""], *, far: bool
) -> Iterate:
    """Undo `_restore_units`, of multipliers in $."""
    rent = 1.0 + y.budget if far else jnp.ones_like(y.budget)
    stored = c.base * y.budget if far else jnp.zeros_like(c.base)
    prices = Iterate(
        (y.demand / money - stored) / u.demand,
        y.delay / (money * u.delay),
        y.error / (money * u.error),
        y.budget,
        y.storage / (money * u.storage),
        y.memory / (money * u.memory * rent),
        y.compute / (money * u.compute * rent),
        y.delay_adversary,
        y.error_adversary,
        None if y.throughput is None else y.throughput / (money * u.throughput * rent),
        y.load_adversary,
        None if y.quota is None else y.quota / (money * u.quota * rent)[None],
    )
    if not far:
        return prices
    return jax.tree.map(jnp.arcsinh, prices)._replace(xi=prices.xi, psi=prices.psi, chi=prices.chi)


def _softplus(x: Array) -> Array:
    """Compute log(1 + exp(x)) to the precision that smoothing needs."""
    return jnp.maximum(x, 0.0) + jnp.log(1.0 + jnp.exp(-jnp.abs(x)))


_ZETA_FLOOR = 0.2
"""Least price of an error promise, in its unit, that the gradient of psi is taken at."""


def _smooth_dual(
    v: Iterate, c: Coefficients, u: Units, heat: Float[Array, ""], *, far: bool = False
) -> tuple[Float[Array, ""], Float[Array, "Q N B"]]:
    """Smooth the dual function's maxima at temperature ``heat``; the values of a trailing batch axis are summed.

    Returns:
      the value, and the share of each triple in the smoothed minimum (Q,N,B): an estimate of w.
    """
    y = _restore_units(v, u, c, far=far)
    constant = jax.lax.stop_gradient
    floor = constant(jnp.maximum(y.error, _ZETA_FLOOR * u.error))[:, None]
    # Of value 0: it only gives psi the gradient that it would have with zeta at its floor.
    moving = floor * c.error_excess * (v.psi - constant(v.psi))
    gain = reduced_gain(c, y._replace(error_adversary=constant(v.psi))) - moving[:, :, None]
    gain = gain - y.memory[None] * c.kv[:, :, None] - y.compute[None] * c.compute[:, None, None]
    fixed = c.deploy * (1.0 + y.budget)[None, None] + (y.storage[None] * c.weights)[:, None]
    left = fixed - y.memory * c.room - y.compute * c.power
    quota = 0.0
    if c.rates is not None and y.throughput is not None:
        gain = gain - y.throughput[None] * charge_load(c, y)
        left = left - y.throughput * c.rates.room
    if c.quotas is not None and y.quota is not None:
        left = left + price_gpus(c, y)
        quota = (y.quota * jnp.where(jnp.isfinite(c.quotas.quota), c.quotas.quota, 0.0)).sum()
    if c.options is not None:
        hold = (c.options.hold * (1.0 + y.budget)[None] + y.storage[None] * c.weights)[:, None]
        replicas = left - hold  # beyond their use, of the most of them; of fewer where that is positive
        left = (
            hold + c.options.least * replicas - (1.0 - c.options.least) * heat * _softplus(-replicas / heat)
        )
    carried = (c.most * heat * _softplus(gain / heat)).sum(0)
    value = jnp.where(c.fits, left - carried, HUGE)  # Q,N,B
    inside = c.decided > 0
    choices = jnp.where(c.decided < 0, -HUGE, -value / heat)
    most = constant(
        jnp.maximum(choices.max(1), 0.0)
    )  # the largest exponent, taken out so that none overflows
    shares = jnp.exp(choices - most[:, None])
    total = shares.sum(1) + jnp.exp(-most)
    forced = inside.any(1)
    taken = jnp.where(forced, jnp.where(inside, value, 0.0).sum(1), -heat * (most + jnp.log(total)))
    over = heat * _softplus((y.demand - c.unmet_cost) / heat)
    served = y.demand - c.unmet_cap[None] * over
    value = served.sum() - (y.budget * c.budget).sum() - (y.storage * c.storage).sum() - quota + taken.sum()
    return value, jnp.where(forced[:, None], inside.astype(total.dtype), shares / total[:, None])


def _price_adversary_budget(
    gradient: Float[Array, "I Q B"], xi: Float[Array, "I Q B"], gamma: Float[Array, " B"]
) -> Float[Array, "I 1 B"]:
    """Price a unit of the adversary's budget: the ceil(gamma)-th largest gradient of each type.

    Nothing where the budget is not used up: with that price an entry that is only partly funded would never move.
    """
    pairs = gradient.shape[1]
    place = jnp.ceil(gamma)[None, None]
    if pairs <= _FEW_PAIRS:
        larger = jnp.zeros_like(gradient)
        for p in range(pairs):  # one fused loop; a reduction over a further axis is slower on CPU
            larger = larger + (gradient[:, p : p + 1] > gradient).astype(gradient.dtype)
        price = jnp.where(larger < place, gradient, jnp.inf).min(1, keepdims=True)
    else:
        price = _find_by_rank(gradient, place)
    used_up = xi.sum(1, keepdims=True) >= 0.999 * gamma[None, None]
    return jnp.where(used_up & (place > 0) & (place <= pairs), price, 0.0)


_FEW_PAIRS = 16
"""Pairs up to which every two gradients are compared; beyond, the operations would grow with their square."""


def _find_by_rank(values: Float[Array, "I Q B"], place: Float[Array, "1 1 B"]) -> Float[Array, "I 1 B"]:
    """Find the ``place``-th largest of each type's values, by halving their range."""

    def halve(_: Array, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = 0.5 * (low + high)
        few = (values > middle).astype(values.dtype).sum(1, keepdims=True) < place
        return jnp.where(few, low, middle), jnp.where(few, middle, high)

    ends = values.min(1, keepdims=True), values.max(1, keepdims=True)
    _, high = jax.lax.fori_loop(0, 24, halve, ends)
    return jnp.where(values <= high, values, -jnp.inf).max(1, keepdims=True)


def _project_adversary(xi: Float[Array, "I Q B"], gamma: Float[Array, " B"]) -> Float[Array, "I Q B"]:
    """Move towards the Euclidean projection onto U(gamma): shift the positive entries, then scale what is left."""
    xi = jnp.clip(xi, 0.0, 1.0)
    for _ in range(3):
        over = jnp.maximum(xi.sum(1, keepdims=True) - gamma[None, None], 0.0)
        free = jnp.maximum((xi > 0).astype(xi.dtype).sum(1, keepdims=True), 1.0)
        xi = jnp.clip(xi - over / free, 0.0, 1.0)
    return scale_inside(xi, gamma)


def _flatten_triples(chi: Float[Array, "Q N I B"]) -> Float[Array, "T I B"]:
    """Put the load's adversaries of all triples under each other: each has a budget of its own."""
    return chi.reshape(-1, *chi.shape[2:])


_NEWEST = 0.05
"""Weight of the newest estimate in the running mean of w."""


def _make_climb(*, far: bool) -> Any:
    @jax.custom_batching.custom_vmap
    def climb(
        v: Iterate, part: Coefficients, units: Units, controls: Float[Array, " 5"]
    ) -> tuple[Iterate, Float[Array, "Q N"]]:
        """Take all steps of the ascent of one scenario; return the last iterate and the running mean of w."""
        v, part, units = jax.tree.map(lambda a: a[..., None], (v, part, units))
        return jax.tree.map(lambda a: a[..., 0], climb_together(v, part, units, controls, far=far))

    @climb.def_vmap
    def climb_batch(
        size: int, batched: Any, v: Any, part: Any, units: Any, controls: Array
    ) -> tuple[Any, Any]:
        """Make the batch the last axis: every operation of a step then runs over contiguous scenarios."""
        assert not batched[3], "the controls are the batch's"

        def last(a: Array, has: bool) -> Array:
            return jnp.moveaxis(a, 0, -1) if has else jnp.broadcast_to(a[..., None], (*a.shape, size))

        v, part, units = jax.tree.map(last, (v, part, units), tuple(batched[:3]))
        reached = climb_together(v, part, units, controls, far=far)
        return jax.tree.map(lambda a: jnp.moveaxis(a, -1, 0), reached), jax.tree.map(lambda _: True, reached)

    return climb


_CLIMB = {far: _make_climb(far=far) for far in (False, True)}


def climb_together(
    v: Iterate, part: Coefficients, units: Units, controls: Float[Array, " 5"], *, far: bool = False
) -> tuple[Iterate, Float[Array, "Q N B"]]:
    """Take all steps of a batch of scenarios, which is the last axis of every array but ``controls``."""
    steps, rate, last_rate, warm, cold = controls
    adam = optax.scale_by_adam(b1=0.9, b2=0.95)
    smooth_dual = partial(_smooth_dual, far=far)

    def step(number: Array, state: tuple[Iterate, optax.OptState, Array]) -> tuple:
        v, memory, mean = state
        done = number.astype(mean.dtype) / steps
        heat = warm * (cold / warm) ** done
        size = rate * (last_rate + (1.0 - last_rate) * 0.5 * (1.0 + jnp.cos(jnp.pi * done)))
        up, weights = jax.grad(smooth_dual, has_aux=True)(v, part, units, heat)
        up = up._replace(
            xi=up.xi - _price_adversary_budget(up.xi, v.xi, part.gamma_delay),
            psi=up.psi - _price_adversary_budget(up.psi, v.psi, part.gamma_error),
        )
        if v.chi is not None and part.rates is not None:
            flat, at = _flatten_triples(up.chi), _flatten_triples(v.chi)
            up = up._replace(
                chi=(flat - _price_adversary_budget(flat, at, part.rates.gamma)).reshape(v.chi.shape)
            )
        with jax.numpy_dtype_promotion("standard"):  # optax raises a float to the integer step number
            move, memory = adam.update(up, memory)
        v = jax.tree.map(lambda a, m: a + size * m, v, move)
        projected = jax.tree.map(lambda a: jnp.maximum(a, 0.0), v)._replace(
            demand=v.demand,
            xi=_project_adversary(v.xi, part.gamma_delay),
            psi=_project_adversary(v.psi, part.gamma_error),
        )
        if v.chi is not None and part.rates is not None:
            inside = _project_adversary(_flatten_triples(v.chi), part.rates.gamma)
            projected = projected._replace(chi=inside.reshape(v.chi.shape))
        return projected, memory, mean + _NEWEST * (weights - mean)

    params: Any = v  # optax's type of parameters knows no None
    state = (v, adam.init(params), jnp.zeros_like(units.memory))
    v, _, weights = jax.lax.fori_loop(0, steps.astype(jnp.int32), step, state)
    return v, weights


class OpenAscent(NamedTuple):
    """An ascent about to begin, over Q of the pairs."""

    index: Int[Array, " Q"]  # the pairs iterated
    money: Float[Array, ""]  # unit of money, $
    iterate: Iterate
    part: Coefficients  # of these pairs, in that unit
    units: Units


def open_ascent(
    c: Coefficients, start: Multipliers | None, reach: Reach, opening: Opening | None = None
) -> OpenAscent:
    """Prepare the ascent of one scenario from ``start`` (cold without it) over its most promising pairs.

    Args:
      opening: of `scarce_start`, where it is known and the ascent reaches far; it does not depend on what is decided.
    """
    if reach.far:
        if start is None or opening is None:
            scarce, opening = scarce_start(c)
            start = scarce if start is None else start
        rank = _rank_by_value(c, start)
    else:
        opening = None
        start = cold_start(c) if start is None else start
        rank = promise(c)
    scaled, money, opening = scale_money(c, opening)
    _, index = jax.lax.top_k(-rank, min(reach.pairs, c.nominal.shape[1]))
    part = take_pairs(scaled, index)
    units = choose_units(part, opening)
    chosen = start._replace(
        memory=start.memory[index],
        compute=start.compute[index],
        delay_adversary=start.delay_adversary[:, index],
        error_adversary=start.error_adversary[:, index],
    )
    if start.throughput is not None and start.load_adversary is not None:
        chosen = chosen._replace(
            throughput=start.throughput[index], load_adversary=start.load_adversary[index]
        )
    return OpenAscent(index, money, _count_in_units(chosen, units, part, money, far=reach.far), part, units)


def _rank_by_value(c: Coefficients, y: Multipliers) -> Float[Array, " P"]:
    """Score each pair, smaller is better: the least part of a rent that ``y`` leaves unpaid; decided first."""
    _, value = certify(c, y)
    rent = c.deploy * (1.0 + y.budget)
    unpaid = jnp.where(c.fits, value / jnp.where(rent > 0, rent, 1.0), jnp.inf).min(1)
    return jnp.where((c.decided > 0).any(1), -HUGE, jnp.where((c.decided < 0).all(1), jnp.inf, unpaid))


def ascend(
    c: Coefficients,
    start: Multipliers | None,
    reach: Reach,
    controls: Float[Array, " 5"],
    opening: Opening | None = None,
) -> tuple[Multipliers, Float[Array, "P N"], Int[Array, " Q"]]:
    """Ascend from ``start`` (cold without it); one scenario, in the precision of ``c``.

    Args:
      controls: steps, rate, last_rate, warm, cold as data.
      opening: as `open_ascent`.

    Returns:
      multipliers over all pairs, those of the pairs not iterated 0; an estimate of w; and the pairs iterated.
    """
    index, money, v, part, units = open_ascent(c, start, reach, opening)
    v, weights = _CLIMB[reach.far](v, part, units, controls)
    if reach.far:
        # In a loop, whose results XLA computes once: it would compute a hyperbolic sine again, to other last bits,
        # where the certificate reads it, and the bound would not be that of the multipliers returned.
        count = 1 + (controls[0] < 0).astype(jnp.int32)  # 1, but the compiler cannot know
        shapes = jax.eval_shape(partial(_restore_units, far=True), v, units, part)
        nothing = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        y = jax.lax.fori_loop(0, count, lambda *_: _restore_units(v, units, part, far=True), nothing)
    else:
        y = _restore_units(v, units, part, far=False)
    by_type = jnp.zeros(c.nominal.shape, v.demand.dtype)
    by_triple = jnp.zeros(c.deploy.shape, v.demand.dtype)
    everywhere = Multipliers(
        y.demand * money,
        y.delay * money,
        y.error * money,
        y.budget,
        y.storage * money,
        by_triple.at[index].set(y.memory * money),
        by_triple.at[index].set(y.compute * money),
        by_type.at[:, index].set(y.delay_adversary),
        by_type.at[:, index].set(y.error_adversary),
    )
    if y.throughput is not None and y.load_adversary is not None:
        cells = jnp.zeros((*c.deploy.shape, len(y.demand)), v.demand.dtype)
        everywhere = everywhere._replace(
            throughput=by_triple.at[index].set(y.throughput * money),
            load_adversary=cells.at[index].set(y.load_adversary),
        )
    if y.quota is not None:
        everywhere = everywhere._replace(quota=y.quota * money)
    return everywhere, by_triple.at[index].set(weights), index


class Ascended(NamedTuple):
    """What an ascent proves and knows of one scenario."""

    bound: Float[Array, ""]  # certified, float64
    multipliers: Multipliers  # float32, that prove it
    value: Float[Array, "P N"]  # V
    weights: Float[Array, "P N"]  # the estimate of w
    # $ that pairs not iterated take from the bound, <= 0; 0 unless the ascent reaches far
    missed: Float[Array, ""]


def in_single(tree: Any) -> Any:
    """Convert the float64 arrays of a tree to float32: what is ascended on."""
    return jax.tree.map(lambda a: a.astype(jnp.float32) if a.dtype == jnp.float64 else a, tree)


def ascend_and_certify(
    c: Coefficients,
    start: Multipliers | None,
    reach: Reach,
    controls: Float[Array, " 5"],
    opening: Opening | None = None,
    weight: Float[Array, ""] | None = None,
) -> Ascended:
    """Ascend in float32 from ``start`` (cold without it), certify in float64; one scenario, ``c`` in float64.

    Args:
      opening: as `open_ascent`.
      weight: below 1 where only feasibility is asked: the ascent is then that of `count_rent_alone`, and its
        multipliers are read as those of the scenario (`lengthen_ray`); the bound is that of limits higher by
        `PROOF_BAND`. 1 without it.
    """
    if weight is not None:
        c = widen_limits(c, jnp.where(weight < 1, PROOF_BAND, 0.0))
    single, start, opening = in_single((c, start, opening))
    if weight is not None:
        start = None if start is None else shorten_ray(start, weight)
        single = count_rent_alone(single, weight)
    y, weights, index = ascend(single, start, reach, controls, opening)
    if weight is not None:
        y = lengthen_ray(y, weight)
    bound, value = certify(c, jax.tree.map(lambda a: a.astype(jnp.float64), y))
    missed = jnp.zeros_like(bound)
    if reach.far:
        missed = least_by_pair(c, value).at[index].set(0.0).sum()
    return Ascended(bound, y, value, weights, missed)
