from __future__ import annotations

from pipelines.card import load_card
from tests.published_set import PATHS, read


def test_published_folders_are_known_and_each_photograph_is_a_group(tmp_path):
    assert read("cats_dogs", tmp_path, "cat/cat.4111.jpg", "dogs/dog.7.jpg") == {
        "cat/cat.4111.jpg": ("cats", "cat/cat.4111.jpg"),
        "dogs/dog.7.jpg": ("dogs", "dogs/dog.7.jpg"),
    }


def test_card_claims_no_licence_that_nobody_gave():
    assert load_card(PATHS.task("cats_dogs").card).licence.spdx == "NOASSERTION"
