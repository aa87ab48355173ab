"""What the pages show of a task first, by its kind."""

from __future__ import annotations

from collections.abc import Mapping

#: Headings, and metrics of the served file by their keys in metrics.json. The last is what the
#: audit is measured in; ``paired`` has ``<metric>_drop`` of each.
KINDS: Mapping[str, Mapping[str, str]] = {
    "classification": {"Accuracy": "accuracy", "Macro-F1": "macro_f1"},
    "detection": {"AP50": "ap50", "Presence (AUC)": "presence"},
}
