from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow
import pyarrow.parquet as pq
import pytest
from moto.server import ThreadedMotoServer

from pipelines import cli
from pipelines.commands.predict import SAMPLE_WARNING
from pipelines.scale import scoring
from tests.processes import ROOT


def score(root: Path, *arguments: object) -> int:
    return cli.main(["score", *map(str, arguments), "--root", str(root)])


@pytest.fixture
def pictures(tmp_path, colour_images) -> Path:
    """Seven sound pictures, one that is none, and a file that is no picture by its name."""
    folder = tmp_path / "pictures"
    (folder / "below").mkdir(parents=True)
    for number, colour in enumerate(("green", "red", "blue", "green", "red", "blue")):
        shutil.copy(colour_images[colour], folder / f"{number}_{colour}.png")
    shutil.copy(colour_images["green"], folder / "below" / "=green.png")
    (folder / "bad.png").write_bytes(b"no picture")
    (folder / "notes.txt").write_text("nothing")
    return folder


NAMES = [
    *("0_green.png", "1_red.png", "2_blue.png", "3_green.png", "4_red.png", "5_blue.png"),
    *("bad.png", "below/=green.png"),
]
LABELS = ["green", "red", "blue", "green", "red", "blue", None, "green"]


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_row_a_picture_in_the_order_of_the_names(
    toy_project, toy_bundle, pictures, tmp_path, capsys, workers
):
    out = tmp_path / "answers.parquet"
    assert score(toy_project, "toy", pictures, "--out", out, "--workers", workers, "--part", 3) == 0
    said = capsys.readouterr()
    assert "8 pictures, of which 0 out of distribution and 1 unreadable" in said.out
    assert SAMPLE_WARNING in said.err
    table = pq.read_table(out)
    assert table["path"].to_pylist() == NAMES
    assert table["label"].to_pylist() == LABELS
    assert [error is None for error in table["error"].to_pylist()] == [
        name != "bad.png" for name in NAMES
    ]
    sums = [
        sum(row)
        for row in zip(
            *(table[f"probability_{label}"].to_pylist() for label in ("red", "green", "blue")),
            strict=True,
        )
        if row[0] is not None
    ]
    assert sums == pytest.approx([1.0] * 7, abs=1e-5)
    model = json.loads(toy_bundle.read_text())["artefacts"]
    told = table.schema.metadata[b"model_sha256"].decode()
    assert told in [artefact["sha256"] for artefact in model]
    assert not list(tmp_path.glob("*.parts"))


def test_csv_has_the_same_answers_and_no_formulas(toy_project, toy_bundle, pictures, tmp_path):
    out = tmp_path / "answers.csv"
    names = tmp_path / "names.csv"
    names.write_text(
        "path,other\n"
        + "".join(
            f"{name},1\n" for name in ("0_green.png", "below/=green.png", "bad.png", "none.png")
        )
    )
    shutil.copy(pictures / "below" / "=green.png", pictures / "=top.png")
    with names.open("a") as stream:
        stream.write("=top.png,1\n")
    assert score(toy_project, "toy", names, "--images", pictures, "--out", out, "--workers", 1) == 0
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert [row["path"] for row in rows] == [
        "0_green.png",
        "below/=green.png",
        "bad.png",
        "none.png",
        "./=top.png",
    ]
    assert [row["label"] for row in rows] == ["green", "green", "", "", "green"]
    assert [bool(row["error"]) for row in rows] == [False, False, True, True, False]
    assert {row["is_ood"] for row in rows if row["label"]} == {"false"}


def test_a_table_of_parquet_names_pictures_too(toy_project, toy_bundle, pictures, tmp_path):
    pq.write_table(pyarrow.table({"path": NAMES[:2]}), pictures / "names.pq")
    out = tmp_path / "answers.parquet"
    assert score(toy_project, "toy", pictures / "names.pq", "--out", out, "--workers", 1) == 0
    assert pq.read_table(out)["label"].to_pylist() == LABELS[:2]


