"""A volume as a series of MR Image Storage slices, or as the slices that it came as.

What came as DICOM and is that still is not written again: everything refers to the originals. What was changed since is
written as derived slices that name their source.

Not Enhanced MR: that requires sequence facts which a volume off the wire does not carry, and the classic slices are
what every archive, Slicer and ITK read with the same geometry. The pulse sequence is given as 'research mode'.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
from IntraopMRIReconstructionLib.data import AnyArray, Image
from IntraopMRIReconstructionLib.errors import DataError
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import MRImageStorage
from pydicom.valuerep import DSfloat

from .case import MANUFACTURER, MODEL, RESEARCH, Case, decimals, header, lps_grid
from .codes import PROCESSING_EQUIPMENT, item
from .references import refer, reference
from .source import Source, source_of

#: Largest value of an unsigned 16-bit voxel.
LARGEST = 65535
#: Text that describes (VR ST) has at most this many characters.
LONGEST_TEXT = 1024
#: Elements beside its UID in which a slice differs from the others.
DIFFERENT = ("InstanceNumber", "ImagePositionPatient")


@dataclass(frozen=True, eq=False)
class Slices:
    """The slices of a volume along k: ``headers`` without voxels, and the ``voxels`` to write, None for originals.

    ``whole``: the one object that they are frames of; then ``frames`` has the number of each by the UID that stands for
    it among the headers.
    """

    headers: list[Dataset]
    voxels: npt.NDArray[np.uint16] | None = None
    whole: Dataset | None = None
    frames: Mapping[str, int] = field(default_factory=dict)

    @property
    def objects(self) -> list[Dataset]:
        """One header for each object, to refer to it."""
        return self.headers if self.whole is None else [self.whole]

    def to_write(self) -> Iterator[Dataset]:
        """The slices one by one, each with its voxels for as long as it is looked at; nothing for originals."""
        for plane, voxels in zip(
            self.headers, () if self.voxels is None else self.voxels, strict=self.voxels is not None
        ):
            plane.PixelData = voxels.tobytes()
            yield plane
            del plane.PixelData


def slices_of(case: Case, image: Image, number: int, frame_uid: str, role: str) -> Slices:
    """The slices of a volume. ``number``: of the series, where it is written.

    ``role``: native, contrast or preoperative. Raises DataError for what MR slices cannot hold.
    """
    original = case.original(image)
    if original is None:
        return _written(case, image, number, frame_uid, role)
    made = original_slices(case, original)
    return made if original.order(image) > 0 else replace(made, headers=made.headers[::-1])


def original_slices(case: Case, source: Source) -> Slices:
    """What is to be said of slices that exist already: identity and place."""
    shared = header(case, source.sop_class, "", source.modality, (source.series_uid, 0, ""))
    shared.StudyInstanceUID, shared.FrameOfReferenceUID = source.study_uid, source.frame_uid
    shared.PositionReferenceIndicator = ""
    shared.Columns, shared.Rows = source.size_ijk[:2]
    matrix = source.matrix
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)
    _place(shared, matrix[:3, :3] / spacing, spacing)
    if not source.frames:
        return Slices([_slice(shared, matrix, k, uid) for k, uid in enumerate(source.instances)])
    whole = _named(shared, source.instances[0])
    # The library takes frames for slices only when they are called so; the whole shares the elements and keeps its own.
    del shared.SOPClassUID, shared.file_meta.MediaStorageSOPClassUID
    shared.SOPClassUID = shared.file_meta.MediaStorageSOPClassUID = MRImageStorage
    uids = [case.uid("frame of", source.instances[0], str(frame)) for frame in source.frames]
    frames = dict(zip(uids, source.frames, strict=True))
    return Slices([_slice(shared, matrix, k, uid) for k, uid in enumerate(uids)], whole=whole, frames=frames)


def _written(case: Case, image: Image, number: int, frame_uid: str, role: str) -> Slices:
    if image.array.ndim != 3:
        raise DataError(
            f"'{image.name}' holds {image.array.shape[-1]} values a voxel: only grey values become MR slices"
        )
    lps_from_ijk, axes, spacing = lps_grid(image)
    stored, slope, intercept = stored_voxels(image.array)
    content = case.uid("volume", image.uid, stored.tobytes(), lps_from_ijk.tobytes())
    words = f"{image.name or role}, {'before surgery' if role == 'preoperative' else 'intraoperative'} (research)"
    shared = header(case, MRImageStorage, "", "MR", (case.series_uid(image), number, words))
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
    shared.DerivationDescription = provenance(image, case.changed.get(image.uid, ""))[:LONGEST_TEXT]
    shared.ContributingEquipmentSequence = [_equipment(case)]
    source = source_of(image.metadata)
    if source is not None:
        came_as = original_slices(case, source).objects
        shared.SourceImageSequence = [reference(each) for each in came_as]
        refer(shared, [came_as])
    _describe_pixels(shared, stored, slope, intercept)
    _place(shared, axes, spacing)
    made = [_slice(shared, lps_from_ijk, k, case.uid("slice", content, str(k))) for k in range(len(stored))]
    return Slices(made, stored)


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


def provenance(image: Image, changed: str = "") -> str:
    """How the volume came about, in words. ``changed``: why it is not the DICOM series any more that it came as."""
    told = image.metadata
    if "input_sha256" in told:
        return (
            f"Reconstructed from k-space ({told.get('trajectory', '')}): {told.get('method', '')}, because "
            f"{told.get('reason', '')}; {told.get('parameters', '')}; SHA-256 of the raw data {told['input_sha256']}. "
            f"{RESEARCH}"
        )
    origin = told.get("SeriesInstanceUID", "")
    origin = f" as DICOM series {origin}" if origin else ""
    return f"Copy of a volume that was received{origin}{f', since {changed}' if changed else ''}. {RESEARCH}"


def _equipment(case: Case) -> Dataset:
    used = Dataset()
    used.Manufacturer, used.ManufacturerModelName = MANUFACTURER, MODEL
    used.SoftwareVersions = case.software
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


def _place(made: Dataset, axes: npt.NDArray[np.float64], spacing: npt.NDArray[np.float64]) -> None:
    made.ImageOrientationPatient = decimals(axes[:, :2].T)
    made.PixelSpacing = decimals(spacing[[1, 0]])
    made.SliceThickness = made.SpacingBetweenSlices = decimals(spacing[2])[0]


def _slice(shared: Dataset, lps_from_ijk: npt.NDArray[np.float64], k: int, uid: str) -> Dataset:
    made = _named(shared, uid)
    made.InstanceNumber = k + 1
    made.ImagePositionPatient = decimals(lps_from_ijk[:3, 3] + k * lps_from_ijk[:3, 2])
    return made


def _named(shared: Dataset, uid: str) -> Dataset:
    """An object of its own with the elements of ``shared``: the very same ones, but for those that differ."""
    made = Dataset()
    made.update(shared)
    made.file_meta = FileMetaDataset()
    made.file_meta.update(shared.file_meta)
    for part, names in ((made, ("SOPInstanceUID", *DIFFERENT)), (made.file_meta, ("MediaStorageSOPInstanceUID",))):
        for name in names:
            part.pop(name, None)
    made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = uid
    return made
