"""Page 3: touched points bring the tracker into the scanner's frame, a trace of the skin refines it, tools are
calibrated; or the page says why not."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import slicer
from host.fixtures import app, wait_until
from IntraopMRIReconstructionLib.data import Image, Pose
from IntraopMRIReconstructionLib.geometry import apply, rotation_about

__all__ = ["app"]

KNOWN = np.array([[0, 80, 20], [60, 0, 30], [-60, 5, 25], [10, -70, 60], [0, 10, 90]], dtype=float)
TIP = np.array([2.0, -6.0, -140.0])


@pytest.fixture
def page(app: Any) -> Any:
    slicer.util.selectModule("IntraopMRI")
    panel = slicer.util.getModuleWidget("IntraopMRI").panel
    found = next(p for phase, p in panel.pages.items() if phase.name == "REGISTER")
    panel.open(found.phase)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "Landmarks")
    for number, point in enumerate(KNOWN):
        node.AddControlPoint(*point, f"P{number}")
    found.ui.checkPointsSelector.setCurrentNode(node)
    return found


def truth() -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = rotation_about((0.2, 0.5, 1.0), 33.0)
    matrix[:3, 3] = 12.0, -40.0, 7.0
    return matrix


def send(page: Any, matrix: np.ndarray, tool: str = "Pointer") -> None:
    """A pose from the tracker, as the timer brings it."""
    page.running.place(Pose(matrix, tool, time.monotonic(), time.time()))
    page.poseArrived()


def tip(page: Any) -> np.ndarray:
    """Where the panel takes the tip to be, (3,) scanner RAS."""
    return np.asarray(page.running.pose.tip_ras_mm)


def at(point: np.ndarray, rotation: np.ndarray | None = None) -> np.ndarray:
    """Pose of a tool that the tracker follows at a point."""
    matrix = np.eye(4)
    matrix[:3, :3] = np.eye(3) if rotation is None else rotation
    matrix[:3, 3] = point
    return matrix


def touch(page: Any, scannerFromTracker: np.ndarray, points: np.ndarray, error_mm: float = 0.0) -> None:
    rng = np.random.default_rng(1)
    for point in points:
        send(page, at(apply(np.linalg.inv(scannerFromTracker), point + rng.normal(0, 1, 3) * error_mm)))
        page.touch()


def test_points_register_the_tracker(page: Any) -> None:
    page.parameters.trackerReportsScannerFrame = False
    assert page.scannerFromTracker() is None
    touch(page, truth(), KNOWN, error_mm=0.3)
    assert "FRE" in page.ui.checkLabel.text
    assert "expected TRE" in page.ui.checkLabel.text
    assert page.action().text == "Use this registration"
    page.ui.useButton.click()
    assert page.scannerFromTracker() == pytest.approx(truth(), abs=1.0)
    page.clear()
    assert page.scannerFromTracker() is None


def test_the_tip_is_said_by_the_sides_of_the_patient(page: Any) -> None:
    send(page, at(np.array([44.8, -23.8, 18.5])))
    page.tick()
    assert page.ui.poseLabel.text.endswith("R 44.8  P 23.8  S 18.5 mm")
    send(page, at(np.array([-0.5, 7.0, -18.5])))
    page.tick()
    assert page.ui.poseLabel.text.endswith("L 0.5  A 7.0  I 18.5 mm")


def test_points_on_a_line_register_nothing(page: Any) -> None:
    page.parameters.trackerReportsScannerFrame = False
    touch(page, truth(), np.array([[0, 0, z] for z in (0.0, 20.0, 40.0)]))
    assert not page.ui.useButton.enabled
    assert page.scannerFromTracker() is None


def test_points_check_a_tracker_that_is_in_the_scanners_frame(page: Any) -> None:
    touch(page, np.eye(4), KNOWN + np.array([0.0, 4.0, 0.0]))
    assert "largest distance 4.0 mm" in page.ui.checkLabel.text
    assert page.scannerFromTracker() == pytest.approx(np.eye(4))


def test_the_expected_error_is_told_at_the_planned_target(page: Any) -> None:
    """The same points err more at a far target: the number beside FRE is that of the target, carried over."""
    page.parameters.trackerReportsScannerFrame = False
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "Target")
    node.AddControlPoint(-180.0, 0.0, 0.0)
    page.parameters.plannedTarget = node
    touch(page, truth(), KNOWN, error_mm=0.5)
    near = page.ui.checkLabel.text
    assert "middle of the points" in near, "no image is registered: the target has no place yet"
    moved = np.eye(4)
    moved[:3, 3] = -20.0, 0.0, 0.0
    registration = SimpleNamespace(intraop_from_preop=moved, verdict=page._registration.verdict)
    page.running.registered = SimpleNamespace(registration=registration)
    page.refresh()
    far = page.ui.checkLabel.text
    expected = page._registration.expected_tre_mm([(-200.0, 0.0, 0.0)])[0]
    assert f"TRE at the target {expected:.2f} mm" in far
    page.running.registered = None


# Tools


def pivot(page: Any, count: int = 80, tool: str = "Pointer", half_angle_deg: float = 35.0) -> None:
    """Tilt a tool about its tip, with a tracker's noise."""
    rng = np.random.default_rng(2)
    for _ in range(count):
        around = rng.uniform(0, 2 * np.pi)
        tilt = half_angle_deg * np.sqrt(rng.uniform())
        rotation = rotation_about((np.cos(around), np.sin(around), 0), tilt)
        send(page, at(np.array([10.0, 20.0, 30.0]) - rotation @ TIP + rng.normal(0, 0.1, 3), rotation), tool)
    look(page)


