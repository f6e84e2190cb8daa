"""Where the preoperative volume lies in the scan: Spatial Registration, and Deformable Spatial Registration.

Frames: RAS inside, LPS in DICOM. A rigid matrix leads from its frame of reference to the one of the object, the
intraoperative one (PS3.3 C.20.2.1.1). A deformation leads the other way, from a place in the scan to the place in the
preoperative volume to sample there (C.20.3.1.1): source = post ((pre x) + grid (pre x)).
"""

from __future__ import annotations

import numpy as np
from IntraopMRIReconstructionLib.data import Image, Matrix, checked_rigid
from IntraopMRIReconstructionLib.geometry import RAS_FROM_LPS, invert, ras_transform_from_lps_transform
from pydicom.dataset import Dataset
from pydicom.uid import DeformableSpatialRegistrationStorage, SpatialRegistrationStorage

from .case import RESEARCH, Case, decimals, header, lps_grid
from .codes import IMAGE_CONTENT, SAME_FRAME, item

#: A comment (VR LO) has at most this many characters.
LONGEST_COMMENT = 64
RIGID_NUMBER, DEFORMABLE_NUMBER = 902, 903


def lps_intraop_from_preop(case: Case) -> Matrix:
    """The rigid pose (4, 4) in LPS, mm. Raises DataError when the record's is none: scaled, sheared or mirrored."""
    assert case.registration is not None
    pose = checked_rigid(case.registration["intraop_from_preop"], "intraop_from_preop of the session record")
    # The change of frames is its own inverse, so the same call leads there and back.
    return ras_transform_from_lps_transform(pose)


def rigid(case: Case, scan: list[Dataset], preoperative: list[Dataset]) -> Dataset:
    """Spatial Registration of the preoperative frame of reference to that of the registered scan.

    ``scan``, ``preoperative``: their slices, as far as they are written.
    """
    matrix = lps_intraop_from_preop(case)
    frame = case.frames[case.scan.uid]
    made = _header(case, SpatialRegistrationStorage, "rigid", RIGID_NUMBER, matrix.tobytes(), (scan, preoperative))
    made.RegistrationSequence = []
    for uid, transform, slices in ((frame, np.eye(4), scan), (case.preop_frame, matrix, preoperative)):
        part = Dataset()
        part.FrameOfReferenceUID = uid
        if slices:
            part.ReferencedImageSequence = _references(slices)
        how = Dataset()
        how.FrameOfReferenceTransformationComment = "" if transform is not matrix else _words(case)
        how.RegistrationTypeCodeSequence = [item(IMAGE_CONTENT if transform is matrix else SAME_FRAME)]
        how.MatrixSequence = [_matrix(transform)]
        part.MatrixRegistrationSequence = [how]
        made.RegistrationSequence.append(part)
    _refer(made, scan, preoperative)
    return made


def deformable(case: Case, scan: list[Dataset], preoperative: list[Dataset]) -> Dataset:
    """Deformable Spatial Registration: from the scan to the preoperative volume, with the brain shift."""
    assert case.shift is not None
    grid = right_handed(case.shift)
    lps_from_ijk, axes, spacing = lps_grid(grid)
    vectors = np.ascontiguousarray(grid.array @ RAS_FROM_LPS[:3, :3].T, dtype="<f4")
    back = invert(lps_intraop_from_preop(case))
    content = vectors.tobytes()
    key = content + lps_from_ijk.tobytes() + back.tobytes()
    made = _header(
        case, DeformableSpatialRegistrationStorage, "deformable", DEFORMABLE_NUMBER, key, (scan, preoperative)
    )
    part = Dataset()
    part.SourceFrameOfReferenceUID = case.preop_frame
    part.DeformableRegistrationGridSequence = [Dataset()]
    field = part.DeformableRegistrationGridSequence[0]
    field.ImageOrientationPatient = decimals(axes[:, :2].T)
    field.ImagePositionPatient = decimals(lps_from_ijk[:3, 3])
    k, j, i = vectors.shape[:3]
    field.GridDimensions, field.GridResolution = [i, j, k], [float(s) for s in spacing]
    field.VectorGridData = content
    part.PreDeformationMatrixRegistrationSequence = [_matrix(np.eye(4))]
    part.PostDeformationMatrixRegistrationSequence = [_matrix(back)]
    part.RegistrationTypeCodeSequence = [item(IMAGE_CONTENT)]
    if preoperative:
        part.ReferencedImageSequence = _references(preoperative)
    made.DeformableRegistrationSequence = [part]
    _refer(made, scan, preoperative)
    return made


def right_handed(field: Image) -> Image:
    """The same field on a grid whose third axis is the cross product of the first two: DICOM knows no other."""
    if np.linalg.det(field.ras_from_ijk[:3, :3]) > 0:
        return field
    matrix = field.ras_from_ijk.copy()
    matrix[:3, 3] += (len(field.array) - 1) * matrix[:3, 2]
    matrix[:3, 2] *= -1
    return Image(field.array[::-1], matrix, field.name)


def _header(
    case: Case, sop_class: str, what: str, number: int, content: bytes, of: tuple[list[Dataset], ...]
) -> Dataset:
    series_uid = case.uid("series", what, case.scan.uid)
    words = f"Preoperative to intraoperative, {what} (research)"
    # Whom the objects refer to is part of what they say.
    key = case.frames[case.scan.uid] + case.preop_frame + _words(case)
    key += "".join(str(slices[0].SOPInstanceUID) for slices in of if slices)
    made = header(case, sop_class, case.uid(what, content, key), "REG", (series_uid, number, words))
    made.Laterality = ""
    made.FrameOfReferenceUID, made.PositionReferenceIndicator = case.frames[case.scan.uid], ""
    made.ContentLabel, made.ContentDescription, made.ContentCreatorName = what.upper(), RESEARCH, ""
    return made


def _words(case: Case) -> str:
    assert case.registration is not None
    error = case.registration["error_mm"]
    told = "" if error is None else f"error {error:.2f} mm; "
    return f"{told}{case.registration['method']}"[:LONGEST_COMMENT]


def _matrix(transform: Matrix) -> Dataset:
    made = Dataset()
    made.FrameOfReferenceTransformationMatrix = decimals(transform)
    made.FrameOfReferenceTransformationMatrixType = "RIGID"
    return made


def _references(slices: list[Dataset]) -> list[Dataset]:
    return [_reference(plane) for plane in slices]


def _reference(plane: Dataset) -> Dataset:
    made = Dataset()
    made.ReferencedSOPClassUID, made.ReferencedSOPInstanceUID = plane.SOPClassUID, plane.SOPInstanceUID
    return made


def _refer(made: Dataset, *series: list[Dataset]) -> None:
    made.ReferencedSeriesSequence = []
    for slices in (s for s in series if s):
        part = Dataset()
        part.SeriesInstanceUID = slices[0].SeriesInstanceUID
        part.ReferencedInstanceSequence = _references(slices)
        made.ReferencedSeriesSequence.append(part)
