"""Every page fits the panel at 1280 x 800: nothing is cut off, nothing needs a horizontal scroll bar."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import slicer
from host.fixtures import app, wait_until
from IntraopMRIReconstructionLib.geometry import apply
from panels import test_heat, test_pieces
from panels.operation import TARGET, Operation, pose
from PySide6 import QtCore, QtGui, QtWidgets

__all__ = ["app"]

#: Sections that are folded when a page opens.
FOLDED = {
    "simulationSection", "rawDataSection", "trustSection", "traceSection", "toolSection", "alarmSection", "viewSection",
    "measuredSection", "measureSection", "archiveSection", "heatSection", "dialectSection", "pieceSection",
    "reportSection",
}  # fmt: skip
#: Keys of Slicer: slice views (vtkMRMLSliceIntersectionWidget), 3D views (vtkMRMLCameraWidget), main window and module
#: bar (qSlicerMainWindow.ui and .cxx, qSlicerModuleSelectorToolBar), Segment Editor (qMRMLSegmentEditorWidget).
OF_SLICER = (
    *"FBGTVR[]{}+-ZYI0123456789", "Shift+V", "Left", "Right", "Up", "Down", "PgDown", "Shift+PgDown", "Home", "End",
    "Ins", "Esc", "Space", "Del", "Backspace", *(f"Ctrl+{key}" for key in ("Left", "Right", *"OSWZYXCVHFB0123456`")),
)  # fmt: skip
PAGES = ("CASE", "CONNECT", "REGISTER", "SCAN", "NAVIGATE", "DECIDE")


@pytest.fixture
def window(app: Any) -> Any:
    found = slicer.util.mainWindow()
    found.resize(1280, 800)
    slicer.util.selectModule("IntraopMRI")
    return found


def shown(app: Any, name: str) -> Any:
    """The page with every section open."""
    panel = slicer.util.getModuleWidget("IntraopMRI").panel
    page = next(p for phase, p in panel.pages.items() if phase.name == name)
    panel.open(page.phase)
    for widget in vars(page.ui).values():
        if type(widget).__name__ == "ctkCollapsibleButton":
            widget.collapsed = False
    for _ in range(5):
        app.processEvents()
    return page


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_no_wider_than_the_panel(app: Any, window: Any, name: str) -> None:
    page = shown(app, name)
    scroll = window.findChild(QtWidgets.QScrollArea)
    assert scroll.widget().minimumSizeHint().width() <= scroll.viewport().size.width()
    right = scroll.viewport().size.width()
    for widget in page.widget.findChildren(QtWidgets.QWidget):
        if widget.isVisibleTo(page.widget) and not isinstance(widget.parent, QtWidgets.QAbstractScrollArea):
            edge = widget.mapTo(scroll.widget(), widget.rect.topRight()).x()
            assert edge <= right, f"{widget.objectName} of page {name} ends at {edge}, the panel at {right}"


@pytest.mark.parametrize("name", PAGES)
def test_no_word_is_cut_off(app: Any, window: Any, name: str) -> None:
    page = shown(app, name)
    kinds = (QtWidgets.QPushButton, QtWidgets.QCheckBox, QtWidgets.QLabel)
    for widget in [w for kind in kinds for w in page.widget.findChildren(kind)]:
        wraps = isinstance(widget, QtWidgets.QLabel) and widget.wordWrap
        if widget.isVisibleTo(page.widget) and widget.text and not wraps and "<" not in widget.text:
            words = widget.fontMetrics().horizontalAdvance(widget.text)
            assert words <= widget.width, f"'{widget.text}' of page {name} takes {words}, has {widget.width}"


@pytest.mark.parametrize("larger_by", [1.25, 1.5])
@pytest.mark.parametrize("name", PAGES)
def test_larger_letters_fit_across_the_panel(app: Any, window: Any, name: str, larger_by: float) -> None:
    panel = slicer.util.getModuleWidget("IntraopMRI").panel
    before = QtWidgets.QApplication.font()
    larger = QtWidgets.QApplication.font()
    larger.setPointSizeF(larger_by * before.pointSizeF())
    QtWidgets.QApplication.setFont(larger)
    try:
        panel.open(next(phase for phase in panel.pages if phase.name == name))
        for widget in vars(panel.pages[panel.parameters.phase].ui).values():
            if type(widget).__name__ == "ctkCollapsibleButton" and widget.name in FOLDED:
                widget.collapsed = True
        wait_until(lambda: panel.suited.scale > 1.0, 5, "the larger letters")
        panel.refresh()
        for _ in range(5):
            app.processEvents()
        scroll = window.findChild(QtWidgets.QScrollArea)
        assert scroll.horizontalScrollBar().maximum == 0
    finally:
        QtWidgets.QApplication.setFont(before)
        wait_until(lambda: panel.suited.scale == 1.0, 5, "the letters as before")


@pytest.mark.parametrize("name", PAGES)
def test_the_tab_key_goes_from_top_to_bottom(app: Any, window: Any, name: str) -> None:
    page = shown(app, name)
    widget, tops = page.widget.nextInFocusChain(), []
    while page.widget.isAncestorOf(widget):
        if widget.isVisibleTo(page.widget) and widget.focusPolicy & QtCore.Qt.TabFocus:
            tops.append((widget.mapTo(page.widget, QtCore.QPoint(0, 0)).y(), widget.objectName))
        widget = widget.nextInFocusChain()
    assert len(tops) > 5
    # What stands beside one another may differ by some pixels.
    back = [(one, other) for one, other in pairwise(tops) if other[0] < one[0] - 12]
    assert not back


def test_an_operation_needs_no_scroll_bar(app: Any, window: Any) -> None:
    """Pages as they open, with a plan, a registration and a pointer; what is folded is secondary."""
    operation = Operation()
    operation.register()
    operation.running.confirm()
    operation.panel.parameters.surgeon = "Dr. Example"
    operation.page("SCAN").choices.acceptGood()
    scroll = window.findChild(QtWidgets.QScrollArea)
    for name in ("CASE", "CONNECT", "REGISTER", "NAVIGATE", "DECIDE"):
        for widget in vars(operation.page(name).ui).values():
            if type(widget).__name__ == "ctkCollapsibleButton" and widget.name in FOLDED:
                widget.collapsed = True
        operation.open(name)
        if name == "NAVIGATE":
            operation.point(apply(pose(), TARGET))
        wait_until(lambda: not operation.panel._asked, 5, "the page")
        for _ in range(5):
            app.processEvents()
        assert scroll.verticalScrollBar().maximum == 0, name
        assert scroll.widget().size.width() <= scroll.viewport().size.width(), name


def overflow(app: Any, window: Any, operation: Operation, name: str) -> int:
    """Pixels by which the open page is too high."""
    operation.open(name)
    operation.panel.refresh()
    wait_until(lambda: not operation.panel._asked, 5, "the page")
    for _ in range(8):
        app.processEvents()
    return int(window.findChild(QtWidgets.QScrollArea).verticalScrollBar().maximum)


def test_an_ablation_and_pieces_need_no_scroll_bar_while_lines_arrive(app: Any, window: Any) -> None:
    operation = Operation()
    operation.panel.parameters.surgeon = "Dr. Example"
    operation.register()
    operation.running.confirm()
    operation.page("SCAN").choices.acceptGood()
    test_pieces.find(operation)
    for name in ("SCAN", "DECIDE"):
        for widget in vars(operation.page(name).ui).values():
            if type(widget).__name__ == "ctkCollapsibleButton":
                widget.collapsed = True
    ui = operation.page("DECIDE").ui
    ui.decisionSection.collapsed = False
    operation.running.progress = 0.4, "receiving T1 contrast"
    assert overflow(app, window, operation, "DECIDE") == 0
    assert "2 pieces" in ui.pieceSection.text
    # One of both is open: what the other says stands in its title.
    ui.pieceSection.collapsed = False
    assert ui.decisionSection.collapsed
    assert "Not decided, Dr. Example" in ui.decisionSection.text
    ui.nextPieceButton.click()
    assert overflow(app, window, operation, "DECIDE") == 0
    test_pieces.follow(operation, 12.0)
    for _piece in range(2):
        assert overflow(app, window, operation, "DECIDE") == 0
        ui.nextPieceButton.click()
    ui.decisionSection.collapsed = False
    assert ui.pieceSection.collapsed
    test_heat.tell(operation, test_heat.numbers())
    operation.running.progress = 0.4, "receiving Thermometry"
    operation.running.warnings = ["A warning that is long enough for two lines of the panel, as most of them are"]
    assert overflow(app, window, operation, "SCAN") == 0
    assert not operation.page("SCAN").ui.heatSection.collapsed


def test_a_banner_pushes_nothing_of_the_link_out_of_sight(app: Any, window: Any) -> None:
    panel = slicer.util.getModuleWidget("IntraopMRI").panel
    panel.parameters.patientId = "P-1"
    page = shown(app, "CONNECT")
    page.ui.dialectSection.collapsed = page.ui.trustSection.collapsed = page.ui.rawDataSection.collapsed = True
    panel.running.problem = "The scanner at 127.0.0.1:18944 does not answer: is it switched on, and is the port right?"
    panel.running.warnings = ["A first warning that is long enough for two lines of the panel, as most of them are"] * 2
    try:
        panel.refresh()
        for _ in range(5):
            app.processEvents()
        scroll = window.findChild(QtWidgets.QScrollArea)
        assert panel.ui.bannerLabel.height > 30, "two lines or more"
        assert scroll.verticalScrollBar().maximum == 0
    finally:
        panel.running.problem, panel.running.warnings = "", []
        panel.refresh()


def test_every_key_is_listed_and_works(app: Any, window: Any) -> None:
    panel = slicer.util.getModuleWidget("IntraopMRI").panel
    page = shown(app, "NAVIGATE")
    keys = {shortcut.key.toString(): shortcut for shortcut in panel._shortcuts}
    for key in keys:
        assert f" {key} " in page.ui.keysLabel.text
    assert panel.parameters.fillResidual
    keys["F8"].activated.emit()
    assert not panel.parameters.fillResidual
    assert not page.ui.fillResidualBox.checked


def press(key: Any) -> None:
    """A key as the window hears it: its shortcuts first, then what has the focus."""
    window = slicer.util.mainWindow()
    window.activateWindow()
    event = QtGui.QKeyEvent(QtCore.QEvent.Type.KeyPress, key, QtCore.Qt.KeyboardModifier.NoModifier, "")
    QtWidgets.QApplication.sendEvent(window.windowHandle(), event)
    QtWidgets.QApplication.processEvents()


def test_the_keys_of_slicers_own_views_stay_theirs(app: Any, window: Any) -> None:
    panel = slicer.util.getModuleWidget("IntraopMRI").panel
    shown(app, "NAVIGATE")
    keys = [QtGui.QKeySequence(shortcut.key.toString()) for shortcut in panel._shortcuts]
    for each in OF_SLICER:
        assert QtGui.QKeySequence(each) not in keys, each
    before = panel.parameters.followPointer, panel.parameters.blend, panel.parameters.phase
    for key in (QtCore.Qt.Key.Key_F, QtCore.Qt.Key.Key_B, QtCore.Qt.Key.Key_PageDown):
        press(key)
        assert (panel.parameters.followPointer, panel.parameters.blend, panel.parameters.phase) == before
    press(QtCore.Qt.Key.Key_F7)
    assert panel.parameters.followPointer is not before[0]
    press(QtCore.Qt.Key.Key_F7)
    # In another module, and without a scene, nobody listens.
    shortcuts = list(panel._shortcuts)
    slicer.util.selectModule("")
    assert not any(shortcut.enabled for shortcut in shortcuts)
    press(QtCore.Qt.Key.Key_F7)
    slicer.mrmlScene.Clear(0)
    for shortcut in shortcuts:
        if shortcut.key.toString() != "F9":  # the layout outlives the scene
            shortcut.activated.emit()
    slicer.util.selectModule("IntraopMRI")
    assert panel.parameters.followPointer, "as a new scene has it"
    assert all(shortcut.enabled for shortcut in panel._shortcuts)
