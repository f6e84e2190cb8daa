from __future__ import annotations

import numpy as np
import pytest
from IntraopMRIReconstructionLib.data import Image
from IntraopMRIReconstructionLib.errors import ReconstructionError
from IntraopMRIReconstructionLib.reconstruct.gradient_nonlinearity import GradientCoil, straightened

RADIUS = 250.0
#: An LPS table, as of scanners whose patient lies head first on the back.
TABLE = np.diag([-1.0, -1.0, 1.0])
COIL = GradientCoil(
    RADIUS,
    {(3, 1): (-0.09, 0.0), (5, 1): (0.03, 0.0)},
    {(3, 1): (0.0, -0.085)},
    {(3, 0): (-0.075, 0.0), (5, 0): (0.02, 0.0)},
    TABLE,
)


def test_closed_form_of_the_third_degree() -> None:
    coil = GradientCoil(RADIUS, {(3, 1): (0.1, 0.0)}, {}, {(3, 0): (-0.2, 0.0)}, np.eye(3))
    x, y, z = 60.0, -30.0, 90.0
    found = coil.displacement(np.array([x, y, z]))
    r2 = x * x + y * y + z * z
    # P30 = (5 z^3 - 3 z r^2) / 2 / r^3; vendors' P31 = sqrt(7 / 24) * 3/2 (5 z^2 - r^2) sin(theta) / r^2.
    p30 = (5 * z**3 - 3 * z * r2) / 2
    p31 = np.sqrt(7 / 24) * 1.5 * (5 * z * z - r2) * x
    assert found == pytest.approx([0.1 * p31 / RADIUS**2, 0, -0.2 * p30 / RADIUS**2])


def true_position(seen: np.ndarray) -> np.ndarray:
    """Where points really lie that the scanner shows at ``seen``; each pass shrinks the error to less than a third."""
    true = seen
    for _ in range(12):
        true = seen - COIL.displacement(true)
    return true


def test_nothing_moves_at_the_isocentre() -> None:
    assert np.abs(COIL.displacement(np.array([90.0, -80.0, 100.0]))).max() > 3
    assert np.all(COIL.displacement(np.zeros(3)) == 0)


def test_a_bent_picture_is_straightened(directions: np.ndarray) -> None:
    """Blobs far from the isocentre come back to their places, with their brightness."""
    shape, spacing = (28, 30, 29), np.array([9.0, 9.0, 9.0])
    affine = np.eye(4)
    affine[:3, :3] = directions * spacing
    centre = np.array([10.0, -5.0, 20.0])
    affine[:3, 3] = centre - affine[:3, :3] @ ((np.array(shape[::-1]) - 1) / 2)
    k, j, i = np.meshgrid(*[np.arange(n) for n in shape], indexing="ij")
    ras = np.stack([i, j, k], axis=-1) @ affine[:3, :3].T + affine[:3, 3] - centre

    def blobs(points: np.ndarray) -> np.ndarray:
        places = np.array([[70, 10, 60], [-65, -60, -50], [10, 75, -65], [0, 0, 0]])
        return np.asarray(sum(np.exp(-((points - place) ** 2).sum(axis=-1) / (2 * 18.0**2)) for place in places))

    # Where the scanner shows a point it puts the signal of the true place, squeezed by the local change of volume.
    true = true_position(ras)
    slopes = np.stack(
        [(true_position(ras + 0.01 * e) - true_position(ras - 0.01 * e)) / 0.02 for e in np.eye(3)], axis=-1
    )
    bent = Image((blobs(true) * np.linalg.det(slopes)).astype(np.float32), affine)
    straight = straightened(bent, COIL, centre)
    # What lay outside the bent picture cannot come back: leave out the rim.
    inner = (slice(2, -2),) * 3
    assert np.abs(bent.array - blobs(ras))[inner].max() > 0.04
    assert np.abs(straight.array - blobs(ras))[inner].max() < 0.01
    assert np.array_equal(straight.ras_from_ijk, affine)


@pytest.mark.parametrize("slices", [1, 3])
def test_slices_of_a_2d_scan_are_straightened_within_themselves(directions: np.ndarray, slices: int) -> None:
    """Far from the isocentre points leave a single slice by more than its thickness: it must not turn black."""
    size, spacing = 48, np.array([4.0, 4.0, 5.0])
    affine = np.eye(4)
    affine[:3, :3] = directions * spacing
    affine[:3, 3] = 70 * directions[:, 2] - affine[:3, :3] @ np.array([(size - 1) / 2, (size - 1) / 2, slices // 2])
    k, j, i = np.meshgrid(np.arange(slices), np.arange(size), np.arange(size), indexing="ij")
    ras = np.stack([i, j, k], axis=-1) @ affine[:3, :3].T + affine[:3, 3]
    plane = directions[:, :2] @ directions[:, :2].T

    def true(seen: np.ndarray) -> np.ndarray:
        found = seen
        for _ in range(12):
            found = seen - COIL.displacement(found) @ plane
        return found

    def blobs(points: np.ndarray) -> np.ndarray:
        u, v = np.moveaxis(points @ directions[:, :2], -1, 0)
        return np.asarray(sum(np.exp(-((u - a) ** 2 + (v - b) ** 2) / (2 * 14.0**2)) for a, b in ((60, 5), (-50, -55))))

    steps = [(true(ras + 0.01 * e) - true(ras - 0.01 * e)) / 0.02 @ directions[:, :2] for e in directions[:, :2].T]
    bent = Image((blobs(true(ras)) * np.linalg.det(np.stack(steps, axis=-1))).astype(np.float32), affine)
    straight = straightened(bent, COIL, np.zeros(3), within_slices=True)
    inner = np.s_[:, 3:-3, 3:-3]
    assert np.abs(bent.array - blobs(ras))[inner].max() > 0.04
    assert np.abs(straight.array - blobs(ras))[inner].max() < 0.01


def test_a_coil_without_terms_changes_nothing() -> None:
    image = Image(np.random.default_rng(2).uniform(size=(1, 9, 8)).astype(np.float32), np.eye(4))
    straight = straightened(image, GradientCoil(RADIUS, {}, {}, {}, np.eye(3)), np.zeros(3))
    assert np.allclose(straight.array, image.array, atol=1e-5)


def test_refused() -> None:
    with pytest.raises(ReconstructionError, match="radius of a gradient coil"):
        GradientCoil(0.0, {}, {}, {}, np.eye(3))
    with pytest.raises(ReconstructionError, match=r"term \(3, 4\) of gradient y"):
        GradientCoil(RADIUS, {}, {(3, 4): (0.1, 0.0)}, {}, np.eye(3))
    with pytest.raises(ReconstructionError, match="linear term"):
        GradientCoil(RADIUS, {}, {}, {(1, 0): (1.0, 0.0)}, np.eye(3))
    with pytest.raises(ReconstructionError, match="must be a rotation"):
        GradientCoil(RADIUS, {}, {}, {}, 2 * np.eye(3))
    with pytest.raises(ReconstructionError, match="finite image"):
        straightened(Image(np.full((2, 2, 2), np.nan), np.eye(4)), COIL, np.zeros(3))
