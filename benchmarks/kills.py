"""What is left when a stage is killed (SIGKILL) at a random moment, and what the next run makes.

On a small project of its own: painted pictures, MobileNetV3-Small from scratch, 32 px, MLflow on.
First all stages run undisturbed. Then, for each kill, the project is put back to where the stage
begins, the stage is started, killed with all its processes, and started again. Half of the kills
come at any moment of the process's life, half between its first writing to the project and its end.
Checked: after the kill no output is half-written; after the second run all outputs are those of
the undisturbed run, byte for byte, no temporary file is left, and MLflow tells of one whole run.

    python benchmarks/kills.py --kills 42
    python benchmarks/kills.py --kills 8 --stages prepare train
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import math
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from report import ROOT, header, make_parser, run, say, table

from pipelines import cli
from pipelines.commands.workspace import overlay
from pipelines.errors import PipelineError
from pipelines.paths import Paths
from pipelines.quiet import go_quiet
from pipelines.stages.code import STAGES
from pipelines.strict_yaml import read_yaml

TASK = "cats_dogs"
#: Loaded late by the stages themselves.
_PRELOADED = (
    *("mlflow", "mlflow.onnx", "mlflow.store.tracking.sqlalchemy_store", "onnx", "onnxscript"),
    *("torch.onnx", "matplotlib.pyplot", "albumentations", "sklearn.metrics"),
    f"pipelines.samples.{TASK}",
)
#: What a stage leaves for the next one; the rest is caches, locks and MLflow's.
_OUTPUTS = ("datasets", "models", "reports")
_PHASE = {"epochs": 3, "learning_rate": 1e-3, "warmup_fraction": 0.0, "patience": 0}
#: Laid over the task's params: seconds instead of minutes, and no bound that chance could break.
_TOY: dict[str, Any] = {
    "fetch": {"source": {"images_per_class": 24, "images_per_group": 2, "side_px": 64}},
    "prepare": {"val_fraction": 0.25, "test_fraction": 0.25, "near_duplicate_bits": 0},
    "audit": {"folds": 2, "accepted": "A toy, to be killed."},
    "train": {
        "backbone": "mobilenet_v3_small",
        "weights": "none",
        "image_px": 32,
        "views": 1,
        "head_phase": _PHASE,
        "tail_phase": _PHASE,
    },
    "export": {
        "calibration_images": 8,
        "remedies": ["float_stem"],
        "min_agreement": 0.0,
        "max_accuracy_drop": 1.0,
        "max_macro_f1_drop": 1.0,
        # Which file is served must not depend on how busy the machine is.
        "min_speedup": 1e-6,
    },
    "evaluate": {"resamples": 100},
    "gate": {
        "min_accuracy": 0.0,
        "min_macro_f1": 0.0,
        "min_agreement": 0.0,
        "max_accuracy_drop": 1.0,
        "max_recall_drop": 1.0,
        "max_int8_bytes": 10**9,
    },
}


@dataclass(frozen=True, slots=True)
class Undisturbed:
    """One stage as it ran alone.

    Attributes:
        elapsed_s: wall time.
        first_write_s: until something of the project changed.
        before: bytes of the outputs by name, before it.
        after: the same, after it.
        tracked: what MLflow then tells.
    """

    elapsed_s: float
    first_write_s: float
    before: dict[str, bytes]
    after: dict[str, bytes]
    tracked: Any


@dataclass(slots=True)
class Tally:
    """What the kills of one stage came to."""

    n_kills: int = 0
    #: Kills after which something of the project had changed already.
    n_after_writing: int = 0
    n_ended_first: int = 0
    faults: list[str] = field(default_factory=list)


class Child:
    """A process of its own for some work, with a group of its own; it starts with what is loaded.

    Forked, so that forty kills do not import PyTorch and MLflow eighty times.
    """

    def __init__(self, work: Callable[[], int], folder: Path, temporary: Path) -> None:
        """Begin the work in a folder, with a folder for temporary files."""
        self._returncode: int | None = None
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid:
            return
        status = 1
        try:
            os.setsid()
            os.chdir(folder)
            silence = os.open(os.devnull, os.O_RDWR)
            for descriptor in (0, 1):
                os.dup2(silence, descriptor)
            os.dup2(os.open(folder.parent / "stderr.txt", os.O_CREAT | os.O_WRONLY | os.O_TRUNC), 2)
            tempfile.tempdir = str(temporary)
            status = work()
        except BaseException:  # noqa: BLE001 (told, and the process ends)
            traceback.print_exc()
        finally:
            os._exit(status)

    def poll(self) -> int | None:
        """Exit code, or minus the signal's number; None while it works."""
        if self._returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._returncode = os.waitstatus_to_exitcode(status)
        return self._returncode

    def wait(self, timeout_s: float = math.inf) -> int | None:
        """The same, once it has ended or the time is over."""
        end = time.monotonic() + timeout_s
        while self.poll() is None and time.monotonic() < end:
            time.sleep(0.002)
        return self._returncode

    def kill(self) -> None:
        """SIGKILL for it and all that it has started."""
        if self.poll() is None:
            # Before it has a group of its own there is nothing else to kill.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            os.kill(self.pid, signal.SIGKILL)


