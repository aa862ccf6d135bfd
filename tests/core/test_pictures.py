"""The plot and the contact sheets: they show what was, of the right samples."""

import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from matplotlib.axes import Axes
from PIL import Image

from det_seg_agent.reporting.plots import draw, plot_run
from det_seg_agent.reporting.sheets import contact_sheets, order
from det_seg_agent.reporting.trace import Trace, read_passes
from det_seg_agent.table import ScoreTable

NAN = float("nan")


def pixels(path: Path) -> np.ndarray:
    """Return a picture as (height, width, 3) uint8."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def history_of(passes: int, samples: int, used: bool) -> list[dict[str, float]]:
    """Return the rows of a run at ratio 0.5."""
    row = {"ratio": 0.5, "selected": samples / 2, "total": samples, "reward": NAN, "new": 0.5}
    row |= {"balance": 0.4 if used else NAN, "policy_entropy": 0.6 if used else NAN}
    return [row | {"pass": p, "images": (p + 1) * samples / 2} for p in range(passes)]


def lines_of(ax: Axes) -> dict[str, np.ndarray]:
    """Return label -> y of the curves of an axes."""
    return {str(line.get_label()): np.asarray(line.get_ydata(), float) for line in ax.get_lines()}


def bands_of(ax: Axes) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return (lower, upper) edge of the filled bands of an axes, by x."""
    bands = []
    for band in ax.collections:
        points = band.get_paths()[0].vertices
        at = [points[points[:, 0] == x, 1] for x in np.unique(points[:, 0])]
        bands.append((np.array([y.min() for y in at]), np.array([y.max() for y in at])))
    return bands


