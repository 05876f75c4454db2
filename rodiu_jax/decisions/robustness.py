"""What robustness costs and what it buys: cost and violation probability over Gamma, and what pairing is worth.

Every scenario is solved at every Gamma (of delays and errors alike), once with deviations that pairing shrinks
(``ddu``) and once without (``diu``). Each plan then meets the same draws of deviations. Where replicas sustain limited
rates, the same is asked of the budget of their shortfalls (`rodiu_jax.decisions.rate_robustness`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float64, Int64

from rodiu_jax.analysis.intervals import bertsimas_sim, clopper_pearson
from rodiu_jax.decisions.rate_robustness import FACTORS, RateRobustness, compare_rates
from rodiu_jax.decisions.stress.linear_forms import Forms, expose
from rodiu_jax.decisions.stress.tally import PAIRS_AT_ONCE, draw_tally, mean_share, quantile_table
from rodiu_jax.errors import InputError, WorkFailed
from rodiu_jax.model.evaluation import score_pairs
from rodiu_jax.model.fields import has_rates
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.npz import load_instances
from rodiu_jax.model.plan import Plan, plan_arrays
from rodiu_jax.model.plan_columns import deployment_texts
from rodiu_jax.model.tolerances import MARGIN_TOLERANCE
from rodiu_jax.runtime.progress import Bar, progress
from rodiu_jax.sweeps.method_table import METHODS
from solvers.answers import Answers, gather_answers

if TYPE_CHECKING:
    import pandas as pd

MODES = ("ddu", "diu")

_GAMMAS = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 6.0, 10.0)

_BETA = (2.0, 5.0)
"""Parameters of the beta distribution of deviations."""


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
      rates: what robust rates cost and buy; None where scenarios have no rates.
    """

    curve: pd.DataFrame
    scenarios: pd.DataFrame
    value: pd.DataFrame
    recommended: float | None
    guaranteed: float | None
    settings: dict[str, Any]
    rates: RateRobustness | None = None


def read_instances(source: str | Path) -> Instances:
    """Read the scenarios of an ``.npz``, or make every row of a sweep's spec (a preset's name or a TOML file)."""
    if Path(source).suffix == ".npz":
        return load_instances(source)
    from rodiu_jax.catalog import load_catalog
    from rodiu_jax.sweeps.scenarios import scenarios
    from rodiu_jax.sweeps.spec import load_spec

    spec = load_spec(source)
    return scenarios(spec, load_catalog(spec.catalog, source=source, key="catalog"), 0, spec.rows)


def default_gammas(instances: Instances) -> list[float]:
    """Return numbers from 0 to J x K, closest where plans of a few pairs feel it."""
    _, models, gpus, _ = instances.shape
    most = float(models * gpus)
    return [*(g for g in _GAMMAS if g < most), most]


