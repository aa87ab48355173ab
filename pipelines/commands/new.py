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
import keyword
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipelines import atomic
from pipelines.card import DatasetCard, Domain, load_card
from pipelines.commands.answer import Answer
from pipelines.commands.survey import Survey, survey_folder
from pipelines.config.params import Params, load_params
from pipelines.data.decoding import MeasuredRange, measure_range
from pipelines.data.tree import SPLITS
from pipelines.errors import ConfigError
from pipelines.paths import Paths
from pipelines.strict_yaml import validate

_FILL_IN = "not stated; fill in"
_GREY_MODES = frozenset({"1", "L", "I", "F", "I;16", "I;16B"})


def first_card(
    task: str,
    domain: Domain,
    survey: Survey,
    path: Path,
    measured: MeasuredRange | None = None,
) -> str:
    """The text of the card.yaml that will lie at ``path``, checked."""
    card = _card(task, domain, survey, measured)
    validate(DatasetCard, card, path)
    return _dump(card)


def _card(
    task: str, domain: Domain, survey: Survey, measured: MeasuredRange | None
) -> dict[str, object]:
    """A card that states what was seen and says of the rest that it is not stated."""
    is_grey = bool(survey.modes) and set(survey.modes) <= _GREY_MODES
    counts = ", ".join(f"{found.label} {found.n_images}" for found in survey.classes)
    biases = [f"Counts by class when the folder was looked at: {counts}."]
    if not survey.layout.has_groups:
        biases.append(
            "Each file is taken for a group of its own: several pictures of one subject may stand "
            "in two splits and make the figures too good. State the subject in a column group of "
            "records.csv, or in group_pattern, to prevent it."
        )
    if len(survey.formats) > 1:
        biases.append(
            f"Mixed file formats ({tally(survey.formats)}): check that the format does not tell "
            f"the class."
        )
    if measured is not None and measured.n_measured < measured.n_files:
        biases.append(
            f"The range of the stored values was measured on {measured.n_measured} of "
            f"{measured.n_files} files; `prepare` tells which go beyond it."
        )
    return {
        "title": task.replace("_", " ").capitalize(),
        "task": task,
        "domain": domain,
        "source": {
            "publisher": f"publisher {_FILL_IN}",
            "url": f"url {_FILL_IN}",
            "version": f"version {_FILL_IN}",
            "retrieved": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        },
        "licence": {
            "spdx": "NOASSERTION",
            "url": f"licence {_FILL_IN}",
            "redistribution": f"Whether the images may be handed on is {_FILL_IN}.",
        },
        "citation": {"text": f"citation {_FILL_IN}", "doi": None},
        "classes": [
            {
                "label": found.label,
                "meaning": f"What a person sees is {_FILL_IN}.",
                # Without a name of its own, people read the label.
                **({"name": found.name} if found.name != found.label else {}),
                "source_names": [found.name] if found.name != found.label else [],
            }
            for found in survey.classes
        ],
        "unit_of_observation": "one file",
        "group_key": f"group (column of {survey.layout.table})"
        if survey.layout.has_groups
        else "image",
        "group_pattern": None,
        "n_images": survey.n_images,
        "image": {
            "modality": (
                f"{_FILL_IN}; seen: {tally(survey.formats)}, modes {tally(survey.modes)}, "
                f"{survey.smallest_px} to {survey.largest_px} px"
            ),
            "channels": 1 if is_grey else 3,
            "bit_depth": measured.bit_depth if measured is not None else 8,
            **({"range": measured.in_card()} if measured is not None else {}),
        },
        "splits": "given" if survey.layout.has_splits else "made",
        "known_biases": biases,
        "consent_and_privacy": f"Whether people can be recognised, and agreed, is {_FILL_IN}.",
        "intended_use": f"{_FILL_IN.capitalize()}. Until then: trying the pipeline out.",
        "not_for": [
            "Any decision about a person, an animal, a crop or a part before this card is filled in"
        ],
    }


def tally(counts: Mapping[str, int]) -> str:
    """Names and how often each was seen, the most frequent first."""
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{name} {n}" for name, n in ranked) or "none read"


def _dump(card: dict[str, object]) -> str:
    yaml = YAML()
    yaml.width = 96
    yaml.indent(mapping=2, sequence=4, offset=2)
    buffer = io.StringIO()
    yaml.dump(card, buffer)
    return (
        '# Written by `fieldlens new`. Everything that says "fill in" waits for you: the card is\n'
        "# shown with each model and carries its licence and its limits.\n" + buffer.getvalue()
    )


# -- new ------------------------------------------------------------------------------------------
_SLUG = re.compile(r"[a-z][a-z0-9_]{0,59}")
_SECTIONS = ("prepare", "audit", "train", "export", "evaluate", "gate")

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


