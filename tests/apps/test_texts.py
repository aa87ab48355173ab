"""Each language says everything, and nothing is said in the code."""

from __future__ import annotations

import ast
import importlib
import re
import string
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from apps.texts import LANGUAGES, TEXTS_DIR, Texts, language_of, load_texts
from pipelines.card import load_card
from pipelines.strict_yaml import read_yaml
from tests.apps.conftest import ROOT, TASKS

APPS = ROOT / "apps"
MODULES = sorted(APPS.glob("*.py"))
#: Read by the phone page and its server.
FOR_THE_PHONE = ("phone",)


def leaves(tree: object, prefix: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from leaves(value, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(tree, list):
        for number, value in enumerate(tree):
            yield from leaves(value, f"{prefix}[{number}]")
    else:
        yield prefix, tree


def texts_of(language: str) -> dict[str, str]:
    tree = read_yaml(TEXTS_DIR / f"{language}.yaml")
    return dict(leaves({key: value for key, value in tree.items() if key != "cards"}))


def gaps(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def test_each_language_has_a_file_and_each_file_a_language():
    assert {path.stem for path in TEXTS_DIR.glob("*.yaml")} == set(LANGUAGES)


@pytest.mark.parametrize("language", LANGUAGES[1:])
def test_no_key_is_missing_and_gaps_are_the_same(language):
    english, other = texts_of("en"), texts_of(language)
    assert sorted(english) == sorted(other)
    assert {key for key in english if gaps(english[key]) != gaps(other[key])} == set()


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_text_says_something(language):
    tree = read_yaml(TEXTS_DIR / f"{language}.yaml")
    empty = [key for key, text in leaves(tree) if not isinstance(text, str) or not text.strip()]
    assert empty == []


@pytest.mark.parametrize("task", TASKS)
def test_each_label_has_its_words(task):
    card = load_card(ROOT / "datasets" / task / "card.yaml")
    for language in LANGUAGES:
        tree = read_yaml(TEXTS_DIR / f"{language}.yaml")
        assert sorted(tree["tasks"][task]["labels"]) == sorted(card.labels)


@pytest.mark.parametrize("language", LANGUAGES[1:])
@pytest.mark.parametrize("task", TASKS)
def test_each_card_is_translated(task, language):
    card = load_card(ROOT / "datasets" / task / "card.yaml")
    translated = read_yaml(TEXTS_DIR / f"{language}.yaml")["cards"][task]
    assert sorted(translated["meanings"]) == sorted(card.labels)
    assert sorted(translated["next_steps"]) == sorted(card.next_steps)
    assert len(translated["not_for"]) == len(card.not_for)
    assert translated["intended_use"]
    is_english_medical = "Not a medical device." in card.intended_use
    assert ("Bukan alat kesehatan." in translated["intended_use"]) == is_english_medical


def keys_in_code() -> set[str]:
    """Keys that the code names whole; those that it puts together are matched by their start."""
    found = set()
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Constant)
                and isinstance(node.value, str)
                and re.fullmatch(r"[a-z_]+(\.[a-z_0-9]+)*\.[a-z0-9_]*[a-z0-9]", node.value)
            ):
                found.add(node.value)
    return found


def test_every_text_is_used_and_every_key_in_the_code_exists():
    texts = texts_of("en")
    plain = {key for key in texts if not key.startswith(("tasks.", *FOR_THE_PHONE))}
    together = {
        key
        for key in plain
        for start in (
            "hub.domains.",
            "verdicts.",
            "banners.",
            "input.",
            "answer.truth_",
            "compare.",
        )
        if key.startswith(start)
    }
    assert plain - keys_in_code() - together - {"language"} == set()
    sections = {key.split(".")[0] for key in plain}
    named = {key for key in keys_in_code() if key.split(".")[0] in sections}
    assert {key for key in named if key not in texts} == set()


def is_aside(node: ast.AST) -> bool:
    """Whether a part of a module speaks to others than the reader of a page.

    That is docstrings, messages of exceptions, the log, and what a module's own command says in a
    terminal (its ``main``): English, as with every command of `fieldlens`.
    """
    match node:
        case ast.Raise() | ast.Expr(value=ast.Constant()) | ast.FunctionDef(name="main"):
            return True
        case ast.Call(func=ast.Attribute(value=ast.Name(id="logger"))):
            return True
    return False


def prose_in(path: Path) -> list[str]:
    """Strings that read like sentences, as a page would show them."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    aside = {id(part) for node in ast.walk(tree) if is_aside(node) for part in ast.walk(node)}
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and id(node) not in aside
        and re.search(r"[A-Za-z]{2,} [A-Za-z]{2,}", re.sub(r"<[^>]*>?", "", node.value))
        and not re.match(r"\s*(aria-|fl-|class=|alt=)", node.value)
    ]


def test_prose_is_found_where_a_page_would_show_it(tmp_path):
    path = tmp_path / "page.py"
    path.write_text(
        '"""Of a module."""\n'
        "def main():\n    print('for a terminal only')\n"
        "def show():\n"
        "    logger.info('for the log only')\n"
        "    write('shown to a reader', f'and so {is_this} one', 'key.of_a_text')\n"
        "    raise ValueError('for an engineer only')\n"
    )
    assert prose_in(path) == ["shown to a reader", "and so "]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_no_text_stands_in_the_code(path):
    assert prose_in(path) == []


@pytest.mark.parametrize("task", TASKS)
def test_what_looks_alarming_is_an_alarm_by_the_card(task):
    tones = importlib.import_module(f"apps.{task}").APP.tones
    card = load_card(ROOT / "datasets" / task / "card.yaml")
    assert set(tones) <= set(card.labels)
    assert {label for label, tone in tones.items() if tone in {"warn", "alarm"}} <= card.alarms
    assert {label for label, tone in tones.items() if tone == "ok"}.isdisjoint(card.alarms)


def test_numbers_have_the_decimal_sign_of_the_language():
    tree = {"a": "{value:.1%} and {n}", "b": "plain."}
    assert Texts("en", tree)("a", value=0.5, n=3) == "50.0% and 3"
    assert Texts("id", tree)("a", value=0.5, n=3) == "50,0% and 3"
    assert Texts("id", tree)("b") == "plain."


def test_missing_key_is_an_error_and_missing_task_a_default():
    with pytest.raises(KeyError):
        load_texts("en")("no.such.key")
    assert load_texts("id").task("rice_leaf", "name", "Rice leaf") == "Rice leaf"
    assert load_texts("id").label("rice_leaf", "brown_spot") == "Brown spot"


@pytest.mark.parametrize(
    ("locale", "language"),
    [("id-ID", "id"), ("id", "id"), ("en-US", "en"), ("fr", "en"), (None, "en"), ("", "en")],
)
def test_language_of_a_browser(locale, language):
    assert language_of(locale) == language


def test_label_of_an_unknown_task_is_what_its_people_call_it():
    names = {"jian_kang": "健康"}
    assert load_texts("en").label("rice_leaf", "jian_kang", names) == "健康"
    assert load_texts("en").label("rice_leaf", "brown_spot", names) == "Brown spot"
