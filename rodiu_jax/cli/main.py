"""The command ``rodiu`` itself: its first page, its commands, and how each end becomes an exit code and a line."""

from __future__ import annotations

import os
import sys

import click

from rodiu_jax.cli.catalogs import calibrate, describe, sample, validate
from rodiu_jax.cli.decisions import choose, diagnose, robustness, stress
from rodiu_jax.cli.exporting import export
from rodiu_jax.cli.imports import import_
from rodiu_jax.cli.planning import plan
from rodiu_jax.cli.replaying import replay
from rodiu_jax.cli.solving import bound, evaluate, solve, verify
from rodiu_jax.cli.sweeps import plot, report, sensitivity, sweep
from rodiu_jax.errors import InputError, WorkFailed, device_failure, one_line, shortened
from rodiu_jax.runtime.compile_cache import forget_programs, keep_programs

_LONGEST = 1500  # signs of the line that says why a command stops


def main() -> None:
    """Entry point: exit 0 done, 1 the work failed, 2 bad usage or bad input (one line, no traceback)."""
    try:
        cli.main(standalone_mode=False)
    except InputError as error:
        _stop(str(_name_option(error)), 2)
    except click.ClickException as error:
        where = getattr(error, "ctx", None)
        hint = f" (see {where.command_path} --help)" if where is not None else ""
        _stop(" ".join(error.format_message().split()) + hint, 2)
    except (KeyboardInterrupt, click.exceptions.Abort):
        _stop("interrupted", 1)
    except WorkFailed as error:
        _stop(str(error), 1)
    except BrokenPipeError:  # the reader of our output went away
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        _stop(f"{error.filename or 'input or output'}: {error.strerror or error}", 1)
    except MemoryError:
        _stop("out of memory: use fewer scenarios at a time", 1)
    except RuntimeError as error:
        if (said := device_failure(error)) is None:
            raise
        _stop(said, 1)


_OPTIONS = {"changes": "--set", "log": "--log-json"}
"""Arguments that several functions of the library have under one name, and the options that give them."""


def _name_option(error: InputError) -> InputError:
    """Turn an error about an argument of a command's function into one about the option that gives the argument."""
    if error.source in _OPTIONS:
        return error.move_to(_OPTIONS[error.source], error.field)
    command = cli.commands.get(error.source)
    for parameter in command.params if command is not None else ():
        if isinstance(parameter, click.Option) and parameter.name == error.field:
            return error.move_to(parameter.opts[0], "")
    return error


def _stop(message: str, status: int) -> None:
    click.echo(f"rodiu: {shortened(one_line(message), _LONGEST)}", err=True)
    sys.exit(status)


@click.group(
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(package_name="rodiu-jax")
@click.option(
    "--no-cache",
    is_flag=True,
    help="Compile anew, and keep nothing in the user's cache folder (below `rodiu`).",
)
@click.pass_context
def cli(ctx: click.Context, no_cache: bool) -> None:
    """Which LLMs to deploy on which rented GPUs, and how the answer moves.

    \b
    A first walk:
      rodiu describe                               the default catalogue: values, units, sources
      rodiu sample --n 4 --seed 1 -o four.npz      draw four scenarios
      rodiu solve four.npz                         their cheapest robust plans, proven
      rodiu sweep cost-budget --samples 4 -o out   how the optimum moves with prices and budget

    Money is in $ per rental period, delays in ms, memory in GB. Exit status: 0 done, 1 the work failed,
    2 bad usage or bad input. Compiled programs are kept from run to run in the user's cache folder, or in
    JAX_COMPILATION_CACHE_DIR.
    """
    if no_cache:
        forget_programs()
    else:
        keep_programs()
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


for _command in (
    *(describe, validate, import_, calibrate, sample),
    plan,
    *(solve, bound, evaluate, verify),
    *(sweep, report, plot, sensitivity),
    *(choose, stress, diagnose, robustness),
    *(replay, export),
):
    cli.add_command(_command)
