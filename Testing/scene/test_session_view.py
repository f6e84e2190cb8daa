"""What the screen says while a session goes on: nothing before it is known, nothing after its basis is gone."""

from __future__ import annotations

import numpy as np
import pytest
from IntraopMRILib.assess.implant import Spread, Trajectory, band, compare
from IntraopMRILib.assess.implant_detection import DetectedImplant
from IntraopMRILib.assess.resection import extent_of_resection, rano_class
from IntraopMRILib.assess.residual import ResidualAssessment
from IntraopMRILib.navigate.watch import FRESH_POSES
from IntraopMRILib.register.rigid import RigidRegistration
from IntraopMRILib.scene.bridge import SceneBridge
from IntraopMRILib.scene.headless import HeadlessScene
from IntraopMRILib.scene.session_view import SessionView
from IntraopMRILib.session import Plan
from IntraopMRILib.session.updates import ImageReady, ImplantFound, Problem, Registered, ResidualFound
from IntraopMRIReconstructionLib.data import Image, Level, Measurement, Pose, Reason, Verdict

GOOD = Verdict((Reason("overlap", 0.9, "", "above 0.6", Level.GOOD),))
REFUSED = Verdict((Reason("overlap", 0.1, "", "above 0.6", Level.REFUSED),))
STEP_S = 0.02


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Operation:
    """A small session whose residual is a box of 4 x 4 x 4 mm about the origin."""

    def __init__(self) -> None:
        self.clock = Clock()
        matrix = np.eye(4)
        matrix[:3, 3] = -9.5
        rng = np.random.default_rng(0)
        self.image = Image(rng.random((20, 20, 20), np.float32) * 900, matrix, "T1 contrast", acquired_utc_s=1000.0)
        self.labels = np.zeros((20, 20, 20), np.uint8)
        self.labels[8:12, 8:12, 8:12] = 1
        self.preop = Image(self.image.array, matrix, "preop")
        self.tumour = Image(self.labels, matrix, "tumour")
        self.bridge = SceneBridge(HeadlessScene().scene)
        plan = Plan("P1", "test", self.preop, self.tumour)
        self.view = SessionView(self.bridge, plan, self.clock, lambda: 1060.0)

    def shows(self, role: str) -> bool:
        node = self.bridge.node(role)
        return node is not None and bool(node.GetDisplayNode().GetVisibility())

    def scan(self) -> None:
        self.view.apply(ImageReady(self.image, "contrast", None, 0.0))

    def register(self, verdict: Verdict = GOOD) -> None:
        found = RigidRegistration(np.eye(4), verdict, 1.0, 0.3, 0.9, 0.1, 0.9, self.image.uid, self.preop.uid)
        self.view.apply(Registered(found, self.image))

    def assess(self) -> None:
        volume = Measurement("Residual enhancing tumour", 0.064, "cm3", "test", interval=(0.05, 0.08))
        self.view.apply(
            ResidualFound(
                ResidualAssessment(
                    residual=self.image.with_array(self.labels),
                    resected=self.image.with_array(np.zeros_like(self.labels)),
                    volume_cm3=0.064,
                    interval_cm3=(0.05, 0.08),
                    likely_cm3=(0.06, 0.07),
                    preop_volume_cm3=1.0,
                    rano=rano_class(0.064, 1.0),
                    residual_centroid_ras_mm=np.zeros(3),
                    measurements=(volume, extent_of_resection(1.0, 0.064, (0.05, 0.08), ())),
                )
            )
        )

    def touch(self, x_mm: float, times: int = 1, valid: bool = True) -> None:
        for _ in range(times):
            self.clock.now_s += STEP_S
            matrix = np.eye(4)
            matrix[0, 3] = x_mm
            self.view.movePointer(Pose(matrix, "Pointer", self.clock.now_s, 0.0, valid=valid))


@pytest.fixture
def operation() -> Operation:
    return Operation()


def test_numbers_come_with_the_residual_and_the_pointer(operation: Operation) -> None:
    operation.scan()
    assert operation.view.readout().residual is None
    assert operation.view.readout().registration_problem
    operation.register()
    operation.assess()
    operation.touch(12.0, FRESH_POSES)
    readout = operation.view.readout()
    assert readout.residual is not None
    assert readout.residual.value == pytest.approx(0.064)
    assert readout.image_age_s == pytest.approx(60.0)
    assert readout.registration_problem == ""
    distance = readout.tip_to_residual
    assert distance is not None
    assert distance.value == pytest.approx(10.0, abs=0.3)  # the box reaches from -2 to 2 mm


def test_a_stale_pose_takes_the_distance_and_the_pointer_away(operation: Operation) -> None:
    operation.scan()
    operation.register()
    operation.assess()
    operation.touch(12.0, FRESH_POSES)
    operation.clock.now_s += 5.0
    operation.view.tick()
    distance = operation.view.tipToResidual()
    assert distance is not None
    assert distance.value is None
    assert "5.0 s old" in distance.missing_because
    assert not operation.shows("pointer")


