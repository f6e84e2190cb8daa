"""What was found in the registered scan, and what a person has carried over to it, as one Segmentation object."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from IntraopMRIReconstructionLib.data import Image
from IntraopMRIReconstructionLib.geometry import resample_matrix
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, SegmentationStorage
from scipy import ndimage

from .case import MANUFACTURER, MODEL, RESEARCH, VERSION, Case, Kind, Structure, identify
from .codes import ABNORMAL, BODY_CAVITY, NEOPLASM, SEGMENTATION_FAMILY, TISSUE, Coded
from .image import Slices
from .packages import highdicom
from .references import refer

NUMBER = 901
#: Category and type of each kind. SNOMED CT has no cavity of a resection: an abnormal structure that is a cavity.
PROPERTIES: dict[Kind, tuple[Coded, Coded]] = {
    "residual": (ABNORMAL, NEOPLASM),
    "resected": (ABNORMAL, NEOPLASM),
    "cavity": (ABNORMAL, BODY_CAVITY),
    "structure": (TISSUE, TISSUE),
}
#: Colour of each kind on screen, RGB: the colours of the views.
COLORS: dict[Kind, tuple[int, int, int]] = {
    "residual": (220, 40, 40),
    "resected": (60, 160, 90),
    "cavity": (80, 140, 220),
    "structure": (230, 190, 60),
}
#: A label (VR LO) has at most this many characters.
LONGEST_LABEL = 64


def segmentation(case: Case, scan: Slices) -> Dataset | None:
    """One segment a structure, binary, on the grid of the registered ``scan``; None when nothing is to be said.

    A structure of which no voxel lies in the scan has no segment.
    """
    masks = [(structure, on_grid(structure.label, case.scan)) for structure in case.structures]
    masks = [(structure, mask) for structure, mask in masks if mask.any()]
    if not masks or case.registration is None:
        return None
    hd = highdicom()
    packed = np.stack([mask for _, mask in masks], axis=-1)
    described = [_described(case, number, structure) for number, (structure, _) in enumerate(masks, start=1)]
    said = "".join(f"{s.kind}|{s.name}|{s.method}|{s.by_person};" for s, _ in masks)
    key = (np.packbits(packed).tobytes(), said, scan.headers[0].SOPInstanceUID)
    made = hd.seg.Segmentation(
        source_images=scan.headers,
        pixel_array=packed.astype(np.uint8),
        segmentation_type="BINARY",
        segment_descriptions=described,
        series_instance_uid=case.uid("series", "segmentation", case.scan.uid),
        series_number=NUMBER,
        sop_instance_uid=case.uid("segmentation", *key),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=MODEL,
        software_versions=case.software[0],
        device_serial_number="none",
        content_description=RESEARCH,
        content_label="SEGMENTATION",
        transfer_syntax_uid=ExplicitVRLittleEndian,
    )
    finish(case, made, "Residual, resection and structures (research)")
    _name_dimensions(case, made)
    if scan.whole is not None:
        _name_frames(made, scan)
    assert made.SOPClassUID == SegmentationStorage
    return made


def segment_of(made: Dataset | None, kind: Kind) -> int | None:
    """Number of the first segment of that kind in a segmentation of ours."""
    for segment in () if made is None else made.SegmentSequence:
        if segment.TrackingID.partition(":")[0] == kind:
            return int(segment.SegmentNumber)
    return None


def on_grid(label: Image, grid: Image) -> npt.NDArray[np.bool_]:
    """The label on the voxels of ``grid`` (k, j, i): a voxel belongs to it when it lies in it by more than half."""
    result = np.zeros(grid.array.shape[:3], dtype=np.bool_)
    inside = np.argwhere(label.array != 0)
    if not len(inside):
        return result
    low, high = inside.min(axis=0)[::-1] - 1.0, inside.max(axis=0)[::-1] + 1.0
    corners = np.array(np.meshgrid(*np.stack([low, high], axis=1), indexing="ij")).reshape(3, -1).T
    grid_from_label = resample_matrix(label.ras_from_ijk, grid.ras_from_ijk)
    there = corners @ grid_from_label[:3, :3].T + grid_from_label[:3, 3]
    size = np.array(grid.array.shape[2::-1])
    first = np.clip(np.floor(there.min(axis=0)).astype(int), 0, size)
    last = np.clip(np.ceil(there.max(axis=0)).astype(int) + 1, first, size)
    if (last == first).any():
        return result
    label_from_grid = resample_matrix(grid.ras_from_ijk, label.ras_from_ijk)
    matrix = label_from_grid[2::-1, 2::-1]
    offset = label_from_grid[2::-1, 3] + matrix @ first[::-1]
    box = tuple(slice(int(a), int(b)) for a, b in zip(first[::-1], last[::-1], strict=True))
    values = ndimage.affine_transform(
        (label.array != 0).astype(np.float32), matrix, offset, tuple((last - first)[::-1].tolist()), order=1
    )
    # A little less than half, so that a voxel half covered does not depend on rounding.
    result[box] = values > 0.499
    return result


def finish(case: Case, made: Dataset, description: str) -> None:
    """What an object that the library made must say of this session, and what it shall not invent by itself."""
    identify(case, made)
    made.SeriesDescription = description[:64]
    made.ContentDate, made.ContentTime = made.SeriesDate, made.SeriesTime = case.made
    for equipment in made.get("ContributingEquipmentSequence", ()):
        # When it was written is the creation date of the instance; here it would make the same record another object.
        equipment.pop("ContributionDateTime", None)


def _described(case: Case, number: int, structure: Structure) -> Dataset:
    hd = highdicom()
    category, kind = PROPERTIES[structure.kind]
    color = hd.color.CIELabColor.from_rgb(*COLORS[structure.kind])
    return hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=structure.name[:LONGEST_LABEL],
        segmented_property_category=hd.sr.CodedConcept(*category),
        segmented_property_type=hd.sr.CodedConcept(*kind),
        algorithm_type="SEMIAUTOMATIC" if structure.by_person else "AUTOMATIC",
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=structure.method[:LONGEST_LABEL],
            family=hd.sr.CodedConcept(*SEGMENTATION_FAMILY),
            version=VERSION,
        ),
        tracking_uid=case.uid("tracking", structure.kind, structure.name, case.scan.uid),
        tracking_id=f"{structure.kind}: {structure.name}"[:LONGEST_LABEL],
        display_color=color,
    )


def _name_dimensions(case: Case, made: Dataset) -> None:
    """The library names the organisation of the dimensions by chance; here by the object, so that it stays."""
    uid = case.uid("dimensions", made.SOPInstanceUID)
    for organization in made.DimensionOrganizationSequence:
        organization.DimensionOrganizationUID = uid
    for index in made.DimensionIndexSequence:
        index.DimensionOrganizationUID = uid


def _name_frames(made: Dataset, scan: Slices) -> None:
    """Refer to frames of the one object that the library took for slices."""
    assert scan.whole is not None
    for group in made.PerFrameFunctionalGroupsSequence:
        for derivation in group.DerivationImageSequence:
            # Segments on one slice share the item.
            for named in (n for n in derivation.SourceImageSequence if n.ReferencedSOPInstanceUID in scan.frames):
                named.ReferencedFrameNumber = scan.frames[named.ReferencedSOPInstanceUID]
                named.ReferencedSOPClassUID = scan.whole.SOPClassUID
                named.ReferencedSOPInstanceUID = scan.whole.SOPInstanceUID
    # Of the whole segmentation, all of its frames are the source.
    made.SourceImageSequence = made.SourceImageSequence[:1]
    source = made.SourceImageSequence[0]
    source.ReferencedSOPClassUID, source.ReferencedSOPInstanceUID = scan.whole.SOPClassUID, scan.whole.SOPInstanceUID
    del made.ReferencedSeriesSequence
    refer(made, [scan.objects])
