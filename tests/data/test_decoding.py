"""The decoding pass: order, verdicts, processes, and what happens when one is killed."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

from pipelines.data import decoding
from pipelines.data.decoding import Refused, Seen, look, look_at_all
from pipelines.data.fingerprints import THUMBNAIL_PX
from pipelines.errors import DataError


def paint(path: Path, seed: int, side_px: int = 24) -> None:
    levels = np.random.default_rng(seed).integers(0, 256, (side_px, side_px, 3), dtype=np.uint8)
    Image.fromarray(levels).save(path)


def test_sound_image_is_seen(tmp_path: Path) -> None:
    paint(tmp_path / "a.png", 0, 40)
    seen = look(tmp_path, "a.png", 40)
    assert isinstance(seen, Seen)
    assert seen.sha256 == hashlib.sha256((tmp_path / "a.png").read_bytes()).hexdigest()
    assert (seen.format, seen.width_px, seen.height_px) == ("PNG", 40, 40)
    assert len(seen.fingerprint.thumbnail) == THUMBNAIL_PX**2


def test_bad_files_are_refused_with_kind_and_reason(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("hello", encoding="utf-8")
    paint(tmp_path / "small.png", 0, 15)
    (tmp_path / "dangling.png").symlink_to(tmp_path / "nowhere.png")
    found = [look(tmp_path, name, 16) for name in ("absent.png", "text.png", "small.png")]
    assert all(isinstance(each, Refused) for each in found)
    assert [
        (each.kind, each.reason.split(" (")[0]) for each in found if isinstance(each, Refused)
    ] == [
        ("missing", "the file is listed but is not there"),
        ("unreadable", "not an image of a known format"),
        ("too_small", "15 x 15 px; the shorter side must have at least 16 px"),
    ]
    dangling = look(tmp_path, "dangling.png", 16)
    assert isinstance(dangling, Refused)
    assert dangling.kind == "unreadable"


class _AtOnce(Executor):
    """Does what it is given before it gives the future of it."""

    def __init__(self, max_workers: int) -> None:
        assert max_workers == 1

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


@pytest.fixture
def _always_parallel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers for any number of images, and none is looked at before they are there."""
    monkeypatch.setattr(decoding, "_MIN_PARALLEL_IMAGES", 1)
    monkeypatch.setattr(decoding, "ThreadPoolExecutor", _AtOnce)


def test_images_are_looked_at_while_workers_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"{index}.png" for index in range(70)]
    for index, name in enumerate(names):
        paint(tmp_path / name, index)
    monkeypatch.setattr(decoding, "_MIN_PARALLEL_IMAGES", 1)
    is_time = threading.Event()
    start = decoding._start

    def start_late(pool: ProcessPoolExecutor) -> None:
        assert is_time.wait(60)
        start(pool)

    own: list[str] = []
    look_once = decoding.look

    def looking(raw_dir: Path, path: str, *bounds: object) -> Seen | Refused:
        own.append(path)
        return look_once(raw_dir, path, *bounds)

    monkeypatch.setattr(decoding, "_start", start_late)
    monkeypatch.setattr(decoding, "look", looking)
    looks = look_at_all(tmp_path, names, min_side_px=2, n_workers=2)
    first = [next(looks) for _ in range(20)]
    assert own == names[:20]
    is_time.set()
    assert first + list(looks) == [look_once(tmp_path, name, 2) for name in names]


@pytest.mark.usefixtures("_always_parallel")
def test_processes_give_the_same_as_one_in_the_same_order(tmp_path: Path) -> None:
    names = [f"{index}.png" for index in range(70)]
    for index, name in enumerate(names):
        paint(tmp_path / name, index)
    (tmp_path / "33.png").write_bytes(b"")
    alone = list(look_at_all(tmp_path, names, min_side_px=2, n_workers=1))
    together = list(look_at_all(tmp_path, names, min_side_px=2, n_workers=2))
    assert together == alone
    assert [each.path for each in alone] == names
    assert isinstance(alone[33], Refused)


def workers() -> list[psutil.Process]:
    """Processes that decode: the children of the server that forks them."""
    below = psutil.Process().children(recursive=True)
    servers = {process.ppid() for process in below} - {os.getpid()}
    return [process for process in below if process.ppid() in servers]


@pytest.mark.usefixtures("_always_parallel")
def test_worker_killed_by_the_system_is_one_clear_error(tmp_path: Path) -> None:
    paint(tmp_path / "one.png", 0)
    looks = look_at_all(tmp_path, ["one.png"] * 3000, min_side_px=2, n_workers=2)
    next(looks)
    killed = workers()
    assert killed
    for process in killed:
        process.send_signal(signal.SIGKILL)
    with pytest.raises(DataError, match=r"at or after 'one.png'.*FIELDLENS_WORKERS=1") as caught:
        list(looks)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("_always_parallel")
def test_no_more_than_a_window_is_in_flight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paint(tmp_path / "one.png", 0)
    submitted: list[int] = []
    pool = decoding.ProcessPoolExecutor
    submit = pool.submit

    def counting(self: object, *arguments: object) -> object:
        submitted.append(1)
        return submit(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(pool, "submit", counting)
    looks = look_at_all(tmp_path, ["one.png"] * 1600, min_side_px=2, n_workers=2)
    next(looks)
    # And one to start the workers.
    assert 1 < len(submitted) <= decoding._WINDOW * 2 + 1
    looks.close()
    assert len(submitted) <= decoding._WINDOW * 2 + 1


def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    paint(tmp_path / "one.png", 0)
    program = (
        "import sys; from pathlib import Path; from pipelines.data.decoding import *\n"
        "for _ in look_at_all(Path(sys.argv[1]), ['one.png'] * 10**6, min_side_px=2, n_workers=2): "
        "pass\n"
    )
    root = Path(__file__).parent.parent.parent
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], cwd=root) as parent:
        below: list[psutil.Process] = []
        latest = time.monotonic() + 60
        # The server that forks workers, and they.
        while len(below) < 3 and time.monotonic() < latest:
            time.sleep(0.05)
            below = psutil.Process(parent.pid).children(recursive=True)
        assert len(below) >= 3
        parent.kill()
    _, alive = psutil.wait_procs(below, timeout=10)
    # A process whose parent is gone may stay as an entry that nobody has asked for.
    assert [p for p in alive if p.status() != psutil.STATUS_ZOMBIE] == []


def test_much_work_is_told_by_count_and_by_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paint(tmp_path / "one.png", 0)
    assert not decoding._is_much(tmp_path, ["one.png", "absent.png"])
    assert decoding._is_much(tmp_path, ["absent.png"] * 1000)
    monkeypatch.setattr(decoding, "_MIN_PARALLEL_BYTES", 2000)
    assert decoding._is_much(tmp_path, ["one.png", "one.png"])
