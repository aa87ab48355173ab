from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.card import DatasetCard
from pipelines.reports.pages import (
    TaskResult,
    embedded,
    further_tables,
    kind_tables,
    label_table,
    model_card,
    run_markdown,
)
from pipelines.serving.bundle import Abstention, Bundle, read_bundle
from pipelines.serving.trust import AuditReport, Interval, read_audit


@pytest.fixture
def described(tested_project):
    """Describes the run of the tiny task, its audit and its source of data changed."""
    files = tested_project.task("tiny")
    bundle = read_bundle(files.bundle).model_dump()
    audit = read_audit(files.audit, "tiny").model_dump()

    def make(data_source: str = "folder", **of_audit: Any) -> str:
        provenance = bundle["provenance"] | {"data_source": data_source}
        changed = bundle | {"audit": audit | of_audit, "provenance": provenance}
        metrics = json.loads(files.metrics.read_text())
        return run_markdown(Bundle.model_validate(changed), metrics)

    return make


def test_run_markdown_has_the_blind_models_beside_the_accuracy(described):
    text = described()
    names = [line.split(" | ")[0].strip("| ") for line in text.splitlines() if line[:1] == "|"]
    assert names.index("Accuracy") < names.index("Blind macro-F1") < names.index("Test images")
    assert "Gate" not in names
    assert ">" not in text


def test_run_markdown_warns_of_a_shortcut_and_of_painted_pictures(described):
    text = described("sample", verdict="shortcut")
    assert "> **Sample data: these numbers come from synthetic images." in text
    assert "> **tiny: the data hold a shortcut." in text


def png(width: int, height: int, *, is_noise: bool) -> bytes:
    pixels = np.full((height, width, 3), 255, np.uint8)
    if is_noise:
        pixels[:] = np.random.default_rng(0).integers(0, 256, pixels.shape, dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("size", "expected"),
    [((1600, 800), (800, 400)), ((400, 300), (400, 300)), ((900, 9000), (160, 1600))],
)
def test_a_figure_is_scaled_to_its_display_and_never_up(size, expected):
    copy = embedded(png(*size, is_noise=False), 60_000)
    assert (copy.width_px, copy.height_px) == expected
    with Image.open(io.BytesIO(copy.webp)) as image:
        assert (image.format, image.size) == ("WEBP", expected)


def test_bytes_are_bounded_by_quality_then_by_size_and_always_the_same():
    whole = png(1600, 1200, is_noise=True)
    large, small = (embedded(whole, most) for most in (150_000, 60_000))
    assert len(large.webp) <= 150_000
    assert len(small.webp) < len(large.webp)
    assert embedded(whole, 60_000) == small


# -- model cards ----------------------------------------------------------------------------------
#: Mitchell et al. 2019, section 4, in their order.
SECTIONS = [
    "Model details",
    "Intended use",
    "Factors",
    "Metrics",
    "Evaluation data",
    "Training data",
    "Quantitative analyses",
    "Ethical considerations",
    "Caveats and recommendations",
]


def card(domain: str = "reference") -> DatasetCard:
    return DatasetCard.model_validate(
        {
            "title": "Tiny | tiles",
            "task": "tiny",
            "domain": domain,
            "source": {
                "publisher": "The tile makers",
                "url": "https://example.org",
                "version": "v7",
                "retrieved": "2026-01-02",
            },
            "licence": {
                "spdx": "CC0-1.0",
                "url": "https://example.org/licence",
                "redistribution": "Yes to all.",
            },
            "citation": {"text": "Tiler 2026", "doi": "10.1/tiles"},
            "classes": [
                {"label": f"{colour}_tile", "meaning": f"a {colour} tile"}
                for colour in ("red", "green", "blue")
            ],
            "unit_of_observation": "one tile",
            "group_key": "batch",
            "image": {"modality": "photograph", "channels": 3, "bit_depth": 8},
            "splits": "made",
            "known_biases": ["All tiles are\nclean."],
            "consent_and_privacy": "Nobody is shown.",
            "intended_use": "Tests.",
            "not_for": ["Anything else"],
        }
    )


