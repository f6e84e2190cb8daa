"""A radial scan on the screen while it runs: the newest spokes in a sliding window, frame by frame.

Gradient delays and coil maps come from the first window; the numerics are in :mod:`.radial`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..data import Acquisition, Encoding, Image
from ..errors import ReconstructionError
from .arrivals import flags_of
from .gradient_delays import gradient_delays
from .grid import on_recon_grid
from .noncartesian import spoke_angles
from .radial import SlidingWindow
from .realtime import Frame
from .result import Parameter, Reconstruction, provenance_of
from .shots import ShotAssembler

#: Spokes of a window for each voxel side: streaks are faint and motion of half a second is not smeared. A number of
#: the Fibonacci sequence covers the plane most evenly (Winkelmann et al., IEEE Trans Med Imaging 26:68, 2007).
WINDOW_SHARE = 1 / 3
#: Noise lines that come with every frame move the whitening by less than this share of it, once there are enough.
SAME_MIXING = 0.05
#: A frame for each so many of a window's spokes.
FRAMES_PER_WINDOW = 4


@dataclass(frozen=True)
class _Source:
    encoding: Encoding
    left_out: tuple[str, ...]
    input_hash: str = "the scan goes on"


def radial_window(scan: object, delays: bool = True, threads: int = 2) -> RadialWindow | None:
    """A window for what collects a radial scan of one square slice, None for every other scan.

    ``delays``: look for gradient delays.
    """
    if not isinstance(scan, ShotAssembler) or scan.encoding.trajectory != "radial":
        return None
    z, y, x = scan.encoding.encoded_matrix
    return RadialWindow(scan, delays, threads) if z == 1 and y == x else None


class RadialWindow:
    """The sliding window of a radial scan of one slice; spokes are gridded once, as they come."""

    def __init__(self, scan: ShotAssembler, delays: bool = True, threads: int = 2) -> None:
        """``scan``: collects the same blocks, and knows where their readouts lie."""
        self._scan, self._threads, self._delays = scan, threads, delays
        self._size = scan.encoding.encoded_matrix[1]
        self.window = _fibonacci(self._size * WINDOW_SHARE)
        self._every = max(1, self.window // FRAMES_PER_WINDOW)
        self._stream: SlidingWindow | None = None
        self._first: list[tuple[npt.NDArray[np.complex64], float]] = []
        self._since = 0
        self._note: dict[str, Parameter] = {}
        #: (live, coils) as :meth:`.arrivals.Arrivals.mixing` knew it when the first spoke of the window came.
        self._mixing: npt.NDArray[np.complex64] | None = None

    def add(self, block: Acquisition) -> Reconstruction | None:
        """The newest picture that the spokes of a block allow, None when they complete none.

        Raises ReconstructionError for spokes that do not fit the scan.
        """
        _, _, use = flags_of(block)
        if block.contrast or not use.any():
            return None
        angles = spoke_angles(self._scan.positions(block, use), (self._size, self._size))
        if angles is None:
            return None
        if self._stream is not None and self._mixed_otherwise():
            # Later noise lines, or a coil that failed: what was gridded is mixed otherwise than what follows.
            self._stream, self._first, self._since = None, [], 0
            self._note["begun_anew"] = "noise lines came, or coils failed, in mid-scan"
        due = False
        for samples, angle in zip(block.samples[use], angles, strict=True):
            # The collector counts and names broken spokes.
            if np.isfinite(samples).all():
                due |= self._spoke(samples, float(angle), block.received_monotonic_s)
        return self._picture() if due else None

    def _spoke(self, samples: npt.NDArray[np.complex64], angle: float, received_s: float | None) -> bool:
        """Take in one spoke; whether a picture is due."""
        if self._stream is None:
            self._mixing, why = self._scan.mixing()
            white = self._scan.has_noise and not why
            self._note["prewhitened"] = "yes" if white else f"no: {why or 'no noise lines came before the spokes'}"
        if self._mixing is not None:
            samples = self._mixing @ samples
        if self._stream is None:
            self._stream = SlidingWindow(self._size, len(samples), samples.shape[1], self.window, self._threads)
        self._stream.add(samples, angle, received_s)
        self._since += 1
        if len(self._first) < self.window:
            self._first.append((samples, angle))
            if len(self._first) < self.window:
                return False
            self._calibrate(received_s)
        elif self._since < self._every:
            return False
        self._since = 0
        return True

    def _mixed_otherwise(self) -> bool:
        """Whether spokes would now be mixed so differently that those before do not go with them."""
        old, new = self._mixing, self._scan.mixing()[0]
        if old is None or new is None or old.shape != new.shape:
            return old is not new
        return float(np.abs(new - old).max()) > SAME_MIXING * float(np.abs(old).max())

    def _picture(self) -> Reconstruction:
        assert self._stream is not None
        frame = self._stream.frame()
        parameters: dict[str, Parameter] = {"spokes": frame.shots, "every": self._every} | self._note
        reason = f"the last {frame.shots} spokes, a frame every {self._every}"
        return _wrapped(self._scan, frame, "sliding window", reason, parameters)

    def _calibrate(self, received_s: float | None) -> None:
        """Gradient delays and coil maps from the first window, whose spokes are then gridded anew."""
        assert self._stream is not None
        spokes = np.stack([samples for samples, _ in self._first], axis=1)
        angles = np.array([angle for _, angle in self._first])
        try:
            if self._delays:
                self._stream.delays = gradient_delays(spokes, angles, self._size).matrix
            self._note["gradient_delays"] = "corrected" if self._delays else "not looked for"
        except ReconstructionError as error:
            self._note["gradient_delays"] = f"not corrected: {error}"
        for samples, angle in self._first:
            self._stream.add(samples, angle, received_s)
        self._stream.calibrate()


def _wrapped(
    scan: ShotAssembler, frame: Frame, method: str, reason: str, parameters: dict[str, Parameter]
) -> Reconstruction:
    encoding = scan.encoding
    magnitude = np.abs(on_recon_grid(frame.image[None], encoding)).astype(np.float32)
    provenance = provenance_of(_Source(encoding, scan.left_out), method, reason, parameters)
    name = encoding.protocol or encoding.scan_id
    image = Image(magnitude, encoding.ras_from_ijk, name, None, encoding.patient_id, metadata=provenance)
    return Reconstruction(image, method, reason, parameters, ("live: the scan goes on", *scan.warnings), provenance)


def _fibonacci(least: float) -> int:
    before, number = 5, 8
    while number < least:
        before, number = number, before + number
    return number
