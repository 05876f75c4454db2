"""The optional fields of MODEL section 9 in catalogues: drawn, checked, absent where a catalogue does not name them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from rodiu_jax.catalog import load_catalog
from rodiu_jax.catalog.audit import validate
from rodiu_jax.catalog.describe import describe
from rodiu_jax.catalog.sampling import sample
from rodiu_jax.errors import InputError
from rodiu_jax.model.fields import FIELD_SPECS, REQUIRED_FIELDS
from rodiu_jax.model.npz import load_instances

HEAD = '[catalog]\nname = "fleet"\nextends = "corrected"\n'

FLEET = """
[quantity.max_replicas]
over = ["model", "gpu"]
unit = "-"
source = "our contract"
each = 8
values."Llama-3.2-1B".H100_FP16 = 3

[quantity.throughput]
over = ["query", "model", "gpu", "tp"]
unit = "queries/h"
source = "bench.json"
each = { uniform = [20, 60] }
values.Code_Gen."Llama-3.2-1B".H100_FP16.1 = { fixed = 0, source = "nobody measured it" }
values.Code_Gen."Llama-3.2-1B".H100_FP16.2 = inf

[quantity.throughput_shortfall]
over = ["query", "model", "gpu"]
unit = "fraction"
source = "a guess"
each = { uniform = [0.1, 0.3] }

[quantity.gamma_throughput]
over = []
unit = "-"
source = "ours"
each = 1.5

[quantity.max_utilization]
over = []
unit = "fraction"
source = "ours"
each = { uniform = [0.8, 0.9] }

[quantity.gpu_quota]
over = ["gpu"]
unit = "GPUs"
source = "the cloud's console"
each = inf
values.H100_FP16 = 4
values.H100_INT8 = 4

[quantity.residency_hours]
over = ["query", "model", "gpu"]
unit = "h"
source = "bench.json"
each = { uniform = [0.001, 0.002] }

[quantity.tp_speedup]
over = ["query", "model", "gpu", "tp"]
unit = "-"
source = "bench.json"
each = { uniform = [1, 2] }
"""


def written(folder: Path, body: str) -> Path:
    path = folder / "fleet.toml"
    path.write_text(HEAD + body, encoding="utf-8")
    return path


def test_drawn_from_a_catalogue(tmp_path: Path):
    catalog = load_catalog(written(tmp_path, FLEET))
    drawn, base = sample(catalog, n=6, seed=3), sample("corrected", n=6, seed=3)
    f = drawn.fields
    j, k = drawn.model_names.index("Llama-3.2-1B"), drawn.gpu_names.index("H100_FP16")
    i = drawn.query_names.index("Code_Gen")
    assert f.throughput.shape == (6, *drawn.shape)
    assert (f.throughput[:, i, j, k, 0] == 0).all()
    assert (f.throughput[:, i, j, k, 1] == math.inf).all()
    others = np.delete(f.throughput[:, i, j, k], [0, 1], axis=-1)
    assert ((others >= 20) & (others <= 60)).all()
    assert (f.max_replicas.dtype, f.max_replicas[j, k], f.max_replicas.max()) == (np.int64, 3, 8)
    assert f.max_utilization.shape == (6,)
    assert f.residency_hours.shape == (6, *drawn.shape[:3])
    assert f.tp_speedup.shape == (6, *drawn.shape)
    assert f.gpu_quota[k] == 4
    # Configurations that the catalogue calls one device share its quota.
    device = catalog.attributes["gpu"]["H100_FP16"]["device"]
    mine = [n for n in drawn.gpu_names if catalog.attributes["gpu"][n]["device"] == device]
    assert {n for n, g in zip(drawn.gpu_names, f.gpu_device, strict=True) if g == f.gpu_device[k]} == set(
        mine
    )
    for name in REQUIRED_FIELDS:  # the other draws are the same bit for bit
        if name not in ("residency_hours", "tp_speedup"):
            np.testing.assert_array_equal(getattr(f, name), getattr(base.fields, name), err_msg=name)
    assert all(np.ndim(getattr(base.fields, n)) == 0 for n in FIELD_SPECS if n not in REQUIRED_FIELDS)
    drawn.save(tmp_path / "a.npz")
    again = load_instances(tmp_path / "a.npz")
    for name, one, other in zip(FIELD_SPECS, again.fields, drawn.fields, strict=True):
        np.testing.assert_array_equal(one, other, err_msg=name)
    assert again.gpu_devices == drawn.gpu_devices


def test_described_and_validated(tmp_path: Path):
    path = written(tmp_path, FLEET)
    table = describe(path).set_index("quantity")
    assert (table.loc["gpu_quota", "high"] == math.inf).any()
    assert (table.loc["throughput", "source"] == "nobody measured it").sum() == 1
    report = validate(path, n=30)
    assert report.ok, report.failures
    assert set(report.memory["tp"]) == {1, 2, 4, 8}


BAD = {
    "rate below 0": (FLEET.replace("[20, 60]", "[-20, 60]"), r"throughput.*got '-20 to 60'"),
    "shortfall of 1": (FLEET.replace("[0.1, 0.3]", "[0.1, 1.0]"), r"throughput_shortfall.*< 1"),
    "replicas drawn": (FLEET.replace("each = 8", "each = { uniform = [1, 8] }"), r"max_replicas.*whole"),
    "NaN": (FLEET.replace("H100_FP16.2 = inf", "H100_FP16.2 = nan"), r"throughput"),
    "minus infinite": (FLEET.replace("H100_FP16.2 = inf", "H100_FP16.2 = -inf"), r"throughput.*got -inf"),
    "infinite price": ("[quantity.gpu_price]\neach = inf\n", r"gpu_price.*got inf"),
    "infinite range": (FLEET.replace("[20, 60]", "[20, inf]"), r"throughput"),
    "axes": (
        FLEET.replace('["query", "model", "gpu"]\nunit = "h"', '["query"]\nunit = "h"'),
        r"residency_hours.over",
    ),
    "unit": (FLEET.replace('unit = "GPUs"', 'unit = "$"'), r"gpu_quota.unit"),
    "quotas of one device": (
        FLEET.replace("values.H100_INT8 = 4", "values.H100_INT8 = 5"),
        r"gpu_quota.H100_INT8: got 5.0, expected 4, as H100_FP16 says of the same device",
    ),
    "quotas drawn": (
        FLEET.replace("values.H100_INT8 = 4", "values.H100_INT8 = { uniform = [1, 4] }"),
        r"gpu_quota: expected fixed values",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_catalogues_are_one_line(tmp_path: Path, case: str):
    body, message = BAD[case]
    with pytest.raises(InputError, match=message) as caught:
        load_catalog(written(tmp_path, body))
    assert "\n" not in str(caught.value)
