"""A second contrast scan of one look: how the enhancement of each piece changed stands beside it, and nowhere else."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from IntraopMRILib.report.dicom.measurements import groups_of
from IntraopMRILib.report.html import render
from IntraopMRILib.scan_facts import AGENT
from IntraopMRILib.session import Session
from IntraopMRILib.session.resection import LATE, TO_COME, with_courses
from IntraopMRILib.session.updates import Problem, ResidualFound, Role, StageProgress, Update
from IntraopMRILib.workflow.record import PieceEntry, as_document, from_json, to_json
from IntraopMRIReconstructionLib.data import Image, Level
from session.small_world import BEGUN_S, SmallWorld, Truth
from session.test_earlier_looks import worked


class Growing(SmallWorld):
    """More of the tumour is left, and climbs."""

    def scan(self, role: Role, truth: Truth, taken_utc_s: float | None, patient_id: str = "TEST-1") -> Image:
        """Brighter by half of its enhancement five minutes after the first contrast scan."""
        image = super().scan(role, truth, taken_utc_s, patient_id)
        late = min(1.0, max(0.0, ((taken_utc_s or 0.0) - BEGUN_S - 300.0) / 300.0))
        array = image.array.copy()
        array[9:12, 9:15, 9:15] = self.tissue[9:12, 9:15, 9:15] * (1.0 if role == "native" else 1.6 + 0.3 * late)
        return replace(image, array=array)


PATIENCE_S = 30.0


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Growing:
    made = Growing()
    made.stand_in(monkeypatch)
    return made


class Held:
    """The course of enhancement begins when it is ``let`` go; ``told``: all that the session said meanwhile."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.begun, self.let, self.told = threading.Event(), threading.Event(), list[Update]()
        patch.setattr("IntraopMRILib.session.behind.with_courses", self._later)

    def _later(self, *args: Any) -> ResidualFound:
        self.begun.set()
        assert self.let.wait(PATIENCE_S)
        return with_courses(*args)

    def until(self, session: Session, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not done():
            assert time.monotonic() < deadline
            time.sleep(0.005)
        self.told += session.drain()

    def second(self, session: Session, world: Growing) -> None:
        """Both scans, until the course of the second one is waited for."""
        look(session, world, world.scan("contrast", Truth(), BEGUN_S + 300.0))
        session.offer_scan(world.scan("contrast", Truth(), BEGUN_S + 600.0), "contrast")
        self.until(session, self.begun.is_set)

    def finish(self, session: Session) -> None:
        self.let.set()
        self.until(session, lambda: not session.working)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Held:
    return Held(monkeypatch)


def residuals(told: list[Update]) -> list[ResidualFound]:
    return [update for update in told if isinstance(update, ResidualFound)]


def look(session: Session, world: Growing, *scans: Image) -> None:
    session.connect(None)
    worked(session, world.scan("native", Truth(), BEGUN_S), "native")
    for scan in scans:
        worked(session, scan, "contrast")


def pieces(session: Session) -> tuple[PieceEntry, ...]:
    residual = session.journal.record.residual
    assert residual is not None
    return residual.pieces


def notes(session: Session) -> str:
    residual = session.journal.record.residual
    assert residual is not None
    return " ".join(residual.notes)


def test_the_second_scan_brings_the_course_into_record_report_and_dicom(world: Growing) -> None:
    with Session(world.brain()) as session:
        look(session, world, world.scan("contrast", Truth(), BEGUN_S + 300.0))
        assert [piece.course for piece in pieces(session)] == [None]
        before = render(as_document(session.journal.record))
        worked(session, world.scan("contrast", Truth(), BEGUN_S + 600.0), "contrast")
        record = session.journal.record
        course = pieces(session)[0].course
    assert course is not None
    assert course.minutes == (0.0, 5.0)
    assert course.change.value == pytest.approx(30.0, abs=6.0)
    assert course.text.startswith("enhancement climbs: ")
    assert course.text.endswith(" after 5 min")
    assert course.change.based_on[0] == record.images[-1].uid
    assert from_json(to_json(record)) == record
    page = render(as_document(record))
    assert course.text[1:] in page
    assert "24138206" in page
    assert "24138206" not in before
    group = next(group for group in groups_of(as_document(record), None) if group.title == "Piece 1")
    assert course.text in group.words
    assert "Piece 1: change of enhancement" in [m["name"] for m in group.measurements]


def test_a_third_scan_counts_from_the_first_and_a_native_scan_begins_anew(world: Growing) -> None:
    scans = [world.scan("contrast", Truth(), BEGUN_S + after) for after in (300.0, 500.0, 1000.0)]
    with Session(world.brain()) as session:
        look(session, world, *scans)
        course = pieces(session)[0].course
        assert course is not None
        assert course.minutes == pytest.approx((0.0, 10.0 / 3.0, 35.0 / 3.0))
        assert len(course.enhancement) == 3
        assert LATE in notes(session)
        worked(session, world.scan("native", Truth(), BEGUN_S + 3000.0), "native")
        worked(session, world.scan("contrast", Truth(), BEGUN_S + 3300.0), "contrast")
        assert pieces(session)[0].course is None
        assert "course" not in notes(session)


@pytest.mark.parametrize("what", ["moved", "refused", "agent", "exchanged", "time"])
def test_what_cannot_be_compared_gives_no_course_and_says_so(world: Growing, what: str) -> None:
    """The residual of the newest scan stands all the same."""
    truth = {"moved": Truth(moved_mm=2.5), "refused": Truth(whole=Level.REFUSED)}.get(what, Truth())
    first = world.scan("contrast", truth, BEGUN_S + (900.0 if what == "exchanged" else 300.0))
    second = world.scan("contrast", Truth(), BEGUN_S + 600.0)
    words = {
        "moved": "the patient moved 2.5 mm since",
        "refused": "was not registered",
        "agent": "name two agents",
        "exchanged": "was not taken after",
        "time": "was not taken after",
    }[what]
    if what == "agent":
        first = replace(first, metadata={AGENT: "Gadovist"})
        second = replace(second, metadata={AGENT: "Dotarem"})
    if what == "time":
        second = replace(second, acquired_utc_s=first.acquired_utc_s)
    with Session(world.brain()) as session:
        look(session, world, first, second)
        assert all(piece.course is None for piece in pieces(session))
        assert "No course of enhancement is given" in notes(session)
        assert words in notes(session)


def test_a_piece_that_is_judged_keeps_its_course_and_a_new_scan_takes_it_away(world: Growing) -> None:
    scans = [world.scan("contrast", Truth(), BEGUN_S + after) for after in (300.0, 600.0)]
    with Session(world.brain()) as session:
        look(session, world, *scans)
        volume = pieces(session)[0].volume.value
        session.judge_piece(1, False, "Dr. X")
        told = [update for update in session.drain() if isinstance(update, ResidualFound)][-1]
        assert told.courses[1].change.value is not None
        assert pieces(session)[0].course is not None
        assert pieces(session)[0].volume.value == volume
        # The same image, chosen again, is no second scan.
        worked(session, scans[-1], "contrast")
        course = pieces(session)[0].course
        assert course is not None
        assert course.minutes == (0.0, 5.0)
        worked(session, world.scan("contrast", Truth(whole=Level.REFUSED), BEGUN_S + 900.0), "contrast")
        assert session.journal.record.residual is None
        assert not np.any([piece for look in session.journal.record.looks for piece in look.decisions])


def test_the_residual_comes_first_and_its_course_says_that_it_is_to_come(world: Growing, held: Held) -> None:
    with Session(world.brain()) as session:
        held.second(session, world)
        (first,) = residuals(held.told)
        assert first.courses[1].change.missing_because == TO_COME
        course = pieces(session)[0].course
        assert course is not None
        assert course.text == f"no course of enhancement: {TO_COME}"
        assert session.measuring
        record = session.journal.record
        assert f"No course of enhancement: {TO_COME}" in render(as_document(record))
        assert from_json(to_json(record)) == record
        held.finish(session)
        course, last = pieces(session)[0].course, residuals(held.told)[-1]
        assert course is not None
        assert course.change.value is not None
        assert not session.measuring
        assert last.courses[1].change.value == course.change.value
        # Only the course is new.
        assert last.assessment is first.assessment
        assert last.notes == first.notes
    stages = [update.stage for update in held.told if isinstance(update, StageProgress) and update.fraction == 1.0]
    assert stages[-2:] == ["measure the margin", "follow the enhancement"]


def test_a_piece_may_be_judged_while_its_course_is_measured(world: Growing, held: Held) -> None:
    with Session(world.brain()) as session:
        held.second(session, world)
        session.judge_piece(1, False, "Dr. X")
        held.finish(session)
        (piece, *_) = pieces(session)
        assert piece.excluded_by == "Dr. X"
        assert piece.course is not None
        assert piece.course.change.value is not None
        assert list(residuals(held.told)[-1].judged) == [1]


@pytest.mark.parametrize("what", ["stopped", "defect"])
def test_a_course_that_is_not_made_is_not_waited_for(
    world: Growing, held: Held, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """The residual and the margin stand; nothing says that a number is still to come."""

    def defect(*_args: Any) -> None:
        raise ZeroDivisionError("in the course")

    with Session(world.brain()) as session:
        held.second(session, world)
        residual = session.journal.record.residual
        assert residual is not None
        if what == "stopped":
            session.cancel()
        else:
            monkeypatch.setattr("IntraopMRILib.session.resection.courses", defect)
        held.finish(session)
        record = session.journal.record
        assert record.residual is not None
        assert record.residual.volume == residual.volume
        assert record.margin is not None
        assert record.margin.closest.value is not None
        assert [piece.course for piece in pieces(session)] == [None] * len(pieces(session))
        assert "No course of enhancement is given: it could not be measured." in notes(session)
        assert not session.measuring
        assert TO_COME not in to_json(record)
        problems = [update for update in held.told if isinstance(update, Problem)]
        assert problems[-1].stage == "follow the enhancement"
        assert ("stopped" if what == "stopped" else "ZeroDivisionError") in problems[-1].text


def test_a_stop_before_the_course_is_begun_ends_it_as_well(
    world: Growing, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Session(world.brain()) as session:
        monkeypatch.setattr("IntraopMRILib.session.behind.margin_found", lambda *_args: session.cancel())
        look(session, world, world.scan("contrast", Truth(), BEGUN_S + 300.0))
        worked(session, world.scan("contrast", Truth(), BEGUN_S + 600.0), "contrast")
        assert not held.begun.is_set()
        assert "it could not be measured" in notes(session)


def test_a_course_of_a_residual_that_counts_no_longer_is_nobodys(world: Growing, held: Held) -> None:
    with Session(world.brain()) as session:
        held.second(session, world)
        before = session._decisions.found
        assert before is not None
        session.offer_scan(world.scan("contrast", Truth(whole=Level.REFUSED), BEGUN_S + 900.0), "contrast")
        held.finish(session)
        assert session.journal.record.residual is None
        session._decisions.completed(before, before)
        assert session.journal.record.residual is None
        assert not residuals(session.drain())
