"""bundle.json: the contract between making a model and using it.

A model never travels without its labels, preprocessing and provenance. An unknown schema, a missing
file or a wrong hash is a `BundleError`, never a guess. Read by the predictor, the apps, `gate`,
`report` and `doctor`; written by `export` (as candidate.json, without metrics) and `evaluate`, and
by `export --format pte` for its programs.

Schema 3 names the kind of the task, the model's outputs and its artefacts. A bundle of schema 2, as
released before, is a classification with two ONNX files, and is read as the same `Bundle`. One of
schema 1 is refused with one line that says so and how to make it again: it has no abstention, and
an answer without one looks the same as an answer with one.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pipelines.data.pixel_range import MAX_ASPECT, Reading
from pipelines.data.preprocess import MAX_BORDER_MASK, Interpolation, Preprocess, View
from pipelines.errors import BundleError
from pipelines.serving.answer import EMBEDDING_NAME
from pipelines.serving.kinds import served_kind
from pipelines.serving.sessions import Precision
from pipelines.serving.trust import Abstention, AuditReport, BoxPoint, Interval, OperatingPoint
from pipelines.serving.vetting import MAX_MODEL_BYTES

SCHEMA_VERSION = 3
BUNDLE_NAME = "bundle.json"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Artefact(_Part):
    """One model file beside bundle.json, and what runs it."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")]
    format: Literal["onnx", "pte"] = "onnx"
    precision: Precision
    runtime: Literal["onnxruntime", "executorch"] = "onnxruntime"
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    size_bytes: Annotated[int, Field(ge=1, le=MAX_MODEL_BYTES)]

    @classmethod
    def of(
        cls, name: str, precision: Precision, model: bytes, form: Literal["onnx", "pte"] = "onnx"
    ) -> Artefact:
        """The description of a file, ``form`` being the artefact's ``format``."""
        return cls(
            name=name,
            format=form,
            precision=precision,
            runtime="executorch" if form == "pte" else "onnxruntime",
            sha256=hashlib.sha256(model).hexdigest(),
            size_bytes=len(model),
        )

    @model_validator(mode="after")
    def _runtime_reads_format(self) -> Artefact:
        if (self.format == "pte") != (self.runtime == "executorch"):
            raise ValueError(f"{self.runtime} does not run {self.format} files")
        return self


class TensorSpec(_Part):
    """One input or output; -1 in a shape is the batch."""

    name: str
    shape: tuple[int, ...]
    dtype: Literal["uint8", "float32"]
    meaning: str


class PreprocessSpec(_Part):
    """`Preprocess`, written down; pixels are upright RGB in [0, 255], normalised in the model."""

    resize_px: Annotated[int, Field(ge=1, le=4096)]
    crop_px: Annotated[int, Field(ge=1, le=4096)]
    interpolation: Interpolation = "bilinear"
    #: What every picture has taken away (`View`); left out of the file where it is off.
    grey: Annotated[bool, Field(exclude_if=lambda on: not on)] = False
    side_px: Annotated[int | None, Field(ge=1, le=4096, exclude_if=lambda px: px is None)] = None
    border_mask: Annotated[
        float, Field(ge=0, le=MAX_BORDER_MASK, exclude_if=lambda share: share == 0)
    ] = 0.0
    whole: Annotated[bool, Field(exclude_if=lambda on: not on)] = False
    #: How files are read (`Reading`); left out of the file where nothing unusual is stated.
    range: Annotated[
        Literal["full"] | tuple[float, float] | None, Field(exclude_if=lambda scale: scale is None)
    ] = None
    max_aspect: Annotated[
        float, Field(ge=1, le=1000, exclude_if=lambda most: most == MAX_ASPECT)
    ] = MAX_ASPECT

    @model_validator(mode="after")
    def _range_rises(self) -> PreprocessSpec:
        # As `Reading` says it.
        Reading(range=self.range, max_aspect=self.max_aspect)
        return self

    @classmethod
    def of(cls, preprocess: Preprocess) -> PreprocessSpec:
        """A description of a function."""
        view = preprocess.view
        return cls(
            resize_px=preprocess.resize_px,
            crop_px=preprocess.crop_px,
            interpolation=preprocess.interpolation,
            grey=view.grey,
            side_px=view.side_px,
            border_mask=view.border_mask,
            whole=view.whole,
            range=preprocess.reading.range,
            max_aspect=preprocess.reading.max_aspect,
        )

    def build(self) -> Preprocess:
        """The function that it describes."""
        view = View(
            grey=self.grey,
            side_px=self.side_px,
            border_mask=self.border_mask,
            whole=self.whole,
        )
        reading = Reading(range=self.range, max_aspect=self.max_aspect)
        return Preprocess(self.resize_px, self.crop_px, view, reading, self.interpolation)


def title_of(backbone: str, width: float) -> str:
    """A backbone's name, and its width where that is not 1.

    Of one that a line of text describes, the base's name and the beginning of the line's hash: the
    line itself is too long to be read.
    """
    base, _, stages = backbone.partition("-")
    if stages:
        return f"{base}-{hashlib.sha256(backbone.encode()).hexdigest()[:6]}"
    return backbone + (f" x{width:g}" if width != 1 else "")


