"""A finished volume that a person chooses as a scan: what must hold before it goes the way of one that was sent.

On the wire, the order in which scans arrive shows which was taken first, and the link checks geometry and identity. A
person may choose any volume in any order: here the same is checked, and times must be known to take its place.
"""

from __future__ import annotations

import time

import numpy as np
from IntraopMRIReconstructionLib.data import Image
from IntraopMRIReconstructionLib.errors import SessionError, WireError
from IntraopMRIReconstructionLib.reconstruct.quantity_image import UNIT
from IntraopMRIReconstructionLib.wire.adapters import message_from_image
from IntraopMRIReconstructionLib.wire.header import RefusedMessage
from IntraopMRIReconstructionLib.wire.intake import IdentityGuard
from IntraopMRIReconstructionLib.wire.trust import check_message

from ..scan_facts import AGENT
from .plan import Plan
from .products import check_placed, is_map
from .updates import Role

#: Fewer slices are a localiser or a 2D picture: nothing can be registered to it, and no volume measured on it.
FEWEST_VOXELS = 8
#: Clocks of a scanner and of this computer may differ by so much (s).
CLOCKS_DIFFER_S = 300.0
WORDS: dict[Role, str] = {"native": "without contrast agent", "contrast": "with contrast agent"}


def check_offer(image: Image, role: Role, plan: Plan, guard: IdentityGuard, other: Image | None) -> None:
    """Raise SessionError, with both values where two contradict, when ``image`` cannot be the scan of that role.

    ``other``: the newest scan of the other role. ``guard``: patient and frame of reference of the session; it learns
    the frame from the first volume that names one.
    """
    name = image.name
    if image.array.ndim != 3:
        raise SessionError(f"'{name}' holds {image.array.shape[-1]} values a voxel: choose a volume of grey values")
    if is_map(image):
        raise SessionError(
            f"'{name}' holds {image.metadata[UNIT]}, no picture of the patient: choose the scan that it was made from"
        )
    check_placed(name, image.metadata)
    size = image.array.shape[::-1]
    if min(size) < FEWEST_VOXELS:
        raise SessionError(
            f"'{name}' has {' × '.join(map(str, size))} voxels, at least {FEWEST_VOXELS} along each axis are needed: "
            "choose the 3D series, not a slice or a localiser"
        )
    if image.array.dtype.kind not in "iuf":
        raise SessionError(f"'{name}' holds {image.array.dtype}, no grey values: choose another volume")
    if not np.isfinite(image.array).all():
        raise SessionError(f"'{name}' holds voxels that are not numbers (NaN or infinite): export the volume again")
    if image.array.min() == image.array.max():
        raise SessionError(f"'{name}' is empty, every voxel is {image.array.flat[0]}: choose another volume")
    if _same(image, plan.preoperative):
        raise SessionError(f"'{name}' is the preoperative volume itself: choose a scan that was taken in the operation")
    if other is not None and _same(image, other):
        taken: Role = "contrast" if role == "native" else "native"
        raise SessionError(
            f"'{name}' is the scan {WORDS[taken]} already: choose another volume; to exchange both, begin anew"
        )
    agent = image.metadata.get(AGENT, "")
    if role == "native" and agent:
        raise SessionError(
            f"'{name}' cannot be the scan without contrast agent: its header names the agent '{agent}'. "
            "Choose the series from before the injection"
        )
    if image.acquired_utc_s is not None and image.acquired_utc_s > time.time() + CLOCKS_DIFFER_S:
        raise SessionError(
            f"'{name}' would have been taken {(image.acquired_utc_s - time.time()) / 60:.0f} min from now: correct "
            "the time"
        )
    modality = image.metadata.get("Modality", "")
    if modality not in ("", "MR"):
        raise SessionError(f"'{name}' is {modality}, no MR: choose the series of the intraoperative MRI")
    if image.patient_id and image.patient_id != plan.patient_id:
        raise SessionError(
            f"'{name}' is of patient '{image.patient_id}', the session of '{plan.patient_id}': it is not used"
        )
    _check_as_sent(image, guard)


def _same(image: Image, other: Image) -> bool:
    """Whether two images have the same voxels, wherever they lie."""
    return image.array.shape == other.array.shape and bool(np.array_equal(image.array, other.array))


def _check_as_sent(image: Image, guard: IdentityGuard) -> None:
    """The rules of the wire for geometry, patient and frame of reference."""
    try:
        message = check_message(message_from_image(image, image.name, version=2))
        guard.check(message)
    except WireError as error:
        anew = isinstance(error, RefusedMessage) and error.reason == "frame"
        why = "the patient was positioned anew since the other scans" if anew else f"'{image.name}' is not used"
        raise SessionError(f"{why}: {error}") from error
