from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from pipelines.data.pixel_range import Reading
from pipelines.data.preprocess import Preprocess, View
from pipelines.errors import BundleError
from pipelines.serving.bundle import Artefact, Bundle, PreprocessSpec, read_bundle, read_model
from pipelines.serving.kinds import KINDS
from pipelines.serving.predictor import Predictor
from tests.serving.conftest import GOLDEN, POINT, edited

#: JSON that says nothing of a schema.
NO_BUNDLES = (b"null", b"[]", b"3", b'"x"', b"{}")


@pytest.fixture
def candidate(tiny_project) -> Path:
    return tiny_project.task("tiny").candidate


def test_bundle_is_read_as_it_was_written(candidate):
    text = candidate.read_text(encoding="utf-8")
    bundle = read_bundle(candidate)
    assert bundle.to_json() == text
    assert Bundle.model_validate_json(text) == bundle
    assert bundle.labels == ("red_tile", "green_tile", "blue_tile")
    assert bundle.preprocess.build() == Preprocess(36, 32)
    assert bundle.is_sample
    assert bundle.temperature == 1.0


def test_view_travels_in_the_bundle_and_is_left_out_where_it_is_off(candidate):
    assert list(json.loads(candidate.read_text())["preprocess"]) == [
        "resize_px",
        "crop_px",
        "interpolation",
    ]
    preprocess = Preprocess(36, 32, View(grey=True, side_px=20, border_mask=0.1))
    spec = PreprocessSpec.of(preprocess)
    assert spec.build() == preprocess
    assert PreprocessSpec.model_validate_json(spec.model_dump_json()) == spec
    edited(candidate, preprocess=spec.model_dump(mode="json"))
    assert read_bundle(candidate).preprocess.build() == preprocess


@pytest.mark.parametrize("scale", ["full", (0.0, 4095.0)])
def test_range_and_aspect_travel_in_the_bundle(scale, candidate):
    preprocess = Preprocess(36, 32, reading=Reading(range=scale, max_aspect=30.0))
    spec = PreprocessSpec.of(preprocess)
    written = json.loads(spec.model_dump_json())
    assert written["range"] == (scale if scale == "full" else [0.0, 4095.0])
    assert written["max_aspect"] == 30.0
    edited(candidate, preprocess=written)
    assert read_bundle(candidate).preprocess.build() == preprocess


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("range", value) for value in ([4095, 0], [1], [0, 1, 2], "half", [0, "x"])),
        *(("side_px", 0), ("border_mask", 0.5), ("border_mask", -1), ("gray", True)),
    ],
)
def test_view_or_range_that_cannot_be_is_refused(key, value, candidate):
    edited(candidate, **{f"preprocess__{key}": value})
    with pytest.raises(
        BundleError, match="preprocess" if key == "range" else rf"preprocess\.{key}"
    ):
        read_bundle(candidate)


def test_bundle_can_be_carried_elsewhere(candidate, tmp_path):
    moved = Path(shutil.copytree(candidate.parent, tmp_path / "phone"))
    assert read_bundle(moved / candidate.name) == read_bundle(candidate)


def test_bundle_of_real_images_is_no_sample(candidate):
    assert not read_bundle(edited(candidate, provenance__data_source="folder")).is_sample


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, r"bundle\.json: there is no bundle\. Run `dvc repro`"),
        (b"", "is not readable JSON"),
        (b"{", "is not readable JSON"),
        (b"\xff\xfe{}", "is not readable JSON"),
        (b"[" * 100_000, "is not readable JSON"),
        (b'{"a": ' * 50_000, "is not readable JSON"),
        *((data, "schema_version: expected 3 or 2, got None") for data in NO_BUNDLES),
    ],
    ids=[
        *("absent", "empty", "cut short", "not UTF-8", "too deep", "too deep in objects"),
        *map(bytes.decode, NO_BUNDLES),
    ],
)
def test_what_is_no_bundle_is_one_clear_error(data, message, tmp_path):
    path = tmp_path / "bundle.json"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(BundleError, match=message):
        read_bundle(path)


def test_folder_in_its_place_is_one_clear_error(tmp_path):
    (tmp_path / "bundle.json").mkdir()
    with pytest.raises(BundleError, match=r"bundle\.json/bundle\.json: there is no bundle"):
        read_bundle(tmp_path / "bundle.json")


