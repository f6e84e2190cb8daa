"""Residual enhancing tumour on an intraoperative contrast scan: where it is, and how much with which interval."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from IntraopMRIReconstructionLib.data import Image, Measurement, Progress, no_progress
from IntraopMRIReconstructionLib.errors import AssessmentError, Cancelled
from IntraopMRIReconstructionLib.geometry import apply, invert
from scipy import ndimage

from .carry import Mapping, carried_points, occupied
from .enhancement import Enhancement, on_grid, require_agent, subtraction
from .interval import interval_cm3, left_open, likely_cm3
from .labels import checked_label
from .outline import CAVITY_SIGNAL, SMOOTH_VOXELS, THIN_MM, Outline, outline
from .resection import RANO_SOURCE, RanoClass, extent_of_resection, rano_class

Array = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

#: Normal tissue around the region that the gain and noise fits look at.
CONTEXT_MM = 30.0
#: Even an ideal registration leaves the outline of a segmentation this uncertain (about the agreement of raters).
LEAST_MARGIN_MM = 2.0
#: A scan may end this part of the tumour early (an edge of the field of view at its border); what it does not show,
#: nobody can call resected.
MOST_UNSEEN = 0.01
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


def assess_residual(
    contrast: Image,
    native: Image,
    tumour: Image,
    intraop_from_preop: Mapping,
    registration_error_mm: float,
    expected_shift_mm: float = 0.0,
    nce_cm3: float | None = None,
    progress: Progress = no_progress,
) -> ResidualAssessment:
    """Find enhancing tumour that is left inside the carried-over tumour region.

    ``contrast``: intraoperative scan with agent; ``native``: the same without, the patient in the same position. Both
    are needed: alone, the contrast scan does not tell enhancement from blood, fat and grey matter.
    ``tumour``: label on the preoperative grid, 1 enhancing, 2 necrotic core, 3 and above non-enhancing infiltration
    (not searched), or one plain label.
    ``intraop_from_preop``: (4, 4) or a function on RAS points (n, 3). ``registration_error_mm`` at the tumour;
    ``expected_shift_mm``: brain shift that the registration does not model (0 when it is deformable).
    ``nce_cm3``: non-enhancing residual when somebody assessed it.

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
    box = _box(points, contrast, margin + registration_error_mm + CONTEXT_MM)
    carried = occupied(points, box)
    if not carried.any():
        raise AssessmentError("the carried-over tumour lies outside the intraoperative scan: check the registration")
    _require_seen(points, contrast, contrast, "scan with contrast agent")
    _require_seen(points, contrast, native, "scan without contrast agent")
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
    known = volume, left_open(found, sure), voxel_cm3, spacing
    interval, likely = interval_cm3(*known), likely_cm3(*known)
    doubt = _not_shown_gone(enhancement, carried, found.mask)
    if doubt and not found.mask.any():
        raise AssessmentError(
            f"nothing enhances where the tumour was, but {doubt}: no residual is given. When the tumour did not "
            "enhance before surgery, outline what is left of it by hand"
        )
    _tell(progress, 1.0, "residual assessed")
    return _result(contrast, native, tumour, box, carried, found, volume, interval, likely, enhancing, nce_cm3, doubt)


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