def test_a_tool_out_of_sight_is_no_position(operation: Operation) -> None:
    operation.scan()
    operation.register()
    operation.assess()
    operation.touch(12.0, FRESH_POSES)
    operation.touch(12.0, valid=False)
    distance = operation.view.tipToResidual()
    assert distance is not None
    assert distance.value is None
    assert "does not see" in distance.missing_because


def test_a_refused_registration_leaves_no_number_and_no_overlay(operation: Operation) -> None:
    operation.scan()
    operation.register()
    operation.assess()
    assert operation.shows("result.residual")
    operation.register(REFUSED)
    readout = operation.view.readout()
    assert readout.residual is None
    assert readout.refused
    assert not operation.shows("result.residual")
    assert operation.bridge.registration is None


def test_a_new_image_withdraws_the_registration_of_the_old_one(operation: Operation) -> None:
    operation.scan()
    operation.register()
    operation.assess()
    native = operation.image.with_array(operation.image.array, "T1 native")
    operation.view.apply(ImageReady(native, "native", None, 0.0))
    assert operation.view.readout().residual is None
    assert "T1 native" in operation.view.readout().withdrawn
    assert operation.view.tipToResidual() is None


def test_a_failed_assessment_shows_no_old_number(operation: Operation) -> None:
    operation.scan()
    operation.register()
    operation.assess()
    operation.view.apply(Problem("assess residual", "no tumour region"))
    assert operation.view.readout().residual is None
    assert operation.view.tipToResidual() is None


@pytest.mark.parametrize("stage", ["receive", "reconstruct", "command the scanner", "assess implants", "show"])
def test_what_fails_later_takes_nothing_away_that_holds(operation: Operation, stage: str) -> None:
    operation.scan()
    operation.register()
    operation.assess()
    operation.view.apply(Problem(stage, "it failed"))
    assert operation.view.readout().residual is not None
    assert operation.shows("result.residual")
    operation.touch(12.0, FRESH_POSES)
    assert operation.view.tipToResidual() is not None


def test_an_implant_stands_beside_the_residual_and_goes_with_its_scan(operation: Operation) -> None:
    operation.scan()
    operation.register()
    operation.assess()
    lead = Trajectory(np.array([0.0, 8, 0]), np.zeros(3), 1.5, "Lead")
    detected = DetectedImplant(lead, Spread(0.2), None, GOOD, operation.image, 1.5)
    measured = compare(lead, lead, 0.3)
    operation.view.apply(ImplantFound(lead, detected, measured, band(measured)))
    readout = operation.view.readout()
    assert readout.residual is not None
    assert list(readout.implants) == ["Lead"]
    assert operation.shows("intraop.implant.Lead.cylinder")
    operation.image = operation.image.with_array(operation.image.array, "next")
    operation.scan()
    assert not operation.shows("intraop.implant.Lead.cylinder")
    operation.register()
    assert not operation.shows("intraop.implant.Lead.cylinder"), "not before it is found again"


def test_a_new_session_shows_nothing_of_the_plan_before(operation: Operation) -> None:
    operation.scan()
    operation.register()
    operation.assess()
    operation.bridge.withdraw("The session was closed.")
    bridge = SceneBridge(operation.bridge.scene)
    lead = Trajectory(np.array([0.0, 8, 0]), np.zeros(3), 1.5, "Lead")
    SessionView(bridge, Plan("P2", "test", operation.preop, trajectories=(lead,)))
    assert {role.partition(".")[2].partition(".")[0] for role in bridge.roles()} == {"volume", "plan"}
    assert bridge.unconfirmed is None
    scan = bridge.scene.GetFirstNodeByName("T1 contrast")
    assert scan is not None, "minutes of scanning are not thrown away: a person may choose it again"
    assert scan.GetAttribute("IntraopMRI.Role") is None


def test_the_volume_is_the_registered_one_and_without_a_registration_the_newest(operation: Operation) -> None:
    operation.scan()
    operation.register()
    assert operation.view.volume() is operation.bridge.node("intraop.contrast")
    native = operation.image.with_array(operation.image.array, "T1 native")
    operation.view.apply(ImageReady(native, "native", None, 0.0))
    assert operation.view.volume() is operation.bridge.node("intraop.native"), "newest, although a contrast scan exists"
    operation.register()
    assert operation.view.volume() is operation.bridge.node("intraop.contrast"), "a pair was completed: that one counts"


def test_names_of_two_targets_stand_apart() -> None:
    operation = Operation()
    near = {"Biopsy": (0.0, 0.0, 0.0), "Entry": (-2.0, 1.0, 3.0)}
    SessionView(operation.bridge, Plan("P1", "test", operation.preop, operation.tumour, targets=near))

    def above(name: str) -> bool:
        node = operation.bridge.node(f"preop.target.{name}")
        assert node is not None
        return str(node.GetDisplayNode().GetTextProperty().GetVerticalJustificationAsString()) == "Bottom"

    assert above("Entry"), "the higher point"
    assert not above("Biopsy")
