"""What a teacher of vectors is worth to a student of faces, beside the same student without one.

The teacher is the trunk of a net that was trained on faces of others (`mobilenet_v1_faces`, 1,024
numbers). The student is MobileNetV2 of ImageNet's weights. Two students of a pair differ in nothing
but the loss. Beside them stand the teacher itself, and what `params.yaml` asks for. Each answers
all of val and test, plain views in float32; differences are taken on the same pairs, with intervals
by person.

Needs the prepared task and the weights (`make real`, `fieldlens weights fetch mobilenet_v1_faces`):

    python benchmarks/face_teacher.py --root .real
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from report import header, make_parser, run, say, table

from pipelines.data.manifest import Split, in_split
from pipelines.kinds.embedding.truth import known_of
from pipelines.metrics.intervals import DIFFERENCE, by_mean, draw
from pipelines.metrics.retrieval import (
    Pairs,
    drop_interval,
    equal_error_rates,
    map_at_r,
    pairs_of,
    rate_interval,
    recall_at,
    resampled_rates,
    unit,
)
from pipelines.paths import Paths
from pipelines.serving.embedding import distances

if TYPE_CHECKING:
    from timed_fit import Setting

    from pipelines.metrics.intervals import Draws
    from pipelines.serving.trust import Interval

_TEACHER = "mobilenet_v1_faces"
_SPLITS: tuple[Split, ...] = ("val", "test")
_RESAMPLES = 2000
_SEED = 20261128
#: The student's own settings, whatever the task's model is.
_STUDENT = {"backbone": "mobilenet_v2", "image_px": 160}
_SLOW = {"epochs": 6, "learning_rate": 1e-4}
_NO_TAIL, _TAIL = {"epochs": 0}, {"epochs": 12, "learning_rate": 1e-3}


def main() -> int:
    """Parse, train, print."""
    parser = make_parser(__doc__, has_root=True)
    parser.add_argument("--task", default="faces")
    parser.add_argument("--temperature", type=float, default=4.0, help="(4)")
    parser.add_argument("--threads", type=int, default=1, help="of torch (1)")
    return run(compare, parser)


def ways(temperature: float) -> dict[str, Mapping[str, Any]]:
    """By title: changes of the task's ``train`` section; a pair with and without a teacher each."""
    by_teacher = {
        "distill": {"teacher": _TEACHER, "temperature": temperature, "weight": 1.0},
    }
    half = {"distill": by_teacher["distill"] | {"weight": 0.5}}
    head = _STUDENT | {"head_phase": _SLOW, "tail_phase": _NO_TAIL}
    tail = _STUDENT | {"head_phase": _SLOW, "tail_phase": _TAIL}
    return {
        "student, head": head,
        "student, head, teacher 0.5": head | half,
        "student, head, teacher 1": head | by_teacher,
        "student, tail": tail,
        "student, tail, teacher 1": tail | by_teacher,
    }


@dataclass(frozen=True, slots=True)
class Found:
    """What one way of making vectors says of a split.

    Attributes:
        hits: by metric, (n,) of each picture.
        pairs: all of the split.
    """

    hits: dict[str, NDArray[np.float64]]
    pairs: Pairs

    @classmethod
    def of(cls, vectors: NDArray[np.float32], setting: Setting, split: Split) -> Found:
        """Of (n, d), of any length each."""
        known = known_of(in_split(setting.data.entries, split))
        distance = distances(unit(vectors), unit(vectors))
        hits = {
            "recall_at_1": recall_at(distance, known, 1),
            "recall_at_5": recall_at(distance, known, 5),
            "map_at_r": map_at_r(distance, known),
        }
        return cls(hits, pairs_of(distance, known))

    def cells(self) -> list[str]:
        """The metrics, as they are shown."""
        rate = float(equal_error_rates(self.pairs)[0][0])
        return [*(f"{np.nanmean(hits):.3f}" for hits in self.hits.values()), f"{rate:.4f}"]


