"""Plans for requests of other lengths than the catalogue's: every number by hand, from the text of the catalogue."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rodiu_jax.decisions.planning.inputs import prepare
from rodiu_jax.decisions.planning.lengths import stretch_rate
from rodiu_jax.decisions.planning.request import PlanRequest
from rodiu_jax.decisions.planning.what_ifs import ask_questions, spread_fields
from solvers.exact import solve_instance
from solvers.unservable import find_unservable
from tests.oracles.planning import SMALL, write_trace

STATED = tomllib.loads(SMALL)


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(SMALL)
    return path


def request(catalog: Path, tokens: tuple[int, int], **options: Any) -> PlanRequest:
    trace = write_trace(catalog.parent / "chat.csv", lambda hour: 40, hours=1, tokens=tokens)
    return PlanRequest(catalog, traces={"Chat": trace}, **options)


def sustained(query: str, model: str, gpu: str, tp: int, *, ttft: float, tpot: float) -> float:
    """Read the highest rate at which both limits hold off the text of the catalogue."""
    (curve,) = [
        c for c in STATED["curve"] if (c["query"], c["model"], c["gpu"], c["tp"]) == (query, model, gpu, tp)
    ]
    good = [
        p["rate"] for p in curve["points"] if p["ms"]["ttft_mean"] <= ttft and p["ms"]["tpot_mean"] <= tpot
    ]
    return max(good, default=0.0)


@pytest.mark.parametrize(
    ("tokens", "growth", "stretch"),
    [
        ((512, 256), 1, 1),
        ((2048, 256), 3, 4),
        ((512, 768), 5 / 3, 3),
        ((600, 300), 900 / 768, 300 / 256),
        ((256, 128), 1 / 2, 1),
    ],
)
def test_what_is_promised_keeps_its_amount_per_token(
    catalog: Path, tokens: tuple[int, int], growth: float, stretch: float
):
    inputs = prepare(request(catalog, tokens))
    f = inputs.scenario.one(0)
    assert f.delay_threshold.tolist() == pytest.approx([13_300 * growth], rel=1e-9)
    assert f.unmet_penalty.tolist() == pytest.approx([0.00026 * growth], rel=1e-9)
    for j, model in enumerate(inputs.scenario.model_names):
        for k, gpu in enumerate(inputs.scenario.gpu_names):
            stay = STATED["quantity"]["residency_hours"]["values"]["Chat"][model][gpu]["fixed"]
            assert np.broadcast_to(f.residency_hours, (1, 2, 2))[0, j, k] == pytest.approx(stay * stretch)
            for n, tp in enumerate((1, 2)):
                rate = sustained("Chat", model, gpu, tp, ttft=500, tpot=50)
                assert f.throughput[0, j, k, n] == pytest.approx(rate / stretch, rel=1e-9)
    # the delay of a query over its limit is what it was: nobody becomes unservable by asking more
    total = f.delay_nominal * sum(tokens) / f.delay_threshold[:, None, None]
    assert total[0, 0, 0] == pytest.approx(15.967 * 768 / 13_300, rel=1e-9)
    assert any("Chat: the trace's requests" in note for note in inputs.notes) == (tokens != (512, 256))


def test_smaller_differences_are_carried_in_silence(catalog: Path):
    inputs = prepare(request(catalog, (520, 256)))
    assert inputs.scenario.one(0).delay_threshold.tolist() == pytest.approx([13_300 * 776 / 768])
    assert not any("the trace's requests" in note for note in inputs.notes)


def test_the_note_says_what_was_carried(catalog: Path):
    (note,) = [n for n in prepare(request(catalog, (2048, 256))).notes if n.startswith("Chat:")]
    for part in ("2,048 + 256 tokens", "512 + 256", "(times 3)", "every rate is divided by 4:"):
        assert part in note
    priced = prepare(request(catalog, (2048, 256), api_prices={"": 2.0}))
    (note,) = [n for n in priced.notes if n.startswith("Chat:")]
    assert "price elsewhere" not in note
    assert priced.scenario.one(0).unmet_penalty.tolist() == pytest.approx([2e-6 * 2304])


def test_no_cost_per_token_makes_a_request_dearer_than_the_stretch():
    """A request that costs a + b in + c out of a replica: over many a, b, c >= 0 the ratio comes near, never above."""
    rng = np.random.default_rng(3)
    for _ in range(50):
        old, new = rng.uniform(1, 1000, 2), rng.uniform(1, 1000, 2)
        cost = np.vstack([np.eye(3), rng.exponential(size=(500, 3))])
        ratio = (cost[:, 0] + cost[:, 1:] @ new) / (cost[:, 0] + cost[:, 1:] @ old)
        most = stretch_rate((old[0], old[1]), (new[0], new[1]))
        assert ratio.max() == pytest.approx(most, rel=1e-12)


@pytest.mark.parametrize("tokens", [(1024, 512), (2048, 256), (512, 768)])
def test_an_end_to_end_promise_replaces_the_limit(catalog: Path, tokens: tuple[int, int]):
    """It is of the user's own requests: held against end-to-end latencies at his lengths, and nothing multiplies it."""
    given, made = tokens
    asked = request(catalog, tokens, promises={"Chat": "tpot_mean<=50ms,e2e_mean<=20s"})
    inputs = prepare(asked)
    f = inputs.scenario.one(0)
    assert f.delay_threshold.tolist() == [20_000]
    for j, model in enumerate(inputs.scenario.model_names):
        for k, gpu in enumerate(inputs.scenario.gpu_names):
            (curve,) = [
                c
                for c in STATED["curve"]
                if (c["query"], c["model"], c["gpu"], c["tp"]) == ("Chat", model, gpu, 1)
            ]
            rates = [
                p["rate"]
                for p in curve["points"]
                if p["ms"]["ttft_mean"] + p["ms"]["tpot_mean"] * (made - 1) <= 20_000
                and p["ms"]["tpot_mean"] <= 50
            ]
            stretch = max(1, given / 512, made / 256)
            assert f.throughput[0, j, k, 0] == pytest.approx(max(rates, default=0) / stretch)
    rated = prepare(PlanRequest(catalog, rates={"Chat": 1.0}, promises={"Chat": "e2e_mean<=20s"}))
    assert rated.scenario.one(0).delay_threshold.tolist() == [20_000]


