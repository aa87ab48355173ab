"""What one cell comes to: trained as the task trains, exported, tested and timed.

`Objective` is a function of a cell and of nothing that another cell leaves behind, so that whoever
runs cells, this process or others, gets the same.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines.atomic import file_sha256, write_bytes
from pipelines.backbones.architecture import is_line
from pipelines.backbones.cost import Cost, cost
from pipelines.backbones.heads import make_classifier
from pipelines.backbones.spec import backbone
from pipelines.config.board import BoardParams, ReferenceParams
from pipelines.config.export import ExportParams
from pipelines.config.search import SearchParams
from pipelines.config.train import TrainParams
from pipelines.data.loaders import Pictures
from pipelines.data.manifest import class_index_of, content_sha256, in_split
from pipelines.data.workers import n_workers
from pipelines.errors import DataError
from pipelines.export import onnx_export
from pipelines.export.latency import Latency, against_reference
from pipelines.export.onnx_export import INPUT_NAME, classifier_onnx
from pipelines.metrics.intervals import (
    Draws,
    accuracies,
    draw,
    macro_f1s,
    of_counts,
    recalls,
    resampled,
)
from pipelines.paths import CellPaths, Paths
from pipelines.search.cells import PRECISIONS, Cell, CellResult, Variant, key_of
from pipelines.search.supernet import by_teacher
from pipelines.serving.classification import LOGITS_NAME
from pipelines.serving.predictor import processor_name
from pipelines.serving.sessions import Precision, make_session
from pipelines.training.exported import exported, pictures
from pipelines.training.job import Data, Job, Observer, train

_LOG = logging.getLogger(__name__)

_BATCH = 16
#: A file's size is a figure of the board, and no bound.
_ANY_SIZE = 10**12


@dataclass(frozen=True, slots=True)
class Objective:
    """A task's cells, as a function; plain values that may cross to another process.

    Attributes:
        task: slug.
        domain: of the task.
        train: its section; backbone, width, side and refit are the cell's and the board's.
        export: its section; how large a file may be does not count.
        board: its section.
        search: its section, which says how a network is trained that a line describes.
        seed: of the run.
        data: the prepared set.
        paths: of the project: weights, activations and checkpoints.
    """

    task: str
    domain: str
    train: TrainParams
    export: ExportParams
    board: BoardParams
    search: SearchParams
    seed: int
    data: Data
    paths: Paths

    def __call__(self, cell: Cell, observer: Observer | None = None) -> CellResult:
        """Train, export, test and time; a call that was killed goes on with its training.

        Args:
            observer: sees the training as it goes.

        Raises:
            PipelineError: as training and export say.
        """
        network = backbone(cell.backbone, cell.width)
        labels = self.data.summary.labels
        # First of all: it tells a side that the network is too deep for.
        costs = cost(network, cell.image_px, len(labels))
        job = Job(self.task, self.domain, self.params_of(cell), self.seed)
        own = self._own_paths(cell)
        trained = train(job, self.data, paths=own, observer=observer, keep_checkpoint=True)
        entries, raw_dir = self.data.entries, self.data.files.raw_dir
        bounds = self.export.model_copy(update={"max_int8_bytes": _ANY_SIZE})
        made = exported(trained.model, trained.meta, entries, raw_dir, bounds, self.seed)
        files: dict[Precision, bytes] = {"fp32": made.fp32, "int8": made.best.model}
        test = pictures(in_split(entries, "test"), trained.meta, self.seed, raw_dir)
        variants = self._variants(files, test, costs)
        return CellResult(
            cell=cell,
            multiply_adds=costs.multiply_adds,
            parameters=costs.parameters,
            variants=variants,
            int8_remedy=made.best.candidate.remedy,
            int8_agreement=made.best.candidate.agreement,
            int8_missed=made.best.missed,
            processor=processor_name(),
        )

    def params_of(self, cell: Cell) -> TrainParams:
        """The task's ``train`` section, for a cell."""
        section = self.train.model_dump()
        if cell.backbone != self.train.backbone:
            # A number of a block of another network.
            section["cut"] = None
        if is_line(cell.backbone):
            section |= self._of_inherited()
        own = cell.model_dump() | {"refit": self.board.refit}
        return TrainParams.model_validate(section | own)

    def _of_inherited(self) -> dict[str, object]:
        """What a network needs whose weights are cut out of another's: all of it is trained.

        It learns from the task's own model, where there is one.
        """
        own = self.search.finalist
        kept = {"schedule": "cosine", "patience": 0}
        found: dict[str, object] = {
            "strategy": "full",
            "head_phase": {"epochs": 0, "learning_rate": own.learning_rate, "warmup_fraction": 0.0}
            | kept,
            "tail_phase": {
                "epochs": own.epochs,
                "learning_rate": own.learning_rate,
                "warmup_fraction": own.warmup_fraction,
            }
            | kept,
            "layer_decay": own.layer_decay,
        }
        if own.teacher_weight and (teacher := own_teacher(self.data)) is not None:
            found["distill"] = by_teacher(own.teacher_weight, teacher).model_dump()
        return found

    def key(self, cell: Cell, code: str) -> str:
        """A hash of all that a cell's result depends on, but for the machine.

        Args:
            code: stands for the code that the result is made by.
        """
        params = self.params_of(cell)
        taught_by = [file_sha256(self.data.files.float_weights)] if params.distill else []
        return key_of(
            [
                params.model_dump(mode="json"),
                self.export.model_dump(mode="json"),
                self.board.model_dump(mode="json", include={"resamples", "reference"}),
                self.seed,
                content_sha256(self.data.entries),
                repr(self.data.summary.reading),
                self.data.summary.labels,
                code,
                *taught_by,
            ]
        )

    def forget(self, cell: Cell) -> None:
        """Remove the checkpoint that a killed call would have gone on from."""
        shutil.rmtree(self._own_paths(cell).task(self.task).root, ignore_errors=True)

    def _own_paths(self, cell: Cell) -> CellPaths:
        return CellPaths(self.paths.root, cell.name)

    def _variants(
        self, files: dict[Precision, bytes], test: Pictures, costs: Cost
    ) -> dict[Precision, Variant]:
        if not test.entries:
            raise DataError(
                f"{self.data.files.manifest}: the test split is empty. Raise test_fraction in "
                f"params.yaml."
            )
        draws = draw([entry.group for entry in test.entries], self.board.resamples, self.seed)
        answers = _answers(files, test.batches(_BATCH))
        latencies = self._latencies(files, test)
        return {
            precision: _variant(
                answers[precision],
                class_index_of(test.entries, self.data.summary.labels),
                self.data.summary.labels,
                draws,
                len(files[precision]),
                costs.peak_bytes("int8" if precision == "int8" else "float32"),
                latencies[precision],
            )
            for precision in PRECISIONS
        }

    def _latencies(self, files: dict[Precision, bytes], test: Pictures) -> dict[Precision, Latency]:
        """Of one test picture, one thread each, beside the reference."""
        pixels = test.plain(test.entries[0])[np.newaxis]
        asked = self.board.reference
        reference = make_session(reference_onnx(asked, self.paths.references_dir))
        side = asked.image_px
        noise = np.random.default_rng(self.seed).integers(256, size=(1, side, side, 3))
        feed = {INPUT_NAME: noise.astype(np.uint8)}
        sessions = {precision: make_session(model) for precision, model in files.items()}
        found = against_reference(
            {
                precision: lambda session=session: session.run(None, {INPUT_NAME: pixels})  # type: ignore[misc]
                for precision, session in sessions.items()
            },
            lambda: reference.run(None, feed),
        )
        return {precision: found[precision] for precision in sessions}