def spin(page: Any, count: int = 80) -> None:
    axis = TIP / np.linalg.norm(TIP)
    for angle in np.linspace(0, 170, count):
        rotation = rotation_about(axis, angle)
        send(page, at(-rotation @ TIP, rotation))
    look(page)


def look(page: Any) -> None:
    page.calibrator._looked_s = 0.0
    page.refresh()


def calibrate(page: Any) -> None:
    send(page, np.eye(4))
    page.refresh()
    page.ui.pivotButton.click()
    pivot(page)
    assert page.action().text == "Accept this calibration"
    page.ui.acceptToolButton.click()


def test_a_tool_is_pivoted_and_spun_and_its_tip_is_used(page: Any) -> None:
    send(page, np.eye(4))
    page.refresh()
    assert "tip as the tracker reports it" in page.ui.toolLabel.text
    page.ui.spinButton.click()
    assert "Find the tip first" in page.ui.collectLabel.text
    page.ui.pivotButton.click()
    pivot(page, count=10)
    assert page.action().run is None, "ten poses are no calibration"
    assert "10 poses" in page.ui.collectLabel.text
    pivot(page)
    assert "covered" in page.ui.collectLabel.text
    page.ui.acceptToolButton.click()
    assert "tip found to 0." in page.ui.toolLabel.text
    page.ui.spinButton.click()
    spin(page)
    page.ui.acceptToolButton.click()
    assert "shaft to 0." in page.ui.toolLabel.text

    page.panel.refresh()
    send(page, at(np.array([100.0, 0.0, 0.0])))
    assert tip(page) == pytest.approx(np.array([100.0, 0.0, 0.0]) + TIP, abs=0.2)
    up = -TIP / np.linalg.norm(TIP)
    assert page.running.pose.ras_from_tool[:3, 2] == pytest.approx(up, abs=0.01), "the shaft leads from the tip up"
    send(page, np.eye(4), "Suction")
    assert tip(page) == pytest.approx((0, 0, 0)), "another tool has a tip of its own"


def test_too_little_motion_is_not_accepted_and_again_starts_anew(page: Any) -> None:
    send(page, np.eye(4))
    page.refresh()
    page.ui.pivotButton.click()
    pivot(page, half_angle_deg=8.0)
    assert not page.ui.acceptToolButton.enabled
    assert "turn the tool further" in page.ui.collectLabel.text
    page.calibrator.accept()
    assert not page.calibrator.kept()
    page.ui.againToolButton.click()
    assert "0 poses" in page.ui.collectLabel.text
    page.ui.stopToolButton.click()
    assert page.ui.pivotButton.enabled


def test_a_tool_that_changes_while_it_is_pivoted_ends_the_collection(page: Any) -> None:
    send(page, np.eye(4))
    page.refresh()
    page.ui.pivotButton.click()
    pivot(page, count=20)
    send(page, np.eye(4), "Suction")
    page.refresh()
    assert "'Suction' instead of 'Pointer'" in page.ui.collectLabel.text
    assert page.ui.pivotButton.enabled


def test_a_new_tip_withdraws_the_points_that_were_touched_with_the_old_one(page: Any) -> None:
    page.parameters.trackerReportsScannerFrame = False
    touch(page, truth(), KNOWN)
    page.ui.useButton.click()
    assert page.scannerFromTracker() is not None
    calibrate(page)
    assert page.scannerFromTracker() is None
    assert page.ui.checkTable.rowCount == 0
    assert "touch the points again" in page.panel.ui.bannerLabel.text


def test_a_calibration_of_another_day_is_used_only_after_a_confirmation(page: Any, tmp_path: Any) -> None:
    calibrate(page)
    path = str(tmp_path / "scene.mrb")
    assert slicer.util.saveScene(path)
    slicer.mrmlScene.Clear(0)
    slicer.util.loadScene(path)
    page.calibrator.distrust()
    page.panel.refresh()
    send(page, np.eye(4))
    page.panel.refresh()
    send(page, np.eye(4))
    assert page.running.pose is None, "the tip is not known to be where it was"
    assert "is not shown" in page.ui.toolLabel.text
    assert page.action().text == "Use the kept calibration"
    page.ui.confirmToolButton.click()
    page.panel.refresh()
    send(page, np.eye(4))
    assert tip(page) == pytest.approx(TIP, abs=0.2)
    page.ui.forgetToolButton.click()
    page.panel.refresh()
    send(page, np.eye(4))
    assert tip(page) == pytest.approx((0, 0, 0))


