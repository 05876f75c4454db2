"""The structured interior point against HiGHS on programs that have nothing to do with models or GPUs."""

import highspy
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from solvers.lp import stages
from solvers.lp.interior import interior_point, solve_batch
from solvers.lp.newton import diagonal_of, invert
from solvers.lp.program import BlockLp, LpSolution
from tests.oracles.interior_point import solve_plainly, write_densely

TYPES, SLOTS, BATCH = 3, 2, 16
ITERATIONS = 40


def program(seed: int, *, extra: int = 0, rows: int = 2, short: bool = False, tight: float = 1.0) -> BlockLp:
    """A batch of random programs that have a solution, ``extra`` columns a type beside its shares."""
    rng = np.random.default_rng(seed)
    columns, own_rows = SLOTS + extra, 1 + rows
    own = rng.uniform(-0.5, 1.0, (BATCH, TYPES, own_rows, columns))
    own[:, :, 0] = rng.uniform(0.5, 1.0, (BATCH, TYPES, columns))
    inside = rng.uniform(0.0, 0.5, (BATCH, TYPES, columns))
    load = np.einsum("btrn,btn->btr", own, inside)
    slot = rng.uniform(0.0, 1.0, (BATCH, 2, TYPES, SLOTS))
    common = rng.uniform(0.0, 1.0, (BATCH, TYPES, SLOTS))
    share = inside[:, :, :SLOTS]
    slot /= np.maximum(1.0, np.einsum("bqtd,btd->bqd", slot, share))[:, :, None] + 1e-3
    fallen = rng.uniform(0.5, 1.5, (BATCH, TYPES)) if short else None
    return BlockLp(
        cost=rng.uniform(-1.0, 1.0, (BATCH, TYPES, columns)) + (np.arange(columns) >= SLOTS),
        own=own,
        own_limit=load + rng.uniform(0.0, 0.2, load.shape) * (rng.random(load.shape) < 0.7),
        floor=load[..., 0] * tight + (0.3 if short else 0.0),
        slot=slot,
        common=common,
        common_limit=(common * share).sum((1, 2)) + 0.01,
        shortfall_cost=fallen,
    )


@jax.jit
def _solved(q: BlockLp, iterations: jax.Array) -> tuple[LpSolution, jax.Array]:
    return jax.vmap(interior_point, in_axes=(0, None))(q, iterations)


def solved(q: BlockLp, iterations: int = ITERATIONS) -> tuple[LpSolution, np.ndarray]:
    with jax.enable_x64(True):
        return jax.tree.map(np.asarray, _solved(q, np.int32(iterations)))


def test_short_loops_unrolled_for_an_accelerator_solve_the_same(monkeypatch: pytest.MonkeyPatch):
    """HiGHS is the witness; the program has the loop over iterations and no other."""
    q = program(5)
    last = jax.tree.map(lambda a: np.moveaxis(a, 0, -1), q)

    def solve() -> tuple[LpSolution, int]:
        fresh = jax.jit(lambda lp, iterations: solve_batch.__wrapped__(lp, iterations))
        with jax.enable_x64(True):
            lowered = fresh.lower(last, np.int32(ITERATIONS))
            return jax.tree.map(np.asarray, fresh(last, np.int32(ITERATIONS))[0]), lowered.as_text().count(
                "while("
            )

    looped, loops = solve()
    assert loops == 3
    monkeypatch.setattr(stages, "by_device", lambda *, cpu, accelerator: accelerator)
    unrolled, loops = solve()
    assert loops == 1
    np.testing.assert_allclose(unrolled.x, looped.x, atol=1e-9)
    for b in range(4):
        assert (q.cost[b] * unrolled.x[..., b]).sum() == pytest.approx(optimum(q, b), abs=1e-7)


