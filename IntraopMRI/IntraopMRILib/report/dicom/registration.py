"""Where the preoperative volume, or one bone of it, lies in the scan: Spatial Registration, rigid and Deformable.

Frames: RAS inside, LPS in DICOM. A rigid matrix leads from its frame of reference to the one of the object, the
intraoperative one (PS3.3 C.20.2.1.1). A deformation leads the other way, from a place in the scan to the place in the
preoperative volume to sample there (C.20.3.1.1): source = post ((pre x) + grid (pre x)).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from IntraopMRIReconstructionLib.data import Image, Matrix, checked_rigid
from IntraopMRIReconstructionLib.geometry import RAS_FROM_LPS, invert, ras_transform_from_lps_transform
from pydicom.dataset import Dataset
from pydicom.uid import DeformableSpatialRegistrationStorage, SpatialRegistrationStorage

from .case import RESEARCH, Case, Document, decimals, header, lps_grid
from .codes import IMAGE_CONTENT, SAME_FRAME, item
from .references import refer, reference

#: A comment (VR LO) has at most this many characters.
LONGEST_COMMENT = 64
#: Numbers of the series: of the whole, with the brain shift, and of single bones.
RIGID_NUMBER, DEFORMABLE, PARTS_NUMBER = 902, 903, 905


@dataclass(frozen=True, eq=False)
class Pose:
    """Where something of the preoperative volume lies in the scan. ``lps``: (4, 4), mm; ``of``: what it holds for,
    empty for the whole; ``words``: how it was found, for a comment.
    """

    lps: Matrix
    words: str
    of: str = ""


def pose_of(found: Document, of: str = "") -> Pose:
    """From a registration of the record. Raises DataError when its matrix is none: scaled, sheared or mirrored."""
    pose = checked_rigid(found["intraop_from_preop"], "intraop_from_preop of the session record")
    error, how = found["error_mm"], found.get("method", "")
    if found.get("decision", "open") != "open":
        how = f"{found['decision']} by {found['decided_by']}"
    told = [f"holds for {of} alone" if of else "", "" if error is None else f"error {error:.2f} mm", how]
    # The change of frames is its own inverse, so the same call leads there and back.
    return Pose(ras_transform_from_lps_transform(pose), "; ".join(t for t in told if t)[:LONGEST_COMMENT], of)


def rigid(case: Case, pose: Pose, scan: list[Dataset], preoperative: list[Dataset], number: int = 1) -> Dataset:
    """Spatial Registration of the preoperative frame of reference to that of the registered scan.

    ``scan``, ``preoperative``: their slices, as far as they exist; ``number``: of the object in its series.
    """
    frame = case.frames[case.scan.uid]
    made = _header(case, SpatialRegistrationStorage, pose, pose.lps.tobytes(), (scan, preoperative))
    made.InstanceNumber = number
    made.RegistrationSequence = []
    for uid, transform, slices in ((frame, np.eye(4), scan), (case.preop_frame, pose.lps, preoperative)):
        part = Dataset()
        part.FrameOfReferenceUID = uid
        if slices:
            part.ReferencedImageSequence = [reference(plane) for plane in slices]
        how = Dataset()
        how.FrameOfReferenceTransformationComment = "" if transform is not pose.lps else pose.words
        how.RegistrationTypeCodeSequence = [item(IMAGE_CONTENT if transform is pose.lps else SAME_FRAME)]
        how.MatrixSequence = [_matrix(transform)]
        part.MatrixRegistrationSequence = [how]
        made.RegistrationSequence.append(part)
    refer(made, (scan, preoperative))
    return made


def deformable(case: Case, pose: Pose, scan: list[Dataset], preoperative: list[Dataset]) -> Dataset:
    """Deformable Spatial Registration: from the scan to the preoperative volume, with the brain shift."""
    assert case.shift is not None
    grid = right_handed(case.shift)
    lps_from_ijk, axes, spacing = lps_grid(grid)
    vectors = np.ascontiguousarray(grid.array @ RAS_FROM_LPS[:3, :3].T, dtype="<f4")
    back = invert(pose.lps)
    content = vectors.tobytes()
    key = content + lps_from_ijk.tobytes() + back.tobytes()
    made = _header(case, DeformableSpatialRegistrationStorage, pose, key, (scan, preoperative))
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
        part.ReferencedImageSequence = [reference(plane) for plane in preoperative]
    made.DeformableRegistrationSequence = [part]
    refer(made, (scan, preoperative))
    return made


def right_handed(field: Image) -> Image:
    """The same field on a grid whose third axis is the cross product of the first two: DICOM knows no other."""
    if np.linalg.det(field.ras_from_ijk[:3, :3]) > 0:
        return field
    matrix = field.ras_from_ijk.copy()
    matrix[:3, 3] += (len(field.array) - 1) * matrix[:3, 2]
    matrix[:3, 2] *= -1
    return Image(field.array[::-1], matrix, field.name)


def _header(case: Case, sop_class: str, pose: Pose, content: bytes, of: tuple[list[Dataset], ...]) -> Dataset:
    what, number = ("rigid", RIGID_NUMBER) if sop_class == SpatialRegistrationStorage else ("deformable", DEFORMABLE)
    if pose.of:
        number, what = PARTS_NUMBER, "bone by bone"
    series_uid = case.uid("series", what, case.scan.uid)
    words = f"Preoperative to intraoperative, {what} (research)"
    # Whom the objects refer to is part of what they say.
    key = case.frames[case.scan.uid] + case.preop_frame + pose.words + pose.of
    key += "".join(str(slices[0].SOPInstanceUID) for slices in of if slices)
    made = header(case, sop_class, case.uid(what, content, key), "REG", (series_uid, number, words))
    made.Laterality = ""
    made.FrameOfReferenceUID, made.PositionReferenceIndicator = case.frames[case.scan.uid], ""
    made.ContentLabel, made.ContentCreatorName = what.upper().replace(" ", "_"), ""
    made.ContentDescription = f"{pose.of + ': ' if pose.of else ''}{RESEARCH}"[:LONGEST_COMMENT]
    return made


def _matrix(transform: Matrix) -> Dataset:
    made = Dataset()
    made.FrameOfReferenceTransformationMatrix = decimals(transform)
    made.FrameOfReferenceTransformationMatrixType = "RIGID"
    return made
