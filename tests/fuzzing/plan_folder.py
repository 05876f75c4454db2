"""A folder of `rodiu plan` with one bad file in it: replayed and exported, or refused in a line."""

import io
import json
import shutil
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from hypothesis import strategies as st

from tests.fuzzing.mutate import NUMBERS, as_json, as_toml, mutated, spoiled
from tests.fuzzing.run import fit, rodiu
from tests.fuzzing.valid import tree

if TYPE_CHECKING:
    from tests.fuzzing.formats import Folder


def plan_folder(draw: Callable[[Any], Any], here: "Folder") -> None:
    """Keys, values, cells or bytes of a file of the folder changed."""
    folder = here / "bad-plan"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(here / "plan", folder)
    path = folder / draw(st.sampled_from(["plan.json", "alternatives.json", "catalog.toml", "scenario.npz"]))
    if draw(st.integers(0, 5)) == 0:
        path.write_bytes(draw(spoiled(path.read_bytes())))
    elif path.suffix == ".npz":
        path.write_bytes(_change_cells(draw, path.read_bytes()))
    else:
        write = as_json if path.suffix == ".json" else as_toml
        path.write_bytes(write(draw(mutated(tree(path)))))
    ran = fit(rodiu("replay", folder, "--hours", "0.0005", "--json", "--quiet"), folder, "--hours", "hours")
    if ran.code == 0:
        for row in json.loads(ran.out)["queries"]:
            assert row["requests"] == row["served"] + row["rejected"] + row["elsewhere"], row
            assert row["within"] is None or 0 <= row["within"] <= 1, row
    to = draw(st.sampled_from(["vllm", "kubernetes", "nginx", "litellm", "skypilot"]))
    fit(rodiu("export", folder, "--to", to), folder, "plan", "--model-id", "--gpu-name")


def _change_cells(draw: Callable[[Any], Any], content: bytes) -> bytes:
    with np.load(io.BytesIO(content)) as archive:
        arrays = {name: archive[name] for name in archive.files}
    numbers = sorted(name for name, values in arrays.items() if values.dtype.kind == "f" and values.size)
    for _ in range(draw(st.integers(1, 2))):
        values = arrays[draw(st.sampled_from(numbers))]
        values.flat[draw(st.integers(0, values.size - 1))] = draw(NUMBERS.filter(lambda x: abs(x) < 1e300))
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()
