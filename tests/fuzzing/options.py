"""Every option and argument of every command, as `rodiu_jax.cli` declares them, with values that nobody should give."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from hypothesis import strategies as st

from rodiu_jax.cli import cli
from tests.fuzzing.formats import Folder
from tests.fuzzing.run import fit, rodiu

_NUMBERS = ["0", "-1", "-0.0", "1.5", "nan", "inf", "-inf", "1e400", "1e-400", "1e308", "0x10", "1_0", "١٢"]
_NUMBERS += [str(2**63), str(10**30), "1" * 5000, " 1", "1 ", "1,1", "1,,2", ",", "-1,2", "nan,1"]
_TEXTS = [
    "",
    " ",
    "x",
    "é\u0301",
    "\u202egpj",
    "a\nb",
    "a\tb",
    "\udcff",
    "a" * 5000,
    "*",
    "[",
    "]",
    "%s",
    "$x$",
    "--",
]
_TEXTS += [
    "budget",
    "budget=",
    "=1",
    "budget=nan",
    "budget=-1",
    "budget*=-1",
    "gpu_price[X]=1",
    "tp_degree=0.5",
]
_TEXTS += [
    "gpu_price[[]=2",
    "budget+=1e308",
    "delay_nominal[a,b]=1",
    "tp_degree=1,2",
    "names=1",
    "budget=1,2,3",
]
_PATHS = [
    "",
    ".",
    "..",
    "/",
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/proc/self/mem",
    "/nowhere/x",
    "~",
    "a/" * 2500,
]
_PATHS += [
    "x" * 300,
    "x" * 300 + ".npz",
    "no.npz",
    "no.json",
    "no.toml",
    "no.parquet",
    "two.npz",
    "plans.json",
]
_PATHS += [
    "tiny.toml",
    "sweep.toml",
    "bounds.parquet",
    "certificates.parquet",
    "out",
    "trace.csv",
    "table.csv",
    "a\nb",
]
_PATHS += [
    "../../../../etc/passwd",
    "\u202egpj.exe",
    "\udcff",
    "-",
    "out/spec.toml",
    "out/scenarios",
    "two.npz/x",
]

CALLS = {
    "describe": ["--catalog", "tiny.toml"],
    "validate": ["--catalog", "tiny.toml", "--n", "4"],
    "sample": ["--catalog", "tiny.toml", "--n", "2", "-o", "new.npz"],
    "evaluate": ["two.npz", "plans.json", "-o", "new.parquet"],
    "solve": ["two.npz", "--index", "0", "--workers", "1"],
    "import": ["trace", "trace.csv", "--query", "Code_Gen", "--catalog", "tiny.toml", "-o", "new.toml"],
    "calibrate": ["trace.csv", "--query", "Code_Gen", "--catalog", "tiny.toml", "-o", "new.toml"],
    "sweep": ["sweep.toml", "-o", "out", "--quiet"],  # `out` is taken: refused before any work
    "plan": ["--catalog", "rated.toml", "--rate", "Chat=9", "--workers", "1", "-o", "planned"],
    "report": ["out"],
    "plot": ["out", "--figure", "effects", "-o", "new.svg"],
    "bound": ["two.npz", "-o", "new.parquet", "--quiet"],
    "verify": ["bounds.parquet", "certificates.parquet", "two.npz"],
    "sensitivity": ["table.csv", "--factors", "a,b", "--output", "y", "--seed", "1"],
    "stress": ["two.npz", "plans.json", "--draws", "100", "--no-peers", "--quiet"],
    "diagnose": ["two.npz", "--index", "0", "--workers", "1", "--quiet"],
    "choose": ["two.npz", "--quiet"],
    "export": ["plans.json", "--to", "nginx", "--catalog", "tiny.toml", "--plan", "0"],
    "replay": ["plan", "trace.csv", "--query", "Chat", "--hours", "0.001", "--quiet"],
    "robustness": ["two.npz", "--gammas", "0,1", "--draws", "100", "--workers", "1", "--quiet"],
}
"""A call of every command that works, on files of `tests.fuzzing.valid`."""


def command_line(draw: Callable[[Any], Any], here: Folder) -> None:
    """One to three options given values that they should refuse, or live with."""
    name = draw(st.sampled_from(sorted(CALLS)))
    command, args = cli.commands[name], list(CALLS[name])
    if isinstance(command, click.Group):
        command = command.commands[args[0]]
    parameters = command.params
    for _ in range(draw(st.integers(1, 3))):
        parameter = draw(st.sampled_from(parameters))
        if isinstance(parameter, click.Option):
            spelling = draw(st.sampled_from([*parameter.opts, *parameter.secondary_opts]))
            if parameter.is_flag and draw(st.integers(0, 3)):
                args.append(spelling)
            else:
                args += draw(
                    st.sampled_from([[spelling, _value(draw, parameter)], [spelling], [f"{spelling}=x"]])
                )
        elif args:
            args[draw(st.integers(0, len(args) - 1))] = _value(draw, parameter)
        else:
            args.append(_value(draw, parameter))
    before = {path for path in Path().rglob("*") if "out" not in path.parts}
    fit(rodiu(name, *args))
    for path in sorted(
        {path for path in Path().rglob("*") if "out" not in path.parts} - before, reverse=True
    ):
        path.rmdir() if path.is_dir() else path.unlink()


def _value(draw: Callable[[Any], Any], parameter: click.Parameter) -> str:
    own = parameter.type.choices if isinstance(parameter.type, click.Choice) else ()
    likely = (
        _PATHS if isinstance(parameter.type, click.Path) or "catalog" in (parameter.name or "") else _NUMBERS
    )
    return draw(
        st.sampled_from([*map(str, own), *likely, *likely]) | st.sampled_from([*_TEXTS, *_PATHS, *_NUMBERS])
    )
