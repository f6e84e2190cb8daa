"""Loads .ui files as QUiLoader does inside Slicer, and refuses what QUiLoader would silently drop.

Stands in for QUiLoader with the designer plugins of CTK and Slicer (CTK: Libs/Widgets/Plugins; Slicer:
Libs/MRML/Widgets/DesignerPlugins). Classes, properties and connections that do not exist raise an error here.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from typing import Any

from PySide6 import QtCore, QtUiTools, QtWidgets

from .provided import NotProvided
from .pythonqt import WrongSignature

#: Stand-ins by C++ class name; the widget files add theirs.
WIDGETS: dict[str, type] = {}


def widget(kind: type) -> type:
    """Class decorator: .ui files may use this stand-in."""
    WIDGETS[kind.__name__] = kind
    return kind


class UiLoader(QtUiTools.QUiLoader):
    """QUiLoader that knows the stand-ins and forgives nothing."""

    def createWidget(self, className: str, parent: Any = None, name: str = "") -> Any:
        if className in WIDGETS:
            made = WIDGETS[className](parent)
            made.setObjectName(name)
            return made
        if not hasattr(QtWidgets, className):
            raise NotProvided("designer widget", className)
        return super().createWidget(className, parent, name)

    def load(self, device: Any, parent: Any = None) -> Any:
        root = ElementTree.fromstring(bytes(device.readAll().data()))
        specified = list(root.iter("widget"))
        for element in specified:
            class_name = element.get("class", "")
            if class_name not in WIDGETS and not hasattr(QtWidgets, class_name):
                raise NotProvided("designer widget", class_name)
        connections = root.find("connections")
        wanted = [] if connections is None else list(connections)
        if connections is not None:
            root.remove(connections)
        buffer = QtCore.QBuffer()
        buffer.setData(ElementTree.tostring(root))
        buffer.open(QtCore.QIODevice.OpenModeFlag.ReadOnly)
        top = super().load(buffer, parent)
        if top is None:
            raise RuntimeError(f"Could not load the .ui file: {self.errorString()}")
        by_name = {top.objectName: top}
        by_name |= {child.objectName: child for child in top.findChildren(QtCore.QObject) if child.objectName}
        for element in specified:
            _check_properties(by_name[element.get("name", "")], element)
        for connection in wanted:
            _connect(by_name, connection)
        return top


def _check_properties(made: Any, element: ElementTree.Element) -> None:
    meta = made.metaObject()
    for described in element.findall("property"):
        name = described.get("name", "")
        if described.get("stdset") != "0" and meta.indexOfProperty(name) < 0:
            raise NotProvided(element.get("class", ""), name)


def _connect(by_name: dict[str, Any], connection: ElementTree.Element) -> None:
    sender, signal, receiver, slot = (connection.findtext(tag, "") for tag in ("sender", "signal", "receiver", "slot"))
    target = by_name[receiver]
    slots = {entry for base in type(target).__mro__ for entry in vars(base).get("SLOTS", ())}
    if slot not in slots and target.metaObject().indexOfSlot(slot) < 0:
        raise WrongSignature(f"{type(target).__name__} has no slot '{slot}'")
    by_name[sender].connect(signal, target, slot)
