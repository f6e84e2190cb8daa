"""The pieces of a residual, one by one: how large each is, where it lies, and whether it is surely one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
import numpy.typing as npt
from IntraopMRIReconstructionLib.data import Image, Measurement
from IntraopMRIReconstructionLib.geometry import apply, invert
from scipy import ndimage
from scipy.spatial import cKDTree

from .interval import LeftOpen, detection_limit_cm3, interval_cm3, left_open, likely_cm3
from .margin import SIDES
from .outline import Outline

Mask = npt.NDArray[np.bool_]
Points = npt.NDArray[np.float64]
Box = tuple[slice, slice, slice]

#: A second side is named when it is at least this part of the first.
SECOND_SIDE = 0.5
#: Nearer to the middle than this part of the half size is on no side.
IN_THE_MIDDLE = 0.35
#: Ends of a cavity along an axis, %: a way in that is thinner than it does not move its middle.
ENDS = (5.0, 95.0)
#: Residual farther than this from the cavity is not at its wall; clot may lie between them, mm.
BESIDE_MM = 5.0
#: A second opening larger than this part of the first leaves open which of them is the way in.
SECOND_OPENING = 0.5
#: Directions in which the diameter is looked for; the next one is at most 5 degrees off, which is 0.4 %.
DIRECTIONS = 2000
#: Voxels that share a corner hang together.
_ALL = np.ones((3, 3, 3), dtype=bool)


class Sure(Enum):
    """Whether a piece is residual: by its interval; by the narrower likely range alone; by neither."""

    SURE = "residual"
    LIKELY = "probably residual"
    OPEN = "may be nothing"


@dataclass(frozen=True, eq=False)
class Piece:
    """Residual that hangs together, or would with a voxel more all round.

    ``number``: from 1, the largest first. ``label``: it alone, uint8 (k, j, i) on a part of the grid of the scan.
    ``place``: in words. ``at_ras_mm`` (3,): inside of it, near to its centre. ``left``: what its outline leaves open.
    """

    number: int
    volume: Measurement
    longest: Measurement
    sure: Sure
    place: str
    at_ras_mm: Points
    label: Image
    left: LeftOpen

    def box_in(self, scan: Image) -> Box:
        """Where ``label`` lies in the grid (k, j, i) of the ``scan`` that it was found in."""
        start = np.rint(apply(invert(scan.ras_from_ijk), self.label.ras_from_ijk[:3, 3])).astype(int)[::-1]
        k, j, i = (slice(int(a), int(a) + n) for a, n in zip(start, self.label.array.shape, strict=True))
        return k, j, i

    def around(self, room_mm: float) -> tuple[Points, float]:
        """Middle (3,) RAS mm and radius of a ball that holds it with so much room."""
        points = _middles(self.label.array != 0, self.label)
        middle = (points.min(axis=0) + points.max(axis=0)) / 2.0
        return middle, float(np.linalg.norm(points - middle, axis=1).max()) + room_mm


@dataclass(frozen=True, eq=False)
class Bed:
    """Where tumour was: ``points`` (n, 3) RAS mm of the cavity, or of the carried-over tumour where none was found.

    ``opening`` (m, 3): where the cavity meets the outside of the brain; empty where that cannot be told.
    """

    points: Points
    cavity: bool
    opening: Points

    def place(self, at_ras_mm: Points, surface: Points) -> str:
        """Where a piece is with its middle ``at_ras_mm`` (3,) and its voxels ``surface`` (n, 3), in words."""
        low, high = np.percentile(self.points, ENDS, axis=0)
        # Of a long cavity the end wall is farther away than the side wall, yet neither is more of a wall.
        away = (at_ras_mm - (low + high) / 2.0) / np.maximum((high - low) / 2.0, 1.0)
        side = _side(away)
        if not self.cavity:
            where = f"{side} part of where the tumour was" if side else "middle of where the tumour was"
        else:
            gap = float(cKDTree(self.points).query(surface)[0].min())
            if gap > BESIDE_MM:
                where = f"{gap:.0f} mm beside the cavity, {side or 'no side'} of it"
            else:
                where = f"{side} wall of the cavity" if side else "middle of the cavity"
        if len(self.opening):
            where += f", {np.linalg.norm(self.opening - at_ras_mm, axis=1).min():.0f} mm deep of the opening"
        return where


def bed_of(carried_ras_mm: Points, cavity: Image | None, brain: Image | None) -> Bed:
    """The place of the resection; ``cavity``, ``brain``: labels on one grid, None where they are not known.

    ``carried_ras_mm`` (n, 3): the carried-over tumour.
    """
    if cavity is None or not np.any(cavity.array):
        return Bed(carried_ras_mm, False, np.zeros((0, 3)))
    hole = cavity.array != 0
    points = _middles(hole, cavity)
    opening: Points = np.zeros((0, 3))
    if brain is not None and brain.array.shape == hole.shape:
        # Outside of the grid as well: it ends where the brain does. A ventricle is no way in.
        tissue = ndimage.binary_fill_holes(np.pad((brain.array != 0) | hole, 1))
        meets = hole & ndimage.binary_dilation(~tissue)[1:-1, 1:-1, 1:-1]
        parts, count = ndimage.label(meets, _ALL)
        sizes = np.sort(np.bincount(parts.reshape(-1))[1:])[::-1]
        if count == 1 or (count > 1 and sizes[1] < SECOND_OPENING * sizes[0]):
            opening = _middles(parts == 1 + int(np.argmax(np.bincount(parts.reshape(-1))[1:])), cavity)
    return Bed(points, True, opening)


def pieces_of(found: Outline, sure: Mask, box: Box, scan: Image, bed: Bed) -> tuple[Piece, ...]:
    """All pieces of the residual ``found`` in ``box`` of the ``scan``'s grid, the largest first; see :class:`Piece`.

    ``sure``: as of :func:`.interval.left_open`. Their volumes add up to that of the residual.
    """
    if not found.mask.any():
        return ()
    owner = _owners(found, np.asarray(scan.spacing_mm)[::-1])
    made = [
        _piece(found, sure, owner == number, around, box, scan, bed)
        for number, around in enumerate(ndimage.find_objects(owner), start=1)
    ]
    made.sort(key=lambda piece: -(piece.volume.value or 0.0))
    return tuple(_numbered(piece, number) for number, piece in enumerate(made, start=1))


def listed(pieces: Sequence[Piece]) -> tuple[tuple[Piece, ...], Measurement | None]:
    """The pieces that are large enough to be told apart from a vessel, and the volume of all others; None of none."""
    if not pieces:
        return (), None
    limit = detection_limit_cm3(np.asarray(pieces[0].label.spacing_mm))
    large = tuple(piece for piece in pieces if (piece.volume.value or 0.0) >= limit)
    small = [piece.volume for piece in pieces[len(large) :]]
    if not small:
        return large, None
    return large, Measurement(
        "Smaller than can be told apart from a vessel",
        sum(each.value or 0.0 for each in small),
        "cm3",
        f"{counted(len(small))} of less than {limit:.2f} cm3 each, a ball of {ball_mm(limit):.1f} mm: part of the "
        "residual, not listed as findings",
        interval=(sum(each.interval[0] for each in small if each.interval),
                  sum(each.interval[1] for each in small if each.interval)),
        based_on=small[0].based_on,
    )  # fmt: skip


def ball_mm(cm3: float) -> float:
    """Diameter of a ball of that volume, mm."""
    return float(2.0 * (cm3 * 1000.0 * 3.0 / (4.0 * np.pi)) ** (1.0 / 3.0))


def counted(number: int) -> str:
    """'1 piece', '2 pieces'."""
    return f"{number} piece{'' if number == 1 else 's'}"


def _owners(found: Outline, spacing: npt.NDArray[np.float64]) -> npt.NDArray[np.int32]:
    """Number of the piece (k, j, i) that each voxel belongs to, 0 for none: of the residual, of where it goes on, and
    of what is doubtful and hangs together with it."""
    joined, _ = ndimage.label(ndimage.binary_dilation(found.mask, _ALL), _ALL)
    owner: npt.NDArray[np.int32] = np.where(found.mask, joined, 0).astype(np.int32)
    loose = (found.beyond | found.doubtful) & ~found.mask
    parts, _ = ndimage.label(found.mask | loose, _ALL)
    loose &= np.isin(parts, np.unique(parts[found.mask]))
    if loose.any():
        residual = np.argwhere(found.mask)
        nearest = cKDTree(residual * spacing).query(np.argwhere(loose) * spacing)[1]
        owner[loose] = owner[tuple(residual[nearest].T)]
    return owner


def _piece(found: Outline, sure: Mask, own: Mask, extent: tuple[slice, ...], box: Box, scan: Image, bed: Bed) -> Piece:
    # Room for the voxel all round.
    around = tuple(
        slice(max(0, part.start - 3), min(size, part.stop + 3)) for part, size in zip(extent, own.shape, strict=True)
    )
    alone = _alone(found, own[around], around)
    left = left_open(alone, sure[around])
    voxel_cm3, spacing = scan.voxel_volume_ml, np.asarray(scan.spacing_mm)[::-1]
    known = alone.volume_voxels * voxel_cm3, left, voxel_cm3, spacing
    interval, likely = interval_cm3(*known), likely_cm3(*known)
    grid = scan.ras_from_ijk.copy()
    start = np.array([a.start + b.start for a, b in zip(around, box, strict=True)], dtype=np.float64)
    grid[:3, 3] = apply(grid, start[::-1])
    label = Image(alone.mask.astype(np.uint8), grid, "piece of the residual")
    verdict = Sure.SURE if interval[0] > 0 else Sure.LIKELY if likely[0] > 0 else Sure.OPEN
    points, at = _middles(alone.mask, label), apply(grid, _inner_voxel(alone.mask)[::-1].astype(np.float64))
    volume = Measurement(
        "volume",
        known[0],
        "cm3",
        "Enhancing volume of this piece, partial volume counted; interval as of the whole residual, with what is "
        f"doubtful and hangs together with it; likely {likely[0]:.2f} to {likely[1]:.2f} cm3",
        interval=interval,
        based_on=(scan.uid,),
    )
    longest = _longest(points, _middles(alone.mask | alone.beyond | alone.doubtful, label), verdict, scan)
    return Piece(0, volume, longest, verdict, bed.place(at, points), at, label, left)


def _alone(found: Outline, own: Mask, around: tuple[slice, ...]) -> Outline:
    """The outline of one piece, in a box ``around`` it that ``own`` fills, as if there were no other."""
    mask, pieces = found.mask[around] & own, found.pieces[around]
    numbers = np.unique(pieces[mask])
    return Outline(
        mask=mask,
        thin=found.thin[around] & own,
        beyond=found.beyond[around] & own,
        doubtful=found.doubtful[around] & own,
        pieces=np.where(mask, 1 + np.searchsorted(numbers, pieces), 0).astype(np.int32),
        tapering=found.tapering[around],
        slender=found.slender[around],
        share=found.share[around],
        piece_voxels=tuple(found.piece_voxels[n - 1] for n in numbers),
    )


def _numbered(piece: Piece, number: int) -> Piece:
    """With its number, which is part of the names of its numbers."""
    volume, longest = (replace(m, name=f"Piece {number}: {m.name}") for m in (piece.volume, piece.longest))
    return replace(piece, number=number, volume=volume, longest=longest)


def _longest(points: Points, most: Points, sure: Sure, scan: Image) -> Measurement:
    """Largest extent in any direction; ``most``: voxels that may belong to it as well."""
    turns = np.arange(DIRECTIONS) + 0.5
    # Evenly on half a sphere: both ends of a direction are the same.
    z, angle = turns / DIRECTIONS, np.pi * (1.0 + np.sqrt(5.0)) * turns
    ways = np.stack([np.sqrt(1 - z * z) * np.cos(angle), np.sqrt(1 - z * z) * np.sin(angle), z], axis=1)
    voxel = np.linalg.norm(ways @ scan.ras_from_ijk[:3, :3], axis=1)
    extent, reach = (np.ptp(each @ ways.T, axis=0) + voxel for each in (points, most))
    at = int(np.argmax(extent))
    low = 0.0 if sure is Sure.OPEN else max(0.0, float(extent[at] - 2.0 * voxel[at]))
    return Measurement(
        "longest diameter",
        float(extent[at]),
        "mm",
        "Largest extent of this piece in any direction; interval: a voxel at both ends, and what is doubtful and hangs "
        "together with it",
        interval=(low, float((reach + 2.0 * voxel).max())),
        based_on=(scan.uid,),
    )


def _inner_voxel(mask: Mask) -> npt.NDArray[np.int_]:
    """The voxel (k, j, i) in the inner half of a mask that is nearest to its centre."""
    depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1, 1:-1]
    inner = np.argwhere(depth >= 0.5 * depth.max())
    return np.asarray(inner[np.argmin(np.linalg.norm(inner - np.argwhere(mask).mean(axis=0), axis=1))])


def _side(away: Points) -> str:
    """The sides of the patient that an offset (3,), RAS, points to, the larger part first; empty for the middle."""
    order = np.argsort(-np.abs(away), kind="stable")
    largest = float(np.abs(away).max())
    if largest < IN_THE_MIDDLE:
        return ""
    sides = [SIDES[axis][int(away[axis] < 0)] for axis in order[:2] if abs(away[axis]) >= SECOND_SIDE * largest]
    return " ".join(sides)


def _middles(mask: Mask, grid: Image) -> Points:
    return apply(grid.ras_from_ijk, np.argwhere(mask)[:, ::-1].astype(np.float64))
