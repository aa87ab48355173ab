"""The page of a task of masks: laid over the picture as strongly as wanted, or not at all.

Several pictures give a choice, and files of the areas and of the masks.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence

import numpy as np
import streamlit as st
from numpy.typing import NDArray
from PIL import Image

from apps import frame, seen
from apps.models import Model
from apps.pictures import Incoming
from apps.seen import Seen
from apps.session import jpeg
from apps.texts import Texts
from apps.tones import Tones
from pipelines.serving.segmentation import Mask, ServedSegmentation, colour_of

_KIND = ServedSegmentation()
#: Of the mask, at first, in per cent.
_OPACITY = 40
#: Width of its outline.
_LINE_PX = 2


def page(t: Texts, icon: str, model: Model, incoming: Sequence[Incoming], tones: Tones) -> None:
    """The answers to the pictures that were chosen."""
    found: list[Seen[Mask]] = seen.all_answered(t, icon, model, incoming)
    if not found:
        return
    shown = seen.chosen(t, model, found)
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
    with place.container():
        st.html(seen.phone(t, icon, model, shown, frame.masks(t, shown.name, drawn), tones))
    seen.files(t, model, found, (t("masks.zip"), as_zip(found), f"{model.task}_masks.zip"))


def overlay(found: Seen[Mask], opacity: float) -> Image.Image:
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


def as_zip(found: Sequence[Seen[Mask]]) -> bytes:
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


def _edge(shown: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels of a mask near one outside of it."""
    inner = shown
    for _ in range(_LINE_PX):
        grown = np.pad(inner, 1, mode="edge")
        inner = inner & grown[:-2, 1:-1] & grown[2:, 1:-1] & grown[1:-1, :-2] & grown[1:-1, 2:]
    edge: NDArray[np.bool_] = shown & ~inner
    return edge
