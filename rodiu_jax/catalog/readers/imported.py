"""What a reader found, and how it becomes a catalogue that extends another: every value with its file and digest."""

from __future__ import annotations

import hashlib
import math
import os
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rodiu_jax.catalog import Catalog, Distribution, Draws, Patched, catalog_names, load_catalog
from rodiu_jax.catalog.file_format import AXES, Axis
from rodiu_jax.catalog.labels import LABELS
from rodiu_jax.catalog.promises import Basis, Curve, Promise
from rodiu_jax.errors import InputError, nearest
from rodiu_jax.io.files import read_bytes, toml_value, write_whole

Names = tuple[str, ...]
Kind = Literal["query", "model", "gpu"]

_BARE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_ELSEWHERE = frozenset(label.attribute for label in LABELS)
_AXIS_WORDS = {"query": "query type", "model": "model", "gpu": "GPU configuration", "tp": "degree"}


@dataclass(frozen=True)
class Origin:
    """A file that values come from."""

    name: str
    digest: str

    def __str__(self) -> str:
        """Write name and whole digest, as sources of values state them."""
        return f"{self.name} (SHA-256 {self.digest})"

    @property
    def short(self) -> str:
        """Name and the first 12 digits of the digest, for sentences."""
        return f"{self.name} (SHA-256 {self.digest[:12]}...)"


def read_origin(path: str | Path) -> tuple[bytes, Origin]:
    """Read a file whole, with its name and SHA-256.

    Raises:
      InputError: it is missing, unreadable or longer than 1 GiB.
    """
    content = read_bytes(path)
    return content, Origin(Path(path).name, hashlib.sha256(content).hexdigest())


@dataclass(frozen=True)
class Value:
    """One entry of a catalogue: a number or a distribution at some names of a quantity, with its provenance.

    Attributes:
      together: the group that it is drawn with; empty where it is drawn alone.
      at_curve: the number follows the curves of its names, as the promise changes.
    """

    quantity: str
    names: Names
    distribution: Distribution
    source: str
    note: str = ""
    basis: Basis = "measured"
    together: str = ""
    at_curve: bool = False

    @property
    def values(self) -> tuple[float, ...]:
        """The numbers of the distribution."""
        return self.distribution.numbers

    def toml(self) -> list[str]:
        """Write the keys of the entry, a line each."""
        lines = [f"source = {toml_value(self.source)}"]
        if self.note:
            lines.append(f"note = {toml_value(self.note)}")
        lines.append(f"basis = {toml_value(self.basis)}")
        if self.together:
            lines.append(f"together = {toml_value(self.together)}")
        if self.at_curve:
            lines.append("at_curve = true")
        return [*lines, *_write_distribution(self.distribution)]


def fixed(value: float) -> Distribution:
    """Return the distribution of one certain number."""
    return Distribution("fixed", (float(value),))


def choice(values: Sequence[float]) -> Distribution:
    """Return the distribution of equally likely numbers."""
    return Distribution("choice", tuple(float(x) for x in values))


