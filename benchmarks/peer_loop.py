"""The ordinary loop of `peer.py`: torchvision's heads and losses on one of our backbones."""

from __future__ import annotations

import itertools
import json
import logging
import math
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from pipelines.backbones.spec import Backbone, backbone, torchvision_models
from pipelines.backbones.weights import load_imagenet
from pipelines.config.params import load_params
from pipelines.data.workers import ordered_map
from pipelines.errors import ConfigError
from pipelines.kinds.detection.boxes import MAX_BOXES, real
from pipelines.kinds.embedding.truth import identity_of
from pipelines.kinds.evaluate import KINDS, Answers
from pipelines.kinds.segmentation.masks import STRIDE
from pipelines.metrics.intervals import draw
from pipelines.metrics.retrieval import unit
from pipelines.paths import Paths
from pipelines.serving.bundle import Bundle, read_bundle
from pipelines.serving.detection import BOXES_NAME
from pipelines.serving.embedding import VECTOR_NAME
from pipelines.serving.segmentation import MASK_NAME, THRESHOLD
from pipelines.training.batches import Split, chunks
from pipelines.training.job import Data, Job, normalise

_LOG = logging.getLogger(__name__)
_WARM_UP, _WEIGHT_DECAY, _MOST_NORM = 0.05, 1e-2, 5.0
#: Sides of the boxes of a level, as shares of the view's, and one more.
_SCALES = [0.04, 0.1, 0.2, 0.35, 0.55, 0.75, 0.95]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How long and how fast; s of the processor, and the highest learning rate."""

    train_s: float
    learning_rate: float
    batch_size: int
    seed: int


@dataclass(frozen=True, slots=True)
class Peer:
    """What came of it; figures with intervals, in words, by whose they are and metric."""

    kind: str
    n_train: int
    n_test: int
    n_groups: int
    n_epochs: int
    n_steps: int
    train_s: float
    figures: dict[str, dict[str, str]]


class Net(Protocol):
    """A network of one kind, as the loop takes it."""

    def loss(self, pixels: Tensor, truth: NDArray[Any], rows: NDArray[np.int64]) -> Tensor:
        """Of a batch, (): normalised pixels, (n, 3, h, w), its truth in view, rows of the split."""

    def answers(self, pixels: Tensor) -> dict[str, NDArray[np.float32]]:
        """What an exported model of this kind gives of a batch."""


class Taps(nn.Module):
    """A backbone with its batch norms, as maps by name."""

    def __init__(self, network: Backbone, tensors: dict[str, Tensor], taps: dict[str, int]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(network.build())
        self.blocks.load_state_dict(tensors)
        self.taps = taps

    def forward(self, pixels: Tensor) -> OrderedDict[str, Tensor]:
        """By name, (n, c, h, w)."""
        # torchvision's detectors put a batch together anew, and a processor is quicker so.
        maps, found = pixels.contiguous(memory_format=torch.channels_last), {}
        for index, block in enumerate(self.blocks):
            maps = block(maps)
            found[index] = maps
        return OrderedDict((name, found[block]) for name, block in self.taps.items())


class MaskNet(nn.Module):
    """torchvision's LR-ASPP, one sigmoid a label."""

    def __init__(self, network: Backbone, tensors: dict[str, Tensor], n_labels: int) -> None:
        super().__init__()
        from torchvision.models.segmentation.lraspp import LRASPP

        low, last = network.taps[8], len(network.build()) - 1
        taps = Taps(network, tensors, {"low": low.block, "high": last})
        self.net = LRASPP(taps, low.channels, network.n_features, n_labels)

    def loss(self, pixels: Tensor, truth: NDArray[Any], rows: NDArray[np.int64]) -> Tensor:
        """Binary cross-entropy of each px."""
        shares = torch.from_numpy(truth).float()
        targets = functional.interpolate(shares, scale_factor=STRIDE, mode="nearest")
        logits = self.net(pixels)["out"]
        return functional.binary_cross_entropy_with_logits(logits, targets)

    def answers(self, pixels: Tensor) -> dict[str, NDArray[np.float32]]:
        """Probabilities, (n, n_labels, h, w)."""
        return {MASK_NAME: torch.sigmoid(self.net(pixels)["out"]).numpy()}


class BoxFeatures(nn.Module):
    """Maps of strides 8, 16 and 32, and torchvision's extra blocks behind them."""

    def __init__(self, network: Backbone, tensors: dict[str, Tensor]) -> None:
        super().__init__()
        from torchvision.models.detection.ssdlite import _extra_block, _normal_init

        last = len(network.build()) - 1
        named = {"0": network.taps[8].block, "1": network.taps[16].block, "2": last}
        self.taps = Taps(network, tensors, named)
        widths = [network.n_features, 512, 256, 256]
        pairs = itertools.pairwise(widths)
        self.extra = nn.ModuleList(_extra_block(a, b, nn.BatchNorm2d) for a, b in pairs)
        _normal_init(self.extra)
        self.out_channels = [network.taps[8].channels, network.taps[16].channels, *widths]

    def forward(self, pixels: Tensor) -> OrderedDict[str, Tensor]:
        """By number, (n, c, h, w), from the finest."""
        maps: OrderedDict[str, Tensor] = self.taps(pixels)
        last = maps["2"]
        for number, block in enumerate(self.extra, 3):
            last = maps[str(number)] = block(last)
        return maps


