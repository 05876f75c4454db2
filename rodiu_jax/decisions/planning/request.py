"""What a planner asks for: traffic, prices, quotas, promises; and how the numbers with units are read."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from rodiu_jax.errors import InputError, nearest

SOURCE = "plan"
"""What errors name as the origin: the command turns the argument that they name into its option."""

Level = Literal["mean", "p50", "p90", "p95", "p99", "peak"]
LEVELS: tuple[str, ...] = get_args(Level)

_NUMBER = r"(\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+)"
_PRICE = re.compile(rf"\$?\s*{_NUMBER}\s*/\s*([Mk])\s*tok(?:en)?s?")
_RATE = re.compile(rf"{_NUMBER}\s*(?:/\s*(s|min|h))?")
_SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0}


@dataclass(frozen=True)
class PlanRequest:
    """What is to be planned for; `rodiu_jax.decisions.planning.plan.plan_fleet` says what each argument means.

    Attributes:
      rates: queries/s by query type; ``users``: concurrent users by query type.
      api_prices: $ per million tokens by query type; under the empty name for all others.
      headroom: the fleet is bought for so many times the traffic; 1 where robust rates take its place.
    """

    catalog: str | Path
    traces: Mapping[str, str | Path] = field(default_factory=dict)
    rates: Mapping[str, float] = field(default_factory=dict)
    users: Mapping[str, float] = field(default_factory=dict)
    think_seconds: float = 60.0
    traffic_at: Level = "p95"
    timezone: str = "UTC"
    columns: str | None = None
    unit: Literal["s", "ms"] | None = None
    prices: str | Path | None = None
    price_map: str | None = None
    quotas: Mapping[str, int] = field(default_factory=dict)
    promises: Mapping[str, str] = field(default_factory=dict)
    api_prices: Mapping[str, float] = field(default_factory=dict)
    headroom: float | None = None
    shortfall: float | None = None
    gamma: float | None = None

    def __post_init__(self) -> None:
        """Refuse what contradicts itself, whatever the catalogue holds."""
        if self.traffic_at not in LEVELS:
            raise InputError(SOURCE, "traffic_at", " or ".join(LEVELS), self.traffic_at)
        if self.headroom is not None:
            require_number(self.headroom, "headroom", "a factor >= 1 on the traffic", least=1.0)
            for name in ("shortfall", "gamma"):
                if getattr(self, name) is not None:
                    expected = f"either --headroom or --{name}: headroom trusts every rate"
                    raise InputError(SOURCE, name, expected, getattr(self, name))
        if self.shortfall is not None:
            require_number(self.shortfall, "shortfall", "a share of the rates from 0 to 0.99", most=0.99)
        if self.gamma is not None:
            require_number(self.gamma, "gamma", "a number of query types >= 0")
        require_number(self.think_seconds, "think_seconds", "seconds above 0", above=True)
        for name, needed in (("price_map", "prices"), ("columns", "traces"), ("unit", "traces")):
            if getattr(self, name) is not None and not getattr(self, needed):
                option = "--trace" if needed == "traces" else "--prices"
                raise InputError(SOURCE, name, f"{option} too: it says how that is read", getattr(self, name))
        named = [*self.traces, *self.rates, *self.users]
        doubled = next((name for name in named if named.count(name) > 1), None)
        if doubled is not None:
            expected = "the traffic of a query type once, by --trace, --rate or --users"
            raise InputError(SOURCE, "rates", expected, doubled)

    @property
    def named(self) -> tuple[str, ...]:
        """The query types whose traffic is given."""
        return (*self.traces, *self.rates, *self.users)

    @property
    def files(self) -> tuple[str | Path, ...]:
        """The files that are asked about: catalogue (or its name), traces, prices."""
        return (self.catalog, *self.traces.values(), *(() if self.prices is None else (self.prices,)))


def require_number(
    value: object, name: str, expected: str, *, least: float = 0.0, most: float = 1e12, above: bool = False
) -> float:
    """Return a number from ``least`` (itself not, where ``above``) to ``most``, or refuse the argument ``name``."""
    number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    if not (least <= number <= most) or (above and number == least):
        raise InputError(SOURCE, name, expected, value)
    return number


def read_rate(value: str | float, name: str) -> float:
    """Read a rate as queries/s: a number, or text such as ``20``, ``20/s``, ``1200/min`` or ``72000/h``.

    Raises:
      InputError: another unit, or a rate that is not above 0.
    """
    expected = "queries a second above 0, or a number with /s, /min or /h; a type without traffic is left out"
    if isinstance(value, str):
        found = _RATE.fullmatch(value.strip())
        if found is None:
            raise InputError(SOURCE, "rates", expected, f"{name}={value}")
        value = float(found[1]) / _SECONDS[found[2] or "s"]
    return require_number(value, "rates", expected, above=True, most=1e9)


def read_price(value: str | float) -> float:
    """Read a price of tokens as $ per million of them: a number, or text such as ``$3/Mtok`` or ``$0.003/ktok``.

    Raises:
      InputError: no unit or another one, or a price that is not a number >= 0.
    """
    expected = "a price of input and output tokens such as $3/Mtok or $0.003/ktok"
    if isinstance(value, str):
        found = _PRICE.fullmatch(value.strip())
        if found is None:
            raise InputError(SOURCE, "api_prices", expected, value)
        value = float(found[1]) * (1000.0 if found[2] == "k" else 1.0)
    return require_number(value, "api_prices", expected, most=1e9)


def read_quota(value: str | int, name: str) -> int:
    """Read a number of GPUs.

    Raises:
      InputError: no whole number >= 0.
    """
    text = str(value).strip()
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise InputError(SOURCE, "quotas", "a whole number of GPUs >= 0", f"{name}={value}")
    return int(text)


def read_count(value: str | float, name: str) -> float:
    """Read a number of users.

    Raises:
      InputError: no number above 0.
    """
    expected = "a number of users above 0; a type without users is left out"
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 < number <= 1e12:
        raise InputError(SOURCE, "users", expected, f"{name}={value}")
    return number


def require_known(name: str, known: tuple[str, ...], argument: str, word: str) -> str:
    """Return a name of the catalogue, or refuse it with the nearest one."""
    if name not in known:
        expected = f"a {word} of the catalogue: {', '.join(known)}{nearest(name, known)}"
        raise InputError(SOURCE, argument, expected, name)
    return name
