"""Teachers: what they are read from, what they say of pictures, and what a student makes of it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from pipelines.data.manifest import content_sha256, in_split
from pipelines.errors import ConfigError, DataError
from pipelines.kinds.embedding.train import Contrastive
from pipelines.kinds.embedding.truth import known_of, written
from pipelines.paths import Paths
from pipelines.training import fit
from pipelines.training.float_model import load_float_model
from pipelines.training.job import Data, Job, Observer, _teachers, normalise, train
from pipelines.training.runtime import Runtime
from pipelines.training.teachers import (
    Logits,
    read_logits,
    read_teachers,
    read_vector_teachers,
    taught,
    taught_by_vectors,
)
from tests.training.toy import same

LABELS = ["red_tile", "green_tile", "blue_tile"]
SHORT = {"epochs": 2}


@pytest.fixture
def data(tiny_project) -> Data:
    files = tiny_project.task("tiny")
    files.prepare_summary.write_text(json.dumps({"labels": LABELS, "data_source": "sample"}))
    return Data.read(files)


@pytest.fixture
def job_of(train_params):
    def make(**changes) -> Job:
        phases = {"head_phase": SHORT, "tail_phase": SHORT}
        return Job("tiny", "reference", train_params(**{"views": 1, **phases, **changes}), 7)

    return make


def run(job: Job, data: Data, out: Path | None = None, **more):
    return train(job, data, out, runtime=Runtime(), **more)


def distill(teacher: object = "t.npz", **changes) -> dict:
    return {"teacher": teacher, "temperature": 4.0, "weight": 0.7} | changes


def all_logits(data: Data, scale: float = 4.0, labels: list[str] = LABELS) -> Logits:
    """A file's: sure of every label, but of the red tiles' it says green."""
    entries = [entry for entry in data.entries if entry.split != "test"]
    said = {"red_tile": "green_tile", "green_tile": "green_tile", "blue_tile": "blue_tile"}
    logits = [[scale * (said[entry.label] == label) for label in labels] for entry in entries]
    return Logits([e.path for e in entries], labels, np.array(logits, dtype=np.float32))


@pytest.fixture
def file_of(data):
    """Writes a file of logits into the project; gives its name."""

    def write(name: str = "t.npz", **changes) -> str:
        (data.files.root / name).write_bytes(all_logits(data, **changes).to_bytes())
        return name

    return write


def soft_targets_of(data: Data, job: Job, temperature: float = 4.0) -> torch.Tensor:
    root, split = data.files.root, data.split("train", job)
    teachers = read_teachers(job.params.distill, LABELS, "", root)
    soft = taught(split, LABELS, teachers, temperature, root / "kept", normalise).soft_targets
    assert soft is not None
    return soft


# -- what a teacher says --------------------------------------------------------------------------
def test_logits_survive_their_file_and_any_order_of_labels_and_pictures(data, file_of, job_of):
    turned = LABELS[::-1]
    file_of()
    file_of("turned.npz", labels=turned)
    read = read_logits(data.files.root / "turned.npz")
    assert read.labels == turned
    assert read.paths == [e.path for e in data.entries if e.split != "test"]
    train_entries = in_split(data.entries, "train")
    got = soft_targets_of(data, job_of(distill=distill("turned.npz")))
    assert torch.equal(got, soft_targets_of(data, job_of(distill=distill())))
    odds = math.e / (math.e + 2)
    for entry, row in zip(train_entries, got.tolist(), strict=True):
        answer = {"red_tile": 1, "green_tile": 1, "blue_tile": 2}[entry.label]
        assert row[answer] == pytest.approx(odds, rel=1e-5)
        assert sum(row) == pytest.approx(1)


def test_an_ensemble_is_the_mean_of_softened_probabilities(data, file_of, job_of):
    names = [file_of(), file_of("faint.npz", scale=1.0)]
    each = [soft_targets_of(data, job_of(distill=distill(name)), 2.0) for name in names]
    both = soft_targets_of(data, job_of(distill=distill(names)), 2.0)
    torch.testing.assert_close(both, (each[0] + each[1]) / 2)
    assert not torch.allclose(both, each[0], atol=0.01)


def test_a_float_model_sees_the_plain_view_at_its_own_side_once(
    data, job_of, tmp_path, monkeypatch
):
    meta = run(job_of(image_px=64), data, data.files.root / "big").meta
    _, model, sha256 = load_float_model(data.files.root / "big")
    job = job_of(distill=distill("big"))
    pictures = data.split("train", job_of(image_px=64)).pictures
    pixels = torch.from_numpy(np.stack([pictures.plain(entry) for entry in pictures.entries]))
    assert pixels.shape[1:3] == (64, 64)
    with torch.inference_mode():
        logits = model(normalise(pixels, meta.mean, meta.std))[0]
    expected = functional.softmax(logits / 4.0, dim=1)
    torch.testing.assert_close(soft_targets_of(data, job), expected, atol=1e-5, rtol=1e-4)
    [kept] = (data.files.root / "kept").iterdir()

    # Again, and it is not asked; and what it has said is itself a teacher.
    monkeypatch.setattr("pipelines.training.teachers.outputs_of", lambda *_: pytest.fail("asked"))
    torch.testing.assert_close(soft_targets_of(data, job), expected, atol=1e-5, rtol=1e-4)
    cached = soft_targets_of(data, job_of(distill=distill(str(kept))))
    torch.testing.assert_close(cached, expected, atol=1e-5, rtol=1e-4)

    student = run(job_of(distill=distill(str(kept))), data)
    assert student.meta.teachers_sha256 != (sha256,)
    assert student.meta.image_px == 32


# -- what a student makes of it -------------------------------------------------------------------
@pytest.mark.parametrize("strategy", ["full", "cached"])
@pytest.mark.parametrize("mixup_alpha", [0.0, 0.4])
def test_weight_of_zero_is_no_teacher_bit_for_bit(strategy, mixup_alpha, data, file_of, job_of):
    asked = {"strategy": strategy, "mixup_alpha": mixup_alpha}
    alone = run(job_of(**asked), data)
    beside = run(job_of(**asked, distill=distill(file_of(), weight=0.0)), data)
    assert same(beside.model, alone.model)
    assert beside.history == alone.history
    led = run(job_of(**asked, distill=distill(weight=0.5)), data)
    assert not same(led.model, alone.model)


@pytest.mark.parametrize("strategy", ["full", "cached"])
def test_each_picture_gets_its_own_teachers_answer(strategy, data, file_of, job_of, monkeypatch):
    """Of every batch the soft targets are those of the labels in it, which tell them apart."""
    seen = []
    own = fit.distilled

    def noting(loss, logits, soft_targets, params):
        seen.append(soft_targets)
        return own(loss, logits, soft_targets, params)

    file_of()
    monkeypatch.setattr(fit, "distilled", noting)
    labels = []
    one_hot = functional.one_hot

    def noting_labels(class_index, n_classes):
        labels.append(class_index)
        return one_hot(class_index, n_classes)

    monkeypatch.setattr(fit.functional, "one_hot", noting_labels)
    run(job_of(strategy=strategy, distill=distill(), refit=True), data)
    # Two batches an epoch of 12 train images, three of 24 in the refit; four epochs each.
    assert [len(soft) for soft in seen] == [8, 4] * 4 + [8, 8, 8] * 4
    answer_of = torch.tensor([1, 1, 2])
    for soft, class_index in zip(seen, labels, strict=True):
        assert torch.equal(soft.argmax(dim=1), answer_of[class_index])


def test_mixup_blends_a_teacher_as_it_blends_the_labels(data, job_of, file_of, monkeypatch):
    """A teacher that knows every label for certain gives blends of labels."""
    sure = {label: index for index, label in enumerate(LABELS)}
    entries = [entry for entry in data.entries if entry.split == "train"]
    logits = 1e4 * np.eye(3, dtype=np.float32)[[sure[entry.label] for entry in entries]]
    sure_file = Logits([entry.path for entry in entries], LABELS, logits).to_bytes()
    (data.files.root / "t.npz").write_bytes(sure_file)
    blended = []
    own = fit.mixed

    def noting(inputs, targets, alpha, generator):
        found = own(inputs, targets, alpha, generator)
        blended.append(found[1])
        return found

    monkeypatch.setattr(fit, "mixed", noting)
    run(job_of(distill=distill(), mixup_alpha=1.0), data)
    for targets in blended:
        torch.testing.assert_close(targets[:, :3], targets[:, 3:])
    assert any(((targets > 0.01) & (targets < 0.99)).any() for targets in blended)


def test_a_student_of_a_teacher_that_errs_leans_to_its_error(data, file_of, job_of):
    file_of(scale=8.0)
    phases = {"head_phase": {"epochs": 8}, "tail_phase": {"epochs": 0}}
    is_red = data.split("val", job_of()).truth == 0

    def to_green(**changes) -> float:
        logits = run(job_of(**phases, **changes), data).val_outputs[is_red]
        return float((logits[:, 1] - logits[:, 0]).mean())

    alone = to_green()
    half, led = (to_green(distill=distill(weight=weight)) for weight in (0.5, 1.0))
    assert alone < half < led
    assert led > 0


@pytest.mark.parametrize("strategy", ["full", "cached"])
def test_a_killed_student_goes_on_to_the_same_weights(strategy, data, file_of, job_of, tmp_path):
    job = job_of(strategy=strategy, mixup_alpha=0.2, distill=distill(file_of()))
    expected = run(job, data, paths=Paths(tmp_path))

    class Ends(Observer):
        def epoch(self, log, *, is_refit):
            if log.epoch == 3:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(job, data, observer=Ends())
    again = run(job, data)
    assert same(again.model, expected.model)
    assert again.meta == expected.meta


def test_another_teacher_of_the_same_name_is_another_training(data, file_of, job_of):
    class Watch(Observer):
        def begun(self, key, model):
            keys.append(key)

    keys: list[str] = []
    for scale in (4.0, 4.0, 2.0):
        file_of(scale=scale)
        run(job_of(distill=distill()), data, observer=Watch())
    assert keys[0] == keys[1] != keys[2]


# -- vectors --------------------------------------------------------------------------------------
@pytest.fixture
def persons(data) -> Data:
    """The same pictures as those of an embedding: a colour is an identity."""
    entries = [replace(e, truth=written(e.label, e.path)) for e in data.entries]
    summary = replace(data.summary, kind="embedding", labels=("picture",))
    return replace(data, entries=entries, summary=summary)


@pytest.fixture
def person_job(job_of):
    def make(**changes) -> Job:
        none = {"label_smoothing": 0.0, "balance": "none", "mixup_alpha": 0.0}
        return job_of(**none, monitor="val_loss", **changes)

    return make


@pytest.fixture
def backbone_weights(monkeypatch, tmp_path):
    """Drawn ones in the place of MobileNetV1's, which are no one's to fetch here."""
    from pipelines.backbones.spec import backbone
    from pipelines.backbones.weights import LoadedWeights

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        drawn = torch.nn.ModuleList(backbone("mobilenet_v1").build()).state_dict()
    made = LoadedWeights(drawn, "drawn", "f" * 64, "none")
    monkeypatch.setattr("pipelines.training.teachers.load_imagenet", lambda *_: made)


def vectors_of(data: Data, job: Job) -> torch.Tensor:
    root, split = data.files.root, data.split("train", job)
    made = data.summary
    teachers = read_vector_teachers(job.params, made.kind, made.reading, "", Paths(root), root)
    return taught_by_vectors(split, teachers, root / "kept", normalise).soft_targets


def test_a_backbone_by_name_gives_unit_vectors_once_at_its_own_side(
    persons, person_job, backbone_weights, monkeypatch
):
    job = person_job(distill=distill("mobilenet_v1"))
    found = vectors_of(persons, job)
    assert found.shape == (12, 1024)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(12))
    [kept] = (persons.files.root / "kept").iterdir()
    monkeypatch.setattr("pipelines.training.teachers.outputs_of", lambda *_: pytest.fail("asked"))
    torch.testing.assert_close(vectors_of(persons, job), found)
    # What it said is a teacher itself; of two, cosines are the mean.
    two = vectors_of(persons, person_job(distill=distill(["mobilenet_v1", str(kept)])))
    torch.testing.assert_close(two @ two.T, found @ found.T)


@pytest.mark.parametrize("strategy", ["full", "cached"])
def test_each_picture_gets_its_own_teachers_vector(strategy, persons, person_job, monkeypatch):
    """Of every batch the vectors are those of the identities in it, which tell them apart."""
    axis = {label: place for place, label in enumerate(LABELS)}
    entries = [e for e in persons.entries if e.split != "test"]
    said = np.eye(3, dtype=np.float32)[[axis[e.label] for e in entries]]
    teacher = Logits([e.path for e in entries], ["0", "1", "2"], 3 * said).to_bytes()
    (persons.files.root / "t.npz").write_bytes(teacher)
    alone = run(person_job(strategy=strategy), persons)
    seen, truths = [], []
    own, targets = Contrastive.related, Contrastive.targets
    monkeypatch.setattr(Contrastive, "related", lambda *all_: (seen.append(all_[2]), own(*all_))[1])
    monkeypatch.setattr(
        Contrastive, "targets", lambda *all_: (truths.append(all_[1][:, 0]), targets(*all_))[1]
    )
    beside = run(person_job(strategy=strategy, distill=distill(weight=0.0)), persons)
    assert beside.history == alone.history
    place_of = {int(known_of([e])[0, 0]): axis[e.label] for e in persons.entries}
    # Two batches an epoch of 12 train images, four epochs.
    assert [len(vectors) for vectors in seen] == [8, 4] * 4
    for vectors, who in zip(seen, truths, strict=True):
        expected = [place_of[number] for number in who.tolist()]
        assert torch.equal(vectors, torch.eye(3)[expected])
    led = run(person_job(strategy=strategy, distill=distill(weight=1.0)), persons)
    assert not same(led.model, alone.model)


def test_teachers_of_another_kind_are_refused(data, persons, job_of, person_job):
    run(job_of(), data, data.files.root / "classes")
    said = refused(persons, person_job(distill=distill("classes")), ConfigError)
    assert "classes is of kind 'classification'; expected 'embedding'" in said
    run(person_job(), persons, data.files.root / "vectors")
    said = refused(data, job_of(distill=distill("vectors")), ConfigError)
    assert "vectors is of kind 'embedding'; expected 'classification'" in said
    said = refused(persons, person_job(distill=distill("none")), ConfigError)
    assert "there is no teacher none. Expected the name of a backbone with weights, or a" in said
    masks = replace(data, summary=replace(data.summary, kind="segmentation"))
    job = job_of(distill=distill("classes"))
    with pytest.raises(ConfigError, match="tiny is of kind 'segmentation', which learns from neit"):
        _teachers(job, masks, Paths(data.files.root))


# -- params ---------------------------------------------------------------------------------------
def test_without_a_teacher_params_are_what_they_were(train_params):
    assert "distill" not in train_params().model_dump(mode="json")
    assert train_params(distill=None) == train_params()
    one = train_params(distill=distill("models/big/float"))
    assert one.distill.teacher == ("models/big/float",)
    assert train_params(**one.model_dump(mode="json")) == one


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": 0.5},
        {"weight": 1.5},
        {"teacher": []},
        {"teacher": ""},
        {"teacher": 3},
        {"heat": 1},
    ],
)
def test_params_that_cannot_be_are_refused(wrong, train_params):
    with pytest.raises(ValueError, match="distill"):
        train_params(
            distill=distill(**wrong) if "teacher" not in wrong else distill(wrong["teacher"])
        )


# -- bad input ------------------------------------------------------------------------------------
def refused(data: Data, job: Job, error: type[Exception]) -> str:
    with pytest.raises(error) as found:
        run(job, data, data.files.root / "out")
    assert not (data.files.root / "out").exists()
    assert "\n" not in str(found.value)
    return str(found.value)


def test_a_teacher_of_other_labels_is_refused(data, file_of, job_of):
    said = refused(data, job_of(distill=distill("none/float")), ConfigError)
    assert "there is no teacher none/float. Expected a folder with model.json" in said
    (data.files.root / "t.npz").write_bytes(
        replace(all_logits(data), labels=["red_tile", "green_tile", "mauve"]).to_bytes()
    )
    said = refused(data, job_of(distill=distill()), ConfigError)
    assert "t.npz has the labels red_tile, green_tile, mauve; expected red_tile, green" in said


@pytest.mark.parametrize(
    ("logits", "says"),
    [
        (np.zeros((24, 2), np.float32), r"logits are \(24, 2\)"),
        (np.full((24, 3), np.nan, np.float32), "finite: False"),
    ],
)
def test_a_file_that_is_none_is_refused(logits, says, data, job_of):
    file = data.files.root / "t.npz"
    file.write_bytes(replace(all_logits(data), logits=logits).to_bytes())
    with pytest.raises(DataError, match=says):
        run(job_of(distill=distill()), data)
    file.write_bytes(b"logits")
    assert "is no file of logits" in refused(data, job_of(distill=distill()), DataError)
    np.savez(file, paths=np.array([{}], dtype=object), labels=["a"], logits=[[1.0]])
    assert "is no file of logits" in refused(data, job_of(distill=distill()), DataError)


def test_a_file_without_a_picture_says_which(data, job_of):
    some = all_logits(data)
    file = Logits(some.paths[1:], some.labels, some.logits[1:])
    (data.files.root / "t.npz").write_bytes(file.to_bytes())
    said = refused(data, job_of(distill=distill()), DataError)
    assert "t.npz: has no logits of 1 of 12 pictures that are trained on" in said
    assert repr(some.paths[0]) in said


def test_a_teacher_of_another_split_is_told_of(data, job_of, caplog):
    root = data.files.root
    run(job_of(), data, root / "big")
    assert "teacher" not in (root / "big/model.json").read_text(), "as before there were any"
    params = job_of(distill=distill("big")).params.distill
    read_teachers(params, LABELS, content_sha256(data.entries), root)
    assert "teacher" not in caplog.text
    read_teachers(params, LABELS, "another", root)
    assert "teacher big was trained on other images or another split" in caplog.text
