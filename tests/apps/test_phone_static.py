"""The phone page as files: what the server gives, and nothing else."""

from __future__ import annotations

import json
import shutil

import pytest

from apps.phone_server import HEADERS
from apps.phone_site import PhoneSite
from apps.phone_static import main, write_site
from pipelines.errors import ConfigError
from pipelines.serving.bundle import read_bundle, read_model
from tests.apps.conftest import TASKS
from tests.file_tree import file_tree


def test_files_are_what_the_server_gives(app_template, dist_dir, tmp_path):
    written = write_site(app_template, tmp_path / "site", dist_dir)
    found = file_tree(tmp_path / "site")
    site = PhoneSite.open(app_template, dist_dir)
    assert found.pop("_headers").decode().splitlines() == [
        "/*",
        *(f"  {name}: {value}" for name, value in HEADERS.items()),
    ]
    assert sorted(found) == sorted(path.as_posix() for path in written)
    assert all(found[name] == site.find(f"/{name}", ()).body for name in found)
    # Compressed copies are a server's own matter; a link of the build leads nowhere.
    assert not any(name.endswith((".gz", ".br")) or name == "link.txt" for name in found)


def test_every_task_of_the_index_has_its_bundle_and_served_model(app_template, dist_dir, tmp_path):
    write_site(app_template, tmp_path / "site", dist_dir)
    models = tmp_path / "site/models"
    tasks = [entry["task"] for entry in json.loads((models / "index.json").read_text())["tasks"]]
    assert tasks == TASKS
    for task in tasks:
        # What is read is what the bundle names, by size and hash.
        bundle = read_bundle(models / task, verify=False)
        assert read_model(bundle, models / task, bundle.served.precision)
        served = bundle.files[bundle.served.precision].name
        assert {path.name for path in (models / task).iterdir()} == {"bundle.json", served}


def test_a_site_is_replaced_and_nothing_else_is(app_template, dist_dir, tmp_path):
    site = tmp_path / "site"
    write_site(app_template, site, dist_dir)
    (site / "models/old.onnx").write_bytes(b"of yesterday")
    write_site(app_template, site, dist_dir)
    assert "models/old.onnx" not in file_tree(site)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "diary.txt").write_text("dear")
    with pytest.raises(ConfigError, match="expected a folder that is not there"):
        write_site(app_template, mine, dist_dir)
    assert file_tree(mine) == {"diary.txt": b"dear"}


def test_no_model_and_no_page_are_said(app_template, dist_dir, tmp_path):
    with pytest.raises(ConfigError, match="there is no model"):
        write_site(tmp_path / "empty", tmp_path / "site", dist_dir)
    with pytest.raises(ConfigError, match="Run `make phone`"):
        write_site(app_template, tmp_path / "site", tmp_path / "no-dist")
    assert not (tmp_path / "site").exists()


def test_main_says_what_is_in_it(app_template, dist_dir, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("apps.phone_static.write_site.__defaults__", (dist_dir,))
    assert main([str(tmp_path / "site"), "--root", str(app_template)]) == 0
    out = capsys.readouterr().out
    assert "tomato_leaf" in out
    assert "licences" in out
    shutil.rmtree(tmp_path / "site")
    assert main([str(tmp_path / "site"), "--root", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("error: ")
