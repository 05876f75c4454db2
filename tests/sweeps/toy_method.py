"""A solving method as a stranger would add one: a function in a file of its own."""

from collections.abc import Iterator

from rodiu_jax.model.instance import Instances
from rodiu_jax.model.status import Prover, Status
from solvers.answers import Answer, Answers


def serve_nobody(instances: Instances, *, gap: float, **_: object) -> Iterator[Answers]:
    """Answer with the trivial lower bound alone; the gap asked for stands in the message."""
    nothing = Answer.of(
        instances.names, Status.UNKNOWN, lower=0.0, message=f"asked for {gap:g}", prover=Prover.OTHER
    )
    yield Answers.stack([nothing] * instances.size, names=instances.names)
