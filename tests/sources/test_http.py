from __future__ import annotations

import hashlib
import io
import os
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from pipelines.card import ArchiveSource, UrlListSource
from pipelines.errors import SourceError
from pipelines.sources.archive import fetch_archive
from pipelines.sources.download import download
from pipelines.sources.intake import Intake
from pipelines.sources.urls import fetch_urls
from tests.loopback import answering

DATA = os.urandom(300_000)
SHA256 = hashlib.sha256(DATA).hexdigest()


@dataclass
class Site:
    """A web server on this machine, with the faults that real ones have."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=lambda: {"/set.bin": DATA})
    takes_ranges: bool = True
    minds_if_range: bool = True
    sends_length: bool = True
    etag: str = '"one"'
    last_modified: str = ""
    #: Body bytes after which the line is cut, an answer each; then it holds.
    cuts: list[int] = field(default_factory=list)
    #: Status of the next answers, instead of the file.
    refusals: list[int] = field(default_factory=list)
    redirects: dict[str, str] = field(default_factory=dict)
    #: (path, Range, status, body bytes sent) of each answer.
    answers: list[tuple[str, str | None, int, int]] = field(default_factory=list)

    @property
    def n_sent(self) -> int:
        return sum(answer[3] for answer in self.answers)


def _handler(site: Site) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def _bare(self, status: int, **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            # Noted before it is sent: the test may look as soon as it has arrived.
            site.answers.append((self.path, self.headers.get("Range"), status, 0))
            self.end_headers()

        def do_GET(self) -> None:
            if site.refusals:
                return self._bare(site.refusals.pop(0))
            if self.path in site.redirects:
                return self._bare(302, Location=site.redirects[self.path])
            data = site.files.get(self.path)
            if data is None:
                return self._bare(404)
            if site.etag and self.headers.get("If-None-Match") == site.etag:
                return self._bare(304)
            return self._send(data)

        def _send(self, data: bytes) -> None:
            wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
            condition = self.headers.get("If-Range")
            is_same = not site.minds_if_range or condition in {site.etag, site.last_modified}
            start = int(wanted[1]) if wanted and site.takes_ranges and is_same else None
            if start is not None and start >= len(data):
                return self._bare(416)
            body = data[start or 0 :]
            self.send_response(200 if start is None else 206)
            if start is not None:
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            if site.sends_length:
                self.send_header("Content-Length", str(len(body)))
            for name, value in (("ETag", site.etag), ("Last-Modified", site.last_modified)):
                if value:
                    self.send_header(name, value)
            self.end_headers()
            body = body[: site.cuts.pop(0)] if site.cuts else body
            status = 200 if start is None else 206
            site.answers.append((self.path, self.headers.get("Range"), status, len(body)))
            self.wfile.write(body)
            self.close_connection = True
            return None

    return Handler


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    site = Site()
    with answering(_handler(site)) as site.url:
        yield site


def _download(
    site: Site, target: Path, *, sha256: str | None = None, max_bytes: int = 1_000_000
) -> None:
    download(site.url + "/set.bin", target, sha256=sha256, max_bytes=max_bytes, backoff_s=0.001)


def test_download_whole_file(site: Site, tmp_path: Path) -> None:
    target = tmp_path / "cache/file"
    _download(site, target, sha256=SHA256)
    assert target.read_bytes() == DATA
    assert sorted(path.name for path in target.parent.iterdir()) == ["file", "file.json"]


def test_download_cut_line_transfers_only_the_rest(site: Site, tmp_path: Path) -> None:
    site.cuts = [100_000, 50_000]
    _download(site, tmp_path / "file", sha256=SHA256)
    assert (tmp_path / "file").read_bytes() == DATA
    assert [answer[1] for answer in site.answers] == [None, "bytes=100000-", "bytes=150000-"]
    assert site.n_sent == len(DATA)


def test_download_that_gave_up_is_resumed_by_the_next_run(site: Site, tmp_path: Path) -> None:
    site.cuts = [60_000] * 4
    with pytest.raises(SourceError, match=r"in 4 tries .*240,000 of 300,000.*run the same command"):
        _download(site, tmp_path / "file")
    assert not (tmp_path / "file").exists()
    _download(site, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == DATA
    assert site.n_sent == len(DATA)


def test_download_by_date_where_there_is_no_etag(site: Site, tmp_path: Path) -> None:
    site.etag, site.last_modified = "", formatdate(0, usegmt=True)
    site.cuts = [100_000]
    _download(site, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == DATA
    assert site.n_sent == len(DATA)


@pytest.mark.parametrize("etag", ["", 'W/"one"'])
def test_download_without_strong_validator_starts_again(
    site: Site, tmp_path: Path, etag: str
) -> None:
    site.etag = etag
    site.cuts = [100_000]
    _download(site, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == DATA
    assert [answer[1] for answer in site.answers] == [None, None]


def test_download_server_without_ranges_starts_again(site: Site, tmp_path: Path) -> None:
    site.takes_ranges = False
    site.cuts = [100_000]
    _download(site, tmp_path / "file", sha256=SHA256)
    assert (tmp_path / "file").read_bytes() == DATA
    assert site.n_sent == len(DATA) + 100_000


@pytest.mark.parametrize("minds_if_range", [True, False])
def test_download_two_versions_are_never_joined(
    site: Site, tmp_path: Path, minds_if_range: bool
) -> None:
    site.minds_if_range = minds_if_range
    site.cuts = [60_000] * 4
    with pytest.raises(SourceError):
        _download(site, tmp_path / "file")
    site.files["/set.bin"], site.etag = bytes(200_000), '"two"'
    _download(site, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == bytes(200_000)


def test_download_killed_before_the_rename_needs_no_transfer(site: Site, tmp_path: Path) -> None:
    _download(site, tmp_path / "file")
    (tmp_path / "file").rename(tmp_path / "file.part")
    _download(site, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == DATA
    assert len(site.answers) == 1


def test_download_part_longer_than_the_file_starts_again(site: Site, tmp_path: Path) -> None:
    site.cuts = [60_000] * 4
    with pytest.raises(SourceError):
        _download(site, tmp_path / "file")
    (tmp_path / "file.part").write_bytes(bytes(400_000))
    _download(site, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == DATA


def test_download_with_broken_note_starts_again(site: Site, tmp_path: Path) -> None:
    (tmp_path / "file.part").write_bytes(b"rubbish")
    (tmp_path / "file.json").write_bytes(b"{")
    _download(site, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == DATA


def test_download_known_hash_is_not_asked_for_again(site: Site, tmp_path: Path) -> None:
    _download(site, tmp_path / "file", sha256=SHA256)
    _download(site, tmp_path / "file", sha256=SHA256)
    assert len(site.answers) == 1
    (tmp_path / "file").write_bytes(b"changed on disk")
    _download(site, tmp_path / "file", sha256=SHA256)
    assert (tmp_path / "file").read_bytes() == DATA


def test_download_unknown_hash_asks_whether_it_is_the_same(site: Site, tmp_path: Path) -> None:
    _download(site, tmp_path / "file")
    _download(site, tmp_path / "file")
    assert [answer[2] for answer in site.answers] == [200, 304]
    site.files["/set.bin"], site.etag = b"new", '"two"'
    _download(site, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"new"


def test_download_wrong_hash_leaves_nothing(site: Site, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=f"expected sha256 {'0' * 64}, got {SHA256}"):
        _download(site, tmp_path / "file", sha256="0" * 64)
    assert not (tmp_path / "file").exists()
    assert not (tmp_path / "file.part").exists()


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_download_passing_refusal_is_tried_again(site: Site, tmp_path: Path, status: int) -> None:
    site.refusals = [status] * 3
    _download(site, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == DATA
    site.refusals = [status] * 4
    with pytest.raises(SourceError, match=f"in 4 tries .HTTP {status}"):
        _download(site, tmp_path / "other")


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_download_final_refusal_is_told_at_once(site: Site, tmp_path: Path, status: int) -> None:
    site.refusals = [status]
    with pytest.raises(SourceError, match=f"HTTP {status}"):
        _download(site, tmp_path / "file")
    assert len(site.answers) == 1


@pytest.mark.parametrize("sends_length", [True, False])
def test_download_too_large_is_stopped(site: Site, tmp_path: Path, sends_length: bool) -> None:
    site.sends_length = sends_length
    with pytest.raises(SourceError, match="larger than 299,999 bytes"):
        _download(site, tmp_path / "file", max_bytes=299_999)
    assert not (tmp_path / "file.part").exists()
    _download(site, tmp_path / "file", max_bytes=300_000)
    assert (tmp_path / "file").read_bytes() == DATA


@pytest.mark.parametrize("to", ["file:///etc/passwd", "ftp://127.0.0.1/set.bin", "data:,hello"])
def test_download_redirect_to_another_scheme_is_refused(
    site: Site, tmp_path: Path, to: str
) -> None:
    site.redirects["/set.bin"] = to
    with pytest.raises(SourceError):
        _download(site, tmp_path / "file")
    assert not (tmp_path / "file").exists()


def test_download_follows_a_redirect_and_odd_letters(site: Site, tmp_path: Path) -> None:
    site.redirects["/a%20b/%C3%BC.bin?x=1"] = "/set.bin"
    url = f"{site.url}/a b/ü.bin?x=1"
    download(url, tmp_path / "file", sha256=None, max_bytes=1_000_000)
    assert (tmp_path / "file").read_bytes() == DATA


def test_download_nobody_listens_is_an_error_without_the_query(tmp_path: Path) -> None:
    # Port 9 (discard) of this machine: nobody listens.
    with pytest.raises(SourceError, match="Connection refused") as caught:
        download(
            "http://127.0.0.1:9/a.zip?token=secret",
            tmp_path / "file",
            sha256=None,
            max_bytes=9,
            backoff_s=0.001,
        )
    assert "secret" not in str(caught.value)


# -- archive --------------------------------------------------------------------------------------
def test_fetch_archive_from_an_address(site: Site, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("cats/a.jpg", b"1")
    site.files["/set.zip"] = buffer.getvalue()
    source = ArchiveSource(kind="archive", location=f"{site.url}/set.zip?key=secret")
    site.files["/set.zip?key=secret"] = buffer.getvalue()
    (tmp_path / "raw").mkdir()
    intake = Intake(tmp_path / "raw", "fish", max_bytes=100)
    facts = fetch_archive(source, intake, tmp_path, tmp_path / "downloads")
    sha256 = hashlib.sha256(buffer.getvalue()).hexdigest()
    assert facts == {"archive": f"{site.url}/set.zip", "sha256": sha256}
    assert (tmp_path / "raw/cats/a.jpg").read_bytes() == b"1"


# -- urls -----------------------------------------------------------------------------------------
def _fetch_urls(tmp_path: Path, text: str, max_bytes: int = 1_000_000) -> Intake:
    (tmp_path / "list.csv").write_bytes(text.encode())
    (tmp_path / "raw").mkdir(exist_ok=True)
    intake = Intake(tmp_path / "raw", "fish", max_bytes=max_bytes)
    source = UrlListSource(kind="urls", list="list.csv", max_bytes=max_bytes)
    facts = fetch_urls(source, intake, tmp_path, tmp_path / "downloads")
    assert facts["list"] == "list.csv"
    assert facts["sha256"] == hashlib.sha256(text.encode()).hexdigest()
    return intake


def test_fetch_urls_with_labels_and_groups(site: Site, tmp_path: Path) -> None:
    site.files = {f"/{index}": bytes([index]) * 10 for index in range(9)}
    sha256 = hashlib.sha256(site.files["/0"]).hexdigest()
    rows = [f"{site.url}/{index},x/{index}.jpg,,cat,g{index}" for index in range(1, 9)]
    first = f'{site.url}/0,"x/a,\n.jpg",{sha256.upper()},,'
    text = "\ufeffurl,path,sha256,label,group\n" + "\n".join([*rows, first]) + "\n"
    intake = _fetch_urls(tmp_path, text)
    assert intake.n_files == 10
    assert (tmp_path / "raw/x/3.jpg").read_bytes() == bytes([3]) * 10
    lines = (tmp_path / "raw/records.csv").read_bytes().split(b"\n", 2)
    assert lines[:2] == [b"path,label,group", b"x/1.jpg,cat,g1"]
    assert b'"x/a,\n.jpg",x,\n' in lines[2]


def test_fetch_urls_without_labels_writes_no_records(site: Site, tmp_path: Path) -> None:
    _fetch_urls(tmp_path, f"path,url\r\ncats/a.jpg,{site.url}/set.bin\r\n")
    assert [path.name for path in (tmp_path / "raw").iterdir()] == ["cats"]
    assert (tmp_path / "raw/cats/a.jpg").read_bytes() == DATA


def test_fetch_urls_failures_are_counted_and_the_rest_is_kept(site: Site, tmp_path: Path) -> None:
    rows = [f"{site.url}/absent{index},a/{index}.jpg" for index in range(5)]
    text = "\n".join(["url,path", f"{site.url}/set.bin,a/z.jpg", *rows])
    with pytest.raises(
        SourceError, match=r"5 of 6 images .*absent0.*absent1.*absent2.* and 2 more"
    ):
        _fetch_urls(tmp_path, text)
    assert not list((tmp_path / "raw").iterdir())
    n_sent = site.n_sent
    site.files |= {f"/absent{index}": b"1" for index in range(5)}
    _fetch_urls(tmp_path, text)
    assert site.n_sent == n_sent + 5


def test_fetch_urls_stops_where_all_fails(site: Site, tmp_path: Path) -> None:
    rows = [f"{site.url}/absent{index},a/{index}.jpg" for index in range(400)]
    with pytest.raises(SourceError, match=r"25 of 400 images .*The rest was not tried"):
        _fetch_urls(tmp_path, "\n".join(["url,path", *rows]))
    assert len(site.answers) < 400


def test_fetch_urls_bound_holds(site: Site, tmp_path: Path) -> None:
    rows = [f"{site.url}/set.bin?{index},a/{index}.jpg" for index in range(4)]
    site.files = {f"/set.bin?{index}": DATA for index in range(4)}
    with pytest.raises(SourceError, match="more than 1,199,999 bytes"):
        _fetch_urls(tmp_path, "\n".join(["url,path", *rows]), max_bytes=1_199_999)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("url\nhttp://a/b\n", "without path"),
        ("", "without path, url"),
        ("url,path\nfile:///etc/passwd,a.jpg\n", r"list.csv:2: expected an address"),
        ("url,path\nhttp://a/b,../a.jpg\n", r"list.csv:2: the file name .* climbs"),
        ("url,path\nhttp://a/b,a.exe\n", "does not name an image"),
        ("url,path\nhttp://a/b,.a/a.jpg\n", "does not name an image"),
        ("url,path\nhttp://a/b\n", "does not name an image"),
        ("url,path,sha256\nhttp://a/b,a.jpg,12\n", "64 hexadecimal"),
        ("url,path\nhttp://a/b,c/a.jpg\nhttp://a/c,c//a.jpg\n", r"list.csv:3: .* stands twice"),
    ],
)
def test_fetch_urls_faulty_list_names_the_line(tmp_path: Path, text: str, match: str) -> None:
    with pytest.raises(SourceError, match=match):
        _fetch_urls(tmp_path, text)


def test_fetch_urls_absent_list_is_an_error(tmp_path: Path) -> None:
    source = UrlListSource(kind="urls", list="absent.csv")
    with pytest.raises(SourceError, match=r"the list 'absent.csv' cannot be read"):
        fetch_urls(source, Intake(tmp_path, "fish", max_bytes=9), tmp_path, tmp_path / "downloads")
