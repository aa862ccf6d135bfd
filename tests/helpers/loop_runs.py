"""Trainers that keep what their epochs trained on, for the real Ultralytics."""

from typing import Any

from det_seg_agent.det.trainer import AgentDetectionTrainer

IMAGES = 21  # no multiple of a batch
LOOP = {"batch": 4, "epochs": 4, "nbs": 4, "optimizer": "SGD", "val": False}


def watched(stock: Any) -> Any:
    """Return a subclass of a trainer that keeps, by epoch, the image files of its batches, selection and steps.

    A batch counts once its loss has been taken; an epoch that begins again starts anew.
    """

    class Watched(stock):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any):
            super().__init__(*args, **kwargs)
            self.batches: dict[int, list[list[str]]] = {}
            self.chosen: dict[int, list[int]] = {}
            self.steps: dict[int, int] = {}
            self.add_callback("on_train_epoch_start", Watched.start)

        def start(self) -> None:
            self.batches[self.epoch], self.steps[self.epoch] = [], 0
            if isinstance(self, AgentDetectionTrainer):
                self.chosen[self.epoch] = self.selector.selection.indices.tolist()

        def preprocess_batch(self, batch: Any) -> Any:
            if hasattr(self, "epoch"):
                self.batches[self.epoch].append(list(batch["im_file"]))
            return super().preprocess_batch(batch)

        def optimizer_step(self) -> None:
            self.steps[self.epoch] += 1
            super().optimizer_step()

    Watched.__name__ = stock.__name__
    return Watched


def check_counts(trainer: Any, whole: bool = True) -> None:
    """Check that selections are what was trained on, and that all figures are those of the batches that there were.

    Args:
        trainer: a watched one of ours, after its training.
        whole: whether every pass was.
    """
    files = [str(file) for file in trainer.train_loader.dataset.im_files]
    history, images = trainer.selector.history, 0
    assert len(history) == len(trainer.batches)
    for row, (epoch, batches) in zip(history, trainer.batches.items(), strict=True):
        shown = {files.index(file) for batch in batches for file in batch}
        images += sum(map(len, batches))
        assert row["pass"] == epoch and row["images"] == images, epoch
        if whole and not trainer.selector.selects_all:
            assert shown == set(trainer.chosen[epoch]), epoch
        assert shown <= set(trainer.chosen[epoch])
    cost = trainer.report.cost()
    assert cost["images_trained"] == images and cost["passes"] == len(history)
    lines = [line.split(",") for line in (trainer.save_dir / "results.csv").read_text().splitlines()]
    column = lines[0].index("agent/images")
    assert [int(line[column]) for line in lines[1:]] == [row["images"] for row in history]