def score(name: str, value: float, verdict: str, *, decides: bool) -> dict[str, Any]:
    return {
        "name": name,
        "sees": f"the {name.replace('_', ' ')}",
        "macro_f1": {"value": value, "low": value - 0.05, "high": value + 0.05},
        "share": value,
        "verdict": verdict,
        "decides": decides,
    }


def audit(verdict: str = "shortcut", accepted: str | None = None) -> AuditReport:
    return AuditReport.model_validate(
        {
            "task": "tiny",
            "n_images": 24,
            "n_groups": 12,
            "folds": 5,
            "chance": 0.167,
            "probe": {"value": 0.9, "low": 0.8, "high": 0.95},
            "scores": [
                score("file_facts", 0.85, verdict, decides=True),
                score("colour", 0.93, "shortcut", decides=False),
            ],
            "verdict": verdict,
            "accepted": accepted,
            "suspicious_share": 0.5,
            "shortcut_share": 0.8,
            "n_label_issues": 3,
        }
    )


@pytest.fixture
def written(tested_project):
    """Writes the card of the tiny task, with changes to its bundle."""
    files = tested_project.task("tiny")
    bundle = read_bundle(files.bundle)
    metrics = json.loads(files.metrics.read_text())

    def write(domain: str = "reference", failed: tuple[str, ...] = (), **changes: Any) -> str:
        changed = Bundle.model_validate({**bundle.model_dump(), **changes})
        found = TaskResult(changed, metrics, failed, {}, published="87 % (Somebody 2020)")
        return model_card(found, card(domain), {"jpeg": 0.06})

    return write


def test_card_has_the_sections_of_mitchell_in_their_order(written):
    text = written()
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == SECTIONS
    assert text.startswith("# Model card: Tiny tiles\n")


def test_card_of_a_medical_task_says_first_that_it_is_no_medical_device(written):
    first = written("medical").splitlines()[0]
    assert first.startswith("> **This is not a medical device.** It has not been assessed by any")
    assert "medical device" not in written("agriculture")


def test_card_names_data_licence_citation_groups_and_counts(written):
    text = written()
    for words in (
        "The tile makers",
        "CC0-1.0",
        "Yes to all.",
        "Tiler 2026 doi:10.1/tiles",
        "| split | images | groups (batch) |",
        "| train | 12 | 6 |",
        "36 images of 18 groups",
        "- All tiles are clean.",
        "Nobody is shown.",
        "- anything else",
        "jpeg 6%",
    ):
        assert words in text, words


def test_card_says_what_was_trained_on(written, tested_project):
    assert "Trained on train.\n" in written()
    made_of = read_bundle(tested_project.task("tiny").bundle).provenance.model_dump()
    text = written(provenance=made_of | {"is_refit": True, "width": 0.5})
    assert "Trained on train + val. A training on train alone came first" in text
    assert "mobilenet_v2 x0.5, initial weights imagenet" in text


def test_card_shows_the_shortcut_before_anything_else(written):
    text = written(audit=audit().model_dump())
    first = text.splitlines()[0]
    assert first.startswith("> **tiny: the data hold a shortcut.")
    assert "macro-F1 0.850 (0.800 to 0.900)" in first
    assert "87 % (Somebody 2020)" in first
    assert "Verdict: shortcut." in text
    assert "3 likely label issues" in text
    accepted = written(audit=audit(accepted="it is shown for teaching").model_dump())
    assert "because: it is shown for teaching" in accepted.splitlines()[0]


def test_card_of_clean_data_warns_of_nothing(written):
    assert written(audit=audit("clean").model_dump()).startswith("# Model card")


def test_card_shows_the_blind_model_beside_the_metric(written):
    text = written(audit=audit().model_dump())
    row = next(line for line in text.splitlines() if line.startswith("| macro-F1 |"))
    # What a colour histogram shows may be the subject itself: it does not stand there.
    assert row.endswith("| 0.850 (0.800 to 0.900), file_facts |")
    missing = written(audit=None)
    assert "| not measured |" in missing
    assert "Not measured: run `fieldlens audit`" in missing


