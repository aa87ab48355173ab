"""`fieldlens pte TASK`: the programs that ExecuTorch runs on a phone, from the float model.

A verb of its own and no option of `export`: what `export` writes is an output of DVC, and the same
bytes wherever constraints.txt is installed, while the programs need an extra and carry the versions
of what makes them (ADR 0030). Their bundle lies in a folder of its own, since what is fitted on val
(temperature, operating points, abstention) is fitted for the file that is served.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines import locks
from pipelines.atomic import new_folder, write_bytes, write_text
from pipelines.backbones.heads import Classifier
from pipelines.card import DEFAULT_KIND, load_card
from pipelines.columns import table
from pipelines.commands.answer import Answer
from pipelines.config.params import TaskParams, load_params
from pipelines.data.loaders import Pictures, calibration_batches, stratified_sample
from pipelines.data.manifest import Entry, class_index_of, content_sha256, in_split, read_manifest
from pipelines.errors import BundleError, ConfigError, GateError, LeakageError
from pipelines.export.attempts import max_bytes
from pipelines.export.executorch_export import (
    OUTPUT_NAMES,
    Program,
    check_program,
    float_program,
    int8_program,
    require_executorch,
)
from pipelines.export.latency import paired_ms, speedup
from pipelines.export.onnx_export import INPUT_NAME
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
    Candidate,
    Serving,
    read_bundle,
    read_model,
)
from pipelines.serving.out_of_distribution import OutOfDistribution
from pipelines.serving.sessions import Precision, make_session
from pipelines.serving.trust import read_audit
from pipelines.stages import evaluate, export, gate
from pipelines.training.float_model import FloatModel, load_float_model

_LOG = logging.getLogger(__name__)

_PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")
_BATCH = 16
#: How the program in int8 is made, as the bundle says it.
_REMEDY, _CALIBRATOR = "pt2e", "histogram"
#: Times are the 20th percentile of the runs: what the machine does besides disturbs it least.
_PERCENTILE = 20
#: Of each file.
_N_RUNS = 60


@dataclass(frozen=True, slots=True)
class Given:
    """What the programs are made from and held to.

    Attributes:
        bundle: the released one, of ONNX files.
        meta: of the float model.
        params: of the task.
        seed: of the run.
        files: of the task.
        val: images of the val split, at most as many as `export` looks at.
        pixels: (n, h, w, 3) of them.
        reference: outputs of the ONNX file in float32 for them.
    """

    bundle: Bundle
    meta: FloatModel
    params: TaskParams
    seed: int
    files: TaskPaths
    val: Sequence[Entry]
    pixels: NDArray[np.uint8]
    reference: Outputs

    def pictures(self, entries: Sequence[Entry]) -> Pictures:
        """Images as the model sees them."""
        return export.pictures(entries, self.meta, self.seed, self.files)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The task."""
    parser.add_argument("task", help="as in params.yaml, e.g. tomato_leaf; it has a bundle.json")


def main(arguments: argparse.Namespace, paths: Paths) -> Answer:
    """Make the programs, hold them to the bounds of `export` and of `gate`, and write them.

    A program in int8 that misses a bound is not written, and the one in float32 is served.

    Raises:
        ConfigError: if there is no such task, or the extra is not installed.
        BundleError: if there is no finished bundle, or it is of another float model.
        LeakageError: if the splits are not those that the model was trained with.
        ParityError: if the program in float32 disagrees with the ONNX file.
        GateError: if the served program misses a demand of the gate; nothing is written then.
        StorageError: if the disk is full.
    """
    task = arguments.task
    params = load_params(paths.params)
    section = params.task(task)
    require_executorch()
    files = paths.task(task)
    with locks.hold(files.lock, f"pte {task}"):
        return _make(section, params.seed, files)


def _make(params: TaskParams, seed: int, files: TaskPaths) -> Answer:
    given, entries, model = _given(params, seed, files)
    form = (given.meta.image_px, given.meta.mean, given.meta.std)
    _LOG.info("%s: lowering the program in float32", files.task)
    chosen = stratified_sample(in_split(entries, "train"), params.export.calibration_images, seed)
    made: dict[Precision, bytes] = {"fp32": float_program(model, *form)}
    _LOG.info("%s: calibrating and lowering the program in int8", files.task)
    made["int8"] = int8_program(model, *form, calibration_batches(given.pictures(chosen)))
    programs = {precision: Program(program) for precision, program in made.items()}
    on_val = {each: _outputs(program.ask, given.pixels) for each, program in programs.items()}
    gap = check_program(given.reference, on_val["fp32"])
    _LOG.info("%s: the program in float32 agrees with ONNX within %.1e", files.task, gap)

    times = _times(given, programs)
    candidate, missed = _candidate(given, on_val["int8"], len(made["int8"]))
    served = _serving(given, times, candidate, missed)
    bundle = _trusted(given, entries, made, candidate, served, programs[served.precision])
    finished = _passed(given, programs, bundle)
    with new_folder(files.executorch_dir) as folder:
        for artefact in finished.artefacts:
            write_bytes(folder / artefact.name, made[artefact.precision])
        write_text(folder / BUNDLE_NAME, finished.to_json())
    return Answer(_page(given, finished, on_val, times))


