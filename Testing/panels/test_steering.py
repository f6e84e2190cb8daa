"""The image plane follows the pointer on page 4 only where the scanner takes one, and only a sound pose is sent."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from host.fixtures import app
from IntraopMRIReconstructionLib.data import Pose
from IntraopMRIReconstructionLib.errors import WireError
from IntraopMRIReconstructionLib.wire.codec import Message, StatusMessage, TransformMessage
from IntraopMRIReconstructionLib.wire.scanner_control import ACKNOWLEDGED, MR_ROBOT, Dialect, ScannerControl
from panels.operation import Operation

__all__ = ["app"]


class Scanner:
    """A scanner's end of the control: what was sent to it."""

    def __init__(self, operation: Operation, dialect: Dialect = ACKNOWLEDGED) -> None:
        self.operation = operation
        self.sent: list[Message] = []
        self.broken = False
        self.control = ScannerControl(self._send, dialect)
        operation.session.controls["scanner"] = self.control
        operation.panel.parameters.tracker.used = True
        operation.open("SCAN")

    def _send(self, message: Message) -> None:
        if self.broken:
            raise WireError("the link is down")
        self.sent.append(message)

    def says(self, name: str, code: int = 1) -> None:
        self.control.on_message(StatusMessage(device=name, code=code))
        self.operation.panel.refresh()

    def planes(self) -> list[TransformMessage]:
        return [message for message in self.sent if isinstance(message, TransformMessage)]

    def points(self, *, valid: bool = True, age_s: float = 0.0) -> None:
        """One pose, as the tick hands it on."""
        matrix = np.eye(4)
        matrix[:3, 3] = (1.0, 2.0, 3.0)
        pose = Pose(matrix, "Pointer", time.monotonic() - age_s, time.time() - age_s)
        self.operation.running.place(replace(pose, valid=valid))
        self.operation.page("SCAN").steering.poseArrived()
        self.operation.panel.refresh()


@pytest.fixture
def operation(app: Any) -> Operation:
    return Operation()


@pytest.fixture
def scanner(operation: Operation) -> Scanner:
    made = Scanner(operation)
    made.says("START_UP")
    return made


def test_nothing_is_sent_before_a_person_asks(operation: Operation, scanner: Scanner) -> None:
    ui = operation.page("SCAN").ui
    scanner.points()
    assert not scanner.planes()
    assert ui.setPlaneButton.enabled
    ui.setPlaneButton.click()
    assert [message.matrix[0, 3] for message in scanner.planes()] == [1.0]
    assert "1 planes sent; the scanner confirms none" in ui.planeLabel.text
    scanner.points()
    assert len(scanner.planes()) == 1, "once means once"


def test_it_follows_and_stops_with_the_pose(operation: Operation, scanner: Scanner) -> None:
    ui = operation.page("SCAN").ui
    ui.followPlaneBox.checked = True
    scanner.points()
    assert len(scanner.planes()) == 1
    operation.running.confirmed = False
    scanner.points(valid=False)
    scanner.points(age_s=1.0)
    assert len(scanner.planes()) == 1
    operation.page("SCAN").steering._taken_s -= 1.0
    operation.page("SCAN").steering.tick()
    assert "Nothing is sent: the pointer is not seen or its pose is stale" in ui.planeLabel.text
    ui.followPlaneBox.checked = False
    scanner.points()
    assert len(scanner.planes()) == 1


def test_a_scanner_in_trouble_is_not_steered_until_a_person_resets(operation: Operation, scanner: Scanner) -> None:
    ui = operation.page("SCAN").ui
    assert not ui.resetButton.enabled
    ui.followPlaneBox.checked = True
    scanner.says("EMERGENCY", 3)
    assert not ui.followPlaneBox.checked
    assert not ui.setPlaneButton.enabled
    scanner.points()
    assert not scanner.planes()
    assert "Nothing is sent: the scanner is: emergency" in ui.planeLabel.text
    assert ui.resetButton.enabled
    ui.resetButton.click()
    assert scanner.control.state.value == "not heard from", "nothing is claimed after a reset"
    assert not scanner.planes()
    assert not ui.setPlaneButton.enabled, "until it says that it is ready"
    scanner.says("START_UP")
    assert ui.setPlaneButton.enabled


def test_a_lost_link_ends_it(operation: Operation, scanner: Scanner) -> None:
    ui = operation.page("SCAN").ui
    ui.followPlaneBox.checked = True
    scanner.broken = True
    scanner.points()
    assert not ui.followPlaneBox.checked
    assert "does not answer" in ui.planeLabel.text


def test_it_is_offered_only_where_the_scanner_takes_a_plane(operation: Operation) -> None:
    scan = operation.page("SCAN")
    operation.open("SCAN")
    assert not scan.ui.steerSection.isVisibleTo(scan.widget), "there is no scanner"
    robot = Scanner(operation, MR_ROBOT)
    scan.ui.steerSection.collapsed = False
    robot.says("START_UP")
    assert not scan.ui.setPlaneButton.isVisibleTo(scan.widget)
    assert scan.ui.resetButton.isVisibleTo(scan.widget)
    scan.ui.setPlaneButton.click()
    robot.points()
    assert not robot.planes()
    scanner = Scanner(operation)
    operation.panel.parameters.tracker.used = False
    scanner.says("START_UP")
    assert not scan.ui.followPlaneBox.enabled, "no tracker"
