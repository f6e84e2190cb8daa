"""Page 3: the pointer in the frame of the scanner: stated by the tracker, or registered on points that are touched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import qt
from IntraopMRIReconstructionLib.data import Level
from IntraopMRIReconstructionLib.errors import IntraopError
from slicer.i18n import tr as _

from ..parameters import Phase
from .page import Action, Page, State, connectFirst, done, ready

#: Touched points may lie this far from their place: twice the error of a good tracker and of finding a landmark, mm.
ACCEPTED_MM = 3.0


@dataclass(frozen=True, eq=False)
class Touched:
    """One point: where the tip was in the tracker's frame, and where it is known to lie in scanner RAS; (3,) mm."""

    name: str
    tip_mm: npt.NDArray[np.float64]
    known_ras_mm: npt.NDArray[np.float64]


class RegisterPage(Page):
    """With a tracker that reports in the scanner's frame the points check it; otherwise they register it."""

    phase = Phase.REGISTER
    uiFile = "RegisterPage.ui"

    def __init__(self, panel: Any) -> None:
        super().__init__(panel)
        self._touched: list[Touched] = []
        self._registration: Any = None
        self._used: Any = None
        self._why = ""
        table = self.ui.checkTable
        table.setColumnCount(2)
        table.setHorizontalHeaderLabels([_("Point"), _("Distance")])
        table.horizontalHeader().setStretchLastSection(True)
        table.verticalHeader().hide()
        self.ui.touchButton.connect("clicked()", self.touch)
        self.ui.clearButton.connect("clicked()", self.clear)
        self.ui.useButton.connect("clicked()", self.use)
        self.ui.checkPointsSelector.connect("currentNodeChanged(vtkMRMLNode*)", lambda _node: self.clear())

    def scannerFromTracker(self) -> Any:
        """(4, 4), or None while the tracker's frame is not known."""
        if self.parameters.trackerReportsScannerFrame:
            return np.eye(4)
        return None if self._used is None else self._used.target_from_source

    def state(self) -> State:
        """Done when the frame is known and no touched point contradicts it."""
        if not self.running.connected:
            return connectFirst()
        if not self.parameters.tracker.used:
            return done(_("No tracker in this session."))
        if self.running.rawPose is None:
            return ready(_("Waiting for the pointer."))
        if not self.parameters.trackerReportsScannerFrame:
            if self._used is None:
                return ready(self._why or _("Touch at least three known points, then use the registration."))
            return done(_("Registered by points, FRE {fre:.1f} mm.").format(fre=self._used.fre_mm))
        distances = self._distances()
        if distances.size and distances.max() > ACCEPTED_MM:
            return ready(_("A touched point is too far off: register by points, or calibrate the tracker again."))
        return done(_("The pointer is in the scanner's frame."))

    def action(self) -> Action | None:
        """Touch the next point, then use what came of it."""
        points = self.ui.checkPointsSelector.currentNode()
        if points is not None and len(self._touched) < points.GetNumberOfControlPoints():
            name = points.GetNthControlPointLabel(len(self._touched))
            return Action(_("Touch {name}").format(name=name), self.touch)
        if self._usable() and self._used is None:
            return Action(_("Use this registration"), self.use)
        return None

    def refresh(self) -> None:
        """Table and summary."""
        table, distances = self.ui.checkTable, self._distances()
        table.setRowCount(len(distances))
        for row, distance in enumerate(distances):
            for column, text in enumerate((self._touched[row].name, f"{distance:.1f} mm")):
                table.setItem(row, column, qt.QTableWidgetItem(text))
        self.ui.checkLabel.text = self._summary(distances)
        points = self.ui.checkPointsSelector.currentNode()
        self.ui.touchButton.enabled = (
            points is not None
            and self.running.rawPose is not None
            and len(self._touched) < points.GetNumberOfControlPoints()
        )
        self.ui.useButton.visible = not self.parameters.trackerReportsScannerFrame
        self.ui.useButton.enabled = self._usable() and self._used is None
        self.tick()

    def tick(self) -> None:
        """Where the tip is."""
        pose = self.running.pose
        if pose is None:
            words = _("No pose in the scanner's frame yet.")
        elif not pose.valid:
            words = _("The tracker does not see '{tool}'.").format(tool=pose.tool)
        else:
            r, a, s = pose.tip_ras_mm
            words = _("Tip of '{tool}': R {r:.1f}  A {a:.1f}  S {s:.1f} mm").format(tool=pose.tool, r=r, a=a, s=s)
        self.ui.poseLabel.text = words

    def touch(self) -> None:
        """The tip is on the next point."""
        points, pose = self.ui.checkPointsSelector.currentNode(), self.running.rawPose
        if points is None or pose is None or not pose.valid:
            self.running.problem = _("No point or no visible pointer: choose points and clear the line of sight.")
        else:
            index = len(self._touched)
            known = np.array(points.GetNthControlPointPositionWorld(index))
            self._touched.append(Touched(points.GetNthControlPointLabel(index), np.array(pose.tip_ras_mm), known))
            self._register()
        self.panel.refresh()

    def use(self) -> None:
        """Bring poses into the scanner's frame by the touched points."""
        self._used = self._registration
        if self.running.connected:
            self.running.session.journal.event("patient registration", self._summary(self._distances()))
        self.panel.refresh()

    def clear(self) -> None:
        """Start again; the pointer is not shown before there is a new registration."""
        self._touched.clear()
        self._registration = self._used = None
        self._why = ""
        self.panel.refresh()

    def _register(self) -> None:
        from ...register.landmarks import register_landmarks

        self._registration = self._used = None
        tips, known = (np.array([getattr(t, name) for t in self._touched]) for name in ("tip_mm", "known_ras_mm"))
        try:
            self._registration = register_landmarks(tips, known)
            self._why = ""
        except IntraopError as error:
            self._why = str(error)

    def _usable(self) -> bool:
        found = self._registration
        return (
            found is not None
            and found.verdict.level is not Level.REFUSED
            and not self.parameters.trackerReportsScannerFrame
        )

    def _distances(self) -> npt.NDArray[np.float64]:
        """Of each touched point to its place: as the tracker says, or after the registration."""
        if not self.parameters.trackerReportsScannerFrame and self._registration is not None:
            return np.asarray(self._registration.residuals_mm)
        return np.array([float(np.linalg.norm(t.tip_mm - t.known_ras_mm)) for t in self._touched])

    def _summary(self, distances: npt.NDArray[np.float64]) -> str:
        found = self._registration
        if distances.size == 0:
            return ""
        if self.parameters.trackerReportsScannerFrame or found is None:
            return _("{count} points, largest distance {worst:.1f} mm (accepted: {limit:g} mm)").format(
                count=distances.size, worst=float(distances.max()), limit=ACCEPTED_MM
            )
        view = self.running.view
        middle = None if view is None else view.centroid
        place = _("the tumour") if middle is not None else _("the middle of the points")
        at = middle if middle is not None else np.mean([t.known_ras_mm for t in self._touched], axis=0)
        return _("{verdict}. FRE {fre:.2f} mm, expected TRE at {place} {tre:.2f} mm").format(
            verdict=found.verdict.text, fre=found.fre_mm, place=place, tre=float(found.expected_tre_mm([at])[0])
        )
