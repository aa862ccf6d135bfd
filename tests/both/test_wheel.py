"""The wheel alone, in an environment of its own: what a user has who never saw the sources; and how it is built."""

import io
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

from det_seg_agent import __version__
from det_seg_agent.hosts.commands import main

pytestmark = pytest.mark.slow  # it trains

ROOT = Path(__file__).parents[2]
LIMIT = 450_000  # bytes of the wheel
SOURCES = ("det_seg_agent", "configs", "pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE")


def run(*words: str | Path, cwd: Path, status: int = 0) -> str:
    """Run a command and return what it prints."""
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [str(word) for word in words]
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=500)
    assert done.returncode == status, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the sources, as a build leaves files beside them."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in SOURCES:
        run("cp", "-a", ROOT / name, source / name, cwd=folder)
    words = ("wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder, source)
    run(sys.executable, "-m", "pip", *words, cwd=folder)
    [path] = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def command(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command of an environment that has the wheel, and the dependencies of this one."""
    env = tmp_path_factory.mktemp("env")
    run(sys.executable, "-m", "venv", "--without-pip", env, cwd=env)
    [site] = env.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")  # whose own .pth files are not read
    shim = (
        Path(sysconfig.get_path("purelib")) / "distutils-precedence.pth"
    )  # setuptools' distutils, from Python 3.12 on
    if shim.is_file():
        shutil.copy(shim, site)
    run(sys.executable, "-m", "pip", "--python", env / "bin/python", "install", "-q", "--no-deps", wheel, cwd=env)
    where = run(env / "bin/python", "-c", "import det_seg_agent; print(det_seg_agent.__file__)", cwd=env)
    assert where.startswith(str(env))
    return env / "bin/det-seg-agent"


def test_it_holds_recipes_and_types_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert wheel.stat().st_size < LIMIT and wheel.name.startswith(f"det_seg_agent-{__version__}-")
    assert "det_seg_agent/py.typed" in names
    carried = {name.removeprefix("det_seg_agent/.mim/") for name in names if "/.mim/" in name}
    assert carried == {str(path.relative_to(ROOT)) for path in (ROOT / "configs").rglob("*.*") if path.is_file()
                       and path.suffix in (".py", ".yaml")}  # fmt: skip
    assert all(name.endswith((".py", ".yaml", "py.typed")) or ".dist-info/" in name for name in names)


def test_builds_are_the_same_bytes_whoever_makes_them(tmp_path: Path) -> None:
    """Of sources of another time and with other modes, beside the output of runs."""
    made = []
    for number, umask in ((1, 0o022), (2, 0o077)):
        source = tmp_path / f"copy{number}"
        source.mkdir()
        for name in SOURCES:
            run("cp", "-rP", "--no-preserve=all", ROOT / name, source / name, cwd=tmp_path)
        for name in ("runs/detect/train/weights/last.pt", "work_dirs/own/iter_8.pth", "det_seg_agent/runs/agent.png"):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes(b"output")
        code = f"""import os, pathlib, sys
os.umask({umask})
for path in pathlib.Path(".").rglob("*.*"):
    os.utime(path, ({number} * 10**9,) * 2, follow_symlinks=False)
    path.is_symlink() or path.is_dir() or path.chmod(0o666 & ~{umask})
from hatchling import build as backend
backend.build_sdist("out")
backend.build_wheel("out")
"""
        env = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000"}
        subprocess.run([sys.executable, "-c", code], cwd=source, env=env, check=True, capture_output=True, timeout=300)
        made.append({path.name: path.read_bytes() for path in (source / "out").iterdir()})
    assert sorted(made[0]) == [f"det_seg_agent-{__version__}-py3-none-any.whl", f"det_seg_agent-{__version__}.tar.gz"]
    assert made[0] == made[1]
    with tarfile.open(fileobj=io.BytesIO(made[0][f"det_seg_agent-{__version__}.tar.gz"])) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert {"pyproject.toml", "det_seg_agent/selector.py", "CHANGELOG.md"} <= names
    assert "configs/det/yolov8n_coco.yaml" in names
    assert not [name for name in names if "runs/" in name or "work_dirs" in name or name.endswith((".pt", ".png"))]


def test_a_wheel_of_the_sdist_is_that_of_the_sources(wheel: Path, tmp_path: Path) -> None:
    run("cp", "-rP", wheel.parent / "source", tmp_path / "source", cwd=tmp_path)
    code = "from hatchling import build; print(build.build_sdist('out'))"
    name = run(sys.executable, "-c", code, cwd=tmp_path / "source").splitlines()[-1]
    path = tmp_path / "source/out" / name
    words = ("wheel", "-q", "--no-deps", "--no-build-isolation", "-w", tmp_path, path)
    run(sys.executable, "-m", "pip", *words, cwd=tmp_path)
    [made] = tmp_path.glob("*.whl")
    assert made.read_bytes() == wheel.read_bytes()


def test_recipes_are_listed_and_printed(command: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = run(command, "recipe", cwd=tmp_path).split()
    assert {"seg/upernet_r50_80k_ade20k-512x512.py", "det/yolov8n_coco.yaml", "compare/noise.yaml"} <= set(names)
    assert "_base_" not in " ".join(names)
    text = run(command, "recipe", "seg/upernet_r50_80k_ade20k-512x512.py", cwd=tmp_path)
    assert "det_seg_agent/.mim/configs/seg/upernet_r50_80k_ade20k-512x512.py'\n" in text
    assert "Valid: compare/" in run(command, "recipe", "seg/nothing.py", cwd=tmp_path, status=2)
    assert main(["train"]) == 2  # here: a process of its own imports torch for two seconds
    assert "there is no such command. Valid: train-det" in capsys.readouterr().err


def test_a_detector_trains_and_is_judged_again(
    command: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["model=yolov8n.yaml", f"data={scenes}", "epochs=3", "imgsz=64", "batch=16", "device=cpu", "workers=0"]
    words += ["plots=False", f"project={tmp_path}/runs", "name=one"]
    run(command, "train-det", *words, "agent.ratio=0.5", cwd=tmp_path)
    folder = tmp_path / "runs/one"
    told = run(command, "evaluate", folder, cwd=tmp_path)
    judged, trained = (json.loads((folder / name).read_text()) for name in ("evaluation.json", "metrics.json"))
    assert "COCO metrics" in told and judged["coco"] == pytest.approx(trained["coco"], abs=1e-6)
    assert judged["weights"].endswith("best.pt")
    assert main(["evaluate", str(folder), f"weights={folder}/weights/last.pt", "imgsz=96"]) == 0
    assert json.loads((folder / "evaluation.json").read_text())["weights"].endswith("last.pt")
    capsys.readouterr()
    for word, message in (
        ("weights=no.pt", "there is no such file"),
        ("agent.ratio=1", "evaluate takes agent.val_json alone"),
    ):
        assert main(["evaluate", str(folder), word]) == 2
        assert message in capsys.readouterr().err


def test_a_config_that_inherits_ours_trains_and_is_judged_again(
    command: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = run(command, "recipe", "seg/upernet_light_scenes.py", cwd=tmp_path)
    root = "".join(
        f"{name}_dataloader = dict(dataset=dict(data_root={str(scenes)!r}))\n" for name in ("train", "val", "test")
    )
    (tmp_path / "mine.py").write_text(
        config + root + "train_cfg = dict(max_iters=8, val_interval=8)\n"
        "default_hooks = dict(checkpoint=dict(interval=8))\n"
    )
    run(command, "train-seg", "mine.py", "--work-dir", "run", cwd=tmp_path)
    assert json.loads((tmp_path / "run/metrics.json").read_text())["ratio"] == 0.6
    told = run(command, "evaluate", "run", cwd=tmp_path)
    judged = json.loads((tmp_path / "run/evaluation.json").read_text())
    assert "mIoU" in told and judged["metrics"]["mIoU"] > 0 and judged["weights"].endswith("iter_8.pth")
    assert main(["evaluate", str(tmp_path / "run"), "test_dataloader=3"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: evaluate ") and f"/{tmp_path.name}/run: " in said, "a long path is cut to its end"
    assert main(["evaluate", str(tmp_path / "nowhere")]) == 2
    assert "no folder of a run" in capsys.readouterr().err


def test_a_shipped_comparison_is_found_by_name(command: Path, tmp_path: Path) -> None:
    told = run(command, "compare", "compare/noise.yaml", "--list", cwd=tmp_path)
    assert "detection agent 0.5 seed 0" in told and "segmentation full seed 0" in told
    assert "agent 0.5 seed 0" in run(command, "demo", "--list", cwd=tmp_path)