def own_teacher(data: Data) -> str | None:
    """The task's trained model as `train.distill` names it; None where it is not there."""
    files = data.files
    there = files.float_meta.is_file()
    return files.float_dir.relative_to(files.root).as_posix() if there else None


def reference_onnx(asked: ReferenceParams, folder: Path) -> bytes:
    """The untrained network beside which others are timed; kept, since each cell needs it.

    Its norms have the statistics of noise: values that die out on their way would be quicker.

    Args:
        asked: which network.
        folder: where it is kept.

    Raises:
        ConfigError: if there is no such network.
    """
    network = backbone(asked.backbone, asked.width)
    said = repr((asked, torch.__version__, network.input))
    exporter = Path(onnx_export.__file__).read_bytes()
    key = hashlib.sha256(said.encode() + exporter).hexdigest()[:12]
    kept = folder / f"{asked.backbone}-x{asked.width:g}-{asked.image_px}px-{key}.onnx"
    if kept.is_file():
        return kept.read_bytes()
    _LOG.info("exporting the reference, %s at %d px", network.title, asked.image_px)
    model = make_classifier(
        asked.backbone, asked.width, n_classes=2, hidden=(), dropout=0.0, cut=None, seed=0
    )
    noise = torch.randn(4, 3, asked.image_px, asked.image_px, generator=torch.Generator())
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        model.train()(noise)
    data = classifier_onnx(model.eval(), asked.image_px, network.input.mean, network.input.std)
    write_bytes(kept, data)
    return data


def _answers(
    files: dict[Precision, bytes], batches: Iterable[NDArray[np.uint8]]
) -> dict[Precision, NDArray[np.int64]]:
    """(n,) the label that each file gives each picture; a batch is made once for both."""
    sessions = {precision: make_session(model, n_workers()) for precision, model in files.items()}
    parts: dict[Precision, list[NDArray[np.int64]]] = {precision: [] for precision in files}
    for pixels in batches:
        for precision, session in sessions.items():
            logits = session.run([LOGITS_NAME], {INPUT_NAME: pixels})[0]
            parts[precision].append(logits.argmax(axis=1))
    return {precision: np.concatenate(found) for precision, found in parts.items()}


def _variant(
    answers: NDArray[np.int64],
    class_index: NDArray[np.int64],
    labels: Sequence[str],
    draws: Draws,
    size_bytes: int,
    peak_bytes: int,
    latency: Latency,
) -> Variant:
    counts = resampled(draws, class_index, answers, len(labels))
    by_label = of_counts(draws, counts, recalls)
    accuracy, macro_f1 = (of_counts(draws, counts, of)[0] for of in (accuracies, macro_f1s))
    assert accuracy is not None  # the split is not empty
    assert macro_f1 is not None
    return Variant(
        accuracy=accuracy,
        macro_f1=macro_f1,
        recall={
            label: recall
            for label, recall in zip(labels, by_label, strict=True)
            if recall is not None
        },
        answers=tuple(int(answer) for answer in answers),
        size_bytes=size_bytes,
        peak_bytes=peak_bytes,
        latency=latency,
    )
