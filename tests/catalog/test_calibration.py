"""Calibration against numbers worked out anew with the standard library; traces that are wrong."""

import bisect
import csv
import itertools
import math
import re
import tomllib
from datetime import datetime, timedelta
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rodiu_jax.catalog import load_catalog
from rodiu_jax.catalog.calibration import calibrate
from rodiu_jax.catalog.readers.imported import Imported, Value, choice
from rodiu_jax.catalog.sampling import sample
from rodiu_jax.errors import InputError

TRACE = Path(__file__).parents[1] / "data" / "azure_code_excerpt.csv"
HEADING = "TIMESTAMP,ContextTokens,GeneratedTokens"


def rows():
    """(seconds since the first request, input, output) of the excerpt."""
    with TRACE.open(newline="") as stream:
        table = list(csv.DictReader(stream))
    times = [datetime.fromisoformat(r["TIMESTAMP"][:26]) for r in table]
    return [
        ((t - times[0]) / timedelta(microseconds=1) / 1e6, int(r["ContextTokens"]), int(r["GeneratedTokens"]))
        for t, r in zip(times, table, strict=True)
    ]


def values(calibration):
    return {m.quantity: m.values for m in calibration.values}


def write(tmp_path, *lines, end="\n"):
    path = tmp_path / "trace.csv"
    path.write_bytes((end.join(lines) + end).encode())
    return path


def few(tmp_path):
    """Five requests over 36 minutes."""
    times = ("18:00:00", "18:06:00", "18:11:59.5", "18:12:00", "18:36:00")
    return write(tmp_path, HEADING, *(f"2023-11-16 {t},{10 * n},{n}" for n, t in enumerate(times, 1)))


@pytest.mark.parametrize(("window", "count"), [(0.1, 9), (0.25, 3), (0.9, 1)])
def test_rates_are_the_requests_of_each_whole_window(window, count):
    seconds = [t for t, _, _ in rows()]
    ends = [bisect.bisect_left(seconds, w * window * 3600) for w in range(count + 1)]
    assert seconds[-1] < (count + 1) * window * 3600
    expected = [(b - a) / window for a, b in itertools.pairwise(ends)]
    found = values(calibrate(TRACE, query="Code_Gen", window=window))["arrival_rate"]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_windows_on_a_trace_worked_by_hand(tmp_path):
    # Windows of 12 minutes: requests 1, 2, 3, then 4 (on the edge), then none; 5 is where the third ends.
    calibration = calibrate(few(tmp_path), query="Code_Gen", window=0.2)
    assert values(calibration)["arrival_rate"] == pytest.approx([15, 5, 0])
    assert "1 requests after the last window" in calibration.values[0].note
    means = values(calibrate(few(tmp_path), query="Code_Gen", window=0.2, tokens="mean"))
    assert means["input_tokens"] == pytest.approx([20, 40])  # the empty window has no mean
    assert means["output_tokens"] == pytest.approx([2, 4])
    first = values(calibrate(few(tmp_path), query="Code_Gen", window=0.2, windows=1, tokens="mean"))
    assert first == {"arrival_rate": (15,), "input_tokens": (20,), "output_tokens": (2,)}


@pytest.mark.parametrize(("column", "quantity"), [(1, "input_tokens"), (2, "output_tokens")])
def test_request_tokens_are_quantiles_of_the_data(column, quantity):
    data = sorted(r[column] for r in rows())
    # The smallest value with at least a share p of the data at or below it, p = (q + 1/2) / 101, exactly.
    ranks = [math.ceil(Fraction(2 * q + 1, 202) * len(data)) for q in range(101)]
    found = values(calibrate(TRACE, query="Code_Gen"))[quantity]
    assert found == tuple(data[r - 1] for r in ranks)


@pytest.mark.parametrize(("column", "quantity"), [(1, "input_tokens"), (2, "output_tokens")])
def test_mean_tokens_are_means_of_windows(column, quantity):
    expected = []
    for w in range(9):
        inside = [r[column] for r in rows() if w * 360 <= r[0] < (w + 1) * 360]
        expected.append(sum(inside) / len(inside))
    found = values(calibrate(TRACE, query="Code_Gen", tokens="mean"))[quantity]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("base", ["seed", "corrected"])
