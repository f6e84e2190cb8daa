"""A volume as a series of MR Image Storage slices.

Not Enhanced MR: that requires sequence facts which a volume off the wire does not carry, and the classic slices are
what every archive, Slicer and ITK read with the same geometry. The pulse sequence is given as 'research mode'.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from IntraopMRIReconstructionLib.data import AnyArray, Image
from IntraopMRIReconstructionLib.errors import DataError
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import MRImageStorage
from pydicom.valuerep import DSfloat

from .case import MANUFACTURER, MODEL, RESEARCH, Case, decimals, header, lps_grid
from .codes import PROCESSING_EQUIPMENT, item

#: Largest value of an unsigned 16-bit voxel.
LARGEST = 65535
#: Text that describes (VR ST) has at most this many characters.
LONGEST_TEXT = 1024


def series_of(case: Case, image: Image, number: int, frame_uid: str, role: str) -> list[Dataset]:
    """Every slice of a volume without its voxels, along k; :func:`with_voxels` adds them.

    ``role``: native, contrast or preoperative. Raises DataError for what MR slices cannot hold.
    """
    if image.array.ndim != 3:
        raise DataError(
            f"'{image.name}' holds {image.array.shape[-1]} values a voxel: only grey values become MR slices"
        )
    lps_from_ijk, axes, spacing = lps_grid(image)
    stored, slope, intercept = stored_voxels(image.array)
    content = case.uid("volume", image.uid, stored.tobytes(), lps_from_ijk.tobytes())
    series_uid = case.series_uid(image)
    words = f"{image.name or role}, {'before surgery' if role == 'preoperative' else 'intraoperative'} (research)"
    shared = header(case, MRImageStorage, "", "MR", (series_uid, number, words))
    shared.FrameOfReferenceUID = frame_uid
    shared.PositionReferenceIndicator = shared.PatientPosition = shared.Laterality = ""
    made_here = "input_sha256" in image.metadata
    shared.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"] if made_here else ["DERIVED", "SECONDARY", "OTHER"]
    shared.ScanningSequence, shared.SequenceVariant, shared.ScanOptions = "RM", "NONE", ""
    shared.MRAcquisitionType = shared.EchoTime = shared.RepetitionTime = shared.EchoTrainLength = None
    if image.metadata.get("field_t"):
        shared.MagneticFieldStrength = decimals(float(image.metadata["field_t"]))[0]
    if image.metadata.get("protocol"):
        shared.ProtocolName = image.metadata["protocol"][:64]
    if role == "contrast":
        shared.ContrastBolusAgent = (image.metadata.get("ContrastBolusAgent") or "not specified")[:64]
    if image.acquired_utc_s is not None:
        taken = next(e["acquired_utc"] for e in case.document["images"] if e["uid"] == image.uid)
        shared.AcquisitionDate, shared.AcquisitionTime = case.moment(taken)
    shared.ImageComments = RESEARCH
    shared.DerivationDescription = provenance(image)[:LONGEST_TEXT]
    shared.ContributingEquipmentSequence = [_equipment(case, image)]
    _describe_pixels(shared, stored, slope, intercept)
    shared.ImageOrientationPatient = decimals(axes[:, :2].T)
    shared.PixelSpacing = decimals(spacing[[1, 0]])
    shared.SliceThickness = shared.SpacingBetweenSlices = decimals(spacing[2])[0]
    # Slices share the elements of this one: what differs must not be among them.
    del shared.SOPInstanceUID, shared.InstanceNumber, shared.file_meta.MediaStorageSOPInstanceUID
    return [_slice(case, shared, lps_from_ijk, k, content) for k in range(len(stored))]


def with_voxels(slices: list[Dataset], image: Image) -> Iterator[Dataset]:
    """The same slices one by one, each with its voxels for as long as it is looked at."""
    stored = stored_voxels(image.array)[0]
    for plane, voxels in zip(slices, stored, strict=True):
        plane.PixelData = voxels.tobytes()
        yield plane
        del plane.PixelData


def stored_voxels(array: AnyArray) -> tuple[npt.NDArray[np.uint16], float, float]:
    """(voxels as uint16, slope, intercept): value = slope x stored + intercept, off by at most half a slope.

    Whole numbers that fit stay what they are. Raises DataError for values that are not finite.
    """
    low, high = float(array.min()), float(array.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise DataError("the volume holds voxels that are not numbers (NaN or infinite): reconstruct it again")
    if array.dtype.kind in "iub" and low >= 0 and high <= LARGEST:
        return array.astype("<u2"), 1.0, 0.0
    intercept = float(decimals(min(low, 0.0))[0])
    # Rounded up, so that the largest value still fits what the decimal string says.
    slope = float(decimals((high - intercept) / LARGEST * (1 + 1e-9))[0]) or 1.0
    return np.rint((array - intercept) / slope).astype("<u2"), slope, intercept


def provenance(image: Image) -> str:
    """How the volume came about, in words."""
    told = image.metadata
    if "input_sha256" not in told:
        origin = told.get("SeriesInstanceUID", "")
        return f"Copy of a volume that was received{f' as DICOM series {origin}' if origin else ''}. {RESEARCH}"
    return (
        f"Reconstructed from k-space ({told.get('trajectory', '')}): {told.get('method', '')}, because "
        f"{told.get('reason', '')}; {told.get('parameters', '')}; SHA-256 of the raw data {told['input_sha256']}. "
        f"{RESEARCH}"
    )


def _equipment(case: Case, image: Image) -> Dataset:
    used = Dataset()
    used.Manufacturer, used.ManufacturerModelName = MANUFACTURER, MODEL
    used.SoftwareVersions = case.software
    used.ContributionDescription = provenance(image)[:LONGEST_TEXT]
    used.PurposeOfReferenceCodeSequence = [item(PROCESSING_EQUIPMENT)]
    return used


def _describe_pixels(made: Dataset, stored: npt.NDArray[np.uint16], slope: float, intercept: float) -> None:
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.Rows, made.Columns = stored.shape[1:]
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 16, 16, 15, 0
    low, high = (float(v) for v in np.percentile(stored[::4, ::4, ::4], (1.0, 99.5)))
    made.WindowCenter, made.WindowWidth = decimals([(low + high) / 2 * slope + intercept, max(1.0, high - low) * slope])
    if (slope, intercept) != (1.0, 0.0):
        # Not of the MR object proper, but what scanners write and readers apply: both scans keep one scale.
        made.RescaleIntercept, made.RescaleSlope = DSfloat(intercept, True), DSfloat(slope, True)
        made.RescaleType = "US"


def _slice(case: Case, shared: Dataset, lps_from_ijk: npt.NDArray[np.float64], k: int, content: str) -> Dataset:
    made = Dataset()
    made.update(shared)
    made.SOPInstanceUID = case.uid("slice", content, str(k))
    made.file_meta = FileMetaDataset()
    made.file_meta.update(shared.file_meta)
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    made.InstanceNumber = k + 1
    made.ImagePositionPatient = decimals(lps_from_ijk[:3, 3] + k * lps_from_ijk[:3, 2])
    return made
