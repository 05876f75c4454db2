"""Tasks of SkyPilot, one for each pool: a service with as many replicas as the plan rents."""

from __future__ import annotations

import shlex
from typing import Any

from rodiu_jax.export.engine import engine_command
from rodiu_jax.export.fleet import Fleet, Pool, find_accelerator
from rodiu_jax.export.settings import VLLM_VERSION, Settings
from rodiu_jax.export.yaml_text import write_yaml

_SECONDS_TO_START = 3600


def write_skypilot(fleet: Fleet, settings: Settings) -> dict[str, str]:
    """Write ``skypilot-LABEL.yaml`` for every pool."""
    files = {}
    for pool in fleet.pools:
        name = f"skypilot-{pool.label}.yaml"
        head = [
            f"Written by rodiu export: sky serve up -n {pool.label} {name} --env HF_TOKEN",
            "HF_TOKEN is for models that ask for a licence. Without the service section it is a task of one replica.",
        ]
        files[name] = write_yaml([_make_task(fleet, pool, settings)], head)
    return files


def _make_task(fleet: Fleet, pool: Pool, settings: Settings) -> dict[str, Any]:
    port = settings.used_port
    accelerator = find_accelerator(fleet, pool, settings.gpu_names)
    return {
        "name": pool.label,
        "service": {
            "readiness_probe": {"path": "/health", "initial_delay_seconds": _SECONDS_TO_START},
            "replicas": pool.pair.replicas,
        },
        "resources": {"accelerators": f"{accelerator}:{pool.pair.tp}", "ports": port},
        "envs": {"VLLM_VERSION": VLLM_VERSION, "HF_TOKEN": ""},
        "setup": "pip install vllm==$VLLM_VERSION",
        "run": shlex.join(engine_command(fleet, pool, settings, port)),
    }
