"""A quiet process: nothing phones home, and waiting threads sleep.

`SWITCHES` is set at import of the package `pipelines` (and of `apps`), which comes before its
modules and so before what they import: ONNX Runtime starts to report in its own C++ while it is
imported, and a call that forbids it comes too late. Child processes inherit the environment. A
value that the user has set is left alone.
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
    "ORT_DISABLE_TELEMETRY": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "STREAMLIT_BROWSER_GATHER_USAGE_STATS": "false",
}

#: What a command of this project wants besides, and a program that imports it as a library may not.
_OF_COMMANDS = {
    # Without git, MLflow warns at each import.
    "GIT_PYTHON_REFRESH": "quiet",
    # OpenMP's waiting threads spin by default. On two cores with one of them busy, that slowed the
    # training of a tail to a fifth (docs/experiments/training.md). Read when torch is loaded.
    "OMP_WAIT_POLICY": "PASSIVE",
    # Threads of OpenBLAS (NumPy's, SciPy's; not torch's) spin whatever is said, and one has done
    # short vectors before the others wake: a probe of 6,000 images took seven times the processor's
    # time on two (docs/experiments/time_and_memory.md). Read when NumPy is loaded.
    "OPENBLAS_NUM_THREADS": "1",
}


def switch_off_reports(environ: MutableMapping[str, str] = os.environ) -> None:
    """Set each of `SWITCHES` that is not set yet, for this process and its children."""
    for name, value in SWITCHES.items():
        environ.setdefault(name, value)


def go_quiet(environ: MutableMapping[str, str] = os.environ) -> None:
    """The same, and what a command of this project wants besides."""
    switch_off_reports(environ)
    for name, value in _OF_COMMANDS.items():
        environ.setdefault(name, value)
