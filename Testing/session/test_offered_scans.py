"""Scans that a person chooses: the same rules as for those that are sent, and times instead of the order of arrival."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime

import numpy as np
import pytest
from IntraopMRILib.scan_facts import AGENT, FRAME, local_text, local_utc_s
from IntraopMRILib.session import Plan, Session
from IntraopMRILib.session.pair import wrong_order
from IntraopMRILib.session.receive import ArrivedScan
from IntraopMRILib.session.updates import ImageReady, Problem, Registered, ResidualFound, Role
from IntraopMRIReconstructionLib.data import Image
from IntraopMRIReconstructionLib.errors import DataError, SessionError
from IntraopMRIReconstructionLib.simulate.phantom import BrainCase
from session.conftest import PATIENT, wait_for, wait_with_all

NATIVE_S, CONTRAST_S = 1_700_000_000.0, 1_700_000_900.0


@pytest.fixture
def alone(plan: Plan) -> Iterator[Session]:
    """A session without any link."""
    with Session(plan) as running:
        running.connect(None)
        yield running


def scan(brain: BrainCase, name: str, taken_utc_s: float | None, **changes: object) -> Image:
    """One of the case's scans; ``name``: native or contrast."""
    return replace(brain.intraop[f"T1 {name}"], acquired_utc_s=taken_utc_s, **changes)  # type: ignore[arg-type]


def fatal(problem: Problem) -> bool:
    return problem.fatal


@pytest.mark.parametrize("order", [("native", "contrast"), ("contrast", "native")])
def test_two_volumes_become_a_residual_in_any_order(alone: Session, brain: BrainCase, order: tuple[Role, Role]) -> None:
    taken = {"native": NATIVE_S, "contrast": CONTRAST_S}
    alone.offer_scan(scan(brain, order[0], taken[order[0]]), order[0])
    wait_for(alone, Registered)
    if order[0] == "contrast":
        assert "no native scan" in wait_for(alone, Problem, fatal).text
    alone.offer_scan(scan(brain, order[1], taken[order[1]]), order[1])
    low, high = wait_for(alone, ResidualFound).assessment.interval_cm3
    assert low <= brain.truth.residual_ml <= high
    record = alone.journal.finish()
    assert record.residual is not None
    chosen = [event.text for event in record.events if "was chosen as the scan" in event.text]
    assert [text.partition("' ")[0] for text in chosen] == [f"'T1 {name}" for name in order]
    assert record.events[0].text == "without a scanner: scans are chosen."


def test_a_new_volume_withdraws_what_rested_on_the_old_one(alone: Session, brain: BrainCase) -> None:
    alone.offer_scan(scan(brain, "native", NATIVE_S), "native")
    alone.offer_scan(scan(brain, "contrast", CONTRAST_S), "contrast")
    wait_for(alone, ResidualFound)
    noisy = scan(brain, "contrast", CONTRAST_S + 60)
    alone.offer_scan(noisy.with_array(noisy.array + 1), "contrast")
    wait_for(alone, ImageReady)
    assert alone.journal.record.residual is None
    assert alone.journal.record.carried == ()


def test_a_time_that_is_entered_later_completes_the_pair(alone: Session, brain: BrainCase) -> None:
    alone.offer_scan(scan(brain, "native", None), "native")
    alone.offer_scan(scan(brain, "contrast", CONTRAST_S), "contrast")
    updates, problem = wait_with_all(alone, Problem, fatal)
    assert problem.stage == "assess residual"
    assert "not known when 'T1 native' was taken" in problem.text
    assert not any(isinstance(update, ResidualFound) for update in updates)
    assert alone.journal.record.residual is None
    alone.offer_scan(scan(brain, "native", NATIVE_S), "native")
    wait_for(alone, ResidualFound)


def test_exchanged_roles_give_no_number(alone: Session, brain: BrainCase) -> None:
    alone.offer_scan(scan(brain, "contrast", CONTRAST_S), "native")
    alone.offer_scan(scan(brain, "native", NATIVE_S), "contrast")
    updates, problem = wait_with_all(alone, Problem, fatal)
    assert "both are exchanged" in problem.text
    assert not any(isinstance(update, ResidualFound) for update in updates)


