"""`fieldlens doctor`: is all there, is all sound, and what should be run next?

Looks, and changes nothing; with ``fix`` it records in MLflow the bundles that have no run. Each
check gives findings; a finding that needs the user makes the exit code 2. Works where only serving
is installed.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from typing import Literal

from pipelines.columns import table
from pipelines.commands.answer import Answer
from pipelines.config.params import Params, load_params
from pipelines.errors import BundleError
from pipelines.paths import Paths
from pipelines.serving.bundle import Bundle, read_bundle

State = Literal["ok", "note", "mend"]

_SERVING = ("numpy", "onnxruntime", "pillow", "pydantic", "ruamel.yaml")
_TRAINING = (
    *("torch", "torchvision", "timm", "onnx", "albumentations", "scikit-learn"),
    *("matplotlib", "mlflow", "dvc"),
)
#: Long enough for seven tasks on a slow disk; a hanging DVC must not hang the doctor.
_DVC_TIMEOUT_S = 120
_NAMED_STAGES = 4


@dataclass(frozen=True, slots=True)
class Finding:
    """One row: ``note`` for what may stay as it is, ``mend`` for what needs the user."""

    state: State
    what: str
    found: str
    #: A command or an action; empty if there is nothing to do.
    next_step: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Whether to mend."""
    parser.add_argument("--fix", action="store_true", help="record what MLflow has missed")


def main(arguments: argparse.Namespace, paths: Paths) -> Answer:
    """All findings as a table, and what to do next."""
    params = load_params(paths.params)
    bundles, findings = _bundles(paths, params)
    findings = [
        *_versions(),
        *_weights(paths, params),
        *_dvc(paths),
        *findings,
        *_tracking(paths, params, bundles, fix=arguments.fix),
    ]
    rows = [(finding.state, finding.what, finding.found) for finding in findings]
    steps = list(dict.fromkeys(finding.next_step for finding in findings if finding.next_step))
    lines = [table(("STATE", "WHAT", "FOUND"), rows), ""]
    lines += ["Next:", *(f"  {step}" for step in steps)] if steps else ["All is well."]
    needs_user = any(finding.state == "mend" for finding in findings)
    return Answer("\n".join(lines), exit_code=2 if needs_user else 0)


def _versions() -> Iterable[Finding]:
    yield Finding("ok", "python", platform.python_version())
    for name in _SERVING:
        version = _version(name)
        if version is None:
            yield Finding("mend", name, "not installed; serving needs it", "make setup")
        else:
            yield Finding("ok", name, version)
    versions = {name: _version(name) for name in _TRAINING}
    absent = [name for name, version in versions.items() if version is None]
    present = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    if present:
        yield Finding("ok", "training", present)
    if absent:
        found = f"not installed: {', '.join(absent)} (serving does without)"
        yield Finding("note", "training", found, "pip install 'fieldlens[train]' to train")


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _weights(paths: Paths, params: Params) -> Iterable[Finding]:
    if _version("torch") is None:
        return  # serving needs no initial weights
    from pipelines.backbones.spec import backbone
    from pipelines.backbones.weights import inspect

    trained = [section.train for section in params.tasks.values()]
    for network in dict.fromkeys(backbone(each.backbone, each.width) for each in trained):
        what, providers = f"weights {network.title}", inspect(paths.weights_dir, [network])
        here = next((each for each in providers if each.path is not None), None)
        changed = next((each for each in providers if each.fault), None)
        if here is not None:
            yield Finding("ok", what, f"{here.provider.title}: {here.path}")
        elif changed is not None:
            yield Finding("mend", what, changed.fault, "remove the file that changed")
        else:
            tried = ", ".join(each.provider.title for each in providers) or "nobody"
            yield Finding("note", what, f"not here yet; `train` will ask {tried}")


