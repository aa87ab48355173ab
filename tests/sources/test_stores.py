from __future__ import annotations

import io
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from pipelines.card import ArchiveSource, StoreSource
from pipelines.errors import SourceError
from pipelines.sources import stores
from pipelines.sources.archive import fetch_archive
from pipelines.sources.intake import Facts, Intake
from pipelines.sources.stores import fetch_store, is_store, open_store, pull_file
from tests.file_tree import file_tree
from tests.hub import COMMIT, Hub, serving_hub

FILES = {
    "plants/healthy/a.jpg": b"A" * 5000,
    "plants/healthy/größe 1.jpg": b"B",
    "plants/rust/c.JPG": b"C",
    "plants/rust/sub/photo": b"\xff\xd8\xff\xe0 without a suffix",
    "plants/readme.md": b"text",
    "plants/rust/.DS_Store": b"x",
    "plants/metadata.csv": b"file_name,label\n",
    "other/d.jpg": b"D",
}
TAKEN = {
    "healthy/a.jpg": FILES["plants/healthy/a.jpg"],
    "healthy/größe 1.jpg": b"B",
    "metadata.csv": b"file_name,label\n",
    "rust/c.JPG": b"C",
    "rust/sub/photo": FILES["plants/rust/sub/photo"],
}


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(endpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "verysecret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    client = boto3.client("s3")
    bucket = f"set-{abs(hash(str(tmp_path)))}"
    client.create_bucket(Bucket=bucket)
    for key, data in FILES.items():
        client.put_object(Bucket=bucket, Key=key, Body=data)
    client.bucket = bucket
    client.url = f"s3://{bucket}"
    return client


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with serving_hub(dict(FILES)) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_TOKEN", "hf_verysecret")
        monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
        yield hub


Fetch = Callable[..., tuple[Facts, Intake]]


@pytest.fixture
def fetch(tmp_path: Path, intake: Callable[..., Intake]) -> Fetch:
    """Fetches a folder of a store."""

    def run(location: str, *, anonymous: bool = False, **bounds: int) -> tuple[Facts, Intake]:
        made = intake(**bounds)
        source = StoreSource(kind="store", location=location, anonymous=anonymous)
        return fetch_store(source, made, tmp_path / "downloads"), made

    return run


@pytest.fixture
def fetch_zip(tmp_path: Path, intake: Callable[..., Intake]) -> Callable[..., Facts]:
    """Fetches the folder ``set`` of an archive in a store."""

    def run(location: str, **options: Any) -> Facts:
        source = ArchiveSource(kind="archive", location=location, subfolder="set", **options)
        return fetch_archive(source, intake(), tmp_path, tmp_path / "downloads")

    return run


def test_s3_folder_of_class_folders(s3, tmp_path, fetch):
    # Empty objects that stand for folders are no files.
    for key in ("plants/", "plants/healthy/", "plants/empty/"):
        s3.put_object(Bucket=s3.bucket, Key=key, Body=b"")
    facts, intake = fetch(f"{s3.url}/plants/")
    assert file_tree(tmp_path / "raw") == TAKEN
    assert facts == {"store": f"{s3.url}/plants/"}
    assert intake.skipped == {"hidden": 1, "other": 1}
    assert intake.account.n_files == 7


def test_s3_second_fetch_brings_only_what_changed(s3, tmp_path, fetch):
    fetch(f"{s3.url}/plants")
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "downloads").rglob("*")}
    s3.put_object(Bucket=s3.bucket, Key="plants/rust/c.JPG", Body=b"changed")
    (tmp_path / "raw").rename(tmp_path / "first")
    fetch(f"{s3.url}/plants")
    assert file_tree(tmp_path / "raw") == {**TAKEN, "rust/c.JPG": b"changed"}
    new = {path for path in (tmp_path / "downloads").rglob("*") if path not in kept}
    assert len(new) == 1


def test_s3_public_bucket_without_credentials(s3, tmp_path, monkeypatch, fetch):
    s3.put_bucket_acl(Bucket=s3.bucket, ACL="public-read")
    for key in FILES:
        s3.put_object_acl(Bucket=s3.bucket, Key=key, ACL="public-read")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(SourceError, match=r"NoCredentials.*`anonymous: true`"):
        fetch(f"{s3.url}/plants")
    fetch(f"{s3.url}/plants", anonymous=True)
    assert file_tree(tmp_path / "raw") == TAKEN


def test_s3_bounds_hold_before_a_byte_is_written(s3, tmp_path, fetch):
    with pytest.raises(SourceError, match="more than 5,000 bytes"):
        fetch(f"{s3.url}/plants", max_bytes=5_000)
    with pytest.raises(SourceError, match="more than 3 files"):
        fetch(f"{s3.url}/plants", max_files=3)
    assert not (tmp_path / "downloads").exists()
    assert file_tree(tmp_path / "raw") == {}


@pytest.mark.parametrize("key", ["plants/../../evil.jpg", "plants/C:/evil.jpg"])
def test_s3_key_that_leads_elsewhere_is_refused(s3, tmp_path, key, fetch):
    s3.put_object(Bucket=s3.bucket, Key=key, Body=b"evil")
    with pytest.raises(SourceError, match="the file name"):
        fetch(f"{s3.url}/plants")
    assert not list(tmp_path.rglob("evil*"))


def _zip_bytes() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("set/cats/a.jpg", os.urandom(200_000))
        archive.writestr("set/dogs/b.jpg", b"2")
    return buffer.getvalue()


