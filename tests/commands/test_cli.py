from __future__ import annotations

import errno
import logging
import os
import shlex
import subprocess
import sys
import time

import pytest

from pipelines import cli, locks
from pipelines.config.params import load_params
from pipelines.errors import GateError, MissingDataError
from pipelines.paths import Paths
from pipelines.stages import fetch, gate, prepare
from tests.processes import CLI, ROOT, python, ran

HEAVY = ("torch", "torchvision", "mlflow", "dvc", "numpy", "onnxruntime", "sklearn", "pydantic")


# -- help and usage -------------------------------------------------------------------------------
def test_help_loads_nothing_heavy_and_shows_examples():
    code = (
        "import sys\nfrom pipelines.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit as end: assert end.code == 0\n"
        f"loaded = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "assert not loaded, loaded"
    )
    said = python(code)
    assert "fieldlens predict leaf.jpg" in said
    for verb in cli.VERBS:
        assert f"\n    {verb}" in said


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_has_help_of_its_own(verb, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main([verb, "--help"])
    assert end.value.code == 0
    out = capsys.readouterr().out
    assert cli.VERBS[verb][1].split()[0] in out
    assert "--root DIR" in out


@pytest.mark.parametrize(
    "arguments",
    [
        [],  # no verb
        ["fly"],  # no such verb
        ["train"],  # no task
        ["train", "toy", "--epochs", "3"],  # hyperparameters are no options
        ["new", "x", "--domain", "music", "--from", "."],
        ["predict", "a.png", "--json", "--csv"],  # one form at a time
    ],
)
def test_usage_error_is_exit_code_2(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    assert end.value.code == 2
    assert "usage: fieldlens" in capsys.readouterr().err


# -- exit codes -----------------------------------------------------------------------------------
def test_stage_gets_its_own_section_and_the_lock(toy_project, monkeypatch):
    seen = []

    def fake(task, domain, params, seed, paths):
        seen.append((task, domain, params, seed, paths.task(task).lock.read_text()))

    monkeypatch.setattr(prepare, "run", fake)
    assert cli.main(["prepare", "toy", "--root", str(toy_project)]) == 0
    params = load_params(toy_project / "params.yaml")
    [(*given, lock)] = seen
    assert given == ["toy", "agriculture", params.task("toy").prepare, params.seed]
    assert f"process {os.getpid()} (prepare toy)" in lock


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (MissingDataError("no raw images.\nRun fetch."), 2, "fieldlens: no raw images. Run fetch."),
        (GateError("toy misses:\n  accuracy 0.5 < 0.8"), 3, "toy misses:\n  accuracy 0.5 < 0.8"),
        (OSError(errno.ENOSPC, "No space left on device", "a.bin"), 2, "a.bin: cannot be read or"),
        (OSError(errno.EACCES, "Permission denied", "b.bin"), 2, "Permission denied"),
        (OSError(errno.ENOENT, "No such file", "c.bin"), 1, "Traceback"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 1, "Traceback"),  # in a stage it is a bug
        (ZeroDivisionError("oh"), 1, "this is a bug"),
        (ModuleNotFoundError(name="torch"), 2, "torch is not installed. Install what making"),
        (ModuleNotFoundError(name="pipelines.gone"), 1, "this is a bug"),
        (ImportError("cannot import name 'gone'"), 1, "this is a bug"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_exit_code_and_message(error, code, says, toy_project, monkeypatch, capsys):
    def fail(*_arguments):
        raise error

    monkeypatch.setattr(gate, "run", fail)
    assert cli.main(["gate", "toy", "--root", str(toy_project)]) == code
    captured = capsys.readouterr()
    assert says in captured.err
    assert captured.out == ""
    if code == 2:
        assert captured.err.count("\n") == 1, "one line"
        assert cli.main(["gate", "toy", "--root", str(toy_project), "--verbose"]) == 2
        assert "Traceback" in capsys.readouterr().err


def test_unknown_task_lists_those_that_are_and_leaves_no_lock(toy_project, tmp_path, capsys):
    assert cli.main(["train", "toy", "--root", str(tmp_path)]) == 2
    assert "--root" in capsys.readouterr().err, "no project"
    assert cli.main(["train", "toyy", "--root", str(toy_project)]) == 2
    assert "no task 'toyy'. Expected one of toy, other" in capsys.readouterr().err
    assert not (toy_project / ".cache").exists()


@pytest.mark.parametrize("verb", ["fetch", "train"])
def test_kind_that_is_not_known_stops_any_stage(verb, toy_project, capsys):
    card = Paths(toy_project).task("toy").card
    card.write_text(card.read_text() + "kind: augury\n")
    assert cli.main([verb, "toy", "--root", str(toy_project)]) == 2
    said = capsys.readouterr().err
    assert "card.yaml: kind: expected one of classification" in said
    assert "got 'augury'" in said


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("val_fraction: 0.15", "val_fractoin: 0.15", "prepare.val_fractoin"),  # a misspelt key
        ("batch_size: 16", "batch_size: many", "train.batch_size"),  # a string for a number
        ("batch_size: 16", "batch_size: '16'", "train.batch_size"),
        ("val_fraction: 0.15", "val_fraction: 0.9", "prepare.val_fraction"),  # out of range
        ("strategy: cached", "strategy: magic", "train.strategy"),
        ("seed: 20261122", "seed: -1", "seed"),
        ("kind: sample", "kind: telepathy", "fetch.source"),
        ("tasks:", "tasks: [", "not valid YAML"),
    ],
)
def test_bad_params_is_one_line_and_exit_code_2(old, new, says, toy_project, capsys):
    path = toy_project / "params.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    assert cli.main(["prepare", "toy", "--root", str(toy_project)]) == 2
    message = capsys.readouterr().err
    assert says in message
    assert "params.yaml" in message
    assert message.count("\n") == 1


def test_unknown_backbone_is_one_line_that_lists_the_known(toy_project, prepared_task, capsys):
    path = toy_project / "params.yaml"
    path.write_text(path.read_text().replace("backbone: mobilenet_v2", "backbone: resnet_9000"))
    capsys.readouterr()
    assert cli.main(["train", prepared_task, "--root", str(toy_project)]) == 2
    message = capsys.readouterr().err
    assert "resnet_9000" in message
    assert "mobilenet_v2" in message
    assert message.count("\n") == 1


def test_two_at_once_second_is_refused_with_the_first_ones_process_id(toy_project):
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom pipelines import locks\n"
        "with locks.hold(Path(sys.argv[1]), 'train toy'):\n"
        "    print('held', flush=True)\n    time.sleep(60)"
    )
    lock = Paths(toy_project).task("toy").lock
    first = subprocess.Popen(
        [sys.executable, "-c", code, str(lock)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"
        start = time.monotonic()
        second = ran(*CLI, "train", "toy", "--root", toy_project, code=2)
        assert f"process {first.pid} (train toy)" in second.stderr
        assert second.stderr.count("\n") == 1
        assert time.monotonic() - start < 30, "refused, not waited for"
    finally:
        first.kill()
        first.communicate()
    # A killed holder leaves no lock behind: the next is stopped by what is missing, not by it.
    with locks.hold(lock, "train toy"):
        pass


# -- streams --------------------------------------------------------------------------------------
def test_reader_that_stops_early_is_no_error(toy_project):
    command = f"{shlex.join(CLI)} tasks --root {toy_project} | true"
    assert ran("bash", "-c", f"set -o pipefail; {command}").stderr == ""


def test_undecodable_file_name_is_shown_with_escapes(toy_bundle):
    name = b"caf\xe9.png".decode("utf-8", "surrogateescape")
    root = toy_bundle.parents[3]
    (root / name).write_bytes(b"")
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = ran(*CLI, "predict", name, "--root", root, cwd=root, environ=environ, code=2)
    assert "empty (0 bytes)" in done.stderr


def test_logs_go_to_stderr_and_are_not_doubled_by_a_second_call(toy_project, monkeypatch, capsys):
    def tell(*_arguments):
        logging.getLogger("pipelines.stages.fetch").info("painting")

    monkeypatch.setattr(fetch, "run", tell)
    for _ in range(2):
        assert cli.main(["fetch", "toy", "--root", str(toy_project)]) == 0
        captured = capsys.readouterr()
        assert captured.err == "painting\n"
        assert captured.out == ""
