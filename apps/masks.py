"""The page of a task of masks: laid over the picture as strongly as wanted, or not at all.

Several pictures give a choice, and files of the areas and of the masks.
"""

from __future__ import annotations

import csv
import io
import time
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import streamlit as st
from numpy.typing import NDArray
from PIL import Image

from apps import answers, banners, frame
from apps.models import Model
from apps.pictures import Incoming, names
from apps.session import fitted, jpeg
from apps.texts import Texts
from apps.tones import Tones
from pipelines.errors import CorruptImageError
from pipelines.serving.predictor import Predictor
from pipelines.serving.segmentation import Mask, ServedSegmentation, colour_of

_KIND = ServedSegmentation()
#: Of the mask, at first, in per cent.
_OPACITY = 40
#: Width of its outline.
_LINE_PX = 2


@dataclass(frozen=True, slots=True)
class Masked:
    """One picture and its mask.

    Attributes:
        view: the picture as it is drawn.
        size: width and height of the upright picture, in px of which the mask is told.
    """

    name: str
    view: Image.Image
    size: tuple[int, int]
    said: Mask
    elapsed_ms: float


def page(t: Texts, icon: str, model: Model, incoming: Sequence[Incoming], tones: Tones) -> None:
    """The answers to the pictures that were chosen."""
    found, refused = _all(t, model, incoming)
    for line in refused:
        st.error(line)
    if not found:
        st.html(frame.phone(t, model, icon, frame.waiting(t, icon)))
        return
    shown = found[0]
    if len(found) > 1:
        by_name = dict(zip(names(incoming), found, strict=False))
        shown = by_name[st.selectbox(t("batch.choose"), list(by_name), key=f"one-{model.task}")]
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
    is_plain = is_before or shown.said.is_ood
    drawn = jpeg(shown.view if is_plain else overlay(shown, opacity / 100))
    body = answers.PANELS[model.bundle.kind](t, model, shown.said, tones)
    beyond = banners.beyond_range(t, model, shown.said.outside)
    tail = answers.latency(t, shown.elapsed_ms)
    picture = frame.masks(t, shown.name, drawn)
    inside = f'{picture}<div class="fl-body">{beyond}{body}{tail}</div>'
    with place.container():
        st.html(frame.phone(t, model, icon, inside))
    _files(t, model, found)


def overlay(found: Masked, opacity: float) -> Image.Image:
    """The picture with its mask; the outline stays, however weak the mask is.

    Args:
        opacity: of the mask, in [0, 1].
    """
    mask = found.said.scaled(found.size, found.view.size)
    pixels = np.asarray(found.view, dtype=np.float32).copy()
    for index in range(len(found.said.regions)):
        shown = mask == index + 1
        colour = np.asarray(colour_of(index), dtype=np.float32)
        pixels[shown] = (1 - opacity) * pixels[shown] + opacity * colour
        pixels[_edge(shown)] = 255
    return Image.fromarray(np.rint(pixels).astype(np.uint8))


def as_csv(model: Model, found: Sequence[Masked]) -> str:
    """A row a picture, with the columns of `fieldlens predict --csv`."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["picture", *_KIND.columns(model.bundle), "is_ood"])
    for one in found:
        cells = _KIND.cells(one.said, model.bundle)
        writer.writerow([_plain(one.name), *cells, one.said.is_ood])
    return buffer.getvalue()


def as_zip(found: Sequence[Masked]) -> bytes:
    """The masks as indexed PNG files, in px of the pictures; numbered, since names may repeat.

    A picture of an unknown kind has none.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number, one in enumerate(found, start=1):
            if one.said.is_ood:
                continue
            png = io.BytesIO()
            _KIND.drawing(one.said, one.size).save(png, "PNG")
            stem = "".join(c if c.isalnum() else "_" for c in one.name.rpartition(".")[0])
            archive.writestr(f"{number:02d}_{stem}.png", png.getvalue())
    return buffer.getvalue()


def answered(model: Model, one: Incoming) -> Masked:
    """The answer to one picture.

    Raises:
        CorruptImageError: if it is not an image that may enter.
    """
    predictor: Predictor[Mask] = model.predictor()  # type: ignore[assignment]
    start = time.perf_counter()
    opened = predictor.opened(one.source, name=one.name)
    said = predictor.answer(
        predictor.pixels(opened.rgb, name=one.name),
        outside=opened.outside,
        geometry=predictor.geometry(opened),
    )
    elapsed_ms = (time.perf_counter() - start) * 1000
    return Masked(one.name, fitted(opened.rgb), opened.size, said, elapsed_ms)


def _all(t: Texts, model: Model, incoming: Sequence[Incoming]) -> tuple[list[Masked], list[str]]:
    """The answers to all pictures; those that were given stay until others are chosen."""
    cache: dict[str, Masked] = st.session_state.setdefault(f"masks-{model.task}", {})
    for key in set(cache) - {one.key for one in incoming}:
        del cache[key]
    found, refused = [], []
    for one in incoming:
        if one.key not in cache:
            try:
                cache[one.key] = answered(model, one)
            except CorruptImageError as err:
                refused.append(t("errors.image", name=err.name, reason=err.reason))
                continue
        found.append(cache[one.key])
    return found, refused


def _edge(shown: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels of a mask near one outside of it."""
    inner = shown
    for _ in range(_LINE_PX):
        grown = np.pad(inner, 1, mode="edge")
        inner = inner & grown[:-2, 1:-1] & grown[2:, 1:-1] & grown[1:-1, :-2] & grown[1:-1, 2:]
    edge: NDArray[np.bool_] = shown & ~inner
    return edge


def _files(t: Texts, model: Model, found: Sequence[Masked]) -> None:
    with st.container(horizontal=True, gap="small"):
        for words, data, name in (
            (t("batch.csv"), as_csv(model, found).encode("utf-8-sig"), f"{model.task}.csv"),
            (t("masks.zip"), as_zip(found), f"{model.task}_masks.zip"),
        ):
            st.download_button(
                words,
                data,
                file_name=name,
                icon=":material/download:",
                key=f"file-{name}",
                on_click="ignore",
            )


def _plain(name: str) -> str:
    """A name that no spreadsheet takes for a formula (OWASP, "CSV injection")."""
    return f"'{name}" if name.startswith(("=", "+", "-", "@", "\t", "\r")) else name
