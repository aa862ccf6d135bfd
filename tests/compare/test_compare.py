"""Comparisons: the matrix, what is counted, and the page."""

import re
from pathlib import Path
from typing import Any

import pytest
from compare_runs import SCENES, write, write_segmentation

from det_seg_agent.compare.cells import AGREE, CONTROLS, EVEN, FULL, QUALITY, RANDOM, SHORT, Cell, epochs_around
from det_seg_agent.compare.cli import main
from det_seg_agent.compare.matrix import read
from det_seg_agent.compare.page import page
from det_seg_agent.compare.report import Report
from det_seg_agent.compare.rows import Row, front, rows_of
from det_seg_agent.compare.summary import summarise
from det_seg_agent.errors import ConfigError
from det_seg_agent.schedule import Schedule
from det_seg_agent.strategies.data_agent.agent import Agent
from det_seg_agent.strategies.data_agent.options import AgentOptions

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.mark.parametrize("config", sorted((CONFIGS / "compare").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_comparison_has_its_controls(config: Path) -> None:
    comparison, cells = read(config, "data")
    assert comparison.title and len({cell.key for cell in cells}) == len(cells)
    for task in {cell.task for cell in cells}:
        mine = [cell for cell in cells if cell.task == task]
        for cell in mine:
            if cell.role == "selection":
                same = {(c.label, c.ratio): c for c in mine if c.seed == cell.seed}
                assert {(FULL, 1.0), (SHORT, cell.ratio), *((label, cell.ratio) for label in CONTROLS)} <= same.keys()
                for label in (SHORT, *CONTROLS):
                    assert same[label, cell.ratio].schedule() == cell.schedule(), "all have one budget"
    assert [cell.seed for cell in cells] == sorted(cell.seed for cell in cells), "all of a seed before the next"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ratios": [1.5]}, "1.5 does not lie between 0 and 1"),
        ({"ratios": {0.5: [0, 0]}}, "not a list of different seeds"),
        ({"strategies": ["magic"]}, "agent.strategy='magic'"),
        ({"strategies": [{"strategy": "loss", "ratios": {0.5: [-1]}}]}, "strategies: loss.ratios: 0.5: .-1. is not"),
        ({"strategies": ["loss", {"strategy": "random", "ratios": [0.3]}]}, "random .* remove its ratios"),
        ({"strategies": ["loss", "loss"]}, "twice"),
        ({"strategies": ["full"]}, "selects nothing"),
        ({"strategies": [{"label": "even", "strategy": "loss"}]}, "'even' is the name of a control"),
        ({"strategies": [{"label": SHORT, "strategy": "loss"}]}, "'full, shorter' is the name of a control"),
        ({"strategies": [{"strategy": "loss", "seed": 3}]}, "loss: seed is that of the matrix"),
        ({"agent": {"ratio": 0.3}}, "ratio is that of the matrix"),
        ({"host": {"epochs": 2, "optimizer": "SGD", "agent.final_full": 0.5}}, "belong under detection.agent"),
        ({"host": {"epochs": 2, "optimizer": "SGD", "time": 0.5}}, "time=0.5 ends cells before"),
        ({"host": {"epochs": 2, "optimizer": "SGD", "patience": 5}}, "patience=5 ends cells before"),
        ({"strategies": [{"strategy": "agent", "options": {"lrr": 1}}]}, "Did you mean .*options.lr"),
        ({"host": {"epochs": 2, "optimizer": "auto"}}, "optimizer=auto"),
        ({"host": {"epochs": 2, "optimizer": "SGD", "seed": 3}}, "detection.host.seed"),
        ({"strategy": ["loss"]}, "Did you mean detection.strategies"),
        ({"report": {"margn": 1}}, "Did you mean detection.report.margin"),
        ({"report": {"margin": 0}}, "report.margin=0: .*greater than 0"),
        ({"report": {"primary": "mAP"}}, "report.primary='mAP'"),
        ({"report": {"primary": "mIoU"}}, "primary=mIoU: it is a figure of another task; give macro"),
        ({"report": {"family": ["los"]}}, "family: 'los' is no strategy here, .* Valid: loss, loss 0.5"),
        ({"report": {"family": ["loss 0.3"]}}, "family: 'loss 0.3' is no strategy here, or not at that ratio"),
        ({"report": {"against": ["full"]}}, "report.against=.*full"),
        ({"report": {"against": ["random", "random"]}}, "has one twice"),
        ({"report": [1]}, "report=.1.: .* a mapping"),
        ({"scenes": {"wrong_label": 20}}, "Did you mean detection.scenes.wrong_labels"),
    ],
)
def test_a_wrong_yaml_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(write(tmp_path / "c.yaml", **change))


