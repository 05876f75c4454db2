"""The engine of a cluster: shares of it, the same rows as on one machine, and workers that die."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pandas as pd
import pytest

from rodiu_jax.catalog.sampling import sample
from rodiu_jax.errors import InputError
from rodiu_jax.sweeps import read_rows, sweep
from rodiu_jax.sweeps.engines.chunks import rows_of_chunk
from rodiu_jax.sweeps.engines.ray_cluster import Share, shares
from rodiu_jax.sweeps.spec import SweepSpec, make_spec

GPUS = [(32, 4), (16, 2), (8, 0)]


@pytest.mark.parametrize(
    ("nodes", "workers", "count", "share"),
    [
        ([(8, 0)], None, 1, Share(8, 0)),
        ([(8, 0), (4, 0)], None, 2, Share(4, 0)),
        ([(8, 0)], 3, 3, Share(2, 0)),
        ([(3, 0), (3, 0)], 3, 3, Share(1, 0)),
        ([(1, 0), (1, 0), (0, 0)], 2, 2, Share(1, 0)),
        (GPUS, None, 6, Share(8, 1)),
        (GPUS, 2, 2, Share(8, 1)),
    ],
)
def test_workers_share_the_cluster(nodes, workers, count, share):
    assert shares(nodes, workers) == (count, share)


@pytest.mark.parametrize(("nodes", "workers"), [([(2, 0)], 3), (GPUS, 7)])
def test_more_workers_than_there_is_room_for_are_refused(nodes, workers):
    with pytest.raises(
        InputError, match=f"sweep: workers: got {workers}, expected at most {workers - 1}, the"
    ):
        shares(nodes, workers)


@pytest.mark.parametrize(
    ("method", "left", "workers", "rows"),
    [
        ("cascade", 100, 2, 256),
        ("cascade", 8_000, 2, 500),
        ("bracket", 10**6, 2, 1024),
        ("exact", 10**6, 2, 256),
        ("evaluate", 10**6, 2, 4096),
    ],
)
def test_tasks_are_larger_where_there_are_many_brackets(method, left, workers, rows):
    assert rows_of_chunk(method, left, workers) == rows


def test_a_gpu_gets_larger_tasks_of_brackets():
    assert rows_of_chunk("bracket", 10**6, 2, gpus=1) == 32 * 1024
    assert rows_of_chunk("cascade", 8_000, 2, gpus=1) == 500, "each worker still has eight"
    assert rows_of_chunk("exact", 10**6, 2, gpus=1) == 256, "HiGHS gains nothing"


def test_engines_that_do_not_exist_are_refused(tmp_path):
    with pytest.raises(InputError, match="sweep: engine: got 'moon', expected one of local, ray"):
        sweep(given(), tmp_path / "out", engine="moon", quiet=True)
    with pytest.raises(InputError, match="sweep: address: got 'here', expected engine ray beside it"):
        sweep(given(), tmp_path / "out", address="here", quiet=True)
    assert not (tmp_path / "out").exists()


def given() -> SweepSpec:
    """Given plans over a grid: quick, and the same sampler as ever."""
    names = sample("seed", n=1).query_names
    plan = {
        "instance": None,
        "deployments": [{"model": "Llama-3.1-8B", "gpu": "H100_FP16", "tp": 8}],
        "routes": [{"query": q, "model": "Llama-3.1-8B", "gpu": "H100_FP16", "share": 0.9} for q in names],
        "unmet": dict.fromkeys(names, 0.1),
    }
    return make_spec(
        {
            "name": "cluster",
            "title": "On a cluster",
            "catalog": "corrected",
            "method": "evaluate",
            "plans": [json.dumps(plan)],
            "samples": 60,
            "factors": [
                {"field": "error_threshold", "scale": [0.2, 0.3, 0.5, 0.7, 1.0]},
                {"field": "gpu_price", "names": "H100_*", "scale": [0.5, 1.0]},
            ],
        }
    )


def kill_a_worker(folder: Path, victims: list[int]) -> None:
    """Once rows are on disk: kill a process that answers rows."""
    while len(list(folder.glob("scenarios/part-*"))) < 3:
        time.sleep(0.01)
    for status in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            if b"ray::answer_chunk" in status.read_bytes():
                victims.append(int(status.parent.name))
                os.kill(victims[0], signal.SIGKILL)
                return


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds the worker to kill in /proc")
@pytest.mark.filterwarnings("default")  # Ray's own
def test_two_nodes_lose_a_worker_and_give_the_same_rows(tmp_path):
    """Bit for bit those of one machine; what the dead worker had is done again and said."""
    pytest.importorskip("ray", reason="needs Ray: pip install 'rodiu-jax[cluster]'")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    out, victims = tmp_path / "cluster", []
    try:
        cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        killer = threading.Thread(target=kill_a_worker, args=(out, victims), daemon=True)
        killer.start()
        log = tmp_path / "log.jsonl"
        rows = sweep(given(), out, engine="ray", address=cluster.address, chunk=8, quiet=True, log=log)
        killer.join()
    finally:
        cluster.shutdown()
    here = sweep(given(), tmp_path / "here", quiet=True)
    pd.testing.assert_frame_equal(
        rows.drop(columns="seconds"), here.drop(columns="seconds"), check_exact=True
    )
    assert set(here["status"]) == {"feasible", "unknown"}
    assert len(victims) == 1
    events = [json.loads(line) for line in log.read_text().splitlines()]
    faults = [e["message"] for e in events if e["event"] == "fault"]
    assert faults
    assert all("died; they are done again" in fault for fault in faults)
    assert sum(e["rows"] for e in events if e["event"] == "part") == 600
    made = json.loads((out / "manifest.json").read_text())
    assert made["runs"][-1]["devices"] == ["cpu"]


def test_no_cluster_at_the_address(tmp_path):
    pytest.importorskip("ray", reason="needs Ray: pip install 'rodiu-jax[cluster]'")
    with pytest.raises(
        InputError, match=r"sweep: address: got '127\.0\.0\.1:1', expected a running Ray cluster \("
    ):
        sweep(given(), tmp_path / "out", engine="ray", address="127.0.0.1:1", quiet=True)
    assert not (tmp_path / "out").exists()


INTERRUPTED = """
import signal
from rodiu_jax.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)
main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals process groups")
@pytest.mark.slow
def test_ctrl_c_keeps_the_rows_and_ends_in_one_line(tmp_path):
    """It reaches the whole process group, Ray's processes too."""
    pytest.importorskip("ray", reason="needs Ray: pip install 'rodiu-jax[cluster]'")
    out, plans = tmp_path / "out", tmp_path / "plans.json"
    plans.write_text(f"[{given().plan_texts[0]}]")
    asked = ["--catalog", "corrected", "--samples", "700", "--method", "evaluate", "--plans", str(plans)]
    child = subprocess.Popen(
        [
            sys.executable,
            "-c",
            INTERRUPTED,
            "sweep",
            "cost-budget",
            "-o",
            str(out),
            "--engine",
            "ray",
            *asked,
        ],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    while child.poll() is None and not list(out.glob("scenarios/part-*")):
        time.sleep(0.02)
    os.killpg(child.pid, signal.SIGINT)
    _, told = child.communicate(timeout=60)
    kept = len(read_rows(out))
    assert (child.returncode, told) == (
        1,
        f"rodiu: interrupted: {kept} of 21000 rows are kept in {out}/scenarios; go on with --resume\n",
    )
    assert 0 < kept < 21_000
