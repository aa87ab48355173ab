from __future__ import annotations

import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from pipelines.errors import ConfigError, CorruptImageError
from pipelines.training.cached import Slot, cached_activations, plain_slots, train_slots

SLOTS = [Slot(0, "fp32"), Slot(1, "fp32"), Slot(2, "fp32")]


@pytest.fixture
def stored(splits, trunk, tmp_path):
    """Makes the activations of the train split; keyword arguments change what is asked for."""

    def make(**changes):
        train = splits[0]
        settings = {
            "split": replace(train, pictures=changes.pop("pictures", train.pictures)),
            "slots": SLOTS,
            "trunks": {"fp32": trunk},
            "cache_dir": tmp_path / "cache",
            "max_bytes": 10**8,
            "what": "tiny: train",
            **changes,
        }
        return cached_activations(**settings)

    return make


def folders(tmp_path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "cache").iterdir())


@pytest.mark.parametrize(
    ("n_views", "share", "expected"),
    [
        (0, 0.0, [(0, "fp32")]),
        (0, 1.0, [(0, "int8")]),
        (2, 0.0, [(0, "fp32"), (1, "fp32"), (2, "fp32")]),
        (2, 1.0, [(0, "int8"), (1, "int8"), (2, "int8")]),
        (3, 1 / 3, [(0, "fp32"), (0, "int8"), (1, "int8"), (2, "fp32"), (3, "fp32")]),
    ],
)
def test_slots_are_the_plain_view_in_each_precision_then_random_ones(n_views, share, expected):
    assert train_slots(n_views, share) == [Slot(*each) for each in expected]
    assert plain_slots(share) == [Slot(*each) for each in expected if each[0] == 0]
    random = [Slot(*each) for each in expected if each[0] > 0]
    assert train_slots(n_views, share, has_plain=False) == random


def test_stored_activations_are_those_of_the_trunk(stored, splits, net, normalise):
    activations = stored()
    pictures = splits[0].pictures
    assert activations.values.shape[:2] == (12, 3)
    assert activations.values.dtype == np.float16
    net.eval()
    for row, entry in enumerate(pictures.entries):
        pixels = torch.from_numpy(pictures.views(entry, [1, 2]))
        with torch.inference_mode():
            expected = net.trunk(normalise(pixels))
        got = activations.take(np.full(3, row), np.arange(3))
        # Half precision keeps 11 bits.
        assert got.dtype == torch.float32
        assert torch.allclose(got, expected, rtol=2e-3, atol=2e-3)
    assert float(expected.abs().max()) > 0.1


def test_take_picks_rows_and_slots_together(stored):
    activations = stored()
    got = activations.take(np.array([5, 0]), np.array([2, 1]))
    assert np.array_equal(got[0].numpy(), activations.values[5, 2].astype(np.float32))
    assert np.array_equal(got[1].numpy(), activations.values[0, 1].astype(np.float32))
    assert got.is_contiguous(memory_format=torch.channels_last)


def test_int8_slots_go_through_the_int8_trunk(stored, splits, trunk, monkeypatch):
    from pipelines.export.quantize import quantized_trunk

    # The tiny trunk has two blocks; one of them must be left to quantise.
    monkeypatch.setattr("pipelines.export.quantize._FLOAT_BLOCKS", 1)

    pixels = list(splits[0].pictures.batches(16))
    trunks = {"fp32": trunk, "int8": quantized_trunk(trunk, pixels)}
    both = stored(trunks=trunks, slots=[Slot(0, "fp32"), Slot(0, "int8")])
    fp32, int8 = both.values[:, 0].astype(float), both.values[:, 1].astype(float)
    gap = np.abs(fp32 - int8).mean() / np.abs(fp32).mean()
    assert 1e-4 < gap < 0.2
    assert np.array_equal(both.values[:, :1], stored(slots=[Slot(0, "fp32")]).values)


def test_second_time_comes_from_the_cache(stored, splits, tmp_path):
    first = np.array(stored().values)
    # With the images gone nothing can be computed anew.
    shutil.rmtree(splits[0].pictures.raw_dir)
    again = stored()
    assert np.array_equal(again.values, first)
    assert again.slots == SLOTS
    with pytest.raises(CorruptImageError):
        stored(slots=SLOTS[:2])