OWN = {
    "ratio": 0.3, "schedule": "oscillating", "low": 0.3, "high": 0.7, "period": 4, "warmup": 3, "final_full": 0.6,
}  # fmt: skip


@pytest.mark.parametrize("writer", [write, write_segmentation])
@pytest.mark.parametrize("key", sorted(Schedule.model_fields))
def test_a_strategy_has_no_schedule_of_its_own(tmp_path: Path, writer: Any, key: str) -> None:
    late = {"label": "late", "strategy": "agent", key: OWN[key]}
    with pytest.raises(ConfigError, match=rf"strategies: late: {key}(=.* under \w+.agent| is that of the matrix)"):
        read(writer(tmp_path / "c.yaml", strategies=[late]))


@pytest.mark.parametrize("strategies", [["agent"], ["agent", *CONTROLS]])
def test_controls_have_the_schedule_of_all_and_no_option_of_the_agent(tmp_path: Path, strategies: list[str]) -> None:
    def keys(**agent: Any) -> dict[str, str]:
        _, cells = read(write(tmp_path / "c.yaml", strategies=strategies, agent=agent))
        return {cell.label: cell.key for cell in cells if cell.label in CONTROLS}

    plain = keys(final_full=0.25)
    assert plain.keys() == set(CONTROLS)
    assert keys(final_full=0.25, options={"floor": 0.3}) == plain
    assert all(other != plain[label] for label, other in keys(final_full=0.5).items())


@pytest.mark.parametrize(
    ("epochs", "budget", "expected"),
    [(12, 0.625, [7, 8]), (40, 0.625, [25]), (300, 0.57, [171]), (2, 0.75, [1, 2]), (3, 0.1, [1]), (30, 0.615, [18])],
)
def test_the_shorter_schedule_has_whole_epochs_on_both_sides_of_the_budget(
    epochs: int, budget: float, expected: list[int]
) -> None:
    assert epochs_around(epochs, budget) == expected


def test_a_rule_with_its_own_budget_runs_once_a_seed(tmp_path: Path) -> None:
    rule = {"strategy": "compare_strategies:Rule", "options": {"native": True}}
    strategies = [rule, "compare_strategies:Rule", "loss"]
    content = {"agent": {"schedule": "oscillating", "low": 0.2}, "ratios": {0.3: [0, 1], 0.5: [0]}}
    _, cells = read(write(tmp_path / "c.yaml", strategies=strategies, **content))
    native = [cell for cell in cells if cell.role == "native"]
    assert [(cell.label, cell.seed) for cell in native] == [("compare_strategies:Rule, native", s) for s in (0, 1)]
    assert len({cell.key for cell in cells}) == len(cells) and "ratio" not in native[0].agent
    fixed = [(cell.ratio, cell.seed) for cell in cells if cell.label == "compare_strategies:Rule, fixed budget"]
    assert fixed == [(0.3, 0), (0.5, 0), (0.3, 1)]
    with pytest.raises(ConfigError, match="native: .* Only detection can have it"):
        read(write_segmentation(tmp_path / "s.yaml", strategies=[rule]))


