"""Evaluating plans on scenarios beside NumPy, pair by pair and in batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from bench.inputs import make_random_plans
from bench.measure import SLOW_PEER_ITEMS, Case, Side, Spec, describe_counts
from rodiu_jax.catalog import sampling
from rodiu_jax.model.evaluation import (
    _block_size,
    _score_crossed_block,
    _score_pair_block,
    _take_pairs,
    evaluate,
    score_crossed,
    score_pairs,
)
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import PlanArrays, plan_arrays
from rodiu_jax.model.tolerances import MARGIN_TOLERANCE
from rodiu_jax.model.verdict import COSTS
from rodiu_jax.runtime.block_sizes import block_size
from tests.oracles.numpy_batch_evaluator import BatchEvaluation, SlotPlans, evaluate_batch
from tests.oracles.numpy_evaluator import dense_plan, evaluate_one


@contextmanager
def build(n: int) -> Iterator[Iterator[Case]]:
    """Each plan on its own scenario, all plans on all scenarios, and from plans by name to a table."""
    instances = sampling.sample("seed", n=n, seed=4)
    yield iter([_build_pairwise(instances), _build_crossed(instances), _build_from_plans(instances)])


def _judge_costs(ours: np.ndarray, feasible: np.ndarray, peer: Sequence[Any]) -> tuple[bool, str]:
    """Judge by the largest relative difference of any cost, and by how many verdicts differ."""
    costs = np.array([[found.costs[name] for name in COSTS] for found in peer])
    verdicts = np.array(
        [all((m >= -MARGIN_TOLERANCE).all() for m in found.margins.values()) for found in peer]
    )
    worst, differ = _compare(ours[: len(peer)], feasible[: len(peer)], costs, verdicts)
    share = f"{int(verdicts.sum())} of {len(peer)} feasible"
    return worst < 1e-9 and not differ, f"costs differ by {worst:.1e}; {differ} verdicts differ; {share}"


def _judge_batch(costs: np.ndarray, feasible: np.ndarray, batch: BatchEvaluation) -> tuple[bool, str]:
    """Judge likewise by the peer in batch."""
    worst, differ = _compare(costs, feasible, batch.costs, _is_feasible(batch.margins))
    return worst < 1e-9 and not differ, f"in batch by {worst:.1e}, {differ} of all"


def _compare(
    ours: np.ndarray, feasible: np.ndarray, costs: np.ndarray, verdicts: np.ndarray
) -> tuple[float, int]:
    """Return the largest relative difference of any cost, and how many verdicts differ."""
    worst = float(np.max(np.abs(ours - costs) / np.maximum(np.abs(costs), 1e-9)))
    return worst, int((feasible != verdicts).sum())


def _is_feasible(margins: np.ndarray) -> Any:
    return (margins >= -MARGIN_TOLERANCE).all(-1)


def _slot_plans(arrays: PlanArrays, instances: Instances) -> SlotPlans:
    degree = np.maximum(arrays.degree, 0)
    used = arrays.degree >= 0
    return SlotPlans(
        arrays.model,
        arrays.gpu,
        np.where(used, np.asarray(instances.fields.tp_degree)[degree], 0).astype(np.float64),
        np.asarray(instances.fields.tp_speedup)[degree],
        arrays.share,
        arrays.unmet,
    )


def _build_pairwise(instances: Instances) -> Case:
    n = instances.size
    plans = make_random_plans(instances, n, everywhere=False)
    arrays = plan_arrays(plans, instances)
    index, mode = np.arange(n), instances.uncertainty
    few = min(n, SLOW_PEER_ITEMS)
    ready = [(instances.one(b), dense_plan(plans[b], instances)) for b in range(few)]

    def peer() -> list[Any]:
        return [evaluate_one(fields, mode, plan) for fields, plan in ready]

    slots = _slot_plans(arrays, instances)

    def judge(results: Sequence[Any]) -> tuple[bool, str]:
        scores, batch, found = results
        ours = scores.costs, _is_feasible(scores.margins)
        one, batched = _judge_costs(*ours, found), _judge_batch(*ours, batch)
        return one[0] and batched[0], f"{one[1]}; {batched[1]}"

    size = min(block_size("evaluate pairs").rows, n)
    take, static = _take_pairs(instances, arrays, index, index)
    counted = describe_counts(_score_pair_block, size, "pair", *take(np.arange(size)), **static)
    sides = (
        Side("score_pairs", lambda: score_pairs(instances, arrays, index, index), n),
        Side("NumPy, in batch", lambda: evaluate_batch(instances.fields, mode, slots), n),
        Side("NumPy, pair by pair", peer, few, target=10),
    )
    return Case(f"pairwise, {n:,} plans on their scenarios", sides, judge, counted)


def _build_crossed(instances: Instances, count: int = 64) -> Case:
    n = instances.size
    plans = make_random_plans(instances, count, everywhere=True)
    arrays = plan_arrays(plans, instances)
    few = min(n, SLOW_PEER_ITEMS)
    chosen = max(
        range(count), key=lambda p: sum(plans[p].unmet.values())
    )  # some of its verdicts are positive
    dense = dense_plan(plans[chosen], instances)
    ready = [instances.one(b) for b in range(few)]

    def peer() -> list[Any]:
        return [evaluate_one(fields, instances.uncertainty, dense) for fields in ready]

    slots = _slot_plans(arrays, instances)

    def batch() -> list[BatchEvaluation]:
        one = [SlotPlans(*(a[p] for a in slots)) for p in range(count)]
        return [evaluate_batch(instances.fields, instances.uncertainty, plan) for plan in one]

    def judge(results: Sequence[Any]) -> tuple[bool, str]:
        scores, each, found = results
        ours = scores.costs[chosen], _is_feasible(scores.margins[chosen])
        one, batched = _judge_costs(*ours, found), _judge_batch(*ours, each[chosen])
        return one[0] and batched[0], f"{one[1]}; {batched[1]}"

    size = min(_block_size(instances, count).rows, n)
    counted = describe_counts(
        _score_crossed_block,
        size * count,
        "pair",
        instances.take(np.arange(size)).fields,
        arrays,
        uncertainty=instances.uncertainty,
        batched=instances.batched,
    )
    sides = (
        Side("score_crossed", lambda: score_crossed(instances, arrays), n * count),
        Side("NumPy, in batch", batch, n * count),
        Side("NumPy, pair by pair", peer, few, target=10),
    )
    return Case(f"crossed, {count} plans x {n:,} scenarios", sides, judge, counted)


def _build_from_plans(instances: Instances) -> Case:
    """Compare the public function, from plans by name to a table, with the peer and its own conversion."""
    n = instances.size
    plans = make_random_plans(instances, n, everywhere=False)
    few = min(n, SLOW_PEER_ITEMS)

    def peer() -> list[Any]:
        mode = instances.uncertainty
        return [
            evaluate_one(instances.one(b), mode, dense_plan(plan, instances))
            for b, plan in enumerate(plans[:few])
        ]

    def judge(results: Sequence[Any]) -> tuple[bool, str]:
        table, found = results
        return _judge_costs(table[list(COSTS)].to_numpy(), table["feasible"].to_numpy(), found)

    sides = (
        Side("evaluate", lambda: evaluate(plans, instances), n),
        Side("NumPy, pair by pair", peer, few),
    )
    return Case(f"from plans by name to a table, {n:,}", sides, judge)


SPEC = Spec(
    name="evaluation",
    measures="Plan x scenario pairs per second: five costs, nine margins and the binding"
    " constraint. A batch smaller than a block (512 pairs) pays for the whole block.",
    item="pair",
    peers="tests/oracles/numpy_evaluator.py, dense arrays, one call per pair; tests/oracles/numpy_batch_evaluator.py,"
    " the cells that a plan uses, vectorised over blocks of scenarios, plan by plan where all are crossed. Plans and"
    " fields are converted before the clock starts, except in the last case, which is whole on both sides.",
    quality="largest relative difference of any cost, and verdicts that differ, over the peer's pairs.",
    precision="float64 on both sides",
    by_hand="with D = 4 slots and I = 6 types 24 cells of 4 arrays are gathered (768 bytes), besides"
    " 600 of vectors, 290 of the plan and 120 of results: about 1,800 bytes; two worst cases"
    " of 6 x 4 x 4 comparisons and about 20 operations per cell: about 1,500 operations per"
    " pair.",
    sizes=(256, 32_768),
    large=(65_536,),
    build=build,
)
