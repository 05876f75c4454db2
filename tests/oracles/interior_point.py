"""The method of `solvers.lp.interior`, plainly: one program, dense matrices, no rows eliminated.

    min c'v  s.t.  A v + s = b,  v, s >= 0        dual: prices y >= 0 of the rows, reduced costs z = c + A'y >= 0

Both sides of each pair (v, z) and (s, y) start positive, and each step solves Newton's equations of primal and dual
residuals and of the products v z and s y, twice: once toward products of zero, then toward a common target, with what
the first step would have added to the products (Mehrotra's predictor and corrector).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from solvers.lp.program import BlockLp


class DenseLp(NamedTuple):
    """min c v, A v <= b, v >= 0. Rows: own, then each floor with its sign turned, slots, common."""

    c: np.ndarray
    a: np.ndarray
    b: np.ndarray


def write_densely(lp: BlockLp) -> DenseLp:
    """Write one program (no batch axis) with a matrix. Columns: x by type, then shortfalls where they are allowed."""
    types, own_rows, columns = lp.own.shape
    slots = lp.common.shape[1]
    fall = 0 if lp.shortfall_cost is None else types
    rows, limits = [], []

    def add_row(limit: float, x: np.ndarray, shortfall: np.ndarray | None = None) -> None:
        rows.append(np.concatenate([x.ravel(), np.zeros(fall) if shortfall is None else shortfall[:fall]]))
        limits.append(limit)

    for i in range(types):
        for r in range(own_rows):
            row = np.zeros((types, columns))
            row[i] = lp.own[i, r]
            add_row(lp.own_limit[i, r], row)
    for i in range(types):
        row = np.zeros((types, columns))
        row[i] = -lp.own[i, 0]
        add_row(-lp.floor[i], row, -np.eye(types)[i])
    for q in range(2):
        for d in range(slots):
            row = np.zeros((types, columns))
            row[:, d] = lp.slot[q, :, d]
            add_row(1.0, row)
    row = np.zeros((types, columns))
    row[:, :slots] = lp.common
    add_row(float(lp.common_limit), row)
    shortfall_cost = [] if lp.shortfall_cost is None else [lp.shortfall_cost]
    return DenseLp(np.concatenate([np.ravel(lp.cost), *shortfall_cost]), np.array(rows), np.array(limits))


def solve_plainly(lp: BlockLp, iterations: int) -> tuple[np.ndarray, np.ndarray]:
    """Run the method for so many iterations: columns v and prices y, in the order of `write_densely`."""
    c, a, b = write_densely(lp)
    v = np.full(len(c), 0.3)
    s = np.maximum(b - a @ v, 0.3)
    z, y = np.full(len(c), 0.1), np.full(len(b), 0.1)
    count = len(c) + len(b)

    for _ in range(iterations):
        primal, dual = a @ v + s - b, c + a.T @ y - z
        mean = (v @ z + s @ y) / count
        if mean <= 1e-13:
            break
        matrix = (a * (v / z)) @ a.T + np.diag(s / y)

        def find_step(fall_vz, fall_sy, v=v, s=s, z=z, y=y, primal=primal, dual=dual, matrix=matrix):
            """dv, ds, dz, dy that take v z and s y to their present values less ``fall_vz``, ``fall_sy``."""
            right = -dual - fall_vz / v
            dy = np.linalg.solve(matrix, primal - fall_sy / y + a @ (v / z * right))
            dv = v / z * (right - a.T @ dy)
            return dv, -primal - a @ dv, -(fall_vz + z * dv) / v, dy

        def longest(values, moves):
            ratios = [-value / move for value, move in zip(values, moves, strict=True) if move < 0]
            return min([1.0, *ratios])

        def lengths(step, v=v, s=s, z=z, y=y):
            dv, ds, dz, dy = step
            primal_length = longest([*v, *s], [*dv, *ds])
            return primal_length, longest([*z, *y], [*dz, *dy])

        predictor = dv, ds, dz, dy = find_step(v * z, s * y)
        p, d = lengths(predictor)
        ahead = (v + p * dv) @ (z + d * dz) + (s + p * ds) @ (y + d * dy)
        target = mean * (ahead / (count * mean)) ** 3
        corrector = dv, ds, dz, dy = find_step(v * z + dv * dz - target, s * y + ds * dy - target)
        p, d = (0.995 * length for length in lengths(corrector))
        v, s, z, y = v + p * dv, s + p * ds, z + d * dz, y + d * dy
    return v, y
