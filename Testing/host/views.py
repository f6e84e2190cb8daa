"""Layout manager with real MRML slice and 3D views, drawn off screen and shown as pictures, with or without a screen.

Stands in for qSlicerLayoutManager and qMRMLLayoutManager (layouts from vtkMRMLLayoutLogic, which is the real one),
qMRMLSliceWidget / qMRMLSliceView and qMRMLThreeDWidget / qMRMLThreeDView (Slicer Libs/MRML/Widgets), and for the
render requests of ctkVTKAbstractView. The windows and displayable managers are the product's own off-screen views.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import slicer
import vtk
from IntraopMRILib.scene import offscreen
from PySide6 import QtCore, QtGui, QtWidgets
from PySide6.QtCore import Signal

from .mrmlwidgets import qMRMLWidget
from .provided import NotProvided

#: Render requests within this time are joined, as ctkVTKAbstractView does (60 pictures a second at most).
JOIN_MS = 16
#: After a picture that took long, this many times its duration is left to everything else.
IDLE_PARTS = 3
_BUTTONS = {
    QtCore.Qt.MouseButton.LeftButton: "LeftButton",
    QtCore.Qt.MouseButton.RightButton: "RightButton",
    QtCore.Qt.MouseButton.MiddleButton: "MiddleButton",
}


class _View(QtWidgets.QWidget):
    """Shows a VTK window as a picture and hands it the mouse. Source: ctkVTKAbstractView.cpp, qMRMLSliceView.cxx."""

    def __init__(self, drawn: Any, parent: Any) -> None:
        super().__init__(parent)
        self.drawn = drawn
        self._corner = vtk.vtkCornerAnnotation()
        drawn.renderer.AddViewProp(self._corner)
        self.renderSeconds = 0.0
        self._picture: QtGui.QImage | None = None
        self._paused = 0
        self.setMinimumSize(80, 80)
        self.setMouseTracking(True)
        self._timer = QtCore.QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(JOIN_MS)
        self._timer.timeout.connect(self.forceRender)
        self._tag = drawn.managers.AddObserver(vtk.vtkCommand.UpdateEvent, lambda *_: self.scheduleRender())

    # API of qMRMLSliceView and qMRMLThreeDView

    def renderWindow(self) -> Any:
        return self.drawn.window

    def interactor(self) -> Any:
        return self.drawn.interactor

    def renderer(self) -> Any:
        return self.drawn.renderer

    def cornerAnnotation(self) -> Any:
        return self._corner

    def displayableManagerByClassName(self, name: str) -> Any:
        return self.drawn.managers.GetDisplayableManagerByClassName(name)

    def scheduleRender(self) -> None:
        if not self._paused and not self._timer.isActive():
            self._timer.start()

    def forceRender(self) -> None:
        if self._paused or not self.visible:
            return
        began = time.perf_counter()
        picture = self.drawn.picture()
        self.renderSeconds = time.perf_counter() - began
        # Without a graphics card a picture can take longer than the requests come: leave time for everything else
        self._timer.setInterval(max(JOIN_MS, round(IDLE_PARTS * 1000 * self.renderSeconds)))
        height, width = picture.shape[:2]
        self._picture = QtGui.QImage(picture.tobytes(), width, height, 3 * width, QtGui.QImage.Format.Format_RGB888)
        self.update()

    # inside

    def pause(self, on: bool) -> None:
        self._paused = max(0, self._paused + (1 if on else -1))
        if not self._paused:
            self.scheduleRender()

    def close_view(self) -> None:
        self._timer.stop()
        self.drawn.managers.RemoveObserver(self._tag)
        self.drawn.close()

    def resizeEvent(self, _event: Any) -> None:
        ratio = self.devicePixelRatioF()
        self.drawn.window.SetSize(max(80, round(self.width * ratio)), max(80, round(self.height * ratio)))
        self.sized()
        self.scheduleRender()

    def sized(self) -> None:
        """A slice view fits its field of view to the new size."""

    def showEvent(self, _event: Any) -> None:
        self.scheduleRender()

    def paintEvent(self, _event: Any) -> None:
        painter = QtGui.QPainter(self)
        if self._picture is None:
            painter.fillRect(self.rect, QtCore.Qt.GlobalColor.black)
        else:
            painter.drawImage(self.rect, self._picture)

    def _send(self, event: Any, name: str) -> None:
        ratio = self.devicePixelRatioF()
        position = event.position()
        x, y = round(position.x() * ratio), round((self.height - position.y()) * ratio)
        modifiers = event.modifiers()
        control = bool(modifiers & QtCore.Qt.KeyboardModifier.ControlModifier)
        shift = bool(modifiers & QtCore.Qt.KeyboardModifier.ShiftModifier)
        interactor = self.drawn.interactor
        interactor.SetEventInformation(x, y, int(control), int(shift))
        interactor.InvokeEvent(name)

    def mousePressEvent(self, event: Any) -> None:
        self._send(event, f"{_BUTTONS.get(event.button(), 'LeftButton')}PressEvent")

    def mouseReleaseEvent(self, event: Any) -> None:
        self._send(event, f"{_BUTTONS.get(event.button(), 'LeftButton')}ReleaseEvent")

    def mouseMoveEvent(self, event: Any) -> None:
        self._send(event, "MouseMoveEvent")

    def wheelEvent(self, event: Any) -> None:
        self._send(event, f"MouseWheel{'Forward' if event.angleDelta().y() > 0 else 'Backward'}Event")


class _SliceView(_View):
    def sized(self) -> None:
        self.drawn.logic.ResizeSliceNode(*self.drawn.window.GetSize())

    def forceRender(self) -> None:
        self.drawn.connect()
        super().forceRender()

    def mrmlSliceNode(self) -> Any:
        return self.drawn.node


class _ThreeDView(_View):
    def mrmlViewNode(self) -> Any:
        return self.drawn.node

    def resetFocalPoint(self) -> None:
        self.drawn.renderer.ResetCamera()
        self.scheduleRender()


class _LiveSlice(offscreen.SliceView):
    """A slice view whose volumes are whatever the composite node says, as in Slicer."""

    def connect(self) -> None:
        connection = self.logic.GetImageDataConnection()
        self._slice.GetMapper().SetInputConnection(connection)
        self._slice.SetVisibility(connection is not None)


class qMRMLSliceWidget(qMRMLWidget):
    """A slice view with its bar. Source: qMRMLSliceWidget.cxx."""

    def __init__(self, manager: Any, node: Any) -> None:
        super().__init__()
        orientation = node.GetOrientation()
        drawn = _LiveSlice(manager.scene, manager.applicationLogic, node.GetLayoutName(), orientation, (300, 300))
        style = slicer.vtkMRMLSliceViewInteractorStyle()
        style.SetSliceLogic(drawn.logic)
        style.SetDisplayableManagers(drawn.managers)
        style.SetInteractor(drawn.interactor)
        self._style = style
        self._view = _SliceView(drawn, self)
        self._tag = drawn.logic.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: self._view.scheduleRender())
        self._bar = _bar(node, self)
        _stack(self, self._bar, self._view)

    def sliceView(self) -> Any:
        return self._view

    def sliceLogic(self) -> Any:
        return self._view.drawn.logic

    def mrmlSliceNode(self) -> Any:
        return self._view.drawn.node

    def mrmlSliceCompositeNode(self) -> Any:
        return self._view.drawn.logic.GetSliceCompositeNode()

    def sliceController(self) -> Any:
        return self._bar

    def fitSliceToBackground(self) -> None:
        self.sliceLogic().FitSliceToBackground()

    def close_view(self) -> None:
        self.sliceLogic().RemoveObserver(self._tag)
        self._view.close_view()


class qMRMLThreeDWidget(qMRMLWidget):
    """A 3D view with its bar. Source: qMRMLThreeDWidget.cxx."""

    def __init__(self, manager: Any, node: Any) -> None:
        super().__init__()
        drawn = offscreen.ThreeDView(manager.scene, manager.applicationLogic, node.GetLayoutName(), (300, 300))
        # Sorting translucent surfaces takes seven times as long without a graphics card; pictures switch it on again
        drawn.renderer.SetUseDepthPeeling(False)
        style = slicer.vtkMRMLThreeDViewInteractorStyle()
        style.SetDisplayableManagers(drawn.managers)
        style.SetInteractor(drawn.interactor)
        self._style = style
        self._view = _ThreeDView(drawn, self)
        self._bar = _bar(node, self)
        _stack(self, self._bar, self._view)

    def threeDView(self) -> Any:
        return self._view

    def threeDController(self) -> Any:
        return self._bar

    def mrmlViewNode(self) -> Any:
        return self._view.drawn.node

    def close_view(self) -> None:
        self._view.close_view()


def _bar(node: Any, parent: Any) -> Any:
    """A view's coloured title bar. Source: qMRMLViewControllerBar.cxx."""
    bar = QtWidgets.QLabel(node.GetLayoutLabel() or node.GetName(), parent)
    red, green, blue = (round(255 * c) for c in node.GetLayoutColor())
    bar.setStyleSheet(f"background: rgb({red},{green},{blue}); color: black; padding: 1px 6px;")
    bar.setFixedHeight(18)
    return bar


