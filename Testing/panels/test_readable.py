"""All words of the panels can be read in both of Slicer's styles, also of what is disabled; nothing moves about."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import slicer
from host.fixtures import app, wait_until
from IntraopMRIReconstructionLib.geometry import apply
from panels.operation import RISK, TARGET, Operation, pose, product
from PySide6 import QtGui, QtWidgets

__all__ = ["app"]

Palette, Group = QtGui.QPalette, QtGui.QPalette.ColorGroup
Role = Palette.ColorRole
#: Slicer's own palettes (Base/QTGUI/qSlicerStyle.cxx): role, active, disabled.
STYLES = {
    "light": [
        (Role.Window, "#ffffff", "#ffffff"), (Role.WindowText, "#000000", "#bebebe"),
        (Role.Base, "#ffffff", "#ffffff"), (Role.AlternateBase, "#e4e4fe", "#e4e4fe"),
        (Role.Text, "#000000", "#bebebe"), (Role.PlaceholderText, "#808080", "#808080"),
        (Role.Button, "#fcfcfc", "#fcfcfc"), (Role.ButtonText, "#000000", "#bebebe"),
        (Role.Highlight, "#308cc6", "#919191"), (Role.HighlightedText, "#ffffff", "#ffffff"),
    ],
    "dark": [
        (Role.Window, "#323232", "#323232"), (Role.WindowText, "#ffffff", "#6d6d6d"),
        (Role.Base, "#1e1e1e", "#1e1e1e"), (Role.AlternateBase, "#323232", "#323232"),
        (Role.Text, "#ffffff", "#6d6d6d"), (Role.PlaceholderText, "#c0c0c0", "#c0c0c0"),
        (Role.Button, "#323232", "#323232"), (Role.ButtonText, "#ffffff", "#b4b4b4"),
        (Role.Highlight, "#3ca4ff", "#505050"), (Role.HighlightedText, "#ffffff", "#6d6d6d"),
    ],
}  # fmt: skip
#: WCAG 2.1, AA: words of usual size.
LEAST = 4.5
#: Words on the ground that they stand on.
PAIRS = (
    (Role.WindowText, Role.Window), (Role.Text, Role.Base), (Role.ButtonText, Role.Button), (Role.Text, Role.Window),
)  # fmt: skip


def luminance(color: Any) -> float:
    parts = np.array([color.redF(), color.greenF(), color.blueF()])
    linear = np.where(parts <= 0.03928, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


def contrast(one: Any, other: Any) -> float:
    bright, dark = sorted((luminance(QtGui.QColor(one)), luminance(QtGui.QColor(other))), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


@pytest.fixture(params=sorted(STYLES))
def style(request: pytest.FixtureRequest, app: Any) -> Iterator[str]:
    """The application in one of Slicer's styles."""
    before, palette = app.palette(), Palette()
    for role, active, disabled in STYLES[request.param]:
        palette.setColor(role, QtGui.QColor(active))
        palette.setColor(Group.Disabled, role, QtGui.QColor(disabled))
    app.setPalette(palette)
    yield request.param
    app.setPalette(before)
    app.processEvents()


def words_of(panel: Any) -> Iterator[Any]:
    """Widgets of a panel that can carry words."""
    for widget in panel.findChildren(QtWidgets.QWidget):
        if hasattr(widget, "text") or isinstance(widget, QtWidgets.QComboBox | QtWidgets.QAbstractSpinBox):
            yield widget


def held(panel: Any) -> None:
    """Every widget: colours of its palette, enabled and disabled, or those of its style sheet; colours of rich text."""
    found = list(words_of(panel))
    assert len(found) > 30
    for widget in found:
        palette = widget.palette
        assert not widget.styleSheet or re.match(r"Q\w+ {[^}]*[ {]color: ", widget.styleSheet), widget.objectName
        for group in (Group.Active, Group.Inactive, Group.Disabled) if not widget.styleSheet else ():
            pairs = [*PAIRS, (Role.HighlightedText, Role.Highlight)] if group is not Group.Disabled else PAIRS
            for word, ground in pairs:
                ratio = contrast(palette.color(group, word), palette.color(group, ground))
                assert ratio >= LEAST, (widget.objectName, group.name, word.name, ground.name, round(ratio, 2))
        if isinstance(widget, QtWidgets.QLineEdit):
            ratio = contrast(palette.color(Role.PlaceholderText), palette.color(Role.Base))
            assert ratio >= LEAST, (widget.objectName, "placeholder", round(ratio, 2))
        if isinstance(widget, QtWidgets.QLabel) and "<" in widget.text and widget.isVisibleTo(panel):
            for color in re.findall(r"color:(#\w+)", widget.text):
                assert contrast(color, palette.color(Role.Window)) >= LEAST, (widget.objectName, color)
        for rule in re.findall(r"{([^}]*)}", widget.styleSheet):
            said = dict(part.strip().split(": ", 1) for part in rule.split(";") if ": " in part)
            ground = said.get("background", "palette(window)")
            if "color" in said:
                ground = palette.color(getattr(Role, ground[8:-1].title())) if "palette" in ground else ground
                assert contrast(said["color"], ground) >= LEAST, (widget.objectName, rule)