def test_s3_archive_is_taken_up_where_it_broke_off(s3, tmp_path, fetch_zip):
    data = _zip_bytes()
    s3.put_object(Bucket=s3.bucket, Key="set.zip", Body=data)
    fetch_zip(f"{s3.url}/set.zip")
    whole = next(path for path in (tmp_path / "downloads").rglob("*") if len(path.name) == 64)
    # As a killed process leaves it; what is there is not fetched again, so its first byte tells.
    whole.rename(whole.with_suffix(".part"))
    whole.with_suffix(".part").write_bytes(b"?" + data[1:150_000])
    store = open_store(f"{s3.url}/set.zip", "fish", anonymous=False)
    assert pull_file(store, whole.parent, "fish", 10**6) == whole
    assert whole.read_bytes() == b"?" + data[1:]


@pytest.mark.parametrize(
    ("key", "options", "match"),
    [
        ("set.zip", {"sha256": "0" * 64}, "expected sha256 0000"),
        ("set.zip", {"max_bytes": 1000}, r"has 200,\d+ bytes, more than 1,000"),
        ("plants", {}, r"is a folder.*`kind: store`"),
    ],
)
def test_s3_archive_hash_size_and_kind_are_checked(s3, fetch_zip, key, options, match):
    s3.put_object(Bucket=s3.bucket, Key="set.zip", Body=_zip_bytes())
    with pytest.raises(SourceError, match=match):
        fetch_zip(f"{s3.url}/{key}", **options)


def test_s3_file_is_no_folder(s3, fetch):
    with pytest.raises(SourceError, match=r"is a file.*`kind: archive`"):
        fetch(f"{s3.url}/other/d.jpg")


@pytest.mark.parametrize(
    "location",
    [
        "s3://key:secret@bucket/set",
        "s3://bucket/a.zip::file:///etc/passwd",
        "file:///etc",
        "ftp://example.org/set",
        "memory://set",
        "/etc",
    ],
)
def test_store_other_addresses_are_refused(location, fetch):
    with pytest.raises(SourceError) as caught:
        fetch(location)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("scheme", "package", "step"),
    [
        ("s3", "s3fs", "pip install 'fieldlens[s3]'"),
        ("gs", "gcsfs", "pip install gcsfs"),
        ("az", "adlfs", "pip install adlfs"),
        ("sftp", "paramiko", "pip install paramiko"),
    ],
)
def test_store_without_its_package_says_what_to_install(scheme, package, step):
    code = f"""
import sys
sys.modules[{package!r}] = None
from pipelines.sources.stores import open_store
from pipelines.errors import SourceError
try:
    open_store("{scheme}://bucket/set", "fish", anonymous=False)
except SourceError as err:
    sys.stdout.write(str(err))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert step in done.stdout
    assert "\n" not in done.stdout


def test_hub_folder_is_pinned_to_a_commit(hub, tmp_path, fetch):
    facts, intake = fetch("hf://datasets/owner/plants/plants")
    assert file_tree(tmp_path / "raw") == TAKEN
    assert facts == {
        "store": "hf://datasets/owner/plants/plants",
        "revision": "main",
        "commit": COMMIT,
    }
    assert intake.account.n_files == 7
    fetched = [line for line in hub.asked if "/resolve/" in line]
    assert fetched
    assert all(f"/resolve/{COMMIT}/" in line for line in fetched)


def test_hub_revision_and_archive(hub, tmp_path, fetch_zip):
    hub.files["data/set.zip"] = _zip_bytes()
    facts = fetch_zip("hf://datasets/owner/plants@v1/data/set.zip")
    assert sorted(file_tree(tmp_path / "raw")) == ["cats/a.jpg", "dogs/b.jpg"]
    assert (facts["commit"], facts["revision"]) == (COMMIT, "v1")


@pytest.mark.parametrize(
    "location",
    [
        "{s3.url}/absent",
        "s3://no-such-bucket-here/x",
        "hf://datasets/owner/absent",
        "hf://datasets/owner/plants@v9",
        "hf://datasets/owner/plants/x",
    ],
)
def test_store_with_nothing_there_is_one_line(s3, hub, fetch, location):
    with pytest.raises(SourceError, match="location") as caught:
        fetch(location.format(s3=s3))
    assert "\n" not in str(caught.value)
    assert "verysecret" not in str(caught.value)


def test_hub_answer_of_other_length_is_never_a_file(hub, tmp_path, monkeypatch, fetch):
    hub.cut = 100
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    with pytest.raises(SourceError, match="cannot be fetched"):
        fetch("hf://datasets/owner/plants/plants")
    assert file_tree(tmp_path / "raw") == {}
    hub.cut = None
    fetch("hf://datasets/owner/plants/plants")
    assert file_tree(tmp_path / "raw") == TAKEN


def test_hub_client_follows_no_redirect_from_https_to_http():
    from huggingface_hub import get_session

    stores._guard_hub()
    session = get_session()
    response_type = __import__(type(session).__module__.partition(".")[0]).Response
    request = session.build_request("GET", "https://hub.example/file?token=secret")
    (refuse,) = session.event_hooks["response"]
    for target, is_refused in (("http://elsewhere/", True), ("https://cdn.example/", False)):
        response = response_type(302, headers={"location": target}, request=request)
        if is_refused:
            with pytest.raises(SourceError, match="from https to http") as caught:
                refuse(response)
            assert "secret" not in str(caught.value)
        else:
            refuse(response)


def test_is_store_knows_the_five():
    schemes = ("s3", "gs", "az", "sftp", "hf", "http", "file")
    known = [name for name in schemes if is_store(f"{name}://a/b")]
    assert known == ["s3", "gs", "az", "sftp", "hf"]
