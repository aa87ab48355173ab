"""What is left when a stage is killed (SIGKILL) at a random moment, and what the next run makes.

    python tests/faults/kill_run.py KILLS SEED [TASK]

On a small project of its own: painted pictures, MobileNetV3-Small from scratch, 32 or 64 px, MLflow
on; by default of a classification.
First all stages run undisturbed. Then, for each kill, the project is put back to where the stage
begins, the stage is started, killed with all its processes, and started again. Half of the kills
come at any moment of the process's life, half between its first writing to the project and its end.
Checked: after the kill no output is half-written; after the second run all outputs are those of
the undisturbed run, byte for byte, no temporary file is left, and MLflow tells of one whole run.

A process of its own, since it forks: forty kills do not import PyTorch and MLflow eighty times, and
threads do not survive a fork, so that none may have been started.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import multiprocessing
import os
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pipelines import cli
from pipelines.paths import Paths
from pipelines.quiet import go_quiet
from pipelines.stages.code import STAGES
from pipelines.strict_yaml import overlay, read_yaml

ROOT = Path(__file__).resolve().parents[2]
#: Loaded late by the stages themselves.
PRELOADED = (
    *("pipelines.commands.stage", "pipelines.commands.report"),
    *("mlflow", "mlflow.onnx", "mlflow.store.tracking.sqlalchemy_store", "onnx", "onnxscript"),
    *("torch.onnx", "matplotlib.pyplot", "albumentations", "sklearn.metrics"),
)
#: What a stage leaves for the next one; the rest is caches, locks and MLflow's.
OUTPUTS = ("datasets", "models", "reports")
PHASE = {"epochs": 3, "learning_rate": 1e-3, "warmup_fraction": 0.0, "patience": 0}
BOUNDS = {"min_agreement": 0.0, "max_accuracy_drop": 1.0}
#: Laid over the task's params: seconds instead of minutes, and no bound that chance could break.
TOY: dict[str, Any] = {
    "fetch": {"source": {"images_per_class": 24, "images_per_group": 2, "side_px": 64}},
    "prepare": {"val_fraction": 0.25, "test_fraction": 0.25, "near_duplicate_bits": 0},
    "audit": {"folds": 2, "accepted": "A toy, to be killed."},
    "train": {
        **{"backbone": "mobilenet_v3_small", "weights": "none", "image_px": 32, "views": 1},
        **{"head_phase": PHASE, "tail_phase": PHASE},
    },
    # Which file is served must not depend on how busy the machine is.
    "export": {
        **{"calibration_images": 8, "remedies": ["float_stem"], "min_speedup": 1e-6},
        **{**BOUNDS, "max_macro_f1_drop": 1.0},
    },
    "evaluate": {"resamples": 100},
    "gate": {
        **{"min_accuracy": 0.0, "min_macro_f1": 0.0, "max_recall_drop": 1.0},
        **{**BOUNDS, "max_int8_bytes": 10**9},
    },
}
#: A demand that every model meets.
ANY = [{"metric": "agreement", "at_least": 0.0}]
#: A head of boxes and one of masks need some places; their gates have demands, and no bounds.
PLACES = overlay(
    TOY,
    {
        "train": {"image_px": 64},
        "gate": {**dict.fromkeys(TOY["gate"]), "max_int8_bytes": 10**9, "demands": ANY},
    },
)
SETTINGS = {
    "cats_dogs": TOY,
    "hard_hat": overlay(PLACES, {"fetch": {"source": {"side_px": 96}}}),
    "polyp": PLACES,
    "flowers": overlay(PLACES, {"fetch": {"source": {"images_per_class": 6}}}),
}


class Undisturbed(NamedTuple):
    """One stage as it ran alone; outputs by name, before and after it."""

    elapsed_s: float
    first_write_s: float
    before: dict[str, bytes]
    after: dict[str, bytes]
    tracked: list[Any]


def preload(task: str) -> None:
    """Load what the stages load, and let them work on one core."""
    for name in ("MLFLOW_TRACKING_URI", "FIELDLENS_TRACKING"):
        os.environ.pop(name, None)
    os.environ["FIELDLENS_WORKERS"] = "1"
    go_quiet()
    for name in (
        *(f"pipelines.stages.{stage}" for stage in STAGES),
        *PRELOADED,
        f"pipelines.samples.{task}",
    ):
        importlib.import_module(name)
    import torch

    from pipelines.backbones.spec import torchvision_models

    torchvision_models()
    torch.set_num_threads(1)


class Laboratory:
    """A project that is put back to the beginning of a stage as often as one likes."""

    def __init__(self, folder: Path, task: str) -> None:
        self.task = task
        # Always at the same place: MLflow's store holds absolute paths.
        self.paths = Paths(folder / "project")
        self.kept, self.temporary = folder / "kept", folder / "tmp"
        self.temporary.mkdir()
        params = read_yaml(ROOT / "params.yaml")
        card = self.paths.task(task).card
        card.parent.mkdir(parents=True)
        shutil.copyfile(ROOT / "datasets" / task / "card.yaml", card)
        document = {
            "seed": params["seed"],
            "tasks": {task: overlay(params["tasks"][task], SETTINGS[task])},
        }
        # JSON is YAML 1.2.
        self.paths.params.write_text(json.dumps(document), encoding="utf-8")
        self.undisturbed = {stage: self.run_undisturbed(stage) for stage in STAGES}

    def run_undisturbed(self, stage: str) -> Undisturbed:
        """Run a stage, and keep the project as it was before."""
        before, seen = self.outputs(), self.state()
        shutil.copytree(self.paths.root, self.kept / stage)
        start, first_write_s = time.monotonic(), None
        process = self.start(stage)
        while process.is_alive():
            if first_write_s is None and self.state() != seen:
                first_write_s = time.monotonic() - start
            time.sleep(0.005)
        elapsed_s = time.monotonic() - start
        if process.exitcode:
            raise SystemExit(f"{stage} alone ended with {process.exitcode}: {self.stderr()}")
        return Undisturbed(elapsed_s, first_write_s or 0.0, before, self.outputs(), self.tracked())

    def kill_one(self, stage: str, draw: np.random.Generator) -> list[str] | None:
        """Kill a stage once and run it again: what is wrong; None if it ended before."""
        alone = self.undisturbed[stage]
        shutil.rmtree(self.paths.root)
        shutil.copytree(self.kept / stage, self.paths.root)
        is_while_writing = bool(draw.integers(2))
        span_s = alone.elapsed_s - (alone.first_write_s if is_while_writing else 0.0)
        delay_s = float(draw.uniform(0, span_s))
        seen = self.state()
        process = self.start(stage)
        while is_while_writing and process.is_alive() and self.state() == seen:
            time.sleep(0.001)
        process.join(delay_s)
        # Before it has a group of its own there is nothing else to kill.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.join()
        if process.exitcode != -signal.SIGKILL:
            return None
        faults = [
            f"{name} is half-written"
            for name, data in self.outputs().items()
            if data not in {alone.before.get(name), alone.after.get(name)}
        ]
        again = self.start(stage)
        again.join()
        if again.exitcode:
            faults.append(f"the second run ended with {again.exitcode}: {self.stderr()}")
        else:
            faults += self.faults(alone)
        moment = f"{stage} at {delay_s:.2f} s" + " of writing" * is_while_writing
        return [f"{moment}: {fault}" for fault in faults]

    def faults(self, alone: Undisturbed) -> list[str]:
        got, root = self.outputs(), self.paths.root
        names = sorted(got.keys() | alone.after.keys())
        faults = [f"{name} differs" for name in names if got.get(name) != alone.after.get(name)]
        faults += [
            f"{path.relative_to(root)} is left"
            for path in root.rglob("*")
            if path.name.startswith(".tmp") or path.name.endswith(("-journal", "-wal"))
        ]
        if (tracked := self.tracked()) != alone.tracked:
            faults.append(f"MLflow tells {tracked}, expected {alone.tracked}")
        return faults

    def start(self, stage: str) -> multiprocessing.process.BaseProcess:
        arguments = [
            stage,
            *([] if stage == "report" else [self.task]),
            "--root",
            str(self.paths.root),
        ]
        process = multiprocessing.get_context("fork").Process(target=self.work, args=(arguments,))
        process.start()
        return process

    def work(self, arguments: list[str]) -> None:
        """In the child: a command line in a process group of its own, whose words go to a file."""
        os.setsid()
        os.chdir(self.paths.root)
        words = os.open(self.kept.parent / "stderr.txt", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        for descriptor in (1, 2):
            os.dup2(words, descriptor)
        tempfile.tempdir = str(self.temporary)
        sys.exit(cli.main(arguments))

    def stderr(self) -> str:
        return (self.kept.parent / "stderr.txt").read_text(encoding="utf-8")[-2000:]

    def outputs(self) -> dict[str, bytes]:
        """Bytes of every output by name; a name that starts with ``.tmp-`` is none."""
        root = self.paths.root
        return {
            str(path.relative_to(root)): path.read_bytes()
            for top in OUTPUTS
            for path in sorted((root / top).rglob("*"))
            if path.is_file() and not any(part.startswith(".tmp-") for part in path.parts)
        }

    def state(self) -> set[tuple[str, int]]:
        """Names and times of all that lies in the project, but for the lock."""
        found = set()
        for folder, folders, files in os.walk(self.paths.root):
            for name in (*folders, *files):
                if folder.endswith("locks") or name in {".cache", "locks"}:
                    continue
                with contextlib.suppress(FileNotFoundError):
                    path = f"{folder}/{name}"
                    found.add((path, os.stat(path).st_mtime_ns))  # noqa: PTH116 (speed)
        return found

    def tracked(self) -> list[Any]:
        """What MLflow's store tells of runs and released models, without ids and times."""
        if not self.paths.mlflow_db.is_file():
            return []
        with contextlib.closing(sqlite3.connect(self.paths.mlflow_db)) as store:

            def ask(query: str, *values: str) -> list[Any]:
                return sorted(store.execute(query, values).fetchall())

            runs = [
                (
                    status,
                    # Latencies are the machine's; they stand beside the others.
                    [
                        row
                        for row in ask(
                            "SELECT key, step, value FROM metrics WHERE run_uuid = ?", run
                        )
                        if not row[0].endswith("_ms")
                    ],
                    ask("SELECT key, value FROM params WHERE run_uuid = ?", run),
                    sorted(path.name for path in Path(place.removeprefix("file://")).glob("*")),
                )
                for run, status, place in ask("SELECT run_uuid, status, artifact_uri FROM runs")
            ]
            aliases = ask("SELECT name, alias, version FROM registered_model_aliases")
            versions = ask("SELECT name, version, status, current_stage FROM model_versions")
        return [sorted(runs), aliases, versions]


def main(n_kills: int, seed: int, task: str = "cats_dogs") -> None:
    """Kill the stages in turn until there were so many kills; a line a fault, and the sum."""
    preload(task)
    draw = np.random.default_rng(seed)
    n_done, faults = 0, list[str]()
    with tempfile.TemporaryDirectory() as folder:
        laboratory = Laboratory(Path(folder), task)
        for turn in range(4 * n_kills):
            found = laboratory.kill_one(STAGES[turn % len(STAGES)], draw)
            if found is not None:
                n_done += 1
                faults += found
            if n_done == n_kills:
                break
    sys.stdout.writelines(f"{fault[:600]}\n" for fault in faults)
    sys.stdout.write(f"{n_done} kills, {len(faults)} faults\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
