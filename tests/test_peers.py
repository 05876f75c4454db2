"""What the page about other tools (`docs/peers.py`) asks: questions whose answers others published."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import rodiu_jax as rj

SCRIPT = Path(__file__).parents[1] / "docs" / "peers.py"


@pytest.fixture(scope="module")
def peers() -> ModuleType:
    spec = importlib.util.spec_from_file_location("peers", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["peers"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_melange_and_its_whole_buckets(peers: ModuleType):
    """Its README rents 3 A10G and 1 A100: $6.70; split buckets load one of each exactly: $3.67 + $1.01."""
    rates = np.array([[2.0, 20.0], [1.0, 20.0], [5.0, 40.0], [2.0, 20.0]])
    arrivals, prices = [6.0, 3.0, 15.0, 6.0], [1.01, 3.67]
    assert peers.assign_whole(rates, arrivals, prices) == pytest.approx(6.70)
    for whole, cost in ((True, 6.70), (False, 4.68)):
        answer = rj.solve(peers.plain_instance(rates, arrivals, prices, whole=whole), [0])[0]
        assert answer.upper == pytest.approx(cost)
        assert answer.lower == pytest.approx(cost)


def test_greedy_is_dearer_than_the_optimum(peers: ModuleType):
    """100 are needed: 200 for $10 cost less each, 100 for $6 cost less."""
    instance = peers.plain_instance(np.array([[200.0, 100.0]]), [100.0], [10.0, 6.0])
    assert rj.solve(instance, [0])[0].upper == pytest.approx(6.0)


def test_the_rule_of_thumb_rounds_up(peers: ModuleType):
    """1.2 x 250 / 100 = 3 on the second GPU, the cheaper one for a query."""
    instance = peers.plain_instance(np.array([[200.0, 100.0]]), [250.0], [14.0, 6.0])
    assert peers.buy_by_rule(instance) == peers.Fleet(18.0, 3.0, 0.0)
