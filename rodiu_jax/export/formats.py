"""The formats that a plan can be exported to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from rodiu_jax.export.fleet import Fleet
from rodiu_jax.export.kubernetes import write_kubernetes
from rodiu_jax.export.litellm import write_litellm
from rodiu_jax.export.nginx import write_nginx
from rodiu_jax.export.settings import Settings
from rodiu_jax.export.skypilot import write_skypilot
from rodiu_jax.export.vllm import write_vllm


@dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
      write: returns the files by name.
      reads: the settings that change its files.
    """

    name: str
    summary: str
    write: Callable[[Fleet, Settings], dict[str, str]]
    reads: tuple[str, ...]


_ENGINE = ("model_ids", "port", "memory_utilization")
_ROUTER = ("namespace", "port", "backends", "elsewhere")

FORMATS: Mapping[str, Format] = {
    f.name: f
    for f in (
        Format("vllm", "a script that starts any replica", write_vllm, _ENGINE),
        Format(
            "kubernetes",
            "Deployments and Services",
            write_kubernetes,
            (*_ENGINE, "gpu_names", "image", "namespace"),
        ),
        Format("nginx", "a router by the plan's shares", write_nginx, (*_ROUTER, "listen")),
        Format(
            "litellm",
            "the same for a LiteLLM proxy",
            write_litellm,
            (*_ROUTER, "model_ids", "elsewhere_models"),
        ),
        Format("skypilot", "services on rented machines", write_skypilot, (*_ENGINE, "gpu_names")),
    )
}
