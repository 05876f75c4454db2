"""A catalogue as one table: every number that it states or derives, with its unit, its range and its source."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rodiu_jax.catalog.load import load_catalog
from rodiu_jax.catalog.quantities import Catalog

if TYPE_CHECKING:
    import pandas as pd


def find_basis(catalog: Catalog, quantity: str, names: tuple[str, ...]) -> str:
    """Tell what a value rests on: ``measured``, ``predicted`` (by a source or a rule) or ``assumed``."""
    entry = catalog.find_entry(quantity, names)
    if entry is None:
        return catalog.quantities[quantity].basis or "predicted"
    return entry.basis or "assumed"


def describe(catalog: str | Path | Catalog = "seed") -> pd.DataFrame:
    """Tabulate a catalogue: a row for every combination of names of every quantity.

    Args:
      catalog: the name of a catalogue that comes with the package, the path of a TOML file, or a catalogue.

    Returns:
      columns ``quantity``; ``query``, ``model``, ``gpu``, ``tp`` (the names, empty where the quantity has no such
      axis); ``unit``; ``draw`` (the value or distribution, such as ``U(80, 120)``; ``derived`` where other quantities
      give it); ``low`` and ``high`` (the smallest and the largest possible value, in ``unit``); ``source``;
      ``reliability`` (1 to 5, missing where nobody judged); ``basis`` (``measured``, ``predicted`` by a rule of the
      catalogue or as the source says, ``assumed`` where nobody says); ``note``.

    Raises:
      InputError: no such catalogue, or a file that is none.
    """
    import pandas as pd

    found = catalog if isinstance(catalog, Catalog) else load_catalog(catalog)
    rows = []
    for name, quantity in found.quantities.items():
        low, high = (bound.ravel().tolist() for bound in found.ranges[name])
        for position, names in enumerate(found.names(name)):
            entry = found.find_entry(name, names)
            said = quantity if entry is None else entry
            rows.append(
                {
                    "quantity": name,
                    **dict.fromkeys(("query", "model", "gpu", "tp"), ""),
                    **dict(zip(quantity.over, names, strict=True)),
                    "unit": quantity.unit,
                    "draw": "derived" if entry is None else str(entry.distribution),
                    "low": low[position],
                    "high": high[position],
                    "source": said.source or quantity.source,
                    "reliability": said.reliability,
                    "basis": find_basis(found, name, names),
                    "note": said.note,
                }
            )
    return pd.DataFrame(rows).astype({"reliability": "Int64"})
