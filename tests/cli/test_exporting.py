"""`rodiu export`: files in a folder or on standard output, and refusals in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

import rodiu_jax as rj
from tests.cli.calls import Run, answered, refused
from tests.export.fleets import LABELS, PLAN


@pytest.fixture
def plan(here: Path) -> str:
    rj.save_plans([PLAN], here / "plan.json")
    return "plan.json"


def test_files_are_printed_or_written(rodiu: Run, plan: str):
    for to in ("nginx", "skypilot"):
        files = rj.export_plan(plan, to)
        printed = answered(rodiu("export", plan, "--to", to)).out
        heads = [f"# ---- {name}\n" if len(files) > 1 else "" for name in files]
        assert printed == "".join(h + t for h, t in zip(heads, files.values(), strict=True))
        said = answered(rodiu("export", plan, "--to", to, "-o", f"out/{to}")).out
        assert said == f"{', '.join(files)} written to out/{to}.\n"
        assert {path.name: path.read_text() for path in Path("out", to).iterdir()} == files


def test_every_option_changes_its_files(rodiu: Run, plan: str):
    router = (
        "--backend",
        f"{LABELS[0]}=10.0.0.1:1,10.0.0.2:2",
        "--elsewhere",
        "https://a.example/v1",
        "--namespace",
        "n",
    )
    text = answered(rodiu("export", plan, "--to", "nginx", *router, "--listen", 81, "--port", 82)).out
    for part in ("server 10.0.0.1:1;", "server 10.0.0.2:2;", "proxy_pass https://a.example;", "listen 81;"):
        assert part in text
    assert f"server {LABELS[1]}.n.svc.cluster.local:82;" in text
    engine = (
        "--model-id",
        "Qwen3-8B=me/mine",
        "--port",
        9,
        "--memory-utilization",
        0.5,
        "--catalog",
        "serving",
    )
    cluster = ("--image", "img:1", "--namespace", "n", "--gpu-name", "L40S=Mine", "--plan", 0)
    documents = yaml.safe_load_all(
        answered(rodiu("export", plan, "--to", "kubernetes", *engine, *cluster)).out
    )
    pod = [d for d in documents if d["kind"] == "Deployment"][-1]["spec"]["template"]["spec"]
    command = pod["containers"][0]["command"]
    assert command[2] == "me/mine"
    assert command[command.index("--gpu-memory-utilization") + 1] == "0.5"
    assert command[-1] == "9"
    assert pod["nodeSelector"] == {"nvidia.com/gpu.product": "Mine"}
    assert pod["containers"][0]["image"] == "img:1"


BAD = {
    "no format": ((), ("--to", "Missing")),
    "unknown format": (("--to", "ngnix"), ("--to", "'ngnix'", "kubernetes, nginx, litellm", "mean nginx")),
    "another plan": (("--to", "vllm", "--plan", "1"), ("--plan", "'1'", "from 0 to 0")),
    "no pair": (("--to", "vllm", "--model-id", "Qwen3-8B"), ("--model-id", "NAME=VALUE")),
    "twice": (("--to", "vllm", "--model-id", "Qwen3-8B=a", "--model-id", "Qwen3-8B=b"), ("--model-id", "once")),
    "of no use": (("--to", "vllm", "--listen", "81"), ("--listen", "nginx alone")),
    "port of words": (("--to", "vllm", "--port", "x"), ("--port", "'x'")),
    "memory of nothing": (("--to", "vllm", "--memory-utilization", "nan"), ("--memory-utilization", "nan")),
    "other catalogue": (("--to", "vllm", "--catalog", "seed"), ("[0].deployments[0].gpu", "'H100'", "mean H100_")),
    "no catalogue": (("--to", "vllm", "--catalog", "sead"), ("sead", "did you mean seed")),
    "bad folder": (("--to", "vllm", "-o", "tiny.toml/x"), ("tiny.toml", "folder")),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_usage(rodiu: Run, plan: str, case: str):
    arguments, needles = BAD[case]
    refused(rodiu, "export", plan, *arguments, needles=needles)


def test_no_plan(rodiu: Run, here: Path):
    refused(rodiu, "export", "nowhere", "--to", "vllm", needles=("nowhere", "readable file"))
    refused(rodiu, "export", ".", "--to", "vllm", needles=("plan.json", "folder of `rodiu plan`"))
