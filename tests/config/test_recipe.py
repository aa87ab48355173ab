"""Recipes: what is laid over a task's settings, and where a fault in one is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipelines.backbones.spec import backbone
from pipelines.card import DEFAULT_KIND, load_card
from pipelines.config.params import load_params
from pipelines.config.recipe import laid_over
from pipelines.errors import ConfigError
from pipelines.training.fit import OPTIMIZERS
from tests.tiny_params import PARAMS

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted((ROOT / "recipes").glob("*"))


@pytest.fixture
def recipe(tmp_path):
    """Writes a recipe; gives its path."""

    def write(text: str) -> Path:
        path = tmp_path / "mine.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture
def own():
    from pipelines.config.train import TrainParams

    return TrainParams.model_validate(PARAMS)


def test_sections_are_joined_and_anything_else_is_replaced(own, recipe):
    text = """\
        train:
          head: {hidden: [320, 320]}
          tail_phase: {epochs: 0}
          optimizer: sgd
          distill: {teacher: t.npz, temperature: 2, weight: 0.5}
        """
    got = laid_over(own, recipe(text))
    assert got.head.hidden == (320, 320)
    assert got.head.dropout == own.head.dropout
    assert got.tail_phase == own.tail_phase.model_copy(update={"epochs": 0})
    assert got.optimizer == "sgd"
    assert got.distill.teacher == ("t.npz",)
    changed = {"head", "tail_phase", "optimizer", "distill"}
    assert got.model_dump(exclude=changed) == own.model_dump(exclude=changed)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("# A source.\ntrain:\n  optimzer: sgd\n", r"mine\.yaml:3: train\.optimzer: Extra inputs"),
        ("train:\n  head:\n    dropout: 0.1\n    hiden: [1]\n", r"mine\.yaml:4: train\.head\.hid"),
        ("train: {batch_size: 1}\n", r"mine\.yaml:1: train\.batch_size: .*\(got 1\)"),
        ("train:\n  head: {hidden: [8, 0]}\n", r"mine\.yaml:2: train\.head\.hidden\.1: "),
        ("train:\n  views: 2\ngate: {}\n", r"mine\.yaml:3: gate: Extra inputs"),
        ("optimizer: sgd\n", r"mine\.yaml:1: optimizer: Extra inputs"),
        ("train: {}\n", r"mine\.yaml:1: train: "),
        ("train:\n  views: [\n", r"mine\.yaml:3: not valid YAML"),
        # Each is well by itself, and both together are not.
        (
            "train:\n  head_phase: {epochs: 0}\n  tail_phase: {epochs: 0}\n",
            r"mine\.yaml:1: train: head_phase\.epochs and tail_phase\.epochs are both 0",
        ),
    ],
)
def test_a_fault_is_one_line_with_file_line_and_key(text, says, own, recipe):
    with pytest.raises(ConfigError, match=says) as found:
        laid_over(own, recipe(text))
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_each_recipe_is_valid_over_every_classification_and_says_where_it_is_from(path):
    """And all it sets is what comes out, whatever a task has there."""
    made = {}
    for task, section in load_params(ROOT / "params.yaml").tasks.items():
        if load_card(ROOT / f"datasets/{task}/card.yaml").kind != DEFAULT_KIND:
            continue
        params = laid_over(section.train, path)
        backbone(params.backbone, params.width)
        assert params.optimizer in OPTIMIZERS
        assert params != section.train
        kept = {"augment", "view", "balance"}
        made[task] = params.model_dump(mode="json", exclude=kept)
    text = path.read_text(encoding="utf-8")
    assert re.match(r"# .{40,}\n# ", text)
    first = next(iter(made.values()))
    assert all(each == first for each in made.values())


def test_recipes_of_the_study_on_welds_differ_in_the_network_alone():
    own = load_params(ROOT / "params.yaml").task("weld_defect").train
    welds = [laid_over(own, path) for path in RECIPES if path.stem.startswith("weld_")]
    networks = {"mobilenet_v1", "vgg16", "vgg19", "xception", "resnet50"}
    assert {each.backbone for each in welds} == networks
    assert len({each.model_copy(update={"backbone": ""}).model_dump_json() for each in welds}) == 1
