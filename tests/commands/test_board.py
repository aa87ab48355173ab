"""`fieldlens board`: the table, the answer to "which one", and each bad question in one line."""

from __future__ import annotations

import pytest

from pipelines import cli
from pipelines.errors import WeightsError
from pipelines.paths import Paths
from pipelines.search.objective import Objective
from tests.tiny_board import make_project, result, variant, with_toy

#: (accuracy, ratio, MB) of fp32 and int8 by width; the reference takes 10 ms.
FIGURES = {
    1.0: ((0.95, 1.0, 8.0), (0.94, 0.6, 2.0)),
    0.5: ((0.86, 0.5, 3.0), (0.86, 0.3, 1.0)),
}


@pytest.fixture
def project(tiny_project: Paths, tmp_path, monkeypatch) -> Paths:
    """The tiny task with a board of two cells, whose figures are made up."""
    with_toy(monkeypatch, tmp_path / "weights")

    def call(_objective, cell):
        fp32, int8 = FIGURES[cell.width]
        return result(cell, variant(*fp32), variant(*int8), int(1e6 * cell.width))

    monkeypatch.setattr(Objective, "__call__", call)
    return make_project(tiny_project)


@pytest.fixture
def board(project, capsys):
    def ask(*arguments: str) -> tuple[int, str, str]:
        code = cli.main(["board", "tiny", *arguments, "--root", str(project.root)])
        said = capsys.readouterr()
        complaints = [line for line in said.err.splitlines() if line.startswith("fieldlens:")]
        return code, said.out, "\n".join(complaints)

    return ask


def test_table_has_every_file_and_marks_the_front(board):
    code, out, err = board()
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith("tiny: 2 networks in 4 files, 36 test images.")
    assert "some processor, beside toy x1 at 64 px in float32." in lines[0]
    rows = [line.split() for line in lines[3:7]]
    assert [row[:2] for row in rows] == [
        ["*", "toy,"],
        ["*", "toy,"],
        ["*", "toy"],
        ["toy", "x0.5,"],
    ]
    assert "toy, 32 px, fp32       0.950     0.475 to 0.975  10.00  1.00     8.00  1" in lines[3]
    assert "Rank correlation" not in out, "two networks always have an order"
    assert "Ship" not in out


@pytest.mark.parametrize(
    ("arguments", "best", "runner_up"),
    [
        (["--max-ms", "7"], "toy, 32 px, int8", "toy x0.5, 32 px, int8"),
        (["--max-mb", "2.5"], "toy, 32 px, int8", "toy x0.5, 32 px, int8"),
        (["--max-ms", "4"], "toy x0.5, 32 px, int8", None),
        (["--min-recall", "red_tile=0.9"], "toy, 32 px, fp32", "toy, 32 px, int8"),
    ],
)
def test_which_to_ship(arguments, best, runner_up, board):
    code, out, err = board(*arguments)
    assert (code, err) == (0, "")
    assert f"Ship {best}: the most accurate with " in out
    assert (f"Runner-up {runner_up}: accuracy" in out) if runner_up else "No runner-up" in out
    width = "0.5" if best.startswith("toy x0.5") else "1"
    assert f"tiny: train.backbone: toy, train.width: {width}, train.image_px: 32" in out
    # The task's own bound is a byte.
    size = 1_000_000 if width == "0.5" else 2_000_000
    assert f"export.max_int8_bytes and gate.max_int8_bytes: at least {size}; then `dvc repro" in out


