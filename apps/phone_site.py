"""What the phone page's server has to give: the built page, and the models with their words.

A request is looked up in a table of what there is; no path of a request ever becomes a path of the
disk. Called by `apps.phone_server`, which puts it into HTTP.
"""

from __future__ import annotations

import gzip
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from apps.texts import LANGUAGES, load_texts
from apps.tones import tones_of
from pipelines.atomic import file_sha256
from pipelines.card import DatasetCard, load_card
from pipelines.errors import BundleError, ConfigError
from pipelines.paths import Paths
from pipelines.serving.bundle import Bundle, read_bundle
from pipelines.serving.gallery import gallery_file, read_gallery

logger = logging.getLogger(__name__)

#: What `make phone` builds.
DIST_DIR = Path(__file__).with_name("phone") / "dist"

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json; charset=utf-8",
    ".webmanifest": "application/manifest+json; charset=utf-8",
    ".svg": "image/svg+xml; charset=utf-8",
    ".png": "image/png",
    ".txt": "text/plain; charset=utf-8",
    ".wasm": "application/wasm",
    ".onnx": "application/octet-stream",
}
#: Copies that the build has compressed, best first: HTTP's name of the coding, and the suffix.
_CODINGS = (("br", ".br"), ("gzip", ".gz"))

#: The tasks that there are, and their words.
_INDEX = "/models/index.json"
#: Which gallery there is: this the page asks each time, and the gallery itself by its hash.
_GALLERY_FACTS = "gallery_file.json"

#: A build names these by the hash of what they hold.
_HASHED = "assets/"
_FOR_EVER = "public, max-age=31536000, immutable"
_ASK_AGAIN = "no-cache"


@dataclass(frozen=True, slots=True)
class Answer:
    """One thing that can be asked for."""

    body: bytes
    content_type: str
    cache: str
    coding: str | None = None


@dataclass(frozen=True, slots=True)
class PhoneSite:
    """What is served: the page's files, and the models below a project's root.

    Attributes:
        pages: the page's files by address, with their compressed copies by coding.
    """

    paths: Paths
    pages: Mapping[str, Mapping[str | None, Path]]

    @classmethod
    def open(cls, root: Path, dist_dir: Path = DIST_DIR) -> PhoneSite:
        """Look at what the build made.

        Raises:
            ConfigError: if the page was not built.
        """
        if not (dist_dir / "index.html").is_file():
            raise ConfigError(
                f"{dist_dir}: the phone page is not built (no index.html). Run `make phone`."
            )
        pages: dict[str, Mapping[str | None, Path]] = {}
        suffixes = tuple(suffix for _, suffix in _CODINGS)
        for path in sorted(dist_dir.rglob("*")):
            if path.is_symlink() or not path.is_file() or path.name.endswith(suffixes):
                continue
            copies: dict[str | None, Path] = {None: path}
            for coding, suffix in _CODINGS:
                copy = path.with_name(path.name + suffix)
                if copy.is_file():
                    copies[coding] = copy
            pages[f"/{path.relative_to(dist_dir).as_posix()}"] = copies
        pages["/"] = pages["/index.html"]
        return cls(Paths(root), pages)

    def find(self, address: str, codings: Sequence[str]) -> Answer | None:
        """What stands at an address, or None.

        Args:
            address: path of the request, unquoted, e.g. ``/models/index.json``.
            codings: content codings that the client takes.
        """
        if address in self.pages:
            return self._page(address, codings)
        if address == _INDEX:
            return _json({"tasks": _index(self.paths)}, codings)
        match address.split("/"):
            case ["", "models", task, name]:
                return self._model(task, name, codings)
            case _:
                return None

    def addresses(self) -> list[str]:
        """All that there is to ask for, the page's root apart, which is index.html.

        Raises:
            BundleError: if a gallery is damaged or another model's.
        """
        found = [address for address in self.pages if address != "/"]
        for entry in _index(self.paths):
            task = str(entry["task"])
            path = self.paths.task(task).bundle
            bundle = read_bundle(path, verify=False)
            names = ("bundle.json", bundle.files[bundle.served.precision].name)
            found += [f"/models/{task}/{name}" for name in names]
            if bundle.kind in _WITH_GALLERY:
                found.append(f"/models/{task}/{_GALLERY_FACTS}")
                if gallery := _gallery(path, bundle):
                    read_gallery(gallery, bundle)
                    found.append(f"/models/{task}/{gallery.name}")
        return [*found, _INDEX]

    def _page(self, address: str, codings: Sequence[str]) -> Answer:
        copies = self.pages[address]
        coding = next((name for name, _ in _CODINGS if name in codings and name in copies), None)
        is_hashed = address.startswith(f"/{_HASHED}")
        suffix = copies[None].suffix
        return Answer(
            copies[coding].read_bytes(),
            TYPES.get(suffix, "application/octet-stream"),
            _FOR_EVER if is_hashed else _ASK_AGAIN,
            coding,
        )

    def _model(self, task: str, name: str, codings: Sequence[str]) -> Answer | None:
        """bundle.json, the model file that it serves, or the gallery beside them."""
        if task not in _tasks(self.paths):
            return None
        path = self.paths.task(task).bundle
        if name == "bundle.json":
            return _squeezed(path.read_bytes(), TYPES[".json"], _ASK_AGAIN, codings)
        bundle = read_bundle(path, verify=False)
        gallery = _gallery(path, bundle)
        if name == _GALLERY_FACTS and bundle.kind in _WITH_GALLERY:
            return _json(None if gallery is None else _facts(gallery), codings)
        file = path.with_name(name)
        if file.name != bundle.files[bundle.served.precision].name and file != gallery:
            return None
        return _packed_file(file, file.stat().st_mtime_ns, "gzip" in codings)


