"""How alarming a task's labels are: for colours, which never stand without words.

Apart from the apps, so that the phone page's server needs no Streamlit for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

Tone = Literal["plain", "ok", "warn", "alarm"]
#: By label; a label without one is plain.
Tones = Mapping[str, Tone]

TONES: Mapping[str, Tones] = {
    # No cell is good or bad: colours that tell them apart.
    "blood_cells": {"wbc": "ok", "platelet": "warn"},
    "chest_xray": {"covid19": "alarm", "pneumonia": "alarm"},
    "face_spoof": {"spoof": "alarm"},
    "hard_hat": {"helmet": "ok", "no_helmet": "alarm", "no_wear": "warn", "wear": "ok"},
    "mask_detection": {"with_mask": "ok", "mask_worn_incorrectly": "warn", "without_mask": "alarm"},
    "mask_scene": {"with_mask": "ok", "mask_worn_incorrectly": "warn", "without_mask": "alarm"},
    "rider": {"rider": "warn", "pedestrian": "ok", "bicycle": "ok"},
    "skin_lesion": {
        "melanoma": "alarm",
        "basal_cell_carcinoma": "alarm",
        "actinic_keratosis": "warn",
    },
    "tomato_leaf": {
        "healthy": "ok",
        "late_blight": "alarm",
        "mosaic_virus": "alarm",
        "yellow_leaf_curl_virus": "alarm",
        "bacterial_spot": "warn",
        "early_blight": "warn",
        "leaf_mold": "warn",
        "septoria_leaf_spot": "warn",
        "spider_mites": "warn",
        "target_spot": "warn",
    },
    "weld_defect": {"crack": "alarm", "lack_of_penetration": "alarm", "porosity": "warn"},
    "weld_photo": {"bad_weld": "warn", "defect": "alarm", "good_weld": "ok"},
}


def tones_of(task: str) -> Tones:
    """The tones of a task's labels; none where nobody has said any."""
    return TONES.get(task, {})
