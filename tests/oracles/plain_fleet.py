"""The plain formulation of MODEL section 9 in HiGHS: a peer in time and a witness in value.

Per triple t (model, GPU, degree) r whole, w binary, x <= w <= r <= R w; one degree per pair; load rows with the dual of
the adversary; quotas. For scenarios in which only rent and unmet traffic cost and nothing but these rows binds.
"""

from __future__ import annotations

import math
import time

import highspy
import numpy as np
from scipy.sparse import coo_array

from rodiu_jax.model.instance import Instances
from tests.oracles.published import Outcome


def solve_plain(
    instances: Instances, b: int, *, gap: float = 1e-7, time_limit: float = math.inf, relax: bool = False
) -> Outcome:
    """Solve scenario ``b`` on one thread with HiGHS's defaults.

    Args:
      relax: solve the linear relaxation.
    """
    began = time.perf_counter()
    f = instances.one(b)
    types, models, gpus, degrees = instances.shape
    count = models * gpus * degrees
    _, gpu, degree = np.unravel_index(np.arange(count), (models, gpus, degrees))
    pair = np.arange(count) // degrees
    most = np.broadcast_to(f.max_replicas, (models, gpus)).ravel()[pair].astype(float)
    size = f.tp_degree[degree].astype(float)
    rate = f.throughput.reshape(types, count)
    able = rate > 0
    load = np.where(able, f.arrival_rate[:, None] / np.where(able, rate, 1.0), 0.0)
    short = np.broadcast_to(f.throughput_shortfall, (types, models, gpus)).reshape(types, -1)[:, pair]
    extra = load * short / (1.0 - short)
    gamma = 0.0 if instances.uncertainty == "none" else float(f.gamma_throughput)

    i, t = np.nonzero(able)
    # Columns: w, r (T each), x (one per able cell), u (I), the adversary's level (T) and excess (one per cell)
    w, r = np.arange(count), count + np.arange(count)
    x = 2 * count + np.arange(len(i))
    u = x[-1] + 1 + np.arange(types) if len(x) else 2 * count + np.arange(types)
    level, above = u[-1] + 1 + np.arange(count), u[-1] + 1 + count + np.arange(len(i))
    width = int(above[-1] if len(above) else level[-1]) + 1
    cost, top, whole = np.zeros(width), np.full(width, np.inf), np.zeros(width, np.int32)
    cost[r] = f.rental_hours * f.gpu_price[gpu] * size
    cost[u] = f.rental_hours * f.unmet_penalty * f.arrival_rate
    top[w], top[r], top[x], top[u] = 1.0, most, 1.0, float(f.unmet_cap)
    whole[w] = whole[r] = 0 if relax else 1
    if gamma == 0.0:
        top[level] = top[above] = 0.0

    entries: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    low: list[np.ndarray] = []
    high: list[np.ndarray] = []

    def rows(number: int, least: float | np.ndarray, largest: float | np.ndarray) -> np.ndarray:
        first = sum(map(len, low))
        low.append(np.broadcast_to(least, number))
        high.append(np.broadcast_to(largest, number))
        return first + np.arange(number)

    def put(row: np.ndarray, column: np.ndarray, value: float | np.ndarray) -> None:
        entries.append((row, column, np.broadcast_to(value, row.shape)))

    row = rows(types, 1.0, 1.0)
    put(row[i], x, 1.0)
    put(row, u, 1.0)
    row = rows(len(i), -np.inf, 0.0)  # x <= w
    put(row, x, 1.0)
    put(row, w[t], -1.0)
    row = rows(count, -np.inf, 0.0)  # w <= r
    put(row, w, 1.0)
    put(row, r, -1.0)
    row = rows(count, -np.inf, 0.0)  # r <= R w
    put(row, r, 1.0)
    put(row, w, -most)
    put(rows(models * gpus, -np.inf, 1.0)[pair], w, 1.0)
    row = rows(count, -np.inf, 0.0)  # load
    put(row[t], x, load[i, t])
    put(row, r, -float(f.max_utilization))
    if gamma > 0.0:
        put(row, level, gamma)
        put(row[t], above, 1.0)
        row = rows(len(i), -np.inf, 0.0)
        put(row, x, extra[i, t])
        put(row, level[t], -1.0)
        put(row, above, -1.0)
    quota = np.broadcast_to(f.gpu_quota, gpus)
    for device in sorted(set(instances.gpu_devices)):
        mine = np.array([instances.gpu_devices[k] == device for k in gpu.tolist()])
        limit = float(quota[instances.gpu_devices.index(device)])
        if math.isfinite(limit):
            put(np.broadcast_to(rows(1, -np.inf, limit), int(mine.sum())), r[mine], size[mine])
    at, column, value = (np.concatenate([e[part] for e in entries]) for part in range(3))
    matrix = coo_array((value, (at, column)), shape=(sum(map(len, low)), width)).tocsr()

    solver = highspy.Highs()
    solver.silent()
    options = {"threads": 1, "mip_rel_gap": gap, "mip_abs_gap": 0.0, "time_limit": time_limit}
    for option, setting in options.items():
        assert solver.setOptionValue(option, setting) == highspy.HighsStatus.kOk, option
    status = solver.passModel(
        width, matrix.shape[0], matrix.nnz, int(highspy.MatrixFormat.kRowwise), int(highspy.ObjSense.kMinimize),
        0.0, cost, np.zeros(width), top, np.concatenate(low), np.concatenate(high),
        matrix.indptr.astype(np.int32), matrix.indices.astype(np.int32), matrix.data, whole,
    )  # fmt: skip
    assert status == highspy.HighsStatus.kOk
    solver.run()
    info, optimal = solver.getInfo(), solver.getModelStatus() == highspy.HighsModelStatus.kOptimal
    objective = float(info.objective_function_value)
    bound = objective if relax and optimal else float(info.mip_dual_bound)
    return Outcome(optimal, objective, bound, time.perf_counter() - began)