def preload() -> None:
    """Load what the stages load, and let them work on one core."""
    for name in ("MLFLOW_TRACKING_URI", "FIELDLENS_TRACKING"):
        os.environ.pop(name, None)
    os.environ["FIELDLENS_WORKERS"] = "1"
    go_quiet()
    for stage in STAGES:
        importlib.import_module(f"pipelines.stages.{stage}")
    for name in _PRELOADED:
        importlib.import_module(name)
    import torch

    from pipelines.backbones.registry import torchvision_models

    torchvision_models()
    # Threads do not survive a fork, so none may be started before.
    torch.set_num_threads(1)


class Laboratory:
    """A project that is put back to the beginning of a stage as often as one likes."""

    def __init__(self, folder: Path, stages: Sequence[str] = STAGES) -> None:
        """Make the project in an empty folder."""
        # Always at the same place: MLflow's store holds absolute paths.
        self.paths = Paths(folder / "project")
        self.stages = stages
        self.undisturbed: dict[str, Undisturbed] = {}
        self._kept = folder / "kept"
        self._temporary = folder / "tmp"
        self._temporary.mkdir()
        params = read_yaml(ROOT / "params.yaml")
        task = overlay(params["tasks"][TASK], _TOY)
        card = self.paths.task(TASK).card
        card.parent.mkdir(parents=True)
        shutil.copyfile(ROOT / "datasets" / TASK / "card.yaml", card)
        # JSON is YAML 1.2.
        document = {"seed": params["seed"], "tasks": {TASK: task}}
        self.paths.params.write_text(json.dumps(document), encoding="utf-8")

    def run_undisturbed(self) -> None:
        """Run all stages, and keep the project as it is before each.

        Raises:
            PipelineError: if a stage fails.
        """
        for stage in STAGES:
            before = self.outputs()
            shutil.copytree(self.paths.root, self._kept / stage)
            seen = self._state()
            start = time.monotonic()
            first_write_s = None
            process = self._start(stage)
            while process.poll() is None:
                if first_write_s is None and self._state() != seen:
                    first_write_s = time.monotonic() - start
                time.sleep(0.005)
            elapsed_s = time.monotonic() - start
            if process.wait() != 0:
                said = (self._temporary.parent / "stderr.txt").read_text(encoding="utf-8")
                raise PipelineError(f"{stage}: ended with {process.wait()}: {said[-2000:]}")
            self.undisturbed[stage] = Undisturbed(
                elapsed_s, first_write_s or 0.0, before, self.outputs(), self._tracked()
            )

    def kill_one(self, stage: str, draw: np.random.Generator, tally: Tally) -> None:
        """Kill a stage once, run it again and note what is wrong.

        Args:
            stage: which.
            draw: gives the moment.
            tally: of the stage.
        """
        alone = self.undisturbed[stage]
        shutil.rmtree(self.paths.root)
        shutil.copytree(self._kept / stage, self.paths.root)
        is_while_writing = bool(draw.integers(2))
        span_s = alone.elapsed_s - (alone.first_write_s if is_while_writing else 0.0)
        delay_s = float(draw.uniform(0, span_s))
        seen = self._state()
        process = self._start(stage)
        while is_while_writing and process.poll() is None and self._state() == seen:
            time.sleep(0.001)
        process.wait(delay_s)
        process.kill()
        if process.wait() != -signal.SIGKILL:
            tally.n_ended_first += 1
            return
        tally.n_kills += 1
        tally.n_after_writing += self._state() != seen
        moment = f"kill {tally.n_kills} at {delay_s:.2f} s" + " of writing" * is_while_writing
        for name, data in self.outputs().items():
            if data not in {alone.before.get(name), alone.after.get(name)}:
                tally.faults.append(f"{moment}: {name} is half-written")
        if (returncode := self._start(stage).wait()) != 0:
            tally.faults.append(f"{moment}: the second run ended with {returncode}")
            return
        tally.faults += [f"{moment}: {fault}" for fault in self._faults(alone)]

    def _faults(self, alone: Undisturbed) -> list[str]:
        got = self.outputs()
        faults = [
            f"{name} differs"
            for name in sorted(got.keys() | alone.after.keys())
            if got.get(name) != alone.after.get(name)
        ]
        root = self.paths.root
        faults += [
            f"{path.relative_to(root)} is left"
            for path in root.rglob("*")
            if path.name.startswith(".tmp") or path.name.endswith(("-journal", "-wal"))
        ]
        tracked = self._tracked()
        if tracked != alone.tracked:
            faults.append(f"MLflow tells {tracked}, expected {alone.tracked}")
        return faults

    def outputs(self) -> dict[str, bytes]:
        """Bytes of every output by name; a name that starts with ``.tmp-`` is none."""
        root = self.paths.root
        return {
            str(path.relative_to(root)): path.read_bytes()
            for top in _OUTPUTS
            for path in sorted((root / top).rglob("*"))
            if path.is_file() and not any(p.startswith(".tmp-") for p in path.parts)
        }

    def n_system_temporaries(self) -> int:
        """Entries that killed processes left in the system's folder for temporary files."""
        return sum(1 for _ in self._temporary.iterdir())

    def _start(self, stage: str) -> Child:
        arguments = [stage, *([] if stage == "report" else [TASK]), "--root", str(self.paths.root)]
        return Child(lambda: cli.main(arguments), self.paths.root, self._temporary)

    def _state(self) -> set[tuple[str, int]]:
        """Names and times of all that lies in the project, but for the lock."""
        found = set()
        for folder, folders, files in os.walk(self.paths.root):
            if folder.endswith("locks"):
                continue
            for name in (*folders, *files):
                if name in {".cache", "locks"}:
                    continue
                with contextlib.suppress(FileNotFoundError):
                    path = f"{folder}/{name}"
                    found.add((path, os.stat(path).st_mtime_ns))  # noqa: PTH116 (speed)
        return found

    def _tracked(self) -> Any:
        """What MLflow tells of runs and released models, without ids and times."""
        if not self.paths.mlflow_db.is_file():
            return []
        told = self._temporary.parent / "told.json"

        def write() -> int:
            told.write_text(json.dumps(tell(self.paths.mlflow_db)), encoding="utf-8")
            return 0

        if Child(write, self.paths.root, self._temporary).wait() != 0:
            said = (self._temporary.parent / "stderr.txt").read_text(encoding="utf-8")
            raise PipelineError(f"MLflow's store cannot be read: {said[-2000:]}")
        return json.loads(told.read_text(encoding="utf-8"))


