"""Multi-coil Cartesian k-space of an image, as a scanner would send it.

Convention: image = centred inverse FFT of k-space, orthonormal. Written without the reconstruction's operators, so
that a shared mistake cannot cancel.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import fft

from ..data import Acquisition, Encoding, Image, LineFlag
from ..errors import DataError
from .coils import coil_maps
from .grids import Shape, smooth_noise, stream

#: Radians of the smooth object phase: raw data is never that of a real image.
OBJECT_PHASE = 0.6


@dataclass(frozen=True)
class Sampling:
    """Which lines are taken: every ``acceleration``-th along (partition, phase) and the ``calibration`` centre lines.

    ``centre_out``: partitions from the centre of k-space outward, so that a preview can start early.
    """

    acceleration: tuple[int, int] = (1, 1)
    calibration: int = 24
    centre_out: bool = True


FULL = Sampling()
R2 = Sampling((1, 2), 24)


@dataclass(frozen=True, eq=False)
class Scan:
    """Raw data of one scan: how it is encoded, and its lines. ``kspace``: (kz, ky, coils, kx) complex64."""

    encoding: Encoding
    kspace: npt.NDArray[np.complex64]
    sampling: Sampling

    def blocks(self) -> Iterator[Acquisition]:
        """The lines, one block a partition, in the order in which they are taken; the last one says so."""
        partitions = _taken(self.encoding.encoded_matrix[0], self.sampling.acceleration[0], self.sampling, 0)
        if self.sampling.centre_out:
            partitions = partitions[np.argsort(np.abs(partitions - self.encoding.centre_index[0]), kind="stable")]
        lines = _taken(self.encoding.encoded_matrix[1], self.sampling.acceleration[1], self.sampling, 1)
        for order, partition in enumerate(partitions):
            flags = _flags(lines, self.encoding, self.sampling)
            last = order == len(partitions) - 1
            if last:
                flags[-1] |= int(LineFlag.LAST_IN_SCAN)
            yield Acquisition(
                self.encoding.scan_id,
                np.ascontiguousarray(self.kspace[partition, lines]),
                lines.astype(np.int32),
                np.full(len(lines), partition, dtype=np.int32),
                flags,
                last=last,
            )


def simulate_scan(
    image: Image,
    scan_id: str,
    *,
    coils: int = 8,
    noise: float = 0.02,
    sampling: Sampling = FULL,
    seed: int = 0,
    protocol: str = "",
    maps: npt.NDArray[np.complex64] | None = None,
) -> Scan:
    """Raw data of a 3D scan of ``image`` (k, j, i = partition, phase, readout).

    ``noise``: standard deviation per real channel in an image of one coil, as a fraction of the image's 98th
    percentile. ``maps``: (coils, k, j, i), made when None. Raises DataError for an image that is not scalar, or a
    sampling that leaves nothing.
    """
    if image.array.ndim != 3:
        raise DataError(f"a scan needs a scalar image of shape (k, j, i), got {image.array.shape}")
    shape: Shape = image.array.shape[:3]
    if min(sampling.acceleration) < 1 or any(a > n for a, n in zip(sampling.acceleration, shape, strict=False)):
        raise DataError(f"acceleration must be 1 to the matrix {shape[:2]}, got {sampling.acceleration}")
    rng = stream(seed, f"k-space {scan_id}")
    sensitivities = coil_maps(image.ras_from_ijk, shape, coils) if maps is None else maps
    object_phase = _smooth_phase(shape, rng)
    magnetisation = image.array.astype(np.float32) * object_phase
    sigma = np.float32(noise * np.percentile(image.array, 98))
    z, y, x = shape
    kspace = np.empty((z, y, len(sensitivities), x), dtype=np.complex64)
    for c, sensitivity in enumerate(sensitivities):
        lines = _centred_fft(magnetisation * sensitivity)
        lines.view(np.float32)[...] += sigma * rng.standard_normal((z, y, 2 * x), dtype=np.float32)
        kspace[:, :, c] = lines
    i_mm, j_mm, k_mm = (float(length) for length in image.spacing_mm * shape[::-1])
    field_of_view = (k_mm, j_mm, i_mm)
    partitions, phases = (
        min(sampling.calibration, n) if step > 1 else 0
        for n, step in zip(shape[:2], sampling.acceleration, strict=True)
    )
    encoding = Encoding(
        scan_id,
        "cartesian",
        shape,
        shape,
        field_of_view,
        field_of_view,
        len(sensitivities),
        image.ras_from_ijk,
        acceleration=sampling.acceleration,
        calibration_lines=(partitions, phases),
        protocol=protocol or image.name,
        patient_id=image.patient_id,
        field_t=3.0,
    )
    return Scan(encoding, kspace, sampling)


def _centred_fft(image: npt.NDArray[np.complex64]) -> npt.NDArray[np.complex64]:
    """Orthonormal FFT with the origin in the middle (index N // 2) on both sides."""
    shifted: Any = fft.fftn(fft.ifftshift(image), norm="ortho", workers=2, overwrite_x=True)
    return np.ascontiguousarray(fft.fftshift(shifted), dtype=np.complex64)


def _smooth_phase(shape: Shape, rng: np.random.Generator) -> npt.NDArray[np.complex64]:
    """exp(i phase) with a phase that varies over a third of the field of view, (k, j, i)."""
    nodes = smooth_noise((8, 8, 8), 1.2, rng)
    for axis, n in enumerate(shape):
        at = np.linspace(0, 7, n)
        weights = np.maximum(0, 1 - np.abs(at[:, None] - np.arange(8))).astype(np.float32)
        nodes = np.moveaxis(np.tensordot(nodes, weights, axes=(axis, 1)), -1, axis)
    return np.exp(1j * np.float32(OBJECT_PHASE) * nodes).astype(np.complex64)


def _taken(count: int, step: int, sampling: Sampling, axis: int) -> npt.NDArray[np.intp]:
    """Indices that are sampled along one axis; the centre is always on the grid."""
    centre = count // 2
    taken = (np.arange(count) - centre) % step == 0
    if sampling.acceleration[axis] > 1:
        first = centre - sampling.calibration // 2
        taken[max(first, 0) : first + sampling.calibration] = True
    return np.flatnonzero(taken)


def _flags(lines: npt.NDArray[np.intp], encoding: Encoding, sampling: Sampling) -> npt.NDArray[np.uint32]:
    """Calibration lines off the grid serve calibration alone, those on it serve both."""
    flags = np.zeros(len(lines), dtype=np.uint32)
    step = sampling.acceleration[1]
    if step > 1:
        away = lines - encoding.centre_index[1]
        half = sampling.calibration // 2
        central = (away >= -half) & (away < sampling.calibration - half)
        flags[central & (away % step == 0)] = int(LineFlag.CALIBRATION_AND_IMAGE)
        flags[central & (away % step != 0)] = int(LineFlag.CALIBRATION)
    return flags
