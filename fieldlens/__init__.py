"""Fieldlens as a library: all that a program needs to use a model, and to make one.

    from fieldlens import Predictor

    predictor = Predictor.load("models/tomato_leaf/mobile")
    answer = predictor.predict("leaf.jpg")
    print(answer.label, answer.probabilities[answer.label], answer.is_ood)

`train` says how one is made. What stands in `__all__` is the public surface, and changes with a
line in CHANGELOG.md; `pipelines` and `apps` behind it may change at any time. A name is imported
when it is first asked for (PEP 562), so that using a model loads neither torch nor MLflow nor DVC.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pipelines import __version__ as __version__

if TYPE_CHECKING:
    from pipelines.config.params import load_params
    from pipelines.errors import BundleError, CorruptImageError
    from pipelines.errors import PipelineError as FieldlensError
    from pipelines.paths import Paths
    from pipelines.serving.bundle import Bundle
    from pipelines.serving.bundle import read_bundle as load_bundle
    from pipelines.serving.predictor import Prediction, Predictor
    from pipelines.training.job import Data as PreparedData
    from pipelines.training.job import Job as TrainJob
    from pipelines.training.job import TrainResult, train

__all__ = [
    "Bundle",
    "BundleError",
    "CorruptImageError",
    "FieldlensError",
    "Paths",
    "Prediction",
    "Predictor",
    "PreparedData",
    "TrainJob",
    "TrainResult",
    "__version__",
    "load_bundle",
    "load_params",
    "train",
]

#: By public name, where it is found; what stands above for type checkers, once more.
_PLACES = {
    "Bundle": "pipelines.serving.bundle:Bundle",
    "BundleError": "pipelines.errors:BundleError",
    "CorruptImageError": "pipelines.errors:CorruptImageError",
    "FieldlensError": "pipelines.errors:PipelineError",
    "Paths": "pipelines.paths:Paths",
    "Prediction": "pipelines.serving.predictor:Prediction",
    "Predictor": "pipelines.serving.predictor:Predictor",
    "PreparedData": "pipelines.training.job:Data",
    "TrainJob": "pipelines.training.job:Job",
    "TrainResult": "pipelines.training.job:TrainResult",
    "load_bundle": "pipelines.serving.bundle:read_bundle",
    "load_params": "pipelines.config.params:load_params",
    "train": "pipelines.training.job:train",
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
