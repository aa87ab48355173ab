"""What the pages show of a classification."""

from __future__ import annotations

from pipelines.kinds.shown import LABEL, Figure, Shown, Table, abstention, of_label, served

_ATTACKS = Table(
    "Presentation attacks",
    "At the operating point that val chose. APCER: share of the attacks that pass for the real "
    "thing; BPCER: share of the real ones that are called attacks; ACER: their mean (ISO/IEC "
    "30107-3). Of the attacks that the data hold: the data set's card says which.",
    {
        "attack": Figure("presentation_attack.attack"),
        "threshold": Figure("presentation_attack.threshold"),
        "APCER": Figure("presentation_attack.apcer", "apcer"),
        "BPCER": Figure("presentation_attack.bpcer", "bpcer"),
        "ACER": Figure("presentation_attack.acer", "acer"),
        "accuracy at the likelier label": served("accuracy"),
    },
    needs="presentation_attack",
)
_CALIBRATION = Table(
    "Calibration",
    "Test split, served file. The temperature was fitted on val; ECE: expected calibration error, "
    "whose interval leans upwards (a resample's gaps are counted without sign).",
    {
        "temperature": Figure("bundle.temperature"),
        "ECE before": Figure("calibration.ece_before"),
        "ECE after": Figure("calibration.ece_after", "ece"),
        "Brier before": Figure("calibration.brier_before"),
        "Brier after": Figure("calibration.brier_after", "brier"),
    },
    needs="calibration",
    missing="Not measured.",
)
_POINTS = Table(
    "Operating points",
    "The threshold of greatest sensitivity at the specificity that was asked for, chosen on val "
    "and measured on test.",
    {
        "specificity asked": Figure(f"bundle.operating_points.{LABEL}.min_specificity"),
        "threshold": Figure(f"bundle.operating_points.{LABEL}.threshold"),
        "val sensitivity": Figure(f"bundle.operating_points.{LABEL}.sensitivity"),
        "val specificity": Figure(f"bundle.operating_points.{LABEL}.specificity"),
        "test sensitivity": Figure(
            f"operating_points.{LABEL}.sensitivity", f"point.sensitivity.{LABEL}"
        ),
        "test specificity": Figure(
            f"operating_points.{LABEL}.specificity", f"point.specificity.{LABEL}"
        ),
    },
    missing="None: the most probable label is the answer.",
)

SHOWN = Shown(
    title="Classification",
    headline={"Accuracy": "accuracy", "Macro-F1": "macro_f1"},
    columns={"Accuracy": served("accuracy"), "Macro-F1": served("macro_f1")},
    how="",
    why="Macro-F1, because it counts rare labels as much as common ones; accuracy, because others "
    "quote it; recall and specificity by label; the expected calibration error and the Brier "
    "score, because a probability is shown.",
    by_label={
        "precision": of_label("per_class", "precision"),
        "recall": of_label("per_class", "recall"),
        "specificity": of_label("per_class", "specificity"),
        "support": Figure(f"served.per_class.{LABEL}.support"),
    },
    tables=(
        _ATTACKS,
        _CALIBRATION,
        _POINTS,
        abstention(
            Figure("abstention.accuracy_of_accepted", "accuracy_of_accepted"),
            refused="abstention.refused",
        ),
    ),
)
