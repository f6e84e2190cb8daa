"""Registration from pairs of points: pose, FRE, and the error to expect at any target."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from IntraopMRIReconstructionLib.data import Level, Matrix, Reason, Verdict
from IntraopMRIReconstructionLib.errors import RegistrationError
from IntraopMRIReconstructionLib.geometry import apply

Points = npt.NDArray[np.float64]

#: Three points fix a pose, a fourth shows whether one of them is wrong.
MIN_POINTS, CHECK_POINTS = 3, 4
#: Points nearer to one line than this leave the turn about it open, mm.
MIN_SPREAD_MM = 5.0
#: Neuronavigation asks for less than the first; beyond the second a point was confused with another.
CHECK_FRE_MM, REFUSED_FRE_MM = 2.0, 5.0


@dataclass(frozen=True, eq=False)
class LandmarkRegistration:
    """``target_from_source``: (4, 4) rigid. ``fre_mm``: root mean square distance of the pairs after registration.

    ``residuals_mm``: (n,), each pair's distance. ``fle_mm``: expected error of a single point, from FRE.
    """

    target_from_source: Matrix
    fre_mm: float
    fle_mm: float
    residuals_mm: Points
    verdict: Verdict
    _centre: Points
    _axes: Points
    _spread: Points
    _count: int

    def expected_tre_mm(self, targets: npt.ArrayLike) -> Points:
        """Expected root mean square error (m,) in mm at ``targets`` (m, 3), target frame.

        Fitzpatrick, West, Maurer, IEEE TMI 17:694, 1998: FLE^2 / N x (1 + 1/3 sum over the principal axes of
        (distance of the target from the axis / root mean square distance of the points from it)^2).
        """
        points = (np.atleast_2d(np.asarray(targets, dtype=np.float64)) - self._centre) @ self._axes
        total = (points**2).sum(axis=1, keepdims=True)
        from_axis = total - points**2
        spread = self._spread.sum() - self._spread
        return np.asarray(np.sqrt(self.fle_mm**2 / self._count * (1.0 + (from_axis / spread).sum(axis=1) / 3.0)))


def fit_rigid(source: npt.ArrayLike, target: npt.ArrayLike, weights: npt.ArrayLike | None = None) -> Matrix:
    """Least-squares rigid (4, 4) that takes ``source`` (n, 3) to ``target`` (n, 3), without mirroring (Kabsch 1976)."""
    first, second = np.asarray(source, dtype=np.float64), np.asarray(target, dtype=np.float64)
    weight = np.ones(len(first)) if weights is None else np.asarray(weights, dtype=np.float64)
    weight = weight / weight.sum()
    centre_1, centre_2 = weight @ first, weight @ second
    u, _, vt = np.linalg.svd((first - centre_1).T @ ((second - centre_2) * weight[:, None]))
    turn = np.diag([1.0, 1.0, np.sign(np.linalg.det(vt.T @ u.T))])
    result = np.eye(4)
    result[:3, :3] = vt.T @ turn @ u.T
    result[:3, 3] = centre_2 - result[:3, :3] @ centre_1
    return result


def register_landmarks(source: npt.ArrayLike, target: npt.ArrayLike) -> LandmarkRegistration:
    """Rigid pose from pairs of points: ``source`` (n, 3) onto ``target`` (n, 3), mm, each in its own RAS frame.

    Raises RegistrationError for fewer than three pairs, for values that are not finite, and for points on one line.
    """
    first, second = (np.atleast_2d(np.asarray(p, dtype=np.float64)) for p in (source, target))
    if first.shape != second.shape or first.ndim != 2 or first.shape[1] != 3:
        raise RegistrationError(f"landmarks must come in pairs of shape (n, 3), got {first.shape} and {second.shape}")
    count = len(first)
    if count < MIN_POINTS:
        raise RegistrationError(f"at least {MIN_POINTS} pairs of landmarks are needed, got {count}")
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise RegistrationError("landmarks must be finite numbers in mm: place the undefined ones or remove them")
    centre = second.mean(axis=0)
    _, spread, axes = np.linalg.svd(second - centre, full_matrices=False)
    if spread[1] / np.sqrt(count) < MIN_SPREAD_MM:
        raise RegistrationError(
            f"the landmarks lie within {spread[1] / np.sqrt(count):.1f} mm of one line, at least {MIN_SPREAD_MM:g} mm "
            "are needed: add one beside it"
        )
    pose = fit_rigid(first, second)
    residuals = np.linalg.norm(apply(pose, first) - second, axis=1)
    fre = float(np.sqrt(np.mean(residuals**2)))
    # E[FRE^2] = (1 - 2 / N) FLE^2 (Sibson 1979, as in Fitzpatrick 1998).
    fle = fre / float(np.sqrt(1.0 - 2.0 / count))
    level = Level.REFUSED if fre > REFUSED_FRE_MM else Level.CHECK if fre > CHECK_FRE_MM else Level.GOOD
    reasons = (
        Reason("FRE", fre, "mm", f"below {CHECK_FRE_MM:g} mm", level),
        Reason("pairs", count, "", f"at least {CHECK_POINTS}", Level.GOOD if count >= CHECK_POINTS else Level.CHECK),
    )
    return LandmarkRegistration(pose, fre, fle, residuals, Verdict(reasons), centre, axes.T, spread**2 / count, count)
