"""The ascent of the dual function in float32, by optax, and its certificate in float64.

The maxima of `solvers.dual.function` are smoothed (softplus, log-sum-exp) with a temperature that falls from
`Ascent.warm` to `Ascent.cold`; Adam works on multipliers in natural units. Only the pairs that could pay
(`Ascent.pairs` of them, by amortised cost) are iterated: the certificate is over all of them, with m and c of each
triple improved in closed form, so a pair wrongly left out can only cost tightness. The adversary ascends by its
gradient less the price of its budget (the ceil(Gamma)-th largest gradient, exact at the optimum) and is projected.
The gradient of psi is taken as if zeta had a floor: at zeta = 0 psi would otherwise never learn, and then zeta neither.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float, Int

from rodiu_jax.model.fields import Array
from solvers.dual.coefficients import Coefficients, take_pairs
from solvers.dual.function import HUGE, Multipliers, certify, reduced_gain, scale_inside
from solvers.dual.opening import Units, choose_units, cold_start, promise, scale_money


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


@dataclass(frozen=True)
class Ascent:
    """How the ascent runs; all but ``pairs`` are data and recompile nothing.

    Attributes:
      steps: gradient steps.
      rate: first learning rate, in natural units; it falls by a cosine to ``rate * last_rate``.
      warm, cold: first and last temperature, relative to the scale of the cost.
      pairs: pairs iterated (at most P).
    """

    steps: int = 150
    rate: float = 0.1
    last_rate: float = 0.03
    warm: float = 0.015
    cold: float = 8e-5
    pairs: int = 16

    @property
    def controls(self) -> Float[np.ndarray, " 5"]:
        """What is data to the compiled ascent: steps, rate, last_rate, warm, cold."""
        return np.array([self.steps, self.rate, self.last_rate, self.warm, self.cold], np.float32)


def _restore_units(v: Iterate, u: Units) -> Multipliers:
    return Multipliers(
        v.demand * u.demand,
        v.delay * u.delay,
        v.error * u.error,
        v.budget,
        v.storage * u.storage,
        v.memory * u.memory,
        v.compute * u.compute,
        v.xi,
        v.psi,
    )


def _softplus(x: Array) -> Array:
    """Compute log(1 + exp(x)) to the precision that smoothing needs."""
    return jnp.maximum(x, 0.0) + jnp.log(1.0 + jnp.exp(-jnp.abs(x)))


_ZETA_FLOOR = 0.2
"""Least price of an error promise, in its unit, that the gradient of psi is taken at."""


def _smooth_dual(
    v: Iterate, c: Coefficients, u: Units, heat: Float[Array, ""]
) -> tuple[Float[Array, ""], Float[Array, "Q N B"]]:
    """Smooth the dual function's maxima at temperature ``heat``; the values of a trailing batch axis are summed.

    Returns:
      the value, and the share of each triple in the smoothed minimum (Q,N,B): an estimate of w.
    """
    y = _restore_units(v, u)
    constant = jax.lax.stop_gradient
    floor = constant(jnp.maximum(y.error, _ZETA_FLOOR * u.error))[:, None]
    # Of value 0: it only gives psi the gradient that it would have with zeta at its floor.
    moving = floor * c.error_excess * (v.psi - constant(v.psi))
    gain = reduced_gain(c, y._replace(error_adversary=constant(v.psi))) - moving[:, :, None]
    gain = gain - y.memory[None] * c.kv[:, :, None] - y.compute[None] * c.compute[:, None, None]
    carried = (c.most * heat * _softplus(gain / heat)).sum(0)
    fixed = c.deploy * (c.cost_weight + y.budget)[None, None] + (y.storage[None] * c.weights)[:, None]
    value = jnp.where(c.fits, fixed - y.memory * c.room - y.compute * c.power - carried, HUGE)  # Q,N,B
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
    value = served.sum() - (y.budget * c.budget).sum() - (y.storage * c.storage).sum() + taken.sum()
    return value, jnp.where(forced[:, None], inside.astype(total.dtype), shares / total[:, None])


def _price_adversary_budget(
    gradient: Float[Array, "I Q B"], xi: Float[Array, "I Q B"], gamma: Float[Array, " B"]
) -> Float[Array, "I 1 B"]:
    """Price a unit of the adversary's budget: the ceil(gamma)-th largest gradient of each type.

    Nothing where the budget is not used up: with that price an entry that is only partly funded would never move.
    """
    pairs = gradient.shape[1]
    place = jnp.ceil(gamma)[None, None]
    larger = jnp.zeros_like(gradient)
    for p in range(pairs):  # one fused loop; a reduction over a further axis is slower on CPU
        larger = larger + (gradient[:, p : p + 1] > gradient).astype(gradient.dtype)
    price = jnp.where(larger < place, gradient, jnp.inf).min(1, keepdims=True)
    used_up = xi.sum(1, keepdims=True) >= 0.999 * gamma[None, None]
    return jnp.where(used_up & (place > 0) & (place <= pairs), price, 0.0)


def _project_adversary(xi: Float[Array, "I Q B"], gamma: Float[Array, " B"]) -> Float[Array, "I Q B"]:
    """Move towards the Euclidean projection onto U(gamma): shift the positive entries, then scale what is left."""
    xi = jnp.clip(xi, 0.0, 1.0)
    for _ in range(3):
        over = jnp.maximum(xi.sum(1, keepdims=True) - gamma[None, None], 0.0)
        free = jnp.maximum((xi > 0).astype(xi.dtype).sum(1, keepdims=True), 1.0)
        xi = jnp.clip(xi - over / free, 0.0, 1.0)
    return scale_inside(xi, gamma)


_NEWEST = 0.05
"""Weight of the newest estimate in the running mean of w."""


@jax.custom_batching.custom_vmap
def _climb(
    v: Iterate, part: Coefficients, units: Units, controls: Float[Array, " 5"]
) -> tuple[Iterate, Float[Array, "Q N"]]:
    """Take all steps of the ascent of one scenario; return the last iterate and the running mean of w."""
    v, part, units = jax.tree.map(lambda a: a[..., None], (v, part, units))
    return jax.tree.map(lambda a: a[..., 0], climb_together(v, part, units, controls))


@_climb.def_vmap
def _climb_batch(size: int, batched: Any, v: Any, part: Any, units: Any, controls: Array) -> tuple[Any, Any]:
    """Make the batch the last axis: every operation of a step then runs over contiguous scenarios."""
    assert not batched[3], "the controls are the batch's"

    def last(a: Array, has: bool) -> Array:
        return jnp.moveaxis(a, 0, -1) if has else jnp.broadcast_to(a[..., None], (*a.shape, size))

    v, part, units = jax.tree.map(last, (v, part, units), tuple(batched[:3]))
    reached = climb_together(v, part, units, controls)
    return jax.tree.map(lambda a: jnp.moveaxis(a, -1, 0), reached), jax.tree.map(lambda _: True, reached)


def climb_together(
    v: Iterate, part: Coefficients, units: Units, controls: Float[Array, " 5"]
) -> tuple[Iterate, Float[Array, "Q N B"]]:
    """Take all steps of a batch of scenarios, which is the last axis of every array but ``controls``."""
    steps, rate, last_rate, warm, cold = controls
    adam = optax.scale_by_adam(b1=0.9, b2=0.95)

    def step(number: Array, state: tuple[Iterate, optax.OptState, Array]) -> tuple:
        v, memory, mean = state
        done = number.astype(mean.dtype) / steps
        heat = warm * (cold / warm) ** done
        size = rate * (last_rate + (1.0 - last_rate) * 0.5 * (1.0 + jnp.cos(jnp.pi * done)))
        up, weights = jax.grad(_smooth_dual, has_aux=True)(v, part, units, heat)
        up = up._replace(
            xi=up.xi - _price_adversary_budget(up.xi, v.xi, part.gamma_delay),
            psi=up.psi - _price_adversary_budget(up.psi, v.psi, part.gamma_error),
        )
        with jax.numpy_dtype_promotion("standard"):  # optax raises a float to the integer step number
            move, memory = adam.update(up, memory)
        v = jax.tree.map(lambda a, m: a + size * m, v, move)
        projected = jax.tree.map(lambda a: jnp.maximum(a, 0.0), v)._replace(
            demand=v.demand,
            xi=_project_adversary(v.xi, part.gamma_delay),
            psi=_project_adversary(v.psi, part.gamma_error),
        )
        return projected, memory, mean + _NEWEST * (weights - mean)

    state = (v, adam.init(v), jnp.zeros_like(units.memory))
    v, _, weights = jax.lax.fori_loop(0, steps.astype(jnp.int32), step, state)
    return v, weights


class OpenAscent(NamedTuple):
    """An ascent about to begin, over Q of the pairs."""

    index: Int[Array, " Q"]  # the pairs iterated
    money: Float[Array, ""]  # unit of money, $
    iterate: Iterate
    part: Coefficients  # of these pairs, in that unit
    units: Units


def open_ascent(c: Coefficients, start: Multipliers | None, pairs_kept: int) -> OpenAscent:
    """Prepare the ascent of one scenario from ``start`` (cold without it) over its most promising pairs."""
    start = cold_start(c) if start is None else start
    scaled, money, opening = scale_money(c)
    _, index = jax.lax.top_k(-promise(c), min(pairs_kept, c.nominal.shape[1]))
    part = take_pairs(scaled, index)
    units = choose_units(part, opening)
    iterate = Iterate(
        start.demand / (money * units.demand),
        start.delay / (money * units.delay),
        start.error / (money * units.error),
        start.budget,
        start.storage / (money * units.storage),
        start.memory[index] / (money * units.memory),
        start.compute[index] / (money * units.compute),
        start.delay_adversary[:, index],
        start.error_adversary[:, index],
    )
    return OpenAscent(index, money, iterate, part, units)


def ascend(
    c: Coefficients, start: Multipliers | None, pairs_kept: int, controls: Float[Array, " 5"]
) -> tuple[Multipliers, Float[Array, "P N"]]:
    """Ascend from ``start`` (cold without it); one scenario, in the precision of ``c``.

    Args:
      pairs_kept: pairs iterated.
      controls: steps, rate, last_rate, warm, cold as data.

    Returns:
      multipliers over all pairs, those of the pairs not iterated 0; and an estimate of w.
    """
    index, money, v, part, units = open_ascent(c, start, pairs_kept)
    v, weights = _climb(v, part, units, controls)
    y = _restore_units(v, units)
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
    return everywhere, by_triple.at[index].set(weights)


class Ascended(NamedTuple):
    """What an ascent proves and knows of one scenario."""

    bound: Float[Array, ""]  # certified, float64
    multipliers: Multipliers  # float32, that prove it
    value: Float[Array, "P N"]  # V
    weights: Float[Array, "P N"]  # the estimate of w


def in_single(tree: Any) -> Any:
    """Convert the float64 arrays of a tree to float32: what is ascended on."""
    return jax.tree.map(lambda a: a.astype(jnp.float32) if a.dtype == jnp.float64 else a, tree)


def ascend_and_certify(
    c: Coefficients, start: Multipliers | None, pairs: int, controls: Float[Array, " 5"]
) -> Ascended:
    """Ascend in float32 from ``start`` (cold without it), certify in float64; one scenario, ``c`` in float64."""
    single, start = in_single((c, start))
    y, weights = ascend(single, start, pairs, controls)
    bound, value = certify(c, jax.tree.map(lambda a: a.astype(jnp.float64), y))
    return Ascended(bound, y, value, weights)
