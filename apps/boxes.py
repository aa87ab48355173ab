"""The page of a task that finds things: boxes in the picture, counts, and how sure is sure enough.

Several pictures give a table, and files of the counts and of the boxes (COCO).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import streamlit as st
from PIL import Image, ImageDraw

from apps import answers, frame, seen
from apps.models import Model
from apps.pictures import Incoming
from apps.seen import Seen
from apps.session import jpeg
from apps.texts import Texts
from apps.tones import Tones
from pipelines.serving.detection import Boxes

_LINE_PX = 3


def page(t: Texts, icon: str, model: Model, incoming: Sequence[Incoming], tones: Tones) -> None:
    """The answers to the pictures that were chosen."""
    found: list[Seen[Boxes]] = seen.all_answered(t, icon, model, incoming)
    if not found:
        return
    least = _certainty(t, model)
    found = [replace(one, said=counted(one.said, least)) for one in found]
    shown = seen.chosen(t, model, found)
    picture = frame.boxes(t, shown.name, jpeg(draw(shown, tones)))
    st.html(seen.phone(t, icon, model, shown, picture, tones))
    if len(found) > 1:
        _table(t, model, found)
    coco = (t("boxes.coco"), as_coco(model, found).encode(), f"{model.task}.json")
    seen.files(t, model, found, coco)


def counted(said: Boxes, least: float | None) -> Boxes:
    """The answer with another certainty from which on a box counts; None leaves the labels' own."""
    if least is None:
        return said
    boxes = tuple(replace(box, is_counted=box.score >= least) for box in said.boxes)
    return replace(said, boxes=boxes)


def draw(found: Seen[Boxes], tones: Tones) -> Image.Image:
    """The picture with the boxes that count, in the colours of their labels' tones."""
    picture = found.view.copy()
    pen = ImageDraw.Draw(picture)
    x_scale, y_scale = (now / before for now, before in zip(picture.size, found.size, strict=True))
    for box in reversed(found.said.boxes):
        if box.is_counted and not found.said.is_ood:
            corners = (box.x0 * x_scale, box.y0 * y_scale, box.x1 * x_scale, box.y1 * y_scale)
            colour = answers.box_colour(tones.get(box.label, "plain"))
            pen.rectangle(corners, outline=colour, width=_LINE_PX)
    return picture


def as_coco(model: Model, found: Sequence[Seen[Boxes]]) -> str:
    """The boxes that count, as a COCO file that labelling tools read."""
    labels = model.bundle.labels
    images = [
        {"id": number, "file_name": one.name, "width": one.size[0], "height": one.size[1]}
        for number, one in enumerate(found, start=1)
    ]
    boxes = [
        (number, box)
        for number, one in enumerate(found, start=1)
        for box in one.said.boxes
        if box.is_counted
    ]
    annotations = [
        {
            "id": index,
            "image_id": number,
            "category_id": labels.index(box.label) + 1,
            "bbox": [round(v, 2) for v in (box.x0, box.y0, box.x1 - box.x0, box.y1 - box.y0)],
            "score": round(box.score, 4),
            "iscrowd": 0,
        }
        for index, (number, box) in enumerate(boxes, start=1)
    ]
    categories = [{"id": number, "name": name} for number, name in enumerate(labels, start=1)]
    document = {"images": images, "annotations": annotations, "categories": categories}
    return json.dumps(document, indent=1)


def _certainty(t: Texts, model: Model) -> float | None:
    """From which score on a box counts, as the person says; None as it was chosen on val."""
    if st.toggle(
        t("boxes.chosen"), value=True, key=f"chosen-{model.task}", help=t("boxes.chosen_help")
    ):
        return None
    return st.slider(t("boxes.certainty"), 0.05, 0.95, 0.4, 0.05, key=f"least-{model.task}")


def _table(t: Texts, model: Model, found: Sequence[Seen[Boxes]]) -> None:
    rows = [
        {
            t("batch.picture"): one.name,
            **{
                t.label(model.task, label, model.names): n
                for label, n in one.said.counts(model.bundle.labels).items()
            },
            t("batch.ood"): one.said.is_ood,
        }
        for one in found
    ]
    st.dataframe(rows, hide_index=True, alt=t("batch.title", n=len(found)))
