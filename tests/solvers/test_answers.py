"""The one result type: columns and views, putting together and taking apart, gaps, the JSON of one scenario."""

import math
from dataclasses import replace

import numpy as np
import pytest

from rodiu_jax.model.plan import DeployedPair, Plan, Route
from rodiu_jax.model.slots import Names
from rodiu_jax.model.status import Prover, Status
from rodiu_jax.model.verdict import COSTS
from rodiu_jax.runtime.progress import Bar
from solvers.answers import Answer, Answers, Leaves, relative_gap, report_progress

NAMES = Names(("chat", "code"), ("small", "large"), ("A", "B", "C"), (1, 2))
COST: dict[str, float] = dict(zip(COSTS, (100.0, 60.0, 10.0, 25.0, 5.0), strict=True))


def plan(*pairs: DeployedPair) -> Plan:
    """All types half on the first pair, the rest unserved."""
    routes = tuple(Route(q, pairs[0].model, pairs[0].gpu, 0.5) for q in NAMES.queries)
    return Plan(None, pairs, routes, dict.fromkeys(NAMES.queries, 0.5))


SOLVED = Answer.of(NAMES, Status.GAP_LIMIT, plan=plan(DeployedPair("large", "B", 2)), costs=COST, lower=99.0)
LARGER = Answer.of(
    NAMES, Status.BRACKET, plan=plan(DeployedPair("small", "C", 1), DeployedPair("large", "A", 1)), costs=COST,
    lower=50.0, prover=Prover.BRACKET,
)  # fmt: skip
NONE = Answer.of(NAMES, Status.INFEASIBLE)
FAILED = Answer.of(NAMES, Status.ERROR, message="out of luck")


def same(a: Answer, b: Answer) -> None:
    assert a.to_json(0) == b.to_json(0)
    assert (a.prover, a.certified, a.nodes, a.steps, a.message) == (
        b.prover,
        b.certified,
        b.nodes,
        b.steps,
        b.message,
    )


def test_views_are_what_was_stacked():
    single = [SOLVED, NONE, LARGER, FAILED]
    answers = Answers.stack(single, names=NAMES)
    assert len(answers) == 4
    assert answers.slots.shape == (4, 2)
    for one, view in zip(single, answers, strict=True):
        same(one, view)
    assert answers.has_plan.tolist() == [True, False, True, False]
    assert answers.is_any(Status.ERROR, Status.BRACKET).tolist() == [False, False, True, True]
    assert [p and p.instance for p in answers.plans([7, 8, 9, 10])] == [7, None, 9, None]
    with pytest.raises(IndexError):
        answers[4]


def test_concatenate_and_take_are_inverse():
    parts = [[SOLVED], [], [LARGER, NONE], [FAILED]]
    whole = Answers.concatenate([Answers.stack(p, names=NAMES) for p in parts], names=NAMES)
    for one, view in zip([a for part in parts for a in part], whole, strict=True):
        same(one, view)
    for rows in ([2, 0], whole.has_plan, slice(1, None)):
        taken = whole.take(rows)
        for b, view in zip(np.arange(len(whole))[rows], taken, strict=True):
            same(whole[int(b)], view)
    assert len(Answers.concatenate([], names=NAMES)) == 0


def test_what_is_not_said_is_not_known():
    answers = Answers.unknown(NAMES, 3)
    assert answers.lower.tolist() == [-math.inf] * 3
    assert answers.upper.tolist() == [math.inf] * 3
    assert np.isnan(answers.costs).all()
    assert not answers.has_plan.any()
    assert answers[1].plan is None
    assert answers[1].cost_by_name is None


def leaves(counts: list[int], first: int) -> Leaves:
    """Leaves numbered from ``first``: their path and their multiplier say the number."""
    number = first + np.arange(sum(counts))
    scenario = np.repeat(np.arange(len(counts)), counts)
    return Leaves(scenario, number[:, None].astype(np.int32), {"demand": number[:, None].astype(np.float32)})


def test_leaves_follow_their_scenarios():
    parts = [
        replace(Answers.unknown(NAMES, len(counts)), leaves=leaves(counts, first))
        for counts, first in (([2, 1], 0), ([0, 3], 3))
    ]
    whole = Answers.concatenate(parts, names=NAMES)
    assert whole.leaves is not None
    assert whole.leaves.scenario.tolist() == [0, 0, 1, 3, 3, 3]
    taken = whole.take([3, 2, 0]).leaves
    assert taken is not None
    assert taken.scenario.tolist() == [0, 0, 0, 2, 2]
    assert taken.path[:, 0].tolist() == taken.multipliers["demand"][:, 0].tolist() == [3, 4, 5, 0, 1]
    assert Answers.concatenate([whole, Answers.unknown(NAMES, 1)], names=NAMES).leaves is None


@pytest.mark.parametrize(
    ("lower", "upper", "gap"),
    [
        (90.0, 100.0, 0.1),
        (0.0, 0.0, 0.0),
        (-10.0, 0.0, math.inf),
        (-math.inf, 100.0, math.inf),
        (5.0, math.inf, math.inf),
        (math.inf, math.inf, math.nan),
        (-110.0, -100.0, 0.1),
        (1e300, 1e-300, -math.inf),
    ],
)
def test_relative_gap(lower, upper, gap):
    np.testing.assert_allclose(relative_gap(lower, upper), gap)
    np.testing.assert_allclose(relative_gap(np.array([lower, 1.0]), np.array([upper, 2.0])), [gap, 0.5])


def test_json_of_a_scenario():
    nothing = Answer.of(NAMES, Status.TIME_LIMIT, seconds=1.5).to_json(3)
    assert nothing == {
        "instance": 3, "status": "time_limit", "objective": None, "bound": None, "gap": None, "costs": None,
        "plan": None, "seconds": 1.5,
    }  # fmt: skip
    some = SOLVED.to_json(4)
    assert some["costs"] == COST
    assert (some["objective"], some["bound"], some["gap"]) == (100.0, 99.0, 0.01)
    assert some["plan"]["instance"] == 4
    assert FAILED.to_json(0)["message"] == "out of luck"
    assert NONE.lower == math.inf
    assert math.isnan(NONE.gap)
    assert NONE.to_json(0)["bound"] is None


def test_progress_counts_each_kind():
    calls = []

    class Recorder(Bar):
        def __init__(self):
            pass

        def advance(self, *values):
            calls.append(values)

    wide = Answer.of(NAMES, Status.GAP_LIMIT, plan=SOLVED.plan, costs=COST, lower=97.0)
    mixed = [
        SOLVED,
        NONE,
        wide,
        LARGER,
        Answer.of(NAMES, Status.OPTIMAL, prover=Prover.BRACKET, lower=1.0, upper=1.0),
    ]
    report_progress(Recorder(), Answers.stack(mixed, names=NAMES))
    assert [(c[0], *c[2:]) for c in calls] == [
        ("optimal", "bracket", 1), ("gap_limit", "exact", 2), ("bracket", "", 1), ("infeasible", "exact", 1)
    ]  # fmt: skip
    assert calls[1][1] == pytest.approx(0.03)
    assert math.isnan(calls[3][1])
