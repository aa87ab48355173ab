"""The pictures of this session, to look at again or to delete."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import streamlit as st

from apps.answers import short
from apps.frame import data_url, thumb_html
from apps.models import Model
from apps.session import MAX_SHOTS, Shot, Store
from apps.texts import Texts

_STRIP = 6


def panel(t: Texts, model: Model, kept: Store) -> None:
    """Thumbnails of the session, the newest first, and the button that deletes them."""
    if not kept.shots and not kept.refused:
        if kept.turn:
            st.caption(t("history.deleted"))
        return
    st.html(f'<h2 class="fl-sub">{escape(t("history.title"))}</h2>')
    with st.container(horizontal=True, gap="small"):
        for number, shot in enumerate(list(kept.shots.values())[::-1][:MAX_SHOTS]):
            label = short(t, model, shot.main)
            if len(shot.answers) > 1:
                label = t("faces.many", n=len(shot.answers))
            is_ood = len(shot.answers) == 1 and shot.main.is_ood
            words = t("answer.ood") if is_ood else label
            with st.container(key=f"past-{number}", gap=None):
                st.html(thumb_html(shot.thumb, t("history.picture", name=shot.name, label=words)))
                st.button(
                    "?" if is_ood else label,
                    key=f"again-{model.task}-{number}",
                    width="stretch",
                    on_click=_show,
                    args=(kept, shot.key),
                )
    st.caption(t("history.lead"))
    st.button(
        t("history.delete"),
        key=f"delete-{model.task}",
        icon=":material/delete:",
        on_click=kept.forget,
    )


def strip(shots: Sequence[Shot]) -> str:
    """The first few of several pictures side by side, as HTML."""
    cells = "".join(
        f'<img src="{data_url(shot.thumb, "jpeg")}" alt="{escape(shot.name)}">'
        for shot in shots[:_STRIP]
    )
    return f'<div class="fl-strip">{cells}</div>'


def _show(kept: Store, key: str) -> None:
    kept.shown = key
