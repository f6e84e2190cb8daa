"""A simulated patient and a scanner in this process, for tests of the whole chain."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TypeVar

import pytest
from IntraopMRILib.session import Link, Plan, Session
from IntraopMRILib.session.updates import Problem, Update
from IntraopMRIReconstructionLib.data import Image
from IntraopMRIReconstructionLib.simulate.kspace import Scan, simulate_scan
from IntraopMRIReconstructionLib.simulate.phantom import BrainCase, make_brain_case
from IntraopMRIReconstructionLib.wire.raw_data import message_from_acquisition, messages_from_encoding
from IntraopMRIReconstructionLib.wire.transport import Server

PATIENT = "TEST-1"


@pytest.fixture(scope="session")
def brain() -> BrainCase:
    """2 mm voxels: enough for the chain, quick enough for a test."""
    return make_brain_case(11, spacing_mm=2.0)


@pytest.fixture
def plan(brain: BrainCase) -> Plan:
    return Plan(PATIENT, "test", replace(brain.preop, patient_id=PATIENT), brain.tumour)


@pytest.fixture(scope="session")
def scans(brain: BrainCase) -> dict[str, Scan]:
    """Raw data of both scans, four coils."""
    return {name: scan_of(brain.intraop[name]) for name in brain.intraop}


def scan_of(image: Image, patient_id: str = PATIENT) -> Scan:
    """Raw data of an image, fully sampled."""
    labelled = replace(image, patient_id=patient_id)
    return simulate_scan(labelled, image.name, coils=4, protocol=image.name)


@pytest.fixture
def scanner() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture
def session(plan: Plan, scanner: Server) -> Iterator[Session]:
    with Session(plan) as running:
        running.connect(Link("127.0.0.1", scanner.port))
        assert scanner.wait_for_peer(10.0)
        yield running


def send(scanner: Server, scan: Scan, blocks: int | None = None) -> None:
    """Send a scan, or only its first blocks."""
    for message in messages_from_encoding(scan.encoding):
        scanner.send(message)
    for number, acquisition in enumerate(scan.blocks()):
        if blocks is not None and number >= blocks:
            return
        scanner.send(message_from_acquisition(acquisition))


Wanted = TypeVar("Wanted")


def wait_for(session: Session, kind: type[Wanted], where: Callable[[Wanted], bool] = lambda _: True) -> Wanted:
    """The first update of a kind. Fails with the problems that came instead, at once when one is fatal."""
    return wait_with_all(session, kind, where)[1]


def wait_with_all(
    session: Session, kind: type[Wanted], where: Callable[[Wanted], bool] = lambda _: True, timeout_s: float = 120.0
) -> tuple[list[Update], Wanted]:
    """As :func:`wait_for`, with all updates that came on the way."""
    seen: list[Update] = []
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        for update in session.drain():
            seen.append(update)
            if isinstance(update, kind) and where(update):
                return seen, update
            if isinstance(update, Problem) and update.fatal:
                pytest.fail(f"{update.stage}: {update.text}")
        time.sleep(0.01)
    pytest.fail(f"no {kind.__name__} in {timeout_s:g} s, but {seen}")
