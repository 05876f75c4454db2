"""What a person would see in a terminal."""

import io
from collections.abc import Iterable

from rich.console import Console

from rodiu_jax.report.parts.terminal import Part, print_parts


def printed(parts: Iterable[Part], width: int = 140) -> str:
    """Return the parts as text, in a terminal of so many columns."""
    stream = io.StringIO()
    print_parts(parts, Console(file=stream, width=width, highlight=False))
    return stream.getvalue()
