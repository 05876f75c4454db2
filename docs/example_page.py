"""Make the page that README and ``docs/analyses.md`` speak of: ``python docs/example_page.py FILE.html [SAMPLES]``.

It runs the preset ``gpu-cost-error`` (64 samples by default: eight minutes on two cores) in a temporary folder and
writes its page, one file that opens offline. The page is made, not versioned: it is 5,000 generated lines.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import rodiu_jax as rj


def write(page: Path, samples: int) -> None:
    """Write the page of ``gpu-cost-error`` at ``samples`` scenarios a point."""
    with tempfile.TemporaryDirectory() as folder:
        rj.sweep("gpu-cost-error", Path(folder) / "sweep", samples=samples)
        rj.write_report(Path(folder) / "sweep", page=page)


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3) or not all(number.isdigit() for number in sys.argv[2:]):
        sys.exit("usage: python docs/example_page.py FILE.html [SAMPLES]")
    write(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) == 3 else 64)
