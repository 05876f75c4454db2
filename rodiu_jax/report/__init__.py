"""What people look at: tables in the terminal, figures and summaries of a sweep."""

from __future__ import annotations

from pathlib import Path


def write_report(folder: str | Path) -> list[Path]:
    """Write ``summary.csv`` (a row per point) and ``figures/*.png``, ``*.svg`` beside the rows of a sweep.

    Works on an unfinished sweep too: the pictures say how many samples they show and grey what is missing.

    Args:
      folder: of the sweep.

    Returns:
      The files written.

    Raises:
      InputError: no sweep in the folder, a damaged part, or the folder cannot be written.
      WorkFailed: the sweep has no rows yet.
    """
    from rodiu_jax.errors import InputError, WorkFailed
    from rodiu_jax.files import write_text, write_whole
    from rodiu_jax.report.heatmap import figures
    from rodiu_jax.report.outputs import axes_of
    from rodiu_jax.report.summary import by_point
    from rodiu_jax.sweeps.store import read_rows, read_spec

    folder = Path(folder)
    spec, frame = read_spec(folder), read_rows(folder)
    if frame.empty:
        raise WorkFailed(f"{folder}: no rows yet; go on with `rodiu sweep --resume`")
    axes = axes_of(spec)
    written = [folder / "summary.csv"]
    write_text(written[0], by_point(frame, axes).to_csv(index=False))
    pictures = folder / "figures"
    try:
        pictures.mkdir(exist_ok=True)
    except OSError as error:
        raise InputError(pictures, "", f"a folder that can be written ({error.strerror})") from None
    for name, figure in figures(frame, axes, title=spec.title):
        for kind in ("png", "svg"):
            path = pictures / f"{name}.{kind}"
            with write_whole(path) as temporary:
                figure.savefig(
                    temporary, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None
                )
            written.append(path)
    return written