def test_a_config_that_names_its_batch_is_compared_at_it() -> None:
    """mmseg's recipes are named by processes x images each; a cell is one process."""
    named = 0
    for path in sorted((CONFIGS / "compare").glob("*.yaml")):
        _, cells = read(path, "data")
        for cell in cells:
            text = Path(cell.config).read_text(encoding="utf-8") if cell.config else ""
            for processes, batch in re.findall(r"_(\d+)xb(\d+)-", text):
                assert cell.host["train_dataloader.batch_size"] == int(processes) * int(batch), path
                named += 1
    assert named


def test_a_strategy_may_have_ratios_of_its_own(tmp_path: Path) -> None:
    strategies = [{"strategy": "loss", "ratios": {0.5: [0]}}, {"strategy": "entropy", "ratios": {0.5: [1], 0.3: [1]}}]
    _, cells = read(write(tmp_path / "c.yaml", strategies=["random", *strategies], ratios=None))
    controls = {(0, FULL, 1.0), (1, FULL, 1.0)}
    controls |= {(seed, label, 0.5) for seed in (0, 1) for label in (SHORT, *CONTROLS)}
    controls |= {(1, label, 0.3) for label in (SHORT, *CONTROLS)}
    expected = controls | {(0, "loss", 0.5), (1, "entropy", 0.5), (1, "entropy", 0.3)}
    assert {(cell.seed, cell.label, cell.ratio) for cell in cells} == expected
    assert len(cells) == len(expected) + 3, "the shorter schedule is one or two epochs of two"


def test_a_changed_default_changes_the_cells_that_it_is_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = write(tmp_path / "c.yaml", strategies=["loss", "agent"])
    before = {cell.name: cell.key for cell in read(config)[1]}

    class Changed(AgentOptions):
        floor: float = 0.123

    monkeypatch.setattr(Agent, "Options", Changed)
    after = {cell.name: cell.key for cell in read(config)[1]}
    assert [name for name in before if before[name] != after[name]] == ["detection agent 0.5 seed 0"]


def result_of(cell: Cell, quality: float, images: int = 50, cpu: float = 10.0) -> dict[str, Any]:
    """Return what a finished cell leaves."""
    picks = {"coverage": 0.9, "turnover": 0.5, "top_tenth": 0.2, "kinds": {"easy": 0.4, "hard": 0.6}}
    picks["thirds"] = {"easy": [0.5, 0.3], "hard": [0.5, 0.7]}
    return {
        "quality": quality, "images": images, "full_images": 100, "wall_s": 2 * cpu, "cpu_s": cpu, "samples": 50,
        "curve": {"name": "mIoU, %", "points": [[10, 1.0], [images, quality]]}, "initial_weights": "w",
        "selection": picks if cell.role == "selection" else {}, "machine": {"torch": "2"}, "finished": "2026-01-01",
        "schedule": f"{cell.epochs or 2} epochs", "sources": "s", "metrics": {"AP50": quality + 7.5, "AP_small": None},
        "by_class": {"disc": quality - 4.25},
    }  # fmt: skip


QUALITIES = {
    FULL: (40.0, 44.0), SHORT: (30.0, 31.0), RANDOM: (32.0, 36.0), EVEN: (33.0, 33.0), QUALITY: (36.0, 36.5),
    "loss": (35.0, 37.0),
}  # fmt: skip


def finished_of(tmp_path: Path, **content: Any) -> list[tuple[Cell, dict[str, Any]]]:
    """Return two seeds of results made by hand; the budget is 75 %, the shorter schedule's 50 % and 100 %."""
    _, cells = read(write(tmp_path / "c.yaml", ratios={0.5: [0, 1]}, **content))
    done = []
    for cell in cells:
        images = {"full": 100, "selection": 75, "short": 50 * (cell.epochs or 0)}[cell.role]
        quality = QUALITIES[cell.label][cell.seed] + (1 if cell.epochs == 2 else -1 if cell.epochs == 1 else 0)
        done.append((cell, result_of(cell, quality, images, 20 if cell.role == "full" else 11)))
    return done


