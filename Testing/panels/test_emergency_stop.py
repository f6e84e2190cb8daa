"""The emergency stop: one click on every page, and only what the device says itself is a confirmation.

The robot is a program on Debian's C++ OpenIGTLink library.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import slicer
from host.fixtures import app, wait_until
from IntraopMRIReconstructionLib.wire import codec
from IntraopMRIReconstructionLib.wire.transport import Server
from IntraopMRIReconstructionLib.wire.trust import PROFILES
from panels.operation import plan_screw
from peers.igtl_examples import build_own, free_port, running

__all__ = ["app"]


class Desk:
    """The panel, with a patient and a plan, as it is before somebody connects."""

    def __init__(self) -> None:
        slicer.util.selectModule("IntraopMRI")
        self.panel = slicer.util.getModuleWidget("IntraopMRI").panel
        self.ui = self.panel.ui
        p = self.panel.parameters
        plan_screw(p)
        p.tracker.used = p.live.used = False
        self.open("CONNECT")

    def open(self, phase: str) -> Any:
        page = next(page for known, page in self.panel.pages.items() if known.name == phase)
        self.panel.open(page.phase)
        self.panel.refresh()
        return page

    def connect(self, port: int, dialect: str) -> None:
        self.panel.parameters.scanner.port = port
        page = self.open("CONNECT")
        page.ui.scannerDialectBox.currentIndex = list(PROFILES).index(dialect)
        self.panel.refresh()
        assert self.ui.emergencyButton.isHidden(), "there is nothing to stop"

        def connected() -> bool:
            # A program that has only just started does not listen yet.
            if self.panel.running.task is None and not self.panel.running.connected:
                self.ui.nextButton.click()
            return bool(self.panel.running.connected)

        wait_until(connected, 60, "the link")
        wait_until(lambda: not self.ui.emergencyButton.isHidden(), 10, "the button")

    @property
    def control(self) -> Any:
        return self.panel.running.session.control

    def press(self) -> None:
        self.ui.emergencyButton.click()

    @property
    def said(self) -> str:
        return str(self.ui.emergencyLabel.text)

    def says(self, words: str, seconds: float = 20.0) -> None:
        wait_until(lambda: words in self.said, seconds, f"'{words}', not '{self.said}'")
        assert not self.ui.emergencyLabel.isHidden()


@pytest.fixture
def desk(app: Any) -> Iterator[Desk]:
    made = Desk()
    yield made
    made.panel.running.close()


@pytest.fixture(scope="module")
def program() -> Path:
    return build_own("igtl_robot")


@pytest.fixture
def robot(program: Path, desk: Desk) -> Iterator[Callable[[str], bool]]:
    """A robot that is connected and ready; tells whether it has heard a word."""
    port = free_port()
    with running(program, port) as output:
        desk.connect(port, "MR robot")
        desk.control.start_up()
        wait_until(lambda: desk.control.state.value == "ready", 20, "the robot")
        yield lambda word: wait_until(lambda: word in output.read_text(), 10, word) is not None


@pytest.mark.parametrize("page", ["CASE", "CONNECT", "REGISTER", "SCAN", "NAVIGATE", "DECIDE"])
def test_one_click_on_every_page_stops_the_robot(desk: Desk, robot: Any, page: str) -> None:
    desk.open(page)
    assert not desk.said
    assert desk.ui.emergencyButton.isVisibleTo(desk.panel.widget)
    desk.press()
    desk.says("confirmed by the device ")
    assert robot("EMERGENCY")
    assert desk.control.state.value == "emergency"
    stop = desk.control.emergency_stop
    assert stop.confirmed_utc_s >= stop.sent_utc_s
    events = [event.text for event in desk.panel.running.session.journal.record.events]
    assert any("emergency stop pressed at the panel" in text for text in events)
    assert any("STATUS EMERGENCY" in text for text in events)
    # It stays until a person says that it is over, and nothing else is sent meanwhile.
    scan = desk.open("SCAN")
    assert scan.ui.resetButton.enabled
    scan.ui.resetButton.click()
    wait_until(lambda: not desk.said and desk.ui.emergencyLabel.isHidden(), 5, "the end of it")


def test_what_comes_next_is_its_end_and_one_click_leads_there(desk: Desk, robot: Any) -> None:
    ui = desk.open("SCAN").ui
    assert ui.steerSection.collapsed
    desk.press()
    desk.says("confirmed by the device ")
    assert desk.ui.nextButton.text == "Reset when it is over"
    desk.ui.nextButton.click()
    assert not ui.steerSection.collapsed
    assert ui.resetButton.enabled
    assert desk.control.stuck, "only a person who presses that button ends it"
    ui.resetButton.click()
    assert not desk.ui.nextButton.text.startswith("Reset")


@pytest.mark.parametrize(("mode", "why"), [("stranger", "was not acknowledged within 2 s"), ("leave", "is not known")])
def test_a_stop_that_is_not_answered_is_said_loudly(desk: Desk, robot: Any, mode: str, why: str) -> None:
    desk.panel.running.session._links.scanner.send(codec.StringMessage(device="MODE", text=mode))
    assert robot(mode)
    desk.press()
    desk.says("NOT CONFIRMED")
    assert why in desk.said
    assert "Stop it at the device itself" in desk.said
    wait_until(lambda: why in desk.panel.running.problem, 5, "the banner")
    assert not desk.ui.emergencyButton.isHidden(), "it can be pressed again"


def test_a_robot_leaves_the_scans_to_the_scene(desk: Desk, robot: Any) -> None:
    assert not desk.panel.running.hasScanner
    page = desk.open("CONNECT")
    page.tick()
    assert "speaks: MR robot, ready, " in page.ui.scannerStateLabel.text


def test_a_peer_that_reads_nothing_does_not_hold_up_the_click(desk: Desk) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        desk.connect(deaf.getsockname()[1], "as sent")
        desk.press()
        desk.says("sent, no answer yet", 1.5)
        desk.says("NOT CONFIRMED. STOP_SEQUENCE (CMD_0001) was not acknowledged within 2 s")


def test_a_stop_over_a_lost_link_is_said_at_once(desk: Desk) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(Server())
        desk.connect(server.port, "as sent")
        stack.close()
        wait_until(lambda: not desk.panel.running.session.links()["scanner"][1], 20, "the loss")
        desk.press()
        assert "NOT CONFIRMED" in desk.said
        assert "nobody is connected" in desk.said


def test_an_emergency_of_the_scanner_is_shown_and_the_stop_waits_for_no_work(desk: Desk) -> None:
    """The thread that takes messages may wait for the work on scans: that a stop is unanswered is said all the same."""
    with Server() as server:
        desk.connect(server.port, "as sent")
        assert server.wait_for_peer(20.0)
        server.send(codec.StatusMessage(device="Magnet", code=3, text="quench"))
        desk.says("The scanner reports an emergency")
        desk.control.reset()
        session = desk.panel.running.session
        session._links.scanner.receive = lambda *_args: None
        desk.press()
        said = server.expect(20.0, "STRING").message
        desk.says("was not acknowledged within 2 s")
        # Nor does the answer wait for it, late as it is.
        server.send(codec.StringMessage(device=said.device.replace("CMD", "ACK")))
        server.send(codec.StatusMessage(device="STOP_SEQUENCE"))
        desk.says("confirmed by the device ")


def test_without_a_session_there_is_nothing_to_press(desk: Desk) -> None:
    with Server() as server:
        desk.connect(server.port, "mrigtlbridge")
        desk.press()
        desk.says("sent, no answer yet")
        desk.says("a device of its kind does not answer; no image for 3 s")
        desk.panel.running.disconnect()
        wait_until(lambda: desk.ui.emergencyButton.isHidden() and not desk.said, 20, "the end")


def test_a_robot_beside_a_scanner_is_stopped_as_well_and_each_answers_for_itself(desk: Desk) -> None:
    with Server() as scanner, Server() as robot:
        p = desk.panel.parameters
        assert not p.robot.used, "few theatres have one"
        p.robot.used, p.robot.port = True, robot.port
        desk.connect(scanner.port, "as sent")
        robot.send(codec.StatusMessage(device="PLANNING"))
        page = desk.open("CONNECT")
        label = page.ui.robotStateLabel
        wait_until(lambda: label.text == "connected, speaks: MR robot, planning", 10, f"its phase, not '{label.text}'")
        desk.press()
        for server, word in ((scanner, "STOP_SEQUENCE"), (robot, "EMERGENCY")):
            sent = server.expect(10.0, "STRING").message
            assert isinstance(sent, codec.StringMessage)
            assert sent.text == word
        robot.send(codec.StatusMessage(device="EMERGENCY", code=3))
        desk.says("The scanner: Emergency stop")
        desk.says("NOT CONFIRMED. STOP_SEQUENCE")
        desk.says("The robot: Emergency stop")
        wait_until(lambda: "confirmed by the device" in desk.said.partition("The robot")[2], 10, desk.said)
        scan = desk.open("SCAN")
        scan.ui.resetButton.click()
        assert not any(control.stuck for control in desk.panel.running.session.controls.values())
