"""Figures of an embedding: error rates of pairs, and pictures with their nearest.

Pictures come as ``(query, its name, [(neighbour, its caption, whether it is right)])``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from pipelines.metrics.retrieval import Pairs, equal_error_rates, error_rates
from pipelines.plots.figures import BLUE, GREEN, GREY, ORANGE, png, shortened, style

Pixels = NDArray[np.uint8]
Row = tuple[Pixels, str, Sequence[tuple[Pixels, str, bool]]]

_TILE_PX = 160
_INCHES = 1.45


def verification(pairs: Pairs, bound: float) -> bytes:
    """How far pairs lie apart, and the errors that each bound would make.

    Args:
        bound: the distance that was chosen.
    """
    matches, misses = (rate[0] for rate in error_rates(pairs))
    rate = float(equal_error_rates(pairs)[0][0])
    edges = np.linspace(0, max(float(pairs.distance[-1]), bound) * 1.02 + 1e-6, 41)
    with style():
        figure = Figure(figsize=(9, 3.8))
        left, right = figure.subplots(1, 2)
        for is_same, colour, name, hatch in (
            (True, BLUE, "one identity", "//"),
            (False, ORANGE, "two identities", ""),
        ):
            far = pairs.distance[pairs.is_same == is_same]
            left.hist(
                far,
                edges,
                weights=np.full(len(far), 100 / max(len(far), 1)),
                color=colour,
                alpha=0.55,
                hatch=hatch,
                label=f"{name} ({len(far):,})",
            )
        left.axvline(bound, color=GREY, ls="--", label=f"same up to {bound:.3f}")
        left.set_xlabel("distance")
        left.set_ylabel("% of the pairs")
        left.legend(fontsize=9)
        right.plot(100 * matches, 100 * (1 - misses), color=BLUE)
        right.plot([0, 100], [100, 0], color=GREY, ls=":", label=f"EER {rate:.1%}")
        place = max(0, int(np.searchsorted(pairs.distance, bound, side="right")) - 1)
        right.plot(100 * matches[place], 100 * (1 - misses[place]), "o", color=ORANGE)
        right.set_xlabel("% of pairs of two identities called the same")
        right.set_ylabel("% of pairs of one called the same")
        right.set_title("verification, test split", fontsize=11)
        right.legend(fontsize=9, loc="lower right")
        return png(figure)


def neighbour_sheet(rows: Sequence[Row]) -> bytes:
    """A row a query: it, then its nearest with distances; frame and sign say which fit."""
    n_columns = 1 + max(len(near) for _, _, near in rows)
    with style():
        figure = Figure(figsize=(_INCHES * n_columns, (_INCHES + 0.25) * len(rows)))
        grid = figure.subplots(len(rows), n_columns, squeeze=False)
        for axes in grid.ravel():
            axes.axis("off")
        for line, (query, name, near) in zip(grid, rows, strict=True):
            line[0].imshow(_tile(query))
            line[0].set_title(shortened(name), fontsize=8, fontweight="bold")
            for axes, (pixels, caption, is_right) in zip(line[1:], near, strict=False):
                colour = GREEN if is_right else ORANGE
                axes.imshow(_tile(pixels))
                axes.axis("on")
                axes.set(xticks=[], yticks=[])
                for spine in axes.spines.values():
                    spine.set(visible=True, color=colour, linewidth=2.5)
                sign = "✓" if is_right else "✗"
                axes.set_title(f"{sign} {shortened(caption)}", fontsize=7, color=colour)
        return png(figure)


def _tile(pixels: Pixels) -> Pixels:
    image = Image.fromarray(pixels)
    image.thumbnail((_TILE_PX, _TILE_PX))
    tile = Image.new("RGB", (_TILE_PX, _TILE_PX), "white")
    tile.paste(image, ((_TILE_PX - image.width) // 2, (_TILE_PX - image.height) // 2))
    return np.asarray(tile)
