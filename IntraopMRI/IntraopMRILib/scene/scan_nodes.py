"""Volume nodes that a person chooses as scans: what they show, where it lies, and what is known of their making."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import slicer
from IntraopMRIReconstructionLib.data import Image, checked_rigid
from IntraopMRIReconstructionLib.errors import DataError, SessionError
from IntraopMRIReconstructionLib.scene.attributes import (
    ACQUIRED_ATTRIBUTE,
    PATIENT_ATTRIBUTE,
    PREVIEW_ATTRIBUTE,
    PROVENANCE_ATTRIBUTE,
    SCAN_ROLE_ATTRIBUTE,
    TAKEN_FROM_ATTRIBUTE,
    UNIT_ATTRIBUTE,
)

from ..scan_facts import TAKEN_FROM
from ..session.updates import Role
from . import conversion, recipes
from .contents import ATTRIBUTE, ROLE

#: Attribute of volumes that Slicer has loaded from its DICOM database: instance UIDs, a blank between them.
INSTANCES = "DICOM.instanceUIDs"
#: Prefix of what else is known of a session's volume (see recipes.origin), such as where its time comes from.
SOURCE = f"{ATTRIBUTE}Source."
#: What the record says of a time that nothing but a person tells.
BY_HAND = "entered by hand"


def scanOf(node: Any) -> Image:
    """A volume node as a scan, where it lies in the world (RAS, mm), with what its attributes tell.

    A rigid transform above it is taken into its matrix. Main thread, voxels are copied. Raises SessionError with the
    reason for what is no picture of one scan, and for what hangs under any other transform.
    """
    name, role = node.GetName(), node.GetAttribute(ROLE) or "intraop."
    if node.GetAttribute(PREVIEW_ATTRIBUTE):
        raise SessionError(f"'{name}' is a preview of a scan that is not complete: wait for it")
    unit = node.GetAttribute(UNIT_ATTRIBUTE) or ("labels" if node.IsA("vtkMRMLLabelMapVolumeNode") else "")
    if unit:
        raise SessionError(f"'{name}' holds {unit}, no picture: choose the scan that it was made from")
    if not role.startswith("intraop."):
        raise SessionError(f"'{name}' was made by a session, no scanner took it: choose a scan")
    voxels = node.GetImageData()
    if voxels is None or 0 in voxels.GetDimensions():
        raise SessionError(f"the volume '{name}' has no voxels: load it again")
    if voxels.GetNumberOfScalarComponents() != 1:
        count = voxels.GetNumberOfScalarComponents()
        raise SessionError(f"'{name}' holds {count} values a voxel: choose a volume of grey values")
    matrix = conversion.vtkMatrix(np.eye(4))
    node.GetIJKToRASMatrix(matrix)
    return Image(
        slicer.util.arrayFromVolume(node).copy(),
        _worldFromLocal(node) @ slicer.util.arrayFromVTKMatrix(matrix),
        name=name,
        acquired_utc_s=takenOf(node),
        patient_id=node.GetAttribute(PATIENT_ATTRIBUTE) or "",
        metadata=_known(node),
    )


def takenOf(node: Any) -> float | None:
    """When the scan was taken (POSIX seconds) as far as the node knows; None otherwise."""
    taken = node.GetAttribute(ACQUIRED_ATTRIBUTE)
    try:
        return None if not taken else datetime.fromisoformat(taken).timestamp()
    except ValueError:
        return None


def remember(node: Any, image: Image, role: Role) -> None:
    """Write on the node what it was used as, and a time that a person entered, so that a saved scene knows both."""
    node.SetAttribute(SCAN_ROLE_ATTRIBUTE, role)
    if image.metadata.get(TAKEN_FROM) == BY_HAND or node.GetAttribute(TAKEN_FROM_ATTRIBUTE) == BY_HAND:
        taken = image.acquired_utc_s
        node.SetAttribute(ACQUIRED_ATTRIBUTE, None if taken is None else recipes.utc(taken))
        node.SetAttribute(TAKEN_FROM_ATTRIBUTE, None if taken is None else BY_HAND)


def roleOf(node: Any) -> Role | None:
    """What the node was used as before, in this session or in the one that is saved with the scene."""
    known = node.GetAttribute(SCAN_ROLE_ATTRIBUTE) or (node.GetAttribute(ROLE) or "").removeprefix("intraop.")
    return next((role for role in get_args(Role) if role == known), None)


def isByHand(node: Any) -> bool:
    """Whether a person may enter the time: nothing else tells it."""
    return takenOf(node) is None or node.GetAttribute(TAKEN_FROM_ATTRIBUTE) == BY_HAND


def dicomFiles(node: Any) -> dict[str, Path | None]:
    """Files of the instances that Slicer's DICOM database knows the node from, by their UID, None where it lacks one.

    Empty when it has none of them. Main thread. The database may be absent, closed, or that of another computer than
    the scene comes from.
    """
    uids = (node.GetAttribute(INSTANCES) or "").split()
    database = getattr(slicer, "dicomDatabase", None)
    if not uids or database is None or not database.isOpen:
        return {}
    paths = {uid: str(database.fileForInstance(uid) or "") for uid in uids}
    return {uid: Path(path) if path else None for uid, path in paths.items()} if any(paths.values()) else {}


def _known(node: Any) -> Mapping[str, str]:
    """What attributes tell: of the reconstruction from raw data, and of an earlier session."""
    return {
        key.removeprefix(prefix): node.GetAttribute(key)
        for prefix in (PROVENANCE_ATTRIBUTE, SOURCE)
        for key in node.GetAttributeNames()
        if key.startswith(prefix)
    }


def _worldFromLocal(node: Any) -> npt.NDArray[np.float64]:
    """(4, 4) of the transform above a volume, identity without one. SessionError unless it is a rigid motion."""
    above = node.GetParentTransformNode()
    if above is None:
        return np.eye(4)
    if not above.IsTransformToWorldLinear():
        raise SessionError(
            f"'{node.GetName()}' is bent by the transform '{above.GetName()}': it does not show what the scanner saw. "
            "Choose the volume without it"
        )
    matrix = conversion.vtkMatrix(np.eye(4))
    above.GetMatrixTransformToWorld(matrix)
    try:
        return checked_rigid(slicer.util.arrayFromVTKMatrix(matrix), above.GetName())
    except DataError as error:
        raise SessionError(
            f"'{node.GetName()}' hangs under a transform that is no rigid motion: {error}. Choose it without"
        ) from error
