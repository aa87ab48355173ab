"""`fieldlens search`: from a prepared task to finalists on the board, and each bad question."""

from __future__ import annotations

import json

import pytest

from pipelines import cli
from pipelines.backbones.spec import backbone
from pipelines.export.latency import Latency
from pipelines.paths import Paths
from pipelines.search import latency as clock
from pipelines.search.accuracy import Worth
from pipelines.search.objective import Objective
from tests.file_tree import file_tree
from tests.tiny_board import result, variant, with_toy
from tests.tiny_search import SEARCH, make_search


@pytest.fixture
def project(tiny_project: Paths, tmp_path, monkeypatch) -> Paths:
    """The tiny task, prepared, with weights of MobileNetV2 that somebody has put there."""
    monkeypatch.setenv("FIELDLENS_WORKERS", "1")
    monkeypatch.setenv("FIELDLENS_TRACKING", "off")
    with_toy(monkeypatch, tmp_path / "weights")
    return make_search(tiny_project, tmp_path)


@pytest.fixture
def search(project, capsys):
    def ask(*arguments: str) -> tuple[int, str, str]:
        code = cli.main(["search", "tiny", *arguments, "--root", str(project.root)])
        said = capsys.readouterr()
        complaints = [line for line in said.err.splitlines() if line.startswith("fieldlens:")]
        return code, said.out, "\n".join(complaints)

    return ask


@pytest.fixture
def quick(monkeypatch):
    """Worth and latency of networks are made up, by what they are; finalists' figures too."""
    asked: list[str] = []

    def worth(_self, network) -> float:
        asked.append(network.line)
        return 0.5 + sum(map(ord, network.line)) % 100 / 300

    def timed(calls, _reference, **_more) -> dict[str, Latency]:
        return {
            name: Latency(1.0, 1.0, 0.6 + 0.01 * index, 0.0, 2, is_steady=True)
            for index, name in enumerate(calls)
        }

    def cell(_objective, cell):
        asked.append(cell.title)
        ratio = 0.5 if "-" in cell.backbone else 1.0
        return result(cell, variant(0.9, ratio, 8.0), variant(0.9, ratio / 2, 2.0))

    monkeypatch.setattr(Worth, "__call__", worth)
    monkeypatch.setattr(Worth, "supernet", None)
    monkeypatch.setattr(clock, "against_reference", timed)
    for writes in ("network_onnx", "part_onnx", "asking"):
        monkeypatch.setattr(clock, writes, lambda *_: b"")
    monkeypatch.setattr(clock.ThisMachine, "_doubt", lambda *_: "")
    monkeypatch.setattr(Objective, "__call__", cell)
    return asked


def test_answer_names_the_best_and_the_lines_of_params(search, quick, project):
    code, out, err = search()
    assert (code, err) == (0, "")
    assert "BEST CANDIDATES" in out
    assert "FINALISTS" in out
    assert "takes 0.50 of the base's time; neither gain nor loss is shown" in out
    line = out.split("backbone: ")[1].splitlines()[0]
    assert backbone(line).spec.inherits == "mobilenet_v2"
    page = project.task("tiny").search_page.read_text()
    assert line in page
    assert f"backbone: {line}" in page
    for figure in (project.task("tiny").search_front, project.task("tiny").search_rewards):
        assert figure.read_bytes()[:4] == b"\x89PNG"


def test_second_call_asks_nothing_and_says_the_same(search, quick):
    first = search()
    n_asked = len(quick)
    assert n_asked > 5
    assert search() == first
    assert len(quick) == n_asked


def test_finalist_that_failed_is_told_and_trained_again_when_that_is_wished(
    search, quick, monkeypatch
):
    sound, n_tried = Objective.__call__, []

    def fails(objective, cell, *more):
        n_tried.append(cell)
        if "-" in cell.backbone:
            raise ValueError("no memory left")
        return sound(objective, cell)

    monkeypatch.setattr(Objective, "__call__", fails)
    code, _, err = search()
    assert code == 2
    assert "has failed: ValueError: no memory left (run it again with --retry.)" in err
    n_first = len(n_tried)
    assert search()[0] == 2
    assert len(n_tried) == n_first
    monkeypatch.setattr(Objective, "__call__", lambda objective, cell, *_: sound(objective, cell))
    assert search("--retry")[0] == 0


def test_controllers_share_what_is_known(search, quick, project):
    assert search()[0] == 0
    n_asked = len(quick)
    code, out, _ = search("--controllers", "reinforce", "random", "--seeds", "2")
    assert code == 0
    assert "asked by reinforce, random;" in out
    # The first study of reinforce, and the baselines of all, have records.
    assert len(quick) - n_asked <= 3 * SEARCH["candidates"] + 3


@pytest.mark.parametrize(
    ("section", "options", "says"),
    [
        ({}, ("--seeds", "0"), "--seeds: expected a number from 1 (got 0)."),
        ({"reward": {"target": 0.1}}, (), "is below the smallest network of the space"),
        ({}, ("--device-table", "nowhere.csv"), "nowhere.csv"),
        ({"candidates": 0}, (), "search.candidates"),
    ],
)
def test_bad_question_is_told_before_anything_is_made(
    section, options, says, search, quick, project
):
    document = json.loads(project.params.read_text())
    document["tasks"]["tiny"]["search"] |= section
    project.params.write_text(json.dumps(document))
    before = file_tree(project.root)
    code, out, err = search(*options)
    assert (code, out) == (2, "")
    assert says in err
    assert err.count("\n") == 0
    assert not quick
    made = {name for name in set(file_tree(project.root)) - set(before) if ".cache" not in name}
    assert not made


def test_table_of_another_device_is_written_filled_and_searched_by(search, project, tmp_path):
    folder = tmp_path / "blocks"
    assert search("--write-blocks", str(folder))[0] == 0
    table = folder / "blocks.csv"
    header, *rows = table.read_text().splitlines()
    assert len(rows) > 50
    # A device on which all blocks are alike: what has fewer of them is quicker.
    whole = [f"{row.partition(',')[0]},{'' if '@' in row else 1.5}" for row in rows]
    table.write_text("\n".join([header, *(row for row in whole if not row.endswith(","))]) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Worth, "__call__", lambda *_: 0.5)
        patch.setattr(Worth, "supernet", None)
        patch.setattr(
            Objective,
            "__call__",
            lambda _, cell: result(cell, variant(0.9, 1.0, 8.0), variant(0.9, 0.5, 2.0)),
        )
        code, out, err = search("--device-table", str(table))
    assert code == 0, err
    assert f"of the table {table}" in out
    table.write_text("\n".join([header, *whole[1:]]) + "\n")
    code, _, err = search("--device-table", str(table))
    assert code == 2
    assert err.count("\n") == 0


@pytest.mark.slow
def test_search_from_the_supernet_to_a_board(search, project, monkeypatch):
    """Nothing is made up but how steady the clock is: a test's machine has much else to do."""
    monkeypatch.setattr(clock.ThisMachine, "_doubt", lambda *_: "")
    code, out, err = search()
    assert code == 0, err
    assert "FINALISTS" in out
    cells = list(project.task("tiny").board_dir.glob("cells/mobilenet_v2-*"))
    # The base, and a finalist by the beginning of its line's hash.
    assert len(cells) == 2
    assert search()[1] == out
