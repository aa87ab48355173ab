"""Params of tests: a training that takes a second, and the repository's own for other tasks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[1]


def params_of(shipped: str, *tasks: str) -> str:
    """params.yaml of a project: the seed and the anchors of ours, and one task's block for each."""
    text = (_ROOT / "params.yaml").read_text(encoding="utf-8")
    head = re.split(r"^(?:tasks|real):", text, maxsplit=1, flags=re.MULTILINE)[0]
    block = re.search(rf"^  {shipped}:\n((?:    .*\n)+)", text, re.MULTILINE)
    assert block is not None
    return f"{head}tasks:\n" + "\n".join(f"  {task}:\n{block[1]}" for task in tasks)


#: The `train` section of a training that takes a second: 32 px, from scratch, few epochs.
PHASE: dict[str, Any] = {
    "epochs": 3,
    "learning_rate": 0.01,
    "schedule": "cosine",
    "warmup_fraction": 0.1,
    "patience": 0,
}
PARAMS: dict[str, Any] = {
    "backbone": "mobilenet_v3_small",
    "weights": "none",
    "image_px": 32,
    "crop_fraction": 0.875,
    "strategy": "cached",
    "cut": None,
    "views": 2,
    "int8_views": 0.0,
    "calibration_images": 64,
    "max_cache_bytes": 100_000_000,
    "batch_size": 8,
    "head": {"hidden": [], "dropout": 0.0},
    "head_phase": PHASE,
    "tail_phase": PHASE,
    "layer_decay": 0.8,
    "optimizer": "adamw",
    "weight_decay": 0.01,
    "momentum": 0.9,
    "label_smoothing": 0.0,
    "balance": "none",
    "mixup_alpha": 0.0,
    "ema_decay": 0.0,
    "monitor": "val_macro_f1",
    "refit": False,
    "augment": {
        "min_area": 0.6,
        "max_aspect": 1.2,
        "horizontal_flip": True,
        "vertical_flip": False,
        "rotate_deg": 10,
        "brightness": 0.1,
        "contrast": 0.1,
        "saturation": 0.1,
        "hue": 0.0,
        "blur": 0.1,
        "noise": 0.1,
        "jpeg": 0.1,
    },
}
