"""Scenarios from an ``.npz`` file that anyone may have written: bounded and validated.

No JAX here: solver processes load this module and must start fast.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import BinaryIO

import numpy as np

from rodiu_jax.errors import InputError, nearest
from rodiu_jax.io.files import MOST_BYTES, open_file, size_text
from rodiu_jax.model.fields import FILE_FIELDS, NAME_FIELDS
from rodiu_jax.model.instance import Instances, make_instances

_MOST_TIMES = 1000
"""An archive may unpack to this many times its length, or to `MOST_BYTES`, whichever is more."""


def _unpacked(stream: BinaryIO, path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of an archive: the names are looked at, and how much it is, before anything is unpacked."""
    known = {f"{n}.npy": n for n in (*FILE_FIELDS, *NAME_FIELDS, "gpu_devices", "uncertainty")}
    most = max(MOST_BYTES, _MOST_TIMES * stream.seek(0, 2))
    stream.seek(0)
    if stream.read(6) == b"\x93NUMPY":
        raise InputError(path, "", "an .npz archive, not a single array")
    values: dict[str, np.ndarray] = {}
    with zipfile.ZipFile(stream) as archive:
        members = archive.infolist()
        for m in members:
            if m.filename not in known:
                hint = nearest(m.filename.removesuffix(".npy"), known.values())
                expected = f"only the fields {', '.join(known.values())}{hint}"
                raise InputError(path, m.filename.removesuffix(".npy"), expected)
        if sum(m.file_size for m in members) > most:
            raise InputError(path, "", f"an archive that unpacks to at most {size_text(most)}")
        for m in members:
            name = known[m.filename]
            if name in values:
                raise InputError(path, name, "each field once")
            with archive.open(m) as file:
                values[name] = np.lib.format.read_array(file, allow_pickle=False)
                if file.read(1):  # the end is also where the checksum is compared
                    raise InputError(path, name, "an array, and nothing after it")
    return values


def load_instances(path: str | Path) -> Instances:
    """Read and validate an ``.npz`` of instances (MODEL section 8), whoever wrote it.

    Raises:
      InputError: as `make_instances`, or the file is missing, damaged or holds pickled objects.
    """
    try:
        with open_file(path) as stream:
            values = _unpacked(stream, path)
    except InputError:
        raise
    except OSError as error:
        raise InputError(path, "", f"a readable .npz file ({error.strerror or 'damaged'})") from None
    except Exception as error:  # zlib.error and whatever else a damaged archive raises
        said = " ".join(str(error).split()) or type(error).__name__
        raise InputError(path, "", f"a whole .npz file without pickled objects ({said})") from None
    texts: dict[str, np.ndarray] = {}
    for n in (*NAME_FIELDS, "gpu_devices", "uncertainty"):
        if n == "gpu_devices" and n not in values:
            continue
        if n not in values:
            raise InputError(path, n, "this field, which is missing")
        texts[n] = values.pop(n)
        axes = 0 if n == "uncertainty" else 1
        if texts[n].dtype.kind != "U" or texts[n].ndim != axes:
            kind = "one text" if axes == 0 else "a list of texts"
            raise InputError(path, n, kind, f"{texts[n].dtype} array of shape {texts[n].shape}")
    mode = str(texts["uncertainty"])
    queries, models, gpus = (texts[n].tolist() for n in NAME_FIELDS)
    devices = texts["gpu_devices"].tolist() if "gpu_devices" in texts else None
    return make_instances(queries, models, gpus, mode, values, gpu_devices=devices, source=path)
