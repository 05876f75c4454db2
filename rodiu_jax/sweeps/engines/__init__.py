"""The engines that can run a sweep, by name: where its chunks of rows are answered. None changes a row."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from rodiu_jax.sweeps.work import Engine, Run


def _local(workers: int | None, address: str | None) -> AbstractContextManager[Run]:
    from rodiu_jax.sweeps.engines.local import run

    return nullcontext(run)


def _ray(workers: int | None, address: str | None) -> AbstractContextManager[Run]:
    from rodiu_jax.sweeps.engines.ray_cluster import connected

    return connected(workers, address)


ENGINES: dict[str, Engine] = {"local": _local, "ray": _ray}
