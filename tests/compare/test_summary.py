"""What a comparison says: figures over classes, differences, tests and curves, and every place that shows them."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from compare_results import BASE, SEEDS, finished_of, result_of
from compare_runs import write
from rich.console import Console

from det_seg_agent.compare.cells import EVEN, FULL, QUALITY, RANDOM, SHORT, Cell
from det_seg_agent.compare.figures import figures_of
from det_seg_agent.compare.images import save
from det_seg_agent.compare.matrix import read
from det_seg_agent.compare.page import page
from det_seg_agent.compare.report import Report
from det_seg_agent.compare.stats import holm, resampled_counts, sign_flip_p
from det_seg_agent.compare.summary import Summary, summarise
from det_seg_agent.compare.tables import classes_csv, print_tables, results, rows_csv


def test_macro_and_the_rarest_third_by_hand(tmp_path: Path) -> None:
    done = finished_of(tmp_path, 1)
    summary = summarise("detection", done, Report())
    assert [figure.label for figure in summary.figures.shown] == ["macro AP", "AP", "rarest AP", "AP50"]
    macro, whole, rarest, fifty = summary.figures.shown
    assert macro.classes == tuple("abcefg") and rarest.classes == ("a", "e")
    loss = next(row for row in summary.rows if row.label == "loss")
    mean = result_of(next(cell for cell, _ in done if cell.label == "loss"))["quality"]
    assert loss.values(whole)[0] == mean and loss.values(fifty)[0] == mean + 10
    assert loss.quality[0] == loss.values(macro)[0] == pytest.approx(mean), "d, which is left out, is the mean"
    assert loss.values(rarest)[0] == pytest.approx(mean - 1)  # of -3 and +1
    fewer = summarise("detection", done, Report(min_objects=19, primary="rarest"))
    assert fewer.figures.primary.classes == ("d", "a") and fewer.rows[0].quality[0] == pytest.approx(40 - 1.5)
    assert list(fewer.classes["loss 0.5"])[:3] == ["d", "a", "e"], "rare classes first"


def test_segmentation_counts_test_images() -> None:
    counts = {"train_images": {"a": 3, "b": 2, "c": 9}, "test_images": {"a": 5, "b": 4, "c": 6}}
    result = {"quality": 50.0, "by_class": {"a": 40.0, "b": 90.0, "c": 20.0}, "classes": counts}
    found = figures_of("segmentation", Report(), {"cell": result})
    assert found.primary.label == "macro IoU" and found.primary.value(result) == 30
    assert [figure.key for figure in found.shown] == ["macro", "mIoU"], "two classes have no rarest third"
    found = figures_of("segmentation", Report(min_images=4), {"cell": result})
    assert found.shown[2].classes == ("b",)


def test_cells_without_figures_by_class_are_named(tmp_path: Path) -> None:
    done = finished_of(tmp_path, 1)
    older = [(c, {k: v for k, v in r.items() if k != "classes"} if c.label == EVEN else r) for c, r in done]
    summary = summarise("detection", older, Report())
    assert summary.figures.primary.key == "AP" and [f.key for f in summary.figures.shown] == ["AP", "AP50"]
    first, second = summary.figures.notes
    assert "1 cells were finished without them" in first and "detection even 0.5 seed 0" in first
    assert "AP is compared in its place" in second
    none = summarise("detection", done, Report(min_objects=99))
    assert none.figures.primary.key == "AP" and "No class has 99 test objects" in none.figures.notes[0]


def test_differences_have_intervals_and_exact_p_of_a_family(tmp_path: Path) -> None:
    summary = summarise("detection", finished_of(tmp_path), Report(margin=2.0))
    loss, entropy = summary.primary["loss 0.5"][RANDOM], summary.primary["entropy 0.5"][RANDOM]
    raw = [sign_flip_p(list(d.by_seed.values())) for d in (loss, entropy)]
    assert raw[0] == 2 / 2**SEEDS and [loss.p, entropy.p] == raw
    assert summary.tests == [("loss 0.5", RANDOM), ("entropy 0.5", RANDOM)]
    assert [loss.p_holm, entropy.p_holm] == holm([p for p in raw if p is not None])
    assert loss.interval is not None and loss.interval[0] < (loss.mean or 0) < loss.interval[1]
    assert loss.equivalent is False and entropy.equivalent is True
    assert summary.primary["loss 0.5"][EVEN].p_holm is None, "not in the family"
    assert summary.primary[f"{SHORT} 0.5"].keys() == {RANDOM, EVEN, QUALITY}
    more = summarise("detection", finished_of(tmp_path), Report(family=["loss", "quality"], against=["random", "even"]))
    family = [("quality 0.5", "random"), ("quality 0.5", "even"), ("loss 0.5", "random"), ("loss 0.5", "even")]
    assert more.tests == family and more.primary["loss 0.5"][RANDOM].p_holm == min(1, 4 * raw[0])
    assert more.primary["entropy 0.5"][RANDOM].p_holm is None


def test_tests_that_are_not_finished_count(tmp_path: Path) -> None:
    done = finished_of(tmp_path)
    part = [(cell, result) for cell, result in done if cell.label != "entropy"]
    summary = summarise("detection", part, Report(), [cell for cell, _ in done])
    assert len(summary.tests) == 2 and summary.primary["loss 0.5"][RANDOM].p_holm == 2 * 2 / 2**SEEDS


def test_a_rule_with_its_own_budget_is_tested_against_the_shorter_schedule_alone(tmp_path: Path) -> None:
    rule = {"label": "rule", "strategy": "compare_strategies:Rule", "options": {"native": True}}
    _, cells = read(write(tmp_path / "c.yaml", strategies=[rule, "loss"]))
    assert Report().tests("detection", cells) == [("loss 0.5", RANDOM)]
    assert Report(against=[SHORT], family=["rule"]).tests("detection", cells) == [("rule", SHORT)]


def test_images_are_resampled_alike_for_both_runs_of_a_seed(tmp_path: Path) -> None:
    """The interval is that of a bootstrap by hand, of the two shorter schedules too."""
    done = finished_of(tmp_path, 1)
    generator = np.random.default_rng(5)
    areas, placed = {}, []
    for i, (cell, result) in enumerate(done):
        place = tmp_path / f"cell-{i}"
        place.mkdir()
        union = np.full((12, 7), 100)
        arrays = {"names": np.array(list("abcdefg")), "intersect": generator.integers(0, 100, (12, 7)), "union": union}
        save(place, arrays)
        areas[cell.name] = arrays["intersect"] / 100
        placed.append((cell, {**result, "place": str(place)}))
    summary = summarise("detection", placed, Report(resamples=200, against=[RANDOM, SHORT]))
    counts, at = resampled_counts(12, 200), [i for i, name in enumerate("abcdefg") if name != "d"]

    def figure(name: str) -> np.ndarray:
        return 100 * ((counts @ areas[name]) / 12)[:, at].mean(1)

    mine = figure("detection loss 0.5 seed 0")
    expected = np.quantile(mine - figure("detection random 0.5 seed 0"), [0.025, 0.975])
    assert summary.primary["loss 0.5"][RANDOM].over_images[0] == pytest.approx(expected, abs=1e-4)
    both = [figure(f"detection full, shorter 0.5 at {n} epochs seed 0") for n in (1, 2)]
    expected = np.quantile(mine - sum(both) / 2, [0.025, 0.975])
    assert summary.primary["loss 0.5"][SHORT].over_images[0] == pytest.approx(expected, abs=1e-4)
    assert "seed 0: +" in page("T", "", "", placed, {}, [summary])


def test_curves_in_figures_by_hand(tmp_path: Path) -> None:
    done = finished_of(tmp_path, 1)
    summary = summarise("detection", done, Report(reach=50))
    loss, random = (summary.learning[f"{name} 0.5"] for name in ("loss", RANDOM))
    quality = {cell.label: result["quality"] for cell, result in done}
    # all curves of the ratio span 25 to 75 images
    heights = {n: (25 * (10 + q - 5) / 2 + 25 * (q - 5 + q) / 2) / 50 for n, q in quality.items()}
    assert loss.area[0] == pytest.approx(heights["loss"])
    assert loss.less_random.by_seed[0] == pytest.approx(heights["loss"] - heights[RANDOM])
    assert random.less_random.by_seed == {}
    assert loss.reached[0] == pytest.approx((25 + 25 * 10 / (quality["loss"] - 15)) / 100), "20 % is half of full's 40"
    high = summarise("detection", done, Report(reach=100))
    assert high.learning["loss 0.5"].reached == {0: None} and high.learning[FULL].reached == {0: 1.0}
    losses = [(c, {**r, "curve": {**r["curve"], "name": "training loss"}}) for c, r in done]
    assert summarise("detection", losses, Report()).learning == {}


def shown(summaries: list[Summary]) -> str:
    """Return what the terminal shows."""
    console = Console(width=100, file=io.StringIO(), force_terminal=False)
    print_tables(summaries, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_every_output_has_the_same_numbers(tmp_path: Path) -> None:
    done = finished_of(tmp_path)
    summary = summarise("detection", done, Report(margin=2.0))
    loss = summary.primary["loss 0.5"][RANDOM]
    assert loss.interval is not None and loss.p_holm is not None
    text = f"{loss.mean:+.2f} [{loss.interval[0]:+.2f}, {loss.interval[1]:+.2f}]"
    terminal, html = shown([summary]), page("T", "", "", done, {}, [summary])
    for output in (terminal, html):
        for piece in (text, f"{loss.p_holm:.3f}", "macro AP", "rarest AP", "AP50"):
            assert piece in output
    assert max(map(len, terminal.splitlines())) <= 100 and "\N{HORIZONTAL ELLIPSIS}" not in terminal
    assert "Equivalent within ±2 points: even 0.5 and random, entropy 0.5 and random" in terminal.replace("\n", " ")
    assert "within ±2" in html and html.count("<svg") == 3 and "AP by class at ratio 0.5, less random" in html
    content = json.loads(json.dumps(results([summary])))["detection"]
    row = next(row for row in content["rows"] if row["name"] == "loss 0.5")
    assert row["differences"][RANDOM]["interval"] == list(loss.interval)
    assert row["differences"][RANDOM]["p_holm"] == loss.p_holm and row["differences"][RANDOM]["n"] == SEEDS
    assert row["figures"]["macro"]["mean"] == pytest.approx(np.mean(list(summary.rows[5].quality.values())))
    assert row["classes_less_random"]["a"]["mean"] == pytest.approx(loss.mean), "all classes differ alike"
    line = next(line for line in csv.DictReader(io.StringIO(rows_csv([summary]))) if line["strategy"] == "loss")
    assert float(line["less_random"]) == loss.mean and float(line["less_random_high"]) == loss.interval[1]
    assert float(line["less_random_p_holm"]) == loss.p_holm and line["less_random_n"] == str(SEEDS)
    lines = list(csv.DictReader(io.StringIO(classes_csv([summary]))))
    mine = next(line for line in lines if (line["strategy"], line["class"]) == ("loss", "d"))
    assert mine["train_images"] == "1" and float(mine["less_random"]) == pytest.approx(loss.mean)


def test_one_seed_decides_nothing(tmp_path: Path) -> None:
    done = finished_of(tmp_path, 1)
    summary = summarise("detection", done, Report(margin=2.0))
    loss = summary.primary["loss 0.5"][RANDOM]
    assert loss.interval is None and loss.t_interval is None and loss.p is None and loss.p_holm is None
    assert loss.equivalent is None and loss.mean is not None
    terminal, html = shown([summary]), page("T", "", "", done, {}, [summary])
    for output in (terminal, html):
        assert (
            "One seed decides nothing" in output
            and f"{loss.mean:+.2f}" in output
            and f"{loss.mean:+.2f} [" not in output
        )
    two = summarise("detection", finished_of(tmp_path, 2), Report())
    assert two.primary["loss 0.5"][RANDOM].interval is None and not two.one_seed


def test_long_names_fit_the_terminal(tmp_path: Path) -> None:
    long = {"label": "a strategy with a very long name and options", "strategy": "loss"}
    _, cells = read(write(tmp_path / "c.yaml", strategies=[long], ratios={0.5: [0, 1, 2]}))
    done = [(c, result_of(c if c.label in BASE else Cell(**{**c.__dict__, "label": "loss"}))) for c in cells]
    terminal = shown([summarise("detection", done, Report())])
    assert max(map(len, terminal.splitlines())) <= 100
