from __future__ import annotations

import csv
import io
import math

import pytest

from pipelines.training.fit import EpochLog, best_values, history_csv


def values(*numbers: float) -> dict[str, float]:
    return dict(zip(("val_loss", "val_accuracy", "val_macro_f1"), numbers, strict=True))


ROWS = [
    EpochLog(1, "head", 0.01, 1.5, values(1.25, 0.5, 0.4)),
    EpochLog(2, "head", 0.005, 1.0, values(1.0, 0.75, 0.7)),
    EpochLog(3, "tail", 1e-5, 0.5, values(0.9, 0.75, 0.7)),
    EpochLog(4, "tail", 1e-9, 0.25, values(0.8, 0.7, 0.6)),
]


@pytest.mark.parametrize(
    ("monitor", "epoch"),
    # the lower loss settles the tie of epochs 2 and 3
    [("val_accuracy", 3), ("val_macro_f1", 3), ("val_loss", 4)],
)
def test_best_values_are_those_of_the_epoch_that_was_kept(monitor, epoch):
    row = ROWS[epoch - 1]
    assert best_values(ROWS, monitor) == row.val


def test_history_is_a_table_with_a_row_an_epoch():
    rows = list(csv.DictReader(io.StringIO(history_csv(ROWS))))
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3, 4]
    assert [row["phase"] for row in rows] == ["head", "head", "tail", "tail"]
    assert list(rows[0]) == list(ROWS[0].row())
    assert list(rows[0])[4:] == list(ROWS[0].val)
    assert [float(row["learning_rate"]) for row in rows] == [0.01, 0.005, 1e-5, 1e-9]


def test_numbers_have_six_digits_and_lines_end_alike_everywhere():
    text = history_csv([EpochLog(1, "head", 1 / 3, 2 / 3, values(1e9 / 7, 1.0, 0.0))])
    assert text.splitlines()[1] == "1,head,0.333333,0.666667,1.42857e+08,1,0"
    assert "\r" not in text


def test_a_terminal_shows_of_an_epoch_what_is_known():
    assert str(ROWS[1]) == (
        "epoch 2 (head): train_loss 1.000, val_loss 1.000, val_accuracy 0.750, val_macro_f1 0.700"
    )
    alone = EpochLog(3, "tail", 1e-5, 0.5, values(math.nan, math.nan, math.nan))
    assert str(alone) == "epoch 3 (tail): train_loss 0.500"