def test_card_shows_intervals_where_there_are_some(written):
    interval = Interval(value=0.5, low=0.25, high=0.75).model_dump()
    intervals = {"fp32": {}, "int8": {"accuracy": interval, "recall.red_tile": interval}}
    text = written(intervals=intervals)
    rows = {line.split(" | ")[0]: line for line in text.splitlines() if line.startswith("| ")}
    assert "(0.250 to 0.750)" in rows["| accuracy"]
    assert rows["| accuracy"].count("(") == 1
    assert "(0.250 to 0.750)" in rows["| red_tile"]
    assert "(" not in rows["| blue_tile"]


def test_card_says_what_the_gate_refuses(written):
    text = written(failed=("accuracy (int8)",))
    assert text.startswith("> **Not released.** The gate does not accept: accuracy (int8).\n")
    assert "| Gate | fails: accuracy (int8) |" in text


def test_card_shows_operating_points_abstention_and_the_way_to_int8(written):
    point = {"threshold": 0.4, "min_specificity": 0.9, "sensitivity": 0.8, "specificity": 0.95}
    candidate = {
        "remedy": "round",
        "calibrator": "minmax",
        "float_nodes": ("a", "b"),
        "agreement": 0.99,
        "metrics": {"accuracy": 0.9, "macro_f1": 0.88},
        "sqnr_db": 28.42,
        "size_bytes": 2_500_000,
        "holds_bounds": True,
        "is_chosen": True,
    }
    array = {"shape": (1,), "dtype": "int8", "data": "AA=="}
    text = written(
        operating_points={"red_tile": {**point, "n_positive": 4, "n_negative": 8}},
        temperature=1.25,
        abstention={
            "score": "knn",
            "threshold": 0.3,
            "acceptance": 0.95,
            "arrays": {"centres": array},
            "n_train": 12,
            "n_val": 12,
        },
        int8_path=(candidate,),
    )
    assert "| tiny | red_tile | 0.900 | 0.400 | 0.800 | 0.950 |" in text
    assert "| tiny | knn | 0.950 |" in text
    assert "| round | minmax | 2 | 0.990 | 0.900 | 0.880 | 28.4 | 2,500,000 | yes | yes |" in text


def test_card_without_them_says_so(written):
    text = written(abstention=None, operating_points={}, int8_path=())
    assert "every picture is answered, whatever it shows" in text
    assert "the most probable label is the answer" in text
    assert "Not recorded." in text


def test_tables_are_whole_whatever_the_words_hold(written):
    text = written(audit=audit().model_dump())
    assert "Tiny \\| tiles" in text
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        bars = {len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}
        assert len(bars) == 1, table


# -- tables of the kinds --------------------------------------------------------------------------
def interval(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.1, "high": value + 0.1}


@pytest.fixture
def of_kind(tested_project):
    """Makes what is known of a task of any kind."""
    files = tested_project.task("tiny")
    bundle = read_bundle(files.bundle)
    tiny = json.loads(files.metrics.read_text())

    def make(
        kind: str, served: dict[str, Any], others: dict[str, Any], task: str = "tiny", **of: Any
    ) -> TaskResult:
        known = {name: Interval(**interval(value)) for name, value in of.items()}
        changed = bundle.model_copy(
            update={"kind": kind, "task": task, "intervals": {"int8": known, "fp32": {}}}
        )
        kept = {key: tiny[key] for key in ("n_images", "n_groups", "agreement", "bytes")}
        metrics = kept | {"int8": served, "fp32": served, "served": "int8", **others}
        return TaskResult(changed, metrics, failed=(), figures={})

    return make


def column(table: Any, heading: str) -> list[str]:
    return [row[table.header.index(heading)] for row in table.rows]