def robustness(
    instances: Instances,
    *,
    gammas: Sequence[float] | None = None,
    probability: float = 0.05,
    method: str = "exact",
    gap: float | None = None,
    time_limit: float = math.inf,
    draws: int = 100_000,
    confidence: float = 0.95,
    seed: int = 0,
    workers: int | None = None,
    quiet: bool = True,
) -> Robustness:
    """Compute cost and violation probability over Gamma, and the value of modelling decision dependence.

    Deviations turn out as the scenarios' mode says (``ddu`` where it is ``none``).

    Args:
      gammas: from 0 to J x K, fractional allowed; `default_gammas` by default.
      probability: promised: at most this share of periods may break a promise.
      method: a name of `METHODS` that solves: ``exact`` (HiGHS), ``bracket`` (on the device, for many scenarios), or
        ``cascade``.
      gap: relative gap of each optimum; the method's own by default.
      time_limit, workers: of HiGHS; its workers are spawned processes.
      draws: per plan and distribution.
      confidence: of the exact intervals.

    Raises:
      InputError: a bad argument.
      WorkFailed: no scenario has a plan at every Gamma.
    """
    levels = sorted({float(g) for g in (default_gammas(instances) if gammas is None else gammas)})
    _check(instances, levels, method, gap, draws, {"probability": probability, "confidence": confidence})
    reality = "ddu" if instances.uncertainty == "none" else instances.uncertainty
    grid = _Grid.of(instances, levels)

    with progress("robustness", len(MODES) * grid.batch.size, quiet=quiet) as bar:
        how = {"gap": gap, "time_limit": time_limit, "workers": workers}
        by_mode = [_answer(grid.batch.with_uncertainty(mode), method, bar, **how) for mode in MODES]
    planned = np.all([answers.has_plan for answers in by_mode], axis=0).reshape(len(levels), -1).all(0)  # B
    if not planned.any():
        raise WorkFailed("no scenario has a plan at every Gamma")
    at = np.flatnonzero(planned[grid.scenario])  # positions in the grid that count
    parts, plans = [], []
    for mode, answers in zip(MODES, by_mode, strict=True):
        answers = answers.take(at)
        plans.append([p for p in answers.plans(grid.scenario[at].tolist()) if p is not None])
        parts.append(
            {
                "mode": np.full(len(at), mode),
                "gamma": grid.gamma[at],
                "instance": grid.scenario[at],
                "lower_bound": answers.lower,
                "upper_bound": answers.upper,
                "deployments": np.array(deployment_texts(answers.names, answers.slots, answers.replicas)),
            }
        )
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    with progress("stress", len(columns["mode"]), quiet=quiet) as bar:
        counted = _draw(
            plans[0] + plans[1],
            instances,
            reality,
            draws=draws,
            seed=seed,
            report=lambda n: bar.advance(count=n),
        )
    rates = None
    if has_rates(instances.fields):
        rate_levels = [g for g in levels if g <= len(instances.query_names)] or [0.0]
        with progress("robust rates", (len(rate_levels) + len(FACTORS)) * instances.size, quiet=quiet) as bar:
            rates = compare_rates(
                instances,
                rate_levels,
                solve=lambda batch: _answer(batch, method, bar, **how),
                reality=reality,
                draws=draws,
                confidence=confidence,
                seed=seed,
            )
    columns |= counted.columns | _bound(counted.deviating, columns["gamma"])
    if reality == "diu":  # ddu plans are protected against less than what happens
        for name in ("bound", "bertsimas_sim"):
            columns[name] = np.where(columns["mode"] == "ddu", 1.0, columns[name])
    import pandas as pd

    curve = _curve(columns, draws, confidence)
    main = [row for row in curve if row["mode"] == reality]
    measured = [r["gamma"] for r in main if max(r["uniform_upper"], r["beta_upper"]) <= probability]
    proven = [r["gamma"] for r in main if r["bound"] <= probability]
    return Robustness(
        curve=pd.DataFrame(curve),
        scenarios=pd.DataFrame(columns),
        value=pd.DataFrame(_value(columns, plans[1], grid.batch.with_uncertainty("ddu"), at)),
        recommended=min(measured, default=None),
        guaranteed=min(proven, default=None),
        settings={
            "mode": reality,
            "probability": probability,
            "draws": draws,
            "seed": seed,
            "confidence": confidence,
            "method": method,
            "scenarios": int(planned.sum()),
            "left_out": int((~planned).sum()),
        },
        rates=rates,
    )


@dataclass(frozen=True)
class _Grid:
    """Every scenario at every Gamma, the scenario moving fastest: which Gamma and scenario stand at each position."""

    batch: Instances
    gamma: Float64[np.ndarray, " GB"]
    scenario: Int64[np.ndarray, " GB"]

    @classmethod
    def of(cls, instances: Instances, levels: Sequence[float]) -> _Grid:
        scenario = np.tile(np.arange(instances.size), len(levels))
        gamma = np.repeat(np.array(levels), instances.size)
        batch = instances.take(scenario).with_fields(gamma_delay=gamma, gamma_error=gamma)
        return cls(batch, gamma, scenario)


def _check(
    instances: Instances,
    levels: list[float],
    method: str,
    gap: float | None,
    draws: int,
    shares: dict[str, float],
) -> None:
    """Refuse a bad argument; ``shares`` are numbers above 0 and below 1 by the argument's name."""
    _, models, gpus, _ = instances.shape
    most = models * gpus
    bad = [g for g in levels if not 0 <= g <= most]
    if not levels or bad:
        raise InputError("robustness", "gammas", f"numbers from 0 to {most} (models x GPUs)", bad or levels)
    for name, value in shares.items():
        if not 0 < value < 1:
            raise InputError("robustness", name, "a number above 0 and below 1", value)
    if draws < 1:
        raise InputError("robustness", "draws", "a whole number >= 1", draws)
    if gap is not None and not 0 <= gap <= 1:
        raise InputError("robustness", "gap", "a number from 0 to 1", gap)
    able = [name for name, info in METHODS.items() if info.solves]
    if method not in able:
        raise InputError("robustness", "method", f"one of {', '.join(able)}", method)


def _answer(
    batch: Instances,
    method: str,
    bar: Bar,
    *,
    gap: float | None,
    time_limit: float,
    workers: int | None,
) -> Answers:
    """Give every scenario to a method of the table, and count its answers on the bar."""
    info = METHODS[method]
    parts = info.load()(
        batch,
        gap=info.gap if gap is None else gap,
        time_limit=time_limit,
        workers=workers,
        audited=np.zeros(batch.size, bool),
        exact="gap",
        certificates=False,
        plans=(),
    )
    return gather_answers(parts, bar, names=batch.names)


@dataclass(frozen=True)
class _Counted:
    """What draws of deviations did to R plans: counts of draws that break a promise and the mean cost, by name.

    Attributes:
      deviating: how many deviations a promise bears, 0 where it bears all of them at once.
    """

    columns: dict[str, Float64[np.ndarray, " R"]]
    deviating: Int64[np.ndarray, "R promises"]


