"""Page 4: scan, see what came, judge the registration, compare, confirm."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from html import escape
from typing import Any

import slicer
from IntraopMRIReconstructionLib.data import Level, Reason
from IntraopMRIReconstructionLib.errors import IntraopError
from IntraopMRIReconstructionLib.geometry import apply, middle_of
from slicer.i18n import tr as _

from ..display import age, interval, number, spread
from ..parameters import Phase, ShiftMap
from .carried import PlannedThings
from .compare import Compare
from .crosscheck import CrossCheck
from .heat import HeatSection
from .implants import FoundImplants
from .one_by_one import OneByOne
from .page import Action, Page, State, blocked, connectFirst, done, offer, ready
from .scene_scans import SceneScans
from .steer import Steering
from .style import CHECK, DANGER, LEVEL_COLORS, colored, graded
from .vertebrae import Vertebrae

#: Scans that are offered: what is sent to the scanner, and its name for a person.
PROTOCOLS = (("", "all"), ("T1 native", "native"), ("T1 contrast", "contrast"), ("Thermometry", "heat"))
#: The rows for volumes of the scene come behind those of the scanner.
SCENE_SCANS_AT = 2
#: What is heated comes behind the residual, which it may treat.
HEAT_AT = 5


class ScanPage(Page):
    """The review that everything after it rests on: nothing is navigated before a person has confirmed."""

    phase = Phase.SCAN
    uiFile = "ScanPage.ui"

    def __init__(self, panel: Any) -> None:
        super().__init__(panel)
        names = {
            "all": _("All scans"),
            "native": _("Without contrast agent"),
            "contrast": _("With contrast agent"),
            "heat": _("Temperature, until stopped"),
        }
        for _protocol, key in PROTOCOLS:
            self.ui.protocolBox.addItem(names[key])
        self.sceneScans = SceneScans(self, self.widget.layout(), SCENE_SCANS_AT)
        self.heat = HeatSection(self, self.widget.layout(), HEAT_AT)
        self.compare = Compare(self.running)
        self.choices = OneByOne(
            self, (Vertebrae(self.running), PlannedThings(self.running), FoundImplants(self.running))
        )
        self.crossCheck = CrossCheck(self)
        self.steering = Steering(self)
        self._maps: Any = None
        #: What the views have gone to: a registration, or the place of its result.
        self._lookedAt: Any = None
        self.ui.scanButton.connect("clicked()", self.scan)
        self.ui.stopButton.connect("clicked()", self.stop)

    def state(self) -> State:
        """Done when a person has confirmed a registration that its verdict allows."""
        if not self.running.connected:
            return connectFirst()
        wanted = "" if self.running.hasScanner else self.sceneScans.wanted()
        if self.running.image is None and wanted:
            return ready(wanted)
        if self.running.image is None and not self._scannerAnswers():
            return ready(_("The link to the scanner is lost: it is opened again by itself."))
        if self.running.image is None:
            return ready(_("Scan: images appear here as they arrive."))
        found = self.running.registered
        if found is None:
            return ready(_("Registering the new image to the plan."))
        verdict = found.registration.verdict
        if self.running.bones:
            return self._boneByBone()
        if verdict.level is Level.REFUSED:
            why = verdict.text.partition(": ")[2]
            return blocked(_("Registration refused: {why}. Nothing is laid over the scan.").format(why=why))
        if not self.running.confirmed:
            return ready(" ".join([_("Compare both volumes in all views, then confirm."), wanted]).rstrip())
        if self.choices.open:
            return ready(_("{count}: decide on each, or go on without them.").format(count=self.choices.open))
        left = self.choices.hidden()
        if left:
            return done(_("Registration confirmed. {count}: not shown in navigation.").format(count=left))
        return done(_("Registration confirmed."))

    def _boneByBone(self) -> State:
        """The whole stays refused, whatever is accepted of it."""
        if self.choices.openBasis:
            return ready(
                _("The pose of the whole spine was refused. {count}: does the outline lie on each?").format(
                    count=self.choices.openBasis
                )
            )
        if self.choices.open:
            return ready(_("{count}: decide on each, or go on without them.").format(count=self.choices.open))
        accepted = ", ".join(self.running.view.lone.accepted)
        if not accepted:
            return blocked(_("No vertebra is accepted: nothing is navigated. Scan again, or write the report (6)."))
        return done(_("The whole spine is not registered. Accepted, each on its own: {names}.").format(names=accepted))

    def action(self) -> Action | None:
        """Scan, or confirm what was compared."""
        if not self.running.connected:
            return None
        if self.steering.emergency:
            return self.pointTo(_("Reset when it is over"), "resetButton")
        if (heated := self.heat.action()) is not None:
            return heated
        if self.running.progress is not None or self.running.task is not None:
            return Action(_("Please wait"))
        if not self.running.hasScanner and (chosen := self.sceneScans.action()) is not None:
            return chosen
        if self.running.image is None:
            return self._scanStep(_("Scan"))
        found = self.running.registered
        if found is None:
            return Action(_("Please wait"))
        if self.running.bones and (self.choices.open or self.running.view.lone.accepted):
            return self.choices.nextStep() if self.choices.open else None
        if found.registration.verdict.level is Level.REFUSED:
            if self.running.hasScanner:
                return self._scanStep(_("Scan again"))
            return self.pointTo(_("Choose another volume"), "sceneScan")
        if not self.running.confirmed:
            return Action(_("Confirm registration"), self.running.confirm)
        return self.choices.nextStep() if self.choices.open else None

    def _scanStep(self, text: str) -> Action:
        """Scan, or what has to be done before the scanner takes that command."""
        if not self._scannerAnswers():
            return Action(_("Waiting for the scanner"))
        return (
            self.pointTo(_("Reset scanner control"), "resetButton") if self.steering.stuck else Action(text, self.scan)
        )

    def refresh(self) -> None:
        """Newest image, verdict with its reasons, residual."""
        for widget in (self.ui.protocolBox, self.ui.scanButton, self.ui.stopButton, self.ui.scannerLabel):
            widget.visible = self.running.hasScanner or not self.running.connected
        lost = "" if self._scannerAnswers() else _("the link to the scanner is lost")
        for button in (self.ui.scanButton, self.ui.stopButton):
            offer(button, "" if self.running.connected else _("connect the scanner on page 2 first"), lost)
        self.sceneScans.refresh()
        found = self.running.registered
        if found is None:
            self.ui.verdictLabel.text = "–"
            self.ui.reasonsLabel.text = self._notRegistered()
            self.ui.reasonsLabel.toolTip = ""
        else:
            shift = self.running.shift
            verdict = found.registration.verdict if shift is None else shift.verdict
            words = {Level.GOOD: _("Good"), Level.CHECK: _("Check"), Level.REFUSED: _("Refused")}[verdict.level]
            confirmed = _(", confirmed") if self.running.confirmed else ""
            self.ui.verdictLabel.text = colored(words + confirmed, LEVEL_COLORS[verdict.level], 18)
            against = [r for r in verdict.reasons if r.level is not Level.GOOD]
            self.ui.reasonsLabel.text = _lines(against) or _("All {count} signs are as expected.").format(
                count=len(verdict.reasons)
            )
            self.ui.reasonsLabel.toolTip = _lines(verdict.reasons)
        self.ui.residualLabel.text = self._residual()
        p = self.parameters
        self._followMaps()
        self.compare.show(p.comparison, p.blend, p.pair, p.shiftMap)
        view = self.running.view
        known = view is not None and view.followsShift
        unknown = "" if known else _("no registration follows the brain shift yet")
        for widget in (self.ui.pairBox, self.ui.shiftArrowsBox):
            offer(widget, unknown)
        offer(self.ui.shiftMapBox, "" if self.running.maps is not None else unknown)
        # Of no use where bone is operated: the place goes to the implants.
        self.ui.compareSection.visible = not self.choices.listsImplants or self.ui.shiftMapBox.enabled
        self.ui.heatSection.visible = not self.choices.listsImplants or self.running.hasScanner
        if view is not None:
            view.bridge.showArrows(p.shiftArrows)
        self.choices.refresh()
        self.crossCheck.refresh()
        self.steering.refresh()
        self.heat.refresh()
        # As in the views, temperature takes the place of what is read at leisure: all of it has to be seen at once.
        measures = self.heat.measures
        self.ui.residualLabel.visible = bool(self.ui.residualLabel.text) and not measures
        self.ui.sceneScanSection.visible = not measures
        if measures and not self.choices.open:
            self.ui.carriedSection.visible = False
        self._look()
        self.tick()

    def _scannerAnswers(self) -> bool:
        """Whether there is a scanner whose link is up now."""
        return bool(self.running.hasScanner and self.running.session.links()["scanner"][1])

    def _look(self) -> None:
        """The views go to what a new registration, and then its result, is about: once, a person goes on from there."""
        found, view = self.running.registered, self.running.view
        if found is None or self.running.confirmed or not self.panel.shows(self):
            return
        centre = view.centroid
        now = (found, None if centre is None else tuple(centre))
        if now == self._lookedAt:
            return
        self._lookedAt = now
        tumour = self.running.session.plan.tumour
        if centre is None and tumour is not None and found.registration.verdict.level is not Level.REFUSED:
            centre = apply(found.registration.intraop_from_preop, middle_of(tumour))
        if centre is not None:
            manager = slicer.app.layoutManager()
            for name in manager.sliceViewNames():
                manager.sliceWidget(name).mrmlSliceNode().JumpSliceByCentering(*centre)

    def _followMaps(self) -> None:
        """The first map of a scan is shown when it comes, unless a person has to look at a picture: that of the same
        scan, or one whose registration nobody has confirmed yet."""
        maps, before = self.running.maps, self._maps
        if maps is before:
            return
        self._maps = maps
        image = self.running.image
        goes_on = None not in (maps, before) and _scanOf(maps) == _scanOf(before)
        looking = image is not None and (maps is None or maps.picture is image.image or not self.running.confirmed)
        if maps is not None and not goes_on and not looking:
            self.parameters.shiftMap = ShiftMap.QUANTITY
        elif maps is None and self.parameters.shiftMap is ShiftMap.QUANTITY:
            self.parameters.shiftMap = ShiftMap.NONE

    def tick(self) -> None:
        """Age of the image, state of the scanner."""
        self.sceneScans.tick()
        self.compare.tick(time.monotonic())
        self.crossCheck.tick()
        self.steering.tick()
        self.heat.tick()
        state = self.running.session.scanner_state if self.running.connected else ""
        said = _("Scanner: {state}").format(state=state) if state else ""
        if self.ui.scannerLabel.text != said:
            self.ui.scannerLabel.text = said
        image = self.running.image
        if image is None:
            words = _("Nothing received yet.")
        else:
            taken = image.image.acquired_utc_s
            old_s = None if taken is None else time.time() - taken
            old = _("age unknown") if old_s is None else _("{age} old").format(age=age(old_s))
            words = f"{image.image.name or image.role}, {old}"
            # As on page 6: in amber what a person should look at before deciding.
            doubtful = old_s is None or old_s > 60.0 * self.parameters.imageOldAfterMin
            words = colored(words, CHECK, 13) if doubtful else escape(words)
            k, j, i = image.image.array.shape[:3]
            x, y, z = image.image.spacing_mm
            self.ui.imageLabel.toolTip = _(
                "The newest intraoperative volume: {i} × {j} × {k} voxels of {x:.2g} × {y:.2g} × {z:.2g} mm"
            ).format(i=i, j=j, k=k, x=x, y=y, z=z)
        if self.ui.imageLabel.text != words:
            self.ui.imageLabel.text = words

    def close(self) -> None:
        """The comparison stays as it is; its checkerboard goes."""
        self.sceneScans.close()
        self.compare.close()

    def _notRegistered(self) -> str:
        if not self.running.connected:
            return _("no registration: nothing is connected")
        return _("no registration: no scan yet") if self.running.image is None else _("not registered yet")

    def _residual(self) -> str:
        """The residual, large, and below it what else was measured, as rich text."""
        lines = []
        assessment = self.running.residual
        if assessment is not None and assessment.measurements[0].value is not None:
            # As in the views: both bounds with their unit, and the digits of the number.
            volume = assessment.measurements[0]
            words = _("Residual {value} ({bounds})").format(
                value=number(volume.value, volume.unit),
                bounds=interval(assessment.interval_cm3, volume.unit, volume.value),
            )
            lines.append(colored(words, DANGER, 15))
        elif assessment is not None:
            lines.append(escape(_("Residual: – ({why})").format(why=assessment.measurements[0].missing_because)))
        elif self.running.image is not None and self.running.session.plan.tumour is not None:
            why = self.running.unplacedBecause or _("it needs a scan with contrast agent and one without")
            lines.append(escape(_("Residual: – ({why})").format(why=why)))
        for name, found in () if self.choices.listsImplants else self.running.shownImplants().items():
            if isinstance(found, str):
                lines.append(colored(_("{name}: – ({why})").format(name=name, why=found), CHECK, 13))
            else:
                lines.append(graded(name, found, 14))
        shift = self.running.shift
        if shift is not None:
            found = [f"{m.name} {spread(m)}" for m in (shift.shift, shift.cavity) if m.value is not None]
            lines += [escape(words) for words in found]
        if self.crossCheck.found:
            lines.append(escape(self.crossCheck.words()))
        lines += [escape(note) for note in (self.running.residualNotes if assessment is not None else ())]
        return "<br>".join(lines)

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


def _scanOf(maps: Any) -> str:
    """The scan that maps were made of; "" when nobody says."""
    return str(maps.maps[0].metadata.get("scan", ""))


def _lines(reasons: Iterable[Reason]) -> str:
    return "\n".join(
        _("{name}: {value} (expected {expected})").format(
            name=r.name, value=f"{r.value:.3g} {r.unit}".rstrip(), expected=r.expected
        )
        for r in reasons
    )
