"""Catalogues as data: names, values with unit and source, and the rules by which scenarios are drawn from them."""

from rodiu_jax.catalog.load import catalog_names, load_catalog
from rodiu_jax.catalog.quantities import (
    Catalog,
    Classes,
    Comparison,
    Contradiction,
    Distribution,
    Draws,
    Entry,
    Example,
    Level,
    Measure,
    Product,
    Quantity,
    WeightedSum,
)

__all__ = [
    "Catalog",
    "Classes",
    "Comparison",
    "Contradiction",
    "Distribution",
    "Draws",
    "Entry",
    "Example",
    "Level",
    "Measure",
    "Product",
    "Quantity",
    "WeightedSum",
    "catalog_names",
    "load_catalog",
]
