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
from typing import TYPE_CHECKING

from pipelines import locks
from pipelines.arguments import make_parser
from pipelines.atomic import STORAGE_ERRNOS
from pipelines.errors import ConfigError, GateError, PipelineError, StorageError
from pipelines.paths import Paths
from pipelines.quiet import go_quiet

if TYPE_CHECKING:
    from pipelines.commands.answer import Answer
    from pipelines.config.params import Params

EXIT_BUG = 1
EXIT_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line.

    Args:
        argv: arguments without the program's name; None for those of the process.

    Returns:
        The exit code.
    """
    go_quiet()
    arguments = make_parser().parse_args(argv)
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
    except ModuleNotFoundError as err:
        if err.name is None or err.name.startswith("pipelines"):
            return _report_bug()
        # The wheel alone serves; what makes models is an extra.
        missing = ConfigError(
            f"{arguments.verb}: {err.name} is not installed. Install what making models takes: "
            f"pip install 'fieldlens[train]'."
        )
        return _complain(missing, verbose=arguments.verbose)
    except KeyboardInterrupt:
        print("fieldlens: interrupted; nothing is half-written.", file=sys.stderr)
        return EXIT_INTERRUPTED
    except Exception:
        return _report_bug()
    return _show(answer) if answer is not None else 0


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
                form=arguments.form,
            )
        case "explain":
            from pipelines.commands import explain

            return explain.run(
                paths,
                arguments.images,
                task=arguments.task,
                bundle_path=arguments.bundle,
                method=arguments.method,
                label=arguments.label,
                out=arguments.out,
            )
        case "stress":
            from pipelines.commands import stress

            return stress.run(paths, arguments.task, arguments.split)
        case "licences":
            from pipelines.commands import licences

            return licences.run(paths, arguments.out)
        case "compare":
            from pipelines.commands import compare

            return compare.run(
                paths,
                arguments.a,
                arguments.b,
                precision=arguments.precision,
                precision_b=arguments.precision_b,
                as_json=arguments.as_json,
            )
        case "validate":
            from pipelines.commands import validate

            if arguments.folder is None:
                return validate.run_declared(paths, arguments.task)
            return validate.run(
                paths,
                arguments.task,
                arguments.folder,
                bundle_path=arguments.bundle,
                out=arguments.out,
                as_json=arguments.as_json,
            )
        case "app":
            from pipelines.commands import app

            app.run(
                paths,
                arguments.task,
                port=arguments.port,
                is_lan=arguments.lan,
                from_registry=arguments.registry,
                base_path=arguments.base_path,
            )
            return None
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
        case "code":
            from pipelines.stages import code

            code.run(paths)
            return None
    from pipelines.config.params import load_params

    params = load_params(paths.params)
    if arguments.verb == "report":
        from pipelines.stages import report

        report.run(paths, params)
        if arguments.results is not None:
            report.write_results(paths, params, arguments.results)
        if arguments.cards is not None:
            report.write_cards(paths, params, arguments.cards)
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
        case "audit":
            from pipelines.stages import audit

            audit.run(
                task,
                section.audit,
                section.train,
                section.evaluate.resamples,
                params.seed,
                paths,
            )
        case "train":
            from pipelines.stages import train

            train.run(task, section.domain, section.train, params.seed, paths)
        case "export":
            from pipelines.stages import export

            export.run(task, section.export, params.seed, paths)
        case "evaluate":
            from pipelines.stages import evaluate

            evaluate.run(task, section.evaluate, params.seed, paths)
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
