"""The flat layout of a leaf of a certificate, and the code of its path: the only place that knows either.

A leaf lists numbers (float32 in files): pi (I), eta (I), zeta (I), mu_b, mu_s, then for each pair that it lists m (N),
c (N), xi (I), psi (I). A pair that is not listed has 0 in all four. A path holds the splits from the root: +(t + 1)
where triple t = pair * N + degree is deployed, -(t + 1) where it is not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float, Int

from rodiu_jax.model.instance import Instances

Lists = list[np.ndarray]
"""One array per leaf, of different lengths."""


@dataclass(frozen=True)
class LeafMultipliers:
    """Multipliers of the dual function for L leaves, dense; the symbols are those of docs/model.md."""

    demand: Float[np.ndarray, "L I"]  # pi
    delay: Float[np.ndarray, "L I"]  # eta
    error: Float[np.ndarray, "L I"]  # zeta
    budget: Float[np.ndarray, " L"]  # mu_b
    storage: Float[np.ndarray, " L"]  # mu_s
    memory: Float[np.ndarray, "L P N"]  # m
    compute: Float[np.ndarray, "L P N"]  # c
    delay_adversary: Float[np.ndarray, "L I P"]  # xi
    error_adversary: Float[np.ndarray, "L I P"]  # psi


@dataclass(frozen=True)
class LeafCodec:
    """Packs the multipliers of leaves into lists of numbers and unpacks them, for I types, P pairs and N degrees."""

    types: int
    pairs: int
    degrees: int

    @classmethod
    def of(cls, instances: Instances) -> LeafCodec:
        """Return the codec of the scenarios' certificates."""
        types, models, gpus, degrees = instances.shape
        return cls(types, models * gpus, degrees)

    @property
    def triples(self) -> int:
        """Number of triples."""
        return self.pairs * self.degrees

    @property
    def head(self) -> int:
        """Numbers of a leaf before its pairs."""
        return 3 * self.types + 2

    @property
    def width(self) -> int:
        """Numbers of a leaf for each pair that it lists."""
        return 2 * (self.types + self.degrees)

    def pack(self, multipliers: Mapping[str, Float[np.ndarray, "L ..."]]) -> tuple[Lists, Lists]:
        """Return the listed pairs (int32, increasing) and the numbers (float32) of each leaf.

        Args:
          multipliers: by the names of `LeafMultipliers`. What is not finite, of a scenario that failed, counts as
            0: that is valid too.
        """
        y = {
            name: np.nan_to_num(np.asarray(values, np.float32), posinf=0.0, neginf=0.0)
            for name, values in multipliers.items()
        }
        count = len(y["budget"])
        head = np.concatenate(
            [y["demand"], y["delay"], y["error"], y["budget"][:, None], y["storage"][:, None]], axis=1
        )
        by_pair = np.concatenate(
            [
                y["memory"],
                y["compute"],
                y["delay_adversary"].swapaxes(1, 2),
                y["error_adversary"].swapaxes(1, 2),
            ],
            axis=2,
        )  # L,P,width
        listed = np.any(by_pair != 0, axis=2)  # L,P
        pairs = [np.flatnonzero(listed[leaf]).astype(np.int32) for leaf in range(count)]
        return pairs, [
            np.concatenate([head[leaf], by_pair[leaf][pairs[leaf]].ravel()]) for leaf in range(count)
        ]

    def unpack(self, pairs: Sequence[np.ndarray], values: Sequence[np.ndarray]) -> LeafMultipliers:
        """Return the dense multipliers, in float64, of leaves with these listed pairs and numbers."""
        count, types, degrees = len(values), self.types, self.degrees
        head = np.array([v[: self.head] for v in values], np.float64).reshape(count, self.head)
        by_pair = np.zeros((count, self.pairs, self.width))
        if count:
            leaf = np.repeat(np.arange(count), [len(p) for p in pairs])
            tails = np.concatenate([v[self.head :] for v in values])
            by_pair[leaf, np.concatenate(list(pairs))] = tails.reshape(-1, self.width)
        memory, compute, xi, psi = np.split(by_pair, np.cumsum([degrees, degrees, types]), axis=2)
        return LeafMultipliers(
            demand=head[:, :types],
            delay=head[:, types : 2 * types],
            error=head[:, 2 * types : 3 * types],
            budget=head[:, -2],
            storage=head[:, -1],
            memory=memory,
            compute=compute,
            delay_adversary=xi.swapaxes(1, 2),
            error_adversary=psi.swapaxes(1, 2),
        )

    def sizes(self, listed: Int[np.ndarray, " L"]) -> Int[np.ndarray, " L"]:
        """Return how many numbers leaves have that list ``listed`` pairs."""
        return self.head + listed * self.width

    def decode_paths(
        self, paths: Sequence[np.ndarray]
    ) -> tuple[Bool[np.ndarray, "L T"], Bool[np.ndarray, "L T"]]:
        """Return which triples the leaves' plans deploy, and which they must not."""
        deployed = np.zeros((len(paths), self.triples), bool)
        excluded = np.zeros_like(deployed)
        if len(paths):
            leaf = np.repeat(np.arange(len(paths)), [len(p) for p in paths])
            split = np.concatenate(list(paths)).astype(np.int64)
            deployed[leaf[split > 0], split[split > 0] - 1] = True
            excluded[leaf[split < 0], -split[split < 0] - 1] = True
        return deployed, excluded


def split_lists(flat: np.ndarray, offsets: Int[np.ndarray, " cuts"]) -> Lists:
    """Return the arrays of leaves that stand one after the other in ``flat``."""
    return [flat[start:stop] for start, stop in pairwise(offsets.tolist())]
