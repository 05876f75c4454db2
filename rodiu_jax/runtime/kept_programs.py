"""Compiled programs kept whole, so that the next command need not trace them again.

JAX's own cache (`rodiu_jax.runtime.compile_cache`) finds what it kept by tracing a program and lowering it anew, which
takes as long as the first rows of a sweep. Here a program is found by what it was made from: this package's sources,
the versions below it, the machine, its options and the shapes of its arguments. Where nothing is kept so, a
program is a plain ``jax.jit``.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import sys
import time
import zlib
from collections.abc import Callable, Hashable
from contextlib import suppress
from functools import cache, update_wrapper
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
from jax.experimental import serialize_executable

from rodiu_jax.io.files import write_whole
from rodiu_jax.runtime.compile_cache import whole_programs_folder
from rodiu_jax.runtime.cores import usable_cores

_DIGEST = hashlib.sha256
_SOURCES = ("rodiu_jax", "solvers")

_UNUSED_SECONDS = 60 * 24 * 3600
"""After which an executable is removed: of other sources or versions, most likely."""


def kept_program(*static: str) -> Callable[[Callable[..., Any]], KeptProgram]:
    """Decorate a function as ``jax.jit`` does, its keyword arguments ``static`` being constants of the program."""
    return lambda function: KeptProgram(function, static)


class KeptProgram:
    """A jitted function whose executables are kept on disk; attributes are those of the jitted function.

    Calls with other shapes, options, or settings of JAX compile, or load, another executable.
    """

    def __init__(self, function: Callable[..., Any], static: tuple[str, ...]) -> None:
        self.jitted: Any = jax.jit(function, static_argnames=static)
        self._static = static
        self._ready: dict[Hashable, Callable[..., Any]] = {}
        update_wrapper(self, self.jitted)

    def __getattr__(self, name: str) -> Any:
        if name == "jitted":  # not made yet
            raise AttributeError(name)
        return getattr(self.jitted, name)

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Run the program; arrays by position or by name, constants by name."""
        folder = _folder()
        if folder is None:
            return self.jitted(*arguments, **options)
        static = {name: options.pop(name) for name in self._static if name in options}
        leaves, tree = jax.tree.flatten((arguments, options))
        kinds = tuple(map(jax.typeof, leaves))
        double = jax.config.jax_enable_x64  # pyright: ignore[reportAttributeAccessIssue]
        signature = tree, kinds, tuple(static.items()), double
        ready = self._ready.get(signature)
        if ready is None:
            name = f"{self.__module__}.{self.__qualname__}"
            asked = _write_constant((name, str(tree), [str(k) for k in kinds], static, double))
            ready = self._make(folder / f"{name}-{_key(asked)}", (arguments, options, static))
            self._ready[signature] = ready
        return ready(*arguments, **options)

    def _make(
        self, path: Path, call: tuple[tuple[Any, ...], dict[str, Any], dict[str, Any]]
    ) -> Callable[..., Any]:
        """Load the executable, or else compile it and keep it."""
        arguments, options, static = call
        if (found := _load(path)) is not None:
            return found
        compiled = self.jitted.lower(*arguments, **options, **static).compile()
        _keep(path, compiled)
        return compiled


def _folder() -> Path | None:
    """Return where executables are kept; None where none are, or where JAX computes on anything but one CPU."""
    folder = whole_programs_folder()
    if folder is None:
        return None
    found = jax.devices()
    return folder if len(found) == 1 and found[0].platform == "cpu" else None


@cache
def _made_from() -> str:
    """Return the hash of what every executable depends on: sources, versions, compiler's flags, cores."""
    root = Path(__file__).parents[2]
    digest = _DIGEST()
    for path in sorted(path for name in _SOURCES for path in (root / name).rglob("*.py")):
        digest.update(str(path.relative_to(root)).encode())
        digest.update(path.read_bytes())
    for name in ("jax", "jaxlib", "numpy", "optax"):  # what programs are made from, and by
        digest.update(version(name).encode())
    digest.update(sys.version.encode())
    settings = {name: value for name, value in os.environ.items() if _changes_programs(name)}
    digest.update(_write_constant((settings, usable_cores())).encode())
    return digest.hexdigest()


def _changes_programs(variable: str) -> bool:
    """Return whether a variable of the environment may change what is compiled."""
    told = variable in ("XLA_FLAGS", "NPROC") or variable.startswith("JAX_")
    return told and "CACHE" not in variable


def _key(asked: str) -> str:
    return _DIGEST(f"{_made_from()} {asked}".encode()).hexdigest()[:24]


def _write_constant(value: Any) -> str:
    """Write a constant so that equal ones are written alike in every process: sets have no order of their own."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{k}: {_write_constant(value[k])}' for k in sorted(value))}}}"
    if isinstance(value, frozenset | set):
        return f"{{{', '.join(sorted(map(_write_constant, value)))}}}"
    if type(value) in (list, tuple):
        return f"[{', '.join(map(_write_constant, value))}]"
    return repr(value)


def _load(path: Path) -> Callable[..., Any] | None:
    """Return what was kept; None where there is nothing, or it is damaged, or made for another machine."""
    try:
        content = path.read_bytes()
        os.utime(path)  # what is used is kept
    except OSError:
        return None
    digest, packed = content[:32], content[32:]
    if _DIGEST(packed).digest() != digest:
        return None
    with suppress(Exception):  # whatever it is, the program can be compiled
        made = pickle.loads(zlib.decompress(packed))  # noqa: S301 - this command wrote it, in its user's own folder
        return serialize_executable.deserialize_and_load(*made)
    return None


def _keep(path: Path, compiled: Any) -> None:
    """Keep what was compiled, and nothing that was not used for long; where that fails, nothing depends on it."""
    with suppress(Exception):
        packed = zlib.compress(pickle.dumps(serialize_executable.serialize(compiled)), 1)
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_whole(path) as unfinished:
            unfinished.write_bytes(_DIGEST(packed).digest() + packed)
        for other in path.parent.glob("*-*"):
            if time.time() - other.stat().st_mtime > _UNUSED_SECONDS:
                other.unlink(missing_ok=True)
