"""Pieces of a residual in a session: what lies near to each, and what a person judges of it for this scan."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from IntraopMRILib.cli.measure import _picture
from IntraopMRILib.register.deformable import DeformableRegistration
from IntraopMRILib.register.rigid import RigidRegistration
from IntraopMRILib.session import Plan, Session
from IntraopMRILib.session.dicom import PIECE, Gathered
from IntraopMRILib.session.resection import shift_found
from IntraopMRILib.session.updates import ImageReady, PlanCarried, ResidualFound
from IntraopMRILib.workflow.record import from_json, to_json
from IntraopMRIReconstructionLib.data import Image, Level, Reason, Verdict
from IntraopMRIReconstructionLib.errors import SessionError
from IntraopMRIReconstructionLib.geometry import apply
from peers.pieces_case import assessed

GOOD = Verdict((Reason("truth", 0.0, "mm", "0", Level.GOOD),))
SIZE, MOVED = 48, np.array([0.0, 6.0, 0.0])
#: RAS mm: the larger piece is on the left, the structure at risk 20 mm to the right of the other one.
LARGE, SECOND, RISK = (np.array([-16.0, 0.0, 0.0]), 7.0), (np.array([6.0, 0.0, 4.0]), 5.0), np.array([30.0, 0.0, 4.0])


def scan() -> Image:
    matrix = np.diag([2.0, 2.0, 2.0, 1.0])
    matrix[:3, 3] = -(SIZE - 1.0)
    return Image(np.ones((SIZE,) * 3, np.float32), matrix, "T1")


def ball(image: Image, at: np.ndarray, radius: float) -> np.ndarray:
    places = apply(image.ras_from_ijk, np.moveaxis(np.indices(image.array.shape)[::-1], 0, -1).astype(float))
    return np.asarray(np.linalg.norm(places - at, axis=-1) < radius)


@pytest.fixture
def session() -> Session:
    before = scan()
    tumour, tract = (before.with_array(ball(before, at, r).astype(np.uint8)) for at, r in ((LARGE[0], 9), (RISK, 6)))
    return Session(Plan("P", "test", before, tumour, at_risk={"Tract": tract}))


def found(session: Session, shifted: bool = True) -> tuple[Image, PlanCarried]:
    """A contrast scan with two pieces; the brain has moved by MOVED when ``shifted``."""
    image = scan()
    session.journal.image(image, "contrast")
    rigid = RigidRegistration(np.eye(4), GOOD, 1.0, 0.5, 0.9, 0.1, 1.0, image.uid, "preop")
    session._registered(rigid, image)
    if shifted:
        push = Image(np.broadcast_to(MOVED, (SIZE,) * 3 + (3,)).astype(np.float32), image.ras_from_ijk)
        cavity, brain = (image.with_array(ball(image, LARGE[0], r).astype(np.uint8)) for r in (8, 90))
        doubt = image.with_array(np.full((SIZE,) * 3, 1.5, np.float32))
        back = push.with_array(-push.array)
        followed = DeformableRegistration(
            np.eye(4), back, push, cavity, brain, doubt, GOOD, False, 1.0, image.uid, "preop"
        )
        assert session.plan.tumour is not None
        session._shifted(shift_found(rigid, followed, image, session.plan.tumour))
    tumour = ball(image, LARGE[0], 9) | ball(image, SECOND[0], 7)
    session._decisions.residual(ResidualFound(assessed(image, [ball(image, *LARGE), ball(image, *SECOND)], tumour)))
    return image, [update for update in session.drain() if isinstance(update, PlanCarried)][-1]


def newest(session: Session) -> ResidualFound:
    return [update for update in session.drain() if isinstance(update, ResidualFound)][-1]


def test_the_record_lists_the_pieces(session: Session) -> None:
    found(session)
    record = session.journal.record
    assert record.residual is not None
    first, second = record.residual.pieces
    assert (first.number, second.number) == (1, 2)
    assert np.linalg.norm(np.array(first.at_ras_mm) - LARGE[0]) < 2.0
    assert first.place == "left part of where the tumour was"
    assert (first.volume.value or 0) + (second.volume.value or 0) == pytest.approx(record.residual.volume.value)
    assert from_json(to_json(record)) == record


def test_the_nearest_structure_is_where_a_person_has_decided(session: Session) -> None:
    """Undecided there is no number; rejected it is where the rigid pose puts it; accepted where its tissue is now."""
    _, carried = found(session)
    item = next(item for item in carried.items if item.kind == "risk")

    def near() -> list[float | None]:
        assert session.journal.record.residual is not None
        return [piece.near.value for piece in session.journal.record.residual.pieces if piece.near is not None]

    assert near() == [None, None]
    rejected = session.decide(item, False, "Dr. X")
    rigid = [np.linalg.norm(RISK - at) - radius - 6.0 for at, radius in (LARGE, SECOND)]
    assert near() == pytest.approx(rigid, abs=1.0)
    session.decide(rejected, True, "Dr. X")
    moved = [np.linalg.norm(RISK + MOVED - at) - radius - 6.0 for at, radius in (LARGE, SECOND)]
    assert near() == pytest.approx(moved, abs=1.0)
    told = newest(session).near[2]
    assert told.name == "Piece 2 to Tract"
    assert told.interval is not None
    assert told.interval[0] < moved[1] < told.interval[1]
    assert "accepted by Dr. X" in told.definition


def test_without_a_brain_shift_the_rigid_pose_is_what_there_is(session: Session) -> None:
    found(session, shifted=False)
    near = newest_near(session)
    assert near == pytest.approx(np.linalg.norm(RISK - SECOND[0]) - SECOND[1] - 6.0, abs=1.0)


def newest_near(session: Session) -> float | None:
    assert session.journal.record.residual is not None
    entry = session.journal.record.residual.pieces[1].near
    assert entry is not None
    return entry.value


def test_a_piece_that_is_no_tumour_is_excluded_for_this_scan_only(session: Session) -> None:
    found(session)
    before = newest_volume(session)
    session.judge_piece(2, False, "Dr. X")
    record = session.journal.record
    assert record.residual is not None
    out = record.residual.pieces[1]
    assert (out.excluded_by, bool(out.excluded_utc)) == ("Dr. X", True)
    assert record.residual.volume.value == pytest.approx(before - (out.volume.value or 0.0))
    assert "excluding 1 piece" in record.residual.volume.definition
    assert any("judged not tumour by Dr. X, for this scan" in note for note in record.residual.notes)
    assert record.events[-1].kind == "piece"
    told = newest(session)
    assert set(told.judged) == {2}
    assert int(told.assessment.residual.array.sum()) < int((ball(scan(), *LARGE) | ball(scan(), *SECOND)).sum())
    session.judge_piece(2, True, "Dr. X")
    assert newest_volume(session) == pytest.approx(before)
    session.judge_piece(1, False, "Dr. X")
    found(session)
    assert newest_volume(session) == pytest.approx(before)


def newest_volume(session: Session) -> float:
    assert session.journal.record.residual is not None
    assert session.journal.record.residual.volume.value is not None
    return session.journal.record.residual.volume.value


def test_nothing_left_by_exclusion_alone_is_said_to_be_that(session: Session) -> None:
    found(session)
    for number in (1, 2):
        session.judge_piece(number, False, "Dr. X")
    residual = session.journal.record.residual
    assert residual is not None
    assert residual.volume.value == 0.0
    assert residual.extent_of_resection.value == 100.0
    assert "by that exclusion alone" in residual.extent_of_resection.definition
    assert residual.notes[-1] == "That nothing is left rests on this exclusion alone: the scan shows enhancement."


def test_what_cannot_be_judged_is_refused(session: Session) -> None:
    with pytest.raises(SessionError, match="no residual to judge"):
        session.judge_piece(1, False, "Dr. X")
    found(session)
    with pytest.raises(SessionError, match="there is no piece 7"):
        session.judge_piece(7, False, "Dr. X")
    with pytest.raises(SessionError, match="name who judges"):
        session.judge_piece(1, False, " ")
    session._decisions.forget()
    with pytest.raises(SessionError, match="a newer image"):
        session.judge_piece(1, False, "Dr. X")


def test_each_piece_has_a_picture_that_a_later_report_finds_again(session: Session, tmp_path: Path) -> None:
    image, _ = found(session)
    gathered = Gathered()
    gathered.take(ImageReady(image, "contrast", None, None))
    assert gathered.pictures() == []
    session.judge_piece(2, False, "Dr. X")
    gathered.take(newest(session))
    first, second = gathered.pictures()
    assert (first.piece, second.piece) == (1, 2)
    assert "not counted" in second.caption
    for name, number in ((f"{PIECE}2", 2), ("overview", 0), (f"{PIECE}wise", 0)):
        path = tmp_path / f"{name}.png"
        path.write_bytes(b"PNG")
        assert _picture(path).piece == number


def test_a_structure_outside_of_the_scan_does_not_cost_the_residual(session: Session) -> None:
    """Its label is empty there: no distance can be measured, and the residual is told all the same."""
    image, carried = found(session)
    rigid, now = carried.labels["Tract"]
    empty = rigid.with_array(np.zeros_like(rigid.array))
    session._decisions.carried(replace(carried, labels={"Tract": (empty, now)}))
    tumour = ball(image, LARGE[0], 9)
    session._decisions.residual(ResidualFound(assessed(image, [ball(image, *LARGE)], tumour)))
    assert session.journal.record.residual is not None
    assert [piece.near for piece in session.journal.record.residual.pieces] == [None]


def test_a_piece_in_a_structure_at_risk_touches_it(session: Session) -> None:
    """Also one that lies inside of it as a whole."""
    image = scan()
    session.journal.image(image, "contrast")
    rigid = RigidRegistration(np.eye(4), GOOD, 1.0, 0.5, 0.9, 0.1, 1.0, image.uid, "preop")
    session._registered(rigid, image)
    tumour, inside = ball(image, LARGE[0], 9), ball(image, RISK, 4.0)
    made = assessed(image, [ball(image, *LARGE), inside], tumour | inside)
    session._decisions.residual(ResidualFound(made))
    assert newest_near(session) == 0.0
