"""A planned screw is drawn where its own vertebra carries it, until the next scan is registered."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from IntraopMRILib.assess.implant import Spread, Trajectory, band, compare
from IntraopMRILib.assess.implant_detection import DetectedImplant
from IntraopMRILib.register.rigid import RigidRegistration
from IntraopMRILib.scene.bridge import SceneBridge
from IntraopMRILib.scene.headless import HeadlessScene
from IntraopMRILib.scene.session_view import SessionView
from IntraopMRILib.session import Plan
from IntraopMRILib.session.updates import ImageReady, ImplantFound, Registered
from IntraopMRIReconstructionLib.data import Image, Level, Reason, Verdict
from IntraopMRIReconstructionLib.geometry import apply, invert, rotation_about

GOOD = Verdict((Reason("overlap", 0.9, "", "above 0.6", Level.GOOD),))


def pose(axis: tuple[float, float, float], degrees: float, shift: tuple[float, float, float]) -> np.ndarray:
    result = np.eye(4)
    result[:3, :3] = rotation_about(axis, degrees)
    result[:3, 3] = shift
    return result


def test_the_plan_is_drawn_with_its_vertebra() -> None:
    grid = np.eye(4)
    grid[:3, 3] = -9.5
    picture = Image(np.random.default_rng(0).random((20, 20, 20), np.float32) * 900, grid, "spine")
    screw = Trajectory(np.array([0.0, -8, 0]), np.array([1.0, 8, 0]), 3.0, "Screw")
    plan = Plan("P", "test", Image(picture.array, grid, "preop"), trajectories=(screw,))
    bridge = SceneBridge(HeadlessScene().scene)
    view = SessionView(bridge, plan)
    whole, bone = pose((0, 0, 1), 20.0, (3.0, 1, 0)), pose((1, 0, 0.5), 26.0, (4.0, 2, 1))
    rigid = RigidRegistration(whole, GOOD, 1.0, 0.3, 0.9, 0.1, 0.9, picture.uid, plan.preoperative.uid)

    def tip() -> np.ndarray:
        node: Any = bridge.node("preop.plan.Screw.line")
        position = [0.0, 0.0, 0.0]
        node.GetNthControlPointPositionWorld(1, position)
        return np.array(position)

    view.apply(ImageReady(picture, "native", None, 0.0))
    view.apply(Registered(rigid, picture))
    assert tip() == pytest.approx(apply(whole, screw.tip_ras_mm), abs=1e-4)

    planned = screw.moved(bone)
    detected = DetectedImplant(planned, Spread(0.2), None, GOOD, picture, 3.2)
    measured = compare(planned, planned, 0.3)
    drawn = screw.moved(invert(whole) @ bone)
    view.apply(ImplantFound(planned, detected, measured, band(measured), "pose of L3", None, drawn))
    assert tip() == pytest.approx(planned.tip_ras_mm, abs=1e-4)

    view.apply(Registered(rigid, picture))
    assert tip() == pytest.approx(apply(whole, screw.tip_ras_mm), abs=1e-4)
