"""`fieldlens predict`: what a bundle says about pictures, and how long it takes to say it.

Goes through `pipelines.serving.predictor` alone, as the apps do; loads no torch, MLflow or DVC.
A file that is named is taken as it is. Of folders and patterns, what a name says is no image is
passed over and counted (`pipelines.data.tree`).
"""

from __future__ import annotations

import argparse
import csv
import fnmatch
import glob
import io
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from pipelines.atomic import write_bytes
from pipelines.columns import shown, uncalculated
from pipelines.commands.answer import Answer
from pipelines.data.pixel_range import outside_words
from pipelines.data.tree import Kind, files_of, kind_of
from pipelines.errors import BundleError, ConfigError, CorruptImageError, DataError
from pipelines.paths import Paths
from pipelines.progress import track
from pipelines.serving.answer import Answer as Said
from pipelines.serving.bundle import BUNDLE_NAME, Bundle, bundle_file
from pipelines.serving.predictor import Predictor, processor_name

#: What was said of one file: an answer, or why there is none.
_Outcome = tuple[Path, Said | str]

#: So many pictures take long enough to be told how far it is.
_MANY = 20
#: Ten kilobytes a picture that nobody looks at here.
_NO_EMBEDDING = np.empty(0, dtype=np.float32)
OOD_WARNING = "I do not know this kind of picture: do not believe what stands here."
SAMPLE_WARNING = (
    "This model has seen synthetic sample images only: its answers mean nothing for real pictures."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Pictures, the model, and the form of the answer."""
    parser.add_argument(
        "images",
        nargs="+",
        type=Path,
        metavar="IMAGE",
        help="files, folders with all below them, or quoted patterns, e.g. 'photos/**/*.jpg'",
    )
    add_model_arguments(parser)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", dest="as_json", help="for a program")
    form.add_argument(
        "--csv",
        action="store_true",
        dest="as_csv",
        help="a row a file, unreadable ones included: --csv > answers.csv",
    )
    parser.add_argument(
        "--precision", choices=("fp32", "int8"), help="default: the one the bundle serves"
    )
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="default: 1")
    parser.add_argument(
        "--drawings",
        type=Path,
        metavar="FOLDER",
        help="write what an answer draws there, as PNG in px of the picture: masks",
    )


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """The model that `find_bundle` looks for."""
    parser.add_argument("--task", help="which model; needed where there are several")
    parser.add_argument("--bundle", type=Path, metavar="PATH", help="a bundle.json, or its folder")


def main(arguments: argparse.Namespace, paths: Paths) -> Answer:
    """The answers for pictures; a bad picture is complained about and the others answered."""
    if arguments.threads < 1:
        raise ConfigError(f"--threads: expected at least 1 (got {arguments.threads}).")
    path = find_bundle(paths, arguments.task, arguments.bundle)
    predictor: Predictor[Said] = Predictor.load(
        path, arguments.precision, n_threads=arguments.threads
    )
    meant = _meant_by(arguments.images)
    wanted = arguments.drawings
    drawings = None if wanted is None else _Drawings(wanted, meant.files)
    _warm_up(predictor)
    outcomes: list[_Outcome] = []
    what = f"{predictor.bundle.task}: answering"
    files = meant.files
    for file in track(files, what, len(files)) if len(files) >= _MANY else files:
        try:
            said = predictor.predict(file)
            if drawings is not None:
                drawings.add(predictor, file, said)
            outcomes.append((file, replace(said, embedding=_NO_EMBEDDING)))
        except CorruptImageError as err:
            outcomes.append((file, str(err)))
    outcomes += meant.complaints
    complaints = [said for _, said in outcomes if isinstance(said, str)]
    if arguments.as_json:
        text = _as_json(predictor, outcomes, meant)
    elif arguments.as_csv:
        text = _as_csv(predictor, outcomes)
    else:
        text = _as_text(predictor, outcomes)
    notes = (meant.note,) if meant.note else ()
    return Answer(text, (*complaints, *notes), exit_code=2 if complaints else 0)


class _Drawings:
    """A folder for what answers draw; a picture's drawing has its name."""

    def __init__(self, folder: Path, files: Sequence[Path]) -> None:
        """Refuse pictures whose drawings would have one name, before anything is written."""
        self._folder = folder
        taken: dict[str, Path] = {}
        for file in files:
            other = taken.setdefault(file.stem.casefold(), file)
            if other is not file:
                raise ConfigError(
                    f"--drawings: {shown(str(other))} and {shown(str(file))} would both be written "
                    f"as {shown(file.stem)}.png. Answer them in two runs, each with a folder of "
                    f"its own."
                )

    def add(self, predictor: Predictor[Said], file: Path, said: Said) -> None:
        """Write the drawing of one answer.

        Raises:
            ConfigError: if the model's kind draws nothing.
            StorageError: if it cannot be written.
        """
        drawing = predictor.kind.drawing(said, predictor.opened(file).size)
        if drawing is None:
            raise ConfigError(
                f"--drawings: a {predictor.bundle.kind} draws nothing. Leave the option out."
            )
        buffer = io.BytesIO()
        drawing.save(buffer, "PNG")
        write_bytes(self._folder / f"{file.stem}.png", buffer.getvalue())


def find_bundle(paths: Paths, task: str | None, bundle_path: Path | None) -> Path:
    """The bundle that a command line means; never a guess between several."""
    if bundle_path is not None:
        if task is not None:
            raise ConfigError("--task and --bundle: expected one of them (got both).")
        return bundle_file(bundle_path)
    found = {
        path.parents[1].name: path for path in paths.models_dir.glob(f"*/mobile/{BUNDLE_NAME}")
    }
    choices = ", ".join(sorted(found))
    if task is not None:
        if task not in found:
            there_are = f"Models: {choices}. " if choices else ""
            raise BundleError(
                f"{paths.task(task).bundle}: there is no model of {task!r}. {there_are}"
                f"Run `dvc repro evaluate@{task}` to make it."
            )
        return found[task]
    if not found:
        raise BundleError(
            f"{paths.models_dir}: there is no model yet. Run `make repro`, or name one by --bundle."
        )
    if len(found) > 1:
        raise ConfigError(f"--task: there are {len(found)} models; expected one of {choices}.")
    return next(iter(found.values()))


def _warm_up(predictor: Predictor[Said]) -> None:
    """Make what only the first picture pays for (decoder tables, the session's arena) be paid."""
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), "grey").save(buffer, "JPEG")
    predictor.predict(buffer.getvalue())


