"""Pictures in: upload, camera, or a test picture; and the bounds on what may come."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import streamlit as st
from streamlit.runtime.uploaded_file_manager import UploadedFile

from apps.frame import thumb_html
from apps.gallery import pick, thumbnail
from apps.models import Model
from apps.session import MAX_AT_ONCE, Store
from apps.texts import Texts
from pipelines.card import DEFAULT_KIND
from pipelines.data.pixel_range import max_pixels
from pipelines.data.tree import IMAGE_SUFFIXES

#: Of one uploaded picture; .streamlit/config.toml says the same to the server.
MAX_UPLOAD_MB = 30
_SUFFIXES = tuple(sorted(suffix.removeprefix(".") for suffix in IMAGE_SUFFIXES))
_SOURCES = ("upload", "camera", "gallery")
_N_GALLERY = 12
#: Where browsers give a page the camera without HTTPS.
_LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class Incoming:
    """A picture that waits for its answer.

    Attributes:
        source: bytes of an upload, or the file of a test picture.
        truth: the true label of a test picture.
    """

    key: str
    name: str
    source: bytes | Path
    truth: str | None = None


def choose(t: Texts, model: Model, kept: Store) -> list[Incoming]:
    """The pictures that the person has chosen, in their order.

    Args:
        kept: the session's pictures; choosing others ends the look at an old one.
    """

    def is_new() -> None:
        kept.shown = None

    source = st.segmented_control(
        t("input.source"),
        _SOURCES,
        default=_SOURCES[0],
        required=True,
        format_func=lambda name: t(f"input.{name}"),
        key=f"source-{model.task}",
        width="stretch",
        on_change=is_new,
        persist_state="session",
    )
    if source == "camera":
        return _from_camera(t, model, kept, is_new)
    if source == "gallery":
        return _from_gallery(t, model, kept)
    return _from_upload(t, model, kept, is_new)


def _from_upload(t: Texts, model: Model, kept: Store, is_new: Callable[[], None]) -> list[Incoming]:
    files = st.file_uploader(
        t("input.upload_label"),
        type=_SUFFIXES,
        accept_multiple_files=True,
        key=f"upload-{model.task}-{kept.turn}",
        max_upload_size=MAX_UPLOAD_MB,
        on_change=is_new,
    )
    bounds = {"megabytes": MAX_UPLOAD_MB, "megapixels": max_pixels() // 1_000_000, "n": MAX_AT_ONCE}
    st.caption(t("input.upload_hint", **bounds))
    if len(files) > MAX_AT_ONCE:
        st.warning(t("input.too_many", n=len(files), most=MAX_AT_ONCE))
    return [_uploaded(file) for file in files[:MAX_AT_ONCE]]


def _from_camera(t: Texts, model: Model, kept: Store, is_new: Callable[[], None]) -> list[Incoming]:
    if not _has_camera(st.context.url):
        st.info(t("input.camera_hint"))
    photo = st.camera_input(
        t("input.camera_label"),
        key=f"camera-{model.task}-{kept.turn}",
        resolution="720p",
        on_change=is_new,
    )
    return [_uploaded(photo)] if photo is not None else []


def _from_gallery(t: Texts, model: Model, kept: Store) -> list[Incoming]:
    labels = model.bundle.labels if model.bundle.kind == DEFAULT_KIND else None
    offered = pick(model.files, labels, n=_N_GALLERY, turn=kept.gallery_turn)
    if not offered:
        st.info(t("input.gallery_none"))
        return []
    st.caption(t("input.gallery_lead"))
    with st.container(horizontal=True, gap="small", key="gallery"):
        for number, test in enumerate(offered, start=1):
            small = thumbnail(str(test.path), test.path.stat().st_mtime_ns, model.reading)
            if small is None:
                continue
            label = t.label(model.task, test.label, model.names)
            with st.container(key=f"pick-{number}", gap=None):
                words = t("input.gallery_picture", number=number, label=label)
                st.html(thumb_html(small, words))
                st.button(
                    label,
                    key=f"try-{model.task}-{number}",
                    width="stretch",
                    on_click=_pick,
                    args=(kept, str(test.path), test.label),
                )
    st.button(
        t("input.gallery_more"),
        key=f"more-{model.task}",
        icon=":material/refresh:",
        on_click=_turn,
        args=(kept,),
    )
    if kept.picked is None:
        return []
    path, truth = kept.picked
    return [Incoming(f"test:{path}", Path(path).name, Path(path), truth)]


def _pick(kept: Store, path: str, label: str) -> None:
    kept.picked = (path, label)
    kept.shown = None


def _turn(kept: Store) -> None:
    kept.gallery_turn += 1


def _uploaded(file: UploadedFile) -> Incoming:
    return Incoming(f"file:{file.file_id}", file.name, file.getvalue())


def _has_camera(url: str | None) -> bool:
    parts = urlsplit(url or "")
    return parts.scheme == "https" or parts.hostname in _LOCAL_HOSTS or not parts.hostname


def names(of: Sequence[str]) -> list[str]:
    """Names to choose one of several pictures by; those that stand twice get a number."""
    seen: dict[str, int] = {}
    given = []
    for name in of:
        seen[name] = seen.get(name, 0) + 1
        given.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return given
