"""`fieldlens new`: a task for a folder of the user's own images, ready for `dvc repro`.

Writes what a task takes: a card, a block in params.yaml and a test. All or nothing. What was seen
in the folder is stated, and everything else is written as not stated: a guessed licence or purpose
would travel with every model.

Two modules are optional, and none is written: ``pipelines/<domain>/<task>.py`` gives
``records(raw_dir, card)`` where the card cannot say how the folder is read, and
``pipelines/samples/<task>.py`` gives ``paint(label, subject, shot, side_px)`` for samples.
"""

from __future__ import annotations

import argparse
import datetime
import io
import json
import keyword
import re
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, get_args

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from ruamel.yaml import YAML

from pipelines import atomic
from pipelines.card import DEFAULT_KIND, Domain, load_card
from pipelines.commands.answer import Answer
from pipelines.commands.survey import Survey, survey_folder
from pipelines.commands.survey_truth import kind_of, survey_truth
from pipelines.config.params import Params, load_params
from pipelines.data.decoding import measure_range
from pipelines.data.tree import SPLITS
from pipelines.errors import ConfigError
from pipelines.kinds.new import KINDS
from pipelines.paths import Paths
from pipelines.strict_yaml import overlay

_SLUG = re.compile(r"[a-z][a-z0-9_]{0,59}")
_SECTIONS = ("prepare", "audit", "train", "export", "evaluate", "gate")
#: Kinds whose truth a table says.
_LABELLED = frozenset({DEFAULT_KIND, "embedding"})
_GREY_MODES = frozenset({"1", "L", "I", "F", "I;16", "I;16B"})

_TEST = """\
from __future__ import annotations

from pathlib import Path

from pipelines.card import load_card
from pipelines.tasks import load_task

CARD = Path(__file__).resolve().parents[2] / "datasets" / "{task}" / "card.yaml"


def test_records_folder_a_class_gives_label_and_group(tmp_path):
    card = load_card(CARD)
    for entry in card.classes:
        folder = tmp_path / (entry.source_names or (entry.label,))[0]
        folder.mkdir()
        (folder / "0001.png").write_bytes(b"not looked at")

    records = load_task("{domain}", "{task}").records(tmp_path, card)

    assert sorted(record.label for record in records) == sorted(card.labels)
    assert len({{record.group for record in records}}) == len(card.labels)
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The task's name, its domain, and the images."""
    parser.add_argument("task", help="slug: letters, digits and _, e.g. rice_leaf")
    parser.add_argument("--domain", required=True, choices=get_args(Domain))
    parser.add_argument(
        "--from",
        type=Path,
        required=True,
        dest="source",
        metavar="FOLDER",
        help="a folder a class, or records.csv with path, label and group; or what --kind says",
    )
    parser.add_argument(
        "--kind",
        choices=(DEFAULT_KIND, *KINDS),
        help="boxes (COCO, Pascal VOC, YOLO), a folder masks or COCO's outlines, a folder an "
        "identity; found by itself where the folder says it",
    )


def main(arguments: argparse.Namespace, paths: Paths) -> Answer:
    """Write the three files of a task, and say what they rest on."""
    task, domain = arguments.task, arguments.domain
    params = load_params(paths.params)
    folder = arguments.source.expanduser().resolve()
    if not str(folder).isprintable():
        raise ConfigError(f"--from: the path must be printable text (got {str(folder)!r}).")
    card = paths.task(task).card
    test = paths.root / "tests" / domain / f"test_{task}.py"
    _check_name(task, params, (card, test))
    kind, by = (arguments.kind, "--kind") if arguments.kind else kind_of(folder)
    if kind == DEFAULT_KIND:
        survey = survey_folder(folder)
    else:
        survey = survey_truth(folder, kind, task, partial(_first_card, task, domain, folder))
    before = paths.params.read_bytes()
    texts = {
        card: _first_card(task, domain, folder, survey),
        test: _first_test(task, domain, kind),
        # Last: a task exists once params.yaml names it.
        paths.params: _with_task(before.decode("utf-8"), params, task, domain, folder, kind),
    }
    written: list[Path] = []
    try:
        for path, text in texts.items():
            atomic.write_text(path, text)
            written.append(path)
        _read_back(task, card, params, paths)
    except BaseException:
        for path in written:
            if path == paths.params:
                atomic.write_bytes(path, before)
            else:
                path.unlink(missing_ok=True)
        raise
    return Answer(_summary(task, domain, folder, survey, list(texts), by), survey.complaints)


