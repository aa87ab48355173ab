"""The names and values that tie an MLflow run to the files of the pipeline; knows no MLflow."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

from pipelines.paths import Paths

#: Tags by which later calls find a run, or a registered version, again.
WEIGHTS_TAG = "fieldlens.weights_sha256"
TRAINING_KEY_TAG = "fieldlens.training_key"
#: Of a run that is written after the fact, until it is whole: whose weights it will tell of.
RECORDING_TAG = "fieldlens.recording_of"
BUNDLE_TAG = "fieldlens.bundle_sha256"
#: What MLflow shows as a run's description, and the hash of what we wrote there.
DESCRIPTION_TAG = "mlflow.note.content"
OWN_DESCRIPTION_TAG = "fieldlens.description_sha256"
#: The registry's alias of the released version.
CHAMPION = "champion"


def training_tags(
    paths: Paths,
    task: str,
    domain: str,
    *,
    weights_sha256: str,
    data_sha256: str,
    params_sha256: str,
    data_source: str,
) -> dict[str, str]:
    """What ties a run to the files of the pipeline; set at the end of a training.

    Args:
        paths: the project, for its git revision.
        weights_sha256: of the float weights.
        data_sha256: of the prepared set.
        params_sha256: of the parameters that the training saw.
        data_source: ``sample`` or what was fetched.
    """
    return {
        "task": task,
        "domain": domain,
        WEIGHTS_TAG: weights_sha256,
        "fieldlens.data_sha256": data_sha256,
        "fieldlens.params_sha256": params_sha256,
        "fieldlens.git_rev": git_revision(paths.root),
        "fieldlens.data_source": data_source,
    }


def git_revision(root: Path) -> str:
    """The commit of a checkout, with ``-dirty`` where it differs, or ``unknown``.

    Args:
        root: a folder of the checkout.
    """
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        found = subprocess.run(
            command, cwd=root, capture_output=True, text=True, check=True, timeout=20
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return found.stdout.strip()


def flatten(values: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Nested mappings as one, with dotted names.

    Args:
        values: mappings within mappings.
        prefix: put before each name.
    """
    flat: dict[str, object] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat
