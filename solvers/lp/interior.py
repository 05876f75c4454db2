"""A primal-dual interior point for many small structured linear programs at once (`solvers.lp.program`), in float64.

Every iteration takes Mehrotra's predictor and corrector steps: first straight at the optimum, then once more, with what
the first step would have done to the products of values and prices put right and a new target between now and zero.

Source: Mehrotra, On the implementation of a primal-dual interior point method (SIAM J. Optimization, 1992).
A plain NumPy version to read beside this one: ``tests/oracles/interior_point.py``.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int

from solvers.lp.newton import compute_residuals, factor, find_step
from solvers.lp.program import BlockLp, LpSolution, PrimalDual, RowValues, Side, row_values
from solvers.lp.stages import Run, broadcast_batch, fold_all, repeat, run_once

_START = 0.3
"""Columns and least slacks to start from: columns are shares of 1, and rows are scaled to limits of about 1."""

_START_PRICE = 0.1
"""Prices and reduced costs to start from: costs are scaled so that all types unserved cost about 1."""

_SHORT_OF_BORDER = 0.995
"""Part of the way to the nearest border that a step goes: on the border itself Newton's equations are singular."""

_CLOSED = 1e-13
"""Mean product below which a program stops moving: it is solved to float64's last digits."""


def interior_point(lp: BlockLp, iterations: int | Int[Array, ""]) -> tuple[LpSolution, Float[Array, ""]]:
    """Solve one program, or under `jax.vmap` a batch, from a start that need not keep the rows.

    Args:
      iterations: the same for a whole batch. Pass an array: XLA makes a slow program of a Python number on a CPU.

    Returns:
      the last iterate, and by how much its cost may be off: complementarity plus the residuals of the rows at their
      prices. Large where the program has no solution or the iterations did not suffice.
    """
    return _solve_one(lp, jnp.asarray(iterations, jnp.int32))


# ---- batching: whatever is mapped becomes one batch, the last axis ----

_USUAL_BATCH = 32
"""Programs in a block of a CPU (`solvers.bracket`)."""


@jax.custom_batching.custom_vmap
def _solve_one(lp: BlockLp, iterations: Int[Array, ""]) -> tuple[LpSolution, Float[Array, ""]]:
    # Under vmap JAX traces this body too, only for its shapes. A batch of the usual size makes that trace the one
    # that the batched rule needs anyway, so it is made once.
    alike = jax.tree.map(lambda a: jnp.broadcast_to(a[None], (_USUAL_BATCH, *a.shape)), lp)
    return jax.tree.map(lambda a: a[0], _solve_many(alike, iterations))


@_solve_one.def_vmap
def _map_one(size: int, batched: Any, lp: Any, iterations: Int[Array, ""]) -> tuple[Any, Any]:
    answer = _solve_many(_broadcast(size, batched, lp), iterations)
    return answer, jax.tree.map(lambda _: True, answer)


@jax.custom_batching.custom_vmap
def _solve_many(lp: BlockLp, iterations: Int[Array, ""]) -> tuple[LpSolution, Float[Array, " B"]]:
    """Solve a batch, the first axis of every array. It becomes the last: operations then run over neighbours."""
    answer = solve_batch(jax.tree.map(lambda a: jnp.moveaxis(a, 0, -1), lp), iterations)
    return jax.tree.map(lambda a: jnp.moveaxis(a, -1, 0), answer)


@_solve_many.def_vmap
def _map_many(size: int, batched: Any, lp: Any, iterations: Int[Array, ""]) -> tuple[Any, Any]:
    """Make one batch of a batch of batches."""
    whole = _broadcast(size, batched, lp)
    inner = whole.cost.shape[1]
    answer = _solve_many(jax.tree.map(lambda a: a.reshape(size * inner, *a.shape[2:]), whole), iterations)
    answer = jax.tree.map(lambda a: a.reshape(size, inner, *a.shape[1:]), answer)
    return answer, jax.tree.map(lambda _: True, answer)


def _broadcast(size: int, batched: Any, lp: Any) -> Any:
    """Give arrays that are the same for all programs the batch axis of the others, in front."""
    assert not batched[1], "iterations are the batch's"
    return jax.tree.map(
        lambda a, mapped: a if mapped else jnp.broadcast_to(a[None], (size, *a.shape)), lp, batched[0]
    )


# ---- the method, on a batch ----


@jax.jit
def solve_batch(lp: BlockLp, iterations: Int[Array, ""]) -> tuple[LpSolution, Float[Array, " B"]]:
    """Solve a batch of programs, the last axis of every array; returns are as `interior_point`'s."""
    run = partial(run_once, iterations > 0)  # no number of iterations below 1 runs any stage
    end = jax.lax.fori_loop(0, iterations, lambda _, now: iterate(run, lp, now), start(lp))
    rows = end.dual.rows
    solution = LpSolution(end.primal.x, rows.own, rows.floor, rows.slot, rows.common)
    return solution, bound_error(lp, end)


