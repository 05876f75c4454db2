"""A small sweep by a method that answers at once, and what may befall it."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd

from rodiu_jax.catalog.sampling import sample
from rodiu_jax.cli.sweeps import sweep as command
from rodiu_jax.model.plan import DeployedPair, Plan, Route
from rodiu_jax.model.status import Status
from rodiu_jax.sweeps import MethodInfo, sweep
from rodiu_jax.sweeps.spec import SweepSpec, make_spec
from solvers.answers import Answer, Answers

assert command.params, "the command's options are made before `fake` is a method"


def answer(instances, b: int) -> Answer:
    """An answer worked out from the scenario, so that rows tell which scenario they belong to."""
    fields = instances.one(b)
    costs = {
        "rental_cost": float(np.sum(fields.gpu_price)),
        "storage_cost": float(fields.storage_price),
        "delay_cost": float(np.sum(fields.delay_penalty)),
        "unmet_cost": float(fields.budget) / 1000.0,
    }
    total = sum(costs.values())
    plan = Plan(
        None,
        (DeployedPair("Llama-3.2-1B", "H100_FP16", 2), DeployedPair("Llama-3.2-3B", "A6000_INT8", 1)),
        (Route("Code_Gen", "Llama-3.2-1B", "H100_FP16", 1.0),),
        {"Summarization": 1.0, "Video_Gen": 0.5},
    )
    costs["total_cost"] = total
    return Answer.of(
        instances.names, Status.GAP_LIMIT, plan=plan, costs=costs, lower=0.99 * total, seconds=0.25
    )


def fake(instances, **_):
    """Answers at once; one scenario in seven has no plan."""
    for b in range(instances.size):
        if int(instances.one(b).storage_price * 1e7) % 7 == 0:
            one = Answer.of(instances.names, Status.TIME_LIMIT, lower=1.0, seconds=1.0)
        else:
            one = answer(instances, b)
        yield Answers.stack([one], names=instances.names)


def toy(call) -> MethodInfo:
    """The method ``fake``: ``call`` with every property that a method can have, but for plans."""
    return MethodInfo("fake", call, audits=True, certifies=True)


class Stopping:
    """The fake method, ended by ``error`` after ``count`` answers in all."""

    def __init__(self, count: int, error: BaseException) -> None:
        self.left, self.error, self.closed = count, error, 0

    def __call__(self, instances, **options):
        try:
            for result in fake(instances, **options):
                if self.left == 0:
                    raise self.error
                self.left -= 1
                yield result
        finally:
            self.closed += 1


def spec(**changes) -> SweepSpec:
    values = {
        "name": "small",
        "title": "A small sweep",
        "method": "fake",
        "samples": 3,
        "factors": [
            {"field": "gpu_price", "names": "H100_*", "scale": [0.5, 1.0, 2.0]},
            {"field": "budget", "value": [100.0, 2000.0]},
        ],
    }
    return make_spec(values | changes)


GOOD = {"field": "budget", "scale": [1.0]}


def plan_json(*, model="Llama-3.2-3B", tp=8, share=0.9) -> dict:
    """One pair for all but a tenth of the traffic."""
    names = sample("seed", n=1).query_names
    return {
        "instance": 5,
        "deployments": [{"model": model, "gpu": "H100_FP16", "tp": tp}],
        "routes": [{"query": q, "model": model, "gpu": "H100_FP16", "share": share} for q in names],
        "unmet": dict.fromkeys(names, 1.0 - share),
    }


def run(out, a_spec=None, **options) -> pd.DataFrame:
    return sweep(a_spec or spec(), out, quiet=True, **options)


def parts(out) -> list[str]:
    return sorted(p.name for p in (out / "scenarios").iterdir())


def recount(folder: Path) -> dict[str, str]:
    """What the index of parts must say: the SHA-256 of every file of rows and certificates."""
    files = [p for place in ("scenarios", "certificates") for p in (folder / place).glob("*")]
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def indexed(folder: Path) -> dict[str, str]:
    """What the index of parts says, read as the JSON lines that it promises to be; the last about a file counts."""
    lines = map(json.loads, (folder / "parts.jsonl").read_text().splitlines())
    return {line["file"]: line["sha256"] for line in lines}


def damage(path: Path, how: str) -> None:
    data = path.read_bytes()
    if how == "truncated":
        path.write_bytes(data[: len(data) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "flipped":  # inside the first page: only its checksum can tell
        path.write_bytes(data[:40] + bytes([data[40] ^ 0x10]) + data[41:])
    elif how == "other rows":
        path.write_bytes((path.parent / "part-000000000000-4.parquet").read_bytes())
    else:
        path.rename(path.with_name("part-000000000002-4.parquet"))
