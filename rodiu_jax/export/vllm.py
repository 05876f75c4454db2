"""A shell script that starts any replica of the plan with vLLM."""

from __future__ import annotations

import shlex

from rodiu_jax.errors import one_line
from rodiu_jax.export.engine import engine_command, gpu_text
from rodiu_jax.export.fleet import Fleet
from rodiu_jax.export.settings import Settings

_HEAD = """#!/bin/sh
# Written by rodiu export. Starts one replica: sh vllm.sh REPLICA (without it, the replicas are listed).
# Every replica has a port of its own, so that any of them can share a machine. CUDA_VISIBLE_DEVICES says which GPUs
# of the machine a replica takes; HF_TOKEN is needed for models that ask for a licence.
set -eu
case "${1:-}" in
"""


def write_vllm(fleet: Fleet, settings: Settings) -> dict[str, str]:
    """Write the script ``vllm.sh``: a case for each replica, the pool's label with a number behind it."""
    port = settings.used_port
    cases, listed = [], []
    for pool in fleet.pools:
        for number in range(1, pool.pair.replicas + 1):
            replica = f"{pool.label}-{number}"
            command = shlex.join(engine_command(fleet, pool, settings, port))
            cases.append(f"{replica})\n    exec {command} ;;\n")
            about = f"{replica}  {one_line(gpu_text(pool))}, port {port}"
            listed.append(f"    echo {shlex.quote(about)}\n")
            port += 1
    usage = ["    echo 'usage: sh vllm.sh REPLICA, one of:'\n", *listed, "    exit 2 ;;\n"]
    return {"vllm.sh": "".join([_HEAD, *cases, "*)\n", *usage, "esac\n"])}
