"""The process that answers: what it loads, how long it takes, and what `fieldlens app` starts."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from pipelines import cli
from pipelines.commands import app
from pipelines.commands.app import command_line
from tests.apps.browsing import announced, free_port
from tests.apps.conftest import ROOT, encoded, tile

APP = (sys.executable, "-m", "pipelines.cli", "app")
#: From a new process to the first answer, in seconds of the processor.
START_S = 4.0
_FIRST_ANSWER = """
import json, resource, sys
from streamlit.testing.v1 import AppTest
app = AppTest.from_file("apps/cats_dogs.py", default_timeout=60).run()
app.get("file_uploader")[0].upload("a.png", open(sys.argv[1], "rb").read(), "image/png")
app.run()
assert not app.exception and len(app.session_state["store-cats_dogs"].shots) == 1
used = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps({
    "heavy": sorted({"torch", "mlflow", "dvc", "torchvision", "sklearn", "matplotlib", "onnx",
                     "cv2", "scipy"} & set(sys.modules)),
    "cpu_s": used.ru_utime + used.ru_stime,
}))
"""


def test_start_to_first_answer_is_quick_and_loads_nothing_heavy(app_root, tmp_path):
    picture = tmp_path / "a.png"
    picture.write_bytes(encoded(tile(0.5)))
    done = subprocess.run(
        [sys.executable, "-c", _FIRST_ANSWER, str(picture)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["heavy"] == []
    # Of the processor, not of the clock: other work on the machine must not fail this.
    assert report["cpu_s"] < START_S


def test_server_listens_on_this_computer_alone_and_shows_no_traceback():
    flags = command_line("127.0.0.1", 8501)
    assert "--server.address=127.0.0.1" in flags
    assert "--browser.gatherUsageStats=false" in flags
    assert "--client.showErrorDetails=none" in flags


def test_configuration_says_the_same_for_streamlit_run():
    import tomllib

    from apps.pictures import MAX_UPLOAD_MB

    config = tomllib.loads((ROOT / ".streamlit/config.toml").read_text(encoding="utf-8"))
    assert config["browser"]["gatherUsageStats"] is False
    assert config["client"]["showErrorDetails"] == "none"
    assert config["server"]["address"] == "127.0.0.1"
    assert config["server"]["maxUploadSize"] == MAX_UPLOAD_MB


@pytest.mark.parametrize("task", ["potato_leaf", "hub"])
def test_app_of_an_unknown_task_is_refused(task, app_root, capsys):
    assert cli.main(["app", task, "--root", str(app_root)]) == 2
    said = capsys.readouterr().err
    assert f"app: there is no task '{task}'. Expected one of " in said
    assert "tomato_leaf" in said


@pytest.mark.parametrize(
    "given", ["datasets/rice_leaf/card.yaml", "models/rice_leaf/mobile/bundle.json"]
)
def test_task_with_a_model_or_a_card_has_an_app(given, tmp_path, monkeypatch):
    """Without a file in apps/: the hub is told of it."""
    (tmp_path / given).parent.mkdir(parents=True)
    (tmp_path / given).touch()
    seen = {}

    class Server:
        returncode = 0

        def __init__(self, command, *, env, **_):
            seen.update(env, script=command[4])

        def poll(self):
            return 0

    monkeypatch.setattr(app.subprocess, "Popen", Server)
    monkeypatch.setattr(app, "_start_phone_page", lambda *_: None)
    assert cli.main(["app", "rice_leaf", "--root", str(tmp_path), "--port", "0"]) == 2
    assert (seen["FIELDLENS_TASK"], seen["script"]) == ("rice_leaf", str(ROOT / "apps/hub.py"))


def test_detector_is_fetched_for_the_apps_that_look_for_faces():
    apps = sorted((ROOT / "apps").glob("*.py"))
    looking = {path.stem for path in apps if "    find=find," in path.read_text(encoding="utf-8")}
    assert looking == app._FACE_TASKS


def test_taken_port_is_one_line(app_root):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = subprocess.run(
            [*APP, "--root", str(app_root), "--port", str(port)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert f"--port: {port} cannot be used" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_fieldlens_app_serves_and_leaves_nothing_behind(app_root, ending):
    port = free_port()
    command = ["cats_dogs", "--root", str(app_root), "--port", str(port)]
    # A shell's background jobs ignore Ctrl-C, and so would what this test starts there.
    heeded = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    with announced(command, **heeded) as (process, said):
        assert f"http://127.0.0.1:{port}/" in said
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health") as health:
            assert health.read() == b"ok"
        process.send_signal(ending)
        process.wait(30)
    time.sleep(0.2)
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0
