from __future__ import annotations

from pipelines import cli


def test_tasks_shows_how_far_each_has_come(toy_project, toy_bundle, capsys):
    (toy_project / "datasets/toy/raw").mkdir()
    assert cli.main(["tasks", "--root", str(toy_project)]) == 0
    header, toy, other = capsys.readouterr().out.splitlines()
    assert header.split()[:4] == ["TASK", "DOMAIN", "CLASSES", "SOURCE"]
    assert toy.split()[:10] == [
        *("toy", "agriculture", "3", "sample"),
        *("yes", "-", "-", "-", "yes", "-"),
    ]
    assert toy.endswith("Toy colours")
    assert other.split()[4:10] == ["-"] * 6


def test_tasks_bad_card_is_complained_about_and_the_rest_is_shown(toy_project, capsys):
    card = toy_project / "datasets/toy/card.yaml"
    card.write_text(card.read_text().replace("splits: made", "splits: perhaps"))
    assert cli.main(["tasks", "--root", str(toy_project)]) == 2
    captured = capsys.readouterr()
    assert "splits" in captured.err
    assert captured.err.count("\n") == 1
    assert "Other colours" in captured.out
