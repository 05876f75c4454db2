"""Recomputing what a table claims: the one function behind ``rodiu verify``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rodiu_jax.certificates import Certificate, load_certificates, verify_rows
from rodiu_jax.errors import InputError
from rodiu_jax.io.parquet import read_frame
from rodiu_jax.model.check import check_scores
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.npz import load_instances
from rodiu_jax.model.plan import Plan
from rodiu_jax.model.plan_json import load_plans
from rodiu_jax.sweeps.verify_sweep import verify_sweep

if TYPE_CHECKING:
    import pandas as pd


def verify(
    claims: str | Path | pd.DataFrame,
    proofs: str | Path | Mapping[int, Certificate] | Sequence[Plan] | None = None,
    instances: str | Path | Instances | None = None,
) -> pd.DataFrame:
    """Recompute what a table claims, in NumPy float64, sharing no code with the solvers.

    A lower bound holds where the dual function at the stored multipliers, over leaves that cover every plan, is not
    below it; an upper bound where the independent checker accepts the stored plan at that cost.

    Args:
      claims: the folder of a sweep (best made with ``certificates``); or a table, or a Parquet file of one: that of
        ``rodiu bound``, or that of `evaluate`.
      proofs: of a table: its certificates or its plans, or the file of them (Parquet or JSON); nothing for a sweep.
      instances: of a table: the scenarios that it is about, or their .npz file; nothing for a sweep.

    Returns:
      a row per row of the claims, all of a sweep's at once (`rodiu_jax.sweeps.verify_sweep` goes part by part): ``ok``
      and ``reason`` (empty where ok); ``instance``, or ``sample`` and ``point`` of a sweep; the bounds claimed and
      recomputed in $ per period, and by what they hold.

    Raises:
      InputError: a file that cannot be read, a column that is missing, a proof about other scenarios, or an argument
        too many or too few.
    """
    import pandas as pd

    if not isinstance(claims, pd.DataFrame) and Path(claims).is_dir():
        if proofs is not None:
            raise InputError("verify", str(proofs), "nothing after the folder of a sweep")
        return pd.concat(list(verify_sweep(claims)), ignore_index=True)
    if proofs is None or instances is None:
        missing = "CERTS.parquet or PLANS.json" if proofs is None else "FILE.npz"
        raise InputError("verify", missing, "this argument, as the first is not the folder of a sweep")
    batch = instances if isinstance(instances, Instances) else load_instances(instances)
    source = "table" if isinstance(claims, pd.DataFrame) else claims
    rows = claims if isinstance(claims, pd.DataFrame) else read_frame(claims)
    if isinstance(proofs, str | Path):
        proofs = (
            load_plans(proofs, batch) if Path(proofs).suffix == ".json" else load_certificates(proofs, batch)
        )
    if isinstance(proofs, Mapping):
        return verify_rows(rows, dict(proofs), batch, source=source)
    return check_scores(rows, list(proofs), batch, source=source)
