"""The registered benchmarks: what each builds, its sizes, its peers, how it knows that results are right."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd

from bench.commands import growth as _growth
from bench.commands import start as _start
from bench.inputs import RENTED, random_plans
from bench.measure import Case, Side, Spec, xla_counts
from bench.peers import published, relaxation, routing, scipy_relaxation, workers
from bench.plans import cases as _plans
from bench.starts import cases as _starts
from rodiu_jax.catalog import load_catalog, sampling
from rodiu_jax.decisions.choose.candidates import neighbours, triples_near
from rodiu_jax.decisions.stress.draws import BINS, draw_tally, mean_share
from rodiu_jax.decisions.stress.linear_forms import expose
from rodiu_jax.model.evaluation import _chunk_size, _score_block, evaluate, score_crossed, score_pairs
from rodiu_jax.model.fields import FIELD_SPECS
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import DeployedPair, PlanArrays, deployed_triples, plan_arrays
from rodiu_jax.model.tolerances import MARGIN_TOLERANCE
from rodiu_jax.model.verdict import COSTS
from rodiu_jax.sweeps import load_spec, preset_names, read_rows
from rodiu_jax.sweeps.given_plans import evaluated
from rodiu_jax.sweeps.method_table import METHODS
from rodiu_jax.sweeps.run import run_sweep
from rodiu_jax.sweeps.scenarios import scenarios
from rodiu_jax.sweeps.spec import make_spec
from solvers import dual, pool
from solvers.bracket import Effort
from solvers.cascade import cascade
from solvers.highs import solve_instance
from solvers.recourse import recourse
from tests.oracles.numpy_batch_sampler import sample_batch
from tests.oracles.numpy_evaluator import dense_plan, evaluate_one
from tests.oracles.numpy_sampler import sample_one
from tests.oracles.numpy_stress import Counts, stress_one

_ONE_BY_ONE = 400
"""Items a slow peer does per repeat; its rate is per item."""

_MOST_LPS, _MOST_MILPS = 512, 256
"""The same for peers that solve."""


def _counted(function: Any, items: int, what: str, *args: Any, **static: Any) -> str:
    """Bytes and operations per item that XLA counts in the compiled program for these arguments."""
    with jax.enable_x64(True):
        bytes_, operations = xla_counts(function, *args, **static) / items
    return f"{bytes_:,.0f} bytes read and written, {operations:,.0f} operations per {what}"


# ---- sampling ----


@contextmanager
def _sampling(n: int) -> Iterator[Iterator[Case]]:
    catalog = load_catalog("seed")
    few = min(n, _ONE_BY_ONE)

    def ours() -> Instances:
        return sampling.sample(catalog, n=n, seed=1)

    def one_by_one() -> list[dict[str, Any]]:
        rng = np.random.default_rng(1)
        return [sample_one(rng) for _ in range(few)]

    def batch() -> dict[str, np.ndarray]:
        return sample_batch(np.random.default_rng(2), n)

    def quality(results: Sequence[Any]) -> tuple[bool, str]:
        drawn, single, vectorised = results
        drawn.with_fields()  # validated anew; raises
        fields = drawn.fields._asdict()
        assert set(drawn.batched) == set(vectorised), "both draw the same fields"
        far = [
            np.max(_deviations(fields[name], other)).item()
            for name in sorted(vectorised)
            for other in (vectorised[name], np.stack([s[name] for s in single]))
        ]
        return max(far) < 6.0, f"{n:,} valid; means within {max(far):.1f} standard errors of the peers'"

    drawn = [name for name in FIELD_SPECS if name in catalog.varying]
    program, params = sampling._compiled(catalog, drawn)
    size = sampling._chunk_size(catalog, drawn)
    numbers = (params, np.zeros(2, np.uint32), np.uint32(0))
    counted = _counted(sampling._draw, size, "scenario", *numbers, program=program, size=size)
    sides = (
        Side("rodiu sample", ours, n),
        Side("NumPy, one by one", one_by_one, few, target=5),
        Side("NumPy, in batch", batch, n),
    )
    yield iter([Case(f"{n:,} scenarios", sides, quality, counted)])


def _deviations(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Difference of the means over the first axis in standard errors, entry by entry."""
    error = np.sqrt(a.var(0) / len(a) + b.var(0) / len(b))
    return np.abs(a.mean(0) - b.mean(0)) / error