def test_all_words_of_a_session_can_be_read(style: str) -> None:
    operation = Operation()
    panel = operation.panel.widget
    wait_until(lambda: operation.panel.suited.dark is (style == "dark"), 5, "the style")
    for name in ("CASE", "CONNECT", "REGISTER", "SCAN"):
        operation.open(name)
        operation.panel.refresh()
        held(panel)
    operation.register()
    operation.running.confirm()
    operation.panel.parameters.surgeon = "Dr. Example"
    operation.panel.refresh()
    held(panel)
    operation.page("SCAN").choices.acceptGood()
    operation.running.problem = "What went wrong."
    for name in ("SCAN", "NAVIGATE", "DECIDE"):
        operation.open(name)
        operation.panel.refresh()
        held(panel)


def test_all_words_of_the_reconstruction_can_be_read(style: str) -> None:
    slicer.util.selectModule("IntraopMRIReconstruction")
    held(slicer.util.getModuleWidget("IntraopMRIReconstruction").panel.widget)


def test_what_is_disabled_is_drawn_so(style: str, app: Any) -> None:
    """The palette alone says nothing of what a style makes of it: pixels do."""
    operation = Operation()
    operation.open("CONNECT")
    field = operation.page("CONNECT").ui.scannerHostEdit
    assert not field.enabled
    assert field.text
    for _ in range(5):
        app.processEvents()
    picture = field.grab().toImage()
    shades = sorted(
        luminance(picture.pixelColor(x, y)) for x in range(4, 90) for y in range(6, picture.height() - 6)
    )  # fmt: skip
    # Letters are a small part of the field, and lighter or darker than its ground.
    ratio = (shades[-1] + 0.05) / (shades[0] + 0.05)
    assert ratio >= LEAST, round(ratio, 2)


def test_a_change_of_style_is_followed_by_itself(app: Any) -> None:
    slicer.util.selectModule("IntraopMRI")
    panel = slicer.util.getModuleWidget("IntraopMRI").panel
    before, dark = app.palette(), Palette()
    for role, active, _disabled in STYLES["dark"]:
        dark.setColor(role, QtGui.QColor(active))
    try:
        app.setPalette(dark)
        wait_until(lambda: panel.suited.dark, 5, "the dark style")
        assert panel.ui.patientLabel.palette.color(Role.WindowText).name() == "#ffffff"
        held(panel.widget)
    finally:
        app.setPalette(before)
        wait_until(lambda: not panel.suited.dark, 5, "the light style")


def test_larger_letters_make_what_is_large_larger(app: Any) -> None:
    slicer.util.selectModule("IntraopMRI")
    panel = slicer.util.getModuleWidget("IntraopMRI").panel
    font, style = QtWidgets.QApplication.font(), product("scene.panels.style")
    larger = QtGui.QFont(font)
    larger.setPointSizeF(2 * font.pointSizeF())
    try:
        QtWidgets.QApplication.setFont(larger)
        wait_until(lambda: panel.suited.scale > 1.5, 5, "the larger letters")
        assert f"font-size:{style.pixels(20)}px" in style.sized("x", 20)
        assert style.pixels(20) >= 30
    finally:
        QtWidgets.QApplication.setFont(font)
        wait_until(lambda: panel.suited.scale == 1.0, 5, "the letters as before")


def test_every_field_has_a_name_to_be_read_aloud_and_a_tooltip(app: Any) -> None:
    for module in ("IntraopMRI", "IntraopMRIReconstruction"):
        slicer.util.selectModule(module)
        panel = slicer.util.getModuleWidget(module).panel.widget
        kinds = (QtWidgets.QLineEdit, QtWidgets.QComboBox, QtWidgets.QAbstractSpinBox, QtWidgets.QTableWidget)
        fields = [widget for kind in kinds for widget in panel.findChildren(kind)]
        named = 0
        for field in fields:
            # A field of a larger one (slider, path, selector) goes by the name of that.
            while field.objectName.startswith("qt_") or not field.objectName:
                field = field.parentWidget()
            assert field.accessibleName, field.objectName
            assert "<" not in field.accessibleName, field.objectName
            assert field.toolTip, field.objectName
            named += 1
        assert named > 15
        for button in panel.findChildren(QtWidgets.QAbstractButton):
            if button.objectName and not button.objectName.startswith("qt_"):
                assert button.text or button.accessibleName, button.objectName


