from __future__ import annotations

import io
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from pipelines.card import ArchiveSource, StoreSource
from pipelines.errors import SourceError
from pipelines.sources import stores as store_access
from pipelines.sources.archive import fetch_archive
from pipelines.sources.intake import Facts, Intake
from pipelines.sources.stores import fetch_store, is_store, open_store, pull
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
    return client


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with serving_hub(dict(FILES)) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_TOKEN", "hf_verysecret")
        monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
        yield hub


def _intake(tmp_path: Path, max_bytes: int = 100_000, max_files: int = 1000) -> Intake:
    raw_dir = tmp_path / "raw"
    raw_dir.mkdir(exist_ok=True)
    return Intake(raw_dir, "plants", max_bytes=max_bytes, max_files=max_files)


def _fetch(location: str, tmp_path: Path, **options: Any) -> tuple[Facts, Intake]:
    bounds = {key: options.pop(key) for key in ("max_bytes", "max_files") if key in options}
    intake = _intake(tmp_path, **bounds)
    source = StoreSource(kind="store", location=location, **options)
    return fetch_store(source, intake, tmp_path / "downloads"), intake


def test_s3_folder_of_class_folders(s3: Any, tmp_path: Path) -> None:
    facts, intake = _fetch(f"s3://{s3.bucket}/plants/", tmp_path)
    assert file_tree(tmp_path / "raw") == TAKEN
    assert facts == {"store": f"s3://{s3.bucket}/plants/"}
    assert intake.skipped == {"hidden": 1, "other": 1}
    assert intake.account.n_files == 7


def test_s3_second_fetch_brings_only_what_changed(s3: Any, tmp_path: Path) -> None:
    _fetch(f"s3://{s3.bucket}/plants", tmp_path)
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "downloads").rglob("*")}
    s3.put_object(Bucket=s3.bucket, Key="plants/rust/c.JPG", Body=b"changed")
    (tmp_path / "raw").rename(tmp_path / "first")
    _fetch(f"s3://{s3.bucket}/plants", tmp_path)
    assert file_tree(tmp_path / "raw") == {**TAKEN, "rust/c.JPG": b"changed"}
    new = {path for path in (tmp_path / "downloads").rglob("*") if path not in kept}
    assert len(new) == 1


