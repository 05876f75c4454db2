"""The former name of `rodiu_jax.catalog.readers.import_trace`, kept for one release."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from rodiu_jax.catalog.readers import Imported, import_trace
from rodiu_jax.errors import InputError

Tokens = Literal["request", "mean"]


def calibrate(
    trace: str | Path,
    *,
    query: str,
    window: float = 0.1,
    windows: int | None = None,
    base: str | Path = "seed",
    tokens: Tokens = "request",
) -> Imported:
    """Read arrival rates and token lengths of one query type: `import_trace` under its former name and defaults.

    Deprecated. Rate and lengths are drawn independently, as they were; ``import_trace`` draws them together.

    Args:
      trace, query, window, windows, base, tokens: as in `import_trace`.

    Raises:
      InputError: as in `import_trace`.

    Source: Patel et al., Splitwise, ISCA 2024 (Azure Public Dataset, CC-BY 4.0), for the format.
    """
    if tokens not in get_args(Tokens):
        raise InputError("tokens", "", " or ".join(get_args(Tokens)), tokens)
    return import_trace(trace, query=query, window=window, windows=windows, base=base, tokens=tokens)
