"""What a plan and its catalogue do not say: image, namespace, ports, addresses. Each has a default that files show."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from rodiu_jax.errors import InputError
from rodiu_jax.export.names import is_label

VLLM_VERSION = "0.24.0"
"""The version that the predicted rates of the catalogue ``serving`` are of."""

_IMAGE = re.compile(r"[\w][\w./:@-]{0,254}", re.ASCII)
_HOST = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252})|\[[0-9A-Fa-f:.]+\]):(\d{1,5})", re.ASCII)
_MODEL = re.compile(r"[\w][\w./:@+-]{0,254}", re.ASCII)
_URL = re.compile(r"(https?)://([A-Za-z0-9][A-Za-z0-9.-]{0,252}(?::\d{1,5})?)((?:/[\w.~%-]+)*)/?", re.ASCII)


@dataclass(frozen=True)
class Address:
    """A URL taken apart: ``https``, ``api.example.com:443``, ``/openai``; the API's own ``/v1`` is not part of it."""

    scheme: str
    host: str
    path: str

    def __str__(self) -> str:
        """Write the URL, without a slash at its end."""
        return f"{self.scheme}://{self.host}{self.path}"


@dataclass(frozen=True)
class Settings:
    """Options of an export; None and empty ones were not given.

    Attributes:
      model_ids: Hugging Face repository or folder of a model, by its name in the catalogue.
      gpu_names: what the target calls a GPU, by its name in the catalogue.
      image: of the container that serves.
      namespace: of Kubernetes.
      port: of the first replica on a machine.
      memory_utilization: share of a GPU's memory that the engine takes.
      backends: ``HOST:PORT`` of the replicas of a pool, by its label; by default the pool's service in Kubernetes.
      listen: port of the router.
      elsewhere: URL of an API that takes what the plan leaves unmet.
      elsewhere_models: what that API calls the model that answers a query type, by the type's name in the catalogue.
    """

    model_ids: Mapping[str, str] = field(default_factory=dict)
    gpu_names: Mapping[str, str] = field(default_factory=dict)
    image: str | None = None
    namespace: str | None = None
    port: int | None = None
    memory_utilization: float | None = None
    backends: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    listen: int | None = None
    elsewhere: str | None = None
    elsewhere_models: Mapping[str, str] = field(default_factory=dict)

    def check(self) -> Settings:
        """Return these settings if each can stand in a file as it is.

        Raises:
          InputError: with the option.
        """
        if self.image is not None and not _IMAGE.fullmatch(self.image):
            raise InputError("--image", "", "an image such as vllm/vllm-openai:latest", self.image)
        if self.namespace is not None and not is_label(self.namespace):
            expected = "small letters, digits and dashes, first a letter, at most 63"
            raise InputError("--namespace", "", expected, self.namespace)
        for option, port in (("--port", self.port), ("--listen", self.listen)):
            if port is not None and not 1 <= port <= 65_535:
                raise InputError(option, "", "a port from 1 to 65535", port)
        share = self.memory_utilization
        if share is not None and not 0 < share <= 1:
            raise InputError("--memory-utilization", "", "a share of the memory: above 0, at most 1", share)
        for label, hosts in self.backends.items():
            for host in hosts:
                found = _HOST.fullmatch(host)
                if found is None or not 1 <= int(found[1]) <= 65_535:
                    raise InputError("--backend", label, "HOST:PORT, several with commas between", host)
        if self.elsewhere is not None:
            self.find_elsewhere()
        for query, model in self.elsewhere_models.items():
            if not _MODEL.fullmatch(model):
                raise InputError("--elsewhere-model", query, "a model's name without spaces", model)
            if self.elsewhere is None:
                raise InputError("--elsewhere-model", query, "--elsewhere URL beside it", model)
        return self

    def find_elsewhere(self) -> Address | None:
        """Take the URL of the other API apart; None where there is none.

        Raises:
          InputError: it is no URL.
        """
        if self.elsewhere is None:
            return None
        found = _URL.fullmatch(self.elsewhere)
        if found is None:
            expected = "a URL such as https://api.example.com, the part before /v1"
            raise InputError("--elsewhere", "", expected, self.elsewhere)
        return Address(found[1], found[2], found[3].removesuffix("/v1"))

    @property
    def used_image(self) -> str:
        """The container image, or its default."""
        return self.image or f"vllm/vllm-openai:v{VLLM_VERSION}"

    @property
    def used_namespace(self) -> str:
        """The namespace, or its default."""
        return self.namespace or "default"

    @property
    def used_port(self) -> int:
        """The first port of the replicas, or its default."""
        return self.port or 8000

    @property
    def used_memory(self) -> float:
        """The share of memory that the engine takes, or vLLM's own default."""
        return self.memory_utilization or 0.9

    @property
    def used_listen(self) -> int:
        """The port of the router, or its default."""
        return self.listen or 8080


OPTIONS = {
    "model_ids": "--model-id",
    "gpu_names": "--gpu-name",
    "image": "--image",
    "namespace": "--namespace",
    "port": "--port",
    "memory_utilization": "--memory-utilization",
    "backends": "--backend",
    "listen": "--listen",
    "elsewhere": "--elsewhere",
    "elsewhere_models": "--elsewhere-model",
}
"""The option that gives each setting."""


def list_given(settings: Settings) -> list[str]:
    """List the names of the settings that were given."""
    return [f.name for f in fields(settings) if getattr(settings, f.name) not in (None, {})]
