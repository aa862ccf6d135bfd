"""Locks of cells, for several processes and machines that share a folder. `compare.pool` uses them.

A lock is a file that is created exclusively, which also holds on network file systems. Its owner touches it every
`BEAT` seconds. It is stale once it was not touched for `STALE` seconds by the file system's clock, or at once if its
owner was a process of this machine that has ended; then another process takes it over.
"""

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

BEAT, STALE = 15.0, 120.0  # seconds


def machine_id() -> str:
    """Return a name of this machine since it booted, and of the container that this process may be in."""
    parts = [socket.gethostname()]
    for read in (
        lambda: Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip(),
        lambda: os.readlink("/proc/self/ns/pid"),
    ):
        with contextlib.suppress(OSError):
            parts.append(read())
    return " ".join(parts)


class Lock:
    """A lock that this process holds; touched by a thread until `release`.

    Args:
        path: the lock file, which holds `token`.
        token: identifies this holding.
        lost: called in that thread if another process has taken the lock over, as after a long suspension.

    Attributes:
        is_lost: whether that has happened.
    """

    def __init__(self, path: Path, token: str, lost: Callable[[], None] | None = None):
        self.path, self.token, self.lost = path, token, lost
        self.is_lost = False
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def _beat(self) -> None:
        while not self._done.wait(BEAT):
            try:
                text = self.path.read_text(encoding="utf-8")
            except FileNotFoundError:
                text = ""
            except OSError:  # a network file system may be away for a moment
                continue
            if self.token not in text:
                self.is_lost = True
                if self.lost is not None:
                    self.lost()
                return
            with contextlib.suppress(OSError):
                os.utime(self.path)

    def release(self) -> None:
        """Remove the lock, unless another process holds it by now."""
        self._done.set()
        self._thread.join()
        owner = owner_of(self.path)
        if owner is not None and owner.get("token") == self.token:
            self.path.unlink(missing_ok=True)


def owner_of(path: Path) -> dict[str, Any] | None:
    """Return "machine", "host", "pid" and "token" of a lock's owner; None if there is none or it is being written."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def acquire(path: Path, lost: Callable[[], None] | None = None) -> Lock | None:
    """Acquire a lock, taking over a stale one; None if another process holds it.

    Args:
        path: the lock file, whose folder exists.
        lost: see `Lock`.
    """
    if path.exists() and is_stale(path):
        _take_away(path)
    token = uuid.uuid4().hex
    content = {"host": socket.gethostname(), "machine": machine_id(), "pid": os.getpid(), "token": token}
    try:
        with path.open("x", encoding="utf-8") as file:
            json.dump(content, file)
    except FileExistsError:
        return None
    return Lock(path, token, lost)


def is_stale(path: Path) -> bool:
    """Return whether the owner of a lock has ended, or has not touched it for too long."""
    owner = owner_of(path)
    if owner is not None and owner.get("machine") == machine_id() and not _runs(int(owner["pid"])):
        return True
    try:
        return _now(path.parent) - path.stat().st_mtime > STALE
    except FileNotFoundError:
        return False


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _now(folder: Path) -> float:
    """Return the time by the clock of a folder's file system, which may differ from this machine's."""
    probe = folder / f".clock-{uuid.uuid4().hex}"
    probe.touch()
    try:
        return probe.stat().st_mtime
    finally:
        probe.unlink()


def _take_away(path: Path) -> None:
    """Remove a lock if it is stale; one process at a time, so that none removes what another has created since."""
    guard = path.with_name(f"{path.name}.taking")
    with contextlib.suppress(FileNotFoundError):
        if _now(path.parent) - guard.stat().st_mtime > STALE:  # of a process that was killed here
            guard.unlink(missing_ok=True)
    try:
        guard.touch(exist_ok=False)
    except FileExistsError:
        return
    try:
        if is_stale(path):
            path.unlink(missing_ok=True)
    finally:
        guard.unlink(missing_ok=True)


@contextlib.contextmanager
def waiting(path: Path, poll: float = 0.5) -> Iterator[None]:
    """Hold a lock within the block; wait until it is free."""
    while (lock := acquire(path)) is None:
        time.sleep(poll)
    try:
        yield
    finally:
        lock.release()
