from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from IntraopMRILib.navigate.watch import AlarmLevel, DistanceAlarm, PoseWatch, Trust
from IntraopMRIReconstructionLib.data import POSE_STALE_S, Measurement, Pose
from IntraopMRIReconstructionLib.errors import DataError


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> Any:
        return self.now


def pose(at: Any, valid: Any = True, tool: Any = "pointer", sent: Any = None) -> Any:
    return Pose(np.eye(4), tool, at, at, sent, valid=valid)


def distance(value: Any, half: Any = 0.0) -> Any:
    return Measurement("Tip to residual", value, "mm", "distance", interval=(value - half, value + half))


def live_watch() -> Any:
    clock = Clock()
    watch = PoseWatch("pointer", clock, stale_s=0.3)
    watch.update(pose(100.0))
    return watch, clock


def test_nothing_is_shown_before_the_first_pose() -> None:
    state = PoseWatch("pointer", Clock()).state()
    assert state.trust is Trust.NEVER
    assert "check the tracker" in state.reason


def test_a_stale_pose_withdraws_the_number_and_says_why() -> None:
    watch, clock = live_watch()
    assert watch.pose is not None
    clock.now = 100.31
    assert watch.pose is None
    assert "0.3 s old" in watch.state().reason


def test_an_unseen_tool_withdraws_at_once_and_comes_back_after_steady_poses() -> None:
    watch, clock = live_watch()
    watch.update(pose(100.05, valid=False))
    clock.now = 100.06
    assert watch.state().trust is Trust.NOT_SEEN
    for n, expected in enumerate((False, False, True)):
        at = 100.1 + 0.05 * n
        watch.update(pose(at))
        clock.now = at + 0.01
        assert watch.state().live is expected


def test_after_a_gap_it_waits_for_steady_poses() -> None:
    watch, clock = live_watch()
    watch.update(pose(102.0))
    clock.now = 102.01
    assert watch.state().trust is Trust.RETURNING
    assert not watch.state().live
    assert "just come back" in watch.state().reason


def test_wrong_tool_and_late_poses_are_refused() -> None:
    watch, _ = live_watch()
    with pytest.raises(DataError, match="drill"):
        watch.update(pose(101.0, tool="drill"))
    with pytest.raises(DataError, match="order"):
        watch.update(pose(99.0))
    with pytest.raises(DataError, match="stale_s"):
        PoseWatch("pointer", Clock(), stale_s=0.0)


@pytest.mark.parametrize("stamps", [(50.0,), (50.0, 45.0)])
def test_a_time_stamp_that_does_not_advance_withdraws_the_number(stamps: Any) -> None:
    clock = Clock()
    watch = PoseWatch("pointer", clock)
    watch.update(pose(100.0, sent=50.0))
    assert watch.state().live
    for n in range(1, 6):
        clock.now = 100.0 + 0.05 * n
        watch.update(pose(clock.now, sent=stamps[n % len(stamps)]))
    state = watch.state()
    assert state.trust is Trust.STALE
    assert state.age_s == pytest.approx(0.25)
    assert "stood still" in state.reason
    for n, expected in enumerate((False, False, True)):
        clock.now = 100.3 + 0.05 * n
        watch.update(pose(clock.now, sent=51.0 + n))
        assert watch.state().live is expected


def test_poses_that_come_twice_stay_live() -> None:
    clock = Clock()
    watch = PoseWatch("pointer", clock)
    for n in range(20):
        clock.now = 100.0 + 0.05 * n
        watch.update(pose(clock.now, sent=50.0 + n // 2))
        assert watch.state().live


def test_without_time_stamps_every_pose_counts() -> None:
    clock = Clock()
    watch = PoseWatch("pointer", clock)
    for n in range(20):
        clock.now = 100.0 + 0.1 * n
        watch.update(pose(clock.now))
        assert watch.state().live
    clock.now += POSE_STALE_S + 0.01
    assert not watch.state().live


def test_alarm_enters_at_once_and_leaves_late() -> None:
    alarm = DistanceAlarm(near_mm=5.0, too_near_mm=2.0, hysteresis_mm=0.5)
    steps = [
        (8.0, AlarmLevel.SAFE),
        (5.0, AlarmLevel.NEAR),
        (5.4, AlarmLevel.NEAR),
        (5.6, AlarmLevel.SAFE),
        (5.4, AlarmLevel.SAFE),
        (1.9, AlarmLevel.TOO_NEAR),
        (2.4, AlarmLevel.TOO_NEAR),
        (2.6, AlarmLevel.NEAR),
        (5.4, AlarmLevel.NEAR),
        (-1.0, AlarmLevel.TOO_NEAR),
        (9.0, AlarmLevel.SAFE),
    ]
    assert [alarm.update(distance(value)) for value, _ in steps] == [level for _, level in steps]


def test_alarm_counts_the_near_end_of_the_interval() -> None:
    alarm = DistanceAlarm(5.0, 2.0)
    assert alarm.update(distance(6.0, 0.5)) is AlarmLevel.SAFE
    assert alarm.update(distance(6.0, 1.2)) is AlarmLevel.NEAR


def test_an_unknown_distance_is_not_safe() -> None:
    alarm = DistanceAlarm(5.0, 2.0)
    alarm.update(distance(9.0))
    gone = Measurement("Tip", None, "mm", "distance", missing_because="stale")
    assert alarm.update(gone) is AlarmLevel.UNKNOWN


@pytest.mark.parametrize("limits", [(2.0, 5.0, 0.5), (5.0, -1.0, 0.5), (5.0, 2.0, -0.1)])
def test_impossible_limits(limits: Any) -> None:
    with pytest.raises(DataError, match="alarm limits"):
        DistanceAlarm(*limits)


def test_a_tool_that_was_laid_aside_is_calm_until_it_is_wanted() -> None:
    watch, clock = live_watch()

    def at(seconds: float, *, valid: bool) -> Trust:
        clock.now = 100.0 + seconds
        watch.update(pose(clock.now, valid=valid))
        return watch.state().trust

    assert at(1.0, valid=False) is Trust.NOT_SEEN
    assert at(30.0, valid=False) is Trust.NOT_SEEN
    assert at(31.5, valid=False) is Trust.ASIDE
    assert watch.pose is None
    assert "out of sight" in watch.state().reason
    # A glimpse at the edge of the camera's view is not taking it up.
    at(40.0, valid=True)
    assert at(40.1, valid=False) is Trust.ASIDE
    # Somebody wants to navigate: that it is not seen matters again, for a while.
    watch.expect()
    assert at(41.0, valid=False) is Trust.NOT_SEEN
    assert at(71.0, valid=False) is Trust.ASIDE
    for n in range(50):
        taken_up = at(80.0 + 0.05 * n, valid=True)
    assert taken_up is Trust.LIVE
    assert at(83.0, valid=False) is Trust.NOT_SEEN


def test_a_tracker_that_is_silent_is_never_calm() -> None:
    watch, clock = live_watch()
    clock.now = 400.0
    assert watch.state().trust is Trust.STALE


def test_a_tool_that_flickers_is_not_laid_aside() -> None:
    watch, clock = live_watch()
    for n in range(600):
        clock.now = 100.1 + 0.1 * n
        watch.update(pose(clock.now, valid=bool(n % 4)))
        assert watch.state().trust is not Trust.ASIDE
