"""The page of a sweep: one HTML file that opens offline, asks nothing of anyone, and needs no script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from rodiu_jax.errors import InputError
from rodiu_jax.io.number_text import dollars, percent
from rodiu_jax.report.data.digest import Digest
from rodiu_jax.report.data.outputs import SETTLED
from rodiu_jax.report.figures import style
from rodiu_jax.report.parts.section import PageTable, Section
from rodiu_jax.report.text.summary import describe_proofs, write_answer
from rodiu_jax.sweeps.manifest import read_manifest

_MOST_LISTED = 6  # levels of a factor; of more, the first and the last are shown


def render_page(
    folder: Path,
    digest: Digest,
    parts: Sequence[Section],
    drawings: Mapping[str, Mapping[str, str]],
    *,
    alone: bool = False,
) -> str:
    """Write the page as HTML. Every name that a catalogue or a spec holds is escaped.

    Args:
      drawings: per section the pictures by name, as `rodiu_jax.report.figures.style.to_inline_svg` gives them.
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
        spec=digest.spec,
        answer=write_answer(digest),
        proofs=describe_proofs(digest),
        key_figures=_key_figures(digest),
        sections=parts,
        drawings={
            of: {name: Markup(svg) for name, svg in drawn.items()}  # noqa: S704 (`inline` lets only shapes pass)
            for of, drawn in drawings.items()
        },
        factors=_tabulate_factors(digest),
        method=_describe_method(folder, digest),
        spec_text=style.strip_control(digest.spec.to_toml()),
    )


def _key_figures(digest: Digest) -> list[tuple[str, str]]:
    settled = sum(digest.statuses.get(s, 0) for s in SETTLED)
    costs, gpus = (
        (digest.total(f"{n}_sum"), digest.total(f"{n}_count")) for n in ("total_cost", "gpus_rented")
    )
    widest = digest.most("widest_gap")
    return [
        ("scenarios", f"{digest.rows:,}"),
        ("settled", percent(settled / max(digest.rows, 1))),
        ("widest gap", percent(widest)),
        ("mean cost", dollars(costs[0] / costs[1]) if costs[1] else "-"),
        ("mean GPUs", f"{gpus[0] / gpus[1]:.1f}" if gpus[1] else "-"),
    ]


def _tabulate_factors(digest: Digest) -> PageTable:
    rows = []
    for levels, factor in zip(digest.levels, digest.spec.factors, strict=True):
        span = levels.axis.ticks([min(factor.levels), max(factor.levels)])
        listed = levels.axis.ticks(sorted(factor.levels)) if len(factor.levels) <= _MOST_LISTED else []
        text = ", ".join(listed) if listed and not digest.spec.design.draws else " to ".join(span)
        rows.append([levels.axis.column, levels.axis.label, text])
    return PageTable("factors", "What was varied", ["factor", "meaning", "levels"], rows)


def _describe_method(folder: Path, digest: Digest) -> list[tuple[str, str]]:
    spec = digest.spec
    gap = f"{percent(spec.wanted_gap)} of the cost"
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
    lines.append(("Solver time", f"{digest.seconds:,.0f} s, summed over scenarios"))
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
