"""The requests that a replay sends: those of a trace, faster or slower, over some hours, or drawn at random."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float64

from rodiu_jax.catalog.readers.arrivals import MOST_REQUESTS, Arrivals
from rodiu_jax.errors import InputError
from rodiu_jax.model.instance import Instances
from rodiu_jax.runtime.threefry import hash32

RateScale = float | Literal["plan"]


@dataclass(frozen=True)
class Traffic:
    """The requests of one query type, in the order of arrival; arrays of shape N.

    Attributes:
      time: seconds.
      first, rest: tokens of prompt and answer, relative to the scenario's means.
      tokens: of prompt and answer.
      draw: uniform in [0, 1), which says where the request goes; the same under every plan.
      source: ``trace``, ``poisson`` or ``none``.
    """

    query: str
    time: Float64[np.ndarray, " N"]
    first: Float64[np.ndarray, " N"]
    rest: Float64[np.ndarray, " N"]
    tokens: Float64[np.ndarray, " N"]
    draw: Float64[np.ndarray, " N"]
    source: str


def make_traffic(
    arrivals: Arrivals | None,
    instances: Instances,
    *,
    rate_scale: RateScale = 1.0,
    hours: float | None = None,
    others: bool = False,
    seed: int = 0,
) -> tuple[list[Traffic], float]:
    """Make the requests of every query type of scenario 0.

    Times of a trace are divided by ``rate_scale``; ``plan`` gives each type the factor with which its mean rate is the
    scenario's. A trace that is then shorter than ``hours`` begins anew, a longer one is cut. Types without a request in
    the trace have none, or with ``others`` (and without a trace) arrive at random at the scenario's rate times
    ``rate_scale``, each request of mean lengths.

    Returns:
      The traffic, and its seconds.

    Raises:
      InputError: a scale or hours that are no number above 0, or too many requests.
    """
    if rate_scale != "plan" and not (isinstance(rate_scale, int | float) and 0 < rate_scale < math.inf):
        raise InputError("replay", "rate_scale", "a number above 0, or plan", rate_scale)
    if hours is not None and not 0 < hours < math.inf:
        raise InputError("replay", "hours", "hours > 0", hours)
    if hours is None:
        hours = 1.0 if arrivals is None else arrivals.span / 3600.0
    until = hours * 3600.0
    fields = instances.one(0)
    traffic, total = [], 0.0
    for i, query in enumerate(instances.query_names):
        means = float(fields.input_tokens[i]), float(fields.output_tokens[i])
        rate = float(fields.arrival_rate[i])
        mine = None
        if arrivals is not None and query in arrivals.queries:
            mine = arrivals.query == arrivals.queries.index(query)
        if mine is not None and mine.any():
            assert arrivals is not None
            known = int(mine.sum()) / (_find_period(arrivals) / 3600.0)  # requests/h in the trace
            scale = rate / known if rate_scale == "plan" else float(rate_scale)
            total += known * scale * hours
        else:
            scale = 1.0 if rate_scale == "plan" else float(rate_scale)
            mine = None
            total += rate * scale * hours if others or arrivals is None else 0.0
        if total > MOST_REQUESTS:
            expected = f"at most {MOST_REQUESTS:,} requests in all: fewer hours, or a lower rate"
            raise InputError("replay", "hours", expected, hours)
        if mine is not None and arrivals is not None:
            made = _repeat(arrivals, mine, query, means, scale, until)
        elif others or arrivals is None:
            made = _draw_poisson(query, means, rate * scale, until, seed)
        else:
            made = _make(query, np.zeros(0), np.zeros(0), np.zeros(0), means, "none")
        traffic.append(_draw_routes(made, seed))
    return traffic, until


def _repeat(
    arrivals: Arrivals, mine: np.ndarray, query: str, means: tuple[float, float], scale: float, until: float
) -> Traffic:
    """Let the requests of a type come ``scale`` times as fast, again and again until ``until`` seconds."""
    if scale == 0:
        return _make(query, np.zeros(0), np.zeros(0), np.zeros(0), means, "trace")
    time = arrivals.time[mine] / scale
    period = _find_period(arrivals) / scale
    rounds = max(math.ceil(until / period), 1)
    times = (time[None, :] + period * np.arange(rounds)[:, None]).ravel()
    inside = times <= until
    tokens = (arrivals.input_tokens, arrivals.output_tokens)
    inputs, outputs = (np.tile(x[mine].astype(np.float64), rounds) for x in tokens)
    return _make(query, times[inside], inputs[inside], outputs[inside], means, "trace")


def _find_period(arrivals: Arrivals) -> float:
    """Return the seconds after which a trace begins anew: one mean gap of all requests after its last."""
    return arrivals.span * (1.0 + 1.0 / max(len(arrivals.time) - 1, 1))


def _draw_poisson(query: str, means: tuple[float, float], rate: float, until: float, seed: int) -> Traffic:
    generator = _generator(seed, f"arrivals of {query}")
    count = int(generator.poisson(rate * until / 3600.0))
    times = np.sort(generator.random(count) * until)
    return _make(query, times, np.full(count, means[0]), np.full(count, means[1]), means, "poisson")


def _make(
    query: str,
    time: np.ndarray,
    inputs: np.ndarray,
    outputs: np.ndarray,
    means: tuple[float, float],
    source: str,
) -> Traffic:
    first, rest = (
        tokens / mean if mean > 0 else np.ones(len(tokens))
        for tokens, mean in zip((inputs, outputs), means, strict=True)
    )
    return Traffic(query, time, first, rest, inputs + outputs, np.zeros(len(time)), source)


def _draw_routes(traffic: Traffic, seed: int) -> Traffic:
    return replace(traffic, draw=_generator(seed, f"routes of {traffic.query}").random(len(traffic.time)))


def _generator(seed: int, what: str) -> np.random.Generator:
    """Make the generator of one purpose, keyed by seed and name: no other type or plan moves its draws."""
    return np.random.Generator(np.random.Philox(key=[seed, hash32(what)]))
