"""Methods that worker processes import: the method `fake`, and what may befall a worker."""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from rodiu_jax.errors import InputError
from rodiu_jax.sweeps import METHODS, MethodInfo
from tests.sweeps.small import fake

MARKS = "RODIU_TEST_MARKS"
"""The variable with the folder where workers leave a file each, named by their process."""


def leave_mark(instances, *, workers, **options):
    mark = Path(os.environ[MARKS]) / str(os.getpid())
    mark.write_text(f"{os.environ.get('NPROC')} {workers.workers}")
    yield from fake(instances, **options)


def prepare(instances):
    """Stands for compiling."""
    assert instances.size
    (Path(os.environ[MARKS]) / f"prepared {os.getpid()}").touch()


def die_once(instances, **options):
    """The first worker of all is killed."""
    with suppress(FileExistsError), (Path(os.environ[MARKS]) / "victim").open("x") as victim:
        victim.write(str(os.getpid()))
        victim.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    yield from leave_mark(instances, **options)


def complain(instances, **options):
    raise InputError("a file", "a field", "a number", "a word")


def answer_slowly(instances, *, workers, **options):
    workers.map(abs, [1])  # starts a process
    for answers in fake(instances, **options):
        time.sleep(0.05)
        yield answers


def beside(name: str) -> MethodInfo:
    """A function of this module as a method whose work is split."""
    return MethodInfo(name, f"{__name__}:{name}", side_by_side=True, task_rows=(4, 4))


def add_methods() -> None:
    """Name all of them in this process; its workers are told."""
    for method in (leave_mark, die_once, complain, answer_slowly):
        METHODS[method.__name__] = beside(method.__name__)
