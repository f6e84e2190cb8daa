"""Page 2: scanner, tracker, live slices and robot: link, age, latency, frame."""

from __future__ import annotations

import time
from typing import Any

import slicer
from IntraopMRIReconstructionLib.errors import IntraopError
from IntraopMRIReconstructionLib.scene.panel import ensurePackages
from IntraopMRIReconstructionLib.scene.parameters import Peer as Dialect
from IntraopMRIReconstructionLib.wire.scanner_dialect import ScannerState
from slicer.i18n import tr as _

from ..display import age
from ..parameters import Phase
from .nodes import planLater
from .page import Action, Page, Readiness, State, blocked, done, offer, ready
from .planned_lines import plannedLines
from .rawdata import RawDataSection

PARTS = ("scanner", "tracker", "live", "robot")
#: What is said about a peer before it is connected, in the names of widgets.
SAID = ("UsedBox", "HostEdit", "PortBox", "DialectBox")


class ConnectPage(Page):
    """Opens and closes all links at once, since a session belongs to one patient and one set of devices."""

    phase = Phase.CONNECT
    uiFile = "ConnectPage.ui"

    def __init__(self, panel: Any) -> None:
        super().__init__(panel)
        self.ui.connectButton.connect("clicked()", self.toggle)
        self.ui.withoutScannerButton.connect("clicked()", self.withoutScanner)
        self._labels = {part: getattr(self.ui, f"{part}StateLabel") for part in PARTS}
        self._missing = False
        self.rawData = RawDataSection(self.ui.rawDataSection, lambda: panel.shows(self))

    def state(self) -> State:
        """Done while every link is up."""
        if self.running.connected:
            down = [part for part, (_address, up) in self.running.session.links().items() if not up]
            if down:
                return ready(_("Lost: {parts}. Connecting again by itself.").format(parts=", ".join(down)))
            tools = self.running.session.tools()
            if tools.is_missing:
                return ready(
                    _("The tracker sends no tool '{tool}'. Disconnect to choose another pointer.").format(
                        tool=tools.pointer
                    )
                )
            if not self.running.hasScanner:
                return done(_("No scanner: choose volumes of the scene as scans on page 4."))
            return done(_("Connected."))
        if self.panel.pages[Phase.CASE].state().readiness is not Readiness.DONE:
            return blocked(_("Complete page 1 first: incoming images are checked against the patient."))
        if not self.parameters.scanner.used:
            return ready(_("No scanner: volumes of the scene become scans on page 4."))
        return ready(_("Untick what is not there, then connect."))

    def action(self) -> Action | None:
        """Connect when all is entered."""
        if self.running.task is not None:
            return Action(_("Please wait"))
        state = self.state()
        if self.running.connected:
            return None
        if state.readiness is not Readiness.READY:
            return None
        return Action(_("Connect") if self.parameters.scanner.used else _("Go on without a scanner"), self.toggle)

    def refresh(self) -> None:
        """Button, addresses and what the scanner said."""
        connected = self.running.connected
        self.ui.connectButton.text = _("Disconnect") if connected else _("Connect")
        self.ui.connectButton.enabled = self.running.task is None and (
            connected or self.state().readiness is Readiness.READY
        )
        # To connect is the one next step, above: a second button for it would only take room.
        self.ui.connectButton.visible = connected
        self.ui.withoutScannerButton.visible = not connected
        offer(
            self.ui.withoutScannerButton,
            "" if self.running.task is None else _("other work is under way"),
            "" if self.state().readiness is Readiness.READY else _("complete page 1 first"),
        )
        for part in PARTS:
            for kind in SAID:
                getattr(self.ui, part + kind).enabled = not connected
        self.ui.pointerToolEdit.enabled = not connected
        self.ui.saidLabel.text = self.running.said
        self.ui.saidLabel.visible = bool(self.running.said)
        self.tick()

    def tick(self) -> None:
        """Ages and latency grow by themselves."""
        links = self.running.session.links() if self.running.connected else {}
        missing = self.running.connected and self.running.session.tools().is_missing
        if missing is not self._missing:
            self._missing = missing
            self.panel.askRefresh()
        for part, label in self._labels.items():
            words = self._words(part, links)
            if label.text != words:
                label.text = words

    def _words(self, part: str, links: dict[str, tuple[str, bool]]) -> str:
        # The choice itself may be folded away: one that was made for another device must be seen before it misleads.
        dialect = self._dialect(part)
        speaks = [] if dialect is Dialect.AS_SENT else [_("speaks: {name}").format(name=dialect.label())]
        if part not in links:
            words = [_("not part of this session") if self.running.connected else _("not connected")]
            return ", ".join(words if self.running.connected else words + speaks)
        if not links[part][1]:
            return _("lost, connecting again")
        words = [_("connected"), *speaks]
        if part == "tracker":
            words += self._poseWords()
        elif part == "scanner" and self.running.heard_s is not None:
            control = self.running.session.control
            if control is not None and control.state is not ScannerState.UNKNOWN:
                words.append(control.text)
            words.append(_("last message {age:.0f} s ago").format(age=time.monotonic() - self.running.heard_s))
        elif part == "live" and self.running.slice_s is not None:
            words.append(_("last slice {age:.0f} s ago").format(age=time.monotonic() - self.running.slice_s))
        elif part == "robot":
            control = self.running.session.controls[part]
            unknown = control.state is ScannerState.UNKNOWN
            return ", ".join([*words, (unknown and control.phase.lower()) or control.text])
        words.append(_("frame RAS, mm"))
        return ", ".join(words)

    def _poseWords(self) -> list[str]:
        # As it came: whether page 3 knows what it means is said there.
        pose, tools = self.running.rawPose, self.running.session.tools()
        if tools.is_missing:
            others = ", ".join(f"'{name}'" for name in tools.others)
            return [_("tool '{tool}' was not seen, only {others}").format(tool=tools.pointer, others=others)]
        if pose is None:
            return [_("no pose yet")]
        words = [
            _("following '{tool}'").format(tool=pose.tool),
            _("pose {age} old").format(age=age(old_s) if (old_s := pose.age_s()) >= 1.0 else f"{1000 * old_s:.0f} ms"),
        ]
        if pose.sent_utc_s is not None:
            words.append(_("latency {ms:.0f} ms").format(ms=1000 * (pose.received_utc_s - pose.sent_utc_s)))
        if not pose.valid:
            words.append(_("tool '{tool}' not seen").format(tool=pose.tool))
        return words

    def _dialect(self, part: str) -> Dialect:
        return getattr(self.parameters, f"{part}Dialect")

    def enter(self) -> None:
        """The reconstruction panel follows the scene while this page is open."""
        self.rawData.enter()

    def leave(self) -> None:
        """It follows nothing while nobody sees it."""
        self.rawData.leave()

    def close(self) -> None:
        """It leaves nothing behind."""
        self.rawData.close()

    def withoutScanner(self) -> None:
        """Go on with no device at all: scans are chosen among the volumes of the scene."""
        with slicer.util.NodeModify(self.parameters):
            for part in PARTS:
                getattr(self.parameters, part).used = False
        self.toggle()

    def toggle(self) -> None:
        """Connect, or disconnect."""
        if self.running.connected:
            self.running.disconnect()
            self.panel.refresh()
            return
        try:
            ensurePackages("IntraopMRI")
            p = self.parameters
            case: Any = self.panel.pages[Phase.CASE]
            plan = planLater(p, case.baseline())
            tools = {"tracker": p.pointerTool.strip()}
            peers = {
                part: (peer.host, peer.port, self._dialect(part).value, tools.get(part, ""))
                for part in PARTS
                if (peer := getattr(p, part)).used
            }
            chosen = (
                p.tumourSegmentation, p.riskSegmentation, p.plannedTarget, p.plannedLandmarks, *plannedLines(p)
            )  # fmt: skip
            self.running.chosen = [node for node in chosen if node is not None]
            self.running.connect(plan, peers)
        except IntraopError as error:
            self.running.problem = str(error)
        self.panel.refresh()
