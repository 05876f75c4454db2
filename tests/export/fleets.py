"""A plan for the catalogue `serving`, made by hand, and a catalogue whose names no file format likes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rodiu_jax.catalog import Catalog, load_catalog
from rodiu_jax.export import export_plan
from rodiu_jax.model.plan import DeployedPair, Plan, Route

SERVING = load_catalog("serving")
PLAN = Plan(
    0,
    (
        DeployedPair("Llama-3.1-8B", "H100", 1, 3),
        DeployedPair("Qwen3-30B-A3B", "H200", 2, 2),
        DeployedPair("Qwen3-8B", "L40S", 4),
    ),
    (
        Route("Chat", "Llama-3.1-8B", "H100", 0.6123),
        Route("Chat", "Qwen3-8B", "L40S", 0.25),
        Route("Chat", "Qwen3-30B-A3B", "H200", 0.0377),
        Route("Code_Generation", "Qwen3-30B-A3B", "H200", 1.0),
        Route("Document_QA", "Qwen3-30B-A3B", "H200", 0.4),
        Route("Document_QA", "Llama-3.1-8B", "H100", 0.59998),
        Route("Document_QA", "Qwen3-8B", "L40S", 0.00002),
    ),
    {"Chat": 0.1, "Code_Generation": 0.0},
)
LABELS = ("llama-3-1-8b-h100-tp1", "qwen3-30b-a3b-h200-tp2", "qwen3-8b-l40s-tp4")
SHARES = {
    "chat": {LABELS[0]: 6123, LABELS[2]: 2500, LABELS[1]: 377, "unmet": 1000},
    "code-generation": {LABELS[1]: 10_000},
    "document-qa": {LABELS[1]: 4000, LABELS[0]: 6000},
}
"""Hundredths of a percent: those of the plan, rounded by hand; 0.002 % of the documents are lost in rounding."""

HOSTILE = ('a"; } $x `rm`\nb', "a'; { #x 'rm' b", "Ünïcode/模型", "unmet", "9-to-5", "-" * 90, "x" * 90 + "1")


def hostile_fleet() -> tuple[Plan, Catalog]:
    """A plan that sends each of some query types to each of some pairs, all of them called as nobody should be."""
    sets = dict(SERVING.sets) | {"query": HOSTILE, "model": HOSTILE, "gpu": HOSTILE[:2]}
    catalog = replace(SERVING, sets=sets, curves=(), attributes={})
    pairs = tuple(DeployedPair(model, HOSTILE[0], 1) for model in HOSTILE)
    share = 1 / len(HOSTILE)
    routes = tuple(Route(query, model, HOSTILE[0], share) for query in HOSTILE for model in HOSTILE)
    return Plan(None, pairs, routes, {}), catalog


def export_ours(plan: Plan, to: str, **settings: Any) -> dict[str, str]:
    """Export a plan for `serving`, which is loaded once."""
    return export_plan(plan, to, catalog=SERVING, **settings)