def test_s3_public_bucket_without_credentials(
    s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.put_bucket_acl(Bucket=s3.bucket, ACL="public-read")
    for key in FILES:
        s3.put_object_acl(Bucket=s3.bucket, Key=key, ACL="public-read")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(SourceError, match=r"NoCredentials.*`anonymous: true`"):
        _fetch(f"s3://{s3.bucket}/plants", tmp_path)
    _fetch(f"s3://{s3.bucket}/plants", tmp_path, anonymous=True)
    assert file_tree(tmp_path / "raw") == TAKEN


def test_s3_bounds_hold_before_a_byte_is_written(s3: Any, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="more than 5,000 bytes"):
        _fetch(f"s3://{s3.bucket}/plants", tmp_path, max_bytes=5_000)
    with pytest.raises(SourceError, match="more than 3 files"):
        _fetch(f"s3://{s3.bucket}/plants", tmp_path, max_files=3)
    assert not (tmp_path / "downloads").exists()
    assert file_tree(tmp_path / "raw") == {}


@pytest.mark.parametrize("key", ["plants/../../evil.jpg", "plants/C:/evil.jpg"])
def test_s3_key_that_leads_elsewhere_is_refused(s3: Any, tmp_path: Path, key: str) -> None:
    s3.put_object(Bucket=s3.bucket, Key=key, Body=b"evil")
    with pytest.raises(SourceError, match="the file name"):
        _fetch(f"s3://{s3.bucket}/plants", tmp_path)
    assert not list(tmp_path.rglob("evil*"))


def test_s3_empty_objects_that_stand_for_folders_are_no_files(s3: Any, tmp_path: Path) -> None:
    for key in ("plants/", "plants/healthy/", "plants/empty/"):
        s3.put_object(Bucket=s3.bucket, Key=key, Body=b"")
    _, intake = _fetch(f"s3://{s3.bucket}/plants", tmp_path)
    assert file_tree(tmp_path / "raw") == TAKEN
    assert intake.account.n_files == 7


def _zip_bytes() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("set/cats/a.jpg", os.urandom(200_000))
        archive.writestr("set/dogs/b.jpg", b"2")
    return buffer.getvalue()


def _archive(location: str, **options: Any) -> ArchiveSource:
    return ArchiveSource(kind="archive", location=location, subfolder="set", **options)


def test_s3_archive_is_taken_up_where_it_broke_off(s3: Any, tmp_path: Path) -> None:
    data = _zip_bytes()
    s3.put_object(Bucket=s3.bucket, Key="set.zip", Body=data)
    source = _archive(f"s3://{s3.bucket}/set.zip")
    fetch_archive(source, _intake(tmp_path, 10**6), tmp_path, tmp_path / "downloads")
    whole = next(path for path in (tmp_path / "downloads").rglob("*") if len(path.name) == 64)
    # As a killed process leaves it; what is there is not fetched again, so its first byte tells.
    whole.rename(whole.with_suffix(".part"))
    part = whole.with_suffix(".part")
    part.write_bytes(b"?" + data[1:150_000])
    store = open_store(source.location, "fish", anonymous=False)
    info = store.fs.info(store.path)
    assert pull(store, info, whole.parent, "fish", 10**6) == whole
    assert whole.read_bytes() == b"?" + data[1:]


def test_s3_archive_hash_size_and_kind_are_checked(s3: Any, tmp_path: Path) -> None:
    data = _zip_bytes()
    s3.put_object(Bucket=s3.bucket, Key="set.zip", Body=data)
    location = f"s3://{s3.bucket}/set.zip"
    for options, match in (
        ({"sha256": "0" * 64}, "expected sha256 0000"),
        ({"max_bytes": 1000}, r"has 200,\d+ bytes, more than 1,000"),
    ):
        with pytest.raises(SourceError, match=match):
            fetch_archive(
                _archive(location, **options), _intake(tmp_path, 10**6), tmp_path, tmp_path / "d"
            )
    with pytest.raises(SourceError, match=r"is a folder.*`kind: store`"):
        fetch_archive(
            _archive(f"s3://{s3.bucket}/plants"), _intake(tmp_path), tmp_path, tmp_path / "d"
        )
    with pytest.raises(SourceError, match=r"is a file.*`kind: archive`"):
        _fetch(location, tmp_path)


@pytest.mark.parametrize("location", ["s3://{bucket}/absent", "s3://no-such-bucket-here/x"])
def test_s3_nothing_there_is_one_line(s3: Any, tmp_path: Path, location: str) -> None:
    with pytest.raises(SourceError, match=r"source.location") as caught:
        _fetch(location.format(bucket=s3.bucket), tmp_path)
    assert "\n" not in str(caught.value)
    assert "verysecret" not in str(caught.value)


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
def test_store_other_addresses_are_refused(tmp_path: Path, location: str) -> None:
    with pytest.raises(SourceError) as caught:
        _fetch(location, tmp_path)
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
def test_store_without_its_package_says_what_to_install(
    scheme: str, package: str, step: str
) -> None:
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


def test_hub_folder_is_pinned_to_a_commit(hub: Hub, tmp_path: Path) -> None:
    facts, intake = _fetch("hf://datasets/owner/plants/plants", tmp_path)
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


def test_hub_revision_and_archive(hub: Hub, tmp_path: Path) -> None:
    hub.files["data/set.zip"] = _zip_bytes()
    source = _archive("hf://datasets/owner/plants@v1/data/set.zip")
    facts = fetch_archive(source, _intake(tmp_path, 10**6), tmp_path, tmp_path / "downloads")
    assert sorted(file_tree(tmp_path / "raw")) == ["cats/a.jpg", "dogs/b.jpg"]
    assert facts["commit"] == COMMIT
    assert facts["revision"] == "v1"


@pytest.mark.parametrize(
    "location",
    ["hf://datasets/owner/absent", "hf://datasets/owner/plants@v9", "hf://datasets/owner/plants/x"],
)
def test_hub_nothing_there_is_one_line(hub: Hub, tmp_path: Path, location: str) -> None:
    with pytest.raises(SourceError) as caught:
        _fetch(location, tmp_path)
    assert "\n" not in str(caught.value)
    assert "verysecret" not in str(caught.value)


def test_hub_answer_of_other_length_is_never_a_file(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.cut = 100
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    with pytest.raises(SourceError, match="cannot be fetched"):
        _fetch("hf://datasets/owner/plants/plants", tmp_path)
    assert file_tree(tmp_path / "raw") == {}
    hub.cut = None
    _fetch("hf://datasets/owner/plants/plants", tmp_path)
    assert file_tree(tmp_path / "raw") == TAKEN


def test_hub_client_follows_no_redirect_from_https_to_http() -> None:
    from huggingface_hub import get_session

    store_access._guard_hub()
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


def test_is_store_knows_the_five() -> None:
    assert [
        name
        for name in ("s3", "gs", "az", "sftp", "hf", "http", "file")
        if is_store(f"{name}://a/b")
    ] == [
        *("s3", "gs", "az", "sftp", "hf"),
    ]
