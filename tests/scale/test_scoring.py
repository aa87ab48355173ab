from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow
import pytest

from pipelines.scale.scoring import Job, schema_of, typed
from pipelines.serving.detection import ServedDetection
from pipelines.serving.embedding import ServedEmbedding
from pipelines.serving.segmentation import ServedSegmentation
from tests.serving import test_detection, test_embedding, test_segmentation

BOXES = np.float32([[0.1, 0.1, 0.5, 0.6, 0.9, 0]])
MASK = np.zeros((1, test_segmentation.SIDE_PX, test_segmentation.SIDE_PX), np.float32)
VECTOR = np.float32([0, 1, 0])


@pytest.mark.parametrize(
    ("kind", "bundle", "outputs", "expected"),
    [
        (
            ServedDetection(),
            test_detection.bundle_of(["a", "b"], {"a": 0.5, "b": 0.5}, n=1),
            {"boxes": BOXES},
            {"n_a": 1.0, "n_b": 0.0},
        ),
        (
            ServedSegmentation(),
            test_segmentation.bundle_of("a"),
            {"mask": MASK},
            {"area_share_a": 0.0, "box_px_a": ""},
        ),
        # Without a gallery.
        (
            ServedEmbedding(),
            test_embedding.bundle_of(0.75),
            {"vector": VECTOR},
            {"nearest": "", "distance": None},
        ),
    ],
    ids=["detection", "segmentation", "embedding"],
)
def test_numbers_are_numbers_in_a_row_of_every_kind(kind, bundle, outputs, expected):
    size = (bundle.input.shape[2], bundle.input.shape[1])
    geometry = bundle.preprocess.build().geometry(size)
    row = typed(kind, kind.decode(outputs, bundle, geometry), bundle)
    assert {name: row[name] for name in expected} == expected
    schema = schema_of(bundle, Job(Path("bundle.json"), "int8"))
    assert set(row) < set(schema.names)
    assert pyarrow.Table.from_pylist([row], schema=schema).num_rows == 1
