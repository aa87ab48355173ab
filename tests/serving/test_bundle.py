from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pipelines.data.pixel_range import Reading
from pipelines.data.preprocess import Preprocess, View
from pipelines.errors import BundleError
from pipelines.serving.bundle import Bundle, PreprocessSpec, read_bundle, read_model

POINT = {
    "threshold": 0.5,
    "min_specificity": 0.9,
    "sensitivity": 0.8,
    "specificity": 0.9,
    "n_positive": 5,
    "n_negative": 10,
}


@pytest.fixture
def candidate(tiny_project) -> Path:
    return tiny_project.task("tiny").candidate


def edited(path: Path, **changes) -> Path:
    document = json.loads(path.read_text())
    for key, value in changes.items():
        *parents, last = key.split("__")
        part = document
        for parent in parents:
            part = part[parent]
        if value is KeyError:
            del part[last]
        else:
            part[last] = value
    path.write_text(json.dumps(document))
    return path


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


@pytest.mark.parametrize("value", [[4095, 0], [1], [0, 1, 2], "half", [0, "x"]])
def test_range_that_is_none_is_refused(value, candidate):
    edited(candidate, preprocess__range=value)
    with pytest.raises(BundleError, match="preprocess"):
        read_bundle(candidate)


@pytest.mark.parametrize(
    ("key", "value"), [("side_px", 0), ("border_mask", 0.5), ("border_mask", -1), ("gray", True)]
)
def test_view_that_cannot_be_is_refused(key, value, candidate):
    edited(candidate, **{f"preprocess__{key}": value})
    with pytest.raises(BundleError, match=rf"preprocess\.{key}"):
        read_bundle(candidate)


def test_bundle_can_be_carried_elsewhere(candidate, tmp_path):
    moved = Path(shutil.copytree(candidate.parent, tmp_path / "phone"))
    assert read_bundle(moved / candidate.name) == read_bundle(candidate)


def test_bundle_of_real_images_is_no_sample(candidate):
    assert not read_bundle(edited(candidate, provenance__data_source="folder")).is_sample


def test_absent_bundle_says_what_to_run(tmp_path):
    with pytest.raises(BundleError, match=r"bundle\.json: there is no bundle\. Run `dvc repro`"):
        read_bundle(tmp_path / "bundle.json")


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"\xff\xfe{}", b"[" * 100_000, b'{"a": ' * 50_000],
    ids=["empty", "cut short", "not UTF-8", "too deep", "too deep in objects"],
)
def test_unreadable_json_is_one_clear_error(data, tmp_path):
    (tmp_path / "bundle.json").write_bytes(data)
    with pytest.raises(BundleError, match="is not readable JSON"):
        read_bundle(tmp_path / "bundle.json")


def test_folder_in_its_place_is_one_clear_error(tmp_path):
    (tmp_path / "bundle.json").mkdir()
    with pytest.raises(BundleError, match=r"bundle\.json/bundle\.json: there is no bundle"):
        read_bundle(tmp_path / "bundle.json")


@pytest.mark.parametrize("data", ["null", "[]", "3", '"x"', "{}"])
def test_json_that_is_no_bundle_has_no_schema(data, tmp_path):
    (tmp_path / "bundle.json").write_text(data)
    with pytest.raises(BundleError, match="schema_version: expected 2, got None"):
        read_bundle(tmp_path / "bundle.json")


@pytest.mark.parametrize("version", [0, 1, 3, "2", None, 2.5])
def test_unknown_schema_is_refused(version, candidate):
    with pytest.raises(BundleError, match="schema_version: expected 2, got"):
        read_bundle(edited(candidate, schema_version=version))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": KeyError}, "labels: Field required"),
        ({"labels": ["only"]}, "labels: Tuple should have at least 2 items"),
        ({"labels": ["a", "a"]}, "a label stands twice"),
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
        ({"files__int8": KeyError}, "files needs fp32 and int8"),
        ({"files__int8__sha256": "abc"}, "files.int8.sha256"),
        ({"files__int8__name": "../../etc/passwd"}, "files.int8.name"),
        ({"files__int8__name": "/etc/passwd"}, "files.int8.name"),
        ({"files__int8__size_bytes": 0}, "files.int8.size_bytes"),
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
    assert read_model(bundle, candidate.parent, other)


def test_read_model_gives_the_bytes(candidate):
    bundle = read_bundle(candidate)
    data = read_model(bundle, candidate.parent, "fp32")
    assert data == (candidate.parent / bundle.files["fp32"].name).read_bytes()
    assert len(data) == bundle.files["fp32"].size_bytes


def test_names_of_labels_travel_and_are_left_out_where_there_are_none(candidate):
    assert "label_names" not in json.loads(candidate.read_text(encoding="utf-8"))
    assert "is_split_given" not in json.loads(candidate.read_text(encoding="utf-8"))["provenance"]
    bundle = read_bundle(edited(candidate, label_names={"red_tile": "红色"}))
    assert [bundle.name_of(label) for label in bundle.labels[:2]] == ["红色", "green_tile"]
    assert json.loads(bundle.to_json())["label_names"] == {"red_tile": "红色"}
    with pytest.raises(BundleError, match="label_names names no label: mauve"):
        read_bundle(edited(candidate, label_names={"mauve": "Mauve"}))