@dataclass(frozen=True)
class Imported:
    """What files say, ready to be written as a catalogue that extends ``base``.

    Attributes:
      kind: what was read: ``trace``, ``benchmark``, ``profile``, ``model``, ``prices``, ``quality`` or
        ``aiconfigurator``.
      base: catalogue that is extended, a name or a path.
      values, curves, promises: what the files say, with its source.
      added: names that ``base`` lacks, by axis; everything else about each is as of the name it is ``like``.
      likes: those names, by axis and added name.
      measures: cells of `throughput` that neither these files nor the base's curves and values have count as measured
        by nobody, which is 0; False leaves them at the base's ``each``.
      statistics: of traces `rodiu_jax.catalog.readers.trace.QueryStatistics`, one per query type.
      record: what was read, as JSON values.
      summary: what was read, as a paragraph for people.
    """

    kind: str
    name: str
    description: str
    base: str | Path
    values: tuple[Value, ...]
    record: Any
    summary: str
    curves: tuple[Curve, ...] = ()
    promises: Mapping[str, Promise] = field(default_factory=dict)
    likes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    statistics: tuple[Any, ...] = field(default=(), repr=False, compare=False)
    measures: bool = True

    @property
    def added(self) -> dict[str, tuple[str, ...]]:
        """The names that the base lacks, by axis."""
        return {axis: tuple(names) for axis, names in self.likes.items() if names}

    def text(self, folder: str | Path = ".") -> str:
        """Write the catalogue as TOML; a base that is a file is named relative to ``folder``, its place.

        Raises:
          InputError: the base cannot be extended by these values, such as a degree that it lacks.
        """
        catalog = load_catalog(self.base)
        lines = [
            f"# Written by `rodiu import {self.kind}`.",
            "",
            "[catalog]",
            f"name = {toml_value(self.name)}",
        ]
        lines += [
            f"description = {toml_value(self.description)}",
            f"extends = {toml_value(_refer_to(self.base, folder))}",
        ]
        lines += self._write_names(catalog)
        values = [*_copy_values(catalog, self.likes), *self.values]
        latest = {(v.quantity, v.names): v for v in values}  # what was read comes after what is copied
        if self.measures and (self.curves or any(v.quantity == "throughput" for v in values)):
            lines += _write_throughput(catalog, latest, self.curves)
        heads: set[str] = set()
        for (quantity, names), value in latest.items():
            lines += ["", f"[quantity.{'.'.join((toml_key(quantity), 'values', *map(toml_key, names)))}]"]
            if not names:
                lines[-1] = f"[quantity.{toml_key(quantity)}.each]"
            lines += value.toml()
            heads.add(quantity)
        for query, promise in self.promises.items():
            lines += ["", f"[promise.{toml_key(query)}]", f"limits = {toml_value(str(promise))}"]
        for curve in self.curves:
            lines += _write_curve(curve)
        return "\n".join(lines) + "\n"

    def save(self, path: str | Path) -> None:
        """Write the catalogue, whole or not at all, after it has been loaded once.

        Raises:
          InputError: the file cannot be written there, or is the base itself; the base cannot hold the values.
        """
        if not _is_packaged(self.base) and Path(path).resolve() == Path(self.base).resolve():
            raise InputError(path, "", "another file than the catalogue that is extended")
        write_checked(path, self.text(Path(path).parent))

    def _write_names(self, catalog: Catalog) -> list[str]:
        lines: list[str] = []
        if self.added:
            lines += ["", "[sets]"]
            for axis, names in self.added.items():
                lines.append(f"{axis} = {toml_value([*catalog.sets[_axis(axis)], *names])}")
        for axis, likes in self.likes.items():
            labels = catalog.attributes.get(_axis(axis), {})
            for name, like in likes.items():
                # A new name is another model or GPU: what the old one is called elsewhere would be wrong of it.
                own = {k: v for k, v in labels.get(like, {}).items() if k not in _ELSEWHERE}
                if own:
                    lines += ["", f"[attributes.{axis}.{toml_key(name)}]"]
                    lines += [f"{toml_key(k)} = {toml_value(v)}" for k, v in own.items()]
        return lines


def write_checked(path: str | Path, text: str) -> None:
    """Write a catalogue that loads; what does not is refused before anything is under its name.

    Raises:
      InputError: the catalogue is not admissible, or cannot be written there.
    """
    with write_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
        try:
            load_catalog(temporary)
        except InputError as error:
            raise error.move_to(str(path), error.field) from None


def list_files(files: str | Path | Sequence[str | Path]) -> list[Path]:
    """List files that were given as one or as several.

    Raises:
      InputError: there is none.
    """
    paths = [Path(files)] if isinstance(files, str | Path) else [Path(file) for file in files]
    if not paths:
        raise InputError("files", "", "at least one file")
    return paths


def refuse_again(path: Path, origin: Origin, before: Iterable[Origin]) -> None:
    """Refuse a file whose bytes an earlier one had.

    Raises:
      InputError: it is one of them.
    """
    if any(origin.digest == known.digest for known in before):
        raise InputError(path, "", "each file once; another holds the same bytes")


