"""Every format read back by what reads it, and compared with the plan."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from rodiu_jax.errors import InputError
from rodiu_jax.export import FORMATS, export_plan
from rodiu_jax.model.plan import DeployedPair, Plan, Route
from tests.export.fleets import HOSTILE, LABELS, PLAN, SHARES, export_ours, hostile_fleet

REPOSITORIES = ("meta-llama/Llama-3.1-8B-Instruct", "Qwen/Qwen3-30B-A3B", "Qwen/Qwen3-8B")
SERVED = ("chat document-qa", "chat code-generation document-qa", "chat document-qa")
BATCHES = (512, 512, 112)
"""Requests at once at the fastest points of the curves: of Qwen3-8B on 4 x L40S 16,776 an hour, each in 24.032 s."""


def engine_words(position: int, port: int, memory: str = "0.9") -> list[str]:
    """What starts a replica of a pool of `PLAN`, by hand."""
    pair = PLAN.deployments[position]
    repository = REPOSITORIES[position]
    return [
        *("vllm", "serve", repository, "--served-model-name", repository, *SERVED[position].split()),
        *("--tensor-parallel-size", str(pair.tp), "--gpu-memory-utilization", memory),
        *("--max-num-seqs", str(BATCHES[position]), "--host", "0.0.0.0", "--port", str(port)),
    ]


def run_script(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """Run the script with a `vllm` in its path that writes its words, one a line."""
    stub = folder / "vllm"
    stub.write_text('#!/bin/sh\nprintf "%s\\n" vllm "$@"\n')
    stub.chmod(0o755)
    path = {"PATH": f"{folder}:{os.environ['PATH']}"}
    return subprocess.run(
        ["sh", folder / "vllm.sh", *args], capture_output=True, text=True, env=path, timeout=20
    )


def test_the_script_starts_every_replica(tmp_path: Path):
    (text,) = export_ours(PLAN, "vllm", port=9000, memory_utilization=0.85).values()
    (tmp_path / "vllm.sh").write_text(text)
    listed = run_script(tmp_path)
    assert listed.returncode == 2
    replicas = [line.split()[0] for line in listed.stdout.splitlines()[1:]]
    expected = [
        f"{label}-{n}"
        for label, d in zip(LABELS, PLAN.deployments, strict=True)
        for n in range(1, d.replicas + 1)
    ]
    assert replicas == expected
    for offset, replica in enumerate(replicas):
        done = run_script(tmp_path, replica)
        words = engine_words(LABELS.index(replica.rpartition("-")[0]), 9000 + offset, "0.85")
        assert (done.returncode, done.stdout.splitlines()) == (0, words)


def load_kubernetes(**settings: Any) -> list[dict[str, Any]]:
    (text,) = export_ours(PLAN, "kubernetes", **settings).values()
    return list(yaml.safe_load_all(text))


def test_kubernetes_has_the_replicas_and_gpus_of_the_plan():
    documents = load_kubernetes(
        namespace="llm", image="registry.example/vllm:1", gpu_names={"L40S": "NVIDIA-L40S-PCIe"}
    )
    products = ("NVIDIA-H100-80GB-HBM3", "NVIDIA-H200", "NVIDIA-L40S-PCIe")
    assert [(d["kind"], d["metadata"]["name"]) for d in documents] == [
        (kind, label) for label in LABELS for kind in ("Deployment", "Service")
    ]
    assert {d["metadata"]["namespace"] for d in documents} == {"llm"}
    for position, pair in enumerate(PLAN.deployments):
        deployment, service = documents[2 * position : 2 * position + 2]
        assert deployment["spec"]["replicas"] == pair.replicas
        pod = deployment["spec"]["template"]
        labels = pod["metadata"]["labels"]
        assert deployment["spec"]["selector"]["matchLabels"] == service["spec"]["selector"] == labels
        assert pod["spec"]["nodeSelector"] == {"nvidia.com/gpu.product": products[position]}
        (container,) = pod["spec"]["containers"]
        assert container["image"] == "registry.example/vllm:1"
        assert container["command"] == engine_words(position, 8000)
        assert container["resources"]["limits"] == {"nvidia.com/gpu": str(pair.tp)}
        (port,) = service["spec"]["ports"]
        assert (port["port"], container["ports"][0]["containerPort"]) == (8000, 8000)
        assert container["readinessProbe"]["httpGet"] == {"path": "/health", "port": "http"}


def test_kubernetes_keeps_its_schemas():
    validate = pytest.importorskip(
        "kubernetes_validate", reason="needs kubernetes-validate of the extra `test`"
    )
    hostile, catalog = hostile_fleet()
    words = {"model_ids": dict.fromkeys(HOSTILE, "a/b"), "gpu_names": {HOSTILE[0]: "X"}}
    (text,) = export_plan(hostile, "kubernetes", catalog=catalog, **words).values()
    documents = [*load_kubernetes(), *yaml.safe_load_all(text)]
    assert len(documents) == 2 * (3 + len(HOSTILE))
    for document in documents:
        validate.validate(document, "1.30", strict=True)
    documents[0]["spec"]["replicas"] = "three"
    with pytest.raises(validate.ValidationError):
        validate.validate(documents[0], "1.30", strict=True)


def test_litellm_has_the_weights_of_the_plan():
    backends = {LABELS[0]: ("10.0.0.1:8000", "10.0.0.2:8000")}
    (text,) = export_plan(
        PLAN, "litellm", backends=backends, elsewhere="https://api.example.com/v1/"
    ).values()
    document = yaml.safe_load(text)
    assert document["router_settings"] == {"routing_strategy": "simple-shuffle"}
    weights: dict[str, dict[str, float]] = {}
    for entry in document["model_list"]:
        parameters = entry["litellm_params"]
        pool: str = parameters["api_base"].removeprefix("http://").split(".default")[0]
        pool = {"10.0.0.1:8000/v1": LABELS[0], "10.0.0.2:8000/v1": LABELS[0]}.get(pool, pool)
        if parameters["api_base"] == "https://api.example.com/v1":
            pool = "unmet"
            assert parameters["api_key"] == "os.environ/ELSEWHERE_API_KEY"
        else:
            assert parameters["model"] == f"hosted_vllm/{REPOSITORIES[LABELS.index(pool)]}"
        group = weights.setdefault(entry["model_name"], {})
        group[pool] = group.get(pool, 0) + parameters["weight"]
    assert weights == SHARES
    with pytest.raises(InputError, match=r"elsewhere: expected a URL: the plan buys 10.00% of chat"):
        export_ours(PLAN, "litellm")


def test_skypilot_has_a_service_for_each_pool():
    files = export_ours(PLAN, "skypilot", port=8081)
    assert list(files) == [f"skypilot-{label}.yaml" for label in LABELS]
    accelerators = ("H100:1", "H200:2", "L40S:4")
    for position, (text, label) in enumerate(zip(files.values(), LABELS, strict=True)):
        task = yaml.safe_load(text)
        assert task["name"] == label
        assert task["service"]["replicas"] == PLAN.deployments[position].replicas
        assert task["resources"] == {"accelerators": accelerators[position], "ports": 8081}
        assert shlex.split(task["run"]) == engine_words(position, 8081)
        assert task["envs"]["VLLM_VERSION"] == "0.24.0"
        assert "$VLLM_VERSION" in task["setup"]


def test_the_script_survives_any_name(tmp_path: Path):
    plan, catalog = hostile_fleet()
    (text,) = export_plan(
        plan, "vllm", catalog=catalog, model_ids=dict.fromkeys(HOSTILE, "/models/x")
    ).values()
    (tmp_path / "vllm.sh").write_text(text)
    listed = run_script(tmp_path)
    assert (listed.returncode, listed.stderr) == (2, "")
    assert len(listed.stdout.splitlines()) == 1 + len(HOSTILE)
    for line in listed.stdout.splitlines()[1:]:
        done = run_script(tmp_path, line.split()[0])
        words = done.stdout.splitlines()
        assert words[:3] == ["vllm", "serve", "/models/x"]
        assert "--max-num-seqs" not in words, "no curve says how many requests at once"


PAIR = (DeployedPair("Qwen3-8B", "H100", 1),)
BAD: dict[str, tuple[Plan, str, dict[str, Any], str]] = {
    "format": (PLAN, "kubernets", {}, "--to: got 'kubernets', .* nginx, .*did you mean kubernetes"),
    "setting": (PLAN, "vllm", {"prt": 1}, "export: prt: expected one of .*did you mean port"),
    "useless option": (PLAN, "vllm", {"image": "a"}, "--image: .* --to kubernetes alone"),
    "image": (PLAN, "kubernetes", {"image": "a b"}, "--image: got 'a b'"),
    "namespace": (PLAN, "kubernetes", {"namespace": "A"}, "--namespace: got 'A'"),
    "port": (PLAN, "vllm", {"port": 65_536}, "--port: got 65536"),
    "listen": (PLAN, "nginx", {"listen": 0}, "--listen: got 0"),
    "memory": (PLAN, "vllm", {"memory_utilization": 1.5}, "--memory-utilization: got 1.5"),
    "backend of nobody": (
        PLAN,
        "nginx",
        {"backends": {"qwen3": ("a:1",)}},
        "--backend: got 'qwen3', expected one of",
    ),
    "backend": (PLAN, "nginx", {"backends": {LABELS[0]: ("a;b:1",)}}, "--backend: .* HOST:PORT"),
    "URL": (PLAN, "nginx", {"elsewhere": "https://a/;"}, "--elsewhere: got .* URL"),
    "model elsewhere of nobody": (
        PLAN,
        "litellm",
        {"elsewhere": "https://a.b", "elsewhere_models": {"Chatt": "m"}},
        "--elsewhere-model: got 'Chatt', .*mean Chat",
    ),
    "model elsewhere": (
        PLAN,
        "litellm",
        {"elsewhere": "https://a.b", "elsewhere_models": {"Chat": "a b"}},
        "Chat: got",
    ),
    "model elsewhere, no URL": (
        PLAN,
        "litellm",
        {"elsewhere_models": {"Chat": "m"}},
        "--elsewhere URL beside it",
    ),
    "unknown model": (
        PLAN,
        "vllm",
        {"model_ids": {"Qwen3": "a/b"}},
        "--model-id: got 'Qwen3', .*mean Qwen3-8B",
    ),
    "id": (PLAN, "vllm", {"model_ids": {"Qwen3-8B": "-x"}}, "--model-id: Qwen3-8B: got '-x'"),
    "GPU label": (PLAN, "kubernetes", {"gpu_names": {"H100": "a b"}}, "--gpu-name: H100: got 'a b'"),
    "nothing": (Plan(None, (), (), {"Chat": 1.0}), "vllm", {}, "at least one deployed pair"),
    "shares": (Plan(None, PAIR, (Route("Chat", "Qwen3-8B", "H100", 0.5),), {}), "nginx", {}, "Chat: got 0.5"),
    "name": (
        Plan(None, (DeployedPair("Qwen-8B", "H100", 1),), (), {}),
        "vllm",
        {},
        "got 'Qwen-8B'.*mean Qwen3-8B",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line(case: str):
    plan, to, settings, message = BAD[case]
    with pytest.raises(InputError, match=message) as caught:
        export_ours(plan, to, **settings)
    assert "\n" not in str(caught.value)


def test_what_the_catalogue_does_not_know_is_asked_for():
    plan, catalog = hostile_fleet()
    with pytest.raises(InputError, match=r"--model-id .*repository"):
        export_plan(plan, "vllm", catalog=catalog)
    ids = dict.fromkeys(HOSTILE, "a/b")
    for to in ("kubernetes", "skypilot"):
        with pytest.raises(InputError, match=r"--gpu-name .*has no attributes.gpu"):
            export_plan(plan, to, catalog=catalog, model_ids=ids)
    for to in FORMATS:
        options = {"model_ids": ids, "gpu_names": {HOSTILE[0]: "X"}}
        export_plan(plan, to, catalog=catalog, **{k: v for k, v in options.items() if k in FORMATS[to].reads})


def test_litellm_asks_the_other_api_for_its_own_model():
    """A label means nothing to an API that others run: the file says where it is sent all the same."""
    url = "https://api.example.com"
    (named,) = export_ours(PLAN, "litellm", elsewhere=url, elsewhere_models={"Chat": "big/model-1"}).values()
    assert {m["litellm_params"]["model"] for m in elsewhere_entries(named)} == {"openai/big/model-1"}
    (silent,) = export_ours(PLAN, "litellm", elsewhere=url).values()
    assert {m["litellm_params"]["model"] for m in elsewhere_entries(silent)} == {"openai/chat"}
    assert "--elsewhere-model Chat=MODEL" in silent
    assert "--elsewhere-model" not in named


def elsewhere_entries(text: str) -> list[dict[str, Any]]:
    """The entries of a LiteLLM file that another API answers."""
    return [m for m in yaml.safe_load(text)["model_list"] if "api_key" in m["litellm_params"]]
