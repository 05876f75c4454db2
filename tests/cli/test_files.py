"""Files of scenarios and of plans that are damaged, incomplete or about something else."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cli.calls import Run, drawn, nothing, refused


def rewritten(**changes: Any) -> Callable[[], None]:
    """Replaces arrays of ``in.npz``; None takes one out, a function gets the old one."""

    def change() -> None:
        with np.load("in.npz") as archive:
            arrays = {name: archive[name] for name in archive.files}
        for name, value in changes.items():
            if value is None:
                del arrays[name]
            else:
                arrays[name] = value(arrays[name].copy()) if callable(value) else value
        np.savez("in.npz", **arrays)

    return change


def first_is(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(array: np.ndarray) -> np.ndarray:
        array.flat[0] = value
        return array

    return change


def one_array() -> None:
    with Path("in.npz").open("wb") as stream:
        np.save(stream, np.ones(3))


BAD_INSTANCES = {
    "missing field": (rewritten(budget=None), "budget", "missing"),
    "missing names": (rewritten(gpu_names=None), "gpu_names", "missing"),
    "missing mode": (rewritten(uncertainty=None), "uncertainty", "missing"),
    "unknown field": (rewritten(bugdet=np.ones(2)), "bugdet", "only the fields", "did you mean budget"),
    "wrong shape": (rewritten(gpu_memory=np.ones(3)), "gpu_memory", "(3,)", "(2,)"),
    "batch sizes that differ": (rewritten(budget=np.ones(5)), "budget", "5"),
    "text for numbers": (rewritten(budget=np.array("much")), "budget", "numbers"),
    "complex numbers": (rewritten(budget=np.array(1j)), "budget", "complex"),
    "NaN": (rewritten(gpu_price=first_is(np.nan)), "gpu_price[0,0]", "nan"),
    "infinity": (rewritten(arrival_rate=first_is(np.inf)), "arrival_rate[0,0]", "inf"),
    "negative rate": (rewritten(arrival_rate=first_is(-3.0)), "arrival_rate[0,0]", "-3.0", "queries/h"),
    "negative Gamma": (rewritten(gamma_delay=np.array(-1.0)), "gamma_delay", "-1.0"),
    "share above 1": (rewritten(unmet_cap=np.array(1.5)), "unmet_cap", "1.5"),
    "half a degree": (rewritten(tp_degree=np.array([1.0, 1.5])), "tp_degree", "1.5"),
    "unknown mode": (rewritten(uncertainty=np.array("dddu")), "uncertainty", "'dddu'", "ddu"),
    "doubled name": (rewritten(gpu_names=np.array(["a", "a"])), "gpu_names", "'a'", "distinct"),
    "pickled names": (rewritten(gpu_names=np.array(["a", "b"], dtype=object)), "pickle"),
    "no scenario": (rewritten(arrival_rate=np.ones((0, 2))), "arrival_rate"),
    "truncated file": (lambda: os.truncate("in.npz", os.path.getsize("in.npz") // 2), ".npz"),
    "nearly whole file": (lambda: os.truncate("in.npz", os.path.getsize("in.npz") - 1), ".npz"),
    "empty file": (lambda: os.truncate("in.npz", 0), ".npz"),
    "not an archive": (lambda: Path("in.npz").write_text("[]"), ".npz"),
    "one array": (one_array, "an .npz archive, not a single array"),
    "no such file": (lambda: Path("in.npz").unlink(), "No such file"),
    "a folder": (lambda: (Path("in.npz").unlink(), Path("in.npz").mkdir()), "directory"),
}


@pytest.mark.parametrize("what", BAD_INSTANCES)
def test_bad_instances(rodiu: Run, here: Path, what: str):
    change, *needles = BAD_INSTANCES[what]
    drawn(here)
    change()
    refused(rodiu, "evaluate", "in.npz", "plans.json", "-o", "made", needles=("in.npz", *needles))
    refused(rodiu, "solve", "in.npz", "--json", needles=("in.npz", *needles))


PAIR = {"model": "Llama-3.1-8B", "gpu": "H100_FP16"}


DEPLOYED = nothing(0) | {"deployments": [PAIR | {"tp": 2}]}


def route(**changes: Any) -> dict[str, Any]:
    return {"query": "Code_Gen", **PAIR, "share": 0.5} | changes


BAD_PLANS = {
    "not JSON": ("[{", "line 1 column 3", "JSON"),
    "NaN": (json.dumps([nothing(0) | {"unmet": {"Code_Gen": float("nan")}}]), "NaN", "finite"),
    "infinity": ('[{"instance": 1e999}]', "finite"),
    "not a list": (nothing(0), "list of plans"),
    "output of solve": ([{"status": "optimal", "plan": nothing(0)}], "[0]", "rodiu solve --plans"),
    "missing field": ([{k: v for k, v in nothing(0).items() if k != "routes"}], "[0].routes", "missing"),
    "unknown field": (
        [nothing(0) | {"rutes": []}],
        "[0]: got 'rutes'",
        "only the keys",
        "did you mean routes?",
    ),
    "in the second plan": ([nothing(0), nothing(7)], "[1].instance", "7", "from 0 to 1"),
    "instance of another type": ([nothing(0) | {"instance": "0"}], "[0].instance", "'0'"),
    "unknown model": (
        [nothing(0) | {"deployments": [{"model": "Lama", "gpu": "H100_FP16", "tp": 1}]}],
        *("[0].deployments[0].model", "'Lama'", "Llama-3.1-8B"),
    ),
    "unknown query": ([nothing(0) | {"unmet": {"Chat": 1.0}}], "[0].unmet", "'Chat'", "Code_Gen"),
    "degree that is not offered": (
        [nothing(0) | {"deployments": [PAIR | {"tp": 3}]}],
        *("[0].deployments[0].tp", "got 3", "1, 2"),
    ),
    "share on a pair not deployed": (
        [nothing(0) | {"routes": [route()]}],
        *("[0].routes[0]", "Llama-3.1-8B on H100_FP16", "deploys"),
    ),
    "negative share": (
        [DEPLOYED | {"routes": [route(share=-0.1)]}],
        "[0].routes[0].share",
        "-0.1",
        "(a share)",
    ),
    "share of another type": ([DEPLOYED | {"routes": [route(share="1")]}], "[0].routes[0].share", "'1'"),
    "share of 400 digits": (
        json.dumps([DEPLOYED | {"routes": [route(share=7)]}]).replace("7}", "9" * 400 + "}"),
        *("999", "finite"),
    ),
    "instance of 5,000 digits": ('[{"instance": ' + "9" * 5000 + "}]", "999", "finite"),
    "query twice": ('[{"unmet": {"Code_Gen": 1.0, "Code_Gen": 0.5}}]', "Code_Gen", "once"),
    "route twice": ([DEPLOYED | {"routes": [route(), route()]}], "[0].routes[1]", "once"),
    "pair twice": (
        [nothing(0) | {"deployments": [PAIR | {"tp": 1}, PAIR | {"tp": 2}]}],
        *("[0].deployments[1]", "once"),
    ),
    "not text": (b"\xff\xfe[]", "UTF-8"),
}


@pytest.mark.parametrize("what", BAD_PLANS)
def test_bad_plans(rodiu: Run, here: Path, what: str):
    content, *needles = BAD_PLANS[what]
    drawn(here)
    if isinstance(content, bytes):
        Path("plans.json").write_bytes(content)
    else:
        Path("plans.json").write_text(content if isinstance(content, str) else json.dumps(content))
    refused(rodiu, "evaluate", "in.npz", "plans.json", "-o", "made", needles=("plans.json", *needles))
