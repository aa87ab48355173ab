"""Where every file of the pipeline lies; the only module that spells file names.

Pure: nothing here looks at the disk. Called by the command line and by every stage.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class TaskPaths:
    """The files of one task below a project root."""

    root: Path
    task: str

    # -- datasets/<task> -----------------------------------------------------------------------
    @property
    def card(self) -> Path:
        """Dataset card, in Git."""
        return self.root / "datasets" / self.task / "card.yaml"

    @property
    def raw_dir(self) -> Path:
        """Images as they were fetched; immutable after `fetch`."""
        return self.root / "datasets" / self.task / "raw"

    @property
    def prepared_dir(self) -> Path:
        """What `prepare` found out about the raw images; holds no pixels but contact sheets."""
        return self.root / "datasets" / self.task / "prepared"

    @property
    def manifest(self) -> Path:
        """One row an accepted image, with its split."""
        return self.prepared_dir / "manifest.csv"

    @property
    def prepare_summary(self) -> Path:
        """Labels, counts and hashes of the prepared set."""
        return self.prepared_dir / "summary.json"

    @property
    def quarantine(self) -> Path:
        """One row a refused file, with the reason."""
        return self.prepared_dir / "quarantine.csv"

    @property
    def contact_dir(self) -> Path:
        """One contact sheet a class."""
        return self.prepared_dir / "contact"

    # -- models/<task> -------------------------------------------------------------------------
    @property
    def float_dir(self) -> Path:
        """The trained float model."""
        return self.root / "models" / self.task / "float"

    @property
    def float_weights(self) -> Path:
        """Weights of the float model."""
        return self.float_dir / "weights.safetensors"

    @property
    def float_meta(self) -> Path:
        """All that is needed to rebuild the float model and to say where it comes from."""
        return self.float_dir / "model.json"

    @property
    def recipes_dir(self) -> Path:
        """What recipes made of the task's data, a folder a recipe; not in DVC."""
        return self.root / "models" / self.task / "recipes"

    @property
    def mobile_dir(self) -> Path:
        """The phone-sized model: what an app needs is here, and nothing else."""
        return self.root / "models" / self.task / "mobile"

    @property
    def candidate(self) -> Path:
        """The bundle as `export` wrote it: everything but the metrics of the test split."""
        return self.mobile_dir / "candidate.json"

    @property
    def bundle(self) -> Path:
        """The finished bundle, written by `evaluate`."""
        return self.mobile_dir / "bundle.json"

    @property
    def onnx_fp32(self) -> Path:
        """The float ONNX file."""
        return self.mobile_dir / "model_fp32.onnx"

    @property
    def onnx_int8(self) -> Path:
        """The quantised ONNX file."""
        return self.mobile_dir / "model_int8.onnx"

    # -- reports/<task> ------------------------------------------------------------------------
    @property
    def passed(self) -> Path:
        """What `gate` asked of a model that passed, and what it reached; not in Git."""
        return self.reports_dir / "gate.json"

    @property
    def audit(self) -> Path:
        """What may be known of the labels without looking at the subject (`AuditReport`)."""
        return self.reports_dir / "audit.json"

    @property
    def audit_dir(self) -> Path:
        """Figure and contact sheets of the audit, and the labels that it doubts."""
        return self.reports_dir / "audit"

    @property
    def label_issues(self) -> Path:
        """One row an image whose label the other images speak against."""
        return self.audit_dir / "label_issues.csv"

    @property
    def reports_dir(self) -> Path:
        """All that a person reads about one task."""
        return self.root / "reports" / self.task

    @property
    def history(self) -> Path:
        """One row an epoch."""
        return self.reports_dir / "history.csv"

    @property
    def training_figures_dir(self) -> Path:
        """Curves, validation confusion and sample predictions, drawn by `train`."""
        return self.reports_dir / "training"

    @property
    def external_dir(self) -> Path:
        """What `validate` writes: a folder a set of images from elsewhere."""
        return self.reports_dir / "external"

    @property
    def quantization(self) -> Path:
        """One row a quantisation candidate that `export` tried, with what it reached."""
        return self.reports_dir / "quantization.csv"

    @property
    def metrics(self) -> Path:
        """Metrics of the test split, in Git."""
        return self.reports_dir / "metrics.json"

    @property
    def confusion(self) -> Path:
        """Actual and predicted label of each test image, in DVC's confusion format."""
        return self.reports_dir / "confusion.csv"

    @property
    def predictions(self) -> Path:
        """One row a test image: path, group, label, answers and probabilities of fp32 and int8."""
        return self.reports_dir / "predictions.csv"

    @property
    def test_figures_dir(self) -> Path:
        """Confusion, ROC and reliability figures, drawn by `evaluate`."""
        return self.reports_dir / "test"

    # -- .cache --------------------------------------------------------------------------------
    @property
    def lock(self) -> Path:
        """Held by the one process that works on this task."""
        return self.root / ".cache" / "locks" / f"{self.task}.lock"

    @property
    def checkpoint_dir(self) -> Path:
        """The checkpoint of a training that has not finished."""
        return self.root / ".cache" / "checkpoints" / self.task

    @property
    def refit_checkpoint_dir(self) -> Path:
        """The checkpoint of the training on train and val together; goes with the other."""
        return self.checkpoint_dir / "refit"


