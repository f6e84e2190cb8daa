"""Page 4: scan, see what came, judge the registration, compare, confirm."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from IntraopMRIReconstructionLib.data import Level, Reason
from IntraopMRIReconstructionLib.errors import IntraopError
from slicer.i18n import tr as _

from ..display import age, number, spread
from ..parameters import Phase
from .carried import CarriedTable
from .compare import Compare
from .page import Action, Page, State, blocked, connectFirst, done, ready
from .scene_scans import SceneScans
from .style import LEVEL_COLORS, colored

#: Scans that are offered: what is sent to the scanner, and its name for a person.
PROTOCOLS = (("", "all"), ("T1 native", "native"), ("T1 contrast", "contrast"))
#: The rows for volumes of the scene come behind those of the scanner.
SCENE_SCANS_AT = 1


class ScanPage(Page):
    """The review that everything after it rests on: nothing is navigated before a person has confirmed."""

    phase = Phase.SCAN
    uiFile = "ScanPage.ui"

    def __init__(self, panel: Any) -> None:
        super().__init__(panel)
        names = {"all": _("All scans"), "native": _("Without contrast agent"), "contrast": _("With contrast agent")}
        for _protocol, key in PROTOCOLS:
            self.ui.protocolBox.addItem(names[key])
        self.sceneScans = SceneScans(self, self.widget.layout(), SCENE_SCANS_AT)
        self.compare = Compare(self.running)
        self.carried = CarriedTable(self)
        self.ui.scanButton.connect("clicked()", self.scan)
        self.ui.stopButton.connect("clicked()", self.stop)
        self.ui.confirmButton.connect("clicked()", self.running.confirm)

    def state(self) -> State:
        """Done when a person has confirmed a registration that its verdict allows."""
        if not self.running.connected:
            return connectFirst()
        if self.running.image is None and not self.running.hasScanner:
            return ready(_("Choose the scan without contrast agent, then the one with it, among the scene's volumes."))
        if self.running.image is None:
            return ready(_("Scan: images appear here as they arrive."))
        found = self.running.registered
        if found is None:
            return ready(_("Registering the new image to the plan."))
        verdict = found.registration.verdict
        if verdict.level is Level.REFUSED:
            return blocked(_("Registration refused: {why}").format(why=verdict.text))
        if not self.running.confirmed:
            return ready(_("Compare both volumes in all views, then confirm."))
        waiting = self.carried.waiting()
        if waiting:
            return done(
                _("Registration confirmed. Planned things that stay at the rigid pose until accepted: {count}.").format(
                    count=waiting
                )
            )
        return done(_("Registration confirmed."))

    def action(self) -> Action | None:
        """Scan, or confirm what was compared."""
        if not self.running.connected:
            return None
        if self.running.progress is not None or self.running.task is not None:
            return Action(_("Please wait"))
        if not self.running.hasScanner and (chosen := self.sceneScans.action()) is not None:
            return chosen
        if self.running.image is None:
            return Action(_("Scan"), self.scan)
        found = self.running.registered
        if found is None:
            return Action(_("Please wait"))
        if found.registration.verdict.level is Level.REFUSED:
            return Action(_("Scan again"), self.scan) if self.running.hasScanner else Action(_("Choose another volume"))
        return None if self.running.confirmed else Action(_("Confirm registration"), self.running.confirm)

    def refresh(self) -> None:
        """Newest image, verdict with its reasons, residual."""
        self.ui.scanButton.enabled = self.ui.stopButton.enabled = self.running.hasScanner
        self.sceneScans.refresh()
        found = self.running.registered
        allowed = found is not None and found.registration.verdict.level is not Level.REFUSED
        self.ui.confirmButton.enabled = allowed
        self.ui.confirmButton.visible = not self.running.confirmed
        if found is None:
            self.ui.verdictLabel.text = "–"
            self.ui.reasonsLabel.text = ""
        else:
            shift = self.running.shift
            verdict = found.registration.verdict if shift is None else shift.verdict
            words = {Level.GOOD: _("Good"), Level.CHECK: _("Check"), Level.REFUSED: _("Refused")}[verdict.level]
            confirmed = _(", confirmed") if self.running.confirmed else ""
            self.ui.verdictLabel.text = colored(words + confirmed, LEVEL_COLORS[verdict.level], 18)
            against = [r for r in verdict.reasons if r.level is not Level.GOOD]
            self.ui.reasonsLabel.text = _lines(against) or _(
                "All {count} measured signs are as expected (point here to read them)."
            ).format(count=len(verdict.reasons))
            self.ui.reasonsLabel.toolTip = _lines(verdict.reasons)
        self.ui.residualLabel.text = self._residual()
        p = self.parameters
        self.compare.show(p.comparison, p.blend, p.pair, p.shiftMap)
        view = self.running.view
        known = view is not None and view.followsShift
        self.ui.pairBox.enabled = self.ui.shiftMapBox.enabled = self.ui.shiftArrowsBox.enabled = known
        if view is not None:
            view.bridge.showArrows(p.shiftArrows)
        self.carried.refresh()
        self.tick()

    def tick(self) -> None:
        """Age of the image, state of the scanner."""
        self.sceneScans.tick()
        self.compare.tick(time.monotonic())
        state = self.running.session.scanner_state if self.running.connected else ""
        said = _("Scanner: {state}").format(state=state) if state else ""
        if self.ui.scannerLabel.text != said:
            self.ui.scannerLabel.text = said
        image = self.running.image
        if image is None:
            words = _("Nothing received yet.")
        else:
            k, j, i = image.image.array.shape[:3]
            x, y, z = image.image.spacing_mm
            taken = image.image.acquired_utc_s
            words = _("{name}: {i} × {j} × {k} voxels of {x:.2g} × {y:.2g} × {z:.2g} mm, {age}").format(
                name=image.image.name or image.role, i=i, j=j, k=k, x=x, y=y, z=z,
                age=_("age unknown") if taken is None else age(time.time() - taken),
            )  # fmt: skip
        if self.ui.imageLabel.text != words:
            self.ui.imageLabel.text = words

    def close(self) -> None:
        """The comparison stays as it is; its checkerboard goes."""
        self.sceneScans.close()
        self.compare.close()

    def _residual(self) -> str:
        lines = []
        shift = self.running.shift
        if shift is not None:
            lines += [f"{m.name} {spread(m)}" for m in (shift.shift, shift.cavity) if m.value is not None]
        assessment = self.running.residual
        implants = self.running.implants.items()
        lines += [_("{name}: {grade}").format(name=name, grade=found.grade) for name, found in implants]
        if assessment is None:
            lines += [] if implants else [_("No residual: it needs a scan with contrast agent.")]
        elif assessment.measurements[0].value is None:
            lines.append(assessment.measurements[0].missing_because)
        else:
            volume, (low, high) = assessment.measurements[0], assessment.interval_cm3
            lines.append(
                _("Residual {value} (between {low:.2f} and {high:.2f} cm³)").format(
                    value=number(volume.value, volume.unit), low=low, high=high
                )
            )
            lines += self.running.residualNotes
        return "\n".join(lines)

    def scan(self) -> None:
        """Ask the scanner for the chosen scan."""
        protocol = PROTOCOLS[max(0, self.ui.protocolBox.currentIndex)][0]
        self._command(lambda session: session.scan(protocol))

    def stop(self) -> None:
        """Ask the scanner to stop."""
        self._command(lambda session: session.stop_scan())

    def _command(self, ask: Callable[[Any], None]) -> None:
        try:
            ask(self.running.session)
        except IntraopError as error:
            self.running.problem = str(error)
        self.panel.refresh()


def _lines(reasons: Iterable[Reason]) -> str:
    return "\n".join(
        _("{name}: {value:.3g} {unit} (expected {expected})").format(
            name=r.name, value=r.value, unit=r.unit, expected=r.expected
        )
        for r in reasons
    )