def optimum(q: BlockLp, b: int) -> float:
    """HiGHS's optimum of program ``b``, written out row by row."""
    types, own_rows, columns = q.own[b].shape
    solver = highspy.Highs()
    solver.silent()
    solver.setOptionValue("threads", 1)
    x = [[solver.addVariable(0.0, highspy.kHighsInf) for _ in range(columns)] for _ in range(types)]
    fallen = [
        solver.addVariable(0.0, highspy.kHighsInf if q.shortfall_cost is not None else 0.0)
        for _ in range(types)
    ]
    for i in range(types):
        for r in range(own_rows):
            row = sum(q.own[b, i, r, n] * x[i][n] for n in range(columns))
            solver.addConstr(row <= q.own_limit[b, i, r])
            if r == 0:
                solver.addConstr(row + fallen[i] >= q.floor[b, i])
    for d in range(q.common.shape[2]):
        for k in range(2):
            solver.addConstr(sum(q.slot[b, k, i, d] * x[i][d] for i in range(types)) <= 1.0)
    share = [(i, d) for i in range(types) for d in range(q.common.shape[2])]
    solver.addConstr(sum(q.common[b, i, d] * x[i][d] for i, d in share) <= q.common_limit[b])
    cost = sum(q.cost[b, i, n] * x[i][n] for i in range(types) for n in range(columns))
    if q.shortfall_cost is not None:
        cost = cost + sum(q.shortfall_cost[b, i] * fallen[i] for i in range(types))
    solver.minimize(cost)
    assert solver.getModelStatus() == highspy.HighsModelStatus.kOptimal
    return solver.getObjectiveValue()


def value(q: BlockLp, x: np.ndarray) -> np.ndarray:
    total = (q.cost * x).sum((1, 2))
    if q.shortfall_cost is not None:
        total += (q.shortfall_cost * np.maximum(q.floor - (q.own[:, :, 0] * x).sum(2), 0.0)).sum(1)
    return total


def breach(q: BlockLp, x: np.ndarray) -> float:
    """By how much a row is broken at worst."""
    own = np.einsum("btrn,btn->btr", q.own, x)
    share = x[:, :, :SLOTS]
    worst = [
        (own - q.own_limit).max(),
        (np.einsum("bqtd,btd->bqd", q.slot, share) - 1.0).max(),
        ((q.common * share).sum((1, 2)) - q.common_limit).max(),
        -x.min(),
    ]
    if q.shortfall_cost is None:
        worst.append((q.floor - own[:, :, 0]).max())
    return float(max(worst))


def dual_value(q: BlockLp, point: LpSolution) -> np.ndarray:
    """What the prices prove; -inf where some column would be worth more than it costs."""
    net = point.own_price.copy()
    net[:, :, 0] -= point.floor_price
    worth = np.einsum("btrn,btr->btn", q.own, net)
    worth[:, :, :SLOTS] += (
        np.einsum("bqtd,bqd->btd", q.slot, point.slot_price) + q.common * point.common_price[:, None, None]
    )
    loss = np.minimum(q.cost + worth, 0.0)
    assert loss.min() > -1e-8
    if q.shortfall_cost is not None:
        assert (point.floor_price <= q.shortfall_cost + 1e-8).all()
    rows = (q.own_limit * point.own_price).sum((1, 2)) - (q.floor * point.floor_price).sum(1)
    return -rows - point.slot_price.sum((1, 2)) - q.common_limit * point.common_price


