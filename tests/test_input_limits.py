"""What is read has limits: bombs, endless files and devices are refused by size, hostile content in one line."""

import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rodiu_jax.analysis.observations import read_frame, read_table
from rodiu_jax.catalog import load_catalog
from rodiu_jax.catalog.calibration import calibrate
from rodiu_jax.certificates import verify_rows
from rodiu_jax.errors import InputError
from rodiu_jax.io import files, parquet
from rodiu_jax.io.files import read_bytes, read_json, read_text, read_toml, size_text
from rodiu_jax.model.check import check_scores
from rodiu_jax.model.npz import load_instances
from rodiu_jax.sweeps.manifest import read_manifest
from tests.oracles.instances import random_instances


def _sparse(path: Path, size: int) -> Path:
    """A file of so many zero bytes that takes no room on the disk."""
    with path.open("wb") as stream:
        stream.truncate(size)
    return path


def _refused(path: Path, call, *words: str) -> None:
    with pytest.raises(InputError) as caught:
        call(path)
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    for word in (str(path), *words):
        assert word in text


@pytest.mark.parametrize(
    ("name", "call", "most"),
    [
        ("a.toml", read_toml, "64 MiB"),
        ("a.toml", load_catalog, "64 MiB"),
        ("a.json", read_json, "1 GiB"),
        ("a.csv", read_text, "1 GiB"),
        ("a.csv", lambda p: calibrate(p, query="Code_Gen"), "4 GiB"),
        ("a.csv", read_table, "4 GiB"),
    ],
)
def test_ten_gigabytes_are_refused_without_reading(tmp_path: Path, name: str, call, most: str):
    _refused(_sparse(tmp_path / name, 10**10), call, f"at most {most}")


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null"])
@pytest.mark.parametrize("read", [read_bytes, load_instances, read_frame])
def test_devices_are_not_read(device: str, read):
    with pytest.raises(InputError, match="not a device"):
        read(device)


def test_a_pipe_is_read_no_further_than_the_limit():
    reading, writing = os.pipe()
    os.write(writing, b"x" * 5000)
    with pytest.raises(InputError, match="at most 4 KiB"):
        read_bytes(f"/dev/fd/{reading}", most=4096)
    os.close(reading)
    os.close(writing)


def test_a_pipe_is_read():
    reading, writing = os.pipe()
    os.write(writing, b"[1]")
    os.close(writing)
    assert read_json(f"/dev/fd/{reading}") == [1]
    os.close(reading)


@pytest.mark.parametrize("size", [1, 1023, 1024, 2**26, 10**10])
def test_sizes_in_words(size: int):
    number, unit = size_text(size).split()
    assert float(number) * 1024 ** ("B", "KiB", "MiB", "GiB").index(unit) == pytest.approx(size, rel=1e-3)


def test_one_endless_line_is_a_clear_error(tmp_path: Path):
    path = tmp_path / "a.csv"
    path.write_text("x" * 3_000_000)
    _refused(path, lambda p: calibrate(p, query="Code_Gen"), "TIMESTAMP")


# ---- archives of instances ----


def _archive(path: Path, **members: bytes) -> Path:
    """A valid archive with some members replaced or added."""
    random_instances(0, (2, 2, 2, 2)).save(path)
    with zipfile.ZipFile(path) as old:
        held = {n: old.read(n) for n in old.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name, content in (held | {f"{n}.npy": c for n, c in members.items()}).items():
            new.writestr(name, content)
    return path


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    bomb = io.BytesIO()
    np.save(bomb, np.zeros((4_000_000, 2)))
    path = _archive(tmp_path / "a.npz", arrival_rate=bomb.getvalue())
    assert path.stat().st_size < 500_000
    monkeypatch.setattr("rodiu_jax.model.npz.MOST_BYTES", 2**20)
    monkeypatch.setattr("rodiu_jax.model.npz._MOST_TIMES", 10)
    monkeypatch.setattr("numpy.lib.format.read_array", lambda *_, **__: pytest.fail("unpacked"))
    _refused(path, load_instances, "unpacks to at most")


def test_an_array_that_only_says_it_is_large_is_refused(tmp_path: Path):
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "<f8", "fortran_order": False, "shape": (10**11, 2)})
    _refused(_archive(tmp_path / "a.npz", budget=head.getvalue()), load_instances, "whole .npz file")


@pytest.mark.parametrize("content", [b"", b"[1, 2]", b"\x93NUMPY"])
def test_a_member_that_is_no_array_is_refused(tmp_path: Path, content: bytes):
    _refused(_archive(tmp_path / "a.npz", query_names=content), load_instances, "whole .npz file")


def test_nothing_may_stand_after_an_array(tmp_path: Path):
    content = io.BytesIO()
    np.save(content, np.array(1.0))
    path = _archive(tmp_path / "a.npz", budget=content.getvalue() + b"x")
    _refused(path, load_instances, "budget", "nothing after it")


def test_unknown_members_are_refused_by_name(tmp_path: Path):
    path = _archive(tmp_path / "a.npz", budgets=b"never read")
    _refused(path, load_instances, "budgets", "did you mean budget?")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_doubled_member_is_refused(tmp_path: Path):
    path = _archive(tmp_path / "a.npz")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("budget.npy", archive.read("budget.npy"))
    _refused(path, load_instances, "budget", "once")


