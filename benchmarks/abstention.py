"""How well out-of-distribution pictures are told: the served score, its parts, and two rivals.

For each task the pictures of all other tasks are out of distribution, and so are blank, noisy and
written ones that are made here. Scores are fitted on train, thresholds on val; the released ones
are those of the bundle, which are others where a network was refitted (ADR 0019). ADR 0013 compared
nine published scores; two of the best are measured here again. The last table shows true pictures
as another camera would have taken them: a score that looks at the grain of pictures refuses those
too. Needs candidates (`make real`, and --root .real):

    python benchmarks/abstention.py --root .real
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont
from report import header, make_parser, run, say, table, tasks_with

from pipelines.backbones.spec import backbone
from pipelines.data.images import open_image
from pipelines.data.loaders import Pictures, stratified_sample
from pipelines.data.manifest import Entry, Split, class_index_of, in_split, read_manifest
from pipelines.data.preprocess import Preprocess
from pipelines.errors import MissingDataError
from pipelines.export.latency import paired_ms
from pipelines.metrics.abstention import MAX_DIRECTIONS, accepting_threshold, fit_abstention
from pipelines.paths import Paths, TaskPaths
from pipelines.serving.out_of_distribution import OutOfDistribution, residuals, standard_scores
from pipelines.serving.predictor import Predictor
from pipelines.validation.behaviour import changes

Floats = NDArray[np.float64]

_BATCH = 16
_ACCEPTANCE = 0.95
#: As many as `export` takes.
_MAX_KNOWN = 2000
#: More would not fit into a bundle.
_DIRECTIONS = (16, 32, MAX_DIRECTIONS, 96)
_SEED = 20261122
#: Test pictures of a task that are shown as another camera would have taken them.
_MAX_CHANGED = 120


@dataclass(frozen=True, slots=True)
class Features:
    """What a model gives for some pictures: (n, d) embeddings of both levels, (n, c) logits."""

    embedding: Floats
    logits: Floats

    def head(self, n_head: int) -> Floats:
        """The head's level of the embeddings, on which published scores are defined."""
        return self.embedding[:, :n_head]


#: A fitted score: features of n pictures -> (n,).
Score = Callable[[Features], Floats]
#: Of the embedding, in order.
LEVELS = ("head", "inner")
#: The score of the bundle, with its threshold.
RELEASED = "as released"


@dataclass(frozen=True, slots=True)
class TaskFeatures:
    """One task: the width of the embedding's first level, and features of pictures by kind.

    ``ood``: out-of-distribution pictures by split, and by the task that they belong to.
    """

    n_head: int
    own: dict[str, Features]
    class_index: NDArray[np.int64]
    ood: dict[str, dict[str, Features]]
    changed: dict[str, Features]
    synthetic: dict[str, Features]
    released: OutOfDistribution

    def bound(self, name: str, score: Score) -> float:
        """The threshold of a score of `scores_of`."""
        if name == RELEASED:
            return self.released.abstention.threshold
        return accepting_threshold(score(self.own["val"]), _ACCEPTANCE)


def main() -> int:
    """Parse, compare, print."""
    parser = make_parser(__doc__, has_root=True)
    parser.add_argument("--task", nargs="+", help="two or more; all that have a model by default")
    return run(compare, parser)


def compare(arguments: argparse.Namespace) -> None:
    """Print a table a measure, with a row a score and a column a task."""
    paths = Paths(arguments.root)
    tasks = tasks_with(paths, "candidate.json", arguments.task, at_least=2)
    header("Which score tells out-of-distribution pictures")
    rows: dict[str, dict[str, list[float]]] = {}
    synthetic: dict[str, list[str]] = {}
    changed: dict[str, list[str]] = {}
    pairs: dict[str, list[str]] = {}
    price = ""
    for task in tasks:
        seen = task_features(paths, tasks, task)
        price = price or cost(seen)
        for name, score in scores_of(seen).items():
            bound = seen.bound(name, score)
            for measure, value in measures(score, seen, bound).items():
                rows.setdefault(measure, {}).setdefault(name, []).append(value)
            if name == RELEASED:
                synthetic[task] = accepted_by_kind(score, seen, bound)
                pairs[task] = accepted_by_task(score, seen, bound, tasks)
            if name in {RELEASED, *map(level_name, LEVELS)}:
                changed[f"{task}, {name}"] = refused_when_changed(score, seen, bound)
    for measure, found in rows.items():
        say(f"{measure}:", "")
        table(
            ["score", *tasks, "mean"],
            [
                [name, *(f"{value:.4f}" for value in values), f"{statistics.mean(values):.4f}"]
                for name, values in found.items()
            ],
        )
    say(f"Share of each task's test pictures that a row's model accepts, {RELEASED}:", "")
    table(["model", *tasks], [[task, *cells] for task, cells in pairs.items()])
    say(f"Synthetic pictures that are accepted, {RELEASED}:", "")
    table(["task", *kinds()], [[task, *cells] for task, cells in synthetic.items()])
    say("Share of true test pictures refused, as another camera would have taken them:", "")
    table(["task and score", *CAMERAS], [[name, *cells] for name, cells in changed.items()])
    say(price, "")


