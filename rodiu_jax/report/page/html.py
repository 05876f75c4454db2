"""The page of a sweep: one HTML file that opens offline, asks nothing of anyone, and needs no script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from rodiu_jax.errors import InputError
from rodiu_jax.report.data.digest import Digest
from rodiu_jax.report.data.outputs import SETTLED
from rodiu_jax.report.figures import style
from rodiu_jax.report.parts.section import Section
from rodiu_jax.report.parts.tables import number
from rodiu_jax.report.text.summary import answer, percent, proofs
from rodiu_jax.sweeps.manifest import read_manifest


def render(
    folder: Path,
    found: Digest,
    parts: Sequence[Section],
    drawings: Mapping[str, Mapping[str, str]],
    *,
    alone: bool = False,
) -> str:
    """The HTML text. Every name that a catalogue or a spec holds is escaped.

    Args:
      drawings: per section the pictures by name, as `rodiu_jax.report.figures.style.inline` gives them.
      alone: without links to the files in the sweep's folder.
    """
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return templates.get_template("page.html").render(
        alone=alone,
        spec=found.spec,
        answer=answer(found),
        proofs=proofs(found),
        key_figures=_key_figures(found),
        sections=parts,
        drawings={
            of: {name: Markup(svg) for name, svg in drawn.items()}  # noqa: S704 (`inline` lets only shapes pass)
            for of, drawn in drawings.items()
        },
        factors=_factors(found),
        method=_method(folder, found),
        spec_text=style.plain(found.spec.to_toml()),
    )


def _key_figures(found: Digest) -> list[tuple[str, str]]:
    settled = sum(found.statuses.get(s, 0) for s in SETTLED)
    costs, gpus = (
        (found.total(f"{n}_sum"), found.total(f"{n}_count")) for n in ("total_cost", "gpus_rented")
    )
    widest = found.most("widest_gap")
    return [
        ("scenarios", f"{found.rows:,}"),
        ("settled", percent(settled, found.rows)),
        ("widest gap", f"{widest:.2%}" if widest == widest else "-"),
        ("mean cost", f"${number(costs[0] / costs[1], 0)}" if costs[1] else "-"),
        ("mean GPUs", f"{gpus[0] / gpus[1]:.1f}" if gpus[1] else "-"),
    ]


def _factors(found: Digest) -> list[tuple[str, str, str]]:
    shown = []
    for levels, factor in zip(found.levels, found.spec.factors, strict=True):
        span = levels.axis.ticks([min(factor.levels), max(factor.levels)])
        listed = levels.axis.ticks(sorted(factor.levels)) if len(factor.levels) <= 6 else []
        text = ", ".join(listed) if listed and not found.spec.design.draws else " to ".join(span)
        shown.append((levels.axis.column, levels.axis.label, text))
    return shown


def _method(folder: Path, found: Digest) -> list[tuple[str, str]]:
    spec = found.spec
    gap = f"{100 * spec.wanted_gap:.3g}% of the cost"
    lines = [
        (
            "Design",
            f"{spec.design.kind}, {spec.points:,} points x {spec.samples:,} samples, seed {spec.seed}",
        ),
        ("Method", f"{spec.method}, to {gap}" + (f", exact: {spec.exact}" if spec.exact else "")),
        ("Uncertainty", spec.uncertainty),
        ("Catalogue", spec.catalog),
    ]
    if spec.changes:
        lines.append(("Changed everywhere", ", ".join(spec.changes)))
    lines.append(("Solver time", f"{found.seconds:,.0f} s, summed over scenarios"))
    try:
        made = read_manifest(folder)
    except InputError:
        return lines
    lines.append(("Catalogue, SHA-256", made.catalog_sha256 or "-"))
    for run in made.runs:
        versions = ", ".join(f"{name} {version}" for name, version in run.versions.items())
        system = str(run.platform).partition("-")[0]  # the rest is in manifest.json
        where = f"Python {run.python}, {system}, {', '.join(run.devices)}"
        lines.append((f"Run of {run.started}", f"{versions}; {where}"))
    return lines
