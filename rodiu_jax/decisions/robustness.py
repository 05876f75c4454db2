"""What robustness costs and what it buys: cost and violation probability over Gamma, and what pairing is worth.

Every scenario is solved at every Gamma (of delays and errors alike), once with deviations that pairing shrinks
(``ddu``) and once without (``diu``). Each plan then meets the same draws of deviations.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from rodiu_jax.analysis.intervals import bertsimas_sim, clopper_pearson
from rodiu_jax.decisions.stress.linear_forms import Forms, expose
from rodiu_jax.decisions.stress.tally import draw_tally, mean_share, pairs_at_once, quantile_table
from rodiu_jax.errors import InputError, WorkFailed
from rodiu_jax.model.evaluation import score_pairs
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.npz import load_instances
from rodiu_jax.model.plan import Plan, plan_arrays
from rodiu_jax.model.plan_columns import deployment_texts
from rodiu_jax.model.tolerances import CASCADE_GAP, MARGIN_TOLERANCE, OPTIMAL_GAP
from rodiu_jax.runtime.progress import Bar, progress
from solvers.answers import Answers, report_progress

if TYPE_CHECKING:
    import pandas as pd

Method = Literal["exact", "bracket"]

MODES = ("ddu", "diu")

_GRID = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 6.0, 10.0)


@dataclass(frozen=True)
class Robustness:
    """What `robustness` found; costs in $ per period.

    Attributes:
      curve: a row per ``mode`` and ``gamma``, means over the scenarios that have a plan in all of them:
        ``lower_bound``, ``upper_bound``; ``price_lower``, ``price_upper`` (more than at the smallest Gamma);
        ``realised_cost`` (mean over uniform deviations); the share of periods in which some promise breaks, for
        ``uniform``, ``beta`` and ``symmetric`` deviations (xi uniform on [-1, 1]), each with its exact interval
        (``uniform_lower``, ...); ``uniform_worst`` (of the worst scenario); ``bound`` (proven for any xi on [0, 1]
        symmetric about 1/2 or smaller) and ``bertsimas_sim`` (theirs, for any xi symmetric about 0 on [-1, 1]), both
        summed over the promises and averaged over scenarios.
      scenarios: the same per ``mode``, ``gamma`` and ``instance``, with ``deployments``.
      value: a row per ``gamma``: what the diu plan costs in the worst case when pairing does shrink deviations
        (``diu_plan_cost``), the optimum then (``lower_bound``, ``upper_bound``), and the difference, the value of
        modelling it (``value_lower``, ``value_upper``); ``kept`` is the share of scenarios where it is feasible.
      recommended: the smallest Gamma at which the measured probability is at most the one promised, by the upper end of
        its interval, for uniform and beta deviations; None where none is.
      guaranteed: the smallest Gamma at which ``bound`` is; None where none is.
      settings: mode (of the scenarios), probability, draws, seed, confidence, scenarios, left_out.
    """

    curve: pd.DataFrame
    scenarios: pd.DataFrame
    value: pd.DataFrame
    recommended: float | None
    guaranteed: float | None
    settings: dict[str, Any]


def read_instances(source: str | Path) -> Instances:
    """The scenarios of an ``.npz``, or every row of a sweep's spec (a preset's name or a TOML file)."""
    if Path(source).suffix == ".npz":
        return load_instances(source)
    from rodiu_jax.catalog import load_catalog
    from rodiu_jax.sweeps.scenarios import scenarios
    from rodiu_jax.sweeps.spec import load_spec

    spec = load_spec(source)
    return scenarios(spec, load_catalog(spec.catalog, source=source, key="catalog"), 0, spec.rows)


def default_gammas(instances: Instances) -> list[float]:
    """From 0 to J x K, closest where plans of a few pairs feel it."""
    _, models, gpus, _ = instances.shape
    most = float(models * gpus)
    return [*(g for g in _GRID if g < most), most]


def robustness(
    instances: Instances,
    *,
    gammas: Sequence[float] | None = None,
    probability: float = 0.05,
    method: Method = "exact",
    gap: float | None = None,
    time_limit: float = math.inf,
    draws: int = 100_000,
    confidence: float = 0.95,
    seed: int = 0,
    workers: int | None = None,
    quiet: bool = True,
) -> Robustness:
    """The curve of cost and violation probability over Gamma, and the value of modelling decision dependence.

    Deviations turn out as the scenarios' mode says (``ddu`` where it is ``none``).

    Args:
      gammas: from 0 to J x K, fractional allowed; `default_gammas` by default.
      probability: promised: at most this share of periods may break a promise.
      method: ``exact`` (HiGHS), or ``bracket`` (on the device, for many scenarios).
      gap: relative gap of each optimum; by default 1e-6 for ``exact``, 0.01 for ``bracket``.
      time_limit, workers: for ``exact``; its workers are spawned processes.
      draws: per plan and distribution.
      confidence: of the exact intervals.

    Raises:
      InputError: a bad argument.
      WorkFailed: no scenario has a plan at every Gamma.
    """
    grid = sorted({float(g) for g in (default_gammas(instances) if gammas is None else gammas)})
    _check(instances, grid, probability, draws, confidence, gap)
    reality = "ddu" if instances.uncertainty == "none" else instances.uncertainty
    size, count = instances.size, len(grid)
    batch = instances.take(np.tile(np.arange(size), count))
    level = np.repeat(grid, size)
    batch = batch.with_fields(gamma_delay=level, gamma_error=level)
    with progress("robustness", len(MODES) * batch.size, quiet=quiet) as bar:
        parts = [
            _answer(batch.with_uncertainty(mode), method, gap, time_limit, workers, bar) for mode in MODES
        ]
    answers = Answers.concatenate(parts, names=batch.names)  # by mode, then Gamma, then scenario
    held = answers.has_plan.reshape(-1, size).all(0)
    if not held.any():
        raise WorkFailed("no scenario has a plan at every Gamma")
    keep = np.flatnonzero(np.tile(held, len(MODES) * count))
    answers = answers.take(keep)
    chosen = [plan for plan in answers.plans((keep % size).tolist()) if plan is not None]
    columns: dict[str, np.ndarray] = {
        "mode": np.repeat(np.array(MODES), batch.size)[keep],
        "gamma": np.tile(level, len(MODES))[keep],
        "instance": keep % size,
        "lower_bound": answers.lower,
        "upper_bound": answers.upper,
        "deployments": np.array(deployment_texts(answers.names, answers.slots)),
    }
    columns |= _measured(chosen, columns["gamma"], instances, reality, draws, seed, quiet=quiet)
    if reality == "diu":  # ddu plans are protected against less than what happens
        for name in ("bound", "bertsimas_sim"):
            columns[name] = np.where(columns["mode"] == "ddu", 1.0, columns[name])
    import pandas as pd

    curve = _curve(columns, draws, confidence)
    main = [row for row in curve if row["mode"] == reality]
    measured_at = [r["gamma"] for r in main if max(r["uniform_upper"], r["beta_upper"]) <= probability]
    proven_at = [r["gamma"] for r in main if r["bound"] <= probability]
    half = len(keep) // 2  # ddu, then diu
    value = _value(columns, chosen[half:], batch.with_uncertainty("ddu"), keep[:half])
    return Robustness(
        pd.DataFrame(curve),
        pd.DataFrame(columns),
        pd.DataFrame(value),
        min(measured_at, default=None),
        min(proven_at, default=None),
        {
            "mode": reality,
            "probability": probability,
            "draws": draws,
            "seed": seed,
            "confidence": confidence,
            "method": method,
            "scenarios": int(held.sum()),
            "left_out": int((~held).sum()),
        },
    )


def _check(
    instances: Instances,
    grid: list[float],
    probability: float,
    draws: int,
    confidence: float,
    gap: float | None,
) -> None:
    _, models, gpus, _ = instances.shape
    most = models * gpus
    bad = [g for g in grid if not 0 <= g <= most]
    if not grid or bad:
        raise InputError("robustness", "gammas", f"numbers from 0 to {most} (models x GPUs)", bad or grid)
    for name, value in (("probability", probability), ("confidence", confidence)):
        if not 0 < value < 1:
            raise InputError("robustness", name, "a number above 0 and below 1", value)
    if draws < 1:
        raise InputError("robustness", "draws", "a whole number >= 1", draws)
    if gap is not None and not 0 <= gap <= 1:
        raise InputError("robustness", "gap", "a number from 0 to 1", gap)


def _answer(
    batch: Instances, method: Method, gap: float | None, time_limit: float, workers: int | None, bar: Bar
) -> Answers:
    """Bracket or solve every scenario."""
    parts = []
    for part in _answer_parts(batch, method, gap, time_limit, workers):
        parts.append(part)
        report_progress(bar, part)
    return Answers.concatenate(parts, names=batch.names)


def _answer_parts(
    batch: Instances, method: Method, gap: float | None, time_limit: float, workers: int | None
) -> Iterator[Answers]:
    if method == "bracket":
        from solvers.cascade import bracketed

        yield from bracketed(batch, gap=CASCADE_GAP if gap is None else gap)
        return
    from solvers.pool import solve_iter

    target = OPTIMAL_GAP if gap is None else gap
    for answer in solve_iter(batch, gap=target, time_limit=time_limit, workers=workers):
        yield Answers.stack([answer], names=batch.names)


def _measured(
    plans: list[Plan],
    gamma: np.ndarray,
    instances: Instances,
    reality: str,
    draws: int,
    seed: int,
    *,
    quiet: bool,
) -> dict[str, np.ndarray]:
    """Of every plan: draws that break a promise, mean cost, and the bounds of these probabilities at its Gamma."""
    arrays = plan_arrays(plans, instances)
    routes = int((arrays.share > 0).sum(-1).max(initial=1))
    first: dict[Any, int] = {}  # many Gammas lead to the same plan
    same = [first.setdefault((p.instance, p.deployments, p.routes), m) for m, p in enumerate(plans)]
    todo = np.array(sorted(set(same)))
    where = np.array([p.instance for p in plans], np.int64)
    blocks = np.array_split(todo, -(-len(todo) // pairs_at_once()))
    scale, table = np.ones(1), quantile_table((2.0, 5.0))
    names = ("uniform", "beta", "symmetric", "realised_cost")
    found = {name: np.zeros(len(plans)) for name in names}
    deviating = np.zeros((len(plans), 2 * len(instances.query_names)), np.int64)
    with progress("stress", len(todo), quiet=quiet) as bar:
        for block in blocks:
            exposure = expose(
                instances, arrays, block, where[block], reality=reality, seed=seed, routes=routes
            )
            forms = exposure.forms
            uniform = draw_tally(forms, draws=draws, scales=scale, table=None)
            found["uniform"][block] = uniform.any_violation[:, 0]
            found["realised_cost"][block] = exposure.nominal_cost + exposure.swing * mean_share(
                uniform, draws
            )
            found["beta"][block] = draw_tally(forms, draws=draws, scales=scale, table=table).any_violation[
                :, 0
            ]
            tally = draw_tally(_symmetric(forms), draws=draws, scales=scale, table=None)
            found["symmetric"][block] = tally.any_violation[:, 0]
            total = np.concatenate([forms.delay.sum(-1), forms.error.sum(-1)], axis=1)
            count = np.concatenate([(forms.delay > 0).sum(-1), (forms.error > 0).sum(-1)], axis=1)
            deviating[block] = np.where(
                total > forms.room, count, 0
            )  # the others bear every deviation at once
            for _ in block:
                bar.advance()
    result = {name: values[same] for name, values in found.items()}
    n, g = deviating[same], gamma[:, None]
    result["bound"] = np.minimum(bertsimas_sim(n, np.where(g >= n, n, 2 * g - n)).sum(1), 1.0)
    result["bertsimas_sim"] = np.minimum(bertsimas_sim(n, g).sum(1), 1.0)
    return result


def _symmetric(forms: Forms) -> Forms:
    """The same routes with xi on [-1, 1]: 2 xi - 1 with xi on [0, 1], the constant moved into the room."""
    constant = np.concatenate([forms.delay.sum(-1), forms.error.sum(-1)], axis=1)
    return forms._replace(delay=2 * forms.delay, error=2 * forms.error, room=forms.room + constant)


def _curve(columns: dict[str, np.ndarray], draws: int, confidence: float) -> list[dict[str, Any]]:
    """Means over scenarios; the interval of a mean of probabilities is that of the pooled draws.

    Draws of several scenarios are not alike, which makes their sum vary less than a binomial's: the interval holds.
    """
    rows = []
    for mode in MODES:
        least: dict[str, float] = {}
        for gamma in np.unique(columns["gamma"]).tolist():
            at = {n: a[(columns["mode"] == mode) & (columns["gamma"] == gamma)] for n, a in columns.items()}
            mean = {n: float(at[n].mean()) for n in ("lower_bound", "upper_bound", "realised_cost")}
            least = least or mean
            row: dict[str, Any] = {"mode": mode, "gamma": gamma} | mean
            row["price_lower"] = max(mean["lower_bound"] - least["upper_bound"], 0.0)
            row["price_upper"] = max(mean["upper_bound"] - least["lower_bound"], 0.0)
            for name in ("uniform", "beta", "symmetric"):
                hits, trials = at[name].sum(), draws * len(at[name])
                low, high = clopper_pearson(hits, trials, confidence)
                row |= {name: float(hits / trials), f"{name}_lower": float(low), f"{name}_upper": float(high)}
            row["uniform_worst"] = float(at["uniform"].max()) / draws
            rows.append(row | {n: float(at[n].mean()) for n in ("bound", "bertsimas_sim")})
    return rows


def _value(
    columns: dict[str, np.ndarray], plans: list[Plan], shrinking: Instances, rows: np.ndarray
) -> list[dict[str, float]]:
    """What the diu plans cost where pairing shrinks deviations, against the ddu optimum; means over scenarios.

    Args:
      plans: the diu plans, in the order of ``rows``.
      shrinking: the scenarios at every Gamma under ddu; ``rows`` are the positions kept.
    """
    naive = [replace(p, instance=int(r)) for p, r in zip(plans, rows, strict=True)]
    scores = score_pairs(shrinking, plan_arrays(naive, shrinking), np.arange(len(naive)), rows)
    cost = np.asarray(scores.costs)[:, 0]
    kept = np.all(np.asarray(scores.margins) >= -MARGIN_TOLERANCE, axis=1)
    optimal = {n: columns[n][columns["mode"] == "ddu"] for n in ("gamma", "lower_bound", "upper_bound")}
    found = []
    for gamma in np.unique(optimal["gamma"]).tolist():
        at = optimal["gamma"] == gamma
        lower, upper = (float(optimal[n][at].mean()) for n in ("lower_bound", "upper_bound"))
        mean = float(cost[at].mean())
        found.append(
            {
                "gamma": gamma,
                "diu_plan_cost": mean,
                "lower_bound": lower,
                "upper_bound": upper,
                "value_lower": max(mean - upper, 0.0),
                "value_upper": max(mean - lower, 0.0),
                "kept": float(kept[at].mean()),
            }
        )
    return found
