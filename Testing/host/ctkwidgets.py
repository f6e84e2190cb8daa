"""The ctk widgets that our panels use. Sources: CTK Libs/Widgets, one class each in the file of the same name."""

from __future__ import annotations

from typing import Any

from PySide6 import QtCore, QtGui, QtWidgets
from PySide6.QtCore import Property, Signal

from .provided import LoudModule
from .uiloader import widget


@widget
class ctkCollapsibleButton(QtWidgets.QAbstractButton):
    """A titled section that folds. Source: ctkCollapsibleButton.cpp; checked is the opposite of collapsed."""

    SIGNALS = {"contentsCollapsed(bool)": "contentsCollapsed"}
    contentsCollapsed = Signal(bool)

    def __init__(self, parent: Any = None) -> None:
        text, parent = (parent, None) if isinstance(parent, str) else ("", parent)
        super().__init__(parent)
        self.setText(text)
        self.setCheckable(True)
        self.setChecked(True)
        self.setSizePolicy(QtWidgets.QSizePolicy.Policy.Preferred, QtWidgets.QSizePolicy.Policy.Preferred)
        self.setContentsMargins(0, self._titleHeight(), 0, 0)
        self.toggled.connect(lambda checked: self._fold(not checked))

    def _titleHeight(self) -> int:
        return QtGui.QFontMetrics(self.font).height() + 10

    def _getCollapsed(self) -> bool:
        return not self.checked

    def _setCollapsed(self, collapsed: bool) -> None:
        self.setChecked(not collapsed)

    collapsed = Property(bool, _getCollapsed, _setCollapsed)

    def _fold(self, collapsed: bool) -> None:
        for child in self.children():
            if isinstance(child, QtWidgets.QWidget):
                child.setVisible(not collapsed)
        self.setMaximumHeight(self._titleHeight() if collapsed else 16777215)
        self.updateGeometry()
        self.contentsCollapsed.emit(collapsed)

    def showEvent(self, event: Any) -> None:
        super().showEvent(event)
        if not self.checked:
            self._fold(True)

    def hitButton(self, position: QtCore.QPoint) -> bool:
        return position.y() < self._titleHeight()

    def sizeHint(self) -> QtCore.QSize:
        inner = self.layout().totalSizeHint() if self.layout() else QtCore.QSize(100, self._titleHeight())
        return inner if self.checked else QtCore.QSize(inner.width(), self._titleHeight())

    def minimumSizeHint(self) -> QtCore.QSize:
        inner = self.layout().totalMinimumSize() if self.layout() else QtCore.QSize(100, self._titleHeight())
        return inner if self.checked else QtCore.QSize(inner.width(), self._titleHeight())

    def paintEvent(self, _event: Any) -> None:
        painter = QtGui.QPainter(self)
        option = QtWidgets.QStyleOption()
        option.initFrom(self)
        title = QtCore.QRect(0, 0, self.width, self._titleHeight() - 3)
        painter.fillRect(title, option.palette.color(QtGui.QPalette.ColorRole.Button))
        arrow = QtWidgets.QStyle.PrimitiveElement
        option.rect = QtCore.QRect(6, (title.height() - 12) // 2, 12, 12)
        self.style().drawPrimitive(
            arrow.PE_IndicatorArrowDown if self.checked else arrow.PE_IndicatorArrowRight, option, painter, self
        )
        painter.setPen(option.palette.color(QtGui.QPalette.ColorRole.ButtonText))
        painter.drawText(title.adjusted(24, 0, 0, 0), QtCore.Qt.AlignmentFlag.AlignVCenter, self.text)


@widget
class ctkSliderWidget(QtWidgets.QWidget):
    """A slider with a spin box of the same value. Source: ctkSliderWidget.cpp."""

    SIGNALS = {"valueChanged(double)": "valueChanged", "valueIsChanging(double)": "valueIsChanging"}
    valueChanged = Signal(float)
    valueIsChanging = Signal(float)

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._slider = QtWidgets.QSlider(QtCore.Qt.Orientation.Horizontal, self)
        self._box = QtWidgets.QDoubleSpinBox(self)
        self._tracking = True
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._slider, 1)
        layout.addWidget(self._box)
        self._box.setRange(0.0, 99.0)
        self._box.valueChanged.connect(self._fromBox)
        self._slider.valueChanged.connect(self._fromSlider)
        self._slider.sliderReleased.connect(lambda: self.valueChanged.emit(self._box.value))
        self._rescale()

    def _rescale(self) -> None:
        self._slider.blockSignals(True)
        steps = max(1, round((self._box.maximum - self._box.minimum) / max(self._box.singleStep, 1e-9)))
        self._slider.setRange(0, steps)
        self._slider.setValue(round((self._box.value - self._box.minimum) / max(self._box.singleStep, 1e-9)))
        self._slider.blockSignals(False)

    def _fromSlider(self, step: int) -> None:
        self._box.setValue(self._box.minimum + step * self._box.singleStep)

    def _fromBox(self, value: float) -> None:
        self._rescale()
        self.valueIsChanging.emit(value)
        if self._tracking or not self._slider.isSliderDown():
            self.valueChanged.emit(value)

    def _boxProperty(name: str, kind: type) -> Any:  # noqa: N805 - runs while the class is made
        def read(self: Any) -> Any:
            return getattr(self._box, name)

        def write(self: Any, value: Any) -> None:
            setattr(self._box, name, value)
            self._rescale()

        return Property(kind, read, write)

    value = _boxProperty("value", float)
    minimum = _boxProperty("minimum", float)
    maximum = _boxProperty("maximum", float)
    singleStep = _boxProperty("singleStep", float)
    decimals = _boxProperty("decimals", int)
    prefix = _boxProperty("prefix", str)
    suffix = _boxProperty("suffix", str)

    def setValue(self, value: float) -> None:
        self._box.setValue(value)

    def _getTracking(self) -> bool:
        return self._tracking

    def _setTracking(self, on: bool) -> None:
        self._tracking = on

    tracking = Property(bool, _getTracking, _setTracking)


