"""The page of one task: picture in, answer out. A task's own app says only what is its own.

`run` is the story; the panels lie in the modules beside this one. An error of the project is one
sentence on the page. Anything else is a bug: the log has its traceback, the page does not
(client.showErrorDetails in .streamlit/config.toml).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from html import escape
from pathlib import Path

import streamlit as st
from PIL import Image, ImageDraw

from apps import answers, banners, batch, boxes, compare, explain, frame, history, masks
from apps.inference import FindScene, answer_picture
from apps.models import Model, load_model
from apps.pictures import Incoming, choose, names
from apps.session import Shot, Store, store
from apps.texts import LANGUAGES, Texts, language_of, load_texts
from apps.tones import Tones, tones_of
from pipelines.errors import CorruptImageError, PipelineError

_STYLE = Path(__file__).with_name("style.css")

#: Answers of a kind that has a page of its own, beside the pictures that were chosen.
Page = Callable[[Texts, str, Model, Sequence[Incoming], Tones], None]
PAGES: Mapping[str, Page] = {"detection": boxes.page, "segmentation": masks.page}
#: Draws what was found in a picture into it, as JPEG.
DrawScene = Callable[[Shot, Tones], bytes]


@dataclass(frozen=True, slots=True)
class TaskApp:
    """What is a task's own.

    Attributes:
        icon: name of a symbol, e.g. ``eco`` (fonts.google.com/icons, Material Symbols).
        find: looks for faces first; None: the whole picture is answered.
    """

    task: str
    icon: str = "image_search"
    find: FindScene | None = None
    draw: DrawScene | None = None

    @property
    def tones(self) -> Tones:
        """By label, how alarming it is."""
        return tones_of(self.task)


def run(app: TaskApp) -> None:
    """Show the page of a task."""
    t = open_page()
    try:
        _page(t, app)
    except PipelineError as err:
        st.error(t("errors.model", reason=str(err)))


def open_page() -> Texts:
    """Set up the page, and give the texts in the language of the sidebar."""
    st.set_page_config(page_title="Fieldlens", page_icon=_tab_icon(), layout="wide")
    st.html(_STYLE)
    with st.sidebar:
        language = st.selectbox(
            load_texts(st.session_state.get("lang", LANGUAGES[0]))("sidebar.language"),
            LANGUAGES,
            index=LANGUAGES.index(language_of(st.context.locale)),
            format_func=lambda code: load_texts(code)("language"),
            key="lang",
            bind="query-params",
            persist_state="session",
        )
        t = load_texts(language)
        home = st.session_state.get("hub_page")
        if home is not None:
            st.page_link(home, label=t("hub.back"), icon=":material/apps:")
        st.caption(t("sidebar.privacy"))
    return t


def heading(t: Texts, icon: str, title: str, lead: str) -> None:
    """The name of a page, and one line on what it does."""
    st.html(
        f'<div class="fl-head"><div class="fl-icon">{frame.symbol(icon)}</div>'
        f"<div><h1>{escape(title)}</h1><p>{escape(lead)}</p></div></div>"
    )


@lru_cache(maxsize=1)
def _tab_icon() -> Image.Image:
    """A lens. Drawn here, because browsers ask a font server abroad for any named symbol."""
    icon = Image.new("RGBA", (64, 64))
    pen = ImageDraw.Draw(icon)
    pen.rounded_rectangle((0, 0, 63, 63), radius=16, fill="#0b6b57")
    pen.ellipse((14, 14, 49, 49), outline="#ffffff", width=6)
    pen.ellipse((27, 27, 36, 36), fill="#ffffff")
    return icon


def _page(t: Texts, app: TaskApp) -> None:
    model = load_model(app.task)
    kept = store(app.task)
    name = t.task(app.task, "name", model.bundle.title)
    heading(t, app.icon, name, t.task(app.task, "tells", model.bundle.intended_use))
    banners.show(t, model)
    left, right = st.columns([11, 9], gap="large")
    with left:
        with st.container(key="input"):
            incoming = choose(t, model, kept)
        more = st.container(key="more")
    if (own_page := PAGES.get(model.bundle.kind)) is not None:
        with right:
            own_page(t, app.icon, model, incoming, app.tones)
        with more:
            _how(t, app.task)
            banners.about(t, model)
        return
    with more:
        several = st.container()
        _how(t, app.task)
    with right:
        shots = _answer_all(t, app, model, kept, incoming)
        shown = kept.shots.get(kept.shown or "")
        if shown is None and len(shots) > 1:
            with several:
                shown = _choose_one(t, model, shots)
        elif shown is None and shots:
            shown = shots[0]
        together = shown is None and len(shots) > 1
        _phone(t, app, model, shown, shots if together else ())
    with more:
        history.panel(t, model, kept)
        banners.about(t, model)


def _answer_all(
    t: Texts, app: TaskApp, model: Model, kept: Store, incoming: Sequence[Incoming]
) -> list[Shot]:
    """The answers for all pictures; those already given are not asked for again."""
    fresh = [one for one in incoming if one.key not in kept.shots and one.key not in kept.refused]
    bar = st.progress(0.0) if len(fresh) > 1 else None
    for done, one in enumerate(fresh, start=1):
        if bar is not None:
            bar.progress(done / len(fresh), t("batch.progress", done=done, n=len(fresh)))
        try:
            kept.shots[one.key] = answer_picture(
                model, one.source, key=one.key, name=one.name, truth=one.truth, find=app.find
            )
        except CorruptImageError as err:
            kept.refused[one.key] = t("errors.image", name=err.name, reason=err.reason)
    kept.trim({one.key for one in incoming})
    if bar is not None:
        bar.empty()
    _show_refused([kept.refused[one.key] for one in incoming if one.key in kept.refused], t)
    return [kept.shots[one.key] for one in incoming if one.key in kept.shots]


def _show_refused(lines: Sequence[str], t: Texts) -> None:
    if len(lines) == 1:
        st.error(lines[0])
    elif lines:
        with st.expander(t("batch.refused_title", n=len(lines)), icon=":material/error:"):
            st.markdown("\n".join(f"- {line}" for line in lines))


def _choose_one(t: Texts, model: Model, shots: Sequence[Shot]) -> Shot | None:
    """The one of several pictures that the phone shows; None: all of them as one answer."""
    st.html(f'<h2 class="fl-sub">{escape(t("batch.title", n=len(shots)))}</h2>')
    is_one_thing = model.has_classes and st.toggle(
        t.task(model.task, "combine", t("answer.combined", n=len(shots))),
        key=f"together-{model.task}",
        help=f"{t('batch.combine_hint')} {t('batch.combine_few')}",
    )
    by_name = dict(zip(names([shot.name for shot in shots]), shots, strict=True))
    if model.has_classes:
        batch.table(t, model, shots)
    if is_one_thing:
        return None
    chosen = st.selectbox(t("batch.choose"), list(by_name), key=f"one-{model.task}")
    return by_name.get(chosen, shots[0])


def _phone(
    t: Texts, app: TaskApp, model: Model, shot: Shot | None, several: Sequence[Shot]
) -> None:
    """The phone with an answer, or waiting for a picture; and what can be asked about it."""
    if several:
        said = batch.together(model, several)
        strip = history.strip(several)
        words = escape(t("answer.combined", n=len(several)))
        said_html = (
            answers.answer(t, model, said, app.tones)
            if said
            else f'<div class="fl-ood"><p>{escape(t("batch.combine_none"))}</p></div>'
        )
        inside = f'{strip}<div class="fl-body"><p class="fl-small">{words}</p>{said_html}</div>'
        st.html(frame.phone(t, model, app.icon, inside))
        return
    if shot is None:
        st.html(frame.phone(t, model, app.icon, frame.waiting(t, app.icon)))
        return
    place = st.empty()
    has_faces = shot.scene is not None and bool(shot.scene.faces)
    is_whole = model.has_classes and not has_faces
    heat = explain.toggle(t, model, shot) if is_whole else None
    with place.container():
        st.html(frame.phone(t, model, app.icon, _inside(t, app, model, shot, heat)))
    if is_whole:
        compare.panel(t, model, shot)
        explain.points(t, model)
    reading = t.task(app.task, "reading", "")
    if reading:
        st.html(
            f'<h2 class="fl-sub">{escape(t("answer.reading"))}</h2>'
            f'<p class="fl-read">{escape(reading)}</p>'
        )


def _inside(t: Texts, app: TaskApp, model: Model, shot: Shot, heat: explain.Heat | None) -> str:
    scene = shot.scene
    if scene is not None and scene.faces:
        drawn = app.draw(shot, app.tones) if app.draw else None
        top = frame.picture(t, shot, drawn)
        body = answers.faces(t, model, scene, app.tones)
    else:
        top = frame.picture(t, shot)
        body = ""
        if heat is not None:
            top = frame.heat_map(t, model.bundle, heat.label, heat.jpeg)
            body = f'<p class="fl-small">{escape(heat.caption)}</p>'
        if scene is not None:
            why = t("faces.none" if scene.has_detector else "faces.missing")
            body += f'<p class="fl-small">{escape(why)}</p>'
        body += answers.PANELS[model.bundle.kind](t, model, shot.prediction, app.tones)
    tail = answers.truth(t, model.task, shot, model.names) if model.has_classes else ""
    tail += answers.latency(t, shot.elapsed_ms)
    beyond = banners.beyond_range(t, model, shot.prediction.outside)
    return f'{top}<div class="fl-body">{beyond}{body}{tail}</div>'


def _how(t: Texts, task: str) -> None:
    tips = t.lines(f"tasks.{task}.photo")
    if tips:
        items = "".join(f"<li>{escape(tip)}</li>" for tip in tips)
        st.html(f'<h2 class="fl-sub">{escape(t("input.how"))}</h2><ul class="fl-tips">{items}</ul>')
