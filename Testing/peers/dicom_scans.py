"""DICOM series as scanners write them, and as they should not: a slice a file, or all of them in one object."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from IntraopMRIReconstructionLib.data import Image
from IntraopMRIReconstructionLib.geometry import RAS_FROM_LPS
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid


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
    path.parent.mkdir(parents=True, exist_ok=True)
    header = _shared(EnhancedMRImageStorage, image, series, signed=False)
    lps_from_ijk = RAS_FROM_LPS @ image.ras_from_ijk
    order = list(range(len(image.array))) if order is None else order
    measures, orientation = Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = _spacing(image), float(image.spacing_mm[2])
    measures.SpacingBetweenSlices = float(image.spacing_mm[2])
    orientation.ImageOrientationPatient = _orientation(image)
    everywhere = Dataset()
    everywhere.PixelMeasuresSequence, everywhere.PlaneOrientationSequence = [measures], [orientation]
    header.SharedFunctionalGroupsSequence = Sequence([everywhere])
    frames = []
    for k in order:
        position, content, frame, scale = Dataset(), Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = (lps_from_ijk @ (0, 0, k, 1))[:3].tolist()
        content.FrameAcquisitionDateTime = "20250131100000"
        content.DimensionIndexValues = [1, k + 1]
        scale.RescaleSlope, scale.RescaleIntercept, scale.RescaleType = 1.0, 0.0, "US"
        frame.PlanePositionSequence, frame.FrameContentSequence = [position], [content]
        frame.PixelValueTransformationSequence = [scale]
        frames.append(frame)
    header.PerFrameFunctionalGroupsSequence = Sequence(frames)
    header.NumberOfFrames, header.InstanceNumber = len(order), 1
    header.PixelData = _stored(image.array[order], signed=False)
    for key, value in facts.items():
        setattr(header, key, value)
    save(header, path)
    return path


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
