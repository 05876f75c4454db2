"""JSON and YAML of others, walked with the path of every value, so that an error names file, field and value."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rodiu_jax.catalog.readers.imported import Origin, read_origin
from rodiu_jax.errors import InputError
from rodiu_jax.io.files import read_json

_MOST_YAML = 2**24
"""Bytes; a report is some kilobytes, and the parser needs seconds for this much."""

_MOST_ROWS = 1_000_000


class Tree:
    """A value of a document with its path. Keys are as the file spells them.

    Attributes:
      source: the file, as it was named.
      at: path of the value in it, such as ``metrics.latency.mean``; empty for the whole.
    """

    def __init__(self, value: Any, source: Path, at: str = "") -> None:
        self.value, self.source, self.at = value, source, at

    def get(self, *keys: str) -> Tree | None:
        """Find what stands under keys within each other; None where there is no such key, or null."""
        found = self
        for key in keys:
            if not isinstance(found.value, dict) or found.value.get(key) is None:
                return None
            found = Tree(found.value[key], self.source, f"{found.at}.{key}".lstrip("."))
        return found

    def need(self, *keys: str) -> Tree:
        """Find what stands under keys within each other, or refuse the file."""
        found = self.get(*keys)
        if found is None:
            raise InputError(
                self.source, ".".join((self.at, *keys)).lstrip("."), "this key, which is missing"
            )
        return found

    def has(self, *keys: str) -> bool:
        """Tell whether all of these keys are there."""
        return isinstance(self.value, dict) and all(key in self.value for key in keys)

    def items(self) -> list[tuple[str, Tree]]:
        """List keys and values of an object, or refuse the file."""
        if not isinstance(self.value, dict):
            raise InputError(self.source, self.at, "an object with keys", self.value)
        return [(str(k), Tree(v, self.source, f"{self.at}.{k}".lstrip("."))) for k, v in self.value.items()]

    def list(self) -> list[Tree]:
        """List the members of a list, or refuse the file."""
        if not isinstance(self.value, list):
            raise InputError(self.source, self.at, "a list", self.value)
        return [Tree(v, self.source, f"{self.at}[{n}]") for n, v in enumerate(self.value)]

    def number(self, *, above: bool = False, most: float = 1e15) -> float:
        """Return a number from 0 (itself not, where ``above``) to ``most``, or refuse the file."""
        value = self.value
        good = isinstance(value, int | float) and not isinstance(value, bool)
        if not (good and 0 <= value <= most and not (above and value == 0)):
            limit = f" and at most {most:g}" if most < 1e15 else ""
            raise InputError(self.source, self.at, f"a number {'>' if above else '>='} 0{limit}", value)
        return float(value)

    def whole(self, *, low: int = 0, most: int = 2**53) -> int:
        """Return a whole number, or refuse the file."""
        value = self.value
        good = isinstance(value, int | float) and not isinstance(value, bool)
        if not (good and low <= value <= most and value == math.floor(value)):
            raise InputError(self.source, self.at, f"a whole number from {low} to {most}", value)
        return int(value)

    def flag(self) -> bool:
        """Return true or false, or refuse the file."""
        if not isinstance(self.value, bool):
            raise InputError(self.source, self.at, "true or false", self.value)
        return self.value

    def text(self) -> str:
        """Return a text, or refuse the file."""
        if not isinstance(self.value, str) or not self.value:
            raise InputError(self.source, self.at, "a text", self.value)
        return self.value


def read_tree(path: str | Path) -> tuple[Tree, Origin]:
    """Read JSON, or YAML where the name says so, with the digest of its bytes.

    Raises:
      InputError: unreadable, or neither.
    """
    content, origin = read_origin(path)
    source = Path(path)
    if source.suffix.lower() in (".yaml", ".yml"):
        return Tree(_parse_yaml(content, source), source), origin
    return Tree(read_json(path), source), origin


def _parse_yaml(content: bytes, source: Path) -> Any:
    import yaml

    if len(content) > _MOST_YAML:
        raise InputError(source, "", "YAML of at most 16 MiB; this is longer")

    class Loader(yaml.SafeLoader):
        """Plain values only: no key twice, no alias (which could stand for terabytes), no number such as 1:30."""

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.events.AliasEvent):
                mark = self.peek_event().start_mark
                raise yaml.MarkedYAMLError(problem="an alias", problem_mark=mark)
            return super().compose_node(parent, index)

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            seen: set[str] = set()
            for key, _ in node.value:
                if not isinstance(key, yaml.ScalarNode) or key.value in seen:
                    raise yaml.MarkedYAMLError(
                        problem="a key that is no text, or twice", problem_mark=key.start_mark
                    )
                seen.add(key.value)
            return super().construct_mapping(node, deep)

    def number(kind: Any) -> Any:
        def construct(loader: Any, node: Any) -> Any:
            if ":" in node.value or "_" in node.value:
                raise yaml.MarkedYAMLError(
                    problem="a number such as 1:30 or 1_000", problem_mark=node.start_mark
                )
            return kind(loader, node)

        return construct

    Loader.add_constructor("tag:yaml.org,2002:int", number(yaml.SafeLoader.construct_yaml_int))
    Loader.add_constructor("tag:yaml.org,2002:float", number(yaml.SafeLoader.construct_yaml_float))
    try:
        return yaml.load(content, Loader)  # noqa: S506  a SafeLoader of our own
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark is not None else 1
        raise InputError(source, f"line {line}", f"YAML ({error.problem})") from None
    except (yaml.YAMLError, ValueError, TypeError, OverflowError, AttributeError, KeyError) as error:
        said = str(error).splitlines()[0] if str(error) else "not readable"
        raise InputError(source, "", f"YAML ({said})") from None
    except RecursionError:
        raise InputError(source, "", "YAML nested less deeply") from None


def read_rows(path: str | Path) -> tuple[list[str], Iterator[tuple[int, dict[str, str]]], Origin]:
    """Read a CSV: the names of its columns, and each row with its line; what a row lacks is empty.

    Raises:
      InputError: unreadable, not UTF-8, no heading, a column twice, more values in a line than columns.
    """
    content, origin = read_origin(path)
    source = Path(path)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(source, "", "UTF-8 text") from None
    lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        heads = [head.strip() for head in next(lines, [])]
    except csv.Error as error:
        raise InputError(source, "line 1", f"the names of columns ({error})") from None
    if not any(heads):
        raise InputError(source, "", "a CSV with a heading; it is empty")
    for head in heads:
        if heads.count(head) > 1:
            raise InputError(source, head, "each column once", heads)

    def rows() -> Iterator[tuple[int, dict[str, str]]]:
        try:
            for count, cells in enumerate(lines):
                if not any(cell.strip() for cell in cells):
                    continue
                line = lines.line_num
                if len(cells) > len(heads):
                    expected = f"{len(heads)} values, as many as columns"
                    raise InputError(source, f"line {line}", expected, len(cells))
                if count >= _MOST_ROWS:
                    raise InputError(source, "", f"at most {_MOST_ROWS:,} rows")
                cells += [""] * (len(heads) - len(cells))
                yield line, dict(zip(heads, (cell.strip() for cell in cells), strict=True))
        except csv.Error as error:
            raise InputError(source, f"line {lines.line_num}", f"a line of CSV ({error})") from None

    return heads, rows(), origin


def cell_number(text: str, source: Path, at: str, *, expected: str = "a number >= 0") -> float:
    """Read a cell of a CSV as a number >= 0, or refuse the file."""
    from rodiu_jax.catalog.readers.trace_formats import parse_number

    number = parse_number(text)
    if number is None or not 0 <= number < math.inf:
        raise InputError(source, at, expected, text)
    return number


def as_json(value: Any) -> str:
    """Write JSON values for `--json`: numbers that are not finite are null."""

    def clean(x: Any) -> Any:
        if isinstance(x, float):
            return x if math.isfinite(x) else None
        if isinstance(x, dict):
            return {k: clean(v) for k, v in x.items()}
        return [clean(v) for v in x] if isinstance(x, list | tuple) else x

    return json.dumps(clean(value), indent=1, ensure_ascii=False)
