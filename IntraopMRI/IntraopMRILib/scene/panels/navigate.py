"""Page 5: the pointer, its distances, the alarms, the planes that follow it, the implant against its plan."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import qt
import slicer
from IntraopMRIReconstructionLib.data import Image, Measurement
from slicer.i18n import tr as _

from ...navigate.distance import ResidualDistance, SurfaceDistance
from ...navigate.watch import AlarmLevel
from ..display import number
from ..parameters import Phase
from .layouts import DUAL, FOUR_UP, show
from .overlay import Guidance
from .page import Page, State, blocked, connectFirst, done, ready
from .style import CHECK, DANGER, GOOD, colored, sized

#: The tone is repeated this often while a structure is too near, s.
TONE_S = 0.7


class NavigatePage(Page):
    """Shows numbers only while scan, registration, confirmation and pose are sound."""

    phase = Phase.NAVIGATE
    uiFile = "NavigatePage.ui"

    def __init__(self, panel: Any) -> None:
        super().__init__(panel)
        self.guidance: Guidance | None = None
        self._guides: Any = None
        self._hasResidual = False
        self._toned_s = 0.0
        self.ui.fourUpButton.connect("clicked()", lambda: show(FOUR_UP))
        self.ui.dualButton.connect("clicked()", lambda: show(DUAL))
        self.ui.keysLabel.text = _("Keys: B and N blend, F follow, 2 dual, 4 four up, Page Up and Page Down pages")

    def state(self) -> State:
        """Done while the pointer guides."""
        if not self.running.connected:
            return connectFirst()
        if not self.running.trusted:
            return blocked(_("Confirm the registration on page 4 first: until then no distance is shown."))
        if not self.parameters.tracker.used:
            return done(_("No tracker in this session: the implant and the residual are shown."))
        if not self.parameters.trackerReportsScannerFrame:
            return blocked(_("The tracker is not in the scanner's frame: see page 3."))
        if self.guidance is not None and self.guidance.why:
            return ready(self.guidance.why)
        return done(_("The pointer guides."))

    def refresh(self) -> None:
        """What does not move by itself."""
        lines = []
        for name, found in self.running.implants.items():
            shown = [m for m in found.measurements if m.value is not None][:4]
            values = ", ".join(f"{m.name.removeprefix(name).strip()} {number(m.value, m.unit)}" for m in shown)
            lines.append(_("{name}: {band}. {values}").format(name=name, band=found.band.value, values=values))
        self.ui.implantLabel.text = "\n".join(lines) or "–"
        node = self.running.view.bridge.node("result.residual") if self.running.view is not None else None
        if node is not None and node.GetDisplayNode() is not None:
            node.GetDisplayNode().SetOpacity(self.parameters.residualOpacity)
        self._prepare()
        self.tick()

    def poseArrived(self) -> None:
        """One pose: planes, distances, alarm."""
        pose = self.running.pose
        if self.guidance is None or pose is None or not self.running.trusted:
            return
        p = self.parameters
        self.guidance.process(pose, p.reslice, p.riskAlarmMm, time.monotonic)
        if p.followPointer and self.guidance.pose is not None and not self.guidance.why:
            self.panel.overlay.follow(self.guidance.pose, self.guidance.planes)

    def tick(self) -> None:
        """Numbers, large; a dash where nothing may be said."""
        guide = self.guidance
        if guide is not None:
            guide.refresh(self.parameters.riskAlarmMm)
        trusted = guide is not None and self.running.trusted
        self._distance(self.ui.residualDistanceLabel, guide.residual if trusted and guide else None, guide)
        if trusted and self.running.residual is not None and not self._hasResidual:
            self.ui.residualDistanceLabel.text = _("none found")
        self._distance(self.ui.riskDistanceLabel, guide.risk if trusted and guide else None, None)
        self._distance(self.ui.targetDistanceLabel, guide.target if trusted and guide else None, None)
        self._alarm(guide if trusted else None)

    def _distance(self, label: Any, measurement: Measurement | None, guide: Guidance | None) -> None:
        if measurement is None or measurement.value is None:
            text = "–"
        else:
            text = sized(number(measurement.value, measurement.unit), 24)
            if guide is not None and guide.direction:
                text += sized("  " + guide.direction, 14)
        if label.text != text:
            label.text = text

    def _alarm(self, guide: Guidance | None) -> None:
        if guide is None:
            text = colored(self.state().text, CHECK, 15)
        elif guide.why:
            text = colored(guide.why, DANGER, 18)
        elif guide.risk is None:
            text = colored(_("No structure at risk is watched"), CHECK, 14)
        else:
            words = {
                AlarmLevel.SAFE: (_("Safe"), GOOD),
                AlarmLevel.NEAR: (_("Near: {name}").format(name=guide.risk.name), CHECK),
                AlarmLevel.TOO_NEAR: (_("Too near: {name}").format(name=guide.risk.name), DANGER),
                AlarmLevel.UNKNOWN: (_("Unknown"), CHECK),
            }[guide.level]
            text = colored(*words, 18)
            now = time.monotonic()
            if guide.level is AlarmLevel.TOO_NEAR and self.parameters.soundAlarm and now - self._toned_s > TONE_S:
                self._toned_s = now
                qt.QApplication.beep()
        if self.ui.alarmLabel.text != text:
            self.ui.alarmLabel.text = text

    def _prepare(self) -> None:
        """Make the distances anew when residual, structures or registration have changed."""
        running = self.running
        registered = running.registered
        if not running.trusted or registered is None:
            self.guidance, self._guides = None, None
            return
        risk = self.parameters.riskSegmentation
        target = self.parameters.plannedTarget
        guides = (
            registered.image.uid,
            id(running.residual),
            None if risk is None else (risk.GetID(), risk.GetSegmentation().GetMTime()),
            None if target is None else (target.GetID(), target.GetMTime()),
        )
        if guides == self._guides:
            return
        self._guides = guides
        intraop_from_preop = registered.registration.intraop_from_preop
        residual = None
        self._hasResidual = running.residual is not None and bool(np.any(running.residual.residual.array))
        if self._hasResidual:
            residual = ResidualDistance(running.residual.residual)
        point = None
        if target is not None and target.GetNumberOfControlPoints():
            place = np.array([*target.GetNthControlPointPosition(0), 1.0])
            point = (intraop_from_preop @ place)[:3]
        self.guidance = Guidance(residual, self._risks(risk, intraop_from_preop), point)

    def _risks(self, segmentation: Any, intraop_from_preop: Any) -> tuple[SurfaceDistance, ...]:
        """Structures at risk carried to intraoperative RAS: the grid moves, the voxels stay."""
        volume = self.parameters.preopVolume
        if segmentation is None or volume is None:
            return ()
        plan = self.running.session.plan.preoperative
        found = []
        for segmentId in segmentation.GetSegmentation().GetSegmentIDs():
            mask = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, segmentId, volume)
            if mask is not None and np.any(mask):
                label = Image((mask > 0).astype(np.uint8), intraop_from_preop @ plan.ras_from_ijk)
                found.append(SurfaceDistance(label, segmentation.GetSegmentation().GetSegment(segmentId).GetName()))
        return tuple(found)
