from __future__ import annotations

import io
import json
import math
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipelines import cli
from pipelines.data.loaders import Pictures
from pipelines.data.manifest import Entry, in_split, read_manifest
from pipelines.errors import BundleError, CorruptImageError
from pipelines.metrics.abstention import fit_abstention
from pipelines.serving.predictor import Predictor, combine, processor_name
from tests.serving.conftest import GOLDEN, POINT, edited


@pytest.fixture
def files(tiny_project):
    return tiny_project.task("tiny")


@pytest.fixture
def predictor(files) -> Predictor:
    return Predictor.load(files.candidate, "fp32")


@pytest.fixture
def test_images(files) -> list[Path]:
    entries = in_split(read_manifest(files.manifest), "test")
    return [files.raw_dir / entry.path for entry in entries]


def test_answer_is_a_label_with_probabilities_that_add_up(predictor, test_images):
    n_right = 0
    for path in test_images:
        answer = predictor.predict(path)
        assert list(answer.probabilities) == list(predictor.bundle.labels)
        assert sum(answer.probabilities.values()) == pytest.approx(1, abs=1e-5)
        assert answer.probabilities[answer.label] == max(answer.probabilities.values())
        assert answer.embedding.shape == (3,)
        assert answer.elapsed_ms > 0
        n_right += path.parent.name == answer.label
    # A model of mean colours errs now and then; labels in another order would err mostly.
    assert n_right > 0.7 * len(test_images)


def test_path_bytes_and_picture_give_the_same_answer(predictor, test_images):
    path = test_images[0]
    answers = [
        predictor.predict(source).probabilities
        for source in (path, path.read_bytes(), Image.open(path).convert("RGB"))
    ]
    assert answers[0] == answers[1] == answers[2]


@pytest.fixture
def cautious(files, test_images) -> Predictor:
    """The tiny bundle with an abstention and an operating point for green."""
    plain = Predictor.load(files.candidate)
    pixels = np.stack([plain.pixels(path) for path in test_images])
    _, embedding = plain.run(pixels)
    abstention = fit_abstention(embedding[::2], embedding[1::2], 0.9).model_dump()
    points = {"green_tile": POINT}
    return Predictor.load(edited(files.candidate, abstention=abstention, operating_points=points))


def test_known_picture_is_accepted_and_one_out_of_distribution_refused(cautious, test_images):
    answers = cautious.predict_many(test_images)
    n_refused = sum(answer.is_ood for answer in answers)
    assert n_refused <= 0.2 * len(answers)
    threshold = cautious.bundle.abstention.threshold
    for colour in ("black", "red"):
        answer = cautious.predict(Image.new("RGB", (40, 40), colour))
        assert answer.is_ood
        assert answer.ood_score > threshold
        # It still says what it would say, for those who want to look.
        assert sum(answer.probabilities.values()) == pytest.approx(1, abs=1e-5)
    for answer in answers:
        assert answer.is_ood == (answer.ood_score > threshold)


def test_operating_point_says_yes_or_no(cautious, test_images):
    said = [cautious.predict(path) for path in test_images]
    for answer in said:
        assert answer.positives == {"green_tile": answer.probabilities["green_tile"] >= 0.5}
    assert {answer.positives["green_tile"] for answer in said} == {True, False}


def test_bundle_without_abstention_refuses_nothing(predictor):
    answer = predictor.predict(Image.new("RGB", (40, 40), "black"))
    assert answer.is_ood is False
    assert answer.ood_score is None
    assert answer.positives == {}


def test_abstention_of_another_model_is_not_loaded(files):
    other = fit_abstention(np.ones((4, 7), np.float32), np.ones((4, 7), np.float32), 0.95)
    edited(files.candidate, abstention=other.model_dump())
    with pytest.raises(BundleError, match=r"mean \(3,\), basis_0 .* add up to 3"):
        Predictor.load(files.candidate)


def test_many_are_each_of_them(predictor, test_images):
    many = predictor.predict_many(test_images[:4])
    assert [a.probabilities for a in many] == [
        predictor.predict(path).probabilities for path in test_images[:4]
    ]
    assert predictor.predict_many([]) == []


