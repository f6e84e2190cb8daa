"""A proposal of non-enhancing tumour that is left, on the registered scan: to be reviewed by a person, no result.

What a person makes of it becomes the outline of the measure 'nonenhancing'; how far that differs from the proposal is
said beside the numbers, so that one that was only nodded through shows as such.
"""

from __future__ import annotations

import numpy as np
from IntraopMRIReconstructionLib.data import Image, Progress
from IntraopMRIReconstructionLib.errors import SessionError
from IntraopMRIReconstructionLib.geometry import apply, invert
from scipy import ndimage

from ..assess.proposal import Proposal, propose_non_enhancing
from ..register.carry_over import shift_at
from ..register.deformable import DeformableRegistration
from ..scan_facts import FRAME
from .pair import LONGEST_LOOK_S
from .plan import Plan
from .products import check_placed, is_map

#: Less than this is how a label looks on another grid, and no change, cm3.
LEAST_CM3 = 0.05


def proposed(
    plan: Plan,
    image: Image,
    found: DeformableRegistration | None,
    scan: Image,
    flair: Image | None,
    progress: Progress,
) -> Proposal:
    """The proposal on ``scan``, T2 or FLAIR, in the frame of the registered ``image``, the brain shift ``found`` there.

    ``flair``: preoperative T2 or FLAIR in the frame of the plan. Raises SessionError or AssessmentError: why there is
    none; Cancelled.
    """
    if plan.tumour is None:
        raise SessionError("the plan has no tumour: nothing is proposed without its outline from before the operation")
    if found is None:
        raise SessionError(
            f"the brain shift is not followed in '{image.name}', so neither the cavity nor the tumour's place now is "
            "known: nothing is proposed; wait for it, or outline by hand"
        )
    _check_together(plan, image, scan)
    if flair is not None and flair.patient_id not in ("", plan.patient_id):
        raise SessionError(f"'{flair.name}' is of patient '{flair.patient_id}', the session of '{plan.patient_id}'")
    error_mm = shift_at(found, plan.tumour)[1]
    return propose_non_enhancing(
        scan,
        plan.tumour,
        found.intraop_from_preop_points,
        error_mm,
        found.cavity,
        found.brain,
        plan.preoperative,
        flair,
        progress,
    )


def reviewed(proposal: Image, outline: Image) -> str:
    """What a person has changed of the proposal in an ``outline``, in words; labels on any grids of one frame."""
    where = np.argwhere(np.asarray(outline.array) != 0)[:, ::-1]
    kept = _inside(proposal, apply(outline.ras_from_ijk, where)) if len(where) else np.zeros(0, dtype=bool)
    there = np.argwhere(np.asarray(proposal.array) != 0)[:, ::-1]
    stays = _inside(outline, apply(proposal.ras_from_ijk, there)) if len(there) else np.zeros(0, dtype=bool)
    added = float((~kept).sum()) * outline.voxel_volume_ml
    taken = float((~stays).sum()) * proposal.voxel_volume_ml
    return "unchanged" if max(added, taken) < LEAST_CM3 else f"{added:.2f} cm3 added, {taken:.2f} cm3 taken away"


def _inside(label: Image, points_ras: np.ndarray) -> np.ndarray:
    index = apply(invert(label.ras_from_ijk), points_ras)[:, ::-1].T
    return np.asarray(ndimage.map_coordinates((label.array != 0).astype(np.uint8), index, order=0)) > 0


def _check_together(plan: Plan, image: Image, scan: Image) -> None:
    """Raise SessionError unless ``scan`` may be one of the same patient in the position of the registered ``image``."""
    if scan is image:
        return
    name = scan.name
    if is_map(scan):
        raise SessionError(f"'{name}' holds a map, no picture of the patient: choose the T2 or FLAIR scan")
    check_placed(name, scan.metadata)
    if scan.patient_id not in ("", plan.patient_id):
        raise SessionError(f"'{name}' is of patient '{scan.patient_id}', the session of '{plan.patient_id}'")
    frames = image.metadata.get(FRAME, ""), scan.metadata.get(FRAME, "")
    if all(frames) and frames[0] != frames[1]:
        raise SessionError(
            f"'{name}' has another frame of reference than '{image.name}': the patient was positioned anew between "
            "them; nothing is proposed"
        )
    times = image.acquired_utc_s, scan.acquired_utc_s
    if times[0] is not None and times[1] is not None and abs(times[0] - times[1]) > LONGEST_LOOK_S:
        minutes = abs(times[0] - times[1]) / 60.0
        raise SessionError(
            f"'{name}' was taken {minutes:.0f} min apart from '{image.name}': the operation has gone on between them; "
            "nothing is proposed"
        )
