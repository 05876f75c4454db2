"""Traces as they are, against numbers worked out by hand or with the standard library."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rodiu_jax.catalog import load_catalog
from rodiu_jax.catalog.readers import Imported, import_trace, trace, windows
from rodiu_jax.catalog.readers import requests as request_reader
from rodiu_jax.catalog.sampling import sample_quantities
from rodiu_jax.errors import InputError

DATA = Path(__file__).parents[1] / "data"
FIELD = DATA / "field"
AZURE = DATA / "azure_code_excerpt.csv"


def read(path: Path, **options: Any) -> Imported:
    return import_trace(path, **({"base": "corrected"} | options))


def write(folder: Path, *lines: str, name: str = "trace.csv") -> Path:
    path = folder / name
    path.write_text("\n".join(lines) + "\n")
    return path


def drawn(found: Imported, quantity: str, query: str) -> tuple[float, ...]:
    return next(v.values for v in found.values if (v.quantity, v.names) == (quantity, (query,)))


def test_the_seven_rows_of_burstgpt():
    # ChatGPT at 5, 45 and four times at 862,919 s; GPT-4 at 118 s. 862,914 s are 239.698... h: 2,396 windows of 0.1 h.
    found = read(FIELD / "trace-burstgpt.csv", query_column="Model")
    chat, gpt = found.record
    assert (chat["query"], chat["requests"], chat["failed"]) == ("ChatGPT", 6, 0)
    assert (gpt["query"], gpt["requests"], gpt["failed"]) == ("GPT-4", 1, 0)
    assert chat["hours"] == gpt["hours"] == 862_914 / 3600
    assert chat["arrival_rate_mean"] == pytest.approx(6 / (862_914 / 3600))
    assert chat["arrival_rate_peak"] == pytest.approx(40.0), "the burst of four in the last, broken window"
    assert chat["input_tokens_mean"] == pytest.approx((472 + 1087 + 266 + 166 + 758 + 482) / 6)
    assert chat["output_tokens_mean"] == pytest.approx((18 + 230 + 290 + 212 + 138 + 226) / 6)
    assert (gpt["input_tokens_mean"], gpt["output_tokens_mean"]) == (417, 276)
    assert (chat["windows"], chat["after_last_window"], gpt["after_last_window"]) == (2396, 4, 0)
    assert sum(drawn(found, "arrival_rate", "ChatGPT")) * 0.1 == pytest.approx(2)


def test_vidur_and_fleet_sim_against_the_standard_library():
    with (FIELD / "trace-vidur.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    hours = (float(rows[-1]["arrived_at"]) - float(rows[0]["arrived_at"])) / 3600
    (one,) = read(FIELD / "trace-vidur.csv", query="Code_Gen").record
    assert (one["requests"], one["windows"]) == (60, 1), "shorter than a window, so it is one"
    assert one["hours"] == pytest.approx(hours)
    assert one["arrival_rate_mean"] == pytest.approx(60 / hours)
    assert one["input_tokens_mean"] == pytest.approx(sum(int(r["num_prefill_tokens"]) for r in rows) / 60)
    lines = [json.loads(line) for line in (FIELD / "trace-fleet-sim.jsonl").read_text().splitlines()]
    found = read(FIELD / "trace-fleet-sim.jsonl", query_column="model")
    for record in found.record:
        mine = [line for line in lines if line["model"] == record["query"]]
        assert record["requests"] == len(mine)
        assert record["output_tokens_mean"] == pytest.approx(
            sum(m["generated_tokens"] for m in mine) / len(mine)
        )


def test_mooncake_counts_milliseconds_and_prefixes(tmp_path: Path):
    (one,) = read(FIELD / "trace-mooncake.jsonl", query="Code_Gen").record
    assert one["hours"] == pytest.approx((6390 - 0) / 3_600_000)
    assert one["shared_prefix_tokens"] == 0
    rows = [
        {"timestamp": 0, "input_length": 1200, "output_length": 5, "hash_ids": [1, 2, 3]},
        {
            "timestamp": 1000,
            "input_length": 1030,
            "output_length": 5,
            "hash_ids": [1, 2, 4],
        },  # 1,024 are shared
        {
            "timestamp": 3000,
            "input_length": 900,
            "output_length": 5,
            "hash_ids": [9, 2],
        },  # not from the start
        {"timestamp": 7200, "input_length": 1030, "output_length": 5, "hash_ids": [1, 2, 4]},  # all 1,030
    ]
    path = write(tmp_path, *map(json.dumps, rows), name="m.jsonl")
    found = read(path, query="Code_Gen")
    assert found.record[0]["shared_prefix_tokens"] == 1024 + 1030
    assert "2,054 of 4,160 prompt tokens" in found.summary
    rows[0]["hash_ids"] = [1]  # blocks of another size: nothing is counted, and that is said
    found = read(write(tmp_path, *map(json.dumps, rows), name="m.jsonl"), query="Code_Gen")
    assert "shared_prefix_tokens" not in found.record[0]
    assert "shared prefixes are not counted" in found.summary


def test_failed_requests_are_counted_apart(tmp_path: Path):
    rows = ["0,100,10", "600,300,0", "1200,200,30", "1800,7,0", "3600,600,50"]
    path = write(tmp_path, "Timestamp,Request tokens,Response tokens", *rows)
    (one,) = read(path, query="Code_Gen", window=0.5).record
    assert (one["requests"], one["failed"], one["hours"]) == (3, 2, 1.0)
    assert (one["input_tokens_mean"], one["output_tokens_mean"]) == (300, 30)
    found = read(path, query="Code_Gen", window=0.5)
    assert drawn(found, "arrival_rate", "Code_Gen") == (4, 0)
    assert drawn(found, "input_tokens", "Code_Gen") == (150, 300), "an empty window has the mean of the type"
    assert "2,".replace(",", "") in found.values[0].note
    assert "failed and are not counted" in found.values[0].note


def test_a_window_is_one_draw_over_all_query_types(tmp_path: Path):
    """A night of few short requests and a peak of many long ones never mix."""
    rows = [f"{900 * n / 2:g},day,100,10" for n in range(2)]
    rows += [f"{3600 + 360 * n},day,1000,100" for n in range(10)] + ["3700,batch,50,5", "7200,day,1,1"]
    path = write(tmp_path, "Timestamp,Model,Request tokens,Response tokens", *rows)
    found = read(path, query_column="Model", names="day=Code_Gen,batch=Translation", window=1.0)
    found.save(tmp_path / "own.toml")
    catalog = load_catalog(tmp_path / "own.toml")
    assert catalog.sets == load_catalog("corrected").sets
    values = sample_quantities(catalog, ["arrival_rate", "input_tokens", "output_tokens"], n=60, seed=1)
    at = [catalog.sets["query"].index(q) for q in ("Code_Gen", "Translation")]
    seen = {
        tuple(float(values[q][b, i]) for i in at for q in ("arrival_rate", "input_tokens", "output_tokens"))
        for b in range(60)
    }
    assert seen == {(2, 100, 10, 0, 50, 5), (10, 1000, 100, 1, 50, 5)}


def test_hours_of_the_day_and_zones(tmp_path: Path):
    # Two days; at 08:00 UTC, 10:00 in Berlin's summer, four requests an hour, else one.
    times = []
    for day in (4, 5):
        for hour in range(24):
            minutes = (0, 15, 30, 45) if hour == 8 else (0,)
            times += [f"2026-05-{day:02d} {hour:02d}:{minute:02d}:00" for minute in minutes]
    lines = [f"{t},10,1" for t in [*times, "2026-05-06 00:00:00"]]
    path = write(tmp_path, "TIMESTAMP,ContextTokens,GeneratedTokens", *lines)
    for zone, busy in (("UTC", 8), ("Europe/Berlin", 10)):
        (one,) = read(path, query="Code_Gen", window=1.0, timezone=zone).record
        assert one["arrival_rate_by_hour"] == [4.0 if h == busy else 1.0 for h in range(24)]
        assert one["arrival_rate_peak"] == 4.0
        assert one["arrival_rate_quantiles"] == {"p50": 1.0, "p90": 1.0, "p95": 1.0, "p99": 4.0}
    # The same clock counted from 1970, in seconds and in milliseconds, and from the first request.
    start = 1_777_852_800  # 2026-05-04 00:00 UTC
    seconds = [
        int((np.datetime64(t) - np.datetime64("2026-05-04T00:00:00")) / np.timedelta64(1, "s")) for t in times
    ]
    for unit, factor, offset in (("s", 1, start), ("ms", 1000, start), ("s", 1, 0)):
        rows = [f"{(s + offset) * factor},10,1" for s in [*seconds, 172_800]]
        path = write(tmp_path, "at,in,out", *rows)
        options: dict[str, Any] = {"columns": "time=at,input=in,output=out", "unit": unit, "window": 1.0}
        (one,) = read(path, query="Code_Gen", **options).record
        hours = [4.0 if h == 8 else 1.0 for h in range(24)]
        assert one["arrival_rate_by_hour"] == (hours if offset else None)
        assert one["arrival_rate_mean"] == pytest.approx(55 / 48)


def test_the_fast_and_the_slow_reader_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    plain = read(AZURE, query="Code_Gen").record
    lines = AZURE.read_text().splitlines()
    odd = write(
        tmp_path, *lines[:3], *lines[3:-1], lines[-1] + ".0"
    )  # a whole number that Arrow does not take
    monkeypatch.setattr(request_reader, "_ROWS", 50)
    assert read(odd, query="Code_Gen").record == plain
    monkeypatch.setattr(request_reader, "_BLOCK", 1024)
    monkeypatch.setattr(windows, "_DENSE", 100)  # most lengths are counted one by one
    backwards = write(tmp_path, lines[0], *reversed(lines[1:]))
    assert read(AZURE, query="Code_Gen").record == plain
    assert read(backwards, query="Code_Gen").record == plain


def test_values_of_a_column_in_many_blocks_keep_their_codes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    rows = [f"{n},{'abc'[n % 3]},{n % 3 + 1},1" for n in range(300)]
    path = write(tmp_path, "Timestamp,Model,Request tokens,Response tokens", *rows)
    monkeypatch.setattr(request_reader, "_BLOCK", 256)
    found = read(path, query_column="Model", write=False)
    assert [(r["query"], r["requests"], r["input_tokens_mean"]) for r in found.record] == [
        ("a", 100, 1), ("b", 100, 2), ("c", 100, 3),
    ]  # fmt: skip


def test_new_types_are_as_the_one_they_are_like(tmp_path: Path):
    path = FIELD / "trace-burstgpt.csv"
    read(path, query_column="Model", like="query=Translation").save(tmp_path / "own.toml")
    catalog = load_catalog(tmp_path / "own.toml")
    assert catalog.sets["query"][-2:] == ("ChatGPT", "GPT-4")
    new, old = (catalog.entry("base_delay", (q,)) for q in ("GPT-4", "Translation"))
    assert new.distribution == old.distribution
    assert (new.basis, catalog.entry("arrival_rate", ("GPT-4",)).basis) == ("assumed", "measured")
    assert "assumed: GPT-4 as Translation" in new.note


def test_every_value_names_file_and_digest():
    import hashlib

    digest = hashlib.sha256(AZURE.read_bytes()).hexdigest()
    for value in read(AZURE, query="Code_Gen").values:
        assert value.source.startswith(f"azure_code_excerpt.csv (SHA-256 {digest})")


ONE = '{"timestamp": 1, "prompt_tokens": 2, "generated_tokens": 3}'
HEAD = "Timestamp,Request tokens,Response tokens"
BAD: dict[str, tuple[list[str], dict[str, Any], str]] = {
    "no unit": (["t,i,o", "1,2,3", "4,5,6"], {"columns": "time=t,input=i,output=o"}, "--unit s or --unit ms"),
    "no such column": (
        ["t,i,o", "1,2,3"],
        {"columns": "time=t,input=i,output=p", "unit": "s"},
        r"p: got .*expected this column",
    ),
    "unknown format": (["t,i,o", "1,2,3"], {}, "--columns time="),
    "half a format": (["Timestamp,Request tokens,x", "1,2,3"], {}, "Response tokens.*BurstGPT"),
    "odd columns": ([HEAD, "1,2,3"], {"columns": "time=a"}, "columns"),
    "text on the clock": (
        [HEAD, "1,2,3", "soon,4,5"],
        {},
        "line 3: Timestamp: got 'soon', expected a number of s",
    ),
    "NaN on the clock": ([HEAD, "1,2,3", "nan,4,5"], {}, "line 3: Timestamp: got 'nan'"),
    "endless clock": ([HEAD, "1,2,3", "1e300,4,5"], {}, "line 3: Timestamp"),
    "negative tokens": ([HEAD, "1,2,3", "2,-4,5"], {}, "line 3: Request tokens: got '-4'"),
    "half a token": ([HEAD, "1,2,3", "2,4,5.5"], {}, "line 3: Response tokens: got '5.5'"),
    "failures alone": ([HEAD, "1,2,0", "9,4,0"], {}, "at least one request with an output token"),
    "one time": ([HEAD, "1,2,3", "1,4,5"], {}, "more than one time"),
    "two queries": ([HEAD, "1,2,3"], {"query_column": "Timestamp"}, "--query NAME, or --query-column"),
    "unknown query": ([HEAD, "1,2,3", "9,2,3"], {"query": "Chat"}, "query: got 'Chat'.*--like query=NAME"),
    "unknown zone": ([HEAD, "1,2,3", "9,2,3"], {"timezone": "Mars/Base"}, "timezone.*'Mars/Base'"),
    "unknown unit": ([HEAD, "1,2,3", "9,2,3"], {"unit": "h"}, "unit: got 'h'"),
    "mapped to nothing": (
        [HEAD + ",m", "1,2,3,a", "9,2,3,a"],
        {"query": None, "query_column": "m", "names": "b=Code_Gen"},
        "map: got 'b'",
    ),
    "no JSON": ([ONE, "{"], {}, "line 2.*JSON"),
    "JSON text": ([ONE, ONE.replace("1,", '"x",')], {}, "line 2: timestamp: got 'x'"),
    "JSON true": ([ONE, ONE.replace("2", "true")], {}, "line 2: prompt_tokens: got True"),
    "JSON without": (
        [ONE, ONE.replace(', "generated_tokens": 3', "")],
        {},
        "line 2: generated_tokens.*missing",
    ),
    "JSON list": (["[1, 2]"], {}, "line 1.*JSON object"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_traces_are_one_line(tmp_path: Path, what: str):
    lines, options, message = BAD[what]
    path = write(tmp_path, *lines)
    with pytest.raises(InputError, match=message) as caught:
        read(path, **({"query": "Code_Gen"} | options))
    assert "\n" not in str(caught.value)


def test_quantiles_are_values_of_the_data():
    counts = (np.array([1, 5, 9]), np.array([50, 51, 100]))
    found = trace.take_quantiles(counts)
    # (q + 1/2) / 101 of 201 numbers: rank ceil((2q + 1) 201 / 202), the 50 ones up to rank 50, the fives up to 101.
    ranks = [-(-(2 * q + 1) * 201 // 202) for q in range(101)]
    assert found.tolist() == [1 if r <= 50 else 5 if r <= 101 else 9 for r in ranks]


@pytest.mark.parametrize(
    ("stamp", "fields", "read_in"),
    [
        (
            "1700000000123",
            "prompt_tokens,generated_tokens",
            "s",
        ),  # fleet-sim counts seconds: this would be the year 55840
        (
            "1700000000.5",
            "input_length,output_length",
            "ms",
        ),  # Mooncake counts ms: a trace that begins after 20 days
    ],
)
def test_a_clock_that_contradicts_its_format_is_asked_about(
    tmp_path: Path, stamp: str, fields: str, read_in: str
):
    path = write(tmp_path, f"timestamp,{fields}", f"{stamp},100,10", f"{float(stamp) + 3600},100,10")
    with pytest.raises(
        InputError, match=f"timestamp: got '{stamp}', expected --unit s or --unit ms.*count {read_in},"
    ):
        read(path, query="Code_Gen")
    other = "ms" if read_in == "s" else "s"
    (row,) = read(path, query="Code_Gen", unit=other).record
    assert row["hours"] == pytest.approx(1 if other == "s" else 1e-3)
    assert row["arrival_rate_by_hour"] is not None, "an absolute clock"


def test_a_unit_for_dates_is_refused():
    with pytest.raises(InputError, match=r"unit: got 's', expected no unit: .* has dates"):
        read(AZURE, query="Code_Gen", unit="s")


@pytest.mark.parametrize("stamp", ["null", "[1]", "true", "{}", '""'])
def test_a_first_clock_that_is_no_time(tmp_path: Path, stamp: str):
    lines = [f'{{"timestamp": {t}, "prompt_tokens": 5, "generated_tokens": 5}}' for t in (stamp, 3600)]
    with pytest.raises(InputError, match="line 1: timestamp"):
        read(write(tmp_path, *lines, name="trace.jsonl"), query="Code_Gen")


@pytest.mark.parametrize(("tokens", "warned"), [("600,300", 0), ("5000,250", 1)])
def test_curves_of_other_lengths_are_warned_of(tmp_path: Path, tokens: str, warned: int):
    """The predicted rates of Chat in `serving` are of 512 input and 256 output tokens."""
    path = write(
        tmp_path,
        "TIMESTAMP,ContextTokens,GeneratedTokens",
        f"2026-05-04 09:00,{tokens}",
        f"2026-05-04 10:00,{tokens}",
    )
    found = read(path, query="Chat", base="serving")
    assert len(found.record[0]["warnings"]) == warned
    assert found.summary.count("Warning: ") == warned
    if warned:
        assert "512 input and 256 output tokens" in found.summary


@pytest.mark.parametrize("stamp", ["1e400", "-1e400", "1e305"])
def test_a_clock_beyond_all_numbers(tmp_path: Path, stamp: str):
    path = write(tmp_path, "arrived_at,num_prefill_tokens,num_decode_tokens", "0.5,9,9", f"{stamp},9,9")
    with pytest.raises(InputError, match=f"line 3: arrived_at: got '{stamp}', expected a number of s"):
        read(path, query="Code_Gen")
