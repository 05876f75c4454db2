"""The command that writes a plan as files of others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from rodiu_jax.cli.options import PATH
from rodiu_jax.errors import InputError


class Pairs(click.ParamType):
    """``NAME=VALUE``."""

    name = "pairs"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, tuple):
            return value
        name, found, word = value.partition("=")
        if not (name and found and word):
            self.fail(f"{value!r} is not NAME=VALUE.", param, ctx)
        return name, word


@click.command()
@click.argument("plan", type=PATH, metavar="DIR|PLANS.json")
@click.option("--to", required=True, metavar="FORMAT", help="vllm, kubernetes, nginx, litellm or skypilot.")
@click.option(
    "--plan",
    "chosen",
    metavar="NAME|N",
    help="Which plan: one of DIR/alternatives.json by name, or the N-th of PLANS.json, from 0.",
)
@click.option(
    "--catalog",
    metavar="NAME|FILE",
    help="Whose names the plan has, and which knows what they are called elsewhere (default: DIR's, or serving).",
)
@click.option(
    "--model-id",
    "model_ids",
    type=Pairs(),
    multiple=True,
    metavar="NAME=ID",
    help="Hugging Face repository, or folder, of a model. May be repeated.",
)
@click.option(
    "--gpu-name",
    "gpu_names",
    type=Pairs(),
    multiple=True,
    metavar="NAME=WORD",
    help="What the target calls a GPU: kubernetes the node's nvidia.com/gpu.product, skypilot the accelerator. "
    "May be repeated.",
)
@click.option("--image", help="Container of the engine (default: vllm/vllm-openai of the predicted version).")
@click.option("--namespace", help="Namespace of Kubernetes (default: default).")
@click.option("--port", type=int, help="Port of a replica, and of the first of a script (default: 8000).")
@click.option(
    "--memory-utilization",
    type=float,
    metavar="SHARE",
    help="Of a GPU's memory for the engine (default: 0.9).",
)
@click.option(
    "--backend",
    "backends",
    type=Pairs(),
    multiple=True,
    metavar="POOL=HOST:PORT,..",
    help="Where the replicas of a pool listen (default: the pool's service in Kubernetes). May be repeated.",
)
@click.option("--listen", type=int, metavar="PORT", help="Port of the router (default: 8080).")
@click.option(
    "--elsewhere",
    metavar="URL",
    help="API that takes what the plan leaves unmet, without its /v1 (default: nobody; nginx answers 503).",
)
@click.option(
    "--elsewhere-model",
    "elsewhere_models",
    type=Pairs(),
    multiple=True,
    metavar="QUERY=MODEL",
    help="What that API calls the model for a query type, with litellm (default: the type's label). May be repeated.",
)
@click.option(
    "-o", "--output", type=PATH, metavar="FOLDER", help="Write the files there instead of printing."
)
def export(
    plan: Path,
    to: str,
    chosen: str | None,
    catalog: str | None,
    model_ids: tuple[tuple[str, str], ...],
    gpu_names: tuple[tuple[str, str], ...],
    backends: tuple[tuple[str, str], ...],
    elsewhere_models: tuple[tuple[str, str], ...],
    output: Path | None,
    **settings: Any,
) -> None:
    """Write a plan as files that start it: vLLM, Kubernetes, nginx, LiteLLM, SkyPilot.

    \b
    vllm        vllm.sh: starts any replica of the plan
    kubernetes  kubernetes.yaml: a Deployment and a Service for each pool (model, GPU and degree)
    nginx       nginx.conf: a path for each query type, split over the pools by the plan's shares
    litellm     litellm.yaml: the same as model groups of a LiteLLM proxy
    skypilot    skypilot-POOL.yaml: a service for each pool

    DIR is what `rodiu plan` wrote; PLANS.json what `rodiu solve --plans` did. Everything that the plan does not say is
    an option; its default stands in the file.
    """
    from rodiu_jax.export import export_plan
    from rodiu_jax.io.files import make_folder, write_text

    try:
        files = export_plan(
            plan,
            to,
            catalog=catalog,
            chosen=chosen,
            model_ids=_collect("--model-id", model_ids),
            gpu_names=_collect("--gpu-name", gpu_names),
            backends={k: tuple(v.split(",")) for k, v in _collect("--backend", backends).items()},
            elsewhere_models=_collect("--elsewhere-model", elsewhere_models),
            **settings,
        )
    except InputError as error:
        raise (error.move_to("--plan", "") if error.source == "chosen" else error) from None
    if output is None:
        for name, text in files.items():
            if len(files) > 1:
                click.echo(f"# ---- {name}")
            click.echo(text, nl=False)
        return
    make_folder(output)
    for name, text in files.items():
        write_text(output / name, text)
    click.echo(f"{', '.join(files)} written to {output}.")


def _collect(option: str, pairs: tuple[tuple[str, str], ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in pairs:
        if name in found:
            raise InputError(option, "", "each name once", name)
        found[name] = value
    return found
