"""What the robust MILP and its dual function need of one scenario, triple by triple. No JAX here."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from rodiu_jax.model.fields import compute_demand, kv_demand, stored_data, tokens_per_query, worst_case_inputs
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.tolerances import NEGLIGIBLE_SHARE, TIGHTENING_FLOOR, TIGHTENING_SLACK


@dataclass(frozen=True)
class Terms:
    """Coefficients over T triples t = (model j, GPU k, degree n); money in $ per period.

    Attributes:
      triple: (T,3) positions (j, k, n); ``pair`` (T,) is j K + k.
      deploy, weights, room, power: (T,) $; GB of weights; GB they leave free; TFLOPs.
      kv, work: (I,T) GB and TFLOPs at share 1.
      most: (I,T) the largest share of the type that the triple can take.
      nominal_delay, excess_delay: (I,T) ms at share 1, speed-up counted; nominal_error, excess_error: (I,T).
      data_cost: (I,) storage of the type's data when served whole; ``delay_weight`` (I,) $/ms; ``unmet_cost`` (I,).
      gamma_delay, gamma_error: 0 where there is no adversary.
      max_routes: as in the instance; ``routes``: most pairs that a type is sent to in the plans meant.
    """

    triple: np.ndarray
    pair: np.ndarray
    deploy: np.ndarray
    weights: np.ndarray
    room: np.ndarray
    power: np.ndarray
    kv: np.ndarray
    work: np.ndarray
    most: np.ndarray
    nominal_delay: np.ndarray
    excess_delay: np.ndarray
    nominal_error: np.ndarray
    excess_error: np.ndarray
    data_cost: np.ndarray
    delay_weight: np.ndarray
    unmet_cost: np.ndarray
    delay_limit: np.ndarray
    error_limit: np.ndarray
    unmet_cap: float
    budget: float
    storage: float
    gamma_delay: float
    gamma_error: float
    max_routes: int
    routes: int

    @property
    def types(self) -> int:
        """Number of query types."""
        return len(self.unmet_cost)

    def take(self, chosen: np.ndarray) -> Terms:
        """Some of the triples, by mask or position."""
        by_type = ("kv", "work", "most", "nominal_delay", "excess_delay", "nominal_error", "excess_error")
        along = ("triple", "pair", "deploy", "weights", "room", "power")
        return replace(
            self,
            **{n: getattr(self, n)[:, chosen] for n in by_type},
            **{n: getattr(self, n)[chosen] for n in along},
        )

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

    def with_routes(self, routes: int) -> Terms:
        """The plans that send no type to more than ``routes`` pairs."""
        return replace(self, routes=min(self.routes, routes))


def collect(instances: Instances, b: int, triple: np.ndarray | None = None) -> Terms:
    """The terms of scenario ``b``.

    Args:
      triple: (T,3) positions (j, k, n); by default all whose weights fit GPUs, storage and budget alone.
    """
    f = instances.one(b)
    gpus = len(instances.gpu_names)
    if triple is None:
        degree = np.asarray(f.tp_degree, dtype=np.float64)
        heavy = f.weight_memory[:, None, None]
        fits = (f.gpu_memory[None, :, None] * degree >= heavy) & (heavy <= f.storage_capacity)
        price = f.rental_hours * (f.gpu_price[None, :, None] * degree + f.storage_price * heavy)
        triple = np.argwhere(fits & (price <= f.budget))
    j, k, n = triple.T
    degree, speed = f.tp_degree[n].astype(np.float64), f.tp_speedup[n]
    hours, tokens = float(f.rental_hours), tokens_per_query(f)[:, None]
    d_dev, e_dev, gamma_d, gamma_e = worst_case_inputs(f, instances.uncertainty)
    room, power = f.gpu_memory[k] * degree - f.weight_memory[j], f.gpu_compute[k] * degree
    kv = kv_demand(f)[:, j]
    work = np.broadcast_to(compute_demand(f)[:, None], kv.shape)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        most = np.minimum(
            np.where(kv > 0, np.maximum(room, 0.0) / kv, np.inf), np.where(work > 0, power / work, np.inf)
        )
    pairs = len(np.unique(j * gpus + k))
    return Terms(
        triple=triple,
        pair=j * gpus + k,
        deploy=hours * (f.gpu_price[k] * degree + float(f.storage_price) * f.weight_memory[j]),
        weights=f.weight_memory[j],
        room=room,
        power=power,
        kv=kv,
        work=work,
        most=np.minimum(most, 1.0),
        nominal_delay=f.delay_nominal[:, j, k] * tokens / speed,
        excess_delay=d_dev[:, j, k] * tokens / speed,
        nominal_error=f.error_nominal[:, j, k],
        excess_error=e_dev[:, j, k],
        data_cost=hours * float(f.storage_price) * stored_data(f),
        delay_weight=hours * f.delay_penalty * f.arrival_rate,
        unmet_cost=hours * f.unmet_penalty * f.arrival_rate,
        delay_limit=f.delay_threshold,
        error_limit=f.error_threshold,
        unmet_cap=float(f.unmet_cap),
        budget=float(f.budget),
        storage=float(f.storage_capacity),
        gamma_delay=float(gamma_d),
        gamma_error=float(gamma_e),
        max_routes=int(f.max_routes),
        routes=min(int(f.max_routes) or pairs, pairs),
    )


def tightened(terms: Terms) -> Terms:
    """The same plans with smaller ``most``: a pair that breaks a promise needs a partner that more than keeps it.

    With own[t] <= its worst case per unit of share, and least <= that of any partner, the promise
    own[t] x[t] + least y <= limit (x[t] + y) and x[t] + y <= 1 give x[t] <= (limit - least) / (own[t] - least).
    Where a type has one route, there is no partner. Several rounds, as partners fall away.
    """
    most = terms.most
    promises = (
        (terms.nominal_delay, terms.excess_delay, terms.gamma_delay, terms.delay_limit),
        (terms.nominal_error, terms.excess_error, terms.gamma_error, terms.error_limit),
    )
    for _ in range(3):
        before = most
        for nominal, excess, gamma, limit in promises:
            surely = terms.plain(gamma) or 0.0
            own = nominal + min(gamma, 1.0) * excess
            room = limit[:, None] * (1.0 + TIGHTENING_SLACK) + TIGHTENING_FLOOR
            keeps = own <= room
            if terms.spread == 1:
                most = np.where(keeps, most, 0.0)
                continue
            partner = np.where(most > 0, nominal + surely * excess, np.inf)
            least = partner.min(1, initial=np.inf)[:, None]
            least = np.where(np.isfinite(least), least, 0.0)  # nobody serves the type
            short = np.where(own > least, own - least, 1.0)
            share = np.where(room > least, np.minimum((room - least) / short, 1.0), 0.0)
            most = np.minimum(most, np.where(keeps, 1.0, share))
        if (most == before).all():
            break
    return replace(terms, most=most)
