"""Parts of self-contained HTML pages without scripts, readable on a narrow screen and in grey."""

import base64
import html
import io
import re
from collections.abc import Iterable, Sequence

from PIL import Image

from det_seg_agent.files import printable
from det_seg_agent.reporting.looks import Look, cropped, drawn, focus, small

SIDE = 240  # pixels of a picture's longer side
LONGEST = 32  # characters of a file's name

STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #111; background: #fff; max-width: 72rem; margin: 2rem auto;
  padding: 0 1rem; }
h1, h2 { line-height: 1.25; } h2 { margin-top: 2.5rem; border-bottom: 1px solid #999; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .8rem 0; }
caption { text-align: left; font-weight: 600; padding: .3rem 0; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap; }
thead th { border-bottom: 2px solid #111; vertical-align: bottom; }
th[scope=row], th:first-child { text-align: left; white-space: normal; overflow-wrap: anywhere; min-width: 6rem; }
.bar { display: inline-block; height: .7rem; background: #555; vertical-align: middle; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(10rem, 1fr)); gap: .8rem; }
.pairs { grid-template-columns: repeat(auto-fill, minmax(min(100%, 22rem), 1fr)); }
figure { margin: 0; } figure img { max-width: 100%; max-height: 14rem; width: auto; height: auto; }
.pairs figure div { display: grid; grid-template-columns: 1fr 1fr; gap: .3rem; align-items: start; }
figcaption { color: #333; font-size: .85em; overflow-wrap: anywhere; } .note { color: #444; }
.missing { background: #ddd; padding: 2rem .5rem; text-align: center; }
li { margin: .4rem 0; } li, p, h1 { overflow-wrap: anywhere; } ul { padding-left: 1.4rem; }
@media (max-width: 40rem) {
  body { margin: 1rem auto; padding: 0 .6rem; } th, td { padding: .2rem .4rem; font-size: .9em; }
  .grid { grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr)); gap: .5rem; }
  .pairs { grid-template-columns: 1fr; }
}
@media print { body { max-width: none; margin: 0; } figure, table { break-inside: avoid; } }
"""


def text(value: object) -> str:
    """Return a value as HTML text; bytes of a file name that cannot be encoded are escaped."""
    return html.escape(printable(str(value)))


def short(name: str) -> str:
    """Return the name of a file for a caption, cut at its start."""
    name = printable(name)
    return name if len(name) <= LONGEST else "\u2026" + name[1 - LONGEST :]


def prose(line: str) -> str:
    """Return a sentence as HTML text, with code where it has backticks."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", text(line))


def page(title: str, lead: str, parts: Iterable[str]) -> str:
    """Return a page with a title, a sentence below it, and parts in HTML."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{text(title)}</title><style>{STYLE}</style></head><body>\n"
        f'<h1>{text(title)}</h1>\n<p class="note">{text(lead)}</p>\n' + "\n".join(part for part in parts if part)
    ) + "\n</body></html>\n"


def section(title: str, note: str, content: str) -> str:
    """Return a section with its heading and an explanation; nothing without content."""
    if not content:
        return ""
    return f'<section><h2>{text(title)}</h2><p class="note">{prose(note)}</p>\n{content}</section>'


def bullets(lines: Iterable[str]) -> str:
    """Return a list of lines."""
    items = "".join(f"<li>{prose(line)}</li>" for line in lines)
    return f"<ul>{items}</ul>" if items else ""


def table(head: Sequence[str], rows: Iterable[Sequence[object]], bar: int | None = None, form: str = ".2f") -> str:
    """Return a table; the first column names the rows, column `bar` has shares in 0..1 that are shown with bars."""
    lines = []
    for row in rows:
        cells = [f'<th scope="row">{text(row[0])}</th>']
        for place, value in enumerate(row[1:], 1):
            if place == bar and isinstance(value, float):
                shown = f'{value:{form}} <span class="bar" style="width:{5 * min(max(value, 0.0), 1.0):.2f}rem"></span>'
                cells.append(f'<td style="text-align:left">{shown}</td>')
            else:
                cells.append(f"<td>{text(value)}</td>")
        lines.append(f"<tr>{''.join(cells)}</tr>")
    if not lines:
        return ""
    first = "".join(f'<th scope="col">{text(name)}</th>' for name in head)
    return (
        f'<div class="scroll"><table><thead><tr>{first}</tr></thead><tbody>\n'
        + "\n".join(lines)
        + "</tbody></table></div>"
    )


def picture(
    file: str, alt: str, looks: Sequence[Look | None] = (None,), kept: Sequence[str] = (), near: bool = False
) -> str:
    """Return an image as HTML, once for each look.

    Args:
        file: the image file.
        alt: alternative text.
        looks: what is drawn, in each copy.
        kept: more of the alternative text of each copy.
        near: whether only the part with boxes is shown, where they are small.
    """
    part = focus(looks) if near else None
    image = small(file, SIDE, part)
    if part is not None:
        looks = [cropped(look, part) for look in looks]
    if image is None:
        return f'<div class="missing">{text(alt)}: unreadable</div>'
    return "".join(
        f'<img width="{image.width}" height="{image.height}" alt="{text(" ".join((alt, *kept[place : place + 1])))}" '
        f'src="{_encoded(drawn(image, look))}">'
        for place, look in enumerate(looks)
    )


def _encoded(image: Image.Image) -> str:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()


def figure(content: str, caption: str, wrap: bool = False) -> str:
    """Return a figure with its caption; `wrap` sets its pictures side by side."""
    inner = f"<div>{content}</div>" if wrap else content
    return f"<figure>{inner}<figcaption>{text(caption)}</figcaption></figure>"


def grid(figures: Iterable[str], pairs: bool = False) -> str:
    """Return figures in a grid whose columns follow the width of the screen; nothing without figures."""
    content = "".join(figures)
    return f'<div class="grid{" pairs" if pairs else ""}">{content}</div>' if content else ""