def describe_added(catalog: Catalog, added: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Say of each name that the base lacks whose values it has: a sentence for all that are like one name."""
    lines = []
    for axis, likes in added.items():
        for old in dict.fromkeys(likes.values()):
            new = [name for name, like in likes.items() if like == old]
            names = f"{', '.join(new[:3])}{' ...' if len(new) > 3 else ''}"
            lines.append(f"{catalog.name} has no {axis} {names}: all else is assumed as {old}'s.")
    return lines


def toml_key(name: str) -> str:
    """Write a name as a key of TOML, quoted where it must be."""
    return name if _BARE.fullmatch(name) else toml_value(name)


def settle_name(
    catalog: Catalog, axis: Kind, name: str, like: str | None, option: str
) -> tuple[str, str] | None:
    """Decide how a name that the base may lack is treated: None where it is known, else (name, what it is like).

    Args:
      like: a name of the base whose values all else is taken from; None refuses an unknown name.
      option: what the name came from, in errors.

    Raises:
      InputError: the base has neither the name, nor the one it should be like.
    """
    known = catalog.sets[axis]
    word = _AXIS_WORDS[axis]
    if name in known:
        return None
    if not name:
        raise InputError(option, "", f"the name of a {word}", name)
    if like is None:
        expected = (
            f"a {word} of {catalog.name}: {', '.join(known)}{nearest(name, known)}; "
            f"or --like {axis}=NAME, which adds it with all other values as NAME's"
        )
        raise InputError(option, "", expected, name)
    if like not in known:
        expected = f"a {word} of {catalog.name}: {', '.join(known)}{nearest(like, known)}"
        raise InputError("like", axis, expected, like)
    return name, like


def find_likes(text: str | Mapping[str, str] | None) -> dict[str, str]:
    """Read ``--like``: by axis, the name of the base that new names are like (``model=Llama-3.1-8B,gpu=H100_FP16``).

    Raises:
      InputError: not AXIS=NAME with commas between.
    """
    if text is None or isinstance(text, Mapping):
        return dict(text or {})
    found: dict[str, str] = {}
    for part in text.split(","):
        axis, sign, name = part.partition("=")
        if not sign or axis.strip() not in ("query", "model", "gpu") or axis.strip() in found:
            expected = "query=NAME, model=NAME or gpu=NAME, with commas between"
            raise InputError("like", "", expected, text)
        found[axis.strip()] = name.strip()
    return found


def read_pairs(text: str | Mapping[str, str] | None, option: str) -> dict[str, str]:
    """Read ``A=B,C=D`` in order.

    Raises:
      InputError: a part without ``=``, an empty side, or a left side twice.
    """
    if text is None or isinstance(text, Mapping):
        return dict(text or {})
    found: dict[str, str] = {}
    for part in text.split(","):
        left, sign, right = (x.strip() for x in part.rpartition("="))
        if not sign or not left or not right or left in found:
            raise InputError(option, "", "pairs such as A=B,C=D, each left side once", text)
        found[left] = right
    return found


def _axis(name: str) -> Axis:
    return next(a for a in AXES if a == name)


def _copy_values(catalog: Catalog, likes: Mapping[str, Mapping[str, str]]) -> list[Value]:
    """Everything that the base states about the names that new ones are like, for the new ones."""
    if not any(likes.values()):
        return []
    values = []
    for quantity in catalog.quantities.values():
        recipe = quantity.recipe
        if quantity.name == "throughput":  # what was measured of one name says nothing about another
            continue
        if not isinstance(recipe, Draws | Patched) or (isinstance(recipe, Draws) and recipe.by is not None):
            continue
        extended = [(*catalog.sets[a], *likes.get(a, {})) for a in quantity.over]
        for names in _combinations(extended):
            old = tuple(likes.get(a, {}).get(n, n) for a, n in zip(quantity.over, names, strict=True))
            entry = recipe.values.get(old)
            if old == names or entry is None:
                continue
            new = [n for n, o in zip(names, old, strict=True) if n != o]
            same = [o for n, o in zip(names, old, strict=True) if n != o]
            note = f"assumed: {', '.join(new)} as {', '.join(same)} of {catalog.name}"
            source = entry.source or quantity.source
            values.append(
                Value(
                    quantity.name,
                    names,
                    entry.distribution,
                    source,
                    "; ".join(t for t in (note, entry.note) if t),
                    "assumed",
                    entry.together or "",
                )
            )
    return values


def _combinations(lists: Sequence[Sequence[str]]) -> list[Names]:
    found: list[Names] = [()]
    for names in lists:
        found = [(*before, name) for before in found for name in names]
    return found


def _write_throughput(
    catalog: Catalog, values: dict[tuple[str, Names], Value], curves: Sequence[Curve]
) -> list[str]:
    """Say what a pair without a measurement sustains: nothing. Values of the base stay, whatever its ``each`` was."""
    held = catalog.quantities.get("throughput")
    recipe = held.recipe if held is not None else None
    if held is not None and not (isinstance(recipe, Draws) and recipe.by is None):
        raise InputError(
            catalog.path, "quantity.throughput", "values, which measurements can replace, instead of a rule"
        )
    if isinstance(recipe, Draws) and recipe.each is not None and recipe.each.distribution == fixed(0.0):
        return []
    ours = {c.cell for c in curves} | {names for quantity, names in values if quantity == "throughput"}
    measured = {c.cell for c in catalog.curves}
    for names, entry in (recipe.values if isinstance(recipe, Draws) else {}).items():
        if names not in ours and names not in measured:
            kept = Value(
                "throughput", names, entry.distribution, entry.source, entry.note, _basis(entry.basis)
            )
            values["throughput", names] = kept
    lines = ["", "[quantity.throughput]", f"over = {toml_value(list(AXES))}", 'unit = "queries/h"']
    lines += [
        'source = "nobody measured it: the pair cannot serve the type"',
        'basis = "assumed"',
        "each = 0",
    ]
    for curve in catalog.curves:
        if curve.cell not in ours:
            lines += _write_curve(curve)
    return lines


def _basis(basis: str | None) -> Basis:
    return "measured" if basis == "measured" else "predicted" if basis == "predicted" else "assumed"


def _write_curve(curve: Curve) -> list[str]:
    lines = ["", "[[curve]]"]
    for key, name in zip(("query", "model", "gpu"), curve.cell[:3], strict=True):
        lines.append(f"{key} = {toml_value(name)}")
    lines += [f"tp = {int(curve.tp)}", f"source = {toml_value(curve.source)}"]
    if curve.note:
        lines.append(f"note = {toml_value(curve.note)}")
    lines.append(f"basis = {toml_value(curve.basis)}")
    shared = {point.tokens for point in curve.points}
    lines += [f"tokens = {_write_tokens(*shared)}"] if len(shared) == 1 and None not in shared else []
    lines.append("points = [")
    for point in curve.points:
        latencies = ", ".join(f"{toml_key(k)} = {_number(v)}" for k, v in point.latencies.items())
        own = f"tokens = {_write_tokens(point.tokens)}, " if len(shared) > 1 and point.tokens else ""
        lines.append(f"  {{ rate = {_number(point.rate)}, {own}ms = {{ {latencies} }} }},")
    return [*lines, "]"]


def _write_tokens(tokens: tuple[float, float] | None) -> str:
    return f"[{', '.join(_number(x) for x in tokens or ())}]"


def _write_distribution(distribution: Distribution) -> list[str]:
    numbers = [_number(x) for x in distribution.numbers]
    match distribution.kind:
        case "fixed":
            return [f"fixed = {numbers[0]}"]
        case "normal":
            keys = ("mean", "sd", "low", "high")
            return [f"normal = {{ {', '.join(f'{k} = {x}' for k, x in zip(keys, numbers, strict=True))} }}"]
        case "choice":
            wrapped = textwrap.wrap(", ".join(numbers), width=100)
            return ["choice = [", *(f"  {part}" for part in wrapped), "]"]
    return [f"{distribution.kind} = [{', '.join(numbers)}]"]


def _number(value: float) -> str:
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    return f"{value:.10g}"


def _is_packaged(base: str | Path) -> bool:
    return str(base) in catalog_names()


def _refer_to(base: str | Path, folder: str | Path) -> str:
    """Return the name by which a catalogue in ``folder`` refers to ``base``."""
    if _is_packaged(base):
        return str(base)
    relative = Path(os.path.relpath(base, folder)).as_posix()
    return f"./{relative}" if _is_packaged(relative) else relative
