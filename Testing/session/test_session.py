"""The chain from raw data on the wire to assessed results, against the truth, and what it does with bad input."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import cast

import numpy as np
import pytest
from IntraopMRILib.assess.margin import resection_margin
from IntraopMRILib.register.rigid import RigidRegistration
from IntraopMRILib.session import Link, Plan, Session, role_of
from IntraopMRILib.session.pair import ScanPair, agent_notes
from IntraopMRILib.session.updates import (
    DeviceSaid,
    ImageReady,
    PlanCarried,
    Problem,
    Registered,
    ResidualFound,
    Role,
    ScanProgress,
    ShiftFound,
    StageProgress,
)
from IntraopMRIReconstructionLib.data import Image, Level, Status, Verdict
from IntraopMRIReconstructionLib.errors import SessionError, WireError
from IntraopMRIReconstructionLib.geometry import centre_of, pose_error, rotation_about
from IntraopMRIReconstructionLib.simulate.kspace import Scan
from IntraopMRIReconstructionLib.simulate.phantom import BrainCase
from IntraopMRIReconstructionLib.wire.adapters import message_from_image, message_from_status
from IntraopMRIReconstructionLib.wire.messages_array import ImageMessage
from IntraopMRIReconstructionLib.wire.transport import Server
from session.conftest import scan_of, send, wait_for, wait_with_all


def fatal(problem: Problem) -> bool:
    return problem.fatal


def test_two_scans_become_a_registered_residual(
    session: Session, scanner: Server, scans: dict[str, Scan], brain: BrainCase
) -> None:
    for name in ("T1 native", "T1 contrast"):
        send(scanner, scans[name])
    updates, found_residual = wait_with_all(session, ResidualFound)
    while session.measuring:
        time.sleep(0.01)

    assert [u.role for u in updates if isinstance(u, ImageReady)] == ["native", "contrast"]
    found = [u.registration for u in updates if isinstance(u, Registered)][-1]
    k, j, i = brain.preop.array.shape
    middle = centre_of(brain.preop.ras_from_ijk, (i, j, k))
    distance_mm, angle_deg = pose_error(found.intraop_from_preop, brain.truth.intraop_from_preop, middle)
    assert distance_mm < 0.5
    assert angle_deg < 0.5
    assessment = found_residual.assessment
    assert assessment.interval_cm3[0] <= brain.truth.residual_ml <= assessment.interval_cm3[1]
    assert [u.fraction for u in updates if isinstance(u, ScanProgress)][-1] == pytest.approx(1.0)

    record = session.journal.finish()
    assert [image.role for image in record.images] == ["native", "contrast"]
    assert record.residual is not None
    assert record.residual.volume.value == assessment.volume_cm3
    margin, truth = record.margin, brain.truth
    assert margin is not None
    assert margin.image_uid == record.images[1].uid
    moved: Callable[..., np.ndarray] = truth.intraop_from_preop_points
    true = resection_margin(brain.tumour, truth.cavity, truth.brain, moved, lambda p: np.zeros(len(p)))
    assert true.closest.value is not None
    assert margin.closest.interval is not None
    assert margin.closest.interval[0] <= true.closest.value <= margin.closest.interval[1]
    assert true.side in margin.closest.definition
    assert {timing.stage.partition(":")[0] for timing in record.timings} >= {"reconstruct", "register"}


def test_a_new_image_withdraws_the_residual_of_the_old_one_from_the_record(
    session: Session, scanner: Server, scans: dict[str, Scan]
) -> None:
    for name in ("T1 native", "T1 contrast"):
        send(scanner, scans[name])
    wait_for(session, ResidualFound)
    assert session.journal.record.residual is not None
    send(scanner, scans["T1 native"])
    wait_for(session, ImageReady)
    assert session.journal.record.residual is None
    assert session.journal.record.margin is None


def test_a_scan_of_another_patient_is_refused_and_named(session: Session, scanner: Server, brain: BrainCase) -> None:
    send(scanner, scan_of(brain.intraop["T1 native"], "SOMEONE-ELSE"), blocks=1)
    problem = wait_for(session, Problem)
    assert "SOMEONE-ELSE" in problem.text
    assert not any(isinstance(u, ImageReady) for u in session.drain())


def test_a_scan_of_something_else_shows_no_overlay(session: Session, scanner: Server, brain: BrainCase) -> None:
    noise = np.random.default_rng(5).random(brain.preop.array.shape).astype(np.float32)
    send(scanner, scan_of(replace(brain.preop, array=noise, name="T1 native")))
    updates, problem = wait_with_all(session, Problem, fatal)
    assert problem.stage == "register"
    shown = [u for u in updates if isinstance(u, Registered) and u.registration.verdict.level is not Level.REFUSED]
    assert not shown


def test_a_scan_that_stops_is_told(
    session: Session, scanner: Server, scans: dict[str, Scan], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("IntraopMRIReconstructionLib.reconstruct.live.SCAN_SILENT_S", 0.3)
    send(scanner, scans["T1 native"], blocks=3)
    problem = wait_for(session, Problem, fatal)
    assert "stopped at" in problem.text
    assert "scan again" in problem.text


def test_cancel_stops_the_stage_and_the_next_scan_works(
    session: Session, scanner: Server, scans: dict[str, Scan]
) -> None:
    send(scanner, scans["T1 native"])
    wait_for(session, StageProgress, lambda u: u.stage == "register")
    session.cancel()
    stopped = wait_for(session, Problem)
    assert "stopped" in stopped.text
    send(scanner, scans["T1 native"])
    wait_for(session, Registered)


def test_nobody_listens_on_the_port(plan: Plan) -> None:
    with Server() as server:
        port = server.port
    with Session(plan) as session, pytest.raises(WireError, match=f"127.0.0.1:{port}"):
        session.connect(Link("127.0.0.1", port))


def test_plans_without_anything_to_assess_are_refused(brain: BrainCase) -> None:
    with pytest.raises(SessionError, match="neither a tumour nor an implant"):
        Plan("A", "test", brain.preop)
    empty = Image(np.zeros(brain.tumour.array.shape, np.uint8), brain.tumour.ras_from_ijk, name="tumour")
    with pytest.raises(SessionError, match="is empty"):
        Plan("A", "test", brain.preop, empty)
    with pytest.raises(SessionError, match="'B'"):
        Plan("A", "test", replace(brain.preop, patient_id="B"), brain.tumour)


@pytest.mark.parametrize(
    ("names", "role"),
    [
        (("T1 contrast", "AX T1 MPRAGE +C", "T1+C", "T1c", "t1_ce", "T1 post", "T1post", "T1 POST-OP GD"), "contrast"),
        (("T1 MPRAGE Gadovist", "T1w KM", "T1W Kontrastmittel", "T1 no fat sat +C", "t1_tse_post_Gd"), "contrast"),
        (
            ("T1 native", "T2 posterior fossa", "T1 C2-C5", "T2 post-resection", "T1 postop", "spine post surgery"),
            "native",
        ),
        (
            ("T1 pre contrast", "T1 precontrast", "non-contrast T1", "T1 without contrast", "T1 w/o Gd", "ohne KM"),
            "native",
        ),
    ],
)
def test_the_role_of_a_scan_is_told_from_its_protocol(names: tuple[str, ...], role: str) -> None:
    """A scan without agent that is taken for one with it would be subtracted from the wrong one."""
    assert {name: role_of(name) for name in names} == dict.fromkeys(names, role)


def test_a_native_scan_that_was_never_registered_gives_no_number(
    session: Session, scanner: Server, scans: dict[str, Scan]
) -> None:
    """Nobody knows whether the patient has moved since, and the contrast scan alone cannot tell blood from tumour."""
    send(scanner, scans["T1 native"])
    wait_for(session, StageProgress, lambda u: u.stage == "register")
    session.cancel()
    wait_for(session, Problem)
    send(scanner, scans["T1 contrast"])
    updates, problem = wait_with_all(session, Problem, fatal)
    assert problem.stage == "assess residual"
    assert "no residual is given" in problem.text
    assert not any(isinstance(u, ResidualFound) for u in updates)
    assert session.journal.record.residual is None


def test_a_contrast_scan_without_a_native_one_gives_no_number(
    session: Session, scanner: Server, scans: dict[str, Scan]
) -> None:
    send(scanner, scans["T1 contrast"])
    assert "no native scan" in wait_for(session, Problem, fatal).text


def taken(brain: BrainCase, name: str, utc_s: float) -> ImageMessage:
    """A finished image with the time at which it was taken."""
    return message_from_image(replace(brain.intraop[name], acquired_utc_s=utc_s), version=2)


def test_a_native_scan_that_arrives_late_completes_the_pair(
    session: Session, scanner: Server, brain: BrainCase
) -> None:
    begun_s = time.time()
    scanner.send(taken(brain, "T1 contrast", begun_s - 300.0))
    wait_for(session, Problem, fatal)
    scanner.send(taken(brain, "T1 native", begun_s - 900.0))
    updates, found = wait_with_all(session, ResidualFound)
    low, high = found.assessment.interval_cm3
    assert low <= brain.truth.residual_ml <= high
    assert found.notes == ()
    registered = [update for update in updates if isinstance(update, Registered)]
    assert [update.image.name for update in registered] == ["T1 native", "T1 contrast"]
    shifts = [update for update in updates if isinstance(update, ShiftFound)]
    assert [update.image.name for update in shifts] == ["T1 contrast"]
    assert [update.image.name for update in updates if isinstance(update, PlanCarried)][-1] == "T1 contrast"
    # The contrast scan belongs to that native scan now: a newer one, perhaps after more was resected, is no partner.
    scanner.send(taken(brain, "T1 native", begun_s - 100.0))
    wait_for(session, Registered)
    scanner.send(taken(brain, "T1 native", begun_s - 50.0))
    updates, _ = wait_with_all(session, Registered)
    assert not any(isinstance(update, ResidualFound) for update in updates)


def test_a_native_scan_taken_after_the_contrast_agent_gives_no_number(
    session: Session, scanner: Server, scans: dict[str, Scan]
) -> None:
    send(scanner, scans["T1 contrast"])
    wait_for(session, Problem, fatal)
    send(scanner, scans["T1 native"])
    updates, problem = wait_with_all(session, Problem, fatal)
    assert "agent that is still there hides enhancement" in problem.text
    assert not any(isinstance(update, ResidualFound) for update in updates)
    assert session.journal.record.residual is None


def test_a_late_native_scan_of_a_patient_who_moved_gives_no_number(
    session: Session, scanner: Server, scans: dict[str, Scan], brain: BrainCase
) -> None:
    moved = brain.intraop["T1 native"].ras_from_ijk.copy()
    moved[:3, 3] += (3.0, -2.0, 1.0)
    send(scanner, scans["T1 contrast"])
    wait_for(session, Problem, fatal)
    send(scanner, scan_of(replace(brain.intraop["T1 native"], ras_from_ijk=moved)))
    assert re.search(r"moved 3\.[78] mm", wait_for(session, Problem, fatal).text)


def test_a_head_that_was_turned_is_noticed_where_the_tumour_lies(brain: BrainCase) -> None:
    """The middle of the head may stay where it is while the tumour moves by millimetres."""
    turned = np.eye(4)
    turned[:3, :3] = rotation_about((0.0, 0.0, 1.0), 3.0)
    middle = centre_of(brain.preop.ras_from_ijk, brain.preop.array.shape[::-1])
    turned[:3, 3] = middle - turned[:3, :3] @ middle
    pair = ScanPair(Plan("P", "resection", brain.preop, brain.tumour).operated_mm)
    for role, pose in (("native", np.eye(4)), ("contrast", turned)):
        pair.take(brain.intraop[f"T1 {role}"], cast(Role, role))
        pair.place(cast(Role, role), RigidRegistration(pose, Verdict(()), 1.0, 0.9, 0.9, 0.1, 1.0))
    with pytest.raises(SessionError, match=r"moved [2-9]\.\d mm"):
        pair.native()


def test_what_a_scanner_repeats_is_written_down_once(session: Session, scanner: Server) -> None:
    """Every second of a day it would fill the record, until nobody could read it."""
    for text in ("idle", "idle", "scanning", "scanning", "idle"):
        scanner.send(message_from_status(Status("Scanner", 1, text)))
    scanner.send(message_from_status(Status("Scanner", 13, "idle")))
    wait_for(session, DeviceSaid, lambda said: said.status.code == 13)
    told = [event.text for event in session.journal.record.events if event.kind == "status"]
    assert told == [
        f"Scanner: code {code} {text}" for code, text in ((1, "idle"), (1, "scanning"), (1, "idle"), (13, "idle"))
    ]


@pytest.mark.parametrize(("native_s", "said"), [(1000.0, False), (2200.0, True), (None, False)])
def test_contrast_agent_given_before_the_native_scan_is_said(native_s: float | None, said: bool) -> None:
    notes = agent_notes(Image(np.ones((2, 2, 2)), np.eye(4), acquired_utc_s=native_s), 1600.0)
    assert bool(notes) is said
    assert all("10 min before" in note for note in notes)


def test_a_patient_who_moves_between_the_scans_is_noticed(
    session: Session, scanner: Server, scans: dict[str, Scan], brain: BrainCase
) -> None:
    moved = brain.intraop["T1 contrast"].ras_from_ijk.copy()
    moved[:3, 3] += (3.0, -2.0, 1.0)
    send(scanner, scans["T1 native"])
    send(scanner, scan_of(replace(brain.intraop["T1 contrast"], ras_from_ijk=moved)))
    problem = wait_for(session, Problem, fatal)
    assert problem.stage == "assess residual"
    # 3.74 mm everywhere; the corner of the tumour that moved farthest carries what the registration adds.
    assert re.search(r"moved 3\.[78] mm", problem.text)


def test_a_defect_in_a_stage_is_said_and_the_next_scan_works(
    session: Session, scanner: Server, scans: dict[str, Scan], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:

        def divides_by_zero(*_: object, **__: object) -> None:
            raise ZeroDivisionError("division by zero")

        broken.setattr("IntraopMRILib.session.session.register_rigid", divides_by_zero)
        send(scanner, scans["T1 native"])
        problem = wait_for(session, Problem, fatal)
    assert problem.stage == "register"
    assert "defect" in problem.text
    assert "ZeroDivisionError" in problem.text
    send(scanner, scans["T1 native"])
    wait_for(session, Registered)


def test_a_scan_that_stops_is_told_although_the_scanner_goes_on_reporting(
    session: Session, scanner: Server, scans: dict[str, Scan], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("IntraopMRIReconstructionLib.reconstruct.live.SCAN_SILENT_S", 0.3)
    send(scanner, scans["T1 native"], blocks=3)
    stop = threading.Event()

    def report() -> None:
        while not stop.wait(0.05):
            scanner.send(message_from_status(Status("Scanner", 1, "scanning")))

    reporting = threading.Thread(target=report)
    reporting.start()
    try:
        assert "stopped at" in wait_for(session, Problem, fatal).text
    finally:
        stop.set()
        reporting.join()
