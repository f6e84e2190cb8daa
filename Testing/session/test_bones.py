"""Vertebrae that a person decides on one by one: only what rests on accepted ones is in the record and the report."""

from __future__ import annotations

import json

import numpy as np
import pytest
from IntraopMRILib.assess.implant import Spread, Trajectory, band, compare
from IntraopMRILib.assess.implant_detection import DetectedImplant
from IntraopMRILib.register.rigid import RigidRegistration
from IntraopMRILib.register.vertebrae import VertebraRegistration
from IntraopMRILib.report.html import render
from IntraopMRILib.session import Plan, Session
from IntraopMRILib.session.bones import Bone, bones_of
from IntraopMRILib.session.receive import ArrivedScan
from IntraopMRILib.session.updates import ImplantFound
from IntraopMRILib.workflow.record import SessionRecord, as_document, from_json, to_json
from IntraopMRIReconstructionLib.data import Image, Level, Reason, Verdict
from IntraopMRIReconstructionLib.errors import RegistrationError, SessionError
from IntraopMRIReconstructionLib.geometry import apply, rotation_about

REFUSED = Verdict((Reason("overlap", 0.1, "", "above 0.6", Level.REFUSED),))
NAMES = ("L1", "L2", "L3", "L4")
SCREW = "Screw L2"
TURN_DEG = 12.0


def pose(number: int) -> np.ndarray:
    result = np.eye(4)
    result[:3, :3] = rotation_about((1, 0, 0), TURN_DEG * number)
    return result


def vertebra(number: int, level: Level) -> VertebraRegistration:
    reasons = [Reason("correlation of the bone", 0.9, "", "above 0.6", level)]
    for other in (number - 1, number + 1):
        if 0 <= other < len(NAMES):
            reasons.append(Reason(f"turn against {NAMES[other]}", TURN_DEG, "deg", "below 15 deg", Level.GOOD))
            reasons.append(Reason(f"shift against {NAMES[other]}", 1.0, "mm", "below 8 mm", Level.GOOD))
    return VertebraRegistration(NAMES[number], pose(number), 0.9, 0.3, Verdict(tuple(reasons)))


class Bent:
    """A session in which the pose of the whole was refused, as its worker would leave it: L4 was not found."""

    def __init__(self) -> None:
        grid = np.eye(4)
        picture = np.random.default_rng(0).random((8, 20, 20)).astype(np.float32)
        label = np.zeros((8, 20, 20), np.uint8)
        label[2:5, 4:9, 6:12] = 1
        screw = Trajectory(np.array([8.0, 4, 3]), np.array([8.0, 14, 3]), 3.0, SCREW)
        loose = Trajectory(np.array([1.0, 1, 1]), np.array([1.0, 9, 1]), 3.0, "Loose")
        self.plan = Plan(
            "P-1", "test", Image(picture, grid, "before"), trajectories=(screw, loose),
            vertebrae={name: Image(label, grid, name) for name in NAMES}, implanted={SCREW: "L2"},
        )  # fmt: skip
        self.image = Image(picture, grid, "spine", uid="now")
        self.session = Session(self.plan)
        found = tuple(vertebra(n, Level.REFUSED if name == "L4" else Level.CHECK) for n, name in enumerate(NAMES))
        self.bones = {bone.name: bone for bone in bones_of(self.plan, found)}
        planned = screw.moved(pose(1))
        measured = compare(planned, planned, 0.3, based_on=("now",))
        detected = DetectedImplant(planned, Spread(0.2), None, REFUSED, self.image, 3.2)
        self.implant = ImplantFound(planned, detected, measured, band(measured), "pose of L2 on its own")
        journal = self.session.journal
        journal.image(self.image, "native")
        journal.registration(
            RigidRegistration(np.eye(4), REFUSED, 1.0, 0.5, 0.9, 0.1, 1.0, "now", "before"),
            self.image,
            self.plan.preoperative,
        )
        journal.parts(found)
        self.session._decisions.offer(self.bones.values())
        self.session._decisions.implant(self.implant)

    @property
    def record(self) -> SessionRecord:
        return self.session.journal.record

    def decide(self, name: str, accepted: bool) -> Bone:
        return self.session.decide_bone(self.bones[name], accepted, "Dr. Example")

    def values(self) -> dict[str, float | None]:
        return {m.name: m.value for m in self.record.measurements}

    def report(self) -> str:
        return render(json.loads(to_json(self.record)))


@pytest.fixture
def bent() -> Bent:
    return Bent()


