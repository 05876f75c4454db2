"""What the robust MILP and its dual function need of one scenario, triple by triple. No JAX here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float64, Int

from rodiu_jax.model.instance import Instances
from rodiu_jax.model.tolerances import NEGLIGIBLE_SHARE, TIGHTENING_FLOOR, TIGHTENING_SLACK
from solvers.dual.coefficients import Coefficients, Promise, derive_coefficients, limit_shares

_MANY_PAIRS = 128
"""Pairs of a large catalogue."""


def is_large(instances: Instances) -> bool:
    """Say whether a catalogue has so many pairs that HiGHS alone would take minutes, and that few pairs matter."""
    _, models, gpus, _ = instances.shape
    return models * gpus > _MANY_PAIRS


ByTriple = Float64[np.ndarray, " T"]
ByCell = Float64[np.ndarray, "I T"]
ByType = Float64[np.ndarray, " I"]


@dataclass(frozen=True)
class Terms:
    """Some triples t = (model j, GPU k, degree n) of a scenario; money in $ per period.

    Attributes:
      dense: the scenario's coefficients over all pairs, float64, with nothing closed.
      triple: positions (j, k, n); ``pair`` is j K + k.
      speedup: of each degree.
      most: the largest share of each type that each triple can take.
      routes: most pairs that a type is sent to in the plans meant; at most ``max_routes`` where that is not 0.
    """

    dense: Coefficients
    triple: Int[np.ndarray, "T 3"]
    pair: Int[np.ndarray, " T"]
    speedup: Float64[np.ndarray, " N"]
    most: Float64[np.ndarray, "I T"]
    routes: int

    def take(self, chosen: np.ndarray) -> Terms:
        """Keep some of the triples, by mask or position."""
        return replace(self, triple=self.triple[chosen], pair=self.pair[chosen], most=self.most[:, chosen])

    def with_routes(self, routes: int) -> Terms:
        """Mean the plans that send no type to more than ``routes`` pairs."""
        return replace(self, routes=min(self.routes, routes))

    @property
    def types(self) -> int:
        """Number of query types."""
        return len(self.unmet_cost)

    @property
    def spread(self) -> int:
        """Most pairs that can serve a type in the plans meant."""
        return min(self.routes, len(np.unique(self.pair)))

    def plain(self, gamma: float) -> float | None:
        """The part of each excess that counts where the worst case at budget ``gamma`` is a plain sum, else None.

        It is one where every pair that serves may deviate, or only one pair serves, or nothing deviates.
        """
        if gamma <= NEGLIGIBLE_SHARE:
            return 0.0
        return min(gamma, 1.0) if self.spread <= max(gamma, 1.0) else None

    # Of each triple

    @cached_property
    def deploy(self) -> ByTriple:
        """Rent and storage of weights, $."""
        return self.dense.deploy[self.pair, self.triple[:, 2]]

    @cached_property
    def weights(self) -> ByTriple:
        """Weights, GB."""
        return self.dense.weights[self.pair]

    @cached_property
    def room(self) -> ByTriple:
        """GB left by the weights, at least 0."""
        return self.dense.room[self.pair, self.triple[:, 2]]

    @cached_property
    def power(self) -> ByTriple:
        """TFLOPs."""
        return self.dense.power[self.pair, self.triple[:, 2]]

    # Of each type on each triple, at share 1

    @cached_property
    def kv(self) -> ByCell:
        """GB."""
        return self.dense.kv[:, self.pair]

    @cached_property
    def work(self) -> ByCell:
        """TFLOPs."""
        return np.broadcast_to(self.dense.compute[:, None], self.most.shape)

    @cached_property
    def nominal_delay(self) -> ByCell:
        """Delay without deviations, ms, speed-up counted."""
        return self.dense.nominal[:, self.pair] / self.speedup[self.triple[:, 2]]

    @cached_property
    def excess_delay(self) -> ByCell:
        """Largest deviation of the delay, ms, speed-up counted."""
        return self.dense.excess[:, self.pair] / self.speedup[self.triple[:, 2]]

    @cached_property
    def nominal_error(self) -> ByCell:
        """Error without deviations."""
        return self.dense.error[:, self.pair]

    @cached_property
    def excess_error(self) -> ByCell:
        """Largest deviation of the error."""
        return self.dense.error_excess[:, self.pair]

    # Of each type

    @property
    def data_cost(self) -> ByType:
        """Storage of the type's data when served whole, $."""
        return self.dense.base

    @property
    def delay_weight(self) -> ByType:
        """$/ms."""
        return self.dense.delay_weight

    @property
    def unmet_cost(self) -> ByType:
        """$ where all of the type stays unserved."""
        return self.dense.unmet_cost

    @property
    def delay_limit(self) -> ByType:
        """ms."""
        return self.dense.delay_limit

    @property
    def error_limit(self) -> ByType:
        """Fraction."""
        return self.dense.error_limit

    # Of the scenario

    @property
    def unmet_cap(self) -> float:
        """Largest unmet share."""
        return float(self.dense.unmet_cap)

    @property
    def budget(self) -> float:
        """$."""
        return float(self.dense.budget)

    @property
    def storage(self) -> float:
        """GB."""
        return float(self.dense.storage)

    @property
    def gamma_delay(self) -> float:
        """The adversary's budget for delays; 0 where there is no adversary."""
        return float(self.dense.gamma_delay)

    @property
    def gamma_error(self) -> float:
        """The adversary's budget for errors."""
        return float(self.dense.gamma_error)

    @property
    def max_routes(self) -> int:
        """Most pairs that serve a type; 0: no limit."""
        return int(self.dense.max_routes)

    @cached_property
    def coefficients(self) -> Coefficients:
        """The dual function's coefficients of these triples alone."""
        kept: Bool[np.ndarray, "P N"] = np.zeros(self.dense.fits.shape, bool)
        most = np.zeros(self.dense.most.shape)
        at = self.pair, self.triple[:, 2]
        kept[at] = True
        most[:, *at] = self.most
        everyone = float(len(kept))  # a budget of uncertainty that reaches every pair

        def reach(gamma: float) -> np.ndarray:
            return np.asarray(gamma if self.plain(gamma) is None else everyone)

        return self.dense._replace(
            fits=kept, most=most, gamma_delay=reach(self.gamma_delay), gamma_error=reach(self.gamma_error)
        )


