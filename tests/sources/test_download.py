from __future__ import annotations

import hashlib
import io
from email.message import Message
from email.utils import formatdate
from pathlib import Path
from urllib.request import Request

import pytest

from pipelines.errors import SourceError
from pipelines.sources.download import (
    _Redirects,
    check_address,
    download,
    is_address,
    public_name,
)
from tests.faulty_site import DATA, Site

SHA256 = hashlib.sha256(DATA).hexdigest()


# -- addresses ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("location", "expected"),
    [
        (
            "https://user:secret@example.org:8443/a/set.zip?token=x#y",
            "https://example.org:8443/a/set.zip",
        ),
        ("/home/somebody/set.zip", "set.zip"),
        ("../sets/set.zip", "set.zip"),
        ("/", "folder"),
    ],
)
def test_public_name_keeps_no_secret_and_no_folder(location, expected):
    assert public_name(location) == expected


def test_is_address_tells_schemes_from_paths():
    locations = ("file:///etc/passwd", "C:/sets/set.zip", "sets/a.zip")
    assert [is_address(location) for location in locations] == [True, False, False]


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://example.org/a.zip",
        "data:text/plain,hello",
        "http:///a.zip",
        "http://[::1/a.zip",
        "example.org/a.zip",
        "https://me:secret@example.org/a.zip",
        "",
    ],
)
def test_check_address_other_than_plain_web_is_refused(url):
    with pytest.raises(SourceError) as caught:
        check_address(url, "list.csv:2")
    assert "secret" not in str(caught.value)


# -- download -------------------------------------------------------------------------------------
def _download(
    site: Site, target: Path, *, sha256: str | None = None, max_bytes: int = 1_000_000
) -> bytes:
    """What the target holds then."""
    download(site.url + "/set.bin", target, sha256=sha256, max_bytes=max_bytes, backoff_s=0.001)
    return target.read_bytes()


def _give_up(site: Site, target: Path) -> None:
    """A download whose every try is cut: 240,000 of 300,000 bytes are here."""
    site.cuts = [60_000] * 4
    with pytest.raises(SourceError, match=r"in 4 tries .*240,000 of 300,000.*run the same command"):
        _download(site, target)
    assert not target.exists()


def test_download_whole_file(site, tmp_path):
    target = tmp_path / "cache/file"
    assert _download(site, target, sha256=SHA256) == DATA
    assert sorted(path.name for path in target.parent.iterdir()) == ["file", "file.json"]


def test_download_cut_line_transfers_only_the_rest(site, tmp_path):
    site.cuts = [100_000, 50_000]
    assert _download(site, tmp_path / "file", sha256=SHA256) == DATA
    assert [answer[0] for answer in site.answers] == [None, "bytes=100000-", "bytes=150000-"]
    assert site.n_sent == len(DATA)


def test_download_that_gave_up_is_resumed_by_the_next_run(site, tmp_path):
    _give_up(site, tmp_path / "file")
    assert _download(site, tmp_path / "file") == DATA
    assert site.n_sent == len(DATA)


@pytest.mark.parametrize(
    ("faults", "n_sent_twice"),
    [
        ({"etag": "", "last_modified": formatdate(0, usegmt=True)}, 0),
        ({"etag": ""}, 100_000),
        ({"etag": 'W/"one"'}, 100_000),
        ({"takes_ranges": False}, 100_000),
    ],
)
def test_download_goes_on_where_the_server_lets_it_and_else_starts_again(
    site, tmp_path, faults, n_sent_twice
):
    vars(site).update(faults, cuts=[100_000])
    assert _download(site, tmp_path / "file") == DATA
    assert site.n_sent == len(DATA) + n_sent_twice


@pytest.mark.parametrize("minds_if_range", [True, False])
def test_download_two_versions_are_never_joined(site, tmp_path, minds_if_range):
    site.minds_if_range = minds_if_range
    _give_up(site, tmp_path / "file")
    site.files["/set.bin"], site.etag = bytes(200_000), '"two"'
    assert _download(site, tmp_path / "file") == bytes(200_000)


def test_download_killed_before_the_rename_needs_no_transfer(site, tmp_path):
    _download(site, tmp_path / "file")
    (tmp_path / "file").rename(tmp_path / "file.part")
    assert _download(site, tmp_path / "file") == DATA
    assert len(site.answers) == 1