def _answered(outcomes: Sequence[_Outcome]) -> list[tuple[Path, Said]]:
    return [(path, said) for path, said in outcomes if not isinstance(said, str)]


def _as_text(predictor: Predictor[Said], outcomes: Sequence[_Outcome]) -> str:
    predictions = _answered(outcomes)
    if not predictions:
        return ""
    bundle = predictor.bundle
    lines = [f"{bundle.title} ({bundle.task}, {bundle.provenance.network}, {predictor.precision})"]
    if bundle.is_sample:
        lines.append(SAMPLE_WARNING)
    for path, prediction in predictions:
        lines += ["", shown(str(path))]
        if prediction.is_ood:
            lines.append(f"{OOD_WARNING} {_ood_score(bundle, prediction)}")
        lines += predictor.kind.lines(prediction, bundle)
        if not prediction.is_ood and prediction.ood_score is not None:
            lines.append(f"A kind of picture that I know. {_ood_score(bundle, prediction)}")
        if prediction.outside:
            lines.append(outside_words(prediction.outside, predictor.reading.range))
        lines.append(f"{prediction.elapsed_ms:.1f} ms")
    threads = "1 thread" if predictor.n_threads == 1 else f"{predictor.n_threads} threads"
    lines += [
        "",
        f"Time is that of one run a picture, decoding included, after one warm-up run: {threads} "
        f"of {processor_name()}. Not a phone's.",
        f"For: {bundle.intended_use}",
        f"Not for: {'; '.join(limit.rstrip('.') for limit in bundle.not_for)}.",
    ]
    return "\n".join(lines)


def _ood_score(bundle: Bundle, prediction: Said) -> str:
    if bundle.abstention is None or prediction.ood_score is None:
        return ""
    bound = bundle.abstention.threshold
    return f"(out-of-distribution score {prediction.ood_score:.3f}, bound {bound:.3f})"


def _as_csv(predictor: Predictor[Said], outcomes: Sequence[_Outcome]) -> str:
    """One row a file; without an answer, the reason."""
    bundle, kind = predictor.bundle, predictor.kind
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    columns = kind.columns(bundle)
    writer.writerow(["path", *columns, "is_ood", "error"])
    for path, said in outcomes:
        name = uncalculated(str(path))
        if isinstance(said, str):
            writer.writerow([name, *("" for _ in columns), "", said])
        else:
            writer.writerow([name, *kind.cells(said, bundle), str(said.is_ood).lower(), ""])
    return buffer.getvalue().removesuffix("\n")


