"""Links that come and go, scans, poses, offers and stops in random order, with every thread running: all of it is told,
in order, and after the end nothing is left that runs or waits."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from IntraopMRILib.session import Link, Session
from IntraopMRILib.session.updates import ImageReady, PlanCarried, Registered, ResidualFound, ShiftFound, Update
from IntraopMRILib.workflow.record import read_record, write_record
from IntraopMRIReconstructionLib.data import Level, Pose
from IntraopMRIReconstructionLib.errors import SessionError, WireError
from IntraopMRIReconstructionLib.simulate.kspace import simulate_scan
from IntraopMRIReconstructionLib.wire.adapters import message_from_image, message_from_pose
from IntraopMRIReconstructionLib.wire.codec import Message
from IntraopMRIReconstructionLib.wire.raw_data import message_from_acquisition, messages_from_encoding
from IntraopMRIReconstructionLib.wire.transport import Server
from session.small_world import PATIENT, SmallWorld, Truth

#: Scans on the wire in one sequence, at most: each of them must come out or be said to be lost.
EVENTS = 14


class Theatre:
    """A scanner and a tracker on loopback, and a person. ``told``: all updates so far."""

    def __init__(self, seed: int, patch: pytest.MonkeyPatch) -> None:
        self.random = random.Random(seed)
        self.world = SmallWorld(during=lambda _stage: time.sleep(self.random.choice([0.0, 0.0, 0.02])))
        self.world.stand_in(patch)
        self.servers = [Server().__enter__(), Server().__enter__()]
        self.session = Session(self.world.brain())
        self.told: list[Update] = []
        self.sent: list[str] = []
        self.taken_s = time.time() - 3600.0

    def run(self) -> None:
        """Any sequence of events, and the end at any time."""
        self.session.connect(*(Link("127.0.0.1", server.port) for server in self.servers))
        events: list[Callable[[], None]] = [
            self.image, self.image, self.image, self.pair, self.broken_off, self.poses, self.offer, self.session.cancel,
            self.link_lost, self.look, self.decide,
        ]  # fmt: skip
        for _ in range(EVENTS):
            self.random.choice(events)()
        if self.random.random() < 0.7:
            self.settle()
        self.session.close()
        self.look()
        for server in self.servers:
            server.close()

    def image(self) -> None:
        role = self.random.choice(["native", "contrast"])
        truth = Truth(whole=self.random.choice([Level.GOOD, Level.GOOD, Level.REFUSED]))
        self.taken_s += 60.0
        image = self.world.scan(role, truth, self.taken_s)  # type: ignore[arg-type]
        self._send(0, message_from_image(image, image.name, version=2))

    def pair(self) -> None:
        for _ in range(2):
            self.image()

    def broken_off(self) -> None:
        """Raw data whose scan never ends."""
        image = self.world.scan("native", Truth(), None)
        raw = simulate_scan(image, image.name, coils=2, protocol=image.name)
        for message in messages_from_encoding(raw.encoding):
            self._send(0, message)
        for _number, block in zip(range(2), raw.blocks(), strict=False):
            self._send(0, message_from_acquisition(block))

    def poses(self) -> None:
        for _ in range(3):
            self._send(1, message_from_pose(Pose(np.eye(4), "Pointer", time.monotonic(), time.time())))
        self.session.pose()

    def offer(self) -> None:
        image = self.world.scan(self.random.choice(["native", "contrast"]), Truth(), None)
        try:
            self.session.offer_scan(image, "native")
        except SessionError:
            return

    def link_lost(self) -> None:
        """The scanner or the tracker restarts at the same place."""
        which = self.random.randrange(2)
        port = self.servers[which].port
        self.servers[which].close()
        self.servers[which] = Server(port).__enter__()
        if self.random.random() < 0.5:
            self.servers[which].wait_for_peer(5.0)

    def look(self) -> None:
        self.told += self.session.drain()

    def decide(self) -> None:
        """About the newest that was told, which may be withdrawn already."""
        carried = [update for update in self.told if isinstance(update, PlanCarried)]
        for item in carried[-1].items if carried else ():
            try:
                self.session.decide(item, item.offered, "Dr. Example")
            except SessionError:
                return

    def settle(self) -> None:
        """Until nothing more comes."""
        quiet = 0
        while quiet < 5:
            before = len(self.told)
            self.look()
            busy = self.session._working.is_set() or not self.session._scans.empty() or len(self.told) > before
            quiet = 0 if busy else quiet + 1
            time.sleep(0.02)

    def _send(self, which: int, message: Message) -> None:
        try:
            self.servers[which].send(message)
        except WireError:
            return


@pytest.mark.parametrize("seed", range(8))
def test_everything_is_told_in_order_and_nothing_is_left(
    seed: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    before = set(threading.enumerate())
    theatre = Theatre(seed, monkeypatch)
    theatre.run()
    newest: dict[str, str] = {}
    for update in theatre.told:
        if isinstance(update, ImageReady):
            newest[update.role] = update.image.uid
        elif isinstance(update, Registered | ShiftFound | PlanCarried):
            assert update.image.uid in newest.values(), "a result of a scan that was replaced, or not told yet"
        elif isinstance(update, ResidualFound):
            assert set(newest.values()) <= set(update.assessment.measurements[0].based_on)
    told = [update.image.uid for update in theatre.told if isinstance(update, ImageReady)]
    record = theatre.session.journal.record
    assert [entry.uid for entry in record.images] == told, "no scan is told twice, lost or out of order"
    write_record(record, tmp_path / "session.json")
    assert read_record(tmp_path / "session.json") == record
    assert record.patient_id == PATIENT
    left = set(threading.enumerate()) - before
    assert not left, "all were waited for"
