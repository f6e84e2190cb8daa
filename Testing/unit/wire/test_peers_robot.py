"""Control over real links: a robot on the C++ library, and pyigtl as a bridge uses it; also when answers go wrong."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyigtl
import pytest
from IntraopMRIReconstructionLib.data import Pose
from IntraopMRIReconstructionLib.errors import SessionError, WireError
from IntraopMRIReconstructionLib.wire import codec
from IntraopMRIReconstructionLib.wire.endpoint import LinkEvent
from IntraopMRIReconstructionLib.wire.scanner_control import (
    MR_ROBOT,
    MRIGTLBRIDGE,
    ScannerControl,
    ScannerState,
    Transition,
)
from IntraopMRIReconstructionLib.wire.transport import Client, Server
from peers import igtl_examples
from peers.igtl_examples import build_own, free_port, running
from peers.igtl_samples import rigid
from peers.waiting import until

pytestmark = [
    pytest.mark.peer,
    pytest.mark.skipif(bool(igtl_examples.missing()), reason=igtl_examples.missing() or "-"),
]

WAIT_S = 20.0


class Desk:
    """Our end of a link: a control whose clock is turned by hand, and everything that a person would be told."""

    def __init__(self, port: int) -> None:
        self.told: list[Transition] = []
        self.time_s = 100.0
        self.client = Client(port=port, on_event=self._heard)
        self.control = ScannerControl(
            self.client.send, MR_ROBOT, now=lambda: self.time_s, on_transition=self.told.append
        )

    def _heard(self, event: LinkEvent) -> None:
        if event.kind == "lost":
            self.control.link_lost(event.text)

    def until(self, condition: Callable[[], bool]) -> None:
        """Take what comes and let time pass until a condition holds."""

        def looks() -> bool:
            while (received := self.client.receive(0.0)) is not None:
                self.control.on_message(received.message)
            self.control.poll()
            return condition()

        until(looks, WAIT_S)

    def until_state(self, state: ScannerState) -> None:
        self.until(lambda: self.shows(state))

    def shows(self, state: ScannerState) -> bool:
        return self.control.state is state

    def until_given_up(self) -> None:
        """The time for an answer passes."""
        self.time_s += MR_ROBOT.answer_s + 0.1
        self.until(lambda: self.control._pending is None)

    def ask(self, word: str) -> None:
        """A phase that is asked for and reached."""
        self.control.request(word)
        self.until(lambda: self.control.phase == word and self.control._pending is None)

    @property
    def urgent(self) -> list[str]:
        return [transition.reason for transition in self.told if transition.is_urgent]


class Robot:
    """The C++ program."""

    def __init__(self, port: int, output: Path) -> None:
        self.port, self._output = port, output

    def heard(self, *words: str) -> None:
        """Wait until the robot has heard these in this order."""
        until(lambda: self._is_in_order(words), WAIT_S)

    def _is_in_order(self, words: tuple[str, ...]) -> bool:
        text, at = self._output.read_text(), 0
        for word in words:
            at = text.find(word, at)
            if at < 0:
                return False
            at += len(word)
        return True


@pytest.fixture(scope="module")
def program() -> Path:
    return build_own("igtl_robot")


@pytest.fixture
def robot(program: Path) -> Iterator[Robot]:
    port = free_port()
    with running(program, port) as output:
        yield Robot(port, output)


@pytest.fixture
def desk(robot: Robot) -> Iterator[Desk]:
    # A program that has only just started does not listen yet.
    tries: list[Desk] = []

    def enters() -> bool:
        tries.append(Desk(robot.port))
        try:
            tries[-1].client.__enter__()
        except WireError:
            return False
        return True

    until(enters, WAIT_S)
    with contextlib.closing(tries[-1].client):
        yield tries[-1]


def behaves(desk: Desk, mode: str) -> None:
    desk.client.send(codec.StringMessage(device="MODE", text=mode))


def ready(desk: Desk) -> None:
    desk.control.start_up()
    desk.until_state(ScannerState.READY)


@pytest.mark.parametrize("mode", ["good", "twice", "reversed"])
def test_a_procedure_with_a_robot(robot: Robot, desk: Desk, mode: str) -> None:
    """Answers that come twice, or the STATUS before the ACK, change nothing."""
    control = desk.control
    behaves(desk, mode)
    ready(desk)
    desk.ask("PLANNING")
    desk.ask("CALIBRATION")
    control.calibrate(rigid(position_mm=(1.0, 2.0, 3.0)))
    desk.until(lambda: control._pending is None)
    desk.ask("TARGETING")
    control.aim(rigid(position_mm=(4.0, 5.0, 6.0)))
    desk.until(lambda: control._pending is None)
    desk.ask("MOVE_TO_TARGET")
    control.stop()
    desk.until_state(ScannerState.READY)
    assert control.confirmed
    assert not desk.urgent
    robot.heard(
        *("CMD_0001 START_UP", "CMD_0002 PLANNING", "CMD_0003 CALIBRATION", "CLB_0004 1.000 2.000 3.000"),
        *("CMD_0005 TARGETING", "TGT_0006 4.000 5.000 6.000", "CMD_0007 MOVE_TO_TARGET", "CMD_0008 STOP"),
    )


def test_a_device_that_only_says_that_it_is_well_ends_no_phase(robot: Robot, desk: Desk) -> None:
    ready(desk)
    desk.ask("CALIBRATION")
    desk.control.on_message(codec.StatusMessage(device="Camera"))
    assert desk.control.phase == "CALIBRATION"
    desk.control.calibrate(rigid(position_mm=(1.0, 2.0, 3.0)))
    robot.heard("CLB_0003 1.000 2.000 3.000")


def test_answers_to_somebody_else_are_none(robot: Robot, desk: Desk) -> None:
    ready(desk)
    behaves(desk, "stranger")
    desk.control.request("MOVE_TO_TARGET")
    desk.until(lambda: desk.client.counters.received == 4)
    assert desk.control._pending is not None
    desk.until_given_up()
    assert (desk.control.state, desk.control.phase) == (ScannerState.NO_ANSWER, "START_UP")
    assert any("MOVE_TO_TARGET (CMD_0002) was not acknowledged within 2 s" in text for text in desk.urgent)
    behaves(desk, "good")
    ready(desk)


def test_late_answers_do_not_belong_to_the_next_command(robot: Robot, desk: Desk) -> None:
    ready(desk)
    desk.ask("TARGETING")
    behaves(desk, "late")
    desk.control.request("MOVE_TO_TARGET")
    robot.heard("MOVE_TO_TARGET")
    desk.until_given_up()
    assert desk.shows(ScannerState.NO_ANSWER)
    desk.control.stop()
    # Now the robot says that it has moved; that it has stopped it does not say.
    desk.until(lambda: desk.control.phase == "MOVE_TO_TARGET")
    assert desk.shows(ScannerState.STOPPING)
    desk.until_given_up()
    assert desk.shows(ScannerState.NO_ANSWER)
    assert any("STOP (CMD_0004) was not acknowledged" in text for text in desk.urgent)
    behaves(desk, "good")
    desk.control.start_up()
    desk.until(lambda: desk.control.phase == "START_UP")
    desk.until_state(ScannerState.READY)
    assert desk.control.confirmed


def test_a_link_that_ends_in_the_middle_of_a_command_is_urgent(robot: Robot, desk: Desk) -> None:
    ready(desk)
    behaves(desk, "leave")
    desk.control.request("MOVE_TO_TARGET")
    desk.until_state(ScannerState.NO_ANSWER)
    assert any("whether MOVE_TO_TARGET was carried out is not known" in text for text in desk.urgent)
    with pytest.raises(SessionError, match="no command that starts"):
        desk.control.start()
    # The client comes back by itself; nothing is known of the robot until it says so.
    desk.until(lambda: desk.client.connected)
    behaves(desk, "good")
    assert not desk.control.confirmed
    ready(desk)
    robot.heard("connected", "MOVE_TO_TARGET", "left", "connected", "START_UP")


def test_panic_stops_a_robot_that_moves(robot: Robot, desk: Desk) -> None:
    ready(desk)
    desk.control.request("MOVE_TO_TARGET")
    desk.control.panic("a hand in the bore")
    assert desk.shows(ScannerState.EMERGENCY)
    robot.heard("CMD_0002 MOVE_TO_TARGET", "CMD_0003 EMERGENCY")
    desk.until(lambda: desk.control.confirmed)
    assert desk.urgent
    for command in (desk.control.start_up, lambda: desk.control.request("PLANNING")):
        with pytest.raises(SessionError, match="emergency"):
            command()
    desk.control.stop()
    robot.heard("CMD_0004 STOP")
    desk.until(lambda: desk.control._pending is None)
    assert desk.shows(ScannerState.EMERGENCY)
    desk.control.reset()
    ready(desk)


@pytest.mark.parametrize("mode", ["stranger", "late", "leave"])
def test_a_panic_that_nobody_confirms_is_told(robot: Robot, desk: Desk, mode: str) -> None:
    ready(desk)
    behaves(desk, mode)
    desk.control.panic("a hand in the bore")
    robot.heard("EMERGENCY")
    if mode != "leave":
        desk.until_given_up()
    words = "whether EMERGENCY was carried out is not known" if mode == "leave" else "was not acknowledged"
    desk.until(lambda: any("EMERGENCY" in text and words in text for text in desk.urgent))
    assert desk.shows(ScannerState.EMERGENCY)
    assert not desk.control.confirmed
    # Its answer, when it comes after all, confirms; only a person ends the emergency.
    desk.until(lambda: desk.client.connected)
    behaves(desk, "good")
    desk.control.panic("again")
    desk.until(lambda: desk.control.confirmed)
    assert desk.shows(ScannerState.EMERGENCY)


def test_panic_without_a_link_raises_and_holds(robot: Robot, desk: Desk) -> None:
    ready(desk)
    desk.client.close()
    with pytest.raises(WireError, match="nobody is connected"):
        desk.control.panic("a hand in the bore")
    assert desk.shows(ScannerState.EMERGENCY)
    assert any("nobody is connected" in text for text in desk.urgent)


@pytest.fixture
def bridge() -> Iterator[tuple[ScannerControl, Server, pyigtl.OpenIGTLinkClient]]:
    """mrigtlbridge is a pyigtl client of ours."""
    with Server() as server:
        client = pyigtl.OpenIGTLinkClient(host="127.0.0.1", port=server.port)
        assert server.wait_for_peer(WAIT_S)
        yield ScannerControl(server.send, MRIGTLBRIDGE), server, client
        client.stop()


def _commands(client: pyigtl.OpenIGTLinkClient, count: int) -> list[str]:
    """The texts of the next commands, in the order of their numbers."""
    found: dict[str, str] = {}

    def arrived() -> bool:
        for message in client.get_latest_messages():
            if message.device_name.startswith("CMD_"):
                found[message.device_name] = message.string
        return len(found) >= count

    until(arrived, WAIT_S)
    return [found[name] for name in sorted(found)]


def test_a_bridge_is_commanded_steered_and_stopped(
    bridge: tuple[ScannerControl, Server, pyigtl.OpenIGTLinkClient],
) -> None:
    control, server, client = bridge
    control.scan()
    assert _commands(client, 2) == ["START_UP", "START_SEQUENCE"]
    client.send_message(pyigtl.ImageMessage(np.zeros((1, 4, 4), np.int16), device_name="MR"), wait=True)
    control.on_message(server.expect(WAIT_S, "IMAGE").message)
    assert control.state is ScannerState.SCANNING
    pose = rigid(position_mm=(10.0, -20.0, 30.0))
    assert control.set_plane(Pose(pose, "pointer", control._now(), control._utc_now()))
    plane = client.wait_for_message("PLANE_0", timeout=WAIT_S)
    np.testing.assert_allclose(plane.matrix, pose, atol=1e-5)
    control.panic("a hand in the bore")
    assert _commands(client, 1) == ["STOP_SEQUENCE"]
    # Words of a peer that does not speak the dialect are no answers.
    for device in ("ACK_1", "ACK_", "Notes"):
        client.send_message(pyigtl.StringMessage("OK", device_name=device), wait=True)
        control.on_message(server.expect(WAIT_S, "STRING").message)
    assert control.text == "emergency (not confirmed by the scanner)"


def test_a_bridge_that_leaves_hears_no_panic_and_we_say_so(
    bridge: tuple[ScannerControl, Server, pyigtl.OpenIGTLinkClient],
) -> None:
    control, server, client = bridge
    control.start_up()
    client.stop()
    until(lambda: not server.peers, WAIT_S)
    with pytest.raises(WireError, match="nobody is connected"):
        control.panic("a hand in the bore")
    assert control.state is ScannerState.EMERGENCY