class Provenance(_Part):
    """Where the model comes from; no clock, host, run id or absolute path."""

    backbone: str
    #: Multiplier of its channels.
    width: Annotated[float, Field(gt=0, exclude_if=lambda width: width == 1)] = 1.0
    #: Table entry and provider of the initial weights, e.g. ``imagenet``, or ``none``.
    weights: str
    weights_sha256: str | None
    weights_licence: str | None
    float_sha256: str
    data_sha256: str
    params_sha256: str
    #: ``sample`` is shown wherever the model is.
    data_source: str
    n_images: dict[str, int]
    n_groups: dict[str, int]
    #: Whether the publisher's split was kept; made by `prepare` otherwise.
    is_split_given: Annotated[bool, Field(exclude_if=lambda is_given: not is_given)] = False
    #: Whether the weights were trained on train and val together.
    is_refit: Annotated[bool, Field(exclude_if=lambda is_refit: not is_refit)] = False

    @property
    def network(self) -> str:
        """The backbone with its width, as people are told of it."""
        return title_of(self.backbone, self.width)


class Candidate(_Part):
    """One quantisation that was tried, and what it reached on the val split."""

    remedy: str
    #: Of activations; ``none`` where they stay float32, and weights alone are int8.
    calibrator: str
    float_nodes: tuple[str, ...]
    agreement: float
    #: Of the kind, by name, e.g. ``accuracy``.
    metrics: dict[str, float]
    #: Signal-to-noise ratio of the first output against fp32.
    sqnr_db: float
    size_bytes: int
    holds_bounds: bool
    #: Whether this is the one in the bundle's ``artefacts``.
    is_chosen: bool


class Serving(_Part):
    """Which file an app should run, and why."""

    precision: Precision
    reason: str


class Bundle(_Part):
    """A model with all that its use needs."""

    schema_version: Literal[3]
    #: What the task asks of a picture; one of `pipelines.serving.kinds`.
    kind: str
    task: str
    domain: str
    title: str
    #: Empty where the kind has none.
    labels: tuple[str, ...]
    label_meanings: dict[str, str]
    #: What people call a label, in any script; only where it differs.
    label_names: Annotated[dict[str, str], Field(exclude_if=lambda names: not names)] = Field(
        default_factory=dict
    )
    preprocess: PreprocessSpec
    input: TensorSpec
    #: In the order of the kind.
    outputs: tuple[TensorSpec, ...]
    artefacts: tuple[Artefact, ...]
    served: Serving
    #: Every quantisation tried, in order; one of them is chosen.
    int8_path: tuple[Candidate, ...]
    #: Logits are divided by it before the softmax; fitted for the served file.
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    #: By label, from which probability on it is answered with yes; empty where none are wanted.
    operating_points: dict[str, OperatingPoint] = Field(default_factory=dict)
    #: Of a detection, by label, from which score on a box counts.
    box_points: Annotated[dict[str, BoxPoint], Field(exclude_if=lambda points: not points)] = Field(
        default_factory=dict
    )
    #: How pictures out of distribution are told; null: none is refused.
    abstention: Abstention | None = None
    provenance: Provenance
    #: Metrics of the test split by precision; null in a candidate.
    metrics: dict[Precision, dict[str, Any]] | None = None
    #: The same metrics with their intervals, by precision; null in a candidate.
    intervals: dict[Precision, dict[str, Interval]] | None = None
    #: What the audit found; null until there is one.
    audit: AuditReport | None = None
    intended_use: str
    not_for: tuple[str, ...]

    @model_validator(mode="after")
    def _is_whole(self) -> Bundle:
        if set(self.files) != {"fp32", "int8"}:
            form = {each.format for each in self.files.values()}
            raise ValueError(
                f"artefacts: expected {'programs' if form == {'pte'} else 'ONNX files'} of fp32 "
                f"and int8, got {', '.join(self.files) or 'none'}"
            )
        given = [(each.format, each.precision) for each in self.artefacts]
        if len(set(given)) != len(given):
            raise ValueError("artefacts: a format stands twice with one precision")
        kind = served_kind(self.kind)
        names = tuple(output.name for output in self.outputs)
        if names != kind.outputs:
            raise ValueError(
                f"outputs: a {self.kind} gives {', '.join(kind.outputs)}, got "
                f"{', '.join(names) or 'none'}"
            )
        if self.abstention is not None and EMBEDDING_NAME not in names:
            raise ValueError(f"abstention: needs an output {EMBEDDING_NAME}")
        kind.check_labels(self.labels)
        if len(set(self.labels)) != len(self.labels):
            raise ValueError("labels: a label stands twice")
        kind.check(self)
        return self

    @property
    def files(self) -> dict[Precision, Artefact]:
        """By precision: the ONNX files, which the predictor and the phone page run.

        Of a bundle that has none, the programs: it is one for ExecuTorch (ADR 0030).
        """
        onnx = {each.precision: each for each in self.artefacts if each.format == "onnx"}
        return onnx or {each.precision: each for each in self.artefacts}

    def output(self, name: str) -> TensorSpec:
        """The output of a name."""
        return next(output for output in self.outputs if output.name == name)

    @property
    def is_sample(self) -> bool:
        """Whether the model was trained on synthetic images."""
        return self.provenance.data_source == "sample"

    def name_of(self, label: str) -> str:
        """What people call a label."""
        return self.label_names.get(label, label)

    def to_json(self) -> str:
        """The text of bundle.json."""
        return json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"


