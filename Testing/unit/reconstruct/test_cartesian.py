"""Root sum of squares beside the plain centred transform: every way through the work buffers gives the same picture."""

import numpy as np
import pytest
from IntraopMRIReconstructionLib.data import Encoding
from IntraopMRIReconstructionLib.errors import Cancelled
from IntraopMRIReconstructionLib.operators.fourier import image_from_kspace, resized
from IntraopMRIReconstructionLib.reconstruct import cartesian
from IntraopMRIReconstructionLib.reconstruct.cartesian import root_sum_of_squares
from IntraopMRIReconstructionLib.reconstruct.result import stepping

Size = tuple[int, int, int]


def encoding(matrix: Size, recon: Size, fov: Size, coils: int, is_3d: bool) -> Encoding:
    """Voxels of 1 mm on the recon grid, over an encoded field of view ``fov``."""
    return Encoding("scan", "cartesian", matrix, recon, fov, recon, coils, np.eye(4), is_3d)


def noise(shape: tuple[int, ...]) -> np.ndarray:
    rng = np.random.default_rng(5)
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)


def plain(kspace: np.ndarray, grid: Size, recon: Size, is_3d: bool) -> np.ndarray:
    """In double precision, as the definition says."""
    axes = (1, 2, 3) if is_3d else (2, 3)
    whole = kspace.shape[1:] if is_3d else kspace.shape[2:]
    target = grid if is_3d else grid[1:]
    gain = np.sqrt(np.prod(target) / np.prod(whole))
    images = image_from_kspace(resized(kspace.astype(np.complex128), target), axes) * gain
    return resized(np.sqrt((np.abs(images) ** 2).sum(axis=0)), recon)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("coils", [1, 2, 5])
@pytest.mark.parametrize(
    ("matrix", "recon", "fov", "is_3d"),
    [
        ((12, 34, 20), (12, 34, 20), (12, 34, 20), True),
        ((11, 33, 19), (11, 33, 19), (11, 33, 19), True),
        ((12, 34, 20), (8, 25, 11), (12, 34, 20), True),  # part of the field of view
        ((12, 34, 20), (16, 40, 24), (16, 40, 24), True),  # interpolated
        ((1, 34, 21), (1, 34, 21), (1, 34, 21), False),
        ((5, 34, 20), (5, 30, 17), (5, 34, 20), False),
        ((3, 33, 20), (3, 48, 24), (3, 48, 30), False),
    ],
)
def test_as_the_plain_transform(
    matrix: Size, recon: Size, fov: Size, is_3d: bool, coils: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cartesian, "SAMPLES_FOR_THREADS", 1)
    # Blocks of five rows, of which the last is not full.
    monkeypatch.setattr(cartesian, "BLOCK_BYTES", 5 * 8 * fov[0] * fov[2])
    kspace = noise((coils, *matrix))
    before = kspace.copy()
    scan = encoding(matrix, recon, fov, coils, is_3d)
    found = root_sum_of_squares(kspace, scan, stepping(lambda *_: True), threads)
    expected = plain(kspace, fov, recon, is_3d)
    assert found.dtype == np.float32
    assert found.shape == recon
    assert np.abs(found - expected).max() < 2e-6 * expected.max()
    assert np.array_equal(kspace, before)


@pytest.mark.parametrize("is_3d", [False, True])
def test_stops_when_told(is_3d: bool) -> None:
    calls: list[float] = []

    def progress(fraction: float, _what: str) -> bool:
        calls.append(fraction)
        return len(calls) < 3

    matrix = (8, 16, 16)
    scan = encoding(matrix, matrix, matrix, 4, is_3d)
    with pytest.raises(Cancelled):
        root_sum_of_squares(noise((4, *matrix)), scan, stepping(progress), 2)
    assert len(calls) == 3


@pytest.mark.parametrize("is_3d", [False, True])
def test_broken_number_is_not_lost(is_3d: bool) -> None:
    matrix = (4, 16, 16)
    kspace = noise((2, *matrix))
    kspace[1, 2, 3, 4] = np.nan
    scan = encoding(matrix, matrix, matrix, 2, is_3d)
    assert not np.isfinite(root_sum_of_squares(kspace, scan, stepping(lambda *_: True), 2).max())
