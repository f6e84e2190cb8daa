"""The panels stay usable and say what happened and what to do; no traceback reaches the person."""

from __future__ import annotations

import socket
from typing import Any

import numpy as np
import pytest
import slicer
from host.fixtures import app, wait_until

__all__ = ["app"]


@pytest.fixture
def panel(app: Any) -> Any:
    slicer.util.selectModule("IntraopMRI")
    return slicer.util.getModuleWidget("IntraopMRI").panel


def page(panel: Any, name: str) -> Any:
    return next(p for phase, p in panel.pages.items() if phase.name == name)


def volume(name: str) -> Any:
    return slicer.util.addVolumeFromArray(np.random.default_rng(0).random((12, 14, 16)).astype(np.float32), name=name)


def line() -> Any:
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsLineNode", "Screw")
    node.AddControlPoint(0, 0, 0)
    node.AddControlPoint(0, 0, 30)
    return node


def complete(panel: Any) -> None:
    p = panel.parameters
    p.patientId, p.preopVolume, p.plannedImplant = "P-1", volume("A"), line()


@pytest.mark.parametrize(
    ("missing", "words", "button"),
    [
        ("patientId", "identifier", "Enter the identifier"),
        ("preopVolume", "preoperative volume", "Choose the volume"),
        ("plannedImplant", "tumour (a segmentation) or the planned implant (a line)", "Choose tumour or implant"),
    ],
)
def test_what_is_missing_is_said_and_the_button_leads_there(panel: Any, missing: str, words: str, button: str) -> None:
    complete(panel)
    panel.parameters.setValue(missing, "" if missing == "patientId" else None)
    section = page(panel, "CASE").ui.patientSection if missing == "patientId" else page(panel, "CASE").ui.planSection
    section.collapsed = True
    panel.refresh()
    assert words in panel.ui.whyLabel.text
    assert panel.ui.nextButton.text == button
    for later in ("CONNECT", "SCAN", "DECIDE"):
        panel.open(page(panel, later).phase)
        assert words in panel.ui.whyLabel.text, "a page that waits for another says what is missing there"
        assert panel.ui.nextButton.text.startswith("Go to: 1")
    panel.open(page(panel, "CASE").phase)
    slicer.util.mainWindow().activateWindow()
    panel.ui.nextButton.click()
    assert not section.collapsed
    assert slicer.util.mainWindow().focusWidget() is getattr(page(panel, "CASE").ui, missing)


def connect(panel: Any) -> str:
    """As a person does: the page is open, since only an open page follows what happens."""
    panel.open(page(panel, "CONNECT").phase)
    page(panel, "CONNECT").toggle()
    wait_until(lambda: panel.running.task is None, 30, "the attempt to connect")
    panel.refresh()
    return str(panel.ui.bannerLabel.text)


def test_a_wrong_port_is_said_and_the_panel_goes_on(panel: Any) -> None:
    complete(panel)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    p = panel.parameters
    p.scanner.port, p.tracker.used, p.live.used = port, False, False
    words = connect(panel)
    assert str(port) in words
    assert "Traceback" not in words
    assert not panel.running.connected
    assert page(panel, "CONNECT").ui.connectButton.enabled


def test_a_volume_without_voxels_is_refused(panel: Any) -> None:
    complete(panel)
    panel.parameters.preopVolume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Empty")
    assert "'Empty' has no voxels" in connect(panel)


def test_a_volume_under_a_transform_is_refused(panel: Any) -> None:
    complete(panel)
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    panel.parameters.preopVolume.SetAndObserveTransformNodeID(transform.GetID())
    assert "hangs under a transform" in connect(panel)


def test_an_implant_with_one_point_is_refused(panel: Any) -> None:
    complete(panel)
    panel.parameters.plannedImplant.RemoveNthControlPoint(1)
    assert "two points" in connect(panel)


def test_an_empty_tumour_is_refused(panel: Any) -> None:
    complete(panel)
    panel.parameters.tumourSegmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Tumour")
    assert "empty" in connect(panel)


def test_a_removed_volume_is_not_replaced_by_its_neighbour(panel: Any) -> None:
    complete(panel)
    volume("B")
    slicer.mrmlScene.RemoveNode(panel.parameters.preopVolume)
    wait_until(lambda: panel.parameters.preopVolume is None, 5, "the choice to be withdrawn")
    assert "'A' was removed" in panel.ui.bannerLabel.text
    assert panel.pages[panel.parameters.phase].state().text.startswith("Choose the preoperative volume")


def test_reloading_keeps_the_choices_and_leaves_one_timer(app: Any, panel: Any) -> None:
    complete(panel)
    for _ in range(2):
        slicer.util.getModuleWidget("IntraopMRI").onReload()
    now = slicer.util.getModuleWidget("IntraopMRI").panel
    assert now is not panel
    assert now.parameters.patientId == "P-1"
    assert not panel._timer.active
    assert now._timer.active
    assert not panel.Observations


def test_leaving_the_module_unbinds_and_returning_binds(panel: Any) -> None:
    panel.parameters.patientName = "Before"
    slicer.util.selectModule("IntraopMRIReconstruction")
    assert panel.parameters is None
    slicer.util.selectModule("IntraopMRI")
    assert page(panel, "CASE").ui.patientName.text == "Before"


def test_keys_blend_and_turn_pages(panel: Any) -> None:
    before = panel.parameters.blend
    keys = {shortcut.key.toString(): shortcut for shortcut in panel._shortcuts}
    keys["F6"].activated.emit()
    assert panel.parameters.blend == pytest.approx(before + 0.1)
    keys["Ctrl+PgDown"].activated.emit()
    assert panel.parameters.phase.name == "CONNECT"


def test_every_bound_widget_names_a_parameter(panel: Any) -> None:
    names = set()
    for ui in panel.boundUis():
        for widget in vars(ui).values():
            name = widget.property("SlicerParameterName")
            if name:
                panel.parameters.dataType(name)
                names.add(name)
    assert {"patientId", "scanner.port", "comparison", "decision"} <= names
