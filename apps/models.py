"""The models that the apps may use: where they lie, what their cards say, and one session each.

The project and the models' folder come from the environment, as `fieldlens app` sets it. Sessions
are shared by all users of a server, pictures never are.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import streamlit as st

from pipelines.card import DEFAULT_KIND, DatasetCard, load_card
from pipelines.data.pixel_range import Reading
from pipelines.errors import BundleError, ConfigError
from pipelines.paths import Paths, TaskPaths
from pipelines.serving.bundle import Bundle, read_bundle
from pipelines.serving.predictor import Predictor, processor_name
from pipelines.serving.sessions import Precision

#: The project folder; the working folder by default.
ROOT_VARIABLE = "FIELDLENS_ROOT"
#: A folder that is laid out as the project's, with models of the registry; unset: the project's.
MODELS_VARIABLE = "FIELDLENS_MODELS_ROOT"
#: The one task that is served; unset: all of them.
TASK_VARIABLE = "FIELDLENS_TASK"
#: Address of the phone page; unset: it is not served.
PHONE_VARIABLE = "FIELDLENS_PHONE_URL"

N_THREADS = 1
PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")


@dataclass(frozen=True, slots=True)
class Model:
    """One task's model as an app uses it.

    Attributes:
        card: the data set's card; None where there is none beside the model.
        version: changes when the bundle does.
    """

    task: str
    bundle: Bundle
    card: DatasetCard | None
    files: TaskPaths
    path: Path
    version: int

    @property
    def names(self) -> dict[str, str]:
        """What people call a label, only where it differs."""
        return self.bundle.label_names

    @property
    def has_classes(self) -> bool:
        """Whether its answers are labels with probabilities, as most panels show them."""
        return self.bundle.kind == DEFAULT_KIND

    @property
    def reading(self) -> Reading:
        """How the model's pictures are read."""
        return self.bundle.preprocess.build().reading

    def predictor(self, precision: Precision | None = None) -> Predictor:
        """A session on one of the two files, made once a server.

        Raises:
            BundleError: if the file is missing or changed.
        """
        return _predictor(str(self.path), self.version, precision or self.bundle.served.precision)


def project() -> Paths:
    """The project whose cards and test pictures are shown."""
    return Paths(Path(os.environ.get(ROOT_VARIABLE, ".")))


def all_tasks() -> dict[str, str]:
    """The domain of each task that has a model or a card, in the order of the cards' names."""
    paths = project()
    tasks: dict[str, str] = {}
    for path in sorted(paths.datasets_dir.glob("*/card.yaml")):
        card = _card(path, path.stat().st_mtime_ns)
        if card is not None:
            tasks[card.task] = card.domain
    for path in sorted(_models_root().models_dir.glob("*/mobile/bundle.json")):
        task = path.parent.parent.name
        if task not in tasks:
            tasks[task] = load_model(task).bundle.domain
    return tasks


def load_model(task: str) -> Model:
    """The model of a task.

    Raises:
        BundleError: if there is none, or it cannot be used.
    """
    path = _models_root().task(task).bundle
    try:
        version = path.stat().st_mtime_ns
    except OSError:
        version = 0
    files = project().task(task)
    card = _card(files.card, files.card.stat().st_mtime_ns) if files.card.is_file() else None
    return Model(task, _bundle(str(path), version), card, files, path, version)


def processor() -> str:
    """The processor's name, without the marks of its maker."""
    return processor_name().replace("(R)", "").replace("(TM)", "").split(" @")[0].strip()


def _models_root() -> Paths:
    return Paths(Path(os.environ[MODELS_VARIABLE])) if MODELS_VARIABLE in os.environ else project()


@lru_cache(maxsize=64)
def _card(path: Path, _version: int) -> DatasetCard | None:
    try:
        return load_card(path)
    except ConfigError:
        # The card's own fault is for `fieldlens doctor`; a model can answer without it.
        return None


@lru_cache(maxsize=64)
def _bundle(path: str, _version: int) -> Bundle:
    return read_bundle(Path(path), verify=False)


@st.cache_resource(show_spinner=False, max_entries=32)
def _predictor(path: str, _version: int, precision: Precision) -> Predictor:
    predictor = Predictor.load(Path(path), precision, n_threads=N_THREADS)
    if predictor.bundle.task != Path(path).parent.parent.name:
        raise BundleError(
            f"{path}: expected the task {Path(path).parent.parent.name!r} "
            f"(got {predictor.bundle.task!r})."
        )
    # What only the first run pays for is paid here, so that no person waits for it.
    side_px = predictor.bundle.preprocess.crop_px
    predictor.run(np.zeros((1, side_px, side_px, 3), dtype=np.uint8))
    return predictor
