"""What models and GPUs are called elsewhere: in the catalogue `serving`, in catalogues that extend it, and wrongly."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

import rodiu_jax as rj
from rodiu_jax.catalog.labels import LABELS
from rodiu_jax.errors import InputError
from tests.catalog.test_serving_catalog import FACTS

HEAD = '[catalog]\nname = "mine"\nextends = "serving"\n'


def test_serving_knows_them_all():
    catalog = rj.load_catalog("serving")
    facts, written = (tomllib.loads(p.read_text(encoding="utf-8")) for p in (FACTS, catalog.path))
    assert written["attributes"] == facts["attributes"]
    for label in LABELS:
        found = [catalog.label(label.axis, name, label.attribute) for name in catalog.sets[label.axis]]
        assert all(found), label.attribute
        assert len(set(found)) == len(found)
    assert catalog.label("model", "Llama-3.1-8B", "repository") == "meta-llama/Llama-3.1-8B-Instruct"
    assert catalog.label("model", "Llama-3.1-8B", "licence") is None


def test_a_file_may_say_it_otherwise(tmp_path: Path):
    path = tmp_path / "mine.toml"
    path.write_text(HEAD + '[attributes.model]\nQwen3-8B = { repository = "/models/qwen" }\n')
    catalog = rj.load_catalog(path)
    assert catalog.label("model", "Qwen3-8B", "repository") == "/models/qwen"
    assert catalog.label("model", "Qwen3-32B", "repository") == "Qwen/Qwen3-32B"


def test_a_model_that_is_like_another_is_not_called_so(tmp_path: Path):
    """Its values are assumed to be those of the other; its weights are its own."""
    config = Path(__file__).parents[1] / "data/field/config-qwen2.5-7b-instruct.json"
    found = rj.import_model(config, name="Mine", base="serving", like="model=Qwen3-8B")
    found.save(tmp_path / "mine.toml")
    catalog = rj.load_catalog(tmp_path / "mine.toml")
    assert "Mine" in catalog.sets["model"]
    assert catalog.label("model", "Mine", "repository") is None
    plan = rj.Plan(None, (rj.DeployedPair("Mine", "H100", 1),), (), {})
    with pytest.raises(InputError, match=r"--model-id Mine=\.\.\."):
        rj.export_plan(plan, "vllm", catalog=catalog)


@pytest.mark.parametrize(
    ("axis", "name", "label", "value"),
    [
        ("model", "Qwen3-8B", "repository", "--flag"),
        ("model", "Qwen3-8B", "repository", "a/b/c"),
        ("model", "Qwen3-8B", "repository", "a b"),
        ("gpu", "H100", "product", "NVIDIA H100"),
        ("gpu", "H100", "product", "x" * 64),
        ("gpu", "H100", "accelerator", "H100:8"),
        ("gpu", "H100", "accelerator", ""),
    ],
)
def test_what_nobody_would_take_is_refused(tmp_path: Path, axis: str, name: str, label: str, value: str):
    path = tmp_path / "mine.toml"
    path.write_text(HEAD + f'[attributes.{axis}]\n{name} = {{ {label} = "{value}" }}\n')
    with pytest.raises(InputError, match=rf"attributes\.{axis}\.{name}\.{label}: ") as caught:
        rj.load_catalog(path)
    assert "\n" not in str(caught.value)
