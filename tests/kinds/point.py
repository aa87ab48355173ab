"""A second kind, as somebody would add it: where in the picture a bright spot lies.

The truth is a place, in points.csv of the raw folder; the head stands on a map; the model gives a
place in px of its input, and the answer one in px of the picture. No label is known.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

from pipelines.backbones.heads import make_network
from pipelines.backbones.spec import backbone
from pipelines.data.manifest import Record
from pipelines.errors import DataError
from pipelines.export.attempts import Judgement
from pipelines.kinds import audit, evaluate, export, figures, gate, prepare, report, train
from pipelines.kinds.blind import folds_by_group
from pipelines.kinds.shown import Shown, served
from pipelines.metrics.certainty import Certainty, defined, gain_of_means
from pipelines.metrics.intervals import by_mean, draw
from pipelines.serving import kinds as serving
from pipelines.serving.answer import EMBEDDING_NAME, Answer, ServedKind

NAME = "point"
#: Places that are nearer than this share of a side are called the same.
NEAR = 0.05


def closeness(found: np.ndarray, true: np.ndarray) -> np.ndarray:
    """(n,) 1 where a place is right, 0 where it is a whole side away."""
    return 1 - np.linalg.norm(found - true, axis=1)


# -- serving --------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True, kw_only=True)
class Point(Answer):
    x_px: float
    y_px: float


def in_picture(point: np.ndarray, geometry: np.ndarray) -> np.ndarray:
    return (np.linalg.inv(geometry) @ [*point, 1.0])[:2]


class ServedPoint(ServedKind[Point]):
    outputs = (NAME, EMBEDDING_NAME)

    def check(self, bundle):
        if bundle.labels:
            raise ValueError(f"labels: a {NAME} has none, got {len(bundle.labels)}")

    def decode(self, outputs, bundle, geometry):
        x_px, y_px = map(float, in_picture(outputs[NAME], geometry))
        return Point(x_px=x_px, y_px=y_px)

    def lines(self, answer, bundle):
        return [f"x {answer.x_px:.1f} px, y {answer.y_px:.1f} px"]

    def columns(self, bundle):
        return ["x_px", "y_px"]

    def cells(self, answer, bundle):
        return [f"{answer.x_px:.3f}", f"{answer.y_px:.3f}"]

    def numbers(self, bundle):
        return self.columns(bundle)

    def document(self, answer, bundle):
        return {"x_px": answer.x_px, "y_px": answer.y_px}


# -- prepare --------------------------------------------------------------------------------------
class PreparedPoint:
    def records(self, raw_dir, card, *, is_whole=True):
        with (raw_dir / "points.csv").open(encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        for row in rows:
            if min(float(row["x"]), float(row["y"])) < 0:
                raise DataError(f"{raw_dir}: {row['path']!r} has a place outside of it.")
        return [
            Record(
                row["path"],
                "spot",
                row["group"],
                truth=json.dumps([float(row["x"]), float(row["y"])]),
            )
            for row in rows
        ]

    def names(self, labels):
        return ("spot",)

    def strata(self, record):
        return ("left",) if json.loads(record.truth)[0] < 30 else ("right",)


# -- train ----------------------------------------------------------------------------------------
class HeatMap(nn.Module):
    """The middle of what a 1x1 convolution finds bright, in shares of the view's sides."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heat = nn.Conv2d(channels, 1, 1)

    def forward(self, maps: Tensor) -> Tensor:
        heat = self.heat(maps)
        side = heat.shape[-1]
        middles = (torch.arange(side, device=heat.device) + 0.5) / side
        places = torch.cartesian_prod(middles, middles).flip(1)  # (cells, 2), x before y
        return nn.functional.linear(torch.softmax(heat.flatten(1), dim=1), places.T)


class Distance:
    def targets(self, truth):
        return truth.float()

    def loss(self, outputs, targets):
        return nn.functional.mse_loss(outputs, targets)

    def measured(self, outputs, truth):
        return {
            "val_loss": self.loss(outputs, torch.from_numpy(truth).float()).item(),
            "val_closeness": float(closeness(outputs.numpy(), truth).mean()),
        }


class TrainedPoint:
    values = ("val_loss", "val_closeness")
    has_place = True
    taught_by = None

    def network(self, name, width, n_labels, hidden, dropout, cut, seed):
        network = backbone(name, width)
        head = partial(HeatMap, network.taps[16].channels)
        return make_network(network, head, cut=cut, seed=seed, strides=[16])

    def truth(self, entries, labels, raw_dir):
        return np.array([json.loads(entry.truth) for entry in entries])

    def in_view(self, truth, geometry, side_px):
        return (geometry @ [*truth, 1.0])[:2] / side_px

    def mates(self, truth):
        return None

    def untaught(self, truth, labels):
        return []

    def criterion(self, truth, n_labels, params):
        return Distance()


# -- audit ----------------------------------------------------------------------------------------
@dataclass(frozen=True)
class BlindPoints:
    true: np.ndarray
    folds: list
    draws: object
    seed: int
    class_index = None

    @property
    def floor(self):
        return self.chance()

    def told(self, features, by):
        from sklearn.ensemble import ExtraTreesRegressor
        from sklearn.linear_model import Ridge

        found = np.zeros_like(self.true)
        for learn, answer in self.folds:
            model = Ridge() if by == "probe" else ExtraTreesRegressor(20, random_state=self.seed)
            found[answer] = model.fit(features[learn], self.true[learn]).predict(features[answer])
        return found

    def interval(self, answers):
        return by_mean(self.draws, closeness(answers, self.true), (-1.0, 1.0))

    def chance(self):
        return float(closeness(self.true.mean(axis=0, keepdims=True), self.true).mean())


