"""What the names of a catalogue are called elsewhere: attributes that `rodiu_jax.export` writes into files."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from rodiu_jax.catalog.file_format import Axis
from rodiu_jax.errors import InputError


@dataclass(frozen=True)
class Label:
    """One such attribute: ``[attributes.AXIS] NAME = { attribute = "..." }``.

    Attributes:
      expected: what a value must look like, in words.
    """

    axis: Axis
    attribute: str
    pattern: re.Pattern[str]
    expected: str

    def check(self, value: str, source: str | Path, field: str) -> str:
        """Return the value, or refuse it at the place where it stands.

        Raises:
          InputError: it is not of the label's form.
        """
        if not self.pattern.fullmatch(value):
            raise InputError(source, field, self.expected, value)
        return value


REPOSITORY = Label(
    "model",
    "repository",
    re.compile(r"(?:[A-Za-z0-9][\w.-]{0,95}/)?[A-Za-z0-9][\w.-]{0,95}|(?:/[\w.][\w.-]*)+", re.ASCII),
    "a Hugging Face repository such as Qwen/Qwen3-8B, or the absolute path of a folder",
)
"""Where an engine finds the weights of a model."""

PRODUCT = Label(
    "gpu",
    "product",
    re.compile(r"[A-Za-z0-9](?:[\w.-]{0,61}[A-Za-z0-9])?", re.ASCII),
    "a label of Kubernetes such as NVIDIA-H100-80GB-HBM3: at most 63 letters, digits, dots, dashes",
)
"""What NVIDIA's feature discovery writes into ``nvidia.com/gpu.product`` of a node."""

ACCELERATOR = Label(
    "gpu",
    "accelerator",
    re.compile(r"[A-Za-z0-9][\w.-]{0,62}", re.ASCII),
    "a name of SkyPilot's such as H100 or A100-80GB",
)
"""What SkyPilot calls the GPU."""

LABELS = (REPOSITORY, PRODUCT, ACCELERATOR)


def check_labels(axis: Axis, name: str, labels: dict[str, str], path: Path) -> None:
    """Refuse labels of one name that no engine or cluster would take.

    Raises:
      InputError: with file, attribute and value.
    """
    for label in LABELS:
        if label.axis == axis and label.attribute in labels:
            at = f"attributes.{axis}.{name}.{label.attribute}"
            label.check(labels[label.attribute], path, at)
