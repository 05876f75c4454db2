"""The commands below ``rodiu import``: what people have measured, read into a catalogue."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rodiu_jax.cli.options import COUNT, PATH
from rodiu_jax.errors import InputError

if TYPE_CHECKING:
    from rodiu_jax.catalog.readers import Imported

_FILES = {"nargs": -1, "required": True, "type": PATH, "metavar": "FILE..."}
_UNIT = click.Choice(["s", "ms"])


def _common(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options of every kind, and what is done with the answer: it is written, and told or printed as JSON."""

    @functools.wraps(command)
    def run(catalog: str, output: Path | None, as_json: bool, **options: Any) -> None:
        from rodiu_jax.catalog.readers.document import as_json as write_json

        if output is None and not as_json:
            raise click.UsageError("Missing option '-o' / '--output' (only --json can do without).")
        context = click.get_current_context()
        try:
            found: Imported = command(base=catalog, write=output is not None, **options)
            if output is not None:
                found.save(output)
        except InputError as error:
            raise _name_option(error, context.command) from None
        if as_json:
            click.echo(write_json(found.record))
        else:
            click.echo(f"{found.summary}\nWritten to {output}, which extends {catalog}.")

    for option in (
        click.option(
            "--json", "as_json", is_flag=True, help="Print what was read as JSON instead of a summary."
        ),
        click.option("-o", "--output", type=PATH, metavar="OUT.toml", help="File to write."),
        click.option(
            "--like",
            metavar="AXIS=NAME,..",
            help="Names that the catalogue lacks are added with all other values as NAME's: query=, model=, gpu=.",
        ),
        click.option(
            "--catalog", default="seed", show_default=True, metavar="NAME|FILE", help="Catalogue to extend."
        ),
    ):
        run = option(run)
    return run


def _name_option(error: InputError, command: click.Command) -> InputError:
    """Turn an error about an argument into one about the option that gives it."""
    for parameter in command.params:
        named = parameter.name == error.source or f"--{error.source}" in parameter.opts
        if isinstance(parameter, click.Option) and named:
            return error.move_to(parameter.opts[0], error.field)
    return error


@click.group("import")
def import_() -> None:
    """Read what people have measured into a catalogue that extends another.

    \b
    rodiu import trace requests.csv --query Code_Gen --catalog corrected -o mine.toml
    rodiu import prices list.csv --map 'H100*=H100_FP16' --catalog mine.toml -o priced.toml

    Every value says which file it comes from, with its SHA-256, and what was done to it. What a file leaves open is
    refused with the option that settles it. A pair that nobody measured gets throughput 0.
    """


@import_.command()
@click.argument("trace", type=PATH, metavar="FILE")
@click.option("--query", metavar="NAME", help="Query type that all requests are of.")
@click.option("--query-column", metavar="COLUMN", help="Column whose values are query types.")
@click.option("--map", "names", metavar="VALUE=NAME,..", help="What values of that column are called.")
@click.option(
    "--columns", metavar="time=..,input=..,output=..", help="Columns of a format that is not known."
)
@click.option("--unit", type=_UNIT, help="Unit of a clock that counts, where the format does not have one.")
@click.option(
    "--window",
    type=float,
    metavar="H",
    help="Hours per window of arrivals (default: 0.1, or the whole of a shorter trace).",
)
@click.option("--windows", type=COUNT, help="Use the first so many windows (default: all).")
@click.option(
    "--tokens",
    type=click.Choice(["window", "request", "mean"]),
    default="window",
    show_default=True,
    help="Lengths drawn: the means of a window, together with its rate; quantiles of the requests; the means alone.",
)
@click.option(
    "--timezone", default="UTC", show_default=True, metavar="ZONE", help="Zone of the hours of the day."
)
@_common
def trace(**options: Any) -> Imported:
    """Arrival rates and token lengths, from requests as CSV or JSON lines.

    Azure 2023 and 2024, BurstGPT, Mooncake, Vidur and fleet-sim are told by their columns. Requests without an output
    token failed and are counted apart.
    """
    from rodiu_jax.catalog.readers import import_trace

    return import_trace(options.pop("trace"), **options)


@import_.command()
@click.argument("files", **_FILES)
@click.option("--query", required=True, metavar="NAME", help="Query type that was measured.")
@click.option("--model", required=True, metavar="NAME", help="Model that was measured.")
@click.option(
    "--gpu", metavar="NAME", help="GPU configuration that was measured, where the files do not say it."
)
@click.option("--tp", type=COUNT, help="GPUs of one replica, where the files do not say it.")
@click.option(
    "--promise",
    metavar="LIMITS",
    help="Such as 'ttft_p99<=500ms,tpot_p50<=30ms' or 'ttft_p50+16*tpot_p50<=500ms' (default: the catalogue's).",
)
@click.option(
    "--replicas", type=COUNT, help="Replicas that were measured together (default: 1, or as the files say)."
)
@click.option("--unit", type=_UNIT, help="Unit of all latencies, where the files say none or a wrong one.")
@_common
def benchmark(**options: Any) -> Imported:
    """What a replica sustains while promises hold, from several points of one curve.

    Reads `vllm bench serve`, InferenceX, AIPerf, GuideLLM and inference-perf results, and llm-d benchmark reports. The
    throughput is the highest measured rate at which every promise holds; the points stay in the catalogue.
    """
    from rodiu_jax.catalog.readers import import_benchmark

    return import_benchmark(options.pop("files"), **options)


