"""A training of either toolbox in an environment that lacks the extra `report`."""

from pathlib import Path

import pytest
from det_runs import write_model
from test_extra import without


@pytest.mark.slow
@pytest.mark.parametrize("task", ["det", "seg"])
def test_a_training_without_the_report_runs(task: str, scenes: Path, tmp_path: Path) -> None:
    at = f"{tmp_path}/run"
    words = {
        "det": f"model={write_model(tmp_path)} data={scenes} epochs=3 imgsz=64 device=cpu workers=0 plots=False "
        f"save_dir={at} agent.ratio=0.5",
        "seg": f"seg/upernet_light_scenes.py --work-dir {at} --cfg-options train_cfg.max_iters=8 "
        f"train_cfg.val_interval=8 param_scheduler.0.end=8 train_dataloader.dataset.data_root={scenes} "
        f"val_dataloader.dataset.data_root={scenes} test_dataloader.dataset.data_root={scenes}",
    }[task].split()
    code = f"from det_seg_agent.{task}.cli import main; sys.exit(main({words!r}))"
    done = without(("pyarrow",) if task == "seg" else ("pyarrow", "rich"), code, tmp_path)  # MMEngine needs rich
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert done.stdout.count("no trace, samples.parquet in this run: No module named 'pyarrow'") == 1
    assert (tmp_path / "run/metrics.json").is_file() and (tmp_path / "run/agent.png").is_file()
    assert not (tmp_path / "run/trace").exists()
