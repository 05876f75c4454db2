"""Functions named by their place, so that a table of names need not import what the names stand for."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any


def load_function(place: str | Callable[..., Any]) -> Callable[..., Any]:
    """Import the function at ``place``, such as ``package.module:function``; return a function as it is."""
    if callable(place):
        return place
    module, name = place.split(":")
    return getattr(import_module(module), name)
