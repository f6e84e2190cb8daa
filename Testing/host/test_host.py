"""The host behaves as PythonQt, Slicer's widgets and Slicer's parameter nodes do, and refuses what it lacks."""

from __future__ import annotations

import gc
import xml.etree.ElementTree as ElementTree
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest
import slicer

from host import parameternodes, views
from host.fixtures import app, wait_until
from host.provided import NotProvided
from host.pythonqt import WrongSignature

pytestmark = pytest.mark.usefixtures("app")
__all__ = ["app"]


@pytest.fixture
def qt(app: Any) -> Any:
    import qt

    return qt


# PythonQt's habits


def test_properties_are_attributes(qt: Any) -> None:
    button = qt.QPushButton("Go")
    assert button.text == "Go"
    button.enabled = False
    button.text = "Stop"
    assert (button.text, button.enabled, button.isEnabled()) == ("Stop", False, False)
    box = qt.QComboBox()
    box.addItem("a")
    assert box.count == 1
    layout = qt.QVBoxLayout()
    assert layout.count() == 0


def test_a_misspelt_property_is_refused(qt: Any) -> None:
    with pytest.raises(AttributeError, match="tooltip"):
        qt.QPushButton().tooltip = "x"


def test_connect_takes_cpp_signatures(qt: Any) -> None:
    button, heard = qt.QPushButton(), []
    button.checkable = True
    button.connect("clicked()", lambda: heard.append("none"))
    button.connect("toggled(bool)", lambda on: heard.append(on))
    button.click()
    assert heard == ["none", True] or heard == [True, "none"]


def test_disconnect(qt: Any) -> None:
    button, heard = qt.QPushButton(), []

    def slot() -> None:
        heard.append(1)

    button.connect("clicked()", slot)
    assert button.disconnect("clicked()", slot)
    button.click()
    assert not heard


@pytest.mark.parametrize("signature", ["clicke()", "clicked(QString)", "valueChanged(int)"])
def test_a_signal_that_does_not_exist_is_refused(qt: Any, signature: str) -> None:
    with pytest.raises(WrongSignature):
        qt.QPushButton().connect(signature, lambda: None)


@pytest.mark.parametrize("name", ["Signal", "Slot", "Property", "QNothing"])
def test_qt_has_nothing_that_pythonqt_has_not(qt: Any, name: str) -> None:
    with pytest.raises(NotProvided, match=name):
        getattr(qt, name)


def test_calls_do_not_lose_references(qt: Any) -> None:
    import sys

    label = qt.QLabel()
    before = sys.getrefcount(None)
    for _ in range(500):
        label.setText("x")
    assert abs(sys.getrefcount(None) - before) < 250


# .ui files

UI = """<ui version="4.0"><class>W</class><widget class="qMRMLWidget" name="W"><layout class="QVBoxLayout" name="l">
<item><widget class="{kind}" name="child"><property name="{name}"><{type}>{value}</{type}></property></widget></item>
</layout></widget><connections><connection><sender>W</sender><signal>{signal}</signal>
<receiver>child</receiver><slot>{slot}</slot></connection></connections></ui>"""
GOOD = {
    "kind": "qMRMLNodeComboBox", "name": "noneEnabled", "type": "bool", "value": "true",
    "signal": "mrmlSceneChanged(vtkMRMLScene*)", "slot": "setMRMLScene(vtkMRMLScene*)",
}  # fmt: skip


def load(tmp_path: Path, **changed: str) -> Any:
    path = tmp_path / "w.ui"
    path.write_text(UI.format(**(GOOD | changed)))
    return slicer.util.loadUI(str(path))


def test_a_ui_file_hands_the_scene_down(tmp_path: Path) -> None:
    top = load(tmp_path)
    top.setMRMLScene(slicer.mrmlScene)
    child = slicer.util.childWidgetVariables(top).child
    assert child.mrmlScene() is slicer.mrmlScene
    assert child.noneEnabled is True


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"kind": "qMRMLTreeView"}, NotProvided),
        ({"kind": "QPushBotton"}, NotProvided),
        ({"name": "noneEnable"}, NotProvided),
        ({"signal": "sceneChanged(vtkMRMLScene*)"}, WrongSignature),
        ({"slot": "setScene(vtkMRMLScene*)"}, WrongSignature),
    ],
)
def test_a_wrong_ui_file_is_refused(tmp_path: Path, changed: dict[str, str], error: type) -> None:
    with pytest.raises(error):
        load(tmp_path, **changed)


# qMRMLNodeComboBox


@pytest.fixture
def selector() -> Any:
    made = slicer.qMRMLNodeComboBox()
    made.nodeTypes = ["vtkMRMLScalarVolumeNode"]
    made.noneEnabled = True
    made.setMRMLScene(slicer.mrmlScene)
    return made