def test_figures_by_hand(tmp_path: Path) -> None:
    rows = rows_of(finished_of(tmp_path))
    assert [row.name for row in rows] == ["full", "full, shorter 0.5", *(f"{c} 0.5" for c in CONTROLS), "loss 0.5"]
    loss = rows[5]
    assert loss.mean == 36 and loss.budget == 0.75 and loss.cpu_ratio == pytest.approx(0.55)
    assert loss.less == {SHORT: {0: 5, 1: 6}, RANDOM: {0: 3, 1: 1}, EVEN: {0: 2, 1: 4}, QUALITY: {0: -1, 1: 0.5}}
    assert rows[0].less[RANDOM] == {} and rows[0].cpu_ratio == 1 and rows[2].less[RANDOM] == {}
    assert loss.metrics == {"AP50": 43.5} and loss.classes == {"disc": 31.75}
    assert [row.name for row in front(rows)] == ["quality 0.5", "full"]


def test_the_shorter_schedule_is_interpolated_at_the_budget(tmp_path: Path) -> None:
    short = next(row for row in rows_of(finished_of(tmp_path)) if row.label == SHORT)
    assert short.quality == {0: 30, 1: 31} and short.images == 75 and short.length == "1 and 2 epochs"
    assert short.metrics["AP50"] == 38 and short.classes["disc"] == 26.25
    one = [(cell, result) for cell, result in finished_of(tmp_path) if cell.epochs != 2]
    short, loss = [row for row in rows_of(one) if row.label in (SHORT, "loss")]
    assert short.budget == 0.5 and short.quality == {0: 29, 1: 30} and short.length == "1 epochs"
    assert loss.less[SHORT] == {} and len(loss.less[RANDOM]) == 2, "other budgets are not compared"


def test_a_rule_with_its_own_budget_is_compared_where_budgets_agree(tmp_path: Path) -> None:
    rule = {"label": "loss", "strategy": "compare_strategies:Rule", "options": {"native": True}}
    _, cells = read(write(tmp_path / "c.yaml", strategies=[rule], ratios={0.5: [0, 1]}))
    images = {"full": 100, "selection": 75, "native": 74}
    done = [(c, result_of(c, QUALITIES[c.label][c.seed], images.get(c.role, 50 * (c.epochs or 0)))) for c in cells]
    native = next(row for row in rows_of(done) if row.role == "native")
    assert native.name == "loss" and native.budget == 0.74 and native.less[RANDOM] == {}
    assert native.less[SHORT] == {0: 5, 1: 6}
    far = [(c, {**r, "images": 74 - 100 * AGREE} if c.role == "native" else r) for c, r in done]
    assert next(row for row in rows_of(far) if row.role == "native").less[SHORT] == {}


def test_nothing_finished_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write(tmp_path / "c.yaml", scenes={**SCENES, "wrong_labels": 200})
    assert main([str(config), "--folder", str(tmp_path / "out"), "--page-only"]) == 2
    assert "no cell is finished" in capsys.readouterr().err
    assert main([str(config), "--folder", str(tmp_path / "out")]) == 2
    assert "wrong_labels is 200" in capsys.readouterr().err


def test_a_seed_without_its_own_full_run_is_compared_with_the_others(tmp_path: Path) -> None:
    done = [(c, r) for c, r in finished_of(tmp_path) if not (c.role == "full" and c.seed == 1)]
    loss: Row = rows_of(done)[3]
    assert loss.cpu_ratio == pytest.approx(0.55) and len(loss.quality) == 2


def shown(title: str, text: str, command: str, done: list[Any], missing: dict[str, str], **report: Any) -> str:
    """Return the page of detection cells."""
    return page(title, text, command, done, missing, [summarise("detection", done, Report(**report))])


