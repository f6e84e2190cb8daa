"""A frame as independent planes: slices of 2D scans, and 3D scans after one Fourier transform along a free axis.

Every parallel-imaging, partial-Fourier and compressed-sensing method works on one plane (a, b) at a time, so that a
whole volume needs one copy of its k-space and the memory of a few planes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.fft

from ..data import KSpace
from ..errors import ReconstructionError
from ..operators.fourier import ComplexArray, centre_phase, resized
from ..operators.parallel import in_order
from ..operators.sampling import MAX_HOLES, Mask, Sampling, bridged, centre_block, planned_calibration
from .lost_lines import filled
from .result import Step
from .unmixing import Lattice

#: Largest calibration block (z, y, x): more samples make kernels and maps slower, not better.
MAX_CALIBRATION = (32, 32, 64)
#: Neighbouring planes of readout-decoupled volumes that are gathered at a time: one cache line of samples.
GATHER = 8


@dataclass(frozen=True, eq=False)
class Plane:
    """One independent problem. ``kspace`` (coils, a, b); ``calibration`` (coils, ca, cb), empty when there is none."""

    kspace: ComplexArray
    calibration: ComplexArray
    index: int

    @property
    def shape(self) -> tuple[int, int]:
        """(a, b)."""
        return self.kspace.shape[1], self.kspace.shape[2]


#: Makes a centred complex image (a, b), and the g-factor (a, b) or None, of a plane with so many threads.
Solver = Callable[[Plane, int], tuple[ComplexArray, npt.NDArray[np.float32] | None]]


class Planes:
    """How a frame splits. ``along_readout``: planes are (z, y), one each x; otherwise (y, x), one each z."""

    def __init__(self, kspace: KSpace, sampling: Sampling) -> None:
        """Raises ReconstructionError when neither z nor the readout can be transformed on its own."""
        encoding = kspace.encoding
        z, y, x = encoding.encoded_matrix
        whole_readout = kspace.readout == (0, x)
        whole_z = (
            sampling.kind in ("full", "regular") and sampling.acceleration[0] == 1 and sampling.extent[0] == (0, z)
        )
        self.along_readout = encoding.is_3d and not (whole_z and _separable(kspace, sampling))
        if self.along_readout and not whole_readout:
            raise ReconstructionError(
                f"a 3D scan whose readout has samples {kspace.readout} of {x} must be fully sampled along z: use "
                "method fft"
            )
        self._kspace = kspace
        #: ``lost``: words on calibration lines that were lost, "" when all are there.
        self._block, self._made_whole, self.lost = _calibration(kspace, sampling)
        self.shape = (z, y) if self.along_readout else (y, x)
        self.count = x if self.along_readout else z
        plane_axes = (0, 1) if self.along_readout else (1, 2)
        steps, offsets = (*sampling.acceleration, 1), (*sampling.offset, 0)
        self.lattice = Lattice(
            self.shape,
            (steps[plane_axes[0]], steps[plane_axes[1]]),
            (offsets[plane_axes[0]], offsets[plane_axes[1]]),
        )
        ranges = (*sampling.extent, kspace.readout)
        partial = (*sampling.partial, 1.0 if whole_readout else 0.0)
        #: (axis of the plane, first and last + 1 sample) of each axis that was acquired on one side only.
        self.one_sided = [(number, ranges[axis]) for number, axis in enumerate(plane_axes) if partial[axis] < 1.0]

    @property
    def calibration_shape(self) -> tuple[int, int]:
        """Size (ca, cb) of the calibration block of a plane; (0, 0) when there is none."""
        z, y, x = (stop - start for start, stop in self._block)
        return (z, y) if self.along_readout else (y, x)

    @property
    def sampled_share(self) -> float:
        """Share of the lines that were acquired."""
        return float((self._kspace.acquired > 0).mean())

    def sampled(self, index: int) -> npt.NDArray[np.bool_]:
        """Mask (a, b) of a plane, (a, 1) where whole rows were acquired."""
        acquired: npt.NDArray[np.bool_] = np.asarray(self._kspace.acquired > 0)
        if self.along_readout:
            return np.asarray(acquired)
        return np.asarray(
            acquired[index][:, None] if not self._kspace.encoding.is_3d else acquired.any(axis=0, keepdims=True).T
        )

    def calibrations(self) -> Iterator[ComplexArray]:
        """The calibration block (coils, ca, cb) of each plane, as :meth:`solve` will hand it out."""
        block = self._decoupled_block()
        for index in range(self.count):
            yield block[..., index] if self.along_readout else block[:, index]

    def solve(self, solver: Solver, step: Step, threads: int) -> tuple[ComplexArray, npt.NDArray[np.float32] | None]:
        """(image (z, y, x) centred complex on the encoded grid, g-factor map or None)."""
        volume = np.empty(self._kspace.encoding.encoded_matrix, dtype=np.complex64)
        g_factor: npt.NDArray[np.float32] | None = None
        hybrid, calibration, phase = self._decoupled(step, threads)
        inner = threads if self.count == 1 else 1
        nothing = np.zeros(self.shape, dtype=np.complex64), None

        def group(first: int) -> list[tuple[int, tuple[ComplexArray, npt.NDArray[np.float32] | None]]]:
            return [
                (plane.index, solver(plane, inner) if self._begun(plane.index) else nothing)
                for plane in self._gathered(hybrid, calibration, first)
            ]

        size = GATHER if self.along_readout else 1
        for results in in_order(group, range(0, self.count, size), threads):
            for index, (image, g_plane) in results:
                step(0.2 + 0.8 * index / self.count, "planes")
                at = self._place(index)
                volume[at] = image if phase is None else image * phase[index]
                if g_plane is not None:
                    if g_factor is None:
                        g_factor = np.ones(volume.shape, dtype=np.float32)
                    g_factor[at] = g_plane
        return volume, g_factor

    def _begun(self, index: int) -> bool:
        """Whether a slice has any line; planes of 3D scans always have."""
        return self._kspace.encoding.is_3d or bool(self._kspace.acquired[index].any())

    def _place(self, index: int) -> tuple[slice | int, ...]:
        """Where plane ``index`` in FFT order of the free axis lies in the centred volume."""
        if not self._kspace.encoding.is_3d:
            return (index,)
        centred = (index + self.count // 2) % self.count
        return (slice(None), slice(None), centred) if self.along_readout else (centred,)

    def _decoupled(self, step: Step, threads: int) -> tuple[ComplexArray, ComplexArray, ComplexArray | None]:
        """(samples and calibration block, transformed along the free axis in FFT order; phase of each plane)."""
        samples, block = self._kspace.samples, self._decoupled_block()
        if not self._kspace.encoding.is_3d:
            return samples, block, None
        axis = 2 if self.along_readout else 0
        hybrid = np.empty_like(samples)
        for coil, source in enumerate(samples):
            step(0.2 * coil / len(samples), "transform along the free axis")
            np.copyto(hybrid[coil], source)
            scipy.fft.ifft(hybrid[coil], axis=axis, norm="ortho", workers=threads, overwrite_x=True)
        return hybrid, block, centre_phase((self.count,))

    def _decoupled_block(self) -> ComplexArray:
        """Calibration block of all planes, transformed along the free axis in FFT order."""
        block = self._calibration_block()
        if not self._kspace.encoding.is_3d:
            return block
        axis = 2 if self.along_readout else 0
        shape = list(block.shape[1:])
        shape[axis] = self.count
        return np.asarray(scipy.fft.ifft(resized(block, shape), axis=axis + 1, norm="ortho"))

    def _gathered(self, hybrid: ComplexArray, calibration: ComplexArray, first: int) -> list[Plane]:
        if not self.along_readout:
            return [Plane(hybrid[:, first], calibration[:, first], first)]
        stop = min(self.count, first + GATHER)
        several = np.ascontiguousarray(np.moveaxis(hybrid[..., first:stop], -1, 0))
        blocks = np.ascontiguousarray(np.moveaxis(calibration[..., first:stop], -1, 0))
        return [Plane(several[n], blocks[n], first + n) for n in range(stop - first)]

    def _calibration_block(self) -> ComplexArray:
        z, y, x = (slice(*limits) for limits in self._block)
        if self.along_readout:
            x = slice(None)
        if self._made_whole is not None:
            return self._made_whole[..., x]
        source = self._kspace.samples if self._kspace.calibration is None else self._kspace.calibration
        return source[:, z if self._kspace.encoding.is_3d else slice(None), y, x]


def _calibration(kspace: KSpace, sampling: Sampling) -> tuple[tuple[tuple[int, int], ...], ComplexArray | None, str]:
    """(ranges (z, y, x) of the calibration block; with lost lines itself, made whole, its readouts not cut; words).

    Lost lines are made from their neighbours where these suffice, else the block ends before them.
    """
    is_3d, matrix = kspace.encoding.is_3d, kspace.encoding.encoded_matrix
    slices = np.full(matrix[0], True) if is_3d else np.asarray(kspace.acquired.any(axis=1))
    known, block = calibrated_lines(kspace), sampling.calibration
    if kspace.calibration is not None:
        block = centre_block(bridged(known, is_3d)[slices], is_3d)
    candidates = [block]
    # What surrounds a loss closes its gap. Nothing surrounds one at the rim, but the header knows how many there were.
    if any(stop - start < lines for (start, stop), lines in zip(block, kspace.encoding.calibration_lines, strict=True)):
        candidates.insert(0, planned_calibration(kspace.encoding))
    for lines in candidates:
        ranges = central((*lines, kspace.readout), matrix)
        z, y = slice(*ranges[0]) if is_3d else slice(None), slice(*ranges[1])
        lost = ~known[z, y] & slices[z, None]
        if lost.sum() <= MAX_HOLES * lost.size:
            break
    if not lost.any():
        return ranges, None, ""
    words = f"{int(lost.sum())} of {lost.size} calibration lines were lost"
    whole = np.array((kspace.samples if kspace.calibration is None else kspace.calibration)[:, z, y])
    good = ~lost
    # Coils see every slice otherwise: each learns from itself.
    for part in [slice(None)] if is_3d else [slice(each, each + 1) for each in np.flatnonzero(lost.any(axis=1))]:
        whole[:, part], good[part] = filled(whole[:, part], ~lost[part])
    if good.all():
        return ranges, whole, f"{words} and made from the lines around them"
    block = centre_block(known[slices], is_3d)
    ranges = central((*block, kspace.readout), matrix)
    left = " x ".join(str(stop - start) for start, stop in ranges[0 if is_3d else 1 : 2])
    return ranges, None, f"{words}, too many to make them from the others: {left} left in one piece"


def calibrated_lines(kspace: KSpace) -> Mask:
    """Which lines (z, y) there are to calibrate by."""
    if kspace.calibration is None:
        return np.asarray(kspace.acquired > 0)
    # A line that was acquired has signal in the middle of its readout, so that the rest need not be looked at.
    middle = kspace.encoding.encoded_matrix[2] // 2
    return np.asarray(kspace.calibration[..., max(0, middle - 2) : middle + 3].any(axis=(0, 3)))


def central(block: tuple[tuple[int, int], ...], sizes: tuple[int, int, int]) -> tuple[tuple[int, int], ...]:
    """What of ``block`` (z, y, x) lies evenly about the centre of a matrix, at most ``MAX_CALIBRATION``."""
    ranges = []
    for (start, stop), size, limit in zip(block, sizes, MAX_CALIBRATION, strict=True):
        centre = size // 2
        half = min(centre - start, stop - centre, limit // 2)
        # A single sample (a plane without a second axis) is its own centre.
        ranges.append((centre - half, centre + half) if half > 0 else (centre, centre + int(stop > start)))
    return tuple(ranges)


def _separable(kspace: KSpace, sampling: Sampling) -> bool:
    """Whether every line of the lattice was acquired for all z (no elliptical shutter)."""
    rows = kspace.acquired[:, sampling.offset[1] % sampling.acceleration[1] :: sampling.acceleration[1]] > 0
    first, last = sampling.extent[1]
    inside = slice(first // sampling.acceleration[1] + 1, last // sampling.acceleration[1] - 1)
    return bool(rows[:, inside].all())