@pytest.mark.parametrize("version", [0, 1, 4, "3", None, 2.5, 3.0, True])
def test_unknown_schema_is_refused(version, candidate):
    with pytest.raises(BundleError, match="schema_version: expected 3 or 2, got"):
        read_bundle(edited(candidate, schema_version=version))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": KeyError}, "labels: Field required"),
        ({"labels": ["only"]}, "labels: a classification needs at least 2, got 1"),
        ({"labels": ["a", "a"]}, "labels: a label stands twice"),
        ({"surprise": 1}, "surprise: Extra inputs"),
        ({"temperature": 0}, "temperature: Input should be greater than 0"),
        ({"operating_points": {"mauve": POINT}}, "operating_points names no label: mauve"),
        (
            {"operating_points": {"red_tile": {**POINT, "threshold": 2}}},
            "operating_points.red_tile.threshold",
        ),
        ({"thresholds": {}}, "thresholds: Extra inputs"),
        ({"abstention": {"score": "root_residual"}}, "abstention.threshold: Field required"),
        ({"preprocess__crop_px": 0}, "preprocess.crop_px"),
        ({"preprocess__interpolation": "nearest"}, "preprocess.interpolation"),
        (
            {"labels": ["a", "b"]},
            "outputs.logits.shape: expected [-1, 2], one a label, got [-1, 3]",
        ),
        ({"kind": KeyError}, "kind: Field required"),
        ({"kind": "augury"}, f"kind: expected one of {', '.join(KINDS)}, got 'augury'"),
        ({"outputs": []}, "outputs: a classification gives logits, embedding, got none"),
        ({"outputs__0__name": "boxes"}, "gives logits, embedding, got boxes, embedding"),
        ({"artefacts": []}, "artefacts: expected ONNX files of fp32 and int8, got none"),
        ({"artefacts__0__precision": "int8"}, "expected ONNX files of fp32 and int8, got int8"),
        ({"artefacts__1__format": "pte"}, "artefacts.1: Value error, onnxruntime does not run pte"),
        ({"artefacts__1__format": "tflite"}, "artefacts.1.format"),
        ({"artefacts__1__sha256": "abc"}, "artefacts.1.sha256"),
        ({"artefacts__1__name": "../../etc/passwd"}, "artefacts.1.name"),
        ({"artefacts__1__name": "/etc/passwd"}, "artefacts.1.name"),
        ({"artefacts__1__size_bytes": 0}, "artefacts.1.size_bytes"),
        ({"served__precision": "fp16"}, "served.precision"),
        ({"provenance__backbone": KeyError}, "provenance.backbone"),
    ],
)
def test_broken_rule_is_named_with_its_key(changes, message, candidate):
    with pytest.raises(BundleError) as caught:
        read_bundle(edited(candidate, **changes))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_absent_model_file_is_named(precision, candidate):
    bundle = read_bundle(candidate)
    (candidate.parent / bundle.files[precision].name).unlink()
    with pytest.raises(BundleError, match=rf"the bundle's {precision} model cannot be read"):
        read_bundle(candidate)
    assert read_bundle(candidate, verify=False) == bundle


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("place", [0, -1])
def test_one_changed_byte_is_found_out(place, precision, candidate):
    bundle = read_bundle(candidate)
    path = candidate.parent / bundle.files[precision].name
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(BundleError, match="is not the one that the bundle names") as caught:
        read_bundle(candidate)
    assert bundle.files[precision].sha256[:12] in str(caught.value)
    with pytest.raises(BundleError):
        read_model(bundle, candidate.parent, precision)
    other = "int8" if precision == "fp32" else "fp32"
    untouched = candidate.parent / bundle.files[other].name
    assert read_model(bundle, candidate.parent, other) == untouched.read_bytes()


def test_names_of_labels_travel_and_are_left_out_where_there_are_none(candidate):
    assert "label_names" not in json.loads(candidate.read_text(encoding="utf-8"))
    assert "is_split_given" not in json.loads(candidate.read_text(encoding="utf-8"))["provenance"]
    bundle = read_bundle(edited(candidate, label_names={"red_tile": "红色"}))
    assert [bundle.name_of(label) for label in bundle.labels[:2]] == ["红色", "green_tile"]
    assert json.loads(bundle.to_json())["label_names"] == {"red_tile": "红色"}
    with pytest.raises(BundleError, match="label_names names no label: mauve"):
        read_bundle(edited(candidate, label_names={"mauve": "Mauve"}))


