"""The documentation leads somewhere, leaves nothing out of its reference, and can be built."""

from __future__ import annotations

import importlib.util
import re
import sys
import types
from html.parser import HTMLParser
from pathlib import Path

import pytest

import fieldlens
from tests.processes import ROOT, ran

DOCS = ROOT / "docs"
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted(DOCS.rglob("*.md")),
]
EXPERIMENTS = DOCS / "experiments"
#: Pages whose headings are made from the code when the site is built.
GENERATED = {DOCS / "reference" / f"{name}.md" for name in ("params", "command_line", "bundle")}


@pytest.fixture(scope="module")
def generated() -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("generated", DOCS / "generated.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub and the site make them."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.+)$", prose(page), re.M):
        kept = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        number = next(n for n in range(100) if f"{kept}-{n}".removesuffix("-0") not in found)
        found.add(f"{kept}-{number}".removesuffix("-0"))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if link.startswith(("http:", "https:", "mailto:")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        if anchor and target not in GENERATED:
            assert anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_nothing_in_angle_brackets_gets_lost(page):
    outside = re.sub(r"`[^`]+`", "", prose(page))
    assert not re.findall(r"<(?!!--)\w+>", outside), (
        "Markdown takes it for HTML: put it in backticks"
    )


def test_what_cites_an_experiment_names_a_page():
    pattern = r"docs/LOG\.md|(docs/)?experiments/[a-z0-9_]+\.md"
    listing = ran("git", "grep", "-hoE", pattern, "--", ".", ":!tests", ":!CHANGELOG.md").stdout
    cited = {name.removeprefix("docs/") for name in listing.split()}
    assert len(cited) > 5
    for name in cited:
        assert (DOCS / name).is_file(), name


def test_index_of_experiments_names_every_entry():
    linked = set(
        re.findall(r"\]\(([a-z0-9_]+\.md#[^)]+)\)", (EXPERIMENTS / "index.md").read_text())
    )
    for page in EXPERIMENTS.glob("*.md"):
        if page.name != "index.md":
            entries = re.findall(r"^## (.+)\n\n\*(\d{4}-\d\d-\d\d)\*$", page.read_text(), re.M)
            assert len(entries) == len(re.findall(r"^## ", prose(page), re.M)), page.name
            dates = [date for _, date in entries]
            assert dates == sorted(dates, reverse=True), f"{page.name}: newest first"
            own = {f"{page.name}#{anchor}" for anchor in anchors(page)}
            assert len(own & linked) == len(entries), f"{page.name}: {own - linked}"


def test_command_line_has_every_verb(generated):
    shown = generated.command_line()
    stages = ("fetch", "prepare", "audit", "train", "export", "evaluate", "gate", "report")
    assert {*stages, "predict", "new", "doctor"} <= set(generated.verbs())
    for verb in generated.verbs():
        assert f"\n## {verb}\n" in shown
        assert f"usage: fieldlens {verb} " in shown
    assert "examples" not in generated.verbs()


def test_params_have_every_key_with_its_comment(generated):
    params = generated.class_of(generated.PARAMS)
    shown, sections = generated.tables(params), generated.sections(params)
    assert len(sections) > 15
    for model, path in sections.items():
        _, _, section = shown.partition(f"## {model.__name__}\n")
        section = section.partition("\n## ")[0]
        assert path.removesuffix(".") in section
        for key in model.model_fields:
            assert f"\n| `{key}` | " in section, f"{model.__name__}.{key}"
    assert "| `learning_rate` | number, above 0 |  |" in shown
    assert (
        "| `refit` | true or false |  | Train again, on train and val, once val has chosen" in shown
    )
    assert "[TaskParams](#taskparams)" in shown


def test_every_generated_part_has_its_page(generated):
    asked = {
        name
        for page in sorted(DOCS.rglob("*.md"))
        for name in re.findall(r"^<!-- generated: (\w+) -->$", page.read_text(), re.M)
    }
    assert asked == set(generated.PARTS)


def test_facade_is_in_the_reference(generated):
    for name in fieldlens.__all__:
        assert f":: fieldlens.{name}\n" in generated.python() + "\n"
    for page in PAGES:
        for names in re.findall(r"from fieldlens import ([\w, ]+)", page.read_text()):
            assert set(re.findall(r"\w+", names)) <= set(fieldlens.__all__), page


class _Loaded(HTMLParser):
    """Addresses that a page loads by itself; links that are only followed do not count."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in {"script", "img", "iframe", "source"} or (
            tag == "link" and given.get("rel") in {"stylesheet", "preload", "icon", "modulepreload"}
        ):
            self.addresses.append(given.get("src") or given.get("href") or "")


@pytest.mark.slow
def test_site_is_built_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path):
    pytest.importorskip("sphinx", reason="needs `make docs` once")
    pytest.importorskip("furo")
    pytest.importorskip("myst_parser")
    out = tmp_path / "site"
    command = ["-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", "-d", f"{tmp_path}/trees"]
    ran(sys.executable, *command, DOCS, out)
    pages = list(out.rglob("*.html"))
    assert len(pages) > 60
    for page in pages:
        loaded = _Loaded()
        loaded.feed(page.read_text(encoding="utf-8"))
        assert loaded.addresses, page
        assert not [a for a in loaded.addresses if a.startswith(("http:", "https:", "//"))], page
    assert "usage: fieldlens predict" in (out / "reference/command_line.html").read_text()
    assert "max_class_loss" in (out / "reference/params.html").read_text()
