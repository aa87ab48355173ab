"""DICOM: what the pixels mean, what is refused, and that nobody's name gets out."""

from __future__ import annotations

import logging
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.pixels import apply_windowing
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    RLELossless,
)

from pipelines.data.dicom import grey_levels, patient_key
from pipelines.data.images import glance, open_image
from pipelines.data.pixel_range import Reading
from pipelines.errors import CorruptImageError
from tests import dicom_files as dcm

#: 0 to 4032 from left to right.
RAMP = np.tile(np.arange(64, dtype=np.uint16) * 64, (32, 1))
GREY = (RAMP >> 4).astype(np.uint8)
WINDOW = {"WindowCenter": 2048, "WindowWidth": 4096}


def row(data: bytes, reading: Reading | None = None) -> np.ndarray:
    """The first row of the picture, in grey."""
    opened = open_image(data, name="a.dcm", reading=reading or Reading())
    assert opened.format == "DICOM"
    assert glance(data, side_px=8, reading=reading or Reading()).format == "DICOM"
    pixels = np.asarray(opened.rgb)
    assert (pixels[..., 0] == pixels[..., 1]).all()
    return pixels[0, :, 0].astype(int)


SYNTAXES = [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]


@pytest.mark.parametrize("syntax", [*SYNTAXES, RLELossless, JPEGLSLossless])
def test_every_transfer_syntax_gives_the_same_picture(syntax):
    expected = row(dcm.dicom(RAMP, **WINDOW))
    assert (row(dcm.dicom(RAMP, syntax=syntax, **WINDOW)) == expected).all()
    assert np.abs(expected - np.rint(RAMP[0] / 4095 * 255)).max() <= 1


def test_jpeg_and_jpeg_2000_are_read():
    rgb = np.zeros((32, 64, 3), np.uint8)
    rgb[:, :, 0] = 200
    for data in (
        dcm.in_jpeg(rgb, "YBR_FULL_422"),
        dcm.in_jpeg2000(rgb, 8, "YBR_RCT"),
        dcm.dicom(rgb, 8, "RGB", RLELossless),
        dcm.dicom(rgb, 8, "RGB", PlanarConfiguration=1),
    ):
        colour = open_image(data).rgb.resize((1, 1)).getpixel((0, 0))
        assert np.allclose(colour, (200, 0, 0), atol=4)
    deep = dcm.in_jpeg2000(RAMP, 16, "MONOCHROME2", **WINDOW)
    assert (row(deep) == row(dcm.dicom(RAMP, 16, **WINDOW))).all()


def test_low_is_white_in_monochrome1():
    assert (row(dcm.dicom(GREY, 8, "MONOCHROME1")) == 255 - GREY[0].astype(int)).all()
    reading = Reading(range=(0, 4095))
    inverted = row(dcm.dicom(RAMP, photometric="MONOCHROME1"), reading)
    assert (inverted == 255 - row(dcm.dicom(RAMP), reading)).all()


def test_the_range_of_the_card_is_in_rescaled_values_and_beats_the_window():
    hounsfield = {"RescaleSlope": 1, "RescaleIntercept": -1024}
    reading = Reading(range=(-1024, 1000))
    narrow = {"WindowCenter": 40, "WindowWidth": 80}
    found = row(dcm.dicom(RAMP, **hounsfield, **narrow), reading)
    expected = np.rint(((RAMP[0].astype(int) - 1024).clip(-1024, 1000) + 1024) * 255 / 2024)
    assert np.abs(found - expected).max() <= 1
    # The same scene of another scanner: signed, and another intercept.
    signed = RAMP.astype(np.int16) - 1024
    other = dcm.dicom(signed, 16, RescaleSlope=1, RescaleIntercept=0)
    assert (row(other, reading) == found).all()
    opened = open_image(dcm.dicom(RAMP, **hounsfield), reading=reading)
    assert opened.outside == pytest.approx((RAMP - 1024.0 > 1000).mean())


def test_a_deep_file_without_range_or_window_is_refused():
    with pytest.raises(CorruptImageError, match=r"image\.range"):
        open_image(dcm.dicom(RAMP))
    assert row(dcm.dicom(RAMP), Reading(range="full"))[-1] == round(4032 * 255 / 4095)