def test_scenarios_of_a_calibrated_catalogue_are_the_data_and_otherwise_the_base(tmp_path, base):
    calibrate(TRACE, query="Code_Gen", base=base).save(tmp_path / "own.toml")
    drawn = sample(tmp_path / "own.toml", n=400, seed=3)
    plain = sample(base, n=400, seed=3)
    at = drawn.query_names.index("Code_Gen")
    others = [i for i in range(len(drawn.query_names)) if i != at]
    seen = {"input_tokens": {r[1] for r in rows()}, "output_tokens": {r[2] for r in rows()}}
    for name in ("input_tokens", "output_tokens"):
        field = getattr(drawn.fields, name)
        assert set(field[:, at]) <= seen[name]
        assert len(set(field[:, at])) > 20
        assert (field[:, others] == getattr(plain.fields, name)[others]).all()
    rates = drawn.fields.arrival_rate
    assert set(rates[:, at]) == set(values(calibrate(TRACE, query="Code_Gen"))["arrival_rate"])
    assert (rates[:, others] == plain.fields.arrival_rate[:, others]).all()
    for name in set(drawn.fields._fields) - {"input_tokens", "output_tokens", "arrival_rate"}:
        np.testing.assert_array_equal(getattr(drawn.fields, name), getattr(plain.fields, name))


def test_every_number_says_where_it_came_from(tmp_path):
    calibrate(TRACE, query="Code_Gen").save(tmp_path / "own.toml")
    catalog = load_catalog(tmp_path / "own.toml")
    for quantity, said in (
        ("arrival_rate", "9 windows of 0.1 h"),
        ("input_tokens", "ContextTokens"),
        ("output_tokens", "GeneratedTokens"),
    ):
        entry = catalog.entry(quantity, ("Code_Gen",))
        origin = "azure_code_excerpt.csv (SHA-256 "
        assert entry.source.startswith(origin)
        assert "201 requests from 2023-11-16 18:17:03 to 2023-11-16 19:14:16 UTC" in entry.source
        assert said in entry.source
        assert entry.note.startswith("mean ")
        assert str(TRACE.parent) not in (tmp_path / "own.toml").read_text()
    data = [r[1] for r in rows()]
    note = catalog.entry("input_tokens", ("Code_Gen",)).note
    assert f"over all requests mean {sum(data) / len(data):,.0f}, {min(data)} to {max(data):,} tokens" in note


def test_summary_is_a_paragraph_with_both_sides():
    summary = calibrate(TRACE, query="Code_Gen", base="corrected").summary
    assert "\n" not in summary
    assert "201 requests" in summary
    assert "(corrected: uniform 60 to 100)" in summary


def test_layout_of_the_file_does_not_matter(tmp_path):
    """Row order, time zones, line ends, a byte order mark, blank lines, more columns: the same numbers."""
    lines = TRACE.read_text().splitlines()
    plain = values(calibrate(TRACE, query="Code_Gen"))
    # 18:17 UTC is 20:17 in a zone two hours ahead; every other line is left in UTC.
    zoned = list(lines)
    for n in range(1, len(lines), 2):
        hour = int(lines[n][11:13]) + 2
        zoned[n] = f"{lines[n][:11]}{hour}{lines[n][13:].replace(',', '+02:00,', 1)}"
    more = ["id," + lines[0]] + [f"{n},{line}" for n, line in enumerate(lines[1:])]
    variants = {
        "reversed": [lines[0], *reversed(lines[1:])],
        "zoned": zoned,
        "crlf": lines,
        "bom": ["\ufeff" + lines[0], *lines[1:]],
        "blank": [lines[0], "", *lines[1:90], "", *lines[90:], ""],
        "spaced heading": [lines[0].replace(",", " , "), *lines[1:]],
        "more": more,
    }
    for name, content in variants.items():
        trace = write(tmp_path, *content, end="\r\n" if name == "crlf" else "\n")
        found = calibrate(trace, query="Code_Gen")
        assert values(found) == plain, name
        assert "201 requests from 2023-11-16 18:17:03 to 2023-11-16 19:14:16 UTC" in found.summary, name


