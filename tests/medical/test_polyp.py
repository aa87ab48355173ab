from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from pipelines.card import SampleSource, load_card
from pipelines.kinds.segmentation.masks import MaskFile
from pipelines.samples import polyp
from pipelines.samples.folder import write_sample
from pipelines.tasks import load_task
from tests.published_set import PATHS

SIDE_PX = 96


def painted(subject: int, shot: int) -> tuple[np.ndarray, np.ndarray]:
    """Picture and mask of the same draws."""
    both = (polyp.paint, polyp.mask)
    picture, mask = (
        paint("polyp", np.random.default_rng(subject), np.random.default_rng(shot), SIDE_PX)
        for paint in both
    )
    return np.asarray(picture).astype(float), np.asarray(mask)


@pytest.fixture(scope="module")
def frames() -> list[tuple[np.ndarray, np.ndarray]]:
    return [painted(subject, subject + 50) for subject in range(30)]


def test_masks_are_binary_and_some_frames_show_nothing(frames):
    masks = [mask for _, mask in frames]
    assert all(set(np.unique(mask)) <= {0, 255} for mask in masks)
    shown = [mask.any() for mask in masks]
    assert 20 <= sum(shown) < 30
    areas = [(mask > 0).mean() for mask in masks if mask.any()]
    assert min(areas) < 0.06 < 0.12 < max(areas)


def test_what_the_mask_shows_is_redder_than_the_wall(frames):
    redder = []
    for picture, mask in frames:
        if not mask.any():
            continue
        share = picture[..., 0] / picture.sum(axis=2).clip(1)
        redder.append(share[mask > 0].mean() - share[mask == 0].mean())
    assert np.mean(np.array(redder) > 0) > 0.95


def test_a_mask_is_cut_and_stored_with_its_picture(tmp_path):
    card = load_card(PATHS.task("polyp").card)
    source = SampleSource(kind="sample", images_per_class=24, images_per_group=3, side_px=SIDE_PX)
    write_sample(tmp_path, polyp.paint, card, source, 5, card.labels)
    records = load_task("medical", "polyp").records(tmp_path, card)
    assert len(records) == 27  # a copy, a near duplicate and one that is cut off besides
    forms = {record.path.rpartition(".")[2] for record in records}
    assert forms == {"jpg", "png"}
    for record in records:
        if "_cut" in record.path:
            continue
        mask = Image.open(io.BytesIO((tmp_path / MaskFile.of(record.truth).path).read_bytes()))
        with Image.open(tmp_path / record.path) as picture:
            turned = picture.getexif().get(0x0112) == 6
            assert mask.size == (picture.size[::-1] if turned else picture.size)


def test_published_layout_is_read_by_sequence(tmp_path):
    for folder, value in (("images", 90), ("masks", 255)):
        (tmp_path / folder).mkdir()
        for name in ("001.png", "002.png"):
            Image.new("L", (40, 30), value).save(tmp_path / folder / name)
    text = (
        "path,mask,group\nimages/001.png,masks/001.png,seq01\nimages/002.png,masks/002.png,seq01\n"
    )
    (tmp_path / "records.csv").write_text(text, encoding="utf-8")
    records = load_task("medical", "polyp").records(tmp_path, load_card(PATHS.task("polyp").card))
    assert [(record.group, record.label) for record in records] == [("seq01", "shown")] * 2