def test_temperature_flattens_the_answer(files, test_images):
    plain = Predictor.load(files.candidate, "fp32").predict(test_images[0])
    warm = Predictor.load(edited(files.candidate, temperature=4.0), "fp32").predict(test_images[0])
    assert warm.label == plain.label
    assert warm.probabilities[warm.label] < plain.probabilities[plain.label]
    powers = {label: p ** (1 / 4) for label, p in plain.probabilities.items()}
    expected = powers[plain.label] / sum(powers.values())
    assert warm.probabilities[plain.label] == pytest.approx(expected, rel=1e-3)


def test_served_precision_is_the_default(files):
    assert Predictor.load(files.candidate).precision == "int8"
    assert Predictor.load(files.candidate, "fp32").precision == "fp32"


def test_threads_share_a_predictor(predictor, test_images):
    expected = [predictor.predict(path).probabilities for path in test_images]
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(predictor.predict, test_images * 8))
    for index, answer in enumerate(got):
        assert answer.probabilities == expected[index % len(expected)]


def test_training_and_the_app_see_the_same_pixels(predictor, files):
    entries = read_manifest(files.manifest)
    pictures = Pictures(files.raw_dir, entries, predictor.bundle.preprocess.build(), None, 0)
    for entry in entries[::5]:
        path = files.raw_dir / entry.path
        expected = pictures.plain(entry)
        assert np.array_equal(predictor.pixels(path), expected)
        assert np.array_equal(predictor.pixels(path.read_bytes()), expected)


def test_training_and_the_app_see_the_golden_pixels(predictor, files):
    expected = np.load(GOLDEN / "preprocess_48_32.npy")
    source = GOLDEN / "preprocess_input.png"
    spec = predictor.bundle.preprocess.model_copy(update={"resize_px": 48, "crop_px": 32})
    bundle = predictor.bundle.model_copy(update={"preprocess": spec})
    app = Predictor(bundle, files.onnx_fp32.read_bytes(), "fp32")
    entry = Entry(source.name, "a", "g", "", "train", "0" * 64, 1, 1)
    trainer = Pictures(GOLDEN, [entry], spec.build(), None, 0)
    assert np.array_equal(app.pixels(source), expected)
    assert np.array_equal(trainer.plain(entry), expected)


def test_corrupt_image_is_named(predictor):
    with pytest.raises(CorruptImageError, match="holiday"):
        predictor.predict(b"not an image", name="holiday.jpg")


def test_wrong_size_of_input_is_not_answered(predictor):
    with pytest.raises(Exception, match=r"INVALID_ARGUMENT|Got invalid dimensions"):
        predictor.run(np.zeros((1, 31, 32, 3), dtype=np.uint8))


def test_changed_model_is_not_loaded(files):
    files.onnx_int8.write_bytes(files.onnx_fp32.read_bytes())
    with pytest.raises(BundleError, match="is not the one that the bundle names"):
        Predictor.load(files.candidate)


def test_model_with_another_number_of_logits_is_not_loaded(files):
    labels = ["red_tile", "green_tile", "blue_tile", "grey"]
    edited(files.candidate, labels=labels, outputs__0__shape=[-1, 4])
    with pytest.raises(BundleError, match="logits"):
        Predictor.load(files.candidate, "fp32")


def test_processor_has_a_name():
    assert processor_name().strip()


def test_picture_in_memory_is_left_alone(predictor):
    buffer = io.BytesIO()
    Image.new("RGB", (50, 40), (200, 30, 30)).save(buffer, "PNG")
    picture = Image.open(io.BytesIO(buffer.getvalue())).convert("RGB")
    before = picture.tobytes()
    predictor.predict(picture)
    assert picture.tobytes() == before


