"""What tests of solvers share."""

import pytest

from solvers import exact


@pytest.fixture
def asked(monkeypatch):
    """The formulations and options of every MILP that HiGHS is asked."""
    seen = []
    real = exact.run_highs

    def watched(formulation, **options):
        if not options.get("relax") and formulation.integer.any():
            seen.append((formulation, options))
        return real(formulation, **options)

    monkeypatch.setattr(exact, "run_highs", watched)
    return seen
