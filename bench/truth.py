"""``python -m bench.truth FOLDER``: is every bracket of very many default scenarios valid?

A sweep of scenarios of the default catalogue, nothing changed, by the cascade to 1 %, one in a thousand audited: HiGHS
solves these from nothing and to optimality, and an optimum outside its bracket ends the sweep. Confirmed is an audit
that HiGHS did end so. Withdrawn is a bracket whose lower bound came out above the checked cost of its own plan (by more
than 1e-5), or not as a number. The certified gap is the bracket's lower bound below the cost of the final plan, which
HiGHS may have improved. Interrupted, it counts what is there, and goes on when asked again.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
import pandas as pd

from bench.measure import describe_this_machine
from bench.records import Study
from bench.study import out_option, read_words, show_study
from rodiu_jax.errors import InputError, WorkFailed
from rodiu_jax.sweeps.run import RunOptions, run_sweep
from rodiu_jax.sweeps.spec import SweepSpec, make_spec
from rodiu_jax.sweeps.store import iterate_rows, read_spec

_WANTED = (
    "sample",
    "upper_bound",
    "certified_lower_bound",
    "status",
    "method",
    "nodes",
    "message",
)


def specification(samples: int, seed: int) -> SweepSpec:
    """Return the sweep: one point, at which nothing changes."""
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


def count_rows(folder: Path) -> tuple[dict[str, str | int], bool]:
    """Return what a sweep's folder holds, by name, and whether all its brackets are valid.

    Raises:
      InputError: no sweep there.
    """
    spec = read_spec(folder)
    parts = list(iterate_rows(folder, columns=_WANTED))
    if not parts:
        return {}, False
    sample, upper, certified, status, method, nodes, message = (
        np.concatenate([part[name].to_numpy() for part in parts]) for name in _WANTED
    )
    withdrawn = np.isnan(certified) & (status != "infeasible")
    audited = spec.audited(0, spec.rows)[sample]
    solved = (method == "bracket+exact") & pd.isna(message)
    confirmed = audited & solved & np.isin(status, ["optimal", "infeasible"]) & ~withdrawn
    failed = int((status == "error").sum())
    gap = (upper - certified) / np.abs(upper)
    known = np.isfinite(gap)
    widest = int(np.where(known, gap, -1.0).argmax())
    figures: dict[str, str | int] = {
        "seed": spec.seed,
        "scenarios": f"{len(sample):,} of {spec.rows:,}",
        "withdrawn": int(withdrawn.sum()),
        "without an answer": failed,
        "audits": f"{int(audited.sum()):,}",
        "confirmed": f"{int(confirmed.sum()):,}",
        "others by HiGHS": f"{int(((method != 'bracket') & ~audited).sum()):,}",
        "infeasible": f"{int((status == 'infeasible').sum()):,}",
        "certified gap, mean": f"{gap[known].mean():.3%}",
        "p99": f"{np.quantile(gap[known], 0.99):.3%}",
        "largest": f"{gap[widest]:.3%}",
        "of scenario": f"{sample[widest]:,} ({nodes[widest]} nodes)",
    }
    right = not withdrawn.any() and not failed and bool((audited == confirmed).all())
    return figures, right


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--samples", default=10**6, show_default=True, type=click.IntRange(min=1), help="Scenarios.")
@click.option("--seed", default=1, show_default=True)
@out_option
def main(folder: Path, samples: int, seed: int, out: Path | None) -> None:
    """Bracket and audit very many default scenarios, rows in FOLDER, and count what is wrong."""
    machine = describe_this_machine()
    study = Study(name="truth", title="Brackets of very many scenarios", words=read_words(__doc__))
    try:
        run_sweep(specification(samples, seed), folder, RunOptions(resume=folder.exists()))
    except InputError as error:
        raise click.UsageError(str(error)) from None
    except WorkFailed as error:
        study.notes.append(f"Ended early: {error}.")
    figures, right = count_rows(folder)
    study.columns, study.rows = list(figures), [list(figures.values())] if figures else []
    if not figures:
        study.notes.append("No rows yet.")
    show_study(study, machine, out, right=right and not study.notes)


if __name__ == "__main__":
    main()
