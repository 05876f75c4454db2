"""Make the catalogue ``serving``: ``python docs/serving_catalog.py rodiu_jax/catalog/serving.toml``.

It joins what people wrote (``docs/serving_facts.toml``) with memory from the models' published configurations, rates
and latencies that aiconfigurator predicts (extra ``serving``), and accuracies. Predictions are kept in the user's cache
folder: the first run takes some 20 minutes, later ones seconds.
"""

from __future__ import annotations

import math
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rodiu_jax.catalog.promises import Curve
from rodiu_jax.catalog.readers import Imported, Value, import_aiconfigurator, import_model
from rodiu_jax.catalog.readers.imported import toml_key, write_checked
from rodiu_jax.catalog.readers.performance_model import PerformanceModel
from rodiu_jax.io.files import toml_value

FACTS = Path(__file__).parent / "serving_facts.toml"
MODELS = {
    "Llama-3.1-8B": "meta-llama/Meta-Llama-3.1-8B",
    "Qwen3-8B": "Qwen/Qwen3-8B",
    "Qwen3-30B-A3B": "Qwen/Qwen3-30B-A3B",
    "Qwen3-32B-FP8": "Qwen/Qwen3-32B-FP8",
    "Qwen3-32B": "Qwen/Qwen3-32B",
    "Llama-3.1-70B": "meta-llama/Meta-Llama-3.1-70B",
}
SYSTEMS = {"L40S": "l40s", "A100": "a100_sxm", "H100": "h100_sxm", "H200": "h200_sxm", "B200": "b200_sxm"}
FORMULA_SYSTEMS = {"L4": "l4"}
"""aiconfigurator has no measured kernels of these: their rates are the hardware's limits, which no engine reaches."""

OPTIMISM = 4.6
"""Users of aiconfigurator measured so many times less than predicted, at worst (its issue 1396)."""

CONFIDENCE = 1.96


@dataclass(frozen=True)
class Accuracy:
    """Accuracy at GSM8K with its standard error, and what it rests on."""

    accuracy: float
    stderr: float
    source: str
    basis: str = "assumed"


GSM8K_QUESTIONS = 1319
EXPECTED = "accuracies that vLLM's continuous integration expects"
ACCURACIES = {
    "Llama-3.1-8B": Accuracy(
        0.7119,
        math.sqrt(0.7119 * 0.2881 / GSM8K_QUESTIONS),
        "intel/auto-round, issue 2067, GSM8K at BF16; the standard error is that of its 1,319 questions",
        "measured",
    ),
    "Qwen3-8B": Accuracy(0.85, 0.0098, "assumed: nobody's measurement is at hand"),
    "Qwen3-30B-A3B": Accuracy(0.89, 0.0086, f"{EXPECTED}: GSM8K at NVFP4; assumed for BF16"),
    "Qwen3-32B-FP8": Accuracy(0.905, 0.0081, "assumed: nobody's measurement is at hand"),
    "Qwen3-32B": Accuracy(0.91, 0.0079, "assumed: nobody's measurement is at hand"),
    "Llama-3.1-70B": Accuracy(
        0.892, 0.0196, f"{EXPECTED}: GSM8K of Meta-Llama-3-70B-Instruct; assumed for 3.1"
    ),
}


def make_catalog() -> str:
    """Return the text of the catalogue."""
    package = PerformanceModel()
    facts = FACTS.read_text(encoding="utf-8")
    sets = facts.split("[sets]")[1].split("\n\n")[0]
    assert all(f'"{name}"' in sets for name in (*MODELS, *SYSTEMS, *FORMULA_SYSTEMS))
    sized = [
        import_model(package.model_config(theirs), name=ours, base="corrected", write=False)
        for ours, theirs in MODELS.items()
    ]
    parts = [facts, _write_memory(sized), _write_accuracies()]
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / "facts.toml"
        base.write_text("\n".join(parts), encoding="utf-8")
        measured = import_aiconfigurator(models=MODELS, systems=SYSTEMS, base=base, quiet=False)
        formula = import_aiconfigurator(
            models=MODELS, systems=FORMULA_SYSTEMS, backend="vllm=0.24.0", mode="SOL", base=base, quiet=False
        )
    for found in (measured, formula):
        print(found.summary, file=sys.stderr)
    values = [*measured.values, *formula.values]
    head = [
        "# Written by `python docs/serving_catalog.py`: change that or docs/serving_facts.toml, and run it again.",
        f"# Predictions of aiconfigurator {package.version} (NVIDIA, Apache-2.0); see THIRD_PARTY.md.",
        "",
        "# Predicted curves: the fastest point of a replica within half, once and twice the promise.",
        "curve = [",
        *(_write_curve(c) for c in (*measured.curves, *formula.curves)),
        "]",
        "",
    ]
    facts_alone = facts.split("\n\n", 1)[1]  # without the comment about this script's input
    latencies = [_write_cells(values, q) for q in ("delay_nominal", "residency_hours")]
    return "\n".join([*head, facts_alone, *parts[1:], *latencies, _write_shortfalls()])