@pytest.mark.parametrize("extra", [0, 3])
@pytest.mark.parametrize("short", [False, True])
@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_the_optimum_is_that_of_highs(extra, short, seed):
    q = program(seed, extra=extra, rows=2 + extra, short=short, tight=1.0 if seed == 1 else 0.8)
    point, off = solved(q)
    least = np.array([optimum(q, b) for b in range(BATCH)])
    np.testing.assert_allclose(value(q, point.x), least, rtol=1e-7, atol=1e-7)
    assert breach(q, point.x) < 1e-8
    assert off.max() < 1e-7
    assert min(price.min() for price in point[1:]) >= 0
    np.testing.assert_allclose(dual_value(q, point), least, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("extra", [0, 3])
@pytest.mark.parametrize("short", [False, True])
def test_every_iterate_is_that_of_the_plain_method(extra, short):
    q = program(11, extra=extra, rows=2 + extra, short=short)
    for iterations in (0, 1, 2, 4, 6):
        point, _ = solved(q, iterations)
        for b in range(BATCH):
            one = jax.tree.map(lambda a, b=b: a[b], q)
            columns, prices = solve_plainly(one, iterations)
            mine = [point.own_price[b], point.floor_price[b], point.slot_price[b], point.common_price[b]]
            np.testing.assert_allclose(point.x[b].ravel(), columns[: q.cost[b].size], rtol=1e-7, atol=1e-9)
            np.testing.assert_allclose(np.concatenate([*map(np.ravel, mine)]), prices, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("short", [False, True])
def test_the_plain_method_finds_the_optimum_of_highs(short):
    q = program(12, short=short, tight=0.9)
    for b in range(4):
        one = jax.tree.map(lambda a, b=b: a[b], q)
        columns, _ = solve_plainly(one, 18)
        assert write_densely(one).c @ columns == pytest.approx(optimum(q, b), rel=1e-6, abs=1e-6)


def test_the_price_of_falling_short_caps_that_of_demand():
    q = program(3, short=True)
    q = q._replace(floor=q.floor + 5.0)  # more than can be served
    point, _ = solved(q)
    np.testing.assert_allclose(point.floor_price, q.shortfall_cost, rtol=1e-7)


def test_what_has_no_solution_never_settles():
    q = program(4)
    point, off = solved(q._replace(floor=q.own_limit[:, :, 0] + 1.0))
    assert np.isfinite(point.x).all()
    assert off.min() > 1e-3


def test_a_program_on_paper():
    # min -x - 2y, x + y <= 1 and y <= 1/4: x = 3/4, y = 1/4, at prices 1 and 1.
    with jax.enable_x64(True):
        zero = jnp.zeros((1, 2))
        q = BlockLp(
            cost=jnp.array([[-1.0, -2.0]]),
            own=jnp.array([[[1.0, 1.0], [0.0, 1.0]]]),
            own_limit=jnp.array([[1.0, 0.25]]),
            floor=jnp.zeros(1),
            slot=jnp.stack([zero, zero]),
            common=zero,
            common_limit=jnp.ones(()),
        )
        point, off = interior_point(q, 25)
    np.testing.assert_allclose(point.x, [[0.75, 0.25]], rtol=1e-9)
    np.testing.assert_allclose(point.own_price, [[1.0, 1.0]], rtol=1e-6)
    assert float(off) < 1e-9


@pytest.mark.slow
def test_a_scenario_is_solved_alike_in_any_company():
    q = program(5)
    point, off = solved(q)
    with jax.enable_x64(True):
        alone, alone_off = jax.jit(interior_point)(jax.tree.map(lambda a: a[3], q), np.int32(ITERATIONS))
        split = jax.tree.map(lambda a: a.reshape(4, BATCH // 4, *a.shape[1:]), q)
        nested = jax.jit(jax.vmap(jax.vmap(interior_point, (0, None)), (0, None)))(
            split, np.int32(ITERATIONS)
        )
    np.testing.assert_allclose(alone.x, point.x[3], atol=1e-9)
    np.testing.assert_allclose(alone_off, off[3], atol=1e-9)
    for a, b in zip(jax.tree.leaves(nested), jax.tree.leaves((point, off)), strict=True):
        np.testing.assert_array_equal(np.asarray(a).reshape(b.shape), b)


def test_one_program_that_is_no_number_spoils_no_other():
    q = program(6)
    point, off = solved(q)
    cost = q.cost.copy()
    cost[2] = np.nan
    spoilt, spoilt_off = solved(q._replace(cost=cost))
    others = np.arange(BATCH) != 2
    np.testing.assert_array_equal(spoilt.x[others], point.x[others])
    np.testing.assert_array_equal(spoilt_off[others], off[others])
    assert not spoilt_off[2] < 1.0


def test_inverse_of_ill_conditioned_matrices_and_of_dependent_rows():
    rng = np.random.default_rng(7)
    half = rng.normal(size=(8, 5, 5)) * np.logspace(0, -2, 5)[:, None]
    half[4:, 3] = half[4:, 0] - half[4:, 1]
    matrix = half @ half.transpose(0, 2, 1)
    with jax.enable_x64(True):
        last = jnp.moveaxis(jnp.asarray(matrix), 0, -1)
        found = np.moveaxis(
            np.asarray(invert(lambda stage, *given: stage(*given), last, diagonal_of(last))), -1, 0
        )
    np.testing.assert_allclose(found[:4] @ matrix[:4], np.broadcast_to(np.eye(5), (4, 5, 5)), atol=1e-6)
    kept = np.array([0, 1, 2, 4])
    assert not found[4:, 3].any(), "the row that depends on others"
    inner = found[4:, kept[:, None], kept] @ matrix[4:, kept[:, None], kept]
    np.testing.assert_allclose(inner, np.broadcast_to(np.eye(4), (4, 4, 4)), atol=1e-6)
