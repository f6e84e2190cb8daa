"""Page 5: the pointer, its distances, the alarms, the planes that follow it, the implant against its plan."""

from __future__ import annotations

import time
from html import escape
from typing import Any

import qt
import slicer
from IntraopMRIReconstructionLib.data import Measurement
from slicer.i18n import tr as _

from ...navigate.watch import AlarmLevel
from ...register.carry_over import Carried, LocalShift
from .. import colors, looks
from ..display import Line, inside, number, shownOfImplant, spread
from ..parameters import Metal, Phase
from ..roles import AT_RISK, RESIDUAL
from .layouts import DUAL, FOUR_UP, show
from .overlay import Guidance
from .page import Page, State, blocked, connectFirst, done, ready
from .style import CHECK, DANGER, GOOD, colored, graded, pixels, sentence, sized

#: The tone is repeated this often while a structure is too near, s.
TONE_S = 0.7
#: Height of two lines of the alarm.
ALARM_PX = 46


class NavigatePage(Page):
    """Shows numbers only while scan, registration, confirmation and pose are sound."""

    phase = Phase.NAVIGATE
    uiFile = "NavigatePage.ui"

    def __init__(self, panel: Any) -> None:
        super().__init__(panel)
        self._guidance: Guidance | None = None
        self._rested: tuple[Any, ...] = ()
        self._hasResidual = False
        #: What nobody has decided on: nothing is measured to it.
        self._undecided: tuple[Carried, ...] = ()
        #: What a distance was measured to, by the name of the measurement.
        self._measured: dict[str, Carried] = {}
        self._toned_s = 0.0
        #: Whether the pointer guided when the page was last shown anew.
        self._guided = False
        #: What is said large above the numbers, and not again at each of them.
        self._headline = ""
        self.ui.fourUpButton.connect("clicked()", lambda: show(FOUR_UP))
        self.ui.dualButton.connect("clicked()", lambda: show(DUAL))
        self.ui.keysLabel.text = panel.keyWords()
        #: Definition of each number; below it the reason is added while there is a dash.
        self._definitions = {
            label: label.toolTip
            for label in (
                self.ui.residualDistanceLabel,
                self.ui.riskDistanceLabel,
                self.ui.targetDistanceLabel,
                self.ui.tipShiftLabel,
                self.ui.cursorShiftLabel,
            )
        }

    @property
    def guidance(self) -> Guidance | None:
        """Distances and planes; None as soon as what they were made from is not what the session has now."""
        return self._guidance if _same(self._rests(), self._rested) else None

    def state(self) -> State:
        """Done while the pointer guides."""
        if not self.running.connected:
            return connectFirst()
        scan: Any = self.panel.pages[Phase.SCAN]
        if not self.running.trusted and not self.running.bones:
            why = self.running.untrustedBecause
            return blocked(sentence(_("{why}: no distance is shown.").format(why=why)))
        if scan.choices.openBasis:
            return blocked(
                _("{count}: decide on page 4, or go on without them there.").format(count=scan.choices.openBasis)
            )
        if self.running.bones:
            accepted = ", ".join(self.running.view.lone.accepted)
            if not accepted:
                return blocked(_("No vertebra is accepted: nothing is navigated."))
            return done(_("Only {names} are shown, each on its own; no distance is measured.").format(names=accepted))
        if not self.parameters.tracker.used:
            return done(_("No tracker in this session: what was found is shown."))
        if self.running.rawPose is not None and self.running.pose is None:
            return blocked(_("The pointer has no place yet: see page 3."))
        guide = self.guidance
        if guide is not None and guide.why:
            # Without an age: this sentence stands still, and the one that counts it stands large on the page.
            return ready(_("The pointer is out of sight or late: no distance is shown."))
        if scan.steering.following:
            return done(_("The pointer guides, and the scanner's image plane follows it."))
        return done(_("The pointer guides."))

    def enter(self) -> None:
        """Whoever opens this page wants to navigate."""
        if self.running.view is not None:
            self.running.view.expectPointer()
        if self._guidance is not None:
            self._guidance.expect()

    def refresh(self) -> None:
        """What does not move by itself."""
        tracked = bool(self.parameters.tracker.used)
        # From the tip nothing is measured where no pose of the whole counts.
        self.ui.distanceSection.visible = self.ui.alarmSection.visible = tracked and not self.running.bones
        session = self.running.session
        tumour = session is None or session.plan.tumour is not None
        for widget in (self.ui.label_12, self.ui.resliceBox, self.ui.followBox):
            widget.visible = tracked
        for widget in (self.ui.label_13, self.ui.residualOpacitySlider, self.ui.fillResidualBox):
            widget.visible = tumour
        implants = self.running.shownImplants()
        self.ui.implantSection.visible = bool(implants) or not tracked
        cards = [
            colored(f"{name}: –", CHECK, 16) + f"<br>{escape(found)}"
            if isinstance(found, str)
            else scorecard(name, found)
            for name, found in implants.items()
        ]
        self.ui.implantLabel.text = "<br>".join(cards) or "–"
        if self.running.view is not None:
            self._show(self.running.view.bridge)
        self.tick()

    def _show(self, bridge: Any) -> None:
        """Outlines and fills, as the team wants them."""
        p = self.parameters
        for role in bridge.roles():
            node = bridge.node(role) if role == RESIDUAL or role.startswith(AT_RISK) else None
            if node is None or not node.IsA("vtkMRMLSegmentationNode") or node.GetDisplayNode() is None:
                continue
            if role == RESIDUAL:
                node.GetDisplayNode().SetOpacity(p.residualOpacity)
            looks.fill(node, (p.fillResidual and self.running.heat is None) if role == RESIDUAL else p.fillAtRisk)

    def poseArrived(self) -> None:
        """One pose: planes, distances, alarm."""
        pose, guide = self.running.pose, self.guidance
        if guide is None or pose is None:
            return
        p = self.parameters
        guide.process(pose, p.reslice, p.riskAlarmMm, time.monotonic)
        if guide.pose is not None:
            self.running.view.steady(guide.pose)
        if p.followPointer and guide.pose is not None and not guide.why:
            self.panel.overlay.follow(guide.pose, guide.planes)

    def watch(self) -> None:
        """Distances and alarm of this moment, whatever page is open: the pointer moves on each of them."""
        self._prepare()
        guide = self.guidance
        if guide is None:
            return
        guide.refresh(self.parameters.riskAlarmMm)
        now = time.monotonic()
        if guide.level is AlarmLevel.TOO_NEAR and self.parameters.soundAlarm and now - self._toned_s > TONE_S:
            self._toned_s = now
            qt.QApplication.beep()

    def atRisk(self) -> tuple[str, Measurement, bool] | None:
        """The structure at risk that is nearest to the tip now, its distance, and whether that is too near."""
        guide = self.guidance
        if guide is None or guide.risk is None or guide.risk.value is None:
            return None
        item = self._measured.get(guide.risk.name)
        # In a corner of a view only the exception is said.
        name = item.name if item is not None and item.accepted else self._named(guide.risk)
        return name, guide.risk, guide.level is AlarmLevel.TOO_NEAR

    def tick(self) -> None:
        """Numbers, large; a dash where nothing may be said."""
        self.watch()
        guide = self.guidance
        nothing = self._nothingBecause(guide)
        self._headline = "" if guide is None else guide.why
        if self._guided is not (guided := not nothing):
            self._guided = guided
            self.panel.askRefresh()
        self._distance(
            self.ui.residualDistanceLabel,
            None if guide is None else guide.residual,
            "" if guide is None else _("inside it") if inside(guide.residual) else guide.direction,
            nothing or self._noResidual(),
        )
        for label, measurement, kind in (
            (self.ui.riskDistanceLabel, None if guide is None else guide.risk, "risk"),
            (self.ui.targetDistanceLabel, None if guide is None else guide.target, "target"),
        ):
            below = self._basis(measurement) + (self._pointerError(measurement) if kind == "target" else "")
            behind = _("inside it") if inside(measurement) else ""
            self._distance(label, measurement, behind, nothing or self._noThing(kind), below)
        self._local(self.ui.tipShiftLabel, self._tip(), nothing)
        place = cursor()
        self._local(self.ui.cursorShiftLabel, place, "" if place is not None else _("point at a slice"))
        self._alarm(guide)

    def shiftLines(self) -> tuple[Line, ...]:
        """Brain shift at the tip and under the cursor for the corner of the slices; nothing where it is not known."""
        places = ((_("tip"), self._tip()), (_("cursor"), cursor()))
        found = [(name, self._shiftAt(place)) for name, place in places]
        lines = [Line(f"{name} {words(there)}") for name, there in found if isinstance(there, LocalShift)]
        return (Line(_("BRAIN SHIFT"), color=colors.TEXT_QUIET, bold=True), *lines) if lines else ()

    def _tip(self) -> Any:
        view = self.running.view
        return None if view is None else view.tip()

    def _shiftAt(self, point: Any) -> LocalShift | str:
        """Only from a registration that a person has confirmed; otherwise why not, in words."""
        if why := self.running.untrustedBecause:
            return str(why)
        if point is None:
            return _("no pointer")
        found: LocalShift | str = self.running.view.localShift(point)
        return found

    def _nothingBecause(self, guide: Guidance | None) -> str:
        """Why nothing is measured from the tip now; empty while it is."""
        if not self.running.connected:
            return _("nothing is connected")
        if guide is None:
            return _("the whole spine is not registered") if self.running.bones else str(self.running.untrustedBecause)
        if self.running.pose is None:
            return _("the pointer has no place yet") if self.running.rawPose is not None else _("no pointer yet")
        return guide.why or (_("no pointer yet") if guide.pose is None else "")

    def _noResidual(self) -> str:
        if self.running.residual is None:
            return _("not measured: needs a scan with contrast agent and one without")
        missing = self.running.residual.measurements[0].missing_because
        return str(missing) or _("none found")

    def _noThing(self, kind: str) -> str:
        """Why there is no distance to a structure at risk or to the target."""
        waiting = [item.name for item in self._undecided if item.kind == kind]
        if waiting:
            return _("{names}: not decided on page 4").format(names=", ".join(waiting))
        return _("none planned")

    def _local(self, label: Any, point: Any, why: str) -> None:
        found = why or self._shiftAt(point)
        text = sized(words(found), 16) if isinstance(found, LocalShift) else self._dash(found)
        self._say(label, text, "" if isinstance(found, LocalShift) else found)

    def _distance(self, label: Any, measurement: Measurement | None, behind: str, why: str, below: str = "") -> None:
        if measurement is None or measurement.value is None:
            why = measurement.missing_because if measurement is not None else why
            self._say(label, self._dash(why), why)
            return
        text = sized(number(measurement.value, measurement.unit), 24)
        if behind:
            text += sized("  " + behind, 14)
        if below:
            text += "<br>" + below
        self._say(label, text, "")

    def _dash(self, why: str) -> str:
        """No number, and why unless that stands above them all, as rich text."""
        return sized("–", 16) + (f"&nbsp;&nbsp;{escape(why)}" if why != self._headline else "")

    def _say(self, label: Any, text: str, why: str) -> None:
        """A number, or a dash with its reason beside it and in the tooltip."""
        if label.text != text:
            label.text = text
            definition = self._definitions[label]
            label.toolTip = f"{definition}\n{_('Not shown: {why}').format(why=why)}" if why else definition

    def _basis(self, measurement: Measurement | None) -> str:
        """Name and position of what a distance was measured to."""
        item = None if measurement is None else self._measured.get(measurement.name)
        if item is None:
            return ""
        sure = f" ± {number(item.uncertainty_mm, 'mm')}" if item.accepted else ""
        return f"{escape(item.name + sure)}, {escape(item.basis)}"

    def _pointerError(self, target: Measurement | None) -> str:
        """How far off the pointer is expected to be at the target, where touched points tell it."""
        item = None if target is None else self._measured.get(target.name)
        register: Any = self.panel.pages[Phase.REGISTER]
        error = None if item is None else register.expectedError_mm(item.position_mm[0])
        if error is None:
            return ""
        return "<br>" + escape(_("Pointer there: expected error (TRE) {error}").format(error=number(error, "mm")))

    def _alarm(self, guide: Guidance | None) -> None:
        if guide is None:
            text = ""  # the state of the page says why
        elif self.running.view.pointerAside:
            text = sized(sentence(guide.why), 14)
        elif guide.why:
            text = colored(sentence(guide.why), CHECK, 18)
        elif guide.risk is None:
            waiting = ", ".join(item.name for item in self._undecided if item.kind == "risk")
            why = _("Not watched: {names}, undecided").format(names=waiting) if waiting else ""
            why = why or _("No structure at risk is watched")
            text = colored(why, CHECK, 14) if self.parameters.tracker.used else ""
        else:
            words = {
                AlarmLevel.SAFE: (_("Safe"), GOOD),
                AlarmLevel.NEAR: (_("Near: {name}").format(name=self._named(guide.risk)), CHECK),
                AlarmLevel.TOO_NEAR: (_("Too near: {name}").format(name=self._named(guide.risk)), DANGER),
                AlarmLevel.UNKNOWN: (_("Unknown"), CHECK),
            }[guide.level]
            text = colored(*words, 18)
        if self.ui.alarmLabel.text != text:
            self.ui.alarmLabel.text = text
        self.ui.alarmLabel.visible = bool(text)
        # Room for a reason of two lines: what stands below must not move each time that the pointer is out of sight.
        self.ui.alarmLabel.minimumHeight = pixels(ALARM_PX)

    def _named(self, risk: Measurement) -> str:
        item = self._measured.get(risk.name)
        if item is None:
            return risk.name
        return f"{item.name} ({_('carried over') if item.accepted else _('rigid pose')})"

    def _rests(self) -> tuple[Any, ...]:
        """What the distances rest on: residual, registration and the decisions about the plan; () before them all."""
        running = self.running
        if not running.trusted or running.registered is None:
            return ()
        view = running.view
        return (view, running.registered, running.residual, view.risks, *view.items.values())

    def _prepare(self) -> None:
        """Make the distances anew when what they rest on has changed."""
        rests, running = self._rests(), self.running
        if rests and _same(rests, self._rested):
            return
        self._guidance, self._rested = None, rests
        self._measured, self._undecided = {}, ()
        if not rests:
            return
        items = running.view.items
        self._undecided = tuple(item for item in items.values() if item.undecided)
        residual = running.view.distance if running.residual is not None else None
        self._hasResidual = residual is not None
        risks = []
        for name, (rigid, now) in running.view.risks.items():
            item = items[f"risk.{name}"]
            if item.undecided:
                continue
            risks.append(now if item.accepted and now is not None else rigid)
            self._measured[f"Tip to {name}"] = item
        target = next((item for item in items.values() if item.kind == "target"), None)
        if target is not None and target.undecided:
            target = None
        if target is not None:
            self._measured["Tip to target"] = target
        self._guidance = Guidance(residual, tuple(risks), None if target is None else target.position_mm[0])


