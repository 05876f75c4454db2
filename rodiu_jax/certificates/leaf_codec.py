"""The flat layout of a leaf of a certificate, and the code of its path: the only place that knows either.

A pair is deployed as one of O options: its N degrees, or, where scenarios know replicas, degrees with ranges of
replicas that the file lists. A leaf lists numbers (float32 in files): pi (I), eta (I), zeta (I), mu_b, mu_s, with
quotas nu (K), then for each pair that it lists m (O), c (O), xi (I), psi (I), with rates h (O), chi (O,I). A pair
that is not listed has 0 in all of them. A path holds the splits from the root: +(t + 1) where triple
t = pair * O + option is deployed, -(t + 1) where it is not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float, Int

from rodiu_jax.model.fields import has_quotas, has_rates
from rodiu_jax.model.instance import Instances

Lists = list[np.ndarray]
"""One array per leaf, of different lengths."""

Ranges = tuple[tuple[int, int, int], ...]
"""The options of every pair, as (degree, fewest replicas, largest)."""


@dataclass(frozen=True)
class LeafMultipliers:
    """Multipliers of the dual function for L leaves, dense; the symbols are those of docs/model.md."""

    demand: Float[np.ndarray, "L I"]  # pi
    delay: Float[np.ndarray, "L I"]  # eta
    error: Float[np.ndarray, "L I"]  # zeta
    budget: Float[np.ndarray, " L"]  # mu_b
    storage: Float[np.ndarray, " L"]  # mu_s
    memory: Float[np.ndarray, "L P O"]  # m
    compute: Float[np.ndarray, "L P O"]  # c
    delay_adversary: Float[np.ndarray, "L I P"]  # xi
    error_adversary: Float[np.ndarray, "L I P"]  # psi
    throughput: Float[np.ndarray, "L P H"]  # h; H is O, or 0 without rates
    load_adversary: Float[np.ndarray, "L P H I"]  # chi; as h
    quota: Float[np.ndarray, "L K"]  # nu; of no GPUs without quotas


@dataclass(frozen=True)
class LeafCodec:
    """Packs the multipliers of leaves into lists of numbers and unpacks them.

    Attributes:
      types, pairs, options: I, P and O.
      has_rates: leaves price the load of replicas.
      quotas: K where leaves price the GPUs of quotas, else 0.
    """

    types: int
    pairs: int
    options: int
    has_rates: bool = False
    quotas: int = 0

    @classmethod
    def of(cls, instances: Instances, ranges: Ranges | None = None) -> LeafCodec:
        """Return the codec of the scenarios' certificates, with these options in place of degrees."""
        types, models, gpus, degrees = instances.shape
        options = degrees if ranges is None else len(ranges)
        quotas = gpus if has_quotas(instances.fields) else 0
        return cls(types, models * gpus, options, has_rates(instances.fields), quotas)

    @property
    def has_quotas(self) -> bool:
        """True if leaves price the GPUs of quotas."""
        return self.quotas > 0

    @property
    def triples(self) -> int:
        """Number of triples."""
        return self.pairs * self.options

    @property
    def head(self) -> int:
        """Numbers of a leaf before its pairs."""
        return 3 * self.types + 2 + self.quotas

    @property
    def width(self) -> int:
        """Numbers of a leaf for each pair that it lists."""
        return sum(self._parts)

    @property
    def _parts(self) -> tuple[int, ...]:
        """Numbers of a listed pair: m, c, xi, psi, h, chi."""
        priced = self.options if self.has_rates else 0
        return (self.options, self.options, self.types, self.types, priced, priced * self.types)

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
        head = [y["demand"], y["delay"], y["error"], y["budget"][:, None], y["storage"][:, None]]
        head += [y["quota"]] if self.has_quotas else []
        by_pair = [y["memory"], y["compute"]]
        by_pair += [y["delay_adversary"].swapaxes(1, 2), y["error_adversary"].swapaxes(1, 2)]
        if self.has_rates:
            by_pair += [y["throughput"], y["load_adversary"].reshape(count, self.pairs, self._parts[-1])]
        heads, rows = np.concatenate(head, axis=1), np.concatenate(by_pair, axis=2)  # L,P,width
        listed = np.any(rows != 0, axis=2)  # L,P
        pairs = [np.flatnonzero(listed[leaf]).astype(np.int32) for leaf in range(count)]
        return pairs, [
            np.concatenate([heads[leaf], rows[leaf][pairs[leaf]].ravel()]) for leaf in range(count)
        ]

    def unpack(self, pairs: Sequence[np.ndarray], values: Sequence[np.ndarray]) -> LeafMultipliers:
        """Return the dense multipliers, in float64, of leaves with these listed pairs and numbers."""
        count, types = len(values), self.types
        head = np.array([v[: self.head] for v in values], np.float64).reshape(count, self.head)
        by_pair = np.zeros((count, self.pairs, self.width))
        if count:
            leaf = np.repeat(np.arange(count), [len(p) for p in pairs])
            tails = np.concatenate([v[self.head :] for v in values])
            by_pair[leaf, np.concatenate(list(pairs))] = tails.reshape(-1, self.width)
        memory, compute, xi, psi, load_price, chi = np.split(by_pair, np.cumsum(self._parts)[:-1], axis=2)
        return LeafMultipliers(
            demand=head[:, :types],
            delay=head[:, types : 2 * types],
            error=head[:, 2 * types : 3 * types],
            budget=head[:, 3 * types],
            storage=head[:, 3 * types + 1],
            memory=memory,
            compute=compute,
            delay_adversary=xi.swapaxes(1, 2),
            error_adversary=psi.swapaxes(1, 2),
            throughput=load_price,
            load_adversary=chi.reshape(count, self.pairs, load_price.shape[2], types),
            quota=head[:, 3 * types + 2 :],
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


def check_ranges(ranges: Sequence[Sequence[int]], degrees: int, largest: float | int) -> str:
    """Say what is wrong with the options of a certificate, in words; empty where every number of replicas is held.

    Args:
      degrees: number of degrees.
      largest: most replicas that a pair of any scenario may have.
    """
    for number, option in enumerate(ranges):
        if len(option) != 3 or not all(type(part) is int for part in option):
            return f"option {number}: three whole numbers"
        if not 0 <= option[0] < degrees or not 1 <= option[1] <= option[2] < 2**53:
            return f"option {number}: a degree from 0 to {degrees - 1}, and fewest <= largest from 1 on"
    for degree in range(degrees):
        held = 0
        for first, last in sorted((o[1], o[2]) for o in ranges if o[0] == degree):
            if first > held + 1:
                break
            held = max(held, last)
        if held < max(largest, 1):
            return f"options of degree {degree} that hold 1 to {largest:g} replicas"
    return ""
