"""Every word that the apps say, in the language of the person before the screen.

One file a language in apps/texts/, with the same keys in each (a test). What a dataset card says in
English is read from the card; other languages bring a translation of it in their ``cards`` part.
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from pipelines.strict_yaml import read_yaml

TEXTS_DIR = Path(__file__).with_name("texts")
LANGUAGES = ("en", "id")
#: Languages that write a decimal comma.
_WITH_COMMA = frozenset({"id"})


class _Numbers(string.Formatter):
    """Formats as `str.format`, with the decimal sign of the language."""

    def __init__(self, language: str) -> None:
        self._comma = language in _WITH_COMMA

    def format_field(self, value: Any, format_spec: str) -> Any:
        shown = super().format_field(value, format_spec)
        return shown.replace(".", ",") if self._comma and isinstance(value, float) else shown


class Texts:
    """The texts of one language: call it with a key and the values of its gaps."""

    def __init__(self, language: str, tree: Mapping[str, Any]) -> None:
        """Keep them."""
        self.language = language
        self._tree = tree
        self._numbers = _Numbers(language)

    def __call__(self, key: str, **values: object) -> str:
        """The text of a key, its gaps filled.

        Args:
            key: with dots, e.g. ``answer.ood``.

        Raises:
            KeyError: if there is no such text.
        """
        found = self._find(key)
        if not isinstance(found, str):
            raise KeyError(key)
        return self._numbers.vformat(found, (), values) if values else found

    def lines(self, key: str) -> list[str]:
        """The texts of a list; empty if there is none."""
        found = self._find(key)
        return [str(line) for line in found] if isinstance(found, list) else []

    def task(self, task: str, key: str, default: str) -> str:
        """A task's text, or the default for a task that this file does not know."""
        found = self._find(f"tasks.{task}.{key}")
        return found if isinstance(found, str) else default

    def label(self, task: str, label: str, names: Mapping[str, str] | None = None) -> str:
        """A label in words: in this language, or else as its people call it."""
        name = (names or {}).get(label) or label.replace("_", " ").capitalize()
        return self.task(task, f"labels.{label}", name)

    def of_card(self, task: str, key: str, default: str) -> str:
        """What the card says, translated where this language has a translation."""
        found = self._find(f"cards.{task}.{key}")
        return found if isinstance(found, str) else default

    def _find(self, key: str) -> object:
        place: object = self._tree
        for part in key.split("."):
            if not isinstance(place, Mapping) or part not in place:
                return None
            place = place[part]
        return place


@lru_cache(maxsize=len(LANGUAGES))
def load_texts(language: str) -> Texts:
    """The texts of a language."""
    return Texts(language, read_yaml(TEXTS_DIR / f"{language}.yaml"))


def language_of(locale: str | None) -> str:
    """The language for a browser's locale; English where there is none of ours."""
    wanted = (locale or "").replace("_", "-").split("-")[0].lower()
    return wanted if wanted in LANGUAGES else LANGUAGES[0]