def test_latencies_of_a_carried_point_agree_with_each_other(catalog: Path):
    for tokens in ((512, 2560), (8192, 256), (52, 26)):
        curves = [c for c in prepare(request(catalog, tokens)).catalog.curves if c.query == "Chat"]
        assert curves
        for point in (p for c in curves for p in c.points):
            ms = point.latencies
            assert ms["e2e_mean"] == pytest.approx(
                ms["ttft_mean"] + ms["tpot_mean"] * (tokens[1] - 1), rel=2e-3
            )


def test_a_limit_on_a_percentile_is_no_limit_on_the_mean(catalog: Path):
    text = SMALL.replace("e2e_mean", "e2e_p99")
    catalog.write_text(text)
    inputs = prepare(PlanRequest(catalog, rates={"Chat": 1.0}, promises={"Chat": "e2e_p99<=60s"}))
    assert inputs.scenario.one(0).delay_threshold.tolist() == [13_300]


def test_rates_by_default_are_carried_and_stay_those_of_the_other_types(catalog: Path):
    head, *curves = re.split(r"(?=\[\[curve\]\])", SMALL)
    kept = [c for c in curves if 'query = "Chat"' not in c]
    assert "each = 0" in head
    before, after = head.split("[quantity.throughput]")
    catalog.write_text(
        before + "[quantity.throughput]" + after.replace("each = 0", "each = 90000", 1) + "".join(kept)
    )
    f = prepare(request(catalog, (2048, 256), rates={"Document_QA": 1.0})).scenario.one(0)
    assert np.unique(f.throughput[0]).tolist() == pytest.approx([90_000 / 4])
    assert f.throughput[1].max() > 90_000 / 4


def test_an_end_to_end_limit_of_the_catalogue_grows_in_its_promise(catalog: Path):
    text = SMALL.replace('"ttft_mean<=500ms,tpot_mean<=50ms"', '"ttft_mean<=500ms,e2e_mean<=7000ms"', 1)
    catalog.write_text(text)
    inputs = prepare(request(catalog, (1024, 512)))
    assert str(inputs.catalog.promises["Chat"]) == "ttft_mean<=500ms,e2e_mean<=14000ms"
    rate = inputs.scenario.one(0).throughput[0, 0, 0, 0]
    assert rate == pytest.approx(
        144_396 / 2
    )  # 6,382 ms of 7,000 before, 12,690 of 14,000 now; 12,263 were too many


def test_curves_are_carried_from_the_lengths_that_they_state(catalog: Path):
    """Measured at 1024 + 256 tokens, a rate needs no change for a trace of these."""
    catalog.write_text(SMALL.replace("tp = 1\n", "tp = 1\ntokens = [1024, 256]\n"))
    inputs = prepare(request(catalog, (1024, 256)))
    f = inputs.scenario.one(0)
    measured = sustained("Chat", "Llama-3.1-8B", "H100", 1, ttft=500, tpot=50)
    other = sustained("Chat", "Llama-3.1-8B", "H100", 2, ttft=500, tpot=50)
    assert f.throughput[0, 0, 0].tolist() == pytest.approx([measured, other / 2])
    assert any("divided by 1 to 2" in note for note in inputs.notes)