def _check_name(task: str, params: Params, files: tuple[Path, ...]) -> None:
    if not _SLUG.fullmatch(task) or keyword.iskeyword(task):
        raise ConfigError(
            f"new: the task's name must be at most 60 lower-case letters, digits and _, a letter "
            f"first, and no word of Python (got {task!r})."
        )
    if task in params.tasks:
        raise ConfigError(f"params.yaml: tasks: {task!r} is there already. Choose another name.")
    for file in files:
        if file.exists():
            raise ConfigError(
                f"{file}: is there already, and is not overwritten. Choose another name, or remove "
                f"the file if it is a left-over."
            )


def _template(name: str) -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=False,  # YAML, of which JSON is a part, and Python
        trim_blocks=True,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters |= {"quoted": partial(json.dumps, ensure_ascii=False), "tally": _tally}
    return environment.get_template(name)


def _first_test(task: str, domain: Domain, kind: str) -> str:
    if kind == DEFAULT_KIND:
        return _TEST.format(task=task, domain=domain)
    return _template(f"test_{kind}.py.jinja").render(task=task, domain=domain)


def _first_card(task: str, domain: Domain, folder: Path, survey: Survey) -> str:
    """A card.yaml that states what was seen and says of the rest that it is not stated."""
    measured = measure_range([folder / image.path for image in survey.layout.images])
    counts = survey.told or [f"{found.label} {found.n_images}" for found in survey.classes]
    return _template("card.yaml.jinja").render(
        task=task,
        domain=domain,
        survey=survey,
        measured=measured,
        today=datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        is_grey=bool(survey.modes) and set(survey.modes) <= _GREY_MODES,
        counts=("; " if survey.told else ", ").join(counts),
    )


def _tally(counts: Mapping[str, int]) -> str:
    """Names and how often each was seen, the most frequent first."""
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{name} {n}" for name, n in ranked) or "none read"


def _with_task(
    text: str, params: Params, task: str, domain: Domain, folder: Path, kind: str
) -> str:
    """params.yaml with one more block at the end of ``tasks``; every other byte stays."""
    block = _block(text, params, task, domain, folder, kind)
    lines = text.splitlines()
    start = next((n for n, old in enumerate(lines) if re.match(r"tasks: *(#.*)?$", old)), None)
    if start is None:
        raise ConfigError(
            "params.yaml: expected a block `tasks:` with a block a task; add this one by hand: "
            + " ".join(block)
        )
    end = start + 1
    for number, old in enumerate(lines[start + 1 :], start + 1):
        if not old.strip() or old.lstrip().startswith("#"):
            continue
        if not old.startswith(" "):
            break
        end = number + 1
    gap = [""] if "" in lines[start:end] else []
    return "\n".join([*lines[:end], *gap, *block, *lines[end:]]) + "\n"


def _block(
    text: str, params: Params, task: str, domain: Domain, folder: Path, kind: str
) -> list[str]:
    """The task's lines in params.yaml.

    Where the file has an anchor called like a section (``&train``), it is merged, so that a shared
    default stays shared; else the first task's values are written out. Over them lies what the
    kind starts with.
    """
    pattern = next(iter(params.tasks.values())).model_dump(mode="json")
    settings = KINDS[kind].settings if kind in KINDS else {}
    source = {"kind": "folder", "path": str(folder)}
    lines = [f"  {task}:", f"    domain: {domain}", f"    fetch: {_flow({'source': source})}"]
    anchors = set(re.findall(r"^_\w+: *&(\w+)", text, flags=re.MULTILINE))
    if settings:
        # What classes bear, and whose attacks are counted, is no default of another kind.
        pattern["evaluate"] |= {"attack": None, "max_changed": {}}
    for section in _SECTIONS:
        values, own = pattern[section], settings.get(section, {})
        if section == "gate" and own:
            lines += _gate(own)
        elif section not in anchors:
            # Another task's choice of classes is no default.
            values = {**values, "classes": None} if section == "prepare" else values
            lines.append(f"    {section}: {_flow(overlay(values, own))}")
        else:
            lines += _merged(section, values, own, anchors)
    return lines


