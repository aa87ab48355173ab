"""Nothing phones home: no connection, no look-up and no file elsewhere, native code included.

Each command runs as a person starts it: with a fresh HOME, without CI, in an environment that holds
nothing else, and with every way out refused and recorded (tests/recorder.py).
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from pipelines.paths import Paths
from pipelines.strict_yaml import read_yaml
from tests import recorder
from tests.loopback import closed_port
from tests.processes import CLI, ROOT, ran, with_venv
from tests.recorder import Trace
from tests.tiny_params import PARAMS

#: Where libraries keep what they have computed, below HOME: nothing of it leaves this machine.
#: matplotlib: its list of fonts.
HOME_CACHES = (".cache/matplotlib", ".config/matplotlib")
#: DVC: hashes and links of the files of a checkout, for all who share it, beside /tmp.
DVC_STATES = (Path("/var/tmp/dvc"), Path("/var/cache/dvc"))

pytestmark = pytest.mark.skipif(recorder.missing() is not None, reason=str(recorder.missing()))


class Person:
    """Somebody at a fresh machine."""

    def __init__(self, tmp_path: Path, project: Path) -> None:
        self.project = project
        self.home, self.scratch = tmp_path / "home", tmp_path / "scratch"
        self.temporary = tmp_path / "temporary"
        for folder in (self.home, self.scratch, self.temporary):
            folder.mkdir()

    def runs(
        self,
        command: Sequence[str],
        *,
        extra: Mapping[str, str] | None = None,
        driver: str | None = None,
        before: Sequence[str] = (),
    ) -> tuple[Trace, str]:
        environ = {
            "HOME": str(self.home),
            "PATH": with_venv()["PATH"],
            "TMPDIR": str(self.temporary),
            # As the checkout is found; byte code beside the code is Python's own affair.
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
            **(extra or {}),
        }
        trace, done = recorder.record(
            command,
            cwd=self.project,
            environ=environ,
            scratch=self.scratch,
            driver=(driver, *before) if driver is not None else None,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return trace, done.stdout

    def elsewhere(self, trace: Trace) -> set[Path]:
        caches = [self.home / name for name in HOME_CACHES]
        above = {folder for cache in caches for folder in cache.parents}
        devices = (Path("/dev"), Path("/proc"))
        return trace.outside(self.project, self.temporary, *caches, *DVC_STATES, *devices) - above

    def was_quiet(self, trace: Trace) -> None:
        assert trace.contacts == set()
        assert self.elsewhere(trace) == set()


@pytest.fixture
def person(tmp_path: Path, tested_project: Paths) -> Person:
    return Person(tmp_path, tested_project.root)


#: Longer than it takes until ONNX Runtime's first report.
REPORT_S = 14
#: A program of somebody else's, which has the predictor as a library.
LIBRARY = """
import sys, time
from pathlib import Path
from pipelines.serving.predictor import Predictor
print(Predictor.load(Path(sys.argv[1])).predict(Path(sys.argv[2])).label)
# A report is sent from a thread, a moment later.
time.sleep(float(sys.argv[3]))
"""
BUNDLE, PICTURE = "models/tiny/mobile/bundle.json", "datasets/tiny/raw/red_tile/test_00.png"


def test_library_is_quiet(person):
    trace, said = person.runs([sys.executable, "-c", LIBRARY, BUNDLE, PICTURE, "0.5"])
    assert said == "red_tile\n"
    person.was_quiet(trace)


def test_predict_is_quiet(person):
    trace, said = person.runs([*CLI, "predict", PICTURE])
    assert "red_tile" in said
    person.was_quiet(trace)


def test_report_would_be_seen(person):
    """The check can fail: with ONNX Runtime's switch as it was, its file is recorded."""
    trace, _ = person.runs(
        [sys.executable, "-c", LIBRARY, BUNDLE, PICTURE, "0"], extra={"ORT_DISABLE_TELEMETRY": ""}
    )
    assert any(path.name.startswith("deviceid") for path in person.elsewhere(trace))


@pytest.mark.slow
@pytest.mark.parametrize("switch", ["1", ""])
def test_library_is_quiet_when_reports_are_due(person, switch):
    """ONNX Runtime sends its first after nine seconds; without the switch the look-up is seen."""
    trace, _ = person.runs(
        [sys.executable, "-c", LIBRARY, BUNDLE, PICTURE, str(REPORT_S)],
        extra={"ORT_DISABLE_TELEMETRY": switch},
    )
    if switch:
        person.was_quiet(trace)
    else:
        assert {contact.rpartition(":")[2] for contact in trace.contacts} & {"53", "443"}


@pytest.mark.slow
def test_train_is_quiet(person):
    """With MLflow's record of it, in the project's own store."""
    document = read_yaml(ROOT / "params.yaml")
    task = {**document["tasks"]["mask_detection"], "domain": "reference", "train": PARAMS}
    whole = {"seed": document["seed"], "tasks": {"tiny": task}}
    # JSON is YAML 1.2.
    (person.project / "params.yaml").write_text(json.dumps(whole), encoding="utf-8")
    summary = {"labels": ["red_tile", "green_tile", "blue_tile"], "data_source": "sample"}
    files = Paths(person.project).task("tiny")
    files.prepare_summary.write_text(json.dumps(summary), encoding="utf-8")
    trace, _ = person.runs([*CLI, "train", "tiny"])
    assert files.history in trace.written
    assert person.project / "mlflow.db" in trace.written
    person.was_quiet(trace)


