"""``python -m bench.truth FOLDER``: is every bracket of very many default scenarios valid?

A sweep of scenarios of the default catalogue, nothing changed, by the cascade to 1 %, one in a thousand audited: HiGHS
solves these from nothing and to optimality, and an optimum outside its bracket ends the sweep. Crossed is a bracket
whose lower bound is above its plan's checked cost by more than 1e-6, or one withdrawn as contradictory. A certified gap
is that of the bracket before HiGHS. Interrupted, it counts what is there, and goes on when asked again.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
import pandas as pd

from bench.measure import machine
from rodiu_jax.errors import InputError, WorkFailed
from rodiu_jax.files import write_text
from rodiu_jax.sweeps.run import run_sweep
from rodiu_jax.sweeps.spec import SweepSpec, make_spec
from rodiu_jax.sweeps.store import iterate_rows, read_spec

_WANTED = ("sample", "lower_bound", "upper_bound", "certified_lower_bound", "status", "method", "nodes")


def specification(samples: int, seed: int) -> SweepSpec:
    """The sweep: one point, at which nothing changes."""
    return make_spec(
        {
            "name": "truth",
            "title": "Scenarios of the default catalogue, bracketed and audited",
            "question": "Is every bracket valid?",
            "catalog": "seed",
            "samples": samples,
            "seed": seed,
            "method": "cascade",
            "gap": 0.01,
            "audit": 0.001,
            "factors": [{"field": "gpu_price", "scale": [1.0]}],
        }
    )


def counted(folder: Path) -> tuple[str, bool]:
    """What a sweep's folder holds as a Markdown table, and whether all its brackets are valid."""
    spec = read_spec(folder)
    rows = pd.concat(iterate_rows(folder, columns=_WANTED), ignore_index=True)
    sample, lower, upper, certified, status, method, nodes = (rows[n].to_numpy() for n in _WANTED)
    crossed = int(((lower > upper * (1 + 1e-6)) | (status == "error")).sum())
    proven = np.isin(status, ["optimal", "gap_limit", "infeasible"])
    audited = spec.audited(0, spec.rows)[sample]
    confirmed = audited & (method == "bracket+exact") & proven
    gap = np.where(np.isfinite(upper), (upper - certified) / np.abs(upper), 0.0)
    widest = int(gap.argmax())
    told = {
        "seed": spec.seed,
        "scenarios": f"{len(rows):,}",
        "crossed": crossed,
        "audits": f"{int(audited.sum()):,}",
        "inside their bracket": f"{int(confirmed.sum()):,}",
        "proven to 1 %": f"{int(proven.sum()):,}",
        "by HiGHS": f"{int(((method != 'bracket') & ~audited).sum()):,}",
        "infeasible": f"{int((status == 'infeasible').sum()):,}",
        "certified gap, mean": f"{gap.mean():.3%}",
        "p99": f"{np.quantile(gap, 0.99):.3%}",
        "largest": f"{gap[widest]:.3%}",
        "of scenario": f"{sample[widest]:,} ({nodes[widest]} nodes)",
    }
    lines = ["| " + " | ".join(told) + " |", "|" + "--:|" * len(told)]
    lines.append("| " + " | ".join(map(str, told.values())) + " |")
    return "\n".join(lines), crossed == 0 and bool((audited == confirmed).all())


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--samples", default=10**6, show_default=True, type=click.IntRange(min=1), help="Scenarios.")
@click.option("--seed", default=1, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Write the table to a file.")
def main(folder: Path, samples: int, seed: int, out: Path | None) -> None:
    """Bracket and audit very many default scenarios, rows in FOLDER, and count what is wrong."""
    failed = ""
    try:
        run_sweep(specification(samples, seed), folder, resume=folder.exists())
    except InputError as error:
        raise click.UsageError(str(error)) from None
    except WorkFailed as error:
        failed = str(error)
        click.echo(failed, err=True)
    table, right = counted(folder)
    text = "\n\n".join(
        [
            "# Brackets of very many scenarios",
            machine(),
            " ".join((__doc__ or "").split("\n\n", 1)[1].split()),
            table,
        ]
    )
    click.echo(text)
    if out is not None:
        write_text(out, text + "\n")
    if failed or not right:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
