"""What a detection run says about its images, and what an inspection says before it, on the real toolbox."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from det_runs import fit
from PIL import Image

from det_seg_agent.det.inspection import read_contents
from det_seg_agent.det.instances import KEPT, read_json
from det_seg_agent.det.label_files import read_label_files
from det_seg_agent.det.trainer import AgentDetectionTrainer
from det_seg_agent.hosts.commands import main
from det_seg_agent.inspecting.asked import asked_of
from det_seg_agent.reporting.samples import read_samples
from det_seg_agent.scenes import write_scenes


@pytest.fixture(scope="module")
def run(model_yaml: str, data: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run over 21 scenes."""
    trainer = AgentDetectionTrainer.configured(ratio=0.5, strategy="random")
    return Path(fit(model_yaml, data, tmp_path_factory.mktemp("runs"), "run", trainer).save_dir)


@pytest.mark.slow
def test_a_run_leaves_its_samples_and_a_page(run: Path) -> None:
    rows = read_samples(run)
    assert len(rows) == 21 and len((run / "samples.csv").read_text().splitlines()) == 22
    assert sum(rows["selected"].to_pylist()) == 21 + 10 + 10 + 21 and min(rows["seen"].to_pylist()) >= 2
    assert all(Path(file).is_file() for file in rows["file"].to_pylist())
    assert all(rows[name].null_count == 0 for name in ("loss", "loss_mean", "entropy", "suspect", "classes"))
    page = (run / "data.html").read_text(encoding="utf-8")
    assert "<script" not in page and "<h2>Hardest</h2>" in page and "<h2>Classes</h2>" in page
    assert len(re.findall("<img", page)) >= 24