#: A person at the apps: starts them, opens a page in a browser's way, stays a while, stops them.
VISIT = """
import os, signal, subprocess, sys, time, urllib.request
import psutil
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.sync.client import connect

port = sys.argv.pop(1)
stay_s = float(sys.argv.pop(1))
apps = subprocess.Popen(
    sys.argv[1:], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
)
said = ""
while "Stop with Ctrl-C" not in said and "URL" not in said:
    line = apps.stdout.readline()
    assert line, said
    said += line
for path in ("/", "/_stcore/health"):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}") as answer:
        assert answer.status == 200
with connect(f"ws://127.0.0.1:{port}/_stcore/stream", max_size=None) as page:
    message = BackMsg()
    message.rerun_script.query_string = ""
    page.send(message.SerializeToString())
    shown = b""
    while True:
        data = page.recv(timeout=60)
        shown += data
        if ForwardMsg.FromString(data).WhichOneof("type") == "script_finished":
            break
    time.sleep(stay_s)
sys.stdout.write("Fieldlens" if b"fl-head" in shown else repr(shown))
for process in psutil.Process(apps.pid).children():
    process.send_signal(signal.SIGTERM)
apps.communicate(timeout=60)
"""


@pytest.mark.slow
def test_app_is_quiet(person):
    port = str(closed_port())
    trace, said = person.runs(
        [*CLI, "app", "--port", port],
        driver=VISIT,
        before=(port, str(REPORT_S)),
    )
    assert said == "Fieldlens"
    person.was_quiet(trace)


@pytest.mark.slow
def test_streamlit_of_its_own_is_quiet(person):
    """As README.md does not say, and people do."""
    port = str(closed_port())
    models, person.project = person.project, ROOT
    trace, said = person.runs(
        [sys.executable, "-m", "streamlit", "run", "apps/hub.py", "--server.port", port],
        driver=VISIT,
        before=(port, str(REPORT_S)),
        extra={"FIELDLENS_ROOT": str(models)},
    )
    assert said == "Fieldlens"
    person.was_quiet(trace)


@pytest.mark.slow
@pytest.mark.parametrize(
    "code",
    [
        "import albumentations; albumentations.HorizontalFlip()",
        # Through the one door that makes torchvision's wheel load beside a torch without CUDA.
        "from pipelines.backbones.spec import timm; timm().list_models()",
        "import huggingface_hub; huggingface_hub.HfApi()",
        "import mlflow; mlflow.set_tracking_uri('sqlite:///own.db')\n"
        "with mlflow.start_run(): mlflow.log_metric('loss', 1.0)",
    ],
    ids=["albumentations", "timm", "huggingface_hub", "mlflow"],
)
def test_library_beside_ours_is_quiet(person, code):
    """Which may be imported by a program of somebody else's, after ours."""
    code = f"import pipelines\n{code}\nimport time; time.sleep(3)"
    trace, _ = person.runs([sys.executable, "-c", code])
    person.was_quiet(trace)


@pytest.mark.slow
def test_dvc_is_quiet(person):
    """By its configuration in this repository alone: a person types `dvc repro` in any shell."""
    for name in (".dvc/config", ".dvcignore"):
        (person.project / name).parent.mkdir(exist_ok=True)
        (person.project / name).write_bytes((ROOT / name).read_bytes())
    stage = "stages: {copy: {cmd: cp source copy, deps: [source], outs: [copy]}}\n"
    (person.project / "dvc.yaml").write_text(stage, encoding="utf-8")
    (person.project / "source").write_text("source", encoding="utf-8")
    ran("git", "init", "--quiet", ".", cwd=person.project)
    for command in ("repro", "status"):
        trace, said = person.runs([sys.executable, "-m", "dvc", command])
        person.was_quiet(trace)
    assert "up to date" in said


@pytest.mark.slow
def test_mlflow_server_is_quiet(person):
    """As `make ui` starts it."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    exported = dict(re.findall(r"^export (\w+) := (\w+)$", makefile, re.MULTILINE))
    port = str(closed_port())
    command = [sys.executable, "-m", "mlflow", "ui", "--host", "127.0.0.1", "--port", port]
    trace, said = person.runs(
        [*command, "--backend-store-uri", f"sqlite:///{person.project}/mlflow.db"],
        driver=LOOK,
        before=(port, "5"),
        extra=exported,
    )
    assert said == "MLflow"
    person.was_quiet(trace)


#: A person at MLflow's page.
LOOK = """
import signal, subprocess, sys, time, urllib.request
import psutil
port, stay_s = sys.argv.pop(1), float(sys.argv.pop(1))
server = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
for _ in range(600):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as answer:
            page = answer.read()
        break
    except OSError:
        time.sleep(0.2)
time.sleep(stay_s)
sys.stdout.write("MLflow" if b"MLflow" in page else repr(page))
for process in psutil.Process(server.pid).children(recursive=True):
    process.send_signal(signal.SIGTERM)
server.wait(60)
"""
