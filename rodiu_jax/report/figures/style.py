"""The one drawing style: canvases, colours, hatches, text that is never read as a formula, and files.

Nothing global of matplotlib is touched. Colours are Okabe and Ito's, distinct with every common kind of
colour blindness; what a colour says, a hatch, a mark or a number says too.
"""

from __future__ import annotations

import io
import re
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from rodiu_jax.errors import InputError
from rodiu_jax.io.files import write_text, write_whole

INK, BLUE, ORANGE = "#222222", "#0072B2", "#E69F00"
COLOURS = (BLUE, ORANGE, "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#332288")
MISSING, OTHER, GRID = "#d9d9d9", "#8c8c8c", "#e5e5e5"
SCALE = "cividis"
"""Of heat maps: even in lightness, so it survives colour blindness and grey print."""

BAND: dict[str, Any] = {"facecolor": ORANGE, "alpha": 0.5, "linewidth": 0}
"""What the brackets leave, as a band."""

FRAME: dict[str, Any] = {"facecolor": "none", "edgecolor": ORANGE, "linewidth": 1.8}
"""What the brackets leave, as a frame."""

WIDE, PARTIAL = "////", "...."
"""Hatches of a cell: a proof lacks; a plan lacks in some sample."""

FORMATS = (".png", ".svg", ".pdf")
MOST_TICKS = 20
MOST_NOTES = 400
ACROSS = 2
"""Panels in a row."""

_ALONE = 7.5
_NARROW = 8
_LINE = 0.155
_DPI = 150
_CONTROL = dict.fromkeys([*range(9), 11, 12, *range(14, 32), 127], "\ufffd")
_REFERENCE = re.compile(r'(?:url\(|href=")#([^)"]+)')
_SVG = "http://www.w3.org/2000/svg"
_XLINK = "http://www.w3.org/1999/xlink"
_DRAWN = ("svg", "defs", "style", "g", "path", "use", "text", "tspan", "clipPath", "rect", "image", "pattern")
_PARTS = {f"{{{_SVG}}}{name}" for name in _DRAWN}
"""What pictures consist of: nothing that acts or leads elsewhere."""


def make_canvas(across: int, up: int, keys: Sequence[Any] = ()) -> tuple[Figure, Axes]:
    """Make a figure sized for a grid of cells that hold a number each, and for ``keys``, one below the other."""
    size = (min(16.0, max(6.4, 2.4 + 0.62 * across)), min(12.0, max(3.4, 1.7 + 0.44 * up)) + _below(keys))
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def make_panels(
    count: int, *, high: float, wide: float = 4.6, sharey: bool = False, keys: Sequence[Any] = ()
) -> tuple[Figure, list[Axes]]:
    """Make a figure of ``count`` panels, at most `ACROSS` in a row (sizes in inches), with room for ``keys``, one below
    the other.
    """
    columns = min(count, ACROSS)
    rows = -(-count // columns)
    size = max(_ALONE, wide * columns), max(2.8, high * rows) + _below(keys)
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False, sharey=sharey).ravel()
    for unused in grid[count:]:
        unused.remove()
    for axes in grid[:count]:
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_axisbelow(True)
    return figure, list(grid[:count])


def _below(keys: Sequence[Any]) -> float:
    """Return the height of a legend of one column, inches."""
    return _LINE * sum(1 + str(k.get_label()).count("\n") for k in keys)


def strip_control(text: str) -> str:
    """Remove control characters, which no SVG may hold, from ``text``."""
    return text.translate(_CONTROL)


def set_heading(axes: Axes, text: str, below: str = "") -> None:
    """Set a title at the left, and a second one below it."""
    width = _across(axes.figure)
    lines = [*textwrap.wrap(strip_control(text), width), *textwrap.wrap(strip_control(below), width)[:2]]
    axes.set_title("\n".join(lines), loc="left", fontsize=11, parse_math=False)


def set_figure_heading(figure: Figure, text: str, below: str = "") -> None:
    """Set a title over all panels of a figure."""
    shown = f"{text}. {below}" if below else text
    lines = textwrap.wrap(strip_control(shown), _across(figure))[:2]
    figure.suptitle("\n".join(lines), x=0.01, ha="left", fontsize=11, parse_math=False)


def _across(figure: Any) -> int:
    """Return the number of characters of a title that fit a figure."""
    return int(11 * figure.get_figwidth()) - 12


def set_labels(axes: Axes, *, x: str = "", y: str = "", width: int = 0) -> None:
    """Set axis labels as they are: names and units may hold the signs that matplotlib reads as formulas.

    Args:
      width: characters of a line; by default what the figure has room for.
    """
    if x:
        axes.set_xlabel(textwrap.fill(strip_control(x), width or _across(axes.figure)), parse_math=False)
    if y:
        figure: Any = axes.figure
        up = int(9 * figure.get_figheight()) - 2
        axes.set_ylabel(textwrap.fill(strip_control(y), width or up), parse_math=False)


