"""What the labels and images of a data set say, without a toolbox."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from det_seg_agent.errors import ConfigError
from det_seg_agent.inspecting.advice import Similar, costs, sentences
from det_seg_agent.inspecting.asked import asked_of
from det_seg_agent.inspecting.contents import Contents
from det_seg_agent.inspecting.findings import find
from det_seg_agent.inspecting.images import groups_of, read, runs_of
from det_seg_agent.inspecting.report import inspect
from det_seg_agent.schedule import Schedule
from det_seg_agent.strategies.weights_to_selection import rates

BOX = (0.2, 0.2, 0.6, 0.6)


def contents_of(rows: list[tuple[int, int, tuple[float, ...]]], images: int, classes: int = 4) -> Contents:
    """Return the contents of objects (image, class, box)."""
    image, cls, boxes = zip(*rows, strict=True)
    return Contents(
        "here", "objects", [f"c{i}" for i in range(classes)], [f"{i}.png" for i in range(images)], np.array(image),
        np.array(cls, np.int32), np.ones(len(rows)), np.array(boxes, np.float32), np.full((images, 2), 100, np.int32),
    )  # fmt: skip


def long_tail(images: int = 1000) -> Contents:
    """Return contents where class 0 is in all images, 1 in half of them, 2 in one of 100; class 3 is never used."""
    rows = [(i, c, BOX) for i in range(images) for c, every in enumerate((1, 2, 100)) if i % every == 0]
    return contents_of([(i, c, (0.1 * c, 0.1, 0.1 * c + 0.5, 0.6)) for i, c, _ in rows], images)


def test_classes_are_counted_and_the_rarest_third_can_be_lifted() -> None:
    found = find(long_tail(), 0.5, 640)
    assert found.images.tolist() == [1000, 500, 10, 0] and found.used == [2, 1, 0] and found.rare == [2]
    assert found.rare_share == pytest.approx(0.01) and found.imbalance == 100
    assert found.lift_most == pytest.approx(2)
    assert found.lift_repeats > 4, "sqrt(0.5 / 0.01) is 7.1, and the others give way a little"
    assert find(long_tail(), 1.0, 640).lift_most == pytest.approx(1)


def test_shares_are_those_of_the_strategies() -> None:
    contents = contents_of([(0, 2, BOX), (0, 2, BOX), (0, 1, BOX), (2, 3, BOX)], 3)
    shares = contents.shares()
    assert shares.index[:, :2].tolist() == [[2, 1], [-1, -1], [3, -1]]
    assert shares.share[:, :2].tolist() == [[170, 85], [0, 0], [255, 0]]
    assert shares.labels.tolist() == [0, 1, 2, 1]


def test_capped_rates_sum_to_the_total() -> None:
    found = rates(torch.tensor([1.0, 1.0, 100.0]), 3.0, 0.0, 2)
    assert found.sum() == pytest.approx(3) and found.max() == pytest.approx(2) and found[0] == pytest.approx(0.5)


def test_labels_that_look_wrong_are_found() -> None:
    rows = [
        (0, 0, BOX), (0, 0, (0.2001, 0.2, 0.6, 0.6)),  # twice
        (1, 0, BOX), (1, 1, BOX),  # with two classes
        (2, 0, (-0.2, 0.1, 0.5, 0.5)), (3, 0, (0.5, 0.5, 0.5, 0.9)), (4, 0, (0.0, 0.0, 1.0, 1.0)),
        (4, 0, (0.1, 0.1, 0.11, 0.11)), (5, 0, BOX),
    ]  # fmt: skip
    found = find(contents_of(rows, 7), 0.5, 640)
    assert [(fault.count, fault.images) for fault in found.faults] == [(1, [3]), (1, [2]), (1, [0]), (1, [1])]
    assert found.empty == 1 and found.huge == pytest.approx(1 / 9) and found.tiny == pytest.approx(2 / 9)


def test_sizes_follow_the_training_size() -> None:
    contents = contents_of([(0, 0, (0.1, 0.1, 0.2, 0.2))], 1)
    contents.sizes[0] = 1000, 500
    assert find(contents, 0.5, 160).tiny == 0 and find(contents, 0.5, 80).tiny == 1, "16 x 8 and 8 x 4 pixels"


def test_each_kind_of_data_gets_its_own_advice() -> None:
    def said(contents: Contents, similar: Similar | None = None) -> str:
        return " ".join(sentences(contents, find(contents, 0.5, 640), similar, 0.5))

    tail = said(long_tail())
    assert "Long tail: the rarest third (c2) is in 1.0% of the images" in tail and "`repeat_factor`" in tail
    even = said(contents_of([(i, i % 4, BOX) for i in range(1000)], 1000))
    assert "Classes are fairly even" in even and "Long tail" not in even
    everywhere = said(contents_of([(i, c, BOX) for i in range(40) for c in range(3 + (i == 0))], 40))
    assert "are few" in everywhere
    assert "there is no tail" in said(contents_of([(0, 0, BOX)], 1))
    assert "near-duplicates, 5 groups" in said(long_tail(), Similar(0.5, 0.4, 5, 90))
    assert "video-like runs (the longest has 33)" in said(long_tail(), Similar(video=0.4, longest=33))
    assert "no redundancy" in said(long_tail(), Similar())
    faulty = said(contents_of([(i, 0, (0.5, 0.5, 1.5, 0.9)) for i in range(9)], 9))
    assert faulty.startswith("Look at the labels first: 9 of them")
    assert "1,000 times the objects of c1" not in even


def test_a_class_with_few_pixels_in_most_images_is_told() -> None:
    contents = long_tail()
    contents = contents_of([(i, c, BOX) for i in range(600) for c in range(3)], 600)
    contents.unit, contents.boxes = "pixels", None
    contents.amount = np.where(contents.cls == 2, 5.0, 1000.0)
    text = " ".join(sentences(contents, find(contents, 0.5, 640), None, 0.5))
    assert "c0 has 200 times the pixels of c2: choosing images does not change that" in text


def test_costs_are_those_of_the_schedule() -> None:
    rows = costs(1000, 100, 0.6, 50.0)
    assert [row[0] for row in rows] == ["0.3", "0.5", "0.6", "0.7", "0.9", "1"]
    total = Schedule(ratio=0.6).images(100, 1000)  # type: ignore[call-arg]
    assert rows[2] == ("0.6", "600", f"{total:,}", f"{total / 1e5:.0%}", f"{total / 50 / 3600:.1f}")
    assert len(costs(1000, 100, 0.6, None)[0]) == 4


@pytest.fixture
def photographs(tmp_path: Path) -> list[str]:
    """Three unlike images, a copy of the first at another quality and size, and ten frames of a slow pan."""
    noise = np.random.default_rng(0)
    files = []

    def save(pixels: np.ndarray, name: str, **options: int) -> None:
        Image.fromarray(pixels).save(tmp_path / name, **options)
        files.append(str(tmp_path / name))

    def scene(width: int) -> Image.Image:
        blocks = Image.fromarray(noise.integers(0, 255, (12, width // 10, 3), np.uint8))
        return blocks.resize((width, 120), Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(2))

    for name in "abc":
        save(np.asarray(scene(160)), f"x_{name}.jpg", quality=95)
    with Image.open(files[0]) as first:
        save(np.asarray(first.resize((120, 90))), "y_copy.jpg", quality=60)
    pan = np.asarray(scene(400))
    for step in range(10):
        save(pan[:, 2 * step : 2 * step + 160], f"z_frame{step + 2}.png")
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    return [*files, str(tmp_path / "broken.jpg")]


def test_near_duplicates_and_video_are_found(photographs: list[str]) -> None:
    thumbnails = read(photographs, progress=False)
    assert thumbnails.sizes[[0, 3, -1]].tolist() == [[160, 120], [120, 90], [0, 0]]
    groups = groups_of(thumbnails)
    assert groups[0] == groups[3] >= 0 and set(groups[[1, 2, -1]].tolist()) == {-1}
    runs = runs_of(photographs, thumbnails)
    assert runs == [list(range(4, 14))], "in the order of numbers: 9 comes before 10"


def test_a_page_and_duplicates_are_written(
    photographs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    contents = contents_of([(i, i % 3, BOX) for i in range(len(photographs))], len(photographs))
    contents.files = photographs
    words = ["data=x.yaml", "images=true", "ratio=0.5", f"out={tmp_path / 'out'}", "pace=10"]
    assert inspect(words, lambda asked: (contents, None)) == 0
    said, page = capsys.readouterr().out, (tmp_path / "out/inspect.html").read_text(encoding="utf-8")
    assert "1 images cannot be read" in said and "Never used: c3." in said and "hours" in said
    assert "<script" not in page and "http" not in page and "<h2>Video-like runs</h2>" in page
    rows = (tmp_path / "out/duplicates.csv").read_text().splitlines()
    assert rows[0] == "group,file,first" and f"{photographs[0]},1" in "\n".join(rows)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["ratio=0.5"], "data= is missing"),
        (["my.yaml"], "'my.yaml' is not key=value"),
        (["data=x", "ratio=2"], "ratio='2': Input should be less than or equal to 1"),
        (["data=x", "image=true"], "Did you mean images?"),
        (["data=x", "pace=fast"], "pace='fast'"),
    ],
)
def test_bad_settings_are_named(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        asked_of(words)
    assert message in str(raised.value)
