"""Rows in aligned columns, and names on one line, as a terminal shows them."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows in aligned columns, two spaces apart, without a line break at the end."""
    lines = [tuple(header), *(tuple(row) for row in rows)]
    widths = [max(width(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(
            cell + " " * (most - width(cell)) for cell, most in zip(line, widths, strict=True)
        ).rstrip()
        for line in lines
    )


def width(text: str) -> int:
    """How many columns of a terminal a text takes: two for a wide letter, none for an accent.

    References:
        Unicode Standard Annex 11, East Asian Width.
    """
    if text.isascii():
        return len(text)
    return sum(
        0
        if unicodedata.combining(letter) or unicodedata.category(letter) in {"Mn", "Me", "Cf"}
        else 1 + (unicodedata.east_asian_width(letter) in {"W", "F"})
        for letter in text
    )


def shown(name: str) -> str:
    """A file name as it is if it prints on one line, quoted with escapes if not."""
    return name if name.isprintable() and name else repr(name)


#: A spreadsheet takes a cell that begins with one of these for a formula (OWASP, "CSV injection").
_FORMULA_SIGNS = ("=", "+", "-", "@", "\t", "\r")


def uncalculated(name: str, mark: str = "./") -> str:
    """A file's name, as no spreadsheet calculates it: behind a mark where it would."""
    return f"{mark}{name}" if name.startswith(_FORMULA_SIGNS) else name
