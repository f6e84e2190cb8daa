"""What a pair of scans says of a resection: the residual, its course of enhancement, and the margin of its cavity."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from IntraopMRIReconstructionLib.data import Image, Progress, Verdict
from IntraopMRIReconstructionLib.errors import AssessmentError, SessionError

from ..assess.carry import Mapping
from ..assess.course import EARLY_MIN, courses, no_course
from ..assess.margin import Margin, resection_margin
from ..assess.resection import cavity_volume
from ..assess.residual import assess_residual
from ..register.carry_over import shift_at, uncertainty_at
from ..register.deformable import DeformableRegistration
from ..register.rigid import RigidRegistration
from .pair import ScanPair
from .updates import ResidualFound, ShiftFound

#: How far the brain may have moved at the tumour in a way that a rigid registration does not know (mm).
UNMODELLED_SHIFT_MM = 5.0
LATE = (
    f"The contrast scans are more than {EARLY_MIN:.0f} min apart: tumour may be losing agent by now, and tissue that "
    "surgery damaged goes on gaining it, so a climb does not speak for tumour."
)
#: Stands in the place of a number that comes behind the residual until it is measured.
TO_COME = "still to be measured"


def shift_found(rigid: RigidRegistration, found: DeformableRegistration, image: Image, tumour: Image) -> ShiftFound:
    """The brain shift in ``image`` beyond its rigid pose, with the verdict on both."""
    verdict = Verdict(rigid.verdict.reasons + found.verdict.reasons)
    cavity = cavity_volume(found.cavity, (found.fixed_uid, found.moving_uid))
    shift, error_mm = shift_at(found, tumour)
    return ShiftFound(rigid, found, image, verdict, shift, cavity, error_mm)


def residual_found(pair: ScanPair, tumour: Image, progress: Progress) -> ResidualFound:
    """The residual on the registered contrast scan, each course of enhancement still to be measured by
    :func:`with_courses`. Raises SessionError when it has no native scan to compare with.
    """
    contrast, native, placed = pair.images["contrast"], pair.native(), pair.placed["contrast"]
    shift, found = placed.shift, placed.deformable
    if shift is None:
        mapping: Mapping = placed.rigid.intraop_from_preop
        error_mm, unknown_mm = placed.rigid.residual_mm, UNMODELLED_SHIFT_MM
    else:
        mapping = shift.deformable.intraop_from_preop_points
        error_mm, unknown_mm = shift.error_mm, 0.0
    assessment = assess_residual(
        contrast,
        native,
        tumour,
        mapping,
        registration_error_mm=error_mm,
        expected_shift_mm=unknown_mm,
        progress=progress,
        cavity=None if found is None else found.cavity,
        brain=None if found is None else found.brain,
    )
    cavity = found is not None and bool(found.cavity.array.any())
    result = ResidualFound(assessment, pair.notes(native), cavity)
    try:
        earlier = pair.earlier()
    except SessionError as error:
        return without_courses(result, str(error))
    numbers = [piece.number for piece in assessment.listed] if earlier else []
    return replace(result, courses={n: no_course(n, TO_COME, (contrast.uid, native.uid)) for n in numbers})


def with_courses(pair: ScanPair, found: ResidualFound, progress: Progress) -> ResidualFound:
    """The same with the course of each piece since earlier contrast scans of this look; why there is none is a note.

    Raises Cancelled.
    """
    scans = (*pair.earlier(), pair.images["contrast"])
    try:
        since = courses(found.assessment.listed, pair.native(), scans, progress)
    except AssessmentError as error:
        return without_courses(found, str(error))
    late = any(course.late for course in since.values())
    return replace(found, courses=since, notes=(*found.notes, *(LATE,) * late))


def without_courses(found: ResidualFound, why: str) -> ResidualFound:
    """The same without a course of enhancement, and a note that says ``why``."""
    return replace(found, courses={}, notes=(*found.notes, f"No course of enhancement is given: {why}."))


def margin_found(pair: ScanPair, found: DeformableRegistration, tumour: Image) -> Margin:
    """How far the cavity ``found`` in the contrast scan reaches beyond the tumour's border.

    The wall is looked for in the native scan where it is one of the same position: with agent, tumour that is left is
    as bright as clot.
    """
    try:
        native: Image | None = pair.native()
    except SessionError:
        native = None
    uncertainty = partial(uncertainty_at, found.uncertainty)
    return resection_margin(tumour, found.cavity, found.brain, found.intraop_from_preop_points, uncertainty, native)
