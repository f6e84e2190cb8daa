"""The scanner's state machine without sockets: every command, answer, time-out and refusal, and what is shown of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from IntraopMRIReconstructionLib.data import Pose
from IntraopMRIReconstructionLib.errors import IntraopError, SessionError, WireError
from IntraopMRIReconstructionLib.geometry import rotation_about
from IntraopMRIReconstructionLib.wire.codec import ImageMessage, Message, StatusMessage, StringMessage, TransformMessage
from IntraopMRIReconstructionLib.wire.scanner_control import (
    ACKNOWLEDGED,
    MR_ROBOT,
    MRIGTLBRIDGE,
    PLANE_INTERVAL_S,
    QUIET_S,
    Dialect,
    ScannerControl,
    ScannerState,
)

PICTURE = ImageMessage(device="MR", array=np.zeros((1, 2, 2), np.int16))


class Bench:
    """A control whose clock is turned by hand and whose messages are caught."""

    def __init__(self, dialect: Dialect = ACKNOWLEDGED, **options: object) -> None:
        self.time_s = 100.0
        self.sent: list[Message] = []
        self.sent_s: list[float] = []
        self.broken = False
        self.control = ScannerControl(
            self._send,
            dialect,
            now=lambda: self.time_s,
            utc_now=lambda: 1.8e9 + self.time_s,
            **options,  # type: ignore[arg-type]
        )

    def _send(self, message: Message) -> None:
        if self.broken:
            raise WireError("nobody is connected")
        self.sent.append(message)
        self.sent_s.append(self.time_s)

    @property
    def state(self) -> ScannerState:
        return self.control.state

    def shows(self, state: ScannerState) -> bool:
        return self.control.state is state

    @property
    def commands(self) -> list[tuple[str, str]]:
        return [(message.device, message.text) for message in self.sent if isinstance(message, StringMessage)]

    def answer(self) -> None:
        self.control.on_message(StringMessage(device="ACK_" + self.commands[-1][0][4:], text=self.commands[-1][1]))

    def status(self, device: str, code: int = 1, text: str = "") -> None:
        self.control.on_message(StatusMessage(device=device, code=code, text=text))

    def wait(self, seconds: float) -> ScannerState:
        self.time_s += seconds
        return self.control.poll()

    def pose(self, x: float = 0.0, valid: bool = True, age_s: float = 0.0) -> Pose:
        matrix = np.eye(4)
        matrix[0, 3] = x
        return Pose(matrix, "pointer", self.time_s - age_s, 1.8e9 + self.time_s, valid=valid)

    def ready(self) -> Bench:
        self.control.start_up()
        if self.control.dialect.acknowledges:
            self.answer()
            self.status(self.control.dialect.start_up)
        assert self.state is ScannerState.READY
        return self


def test_a_session_that_goes_well() -> None:
    bench = Bench()
    assert bench.shows(ScannerState.UNKNOWN)
    bench.control.start_up()
    assert bench.shows(ScannerState.STARTING_UP)
    assert "not confirmed" in bench.control.text
    bench.answer()
    bench.status("START_UP")
    assert (bench.state, bench.control.text) == (ScannerState.READY, "ready")
    bench.control.start()
    assert bench.shows(ScannerState.STARTING)
    bench.answer()
    bench.status("START_SEQUENCE")
    assert bench.shows(ScannerState.SCANNING)
    bench.control.stop()
    assert bench.shows(ScannerState.STOPPING)
    bench.answer()
    bench.status("STOP_SEQUENCE")
    assert bench.shows(ScannerState.READY)
    assert bench.commands == [("CMD_0001", "START_UP"), ("CMD_0002", "START_SEQUENCE"), ("CMD_0003", "STOP_SEQUENCE")]
    assert [item.after.name for item in bench.control.history] == [
        *("STARTING_UP", "READY", "STARTING", "SCANNING", "STOPPING", "READY"),
    ]
    assert all(item.reason and item.utc_s == 1.8e9 + 100 for item in bench.control.history)
    assert [item.confirmed for item in bench.control.history] == [False, True] * 3


def test_nothing_is_believed_without_an_answer() -> None:
    bench = Bench()
    bench.control.start_up()
    assert bench.wait(1.9) is ScannerState.STARTING_UP
    assert bench.wait(0.2) is ScannerState.NO_ANSWER
    assert "not acknowledged within 2 s" in bench.control.history[-1].reason
    with pytest.raises(SessionError, match="does not answer"):
        bench.control.start()


def test_an_acknowledged_command_that_is_not_carried_out_times_out() -> None:
    bench = Bench()
    bench.control.start_up()
    bench.answer()
    assert bench.wait(29) is ScannerState.STARTING_UP
    assert bench.wait(2) is ScannerState.NO_ANSWER
    assert "not carried out within 30 s" in bench.control.history[-1].reason


def test_a_late_answer_is_understood() -> None:
    bench = Bench().ready()
    bench.control.start()
    bench.wait(3)
    assert bench.shows(ScannerState.NO_ANSWER)
    bench.answer()
    assert bench.shows(ScannerState.BUSY)
    bench.status("START_SEQUENCE")
    assert bench.shows(ScannerState.SCANNING)


def test_a_wrong_answer_is_no_answer() -> None:
    bench = Bench()
    bench.control.start_up()
    bench.control.on_message(StringMessage(device="ACK_0002", text="START_UP"))
    bench.control.on_message(StringMessage(device="ACK_", text="START_UP"))
    assert bench.wait(2.1) is ScannerState.NO_ANSWER


def test_commands_wait_for_one_another_but_stop_does_not() -> None:
    bench = Bench().ready()
    bench.control.start()
    for command in (bench.control.start_up, bench.control.start, lambda: bench.control.request("PLANNING")):
        with pytest.raises(SessionError, match="START_SEQUENCE is under way"):
            command()
    bench.control.stop()
    assert bench.commands[-1] == ("CMD_0003", "STOP_SEQUENCE")
    assert "replaces START_SEQUENCE" in bench.control.history[-1].reason
    # What the replaced command still says does not count.
    bench.control.on_message(StringMessage(device="ACK_0002", text="START_SEQUENCE"))
    assert bench.shows(ScannerState.STOPPING)


def test_start_needs_a_ready_scanner() -> None:
    bench = Bench()
    with pytest.raises(SessionError, match="not heard from"):
        bench.control.start()
    bench.ready()
    bench.control.start()
    bench.answer()
    bench.status("START_SEQUENCE")
    with pytest.raises(SessionError, match="scanning"):
        bench.control.start_up()


def test_busy_extends_the_time_and_ends() -> None:
    bench = Bench().ready()
    bench.control.start()
    bench.answer()
    for _ in range(5):
        bench.wait(20)
        bench.status("Scanner", 6, "shimming")
    assert bench.shows(ScannerState.BUSY)
    assert "busy, shimming" in [item.reason for item in bench.control.history][-1]
    bench.status("START_SEQUENCE")
    assert bench.shows(ScannerState.SCANNING)
    bench.status("Scanner", 6)
    with pytest.raises(SessionError, match="busy"):
        bench.control.start_up()
    bench.status("Scanner")
    assert bench.shows(ScannerState.SCANNING)


def test_an_emergency_is_ended_by_a_person_only() -> None:
    bench = Bench().ready()
    bench.status("Table", 3, "button pressed")
    assert (bench.state, bench.control.confirmed) == (ScannerState.EMERGENCY, True)
    bench.status("START_UP")
    bench.status("Scanner", 18)
    bench.control.link_lost("cable")
    assert bench.shows(ScannerState.EMERGENCY)
    with pytest.raises(SessionError, match="emergency"):
        bench.control.start_up()
    bench.control.stop()
    assert bench.commands[-1][1] == "STOP_SEQUENCE"
    bench.wait(100)
    assert bench.shows(ScannerState.EMERGENCY)
    assert "not acknowledged" in bench.control.history[-1].reason
    bench.control.reset()
    assert bench.shows(ScannerState.UNKNOWN)
    bench.ready()


@pytest.mark.parametrize(("dialect", "word"), [(ACKNOWLEDGED, "STOP_SEQUENCE"), (MR_ROBOT, "EMERGENCY")])
def test_panic_from_here(dialect: Dialect, word: str) -> None:
    bench = Bench(dialect).ready()
    bench.control.panic("the surgeon said so")
    assert bench.commands[-1][1] == word
    assert bench.shows(ScannerState.EMERGENCY)
    assert not bench.control.confirmed
    bench.status("EMERGENCY")
    assert bench.control.confirmed
    bench.broken = True
    with pytest.raises(WireError):
        bench.control.panic("again")
    assert bench.shows(ScannerState.EMERGENCY)


def test_manual_mode_holds_until_the_scanner_leaves_it() -> None:
    bench = Bench().ready()
    bench.status("Console", 14)
    assert bench.shows(ScannerState.MANUAL)
    with pytest.raises(SessionError, match="manual"):
        bench.control.start()
    bench.control.stop()
    bench.answer()
    bench.status("STOP_SEQUENCE")
    assert bench.shows(ScannerState.MANUAL)
    bench.status("Console")
    assert bench.shows(ScannerState.UNKNOWN)
    bench.ready()
    bench.status("MANUAL")
    assert bench.shows(ScannerState.MANUAL)


@pytest.mark.parametrize("code", [2, 7, 8, 9, 10, 11, 15, 16, 17, 18, 99])
def test_other_codes_are_faults_with_their_meaning(code: int) -> None:
    bench = Bench().ready()
    bench.control.start()
    bench.status("START_SEQUENCE", code, "details")
    assert bench.shows(ScannerState.FAULT)
    assert "details" in bench.control.history[-1].reason
    bench.status("Scanner")
    assert bench.shows(ScannerState.UNKNOWN)


@pytest.mark.parametrize("code", [13, 19])
def test_not_ready_asks_for_starting_up(code: int) -> None:
    bench = Bench().ready()
    bench.status("Scanner", code)
    assert bench.shows(ScannerState.UNKNOWN)
    bench.ready()


def test_status_of_other_devices_does_not_count_unless_it_is_an_emergency() -> None:
    bench = Bench(status_devices=["Scanner", "START_UP"]).ready()
    bench.status("Tracker", 16)
    bench.status("START_SEQUENCE")
    assert bench.shows(ScannerState.READY)
    bench.status("Tracker", 3)
    assert bench.shows(ScannerState.EMERGENCY)


def test_what_the_console_does_is_seen() -> None:
    bench = Bench().ready()
    bench.status("START_SEQUENCE")
    assert bench.shows(ScannerState.SCANNING)
    assert "without a command from here" in bench.control.history[-1].reason
    bench.status("STOP_SEQUENCE")
    assert bench.shows(ScannerState.READY)


def test_a_lost_link_is_shown_and_commands_fail() -> None:
    bench = Bench().ready()
    bench.broken = True
    with pytest.raises(WireError, match="nobody"):
        bench.control.start()
    assert bench.shows(ScannerState.NO_ANSWER)
    bench.broken = False
    bench.ready()
    bench.control.link_lost("the link was lost: reset")
    assert bench.shows(ScannerState.NO_ANSWER)


def test_robot_phases_are_asked_for_and_reached() -> None:
    bench = Bench(MR_ROBOT).ready()
    with pytest.raises(SessionError, match="MR robot"):
        bench.control.start()
    bench.control.request("PLANNING")
    bench.answer()
    assert bench.control.phase == "START_UP"
    bench.status("PLANNING")
    assert (bench.control.phase, bench.state) == ("PLANNING", ScannerState.READY)
    bench.control.request("MOVE_TO_TARGET")
    bench.control.stop()
    bench.answer()
    bench.status("STOP")
    assert bench.shows(ScannerState.READY)


def test_mrigtlbridge_is_believed_by_its_images() -> None:
    bench = Bench(MRIGTLBRIDGE).ready()
    assert "not confirmed" in bench.control.text
    assert bench.commands[0][0] == f"CMD_{int((1.8e9 + 100) * 1000)}"
    bench.control.start()
    assert bench.wait(5) is ScannerState.STARTING
    bench.control.on_message(PICTURE)
    assert (bench.state, bench.control.text) == (ScannerState.SCANNING, "scanning")
    bench.control.stop()
    bench.wait(1)
    bench.control.on_message(PICTURE)
    assert bench.wait(QUIET_S - 0.1) is ScannerState.STOPPING
    assert bench.wait(0.2) is ScannerState.READY
    bench.control.on_message(PICTURE)
    assert bench.shows(ScannerState.SCANNING)
    assert bench.wait(QUIET_S + 0.1) is ScannerState.READY
    bench.control.start()
    assert bench.wait(31) is ScannerState.NO_ANSWER
    assert len({device for device, _ in bench.commands}) == len(bench.commands)


def test_images_prove_nothing_about_a_peer_that_reports() -> None:
    bench = Bench().ready()
    bench.control.on_message(PICTURE)
    assert bench.shows(ScannerState.READY)


def planes(bench: Bench) -> list[TransformMessage]:
    return [message for message in bench.sent if isinstance(message, TransformMessage)]


def test_a_peer_whose_kind_takes_no_plane_is_sent_none() -> None:
    bench = Bench(MR_ROBOT).ready()
    assert not bench.control.may_steer
    assert not bench.control.set_plane(bench.pose(1.0))
    bench.wait(1.0)
    assert not planes(bench)


def test_only_what_a_person_must_end_is_stuck() -> None:
    bench = Bench().ready()
    assert bench.control.may_steer
    assert not bench.control.stuck
    bench.control.panic("a person pressed it")
    assert bench.control.stuck
    assert not bench.control.may_steer
    bench.control.reset()
    assert not bench.control.stuck
    assert not bench.control.may_steer, "until the scanner says what it does"


def test_planes_follow_the_pointer_at_most_ten_times_a_second() -> None:
    bench = Bench().ready()
    for step in range(1000):
        assert bench.control.set_plane(bench.pose(float(step)))
        bench.wait(0.001)
    sent = planes(bench)
    times = [at for at, message in zip(bench.sent_s, bench.sent, strict=True) if isinstance(message, TransformMessage)]
    assert len(sent) in (10, 11)
    assert min(np.diff(times)) >= PLANE_INTERVAL_S
    assert {message.device for message in sent} == {"PLANE_0"}
    # The newest pose goes, not one that waited: 1000 poses a second begin at 100 s.
    np.testing.assert_allclose([message.matrix[0, 3] for message in sent], (np.array(times) - 100.0) * 1000, atol=1.01)
    bench.control.set_plane(bench.pose(5000.0))
    bench.wait(PLANE_INTERVAL_S + 0.01)
    assert planes(bench)[-1].matrix[0, 3] == 5000.0
    assert bench.control.planes_sent == len(planes(bench))


def test_no_plane_from_a_pose_that_says_nothing() -> None:
    bench = Bench().ready()
    assert not bench.control.set_plane(bench.pose(valid=False))
    assert not bench.control.set_plane(bench.pose(age_s=0.3))
    assert not planes(bench)
    assert bench.control.set_plane(bench.pose(1.0))
    assert bench.control.set_plane(bench.pose(2.0))
    # It waits for its turn, but the pointer is lost before.
    assert not bench.control.set_plane(bench.pose(valid=False))
    bench.wait(1.0)
    assert len(planes(bench)) == 1
    bench.control.set_plane(bench.pose(3.0))
    bench.control.set_plane(bench.pose(4.0))
    bench.wait(0.25)
    assert [message.matrix[0, 3] for message in planes(bench)] == [1.0, 3.0]


@pytest.mark.parametrize("code", [3, 14, 18])
def test_no_plane_to_a_scanner_that_may_not_be_steered(code: int) -> None:
    bench = Bench()
    assert not bench.control.set_plane(bench.pose())
    bench.ready()
    bench.control.set_plane(bench.pose(1.0))
    bench.control.set_plane(bench.pose(2.0))
    bench.status("Scanner", code)
    bench.wait(0.15)
    assert not bench.control.set_plane(bench.pose(3.0))
    assert len(planes(bench)) == 1


def test_the_plane_lies_on_the_pointer_as_told(directions: np.ndarray) -> None:
    tool_from_plane = np.eye(4)
    tool_from_plane[:3, :3] = rotation_about((1, 0, 0), 90)
    tool_from_plane[:3, 3] = (0, 0, -10)
    bench = Bench(tool_from_plane=tool_from_plane).ready()
    ras_from_tool = np.eye(4)
    ras_from_tool[:3, :3] = directions * np.sign(np.linalg.det(directions))
    ras_from_tool[:3, 3] = (5, 6, 7)
    bench.control.set_plane(Pose(ras_from_tool, "pointer", bench.time_s, 0.0))
    np.testing.assert_allclose(planes(bench)[0].matrix, ras_from_tool @ tool_from_plane, atol=1e-12)


def test_a_plane_that_cannot_be_sent_is_a_lost_link() -> None:
    bench = Bench().ready()
    bench.broken = True
    bench.control.set_plane(bench.pose())
    assert bench.shows(ScannerState.NO_ANSWER)


EVENTS = st.lists(
    st.one_of(
        st.sampled_from(["start_up", "start", "stop", "panic", "reset", "answer", "image", "lost", "plane"]),
        st.tuples(st.sampled_from(["START_UP", "START_SEQUENCE", "STOP_SEQUENCE", "MANUAL", "X"]), st.integers(0, 20)),
        st.floats(0.0, 40.0),
    ),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(EVENTS, st.sampled_from([ACKNOWLEDGED, MRIGTLBRIDGE, MR_ROBOT]))
def test_any_order_of_events_keeps_the_promises(events: list, dialect: Dialect) -> None:
    bench = Bench(dialect)
    emergency = False
    for event in events:
        before = len(planes(bench))
        try:
            if isinstance(event, float):
                bench.wait(event)
            elif isinstance(event, tuple):
                bench.status(*event)
                emergency |= event[1] == 3
            elif event == "answer":
                if bench.commands:
                    bench.answer()
            elif event == "image":
                bench.control.on_message(PICTURE)
            elif event == "lost":
                bench.control.link_lost("cable")
            elif event == "plane":
                bench.control.set_plane(bench.pose())
            elif event == "panic":
                emergency = True
                bench.control.panic("drill")
            else:
                if event == "reset":
                    emergency = False
                getattr(bench.control, event)()
        except IntraopError:
            assert event in ("start_up", "start")
        assert (bench.state is ScannerState.EMERGENCY) is emergency
        if len(planes(bench)) > before:
            assert bench.state in (ScannerState.READY, ScannerState.STARTING, ScannerState.SCANNING)
        # Every state has a last transition that explains it.
        if bench.control.history:
            assert bench.control.history[-1].after is bench.state
            assert bench.control.history[-1].confirmed is bench.control.confirmed


@pytest.mark.parametrize("code", [4, 5, 12])
def test_a_refused_command_leaves_the_scanner_as_it_was(code: int) -> None:
    bench = Bench().ready()
    bench.control.start("PET")
    assert bench.commands[-1] == ("CMD_0002", "START_SEQUENCE PET")
    bench.answer()
    bench.status("START_SEQUENCE", code, "there is no scan 'PET'")
    assert bench.shows(ScannerState.READY)
    last = bench.control.history[-1]
    assert last.refused
    assert last.is_trouble
    assert "there is no scan 'PET'" in last.reason
    bench.control.start("T1")
    bench.status("START_UP", code, "an answer to something else")
    assert bench.shows(ScannerState.FAULT)


def test_a_scan_asks_an_unknown_scanner_to_get_ready_first() -> None:
    bench = Bench()
    bench.control.scan("T1")
    assert [text for _, text in bench.commands] == ["START_UP"]
    bench.answer()
    bench.status("START_UP")
    assert [text for _, text in bench.commands] == ["START_UP", "START_SEQUENCE T1"]
    assert bench.shows(ScannerState.STARTING)
    bench.answer()
    bench.status("START_SEQUENCE")
    with pytest.raises(SessionError, match="START_SEQUENCE was not sent, the scanner is: scanning"):
        bench.control.scan("T2")
    bench.status("STOP_SEQUENCE", text="done")
    assert bench.shows(ScannerState.READY)
    bench.control.scan("T2")
    assert bench.commands[-1][1] == "START_SEQUENCE T2"


@pytest.mark.parametrize("how", ["time", "link", "broken"])
def test_an_emergency_that_nobody_answers_is_told_although_the_state_stays(how: str) -> None:
    bench = Bench(MR_ROBOT).ready()
    bench.broken = how == "broken"
    if how == "broken":
        with pytest.raises(WireError):
            bench.control.panic("hand in the bore")
    else:
        bench.control.panic("hand in the bore")
        assert not bench.control.history[-1].unanswered
        if how == "time":
            bench.wait(2.1)
        else:
            bench.control.link_lost("cable")
    last = bench.control.history[-1]
    assert bench.shows(ScannerState.EMERGENCY)
    assert last.unanswered
    assert last.is_trouble
    assert last.is_urgent
    # A link that is lost while nothing is under way comes to nothing of ours.
    bench.broken = False
    bench.control.reset()
    bench.ready().control.link_lost("cable")
    assert not bench.control.history[-1].is_urgent


def test_a_status_of_the_phase_before_takes_no_calibration_for_done() -> None:
    bench = Bench(MR_ROBOT).ready()
    bench.control.request("CALIBRATION")
    bench.answer()
    bench.status("CALIBRATION")
    bench.control.calibrate(np.eye(4))
    # The phase is said again, for the request; the robot has not seen the transform yet.
    bench.status("CALIBRATION")
    with pytest.raises(SessionError, match="CALIBRATION is under way"):
        bench.control.request("PLANNING")
    bench.control.on_message(TransformMessage(device="ACK_0003"))
    bench.control.request("PLANNING")


@pytest.mark.parametrize("how", ["stop", "time", "fault", "panic", "link"])
def test_a_scan_that_was_given_up_meanwhile_never_starts(how: str) -> None:
    bench = Bench()
    bench.control.scan("T1")
    number = bench.commands[0][0][4:]
    if how == "stop":
        bench.control.stop()
    elif how == "time":
        bench.wait(60.0)
    elif how == "fault":
        bench.status("Magnet", 18)
    elif how == "panic":
        bench.control.panic("hand in the bore")
    else:
        bench.control.link_lost("cable")
    bench.control.on_message(StringMessage(device=f"ACK_{number}", text="OK"))
    bench.status("START_UP")
    assert all("START_SEQUENCE" not in text for _, text in bench.commands)


def test_a_scan_without_acknowledgements_starts_at_once() -> None:
    bench = Bench(MRIGTLBRIDGE)
    bench.control.scan("T1")
    assert [text for _, text in bench.commands] == ["START_UP", "START_SEQUENCE T1"]


def test_no_plane_from_a_frozen_pose_on_a_live_link() -> None:
    bench = Bench().ready()
    frozen = 1.8e9
    taken = []
    for _ in range(6):
        pose = Pose(np.eye(4), "pointer", bench.time_s, 1.8e9 + bench.time_s, sent_utc_s=frozen)
        taken.append(bench.control.set_plane(pose))
        bench.wait(0.1)
    assert taken == [True, True, True, False, False, False]
    sent = bench.control.planes_sent
    going_back = Pose(np.eye(4), "pointer", bench.time_s, 1.8e9 + bench.time_s, sent_utc_s=frozen - 1.0)
    assert not bench.control.set_plane(going_back)
    bench.wait(1.0)
    assert bench.control.planes_sent == sent
    moving = Pose(np.eye(4), "pointer", bench.time_s, 1.8e9 + bench.time_s, sent_utc_s=frozen + 1.0)
    assert bench.control.set_plane(moving)


def test_a_robot_gets_its_calibration_and_its_target_in_their_phases() -> None:
    bench = Bench(MR_ROBOT)
    with pytest.raises(SessionError, match="calibration"):
        bench.control.calibrate(np.eye(4))
    for phase, send, device in (
        ("CALIBRATION", bench.control.calibrate, "CLB_0002"),
        ("TARGETING", bench.control.aim, "TGT_0004"),
    ):
        bench.control.request(phase)
        bench.answer()
        bench.status(phase)
        matrix = np.eye(4)
        matrix[0, 3] = 12.5
        send(matrix)
        sent = bench.sent[-1]
        assert isinstance(sent, TransformMessage)
        assert (sent.device, sent.matrix[0, 3]) == (device, 12.5)
        with pytest.raises(SessionError, match=f"{phase} is under way"):
            bench.control.request("PLANNING")
        bench.control.on_message(TransformMessage(device="ACK_" + device[4:], matrix=matrix))
        bench.wait(5.0)
        bench.status(phase)
    bench.control.request("PLANNING")
    with pytest.raises(IntraopError):
        bench.control.aim(np.diag([1.0, 1.0, -1.0, 1.0]))
    with pytest.raises(SessionError, match="takes no target"):
        Bench().control.aim(np.eye(4))


def stopped(dialect: Dialect = MR_ROBOT) -> Bench:
    bench = Bench(dialect).ready()
    bench.control.panic("hand in the bore")
    return bench


def what_became(bench: Bench) -> tuple[bool, bool, str]:
    """Acknowledged, confirmed, and why it is not known."""
    stop = bench.control.emergency_stop
    assert stop is not None
    assert bench.state is ScannerState.EMERGENCY
    return stop.acknowledged_utc_s is not None, stop.confirmed_utc_s is not None, stop.trouble


def test_an_emergency_stop_is_confirmed_by_the_peer_alone_and_its_times_are_kept() -> None:
    bench = stopped()
    assert what_became(bench) == (False, False, "")
    bench.time_s += 0.5
    bench.answer()
    assert what_became(bench) == (True, False, ""), "that it was heard is not that it was done"
    assert not bench.control.confirmed
    bench.time_s += 0.25
    bench.status("EMERGENCY")
    assert what_became(bench) == (True, True, "")
    assert bench.control.confirmed
    stop = bench.control.emergency_stop
    assert stop is not None
    begun, acknowledged, confirmed = stop.sent_utc_s, stop.acknowledged_utc_s, stop.confirmed_utc_s
    assert acknowledged is not None
    assert confirmed is not None
    assert (acknowledged - begun, confirmed - begun) == (0.5, 0.75)
    bench.wait(100.0)
    assert what_became(bench) == (True, True, "")
    bench.control.reset()
    assert bench.control.emergency_stop is None


@pytest.mark.parametrize("dialect", [MR_ROBOT, ACKNOWLEDGED])
def test_an_emergency_stop_that_is_heard_but_not_done_is_no_stop(dialect: Dialect) -> None:
    bench = stopped(dialect)
    bench.answer()
    # A robot that is busy has not stopped, however often it says so.
    for _ in range(6):
        bench.wait(1.0)
        bench.status("Arm", 6)
    assert "was not carried out within 5 s" in what_became(bench)[2]
    assert bench.control.history[-1].after is ScannerState.EMERGENCY
    assert any(item.unanswered and item.is_urgent for item in bench.control.history)
    # Late, but then it is known.
    bench.status(dialect.emergency or dialect.stop)
    assert what_became(bench) == (True, True, "")
    assert bench.control.confirmed


def test_a_late_acknowledgement_of_an_emergency_stop_is_kept() -> None:
    bench = stopped()
    bench.wait(2.1)
    assert "was not acknowledged within 2 s" in what_became(bench)[2]
    bench.answer()
    heard, done, trouble = what_became(bench)
    assert (heard, done, bool(trouble)) == (True, False, True)


@pytest.mark.parametrize(
    ("name", "code", "why"),
    [("EMERGENCY", 5, "was refused"), ("Arm", 18, "hardware"), ("Console", 14, "manual")],
)
def test_what_keeps_a_peer_from_stopping_is_said(name: str, code: int, why: str) -> None:
    bench = stopped()
    bench.status(name, code)
    heard, done, trouble = what_became(bench)
    assert (heard, done) == (False, False)
    assert why in trouble.lower()


def test_a_stop_that_takes_its_place_does_not_answer_for_it() -> None:
    bench = stopped()
    number = bench.commands[-1][0][4:]
    bench.control.stop()
    assert "STOP took its place" in what_became(bench)[2]
    bench.answer()
    bench.status("STOP")
    assert not what_became(bench)[1]
    bench.control.on_message(StringMessage(device=f"ACK_{number}"))
    bench.status("EMERGENCY")
    assert what_became(bench) == (True, True, "")


def test_a_peer_that_answers_nothing_is_never_taken_for_one_that_confirmed() -> None:
    bench = Bench(MRIGTLBRIDGE)
    bench.control.scan()
    bench.control.on_message(ImageMessage(device="live", array=np.zeros((1, 2, 2), np.int16)))
    bench.control.panic("hand in the bore")
    bench.wait(3.1)
    stop = bench.control.emergency_stop
    assert stop is not None
    assert (stop.confirmed_utc_s, stop.sign) == (None, "no image for 3 s")
    bench.control.panic("again")
    for _ in range(12):
        bench.wait(0.5)
        bench.control.on_message(ImageMessage(device="live", array=np.zeros((1, 2, 2), np.int16)))
    assert "was not carried out within 5 s" in what_became(bench)[2]
