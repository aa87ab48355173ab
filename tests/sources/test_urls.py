from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.card import UrlListSource
from pipelines.errors import SourceError
from pipelines.sources.intake import Intake
from pipelines.sources.urls import fetch_urls
from tests.faulty_site import DATA
from tests.file_tree import file_tree


@pytest.fixture
def fetch(tmp_path: Path, intake: Callable[..., Intake]) -> Callable[..., dict[str, bytes]]:
    """Fetches the images of a list with these lines: what is there then."""

    def run(*lines: str, max_bytes: int = 1_000_000) -> dict[str, bytes]:
        text = "\n".join(lines) + "\n"
        (tmp_path / "list.csv").write_bytes(text.encode())
        source = UrlListSource(kind="urls", list="list.csv", max_bytes=max_bytes)
        facts = fetch_urls(source, intake(max_bytes), tmp_path, tmp_path / "downloads")
        sha256 = hashlib.sha256(text.encode()).hexdigest()
        assert facts.items() >= {"list": "list.csv", "sha256": sha256}.items()
        return file_tree(tmp_path / "raw")

    return run


def test_fetch_urls_with_labels_and_groups(fetch, site):
    site.files = {f"/{index}": bytes([index]) * 10 for index in range(9)}
    sha256 = hashlib.sha256(site.files["/0"]).hexdigest()
    rows = [f"{site.url}/{index},x/{index}.jpg,,cat,g{index}" for index in range(1, 9)]
    first = f'{site.url}/0,"x/a,\n.jpg",{sha256.upper()},,'
    found = fetch("\ufeffurl,path,sha256,label,group", *rows, first)
    lines = found.pop("records.csv").split(b"\n", 2)
    assert lines[:2] == [b"path,label,group", b"x/1.jpg,cat,g1"]
    assert b'"x/a,\n.jpg",x,\n' in lines[2]
    images = {f"x/{index}.jpg": bytes([index]) * 10 for index in range(1, 9)}
    assert found == {"x/a,\n.jpg": bytes(10), **images}


def test_fetch_urls_without_labels_writes_no_records(fetch, site):
    assert fetch("path,url\r", f"cats/a.jpg,{site.url}/set.bin\r") == {"cats/a.jpg": DATA}


def test_fetch_urls_failures_are_counted_and_the_rest_is_kept(fetch, site, tmp_path):
    rows = [f"{site.url}/absent{index},a/{index}.jpg" for index in range(5)]
    lines = ["url,path", f"{site.url}/set.bin,a/z.jpg", *rows]
    with pytest.raises(
        SourceError, match=r"5 of 6 images .*absent0.*absent1.*absent2.* and 2 more"
    ):
        fetch(*lines)
    assert file_tree(tmp_path / "raw") == {}
    n_sent = site.n_sent
    site.files |= {f"/absent{index}": b"1" for index in range(5)}
    fetch(*lines)
    assert site.n_sent == n_sent + 5


def test_fetch_urls_stops_where_all_fails(fetch, site):
    rows = [f"{site.url}/absent{index},a/{index}.jpg" for index in range(400)]
    with pytest.raises(SourceError, match=r"25 of 400 images .*The rest was not tried"):
        fetch("url,path", *rows)
    assert len(site.answers) < 400


def test_fetch_urls_bound_holds(fetch, site):
    rows = [f"{site.url}/set.bin?{index},a/{index}.jpg" for index in range(4)]
    site.files = {f"/set.bin?{index}": DATA for index in range(4)}
    with pytest.raises(SourceError, match="more than 1,199,999 bytes"):
        fetch("url,path", *rows, max_bytes=1_199_999)


@pytest.mark.parametrize(
    ("lines", "match"),
    [
        (["url", "http://a/b"], "without path"),
        ([], "without path, url"),
        (["url,path", "file:///etc/passwd,a.jpg"], r"list.csv:2: expected an address"),
        (["url,path", "http://a/b,../a.jpg"], r"list.csv:2: the file name .* climbs"),
        (["url,path", "http://a/b,a.exe"], "does not name an image"),
        (["url,path", "http://a/b,.a/a.jpg"], "does not name an image"),
        (["url,path", "http://a/b"], "does not name an image"),
        (["url,path,sha256", "http://a/b,a.jpg,12"], "64 hexadecimal"),
        (["url,path", "http://a/b,c/a.jpg", "http://a/c,c//a.jpg"], r"list.csv:3: .*stands twice"),
    ],
)
def test_fetch_urls_faulty_list_names_the_line(fetch, lines, match):
    with pytest.raises(SourceError, match=match):
        fetch(*lines)


def test_fetch_urls_absent_list_is_an_error(intake, tmp_path):
    source = UrlListSource(kind="urls", list="absent.csv")
    with pytest.raises(SourceError, match=r"the list 'absent.csv' cannot be read"):
        fetch_urls(source, intake(), tmp_path, tmp_path / "downloads")
