"""A piece of a report (words, a table, a small figure) that reads the same as Markdown and as HTML.

Pages are one file, load nothing from elsewhere, and fit a phone; figures stand in them as WebP at
the size of their display, and lie beside the report whole. Pure text from values. Called by the
pages of `report` and of `validate`.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import NamedTuple

from PIL import Image

from pipelines.serving.trust import Interval

#: Twice 400 px: a figure is shown 320 to 640 px wide.
_WIDTHS_PX = (800, 640, 480)
_QUALITIES = (80, 60, 40, 20)


class Embedded(NamedTuple):
    """A picture that a page holds."""

    webp: bytes
    width_px: int
    height_px: int


def embedded(png: bytes, most_bytes: int) -> Embedded:
    """The best copy of a figure within so many bytes, or the smallest that is tried.

    Args:
        png: bytes of the file.
        most_bytes: bound on the copy.
    """
    with Image.open(io.BytesIO(png)) as image:
        whole = image.convert("RGB")
    copy = Embedded(b"", 0, 0)
    for width in _WIDTHS_PX:
        # By the longer side too: a sheet may be many times as high as it is wide.
        factor = min(1.0, width / whole.width, 2 * width / whole.height)
        size = (max(1, round(whole.width * factor)), max(1, round(whole.height * factor)))
        small = whole.resize(size, Image.Resampling.LANCZOS) if factor < 1 else whole
        for quality in _QUALITIES:
            buffer = io.BytesIO()
            small.save(buffer, "WEBP", quality=quality, method=4)
            copy = Embedded(buffer.getvalue(), *size)
            if len(copy.webp) <= most_bytes:
                return copy
    return copy


# -- blocks ---------------------------------------------------------------------------------------
_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #ffffff; --soft: #f2f4f7;
  --line: #d5dae1; --warn: #8a3b00; --warn-paper: #fff1e0; --good: #00543c; --bad: #9a2b00; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8eaed; --paper: #14171b; --soft: #1e2329;
  --line: #39414b; --warn: #ffc58a; --warn-paper: #3a2410; --good: #6fd6b0; --bad: #ff9f7a; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 72rem; background: var(--paper);
  color: var(--ink); font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.3rem; margin: 0; } h3 { font-size: 1.05rem; }
section { border-top: 1px solid var(--line); padding: 1.5rem 0; }
.note { background: var(--warn-paper); color: var(--warn); border-left: 6px solid var(--warn);
  padding: .8rem 1rem; font-weight: 600; }
.scroll { overflow: auto; } .long { max-height: 40rem; }
table { border-collapse: collapse; min-width: 100%; font-size: .85rem; line-height: 1.35; }
th, td { text-align: left; vertical-align: top; padding: .35rem .45rem; min-width: 3.5rem;
  border-bottom: 1px solid var(--line); font-variant-numeric: tabular-nums; overflow-wrap: normal; }
td.words { min-width: 12rem; }
th { background: var(--soft); position: sticky; top: 0; }
.tag { display: inline-block; padding: .05rem .5rem; border: 1px solid; border-radius: 1rem;
  font-size: .85rem; } .good { color: var(--good); } .bad { color: var(--bad); }
.warn { color: var(--warn); }
.figures { display: grid; gap: 1rem; align-items: start;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr)); }
figure { margin: 0; } img { width: 100%; max-width: 40rem; height: auto; background: #fff; }
figcaption { font-size: .9rem; }
"""

#: A table of more rows scrolls in a frame of its own; a shorter one is shown whole.
_LONG_TABLE = 60
#: Cells with more characters than this may break into lines on a page.
_LONG_CELL = 48


@dataclass(frozen=True, slots=True)
class Block:
    """Words, then a table.

    Attributes:
        title: heading; empty for none.
        header: of the table.
        rows: of the table; without any there is no table.
        words: a paragraph each, before the table.
        is_warning: whether the words must not be missed.
    """

    title: str
    words: tuple[str, ...] = ()
    header: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    is_warning: bool = False


# -- numbers --------------------------------------------------------------------------------------
def share(value: float | None) -> str:
    """A share in three decimals.

    Args:
        value: None where it is not defined.
    """
    return "n/a" if value is None else f"{value:.3f}"


def with_interval(interval: Interval | None, value: float | None = None, sign: str = "") -> str:
    """A figure and its interval, e.g. ``0.912 (0.870 to 0.948)``.

    Args:
        interval: None where there is none.
        value: shown alone where there is no interval.
        sign: ``+`` to show the sign of differences.
    """
    if interval is None:
        return "n/a" if value is None else f"{value:{sign}.3f}"
    low, high = f"{interval.low:{sign}.3f}", f"{interval.high:{sign}.3f}"
    return f"{interval.value:{sign}.3f} ({low} to {high})"


# -- Markdown -------------------------------------------------------------------------------------
def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table.

    Args:
        header: headings.
        rows: as many cells each.
    """
    lines = [list(header), ["---"] * len(header)]
    lines += [[_one_line(cell).replace("|", "\\|") for cell in row] for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def markdown(block: Block, level: int) -> str:
    """A block, with an empty line at its end.

    Args:
        block: what to say.
        level: of its heading.
    """
    parts = [f"{'#' * level} {block.title}\n"] if block.title else []
    for words in block.words:
        text = _one_line(words)
        parts.append(f"> **{text}**\n" if block.is_warning else f"{text}\n")
    if block.rows:
        parts.append(markdown_table(block.header, block.rows))
    return "\n".join(parts) + "\n"


def _one_line(text: str) -> str:
    return " ".join(text.split())


# -- HTML -----------------------------------------------------------------------------------------
def html(block: Block) -> str:
    """A block.

    Args:
        block: what to say.
    """
    parts = [f"<h3>{escape(block.title)}</h3>\n"] if block.title else []
    tone = ' class="note"' if block.is_warning else ""
    for words in block.words:
        parts.append(f"<p{tone}>{escape(words)}</p>\n")
    if block.rows:
        parts.append(html_table(block.header, block.rows))
    return "".join(parts)


def html_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table that scrolls sideways where it is too wide.

    Args:
        header: headings.
        rows: as many cells each.
    """
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join(f"<tr>{''.join(map(_html_cell, row))}</tr>\n" for row in rows)
    frame = "scroll long" if len(rows) > _LONG_TABLE else "scroll"
    return (
        f'<div class="{frame}" tabindex="0"><table>\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}</tbody></table></div>\n"
    )


def _html_cell(text: str) -> str:
    words = ' class="words"' if len(text) > _LONG_CELL else ""
    return f"<td{words}>{escape(text)}</td>"


def tag(text: str, tone: str) -> str:
    """A word in a round frame.

    Args:
        text: the word.
        tone: ``good``, ``bad`` or ``warn``.
    """
    return f'<span class="tag {tone}">{escape(text)}</span>'


def figure(caption: str, picture: Embedded) -> str:
    """A picture, inside the page.

    Args:
        caption: below it, and read aloud instead of it.
        picture: what to show.
    """
    data = base64.b64encode(picture.webp).decode("ascii")
    return (
        f'<figure><img alt="{escape(caption)}" width="{picture.width_px}" '
        f'height="{picture.height_px}" src="data:image/webp;base64,{data}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>\n"
    )


def page(title: str, body: str) -> str:
    """A whole page, complete in itself.

    Args:
        title: of the window, and its first heading.
        body: HTML.
    """
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{escape(title)}</h1>\n{body}</body>\n</html>\n"
    )
