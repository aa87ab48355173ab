"""`fieldlens <verb> [task]`: the only module that prints, and that ends the process.

Imports of a verb happen when it runs, so that `fieldlens --help` answers at once. Exit codes: 0
done, 1 a bug (traceback), 2 something the user can mend, 3 a model missed the gate, 130
interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines import locks
from pipelines.atomic import STORAGE_ERRNOS
from pipelines.errors import GateError, PipelineError, StorageError
from pipelines.paths import Paths
from pipelines.quiet import go_quiet

if TYPE_CHECKING:
    from pipelines.commands.answer import Answer
    from pipelines.config import Params

EXIT_BUG = 1
EXIT_INTERRUPTED = 130

_INTRODUCTION = """\
Phone-sized vision models for clinics, farms and factories: from labelled images to a gated int8
model. Each of the first seven verbs is a DVC stage; `dvc repro` runs those that are out of date.
"""

_EXAMPLES = """\
examples:
  fieldlens tasks                                    what there is, and how far each task has come
  fieldlens doctor                                   what is missing, and what to run next
  dvc repro gate@tomato_leaf                         one task, from images to a released model
  fieldlens train tomato_leaf                        one stage by hand, whatever DVC thinks of it
  fieldlens predict leaf.jpg --task tomato_leaf      labels, probabilities, latency
  fieldlens predict *.jpg --task tomato_leaf --json  the same for a program
  fieldlens new rice_leaf --domain agriculture --from ~/rice    a task from a folder a class

exit codes: 0 done · 1 a bug · 2 something you can mend · 3 a model missed the gate
Every number that a result depends on stands in params.yaml; no verb takes one as an option.
"""

#: By stage: what it gives.
_STAGES = {
    "fetch": "raw images of a task, from its source",
    "prepare": "a manifest: decoded, de-duplicated, split by group",
    "train": "the float model",
    "export": "the ONNX files, fp32 and int8, and the bundle's candidate",
    "evaluate": "metrics of the test split, and the finished bundle",
    "gate": "leave to release, or exit code 3 and what was missed",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line.

    Args:
        argv: arguments without the program's name; None for those of the process.

    Returns:
        The exit code.
    """
    go_quiet()
    arguments = _parser().parse_args(argv)
    _log_to_stderr(verbose=arguments.verbose)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A file name may hold bytes that are no text.
            stream.reconfigure(errors="backslashreplace")
    try:
        answer = _dispatch(arguments)
    except PipelineError as err:
        return _complain(err, verbose=arguments.verbose)
    except OSError as err:
        if err.errno not in STORAGE_ERRNOS:
            return _report_bug()
        where = err.filename or "the disk"
        storage = StorageError(
            f"{where}: cannot be read or written ({err.strerror}). "
            f"Free space or mend the permission, then run the same command again."
        )
        return _complain(storage, verbose=arguments.verbose)
    except KeyboardInterrupt:
        print("fieldlens: interrupted; nothing is half-written.", file=sys.stderr)
        return EXIT_INTERRUPTED
    except Exception:
        return _report_bug()
    return _show(answer) if answer is not None else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fieldlens",
        description=_INTRODUCTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--root",
        type=Path,
        default=Path(),
        metavar="DIR",
        help="project folder: the one with params.yaml (default: here)",
    )
    shared.add_argument(
        "--verbose", action="store_true", help="say more, and show where an error came from"
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB", title="verbs")

    def add(verb: str, gives: str) -> argparse.ArgumentParser:
        return verbs.add_parser(
            verb, help=gives, description=f"Gives {gives}.", parents=[shared], allow_abbrev=False
        )

    for verb, gives in _STAGES.items():
        add(verb, gives).add_argument("task", help="as in params.yaml, e.g. tomato_leaf")
    report = add("report", "reports/RESULTS.md and reports/index.html, over all tasks")
    report.add_argument(
        "--results", type=Path, metavar="FILE", help="also write the results of real images there"
    )
    _add_predict(add("predict", "labels and probabilities of pictures, and the latency"))
    _add_new(add("new", "a task for a folder of your own images: card, params, module, test"))
    add("tasks", "the tasks, and how far each has come")
    doctor = add("doctor", "versions, weights, DVC, MLflow and bundles, and what to run next")
    doctor.add_argument("--fix", action="store_true", help="record what MLflow has missed")
    workspace = add("workspace", "a second DVC workspace for folders of real images")
    workspace.add_argument("folder", type=Path, help="where to make it, e.g. .real")
    workspace.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="holds <task>/<class>/… folders"
    )
    return parser


