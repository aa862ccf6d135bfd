"""What a cell leaves between attempts: whether it can go on after a stop, and what is removed once it is finished."""

import json
import re
import shutil
from pathlib import Path

from det_seg_agent.compare.cells import Cell
from det_seg_agent.compare.store import read_if_there
from det_seg_agent.files import write_json

STARTED = "started.json"  # digest of the initial weights, of the first attempt


def began(place: Path, cell: Cell) -> bool:
    """Return whether `place` holds an attempt at this very cell that was stopped, so that it may go on.

    A failed cell does not go on: it starts again.
    """
    content = read_if_there(place / "cell.json")
    if content is None or not (place / STARTED).is_file() or not (place / "run").is_dir():
        return False
    if (place / "result.json").exists() or (place / "failed.json").exists():
        return False
    try:
        return Cell(**content).key == cell.key
    except (TypeError, ValueError):
        return False


def note_weights(place: Path, digest: str) -> str:
    """Return the digest of the weights that the first attempt began with; the first one is noted."""
    path = place / STARTED
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["weights"])
    except (OSError, ValueError, KeyError):
        write_json(path, {"weights": digest})
        return digest


def restart(place: Path) -> None:
    """Remove what an attempt left that cannot go on."""
    if (place / "run").is_dir() and not (place / "run").is_symlink():
        shutil.rmtree(place / "run")
    (place / STARTED).unlink(missing_ok=True)


def elapsed(times: list[float]) -> float:
    """Return the seconds of a run whose clock began anew at every attempt: the sum of the attempts' last times."""
    ends = [a for a, b in zip(times, [*times[1:], -1.0]) if b < a]
    return sum(ends)


def prune(place: Path) -> list[str]:
    """Remove the checkpoints of a finished cell but the one that was judged; return the names of those removed.

    That is `weights/last.pt` in detection and the newest `iter_*.pth` or `epoch_*.pth` in segmentation. Only files of
    the cell's own `run` folder go; links and what is behind them stay.

    Args:
        place: folder of the cell.
    """
    run = place / "run"
    if not (place / "result.json").is_file() or not (place / "cell.json").is_file() or run.is_symlink():
        return []
    weights = run / "weights"
    found = [] if weights.is_symlink() else [p for p in weights.glob("*.pt") if p.name != "last.pt"]
    saved = sorted(run.glob("*.pth"), key=_step)
    found += saved[:-1] if saved and _step(saved[-1]) >= 0 else []
    removed = []
    for path in found:
        if path.is_file() and not path.is_symlink():
            path.unlink()
            removed.append(path.name)
    return sorted(removed)


def _step(path: Path) -> int:
    """Return the step in the name of mmengine's checkpoint; -1 if it has none, as best_mIoU_iter_8.pth."""
    found = re.fullmatch(r"(?:iter|epoch)_(\d+)\.pth", path.name)
    return int(found[1]) if found else -1
