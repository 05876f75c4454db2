"""Names that clusters and routers take, made from names of a catalogue; no two of them alike."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Sequence

LONGEST = 40
"""Signs of a label: Kubernetes allows 63, and appends up to 17 of its own and the script of vLLM a number."""

_LABEL = re.compile(r"[a-z](?:[a-z0-9-]*[a-z0-9])?")


def make_labels(
    names: Sequence[str], *, reserved: Collection[str] = (), longest: int = LONGEST
) -> tuple[str, ...]:
    """Make a label of each name: small letters of ASCII, digits and dashes, first a letter (RFC 1035).

    Names that come to the same label, or to a reserved one, get a number behind it, in their order.
    """
    taken = set(reserved)
    labels = []
    for name in names:
        label = _make_label(name, longest)
        number = 2
        while label in taken:
            ending = f"-{number}"
            label = _make_label(name, longest - len(ending)) + ending
            number += 1
        taken.add(label)
        labels.append(label)
    return tuple(labels)


def is_label(text: str) -> bool:
    """Tell whether a text is a label of at most 63 signs, as a namespace must be."""
    return len(text) <= 63 and _LABEL.fullmatch(text) is not None


def _make_label(name: str, longest: int) -> str:
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    label = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")
    if not label or not label[0].isalpha():
        label = f"x-{label}".rstrip("-")
    return label[:longest].rstrip("-")
