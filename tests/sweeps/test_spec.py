"""Specs: the presets, points and columns, what the text and the options may say, and their faults."""

import json
import math
import re

import numpy as np
import pytest

from rodiu_jax.errors import InputError
from rodiu_jax.sweeps import load_spec, preset_names, sweep
from tests.sweeps.small import GOOD, plan_json, run, spec


@pytest.mark.parametrize(
    ("name", "factors"),  # MODEL section 8, in hundredths
    [
        ("cost-budget", {"gpu_price": range(40, 66, 5), "budget": range(30, 51, 5)}),
        ("delay-error", {"delay_threshold": range(1, 10, 2), "error_threshold": range(40, 141, 10)}),
        ("gpu-cost-error", {"gpu_price": range(50, 151, 10), "error_threshold": range(40, 141, 10)}),
        ("memory-error", {"gpu_memory": range(60, 201, 20), "error_threshold": range(60, 201, 20)}),
    ],
)
def test_presets_are_those_of_the_model(name, factors):
    preset = load_spec(name)
    assert preset.name == name
    assert preset.question.endswith("?")
    assert (preset.catalog, preset.uncertainty, preset.method) == ("seed", "ddu", "auto")
    assert preset.columns == tuple(factors)
    for factor, hundredths in zip(preset.factors, factors.values(), strict=True):
        assert factor.names is None
        assert factor.scale == tuple(h / 100 for h in hundredths)


def test_preset_names():
    assert preset_names() == ["cost-budget", "delay-error", "gpu-cost-error", "memory-error"]


def test_points_are_row_major_and_the_text_reads_back(tmp_path):
    a_spec = spec(
        set=["budget*=2", 'delay_threshold[Code_Gen]=7"'[:-1]], time_limit=3, question='"Why"\t\\ ü?'
    )
    assert (a_spec.shape, a_spec.points, a_spec.rows) == ((3, 2), 6, 18)
    prices, budgets = a_spec.levels_at(np.arange(6))
    assert prices.tolist() == [0.5, 0.5, 1.0, 1.0, 2.0, 2.0]
    assert budgets.tolist() == [100.0, 2000.0] * 3
    path = tmp_path / "mine.toml"
    path.write_text(a_spec.to_toml(), encoding="utf-8")
    assert load_spec(path) == a_spec


def test_a_catalogue_path_is_relative_to_the_spec(tmp_path):
    (tmp_path / "mine.toml").write_text('[catalog]\nname = "mine"\nextends = "seed"\n')
    text = spec(catalog="mine.toml").to_toml()
    (tmp_path / "sweep.toml").write_text(text)
    rows = sweep(tmp_path / "sweep.toml", tmp_path / "out", quiet=True)
    assert len(rows) == 18