def _require_seen(points_ijk: npt.NDArray[np.float64], grid: Image, scan: Image, name: str) -> None:
    """``points_ijk`` (n, 3) of the tumour, on ``grid``, must lie in ``scan``: outside of it residual is not seen."""
    index = apply(invert(scan.ras_from_ijk), apply(grid.ras_from_ijk, points_ijk[:: max(1, len(points_ijk) // 20_000)]))
    outside = ((index < -0.5) | (index > np.array(scan.array.shape[:3])[::-1] - 0.5)).any(axis=1)
    if outside.mean() > MOST_UNSEEN:
        raise AssessmentError(
            f"{100 * outside.mean():.0f} % of the carried-over tumour lies outside the {name}: what is left there "
            "would not be seen; scan a region that covers it, or check the registration"
        )


def _tell(progress: Progress, fraction: float, what: str) -> None:
    if not progress(fraction, what):
        raise Cancelled("the assessment of the residual was stopped")


def _box(points_ijk: npt.NDArray[np.float64], image: Image, context_mm: float) -> tuple[slice, slice, slice]:
    pad = context_mm / np.asarray(image.spacing_mm)
    size = np.array(image.array.shape[:3])[::-1]
    low = np.clip(np.floor(points_ijk.min(axis=0) - pad).astype(int), 0, size - 1)
    high = np.clip(np.ceil(points_ijk.max(axis=0) + pad).astype(int) + 1, low + 1, size)
    i, j, k = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    return k, j, i


def _result(
    contrast: Image,
    native: Image,
    tumour: Image,
    box: tuple[slice, slice, slice],
    carried: Mask,
    found: Outline,
    volume: float,
    interval: tuple[float, float],
    likely: tuple[float, float],
    enhancing: Mask,
    nce_cm3: float | None,
    doubt: str,
) -> ResidualAssessment:
    residual = np.zeros(contrast.array.shape, dtype=np.uint8)
    resected = np.zeros_like(residual)
    residual[box] = found.mask
    if not doubt:
        resected[box] = carried & ~found.mask
    preop = float(enhancing.sum()) * tumour.voxel_volume_ml
    based_on = (contrast.uid, native.uid, tumour.uid)
    extent, rano = extent_of_resection(preop, volume, interval, based_on), rano_class(volume, preop, interval, nce_cm3)
    if doubt:
        why = f"{doubt}: it may be tumour that never enhanced"
        extent, rano = replace(extent, value=None, interval=None, missing_because=why), replace(rano, worst="4")
    thin_cm3 = float((found.thin & ~found.mask).sum()) * contrast.voxel_volume_ml
    measurements = [
        Measurement(
            "Residual enhancing tumour",
            volume,
            "cm3",
            "Enhancing volume (contrast minus native scan) inside the carried-over tumour, partial volume counted; "
            f"interval: a voxel at the boundary, edges under {THIN_MM:g} mm, doubtful pieces, what the registration "
            f"error would take out of the region; likely {likely[0]:.2f} to {likely[1]:.2f} cm3, as in 95 % of "
            "simulated operations",
            RANO_SOURCE,
            interval,
            based_on=based_on,
        ),
        extent,
        Measurement(
            "Thin, faint or passing enhancement, not counted",
            thin_cm3,
            "cm3",
            f"Sheets under {THIN_MM:g} mm, faint pieces, structures leaving the region: mostly surgery, vessels, dura",
            "PMC8392564",
            based_on=based_on,
        ),
    ]
    centroid = None
    if found.mask.any():
        start = np.array([s.start for s in box])
        centroid = apply(contrast.ras_from_ijk, (_inner_voxel(found) + start)[::-1])
    return ResidualAssessment(
        residual=contrast.with_array(residual, "residual"),
        resected=contrast.with_array(resected, "resected"),
        volume_cm3=volume,
        interval_cm3=interval,
        likely_cm3=likely,
        preop_volume_cm3=preop,
        rano=rano,
        residual_centroid_ras_mm=centroid,
        measurements=tuple(measurements),
    )


def _inner_voxel(found: Outline) -> npt.NDArray[np.int_]:
    """The voxel (k, j, i) in the inner half of the largest piece that is nearest to its centre."""
    piece = found.pieces == 1 + int(np.argmax(found.piece_voxels))
    box = ndimage.find_objects(piece.astype(np.uint8))[0]
    depth = ndimage.distance_transform_edt(np.pad(piece[box], 1))[1:-1, 1:-1, 1:-1]
    inner = np.argwhere(depth >= 0.5 * depth.max())
    centre = np.argwhere(piece[box]).mean(axis=0)
    nearest = inner[np.argmin(np.linalg.norm(inner - centre, axis=1))]
    return np.asarray(nearest + [part.start for part in box])
