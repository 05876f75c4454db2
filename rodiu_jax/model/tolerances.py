"""Every tolerance and threshold that the model or its proofs need, each with its reason.

A tolerance says how far two numbers may differ before that means something. Solvers, evaluator, checker and witnesses
read this one table: they share no code, but they mean the same by "feasible", "optimal" and "equal". What only steers
an algorithm (steps, sizes, stopping rules that no answer depends on) stands where it is used. No import: every layer
and every process reads this module.
"""

from __future__ import annotations

# Feasibility of a plan

MARGIN_TOLERANCE = 1e-6
"""A plan satisfies a constraint whose margin, relative to the limit, is at least minus this (MODEL section 5).

Solvers of linear programs guarantee about 1e-7, and float64 evaluation adds 1e-15: a smaller tolerance would refuse
plans that are optimal, a larger one would be visible in a promise.
"""

PROMISE_BAND = 2 * MARGIN_TOLERANCE
"""A pair breaks a promise alone only from this far (relative) above the limit, and closes a route only then.

Twice what the checker allows a plan: a dual bound that excluded a pair the checker still accepts would be no bound.
"""

RENT_BAND = 2 * MARGIN_TOLERANCE
"""A triple is given up for what others leave of budget and storage only from this far (relative) above the limit.

Twice what the checker allows a plan, for the reason of `PROMISE_BAND`.
"""

PROOF_BAND = 2 * MARGIN_TOLERANCE
"""A scenario has no plan only if it has none with limits this much (relative) higher.

Twice what the checker allows a plan, for the reason of `PROMISE_BAND`.
"""

TIGHTENING_SLACK = 1e-7
"""HiGHS's largest shares of pairs that break a promise are computed with limits this much (relative) higher.

HiGHS lets rows be violated by its own feasibility tolerance, 1e-7: smaller slack could cut off a point it reports.
"""

TIGHTENING_FLOOR = 1e-12
"""Absolute part of `TIGHTENING_SLACK`, for limits of 0."""

# Closeness of bounds

OPTIMAL_GAP = 1e-6
"""A scenario whose relative gap (upper - lower) / upper is at most this is optimal: as near as margins are checked."""

CASCADE_GAP = 0.01
"""The relative gap at which a bracket is good enough unless asked otherwise: below the uncertainty of any input."""

RECOURSE_GAP = 1e-3
"""The relative gap of recourse costs unless asked otherwise: they rank deployments, which differ by more."""

SAME_COST = OPTIMAL_GAP
"""Relative: two costs this near are the same, as each optimum is known to `OPTIMAL_GAP`."""

SAME_OPTIMUM = 2 * OPTIMAL_GAP
"""Relative: two optima this near may be one, as each of the two is known to `OPTIMAL_GAP`."""

CROSSED_BY_HIGHS = 1e-6
"""A bound may exceed the checked cost of a plan by this (relative) where HiGHS has routed the plan or proven the bound.

HiGHS routes to 1e-9, so a plan uses almost nothing of `MARGIN_TOLERANCE`; more than this is an error of a solver.
"""

CROSSED_BY_DEVICE = 1e-5
"""The same where plan and bound come from the device, whose routings use all of `MARGIN_TOLERANCE`.

Such a plan may violate every limit by 1e-6, which saves the sum of multiplier times limit times 1e-6: several times
1e-6 of the cost where several limits bind.
"""

ABOVE_ANY_COST = 1e-9
"""A dual bound proves infeasibility when it exceeds what any plan can cost by this (relative): rounding does not."""

LEAST_EXCESS = 1e-7
"""A proven least excess over the cap on unmet shares above this proves infeasibility: HiGHS's feasibility tolerance."""

FLOOR_ROUNDING = 1e-6
"""A triple is excluded when its floor exceeds the upper bound by this (relative).

`certify` subtracts its allowance for rounding only from the triples of the minimum; the floor of another triple may be
too high by rounding, which this absorbs.
"""

# Recomputed numbers

RECOMPUTED = 1e-9
"""Relative: a recomputed number this near confirms a stored one. Both are float64, summed in different orders."""

RECOMPUTED_FLOOR = 1e-12
"""The absolute part of `RECOMPUTED`, in units of the highest cost a plan can have: what is left of a bound of 0."""

ROUNDED_TABLE = 1e-6
"""Relative: numbers of a table that somebody else may have written, rounded, are equal when this near."""

# Shares

NEGLIGIBLE_SHARE = 1e-9
"""Shares below this are not worth a variable or a route; HiGHS warns of coefficients this small and drops them."""

NEGLIGIBLE_SHARE_ON_DEVICE = 1e-7
"""The same for routings of the interior point, which leaves such shares on routes that an optimum does not use."""

NEGLIGIBLE_UNMET = 1e-12
"""Unmet shares below this are rounding of one minus a sum of shares, and are written as 0."""

NEGLIGIBLE_UNMET_ON_DEVICE = 1e-9
"""The same for routings of the interior point."""

REPLICA_ROUNDING = 5e-7
"""Part of a load that a routing may be off by rounding: no replica is added for it, as the checker forgives more."""