def test_a_vertebra_says_where_it_is_and_how_it_stands_to_its_neighbours(bent: Bent) -> None:
    bone = bent.bones["L2"]
    assert bone.carries == (SCREW,)
    np.testing.assert_allclose(bone.position_mm, apply(pose(1), np.array([[8.5, 6.0, 3.0]])), atol=1e-9)
    assert [(name, turn.value, shift.value) for name, turn, shift in bone.neighbours] == [
        ("L1", TURN_DEG, 1.0), ("L3", TURN_DEG, 1.0),
    ]  # fmt: skip
    assert not bent.bones["L4"].offered
    assert not bent.bones["L4"].undecided


def test_only_what_rests_on_accepted_vertebrae_is_in_the_record(bent: Bent) -> None:
    bent.decide("L1", True)
    assert not bent.record.implants, "L2 carries the screw and nobody has accepted it"
    assert set(bent.values().values()) == {None}
    missing = {m.name: m.missing_because for m in bent.record.measurements}
    assert missing[f"{SCREW}: deviation from its plan"] == "L2: nobody has accepted it"
    assert "lies in no vertebra" in missing["Loose: deviation from its plan"]
    assert missing["Change of alignment"] == "it needs two accepted vertebrae; accepted: L1"
    bent.decide("L2", True)
    assert [implant.name for implant in bent.record.implants] == [SCREW]
    assert bent.values()["L1 to L2: change of lordosis, sagittal"] == pytest.approx(-TURN_DEG)
    bent.decide("L3", True)
    assert bent.values()["L1 to L3: change of lordosis, sagittal"] == pytest.approx(-2 * TURN_DEG)
    assert not any(name.startswith("L1 to L2") for name in bent.values())
    bent.decide("L2", False)
    assert not bent.record.implants
    assert (
        "rejected by Dr. Example"
        in {m.name: m for m in bent.record.measurements}[f"{SCREW}: deviation from its plan"].missing_because
    )


def test_the_report_says_who_accepted_what_and_never_registered(bent: Bent) -> None:
    bent.decide("L1", True)
    bent.decide("L2", True)
    bent.decide("L3", False)
    text = bent.report()
    assert "accepted each on its own: L1, L2<" in text
    assert '<span class="level refused">Refused</span>' in text
    assert "rejected by Dr. Example at" in text
    assert "not offered" in text
    assert "Planned position: pose of L2 on its own" in text
    assert from_json(to_json(bent.record)) == bent.record


def test_when_all_are_rejected_the_report_holds_no_number(bent: Bent) -> None:
    for name in ("L1", "L2", "L3"):
        bent.decide(name, False)
    assert not bent.record.implants
    assert set(bent.values().values()) == {None}
    text = bent.report()
    assert "each on its own: L" not in text
    assert text.partition("<h2>Registration")[2].count("rejected by Dr. Example at") == 3
    assert f'<h3>{SCREW}</h3><p class="none">No value: L2: rejected by Dr. Example at' in text


def test_what_is_left_undecided_carries_nothing(bent: Bent) -> None:
    bent.decide("L1", True)
    bent.session.leave_bones("Dr. Example")
    assert bent.record.events[-1].text == "left undecided by Dr. Example, nothing rests on them: L2, L3"
    assert [part.decision for part in bent.record.parts] == ["accepted", "open", "open", "open"]
    assert not bent.record.implants
    assert "not decided" in bent.report()


def test_no_decision_without_a_name_on_a_refused_one_or_on_an_older_scan(bent: Bent) -> None:
    with pytest.raises(RegistrationError, match="name of the person"):
        bent.session.decide_bone(bent.bones["L1"], True, " ")
    with pytest.raises(RegistrationError, match="'L4' cannot be accepted"):
        bent.decide("L4", True)
    bent.decide("L1", True)
    newer = Image(bent.image.array, np.eye(4), "spine", uid="newer")
    bent.session._image(ArrivedScan("native", newer.name, image=newer))
    for late in (lambda: bent.decide("L1", True), lambda: bent.session.leave_bones("Dr. Example")):
        with pytest.raises(SessionError, match="newer image has withdrawn"):
            late()
    assert bent.record.parts == ()
    assert bent.record.measurements == (), "neither numbers nor why there are none: that was another scan"


def test_where_nobody_is_asked_all_that_was_found_is_in_the_report(bent: Bent) -> None:
    text = render(as_document(bent.record))
    assert "found each on its own: L1, L2, L3" in text
    assert [implant.name for implant in bent.record.implants] == [SCREW]
    assert "Decision</th>" not in text
