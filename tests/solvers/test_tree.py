"""Search trees: open nodes keep their order and all that they hold, whatever rows of the table they have."""

import math

import jax
import numpy as np

from solvers.dual import Multipliers
from solvers.tree import Nodes, Tree, keep_better

PAIRS, DEGREES, ROUNDS = 3, 2, 6


def make_nodes(scenario: list[int], rng: np.random.Generator) -> Nodes:
    size = len(scenario)

    def draw(*shape: int) -> np.ndarray:
        return rng.random((size, *shape), np.float32)

    scalar, by_type, by_triple = draw(), draw(2), draw(PAIRS, DEGREES)
    by_pair = draw(2, PAIRS)
    multipliers = Multipliers(
        by_type, by_type + 1, by_type + 2, scalar, scalar + 1, by_triple, by_triple + 1, by_pair, by_pair + 1
    )
    decided = np.zeros((size, PAIRS, DEGREES), np.int8)
    path = np.zeros((size, ROUNDS), np.int32)
    return Nodes(np.array(scenario), rng.random(size), decided, draw(PAIRS, DEGREES), path, multipliers)


def hold_same(one: Nodes, other: Nodes) -> bool:
    return all(map(np.array_equal, jax.tree.leaves(one), jax.tree.leaves(other)))


def test_open_nodes_keep_their_order_and_what_they_hold():
    """A list of single nodes does the same: others first in their order, then children; closed ones are gone."""
    rng = np.random.default_rng(0)
    roots = make_nodes([0, 1, 2, 3], rng)
    expected = [roots.take(np.array([b])) for b in range(4)]
    tree = Tree(roots, 10, keep_leaves=True)
    closed = 0
    for number in range(4):
        places = np.sort(rng.choice(len(expected), len(expected) // 2, replace=False))
        children = tree.split(places)._replace(bound=rng.random(2 * len(places)))
        expected = [node for place, node in enumerate(expected) if place not in places]
        expected += [children.take(np.array([r])) for r in range(len(children.bound))]
        tree.replace(places, children, 5)
        done = rng.random(len(expected)) < (
            0.5 if number == 1 else 0.1
        )  # rows become free, and are used again
        tree.close(done)
        closed += int(done.sum())
        expected = [node for node, over in zip(expected, done, strict=True) if not over]
        assert len(tree.bound) == len(expected)
        for place, node in enumerate(expected):
            assert hold_same(tree.take(np.array([place])), node), (number, place)
    assert closed, "or nothing was tested"
    assert len(tree.bound) > 4, "more than the table had at first"
    leaves = tree.leaves()
    assert leaves is not None
    assert len(leaves.path) == closed


def test_children_have_a_triple_deployed_or_not():
    nodes = make_nodes([0, 1], np.random.default_rng(1))
    nodes.promise[:] = 0.0
    nodes.promise[0, 2, 1] = nodes.promise[1, 0, 0] = 1.0
    children = Tree(nodes, 1, keep_leaves=False).split(np.array([1, 0]))
    assert children.scenario.tolist() == [1, 1, 0, 0]
    assert children.decided[:, 0].tolist() == [[1, -1], [-1, 0], [0, 0], [0, 0]]
    assert children.decided[:, 2].tolist() == [[0, 0], [0, 0], [-1, 1], [0, -1]]
    assert children.path[:, 0].tolist() == [1, -1, 6, -6]


def test_a_child_has_the_better_of_both_bounds_with_what_proves_it():
    rng = np.random.default_rng(2)
    parents, children = make_nodes([0, 0, 0], rng), make_nodes([0, 0, 0], rng)
    parents = parents._replace(bound=np.array([1.0, 2.0, 3.0]))
    children = children._replace(bound=np.array([2.0, 1.0, math.nan]))
    own = children.take(np.arange(3))
    keep_better(parents, children)
    assert children.bound.tolist() == [2.0, 2.0, 3.0]
    assert np.array_equal(children.multipliers.memory[0], own.multipliers.memory[0])
    assert np.array_equal(children.multipliers.memory[1:], parents.multipliers.memory[1:])
    assert np.array_equal(children.promise, own.promise)
