from __future__ import annotations

import json

import pytest
import torch

from pipelines.atomic import file_sha256
from pipelines.config.view import ViewParams
from pipelines.data.pixel_range import Reading
from pipelines.data.preprocess import Preprocess, View
from pipelines.errors import BundleError, MissingDataError
from pipelines.training.float_model import (
    FloatModel,
    load_before,
    load_float_model,
    save_float_model,
)
from tests.training.toy import same


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


@pytest.mark.parametrize(
    "changes",
    [
        {"view": ViewParams(grey=True, border_mask=0.1)},
        # Norms that could not be folded.
        {"unfolded": ("blocks.0.norm",)},
        {"is_refit": True},
        {"range": (0.0, 4095.0), "max_aspect": 30.0},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_is_special_is_kept_and_left_out_where_nothing_is(changes):
    assert not changes.keys() & meta().model_dump(mode="json").keys()
    changed = meta().model_copy(update=changes)
    assert FloatModel.model_validate_json(changed.model_dump_json()) == changed


def test_preprocessing_is_that_of_the_prepared_set_and_the_params():
    assert meta().preprocess == Preprocess(37, 32)
    view = ViewParams(grey=True, border_mask=0.1)
    stated = meta().model_copy(update={"view": view, "range": (0.0, 4095.0), "max_aspect": 30.0})
    reading = Reading(range=(0.0, 4095.0), max_aspect=30.0)
    assert stated.preprocess == Preprocess(37, 32, View(grey=True, border_mask=0.1), reading)


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
    assert same(model, loaded)


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


def test_network_before_a_refit_is_kept_beside_the_one_that_is_released(folder):
    built = meta().model_copy(update={"is_refit": True})
    before, model = built.build(), built.build()
    with torch.no_grad():
        for parameter in before.parameters():
            parameter.add_(0.01)
    sha256 = save_float_model(folder, built, model, before)
    loaded = load_before(folder, built), load_float_model(folder)[1]
    for expected, got in zip((before, model), loaded, strict=True):
        assert not got.training
        assert same(expected, got)
    assert sha256 == file_sha256(folder / "weights.safetensors")


@pytest.mark.parametrize("content", [None, b"", b"not tensors"], ids=["absent", "empty", "other"])
def test_damaged_network_before_a_refit_is_one_clear_error(content, folder):
    if content is not None:
        (folder / "before_refit.safetensors").write_bytes(content)
    with pytest.raises(BundleError, match="the network before the refit cannot be read") as caught:
        load_before(folder, meta())
    assert "dvc repro -f train@tiny" in str(caught.value)
    assert "\n" not in str(caught.value)
