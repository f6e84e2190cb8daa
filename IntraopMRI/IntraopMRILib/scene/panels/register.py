"""Page 3: the pointer in the frame of the scanner, and a check of it on points that can be touched."""

from __future__ import annotations

from typing import Any

import numpy as np
import qt
from slicer.i18n import tr as _

from ..parameters import Phase
from .page import Action, Page, State, blocked, connectFirst, done, ready

#: Touched points may lie this far from their place: twice the error of a good tracker and of finding a landmark, mm.
ACCEPTED_MM = 3.0


class RegisterPage(Page):
    """States the frame of the tracker, and measures how far touched points lie from their known places."""

    phase = Phase.REGISTER
    uiFile = "RegisterPage.ui"

    def __init__(self, panel: Any) -> None:
        super().__init__(panel)
        self._distances: list[tuple[str, float]] = []
        table = self.ui.checkTable
        table.setColumnCount(2)
        table.setHorizontalHeaderLabels([_("Point"), _("Distance")])
        table.horizontalHeader().setStretchLastSection(True)
        table.verticalHeader().hide()
        self.ui.touchButton.connect("clicked()", self.touch)
        self.ui.clearButton.connect("clicked()", self.clear)
        self.ui.checkPointsSelector.connect("currentNodeChanged(vtkMRMLNode*)", lambda _node: self.clear())

    def state(self) -> State:
        """Done when the frames agree and no touched point contradicts it."""
        if not self.running.connected:
            return connectFirst()
        if not self.parameters.tracker.used:
            return done(_("No tracker in this session."))
        if not self.parameters.trackerReportsScannerFrame:
            return blocked(_("The tracker must report in the scanner's frame: calibrate it there, then say so here."))
        if self._distances and max(d for _name, d in self._distances) > ACCEPTED_MM:
            return ready(_("A touched point is too far off: calibrate the tracker again."))
        if self.running.pose is None:
            return ready(_("Waiting for the pointer."))
        return done(_("The pointer is in the scanner's frame."))

    def action(self) -> Action | None:
        """Touch the next point, when there are points."""
        points = self.ui.checkPointsSelector.currentNode()
        if points is not None and len(self._distances) < points.GetNumberOfControlPoints():
            name = points.GetNthControlPointLabel(len(self._distances))
            return Action(_("Touch {name}").format(name=name), self.touch)
        return None

    def refresh(self) -> None:
        """Table and summary."""
        table = self.ui.checkTable
        table.setRowCount(len(self._distances))
        for row, (name, distance) in enumerate(self._distances):
            for column, text in enumerate((name, f"{distance:.1f} mm")):
                table.setItem(row, column, qt.QTableWidgetItem(text))
        values = np.array([distance for _name, distance in self._distances])
        self.ui.checkLabel.text = (
            ""
            if values.size == 0
            else _(
                "{count} points: root mean square {rms:.1f} mm, largest {worst:.1f} mm (accepted: {limit:g} mm)"
            ).format(
                count=values.size, rms=float(np.sqrt((values**2).mean())), worst=float(values.max()), limit=ACCEPTED_MM
            )
        )
        points = self.ui.checkPointsSelector.currentNode()
        self.ui.touchButton.enabled = (
            points is not None
            and self.running.pose is not None
            and len(self._distances) < points.GetNumberOfControlPoints()
        )
        self.tick()

    def tick(self) -> None:
        """Where the tip is."""
        pose = self.running.pose
        if pose is None:
            words = _("No pose yet.")
        elif not pose.valid:
            words = _("The tracker does not see '{tool}'.").format(tool=pose.tool)
        else:
            r, a, s = pose.tip_ras_mm
            words = _("Tip of '{tool}': R {r:.1f}  A {a:.1f}  S {s:.1f} mm").format(tool=pose.tool, r=r, a=a, s=s)
        self.ui.poseLabel.text = words

    def touch(self) -> None:
        """Measure from the tip to the next known point."""
        points, pose = self.ui.checkPointsSelector.currentNode(), self.running.pose
        if points is None or pose is None or not pose.valid:
            self.running.problem = _("No point or no visible pointer: choose points and clear the line of sight.")
        else:
            index = len(self._distances)
            place = np.array(points.GetNthControlPointPositionWorld(index))
            distance = float(np.linalg.norm(place - pose.tip_ras_mm))
            self._distances.append((points.GetNthControlPointLabel(index), distance))
            if self.running.connected:
                self.running.session.journal.event("accuracy check", f"{self._distances[-1][0]}: {distance:.2f} mm")
        self.panel.refresh()

    def clear(self) -> None:
        """Start again."""
        self._distances.clear()
        self.panel.refresh()
