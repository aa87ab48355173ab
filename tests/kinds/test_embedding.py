"""The kind `embedding`: what is true, what is trained, and what the files say."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from PIL import Image

from pipelines import cli
from pipelines.card import load_card
from pipelines.data.manifest import Entry, read_manifest
from pipelines.errors import ConfigError, DataError
from pipelines.kinds.embedding.audit import AuditedEmbedding
from pipelines.kinds.embedding.export import ExportedEmbedding
from pipelines.kinds.embedding.prepare import PreparedEmbedding
from pipelines.kinds.embedding.train import Contrastive, TrainedEmbedding
from pipelines.kinds.embedding.truth import known_of, written
from pipelines.metrics.retrieval import agreements, unit
from pipelines.paths import Paths
from pipelines.serving.bundle import read_bundle
from pipelines.serving.sessions import make_session
from tests.kinds.test_second_kind import SECTION
from tests.toy_card import CARD

ROOT = Path(__file__).resolve().parents[2]
KIND = "embedding"


def folder_of(raw_dir: Path, *names: str, table: str = "") -> Path:
    for name in names:
        (raw_dir / name).parent.mkdir(parents=True, exist_ok=True)
        (raw_dir / name).write_bytes(b"not looked at")
    if table:
        (raw_dir / "records.csv").write_text(table, encoding="utf-8")
    return raw_dir


def card():
    return load_card(ROOT / "datasets/flowers/card.yaml")


# -- truth ----------------------------------------------------------------------------------------
NAMES = [f"{identity}/{n}.jpg" for identity in "abcdef" for n in (1, 2)]


def test_the_folder_is_the_identity_and_the_group(tmp_path):
    records = PreparedEmbedding().records(folder_of(tmp_path, *NAMES), card())
    assert {(record.label, record.group) for record in records} == {
        ("picture", identity) for identity in "abcdef"
    }
    assert [json.loads(record.truth) for record in records[:2]] == [
        ["a", "a/1.jpg"],
        ["a", "a/2.jpg"],
    ]


def test_stated_groups_are_occasions_unless_they_are_the_identities_again(tmp_path):
    rows = [f"{name},{name[0]},{name[0]}_{1 if name[0] == 'a' else name[2]}" for name in NAMES]
    names = [*NAMES, "a/3.jpg"]
    table = "\n".join(["path,label,group", *rows, "a/3.jpg,a,a_2"])
    records = PreparedEmbedding().records(folder_of(tmp_path / "one", *names, table=table), card())
    assert [json.loads(record.truth)[1] for record in records[:3]] == ["a_1", "a_1", "a_2"]
    again = "\n".join(["path,label,group", *(f"{name},{name[0]},{name[0]}" for name in NAMES)])
    records = PreparedEmbedding().records(folder_of(tmp_path / "two", *NAMES, table=again), card())
    assert json.loads(records[0].truth) == ["a", "a/1.jpg"]


def test_identity_with_one_picture_stays_and_is_counted(tmp_path, caplog):
    caplog.set_level("INFO")
    records = PreparedEmbedding().records(folder_of(tmp_path, *NAMES, "z/1.jpg"), card())
    assert records[-1].group == "z"
    assert "1 identities have one picture" in caplog.text


def test_too_few_identities_are_refused_in_one_line(tmp_path):
    with pytest.raises(DataError, match="5 identities have pictures of two occasions; expected at"):
        PreparedEmbedding().records(folder_of(tmp_path, *NAMES[:-1]), card())
    with pytest.raises(DataError, match="no image was found"):
        PreparedEmbedding().records(folder_of(tmp_path / "none", "x.txt"), card())


def entries(*pairs: tuple[str, str]) -> list[Entry]:
    return [
        Entry(f"{i}.jpg", "picture", who, "", "train", "0", 1, 1, written(who, when))
        for i, (who, when) in enumerate(pairs)
    ]


def test_numbers_of_names_are_the_same_in_every_split():
    one = known_of(entries(("rose", "1"), ("iris", "2")))
    other = known_of(entries(("iris", "2"), ("tulip", "3"), ("rose", "1")))
    assert one[0].tolist() == other[2].tolist()
    assert one[1].tolist() == other[0].tolist()
    assert len({*one[:, 0], *other[:, 0]}) == 3


# -- training -------------------------------------------------------------------------------------
def test_loss_is_that_of_the_definition():
    rng = np.random.default_rng(1)
    vectors, who = rng.normal(size=(7, 4)), np.array([0, 0, 1, 1, 1, 2, 3])
    loss = Contrastive(0.2).loss(torch.tensor(vectors), torch.tensor(who)).item()
    direction = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    likeness = np.exp(direction @ direction.T / 0.2)
    of_each = []
    for i in range(5):
        rest = sum(likeness[i, k] for k in range(7) if k != i)
        mates = [j for j in range(7) if j != i and who[j] == who[i]]
        of_each.append(-np.mean([np.log(likeness[i, j] / rest) for j in mates]))
    assert loss == pytest.approx(np.mean(of_each))


def test_what_a_teacher_says_of_a_batch_is_how_like_each_is_to_the_others():
    outputs = torch.tensor([[3.0, 0], [0, 2], [4, 4]])
    vectors = torch.tensor([[1.0, 0, 0], [0.6, 0.8, 0], [0, 0, 1]])
    own, theirs = Contrastive(0.1).related(outputs, vectors, 2.0)
    half = 0.5**0.5 / 0.1
    torch.testing.assert_close(own, torch.tensor([[0, half], [0, half], [half, half]]))
    logits = torch.tensor([[0.6, 0], [0.6, 0], [0, 0]]) / 0.1 / 2
    torch.testing.assert_close(theirs, logits.softmax(dim=1))
    # Whatever its length, a student that sees likeness as its teacher does has nothing to learn.
    own, theirs = Contrastive(0.1).related(7 * vectors, vectors, 2.0)
    torch.testing.assert_close((own / 2).softmax(dim=1), theirs)


def test_batch_of_strangers_teaches_nothing_and_breaks_nothing():
    outputs = torch.randn(4, 3, requires_grad=True)
    loss = Contrastive(0.1).loss(outputs, torch.arange(4))
    loss.backward()
    assert loss.item() == 0
    assert torch.isfinite(outputs.grad).all()


def test_loss_falls_where_pictures_of_one_identity_come_together():
    who = torch.tensor([0, 0, 1, 1])
    apart = torch.tensor([[1.0, 0], [0, 1], [1, 0], [0, 1]])
    together = torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1]])
    criterion = Contrastive(0.1)
    assert criterion.loss(together, who) < 0.01 < 1 < criterion.loss(apart, who)
    truth = np.array([[0, 1], [0, 2], [1, 3], [1, 4]])
    assert criterion.measured(together, truth)["val_recall_at_1"] == 1.0
    assert criterion.measured(apart, truth)["val_recall_at_1"] == 0.0


def test_what_blends_classes_is_refused():
    from pipelines.config.train import TrainParams

    params = TrainParams.model_validate(SECTION["train"] | {"monitor": "val_loss"})
    good = {"mixup_alpha": 0.0, "label_smoothing": 0.0, "balance": "none"}
    assert TrainedEmbedding().criterion(np.empty(0), 0, params.model_copy(update=good))
    for key, value in (("mixup_alpha", 0.2), ("label_smoothing", 0.1), ("balance", "sampling")):
        with pytest.raises(ConfigError, match=rf"train\.{key}: an embedding has no classes"):
            TrainedEmbedding().criterion(
                np.empty(0), 0, params.model_copy(update={**good, key: value})
            )


# -- export and audit -----------------------------------------------------------------------------
def test_finished_file_gives_vectors_of_unit_length():
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Identity", ["image"], ["logits"])],
        "head",
        [value("image", onnx.TensorProto.FLOAT, ["n", 3])],
        [value("logits", onnx.TensorProto.FLOAT, ["n", 3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    session = make_session(ExportedEmbedding().finished(model.SerializeToString()))
    given = np.random.default_rng(2).normal(size=(5, 3)).astype(np.float32)
    [found] = session.run(["vector"], {"image": given})
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(found, unit(given), atol=1e-6)


def test_agreement_counts_the_nearest_that_stay():
    known = np.stack([np.arange(8), np.arange(8)], axis=1)
    one = np.abs(np.subtract.outer(np.arange(8.0), np.arange(8.0)))
    assert agreements(one, one, known).tolist() == [1.0] * 8
    other = one.copy()
    other[0, 5] = 9  # The fifth nearest of the first goes, and the sixth comes.
    assert agreements(one, other, known).tolist() == [0.8] + [1.0] * 7


def test_blind_features_are_asked_as_vectors_are():
    shown = entries(*((f"i{n % 4}", str(n)) for n in range(24)))
    blind = AuditedEmbedding().blind(shown, (), Path("raw"), 3, 1, 100)
    who = np.array([n % 4 for n in range(24)], float)
    assert blind.chance() == pytest.approx(5 / 23, abs=1e-6)
    assert blind.interval(blind.told(who[:, np.newaxis], "forest")).value == 1.0
    same = blind.interval(blind.told(np.ones((24, 3)), "forest"))
    assert same.value == pytest.approx(blind.chance(), abs=1e-6)
    assert {group for learn, _ in blind.folds for group in learn} == set(range(24))


# -- all stages -----------------------------------------------------------------------------------
TASK = "spots"


def paint(raw_dir: Path) -> None:
    """Eight identities: stripes of a pitch each, four pictures in two colours."""
    rng = np.random.default_rng(4)
    x = np.arange(64)
    for identity in range(8):
        for n in range(4):
            wave = np.sin(x * (0.2 + 0.22 * identity) + rng.uniform(0, 6))
            pixels = 128 + 60 * np.outer(np.ones(64), wave)[..., None] * rng.uniform(0.5, 1, 3)
            pixels = np.clip(pixels + rng.normal(0, 5, (64, 64, 3)), 0, 255).astype(np.uint8)
            path = raw_dir / f"pitch{identity}" / f"{n}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["cached", "full"])
def test_every_stage_and_command(strategy, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FIELDLENS_TRACKING", "off")
    paths = Paths(tmp_path / "project")
    files = paths.task(TASK)
    paint(files.raw_dir)
    lines = CARD.format(title="Stripes", task=TASK).splitlines(keepends=True)
    text = "".join(line for line in lines if not line.startswith(("classes:", "  - ")))
    files.card.write_text(f"{text}kind: {KIND}\n", encoding="utf-8")
    section = {
        **SECTION,
        "train": {
            **SECTION["train"],
            **{"strategy": strategy, "monitor": "val_recall_at_1", "label_smoothing": 0.0},
            **{"balance": "none", "mixup_alpha": 0.0},
        },
        "gate": {
            "max_int8_bytes": 10**7,
            "demands": [
                {"metric": "served.recall_at_1", "at_least": 0.0},
                {"metric": "agreement", "at_least": 0.0},
            ],
        },
    }
    paths.params.write_text(json.dumps({"seed": 5, "tasks": {TASK: section}}), encoding="utf-8")

    def run(verb: str, *arguments: str) -> int:
        return cli.main([verb, *arguments, "--root", str(paths.root)])

    for verb in ("prepare", "audit", "train", "export", "evaluate", "gate"):
        assert run(verb, TASK) == 0, capsys.readouterr().err
    assert run("report") == 0
    found = read_manifest(files.manifest)
    assert len({(entry.group, entry.split) for entry in found}) == 8
    bundle = read_bundle(files.bundle)
    assert (bundle.kind, bundle.labels, list(bundle.operating_points)) == (
        KIND,
        (),
        ["same_identity"],
    )
    metrics = json.loads(files.metrics.read_text(encoding="utf-8"))
    served = metrics["served"]
    for name in ("recall_at_1", "recall_at_5", "map_at_r", "eer", "false_match"):
        interval = metrics["intervals"][served][name]
        assert interval["value"] == pytest.approx(metrics[served][name], abs=2e-6)
    assert set(metrics["paired"]) == {
        "recall_at_1_drop",
        "map_at_r_drop",
        "eer_drop",
        "agreement",
    }
    rows = list(csv.DictReader(io.StringIO(files.predictions.read_text(encoding="utf-8"))))
    right = [row["identity"] == row["nearest_identity"] for row in rows]
    assert np.mean(right) == pytest.approx(metrics[served]["recall_at_1"], abs=1e-6)
    assert (bundle.audit.metric, bundle.audit.constant) == ("recall_at_1", "mean embedding")
    assert "| Recall@1 |" in paths.results_page.read_text(encoding="utf-8")

    picture = str(files.raw_dir / "pitch3" / "0.png")
    capsys.readouterr()
    assert run("predict", picture) == 0
    assert "There is no gallery beside the model" in capsys.readouterr().out
    assert run("gallery") == 0
    assert "32 pictures of 8 identities" in capsys.readouterr().out
    assert run("predict", picture, "--json") == 0
    nearest = json.loads(capsys.readouterr().out)["images"][0]["neighbours"]
    # It is in the gallery itself.
    assert (nearest[0]["identity"], nearest[0]["path"]) == ("pitch3", "pitch3/0.png")
    assert nearest[0]["distance"] < 1e-3
    assert run("gallery", str(files.raw_dir / "pitch3")) == 2
    assert "no picture was found" in capsys.readouterr().err
    out = tmp_path / "maps"
    assert run("explain", picture, "--out", str(out)) == 0
    # Not itself.
    assert "at a distance of 0.000" not in capsys.readouterr().out
    assert len(list(out.iterdir())) == 1
    assert run("explain", picture, "--label", "nobody") == 2
    assert "has no other picture of nobody in the gallery" in capsys.readouterr().err
    assert run("stress", TASK) == 0
    assert "the five nearest of the other pictures" in capsys.readouterr().out
    assert (
        run("compare", TASK, TASK, *["--precision", "int8", "--precision-b", "fp32", "--json"]) == 0
    )
    gains = json.loads(capsys.readouterr().out)["metrics"]
    for name in ("recall_at_1", "map_at_r", "eer"):
        drop = metrics["paired"][f"{name}_drop"]["value"]
        assert gains[name]["b_minus_a"]["value"] == pytest.approx(drop, abs=2e-6)
    # The test split as another's folder, for a model that has come without its manifest.
    garden, manifest = tmp_path / "garden", files.manifest.read_bytes()
    for entry in found:
        if entry.split == "test":
            (garden / entry.path).parent.mkdir(parents=True, exist_ok=True)
            (garden / entry.path).write_bytes((files.raw_dir / entry.path).read_bytes())
    files.manifest.unlink()
    assert run("validate", TASK, str(garden), "--json") == 0
    validation = json.loads(capsys.readouterr().out)
    for name in ("recall_at_1", "map_at_r", "eer", "false_match"):
        assert validation["metrics"][name] == metrics[served][name]
        assert validation["drops"][name]["drop"]["value"] == 0
    files.manifest.write_bytes(manifest)
    # Another model beside it: the gallery is of the one before.
    gallery = files.mobile_dir / "gallery.json"
    document = json.loads(gallery.read_text(encoding="utf-8"))
    gallery.write_text(json.dumps(document | {"model_sha256": "0" * 64}), encoding="utf-8")
    capsys.readouterr()
    assert run("predict", picture) == 2
    assert "made by another model" in capsys.readouterr().err
    assert run("evaluate", TASK) == 0


def test_start_gives_the_directions_of_the_train_split_one_spread():
    from pipelines.kinds.embedding.train import whitening

    rng = np.random.default_rng(3)
    # Light differs a hundred times as much as what tells identities.
    values = (rng.normal(size=(60, 20)) * np.geomspace(100, 1, 20) + 7).astype(np.float32)
    weight, bias = whitening(values, 8)
    found = values @ weight.T + bias
    assert weight.shape == (8, 20)
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-4)
    covariance = np.cov(found.T)
    assert np.abs(covariance - np.diag(np.diag(covariance))).max() < 1e-3
    spreads = np.sqrt(np.diag(covariance))
    assert spreads[0] / spreads[-1] < 10 < 100 / 8
    # Of fewer pictures than numbers no direction is made up.
    assert len(whitening(values[:5], 8)[0]) == 4


def test_head_starts_there_and_one_with_hidden_layers_as_it_was_drawn():
    from torch import nn

    from pipelines.kinds.embedding.train import DIMENSIONS

    values = np.random.default_rng(1).normal(size=(30, 40)).astype(np.float32)
    plain = nn.Sequential(nn.Dropout(0.0), nn.Linear(40, DIMENSIONS))
    Contrastive(0.1).begin(SimpleNamespace(head=plain), None, lambda: values)
    with torch.no_grad():
        found = plain(torch.from_numpy(values)).numpy()
    assert np.abs(found[:, :29].mean(axis=0)).max() < 1e-3
    assert (found[:, 29:] == 0).all()
    deep = nn.Sequential(nn.Linear(40, 8), nn.ReLU(), nn.Dropout(0.0), nn.Linear(8, DIMENSIONS))
    before = deep[-1].weight.clone()
    Contrastive(0.1).begin(SimpleNamespace(head=deep), None, lambda: values)
    assert torch.equal(before, deep[-1].weight)
