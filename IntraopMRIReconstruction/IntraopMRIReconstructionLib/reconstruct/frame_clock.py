"""When the frames of a scan were taken, and what of the time between them nobody saw.

By the header's interval where it has one, else by the times at which their first lines came. A clock that is set back,
stands still or is missing tells no time: from then on the scan has none.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..data import Encoding
from ..errors import ReconstructionError
from .auto import Frame

#: Seconds from frame to frame, in a header's metadata.
FRAME_INTERVAL_S = "frame_interval_s"
#: A frame that comes after more than so many usual intervals was preceded by others that did not come.
MISSED = 1.75
#: Frames may come so much later than their header's interval says before that is doubted: a share of the time since
#: the reference, and seconds that a network may hold them back.
LATE_SHARE, LATE_S = 0.2, 10.0


def interval_s(encoding: Encoding) -> float:
    """Seconds from frame to frame by the header, 0 when it does not say."""
    try:
        each = float(encoding.metadata.get(FRAME_INTERVAL_S, ""))
    except ValueError:
        return 0.0
    return each if np.isfinite(each) and each > 0 else 0.0


@dataclass(frozen=True)
class Tick:
    """``time_s``: of a frame on a clock that only goes forwards. ``unseen_s``: of the time since the frame before, when
    frames were missing."""

    time_s: float
    unseen_s: float = 0.0


class FrameClock:
    """Give it each frame in the order of time."""

    def __init__(self) -> None:
        self._first: Frame | None = None
        self._last: Frame | None = None
        self._now_s = 0.0
        self._steps: list[float] = []
        #: Why the times are not known; "" while they are.
        self.untimed = ""

    def tick(self, frame: Frame) -> Tick:
        """Time of the next frame. Raises ReconstructionError, with nothing changed, for one that is not next."""
        if self._first is None or self._last is None:
            self._first = self._last = frame
            if not interval_s(frame.encoding) and frame.acquired_utc_s is None:
                self.untimed = "the scan does not say how long a frame takes"
            return Tick(0.0)
        count = frame.repetition - self._last.repetition
        if count <= 0:
            raise ReconstructionError(
                f"frames of temperature must follow one another, frame {frame.repetition} came after frame "
                f"{self._last.repetition} and is left out"
            )
        each = interval_s(frame.encoding)
        step, usual = (count * each, each) if each else self._received(frame, count)
        unseen = step - usual if count > 1 or step > MISSED * usual else 0.0
        self._now_s, self._last = self._now_s + step, frame
        return Tick(self._now_s, max(0.0, unseen))

    def late(self) -> str:
        """Why the header's interval cannot be right, "" while it can."""
        first, last = self._first, self._last
        if first is None or last is None or first.acquired_utc_s is None or last.acquired_utc_s is None:
            return ""
        planned_s, passed_s = (
            (last.repetition - first.repetition) * interval_s(last.encoding),
            last.acquired_utc_s - first.acquired_utc_s,
        )
        if not planned_s or passed_s - planned_s <= max(LATE_S, LATE_SHARE * planned_s):
            return ""
        return f"frames of {planned_s:.0f} s by the header took {passed_s:.0f} s: the scan was held up, or it is wrong"

    def _received(self, frame: Frame, count: int) -> tuple[float, float]:
        """(seconds since the last frame, usual seconds between two) by when their first lines came."""
        assert self._last is not None
        before, now = self._last.acquired_utc_s, frame.acquired_utc_s
        if before is None or now is None or now <= before:
            self.untimed = self.untimed or (
                f"the clock of frame {frame.repetition} is missing or was set back: take a new reference"
            )
            return float(count), 1.0
        self._steps.append((now - before) / count)
        usual = float(np.median(self._steps))
        return now - before, usual
