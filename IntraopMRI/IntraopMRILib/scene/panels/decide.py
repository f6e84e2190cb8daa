"""Page 6: what was measured, what is decided, and the report."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import ctk
import qt
import slicer
import vtk
from IntraopMRIReconstructionLib.data import Measurement
from IntraopMRIReconstructionLib.errors import IntraopError, SessionError
from slicer.i18n import tr as _
from vtkmodules.util.numpy_support import vtk_to_numpy

from ..display import interval, number
from ..parameters import Decision, Phase
from .archive import ArchiveSection
from .basis import rests_on, result
from .measure import MeasureSection
from .page import Action, Page, State, blocked, connectFirst, done, ready
from .pieces import PieceSection
from .style import sentence

#: The pieces of the residual come behind the decision, which must be in sight however many there are.
PIECES_AT = 3
#: The rows for drawings on the scan come behind the table of measurements.
MEASURES_AT = 5
#: DICOM comes behind the report.
ARCHIVE_AT = 7


class DecidePage(Page):
    """The session record is the only source of what is written here."""

    phase = Phase.DECIDE
    uiFile = "DecidePage.ui"

    def __init__(self, panel: Any) -> None:
        super().__init__(panel)
        self.pieces = PieceSection(self, self.widget.layout(), PIECES_AT)
        self.measure = MeasureSection(self, self.widget.layout(), MEASURES_AT)
        self.archive = ArchiveSection(self, self.widget.layout(), ARCHIVE_AT)
        # Two together are higher than a small screen, and one is needed at a time.
        sections = self.ui.decisionSection, self.ui.pieceSection, self.ui.measureSection
        for one, other in permutations(sections, 2):
            one.connect("contentsCollapsed(bool)", lambda folded, other=other: self._makeRoom(folded, other))
        #: What the written report says, with what was saved and sent of it since.
        self.record: Any = None
        table = self.ui.measuredTable
        table.setColumnCount(3)
        table.setHorizontalHeaderLabels([_("Measurement"), _("Value"), _("Interval")])
        table.horizontalHeader().setStretchLastSection(True)
        table.verticalHeader().hide()
        table.setColumnWidth(0, 150)
        table.setColumnWidth(1, 70)
        table.setHorizontalScrollBarPolicy(qt.Qt.ScrollBarAlwaysOff)
        self.ui.reportFolderEdit.filters = ctk.ctkPathLineEdit.Dirs
        self.ui.reportFolderEdit.currentPath = "~/IntraopMRI-report"

    def state(self) -> State:
        """Done when the report is written."""
        if self.running.reportPath:
            return done(_("Report written: {path}").format(path=self.running.reportPath))
        if not self.running.connected:
            return connectFirst()
        if self.running.bones and self._scan.choices.openBasis:
            return blocked(_("{count}: decide on page 4 first.").format(count=self._scan.choices.openBasis))
        if not self._reviewed:
            why = self.running.untrustedBecause
            return blocked(sentence(_("{why}: there is nothing to decide on.").format(why=why)))
        if self.running.session.measuring:
            return blocked(_("A number of this scan is still being measured: the report waits for it."))
        if self.parameters.decision is Decision.UNDECIDED:
            return ready(_("Decide.") if self.parameters.surgeon.strip() else _("Decide, and say who decides."))
        if not self.parameters.surgeon.strip():
            return ready(_("Enter who decides."))
        return ready(_("Write the report."))

    @property
    def _scan(self) -> Any:
        return self.panel.pages[Phase.SCAN]

    @property
    def _reviewed(self) -> bool:
        """Whether a person has confirmed the registration, or has decided on each vertebra where it was refused."""
        return bool(self.running.trusted or (self.running.bones and not self._scan.choices.openBasis))

    def action(self) -> Action | None:
        """Write the report when all is said."""
        if self.running.reportPath or not self._reviewed or self.running.session.measuring:
            return None
        if self.parameters.decision is Decision.UNDECIDED:
            return self.pointTo(_("Choose the decision"), "decisionBox")
        if not self.parameters.surgeon.strip():
            return self.pointTo(_("Enter who decides"), "surgeonEdit")
        return Action(_("Write report"), self.report)

    def refresh(self) -> None:
        """Fill the table."""
        self.pieces.refresh()
        self.measure.refresh()
        self.archive.refresh()
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
        p, folder = self.parameters, self.ui.reportFolderEdit.currentPath
        decision = ", ".join(filter(None, (p.decision.label(), p.surgeon.strip())))
        self.ui.decisionSection.text = _("Decision: {decision}").format(decision=decision)
        self.ui.reportSection.text = _("Report in {folder}").format(folder=folder)
        self.ui.reportLabel.text = self.running.reportPath
        self.ui.reportLabel.visible = bool(self.running.reportPath)
        self.tick()

    def _makeRoom(self, folded: bool, other: Any) -> None:
        if not folded:
            other.collapsed = True
        self.panel.askRefresh()

    def tick(self) -> None:
        """What the decision rests on; the image grows old."""
        scan, p = self._scan, self.parameters
        # Whoever goes from piece to piece has decided nothing yet, and needs the room.
        going = self.ui.pieceSection.visible and not self.ui.pieceSection.collapsed
        for label, text in (
            (self.ui.resultLabel, result(self.running, [] if going else self.measure.measurements())),
            (self.ui.basisLabel, rests_on(self.running, scan.choices, scan.crossCheck, p.imageOldAfterMin)),
        ):
            if label.text != text:
                label.text = text
        self.ui.resultLabel.visible = bool(self.ui.resultLabel.text)
        self.ui.basisLabel.visible = bool(self.ui.basisLabel.text) and not going
        self.pieces.tick()
        self.archive.tick()

    def close(self) -> None:
        """Nobody waits for an archive any more."""
        self.archive.close()

    def _measurements(self) -> list[Measurement]:
        if not self._reviewed:
            return []
        if self.running.bones:
            # The record holds what rests on the accepted vertebrae, and a dash with its reason for the rest.
            record = self.running.session.journal.record
            return [m for implant in record.implants for m in implant.measurements] + list(record.measurements)
        rows = list(self.running.residual.measurements) if self.running.residual is not None else []
        rows += self.running.session.follow_up()
        if self.running.shift is not None:
            rows += [self.running.shift.shift, self.running.shift.cavity]
        for found in self.running.implants.values():
            rows += found.measurements
        return rows + self.measure.measurements()

    def report(self) -> None:
        """Write report, record and pictures; completely or not at all."""
        from ...report.html import Picture, render
        from ...workflow.record import as_document, write_results

        p = self.parameters
        journal, words = self.running.session.journal, f"{p.decision.name.lower()}: {p.comment}".rstrip(": ")
        folder = Path(self.ui.reportFolderEdit.currentPath).expanduser()
        case: Any = self.panel.pages[Phase.CASE]
        try:
            if case.isEarlier(folder):
                why = _("'{folder}' holds the earlier result, and would be replaced: choose another folder")
                raise SessionError(why.format(folder=folder))
            for measurement in self.running.session.follow_up():
                journal.measurement(measurement)
            record = replace(journal.decided(self.running.registered.image.uid, words), operator=p.surgeon)
            folder.mkdir(parents=True, exist_ok=True)
            with self._scan.compare.opaque(self.running.view.centroid):
                pictures = [Picture(png, name) for name, png in pictures_of_views()]
            with self._scan.heat.dose() as shown:
                pictures += [Picture(_png(window), caption) for caption, window in shown]
            pictures += self.running.gathered.pictures()
            write_results(record, render(as_document(record), pictures), folder)
        except (IntraopError, OSError) as error:
            self.running.problem = str(error)
        else:
            self.running.reportPath, self.record = str(folder / "report.html"), record
        self.panel.refresh()


def pictures_of_views() -> list[tuple[str, bytes]]:
    """Every view of the layout as PNG bytes, with the name of its plane; 3D, which carries the numbers, first."""
    manager = slicer.app.layoutManager()
    windows = []
    threeD = manager.threeDWidget(0)
    if threeD is not None and threeD.visible:
        windows.append((_("3D with the numbers of this moment"), threeD.threeDView().renderWindow()))
    for name in manager.sliceViewNames():
        widget = manager.sliceWidget(name)
        if widget.visible:
            plane = widget.mrmlSliceNode().GetOrientation()
            caption = plane if plane in ("Axial", "Coronal", "Sagittal") else _("Oblique ({view})").format(view=name)
            windows.append((caption, widget.sliceView().renderWindow()))
    return [(caption, _png(window)) for caption, window in windows]


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
