"""NVIDIA's performance model, the package ``aiconfigurator`` (extra ``serving``): asked case by case, answers kept.

A case is one model on one system at one pair of lengths. The package predicts operating points from kernels measured
on the GPU, or from formulas where nothing was measured; it needs no GPU and no network. An answer is kept in the user's
cache folder under the inputs it follows from and the version of the package.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import io
import json
import logging
import math
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import platformdirs

from rodiu_jax.errors import InputError, nearest
from rodiu_jax.io.files import write_whole

MODES = ("HYBRID", "SILICON", "EMPIRICAL", "SOL")
"""What predictions rest on: kernels as measured, scaled where some are missing; measured alone; fitted; the hardware's
limits alone, which no engine reaches."""

_FORMAT = 1
_LOOSE = 1e6
"""ms. A limit that filters nothing."""

_COLUMNS = {"ttft": "ttft_mean", "tpot": "tpot_mean", "request_latency": "e2e_mean"}
_FAMILIAR = ("NoFeasibleConfigError", "InsufficientMemoryError", "KVCacheCapacityError")


@dataclass(frozen=True)
class Case:
    """One question: what do replicas of ``degrees`` GPUs sustain at these lengths within these latencies?

    Attributes:
      limits: pairs (TTFT, TPOT) in ms; for each the fastest points within are found.
      version: of the backend; empty for the newest that was measured.
    """

    model: str
    system: str
    backend: str
    version: str
    mode: str
    input_tokens: int
    output_tokens: int
    degrees: tuple[int, ...]
    limits: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class OperatingPoint:
    """A replica of ``degree`` GPUs at one load: requests/s, mean latencies in ms, requests in flight."""

    degree: int
    rate: float
    latencies: dict[str, float]
    concurrency: float


@dataclass(frozen=True)
class Prediction:
    """The points that the package found for a case, and the version of its data.

    Attributes:
      fault: why there is none, in the package's words, where it does not support the case; empty otherwise. Without
        points and fault the package says that nothing keeps the limits or fits the memory.
    """

    points: tuple[OperatingPoint, ...]
    data: str
    fault: str = ""


class PerformanceModel:
    """The installed package.

    Raises:
      InputError: it is not installed.
    """

    def __init__(self) -> None:
        try:
            with _silence():
                import aiconfigurator_core  # pyright: ignore[reportMissingImports]
                from aiconfigurator.sdk.task_v2 import Task  # pyright: ignore[reportMissingImports]
        except ImportError:
            expected = "the package aiconfigurator: pip install 'rodiu-jax[serving]'"
            raise InputError("import aiconfigurator", "", expected) from None
        self._task: Any = Task
        self._folder = Path(str(aiconfigurator_core.__file__)).parent
        self.version = importlib.metadata.version("aiconfigurator")

    @property
    def models(self) -> tuple[str, ...]:
        """The models whose configuration is in the package: others would be looked up on the network."""
        found = (
            p.name.removesuffix("_config.json") for p in self._folder.glob("model_configs/*_config.json")
        )
        return tuple(sorted(n.replace("--", "/", 1) for n in found if not n.endswith("_hf_quant")))

    @property
    def systems(self) -> tuple[str, ...]:
        """The GPUs that the package describes."""
        files = self._folder.glob("systems/*.yaml")
        return tuple(sorted(p.stem for p in files if "data_dir:" in p.read_text(encoding="utf-8")))

    def model_config(self, model: str) -> Path:
        """The model's config.json as it is in the package."""
        return self._folder / "model_configs" / f"{model.replace('/', '--')}_config.json"

    def check(self, model: str, system: str) -> None:
        """Refuse what the package has no description of.

        Raises:
          InputError: no such model or system, or another case of letters.
        """
        for option, name, known in (("models", model, self.models), ("systems", system, self.systems)):
            if name not in known:
                hint = nearest(name, known)
                expected = f"one that aiconfigurator {self.version} describes{hint}: {', '.join(known)}"
                raise InputError(option, "", expected, name)

    def predict(self, case: Case) -> tuple[Prediction, bool]:
        """Answer a case, and tell whether the answer was kept from before."""
        text = json.dumps([_FORMAT, self.version, asdict(case)])
        path = predictions_folder() / f"{hashlib.sha256(text.encode()).hexdigest()}.json"
        kept = _read_kept(path)
        if kept is not None:
            return kept, True
        found = self._ask(case)
        # A cache that cannot be written is none: the answer counts all the same.
        with contextlib.suppress(OSError, InputError):
            path.parent.mkdir(parents=True, exist_ok=True)
            with write_whole(path) as temporary:
                temporary.write_text(json.dumps(asdict(found)), encoding="utf-8")
        return found, False

    def _ask(self, case: Case) -> Prediction:
        points: dict[tuple[int, float], OperatingPoint] = {}
        data, faults = case.version, []
        for ttft, tpot in case.limits:
            try:
                with _silence():
                    table = self._task(
                        serving_mode="agg",
                        model_path=case.model,
                        system_name=case.system,
                        backend_name=case.backend,
                        backend_version=case.version or None,
                        database_mode=case.mode,
                        isl=case.input_tokens,
                        osl=case.output_tokens,
                        ttft=min(ttft, _LOOSE),
                        tpot=min(tpot, _LOOSE),
                        total_gpus=max(case.degrees),
                        agg_num_gpu_candidates=list(case.degrees),
                        agg_tp_candidates=list(case.degrees),
                        agg_pp_candidates=[1],
                        agg_dp_candidates=[1],
                        pareto_sweep=False,
                    ).run()
            except Exception as error:  # whatever a package of others raises, it must not end the other cases
                # Nothing fits or keeps the limits: an answer, unless the package says that it had no data to look at.
                if type(error).__name__ not in _FAMILIAR or "perf data" in str(error):
                    faults.append(" ".join(str(error).split())[:300] or type(error).__name__)
                continue
            for row in table.to_dict("records"):
                point = _read_row(row)
                if point is not None and point.degree in case.degrees:
                    points[point.degree, point.rate] = point
                data = str(row.get("version", data))
        return Prediction(
            tuple(points[k] for k in sorted(points)), data, "" if points else "".join(faults[:1])
        )


def predictions_folder() -> Path:
    """Return the folder in which answers are kept."""
    return platformdirs.user_cache_path("rodiu", appauthor=False, opinion=False) / f"predictions-{_FORMAT}"


def _read_row(row: dict[str, Any]) -> OperatingPoint | None:
    """Read a point; None where a number is missing or no positive finite number."""
    try:
        rate, degree = float(row["seq/s"]), int(row["tp"])
        latencies = {ours: float(row[theirs]) for theirs, ours in _COLUMNS.items()}
        concurrency = float(row["concurrency"])
    except (KeyError, TypeError, ValueError):
        return None
    numbers = (rate, concurrency, *latencies.values())
    if not all(math.isfinite(x) and x > 0 for x in numbers):
        return None
    return OperatingPoint(degree, rate, latencies, concurrency)


def _read_kept(path: Path) -> Prediction | None:
    """Read an answer from before; None where there is none, or it is damaged."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        points = tuple(
            OperatingPoint(int(p["degree"]), float(p["rate"]), dict(p["latencies"]), float(p["concurrency"]))
            for p in kept["points"]
        )
        return Prediction(points, str(kept["data"]), str(kept["fault"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep the package's logs, prints and warnings away, and leave logging as it was."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            contextlib.redirect_stdout(io.StringIO()),  # not standard error, where progress is shown
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
