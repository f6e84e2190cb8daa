"""The qMRML widgets that our panels use. Sources: Slicer Libs/MRML/Widgets, one class each in the file of its name."""

from __future__ import annotations

import weakref
from typing import Any

import shiboken6
import vtk
from PySide6 import QtWidgets
from PySide6.QtCore import Property, Signal

from .uiloader import widget


def _unowned(owner: Any, method: str) -> Any:
    """A callback that does not keep its owner alive and is silent once Qt has deleted it."""
    reference = weakref.ref(owner)

    def call(*arguments: Any) -> None:
        alive = reference()
        if alive is not None and shiboken6.isValid(alive):
            getattr(alive, method)(*arguments)

    return call


def _release(observed: list[tuple[Any, int]]) -> None:
    for what, tag in observed:
        what.RemoveObserver(tag)
    observed.clear()


@widget
class qMRMLWidget(QtWidgets.QWidget):
    """Knows a scene and tells its children. Source: qMRMLWidget.cxx."""

    SIGNALS = {"mrmlSceneChanged(vtkMRMLScene*)": "mrmlSceneChanged"}
    SLOTS = ("setMRMLScene(vtkMRMLScene*)",)
    mrmlSceneChanged = Signal(object)

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._scene: Any = None

    def mrmlScene(self) -> Any:
        return self._scene

    def setMRMLScene(self, scene: Any) -> None:
        if scene is not self._scene:
            self._scene = scene
            self.mrmlSceneChanged.emit(scene)


