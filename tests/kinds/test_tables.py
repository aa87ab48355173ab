"""Each kind stands in every table: none can be trained that cannot be released and shown."""

from __future__ import annotations

import re
from pathlib import Path

from apps.answers import PANELS
from pipelines.kinds import evaluate, export, gate
from pipelines.serving.kinds import KINDS

ROOT = Path(__file__).resolve().parents[2]


def test_tables_name_the_same_kinds():
    kinds = set(KINDS)
    for table in (export.KINDS, evaluate.KINDS, gate.KINDS, PANELS):
        assert set(table) == kinds


def test_phone_page_knows_them_with_the_same_outputs():
    text = (ROOT / "apps/phone/src/kinds.ts").read_text(encoding="utf-8")
    found = re.findall(r'^  \["(\w+)", \{ outputs: \[(.+?)\]', text, re.MULTILINE)
    assert found
    outputs = {name: tuple(re.findall(r"\w+", listed.lower())) for name, listed in found}
    assert outputs == {name: kind.outputs for name, kind in KINDS.items()}