def tops(app: Any, page: Any, names: tuple[str, ...]) -> dict[str, int]:
    for _ in range(5):
        app.processEvents()
    panel = page.panel.widget
    return {name: getattr(page.ui, name).mapTo(panel, getattr(page.ui, name).rect.topLeft()).y() for name in names}


def test_a_message_moves_nothing_that_a_person_may_press(app: Any) -> None:
    slicer.util.mainWindow().resize(1280, 800)
    operation = Operation()
    operation.register()
    panel, page = operation.panel, operation.page("SCAN")
    for widget in vars(page.ui).values():
        if type(widget).__name__ == "ctkCollapsibleButton":
            widget.collapsed = True  # a scroll bar would leave the words less room
    names = ("acceptButton", "rejectButton", "blendSlider")
    before = tops(app, page, names)
    panel.running.problem = "The scanner at 127.0.0.1:18944 does not answer: is it on?"
    panel.refresh()
    wait_until(lambda: panel.ui.bannerLabel.visible, 5, "the message")
    assert tops(app, page, names) == before
    panel.running.problem = ""
    panel.running.progress = 0.3, "receiving T1"
    panel.refresh()
    wait_until(lambda: panel.ui.progressBar.visible, 5, "the progress")
    assert tops(app, page, names) == before


def test_a_pointer_out_of_sight_moves_no_number(app: Any) -> None:
    operation = Operation()
    operation.register()
    operation.running.confirm()
    operation.panel.parameters.surgeon = "Dr. Example"
    operation.page("SCAN").choices.acceptGood()
    operation.open("NAVIGATE")
    page = operation.page("NAVIGATE")
    names = ("riskDistanceLabel", "targetDistanceLabel", "tipShiftLabel", "viewSection")
    operation.point(apply(pose(), TARGET))
    assert "Safe" in page.ui.alarmLabel.text
    before = tops(app, page, names)
    operation.point(apply(pose(), RISK))
    assert "Too near" in page.ui.alarmLabel.text
    assert tops(app, page, names) == before

    def stale() -> bool:
        page.tick()
        return "check the tracker" in page.ui.alarmLabel.text

    wait_until(stale, 5, "the stale pose")
    # It may have grown stale between the first label of that tick and the last.
    page.tick()
    assert tops(app, page, names) == before
    # The reason stands once, large; each dash has it in its tooltip.
    for label in (page.ui.riskDistanceLabel, page.ui.targetDistanceLabel, page.ui.tipShiftLabel):
        assert "check the tracker" not in label.text
        assert "check the tracker" in label.toolTip


#: Beside these the reason stands in words, or what is disabled is what was chosen already.
SAID_BESIDE = {
    "acceptButton", "rejectButton", "nextItemButton", "acceptGoodButton", "simulateButton", "traceButton",
    "clearTraceButton", "pivotButton", "spinButton", "acceptToolButton", "followPlaneBox", "setPlaneButton",
    "resetButton",
}  # fmt: skip


def reasons(page: Any) -> dict[str, str]:
    """Why each disabled button of a page may not be pressed, by its name."""
    page.panel.refresh()
    buttons = page.widget.findChildren(QtWidgets.QPushButton)
    off = [b for b in buttons if not b.enabled and not b.isHidden() and b.objectName not in SAID_BESIDE]
    assert not [b.objectName for b in buttons if b.enabled and "Not now" in b.toolTip], page.phase
    return {b.objectName: b.toolTip.partition("Not now: ")[2] for b in off}


def test_what_is_disabled_says_why_in_its_tooltip(app: Any) -> None:
    slicer.util.selectModule("IntraopMRI")
    panel = slicer.util.getModuleWidget("IntraopMRI").panel
    for page in panel.pages.values():
        panel.open(page.phase)
        assert all(reasons(page).values()), (page.phase, reasons(page))
    operation = Operation()
    for name in ("CONNECT", "REGISTER", "SCAN", "NAVIGATE", "DECIDE"):
        operation.open(name)
        assert all(reasons(operation.page(name)).values()), (name, reasons(operation.page(name)))
    operation.open("SCAN")
    ui = operation.page("SCAN").ui
    assert "Not now: no temperature is measured yet." in ui.markHottestButton.toolTip
    assert "follows the brain shift" in ui.pairBox.toolTip
    before = ui.pairBox.toolTip.partition("\n\n")[0]
    operation.register()
    assert ui.pairBox.enabled
    assert ui.pairBox.toolTip == before, "a reason goes with what it was said of"
