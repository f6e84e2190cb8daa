from __future__ import annotations

import numpy as np
import pytest
from IntraopMRIReconstructionLib.data import Image
from IntraopMRIReconstructionLib.errors import ReconstructionError
from IntraopMRIReconstructionLib.reconstruct.bias_field import BiasCorrection, n4, quick

SHAPE = (24, 72, 64)
SPACING = (3.0, 2.5, 2.5)


def scene(directions: np.ndarray | None = None) -> tuple[Image, np.ndarray, np.ndarray]:
    """(image with a coil on one side, true field, object): two tissues in patches, noise-free."""
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    inside = (x**2 + y**2 < 0.8) & (np.abs(z) < 0.9)
    patches = np.sin(9 * x + 1) * np.sin(8 * y) * np.cos(7 * z) > 0.2
    field = 1 / (0.6 + ((x - 1.5) ** 2 + (y - 0.9) ** 2 + z**2) / 4)  # a coil on one side
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) if directions is None else directions) * SPACING[::-1]
    return Image((np.where(patches, 100.0, 70.0) * inside * field).astype(np.float32), affine), field, inside


def unevenness(found: BiasCorrection, field: np.ndarray, inside: np.ndarray) -> float:
    """Standard deviation of the logarithm of what remains of the field."""
    return float(np.std(np.log(field / found.field)[inside]))


def test_fields_are_found_and_taken_away(directions: np.ndarray) -> None:
    image, field, inside = scene(directions)
    before = float(np.std(np.log(field)[inside]))
    found = quick(image)
    assert unevenness(found, field, inside) < 0.4 * before
    assert np.array_equal(found.image.ras_from_ijk, image.ras_from_ijk)
    assert found.image.uid != image.uid
    assert found.image.array[inside].mean() == pytest.approx(image.array[inside].mean(), rel=0.01)
    ratio = (found.image.array * found.field)[inside] / image.array[inside]
    assert np.ptp(ratio) < 1e-4


def test_n4_is_closer() -> None:
    image, field, inside = scene()
    assert unevenness(n4(image), field, inside) < 0.25 * float(np.std(np.log(field)[inside]))


def test_a_single_slice() -> None:
    image, field, inside = scene()
    middle = slice(12, 13)
    one = Image(image.array[middle], image.ras_from_ijk)
    before = float(np.std(np.log(field)[middle][inside[middle]]))
    assert unevenness(quick(one), field[middle], inside[middle]) < 0.5 * before


def test_refused() -> None:
    image, _, inside = scene()
    with pytest.raises(ReconstructionError, match="finite image"):
        quick(image.with_array(image.array * np.nan))
    with pytest.raises(ReconstructionError, match="must have shape"):
        n4(image, inside[:3])
    with pytest.raises(ReconstructionError, match="with 0"):
        quick(image, np.zeros(SHAPE, bool))
    with pytest.raises(ReconstructionError, match="one brightness"):
        quick(image.with_array(np.ones(SHAPE)))
