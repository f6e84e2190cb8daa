"""Undersampled Cartesian imaging in real time: each frame leaves out other lines, and neighbours calibrate it.

Source: Breuer et al., Dynamic autocalibrated parallel imaging using temporal GRAPPA (TGRAPPA), Magn Reson Med 53:981
(2005).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ReconstructionError
from ..operators.fourier import ComplexArray, resized
from ..operators.sensitivity import low_resolution
from . import grappa
from .unmixing import Calibrations, Lattice, Unmixing

#: Calibration block (lines, readout) cut from the merged frames: more makes kernels slower, not better.
CALIBRATION = (32, 64)


@dataclass(frozen=True, eq=False)
class Frame:
    """One live picture. ``image``: (y, x) complex64, or float32 where coils were combined without phase; ``shots``:
    lines or spokes in it; ``received_monotonic_s``: when the last of them arrived, None when unknown."""

    image: npt.NDArray[Any]
    shots: int
    received_monotonic_s: float | None

    def age_s(self, now_monotonic_s: float | None = None) -> float | None:
        """Latency: seconds since the last line arrived, by the monotonic clock; None when that is unknown."""
        if self.received_monotonic_s is None:
            return None
        return (time.monotonic() if now_monotonic_s is None else now_monotonic_s) - self.received_monotonic_s


class Tgrappa:
    """Frames of one slice with every ``acceleration``-th line, whose first line moves from frame to frame."""

    def __init__(self, shape: tuple[int, int], coils: int, acceleration: int, threads: int = 2) -> None:
        """``shape``: (y, x). Raises ReconstructionError when the acceleration is above the number of coils."""
        if not 1 <= acceleration <= coils:
            raise ReconstructionError(
                f"an acceleration of {acceleration} cannot be undone with {coils} coils: scan with less acceleration"
            )
        self._shape, self._coils, self._acceleration, self._threads = shape, coils, acceleration, threads
        self._merged = np.zeros((coils, *shape), dtype=np.complex64)
        self._have = np.zeros(shape[0], dtype=bool)
        self._calibrations = Calibrations()

    def add(
        self, lines: ComplexArray, ky: npt.NDArray[np.integer[Any]], received_monotonic_s: float | None = None
    ) -> Frame | None:
        """Take in the ``lines`` (coils, lines, x) of one frame with their indices ``ky`` (lines,); return its picture.

        None until every line of k-space was acquired once. Raises ReconstructionError, and keeps the state as it was,
        when lines are missing, foreign to the pattern, or not finite.
        """
        received = time.monotonic() if received_monotonic_s is None else received_monotonic_s
        offset = self._checked(lines, ky)
        self._merged[:, ky] = lines
        self._have[ky] = True
        if not self._have.all():
            return None
        block = resized(self._merged, [min(a, b) for a, b in zip(CALIBRATION, self._shape, strict=True)]).copy()
        weights = self._calibrations.weights(offset, lambda: self._calibrated(block, offset))
        return Frame(weights.image(self._merged, self._threads), len(ky), received)

    def close(self) -> None:
        """Let go of the calibration thread."""
        self._calibrations.close()

    def _checked(self, lines: ComplexArray, ky: npt.NDArray[np.integer[Any]]) -> int:
        """First line of the frame; raises ReconstructionError when it is not one of the pattern."""
        if lines.shape != (self._coils, len(ky), self._shape[1]):
            raise ReconstructionError(
                f"lines of a frame must be (coils, lines, x) = {(self._coils, len(ky), self._shape[1])}, got "
                f"{lines.shape}"
            )
        offset = int(ky[0]) % self._acceleration if len(ky) else 0
        expected = np.arange(offset, self._shape[0], self._acceleration)
        if not np.array_equal(np.sort(ky), expected):
            raise ReconstructionError(
                f"a frame must hold every line from {offset} in steps of {self._acceleration} once ({len(expected)} "
                f"lines), got {len(set(ky.tolist()) & set(expected.tolist()))} of them among {len(ky)}: frame dropped"
            )
        if not np.isfinite(lines).all():
            raise ReconstructionError("a frame with NaN or infinite values was dropped: it would spoil those after it")
        return offset

    def _calibrated(self, block: ComplexArray, offset: int) -> Unmixing:
        lattice = Lattice(self._shape, (self._acceleration, 1), (offset, 0))
        return grappa.calibrate(block, lattice, low_resolution(block, self._shape))
