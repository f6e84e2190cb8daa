"""DICOM series as scanners write them, and as they should not: a slice a file, or all of them in one object."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import SimpleITK
from IntraopMRILib.report.dicom.source import UNKNOWN, Source, source_of
from IntraopMRIReconstructionLib.data import Image
from IntraopMRIReconstructionLib.geometry import RAS_FROM_LPS
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    JPEGLSLossless,
    MRImageStorage,
    RLELossless,
    generate_uid,
)

from .dicom_case import grid


def picture(directions: np.ndarray | None = None, shape: tuple[int, ...] = (9, 12, 15)) -> Image:
    """A small scan of whole numbers."""
    values = np.random.default_rng(3).integers(0, 3000, shape).astype(np.float64)
    return Image(values, grid(np.eye(3) if directions is None else directions), "T1", None, "P-1")


def change(folder: Path, work: Callable[[int, Dataset], None]) -> Path:
    """Rewrite every file of a series."""
    for number, path in enumerate(sorted(folder.glob("*.dcm"))):
        header = pydicom.dcmread(path)
        work(number, header)
        save(header, path)
    return folder


def origin(image: Image) -> Source:
    """Where the image is kept, which it must say."""
    source = source_of(image.metadata)
    assert source is not None, image.metadata.get(UNKNOWN)
    return source


def assert_same(image: Image, truth: Image, atol: float = 0.0) -> None:
    """Same values at the same places; slices may come in the other order."""
    back = image.ras_from_ijk[:3, 2] @ truth.ras_from_ijk[:3, 2] < 0
    start = truth.ras_from_ijk[:3, 3] + (len(truth.array) - 1) * truth.ras_from_ijk[:3, 2] * back
    np.testing.assert_allclose(image.ras_from_ijk[:3, 3], start, atol=1e-4)
    np.testing.assert_allclose(image.ras_from_ijk[:3, :2], truth.ras_from_ijk[:3, :2], atol=1e-6)
    np.testing.assert_allclose(image.array, truth.array[::-1] if back else truth.array, atol=atol)


def write_series(
    folder: Path, image: Image, series: str = "T1", slope: float = 1.0, signed: bool = False, **facts: Any
) -> Path:
    """One slice a file. ``slope``: of the stored numbers, which are the voxels divided by it, rounded."""
    folder.mkdir(parents=True)
    shared = _shared(MRImageStorage, image, series, signed)
    if slope != 1.0:
        shared.RescaleSlope, shared.RescaleIntercept = slope, 0.0
    lps_from_ijk = RAS_FROM_LPS @ image.ras_from_ijk
    for k, plane in enumerate(image.array):
        header = _own(shared)
        header.PixelSpacing = _spacing(image)
        header.SliceThickness, header.InstanceNumber = float(image.spacing_mm[2]), k + 1
        header.ImageOrientationPatient = _orientation(image)
        header.ImagePositionPatient = (lps_from_ijk @ (0, 0, k, 1))[:3].tolist()
        header.PixelData = _stored(plane / slope, signed)
        for key, value in facts.items():
            setattr(header, key, value)
        save(header, folder / f"{k:03d}.dcm")
    return folder


def write_enhanced(path: Path, image: Image, series: str = "T1", order: list[int] | None = None, **facts: Any) -> Path:
    """All slices as frames of one Enhanced MR object, in ``order``."""
    order = list(range(len(image.array))) if order is None else order
    return write_frames(path, [(image, k, 1.0, {}) for k in order], series, **facts)


def write_frames(
    path: Path, slices: Sequence[tuple[Image, int, float, Mapping[str, Dataset]]], series: str = "T1", **facts: Any
) -> Path:
    """Frames of one Enhanced MR object: slice of an image, slope that it is stored with, what else its groups say."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = slices[0][0]
    header = _shared(EnhancedMRImageStorage, image, series, signed=False)
    lps_from_ijk = RAS_FROM_LPS @ image.ras_from_ijk
    measures, orientation = Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = _spacing(image), float(image.spacing_mm[2])
    measures.SpacingBetweenSlices = float(image.spacing_mm[2])
    orientation.ImageOrientationPatient = _orientation(image)
    everywhere = Dataset()
    everywhere.PixelMeasuresSequence, everywhere.PlaneOrientationSequence = [measures], [orientation]
    header.SharedFunctionalGroupsSequence = [everywhere]
    frames = []
    for _image, k, slope, groups in slices:
        position, content, frame, scale = Dataset(), Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = (lps_from_ijk @ (0, 0, k, 1))[:3].tolist()
        content.FrameAcquisitionDateTime = "20250131100000"
        content.DimensionIndexValues = [1, k + 1]
        scale.RescaleSlope, scale.RescaleIntercept, scale.RescaleType = slope, 0.0, "US"
        frame.PlanePositionSequence, frame.FrameContentSequence = [position], [content]
        frame.PixelValueTransformationSequence = [scale]
        for name, group in groups.items():
            if name == "FrameContentSequence":
                content.update(group)
            else:
                setattr(frame, name, [group])
        frames.append(frame)
    header.PerFrameFunctionalGroupsSequence = frames
    header.NumberOfFrames, header.InstanceNumber = len(frames), 1
    header.PixelData = b"".join(_stored(image.array[k] / slope, signed=False) for image, k, slope, _groups in slices)
    for key, value in facts.items():
        setattr(header, key, value)
    save(header, path)
    return path


