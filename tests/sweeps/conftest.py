"""The method `fake` in every test of sweeps."""

import pytest

from rodiu_jax.sweeps import METHODS
from tests.sweeps.small import fake, toy


@pytest.fixture(autouse=True)
def _fake_method(monkeypatch):
    monkeypatch.setitem(METHODS, "fake", toy(fake))
