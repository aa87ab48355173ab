"""DICOM files with made-up people in their headers, written by hand."""

from __future__ import annotations

import io
import warnings

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

from tests.image_files import encode

#: What must not be found in anything that the product writes: each is in every header.
SECRETS = (
    *("Quintessa^Marrowbone", "MRN-7781-QX", "19470911", "Dr^Thistlewick", "StElsewhere"),
    *("ACC-55512", "Basement-Scan-3", "hardly any signs of zorblatt"),
)
DIGITAL_RADIOGRAPH = "1.2.840.10008.5.1.4.1.1.1.1"


def dataset(patient: str = SECRETS[1]) -> Dataset:
    """A header full of names, without pixels."""
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = DIGITAL_RADIOGRAPH, "1.2.826.0.1.3680043.8.498.7"
    ds.PatientName, ds.PatientID, ds.PatientBirthDate = SECRETS[0], patient, SECRETS[2]
    ds.ReferringPhysicianName, ds.InstitutionName = SECRETS[3], SECRETS[4]
    ds.AccessionNumber, ds.StationName, ds.ImageComments = SECRETS[5], SECRETS[6], SECRETS[7]
    return ds


def pixels_of(array: np.ndarray, bits: int, photometric: str, **elements: object) -> Dataset:
    """The elements that describe an array; without the array."""
    ds = dataset()
    ds.Rows, ds.Columns = array.shape[:2]
    ds.SamplesPerPixel = 3 if array.ndim == 3 else 1
    if array.ndim == 3:
        ds.PlanarConfiguration = 0
    ds.PhotometricInterpretation = photometric
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 8 * array.dtype.itemsize, bits, bits - 1
    ds.PixelRepresentation = int(array.dtype.kind == "i")
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    return ds


def written(ds: Dataset, syntax: str = ExplicitVRLittleEndian) -> bytes:
    """A dataset as a file."""
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def dicom(
    array: np.ndarray,
    bits: int = 12,
    photometric: str = "MONOCHROME2",
    syntax: str = ExplicitVRLittleEndian,
    frame: bytes | None = None,
    **elements: object,
) -> bytes:
    """A file with (h, w) or (h, w, 3) pixels of 8 or 16 bits.

    ``frame``: they are compressed already; else pydicom compresses them. ``elements``: more of the
    header, by keyword.
    """
    ds = pixels_of(array, bits, photometric, **elements)
    if frame is not None:
        ds.PixelData = encapsulate([frame])
        ds["PixelData"].VR = "OB"
        ds["PixelData"].is_undefined_length = True
        return written(ds, syntax)
    if syntax in {RLELossless, JPEGLSLossless}:
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.PixelData = array.tobytes()
        ds.compress(syntax, array)
        return written(ds, syntax)
    planes = array.transpose(2, 0, 1) if elements.get("PlanarConfiguration") else array
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    ds.PixelData = planes.astype(array.dtype.newbyteorder(order)).tobytes()
    ds["PixelData"].VR = "OW" if array.dtype.itemsize > 1 else "OB"
    return written(ds, syntax)


def as_jpeg(array: np.ndarray) -> bytes:
    """A frame of JPEG."""
    return encode(Image.fromarray(array), "JPEG", quality=95)


def in_jpeg(array: np.ndarray, photometric: str) -> bytes:
    """A file compressed as JPEG."""
    return dicom(array, 8, photometric, JPEGBaseline8Bit, as_jpeg(array))


def in_jpeg2000(array: np.ndarray, bits: int, photometric: str, **elements: object) -> bytes:
    """A file compressed as JPEG 2000, without loss."""
    frame = encode(Image.fromarray(array), "JPEG2000", no_jp2=True)
    return dicom(array, bits, photometric, JPEG2000Lossless, frame, **elements)