@pytest.mark.parametrize("kept", ["{", '{"Pointer": {"tip_mm": [1, 2]}}', '{"Pointer": 3}', "[]"])
def test_kept_calibrations_that_cannot_be_read_are_said_and_removed(page: Any, kept: str) -> None:
    page.parameters.toolCalibrations = kept
    page.panel.refresh()
    assert "calibrate each tool again" in page.panel.ui.bannerLabel.text
    assert page.parameters.toolCalibrations == ""


# The skin


def head() -> Image:
    """An ellipsoid head with a nose, off centre, 2 mm."""
    k, j, i = np.ogrid[:100, :120, :100]
    x, y, z = (2.0 * i - 90) / 72, (2.0 * j - 110) / 92, (2.0 * k - 95) / 88
    inside = x**2 + y**2 + z**2 < 1
    nose = ((2.0 * i - 90) / 11) ** 2 + ((2.0 * j - 205) / 18) ** 2 + ((2.0 * k - 80) / 18) ** 2 < 1
    array = np.where(inside | nose, 800.0, 10.0).astype(np.float32)
    matrix = np.diag([2.0, 2.0, 2.0, 1.0])
    matrix[:3, 3] = -90.0, -110.0, -95.0
    return Image(array, matrix, "Head")


def traced(count: int = 220) -> np.ndarray:
    """True points on the front of that head, from its formula."""
    rng = np.random.default_rng(5)
    found: list[np.ndarray] = []
    while len(found) < count:
        direction = rng.normal(size=3)
        direction[1] = abs(direction[1])
        direction /= np.linalg.norm(direction)
        on_skull = direction / np.sqrt((direction**2 / np.array([72.0, 92.0, 88.0]) ** 2).sum())
        on_nose = np.array([0.0, 95.0, -15.0]) + direction * [11.0, 18.0, 18.0]
        for point, other in ((on_skull, "nose"), (on_nose, "skull")):
            size = [11.0, 18.0, 18.0] if other == "nose" else [72.0, 92.0, 88.0]
            centre = [0.0, 95.0, -15.0] if other == "nose" else [0.0, 0.0, 0.0]
            if ((point - centre) ** 2 / np.array(size) ** 2).sum() > 1.02 and (other == "nose" or rng.uniform() < 0.4):
                found.append(point)
    return np.array(found[:count])


def test_a_trace_of_the_skin_refines_the_points(page: Any) -> None:
    page.parameters.trackerReportsScannerFrame = False
    assert "Scan first" in page.ui.traceLabel.text
    page.running.image = SimpleNamespace(image=head(), role="native")
    page.refresh()
    assert "Touch at least three" in page.ui.traceLabel.text
    assert not page.ui.fitButton.enabled
    touch(page, truth(), KNOWN, error_mm=3.0)
    page.ui.useButton.click()
    rough = page.scannerFromTracker()
    page.ui.traceButton.click()
    for point in traced():
        send(page, at(apply(np.linalg.inv(truth()), point)))
    page.refresh()
    assert page.action().text == "Fit the trace"
    page.ui.fitButton.click()
    wait_until(lambda: "Mean distance" in page.ui.traceLabel.text, 60, "the fit")
    assert page.action().text == "Use this trace"
    page.action().run()
    middle = np.array([0.0, 20.0, 10.0])
    errors = [
        np.linalg.norm(apply(m @ np.linalg.inv(truth()), middle) - middle) for m in (rough, page.scannerFromTracker())
    ]
    assert errors[1] < 1.0
    assert errors[1] < errors[0]
    assert "Registered by the skin" in page.state().text or not page.running.connected
    page.ui.clearTraceButton.click()
    assert page.scannerFromTracker() is None
    page.running.image = None


def test_a_patient_who_moved_ends_the_registration_of_the_pointer(page: Any) -> None:
    page.parameters.trackerReportsScannerFrame = False
    touch(page, truth(), KNOWN)
    page.running.session = None
    page.ui.useButton.click()
    session = SimpleNamespace(plan=SimpleNamespace(operated_mm=KNOWN))
    page._session = page.running.session = session
    try:
        for step, holds in ((0.0, True), (0.5, True), (6.0, False)):
            moved = np.eye(4)
            moved[0, 3] = step
            registration = SimpleNamespace(intraop_from_preop=moved, verdict=page._registration.verdict)
            page.running.registered = SimpleNamespace(registration=registration)
            assert (page.scannerFromTracker() is not None) is holds
        assert "lies 6.0 mm from where the pointer was registered" in page.running.problem
    finally:
        page._session = page.running.session = page.running.registered = None
