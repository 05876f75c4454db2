"""What the robust MILP and its dual function need of one scenario, triple by triple. No JAX here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float64, Int

from rodiu_jax.model.fields import Fields
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.tolerances import NEGLIGIBLE_SHARE, RENT_BAND, TIGHTENING_FLOOR, TIGHTENING_SLACK
from solvers.dual.coefficients import (
    Coefficients,
    Promise,
    Serving,
    derive_coefficients,
    derive_serving,
    limit_shares,
    ratio,
)

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
class Fleet:
    """Replicas, rates and quotas of some triples of a scenario (MODEL section 9).

    Attributes:
      replicas: the most that a triple needs or may have; 1 leaves nothing to decide.
      each: the largest share of each type that one replica can take.
      hold, rent: $ for the weights' storage once, and for each replica.
      load, load_excess: replicas that a type takes when served whole, and what the shortfall adds at most.
      utilization: the most load of a replica.
      gamma_load: the adversary's budget, types per triple.
      gpus: of one replica.
      device: position of the first GPU configuration of the same device; ``quota`` GPUs of each position.
    """

    replicas: Int[np.ndarray, " T"]
    each: ByCell
    hold: ByTriple
    rent: ByTriple
    load: ByCell
    load_excess: ByCell
    utilization: float
    gamma_load: float
    gpus: ByTriple
    device: Int[np.ndarray, " T"]
    quota: Float64[np.ndarray, " K"]

    def take(self, chosen: np.ndarray) -> Fleet:
        """Keep some of the triples, by mask or position."""
        return replace(
            self,
            **{n: getattr(self, n)[chosen] for n in ("replicas", "hold", "rent", "gpus", "device")},
            **{n: getattr(self, n)[:, chosen] for n in ("each", "load", "load_excess")},
        )

    def plain(self, shares: ByCell) -> ByTriple:
        """Return the part of each extra load that counts where the worst case is a plain sum, nan where it is not.

        Args:
          shares: the most that each type may take.
        """
        gamma = self.gamma_load if self.gamma_load > NEGLIGIBLE_SHARE else 0.0
        short = ((self.load_excess > 0) & (shares > 0)).sum(0)  # T, types that may fall short
        return np.where((gamma == 0.0) | (short <= max(gamma, 1.0)), min(gamma, 1.0), np.nan)

    def worst_load(self, shares: ByCell) -> ByTriple:
        """Return the load of each triple at some shares, in the worst case, replicas."""
        excess = -np.sort(-self.load_excess * shares, axis=0)
        counted = np.clip(self.gamma_load - np.arange(len(excess)), 0.0, 1.0)
        load = np.where(shares > 0, self.load, 0.0) * shares
        return load.sum(0) + (excess * counted[:, None]).sum(0)


@dataclass(frozen=True)
class Terms:
    """Some triples t = (model j, GPU k, degree n) of a scenario; money in $ per period.

    Attributes:
      dense: the scenario's coefficients over all pairs, float64, with nothing closed.
      triple: positions (j, k, n); ``pair`` is j K + k.
      speedup: of each triple, of each type where it differs between them.
      most: the largest share of each type that each triple can take, with all its replicas.
      routes: most pairs that a type is sent to in the plans meant; at most ``max_routes`` where that is not 0.
      fleet: replicas, rates and quotas; None where the scenario has none of them.
    """

    dense: Coefficients
    triple: Int[np.ndarray, "T 3"]
    pair: Int[np.ndarray, " T"]
    speedup: Float64[np.ndarray, "#I T"]
    most: Float64[np.ndarray, "I T"]
    routes: int
    fleet: Fleet | None = None

    def take(self, chosen: np.ndarray) -> Terms:
        """Keep some of the triples, by mask or position."""
        return replace(
            self,
            triple=self.triple[chosen],
            pair=self.pair[chosen],
            speedup=self.speedup[:, chosen],
            most=self.most[:, chosen],
            fleet=None if self.fleet is None else self.fleet.take(chosen),
        )

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
        """Rent of one replica, and storage of weights, $."""
        return self.dense.deploy[self.pair, self.triple[:, 2]]

    @cached_property
    def weights(self) -> ByTriple:
        """Weights, GB."""
        return self.dense.weights[self.pair]

    @cached_property
    def room(self) -> ByTriple:
        """GB left by the weights on one replica, at least 0."""
        return self.dense.room[self.pair, self.triple[:, 2]]

    @cached_property
    def power(self) -> ByTriple:
        """TFLOPs of one replica."""
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
        return self.dense.nominal[:, self.pair] / self.speedup

    @cached_property
    def excess_delay(self) -> ByCell:
        """Largest deviation of the delay, ms, speed-up counted."""
        return self.dense.excess[:, self.pair] / self.speedup

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

    @property
    def chooses_replicas(self) -> bool:
        """Whether some triple may have more than one replica."""
        return self.fleet is not None and bool((self.fleet.replicas > 1).any())

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


@dataclass(frozen=True)
class ScenarioTerms:
    """What all triples of a scenario are made from, derived once; `of` then gives the terms of some of them."""

    fields: Fields
    dense: Coefficients
    serving: Serving | None

    @classmethod
    def derive(cls, instances: Instances, b: int) -> ScenarioTerms:
        """Derive the coefficients of scenario ``b``."""
        fields = instances.one(b)
        with np.errstate(over="ignore"):  # what exceeds the largest float is capped by `most`
            dense = derive_coefficients(fields, instances.uncertainty, tighten=False)
            serving = derive_serving(fields, instances.uncertainty)
        return cls(fields, dense, serving)

    def of(self, triple: np.ndarray | None = None, replicas: np.ndarray | None = None) -> Terms:
        """Collect the terms of some triples; the arguments are those of `collect`."""
        fields, dense, serving = self.fields, self.dense, self.serving
        _, models, gpus = fields.delay_nominal.shape
        fixed = triple is not None
        if triple is None:
            triple = np.argwhere(dense.fits.reshape(models, gpus, -1))
        pair = triple[:, 0] * gpus + triple[:, 1]
        pairs = len(np.unique(pair))
        speedup = fields.tp_speedup
        terms = Terms(
            dense=dense,
            triple=triple,
            pair=pair,
            speedup=speedup[None, triple[:, 2]] if speedup.ndim == 1 else speedup[:, *triple.T],
            most=dense.most[:, pair, triple[:, 2]],
            routes=min(int(fields.max_routes) or pairs, pairs),
        )
        if serving is None:
            return terms
        if fixed and replicas is None:
            replicas = np.ones(len(pair), np.int64)
        fleet = _derive_fleet(terms, fields, serving, replicas)
        terms = replace(terms, most=np.minimum(fleet.replicas * fleet.each, 1.0), fleet=fleet)
        if fixed:
            return terms
        allowed = fleet.replicas > 0
        decides = (fleet.replicas > 1) | (fleet.load > 0).any(0)
        terms = terms.take(allowed)
        needed = decides[allowed].any() or np.isfinite(fleet.quota).any() or speedup.ndim > 1
        return terms if needed else replace(terms, fleet=None)


def collect(
    instances: Instances, b: int, triple: np.ndarray | None = None, replicas: np.ndarray | None = None
) -> Terms:
    """Collect the terms of scenario ``b``.

    Args:
      triple: (T,3) positions (j, k, n); by default all whose weights fit GPUs, storage and budget alone, and one of
        whose replicas the scenario allows.
      replicas: (T,) of each of ``triple``, by default one.
    """
    return ScenarioTerms.derive(instances, b).of(triple, replicas)


def _derive_fleet(terms: Terms, fields: Fields, serving: Serving, replicas: np.ndarray | None) -> Fleet:
    """Derive replicas, rates and quotas of some triples.

    Args:
      replicas: (T,) of each triple; by default the most that a plan may have, and one of least cost needs: what serves
        every type whole. More of them only cost rent, so that some plan of least cost has no more.
    """
    at = terms.pair, terms.triple[:, 2]
    hours, gpu = fields.rental_hours, terms.triple[:, 1]
    gpus = fields.tp_degree[terms.triple[:, 2]].astype(np.float64)
    load, excess = serving.load[:, *at], serving.load_excess[:, *at]
    gamma, utilization = float(serving.gamma_load), float(serving.utilization)
    by_load = ratio(np.asarray(utilization), load + min(gamma, 1.0) * excess)
    fleet = Fleet(
        replicas=np.ones(len(terms.pair), np.int64),
        each=np.minimum(terms.most, by_load),
        hold=hours * fields.storage_price * terms.weights,
        rent=hours * fields.gpu_price[gpu] * gpus,
        load=load,
        load_excess=excess,
        utilization=utilization,
        gamma_load=gamma,
        gpus=gpus,
        device=serving.device[gpu],
        quota=serving.quota,
    )
    if replicas is None:
        replicas = _most_replicas(terms, fleet, serving.most_replicas[terms.pair])
    return replace(fleet, replicas=np.asarray(replicas, np.int64))


def _most_replicas(terms: Terms, fleet: Fleet, allowed: ByTriple) -> Int[np.ndarray, " T"]:
    """Return the most replicas of each triple that limits allow and a plan of least cost needs; 0 if not one may be."""
    served = (fleet.each > 0).astype(np.float64)  # I,T
    over = 1.0 + RENT_BAND
    needed = np.stack(
        [
            _ratio_of_positive((terms.kv * served).sum(0), terms.room),
            _ratio_of_positive((terms.work * served).sum(0), terms.power),
            fleet.worst_load(served) / fleet.utilization,
        ]
    ).max(0)
    by_quota = fleet.quota[terms.triple[:, 1]] * over / fleet.gpus
    by_budget = ratio(np.maximum(terms.budget * over - fleet.hold, 0.0), fleet.rent)
    limit = np.floor(np.minimum(np.minimum(allowed, by_quota), by_budget))
    rounding = 4 * (len(served) + 8) * np.finfo(np.float64).eps
    return np.minimum(limit, np.maximum(np.ceil(needed * (1.0 - rounding)), 1.0)).astype(np.int64)


def _ratio_of_positive(over: ByTriple, under: ByTriple) -> ByTriple:
    return np.where(over > 0, ratio(over, under), 0.0)


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
