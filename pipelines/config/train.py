"""Section ``train`` of a task."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from pipelines.config.view import AugmentParams, ViewParams
from pipelines.strict_yaml import NotNegative, Positive, Share, Strict


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


class DistillParams(Strict):
    """What a teacher's answers count for in the loss of the network that is trained."""

    #: A folder of a float model (model.json and weights.safetensors), or an .npz of logits by image
    #: path, relative to the project; or a list of such, whose softened probabilities are averaged.
    #: It knows the same labels. Of an embedding: a backbone's name, a float model that is one, or
    #: an .npz of vectors; of a list, cosines are averaged.
    teacher: Annotated[
        tuple[Annotated[str, Field(min_length=1)], ...],
        BeforeValidator(lambda value: [value] if isinstance(value, str) else value),
        Field(min_length=1, strict=False),
    ]
    #: By which the logits of both are divided; of an embedding, likeness to the others of a batch.
    temperature: Annotated[float, Field(ge=1, le=100, strict=False)]
    #: Of the teacher's part of the loss; the task's own has the rest. 0 is to train without one.
    weight: Share


class TrainParams(Strict):
    """How a float model is made from the train split, chosen by the val split."""

    backbone: str
    #: Multiplier of its channels, one that its paper has: the alpha of MobileNets.
    width: Annotated[
        float, Field(gt=0, le=4, strict=False, exclude_if=lambda width: width == 1)
    ] = 1.0
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
    #: Value of the val split that picks the epoch: ``val_loss``, or another of the kind's; of a
    #: classification ``val_macro_f1`` or ``val_accuracy``.
    monitor: str
    #: Train again, on train and val, once val has chosen, and release that (docs/adr/0019).
    refit: bool
    augment: AugmentParams
    view: ViewParams = ViewParams()
    #: A teacher to learn from, besides the labels; null for none.
    distill: Annotated[DistillParams | None, Field(exclude_if=lambda distill: distill is None)] = (
        None
    )

    @model_validator(mode="after")
    def _trains_at_all(self) -> TrainParams:
        if self.head_phase.epochs + self.tail_phase.epochs == 0:
            raise ValueError("head_phase.epochs and tail_phase.epochs are both 0: nothing to train")
        if self.strategy == "cached" and self.views == 0 and self.augment.background > 0:
            raise ValueError("augment.background leaves out the plain view, and views is 0")
        if self.view.whole and self.crop_fraction != 1:
            raise ValueError(
                f"view.whole shows the whole picture: crop_fraction must be 1, got "
                f"{self.crop_fraction:g}"
            )
        return self