def _dvc(paths: Paths) -> Iterable[Finding]:
    if not (paths.root / ".dvc").is_dir():
        yield Finding(
            "mend", "dvc", f"{paths.root.resolve()} is no DVC workspace", "git clone it anew"
        )
        return
    try:
        status = subprocess.run(
            # Without the boards, which run when they are asked for.
            [sys.executable, "-m", "dvc", "status", "--json", paths.dvc_yaml.name],
            cwd=paths.root,
            capture_output=True,
            text=True,
            check=False,
            timeout=_DVC_TIMEOUT_S,
        )
        stale = json.loads(status.stdout)
    except (OSError, subprocess.TimeoutExpired, ValueError):
        yield Finding("mend", "dvc", "`dvc status` does not answer", "dvc status -v")
        return
    if not stale:
        yield Finding("ok", "dvc", "every stage is up to date")
        return
    names = ", ".join(list(stale)[:_NAMED_STAGES])
    more = f" and {len(stale) - _NAMED_STAGES} more" if len(stale) > _NAMED_STAGES else ""
    found = f"{len(stale)} stages are out of date: {names}{more}"
    yield Finding("mend", "dvc", found, "make repro (or `dvc repro <stage>@<task>`)")


def _bundles(paths: Paths, params: Params) -> tuple[dict[str, Bundle], list[Finding]]:
    bundles, findings = {}, []
    for task in params.tasks:
        path, what = paths.task(task).bundle, f"bundle {task}"
        if not path.exists():
            findings.append(Finding("note", what, "not made yet"))
            continue
        try:
            bundle = read_bundle(path)
        except BundleError as err:
            findings.append(Finding("mend", what, str(err), f"dvc repro -f export@{task}"))
            continue
        bundles[task] = bundle
        sizes = ", ".join(f"{name} {ref.size_bytes:,} bytes" for name, ref in bundle.files.items())
        found = (
            f"hashes hold; {sizes}; serves {bundle.served.precision}; "
            f"data: {bundle.provenance.data_source}; audit: {_verdict(bundle)}"
        )
        findings.append(Finding("ok", what, found))
    return bundles, findings


def _verdict(bundle: Bundle) -> str:
    if bundle.audit is None:
        return "none"
    is_accepted = bundle.audit.verdict == "shortcut" and bundle.audit.accepted is not None
    return f"{bundle.audit.verdict}, accepted" if is_accepted else bundle.audit.verdict


def _tracking(
    paths: Paths, params: Params, bundles: dict[str, Bundle], *, fix: bool
) -> Iterable[Finding]:
    from pipelines.tracking import runs

    tracker = runs.Tracker(paths)
    if not tracker.is_on:
        yield Finding("note", "mlflow", "off (FIELDLENS_TRACKING)")
        return
    if tracker.artifacts_dir is not None and not paths.mlflow_db.exists() and not fix:
        # Asking would make the store; the doctor only looks.
        state: State = "mend" if bundles else "note"
        step = "fieldlens doctor --fix" if bundles else ""
        yield Finding(state, "mlflow", "no store yet: nothing was trained here", step)
        return
    if tracker.call(lambda client: client.search_experiments(max_results=1)) is None:
        step = "mend MLFLOW_TRACKING_URI, or start the server"
        yield Finding("mend", "mlflow", "the store does not answer", step)
        return
    yield Finding("ok", "mlflow", "the store answers")
    for task, bundle in bundles.items():
        weights_sha256 = bundle.provenance.float_sha256
        if runs.find_run(paths, task, weights_sha256, tracker=tracker) is not None:
            version = runs.champion_version(tracker, task)
            champion = f"champion is version {version}" if version else "no champion yet"
            yield Finding("ok", f"run {task}", f"found by the weights' hash; {champion}")
        elif fix:
            is_recorded = _record(paths, params, task, bundle)
            state = "ok" if is_recorded else "mend"
            found = "was missing; recorded now" if is_recorded else "missing; MLflow took nothing"
            yield Finding(state, f"run {task}", found)
        else:
            found = "the bundle has no MLflow run"
            yield Finding("mend", f"run {task}", found, "fieldlens doctor --fix")


def _record(paths: Paths, params: Params, task: str, bundle: Bundle) -> bool:
    """Write the run that DVC's run cache, or a server that was away, has cost; whether it is in."""
    from pipelines.tracking import runs

    train = params.task(task).train
    made_of = bundle.provenance
    run = runs.record_training(
        paths,
        task,
        name=f"{made_of.backbone}-{train.strategy}",
        params=train.model_dump(mode="json"),
        tags=runs.training_tags(
            paths,
            task,
            bundle.domain,
            weights_sha256=made_of.float_sha256,
            data_sha256=made_of.data_sha256,
            params_sha256=made_of.params_sha256,
            data_source=made_of.data_source,
        ),
    )
    return run.run_id is not None
