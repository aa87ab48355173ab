"""Fieldlens as a library: all that a program needs to use a model.

    from fieldlens import Predictor

    predictor = Predictor.load("models/tomato_leaf/mobile")
    answer = predictor.predict("leaf.jpg")
    print(answer.label, answer.probabilities[answer.label], answer.is_foreign)

What stands in `__all__` is the public surface, and changes with a line in CHANGELOG.md; `pipelines`
and `apps` behind it may change at any time. A name is imported when it is first asked for (PEP
562), so that using a model loads neither torch nor MLflow nor DVC.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pipelines import __version__ as __version__

if TYPE_CHECKING:
    from pipelines.errors import BundleError, CorruptImageError
    from pipelines.errors import PipelineError as FieldlensError
    from pipelines.serving.bundle import Bundle
    from pipelines.serving.bundle import read_bundle as load_bundle
    from pipelines.serving.predictor import Prediction, Predictor

__all__ = [
    "Bundle",
    "BundleError",
    "CorruptImageError",
    "FieldlensError",
    "Prediction",
    "Predictor",
    "__version__",
    "load_bundle",
]

#: By public name, where it is found; what stands above for type checkers, once more.
_PLACES = {
    "Bundle": "pipelines.serving.bundle:Bundle",
    "BundleError": "pipelines.errors:BundleError",
    "CorruptImageError": "pipelines.errors:CorruptImageError",
    "FieldlensError": "pipelines.errors:PipelineError",
    "Prediction": "pipelines.serving.predictor:Prediction",
    "Predictor": "pipelines.serving.predictor:Predictor",
    "load_bundle": "pipelines.serving.bundle:read_bundle",
}


# Hidden from type checkers, to which it would say that every name is there.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name not in _PLACES:
            raise AttributeError(f"module 'fieldlens' has no attribute {name!r}")
        module, attribute = _PLACES[name].split(":")
        value = getattr(import_module(module), attribute)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
