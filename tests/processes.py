"""Which processes run, as Linux tells; one that only waits to be collected does not."""

from pathlib import Path


def runs(process: str | int) -> bool:
    """Return whether the process of an id runs."""
    return _state(Path("/proc") / str(process))[0] not in "ZX"


def list_running(group: int) -> list[int]:
    """List the ids of the processes of a group that run."""
    entries = Path("/proc").glob("[0-9]*")
    return [int(e.name) for e in entries if (found := _state(e))[0] not in "ZX" and int(found[2]) == group]


def _state(entry: Path) -> list[str]:
    """Return the state, the parent and the group of a process; as if it were gone where it is."""
    try:
        return (entry / "stat").read_text().rsplit(")", 1)[1].split()[:3]
    except (OSError, IndexError):
        return ["X", "0", "0"]
