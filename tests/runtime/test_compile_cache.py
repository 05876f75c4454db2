"""Compiled programs kept between runs of the command: used, replaced when damaged, and never in the way."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rodiu_jax.runtime.compile_cache import programs_folder

ROOT = Path(__file__).parents[2]
linux = pytest.mark.skipif(
    sys.platform != "linux", reason="the cache folder of other systems does not follow XDG_CACHE_HOME"
)


def draw(folder: Path, cache: Path, *options: str, **settings: str) -> bytes:
    """One run of `rodiu sample`, which compiles one program; what it wrote."""
    away = ("JAX_ENABLE_COMPILATION_CACHE", "JAX_COMPILATION_CACHE_DIR", "XDG_CACHE_HOME")
    told = {n: v for n, v in os.environ.items() if n not in away}
    told |= {"XDG_CACHE_HOME": str(cache), "HOME": str(cache), "PYTHONPATH": str(ROOT)} | settings
    call = "from rodiu_jax.cli import main; main()"
    out = folder / "drawn.npz"
    done = subprocess.run(
        [sys.executable, "-c", call, *options, "sample", "--n", "2", "-o", str(out)],
        env=told,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return out.read_bytes()


def entries(cache: Path) -> dict[str, tuple[int, bytes]]:
    """The programs kept: a number that changes when a file is written anew, and what they are."""
    return {
        p.name: (p.stat().st_ino, p.read_bytes())
        for name in ("*._draw-*", "jit_*")
        for p in cache.rglob(name)
    }


@linux
def test_programs_are_kept_used_and_replaced_when_damaged(tmp_path):
    cache = tmp_path / "cache"
    without = draw(tmp_path, cache, "--no-cache")
    assert not cache.exists()
    assert draw(tmp_path, cache) == without
    kept = entries(cache)
    assert len(kept) == 1
    assert draw(tmp_path, cache) == without
    assert entries(cache) == kept  # neither written again nor others
    for path in cache.rglob("*._draw-*"):
        path.write_bytes(path.read_bytes()[:100])
    assert draw(tmp_path, cache) == without
    again = entries(cache)
    assert again.keys() == kept.keys()
    assert all(len(program) > 100 for _, program in again.values())


@pytest.mark.slow
def test_a_cache_that_cannot_be_is_done_without(tmp_path):
    place = tmp_path / "file"
    place.write_text("in the way")
    draw(tmp_path, place)
    assert place.read_text() == "in the way"


@pytest.mark.slow
def test_jax_own_settings_are_obeyed(tmp_path):
    own = tmp_path / "own"
    draw(tmp_path, tmp_path / "cache", JAX_COMPILATION_CACHE_DIR=str(own),
         JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0")  # fmt: skip
    assert entries(own)
    draw(tmp_path, tmp_path / "cache", JAX_ENABLE_COMPILATION_CACHE="false")
    assert not (tmp_path / "cache").exists()


@linux
def test_the_folder_is_one_of_the_user_and_of_the_processor(tmp_path, monkeypatch):
    """Where earlier versions kept them too: what they compiled is still used."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = programs_folder()
    assert folder.parent == tmp_path / "rodiu"
    assert re.fullmatch("programs-[0-9a-f]{12}", folder.name)
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert programs_folder() == tmp_path / ".cache" / "rodiu" / folder.name
    monkeypatch.setattr("platform.machine", lambda: "another")
    assert programs_folder().name != folder.name
