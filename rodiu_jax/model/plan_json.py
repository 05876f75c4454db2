"""Plans as JSON (MODEL section 8): read strictly, checked against the names of the scenarios, and written.

Only this module of the model needs pydantic: solver processes, which hold plans and read none, do not load it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, ValidationError, ValidationInfo

from rodiu_jax.errors import InputError
from rodiu_jax.io.files import read_json, write_text
from rodiu_jax.io.strict_table import StrictTable, input_error, wrong
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import DeployedPair, Plan, Route, validate_plan

_LARGEST_SHARE = 1e6
"""Above 1 a share is a broken demand, which the verdict says; this far above it is no share at all."""


def _check_share(value: Any) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= value <= _LARGEST_SHARE:
        raise wrong(f"a finite number from 0 to {_LARGEST_SHARE:g} (a share)", value)
    return float(value)


def _check_whole(value: Any) -> int:
    # pydantic's own integers end at 64 bits, with words about parsing
    if isinstance(value, bool) or not isinstance(value, int):
        raise wrong("a whole number", value)
    return value


def _check_scenario(value: Any, info: ValidationInfo) -> int | None:
    """Accept null, or the number of one of the ``info.context`` scenarios; any number where their count is None."""
    count: Any = info.context
    whole = isinstance(value, int) and not isinstance(value, bool)
    if value is not None and not (whole and value >= 0 and (count is None or value < count)):
        expected = "null or a whole number " + (">= 0" if count is None else f"from 0 to {count - 1}")
        raise wrong(expected, value)
    return value


_Share = Annotated[Any, BeforeValidator(_check_share)]
_Whole = Annotated[Any, BeforeValidator(_check_whole)]


class _Object(StrictTable):
    noun = "an object"


class _PairObject(_Object):
    """A deployed pair."""

    model: str
    gpu: str
    tp: _Whole
    replicas: _Whole = 1


class _RouteObject(_Object):
    query: str
    model: str
    gpu: str
    share: _Share


class _PlanObject(_Object):
    instance: Annotated[Any, BeforeValidator(_check_scenario)]
    deployments: list[_PairObject]
    routes: list[_RouteObject]
    unmet: dict[str, _Share]


def plan_from_json(
    value: Any, instances: Instances, *, source: str | Path = "plan", path: str = "plan"
) -> Plan:
    """Read one JSON plan and validate it against the names and degrees of ``instances``.

    Args:
      path: of the plan inside ``source``.

    Raises:
      InputError: missing or unknown key, wrong type, no such scenario, a share out of range, or as `validate_plan`.
    """
    plan = read_plan(value, scenarios=instances.size, source=source, path=path)
    validate_plan(plan, instances, source=source, path=path)
    return plan


def read_plan(
    value: Any, *, scenarios: int | None = None, source: str | Path = "plan", path: str = "plan"
) -> Plan:
    """Read one JSON plan without looking at its names; `rodiu_jax.model.plan.validate_names` does.

    Args:
      scenarios: how many there are; None where nobody knows.
      path: of the plan inside ``source``.

    Raises:
      InputError: missing or unknown key, wrong type, no such scenario, or a share out of range.
    """
    try:
        read = _PlanObject.model_validate(value, context=scenarios)
    except ValidationError as error:
        raise input_error(error, source, inside=path) from None
    pairs = tuple(DeployedPair(pair.model, pair.gpu, pair.tp, pair.replicas) for pair in read.deployments)
    routes = tuple(Route(route.query, route.model, route.gpu, route.share) for route in read.routes)
    return Plan(read.instance, pairs, routes, read.unmet)


def load_plans(path: str | Path, instances: Instances) -> list[Plan]:
    """Read a JSON list of plans and validate each against ``instances``.

    Raises:
      InputError: as `plan_from_json`, or the file is not a JSON list.
    """
    items = read_json(path)
    if not isinstance(items, list):
        raise InputError(path, "", "a JSON list of plans", items)
    for p, item in enumerate(items):
        if isinstance(item, dict) and "plan" in item:
            hint = "this looks like the output of `rodiu solve --json`: use `rodiu solve --plans`"
            raise InputError(path, f"[{p}]", f"a plan; {hint}")
    return [plan_from_json(item, instances, source=path, path=f"[{p}]") for p, item in enumerate(items)]


def save_plans(plans: Iterable[Plan], path: str | Path) -> None:
    """Write plans as the JSON list that `load_plans` reads."""
    write_text(path, json.dumps([p.to_json() for p in plans], indent=1, allow_nan=False) + "\n")


def read_plan_texts(path: str) -> tuple[str, ...]:
    """Read the plans of a JSON file, one text each, without a look inside.

    Raises:
      InputError: no list of at least one plan.
    """
    items = read_json(path)
    if not isinstance(items, list) or not items:
        raise InputError(path, "", "a list of at least one plan")
    return tuple(json.dumps(item, ensure_ascii=False) for item in items)


def parse_plans(texts: Sequence[str], instances: Instances, source: str = "sweep") -> list[Plan]:
    """Read the plans of a sweep's spec, each meant for every scenario whatever its ``instance`` says.

    Raises:
      InputError: as `plan_from_json`.
    """
    items = [json.loads(text) for text in texts]
    everywhere = [item | {"instance": None} if isinstance(item, dict) else item for item in items]
    return [
        plan_from_json(item, instances, source=source, path=f"plans[{p}]")
        for p, item in enumerate(everywhere)
    ]
