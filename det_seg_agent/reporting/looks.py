"""Labels or predictions drawn over small pictures, legible in grey; for the HTML pages of a run and of a data set."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from det_seg_agent.files import printable

MOST_BOXES = 30  # boxes drawn in a picture, the largest
LONGEST = 14  # characters of a name
HEIGHT = 12  # pixels of a name
CLOSEST = 0.3  # least part of an image that is shown
LEAST = 0.01  # share of a picture that a class's pixels need for its name to be written


@dataclass(frozen=True)
class Look:
    """What is drawn over an image.

    Attributes:
        boxes: (n, 4) float, x1 y1 x2 y2 as fractions of the image's width and height, upright as its EXIF tag says.
        names: text of each box.
        mask: (H, W) integers, or None.
        classes: name of each value of the mask; others, such as what is ignored, have none.
    """

    boxes: np.ndarray = field(default_factory=lambda: np.zeros((0, 4)))
    names: Sequence[str] = ()
    mask: np.ndarray | None = None
    classes: Mapping[int, str] = field(default_factory=dict)


Looks = Callable[[Sequence[int]], Sequence[Look | None]]  # from the indices of samples


def small(file: str, side: int, part: tuple[float, float, float, float] | None = None) -> Image.Image | None:
    """Return an image, or a part of it, with its longer side at `side` pixels; None if it cannot be read.

    Args:
        file: the image file.
        side: pixels.
        part: x1 y1 x2 y2 as fractions of the image.
    """
    try:
        with Image.open(file) as image:
            if part is None:
                image.draft("RGB", (side, side))  # JPEG decodes at a fraction of its size
            upright = ImageOps.exif_transpose(image).convert("RGB")
            if part is not None:
                upright = upright.crop(tuple(round(v * upright.size[i % 2]) for i, v in enumerate(part)))  # type: ignore
            return ImageOps.contain(upright, (side, side))
    except Exception:  # decoders raise many kinds of errors on a broken file, and a picture must not end a run
        return None


def drawn(image: Image.Image, look: Look | None) -> Image.Image:
    """Return the image with boxes, borders of masks and names, each in white on black."""
    if look is None:
        return image
    image = image.copy()
    font = ImageFont.load_default(size=11)
    if look.mask is not None:
        image = _borders(image, look.mask)
    draw = ImageDraw.Draw(image)
    if look.mask is not None:
        for (x, y), name in _places(look, image.size):
            _write(draw, x, y, name, font, image.size)
    boxes = np.asarray(look.boxes, dtype=np.float64).reshape(-1, 4).clip(0, 1)
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    for row in np.argsort(-area, kind="stable")[:MOST_BOXES].tolist():
        x1, y1, x2, y2 = _pixels(boxes[row], image)
        draw.rectangle((x1 - 1, y1 - 1, x2 + 1, y2 + 1), outline="black", width=3)
        draw.rectangle((x1, y1, x2, y2), outline="white", width=1)
        _write(draw, x1, y1 - HEIGHT - 2, look.names[row], font, image.size)
    return image


def focus(looks: Sequence[Look | None]) -> tuple[float, float, float, float] | None:
    """Return the part of an image, x1 y1 x2 y2 as fractions, that has all boxes with a margin; None for all of it.

    Objects that are small in their image are hardly seen otherwise.
    """
    boxes = np.concatenate([np.zeros((0, 4)), *(look.boxes for look in looks if look is not None)])
    if not len(boxes):
        return None
    low, high = boxes[:, :2].min(0).clip(0, 1), boxes[:, 2:].max(0).clip(0, 1)
    side = max(float((high - low).max()) * 1.6, CLOSEST)
    if side >= 0.8:
        return None
    start = ((low + high) / 2 - side / 2).clip(0, 1 - side)
    return float(start[0]), float(start[1]), float(start[0] + side), float(start[1] + side)


def cropped(look: Look | None, part: tuple[float, float, float, float]) -> Look | None:
    """Return what is drawn over a part of the image; boxes outside are left out."""
    if look is None:
        return None
    start, size = np.array(part[:2] * 2), part[2] - part[0]
    boxes = (np.asarray(look.boxes, dtype=np.float64).reshape(-1, 4) - start) / size
    seen = (boxes[:, 2:] > 0).all(1) & (boxes[:, :2] < 1).all(1)
    return Look(boxes[seen], [name for name, is_seen in zip(look.names, seen.tolist(), strict=True) if is_seen])


def _pixels(box: np.ndarray, image: Image.Image) -> tuple[int, int, int, int]:
    x1, y1, x2, y2 = np.round(box * np.tile(np.array(image.size) - 1, 2)).astype(int).tolist()
    return x1, y1, max(x1, x2), max(y1, y2)


def _write(
    draw: ImageDraw.ImageDraw, x: float, y: float, text: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont,
    size: tuple[int, int],
) -> None:  # fmt: skip
    text = printable(text)
    text = text if len(text) <= LONGEST else text[: LONGEST - 1] + "\u2026"
    right, bottom = draw.textbbox((0, 0), text, font=font)[2:]
    x, y = min(x, size[0] - right - 3), min(y, size[1] - bottom - 2)
    x, y = max(x, 0), max(y, 0)
    draw.rectangle((x, y, x + right + 2, y + bottom + 1), fill="black")
    draw.text((x + 1, y), text, fill="white", font=font)


def _borders(image: Image.Image, mask: np.ndarray) -> Image.Image:
    """Draw where neighbouring pixels have other values: white, with black on both sides."""
    values = _resized(mask, image.size)
    edge = np.zeros(values.shape, bool)
    edge[:, 1:] |= values[:, 1:] != values[:, :-1]
    edge[1:] |= values[1:] != values[:-1]
    wide = edge.copy()
    for axis in (0, 1):
        for step in (-1, 1):
            wide |= np.roll(edge, step, axis)
    pixels = np.array(image)
    pixels[wide] = 0
    pixels[edge] = 255
    return Image.fromarray(pixels)


def _resized(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    rows = (np.arange(size[1]) + 0.5) * mask.shape[0] / size[1]
    columns = (np.arange(size[0]) + 0.5) * mask.shape[1] / size[0]
    resized: np.ndarray = mask[rows.astype(int)[:, None], columns.astype(int)[None]]
    return resized


def _places(look: Look, size: tuple[int, int]) -> list[tuple[tuple[int, int], str]]:
    """Return where each class's name is written: its pixel nearest to the centre of all."""
    assert look.mask is not None
    values, result = _resized(look.mask, size), []
    for value, name in look.classes.items():
        rows, columns = np.nonzero(values == value)
        if len(rows) >= LEAST * values.size and len(rows):
            near = np.argmin((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2)
            result.append(((int(columns[near]), int(rows[near])), name))
    return result
