"""`FIELD=VALUE` and `FIELD*=FACTOR`: reading, applying, and every way to get them wrong."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rodiu_jax.errors import InputError
from rodiu_jax.model.changes import Change, apply_changes, parse_change
from rodiu_jax.model.fields import FIELD_SPECS
from tests.oracles.instances import default_instances, random_instances


@pytest.mark.parametrize(
    ("text", "change"),
    [
        ("budget=3000", Change("budget", "set", 3000.0)),
        ("gpu_price*=0.5", Change("gpu_price", "scale", 0.5)),
        (" gpu_price [H100_*] *= 1e-1 ", Change("gpu_price", "scale", 0.1, "H100_*")),
        ("tp_speedup=1,1.7,2.9,4.5", Change("tp_speedup", "set", (1.0, 1.7, 2.9, 4.5))),
        ("delay_threshold[Code_Gen]=1200", Change("delay_threshold", "set", 1200.0, "Code_Gen")),
        ("max_routes=2", Change("max_routes", "set", 2.0)),
        ("budget+=-50", Change("budget", "shift", -50.0)),
        (
            "delay_nominal[Code_Gen, *, H100_*]*=2",
            Change("delay_nominal", "scale", 2.0, "Code_Gen, *, H100_*"),
        ),
    ],
)
def test_reads(text, change):
    assert parse_change(text) == change


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("budgte=3", r"changes: field: got 'budgte'.*did you mean budget\?"),
        ("xyzzy=3", r"changes: field: got 'xyzzy', expected one of arrival_rate"),
        ("uncertainty=ddu", r"changes: field: got 'uncertainty'"),
        ("budget", r"changes: got 'budget', expected FIELD=VALUE"),
        ("budget=", r"changes: got 'budget=', expected FIELD=VALUE"),
        ("=3", r"expected FIELD=VALUE"),
        ("", r"expected FIELD=VALUE"),
        ("budget-=3", r"expected FIELD=VALUE"),
        ("budget=much", r"changes: budget: got 'much', expected a number"),
        ("budget=1,,2", r"changes: budget: got '1,,2', expected a number"),
        ("budget=nan", r"changes: budget: got 'nan', expected finite"),
        ("budget*=inf", r"changes: budget: got 'inf', expected finite"),
        ("budget=1e400", r"changes: budget: got '1e400', expected finite"),
    ],
)
def test_refuses(text, message):
    with pytest.raises(InputError, match=message) as caught:
        parse_change(text)
    assert "\n" not in str(caught.value)


def test_sets_and_scales_all_or_some_names():
    before = default_instances(3)
    texts = [
        "gpu_price[H100_*]*=2",
        "budget=100",
        "delay_threshold[Code_Gen]=7",
        "delay_nominal[A100_FP16]*=3",
    ]
    after = apply_changes(before, [parse_change(t) for t in texts])
    h100 = [n.startswith("H100_") for n in before.gpu_names]
    np.testing.assert_allclose(after.fields.gpu_price, before.fields.gpu_price * np.where(h100, 2.0, 1.0))
    np.testing.assert_array_equal(after.fields.budget, 100.0)
    code = before.query_names.index("Code_Gen")
    assert (after.fields.delay_threshold[:, code] == 7).all()
    others = np.delete(np.arange(6), code)
    np.testing.assert_array_equal(
        after.fields.delay_threshold[:, others], before.fields.delay_threshold[:, others]
    )
    a100 = before.gpu_names.index("A100_FP16")
    np.testing.assert_allclose(
        after.fields.delay_nominal[..., a100], 3 * before.fields.delay_nominal[..., a100]
    )
    untouched = set(FIELD_SPECS) - {"gpu_price", "budget", "delay_threshold", "delay_nominal"}
    for name in untouched:
        np.testing.assert_array_equal(getattr(after.fields, name), getattr(before.fields, name), err_msg=name)
    assert after.size == 3
    assert before.fields.budget[0] == 5000.0, "the caller's instances are not written into"


def test_lists_follow_the_names_of_the_axis():
    before = random_instances(0, (2, 2, 2, 2), batch=2)
    after = apply_changes(before, [parse_change("tp_speedup=1,1.7"), parse_change("arrival_rate*=1,10")])
    np.testing.assert_array_equal(after.fields.tp_speedup, [1.0, 1.7])
    np.testing.assert_allclose(after.fields.arrival_rate, before.fields.arrival_rate * [1.0, 10.0])


def test_a_pattern_for_each_axis():
    before = default_instances(2)
    after = apply_changes(before, [parse_change("delay_nominal[Code_Gen, Llama-3.*, H100_*]+=7")])
    expected = np.array(before.fields.delay_nominal)
    for i, query in enumerate(before.query_names):
        for j, model in enumerate(before.model_names):
            for k, gpu in enumerate(before.gpu_names):
                if query == "Code_Gen" and model.startswith("Llama-3.") and gpu.startswith("H100_"):
                    expected[:, i, j, k] += 7
    np.testing.assert_array_equal(after.fields.delay_nominal, expected)
    assert (expected != before.fields.delay_nominal).any()


def test_changes_apply_in_order():
    before = random_instances(0, (1, 1, 1, 1))
    assert apply_changes(before, [parse_change("budget=10"), parse_change("budget*=3")]).fields.budget == 30.0
    assert apply_changes(before, [parse_change("budget*=3"), parse_change("budget=10")]).fields.budget == 10.0
    assert apply_changes(before, []) is before


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["budget=-1"], r"changes: budget\[0\]: got -1.0, expected finite numbers >= 0"),
        (["gamma_delay*=-1"], r"changes: gamma_delay\[0\]: got -"),
        (["unmet_cap=1.5"], r"changes: unmet_cap\[0\]: got 1.5, expected .*<= 1"),
        (["max_routes=1.5"], r"changes: max_routes\[0\]: got 1.5, expected whole numbers"),
        (["rental_hours=0"], r"changes: rental_hours\[0\]: got 0.0, expected finite numbers > 0"),
        (["budget*=1e300", "budget*=1e300"], r"changes: budget\[0\]: got inf"),
        (["budget=1,2"], r"changes: budget: got \(1.0, 2.0\), expected 1 number"),
        (["arrival_rate=1,2,3"], r"changes: arrival_rate: got .*, expected 2 number"),
        (["delay_impact=1,2"], r"changes: delay_impact: got .*, expected 1 number"),
        (
            ["gpu_price[Z*]*=2"],
            r"changes: gpu_price: got 'Z\*', expected a pattern that fits a gpu among g0, g1",
        ),
        (["budget[g0]=2"], r"changes: budget: got 'g0', expected no names"),
        (["budget+=-1e6"], r"changes: budget\[0\]: got -9.*, expected finite numbers >= 0"),
        (["max_routes+=0.5"], r"changes: max_routes\[0\]: got .*, expected whole numbers"),
        (["delay_nominal[q0,g0]=1"], r"got 'q0,g0', expected one pattern \(gpu\) or 3 \(query, model, gpu\)"),
        (["delay_nominal[q0,z,g0]=1"], r"changes: delay_nominal: got 'z', .*fits a model among m0, m1"),
        (["gpu_price[g0,g1]=1"], r"changes: gpu_price: got 'g0,g1', .*fits a gpu among g0, g1"),
    ],
)
def test_refuses_what_does_not_fit_the_instances(texts, message):
    instances = random_instances(0, (2, 2, 2, 2), batch=2)
    with pytest.raises(InputError, match=message), np.errstate(over="ignore"):
        apply_changes(instances, [parse_change(t) for t in texts])


@given(st.sampled_from(["gpu_price", "delay_nominal", "budget", "arrival_rate"]), st.floats(0.01, 100.0))
def test_factors_multiply(field, factor):
    instances = random_instances(0, (2, 2, 2, 2), batch=2)
    twice = apply_changes(instances, [Change(field, "scale", factor), Change(field, "scale", factor)])
    once = apply_changes(instances, [Change(field, "scale", factor**2)])
    np.testing.assert_allclose(getattr(twice.fields, field), getattr(once.fields, field), rtol=1e-13)
