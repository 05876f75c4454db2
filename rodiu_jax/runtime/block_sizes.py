"""How many rows each batched program takes at a time: the one table of block sizes.

A CPU wants what its caches hold, an accelerator enough rows to be busy. Another size is another compiled program, so
last bits of a row may differ, and in brackets what follows from them; nothing else depends on it.
"""

from __future__ import annotations

from typing import NamedTuple

from rodiu_jax.runtime.devices import by_device


class BlockSize(NamedTuple):
    """The rows of a block, and of the smallest block that fewer rows make.

    Where there are far fewer than ``rows``, a block has an eighth of it, or a 64th, and so on, but ``smallest`` at
    least: no device gains by less than 64. With ``smallest = rows`` a row's numbers do not depend on how many rows
    there are.
    """

    rows: int
    smallest: int = 64

    def fit(self, count: int) -> int:
        """Return the rows of a block for ``count`` rows in all."""
        rows = self.rows
        while rows % 8 == 0 and rows // 8 >= max(count, self.smallest):
            rows //= 8
        return rows


class _Entry(NamedTuple):
    """Most rows on a CPU and on an accelerator; most bytes of a block's rows, 0 where rows alone decide."""

    cpu: int
    accelerator: int
    cpu_bytes: int = 0
    accelerator_bytes: int = 0
    fixed: bool = False  # never smaller blocks for few rows
    least: int = 1  # never fewer rows, however many bytes they take
    spread: bool = False  # on a CPU, see `_spread`


_MIB = 2**20

_SIZES = {
    # Scenarios; bytes of what is drawn. Few to a block are no less alike than many: what may differ in last bits by
    # its place in a block (see "evaluate") is rounded off in every draw.
    "draw": _Entry(2**32, 2**32, 4 * _MIB, 64 * _MIB, fixed=True, spread=True),
    # (plan, scenario) pairs. On a CPU, JAX 0.11 and newer let the last bits of a row depend on its place in a
    # block of 4 or 8; in blocks of 16 and more they do not, and a row's numbers are its own.
    "evaluate": _Entry(2**13, 2**18, 32 * _MIB, 1024 * _MIB, fixed=True, least=16),
    "evaluate pairs": _Entry(512, 2**16, fixed=True),  # the same, each plan on a scenario of its own
    "stress": _Entry(2**16, 2**22),  # draws of a (plan, scenario) pair
    "stress step": _Entry(2**10, 2**18, 64 * _MIB, 256 * _MIB),  # of these, what is in memory at a time
    "bound": _Entry(256, 16_384),  # scenarios whose lower bound alone is wanted
    # scenarios or nodes of their trees, and the routings of their plans; bytes of a share per type and triple
    "bracket": _Entry(32, 4096, 2 * _MIB, 1024 * _MIB),
    "recourse": _Entry(64, 4096),  # scenarios, each with several deployments, or pairs of the two
    "coefficients": _Entry(256, 4096),  # scenarios, each with several deployments
}


def block_size(
    program: str, *, bytes_per_row: int = 0, rows_per_scenario: int = 1, count: int = 0
) -> BlockSize:
    """Return the size of a program's blocks on the devices of this process.

    Args:
      program: its name in the table.
      bytes_per_row: where the table limits bytes, those that one row takes; the size is then a power of two, but for
        draws on a CPU.
      rows_per_scenario: rows that are made of each scenario of a block, where blocks are counted in scenarios.
      count: rows in all, which decide where the table spreads few of them.
    """
    entry = _SIZES[program]
    rows = by_device(cpu=entry.cpu, accelerator=entry.accelerator) // rows_per_scenario
    if bytes_per_row:
        room = by_device(cpu=entry.cpu_bytes, accelerator=entry.accelerator_bytes)
        rows = 1 << max(min(rows, room // bytes_per_row), 1).bit_length() - 1
    rows = max(rows, -(-entry.least // rows_per_scenario))
    if entry.spread:
        rows = by_device(cpu=_spread(rows, count), accelerator=rows)
    return BlockSize(rows, rows) if entry.fixed else BlockSize(rows)


def _spread(rows: int, count: int) -> int:
    """Return the rows of a block that reads its random bits at a distance of one block, for ``count`` rows in all.

    Where one block would do it is halved: two cores draw the halves side by side. A 16th is added, as with a power of
    two all bits of a row would contend for a few places of a processor's cache.
    """
    rows = rows if count > rows else -(-rows // 2)
    return rows + rows // 16