def collect(instances: Instances, b: int, triple: np.ndarray | None = None) -> Terms:
    """Collect the terms of scenario ``b``.

    Args:
      triple: (T,3) positions (j, k, n); by default all whose weights fit GPUs, storage and budget alone.
    """
    _, models, gpus, degrees = instances.shape
    fields = instances.one(b)
    with np.errstate(over="ignore"):  # what exceeds the largest float is capped by `most`
        dense = derive_coefficients(fields, instances.uncertainty, tighten=False)
    if triple is None:
        triple = np.argwhere(dense.fits.reshape(models, gpus, degrees))
    pair = triple[:, 0] * gpus + triple[:, 1]
    pairs = len(np.unique(pair))
    return Terms(
        dense=dense,
        triple=triple,
        pair=pair,
        speedup=fields.tp_speedup,
        most=dense.most[:, pair, triple[:, 2]],
        routes=min(int(fields.max_routes) or pairs, pairs),
    )


def tighten(terms: Terms) -> Terms:
    """Lower ``most`` for the same plans: a pair that breaks a promise needs a partner that more than keeps it.

    See `solvers.dual.coefficients.limit_shares`; the slack is that of HiGHS.
    """
    promises = []
    for nominal, excess, gamma, limit in (
        (terms.nominal_delay, terms.excess_delay, terms.gamma_delay, terms.delay_limit),
        (terms.nominal_error, terms.excess_error, terms.gamma_error, terms.error_limit),
    ):
        surely = terms.plain(gamma) or 0.0
        slackened = limit[:, None] * (1.0 + TIGHTENING_SLACK) + TIGHTENING_FLOOR
        promises.append(Promise(nominal + min(gamma, 1.0) * excess, nominal + surely * excess, slackened))
    return replace(terms, most=limit_shares(terms.most, promises, terms.spread))
