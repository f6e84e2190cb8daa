"""Rows on page 4: the image plane of the scanner follows the pointer, and a person ends an emergency or a fault."""

from __future__ import annotations

import time
from typing import Any

from IntraopMRIReconstructionLib.data import POSE_STALE_S
from IntraopMRIReconstructionLib.errors import IntraopError
from IntraopMRIReconstructionLib.wire.scanner_dialect import ScannerState
from slicer.i18n import tr as _

from .style import CHECK, colored


class Steering:
    """Offered while the connected scanner's kind takes a plane. Tell it of every pose with :meth:`poseArrived`."""

    def __init__(self, page: Any) -> None:
        self._page, self._ui = page, page.ui
        self._taken_s: float | None = None
        self._ui.setPlaneButton.connect("clicked()", self.setOnce)
        self._ui.followPlaneBox.connect("toggled(bool)", lambda _on: self._began())
        self._ui.resetButton.connect("clicked()", self.reset)

    @property
    def _control(self) -> Any:
        session = self._page.running.session
        return None if session is None else session.control

    @property
    def following(self) -> bool:
        """Whether poses steer the plane now."""
        return bool(self._ui.followPlaneBox.checked) and self._control is not None

    @property
    def _stuck(self) -> list[Any]:
        session = self._page.running.session
        return [] if session is None else [control for control in session.controls.values() if control.stuck]

    @property
    def stuck(self) -> bool:
        """Whether only a person can tell that the scanner, or a robot beside it, may go on."""
        return bool(self._stuck)

    @property
    def emergency(self) -> bool:
        """Whether that is because of an emergency."""
        return any(control.state is ScannerState.EMERGENCY for control in self._stuck)

    def poseArrived(self) -> None:
        """One pose: it steers while a person wants that."""
        if self.following:
            self._send()

    def setOnce(self) -> None:
        """Lay the plane where the pointer is now."""
        self._taken_s = None
        self._send()
        self.tick()

    def reset(self) -> None:
        """A person has looked: the emergency or the fault is over."""
        try:
            for control in self._stuck:
                control.reset()
        except IntraopError as error:
            self._page.running.problem = str(error)
        self._page.panel.refresh()

    def _send(self) -> None:
        pose, control = self._page.running.pose, self._control
        if pose is None or control is None:
            return
        try:
            if control.set_plane(pose):
                self._taken_s = time.monotonic()
        except IntraopError as error:
            self._ui.followPlaneBox.checked = False
            self._page.running.problem = str(error)

    def _began(self) -> None:
        self._taken_s = None
        self.tick()

    def refresh(self) -> None:
        """What is offered now; nothing follows any more once the scanner is gone or only a person can go on."""
        control, ui = self._control, self._ui
        takes = control is not None and control.dialect.plane_device is not None
        ui.steerSection.visible = control is not None or self.stuck
        for widget in (ui.followPlaneBox, ui.setPlaneButton, ui.planeLabel):
            widget.visible = takes
        tracked = bool(self._page.parameters.tracker.used)
        if ui.followPlaneBox.checked and (not takes or not tracked or control.stuck):
            ui.followPlaneBox.checked = False
        ui.followPlaneBox.enabled = takes and tracked and not control.stuck
        ui.setPlaneButton.enabled = takes and tracked and control.may_steer and not ui.followPlaneBox.checked
        ui.resetButton.enabled = self.stuck
        self.tick()

    def tick(self) -> None:
        """What became of the plane; why nothing is sent."""
        control = self._control
        if control is None or control.dialect.plane_device is None:
            return
        sent = _("{count} planes sent; the scanner confirms none, look at the next image.").format(
            count=control.planes_sent
        )
        text = sent if control.planes_sent else _("No plane was sent.")
        why = self._why(control)
        if why and (self._ui.followPlaneBox.checked or not control.may_steer):
            text = colored(_("Nothing is sent: {why}.").format(why=why), CHECK, 13)
        if self._ui.planeLabel.text != text:
            self._ui.planeLabel.text = text

    def _why(self, control: Any) -> str:
        """Why a pose would not steer now; empty when it would."""
        if not control.may_steer:
            return _("the scanner is: {state}").format(state=control.text)
        if not self._page.parameters.tracker.used:
            return _("no tracker is part of this session")
        if self._page.running.pose is None:
            return _("the pointer has no place yet, see page 3")
        if self._taken_s is None or time.monotonic() - self._taken_s > POSE_STALE_S:
            return _("the pointer is not seen or its pose is stale")
        return ""