def volume(name: str) -> Any:
    return slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)


def test_selector_follows_the_scene(selector: Any) -> None:
    heard: list[Any] = []
    selector.connect("currentNodeChanged(vtkMRMLNode*)", heard.append)
    node = volume("A")
    assert selector.nodeCount() == 1
    assert selector.currentNode() is None
    selector.setCurrentNode(node)
    assert heard == [node]
    slicer.mrmlScene.AddNewNodeByClass("vtkMRMLModelNode")
    assert selector.nodeCount() == 1


def test_without_none_the_first_node_is_chosen() -> None:
    made = slicer.qMRMLNodeComboBox()
    made.nodeTypes = ["vtkMRMLScalarVolumeNode"]
    node = volume("A")
    made.setMRMLScene(slicer.mrmlScene)
    assert made.currentNode() is node


def test_removing_the_chosen_node_chooses_its_neighbour(selector: Any) -> None:
    first, second = volume("A"), volume("B")
    selector.setCurrentNode(first)
    slicer.mrmlScene.RemoveNode(first)
    assert selector.currentNode() is second


def test_derived_types_can_be_left_out(selector: Any) -> None:
    slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode")
    assert selector.nodeCount() == 1
    selector.showChildNodeTypes = False
    assert selector.nodeCount() == 0


def test_hidden_nodes_are_left_out(selector: Any) -> None:
    volume("A").SetHideFromEditors(True)
    selector.showHidden = False
    assert selector.nodeCount() == 0


# parameter nodes


class Side(Enum):
    LEFT = 1
    RIGHT = 2


@pytest.fixture
def wrapped() -> type:
    class Link:
        host: str = "here"
        port: Annotated[int, parameternodes.WithinRange(1, 10)] = 5

    Link.__annotations__ = {"host": str, "port": Annotated[int, parameternodes.WithinRange(1, 10)]}
    pack = parameternodes.parameterPack(Link)

    class Parameters:
        ratio = 0.5
        link = pack()

    Parameters.__annotations__ = {
        "ratio": Annotated[float, parameternodes.WithinRange(0, 1)],
        "on": bool,
        "side": Side,
        "path": Path,
        "image": slicer.vtkMRMLScalarVolumeNode,
        "link": pack,
    }
    return parameternodes.parameterNodeWrapper(Parameters)


def scripted() -> Any:
    return slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScriptedModuleNode")


def test_keys_and_texts_are_those_of_slicer(wrapped: type) -> None:
    node = scripted()
    parameters = wrapped(node)
    image = volume("A")
    parameters.on, parameters.side, parameters.image = True, Side.RIGHT, image
    parameters.link.port = 7
    stored = {name: node.GetParameter(name) for name in node.GetParameterNames()}
    assert stored == {
        "ratio": "0.5", "on": "True", "side": "RIGHT", "path": ".", "image": "", "link.host": "here", "link.port": "7",
    }  # fmt: skip
    assert node.GetNodeReference("image") is image
    assert wrapped(node).link.port == 7


@pytest.mark.parametrize(
    ("name", "value"), [("ratio", 2.0), ("ratio", "a"), ("on", 1), ("side", "LEFT"), ("link.port", 99)]
)
def test_wrong_values_are_refused(wrapped: type, name: str, value: Any) -> None:
    parameters = wrapped(scripted())
    with pytest.raises((ValueError, TypeError)):
        parameters.setValue(name, value)


def test_gui_and_node_follow_each_other(qt: Any, wrapped: type) -> None:
    parameters = wrapped(scripted())
    box, spin, check = qt.QComboBox(), qt.QSpinBox(), qt.QCheckBox()
    tag = parameters.connectParametersToGui({"side": box, "link.port": spin, "on": check})
    assert (box.count, spin.maximum) == (2, 10)
    box.currentIndex, spin.value, check.checked = 1, 3, True
    assert (parameters.side, parameters.link.port, parameters.on) == (Side.RIGHT, 3, True)
    parameters.side = Side.LEFT
    assert box.currentIndex == 0
    parameters.disconnectGui(tag)
    spin.value = 9
    assert parameters.link.port == 3


def test_a_type_that_the_host_cannot_keep_is_refused() -> None:
    class Parameters:
        values: list

    Parameters.__annotations__ = {"values": list[int]}
    with pytest.raises(NotProvided, match="list"):
        parameternodes.parameterNodeWrapper(Parameters)


# views


