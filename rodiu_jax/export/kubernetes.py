"""Deployments and Services of Kubernetes, one of each for every pool."""

from __future__ import annotations

from typing import Any

from rodiu_jax.export.engine import engine_command
from rodiu_jax.export.fleet import Fleet, Pool, find_product
from rodiu_jax.export.settings import Settings
from rodiu_jax.export.yaml_text import write_yaml

SECRET = "hf-token"  # noqa: S105 - the name of a secret, not one
_MINUTES_TO_START = 60
"""Time in which a replica must have loaded its weights."""


def write_kubernetes(fleet: Fleet, settings: Settings) -> dict[str, str]:
    """Write ``kubernetes.yaml``, for ``kubectl apply -f``."""
    documents = [
        document
        for pool in fleet.pools
        for document in (_make_deployment(fleet, pool, settings), _make_service(pool, settings))
    ]
    head = [
        "Written by rodiu export: kubectl apply -f kubernetes.yaml",
        f"image {settings.used_image} (--image), namespace {settings.used_namespace} (--namespace)",
        f"The secret {SECRET} with a key token holds a Hugging Face token, for models that ask for a licence.",
        "Nodes are told apart by the label nvidia.com/gpu.product, which NVIDIA's feature discovery sets (--gpu-name).",
    ]
    return {"kubernetes.yaml": write_yaml(documents, head)}


def _make_labels(pool: Pool) -> dict[str, str]:
    return {"app.kubernetes.io/name": pool.label, "app.kubernetes.io/part-of": "rodiu-plan"}


def _make_deployment(fleet: Fleet, pool: Pool, settings: Settings) -> dict[str, Any]:
    labels = _make_labels(pool)
    template = {"metadata": {"labels": labels}, "spec": _make_pod(fleet, pool, settings)}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": pool.label, "namespace": settings.used_namespace, "labels": labels},
        "spec": {
            "replicas": pool.pair.replicas,
            "selector": {"matchLabels": labels},
            # A new replica beside the old ones would need GPUs that the plan does not rent.
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
            "template": template,
        },
    }


def _make_pod(fleet: Fleet, pool: Pool, settings: Settings) -> dict[str, Any]:
    product = find_product(fleet, pool, settings.gpu_names)
    port = settings.used_port
    gpus = {"nvidia.com/gpu": str(pool.pair.tp)}
    health = {"httpGet": {"path": "/health", "port": "http"}}
    container = {
        "name": "engine",
        "image": settings.used_image,
        "command": engine_command(fleet, pool, settings, port),
        "ports": [{"name": "http", "containerPort": port}],
        "env": [
            {
                "name": "HF_TOKEN",
                "valueFrom": {"secretKeyRef": {"name": SECRET, "key": "token", "optional": True}},
            }
        ],
        "resources": {"limits": gpus, "requests": gpus},
        "startupProbe": health | {"periodSeconds": 10, "failureThreshold": 6 * _MINUTES_TO_START},
        "readinessProbe": health | {"periodSeconds": 5, "failureThreshold": 3},
        "livenessProbe": health | {"periodSeconds": 15, "timeoutSeconds": 10, "failureThreshold": 6},
        "volumeMounts": [{"name": "shm", "mountPath": "/dev/shm"}],  # noqa: S108 - what the engine's processes share
    }
    return {
        "nodeSelector": {"nvidia.com/gpu.product": product},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "containers": [container],
        "volumes": [{"name": "shm", "emptyDir": {"medium": "Memory"}}],
    }


def _make_service(pool: Pool, settings: Settings) -> dict[str, Any]:
    labels = _make_labels(pool)
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": pool.label, "namespace": settings.used_namespace, "labels": labels},
        "spec": {
            "selector": labels,
            "ports": [{"name": "http", "port": settings.used_port, "targetPort": "http"}],
        },
    }
