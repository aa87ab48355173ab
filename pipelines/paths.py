"""Where every file of the pipeline lies; the only module that spells file names.

Pure: nothing here looks at the disk. Called by the command line and by every stage.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


class _Place:
    """A path below the root of its owner; ``{task}`` stands for the owner's task."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, owner: TaskPaths | Paths, _: type) -> Path:
        return owner.root / self._name.format(task=getattr(owner, "task", None))


@dataclass(frozen=True, slots=True)
class TaskPaths:
    """The files of one task below a project root."""

    root: Path
    task: str

    # -- datasets/<task> -----------------------------------------------------------------------
    #: Dataset card, in Git.
    card = _Place("datasets/{task}/card.yaml")
    #: Images as they were fetched; immutable after `fetch`.
    raw_dir = _Place("datasets/{task}/raw")
    #: What `prepare` found out about the raw images; holds no pixels but contact sheets.
    prepared_dir = _Place("datasets/{task}/prepared")
    #: One row an accepted image, with its split.
    manifest = _Place("datasets/{task}/prepared/manifest.csv")
    #: Labels, counts and hashes of the prepared set.
    prepare_summary = _Place("datasets/{task}/prepared/summary.json")
    #: One row a refused file, with the reason.
    quarantine = _Place("datasets/{task}/prepared/quarantine.csv")
    #: One contact sheet a class.
    contact_dir = _Place("datasets/{task}/prepared/contact")

    # -- models/<task> -------------------------------------------------------------------------
    #: The trained float model.
    float_dir = _Place("models/{task}/float")
    #: Weights of the float model.
    float_weights = _Place("models/{task}/float/weights.safetensors")
    #: All that is needed to rebuild the float model and to say where it comes from.
    float_meta = _Place("models/{task}/float/model.json")
    #: What recipes made of the task's data, a folder a recipe; not in DVC.
    recipes_dir = _Place("models/{task}/recipes")
    #: The phone-sized model: what an app needs is here, and nothing else.
    mobile_dir = _Place("models/{task}/mobile")
    #: The bundle as `export` wrote it: everything but the metrics of the test split.
    candidate = _Place("models/{task}/mobile/candidate.json")
    #: The finished bundle, written by `evaluate`.
    bundle = _Place("models/{task}/mobile/bundle.json")
    #: The float ONNX file.
    onnx_fp32 = _Place("models/{task}/mobile/model_fp32.onnx")
    #: The quantised ONNX file.
    onnx_int8 = _Place("models/{task}/mobile/model_int8.onnx")

    @property
    def executorch_dir(self) -> Path:
        """The bundle of the programs that ExecuTorch runs; no output of DVC."""
        return self.root / "models" / self.task / "executorch"

    # -- reports/<task> ------------------------------------------------------------------------
    #: What `gate` asked of a model that passed, and what it reached; not in Git.
    passed = _Place("reports/{task}/gate.json")
    #: What may be known of the labels without looking at the subject (`AuditReport`).
    audit = _Place("reports/{task}/audit.json")
    #: Figure and contact sheets of the audit, and the labels that it doubts.
    audit_dir = _Place("reports/{task}/audit")
    #: One row an image whose label the other images speak against.
    label_issues = _Place("reports/{task}/audit/label_issues.csv")
    #: All that a person reads about one task.
    reports_dir = _Place("reports/{task}")
    #: One row an epoch.
    history = _Place("reports/{task}/history.csv")
    #: Curves, validation confusion and sample predictions, drawn by `train`.
    training_figures_dir = _Place("reports/{task}/training")
    #: What `validate` writes: a folder a set of images from elsewhere.
    external_dir = _Place("reports/{task}/external")
    #: What `board` writes: the tables and the figure; below ``cells`` a file a network.
    board_dir = _Place("reports/{task}/board")
    #: One row a network and precision.
    board = _Place("reports/{task}/board/board.csv")
    #: The rows of `board` that no other row is better than.
    board_front = _Place("reports/{task}/board/front.csv")
    #: Accuracy against latency, and latency against multiply-adds.
    board_figure = _Place("reports/{task}/board/board.png")
    #: What `search` writes: tables and figures; below ``candidates`` what was measured.
    search_dir = _Place("reports/{task}/search")
    #: A line a network that a search has asked about.
    search_candidates = _Place("reports/{task}/search/candidates.jsonl")
    #: A line a network of these whose latency was measured again.
    search_elites = _Place("reports/{task}/search/elites.jsonl")
    #: Accuracy against latency of what was asked about.
    search_front = _Place("reports/{task}/search/front.png")
    #: The reward by the number of candidates.
    search_rewards = _Place("reports/{task}/search/rewards.png")
    #: What a search has come to, for people.
    search_page = _Place("reports/{task}/search/SEARCH.md")
    #: One row a quantisation candidate that `export` tried, with what it reached.
    quantization = _Place("reports/{task}/quantization.csv")
    #: Metrics of the test split, in Git.
    metrics = _Place("reports/{task}/metrics.json")
    #: Actual and predicted label of each test image, in DVC's confusion format.
    confusion = _Place("reports/{task}/confusion.csv")
    #: One row a test image: path, group, label, answers and probabilities of fp32 and int8.
    predictions = _Place("reports/{task}/predictions.csv")
    #: Confusion, ROC and reliability figures, drawn by `evaluate`.
    test_figures_dir = _Place("reports/{task}/test")

    # -- .cache --------------------------------------------------------------------------------
    #: Held by the one process that works on this task.
    lock = _Place(".cache/locks/{task}.lock")
    #: The checkpoint of a training that has not finished.
    checkpoint_dir = _Place(".cache/checkpoints/{task}")
    #: The supernet of a search, trained or half so.
    supernet_dir = _Place(".cache/search/{task}")
    #: The checkpoint of the training on train and val together; goes with the other.
    refit_checkpoint_dir = _Place(".cache/checkpoints/{task}/refit")

    def board_cell(self, name: str) -> Path:
        """What one network of the board has come to."""
        return self.board_dir / "cells" / f"{name}.json"


