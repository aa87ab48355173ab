"""A quiet process: nothing phones home, and waiting threads sleep.

Set once by `pipelines.cli.main` (and by whatever else starts a process) before anything heavy is
imported; never at import of this module. A value that the user has set is left alone.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping

#: By environment variable, the value that keeps a third party quiet.
SWITCHES = {
    "DO_NOT_TRACK": "1",
    "DVC_NO_ANALYTICS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "NO_ALBUMENTATIONS_UPDATE": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "STREAMLIT_BROWSER_GATHER_USAGE_STATS": "false",
    # Not a report, but in the same room: without git, MLflow warns at each import.
    "GIT_PYTHON_REFRESH": "quiet",
    # OpenMP's waiting threads spin by default. On two cores with one of them busy, that slowed the
    # training of a tail to a fifth (docs/LOG.md, 2026-11-22). Read when torch is loaded.
    "OMP_WAIT_POLICY": "PASSIVE",
}


def go_quiet(environ: MutableMapping[str, str] = os.environ) -> None:
    """Set each switch that is not set yet, for this process and its children.

    Args:
        environ: the environment to change.
    """
    for name, value in SWITCHES.items():
        environ.setdefault(name, value)
