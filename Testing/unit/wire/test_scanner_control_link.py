"""Scanner control over real sockets: a small simulated scanner on the other end of the transport."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from IntraopMRIReconstructionLib.data import Pose
from IntraopMRIReconstructionLib.errors import WireError
from IntraopMRIReconstructionLib.wire.codec import ImageMessage, StatusMessage, StringMessage, TransformMessage
from IntraopMRIReconstructionLib.wire.scanner_control import (
    ACKNOWLEDGED,
    MRIGTLBRIDGE,
    Dialect,
    ScannerControl,
    ScannerState,
)
from IntraopMRIReconstructionLib.wire.transport import Client, Received, Server

WAIT_S = 20.0


class Scanner(threading.Thread):
    """A client of our server, as mrigtlbridge is: obeys commands and sends the plane back as an image."""

    def __init__(self, port: int, dialect: Dialect) -> None:
        super().__init__(daemon=True)
        self.client = Client(port=port, reconnect=False)
        self._dialect = dialect
        self._number = 0
        self.scanning = False
        self.start()

    def run(self) -> None:
        with self.client as client:
            while (received := client.receive(WAIT_S)) is not None:
                message = received.message
                if isinstance(message, StringMessage):
                    self._obey(message)
                elif isinstance(message, TransformMessage) and message.device == "PLANE_0" and self.scanning:
                    self._image(message.matrix)

    def _obey(self, command: StringMessage) -> None:
        if self._dialect.acknowledges:
            self.client.send(StringMessage(device="ACK_" + command.device[4:], text=command.text))
        if command.text == "EXPLODE":
            self.client.send(StatusMessage(device="Magnet", code=3, text="quench"))
            return
        self.scanning = command.text == "START_SEQUENCE" or (self.scanning and command.text != "STOP_SEQUENCE")
        if self._dialect.reports:
            self.client.send(StatusMessage(device=command.text, code=1))
        if command.text == "START_SEQUENCE":
            self._image(np.eye(4))

    def _image(self, matrix: np.ndarray) -> None:
        array = np.full((1, 4, 4), self._number, np.int16)
        self._number += 1
        self.client.send(
            ImageMessage(device="MR", array=array, axes_mm=matrix[:3, :3], centre_mm=matrix[:3, 3], coordinate="RAS")
        )


@contextmanager
def theatre(dialect: Dialect) -> Iterator[tuple[ScannerControl, Server, Scanner]]:
    with Server() as server:
        scanner = Scanner(server.port, dialect)
        assert server.wait_for_peer(WAIT_S)
        yield ScannerControl(server.send, dialect), server, scanner
    scanner.client.close()
    scanner.join(WAIT_S)
    assert not scanner.is_alive()


def until(control: ScannerControl, server: Server, wanted: ScannerState) -> Received:
    """Feed what arrives until the scanner is in a state."""
    while True:
        received = server.expect(WAIT_S)
        control.on_message(received.message)
        control.poll()
        if control.state is wanted:
            return received


@pytest.mark.parametrize("dialect", [ACKNOWLEDGED, MRIGTLBRIDGE], ids=lambda dialect: dialect.name)
def test_a_scan_follows_the_pointer(dialect: Dialect) -> None:
    with theatre(dialect) as (control, server, scanner):
        control.start_up()
        if dialect.acknowledges:
            until(control, server, ScannerState.READY)
        assert control.state is ScannerState.READY
        control.start()
        received = until(control, server, ScannerState.SCANNING)
        assert control.confirmed
        image = (
            received.message if isinstance(received.message, ImageMessage) else server.expect(WAIT_S, "IMAGE").message
        )
        assert isinstance(image, ImageMessage)
        pose = np.eye(4)
        pose[:3, 3] = (10.0, -20.0, 30.5)
        assert control.set_plane(Pose(pose, "pointer", time.monotonic(), time.time()))
        control.poll()
        picture = server.expect(WAIT_S, "IMAGE").message
        assert isinstance(picture, ImageMessage)
        np.testing.assert_allclose(picture.centre_mm, (10.0, -20.0, 30.5))
        control.stop()
        if dialect.reports:
            until(control, server, ScannerState.READY)
            assert not scanner.scanning
        else:
            assert control.poll() is ScannerState.STOPPING


def test_panic_of_the_scanner_arrives() -> None:
    with theatre(ACKNOWLEDGED) as (control, server, _):
        control.start_up()
        until(control, server, ScannerState.READY)
        control.request("EXPLODE")
        until(control, server, ScannerState.EMERGENCY)
        assert "quench" in control.history[-1].reason


def test_a_scanner_that_leaves_is_noticed_by_the_next_command() -> None:
    with theatre(ACKNOWLEDGED) as (control, server, scanner):
        control.start_up()
        until(control, server, ScannerState.READY)
        scanner.client.close()
        scanner.join(WAIT_S)
        lost = threading.Event()
        while server.peers:
            lost.wait(0.005)
        with pytest.raises(WireError, match="nobody is connected"):
            control.start()
        assert control.state is ScannerState.NO_ANSWER