def _given(
    params: TaskParams, seed: int, files: TaskPaths
) -> tuple[Given, list[Entry], Classifier]:
    bundle = read_bundle(files.bundle)
    if bundle.kind != DEFAULT_KIND:
        raise ConfigError(
            f"{files.bundle}: programs are made of classifications alone yet; got a model of kind "
            f"{bundle.kind!r}. Use its ONNX files."
        )
    meta, model, float_sha256 = load_float_model(files.float_dir)
    if float_sha256 != bundle.provenance.float_sha256:
        raise BundleError(
            f"{files.bundle}: is of another float model than {files.float_dir} holds. "
            f"Run `dvc repro evaluate@{files.task}` first."
        )
    entries = read_manifest(files.manifest)
    if content_sha256(entries) != meta.data_sha256:
        raise LeakageError(
            f"{files.manifest}: the split is not the one that the model was trained with, so its "
            f"val images may have been trained on. Run `dvc repro evaluate@{files.task}`."
        )
    val = stratified_sample(in_split(entries, "val"), export.MAX_VAL_IMAGES, seed)
    pixels = np.concatenate(list(export.pictures(val, meta, seed, files).batches(_BATCH)))
    reference = _outputs(ask_onnx(read_model(bundle, files.mobile_dir, "fp32")), pixels)
    return Given(bundle, meta, params, seed, files, val, pixels, reference), entries, model


def _outputs(ask: Ask, pixels: NDArray[np.uint8]) -> Outputs:
    batches = np.split(pixels, range(_BATCH, len(pixels), _BATCH))
    return answers_of([ask], batches, OUTPUT_NAMES)[0]


def _candidate(
    given: Given, outputs: Outputs, size_bytes: int
) -> tuple[Candidate, tuple[str, ...]]:
    """What the program in int8 reached on val, and the bounds of `export` that it missed."""
    params, name = given.params.export, OUTPUT_NAMES[0]
    kind = EXPORTED[given.bundle.kind]
    truth = class_index_of(given.val, given.meta.labels)
    judged = kind.judge(given.reference[name], truth, params)(outputs[name])
    missed = judged.missed
    most_bytes = max_bytes(params.max_int8_bytes, given.reference[name].shape[1])
    if size_bytes > most_bytes:
        missed += (f"{size_bytes:,} bytes (bound {most_bytes:,})",)
    return Candidate(
        remedy=_REMEDY,
        calibrator=_CALIBRATOR,
        float_nodes=(),
        agreement=judged.agreement,
        metrics=judged.metrics,
        sqnr_db=round(sqnr_db(given.reference[name], outputs[name]), 3),
        size_bytes=size_bytes,
        holds_bounds=not missed,
        is_chosen=True,
    ), missed


def _times(given: Given, programs: Mapping[Precision, Program]) -> dict[str, list[float]]:
    """Times in ms of one picture through each file, in turn, on one thread."""
    picture = given.pixels[0]
    calls: dict[str, Callable[[], object]] = {}
    for precision in _PRECISIONS:
        session = make_session(read_model(given.bundle, given.files.mobile_dir, precision))
        calls[given.bundle.files[precision].name] = lambda session=session: session.run(  # type: ignore[misc]
            None, {INPUT_NAME: picture[None]}
        )
        program = programs[precision]
        calls[_name(precision)] = lambda program=program: program.execute(picture)  # type: ignore[misc]
    return paired_ms(calls, _N_RUNS)


def _serving(
    given: Given,
    times: Mapping[str, list[float]],
    candidate: Candidate,
    missed: tuple[str, ...],
) -> Serving:
    """int8 if it keeps its bounds and is not slower. No time is written: it is the machine's."""
    where = "the val split"
    if given.meta.is_refit:
        where += ", which the refitted network was trained on"
    if missed:
        return Serving(
            precision="fp32",
            reason=f"the int8 program did not keep its bounds on {where}: {'; '.join(missed)}",
        )
    asked = given.params.export.min_speedup
    if speedup(times[_name("fp32")], times[_name("int8")]) < asked:
        return Serving(
            precision="fp32",
            reason=f"the int8 program kept its bounds but was not {asked:g} times as fast as fp32 "
            f"on one thread of the machine that made it",
        )
    return Serving(
        precision="int8",
        reason=f"it kept its bounds on {where} (agreement {candidate.agreement:.1%}) and was at "
        f"least {asked:g} times as fast as fp32 on one thread",
    )