def compressed(path: Path, how: str) -> str:
    """Write an object anew as archives keep it, without loss; returns the name of its transfer syntax."""
    header = pydicom.dcmread(path)
    if how == "deflated":
        header.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    elif how == "RLE":
        header.compress(RLELossless, generate_instance_uid=False)
    elif how == "JPEG-LS":
        header.compress(JPEGLSLossless, generate_instance_uid=False)
    else:
        frames = header.pixel_array.reshape(-1, header.Rows, header.Columns)
        coded = [_coded(frame, how, path.with_suffix(".coded")) for frame in frames]
        header.file_meta.TransferSyntaxUID = coded[0][1]
        header.PixelData = encapsulate([data for data, _syntax in coded])
        header["PixelData"].VR = "OB"
    header.save_as(path, enforce_file_format=True)
    return str(header.file_meta.TransferSyntaxUID.name)


def _coded(frame: np.ndarray, how: str, path: Path) -> tuple[bytes, UID]:
    """One picture as GDCM codes it, with its transfer syntax."""
    writer = SimpleITK.ImageFileWriter()
    writer.SetImageIO("GDCMImageIO")
    writer.SetFileName(str(path))
    writer.UseCompressionOn()
    writer.SetCompressor(how)
    writer.Execute(SimpleITK.GetImageFromArray(frame[None]))
    made = pydicom.dcmread(path)
    path.unlink()
    return next(generate_frames(made.PixelData, number_of_frames=1)), made.file_meta.TransferSyntaxUID


def save(header: Dataset, path: Path) -> None:
    """Write an object under the identity that it has now."""
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID
    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
    header.save_as(path, enforce_file_format=True)


def _shared(sop_class: str, image: Image, series: str, signed: bool) -> Dataset:
    header = Dataset()
    header.SOPClassUID, header.SOPInstanceUID = sop_class, generate_uid()
    header.PatientID, header.PatientName = image.patient_id, "Doe^Jane"
    header.StudyInstanceUID, header.SeriesInstanceUID = generate_uid(), generate_uid()
    header.FrameOfReferenceUID = generate_uid()
    header.Modality, header.SeriesDescription, header.SeriesNumber = "MR", series, 7
    header.ImageType = ["ORIGINAL", "PRIMARY", "M"]
    header.Rows, header.Columns = image.array.shape[1:]
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 16, 16, 15, int(signed)
    return header


def _own(shared: Dataset) -> Dataset:
    made = Dataset()
    made.update(shared)
    del made.SOPInstanceUID
    made.SOPInstanceUID = generate_uid()
    return made


def _spacing(image: Image) -> list[float]:
    return [float(image.spacing_mm[1]), float(image.spacing_mm[0])]


def _orientation(image: Image) -> list[float]:
    axes = (RAS_FROM_LPS @ image.ras_from_ijk)[:3, :3] / image.spacing_mm
    return [*axes[:, 0].tolist(), *axes[:, 1].tolist()]


def _stored(values: np.ndarray, signed: bool) -> bytes:
    return np.rint(values).astype("<i2" if signed else "<u2").tobytes()