def _add_predict(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE")
    parser.add_argument("--task", help="which model; needed where there are several")
    parser.add_argument("--bundle", type=Path, metavar="PATH", help="a bundle.json, or its folder")
    parser.add_argument("--json", action="store_true", dest="as_json", help="for a program")
    parser.add_argument(
        "--precision", choices=("fp32", "int8"), help="default: the one the bundle serves"
    )
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="default: 1")


def _add_new(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("task", help="slug: letters, digits and _, e.g. rice_leaf")
    parser.add_argument(
        "--domain", required=True, choices=("medical", "agriculture", "safety", "reference")
    )
    parser.add_argument(
        "--from",
        type=Path,
        required=True,
        dest="source",
        metavar="FOLDER",
        help="a folder a class, or records.csv with path, label and group",
    )


def _dispatch(arguments: argparse.Namespace) -> Answer | None:
    paths = Paths(arguments.root)
    match arguments.verb:
        case "predict":
            from pipelines.commands import predict

            return predict.run(
                paths,
                arguments.images,
                task=arguments.task,
                bundle_path=arguments.bundle,
                precision=arguments.precision,
                n_threads=arguments.threads,
                as_json=arguments.as_json,
            )
        case "new":
            from pipelines.commands import new

            return new.run(paths, arguments.task, arguments.domain, arguments.source)
        case "workspace":
            from pipelines.commands import workspace

            return workspace.run(paths, arguments.folder, arguments.data)
        case "tasks":
            from pipelines.commands import tasks

            return tasks.run(paths)
        case "doctor":
            from pipelines.commands import doctor

            return doctor.run(paths, fix=arguments.fix)
    from pipelines.config import load_params

    params = load_params(paths.params)
    if arguments.verb == "report":
        from pipelines.stages import report

        report.run(paths, params)
        if arguments.results is not None:
            report.write_results(paths, params, arguments.results)
        return None
    # Before the lock, so that a misspelt task leaves no lock file behind.
    params.task(arguments.task)
    with locks.hold(paths.task(arguments.task).lock, f"{arguments.verb} {arguments.task}"):
        _run_stage(arguments.verb, arguments.task, params, paths)
    return None


def _run_stage(verb: str, task: str, params: Params, paths: Paths) -> None:
    section = params.task(task)
    match verb:
        case "fetch":
            from pipelines.stages import fetch

            fetch.run(task, section.domain, section.fetch, params.seed, paths)
        case "prepare":
            from pipelines.stages import prepare

            prepare.run(task, section.domain, section.prepare, params.seed, paths)
        case "train":
            from pipelines.stages import train

            train.run(task, section.domain, section.train, params.seed, paths)
        case "export":
            from pipelines.stages import export

            export.run(task, section.export, params.seed, paths)
        case "evaluate":
            from pipelines.stages import evaluate

            evaluate.run(task, section.evaluate, paths)
        case "gate":
            from pipelines.stages import gate

            gate.run(task, section.gate, paths)


def _log_to_stderr(*, verbose: bool) -> None:
    """Messages of this project on stderr; those of libraries only from a warning up."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("pipelines")
    for old in list(logger.handlers):
        logger.removeHandler(old)
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG if verbose else logging.INFO)
    logger.propagate = False


def _complain(err: PipelineError, *, verbose: bool) -> int:
    """Show what the user can mend: one line, but for the gate's table."""
    if verbose:
        traceback.print_exc()
    message = str(err) if isinstance(err, GateError) else " ".join(str(err).split())
    print(f"fieldlens: {message}", file=sys.stderr)
    return err.exit_code


def _report_bug() -> int:
    traceback.print_exc()
    print(
        "fieldlens: this is a bug. Please report it with the lines above and the command.",
        file=sys.stderr,
    )
    return EXIT_BUG


def _show(answer: Answer) -> int:
    for line in answer.complaints:
        print(f"fieldlens: {line}", file=sys.stderr)
    try:
        if answer.text:
            print(answer.text, flush=True)
    except BrokenPipeError:
        # The reader (`| head`) has enough. What is still buffered must not raise again at exit.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return answer.exit_code


if __name__ == "__main__":
    sys.exit(main())