def test_a_patient_who_moved_between_the_volumes_is_noticed(alone: Session, brain: BrainCase) -> None:
    contrast = scan(brain, "contrast", CONTRAST_S)
    moved = contrast.ras_from_ijk.copy()
    moved[:3, 3] += (3.0, -2.0, 1.0)
    alone.offer_scan(scan(brain, "native", NATIVE_S), "native")
    alone.offer_scan(replace(contrast, ras_from_ijk=moved), "contrast")
    assert "moved 3.7 mm" in wait_for(alone, Problem, fatal).text


def sheared(image: Image) -> Image:
    matrix = image.ras_from_ijk.copy()
    matrix[0, 1] += 0.3 * image.spacing_mm[1]
    return replace(image, ras_from_ijk=matrix)


def holding(image: Image, value: float) -> Image:
    array = image.array.copy()
    array[0, 0, 0] = value
    return image.with_array(array)


@pytest.mark.parametrize(
    ("role", "change", "said"),
    [
        ("native", lambda image: replace(image, patient_id="OTHER"), "'OTHER'.*'TEST-1'"),
        ("native", lambda image: replace(image, array=image.array[:1]), "64 × 64 × 1|× 1 voxels"),
        ("native", lambda image: replace(image, array=np.stack([image.array] * 3, axis=-1)), "3 values a voxel"),
        ("native", lambda image: replace(image, array=image.array > 10), "no grey values"),
        ("native", lambda image: replace(image, array=np.zeros_like(image.array)), "is empty"),
        ("native", lambda image: holding(image, np.nan), "not numbers"),
        ("native", sheared, "right angles"),
        ("native", lambda image: replace(image, metadata={AGENT: "Gadovist"}), "names the agent 'Gadovist'"),
        ("native", lambda image: replace(image, metadata={"Modality": "CT"}), "is CT, no MR"),
        ("native", lambda image: replace(image, metadata={"geometry": "assumed axial: none"}), "may be mirrored"),
        ("native", lambda image: replace(image, acquired_utc_s=time.time() + 7200), "120 min from now"),
    ],
)
def test_what_is_no_scan_of_that_role_is_refused_and_changes_nothing(
    alone: Session, brain: BrainCase, role: Role, change: object, said: str
) -> None:
    offered = change(scan(brain, "native", NATIVE_S))  # type: ignore[operator]
    with pytest.raises(SessionError, match=said):
        alone.offer_scan(offered, role)
    assert alone.drain() == []
    assert alone.journal.record.images == ()


def test_an_agent_that_the_header_names_is_right_for_the_contrast_scan(alone: Session, brain: BrainCase) -> None:
    alone.offer_scan(scan(brain, "contrast", CONTRAST_S, metadata={AGENT: "Gadovist"}), "contrast")
    wait_for(alone, Registered)
    assert alone.journal.record.images[0].metadata[AGENT] == "Gadovist"


def test_the_preoperative_volume_and_the_same_volume_twice_are_refused(
    alone: Session, brain: BrainCase, plan: Plan
) -> None:
    moved = plan.preoperative.ras_from_ijk.copy()
    moved[:3, 3] += 5.0
    copy = Image(plan.preoperative.array.copy(), moved, "a copy", acquired_utc_s=NATIVE_S)
    with pytest.raises(SessionError, match="'a copy' is the preoperative volume itself"):
        alone.offer_scan(copy, "native")
    alone.offer_scan(scan(brain, "native", NATIVE_S), "native")
    with pytest.raises(SessionError, match="is the scan without contrast agent already"):
        alone.offer_scan(scan(brain, "native", CONTRAST_S), "contrast")
    wait_for(alone, Registered)
    with pytest.raises(SessionError, match="is the scan without contrast agent already"):
        alone.offer_scan(scan(brain, "native", CONTRAST_S), "contrast")


