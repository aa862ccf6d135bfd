"""Atomic writing of the host's checkpoints, and the choice of the one to resume from. `AgentHook` uses it."""

import itertools
import zipfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.model import is_model_wrapper

from det_seg_agent.errors import StateError
from det_seg_agent.files import replacing
from det_seg_agent.messages import LOGGER

BACKEND = "det_seg_agent"
OWNERS = itertools.count()
STALE: defaultdict[int, set[Path]] = defaultdict(set)


class WholeFiles(LocalBackend):
    """mmengine's local file backend with atomic writes, and removals deferred until the next file is written.

    The host (`CheckpointHook._save_checkpoint_with_step`) removes an old checkpoint before it writes the new one, and
    writes in place. With `max_keep_ckpts=1`, a process killed in between would leave no checkpoint.

    Args:
        owner: id of the writing hook. The host creates an instance for every call; those of one owner share their
            deferred removals.
    """

    def __init__(self, owner: int = -1):
        self._stale = STALE[owner]

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write a file atomically, then perform the deferred removals."""
        path = Path(filepath)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part:
            part.write_bytes(obj)
        for old in self._stale - {path.absolute()}:
            old.unlink(missing_ok=True)
        self._stale.clear()

    def remove(self, filepath: str | Path) -> None:
        """Remove a file after the next one is written."""
        self._stale.add(Path(filepath).absolute())


register_backend(BACKEND, WholeFiles, force=True)


def write_whole(runner: Any) -> None:
    """Make the runner's `CheckpointHook`s write by `WholeFiles`, unless they have a backend or a remote folder."""
    for hook in runner.hooks:
        if isinstance(hook, CheckpointHook) and not hook.backend_args and not hook.file_client_args:
            local = "://" not in str(hook.out_dir or runner.work_dir)
            hook.backend_args = {"backend": BACKEND, "owner": next(OWNERS)} if local else None


def is_whole(path: Path) -> bool:
    """Return whether a checkpoint exists and is not truncated: a zip archive has its directory at the end."""
    return path.is_file() and zipfile.is_zipfile(path)


def choose_checkpoint(runner: Any) -> None:
    """If a run resumes from the latest checkpoint, make sure that `last_checkpoint` names a readable one.

    The host writes that file after the checkpoint, in place, and does not check that the checkpoint exists when it
    reads the file (`mmengine.runner.find_latest_checkpoint`). Only rank 0 works; call it inside `together`, where the
    other ranks wait.

    Raises:
        StateError: if `last_checkpoint` or `load_from` names an unusable checkpoint and there is no replacement.
    """
    if not runner._resume:
        return
    if runner._load_from is not None:
        given = Path(str(runner._load_from))
        if given.is_file() and not is_whole(given):
            raise StateError(f"load_from={given}: the checkpoint is cut short. {_remedy(given.parent, given)}")
        return
    if not is_main_process():
        return
    note = Path(runner.work_dir) / "last_checkpoint"
    text = note.read_text(encoding="utf-8").strip() if note.is_file() else ""
    named = Path(text) if text else None
    if named is not None and ("://" in text or is_whole(named)):
        return
    newest = newest_whole(Path(runner.work_dir), named)
    if newest is None and named is not None:
        raise StateError(
            f"{note} names {named}, which is {'cut short' if named.exists() else 'not there'}, and no other checkpoint "
            "lies beside it. Start a new run without --resume, or put a checkpoint there."
        )
    if newest is not None:
        LOGGER.warning(f"{note} names {named or 'nothing'}, which cannot be read; the run goes on from {newest}.")
        with replacing(note) as part:
            part.write_text(str(newest), encoding="utf-8")


def newest_whole(work_dir: Path, named: Path | None) -> Path | None:
    """Return the newest complete checkpoint in the work dir or beside the named one; None if there is none."""
    folders = {work_dir, *([named.parent] if named is not None else [])}
    found = [path for folder in folders for kind in ("iter", "epoch") for path in folder.glob(f"{kind}_*.pth")]
    whole = [path for path in found if is_whole(path)]
    return max(whole, key=lambda path: path.stat().st_mtime_ns, default=None)


def _remedy(folder: Path, broken: Path) -> str:
    other = newest_whole(folder, None)
    return "Start a new run." if other is None else f"Resume from {other} instead, the newest that is whole."


def bare(model: Any) -> Any:
    """Return the model inside its distributed wrapper, if there is one."""
    return model.module if is_model_wrapper(model) else model


def checkpoint_due(runner: Any) -> bool:
    """Return whether a `CheckpointHook` saves after this iteration."""
    last = runner.iter + 1 >= runner.max_iters
    hooks = [hook for hook in runner.hooks if isinstance(hook, CheckpointHook) and not hook.by_epoch]
    return any(last or hook.every_n_train_iters(runner, hook.interval, hook.save_begin) for hook in hooks)
