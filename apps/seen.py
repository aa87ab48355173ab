"""What the pages of boxes and of masks share: pictures with their answers, the phone, files."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import streamlit as st
from PIL import Image

from apps import answers, banners, frame
from apps.models import Model
from apps.pictures import Incoming, names
from apps.session import fitted
from apps.texts import Texts
from apps.tones import Tones
from pipelines.columns import uncalculated
from pipelines.errors import CorruptImageError
from pipelines.serving.answer import Answer
from pipelines.serving.kinds import served_kind
from pipelines.serving.predictor import Predictor

A = TypeVar("A", bound=Answer)


@dataclass(frozen=True, slots=True)
class Seen(Generic[A]):
    """One picture and the answer to it.

    Attributes:
        view: the picture as it is drawn.
        size: width and height of the upright picture, in px of which places are told.
    """

    name: str
    view: Image.Image
    size: tuple[int, int]
    said: A
    elapsed_ms: float


def answered(model: Model, one: Incoming) -> Seen[A]:
    """The answer to one picture, of the model's kind.

    Raises:
        CorruptImageError: if it is not an image that may enter.
    """
    predictor: Predictor[A] = model.predictor()  # type: ignore[assignment]
    start = time.perf_counter()
    opened = predictor.opened(one.source, name=one.name)
    said = predictor.answer(
        predictor.pixels(opened.rgb, name=one.name),
        outside=opened.outside,
        geometry=predictor.geometry(opened),
    )
    elapsed_ms = (time.perf_counter() - start) * 1000
    return Seen(one.name, fitted(opened.rgb), opened.size, said, elapsed_ms)


def all_answered(t: Texts, icon: str, model: Model, incoming: Sequence[Incoming]) -> list[Seen[A]]:
    """The answers to all pictures; those that were given stay until others are chosen.

    Why there is none to a picture, or that one is waited for, the page says.
    """
    cache: dict[str, Seen[A]] = st.session_state.setdefault(f"seen-{model.task}", {})
    for key in set(cache) - {one.key for one in incoming}:
        del cache[key]
    for one in incoming:
        if one.key not in cache:
            try:
                cache[one.key] = answered(model, one)
            except CorruptImageError as err:
                st.error(t("errors.image", name=err.name, reason=err.reason))
    found = [cache[one.key] for one in incoming if one.key in cache]
    if not found:
        st.html(frame.phone(t, model, icon, frame.waiting(t, icon)))
    return found


def chosen(t: Texts, model: Model, found: Sequence[Seen[A]]) -> Seen[A]:
    """The one that the phone shows."""
    if len(found) == 1:
        return found[0]
    by_name = dict(zip(names([one.name for one in found]), found, strict=True))
    return by_name[st.selectbox(t("batch.choose"), list(by_name), key=f"one-{model.task}")]


def phone(t: Texts, icon: str, model: Model, shown: Seen[A], picture: str, tones: Tones) -> str:
    """The phone with a picture, as HTML, and what is said of it."""
    body = answers.PANELS[model.bundle.kind](t, model, shown.said, tones)
    beyond = banners.beyond_range(t, model, shown.said.outside)
    tail = answers.latency(t, shown.elapsed_ms)
    inside = f'{picture}<div class="fl-body">{beyond}{body}{tail}</div>'
    return frame.phone(t, model, icon, inside)


def as_csv(model: Model, found: Sequence[Seen[A]]) -> str:
    """A row a picture, with the columns of `fieldlens predict --csv`."""
    bundle, kind = model.bundle, served_kind(model.bundle.kind)
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["picture", *kind.columns(bundle), "is_ood"])
    for one in found:
        name = uncalculated(one.name, "'")
        writer.writerow([name, *kind.cells(one.said, bundle), one.said.is_ood])
    return buffer.getvalue()


def files(
    t: Texts, model: Model, found: Sequence[Seen[A]], *others: tuple[str, bytes, str]
) -> None:
    """Buttons for `as_csv` and other files: words, content and name of each."""
    table = (t("batch.csv"), as_csv(model, found).encode("utf-8-sig"), f"{model.task}.csv")
    with st.container(horizontal=True, gap="small"):
        for words, data, name in (table, *others):
            st.download_button(
                words,
                data,
                file_name=name,
                icon=":material/download:",
                key=f"file-{name}",
                on_click="ignore",
            )
