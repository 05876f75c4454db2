"""How a sweep was made: ``manifest.json`` in its folder, with a record for each run."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from rodiu_jax.io.files import read_json, write_text
from rodiu_jax.io.strict_table import input_error

_PACKAGES = ("rodiu-jax", "jax", "numpy", "highspy", "pyarrow")


class RunRecord(BaseModel):
    """One run of a sweep; what a file lacks is unknown."""

    model_config = ConfigDict(extra="allow", strict=True)

    started: str | None = None
    versions: dict[str, str] = {}
    python: str | None = None
    platform: str | None = None
    precision: str | None = None
    devices: list[str] = []
    method_chosen: str | None = None
    method_reason: str | None = None


class Manifest(BaseModel):
    """The catalogue that a sweep was made from, its digest, and a record for each run; a resumed sweep has several."""

    model_config = ConfigDict(extra="allow", strict=True)

    catalog: str | None = None
    catalog_sha256: str | None = None
    runs: list[RunRecord] = []

    def write(self, folder: Path) -> None:
        """Write the file, whole or not at all."""
        write_text(folder / "manifest.json", self.model_dump_json(indent=1, exclude_unset=True) + "\n")


def read_manifest(folder: Path) -> Manifest:
    """Read how the sweep in ``folder`` was made.

    Raises:
      InputError: no such file, or it is not of this form.
    """
    path = folder / "manifest.json"
    try:
        return Manifest.model_validate(read_json(path))
    except ValidationError as error:
        raise input_error(error, path) from None


def begin_run(folder: Path, catalog: str, digest: str) -> None:
    """Record that a run of the sweep in ``folder`` begins now."""
    runs = read_manifest(folder).runs if (folder / "manifest.json").exists() else []
    run = RunRecord(
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        versions={name: version(name) for name in _PACKAGES},
        python=platform.python_version(),
        platform=platform.platform(),
        precision="float64; ascent of lower bounds float32, their certificates float64",
        devices=[],
    )
    Manifest(catalog=catalog, catalog_sha256=digest, runs=[*runs, run]).write(folder)


def note_method(folder: Path, method: str, reason: str) -> None:
    """Say in the manifest which method was chosen for the present run, and why."""
    made = read_manifest(folder)
    made.runs[-1].method_chosen, made.runs[-1].method_reason = method, reason
    made.write(folder)


def note_devices(folder: Path, kinds: list[str]) -> None:
    """Say in the manifest which devices the present run computes on."""
    made = read_manifest(folder)
    made.runs[-1].devices = kinds
    made.write(folder)
