"""A simulated patient and a scanner in this process, for tests of the whole chain."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from IntraopMRILib.session import Link, Plan, Session
from IntraopMRILib.session_updates import Problem, Update
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


def updates_until(session: Session, wanted: Callable[[Update], bool], timeout_s: float = 120.0) -> list[Update]:
    """All updates up to the first that is wanted. Fails with the problems that came instead."""
    seen: list[Update] = []
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        for update in session.drain():
            seen.append(update)
            if wanted(update):
                return seen
        time.sleep(0.01)
    problems = [update.text for update in seen if isinstance(update, Problem)]
    pytest.fail(f"not seen in {timeout_s:g} s; problems: {problems}")