def _trusted(
    given: Given,
    entries: Sequence[Entry],
    made: Mapping[Precision, bytes],
    candidate: Candidate,
    served: Serving,
    program: Program,
) -> Bundle:
    """The candidate: what is fitted on val is fitted for the program that is served."""
    meta, files, params = given.meta, given.files, given.params.export
    kind = EXPORTED[given.bundle.kind]
    truth = class_index_of(given.val, meta.labels)
    changed = {
        "artefacts": tuple(
            Artefact.of(_name(each), each, made[each], "pte") for each in _PRECISIONS
        ),
        "served": served,
        "int8_path": (candidate,),
        "temperature": 1.0,
        "operating_points": {},
        "abstention": None,
        "metrics": None,
        "intervals": None,
    }
    known = stratified_sample(in_split(entries, "train"), export.MAX_KNOWN_IMAGES, given.seed)
    return trusted(
        given.bundle.model_copy(update=changed),
        lambda outputs: kind.fitted(outputs, truth, load_card(files.card), meta.labels, params),
        program.ask,
        given.pictures(known),
        given.pixels,
        export.ask_before(kind, meta, files) if meta.is_refit else None,
        params,
    )


def _passed(given: Given, programs: Mapping[Precision, Program], bundle: Bundle) -> Bundle:
    """The finished bundle, if the test split lets it pass the gate.

    Raises:
        GateError: if a demand is not met.
    """
    files, params = given.files, given.params
    kind = TESTED[bundle.kind]
    entries = evaluate.test_split(kind, bundle, files)
    batches = given.pictures(entries).batches(_BATCH)
    both = answers_of([programs[each].ask for each in _PRECISIONS], batches, OUTPUT_NAMES)
    outputs = dict(zip(_PRECISIONS, both, strict=True))
    judge = _judge(bundle)
    is_ood = judge.judge(outputs[bundle.served.precision][EMBEDDING_NAME])[1] if judge else None
    # A classification asks for no places.
    places = np.broadcast_to(np.eye(3), (len(entries), 3, 3))
    answers = Answers(bundle, entries, outputs, is_ood, places, files.raw_dir)
    audit = read_audit(files.audit, files.task) if files.audit.is_file() else None
    finished, metrics, certainty = evaluate.measured(
        kind, answers, audit, params.evaluate, given.seed
    )
    _LOG.info("%s: %d test images, %s", files.task, len(entries), kind.summary(metrics, certainty))
    failed = [each for each in gate.check(metrics, finished, params.gate) if not each.passed]
    if failed:
        raise GateError(gate.refusal(files.task, failed))
    return finished


def _judge(bundle: Bundle) -> OutOfDistribution | None:
    if bundle.abstention is None:
        return None
    return OutOfDistribution.load(bundle.abstention, bundle.output(EMBEDDING_NAME).shape[-1])


def _fast(times: Sequence[float]) -> float:
    return float(np.percentile(times, _PERCENTILE))


def _name(precision: Precision) -> str:
    return f"model_{precision}.pte"


# -- what is shown --------------------------------------------------------------------------------
def _page(
    given: Given,
    finished: Bundle,
    on_val: Mapping[Precision, Outputs],
    times: Mapping[str, list[float]],
) -> str:
    """The four files beside each other on the val split."""
    files = given.files
    onnx = _outputs(ask_onnx(read_model(given.bundle, files.mobile_dir, "int8")), given.pixels)
    of_onnx = times[given.bundle.files["int8"].name]
    shown: list[tuple[Bundle, Precision, Outputs]] = [
        (given.bundle, "fp32", given.reference),
        (given.bundle, "int8", onnx),
        *((finished, precision, on_val[precision]) for precision in _PRECISIONS),
    ]
    name, rows = OUTPUT_NAMES[0], []
    for bundle, precision, outputs in shown:
        file, logits = bundle.files[precision], outputs[name]
        judge = _judge(bundle)
        # The abstention is fitted for the served file.
        tells = judge is not None and bundle.served.precision == precision
        refused = judge.judge(outputs[EMBEDDING_NAME])[1] if judge and tells else None
        own = times[file.name]
        rows.append(
            (
                file.name,
                f"{file.size_bytes:,}",
                f"{agreement(given.reference[name], logits):.4f}",
                f"{sqnr_db(given.reference[name], logits):.1f}",
                "-" if refused is None else f"{refused.mean():.3f}",
                f"{_fast(own):.2f}",
                f"{_fast(own) / _fast(of_onnx):.2f}",
            )
        )
    header = ("FILE", "BYTES", "AGREEMENT", "DB", "REFUSED", "MS", "TIME/ONNX INT8")
    lines = [
        f"{files.executorch_dir}: serves {finished.served.precision}: {finished.served.reason}.",
        "",
        table(header, rows),
        "",
        f"On {len(given.val)} val images, against {given.bundle.files['fp32'].name}; refused by "
        f"the abstention of the served file; one thread of this machine, one picture, in turn.",
    ]
    return "\n".join(lines)