def test_rates_of_other_lengths_are_told_where_no_trace_moves_them(catalog: Path):
    catalog.write_text(SMALL.replace("tp = 1\n", "tp = 1\ntokens = [540, 256]\n"))
    inputs = prepare(PlanRequest(catalog, rates={"Chat": 1.0}))
    (note,) = [n for n in inputs.notes if "540 input" in n]
    assert "4 of 4 curves of Chat" in note
    assert inputs.scenario.one(0).throughput[0, 0, 0, 0] == 150_307


def test_rates_without_a_curve_are_carried_too(catalog: Path):
    head, *curves = re.split(r"(?=\[\[curve\]\])", SMALL)
    kept = [c for c in curves if 'query = "Chat"' not in c]
    stated = (
        '[quantity.throughput.values.Chat."Llama-3.1-8B".H100]\n1 = { fixed = 90000, basis = "measured" }\n\n'
    )
    catalog.write_text(
        head.replace("[quantity.throughput_shortfall]", f"{stated}[quantity.throughput_shortfall]")
        + "".join(kept)
    )
    inputs = prepare(request(catalog, (2048, 256)))
    assert inputs.scenario.one(0).throughput[0, 0, 0].tolist() == pytest.approx([90_000 / 4, 0])
    entry = inputs.catalog.find_entry("throughput", ("Chat", "Llama-3.1-8B", "H100", "1"))
    assert entry is not None
    assert entry.basis == "predicted"  # nobody measured it at these lengths


def test_a_limit_by_a_rule_follows_it_and_the_note_says_so(catalog: Path):
    rule = '[quantity.delay_threshold]\nover = ["query"]\nunit = "ms"\nsource = "a rule"\n'
    rule += 'multiply = ["ms_per_token", "input_tokens"]'
    own = '[quantity.ms_per_token]\nover = ["query"]\nunit = "ms/token"\nsource = "mine"\neach = 40\n'
    before, _, after = SMALL.partition("[quantity.delay_threshold]")
    catalog.write_text(f"{before}{rule}\n\n{own}\n{after[after.index('[quantity.error_threshold]') :]}")
    inputs = prepare(request(catalog, (2048, 256)))
    assert inputs.scenario.one(0).delay_threshold.tolist() == [40 * 2048]
    assert any(
        "the end-to-end limit is what the rule of small makes of these lengths" in n for n in inputs.notes
    )
    usual = prepare(PlanRequest(catalog, rates={"Chat": 1.0}))
    assert usual.scenario.one(0).delay_threshold.tolist() == [40 * 512]


def test_tighter_promises_are_asked_of_the_carried_ones(catalog: Path):
    inputs = prepare(request(catalog, (2048, 256)))
    scenario = spread_fields(inputs.scenario)
    plan = solve_instance(scenario, 0, gap=1e-3).plan_for(0)
    assert plan is not None
    (tight,) = [q for q in ask_questions(scenario, plan, inputs.nominal) if q.group == "promises"]
    assert tight.change["delay_threshold"].tolist() == pytest.approx([0.8 * 3 * 13_300])
    rate = sustained("Chat", "Llama-3.1-8B", "H100", 2, ttft=400, tpot=40)
    assert tight.change["throughput"][0, 0, 0, 1] == pytest.approx(rate / 4)


def test_longer_requests_of_the_packaged_catalogue_are_served(tmp_path: Path):
    """2,048 + 256 tokens a request of Chat: three times the tokens, so three times the end-to-end limit of 13.3 s."""
    trace = write_trace(tmp_path / "chat.csv", lambda hour: 500, hours=1, tokens=(2048, 256))
    found = prepare(PlanRequest("serving", traces={"Chat": trace}))
    same = prepare(PlanRequest("serving", rates={"Chat": 1.0})).scenario.one(0)
    f = found.scenario.one(0)
    assert find_unservable(found.scenario, 0) == {}
    assert f.delay_threshold.tolist() == pytest.approx([39_900])
    assert np.allclose(f.throughput, same.throughput / 4, rtol=1e-8)
    # The curves say how long an answer of 256 tokens takes: as long as before, over three times the tokens.
    assert np.allclose(f.delay_nominal * 3, same.delay_nominal, rtol=1e-2)
    assert np.allclose(f.residency_hours, same.residency_hours, rtol=1e-2)
