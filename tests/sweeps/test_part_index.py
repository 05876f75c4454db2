"""The index of parts: what it holds is what a recount finds, and no row depends on it."""

from __future__ import annotations

import errno
import json
import os
import shutil
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rodiu_jax.errors import InputError
from rodiu_jax.sweeps import METHODS, read_rows, store
from rodiu_jax.sweeps.part_index import INDEX, PartIndex
from rodiu_jax.sweeps.store import Store
from tests.sweeps.small import GOOD, Stopping, damage, fake, indexed, parts, recount, run, spec, toy


class Killed(BaseException):
    """Ends a process where it stands: nothing of the program catches it."""


@pytest.fixture
def read(monkeypatch) -> list[str]:
    """The names of the parts whose pages are read, as they are."""
    names, real = [], store.read_parquet

    def reading(path, **options):
        names.append(Path(path).name)
        return real(path, **options)

    monkeypatch.setattr(store, "read_parquet", reading)
    return names


def test_the_index_of_a_new_sweep_is_a_recount(tmp_path, read):
    whole = run(tmp_path, chunk=4)
    assert len(parts(tmp_path)) == 5
    assert indexed(tmp_path) == recount(tmp_path)
    read.clear()
    Store(tmp_path, spec()).find_missing(pytest.fail)
    assert read == []
    pd.testing.assert_frame_equal(run(tmp_path, resume=True), whole)


def test_a_process_killed_between_a_part_and_its_line(tmp_path, monkeypatch, read):
    whole = run(tmp_path / "whole", chunk=4)
    real, left = PartIndex.add, [2]

    def add(self, file, checksum):
        if not left[0]:
            raise Killed
        left[0] -= 1
        real(self, file, checksum)

    monkeypatch.setattr(PartIndex, "add", add)
    with pytest.raises(Killed):
        run(tmp_path / "cut", chunk=4)
    monkeypatch.setattr(PartIndex, "add", real)
    assert len(parts(tmp_path / "cut")) == 3
    assert len(indexed(tmp_path / "cut")) == 2
    read.clear()
    assert Store(tmp_path / "cut", spec()).find_missing(pytest.fail) == [(12, 18)]
    assert read == ["part-000000000008-4.parquet"]
    assert indexed(tmp_path / "cut") == recount(tmp_path / "cut")
    pd.testing.assert_frame_equal(run(tmp_path / "cut", chunk=4, resume=True), whole)


@pytest.mark.parametrize(
    "content",
    [
        None,
        b"",
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b"null\n[]\n3\n{}\n",
        b'{"file": 3, "sha256": null, "form": []}\n',
        "cut",
        "others' sums",
        "no sums",
    ],
)
def test_an_index_that_is_missing_or_damaged_is_made_again(tmp_path, content, read):
    whole = run(tmp_path, chunk=4)
    right, text = recount(tmp_path), (tmp_path / INDEX).read_bytes()
    if content is None:  # a folder of an older version
        (tmp_path / INDEX).unlink()
    elif isinstance(content, bytes):
        (tmp_path / INDEX).write_bytes(content)
    elif content == "cut":  # the process ended inside a line
        (tmp_path / INDEX).write_bytes(text[:-30])
    else:
        for name in right:
            other = "0" * 64 if content == "others' sums" else ""
            text = text.replace(right[name].encode(), other.encode())
        (tmp_path / INDEX).write_bytes(text)
    read.clear()
    assert Store(tmp_path, spec()).find_missing(pytest.fail) == []
    assert read == (parts(tmp_path)[-1:] if content == "cut" else parts(tmp_path))
    assert indexed(tmp_path) == right
    pd.testing.assert_frame_equal(run(tmp_path, resume=True), whole)


@pytest.mark.parametrize("how", ["truncated", "empty", "flipped", "other rows", "overlap"])
def test_no_part_is_trusted_for_its_size_and_time(tmp_path, how, capsys):
    """The file looks as it did in every way but its bytes; where the size allows it."""
    whole = run(tmp_path, chunk=4)
    victim = tmp_path / "scenarios" / "part-000000000008-4.parquet"
    before = victim.stat()
    damage(victim, how)
    for path in (tmp_path / "scenarios").iterdir():
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    pd.testing.assert_frame_equal(run(tmp_path, chunk=4, resume=True), whole)
    assert "done again" in capsys.readouterr().err
    assert indexed(tmp_path) == recount(tmp_path)


def test_parts_of_another_sweep_are_not_taken_with_their_index(tmp_path, capsys):
    """A folder put together by hand: these parts have other columns, and their own index says that they are whole."""
    other = spec(factors=[GOOD, {"field": "gpu_memory", "scale": [1.0, 2.0]}], samples=9)
    whole = run(tmp_path / "other", other, chunk=6)
    run(tmp_path / "mine", chunk=6)
    shutil.rmtree(tmp_path / "other" / "scenarios")
    shutil.copytree(tmp_path / "mine" / "scenarios", tmp_path / "other" / "scenarios")
    shutil.copy(tmp_path / "mine" / INDEX, tmp_path / "other")
    pd.testing.assert_frame_equal(run(tmp_path / "other", other, resume=True), whole)
    assert "not a part of this sweep" in capsys.readouterr().err.replace("\n", " ")


