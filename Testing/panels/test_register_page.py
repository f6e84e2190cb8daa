"""Page 3: touched points bring the tracker into the scanner's frame, with FRE and expected TRE, or say why not."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
import slicer
from host.fixtures import app
from IntraopMRIReconstructionLib.data import Pose
from IntraopMRIReconstructionLib.geometry import rotation_about

__all__ = ["app"]

KNOWN = np.array([[0, 80, 20], [60, 0, 30], [-60, 5, 25], [10, -70, 60], [0, 10, 90]], dtype=float)


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


def touch(page: Any, scannerFromTracker: np.ndarray, points: np.ndarray, error_mm: float = 0.0) -> None:
    rng = np.random.default_rng(1)
    for point in points:
        pose = np.eye(4)
        pose[:3, 3] = (np.linalg.inv(scannerFromTracker) @ [*(point + rng.normal(0, 1, 3) * error_mm), 1])[:3]
        page.running.rawPose = Pose(pose, "Pointer", time.monotonic(), time.time())
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


def test_points_on_a_line_register_nothing(page: Any) -> None:
    page.parameters.trackerReportsScannerFrame = False
    touch(page, truth(), np.array([[0, 0, z] for z in (0.0, 20.0, 40.0)]))
    assert not page.ui.useButton.enabled
    assert page.scannerFromTracker() is None


def test_points_check_a_tracker_that_is_in_the_scanners_frame(page: Any) -> None:
    touch(page, np.eye(4), KNOWN + np.array([0.0, 4.0, 0.0]))
    assert "largest distance 4.0 mm" in page.ui.checkLabel.text
    assert page.scannerFromTracker() == pytest.approx(np.eye(4))
