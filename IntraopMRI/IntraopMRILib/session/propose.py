"""A proposal of non-enhancing tumour that is left, on the registered scan: to be reviewed by a person, no result.

What a person makes of it becomes the outline of the measure 'nonenhancing'; how far that differs from the proposal is
said beside the numbers, so that one that was only nodded through shows as such.

A T2 or FLAIR beside the registered scan was taken minutes before or after it, and headers know nothing of a patient
who has moved meanwhile: where it lies is measured by a rigid registration of both.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from IntraopMRIReconstructionLib.data import Image, Level, Progress, no_progress
from IntraopMRIReconstructionLib.errors import DataError, RegistrationError, SessionError
from IntraopMRIReconstructionLib.geometry import apply, farthest_apart_mm, invert, rotation_angle_deg
from scipy import ndimage

from ..assess.proposal import Proposal, propose_non_enhancing
from ..register.carry_over import shift_at
from ..register.deformable import DeformableRegistration
from ..register.rigid import register_rigid
from ..scan_facts import FRAME
from ..workflow.record import SessionRecord
from .measures import Found
from .pair import LONGEST_LOOK_S, MOVED_MM
from .plan import Plan
from .products import check_placed, is_map

#: Less than this is how a label looks on another grid, and no change, cm3.
LEAST_CM3 = 0.05
#: A head in its holder moves less than this between two scans (mm at the tumour, degrees): beyond it was positioned
#: anew, or the scan is one of another moment.
FARTHEST_MM, FARTHEST_DEG = 10.0, 5.0
#: Kind of the event that says where the scan of a proposal lies.
POSITION = "position"
#: Part of the progress of a proposal that is over when it is known where its scan lies.
LAID = 0.4


@dataclass(frozen=True, eq=False)
class Laid:
    """A scan in the position of the registered one: ``error_mm`` of that at the tumour, ``text``: how it is known."""

    scan: Image
    error_mm: float
    text: str


def proposed(
    plan: Plan,
    image: Image,
    found: DeformableRegistration | None,
    scan: Image,
    flair: Image | None,
    progress: Progress,
    threads: int = 2,
) -> tuple[Proposal, str]:
    """The proposal on ``scan``, T2 or FLAIR, in the frame of the registered ``image``; and why it lies there, in words.

    ``found``: the brain shift in ``image``. ``flair``: preoperative T2 or FLAIR in the frame of the plan. Raises
    SessionError or AssessmentError: why there is none; Cancelled.
    """
    if plan.tumour is None:
        raise SessionError("the plan has no tumour: nothing is proposed without its outline from before the operation")
    if found is None:
        raise SessionError(
            f"the brain shift is not followed in '{image.name}', so neither the cavity nor the tumour's place now is "
            "known: nothing is proposed; wait for it, or outline by hand"
        )
    _check_together(plan, image, scan, flair)
    if flair is not None and flair.patient_id not in ("", plan.patient_id):
        raise SessionError(f"'{flair.name}' is of patient '{flair.patient_id}', the session of '{plan.patient_id}'")
    tumour_mm = apply(found.intraop_from_preop, plan.operated_mm)
    laid = laid_on(image, scan, tumour_mm, lambda part, what: progress(LAID * part, what), threads)
    proposal = propose_non_enhancing(
        laid.scan,
        plan.tumour,
        found.intraop_from_preop_points,
        float(np.hypot(shift_at(found, plan.tumour)[1], laid.error_mm)),
        found.cavity,
        found.brain,
        plan.preoperative,
        flair,
        lambda part, what: progress(LAID + (1.0 - LAID) * part, what),
    )
    return replace(proposal, rests_on=f"{proposal.rests_on} {laid.text}"), laid.text


def laid_on(
    image: Image, scan: Image, tumour_mm: npt.NDArray[np.float64], progress: Progress = no_progress, threads: int = 2
) -> Laid:
    """``scan`` where it lies in the position of the registered ``image`` of the same look.

    ``tumour_mm``: RAS points (n, 3) of ``image`` around the tumour. Within MOVED_MM there the scan is taken as its
    header says, a patient who has moved farther is followed only by a registration that is good. The voxels are not
    resampled. Raises SessionError with the measured mm and degrees when it is not certain; Cancelled.
    """
    names = f"'{scan.name}' as in '{image.name}'"
    if scan is image:
        return Laid(scan, 0.0, f"'{scan.name}' is the registered scan itself.")
    try:
        found = register_rigid(scan, image, initial=np.eye(4), progress=progress, threads=threads)
    except (DataError, RegistrationError) as error:
        raise SessionError(
            f"whether the patient lay in {names} cannot be told: {error}; nothing is proposed"
        ) from error
    verdict, turn_deg = found.verdict, rotation_angle_deg(found.intraop_from_preop)
    off_mm = farthest_apart_mm(found.intraop_from_preop, np.eye(4), tumour_mm)
    off = f"{off_mm:.1f} mm at the tumour, {turn_deg:.1f} deg"
    remedy = f"nothing is proposed: repeat it in the position of '{image.name}', or outline by hand"
    if verdict.level is Level.REFUSED:
        raise SessionError(
            f"whether the patient lay in {names} cannot be told, their registration ({off}) was {verdict.text}; "
            f"{remedy}"
        )
    if off_mm <= MOVED_MM:
        doubt = "" if verdict.level is Level.GOOD else f"; look at both over one another first ({verdict.text})"
        return Laid(scan, off_mm, f"The patient lay in {names}, by a rigid registration of both: {off}{doubt}.")
    if off_mm > FARTHEST_MM or turn_deg > FARTHEST_DEG:
        raise SessionError(
            f"the patient did not lie in {names} ({off}): positioned anew, or a scan of another moment; {remedy}"
        )
    if verdict.level is not Level.GOOD:
        raise SessionError(
            f"the patient did not lie in {names} ({off}), and the registration that says so is uncertain "
            f"({verdict.text}); {remedy}"
        )
    there = replace(scan, ras_from_ijk=found.preop_from_intraop @ scan.ras_from_ijk)
    return Laid(
        there,
        found.residual_mm,
        f"The patient did not lie in {names} ({off}): it is laid on that by a good rigid registration of both, whose "
        f"blocks agree within {found.residual_mm:.1f} mm.",
    )


def with_review(found: Found, proposal: Image, outline: Image, record: SessionRecord) -> Found:
    """A measure by an ``outline`` that began as the ``proposal``: what a person has changed, where its scan lies."""
    where = next((event.text for event in reversed(record.events) if event.kind == POSITION), "")
    return replace(found, proposed=reviewed(proposal, outline), note=f"{found.note} {where}".strip())


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


def _check_together(plan: Plan, image: Image, scan: Image, flair: Image | None) -> None:
    """Raise SessionError unless ``scan`` may be one of the same patient and look as the registered ``image``."""
    if scan is image:
        return
    name = scan.name
    if any(np.array_equal(before.array, scan.array) for before in (plan.preoperative, flair) if before is not None):
        raise SessionError(f"'{name}' is from before the operation: choose the T2 or FLAIR scan of now")
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
