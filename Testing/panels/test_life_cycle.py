"""What an application does with a panel: other modules, layouts, scenes, undo, styles, languages, refused packages."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import slicer
from host.fixtures import app, wait_until
from IntraopMRIReconstructionLib.geometry import apply
from panels.operation import TARGET, Operation, pose, product, texts
from PySide6 import QtCore, QtGui

__all__ = ["app"]


@pytest.fixture
def operation(app: Any) -> Iterator[Operation]:
    """Confirmed, with a pointer at the target, page 5 open."""
    made = Operation()
    made.register()
    made.running.confirm()
    made.panel.parameters.surgeon = "Dr. E"
    made.page("SCAN").choices.acceptGood()
    made.open("NAVIGATE")
    made.point(apply(pose(), TARGET))
    yield made
    made.running.close()


def test_views_say_that_a_pose_is_old_while_another_module_is_open(operation: Operation) -> None:
    wait_until(lambda: "Registration good" in texts(operation, "3D"), 5, "the numbers")
    slicer.util.selectModule("IntraopMRIReconstruction")
    wait_until(lambda: any("POINTER LATE" in words for words in texts(operation, "Red")), 5, "the age of the pose")
    first = texts(operation, "Red")
    wait_until(lambda: texts(operation, "Red") != first, 5, "the age to grow")


def test_views_say_that_no_alarm_is_given_while_another_module_is_open(
    operation: Operation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(operation.session), "links", lambda _self: {"tracker": ("here", True)})
    slicer.util.selectModule("IntraopMRIReconstruction")
    live = replace(operation.panel._readout(), pose_trust="live", pose_age_s=0.0)
    titles = [banner.title for banner in product("scene.display").banners(live)]
    assert titles == ["NO ALARMS WHILE ANOTHER MODULE IS OPEN"]
    slicer.util.selectModule("IntraopMRI")
    assert not operation.panel._readout().unwatched


def test_nothing_is_left_in_the_views_when_the_session_ends(operation: Operation) -> None:
    wait_until(lambda: texts(operation, "3D"), 5, "the numbers")
    operation.running.disconnect()
    wait_until(lambda: not texts(operation, "3D") and not texts(operation, "Red"), 5, "the empty views")


def test_planes_of_the_pointer_are_given_back(operation: Operation) -> None:
    manager = slicer.app.layoutManager()

    def planes() -> list[str]:
        return [manager.sliceWidget(name).mrmlSliceNode().GetOrientation() for name in ("Red", "Green", "Yellow")]

    reslice = product("scene.parameters").Reslice
    assert planes() == ["Axial", "Coronal", "Sagittal"]
    operation.panel.parameters.reslice = reslice.IN_PLANE
    operation.point(apply(pose(), TARGET))
    assert planes() == ["Reformat"] * 3
    operation.panel.parameters.reslice = reslice.STANDARD
    operation.point(apply(pose(), TARGET))
    assert planes() == ["Axial", "Coronal", "Sagittal"]


def test_the_applications_own_words_in_the_corners_come_back(operation: Operation) -> None:
    annotation = slicer.app.layoutManager().sliceWidget("Red").sliceView().cornerAnnotation()
    wait_until(lambda: texts(operation, "Red"), 5, "our words")
    assert not annotation.GetVisibility(), "both would lie on one another"
    operation.running.disconnect()
    wait_until(annotation.GetVisibility, 5, "its own words")


def test_keys_belong_to_the_module_that_is_open(app: Any) -> None:
    slicer.util.selectModule("IntraopMRI")
    panel = slicer.util.getModuleWidget("IntraopMRI").panel
    assert all(shortcut.enabled for shortcut in panel._shortcuts)
    slicer.util.selectModule("")
    before = slicer.modules.IntraopMRIWidget
    second = slicer.app.moduleManager().module("IntraopMRI").createNewWidgetRepresentation()
    made = second.self()
    try:
        assert made.panel is not panel
        assert not any(shortcut.enabled for shortcut in made.panel._shortcuts), "a key must not mean two things"
    finally:
        made._onModuleAboutToBeUnloaded("IntraopMRI")
        second.deleteLater()
        slicer.modules.IntraopMRIWidget = before


def test_a_scene_that_is_added_ends_the_session_and_says_so(operation: Operation, tmp_path: Any) -> None:
    path = tmp_path / "other.mrml"
    path.write_text('<MRML version="Slicer4.4.0" userTags=""></MRML>')
    slicer.mrmlScene.SetURL(str(path))
    slicer.mrmlScene.Import()
    operation.panel.refresh()
    assert not operation.running.connected
    assert "A scene was loaded, which ended the session" in operation.panel.ui.bannerLabel.text
    wait_until(lambda: not texts(operation, "3D"), 5, "the empty views")


def test_undo_leaves_the_session_whole(app: Any) -> None:
    scene = slicer.mrmlScene
    scene.SetUndoOn()
    try:
        operation = Operation()
        nodes = [scene.GetNthNode(index) for index in range(scene.GetNumberOfNodes())]
        for node in nodes:
            node.SetUndoEnabled(True)
        scene.SaveStateForUndo()
        operation.register()
        operation.running.confirm()
        roles = operation.running.view.bridge.roles()
        scene.Undo()
        wait_until(lambda: not operation.panel._torn and not operation.panel._gone, 5, "the panel to look")
        operation.panel.refresh()
        bridge = operation.running.view.bridge
        assert bridge.roles() == roles
        assert all(bridge.node(role).GetScene() is scene for role in roles)
        operation.running.close()
    finally:
        scene.SetUndoOff()
        scene.ClearUndoStack()


@pytest.mark.parametrize("layout", ["SlicerLayoutOneUpRedSliceView", "SlicerLayoutOneUp3DView"])
def test_another_layout_changes_nothing_of_the_session(operation: Operation, layout: str) -> None:
    node = slicer.app.layoutManager().layoutLogic().GetLayoutNode()
    slicer.app.layoutManager().setLayout(getattr(node, layout))
    operation.point(apply(pose(), TARGET))
    operation.panel._slow_s = 0.0
    operation.panel._tick()
    assert operation.running.trusted
    operation.page("NAVIGATE").ui.fourUpButton.click()
    wait_until(lambda: slicer.app.layoutManager().sliceWidget("Yellow").visible, 5, "all views")


def test_words_can_be_read_on_light_and_dark_panels() -> None:
    style = product("scene.panels.style")

    def luminance(color: str) -> float:
        parts = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))

    def contrast(one: str, other: str) -> float:
        bright, dark = sorted((luminance(one), luminance(other)), reverse=True)
        return (bright + 0.05) / (dark + 0.05)

    try:
        for panel, dark in (("#efefef", False), ("#323232", True)):
            style.suit(dark)
            # WCAG 2.1: 4.5 for words, 3 for what is large or a border.
            for color in (style.GOOD, style.CHECK, style.DANGER):
                assert contrast(style.readable(color), panel) >= 4.5, (color, panel)
            for color in style.READINESS_COLORS.values():
                assert contrast(style.readable(color), panel) >= 3.0, (color, panel)
    finally:
        style.suit(False)


def test_a_dark_style_is_followed(operation: Operation, app: Any) -> None:
    operation.open("SCAN")
    label, style = operation.page("SCAN").ui.verdictLabel, product("scene.panels.style")
    before = app.palette()
    assert style.GOOD in label.text
    try:
        app.setPalette(QtGui.QPalette(QtGui.QColor(50, 50, 50)))
        app.processEvents()
        operation.panel.refresh()
        assert style.ON_DARK[style.GOOD] in label.text
    finally:
        app.setPalette(before)
        app.processEvents()
    operation.panel.refresh()
    assert style.GOOD in label.text


def test_decimals_with_a_comma(operation: Operation) -> None:
    """A number is read as it is shown, and never goes through words."""
    box = operation.page("CASE").ui.implantDiameterMm
    try:
        box.setLocale(QtCore.QLocale("de_DE"))
        box.lineEdit().setText("6,5 mm")
        box.interpretText()
        assert operation.panel.parameters.implantDiameterMm == pytest.approx(6.5)
        node = operation.panel.parameters.parameterNode
        assert float(node.GetParameter("implantDiameterMm")) == pytest.approx(6.5)
        operation.panel.parameters.implantDiameterMm = 4.5
        assert box.text == "4,5 mm"
    finally:
        box.setLocale(QtCore.QLocale())


@pytest.mark.parametrize("skipped", [False, True], ids=["declined", "skipped as in Slicer --testing"])
def test_packages_that_are_not_installed_are_named_and_the_way_stays_open(
    app: Any, monkeypatch: pytest.MonkeyPatch, skipped: bool
) -> None:
    common = product_of_reconstruction()
    monkeypatch.setattr(common, "_PACKAGES_FOUND", type(common._PACKAGES_FOUND)())
    monkeypatch.setattr(slicer.packaging, "pip_check", lambda _requirement: False)

    def refused(*_: Any, **__: Any) -> None:
        raise RuntimeError("User declined package installation")

    if not skipped:
        monkeypatch.setattr(slicer.packaging, "pip_ensure", refused)
    slicer.util.selectModule("IntraopMRI")
    panel = slicer.util.getModuleWidget("IntraopMRI").panel
    panel.refresh()
    panel.ui.nextButton.click()
    assert "Python packages are missing (fastcrc" in panel.ui.bannerLabel.text
    assert "start again and agree" in panel.ui.bannerLabel.text
    assert panel.running.theatre is None
    assert panel.ui.nextButton.text == "Start simulated theatre"
    assert panel.ui.nextButton.enabled
    panel.running.problem = ""


def product_of_reconstruction() -> Any:
    """The part that both panels share, as it is now."""
    return importlib.import_module("IntraopMRIReconstructionLib.scene.panel")
