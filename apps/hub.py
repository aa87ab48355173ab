"""All tasks by domain, a card each, and the way to each task's own app.

`make app` or `fieldlens app` starts it; so does `streamlit run apps/hub.py`. A task that has no app
of its own gets the general page.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping
from html import escape
from importlib import import_module
from pathlib import Path

import streamlit as st
from streamlit.navigation.page import Page as StreamlitPage

from apps.banners import worst_score
from apps.frame import data_url, symbol
from apps.models import PHONE_VARIABLE, TASK_VARIABLE, Model, all_tasks, load_model, project
from apps.texts import Texts
from apps.ui import TaskApp, heading, open_page, run
from pipelines.card import DEFAULT_KIND
from pipelines.errors import BundleError
from pipelines.kinds.report import KINDS

_DOMAINS = ("medical", "agriculture", "safety", "reference")
_VERDICT_TONES = {"clean": "ok", "suspicious": "warn", "shortcut": "alarm"}
_NONE = "\N{EN DASH}"
_COLUMNS = 2
_APPS = Path(__file__).parent


def app_of(task: str) -> TaskApp:
    """The app of a task: its own, or the general one."""
    if not (_APPS / f"{task}.py").is_file():
        return TaskApp(task)
    # A user's task may have the name of another module here.
    app = getattr(import_module(f"apps.{task}"), "APP", None)
    return app if isinstance(app, TaskApp) else TaskApp(task)


def main() -> None:
    """Show the hub, or the task that the address or the environment names."""
    if task := os.environ.get(TASK_VARIABLE):
        run(app_of(task))
        return
    tasks = all_tasks()
    apps = {task: app_of(task) for task in tasks}
    pages = {task: st.Page(_page_of(app), title=task, url_path=task) for task, app in apps.items()}
    home = st.Page(lambda: _home(tasks, apps, pages), title="Fieldlens", default=True)
    st.session_state["hub_page"] = home
    st.navigation([home, *pages.values()], position="hidden").run()


def _page_of(app: TaskApp) -> Callable[[], None]:
    return lambda: run(app)


def _home(
    tasks: dict[str, str], apps: dict[str, TaskApp], pages: Mapping[str, StreamlitPage]
) -> None:
    t = open_page()
    heading(t, "filter_center_focus", t("hub.title"), t("hub.lead"))
    if not tasks:
        st.info(t("hub.no_model"))
    for domain in (*_DOMAINS, *sorted(set(tasks.values()) - set(_DOMAINS))):
        mine = [task for task, its_domain in tasks.items() if its_domain == domain]
        if not mine:
            continue
        title = t(f"hub.domains.{domain}") if domain in _DOMAINS else domain
        st.html(f'<h2 class="fl-dom">{escape(title)}</h2>')
        for start in range(0, len(mine), _COLUMNS):
            columns = st.columns(_COLUMNS, gap="medium")
            for column, task in zip(columns, mine[start : start + _COLUMNS], strict=False):
                with column, st.container(border=True, key=f"card-{task}"):
                    _card(t, task, apps[task].icon, pages[task])
    _phone_page(t)


def _card(t: Texts, task: str, icon: str, page: StreamlitPage) -> None:
    try:
        model = load_model(task)
    except BundleError as err:
        name = t.task(task, "name", task.replace("_", " ").capitalize())
        lead = t.task(task, "tells", "")
        st.html(_top(icon, name, lead))
        is_there = project().task(task).bundle.is_file()
        st.caption(t("errors.model", reason=str(err)) if is_there else t("hub.no_model"))
        return
    name = t.task(task, "name", model.bundle.title)
    lead = t.task(task, "tells", model.bundle.intended_use)
    st.html(
        f'<div class="fl-card">{_top(icon, name, lead)}{_chips(t, model)}{_facts(t, model)}</div>'
    )
    st.page_link(page, label=t("hub.open", name=name), icon=":material/arrow_forward:")


def _top(icon: str, name: str, lead: str) -> str:
    return (
        f'<div class="fl-row"><span class="fl-icon">{symbol(icon)}</span><h3>{escape(name)}</h3>'
        f'</div><p class="fl-lead">{escape(lead)}</p>'
    )


def _chips(t: Texts, model: Model) -> str:
    chips = []
    if model.bundle.domain == "medical":
        chips.append(("alarm", t("banners.medical_title").rstrip(".")))
    if model.bundle.is_sample:
        chips.append(("note", t("hub.sample")))
    if model.bundle.audit is not None:
        verdict = model.bundle.audit.verdict
        chips.append((_VERDICT_TONES[verdict], t(f"verdicts.{verdict}")))
    items = "".join(f'<span class="fl-chip {tone}">{escape(words)}</span>' for tone, words in chips)
    return f'<div class="fl-chips">{items}</div>'


def _facts(t: Texts, model: Model) -> str:
    bundle = model.bundle
    served = bundle.served.precision
    metrics = (bundle.metrics or {}).get(served, {})
    # What counts most of a kind; and, last in its list, what blind models are measured in.
    headings, names = zip(*KINDS[bundle.kind].headline.items(), strict=True)
    is_of_classes = bundle.kind == DEFAULT_KIND
    title, first = (t("hub.accuracy"), names[0]) if is_of_classes else (headings[-1], names[-1])
    accuracy, compared = metrics.get(first), metrics.get(names[-1])
    bounds = (bundle.intervals or {}).get(served, {}).get(first)
    around = t("hub.interval", low=bounds.low, high=bounds.high) if bounds else t("hub.no_interval")
    n_test = t("hub.n_test", n=bundle.provenance.n_images.get("test", 0))
    shown = t("hub.accuracy_value", value=accuracy) if accuracy is not None else _NONE
    blind, note = _NONE, t("hub.no_blind")
    worst = worst_score(bundle.audit) if bundle.audit else None
    if bundle.audit is not None and worst is not None and compared is not None:
        blind = t("hub.blind_value", value=worst.macro_f1.value)
        note = t("hub.blind_note", metric=bundle.audit.measure, sees=worst.sees, model=compared)
    size = t(
        "hub.served_value",
        precision=served,
        megabytes=bundle.files[served].size_bytes / 1e6,
    )
    rows = [
        (title, shown, f"{around}, {n_test}"),
        (t("hub.blind"), blind, note),
        (t("hub.served"), size, bundle.provenance.network),
        (t("hub.data"), "", _publisher(t, model)),
    ]
    cells = "".join(
        f"<div><dt>{escape(term)}</dt><dd>{escape(value)}<small>{escape(more)}</small></dd></div>"
        for term, value, more in rows
    )
    return f'<dl class="fl-facts">{cells}</dl>'


def _publisher(t: Texts, model: Model) -> str:
    publisher = model.card.source.publisher if model.card else _NONE
    return t("hub.painted", publisher=publisher) if model.bundle.is_sample else publisher


def _phone_page(t: Texts) -> None:
    url = os.environ.get(PHONE_VARIABLE)
    if not url:
        return
    import segno

    st.html(f'<h2 class="fl-dom">{escape(t("hub.phone_title"))}</h2>')
    left, right = st.columns([3, 2], gap="large", vertical_alignment="center")
    buffer = io.BytesIO()
    segno.make(url, error="m").save(buffer, kind="svg", border=1, scale=6)
    with left:
        st.html(f'<p class="fl-read">{escape(t("hub.phone_lead"))}</p>')
        st.link_button(t("hub.phone_open"), url, icon=":material/smartphone:")
        if "://127." in url or "://localhost" in url:
            st.caption(t("hub.phone_lan"))
    with right:
        code = data_url(buffer.getvalue(), "svg+xml")
        st.html(
            f'<div class="fl-qr"><img src="{code}" alt="{escape(t("hub.phone_qr"))}">'
            f"<code>{escape(url)}</code></div>"
        )


if __name__ == "__main__":
    main()