def task_features(paths: Paths, tasks: Sequence[str], task: str) -> TaskFeatures:
    """Everything through the served file of one task."""
    files = paths.task(task)
    predictor = Predictor.load(files.candidate, n_threads=os.cpu_count() or 1)
    if predictor.out_of_distribution is None:
        raise MissingDataError(
            f"{files.candidate}: expected a bundle that abstains. Make it with `dvc repro`."
        )
    preprocess = predictor.bundle.preprocess.build()
    entries = read_manifest(files.manifest)
    train = stratified_sample(in_split(entries, "train"), _MAX_KNOWN, _SEED)
    own = {"train": features(predictor, pictures(files, train, preprocess))}
    ood = {}
    for split in ("val", "test"):
        parts = {other: split_pixels(paths.task(other), split, preprocess) for other in tasks}
        own[split] = features(predictor, parts.pop(task))
        ood[split] = {other: features(predictor, pixels) for other, pixels in parts.items()}
    test = in_split(entries, "test")
    pictures_of = [
        open_image(files.raw_dir / entry.path, reading=preprocess.reading).rgb
        for entry in test[:: max(1, len(test) // _MAX_CHANGED)]
    ]
    changed = {
        name: features(predictor, np.stack([preprocess(take(image)) for image in pictures_of]))
        for name, take in CAMERAS.items()
    }
    synthetic = {
        kind: features(predictor, np.stack([preprocess(image) for image in images]))
        for kind, images in kinds().items()
    }
    made_of = predictor.bundle.provenance
    n_head = backbone(made_of.backbone, made_of.width).n_features
    return TaskFeatures(
        n_head,
        own,
        class_index_of(train, predictor.bundle.labels),
        ood,
        changed,
        synthetic,
        predictor.out_of_distribution,
    )


def pictures(
    files: TaskPaths, entries: Sequence[Entry], preprocess: Preprocess
) -> NDArray[np.uint8]:
    """Plain views, (n, h, w, 3)."""
    return np.concatenate(
        list(Pictures(files.raw_dir, entries, preprocess, None, _SEED).batches(_BATCH))
    )


@cache
def split_pixels(files: TaskPaths, split: Split, preprocess: Preprocess) -> NDArray[np.uint8]:
    """Plain views of a split, decoded once for all models that look at it in the same way."""
    return pictures(files, in_split(read_manifest(files.manifest), split), preprocess)


def features(predictor: Predictor, pixels: NDArray[np.uint8]) -> Features:
    """What the served file gives."""
    parts = [predictor.run(pixels[at : at + _BATCH]) for at in range(0, len(pixels), _BATCH)]
    logits, embedding = (
        np.concatenate(column).astype(np.float64) for column in zip(*parts, strict=True)
    )
    return Features(embedding, logits)


def level_name(level: str) -> str:
    """How the served score of one level alone is called in the tables."""
    return f"rooted residual, {level} alone"


def served_name(n_directions: int) -> str:
    """How the served score with so many directions is called in the tables."""
    return f"rooted_residuals, {n_directions}"


def scores_of(seen: TaskFeatures) -> dict[str, Score]:
    """Every score, fitted on train; the served one as the bundle has it, rounded and packed."""
    train = seen.own["train"]
    n_head, d = seen.n_head, train.embedding.shape[1]
    scores = published(train.head(n_head), seen.class_index)
    for name, level in zip(LEVELS, (slice(0, n_head), slice(n_head, d)), strict=True):
        scores[level_name(name)] = partial(_of_level, novelty(seen, level), level)
    both = slice(0, d)
    scores["rooted residuals, summed"] = partial(_sum, novelty(seen, both, (n_head, d - n_head)))
    for n_directions in _DIRECTIONS:
        fitted = novelty(seen, both, (n_head, d - n_head), n_directions)
        scores[served_name(n_directions)] = partial(_of_level, fitted, both)
    scores[RELEASED] = partial(_of_level, seen.released, both)
    return scores


def novelty(
    seen: TaskFeatures, level: slice, widths: Sequence[int] = (), n_directions: int = MAX_DIRECTIONS
) -> OutOfDistribution:
    """The served score, fitted to some columns of the embedding."""
    known, val = (seen.own[split].embedding[:, level] for split in ("train", "val"))
    abstention = fit_abstention(known, val, _ACCEPTANCE, n_directions, widths=widths)
    return OutOfDistribution.load(abstention, known.shape[1])


def published(known: Floats, class_index: NDArray[np.int64]) -> dict[str, Score]:
    """Two of the best published scores (ADR 0013), on the head's level, at length 1.

    References:
        Sun et al. 2022, "Out-of-distribution detection with deep nearest neighbors"; Müller and
        Hein 2025, "Mahalanobis++: improving OOD detection via feature normalization", with the
        covariance shrunk (Ledoit and Wolf 2004), since there are fewer images than features.
    """
    from sklearn.covariance import LedoitWolf
    from sklearn.neighbors import NearestNeighbors
    from sklearn.preprocessing import normalize

    bank, n_head = normalize(known), known.shape[1]
    classes, place = np.unique(class_index, return_inverse=True)
    means = np.stack([bank[place == index].mean(axis=0) for index in range(len(classes))])
    tied = LedoitWolf(assume_centered=True).fit(bank - means[place])
    # Sun et al. take the 50th of 50,000; here a few hundred are known.
    near = NearestNeighbors(n_neighbors=min(5, len(bank))).fit(bank)

    def neighbours(found: Features) -> Floats:
        distances: Floats = near.kneighbors(normalize(found.head(n_head)))[0][:, -1]
        return distances

    def mahalanobis(found: Features) -> Floats:
        x = normalize(found.head(n_head))
        nearest: Floats = np.min([tied.mahalanobis(x - mean) for mean in means], axis=0)
        return nearest

    return {"nearest_neighbours": neighbours, "normalised_mahalanobis": mahalanobis}


def _sum(fitted: OutOfDistribution, found: Features) -> Floats:
    total: Floats = standard_scores(residuals(found.embedding, fitted.arrays), fitted.arrays).sum(
        axis=1
    )
    return total


def _of_level(fitted: OutOfDistribution, level: slice, found: Features) -> Floats:
    return fitted.judge(found.embedding[:, level])[0]


def measures(score: Score, seen: TaskFeatures, bound: float) -> dict[str, float]:
    """What a score is worth on one task."""
    from sklearn.metrics import roc_auc_score

    own = {split: score(seen.own[split]) for split in ("val", "test")}
    ood = {
        split: np.concatenate([score(found) for found in seen.ood[split].values()])
        for split in ("val", "test")
    }

    def area(split: str) -> float:
        truth = np.repeat([0, 1], [len(own[split]), len(ood[split])])
        return float(roc_auc_score(truth, np.concatenate([own[split], ood[split]])))

    synthetic = np.concatenate([score(found) for found in seen.synthetic.values()])
    return {
        "AUROC on val": area("val"),
        "AUROC on test": area("test"),
        "share of true test images refused": float((own["test"] > bound).mean()),
        "share of out-of-distribution test images accepted": float((ood["test"] <= bound).mean()),
        "share of synthetic pictures accepted": float((synthetic <= bound).mean()),
    }


def accepted_by_task(
    score: Score, seen: TaskFeatures, bound: float, tasks: Sequence[str]
) -> list[str]:
    """Cells of the table of test pictures; of the model's own task too."""
    found = {task: seen.ood["test"].get(task, seen.own["test"]) for task in tasks}
    return [f"{float((score(found[task]) <= bound).mean()):.3f}" for task in tasks]


def accepted_by_kind(score: Score, seen: TaskFeatures, bound: float) -> list[str]:
    """Cells of the table of synthetic pictures."""
    return [
        f"{int((score(found) <= bound).sum())} of {len(found.logits)}"
        for found in seen.synthetic.values()
    ]


def refused_when_changed(score: Score, seen: TaskFeatures, bound: float) -> list[str]:
    """Cells of the table of true pictures as another camera or messenger would have given them."""
    return [f"{float((score(found) > bound).mean()):.3f}" for found in seen.changed.values()]


def cost(seen: TaskFeatures) -> str:
    """What the served score costs for one picture, in words."""
    d = seen.own["val"].embedding.shape[1]
    fitted = novelty(seen, slice(0, d), (seen.n_head, d - seen.n_head))
    one = seen.own["val"].embedding[:1].astype(np.float32)
    ms = paired_ms({"judge": partial(fitted.judge, one)}, 1000)["judge"]
    size = sum(len(array.data) for array in fitted.abstention.arrays.values())
    bases = [str(array.shape) for name, array in fitted.arrays.items() if "basis" in name]
    return (
        f"Cost of the served score, one picture, directions {' and '.join(bases)}: median "
        f"{statistics.median(ms):.3f} ms, 95th percentile {np.quantile(ms, 0.95):.3f} ms; {size:,} "
        f"bytes in the bundle."
    )


def _resized(image: Image.Image, factor: float) -> Image.Image:
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return image.resize(size, Image.Resampling.BILINEAR)


def _middle(image: Image.Image, share: float) -> Image.Image:
    left, top = (round(side * (1 - share) / 2) for side in image.size)
    return image.crop((left, top, image.width - left, image.height - top))


def _grainy(image: Image.Image) -> Image.Image:
    values = np.asarray(image, dtype=np.float64)
    return _picture(values + np.random.default_rng(_SEED).normal(0, 5, values.shape))


#: What another camera, or a messenger on the way, makes of a picture, by name.
CAMERAS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "as it is": lambda image: image,
    **{one.name: one.apply for one in changes(with_flip=False) if one.name == "JPEG quality 50"},
    "a quarter brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.25),
    "half the resolution": lambda image: _resized(_resized(image, 0.5), 2),
    "blur of 1 px": lambda image: image.filter(ImageFilter.GaussianBlur(1)),
    "noise of 5 of 255": _grainy,
    "nearer by 15 %": lambda image: _middle(image, 0.85),
}


@cache
def kinds() -> dict[str, list[Image.Image]]:
    """Synthetic pictures that are none of any task's, by kind."""
    rng = np.random.default_rng(_SEED)
    colours = [(g, g, g) for g in (0, 64, 128, 192, 255)] + [
        (200, 30, 30),
        (30, 60, 200),
        (240, 220, 180),
    ]
    ramp = np.linspace(0, 255, 300)[:, np.newaxis, np.newaxis] * np.ones((1, 400, 1))
    return {
        "blank": [Image.new("RGB", (400, 300), colour) for colour in colours],
        "gradient": [_picture(ramp * rng.uniform(0.3, 1, 3)) for _ in range(4)],
        "noise": [
            _picture(128 + rng.normal(0, sigma, (300, 400, 3)))
            for sigma in (10, 40, 80, 200)
            for _ in range(4)
        ],
        "text": [_text(rng, number) for number in range(20)],
    }


def _picture(values: NDArray[np.float64]) -> Image.Image:
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


def _text(rng: np.random.Generator, number: int) -> Image.Image:
    """Like a screenshot: lines of words, dark on light or light on dark, some with a bar."""
    words = "the report of total amount due number and account settings password field steel"
    is_dark = number % 3 == 0
    width, height = [(360, 640), (800, 600), (1280, 720), (600, 800)][number % 4]
    image = Image.new("RGB", (width, height), (20, 22, 28) if is_dark else (250, 250, 248))
    draw = ImageDraw.Draw(image)
    size = int(rng.integers(12, 28))
    for y in range(60, height - 20, int(size * 1.5)):
        line = " ".join(rng.choice(words.split(), int(rng.integers(3, 12))))
        ink = (220, 220, 220) if is_dark else (20, 20, 20)
        draw.text((12, y), line, fill=ink, font=ImageFont.load_default(size=size))
    if number % 2:
        draw.rectangle((0, 0, width, 40), fill=(30, 90, 200))
    return image


if __name__ == "__main__":
    sys.exit(main())
