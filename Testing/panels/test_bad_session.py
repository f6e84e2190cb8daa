"""What goes wrong while a session runs is said; the panel stays usable, and no thread, observer or node is left."""

from __future__ import annotations

import importlib
import threading
import time
from typing import Any

import numpy as np
import pytest
import slicer
from host.fixtures import app, wait_until
from IntraopMRIReconstructionLib.data import Image, Level, Measurement, Pose, Reason, Verdict

__all__ = ["app"]

GOOD = Verdict((Reason("overlap", 0.9, "", "above 0.6", Level.GOOD),))


def library(name: str) -> Any:
    """A file of the session's library as it is now: a reload makes all its classes anew."""
    return importlib.import_module(f"IntraopMRILib.{name}")


def panel() -> Any:
    return slicer.util.getModuleWidget("IntraopMRI").panel


def page(name: str) -> Any:
    return next(p for phase, p in panel().pages.items() if phase.name == name)


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("intraop")]


def ours() -> list[str]:
    nodes = [slicer.mrmlScene.GetNthNode(index) for index in range(slicer.mrmlScene.GetNumberOfNodes())]
    return [node.GetName() for node in nodes if node.GetAttribute("IntraopMRI.Role")]


class Connected:
    """A session without links: updates are what the test says has been found."""

    def __init__(self) -> None:
        slicer.util.selectModule("IntraopMRI")
        matrix = np.eye(4)
        matrix[:3, 3] = -15.0
        array = np.random.default_rng(0).random((32, 32, 32), np.float32) * 900
        labels = np.zeros(array.shape, np.uint8)
        labels[12:18, 12:18, 12:18] = 1
        self.labels, self.image = labels, Image(array, matrix, "T1 contrast", acquired_utc_s=time.time())
        self.preop = Image(array, matrix, "preop")
        plan = library("session").Plan("P-1", "test", self.preop, Image(labels, matrix, "tumour"))
        panel().running.connect(lambda: plan, {})
        wait_until(lambda: panel().running.connected, 30, "the session")

    def tell(self, update: Any) -> None:
        panel().running.session._tell(update)

    def review(self) -> None:
        """A scan with its registration and residual, confirmed."""
        self.tell(library("session.updates").ImageReady(self.image, "contrast", None, 0.0))
        found = library("register.rigid").RigidRegistration(
            np.eye(4), GOOD, 1.0, 0.3, 0.9, 0.1, 0.9, self.image.uid, self.preop.uid
        )
        self.tell(library("session.updates").Registered(found, self.image))
        volume = Measurement("Residual", 0.2, "cm3", "test", interval=(0.1, 0.3))
        part = self.image.with_array(self.labels)
        assessment = library("assess.residual").ResidualAssessment(
            residual=part,
            resected=self.image.with_array(np.zeros_like(self.labels)),
            volume_cm3=0.2,
            interval_cm3=(0.1, 0.3),
            likely_cm3=(0.15, 0.25),
            preop_volume_cm3=1.0,
            rano=library("assess.resection").rano_class(0.2, 1.0),
            residual_centroid_ras_mm=np.zeros(3),
            measurements=(volume, library("assess.resection").extent_of_resection(1.0, 0.2, (0.1, 0.3), ())),
        )
        self.tell(library("session.updates").ResidualFound(assessment))
        wait_until(lambda: panel().running.residual is not None, 30, "the residual")
        panel().running.confirm()
        panel().open(page("NAVIGATE").phase)

    def point(self, at: tuple[float, float, float], tool: str = "Pointer", valid: bool = True, count: int = 4) -> None:
        """Poses as the tracker's link brings them."""
        for _ in range(count):
            matrix = np.eye(4)
            matrix[:3, 3] = at
            panel().running.place(Pose(matrix, tool, time.monotonic(), time.time(), valid=valid))
            panel().running._move()
            page("NAVIGATE").poseArrived()


@pytest.fixture
def connected(app: Any) -> Any:
    made = Connected()
    yield made
    panel().running.close()
    wait_until(lambda: not threads(), 20, "the threads to end")


def test_a_scene_closed_while_results_are_prepared_gets_none_of_them(connected: Connected) -> None:
    big = Image(np.random.default_rng(0).random((160, 160, 160), np.float32), np.eye(4), "big", patient_id="P-1")
    for _ in range(3):
        connected.tell(library("session.updates").ImageReady(big, "native", None, 0.0))
    panel().running.tick()
    slicer.mrmlScene.Clear(0)
    wait_until(lambda: not threads(), 30, "the threads to end")
    assert ours() == []
    assert not panel().running.connected
    assert panel().ui.nextButton.enabled or panel().ui.whyLabel.text


def test_a_module_reloaded_while_connected_leaves_nothing_of_the_old_one(connected: Connected) -> None:
    connected.review()
    connected.point((0.0, 0.0, 0.0))
    old = panel()
    slicer.util.getModuleWidget("IntraopMRI").onReload()
    assert panel() is not old
    wait_until(lambda: not threads(), 20, "the threads to end")
    assert not old.Observations
    assert not old._timer.active
    assert not old.overlay._texts
    assert not panel().running.trusted, "nothing that was confirmed before holds"


@pytest.mark.parametrize("role", ["intraop.contrast", "registration", "result.residual", "pointer"])
def test_a_node_deleted_under_the_overlay_is_put_back_and_said(connected: Connected, role: str) -> None:
    connected.review()
    connected.point((0.0, 0.0, 0.0))
    view = panel().running.view
    node = view.bridge.node(role)
    name, before = node.GetName(), sorted(ours())
    slicer.mrmlScene.RemoveNode(node)
    wait_until(lambda: name in panel().running.problem, 5, "the sentence")
    assert "was put back" in panel().ui.bannerLabel.text
    assert sorted(ours()) == before
    assert view.bridge.node(role) is not node
    above = view.bridge.node("preop.volume").GetParentTransformNode()
    assert above is view.bridge.node("registration"), "what hung under it hangs there again"
    assert slicer.util.arrayFromVolume(view.bridge.node("intraop.contrast")).max() > 100


