"""One scan while it arrives: a frame as soon as it is whole, a preview before, and meanwhile whatever needs no more
lines, so that after the last line only what depends on it is left to do.

Nothing here computes in a way of its own: what was begun ahead goes through the same functions as the reconstruction of
a finished scan, and is used only where it rests on the same data.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from ..data import OPEN_COUNTERS, Acquisition, Encoding, KSpace
from ..errors import ReconstructionError
from ..operators.sampling import begun_offset, describe, planned_calibration, planned_mask
from .assemble import Assembler
from .auto import Frame, choose, preview
from .collect import Collector, collector
from .echo_planar import EpiAssembler
from .planes import Planes, central
from .result import Reconstruction
from .solvers import begin_weights
from .unmixing import Ahead, Calibrations

#: A scan that has begun and brings nothing for this long has stopped: k-space comes in bursts well below it.
SCAN_SILENT_S = 10.0
#: At most one preview in this time, s: it takes part of a core away from what arrives.
PREVIEW_S = 1.0
#: Methods whose weights rest on the calibration lines alone.
CALIBRATED = ("grappa", "sense")
#: Weights that are made ahead take at most so much memory; those of the planes beyond are made in their turn.
MAX_AHEAD_BYTES = 2**30
#: Frames that were handed out are kept, for methods that compare them, until they take this much memory.
MAX_KEPT_BYTES = 2 * 2**30

_Key = tuple[int, int]


class LiveScan:
    """Collects one scan. ``calibrations`` go to :func:`.auto.reconstruct` with each frame; :meth:`close` at the end."""

    def __init__(self, encoding: Encoding, method: str = "auto", clock: Callable[[], float] = time.monotonic) -> None:
        """``method``: that the frames will be reconstructed by. Raises ReconstructionError as the collectors do."""
        self.encoding = encoding
        self.name = encoding.protocol or encoding.scan_id
        self._method, self._clock = method, clock
        self._collector = collector(encoding)
        goes_on = encoding.repetitions > 1 or "repetition" in encoding.metadata.get(OPEN_COUNTERS, "")
        self._shares = not encoding.is_3d and goes_on
        self.calibrations: Calibrations | Ahead = Calibrations() if self._shares else Ahead()
        announced = max(encoding.acceleration) > 1 and planned_calibration(encoding)[1] != (0, 0)
        self._begun = self._shares or method not in ("auto", *CALIBRATED) or not announced
        self._now: _Key = 0, 0
        self._handed_out: dict[_Key, int] = {}
        #: Frames that brought lines since they were handed out: hours of others need not be looked at with each block.
        self._grown: set[_Key] = set()
        self._heard_s = self._seen_s = clock()

    @property
    def collector(self) -> Collector:
        """What collects the scan, and keeps its frames afterwards."""
        return self._collector

    @property
    def fraction(self) -> float:
        """Share 0..1 of the planned lines that are in."""
        return self._collector.fraction_acquired

    @property
    def silent(self) -> bool:
        """Whether no line has come for ``SCAN_SILENT_S``: the scan has stopped."""
        return self._clock() - self._heard_s > SCAN_SILENT_S

    def add(self, block: Acquisition) -> None:
        """Sort a block in. Raises ReconstructionError, with nothing stored, when it does not fit the header."""
        self._heard_s = self._clock()
        self._collector.add(block)
        reached = self._collector.encoding
        self.encoding = self.encoding.reaching(reached.contrasts, reached.repetitions, reached.averages)
        self._grown.add((block.contrast, block.repetition))
        if (block.contrast, block.repetition) != self._now:
            # The new frame is at its beginning; its own preview comes later.
            self._now, self._seen_s = (block.contrast, block.repetition), self._heard_s
        if not self._begun and isinstance(self._collector, Assembler) and self._now in self._collector.frames:
            self._begun = self._begin(self._collector)

    def frame(self, contrast: int = 0, repetition: int = 0) -> Frame:
        """What has come of a frame. Raises ReconstructionError when nothing has."""
        return self._collector.kspace(contrast, repetition)

    def whole(self, last: bool) -> Iterator[Frame]:
        """Frames that became whole by the last block: the header's lines are in, or the next repetition has begun.

        ``last``: the scan is over, so that every frame is as whole as it will be. One that brings more lines after
        having been handed out comes again.
        """
        for key in sorted(self._grown.intersection(self._collector.frames)):
            over = last or key[1] < self._now[1]
            lines = self._collector.lines(*key)
            if lines > self._handed_out.get(key, 0) and (over or self._collector.is_whole(*key)):
                self._handed_out[key] = lines
                self._grown.discard(key)
                yield self._collector.kspace(*key)
        self._forget_oldest()

    def preview(self) -> Reconstruction | None:
        """A coarse picture of what has come, at most one in ``PREVIEW_S``; None while there is nothing to see."""
        if self._clock() - self._seen_s < PREVIEW_S or self._now not in self._collector.frames:
            return None
        self._seen_s = self._clock()
        frame = self._collector.kspace(*self._now)
        shown = preview(frame) if isinstance(frame, KSpace) else None
        self._seen_s = self._clock()
        return shown

    def close(self) -> None:
        """Let go of threads and of what was begun."""
        self.calibrations.close()

    def _forget_oldest(self) -> None:
        if not isinstance(self._collector, Assembler | EpiAssembler):
            return
        each = 8 * self._collector.encoding.coils * int(np.prod(self._collector.encoding.encoded_matrix))
        frames = self._collector.frames
        surplus = len(frames) - max(1, MAX_KEPT_BYTES // each)
        if surplus > 0:
            done = [key for key in frames if key in self._handed_out and key != self._now]
            for key in done[:surplus]:
                self._collector.release(*key)

    def _begin(self, assembler: Assembler) -> bool:
        """Begin the weights of all planes when the calibration lines are in; whether there is nothing to wait for."""
        encoding = assembler.encoding
        sizes = encoding.encoded_matrix
        z, y = central((*planned_calibration(self.encoding), (0, 0)), sizes)[:2]
        if not assembler.has_calibration(*self._now, (z if encoding.is_3d else (0, sizes[0]), y)):
            return False
        frame = assembler.kspace(*self._now)
        offset = begun_offset(self.encoding, frame.acquired > 0)
        if offset is None:
            return False
        alone = frame.calibration is not None
        plan = replace(self.encoding, calibration_lines=(0, 0)) if alone else self.encoding
        expected = planned_mask(plan, offset)
        if (frame.acquired[~expected] > 0).any():
            return True
        frame = replace(frame, acquired=expected.astype(np.uint8))
        sampling = describe(expected, encoding.is_3d)
        try:
            method, planes = self._method, None
            if method == "auto":
                method, _, planes = choose(frame, sampling)
            planes = planes or Planes(frame, sampling)
        except ReconstructionError:
            # It will be said when the frame is whole, if it then still holds.
            return True
        if method in CALIBRATED and isinstance(self.calibrations, Ahead):
            each = 8 * encoding.coils * planes.shape[0] * planes.shape[1]
            begin_weights(planes, method, self.calibrations, MAX_AHEAD_BYTES // each)
        return True
