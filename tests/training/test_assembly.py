from __future__ import annotations

import numpy as np
import pytest
import torch

from pipelines.backbones.spec import IMAGENET_MEAN, IMAGENET_STD
from pipelines.training.job import (
    frozen_trunks,
    normalise,
    open_split,
    phases_of,
    preprocess_of,
)
from pipelines.training.start import start_model


def test_normalised_pixels_are_those_that_the_exported_file_makes():
    pixels = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (2, 5, 4, 3), np.uint8))
    got = normalise(pixels, IMAGENET_MEAN, IMAGENET_STD)
    assert got.shape == (2, 3, 5, 4)
    for channel in range(3):
        expected = (pixels[..., channel] / 255 - IMAGENET_MEAN[channel]) / IMAGENET_STD[channel]
        assert torch.allclose(got[:, channel], expected, atol=1e-6)


@pytest.fixture
def toy_params(tmp_path, monkeypatch, train_params):
    """Params of a backbone that wants another input than ImageNet's."""
    from pipelines.backbones.spec import backbones
    from tests.backbones.toy_family import toy

    monkeypatch.setitem(backbones(), "toy", toy(tmp_path / "weights"))
    return train_params(backbone="toy", weights="none", image_px=64, int8_views=0.0)


def test_each_strategy_normalises_as_the_backbones_entry_says(
    tiny_project, toy_params, tmp_path, monkeypatch
):
    from pipelines.data.manifest import in_split, read_manifest
    from pipelines.paths import Paths
    from pipelines.serving.sessions import make_session

    files = tiny_project.task("tiny")
    entries = in_split(read_manifest(files.manifest), "train")
    labels = sorted({entry.label for entry in entries})
    split = open_split(entries, labels, toy_params, 1, files)
    model, _ = start_model(toy_params, 3, 1, Paths(tmp_path))
    pixels = next(iter(split.pictures.batches(12)))
    values = torch.from_numpy(pixels) / 255 - torch.tensor([0.4, 0.5, 0.6])
    values = (values / 0.5).permute(0, 3, 1, 2)
    with torch.inference_mode():
        activations = model.eval().trunk(values).numpy()
        logits = model(values)[0]

    trunk = frozen_trunks(model, toy_params, split.pictures, 1, Paths(tmp_path))["fp32"]
    got = make_session(trunk).run(None, {"image": pixels})[0]
    assert activations.std() > 1e-3
    np.testing.assert_allclose(got, activations, atol=1e-4)

    full = toy_params.model_copy(update={"strategy": "full"})
    phase = phases_of("tiny", model, full, split, split, 1, Paths(tmp_path))[0]
    with torch.inference_mode():
        torch.testing.assert_close(phase.val_outputs(), logits, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("crop_fraction", "resize_px"), [(1.0, 32), (0.875, 37), (0.8, 40)])
def test_plain_view_is_resized_so_that_the_crop_has_its_share(
    crop_fraction, resize_px, train_params
):
    preprocess = preprocess_of(train_params(image_px=32, crop_fraction=crop_fraction))
    assert (preprocess.resize_px, preprocess.crop_px) == (resize_px, 32)


def test_view_of_the_params_is_the_preprocessing_s(train_params):
    from pipelines.data.preprocess import Preprocess, View

    view = {"grey": True, "side_px": 24, "border_mask": 0.1}
    assert preprocess_of(train_params(view=view)) == Preprocess(37, 32, View(**view))
    assert preprocess_of(train_params()) == Preprocess(37, 32)


def test_params_that_use_no_view_are_those_that_spell_it_out(train_params):
    off = {"grey": False, "side_px": None, "border_mask": 0}
    assert train_params(view=off) == train_params()
    document = train_params().model_dump(mode="json")
    # DVC looks for it in params.yaml; a block that `fieldlens new` dumps must have it.
    assert document["view"] == off
    assert "background" not in document["augment"]


@pytest.mark.parametrize(
    "view", [{"gray": True}, {"grey": 1}, {"side_px": 8}, {"side_px": "96"}, {"border_mask": 0.5}]
)
def test_views_that_cannot_be_are_refused(view, train_params):
    from pydantic import ValidationError

    with pytest.raises(ValidationError, match="view"):
        train_params(view=view)


def test_labels_become_numbers_in_the_order_of_the_logits(tiny_project, train_params):
    from pipelines.data.manifest import in_split, read_manifest

    files = tiny_project.task("tiny")
    entries = in_split(read_manifest(files.manifest), "train")
    labels = sorted({entry.label for entry in entries}, reverse=True)
    split = open_split(entries, labels, train_params(), 1, files)
    assert [labels[i] for i in split.truth] == [entry.label for entry in entries]


def test_kept_trunk_is_used_only_for_the_same_weights_side_and_exporter(
    tiny_project, train_params, tmp_path, monkeypatch
):
    from pipelines.data.manifest import in_split, read_manifest
    from pipelines.export import onnx_export as export
    from pipelines.paths import Paths

    files = tiny_project.task("tiny")
    entries = in_split(read_manifest(files.manifest), "train")
    paths = Paths(tmp_path)
    params = train_params(backbone="mobilenet_v3_small", weights="none", int8_views=0.0)
    labels = sorted({entry.label for entry in entries})
    pictures = open_split(entries, labels, params, 1, files).pictures

    # What is asked is when a trunk is exported, not what: the exporter has tests of its own.
    monkeypatch.setattr(export, "trunk_onnx", lambda *_: b"a trunk")

    def n_kept(seed: int = 1, **changed: object) -> int:
        chosen = params.model_copy(update=changed)
        model, _ = start_model(chosen, 3, seed, paths)
        frozen_trunks(model, chosen, pictures, seed, paths)
        return len(list(paths.trunks_dir.iterdir()))

    assert [n_kept(), n_kept()] == [1, 1]
    assert n_kept(seed=2) == 2
    assert n_kept(image_px=64) == 3
    other = tmp_path / "export.py"
    other.write_text("# another exporter", encoding="utf-8")
    monkeypatch.setattr(export, "__file__", str(other))
    assert n_kept() == 4
