"""A person decides whether a planned thing follows the brain shift: it is written down, an implant judged anew."""

from __future__ import annotations

import numpy as np
import pytest
from IntraopMRILib.assess.implant import Spread, Trajectory
from IntraopMRILib.assess.implant_detection import DetectedImplant
from IntraopMRILib.register.deformable import DeformableRegistration
from IntraopMRILib.register.rigid import RigidRegistration
from IntraopMRILib.session import Plan, Session
from IntraopMRILib.session.implants import compared
from IntraopMRILib.session.measures import Found
from IntraopMRILib.session.receive import ArrivedScan
from IntraopMRILib.session.resection import shift_found
from IntraopMRILib.session.updates import ImplantFound, PlanCarried
from IntraopMRIReconstructionLib.data import Image, Level, Measurement, Reason, Verdict
from IntraopMRIReconstructionLib.errors import RegistrationError, SessionError
from IntraopMRIReconstructionLib.geometry import apply

GOOD = Verdict((Reason("truth", 0.0, "mm", "0", Level.GOOD),))
MOVED = np.array([2.0, -1.0, 3.0])
SIZE = 40


def cube(value: float = 1.0, dtype: type = np.float32) -> Image:
    matrix = np.diag([2.0, 2.0, 2.0, 1.0])
    matrix[:3, 3] = -(SIZE - 1.0)
    return Image(np.full((SIZE, SIZE, SIZE), value, dtype), matrix, "T1")


def box(low: int, high: int) -> Image:
    image = cube(0, np.uint8)
    image.array[low:high, low:high, low:high] = 1
    return image


@pytest.fixture
def session() -> Session:
    lead = Trajectory(np.array([0.0, 20.0, 20.0]), np.zeros(3), 1.5, "Lead")
    plan = Plan(
        "P", "test", cube(), box(26, 30), (lead,), {"STN": (0, 0, 0)}, {"Tract": box(10, 14)}, {"Fork": (5, 5, 5)}
    )
    return Session(plan)


def follow(session: Session) -> tuple[Image, PlanCarried]:
    """A scan whose brain has moved by MOVED as a whole."""
    image = cube()
    session.journal.image(image, "contrast")
    rigid = RigidRegistration(np.eye(4), GOOD, 1.0, 0.5, 0.9, 0.1, 1.0, image.uid, "preop")
    push = Image(np.broadcast_to(MOVED, (SIZE, SIZE, SIZE, 3)).astype(np.float32), image.ras_from_ijk)
    back = push.with_array(-push.array)
    parts = (box(26, 30), cube(1, np.uint8), cube(1.1))
    found = DeformableRegistration(np.eye(4), back, push, *parts, GOOD, False, 1.0, image.uid, "preop")
    session._registered(rigid, image)
    session._shifted(shift_found(rigid, found, image, box(26, 30)))
    return image, [update for update in session.drain() if isinstance(update, PlanCarried)][-1]


def test_everything_planned_is_offered_with_its_numbers(session: Session) -> None:
    _, carried = follow(session)
    assert [item.key for item in carried.items] == ["target.STN", "plan.Lead", "risk.Tract", "landmark.Fork"]
    for item in carried.items:
        assert item.mean_shift_mm == pytest.approx(np.linalg.norm(MOVED), abs=1e-4)
        assert item.uncertainty_mm == pytest.approx(1.1, abs=1e-4)
        assert item.verdict.level is Level.GOOD
    rigid, now = carried.labels["Tract"]
    assert now is not None
    centres = [
        apply(label.ras_from_ijk, np.argwhere(label.array)[:, ::-1].astype(float)).mean(0) for label in (rigid, now)
    ]
    np.testing.assert_allclose(centres[1] - centres[0], MOVED, atol=0.3)
    names = [measurement.name for measurement in session.journal.record.measurements]
    assert names == ["Brain shift at the tumour", "Resection cavity"]


def test_the_cavity_has_a_volume_with_its_interval(session: Session) -> None:
    follow(session)
    cavity = session.journal.record.measurements[1]
    assert cavity.value == pytest.approx(4**3 * 8 / 1000)
    assert cavity.interval == pytest.approx((2**3 * 8 / 1000, (4**3 + 6 * 4**2) * 8 / 1000))
    assert "Dark now and tissue" in cavity.definition


def lead_of(session: Session, image: Image) -> ImplantFound:
    """The lead where the brain shift has brought its plan, compared with where the rigid pose puts that."""
    planned = session.plan.trajectories[0]
    placed = Trajectory(planned.entry_ras_mm + MOVED, planned.tip_ras_mm + MOVED, 1.5, "Lead")
    detected = DetectedImplant(placed, Spread(0.3), None, GOOD, image, 1.5)
    return compared(planned, detected, (image.uid,), "rigid pose", 0.5)


