"""`fieldlens compare A B`: is one set of answers better than another, or is it luck?

Two predictions.csv of labels are compared as they lie, and no model runs. Boxes, masks and vectors
say too little in a table: two bundles are asked about the test split, as `evaluate` asks them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from pipelines.columns import shown, table
from pipelines.commands.answer import Answer
from pipelines.data.manifest import read_manifest
from pipelines.errors import ConfigError, DataError, MissingDataError
from pipelines.metrics.intervals import draw
from pipelines.metrics.predictions import Comparison, Predictions, compare, parse_predictions
from pipelines.paths import Paths
from pipelines.serving.bundle import Bundle
from pipelines.serving.predictor import Predictor
from pipelines.serving.sessions import Precision
from pipelines.serving.trust import Interval
from pipelines.validation.external import ERRORS, words_of

_FILE = "predictions.csv"
#: Of the intervals; a comparison is no result of the pipeline, so these are not in params.yaml.
_RESAMPLES, _SEED = 5000, 42
#: Images that are listed; --json lists all.
_LISTED = 20
#: Images that an error names.
_NAMED = 3
_HEADER = ("METRIC", "A", "B", "B - A", "INTERVAL")


@dataclass(frozen=True, slots=True)
class _Side:
    """One of the two: where its answers come from, and which file of the model gave them."""

    path: Path
    rows: Predictions
    precision: Precision

    @property
    def answers(self) -> tuple[str, ...]:
        return self.rows.answers[self.precision]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The two sets of answers, and whose they are."""
    for name in ("a", "b"):
        parser.add_argument(
            name,
            metavar=name.upper(),
            help="a predictions.csv, a bundle.json, a folder with one of them, or a task",
        )
    precisions = ("fp32", "int8")
    parser.add_argument(
        "--precision", choices=precisions, help="whose answers (default: those of the served file)"
    )
    parser.add_argument(
        "--precision-b", choices=precisions, help="the same for B, if it is another"
    )
    parser.add_argument("--json", action="store_true", dest="as_json", help="for a program")


def main(arguments: argparse.Namespace, paths: Paths) -> Answer:
    """What separates two sets of answers, with intervals and the images that changed."""
    names = (arguments.a, arguments.b)
    has_labels = {name: _has_labels(_answers_file(paths, name)) for name in names}
    if not all(has_labels.values()):
        bundles = {name: _bundle_file(paths, name) for name in names}
        first, second = (bundles[name] for name in names)
        if first is not None and second is not None:
            return _of_models(paths, arguments, first, second)
        model = next((name for name in names if bundles[name] and not has_labels[name]), None)
        if model is not None:
            missing = next(name for name in names if bundles[name] is None)
            raise ConfigError(
                f"{shown(missing)}: there is no bundle.json. {shown(model)} is a model, so that "
                f"two models are compared. Expected a bundle.json, a folder that holds one "
                f"(models/<task>/mobile), or a task that `fieldlens evaluate` has been run for."
            )
    one = _side(paths, arguments.a, arguments.precision)
    other = _align(_side(paths, arguments.b, arguments.precision_b or arguments.precision), one)
    rows = one.rows
    found = compare(
        rows.groups, rows.true, one.answers, other.answers, resamples=_RESAMPLES, seed=_SEED
    )
    form = _as_json if arguments.as_json else _as_text
    return Answer(form(one, other, found))


def _answers_file(paths: Paths, name: str) -> Path:
    path = Path(name)
    if path.is_dir():
        return path / _FILE
    if not path.exists() and paths.task(name).predictions.is_file():
        return paths.task(name).predictions
    return path


def _side(paths: Paths, name: str, precision: Precision | None) -> _Side:
    path = _answers_file(paths, name)
    try:
        rows = parse_predictions(path.read_text(encoding="utf-8", errors="surrogateescape"))
    except FileNotFoundError:
        raise MissingDataError(
            f"{shown(str(path))}: there are no answers. Expected a {_FILE}, a folder that holds "
            f"one (reports/<task>), or a task that `fieldlens evaluate` has been run for."
        ) from None
    except ValueError as err:
        raise DataError(f"{shown(str(path))}: {err}. Run `fieldlens evaluate` again.") from err
    return _Side(path, rows, precision or _served(path, rows))


def _served(path: Path, rows: Predictions) -> Precision:
    """The precision that metrics.json beside the answers calls served."""
    if len(rows.answers) == 1:
        return next(iter(rows.answers))
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        served = json.loads((path.parent / "metrics.json").read_text(encoding="utf-8"))["served"]
        if served in rows.answers:
            return "int8" if served == "int8" else "fp32"
    raise ConfigError(
        f"{shown(str(path))}: has answers of {' and '.join(rows.answers)}, and no metrics.json "
        f"beside it says which is served. Name one: --precision int8."
    )


