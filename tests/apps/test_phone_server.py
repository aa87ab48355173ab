"""The phone page's server gives the page and the models, and nothing else."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import json
import shutil
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from apps.phone_server import main, make_server
from apps.texts import LANGUAGES
from pipelines.errors import ConfigError
from pipelines.paths import Paths
from pipelines.serving.bundle import read_bundle
from tests.apps.conftest import WASM
from tests.apps.phone_browsing import served


def port_of(address: str) -> int:
    return int(address.rstrip("/").rsplit(":", 1)[1])


@pytest.fixture(scope="module")
def port(app_template: Path, dist_dir: Path) -> Iterator[int]:
    with served(app_template, dist_dir=dist_dir) as address:
        yield port_of(address)


def ask(port: int, address: str, *, method: str = "GET", codings: str = "identity"):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    # http.client would tidy nothing up: the address goes out as it is.
    connection.putrequest(method, address, skip_accept_encoding=True)
    connection.putheader("Accept-Encoding", codings)
    connection.endheaders()
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response, body


@pytest.mark.parametrize(
    ("address", "content_type"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/index.html", "text/html; charset=utf-8"),
        ("/manifest.webmanifest", "application/manifest+json; charset=utf-8"),
        ("/assets/loader-abc.mjs", "text/javascript; charset=utf-8"),
        ("/assets/ort-abc.wasm", "application/wasm"),
        ("/models/index.json", "application/json; charset=utf-8"),
        ("/models/tomato_leaf/bundle.json", "application/json; charset=utf-8"),
        ("/models/tomato_leaf/model_int8.onnx?sha256=00", "application/octet-stream"),
    ],
)
def test_what_there_is_comes_with_its_type_and_all_headers(port, address, content_type) -> None:
    response, body = ask(port, address)
    assert response.status == 200
    assert body
    assert response.headers["Content-Type"] == content_type
    assert response.headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert response.headers["Cross-Origin-Embedder-Policy"] == "require-corp"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert "connect-src 'self'" in response.headers["Content-Security-Policy"]
    assert "http" not in response.headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    "address",
    [
        "/nothing",
        "/secret.txt",
        "/link.txt",
        "/../secret.txt",
        "/%2e%2e/secret.txt",
        "/..%2fsecret.txt",
        "//secret.txt",
        "/assets/../../secret.txt",
        "/assets/ort-abc.wasm.br",
        "/models/../datasets/tomato_leaf/card.yaml",
        "/models/tomato_leaf/../../../datasets/tomato_leaf/card.yaml",
        "/models/..%2F..%2Fdatasets/tomato_leaf/card.yaml",
        "/models/tomato_leaf/model_fp32.onnx",
        "/models/tomato_leaf/candidate.json",
        "/models/no_such_task/bundle.json",
        "/models/",
        "/datasets/tomato_leaf/prepared/manifest.csv",
        "/%00",
        "/models/%00/bundle.json",
    ],
)
def test_nothing_else_of_the_disk_can_be_had(port, address) -> None:
    response, body = ask(port, address)
    assert response.status == 404
    assert body == b"There is nothing here.\n"


@pytest.mark.parametrize(
    ("codings", "expected", "body"),
    [
        ("gzip, deflate, br, zstd", "br", b"brotli"),
        ("gzip;q=0.8, deflate", "gzip", gzip.compress(WASM, mtime=0)),
        ("identity", None, WASM),
        ("", None, WASM),
    ],
)
def test_best_compressed_copy_is_sent(port, codings, expected, body) -> None:
    response, got = ask(port, "/assets/ort-abc.wasm", codings=codings)
    assert response.headers["Content-Encoding"] == expected
    assert response.headers["Vary"] == "Accept-Encoding"
    assert gzip.decompress(got) == WASM if expected == "gzip" else got == body


def test_only_files_named_by_their_hash_are_kept_for_ever(port) -> None:
    assert "immutable" in ask(port, "/assets/ort-abc.wasm")[0].headers["Cache-Control"]
    model = ask(port, "/models/tomato_leaf/model_int8.onnx?sha256=00")[0]
    assert "immutable" in model.headers["Cache-Control"]
    for address in ("/", "/models/index.json", "/models/tomato_leaf/bundle.json"):
        assert ask(port, address)[0].headers["Cache-Control"] == "no-cache"


@pytest.mark.parametrize("codings", ["identity", "gzip"])
def test_model_is_the_one_that_the_bundle_names(port, app_template, codings) -> None:
    bundle = read_bundle(Paths(app_template).task("tomato_leaf").bundle)
    response, body = ask(port, "/models/tomato_leaf/model_int8.onnx", codings=codings)
    if response.headers["Content-Encoding"] == "gzip":
        body = gzip.decompress(body)
    assert hashlib.sha256(body).hexdigest() == bundle.files["int8"].sha256


def test_head_has_the_length_and_no_body(port) -> None:
    response, body = ask(port, "/assets/ort-abc.wasm", method="HEAD")
    assert (response.status, body) == (200, b"")
    assert response.headers["Content-Length"] == str(len(WASM))


def test_index_tells_each_task_in_each_language(port, app_template) -> None:
    tasks = json.loads(ask(port, "/models/index.json")[1])["tasks"]
    assert {task["task"] for task in tasks} == {
        path.name for path in Paths(app_template).models_dir.iterdir()
    }
    for task in tasks:
        bundle = read_bundle(Paths(app_template).task(task["task"]).bundle)
        assert task["is_sample"] is True
        assert task["size_bytes"] == bundle.files["int8"].size_bytes
        assert set(task["words"]) == set(LANGUAGES)
        for words in task["words"].values():
            assert words["name"]
            assert set(words["labels"]) == set(bundle.labels)
            assert set(words["meanings"]) == set(bundle.labels)
            assert words["not_for"]
    tomato = next(task for task in tasks if task["task"] == "tomato_leaf")
    assert set(tomato["words"]["en"]["next_steps"]) == set(tomato["words"]["en"]["labels"])
    assert tomato["words"]["id"]["next_steps"] != tomato["words"]["en"]["next_steps"]


def test_index_leaves_out_a_bundle_that_cannot_be_read(
    app_template, dist_dir, tmp_path, caplog
) -> None:
    root = Path(shutil.copytree(app_template, tmp_path / "project"))
    path = Paths(root).task("weld_defect").bundle
    path.write_text('{"schema_version": 99}', encoding="utf-8")
    with served(root, dist_dir=dist_dir) as address:
        port = port_of(address)
        tasks = json.loads(ask(port, "/models/index.json")[1])["tasks"]
        assert "weld_defect" not in {task["task"] for task in tasks}
        assert len(tasks) > 1
        # The page reads the bundle itself and says in words what is wrong with it.
        assert ask(port, "/models/weld_defect/bundle.json")[0].status == 200
        assert ask(port, "/models/weld_defect/model_int8.onnx")[0].status == 404
    assert "schema_version" in caplog.text


def test_many_phones_at_once(port) -> None:
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: ask(port, "/assets/ort-abc.wasm"), range(64)))
    assert {(response.status, body) for response, body in answers} == {(200, WASM)}


def test_a_broken_connection_harms_nobody(port) -> None:
    for garbage in (b"", b"\x16\x03\x01hello", b"GET / HTTP/1.1\r\n"):
        with socket.create_connection(("127.0.0.1", port), timeout=5) as raw:
            raw.sendall(garbage)
    assert ask(port, "/")[0].status == 200


def test_page_that_is_not_built_is_told_in_one_line(app_template, tmp_path) -> None:
    with pytest.raises(ConfigError, match="make phone"):
        make_server(app_template, port=0, dist_dir=tmp_path)


def test_port_that_is_taken_is_told_in_one_line(app_template, dist_dir, port) -> None:
    with pytest.raises(ConfigError, match=f"{port}: the phone page cannot be served there"):
        make_server(app_template, port=port, dist_dir=dist_dir)


def test_certificate_that_is_none_is_told_in_one_line(app_template, dist_dir, tmp_path) -> None:
    pem = tmp_path / "cert.pem"
    pem.write_text("no certificate", encoding="utf-8")
    with pytest.raises(ConfigError, match="not a usable certificate"):
        make_server(app_template, port=0, dist_dir=dist_dir, certificate=(pem, pem))


def test_command_ends_with_2_where_it_cannot_serve(app_template, port, capsys) -> None:
    assert main(["--root", str(app_template), "--port", str(port)]) == 2
    assert capsys.readouterr().err.startswith("error: ")
    with pytest.raises(SystemExit, match="2"):
        main(["--cert", "alone.pem"])
