from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

import pipelines.samples
from pipelines.config.fetch import FetchParams
from pipelines.errors import ConfigError, SourceError
from pipelines.paths import Paths
from pipelines.stages import fetch
from tests.file_tree import file_tree
from tests.toy_card import CARD

PAINTER = """
import numpy as np
from PIL import Image

def paint(label, subject, shot, side_px):
    return Image.fromarray(shot.integers(0, 256, (side_px, side_px, 3), dtype=np.uint8))
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    """A project whose task ``toy`` has a painter, and whose task ``other`` has none."""
    root = tmp_path / "project"
    for task in ("toy", "other"):
        (root / "datasets" / task).mkdir(parents=True)
        (root / "datasets" / task / "card.yaml").write_text(CARD.format(task=task, title="Colours"))
    painters = root / "painters"
    painters.mkdir()
    (painters / "toy.py").write_text(PAINTER)
    monkeypatch.setattr(pipelines.samples, "__path__", [str(painters)])
    monkeypatch.delitem(sys.modules, "pipelines.samples.toy", raising=False)
    return Paths(root)


def _fetch(project: Paths, task: str = "toy", **source: object) -> dict[str, bytes]:
    """The raw folder of a task after a fetch, and beside it what there always is."""
    params = FetchParams.model_validate({"source": source})
    fetch.run(task, "agriculture", params, 5, project)
    assert {path.name for path in project.task(task).raw_dir.parent.iterdir()} == _BESIDE
    return _raw(project)


_BESIDE = {"card.yaml", "raw"}


def _raw(project: Paths) -> dict[str, bytes]:
    return file_tree(project.task("toy").raw_dir)


def _make_set(top: Path, *names: str) -> str:
    for name in names or ("red/1.jpg", "GREEN/2.png", "Rot/3.jpg"):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(name.encode())
    return str(top)


def test_fetch_folder_fills_raw_and_says_from_where(project, tmp_path):
    names = ["GREEN/2.png", "Rot/3.jpg", "red/1.jpg"]
    raw = _fetch(project, kind="folder", path=_make_set(tmp_path / "my set", *names, "readme.txt"))
    assert sorted(raw) == ["GREEN/2.png", "Rot/3.jpg", "SOURCE.json", "red/1.jpg"]
    listed = "".join(f"{hashlib.sha256(name.encode()).hexdigest()} {name}\0" for name in names)
    assert json.loads(raw["SOURCE.json"]) == {
        "schema_version": 1,
        "task": "toy",
        "kind": "folder",
        "publisher": "nobody",
        "publisher_url": "https://example.org",
        "version": "1",
        "licence": "CC0-1.0",
        "n_images": 3,
        "n_files": 3,
        "n_bytes": 29,
        "content_sha256": hashlib.sha256(listed.encode()).hexdigest(),
        "skipped": {"other": 1},
        "source": {"folder": "my set"},
    }


def test_fetch_twice_gives_the_same_bytes_and_no_trace_of_this_machine(project, tmp_path):
    _make_set(tmp_path / "set")
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for name, data in file_tree(tmp_path / "set").items():
            archive.writestr(f"data/{name}", data)
    source = {"kind": "archive", "location": str(tmp_path / "set.zip"), "subfolder": "data"}
    first = _fetch(project, **source)
    assert _fetch(project, **source) == first
    text = first["SOURCE.json"].decode()
    assert str(tmp_path) not in text
    assert socket.gethostname() not in text


def test_fetch_sample_is_painted_and_never_credited_to_the_publisher(project):
    raw = _fetch(project, kind="sample", images_per_class=4, images_per_group=2, side_px=64)
    document = json.loads(raw["SOURCE.json"])
    assert document["kind"] == "sample"
    assert document["n_images"] == 12
    drawn = {"images_per_class": 4, "images_per_group": 2, "side_px": 64, "seed": 5}
    assert document["source"] == drawn
    assert "synthetic" in document["publisher"]
    assert "nobody" not in json.dumps(document)


@pytest.mark.parametrize(
    ("names", "records", "match"),
    [
        (["readme.txt"], "", "no image was found"),
        (["a.jpg"], "", "no image was found"),
        (["red/1.jpg", "violet/2.jpg"], "", "no class of the card is called 'violet'.*subfolder"),
        (["data/red/1.jpg", "data/blue/1.jpg"], "", "no class of the card is called 'data'"),
        (["red/1.jpg"], "path,label\nelsewhere/1.jpg,red\n", "no image was fetched"),
    ],
)
def test_fetch_that_is_no_data_set_leaves_the_old_one(project, tmp_path, names, records, match):
    before = _fetch(project, kind="folder", path=_make_set(tmp_path / "good"))
    bad = _make_set(tmp_path / "bad", *names)
    if records:
        (tmp_path / "bad/records.csv").write_text(records)
    with pytest.raises(SourceError, match=match) as caught:
        _fetch(project, kind="folder", path=bad)
    assert ".tmp" not in str(caught.value)
    assert _raw(project) == before
    assert {path.name for path in project.task("toy").raw_dir.parent.iterdir()} == _BESIDE


def test_fetch_without_a_painter_names_the_file(project):
    match = r"pipelines/samples/other\.py: .*tasks\.other\.fetch\.source"
    with pytest.raises(ConfigError, match=match):
        _fetch(project, "other", kind="sample")


_SCRIPT = """
import resource, signal, sys
from pathlib import Path
from pipelines.config.fetch import FetchParams
from pipelines.errors import PipelineError
from pipelines.paths import Paths
from pipelines.stages import fetch
root, location, max_file_bytes = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
if max_file_bytes:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (max_file_bytes, max_file_bytes))
params = FetchParams.model_validate({"source": {"kind": "archive", "location": location}})
try:
    fetch.run("toy", "agriculture", params, 1, Paths(root))