def test_download_part_longer_than_the_file_starts_again(site, tmp_path):
    _give_up(site, tmp_path / "file")
    (tmp_path / "file.part").write_bytes(bytes(400_000))
    assert _download(site, tmp_path / "file") == DATA


def test_download_with_broken_note_starts_again(site, tmp_path):
    (tmp_path / "file.part").write_bytes(b"rubbish")
    (tmp_path / "file.json").write_bytes(b"{")
    assert _download(site, tmp_path / "file") == DATA


def test_download_known_hash_is_not_asked_for_again(site, tmp_path):
    _download(site, tmp_path / "file", sha256=SHA256)
    _download(site, tmp_path / "file", sha256=SHA256)
    assert len(site.answers) == 1
    (tmp_path / "file").write_bytes(b"changed on disk")
    assert _download(site, tmp_path / "file", sha256=SHA256) == DATA


def test_download_unknown_hash_asks_whether_it_is_the_same(site, tmp_path):
    _download(site, tmp_path / "file")
    _download(site, tmp_path / "file")
    assert [answer[1] for answer in site.answers] == [200, 304]
    site.files["/set.bin"], site.etag = b"new", '"two"'
    assert _download(site, tmp_path / "file") == b"new"


def test_download_wrong_hash_leaves_nothing(site, tmp_path):
    with pytest.raises(SourceError, match=f"expected sha256 {'0' * 64}, got {SHA256}"):
        _download(site, tmp_path / "file", sha256="0" * 64)
    assert [path.name for path in tmp_path.iterdir()] == ["file.json"]


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_download_passing_refusal_is_tried_again(site, tmp_path, status):
    site.refusals = [status] * 3
    assert _download(site, tmp_path / "file") == DATA
    site.refusals = [status] * 4
    with pytest.raises(SourceError, match=f"in 4 tries .HTTP {status}"):
        _download(site, tmp_path / "other")


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_download_final_refusal_is_told_at_once(site, tmp_path, status):
    site.refusals = [status]
    with pytest.raises(SourceError, match=f"HTTP {status}"):
        _download(site, tmp_path / "file")
    assert len(site.answers) == 1


@pytest.mark.parametrize("sends_length", [True, False])
def test_download_too_large_is_stopped(site, tmp_path, sends_length):
    site.sends_length = sends_length
    with pytest.raises(SourceError, match="larger than 299,999 bytes"):
        _download(site, tmp_path / "file", max_bytes=299_999)
    assert not (tmp_path / "file.part").exists()
    assert _download(site, tmp_path / "file", max_bytes=300_000) == DATA


@pytest.mark.parametrize("to", ["file:///etc/passwd", "ftp://127.0.0.1/set.bin", "data:,hello"])
def test_download_redirect_to_another_scheme_is_refused(site, tmp_path, to):
    site.redirects["/set.bin"] = to
    with pytest.raises(SourceError):
        _download(site, tmp_path / "file")
    assert not (tmp_path / "file").exists()


def test_download_follows_no_redirect_from_https_to_http():
    # Asked of urllib's hook: no server of a test has a certificate that is trusted.
    def redirect(url: str, to: str) -> Request | None:
        return _Redirects().redirect_request(Request(url), io.BytesIO(), 302, "", Message(), to)

    for url, to in (("https://a/b", "https://c/d"), ("http://a/b", "https://c/d")):
        followed = redirect(url, to)
        assert followed is not None
        assert followed.full_url == to
    with pytest.raises(SourceError, match="redirects from https to http") as caught:
        redirect("https://a/b?token=secret", "http://c/d")
    assert "secret" not in str(caught.value)


def test_download_follows_a_redirect_and_odd_letters(site, tmp_path):
    site.redirects["/a%20b/%C3%BC.bin?x=1"] = "/set.bin"
    url = f"{site.url}/a b/ü.bin?x=1"
    download(url, tmp_path / "file", sha256=None, max_bytes=1_000_000)
    assert (tmp_path / "file").read_bytes() == DATA


def test_download_nobody_listens_is_an_error_without_the_query(tmp_path):
    # Port 9 (discard) of this machine: nobody listens.
    url = "http://127.0.0.1:9/a.zip?token=secret"
    with pytest.raises(SourceError, match="Connection refused") as caught:
        download(url, tmp_path / "file", sha256=None, max_bytes=9, backoff_s=0.001)
    assert "secret" not in str(caught.value)
