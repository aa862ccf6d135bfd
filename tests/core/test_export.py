"""Lists of images to keep, from the samples of a run."""

import json
from pathlib import Path

import pytest
import torch

from det_seg_agent.errors import ConfigError
from det_seg_agent.hosts.commands import main
from det_seg_agent.hosts.export import as_names, chosen
from det_seg_agent.reporting.samples import sample_rows, write_samples
from det_seg_agent.table import ScoreTable

FILES = [f"/data/images/train/{'ab'[i % 2]}/{i}.jpg" for i in range(10)]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of ten samples with losses 0 to 0.9; the last has none."""
    table = ScoreTable(10)
    table.loss[:9] = torch.arange(9) / 10
    table.selected += torch.arange(10).int()
    write_samples(sample_rows(table, FILES), tmp_path)
    return tmp_path


def kept(run: Path, *words: str) -> list[str]:
    """Export and return the lines."""
    assert main(["export", str(run), *words]) == 0
    return (run / "keep.txt").read_text().splitlines()


def test_conditions_choose_the_images(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert kept(run, "--where", "loss<=0.3") == [*FILES[:4], FILES[9]]
    assert "1 of them are kept although a value is unknown" in capsys.readouterr().out
    assert kept(run, "--where", "loss <= 0.3", "--drop-unknown") == FILES[:4]
    several = ["--where", "selected>=3", "--where", "file~/b/", "--where", "selected != 5"]
    assert kept(run, *several) == [FILES[3], FILES[7], FILES[9]]
    assert kept(run) == FILES
    assert "10 of 10 images (train: " in capsys.readouterr().out


def test_names_for_mmsegmentation(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert kept(run, "--format", "mmseg", "--where", "selected<3") == ["a/0", "b/1", "a/2"]
    said = capsys.readouterr().out
    assert "img_path is /data/images/train" in said and "img_suffix='.jpg'" in said
    assert kept(run, "--format", "mmseg", "--where", "file~/a/", "--root", "/data/images")[0] == "train/a/0"
    (run / "iter_3.pth").touch()
    assert kept(run)[0] == "a/0", "the format is that of the run"


def test_a_subset_of_a_coco_json(run: Path) -> None:
    images = [{"id": 100 + i, "file_name": f"train/{'ab'[i % 2]}/{i}.jpg"} for i in range(10)]
    annotations = [{"id": i, "image_id": 100 + i // 2, "extra": "kept"} for i in range(20)]
    content = {"info": {"v": 1}, "images": images, "annotations": annotations, "categories": [{"id": 3, "name": "x"}]}
    (run / "all.json").write_text(json.dumps(content))
    words = ["--format", "coco", "--json", str(run / "all.json"), "--where", "selected>7"]
    assert main(["export", str(run), *words]) == 0
    part = json.loads((run / "keep.json").read_text())
    assert part == {**content, "images": images[8:], "annotations": annotations[16:]}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--where", "los<1"], "there is no column los. Did you mean loss?"),
        (["--where", "loss"], "it is no condition"),
        (["--where", "loss<low"], "'low' is no number"),
        (["--where", "loss~1"], "~ (contains) is for texts"),
        (["--where", "file<3"], "file is a text"),
        (["--where", "selected>99"], "no image of 10 is left"),
        (["--format", "coco"], "belong together"),
        (["--json", "x.json"], "belong together"),
        (["--format", "coco", "--json", "no.json"], "--json no.json: no COCO JSON"),
        (["--format", "mmseg", "--root", "/elsewhere"], "--root /elsewhere: /data/images/train/a/0.jpg is not in it"),
        (["--out", "no/such/folder/keep.txt"], "it cannot be written"),
    ],
)
def test_bad_input_is_named(run: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(run), *words]) == 2
    assert message in capsys.readouterr().err
    assert not (run / "keep.txt").exists()


def test_a_folder_without_samples_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(tmp_path)]) == 2
    assert "it has no samples.parquet" in capsys.readouterr().err
    (tmp_path / "samples.parquet").write_bytes(b"PAR1")
    assert main(["export", str(tmp_path)]) == 2
    assert "samples.parquet cannot be read" in capsys.readouterr().err


def test_several_suffixes_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"the images end in \.jpg, \.png"):
        as_names(["/a/1.jpg", "/a/2.png"], None)


def test_a_stored_value_equals_what_is_written() -> None:
    table = ScoreTable(2)
    table.loss[:] = torch.tensor([0.9, 0.8])
    assert chosen(sample_rows(table, ["a", "b"]), ["loss<=0.9"])[0]["sample"].to_pylist() == [0, 1]
    assert chosen(sample_rows(table, ["a", "b"]), ["loss<0.9"])[0]["sample"].to_pylist() == [1]
