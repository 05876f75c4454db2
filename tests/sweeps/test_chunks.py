"""How many scenarios the local engine makes at a time: more for a GPU, as far as memory goes."""

import math

import pytest

from rodiu_jax.catalog import load_catalog
from rodiu_jax.sweeps.engines import local
from rodiu_jax.sweeps.engines.local import chunk_of


def test_a_gpu_makes_two_blocks_of_brackets_at_a_time(monkeypatch: pytest.MonkeyPatch):
    catalog = load_catalog("seed")
    assert chunk_of("bracket", catalog) == 2048
    monkeypatch.setattr("rodiu_jax.runtime.devices.by_device", lambda *, cpu, accelerator: accelerator)
    assert chunk_of("bracket", catalog) == 2 * 16_384
    scenario = 8 * sum(math.prod(catalog.shape(name)) for name in catalog.varying)
    monkeypatch.setattr(local, "_MOST_BYTES", 5000 * scenario)
    assert chunk_of("bracket", catalog) == 5000
    monkeypatch.setattr(local, "_MOST_BYTES", 0)
    assert chunk_of("bracket", catalog) == 2048, "what a CPU makes, a GPU's host does too"
