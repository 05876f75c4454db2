"""Worst case under a budget of uncertainty (Bertsimas and Sim, "The Price of Robustness", 2004)."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float


def worst_case(deviations: Float[Array, "... M"], gamma: Float[Array, "..."]) -> Float[Array, "..."]:  # noqa: UP037 (pdoc reads no bare ellipsis)
    """The largest total deviation an adversary can cause with budget ``gamma``.

    max over xi in U(gamma) of sum_m a[m] xi[m], where U(gamma) = {0 <= xi <= 1, sum xi <= gamma}: the
    floor(gamma) largest entries plus frac(gamma) times the next one. Each entry is weighted by
    clip(gamma - rank, 0, 1) with its rank found by counting, since for the few deployed pairs of a plan that is
    cheaper than a sort and has no branch.

    Args:
      deviations: a >= 0, any leading axes.
      gamma: budget of uncertainty >= 0, fractional allowed, one per leading index; M or more gives the sum.

    Returns:
      The worst case, in the unit of ``deviations``.
    """
    order = jnp.arange(deviations.shape[-1])
    mine, other = deviations[..., :, None], deviations[..., None, :]
    earlier = order[None, :] < order[:, None]
    before = (other > mine) | (
        (other == mine) & jnp.broadcast_to(earlier, jnp.broadcast_shapes(other.shape, mine.shape))
    )
    rank = before.sum(-1).astype(deviations.dtype)
    return (deviations * jnp.clip(gamma[..., None] - rank, 0.0, 1.0)).sum(-1)


def worst_vertex(
    deviations: Float[np.ndarray, "*n M"],
    gamma: Float[np.ndarray, "*_"],
) -> Float[np.ndarray, "*n M"]:
    """Return the adversary's best xi in U(gamma): ``(deviations * xi).sum(-1)`` is `worst_case`; NumPy.

    Args:
      deviations: of any sign.
      gamma: budgets of uncertainty, which broadcast to the leading axes of ``deviations``.
    """
    order = np.argsort(-deviations, axis=-1, kind="stable")
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.broadcast_to(np.arange(order.shape[-1]), order.shape), axis=-1)
    return np.clip(gamma[..., None] - rank, 0.0, 1.0)
