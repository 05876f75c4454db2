"""The programs that matter, with arguments of any number of rows that exist by shape alone.

Stress tests are not among them: their loops nest, and a `bench.compiled_text.Reader` knows one number of turns.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import numpy as np

from bench.inputs import make_random_plans
from rodiu_jax.catalog import draw_program, load_catalog, sampling
from rodiu_jax.model import evaluation, scenario_blocks
from rodiu_jax.model.fields import FIELD_SPECS
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import plan_arrays
from rodiu_jax.runtime.block_sizes import BlockSize, block_size
from solvers import deployments, node_programs, recourse
from solvers.dual import bounds
from solvers.effort import USUAL
from solvers.recourse_lp import Variant
from solvers.routing import THOROUGH_ITERATIONS

PLANS = 64
"""Plans that a scenario is evaluated with."""


@dataclass(frozen=True)
class Program:
    """A compiled program, and how to call it for a number of rows.

    Attributes:
      row: what a row is.
      program: jitted.
      build: rows to its arguments and, by name, its further arrays.
      block: returns the size of its blocks on the default device.
      static: what it is compiled for.
      turns: of the loop whose number of turns is data; 0 where it has none.
    """

    name: str
    row: str
    program: Any
    build: Callable[[int], tuple[tuple[Any, ...], dict[str, Any]]]
    block: Callable[[], BlockSize]
    static: dict[str, Any] = field(default_factory=dict)
    turns: int = 0


def _with_rows(tree: Any, rows: int) -> Any:
    """Replace the first axis of all arrays of a tree."""
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct((rows, *a.shape[1:]), a.dtype), tree)


def list_programs() -> list[Program]:
    """List the programs: drawing, bounding, the parts of a bracket, evaluation and recourse.

    They are those of the default catalogue, and of an accelerator if that is the default device. Call it with
    ``jax_enable_x64``.
    """
    catalog = load_catalog("seed")
    instances = sampling.sample(catalog, n=2, seed=1)
    return [
        *_list_bracket_programs(instances),
        _draw_scenarios(),
        *(_evaluate_plans(instances, count) for count in (1, PLANS)),
        _cross_deployments(instances),
    ]


def _unwrap(program: Any) -> Any:
    """Return the jitted program of settled scenarios behind one of `rodiu_jax.model.scenario_blocks.of_settled`."""
    return program.__wrapped__


def _shape_fields(instances: Instances) -> Any:
    """Return the shapes of scenarios as `rodiu_jax.model.scenario_blocks.of_settled` gives them to a program."""
    static = {"uncertainty": instances.uncertainty, "batched": instances.batched}
    return jax.eval_shape(lambda fields: scenario_blocks._settle(fields, **static), instances.fields)


def _list_bracket_programs(instances: Instances) -> list[Program]:
    fields = _shape_fields(instances)
    _, models, gpus, degrees = instances.shape
    start, _ = jax.eval_shape(lambda f: _unwrap(node_programs.cold_starts)(f, far=False), fields)
    node, root, how = USUAL.node, USUAL.root, USUAL.search
    block = partial(block_size, "bracket", bytes_per_row=8 * math.prod(instances.shape))

    def shape(rows: int, *sizes: int, kind: Any) -> Any:
        return jax.ShapeDtypeStruct((rows, *sizes), kind)

    def build_nodes(rows: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        decided = shape(rows, models * gpus, degrees, kind=np.int8)
        weight = shape(rows, kind=np.float32)
        return (_with_rows(fields, rows), decided, _with_rows(start, rows), None, weight), {
            "controls": node.controls
        }

    def build_routes(slots: int, iterations: int) -> Callable[[int], tuple[tuple[Any, ...], dict[str, Any]]]:
        return lambda rows: (
            (_with_rows(fields, rows), shape(rows, slots, kind=np.int32)),
            {"iterations": np.int32(iterations)},
        )

    def route(slots: int, iterations: int) -> Program:
        name = f"route, {slots} slots, {iterations} iterations"
        static = {"limited": False}
        build = build_routes(slots, iterations)
        return Program(
            name, "deployment", _unwrap(deployments._route_plans), build, block, static, iterations
        )

    return [
        Program(
            f"bound, {root.steps} steps",
            "scenario",
            _unwrap(bounds._value_block),
            lambda rows: ((_with_rows(fields, rows),), {"controls": root.controls}),
            partial(block_size, "bound"),
            {"reach": root.reach},
            root.steps,
        ),
        Program(
            f"node, {node.steps} steps",
            "node",
            _unwrap(node_programs.bound_nodes),
            build_nodes,
            block,
            {"reach": node.reach, "how": how},
            node.steps,
        ),
        route(4, how.iterations),
        route(how.slots, THOROUGH_ITERATIONS),
        Program(
            "neighbours",
            "deployment",
            _unwrap(deployments._neighbours),
            build_routes(how.slots, THOROUGH_ITERATIONS),
            block,
            {"how": how},
            THOROUGH_ITERATIONS,
        ),
    ]


def _draw_scenarios() -> Program:
    catalog = load_catalog("seed")
    names = [name for name in FIELD_SPECS if name in catalog.varying]
    program, params = draw_program.make_program(catalog, names)

    def build(rows: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return (params, np.zeros(2, np.uint32), jax.ShapeDtypeStruct((rows,), np.uint32)), {}

    block = partial(sampling._block_size, catalog, names, sampling._MOST_SCENARIOS)
    return Program("draw", "scenario", sampling._draw, build, block, {"program": program})


def _evaluate_plans(instances: Instances, count: int) -> Program:
    plans = plan_arrays(make_random_plans(instances, count, everywhere=True), instances)
    fields = instances.fields._asdict()

    def build(rows: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        drawn = {n: _with_rows(v, rows) if n in instances.batched else v for n, v in fields.items()}
        return (type(instances.fields)(**drawn), plans), {}

    static = {"uncertainty": instances.uncertainty, "batched": instances.batched}
    block = partial(evaluation._block_size, instances, count)
    return Program(f"evaluate {count}", "scenario", evaluation._score_crossed_block, build, block, static)


def _cross_deployments(instances: Instances) -> Program:
    fields = _shape_fields(instances)
    slots = jax.ShapeDtypeStruct((recourse._DEPLOYMENTS, 4), np.int32)

    def build(rows: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        arrays = {"slots": slots, "iterations": np.int32(recourse._FIRST_ITERATIONS)}
        return (_with_rows(fields, rows), jax.ShapeDtypeStruct((rows,), np.bool_)), arrays

    static = {"variant": Variant(sharp=False, capped=False), "limited": False}
    name, block = f"recourse {recourse._DEPLOYMENTS}", partial(block_size, "recourse")
    return Program(
        name, "scenario", _unwrap(recourse._cross), build, block, static, recourse._FIRST_ITERATIONS
    )