def _merged(
    section: str, values: Mapping[str, Any], own: Mapping[str, Any], anchors: set[str]
) -> list[str]:
    """A section of shared blocks, with values of its own laid over them."""
    nested = [key for key, value in values.items() if value and isinstance(value, dict)]
    nested = [key for key in nested if key in anchors]
    plain = [f"{key}: {_flow(value)}" for key, value in own.items() if key not in nested]
    plain += [
        f"{key}: {{{', '.join([f'<<: *{key}', *_pairs(own.get(key, {}))])}}}" for key in nested
    ]
    if not plain:
        return [f"    {section}: {{<<: *{section}}}"]
    return [f"    {section}:", *(f"      {line}" for line in (f"<<: *{section}", *plain))]


def _pairs(values: Mapping[str, Any]) -> list[str]:
    return [f"{key}: {_flow(value)}" for key, value in values.items()]


def _gate(own: Mapping[str, Any]) -> list[str]:
    bounds = [f"{key}: {_flow(value)}" for key, value in own.items() if key != "demands"]
    demands = [f"  - {_flow(demand)}" for demand in own["demands"]]
    return [
        "    gate:",
        "      # To be set: floors to start from, chosen before a model was seen. Write what the",
        "      # use needs, and what is beyond `blind` in reports/<task>/metrics.json.",
        *(f"      {line}" for line in (*bounds, "demands:", *demands)),
    ]


def _flow(value: object) -> str:
    """A value on one line, as the other tasks' lines are written."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = True
    yaml.width = 10**6
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    buffer = io.StringIO()
    yaml.dump({"v": value}, buffer)
    return buffer.getvalue().strip().removeprefix("{v: ").removesuffix("}")


def _read_back(task: str, card: Path, params: Params, paths: Paths) -> None:
    """Prove on what was written that only one task came, and that the pipeline can read it."""
    load_card(card)
    added = load_params(paths.params)
    others = {name: section for name, section in added.tasks.items() if name != task}
    if others != params.tasks or task not in added.tasks or added.seed != params.seed:
        raise ConfigError(
            f"{paths.params}: its layout is not understood; add the task {task} by hand."
        )


def _summary(
    task: str, domain: Domain, folder: Path, survey: Survey, files: list[Path], by: str
) -> str:
    counts = ", ".join(
        f"{found.label} ({found.n_images})"
        if found.name == found.label
        else f"{found.label} = {found.name} ({found.n_images})"
        for found in survey.classes
    )
    classes = f"{survey.n_images} images of {len(survey.classes)} classes: {counts}."
    if survey.told:
        labels = ", ".join(found.label for found in survey.classes) or "none, but identities"
        classes = f"{survey.n_images} images; kind {survey.kind}, told by {by}; labels: {labels}."
    lines = [
        f"{folder}: {classes}",
        *(f"{line}." for line in survey.told),
        f"Seen in their headers: {_tally(survey.formats)}; modes {_tally(survey.modes)}; "
        f"{survey.smallest_px} to {survey.largest_px} px; {survey.n_unreadable} unreadable.",
        "",
        survey.account.as_text("class"),
        "",
        *_splits(survey),
        "Written:",
        *(f"  {file}" for file in files),
        "",
    ]
    if not survey.layout.has_groups:
        columns = "path, label, group" if survey.kind in _LABELLED else "path, group"
        lines += [
            "NO GROUPS ARE KNOWN: each file counts as a subject of its own. If several pictures",
            "show one patient, plant or part, the figures will be too good. Add records.csv with",
            f"the columns {columns}, or a group_pattern in the card.",
            "",
        ]
    if survey.told:
        lines += [
            f"TO BE SET: the floors below `gate` of {task} in params.yaml are but a start.",
            "",
        ]
    lines += [
        f"Next: fill in datasets/{task}/card.yaml, then run `dvc repro gate@{task}`.",
        "Only if the card cannot say how the folder is read: records(raw_dir, card) in",
        f"pipelines/{domain}/{task}.py. Only for synthetic samples: paint(label, subject, shot,",
        f"side_px) in pipelines/samples/{task}.py.",
    ]
    return "\n".join(lines)


def _splits(survey: Survey) -> list[str]:
    """A line on the publisher's split, if there is one."""
    if not survey.layout.has_splits:
        return []
    counts = Counter[str](image.split or "no part" for image in survey.layout.images)
    parts = ", ".join(f"{counts[part]:,} {part}" for part in (*SPLITS, "no part") if counts[part])
    absent = [split for split in SPLITS if not counts[split]]
    made = f"; {' and '.join(absent)} will be made from train" if absent else ""
    return [f"The split is given: {parts}{made}. The card says `splits: given`.", ""]
