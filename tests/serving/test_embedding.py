"""The nearest of a gallery; tests/golden/embedding.json is for every implementation.

Its numbers were worked out from the definitions by hand.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pipelines.errors import BundleError
from pipelines.serving.bundle import Bundle, read_bundle
from pipelines.serving.embedding import SAME, ServedEmbedding, distances
from pipelines.serving.gallery import Gallery, Picture, gallery_file, gallery_text, read_gallery

GOLDEN = Path(__file__).parent.parent / "golden"
DOCUMENT = json.loads((GOLDEN / "embedding.json").read_text(encoding="utf-8"))
KNOWN = DOCUMENT["gallery"]
VECTORS = np.float32(KNOWN["vectors"])


def bundle_of(threshold: float | None) -> Bundle:
    document = read_bundle(GOLDEN / "bundle_schema_3.json", verify=False).model_dump()
    point = document["operating_points"]["red_tile"]
    points = {} if threshold is None else {SAME: {**point, "threshold": threshold}}
    vector = {"name": "vector", "shape": (-1, 3), "dtype": "float32", "meaning": "of length 1"}
    document |= {"kind": "embedding", "labels": (), "label_meanings": {}, "label_names": {}}
    document |= {"outputs": (vector, document["outputs"][1]), "operating_points": points}
    return Bundle.model_validate(document | {"audit": None})


def gallery() -> Gallery:
    pictures = [
        Picture(path=path, identity=identity)
        for path, identity in zip(KNOWN["paths"], KNOWN["identities"], strict=True)
    ]
    return Gallery(pictures, VECTORS)


def laid_beside(folder: Path, bundle: Bundle) -> ServedEmbedding:
    text = gallery_text("flowers", bundle.files["int8"].sha256, gallery())
    gallery_file(folder).write_text(text, encoding="utf-8")
    return ServedEmbedding().beside(folder)


def outputs(vector: list[float]) -> dict[str, np.ndarray]:
    return {"vector": np.float32(vector), "embedding": np.zeros(3, np.float32)}


@pytest.mark.parametrize("case", DOCUMENT["cases"])
def test_golden_neighbours(case, tmp_path):
    bundle = bundle_of(case["threshold"])
    answer = laid_beside(tmp_path, bundle).decode(outputs(case["vector"]), bundle, np.eye(3))
    assert [near.path for near in answer.neighbours] == [KNOWN["paths"][i] for i in case["rows"]]
    assert [near.is_same for near in answer.neighbours] == case["is_same"]
    # Galleries are written in half precision.
    found = [near.distance for near in answer.neighbours]
    assert found == pytest.approx(case["distances"], abs=1e-3)
    exact = distances(np.float32([case["vector"]]), VECTORS)[0, case["rows"]]
    assert exact.tolist() == pytest.approx(case["distances"], abs=1e-6)


def test_golden_gallery_is_what_is_written():
    """Held against the phone page's reader too."""
    text = gallery_text("flowers", bundle_of(None).files["int8"].sha256, gallery())
    assert text == (GOLDEN / "gallery.json").read_text(encoding="utf-8")


def test_answer_is_said_in_every_form(tmp_path):
    bundle = bundle_of(0.75)
    kind = laid_beside(tmp_path, bundle)
    answer = kind.decode(outputs([1, 0, 0]), bundle, np.eye(3))
    text = "\n".join(kind.lines(answer, bundle))
    assert "rose     0.200     yes   rose/2.jpg" in text
    assert "up to a distance of 0.250" in text
    assert kind.cells(answer, bundle) == ["rose", "0.000000", "true", "rose/1.jpg"]
    assert len(kind.columns(bundle)) == 4
    document = kind.document(answer, bundle)
    assert json.loads(json.dumps(document)) == document
    assert document["neighbours"][1]["identity"] == "rose"


def test_without_a_gallery_there_is_a_vector_and_a_hint(tmp_path):
    bundle, kind = bundle_of(0.75), ServedEmbedding().beside(tmp_path)
    answer = kind.decode(outputs([0, 1, 0]), bundle, np.eye(3))
    assert answer.neighbours == ()
    assert answer.vector.tolist() == [0, 1, 0]
    assert "`fieldlens gallery --task" in kind.lines(answer, bundle)[0]
    assert kind.cells(answer, bundle) == ["", "", "", ""]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_sha256": "0" * 64}, "made by another model"),
        ({"vectors_sha256": "0" * 64}, "changed or cut"),
        ({"dimensions": 2}, "changed or cut"),
        ({"pictures": []}, "is no gallery (pictures"),
        ({"schema_version": 2}, "is no gallery (schema_version"),
        ({"vectors": "%"}, "cannot be read"),
    ],
)
def test_gallery_of_another_bundle_or_a_damaged_one_is_refused(change, message, tmp_path):
    bundle = bundle_of(0.75)
    laid_beside(tmp_path, bundle)
    path = gallery_file(tmp_path)
    document = json.loads(path.read_text(encoding="utf-8")) | change
    path.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(BundleError) as caught:
        read_gallery(path, bundle)
    assert message in str(caught.value)
    assert "Make it again with `fieldlens gallery" in str(caught.value)


def test_bundle_of_an_embedding_has_no_labels_and_one_point():
    document = bundle_of(0.5).model_dump()
    with pytest.raises(ValueError, match="labels: an embedding has none, got 1"):
        Bundle.model_validate(document | {"labels": ("rose",)})
    points = {"rose": document["operating_points"][SAME]}
    with pytest.raises(ValueError, match="operating_points: expected same_identity alone"):
        Bundle.model_validate(document | {"operating_points": points})
    shape = {**document["outputs"][0], "shape": (-1, 3, 1)}
    with pytest.raises(ValueError, match=r"outputs\.vector\.shape"):
        Bundle.model_validate(document | {"outputs": (shape, document["outputs"][1])})


def test_evidence_is_the_nearest_other_picture(tmp_path):
    bundle = bundle_of(0.75)
    kind = laid_beside(tmp_path, bundle)
    asked = kind.evidence(outputs([1, 0, 0]), bundle, None)
    # rose/1.jpg is the picture itself.
    assert asked.said == "rose at a distance of 0.200"
    far = distances(np.float32([[0, 1, 0]]), VECTORS)[0, KNOWN["paths"].index("rose/2.jpg")]
    found = asked.score({"vector": np.float32([[1, 0, 0], [0, 1, 0]])})
    assert found == pytest.approx([0.8, 1 - far], abs=1e-3)
    for name in set(KNOWN["identities"]) - {"rose"}:
        assert kind.evidence(outputs([1, 0, 0]), bundle, name).name == name
    with pytest.raises(ValueError, match="no other picture of nobody in the gallery"):
        kind.evidence(outputs([1, 0, 0]), bundle, "nobody")
    with pytest.raises(ValueError, match="fieldlens gallery --task"):
        ServedEmbedding().evidence(outputs([1, 0, 0]), bundle, None)
