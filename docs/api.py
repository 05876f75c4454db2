"""Build the documentation as HTML (extra docs): ``python docs/api.py FOLDER``.

The pages of this folder and the README, with links between them, and the reference of every public name from the
docstrings.
"""

from __future__ import annotations

import contextlib
import dataclasses
import pkgutil
import re
import shutil
import sys
import typing
from importlib import import_module
from pathlib import Path

import markdown2
import pdoc
import pdoc.render

import rodiu_jax
import solvers

ROOT = Path(__file__).parent.parent

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<style>
body {{ max-width: 60em; margin: 2em auto; padding: 0 1em; font-family: sans-serif; line-height: 1.5 }}
pre {{ background: #f4f4f4; padding: 0.7em; overflow-x: auto }}
td, th {{ border: 1px solid #ccc; padding: 0.2em 0.5em; vertical-align: top }}
table {{ border-collapse: collapse }}
img {{ max-width: 100% }}
</style>
</head>
<body>
<nav><a href="{up}README.html">rodiu_jax</a> | <a href="{up}docs/tutorial.html">tutorial</a> |
<a href="{up}docs/model.html">model</a> | <a href="{up}docs/glossary.html">glossary</a> |
<a href="{up}rodiu_jax.html">functions</a></nav>
{body}
</body>
</html>
"""


def write_pages(folder: Path) -> None:
    """Write README, CONTRIBUTING, CHANGELOG and the pages of this folder as HTML; formulas stay as TeX."""
    pages = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
    pages += sorted((ROOT / "docs").glob("*.md"))
    shown = {page.resolve() for page in pages}
    (folder / "docs").mkdir(parents=True, exist_ok=True)
    for picture in (ROOT / "docs").glob("*.png"):
        shutil.copy(picture, folder / "docs" / picture.name)
    for page in pages:
        text = page.read_text(encoding="utf-8")
        for target in set(re.findall(r"\]\(([^)#]+\.md)", text)):
            if (page.parent / target).resolve() in shown:
                text = text.replace(f"]({target}", f"]({target.removesuffix('.md')}.html")
        body = markdown2.markdown(text, extras=["fenced-code-blocks", "tables", "header-ids"])
        place = page.relative_to(ROOT).with_suffix(".html")
        up = "../" * (len(place.parts) - 1)
        title = text.splitlines()[0].lstrip("# ")
        (folder / place).write_text(_PAGE.format(title=title, up=up, body=body), encoding="utf-8")


def write_reference(folder: Path) -> None:
    """Write HTML pages of both packages into ``folder``, the public names of ``rodiu_jax`` on its first page.

    Two things are put where a generator looks for them: names that a package loads when they are first used, and the
    types of named tuples and of dataclasses that inherit fields, which the standard library leaves as texts.
    """
    inside = [m.name for m in pkgutil.iter_modules(rodiu_jax.__path__, "rodiu_jax.")]
    every = [
        m.name for p in (rodiu_jax, solvers) for m in pkgutil.walk_packages(p.__path__, f"{p.__name__}.")
    ]
    for module in (rodiu_jax, *map(import_module, every)):
        for value in list(vars(module).values()):
            if isinstance(value, type) and issubclass(value, tuple) and hasattr(value, "_fields"):
                value.__new__.__annotations__ = typing.get_type_hints(value)
            elif isinstance(value, type) and dataclasses.is_dataclass(value) and value.__bases__ != (object,):
                with contextlib.suppress(
                    NameError
                ):  # imported for type checkers alone, which the generator knows
                    value.__init__.__annotations__ = typing.get_type_hints(value)
        if "__getattr__" in vars(module):
            for name in module.__all__:
                setattr(module, name, getattr(module, name))
    pdoc.render.configure(docformat="google")
    pdoc.pdoc("rodiu_jax", *inside, "solvers", output_directory=folder)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python docs/api.py FOLDER")
    write_reference(Path(sys.argv[1]))
    write_pages(Path(sys.argv[1]))
