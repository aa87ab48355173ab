"""fp32 and int8 on the same picture: label, probability, milliseconds, megabytes."""

from __future__ import annotations

import time
from html import escape
from statistics import median

import numpy as np
import streamlit as st

from apps.answers import threads
from apps.models import PRECISIONS, Model, processor
from apps.session import Shot
from apps.texts import Texts

N_RUNS = 7


def panel(t: Texts, model: Model, shot: Shot) -> None:
    """Offer the comparison; it runs when it is asked for."""
    files = model.bundle.files
    if not all((model.path.parent / files[kind].name).is_file() for kind in PRECISIONS):
        # The registry keeps the served file alone.
        return
    if not st.toggle(t("compare.title"), key=f"compare-{model.task}", help=t("compare.lead")):
        return
    heads = ("model", "label", "probability", "milliseconds", "megabytes")
    lines = []
    for precision in PRECISIONS:
        predictor = model.predictor(precision)
        pixels = shot.pixels[np.newaxis]
        logits, _ = predictor.run(pixels)
        times = []
        for _ in range(N_RUNS):
            start = time.perf_counter()
            predictor.run(pixels)
            times.append((time.perf_counter() - start) * 1000)
        row = predictor.probabilities(logits)[0]
        label = model.bundle.labels[int(row.argmax())]
        served = precision == model.bundle.served.precision
        name = f"{precision} ({t('compare.served')})" if served else precision
        cells = (
            name,
            t.label(model.task, label, model.names),
            t("answer.probability", value=float(row.max())),
            f"{median(times):.1f}",
            f"{model.bundle.files[precision].size_bytes / 1e6:.1f}",
        )
        lines.append("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>")
    head = "".join(f'<th scope="col">{escape(t(f"compare.{name}"))}</th>' for name in heads)
    note = t("compare.note", n=N_RUNS, processor=processor(), threads=threads(t))
    st.html(
        f'<div class="fl-scroll"><table class="fl-table"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
        f'<p class="fl-small">{escape(note)}</p>'
    )
