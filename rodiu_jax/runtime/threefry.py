"""Keyed random bits: Threefry as a hash of names, for NumPy and JAX arrays alike."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import numpy as np


def fold(key0: Any, key1: Any, word: Any) -> tuple[Any, Any]:
    """Threefry-2x32 with 20 rounds of the block (0, word) under a key: what `jax.random.fold_in` computes; uint32.

    Arrays of NumPy or JAX.

    Written out because jax's loops over the rounds on CPU: 4x slower here, and 20x slower to compile.
    Source: Salmon et al., Parallel random numbers: as easy as 1, 2, 3 (2011).
    """
    schedule = (key0, key1, key0 ^ key1 ^ np.uint32(0x1BD11BDA))
    x0, x1 = key0, key1 + word
    for block in range(5):
        for turn in ((13, 15, 26, 6), (17, 29, 16, 24))[block % 2]:
            x0 = x0 + x1
            x1 = x0 ^ ((x1 << np.uint32(turn)) | (x1 >> np.uint32(32 - turn)))
        x0 = x0 + schedule[(block + 1) % 3]
        x1 = x1 + schedule[(block + 2) % 3] + np.uint32(block + 1)
    return x0, x1


def hash32(name: str) -> int:
    """First four bytes of BLAKE2b of a name, as a little-endian number."""
    return int.from_bytes(blake2b(name.encode(), digest_size=4).digest(), "little")
