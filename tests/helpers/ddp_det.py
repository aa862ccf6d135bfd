"""Detection in several processes, gloo on a CPU, where the host knows CUDA devices alone.

By torchrun: `python -m torch.distributed.run --nproc_per_node 2 ddp_det.py DATA FOLDER`; with a third word, the number
of processes, it starts the host's own launcher instead. Each rank leaves what it holds in `FOLDER/rank_<r>.pt`. With
STOP_BEFORE=epoch in the environment all ranks are killed there, and with RESUME=checkpoint they go on from it.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel


class CpuParallel(DistributedDataParallel):
    """The host names a device's index, and a CPU has none."""

    def __init__(self, module: Any, device_ids: Any = None, **options: Any):
        super().__init__(module, **options)


torch.nn.parallel.DistributedDataParallel = CpuParallel  # type: ignore[misc,assignment]

from det_runs import fit  # noqa: E402
from ultralytics import YOLO  # noqa: E402
from ultralytics.models.yolo.detect import DetectionTrainer  # noqa: E402

from det_seg_agent.det.judge import judge  # noqa: E402
from det_seg_agent.det.trainer import AgentDetectionTrainer  # noqa: E402

RUN: dict[str, Any] = {"epochs": 4, "batch": 12, "nbs": 24, "warmup_epochs": 1, "optimizer": "SGD", "seed": 1}
AGENT: dict[str, Any] = {"ratio": 0.4, "final_full": 0}


class OnCpu(DetectionTrainer):
    """Stands between ours and the host's trainer."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.world_size = int(os.environ.get("WORLD_SIZE") or os.environ["PROCESSES"])
        self.ddp = "LOCAL_RANK" not in os.environ

    def _setup_ddp(self) -> None:
        dist.init_process_group("gloo")

    def final_eval(self) -> None:
        """Do nothing: the host asks for a CUDA device."""


class OnCpuAgent(AgentDetectionTrainer, OnCpu):
    """Ours, which keeps what each rank saw and held."""

    def get_dataloader(self, *args: Any, **kwargs: Any) -> Any:
        loader = super().get_dataloader(*args, **kwargs)
        if not hasattr(self, "kept"):
            self.kept: dict[str, Any] = {"shown": [], "stream": [], "selections": [], "padding": [], "writes": []}
            inner = self.selector.observe

            def observe(*signals: Any, **more: Any) -> None:
                self.kept["stream"][-1].append((signals, more))
                inner(*signals, **more)

            self.selector.observe = observe  # type: ignore[method-assign]
            folder = str(self.save_dir)

            def watch(event: str, values: Any) -> None:
                if event == "open" and str(values[0]).startswith(folder) and values[2] & (os.O_WRONLY | os.O_RDWR):
                    self.kept["writes"].append(values[0])
                if event == "os.rename" and str(values[1]).startswith(folder):
                    self.kept["writes"].append(values[1])

            sys.addaudithook(watch)
        return loader

    def _on_train_epoch_start(self) -> None:
        if self.epoch == int(os.environ.get("STOP_BEFORE", -1)):
            os.kill(os.getpid(), signal.SIGKILL)
        super()._on_train_epoch_start()
        self.kept["stream"].append([])
        self.kept["shown"].append([])
        self.kept["selections"].append(self.selector.selection.indices)
        self.kept["padding"].append(self.selector.sampler.padding)

    def preprocess_batch(self, batch: Any) -> Any:
        files = [str(file) for file in self.train_loader.dataset.im_files]
        self.kept["shown"][-1].extend(files.index(str(file)) for file in batch["im_file"])
        return super().preprocess_batch(batch)

    def _do_train(self) -> None:
        super()._do_train()
        rank = int(os.environ["RANK"])
        judged = judge(self) if rank == 0 else {}  # it must not wait for the other ranks
        kept = {**self.kept, "state": self.selector.state_dict(), "settings": self.agent_settings.model_dump()}
        weights = dict(self.model.module.named_parameters())
        kept["weights"] = {name: value.detach().clone() for name, value in weights.items()}
        kept["callbacks"] = sum(f.__name__ == "_on_train_epoch_end" for f in self.callbacks["on_train_epoch_end"])
        kept["judged"] = judged
        torch.save(kept, Path(os.environ["OUT"]) / f"rank_{rank}.pt")
        dist.barrier()
        dist.destroy_process_group()


def main(data: str, folder: Path, processes: int | None = None) -> None:
    """Train."""
    os.environ["OUT"] = str(folder)
    if processes is not None:
        os.environ["PROCESSES"] = str(processes)
    if "RESUME" in os.environ:
        YOLO(os.environ["RESUME"]).train(trainer=OnCpuAgent, resume=True)
        return
    model = folder / "yolov8n.yaml"
    fit(str(model), data, folder, "run", OnCpuAgent.configured(**AGENT), **RUN)


if __name__ == "__main__":
    # By its name, so that a child process of the host's launcher finds the classes.
    sys.path.insert(0, str(Path(__file__).parent))
    import ddp_det

    ddp_det.main(sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:]))