#: Kinds of tasks that the page can show (apps/phone/src/kinds.ts); others it does not offer.
KINDS = frozenset({"classification", "detection", "segmentation", "embedding"})
#: Kinds whose answers are compared with the gallery beside the bundle.
_WITH_GALLERY = frozenset({"embedding"})


def _gallery(path: Path, bundle: Bundle) -> Path | None:
    """The gallery beside a bundle; None where there is none, or its kind compares nothing."""
    file = gallery_file(path.parent)
    return file if bundle.kind in _WITH_GALLERY and file.is_file() else None


def _facts(gallery: Path) -> dict[str, object]:
    """By what the page knows whether it has this very file."""
    stat = gallery.stat()
    return {"sha256": _hash(gallery, stat.st_mtime_ns), "size_bytes": stat.st_size}


@lru_cache(maxsize=16)
def _hash(path: Path, _version: int) -> str:
    return file_sha256(path)


def _tasks(paths: Paths) -> list[str]:
    """Slugs of the tasks that have a bundle."""
    found = sorted(paths.models_dir.glob("*/mobile/bundle.json"))
    return [path.parent.parent.name for path in found]


def _index(paths: Paths) -> list[dict[str, object]]:
    """One entry a task: what the page shows before a model is loaded."""
    entries = []
    for task in _tasks(paths):
        try:
            path = paths.task(task).bundle
            bundle = read_bundle(path, verify=False)
        except BundleError as err:
            logger.warning("%s", err)
            continue
        if bundle.kind not in KINDS:
            continue
        try:
            card = load_card(paths.task(task).card)
        except ConfigError:
            card = None
        file = bundle.files[bundle.served.precision]
        gallery = _gallery(path, bundle)
        entries.append(
            {
                "task": task,
                "domain": bundle.domain,
                "title": bundle.title,
                "is_sample": bundle.is_sample,
                "size_bytes": file.size_bytes + (gallery.stat().st_size if gallery else 0),
                "words": {language: _words(bundle, card, language) for language in LANGUAGES},
            }
        )
    return entries


def _words(bundle: Bundle, card: DatasetCard | None, language: str) -> dict[str, object]:
    """What there is to say about a task in one language; a card that is absent says nothing."""
    texts = load_texts(language)
    task = bundle.task
    next_steps = card.next_steps if card is not None else {}
    not_for = texts.lines(f"cards.{task}.not_for") or list(bundle.not_for)
    return {
        "name": texts.task(task, "name", task.replace("_", " ").capitalize()),
        "tells": texts.task(task, "tells", bundle.title),
        "photo": texts.lines(f"tasks.{task}.photo"),
        "reading": texts.task(task, "reading", ""),
        "labels": {label: texts.label(task, label, bundle.label_names) for label in bundle.labels},
        "tones": dict(tones_of(task)),
        "meanings": {
            label: texts.of_card(task, f"meanings.{label}", meaning)
            for label, meaning in bundle.label_meanings.items()
        },
        "next_steps": {
            label: texts.of_card(task, f"next_steps.{label}", step)
            for label, step in next_steps.items()
        },
        "intended_use": texts.of_card(task, "intended_use", bundle.intended_use),
        "not_for": not_for,
    }


def _json(document: object, codings: Sequence[str]) -> Answer:
    body = json.dumps(document, ensure_ascii=False).encode()
    return _squeezed(body, TYPES[".json"], _ASK_AGAIN, codings)


def _squeezed(body: bytes, content_type: str, cache: str, codings: Sequence[str]) -> Answer:
    if "gzip" not in codings:
        return Answer(body, content_type, cache)
    return Answer(gzip.compress(body, mtime=0), content_type, cache, "gzip")


@lru_cache(maxsize=16)
def _packed_file(path: Path, _version: int, is_packed: bool) -> Answer:
    """A file whose address carries its hash, so that it may be kept for ever."""
    codings = ("gzip",) if is_packed else ()
    return _squeezed(path.read_bytes(), TYPES[path.suffix], _FOR_EVER, codings)
