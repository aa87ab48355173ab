"""A small project of the kind: bright spots, and masks that show them."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipelines.card import DatasetCard, load_card
from pipelines.paths import Paths
from tests.tiny_params import PARAMS, PHASE
from tests.toy_card import CARD

TASK = "spots"
LABELS = ("spot",)
WIDTH_PX, HEIGHT_PX = 60, 44
SECTION: dict[str, Any] = {
    "domain": "agriculture",
    "fetch": {"source": {"kind": "folder", "path": "."}},
    "prepare": {
        **{"val_fraction": 0.25, "test_fraction": 0.25, "near_duplicate_bits": 0},
        **{"max_quarantine_fraction": 0.1, "min_side_px": 8},
    },
    "audit": {
        **{"folds": 2, "suspicious_share": 0.3, "shortcut_share": 0.6},
        "accepted": "Only a toy.",
    },
    "train": {
        **PARAMS,
        **{"image_px": 64, "crop_fraction": 1.0, "batch_size": 8, "views": 1},
        # Brightness is told by a head on features that were never trained.
        "head_phase": {**PHASE, "epochs": 30, "learning_rate": 1.5},
        "tail_phase": {**PHASE, "epochs": 1, "learning_rate": 0.00001},
        "monitor": "val_dice",
    },
    "export": {
        **{"calibration_images": 8, "remedies": ["minmax"], "min_agreement": 0.0},
        **{"max_int8_bytes": 10**7, "min_speedup": 1e-6, "acceptance": 0.9},
    },
    "evaluate": {"calibration_bins": 5, "resamples": 100},
    "gate": {
        "max_int8_bytes": 10**7,
        "demands": [{"metric": "served.dice", "at_least": 0.0}],
    },
}


def paint(raw_dir: Path, n_images: int) -> None:
    """Pictures, masks and records.csv; every sixth shows nothing, two are a group."""
    draw = np.random.default_rng(2)
    for folder in ("images", "masks"):
        (raw_dir / folder).mkdir(parents=True)
    y, x = np.mgrid[:HEIGHT_PX, :WIDTH_PX]
    rows = []
    for number in range(n_images):
        centre = draw.uniform((14, 14), (WIDTH_PX - 14, HEIGHT_PX - 14))
        radius = 5 + 8 * (number % 7) / 6
        shown = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 < radius**2
        shown &= number % 6 > 0
        pixels = np.clip(60 + 140 * shown + draw.normal(0, 10, shown.shape), 0, 255)
        name = f"{number:02d}.png"
        Image.fromarray(pixels.astype(np.uint8)).convert("RGB").save(raw_dir / "images" / name)
        Image.fromarray((255 * shown).astype(np.uint8)).save(raw_dir / "masks" / name)
        rows.append((f"images/{name}", f"g{number // 2}"))
    with (raw_dir / "records.csv").open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream, lineterminator="\n").writerows([("path", "group"), *rows])


def card_text() -> str:
    lines = CARD.format(title="Spots", task=TASK).splitlines(keepends=True)
    kept = [line for line in lines if not line.startswith(("classes:", "  - "))]
    return "".join(kept) + (
        "kind: segmentation\nclasses:\n  - {label: spot, meaning: A bright spot.}\n"
    )


def card_of() -> DatasetCard:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / TASK / "card.yaml"
        file.parent.mkdir()
        file.write_text(card_text(), encoding="utf-8")
        return load_card(file)


def project(root: Path, n_images: int) -> Paths:
    """A project whose images are there, and whose stages have not run."""
    paths = Paths(root)
    files = paths.task(TASK)
    paint(files.raw_dir, n_images)
    files.card.write_text(card_text(), encoding="utf-8")
    # JSON is YAML 1.2.
    paths.params.write_text(json.dumps({"seed": 5, "tasks": {TASK: SECTION}}), encoding="utf-8")
    return paths
