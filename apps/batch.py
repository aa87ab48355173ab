"""Many pictures at once: a table to sort, a CSV file, and one answer for views of one thing."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

import streamlit as st

from apps.models import Model
from apps.session import Shot
from apps.texts import Texts
from pipelines.columns import uncalculated
from pipelines.serving.predictor import Prediction, combine


def table(t: Texts, model: Model, shots: Sequence[Shot]) -> None:
    """Show one row a picture, and offer them as a file."""
    has_truth = any(shot.truth is not None for shot in shots)
    has_faces = any(shot.scene and shot.scene.faces for shot in shots)
    rows = [
        {
            t("batch.picture"): shot.name,
            **({t("batch.face"): number} if has_faces else {}),
            t("batch.label"): t.label(model.task, given.label, model.names),
            t("batch.probability"): 100 * given.probabilities[given.label],
            t("batch.ood"): given.is_ood,
            **(
                {t("batch.truth"): t.label(model.task, shot.truth or "", model.names)}
                if has_truth
                else {}
            ),
        }
        for shot in shots
        for number, given in _numbered(shot)
    ]
    st.dataframe(
        rows,
        hide_index=True,
        alt=t("batch.title", n=len(shots)),
        column_config={
            t("batch.probability"): st.column_config.ProgressColumn(
                format="%.1f %%", min_value=0, max_value=100
            )
        },
    )
    st.download_button(
        t("batch.csv"),
        as_csv(model, shots).encode("utf-8-sig"),
        file_name=t("batch.csv_name", task=model.task),
        mime="text/csv",
        icon=":material/download:",
        key=f"csv-{model.task}",
        on_click="ignore",
    )


def as_csv(model: Model, shots: Sequence[Shot]) -> str:
    """One row a picture or face: name, label, out of distribution or not, each probability.

    Args:
        model: whose answers; its slugs are the names of the columns, in any language.
    """
    labels, names = model.bundle.labels, model.names
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    # What people call the answer stands beside its slug where they differ.
    called = ["name"] if names else []
    writer.writerow(["picture", "face", "label", *called, "is_ood", "true_label", *labels])
    for shot in shots:
        name = uncalculated(shot.name, "'")
        for number, given in _numbered(shot):
            shares = [f"{given.probabilities[label]:.6f}" for label in labels]
            own = [model.bundle.name_of(given.label)] if names else []
            row = [name, number, given.label, *own, given.is_ood, shot.truth or "", *shares]
            writer.writerow(row)
    return buffer.getvalue()


def together(model: Model, shots: Sequence[Shot]) -> Prediction | None:
    """The answer of several pictures of one thing; None if none of them is of a known kind.

    Args:
        shots: the answered pictures, of a scene the largest face; unknown kinds are left out.
    """
    known = [shot.main.probabilities for shot in shots if not shot.main.is_ood]
    if not known:
        return None
    probabilities = combine(known)
    return Prediction(
        label=max(probabilities, key=lambda name: probabilities[name]),
        probabilities=probabilities,
        positives={
            label: probabilities[label] >= point.threshold
            for label, point in model.bundle.operating_points.items()
        },
    )


def _numbered(shot: Shot) -> list[tuple[int | None, Prediction]]:
    """The answers of a picture, with the face's number where there are faces."""
    if shot.scene is None or not shot.scene.faces:
        return [(None, shot.prediction)]
    return [(number, given) for number, given in enumerate(shot.answers, start=1)]