def _align(other: _Side, one: _Side) -> _Side:
    """The second side in the order of the first, if both speak of the same images."""
    for side in (one, other):
        if side.precision not in side.rows.answers:
            raise ConfigError(f"{shown(str(side.path))}: has no answers of {side.precision}.")
    mine, theirs = set(one.rows.paths), set(other.rows.paths)
    if mine != theirs:
        odd = sorted(mine ^ theirs)
        raise DataError(
            f"{shown(str(other.path))}: answers other images than {shown(str(one.path))}: "
            f"{len(mine & theirs)} in both, {len(mine - theirs)} only in the first, "
            f"{len(theirs - mine)} only in the second ({_some(odd)}). A comparison needs the same "
            f"test images; evaluate both models on the same splits."
        )
    place = {path: index for index, path in enumerate(other.rows.paths)}
    order = [place[path] for path in one.rows.paths]
    rows = Predictions(
        paths=one.rows.paths,
        groups=tuple(other.rows.groups[index] for index in order),
        true=tuple(other.rows.true[index] for index in order),
        answers={
            key: tuple(found[index] for index in order) for key, found in other.rows.answers.items()
        },
        labels=other.rows.labels,
    )
    for what, left, right in (
        ("labels", one.rows.true, rows.true),
        ("groups", one.rows.groups, rows.groups),
    ):
        differ = [path for path, x, y in zip(rows.paths, left, right, strict=True) if x != y]
        if differ:
            raise DataError(
                f"{shown(str(other.path))}: has other {what} than {shown(str(one.path))} for "
                f"{len(differ)} image(s) ({_some(differ)}). Evaluate both on the same manifest."
            )
    return _Side(other.path, rows, other.precision)


def _some(names: Sequence[str]) -> str:
    more = ", …" if len(names) > _NAMED else ""
    return ", ".join(map(repr, names[:_NAMED])) + more


# -- two models -----------------------------------------------------------------------------------
def _has_labels(path: Path) -> bool:
    """Whether a file is a table of labels; what else is there is told by whoever reads it."""
    try:
        with path.open(encoding="utf-8", errors="surrogateescape") as stream:
            header = stream.readline()
    except OSError:
        return False
    return any(f"{precision}_answer" in header for precision in get_args(Precision))


def _bundle_file(paths: Paths, name: str) -> Path | None:
    """The bundle that is meant, if there is one."""
    path = Path(name)
    if path.suffix == ".json" and path.is_file():
        return path
    place = path if path.is_dir() else None if path.exists() else paths.task(name).mobile_dir
    file = None if place is None else place / paths.task("any").bundle.name
    return file if file is not None and file.is_file() else None


def _of_models(paths: Paths, arguments: argparse.Namespace, first: Path, second: Path) -> Answer:
    # Two tables of labels are compared without what runs a model and draws.
    from pipelines.kinds.evaluate import KINDS, answered
    from pipelines.kinds.report import KINDS as SHOWN
    from pipelines.stages.evaluate import test_split

    n_threads = os.cpu_count() or 1
    wanted = (arguments.precision, arguments.precision_b or arguments.precision)
    one, other = (
        Predictor.load(path, precision, n_threads=n_threads)
        for path, precision in zip((first, second), wanted, strict=True)
    )
    _check_alike(one.bundle, other.bundle, first, second)
    kind, files = KINDS[one.bundle.kind], paths.task(one.bundle.task)
    entries = read_manifest(files.manifest)
    said = []
    for each, predictor in (("A", one), ("B", other)):
        test = test_split(kind, predictor.bundle, entries, files)
        asked = {predictor.precision: predictor}
        said.append(answered(asked, test, files.raw_dir, doing=f"testing {each}"))
    draws = draw([entry.group for entry in said[0].entries], _RESAMPLES, _SEED)
    gains = kind.gains(said[0], said[1], draws)
    sides = (f"{shown(str(first))} ({one.precision})", f"{shown(str(second))} ({other.precision})")
    n_images = len(said[0].entries)
    if arguments.as_json:
        document = {
            "a": {"path": str(first), "precision": one.precision},
            "b": {"path": str(second), "precision": other.precision},
            "metrics": {
                name: {"a": of.one, "b": of.other, "b_minus_a": of.gain.model_dump()}
                for name, of in gains.items()
            },
            "n_images": n_images,
            "n_groups": draws.n_groups,
            "resamples": _RESAMPLES,
            "seed": _SEED,
        }
        return Answer(json.dumps(document, indent=2))
    rows = [
        (words_of(name, one.bundle.name_of), *_row(of.one, of.other, of.gain))
        for name, of in gains.items()
    ]
    lines = [
        *_about(sides, n_images, draws.n_groups),
        table(_HEADER, rows),
        "",
        *(
            _verdict(gains[name].gain, words_of(name), is_error=name in ERRORS)
            for name in SHOWN[one.bundle.kind].headline.values()
            if name in gains
        ),
    ]
    return Answer("\n".join(lines))