def test_columns_name_the_pattern_where_two_factors_share_a_field():
    both = spec(factors=[{"field": "gpu_price", "names": n, "scale": [1, 2]} for n in ("H100_*", "A100_*")])
    assert both.columns == ("gpu_price[H100_*]", "gpu_price[A100_*]")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"factors": []}, r"factors: got \[\], expected at least one"),
        (
            {"factors": [{"field": "budget", "scale": []}]},
            r"factors\[0\]\.scale: got \[\], expected at least one",
        ),
        ({"factors": None}, r"factors: got None, expected a valid (list|tuple)"),
        ({"factors": [{"scale": [1.0]}]}, r"factors\[0\]\.field: expected this key, which is missing"),
        ({"factors": [{"field": "budgte", "scale": [1]}]}, r"factors\[0\]\.field: .*did you mean budget\?"),
        ({"factors": [{"field": "budget"}]}, r"factors\[0\]: .*exactly one of scale, shift and value"),
        ({"factors": [GOOD | {"value": [1]}]}, r"factors\[0\]: .*exactly one of scale"),
        (
            {"factors": [GOOD, {"field": "budget", "scale": ["2"]}]},
            r"factors\[1\]\.scale\[0\]: got '2', expected a",
        ),
        ({"factors": [{"field": "budget", "scale": [True]}]}, r"factors\[0\]\.scale\[0\]: got True"),
        ({"factors": [{"field": "budget", "scale": [1, math.nan]}]}, r"factors\[0\]\.scale\[1\]: .*finite"),
        (
            {"factors": [{"field": "budget", "scale": [1, -0.5]}]},
            r"factors\[0\]\.scale\[1\]: got -0.5, expected multipliers >= 0",
        ),
        (
            {"factors": [{"field": "rental_hours", "scale": [0]}]},
            r"factors\[0\]\.scale\[0\]: got 0.0, expected multipliers > 0",
        ),
        (
            {"factors": [{"field": "unmet_cap", "value": [0.5, 1.5]}]},
            r"factors\[0\]\.value\[1\]: got 1.5, .*<= 1 \(fraction\)",
        ),
        (
            {"factors": [{"field": "max_routes", "value": [1.5]}]},
            r"factors\[0\]\.value\[0\]: got 1.5, expected whole numbers",
        ),
        ({"factors": [{"field": "budget", "scale": [1, 2, 1]}]}, r"factors\[0\]\.scale: .*distinct levels"),
        (
            {"factors": [GOOD | {"nmes": "H100"}]},
            r"factors\[0\]: got 'nmes', .*field, names.*did you mean names\?",
        ),
        ({"smaples": 3}, r"got 'smaples', expected only the keys.*did you mean samples\?"),
        ({"changes": ["budget=3"]}, r"got 'changes', expected only the keys .*set"),
        ({"samples": "4"}, r"samples: got '4', expected a valid integer"),
        ({"samples": 0}, r"samples: got 0, expected greater than or equal to 1"),
        ({"seed": -1}, r"seed: got -1"),
        ({"gap": 2}, r"gap: got 2"),
        ({"name": ""}, r"name: got ''"),
        ({"uncertainty": "dud"}, r"uncertainty: got 'dud', expected none or diu or ddu"),
        ({"method": "guess"}, r"method: got 'guess', expected one of auto, cascade, bracket, exact"),
        ({"exact": "some"}, r"exact: got 'some', expected 'gap', 'top', 'all' or 'none'"),
        ({"audit": 1.5}, r"audit: got 1.5"),
        ({"exact": "top"}, r"top: expected how many rows to solve exactly"),
        ({"top": 3}, r"top: got 3, expected exact = top beside it"),
        ({"exact": "all", "by": "gap"}, r"by: got 'gap', expected exact = top beside it"),
        ({"exact": "top", "top": 3, "by": "totl_cost"}, r"by: .*did you mean total_cost\?"),
        ({"exact": "top", "top": 0}, r"top: got 0"),
        ({"method": "bracket", "audit": 0.1}, r"audit: got 0.1, expected no such key with method bracket"),
        ({"method": "exact", "exact": "all"}, r"exact: got 'all', expected no such key with method exact"),
        ({"method": "exact", "certificates": True}, r"certificates: expected method cascade or bracket"),
        ({"method": "evaluate"}, r"plans: expected a file of plans, which method evaluate needs"),
        ({"plans": ["{}"]}, r"plans: expected no such key with method fake"),
        ({"method": "evaluate", "plans": ["{}"], "audit": 0.1}, r"audit: got 0.1, expected no such key"),
        ({"set": ["budget"]}, r"set\[0\]: got 'budget', expected FIELD=VALUE"),
        ({"set": "budget=3"}, r"set: got 'budget=3'"),
    ],
)
def test_bad_specs(changes, message):
    with pytest.raises(InputError, match=f"^sweep: {message}") as caught:
        spec(**changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"factors": [GOOD | {"names": "H*"}]},
            r"factors\[0\]: names: got 'H\*', expected no names: budget is one",
        ),
        (
            {"factors": [{"field": "gpu_price", "names": "B200*", "scale": [1]}]},
            r"factors\[0\]: names: got 'B200\*', expected a pattern that fits a gpu among A6000_FP16",
        ),
        (
            {"factors": [GOOD, {"field": "budget", "value": [3]}]},
            r"factors\[1\]\.names: .*as factors\[0\] does",
        ),
        (
            {
                "factors": [
                    {"field": "gpu_price", "names": n, "scale": [1]} for n in ("H100*", "A100*", "*INT8")
                ]
            },
            r"factors\[2\]\.names: got '\*INT8', expected cells of gpu_price that no other",
        ),
        # Drawn up to 0.85: 1.2 would be too much for some samples only.
        (
            {"factors": [{"field": "delay_impact", "scale": [1.1, 1.2]}]},
            r"factors\[0\]\.scale\[1\]: got 1.2, .*<= 1",
        ),
        (
            {"factors": [{"field": "tp_degree", "value": [2]}]},
            r"factors\[0\]\.field: got 'tp_degree', expected another field: the degrees are the same",
        ),
        ({"set": ["unmet_cap*=2"]}, r"unmet_cap.*got 2.0"),
        (
            {"method": "evaluate", "plans": [json.dumps(plan_json(model="Llama-9"))]},
            r"^small: plans\[0\]\.deployments\[0\]\.model: got 'Llama-9', expected one of",
        ),
        ({"catalog": "seeed"}, r"catalog: got 'seeed', .*did you mean seed\?"),
    ],
)
def test_specs_that_do_not_fit_the_catalogue_leave_no_folder(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        run(tmp_path / "out", spec(**changes))
    assert not (tmp_path / "out").exists()


def test_unknown_presets_and_files(tmp_path):
    with pytest.raises(
        InputError, match=r"got 'cost-bugdet', expected a preset \(cost-budget.*mean cost-budget\?"
    ):
        load_spec("cost-bugdet")
    with pytest.raises(InputError, match=r"none\.toml: expected a readable file"):
        load_spec(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("name = ")
    with pytest.raises(InputError, match=r"bad\.toml: expected TOML"):
        load_spec(tmp_path / "bad.toml")
    (tmp_path / "wrong.toml").write_text(spec().to_toml().replace("samples = 3", 'samples = "3"'))
    with pytest.raises(InputError, match=r"wrong\.toml: samples: got '3'"):
        load_spec(str(tmp_path / "wrong.toml"))


def test_options_replace_the_specs_keys(tmp_path):
    rows = run(
        tmp_path,
        samples=2,
        seed=5,
        gap=0.1,
        uncertainty="diu",
        changes=["storage_price=0.5"],
        catalog="corrected",
    )
    kept = load_spec(tmp_path / "spec.toml")
    assert (kept.samples, kept.seed, kept.gap, kept.uncertainty) == (2, 5, 0.1, "diu")
    assert (kept.catalog, kept.changes) == ("corrected", ("storage_price=0.5",))
    assert len(rows) == 12
    assert (rows["storage_cost"].dropna() == 0.5).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 0}, "sweep: samples: got 0"),
        ({"seed": -3}, "sweep: seed: got -3"),
        ({"gap": 1.5}, "sweep: gap: got 1.5"),
        ({"time_limit": 0}, "sweep: time_limit: got 0"),
        ({"changes": ["budget=much"]}, "changes: budget: got 'much'"),
        ({"method": "guess"}, "small: method: got 'guess'"),
    ],
)
def test_bad_options_are_named(tmp_path, options, message):
    with pytest.raises(InputError, match=re.escape(message)):
        run(tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_plans_of_a_spec_are_found_beside_it(tmp_path):
    (tmp_path / "mine.json").write_text(json.dumps([plan_json()]))
    head = 'name = "n"\ntitle = "t"\nmethod = "evaluate"\nplans = "mine.json"\n'
    (tmp_path / "sweep.toml").write_text(head + '[[factors]]\nfield = "budget"\nscale = [1]\n')
    (plan,) = load_spec(tmp_path / "sweep.toml").plan_texts
    assert json.loads(plan) == plan_json()
    for wrong, message in (("[]", "at least one plan"), ("{", "JSON"), ("3", "a list")):
        (tmp_path / "mine.json").write_text(wrong)
        with pytest.raises(InputError, match=rf"mine\.json: .*{message}"):
            load_spec(tmp_path / "sweep.toml")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.03, 0.3, 0.5, 0.7, 1.0])
def test_audits_are_a_choice_that_more_samples_only_add_to(share):
    small, large = (spec(audit=share, samples=n, seed=3) for n in (5, 500))
    whole = large.audited(0, 3000)
    np.testing.assert_array_equal(small.audited(0, 30), whole[:30])
    pieces = [large.audited(a, min(a + 71, 3000)) for a in range(0, 3000, 71)]
    np.testing.assert_array_equal(np.concatenate(pieces), whole)
    assert abs(whole.sum() - share * 3000) <= 1
    assert small.audited(0, 6).any() == (share > 0), "one of the first sample, which every sweep has"
    assert share in (0.0, 1.0) or (whole != spec(audit=share, samples=500, seed=4).audited(0, 3000)).any()


def test_a_name_with_the_delete_character_reads_back(tmp_path):
    run(tmp_path, spec(name="a\x7fb", set=["budget*=1"]))
    assert load_spec(tmp_path / "spec.toml").name == "a\x7fb"
