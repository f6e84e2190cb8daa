"""What somebody meets who has never seen the panel: every page says what is next, and its button leads there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import slicer
from host.fixtures import app, wait_until
from IntraopMRIReconstructionLib.wire.transport import Server
from panels.operation import Operation, grid, line, plan_screw, pose, product, volume

__all__ = ["app"]


@pytest.fixture
def panel(app: Any) -> Iterator[Any]:
    slicer.util.selectModule("IntraopMRI")
    found = slicer.util.getModuleWidget("IntraopMRI").panel
    yield found
    found.running.close()


def page(panel: Any, name: str) -> Any:
    return next(p for phase, p in panel.pages.items() if phase.name == name)


def next_is(panel: Any, text: str) -> None:
    """The button says so by itself, soon: nobody has to click anywhere for that."""
    wait_until(lambda: panel.ui.nextButton.text == text, 5, f"'{text}', it says '{panel.ui.nextButton.text}'")


def backgrounds() -> set[str]:
    manager = slicer.app.layoutManager()
    composites = [manager.sliceWidget(name).mrmlSliceCompositeNode() for name in manager.sliceViewNames()]
    return {composite.GetBackgroundVolumeID() for composite in composites}


def test_from_an_empty_scene_to_a_complete_case(app: Any, panel: Any) -> None:
    next_is(panel, "Start simulated theatre")
    assert panel.ui.whyLabel.text.startswith("Try it with a simulated patient; or load your own volume")
    panel.parameters.patientId = "P-1"
    next_is(panel, "Load the preoperative volume")
    assert "File > Add Data" in panel.ui.whyLabel.text
    app.dialogs.clear()
    panel.ui.nextButton.click()
    assert app.dialogs == ["Add data"]
    node = volume("T1")
    next_is(panel, "Choose the volume")
    panel.parameters.preopVolume = node
    next_is(panel, "Choose tumour or implant")
    assert backgrounds() == {node.GetID()}, "what was chosen is seen"


def test_a_loaded_volume_is_no_reason_to_simulate_a_theatre(panel: Any) -> None:
    next_is(panel, "Start simulated theatre")
    volume("T1")
    next_is(panel, "Enter the identifier")


def test_views_of_a_loaded_scene_stay_as_they_are(app: Any, panel: Any, tmp_path: Any) -> None:
    chosen, other = volume("T1"), volume("T2")
    panel.parameters.preopVolume = chosen
    slicer.util.setSliceViewerLayers(background=other)
    panel.refresh()
    assert backgrounds() == {other.GetID()}, "a person has arranged them"
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear(0)
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    app.processEvents()
    panel.refresh()
    shown = [slicer.mrmlScene.GetNodeByID(key).GetName() for key in backgrounds()]
    assert shown == ["T2"]
    assert panel.parameters.preopVolume.GetName() == "T1"


def test_a_line_without_points_is_placed_by_the_next_clicks(panel: Any) -> None:
    panel.parameters.patientId, panel.parameters.preopVolume = "P-1", volume("T1")
    assert not page(panel, "CASE").ui.implantMetal.isVisibleTo(page(panel, "CASE").widget)
    node = panel.parameters.plannedImplant = line(0)
    next_is(panel, "Place entry and tip")
    panel.ui.nextButton.click()
    interaction = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLInteractionNode")
    assert interaction.GetCurrentInteractionMode() == interaction.Place
    selection = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLSelectionNode")
    assert selection.GetActivePlaceNodeID() == node.GetID()
    interaction.SetCurrentInteractionMode(interaction.ViewTransform)
    node.AddControlPoint(0, 0, 0)
    node.AddControlPoint(0, 0, 30)
    next_is(panel, "Go on: 2  Connect")


def test_the_metal_of_an_implant_reaches_the_plan(panel: Any) -> None:
    p = panel.parameters
    plan_screw(p)
    panel.refresh()
    box = page(panel, "CASE").ui.implantMetal
    assert box.isVisibleTo(page(panel, "CASE").widget)
    ppm = product("assess.implant").METALS_PPM
    found = []
    for index in range(box.count):
        box.currentIndex = index
        found.append(product("scene.panels.nodes").planLater(p)().trajectories[0].susceptibility_ppm)
    assert found == [None, ppm["titanium"], ppm["cobalt-chromium"]]


def connect(panel: Any) -> None:
    panel.open(page(panel, "CONNECT").phase)
    panel.ui.nextButton.click()
    wait_until(lambda: panel.running.task is None, 30, "the attempt to connect")
    panel.refresh()


def test_which_of_three_links_is_not_there_is_said(panel: Any) -> None:
    p = panel.parameters
    plan_screw(p)
    with Server(port=0) as scanner, Server(port=0) as nobody:
        p.scanner.port, p.tracker.port, p.live.used = scanner.port, nobody.port, False
        nobody.close()
        connect(panel)
        assert panel.ui.bannerLabel.text.startswith(f"Tracker: nothing listens on 127.0.0.1:{p.tracker.port}")
        assert "Untick what is not there" in panel.ui.whyLabel.text
        assert not panel.running.connected


def test_a_scanner_that_hangs_up_is_waited_for_and_cannot_be_asked(panel: Any) -> None:
    """Scanner and tracker are one program on one port, as many are."""
    p = panel.parameters
    plan_screw(p)
    with Server(port=0) as both:
        p.scanner.port = p.tracker.port = both.port
        p.live.used = False
        connect(panel)
        assert panel.running.connected, panel.running.problem
        panel.open(page(panel, "SCAN").phase)
        next_is(panel, "Scan")
    wait_until(lambda: not panel.running.session.links()["scanner"][1], 20, "the lost link")
    next_is(panel, "Waiting for the scanner")
    assert "opened again by itself" in panel.ui.whyLabel.text
    assert not panel.ui.nextButton.enabled
    assert not page(panel, "SCAN").ui.scanButton.enabled


def test_without_a_scanner_only_what_can_be_done_is_offered(app: Any) -> None:
    operation = Operation()
    ui = operation.page("SCAN").ui
    operation.open("SCAN")
    for widget in (ui.protocolBox, ui.scanButton, ui.stopButton):
        assert not widget.isVisibleTo(operation.page("SCAN").widget)
    next_is(operation.panel, "Choose a scan")
    assert "without contrast agent, then the one with it" in operation.panel.ui.whyLabel.text
    scan = slicer.util.addVolumeFromArray(operation.image.array, grid(), "T1 native")
    ui.sceneScan.setCurrentNode(scan)
    next_is(operation.panel, "Say whether contrast agent was given")
    ui.sceneScanRoleBox.currentIndex = 1
    next_is(operation.panel, "Enter when it was taken")
    ui.sceneScanSection.collapsed = True
    operation.panel.ui.nextButton.click()
    assert not ui.sceneScanSection.collapsed
    ui.sceneScanTakenEdit.text = "2025-01-31 10:00"
    next_is(operation.panel, "Use as scan")
    assert "Without the time" not in ui.sceneScanLabel.text
    operation.running.close()


def test_the_views_go_to_what_was_found_once(app: Any) -> None:
    operation = Operation()
    operation.open("SCAN")
    operation.register()
    manager = slicer.app.layoutManager()
    node = manager.sliceWidget("Red").mrmlSliceNode()
    matrix = pose()
    middle = matrix[:3, :3] @ np.array([-20.0, 0.0, 10.0]) + matrix[:3, 3]
    wait_until(lambda: abs(node.GetSliceOffset() - middle[2]) < 0.5, 5, "the tumour")
    node.SetSliceOffset(-7.0)
    operation.panel.refresh()
    assert node.GetSliceOffset() == pytest.approx(-7.0), "a person goes on from there"
    operation.running.close()


def test_the_next_of_the_plan_is_named(app: Any) -> None:
    operation = Operation()
    operation.register()
    operation.running.confirm()
    next_is(operation.panel, "Enter who accepts")
    operation.panel.parameters.surgeon = "Dr. E"
    next_is(operation.panel, "Accept or reject: Biopsy")
    assert not operation.panel.ui.nextButton.enabled
    operation.running.close()


def test_the_decision_is_asked_for_step_by_step(app: Any) -> None:
    operation = Operation()
    operation.register()
    operation.running.confirm()
    operation.open("DECIDE")
    next_is(operation.panel, "Choose the decision")
    operation.page("DECIDE").ui.decisionBox.currentIndex = 2
    next_is(operation.panel, "Enter who decides")
    operation.panel.parameters.surgeon = "Dr. E"
    next_is(operation.panel, "Write report")
    operation.running.close()


def test_a_refusal_with_quotes_is_shown_as_it_was_written(app: Any) -> None:
    operation = Operation()
    operation.register()
    operation.running.confirm()
    section = operation.page("DECIDE").measure
    section._said = (section.kind, "the outline of 'Tumour' is empty")
    section.refresh()
    assert "&amp;" not in operation.page("DECIDE").ui.measureResult.text
    operation.running.close()
