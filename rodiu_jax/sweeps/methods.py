"""The methods that can answer a sweep's scenarios, by name. A new one is its own module and one line here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

from rodiu_jax.instance import Instances

if TYPE_CHECKING:
    from solvers.result import Result


class Method(Protocol):
    """Scenarios in, a proven bracket and a checked plan for each out, in order and one by one.

    Yielding as soon as a scenario is done lets the sweep show progress and keep what is done when it
    is interrupted.
    Closing a generator ends its workers. A scenario that fails yields a result of status ``error``.

    Args:
      gap: relative gap at which a scenario may stop.
      time_limit: seconds per scenario.
      workers: processes; the method's own choice by default.
    """

    def __call__(
        self, instances: Instances, *, gap: float, time_limit: float, workers: int | None
    ) -> Iterator[Result]: ...


def _exact(instances: Instances, *, gap: float, time_limit: float, workers: int | None) -> Iterator[Result]:
    from solvers.pool import solve_iter

    return solve_iter(instances, gap=gap, time_limit=time_limit, workers=workers)


METHODS: dict[str, Method] = {"exact": _exact}
