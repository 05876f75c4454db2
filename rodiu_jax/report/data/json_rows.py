"""Tables as JSON values."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from rodiu_jax.io.number_text import is_missing


def json_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Turn the rows of a table into JSON values; what is missing or infinite becomes null."""

    def plain(value: Any) -> Any:
        if is_missing(value) or (isinstance(value, float) and not math.isfinite(value)):
            return None
        return value.item() if isinstance(value, np.generic) else value

    return [{str(k): plain(v) for k, v in row.items()} for row in table.to_dict("records")]
