"""A second kind goes through every stage and command, with no edit outside its own room."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines import cli
from pipelines.config.gate import Demand, GateParams
from pipelines.data.manifest import read_manifest
from pipelines.errors import BundleError, ConfigError
from pipelines.paths import Paths
from pipelines.serving.bundle import Artefact, Bundle, read_bundle
from pipelines.serving.predictor import Predictor
from pipelines.stages import gate
from pipelines.training.job import Data, Job
from tests.kinds import point
from tests.tiny_params import PARAMS, PHASE
from tests.toy_card import CARD

TASK = "spots"
ROOT = Path(__file__).resolve().parents[2]
WIDTH_PX, HEIGHT_PX = 60, 44
#: Two steps: an epoch of the head and one of the tail, each of one batch.
STEPS = {**PHASE, "epochs": 1}
SECTION = {
    "domain": "agriculture",
    "fetch": {"source": {"kind": "folder", "path": "."}},
    "prepare": {
        **{"val_fraction": 0.25, "test_fraction": 0.25, "near_duplicate_bits": 0},
        **{"max_quarantine_fraction": 0.1, "min_side_px": 8},
    },
    "audit": {
        "folds": 2,
        "suspicious_share": 0.3,
        "shortcut_share": 0.6,
        "accepted": "Only a toy.",
    },
    "train": {
        **PARAMS,
        **{"image_px": 64, "batch_size": 64, "head_phase": STEPS, "tail_phase": STEPS},
        "monitor": "val_closeness",
    },
    "export": {
        **{"calibration_images": 8, "remedies": ["minmax"], "min_agreement": 0.0},
        **{"max_int8_bytes": 10**7, "min_speedup": 1e-6, "acceptance": 0.9},
    },
    "evaluate": {"calibration_bins": 5, "resamples": 100},
    "gate": {
        "max_int8_bytes": 10**7,
        "demands": [{"metric": "served.closeness", "at_least": 0.0}],
    },
}


def paint(raw_dir: Path) -> None:
    draw = np.random.default_rng(2)
    raw_dir.mkdir(parents=True)
    rows, (y, x) = [], np.mgrid[:HEIGHT_PX, :WIDTH_PX]
    for number in range(40):
        place = draw.uniform((8, 8), (WIDTH_PX - 8, HEIGHT_PX - 8))
        spot = 200 * np.exp(-((x - place[0]) ** 2 + (y - place[1]) ** 2) / 18)
        pixels = np.clip(spot + draw.normal(30, 8, spot.shape), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).convert("RGB").save(raw_dir / f"{number:02d}.png")
        rows.append((f"{number:02d}.png", f"g{number // 2}", *place.round(2)))
    with (raw_dir / "points.csv").open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([("path", "group", "x", "y"), *rows])


def run(paths: Paths, verb: str, *arguments: str) -> int:
    return cli.main([verb, *arguments, "--root", str(paths.root)])


@pytest.fixture(autouse=True)
def _added(monkeypatch):
    point.register(monkeypatch)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Paths:
    """A project in which `prepare` has run on the task."""
    paths = Paths(tmp_path_factory.mktemp("second") / "project")
    files = paths.task(TASK)
    paint(files.raw_dir)
    card = CARD.format(title="Spots", task=TASK).splitlines(keepends=True)
    card = [line for line in card if not line.startswith(("classes:", "  - "))]
    files.card.write_text("".join(card) + f"kind: {point.NAME}\n", encoding="utf-8")
    # JSON is YAML 1.2.
    paths.params.write_text(json.dumps({"seed": 5, "tasks": {TASK: SECTION}}), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        point.register(patch)
        assert run(paths, "prepare", TASK) == 0
    return paths


@pytest.fixture(scope="module")
def made(prepared, tmp_path_factory) -> Paths:
    """A project in which every stage has run on the task: half a minute."""
    paths = Paths(shutil.copytree(prepared.root, tmp_path_factory.mktemp("made") / "project"))
    with pytest.MonkeyPatch.context() as patch:
        point.register(patch)
        patch.setenv("FIELDLENS_TRACKING", "off")
        for verb in ("audit", "train", "export", "evaluate", "gate"):
            assert run(paths, verb, TASK) == 0
        assert run(paths, "report") == 0
    return paths


@pytest.fixture
def project(prepared, tmp_path) -> Paths:
    return Paths(Path(shutil.copytree(prepared.root, tmp_path / "project")))


@pytest.fixture
def bundle_path(tmp_path) -> Path:
    """bundle.json of the kind, beside files that are no models."""
    document = json.loads((ROOT / "tests/golden/bundle_schema_3.json").read_text(encoding="utf-8"))
    embedding = next(each for each in document["outputs"] if each["name"] == "embedding")
    place = {"name": point.NAME, "shape": [-1, 2], "dtype": "float32", "meaning": "x and y"}
    document |= {"kind": point.NAME, "labels": [], "outputs": [place, embedding]}
    document |= {"label_meanings": {}, "label_names": {}, "operating_points": {}, "audit": None}
    artefacts = [Artefact.of(f"{each}.onnx", each, b"none") for each in ("fp32", "int8")]
    for artefact in artefacts:
        (tmp_path / artefact.name).write_bytes(b"none")
    bundle = Bundle.model_validate(document | {"artefacts": artefacts})
    path = tmp_path / "bundle.json"
    path.write_text(bundle.to_json(), encoding="utf-8")
    return path


def test_its_truth_travels_in_the_manifest_and_balances_the_split(prepared):
    entries = read_manifest(prepared.task(TASK).manifest)
    assert len(entries) == 40
    assert all(len(json.loads(entry.truth)) == 2 for entry in entries)
    sides = {(entry.split, json.loads(entry.truth)[0] < 30) for entry in entries}
    assert len(sides) == 6
    assert len({(entry.group, entry.split) for entry in entries}) == 20


def test_a_view_moves_the_truth_with_the_picture(prepared):
    files = prepared.task(TASK)
    params = json.loads(prepared.params.read_text(encoding="utf-8"))["tasks"][TASK]["train"]
    job = Job(TASK, "agriculture", gate_free(params), 5)
    split = Data.read(files).split("train", job)
    numbers, n_seen = list(range(6)), 0
    for row, entry in enumerate(split.pictures.entries):
        views = split.pictures.views(entry, numbers[1:])
        for view, place in zip(views, 64 * split.truth_in(row, numbers), strict=True):
            if not ((place > 6) & (place < 58)).all():
                continue
            brightest = np.unravel_index(view[..., 0].argmax(), view.shape[:2])
            assert np.abs(np.array(brightest)[::-1] + 0.5 - place).max() < 4
            n_seen += 1
    assert n_seen > 60


def gate_free(train: dict) -> object:
    from pipelines.config.train import TrainParams

    return TrainParams.model_validate({**train, "augment": {**train["augment"], "noise": 0.0}})


@pytest.mark.slow
def test_its_files_say_what_it_is_and_what_it_reached(made):
    files = made.task(TASK)
    history = list(csv.DictReader(io.StringIO(files.history.read_text(encoding="utf-8"))))
    assert [row["phase"] for row in history] == ["head", "tail"]
    assert float(history[1]["val_closeness"]) <= 1
    bundle = read_bundle(files.bundle)
    assert (bundle.kind, bundle.labels) == (point.NAME, ())
    assert [output.name for output in bundle.outputs] == [point.NAME, "embedding"]
    assert bundle.outputs[0].shape == (-1, 2)
    metrics = json.loads(files.metrics.read_text(encoding="utf-8"))
    assert metrics["intervals"]["int8"]["closeness"]["value"] == pytest.approx(
        metrics["int8"]["closeness"], abs=2e-6
    )
    assert (bundle.audit.metric, bundle.audit.constant) == ("closeness", "mean point")
    assert {score.name for score in bundle.audit.scores} >= {"file_facts", "border", "thumbnail"}
    # What shows the spot tells its place, and facts of the file do not.
    reached = {score.name: score.macro_f1.value for score in bundle.audit.scores}
    assert reached["thumbnail"] > bundle.audit.chance > reached["file_facts"] - 0.05
    page = made.results_page.read_text(encoding="utf-8")
    assert "| Closeness |" in page
    assert "Blind closeness" in page
    assert "macro-F1 | share" not in page


@pytest.mark.slow
def test_answer_is_in_px_of_the_picture(made, tmp_path, capsys):
    files = made.task(TASK)
    entry = read_manifest(files.manifest)[0]
    picture = Image.open(files.raw_dir / entry.path).convert("RGB")
    large = tmp_path / "large.png"
    picture.resize((5 * WIDTH_PX, 5 * HEIGHT_PX), Image.Resampling.BICUBIC).save(large)
    turned, exif = tmp_path / "turned.jpg", Image.Exif()
    exif[0x0112] = 6
    picture.transpose(Image.Transpose.ROTATE_90).save(turned, exif=exif, quality=95)
    paths = [str(files.raw_dir / entry.path), str(large), str(turned)]
    assert run(made, "predict", *paths, "--json") == 0
    small, wide, upright = json.loads(capsys.readouterr().out)["images"]
    assert 0 < small["x_px"] < WIDTH_PX
    assert 0 < small["y_px"] < HEIGHT_PX
    for axis in ("x_px", "y_px"):
        assert wide[axis] / 5 == pytest.approx(small[axis], abs=1.0)
        assert upright[axis] == pytest.approx(small[axis], abs=1.0)
    # The same place as the outputs have, led back by hand: the shorter side of 44 px is 73 px, and
    # of its 100 x 73 px the middle 64 px are the input.
    predictor: Predictor[point.Point] = Predictor.load(files.bundle)
    x, y = predictor.run(predictor.pixels(picture)[np.newaxis])[0][0]
    assert small["x_px"] == pytest.approx((x + 18) * WIDTH_PX / 100, abs=1e-3)
    assert small["y_px"] == pytest.approx((y + 4) * HEIGHT_PX / 73, abs=1e-3)


@pytest.mark.slow
def test_commands_say_its_answer_and_explain_none(made, capsys):
    picture = str(made.task(TASK).raw_dir / "00.png")
    assert run(made, "predict", picture, "--csv") == 0
    header, row = csv.reader(io.StringIO(capsys.readouterr().out))
    assert header == ["path", "x_px", "y_px", "is_ood", "error"]
    assert float(row[1]) > 0
    assert run(made, "predict", picture) == 0
    assert " px, y " in capsys.readouterr().out
    assert run(made, "explain", picture) == 2
    assert "of the kind point no answer is explained" in capsys.readouterr().err


def test_its_bundle_is_held_to_its_own_rules(bundle_path):
    path = bundle_path
    assert read_bundle(path).to_json() == path.read_text(encoding="utf-8")
    document = json.loads(path.read_text(encoding="utf-8"))
    for changes, message in (
        ({"labels": ["dark", "light"]}, "labels: a point has none, got 2"),
        ({"labels": ["dark", "dark"]}, "labels: a label stands twice"),
        ({"kind": "classification"}, "outputs: a classification gives logits, embedding, got poi"),
    ):
        path.write_text(json.dumps(document | changes), encoding="utf-8")
        with pytest.raises(BundleError) as caught:
            read_bundle(path)
        assert message in str(caught.value)


@pytest.mark.slow
def test_predictor_refuses_a_model_that_gives_something_else(made):
    files = made.task(TASK)
    bundle = read_bundle(files.bundle)
    wide = bundle.outputs[0].model_copy(update={"shape": (-1, 2, 2)})
    changed = bundle.model_copy(update={"outputs": (wide, bundle.outputs[1])})
    with pytest.raises(BundleError, match="output 'point': expected"):
        Predictor(changed, files.onnx_int8.read_bytes(), "int8")


# -- the gate -------------------------------------------------------------------------------------
METRICS = {"int8": {"closeness": 0.9}, "fp32": {"closeness": 0.95}, "agreement": 0.98}


def asked(*demands: dict, **named: float) -> GateParams:
    return GateParams.model_validate({"max_int8_bytes": 10**7, "demands": demands, **named})


@pytest.mark.parametrize(
    ("demand", "passes"),
    [
        ({"metric": "served.closeness", "at_least": 0.9}, True),
        ({"metric": "served.closeness", "at_least": 0.91}, False),
        ({"metric": "fp32.closeness", "at_most": 0.95}, True),
        ({"metric": "agreement", "at_least": 0.99}, False),
    ],
)
def test_gate_holds_it_to_the_list(bundle_path, demand, passes):
    first, size = gate.check(METRICS, read_bundle(bundle_path), asked(demand))
    assert first.passed is passes
    assert size.metric == "int8 bytes"
    if demand["metric"].startswith("served"):
        assert first.metric == "closeness (int8)"


@pytest.mark.parametrize("metric", ["served.accuracy", "closeness", "agreement.low", "int8"])
def test_gate_refuses_a_demand_on_what_is_no_figure(bundle_path, metric):
    bundle = read_bundle(bundle_path)
    with pytest.raises(ConfigError, match=r"gate\.demands: metric"):
        gate.check(METRICS, bundle, asked({"metric": metric, "at_least": 0}))


@pytest.mark.parametrize(
    ("kind", "section", "message"),
    [
        (point.NAME, {"min_accuracy": 0.5}, "min_accuracy: is no bound of the kind point"),
        (point.NAME, {"demands": []}, "demands: is empty"),
        ("classification", {}, "max_accuracy_drop: is missing"),
    ],
)
def test_bounds_are_those_of_the_kind(project, kind, section, message, capsys):
    document = json.loads(project.params.read_text(encoding="utf-8"))
    document["tasks"][TASK]["gate"] |= section
    project.params.write_text(json.dumps(document), encoding="utf-8")
    card = project.task(TASK).card
    labels = "classes: [{label: a, meaning: A.}, {label: b, meaning: B.}]\n"
    text = card.read_text(encoding="utf-8").replace(f"kind: {point.NAME}", f"kind: {kind}")
    card.write_text(text + labels * (kind != point.NAME), encoding="utf-8")
    assert run(project, "gate", TASK) == 2
    assert message in capsys.readouterr().err


def test_card_without_classes_is_none_of_a_classification(project, capsys):
    card = project.task(TASK).card
    text = card.read_text(encoding="utf-8").replace(f"kind: {point.NAME}\n", "")
    card.write_text(text, encoding="utf-8")
    assert run(project, "prepare", TASK) == 2
    assert "labels: a classification needs at least 2, got 0" in capsys.readouterr().err


@pytest.mark.parametrize("bounds", [{}, {"at_least": 1, "at_most": 2}, {"at_least": float("nan")}])
def test_demand_has_one_bound(bounds):
    with pytest.raises(ValueError, match="at_least"):
        Demand(metric="agreement", **bounds)
