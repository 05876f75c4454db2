"""The method `fake` in tests of progress, which watch sweeps."""

from tests.sweeps.conftest import _fake_method

__all__ = ["_fake_method"]