except PipelineError as err:
    sys.stdout.write(f"{type(err).__name__}: {err}")
if "torch" in sys.modules:
    sys.stdout.write("torch was imported")
"""


def _script(project: Paths, location: str, max_file_bytes: int = 0) -> list[str]:
    return [sys.executable, "-c", _SCRIPT, str(project.root), location, str(max_file_bytes)]


def _zip_of(path: Path, n_bytes: int) -> bytes:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("red/1.jpg", os.urandom(n_bytes))
        archive.writestr("blue/1.jpg", os.urandom(n_bytes))
    return path.read_bytes()


def test_fetch_on_a_full_disk_is_a_storage_error_and_keeps_the_old(project, tmp_path):
    before = _fetch(project, kind="folder", path=_make_set(tmp_path / "good"))
    _zip_of(tmp_path / "set.zip", 100_000)
    # A limit on file size fails as a full disk does: in the middle of a write.
    command = _script(project, str(tmp_path / "set.zip"), 60_000)
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("StorageError: ")
    assert "raw: cannot be written (File too large)" in done.stdout
    assert _raw(project) == before
    done = subprocess.run(_script(project, str(tmp_path / "set.zip")), check=True)
    assert sorted(_raw(project)) == ["SOURCE.json", "blue/1.jpg", "red/1.jpg"]


def test_fetch_killed_in_the_middle_keeps_the_old_and_is_resumed(project, tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    before = _fetch(project, kind="folder", path=_make_set(tmp_path / "good"))
    data = _zip_of(tmp_path / "set.zip", 100_000)
    head = b'HTTP/1.1 %s\r\nETag: "a"\r\nContent-Length: %d\r\nConnection: close\r\n%s\r\n'
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(60)
        location = f"http://127.0.0.1:{server.getsockname()[1]}/set.zip"
        process = subprocess.Popen(_script(project, location))
        connection, _ = server.accept()
        with connection:
            assert b"Range" not in connection.recv(65536)
            connection.sendall(head % (b"200 OK", len(data), b"") + data[:150_000])
            part = project.cache_dir / "downloads"
            # The rest never comes; kill it once what was sent has been written.
            while not any(path.stat().st_size > 100_000 for path in part.glob("*.part")):
                assert process.poll() is None
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert _raw(project) == before

        have = next(part.glob("*.part")).stat().st_size
        process = subprocess.Popen(_script(project, location), stdout=subprocess.PIPE, text=True)
        connection, _ = server.accept()
        with connection:
            request = connection.recv(65536)
            assert b"Range: bytes=%d-" % have in request
            assert b'If-Range: "a"' in request
            stated = b"Content-Range: bytes %d-%d/%d\r\n" % (have, len(data) - 1, len(data))
            connection.sendall(head % (b"206 OK", len(data) - have, stated) + data[have:])
            said, _ = process.communicate()
    assert said == ""
    assert process.returncode == 0
    raw = _raw(project)
    assert sorted(raw) == ["SOURCE.json", "blue/1.jpg", "red/1.jpg"]
    source = json.loads(raw["SOURCE.json"])["source"]
    assert source["sha256"] == hashlib.sha256(data).hexdigest()
    assert not list(project.task("toy").raw_dir.parent.glob(".tmp*"))