def set_ticks(axes: Axes, names: Sequence[str], *, along: str, every: int = 0) -> None:
    """Set names at 0, 1, 2, ... along ``x`` or ``y``, thinned where there are too many to read."""
    step = every or -(-len(names) // MOST_TICKS)
    shown = [strip_control(n) for n in names][::step]
    if along == "x" and max(map(len, shown), default=0) > _NARROW:
        shown = [n.replace(" to ", "\nto ") for n in shown]
    place = axes.set_xticks if along == "x" else axes.set_yticks
    place(np.arange(len(names))[::step], shown, parse_math=False)


def add_legend(figure: Figure, keys: Sequence[Any], *, columns: int = 0) -> None:
    """Add a legend below all panels, in one row by default; none without keys."""
    if not keys:
        return
    size = 7 if columns == 1 else 8
    shown = figure.legend(
        handles=list(keys), loc="outside lower left", ncols=columns or len(keys), fontsize=size, frameon=False
    )
    for text in shown.get_texts():
        text.set_parse_math(False)


def legend_key(name: str, width: int = 88, **style: Any) -> Patch:
    """Make an entry of a legend; a long name is wrapped."""
    label = "\n".join(textwrap.wrap(strip_control(name), width, subsequent_indent="   "))
    return Patch(label=label, **style)


def hatch_cells(axes: Axes, cells: np.ndarray, pattern: str) -> None:
    """Hatch the cells (row, column) that are true."""
    for row, column in np.argwhere(cells):
        corner = (column - 0.5, row - 0.5)
        axes.add_patch(
            Rectangle(corner, 1, 1, fill=False, hatch=pattern, edgecolor="white", linewidth=0, alpha=0.5)
        )


def write_in_cells(axes: Axes, colours: np.ndarray, texts: Sequence[Sequence[str]]) -> None:
    """Write text in each cell, black or white, whichever stands out from the cell's colour."""
    size = 8 if len(texts[0]) <= 14 else 6
    for r, row in enumerate(texts):
        for c, text in enumerate(row):
            if text:
                bright = colours[r, c, :3] @ (0.299, 0.587, 0.114) > 0.5
                ink = "black" if bright else "white"
                note = axes.text(
                    c, r, text, ha="center", va="center", fontsize=size, color=ink, parse_math=False
                )
                note.set_bbox({"facecolor": colours[r, c], "linewidth": 0, "pad": 1})  # keeps hatching off


def draw_cells(axes: Axes, values: np.ndarray, **style: Any) -> Any:
    """Draw a mesh of cells centred on whole numbers; NaN stays grey."""
    axes.set_facecolor(MISSING)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    edges = np.arange(values.shape[1] + 1) - 0.5, np.arange(values.shape[0] + 1) - 0.5
    return axes.pcolormesh(*edges, np.ma.masked_invalid(values), edgecolors="white", linewidth=0.6, **style)


# ---- files ----


def save_figure(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write ``name.png`` and ``name.svg``; return the files, in this order."""
    files = [folder / f"{name}{kind}" for kind in (".png", ".svg")]
    for path in files:
        save_figure_as(figure, path)
    return files


def save_figure_as(figure: Figure, path: Path) -> None:
    """Write one file; its ending chooses the format: ``.png``, ``.svg`` or ``.pdf``."""
    kind = path.suffix[1:]
    if kind == "svg":
        write_text(path, _svg(figure, path.stem))
        return
    metadata = {"CreationDate": None} if kind == "pdf" else None
    with write_whole(path) as temporary, _settings(path.stem):
        figure.savefig(temporary, format=kind, dpi=_DPI, metadata=metadata)


def to_inline_svg(svg: str, name: str, description: str, *, source: str | Path = "") -> str:
    """Turn an SVG file's text into an element for a page: with ids of its own, no header, and a description.

    Raises:
      InputError: ``source``, the file, is no SVG as `save_figure` writes it.
    """
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _XLINK)
    try:
        root = ElementTree.fromstring(svg)  # noqa: S314 (expat itself limits entities)
    except ElementTree.ParseError as error:
        raise InputError(source, "", f"an SVG picture ({error})") from None
    meant = set(
        _REFERENCE.findall(svg)
    )  # most ids are matplotlib's counting of artists: a page has no use for them
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag == f"{{{_SVG}}}metadata":
                parent.remove(child)
        for attribute, value in list(parent.attrib.items()):
            if attribute == "id" and value not in meant:
                del parent.attrib[attribute]
            elif attribute == "id":
                parent.set(attribute, f"{name}-{value}")
            elif attribute == f"{{{_XLINK}}}href":
                parent.set(attribute, value.replace("#", f"#{name}-", 1))
            else:
                parent.set(attribute, value.replace("url(#", f"url(#{name}-"))
    harmless = all(
        e.tag in _PARTS and not any(_acts(*pair) for pair in e.attrib.items()) for e in root.iter()
    )
    if not harmless or "width" not in root.attrib:
        raise InputError(source, "", "an SVG picture as `rodiu` draws them")
    width = root.attrib.pop("width")
    root.attrib.pop("height", None)
    root.set("style", f"max-width:{width}")
    root.set("role", "img")
    root.set("aria-label", strip_control(description))
    return ElementTree.tostring(root, encoding="unicode")


def _acts(attribute: str, value: str) -> bool:
    """Tell whether an attribute of an SVG element runs a script or leads out of the picture."""
    leads = attribute.endswith("href") and not value.startswith(("#", "data:image/"))
    return leads or attribute.startswith("on")


def _svg(figure: Figure, name: str) -> str:
    """Write SVG with text as text (small, searchable) and ids that depend only on the name and the content."""
    buffer = io.StringIO()
    with _settings(name):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return re.sub("[\x00-\x08\x0b\x0c\x0e-\x1f]", "\ufffd", buffer.getvalue())


@contextmanager
def _settings(name: str) -> Iterator[None]:
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*[Gg]lyph .* missing from", category=UserWarning)
        yield