def tell(database: Path) -> list[Any]:
    """Runs and released models of a store, without ids and times.

    Args:
        database: mlflow.db.
    """
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{database}")
    experiments = [found.experiment_id for found in client.search_experiments()]
    told: list[Any] = []
    for run_ in client.search_runs(experiments):
        history = [
            (name, entry.step, entry.value)
            for name in sorted(run_.data.metrics)
            # Latencies are the machine's; they stand beside the others.
            if not name.endswith("_ms")
            for entry in client.get_metric_history(run_.info.run_id, name)
        ]
        files = sorted(item.path for item in client.list_artifacts(run_.info.run_id))
        told.append(
            {
                "status": run_.info.status,
                "metrics": sorted(history),
                "params": dict(sorted(run_.data.params.items())),
                "files": files,
            }
        )
    for model in client.search_registered_models():
        versions = client.search_model_versions(f"name = '{model.name}'")
        told.append([model.name, model.aliases, sorted(v.status for v in versions)])
    return told


def measure(arguments: argparse.Namespace) -> None:
    """Print a row a stage, and what was wrong."""
    preload()
    header("Kills")
    with tempfile.TemporaryDirectory() as temporary:
        laboratory = Laboratory(Path(temporary))
        start = time.monotonic()
        laboratory.run_undisturbed()
        tallies = kill_all(laboratory, arguments.stages, arguments.kills, arguments.seed)
        elapsed_s = time.monotonic() - start
        n_left = laboratory.n_system_temporaries()
    rows = [
        [
            stage,
            f"{laboratory.undisturbed[stage].elapsed_s:.1f}",
            *map(str, (tally.n_kills, tally.n_after_writing, tally.n_ended_first)),
            str(len(tally.faults)),
        ]
        for stage, tally in tallies.items()
    ]
    table(["stage", "s alone", "kills", "after it had written", "ended first", "faults"], rows)
    total = Counter[str]()
    for tally in tallies.values():
        total.update(kills=tally.n_kills, faults=len(tally.faults))
    say(
        f"{total['kills']} kills, {total['faults']} faults, in {elapsed_s:.0f} s; "
        f"{n_left} entries left in the system's temporary folder.",
        "",
    )
    for stage, tally in tallies.items():
        say(*(f"- {stage}: {fault[:600]}" for fault in tally.faults))


def kill_all(
    laboratory: Laboratory, stages: Sequence[str], n_kills: int, seed: int
) -> dict[str, Tally]:
    """Kill stages in turn until there were so many kills.

    Args:
        laboratory: after `Laboratory.run_undisturbed`.
        stages: to kill.
        n_kills: in all.
        seed: draws the moments.
    """
    draw = np.random.default_rng(seed)
    tallies = {stage: Tally() for stage in stages}
    for turn in range(4 * n_kills):
        if sum(tally.n_kills for tally in tallies.values()) >= n_kills:
            break
        stage = stages[turn % len(stages)]
        laboratory.kill_one(stage, draw, tallies[stage])
        sys.stderr.write(f"{stage}: {tallies[stage]}\n"[:300] + "\n")
    return tallies


def main() -> int:
    """Parse, run, print."""
    parser = make_parser(__doc__)
    parser.add_argument("--kills", type=int, default=42, help="how many in all (42)")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--seed", type=int, default=1, help="draws the moments (1)")
    return run(measure, parser)


if __name__ == "__main__":
    sys.exit(main())
