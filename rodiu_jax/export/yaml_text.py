"""YAML of plain values, with comments at its head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rodiu_jax.errors import one_line


def write_yaml(documents: Sequence[Any], head: Sequence[str]) -> str:
    """Write documents in the order of their keys, each behind ``---`` where there are several."""
    import yaml

    comments = "".join(f"# {one_line(line)}\n" for line in head)
    several = len(documents) > 1
    # Equal lists and tables are written out each time: anchors are hard to read and to change.
    dumper = type("_Plain", (yaml.SafeDumper,), {"ignore_aliases": lambda *_: True})
    text = yaml.dump_all(
        documents,
        Dumper=dumper,
        sort_keys=False,
        explicit_start=several,
        width=10_000,  # commands stay on one line
        default_flow_style=False,
    )
    return comments + text
