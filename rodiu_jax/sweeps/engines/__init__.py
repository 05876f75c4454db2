"""The engines that can run a sweep: where its chunks of rows are answered. None changes a row.

A new one is a file with a function and one entry here. The table imports no engine, so that a command's help stays
instant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rodiu_jax.runtime.lazy_call import load_function

if TYPE_CHECKING:
    from rodiu_jax.sweeps.work import Engine


@dataclass(frozen=True)
class EngineInfo:
    """What the rest of the program knows about an engine.

    Attributes:
      name: as commands write it.
      place: the function, as ``module:function``; its form is `rodiu_jax.sweeps.work.Engine`.
      summary: one clause for the command's help.
      has_address: it can join a cluster that runs at an address.
      own_processes: where HiGHS answers scenarios, ``workers`` are its processes.
    """

    name: str
    place: str
    summary: str
    has_address: bool = False
    own_processes: bool = False

    def load(self) -> Engine:
        """Import the function of the engine."""
        return load_function(self.place)


ENGINES: dict[str, EngineInfo] = {
    info.name: info
    for info in (
        EngineInfo(
            "local", "rodiu_jax.sweeps.engines.local:use_this_machine", "this machine", own_processes=True
        ),
        EngineInfo(
            "ray",
            "rodiu_jax.sweeps.engines.ray_cluster:connect_to_cluster",
            "a Ray cluster, --workers with a GPU or a share of the cores each",
            has_address=True,
        ),
    )
}
"""The engines by name; the first is the default."""
