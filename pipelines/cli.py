"""`fieldlens <verb> …`: the only module that prints, and that ends the process.

A verb's module has its arguments and its work, and is imported when the verb is typed, so that
`fieldlens --help` answers at once. Exit codes: 0 done, 1 a bug (traceback), 2 something the user
can mend, 3 a model missed the gate, 4 done but for tasks left out, 130 interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import logging
import os
import sys
import traceback
from collections.abc import Container, Sequence
from pathlib import Path

from pipelines import __version__
from pipelines.atomic import STORAGE_ERRNOS
from pipelines.commands.answer import Answer
from pipelines.errors import ConfigError, GateError, PipelineError, StorageError
from pipelines.paths import Paths
from pipelines.quiet import go_quiet

EXIT_BUG = 1
EXIT_INTERRUPTED = 130

_INTRODUCTION = """\
Phone-sized vision models for clinics, farms and factories: from labelled images to a gated int8
model. Each of the first eight verbs is a DVC stage; `dvc repro` runs those that are out of date.
"""

_EXAMPLES = """\
examples:
  fieldlens tasks                                    what there is, and how far each task has come
  fieldlens doctor                                   what is missing, and what to run next
  dvc repro gate@tomato_leaf                         one task, from images to a released model
  fieldlens train tomato_leaf                        one stage by hand, whatever DVC thinks of it
  fieldlens train tomato_leaf --recipe FILE          a document's settings, beside the own model
  fieldlens export tomato_leaf --format pte          programs for a native app (ExecuTorch)
  fieldlens predict leaf.jpg --task tomato_leaf      labels, probabilities, latency
  fieldlens predict *.jpg --task tomato_leaf --json  the same for a program
  fieldlens predict photos --task tomato_leaf --csv  a folder with all below it, a row a file
  fieldlens score tomato_leaf photos --out answers.parquet    very many pictures
  fieldlens explain leaf.jpg --task tomato_leaf      where the answer comes from, as a PNG file
  fieldlens compare reports/a reports/b              two models on the same test images
  fieldlens validate tomato_leaf ~/farm              a released model on images of another place
  fieldlens board tomato_leaf --max-ms 10            which network to ship, of those in 10 ms
  fieldlens search tomato_leaf                       a network found for this task and device
  fieldlens app                                      all apps on this computer; --lan for phones
  fieldlens new rice_leaf --domain agriculture --from ~/rice    a task from a folder of your own

exit codes: 0 done · 1 a bug · 2 something you can mend · 3 a model missed the gate
            4 done, but for tasks that had to be left out
Every number that a result depends on stands in params.yaml; no verb takes one as an option.
"""

#: By verb: its module in `pipelines.commands`, with `add_arguments` and `main`, and what it gives.
VERBS = {
    "fetch": ("stage", "raw images of a task, from its source"),
    "prepare": ("stage", "a manifest: decoded, de-duplicated, split by group"),
    "audit": ("stage", "how far models get that see next to nothing, and labels to doubt"),
    "train": ("train", "the float model"),
    "export": ("export", "the ONNX files, fp32 and int8, and the bundle's candidate"),
    "evaluate": ("stage", "metrics of the test split, and the finished bundle"),
    "gate": ("stage", "leave to release, or exit code 3 and what was missed"),
    "report": ("report", "reports/RESULTS.md and reports/index.html, over all tasks"),
    "code": ("code", "what code each stage is made of; `dvc repro` asks first of all"),
    "predict": ("predict", "labels and probabilities of pictures, and the latency"),
    "score": ("score", "answers to very many pictures, as Parquet or CSV; goes on where it was"),
    "gallery": ("gallery", "known pictures beside a model, that others are compared with"),
    "explain": ("explain", "which places of a picture speak for a label, as PNG files"),
    "stress": ("stress", "the share of answers that small harmless changes of a picture turn"),
    "licences": ("licences", "the licence of every dependency, weight file and data set"),
    "compare": ("compare", "whether one set of answers is better than another, or it is luck"),
    "validate": ("validate", "what a released model is worth on another folder of images"),
    "app": ("app", "the apps in the browser, and the page for the phone beside them"),
    "new": ("new", "a task for a folder of your own images: card, params, test"),
    "tasks": ("tasks", "the tasks, and how far each has come"),
    "cost": ("cost", "multiply-adds, parameters and memory of a backbone"),
    "weights": ("weights", "who has weights of a backbone; fetches, checks and takes in files"),
    "board": ("board", "many networks on one task: accuracy, size, latency, and which to ship"),
    "search": ("search", "a network found for a task on a device, beside the known ones"),
    "doctor": ("doctor", "versions, weights, DVC, MLflow and bundles, and what to run next"),
    "workspace": ("workspace", "a second DVC workspace for folders of real images"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line, by default the process's; gives the exit code."""
    go_quiet()
    argv = sys.argv[1:] if argv is None else argv
    try:
        arguments = make_parser(argv).parse_args(argv)
    except ModuleNotFoundError as err:
        return _not_installed(err, verbose=False)
    _log_to_stderr(verbose=arguments.verbose)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A file name may hold bytes that are no text.
            stream.reconfigure(errors="backslashreplace")
    try:
        answer: Answer = arguments.main(arguments, Paths(arguments.root))
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
        return _not_installed(err, verbose=arguments.verbose)
    except KeyboardInterrupt:
        print("fieldlens: interrupted; nothing is half-written.", file=sys.stderr)
        return EXIT_INTERRUPTED
    except Exception:
        return _report_bug()
    return _print(answer)


def make_parser(wanted: Container[str]) -> argparse.ArgumentParser:
    """The parser of `fieldlens`; the modules of the verbs that are wanted are imported."""
    parser = argparse.ArgumentParser(
        prog="fieldlens",
        description=_INTRODUCTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
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
    for verb, (module, gives) in VERBS.items():
        own = verbs.add_parser(
            verb, help=gives, description=f"Gives {gives}.", parents=[shared], allow_abbrev=False
        )
        if verb in wanted:
            command = importlib.import_module(f"pipelines.commands.{module}")
            command.add_arguments(own)
            own.set_defaults(main=command.main)
    return parser


def _log_to_stderr(*, verbose: bool) -> None:
    """Messages of this project on stderr; those of libraries only from a warning up."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("pipelines")
    logger.handlers = [handler]
    logger.setLevel(logging.DEBUG if verbose else logging.INFO)
    logger.propagate = False


def _complain(err: PipelineError, *, verbose: bool) -> int:
    """Show what the user can mend: one line, but for the gate's table."""
    if verbose:
        traceback.print_exc()
    message = str(err) if isinstance(err, GateError) else " ".join(str(err).split())
    print(f"fieldlens: {message}", file=sys.stderr)
    return err.exit_code


def _not_installed(err: ModuleNotFoundError, *, verbose: bool) -> int:
    """The wheel alone serves; what makes models is an extra."""
    if err.name is None or err.name.startswith("pipelines"):
        return _report_bug()
    missing = ConfigError(
        f"{err.name} is not installed. Install what making models takes: "
        f"pip install 'fieldlens[train]'."
    )
    return _complain(missing, verbose=verbose)


def _report_bug() -> int:
    traceback.print_exc()
    print(
        "fieldlens: this is a bug. Please report it with the lines above and the command.",
        file=sys.stderr,
    )
    return EXIT_BUG


def _print(answer: Answer) -> int:
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
