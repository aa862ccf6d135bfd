"""Contact sheets of the images that were selected most and least often. `Report` writes them."""

from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont, ImageOps
from torch import Tensor

from det_seg_agent.files import printable, replacing

CELL = (200, 150)
CAPTION, HEADER = 20, 34


def order(times_selected: Tensor, order_by: Tensor, most: bool, count: int) -> list[int]:
    """Return the `count` samples selected most (or least) often; ties by `order_by` in the same direction, NaN last."""
    sign = -1 if most else 1
    tie = (order_by.double() * sign).nan_to_num(nan=float("inf"))
    by_tie = tie.argsort(stable=True)
    by_times = (times_selected.double()[by_tie] * sign).argsort(stable=True)
    picked: list[int] = by_tie[by_times][:count].tolist()
    return picked


def contact_sheets(
    files: list[str],
    times_selected: Tensor,
    passes: int,
    order_by: Tensor,
    folder: Path,
    grid: tuple[int, int] = (6, 4),
    notes: list[str] | None = None,
) -> list[Path]:
    """Write `most_selected.jpg` and `least_selected.jpg` and return their paths.

    Args:
        files: image file of each of N samples.
        times_selected: (N,) int, number of passes that selected each sample.
        passes: number of passes of the run.
        order_by: (N,) float that breaks ties.
        folder: output folder.
        grid: number of columns and rows.
        notes: caption of each sample; by default the end of its file's name.
    """
    paths = []
    for most in (True, False):
        picked = order(times_selected, order_by, most, grid[0] * grid[1])
        times = times_selected[picked] if picked else torch.zeros(1)
        word = "most" if most else "least"
        title = (
            f"Selected {word}: {len(picked)} of {len(files)} images, chosen in {int(times.min())} to "
            f"{int(times.max())} of {passes} passes"
        )
        said = [printable(Path(files[i]).stem[-16:]) if notes is None else notes[i] for i in picked]
        captions = [f"{text}   {int(times_selected[i])}/{passes}" for i, text in zip(picked, said, strict=True)]
        path = Path(folder) / f"{word}_selected.jpg"
        sheet = _sheet([files[i] for i in picked], captions, title, grid)
        with replacing(path) as part:
            sheet.save(part, "JPEG", quality=88)
        paths.append(path)
    return paths


def _sheet(files: list[str], captions: list[str], title: str, grid: tuple[int, int]) -> Image.Image:
    rows = -(-len(files) // grid[0])
    sheet = Image.new("RGB", (grid[0] * CELL[0], HEADER + rows * (CELL[1] + CAPTION)), "white")
    draw = ImageDraw.Draw(sheet)
    small = ImageFont.load_default(size=13)
    draw.text((8, 7), title, fill="black", font=ImageFont.load_default(size=17))
    for i, (file, caption) in enumerate(zip(files, captions)):
        x, y = i % grid[0] * CELL[0], HEADER + i // grid[0] * (CELL[1] + CAPTION)
        size = (CELL[0] - 6, CELL[1] - 4)
        try:
            with Image.open(file) as image:
                cell = ImageOps.pad(ImageOps.exif_transpose(image).convert("RGB"), size, color="white")
        except Exception:  # decoders raise many kinds of errors on a broken file, and a picture must not end a run
            cell = Image.new("RGB", size, "#bbbbbb")
            ImageDraw.Draw(cell).text((size[0] / 2, size[1] / 2), "unreadable", fill="black", font=small, anchor="mm")
        sheet.paste(cell, (x + 3, y))
        draw.text((x + 5, y + CELL[1] - 2), caption, fill="black", font=small)
    return sheet
