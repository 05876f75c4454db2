"""The command line keeps compiled programs from run to run, in the user's cache folder.

On a CPU they are kept whole (`rodiu_jax.runtime.kept_programs`); where JAX may find an accelerator, by JAX's own cache.
Never both: what JAX loads from its cache, XLA cannot write again so that it would run.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import TextIO

import platformdirs

_READING = re.compile(r"Error reading persistent compilation cache entry for '(\w+)'")
_WRITING = re.compile(r"Error writing persistent compilation cache entry")

_whole: Path | None = None
"""Where programs are kept whole."""


def keep_programs() -> None:
    """Keep what is compiled and use what was kept; JAX must not be imported yet.

    ``JAX_COMPILATION_CACHE_DIR`` and ``JAX_ENABLE_COMPILATION_CACHE`` of the environment overrule this: then it is JAX
    that keeps, or nobody. Where the folder cannot be written nothing is kept. What is damaged is compiled again and
    replaced.
    """
    global _whole
    if {"JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE"} & os.environ.keys():
        return
    folder = programs_folder()
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    if not (nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)):
        return
    if find_spec("jax_plugins") is None:  # where the packages for accelerators are
        _whole = folder
        return
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
    _replace_damaged_entries(folder)


def forget_programs() -> None:
    """Neither use nor keep compiled programs; JAX must not be imported yet."""
    global _whole
    _whole = None
    os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"


def whole_programs_folder() -> Path | None:
    """Return where this process keeps programs whole; None where it does not."""
    return _whole


def kept_folder() -> Path | None:
    """Return where this process, or JAX for it, keeps what it compiles; None where nothing is kept."""
    folder = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    return _whole or (Path(folder) if folder else None)


def programs_folder() -> Path:
    """Return the folder of programs compiled for this kind of processor.

    Another processor, which may share the user's home, could stop at an illegal instruction of theirs.
    """
    caches = platformdirs.user_cache_path("rodiu", appauthor=False, opinion=False)
    return caches / f"programs-{_hash_processor()}"


def _hash_processor() -> str:
    """Return a short hash of what the processor can do."""
    try:
        lines = (
            Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split("\n\n")[0].splitlines()
        )
        kind = [line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))]
    except OSError:
        kind = [platform.processor()]
    return hashlib.sha256("\n".join([platform.machine(), *kind]).encode()).hexdigest()[:12]


def _replace_damaged_entries(folder: Path) -> None:
    """Remove each entry that JAX warns it cannot read, so that it writes another; the user sees no such warning."""
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
