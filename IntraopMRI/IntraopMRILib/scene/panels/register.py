"""Page 3: the pointer in the frame of the scanner: its tip, and the tracker's place, stated or registered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import qt
from IntraopMRIReconstructionLib.data import Level, Matrix
from IntraopMRIReconstructionLib.errors import IntraopError
from IntraopMRIReconstructionLib.geometry import apply, farthest_apart_mm, middle_of
from slicer.i18n import tr as _

from ..parameters import Phase
from .calibrate import Calibrator
from .page import Action, Page, State, connectFirst, done, offer, ready
from .trace import SkinTrace

#: Touched points may lie this far from their place: twice the error of a good tracker and of finding a landmark, mm.
ACCEPTED_MM = 3.0
#: A patient who lies this far, mm, from where the pointer was registered to the scanner ends that registration.
MOVED_MM = 1.0


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
        self._usedWith: Matrix | None = None
        self._why = ""
        self._session: Any = None
        self.calibrator, self.trace = Calibrator(self), SkinTrace(self)
        table = self.ui.checkTable
        table.setColumnCount(2)
        table.setHorizontalHeaderLabels([_("Point"), _("Distance")])
        table.horizontalHeader().setStretchLastSection(True)
        table.verticalHeader().hide()
        self.ui.touchButton.connect("clicked()", self.touch)
        self.ui.clearButton.connect("clicked()", self.clear)
        self.ui.useButton.connect("clicked()", lambda: self.use(self._registration))
        self.ui.checkPointsSelector.connect("currentNodeChanged(vtkMRMLNode*)", lambda _node: self.clear())

    # what others ask

    def scannerFromTracker(self) -> Any:
        """(4, 4), or None while the tracker's frame is not known."""
        self._distrustOld()
        if self.parameters.trackerReportsScannerFrame:
            return np.eye(4)
        return None if self._used is None else self._used.target_from_source

    def toolFromTip(self) -> dict[str, Matrix | None]:
        """(4, 4) of each calibrated tool, None for one whose kept calibration nobody has confirmed."""
        self._distrustOld()
        return self.calibrator.tips()

    def poseArrived(self) -> None:
        """One pose of the tracker: collected when a tool is calibrated or the skin is traced."""
        self.calibrator.poseArrived(self.running.rawPose)
        if self.running.tipPose is not None:
            self.trace.poseArrived(self.running.tipPose)

    @property
    def start(self) -> Any:
        """tracker to scanner by the touched points, (4, 4); None before they give one."""
        return self._registration.target_from_source if self._usable() else None

    def expectedError_mm(self, place_ras_mm: Any) -> float | None:
        """Expected TRE (root mean square, mm) of the pointer at a place (3,), scanner RAS: see
        :meth:`.LandmarkRegistration.expected_tre_mm`. None unless touched points are what places the pointer now."""
        used = self.scannerFromTracker()
        byPoints = (
            used is not None and not self.parameters.trackerReportsScannerFrame and not self.isUsed(self.trace.found)
        )
        return float(self._used.expected_tre_mm([place_ras_mm])[0]) if byPoints else None

    def isUsed(self, found: Any) -> bool:
        """Whether poses go through this registration now."""
        return self._used is found

    # page

    def state(self) -> State:
        """Done when the frame is known and no touched point contradicts it."""
        if not self.running.connected:
            return connectFirst()
        if not self.parameters.tracker.used:
            return done(_("No tracker in this session."))
        if self.running.rawPose is None:
            return ready(_("Waiting for the pointer."))
        if self.calibrator.unconfirmed():
            return ready(_("Confirm the kept calibration of this tool, or find its tip again."))
        if not self.parameters.trackerReportsScannerFrame:
            if self._used is None:
                return ready(self._why or _("Touch at least three known points, then use the registration."))
            if self._used is self.trace.found:
                return done(_("Registered by the skin, mean distance {mean:.1f} mm.").format(mean=self._used.mean_mm))
            return done(_("Registered by points, FRE {fre:.1f} mm.").format(fre=self._used.fre_mm))
        distances = self._distances()
        if distances.size and distances.max() > ACCEPTED_MM:
            return ready(_("A touched point is too far off: register by points, or calibrate the tracker again."))
        return done(_("The pointer is in the scanner's frame."))

    def action(self) -> Action | None:
        """Finish what was begun; then touch the next point, then use what came of it."""
        begun = self.calibrator.action() or self.trace.action()
        if begun is not None:
            return begun
        points = self.ui.checkPointsSelector.currentNode()
        if points is not None and len(self._touched) < points.GetNumberOfControlPoints():
            name = points.GetNthControlPointLabel(len(self._touched))
            return Action(_("Touch {name}").format(name=name), self.touch)
        if self._usable() and self._used is None:
            return Action(_("Use this registration"), lambda: self.use(self._registration))
        return None

    def refresh(self) -> None:
        """Table and summary."""
        table, distances = self.ui.checkTable, self._distances()
        table.setRowCount(len(distances))
        table.visible = bool(distances.size)
        for row, distance in enumerate(distances):
            for column, text in enumerate((self._touched[row].name, f"{distance:.1f} mm")):
                table.setItem(row, column, qt.QTableWidgetItem(text))
        self.ui.checkLabel.text = self._summary(distances)
        points = self.ui.checkPointsSelector.currentNode()
        all_ = points is not None and len(self._touched) >= points.GetNumberOfControlPoints()
        offer(
            self.ui.touchButton,
            _("choose the points first") if points is None else "",
            _("the pointer is not seen") if self.running.tipPose is None else "",
            _("all points are touched") if all_ else "",
        )
        stated = self.parameters.trackerReportsScannerFrame
        self.ui.useButton.visible = self.ui.traceSection.visible = not stated
        few = "" if self._usable() else _("touch the points first, until their registration is not refused")
        offer(self.ui.useButton, few, "" if self._used is None else _("it is used already"))
        self.calibrator.refresh()
        self.trace.refresh()
        self.tick()

    def tick(self) -> None:
        """Where the tip is."""
        pose = self.running.pose
        if pose is None:
            words = _("No pose in the scanner's frame yet.")
        elif not pose.valid:
            words = _("The tracker does not see '{tool}'.").format(tool=pose.tool)
        else:
            sides = zip(("LR", "PA", "IS"), pose.tip_ras_mm, strict=True)
            # The side that it is on, not a sign that somebody has to turn round.
            place = "  ".join(f"{letters[int(mm >= 0)]} {abs(mm):.1f}" for letters, mm in sides)
            words = _("Tip of '{tool}': {place} mm").format(tool=pose.tool, place=place)
        self.ui.poseLabel.text = words
        self.calibrator.tick()
        self.trace.tick()

    # what a person does

    def touch(self) -> None:
        """The tip is on the next point."""
        points, tip = self.ui.checkPointsSelector.currentNode(), self.running.tipPose
        if points is None or tip is None or not tip.valid:
            self.running.problem = _("No point or no visible pointer: choose points and clear the line of sight.")
        else:
            index = len(self._touched)
            known = np.array(points.GetNthControlPointPositionWorld(index))
            self._touched.append(Touched(points.GetNthControlPointLabel(index), np.array(tip.tip_ras_mm), known))
            self._register()
        self.panel.refresh()

    def use(self, found: Any) -> None:
        """Bring poses into the scanner's frame by the touched points, or by the trace that refines them."""
        self._used, self._usedWith = found, self._intraopFromPreop()
        if self.running.connected:
            words = self.trace.summary() if found is self.trace.found else self._summary(self._distances())
            self.running.session.journal.event("patient registration", words)
        self.panel.refresh()

    def clear(self) -> None:
        """Start again; the pointer is not shown before there is a new registration."""
        self._touched.clear()
        self._registration = None
        self._why = ""
        self.trace.clear()

    def withdraw(self) -> None:
        """Poses have no place any more; what was touched stays."""
        self._used = self._usedWith = None
        self.panel.refresh()

    def tipChanged(self, words: str) -> None:
        """The tip is elsewhere than the points were touched with: they have to be touched again."""
        if self.running.connected:
            self.running.session.journal.event("tool calibration", words)
        if self._touched or self._used is not None:
            self.running.problem = _("The tip of the tool has changed: touch the points again.")
        self.clear()

    # inside

    def _distrustOld(self) -> None:
        """What was measured in another session, or with the patient elsewhere, does not hold in this one."""
        if self.running.session is not self._session:
            self._session = self.running.session
            self.calibrator.distrust()
            self._touched.clear()
            self._registration = self._used = self._usedWith = None
            self._why = ""
            self.trace.forget()
        now = self._intraopFromPreop()
        if self._used is None or now is None:
            return
        if self._usedWith is None:
            self._usedWith = now
            return
        moved_mm = farthest_apart_mm(now, self._usedWith, self.running.session.plan.operated_mm)
        if moved_mm > MOVED_MM:
            self._used = self._usedWith = None
            self.running.problem = _(
                "The patient lies {moved:.1f} mm from where the pointer was registered: register the pointer again."
            ).format(moved=moved_mm)

    def _intraopFromPreop(self) -> Matrix | None:
        found = self.running.registered
        if found is None or found.registration.verdict.level is Level.REFUSED:
            return None
        return np.asarray(found.registration.intraop_from_preop)

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
            return self._whyNoTouch()
        if self.parameters.trackerReportsScannerFrame or found is None:
            return _("{count} points, largest distance {worst:.1f} mm (accepted: {limit:g} mm)").format(
                count=distances.size, worst=float(distances.max()), limit=ACCEPTED_MM
            )
        place, at = self._target()
        return _("{verdict}. FRE {fre:.2f} mm, expected TRE at {place} {tre:.2f} mm").format(
            verdict=found.verdict.text, fre=found.fre_mm, place=place, tre=float(found.expected_tre_mm([at])[0])
        )

    def _whyNoTouch(self) -> str:
        """What is missing before the first point can be touched."""
        if self.ui.checkPointsSelector.currentNode() is None:
            return _("Choose points whose place in the scanner is known.")
        return _("No pointer is seen yet.") if self.running.tipPose is None else ""

    def _target(self) -> tuple[str, npt.NDArray[np.float64]]:
        """Where the error matters, by name and in scanner RAS: what is aimed at, as far as its place is known."""
        view, matrix = self.running.view, self._intraopFromPreop()
        target = self.parameters.plannedTarget
        if matrix is not None and target is not None and target.GetNumberOfControlPoints():
            return _("the target"), apply(matrix, np.array(target.GetNthControlPointPosition(0)))
        if view is not None and view.centroid is not None:
            return _("the tumour"), np.asarray(view.centroid)
        if matrix is not None and self.running.session.plan.tumour is not None:
            return _("the tumour"), apply(matrix, middle_of(self.running.session.plan.tumour))
        return _("the middle of the points"), np.mean([t.known_ras_mm for t in self._touched], axis=0)