def _write_curve(curve: Curve) -> str:
    points = ", ".join(
        f"{{ rate = {p.rate:.6g}, ms = {{ {', '.join(f'{k} = {v:.5g}' for k, v in p.latencies.items())} }} }}"
        for p in curve.points
    )
    names = ", ".join(
        f"{k} = {toml_value(v)}" for k, v in zip(("query", "model", "gpu"), curve.cell, strict=False)
    )
    given, made = curve.points[0].tokens or (0, 0)
    about = f'tokens = [{given:g}, {made:g}], source = {toml_value(curve.source)}, basis = "predicted"'
    return f"  {{ {names}, tp = {curve.tp}, {about}, points = [{points}] }},"


def _write_memory(sized: list[Imported]) -> str:
    lines = []
    for quantity, unit in (("weight_memory", "GB"), ("kv_per_token", "GB/token")):
        lines += ["", f"[quantity.{quantity}]", 'over = ["model"]', f'unit = "{unit}"']
        lines += ['source = "the model\'s published config.json"', 'basis = "predicted"', ""]
        lines.append(f"[quantity.{quantity}.values]")
        for found in sized:
            value = next(v for v in found.values if v.quantity == quantity)
            source = f"{MODELS[value.names[0]]}: {value.source}"
            about = f"note = {toml_value(value.note)}, source = {toml_value(source)}"
            lines.append(f"{toml_key(value.names[0])} = {{ fixed = {value.values[0]:.8g}, {about} }}")
    return "\n".join(lines) + "\n"


def _write_accuracies() -> str:
    lines = []
    for quantity in ("error_nominal", "error_deviation"):
        lines += ["", f"[quantity.{quantity}]", 'over = ["query", "model", "gpu"]', 'unit = "fraction"']
        about = (
            "1 - accuracy" if quantity == "error_nominal" else f"{CONFIDENCE} standard errors of the accuracy"
        )
        lines.append(
            f'source = "{about} at GSM8K, grade-school sums, which stands for every kind of traffic"'
        )
        for query in ("Chat", "Code_Completion", "Code_Generation", "Document_QA", "Long_Summaries"):
            lines += ["", f"[quantity.{quantity}.values.{query}]"]
            for model, known in ACCURACIES.items():
                number = 1 - known.accuracy if quantity == "error_nominal" else CONFIDENCE * known.stderr
                entry = f"fixed = {number:.4g}, basis = {toml_value(known.basis)}, source = {toml_value(known.source)}"
                cells = ", ".join(f"{gpu} = {{ {entry} }}" for gpu in (*FORMULA_SYSTEMS, *SYSTEMS))
                lines.append(f"{toml_key(model)} = {{ {cells} }}")
    return "\n".join(lines) + "\n"


def _write_cells(values: list[Value], quantity: str) -> str:
    """Write numbers that belong to a query type, a model and a GPU: one line a cell."""
    lines: list[str] = []
    for query in dict.fromkeys(v.names[0] for v in values):
        lines += ["", f"[quantity.{quantity}.values.{query}]"]
        for value in (v for v in values if v.quantity == quantity and v.names[0] == query):
            entry = f'fixed = {value.values[0]:.5g}, at_curve = true, basis = "predicted", '
            entry += f"source = {toml_value(value.source)}"
            lines.append(f"{'.'.join(map(toml_key, value.names[1:]))} = {{ {entry} }}")
    return "\n".join(lines) + "\n"


def _write_shortfalls() -> str:
    """Rates that are the hardware's limits may be as wrong as any that users measured."""
    share = 1 - 1 / OPTIMISM
    about = (
        f"1 - 1/{OPTIMISM}: users measured up to {OPTIMISM} times less than predicted (aiconfigurator, issue 1396); "
        "assumed here, as these rates are the hardware's limits"
    )
    lines = []
    for query in ("Chat", "Code_Completion", "Code_Generation", "Document_QA", "Long_Summaries"):
        lines.append(f"[quantity.throughput_shortfall.values.{query}]")
        for model in MODELS:
            for gpu in FORMULA_SYSTEMS:
                lines.append(
                    f'{toml_key(model)} = {{ {gpu} = {{ fixed = {share:.3f}, source = "{about}" }} }}'
                )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python docs/serving_catalog.py FILE.toml")
    write_checked(sys.argv[1], make_catalog())
