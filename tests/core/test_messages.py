"""Where messages go: through `logging`, and once an adapter has connected it, wherever the host's messages go."""

import ast
import io
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_report import report_of
from test_structure import FILES

from det_seg_agent.messages import LOGGER, connect

COMMANDS = {
    "cli",
    "evaluation",
    "commands",
    "score",
    "child",
    "pool",
    "preparing",
    "tables",
    "export",
    "scoring",
}  # modules that print their output


@pytest.fixture
def ours() -> Iterator[logging.Logger]:
    """The package's logger as on import, whatever has connected it in this process."""
    before = (LOGGER.level, LOGGER.propagate, LOGGER.handlers[:])
    LOGGER.handlers.clear()
    LOGGER.setLevel(logging.NOTSET)
    LOGGER.propagate = True
    yield LOGGER
    LOGGER.handlers[:] = before[2]
    LOGGER.setLevel(before[0])
    LOGGER.propagate = before[1]


def host(level: int = logging.INFO) -> tuple[logging.Logger, io.StringIO]:
    """Return a toolbox's logger that is not in Python's tree, as MMEngine's, and what it writes."""
    logger, handler = logging.Logger("host", level), logging.StreamHandler(io.StringIO())
    handler.setFormatter(logging.Formatter("%(name)s %(levelname)s %(message)s"))
    logger.addHandler(handler)
    return logger, handler.stream


def test_only_commands_print() -> None:
    """Everything else is a message, and belongs in the log files of the hosts."""
    wrong = [
        f"{module}:{node.lineno}"
        for module, path in FILES.items()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and (getattr(node.func, "id", "") == "print" or getattr(node.func, "attr", "") == "print")
        and module.rpartition(".")[2] not in COMMANDS
        and module != "det_seg_agent.inspecting.report"
    ]
    assert wrong == []


def test_without_a_toolbox_the_users_logging_decides(
    ours: logging.Logger, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    with caplog.at_level(logging.INFO, "det_seg_agent"):
        report_of(tmp_path).begin(0)
    assert [record.name for record in caplog.records] == ["det_seg_agent"], "the panel is one record"
    assert "saves 40%" in caplog.text and caplog.text.count("\n") > 3
    caplog.clear()
    ours.setLevel(logging.ERROR)
    report_of(tmp_path).begin(0)
    assert caplog.records == []


@pytest.mark.parametrize(("level", "said"), [(logging.DEBUG, 3), (logging.INFO, 2), (logging.ERROR, 0)])
def test_the_level_of_the_host_counts(ours: logging.Logger, level: int, said: int) -> None:
    logger, stream = host(level)
    connect(logger)
    for message in (ours.debug, ours.info, ours.warning):
        message("%d images", 7)
    assert len(stream.getvalue().splitlines()) == said
    assert all(line.startswith("det_seg_agent ") and "7 images" in line for line in stream.getvalue().splitlines())


def test_a_level_that_the_user_set_stays(ours: logging.Logger) -> None:
    logger, stream = host()
    ours.setLevel(logging.ERROR)
    connect(logger)
    ours.warning("nothing to see")
    assert stream.getvalue() == ""


def test_the_last_host_gets_each_message_once(ours: logging.Logger, capfd: pytest.CaptureFixture[str]) -> None:
    first, last = host(), host()
    for logger, _ in (first, last, last):
        connect(logger)
    ours.warning("once")
    assert first[1].getvalue() == "" and last[1].getvalue() == "det_seg_agent WARNING once\n"
    assert capfd.readouterr() == ("", "")


def test_a_log_file_that_is_added_later_gets_them(ours: logging.Logger, tmp_path: Path) -> None:
    logger, _ = host()
    connect(logger)
    file = logging.FileHandler(tmp_path / "run.log")
    logger.addHandler(file)
    ours.info("kept")
    file.close()
    assert (tmp_path / "run.log").read_text() == "kept\n"


def test_a_host_that_changes_records_changes_its_own(ours: logging.Logger) -> None:
    """Ultralytics writes a prefix into the record's message."""
    logger, stream = host()
    other = logging.StreamHandler(io.StringIO())

    def prefix(record: logging.LogRecord) -> bool:
        record.msg = f"WARNING {record.msg}"
        return True

    logger.addFilter(prefix)
    connect(logger)
    ours.addHandler(other)
    ours.warning("%s", "100%s of it")
    assert stream.getvalue().endswith("WARNING 100%s of it\n") and other.stream.getvalue() == "100%s of it\n"
