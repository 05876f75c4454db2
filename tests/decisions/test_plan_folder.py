"""The folder of a plan and files of plans: what is read, and what is refused in one line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rodiu_jax as rj
from rodiu_jax.catalog import load_catalog
from rodiu_jax.decisions.plan_folder import choose_in_file, choose_in_folder, read_plan_folder
from rodiu_jax.errors import InputError


def test_a_folder_holds_the_plan_and_its_alternatives(plan_folder: Path):
    found = read_plan_folder(plan_folder)
    assert (found.instances.size, found.catalog.name) == (1, "planned")
    assert [*found.alternatives] == ["nominal", "headroom 1.2"]
    assert choose_in_folder(found, None) == found.plan
    nominal = choose_in_folder(found, "nominal")
    assert nominal == found.alternatives["nominal"].plan
    assert rj.check_plan(found.plan, found.instances, 0).feasible
    trusted = found.instances.with_fields(gamma_throughput=0.0)
    assert rj.check_plan(nominal, trusted, 0).feasible
    assert not rj.check_plan(nominal, found.instances, 0).feasible
    for chosen, plan in ((None, found.plan), ("nominal", nominal)):
        (script,) = rj.export_plan(plan_folder, "vllm", chosen=chosen).values()
        assert script.count("exec vllm serve") == sum(d.replicas for d in plan.deployments)
    with pytest.raises(InputError, match=r"deployments\[0\].gpu: got 'H100'"):
        rj.export_plan(plan_folder, "vllm", catalog="corrected")


def change_json(name: str, change: Callable[[Any], Any]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        value = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(change(value)))

    return apply


def lose(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def with_model(plans: Any) -> Any:
    plans[0]["deployments"][0]["model"] = "Qwen3-30B-A3"
    return plans


BAD: dict[str, tuple[Callable[[Path], None], str | None, str]] = {
    "no scenario": (lose("scenario.npz"), None, r"scenario.npz: expected the folder of `rodiu plan`"),
    "no plan": (lose("plan.json"), None, r"plan.json: expected the folder"),
    "two plans": (change_json("plan.json", lambda v: v * 2), None, "a list of one plan"),
    "unknown model": (change_json("plan.json", with_model), None, r"deployments\[0\].model.* mean Qwen3-30B-A3B"),
    "no alternatives": (lose("alternatives.json"), "nominal", "chosen: .*has no alternatives.json"),
    "unknown alternative": (lambda folder: None, "nominel", "did you mean nominal"),
    "alternative without words": (
        change_json("alternatives.json", lambda v: {"a": {"plan": v["nominal"]["plan"]}}),
        None,
        r"alternatives.json: a: .*what",
    ),
    "alternatives as a list": (change_json("alternatives.json", lambda v: [v]), None, "plans by name"),
    "another catalogue": (
        lambda folder: (folder / "catalog.toml").write_text('[catalog]\nname = "x"\nextends = "seed"\n'),
        None,
        "query_names: got 'Chat'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_folders_are_one_line(plan_folder: Path, tmp_path: Path, case: str):
    spoil, chosen, message = BAD[case]
    folder = shutil.copytree(plan_folder, tmp_path / "spoilt")
    spoil(folder)
    with pytest.raises(InputError, match=message) as caught:
        choose_in_folder(read_plan_folder(folder), chosen)
    assert "\n" not in str(caught.value)


def test_files_of_plans(plan_folder: Path, tmp_path: Path):
    catalog, path = load_catalog("serving"), tmp_path / "plans.json"
    found = read_plan_folder(plan_folder)
    rj.save_plans([found.plan, found.alternatives["nominal"].plan], path)
    assert choose_in_file(path, catalog, "1") == found.alternatives["nominal"].plan
    for chosen, message in ((None, "which of the 2 plans"), ("2", "from 0 to 1"), ("nominal", "from 0 to 1")):
        with pytest.raises(InputError, match=message):
            choose_in_file(path, catalog, chosen)
    with pytest.raises(InputError, match=r"gpu: got 'H100', expected one of .*mean H100_"):
        choose_in_file(path, load_catalog("seed"), "0")
    path.write_text("[]")
    with pytest.raises(InputError, match="at least one"):
        choose_in_file(path, catalog, None)
