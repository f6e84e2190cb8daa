"""Distance from a tool's tip to what matters: the residual, structures at risk, the planned target."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from IntraopMRIReconstructionLib.data import Image, Measurement, checked_affine
from IntraopMRIReconstructionLib.errors import DataError
from IntraopMRIReconstructionLib.geometry import apply, invert
from scipy import ndimage
from scipy.spatial import cKDTree

Vector = npt.NDArray[np.float64]
Array = npt.NDArray[np.float64]

#: Smoothing of the label in voxels before its surface is taken: the steps of a voxel mask are not anatomy. Wider
#: would shrink small residuals.
SURFACE_SIGMA = 0.6
#: Surface points that are looked at around the nearest one; the true nearest lies on a neighbouring facet at most.
NEIGHBOURS = 12
#: Below this the direction to the surface cannot be told.
ON_SURFACE_MM = 0.05


@dataclass(frozen=True, eq=False)
class Nearest:
    """What lies nearest to a point. ``distance_mm``: signed, negative inside. ``point_ras_mm`` on the surface and
    ``direction_ras``: unit vectors (3,) from the tip toward it (zeros when the tip is on the surface).
    """

    distance_mm: float
    point_ras_mm: Vector
    direction_ras: Vector

    @property
    def words(self) -> str:
        """The direction in words of the patient, the larger parts first: 'left, superior'."""
        names = (("left", "right"), ("posterior", "anterior"), ("inferior", "superior"))
        order = np.argsort(-np.abs(self.direction_ras))
        # A part below a quarter of the whole would send the eye the wrong way.
        parts = [names[a][int(self.direction_ras[a] > 0)] for a in order if abs(self.direction_ras[a]) > 0.25]
        return ", ".join(parts) or "at the surface"


class SurfaceDistance:
    """Signed distance to the surface of a label, below the voxel and in well under a millisecond a query.

    The surface is the half level of the slightly smoothed label: points where grid edges cross it, with the normal
    there. A query takes the nearest points and measures to their tangent facets.
    """

    def __init__(self, label: Image, name: str = "residual") -> None:
        """``label``: (k, j, i), 0 outside. Raises DataError when it is empty or not one volume."""
        inside = np.asarray(label.array) > 0
        if inside.ndim != 3:
            raise DataError(f"the label of '{name}' must have shape (k, j, i), got {inside.shape}")
        if not inside.any():
            raise DataError(f"the label of '{name}' is empty: there is no surface to measure to")
        self.name = name
        self.based_on = label.uid
        self.uncertainty_mm = 0.5 * float(label.spacing_mm.max())
        level, self._ras_from_ijk = _cropped_level(inside, label.ras_from_ijk)
        self._ijk_from_ras = invert(self._ras_from_ijk)
        self._level = level
        index = _crossings(level)
        self._points = apply(self._ras_from_ijk, index[:, ::-1])
        self._normals = _normals(level, index, self._ijk_from_ras)
        self._reach = 0.6 * float(label.spacing_mm.max())
        self._tree = cKDTree(self._points)

    def at(self, point_ras_mm: npt.ArrayLike) -> Nearest:
        """The nearest surface point to a tip (3,), RAS, mm. Raises DataError for a point that is not finite."""
        point = np.asarray(point_ras_mm, dtype=np.float64)
        if point.shape != (3,) or not np.isfinite(point).all():
            raise DataError(f"the tip must be three finite coordinates in mm, got {point.tolist()}")
        _, near = self._tree.query(point, k=min(NEIGHBOURS, len(self._points)))
        near = np.atleast_1d(near)
        anchors, normals = self._points[near], self._normals[near]
        offset = point - anchors
        height = (offset * normals).sum(axis=1)
        foot = offset - height[:, None] * normals
        # The facet about an anchor is small: the foot of the perpendicular stays within it.
        length = np.linalg.norm(foot, axis=1)
        foot *= np.minimum(1.0, self._reach / np.maximum(length, 1e-12))[:, None]
        candidates = anchors + foot
        distances = np.linalg.norm(point - candidates, axis=1)
        best = int(np.argmin(distances))
        nearest, distance = candidates[best], float(distances[best])
        direction = (nearest - point) / distance if distance > ON_SURFACE_MM else np.zeros(3)
        return Nearest(-distance if self._inside(point) else distance, nearest, direction)

    def between(self, other: SurfaceDistance) -> float:
        """Least distance between both surfaces, mm; 0 where they touch or one reaches into the other."""
        near = other._tree.query(self._points)[0]
        few = self._points[np.argsort(near)[:NEIGHBOURS]]
        inside = other._inside(self._points.mean(axis=0)) or self._inside(other._points.mean(axis=0))
        return 0.0 if inside else max(0.0, min(other.at(point).distance_mm for point in few))

    def measure(
        self, point_ras_mm: npt.ArrayLike, error_mm: float = 0.0, nearest: Nearest | None = None
    ) -> Measurement:
        """The distance as a measurement; ``error_mm`` of pose and registration widens the interval.

        ``nearest``: what :meth:`at` said of that point, when it was asked already.
        """
        distance = (nearest or self.at(point_ras_mm)).distance_mm
        error = float(np.hypot(self.uncertainty_mm, error_mm))
        return Measurement(
            f"Tip to {self.name}",
            distance,
            "mm",
            f"Signed distance from the tool's tip to the nearest surface of {self.name}, negative inside",
            interval=(distance - error, distance + error),
            based_on=(self.based_on,),
        )

    def _inside(self, point: Vector) -> bool:
        index = apply(self._ijk_from_ras, point)[::-1]
        low = np.floor(index).astype(int)
        if (low < 0).any() or (low >= np.array(self._level.shape) - 1).any():
            return False
        k, j, i = low
        cell = self._level[k : k + 2, j : j + 2, i : i + 2]
        for share in index - low:
            cell = cell[0] * (1.0 - share) + cell[1] * share
        return bool(cell > 0.5)


class ResidualDistance(SurfaceDistance):
    """Distance to the residual tumour."""

    def __init__(self, residual: Image) -> None:
        super().__init__(residual, "residual")


def target_distance(tip_ras_mm: npt.ArrayLike, target_ras_mm: npt.ArrayLike, name: str = "target") -> Measurement:
    """Distance from the tip to a planned point, both (3,) RAS mm."""
    tip, target = np.asarray(tip_ras_mm, dtype=np.float64), np.asarray(target_ras_mm, dtype=np.float64)
    return Measurement(
        f"Tip to {name}",
        float(np.linalg.norm(target - tip)),
        "mm",
        f"Distance from the tool's tip to the planned {name}",
    )


def _cropped_level(inside: npt.NDArray[np.bool_], ras_from_ijk: npt.ArrayLike) -> tuple[Array, Array]:
    """Smoothed label with a border, about the label only, and its ``ras_from_ijk``."""
    pad = 3
    box = ndimage.find_objects(inside.astype(np.uint8))[0]
    level = ndimage.gaussian_filter(np.pad(inside[box].astype(np.float64), pad), SURFACE_SIGMA)
    # A single voxel would vanish below the half level: the surface then is where it has half of its own height.
    if level.max() <= 0.6:
        level = level / (1.2 * level.max())
    shift = np.eye(4)
    shift[:3, 3] = [s.start - pad for s in box[::-1]]
    return level, np.asarray(checked_affine(ras_from_ijk, "ras_from_ijk") @ shift)


def _crossings(level: Array) -> Array:
    """Index positions (n, 3), order k j i, where edges of the grid cross the half level."""
    found = []
    for axis in range(3):
        a = np.moveaxis(level, axis, 0)[:-1]
        b = np.moveaxis(level, axis, 0)[1:]
        where = np.argwhere((a > 0.5) != (b > 0.5))
        at = tuple(where.T)
        position = where.astype(np.float64)
        position[:, 0] += (0.5 - a[at]) / (b[at] - a[at])
        order = [1, 2]
        order.insert(axis, 0)
        found.append(position[:, order])
    return np.concatenate(found)


def _normals(level: Array, index: Array, ijk_from_ras: Array) -> Array:
    """Unit outward normals (n, 3) in RAS at the index positions (k j i)."""
    slopes = np.stack(
        [ndimage.map_coordinates(slope, index.T, order=1, mode="nearest") for slope in np.gradient(level)], axis=1
    )
    # A gradient is a covector: it maps with the transpose of the inverse.
    normals = -slopes[:, ::-1] @ ijk_from_ras[:3, :3]
    return np.asarray(normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12))