def test_four_real_views_show_a_volume(app: Any) -> None:
    manager = app.layoutManager()
    manager.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
    app.processEvents()
    assert set(manager.sliceViewNames()) >= {"Red", "Yellow", "Green"}
    node = slicer.util.addVolumeFromArray(np.full((30, 30, 30), 200, np.uint8))
    node.CreateDefaultDisplayNodes()
    node.GetDisplayNode().SetAutoWindowLevel(False)
    node.GetDisplayNode().SetWindowLevel(200, 100)
    slicer.util.setSliceViewerLayers(background=node, fit=True)
    red = manager.sliceWidget("Red").sliceView()
    wait_until(lambda: views.picture_of(red).mean() > 60, 20, "the volume in the red view")


def test_a_custom_layout_reuses_the_views(app: Any) -> None:
    manager = app.layoutManager()
    before = manager.sliceWidget("Red")
    node = manager.layoutLogic().GetLayoutNode()
    view = '<item><view class="vtkMRMLSliceNode" singletontag="{}"/></item>'
    node.AddLayoutDescription(601, f'<layout type="horizontal">{view.format("Red")}{view.format("Green")}</layout>')
    manager.setLayout(601)
    app.processEvents()
    assert manager.layout == 601
    assert manager.sliceWidget("Red") is before
    assert before.visible
    assert not manager.sliceWidget("Yellow").visible
    manager.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
    app.processEvents()
    assert manager.sliceWidget("Yellow").visible


def test_a_view_type_that_the_host_lacks_is_refused(app: Any) -> None:
    node = app.layoutManager().layoutLogic().GetLayoutNode()
    node.AddLayoutDescription(
        602, '<layout type="tab"><item><view class="vtkMRMLSliceNode" singletontag="Red"/></item></layout>'
    )
    app.layoutManager().setLayout(602)
    assert "NotProvided" in "".join(app.problems)
    app.problems.clear()
    app.layoutManager().setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)


# the application


def test_modules_load_after_their_dependencies(app: Any) -> None:
    assert app.moduleManager().modulesNames() == ["IntraopMRIReconstruction", "IntraopMRI"]
    assert slicer.util.getModule("IntraopMRI").categories == ["IGT"]
    assert set(slicer.selfTests) == {"IntraopMRIReconstruction", "IntraopMRI"}


def test_sample_data_is_registered_with_a_digest() -> None:
    source = slicer.modules.sampleDataSources["IntraopMRI"][0]
    assert source["checksums"].startswith("SHA256:")
    assert Path(source["thumbnailFileName"]).is_file()


@pytest.mark.parametrize("name", ["IntraopMRIReconstruction", "IntraopMRI"])
def test_self_tests_of_the_modules_pass(name: str) -> None:
    slicer.selfTests[name]()


def test_a_static_getter_is_an_attribute_as_well(app: Any) -> None:
    """PythonQt looks for properties before methods: primaryScreen is a screen, not a function that gives one."""
    screen = slicer.app.primaryScreen
    assert screen.className() == "QScreen"
    assert screen.size.width() > 0


@pytest.mark.parametrize(("kind", "name"), [("ctkSliderWidget", "setRange"), ("ctkCollapsibleButton", "setCollapsed")])
def test_what_python_cannot_call_is_refused(app: Any, kind: str, name: str) -> None:
    """Public in C++, but no slot and not invokable: seen in PythonQt with CTK's own widgets."""
    import ctk

    with pytest.raises(AttributeError, match=name):
        getattr(getattr(ctk, kind)(), name)


def test_what_the_application_lacks_is_refused(app: Any) -> None:
    with pytest.raises(AttributeError, match="pythonConsole"):
        app.pythonConsole()
    with pytest.raises(NotProvided, match="segmenteditor"):
        _ = slicer.modules.segmenteditor
    import ctk

    with pytest.raises(NotProvided, match="ctkTreeComboBox"):
        _ = ctk.ctkTreeComboBox


def test_exceptions_in_callbacks_are_kept(app: Any, qt: Any) -> None:
    def fail() -> None:
        raise ValueError("in a callback")

    qt.QTimer.singleShot(0, fail)
    wait_until(lambda: app.problems, 10, "the recorded exception")
    assert "in a callback" in app.problems[0]
    app.problems.clear()


def test_translation_that_loses_a_field_is_refused(app: Any) -> None:
    from slicer.i18n import tr

    app.setTranslator(lambda context, text: "verloren" if "{" in text else f"{context}:{text}")
    try:
        assert tr("{count} files") == "{count} files"
        assert tr("Ready") == "host.test_host:Ready"
    finally:
        from PySide6 import QtCore

        app.setTranslator(QtCore.QCoreApplication.translate)
    gc.collect()


def test_ui_template_is_wellformed() -> None:
    assert ElementTree.fromstring(UI.format(**GOOD)) is not None
