"""The configuration of a LiteLLM proxy: a model group for each query type, with the plan's shares as weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rodiu_jax.errors import InputError, nearest
from rodiu_jax.export.backends import find_backends
from rodiu_jax.export.fleet import UNMET, Fleet, Split, find_repository
from rodiu_jax.export.settings import Settings
from rodiu_jax.export.shares import percent_text
from rodiu_jax.export.yaml_text import write_yaml


def write_litellm(fleet: Fleet, settings: Settings) -> dict[str, str]:
    """Write ``litellm.yaml``; a client sends the label of its query type as the model.

    Weights are hundredths of a percent; that of a pool with several addresses is divided over them.

    Raises:
      InputError: the plan buys something elsewhere, and no URL says where: LiteLLM refuses no share of requests;
        a model elsewhere for a query type of which nothing is bought there.
    """
    backends, other = find_backends(fleet, settings), settings.find_elsewhere()
    named = _name_models(fleet, settings)
    head = [
        "Written by rodiu export: litellm --config litellm.yaml",
        "weight: hundredths of a percent of the query type's requests.",
    ]
    models: list[dict[str, Any]] = []
    for split in fleet.splits:
        for label, share in split.dropped:
            head.append(f"{split.label}: {label} would get {share:.2g} of it, and gets nothing.")
        for label, part in split.parts:
            if label == UNMET:
                if other is None:
                    expected = (
                        f"a URL: the plan buys {percent_text(part)} of {split.label} elsewhere, and LiteLLM would send "
                        "it to the pools, which are not made for it"
                    )
                    raise InputError("export", "elsewhere", expected)
                model = named.get(split.query, split.label)
                if split.query not in named:
                    head.append(
                        f"{other} is asked for the model {model} (--elsewhere-model {split.query}=MODEL)."
                    )
                models.append(_make_entry(split, f"openai/{model}", f"{other}/v1", part, elsewhere=True))
                continue
            repository = find_repository(fleet, fleet.find_pool(label), settings.model_ids)
            hosts = backends[label]
            for host, weight in zip(hosts, _divide(part, len(hosts)), strict=True):
                models.append(_make_entry(split, f"hosted_vllm/{repository}", f"http://{host}/v1", weight))
    document = {"model_list": models, "router_settings": {"routing_strategy": "simple-shuffle"}}
    return {"litellm.yaml": write_yaml([document], head)}


def _name_models(fleet: Fleet, settings: Settings) -> Mapping[str, str]:
    """Return what the other API calls the model of each query type that the user named."""
    known = [split.query for split in fleet.splits if split.buys_elsewhere]
    for query in settings.elsewhere_models:
        if query not in known:
            expected = "a query type of which the plan buys something elsewhere: "
            expected += f"one of {', '.join(known)}{nearest(query, known)}" if known else "there is none"
            raise InputError("--elsewhere-model", "", expected, query)
    return settings.elsewhere_models


def _make_entry(
    split: Split, model: str, base: str, weight: int, *, elsewhere: bool = False
) -> dict[str, Any]:
    parameters: dict[str, Any] = {"model": model, "api_base": base, "weight": weight}
    if elsewhere:
        parameters["api_key"] = "os.environ/ELSEWHERE_API_KEY"
    return {"model_name": split.label, "litellm_params": parameters}


def _divide(part: int, count: int) -> list[int]:
    """Divide a weight over equal replicas; the first ones get what is left."""
    weight, left = divmod(part, count)
    return [weight + (n < left) for n in range(count)]
