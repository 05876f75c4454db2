"""Readers of what people have measured: each makes of files a catalogue that extends another.

Every value says which file it comes from, with its SHA-256, and what was done to it. What a file leaves open (a unit,
whose rate it is, on which GPU) is refused with the option that settles it, and never guessed.
"""

from rodiu_jax.catalog.readers.aiconfigurator import import_aiconfigurator
from rodiu_jax.catalog.readers.benchmark import import_benchmark
from rodiu_jax.catalog.readers.imported import Imported, Origin, Value
from rodiu_jax.catalog.readers.model_config import import_model
from rodiu_jax.catalog.readers.prices import import_prices
from rodiu_jax.catalog.readers.profile import import_profile
from rodiu_jax.catalog.readers.quality import import_quality
from rodiu_jax.catalog.readers.trace import import_trace

__all__ = [
    "Imported",
    "Origin",
    "Value",
    "import_aiconfigurator",
    "import_benchmark",
    "import_model",
    "import_prices",
    "import_profile",
    "import_quality",
    "import_trace",
]
