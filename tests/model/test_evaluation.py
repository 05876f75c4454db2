"""The batched evaluation against the independent checker and a dense evaluator; chunks; compilations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rodiu_jax.errors import InputError
from rodiu_jax.model import evaluation as module
from rodiu_jax.model.check import check_plan
from rodiu_jax.model.evaluation import evaluate, score, score_crossed, score_pairs
from rodiu_jax.model.fields import UNCERTAINTY_MODES, Fields
from rodiu_jax.model.plan import DeployedPair, Plan, PlanArrays, Route, plan_arrays
from rodiu_jax.model.tolerances import MARGIN_TOLERANCE
from rodiu_jax.model.verdict import COSTS, FAMILIES
from rodiu_jax.runtime import block_sizes
from tests.oracles.instances import default_instances, random_instances, random_plan, worked_example
from tests.oracles.numpy_evaluator import dense_plan, evaluate_one

BATCH = 40


def varied_instances(shape, mode, seed=0):
    """Random scenarios with fractional budgets of uncertainty, route limits, caps and limits of zero."""
    rng = np.random.default_rng(seed)
    types, _, gpus, _ = shape
    zeros = {
        "unmet_cap": rng.choice([1.0, 0.5, 0.0], BATCH),
        "max_routes": rng.choice([0, 1, 2], BATCH),
        "gamma_delay": rng.choice([0.0, 0.4, 1.0, 2.5, 50.0], BATCH),
        "gamma_error": rng.choice([0.0, 0.4, 1.0, 2.5, 50.0], BATCH),
        "budget": rng.choice([0.0, 150.0, 900.0], BATCH),
        "storage_capacity": rng.choice([0.0, 80.0, 500.0], BATCH),
        "delay_threshold": rng.choice([0.0, 200.0, 900.0], (BATCH, types)),
        "error_threshold": rng.choice([0.0, 0.05, 0.5], (BATCH, types)),
        "gpu_memory": rng.choice([0.0, 24.0, 200.0], (BATCH, gpus)),
        "gpu_compute": rng.choice([0.0, 60.0, 4000.0], (BATCH, gpus)),
    }
    return random_instances(seed, shape, batch=BATCH, mode=mode, **zeros)


def witness_margins(instances, plan, b):
    """Costs of the dense evaluator and the margin of every single constraint by its name."""
    costs, margins = evaluate_one(instances.one(b), instances.uncertainty, dense_plan(plan, instances))
    named = {}
    for family, values in margins.items():
        for at, margin in np.ndenumerate(values):
            labels = {1: [instances.query_names], 2: [instances.model_names, instances.gpu_names]}.get(
                len(at), []
            )
            names = ",".join(axis[p] for axis, p in zip(labels, at, strict=True))
            named[f"{family}[{names}]" if names else family] = float(margin)
    return costs, {family: float(v.min()) for family, v in margins.items()}, named


def assert_row_agrees(row, plan, instances, b):
    verdict = check_plan(plan, instances, b)
    costs, smallest, named = witness_margins(instances, plan, b)
    scale = max(verdict.costs["total_cost"], 1e-9)
    for name in COSTS:
        np.testing.assert_allclose(row[name], verdict.costs[name], rtol=1e-9, atol=1e-12 * scale)
        np.testing.assert_allclose(costs[name], verdict.costs[name], rtol=1e-9, atol=1e-12 * scale)
    for name in FAMILIES:
        expected = verdict.margins[name]
        np.testing.assert_allclose(row[f"margin_{name}"], expected, rtol=1e-9, atol=1e-10, err_msg=name)
        np.testing.assert_allclose(smallest[name], expected, rtol=1e-9, atol=1e-10, err_msg=name)
    if all(abs(margin + MARGIN_TOLERANCE) > 1e-9 for margin in named.values()):
        assert (
            bool(row["feasible"]) == verdict.feasible == all(m >= -MARGIN_TOLERANCE for m in named.values())
        )
    # Names may differ only where their margins tie.
    tight = {
        n: m for n, m in named.items() if not n.startswith("demand") or smallest["demand"] < -MARGIN_TOLERANCE
    }
    for binding in (row["binding"], verdict.binding):
        np.testing.assert_allclose(tight[binding], min(tight.values()), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("mode", UNCERTAINTY_MODES)
@pytest.mark.parametrize("shape", [(2, 2, 3, 2), (3, 1, 2, 1)])
def test_three_evaluations_agree(shape, mode):
    instances = varied_instances(shape, mode)
    rng = np.random.default_rng(1)
    plans = [random_plan(rng, instances, instance=m % BATCH, slip=0.1) for m in range(3 * BATCH)]
    plans += [random_plan(rng, instances, instance=None, slip=0.1) for _ in range(2)]
    table = evaluate(plans, instances)
    assert len(table) == 5 * BATCH
    assert table["feasible"].any() == (shape[0] == 2) or not table["feasible"].all()
    assert len(set(table["binding"].str.split("[").str[0])) >= 5, "the sample must exercise many constraints"
    for row in table.to_dict("records"):
        assert_row_agrees(row, plans[row["plan"]], instances, row["instance"])


def test_three_evaluations_agree_on_the_seed_catalogue():
    instances = default_instances(6)
    rng = np.random.default_rng(2)
    plans = [random_plan(rng, instances, instance=m % 6, pairs=10) for m in range(24)]
    for row in evaluate(plans, instances).to_dict("records"):
        assert_row_agrees(row, plans[row["plan"]], instances, row["instance"])


def test_feasible_plans_are_called_feasible():
    instances = random_instances(3, (2, 2, 3, 2), batch=BATCH, budget=1e4, error_threshold=np.ones(2))
    nothing = Plan(None, (), (), {"q0": 1.0, "q1": 1.0})
    rng = np.random.default_rng(3)
    plans = [nothing] + [random_plan(rng, instances, instance=b, pairs=2) for b in range(BATCH)]
    table = evaluate(plans, instances)
    verdicts = [
        check_plan(plans[p], instances, b).feasible
        for p, b in zip(table["plan"], table["instance"], strict=True)
    ]
    assert table["feasible"].tolist() == verdicts
    assert table["feasible"][:BATCH].all(), "serving nothing is feasible when unmet demand is not capped"
    assert 0 < table["feasible"][BATCH:].sum() < BATCH


def test_worked_by_hand():
    instances, plan, costs, margins = worked_example()
    row = evaluate([plan], instances).iloc[0]
    for name, value in costs.items():
        np.testing.assert_allclose(row[name], value, rtol=1e-12)
    for name, value in margins.items():
        np.testing.assert_allclose(row[f"margin_{name}"], value, rtol=1e-12, atol=1e-15)
    assert row["feasible"]
    assert row["binding"] == "delay[q0]"


def test_no_plans_gives_an_empty_table_with_all_columns():
    table = evaluate([], default_instances(2))
    assert len(table) == 0
    assert set(table.columns) == {
        "plan", "instance", "feasible", "binding", *COSTS, *(f"margin_{n}" for n in FAMILIES)
    }  # fmt: skip


def test_plan_for_a_scenario_that_does_not_exist():
    with pytest.raises(InputError, match=r"plan 1: instance: got 9"):
        evaluate([Plan(0, (), (), {}), Plan(9, (), (), {})], default_instances(2))


def test_rows_are_sorted_by_plan_and_instance():
    instances = random_instances(0, (2, 2, 3, 2), batch=3)
    plans = [Plan(2, (), (), {}), Plan(None, (), (), {}), Plan(0, (), (), {})]
    table = evaluate(plans, instances)
    assert table[["plan", "instance"]].to_numpy().tolist() == [[0, 2], [1, 0], [1, 1], [1, 2], [2, 0]]


def test_fields_shared_by_all_scenarios_score_as_copies_of_them():
    batched = random_instances(4, (2, 2, 3, 2), batch=1)
    single = batched.one(0)
    shared = batched.with_fields(**single._asdict())
    assert shared.size == 1
    assert not shared.batched
    many = shared.with_fields(budget=np.full(5, float(single.budget)))
    plan = random_plan(np.random.default_rng(0), batched, instance=None)
    costs = evaluate([plan], batched)["total_cost"][0]
    np.testing.assert_array_equal(evaluate([plan], shared)["total_cost"], [costs])
    np.testing.assert_array_equal(evaluate([plan], many)["total_cost"], np.full(5, costs))


@pytest.mark.parametrize(("shares", "unmet"), [((1.0, 0.0), 0.0), ((1.1, -0.1), 0.0), ((1.1, 0.0), -0.1)])
def test_negative_share_is_never_feasible(shares, unmet):
    # Files are refused earlier, plans made in Python are not: the two verdicts must agree on them too.
    wide = {"budget": 1e4, "error_threshold": [1.0], "delay_threshold": [1e4], "gpu_memory": [1e3, 1e3]}
    instances = random_instances(3, (1, 1, 2, 1), **wide, gpu_compute=[1e4, 1e4], storage_capacity=1e3)
    deployments = (DeployedPair("m0", "g0", 1), DeployedPair("m0", "g1", 1))
    routes = tuple(Route("q0", "m0", d.gpu, share) for d, share in zip(deployments, shares, strict=True))
    plan = Plan(0, deployments, routes, {"q0": unmet})
    expected = min(*shares, unmet) >= 0
    assert check_plan(plan, instances, 0).feasible == expected
    assert evaluate([plan], instances)["feasible"][0] == expected


@pytest.fixture(scope="module")
def batch():
    instances = varied_instances((2, 2, 3, 2), "ddu")
    rng = np.random.default_rng(5)
    plans = [random_plan(rng, instances, instance=m % BATCH) for m in range(100)]
    return instances, plans, plan_arrays(plans, instances)


def test_results_are_float64_and_do_not_change_jax(batch):
    instances, plans, arrays = batch
    before = jax.config.jax_enable_x64
    for scores in (
        score_pairs(instances, arrays, np.arange(100), np.arange(100) % BATCH),
        score_crossed(instances, arrays),
    ):
        assert scores.costs.dtype == scores.margins.dtype == np.float64
    assert jax.config.jax_enable_x64 == before
    assert jnp.ones(1).dtype == (jnp.float64 if before else jnp.float32)
    table = evaluate(plans[:1], instances)
    assert all(table[name].dtype == np.float64 for name in COSTS)


def test_pairs_are_the_entries_of_the_crossed_table(batch):
    instances, _, arrays = batch
    crossed = score_crossed(instances, arrays)
    assert crossed.costs.shape == (100, BATCH, 5)
    plan_index, instance_index = np.divmod(np.arange(100 * BATCH), BATCH)
    pairs = score_pairs(instances, arrays, plan_index, instance_index)
    np.testing.assert_allclose(pairs.costs.reshape(100, BATCH, 5), crossed.costs, rtol=1e-14)
    np.testing.assert_allclose(pairs.margins.reshape(100, BATCH, 9), crossed.margins, rtol=1e-12, atol=1e-14)


def test_batch_is_the_single_score_repeated(batch):
    instances, plans, arrays = batch
    scores = score_pairs(instances, arrays, np.arange(6), np.arange(6))
    with jax.enable_x64(True):
        for p in range(6):
            fields = Fields(*map(jnp.asarray, instances.one(plans[p].instance)))
            alone = score(fields, PlanArrays(*(a[p] for a in arrays)), "ddu")
            np.testing.assert_allclose(scores.costs[p], alone.costs, rtol=1e-13)


def set_blocks(monkeypatch: pytest.MonkeyPatch, *, pairs: int = 8192, room: int = 2**25) -> None:
    """Blocks of so many pairs or bytes at most."""
    entry = block_sizes._SIZES["evaluate"]
    limits = {"cpu": pairs, "accelerator": pairs, "cpu_bytes": room, "accelerator_bytes": room}
    monkeypatch.setitem(block_sizes._SIZES, "evaluate", entry._replace(**limits))
    entry = block_sizes._SIZES["evaluate pairs"]._replace(cpu=pairs, accelerator=pairs)
    monkeypatch.setitem(block_sizes._SIZES, "evaluate pairs", entry)


@pytest.mark.parametrize("pairs_per_block", [16, 64])
def test_size_of_chunks_changes_only_rounding(batch, monkeypatch, pairs_per_block):
    # Another chunk size is another compiled program; one program treats all its pairs alike (the next test).
    instances, _, arrays = batch
    plan_index, instance_index = np.arange(100), np.arange(100)[::-1] % BATCH
    whole = (score_pairs(instances, arrays, plan_index, instance_index), score_crossed(instances, arrays))
    set_blocks(monkeypatch, pairs=pairs_per_block)
    parts = (score_pairs(instances, arrays, plan_index, instance_index), score_crossed(instances, arrays))
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_allclose(one.costs, other.costs, rtol=1e-14)
        np.testing.assert_allclose(one.margins, other.margins, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("pairs_per_block", [16, 256, 8192])
def test_place_in_the_batch_changes_no_bit(batch, monkeypatch, pairs_per_block):
    """The promise is for one block size on one version; 16 is the smallest size that there is."""
    instances, _, arrays = batch
    set_blocks(monkeypatch, pairs=pairs_per_block)
    plan_index, instance_index = np.arange(100), np.arange(100) % BATCH
    whole = score_pairs(instances, arrays, plan_index, instance_index)
    for chosen in (np.arange(3, 60), np.random.default_rng(0).permutation(100), np.array([77])):
        part = score_pairs(instances, arrays, plan_index[chosen], instance_index[chosen])
        for name in whole._fields:
            np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[chosen], err_msg=name)


def test_bytes_bound_the_block(batch, monkeypatch):
    instances, _, _ = batch
    one = sum(np.asarray(getattr(instances.fields, n)[0]).nbytes for n in instances.batched)
    set_blocks(monkeypatch, room=37 * one)
    assert module._block_size(instances, 1).rows == 32
    set_blocks(monkeypatch, room=one // 2)
    assert module._block_size(instances, 1).rows == 16, "smaller ones keep no bits"
    assert module._block_size(instances, 4).rows == 4, "scenarios, with four plans each"
    assert module._block_size(instances, 64).rows == 1


def test_other_counts_compile_nothing(batch):
    instances, _, arrays = batch
    score_pairs(instances, arrays, np.arange(7), np.arange(7))
    score_crossed(instances, PlanArrays(*(a[:60] for a in arrays)))
    programs = module._score_pair_block, module._score_crossed_block
    compiled = [program._cache_size() for program in programs]
    for count in (1, 13, 100):
        score_pairs(instances, arrays, np.arange(count), np.arange(count) % BATCH)
        score_crossed(instances.take(range(1 + count % 40)), PlanArrays(*(a[:60] for a in arrays)))
    score_crossed(instances, PlanArrays(*(a[:33] for a in arrays)))
    assert [program._cache_size() for program in programs] == compiled


def test_degrees_that_differ_between_scenarios_are_no_batch():
    # A plan for all scenarios names degrees, so they must mean the same number of GPUs in each.
    with pytest.raises(InputError, match="the same degrees in every scenario"):
        random_instances(0, (1, 1, 1, 3), batch=2, tp_degree=np.array([[1, 2, 8], [1, 4, 8]]))
    alike = random_instances(0, (1, 1, 1, 3), batch=2, tp_degree=np.array([[1, 2, 8], [1, 2, 8]]))
    plan = Plan(None, (DeployedPair("m0", "g0", 2),), (), {"q0": 1.0})
    expected = [check_plan(plan, alike, b).costs["rental_cost"] for b in range(2)]
    assert evaluate([plan], alike)["rental_cost"].tolist() == pytest.approx(expected)
