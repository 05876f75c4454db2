"""The adversary of MODEL section 3 found twice more: by the vertices of its set and by a linear program."""

from __future__ import annotations

import itertools

import numpy as np
from scipy.optimize import linprog


def vertices(count: int, gamma: float) -> np.ndarray:
    """Vertices of {0 <= xi <= 1, sum xi <= gamma} that matter for weights >= 0: as much as gamma allows.

    Up to floor(gamma) entries at 1 and, where one is left, one at the fraction; shape (V, count).
    """
    whole = min(int(gamma), count)
    found = []
    for full in itertools.combinations(range(count), whole):
        xi = np.zeros(count)
        xi[list(full)] = 1.0
        rest = [m for m in range(count) if m not in full] if gamma > whole else []
        for m in rest:
            partial = xi.copy()
            partial[m] = gamma - whole
            found.append(partial)
        if not rest:
            found.append(xi)
    return np.array(found)


def by_vertices(weights: np.ndarray, gamma: float) -> float:
    """W by trying every vertex."""
    return float((vertices(len(weights), gamma) @ weights).max()) if len(weights) else 0.0


def by_linear_program(weights: np.ndarray, gamma: float) -> float:
    """W by solving the adversary's problem."""
    count = len(weights)
    answer = linprog(-weights, A_ub=np.ones((1, count)), b_ub=[gamma], bounds=[(0, 1)] * count)
    assert answer.status == 0
    return -float(answer.fun)
