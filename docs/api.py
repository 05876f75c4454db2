"""Write the reference of every public name from the docstrings (extra docs): ``python docs/api.py FOLDER``."""

from __future__ import annotations

import pkgutil
import sys
import typing
from importlib import import_module
from pathlib import Path

import pdoc
import pdoc.render

import rodiu_jax
import rodiu_jax.sweeps
import solvers


def write(folder: Path) -> None:
    """Write HTML pages of both packages into ``folder``, the public names of ``rodiu_jax`` on its first page.

    Two things are put where a generator looks for them: names that a package loads when they are first used,
    and the types of named tuples, which the standard library leaves as texts.
    """
    inside = [m.name for m in pkgutil.iter_modules(rodiu_jax.__path__, "rodiu_jax.")]
    every = [
        m.name for p in (rodiu_jax, solvers) for m in pkgutil.walk_packages(p.__path__, f"{p.__name__}.")
    ]
    for module in map(import_module, every):
        for value in vars(module).values():
            if isinstance(value, type) and issubclass(value, tuple) and hasattr(value, "_fields"):
                value.__new__.__annotations__ = typing.get_type_hints(value)
    for package in (rodiu_jax, rodiu_jax.sweeps):
        for name in package.__all__:
            setattr(package, name, getattr(package, name))
    pdoc.render.configure(docformat="google")
    pdoc.pdoc("rodiu_jax", *inside, "solvers", output_directory=folder)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python docs/api.py FOLDER")
    write(Path(sys.argv[1]))
