"""What `validate` asks about values: each kind of finding, planted and absent, and what values rest on."""

from __future__ import annotations

from pathlib import Path

import pytest

from rodiu_jax.catalog import load_catalog
from rodiu_jax.catalog.audit import validate
from rodiu_jax.catalog.findings import count_bases, find_findings
from tests.catalog.test_measurements import CURVE as FALLING
from tests.catalog.test_measurements import MEASURED, load
from tests.oracles.tiny import TINY

CURVE = FALLING.replace("tpot_p50 = 20", "tpot_p50 = 28")
WIDE = TINY.replace('"A6000_FP16", "H100_FP16"', '"A6000_FP16", "H100_FP16", "H100_INT8"')


def found(folder: Path, body: str, head: str = TINY) -> list[tuple[str, str]]:
    table = find_findings(load(folder, body, head=head))
    return list(zip(table["kind"], table["at"], strict=True))


def test_a_catalogue_without_oddities_has_no_findings(tmp_path: Path):
    assert found(tmp_path, "") == []
    assert found(tmp_path, MEASURED) == []
    assert find_findings(load_catalog("corrected")).empty


def test_the_seed_contradicts_itself_about_prices():
    # Its list has the A6000 at 0.65, 0.65 and, as INT4, 2.50.
    table = find_findings(load_catalog("seed"))
    assert set(table["kind"]) == {"price"}
    assert "A6000_INT4" in set(table["at"])


@pytest.mark.parametrize(
    ("price", "odd"),
    [(0.01, True), (0.8, True), (0.84, False), (2.5, False), (7.4, False), (7.6, True)],
)
def test_a_price_far_from_the_device_s_others(tmp_path: Path, price: float, odd: bool):
    # The other configuration of the device is drawn from 2.0 to 3.0: 2.5 in the middle.
    body = f"[quantity.gpu_price.values]\nH100_FP16 = {price}\n"
    names = {at for kind, at in found(tmp_path, body, WIDE) if kind == "price"}
    assert ("H100_FP16" in names) == odd


def test_a_cent_is_odd_where_every_configuration_of_the_device_has_it(tmp_path: Path):
    body = "[quantity.gpu_price.values]\nH100_FP16 = 0.01\nH100_INT8 = 0.01\n"
    assert [at for _, at in found(tmp_path, body, WIDE)] == ["H100_FP16", "H100_INT8"]


@pytest.mark.parametrize(
    ("price", "odd"), [(0.01, True), (0.8, True), (1.2, False), (12.0, False), (16.0, True)]
)
def test_a_price_far_from_that_of_the_device_in_the_package_s_lists(tmp_path: Path, price: float, odd: bool):
    # `serving` calls the H100 80GB H100; it has 4.23 to 5.5 (4.865 in the middle), `corrected` 2.5.
    head = '[catalog]\nname = "own"\nextends = "serving"\n'
    names = [
        at
        for kind, at in found(tmp_path, f"[quantity.gpu_price.values]\nH100 = {price}\n", head)
        if kind == "price"
    ]
    assert names == (["H100"] if odd else [])


def test_predicted_curves_are_settings_of_an_engine_and_many_curves_one_line(tmp_path: Path):
    """One latency may fall where another grows, unless a faster point beats a slower one in all of them."""
    assert find_findings(load_catalog("serving")).empty
    odd = CURVE.replace("ttft_p50 = 100", "ttft_p50 = 70")
    assert found(tmp_path, odd.replace("tp = 2", 'tp = 2\nbasis = "predicted"')) == []
    beaten = odd.replace("ttft_p99 = 900", "ttft_p99 = 440").replace("tp = 2", 'tp = 2\nbasis = "predicted"')
    assert found(tmp_path, beaten.replace("tpot_p50 = 28", "tpot_p50 = 20"))[0][0] == "curve"
    curve = odd[odd.index("[[curve]]") :]
    cells = [
        curve.replace('"Code_Gen"', f'"{q}"').replace("tp = 2", f"tp = {n}")
        for q in ("Code_Gen", "Translation")
        for n in (1, 2)
    ]
    many = odd.replace(curve, "".join(cells)).replace("promise.Code_Gen]", "promise.Code_Gen]")
    table = find_findings(load(tmp_path, many))
    assert table["at"].tolist() == ["4 measured curves"]
    assert "4 of 4 measured curves" in table["text"][0]


def test_a_rate_that_grows_as_the_promise_tightens(tmp_path: Path):
    second = CURVE[CURVE.index("[promise") :].replace("Code_Gen", "Translation")
    tight = second.replace("500ms", "400ms").replace("7200", "7300").replace("450", "350")
    same = "[quantity.input_tokens.values]\nTranslation = 256\n[quantity.output_tokens.values]\nTranslation = 512\n"
    both = CURVE + tight + same
    assert found(tmp_path, both) == [], "7300 is 7200 within the noise of a measurement"
    faster = both.replace("7300", "8000")
    assert found(tmp_path, faster) == [("rate", "Translation, Code_Gen")]
    longer = faster.replace("Translation = 512", "Translation = 511")
    assert found(tmp_path, longer) == [], "shorter queries may well be faster"


def test_a_curve_whose_latency_falls(tmp_path: Path):
    assert found(tmp_path, CURVE.replace("ttft_p50 = 100", "ttft_p50 = 77")) == []
    odd = found(tmp_path, CURVE.replace("ttft_p50 = 100", "ttft_p50 = 70"))
    assert odd == [("curve", "Code_Gen on Llama-3.1-8B, 2 x H100_FP16")]


@pytest.mark.parametrize(
    ("tokens", "other"), [("[256, 512]", False), ("[300, 512]", False), ("[256, 700]", True)]
)
def test_curves_of_other_lengths(tmp_path: Path, tokens: str, other: bool):
    # Code_Gen has 256 input and 512 output tokens; 512 * 1.25 = 640.
    odd = found(tmp_path, CURVE.replace("tp = 2", f"tp = 2\ntokens = {tokens}"))
    assert odd == ([("lengths", "Code_Gen")] if other else [])


@pytest.mark.parametrize(("error", "unsure"), [(0.05, False), (0.08, True), (0.10, True), (0.13, False)])
def test_an_accuracy_that_is_not_sure_enough(tmp_path: Path, error: float, unsure: bool):
    # The promise to Code_Gen is an error of 0.10; the deviation of 0.049 is 1.96 standard errors of 0.025.
    cell = 'values.Code_Gen."Llama-3.1-8B"]\nH100_FP16 = '
    body = f"[quantity.error_nominal.{cell}{error}\n[quantity.error_deviation.{cell}0.049\n"
    assert (("accuracy", "Code_Gen, Llama-3.1-8B") in found(tmp_path, body)) == unsure


def test_every_value_rests_on_something(tmp_path: Path):
    catalog = load(tmp_path, MEASURED)
    table = count_bases(catalog).set_index("field")
    assert table.loc["delay_nominal"].tolist() == [1, 7, 0]
    assert table.loc["error_nominal"].tolist() == [0, 8, 0]
    assert table.loc["budget"].tolist() == [0, 0, 1]
    for name, row in table.iterrows():
        assert row.sum() == len(catalog.names(str(name))), name


def test_validate_says_both(tmp_path: Path):
    report = validate(load(tmp_path, "[quantity.gpu_price.values]\nH100_FP16 = 0.01\n"), n=4)
    assert report.ok
    assert report.findings["at"].tolist() == ["H100_FP16"]
    assert report.bases["assumed"].sum() > 0