# ---- evaluation ----


@contextmanager
def _evaluation(n: int) -> Iterator[Iterator[Case]]:
    instances = sampling.sample("seed", n=n, seed=4)
    yield iter([_pairwise(instances), _crossed(instances), _from_plans(instances)])


def _agreement(ours: np.ndarray, feasible: np.ndarray, peer: Sequence[Any]) -> tuple[bool, str]:
    """Largest relative difference of any cost, and how many verdicts differ."""
    costs = np.array([[found.costs[name] for name in COSTS] for found in peer])
    ours, feasible = ours[: len(peer)], feasible[: len(peer)]
    worst = float(np.max(np.abs(ours - costs) / np.maximum(np.abs(costs), 1e-9)))
    verdicts = np.array(
        [all((m >= -MARGIN_TOLERANCE).all() for m in found.margins.values()) for found in peer]
    )
    differ = int((feasible != verdicts).sum())
    share = f"{int(verdicts.sum())} of {len(peer)} feasible"
    return worst < 1e-9 and not differ, f"costs differ by {worst:.1e}; {differ} verdicts differ; {share}"


def _pairwise(instances: Instances) -> Case:
    n = instances.size
    plans = random_plans(instances, n, everywhere=False)
    arrays = plan_arrays(plans, instances)
    index = np.arange(n)
    few = min(n, _ONE_BY_ONE)
    ready = [(instances.one(b), dense_plan(plans[b], instances)) for b in range(few)]

    def peer() -> list[Any]:
        return [evaluate_one(fields, instances.uncertainty, plan) for fields, plan in ready]

    def quality(results: Sequence[Any]) -> tuple[bool, str]:
        scores, found = results
        return _agreement(scores.costs, (scores.margins >= -MARGIN_TOLERANCE).all(-1), found)

    size = min(_chunk_size(instances, 1), n)
    block = PlanArrays(*(a[:size, None] for a in arrays))
    counted = _counted(
        _score_block,
        size,
        "pair",
        instances.take(np.arange(size)).fields,
        block,
        uncertainty=instances.uncertainty,
        batched=instances.batched,
        crossed=False,
    )
    sides = (
        Side("score_pairs", lambda: score_pairs(instances, arrays, index, index), n),
        Side("NumPy, pair by pair", peer, few, target=10),
    )
    return Case(f"pairwise, {n:,} plans on their scenarios", sides, quality, counted)


def _crossed(instances: Instances, count: int = 64) -> Case:
    n = instances.size
    plans = random_plans(instances, count, everywhere=True)
    arrays = plan_arrays(plans, instances)
    few = min(n, _ONE_BY_ONE)
    chosen = max(
        range(count), key=lambda p: sum(plans[p].unmet.values())
    )  # some of its verdicts are positive
    dense = dense_plan(plans[chosen], instances)
    ready = [instances.one(b) for b in range(few)]

    def peer() -> list[Any]:
        return [evaluate_one(fields, instances.uncertainty, dense) for fields in ready]

    def quality(results: Sequence[Any]) -> tuple[bool, str]:
        scores, found = results
        return _agreement(scores.costs[chosen], (scores.margins[chosen] >= -MARGIN_TOLERANCE).all(-1), found)

    size = min(_chunk_size(instances, count), n)
    counted = _counted(
        _score_block,
        size * count,
        "pair",
        instances.take(np.arange(size)).fields,
        arrays,
        uncertainty=instances.uncertainty,
        batched=instances.batched,
        crossed=True,
    )
    sides = (
        Side("score_crossed", lambda: score_crossed(instances, arrays), n * count),
        Side("NumPy, pair by pair", peer, few, target=10),
    )
    return Case(f"crossed, {count} plans x {n:,} scenarios", sides, quality, counted)


def _from_plans(instances: Instances) -> Case:
    """The public function, from plans by name to a table, against the peer with its own conversion."""
    n = instances.size
    plans = random_plans(instances, n, everywhere=False)
    few = min(n, _ONE_BY_ONE)

    def peer() -> list[Any]:
        mode = instances.uncertainty
        return [
            evaluate_one(instances.one(b), mode, dense_plan(plan, instances))
            for b, plan in enumerate(plans[:few])
        ]

    def quality(results: Sequence[Any]) -> tuple[bool, str]:
        table, found = results
        return _agreement(table[list(COSTS)].to_numpy(), table["feasible"].to_numpy(), found)

    sides = (
        Side("evaluate", lambda: evaluate(plans, instances), n),
        Side("NumPy, pair by pair", peer, few),
    )
    return Case(f"from plans by name to a table, {n:,}", sides, quality)


