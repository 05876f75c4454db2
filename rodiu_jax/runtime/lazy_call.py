"""Functions and names known by their place, so that a table of them need not import what they stand for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def load_function(place: str | Callable[..., Any]) -> Callable[..., Any]:
    """Import the function at ``place``, such as ``package.module:function``; return a function as it is."""
    if callable(place):
        return place
    module, name = place.split(":")
    return getattr(import_module(module), name)


def name_loader(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """Make the ``__getattr__`` of a package whose public names are imported when they are first used.

    Args:
      modules: the module of each name.
    """

    def load_name(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(modules[name]), name)

    return load_name
