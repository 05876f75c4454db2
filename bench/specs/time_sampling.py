"""Drawing scenarios beside two NumPy samplers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from bench.measure import SLOW_PEER_ITEMS, Case, Side, Spec, describe_counts
from rodiu_jax.catalog import draw_program, load_catalog, sampling
from rodiu_jax.model.fields import FIELD_SPECS
from rodiu_jax.model.instance import Instances
from tests.oracles.numpy_batch_sampler import sample_batch
from tests.oracles.numpy_sampler import sample_one


@contextmanager
def build(n: int) -> Iterator[Iterator[Case]]:
    """One batch of the seed catalogue."""
    catalog = load_catalog("seed")
    few = min(n, SLOW_PEER_ITEMS)

    def ours() -> Instances:
        return sampling.sample(catalog, n=n, seed=1)

    def one_by_one() -> list[dict[str, Any]]:
        rng = np.random.default_rng(1)
        return [sample_one(rng) for _ in range(few)]

    def batch() -> dict[str, np.ndarray]:
        return sample_batch(np.random.default_rng(2), n)

    def judge(results: Sequence[Any]) -> tuple[bool, str]:
        drawn, single, vectorised = results
        drawn.with_fields()  # validated anew; raises
        fields = drawn.fields._asdict()
        assert set(drawn.batched) == set(vectorised), "both draw the same fields"
        far = [
            np.max(measure_distances(fields[name], other)).item()
            for name in sorted(vectorised)
            for other in (vectorised[name], np.stack([s[name] for s in single]))
        ]
        return max(far) < 6.0, f"{n:,} valid; means within {max(far):.1f} standard errors of the peers'"

    drawn = [name for name in FIELD_SPECS if name in catalog.varying]
    program, params = draw_program.make_program(catalog, drawn)
    size = sampling._block_size(catalog, drawn, n).rows
    numbers = (params, np.zeros(2, np.uint32), np.arange(size, dtype=np.uint32))
    counted = describe_counts(sampling._draw, size, "scenario", *numbers, program=program)
    sides = (
        Side("rodiu sample", ours, n),
        Side("NumPy, one by one", one_by_one, few, target=5),
        Side("NumPy, in batch", batch, n),
    )
    yield iter([Case(f"{n:,} scenarios", sides, judge, counted)])


def measure_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the difference of the means over the first axis in standard errors, entry by entry."""
    error = np.sqrt(a.var(0) / len(a) + b.var(0) / len(b))
    return np.abs(a.mean(0) - b.mean(0)) / error


SPEC = Spec(
    name="sampling",
    measures="Scenarios per second drawn from the seed catalogue, host arrays in hand."
    " A batch smaller than a block (136 scenarios, or 272 where there are more than 256) pays for the whole block.",
    item="scenario",
    peers="tests/oracles/numpy_sampler.py, one call per scenario; tests/oracles/numpy_batch_sampler.py, the"
    " same formulas vectorised over blocks of the batch (it cannot redraw scenario b alone, as ours"
    " can).",
    quality="every scenario passes validation; the mean of every drawn entry against both peers', in"
    " standard errors (about 1,600 entries are compared twice: 3 to 4.5 is expected, 6 fails).",
    precision="draws and results float64 on both sides",
    by_hand="893 numbers drawn from about 1,000 threefry blocks of 120 integer operations, then about"
    " 10 float64 operations per number: 130,000 operations and 1,601 x 8 = 12,808 bytes"
    " written per scenario (XLA counts the body of the loop over names once).",
    sizes=(256, 4_096, 32_768),
    large=(1_048_576,),
    build=build,
)
