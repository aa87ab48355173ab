"""What the pages show of a detection."""

from __future__ import annotations

from pipelines.kinds.shown import LABEL, NOWHERE, Figure, Shown, Table, abstention, of_label, served
from pipelines.metrics.detection import SIZES

_SIZED = "served.by_size"

SHOWN = Shown(
    title="Detection",
    headline={"AP50": "ap50", "Presence (AUC)": "presence"},
    columns={
        "AP50": served("ap50"),
        "AP": served("ap"),
        "Presence (AUC)": served("presence"),
        "Counts off by": served("counting_error"),
        "Blind AP50": Figure("blind.ap50"),
    },
    how="AP50: average precision of boxes that overlap a true one by half, AP: over overlaps from "
    "0.50 to 0.95, both means over the classes. Presence: area under the ROC curve of whether a "
    "picture shows a class, a mean over classes. Counts: by how many boxes a picture and class, "
    "from the thresholds on that val chose. Blind AP50: what the boxes reach that pictures of "
    "other groups have most often, told of every picture.",
    why="AP50 and AP, because others quote them; how far counts are off, because a count is what "
    "people read; presence, because that is what a border or the facts of a file could tell.",
    measure="presence (AUC)",
    by_label={
        "AP50": of_label("per_label", "ap50"),
        "precision": Figure(f"served.per_label.{LABEL}.precision"),
        "recall": Figure(f"served.per_label.{LABEL}.recall"),
        "counts off by": of_label("per_label", "counting_error"),
        "counts too high by": Figure(f"served.per_label.{LABEL}.counting_bias"),
        "true count in its range": Figure(f"served.per_label.{LABEL}.in_count_band"),
        "true boxes": Figure(f"served.per_label.{LABEL}.n"),
    },
    tables=(
        Table(
            "Boxes by size",
            "AP of boxes by the true area in px of the picture: small below 32 x 32, medium below "
            "96 x 96, large above. Test split, served file.",
            {
                **{f"AP, {size}": Figure(f"{_SIZED}.{size}.ap", f"ap.{size}") for size in SIZES},
                **{f"{size} boxes": Figure(f"{_SIZED}.{size}.n") for size in SIZES},
            },
        ),
        Table(
            "Thresholds of boxes",
            "From which score on a box counts: the best F1 of boxes that overlap by half, on val.",
            {
                "threshold": Figure(f"bundle.box_points.{LABEL}.threshold"),
                "val precision": Figure(f"bundle.box_points.{LABEL}.precision"),
                "val recall": Figure(f"bundle.box_points.{LABEL}.recall"),
                "test precision": Figure(f"box_points.{LABEL}.precision"),
                "test recall": Figure(f"box_points.{LABEL}.recall"),
            },
        ),
        abstention(NOWHERE),
    ),
)
