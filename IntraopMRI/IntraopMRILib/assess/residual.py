"""Residual enhancing tumour on an intraoperative contrast scan: where it is, and how much with which interval."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from IntraopMRIReconstructionLib.data import Image, Measurement, Progress, no_progress
from IntraopMRIReconstructionLib.errors import AssessmentError, Cancelled
from IntraopMRIReconstructionLib.geometry import apply
from scipy import ndimage

from .carry import Mapping, box_around, carried_points, occupied, require_seen
from .enhancement import Enhancement, on_grid, require_agent, subtraction
from .interval import LeftOpen, interval_cm3, left_open, likely_cm3
from .labels import checked_label
from .outline import CAVITY_SIGNAL, SMOOTH_VOXELS, THIN_MM, outline
from .pieces import Piece, bed_of, counted, listed, pieces_of
from .resection import RANO_SOURCE, RanoClass, extent_of_resection, rano_class

Array = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

#: Normal tissue around the region that the gain and noise fits look at.
CONTEXT_MM = 30.0
#: Even an ideal registration leaves the outline of a segmentation this uncertain (about the agreement of raters).
LEAST_MARGIN_MM = 2.0
#: Of what would be gone, at least this part shows as something else than tissue: fluid, air, clot. A tumour that never
#: enhanced looks the same after as before, and nobody can call it resected.
LEAST_SHOWN_GONE = 0.1
#: When less than this part of the tumour would be gone, its border alone may be what makes the difference.
LEAST_GONE = 0.25
#: Clot is brighter than this, of the signal of usual tissue without agent.
CLOT_SIGNAL = 1.4
#: A smaller tumour is an outline that slipped: its extent of resection would be that of a few voxels, cm3.
LEAST_TUMOUR_CM3 = 0.01


@dataclass(frozen=True, eq=False)
class ResidualAssessment:
    """What is left, on the grid of the contrast scan.

    ``residual``, ``resected``: labels 0 / 1, uint8 (k, j, i). ``resected`` is the carried-over tumour outside the
    residual, empty when nothing shows that it is gone. ``volume_cm3`` with ``interval_cm3`` and the narrower
    ``likely_cm3``, see :mod:`.interval`; ``residual_centroid_ras_mm`` (3,) RAS mm: inside the largest piece, near to
    its centre, so that there is residual at this place; None without any.
    ``rano``: class with the range that the interval allows. ``measurements``: all of it for a person.
    ``pieces``: all that ``residual`` consists of, the largest first, see :mod:`.pieces`. ``excluded``: numbers of those
    that a person has judged not to be tumour, which nothing else counts; ``left``: what the outline of all leaves open.
    """

    residual: Image
    resected: Image
    volume_cm3: float
    interval_cm3: tuple[float, float]
    likely_cm3: tuple[float, float]
    preop_volume_cm3: float
    rano: RanoClass
    residual_centroid_ras_mm: npt.NDArray[np.float64] | None
    measurements: tuple[Measurement, ...]
    pieces: tuple[Piece, ...] = ()
    excluded: frozenset[int] = frozenset()
    left: LeftOpen | None = None
    nce_cm3: float | None = None

    @property
    def listed(self) -> tuple[Piece, ...]:
        """The pieces that are large enough to be told apart from a vessel."""
        return listed(self.pieces)[0]


def assess_residual(
    contrast: Image,
    native: Image,
    tumour: Image,
    intraop_from_preop: Mapping,
    registration_error_mm: float,
    expected_shift_mm: float = 0.0,
    nce_cm3: float | None = None,
    progress: Progress = no_progress,
    cavity: Image | None = None,
    brain: Image | None = None,
) -> ResidualAssessment:
    """Find enhancing tumour that is left inside the carried-over tumour region.

    ``contrast``: intraoperative scan with agent; ``native``: the same without, the patient in the same position. Both
    are needed: alone, the contrast scan does not tell enhancement from blood, fat and grey matter.
    ``tumour``: label on the preoperative grid, 1 enhancing, 2 necrotic core, 3 and above non-enhancing infiltration
    (not searched), or one plain label.
    ``intraop_from_preop``: (4, 4) or a function on RAS points (n, 3). ``registration_error_mm`` at the tumour;
    ``expected_shift_mm``: brain shift that the registration does not model (0 when it is deformable).
    ``nce_cm3``: non-enhancing residual when somebody assessed it.
    ``cavity``, ``brain``: intraoperative labels where they are known; they only say where the pieces lie.

    Method: contrast - native after a smooth gain fit, robust threshold against the surrounding tissue, hysteresis,
    half-level boundary, thin sheets, faint pieces and structures that leave the region removed, partial volume counted.
    Interval: see :mod:`.interval`, with the effect of ``registration_error_mm``.
    Where neither a cavity nor clot shows that something is gone, there is no extent of resection.
    Raises AssessmentError for an empty tumour, a region outside the scan, a contrast scan in which no agent is seen, or
    when nothing enhances where no cavity is;
    Cancelled when ``progress`` says so.
    """
    _check(contrast, native, tumour, registration_error_mm, expected_shift_mm)
    _tell(progress, 0.0, "carrying the tumour over")
    labels = np.asarray(tumour.array)
    enhancing = labels == 1 if (labels > 1).any() else labels > 0
    if not enhancing.any():
        raise AssessmentError(
            "the tumour segmentation has no enhancing part (label 1): segment it before the assessment"
        )
    margin = max(LEAST_MARGIN_MM, registration_error_mm + expected_shift_mm)
    points = carried_points((labels == 1) | (labels == 2) | enhancing, tumour, contrast, intraop_from_preop)
    box = box_around(points, contrast, margin + registration_error_mm + CONTEXT_MM)
    carried = occupied(points, box)
    if not carried.any():
        raise AssessmentError("the carried-over tumour lies outside the intraoperative scan: check the registration")
    require_seen(points, contrast, contrast, "scan with contrast agent")
    require_seen(points, contrast, native, "scan without contrast agent")
    spacing = np.asarray(contrast.spacing_mm)[::-1]
    distance = ndimage.distance_transform_edt(~carried, sampling=spacing).astype(np.float32)

    _tell(progress, 0.3, "measuring the enhancement")
    scan = on_grid(contrast, contrast, box)
    away = distance > margin + spacing.max()
    enhancement = subtraction(scan, on_grid(native, contrast, box), away, contrast.ras_from_ijk)
    require_agent(enhancement, away)

    _tell(progress, 0.6, "outlining the residual")
    found = outline(enhancement, distance, margin, registration_error_mm, spacing, away)
    voxel_cm3 = contrast.voxel_volume_ml
    volume = found.volume_voxels * voxel_cm3
    sure = distance <= max(0.0, margin - registration_error_mm - expected_shift_mm)
    left = left_open(found, sure)
    doubt = _not_shown_gone(enhancement, carried, found.mask)
    if doubt and not found.mask.any():
        raise AssessmentError(
            f"nothing enhances where the tumour was, but {doubt}: no residual is given. When the tumour did not "
            "enhance before surgery, outline what is left of it by hand"
        )
    residual = np.zeros(contrast.array.shape, dtype=np.uint8)
    resected = np.zeros_like(residual)
    residual[box] = found.mask
    if not doubt:
        resected[box] = carried & ~found.mask
    based_on = (contrast.uid, native.uid, tumour.uid)
    bed = bed_of(apply(contrast.ras_from_ijk, points), cavity, brain)
    pieces = pieces_of(found, sure, box, contrast, bed)
    _tell(progress, 1.0, "residual assessed")
    numbers, shown = _numbers(
        volume, left, voxel_cm3, spacing, float(enhancing.sum()) * tumour.voxel_volume_ml, nce_cm3, doubt, based_on
    )
    thin_cm3 = float((found.thin & ~found.mask).sum()) * voxel_cm3
    thin = Measurement(
        "Thin, faint or passing enhancement, not counted",
        thin_cm3,
        "cm3",
        f"Sheets under {THIN_MM:g} mm, faint pieces, structures leaving the region: mostly surgery, vessels, dura",
        "PMC8392564",
        based_on=based_on,
    )
    small = listed(pieces)[1]
    return ResidualAssessment(
        residual=contrast.with_array(residual, "residual"),
        resected=contrast.with_array(resected, "resected"),
        residual_centroid_ras_mm=pieces[0].at_ras_mm if pieces else None,
        pieces=pieces,
        left=left,
        measurements=(*shown, thin, *((small,) if small is not None else ())),
        **numbers,
    )


def excluding(whole: ResidualAssessment, numbers: frozenset[int]) -> ResidualAssessment:
    """The same without the pieces of these ``numbers``, which a person has judged not to be tumour.

    ``whole``: the assessment in which all pieces count. What its numbers leave out is said in their definitions.
    Raises AssessmentError for what is no listed piece of it.
    """
    out = [piece for piece in whole.listed if piece.number in numbers]
    if len(out) < len(numbers) or whole.excluded or whole.left is None:
        known = ", ".join(str(piece.number) for piece in whole.listed)
        raise AssessmentError(f"pieces {sorted(numbers)} cannot be excluded: the listed ones are {known or 'none'}")
    if not out:
        return whole
    kept = [piece for piece in whole.pieces if piece.number not in numbers]
    left, residual = whole.left, whole.residual.array.copy()
    for piece in out:
        left = left.without(piece.left)
        residual[piece.box_in(whole.residual)][piece.label.array != 0] = 0
    out_cm3 = sum(piece.volume.value or 0.0 for piece in out)
    words = f"excluding {counted(len(out))} of {out_cm3:.2f} cm3 judged not tumour by a person"
    extent, rest = whole.measurements[1], whole.measurements[2:]
    made, shown = _numbers(
        sum(piece.volume.value or 0.0 for piece in kept),
        left,
        whole.residual.voxel_volume_ml,
        np.asarray(whole.residual.spacing_mm)[::-1],
        whole.preop_volume_cm3,
        whole.nce_cm3,
        extent.missing_because if extent.value is None else "",
        whole.measurements[0].based_on,
        words,
    )
    lows, highs = zip(*(piece.volume.interval or (0.0, 0.0) for piece in out), strict=True)
    judged = Measurement(
        "Judged not tumour by a person, not counted",
        out_cm3,
        "cm3",
        f"{counted(len(out))} of the enhancing volume that was measured, such as a vessel, dura or clot; for this scan",
        interval=(sum(lows), sum(highs)),
        based_on=whole.measurements[0].based_on,
    )
    return replace(
        whole,
        residual=whole.residual.with_array(residual),
        residual_centroid_ras_mm=kept[0].at_ras_mm if kept else None,
        excluded=frozenset(numbers),
        measurements=(*shown, judged, *rest),
        **made,
    )


def _numbers(
    volume: float,
    left: LeftOpen,
    voxel_cm3: float,
    spacing: npt.NDArray[np.float64],
    preop: float,
    nce_cm3: float | None,
    doubt: str,
    based_on: tuple[str, ...],
    excluded: str = "",
) -> tuple[dict[str, Any], tuple[Measurement, Measurement]]:
    """The fields of an assessment that rest on the volume, and the first two of its measurements, for a person.

    ``excluded``: what the volume leaves out, in words.
    """
    known = volume, left, voxel_cm3, spacing
    interval, likely = interval_cm3(*known), likely_cm3(*known)
    extent, rano = extent_of_resection(preop, volume, interval, based_on), rano_class(volume, preop, interval, nce_cm3)
    if excluded:
        alone = f"; {extent.value:.0f} % by that exclusion alone, not by what the scan shows" if volume == 0 else ""
        extent = replace(extent, definition=f"{extent.definition}; {excluded}{alone}")
    if doubt:
        why = f"{doubt}: it may be tumour that never enhanced" if not excluded else doubt
        extent, rano = replace(extent, value=None, interval=None, missing_because=why), replace(rano, worst="4")
    residual = Measurement(
        "Residual enhancing tumour",
        volume,
        "cm3",
        "Enhancing volume (contrast minus native scan) inside the carried-over tumour, partial volume counted"
        f"{', ' + excluded if excluded else ''}; "
        f"interval: a voxel at the boundary, edges under {THIN_MM:g} mm, doubtful pieces, what the registration "
        f"error would take out of the region; likely {likely[0]:.2f} to {likely[1]:.2f} cm3, as in 95 % of "
        "simulated operations",
        RANO_SOURCE,
        interval,
        based_on=based_on,
    )
    fields = {
        "volume_cm3": volume,
        "interval_cm3": interval,
        "likely_cm3": likely,
        "preop_volume_cm3": preop,
        "nce_cm3": nce_cm3,
        "rano": rano,
    }
    return fields, (residual, extent)


def _not_shown_gone(enhancement: Enhancement, carried: Mask, residual: Mask) -> str:
    """Why nobody can say that the rest of the carried-over tumour was removed, in words; empty when it is seen."""
    gone = carried & ~ndimage.binary_dilation(residual)
    if gone.sum() <= LEAST_GONE * carried.sum():
        return ""
    signal = ndimage.gaussian_filter(enhancement.tissue, SMOOTH_VOXELS)[gone]
    shown = float(((signal < CAVITY_SIGNAL) | (signal > CLOT_SIGNAL)).mean())
    if shown >= LEAST_SHOWN_GONE:
        return ""
    return f"only {100 * shown:.0f} % of what would be gone shows a cavity or clot, the rest looks like tissue"


def _check(contrast: Image, native: Image, tumour: Image, error_mm: float, shift_mm: float) -> None:
    for name, image in (("contrast scan", contrast), ("native scan", native), ("tumour segmentation", tumour)):
        if image.array.ndim != 3:
            raise AssessmentError(f"the {name} must be one volume (k, j, i), got shape {image.array.shape}")
        if not np.isfinite(image.array).all():
            raise AssessmentError(
                f"the {name} '{image.name}' contains values that are not finite: reconstruct it again"
            )
    inside = checked_label(tumour, "tumour segmentation") > 0
    if not inside.any():
        raise AssessmentError("the tumour segmentation is empty: outline the tumour on the preoperative volume first")
    if float(inside.sum()) * tumour.voxel_volume_ml < LEAST_TUMOUR_CM3:
        raise AssessmentError(
            f"the tumour segmentation has {int(inside.sum())} voxels, {inside.sum() * tumour.voxel_volume_ml:.4f} cm3: "
            f"less than {LEAST_TUMOUR_CM3} cm3 is no tumour to compare with, check the segment"
        )
    for name, value in (("registration_error_mm", error_mm), ("expected_shift_mm", shift_mm)):
        if not (np.isfinite(value) and value >= 0):
            raise AssessmentError(f"{name} must be zero or more millimetres, got {value}")


def _tell(progress: Progress, fraction: float, what: str) -> None:
    if not progress(fraction, what):
        raise Cancelled("the assessment of the residual was stopped")
