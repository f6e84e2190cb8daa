"""A simulated tracked pointer, sent through pyigtl: TRANSFORM ``Pointer`` in RAS, and STRING ``PointerStop`` with the

name of the place where the tip rests ("" on the way). It repeats its path for ever.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from ..data import Matrix
from ..errors import DataError
from ..geometry import rotation_about
from .case_files import Stop, read_pointer
from .peers import pyigtl_server, stream_to_peer
from .process import parser, run

NAME = "tracker"
TOOL, STOP_DEVICE = "Pointer", "PointerStop"
#: Where the pointer waits, above its first stop (mm), and how fast a careful hand moves it (mm/s).
PARKED_MM, SPEED_MM_S = 40.0, 40.0


@dataclass(frozen=True)
class PointerPath:
    """From a parked position to each stop in turn, and back. Poses are RAS mm; +z of the tool is its shaft."""

    stops: Sequence[Stop]
    shaft_ras: npt.NDArray[np.float64]

    def __post_init__(self) -> None:
        if not self.stops:
            raise DataError("a pointer's path needs at least one stop, got none")

    @property
    def period_s(self) -> float:
        """How long one round takes."""
        return sum(moving_s + resting_s for _, _, moving_s, resting_s, _ in self._legs())

    def at(self, time_s: float) -> tuple[Matrix, str]:
        """``ras_from_tool`` (4, 4) at a time, and the name of the stop where the tip rests, "" on the way."""
        left = time_s % self.period_s
        matrix = np.eye(4)
        matrix[:3, :3] = self._orientation()
        for start, end, moving_s, resting_s, name in self._legs():
            if left < moving_s:
                matrix[:3, 3] = start + (end - start) * (left / moving_s)
                return matrix, ""
            if left < moving_s + resting_s:
                matrix[:3, 3] = end
                return matrix, name
            left -= moving_s + resting_s
        matrix[:3, 3] = self._parked()
        return matrix, ""

    def _parked(self) -> npt.NDArray[np.float64]:
        return np.asarray(self.stops[0].tip_ras_mm) + PARKED_MM * self.shaft_ras

    def _legs(self) -> list[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], float, float, str]]:
        """(start, end, seconds of motion, seconds of rest, name) of each part of a round."""
        places = [(self._parked(), 0.0, "")]
        places += [(np.asarray(stop.tip_ras_mm), stop.dwell_s, stop.name) for stop in self.stops]
        places.append(places[0])
        legs = []
        for (start, _, _), (end, rest_s, name) in pairwise(places):
            legs.append((start, end, float(np.linalg.norm(end - start)) / SPEED_MM_S, rest_s, name))
        return legs

    def _orientation(self) -> npt.NDArray[np.float64]:
        """A rotation whose third column is the shaft."""
        axis = np.cross((0.0, 0.0, 1.0), self.shaft_ras)
        if np.linalg.norm(axis) < 1e-6:
            return np.diag([1.0, np.sign(self.shaft_ras[2]), np.sign(self.shaft_ras[2])])
        return rotation_about(axis, float(np.degrees(np.arccos(np.clip(self.shaft_ras[2], -1, 1)))))


def main(argv: list[str] | None = None) -> None:
    """Track until SIGTERM, or the end of standard input with ``--with-parent``."""
    arguments = parser("A simulated tracked pointer that speaks OpenIGTLink through pyigtl.")
    arguments.add_argument("--rate", type=float, default=30.0, help="poses per second")
    arguments.add_argument("--jitter-mm", type=float, default=0.0, help="standard deviation of the tip, per axis")
    chosen = arguments.parse_args(argv)
    path = PointerPath(*read_pointer(chosen.case))
    rng = np.random.default_rng(0)
    last_stop = ""
    with pyigtl_server(NAME, chosen.port, chosen.with_parent) as (server, stop):
        import pyigtl

        def messages(time_s: float) -> list[object]:
            nonlocal last_stop
            matrix, name = path.at(time_s)
            matrix[:3, 3] += chosen.jitter_mm * rng.standard_normal(3)
            result: list[object] = [pyigtl.TransformMessage(matrix, device_name=TOOL)]
            if name != last_stop:
                result.insert(0, pyigtl.StringMessage(name, device_name=STOP_DEVICE))
                last_stop = name
            return result

        stream_to_peer(server, stop, chosen.rate, messages)


if __name__ == "__main__":
    sys.exit(run(main))
