from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from pipelines.atomic import file_sha256
from pipelines.config import ViewParams
from pipelines.data.preprocess import Preprocess, View
from pipelines.errors import BundleError, MissingDataError
from pipelines.training.float_model import (
    FloatModel,
    load_float_model,
    load_held_out,
    save_float_model,
    save_held_out,
)


def meta() -> FloatModel:
    return FloatModel(
        task="tiny",
        domain="reference",
        labels=("a", "b", "c"),
        backbone="mobilenet_v3_small",
        cut=9,
        hidden=(16,),
        dropout=0.1,
        is_folded=True,
        resize_px=37,
        image_px=32,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        strategy="cached",
        weights="none",
        weights_provider=None,
        weights_sha256=None,
        weights_licence=None,
        data_sha256="aa",
        data_source="sample",
        n_images={"train": 4},
        n_groups={"train": 2},
        params_sha256="bb",
        val={"val_accuracy": 0.5},
    )


def test_view_is_kept_and_left_out_where_it_is_off():
    assert "view" not in meta().model_dump(mode="json")
    assert meta().preprocess == Preprocess(37, 32)
    changed = meta().model_copy(update={"view": ViewParams(grey=True, border_mask=0.1)})
    again = FloatModel.model_validate_json(changed.model_dump_json())
    assert again.preprocess == Preprocess(37, 32, View(grey=True, border_mask=0.1))


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "models" / "tiny" / "float"
    folder.mkdir(parents=True)
    torch.manual_seed(3)
    model = meta().build()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    save_float_model(folder, meta(), model)
    return folder


def test_round_trip_keeps_every_bit(tmp_path):
    model = meta().build()
    with torch.no_grad():
        model.head[0].weight.normal_()
    sha256 = save_float_model(tmp_path, meta(), model)
    again, loaded, got = load_float_model(tmp_path)
    assert again == meta()
    assert got == sha256 == file_sha256(tmp_path / "weights.safetensors")
    assert not loaded.training
    assert loaded.cut == 9
    before, after = model.state_dict(), loaded.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_same_model_gives_the_same_files(folder, tmp_path):
    _, model, _ = load_float_model(folder)
    (tmp_path / "again").mkdir()
    save_float_model(tmp_path / "again", meta(), model)
    for name in ("weights.safetensors", "model.json"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()


def test_absent_model_names_the_command(tmp_path):
    with pytest.raises(MissingDataError, match="Run `fieldlens train tiny` first"):
        load_float_model(tmp_path / "models" / "tiny" / "float")


def edit(folder, **changes):
    path = folder / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda f: (f / "model.json").write_text("{"), id="no JSON"),
        pytest.param(lambda f: (f / "model.json").write_text("[]"), id="no object"),
        pytest.param(lambda f: (f / "model.json").write_bytes(b"\xff"), id="not UTF-8"),
        pytest.param(lambda f: edit(f, schema_version=2), id="another version"),
        pytest.param(lambda f: edit(f, surprise=1), id="unknown key"),
        pytest.param(lambda f: edit(f, labels=["a"]), id="one label"),
        pytest.param(lambda f: edit(f, labels=["a", "b"]), id="another number of labels"),
        pytest.param(lambda f: edit(f, backbone="mobilenet_v2"), id="another backbone"),
        pytest.param(lambda f: edit(f, hidden=[8]), id="another head"),
        pytest.param(lambda f: (f / "weights.safetensors").unlink(), id="no weights"),
        pytest.param(lambda f: (f / "weights.safetensors").write_bytes(b"xx"), id="no tensors"),
        pytest.param(
            lambda f: (f / "weights.safetensors").write_bytes(
                (f / "weights.safetensors").read_bytes()[:-10]
            ),
            id="cut short",
        ),
    ],
)
def test_damaged_model_is_one_clear_error(damage, folder):
    load_float_model(folder)
    damage(folder)
    with pytest.raises(BundleError, match="the float model cannot be read") as caught:
        load_float_model(folder)
    assert "dvc repro -f train@tiny" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_whether_it_was_refitted_is_kept_and_left_out_where_it_was_not():
    assert "is_refit" not in meta().model_dump(mode="json")
    changed = meta().model_copy(update={"is_refit": True})
    assert FloatModel.model_validate_json(changed.model_dump_json()).is_refit


def test_held_out_answers_come_back_as_they_were(tmp_path):
    logits = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)
    save_held_out(tmp_path / "val_logits.npy", logits)
    assert np.array_equal(load_held_out(tmp_path / "val_logits.npy", 5, 3), logits)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read"),
        (b"", "cannot be read"),
        (b"\x93NUMPY", "cannot be read"),
        (np.zeros((5, 2), dtype=np.float32), r"5 val images, 3 classes each; .*\(5, 2\)"),
        (np.zeros((4, 3), dtype=np.float32), r"\(4, 3\)"),
        (np.full((5, 3), np.nan, dtype=np.float32), "expected finite answers"),
        (np.array([[{}] * 3] * 5), "cannot be read"),
    ],
    ids=["absent", "empty", "cut", "classes", "images", "nan", "pickled"],
)
def test_held_out_answers_that_are_not_those_are_refused(content, words, tmp_path):
    path = tmp_path / "tiny" / "float" / "val_logits.npy"
    path.parent.mkdir(parents=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.save(path, content, allow_pickle=True)
    with pytest.raises(BundleError, match=words) as caught:
        load_held_out(path, 5, 3)
    assert "dvc repro -f train@tiny" in str(caught.value)
