"""Which words the figures' font can draw."""

from __future__ import annotations

from collections.abc import Sequence


def drawable(labels: Sequence[str], names: Sequence[str]) -> list[str]:
    """What to write on a figure for each label: its name, or the label where a glyph is missing.

    Matplotlib's own font has Latin, Greek and Cyrillic letters, and no Chinese, Japanese or Korean
    ones: these would be drawn as empty boxes, all alike.

    Args:
        labels: slugs.
        names: what people call them, in the same order.
    """
    if list(labels) == list(names):
        return list(labels)
    from matplotlib.font_manager import FontProperties, findfont, get_font

    font = get_font(findfont(FontProperties()))
    return [
        name if all(font.get_char_index(ord(letter)) for letter in name) else label
        for label, name in zip(labels, names, strict=True)
    ]
