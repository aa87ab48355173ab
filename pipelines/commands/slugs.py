"""Labels made of the names that people give their classes, in any script.

A label is a slug, since it names files, columns and keys; what people call the class stays in
`ClassEntry.name`. Called by `new`.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence

from anyascii import anyascii

from pipelines.errors import ConfigError

_MAX_LETTERS = 60
#: Han characters: each is a word, where letters make up words.
_HAN = re.compile("[\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_SIGN = re.compile(r"^\s*([+-])(?=\s*\d)")
_SIGNS = {"+": "plus ", "-": "minus "}
#: Joiners that Persian and Indic spelling needs; not printable to Python, and harmless.
_JOINERS = dict.fromkeys((0x200C, 0x200D))


def slug(name: str) -> str:
    """A name in the form of a label: lower case, digits and ``_``, a letter first.

    Letters are transliterated; a name that begins with a digit is set behind ``class_``; one
    without letters and digits is spelled out.

    Args:
        name: of a class, e.g. ``Late blight (2021)``, ``健康`` or ``3mm crack``.

    Returns:
        E.g. ``late_blight_2021``, ``jian_kang`` or ``class_3mm_crack``.

    References:
        anyascii (https://github.com/anyascii/anyascii) transliterates letter by letter.
    """
    made = _squeezed(_SIGN.sub(lambda sign: _SIGNS[sign[1]], name))
    if not made:
        made = _squeezed(_spelled(name, kept=""))
    return (made if made[:1].isalpha() else f"class_{made}")[:_MAX_LETTERS].strip("_")


def labels_for(names: Sequence[str], where: str) -> dict[str, str]:
    """By name, a label of its own for each.

    Names that are different words in another script and the same in Latin letters are numbered;
    names that differ in signs alone have these spelled out.

    Args:
        names: distinct, of one data set.
        where: the folder, for messages.

    Raises:
        ConfigError: if a name cannot be printed, or two are the same but for case and spaces.
    """
    for name in names:
        if not name.translate(_JOINERS).isprintable() or not name.strip():
            raise ConfigError(
                f"{where}: class {name!r}: no label can be made of it. Expected printable text; "
                f"rename it."
            )
    labels = {name: slug(name) for name in names}
    for name in _of_twins(labels):
        labels[name] = slug(_spelled(name, kept=" _-"))
    for name in _of_twins(labels):
        twins = [other for other in names if labels[other] == labels[name]]
        if len({_letters(twin) for twin in twins}) < len(twins):
            raise ConfigError(
                f"{where}: {' and '.join(map(repr, twins))} would both be the label "
                f"{labels[name]!r}. Rename or join them."
            )
    twins = _of_twins(labels)
    taken = {label for name, label in labels.items() if name not in twins}
    for name in twins:
        label, number = labels[name], 1
        while label in taken:
            number += 1
            label = f"{labels[name][: _MAX_LETTERS - 5]}_{number}"
        labels[name] = label
        taken.add(label)
    return labels


def _of_twins(labels: Mapping[str, str]) -> list[str]:
    """Names whose label another name has too."""
    counts = Counter(labels.values())
    return [name for name, label in labels.items() if counts[label] > 1]


def _squeezed(name: str) -> str:
    ascii_only = anyascii(_HAN.sub(lambda letter: f" {anyascii(letter[0])} ", name))
    return re.sub(r"[^a-z0-9]+", "_", ascii_only.lower()).strip("_")


def _spelled(name: str, kept: str) -> str:
    """A name with its signs, but for those to be kept, as Unicode calls them."""
    return "".join(
        letter
        if letter.isalnum() or letter.isspace() or letter in kept
        else f" {unicodedata.name(letter, f'u{ord(letter):x}')} "
        for letter in name
    )


def _letters(name: str) -> str:
    """What is the same in two names that differ only in case, blanks and signs."""
    folded = unicodedata.normalize("NFKC", name).casefold()
    return "".join(letter for letter in folded if letter.isalnum())
