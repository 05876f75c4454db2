"""Where a router finds the replicas of a pool."""

from __future__ import annotations

from rodiu_jax.errors import InputError, nearest
from rodiu_jax.export.fleet import Fleet, Pool
from rodiu_jax.export.settings import Settings


def find_backends(fleet: Fleet, settings: Settings) -> dict[str, tuple[str, ...]]:
    """Return ``HOST:PORT`` of every pool by its label: as given, or else the pool's service in Kubernetes.

    Raises:
      InputError: addresses of a pool that the plan does not have.
    """
    labels = [pool.label for pool in fleet.pools]
    for label in settings.backends:
        if label not in labels:
            raise InputError("--backend", "", f"one of {', '.join(labels)}{nearest(label, labels)}", label)
    return {label: settings.backends.get(label) or (_find_service(label, settings),) for label in labels}


def _find_service(label: str, settings: Settings) -> str:
    return f"{label}.{settings.used_namespace}.svc.cluster.local:{settings.used_port}"


def backend_text(pool: Pool) -> str:
    """Write what stands behind an address, for comments."""
    count = pool.pair.replicas
    return (
        f"{count} replica{'s' if count > 1 else ''} of {pool.pair.model} on {pool.pair.tp} x {pool.pair.gpu}"
    )