def test_each_kind_has_a_table_with_its_blind_baselines(of_kind):
    boxes = of_kind("detection", {"ap50": 0.5}, {"blind": {"ap50": 0.01}}, ap50=0.5, presence=0.7)
    masks = of_kind(
        "segmentation",
        {"dice": 0.8},
        {"blind": {"mean_mask": 0.3, "centred_ellipse": 0.29}},
        dice=0.8,
    )
    vectors = of_kind("embedding", {"eer": 0.1}, {}, eer=0.1)
    found = {table.title: table for table in kind_tables([vectors, masks, boxes])}
    assert list(found) == ["Detection", "Segmentation", "Embedding"]
    assert column(found["Detection"], "AP50") == ["0.500 (0.400 to 0.600)"]
    assert column(found["Detection"], "Blind AP50") == ["0.010"]
    assert column(found["Detection"], "Blind presence (AUC)") == ["0.300 (0.200 to 0.400) border"]
    assert column(found["Segmentation"], "Dice of the mean mask") == ["0.300"]
    assert column(found["Segmentation"], "Dice of a centred ellipse") == ["0.290"]
    assert column(found["Embedding"], "EER") == ["0.100 (0.000 to 0.200)"]
    assert column(found["Embedding"], "Chance recall@1") == [f"{vectors.bundle.audit.chance:.3f}"]


def test_a_column_that_no_task_has_is_left_out_and_a_cell_is_not(of_kind):
    plain = of_kind("detection", {"ap50": 0.5}, {}, task="plain")
    assert not further_tables([plain])["Boxes by size"][0].rows
    sized = of_kind(
        "detection", {"ap50": 0.6, "by_size": {"small": {"ap": 0.2, "n": 1200}}}, {}, "sized"
    )
    (table,) = further_tables([plain, sized])["Boxes by size"]
    assert table.header == ["Task", "AP, small", "small boxes"]
    assert table.rows == [["sized", "0.200", "1,200"]]
    counted = of_kind("detection", {"ap50": 0.6, "counting_error": 1.5}, {})
    (table,) = kind_tables([plain, counted])
    assert column(table, "Counts off by") == ["n/a", "1.500"]
    # It is there, and is not defined.
    nothing = of_kind("detection", {"ap50": None}, {})
    assert column(kind_tables([nothing])[0], "AP50") == ["n/a"]


def test_attacks_stand_beside_the_accuracy_with_their_threshold(of_kind):
    rates = {"attack": "spoof", "threshold": 0.7, "apcer": 0.03, "bpcer": 0.0, "acer": 0.015}
    door = of_kind(
        "classification", {"accuracy": 0.9}, {"presentation_attack": rates}, "door", acer=0.015
    )
    plain = of_kind("classification", {"accuracy": 0.8}, {}, "plain")
    (table,) = further_tables([plain, door])["Presentation attacks"]
    assert table.rows == [
        ["door", "spoof", "0.700", "0.030", "0.000", "0.015 (-0.085 to 0.115)", "0.900"]
    ]


def test_abstention_of_all_kinds_is_one_table(of_kind):
    array = {"shape": (1,), "dtype": "int8", "data": "AA=="}
    chosen = Abstention(
        score="knn", threshold=0.3, acceptance=0.95, arrays={"a": array}, n_train=9, n_val=9
    )
    masks = of_kind("segmentation", {}, {"refused": 0.1, "dice_of_accepted": 0.9}, "masks")
    boxes = of_kind("detection", {}, {"refused": 0.2}, "boxes")
    both = [
        replace(found, bundle=found.bundle.model_copy(update={"abstention": chosen}))
        for found in (masks, boxes)
    ]
    (table,) = further_tables(both)["Abstention"]
    assert table.rows == [
        ["boxes", "knn", "0.950", "0.200", "n/a"],
        ["masks", "knn", "0.950", "0.100", "0.900"],
    ]


def test_labels_of_boxes_and_masks_have_rows(of_kind):
    labels = {name: {"dice": 0.5, "iou": 0.4} for name in ("red_tile", "green_tile")}
    table = label_table(
        of_kind("segmentation", {"per_label": labels}, {}, **{"dice.red_tile": 0.5})
    )
    assert table.header == ["label", "Dice", "IoU"]
    assert table.rows == [
        ["red_tile", "0.500 (0.400 to 0.600)", "0.400"],
        ["green_tile", "0.500", "0.400"],
    ]
    assert not label_table(of_kind("embedding", {"eer": 0.1}, {})).rows
