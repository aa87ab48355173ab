"""What an answer rests on: the heat map on demand, and the operating points in words."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

import numpy as np
import streamlit as st
from PIL import Image

from apps.models import Model
from apps.session import Shot, jpeg
from apps.texts import Texts
from pipelines.serving.occlusion import occlusion_map, overlay

_SHOWN_PX = 448
#: Steps of the patch along one side, as `occlusion_map` takes them by default.
_CELLS = 14
_JPEG_QUALITY = 86


@dataclass(frozen=True, slots=True)
class Heat:
    """A drawn heat map."""

    label: str
    jpeg: bytes
    caption: str


def toggle(t: Texts, model: Model, shot: Shot) -> Heat | None:
    """The places that speak for the answer, over the picture as the model saw it, on demand.

    None while nobody asks for it.
    """
    if not st.toggle(t("answer.explain"), key=f"explain-{model.task}"):
        return None
    predictor = model.predictor()
    label = shot.prediction.label
    heat = occlusion_map(
        lambda pixels: predictor.run(pixels)[0], shot.pixels, model.bundle.labels.index(label)
    )
    hottest = float(heat.max())
    # The map is a table of patches: drawn smooth, so that no edge is taken for one of the picture.
    table = Image.fromarray(heat).resize((_CELLS, _CELLS), Image.Resampling.BOX)
    smooth = np.asarray(table.resize((_SHOWN_PX, _SHOWN_PX), Image.Resampling.BICUBIC))
    large = Image.fromarray(shot.pixels).resize((_SHOWN_PX, _SHOWN_PX), Image.Resampling.BICUBIC)
    image = Image.fromarray(overlay(np.asarray(large), smooth, full_heat=hottest))
    key = "answer.explain_caption" if hottest > 0 else "answer.explain_nothing"
    return Heat(
        label, jpeg(image, _JPEG_QUALITY), t(key, label=t.label(model.task, label, model.names))
    )


def points(t: Texts, model: Model) -> None:
    """From which probability on an alarm is given, and what that was worth on the val split."""
    found = model.bundle.operating_points
    if not found:
        return
    lines = [
        t(
            "answer.point",
            label=t.label(model.task, label, model.names),
            threshold=point.threshold,
            sensitivity=point.sensitivity,
            specificity=point.specificity,
            positives=point.n_positive,
            negatives=point.n_negative,
        )
        for label, point in found.items()
    ]
    words = "".join(f'<p class="fl-read">{escape(line)}</p>' for line in lines)
    st.html(f'<h2 class="fl-sub">{escape(t("answer.points_title"))}</h2>{words}')
