"""Deployments as slots, the form that arrays hold, and the names that give slots their meaning.

A slot is the number of a triple (model j, GPU k, degree n), ``(j K + k) N + n``, or `EMPTY`. A deployment is a row of D
slots, in any order, empty ones anywhere; two slots never hold the same (model, GPU) pair. This module is the one place
that knows the numbering.

No JAX here: solver processes load this module and must start fast.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Integer

EMPTY = -1
"""A slot that deploys nothing."""


class Names(NamedTuple):
    """The names along the axes I, J, K and N of a batch of scenarios; degrees are numbers of GPUs."""

    queries: tuple[str, ...]
    models: tuple[str, ...]
    gpus: tuple[str, ...]
    degrees: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(I, J, K, N)."""
        return len(self.queries), len(self.models), len(self.gpus), len(self.degrees)


class Parts(NamedTuple):
    """Positions on the axes J, K and N of each slot; those of an empty slot are of the last triple and mean nothing."""

    model: Integer[np.ndarray, "*B"]
    gpu: Integer[np.ndarray, "*B"]
    degree: Integer[np.ndarray, "*B"]


def split_slots(slots: Integer[np.ndarray, "*B"], names: Names) -> Parts:
    """Return the model, GPU and degree of every slot."""
    _, _, gpus, degrees = names.shape
    pair, degree = np.divmod(slots, degrees)
    return Parts(*np.divmod(pair, gpus), degree)


def join_slots(
    model: Integer[np.ndarray, "*B"],
    gpu: Integer[np.ndarray, "*B"],
    degree: Integer[np.ndarray, "*B"],
    names: Names,
) -> Integer[np.ndarray, "*B"]:
    """Return the slots of models, GPUs and degrees; the inverse of `split_slots`."""
    _, _, gpus, degrees = names.shape
    return (model * gpus + gpu) * degrees + degree


def widen(slots: Integer[np.ndarray, "*B D"], width: int) -> Integer[np.ndarray, "*B E"]:
    """Return the deployments in ``width`` slots, at least as many as they have: empty ones are added."""
    more = ((0, 0),) * (slots.ndim - 1) + ((0, width - slots.shape[-1]),)
    return np.pad(slots, more, constant_values=EMPTY)