def test_pickles_are_never_opened(tmp_path: Path):
    class Trap:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "opened"),))

    content = io.BytesIO()
    np.save(content, np.array([Trap()], object), allow_pickle=True)
    path = _archive(tmp_path / "a.npz", gpu_names=content.getvalue())
    _refused(path, load_instances, "without pickled objects")
    assert not (tmp_path / "opened").exists()


# ---- tables ----


def test_a_table_that_unpacks_to_far_more_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"a": pa.array(np.zeros(3_000_000))}), path)
    assert path.stat().st_size < 20_000
    assert len(read_frame(path)) == 3_000_000
    for most in (2**20, 2**22):  # by the number of its values, and by what they unpack to
        monkeypatch.setattr(parquet, "MOST_BYTES", most)
        _refused(path, read_frame, "unpacks to at most")


def test_long_texts_said_once_are_counted_as_often_as_they_stand(tmp_path: Path, monkeypatch):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"a": pa.array(["x" * 10_000]).take(pa.array(np.zeros(20_000, int)))}), path)
    assert path.stat().st_size < 50_000
    monkeypatch.setattr(parquet, "MOST_BYTES", 2**24)
    _refused(path, read_frame, "unpacks to at most")


def test_a_doubled_column_is_refused(tmp_path: Path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"]), path)
    _refused(path, read_frame, "a: expected each column once")


def test_claims_that_are_texts_are_not_numbers():
    batch = random_instances(0, (1, 1, 1, 1))
    table = pd.DataFrame({"instance": ["0"], "lower_bound": [1.0], "upper_bound": [2.0]})
    with pytest.raises(InputError, match=r"t\.parquet: instance: .*a column of numbers"):
        verify_rows(table, {}, batch, source="t.parquet")
    with pytest.raises(InputError, match=r"t\.parquet: gap: .*a column of numbers"):
        verify_rows(table.assign(instance=0, gap="0"), {}, batch, source="t.parquet")
    with pytest.raises(InputError, match=r"t\.parquet: plan: expected this column"):
        check_scores(table, [], batch, source="t.parquet")


# ---- texts ----


@pytest.mark.parametrize("call", [read_json, read_toml])
def test_deep_nesting_is_a_clear_error(tmp_path: Path, call):
    path = tmp_path / "a"
    path.write_text(("" if call is read_json else "a = ") + "[" * 50_000)
    _refused(path, call, "nested less deeply")


@pytest.mark.parametrize(
    "text",
    ["[]", '{"runs": 1}', '{"runs": [1]}', '{"runs": [{"versions": 1}]}', '{"runs": [{"devices": 1}]}'],
)
def test_a_manifest_of_another_form_is_refused(tmp_path: Path, text: str):
    (tmp_path / "manifest.json").write_text(text)
    _refused(tmp_path / "manifest.json", lambda p: read_manifest(p.parent), "expected")


def test_the_limit_of_a_text_is_what_is_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "a.toml"
    path.write_text("a = 1")
    monkeypatch.setattr(files, "_MOST_TOML", 5)
    assert read_toml(path) == {"a": 1}
    monkeypatch.setattr(files, "_MOST_TOML", 4)
    _refused(path, read_toml, "at most 4 B")


def test_texts_that_are_not_utf8_are_refused(tmp_path: Path):
    path = tmp_path / "a.parquet"
    pq.write_table(
        pa.table({"a": ["optimal"]}), path, use_dictionary=False, compression="none", write_statistics=False
    )
    content = path.read_bytes()
    assert content.count(b"optimal") == 1
    path.write_bytes(content.replace(b"optimal", b"\xfeptimal"))
    _refused(path, read_frame, "readable table")


DAMAGED = """
import sys
from pathlib import Path
import numpy as np
from rodiu_jax.errors import InputError
from rodiu_jax.io.parquet import read_parquet

path, copy = map(Path, sys.argv[1:])
content, rng = path.read_bytes(), np.random.default_rng(1)
footer = int.from_bytes(content[-8:-4], "little") + 8
refused = 0
for at in range(len(content) - footer, len(content)):
    for value in rng.choice(256, 3, replace=False):
        damaged = bytearray(content)
        damaged[at] = value
        copy.write_bytes(damaged)
        try:
            read_parquet(copy)
        except InputError:
            refused += 1
print(refused, footer)
"""


def test_no_damaged_byte_of_a_footer_ends_the_process(tmp_path: Path):
    """In another process: what must not happen is that Parquet's own code ends it."""
    path = tmp_path / "whole.parquet"
    rows = {"text": ["a", "bc", "d\u00e9"], "x": [1.0, 2.0, None], "n": [1, 2, 3]}
    pq.write_table(pa.table(rows), path, write_page_checksum=True)
    command = [sys.executable, "-c", DAMAGED, str(path), str(tmp_path / "copy.parquet")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1], timeout=120)
    assert done.returncode == 0, done.stderr
    refused, footer = map(int, done.stdout.split())
    assert refused > footer
