"""The page of a task that finds things: boxes in the picture, counts, and how sure is sure enough.

Several pictures give a table, and files of the counts and of the boxes (COCO).
"""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import streamlit as st
from PIL import Image, ImageDraw

from apps import answers, banners, frame
from apps.models import Model
from apps.pictures import Incoming, names
from apps.session import fitted, jpeg
from apps.texts import Texts
from apps.tones import Tones
from pipelines.errors import CorruptImageError
from pipelines.serving.detection import Boxes
from pipelines.serving.predictor import Predictor

_LINE_PX = 3


@dataclass(frozen=True, slots=True)
class Found:
    """One picture and the boxes in it.

    Attributes:
        view: the picture as it is drawn.
        size: width and height of the upright picture, in px of which boxes are told.
    """

    name: str
    view: Image.Image
    size: tuple[int, int]
    said: Boxes
    elapsed_ms: float


def page(t: Texts, icon: str, model: Model, incoming: Sequence[Incoming], tones: Tones) -> None:
    """The answers to the pictures that were chosen."""
    found, refused = _all(t, model, incoming)
    for line in refused:
        st.error(line)
    if not found:
        st.html(frame.phone(t, model, icon, frame.waiting(t, icon)))
        return
    least = _certainty(t, model)
    found = [replace(one, said=counted(one.said, least)) for one in found]
    shown = found[0]
    if len(found) > 1:
        by_name = dict(zip(names(incoming), found, strict=False))
        shown = by_name[st.selectbox(t("batch.choose"), list(by_name), key=f"box-{model.task}")]
    drawn = jpeg(draw(shown, tones))
    body = answers.PANELS[model.bundle.kind](t, model, shown.said, tones)
    beyond = banners.beyond_range(t, model, shown.said.outside)
    tail = answers.latency(t, shown.elapsed_ms)
    picture = frame.boxes(t, shown.name, drawn)
    st.html(
        frame.phone(t, model, icon, f'{picture}<div class="fl-body">{beyond}{body}{tail}</div>')
    )
    _table(t, model, found)


def counted(said: Boxes, least: float | None) -> Boxes:
    """The answer with another certainty from which on a box counts; None leaves the labels' own."""
    if least is None:
        return said
    boxes = tuple(replace(box, is_counted=box.score >= least) for box in said.boxes)
    return replace(said, boxes=boxes)


def draw(found: Found, tones: Tones) -> Image.Image:
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


def as_csv(model: Model, found: Sequence[Found]) -> str:
    """A row a picture: counts by label, and the boxes."""
    bundle = model.bundle
    kind = _predictor(model).kind
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["picture", *kind.columns(bundle), "is_ood"])
    for one in found:
        writer.writerow([_plain(one.name), *kind.cells(one.said, bundle), one.said.is_ood])
    return buffer.getvalue()


def as_coco(model: Model, found: Sequence[Found]) -> str:
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


def _all(t: Texts, model: Model, incoming: Sequence[Incoming]) -> tuple[list[Found], list[str]]:
    """The answers to all pictures; those that were given stay until others are chosen."""
    cache: dict[str, Found] = st.session_state.setdefault(f"boxes-{model.task}", {})
    for key in set(cache) - {one.key for one in incoming}:
        del cache[key]
    found, refused = [], []
    for one in incoming:
        if one.key not in cache:
            try:
                cache[one.key] = _answered(model, one)
            except CorruptImageError as err:
                refused.append(t("errors.image", name=err.name, reason=err.reason))
                continue
        found.append(cache[one.key])
    return found, refused


def _answered(model: Model, one: Incoming) -> Found:
    predictor = _predictor(model)
    start = time.perf_counter()
    opened = predictor.opened(one.source, name=one.name)
    said = predictor.answer(
        predictor.pixels(opened.rgb, name=one.name),
        outside=opened.outside,
        geometry=predictor.geometry(opened),
    )
    elapsed_ms = (time.perf_counter() - start) * 1000
    return Found(one.name, fitted(opened.rgb), opened.size, said, elapsed_ms)


def _predictor(model: Model) -> Predictor[Boxes]:
    predictor: Predictor[Boxes] = model.predictor()  # type: ignore[assignment]
    return predictor


def _certainty(t: Texts, model: Model) -> float | None:
    """From which score on a box counts, as the person says; None as it was chosen on val."""
    if st.toggle(
        t("boxes.chosen"), value=True, key=f"chosen-{model.task}", help=t("boxes.chosen_help")
    ):
        return None
    return st.slider(t("boxes.certainty"), 0.05, 0.95, 0.4, 0.05, key=f"least-{model.task}")


def _table(t: Texts, model: Model, found: Sequence[Found]) -> None:
    if len(found) > 1:
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
    with st.container(horizontal=True):
        for words, data, suffix in (
            (t("batch.csv"), as_csv(model, found).encode("utf-8-sig"), "csv"),
            (t("boxes.coco"), as_coco(model, found).encode(), "json"),
        ):
            st.download_button(
                words,
                data,
                file_name=f"{model.task}.{suffix}",
                icon=":material/download:",
                key=f"{suffix}-{model.task}",
                on_click="ignore",
            )


def _plain(name: str) -> str:
    """A name that no spreadsheet takes for a formula."""
    return f"'{name}" if name.startswith(("=", "+", "-", "@", "\t", "\r")) else name
