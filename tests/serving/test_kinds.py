"""Kinds as serving knows them; tests/golden/classification.json is for every implementation.

Its numbers were worked out from the definitions in double precision; the phone page's tests read
the same file.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pipelines.serving.bundle import Bundle, read_bundle
from pipelines.serving.kinds import KINDS, served_kind

GOLDEN = Path(__file__).parent.parent / "golden"
CASES = json.loads((GOLDEN / "classification.json").read_text(encoding="utf-8"))["cases"]


def bundle_of(case: dict) -> Bundle:
    bundle = read_bundle(GOLDEN / "bundle_schema_3.json", verify=False)
    document = bundle.model_dump()
    point = document["operating_points"]["red_tile"]
    document |= {
        "labels": case["labels"],
        "label_names": {},
        "temperature": case["temperature"],
        "operating_points": {
            label: {**point, "threshold": threshold}
            for label, threshold in case["thresholds"].items()
        },
    }
    document["outputs"][0]["shape"] = (-1, len(case["labels"]))
    return Bundle.model_validate(document)


@pytest.mark.parametrize("case", CASES)
def test_golden_answers_of_a_classification(case):
    outputs = {"logits": np.float32(case["logits"]), "embedding": np.zeros(3, np.float32)}
    answer = KINDS["classification"].decode(outputs, bundle_of(case), np.eye(3))
    assert answer.label == case["label"]
    assert answer.positives == case["positives"]
    assert list(answer.probabilities) == case["labels"]
    assert list(answer.probabilities.values()) == pytest.approx(case["probabilities"], abs=1e-6)


def test_golden_bundle_is_what_is_written_today():
    """Of schema 2 and of schema 3; the phone page's tests read both."""
    text = (GOLDEN / "bundle_schema_3.json").read_text(encoding="utf-8")
    for version in (2, 3):
        bundle = read_bundle(GOLDEN / f"bundle_schema_{version}.json", verify=False)
        assert bundle.to_json() == text


def test_unknown_kind_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match=f"kind: expected one of {', '.join(KINDS)}, got 'augury'"):
        served_kind("augury")