@widget
class qMRMLNodeComboBox(QtWidgets.QWidget):
    """Chooses a node of the scene. Sources: qMRMLNodeComboBox.cxx, qMRMLSortFilterProxyModel.cxx, qMRMLNodeFactory.cxx.

    As in Slicer: without 'None' the first node is chosen by itself; when the chosen node is removed, its neighbour in
    the list is (QComboBox keeps the row).
    """

    SIGNALS = {
        "currentNodeChanged(vtkMRMLNode*)": "currentNodeChanged",
        "currentNodeIDChanged(QString)": "currentNodeIDChanged",
        "nodeAddedByUser(vtkMRMLNode*)": "nodeAddedByUser",
        "nodeActivated(vtkMRMLNode*)": "nodeActivated",
    }
    SLOTS = ("setMRMLScene(vtkMRMLScene*)", "setCurrentNode(vtkMRMLNode*)", "setCurrentNodeID(QString)")
    currentNodeChanged = Signal(object)
    currentNodeIDChanged = Signal(str)
    nodeAddedByUser = Signal(object)
    nodeActivated = Signal(object)

    _NONE, _CREATE, _REMOVE, _RENAME = "", "CREATE/", "DELETE/", "RENAME/"

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._scene: Any = None
        self._observed: list[tuple[Any, int]] = []
        self._names: dict[Any, tuple[Any, int]] = {}
        self._nodeTypes: list[str] = []
        self._attributes: list[tuple[str, str, Any]] = []
        self._baseName = ""
        self._flags = {"noneEnabled": False, "addEnabled": True, "removeEnabled": True, "renameEnabled": False}
        self._flags |= {"showHidden": False, "showChildNodeTypes": True, "selectNodeUponCreation": True}
        self._noneDisplay = "None"
        self._currentID = ""
        self._box = QtWidgets.QComboBox(self)
        self._box.setSizeAdjustPolicy(QtWidgets.QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._box)
        self._box.activated.connect(self._onActivated)
        self._box.currentIndexChanged.connect(self._onIndexChanged)
        self.setEnabled(False)
        observed = self._observed
        self.destroyed.connect(lambda *_: _release(observed))

    # properties

    def _flag(name: str) -> Any:  # noqa: N805 - runs while the class is made
        def read(self: Any) -> bool:
            return bool(self._flags[name])

        def write(self: Any, value: bool) -> None:
            self._flags[name] = bool(value)
            self._populate()

        return Property(bool, read, write)

    noneEnabled = _flag("noneEnabled")
    addEnabled = _flag("addEnabled")
    removeEnabled = _flag("removeEnabled")
    renameEnabled = _flag("renameEnabled")
    showHidden = _flag("showHidden")
    showChildNodeTypes = _flag("showChildNodeTypes")
    selectNodeUponCreation = _flag("selectNodeUponCreation")

    def _getNodeTypes(self) -> list[str]:
        return list(self._nodeTypes)

    def _setNodeTypes(self, types: Any) -> None:
        self._nodeTypes = list(types)
        self._populate()

    nodeTypes = Property("QStringList", _getNodeTypes, _setNodeTypes)

    def _getNoneDisplay(self) -> str:
        return self._noneDisplay

    def _setNoneDisplay(self, text: str) -> None:
        self._noneDisplay = text
        self._populate()

    noneDisplay = Property(str, _getNoneDisplay, _setNoneDisplay)

    def _getBaseName(self) -> str:
        return self._baseName

    def _setBaseName(self, name: str) -> None:
        self._baseName = name

    baseName = Property(str, _getBaseName, _setBaseName)

    def _getCurrentNodeID(self) -> str:
        return self._currentID

    def setCurrentNodeID(self, nodeID: str) -> None:
        row = self._box.findData(nodeID) if nodeID else -1
        self._box.setCurrentIndex(row if row >= 0 else (0 if self._flags["noneEnabled"] else -1))

    currentNodeID = Property(str, _getCurrentNodeID, setCurrentNodeID)

    # methods

    def mrmlScene(self) -> Any:
        return self._scene

    def setMRMLScene(self, scene: Any) -> None:
        if scene is self._scene:
            return
        self._unobserve()
        self._scene = scene
        self.setEnabled(scene is not None)
        if scene is not None:
            changed = _unowned(self, "_populate")
            for event in (scene.NodeAddedEvent, scene.NodeRemovedEvent, scene.EndBatchProcessEvent):
                self._observed.append((scene, scene.AddObserver(event, changed)))
        self._populate()

    def _unobserve(self) -> None:
        _release(self._observed)
        self._names.clear()

    def addAttribute(self, nodeType: str, name: str, value: Any = None) -> None:
        self._attributes.append((nodeType, name, value))
        self._populate()

    def _nodes(self) -> list[Any]:
        if self._scene is None:
            return []
        if len(self._nodeTypes) == 1:
            # In C++ as the real one: asked in Python, every node that is added costs each selector a millisecond.
            collection = self._scene.GetNodesByClass(self._nodeTypes[0])
            collection.UnRegister(None)
            found = [collection.GetItemAsObject(index) for index in range(collection.GetNumberOfItems())]
        else:
            found = [self._scene.GetNthNode(index) for index in range(self._scene.GetNumberOfNodes())]
        return [node for node in found if self._accepts(node)]

    def nodeCount(self) -> int:
        return len(self._nodes())

    def nodeFromIndex(self, index: int) -> Any:
        nodes = self._nodes()
        return nodes[index] if 0 <= index < len(nodes) else None

    def currentNode(self) -> Any:
        return self._scene.GetNodeByID(self._currentID) if self._scene is not None and self._currentID else None

    def setCurrentNode(self, node: Any) -> None:
        self.setCurrentNodeID(node if isinstance(node, str) else (node.GetID() or "" if node is not None else ""))

    def setCurrentNodeIndex(self, index: int) -> None:
        self.setCurrentNode(self.nodeFromIndex(index))

    def addNode(self, nodeType: str = "") -> Any:
        nodeType = nodeType or self._nodeTypes[0]
        if nodeType not in self._nodeTypes:
            return None
        node = self._scene.CreateNodeByClass(nodeType)
        node.UnRegister(None)
        node.SetName(self._scene.GenerateUniqueName(self._baseName or node.GetNodeTagName()))
        for kind, name, value in self._attributes:
            if kind == nodeType:
                node.SetAttribute(name, value)
        self._scene.AddNode(node)
        if self._flags["selectNodeUponCreation"]:
            self.setCurrentNode(node)
        self.nodeAddedByUser.emit(node)
        return node

    def removeCurrentNode(self) -> None:
        self._scene.RemoveNode(self.currentNode())

    # inside

    def _accepts(self, node: Any) -> bool:
        if node.GetHideFromEditors() and not self._flags["showHidden"]:
            return False
        exact = node.GetClassName() in self._nodeTypes
        child = self._flags["showChildNodeTypes"] and any(node.IsA(kind) for kind in self._nodeTypes)
        if not (exact or child):
            return False
        for kind, name, value in self._attributes:
            if node.IsA(kind):
                actual = node.GetAttribute(name)
                if actual is None or (value is not None and actual != value):
                    return False
        return True

    def _label(self, nodeType: str) -> str:
        node = self._scene.CreateNodeByClass(nodeType)
        node.UnRegister(None)
        return str(node.GetNodeTagName())

    def _populate(self, *_: Any) -> None:
        if self._scene is not None and self._scene.IsBatchProcessing():
            return
        row, nodes = self._box.currentIndex, self._nodes()
        self._box.blockSignals(True)
        self._box.clear()
        if self._scene is not None:
            if self._flags["noneEnabled"]:
                self._box.addItem(self._noneDisplay, self._NONE)
            for node in nodes:
                self._box.addItem(node.GetName() or "", node.GetID())
                if node not in self._names:
                    tag = node.AddObserver(vtk.vtkCommand.ModifiedEvent, _unowned(self, "_rename"))
                    self._names[node] = (node, tag)
                    self._observed.append(self._names[node])
            selectable = self._box.count
            if nodes and self._flags["renameEnabled"]:
                self._box.addItem("Rename current", self._RENAME)
            if self._flags["addEnabled"]:
                for kind in self._nodeTypes:
                    self._box.addItem(f"Create new {self._label(kind)}", self._CREATE + kind)
            if nodes and self._flags["removeEnabled"]:
                self._box.addItem("Delete current", self._REMOVE)
            kept = self._box.findData(self._currentID) if self._currentID else -1
            first = 0 if selectable else -1
            if kept < 0 and self._currentID:
                kept = min(row, selectable - 1)
            self._box.setCurrentIndex(kept if kept >= 0 else first)
        self._box.blockSignals(False)
        for node in [node for node in self._names if node not in nodes]:
            entry = self._names.pop(node)
            self._observed.remove(entry)
            _release([entry])
        self._onIndexChanged(self._box.currentIndex)

    def _rename(self, node: Any, _event: str) -> None:
        row = self._box.findData(node.GetID())
        if row >= 0 and self._box.itemText(row) != node.GetName():
            self._box.setItemText(row, node.GetName() or "")

    def _onIndexChanged(self, row: int) -> None:
        data = self._box.itemData(row) if row >= 0 else ""
        if data and not str(data).startswith("vtkMRML"):
            return
        if (data or "") != self._currentID:
            self._currentID = data or ""
            self.currentNodeChanged.emit(self.currentNode())
            self.currentNodeIDChanged.emit(self._currentID)

    def _onActivated(self, row: int) -> None:
        data = str(self._box.itemData(row) or "")
        if data.startswith(self._CREATE):
            self.addNode(data.removeprefix(self._CREATE))
        elif data == self._REMOVE:
            self.removeCurrentNode()
        elif data == self._RENAME:
            name, accepted = QtWidgets.QInputDialog.getText(self, "Rename", "New name:")
            if accepted and name:
                self.currentNode().SetName(name)
        self.setCurrentNodeID(self._currentID)
        self.nodeActivated.emit(self.currentNode())


class qSlicerWidget(QtWidgets.QWidget):
    """Hears of the scene; only its C++ side can be asked for it. Source: Slicer Base/QTGUI/qSlicerWidget.cxx."""

    SIGNALS = {"mrmlSceneChanged(vtkMRMLScene*)": "mrmlSceneChanged"}
    SLOTS = ("setMRMLScene(vtkMRMLScene*)",)
    mrmlSceneChanged = Signal(object)

    def setMRMLScene(self, scene: Any) -> None:
        self.mrmlSceneChanged.emit(scene)


def classes() -> dict[str, type]:
    """What appears in the module ``slicer``."""
    return {kind.__name__: kind for kind in (qMRMLWidget, qMRMLNodeComboBox, qSlicerWidget)}
