"""One cell, from images to figures."""

from __future__ import annotations

from dataclasses import replace
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
import torch

from pipelines.commands.board import objective_of
from pipelines.config.params import load_params
from pipelines.data.loaders import Pictures
from pipelines.data.manifest import class_index_of, in_split
from pipelines.errors import ConfigError
from pipelines.paths import Paths
from pipelines.search import objective as module
from pipelines.search.board import gain
from pipelines.search.cells import Cell
from pipelines.search.choice import rows_of
from pipelines.search.objective import Objective
from pipelines.training.job import train
from tests.file_tree import file_tree
from tests.tiny_board import LABELS

CELL = Cell(backbone="toy", width=1.0, image_px=32)


@pytest.fixture
def objective(project: Paths) -> Objective:
    return objective_of("tiny", load_params(project.params), project)


def test_cell_is_trained_tested_and_timed(objective, project, monkeypatch):
    trained, test = [], in_split(objective.data.entries, "test")

    def logits(model) -> torch.Tensor:
        views = Pictures(objective.data.files.raw_dir, test, model.meta.preprocess, None, 7)
        pixels = torch.from_numpy(np.concatenate(list(views.batches(16)))) / 255
        normalised = (pixels - torch.tensor(model.meta.mean)) / torch.tensor(model.meta.std)
        with torch.inference_mode():
            return model.model(normalised.permute(0, 3, 1, 2))[0]

    def outspoken(*arguments, **more):
        """A training, after which the head tells pictures apart."""
        trained.append(train(*arguments, **more))
        head = trained[-1].model.head[-1]
        with torch.no_grad():
            head.weight.normal_(std=100, generator=torch.Generator().manual_seed(1))
            head.bias -= logits(trained[-1]).mean(dim=0)
        return trained[-1]

    monkeypatch.setattr(module, "train", outspoken)
    before = file_tree(project.root)
    result = objective(CELL)
    fp32, int8 = result.variants["fp32"], result.variants["int8"]
    assert fp32.answers == tuple(logits(trained[0]).argmax(dim=1).tolist())
    assert len(set(fp32.answers)) > 1
    truth = class_index_of(test, LABELS)
    for found in (fp32, int8):
        assert found.accuracy.value == pytest.approx(np.mean(truth == np.array(found.answers)))
        assert found.accuracy.low <= found.accuracy.value <= found.accuracy.high
        assert set(found.recall) == set(LABELS)
        assert found.latency.ratio > 0
    assert int8.size_bytes < fp32.size_bytes
    assert fp32.peak_bytes == 4 * int8.peak_bytes
    assert result.int8_missed == (), "how large a file may be is no bound here"
    # Beside the checkpoint and the reference nothing was written, and the task's own stayed.
    own = project.cache_dir / "boards/tiny" / CELL.name
    assert own.is_dir()
    objective.forget(CELL)
    assert not own.exists()
    written = set(file_tree(project.root)) - set(before)
    assert {name.split("/")[1] for name in written} == {"references"}

    both = rows_of([result])
    difference = fp32.accuracy.value - int8.accuracy.value
    assert gain(objective, *both).value == pytest.approx(difference)


def test_key_changes_with_what_the_result_depends_on_alone(objective, project):
    key = objective.key(CELL, "code")
    narrow = CELL.model_copy(update={"width": 0.5})
    assert len({key, objective.key(narrow, "code"), objective.key(CELL, "other code")}) == 3
    text = project.params.read_text()

    def changed(old: str, new: str) -> str:
        assert old in text
        project.params.write_text(text.replace(old, new, 1))
        return objective_of("tiny", load_params(project.params), project).key(CELL, "code")

    assert changed('"toy": [1.0, 0.5]', '"toy": [0.5, 1.0]') == key
    assert changed('"min_accuracy": 0.5', '"min_accuracy": 0.6') == key
    for old, new in (
        ('"seed": 7', '"seed": 8'),
        ('"epochs": 1', '"epochs": 2'),
        ('"remedies": ["minmax"]', '"remedies": ["entropy"]'),
        ('"image_px": 64', '"image_px": 96'),
    ):
        assert changed(old, new) != key, new


def test_objective_may_cross_to_another_process(objective):
    # As multiprocessing and Ray hand it over.
    there = ForkingPickler.loads(ForkingPickler.dumps(objective))
    assert there == objective
    assert there.key(CELL, "code") == objective.key(CELL, "code")


def test_what_belongs_to_the_tasks_own_network_is_left_out(objective):
    section = objective.train.model_copy(update={"cut": 3, "refit": True})
    other = replace(objective, train=section)
    assert other.params_of(CELL).cut == 3
    assert other.params_of(CELL).refit is False
    small = other.params_of(Cell(backbone="mobilenet_v3_small", width=0.75, image_px=64))
    assert (small.cut, small.width, small.image_px) == (None, 0.75, 64)


@pytest.mark.parametrize(
    ("cell", "says"),
    [
        ({"width": 0.3}, "toy has no width 0.3"),
        ({"backbone": "vgg1"}, "there is no backbone 'vgg1'"),
    ],
)
def test_network_that_is_not_there_is_told_before_any_training(cell, says, objective):
    with pytest.raises(ConfigError, match=says):
        objective(CELL.model_copy(update=cell))