@settings(max_examples=60, deadline=None)
@given(
    centre=st.integers(-500, 5_000),
    width=st.integers(2, 6_000),
    function=st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID"]),
    is_signed=st.booleans(),
)
def test_windows_are_those_of_the_standard(centre, width, function, is_signed):
    """pydicom's own formula as the oracle."""
    ds = Dataset()
    ds.WindowCenter, ds.WindowWidth, ds.VOILUTFunction = [centre, 1], [width, 2], function
    ds.PhotometricInterpretation, ds.BitsStored = "MONOCHROME2", 12
    ds.PixelRepresentation = int(is_signed)
    values = np.arange(4096)
    values = np.where(values > 2047, values - 4096, values) if is_signed else values
    low = -2048 if is_signed else 0
    with np.errstate(over="ignore"):
        expected = (apply_windowing(values, ds) - low) / 4095 * 255
    assert np.abs(grey_levels(ds, 12, is_signed) - expected).max() <= 0.51


def test_lookup_tables_are_applied():
    table = Dataset()
    table.LUTDescriptor = [256, 0, 16]
    table.LUTData = np.arange(65_535, -1, -257, dtype="<u2").tobytes()
    inverted = 255 - GREY[0].astype(int)
    assert (row(dcm.dicom(GREY, 8, VOILUTSequence=Sequence([table]))) == inverted).all()
    modality = dcm.dicom(GREY, 8, ModalityLUTSequence=Sequence([table]))
    assert np.abs(row(modality, Reading(range="full")) - inverted).max() <= 1


def test_bits_beside_those_stored_do_not_count():
    overlay = RAMP | 0xF000
    assert (row(dcm.dicom(overlay, 12, **WINDOW)) == row(dcm.dicom(RAMP, 12, **WINDOW))).all()


REFUSED = {
    "frames": (dcm.dicom(GREY, 8, NumberOfFrames="2"), "more than one frame"),
    "none": (dcm.written(dcm.dataset()), "DICOM without pixel data"),
    "zero": (dcm.dicom(GREY, 8, Rows=0), "0 pixels"),
    "hsv": (dcm.dicom(GREY, 8, PhotometricInterpretation="HSV"), "photometric"),
    "three bytes": (
        dcm.dicom(GREY, 8).replace(b"\x10\0US\2\0\x20\0", b"\x10\0US\3\0\x20\0\0"),
        "damaged",
    ),
    "short": (dcm.dicom(GREY, 8, Rows=64), "damaged"),
    "lossless": (
        dcm.dicom(GREY, 8, syntax="1.2.840.10008.1.2.4.70", frame=b"\xff\xd8" * 9),
        "JPEG Lossless.*pip install python-gdcm",
    ),
    "mpeg": (dcm.dicom(GREY, 8, syntax="1.2.840.10008.1.2.4.100", frame=b"\0" * 8), "MPEG2"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_read_is_refused_in_one_line_without_a_word_of_the_header(case):
    data, reason = REFUSED[case]
    with pytest.raises(CorruptImageError, match=reason) as caught:
        open_image(data, name="a.dcm")
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert not any(secret in str(caught.value) for secret in dcm.SECRETS)


@pytest.mark.parametrize(
    ("uid", "words"),
    [
        ("1.2.840.10008.1.3.10", "Media Storage Directory"),
        ("1.2.840.10008.5.1.4.1.1.88.11", "Basic Text SR"),
        ("1.2.3.99.7781", "DICOM without pixel data"),
    ],
)
def test_a_directory_or_a_report_is_named(uid, words):
    ds = dcm.dataset()
    ds.SOPClassUID = uid
    with pytest.raises(CorruptImageError, match=words) as caught:
        open_image(dcm.written(ds))
    assert "7781" not in caught.value.reason


def test_damage_does_not_quote_the_header_nor_log_it(caplog, capfd):
    data = dcm.dicom(RAMP, **WINDOW)
    caplog.set_level(logging.DEBUG)
    said: list[str] = []
    for place in range(140, len(data) - 4000, 7):
        spoilt = bytearray(data)
        spoilt[place] ^= 0x5A
        try:
            open_image(bytes(spoilt), name="a.dcm")
        except CorruptImageError as err:
            said.append(str(err))
    assert len(said) > 5
    said += [caplog.text, *capfd.readouterr()]
    assert not any(secret in "".join(said) for secret in dcm.SECRETS)


def test_patients_are_told_apart_by_a_salted_hash():
    one, same, other = (
        dcm.written(dcm.dataset(patient)) for patient in ("MRN-7781-QX", "MRN-7781-QX ", "MRN-2")
    )
    salt = b"s" * 16
    assert patient_key(one, salt) == patient_key(same, salt) != patient_key(other, salt)
    assert patient_key(one, salt) != patient_key(one, b"t" * 16)
    assert "7781" not in patient_key(one, salt)
    assert patient_key(dcm.written(dcm.dataset("")), salt) is None


def test_without_the_extra_one_line_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydicom.filereader", None)
    with pytest.raises(CorruptImageError, match=r"DICOM; pip install 'fieldlens\[dicom\]'"):
        open_image(dcm.dicom(RAMP, **WINDOW))
