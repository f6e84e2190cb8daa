"""Tip and shaft of the tracked tool: collected while it is pivoted and spun, accepted by a person, kept with the scene.

A calibration belongs to the tool of that name. One that came with a loaded scene, or from an earlier connection, is
not used before a person has confirmed it; until then that tool is not shown at all.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from IntraopMRIReconstructionLib.data import Level, Matrix, Pose
from IntraopMRIReconstructionLib.errors import IntraopError
from slicer.i18n import tr as _

from ...navigate.calibration import (
    MIN_POSES,
    PIVOT_COVERED_DEG,
    SPIN_COVERED_DEG,
    PoseCollection,
    calibrate_pivot,
    calibrate_spin,
    tool_from_tip,
)
from .page import Action
from .style import LEVEL_COLORS, colored

#: The result so far is computed this often while poses are collected, s.
LOOK_S = 0.5


@dataclass(frozen=True)
class ToolCalibration:
    """What is kept of a tool: tip and shaft in its own frame, and how well they are known. No shaft: empty."""

    tip_mm: tuple[float, ...]
    tip_rms_mm: float
    made_utc_s: float
    shaft: tuple[float, ...] = ()
    shaft_rms_deg: float = 0.0

    @property
    def tool_from_tip(self) -> Matrix:
        """(4, 4) to multiply poses with from the right."""
        return tool_from_tip(self.tip_mm, self.shaft or None)

    @property
    def words(self) -> str:
        """For a person."""
        tip = _("tip found to {rms:.2f} mm").format(rms=self.tip_rms_mm)
        shaft = _("shaft to {rms:.2f}°").format(rms=self.shaft_rms_deg) if self.shaft else _("shaft as tracked")
        made = time.strftime("%Y-%m-%d %H:%M", time.localtime(self.made_utc_s))
        return _("{tip}, {shaft}, {made}").format(tip=tip, shaft=shaft, made=made)


class Calibrator:
    """The calibrations of a session and the one that is being made. ``page`` has the widgets."""

    def __init__(self, page: Any) -> None:
        self._page = page
        self._confirmed: set[str] = set()
        self._kind = ""
        self._collected: PoseCollection | None = None
        self._found: Any = None
        self._looked_s = 0.0
        self._why = ""
        ui = page.ui
        ui.pivotButton.connect("clicked()", lambda: self.collect("pivot"))
        ui.spinButton.connect("clicked()", lambda: self.collect("spin"))
        ui.acceptToolButton.connect("clicked()", self.accept)
        ui.againToolButton.connect("clicked()", lambda: self.collect(self._kind))
        ui.stopToolButton.connect("clicked()", self._onStop)
        ui.confirmToolButton.connect("clicked()", self.confirm)
        ui.forgetToolButton.connect("clicked()", self.forget)

    # what is known

    @property
    def tool(self) -> str:
        """Name of the tool that the tracker reports now."""
        pose = self._page.running.rawPose
        return "" if pose is None else str(pose.tool)

    def kept(self) -> dict[str, ToolCalibration]:
        """Calibrations by tool, confirmed or not. What cannot be read is removed, and that is said."""
        p = self._page.parameters
        try:
            return {tool: _read(entry) for tool, entry in json.loads(p.toolCalibrations or "{}").items()}
        except (ValueError, TypeError, AttributeError, KeyError):
            p.toolCalibrations = ""
            self._page.running.problem = _("The kept calibrations of tools cannot be read: calibrate each tool again.")
            return {}

    def tips(self) -> dict[str, Matrix | None]:
        """``tool_from_tip`` of each calibrated tool; None for one that nobody has confirmed: it has no place yet."""
        return {tool: kept.tool_from_tip if tool in self._confirmed else None for tool, kept in self.kept().items()}

    def unconfirmed(self) -> bool:
        """Whether the tool that is seen now waits for a confirmation."""
        return self.tool in self.kept() and self.tool not in self._confirmed

    def distrust(self) -> None:
        """Another session or scene: every calibration has to be confirmed again."""
        self._confirmed.clear()
        self.stop()

    # what a person does

    def collect(self, kind: str) -> None:
        """Begin to collect poses for the ``pivot`` or the ``spin``."""
        self._why = ""
        if not self.tool:
            self._why = _("No tool is seen: connect the tracker and clear the line of sight.")
        elif kind == "spin" and (self.tool not in self.kept() or self.unconfirmed()):
            self._why = _("Find the tip first: it says which end of the shaft is up.")
        else:
            self._kind, self._collected, self._found = kind, PoseCollection(self.tool), None
        self._page.panel.refresh()

    def stop(self) -> None:
        """Leave the calibration as it was."""
        self._kind, self._collected, self._found, self._why = "", None, None, ""

    def accept(self) -> None:
        """Use what was found, if it may be used."""
        if not self.usable:
            return
        tool, found = self._collected.tool, self._found  # type: ignore[union-attr]
        entries = self.kept()
        if self._kind == "pivot":
            entries[tool] = ToolCalibration(tuple(found.tip_mm.tolist()), found.rms_mm, time.time())
        else:
            before = entries[tool]
            entries[tool] = ToolCalibration(
                before.tip_mm, before.tip_rms_mm, time.time(), tuple(found.shaft.tolist()), found.rms_deg
            )
        self.stop()
        self._confirmed.add(tool)
        self._keep(entries, _("{tool}: {words}").format(tool=tool, words=entries[tool].words))

    def confirm(self) -> None:
        """The kept calibration of this tool still holds."""
        if self.unconfirmed():
            self._confirmed.add(self.tool)
            self._page.tipChanged(
                _("{tool} confirmed: {words}").format(tool=self.tool, words=self.kept()[self.tool].words)
            )

    def forget(self) -> None:
        """Take the tip as the tracker reports it."""
        entries = self.kept()
        if entries.pop(self.tool, None) is not None:
            self.stop()
            self._confirmed.discard(self.tool)
            self._keep(entries, _("{tool}: calibration removed").format(tool=self.tool))

    def _onStop(self) -> None:
        self.stop()
        self._page.panel.refresh()

    def _keep(self, entries: dict[str, ToolCalibration], words: str) -> None:
        self._page.parameters.toolCalibrations = json.dumps({tool: asdict(kept) for tool, kept in entries.items()})
        self._page.tipChanged(words)

    # what happens meanwhile

    @property
    def usable(self) -> bool:
        """Whether what was collected gives a calibration."""
        return self._found is not None and self._found.verdict.level is not Level.REFUSED

    def poseArrived(self, pose: Pose) -> None:
        """Collect it. Poses of another tool end the collection: they would be mixed with the first one's."""
        if self._collected is None:
            return
        if pose.tool != self._collected.tool:
            before = self._collected.tool
            self.stop()
            self._why = _("The tracker now reports '{now}' instead of '{before}': start again.").format(
                now=pose.tool, before=before
            )
            return
        self._collected.add(pose)

    def action(self) -> Action | None:
        """The next step while poses are collected."""
        if self._collected is None:
            return Action(_("Use the kept calibration"), self.confirm) if self.unconfirmed() else None
        if self.usable:
            return Action(_("Accept this calibration"), self.accept)
        return Action(_("Go on pivoting") if self._kind == "pivot" else _("Go on spinning"))

    def refresh(self) -> None:
        """Buttons and words."""
        ui, kept = self._page.ui, self.kept().get(self.tool)
        collecting = self._collected is not None
        ui.pivotButton.enabled = ui.spinButton.enabled = bool(self.tool) and not collecting
        for button in (ui.acceptToolButton, ui.againToolButton, ui.stopToolButton, ui.collectBar):
            button.visible = collecting
        ui.confirmToolButton.visible = not collecting and self.unconfirmed()
        ui.forgetToolButton.visible = not collecting and kept is not None
        if not self.tool:
            words = _("No tool is tracked.")
        elif kept is None:
            words = _("'{tool}': tip as the tracker reports it, not calibrated here.").format(tool=self.tool)
        elif self.unconfirmed():
            words = _("'{tool}' is not shown: confirm its kept calibration ({words}), or find the tip again.")
            words = words.format(tool=self.tool, words=kept.words)
        else:
            words = _("'{tool}': {words}.").format(tool=self.tool, words=kept.words)
        ui.toolLabel.text = words
        self.tick()

    def tick(self) -> None:
        """How far the collection is."""
        ui = self._page.ui
        if self._collected is None:
            if ui.collectLabel.text != self._why:
                ui.collectLabel.text = self._why
            return
        now = time.monotonic()
        if now - self._looked_s > LOOK_S:
            self._looked_s = now
            self._look()
            self._page.panel.askRefresh()
        pivot = self._kind == "pivot"
        words = [
            _("Keep the tip in the divot and tilt the tool in all directions.")
            if pivot
            else _("Turn the tool about its own shaft, without tilting it."),
            _("{count} poses").format(count=len(self._collected)),
        ]
        covered = 0.0
        if self._found is not None:
            covered = self._found.covered_deg
            words[1] += _(", {covered:.0f}° covered").format(covered=covered)
            residual = f"{self._found.rms_mm:.2f} mm" if pivot else f"{self._found.rms_deg:.2f}°"
            level = self._found.verdict.level
            words.append(colored(_("Residual {residual}").format(residual=residual), LEVEL_COLORS[level], 15))
            words += [] if level is Level.GOOD else [self._found.verdict.text]
        ui.collectLabel.text = "<br>".join(words)
        wanted = PIVOT_COVERED_DEG if pivot else SPIN_COVERED_DEG
        ui.collectBar.value = round(100 * min(1.0, covered / wanted, len(self._collected) / MIN_POSES))
        ui.acceptToolButton.enabled = self.usable

    def _look(self) -> None:
        assert self._collected is not None
        if len(self._collected) < MIN_POSES:
            return
        calibrate = calibrate_pivot if self._kind == "pivot" else calibrate_spin
        try:
            self._found = calibrate(self._collected.matrices)
        except IntraopError as error:
            self._why = str(error)


def _read(entry: dict[str, Any]) -> ToolCalibration:
    """An entry of the parameter node. ValueError or TypeError when it is not what was written."""
    kept = ToolCalibration(**{**entry, "tip_mm": tuple(entry["tip_mm"]), "shaft": tuple(entry["shaft"])})
    numbers = [*kept.tip_mm, *kept.shaft, kept.tip_rms_mm, kept.shaft_rms_deg, kept.made_utc_s]
    if len(kept.tip_mm) != 3 or len(kept.shaft) not in (0, 3) or not np.isfinite(numbers).all():
        raise ValueError(f"not a calibration: {entry}")
    return kept
