"""Comparisons that share a folder and devices: locks, slots, what goes on and what is removed."""

import json
import os
import subprocess
import sys
import threading
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from compare_runs import write

from det_seg_agent.compare import locks
from det_seg_agent.compare.attempts import began, elapsed, note_weights, prune, restart
from det_seg_agent.compare.cli import main
from det_seg_agent.compare.devices import Slot, slots_of
from det_seg_agent.compare.locks import acquire, is_stale, owner_of, waiting
from det_seg_agent.compare.matrix import read
from det_seg_agent.compare.queue import Queue
from det_seg_agent.compare.store import Store
from det_seg_agent.errors import ConfigError


def test_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert slots_of(None, None) == [Slot()] and slots_of(None, 3) == [Slot()] * 3
    assert [slot.device for slot in slots_of("cpu:2,0, 1:2", None)] == ["cpu", "cpu", "0", "1", "1"]
    assert Slot().environment() == {} and Slot().words() == []
    assert Slot("cpu").environment() == {"CUDA_VISIBLE_DEVICES": ""} and Slot("cpu").words() == ["--device", "cpu"]
    assert Slot("1").environment() == {"CUDA_VISIBLE_DEVICES": "1"} and Slot("1").words() == ["--device", "0"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    assert Slot("1").environment() == {"CUDA_VISIBLE_DEVICES": "6"}
    with pytest.raises(ConfigError, match="--devices: 2 is not among the 2 devices of CUDA_VISIBLE_DEVICES='4,6'"):
        slots_of("2", None)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--jobs", "0"], "--jobs 0: at least 1"),
        (["--devices", "gpu"], "--devices gpu: 'gpu' is not cpu or an index"),
        (["--devices", "0:0"], "'0:0' is not"),
        (["--devices", "cpu", "--jobs", "2"], "--jobs 2 and --devices cpu: give the slots of each device"),
        (["--time-limit", "0"], "--time-limit 0: hours, more than 0"),
    ],
)
def test_wrong_options_are_named(
    tmp_path: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write(tmp_path / "c.yaml")
    assert main([str(config), "--folder", str(tmp_path / "out"), *words]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_lock_is_held_once(tmp_path: Path) -> None:
    path = tmp_path / "cell.lock"
    lock = acquire(path)
    assert lock is not None and acquire(path) is None and not is_stale(path)
    owner = owner_of(path)
    assert owner is not None and owner["pid"] == os.getpid() and owner["host"]
    lock.release()
    assert not path.exists()
    again = acquire(path)
    assert again is not None
    again.release()
    assert list(tmp_path.iterdir()) == []


def test_a_lock_of_a_process_that_ended_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "cell.lock"
    code = "import os, sys, pathlib; from det_seg_agent.compare.locks import acquire; "
    code += "acquire(pathlib.Path(sys.argv[1])); os._exit(9)"
    subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert path.exists() and is_stale(path)
    lock = acquire(path)
    assert lock is not None and owner_of(path)["pid"] == os.getpid()  # type: ignore[index]
    lock.release()
    assert list(tmp_path.iterdir()) == []


def test_a_lock_of_another_machine_is_stale_by_its_age_alone(tmp_path: Path) -> None:
    path = tmp_path / "cell.lock"
    path.write_text(json.dumps({"machine": "another", "host": "b", "pid": 1 << 30, "token": "t"}))
    assert not is_stale(path) and acquire(path) is None
    now = path.stat().st_mtime
    os.utime(path, (now, now - locks.STALE - 60))
    assert is_stale(path)
    lock = acquire(path)
    assert lock is not None
    lock.release()


def test_an_owner_touches_its_lock_and_notices_a_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "BEAT", 0.01)
    path, lost, told = tmp_path / "cell.lock", threading.Event(), threading.Event()
    lock = acquire(path, lost.set)
    assert lock is not None
    os.utime(path, (0, 0))
    while path.stat().st_mtime == 0:
        told.wait(0.01)
    assert not lock.is_lost
    other = {"machine": "another", "host": "b", "pid": 1, "token": "t"}
    path.write_text(json.dumps(other))
    assert lost.wait(60) and lock.is_lost
    lock.release()
    assert owner_of(path) == other, "what is another's stays"


def stale(path: Path) -> None:
    """Write the lock of another machine that has not been touched for years."""
    path.write_text(json.dumps({"machine": "another", "host": "b", "pid": 1, "token": "t"}))
    os.utime(path, (0, 0))


def test_who_finds_a_lock_stale_does_not_remove_the_one_that_another_took_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, taken = tmp_path / "cell.lock", list[locks.Lock | None]()
    stale(path)

    def slow(path: Path) -> bool:
        found = is_stale(path)
        if not taken:  # another process is faster
            taken.append(None)
            taken[0] = acquire(path)
        return found

    monkeypatch.setattr(locks, "is_stale", slow)
    assert acquire(path) is None
    assert taken[0] is not None and owner_of(path)["token"] == taken[0].token  # type: ignore[index]
    taken[0].release()
    assert list(tmp_path.iterdir()) == []


def test_a_takeover_that_was_killed_blocks_no_other_for_long(tmp_path: Path) -> None:
    path, guard = tmp_path / "cell.lock", tmp_path / "cell.lock.taking"
    stale(path)
    guard.touch()
    assert acquire(path) is None, "another process may be about to take it"
    os.utime(guard, (0, 0))
    lock = acquire(path)
    assert lock is not None
    lock.release()
    assert list(tmp_path.iterdir()) == []


def test_of_many_threads_one_takes_a_stale_lock(tmp_path: Path) -> None:
    path = tmp_path / "cell.lock"
    stale(path)
    got: list[object] = []
    start = threading.Barrier(8)

    def take() -> None:
        start.wait()
        got.append(acquire(path))

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    held = [lock for lock in got if lock is not None]
    assert len(held) <= 1 and (held or path.exists() or acquire(path) is not None)


def test_waiting_for_a_lock(tmp_path: Path) -> None:
    path, order = tmp_path / "x.lock", list[str]()
    lock = acquire(path)
    assert lock is not None

    def later() -> None:
        with waiting(path, 0.01):
            order.append("second")

    thread = threading.Thread(target=later)
    thread.start()
    order.append("first")
    lock.release()
    thread.join()
    assert order == ["first", "second"] and not path.exists()


def test_a_queue_leaves_cells_of_others_and_takes_what_they_leave(tmp_path: Path) -> None:
    cells = read(write(tmp_path / "c.yaml"))[1][-2:]
    mine, other = (Queue(cells, Store(tmp_path / "out"), lambda place: None) for _ in range(2))
    (tmp_path / "out").mkdir()
    first, held = mine.take()
    assert first == cells[0] and held is not None
    second, kept = other.take()
    assert second == cells[1] and kept is not None
    cell, none = mine.take()
    assert cell == cells[1] and none is None, "another has it"
    place = Store(tmp_path / "out").place(cells[1])
    place.mkdir()
    (place / "failed.json").write_text(json.dumps({"status": 1, "tail": "", "finished": "now"}))
    other.put_back(cells[1], kept)
    assert mine.take() == (None, None) and mine.failed == [cells[1]], "failed there, it does not run here again"
    mine.put_back(cells[0], held, again=True)
    assert mine.unfinished() == [cells[0]]
    later = Queue(cells, Store(tmp_path / "out"), lambda place: None)
    taken, lock = later.take()
    assert taken == cells[0] and lock is not None
    again, second_lock = later.take()
    assert again == cells[1] and second_lock is not None, "an old failure is tried again"
    lock.release()
    second_lock.release()


def test_an_attempt_goes_on_if_it_is_of_this_very_cell(tmp_path: Path) -> None:
    cell = read(write(tmp_path / "c.yaml"))[1][-1]
    place = tmp_path / "cell"
    (place / "run").mkdir(parents=True)
    (place / "cell.json").write_text(json.dumps(asdict(cell)))
    assert not began(place, cell), "it had not begun to train"
    assert note_weights(place, "first") == "first" and note_weights(place, "second") == "first"
    assert began(place, cell) and began(place, replace(cell, data="/elsewhere"))
    assert not began(place, replace(cell, seed=9))
    (place / "failed.json").write_text("{}")
    assert not began(place, cell)
    restart(place)
    assert not (place / "run").exists() and note_weights(place, "third") == "third"
    assert elapsed([1.0, 2.0, 3.0, 0.5, 1.5]) == 4.5 and elapsed([2.0]) == 2.0 and elapsed([]) == 0


def test_pruning_keeps_the_judged_weights_and_all_that_is_not_the_cells(tmp_path: Path) -> None:
    mine, place = tmp_path / "mine", tmp_path / "cell"
    (place / "run/weights").mkdir(parents=True)
    mine.mkdir()
    files = ["weights/last.pt", "weights/best.pt", "weights/agent_last.pt", "iter_8.pth", "iter_16.pth", "notes.txt"]
    for name in files:
        (place / "run" / name).write_text(name)
    (mine / "own.pt").write_text("trained by a user")
    (place / "run/weights/linked.pt").symlink_to(mine / "own.pt")
    assert prune(place) == [] and len(list(place.rglob("*.pt*"))) == 6, "no cell"
    (place / "cell.json").write_text("{}")
    assert prune(place) == [], "not finished"
    (place / "result.json").write_text("{}")
    assert prune(place) == ["agent_last.pt", "best.pt", "iter_8.pth"]
    left = {path.name for path in (place / "run").rglob("*") if path.is_file()}
    assert left == {"last.pt", "iter_16.pth", "notes.txt", "linked.pt"} and (mine / "own.pt").exists()
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "cell.json").write_text("{}")
    (linked / "result.json").write_text("{}")
    (mine / "weights").mkdir()
    (mine / "weights/best.pt").write_text("trained by a user")
    (linked / "run").symlink_to(mine)
    assert prune(linked) == [] and (mine / "weights/best.pt").exists()