def _stack(widget: Any, *parts: Any) -> None:
    layout = QtWidgets.QVBoxLayout(widget)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(0)
    for part in parts:
        layout.addWidget(part)


class qSlicerLayoutManager(QtCore.QObject):
    """Shows the layout that the layout node asks for. Sources: qMRMLLayoutManager.cxx, qSlicerLayoutManager.cxx."""

    SIGNALS = {"layoutChanged(int)": "layoutChanged"}
    layoutChanged = Signal(int)

    def __init__(self, scene: Any, applicationLogic: Any) -> None:
        super().__init__()
        self.scene, self.applicationLogic = scene, applicationLogic
        self._viewport = QtWidgets.QWidget()
        QtWidgets.QVBoxLayout(self._viewport).setContentsMargins(0, 0, 0, 0)
        self._widgets: dict[str, Any] = {}
        self._shown = ""
        self._logic = slicer.vtkMRMLLayoutLogic()
        self._logic.SetMRMLApplicationLogic(applicationLogic)
        self._logic.SetMRMLScene(scene)
        node = self._logic.GetLayoutNode()
        node.SetViewArrangement(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
        self._tag = node.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: self._arrange())
        self._arrange()

    # API

    def viewport(self) -> Any:
        return self._viewport

    def layoutLogic(self) -> Any:
        return self._logic

    def mrmlScene(self) -> Any:
        return self.scene

    def _getLayout(self) -> int:
        return int(self._logic.GetLayoutNode().GetViewArrangement())

    def setLayout(self, layout: int) -> None:
        self._logic.GetLayoutNode().SetViewArrangement(layout)

    layout = property(_getLayout, setLayout)

    def sliceViewNames(self) -> tuple[str, ...]:
        return tuple(name for name, widget in self._widgets.items() if isinstance(widget, qMRMLSliceWidget))

    def sliceWidget(self, name: str) -> Any:
        widget = self._widgets.get(name)
        return widget if isinstance(widget, qMRMLSliceWidget) else None

    @property
    def threeDViewCount(self) -> int:
        return len(self._threeD())

    def threeDWidget(self, which: int | str) -> Any:
        found = self._threeD()
        if isinstance(which, str):
            return next((widget for widget in found if widget.mrmlViewNode().GetLayoutName() == which), None)
        return found[which] if 0 <= which < len(found) else None

    def mrmlSliceLogics(self) -> Any:
        return self.applicationLogic.GetSliceLogics()

    def resetSliceViews(self) -> None:
        for name in self.sliceViewNames():
            self.sliceWidget(name).fitSliceToBackground()

    def resetThreeDViews(self) -> None:
        for widget in self._threeD():
            widget.threeDView().resetFocalPoint()

    def setRenderPaused(self, on: bool) -> None:
        for widget in self._widgets.values():
            _view_of(widget).pause(on)

    # inside

    def _threeD(self) -> list[Any]:
        return [widget for widget in self._widgets.values() if isinstance(widget, qMRMLThreeDWidget)]

    def _arrange(self) -> None:
        node = self._logic.GetLayoutNode()
        description = node.GetCurrentLayoutDescription() if node is not None else None
        if not description or description == self._shown:
            return
        self._shown = description
        for widget in self._widgets.values():
            widget.setParent(None)
        layout = self._viewport.layout()
        while layout.count():
            layout.takeAt(0).widget().deleteLater()
        layout.addWidget(self._build(node.GetLayoutRootElement()))
        for widget in self._widgets.values():
            if widget.parent() is not None:
                widget.show()
        self.layoutChanged.emit(self._getLayout())

    def _build(self, element: Any) -> Any:
        kind = element.GetName()
        if kind == "view":
            return self._widgetOf(self._logic.GetViewFromElement(element), element)
        if kind != "layout":
            raise NotProvided("layout element", kind)
        direction = element.GetAttribute("type") or "horizontal"
        items = [element.GetNestedElement(index) for index in range(element.GetNumberOfNestedElements())]
        if direction == "grid":
            box = QtWidgets.QWidget()
            grid = QtWidgets.QGridLayout(box)
            grid.setContentsMargins(0, 0, 0, 0)
            for item in items:
                at = [int(item.GetAttribute(name) or 0) for name in ("row", "column")]
                grid.addWidget(self._build(item.GetNestedElement(0)), *at)
            return box
        if direction not in ("horizontal", "vertical"):
            raise NotProvided("layout type", direction)
        side = QtCore.Qt.Orientation.Horizontal if direction == "horizontal" else QtCore.Qt.Orientation.Vertical
        splitter = QtWidgets.QSplitter(side)
        for item in items:
            splitter.addWidget(self._build(item.GetNestedElement(0)))
        splitter.setSizes([int(item.GetAttribute("splitSize") or 500) for item in items])
        return splitter

    def _widgetOf(self, node: Any, element: Any) -> Any:
        if node is None:
            raise NotProvided("view", element.GetAttribute("class"))
        name = node.GetLayoutName() if node.IsA("vtkMRMLSliceNode") else node.GetClassName() + node.GetLayoutName()
        if name not in self._widgets:
            if node.IsA("vtkMRMLSliceNode"):
                self._widgets[name] = qMRMLSliceWidget(self, node)
            elif node.IsA("vtkMRMLViewNode"):
                self._widgets[name] = qMRMLThreeDWidget(self, node)
            else:
                raise NotProvided("view", node.GetClassName())
        return self._widgets[name]

    def close_views(self) -> None:
        """Let go of all windows and of the scene, before the process ends."""
        self._logic.GetLayoutNode().RemoveObserver(self._tag)
        for widget in self._widgets.values():
            widget.close_view()
        self._widgets.clear()
        self._logic.SetMRMLScene(None)


def _view_of(widget: Any) -> Any:
    return widget.sliceView() if isinstance(widget, qMRMLSliceWidget) else widget.threeDView()


def picture_of(widget: Any) -> np.ndarray:
    """A widget as an array (height, width, 3) uint8, for tests."""
    image = widget.grab().toImage().convertToFormat(QtGui.QImage.Format.Format_RGB888)
    rows = np.frombuffer(image.constBits(), np.uint8).reshape(image.height(), image.bytesPerLine())
    return rows[:, : 3 * image.width()].reshape(image.height(), image.width(), 3).copy()