def compare(arguments: argparse.Namespace) -> None:
    """Print a row a training, the differences, and what stands behind the test's figures."""
    # Not before the environment is set: OpenMP reads it when torch is loaded.
    from timed_fit import read_setting

    from pipelines.training.runtime import this_process

    paths = Paths(arguments.root.resolve())
    setting = read_setting(paths, arguments.task, this_process(arguments.threads))
    header(f"A teacher of vectors for `{arguments.task}`")
    found = {"the teacher": _of_teacher(setting)}
    found["params.yaml"] = _of_training(setting, {})
    for name, changes in ways(arguments.temperature).items():
        found[name] = _of_training(setting, changes)
    head = ["recall@1", "recall@5", "MAP@R", "EER"]
    for split in _SPLITS:
        say(f"On {split}:", "")
        table(["vectors", *head], [[name, *each[split].cells()] for name, each in found.items()])
    test = in_split(setting.data.entries, "test")
    draws = draw([entry.group for entry in test], _RESAMPLES, _SEED)
    rates = {n: resampled_rates(draws, each["test"].pairs, 0.0).eer for n, each in found.items()}
    say("EER of the test split, 95 % by person:", "")
    shown = {name: rate_interval(draws, values) for name, values in rates.items()}
    table(["vectors", "EER"], [[name, _shown(each, "")] for name, each in shown.items()])
    rows = []
    for name in found:
        alone, has_teacher, _ = name.rpartition(", teacher")
        if has_teacher:
            gain = drop_interval(draws, rates[alone], rates[name])
            rows.append([name, _shown(gain), _shown(_gain(draws, found[name], found[alone]))])
    table(["beside the same without a teacher", "EER less by", "MAP@R more by"], rows)


def _gain(draws: Draws, one: dict[Split, Found], other: dict[Split, Found]) -> Interval | None:
    hits = [each["test"].hits["map_at_r"] for each in (one, other)]
    return by_mean(draws, hits[0] - hits[1], DIFFERENCE)


def _shown(interval: Interval | None, sign: str = "+") -> str:
    if interval is None:
        return "-"
    value, low, high = (f"{x:{sign}.4f}" for x in (interval.value, interval.low, interval.high))
    return f"{value} ({low} to {high})"


def _of_training(setting: Setting, changes: Mapping[str, Any]) -> dict[Split, Found]:
    from pipelines.config.train import TrainParams
    from pipelines.strict_yaml import overlay
    from pipelines.training import job as jobs
    from pipelines.training.full import outputs_of

    own = setting.job.params.model_dump(mode="json")
    params = TrainParams.model_validate(overlay(own, changes))
    job = jobs.Job(setting.job.task, setting.job.domain, params, setting.job.seed)
    done = jobs.train(job, setting.data, None, paths=setting.paths, runtime=setting.runtime)
    mean, std = done.meta.mean, done.meta.std

    def vectors(split: Split) -> NDArray[np.float32]:
        import torch

        with torch.inference_mode():
            answers = outputs_of(
                done.model,
                setting.data.split(split, job),
                lambda pixels: jobs.normalise(pixels, mean, std),
            )
        found: NDArray[np.float32] = answers.numpy()
        return found

    return {split: Found.of(vectors(split), setting, split) for split in _SPLITS}


def _of_teacher(setting: Setting) -> dict[Split, Found]:
    from pipelines.training.job import normalise
    from pipelines.training.teachers import read_vector_teachers, taught_by_vectors

    params = setting.job.params.model_validate(
        setting.job.params.model_dump(mode="json")
        | {"distill": {"teacher": _TEACHER, "temperature": 1.0, "weight": 1.0}}
    )
    made, paths = setting.data.summary, setting.paths
    teachers = read_vector_teachers(params, made.kind, made.reading, "", paths, paths.root)
    found: dict[Split, Found] = {}
    for split in _SPLITS:
        images = setting.data.split(split, setting.job)
        soft = taught_by_vectors(images, teachers, paths.teachers_dir, normalise).soft_targets
        assert soft is not None
        found[split] = Found.of(soft.numpy(), setting, split)
    return found


if __name__ == "__main__":
    sys.exit(main())
