"""`fieldlens compare A B`: is one set of answers better than another, or is it luck?

Reads two predictions.csv of the same test images; runs no model.
"""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.columns import shown, table
from pipelines.commands.answer import Answer
from pipelines.errors import ConfigError, DataError, MissingDataError
from pipelines.metrics.predictions import Comparison, Predictions, compare, parse_predictions
from pipelines.paths import Paths
from pipelines.serving.sessions import Precision
from pipelines.serving.trust import Interval

_FILE = "predictions.csv"
#: Of the intervals; a comparison is no result of the pipeline, so these are not in params.yaml.
_RESAMPLES, _SEED = 5000, 42
#: Images that are listed; --json lists all.
_LISTED = 20
#: Images that an error names.
_NAMED = 3


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
            name, metavar=name.upper(), help="a predictions.csv, a folder with one, or a task"
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
    one = _side(paths, arguments.a, arguments.precision)
    other = _align(_side(paths, arguments.b, arguments.precision_b or arguments.precision), one)
    rows = one.rows
    found = compare(
        rows.groups, rows.true, one.answers, other.answers, resamples=_RESAMPLES, seed=_SEED
    )
    form = _as_json if arguments.as_json else _as_text
    return Answer(form(one, other, found))


def _side(paths: Paths, name: str, precision: Precision | None) -> _Side:
    path = Path(name)
    if path.is_dir():
        path = path / _FILE
    elif not path.exists() and paths.task(name).predictions.is_file():
        path = paths.task(name).predictions
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


def _verdict(gain: Interval | None, what: str) -> str:
    if gain is None:
        return f"{what} is not defined."
    if gain.low > 0 or gain.high < 0:
        better = "B" if gain.value > 0 else "A"
        return f"{better} is better in {what}: the interval of the difference leaves 0 out."
    return f"No difference in {what} is shown: its interval holds 0."


def _as_text(one: _Side, other: _Side, found: Comparison) -> str:
    rows = []
    for name, words in (("accuracy", "accuracy"), ("macro_f1", "macro-F1")):
        a, b, gain = found.a[name], found.b[name], found.gain[name]
        if a is not None and b is not None and gain is not None:
            interval = f"{gain.low:+.3f} to {gain.high:+.3f}"
            rows.append((words, f"{a.value:.3f}", f"{b.value:.3f}", f"{gain.value:+.3f}", interval))
    lines = [
        f"A  {shown(str(one.path))} ({one.precision})",
        f"B  {shown(str(other.path))} ({other.precision})",
        f"{found.n_images:,} images of {found.n_groups:,} groups, the same in both; intervals are "
        f"95 %, paired, by group.",
        "",
        table(("METRIC", "A", "B", "B - A", "INTERVAL"), rows),
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