class BoxNet(nn.Module):
    """torchvision's SSD with its SSDLite head: matching at 0.5, hard negatives, smooth L1."""

    def __init__(
        self, network: Backbone, tensors: dict[str, Tensor], n_labels: int, side_px: int
    ) -> None:
        super().__init__()
        from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
        from torchvision.models.detection.ssd import SSD
        from torchvision.models.detection.ssdlite import SSDLiteHead

        features = BoxFeatures(network, tensors)
        places = DefaultBoxGenerator([[2, 3]] * len(features.out_channels), scales=_SCALES)
        n_shapes = places.num_anchors_per_location()
        head = SSDLiteHead(features.out_channels, n_shapes, n_labels + 1, nn.BatchNorm2d)
        # As SSDLite320; pixels come normalised.
        self.net = SSD(
            features,
            places,
            (side_px, side_px),
            n_labels + 1,
            image_mean=[0.0] * 3,
            image_std=[1.0] * 3,
            head=head,
            score_thresh=0.02,
            nms_thresh=0.5,
            detections_per_img=100,
            topk_candidates=200,
        )
        self.side_px = side_px

    def loss(self, pixels: Tensor, truth: NDArray[Any], rows: NDArray[np.int64]) -> Tensor:
        """Both of SSD's."""
        targets = []
        for one in truth:
            known = torch.from_numpy(real(one))
            boxes, labels = known[:, :4] * self.side_px, known[:, 4].long() + 1
            targets.append({"boxes": boxes.reshape(-1, 4), "labels": labels})
        return torch.stack(list(self.net(list(pixels), targets).values())).sum()

    def answers(self, pixels: Tensor) -> dict[str, NDArray[np.float32]]:
        """Boxes, (n, MAX_BOXES, 6)."""
        found = np.zeros((len(pixels), MAX_BOXES, 6), np.float32)
        for rows, told in zip(found, self.net(list(pixels)), strict=True):
            n = len(told["scores"])
            rows[:n, :4] = told["boxes"].numpy() / self.side_px
            rows[:n, 4], rows[:n, 5] = told["scores"].numpy(), told["labels"].numpy() - 1
        return {BOXES_NAME: found}


class IdentityNet(nn.Module):
    """A classifier of the train split's identities; what it is asked for is what it pools."""

    def __init__(
        self, network: Backbone, tensors: dict[str, Tensor], identities: NDArray[np.int64]
    ) -> None:
        super().__init__()
        self.taps = Taps(network, tensors, {"last": len(network.build()) - 1})
        self.identities = torch.from_numpy(identities)
        self.head = nn.Sequential(
            nn.Dropout(0.2), nn.Linear(network.n_features, int(identities.max()) + 1)
        )

    def embedding(self, pixels: Tensor) -> Tensor:
        """(n, n_features)."""
        pooled: Tensor = self.taps(pixels)["last"].mean(dim=(2, 3))
        return pooled

    def loss(self, pixels: Tensor, truth: NDArray[Any], rows: NDArray[np.int64]) -> Tensor:
        """Cross-entropy of the identities."""
        return functional.cross_entropy(self.head(self.embedding(pixels)), self.identities[rows])

    def answers(self, pixels: Tensor) -> dict[str, NDArray[np.float32]]:
        """Vectors of length 1, (n, n_features)."""
        return {VECTOR_NAME: unit(self.embedding(pixels).numpy())}


def measured_peer(paths: Paths, task: str, recipe: Recipe) -> Peer:
    """Train, answer the test split, and measure as `evaluate` does.

    Raises:
        ConfigError: if the task is a classification.
    """
    params, files = load_params(paths.params), paths.task(task)
    job, data = Job.of(params, task), Data.read(files)
    if data.summary.kind == "classification":
        raise ConfigError(f"{task}: is a classification; see benchmarks/training.py.")
    train, test = data.split("train", job), data.split("test", job)
    net = _net(data.summary.kind, job, data, train, paths, recipe.seed)
    began = time.process_time()
    n_epochs, n_steps = _fit(net, train, job, recipe)
    train_s = time.process_time() - began
    outputs = _answers(net, test, job)
    given = json.loads(files.metrics.read_text(encoding="utf-8"))
    bundle = _as_ordinary(read_bundle(files.candidate))
    pictures = test.pictures
    places = [pictures.geometry(entry, [0])[0] for entry in pictures.entries]
    answers = Answers(
        bundle,
        pictures.entries,
        # The peer has one file.
        {"fp32": outputs, "int8": outputs},
        None,
        np.stack(places),
        files.raw_dir,
        train.pictures.entries,
    )
    asked = params.task(task).evaluate
    draws = draw([entry.group for entry in pictures.entries], asked.resamples, params.seed)
    found = KINDS[bundle.kind].certainty(answers, draws, asked).intervals["fp32"]
    ours, served = given["intervals"]["fp32"], given["intervals"][given["served"]]
    return Peer(
        bundle.kind,
        len(train.pictures.entries),
        len(pictures.entries),
        len({entry.group for entry in pictures.entries}),
        n_epochs,
        n_steps,
        train_s,
        {
            "ordinary fine-tuning, float": {
                name: _said(of.value, of.low, of.high) for name, of in found.items()
            },
            "ours, float": {name: _said(**of) for name, of in ours.items()},
            f"ours, {given['served']}, served": {name: _said(**of) for name, of in served.items()},
        },
    )


