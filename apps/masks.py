"""Masks on the page: laid over the picture as strongly as wanted, or not at all, and as files."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Sequence

import numpy as np
import streamlit as st
from PIL import Image

from apps import answers, frame
from apps.banners import beyond_range
from apps.models import Model
from apps.session import Shot, jpeg
from apps.texts import Texts
from pipelines.serving.segmentation import Mask, ServedSegmentation, colour_of

_KIND = ServedSegmentation()
#: Of the mask, at first, in per cent.
_OPACITY = 40


def panel(t: Texts, icon: str, model: Model, shots: Sequence[Shot]) -> None:
    """The phone with a picture and its mask, and what can be asked about it."""
    if not shots:
        st.html(frame.phone(t, model, icon, frame.waiting(t, icon)))
        return
    shot = shots[0]
    if len(shots) > 1:
        by_name = {f"{number}. {one.name}": one for number, one in enumerate(shots, start=1)}
        shot = by_name[st.selectbox(t("batch.choose"), list(by_name), key=f"one-{model.task}")]
    place = st.empty()
    is_before = st.toggle(t("masks.before"), key=f"before-{model.task}")
    opacity = st.slider(
        t("masks.opacity"),
        *(0, 100, _OPACITY),
        step=5,
        format="%d %%",
        key=f"opacity-{model.task}",
        disabled=is_before,
    )
    said = shot.mask
    hidden = is_before or said.is_ood
    drawn = None if hidden else overlay(shot, said, opacity / 100)
    top = frame.picture(t, shot, drawn, t("masks.alt", name=shot.name))
    body = answers.PANELS[model.bundle.kind](t, model, said, {})
    tail = answers.latency(t, shot.elapsed_ms)
    inside = f'{top}<div class="fl-body">{beyond_range(t, model, said.outside)}{body}{tail}</div>'
    with place.container():
        st.html(frame.phone(t, model, icon, inside))
    _files(t, model, shots)


def overlay(shot: Shot, said: Mask, opacity: float) -> bytes:
    """The picture with its mask, as JPEG; its outline stays, however weak the mask is.

    Args:
        opacity: of the mask, in [0, 1].
    """
    image = Image.open(io.BytesIO(shot.view)).convert("RGB")
    mask = said.scaled(shot.size, image.size)
    pixels = np.asarray(image, dtype=np.float32).copy()
    for number in range(1, len(said.regions) + 1):
        shown = mask == number
        colour = np.asarray(colour_of(number - 1), dtype=np.float32)
        pixels[shown] = (1 - opacity) * pixels[shown] + opacity * colour
        pixels[_edge(shown)] = 255
    return jpeg(Image.fromarray(np.rint(pixels).astype(np.uint8)))


def _edge(shown: np.ndarray) -> np.ndarray:
    """Pixels of a mask that touch one outside of it; two wide, to be seen on a phone."""
    inner = shown
    for _ in range(2):
        grown = np.pad(inner, 1, mode="edge")
        inner = inner & grown[:-2, 1:-1] & grown[2:, 1:-1] & grown[1:-1, :-2] & grown[1:-1, 2:]
    edge: np.ndarray = shown & ~inner
    return edge


def as_csv(model: Model, shots: Sequence[Shot]) -> str:
    """One row a picture, with the columns of `fieldlens predict --csv`."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["picture", *_KIND.columns(model.bundle), "is_ood"])
    for shot in shots:
        cells = _KIND.cells(shot.mask, model.bundle)
        writer.writerow([answers.safe_name(shot.name), *cells, shot.mask.is_ood])
    return buffer.getvalue()


def as_zip(shots: Sequence[Shot]) -> bytes:
    """The masks as indexed PNG files, in px of the pictures; numbered, since names may repeat."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number, shot in enumerate(shots, start=1):
            png = io.BytesIO()
            _KIND.drawing(shot.mask, shot.size).save(png, "PNG")
            stem = "".join(c if c.isalnum() else "_" for c in shot.name.rpartition(".")[0])
            archive.writestr(f"{number:02d}_{stem}.png", png.getvalue())
    return buffer.getvalue()


def _files(t: Texts, model: Model, shots: Sequence[Shot]) -> None:
    with st.container(horizontal=True, gap="small"):
        st.download_button(
            t("batch.csv"),
            as_csv(model, shots).encode("utf-8-sig"),
            file_name=t("batch.csv_name", task=model.task),
            mime="text/csv",
            icon=":material/download:",
            key=f"csv-{model.task}",
            on_click="ignore",
        )
        st.download_button(
            t("masks.zip"),
            as_zip(shots),
            file_name=t("masks.zip_name", task=model.task),
            mime="application/zip",
            icon=":material/download:",
            key=f"zip-{model.task}",
            on_click="ignore",
        )