class AuditedPoint:
    metric = "closeness"
    constant = "mean point"

    def blind(self, entries, labels, raw_dir, n_folds, seed, resamples):
        sides = np.array([(entry.width_px, entry.height_px) for entry in entries])
        true = TrainedPoint().truth(entries, labels, raw_dir) / sides
        groups = np.array([entry.group for entry in entries])
        halves = (true[:, 0] > np.median(true[:, 0])).astype(np.int64)
        folds = folds_by_group(halves, 2, groups, n_folds, seed)
        return BlindPoints(true, folds, draw(groups, resamples, seed), seed)


# -- export ---------------------------------------------------------------------------------------
class ExportedPoint:
    meanings: Mapping[str, str] = {
        NAME: "x and y of the spot, in px of the input",
        EMBEDDING_NAME: "pooled features of two levels",
    }

    def finished(self, model):
        """From shares of the sides to px, in float32 whatever the file's precision."""
        proto = onnx.load_from_string(model)
        graph = proto.graph
        side_px = graph.input[0].type.tensor_type.shape.dim[1].dim_value
        graph.initializer.append(numpy_helper.from_array(np.float32(side_px), "side_px"))
        given = next(output for output in graph.output if output.name == "logits")
        graph.node.append(helper.make_node("Mul", ["logits", "side_px"], [NAME], NAME))
        given.name = NAME
        onnx.checker.check_model(proto)
        return proto.SerializeToString(deterministic=True)

    def compared(self, outputs):
        return outputs

    def judge(self, reference, truth, params):
        def judged(found):
            same = float((np.linalg.norm(found - reference, axis=1) < NEAR).mean())
            missed = ("agreement",) if same < params.min_agreement else ()
            return Judgement(same, {"closeness": float(closeness(found, truth).mean())}, missed)

        return judged

    def fitted(self, outputs, truth, card, labels, params):
        assert set(outputs) == set(self.meanings)
        return {}


# -- evaluate -------------------------------------------------------------------------------------
class TestedPoint:
    __test__ = False

    def unknown(self, entries, bundle):
        return None

    def _found(self, answers):
        """By precision, (n, 2) and the truth, in shares of the picture's sides."""
        sides = np.array([(entry.width_px, entry.height_px) for entry in answers.entries])
        true = TrainedPoint().truth(answers.entries, (), answers.raw_dir) / sides
        found = {
            precision: np.array(list(map(in_picture, of[NAME], answers.geometry))) / sides
            for precision, of in answers.outputs.items()
        }
        return true, found

    def metrics(self, answers, params):
        true, found = self._found(answers)
        reached = {key: float(closeness(of, true).mean()) for key, of in found.items()}
        same = np.linalg.norm(found["fp32"] - found["int8"], axis=1) < NEAR
        return {
            **{key: {"closeness": value} for key, value in reached.items()},
            "agreement": float(same.mean()),
            "closeness_drop": reached["fp32"] - reached["int8"],
        }

    def trust(self, answers, params):
        return {}

    def certainty(self, answers, draws, params):
        true, found = self._found(answers)
        by_image = {key: closeness(of, true) for key, of in found.items()}
        drop = by_mean(draws, by_image["fp32"] - by_image["int8"], (-1.0, 1.0))
        intervals = {
            key: {"closeness": by_mean(draws, of, (-1.0, 1.0))} for key, of in by_image.items()
        }
        return Certainty(intervals, {"closeness_drop": drop})

    def tables(self, answers):
        _, found = self._found(answers)
        rows = zip(answers.entries, found[answers.bundle.served.precision], strict=True)
        text = "".join(f"{entry.path},{x:.4f},{y:.4f}\n" for entry, (x, y) in rows)
        return f"path,x,y\n{text}", "actual,predicted\n"

    def figures(self, answers, params):
        return {}

    def gains(self, one, other, draws):
        by_side = []
        for answers in (one, other):
            true, found = self._found(answers)
            by_side.append(closeness(found[answers.only], true))
        return defined({"closeness": gain_of_means(draws, *by_side)})

    kept_of = "the places that stay within a twentieth of a side"

    def kept(self, before, after):
        one, other = (
            np.array(list(map(in_picture, each.outputs[each.only][NAME], each.geometry)))
            for each in (before, after)
        )
        sides = [(entry.width_px, entry.height_px) for entry in before.entries]
        return (np.linalg.norm((one - other) / np.array(sides), axis=1) < NEAR).astype(float)

    def summary(self, metrics, certainty):
        return f"closeness {metrics[metrics['served']]['closeness']:.3f}"


#: The table of a stage, and who answers it: all that the rest of the project is told.
TABLES = (
    (serving.KINDS, ServedPoint()),
    (prepare.KINDS, PreparedPoint()),
    (train.KINDS, TrainedPoint()),
    (figures.KINDS, lambda outputs, truth, pictures, labels: {}),
    (audit.KINDS, AuditedPoint()),
    (export.KINDS, ExportedPoint()),
    (evaluate.KINDS, TestedPoint()),
    (gate.KINDS, {}),
    (
        report.KINDS,
        Shown(
            title="Point",
            headline={"Closeness": "closeness"},
            columns={"Closeness": served("closeness")},
            how="",
            why="",
        ),
    ),
)


def register(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the kind into the tables."""
    for table, answer in TABLES:
        monkeypatch.setitem(table, NAME, answer)
