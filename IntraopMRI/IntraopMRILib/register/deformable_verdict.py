"""Good, check or refused for a deformable registration, each with the measured reason."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from IntraopMRIReconstructionLib.data import FILLED, Image, Level, Reason, Verdict
from scipy import ndimage

from .uncertainty import distance_mm

#: Median residual of normalised images: one patient's sound images leave less than half the first, two patients' or
#: mirrored heads a little more than it, unrelated values more than the second.
CHECK_MISFIT, REFUSED_MISFIT = 0.30, 0.75
#: Correlation of the normalised images at a resolution that averages noise away but keeps folds: one patient's sound
#: images reach 0.96 and more, with 25 % noise 0.94; two heads, a mirrored head or ghosts 0.75 at most;
#: a pose 35 mm off 0.14.
LIKENESS_MM, CHECK_LIKENESS, REFUSED_LIKENESS = 4.0, 0.85, 0.4
#: Tissue keeps its volume but for fluid: a determinant below the first is unlikely, below zero impossible.
CHECK_JACOBIAN, REFUSED_FOLDED = 0.3, 0.001
#: Brain shift is reported up to 24 mm at the surface (Dorward 1998, Nabavi 2001).
CHECK_SHIFT_MM, REFUSED_SHIFT_MM = 20.0, 30.0
#: Far from the resection tissue hardly moves (sound cases: under 0.5 mm); more means that the rigid pose is off, the
#: head mirrored or the scanner's field bent.
FAR_MM, CHECK_FAR_MM, REFUSED_FAR_MM = 50.0, 1.5, 8.0
#: A cavity lies where the tumour was.
CHECK_CAVITY_TUMOUR_MM = 8.0
#: Navigation needs better than this; a larger 95 % radius in more than one in twenty voxels is said.
CHECK_UNCERTAINTY_MM, REFUSED_UNCERTAINTY_MM = 2.0, 6.0
#: Larger cavities than this are not resections but a misfit.
CHECK_CAVITY_ML = 150.0
#: Both directions of the displacement must undo one another to this, mm (95 % of the brain).
CHECK_INVERSE_MM = 1.0
#: Parts of the intraoperative brain that the preoperative volume covers; the rest follows its neighbours only.
CHECK_COVERED, REFUSED_COVERED = 0.95, 0.3
#: Part of the preoperative brain that the intraoperative outline may lack: sound outlines lack 0.02 to 0.04, of a slab
#: whose scalp was taken for brain, and the other way round, 0.36. What it lacks is not matched, and a cavity in it not
#: seen.
CHECK_MISSING = 0.1
#: Across thicker slices the shift is a guess between them, mm.
CHECK_SPACING_MM = 4.0


@dataclass(frozen=True, eq=False)
class Findings:
    """What the verdict rests on; images share one grid. ``misfit``: median absolute normalised residual.

    ``likeness``: correlation of the normalised images at LIKENESS_MM. ``from_cavity_mm`` (k, j, i): distance to
    ``cavity``, made when None.

    ``matched``: the part of ``brain`` inside the preoperative volume; all of it when None. ``thickest_mm``: largest
    voxel edge. ``missing``: part of the preoperative brain, where it was scanned, that ``brain`` lacks.
    """

    shift: Image
    inverse_shift: Image
    cavity: Image
    brain: Image
    uncertainty: Image
    misfit: float
    remapped: bool
    tumour: Image | None = None
    matched: Image | None = None
    thickest_mm: float = 1.0
    likeness: float = 1.0
    from_cavity_mm: npt.NDArray[np.floating] | None = None
    missing: float = 0.0


def deformable_verdict(found: Findings) -> Verdict:
    """Weigh the findings; the worst reason decides."""
    tissue = (found.brain.array != 0) & (found.cavity.array == 0)
    length = np.linalg.norm(found.shift.array, axis=-1)
    determinant = jacobian_determinant(found.shift)[tissue]
    folded = float((determinant <= 0).mean())
    squeezed = float(np.quantile(determinant, 0.001))
    largest = float(np.quantile(length[tissue], 0.999))
    matched = tissue if found.matched is None else tissue & (found.matched.array != 0)
    covered = float(matched.sum() / max(1, tissue.sum()))
    # Beyond the preoperative volume the map grows without end; how much lies there is a reason of its own.
    radius = float(np.quantile(found.uncertainty.array[matched], 0.95)) if matched.any() else np.inf
    cavity_ml = float(np.count_nonzero(found.cavity.array)) * found.cavity.voxel_volume_ml
    filled_ml = float(np.count_nonzero(found.cavity.array == FILLED)) * found.cavity.voxel_volume_ml
    # Every eighth voxel is enough for a quantile.
    some = np.zeros_like(tissue)
    some[::2, ::2, ::2] = tissue[::2, ::2, ::2]
    back = float(np.quantile(inverse_error_mm(found.shift, found.inverse_shift, some), 0.95))
    reasons = [
        _reason("misfit of normalised images", found.misfit, "deviations", CHECK_MISFIT, REFUSED_MISFIT),
        Reason(
            f"likeness of the images at {LIKENESS_MM:g} mm",
            found.likeness,
            "",
            f"above {CHECK_LIKENESS:g}",
            # A likeness that is no number is none.
            Level.GOOD
            if found.likeness > CHECK_LIKENESS
            else Level.CHECK
            if found.likeness > REFUSED_LIKENESS
            else Level.REFUSED,
        ),
        _reason("folded tissue", 100 * folded, "%", 1e-9, 100 * REFUSED_FOLDED),
        Reason(
            "smallest volume ratio",
            squeezed,
            "",
            f"above {CHECK_JACOBIAN:g}",
            Level.CHECK if squeezed < CHECK_JACOBIAN else Level.GOOD,
        ),
        _reason("largest displacement", largest, "mm", CHECK_SHIFT_MM, REFUSED_SHIFT_MM),
        _reason("uncertainty (95 % of the brain)", radius, "mm", CHECK_UNCERTAINTY_MM, REFUSED_UNCERTAINTY_MM),
        _reason("cavity volume", cavity_ml, "ml", CHECK_CAVITY_ML, np.inf),
        _reason("clot or packing in the cavity", filled_ml, "ml", 0.0, np.inf),
        _reason("there and back", back, "mm", CHECK_INVERSE_MM, np.inf),
        _reason("voxel size", found.thickest_mm, "mm", CHECK_SPACING_MM, np.inf),
        Reason(
            "brain covered by the preoperative volume",
            100 * covered,
            "%",
            f"above {CHECK_COVERED:.0%}",
            Level.REFUSED if covered < REFUSED_COVERED else Level.CHECK if covered < CHECK_COVERED else Level.GOOD,
        ),
    ]
    reasons.append(
        _reason("preoperative brain outside of the outline", 100 * found.missing, "%", 100 * CHECK_MISSING, np.inf)
    )
    away = distance_mm(found.cavity) if found.from_cavity_mm is None else found.from_cavity_mm
    far = tissue & (away > FAR_MM)
    if np.any(found.cavity.array) and np.count_nonzero(far) > 1000:
        reasons.append(
            _reason("motion far from the cavity", float(np.median(length[far])), "mm", CHECK_FAR_MM, REFUSED_FAR_MM)
        )
    if found.tumour is not None and np.any(found.tumour.array) and np.any(found.cavity.array):
        apart = float(distance_mm(found.tumour)[found.cavity.array != 0].min())
        reasons.append(_reason("cavity to carried-over tumour", apart, "mm", CHECK_CAVITY_TUMOUR_MM, np.inf))
    if found.remapped:
        reasons.append(Reason("contrast translated", 1.0, "", "the same contrast in both images", Level.CHECK))
    return Verdict(tuple(reasons))


def _reason(name: str, value: float, unit: str, check_above: float, refused_above: float) -> Reason:
    level = Level.REFUSED if value > refused_above else Level.CHECK if value > check_above else Level.GOOD
    expected = f"at most {check_above:.3g} {unit}".rstrip() if check_above > 1e-6 else "none"
    return Reason(name, value, unit, expected, level)


def jacobian_determinant(shift: Image) -> npt.NDArray[np.float64]:
    """Volume ratio (k, j, i) of y + shift(y): 1 keeps the volume, 0 and below folds."""
    # d(shift in RAS) / d(RAS) = d(shift) / d(index) x index_from_ras.
    fields = [np.ascontiguousarray(shift.array[..., row]) for row in range(3)]
    gradients = [[np.gradient(field, axis=axis) for axis in (2, 1, 0)] for field in fields]
    inverse = np.linalg.inv(shift.ras_from_ijk[:3, :3]).astype(shift.array.dtype)
    (a, b, c), (d, e, f), (g, h, i) = (
        [
            # An axis-aligned grid has one index axis a direction.
            sum(gradients[row][n] * inverse[n, column] for n in range(3) if inverse[n, column]) + (row == column)
            for column in range(3)
        ]
        for row in range(3)
    )
    return np.asarray(a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g), dtype=np.float64)


def inverse_error_mm(shift: Image, inverse: Image, inside: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Length (n,), mm, of what is left of each of the n points ``inside`` (k, j, i) that goes forth and back."""
    index_from_ras = np.linalg.inv(shift.ras_from_ijk[:3, :3])
    there = shift.array[inside]
    points = np.argwhere(inside).T + (there @ index_from_ras.T)[:, ::-1].T
    back = np.stack(
        [ndimage.map_coordinates(inverse.array[..., c], points, order=1, mode="nearest") for c in range(3)], axis=-1
    )
    return np.asarray(np.linalg.norm(there + back, axis=-1))