@widget
class ctkPathLineEdit(QtWidgets.QWidget):
    """A path with a browse button. Source: ctkPathLineEdit.cpp."""

    SIGNALS = {"currentPathChanged(QString)": "currentPathChanged", "validInputChanged(bool)": "validInputChanged"}
    currentPathChanged = Signal(str)
    validInputChanged = Signal(bool)
    Dirs, Files = 0x001, 0x002

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._edit = QtWidgets.QLineEdit(self)
        self._button = QtWidgets.QToolButton(self)
        self._button.setText("…")
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._edit, 1)
        layout.addWidget(self._button)
        self._filters: list[str] = []
        self._kinds = self.Dirs | self.Files
        self._edit.textChanged.connect(self.currentPathChanged.emit)
        self._button.clicked.connect(self.browse)

    def _getPath(self) -> str:
        return str(self._edit.text)

    def setCurrentPath(self, path: str) -> None:
        self._edit.setText(path)

    currentPath = Property(str, _getPath, setCurrentPath)

    def _getFilters(self) -> list[str]:
        return self._filters

    def _setNameFilters(self, filters: list[str]) -> None:
        self._filters = list(filters)

    nameFilters = Property("QStringList", _getFilters, _setNameFilters)

    def _getKinds(self) -> int:
        return self._kinds

    def _setKinds(self, kinds: int) -> None:
        self._kinds = kinds

    filters = Property(int, _getKinds, _setKinds)

    def browse(self) -> None:
        if self._kinds & self.Files:
            path, _ = QtWidgets.QFileDialog.getOpenFileName(self, "", self.currentPath, ";;".join(self._filters))
        else:
            path = QtWidgets.QFileDialog.getExistingDirectory(self, "", self.currentPath)
        if path:
            self.setCurrentPath(path)


class ctkMessageBox(QtWidgets.QMessageBox):
    """A message box; 'don't show again' is not provided. Source: ctkMessageBox.cpp."""


def module() -> LoudModule:
    """The module ``ctk``."""
    made = LoudModule("ctk")
    for kind in (ctkCollapsibleButton, ctkSliderWidget, ctkPathLineEdit, ctkMessageBox):
        setattr(made, kind.__name__, kind)
    return made
