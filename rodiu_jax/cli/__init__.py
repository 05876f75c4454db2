"""The command ``rodiu``: arguments in, calls, exit codes out; a file per group of commands.

Heavy modules are imported by the command that needs them, so that ``--help`` is instant.
"""

from rodiu_jax.cli.main import cli, main

__all__ = ["cli", "main"]