def test_an_implant_is_judged_against_the_accepted_plan(session: Session) -> None:
    image, carried = follow(session)
    item = next(item for item in carried.items if item.kind == "plan")
    session._decisions.implant(lead_of(session, image))

    def deviation() -> float:
        found = [update for update in session.drain() if isinstance(update, ImplantFound)][-1]
        value = next(m.value for m in found.measurements if m.name.endswith("tip deviation"))
        assert value is not None
        return value

    assert deviation() == pytest.approx(np.linalg.norm(MOVED), abs=1e-6)
    accepted = session.decide(item, True, "Dr. X")
    assert deviation() == pytest.approx(0.0, abs=1e-4)
    (entry,) = session.journal.record.implants
    assert entry.planned_basis.startswith("carried over, accepted by Dr. X at")
    session.decide(accepted, False, "Dr. X")
    assert deviation() == pytest.approx(np.linalg.norm(MOVED), abs=1e-6)
    assert [e.kind for e in session.journal.record.events].count("carried over") == 2


def test_a_plan_that_is_accepted_before_its_implant_is_found_counts_as_well(session: Session) -> None:
    image, carried = follow(session)
    session.decide(next(item for item in carried.items if item.kind == "plan"), True, "Dr. X")
    session._decisions.implant(lead_of(session, image))
    (entry,) = session.journal.record.implants
    assert entry.planned_basis.startswith("carried over, accepted by Dr. X at")
    assert entry.measurements[1].value == pytest.approx(0.0, abs=1e-4)
    session._image(ArrivedScan("contrast", "next", image=cube()))
    follow(session)
    session._decisions.implant(lead_of(session, image))
    assert session.journal.record.implants[0].planned_basis == "rigid pose", "the decision was about another scan"


def test_a_decision_about_a_scan_that_looks_like_the_newest_is_none_about_that(session: Session) -> None:
    _, before = follow(session)
    _, now = follow(session)
    with pytest.raises(SessionError, match="newer image has withdrawn"):
        session.decide(before.items[0], True, "Dr. X")
    assert session.journal.record.carried[0].decision == "open"
    session.decide(now.items[0], True, "Dr. X")
    assert session.journal.record.carried[0].decision == "accepted"


def test_what_was_drawn_on_a_native_scan_goes_when_it_completes_an_older_pair(session: Session) -> None:
    contrast, native = cube(), cube()
    for image, role in ((contrast, "contrast"), (native, "native")):
        session.journal.image(image, role)
    rigid = RigidRegistration(np.eye(4), GOOD, 1.0, 0.5, 0.9, 0.1, 1.0)
    session.journal.registration(rigid, native, session.plan.preoperative)
    session.journal.drawn(Found("cobb", "Cobb angle", ()), native.uid, "Dr. X")
    session.journal.registration(rigid, native, session.plan.preoperative)
    assert session.journal.record.drawn
    session.journal.registration(rigid, contrast, session.plan.preoperative)
    assert session.journal.record.drawn == ()


def test_a_report_is_of_the_scan_that_was_decided_on(session: Session) -> None:
    image, _ = follow(session)
    assert session.journal.decided(image.uid, "enough").events[-1].text == "enough"
    follow(session)
    with pytest.raises(SessionError, match="newer scan has arrived"):
        session.journal.decided(image.uid, "enough")
    assert [event.kind for event in session.journal.record.events].count("decision") == 1


def test_a_number_that_comes_after_a_newer_scan_is_not_written_down(session: Session) -> None:
    image, _ = follow(session)
    late = Measurement("Cross-check", 2.0, "mm", "made in the background", based_on=(image.uid, "preop"))
    session.journal.measurement(late)
    assert late in session.journal.record.measurements
    follow(session)
    session.journal.measurement(late)
    assert late not in session.journal.record.measurements


def test_a_new_scan_voids_decisions_and_measurements(session: Session) -> None:
    _, carried = follow(session)
    session.decide(carried.items[0], True, "Dr. X")
    session.journal.image(cube(), "native")
    assert session.journal.record.carried == ()
    assert session.journal.record.measurements == ()
    assert any(event.kind == "carried over" for event in session.journal.record.events), "what was done stays written"
    with pytest.raises(SessionError, match="newer image"):
        session.decide(carried.items[0], True, "Dr. X")


def test_nobody_and_what_is_not_offered_decide_nothing(session: Session) -> None:
    _, carried = follow(session)
    with pytest.raises(RegistrationError, match="name of the person"):
        session.decide(carried.items[0], True, "")
    rigid = RigidRegistration(np.eye(4), GOOD, 1.0, 0.5, 0.9, 0.1, 1.0, "image", "preop")
    session._registered(rigid, cube())
    unknown = [update for update in session.drain() if isinstance(update, PlanCarried)][-1].items[0]
    with pytest.raises(RegistrationError, match="cannot be carried over"):
        session.decide(unknown, True, "Dr. X")
    assert session.journal.record.carried[0].decision == "open"


def test_an_empty_structure_is_refused() -> None:
    with pytest.raises(SessionError, match="'Tract' is empty"):
        Plan("P", "test", cube(), box(26, 30), at_risk={"Tract": cube(0, np.uint8)})