def test_a_killed_call_goes_on_with_what_is_left(
    toy_project, toy_bundle, pictures, tmp_path, capsys, monkeypatch
):
    out, asked = tmp_path / "answers.parquet", []
    whole = scoring.Scorer.row

    def dies_at_the_sixth(self, each):
        asked.append(each.name)
        if len(asked) == 6:
            raise KeyboardInterrupt
        return whole(self, each)

    monkeypatch.setattr(scoring.Scorer, "row", dies_at_the_sixth)
    arguments = (toy_project, "toy", pictures, "--out", out, "--workers", 1, "--part", 2)
    assert score(*arguments) == cli.EXIT_INTERRUPTED
    assert not out.exists()
    assert score(*arguments) == 0
    assert "2 parts were there from before" in capsys.readouterr().out
    assert asked[6:] == NAMES[4:]
    assert pq.read_table(out)["path"].to_pylist() == NAMES
    # Another model does not take up what this one has said.
    assert score(*arguments, "--overwrite", "--precision", "fp32") == 0


@pytest.mark.slow
def test_a_worker_that_is_killed_is_one_line_and_nothing_is_lost(
    toy_project, toy_bundle, colour_images, tmp_path
):
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(3000):
        os.link(colour_images["green"], folder / f"{number:04d}.png")
    out = tmp_path / "answers.parquet"
    command = [
        sys.executable,
        "-m",
        "pipelines.cli",
        "score",
        "toy",
        str(folder),
        "--root",
        str(toy_project),
    ]
    command += ["--out", str(out), "--workers", "2", "--part", "20"]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    parts = tmp_path / "answers.parquet.parts"
    until = time.monotonic() + 120
    while len(list(parts.glob("[0-9]*.parquet"))) < 2 and time.monotonic() < until:
        time.sleep(0.02)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    workers = [
        child for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]
    os.kill(int(workers[0]), signal.SIGKILL)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "a worker process was ended from outside" in err.splitlines()[-1]
    assert not out.exists()
    kept = len(list(parts.glob("[0-9]*.parquet")))
    assert kept >= 2
    assert subprocess.run([*command, "--workers", "1"], cwd=ROOT, check=False).returncode == 0
    assert pq.read_table(out).num_rows == 3000


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_full_disk_is_one_line_and_what_is_done_is_kept(
    toy_project, toy_bundle, colour_images, tmp_path, workers
):
    """A limit on the size of a file stands for the disk."""
    out, folder = tmp_path / "answers.csv", tmp_path / "many"
    folder.mkdir()
    for number in range(200):
        # Names that no table makes shorter.
        name = hashlib.sha256(bytes([number])).hexdigest()
        os.link(colour_images["green"], folder / f"{name}.png")
    limit = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (12000, 12000)); "
    main = "from pipelines import cli; sys.exit(cli.main(sys.argv[1:]))"
    options = ["score", "toy", str(folder), "--root", str(toy_project)]
    options += ["--out", str(out), "--workers", str(workers)]

    def limited(*more: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", limit + main, *options, *more],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2, done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert not out.exists()
        assert not list(tmp_path.rglob(".tmp-*"))
        return done.stderr

    assert "File too large" in limited("--part", "200")
    assert not list(tmp_path.rglob("*.parquet"))
    # The parts are there, and the file of them is not.
    said = limited("--part", "50")
    assert "answers.csv: cannot be written" in said
    assert len(list(tmp_path.rglob("*.parquet"))) == 4
    assert cli.main([*options, "--part", "50"]) == 0
    assert len(out.read_text().splitlines()) == 201


def test_whatever_stands_in_a_list_is_a_row(toy_project, toy_bundle, pictures, tmp_path):
    (pictures / "folder.png").mkdir()
    os.mkfifo(pictures / "pipe.png")
    names = ["0_green.png", "0_green.png", "", "a\0b.png", "folder.png", "pipe.png", "/dev/zero"]
    names += ["x" * 5000 + ".png", "nö.png", f"../{pictures.name}/1_red.png", "s3://", "hf://a"]
    with (pictures / "names.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["path", "n"], *([name, "1"] for name in names)])
    pq.write_table(pyarrow.table({"path": [name or None for name in names]}), pictures / "names.pq")
    for table in ("names.csv", "names.pq"):
        out = tmp_path / f"{table}.parquet"
        assert score(toy_project, "toy", pictures / table, "--out", out, "--workers", 1) == 0
        found = pq.read_table(out)
        assert found["path"].to_pylist() == names
        assert found["label"].to_pylist() == ["green"] * 2 + [None] * 7 + ["red"] + [None] * 2
        is_told = [bool(error) for error in found["error"].to_pylist()]
        assert is_told == [label is None for label in found["label"].to_pylist()]


def test_objects_of_a_store_are_scored_without_a_file(
    toy_project, toy_bundle, pictures, tmp_path, monkeypatch, capsys
):
    boto3 = pytest.importorskip("boto3")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        for name, value in (
            ("AWS_ENDPOINT_URL", f"http://{host}:{port}"),
            ("AWS_ACCESS_KEY_ID", "key"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
            ("AWS_DEFAULT_REGION", "us-east-1"),
        ):
            monkeypatch.setenv(name, value)
        client = boto3.client("s3")
        client.create_bucket(Bucket="farm")
        for name in ("0_green.png", "bad.png", "notes.txt", "below/=green.png"):
            client.put_object(Bucket="farm", Key=f"day/{name}", Body=(pictures / name).read_bytes())
        out = tmp_path / "answers.parquet"
        assert score(toy_project, "toy", "s3://farm/day", "--out", out, "--workers", 1) == 0
        table = pq.read_table(out)
        assert table["path"].to_pylist() == [
            f"s3://farm/day/{name}" for name in ("0_green.png", "bad.png", "below/=green.png")
        ]
        assert table["label"].to_pylist() == ["green", None, "green"]
        capsys.readouterr()
        for nowhere in ("s3://nobody/day", "s3://farm/night"):
            assert score(toy_project, "toy", nowhere, "--out", tmp_path / "none.csv") == 2
            said = capsys.readouterr().err.splitlines()
            assert len(said) == 1
            assert f"{nowhere}: " in said[0]
            assert not (tmp_path / "none.csv.parts").exists()
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["toy", "{pictures}", "--out", "answers.txt"], "--out: expected a name that ends in"),
        (["toy", "{tmp}/none", "--out", "{tmp}/a.csv"], "there is nothing of that name"),
        (["toy", "{tmp}/empty", "--out", "{tmp}/a.csv"], "names no picture"),
        (
            ["toy", "{tmp}/other.csv", "--out", "{tmp}/a.csv"],
            "expected a column 'path' (columns: a, b)",
        ),
        (
            ["toy", "{tmp}/nothing.csv", "--out", "{tmp}/a.csv"],
            "expected a column 'path' (columns: none)",
        ),
        (["toy", "{tmp}/head.csv", "--out", "{tmp}/a.csv"], "names no picture"),
        (["toy", "{tmp}/numbers.parquet", "--out", "{tmp}/a.csv"], "'path' holds int64. Expected"),
        (["toy", "{tmp}/bad.parquet", "--out", "{tmp}/a.csv"], "is no Parquet file"),
        (["toy", "{pictures}", "--out", "{tmp}/there.csv"], "is there already"),
        (
            ["toy", "{pictures}", "--out", "{tmp}/a.csv", "--workers", "0"],
            "--workers: expected at least 1",
        ),
        (
            ["toy", "{pictures}", "--out", "{tmp}/a.csv", "--part", "0"],
            "--part: expected at least 1",
        ),
        (["nothing", "{pictures}", "--out", "{tmp}/a.csv"], "there is no model of 'nothing'"),
        (
            [
                "toy",
                "{pictures}",
                "--out",
                "{tmp}/a.csv",
                "--engine",
                "local",
                "--address",
                "127.0.0.1:1",
            ],
            "--address: is of a Ray cluster",
        ),
    ],
)
def test_bad_arguments_are_one_line_and_nothing_is_written(
    toy_project, toy_bundle, pictures, tmp_path, capsys, arguments, words
):
    (tmp_path / "empty").mkdir()
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    (tmp_path / "nothing.csv").write_text("")
    (tmp_path / "head.csv").write_text("path\n")
    pq.write_table(pyarrow.table({"path": [1, 2]}), tmp_path / "numbers.parquet")
    (tmp_path / "bad.parquet").write_text("no table")
    (tmp_path / "there.csv").write_text("mine")
    before = sorted(tmp_path.iterdir())
    filled = [each.format(pictures=pictures, tmp=tmp_path) for each in arguments]
    assert score(toy_project, *filled) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert words in lines[0]
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "there.csv").read_text() == "mine"
