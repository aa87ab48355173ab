"""The released model of a task, brought back from MLflow's registry into a folder.

For `fieldlens app --registry`; no stage reads from MLflow (ADR 0006).
"""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import Any

from pipelines.atomic import write_bytes
from pipelines.errors import BundleError
from pipelines.paths import Paths, TaskPaths
from pipelines.serving.bundle import read_bundle
from pipelines.tracking.mlflow_store import CHAMPION, Tracker


def bring(paths: Paths, task: str, into: Paths) -> str:
    """Put the champion's bundle and model file where a project has them.

    Args:
        paths: the project whose store is asked.
        into: a folder that is laid out as a project.

    Raises:
        BundleError: if there is no champion, its store does not answer, or the file is another
            one than its bundle names.
    """
    tracker = Tracker(paths)
    with tempfile.TemporaryDirectory(prefix="fieldlens-") as scratch:

        def load(client: Any) -> str:
            import mlflow.artifacts

            champion = client.get_model_version_by_alias(task, CHAMPION)
            # Not models:/…: MLflow looks that up in the store of the process, not of this client.
            mlflow.artifacts.download_artifacts(
                artifact_uri=champion.source, dst_path=scratch, tracking_uri=tracker.uri
            )
            return str(champion.version)

        version = tracker.call(load)
        if version is None:
            raise BundleError(
                f"models:/{task}@{CHAMPION}: there is no released model in {tracker.uri}. "
                f"Run `dvc repro gate@{task}`, or start without --registry."
            )
        _install(Path(scratch), task, into.task(task))
    return version


def _install(folder: Path, task: str, files: TaskPaths) -> None:
    """The registered file beside its bundle, under the name that the bundle gives it."""
    bundle_path = next(folder.rglob("bundle.json"), None)
    if bundle_path is None:
        raise BundleError(f"models:/{task}@{CHAMPION}: it has no bundle.json beside it.")
    bundle = read_bundle(bundle_path, verify=False)
    wanted = bundle.files[bundle.served.precision]
    models = {
        hashlib.sha256(data).hexdigest(): data
        for path in sorted(folder.rglob("*.onnx"))
        for data in [path.read_bytes()]
    }
    if wanted.sha256 not in models:
        raise BundleError(
            f"models:/{task}@{CHAMPION}: no file in it is the one that its bundle names "
            f"(sha256 {wanted.sha256[:12]}…). Run `dvc repro gate@{task}` to register it anew."
        )
    write_bytes(files.mobile_dir / wanted.name, models[wanted.sha256])
    write_bytes(files.bundle, bundle_path.read_bytes())
