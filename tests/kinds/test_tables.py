"""Each kind stands in every table: none can be trained that cannot be released and shown."""

from __future__ import annotations

import re
from pathlib import Path

from apps.answers import PANELS
from apps.phone_site import KINDS as PAGE_KINDS
from pipelines.serving.kinds import KINDS
from tests.kinds.point import TABLES

ROOT = Path(__file__).resolve().parents[2]


def test_tables_name_the_same_kinds():
    for table in (*(table for table, _ in TABLES), PANELS):
        assert set(table) == set(KINDS)


def test_a_second_kind_is_told_to_every_table():
    # A kind need not answer to `new`.
    others = {"__init__", "blind", "new", "shown"}
    listed = {path.stem for path in (ROOT / "pipelines/kinds").glob("*.py")} - others
    assert len(TABLES) == len(listed) + 1  # that of serving


def test_phone_page_knows_them_with_the_same_outputs():
    text = (ROOT / "apps/phone/src/kinds.ts").read_text(encoding="utf-8")
    found = re.findall(r'^  \["(\w+)", \{ outputs: \[(.+?)\]', text, re.MULTILINE)
    assert found
    outputs = {name: tuple(re.findall(r"\w+", listed.lower())) for name, listed in found}
    assert outputs == {name: kind.outputs for name, kind in KINDS.items()}
    assert set(outputs) == PAGE_KINDS