def test_the_page_holds_every_number_and_nothing_from_elsewhere(tmp_path: Path) -> None:
    done = finished_of(tmp_path)
    text = shown("A <title>", "yaml: here", "python tools/compare.py c.yaml", done, {"detection x": "failed"})
    for piece in ("A &lt;title&gt;", "36.00 ± 1.41", "+2.00 (+3.00, +1.00)", "+5.50", "55 %", "yaml: here"):
        assert piece in text
    assert "loss 0.5" in text and "hard" in text and "60 % (50, 70)" in text and "detection x" in text
    assert text.count("<svg") == 2 and "<script" not in text
    assert not re.findall(r"(?:src|href)=\"(?!#)", re.sub(r"xmlns\S*", "", text)), "nothing is loaded from elsewhere"
    table = tables_of(text)
    for name, figures in QUALITIES.items():
        row = name if name == FULL else f"{name} 0.5"
        mean = sum(figures) / 2
        assert table["Further figures, %, means over seeds"][row] == [f"{mean + 7.5:.2f}", f"{mean - 4.25:.2f}"]
        assert table["AP and cost"][row][5] == ("100.0 %" if name == FULL else "75.0 %")
    assert table["Paired differences of AP"]["loss 0.5"][0] == "+2.00 (+3.00, +1.00)"


def tables_of(text: str) -> dict[str, dict[str, list[str]]]:
    """Return caption -> row -> cells of a page's tables."""
    found: dict[str, dict[str, list[str]]] = {}
    for caption, body in re.findall(r"<caption>(.*?)</caption>.*?<tbody>(.*?)</tbody>", text, re.S):
        rows = re.findall(r'<tr[^>]*><th scope="row">(.*?)</th>(.*?)</tr>', body)
        found[caption] = {name: re.findall(r"<td[^>]*>(.*?)</td>", cells) for name, cells in rows}
    return found


def test_rows_of_other_seeds_machines_and_sources_are_marked(tmp_path: Path) -> None:
    agent = {"label": "agent", "strategy": "loss"}
    _, cells = read(write(tmp_path / "c.yaml", strategies=[agent, "entropy"], ratios={0.5: [0, 1]}))
    done = []
    for cell in cells:
        if cell.label == "entropy" and cell.seed == 1:
            continue
        result = result_of(cell, 30.0 + cell.seed, 50 * (cell.epochs or 1))
        if cell.label == RANDOM:
            result["machine"] = {"torch": "3"}
        if cell.label == EVEN:
            result |= {"machine": {"torch": str(2 + cell.seed)}, "older": cell.seed == 1}
        done.append((cell, result))
    text = shown("Title", "", "", done, {})
    table = {name: (row[2], row[-1]) for name, row in tables_of(text)["AP and cost"].items()}
    assert table["agent 0.5"] == ("0, 1", "1") and table["entropy 0.5"] == ("0 \N{DAGGER}", "1")
    assert table["random 0.5"] == ("0, 1", "2")
    assert table["even 0.5"] == ("0, 1 (\N{DOUBLE DAGGER} 1)", "1 (seed 0), 2 (seed 1)")
    machines = tables_of(text)
    assert machines["Machine 1"] == {"torch": ["2"]} and machines["Machine 2"] == {"torch": ["3"]}
    one = shown("Title", "", "", [(cell, {**result, "machine": {"torch": "2"}}) for cell, result in done], {})
    assert "Versions and machine" in tables_of(one) and "Machine 1" not in one


def test_the_agents_seeds_are_those_compared(tmp_path: Path) -> None:
    agent = {"label": "agent", "strategy": "loss", "ratios": {0.5: [0]}}
    _, cells = read(write(tmp_path / "c.yaml", strategies=[agent, {"strategy": "entropy", "ratios": {0.5: [0, 1]}}]))
    done = [
        (cell, result_of(cell, 40.0 if cell.label == "entropy" else 30.0, 50 * (cell.epochs or 1))) for cell in cells
    ]
    assert [row.label for row in front(rows_of(done))] == ["agent"]