# ---- exact ----


@contextmanager
def _exact(n: int) -> Iterator[Iterator[Case]]:
    def cases() -> Iterator[Case]:
        for catalog in ("seed", "corrected"):
            instances = sampling.sample(catalog, n=n, seed=5)
            singles = [instances.take([b]) for b in range(n)]
            sides = (
                Side("solvers.pool", partial(pool.solve, instances), n),
                Side("published", partial(peers.map, published, singles), n),
            )
            yield Case(f"{n} of {catalog}", sides, _same_optimum)

    with workers() as peers:
        yield cases()


def _same_optimum(results: Sequence[Any]) -> tuple[bool, str]:
    ours, theirs = results
    proven = sum(r.status == "optimal" for r in ours), sum(r.optimal for r in theirs)
    away = [abs(a.objective - b.objective) / abs(b.objective) for a, b in zip(ours, theirs, strict=True)]
    right = proven == (len(ours), len(theirs)) and max(away) < 1e-5
    return right, f"proven optimal: {proven[0]} and {proven[1]}; optima differ by at most {max(away):.1e}"


# ---- bound ----


@contextmanager
def _bound(n: int) -> Iterator[Iterator[Case]]:
    instances = sampling.sample("seed", n=n, seed=6)
    singles = [instances.take([b]) for b in range(min(n, _MOST_LPS))]
    chunk = n if n < 256 else 0

    def cases() -> Iterator[Case]:
        for steps in (150, 100):
            run = partial(dual.lower_bounds, instances, ascent=dual.Ascent(steps=steps), chunk=chunk)
            sides = (
                Side("lower_bounds", run, n),
                Side("HiGHS, LP by LP", partial(peers.map, relaxation, singles), len(singles)),
                Side("SciPy, LP by LP", partial(peers.map, scipy_relaxation, singles), len(singles)),
            )
            yield Case(f"{n} scenarios, {steps} steps", sides, _bound_quality)

    with workers() as peers:
        yield cases()


def _bound_quality(results: Sequence[Any]) -> tuple[bool, str]:
    optima = np.array(results[1])
    bounds = results[0].lower[: len(optima)]
    agree = all(np.allclose(other, optima, rtol=1e-6) for other in results[2:])
    proven = np.isfinite(bounds) & np.isfinite(optima)
    gaps = ((optima - bounds) / np.abs(optima))[proven]
    above = int((gaps < -1e-6).sum())
    mean, tail, most = 100 * gaps.mean(), 100 * np.quantile(gaps, 0.95), 100 * gaps.max()
    text = f"below the LP optimum by {mean:.3f} % on average, p95 {tail:.3f} %, at most {most:.3f} %"
    text += f"; {above} above it, {(~proven).sum()} not proven" + ("" if agree else "; the peers disagree")
    return bool(proven.all()) and not above and agree, text


# ---- cascade ----


