"""A whole session through the real panel against the lab's processes: from an empty scene to the report."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
import slicer
from host.fixtures import app, wait_until

__all__ = ["app"]


def panel() -> Any:
    return slicer.util.getModuleWidget("IntraopMRI").panel


def page(name: str) -> Any:
    return next(p for phase, p in panel().pages.items() if phase.name == name)


def says(text: str) -> bool:
    return text in panel().ui.nextButton.text


def press_next(text: str) -> None:
    """Press the one prominent button, which must say what is expected."""
    wait_until(lambda: says(text) and panel().ui.nextButton.enabled, 120, f"the button to say '{text}'")
    panel().ui.nextButton.click()


def states() -> str:
    """One letter a page: done, ready, blocked."""
    return "".join(p.state().readiness.name[0] for p in panel().pages.values())


def working() -> bool:
    """Whether a stage works on a scan that has arrived."""
    progress = panel().running.progress
    return progress is not None and not progress[1].startswith("receiving")


def intraop_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("intraop")]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_whole_session(app: Any, tmp_path: Path) -> None:
    slicer.util.selectModule("IntraopMRI")
    assert states() == "BBBBBB"

    # 1 Case: a simulated theatre with one click
    page("CASE").ui.simulationSizeBox.currentIndex = 1
    press_next("Start simulated theatre")
    wait_until(lambda: states().startswith("DR"), 180, "the simulated theatre")
    theatre = panel().running.theatre
    assert "SIM-0001<" in panel().ui.patientLabel.text

    # 2 Connect, and a cancel in the middle of the first scan
    press_next("Go on: 2")
    press_next("Connect")
    wait_until(lambda: panel().running.connected and working(), 120, "work on the first scan")
    assert panel().ui.progressBar.visible
    panel().ui.cancelButton.click()
    wait_until(lambda: any("stopped" in words for words in panel().running.warnings), 60, "the work to stop")
    assert panel().running.registered is None

    # 3 Register: the pointer is seen
    wait_until(lambda: states()[:3] == "DDD", 60, "the pointer")

    # 4 Scan
    panel().open(next(phase for phase in panel().pages if phase.name == "SCAN"))
    wait_until(lambda: "no residual is given" in panel().running.problem, 180, "the refusal of a number")
    assert panel().running.residual is None
    # The cancelled scan is missing: all scans again, by the panel's own scan control
    scanner = page("SCAN").ui.scannerLabel
    wait_until(lambda: scanner.text == "Scanner: ready", 60, "the scanner to say that its sequence is over")
    page("SCAN").ui.scanButton.click()
    wait_until(lambda: scanner.text == "Scanner: scanning", 60, "the scanner to confirm that it scans")
    page("SCAN").ui.scanButton.click()
    assert "START_SEQUENCE was not sent, the scanner is: scanning" in panel().running.problem
    # the native one came after the agent: it gives no number with the contrast scan that waited, only with the new one
    waited = panel().running.image.image.uid
    wait_until(
        lambda: panel().running.image.role == "contrast" and panel().running.image.image.uid != waited, 240, "it"
    )
    wait_until(lambda: panel().running.residual is not None, 240, "the repeated residual")
    assert panel().running.residual.volume_cm3 > 0
    assert states()[3:] == "RBB", "nothing is navigated before a person has confirmed"
    assert page("NAVIGATE").guidance is None
    press_next("Confirm registration")

    # The plan is carried over: each thing is decided on before anybody goes on
    assert says("Enter who accepts")
    assert "3 of 3 plan items undecided" in panel().ui.whyLabel.text
    assert states()[3:5] == "RB"
    page("SCAN").ui.acceptedByEdit.text = "Dr. Example"
    page("SCAN").ui.acceptButton.click()
    assert says("Accept or reject")
    assert "2 of 3 plan items undecided" in panel().ui.whyLabel.text
    page("SCAN").ui.rejectButton.click()
    page("SCAN").ui.leaveButton.click()
    assert states()[3] == "D"
    decisions = [entry.decision for entry in panel().running.session.journal.record.carried]
    assert decisions == ["accepted", "rejected", "open"]

    # 5 Navigate: the distance appears, with a direction
    press_next("Go on: 5")
    label = page("NAVIGATE").ui.residualDistanceLabel
    assert page("NAVIGATE").guidance is not None
    wait_until(lambda: "mm" in label.text, 60, "a distance to the residual")

    # 6 Decide
    press_next("Go on: 6")
    page("DECIDE").ui.surgeonEdit.text = "Dr. Example"
    page("DECIDE").ui.decisionBox.currentIndex = 1
    page("DECIDE").ui.reportFolderEdit.currentPath = str(tmp_path / "report")
    assert page("DECIDE").ui.measuredTable.rowCount >= 2
    press_next("Write report")
    wait_until(lambda: states() == "DDDDDD", 30, "all pages to be done")
    record = json.loads((tmp_path / "report" / "session.json").read_text())
    assert record["operator"] == "Dr. Example"
    assert record["residual"]["volume"]["value"] > 0
    assert "<img" in (tmp_path / "report" / "report.html").read_text()

    # The scene is saved, closed and loaded: the choices are back, the confirmation is not
    path = str(tmp_path / "scene.mrb")
    assert slicer.util.saveScene(path)
    slicer.mrmlScene.Clear(0)
    wait_until(lambda: not intraop_threads(), 60, "the session's threads to end")
    assert states() == "BBBBBB"
    slicer.util.loadScene(path)
    app.processEvents()
    assert panel().parameters.patientId == "SIM-0001"
    assert panel().parameters.surgeon == "Dr. Example"
    assert states()[0] == "D"
    assert not panel().running.trusted
    assert states()[4] == "B"

    # Reconnect to the same theatre, which knows nothing of the scene
    panel().open(next(phase for phase in panel().pages if phase.name == "CONNECT"))
    press_next("Connect")
    wait_until(lambda: panel().running.registered is not None, 180, "a new registration")
    assert not panel().running.trusted

    # The module is reloaded while connected: nothing is left of the old panel, the choices are kept
    old = panel()
    slicer.util.getModuleWidget("IntraopMRI").onReload()
    assert panel() is not old
    assert panel().parameters.patientId == "SIM-0001"
    assert not theatre.alive("scanner")
    wait_until(lambda: not intraop_threads(), 60, "the session's threads to end")
    assert not old.Observations


def test_a_scene_that_closes_while_work_runs_leaves_nothing(app: Any) -> None:
    slicer.util.selectModule("IntraopMRI")
    begun, release = threading.Event(), threading.Event()
    discarded: list[str] = []

    def work() -> str:
        begun.set()
        release.wait(30)
        return "late result"

    panel().running.start("waiting", work, lambda result: pytest.fail("told to a closed scene"), discarded.append)
    assert begun.wait(10)
    slicer.mrmlScene.Clear(0)
    release.set()
    wait_until(lambda: discarded == ["late result"], 10, "the late result to be thrown away")
    wait_until(lambda: not intraop_threads(), 10, "the thread to end")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_spine_session(app: Any, tmp_path: Path) -> None:
    """The implant's theatre: no tracker; the screw is found, graded with its intervals, decided on and reported."""
    slicer.util.selectModule("IntraopMRI")
    page("CASE").ui.simulationCaseBox.currentIndex = 1
    press_next("Start simulated theatre")
    wait_until(lambda: states().startswith("DR"), 180, "the simulated theatre")
    assert panel().parameters.plannedImplant is not None
    press_next("Go on: 2")
    press_next("Connect")
    panel().open(next(phase for phase in panel().pages if phase.name == "SCAN"))
    wait_until(lambda: panel().running.implants, 240, "the screw")
    wait_until(lambda: "Screw L3 right" in page("SCAN").ui.residualLabel.text, 10, "the grade")
    assert states()[2] == "D", "no tracker is part of this session"
    press_next("Confirm registration")
    assert says("Enter who")
    assert "1 of 1 implants undecided" in panel().ui.whyLabel.text
    page("SCAN").ui.acceptedByEdit.text = "Dr. Example"
    page("SCAN").ui.rejectButton.click()
    assert panel().running.session.journal.record.implants[0].decision == "revise"
    press_next("Go on: 5")
    card = page("NAVIGATE").ui.implantLabel.text
    assert ">entry<" in card
    assert "±" in card
    assert not page("NAVIGATE").ui.distanceSection.isVisibleTo(page("NAVIGATE").widget), "nothing to measure from"
    press_next("Go on: 6")
    page("DECIDE").ui.surgeonEdit.text = "Dr. Example"
    page("DECIDE").ui.decisionBox.currentIndex = 1
    page("DECIDE").ui.reportFolderEdit.currentPath = str(tmp_path / "report")
    press_next("Write report")
    wait_until(lambda: states() == "DDDDDD", 30, "all pages to be done")
    assert "Screw L3 right" in (tmp_path / "report" / "report.html").read_text()
    panel().running.close()