@dataclass(frozen=True, slots=True)
class RecipePaths(TaskPaths):
    """Of a training by a recipe: the task's for what is read, its own for what `train` writes."""

    #: The recipe's name.
    recipe: str
    #: Holds all that is written.
    folder: Path

    @property
    def float_dir(self) -> Path:  # type: ignore[override]
        """The float model that the recipe made."""
        return self.folder / "float"

    @property
    def history(self) -> Path:  # type: ignore[override]
        """One row an epoch."""
        return self.folder / "history.csv"

    @property
    def training_figures_dir(self) -> Path:  # type: ignore[override]
        """As the task's."""
        return self.folder / "training"

    @property
    def recipe_file(self) -> Path:
        """The recipe, as it was when it was followed."""
        return self.folder / "recipe.yaml"

    @property
    def checkpoint_dir(self) -> Path:  # type: ignore[override]
        """Not the task's, whose own training may be half done."""
        return self.root / ".cache" / "recipes" / self.task / self.recipe


@dataclass(frozen=True, slots=True)
class Paths:
    """The files of a project root."""

    root: Path

    #: Every number that a result depends on.
    params = _Place("params.yaml")
    #: The lock: one pinned version a dependency.
    constraints = _Place("constraints.txt")
    #: What the package needs.
    pyproject = _Place("pyproject.toml")
    #: The pipeline.
    dvc_yaml = _Place("dvc.yaml")
    #: The pipeline of the boards, which runs when it is named.
    boards_dvc_yaml = _Place("boards/dvc.yaml")
    #: One folder a task: its card, and DVC's data.
    datasets_dir = _Place("datasets")
    #: One folder a task.
    models_dir = _Place("models")
    #: One folder a task, and the report on all of them.
    reports_dir = _Place("reports")
    #: The report as Markdown.
    results_page = _Place("reports/RESULTS.md")
    #: The report as one self-contained page.
    html_page = _Place("reports/index.html")
    #: The code of each backbone, a file a backbone, as `code_list` has that of stages.
    backbone_code_dir = _Place("reports/code/backbones")
    #: What can be made again: downloads, trunk activations, checkpoints, locks.
    cache_dir = _Place(".cache")
    #: Pretrained weights that were fetched.
    weights_dir = _Place(".cache/weights")
    #: The detector that finds the faces of a scene for the mask app.
    face_model = _Place(".cache/weights/centerface.onnx")
    #: Models that `fieldlens app --registry` took from MLflow, laid out as a project's.
    registry_models_dir = _Place(".cache/registry")
    #: Latencies of blocks of networks, a file a kind of processor.
    latencies_dir = _Place(".cache/latencies")
    #: Frozen trunks as ONNX; tasks with the same backbone share them.
    trunks_dir = _Place(".cache/trunks")
    #: Activations of frozen trunks.
    activations_dir = _Place(".cache/activations")
    #: What teachers of a distillation answered.
    teachers_dir = _Place(".cache/teachers")
    #: Untrained networks as ONNX, beside which others are timed.
    references_dir = _Place(".cache/references")
    #: MLflow's default store.
    mlflow_db = _Place("mlflow.db")
    #: MLflow's default artifact root.
    mlflow_artifacts_dir = _Place("mlartifacts")

    def code_list(self, stage: str, task: str | None = None) -> Path:
        """The code that a stage is made of, a line a file; of a task: what is its own alone."""
        folder = self.reports_dir / "code"
        return folder / f"{stage}.txt" if task is None else folder / stage / f"{task}.txt"

    def task(self, task: str) -> TaskPaths:
        """The files of one task, by its slug."""
        return TaskPaths(self.root, task)


@dataclass(frozen=True, slots=True)
class CellPaths(Paths):
    """A project as a training of one cell of a board sees it: its checkpoints are its own."""

    cell: str

    def task(self, task: str) -> TaskPaths:
        """Files below a folder of the cell's own."""
        return TaskPaths(self.cache_dir / "boards" / task / self.cell, task)
