"""Measured values in catalogues: over a rule, drawn together, and curves of which promises decide what counts."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest

from rodiu_jax.catalog import Catalog, load_catalog
from rodiu_jax.catalog.promise_changes import apply_promise_changes, split_changes
from rodiu_jax.catalog.promises import parse_promise
from rodiu_jax.catalog.sampling import sample, sample_quantities
from rodiu_jax.errors import InputError
from rodiu_jax.sweeps.run import prepare
from rodiu_jax.sweeps.scenarios import scenarios
from rodiu_jax.sweeps.spec import SweepSpec, make_spec
from tests.oracles.tiny import TINY

MEASURED = """
[quantity.delay_nominal.values.Code_Gen."Llama-3.1-8B"]
H100_FP16 = { uniform = [0.06, 0.07], source = "ours", basis = "measured" }

[quantity.delay_impact.values."Llama-3.1-8B"]
H100_FP16 = 0.5

[quantity.arrival_rate.values]
Code_Gen = { choice = [10, 20, 30], together = "week.csv" }
Translation = { choice = [300, 200, 100], together = "week.csv" }

[quantity.input_tokens.values]
Code_Gen = { choice = [1, 2, 3], together = "week.csv" }
"""

CURVE = """
[quantity.throughput]
over = ["query", "model", "gpu", "tp"]
unit = "queries/h"
source = "nobody measured it"
each = 0

[promise.Code_Gen]
limits = "ttft_p99<=500ms, tpot_p50<=30ms"

