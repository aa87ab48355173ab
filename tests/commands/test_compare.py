from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from pipelines import cli
from pipelines.metrics.predictions import mcnemar, parse_predictions


def compare(*arguments: object) -> int:
    return cli.main(["compare", *map(str, arguments)])


def write_answers(path: Path, answers, *, true=None, groups=None, names=None) -> Path:
    """A predictions.csv with one precision; answers by image."""
    n = len(answers)
    true = true or ["cat", "dog"] * (n // 2)
    groups = groups or [f"g{i}" for i in range(n)]
    names = names or [f"{label}/{i}.png" for i, label in enumerate(true)]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, quoting=csv.QUOTE_ALL)
        writer.writerow(["path", "group", "label", "int8_answer", "int8_cat", "int8_dog"])
        for name, group, label, answer in zip(names, groups, true, answers, strict=True):
            writer.writerow([name, group, label, answer, "0.5", "0.5"])
    return path


TRUE = ["cat", "dog"] * 30
#: Wrong on every third image.
WORSE = ["dog" if i % 3 == 0 else label for i, label in enumerate(TRUE)]
NAMES = [f"{label}/{i}.png" for i, label in enumerate(TRUE)]
N_WRONG = sum(x != y for x, y in zip(WORSE, TRUE, strict=True))


@pytest.fixture
def two(tmp_path):
    return (
        write_answers(tmp_path / "a/predictions.csv", WORSE),
        write_answers(tmp_path / "b/predictions.csv", TRUE),
    )


def test_compare_finds_the_better_one_and_what_changed(two, capsys):
    a, b = two
    assert compare(a.parent, b) == 0
    out = capsys.readouterr().out
    assert "60 images of 60 groups" in out
    assert "B is better in accuracy" in out
    assert "B is better in macro-F1" in out
    assert f"only in A 0, only in B {N_WRONG}" in out
    assert f"{N_WRONG} answer(s) changed:" in out
    assert ["cat/0.png", "cat", "dog", "cat"] in [line.split() for line in out.splitlines()]


def test_compare_json_is_whole(two, capsys):
    a, b = two
    assert compare(a, b, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    wrong = [i for i, (x, y) in enumerate(zip(WORSE, TRUE, strict=True)) if x != y]
    gain = document["b_minus_a"]["accuracy"]
    assert gain["value"] == pytest.approx(len(wrong) / 60)
    assert 0 < gain["low"] < gain["value"] < gain["high"]
    assert document["b"]["accuracy"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert document["agreement"]["value"] == pytest.approx(1 - len(wrong) / 60)
    assert [each["path"] for each in document["changed"]] == [f"cat/{i}.png" for i in wrong]
    assert document["changed"][0] == {
        "path": "cat/0.png", "group": "g0", "label": "cat", "a": "dog", "b": "cat",
    }  # fmt: skip
    assert document["n_only_b_right"] == len(wrong)
    assert document["mcnemar_p"] == pytest.approx(binomtest(0, len(wrong)).pvalue)


def test_compare_with_itself_finds_nothing(two, capsys):
    assert compare(two[0], two[0]) == 0
    out = capsys.readouterr().out
    assert "+0.000 to +0.000" in out
    assert "No difference in accuracy is shown" in out
    assert "0 answer(s) changed." in out


def test_compare_resamples_groups_not_images(tmp_path, capsys):
    # One group of 20 images is what the second has won: as images sure, as groups luck.
    groups = ["large"] * 20 + [f"g{i}" for i in range(5)]
    true = ["cat"] * 25
    a = write_answers(tmp_path / "a.csv", ["dog"] * 20 + ["cat"] * 5, true=true, groups=groups)
    b = write_answers(tmp_path / "b.csv", true, true=true, groups=groups)
    assert compare(a, b, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["n_groups"] == 6
    assert document["b_minus_a"]["accuracy"]["low"] == 0
    assert document["mcnemar_p"] < 0.001


def test_compare_order_of_rows_does_not_matter(two, tmp_path, capsys):
    a, b = two
    text = b.read_text(encoding="utf-8").splitlines()
    turned = tmp_path / "turned.csv"
    turned.write_text("\n".join([text[0], *reversed(text[1:])]) + "\n", encoding="utf-8")
    found = []
    for other in (b, turned):
        assert compare(a, other, "--json") == 0
        document = json.loads(capsys.readouterr().out)
        document["b"].pop("path")
        found.append(document)
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"names": [f"x/{i}.png" for i in range(60)]}, "answers other images than"),
        ({"true": ["dog", "cat"] * 30, "names": None}, "answers other images than"),
        ({"groups": ["one"] * 60}, "has other groups than"),
        ({"true": ["cat"] * 60, "names": NAMES}, "has other labels than"),
    ],
)
def test_compare_refuses_other_images(two, tmp_path, change, words, capsys):
    other = write_answers(tmp_path / "other.csv", TRUE, **change)
    assert compare(two[0], other) == 2
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "expected the columns"),
        ("a,b\n1,2\n", "expected the columns"),
        ("path,group,label,int8_answer\n", "holds no image"),
        ("path,group,label,int8_answer\na,g,cat,cat\na,g,cat,cat\n", "lists an image twice"),
        ("path,group,label,int8_answer\na,g,cat\n", "rows of unequal length"),
        ("path,group,label,int8_answer\na,g,cat,cat,cat\n", "rows of unequal length"),
        ('path,group,label,int8_answer\n"a', "is not CSV"),
    ],
)
def test_compare_refuses_what_is_no_predictions_csv(two, tmp_path, text, words, capsys):
    (tmp_path / "bad.csv").write_text(text)
    assert compare(two[0], tmp_path / "bad.csv") == 2
    assert words in capsys.readouterr().err


def test_compare_both_files_of_a_task(tested_project, capsys):
    root = ["--root", tested_project.root]
    assert compare("tiny", "tiny", "--precision", "fp32", "--precision-b", "int8", *root) == 0
    out = capsys.readouterr().out
    assert "(fp32)" in out
    assert "(int8)" in out
    metrics = json.loads(tested_project.task("tiny").metrics.read_text())
    assert f"{-metrics['accuracy_drop']:+.3f}" in out
    # Without a word, the served file of metrics.json beside the answers.
    assert compare("tiny", "tiny", "--json", *root) == 0
    assert json.loads(capsys.readouterr().out)["a"]["precision"] == metrics["served"]
    tested_project.task("tiny").metrics.unlink()
    assert compare("tiny", "tiny", *root) == 2
    assert "--precision int8" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [(("absent",), "fieldlens evaluate"), (("", "--precision", "fp32"), "has no answers of fp32")],
)
def test_compare_says_which_answers_are_not_there(arguments, says, two, capsys):
    folder, *options = arguments
    assert compare(two[0], two[1].parent / folder, *options) == 2
    assert says in capsys.readouterr().err


def test_predictions_keep_labels_in_the_order_of_the_model(tested_project):
    text = tested_project.task("tiny").predictions.read_text()
    assert parse_predictions(text).labels == ("red_tile", "green_tile", "blue_tile")


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_binomial_test(only_a, only_b):
    expected = binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    assert mcnemar(only_a, only_b) == pytest.approx(expected, abs=1e-12)


def test_mcnemar_of_many_images_does_not_overflow():
    assert mcnemar(5000, 5000) == 1.0
    assert mcnemar(0, 5000) == 0.0
    assert mcnemar(900, 1100) == pytest.approx(binomtest(900, 2000).pvalue)
