"""A second contrast scan of one look: how the enhancement of each piece changed stands beside it, and nowhere else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from IntraopMRILib.report.dicom.measurements import groups_of
from IntraopMRILib.report.html import render
from IntraopMRILib.scan_facts import AGENT
from IntraopMRILib.session import Session
from IntraopMRILib.session.resection import LATE
from IntraopMRILib.session.updates import ResidualFound, Role
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


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Growing:
    made = Growing()
    made.stand_in(monkeypatch)
    return made


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
    assert course.text.endswith("after 5 min: climbs")
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
