"""`export --format pte`: a network that tells colours, from its ONNX files to programs."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines import cli
from pipelines.atomic import file_sha256
from pipelines.backbones.spec import backbones
from pipelines.config.params import load_params
from pipelines.data.manifest import class_index_of, content_sha256, in_split, read_manifest
from pipelines.errors import BundleError
from pipelines.paths import Paths
from pipelines.serving.bundle import read_bundle, read_model
from pipelines.serving.out_of_distribution import OutOfDistribution
from pipelines.serving.predictor import Predictor
from pipelines.stages import evaluate, export
from pipelines.training.exported import pictures
from pipelines.training.float_model import FloatModel, save_float_model
from tests.backbones.toy_family import as_pretrained, toy
from tests.toy_card import CARD

LABELS = ("red_tile", "green_tile", "blue_tile")
ROOT = Path(__file__).resolve().parents[2]
#: Lowering takes some ten seconds a program, and is done once for all tests here.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
needs_executorch = pytest.mark.skipif(
    importlib.util.find_spec("executorch") is None,
    reason="executorch is not installed: pip install 'fieldlens[train,executorch]'",
)


@pytest.fixture(scope="module", autouse=True)
def _patched(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FIELDLENS_WORKERS", "1")
        patch.setenv("FIELDLENS_TRACKING", "off")
        patch.setitem(backbones(), "toy", toy(tmp_path_factory.mktemp("toy")))
        yield


@pytest.fixture(scope="module")
def released(tmp_path_factory, _tiny_template) -> Paths:
    """The tiny project, with a network that has learned its colours, exported and evaluated."""
    paths = Paths(Path(shutil.copytree(_tiny_template.root, tmp_path_factory.mktemp("pte") / "p")))
    files = paths.task("tiny")
    _params(paths)
    card = CARD.format(task="tiny", title="Tiles")
    for old, new in (("red", LABELS[0]), ("green", LABELS[1]), ("blue", LABELS[2])):
        card = re.sub(rf"\blabel: {old}\b", f"label: {new}", card)
    files.card.parent.mkdir(parents=True, exist_ok=True)
    files.card.write_text(card)
    entries = read_manifest(files.manifest)
    meta = FloatModel(
        task="tiny",
        domain="agriculture",
        labels=LABELS,
        backbone="toy",
        cut=5,
        hidden=(),
        dropout=0.1,
        is_folded=False,
        resize_px=72,
        image_px=64,
        mean=(0.4, 0.5, 0.6),
        std=(0.5, 0.5, 0.5),
        strategy="full",
        weights="none",
        weights_provider=None,
        weights_sha256=None,
        weights_licence=None,
        data_sha256=content_sha256(entries),
        data_source="sample",
        n_images={"train": 12, "val": 12, "test": 36},
        n_groups={"train": 6, "val": 6, "test": 18},
        params_sha256="cc" * 32,
        val={"val_accuracy": 0.5},
    )
    torch.manual_seed(3)
    model = meta.build()
    as_pretrained(list(model.blocks))
    model.eval()
    train = in_split(entries, "train")
    pixels = np.concatenate(list(pictures(train, meta, 1, files.raw_dir).batches(16)))
    values = (torch.from_numpy(pixels) / 255 - torch.tensor(meta.mean)) / torch.tensor(meta.std)
    truth = torch.eye(3)[class_index_of(train, LABELS)] * 8 - 4
    with torch.no_grad():
        features = model.embed(values.permute(0, 3, 1, 2), 0)
        centre = features.mean(dim=0)
        # Ridge regression: little enough that the head does not shout.
        gram = (features - centre).T @ (features - centre) + 1e-3 * torch.eye(features.shape[1])
        weight = torch.linalg.solve(gram, (features - centre).T @ truth).T
        model.head[-1].weight.copy_(weight)
        model.head[-1].bias.copy_(truth.mean(dim=0) - weight @ centre)
    shutil.rmtree(files.mobile_dir)
    save_float_model(files.float_dir, meta, model)
    params = load_params(paths.params)
    section = params.task("tiny")
    export.run("tiny", section.export, params.seed, paths)
    evaluate.run("tiny", section.evaluate, params.seed, paths)
    return paths


def _params(paths: Paths, **bounds: float) -> None:
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    head = re.split(r"^(?:tasks|real):", text, maxsplit=1, flags=re.MULTILINE)[0]
    block = re.search(r"^  mask_detection:\n((?:    .*\n)+)", text, re.MULTILINE)
    assert block is not None
    # A network that nobody trained holds no bound; what is asked here is which bound decides what.
    none = {"min_agreement": 0.0, "min_accuracy": 0.0, "min_macro_f1": 0.0}
    none |= {f"max_{each}_drop": 1.0 for each in ("accuracy", "macro_f1", "recall")}
    for key, value in {**none, **bounds}.items():
        head = re.sub(rf"^(  {key}): .*$", rf"\1: {value}", head, flags=re.MULTILINE)
    section = block[1].replace("domain: safety", "domain: agriculture")
    paths.params.write_text(f"{head}tasks:\n  tiny:\n{section}", encoding="utf-8")


def pte(paths: Paths, task: str = "tiny") -> int:
    return cli.main(["export", task, "--format", "pte", "--root", str(paths.root)])


@pytest.fixture
def project(released, tmp_path) -> Paths:
    return Paths(Path(shutil.copytree(released.root, tmp_path / "project")))


@pytest.fixture(scope="module")
def made(released, tmp_path_factory) -> tuple[Paths, str]:
    """A copy of the project with programs, and what the command showed."""
    paths = Paths(Path(shutil.copytree(released.root, tmp_path_factory.mktemp("made") / "p")))
    _params(paths, min_speedup=0.001)
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        assert pte(paths) == 0
    return paths, shown.getvalue()


@pytest.fixture
def ready(made, monkeypatch) -> None:
    """The programs need not be lowered again."""
    folder = made[0].task("tiny").executorch_dir
    for each, file in (("float", "fp32"), ("int8", "int8")):
        program = (folder / f"model_{file}.pte").read_bytes()
        monkeypatch.setattr(
            f"pipelines.commands.pte.{each}_program", lambda *_, program=program: program
        )


@needs_executorch
def test_programs_have_a_bundle_of_their_own_and_answer_as_onnx_does(made, released, capsys):
    from pipelines.export.executorch_export import Program

    paths, shown = made
    files = paths.task("tiny")
    for path in released.task("tiny").mobile_dir.iterdir():
        assert (files.mobile_dir / path.name).read_bytes() == path.read_bytes()
    names = {"bundle.json", "model_fp32.pte", "model_int8.pte"}
    assert {path.name for path in files.executorch_dir.iterdir()} == names
    bundle = read_bundle(files.executorch_dir)
    for artefact in bundle.artefacts:
        assert (artefact.format, artefact.runtime) == ("pte", "executorch")
        assert artefact.sha256 == file_sha256(files.executorch_dir / artefact.name)
        assert f"{artefact.size_bytes:,}" in shown
    assert bundle.served.precision == "int8"
    assert bundle.provenance == read_bundle(files.bundle).provenance
    (candidate,) = bundle.int8_path
    assert candidate.holds_bounds

    served = Predictor.load(files.bundle)
    test = in_split(read_manifest(files.manifest), "test")
    pixels = np.stack([served.pixels(files.raw_dir / entry.path) for entry in test])
    program = Program((files.executorch_dir / "model_int8.pte").read_bytes())
    logits, embedding = program.ask(["logits", "embedding"], pixels)
    right = float(np.mean(logits.argmax(axis=1) == class_index_of(test, LABELS)))
    assert bundle.metrics is not None
    assert bundle.metrics["int8"]["accuracy"] == pytest.approx(right, abs=1e-6)
    # In eight bits so small a network of drawn weights is worth little in either format (0.44 as
    # ONNX, chance is 0.33): what int8 is worth docs/experiments/executorch.md says, of real ones.
    onnx = read_bundle(files.bundle).metrics
    assert onnx is not None
    assert bundle.metrics["fp32"]["accuracy"] == onnx["fp32"]["accuracy"] > 0.7
    # The abstention is fitted for this program: it knows its own val pictures.
    val = in_split(read_manifest(files.manifest), "val")
    known = np.stack([served.pixels(files.raw_dir / entry.path) for entry in val])
    judge = OutOfDistribution.load(bundle.abstention, embedding.shape[1])
    assert not judge.judge(program.ask(["embedding"], known)[0])[1].any()

    with pytest.raises(BundleError, match="holds programs for executorch"):
        read_model(bundle, files.executorch_dir, "int8")
    assert cli.main(["predict", "x.png", "--bundle", str(files.executorch_dir)]) == 2
    assert "docs/howto/executorch.md" in capsys.readouterr().err


@needs_executorch
def test_bound_of_bytes_that_is_missed_makes_float_the_served_one(project, ready, capsys):
    _params(project, max_int8_bytes=1)
    assert pte(project) == 0
    bundle = read_bundle(project.task("tiny").executorch_dir)
    assert bundle.served.precision == "fp32"
    assert "bytes (bound 1)" in bundle.served.reason
    assert "serves fp32: no int8 file kept its bounds" in capsys.readouterr().out


@needs_executorch
def test_program_that_misses_the_gate_is_not_written(project, ready, capsys):
    _params(project, min_speedup=0.001)
    above, marker, below = project.params.read_text().partition("_gate: &gate")
    below = re.sub(r"max_int8_bytes: \d+", "max_int8_bytes: 2", below, count=1)
    project.params.write_text(above + marker + below)
    assert pte(project) == 3
    assert "tiny is not released: int8 bytes is" in capsys.readouterr().err
    assert not project.task("tiny").executorch_dir.exists()


# -- bad input --------------------------------------------------------------------------------
def test_other_float_model_than_the_bundles_is_told(project, capsys, monkeypatch):
    monkeypatch.setattr("pipelines.commands.pte.require_executorch", lambda: None)
    files = project.task("tiny")
    weights = files.float_weights.read_bytes()
    files.float_weights.write_bytes(weights[:-4] + b"\0\0\0\0")
    assert pte(project) == 2
    assert "is of another float model than" in capsys.readouterr().err
    assert not files.executorch_dir.exists()


def test_other_split_than_the_models_is_leakage(project, capsys, monkeypatch):
    monkeypatch.setattr("pipelines.commands.pte.require_executorch", lambda: None)
    manifest = project.task("tiny").manifest
    swapped = {'"test"': '"val"', '"val"': '"test"'}
    manifest.write_text(
        re.sub("|".join(swapped), lambda match: swapped[match[0]], manifest.read_text())
    )
    assert pte(project) == 2
    assert "test images may have been train images" in capsys.readouterr().err


def test_without_a_bundle_the_command_is_named(project, capsys, monkeypatch):
    monkeypatch.setattr("pipelines.commands.pte.require_executorch", lambda: None)
    project.task("tiny").bundle.unlink()
    assert pte(project) == 2
    assert "there is no bundle" in capsys.readouterr().err


def test_without_the_extra_nothing_is_done(project, capsys, monkeypatch):
    find, absent = importlib.util.find_spec, {"executorch", "torchao"}
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name, *_: None if name in absent else find(name, *_)
    )
    assert pte(project) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "pip install 'fieldlens[train,executorch]'" in line


def test_unknown_task_lists_those_that_are(project, capsys):
    assert pte(project, "tinny") == 2
    assert "tiny" in capsys.readouterr().err
