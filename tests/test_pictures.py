"""The plot and the contact sheets: they exist, show something, and show the right samples."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from det_seg_agent.plots import plot_run
from det_seg_agent.sheets import contact_sheets, order
from det_seg_agent.table import ScoreTable
from det_seg_agent.trace import Trace, read

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


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("passes", "scored", "used"), [(8, True, True), (8, False, False), (1, True, True), (45, True, True)]
)
def test_the_plot_shows_a_run(tmp_path: Path, passes: int, scored: bool, used: bool) -> None:
    trace, table = Trace(tmp_path / "trace"), ScoreTable(40)
    for p in range(passes):
        score = torch.rand(40) if scored and p % 3 != 1 else torch.full((40,), NAN)
        trace.write(p, table, torch.randperm(40)[:20], score)
    path = plot_run(history_of(passes, 40, used), tmp_path, read(tmp_path / "trace"))
    assert path == tmp_path / "agent.png"
    picture = pixels(path)
    height, width = picture.shape[:2]
    assert (width, height) == (1210, 825)
    for panel in (picture[: height // 2, : width // 2], picture[: height // 2, width // 2 :], picture[height // 2 :]):
        assert panel.std() > 5


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("passes", [0, 3])
def test_the_plot_does_without_a_trace(tmp_path: Path, passes: int) -> None:
    assert pixels(plot_run(history_of(passes, 40, True), tmp_path, None)).std() > 5


def test_the_plot_can_be_read_without_colour(tmp_path: Path) -> None:
    picture = pixels(plot_run(history_of(4, 40, True), tmp_path, None)).astype(int)
    assert np.abs(picture - picture[..., :1]).max() <= 1


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
