"""A task is a block in params.yaml, a card and a test; reader and painter only if it needs them."""

from __future__ import annotations

from typing import get_args

import pytest

from pipelines.backbones.spec import backbones
from pipelines.card import Domain, load_card
from pipelines.config.params import load_params
from pipelines.tasks import load_task
from tests.processes import ROOT
from tests.shipped import SHIPPED

PARAMS = load_params(ROOT / "params.yaml")
TASKS = list(PARAMS.tasks)
CARDS = {task: load_card(ROOT / f"datasets/{task}/card.yaml") for task in TASKS}
#: Labels that the seed documents name; a data set that lacks one says so by `classes:`.
PROMISED = {
    "chest_xray": {"covid19", "no_finding", "pneumonia"},
    "mask_detection": {"with_mask", "without_mask", "mask_worn_incorrectly"},
    "weld_defect": {"crack", "lack_of_penetration", "no_defect", "porosity"},
}
N_CLASSES = {"skin_lesion": 7, "tomato_leaf": 10, "fish_species": 10, "cats_dogs": 2}


def test_the_seven_tasks_are_there():
    # Each is painted: a clean clone must run without anybody's data.
    assert set(PROMISED) | set(N_CLASSES) <= set(SHIPPED)


@pytest.mark.parametrize("task", TASKS)
def test_task_has_card_and_test(task):
    domain = PARAMS.task(task).domain
    assert CARDS[task].domain == domain
    assert callable(load_task(domain, task).records)
    assert (ROOT / "tests" / domain / f"test_{task}.py").is_file()


def test_every_module_of_a_domain_and_every_painter_is_a_tasks():
    """A misspelt one would be passed over in silence: the plain reader would take its place."""
    modules = {
        (domain, file.stem)
        for domain in get_args(Domain)
        for file in (ROOT / "pipelines" / domain).glob("*.py")
        if file.stem != "__init__"
    }
    assert modules <= {(section.domain, task) for task, section in PARAMS.tasks.items()}
    brushes = {"__init__", "canvas", "cutout", "face_masks", "folder", "pen", "portrait"}
    painters = {file.stem for file in (ROOT / "pipelines/samples").glob("*.py")} - brushes
    assert painters <= set(TASKS)


@pytest.mark.parametrize("task", SHIPPED)
def test_card_says_whose_the_data_are(task):
    card = CARDS[task]
    assert card.source.url.startswith("http")
    assert len(card.citation.text) > 20
    if card.domain == "medical":
        words = " ".join([card.intended_use, *card.not_for]).casefold()
        assert "not a medical device" in words
        assert "clinician" in " ".join(card.next_steps.values())


@pytest.mark.parametrize("task", TASKS)
def test_card_has_the_classes_that_were_promised(task):
    labels = CARDS[task].labels
    assert PROMISED.get(task, set(labels)) == set(labels)
    assert len(labels) == N_CLASSES.get(task, len(labels))


@pytest.mark.parametrize("task", TASKS)
def test_params_name_what_exists(task):
    section = PARAMS.task(task)
    assert set(section.prepare.classes or ()) <= set(CARDS[task].labels)
    assert section.train.backbone in backbones()


def test_cards_are_those_of_the_tasks():
    assert {path.parent.name for path in (ROOT / "datasets").glob("*/card.yaml")} == set(TASKS)


@pytest.mark.parametrize("task", SHIPPED)
def test_real_overlay_gives_valid_params(task, tmp_path):
    from pipelines.commands.workspace import overlay
    from pipelines.config.params import TaskParams
    from pipelines.strict_yaml import read_yaml, validate

    document = read_yaml(ROOT / "params.yaml")
    block = overlay(document["tasks"][task], PARAMS.real[task].sections)
    validate(TaskParams, block, ROOT / "params.yaml", f"real.{task}")