def _same(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    """Whether both are the very same things."""
    return len(one) == len(other) and all(a is b for a, b in zip(one, other, strict=True))


def scorecard(name: str, found: Any) -> str:
    """Grade of an implant, the deviations that are judged, large, and the others, each with its interval, rich text.

    How the metal may look in the scan is no deviation: page 6 and the report have it.
    """
    judged = shownOfImplant(found.measurements)
    others = [m for m in found.measurements if m not in judged and " deviation" in m.name]
    table = "".join(_row(m, name, 16) for m in judged) + "".join(_row(m, name, 13) for m in others)
    metal = Metal.ofSusceptibility(found.planned.susceptibility_ppm)
    basis = escape(_("Plan: {basis}. {metal}.").format(basis=found.basis, metal=metal.label()))
    return f"{graded(name, found, 16)}<table>{table}</table>{basis}"


def _row(measurement: Measurement, name: str, size: int) -> str:
    """Value and interval, or a dash with its reason."""
    # All of them are deviations from the plan: what matters stands first, and fits beside the number.
    what = measurement.name.removeprefix(f"{name}: ").replace(" deviation", "")
    value = spread(measurement) if measurement.value is not None else "–"
    why = f" ({measurement.missing_because})" if measurement.value is None else ""
    cell = f"<span style='font-size:{pixels(size)}px'>{escape(what + why)}</span>"
    return f"<tr><td align='right' style='white-space:nowrap'>{sized(value, size)}</td><td>&nbsp;&nbsp;{cell}</td></tr>"


def cursor() -> Any:
    """Where the mouse points in a view, (3,) RAS mm; None when it is in none."""
    node = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
    place = [0.0, 0.0, 0.0]
    return place if node is not None and node.GetCursorPositionRAS(place) else None


def words(found: LocalShift) -> str:
    """Shift and 95 % radius."""
    return f"{found.shift_mm:.1f} ± {number(found.uncertainty_mm, 'mm')}"
