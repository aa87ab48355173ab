"""The scripts behind `make bench`: each runs alone, and counts what it says it counts."""

from __future__ import annotations

import argparse
import importlib
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.paths import Paths

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "benchmarks"
SCRIPTS = (
    "abstention",
    "clocks",
    "first_answer",
    "folds",
    "latency",
    "prepare",
    "repro",
    "training",
)


@pytest.fixture(autouse=True)
def _as_scripts_find_one_another(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))


@pytest.fixture
def models_root() -> Path:
    """The project folder whose models are measured: of ``FIELDLENS_ROOT``, or the checkout."""
    root = Path(os.environ.get("FIELDLENS_ROOT", ROOT)).resolve()
    for task in ("weld_defect", "mask_detection"):
        for file in (Paths(root).task(task).candidate, Paths(root).task(task).manifest):
            if not file.is_file():
                pytest.skip(f"{file} is not there; `make repro` makes it")
    return root


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, FOLDER / f"{script}.py", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_answers_and_make_bench_runs_it(script):
    done = run(script, "--help")
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert f"python benchmarks/{script}.py" in makefile
    assert re.search(rf"^bench:.* bench-{script}\b", makefile, re.MULTILINE)


def test_prepare_prints_a_table_with_its_command_and_processor():
    done = run("prepare", "--images", "12", "--repeat", "1")
    assert done.returncode == 0, done.stderr
    assert "Command: `python benchmarks/prepare.py --images 12 --repeat 1`" in done.stdout
    assert "Processor: " in done.stdout
    row = done.stdout.strip().splitlines()[-1]
    assert row.startswith("| 12 | 12 | 0 | ")


