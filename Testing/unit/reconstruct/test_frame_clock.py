"""Time of frames: what the header says, what a clock says, and what is not known."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from IntraopMRIReconstructionLib.data import Encoding, KSpace
from IntraopMRIReconstructionLib.errors import ReconstructionError
from IntraopMRIReconstructionLib.reconstruct.frame_clock import FrameClock, Tick, interval_s


def frame(repetition: int, utc_s: float | None = None, interval: str | None = "3.0") -> KSpace:
    said = {} if interval is None else {"frame_interval_s": interval}
    encoding = Encoding(
        "scan", "cartesian", (1, 4, 4), (1, 4, 4), (5.0, 40.0, 40.0), (5.0, 40.0, 40.0), 1, np.eye(4), is_3d=False,
        repetitions=99, metadata=said,
    )  # fmt: skip
    samples = np.ones((1, 1, 4, 4), np.complex64)
    return KSpace(samples, np.ones((1, 4), np.uint8), encoding, (0, 4), repetition=repetition, acquired_utc_s=utc_s)


def ticks(clock: FrameClock, *frames: KSpace) -> list[Tick]:
    return [clock.tick(each) for each in frames]


def test_by_the_header() -> None:
    clock = FrameClock()
    assert ticks(clock, frame(0), frame(1), frame(2)) == [Tick(0.0), Tick(3.0), Tick(6.0)]
    # Frames 3 and 4 did not come.
    assert clock.tick(frame(5)) == Tick(15.0, 6.0)
    assert clock.untimed == clock.late() == ""


@pytest.mark.parametrize("number", [2, 1])
def test_doubled_and_late_frames_are_refused(number: int) -> None:
    clock = FrameClock()
    ticks(clock, frame(0), frame(2))
    with pytest.raises(ReconstructionError, match=f"frame {number} came after frame 2"):
        clock.tick(frame(number))
    assert clock.tick(frame(3)) == Tick(9.0)


def test_by_when_frames_came() -> None:
    clock = FrameClock()
    found = ticks(clock, *(frame(n, 1e9 + s, None) for n, s in enumerate((0.0, 2.0, 4.1, 6.0))))
    assert [tick.time_s for tick in found] == pytest.approx([0.0, 2.0, 4.1, 6.0])
    assert all(tick.unseen_s == 0 for tick in found)
    # A pause, of which the numbers of the frames know nothing.
    paused = clock.tick(frame(4, 1e9 + 30.0, None))
    assert paused.time_s == pytest.approx(30.0)
    assert paused.unseen_s == pytest.approx(22.0, abs=0.1)
    # Two frames that did not come.
    missed = clock.tick(frame(7, 1e9 + 36.0, None))
    assert missed.unseen_s == pytest.approx(4.0, abs=0.2)
    assert clock.untimed == ""


@pytest.mark.parametrize("times", [(5.0, 7.0, 1.0, 9.0), (5.0, 7.0, 7.0, 9.0), (5.0, 7.0, None, 9.0)])
def test_a_clock_that_is_set_back_tells_no_time_any_more(times: tuple[float | None, ...]) -> None:
    clock = FrameClock()
    found = ticks(clock, *(frame(n, time_s, None) for n, time_s in enumerate(times)))
    assert "clock of frame 2 is missing or was set back" in clock.untimed
    assert all(late.time_s > early.time_s for early, late in itertools.pairwise(found))


def test_no_time_at_all() -> None:
    clock = FrameClock()
    ticks(clock, frame(0, None, None), frame(1, None, None))
    assert clock.untimed == "the scan does not say how long a frame takes"


def test_a_scan_that_is_held_up_is_doubted_until_it_has_caught_up() -> None:
    clock = FrameClock()
    ticks(clock, *(frame(n, 1e9 + 3.0 * n) for n in range(6)))
    assert clock.late() == ""
    clock.tick(frame(6, 1e9 + 60.0))
    assert "frames of 18 s by the header took 60 s" in clock.late()
    # A network gave out at once what it had held back.
    ticks(clock, *(frame(n, 1e9 + 60.0) for n in range(7, 20)))
    assert clock.late() == ""
    # Frames of a recording may come quicker than they were taken.
    assert FrameClock().late() == ""


@pytest.mark.parametrize("said", ["", "soon", "-3", "nan", "inf", "0"])
def test_intervals_that_are_none(said: str) -> None:
    assert interval_s(frame(0, interval=said).encoding) == 0.0
    assert interval_s(frame(0, interval="2.5").encoding) == 2.5
