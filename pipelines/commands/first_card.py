"""The first card of a data set that nobody has described yet.

States what was seen in the folder, and says of everything else that it is not stated: a guessed
licence or purpose would travel with every model. Called by `new`.
"""

from __future__ import annotations

import datetime
import io
from collections.abc import Mapping
from pathlib import Path

from ruamel.yaml import YAML

from pipelines.card import DatasetCard, Domain
from pipelines.commands.survey import Survey
from pipelines.data.range_of_set import MeasuredRange
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
    """The text of a card.yaml, checked.

    Args:
        task: slug.
        domain: of the task.
        survey: what the folder holds.
        path: where the card will lie, for messages.
        measured: stored values of the files with more than 8 bits a channel; None without any.
    """
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
    """Names and how often each was seen, the most frequent first.

    Args:
        counts: by name.
    """
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