GOOD = ["2023-11-16 18:00:00,10,1", "2023-11-16 18:30:00,20,2", "2023-11-16 19:00:00,30,3"]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], "it is empty"),
        ([HEADING], "at least one request"),
        (["TIMESTAMP,ContextTokens", "2023-11-16 18:00:00,10"], "GeneratedTokens"),
        (["TIMESTAMP,ContextTokens,GeneratedTokens,ContextTokens", "2023-11-16,1,1,1"], "ContextTokens"),
        ([HEADING, GOOD[0], "yesterday,20,2", GOOD[2]], r"line 3: TIMESTAMP: got 'yesterday'"),
        ([HEADING, GOOD[0], "", "2023-13-01,20,2"], r"line 4: TIMESTAMP: got '2023-13-01'"),
        ([HEADING, *GOOD, ",5,5"], r"line 5: TIMESTAMP: got ''"),
        ([HEADING, GOOD[0], "2023-11-16 18:30:00,-20,2"], r"line 3: ContextTokens: got '-20'"),
        ([HEADING, GOOD[0], "2023-11-16 18:30:00,20,2.5"], r"line 3: GeneratedTokens: got '2.5'"),
        ([HEADING, GOOD[0], "2023-11-16 18:30:00,20,nan"], r"line 3: GeneratedTokens: got 'nan'"),
        ([HEADING, GOOD[0], "2023-11-16 18:30:00,20,inf"], r"line 3: GeneratedTokens: got 'inf'"),
        ([HEADING, GOOD[0], "2023-11-16 18:30:00,many,2"], r"line 3: ContextTokens: got 'many'"),
        ([HEADING, GOOD[0], "2023-11-16 18:30:00,20"], r"line 3: GeneratedTokens: got ''"),
        ([HEADING, GOOD[0], GOOD[1] + ",7"], "as many values per line as columns"),
        ([HEADING, GOOD[0] + ",7", GOOD[1] + ",7"], "as many values per line as columns"),
        ([HEADING, GOOD[0], GOOD[0]], "requests at more than one time"),
        ([HEADING, GOOD[0]], "requests at more than one time"),
        ([HEADING, GOOD[0], "2023-11-16 18:05:00,20,2"], "window: got 0.1, expected at most the 0.083"),
    ],
)
def test_a_trace_that_is_wrong(tmp_path, lines, said):
    path = tmp_path / "trace.csv"
    path.write_text("".join(f"{line}\n" for line in lines))
    with pytest.raises(InputError, match=said) as caught:
        calibrate(path, query="Code_Gen")
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"\xff\xfe\x00binary", b"TIMESTAMP,ContextTokens,GeneratedTokens\n\xff,1,1\n"]
)
def test_a_trace_that_is_not_text(tmp_path, content):
    path = tmp_path / "trace.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match="UTF-8 text"):
        calibrate(path, query="Code_Gen")


def test_a_trace_that_is_missing(tmp_path):
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(InputError, match="a readable file"):
            calibrate(path, query="Code_Gen")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"query": "Code"}, "query: got 'Code', expected a query type of seed: Summarization, Code_Gen"),
        ({"window": 0.0}, "window: got 0.0, expected hours > 0"),
        ({"window": -1.0}, "window: got -1.0"),
        ({"window": math.nan}, "window: got nan"),
        ({"window": math.inf}, "window: got inf"),
        ({"window": 1.0}, r"window: got 1.0, expected at most the 0.953\d* hours"),
        ({"windows": 0}, "windows: got 0, expected a whole number from 1 to 9"),
        ({"windows": 10}, "windows: got 10"),
        ({"tokens": "median"}, "tokens: got 'median', expected request or mean"),
        ({"base": "sead"}, "seed"),
    ],
)
def test_arguments_that_are_wrong(arguments, said):
    with pytest.raises(InputError, match=said):
        calibrate(TRACE, **({"query": "Code_Gen"} | arguments))


