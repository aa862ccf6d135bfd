"""Messages are short lines, however long what they are made from."""

from concurrent.futures import Future
from typing import Any

import pytest

from det_seg_agent.errors import LIMIT, AgentError, ConfigError, StateError, listed, shortened
from det_seg_agent.hosts.commands import guarded
from det_seg_agent.hosts.input_errors import input_errors, one_line
from det_seg_agent.settings import Settings, parse, unknown_key
from det_seg_agent.strategies import strategy_class

FILES = [f"/data/coco/images/train2017/{i:012}.jpg" for i in range(5000)]
REMEDY = "Give an Ultralytics data YAML or a COCO folder."
# The texts of hosts, and what must be left of each.
TEXTS: dict[str, tuple[str, list[str]]] = {
    "a line a file": (
        "No valid images found in /data/coco/labels/train2017.cache.\n"
        + "".join(f"  {file}: ignoring corrupt image/label: cannot identify\n" for file in FILES)
        + "See the manual.",
        ["No valid images found in", "000000000000.jpg", "000000000001.jpg", "(and 4,998 more)", "See the manual."],
    ),
    "files on one line": (f"missing: {', '.join(FILES)} (cause: disk)", ["missing: ", "(cause: disk)"]),
    "keys of a state": (
        "Error(s) in loading state_dict for X:\n\tMissing key(s): "
        + ", ".join(f'"model.{i}.weight"' for i in range(900))
        + "\n\tsize mismatch for w: [1] from the checkpoint, [2] in the model",
        ["Error(s) in loading state_dict for X:", "size mismatch for w: [1] from the checkpoint, [2] in the model"],
    ),
    "cause at the end": ("class `X` in x.py: " + "a" * 5000 + ": no CUDA", ["class `X` in x.py: ", ": no CUDA"]),
    "a long path": (f"{'/long' * 80}/images/a.jpg is no image", ["images/a.jpg is no image"]),
    "colours": ("\x1b[31mred\x1b[0m is no colour", ["red is no colour"]),
    "nothing": ("", ["RuntimeError: "]),
    "a word": ("'height'", ["RuntimeError: 'height'"]),
}  # fmt: skip


@pytest.mark.parametrize("case", TEXTS)
@pytest.mark.parametrize("limit", [200, LIMIT])
def test_what_a_host_says_becomes_one_short_line(case: str, limit: int) -> None:
    text, left = TEXTS[case]
    line = one_line(RuntimeError(text), limit)
    assert len(line) <= limit and "\n" not in line
    if limit == LIMIT:
        assert all(part in line for part in left), line


@pytest.mark.parametrize("what", ["data=own.yaml", f"data={'/long' * 100}/own.yaml", "data=" + "x" * 5000])
@pytest.mark.parametrize("case", TEXTS)
def test_the_input_and_the_remedy_stay_in_the_line(case: str, what: str) -> None:
    host: Future[None] = Future()
    host.set_exception(RuntimeError(TEXTS[case][0]))
    with pytest.raises(ConfigError) as error, input_errors(what, "concurrent", remedy=REMEDY):
        host.result()
    line = str(error.value)
    assert len(line) <= LIMIT and line.startswith("data=") and line.endswith(REMEDY) and "\n" not in line


@pytest.mark.parametrize("length", [0, 1, 5, 6, 7, 20, 290, 5000])
@pytest.mark.parametrize("limit", [6, 7, 20, LIMIT])
def test_a_shortened_text_keeps_both_ends(length: int, limit: int) -> None:
    text = "".join(chr(97 + i % 26) for i in range(length))
    found = shortened(text, limit)
    assert len(found) <= limit and (found == text) == (length <= limit)
    assert found[:1] == text[:1] and (limit < 7 or found[-1:] == text[-1:])


def test_a_list_is_all_or_two_and_a_count() -> None:
    assert listed([]) == "" and listed("ab") == "a, b"
    assert listed(FILES) == f"{FILES[0]}, {FILES[1]} and 4,998 more"
    assert len(listed(["x" * 1000] * 1000)) <= 200


def test_the_nearest_key_is_named_whatever_stands_before_it() -> None:
    valid = ["seed", "epochs", "agent.seed", "agent.ratio"]
    for key, near in {"sed": "seed", "agent.sed": "agent.seed", "ratio": "agent.ratio", "epoch": "epochs"}.items():
        assert f"Did you mean {near}?" in unknown_key(key, valid)
    assert "Did you mean" not in unknown_key("agent.zzz", valid)


def fails(error: Exception) -> Any:
    def work() -> None:
        raise error

    return work


@pytest.mark.parametrize("kind", [ConfigError, StateError])
@pytest.mark.parametrize("text", ["a" * 10**6, "\n".join(FILES), "caf\udce9.jpg is missing; add it.", "", "x\ny"])
def test_the_command_prints_few_short_lines(kind: type[AgentError], text: str, capfd: Any) -> None:
    assert guarded(fails(kind(text))) == 2
    out, err = capfd.readouterr()
    lines = err.splitlines()
    assert not out and err.startswith("error: ") and 1 <= len(lines) <= 10 and max(map(len, lines)) <= 300
    assert len(text.splitlines()) < 10 or lines[-1] == "and 4,991 lines more"


def test_settings_get_a_line_each() -> None:
    options = {f"option_{i}": i for i in range(1000)}
    for model, fields in ((Settings, {"ratio": "x" * 5000, "warmup": -1}), (strategy_class("agent").Options, options)):
        with pytest.raises(ConfigError) as error:
            parse(model, fields, "agent.")
        lines = str(error.value).splitlines()
        assert len(lines) == len(fields) and max(map(len, lines)) <= LIMIT


def test_errors_that_no_host_raised_pass() -> None:
    with pytest.raises(ValueError, match="ours"), input_errors("x", "concurrent"):
        raise ValueError("ours")
    with pytest.raises(KeyboardInterrupt), input_errors("x", "concurrent"):
        raise KeyboardInterrupt