@pytest.mark.slow
def test_answering_loads_nothing_heavy(files, test_images):
    code = (
        "import sys; from pathlib import Path\n"
        "from pipelines.serving.predictor import Predictor\n"
        "Predictor.load(Path(sys.argv[1])).predict(Path(sys.argv[2]))\n"
        "heavy = {'torch', 'mlflow', 'dvc', 'sklearn', 'onnx', 'matplotlib', 'albumentations'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    command = [sys.executable, "-c", code, str(files.candidate), str(test_images[0])]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# -- deep pixels and long pictures ----------------------------------------------------------------
def with_reading(files, **stated) -> Predictor:
    changes = {f"preprocess__{key}": value for key, value in stated.items()}
    return Predictor.load(edited(files.candidate, **changes), "fp32")


def deep_tile(path: Path, peak: int) -> Path:
    """A grey tile of 12 bits in 16, with a darker line and one pixel of another value."""
    levels = np.full((40, 36), 2400, np.uint16)
    levels[1] = 900
    levels[0, 0] = peak
    Image.fromarray(levels).save(path)
    return path


def test_range_of_the_bundle_decides_and_one_pixel_does_not(files, tmp_path):
    predictor = with_reading(files, range=[0, 4095])
    answers = [
        predictor.predict(deep_tile(tmp_path / f"{peak}.png", peak)) for peak in (4095, 4096)
    ]
    assert answers[0].probabilities == answers[1].probabilities
    assert [answer.outside for answer in answers] == [0, 1 / (36 * 40)]
    # As an 8-bit picture of the same scene.
    pixels = predictor.pixels(tmp_path / "4095.png")
    assert pixels[16, 16].tolist() == [149, 149, 149]


def test_deep_picture_for_a_model_without_a_range_is_one_clear_line(predictor, tmp_path):
    with pytest.raises(CorruptImageError, match=r"stored values 900..2400.*image\.range"):
        predictor.predict(deep_tile(tmp_path / "a.png", 2400))


def test_predict_tells_what_lies_outside(files, tmp_path, capsys):
    with_reading(files, range=[1000, 4095])
    deep_tile(tmp_path / "a.png", 2400)
    command = ["predict", "--bundle", str(files.candidate), str(tmp_path / "a.png")]
    assert cli.main(command) == 0
    said = capsys.readouterr().out
    assert "of the pixels lie outside the range 1000..4095 of the training data" in said
    assert cli.main([*command, "--json"]) == 0
    (image,) = json.loads(capsys.readouterr().out)["images"]
    assert image["outside_range"] == pytest.approx(36 / 1440)


@pytest.mark.parametrize("size", [(1, 40_000), (20, 60_000)])
def test_picture_that_is_all_length_is_refused_also_when_it_is_open_already(files, size):
    image = Image.new("RGB", size)
    with pytest.raises(CorruptImageError, match=r"image\.max_aspect"):
        Predictor.load(files.candidate, "fp32").predict(image)
    assert with_reading(files, max_aspect=1000.0).bundle.preprocess.max_aspect == 1000
    if size == (20, 60_000):
        with pytest.raises(CorruptImageError, match="at most 1000 times"):
            with_reading(files, max_aspect=1000.0).predict(image)
    assert with_reading(files, max_aspect=1000.0).predict(Image.new("RGB", (20, 20_000)))


# -- several pictures of one thing ----------------------------------------------------------------
SHARES = st.lists(st.floats(0, 1), min_size=3, max_size=3).filter(lambda row: sum(row) > 0.01)


def as_view(row: list[float]) -> dict[str, float]:
    return {label: share / sum(row) for label, share in zip("abc", row, strict=True)}


def test_two_views_by_hand():
    # Geometric means: sqrt(0.8 x 0.4) = 0.566 and sqrt(0.2 x 0.6) = 0.346.
    shares = combine([{"a": 0.8, "b": 0.2}, {"a": 0.4, "b": 0.6}])
    assert shares["a"] == pytest.approx(math.sqrt(0.32) / (math.sqrt(0.32) + math.sqrt(0.12)))


@given(SHARES)
def test_one_view_gives_its_own_probabilities(row):
    view = as_view(row)
    assert combine([view]) == pytest.approx(view, abs=1e-5)


@given(st.lists(SHARES, min_size=1, max_size=6))
def test_order_does_not_matter_and_shares_add_up_to_one(rows):
    views = [as_view(row) for row in rows]
    shares = combine(views)
    assert sum(shares.values()) == pytest.approx(1)
    assert combine(views[::-1]) == pytest.approx(shares)


def test_view_that_is_sure_of_nothing_changes_no_order():
    even = {"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}
    shares = combine([{"a": 0.6, "b": 0.3, "c": 0.1}, even])
    assert sorted(shares, key=shares.__getitem__) == ["c", "b", "a"]


def test_probability_of_zero_does_not_veto():
    views = [{"a": 0.0, "b": 1.0}] + [{"a": 0.99999, "b": 0.00001}] * 5
    assert combine(views)["a"] > 0.99


@pytest.mark.parametrize("views", [[], [{"a": 1.0}, {"b": 1.0}]])
def test_no_view_and_other_labels_are_refused(views):
    with pytest.raises(ValueError, match="expected"):
        combine(views)