def test_a_base_that_derives_the_rate_cannot_be_calibrated(tmp_path):
    base = tmp_path / "base.toml"
    base.write_text(
        '[catalog]\nname = "b"\nextends = "seed"\n[quantity.arrival_rate]\nmultiply = ["delay_threshold"]\n'
    )
    with pytest.raises(InputError, match=r"quantity\.arrival_rate: expected values per query type"):
        calibrate(TRACE, query="Code_Gen", base=base)


def test_a_base_in_another_folder_is_found_again(tmp_path, monkeypatch):
    for name in ("bases", "out"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    base = Path("bases/mine.toml")
    base.write_text('[catalog]\nname = "mine"\nextends = "corrected"\n[quantity.budget]\neach = 777\n')
    calibrate(TRACE, query="Code_Gen", base=base).save("out/own.toml")
    assert tomllib.loads(Path("out/own.toml").read_text())["catalog"]["extends"] == "../bases/mine.toml"
    monkeypatch.chdir(tmp_path / "out")  # the reference is relative to the file, not to where one stands
    catalog = load_catalog("own.toml")
    assert catalog.layers[:3] == ("seed", "corrected", "mine")
    assert catalog.entry("budget", ()).distribution.numbers == (777,)


def test_calibrations_stack(tmp_path):
    calibrate(TRACE, query="Code_Gen").save(tmp_path / "one.toml")
    calibrate(TRACE, query="Translation", base=tmp_path / "one.toml").save(tmp_path / "two.toml")
    calibrate(TRACE, query="Code_Gen", base=tmp_path / "two.toml", windows=2).save(tmp_path / "three.toml")
    catalog = load_catalog(tmp_path / "three.toml")
    assert len(set(catalog.layers)) == 4
    rates = {q: catalog.entry("arrival_rate", (q,)).distribution.numbers for q in ("Code_Gen", "Translation")}
    assert len(rates["Translation"]) == 9
    assert rates["Code_Gen"] == rates["Translation"][:2]


def test_a_base_may_not_overwrite_itself(tmp_path):
    path = tmp_path / "one.toml"
    calibrate(TRACE, query="Code_Gen").save(path)
    before = path.read_text()
    with pytest.raises(InputError, match="another file than the catalogue that is extended"):
        calibrate(TRACE, query="Translation", base=path).save(path)
    assert path.read_text() == before


def test_nothing_is_left_when_it_cannot_be_written(tmp_path):
    with pytest.raises(InputError):
        calibrate(TRACE, query="Code_Gen").save(tmp_path / "none" / "own.toml")
    assert list(tmp_path.iterdir()) == []


def test_a_query_with_a_difficult_name(tmp_path):
    name = 'Code "Gen" \\ [é] = #'
    quoted = "'" + name + "'"
    seed = load_catalog("seed").path.read_text()
    seed = re.sub(r"(?m)^Code_Gen(?= =)|\"Code_Gen\"|(?<=\{ )Code_Gen(?= =)", lambda _: quoted, seed)
    (tmp_path / "base.toml").write_text(seed.replace('name = "seed"', 'name = "base"', 1))
    calibrate(TRACE, query=name, base=tmp_path / "base.toml").save(tmp_path / "own.toml")
    catalog = load_catalog(tmp_path / "own.toml")
    assert len(catalog.entry("arrival_rate", (name,)).distribution.numbers) == 9


@given(st.text(), st.text(), st.text(min_size=1))
def test_any_text_comes_back_from_the_toml(source, note, query):
    value = Value("arrival_rate", (query,), choice([1.5, 2.0]), source, note, "measured")
    text = Imported("trace", source, note, "seed", (value,), [], "").text()
    read = tomllib.loads(text)
    assert read["catalog"] == {"name": source, "description": note, "extends": "seed"}
    entry = read["quantity"]["arrival_rate"]["values"][query]
    said = {"source": source, "basis": "measured", "choice": [1.5, 2]}
    assert entry == (said | {"note": note} if note else said)


def test_bytes_that_toml_refuses_in_a_file_name_can_be_written():
    text = Imported("trace", "trace\udcff\x7f\x00.csv", "", "seed", (), [], "").text()
    assert tomllib.loads(text.encode("utf-8").decode())["catalog"]["name"] == "trace?\x7f\x00.csv"