def test_key_changes_with_all_that_matters(stored, splits, trunk, tmp_path):
    pictures = splits[0].pictures
    stored()
    other_augment = pictures.augment.model_copy(update={"rotate_deg": 3.0})
    other_bytes = [replace(pictures.entries[0], sha256="0" * 64), *pictures.entries[1:]]
    import onnx

    other_trunk = onnx.load_from_string(trunk)
    other_trunk.doc_string = "another"
    for n_known, changes in enumerate(
        (
            {"pictures": replace(pictures, augment=other_augment)},
            {"pictures": replace(pictures, seed=6)},
            {"pictures": replace(pictures, entries=pictures.entries[1:])},
            {"pictures": replace(pictures, entries=other_bytes)},
            {"pictures": replace(pictures, preprocess=replace(pictures.preprocess, resize_px=40))},
            {"slots": SLOTS[:2]},
            {"trunks": {"fp32": other_trunk.SerializeToString()}},
        ),
        start=1,
    ):
        assert len(folders(tmp_path)) == n_known
        stored(**changes)
        assert len(folders(tmp_path)) == n_known + 1, changes


def test_plain_views_are_shared_by_seeds_and_augmentations(stored, splits, tmp_path):
    pictures = splits[0].pictures
    stored(slots=SLOTS[:1])
    stored(slots=SLOTS[:1], pictures=replace(pictures, seed=6, augment=None))
    assert len(folders(tmp_path)) == 1


def test_too_large_a_split_is_refused_before_any_work(stored, tmp_path):
    with pytest.raises(ConfigError, match=r"train\.max_cache_bytes: .*tiny: train") as caught:
        stored(max_bytes=1000)
    assert "Lower train.views" in str(caught.value)
    assert "at most 1,000" in str(caught.value)
    assert not (tmp_path / "cache").exists()


def test_bound_is_the_size_of_the_activations(stored):
    n_bytes = int(np.prod(stored().values.shape)) * 2
    with pytest.raises(ConfigError):
        stored(max_bytes=n_bytes - 1, slots=[*SLOTS[:2], Slot(3, "fp32")])
    stored(max_bytes=n_bytes, slots=[*SLOTS[:2], Slot(3, "fp32")])


def test_least_recently_used_split_goes_first(stored, splits, tmp_path):
    pictures = splits[0].pictures
    size = 0
    names = []
    for seed in (1, 2, 3):
        stored(pictures=replace(pictures, seed=seed))
        (new,) = set(folders(tmp_path)) - set(names)
        names.append(new)
        folder = tmp_path / "cache" / new
        size = sum(file.stat().st_size for file in folder.iterdir())
        os.utime(folder / "meta.json", (seed * 1000, seed * 1000))
    # The first is used again; then the second is the one that was not used for longest.
    stored(pictures=replace(pictures, seed=1))
    stored(pictures=replace(pictures, seed=4), max_bytes=3 * size + 100)
    left = folders(tmp_path)
    assert names[0] in left
    assert names[1] not in left
    assert names[2] in left
    assert len(left) == 3


def test_build_that_ends_half_way_is_not_taken_for_whole(stored, splits, tmp_path):
    pictures = splits[0].pictures
    victim = pictures.raw_dir / pictures.entries[7].path
    data = victim.read_bytes()
    victim.write_bytes(b"gone bad")
    with pytest.raises(CorruptImageError, match=victim.name):
        stored()
    assert folders(tmp_path) == []
    victim.write_bytes(data)
    whole = stored().values
    assert np.abs(whole.astype(float)).reshape(12, -1).max(axis=1).min() > 0


def test_folder_without_its_last_file_is_made_anew(stored, tmp_path):
    expected = np.array(stored().values)
    (name,) = folders(tmp_path)
    folder = tmp_path / "cache" / name
    (folder / "meta.json").unlink()
    (folder / "values.npy").write_bytes(b"half")
    assert np.array_equal(stored().values, expected)
    assert folders(tmp_path) == [name]