[[curve]]
query = "Code_Gen"
model = "Llama-3.1-8B"
gpu = "H100_FP16"
tp = 2
source = "bench.json"
points = [
  { rate = 9000, ms = { ttft_p99 = 900, ttft_p50 = 100, tpot_p50 = 20 } },
  { rate = 3600, ms = { ttft_p99 = 200, ttft_p50 = 60, tpot_p50 = 10 } },
  { rate = 7200, ms = { ttft_p99 = 450, ttft_p50 = 80, tpot_p50 = 25 } },
]
"""

CELL = ("Code_Gen", "Llama-3.1-8B", "H100_FP16", "2")


def load(folder: Path, body: str, name: str = "own.toml", head: str = TINY) -> Catalog:
    (folder / name).write_text(head + body)
    return load_catalog(folder / name)


def test_values_over_a_rule_leave_the_rule_for_all_other_names(tmp_path: Path):
    plain, own = load(tmp_path, ""), load(tmp_path, MEASURED)
    read = ["delay_nominal", "delay_deviation", "delay_deviation_share", "delay_impact"]
    before, after = (sample_quantities(c, read, n=40, seed=2) for c in (plain, own))
    at = (slice(None), 0, 0, 1)  # Code_Gen, Llama-3.1-8B, H100_FP16
    drawn = after["delay_nominal"][at]
    assert ((drawn >= 0.06) & (drawn <= 0.07)).all()
    assert len(set(drawn)) > 20
    others = np.ones(before["delay_nominal"].shape[1:], bool)
    others[at[1:]] = False
    assert (before["delay_nominal"][:, others] == after["delay_nominal"][:, others]).all()
    # What reads the quantity reads the measured value: 10 to 25 % of it.
    share = after["delay_deviation"][at] / drawn
    np.testing.assert_allclose(share, after["delay_deviation_share"][at], rtol=1e-15)
    impact = after["delay_impact"]
    assert (impact[:, 0, 1] == 0.5).all()
    assert (impact[:, 1] == before["delay_impact"][:, 1]).all()
    low, high = own.ranges["delay_nominal"]
    assert (low[at[1:]], high[at[1:]]) == (0.06, 0.07)
    assert own.digest != plain.digest


def test_values_over_a_rule_that_nothing_draws(tmp_path: Path):
    body = "[quantity.gpu_speed_factor.values]\nH100_FP16 = { uniform = [1, 2] }\n"
    drawn = sample_quantities(load(tmp_path, body), ["gpu_speed_factor"], n=30)["gpu_speed_factor"]
    assert (drawn[:, 0] == 1.0).all(), "A6000_FP16 is the reference"
    assert ((drawn[:, 1] >= 1) & (drawn[:, 1] <= 2)).all()


def test_a_rule_or_each_in_a_later_file_replaces_rule_and_values(tmp_path: Path):
    load(tmp_path, MEASURED)
    head = '[catalog]\nname = "later"\nextends = "own.toml"\n'
    again = load(tmp_path, "[quantity.delay_nominal]\neach = 0.3\n", "later.toml", head)
    assert (again.ranges["delay_nominal"][0] == 0.3).all()
    body = '[quantity.delay_nominal.values.Translation."Llama-3.1-8B"]\nH100_FP16 = 0.4\n'
    low, high = load(tmp_path, body, "later.toml", head).ranges["delay_nominal"]
    assert (low[0, 0, 1], low[1, 0, 1], high[1, 0, 1]) == (0.06, 0.4, 0.4), "both files count"


def test_what_is_drawn_together_keeps_its_position(tmp_path: Path):
    def draw(body: str, n: int = 200) -> tuple[np.ndarray, np.ndarray]:
        found = sample_quantities(load(tmp_path, body), ["arrival_rate", "input_tokens"], n=n, seed=5)
        return found["arrival_rate"], found["input_tokens"]

    rate, tokens = draw(MEASURED)
    place = tokens[:, 0] - 1
    assert set(place) == {0, 1, 2}
    np.testing.assert_array_equal(rate[:, 0], 10 + 10 * place)
    np.testing.assert_array_equal(rate[:, 1], 300 - 100 * place)
    # The first scenarios of a longer run are the same, and another group moves on its own.
    np.testing.assert_array_equal(draw(MEASURED, 20)[0], rate[:20])
    last = 'choice = [300, 200, 100], together = "week.csv"'
    moved, _ = draw(MEASURED.replace(last, last.replace("week.csv", "other")))
    np.testing.assert_array_equal(moved[:, 0], rate[:, 0])
    assert len(set(zip(moved[:, 0], moved[:, 1], strict=True))) == 9


@pytest.mark.parametrize(
    ("promise", "rate"),
    [
        (None, 7200),
        ("ttft_p99<=500ms", 7200),
        ("ttft_p99<=1s", 9000),
        ("ttft_p99<=450ms", 7200),
        ("ttft_p99<=449.9ms", 3600),
        ("ttft_p99<=100ms", 0),
        ("ttft_p50 + 16 * tpot_p50 <= 300ms", 3600),  # 60 + 160, 80 + 400, 100 + 320
        ("ttft_p50+16*tpot_p50<=420ms", 9000),  # the curve is not monotone: the highest rate that holds
        ("tpot_p50<=0.02s,ttft_p99<=0.5s", 3600),
    ],
)
def test_the_rate_is_the_highest_measured_one_at_which_the_promise_holds(
    tmp_path: Path, promise: str | None, rate: float
):
    catalog = load(tmp_path, CURVE)
    if promise is not None:
        catalog = catalog.with_promises({"Code_Gen": parse_promise(promise)})
    found = sample(catalog, n=1).one(0).throughput
    assert found[0, 0, 1, 1] == rate
    assert found.sum() == rate, "nobody measured the others"
    assert ("at none of 3 measured points" in catalog.entry("throughput", CELL).note) == (rate == 0)


def test_a_later_value_replaces_a_curve_and_a_later_curve_a_value(tmp_path: Path):
    load(tmp_path, CURVE)
    head = '[catalog]\nname = "later"\nextends = "own.toml"\n'
    value = '[quantity.throughput.values.Code_Gen."Llama-3.1-8B".H100_FP16]\n2 = 5\n'
    later = load(tmp_path, value, "later.toml", head)
    assert later.curves == ()
    assert later.entry("throughput", CELL).distribution.numbers == (5,)
    more = CURVE[CURVE.index("[[curve]]") :].replace("7200", "7300")
    last = load(tmp_path, more, "last.toml", head.replace("own", "later").replace('"later"', '"last"'))
    assert last.entry("throughput", CELL).distribution.numbers == (7300,)
    assert last.promises == later.promises


BAD = {
    "no promise": ('[promise.Code_Gen]\nlimits = "fast"\n', r"promise\.Code_Gen.*'fast'"),
    "no unit": ('[promise.Code_Gen]\nlimits = "ttft_p99<=500"\n', "ttft_p99<=500ms"),
    "no percentile": ('[promise.Code_Gen]\nlimits = "ttft<=500ms"\n', "percentile"),
    "promise to nobody": ('[promise.Chat]\nlimits = "ttft_p99<=500ms"\n', "'Chat'"),
    "not measured": (
        CURVE.replace("tpot_p50<=30", "tpot_p90<=30"),
        r"promise\.Code_Gen.*'tpot_p90'.*tpot_p50",
    ),
    "two curves": (CURVE + CURVE[CURVE.index("[[curve]]") :], r"curve\[1\].*one curve"),
    "curve and value": (
        CURVE.replace("each = 0", 'each = 0\nvalues.Code_Gen."Llama-3.1-8B".H100_FP16.2 = 4'),
        r"curve\[0\]",
    ),
    "curve of a stranger": (CURVE.replace("tp = 2", "tp = 3"), r"curve\[0\]\.tp.*'3'"),
    "no throughput": (CURVE[CURVE.index("[promise") :], r"quantity\.throughput.*curves"),
    "negative latency": (CURVE.replace("= 900,", "= -900,"), r"curve\[0\]\.points\[0\]\.ms\.ttft_p99"),
    "odd latency": (CURVE.replace("ttft_p50 = 60", "ttft = 60"), r"curve\[0\]\.points\[1\].*'ttft'"),
    "no rate": (CURVE.replace("rate = 9000", "rate = 0"), r"points\[0\]\.rate"),
    "lengths": (MEASURED.replace("[1, 2, 3]", "[1, 2]"), r"input_tokens.*drawn together"),
    "together alone": (MEASURED.replace("choice = [1, 2, 3]", "fixed = 1"), "choice beside together"),
    "at a curve": (
        MEASURED.replace("uniform = [0.06, 0.07]", "uniform = [0.06, 0.07], at_curve = true"),
        "a fixed number",
    ),
    "follower": (
        "[quantity.gpu_price.values]\nH100_FP16 = { fixed = 2, at_curve = true }\n",
        r"gpu_price\.values\.H100_FP16.*at_curve in delay_nominal",
    ),
    "tokens": (CURVE.replace("tp = 2", "tp = 2\ntokens = [1]"), r"curve\[0\]\.tokens"),
    "basis": (MEASURED.replace('"measured"', '"hoped"'), r"basis.*'hoped'"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_measurements_are_one_line(tmp_path: Path, what: str):
    body, message = BAD[what]
    with pytest.raises(InputError, match=message) as caught:
        load(tmp_path, body)
    assert "\n" not in str(caught.value)


def promised(folder: Path, *texts: str) -> float:
    """The rate of the curve after changes of promises."""
    changes, others = split_changes(texts)
    assert others == []
    catalog = apply_promise_changes(load(folder, CURVE), changes)
    return catalog.entry("throughput", CELL).distribution.numbers[0]


@pytest.mark.parametrize(
    ("texts", "rate"),
    [
        (("promise[Code_Gen]=ttft_p99<=1s",), 9000),
        (("promise*=0.5",), 3600),  # 250 ms and 15 ms
        (("promise[Code*]*=2",), 9000),  # 1000 ms and 60 ms
        (("promise*=0.5", "promise*=2"), 7200),
        (("promise=e2e_p50<=1s,ttft_p99<=500ms",), None),
        (("promise[Chat]*=2",), None),
        (("promise*=0",), None),
        (("promise*=-1",), None),
        (("promise*=nan",), None),
        (("promise+=1",), None),
        (("promise=soon",), None),
        (("promise[Translation]*=2",), None),
        (("promise[Translation]=ttft_p99<=1s",), None),  # nothing was measured of it
        (("promise[Code_Gen].ttft_p99=450",), 7200),  # ms
        (("promise.ttft_p99=0.449s",), 3600),
        (("promise[Code*].ttft_p99=1s",), 9000),
        (
            ("promise . tpot_p50 = 24ms", "promise.ttft_p99=1s"),
            9000,
        ),  # 10, 25 and 20 ms: TPOT is not monotone
        (("promise.ttft_p99*=0.8",), 3600),
        (("promise.ttft_p50=70",), 3600),  # one more limit
        (("promise.ttft_p50*=2",), None),  # there is none
        (("promise.ttft_p99=0",), None),
        (("promise.ttft_p99=soon",), None),
        (("promise.ttft_p99*=0",), None),
        (("promise.ttft_p99+=1",), None),
        (("promise.ttft=1",), None),
    ],
)
def test_changes_of_promises_read_the_curves_anew(tmp_path: Path, texts: tuple[str, ...], rate: float | None):
    if rate is None:
        with pytest.raises(InputError) as caught:
            promised(tmp_path, *texts)
        assert "\n" not in str(caught.value)
    else:
        assert promised(tmp_path, *texts) == rate


def test_promises_without_curves_move_nothing_and_say_so(tmp_path: Path):
    with pytest.raises(InputError, match="a catalogue with curves"):
        apply_promise_changes(load(tmp_path, ""), split_changes(["promise*=0.5"])[0])


FOLLOWED = (
    CURVE.replace("tp = 2", "tp = 2\ntokens = [300, 100]")
    .replace("ttft_p50 =", "e2e_p50 = 800, ttft_p50 =", 1)
    .replace("ttft_p50 = 60", "e2e_p50 = 300, ttft_p50 = 60")
    .replace("ttft_p50 = 80", "e2e_p50 = 500, ttft_p50 = 80")
    + """
