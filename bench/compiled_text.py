"""What XLA compiled, read from the text of the program: kernels, loops, bytes and operations of one run.

XLA's own counts (``cost_analysis``) are None for a device that is described only, and count a loop's body once. Here
each loop counts as often as it turns.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

_BYTES = {
    "pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "f16": 2, "bf16": 2, "s32": 4, "u32": 4, "f32": 4, "s64": 8,
    "u64": 8, "f64": 8, "c64": 8, "c128": 16,
}  # fmt: skip

_NOTHING = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast"),
    *("after-all", "opt-barrier", "partition-id", "replica-id"),
}
"""Instructions that name buffers and start no kernel."""

_MOVES = {
    *("broadcast", "copy", "transpose", "reshape", "concatenate", "pad", "reverse", "iota"),
    *("slice", "dynamic-slice", "dynamic-update-slice", "gather", "convert", "bitcast-convert"),
    *("fusion", "call", "while", "conditional"),
}
"""Instructions of a fused kernel that compute nothing, or whose parts are counted."""

_LEAST_GRAPH = 5
"""Kernels of XLA's smallest graph (its option ``xla_gpu_graph_min_graph_size``)."""

_SLICES = frozenset({"slice", "dynamic-slice", "gather"})

_SLOW_FUNCTIONS = (
    *("exponential", "exponential-minus-one", "log", "log-plus-one", "logistic", "tanh", "cosine", "sine"),
    *("power", "cbrt", "erf", "atan2"),
)

_DEAR = {"divide": 8, "remainder": 8, "sqrt": 8, "rsqrt": 4} | dict.fromkeys(_SLOW_FUNCTIONS, 16)
"""Instructions that take several of an addition's time, and how many."""


@dataclass(frozen=True)
class Instruction:
    """One line of a program: its result, what it does, to what, and what else stands in the line."""

    name: str
    shape: str
    opcode: str
    operands: tuple[str, ...]
    rest: str
    is_root: bool
    number: str = ""  # of a parameter

    @cached_property
    def bytes_of_result(self) -> int:
        """Bytes of the result; of a tuple, of all its parts."""
        return sum(_BYTES.get(kind, 0) * count for kind, count in _list_arrays(self.shape))

    @cached_property
    def elements(self) -> int:
        """Entries of the result, of a tuple's largest part."""
        return max((count for _, count in _list_arrays(self.shape)), default=0)

    def called(self, role: str) -> str | None:
        """Return the computation that the line names as ``role``, such as ``body``."""
        found = re.search(rf"\b{role}=%?([\w.\-]+)", self.rest)
        return found[1] if found else None

    @property
    def turns(self) -> int | None:
        """How often a loop turns, where the compiler knows it."""
        found = re.search(r'"known_trip_count":\{"n":"(\d+)"\}', self.rest)
        return int(found[1]) if found else None


def _list_arrays(shape: str) -> list[tuple[str, int]]:
    """List the type and the number of entries of each array of a shape."""
    return [
        (kind, math.prod(int(d) for d in sizes.split(",") if d))
        for kind, sizes in re.findall(r"\b([a-z]+\d*)\[([\d,]*)\]", shape)
    ]


