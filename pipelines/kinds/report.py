"""What the pages show of a task first, by its kind."""

from __future__ import annotations

from collections.abc import Mapping

#: Headings, and metrics of the served file by their keys in metrics.json. The last is what the
#: audit is measured in; ``paired`` has ``<metric>_drop`` of each.
KINDS: Mapping[str, Mapping[str, str]] = {
    "classification": {"Accuracy": "accuracy", "Macro-F1": "macro_f1"},
    "detection": {"AP50": "ap50", "Presence (AUC)": "presence"},
    "segmentation": {"IoU": "iou", "Boundary F1": "boundary_f1", "Dice": "dice"},
    "embedding": {"EER": "eer", "MAP@R": "map_at_r", "Recall@1": "recall_at_1"},
}