def test_third_artefact_travels_and_is_verified(candidate):
    model = b"a program of ExecuTorch"
    third = Artefact.of("model_int8.pte", "int8", model).model_dump()
    third |= {"format": "pte", "runtime": "executorch"}
    listed = [*json.loads(candidate.read_text())["artefacts"], third]
    edited(candidate, artefacts=listed)
    (candidate.parent / "model_int8.pte").write_bytes(model)
    bundle = read_bundle(candidate)
    assert json.loads(bundle.to_json())["artefacts"] == listed
    # What is served is the ONNX file still.
    assert bundle.files["int8"].name == "model_int8.onnx"
    (candidate.parent / "model_int8.pte").write_bytes(model[::-1])
    with pytest.raises(BundleError, match=r"model_int8\.pte: the file is not the one"):
        read_bundle(candidate)
    edited(candidate, artefacts=[*listed, third])
    with pytest.raises(BundleError, match="a format stands twice with one precision"):
        read_bundle(candidate)


# -- schema 2 -------------------------------------------------------------------------------------
@pytest.fixture
def released(candidate) -> Path:
    """A bundle as version 0.1 wrote it, beside the two files that it names."""
    shutil.copy(GOLDEN / "bundle_schema_2.json", candidate)
    return candidate


def test_bundle_of_schema_2_is_read_as_the_same_bundle(released):
    bundle = read_bundle(released)
    old = json.loads(released.read_text(encoding="utf-8"))
    new = json.loads(bundle.to_json())
    assert (new.pop("schema_version"), new.pop("kind")) == (3, "classification")
    assert new.pop("outputs") == [old.pop("logits"), old.pop("embedding")]
    onnx = {"format": "onnx", "runtime": "onnxruntime"}
    assert new.pop("artefacts") == [
        {**old["files"][precision], **onnx, "precision": precision}
        for precision in ("fp32", "int8")
    ]
    for before, after in zip(old["int8_path"], new["int8_path"], strict=True):
        metrics = {name: before.pop(name) for name in ("accuracy", "macro_f1")}
        assert after.pop("metrics") == metrics
    old["audit"]["n_label_issues"] = old["audit"].pop("n_label_doubts")
    # All the rest is as it was, to the key.
    del old["schema_version"], old["files"]
    assert new == old
    # And what is written from it is read as the same.
    released.write_text(bundle.to_json(), encoding="utf-8")
    assert read_bundle(released) == bundle


def test_predictor_answers_with_a_bundle_of_schema_2(released):
    answer = Predictor.load(released).predict(Image.new("RGB", (40, 40), (20, 210, 30)))
    assert answer.label == "green_tile"
    assert set(answer.positives) == {"red_tile"}
    assert answer.ood_score is not None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"logits": KeyError}, "logits: Field required"),
        ({"files": KeyError}, "files: Field required"),
        ({"files": []}, "files: Input should be"),
        ({"files__int8": KeyError}, "artefacts: expected ONNX files of fp32 and int8, got fp32"),
        ({"files__int8__sha256": KeyError}, "files.int8.sha256: Field required"),
        ({"files__int8__name": "../x"}, "artefacts.1.name"),
        ({"int8_path__0__accuracy": KeyError}, "int8_path.0.accuracy: Field required"),
        ({"labels": ["only"]}, "labels: a classification needs at least 2"),
        ({"surprise": 1}, "surprise: Extra inputs"),
    ],
)
def test_broken_bundle_of_schema_2_is_refused_in_one_line(changes, message, released):
    with pytest.raises(BundleError) as caught:
        read_bundle(edited(released, **changes))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bundle_of_programs_is_read_and_is_none_that_onnx_runtime_runs(tiny_project):
    files = tiny_project.task("tiny")
    bundle = read_bundle(files.candidate)
    programs = tuple(
        Artefact.of(f"model_{each}.pte", each, each.encode(), "pte") for each in ("fp32", "int8")
    )
    folder = files.executorch_dir
    folder.mkdir(parents=True)
    for artefact in programs:
        (folder / artefact.name).write_bytes(artefact.precision.encode())
    changed = bundle.model_copy(update={"artefacts": programs})
    (folder / "bundle.json").write_text(changed.to_json())
    found = read_bundle(folder)
    assert found.files["int8"].runtime == "executorch"
    with pytest.raises(BundleError, match=r"holds programs for executorch.*howto/executorch\.md"):
        Predictor.load(folder)
    (folder / "model_int8.pte").write_bytes(b"other")
    with pytest.raises(BundleError, match="is not the one that the bundle names"):
        read_bundle(folder)
    alone = changed.model_copy(update={"artefacts": programs[:1]})
    (folder / "bundle.json").write_text(alone.to_json())
    with pytest.raises(BundleError, match="expected programs of fp32 and int8, got fp32"):
        read_bundle(folder)
