"""`fieldlens export TASK --format pte`: programs for ExecuTorch, from a released model.

They are no output of the stage `export`: what DVC knows of is the same bytes wherever
constraints.txt is installed, while programs need an extra and carry the versions of what makes them
(ADR 0030). Their bundle lies in a folder of its own, since what is fitted on val (temperature,
operating points, abstention) is fitted for the file that is served.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.atomic import new_folder, write_bytes, write_text
from pipelines.card import DEFAULT_KIND, load_card
from pipelines.columns import table
from pipelines.commands import stage
from pipelines.commands.answer import Answer
from pipelines.config.params import TaskParams, load_params
from pipelines.data.manifest import Entry, read_manifest
from pipelines.errors import BundleError, ConfigError, GateError
from pipelines.export.attempts import reached, serving
from pipelines.export.executorch_export import (
    FLOAT_PARTS,
    OUTPUT_NAMES,
    Program,
    check_program,
    float_program,
    int8_program,
    require_executorch,
)
from pipelines.export.latency import is_as_fast, paired_ms, speedup
from pipelines.export.trusted import Ask, Outputs, answers_of, ask_onnx, trusted
from pipelines.kinds.evaluate import KINDS as TESTED
from pipelines.kinds.evaluate import Answers
from pipelines.kinds.export import KINDS as EXPORTED
from pipelines.metrics.classification import agreement, sqnr_db
from pipelines.paths import Paths, TaskPaths
from pipelines.serving.answer import EMBEDDING_NAME
from pipelines.serving.bundle import (
    BUNDLE_NAME,
    Artefact,
    Bundle,
    read_bundle,
    read_model,
)
from pipelines.serving.out_of_distribution import OutOfDistribution
from pipelines.serving.sessions import Precision
from pipelines.serving.trust import read_audit
from pipelines.stages import evaluate, gate
from pipelines.training.exported import (
    ask_before_refit,
    calibration_views,
    known_pictures,
    pictures,
    val_views,
)
from pipelines.training.float_model import FloatModel, load_float_model

_LOG = logging.getLogger(__name__)

_PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")
_BATCH = 16
#: Of each file, to say how long an answer takes.
_N_RUNS = 60


@dataclass(frozen=True, slots=True)
class _Source:
    """What programs are made from and held to.

    Attributes:
        released: the bundle of ONNX files.
        meta: of the float model.
        entries: of the manifest that it was trained with.
        test: of these, the test split.
    """

    released: Bundle
    meta: FloatModel
    entries: Sequence[Entry]
    test: Sequence[Entry]
    params: TaskParams
    seed: int
    files: TaskPaths


def make(task: str, paths: Paths) -> Answer:
    """Make the programs, hold them to the bounds of `export` and of `gate`, and write them.

    Args:
        task: slug.

    Raises:
        ConfigError: if there is no such task, or the extra is not installed.
        BundleError: if there is no finished bundle, or it is of another float model.
        LeakageError: if the splits are not those that the model was trained with.
        ParityError: if the program in float32 disagrees with the ONNX file.
        GateError: if the served program misses a demand of the gate; nothing is written then.
        StorageError: if the disk is full.
    """
    params = load_params(paths.params)
    section = params.task(task)
    require_executorch()
    with stage.at_work("export", task, section, paths):
        return _make(section, params.seed, paths.task(task))


def _make(params: TaskParams, seed: int, files: TaskPaths) -> Answer:
    released = read_bundle(files.bundle)
    if released.kind != DEFAULT_KIND:
        raise ConfigError(
            f"{files.bundle}: programs are made of classifications alone yet; got a model of kind "
            f"{released.kind!r}. Use its ONNX files."
        )
    meta, model, float_sha256 = load_float_model(files.float_dir)
    if float_sha256 != released.provenance.float_sha256:
        raise BundleError(
            f"{files.bundle}: is of another float model than {files.float_dir} holds. "
            f"Run `dvc repro evaluate@{files.task}` first."
        )
    entries = read_manifest(files.manifest)
    test = evaluate.test_split(TESTED[released.kind], released, entries, files)
    source = _Source(released, meta, entries, test, params, seed, files)
    form = (meta.image_px, meta.mean, meta.std)
    _LOG.info("%s: lowering the program in float32", files.task)
    made: dict[Precision, bytes] = {"fp32": float_program(model, *form)}
    _LOG.info("%s: calibrating and lowering the program in int8", files.task)
    calibration = calibration_views(meta, entries, files.raw_dir, params.export, seed)
    made["int8"] = int8_program(model, *form, calibration)
    return _written(source, made)


def _written(source: _Source, made: Mapping[Precision, bytes]) -> Answer:
    """The programs beside their bundle, if they hold what is asked of them."""
    released, meta, params, files = source.released, source.meta, source.params, source.files
    programs = {each: Program(made[each]).ask for each in _PRECISIONS}
    # On one thread, as the programs are.
    onnx = {each: ask_onnx(read_model(released, files.mobile_dir, each), 1) for each in _PRECISIONS}
    pixels, truth = val_views(meta, source.entries, files.raw_dir, source.seed)
    asks = {released.files[each].name: onnx[each] for each in _PRECISIONS}
    asks |= {_name(each): programs[each] for each in _PRECISIONS}
    batches = np.split(pixels, range(_BATCH, len(pixels), _BATCH))
    on_val = dict(zip(asks, answers_of(list(asks.values()), batches, OUTPUT_NAMES), strict=True))
    reference = on_val[released.files["fp32"].name]
    gap = check_program(reference, on_val[_name("fp32")])
    _LOG.info("%s: the program in float32 agrees with ONNX within %.1e", files.task, gap)

    logits = OUTPUT_NAMES[0]
    candidate, missed = reached(
        on_val[_name("int8")][logits],
        len(made["int8"]),
        reference[logits],
        EXPORTED[released.kind].judge(reference[logits], truth, params.export),
        params.export,
        remedy="float_stem+equalize+round+pt2e",
        calibrator="histogram",
        float_nodes=FLOAT_PARTS,
    )
    calls = {name: partial(ask, OUTPUT_NAMES, pixels[:1]) for name, ask in asks.items()}
    int8, fp32 = (calls[_name(each)] for each in ("int8", "fp32"))
    is_slow = not missed and not is_as_fast(int8, fp32, params.export.min_speedup)
    served = serving(candidate, missed, params.export, is_slow=is_slow, is_refit=meta.is_refit)
    artefacts = [Artefact.of(_name(each), each, made[each], "pte") for each in _PRECISIONS]
    changed = {
        "artefacts": tuple(artefacts),
        "served": served,
        "int8_path": (candidate.model_copy(update={"is_chosen": True}),),
    }
    fitted = _fitted(source, released.model_copy(update=changed), programs, pixels, truth)
    finished = _passed(source, fitted, programs)
    with new_folder(files.executorch_dir) as folder:
        for artefact in artefacts:
            write_bytes(folder / artefact.name, made[artefact.precision])
        write_text(folder / BUNDLE_NAME, finished.to_json())

    # Others on the machine do not count.
    times = paired_ms(calls, _N_RUNS, clock=time.thread_time)
    of_onnx = times[released.files["int8"].name]
    rows = [
        (
            name,
            f"{artefact.size_bytes:,}",
            f"{agreement(reference[logits], on_val[name][logits]):.4f}",
            f"{sqnr_db(reference[logits], on_val[name][logits]):.1f}",
            f"{np.median(times[name]):.2f}",
            f"{speedup(times[name], of_onnx):.2f}",
        )
        for artefact in (*released.files.values(), *artefacts)
        for name in (artefact.name,)
    ]
    header = ("FILE", "BYTES", "AGREEMENT", "DB", "MS", "TIME/ONNX INT8")
    return Answer(
        f"{files.executorch_dir}: serves {served.precision}: {served.reason}.\n\n"
        f"{table(header, rows)}\n\n"
        f"On {len(pixels)} val images, against {released.files['fp32'].name}; one picture on one "
        f"thread of this machine, in turn."
    )


def _fitted(
    source: _Source,
    bundle: Bundle,
    programs: Mapping[Precision, Ask],
    pixels: NDArray[np.uint8],
    truth: NDArray[Any],
) -> Bundle:
    """The candidate: what is fitted on val is fitted for the program that is served."""
    meta, files, params = source.meta, source.files, source.params.export
    card, kind = load_card(files.card), EXPORTED[bundle.kind]
    return trusted(
        bundle,
        lambda outputs: kind.fitted(outputs, truth, card, meta.labels, params),
        programs[bundle.served.precision],
        known_pictures(meta, source.entries, files.raw_dir, source.seed),
        pixels,
        ask_before_refit(meta, files.float_dir),
        params,
    )


def _passed(source: _Source, bundle: Bundle, programs: Mapping[Precision, Ask]) -> Bundle:
    """The finished bundle, if the test split lets it pass the gate.

    Raises:
        GateError: if a demand is not met.
    """
    files, params, kind = source.files, source.params, TESTED[bundle.kind]
    batches = pictures(source.test, source.meta, source.seed, files.raw_dir).batches(_BATCH)
    found = answers_of([programs[each] for each in _PRECISIONS], batches, OUTPUT_NAMES)
    outputs: dict[Precision, Outputs] = dict(zip(_PRECISIONS, found, strict=True))
    is_ood = None
    if bundle.abstention is not None:
        n_values = bundle.output(EMBEDDING_NAME).shape[-1]
        judge = OutOfDistribution.load(bundle.abstention, n_values)
        is_ood = judge.judge(outputs[bundle.served.precision][EMBEDDING_NAME])[1]
    # A classification asks for no places.
    places = np.broadcast_to(np.eye(3), (len(source.test), 3, 3))
    answers = Answers(bundle, source.test, outputs, is_ood, places, files.raw_dir)
    audit = read_audit(files.audit, files.task) if files.audit.is_file() else None
    finished, metrics, certainty = evaluate.measured(
        kind, answers, audit, params.evaluate, source.seed
    )
    summary = kind.summary(metrics, certainty)
    _LOG.info("%s: %d test images, %s", files.task, len(source.test), summary)
    failed = [each for each in gate.check(metrics, finished, params.gate) if not each.passed]
    if failed:
        raise GateError(gate.refusal(files.task, failed))
    return finished


def _name(precision: Precision) -> str:
    return f"model_{precision}.pte"
