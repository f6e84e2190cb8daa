"""Where an MRD scan lies: position and directions of its readouts into one RAS grid, and back.

MRD heads carry LPS: the directions of readout, phase and slice, and the position of the point where the encoding
gradients add no phase. A Fourier transform puts that point on voxel N // 2 in plane (and along a 3D partition axis);
across 2D slices each position is the centre of its slice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..data import ASSUMED, AnyArray, Encoding, Matrix
from ..errors import DataError, OpenChoice, WireError
from ..geometry import RAS_FROM_LPS, apply, corner_from_fourier_centre, ras_from_lps_matrix

#: Writers round directions to four or five digits; more than this is no rounding.
DIRECTION_TOLERANCE = 1e-3
#: Positions of one slice agree to this; float32 keeps 0.00003 mm at 500 mm.
POSITION_TOLERANCE_MM = 0.01
#: Slice distances in a stack agree to this part of the distance, since writers round positions to 0.01 mm.
SPACING_TOLERANCE = 0.01

_DIRECTIONS = ("read_dir", "phase_dir", "slice_dir")

#: Fields of a head that say where a readout lies, and how much they may differ in one place.
PLACE_TOLERANCES = {
    "position": POSITION_TOLERANCE_MM,
    "patient_table_position": POSITION_TOLERANCE_MM,
    **dict.fromkeys(_DIRECTIONS, DIRECTION_TOLERANCE),
}


@dataclass(frozen=True, eq=False)
class Placement:
    """The grid of a scan. ``slice_rank``: slice counter -> index k (0 for all when the scan is 3D).

    ``spacing_mm``: distance of slices or partitions. ``note``: says what was assumed, empty when nothing was.
    """

    ras_from_ijk: Matrix
    slice_rank: Mapping[int, int]
    spacing_mm: float
    note: str
    _heads: AnyArray

    def holds(self, heads: AnyArray) -> npt.NDArray[np.bool_]:
        """For each head, whether it lies where this grid says. Slices that are not part of it do not."""
        known = self._heads["idx"]["slice"]
        at = np.minimum(np.searchsorted(known, heads["idx"]["slice"]), len(known) - 1)
        same: npt.NDArray[np.bool_] = known[at] == heads["idx"]["slice"]
        expected = self._heads[at]
        # What is not finite differs from everything.
        with np.errstate(invalid="ignore"):
            for name, tolerance in PLACE_TOLERANCES.items():
                same &= np.abs(heads[name] - expected[name]).max(axis=1) <= tolerance
        return same


def place(
    heads: AnyArray,
    recon_matrix: tuple[int, int, int],
    recon_fov_mm: tuple[float, float, float],
    *,
    is_3d: bool,
    assume_axial: bool = False,
    kspace_sign: int = -1,
) -> Placement:
    """Grid of the scan that the readouts ``heads`` belong to. ``recon_matrix``, ``recon_fov_mm``: (z, y, x).

    Every head counts as an image line; the field of view along z of a 2D scan is its slice thickness.
    ``assume_axial``: heads whose directions are all zero are taken as axial (readout to the left, phase to the back);
    without it they are refused. ``kspace_sign``: see :class:`.mrd_scan.MrdOptions`.

    Raises WireError for skewed or changing directions; OpenChoice for zero ones, and for slices that form no stack.
    """
    counters, first = np.unique(heads["idx"]["slice"], return_index=True)
    per_slice = heads[first].copy()
    axes, note = _axes(per_slice[0], assume_axial)
    unknown = np.flatnonzero(~np.isfinite(per_slice["position"]).all(axis=1))
    if unknown.size:
        raise WireError(
            f"slice {counters[unknown[0]]} lies at {per_slice['position'][unknown[0]].tolist()} mm: no place"
        )
    if is_3d and len(counters) > 1:
        raise OpenChoice(
            f"a 3D scan of {len(counters)} slabs has no single grid, so that one is read at a time (when its "
            "partitions are steps of slice encoding (SEMAC), its header must say so by the user parameter "
            "IntraopMRISemacFov_mm)",
            "slice_index",
            tuple(int(counter) for counter in counters),
        )
    size, step_mm = recon_matrix, [fov / count for fov, count in zip(recon_fov_mm, recon_matrix, strict=True)]
    if is_3d:
        ranks, spacing_mm, lowest = {int(counters[0]): 0}, step_mm[0], per_slice["position"][0]
    else:
        ranks, spacing_mm, lowest = _stack(per_slice, counters, axes[:, 2], recon_fov_mm[0], bool(note))
        size = (1, *recon_matrix[1:])
    signs = (-kspace_sign, -kspace_sign, -kspace_sign if is_3d else 1)
    columns = axes * signs * (step_mm[2], step_mm[1], spacing_mm)
    lps_from_ijk = corner_from_fourier_centre(columns, lowest, (size[2], size[1], size[0]))
    placement = Placement(ras_from_lps_matrix(lps_from_ijk), ranks, spacing_mm, note, per_slice)
    wrong = np.flatnonzero(~placement.holds(heads))
    if wrong.size:
        head = heads[wrong[0]]
        said = (
            f"the place of the scan changes at readout {wrong[0]} (slice {head['idx']['slice']}): position "
            f"{head['position'].tolist()}, directions {[head[name].tolist() for name in _DIRECTIONS]}, table "
            f"{head['patient_table_position'].tolist()}"
        )
        if len(counters) == 1:
            raise WireError(said)
        raise OpenChoice(
            f"{said}; slices of different orientation are read one by one",
            "slice_index",
            tuple(int(counter) for counter in counters),
        )
    return placement


def place_heads(heads: AnyArray, encoding: Encoding, kz: npt.NDArray[np.int32]) -> None:
    """Write the place of ``encoding`` into ``heads``; ``kz``: (lines,) slice of each line when the scan is 2D.

    Raises DataError when the grid is skewed, which MRD cannot say.
    """
    lps_from_ijk = RAS_FROM_LPS @ encoding.ras_from_ijk
    axes = lps_from_ijk[:3, :3] / np.linalg.norm(lps_from_ijk[:3, :3], axis=0)
    skew = float(np.abs(axes.T @ axes - np.eye(3)).max())
    if skew > DIRECTION_TOLERANCE:
        raise DataError(f"MRD has no place for a skewed grid, the axes deviate from orthogonal by {skew:.3g}")
    for column, name in enumerate(_DIRECTIONS):
        heads[name] = axes[:, column]
    z, y, x = encoding.recon_matrix
    ijk = np.empty((len(heads), 3))
    ijk[:] = (x // 2, y // 2, z // 2)
    if not encoding.is_3d:
        ijk[:, 2] = kz
        heads["idx"]["slice"] = kz
    heads["position"] = apply(lps_from_ijk, ijk)


def unit_axes(directions: npt.ArrayLike) -> Matrix:
    """Nearest orthonormal (3, 3) columns to three measured directions, shape (3, 3), one a row.

    Raises WireError when a direction is zero, not finite, or they are not orthogonal.
    """
    rows = np.asarray(directions, dtype=np.float64)
    deviation = np.abs(rows @ rows.T - np.eye(3)).max() if np.isfinite(rows).all() else np.inf
    if not deviation <= DIRECTION_TOLERANCE:
        raise WireError(
            f"read, phase and slice directions must be unit vectors at right angles, got {rows.tolist()}; "
            "without them nobody knows where the image lies"
        )
    left, _, right = np.linalg.svd(rows.T)
    return np.asarray(left @ right)


def _axes(head: np.void, assume_axial: bool) -> tuple[Matrix, str]:
    directions = np.array([head[name] for name in _DIRECTIONS])
    if np.any(directions):
        return unit_axes(directions), ""
    if not assume_axial:
        raise OpenChoice(
            "the readouts carry no directions (all zero), so nobody knows how the image lies in the patient",
            "assume_axial",
            (1,),
        )
    return np.eye(3), f"{ASSUMED} axial: the readouts carry no directions"


def _stack(
    per_slice: AnyArray, counters: AnyArray, normal: AnyArray, thickness_mm: float, assumed: bool
) -> tuple[dict[int, int], float, npt.NDArray[np.float64]]:
    """Rank of each slice along the normal, their distance, and the position (LPS) of the lowest."""
    positions: npt.NDArray[np.float64] = per_slice["position"].astype(np.float64)
    if assumed and not np.any(positions):
        positions = np.asarray(np.arange(float(len(positions)))[:, None] * thickness_mm * normal, np.float64)
    offsets = positions - positions[0]
    heights = offsets @ normal
    order = np.argsort(heights)
    steps = np.diff(heights[order])
    spacing_mm = float(steps.mean()) if len(steps) else float(thickness_mm)
    if len(steps):
        aside_mm = float(np.abs(offsets - heights[:, None] * normal).max())
        uneven = float(np.abs(steps - spacing_mm).max())
        allowed = max(POSITION_TOLERANCE_MM, SPACING_TOLERANCE * spacing_mm)
        if spacing_mm <= POSITION_TOLERANCE_MM or uneven > allowed or aside_mm > allowed:
            raise OpenChoice(
                f"the {len(positions)} slices form no even stack: heights {np.round(heights[order], 3).tolist()} mm, "
                f"up to {aside_mm:.3g} mm beside the common normal; single slices can be read",
                "slice_index",
                tuple(int(counter) for counter in counters),
            )
    ranks = {int(counters[index]): rank for rank, index in enumerate(order)}
    return ranks, spacing_mm, positions[order[0]]
