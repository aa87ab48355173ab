"""Many questions to one function, asked by trials of Ray Tune (extra ``scale``, ADR 0039).

The questions are a list, as the cells of a board, or drawn by a sampler of Optuna, each by what the
answers before it were. Tune says which trial runs where; what has been answered is the caller's to
keep: `Trial`s are told one by one, as they end, in the process that asked.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from pipelines.errors import PipelineError, in_one_line
from pipelines.scale.cluster import Cluster

_LOG = logging.getLogger(__name__)

Question = Mapping[str, object]
Answer = Mapping[str, object]
Mode = Literal["min", "max"]

#: Processes that a question may end, by want of memory or with their node, before it is left.
_TRIES = 3
#: Names in what a trial reports beside its numbers.
_NUMBER, _STEP, _ANSWER, _ERROR = "number", "step", "answer", "error"
#: Seconds between two looks at what a sweep waits for, and two words about it.
_LOOK_S, _WORD_S = 5.0, 60.0
#: What keeps Tune from tables and logs, from taking Ctrl-C to itself, and from wanting a metric of
#: each report.
_SWITCHES = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
}


@dataclass(frozen=True, slots=True)
class Trial:
    """What has become of a question: one of answer, error and stopped.

    Attributes:
        answer: as the function gave it.
        error: of the function, or how its process was lost; one line.
        stopped: the step after which it was stopped, and the metric by which.
    """

    question: Question
    answer: Answer | None = None
    error: str | None = None
    stopped: tuple[int, float] | None = None


@dataclass(frozen=True, slots=True)
class Halving:
    """Stops hopeless trials: asynchronous successive halving.

    At 1, 3, 9, … steps a trial goes on if its metric is in the best third of those that came so
    far before it. The function tells its steps by `tell_step`.

    Attributes:
        metric: of the steps.
        max_steps: of a trial that is not stopped.

    References:
        Li et al. 2020, "A system for massively parallel hyperparameter tuning" (ASHA).
    """

    metric: str
    mode: Mode
    max_steps: int
    first: int = 1
    factor: float = 3.0


@dataclass(frozen=True, slots=True)
class Sampled:
    """Questions that a sampler of Optuna draws.

    Attributes:
        space: by name, a distribution of Optuna.
        sampler: of Optuna; it is pickled with the sweep's state.
        metric: number of an answer; an answer without it, or that is NaN, counts as failed.
        n_questions: how many to draw.
        known: questions with their metric, which the sampler learns from before it draws. One that
            draws blindly by its seed would draw them again: give it another seed.
    """

    space: Mapping[str, Any]
    sampler: Any
    metric: str
    mode: Mode
    n_questions: int
    known: Sequence[tuple[Question, float]] = ()


def tell_step(step: int, metrics: Mapping[str, float]) -> None:
    """What a function may call while it works, inside a trial: `Halving` looks at it.

    A trial that is stopped ends here.
    """
    from ray import tune

    tune.report({_STEP: step, **metrics})


def sweep(
    function: Callable[[dict[str, Any]], Answer],
    questions: Sequence[Question] | Sampled,
    cluster: Cluster,
    *,
    done: Callable[[Trial], None],
    begun: Callable[[Question], None] = lambda question: None,
    halving: Halving | None = None,
) -> None:
    """Ask each question once, by as many trials at a time as the cluster has workers.

    A trial has a processor and a thread, in a process that outlives it. One whose process is lost
    is asked again, twice.

    Args:
        function: picklable; an `Exception` of it is the trial's error. It must be importable, and
            the paths it reads must mean the same, on every node.
        done: hears of each trial as it ends; what it raises ends the sweep.
        begun: hears of each question as its trial begins, again where its process was lost.

    Raises:
        PipelineError: if no node with a processor is left.
    """
    if isinstance(questions, Sequence) and not questions:
        return
    os.environ.update(_SWITCHES)
    from ray import tune

    # It prints tables of trials, and for each that failed a page.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    asked = None if isinstance(questions, Sampled) else [dict(each) for each in questions]
    metric = "" if halving is None else halving.metric

    class Watch(_Watch, tune.Callback):  # type: ignore[misc]
        """As Tune knows it."""

    trial = tune.with_parameters(_trial, function=function, asked=asked)
    with TemporaryDirectory() as folder:
        tune.Tuner(
            tune.with_resources(trial, {"cpu": 1}),
            param_space=None
            if asked is None
            else {_NUMBER: tune.grid_search([*range(len(asked))])},
            tune_config=tune.TuneConfig(
                search_alg=_searcher(questions) if isinstance(questions, Sampled) else None,
                num_samples=questions.n_questions if isinstance(questions, Sampled) else 1,
                scheduler=None if halving is None else _scheduler(halving),
                max_concurrent_trials=cluster.n_workers,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="sweep",
                storage_path=folder,
                verbose=0,
                callbacks=[Watch(cluster.ray, asked, begun, done, metric)],
                failure_config=tune.FailureConfig(max_failures=_TRIES - 1),
            ),
        ).fit()


def _trial(
    config: dict[str, Any],
    *,
    function: Callable[[dict[str, Any]], Answer],
    asked: Sequence[dict[str, Any]] | None,
) -> None:
    """In a process of the cluster: one question."""
    from ray import tune

    # Ray has said the same to OpenMP.
    os.environ["FIELDLENS_WORKERS"] = "1"
    try:
        answer = dict(function(dict(config if asked is None else asked[config[_NUMBER]])))
    except Exception as err:  # noqa: BLE001 (to fail again would take two more processes)
        tune.report({_ERROR: in_one_line(err)})
        return
    numbers = {name: value for name, value in answer.items() if isinstance(value, int | float)}
    tune.report({**numbers, _ANSWER: answer})


def _scheduler(halving: Halving) -> Any:
    from ray.tune.schedulers import ASHAScheduler

    return ASHAScheduler(
        time_attr=_STEP,
        metric=halving.metric,
        mode=halving.mode,
        # It would stop the trial that reaches it, before its answer.
        max_t=halving.max_steps + 1,
        grace_period=halving.first,
        reduction_factor=halving.factor,
    )


def _searcher(sampled: Sampled) -> Any:
    from ray.tune.search.optuna import OptunaSearch

    class Search(OptunaSearch):  # type: ignore[misc]
        """Which takes an answer without its metric for a failure, and not for a bug."""

        def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
            """Nothing: what matters comes with the end."""

        def on_trial_complete(
            self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
        ) -> None:
            value = (result or {}).get(sampled.metric, math.nan)
            if error or not math.isfinite(value):
                super().on_trial_complete(trial_id, None, error=True)
            else:
                super().on_trial_complete(trial_id, result)

    return Search(
        dict(sampled.space),
        sampler=sampled.sampler,
        metric=sampled.metric,
        mode=sampled.mode,
        points_to_evaluate=[dict(question) for question, _ in sampled.known] or None,
        evaluated_rewards=[value for _, value in sampled.known] or None,
    )


class _Watch:
    """What Tune tells of its trials, as a `tune.Callback`; told on in the process that asked."""

    def __init__(
        self,
        ray: Any,
        asked: Sequence[Question] | None,
        begun: Callable[[Question], None],
        done: Callable[[Trial], None],
        metric: str,
    ) -> None:
        self._ray, self._asked, self._begun, self._done = ray, asked, begun, done
        self._metric = metric
        self._ended: list[Trial] = []
        self._looked = self._worked = self._said = time.monotonic()

    def __getstate__(self) -> dict[str, object]:
        """Nothing: Tune keeps its callbacks for a restoration that never comes."""
        return {}

    def _question(self, trial: Any) -> Question:
        if self._asked is None:
            return dict(trial.config)
        number: int = trial.config[_NUMBER]
        return self._asked[number]

    def on_trial_start(self, *, trial: Any, **_: Any) -> None:
        self._begun(self._question(trial))

    def on_trial_recover(self, *, trial: Any, **_: Any) -> None:
        _LOG.warning("a process was lost (%s): what it did is begun again", _cause(trial))

    def on_trial_complete(self, *, trial: Any, **_: Any) -> None:
        question, last = self._question(trial), trial.last_result
        if _ANSWER in last:
            self._ended.append(Trial(question, answer=last[_ANSWER]))
        elif _ERROR in last:
            self._ended.append(Trial(question, error=last[_ERROR]))
        else:
            self._ended.append(Trial(question, stopped=(last[_STEP], last[self._metric])))

    def on_trial_error(self, *, trial: Any, **_: Any) -> None:
        error = f"its process was lost {_TRIES} times, perhaps for want of memory"
        self._ended.append(Trial(self._question(trial), error=f"{error} ({_cause(trial)})"))

    def on_step_end(self, *, trials: Sequence[Any], **_: Any) -> None:
        # Here, because Tune takes what is raised elsewhere for an error of the trial.
        while self._ended:
            self._done(self._ended.pop(0))
        self._look(trials)

    def _look(self, trials: Sequence[Any]) -> None:
        """Tell of a sweep for which there is no processor: Tune would wait for ever."""
        now = time.monotonic()
        if any(trial.status == "RUNNING" for trial in trials):
            self._worked = now
        if now - max(self._looked, self._worked) < _LOOK_S:
            return
        self._looked = now
        if self._ray.cluster_resources().get("CPU", 0) < 1:
            raise PipelineError(
                "--address: no node with a processor is left in the cluster. What is done is "
                "kept: start one, then run the same command again."
            )
        if now - max(self._said, self._worked) > _WORD_S:
            self._said = now
            _LOG.warning("waiting for a processor of the cluster")


def _cause(trial: Any) -> str:
    """Of the last failure of a trial, the line that says most; from Tune's file of them."""
    try:
        text = Path(trial.error_file).read_text(encoding="utf-8", errors="replace")
    except (OSError, TypeError):
        return "no reason given"
    lines = [line.strip() for line in text.split("Failure # ")[-1].splitlines()[1:] if line.strip()]
    if not lines:
        return "no reason given"
    return lines[-1] if any("Traceback" in line for line in lines) else lines[0]
