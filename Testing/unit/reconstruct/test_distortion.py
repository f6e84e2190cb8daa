from __future__ import annotations

import numpy as np
import pytest
from IntraopMRIReconstructionLib.errors import Cancelled, ReconstructionError
from IntraopMRIReconstructionLib.reconstruct.distortion import from_opposed_blips
from scipy.interpolate import CubicSpline

SHAPE = (4, 72, 48)


def field() -> np.ndarray:
    """Shift in voxels: a wide slope and a narrower bump, as above the sinuses."""
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    return np.asarray(1.2 * y - 0.5 * x + 3.5 * np.exp(-((x - 0.2) ** 2 + (y + 0.2) ** 2) / 0.1) * (1 - 0.1 * z))


def anatomy(y: np.ndarray, x: np.ndarray) -> np.ndarray:
    head = 1 / (1 + np.exp((np.hypot(x / 0.75, y / 0.8) - 1) / 0.03))
    return np.asarray(head * (1 + 0.3 * np.cos(9 * x) * np.cos(11 * y)))


def distorted(sign: int) -> np.ndarray:
    """Each point moved by its shift, signal squeezed by the slope of where it goes: exact, by the inverse map."""
    truth_y = np.linspace(-1, 1, SHAPE[1])
    voxel = truth_y[1] - truth_y[0]
    image = np.zeros(SHAPE)
    shift = field()
    for z in range(SHAPE[0]):
        for x, x_place in enumerate(np.linspace(-1, 1, SHAPE[2])):
            seen = np.arange(SHAPE[1]) + sign * shift[z, :, x]
            back = CubicSpline(seen, np.arange(SHAPE[1]))
            at = back(np.arange(SHAPE[1]))
            image[z, :, x] = anatomy(truth_y[0] + at * voxel, np.full(SHAPE[1], x_place)) * back(np.arange(SHAPE[1]), 1)
    return image


def truth() -> np.ndarray:
    _, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    return anatomy(y, x)


@pytest.mark.parametrize("axis", [1, 2])
def test_known_field(axis: int) -> None:
    up, down = (np.moveaxis(distorted(sign), 1, axis) for sign in (1, -1))
    found = from_opposed_blips(up, 1.1 * down, axis)
    image, shift = np.moveaxis(found.magnitude, axis, 1), np.moveaxis(found.shift, axis, 1)
    inside = truth() > 0.6
    errors = np.abs(shift - field())[inside]
    assert np.median(errors) < 0.15
    assert np.percentile(errors, 95) < 0.6
    assert found.difference_after < 0.25 * found.difference_before
    before = np.linalg.norm((distorted(1) + distorted(-1)) / 2 - truth())
    assert np.linalg.norm(image - truth()) < 0.35 * before
    assert found.warnings == ()


def test_images_without_distortion_are_left_alone() -> None:
    found = from_opposed_blips(truth(), truth())
    assert np.abs(found.shift).max() < 1e-6
    assert "hardly more alike" in found.warnings[0]


def test_cancelled_at_once() -> None:
    seen: list[float] = []

    def stop(fraction: float, what: str) -> bool:
        seen.append(fraction)
        return len(seen) < 3

    with pytest.raises(Cancelled):
        from_opposed_blips(truth(), truth(), progress=stop)
    assert len(seen) == 3


def test_refused() -> None:
    with pytest.raises(ReconstructionError, match="of one shape"):
        from_opposed_blips(truth(), truth()[:2])
    with pytest.raises(ReconstructionError, match="not empty"):
        from_opposed_blips(truth() * 0, truth())
    with pytest.raises(ReconstructionError, match="finite"):
        from_opposed_blips(truth() * np.nan, truth())
