"""Page 6: what was measured, what is decided, and the report."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import qt
import slicer
import vtk
from IntraopMRIReconstructionLib.data import Measurement
from IntraopMRIReconstructionLib.errors import IntraopError
from slicer.i18n import tr as _
from vtkmodules.util.numpy_support import vtk_to_numpy

from ..display import interval, number
from ..parameters import Decision, Phase
from .measure import MeasureSection
from .page import Action, Page, State, blocked, connectFirst, done, ready


class DecidePage(Page):
    """The session record is the only source of what is written here."""

    phase = Phase.DECIDE
    uiFile = "DecidePage.ui"

    def __init__(self, panel: Any) -> None:
        super().__init__(panel)
        self.measure = MeasureSection(self, self.widget.layout(), 1)
        table = self.ui.measuredTable
        table.setColumnCount(3)
        table.setHorizontalHeaderLabels([_("Measurement"), _("Value"), _("Interval")])
        table.horizontalHeader().setStretchLastSection(True)
        table.verticalHeader().hide()
        table.setColumnWidth(0, 150)
        table.setColumnWidth(1, 70)
        table.setHorizontalScrollBarPolicy(qt.Qt.ScrollBarAlwaysOff)
        self.ui.reportFolderEdit.currentPath = "~/IntraopMRI-report"
        self.ui.reportButton.connect("clicked()", self.report)

    def state(self) -> State:
        """Done when the report is written."""
        if self.running.reportPath:
            return done(_("Report written: {path}").format(path=self.running.reportPath))
        if not self.running.connected:
            return connectFirst()
        if not self.running.trusted:
            return blocked(_("Confirm the registration on page 4 first: until then there is nothing to decide on."))
        if self.parameters.decision is Decision.UNDECIDED:
            return ready(_("Decide, and say who decides."))
        if not self.parameters.surgeon:
            return ready(_("Enter who decides."))
        return ready(_("Write the report."))

    def action(self) -> Action | None:
        """Write the report when all is said."""
        if self.running.reportPath or not self.running.trusted:
            return None
        complete = self.parameters.decision is not Decision.UNDECIDED and self.parameters.surgeon
        return Action(_("Write report"), self.report) if complete else Action(_("Fill in this page"))

    def refresh(self) -> None:
        """Fill the table."""
        self.measure.refresh()
        rows = self._measurements()
        table = self.ui.measuredTable
        table.setRowCount(len(rows))
        for row, measurement in enumerate(rows):
            shown = "–" if measurement.value is None else number(measurement.value, measurement.unit)
            between = ""
            if measurement.interval is not None and measurement.value is not None:
                between = interval(measurement.interval, measurement.unit, measurement.value)
            if measurement.value is None:
                between = measurement.missing_because
            for column, text in enumerate((measurement.name, shown, between)):
                item = qt.QTableWidgetItem(text)
                item.setToolTip(_("{definition} ({source})").format(
                    definition=measurement.definition, source=measurement.source or _("this extension")
                ))  # fmt: skip
                table.setItem(row, column, item)
        table.resizeRowsToContents()
        self.ui.reportLabel.text = self.running.reportPath
        self.ui.reportButton.enabled = self.running.trusted

    def _measurements(self) -> list[Measurement]:
        if not self.running.trusted:
            return []
        rows = list(self.running.residual.measurements) if self.running.residual is not None else []
        if self.running.shift is not None:
            rows += [self.running.shift.shift, self.running.shift.cavity]
        for found in self.running.implants.values():
            rows += found.measurements
        return rows + self.measure.measurements()

    def report(self) -> None:
        """Write report, record and pictures; completely or not at all."""
        from ...report.html import Picture, render
        from ...workflow.record import to_json, write_atomically, write_record

        p = self.parameters
        journal = self.running.session.journal
        journal.event("decision", f"{p.decision.name.lower()}: {p.comment}".rstrip(": "))
        record = replace(journal.record, operator=p.surgeon)
        folder = Path(self.ui.reportFolderEdit.currentPath).expanduser()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            pictures = [Picture(png, name) for name, png in pictures_of_views()]
            write_record(record, folder / "session.json")
            write_atomically(folder / "report.html", render(json.loads(to_json(record)), pictures))
        except (IntraopError, OSError) as error:
            self.running.problem = str(error)
        else:
            self.running.reportPath = str(folder / "report.html")
        self.panel.refresh()


def pictures_of_views() -> list[tuple[str, bytes]]:
    """Every view of the layout as PNG bytes, with its name."""
    manager = slicer.app.layoutManager()
    names = [name for name in manager.sliceViewNames() if manager.sliceWidget(name).visible]
    windows = [(name, manager.sliceWidget(name).sliceView().renderWindow()) for name in names]
    threeD = manager.threeDWidget(0)
    if threeD is not None and threeD.visible:
        windows.append(("3D", threeD.threeDView().renderWindow()))
    return [(name, _png(window)) for name, window in windows]


def _png(window: Any) -> bytes:
    window.Render()
    grab = vtk.vtkWindowToImageFilter()
    grab.SetInput(window)
    grab.ReadFrontBufferOff()
    writer = vtk.vtkPNGWriter()
    writer.SetInputConnection(grab.GetOutputPort())
    writer.WriteToMemoryOn()
    writer.Write()
    return vtk_to_numpy(writer.GetResult()).tobytes()
