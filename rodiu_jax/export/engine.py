"""The command line of one replica's engine."""

from __future__ import annotations

from rodiu_jax.export.fleet import Fleet, Pool, find_repository
from rodiu_jax.export.settings import Settings


def engine_command(fleet: Fleet, pool: Pool, settings: Settings, port: int) -> list[str]:
    """Return the words of ``vllm serve`` for a replica of a pool.

    The engine answers to its repository and to the labels of the query types that are routed to it, so that a client
    may send the label as ``model`` whichever pool the router takes.
    """
    repository = find_repository(fleet, pool, settings.model_ids)
    words = ["vllm", "serve", repository, "--served-model-name", repository, *pool.queries]
    words += ["--tensor-parallel-size", str(pool.pair.tp)]
    words += ["--gpu-memory-utilization", f"{settings.used_memory:g}"]
    if pool.largest_batch is not None:  # what the catalogue knows of latencies ends there
        words += ["--max-num-seqs", str(pool.largest_batch)]
    return [*words, "--host", "0.0.0.0", "--port", str(port)]  # noqa: S104 - a server is there to be reached


def gpu_text(pool: Pool) -> str:
    """Write what one replica needs: ``2 x H100``."""
    return f"{pool.pair.tp} x {pool.pair.gpu}"
