"""Images in a folder of folders, one for each class, as ImageNet-1k is laid out. `hf.recipe` builds it."""

from pathlib import Path
from typing import Any

from torchvision import transforms
from torchvision.datasets import ImageFolder

from det_seg_agent.errors import ConfigError

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as torchvision's recipes have them


class Folder(ImageFolder):
    """The images of a split: ROOT/train/CLASS/*.jpg.

    Training images are cropped at random and flipped; the others are cropped in the middle.

    Args:
        root: folder with the splits.
        split: name of the split.
        size: side of the images that the model gets, in pixels.

    Attributes:
        samples: (file, class) of each image.
        targets: class of each image.
        classes: names of the classes.

    Raises:
        ConfigError: if there are no images.
    """

    def __init__(self, root: Path, split: str, size: int):
        if not (root / split).is_dir():
            raise ConfigError(
                f"data={str(root)!r}: it has no folder {split}/. Lay the images out as train/CLASS/*.jpg and "
                "val/CLASS/*.jpg."
            )
        try:
            super().__init__(str(root / split))
        except (FileNotFoundError, OSError) as error:
            raise ConfigError(f"data={str(root)!r}: {split}/: {error}.".replace("..", ".")) from error
        crop: list[Any] = [transforms.RandomResizedCrop(size), transforms.RandomHorizontalFlip()]
        if split != "train":
            crop = [transforms.Resize(round(size * 256 / 224)), transforms.CenterCrop(size)]
        self.prepare = transforms.Compose([*crop, transforms.ToTensor(), transforms.Normalize(MEAN, STD)])

    def __getitem__(self, index: int) -> dict[str, Any]:
        path, label = self.samples[index]
        return {"pixel_values": self.prepare(self.loader(path)), "labels": label}