def test_another_frame_of_reference_is_another_position(alone: Session, brain: BrainCase) -> None:
    alone.offer_scan(scan(brain, "native", NATIVE_S, metadata={FRAME: "1.2.3"}), "native")
    with pytest.raises(SessionError, match=r"positioned anew.*'1\.2\.4'.*'1\.2\.3'"):
        alone.offer_scan(scan(brain, "contrast", CONTRAST_S, metadata={FRAME: "1.2.4"}), "contrast")
    alone.offer_scan(scan(brain, "contrast", CONTRAST_S, metadata={FRAME: "1.2.3"}), "contrast")
    wait_for(alone, ResidualFound)


def test_offers_come_after_the_session_has_begun_and_never_wait(plan: Plan, brain: BrainCase) -> None:
    session = Session(plan)
    with pytest.raises(SessionError, match="not running"):
        session.offer_scan(scan(brain, "native", NATIVE_S), "native")
    session.connect(None)
    try:
        refused = 0
        for _ in range(4):
            try:
                session.offer_scan(scan(brain, "native", NATIVE_S), "native")
            except SessionError as error:
                refused += "two scans wait" in str(error)
        assert refused >= 1
    finally:
        session.close()
    assert session.plan.patient_id == PATIENT
    with pytest.raises(SessionError, match="begin a new one"):
        session.connect(None)


def test_an_offer_that_has_to_wait_leaves_the_frame_of_reference_open(plan: Plan, brain: BrainCase) -> None:
    session = Session(plan)
    session._workers.append(threading.current_thread())
    for name in ("one", "two"):
        session._scans.put(ArrivedScan("native", name))
    waiting = scan(brain, "native", NATIVE_S, metadata={FRAME: "1.2.3"})
    with pytest.raises(SessionError, match="two scans wait"):
        session.offer_scan(waiting, "native")
    session._scans.get()
    session.offer_scan(replace(waiting, metadata={FRAME: "1.2.4"}), "native")


@pytest.mark.parametrize(
    ("native_s", "contrast_s", "in_order", "said"),
    [
        (None, None, True, ""),
        (None, None, False, "'n' and 'c'"),
        (None, 2.0, False, "'n'"),
        (1.0, None, False, "'c'"),
        (1.0, 2.0, False, ""),
        (2.0, 1.0, False, "both are exchanged"),
        (2.0, 1.0, True, "both are exchanged"),
        (1.0, 1.0, True, "was not taken before"),
        (1.0, 3600.0, True, ""),
        (1.0, 7201.0, True, "120 min before"),
        (1.0, 7201.0, False, "120 min before"),
    ],
)
def test_the_order_on_the_wire_stands_for_times_that_nobody_knows(
    native_s: float | None, contrast_s: float | None, in_order: bool, said: str
) -> None:
    native = Image(np.ones((2, 2, 2)), np.eye(4), "n", acquired_utc_s=native_s)
    contrast = Image(np.ones((2, 2, 2)), np.eye(4), "c", acquired_utc_s=contrast_s)
    found = wrong_order(native, contrast, in_order)
    assert said in found
    assert bool(found) is bool(said)


@pytest.mark.parametrize("text", ["2025-01-31 14:05", "2025-01-31T14:05:00", " 2025-01-31  14:05:00 "])
def test_a_time_is_entered_by_the_clock_of_this_computer(text: str) -> None:
    truth = datetime(2025, 1, 31, 14, 5).astimezone().timestamp()
    assert local_utc_s(text) == truth
    assert local_utc_s(local_text(truth)) == truth
    assert local_utc_s("9:30", now_s=truth) == datetime(2025, 1, 31, 9, 30).astimezone().timestamp()


@pytest.mark.parametrize("text", ["noon", "31.01.2025 14:05", "2025-02-30 10:00", "25:00", "2025-01-31"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="is no time"):
        local_utc_s(text)


def test_no_time_is_unknown() -> None:
    assert local_utc_s("  ") is None