def _net(kind: str, job: Job, data: Data, train: Split, paths: Paths, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    torchvision_models()
    params, n_labels = job.params, len(data.summary.labels)
    network = backbone(params.backbone, params.width)
    tensors = dict(load_imagenet(params.backbone, paths.weights_dir, params.width).tensors)
    if kind == "segmentation":
        return MaskNet(network, tensors, n_labels)
    if kind == "detection":
        _give_suppression()
        return BoxNet(network, tensors, n_labels, params.image_px)
    names = [identity_of(entry.truth) for entry in train.pictures.entries]
    return IdentityNet(network, tensors, np.unique(names, return_inverse=True)[1])


def _give_suppression() -> None:
    """Greedy suppression as torchvision documents it, where its compiled half is missing."""
    import torchvision

    def nms(boxes: Tensor, scores: Tensor, most: float) -> Tensor:
        order, kept = scores.argsort(descending=True, stable=True), []
        shared = torchvision.ops.box_iou(boxes, boxes) > most
        while len(order):
            kept.append(int(order[0]))
            order = order[1:][~shared[kept[-1], order[1:]]]
        return torch.tensor(kept, dtype=torch.long)

    if not torchvision.extension._has_ops():
        torchvision.ops.boxes.nms = nms


def _fit(net: Any, split: Split, job: Job, recipe: Recipe) -> tuple[int, int]:
    """Epochs begun and steps made, until the time is over."""
    optimiser = torch.optim.AdamW(net.parameters(), weight_decay=_WEIGHT_DECAY)
    rng = np.random.default_rng(recipe.seed)
    began, n_steps, epoch = time.process_time(), 0, 0
    net.train()
    while True:
        epoch += 1
        losses = []
        order = rng.permutation(len(split.truth))
        # A batch norm of two pictures says nothing: what is left over waits for the next epoch.
        whole = order[: max(recipe.batch_size, len(order) - len(order) % recipe.batch_size)]
        for rows, pixels, truth in _batches(split, whole, epoch, job, recipe.batch_size):
            done = (time.process_time() - began) / recipe.train_s
            if done >= 1:
                return epoch, n_steps
            rate = min(1.0, done / _WARM_UP) * 0.5 * (1 + math.cos(math.pi * done))
            for group in optimiser.param_groups:
                group["lr"] = recipe.learning_rate * rate
            loss = net.loss(pixels, truth, rows)
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), _MOST_NORM)
            optimiser.step()
            losses.append(loss.item())
            n_steps += 1
        _LOG.info(
            "epoch %d: loss %.4f, %.0f s", epoch, np.mean(losses), time.process_time() - began
        )


def _batches(
    split: Split, order: NDArray[np.int64], view: int, job: Job, size: int
) -> Iterator[tuple[NDArray[np.int64], Tensor, NDArray[Any]]]:
    """Rows, normalised pixels of one random view of each, and what is true in it."""
    expected = backbone(job.params.backbone, job.params.width).input

    def one(row: int) -> tuple[NDArray[np.uint8], NDArray[Any]]:
        pictures = split.pictures
        (pixels,) = pictures.views(pictures.entries[row], [view], plain=False)
        return pixels, split.truth_in(row, [view])[0]

    for rows in chunks(order, size):
        pixels, truth = zip(*ordered_map(one, rows.tolist(), window=size), strict=True)
        batch = torch.from_numpy(np.stack(pixels))
        yield rows, normalise(batch, expected.mean, expected.std), np.stack(truth)


def _answers(net: Any, split: Split, job: Job) -> dict[str, NDArray[np.float32]]:
    expected = backbone(job.params.backbone, job.params.width).input
    net.eval()
    with torch.inference_mode():
        parts: Sequence[dict[str, NDArray[np.float32]]] = [
            net.answers(normalise(torch.from_numpy(batch), expected.mean, expected.std))
            for batch in split.pictures.batches(16)
        ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _as_ordinary(bundle: Bundle) -> Bundle:
    """With the cut of masks that nobody fitted; no other figure here depends on a threshold."""
    if bundle.kind != "segmentation":
        return bundle
    points = {
        label: point.model_copy(update={"threshold": THRESHOLD})
        for label, point in bundle.operating_points.items()
    }
    return bundle.model_copy(update={"operating_points": points})


def _said(value: float, low: float, high: float) -> str:
    return f"{value:.3f} ({low:.3f} to {high:.3f})"