def _draw(
    plans: list[Plan],
    instances: Instances,
    reality: str,
    *,
    draws: int,
    seed: int,
    report: Callable[[int], None],
) -> _Counted:
    """Draw deviations for every plan; equal plans, to which many Gammas lead, meet them once."""
    arrays = plan_arrays(plans, instances)
    routes = int((arrays.share > 0).sum(-1).max(initial=1))
    first: dict[Any, int] = {}
    same = np.array([first.setdefault((p.instance, p.deployments, p.routes), m) for m, p in enumerate(plans)])
    distinct, repeats = np.unique(same, return_counts=True)
    scenario = np.array([p.instance for p in plans], np.int64)
    scale, table = np.ones(1), quantile_table(_BETA)
    columns = {name: np.zeros(len(plans)) for name in ("uniform", "beta", "symmetric", "realised_cost")}
    deviating = np.zeros((len(plans), 2 * len(instances.query_names)), np.int64)
    parts = -(-len(distinct) // PAIRS_AT_ONCE)
    for block, times in zip(np.array_split(distinct, parts), np.array_split(repeats, parts), strict=True):
        exposure = expose(
            instances, arrays, block, scenario[block], reality=reality, seed=seed, routes=routes
        )
        forms = _without_rates(exposure.forms)
        uniform, beta, symmetric = (
            draw_tally(f, draws=draws, scales=scale, table=t)
            for f, t in ((forms, None), (forms, table), (_symmetric(forms), None))
        )
        columns["uniform"][block] = uniform.any_violation[:, 0]
        columns["beta"][block] = beta.any_violation[:, 0]
        columns["symmetric"][block] = symmetric.any_violation[:, 0]
        columns["realised_cost"][block] = exposure.nominal_cost + exposure.swing * mean_share(uniform, draws)
        total = np.concatenate([forms.delay.sum(-1), forms.error.sum(-1)], axis=1)
        count = np.concatenate([(forms.delay > 0).sum(-1), (forms.error > 0).sum(-1)], axis=1)
        deviating[block] = np.where(total > forms.room, count, 0)
        report(int(times.sum()))
    return _Counted({name: values[same] for name, values in columns.items()}, deviating[same])


def _bound(
    deviating: Int64[np.ndarray, "R promises"], gamma: Float64[np.ndarray, " R"]
) -> dict[str, Float64[np.ndarray, " R"]]:
    """Return the proven bounds of the probability that a plan protected with ``gamma`` breaks any promise."""
    n, g = deviating, gamma[:, None]
    return {
        "bound": np.minimum(bertsimas_sim(n, np.where(g >= n, n, 2 * g - n)).sum(1), 1.0),
        "bertsimas_sim": np.minimum(bertsimas_sim(n, g).sum(1), 1.0),
    }


def _without_rates(forms: Forms) -> Forms:
    """Return the forms of delays and errors alone."""
    promises = 2 * forms.delay.shape[1]
    return forms._replace(room=forms.room[:, :promises], load_key0=None, load_key1=None, load=None)


def _symmetric(forms: Forms) -> Forms:
    """Return the same routes with xi on [-1, 1]: 2 xi - 1 with xi on [0, 1], the constant moved into the room."""
    constant = np.concatenate([forms.delay.sum(-1), forms.error.sum(-1)], axis=1)
    return forms._replace(delay=2 * forms.delay, error=2 * forms.error, room=forms.room + constant)


def _curve(columns: dict[str, np.ndarray], draws: int, confidence: float) -> list[dict[str, Any]]:
    """Return means over scenarios; the interval of a mean of probabilities is that of the pooled draws.

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
    columns: dict[str, np.ndarray], plans: list[Plan], shrinking: Instances, rows: Int64[np.ndarray, " R"]
) -> list[dict[str, float]]:
    """Compare what the diu plans cost where pairing shrinks deviations with the ddu optimum; means over scenarios.

    Args:
      plans: the diu plans, in the order of ``rows``.
      shrinking: the scenarios at every Gamma under ddu; ``rows`` are the plans' positions there.
    """
    naive = [replace(p, instance=int(r)) for p, r in zip(plans, rows, strict=True)]
    scores = score_pairs(shrinking, plan_arrays(naive, shrinking), np.arange(len(naive)), rows)
    cost = np.asarray(scores.costs)[:, 0]
    kept = np.all(np.asarray(scores.margins) >= -MARGIN_TOLERANCE, axis=1)
    optimal = {n: columns[n][columns["mode"] == "ddu"] for n in ("gamma", "lower_bound", "upper_bound")}
    table = []
    for gamma in np.unique(optimal["gamma"]).tolist():
        at = optimal["gamma"] == gamma
        lower, upper = (float(optimal[n][at].mean()) for n in ("lower_bound", "upper_bound"))
        mean = float(cost[at].mean())
        table.append(
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
    return table