def _as_json(predictor: Predictor[Said], outcomes: Sequence[_Outcome], meant: _Meant) -> str:
    bundle = predictor.bundle
    document = {
        "task": bundle.task,
        "precision": predictor.precision,
        "model_sha256": bundle.files[predictor.precision].sha256,
        "data_source": bundle.provenance.data_source,
        "n_threads": predictor.n_threads,
        "processor": processor_name(),
        "images": [
            {
                "path": str(path),
                **predictor.kind.document(prediction, bundle),
                "is_ood": prediction.is_ood,
                "ood_score": prediction.ood_score,
                "outside_range": prediction.outside,
                "elapsed_ms": round(prediction.elapsed_ms, 3),
            }
            for path, prediction in _answered(outcomes)
        ],
        "errors": [
            {"path": str(path), "error": said} for path, said in outcomes if isinstance(said, str)
        ],
        "n_passed_over": dict(meant.n_passed_over),
    }
    return json.dumps(document, indent=2)


# -- which files a command line means --------------------------------------------------------------
#: What each kind that is passed over is, in words.
_WORDS: dict[Kind, str] = {
    "table": "tables",
    "other": "not images by their names",
    "hidden": "hidden",
    "system": "left behind by a system",
    "dangling": "links to nothing",
    "loop": "links in a circle",
    "special": "no regular files",
}


@dataclass(slots=True)
class _Meant:
    """What a command line means."""

    #: In the order of the arguments, within a folder by name; once, unless a file is named itself,
    #: which counts each time.
    files: list[Path] = field(default_factory=list)
    n_passed_over: Counter[Kind] = field(default_factory=Counter)
    #: Arguments that mean nothing, each with the reason.
    complaints: list[tuple[Path, str]] = field(default_factory=list)

    @property
    def note(self) -> str:
        """One line on what was passed over; empty where nothing was."""
        kinds = [f"{n:,} {_WORDS[kind]}" for kind, n in self.n_passed_over.items() if n]
        return f"passed over {self.n_passed_over.total():,}: {', '.join(kinds)}" if kinds else ""


def _meant_by(arguments: Sequence[Path]) -> _Meant:
    """Files, folders with all below them, and patterns as the shell has them.

    ``**`` stands for any number of folders. What exists under the very name is that, whatever
    signs it has.
    """
    meant, seen = _Meant(), set[Path]()
    for argument in arguments:
        is_empty = True
        try:
            for file, kind in _candidates(argument):
                is_empty = False
                if file in seen and file is not argument:
                    continue
                seen.add(file)
                if kind == "image":
                    meant.files.append(file)
                else:
                    meant.n_passed_over[kind] += 1
        except DataError as err:
            meant.complaints.append((argument, str(err)))
            continue
        if is_empty:
            what = "holds no file" if argument.is_dir() else "no file has such a name"
            meant.complaints.append((argument, f"{shown(str(argument))}: {what}."))
    return meant


def _candidates(argument: Path) -> Iterator[tuple[Path, Kind]]:
    if argument.is_dir():
        yield from ((argument / file.path, file.kind) for file in files_of(argument))
    elif argument.exists() or argument.is_symlink() or not glob.has_magic(str(argument)):
        # What is not there is refused where it is opened, with its reason.
        yield argument, "image"
    else:
        yield from _fitting(argument)


def _fitting(pattern: Path) -> Iterator[tuple[Path, Kind]]:
    n_plain = next(at for at, part in enumerate(pattern.parts) if glob.has_magic(part))
    top, wanted = Path(*pattern.parts[:n_plain]), pattern.parts[n_plain:]
    if "**" in wanted:
        # Not by `glob`, which goes round and round in links that lead back.
        if top.is_dir():
            for file in files_of(top):
                if _fits(file.path.parts, wanted):
                    yield top / file.path, file.kind
        return
    for path in sorted(top.glob("/".join(wanted))):
        if path.is_dir():
            yield from _candidates(path)
        else:
            yield path, kind_of(path, PurePosixPath(*path.parts[n_plain:]))


def _fits(parts: Sequence[str], wanted: Sequence[str]) -> bool:
    """Whether a pattern names a file, or a folder around it."""
    if not wanted:
        return True
    if wanted[0] == "**":
        return _fits(parts, wanted[1:]) or (bool(parts) and _fits(parts[1:], wanted))
    is_first = bool(parts) and fnmatch.fnmatchcase(parts[0], wanted[0])
    return is_first and _fits(parts[1:], wanted[1:])