@import_.command()
@click.argument("files", **_FILES)
@click.option(
    "--query-prefix", required=True, metavar="NAME", help="Buckets become NAME_in128_out16 and so on."
)
@click.option("--model", required=True, metavar="NAME", help="Model that was profiled.")
@click.option("--gpu", metavar="NAME", help="GPU configuration, where the files are of one.")
@click.option("--map", "names", metavar="GPU=NAME,..", help="GPU configurations, by what files call them.")
@click.option("--tp", type=COUNT, default=1, show_default=True, help="GPUs of one replica.")
@click.option(
    "--promise",
    metavar="LIMITS",
    help="Such as 'e2e_p99<=5s', where a GPU has profiles within several limits.",
)
@_common
def profile(**options: Any) -> Imported:
    """Rates by length of requests, from profiles of Melange or AIBrix, one GPU a file.

    Profiles of one GPU within several limits make curves, off which other promises can be read.
    """
    from rodiu_jax.catalog.readers import import_profile

    return import_profile(options.pop("files"), **options)


@import_.command()
@click.argument("file", type=PATH, metavar="FILE")
@click.option("--name", required=True, metavar="NAME", help="What the model is called in the catalogue.")
@click.option("--dtype", metavar="TYPE", help="Type of the weights as served: bfloat16, fp8, int4 ...")
@click.option("--kv-dtype", metavar="TYPE", help="Type of the KV cache.")
@_common
def model(**options: Any) -> Imported:
    """Memory of weights and KV cache, from a model's config.json."""
    from rodiu_jax.catalog.readers import import_model

    return import_model(options.pop("file"), **options)


@import_.command()
@click.argument("files", **_FILES)
@click.option(
    "--map", "names", metavar="PATTERN=NAME,..", help="GPUs of the list: 'H100*=H100_FP16', or NAME+NAME."
)
@click.option(
    "--term",
    type=click.Choice(["on-demand", "spot"]),
    default="on-demand",
    show_default=True,
    help="Which price.",
)
@click.option("--region", metavar="PATTERN", help="Regions that count, such as 'us-*' (default: all).")
@click.option(
    "--columns", metavar="gpu=..,price=..", help="Columns of another CSV; also spot=, count=, region=."
)
@click.option(
    "--per", type=click.Choice(["gpu", "instance"]), help="Of what a price is, where the list is silent."
)
@_common
def prices(**options: Any) -> Imported:
    """Prices of one GPU, from SkyPilot catalogues and other lists.

    An offer under a third or over three times its device's median is named and left out.
    """
    from rodiu_jax.catalog.readers import import_prices

    return import_prices(options.pop("files"), **options)


@import_.command()
@click.argument("files", **_FILES)
@click.option(
    "--map",
    "names",
    metavar="FILE=NAME,..",
    help="What tasks, models and precisions are in the catalogue; also MODEL@PRECISION=NAME.",
)
@click.option("--query", metavar="NAME", help="Query type of all rows.")
@click.option("--model", metavar="NAME", help="Model of all rows.")
@click.option("--precision", metavar="NAME", help="Precision of all rows.")
@click.option("--metric", metavar="KEY", help="Metric of lm-eval-harness, where a task has several.")
@_common
def quality(**options: Any) -> Imported:
    """Error rates and how sure they are, from lm-eval-harness or a CSV of accuracies."""
    from rodiu_jax.catalog.readers import import_quality

    return import_quality(options.pop("files"), **options)


@import_.command()
@click.option(
    "--models", required=True, metavar="NAME=MODEL,..", help="Models, here and there: 'Q=Qwen/Qwen3-8B'."
)
@click.option(
    "--systems", required=True, metavar="NAME=SYSTEM,..", help="GPUs, here and there: 'H100=h100_sxm'."
)
@click.option("--degrees", metavar="N,..", help="GPUs of a replica (default: all degrees of the catalogue).")
@click.option(
    "--promise",
    multiple=True,
    metavar="[QUERY=]LIMITS",
    help="Such as 'ttft_mean<=500ms,tpot_mean<=30ms' (default: the catalogue's); may be given again for other types.",
)
@click.option(
    "--backend", default="vllm", show_default=True, metavar="NAME[=VERSION]", help="vllm, sglang or trtllm."
)
@click.option(
    "--mode",
    type=click.Choice(["HYBRID", "SILICON", "EMPIRICAL", "SOL"]),
    default="HYBRID",
    show_default=True,
    help="Data: measured kernels and what is scaled from them; measured alone; fitted; the hardware's limits.",
)
@_common
def aiconfigurator(**options: Any) -> Imported:
    """What replicas sustain, as NVIDIA's open performance data predict it (extra `serving`).

    \b
    rodiu import aiconfigurator --models Llama-3.1-8B=meta-llama/Meta-Llama-3.1-8B --systems H100_FP16=h100_sxm
      --promise 'ttft_mean<=500ms,tpot_mean<=30ms' --catalog corrected -o predicted.toml

    Every query type of the catalogue is asked at its mean token lengths and its promises, which must be about means. A
    case that the package does not support is named and left out. Answers are kept in the user's cache folder. Rates are
    predictions for a steady load: say with throughput_shortfall how much of them may turn out missing.
    """
    from rodiu_jax.catalog.readers import import_aiconfigurator

    return import_aiconfigurator(**options, quiet=False)
