"""Volume nodes that a person chooses as scans: what they show, where it lies, and what is known of their making."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import slicer
from IntraopMRIReconstructionLib.data import Image, checked_rigid
from IntraopMRIReconstructionLib.errors import DataError, SessionError
from IntraopMRIReconstructionLib.scene.results import PREVIEW_ATTRIBUTE, PROVENANCE_ATTRIBUTE, UNIT_ATTRIBUTE
from slicer.i18n import tr as _

from ..scan_facts import TAKEN_FROM
from ..session_updates import Role
from . import conversion, recipes
from .contents import ATTRIBUTE, ROLE

#: Attribute of volumes that Slicer has loaded from its DICOM database: instance UIDs, a blank between them.
INSTANCES = "DICOM.instanceUIDs"
#: Attributes of a session's volumes (see recipes.origin): time and patient, and the prefix of all else that is known.
ACQUIRED, PATIENT, SOURCE = f"{ATTRIBUTE}AcquiredUtc", f"{ATTRIBUTE}PatientId", f"{ATTRIBUTE}Source."
#: Attribute of a volume that was used as a scan: its role.
CHOSEN_ROLE = f"{ATTRIBUTE}ScanRole"
#: What the record says of a time that nothing but a person tells.
BY_HAND = "entered by hand"


def scanOf(node: Any) -> Image:
    """A volume node as a scan, where it lies in the world (RAS, mm), with what its attributes tell.

    A rigid transform above it is taken into its matrix. Main thread, voxels are copied. Raises SessionError with the
    reason for what is no picture of one scan, and for what hangs under any other transform.
    """
    name = node.GetName()
    if node.GetAttribute(PREVIEW_ATTRIBUTE):
        raise SessionError(_("'{name}' is a preview of a scan that is not complete: wait for it").format(name=name))
    unit = node.GetAttribute(UNIT_ATTRIBUTE) or (_("labels") if node.IsA("vtkMRMLLabelMapVolumeNode") else "")
    if unit:
        raise SessionError(
            _("'{name}' holds {unit}, no picture: choose the scan that it was made from").format(name=name, unit=unit)
        )
    if (node.GetAttribute(ROLE) or "intraop.").partition(".")[0] != "intraop":
        raise SessionError(_("'{name}' was made by a session, no scanner took it: choose a scan").format(name=name))
    voxels = node.GetImageData()
    if voxels is None or 0 in voxels.GetDimensions():
        raise SessionError(_("the volume '{name}' has no voxels: load it again").format(name=name))
    if voxels.GetNumberOfScalarComponents() != 1:
        raise SessionError(
            _("'{name}' holds {count} values a voxel: choose a volume of grey values").format(
                name=name, count=voxels.GetNumberOfScalarComponents()
            )
        )
    matrix = conversion.vtkMatrix(np.eye(4))
    node.GetIJKToRASMatrix(matrix)
    known = _known(node)
    return Image(
        slicer.util.arrayFromVolume(node).copy(),
        _worldFromLocal(node) @ slicer.util.arrayFromVTKMatrix(matrix),
        name=name,
        acquired_utc_s=takenOf(node),
        patient_id=node.GetAttribute(PATIENT) or "",
        metadata=known,
    )


def takenOf(node: Any) -> float | None:
    """When the scan was taken (POSIX seconds) as far as the node knows; None otherwise."""
    taken = node.GetAttribute(ACQUIRED)
    try:
        return None if not taken else datetime.fromisoformat(taken).timestamp()
    except ValueError:
        return None


def remember(node: Any, image: Image, role: Role) -> None:
    """Write on the node what it was used as, and a time that a person entered, so that a saved scene knows both."""
    node.SetAttribute(CHOSEN_ROLE, role)
    if image.metadata.get(TAKEN_FROM) == BY_HAND or node.GetAttribute(SOURCE + TAKEN_FROM) == BY_HAND:
        taken = image.acquired_utc_s
        node.SetAttribute(ACQUIRED, None if taken is None else recipes.utc(taken))
        node.SetAttribute(SOURCE + TAKEN_FROM, None if taken is None else BY_HAND)


def roleOf(node: Any) -> Role | None:
    """What the node was used as before, in this session or in the one that is saved with the scene."""
    known = node.GetAttribute(CHOSEN_ROLE) or (node.GetAttribute(ROLE) or "").removeprefix("intraop.")
    return next((role for role in get_args(Role) if role == known), None)


def isByHand(node: Any) -> bool:
    """Whether a person may enter the time: nothing else tells it."""
    return takenOf(node) is None or node.GetAttribute(SOURCE + TAKEN_FROM) == BY_HAND


def dicomFile(node: Any) -> str:
    """Path of a file of the series that Slicer's DICOM database knows the node from; empty when there is none.

    Main thread. The database may be absent, closed, or that of another computer than the scene comes from.
    """
    uids = (node.GetAttribute(INSTANCES) or "").split()
    database = getattr(slicer, "dicomDatabase", None)
    if not uids or database is None or not database.isOpen:
        return ""
    return str(database.fileForInstance(uids[0]) or "")


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
    names = {"volume": node.GetName(), "transform": above.GetName()}
    if not above.IsTransformToWorldLinear():
        raise SessionError(
            _(
                "'{volume}' is bent by the transform '{transform}': it does not show what the scanner saw. Choose the "
                "volume without it"
            ).format(**names)
        )
    matrix = conversion.vtkMatrix(np.eye(4))
    above.GetMatrixTransformToWorld(matrix)
    try:
        return checked_rigid(slicer.util.arrayFromVTKMatrix(matrix), above.GetName())
    except DataError as error:
        raise SessionError(
            _("'{volume}' hangs under a transform that is no rigid motion: {why}. Choose it without").format(
                volume=node.GetName(), why=error
            )
        ) from error