def main(arguments: argparse.Namespace, paths: Paths) -> Answer:
    """Write the three files of a task, and say what they rest on.

    Raises:
        ConfigError: if the slug is not one or is taken, a file is in the way, or params.yaml
            cannot be added to.
        DataError: if the folder cannot be a data set.
    """
    task, domain = arguments.task, arguments.domain
    params = load_params(paths.params)
    folder = arguments.source.expanduser().resolve()
    if not str(folder).isprintable():
        raise ConfigError(f"--from: the path must be printable text (got {str(folder)!r}).")
    files = _targets(paths, task, domain)
    _check_name(task, params, files)
    survey = survey_folder(folder)
    measured = measure_range([folder / image.path for image in survey.layout.images])
    card_path, test_path = files
    before = paths.params.read_bytes()
    after = _with_task(before.decode("utf-8"), params, task, domain, folder)
    _check_added(after, params, task, paths.params)
    texts = {
        card_path: first_card(task, domain, survey, card_path, measured),
        test_path: _TEST.format(task=task, domain=domain),
        # Last: a task exists once params.yaml names it.
        paths.params: after,
    }
    _write_all(texts, before, paths)
    text = _summary(task, domain, folder, survey, [*files, paths.params])
    return Answer(text, survey.complaints)


def _targets(paths: Paths, task: str, domain: Domain) -> tuple[Path, Path]:
    return paths.task(task).card, paths.root / "tests" / domain / f"test_{task}.py"


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


def _with_task(text: str, params: Params, task: str, domain: Domain, folder: Path) -> str:
    """params.yaml with one more block at the end of ``tasks``; every other byte stays."""
    block = _block(text, params, task, domain, folder)
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


def _block(text: str, params: Params, task: str, domain: Domain, folder: Path) -> list[str]:
    """The task's lines in params.yaml.

    Where the file has an anchor called like a section (``&train``), it is merged, so that a shared
    default stays shared; else the first task's values are written out.
    """
    pattern = next(iter(params.tasks.values())).model_dump(mode="json")
    source = {"kind": "folder", "path": str(folder)}
    lines = [f"  {task}:", f"    domain: {domain}", f"    fetch: {_flow({'source': source})}"]
    anchors = set(re.findall(r"^_\w+: *&(\w+)", text, flags=re.MULTILINE))
    for section in _SECTIONS:
        values = pattern[section]
        if section not in anchors:
            # Another task's choice of classes is no default.
            values = {**values, "classes": None} if section == "prepare" else values
            lines.append(f"    {section}: {_flow(values)}")
            continue
        nested = [key for key, value in values.items() if isinstance(value, dict)]
        merged = [f"{key}: {{<<: *{key}}}" for key in nested if key in anchors]
        if merged:
            lines += [
                f"    {section}:",
                *(f"      {line}" for line in (f"<<: *{section}", *merged)),
            ]
        else:
            lines.append(f"    {section}: {{<<: *{section}}}")
    return lines


def _flow(value: object) -> str:
    """A value on one line, as the other tasks' lines are written."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = True
    yaml.width = 10**6
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    buffer = io.StringIO()
    yaml.dump({"v": value}, buffer)
    return buffer.getvalue().strip().removeprefix("{v: ").removesuffix("}")


def _check_added(text: str, params: Params, task: str, path: Path) -> None:
    """Prove on the text that only one task came, before anything is written."""
    by_hand = f"{path}: its layout is not understood; add the task {task} by hand."
    try:
        document = YAML(typ="safe", pure=True).load(text)
    except YAMLError as err:
        raise ConfigError(by_hand) from err
    visible = {key: value for key, value in document.items() if not str(key).startswith("_")}
    added = validate(Params, visible, path)
    others = {name: section for name, section in added.tasks.items() if name != task}
    if others != params.tasks or task not in added.tasks or added.seed != params.seed:
        raise ConfigError(by_hand)


def _write_all(texts: dict[Path, str], params_before: bytes, paths: Paths) -> None:
    """Write all files or leave none, and read back what the pipeline will read."""
    written: list[Path] = []
    is_done = False
    try:
        for path, text in texts.items():
            atomic.write_text(path, text)
            written.append(path)
        load_params(paths.params)
        load_card(written[0])
        is_done = True
    finally:
        if not is_done:
            for path in written:
                if path == paths.params:
                    atomic.write_bytes(path, params_before)
                else:
                    path.unlink(missing_ok=True)


def _summary(task: str, domain: Domain, folder: Path, survey: Survey, files: list[Path]) -> str:
    counts = ", ".join(
        f"{found.label} ({found.n_images})"
        if found.name == found.label
        else f"{found.label} = {found.name} ({found.n_images})"
        for found in survey.classes
    )
    lines = [
        f"{folder}: {survey.n_images} images of {len(survey.classes)} classes: {counts}.",
        f"Seen in their headers: {tally(survey.formats)}; modes {tally(survey.modes)}; "
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
        lines += [
            "NO GROUPS ARE KNOWN: each file counts as a subject of its own. If several pictures",
            "show one patient, plant or part, the figures will be too good. Add records.csv with",
            "the columns path, label, group, or a group_pattern in the card.",
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
    counts = Counter[str](image.split or "no part" for image in survey.layout.images)
    if not survey.layout.has_splits:
        return []
    parts = ", ".join(f"{counts[part]:,} {part}" for part in (*SPLITS, "no part") if counts[part])
    absent = [split for split in SPLITS if not counts[split]]
    made = f"; {' and '.join(absent)} will be made from train" if absent else ""
    return [f"The split is given: {parts}{made}. The card says `splits: given`.", ""]
