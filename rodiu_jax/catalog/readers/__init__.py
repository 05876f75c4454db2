"""Readers of what people have measured: each makes of files a catalogue that extends another.

Every value says which file it comes from, with its SHA-256, and what was done to it. What a file leaves open (a unit,
whose rate it is, on which GPU) is refused with the option that settles it, and never guessed.
"""

from rodiu_jax.catalog.readers.imported import Imported, Origin, Value
from rodiu_jax.catalog.readers.trace import import_trace

__all__ = [
    "Imported",
    "Origin",
    "Value",
    "import_trace",
]
