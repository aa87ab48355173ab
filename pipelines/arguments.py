"""What may stand on the command line, and what `--help` says of it."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipelines import __version__

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
  fieldlens predict leaf.jpg --task tomato_leaf      labels, probabilities, latency
  fieldlens predict *.jpg --task tomato_leaf --json  the same for a program
  fieldlens predict photos --task tomato_leaf --csv  a folder with all below it, a row a file
  fieldlens explain leaf.jpg --task tomato_leaf      where the answer comes from, as a PNG file
  fieldlens compare reports/a reports/b              two models on the same test images
  fieldlens validate tomato_leaf ~/farm              a released model on images of another place
  fieldlens app                                      all apps on this computer; --lan for phones
  fieldlens new rice_leaf --domain agriculture --from ~/rice    a task from a folder a class

exit codes: 0 done · 1 a bug · 2 something you can mend · 3 a model missed the gate
            4 done, but for tasks that had to be left out
Every number that a result depends on stands in params.yaml; no verb takes one as an option.
"""

#: By stage: what it gives.
_STAGES = {
    "fetch": "raw images of a task, from its source",
    "prepare": "a manifest: decoded, de-duplicated, split by group",
    "audit": "how far models get that see next to nothing, and labels to doubt",
    "train": "the float model",
    "export": "the ONNX files, fp32 and int8, and the bundle's candidate",
    "evaluate": "metrics of the test split, and the finished bundle",
    "gate": "leave to release, or exit code 3 and what was missed",
}


def make_parser() -> argparse.ArgumentParser:
    """The parser of `fieldlens`; each verb's arguments are attributes of what it gives."""
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
    report.add_argument(
        "--cards", type=Path, metavar="DIR", help="also write a model card a task there"
    )
    add("code", "what code each stage is made of; `dvc repro` asks first of all")
    _add_predict(add("predict", "labels and probabilities of pictures, and the latency"))
    _add_explain(add("explain", "which places of a picture speak for a label, as PNG files"))
    stress = add("stress", "the share of answers that small harmless changes of a picture turn")
    stress.add_argument("task", help="as in params.yaml, e.g. tomato_leaf")
    stress.add_argument(
        "--split", choices=("val", "test"), default="test", help="default: test; bounds: on val"
    )
    licences = add("licences", "the licence of every dependency, weight file and data set")
    licences.add_argument("--out", type=Path, metavar="FILE", help="write the page there")
    _add_compare(add("compare", "whether one set of answers is better than another, or it is luck"))
    _add_validate(add("validate", "what a released model is worth on another folder of images"))
    _add_app(add("app", "the apps in the browser, and the page for the phone beside them"))
    _add_new(add("new", "a task for a folder of your own images: card, params, module, test"))
    add("tasks", "the tasks, and how far each has come")
    doctor = add("doctor", "versions, weights, DVC, MLflow and bundles, and what to run next")
    doctor.add_argument("--fix", action="store_true", help="record what MLflow has missed")
    workspace = add("workspace", "a second DVC workspace for folders of real images")
    workspace.add_argument("folder", type=Path, help="where to make it, e.g. .real")
    workspace.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="holds <task>/<class>/… folders (default: what the cards say is published, fetched)",
    )
    return parser


def _add_predict(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "images",
        nargs="+",
        type=Path,
        metavar="IMAGE",
        help="files, folders with all below them, or quoted patterns, e.g. 'photos/**/*.jpg'",
    )
    parser.add_argument("--task", help="which model; needed where there are several")
    parser.add_argument("--bundle", type=Path, metavar="PATH", help="a bundle.json, or its folder")
    form = parser.add_mutually_exclusive_group()
    form.add_argument(
        "--json", action="store_const", const="json", dest="form", help="for a program"
    )
    form.add_argument(
        "--csv",
        action="store_const",
        const="csv",
        dest="form",
        help="a row a file, unreadable ones included: --csv > answers.csv",
    )
    parser.set_defaults(form="text")
    parser.add_argument(
        "--precision", choices=("fp32", "int8"), help="default: the one the bundle serves"
    )
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="default: 1")


def _add_explain(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE")
    parser.add_argument("--task", help="which model; needed where there are several")
    parser.add_argument("--bundle", type=Path, metavar="PATH", help="a bundle.json, or its folder")
    parser.add_argument(
        "--method",
        choices=("occlusion", "gradcam"),
        default="occlusion",
        help="occlusion asks the served file (default), gradcam its float parent",
    )
    parser.add_argument("--label", help="which label; default: the answer")
    parser.add_argument(
        "--out", type=Path, default=Path("explanations"), metavar="DIR", help="default: %(default)s"
    )


def _add_compare(parser: argparse.ArgumentParser) -> None:
    for name in ("a", "b"):
        parser.add_argument(
            name, metavar=name.upper(), help="a predictions.csv, a folder with one, or a task"
        )
    precisions = ("fp32", "int8")
    parser.add_argument(
        "--precision", choices=precisions, help="whose answers (default: those of the served file)"
    )
    parser.add_argument(
        "--precision-b", choices=precisions, help="the same for B, if it is another"
    )
    parser.add_argument("--json", action="store_true", dest="as_json", help="for a program")


def _add_validate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "task", nargs="?", help="as in params.yaml, e.g. tomato_leaf (default: all)"
    )
    parser.add_argument(
        "folder",
        nargs="?",
        type=Path,
        help="a folder a class, or records.csv with path, label and group (default: the folders "
        "that params.yaml names below real.TASK.validate_on)",
    )
    parser.add_argument(
        "--bundle", type=Path, metavar="PATH", help="another bundle.json of the task, or its folder"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="where the report goes (default: reports/TASK/external/FOLDER)",
    )
    parser.add_argument("--json", action="store_true", dest="as_json", help="for a program")


def _add_app(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("task", nargs="?", help="its app alone (default: all of them)")
    parser.add_argument(
        "--port", type=int, default=8501, help="the phone page has the next one (default: 8501)"
    )
    parser.add_argument(
        "--lan",
        action="store_true",
        help="let the local network in, so that phones can open the apps (default: this computer)",
    )
    parser.add_argument(
        "--registry",
        action="store_true",
        help="MLflow's champions instead of the models in this project",
    )
    parser.add_argument(
        "--base-path",
        metavar="/PATH",
        help="serve the apps below a path, as a proxy in front may want it (default: none)",
    )


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
