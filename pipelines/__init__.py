"""Fieldlens: from a domain's labelled images to a small, gated int8 model.

The rooms are described in docs/architecture.md. Of them only the switches are imported here, that
keep libraries from reporting home, so that serving code (`pipelines.serving.predictor`) can be
imported without torch, MLflow or DVC.
"""

from pipelines.quiet import switch_off_reports

#: Of the release, and written nowhere else: pyproject.toml, `fieldlens --version` and the package
#: `fieldlens` read it here.
__version__ = "0.2.0"

# Here, because nothing of this package can be imported earlier.
switch_off_reports()
