"""How hard brackets try: ascents, searches for plans and rounds of branching; what suits a scenario or a catalogue."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from rodiu_jax.model.instance import Instances
from solvers.dual import Ascent
from solvers.neighbours import Search
from solvers.terms import is_large


@dataclass(frozen=True)
class Effort:
    """How hard to try.

    Attributes:
      root, node: the ascents at the root and at each node of the tree.
      ray: the ascent that shall prove that a root, or a node of a scenario without a plan, holds none.
      search: how plans are looked for, in at most ``rounds`` rounds that route the ``routed`` most promising
        deployments of a scenario.
      tree_rounds: most rounds of branching; each splits a node of every open scenario, and twice as many after every
        ``doubling`` rounds, so that the few scenarios still open fill a block; after the first ``doubling`` rounds
        a node's ascent takes twice its steps.
      beyond, harder: a scenario whose gap is wider than ``beyond`` after the root, or that has no plan then, is
        bracketed anew with the effort ``harder`` (in blocks of ``chunk``) in place of branching; the better of both
        counts on each side.
      chunk: scenarios (or nodes) in a compiled block, 0 for what suits the device; another value is another program,
        last bits may differ.
    """

    root: Ascent = field(default_factory=Ascent)
    node: Ascent = field(default_factory=lambda: Ascent(steps=60, rate=0.05, warm=0.002))
    ray: Ascent = field(default_factory=Ascent)
    search: Search = field(default_factory=Search)
    rounds: int = 6
    routed: int = 18
    tree_rounds: int = 24
    doubling: int = 8
    chunk: int = 0
    beyond: float = math.inf
    harder: Effort | None = None


_SCARCE = Effort(
    root=Ascent(steps=600, warm=0.1, pairs=64, far=True),
    node=Ascent(steps=100, rate=0.05, warm=0.005, pairs=64, far=True),
    ray=Ascent(steps=600, warm=0.1, pairs=64, far=True),
    search=Search(slots=48, scarce=True),
    rounds=12,
    tree_rounds=28,
    doubling=5,
)
"""For scenarios whose capacity or budget is scarce: prices that climb far, and plans of many pairs."""

USUAL = Effort(beyond=0.08, harder=_SCARCE)
"""Enough for most scenarios; what it leaves wide is tried as if capacity were scarce."""

_LARGE = replace(
    _SCARCE,
    search=Search(slots=24, scarce=True),
    rounds=6,
    tree_rounds=20,
    beyond=0.08,
    harder=replace(_SCARCE, routed=6, tree_rounds=10),
)
"""For large catalogues, where `USUAL` would begin with fewer pairs than matter."""


def usual_effort(instances: Instances) -> Effort:
    """Return the effort that suits a catalogue of this size."""
    return _LARGE if is_large(instances) else USUAL
