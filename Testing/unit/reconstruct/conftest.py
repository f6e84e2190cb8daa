"""A closed-form head seen by eight coils, as Cartesian scans of every kind."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import numpy.typing as npt
import pytest
from IntraopMRIReconstructionLib.data import Encoding, KSpace
from IntraopMRIReconstructionLib.simulate.analytic import (
    HEAD_2D,
    HEAD_3D,
    cartesian_kspace,
    grid_points_mm,
    ring_of_coils,
    voxel_means,
)
from scipy.ndimage import binary_erosion

FIELD = 240.0
COILS = 8


#: Structures of the 3D head that the tests use: closed forms of more take their time.
PARTS_3D = HEAD_3D[:4]


@cache
def full_kspace(matrix: tuple[int, ...]) -> npt.NDArray[np.complex64]:
    """(coils, [z,] y, x), never to be written to."""
    parts = HEAD_2D if len(matrix) == 2 else PARTS_3D
    field = (FIELD,) * len(matrix)
    kspace = cartesian_kspace(matrix, field, parts, ring_of_coils(COILS, FIELD, len(matrix)))
    kspace.setflags(write=False)
    return kspace


class Scan:
    """A scan of the head with noise of a given strength: ``frame`` makes the k-space, ``error`` judges an image."""

    def __init__(self, matrix: tuple[int, ...], noise: float = 0.0, seed: int = 1) -> None:
        self.matrix = matrix
        self.is_3d = len(matrix) == 3
        kspace = full_kspace(matrix)
        rng = np.random.default_rng(seed)
        parts = rng.standard_normal((*kspace.shape, 2), dtype=np.float32) * np.float32(noise / np.sqrt(2))
        noisy = kspace + parts.view(np.complex64)[..., 0]
        self.kspace = noisy if self.is_3d else noisy[:, None]
        points = grid_points_mm(matrix, (FIELD,) * len(matrix))
        coils = ring_of_coils(COILS, FIELD, len(matrix))
        self.strength = np.sqrt(sum(np.abs(coil.at(points)) ** 2 for coil in coils)).reshape(self.kspace.shape[1:])
        parts3d = PARTS_3D if self.is_3d else HEAD_2D
        head = np.abs(voxel_means(matrix, (FIELD,) * len(matrix), parts3d, fine=2)).reshape(self.strength.shape)
        self.truth = head * self.strength
        self.inside = binary_erosion(head > 0.1, np.ones((3, 3, 3) if self.is_3d else (1, 3, 3)))

    def frame(self, acquired: npt.ArrayLike | None = None, coils: slice = slice(None), **changes: object) -> KSpace:
        """K-space of the lines ``acquired`` (z, y); all of them when None."""
        z, y, x = self.kspace.shape[1:]
        mask = np.ones((z, y), bool) if acquired is None else np.broadcast_to(np.asarray(acquired, bool), (z, y))
        samples = np.ascontiguousarray(self.kspace[coils] * mask[None, :, :, None]).astype(np.complex64)
        fov = (FIELD if self.is_3d else 5.0, FIELD, FIELD)
        encoding = Encoding(
            scan_id="scan",
            trajectory="cartesian",
            encoded_matrix=(z, y, x),
            recon_matrix=(z, y, x),
            encoded_fov_mm=fov,
            recon_fov_mm=fov,
            coils=len(samples),
            ras_from_ijk=np.eye(4),
            is_3d=self.is_3d,
        )
        values: dict = {"acquired": mask.astype(np.uint8), "encoding": encoding, "readout": (0, x)}
        return KSpace(samples=samples, **(values | changes))

    def error(self, magnitude: npt.NDArray[np.floating]) -> float:
        """NRMSE against the fully sampled image's own root sum of squares, inside the head.

        Truncation rings alike in both, so that only what the method did is measured.
        """
        reference = self.reference
        difference = magnitude[self.inside] - reference[self.inside]
        return float(np.linalg.norm(difference) / np.linalg.norm(reference[self.inside]))

    @property
    def reference(self) -> npt.NDArray[np.floating]:
        """Noise-free, fully sampled root sum of squares, by numpy's transform in double precision."""
        axes = (1, 2, 3) if self.is_3d else (2, 3)
        kspace = full_kspace(self.matrix).astype(np.complex128).reshape(self.kspace.shape)
        images = np.fft.fftshift(np.fft.ifftn(np.fft.ifftshift(kspace, axes), axes=axes, norm="ortho"), axes)
        return np.sqrt((np.abs(images) ** 2).sum(axis=0))


def every(step: int, size: int, calibration: int = 0, offset: int = 0) -> npt.NDArray[np.bool_]:
    """Mask (size,) of every ``step``-th line and ``calibration`` lines in the middle."""
    mask = np.arange(size) % step == offset
    mask[size // 2 - calibration // 2 : size // 2 + calibration // 2] |= calibration > 0
    return mask


@pytest.fixture(scope="session")
def plane() -> Scan:
    """A 2D scan of 96 x 96 with noise of 1 % of the skull's brightness."""
    return Scan((96, 96), noise=0.01)


@pytest.fixture(scope="session")
def volume() -> Scan:
    """A 3D scan of 24 x 40 x 32 with noise."""
    return Scan((24, 40, 32), noise=0.01)


@pytest.fixture(scope="session")
def lines() -> Callable[..., npt.NDArray[np.bool_]]:
    """The function :func:`every`."""
    return every
