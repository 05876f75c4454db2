"""Plans in columns: the way back and forth, and the JSON of many at once."""

import json

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rodiu_jax.model.plan import DeployedPair, Plan, Route
from rodiu_jax.model.plan_columns import (
    columns_from_plan,
    deployment_from_slots,
    deployment_texts,
    distinct_plans,
    drop_idle_slots,
    plan_from_shares,
    plan_texts,
)
from rodiu_jax.model.slots import Names, join_slots, split_slots, widen

NAMES = Names(('chat "quoted"', "100% code", "é"), ("small", "large"), ("A%s", "B", "C"), (1, 2, 8))


def test_slots_split_and_join():
    _, models, gpus, degrees = NAMES.shape
    slots = np.arange(models * gpus * degrees)
    parts = split_slots(slots, NAMES)
    np.testing.assert_array_equal(np.ravel_multi_index(tuple(parts), (models, gpus, degrees)), slots)
    np.testing.assert_array_equal(join_slots(*parts, NAMES), slots)
    assert widen(np.array([[3, -1]]), 4).tolist() == [[3, -1, -1, -1]]


@st.composite
def batches(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Slots, shares and unmet shares of a few plans: empty slots and idle ones anywhere, extreme numbers too."""
    size, width = draw(st.integers(1, 5)), draw(st.integers(0, 4))
    types, models, gpus, degrees = NAMES.shape
    slots = np.full((size, width), -1, np.int32)
    for b in range(size):
        pairs = draw(st.permutations(range(models * gpus)))[:width]
        for d, pair in enumerate(pairs):
            if draw(st.booleans()):
                slots[b, d] = pair * degrees + draw(st.integers(0, degrees - 1))
    share = st.sampled_from([0.0, 1.0, 1 / 3, 5e-324, 1e-17, 0.1 + 0.2, 123456789.123])
    number = st.lists(share, min_size=size * types * width, max_size=size * types * width)
    shares = np.array(draw(number), np.float64).reshape(size, types, width) * (slots >= 0)[:, None, :]
    unmet = draw(st.lists(share, min_size=size * types, max_size=size * types))
    return slots, shares, np.array(unmet, np.float64).reshape(size, types)


@given(batches())
def test_texts_are_the_json_of_the_plans(batch):
    plans = [plan_from_shares(NAMES, *columns) for columns in zip(*batch, strict=True)]
    assert plan_texts(NAMES, *batch) == [json.dumps(p.to_json(), allow_nan=False) for p in plans]
    assert deployment_texts(NAMES, batch[0]) == [p.summary() for p in plans]


@given(batches())
def test_columns_and_plans_are_inverse(batch):
    for slots, shares, unmet in zip(*batch, strict=True):
        plan = plan_from_shares(NAMES, slots, shares, unmet, instance=3)
        assert plan.instance == 3
        back = columns_from_plan(NAMES, plan)
        used = slots >= 0
        np.testing.assert_array_equal(back[0], slots[used])
        np.testing.assert_array_equal(back[1], shares[:, used])
        np.testing.assert_array_equal(back[2], unmet)


@given(batches())
def test_idle_slots_are_dropped(batch):
    slots, shares, unmet = batch
    kept, served = drop_idle_slots(slots, shares)
    for b in range(len(slots)):
        plan = plan_from_shares(NAMES, kept[b], served[b], unmet[b])
        whole = plan_from_shares(NAMES, slots[b], shares[b], unmet[b])
        busy = {(r.model, r.gpu) for r in whole.routes}
        assert plan.routes == whole.routes
        assert plan.deployments == tuple(d for d in whole.deployments if (d.model, d.gpu) in busy)


def test_a_plan_by_name():
    plan = plan_from_shares(
        NAMES, np.array([-1, 17]), np.array([[0, 0.25], [0, 0], [0, 1.0]]), np.array([0.75, 1.0, 0.0])
    )
    assert plan == Plan(
        None,
        (DeployedPair("large", "C", 8),),
        (Route('chat "quoted"', "large", "C", 0.25), Route("é", "large", "C", 1.0)),
        {'chat "quoted"': 0.75, "100% code": 1.0, "é": 0.0},
    )
    assert deployment_from_slots(NAMES, np.array([17, -1])) == plan.deployments


@given(batches(), st.lists(st.integers(0, 4), min_size=1, max_size=12))
def test_kinds_of_plans(batch, picks):
    rows = np.array(picks) % len(batch[0])
    slots, shares, unmet = (a[rows] for a in batch)
    first, kind = distinct_plans(slots, shares, unmet)
    for column in (slots, shares, unmet):
        np.testing.assert_array_equal(column[first][kind], column)
    texts = plan_texts(NAMES, slots, shares, unmet)
    assert len(first) >= len(set(texts))
    assert len(first) <= len(set(rows.tolist()))
