"""Which devices this process computes on, and what suits them."""

from __future__ import annotations

from typing import Any, TypeVar

import jax

T = TypeVar("T")


def devices() -> list[Any]:
    """The devices that take blocks: all of this process, or the one that JAX's setting ``jax_default_device`` names."""
    chosen = jax.config.jax_default_device  # pyright: ignore[reportAttributeAccessIssue]
    if chosen is None:
        return jax.local_devices()
    return [jax.local_devices(backend=chosen)[0] if isinstance(chosen, str) else chosen]


def by_device(*, cpu: T, accelerator: T) -> T:
    """The choice for these devices: a CPU wants what its caches hold, an accelerator enough to be busy."""
    return cpu if devices()[0].platform == "cpu" else accelerator