def _check_alike(one: Bundle, other: Bundle, first: Path, second: Path) -> None:
    """Nothing, if the two models answer the same question.

    Raises:
        ConfigError: names the first thing that differs.
    """
    for what in ("task", "kind", "labels"):
        left, right = getattr(one, what), getattr(other, what)
        if left != right:
            raise ConfigError(
                f"{shown(str(second))}: {what} is {right!r}, but {left!r} in {shown(str(first))}. "
                f"A comparison needs two models of one task."
            )


def _about(sides: Sequence[str], n_images: int, n_groups: int) -> list[str]:
    return [
        f"A  {sides[0]}",
        f"B  {sides[1]}",
        f"{n_images:,} images of {n_groups:,} groups, the same in both; intervals are 95 %, "
        f"paired, by group.",
        "",
    ]


# -- in short -------------------------------------------------------------------------------------
def _row(a: float, b: float, gain: Interval) -> tuple[str, ...]:
    return f"{a:.3f}", f"{b:.3f}", f"{gain.value:+.3f}", f"{gain.low:+.3f} to {gain.high:+.3f}"


def _verdict(gain: Interval | None, what: str, *, is_error: bool = False) -> str:
    if gain is None:
        return f"{what} is not defined."
    if gain.low > 0 or gain.high < 0:
        better = "B" if (gain.value > 0) != is_error else "A"
        return f"{better} is better in {what}: the interval of the difference leaves 0 out."
    return f"No difference in {what} is shown: its interval holds 0."


def _as_text(one: _Side, other: _Side, found: Comparison) -> str:
    rows = []
    for name, words in (("accuracy", "accuracy"), ("macro_f1", "macro-F1")):
        a, b, gain = found.a[name], found.b[name], found.gain[name]
        if a is not None and b is not None and gain is not None:
            rows.append((words, *_row(a.value, b.value, gain)))
    lines = [
        *_about(
            [f"{shown(str(each.path))} ({each.precision})" for each in (one, other)],
            found.n_images,
            found.n_groups,
        ),
        table(_HEADER, rows),
        "",
        _verdict(found.gain["accuracy"], "accuracy"),
        _verdict(found.gain["macro_f1"], "macro-F1"),
        f"Right in both {found.n_both_right:,}, only in A {found.n_only_a:,}, only in B "
        f"{found.n_only_b:,}, in neither {found.n_both_wrong:,}; McNemar's exact test: "
        f"p = {found.p_value:.3g} (takes images as independent).",
        "",
        f"{len(found.changed):,} answer(s) changed" + (":" if found.changed else "."),
    ]
    if found.changed:
        asked = one.rows
        changed = [
            (shown(asked.paths[at]), asked.true[at], one.answers[at], other.answers[at])
            for at in found.changed[:_LISTED]
        ]
        lines.append(table(("IMAGE", "TRUE", "A", "B"), changed))
    if len(found.changed) > _LISTED:
        lines.append(f"and {len(found.changed) - _LISTED} more (--json lists all)")
    return "\n".join(lines)


def _as_json(one: _Side, other: _Side, found: Comparison) -> str:
    def plain(intervals: dict[str, Interval | None]) -> dict[str, object]:
        return {key: each and each.model_dump() for key, each in intervals.items()}

    document = {
        "a": {"path": str(one.path), "precision": one.precision, **plain(found.a)},
        "b": {"path": str(other.path), "precision": other.precision, **plain(found.b)},
        "b_minus_a": plain(found.gain),
        "agreement": found.agreement and found.agreement.model_dump(),
        "n_images": found.n_images,
        "n_groups": found.n_groups,
        "n_both_right": found.n_both_right,
        "n_only_a_right": found.n_only_a,
        "n_only_b_right": found.n_only_b,
        "n_both_wrong": found.n_both_wrong,
        "mcnemar_p": found.p_value,
        "resamples": _RESAMPLES,
        "seed": _SEED,
        "changed": [
            {
                "path": one.rows.paths[index],
                "group": one.rows.groups[index],
                "label": one.rows.true[index],
                "a": one.answers[index],
                "b": other.answers[index],
            }
            for index in found.changed
        ],
    }
    return json.dumps(document, indent=2)