def start(lp: BlockLp) -> PrimalDual:
    """Start all columns alike, all prices alike, and slacks where the rows put them but away from zero."""
    x = jnp.full_like(lp.cost, _START)
    own, slot, common = row_values(lp, x)
    shortfall = None if lp.shortfall_cost is None else jnp.full_like(lp.floor, _START)
    served = own[:, 0] if shortfall is None else own[:, 0] + shortfall

    def keep_away(slack: Array) -> Array:
        return jnp.maximum(slack, _START)

    slacks = RowValues(
        keep_away(lp.own_limit - own),
        keep_away(served - lp.floor),
        keep_away(1.0 - slot),
        keep_away(lp.common_limit - common),
        shortfall,
    )
    primal = Side(x, slacks)
    return PrimalDual(primal, jax.tree.map(lambda a: jnp.full_like(a, _START_PRICE), primal))


def sum_products(at: PrimalDual) -> Float[Array, " B"]:
    """Sum the products of all values with their partners: complementarity, zero at the optimum."""
    pairs = zip(jax.tree.leaves(at.primal), jax.tree.leaves(at.dual), strict=True)
    total = jnp.zeros(at.primal.x.shape[-1], at.primal.x.dtype)
    return sum((fold_all(jnp.add, u * v) for u, v in pairs), total)


def mean_product(at: PrimalDual) -> Float[Array, " B"]:
    """Average the products of all values with their partners."""
    return sum_products(at) / _count(at)


def _count(at: PrimalDual) -> int:
    """Count the products of a program."""
    return sum(a.size // a.shape[-1] for a in jax.tree.leaves(at.primal))


def step_lengths(now: PrimalDual, step: PrimalDual) -> tuple[Float[Array, " B"], Float[Array, " B"]]:
    """Compute how far either side may follow the step before a value falls to zero, at most 1."""

    def longest(values: Side, moves: Side) -> Array:
        length = jnp.ones(values.x.shape[-1], values.x.dtype)
        for value, move in zip(jax.tree.leaves(values), jax.tree.leaves(moves), strict=True):
            falls = move < 0
            ratio = jnp.where(falls, -value / jnp.where(falls, move, -1.0), 1.0)
            length = jnp.minimum(length, fold_all(jnp.minimum, ratio))
        return length

    return longest(now.primal, step.primal), longest(now.dual, step.dual)


def advance(
    now: PrimalDual, step: PrimalDual, lengths: tuple[Float[Array, " B"], Float[Array, " B"]]
) -> PrimalDual:
    """Follow the step by a length for either side."""

    def follow(values: Side, moves: Side, length: Array) -> Side:
        return jax.tree.map(lambda value, move: value + broadcast_batch(length, value) * move, values, moves)

    return PrimalDual(follow(now.primal, step.primal, lengths[0]), follow(now.dual, step.dual, lengths[1]))


def choose_target(
    now: PrimalDual,
    step: PrimalDual,
    lengths: tuple[Float[Array, " B"], Float[Array, " B"]],
    mean: Float[Array, " B"],
) -> Float[Array, " B"]:
    """Choose the value that the corrector takes all products to: near zero where the predictor got far (Mehrotra)."""
    ahead = sum_products(advance(now, step, lengths))
    return mean * (ahead / (_count(now) * mean)) ** 3


def predict_and_correct(
    run: Run, lp: BlockLp, now: PrimalDual, mean: Float[Array, " B"]
) -> tuple[PrimalDual, tuple[Float[Array, " B"], Float[Array, " B"]]]:
    """Find the corrector's step and its lengths."""
    newton = factor(run, lp, now)
    products = jax.tree.map(jnp.multiply, now.primal, now.dual)

    def attempt(_: Array, state: tuple[Side, Any]) -> tuple[Side, Any]:
        step = find_step(run, lp, newton, now, state[0])
        lengths = run(step_lengths, now, step)
        target = run(choose_target, now, step, lengths, mean)
        corrected = jax.tree.map(
            lambda product, u, v: product + u * v - broadcast_batch(target, product), products, *step
        )
        return corrected, (step, lengths)

    # The predictor's aim is that all products fall to zero.
    nothing = (now, (jnp.zeros_like(mean), jnp.zeros_like(mean)))
    return repeat(2, attempt, (products, nothing))[1]


def can_move(mean: Float[Array, " B"], step: PrimalDual) -> Bool[Array, " B"]:
    """Say which programs are not closed and have a step of finite numbers."""
    size = sum(fold_all(jnp.add, jnp.abs(move)) for move in jax.tree.leaves(step))
    return (mean > _CLOSED) & jnp.isfinite(size)


def iterate(run: Run, lp: BlockLp, now: PrimalDual) -> PrimalDual:
    """Take one step; a program that cannot move stays where it is."""
    mean = run(mean_product, now)
    step, (primal, dual) = predict_and_correct(run, lp, now, mean)
    moving = run(can_move, mean, step)
    new = advance(now, step, (_SHORT_OF_BORDER * primal, _SHORT_OF_BORDER * dual))
    return jax.tree.map(
        lambda after, before: jnp.where(broadcast_batch(moving, after), after, before), new, now
    )


def bound_error(lp: BlockLp, end: PrimalDual) -> Float[Array, " B"]:
    """Bound by how much the cost may be off: complementarity, and what the rows miss at their prices and at worst."""
    residuals, _ = compute_residuals(lp, end)
    error, worst = sum_products(end), jnp.zeros(end.primal.x.shape[-1], end.primal.x.dtype)
    for residual, price in zip(residuals[:4], end.dual.rows[:4], strict=True):
        size = jnp.abs(residual)
        error = error + fold_all(jnp.add, size * price)
        worst = jnp.maximum(worst, fold_all(jnp.maximum, size))
    return error + worst