def test_an_index_that_cannot_be_written_is_named(tmp_path):
    run(tmp_path, chunk=4)
    (tmp_path / INDEX).unlink()
    (tmp_path / INDEX).mkdir()
    with pytest.raises(InputError, match=r"parts\.jsonl: expected the name of a file"):
        run(tmp_path, resume=True)
    assert len(read_rows(tmp_path)) == 18


def test_a_file_that_could_not_be_hashed_is_not_known(tmp_path, monkeypatch):
    """Nothing that cannot be hashed later is taken for it: the index holds no sum that stands for "unreadable"."""
    run(tmp_path, chunk=4)
    right = recount(tmp_path)
    victim = tmp_path / "scenarios" / "part-000000000008-4.parquet"
    (tmp_path / INDEX).unlink()
    real = store.compute_checksum
    with monkeypatch.context() as patch:
        patch.setattr(store, "compute_checksum", lambda path: None if path == victim else real(path))
        assert Store(tmp_path, spec()).find_missing(pytest.fail) == []
    del right[victim.relative_to(tmp_path).as_posix()]
    assert indexed(tmp_path) == right
    victim.unlink()
    victim.mkdir()
    with pytest.raises(InputError, match=r"part-000000000008-4\.parquet: expected a file, not a folder"):
        Store(tmp_path, spec()).find_missing(pytest.fail)


def test_an_index_that_turns_unwritable_during_a_run_lacks_lines_and_no_rows(tmp_path, monkeypatch):
    real = PartIndex.replace

    def replace(self, known):
        real(self, known)
        (tmp_path / INDEX).unlink()
        (tmp_path / INDEX).mkdir()

    monkeypatch.setattr(PartIndex, "replace", replace)
    whole = run(tmp_path, chunk=4)
    assert len(whole) == 18
    monkeypatch.setattr(PartIndex, "replace", real)
    (tmp_path / INDEX).rmdir()
    pd.testing.assert_frame_equal(run(tmp_path, resume=True), whole)
    assert indexed(tmp_path) == recount(tmp_path)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told_by_the_index_too(tmp_path, monkeypatch, number):
    def full(*_, **__):
        raise OSError(number, "full")

    index = PartIndex(tmp_path, "form")
    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(OSError, match="full"):
        index.add("scenarios/part-000000000000-4.parquet", "0" * 64)


@pytest.mark.parametrize(
    "seed", [*range(3), *(pytest.param(n, marks=pytest.mark.slow) for n in range(3, 12))]
)
def test_whatever_happened_resuming_gives_the_same_rows_and_the_index_a_recount(tmp_path, monkeypatch, seed):
    """Six misfortunes in random order, each followed by a run that may be interrupted itself."""
    draw = np.random.default_rng(seed)
    whole = run(tmp_path / "whole")
    out = tmp_path / "out"
    run(out, chunk=int(draw.integers(1, 7)))
    for _ in range(6):
        held = parts(out)
        victim = out / "scenarios" / held[int(draw.integers(len(held)))] if held else out / "spec.toml"
        what = draw.choice(["delete", "damage", "replace", "no index", "half an index", "wrong index"])
        if what == "delete" and held:
            victim.unlink()
        elif what == "damage" and held:
            damage(victim, str(draw.choice(["truncated", "empty", "flipped"])))
        elif what == "replace" and held:
            shutil.copy(out / "scenarios" / held[0], victim.with_name("other"))
            victim.with_name("other").rename(victim)
        elif what == "no index":
            (out / INDEX).unlink()
        elif what == "half an index":
            text = (out / INDEX).read_bytes()
            (out / INDEX).write_bytes(text[: int(draw.integers(len(text) + 1))])
        elif what == "wrong index":
            lines = (out / INDEX).read_text().splitlines()
            names = draw.permutation([json.loads(line)["file"] for line in lines]).tolist()
            mixed = [
                json.dumps(json.loads(line) | {"file": name}) for line, name in zip(lines, names, strict=True)
            ]
            (out / INDEX).write_text("".join(f"{line}\n" for line in mixed))
        stop = Stopping(int(draw.integers(0, 24)), Killed())
        monkeypatch.setitem(METHODS, "fake", toy(stop))
        with suppress(Killed):
            run(out, chunk=int(draw.integers(1, 7)), resume=True)
        kept = read_rows(out)
        same = whole.set_index(["sample", "point"]).loc[list(zip(kept["sample"], kept["point"], strict=True))]
        pd.testing.assert_frame_equal(kept, same.reset_index(), check_dtype=False)
        assert indexed(out) == recount(out)
    monkeypatch.setitem(METHODS, "fake", toy(fake))
    pd.testing.assert_frame_equal(run(out, resume=True), whole)
    assert indexed(out) == recount(out)
