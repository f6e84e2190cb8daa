"""Clock offset, latency, pose age: what a time stamp may and may not be believed for."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import numpy as np
import pytest
from IntraopMRIReconstructionLib.errors import WireError
from IntraopMRIReconstructionLib.wire import codec, timing
from IntraopMRIReconstructionLib.wire.header import timestamp_of
from IntraopMRIReconstructionLib.wire.intake import IdentityGuard
from IntraopMRIReconstructionLib.wire.message import Message
from peers.igtl_samples import rigid

T0 = 1767323045.0


@dataclass
class Came:
    """A received message with made-up clocks."""

    message: Message
    received_monotonic_s: float
    sent_utc_s: float | None = None
    peer: str = "127.0.0.1:18944"

    @property
    def received_utc_s(self) -> float:
        return T0 + self.received_monotonic_s


def _pose(at_s: float, sent_s: float | None, tool: str = "probe", **options: object) -> Came:
    stamp = 0 if sent_s is None else timestamp_of(T0 + sent_s)
    return Came(codec.TransformMessage(device=tool, timestamp=stamp, matrix=rigid(), **options), at_s)  # type: ignore[arg-type]


def _message(sent_s: float) -> Message:
    return codec.TransformMessage(device="probe", timestamp=timestamp_of(sent_s))


@pytest.mark.parametrize("offset_s", [-3600.0, -0.4, 0.0, 12.5])
def test_offset_and_latency_of_an_unsynchronised_sender(offset_s: float) -> None:
    rng = np.random.default_rng(1)
    clock = timing.SenderClock()
    delays = 0.001 + rng.exponential(0.01, 500)
    for number, delay in enumerate(delays):
        sent = T0 + 0.05 * number
        time = clock.note(_message(sent + offset_s), sent + delay, 0.05 * number)
        assert time.fault == ""
    assert time.clock_offset_s == pytest.approx(offset_s, abs=0.003)
    assert time.latency_s == pytest.approx(delays[-1] - delays.min(), abs=0.003)


def test_offset_follows_a_drifting_clock() -> None:
    clock = timing.SenderClock()
    for second in range(3600):
        time = clock.note(_message(T0 + second * (1 - 1e-4)), T0 + second, float(second))
    assert time.clock_offset_s == pytest.approx(-0.36, abs=0.003)


@pytest.mark.parametrize(("sent", "fault"), [(0.0, timing.ABSENT), (4102444800.0, timing.WRONG), (1.0, timing.WRONG)])
def test_stamps_of_no_clock_are_not_believed(sent: float, fault: str) -> None:
    time = timing.SenderClock().note(_message(sent), T0, 0.0)
    assert (time.sent_utc_s, time.latency_s, time.clock_offset_s, time.fault) == (None, None, None, fault)


def test_backwards_and_frozen_stamps_are_named() -> None:
    clock = timing.SenderClock()
    clock.note(_message(T0), T0, 0.0)
    assert clock.note(_message(T0), T0 + 0.1, 0.1).fault == timing.FROZEN
    after = clock.note(_message(T0 - 100.0), T0 + 0.2, 0.2)
    assert after.fault == timing.BACKWARDS
    # The clock was set back by 100 s: that is an offset, not 100 s of latency.
    assert after.latency_s == pytest.approx(0.0)
    assert clock.note(_message(T0 - 99.9), T0 + 0.3, 0.3).fault == ""


def test_a_pose_goes_stale_by_receive_time() -> None:
    board = timing.PoseBoard()
    assert board.state("probe", 0.0) is None
    board.update(_pose(10.0, None))
    fresh, stale = board.state("probe", 10.15), board.state("probe", 10.25)
    assert fresh is not None
    assert stale is not None
    assert fresh.usable
    assert not stale.usable
    assert "has not moved on for 0.25 s" in stale.unusable_because


def test_a_frozen_time_stamp_on_a_live_link_goes_stale() -> None:
    board = timing.PoseBoard(stale_after_s=0.2)
    for step in range(10):
        board.update(_pose(10.0 + 0.05 * step, 5.0))
    state = board.state("probe", 10.46)
    assert state is not None
    assert not state.usable
    assert "time stamp is frozen" in state.unusable_because
    assert state.age_s == pytest.approx(0.46)
    board.update(_pose(10.5, 5.5))
    again = board.state("probe", 10.5)
    assert again is not None
    assert again.usable


def _usable(board: timing.PoseBoard, now_s: float, tool: str = "probe") -> bool:
    state = board.state(tool, now_s)
    assert state is not None
    return state.usable


def test_alternating_stamps_are_no_progress() -> None:
    board = timing.PoseBoard()
    for step in range(40):
        board.update(_pose(10.0 + 0.05 * step, 5.0 - step % 2))
    assert not _usable(board, 12.0)
    board.update(_pose(12.0, 5.1))
    assert _usable(board, 12.0)


def test_a_clock_that_was_set_back_is_believed_after_a_while() -> None:
    board = timing.PoseBoard()
    usable = []
    for step in range(61):
        at_s = 10.0 + 0.05 * step
        board.update(_pose(at_s, at_s - (3600.0 if step >= 10 else 0.0)))
        usable.append(_usable(board, at_s))
    assert usable[:10] == [True] * 10
    assert not any(usable[14:50])
    assert all(usable[51:])


def _tdata(at_s: float, *tools: str, device: str = "tracker", peer: str = "a:1") -> Came:
    matrices = tuple(codec.TrackedTool(tool, rigid(position_mm=(at_s, 0.0, 0.0))) for tool in tools)
    return Came(codec.TrackingDataMessage(device=device, tools=matrices), at_s, peer=peer)


@pytest.mark.parametrize("other", [{"device": "second"}, {"peer": "b:1"}])
def test_tools_of_two_trackers_do_not_mix(other: dict[str, str]) -> None:
    board = timing.PoseBoard()
    board.update(_tdata(10.0, "probe", "needle"))
    assert [pose.tool for pose in board.update(_tdata(10.01, "probe", "drill", **other))] == ["drill"]
    with pytest.raises(WireError, match="another tracker"):
        board.update(_tdata(10.02, "probe", **other))
    board.update(_tdata(10.03, "probe", "needle"))
    state = board.state("probe", 10.03)
    assert state is not None
    assert "two trackers send 'probe'" in state.unusable_because
    np.testing.assert_allclose(state.pose.tip_ras_mm[0], 10.03)
    assert _usable(board, 10.03, "needle")
    assert _usable(board, 10.03, "drill")


def test_of_two_trackers_that_are_left_neither_is_shown_when_the_first_has_gone() -> None:
    """Not for a single pose: the first of them that may take its place is no more to be believed than before."""
    board = timing.PoseBoard()
    board.update(_tdata(10.0, "probe"))
    usable, now_s = [], 10.0
    for step in range(150):
        now_s = 10.0 + 0.02 * (step + 1)
        with contextlib.suppress(WireError):
            board.update(_tdata(now_s, "probe", peer="bc"[step % 2] + ":1"))
        usable.append(_usable(board, now_s))
    assert not any(usable)
    # One of them alone, for long enough.
    for _ in range(250):
        now_s += 0.02
        with contextlib.suppress(WireError):
            board.update(_tdata(now_s, "probe", peer="b:1"))
    assert _usable(board, now_s)


def test_a_tool_may_come_back_from_another_port() -> None:
    board = timing.PoseBoard()
    board.update(_tdata(10.0, "probe"))
    later = 10.1 + timing.HANDOVER_S
    board.update(_tdata(later, "probe", peer="a:2"))
    assert _usable(board, later)


def test_the_limit_can_be_set_and_an_occluded_tool_is_not_shown() -> None:
    board = timing.PoseBoard(stale_after_s=1.0)
    board.update(_pose(10.0, 1.0))
    board.update(_pose(10.0, 1.0, "needle", version=2, metadata={"Status": "MISSING"}))
    probe, needle = board.state("probe", 10.9), board.state("needle", 10.1)
    assert probe is not None
    assert probe.usable
    assert needle is not None
    assert "does not see 'needle'" in needle.unusable_because
    assert board.tools == ("probe", "needle")


def _of(metadata: dict[str, str]) -> Message:
    return codec.StringMessage(device="x", version=2, metadata=metadata)


@pytest.mark.parametrize(("key", "reason"), [("PatientID", "patient"), ("FrameOfReferenceUID", "frame")])
def test_patient_and_frame_of_reference_may_not_change(key: str, reason: str) -> None:
    guard = IdentityGuard()
    guard.check(codec.StringMessage(device="x"))
    guard.check(_of({key: "42"}))
    guard.check(_of({key: "42", "Other": "a"}))
    with pytest.raises(codec.RefusedMessage, match="'43', this session is of '42'") as refused:
        guard.check(_of({key: "43"}))
    assert refused.value.reason == reason
    guard.accept()
    guard.check(_of({key: "43"}))
    with pytest.raises(codec.RefusedMessage):
        guard.check(_of({key: "42"}))


def test_a_patient_can_be_set_before_anything_came() -> None:
    guard = IdentityGuard()
    guard.accept(patient_id="42")
    with pytest.raises(codec.RefusedMessage):
        guard.check(_of({"PatientID": "43"}))
