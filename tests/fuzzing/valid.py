"""A folder with one valid file of every format, all about the same two tiny scenarios."""

import json
import shutil
import tomllib
from pathlib import Path

import numpy as np

from rodiu_jax.catalog import load_catalog
from solvers.exact import solve_instance
from tests.decisions.plan_folders import make_plan_folder
from tests.fuzzing.run import rodiu
from tests.oracles.planning import SMALL
from tests.oracles.tiny import TINY

UNCERTAIN = (
    TINY
    + """[quantity.budget]
each = { uniform = [4000, 6000], source = "here", reliability = 3 }
[quantity.gpu_price.values]
A6000_FP16 = { log_uniform = [0.5, 0.8] }
H100_FP16 = { normal = { mean = 2.5, sd = 0.1, low = 2.0, high = 3.0 } }
"""
)
SWEEP = """
name = "two budgets"
title = "Cost by budget"
question = "?"
catalog = "tiny.toml"
uncertainty = "ddu"
samples = 2
seed = 3
method = "bracket"
gap = 0.01
certificates = true
set = ["gpu_price*=0.9"]
[design]
kind = "grid"
[[factors]]
field = "budget"
scale = [0.1, 1.0]
[[factors]]
field = "gpu_price"
names = "H100_*"
value = [2.0, 3.0]
"""
DRAWN = """
name = "drawn"
title = "Drawn"
catalog = "tiny.toml"
samples = 1
method = "cascade"
exact = "top"
top = 2
by = "gap"
audit = 0.5
time_limit = 10
[design]
kind = "morris"
points = 4
levels = 4
seed = 1
[[factors]]
field = "budget"
shift = [-100, 100]
[[factors]]
field = "gpu_price"
spacing = "log"
scale = [0.5, 2.0]
"""
POINTS = """
name = "points"
title = "Points"
catalog = "tiny.toml"
design = { kind = "points", file = "points.csv" }
[[factors]]
field = "budget"
scale = "b"
[[factors]]
field = "gpu_price"
value = "p"
"""
TRACE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:17:03.9799600,4808,10
2023-11-16 18:20:12.4342300,163,13
2023-11-16 18:24:03.1,12,0
2023-11-16T18:29:20.3424050,2862,1300
2023-11-16 18:30:03.9799600,7,7
"""


def make(folder: Path) -> dict[int, float]:
    """Write the files; the exact optimum of each scenario of ``two.npz``, by HiGHS."""
    for name, text in {
        "tiny.toml": UNCERTAIN, "sweep.toml": SWEEP, "drawn.toml": DRAWN, "points.toml": POINTS, "trace.csv": TRACE,
        "points.csv": "b,p\n0.5,2\n1,2.5\n1.5,3\n", "rated.toml": SMALL,
    }.items():  # fmt: skip
        (folder / name).write_text(text)
    shutil.copy(load_catalog("seed").path, folder / "whole.toml")
    make_plan_folder(folder / "plan")
    done = [
        rodiu("sample", "--catalog", folder / "tiny.toml", "--n", 2, "--seed", 1, "-o", folder / "two.npz"),
        rodiu(
            "bound",
            folder / "two.npz",
            "-o",
            folder / "bounds.parquet",
            "--plans",
            folder / "plans.json",
            "--certificates",
            folder / "certificates.parquet",
        ),
        rodiu("evaluate", folder / "two.npz", folder / "plans.json", "-o", folder / "scores.parquet"),
        rodiu("sweep", folder / "sweep.toml", "-o", folder / "out", "--quiet"),
    ]
    assert [ran.code for ran in done] == [0] * len(done), done
    rng = np.random.default_rng(0)
    rows = [
        f"{a},{b},{a * 2 + b + rng.normal():.6g},{c}"
        for a in (1, 2, 3) for b in (0.5, 1.5) for c in range(3)
    ]  # fmt: skip
    (folder / "table.csv").write_text("\n".join(["a,b,y,sample", *rows, ""]))
    from rodiu_jax.model.npz import load_instances

    batch = load_instances(folder / "two.npz")
    return {b: solve_instance(batch, b).upper for b in range(batch.size)}


def tree(path: Path) -> object:
    """What a TOML or JSON file holds."""
    return tomllib.loads(path.read_text()) if path.suffix == ".toml" else json.loads(path.read_text())
