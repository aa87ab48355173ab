"""What the pages show of a segmentation."""

from __future__ import annotations

from pipelines.kinds.shown import LABEL, Figure, Shown, Table, abstention, of_label, served

SHOWN = Shown(
    title="Segmentation",
    headline={"IoU": "iou", "Boundary F1": "boundary_f1", "Dice": "dice"},
    columns={
        "Dice": served("dice"),
        "IoU": served("iou"),
        "Boundary F1": served("boundary_f1"),
        "Dice of the mean mask": Figure("blind.mean_mask"),
        "Dice of a centred ellipse": Figure("blind.centred_ellipse"),
    },
    how="Each figure is a mean over pictures, in px of the picture; outlines fit within 0.8 % of "
    "the diagonal. Mean mask and centred ellipse, of the mean area of the train split: what is "
    "reached on the test split without a look.",
    why="Dice and IoU, because others quote them; boundary F1 (within 0.8 % of the diagonal), "
    "because an area may fit and its outline not. Each is the mean over pictures, in px of the "
    "picture; where neither truth nor answer shows anything it is 1.",
    by_label={
        "Dice": of_label("per_label", "dice"),
        "IoU": Figure(f"served.per_label.{LABEL}.iou"),
        "boundary F1": Figure(f"served.per_label.{LABEL}.boundary_f1"),
    },
    tables=(
        Table(
            "Dice over pictures",
            "Test split, served file: below which Dice so many of the pictures lie.",
            {
                "5 %": Figure("served.dice_p05"),
                "25 %": Figure("served.dice_p25"),
                "half": Figure("served.dice_median"),
                "75 %": Figure("served.dice_p75"),
            },
        ),
        Table(
            "Thresholds of masks",
            "From which probability on a pixel shows the label: the best mean Dice on val. "
            "Sensitivity and specificity are those of val's cells of 4 px.",
            {
                "threshold": Figure(f"bundle.operating_points.{LABEL}.threshold"),
                "val sensitivity": Figure(f"bundle.operating_points.{LABEL}.sensitivity"),
                "val specificity": Figure(f"bundle.operating_points.{LABEL}.specificity"),
                "test Dice": of_label("per_label", "dice"),
            },
        ),
        abstention(Figure("dice_of_accepted", "dice_of_accepted")),
    ),
)
