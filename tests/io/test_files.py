"""What is under its final name is whole; what cannot be read or written is an `InputError`."""

import os
import stat
from pathlib import Path

import pytest

from rodiu_jax.errors import InputError
from rodiu_jax.io.files import (
    make_folder,
    read_json,
    read_text,
    read_toml,
    remove_leftovers,
    toml_value,
    write_text,
    write_whole,
)


def test_writes_and_replaces(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "one")
    write_text(path, "zwei ü")
    assert read_text(path) == "zwei ü"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.npz"
    path.write_text("old")

    def fail_half_way():
        with write_whole(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        fail_half_way()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.npz"]


def test_temporary_keeps_the_suffix_and_the_final_file_the_usual_mode(tmp_path):
    before = os.umask(0o027)
    try:
        with write_whole(tmp_path / "a.npz") as temporary:
            assert temporary.suffix == ".npz"
            assert temporary.parent == tmp_path
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.npz").stat().st_mode) == 0o640


@pytest.mark.parametrize("name", ["", "no/such/folder/a.txt"])
def test_places_that_cannot_be_written(tmp_path, name):
    with pytest.raises(InputError, match=r"expected .*folder") as caught:
        write_text(tmp_path / name, "x")
    assert str(tmp_path) in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_folder_without_permission(tmp_path, monkeypatch):
    def refuse(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.mkstemp", refuse)
    with pytest.raises(InputError, match=r"can be written \(Permission denied\)"):
        write_text(tmp_path / "a.txt", "x")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", r"line 1 column 2: expected JSON"),
        (b"", r"line 1 column 1: expected JSON"),
        (b"[1, NaN]", r"got 'NaN', expected finite"),
        (b"[-Infinity]", r"got '-Infinity', expected finite"),
        (b"[1e999]", r"got '1e999', expected finite"),
        (b"[" * 100_000, r"nested less deeply"),
        (b"\xff\xfe\x00", r"expected UTF-8"),
    ],
)
def test_bad_json(tmp_path, content, message):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_json(path)
    assert str(path) in str(caught.value)


def test_good_json(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"a": [1, 2.5, null, "x"]}')
    assert read_json(path) == {"a": [1, 2.5, None, "x"]}


def test_toml(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text("a = [1, 2]\n[b]\nc = 'd'\n")
    assert read_toml(path) == {"a": [1, 2], "b": {"c": "d"}}
    path.write_text("a = \n")
    with pytest.raises(InputError, match=r"expected TOML \(.*line 1"):
        read_toml(path)


@pytest.mark.parametrize("read", [read_text, read_json, read_toml])
def test_missing_file_and_folder(tmp_path, read):
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(InputError, match="a readable file"):
            read(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes of POSIX")
def test_pipes_and_devices_are_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/null")):
        before = path.stat().st_ino
        with pytest.raises(InputError, match="expected a regular file"):
            write_text(path, "text")
        assert path.stat().st_ino == before
    assert os.listdir(tmp_path) == ["pipe"]


def test_links_are_followed(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "link.txt").symlink_to("far/real.txt")
    for text in ("new", "again"):
        write_text(tmp_path / "link.txt", text)
        assert (tmp_path / "link.txt").is_symlink()
        assert (tmp_path / "far" / "real.txt").read_text() == text
    assert os.listdir(tmp_path / "far") == ["real.txt"]


def test_toml_with_an_endless_integer(tmp_path):
    (tmp_path / "a.toml").write_text("n = " + "9" * 5000)
    with pytest.raises(InputError, match=r"a.toml: expected TOML \(.*digits"):
        read_toml(tmp_path / "a.toml")


@pytest.mark.parametrize("value", ["", 'a"b\\c', "\x7f\x00\n\tü", 3, 1e-9, 1e300, ["\x7f", "b"], [0.5, 1.0]])
def test_toml_values_read_back(tmp_path, value):
    write_text(tmp_path / "a.toml", f"v = {toml_value(value)}\n")
    assert read_toml(tmp_path / "a.toml") == {"v": value}


def test_toml_of_half_a_surrogate_pair():
    assert toml_value("a\ud800") == '"a?"'


def test_only_what_was_being_written_is_a_leftover(tmp_path):
    with write_whole(tmp_path / "plans.json") as one, write_whole(tmp_path / "plans") as other:
        left = {one.name: "half", other.name: "half"}
        kept = {".plans.json": "", ".plans.json.old": "", ".plans.json.12345678.txt": "", "plans.csv": ""}
        killed = tmp_path / "killed"
        killed.mkdir()
        for name in left | kept:
            (killed / name).touch()
        remove_leftovers(killed, "rows*")
        assert {p.name for p in killed.iterdir()} == set(left | kept)
        remove_leftovers(killed)
        assert {p.name for p in killed.iterdir()} == set(kept)


@pytest.mark.parametrize("call", [lambda p: write_text(p, "x"), make_folder])
def test_names_that_are_not_utf8_are_refused(tmp_path, call):
    with pytest.raises(InputError, match=r"xdcff: expected a name in UTF-8"):
        call(tmp_path / "\udcff")
    assert os.listdir(tmp_path) == []
