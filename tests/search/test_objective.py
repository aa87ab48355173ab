"""One cell, from images to figures."""

from __future__ import annotations

from pipelines.search.cells import Cell

CELL = Cell(backbone="toy", width=1.0, image_px=32)


def test_cell(objective_of):
    result = objective_of()(CELL)
    print(result.model_dump_json(indent=2))
