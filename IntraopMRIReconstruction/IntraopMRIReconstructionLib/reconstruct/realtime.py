"""One live picture of a radial or spiral scan."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt


@dataclass(frozen=True, eq=False)
class Frame:
    """``image``: (y, x) complex64, or float32 where coils were combined without phase; ``shots``: readouts in it;
    ``received_monotonic_s``: when the last of them arrived, None when unknown."""

    image: npt.NDArray[Any]
    shots: int
    received_monotonic_s: float | None

    def age_s(self, now_monotonic_s: float | None = None) -> float | None:
        """Latency: seconds since the last readout arrived, by the monotonic clock; None when that is unknown."""
        if self.received_monotonic_s is None:
            return None
        return (time.monotonic() if now_monotonic_s is None else now_monotonic_s) - self.received_monotonic_s
