"""What a card must not say, each in one line with the file, the key and the value."""

from __future__ import annotations

import pytest

from pipelines.card import load_card
from pipelines.errors import ConfigError
from tests.toy_card import CARD

FETCH = (
    '"2026-11-22", fetch: {n_bytes: 9, what: all, '
    'source: {kind: git, repository: r, revision: v, labels: {"*": mauve}}}}'
)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("task: toy", "task: boy", r"task: expected the folder's name 'toy' \(got 'boy'\)"),
        ("unit_of", "unti_of", r"unti_of_observation: .*\(got 'one colour'\)\. \(1 more faults\)"),
        ("splits: made", "splits: [made]", "splits: .*'given' or 'made'"),
        ("label: green", "label: red", "a label stands twice"),
        ("[Rot]", "[Rot, BLUE]", "the name 'blue' stands for both red and blue"),
        ("8}", "12, range: {low: 9, high: 9}}", "expected two numbers, low below high"),
        ("8}", "12, range: {low: 0, high: .inf}}", "expected two numbers, low below high"),
        ("splits", "group_pattern: '('\nsplits", "group_pattern: not a regular expression"),
        ("splits", "group_pattern: '(p\\d+)'\nsplits", "group_pattern: needs a named group"),
        ("splits", "next_steps: {mauve: Wait.}\nsplits", "next_steps names no class: mauve"),
        ('"2026-11-22"}', FETCH, "fetch names no class: mauve"),
    ],
)
def test_card_that_contradicts_itself_is_refused(tmp_path, old, new, message):
    path = tmp_path / "toy" / "card.yaml"
    path.parent.mkdir()
    text = CARD.format(title="Toy", task="toy")
    assert old in text
    path.write_text(text, encoding="utf-8")
    assert load_card(path).label_of("ROT") == "red"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ConfigError, match=message) as caught:
        load_card(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
