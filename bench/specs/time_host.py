"""What the host does for a bracket: Python and NumPy around the compiled programs."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import jax
import numpy as np

from bench.measure import Case, Side, Spec
from rodiu_jax.catalog import sampling
from rodiu_jax.model import scenario_blocks
from rodiu_jax.runtime.blocks import BlockRunner
from solvers.answers import Answers
from solvers.bracket import brackets


class _Replay(BlockRunner):
    """A runner that keeps what programs answered, and then gives the same answers in place of running them."""

    def __init__(self) -> None:
        super().__init__()
        self._kept: list[Any] = []
        self._left: deque[Any] | None = None
        self._gather = False

    def rewind(self, *, gather: bool) -> None:
        """Answer from the first of the kept answers on.

        Args:
          gather: make the arguments of all blocks all the same, as threads do beside the programs on a CPU.
        """
        self._left, self._gather = deque(self._kept), gather

    def _run(self, call: Any) -> Any:
        if self._left is None:
            answer = super()._run(call)
            self._kept.append(_copy(answer))
            return answer
        for first in range(0, call.count, call.rows) if self._gather else ():
            call.arguments(first)
        return _copy(self._left.popleft())


def _copy(answer: Any) -> Any:
    """Return other arrays: whoever asked for an answer may write into it."""
    return jax.tree.map(np.copy, answer)


@contextmanager
def build(n: int) -> Iterator[Iterator[Case]]:
    """Brackets of ``n`` default scenarios at 1 %, with programs that take no time, and as they are."""
    instances = sampling.sample("seed", n=n, seed=12)
    usual, replay = scenario_blocks.RUNNER, _Replay()

    def bracket_with(runner: BlockRunner) -> Answers:
        scenario_blocks.RUNNER = runner
        try:
            return brackets(instances)
        finally:
            scenario_blocks.RUNNER = usual

    def bracket_again(*, gather: bool) -> Answers:
        replay.rewind(gather=gather)
        return bracket_with(replay)

    def judge(results: Sequence[Any]) -> tuple[bool, str]:
        ours, _, whole = results
        same = all(
            np.array_equal(getattr(ours, side), getattr(whole, side)) for side in ("lower", "upper", "status")
        )
        return same, f"the same brackets; {whole.nodes.mean():.1f} nodes each"

    bracket_with(replay)  # keeps the answers
    sides = (
        Side("host alone", partial(bracket_again, gather=False), n),
        Side("host, and rows gathered for each block", partial(bracket_again, gather=True), n),
        Side("whole", lambda: bracket_with(usual), n),
    )
    yield iter([Case(f"{n:,} at 1 %", sides, judge)])


SPEC = Spec(
    name="host",
    measures="Scenarios per second that the host alone could bracket to 1 %: the compiled programs are replaced by"
    " their kept answers, everything else is done as usual.",
    item="scenario",
    peers="the same with the arguments of every block made (on a CPU threads do that beside the programs), and with"
    " the programs running.",
    quality="the same bounds and statuses.",
    precision="as cascade",
    by_hand="at most 0.1 ms a scenario, 10,000 scenarios/s, so that Python does not cap an accelerator.",
    sizes=(64, 2_048),
    build=build,
    repeats=3,
)
