"""Planned implants: one line, or every line beside it in the data tree, each with a diameter of its own if need be."""

from __future__ import annotations

import math
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from ..contents import ATTRIBUTE, ROLE
from .page import fitRows

#: A line that is an implant has an entry and a tip.
POINTS_OF_LINE = 2
#: On a line whose diameter is not that of the others.
DIAMETER = ATTRIBUTE + "DiameterMm"
#: So many rows are seen at once; more are scrolled to.
MOST_ROWS = 8
#: Column of the table that a person types into.
DIAMETER_AT = 1


def plannedLines(parameters: Any) -> list[Any]:
    """The chosen line; with it, where a person asks for that, all lines beside it, in the order of the data tree."""
    chosen = parameters.plannedImplant
    if chosen is None:
        return []
    return beside(chosen) if parameters.implantFolder else [chosen]


def beside(line: Any) -> list[Any]:
    """All lines in the folder of a line, itself among them; those that a session has drawn are no plan."""
    hierarchy = slicer.mrmlScene.GetSubjectHierarchyNode()
    item = 0 if hierarchy is None else hierarchy.GetItemByDataNode(line)
    if not item:
        return [line]
    folder = hierarchy.GetItemParent(item)
    items = [
        hierarchy.GetItemByPositionUnderParent(folder, place)
        for place in range(hierarchy.GetNumberOfItemChildren(folder))
    ]
    nodes = [hierarchy.GetItemDataNode(each) for each in items]
    return [node for node in nodes if _isLine(node) and not node.GetAttribute(ROLE)]


def diameterOf(line: Any, parameters: Any) -> float:
    """Its own diameter, or that of all, mm."""
    return _positive(line.GetAttribute(DIAMETER)) or float(parameters.implantDiameterMm)


class PlannedLines:
    """The rows of page 1 for more than one implant. Call :meth:`refresh` whenever something changed."""

    def __init__(self, page: Any) -> None:
        self._page, self._ui = page, page.ui
        self._lines: list[Any] = []
        self._shown: list[tuple[str, ...]] = []
        table = self._ui.implantTable
        table.setColumnCount(3)
        table.setHorizontalHeaderLabels([_("Implant"), _("Diameter"), _("Length")])
        table.horizontalHeader().setStretchLastSection(True)
        table.verticalHeader().hide()
        table.setHorizontalScrollBarPolicy(qt.Qt.ScrollBarAlwaysOff)
        table.setColumnWidth(0, 170)
        table.setColumnWidth(DIAMETER_AT, 80)
        table.connect("cellChanged(int,int)", self._onTyped)

    def changed(self) -> bool:
        """Whether the scene holds other lines than the table shows: they are drawn and moved elsewhere."""
        return self._rows() != self._shown

    def refresh(self) -> None:
        """As many rows as there are implants; nothing where there is one line alone."""
        parameters, ui = self._page.parameters, self._ui
        chosen = parameters.plannedImplant
        count = 0 if chosen is None else len(beside(chosen))
        ui.implantFolder.visible = count > 1
        ui.implantFolder.text = _("All {count} lines of its folder").format(count=count)
        ui.implantTable.visible = bool(parameters.implantFolder and count > 1)
        if self.changed():
            self._fill()

    def _fill(self) -> None:
        self._lines, self._shown = plannedLines(self._page.parameters), self._rows()
        table = self._ui.implantTable
        table.blockSignals(True)
        table.setRowCount(len(self._shown))
        for row, texts in enumerate(self._shown):
            for column, text in enumerate(texts):
                cell = qt.QTableWidgetItem(text)
                if column != DIAMETER_AT:
                    cell.setFlags(qt.Qt.ItemIsEnabled | qt.Qt.ItemIsSelectable)
                table.setItem(row, column, cell)
        fitRows(table, MOST_ROWS)
        table.blockSignals(False)

    def _rows(self) -> list[tuple[str, ...]]:
        parameters = self._page.parameters
        return [
            (line.GetName(), f"{diameterOf(line, parameters):.1f} mm", f"{line.GetLineLengthWorld():.0f} mm")
            for line in plannedLines(parameters)
        ]

    def _onTyped(self, row: int, column: int) -> None:
        """A diameter of its own; what is no number leaves the one before."""
        if column != DIAMETER_AT or not 0 <= row < len(self._lines):
            return
        typed = _positive(self._ui.implantTable.item(row, column).text().replace("mm", "").replace(",", "."))
        if typed:
            self._lines[row].SetAttribute(DIAMETER, f"{typed:g}")
        self._page.panel.askRefresh()
        self._shown = []


def _isLine(node: Any) -> bool:
    return node is not None and node.IsA("vtkMRMLMarkupsLineNode")


def _positive(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) and value > 0 else None