def test_runner_up_is_compared_in_pairs(board):
    _, out, _ = board("--max-ms", "7")
    # 34 of 36 right against 31 of 36, in 18 groups; half the time and half the bytes.
    line = next(line for line in out.splitlines() if line.startswith("Runner-up"))
    assert "8.3 points less (95 %, paired: " in line
    assert "in 0.50 of the time and 0.50 of the bytes." in line


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ["--max-ms", "0.1"],
            "tiny: nothing on the board has at most 0.1 ms; the nearest is toy x0.5, 32 px, int8: "
            "3 ms.",
        ),
        (["--max-mb", "0.9"], "the nearest is toy x0.5, 32 px, int8: 1 MB."),
        (
            ["--min-recall", "red_tile=0.99", "--max-ms", "20"],
            "recall of red_tile at least 0.99; the nearest is toy, 32 px, fp32: recall of red_tile "
            "0.900.",
        ),
    ],
)
def test_empty_front_is_one_line_with_the_nearest_miss(arguments, says, board):
    board()
    code, out, err = board(*arguments)
    assert code == 2
    assert says in err
    assert err.count("\n") == 0, "one line"
    assert "Ship" not in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--min-recall", "purple=0.9"], "tiny has no class 'purple'. Expected one of red_tile, "),
        (["--backbones", "vgg16"], "--backbones: the board has no vgg16. Expected some of toy, or"),
        (["--widths", "0.7"], "--widths: the board has no 0.7. Expected some of 1.0, 0.5, or"),
        (["--image-px", "64"], "--image-px: the board has no 64. Expected some of 32, or"),
    ],
)
def test_question_about_what_is_not_there_is_one_line_before_any_training(
    arguments, says, board, project
):
    code, out, err = board(*arguments)
    assert (code, out) == (2, "")
    assert says in err
    assert err.count("\n") == 0
    assert not project.task("tiny").board_dir.exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--max-ms", "0"],
        ["--max-mb", "nan"],
        ["--max-ms", "soon"],
        ["--min-recall", "red_tile"],
        ["--min-recall", "red_tile=95"],
        ["--min-recall", "=0.9"],
    ],
)
def test_usage(arguments, board, capsys):
    with pytest.raises(SystemExit) as end:
        board(*arguments)
    assert end.value.code == 2
    assert f"argument {arguments[0]}: expected a" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--engine", "local", "--address", "127.0.0.1:1"], "--address: is of a Ray cluster"),
        (["--workers", "2"], "--workers: is of Ray. Add --engine ray, or leave it out"),
        (["--stop-early"], "--stop-early: is of Ray. Add --engine ray, or leave it out"),
        (["--engine", "ray", "--workers", "0"], "--workers: expected at least 1 (got 0)"),
        (["--engine", "ray", "--stop-early", "--retry"], "--retry: trains cells that were stopped"),
        (["--address", "127.0.0.1:1"], "--address: nothing answers at 127.0.0.1:1"),
    ],
)
def test_engine_that_cannot_be_is_one_line_and_nothing_is_written(arguments, says, board, project):
    code, out, err = board(*arguments)
    assert (code, out) == (2, "")
    assert says in err
    assert err.count("\n") == 0
    assert not project.task("tiny").board_dir.exists()


def test_only_the_cells_that_are_named_are_asked(board, project):
    code, out, _ = board("--widths", "0.5", "--max-mb", "10")
    assert code == 0
    assert out.startswith("tiny: 1 network in 2 files")
    assert "Ship toy x0.5, 32 px, int8" in out
    assert [file.stem for file in (project.task("tiny").board_dir / "cells").iterdir()] == [
        "toy-x0.5-32px"
    ]


def test_cell_that_failed_is_told_and_the_others_are_shown(board, monkeypatch):
    whole = Objective.__call__

    def call(objective, cell):
        if cell.width == 1.0:
            raise WeightsError("no provider gave the weights.")
        return whole(objective, cell)

    monkeypatch.setattr(Objective, "__call__", call)
    code, out, err = board()
    assert (code, err) == (
        0,
        "fieldlens: tiny: toy, 32 px has failed: no provider gave the weights. (--retry tries it "
        "again.)",
    )
    assert "toy x0.5, 32 px, int8" in out
    code, out, err = board("--widths", "1")
    assert (code, out) == (2, "")


def test_another_kind_is_refused(board, project):
    card = project.task("tiny").card
    card.write_text(card.read_text() + "kind: augury\n")
    code, _, err = board()
    assert code == 2
    assert "a board compares classifiers; expected classification (got 'augury')" in err


def test_a_task_that_was_not_prepared_says_what_to_run(board, project):
    project.task("tiny").prepare_summary.unlink()
    code, _, err = board()
    assert code == 2
    assert "prepare" in err