def test_a_chosen_volume_deleted_while_connected_ends_nothing_but_is_said(connected: Connected) -> None:
    node = slicer.util.addVolumeFromArray(np.zeros((4, 4, 4), np.float32), name="Mine")
    panel().parameters.preopVolume = node
    connected.review()
    slicer.mrmlScene.RemoveNode(node)
    wait_until(lambda: "'Mine' was removed" in panel().ui.bannerLabel.text, 5, "the sentence")
    assert panel().running.trusted, "the session works on its own copy"


def test_a_tool_taken_away_blanks_what_rests_on_it_and_another_one_takes_over(connected: Connected) -> None:
    connected.review()
    connected.point((10.0, 0.0, 0.0))
    label = page("NAVIGATE").ui.residualDistanceLabel
    page("NAVIGATE").tick()
    assert "mm" in label.text
    connected.point((10.0, 0.0, 0.0), valid=False, count=1)
    page("NAVIGATE").tick()
    assert "mm" not in label.text
    assert "The tracker does not see" in page("NAVIGATE").ui.alarmLabel.text, "once, above all numbers"
    assert panel().running.view.bridge.node("pointer").GetDisplayNode().GetVisibility() == 0
    connected.point((10.0, 0.0, 0.0), tool="Suction")
    page("NAVIGATE").tick()
    assert "mm" in label.text


def test_a_tool_that_comes_back_is_not_drawn_before_it_is_steady(connected: Connected) -> None:
    connected.review()
    connected.point((10.0, 0.0, 0.0))
    node = panel().running.view.bridge.node("pointer").GetDisplayNode()
    assert node.GetVisibility()
    connected.point((10.0, 0.0, 0.0), valid=False, count=1)
    connected.point((40.0, 0.0, 0.0), count=1)
    assert not node.GetVisibility(), "not even for one tick"
    connected.point((40.0, 0.0, 0.0), count=3)
    assert node.GetVisibility()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_scanner_that_dies_in_mid_scan_is_said_and_the_panel_goes_on(
    app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    slicer.util.selectModule("IntraopMRI")
    # What is still to come must not wait in a buffer already.
    monkeypatch.setattr(panel(), "theatreOptions", {"scanner": ["--scan-seconds", "20"]})
    page("CASE").ui.simulationSizeBox.currentIndex = 1
    page("CASE").ui.simulateButton.click()
    wait_until(lambda: panel().running.theatre is not None and panel().running.task is None, 120, "the theatre")
    theatre = panel().running.theatre
    panel().open(page("CONNECT").phase)
    page("CONNECT").ui.connectButton.click()

    def arrives() -> bool:
        """Whether a scan has begun and most of it is still to come: it dies in the middle of it."""
        fraction, what = panel().running.progress or (1.0, "")
        return panel().running.connected and what.startswith("receiv") and fraction < 0.5

    wait_until(arrives, 120, "a scan")
    theatre._processes["scanner"].kill()
    wait_until(lambda: "Lost: scanner" in page("CONNECT").state().text, 30, "the lost link")
    wait_until(lambda: "lost, connecting again" in page("CONNECT").ui.scannerStateLabel.text, 5, "the words")
    wait_until(lambda: "check the scanner and scan again" in panel().running.problem, 40, "the sentence")
    assert panel().running.progress is None, "no bar waits for what does not come"
    assert not panel().running.trusted
    page("CONNECT").ui.connectButton.click()
    wait_until(lambda: not panel().running.connected and panel().running.task is None, 30, "the session to end")
    panel().running.close()
    wait_until(lambda: not threads(), 20, "the threads to end")


def test_a_volume_deleted_while_the_session_is_being_made_does_not_reach_it(app: Any) -> None:
    slicer.util.selectModule("IntraopMRI")
    array = np.random.default_rng(0).random((96, 96, 96)).astype(np.float32)
    parameters = panel().parameters
    parameters.patientId, parameters.preopVolume = "P-1", slicer.util.addVolumeFromArray(array, name="Mine")
    parameters.plannedImplant = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsLineNode", "Screw")
    parameters.plannedImplant.AddControlPoint(0, 0, 0)
    parameters.plannedImplant.AddControlPoint(0, 0, 30)
    plan = library("scene.panels.nodes").planLater(parameters)
    release = threading.Event()
    panel().running.connect(lambda: release.wait(30) and plan(), {})
    slicer.mrmlScene.RemoveNode(parameters.preopVolume)
    release.set()
    wait_until(lambda: panel().running.task is None, 30, "the session")
    assert panel().running.connected, panel().running.problem
    np.testing.assert_array_equal(panel().running.session.plan.preoperative.array, array)
    panel().running.close()
    wait_until(lambda: not threads(), 20, "the threads to end")


def test_a_defect_in_the_background_is_said_and_the_panel_goes_on(app: Any, caplog: pytest.LogCaptureFixture) -> None:
    slicer.util.selectModule("IntraopMRI")

    def work() -> None:
        raise ZeroDivisionError("by mistake")

    panel().running.start("trying", work, lambda _result: pytest.fail("there is no result"))
    wait_until(lambda: panel().running.task is None, 20, "the end of the work")
    panel().refresh()
    assert "A defect in this software (ZeroDivisionError: by mistake)" in panel().ui.bannerLabel.text
    assert "defect while trying" in caplog.text
    wait_until(lambda: not threads(), 20, "the thread to end")
