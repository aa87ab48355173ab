"""The gallery beside a bundle, as the phone page's server and its static site give it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from apps.phone_site import PhoneSite
from apps.phone_static import main, write_site
from pipelines.errors import BundleError
from pipelines.paths import Paths
from pipelines.serving.gallery import gallery_file
from tests.file_tree import file_tree
from tests.serving.test_embedding import bundle_of, laid_beside

FACTS, GALLERY = (f"/models/flowers/{name}" for name in ("gallery_file.json", "gallery.json"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of an embedding's bundle, in a project; without a gallery."""
    bundle = bundle_of(0.75).model_copy(update={"task": "flowers"})
    path = Paths(tmp_path / "project").task("flowers").bundle
    path.parent.mkdir(parents=True)
    path.write_text(bundle.to_json(), encoding="utf-8")
    path.with_name(bundle.files[bundle.served.precision].name).write_bytes(b"a model")
    return path.parent


@pytest.fixture
def root(folder: Path) -> Path:
    return folder.parents[2]


def test_a_gallery_is_told_by_its_hash_and_given_whole(folder, root, dist_dir):
    site = PhoneSite.open(root, dist_dir)
    (alone,) = json.loads(site.find("/models/index.json", ()).body)["tasks"]
    assert json.loads(site.find(FACTS, ()).body) is None
    assert site.find(GALLERY, ()) is None
    laid_beside(folder, bundle_of(0.75))
    given, facts = site.find(GALLERY, ()), site.find(FACTS, ())
    assert given.body == gallery_file(folder).read_bytes()
    assert given.content_type.startswith("application/json")
    assert "immutable" in given.cache
    assert facts.cache == "no-cache"
    sha256 = hashlib.sha256(given.body).hexdigest()
    assert json.loads(facts.body) == {"sha256": sha256, "size_bytes": len(given.body)}
    (entry,) = json.loads(site.find("/models/index.json", ()).body)["tasks"]
    assert entry["size_bytes"] == alone["size_bytes"] + len(given.body)


def test_beside_another_kind_no_gallery_is_given(app_template, dist_dir, folder, root):
    document = json.loads((Paths(app_template).task("tomato_leaf").bundle).read_bytes())
    (folder / "bundle.json").write_text(json.dumps(document | {"task": "flowers"}))
    laid_beside(folder, bundle_of(0.75))
    site = PhoneSite.open(root, dist_dir)
    assert site.find(GALLERY, ()) is site.find(FACTS, ()) is None


def test_a_site_has_the_gallery_and_says_so(folder, root, dist_dir, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("apps.phone_static.write_site.__defaults__", (dist_dir,))
    out = tmp_path / "site"
    assert main([str(out), "--root", str(root)]) == 0
    assert "galleries" not in capsys.readouterr().out
    assert json.loads(file_tree(out)[FACTS[1:]]) is None
    laid_beside(folder, bundle_of(0.75))
    assert main([str(out), "--root", str(root)]) == 0
    assert "the galleries (names, small pictures) of flowers" in capsys.readouterr().out
    assert file_tree(out)[GALLERY[1:]] == gallery_file(folder).read_bytes()


def test_a_gallery_of_another_model_is_refused_before_anything_is_written(
    folder, root, dist_dir, tmp_path
):
    laid_beside(folder, bundle_of(0.75))
    path = gallery_file(folder)
    document = json.loads(path.read_bytes()) | {"model_sha256": "0" * 64}
    path.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(BundleError, match="made by another model"):
        write_site(root, tmp_path / "site", dist_dir)
    assert not (tmp_path / "site").exists()