[[curve]]
query = "Code_Gen"
model = "Llama-3.1-8B"
gpu = "H100_FP16"
tp = 1
source = "bench.json"
points = [{ rate = 1000, tokens = [200, 0], ms = { ttft_p99 = 100, ttft_p50 = 60, tpot_p50 = 10, e2e_mean = 250 } }]

[quantity.delay_nominal.values.Code_Gen."Llama-3.1-8B"]
H100_FP16 = { fixed = 9, at_curve = true, source = "bench.json" }

[quantity.tp_speedup]
over = ["tp"]
unit = "-"
source = "ours"
values = { 1 = 1, 2 = 1.5 }

[quantity.residency_hours]
over = ["query", "model", "gpu"]
unit = "h"
source = "assumed"
each = 0.1
values.Code_Gen."Llama-3.1-8B".H100_FP16 = { fixed = 9, at_curve = true }
"""
)


@pytest.mark.parametrize(
    ("promise", "rate", "latency", "tokens"),
    [
        # Most per GPU sustain two GPUs (7200, 3600 or 9000), whose speed-up is 1.5; the model divides by it again.
        ("ttft_p99<=500ms,tpot_p50<=30ms", 7200, 500, 400 / 1.5),
        ("ttft_p99<=250ms", 3600, 300, 400 / 1.5),
        ("ttft_p99<=1s", 9000, 800, 400 / 1.5),
        ("ttft_p99<=150ms", 0, 250, 200),  # one GPU alone keeps it
        ("ttft_p99<=50ms", 0, 250, 200),  # none does: the slowest point of the smallest degree
    ],
)
def test_latencies_follow_the_promise(
    tmp_path: Path, promise: str, rate: float, latency: float, tokens: float
):
    catalog = load(tmp_path, FOLLOWED).with_promises({"Code_Gen": parse_promise(promise)})
    assert catalog.following == ("throughput", "delay_nominal", "residency_hours")
    drawn = sample(catalog, n=3).one(2)
    assert drawn.throughput[0, 0, 1, 1] == rate
    assert drawn.delay_nominal[0, 0, 1] == pytest.approx(latency / tokens, rel=1e-12)
    assert drawn.residency_hours[0, 0, 1] == pytest.approx(latency / 3_600_000, rel=1e-12)
    assert drawn.residency_hours[0, 0, 0] == 0.1


def test_sweeps_over_promises_move_latencies_too(tmp_path: Path):
    catalog = load(tmp_path, FOLLOWED)
    factors = [
        {"field": "promise", "scale": [0.5, 1.0, 2.0]},
        {"field": "delay_nominal", "scale": [1.0, 3.0]},
    ]
    values = {"name": "p", "title": "P", "samples": 2, "method": "exact", "factors": factors}
    spec, _ = prepare(make_spec(values | {"catalog": str(tmp_path / "own.toml")}), {})
    made = scenarios(spec, catalog, 0, spec.rows).fields
    delay = [s * e2e * 1.5 / 400 for e2e in (300, 500, 800) for s in (1, 3)]
    np.testing.assert_allclose(made.delay_nominal[:, 0, 0, 1], delay * 2, rtol=1e-12)
    hours = np.repeat([300, 500, 800], 2) / 3_600_000
    np.testing.assert_allclose(made.residency_hours[:, 0, 0, 1], [*hours, *hours], rtol=1e-12)
    others = made.delay_nominal[:, 1]
    assert (others[0] == others[2]).all(), "other pairs are those of the sample"
    assert (others[0] != others[6]).any()


def test_sweeps_over_the_limit_on_one_latency(tmp_path: Path):
    catalog = load(tmp_path, CURVE)
    own = {"field": "promise", "latency": "ttft_p99", "value": [200, 450, 900]}
    other = {"field": "promise", "latency": "tpot_p50", "scale": [0.5, 1.0]}  # 15 ms, 30 ms
    values = {
        "name": "p",
        "title": "P",
        "catalog": str(tmp_path / "own.toml"),
        "samples": 1,
        "method": "exact",
    }
    spec, _ = prepare(make_spec(values | {"factors": [own, other]}), {})
    assert spec.columns == ("promise.ttft_p99", "promise.tpot_p50")
    assert load_spec_text(spec) == spec
    rates = scenarios(spec, catalog, 0, spec.rows).fields.throughput[:, 0, 0, 1, 1]
    assert rates.tolist() == [3600, 3600, 3600, 7200, 3600, 9000]
    with pytest.raises(InputError, match="no other factor changes"):
        prepare(make_spec(values | {"factors": [own, {"field": "promise", "scale": [0.5]}]}), {})
    one = make_spec(
        values | {"factors": [own, other | {"scale": [0.5]}], "design": {"kind": "one-at-a-time"}}
    )
    rates = scenarios(one, catalog, 0, one.rows).fields.throughput[:, 0, 0, 1, 1]
    assert rates.tolist() == [7200, 3600, 7200, 9000, 3600]


def load_spec_text(spec: SweepSpec) -> SweepSpec:
    """The spec as its own TOML text reads."""
    return make_spec(tomllib.loads(spec.to_toml()))


def test_a_number_counts_where_no_curve_is_left(tmp_path: Path):
    catalog = load(tmp_path, FOLLOWED[FOLLOWED.index("[quantity.delay_nominal") :])
    assert catalog.following == ()
    assert sample(catalog, n=1).one(0).delay_nominal[0, 0, 1] == 9


def test_what_a_sweep_of_promises_may_read_changes_the_digest(tmp_path: Path):
    """A folder resumes only where every point and promise is as it was."""
    plain = load(tmp_path, FOLLOWED).digest
    for old, new in (
        ("rate = 3600", "rate = 3601"),
        ("300, ttft", "301, ttft"),
        ("<=30ms", "<=29ms"),
        (", at_curve = true", ""),
    ):
        assert load(tmp_path, FOLLOWED.replace(old, new, 1)).digest != plain, new


SWEEP = {
    "name": "promises",
    "title": "P",
    "samples": 2,
    "method": "exact",
    "set": ["promise[Code_Gen]=ttft_p99<=500ms", "max_replicas=3"],
    "factors": [
        {"field": "promise", "scale": [0.5, 1.0, 2.0], "names": "Code*"},
        {"field": "throughput", "scale": [1.0, 0.5]},
    ],
}


def test_sweeps_over_promises_read_the_curves_anew(tmp_path: Path):
    catalog = load(tmp_path, CURVE)
    spec, _ = prepare(make_spec(SWEEP | {"catalog": str(tmp_path / "own.toml")}), {})
    made = scenarios(spec, catalog, 0, spec.rows)
    found = made.fields.throughput[:, 0, 0, 1, 1]
    assert found.tolist() == [3600, 1800, 7200, 3600, 9000, 4500] * 2
    assert (made.fields.throughput.reshape(len(found), -1).sum(axis=1) == found).all()
    rate = made.fields.arrival_rate[:, 0]
    assert (rate[:6] == rate[0]).all(), "the same sample at every level"
    assert rate[6] != rate[0]
    assert (made.fields.max_replicas == 3).all()
    one = scenarios(spec, catalog, 8, 9)
    assert one.one(0).throughput[0, 0, 1, 1] == 7200


@pytest.mark.parametrize(
    ("factor", "said"),
    [
        ({"field": "promise", "value": [1.0]}, "expected scale; or value, in ms, with the latency"),
        ({"field": "promise", "shift": [1.0], "latency": "ttft_p99"}, "expected scale; or value"),
        ({"field": "promise", "value": [0.0], "latency": "ttft_p99"}, r"value\[0\]: got 0.0"),
        ({"field": "promise", "value": [9.0], "latency": "ttft"}, r"latency: got 'ttft'"),
        ({"field": "budget", "scale": [0.5], "latency": "ttft_p99"}, "beside field = 'promise'"),
        (
            {"field": "promise", "value": [9.0], "latency": "ttft_p90"},
            "'ttft_p90', expected latencies that the curve",
        ),
        (
            {"field": "promise", "scale": [0.5], "latency": "ttft_p50"},
            "a limit on ttft_p50 alone is promised",
        ),
        ({"field": "promise", "scale": [0.5, 0.0]}, "multipliers > 0"),
        ({"field": "promise", "scale": [0.5], "names": "Translation"}, "a query type with curves"),
        ({"field": "promises", "scale": [0.5]}, "one of arrival_rate"),
    ],
)
def test_factors_over_promises_that_are_wrong(tmp_path: Path, factor: dict[str, object], said: str):
    load(tmp_path, CURVE)
    with pytest.raises(InputError, match=said):
        prepare(make_spec(SWEEP | {"catalog": str(tmp_path / "own.toml"), "factors": [factor]}), {})
