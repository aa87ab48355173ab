from __future__ import annotations

import pytest

from pipelines.cli import main


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["mobilenet_v1", "--width", "0.6"], "mobilenet_v1 has no width 0.6. Expected one of 0.25"),
        (["mobilenet_v1", "--width", "nan"], "mobilenet_v1 has no width nan. Expected one of 0.25"),
        (["alexnet", "--image-px", "32"], "alexnet is too deep for 32 px: nothing is left at"),
        (["mobilenet_v9"], "there is no backbone 'mobilenet_v9'. Expected one of"),
    ],
)
def test_network_that_there_is_not_is_one_line(arguments, says, capsys):
    assert main(["cost", *arguments]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert says in said.err
    assert said.err.count("\n") == 1


@pytest.mark.parametrize("option", ["--image-px", "--classes"])
@pytest.mark.parametrize("value", ["-32", "0", "many", "1.5"])
def test_number_that_cannot_be_is_usage(option, value, capsys):
    with pytest.raises(SystemExit) as end:
        main(["cost", "mobilenet_v1", option, value])
    assert end.value.code == 2
    expected = f"argument {option}: expected a whole number from 1 up (got {value})"
    assert expected in capsys.readouterr().err
