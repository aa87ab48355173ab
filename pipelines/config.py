"""params.yaml -> frozen, checked `Params`; the only reader of that file.

Facts of a data set are in its card, those of a machine in the environment. Touches no data.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipelines.card import Domain, Slug
from pipelines.config_sources import AnySource, RealParams
from pipelines.errors import ConfigError
from pipelines.strict_yaml import Strict, read_yaml, validate

Share = Annotated[float, Field(ge=0.0, le=1.0, strict=False)]
Positive = Annotated[float, Field(gt=0.0, strict=False)]
NotNegative = Annotated[float, Field(ge=0.0, strict=False)]
ChangeFamily = Literal["jpeg", "brightness", "rotation", "flip"]


# -- fetch ----------------------------------------------------------------------------------------
class FetchParams(Strict):
    """Where the images come from."""

    source: Annotated[AnySource, Field(discriminator="kind")]


# -- prepare --------------------------------------------------------------------------------------
class PrepareParams(Strict):
    """What may enter, and how it is split."""

    #: Labels to use, in this order; null for all labels of the card.
    classes: tuple[Slug, ...] | None = Field(default=None, strict=False)
    val_fraction: Annotated[float, Field(gt=0, lt=0.5)]
    test_fraction: Annotated[float, Field(gt=0, lt=0.5)]
    #: Two images whose 64-bit perceptual hashes differ in at most so many bits are near duplicates.
    near_duplicate_bits: Annotated[int, Field(ge=0, le=16)]
    #: A larger share of refused files, of all or of a class (conflicting copies too), stops it.
    max_quarantine_fraction: Share
    max_class_loss: Share = 0.5
    #: Images with a shorter side below this are refused.
    min_side_px: Annotated[int, Field(ge=2)]

    @model_validator(mode="after")
    def _classes_are_distinct(self) -> PrepareParams:
        if self.classes is not None:
            if len(self.classes) < 2:
                raise ValueError("classes needs at least 2 labels: one class cannot be told apart")
            if len(set(self.classes)) != len(self.classes):
                raise ValueError("classes names a label twice")
        return self


# -- audit ----------------------------------------------------------------------------------------
class AuditParams(Strict):
    """How far models that see next to nothing may get before data are called a shortcut."""

    #: Folds of the cross-validation, by group, on train and val together.
    folds: Annotated[int, Field(ge=2, le=20)]
    #: Share of the way from chance to the linear probe at which an audit is called suspicious.
    suspicious_share: Share
    #: The same, at which it is called a shortcut.
    shortcut_share: Share
    #: Why a model is released although its data hold a shortcut; printed with it. Null: it is not.
    accepted: Annotated[str, Field(min_length=10)] | None = None

    @model_validator(mode="after")
    def _bounds_rise(self) -> AuditParams:
        if self.suspicious_share >= self.shortcut_share:
            raise ValueError("suspicious_share must be below shortcut_share")
        return self


# -- train ----------------------------------------------------------------------------------------
class AugmentParams(Strict):
    """Random views of a training image; each amount is the end of a symmetric range."""

    #: Smallest share of the image's area that a random crop keeps.
    min_area: Annotated[float, Field(gt=0, le=1, strict=False)]
    #: Widest aspect ratio of a random crop; the narrowest is its inverse.
    max_aspect: Annotated[float, Field(ge=1, le=3, strict=False)]
    horizontal_flip: bool
    vertical_flip: bool
    rotate_deg: Annotated[float, Field(ge=0, le=180, strict=False)]
    #: Relative change of brightness and of contrast.
    brightness: Share
    contrast: Share
    #: Relative change of saturation; hue shift as a share of the colour circle.
    saturation: Share
    hue: Annotated[float, Field(ge=0, le=0.5, strict=False)]
    #: Probabilities of Gaussian blur, of Gaussian noise and of JPEG re-encoding.
    blur: Share
    noise: Share
    jpeg: Share
    #: Probability that all outside a soft ellipse in the middle is painted over.
    background: Annotated[Share, Field(exclude_if=lambda share: share == 0)] = 0.0


class ViewParams(Strict):
    """What every picture has taken away, in training and on the phone (`data.preprocess.View`)."""

    #: One channel, three times: hides whether a file was stored grey or in colour.
    grey: bool = False
    #: Shorter side that every picture is brought to first; hides sizes and sharpness.
    side_px: Annotated[int, Field(ge=16, le=1024)] | None = None
    #: Share of the input's side that is painted grey along each edge.
    border_mask: Annotated[float, Field(ge=0, le=0.45, strict=False)] = 0.0

    @property
    def is_off(self) -> bool:
        """Whether nothing is taken away."""
        return self == ViewParams()


class HeadParams(Strict):
    """What stands on the pooled features."""

    #: Widths of hidden layers; empty for a linear head, [320, 320] for the two-class study's.
    hidden: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=(), strict=False)
    dropout: Annotated[float, Field(ge=0, lt=1, strict=False)]


class PhaseParams(Strict):
    """One phase of training: head alone, then head and tail."""

    #: 0 leaves the phase out.
    epochs: Annotated[int, Field(ge=0)]
    learning_rate: Positive
    schedule: Literal["cosine", "one_cycle", "constant"]
    #: Share of the phase's steps in which the learning rate rises from 0.
    warmup_fraction: Annotated[float, Field(ge=0, lt=1, strict=False)]
    #: Epochs without a better `monitor` after which the phase ends; 0 never ends it.
    patience: Annotated[int, Field(ge=0)]


class TrainParams(Strict):
    """How a float model is made from the train split, chosen by the val split."""

    backbone: str
    #: ``imagenet`` (a table entry with providers and hashes), or ``none`` to train from scratch.
    weights: Literal["imagenet", "none"]
    #: Side of the model's input.
    image_px: Annotated[int, Field(ge=32, le=1024, multiple_of=32)]
    #: Share of the resized shorter side that the central crop keeps.
    crop_fraction: Annotated[float, Field(gt=0.5, le=1, strict=False)]
    #: ``cached``: frozen trunk through ONNX Runtime once, then head and tail on stored activations.
    #: ``full``: the ordinary loop over images, every layer trained in the second phase.
    strategy: Literal["cached", "full"]
    #: First block of the tail; null for the backbone's default. Blocks before it are the trunk.
    cut: Annotated[int, Field(ge=0)] | None = None
    #: Random views of each train image that go through the trunk, besides the plain one; without
    #: it where `augment.background` is on.
    views: Annotated[int, Field(ge=0, le=64)]
    #: Share of the views that go through the int8 trunk, so that the tail knows int8's noise.
    int8_views: Share
    #: Train pictures that calibrate the int8 trunk (``cached`` only).
    calibration_images: Annotated[int, Field(ge=1)]
    #: Most bytes of activations on disk; more is an error that says which knob to turn.
    max_cache_bytes: Annotated[int, Field(ge=1)]
    batch_size: Annotated[int, Field(ge=2)]
    head: HeadParams
    head_phase: PhaseParams
    tail_phase: PhaseParams
    #: Factor of the learning rate from each block to the one before it, in the tail phase.
    layer_decay: Annotated[float, Field(gt=0, le=1, strict=False)]
    optimizer: str
    weight_decay: NotNegative
    #: Momentum of SGD and RMSprop.
    momentum: Annotated[float, Field(ge=0, lt=1, strict=False)]
    label_smoothing: Annotated[float, Field(ge=0, lt=1, strict=False)]
    #: ``class_weights``: a weight a class in the loss. ``sampling``: each class is drawn as often.
    #: ``source``: each class is drawn as often within each source, so that neither tells the other.
    balance: Literal["none", "class_weights", "sampling", "source"]
    #: Beta parameter of mixup; 0 is off. On cached activations this is manifold mixup at the cut.
    mixup_alpha: NotNegative
    #: Decay of the exponential moving average of the weights; 0 is off.
    ema_decay: Annotated[float, Field(ge=0, lt=1, strict=False)]
    #: Metric of the val split that picks the epoch.
    monitor: Literal["val_macro_f1", "val_accuracy", "val_loss"]
    #: Train again, on train and val, once val has chosen, and release that (docs/adr/0019).
    refit: bool
    augment: AugmentParams
    view: ViewParams = ViewParams()

    @model_validator(mode="after")
    def _trains_at_all(self) -> TrainParams:
        if self.head_phase.epochs + self.tail_phase.epochs == 0:
            raise ValueError("head_phase.epochs and tail_phase.epochs are both 0: nothing to train")
        if self.strategy == "cached" and self.views == 0 and self.augment.background > 0:
            raise ValueError("augment.background leaves out the plain view, and views is 0")
        return self


# -- export ---------------------------------------------------------------------------------------
class ExportParams(Strict):
    """How the float model becomes a phone-sized one; bounds are tried on the val split."""

    #: Images of the train split that calibrate, stratified by label.
    calibration_images: Annotated[int, Field(ge=8)]
    #: Tried in this order until the bounds hold on val.
    remedies: tuple[str, ...] = Field(strict=False)
    #: Share of val images on which int8 and fp32 give the same label, at least.
    min_agreement: Share
    #: Largest drop of val accuracy and of val macro-F1 from fp32 to int8.
    max_accuracy_drop: Share
    max_macro_f1_drop: Share
    #: For ten classes or fewer; each further one adds 1,300: its part of the head. So in the gate.
    max_int8_bytes: Annotated[int, Field(ge=1)]
    #: int8 is served if it holds the bounds and is at least so many times as fast on one thread.
    min_speedup: Positive
    #: Share of the val images that the abstention accepts as of the kind that the model knows.
    acceptance: Annotated[float, Field(gt=0.5, lt=1, strict=False)]
    #: Least specificity, on val, of the operating point of each alarm (see the card); null: none.
    min_specificity: Annotated[float, Field(gt=0, lt=1, strict=False)] | None = None


# -- evaluate, gate -------------------------------------------------------------------------------
class EvaluateParams(Strict):
    """How the test split is measured."""

    #: Bins of the expected calibration error.
    calibration_bins: Annotated[int, Field(ge=2)]
    #: Resamples of groups for each bootstrap interval (95 %).
    resamples: Annotated[int, Field(ge=100, le=100_000)]
    #: Largest share of answers that one harmless change may turn; a kind may be left out.
    max_changed: dict[ChangeFamily, Share] = Field(default_factory=dict)


class GateParams(Strict):
    """What a model must reach on the test split to be released; metrics of the served file."""

    min_accuracy: Share
    min_macro_f1: Share
    min_agreement: Share
    max_accuracy_drop: Share
    #: Largest drop of one class's recall from fp32 to int8.
    max_recall_drop: Share
    max_int8_bytes: Annotated[int, Field(ge=1)]


class TaskParams(Strict):
    """One task: its domain, and a section a stage."""

    domain: Domain
    fetch: FetchParams
    prepare: PrepareParams
    audit: AuditParams
    train: TrainParams
    export: ExportParams
    evaluate: EvaluateParams
    gate: GateParams


class Params(Strict):
    """The whole of params.yaml."""

    #: Seed of everything random: painting, splits, augmentation, initial heads, order of batches.
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    tasks: dict[Slug, TaskParams] = Field(min_length=1)
    #: By task, what `make real` does otherwise.
    real: dict[Slug, RealParams] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _real_names_tasks(self) -> Params:
        unknown = set(self.real) - set(self.tasks)
        if unknown:
            raise ValueError(f"real names no task: {', '.join(sorted(unknown))}")
        return self

    def task(self, task: str) -> TaskParams:
        """The section of one task.

        Args:
            task: slug.

        Raises:
            ConfigError: if there is no such task; lists those that are.
        """
        if task not in self.tasks:
            raise ConfigError(
                f"params.yaml: tasks: there is no task {task!r}. "
                f"Expected one of {', '.join(self.tasks)}."
            )
        return self.tasks[task]


def load_params(path: Path) -> Params:
    """params.yaml, checked.

    Args:
        path: the file.

    Raises:
        ConfigError: names the file, the key, the rule and the value.
    """
    return validate(Params, read_yaml(path), path)
