"""The flat layout of a leaf: packing and unpacking are inverse, and what is packed is as the format page says."""

from dataclasses import asdict

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rodiu_jax.certificates.leaf_codec import LeafCodec, split_lists

SIZES = st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.integers(0, 5))


def draw_multipliers(codec: LeafCodec, leaves: int, seed: int) -> dict[str, np.ndarray]:
    """Random float32 multipliers; about half of the pairs of a leaf have 0 everywhere."""
    rng = np.random.default_rng(seed)
    types, pairs, degrees = codec.types, codec.pairs, codec.options
    shapes = {
        "demand": (types,),
        "delay": (types,),
        "error": (types,),
        "budget": (),
        "storage": (),
        "memory": (pairs, degrees),
        "compute": (pairs, degrees),
        "delay_adversary": (types, pairs),
        "error_adversary": (types, pairs),
        "throughput": (pairs, degrees if codec.has_rates else 0),
        "load_adversary": (pairs, degrees if codec.has_rates else 0, types),
        "quota": (codec.quotas,),
    }
    listed = rng.random((leaves, pairs)) < 0.5
    drawn = {n: rng.normal(size=(leaves, *shape)).astype(np.float32) for n, shape in shapes.items()}
    for name in ("memory", "compute", "throughput"):
        drawn[name] *= listed[:, :, None]
    drawn["load_adversary"] *= listed[:, :, None, None]
    for name in ("delay_adversary", "error_adversary"):
        drawn[name] *= listed[:, None, :]
    return drawn


@given(SIZES, st.booleans(), st.integers(0, 2), st.integers(0, 2**32 - 1))
def test_packing_and_unpacking_are_inverse(
    sizes: tuple[int, int, int, int], rates: bool, quotas: int, seed: int
) -> None:
    codec = LeafCodec(*sizes[:3], rates, quotas)
    drawn = draw_multipliers(codec, sizes[3], seed)
    pairs, values = codec.pack(drawn)
    for name, array in asdict(codec.unpack(pairs, values)).items():
        np.testing.assert_array_equal(array, drawn[name], err_msg=name)
    lengths = codec.sizes(np.array([len(p) for p in pairs], np.int64))
    assert [len(v) for v in values] == lengths.tolist()
    again = codec.pack(asdict(codec.unpack(pairs, values)))
    for first, second in zip((pairs, values), again, strict=True):
        for one, other in zip(first, second, strict=True):
            np.testing.assert_array_equal(one, other)
            assert one.dtype == other.dtype


def test_the_layout_of_a_leaf() -> None:
    """One type, two pairs, one degree; only pair 1 is listed: m, c, xi, psi follow the five prices."""
    codec = LeafCodec(1, 2, 1)
    one = {
        "demand": [[1.0]],
        "delay": [[2.0]],
        "error": [[3.0]],
        "budget": [4.0],
        "storage": [5.0],
        "memory": [[[0.0], [6.0]]],
        "compute": [[[0.0], [7.0]]],
        "delay_adversary": [[[0.0, 8.0]]],
        "error_adversary": [[[0.0, 9.0]]],
    }
    pairs, values = codec.pack({n: np.array(v, np.float32) for n, v in one.items()})
    assert [p.tolist() for p in pairs] == [[1]]
    assert [v.tolist() for v in values] == [[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]]


def test_what_is_not_finite_counts_as_zero() -> None:
    codec = LeafCodec(2, 2, 2)
    drawn = {n: np.full_like(v, np.nan) for n, v in draw_multipliers(codec, 3, 0).items()}
    pairs, values = codec.pack(drawn | {"budget": np.array([np.inf, -np.inf, np.nan], np.float32)})
    assert all(len(p) == 0 and not v.any() for p, v in zip(pairs, values, strict=True))


def test_paths_say_which_triples_are_deployed_and_which_are_not() -> None:
    codec = LeafCodec(1, 2, 2)
    paths = [np.array([1, -4], np.int32), np.array([], np.int32), np.array([-1, 2], np.int32)]
    deployed, excluded = codec.decode_paths(paths)
    assert deployed.tolist() == [[True, False, False, False], [False] * 4, [False, True, False, False]]
    assert excluded.tolist() == [[False, False, False, True], [False] * 4, [True, False, False, False]]


def test_lists_are_cut_at_their_offsets() -> None:
    parts = split_lists(np.arange(5), np.array([0, 2, 2, 5]))
    assert [p.tolist() for p in parts] == [[0, 1], [], [2, 3, 4]]