@dataclass(frozen=True, slots=True)
class RecipePaths(TaskPaths):
    """Of a training by a recipe: the task's for what is read, its own for what `train` writes."""

    #: The recipe's name.
    recipe: str
    #: Holds all that is written.
    folder: Path

    @property
    def float_dir(self) -> Path:
        """The float model that the recipe made."""
        return self.folder / "float"

    @property
    def history(self) -> Path:
        """One row an epoch."""
        return self.folder / "history.csv"

    @property
    def training_figures_dir(self) -> Path:
        """As the task's."""
        return self.folder / "training"

    @property
    def recipe_file(self) -> Path:
        """The recipe, as it was when it was followed."""
        return self.folder / "recipe.yaml"

    @property
    def checkpoint_dir(self) -> Path:
        """Not the task's, whose own training may be half done."""
        return self.root / ".cache" / "recipes" / self.task / self.recipe


@dataclass(frozen=True, slots=True)
class Paths:
    """The files of a project root."""

    root: Path

    @property
    def params(self) -> Path:
        """Every number that a result depends on."""
        return self.root / "params.yaml"

    @property
    def constraints(self) -> Path:
        """The lock: one pinned version a dependency."""
        return self.root / "constraints.txt"

    @property
    def pyproject(self) -> Path:
        """What the package needs."""
        return self.root / "pyproject.toml"

    @property
    def dvc_yaml(self) -> Path:
        """The pipeline."""
        return self.root / "dvc.yaml"

    @property
    def dvc_lock(self) -> Path:
        """What last ran."""
        return self.root / "dvc.lock"

    @property
    def datasets_dir(self) -> Path:
        """One folder a task: its card, and DVC's data."""
        return self.root / "datasets"

    @property
    def models_dir(self) -> Path:
        """One folder a task."""
        return self.root / "models"

    @property
    def reports_dir(self) -> Path:
        """One folder a task, and the report on all of them."""
        return self.root / "reports"

    @property
    def results_page(self) -> Path:
        """The report as Markdown."""
        return self.reports_dir / "RESULTS.md"

    @property
    def html_page(self) -> Path:
        """The report as one self-contained page."""
        return self.reports_dir / "index.html"

    def code_list(self, stage: str, task: str | None = None) -> Path:
        """The code that a stage is made of, a line a file.

        Args:
            stage: its name.
            task: whose own code is meant; None for what all tasks share.
        """
        folder = self.reports_dir / "code"
        return folder / f"{stage}.txt" if task is None else folder / stage / f"{task}.txt"

    @property
    def backbone_code_dir(self) -> Path:
        """The code of each backbone, a file a backbone, as `code_list` has that of stages."""
        return self.reports_dir / "code" / "backbones"

    @property
    def cache_dir(self) -> Path:
        """What can be made again: downloads, trunk activations, checkpoints, locks."""
        return self.root / ".cache"

    @property
    def weights_dir(self) -> Path:
        """Pretrained weights that were fetched."""
        return self.cache_dir / "weights"

    @property
    def face_model(self) -> Path:
        """The detector that finds the faces of a scene for the mask app."""
        return self.weights_dir / "centerface.onnx"

    @property
    def registry_models_dir(self) -> Path:
        """Models that `fieldlens app --registry` took from MLflow, laid out as a project's."""
        return self.cache_dir / "registry"

    @property
    def trunks_dir(self) -> Path:
        """Frozen trunks as ONNX; tasks with the same backbone share them."""
        return self.cache_dir / "trunks"

    @property
    def activations_dir(self) -> Path:
        """Activations of frozen trunks."""
        return self.cache_dir / "activations"

    @property
    def teachers_dir(self) -> Path:
        """What teachers of a distillation answered."""
        return self.cache_dir / "teachers"

    @property
    def mlflow_db(self) -> Path:
        """MLflow's default store."""
        return self.root / "mlflow.db"

    @property
    def mlflow_artifacts_dir(self) -> Path:
        """MLflow's default artifact root."""
        return self.root / "mlartifacts"

    def task(self, task: str) -> TaskPaths:
        """The files of one task.

        Args:
            task: slug, as in params.yaml.
        """
        return TaskPaths(self.root, task)
