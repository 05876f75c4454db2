"""Compiled programs kept from run to run of the command line: JAX's own cache, in the user's cache folder."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import sys
import warnings
from pathlib import Path
from typing import TextIO

_READING = re.compile(r"Error reading persistent compilation cache entry for '(\w+)'")
_WRITING = re.compile(r"Error writing persistent compilation cache entry")


def keep_programs() -> None:
    """Let JAX, which must not be imported yet, keep what it compiles and use what it kept.

    Who says otherwise in ``JAX_COMPILATION_CACHE_DIR`` or ``JAX_ENABLE_COMPILATION_CACHE`` is obeyed. Where the folder
    cannot be written nothing is kept. An entry that is damaged is compiled again and replaced.
    """
    if {"JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE"} & os.environ.keys():
        return
    folder = programs_folder()
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        return
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
    _mend(folder)


def forget_programs() -> None:
    """Let JAX, which must not be imported yet, neither use nor keep compiled programs."""
    os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"


def programs_folder() -> Path:
    """Where programs of this kind of processor are kept: one compiled for another may stop with an illegal instruction,
    and homes are shared."""
    home = Path(os.path.expanduser("~"))
    if sys.platform == "darwin":
        base = home / "Library" / "Caches"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    return base / "rodiu" / f"programs-{_processor()}"


def _processor() -> str:
    try:
        lines = (
            Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split("\n\n")[0].splitlines()
        )
        kind = [line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))]
    except OSError:
        kind = [platform.processor()]
    return hashlib.sha256("\n".join([platform.machine(), *kind]).encode()).hexdigest()[:12]


def _mend(folder: Path) -> None:
    """Remove an entry that JAX says it cannot read, so that it writes another, and say nothing to the user."""
    before = warnings.showwarning

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if found := _READING.match(str(message)):
            for entry in folder.glob(f"{found[1]}-*"):
                entry.unlink(missing_ok=True)
        elif not _WRITING.match(str(message)):
            before(message, category, filename, lineno, file, line)

    warnings.showwarning = show