def test_plain_loop_refuses_what_prepare_refuses(tmp_path):
    prepare = importlib.import_module("prepare")
    prepare.paint(tmp_path, 4)
    whole = (tmp_path / "000003.jpg").read_bytes()
    (tmp_path / "000003.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "000002.jpg").write_bytes(b"no image")
    files = prepare.files_in(tmp_path)
    assert prepare.plain_loop(tmp_path, files) == prepare.own_pass(tmp_path, files) == 2


@pytest.mark.parametrize(("script", "n_needed"), [("latency", 1), ("abstention", 2)])
def test_without_models_it_says_what_to_run(script, n_needed, tmp_path):
    done = run(script, "--root", str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert f"expected at least {n_needed} models" in done.stderr
    assert "make repro" in done.stderr


@pytest.mark.slow
def test_backbones_probes_what_has_weights_and_a_random_network_beside(tmp_path):
    rng = np.random.default_rng(3)
    lines = ["path,label,group"]
    for number in range(12):
        label = ("dark", "light")[number % 2]
        pixels = rng.integers(0, 60, (64, 64, 3), dtype=np.uint8) + 150 * (label == "light")
        (tmp_path / "toy").mkdir(exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "toy" / f"{number}.png")
        lines.append(f"{number}.png,{label},g{number}")
    (tmp_path / "toy/records.csv").write_text("\n".join(lines) + "\n")
    where = ("--data", str(tmp_path), "--task", "toy", "--root", str(tmp_path))
    few = run("backbones", *where, "--images", "9")
    assert few.returncode == 2
    assert "expected at least 5 of each, 10 in all" in few.stderr
    done = run("backbones", *where, "--images", "12")
    assert done.returncode == 0, done.stderr
    assert "toy: 12 images, 2 classes, 12 groups" in done.stdout
    row = done.stdout.strip().splitlines()[-1]
    # So different that any features tell them apart.
    assert row == "| mobilenet_v2 | none | 1,280 | 1.000 (1.000 to 1.000) |"


def test_each_image_is_tested_once_and_no_group_straddles_splits():
    from pipelines.data.manifest import SPLITS, Entry

    folds = importlib.import_module("folds")
    entries = [
        Entry(f"{i}.jpg", "ab"[i % 2], f"g{i // 3}", "", "train", f"{i:064x}", 9, 9)
        for i in range(90)
    ]
    found = folds.folds(entries, 5, 1)
    tested = sorted(e.path for fold in found for e in fold if e.split == "test")
    assert tested == sorted(e.path for e in entries)
    for fold in found:
        groups = {split: {e.group for e in fold if e.split == split} for split in SPLITS}
        assert all(groups.values())
        assert len({group for held in groups.values() for group in held}) == sum(
            map(len, groups.values())
        )


def test_what_is_not_trained_on_is_answered_and_shares_no_group():
    from pipelines.data.manifest import Entry

    strategies = importlib.import_module("strategies")
    splits = ("train", "train", "train", "train", "val", "test")
    entries = [
        Entry(f"{i}.jpg", "ab"[i % 2], f"g{i // 2}", "", splits[i // 2 % 6], f"{i:064x}", 9, 9)
        for i in range(120)
    ]
    found = strategies.dealt(entries, 40)
    groups = {split: {e.group for e in found if e.split == split} for split in splits}
    assert [e.path for e in found] == [e.path for e in entries]
    assert len([e for e in found if e.split == "train"]) == 40
    assert [e for e in found if e.split == "val"] == [e for e in entries if e.split == "val"]
    assert not groups["train"] & groups["test"]
    everything = strategies.dealt(entries, 1000)
    assert everything == entries


def test_painted_pictures_are_of_every_kind():
    import abstention

    found = abstention.kinds()
    assert set(found) == {"blank", "gradient", "noise", "text"}
    for kind, images in found.items():
        assert len(images) >= 4
        spread = [float(np.asarray(image).std()) for image in images]
        assert all(each > 5 for each in spread) or kind == "blank", kind


def test_stages_that_ran_are_read_from_dvc():
    repro = importlib.import_module("repro")
    lines = [
        "Stage 'fetch@weld_defect' didn't change, skipping\n",
        "Running stage 'prepare@weld_defect':\n",
        "> fieldlens prepare weld_defect\n",
        "Stage 'report' is cached - skipping run, checking out outputs\n",
        "Running stage 'report':\n",
    ]
    assert repro.stages_run(lines) == ["prepare@weld_defect", "report"]


@pytest.mark.parametrize(
    "card", sorted(ROOT.glob("datasets/*/card.yaml")), ids=lambda c: c.parent.name
)
def test_edited_card_is_a_card_with_one_more_bias(card, tmp_path):
    from pipelines.card import load_card

    repro = importlib.import_module("repro")
    copy = tmp_path / card.parent.name / "card.yaml"
    copy.parent.mkdir()
    copy.write_text(repro.edited(card.read_text(encoding="utf-8"), card), encoding="utf-8")
    before, after = load_card(card), load_card(copy)
    assert len(after.known_biases) == len(before.known_biases) + 1
    assert after.classes == before.classes


def test_peak_memory_counts_children():
    memory = importlib.import_module("memory")
    hold = "import time; b = b'x' * 120_000_000; time.sleep(1.5)"
    nested = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {hold!r}])"
    with (
        subprocess.Popen([sys.executable, "-c", nested]) as process,
        memory.peak_memory(process.pid, 0.05) as peak,
    ):
        process.wait()
    assert 120_000_000 < peak.n_bytes < 300_000_000
    assert memory.tree_bytes(process.pid) == 0
    assert memory.tree_bytes(os.getpid()) > 0


def test_paused_time_does_not_count():
    timed_fit = importlib.import_module("timed_fit")
    watch = timed_fit.Stopwatch()
    with watch.paused():
        time.sleep(0.3)
    assert watch.elapsed_s < 0.2


def test_a_training_whose_time_is_up_ends_after_its_epoch_and_a_refit_is_not_counted():
    from pipelines.training.fit import EpochLog

    timed_fit = importlib.import_module("timed_fit")
    log = EpochLog(1, "tail", 0.1, 0.5, {"val_loss": 0.5})
    early, late = timed_fit.Trained("full"), timed_fit.Trained("full")
    in_time, out_of_time = (
        timed_fit._Timed(trained, timed_fit.Stopwatch(), "mobilenet_v2", None, limit_s)
        for trained, limit_s in ((early, 1000.0), (late, 0.0))
    )
    in_time.epoch(log, is_refit=False)
    in_time.epoch(log, is_refit=True)
    assert (early.n_epochs, early.is_stopped) == (1, False)
    with pytest.raises(timed_fit._Ended):
        out_of_time.epoch(log, is_refit=False)
    assert (late.n_epochs, late.is_stopped) == (1, True)


@pytest.mark.parametrize(
    ("accuracies", "is_stopped", "to_end", "to_target"),
    [
        ([0.5, 0.9], False, "10.0", "10.0"),
        ([0.9, 0.5], False, "10.0", "5.0"),
        ([0.5, 0.6], True, ">= 10.0", "not reached after 10.0"),
        ([0.5, 0.6], False, "10.0", "not reached after 10.0"),
    ],
)
def test_ratios_say_whether_full_arrived(accuracies, is_stopped, to_end, to_target):
    training, timed_fit = importlib.import_module("training"), importlib.import_module("timed_fit")
    epochs = [timed_fit.Epoch(i, "tail", 50.0 * i, a) for i, a in enumerate(accuracies, start=1)]
    full = timed_fit.Trained(
        "full", elapsed_s=100.0, accuracy=accuracies[-1], is_stopped=is_stopped, epochs=epochs
    )
    assert training.to_the_end(full, 10.0) == to_end
    assert training.to_the_target(full, 10.0, 0.9) == to_target


def test_views_in_memory_are_the_first_few_and_are_made_once(tmp_path):
    from pipelines.config.train import TrainParams
    from pipelines.data.loaders import Pictures
    from pipelines.data.manifest import Entry
    from pipelines.data.preprocess import Preprocess
    from tests.tiny_params import PARAMS

    timed_fit = importlib.import_module("timed_fit")
    pixels = np.random.default_rng(3).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    entry = Entry("a.png", "a", "g", "", "train", "0" * 64, 48, 48)
    augment = TrainParams.model_validate(PARAMS).augment
    own = Pictures(tmp_path, [entry], Preprocess(36, 32), augment, 1)
    held = timed_fit._Held(tmp_path, [entry], Preprocess(36, 32), augment, 1, n_views=2)
    expected = own.views(entry, [1, 2, 1, 2])
    assert not np.array_equal(expected[1], expected[2])
    assert np.array_equal(held.views(entry, [1, 2, 3, 4]), expected)
    (tmp_path / "a.png").unlink()
    assert np.array_equal(held.views(entry, [5, 2], plain=False), expected[1:3])
    assert np.array_equal(held.plain(entry), expected[0])


def test_a_training_that_is_kept_is_not_done_again(tmp_path):
    ablations = importlib.import_module("ablations")
    path = tmp_path / "kept.jsonl"
    ablations.Kept(path).add("one", [0, 1, 2], {"task": "toy", "accuracy": 0.5})
    kept = ablations.Kept(path)
    kept.add("two", [2], {})
    assert ablations.Kept(path).found == kept.found == {"one": [0, 1, 2], "two": [2]}


@pytest.mark.parametrize(
    ("low", "value", "high", "sign", "expected"),
    [
        (-0.05, -0.03, -0.01, -1, "yes"),
        (-0.05, -0.03, -0.01, 1, "no"),
        (0.01, 0.02, 0.03, 1, "yes"),
        (0.01, 0.02, 0.03, -1, "no"),
        (-0.01, 0.02, 0.03, 1, "not told"),
        (0.0, 0.02, 0.03, 1, "not told"),
    ],
)
def test_an_ablation_is_told_by_an_interval_without_nothing_in_it(low, value, high, sign, expected):
    from pipelines.serving.trust import Interval

    ablations = importlib.import_module("ablations")
    found = Interval(value=value, low=low, high=high)
    assert ablations.verdict(found, sign) == expected


#: Runs a stage when a card is not the one it ran on last.
FAKE_MAKEFILE = """\
setup:
\t@touch ready
repro:
\t@test -f ready
\t@cmp -s datasets/tiny/card.yaml last || echo "Running stage 'fetch@tiny':"
\t@cp datasets/tiny/card.yaml last
"""


def test_repro_runs_in_a_clone_and_says_what_ran(tmp_path, monkeypatch, capsys):
    repro = importlib.import_module("repro")
    (tmp_path / "datasets/tiny").mkdir(parents=True)
    card = tmp_path / "datasets/tiny/card.yaml"
    card.write_text("known_biases:\n  - One.\n", encoding="utf-8")
    (tmp_path / "Makefile").write_text(FAKE_MAKEFILE, encoding="utf-8")
    for command in (
        ["init", "-q"],
        ["add", "-A"],
        ["-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "-qm", "start"],
    ):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    monkeypatch.setattr(repro, "ROOT", tmp_path)
    repro.measure(argparse.Namespace(here=False, task="tiny"))
    shown = capsys.readouterr().out
    counts = re.findall(r"^\| ([^|]+) \| [\d.]+ \| [\d,]+ \| (\d+) \| 0 \|$", shown, re.MULTILINE)
    assert counts == [
        ("make setup", "0"),
        ("make repro", "1"),
        ("again, nothing changed", "0"),
        ("one card changed (tiny)", "1"),
        ("the card put back", "1"),
    ]
    assert "after the card changed: `fetch@tiny`" in shown
    assert not (tmp_path / "last").exists()


# -- every script, small ---------------------------------------------------------------------------
def table_rows(shown: str) -> list[str]:
    """Rows of the tables in a benchmark's output, without headings."""
    tables = re.findall(r"^\|---.*\n((?:\|.*\n)*)", shown, re.MULTILINE)
    return [row for rows in tables for row in rows.splitlines()]


#: What each script is asked, with the models of the synthetic samples.
SMALL = {
    "ablations": (
        *("--task", "weld_defect", "--epochs", "1"),
        *("--networks", "mobilenet_v2", "mobilenet_v2_no_shortcuts"),
    ),
    "abstention": ("--task", "weld_defect", "mask_detection"),
    # At full width: narrower weights are in no package.
    "distillation": (
        *("--task", "weld_defect", "--images", "40", "--width", "1"),
        *("--seeds", "1", "--epochs", "1"),
    ),
    "first_answer": ("--task", "weld_defect", "--runs", "2"),
    "folds": ("--task", "weld_defect", "--folds", "2"),
    "int8": (
        *("--task", "weld_defect", "--networks", "mobilenet_v2", "--image-px", "64"),
        *("--images", "40", "--views", "1", "--tail-epochs", "0"),
        *("--remedies", "float_stem+equalize"),
    ),
    "latency": ("--task", "weld_defect", "--runs", "2"),
    "load": ("--people", "2", "--seconds", "4"),
    "peer": ("--task", "polyp", "--minutes", "0.02"),
    "strategies": (
        *("--task", "weld_defect", "--networks", "mobilenet_v2"),
        *("--images", "40", "--epochs", "1"),
    ),
    "training": ("--task", "weld_defect", "--epochs", "1", "--once"),
}
#: Parts of other scripts, and one that makes a clone (it has its test above).
ELSEWHERE = {"controllers", "memory", "peer_loop", "report", "timed_fit", "repro"}
#: Without a model, or with one that is copied; tested one by one below, and `prepare` above.
MODELLESS = {
    "backbones",
    "clocks",
    "face_finders",
    "last_stage",
    "near_duplicates",
    "prepare",
    "ranks",
    "score",
    "search_latency",
}
#: A teacher's weights are in no wheel; a run of seconds has no curve; Ray is in an extra that tests
#: do without.
BY_HAND = {"face_teacher", "million", "sweeps"}


def test_every_script_is_run_by_a_test():
    scripts = {path.stem for path in FOLDER.glob("*.py")}
    assert scripts == set(SMALL) | ELSEWHERE | MODELLESS | BY_HAND


@pytest.mark.slow
@pytest.mark.model
@pytest.mark.parametrize("script", SMALL)
def test_each_script_runs_small(script, models_root):
    done = run(script, "--root", str(models_root), *SMALL[script])
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith("### ")
    assert table_rows(done.stdout)


@pytest.mark.slow
@pytest.mark.model
def test_score_has_a_row_a_way(models_root, tmp_path):
    for number in range(8):
        Image.new("RGB", (64, 64), (30 * number, 90, 120)).save(tmp_path / f"{number}.png")
    done = run(
        "score",
        *("--root", str(models_root), "--task", "weld_defect", "--source", str(tmp_path)),
        *("--images", "40", "--part", "10", "--repeats", "1", "--no-ray"),
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(table_rows(done.stdout)) == 3


@pytest.mark.slow
def test_search_latency_has_a_row_a_precision():
    done = run("search_latency", "--networks", "3", "--image-px", "64")
    assert done.returncode == 0, done.stderr
    assert any(row.startswith("| int8") for row in table_rows(done.stdout)), done.stdout


@pytest.mark.slow
def test_clocks_have_a_row_a_load_clock_and_network():
    done = run("clocks", "--busy", "0", "1")
    assert done.returncode == 0, done.stderr
    rows = [[cell.strip() for cell in row.split("|")[1:4]] for row in table_rows(done.stdout)]
    assert len(rows) == 12
    assert {tuple(row[:2]) for row in rows} == {
        (busy, clock) for busy in ("0", "1") for clock in ("wall", "thread")
    }


@pytest.mark.slow
def test_last_stage_is_cheaper_behind_the_pool():
    done = run("last_stage", "--rounds", "1")
    assert done.returncode == 0, done.stderr
    before, behind = ([*row.split(" | ")] for row in table_rows(done.stdout))
    adds = [int(row[1].replace(",", "")) for row in (before, behind)]
    assert adds[0] - adds[1] == 34_317_760


@pytest.mark.slow
def test_backbones_have_a_row_a_network_and_one_without_weights(tmp_path, monkeypatch):
    monkeypatch.delenv("FIELDLENS_WEIGHTS", raising=False)
    rows = ["path,label,group"]
    for index in range(10):
        name, label = f"{index}.png", ("dark", "light")[index % 2]
        shade = 40 + 150 * (index % 2) + index
        Image.new("RGB", (64, 64), (shade, shade, shade)).save(tmp_path / name)
        rows.append(f"{name},{label},{index}")
    (tmp_path / "records.csv").write_text("\n".join(rows) + "\n")
    done = run(
        *("backbones", "--data", str(tmp_path.parent), "--task", tmp_path.name),
        *("--images", "10", "--root", str(tmp_path)),
    )
    assert done.returncode == 0, done.stderr
    (row,) = table_rows(done.stdout)
    assert [cell.strip() for cell in row.split("|")[1:4]] == ["mobilenet_v2", "none", "1,280"]


def test_near_duplicates_counts_pairs_and_copies(tmp_path):
    from tests.data.fixed_camera import CAMERAS, jpeg, part

    rng = np.random.default_rng(3)
    for label in ("fine", "scratch"):
        (tmp_path / "parts" / label).mkdir(parents=True)
        for index in range(8):
            image = part(CAMERAS["shaken"], rng, index, is_scratched=label == "scratch")
            (tmp_path / "parts" / label / f"{index}.jpg").write_bytes(jpeg(image))
    done = run("near_duplicates", str(tmp_path / "parts"), "--copies", "2")
    assert done.returncode == 0, done.stderr
    pairs, copies = table_rows(done.stdout)
    cells = [cell.strip() for cell in pairs.split("|")[1:-1]]
    assert cells[:3] == ["parts", "16", "16"]
    # Hash and whole thumbnail take each for each; the closer look next to none.
    before, after = (int(cell.split(" + ")[1]) for cell in cells[5:7])
    assert before >= 60
    assert after <= 4
    assert copies.count(" of 2") == 13


@pytest.mark.slow
@pytest.mark.model
def test_ranks_times_each_phase(models_root):
    asked = ("--task", "weld_defect", "--strategy", "full", "--epochs", "1", "--image-px", "32")
    done = run("ranks", "--root", str(models_root), *asked)
    assert done.returncode == 0, done.stderr[-2000:]
    title, *lines = done.stdout.splitlines()
    assert title.startswith("weld_defect, full, 1 processes, ")
    assert [line.split(":")[0] for line in lines] == ["before", "head", "tail", "train losses"]


def test_face_finders_counts_faces_and_false_boxes(tmp_path):
    face_finders = importlib.import_module("face_finders")
    from pipelines.data.manifest import Entry
    from pipelines.kinds.detection.boxes import Marked, as_text

    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    true = [Marked("with_mask", 0, 0, 10, 10), Marked("without_mask", 20, 20, 30, 30)]
    entry = Entry("a.png", "with_mask", "a", "", "test", "0", 40, 40, as_text(true))
    found = np.array(
        [
            # A false box, the first face twice, and the second one below the finder's threshold.
            [0, 20, 10, 30, 0.9, 1],
            [1, 0, 11, 10, 0.7, 1],
            [0, 0, 10, 10, 0.8, 1],
            [20, 20, 30, 32, 0.3, 0],
        ]
    )
    truth = face_finders.truth_of([entry])
    of = face_finders.look(lambda _: found, [entry], tmp_path, truth, 0.5)
    assert of.faces(of.is_counted).tolist() == [True, False]
    everywhere = np.array([True])
    for n_false, faces, n_told in (
        (0, [False, False], 0),
        (1, [True, False], 2),
        (2, [True, True], 4),
    ):
        told = of.until(n_false, everywhere)
        assert (of.faces(told).tolist(), int(told.sum())) == (faces, n_told)
