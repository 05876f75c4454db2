"""`rodiu import aiconfigurator`: a stand-in for the package, and the package itself where it is installed."""

from __future__ import annotations

import logging
import sys
import types
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
import pytest

from rodiu_jax.catalog import load_catalog
from rodiu_jax.catalog.readers import Imported, import_aiconfigurator, performance_model
from rodiu_jax.catalog.readers.imported import write_checked
from rodiu_jax.errors import InputError
from tests.cli.calls import Run, answered, refused

MODELS = "Llama-3.1-8B=meta-llama/Meta-Llama-3.1-8B"
PROMISE = "ttft_mean<=500ms,tpot_mean<=30ms"
QUERIES = 6  # of `corrected`


class NoFeasibleConfigError(RuntimeError):
    """As the package calls it."""


class StandIn:
    """A `Task` whose rate is the degree times the TPOT limit, and whose TPOT is nine tenths of the limit.

    256 tokens are made a request, so a query type with other lengths has other end-to-end latencies.
    """

    asked: ClassVar[list[dict[str, Any]]] = []

    def __init__(self, **given: Any) -> None:
        self.given = given
        StandIn.asked.append(given)

    def run(self) -> pd.DataFrame:
        logging.getLogger("aiconfigurator").critical("a great deal")
        print("a table")
        if self.given["system_name"] == "l4":
            raise RuntimeError("no data for\nthis system")
        if self.given["model_path"].endswith("70B"):
            raise NoFeasibleConfigError("no parallel configuration met TTFT/TPOT")
        tpot = 0.9 * self.given["tpot"]
        rows = [
            {
                "tp": n,
                "seq/s": n * self.given["tpot"] / 10,
                "ttft": 0.5 * self.given["ttft"],
                "tpot": tpot,
                "request_latency": 0.5 * self.given["ttft"] + tpot * (self.given["osl"] - 1) / n,
                "concurrency": 8,
                "version": "0.24.0",
            }
            for n in self.given["agg_num_gpu_candidates"]
        ]
        return pd.DataFrame([*rows, rows[0] | {"seq/s": float("nan")}])


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put the stand-in where the package would be, with an empty cache."""
    folder = tmp_path / "core"
    for name in (
        "model_configs/meta-llama--Meta-Llama-3.1-8B",
        "model_configs/meta-llama--Meta-Llama-3.1-70B",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}_config.json").write_text("{}")
    (folder / "systems").mkdir()
    for name in ("h100_sxm", "l4"):
        (folder / f"systems/{name}.yaml").write_text("data_dir: x\n")
    made = {
        n: types.ModuleType(n) for n in ("aiconfigurator", "aiconfigurator.sdk", "aiconfigurator.sdk.task_v2")
    }
    made["aiconfigurator.sdk.task_v2"].Task = StandIn  # type: ignore[attr-defined]
    core = types.ModuleType("aiconfigurator_core")
    core.__file__ = str(folder / "__init__.py")
    for name, module in (made | {"aiconfigurator_core": core}).items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(performance_model.importlib.metadata, "version", lambda name: "0.12.0")
    monkeypatch.setattr(performance_model, "predictions_folder", lambda: tmp_path / "cache")
    StandIn.asked.clear()
    return tmp_path


def predict(**options: Any) -> Imported:
    given = {"models": MODELS, "systems": "H100_FP16=h100_sxm", "degrees": "1,2", "promise": PROMISE}
    return import_aiconfigurator(**(given | {"base": "corrected"} | options))


def test_rates_latencies_and_curves_of_every_query_type(package: Path, capsys: pytest.CaptureFixture[str]):
    found = predict()
    assert capsys.readouterr() == ("", "")
    write_checked(package / "made.toml", found.text(package))
    catalog = load_catalog(package / "made.toml")
    # Within the promise itself the stand-in sustains n x 30 / 10 requests/s: 3 x 3,600 an hour at degree 1.
    cell = ("Summarization", "Llama-3.1-8B", "H100_FP16", "1")
    entry = catalog.entry("throughput", cell)
    assert entry.distribution.numbers == (10_800.0,)
    assert entry.basis == "predicted"
    assert "aiconfigurator 0.12.0, vllm 0.24.0 on h100_sxm, hybrid data" in (entry.source or "")
    assert len(found.curves) == QUERIES * 2
    assert [p.rate for p in found.curves[0].points] == [5_400, 10_800, 21_600]
    # 250 ms to the first token, 27 ms for each of the 255 others, over 512 + 256 tokens.
    delay = catalog.entry("delay_nominal", cell[:3]).distribution.numbers[0]
    assert delay == pytest.approx((250 + 27 * 255) / 768, rel=1e-5)
    # Half the promise is read off the curve; lengths are those of the catalogue.
    tighter = catalog.with_promises({"Summarization": catalog.promises["Summarization"].scaled(0.5)})
    assert tighter.entry("throughput", cell).distribution.numbers == (5_400.0,)
    assert {(a["isl"], a["osl"]) for a in StandIn.asked} >= {(512, 256), (48, 2048)}
    assert logging.root.manager.disable == logging.NOTSET


def test_answers_are_kept_by_their_inputs(package: Path):
    first = predict()
    count = len(StandIn.asked)
    assert count == 3 * QUERIES
    assert predict().curves == first.curves
    assert len(StandIn.asked) == count
    assert f"{QUERIES} of them kept from before" in predict().summary
    for path in (package / "cache").iterdir():
        path.write_text("{")  # damaged: asked again
    assert predict().curves == first.curves
    assert len(StandIn.asked) == 2 * count
    predict(degrees="4")
    assert len(StandIn.asked) == 3 * count


def test_a_case_that_is_not_supported_is_named_and_left_out(package: Path):
    found = predict(systems="H100_FP16=h100_sxm,A100_FP16=l4")
    assert {c.gpu for c in found.curves} == {"H100_FP16"}
    assert "Left out (Summarization, " in found.summary
    assert "--mode SOL" in found.summary
    assert "Llama-3.1-8B on A100_FP16: no data for this system" in found.summary
    assert len(found.record["left_out"][0]["queries"]) == QUERIES


def test_no_rate_within_the_promise_is_an_answer(package: Path):
    found = predict(models="Llama-3.1-70B=meta-llama/Meta-Llama-3.1-70B")
    assert found.curves == ()
    assert found.record["left_out"] == []
    assert {r["throughput"] for r in found.record["predictions"]} == {0.0}
    assert "12 of them at no rate that keeps the promise or fits the memory" in found.summary


def test_promises_imply_the_limits_that_are_asked_for(package: Path):
    predict(promise=[PROMISE, "Summarization=e2e_mean<=2550ms,ttft_mean+16*tpot_mean<=500ms"])
    asked = [a for a in StandIn.asked if (a["isl"], a["osl"]) == (512, 256)]
    # TTFT <= 500; TPOT <= 2,550 / 255 = 10, and 500 / 16 = 31.25 is no tighter.
    assert [(a["ttft"], a["tpot"]) for a in asked] == [(250, 5), (500, 10), (1000, 20)]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"models": "Llama-3.1-8B=meta-llama/Meta-Llama-3.1-8b"},
            r"models: got 'meta-llama.*\(did",
        ),
        (
            {"systems": "H100_FP16=h100"},
            r"systems: got 'h100', expected one that .* describes \(did",
        ),
        ({"systems": "H100=h100_sxm"}, "systems: got 'H100', expected a GPU configuration of corrected"),
        ({"degrees": "3"}, "degrees: got '3', expected degrees of corrected"),
        ({"degrees": "two"}, "degrees: got 'two'"),
        ({"promise": ()}, "promise: expected --promise 'Summarization=ttft_mean"),
        (
            {"promise": "ttft_p99<=500ms"},
            "only ttft_mean, tpot_mean, e2e_mean are predicted, and .* has ttft_p99",
        ),
        ({"backend": "ollama"}, "backend: got 'ollama', expected one of vllm, sglang, trtllm"),
        ({"mode": "hybrid"}, "mode: got 'hybrid'"),
    ],
)
def test_what_cannot_be_asked_is_refused(package: Path, options: dict[str, Any], said: str):
    with pytest.raises(InputError, match=said):
        predict(**options)


COMMAND = (
    "import",
    "aiconfigurator",
    "--models",
    MODELS,
    "--systems",
    "H100_FP16=h100_sxm",
    "--promise",
    PROMISE,
)


def test_the_command(rodiu: Run, package: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(package)
    ran = answered(rodiu(*COMMAND, "--catalog", "corrected", "-o", "predicted.toml"))
    assert ran.out.endswith("Written to predicted.toml, which extends corrected.\n")
    assert load_catalog("predicted.toml").curves


def test_without_the_package_one_line_names_the_extra(
    rodiu: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "aiconfigurator_core", None)
    options = (*COMMAND, "--catalog", "corrected", "-o", "predicted.toml")
    refused(rodiu, *options, needles=("aiconfigurator", "pip install 'rodiu-jax[serving]'"))


@pytest.mark.slow
@pytest.mark.skipif(find_spec("aiconfigurator") is None, reason="the extra `serving` is not installed")
def test_the_package_itself_says_what_it_said_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Rates that its own command gave: 40.11 and 68.75 requests/s at degrees 1 and 2, 512 in, 256 out."""
    monkeypatch.setattr(performance_model, "predictions_folder", lambda: tmp_path / "cache")
    base = tmp_path / "base.toml"
    base.write_text('[catalog]\nname = "one"\nextends = "corrected"\n[sets]\nquery = ["Summarization"]\n')
    found = predict(base=base)
    rates = [r["throughput"] / 3600 for r in found.record["predictions"]]
    assert rates == pytest.approx([40.11, 68.75], rel=1e-3)
