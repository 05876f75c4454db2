"""Options and arguments that each command refuses."""

from pathlib import Path

import pytest

from tests.cli.calls import SAMPLE, TRACE, Run, drawn, refused

BAD_USAGE = {
    "negative count": ((*SAMPLE, "--n", "-4"), "--n", "-4"),
    "count of nothing": ((*SAMPLE, "--n", "0"), "--n", "0"),
    "half a count": ((*SAMPLE, "--n", "2.5"), "--n", "2.5", "integer"),
    "no count": (("sample", "-o", "made.npz"), "--n", "Missing"),
    "no output": (("sample", "--n", "2"), "--output", "Missing"),
    "negative seed": ((*SAMPLE, "--seed", "-1"), "--seed", "-1"),
    "huge seed": ((*SAMPLE, "--seed", str(2**63)), "seed", str(2**63)),
    "unknown mode": ((*SAMPLE, "--uncertainty", "dd"), "--uncertainty", "dd", "ddu"),
    "unknown catalogue": ((*SAMPLE, "--catalog", "sead"), "sead", "seed"),
    "unknown option": ((*SAMPLE, "--sed", "1"), "--sed", "--seed"),
    "misspelt field": ((*SAMPLE, "--set", "bugdet=3"), "--set", "'bugdet'", "did you mean budget"),
    "set without a value": ((*SAMPLE, "--set", "budget"), "--set", "'budget'", "FIELD=VALUE"),
    "set to nothing": ((*SAMPLE, "--set", "budget="), "--set", "'budget='"),
    "set to a word": ((*SAMPLE, "--set", "budget=much"), "--set", "budget", "'much'", "number"),
    "set to NaN": ((*SAMPLE, "--set", "budget=nan"), "--set", "budget", "nan", "finite"),
    "set out of range": ((*SAMPLE, "--set", "gamma_delay=-1"), "--set", "gamma_delay", "-1.0"),
    "factor out of range": ((*SAMPLE, "--set", "arrival_rate*=-1"), "--set", "arrival_rate"),
    "set to no 64-bit number": ((*SAMPLE, "--set", "max_routes=1e300"), "--set", "max_routes", "1e+300"),
    "factor too large": ((*SAMPLE, "--set", "budget*=1e308"), "--set", "budget", "inf", "finite"),
    "set too many": ((*SAMPLE, "--set", "gpu_memory=1,2,3"), "--set", "gpu_memory", "2 number"),
    "set no such name": ((*SAMPLE, "--set", "gpu_price[B200*]=1"), "--set", "'B200*'", "H100_FP16"),
    "unwritable folder": ((*SAMPLE, "-o", "tiny.toml/made.npz"), "tiny.toml/made.npz", "folder"),
    "missing folder": ((*SAMPLE, "-o", "nowhere/made.npz"), "nowhere/made.npz", "folder"),
    "output is a folder": ((*SAMPLE, "-o", "."), "folder"),
    "index too large": (("solve", "in.npz", "--index", "0", "2"), "--index", "got 2", "from 0 to 1"),
    "negative index": (("solve", "in.npz", "--index", "-1"), "--index", "-1"),
    "index that is a word": (("solve", "in.npz", "--index", "one"), "--index", "one"),
    "gap above 1": (("solve", "in.npz", "--gap", "2"), "--gap", "2"),
    "gap not a number": (("solve", "in.npz", "--gap", "nan"), "--gap", "nan"),
    "no time": (("solve", "in.npz", "--time-limit", "0"), "--time-limit", "0"),
    "time not a number": (("solve", "in.npz", "--time-limit", "nan"), "--time-limit", "nan"),
    "sweep gap not a number": (("sweep", "cost-budget", "-o", "made", "--gap", "nan"), "--gap", "nan"),
    "window not a number": (
        ("calibrate", TRACE, "--query", "Code_Gen", "--window", "nan", "-o", "made"),
        *("window", "nan"),
    ),
    "no workers": (("solve", "in.npz", "--workers", "0"), "--workers", "0"),
    "table in no folder": (
        ("evaluate", "in.npz", "plans.json", "-o", "no/t.parquet"),
        "no/t.parquet",
        "folder",
    ),
    "describe nothing": (("describe", "--catalog", "sead"), "sead", "did you mean seed"),
    "validate nothing": (("validate", "--catalog", "none.toml"), "none.toml"),
    "unknown preset": (("sweep", "cost-buget", "-o", "made"), "'cost-buget'", "did you mean cost-budget"),
    "no preset": (("sweep",), "PRESET", "cost-budget"),
    "sweep to nowhere": (("sweep", "cost-budget"), "-o DIR"),
    "report of nothing": (("report", "made"), "made", "folder of a sweep"),
    "plot of nothing": (("plot", "made", "--figure", "map", "-o", "made.png"), "made", "folder of a sweep"),
    "plot of what": (("plot", "made", "--figure", "mapp", "-o", "made.png"), "'mapp'", "did you mean map"),
    "plot to what": (("plot", "made", "--figure", "map", "-o", "made.gif"), "made.gif", ".png, .svg, .pdf"),
    "plot of costs by another name": (
        ("plot", "made", "--figure", "costs", "--output", "gap", "-o", "made.png"),
        *("output", "'gap'"),
    ),
    "plot of all factors": (
        ("plot", "made", "--figure", "tornado", "--factors", "a,b", "-o", "made.png"),
        *("factors", "'a,b'"),
    ),
    "sweep of no samples": (("sweep", "cost-budget", "-o", "made", "--samples", "0"), "--samples", "0"),
    "sweep with another method": (
        ("sweep", "cost-budget", "-o", "made", "--method", "luck"),
        "luck",
        "exact",
    ),
    "sweep into a file": (("sweep", "cost-budget", "-o", "tiny.toml"), "tiny.toml", "folder"),
    "sweep below a file": (("sweep", "cost-budget", "-o", "tiny.toml/made"), "tiny.toml/made", "folder"),
    "sweep misspelt set": (("sweep", "cost-budget", "-o", "made", "--set", "bugdet=1"), "--set", "'bugdet'"),
    "resume of nothing": (("sweep", "no.toml", "-o", "made", "--resume"), "no.toml"),
}


@pytest.mark.parametrize("what", BAD_USAGE)
def test_bad_usage(rodiu: Run, here: Path, what: str):
    args, *needles = BAD_USAGE[what]
    drawn(here)
    refused(rodiu, *args, needles=tuple(needles))