def bundle_file(path: Path | str) -> Path:
    """The file that a user means who names a bundle or the folder that it is in.

    Args:
        path: bundle.json, candidate.json, or a folder with the first.
    """
    path = Path(path)
    return path / BUNDLE_NAME if path.is_dir() else path


def read_bundle(path: Path | str, *, verify: bool = True) -> Bundle:
    """The bundle in a JSON file, with the model files beside it checked.

    Args:
        verify: also read the model files and compare their hashes.

    Raises:
        BundleError: if a file is missing or changed, or the schema is unknown.
    """
    path = bundle_file(path)
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BundleError(
            f"{path}: there is no bundle. Run `dvc repro`, or `fieldlens doctor` to see what is "
            f"missing."
        ) from None
    except (OSError, ValueError, RecursionError) as err:
        raise BundleError(f"{path}: is not readable JSON ({err}). Run `dvc repro` again.") from err
    version = document.get("schema_version") if isinstance(document, dict) else None
    if version not in (2, SCHEMA_VERSION) or not isinstance(version, int):
        raise BundleError(
            f"{path}: schema_version: expected {SCHEMA_VERSION} or 2, got {version!r}. "
            f"Use the Fieldlens version that made it, or make it again with `dvc repro`."
        )
    try:
        bundle = Bundle.model_validate(_of_schema_2(document) if version == 2 else document)
    except ValidationError as err:
        fault = err.errors(include_url=False)[0]
        key = ".".join(str(part) for part in fault["loc"])
        # What speaks of several keys begins with the first of them.
        words = f"{key}: {fault['msg']}" if key else fault["msg"].removeprefix("Value error, ")
        raise BundleError(f"{path}: {words}. Make it again with `dvc repro`.") from err
    if verify:
        for artefact in bundle.artefacts:
            _read(bundle, path.parent, artefact)
    return bundle


class _Candidate2(_Part):
    """The keys of a `Candidate` that schema 3 put elsewhere."""

    model_config = ConfigDict(extra="allow")

    accuracy: float
    macro_f1: float


class _File2(_Part):
    name: str
    sha256: str
    size_bytes: int


class _Bundle2(_Part):
    """The keys of schema 2 that schema 3 put elsewhere."""

    model_config = ConfigDict(extra="allow")

    logits: TensorSpec
    embedding: TensorSpec
    files: dict[Precision, _File2]
    int8_path: tuple[_Candidate2, ...]


def _of_schema_2(document: dict[str, Any]) -> dict[str, Any]:
    """The same bundle as schema 3 writes it."""
    old = _Bundle2.model_validate(document)
    return {
        **(old.model_extra or {}),
        "schema_version": SCHEMA_VERSION,
        "kind": "classification",
        "outputs": (old.logits, old.embedding),
        "artefacts": [
            {**file.model_dump(), "precision": precision}
            for precision, file in sorted(old.files.items())
        ],
        "int8_path": [
            {
                **(each.model_extra or {}),
                "metrics": {"accuracy": each.accuracy, "macro_f1": each.macro_f1},
            }
            for each in old.int8_path
        ],
    }


def read_model(bundle: Bundle, folder: Path, precision: Precision) -> bytes:
    """The bytes of one model file, proven to be those that the bundle names.

    Raises:
        BundleError: if the file is missing or changed, or is none that ONNX Runtime runs.
    """
    artefact = bundle.files[precision]
    if artefact.runtime != "onnxruntime":
        raise BundleError(
            f"{folder}: holds programs for {artefact.runtime}, which ONNX Runtime cannot run. Name "
            f"models/{bundle.task}/mobile, or give the folder to an app (docs/howto/executorch.md)."
        )
    return _read(bundle, folder, artefact)


def _read(bundle: Bundle, folder: Path, ref: Artefact) -> bytes:
    path = folder / ref.name
    try:
        # Before it is read: a changed file may be of any size, or a pipe that never ends.
        n_bytes = path.stat().st_size
        data = path.read_bytes() if n_bytes == ref.size_bytes else b""
    except OSError as err:
        raise BundleError(
            f"{path}: the bundle's {ref.precision} model cannot be read ({err.strerror}). "
            f"Run `dvc repro export@{bundle.task}`."
        ) from err
    got = hashlib.sha256(data).hexdigest()
    if got != ref.sha256:
        raise BundleError(
            f"{path}: the file is not the one that the bundle names: expected sha256 "
            f"{ref.sha256[:12]}… and {ref.size_bytes:,} bytes, got {got[:12]}… and {n_bytes:,}. "
            f"Restore it with `dvc checkout`, or make it again with `dvc repro`."
        )
    return data
