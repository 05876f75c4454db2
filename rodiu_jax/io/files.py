"""Reading and writing whole files: what is under its final name is complete."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import stat
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, SupportsFloat

from rodiu_jax.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

MOST_BYTES = 2**30
"""Longest file that is read whole; the user's own files are far smaller, a device or a bomb has no end."""

_MOST_TOML = 2**26
"""Longest TOML file: its parser needs a minute for this much."""

_TEMPORARY = re.compile(r"\.(.+)\.[a-z0-9_]{8}(\.\w+)?")
"""Names that `write_whole` gives: a dot, the file's own, eight characters of `tempfile`, the file's suffix."""


@contextmanager
def write_whole(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it is renamed into place, on any failure removed.

    A symbolic link stays, and the file it leads to is written.

    Raises:
      InputError: the folder does not exist or cannot be written, or ``path`` is a pipe or a device.
      OSError: the disk is full.
    """
    path = _named(path)
    if path.is_dir():
        raise InputError(path, "", "the name of a file, not of a folder")
    if path.exists() and not path.is_file():
        raise InputError(path, "", "a regular file")
    target = Path(os.path.realpath(path))
    try:
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=path.suffix)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):  # nothing that a better path would mend
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise InputError(path, "", f"an existing folder that can be written ({error.strerror})") from None
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)  # mkstemp makes private files
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(folder: str | Path, names: str = "*") -> None:
    """Remove what a process that was killed inside `write_whole` left in ``folder``; nobody may be writing there.

    Args:
      names: pattern of the files that were being written.
    """
    for path in Path(folder).glob(f".{names}.*"):
        written = _TEMPORARY.fullmatch(path.name)
        if written is not None and Path(written[1]).suffix == (written[2] or ""):
            path.unlink(missing_ok=True)


def _named(path: str | Path) -> Path:
    """The path, where every library can be given it: Arrow takes UTF-8 names only."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise InputError(path, "", "a name in UTF-8") from None
    return Path(path)


def make_folder(path: str | Path) -> Path:
    """Make a folder where there is none; one that cannot be made is an `InputError`."""
    folder = _named(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(folder, "", f"a folder that can be written ({error.strerror})") from None
    return folder


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` as UTF-8, whole or not at all."""
    with write_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_csv(path: str | Path, table: pd.DataFrame) -> None:
    """Write a table without its index as CSV, whole or not at all."""
    with write_whole(path) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")


@contextmanager
def open_file(path: str | Path) -> Iterator[BinaryIO]:
    """A file or a pipe, open for reading bytes.

    Raises:
      InputError: a device, which may be zeros without an end.
      OSError: missing or unreadable.
    """
    with Path(path).open("rb") as stream:
        kind = os.fstat(stream.fileno()).st_mode
        if stat.S_ISCHR(kind) or stat.S_ISBLK(kind):
            raise InputError(path, "", "a file or a pipe, not a device")
        yield stream


def read_bytes(path: str | Path, *, most: int = MOST_BYTES) -> bytes:
    """Read a file whole; one that is missing, unreadable or longer than ``most`` is an `InputError`.

    A regular file that is too long is not read at all, a pipe no further than that, a device never.
    """
    try:
        with open_file(path) as stream:
            if os.fstat(stream.fileno()).st_size <= most:
                content = stream.read(most + 1)
                if len(content) <= most:
                    return content
    except OSError as error:
        raise InputError(path, "", f"a readable file ({error.strerror})") from None
    except InputError:
        raise
    except ValueError:  # a name with a NUL
        raise InputError(path, "", "the name of a file") from None
    raise InputError(path, "", f"a file of at most {size_text(most)}; this one is longer")


def size_text(size: int) -> str:
    """A number of bytes for people: ``64 MiB``."""
    unit = min(int(math.log2(max(size, 1))) // 10, 4)
    return f"{size / 1024**unit:.4g} {('B', 'KiB', 'MiB', 'GiB', 'TiB')[unit]}"


def read_text(path: str | Path, *, most: int = MOST_BYTES) -> str:
    """Read UTF-8 text; a file that is missing, unreadable, too long or not text is an `InputError`."""
    try:
        text = read_bytes(path, most=most).decode("utf-8")
    except UnicodeDecodeError:
        raise InputError(path, "", "UTF-8 text") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_json(path: str | Path) -> Any:
    """Parse JSON; refused are NaN and Infinity, as the standard does, numbers beyond float64 and doubled keys."""

    def refuse(constant: str) -> float:
        raise InputError(path, "", "finite numbers only", constant)

    def finite(text: str) -> float:
        number = float(text)
        return number if math.isfinite(number) else refuse(text)

    def whole(text: str) -> int:
        finite(text)  # int() refuses thousands of digits with an error of its own
        return int(text)

    def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise InputError(path, key, "each key once in an object")
            found[key] = value
        return found

    try:
        return json.loads(
            read_text(path),
            parse_constant=refuse,
            parse_float=finite,
            parse_int=whole,
            object_pairs_hook=distinct,
        )
    except json.JSONDecodeError as error:
        raise InputError(path, f"line {error.lineno} column {error.colno}", f"JSON ({error.msg})") from None
    except RecursionError:
        raise InputError(path, "", "JSON nested less deeply") from None


def json_number(value: SupportsFloat) -> float | None:
    """A number as JSON has it: null where it is infinite or not known."""
    number = float(value)
    return number if math.isfinite(number) else None


def read_toml(path: str | Path) -> dict[str, Any]:
    """Parse TOML."""
    text = read_text(path, most=_MOST_TOML)
    try:
        return tomllib.loads(text)
    except ValueError as error:  # of TOML, or of an integer with thousands of digits
        raise InputError(path, "", f"TOML ({error})") from None
    except RecursionError:
        raise InputError(path, "", "TOML nested less deeply") from None


def toml_value(value: str | int | float | list[str] | list[float]) -> str:
    """A TOML string, number or list of them: JSON's, the delete character escaped too.

    Half of a surrogate pair, which no file can hold, becomes ``?``.
    """
    text = json.dumps(value, ensure_ascii=False).encode("utf-8", "replace").decode("utf-8")
    return text.replace("\x7f", "\\u007f")