def notes_of(ax: Axes) -> list[str]:
    """Return the texts within an axes."""
    return [text.get_text() for text in ax.texts]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("passes", "scored", "used"), [(8, True, True), (8, False, False), (1, True, True), (45, True, True)]
)
def test_the_plot_shows_a_run(tmp_path: Path, passes: int, scored: bool, used: bool) -> None:
    """Each curve, band and bar is what the history and the trace say; what there is none of is said."""
    trace, history = Trace(tmp_path / "trace"), history_of(passes, 40, used)
    times, expected = np.zeros(40, int), []
    for p in range(passes):
        score = torch.rand(40) if scored and p % 3 != 1 else torch.full((40,), NAN)
        score[:2] = torch.tensor([NAN, torch.inf])
        chosen = torch.randperm(40)[:20]
        trace.write(p, ScoreTable(40), chosen, score)
        times[chosen] += 1
        if score.isfinite().any():
            known = score[chosen][score[chosen].isfinite()]
            expected.append([*np.percentile(score[2:], [5, 25, 50, 75, 95]), known.quantile(0.5)])
    figure = draw(history, times, read_passes(tmp_path / "trace"))
    budget, scores, agent, frequency, *twins = figure.axes
    assert [ax.get_title() for ax in (budget, scores, agent)] == [
        "Budget",
        "Scores by pass",
        "Balance and policy entropy",
    ]
    got = lines_of(budget)
    assert got["full data"].tolist() == [40 * (p + 1) for p in range(passes)]
    assert got["this run"].tolist() == [20 * (p + 1) for p in range(passes)]
    if scored:
        low, q1, middle, q3, high, chosen_middle = np.array(expected).T
        assert [*lines_of(scores)] == ["median", "median of the selection"]
        assert lines_of(scores)["median"] == pytest.approx(middle, rel=2e-3)
        assert lines_of(scores)["median of the selection"] == pytest.approx(chosen_middle, rel=2e-3)
        for band, edges in zip(bands_of(scores), ((low, high), (q1, q3)), strict=True):
            assert band[0] == pytest.approx(edges[0], rel=2e-3) and band[1] == pytest.approx(edges[1], rel=2e-3)
        shown = [p + 1 for p in range(passes) if p % 3 != 1]
        assert scores.get_lines()[0].get_xdata().tolist() == shown
    else:
        assert notes_of(scores) == ["no scores in this run"] and not lines_of(scores) and not scores.collections
    if used:
        assert lines_of(agent)["balance w (left)"].tolist() == [0.4] * passes
        assert lines_of(twins[0])["policy entropy (right)"].tolist() == [0.6] * passes
    else:
        assert notes_of(agent) == ["not used by this strategy"] and not lines_of(agent) and not twins
    step = -(-passes // 20)
    heights = [int(((times >= k) & (times < k + step)).sum()) for k in range(0, passes + 1, step)]
    assert [bar.get_height() for bar in frequency.patches] == heights


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("passes", [0, 3])
def test_the_plot_does_without_a_trace(tmp_path: Path, passes: int) -> None:
    history, times = history_of(passes, 40, True), np.full(40, passes)
    path = plot_run(history, times, (), tmp_path)
    assert path == tmp_path / "agent.png" and pixels(path).shape == (825, 1210, 3)
    _, scores, _, frequency, *_ = draw(history, times, ()).axes
    assert notes_of(scores) == ["no scores in this run"]
    assert notes_of(frequency) == ([] if passes else ["no pass in this run"])


def test_the_plot_can_be_read_without_colour(tmp_path: Path) -> None:
    """It is grey; curves of a panel differ by line or marker, bands by lightness, and each is in the legend."""
    table = pa.table({"score": [0.1, 0.4, 0.7, 0.9], "selected": [True, False, True, True]})
    trace, history = [(p, table) for p in range(4)], history_of(4, 40, True)
    picture = pixels(plot_run(history, np.arange(40) % 5, trace, tmp_path)).astype(int)
    assert np.abs(picture - picture[..., :1]).max() <= 1
    budget, scores, agent, _, twin = draw(history, np.arange(40) % 5, trace).axes
    for curves, legend in (
        (budget.get_lines(), budget.get_legend()),
        (scores.get_lines(), scores.get_legend()),
        ([*agent.get_lines(), *twin.get_lines()], agent.get_legend()),
    ):
        assert len(curves) == 2 and len({(c.get_linestyle(), str(c.get_marker())) for c in curves}) == 2
        assert legend is not None
        assert {str(c.get_label()) for c in curves} <= {text.get_text() for text in legend.get_texts()}
    light, dark = (band.get_facecolor()[0, 0] for band in scores.collections)
    assert light - dark > 0.1


def peaks(folder: Path, passes: int) -> tuple[int, int]:
    """Return the most bytes, of Python and of Arrow, that drawing so many passes of 20,000 samples held at once."""
    samples, history = 20_000, history_of(passes, 20_000, True)
    first = Trace(folder).write(0, ScoreTable(samples), torch.arange(0, samples, 2), torch.rand(samples))
    for p in range(1, passes):
        shutil.copy(first, folder / f"pass_{p:04d}.parquet")
    usual, pool = pa.default_memory_pool(), pa.proxy_memory_pool(pa.default_memory_pool())
    pa.set_memory_pool(pool)
    tracemalloc.start()
    try:
        draw(history, np.zeros(samples, np.int32), read_passes(folder, ["selected", "score"]))
        return tracemalloc.get_traced_memory()[1], pool.max_memory()
    finally:
        tracemalloc.stop()
        pa.set_memory_pool(usual)


def test_the_memory_for_the_plot_does_not_grow_with_the_passes(tmp_path: Path) -> None:
    peaks(tmp_path / "first", 2)  # what is loaded once
    few, many = peaks(tmp_path / "few", 10), peaks(tmp_path / "many", 100)
    assert few[0] > 20_000 and few[1] > 20_000, "both are counted"
    assert many[0] < 1.5 * few[0] and many[1] < 1.5 * few[1], (few, many)


def test_the_order_is_by_times_then_by_score_and_nan_comes_last() -> None:
    times, score = torch.tensor([2, 0, 2, 2, 0, 1, 0]), torch.tensor([0.1, 0.5, NAN, 0.9, 0.2, 0.3, NAN])
    assert order(times, score, most=True, count=4) == [3, 0, 2, 5]
    assert order(times, score, most=False, count=4) == [4, 1, 6, 5]
    assert order(times, score, most=False, count=99) == [4, 1, 6, 5, 0, 3, 2]


def test_the_sheets_show_the_right_images(tmp_path: Path) -> None:
    """The image's grey value is its index, and so is how often it was selected."""
    files = []
    for i in range(30):
        files.append(str(tmp_path / f"picture_with_a_long_name_{i:03d}.png"))
        Image.new("RGB", (40, 30), (8 * i, 8 * i, 8 * i)).save(files[-1])
    times = torch.arange(30)
    most, least = contact_sheets(files, times, 30, torch.full((30,), NAN), tmp_path, grid=(3, 2))
    assert (most.name, least.name) == ("most_selected.jpg", "least_selected.jpg")
    for path, expected in ((most, range(29, 23, -1)), (least, range(6))):
        picture = pixels(path)
        assert picture.shape == (34 + 2 * 170, 3 * 200, 3)
        for cell, index in enumerate(expected):
            x, y = cell % 3 * 200 + 100, 34 + cell // 3 * 170 + 75
            assert abs(int(picture[y, x, 0]) - 8 * index) <= 3
            caption = picture[
                34 + cell // 3 * 170 + 150 : 34 + cell // 3 * 170 + 166, cell % 3 * 200 : cell % 3 * 200 + 200
            ]
            assert caption.min() < 100 and caption.max() > 240
        assert picture[:34].min() < 100


def test_an_image_that_cannot_be_read_is_a_grey_cell(tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    files = [str(tmp_path / "broken.jpg"), str(tmp_path / "missing.jpg")]
    most, _ = contact_sheets(files, torch.tensor([2, 1]), 2, torch.rand(2), tmp_path, grid=(2, 1))
    picture = pixels(most)
    for x in (20, 220):
        assert np.abs(picture[34 + 20, x].astype(int) - 0xBB).max() <= 4


def test_an_image_too_large_to_decode_is_a_grey_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (400, 400)).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 60_000)  # above what the captions need
    most, _ = contact_sheets([str(tmp_path / "large.png")], torch.tensor([1]), 1, torch.rand(1), tmp_path, grid=(4, 1))
    with monkeypatch.context() as patch:
        patch.setattr(Image, "MAX_IMAGE_PIXELS", None)
        assert np.abs(pixels(most)[34 + 20, 20].astype(int) - 0xBB).max() <= 4


def test_photographs_stand_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    Image.new("RGB", (120, 40), "black").save(tmp_path / "turned.jpg", exif=exif)
    most, _ = contact_sheets([str(tmp_path / "turned.jpg")], torch.tensor([1]), 1, torch.rand(1), tmp_path, grid=(1, 1))
    picture = pixels(most)
    assert picture[34 + 10, 100].max() < 30 and picture[34 + 75, 20].min() > 225


def test_a_run_without_images_has_empty_sheets(tmp_path: Path) -> None:
    assert len(contact_sheets([], torch.zeros(0, dtype=torch.int32), 0, torch.zeros(0), tmp_path)) == 2
