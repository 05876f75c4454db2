"""The page of a planned fleet: one HTML file that opens offline, asks nothing of anyone, and needs no script."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from rodiu_jax.io.number_text import dollars, number, percent, significant
from rodiu_jax.report.parts.section import Section
from rodiu_jax.report.text.plan_sentences import join_words, name_fleet, name_gpus, say_day, write_sentences
from rodiu_jax.report.text.plan_tables import make_tables, write_change

if TYPE_CHECKING:
    from rodiu_jax.decisions.planning.plan import FleetAnswer
    from rodiu_jax.decisions.planning.what_ifs import WhatIf

_TOLD_FIRST = 4
"""Sentences in the box at the top: what to run, what it costs, how sure that is, who is served."""

_SECTIONS = (
    ("fleet", "The fleet", ("fleet", "routing", "quotas")),
    ("hours", "Hour by hour", ("hours",)),
    ("what-if", "What if", ("what_if",)),
    ("robustness", "If rates fall short", ("protections",)),
    ("limits", "What limits it", ("limits",)),
    ("inputs", "What it rests on", ("traffic", "promises", "rests_on")),
)
"""Name, heading and tables of each section."""


@dataclass(frozen=True)
class _Level:
    """One choice of the switch: a question with its answer."""

    name: str
    what: str
    facts: tuple[tuple[str, str], ...]


def render_plan_page(answer: FleetAnswer, files: list[tuple[str, str]]) -> str:
    """Write the page as HTML. Every name that a catalogue or a file holds is escaped.

    Args:
      files: names and descriptions of the files beside the page.
    """
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    sentences, day = write_sentences(answer), say_day(answer)
    return templates.get_template("plan.html").render(
        title="The fleet for this traffic",
        question=_say_question(answer),
        answer=sentences[:2],
        proof=" ".join(sentences[2:_TOLD_FIRST]),
        key_figures=_key_figures(answer),
        sections=_make_sections(answer, [s for s in sentences[_TOLD_FIRST:] if s not in day], day),
        levels=[_make_level(w, answer.found) for w in (answer.found, *answer.what_ifs)],
        files=files,
    )


def _say_question(answer: FleetAnswer) -> str:
    traffic = [f"{significant(t.rate / 3600, 3)} {t.query}" for t in answer.inputs.traffic]
    return f"What to rent for {join_words(traffic)} queries a second, and what that costs."


def _key_figures(answer: FleetAnswer) -> list[tuple[str, str]]:
    gpus = sum(answer.fleet.gpus.values())
    room = answer.fleet.headroom.factor
    tokens = answer.fleet.cost_per_million_tokens
    rates = answer.basis.find_shares("throughput")
    kind = max(rates, key=lambda name: rates[name], default="")
    return [
        ("cost per hour", dollars(answer.costs["total_cost"])),
        ("cost in 30 days", dollars(answer.costs["total_cost"] * 720)),
        ("GPUs", f"{gpus:,}"),
        ("rent per million tokens", f"${significant(tokens, 3)}" if math.isfinite(tokens) else "-"),
        ("proven within", percent(max(answer.gap, 0.0)) if math.isfinite(answer.found.lower) else "-"),
        ("takes traffic", f"x {number(room)}" if math.isfinite(room) else "any"),
        ("rates are", f"{percent(rates[kind])} {kind}" if kind else "-"),
    ]


def _make_sections(answer: FleetAnswer, sentences: list[str], day: list[str]) -> list[Section]:
    tables = {t.name: t for t in make_tables(answer)}
    found = []
    for name, title, names in _SECTIONS:
        mine = [tables[n] for n in names if n in tables]
        points = {"fleet": sentences, "hours": day}.get(name, [])
        if mine or points:
            found.append(Section(name, title, "", points, (), mine))
    return found


def _make_level(asked: WhatIf, base: WhatIf) -> _Level:
    if not math.isfinite(asked.upper):
        return _Level(asked.name, asked.what, (("answer", f"no plan ({asked.status})"),))
    bound = f"at least {dollars(asked.lower)}/h" if math.isfinite(asked.lower) else "no bound"
    facts = [
        ("cost", f"{dollars(asked.upper)}/h, {bound}"),
        ("change", write_change(asked, base)),
        ("rent", f"{dollars(asked.rent)}/h"),
        ("bought elsewhere", f"{dollars(asked.elsewhere)}/h, {percent(asked.unmet)} of the queries"),
        ("GPUs", name_gpus(asked.gpus)),
    ]
    if asked.plan is not None and asked.plan.deployments:
        facts.append(("fleet", name_fleet(asked.plan.deployments)))
    return _Level(asked.name, asked.what, tuple(facts))
