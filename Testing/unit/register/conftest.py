"""A head with a known value at every point in space, so that any grid, pose and shift of it is exact."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from IntraopMRIReconstructionLib.data import Image
from IntraopMRIReconstructionLib.geometry import apply, corner_from_centre, invert, rotation_about

#: Semi-axes of scalp and brain, mm.
SCALP_MM, BRAIN_MM = np.array([78.0, 92.0, 84.0]), np.array([66.0, 80.0, 70.0])


class AnalyticHead:
    """Scalp, skull, brain with folded grey and white matter, ventricles and a one-sided landmark."""

    def __init__(self, seed: int = 1, stretch: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> None:
        self._stretch = np.array(stretch)
        rng = np.random.default_rng(seed)
        directions = rng.standard_normal((9, 3))
        self._waves = directions / np.linalg.norm(directions, axis=1, keepdims=True) * rng.uniform(0.15, 0.5, (9, 1))
        self._phases = rng.uniform(0, 2 * np.pi, 9)

    def brain(self, points: np.ndarray) -> np.ndarray:
        """True inside the brain, at RAS points (..., 3)."""
        return np.linalg.norm(points / BRAIN_MM, axis=-1) < 1.0

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """T1-like intensity at RAS points (..., 3)."""
        points = points / self._stretch
        folds = sum(np.sin(points @ w + p) for w, p in zip(self._waves, self._phases, strict=True)) / np.sqrt(4.5)
        scalp = _soft(1.0 - np.linalg.norm(points / SCALP_MM, axis=-1), 0.015)
        skull = _soft(1.0 - np.linalg.norm(points / (SCALP_MM - 5.0), axis=-1), 0.015)
        brain = _soft(1.0 - np.linalg.norm(points / BRAIN_MM, axis=-1), 0.015)
        ventricle = _soft(1.0 - np.linalg.norm((points - (12.0, 5.0, 8.0)) / (7.0, 24.0, 9.0), axis=-1), 0.1)
        landmark = _soft(1.0 - np.linalg.norm((points - (-30.0, 25.0, 20.0)) / 14.0, axis=-1), 0.1)
        tissue = 95.0 + 20.0 * np.tanh(2.0 * folds)
        tissue = tissue * (1 - ventricle) + 25.0 * ventricle
        tissue = tissue * (1 - landmark) + 150.0 * landmark
        return 170.0 * (scalp - skull) + 20.0 * (skull - brain) + tissue * brain


def _soft(inside: np.ndarray, width: float) -> np.ndarray:
    return 0.5 * (1.0 + np.tanh(inside / width))


def grid_points(image_shape: tuple[int, int, int], ras_from_ijk: np.ndarray) -> np.ndarray:
    """RAS of every voxel, shape (k, j, i, 3)."""
    k, j, i = np.indices(image_shape)
    return apply(ras_from_ijk, np.stack([i, j, k], axis=-1).astype(float))


Scan = Callable[..., Image]


@pytest.fixture(scope="session")
def head() -> AnalyticHead:
    return AnalyticHead()


@pytest.fixture(scope="session")
def scan() -> Scan:
    """Sample a head on a grid: ``scan(head, preop_from_scan=..., warp=..., axes=..., spacing=..., size=...)``."""

    def make(
        head: Callable[[np.ndarray], np.ndarray],
        *,
        head_from_ras: np.ndarray | None = None,
        warp: Callable[[np.ndarray], np.ndarray] | None = None,
        axes: np.ndarray | None = None,
        spacing: tuple[float, float, float] = (2.5, 2.5, 2.5),
        fov: float = 200.0,
        centre: tuple[float, float, float] = (0.0, 0.0, 0.0),
        noise: float = 2.0,
        seed: int = 0,
    ) -> Image:
        directions = np.eye(3) if axes is None else axes
        size = tuple(round(fov / s) for s in spacing)
        matrix = corner_from_centre(directions * np.asarray(spacing), centre, size)  # type: ignore[arg-type]
        points = grid_points(size[::-1], matrix)  # type: ignore[arg-type]
        if head_from_ras is not None:
            points = apply(head_from_ras, points)
        if warp is not None:
            points = warp(points)
        values = head(points)
        rng = np.random.default_rng(seed)
        noisy = np.hypot(values + noise * rng.standard_normal(values.shape), noise * rng.standard_normal(values.shape))
        return Image(noisy.astype(np.float32), matrix)

    return make


def rigid(axis: tuple[float, float, float], degrees: float, shift_mm: tuple[float, float, float]) -> np.ndarray:
    """(4, 4) rotation about the origin and then a shift."""
    result = np.eye(4)
    result[:3, :3] = rotation_about(axis, degrees)
    result[:3, 3] = shift_mm
    return result


@pytest.fixture(scope="session")
def pose() -> Callable[..., np.ndarray]:
    return rigid


@pytest.fixture(scope="session")
def preop(head: AnalyticHead, scan: Scan) -> Image:
    return scan(head, seed=5)


@pytest.fixture(scope="session")
def shifted() -> Callable[[np.ndarray, float], np.ndarray]:
    """Brain shift in the head's frame: tissue below a craniotomy at the upper right sinks inward by ``mm``."""

    def warp(points: np.ndarray, mm: float) -> np.ndarray:
        inward = np.array([0.6, 0.0, 0.8])
        weight = np.exp(-(np.sum((points - 70.0 * inward) ** 2, axis=-1) / 45.0**2))
        inside = np.clip((1.06 - np.linalg.norm(points / BRAIN_MM, axis=-1)) / 0.1, 0.0, 1.0)
        return points + (mm * weight * inside)[..., None] * inward

    return warp


__all__ = ["AnalyticHead", "grid_points", "invert", "rigid"]