@pytest.mark.slow
def test_duplicates_are_filled_in(run: Path, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = read_samples(run)
    words = [f"data={data}", f"out={tmp_path}", f"run={run}"]
    assert main(["inspect", *words, "images=true"]) == 0
    after = read_samples(run)
    assert after.drop_columns(["duplicates"]).equals(before.drop_columns(["duplicates"]))
    rows = [line.split(",") for line in (tmp_path / "duplicates.csv").read_text().splitlines()[1:]]
    assert {file: int(group) for group, file, _ in rows} == {
        row["file"]: row["duplicates"] for row in after.to_pylist() if row["duplicates"] is not None
    }
    assert rows, "scenes have near-duplicates"
    assert main(["inspect", *words]) == 2 and main(["inspect", *words[:2], f"run={tmp_path}", "images=true"]) == 2
    said = capsys.readouterr().err
    assert "needs images=true" in said and "its samples.parquet cannot be read" in said


@pytest.mark.slow
def test_the_host_trains_on_an_exported_list(run: Path, model_yaml: str, data: str, tmp_path: Path) -> None:
    assert main(["export", str(run), "--where", "sample<9", "--out", str(tmp_path / "keep.txt")]) == 0
    content = yaml.safe_load(Path(data).read_text())
    content.update(path=str(Path(data).parent), train=str(tmp_path / "keep.txt"))
    (tmp_path / "less.yaml").write_text(yaml.safe_dump(content))
    trainer = AgentDetectionTrainer.configured(strategy="random", trace=False)
    less = fit(model_yaml, str(tmp_path / "less.yaml"), tmp_path, "less", trainer, epochs=1)
    kept = read_samples(Path(less.save_dir))["file"].to_pylist()
    assert {Path(file).name for file in kept} == {Path(f).name for f in read_samples(run)["file"].to_pylist()[:9]}


@pytest.mark.slow
def test_a_subset_of_the_coco_json_can_be_converted(run: Path, data: str, tmp_path: Path) -> None:
    whole = next((Path(data).parents[1] / "annotations").glob("instances_train*.json"))
    words = ["--where", "sample<9", "--format", "coco", "--json", str(whole), "--out", str(tmp_path / "keep.json")]
    assert main(["export", str(run), *words]) == 0
    part, content = (json.loads(path.read_text()) for path in (tmp_path / "keep.json", whole))
    assert len(part["images"]) == 9 and part["categories"] == content["categories"]
    ids = {row["id"] for row in part["images"]}
    assert part["annotations"] == [row for row in content["annotations"] if row["image_id"] in ids]


def test_yaml_folder_and_json_say_the_same(data: str) -> None:
    root = Path(data).parents[1]
    json_ = next((root / "annotations").glob("instances_train*.json"))
    found = [read_contents(asked_of([f"data={each}"])) for each in (data, root, json_)]
    for contents in found[1:]:
        assert len(contents) == len(found[0]) == 21 and contents.unit == "objects"
        assert sorted(contents.names[c] for c in contents.cls) == sorted(found[0].names[c] for c in found[0].cls)
        assert np.allclose(np.sort(contents.boxes, 0), np.sort(found[0].boxes, 0), atol=1e-4)
    assert all(Path(file).is_file() for contents in found for file in contents.files)


def test_what_an_inspection_does_not_need_is_dropped_while_a_json_is_read(data: str) -> None:
    """Outlines are most of a large one."""
    path = next((Path(data).parents[1] / "annotations").glob("instances_train*.json"))
    whole, kept = read_json(path), read_json(path, KEPT)
    assert any("segmentation" in row for row in whole["annotations"])
    for name in ("images", "annotations", "categories"):
        assert kept[name] == [{key: row[key] for key in row if key in KEPT} for row in whole[name]]
    assert not any("segmentation" in row for row in kept["annotations"])


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """A data set whose labels have all kinds of faults."""
    labels = {
        "good": "0 .5 .5 .2 .2\n1 .3 .3 .1 .1\n", "twice": "0 .5 .5 .2 .2\n0 .5 .5 .2 .2\n",
        "two": "0 .5 .5 .2 .2\n1 .5 .5 .2 .2\n", "out": "0 .95 .5 .2 .2\n", "flat": "0 .5 .5 0 .2\n",
        "words": "0 .5 .5 .2 .2\nno label\n0 .5 .5\n", "class": "7 .5 .5 .2 .2\n0.5 .5 .5 .2 .2\n",
        "outline": "1 .1 .1 .5 .1 .5 .4\n", "empty": "", "nan": "0 nan .5 .2 .2\n",
    }  # fmt: skip
    for folder in ("images/train", "labels/train"):
        (tmp_path / folder).mkdir(parents=True)
    for name, text in labels.items():
        Image.new("L", (64, 48)).save(tmp_path / f"images/train/{name}.png")
        (tmp_path / f"labels/train/{name}.txt").write_text(text)
    Image.new("L", (64, 48)).save(tmp_path / "images/train/none.png")
    (tmp_path / "images/train/notes.md").touch()
    (tmp_path / "data.yaml").write_text("train: images/train\nval: images/train\nnames: [a, b, c]\n")
    return tmp_path


def test_faulty_labels_are_counted(
    odd: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    assert main(["inspect", f"data={odd / 'data.yaml'}", f"out={odd / 'out'}", "images=true"]) == 0
    said = capsys.readouterr().out
    for line in (
        "11 images, 10 objects, 2 of 3 classes are used.",
        "4 images are empty, 1 of them have no label file.",
        "Never used: c.",
        f"Lines that are no label: 3, first in {odd}/images/train/nan.png.",
        f"Objects of classes that are not 0 to 2: 2, first in {odd}/images/train/class.png.",
        f"Boxes without a width or height: 1, first in {odd}/images/train/flat.png.",
        f"Boxes that leave the image by more than 1 %: 1, first in {odd}/images/train/out.png.",
        "Boxes that stand there twice with one class: 1",
        "Boxes that stand there twice with two classes: 1",
    ):
        assert line in said, line
    page = (odd / "out/inspect.html").read_text(encoding="utf-8")
    assert "<script" not in page and "twice.png" in page


def test_files_are_read_alike_in_several_processes(odd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [*sorted(map(str, (odd / "labels/train").glob("*.txt"))), "/nowhere.txt"]
    alone = read_label_files(paths)
    monkeypatch.setattr("det_seg_agent.det.label_files.ALONE", 2)
    monkeypatch.setattr("det_seg_agent.det.label_files.CHUNK", 3)
    several = read_label_files(paths)
    assert all(np.array_equal(getattr(alone, name), getattr(several, name)) for name in vars(alone))
    assert alone.absent.tolist() == [len(paths) - 1] and len(alone.boxes) == 12


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("data.txt", "x", "give an Ultralytics data YAML, a COCO folder or JSON, or an MMEngine config"),
        ("x.json", "{}", "it is not a COCO instances JSON"),
        ("x.json", '{"images": [{}], "annotations": [], "categories": []}', "it is not a COCO instances JSON"),
        ("data.yaml", "train: nowhere\nval: nowhere\nnames: [a]\n", "nowhere"),
        ("folder", None, "it has no annotations/instances_train2017.json"),
    ],
)
def test_unusable_data_is_named(
    tmp_path: Path, name: str, content: str | None, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / name
    if content is None:
        path.mkdir()
    else:
        path.write_text(content)
    assert main(["inspect", f"data={path}", f"out={tmp_path / 'out'}"]) == 2
    assert message in capsys.readouterr().err


def test_objects_of_a_coco_json_that_hang_in_the_air(tmp_path: Path) -> None:
    scenes = write_scenes(tmp_path / "scenes", 4, 2, 64)
    path = next((scenes / "annotations").glob("instances_train*.json"))
    content = json.loads(path.read_text())
    row = content["annotations"][0]
    content["annotations"] += [{**row, "image_id": -5}, {**row, "category_id": 99}, {**row, "iscrowd": 1}]
    del content["images"][-1]["width"]
    path.write_text(json.dumps(content))
    contents = read_contents(asked_of([f"data={path}"]))
    lost = sum(a["image_id"] == content["images"][-1]["id"] for a in content["annotations"])
    assert [(fault.what, fault.count) for fault in contents.faults] == [
        ("objects of images that are not listed", 1), ("objects of categories that are not listed", 1),
        ("objects of images without width and height", lost),
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.draws
def test_scores_without_training(run: Path, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Twice the same rows, and weights as they were."""
    weights = run / "weights/best.pt"
    before = weights.read_bytes()
    found = []
    for name in ("one", "two"):
        words = [f"weights={weights}", f"data={data}", f"project={tmp_path}", f"name={name}", "device=cpu", "workers=0"]
        assert main(["score", *words]) == 0
        assert f"{tmp_path / name} has samples.csv and data.html" in capsys.readouterr().out
        assert {path.name for path in (tmp_path / name / "weights").iterdir()} == set()
        found.append(read_samples(tmp_path / name).sort_by("file"))
    assert (
        found[0].drop_columns(["sample"]).equals(found[1].drop_columns(["sample"])) and weights.read_bytes() == before
    )
    assert found[0]["seen"].to_pylist() == [1] * 21 and found[0]["loss"].null_count == 0
    page = (tmp_path / "one/data.html").read_text()
    assert "<h2>Hardest</h2>" in page and "1 pass, nothing was trained; samples.csv" in page


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data=x.yaml"], "weights=: there is no such file"),
        (["weights=W", "data=x.yaml", "epochs=3"], "epochs=3 does not go with score"),
        (["weights=W", "data=x.yaml", "agent.ratio=0.5"], "agent.ratio: nothing is selected or trained"),
        (["weights=W"], "data= is missing"),
        (["weights=PTH", "data=x.yaml"], "x.pth: these are no weights of an Ultralytics training"),
        (["weights=W", "data=OTHER"], "are of 4 classes, data="),
    ],
)
@pytest.mark.slow
def test_what_cannot_be_scored_is_named(
    run: Path, odd: Path, tmp_path: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.pth").write_bytes(b"weights")
    names = {"weights=W": f"weights={run / 'weights/best.pt'}", "data=OTHER": f"data={odd / 'data.yaml'}"}
    names["weights=PTH"] = f"weights={tmp_path / 'x.pth'}"
    words = [*(names.get(word, word) for word in words), f"project={tmp_path / 'runs'}", "name=score", "device=cpu"]
    assert main(["score", *words]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "runs/score").exists()
