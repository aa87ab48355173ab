from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines import cli
from pipelines.card import DatasetCard
from pipelines.data.manifest import read_manifest
from pipelines.errors import DataError
from pipelines.kinds.segmentation.masks import MaskFile
from pipelines.kinds.segmentation.prepare import PreparedSegmentation
from tests.kinds.segmentation.spots import LABELS, card_of, paint, project

KIND = PreparedSegmentation()


@pytest.fixture
def raw(tmp_path) -> Path:
    """Twelve pictures with masks, and nothing else."""
    paint(tmp_path / "raw", 12)
    return tmp_path / "raw"


def card(**changes: object) -> DatasetCard:
    return card_of().model_copy(update=changes)


def test_records_have_truth_group_and_size(raw):
    records = {record.path: record for record in KIND.records(raw, card())}
    assert len(records) == 12
    masks = {path: MaskFile.of(record.truth) for path, record in records.items()}
    assert masks["images/03.png"].path == "masks/03.png"
    assert {record.group for record in records.values()} == {f"g{n}" for n in range(6)}
    shown = [path for path, record in records.items() if record.label == "shown"]
    assert {path for path in records if path not in shown} == {"images/00.png", "images/06.png"}
    areas = sorted((sum(masks[path].shares), masks[path].size) for path in shown)
    assert [size for _, size in areas].count("small") == 4
    assert [size for _, size in areas] == ["small"] * 4 + ["middle"] * 3 + ["large"] * 3
    assert KIND.strata(records["images/00.png"]) == ("nothing",)
    assert KIND.strata(records[shown[0]])[0] == "shown"


def test_without_a_table_each_picture_is_a_group(raw):
    (raw / "records.csv").unlink()
    records = KIND.records(raw, card())
    assert len({record.group for record in records}) == 12


def test_a_table_may_name_the_masks(raw):
    (raw / "masks").rename(raw / "truth")
    rows = [f"images/{n:02d}.png,truth/{n:02d}.png,g{n}" for n in range(12)]
    (raw / "records.csv").write_text("path,mask,group\n" + "\n".join(rows), encoding="utf-8")
    assert MaskFile.of(KIND.records(raw, card())[4].truth).path == "truth/04.png"


def _no_mask(raw: Path) -> None:
    (raw / "masks/04.png").unlink()


def _no_picture(raw: Path) -> None:
    paint_mask(raw / "masks/99.png", (44, 60))


def _two_masks(raw: Path) -> None:
    (raw / "images/masks").mkdir()
    paint_mask(raw / "images/masks/04.png", (44, 60))


def _other_size(raw: Path) -> None:
    paint_mask(raw / "masks/04.png", (22, 30))


def _turned(raw: Path) -> None:
    paint_mask(raw / "masks/04.png", (60, 44))


def _channels(raw: Path) -> None:
    Image.new("RGB", (60, 44)).save(raw / "masks/04.png")


def _grey_edges(raw: Path) -> None:
    values = np.tile(np.arange(60, dtype=np.uint8), (44, 1))
    Image.fromarray(values).save(raw / "masks/04.png")


def _empty(raw: Path) -> None:
    for file in (*raw.rglob("*.png"), raw / "records.csv"):
        file.unlink()


def paint_mask(file: Path, shape: tuple[int, int]) -> None:
    Image.fromarray(np.zeros(shape, dtype=np.uint8)).save(file)


BAD = [
    (_no_mask, "1 of 12 pictures have no mask ('images/04.png')"),
    (_no_picture, "1 of 13 masks belong to no picture ('masks/99.png')"),
    (_two_masks, "may have each of the masks 'images/masks/04.png', 'masks/04.png'"),
    (_other_size, "the mask has 30 x 22 px. Expected 60 x 44 px, as the upright picture"),
    (_turned, "the mask has 44 x 60 px. Expected 60 x 44 px"),
    (_channels, "the mask has several channels or 16 bits (mode RGB)"),
    (_grey_edges, "the mask has grey edges: 60 values"),
    (_empty, "no image was found"),
]


@pytest.mark.parametrize(("spoil", "message"), BAD)
def test_bad_masks_are_one_line_and_leave_nothing(tmp_path, spoil, message, capsys):
    paths = project(tmp_path / "project", 12)
    files = paths.task("spots")
    spoil(files.raw_dir)
    with pytest.raises(DataError) as caught:
        KIND.records(files.raw_dir, card_of())
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert cli.main(["prepare", "spots", "--root", str(paths.root)]) == 2
    assert message in capsys.readouterr().err
    assert not files.prepared_dir.exists()


def test_a_mask_fits_the_upright_picture(raw):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = Image.open(raw / "images/04.png").convert("RGB")
    (raw / "images/04.png").unlink()
    turned = picture.transpose(Image.Transpose.ROTATE_90)
    turned.save(raw / "images/04.jpg", exif=exif, quality=95)
    text = (raw / "records.csv").read_text(encoding="utf-8")
    (raw / "records.csv").write_text(text.replace("04.png", "04.jpg"), encoding="utf-8")
    assert len(KIND.records(raw, card())) == 12


def test_splits_hold_each_size_and_copies_are_left_out(tmp_path):
    paths = project(tmp_path / "project", 40)
    files = paths.task("spots")
    for folder in ("images", "masks"):
        data = (files.raw_dir / folder / "05.png").read_bytes()
        (files.raw_dir / folder / "90.png").write_bytes(data)
    table = files.raw_dir / "records.csv"
    table.write_text(table.read_text(encoding="utf-8") + "images/90.png,g90\n", encoding="utf-8")
    assert cli.main(["prepare", "spots", "--root", str(paths.root)]) == 0
    entries = read_manifest(files.manifest)
    assert len(entries) == 40
    held = {(entry.split, MaskFile.of(entry.truth).size) for entry in entries}
    assert len(held) == 12  # three splits, three sizes and none
    assert len({(entry.group, entry.split) for entry in entries}) == 20


def test_a_set_may_lack_pictures_that_show_nothing(tmp_path):
    paths = project(tmp_path / "project", 40)
    files = paths.task("spots")
    table = files.raw_dir / "records.csv"
    lines = table.read_text(encoding="utf-8").splitlines()
    for number in range(0, 40, 6):
        for folder in ("images", "masks"):
            (files.raw_dir / folder / f"{number:02d}.png").unlink()
    gone = tuple(f"images/{number:02d}.png" for number in range(0, 40, 6))
    kept = [line for line in lines if not line.startswith(gone)]
    table.write_text("\n".join(kept) + "\n", encoding="utf-8")
    assert cli.main(["prepare", "spots", "--root", str(paths.root)]) == 0
    assert {entry.label for entry in read_manifest(files.manifest)} == {"shown"}
    assert [sheet.stem for sheet in files.contact_dir.iterdir()] == ["shown"]


def test_pictures_are_filed_under_whether_anything_is_shown():
    assert KIND.names(LABELS) == ("shown", "nothing")
