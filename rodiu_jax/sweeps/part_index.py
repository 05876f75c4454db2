"""The index of a sweep's parts, ``parts.jsonl``: the SHA-256 of every file of rows or certificates that is whole.

Hashing a file takes far less time than decoding its pages. The index only says which bytes were checked before: it
vouches for no file whose bytes are others, wherever they came from, and what it lacks is read and checked. So it may
be deleted, damaged or behind (a process may be killed between a part and its line); that costs time, never rows. It
holds one JSON object a line, of which the last about a file counts.
"""

from __future__ import annotations

import errno
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path

from rodiu_jax.errors import InputError
from rodiu_jax.io.files import open_file, read_bytes, write_text

INDEX = "parts.jsonl"
"""Name of the index in the folder of a sweep."""

_BLOCK = 2**20
"""Bytes that are hashed at a time."""

_SHA256 = re.compile("[0-9a-f]{64}")


class PartIndex:
    """The index in one sweep's folder; only who holds the folder's lock may write it.

    Args:
      folder: of the sweep.
      form: what the files were checked to be, such as their columns; lines of another form count as absent.
    """

    def __init__(self, folder: Path, form: str) -> None:
        self._path = folder / INDEX
        self._form = hashlib.sha256(form.encode()).hexdigest()[:16]

    def read(self) -> dict[str, str]:
        """Return the SHA-256 of each file that the index knows, by its name; lines that cannot be read are left out."""
        try:
            lines = read_bytes(self._path).splitlines()
        except InputError:
            return {}
        known: dict[str, str] = {}
        for line in lines:
            try:
                entry = json.loads(line)
                file, checksum, form = (entry[key] for key in ("file", "sha256", "form"))
            except (ValueError, TypeError, KeyError, RecursionError):
                continue
            if form != self._form or not isinstance(file, str) or not isinstance(checksum, str):
                continue
            if _SHA256.fullmatch(checksum):
                known[file] = checksum
        return known

    def add(self, file: str, checksum: str) -> None:
        """Add the line of a file that was just written; where the index cannot be written, it lacks the line.

        Raises:
          OSError: the disk is full, so that the next part could not be written either.
        """
        try:
            with self._path.open("a", encoding="utf-8") as stream:
                stream.write(self._line(file, checksum))
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise

    def replace(self, known: Mapping[str, str]) -> None:
        """Write the lines of these files in place of all, whole or not at all."""
        write_text(self._path, "".join(self._line(*entry) for entry in known.items()))

    def _line(self, file: str, checksum: str) -> str:
        return json.dumps({"file": file, "sha256": checksum, "form": self._form}) + "\n"


def compute_checksum(path: Path) -> str | None:
    """Compute the SHA-256 of a file's bytes, in little memory; None where it cannot be read."""
    digest = hashlib.sha256()
    try:
        with open_file(path) as stream:
            while block := stream.read(_BLOCK):
                digest.update(block)
    except (OSError, InputError):
        return None
    return digest.hexdigest()
