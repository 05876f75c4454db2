"""Executables kept whole: loaded without tracing, for the very call they were made for and no other."""

import hashlib
import itertools
import os
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rodiu_jax.runtime import compile_cache, kept_programs
from rodiu_jax.runtime.kept_programs import KeptProgram


class Pair(NamedTuple):
    left: Any
    right: Any = None


class Traced:
    """A function that counts how often it is traced."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self, pair: Pair, *, add: Any, how: Any = 1, names: Any = frozenset()) -> Pair:
        self.times += 1
        return Pair(pair.left * how + add, jnp.sum(pair.left) + len(names))


@pytest.fixture
def begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], tuple[Traced, KeptProgram]]:
    """Makes the program as another process would: nothing is in memory."""
    monkeypatch.setattr(compile_cache, "_whole", tmp_path / "whole")
    # A name of its own for each, so that the cache of JAX, which the tests use, knows none of them.
    name, number = f"program_{time.time_ns()}", itertools.count()

    def make() -> tuple[Traced, KeptProgram]:
        traced = Traced()

        def program(pair: Pair, *, add: Any, how: Any = 1, names: Any = frozenset()) -> Pair:
            return traced(pair, add=add, how=how, names=names)

        program.__qualname__ = name
        program.__name__ = f"{name}_{next(number)}"
        return traced, KeptProgram(program, ("how", "names"))

    return make


def call(program: KeptProgram, size: int = 3, **options: Any) -> Pair:
    return program(Pair(np.arange(size, dtype=np.float32)), add=np.float32(0.5), **options)


def assert_right(found: Pair, size: int = 3, how: int = 1, names: int = 0) -> None:
    values = np.arange(size, dtype=np.float32)
    assert np.array_equal(found.left, values * how + np.float32(0.5))
    assert float(found.right) == values.sum() + names


def test_the_next_process_loads_what_this_one_compiled(begin):
    first, program = begin()
    assert_right(call(program))
    assert_right(call(program))
    assert first.times == 1
    second, program = begin()
    found = call(program)
    assert_right(found)
    assert isinstance(found, Pair)
    assert second.times == 0


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"size": 4}, {"size": 4}),
        ({"how": 2}, {"how": 2}),
        ({"names": frozenset({"a", "b"})}, {"names": 2}),
    ],
)
def test_another_call_is_another_executable(begin, options: dict[str, Any], expected: dict[str, int]):
    call(begin()[1])
    traced, program = begin()
    assert_right(call(program, **options), **expected)
    assert_right(call(program))  # the first one's is still there
    assert traced.times == 1


def test_precision_sources_and_flags_make_others(begin, monkeypatch: pytest.MonkeyPatch):
    call(begin()[1])
    traced, program = begin()
    with jax.enable_x64(True):
        call(program)
    assert traced.times == 1
    for name, value in (("_made_from", lambda: "other sources"), ("usable_cores", lambda: 77)):
        kept_programs._made_from.cache_clear() if name == "usable_cores" else None
        with monkeypatch.context() as patch:
            patch.setattr(kept_programs, name, value)
            traced, program = begin()
            assert_right(call(program))
            assert traced.times == 1
        kept_programs._made_from.cache_clear()
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_use_thunk_runtime=true")
    traced, program = begin()
    call(program)
    assert traced.times == 1
    kept_programs._made_from.cache_clear()


def test_sets_are_written_alike_in_every_order():
    one, other = frozenset(["a", "bb", "ccc"]), frozenset(["ccc", "bb", "a"])
    write = kept_programs._write_constant
    assert write({"k": one, "a": (1, "x")}) == write({"a": (1, "x"), "k": other})
    assert write((1, 2)) != write((12,))
    assert write("1") != write(1)


def test_a_damaged_file_is_made_again(begin, tmp_path: Path):
    call(begin()[1])
    (path,) = (tmp_path / "whole").iterdir()
    whole = path.read_bytes()
    for damaged in (whole[:50], b"", whole[:-1] + bytes([whole[-1] ^ 1])):
        path.write_bytes(damaged)
        traced, program = begin()
        assert_right(call(program))
        assert traced.times == 1
        traced, program = begin()
        call(program)
        assert traced.times == 0


def test_nothing_is_kept_for_several_devices_or_where_nothing_shall_be(
    begin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as patch:
        patch.setattr(compile_cache, "_whole", None)
        assert_right(call(begin()[1]))
    monkeypatch.setattr(jax, "devices", lambda: [object(), object()])
    assert_right(call(begin()[1]))
    assert not (tmp_path / "whole").exists()


def test_a_folder_that_cannot_be_written_is_no_failure(begin, tmp_path: Path):
    (tmp_path / "whole").write_text("a file stands here")
    assert_right(call(begin()[1]))


def test_what_cannot_be_loaded_is_made_again(begin, tmp_path: Path):
    call(begin()[1])
    (path,) = (tmp_path / "whole").iterdir()
    packed = zlib.compress(b"another build's")
    path.write_bytes(hashlib.sha256(packed).digest() + packed)
    traced, program = begin()
    assert_right(call(program))
    assert traced.times == 1
    traced, program = begin()
    assert_right(call(program))
    assert traced.times == 0


def test_what_was_not_used_for_long_is_removed(begin, tmp_path: Path):
    old = tmp_path / "whole" / "other.program-0123"
    old.parent.mkdir()
    old.write_bytes(b"")
    os.utime(old, (0, 0))
    used = old.with_name("other.program-4567")
    used.write_bytes(b"")
    call(begin()[1])
    assert not old.exists()
    assert used.exists()
