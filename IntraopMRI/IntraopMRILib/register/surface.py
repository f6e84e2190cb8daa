"""Registration of traced surface points to a surface: trimmed iterative closest points from several starts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from IntraopMRIReconstructionLib.data import Level, Matrix, Reason, Verdict, checked_rigid
from IntraopMRIReconstructionLib.errors import RegistrationError
from IntraopMRIReconstructionLib.geometry import apply, rotation_about
from scipy.spatial import cKDTree

from .landmarks import fit_rigid

#: Fewer traced points leave the pose open on a smooth head.
MIN_POINTS = 20
#: Share of the points that must fit; the rest are lifted off the skin or beside the surface.
KEPT = 0.9
#: Turns (degrees) about each axis from which the search starts beside the given pose.
STARTS_DEG = (-15.0, 0.0, 15.0)
#: A neuronavigation gate for the mean distance of a surface trace, mm; twice that is no match.
CHECK_MEAN_MM, REFUSED_MEAN_MM = 1.5, 3.0
#: A weakest direction that changes the mean distance less than this, mm for each mm moved, is not held by the trace.
MIN_HOLD = 0.1


@dataclass(frozen=True, eq=False)
class SurfaceRegistration:
    """``target_from_source``: (4, 4). ``mean_mm``: mean distance of the kept points; ``hold``: how firmly the trace

    holds its weakest direction, mm of distance for each mm of motion, 0..1.
    """

    target_from_source: Matrix
    mean_mm: float
    hold: float
    verdict: Verdict


def register_surface(
    source: npt.ArrayLike,
    target: npt.ArrayLike,
    target_normals: npt.ArrayLike,
    initial: npt.ArrayLike | None = None,
) -> SurfaceRegistration:
    """Fit traced points ``source`` (n, 3) to a surface given by points ``target`` (m, 3) and unit normals (m, 3), mm.

    ``initial``: target_from_source (4, 4) to start from, for example from three landmarks; identity when None.
    Point-to-plane steps (Chen and Medioni 1992), the worst tenth of the points trimmed (Chetverikov 2005). Raises
    RegistrationError for too few points or values that are not finite.
    """
    points, surface, normals = (np.asarray(p, dtype=np.float64) for p in (source, target, target_normals))
    for name, value in (("source", points), ("target", surface), ("target_normals", normals)):
        if value.ndim != 2 or value.shape[1] != 3 or len(value) < MIN_POINTS or not np.isfinite(value).all():
            raise RegistrationError(
                f"{name} must be at least {MIN_POINTS} finite points of shape (n, 3), got shape {value.shape}"
            )
    if len(surface) != len(normals):
        raise RegistrationError(f"one normal a surface point is needed, got {len(normals)} for {len(surface)} points")
    first = np.eye(4) if initial is None else checked_rigid(initial, "initial")
    tree = cKDTree(surface)
    centre = apply(first, points.mean(axis=0))
    best, best_distance = first, np.inf
    for x in STARTS_DEG:
        for y in STARTS_DEG:
            for z in STARTS_DEG:
                turn = np.eye(4)
                turn[:3, :3] = (
                    rotation_about((1, 0, 0), x) @ rotation_about((0, 1, 0), y) @ rotation_about((0, 0, 1), z)
                )
                turn[:3, 3] = centre - turn[:3, :3] @ centre
                pose, distance = _icp(points, surface, normals, tree, turn @ first, 12)
                if distance < best_distance:
                    best, best_distance = pose, distance
    best, mean = _icp(points, surface, normals, tree, best, 40)
    hold = _hold(apply(best, points), normals[tree.query(apply(best, points))[1]])
    level = Level.REFUSED if mean > REFUSED_MEAN_MM else Level.CHECK if mean > CHECK_MEAN_MM else Level.GOOD
    reasons = (
        Reason("mean surface distance", mean, "mm", f"below {CHECK_MEAN_MM:g} mm", level),
        Reason(
            "hold of the weakest direction",
            hold,
            "mm/mm",
            f"above {MIN_HOLD:g}: trace more of nose, brow and ear",
            Level.CHECK if hold < MIN_HOLD else Level.GOOD,
        ),
    )
    return SurfaceRegistration(checked_rigid(best, "target_from_source"), mean, hold, Verdict(reasons))


def _icp(
    points: npt.NDArray[np.float64],
    surface: npt.NDArray[np.float64],
    normals: npt.NDArray[np.float64],
    tree: cKDTree,
    pose: Matrix,
    steps: int,
) -> tuple[Matrix, float]:
    kept = max(6, int(KEPT * len(points)))
    for _ in range(steps):
        moved = apply(pose, points)
        distance, index = tree.query(moved)
        chosen = np.argsort(distance, kind="stable")[:kept]
        normal, offset = normals[index[chosen]], surface[index[chosen]] - moved[chosen]
        centre = moved[chosen].mean(axis=0)
        jacobian = np.hstack([normal, np.cross(moved[chosen] - centre, normal)])
        right = (normal * offset).sum(axis=1)
        matrix = jacobian.T @ jacobian
        step = np.linalg.solve(matrix + np.diag(np.diag(matrix) * 1e-4 + 1e-9), jacobian.T @ right)
        # The linear step is made rigid through the points it moves.
        target = moved[chosen] + step[:3] + np.cross(step[3:], moved[chosen] - centre)
        pose = fit_rigid(moved[chosen], target) @ pose
        if np.abs(step).max() < 1e-4:
            break
    distance = np.sort(tree.query(apply(pose, points))[0])[:kept]
    return pose, float(distance.mean())


def _hold(points: npt.NDArray[np.float64], normals: npt.NDArray[np.float64]) -> float:
    """Root mean square change of distance for the unit motion that changes it least (turns scaled to mm)."""
    centred = points - points.mean(axis=0)
    radius = max(1e-9, float(np.sqrt((centred**2).sum(axis=1).mean())))
    jacobian = np.hstack([normals, np.cross(centred / radius, normals)])
    return float(np.sqrt(max(0.0, np.linalg.eigvalsh(jacobian.T @ jacobian / len(points))[0])))