def read_program(text: str) -> tuple[dict[str, dict[str, Instruction]], str]:
    """Return the computations of a program by name, each a dict of its instructions by name, and the entry's name."""
    computations: dict[str, dict[str, Instruction]] = {}
    entry, here = "", None
    for line in text.splitlines():
        line = re.sub(r"/\*.*?\*/", "", line).rstrip()
        header = re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\{$", line)
        if header and not line.startswith(" "):
            here = computations.setdefault(header[2], {})
            entry = header[2] if header[1] else entry
        elif here is not None and (instruction := _read_line(line)):
            here[instruction.name] = instruction
    return computations, entry


def _read_line(line: str) -> Instruction | None:
    head = re.match(r"\s+(ROOT )?%?([\w.\-]+) = ", line)
    if head is None:
        return None
    rest = line[head.end() :]
    end = _close(rest, 0) if rest.startswith("(") else rest.index(" ")
    shape, rest = rest[:end], rest[end:].lstrip()
    opcode, _, _ = rest.partition("(")
    end = _close(rest, len(opcode))
    operands = re.findall(r"%([\w.\-]+)", rest[len(opcode) : end])
    inside = rest[len(opcode) + 1 : end - 1]
    number = inside if opcode == "parameter" else ""
    return Instruction(head[2], shape, opcode, tuple(operands), rest[end:], bool(head[1]), number)


def _close(text: str, start: int) -> int:
    """Return the place after the parenthesis that closes the one at ``start``."""
    depth = 0
    for place in range(start, len(text)):
        depth += (text[place] == "(") - (text[place] == ")")
        if not depth:
            return place + 1
    return len(text)


@dataclass(frozen=True)
class Kernel:
    """One start of a kernel.

    Attributes:
      traffic: bytes read and written.
      operations: by precision, in additions of it.
      resident: whether it runs inside a graph.
    """

    traffic: float
    operations: Mapping[str, float]
    resident: bool = False


@dataclass
class Run:
    """What one run of a program starts.

    Attributes:
      kernels: each with how often it is started.
      in_program: kernels in the text; those of a loop's body count once for each loop that has it.
      largest_body: kernels of the largest loop body, loops inside it with their turns.
      graphs: starts of a graph of kernels.
      loop_reads: conditions of loops that the host waits for.
    """

    kernels: list[tuple[Kernel, float]] = field(default_factory=list)
    in_program: int = 0
    largest_body: float = 0.0
    graphs: float = 0.0
    loop_reads: float = 0.0

    @property
    def started(self) -> float:
        """Kernels started in a run."""
        return sum(times for _, times in self.kernels)

    @property
    def alone(self) -> float:
        """Kernels started one by one, outside graphs."""
        return sum(times for kernel, times in self.kernels if not kernel.resident)

    @property
    def traffic(self) -> float:
        """Bytes read and written in a run."""
        return sum(kernel.traffic * times for kernel, times in self.kernels)

    def seconds(self, of_kernel: Callable[[Kernel], float], *, graph: float, loop_read: float) -> float:
        """Return the seconds of a run by those of a kernel, of a graph's start, and of a loop's read."""
        kernels = sum(of_kernel(kernel) * times for kernel, times in self.kernels)
        return kernels + graph * self.graphs + loop_read * self.loop_reads


class Reader:
    """Counts what a compiled program starts.

    XLA makes a CUDA graph of each `_LEAST_GRAPH` and more kernels that follow each other with no loop between them;
    with loops in graphs, of the whole program.

    Args:
      text: as ``compiled.as_text()`` has it.
      turns: of loops whose number of turns is data.
      loops_in_graphs: whether loops were put into graphs.
    """

    def __init__(self, text: str, turns: int, *, loops_in_graphs: bool = False) -> None:
        self._computations, self._entry = read_program(text)
        self._turns, self._whole = turns, loops_in_graphs

    def count(self) -> Run:
        """Count one run of the program."""
        run = Run(graphs=float(self._whole))
        self._walk(run, self._entry, 1.0)
        return run

    def _walk(self, run: Run, name: str, times: float) -> float:
        """Add what ``times`` runs of a computation start; return the kernels of one."""
        kernels, row = 0.0, list[Kernel]()
        for line in self._computations[name].values():
            if line.opcode in ("while", "call", "conditional"):
                self._start(run, row, times)
                row = []
                kernels += self._walk_into(run, line, times)
            elif line.opcode not in _NOTHING and not line.opcode.endswith("-done"):
                row.append(self._price(name, line))
                kernels += 1.0
        self._start(run, row, times)
        return kernels

    def _start(self, run: Run, row: list[Kernel], times: float) -> None:
        """Start kernels that follow each other, as a graph where they are enough."""
        resident = self._whole or len(row) >= _LEAST_GRAPH
        run.in_program += len(row)
        run.kernels += [(replace(kernel, resident=resident), times) for kernel in row]
        run.graphs += times if resident and not self._whole else 0.0

    def _walk_into(self, run: Run, line: Instruction, times: float) -> float:
        """Add what a line of a loop, a call or a choice starts; return its kernels."""
        if line.opcode == "call":
            return self._walk(run, line.called("to_apply") or "", times)
        if line.opcode == "conditional":  # of its branches each is as likely
            run.loop_reads += 0.0 if self._whole else times
            branches = re.findall(r"%([\w.\-]+)", line.rest.split("branch_computations={")[-1].split("}")[0])
            return sum(self._walk(run, branch, times / len(branches)) for branch in branches) / len(branches)
        known = line.turns
        turns = self._turns if known is None else known
        inside = self._walk(run, line.called("body") or "", times * turns)
        if known is None:  # otherwise nobody asks: the host counts
            inside += self._walk(run, line.called("condition") or "", times * (turns + 1))
            run.loop_reads += 0.0 if self._whole else times * (turns + 1)
        run.largest_body = max(run.largest_body, inside)
        return inside * turns

    def _price(self, name: str, line: Instruction) -> Kernel:
        """Count bytes and operations of a kernel."""
        here = self._computations[name]
        inner = self._computations.get(line.called("calls") or "", {})
        reads = [float(here[operand].bytes_of_result) for operand in line.operands]
        writes = float(line.bytes_of_result)
        arguments = [i for i in inner.values() if i.opcode == "parameter"]
        for argument in arguments:
            place = int(argument.number)
            reads[place] = min(reads[place], _count_read(inner, argument.name))
        root = next((i for i in inner.values() if i.is_root), line)
        if root.opcode == "dynamic-update-slice":  # in place
            writes = float({**here, **inner}[root.operands[1]].bytes_of_result)
        return Kernel(sum(reads) + writes, _count_operations(inner or {line.name: line}))


def _count_read(inner: Mapping[str, Instruction], name: str) -> float:
    """Count the bytes of an argument that a fused kernel reads: of one that it only slices, the slices."""
    total = 0.0
    for line in inner.values():
        if name not in line.operands or (line.opcode == "dynamic-update-slice" and line.operands[0] == name):
            continue  # what is updated in place is not read
        if line.opcode in _SLICES:
            total += line.bytes_of_result
        elif line.opcode == "bitcast":
            total += _count_read(inner, line.name)
        else:
            return math.inf
    return total


def _count_operations(lines: Mapping[str, Instruction]) -> dict[str, float]:
    """Count the operations of instructions by precision."""
    total: dict[str, float] = {}
    for line in lines.values():
        if line.opcode in _NOTHING or line.opcode in _MOVES:
            continue
        elements = line.elements
        if line.opcode.startswith("reduce") and line.operands and line.operands[0] in lines:
            elements = lines[line.operands[0]].elements
        kind = (_list_arrays(line.shape) or [("", 0)])[0][0]
        kind = kind if kind in ("f32", "f64") else "integer"
        total[kind] = total.get(kind, 0.0) + elements * _DEAR.get(line.opcode, 1)
    return total