@contextmanager
def _cascade(n: int) -> Iterator[Iterator[Case]]:
    def cases() -> Iterator[Case]:
        for preset in preset_names():
            spec = load_spec(preset)
            spec = spec.model_copy(update={"samples": max(16, -(-n // spec.points))})
            everything = scenarios(spec, load_catalog(spec.catalog), 0, spec.rows)
            rows = np.sort(np.random.default_rng(7).choice(spec.rows, n, replace=False))
            instances = everything.take(rows)
            yield Case(
                f"{preset}, {n} of {spec.rows}", _bracketing(instances, 0.01), partial(_same_brackets, 0.01)
            )

    yield cases()


@contextmanager
def _gap(n: int) -> Iterator[Iterator[Case]]:
    instances = sampling.sample("seed", n=n, seed=12)

    def branching(gap: float) -> Side:
        return Side("branching", lambda: list(cascade(instances, gap=gap, effort=Effort())), n)

    yield (
        Case(
            f"to {100 * gap:g} %, {n}",
            (*_bracketing(instances, gap), branching(gap)),
            partial(_same_brackets, gap),
        )
        for gap in (0.05, 0.02, 0.01, 0.005, 0.002, 0.001)
    )


def _bracketing(instances: Instances, gap: float) -> tuple[Side, ...]:
    """All scenarios by the cascade, one of them audited, and as many as it takes by the exact solver."""
    n = instances.size
    audited = np.arange(n) == n // 2
    few = instances.take(range(min(n, _MOST_MILPS)))
    return (
        Side("cascade", lambda: list(cascade(instances, gap=gap, audited=audited)), n),
        Side("exact", partial(pool.solve, few, gap=gap), few.size, target=20.0),
    )


def _same_brackets(gap: float, results: Sequence[Any]) -> tuple[bool, str]:
    ours, theirs = results[:2]
    closed = sum(r.gap <= gap for r in ours), sum(r.gap <= gap for r in theirs)
    crossed = sum(
        a.bound > b.objective * (1 + 1e-6) or b.bound > a.objective * (1 + 1e-6)
        for a, b in zip(ours, theirs, strict=False)
    )
    device = sum(r.method == "bracket" for r in ours) / len(ours)
    nodes = sum(r.nodes for r in ours) / len(ours)
    text = (
        f"closed to {100 * gap:g} %: {closed[0]} of {len(ours)} and {closed[1]} of {len(theirs)}; crossed brackets:"
        f" {crossed}; {device:.0%} without HiGHS, {nodes:.1f} nodes each"
    )
    return closed == (len(ours), len(theirs)) and not crossed, text


# ---- recourse ----


@contextmanager
def _recourse(n: int) -> Iterator[Iterator[Case]]:
    instances = sampling.sample("seed", n=n, seed=8)
    pool_of = triples_near(instances, [RENTED, (DeployedPair("Llama-3.2-1B", "H100_FP16", 1),)])
    deployments = [RENTED, *neighbours(RENTED, pool_of)[:15]]
    rng = np.random.default_rng(9)
    count = max(len(deployments) * n // 100, 32)
    which, where = rng.integers(0, len(deployments), count), rng.integers(0, n, count)
    positions = [deployed_triples(instances, deployment) for deployment in deployments]
    tasks = [(instances.take([b]), positions[q]) for q, b in zip(which, where, strict=True)]

    def quality(results: Sequence[Any]) -> tuple[bool, str]:
        found, optima = results[0], np.array(results[1])
        lower, upper = found.lower[which, where], found.upper[which, where]
        known = np.isfinite(optima)
        crossed = int(((lower > optima * (1 + 1e-6)) | (upper < optima * (1 - 1e-6)))[known].sum())
        crossed += int(np.isfinite(upper[~known]).sum())
        gap = (found.upper - found.lower) / np.abs(found.upper)
        text = f"{count} audited by the peer: {crossed} contradicted; widest bracket {100 * np.nanmax(gap):.3f} %"
        return not crossed and bool((gap <= 5e-3).all()), text

    def cases() -> Iterator[Case]:
        sides = (
            Side("recourse", partial(recourse, instances, deployments, gap=5e-3), len(deployments) * n),
            Side("HiGHS, LP by LP", partial(peers.map, routing, tasks), count, target=5),
        )
        yield Case(f"{len(deployments)} deployments x {n} scenarios", sides, quality)

    with workers() as peers:
        yield cases()


# ---- stress ----


@contextmanager
def _stress(n: int) -> Iterator[Iterator[Case]]:
    instances = sampling.sample("seed", n=4, seed=10)
    certain = instances.with_uncertainty("none")
    found = [solve_instance(certain, b).plan for b in range(instances.size)]
    plans = plan_arrays([plan for plan in found if plan is not None], instances)
    at = np.arange(len(plans.share))
    forms = expose(instances, plans, at, at, reality="ddu", seed=1).forms
    scales = np.array([0.5, 1.0, 1.5])

    def peer() -> list[Counts]:
        rng = np.random.default_rng(2)
        arrays = zip(forms.delay, forms.error, forms.money, forms.room, strict=True)
        return [stress_one(rng, *map(np.asarray, a), draws=n, scales=scales, bins=BINS) for a in arrays]

    def quality(results: Sequence[Any]) -> tuple[bool, str]:
        ours, theirs = results
        both = np.stack([ours.violations, np.stack([c.violations for c in theirs])]) / n
        pooled = both.mean(0)
        spread = np.sqrt(np.maximum(2 * pooled * (1 - pooled) / n, 1.0 / n**2))
        far = float((np.abs(both[0] - both[1]) / spread).max())
        means = np.stack([mean_share(ours, n), np.array([c.total for c in theirs]) / n])
        deviation = np.sqrt(np.array([c.square for c in theirs]) / n - means[1] ** 2)
        cost = float((np.abs(means[0] - means[1]) / (deviation * np.sqrt(2 / n))).max())
        text = f"{pooled.size} probabilities within {far:.1f} standard errors, mean costs within {cost:.1f}"
        return max(far, cost) < 6.0, text

    sides = (
        Side("rodiu stress", lambda: draw_tally(forms, draws=n, scales=scales, table=None), len(at) * n),
        Side("NumPy, in blocks", peer, len(at) * n),
    )
    yield iter([Case(f"4 plans x {n:,} draws", sides, quality)])


# ---- sweep ----


@contextmanager
def _sweep(n: int) -> Iterator[Iterator[Case]]:
    spec = load_spec("cost-budget")
    names = sampling.sample(spec.catalog, n=1).query_names
    pair = {"model": "Llama-3.1-8B", "gpu": "H100_FP16"}
    plan = {
        "deployments": [pair | {"tp": 8}],
        "routes": [pair | {"query": query, "share": 0.01} for query in names],
        "unmet": dict.fromkeys(names, 0.99),
    }
    plans = (json.dumps(plan),)
    spec = make_spec(spec.to_dict() | {"method": "evaluate", "plans": plans, "samples": -(-n // spec.points)})
    catalog = load_catalog(spec.catalog)

    def ours() -> pd.DataFrame:
        with tempfile.TemporaryDirectory() as folder:
            run_sweep(spec, Path(folder) / "out", quiet=True)
            return read_rows(Path(folder) / "out") if n <= 10_000 else pd.DataFrame()

    def alone() -> list[Any]:
        chunk = METHODS["evaluate"].chunk
        ranges = ((first, min(first + chunk, spec.rows)) for first in range(0, spec.rows, chunk))
        return [block for a, b in ranges for block in evaluated(scenarios(spec, catalog, a, b), plans)]

    def quality(results: Sequence[Any]) -> tuple[bool, str]:
        rows, blocks = results
        claimed = np.concatenate([block.columns["upper_bound"] for block in blocks])
        kept = rows["upper_bound"].to_numpy() if len(rows) else claimed
        same = np.array_equal(kept, claimed, equal_nan=True)
        return (
            same,
            f"{len(rows) or 'no'} rows read back, {int(np.isfinite(claimed).sum())} with an upper bound",
        )

    sides = (
        Side("rodiu sweep", ours, spec.rows),
        Side("method alone", alone, spec.rows),
    )
    yield iter([Case(f"{spec.rows:,} rows", sides, quality)])


SPECS = {
    spec.name: spec
    for spec in (
        Spec(
            name="sampling",
            measures="Scenarios per second drawn from the seed catalogue, host arrays in hand."
            " A batch smaller than a block (512 scenarios) pays for the whole block.",
            item="scenario",
            peers="tests/oracles/numpy_sampler.py, one call per scenario; tests/oracles/numpy_batch_sampler.py, the"
            " same formulas vectorised over blocks of the batch (it cannot redraw scenario b alone, as ours"
            " can).",
            quality="every scenario passes validation; the mean of every drawn entry against both peers', in"
            " standard errors (about 1,600 entries are compared twice: 3 to 4.5 is expected, 6 fails).",
            precision="draws and results float64 on both sides",
            by_hand="893 numbers drawn from about 1,000 threefry blocks of 120 integer operations, then about"
            " 10 float64 operations per number: 130,000 operations and 1,601 x 8 = 12,808 bytes"
            " written per scenario (XLA counts the body of the loop over names once).",
            sizes=(256, 4_096, 32_768),
            large=(1_048_576,),
            cases=_sampling,
        ),
        Spec(
            name="evaluation",
            measures="Plan x scenario pairs per second: five costs, nine margins and the binding"
            " constraint. A batch smaller than a block (2,048 pairs) pays for the whole block.",
            item="pair",
            peers="tests/oracles/numpy_evaluator.py, dense arrays, one call per pair; plans and fields are"
            " converted before the clock starts, except in the last case, which is whole on both"
            " sides.",
            quality="largest relative difference of any cost, and verdicts that differ, over the peer's"
            " pairs.",
            precision="float64 on both sides",
            by_hand="with D = 4 slots and I = 6 types 24 cells of 4 arrays are gathered (768 bytes), besides"
            " 600 of vectors, 290 of the plan and 120 of results: about 1,800 bytes; two worst cases"
            " of 6 x 4 x 4 comparisons and about 20 operations per cell: about 1,500 operations per"
            " pair.",
            sizes=(512, 16_384),
            large=(65_536,),
            cases=_evaluation,
        ),
        Spec(
            name="exact",
            measures="Scenarios per second solved to a proven optimum (gap 1e-6), on all cores, one thread"
            " each; starting our processes and checking the plans is included, starting the peer's is"
            " not.",
            item="scenario",
            peers="the published formulation (tests/oracles/published.py): the same HiGHS, gap and number of"
            " processes.",
            quality="statuses, and the largest relative difference of the optima.",
            precision="float64 on both sides",
            by_hand="tight: at most JKN (1 + I) + 2 I (1 + JK) + I = 2,418 columns, 240 of them whole;"
            " published: JK (1 + 2 N + I (3 + 2 N)) + 3 I (1 + JK) + I = 5,604 columns, 660 of them"
            " whole (60 pairs, I = 6, N = 4).",
            sizes=(1, 6),
            cases=_exact,
            repeats=3,
        ),
        Spec(
            name="bound",
            measures="Certified lower bounds per second on the seed catalogue, from a cold start.",
            item="scenario",
            peers="HiGHS solving the LP relaxation of the same formulation one by one, in as many processes"
            " as there are cores, building included.",
            quality="gap to the LP optimum, relative; a bound above it by more than 1e-6 fails.",
            precision="ours: float32 ascent, float64 certificate; peer: float64",
            by_hand="a step touches I x 16 x 4 = 384 reduced gains forwards and backwards (about 40"
            " operations each) and Adam about 350 multipliers (15 operations): 20,000 operations in"
            " 1.4 KB x 4 of state, all of which stays in the caches; the certificate does 1,440 gains"
            " once in float64. XLA's count says nothing here: the number of steps is data.",
            sizes=(32, 512),
            large=(16_384, 131_072),
            cases=_bound,
            repeats=3,
        ),
        Spec(
            name="plans",
            measures="A certified bound and a checked plan of every scenario without branching, on five families",
            item="scenario",
            peers="the certified bound alone, and the exact solver to 1e-4 in as many processes as cores.",
            quality="cost of the plans above the optimum (0.5 % on average, 1.5 % at p95 wanted); no bracket crossed.",
            precision="ascent float32, certificates, routings and the checker's costs float64; HiGHS float64",
            by_hand="as cascade, the root alone",
            sizes=(8, 200),
            cases=_plans,
            repeats=3,
        ),
        Spec(
            name="starts",
            measures="Certified lower bounds per second on rows of the four presets (16 samples), from a cold start,"
            " from the multipliers of the same sample at the grid's first point, and from a pilot (bench/starts.py)."
            " Solving neighbours and fitting the pilot are not timed, predicting is.",
            item="scenario",
            peers="each other: the first side is what the program does.",
            quality="mean gap to the LP optimum by HiGHS; a bound above it by more than 1e-6 fails.",
            precision="float32 ascent, float64 certificate",
            by_hand="as bound; a prediction is a product of 1,600 inputs and 1,200 multipliers: 4 M operations, as much"
            " as 200 steps, but in one matrix product.",
            sizes=(8, 64),
            cases=_starts,
            repeats=3,
        ),
        Spec(
            name="cascade",
            measures="Scenarios per second of the four presets (16 samples or as many as it takes, a seeded choice of"
            " rows) proven to 1 %, plans checked, one of them audited to optimality; warmed up, so compiling is not"
            " included.",
            item="scenario",
            peers="solvers.pool: the exact solver on every scenario to the same gap, all cores.",
            quality="every row closed to 1 %, no bracket of ours beside the peer's.",
            precision="ours: float32 ascent, float64 certificates and routing; peer: float64",
            by_hand="150 steps at the root and 60 at each node (see bound), and per round of plans about 30 small"
            " linear programs of 24 shares and 33 rows, 9 interior-point iterations of some 25,000 operations.",
            sizes=(8, 32, 256),
            large=(4_096,),
            cases=_cascade,
            repeats=3,
        ),
        Spec(
            name="gap",
            measures="Scenarios per second of the seed catalogue proven to a gap, plans checked, one of them audited to"
            " optimality; warmed up.",
            item="scenario",
            peers="solvers.pool: the exact solver to the same gap, all cores; the cascade that branches at any gap (on"
            " a CPU ours branches from 1 % upwards).",
            quality="every row closed to the gap, no bracket of ours beside the peer's.",
            precision="ours: float32 ascent, float64 certificates and routing; peer: float64",
            by_hand="as cascade; the smaller the gap, the more nodes.",
            sizes=(8, 128),
            cases=_gap,
            repeats=3,
        ),
        Spec(
            name="recourse",
            measures="Deployment x scenario pairs per second of the seed catalogue, routing chosen anew in each,"
            " certified to 0.5 %; compiling is not included.",
            item="pair",
            peers="HiGHS solving the routing LP of a random 1 % of the pairs one by one, in as many processes as there"
            " are cores, building included.",
            quality="every bracket at most 0.5 % wide, and none that the peer's optimum contradicts.",
            precision="float64 on both sides",
            by_hand="24 shares and 33 rows: an iteration forms 24 x 24 x 33 x 2 = 38,000 operations, factors 4,600 and"
            " solves twice; 14 iterations are 650,000 operations in 20 KB, which stay in the caches.",
            sizes=(64, 512),
            cases=_recourse,
            repeats=3,
        ),
        Spec(
            name="stress",
            measures="Draws per second of all deviations of a plan (the deterministic optimum of a default scenario),"
            " uniform, with every statistic: violations of each promise at three scales, which breaks first, the cost's"
            " moments, extremes and histogram of 4,096 bins. Making the forms is not included.",
            item="draw",
            peers="tests/oracles/numpy_stress.py: NumPy's generator and the same statistics, plan by plan in"
            " blocks of 16,384.",
            quality="every violation probability and mean cost against the peer's, in standard errors (144 are "
            "compared, most of them 0; 6 fails).",
            precision="deviations of 27 bits in float64, sums in whole numbers; peer: float64",
            by_hand="with R = 4 routes of 6 types a draw is 48 deviations from 24 threefry blocks of 120 integer"
            " operations, 12 promises at three scales and some 200 float64 operations: 3,100 operations; nothing is"
            " written but the tally.",
            sizes=(2**14, 2**18),
            large=(2**24,),
            cases=_stress,
        ),
        Spec(
            name="sweep",
            measures="Rows per second of a whole sweep with the cheapest method, one given plan evaluated everywhere:"
            " folder, scenarios, rows, Parquet (rows are read back up to 10,000). What it takes beyond the peer is the"
            " machinery, whatever the method.",
            item="row",
            peers="the same scenarios made and the same plan evaluated, chunk by chunk, and nothing kept.",
            quality="the upper bounds read back are those of the peer.",
            precision="float64 on both sides",
            by_hand="a scenario is 13 KB drawn once per sample and copied once per point; a row is 25 columns.",
            sizes=(1_000, 10_000, 100_000),
            cases=_sweep,
            repeats=3,
        ),
        Spec(
            name="growth",
            measures="Rows per second of the command `rodiu sweep`, compiling, report and page included, in a process"
            " of its own, and the most memory that it held. Timed once, as it is.",
            item="row",
            peers="none: what counts is that memory does not grow and the rate does not fall.",
            quality="every row is there.",
            precision="as sweep (evaluate) and cascade (bracket)",
            by_hand="on a CPU 4,096 scenarios of 13 KB at a time are 53 MB, 1,024 for brackets 13 MB, eight times as"
            " many on a GPU; the rest is code.",
            sizes=(1_000, 10_000, 100_000, 1_000_000),
            cases=_growth,
            repeats=0,
        ),
        Spec(
            name="start",
            measures="Rows per second of the whole command `rodiu sweep cost-budget` with programs that an earlier one"
            " compiled and kept.",
            item="row",
            peers="the same with an empty cache folder.",
            quality="both give the same rows.",
            precision="as cascade",
            by_hand="some 25 programs of 0.1 to 2 s of compiling each.",
            sizes=(30, 120),
            cases=_start,
            repeats=3,
        ),
    )
}
