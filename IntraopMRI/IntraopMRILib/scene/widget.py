"""The session panel: one page per phase of the procedure, one prominent next action."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import qt
import slicer
import vtk
from IntraopMRIReconstructionLib.scene.look import nextButton, notice
from IntraopMRIReconstructionLib.scene.panel import Panel, nameAll
from slicer.i18n import tr as _

from .display import Readout
from .panels import style
from .panels.case import CasePage
from .panels.connect import ConnectPage
from .panels.decide import DecidePage
from .panels.emergency import Emergency
from .panels.layouts import swap
from .panels.navigate import NavigatePage
from .panels.overlay import Overlay
from .panels.page import Page, Readiness, tabInOrder
from .panels.register import RegisterPage
from .panels.running import Running
from .panels.scan import ScanPage
from .parameters import Phase
from .stored import StoredSession

#: How often the main thread looks for news, ms: 50 times a second, below what an eye sees as late.
TICK_MS = 20
#: How often ages and distances are written anew, in the panel and in the views at once, s.
SLOW_TICK_S = 0.2
#: A page is shown anew at most this often, s: progress comes much faster than anybody reads.
REFRESH_S = 0.1
#: Choices that a removed node leaves behind.
CHOSEN_NODES = (
    "preopVolume", "tumourSegmentation", "riskSegmentation", "plannedTarget", "plannedImplant", "plannedLandmarks",
    "sceneScan", "heatedPlace",
)  # fmt: skip
#: Room for a message of two lines above two about the page: what a person is about to press must not move then.
MESSAGES_PX = 70
PAGES: tuple[type[Page], ...] = (CasePage, ConnectPage, RegisterPage, ScanPage, NavigatePage, DecidePage)


class SessionPanel(Panel):
    """Case, connect, register, scan and review, navigate, decide and report.

    ``resourcePath``: path of a file below the module's Resources folder.
    """

    def __init__(self, resourcePath: Callable[[str], str], logic: Any, isShown: Callable[[], bool]) -> None:
        super().__init__(resourcePath("UI/IntraopMRI.ui"), logic, isShown)
        self.resourcePath = resourcePath
        #: Further arguments of the simulated theatre's servers, by server.
        self.theatreOptions: dict[str, list[str]] = {}
        self._refreshing = False
        self._asked = False
        self._slow_s = self._refreshed_s = 0.0
        self.overlay = Overlay()
        self.emergency = Emergency(self)
        self.running = Running(self.askRefresh)
        self.pages: dict[Phase, Page] = {kind.phase: kind(self) for kind in PAGES}
        self._steps = {phase: getattr(self.ui, f"{phase.name.lower()}StepButton") for phase in Phase}
        self._names = {phase: button.text for phase, button in self._steps.items()}
        self._shownPage: Page | None = None
        for phase, page in self.pages.items():
            # No stacked widget: there every page is as high as the highest, and needs a scroll bar.
            self.ui.pageArea.layout().addWidget(page.widget)
            page.widget.visible = False
            tabInOrder(page.widget)
            nameAll(page.widget)
            self._steps[phase].connect("clicked()", lambda phase=phase: self.open(phase))
        self.ui.nextButton.connect("clicked()", self._onNext)
        self.ui.cancelButton.connect("clicked()", self.running.cancel)
        self._gone: list[tuple[str, str]] = []
        self._torn: list[str] = []
        self.stored = StoredSession(slicer.mrmlScene)
        self.stored.look()
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndImportEvent, self._onSceneLoaded)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.NodeAboutToBeRemovedEvent, self._onNodeLeaves)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.NodeAddedEvent, self._onNodeComes)
        self._shortcuts = self._makeShortcuts()
        self._timer = qt.QTimer()
        self._timer.setInterval(TICK_MS)
        self._timer.connect("timeout()", self._tick)
        self._timer.start()

    # Panel

    def boundUis(self) -> list[Any]:
        """Every page has widgets that are bound to the parameter node."""
        return [page.ui for page in self.pages.values()]

    def enter(self) -> None:
        """Follow the scene again, and listen to the keys."""
        super().enter()
        for shortcut in self._shortcuts:
            # The panel is made before it is opened, perhaps by a script that never opens it.
            shortcut.enabled = self._isShown()

    def exit(self) -> None:
        """The session goes on while another module is open; keys belong to that module."""
        self._leavePage()
        for shortcut in self._shortcuts:
            shortcut.enabled = False
        super().exit()

    def cleanup(self) -> None:
        """End threads, processes and timers; remove what was drawn."""
        self._timer.stop()
        self._timer.disconnect("timeout()", self._tick)
        for shortcut in self._shortcuts:
            shortcut.setParent(None)
            shortcut.deleteLater()
        self._shortcuts.clear()
        self._leavePage()
        for page in self.pages.values():
            page.close()
        self.running.close()
        self.overlay.close()
        super().cleanup()

    def sceneAboutToChange(self) -> None:
        """Nothing may write to a scene that goes, and nothing that was confirmed before holds in the next one."""
        self._leavePage()
        for page in self.pages.values():
            page.close()
        self.running.forgetScene()
        self.stored.forget()
        self.overlay.close()

    def sceneAboutToBeJoined(self) -> None:
        """As above; whoever adds a scene to this one does not expect that."""
        wasConnected = self.running.connected
        super().sceneAboutToBeJoined()
        if wasConnected:
            self.running.problem = _("A scene was loaded, which ended the session: connect again on page 2")

    def refresh(self) -> None:
        """Show every step's state, the open page, and the one next action."""
        if self.parameters is None or self._refreshing or not hasattr(self, "_steps"):
            return
        self._refreshing, self._asked, self._refreshed_s = True, False, time.monotonic()
        self._suit()
        try:
            self._showFrame()
            self._showPage()
            scan: Any = self.pages[Phase.SCAN]
            scan.choices.hideUndecided(not self.shows(scan))
        finally:
            self._refreshing = False

    def shows(self, page: Page) -> bool:
        """Whether this page can be seen now."""
        return page is self._shownPage and self.parameters is not None

    def askRefresh(self) -> None:
        """Refresh soon: many changes at once cost one refresh."""
        self._asked = True

    def open(self, phase: Phase) -> None:
        """Open a page."""
        if self.parameters is not None:
            self.parameters.phase = phase
            if self._shownPage is not self.pages[phase]:
                self.refresh()

    # inside

    def _suit(self) -> bool:
        """Follow the style of the application. Whether it has changed."""
        changed = self.suited()
        style.suit(self.suited.dark, self.suited.scale)
        if changed:
            self.ui.nextButton.setStyleSheet(nextButton(self.suited.scale))
            self.ui.bannerLabel.setStyleSheet(notice(style.pixels(13)))
            self.ui.messageArea.minimumHeight = style.pixels(MESSAGES_PX)
        return changed

    def _showFrame(self) -> None:
        p = self.parameters
        register: Any = self.pages[Phase.REGISTER]
        self.running.scannerFromTracker = register.scannerFromTracker()
        self.running.toolFromTip = register.toolFromTip()
        identity = _("{name}  ·  {id}").format(name=p.patientName or _("no name"), id=p.patientId or _("no identifier"))
        self.ui.patientLabel.text = style.sized(identity if p.patientName or p.patientId else _("No patient"), 15)
        self.ui.bannerLabel.text = style.sentence(self.running.problem)
        self.ui.bannerLabel.visible = bool(self.running.problem)
        for phase, button in self._steps.items():
            state = self.pages[phase].state()
            button.text = f"{state.readiness.value}  {self._names[phase]}"
            button.toolTip = state.text
            button.checked = phase is p.phase
            button.setStyleSheet(style.step(state.readiness, phase is p.phase))
        progress = self.running.progress
        busy = self.running.busy
        self.ui.progressBar.visible = self.ui.cancelButton.visible = busy
        if busy:
            task = self.running.task
            if progress is None and task is not None and task.fraction is not None:
                progress = task.fraction, task.what
            fraction, what = progress or (0.0, task.what if task is not None else "")
            self.ui.progressBar.maximum = 100 if progress is not None else 0
            self.ui.progressBar.value = round(100 * fraction)
            self.ui.progressBar.format = _("{what} %p %").format(what=what) if progress is not None else what

    def _showPage(self) -> None:
        page = self.pages[self.parameters.phase]
        if page is not self._shownPage:
            self._leavePage()
            self._shownPage = page
            for other in self.pages.values():
                other.widget.visible = other is page
            page.enter()
        page.refresh()
        said = [page.state().text, *self.running.warnings[-2:]]
        if (first := self._waitsFor()) is not None:
            said.insert(1, f"{self._names[first]}: {self.pages[first].state().text}")
        if self.running.view is None and (stored := self.stored.words()):
            said.insert(
                1, _("The views show a stored scene ({stored}): nothing of it is verified.").format(stored=stored)
            )
        self.ui.whyLabel.text = "\n".join(said)
        text, work = self._next()
        self.ui.nextButton.text, self.ui.nextButton.enabled = text, work is not None

    def _leavePage(self) -> None:
        page, self._shownPage = self._shownPage, None
        if page is not None:
            page.leave()

    def _next(self) -> tuple[str, Callable[[], None] | None]:
        """Text of the one prominent button and what it does; None when a person has to do something first."""
        phases, phase = list(Phase), self.parameters.phase
        page, first = self.pages[phase], self._waitsFor()
        if first is not None:
            return _("Go to: {page}").format(page=self._names[first]), lambda: self.open(first)
        action = page.action()
        if action is not None:
            return action.text, action.run
        after = [p for p in phases[phases.index(phase) + 1 :] if not self._isDone(p) or p is Phase.NAVIGATE]
        if after:
            return _("Go on: {page}").format(page=self._names[after[0]]), lambda: self.open(after[0])
        return _("Everything is done"), None

    def _waitsFor(self) -> Phase | None:
        """The first page that has to be done before the open one can go on by itself; None where there is none."""
        page = self.pages[self.parameters.phase]
        if page.state().readiness is not Readiness.BLOCKED or page.action() is not None:
            return None
        before = list(Phase)[: list(Phase).index(self.parameters.phase)]
        return next((phase for phase in before if not self._isDone(phase)), None)

    def _isDone(self, phase: Phase) -> bool:
        return self.pages[phase].state().readiness is Readiness.DONE

    def _onNext(self) -> None:
        if self.parameters is not None:
            work = self._next()[1]
            if work is not None:
                work()
            self.refresh()

    def _onSceneLoaded(self, _caller: Any, _event: Any) -> None:
        self.stored.look()
        self.askRefresh()

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _onNodeComes(self, _caller: Any, _event: Any, node: Any) -> None:
        if node.IsA("vtkMRMLDisplayableNode"):
            self.askRefresh()

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _onNodeLeaves(self, _caller: Any, _event: Any, node: Any) -> None:
        if self.parameters is not None and not slicer.mrmlScene.IsClosing():
            for field in CHOSEN_NODES:
                if self.parameters.getValue(field) is node:
                    self._gone.append((field, node.GetName()))
            if self.running.owns(node):
                self._torn.append(node.GetName())

    def _forgetLeftNodes(self) -> None:
        """A selector chooses the neighbour of a removed node by itself: another volume must never slip in unseen."""
        for field, name in self._gone:
            self.parameters.setValue(field, None)
            self.running.problem = _("'{name}' was removed from the scene: choose it again on page {page}").format(
                name=name, page=Phase.SCAN.value if field in ("sceneScan", "heatedPlace") else Phase.CASE.value
            )
        self._gone.clear()
        self.refresh()

    def _putBack(self) -> None:
        """What the session shows belongs together: without one node the others would lie, or lie elsewhere."""
        if self.running.view is not None:
            self.running.view.bridge.restore()
            self.running.problem = _(
                "'{name}' belongs to the running session and was put back: disconnect on page 2 before removing it"
            ).format(name=self._torn[0])
        self._torn.clear()
        self.refresh()

    def _tick(self) -> None:
        before, sent = self.running.pose, self.running.rawPose
        worked = self.running.tick()
        self.emergency.tick()
        now = time.monotonic()
        if self.parameters is None:
            # The session goes on while another module is open: what stands in the views must not stand still.
            if not worked and now - self._slow_s > SLOW_TICK_S:
                self._slow_s = now
                self.annotate()
            return
        if self.running.rawPose is not sent and self.running.rawPose is not None:
            self.pages[Phase.REGISTER].poseArrived()  # type: ignore[attr-defined]
        if self.running.pose is not before:
            self.pages[Phase.NAVIGATE].poseArrived()  # type: ignore[attr-defined]
            self.pages[Phase.SCAN].steering.poseArrived()  # type: ignore[attr-defined]
        if self._gone:
            self._forgetLeftNodes()
        if self._torn:
            self._putBack()
        # One thing a tick: together they would be felt. The next tick is not far.
        if worked:
            return
        if self._asked and now - self._refreshed_s > REFRESH_S:
            self.refresh()
        elif now - self._slow_s > SLOW_TICK_S:
            self._slow_s = now
            if self._suit():
                self.askRefresh()
            if self._shownPage is not None:
                self._shownPage.tick()
            if self._shownPage is not (navigate := self.pages[Phase.NAVIGATE]):
                navigate.watch()  # type: ignore[attr-defined]
            self.annotate()

    def annotate(self) -> None:
        """The numbers of this moment into the views; none once there is no session that stands for them."""
        if self.running.view is None:
            if stored := self.stored.words():
                self.stored.measure(self.overlay.scale())
                self.overlay.annotate(Readout(stored=stored), legend=self.stored.legend())
            else:
                self.overlay.close()
            return
        self.running.view.bridge.measure(self.overlay.scale())
        scan: Any = self.pages[Phase.SCAN]
        # Both would not fit; where heat is measured it comes first.
        corner = scan.compare.around(time.time()) or self.pages[Phase.NAVIGATE].shiftLines()  # type: ignore[attr-defined]
        proposal = self.pages[Phase.DECIDE].measure.proposal.legend()  # type: ignore[attr-defined]
        legend = (*self.running.view.bridge.legend(), *proposal)
        self.overlay.annotate(self._readout(), corner, scan.compare.heads(), legend, scan.compare.colorBar())

    def _readout(self) -> Readout:
        """What the views say: the same distance as the panel, and none before a person has confirmed."""
        readout = replace(
            self.running.view.readout(),
            tracked="tracker" in self.running.session.links(),
            # Nothing watches a structure at risk while another module is open.
            unwatched=self.parameters is None and bool(self.running.view.risks),
            unconfirmed=not self.running.confirmed,
        )
        if self.running.image is None and not readout.withdrawn:
            # The chosen volume is on the screen and a pointer beside it, each in a frame of its own.
            readout = replace(readout, unplaced=True)
        if not self.running.trusted:
            # The residual belongs to the review; where the tip is matters only after the confirmation
            if readout.tip_to_residual is None:
                return readout
            why = self.running.untrustedBecause
            return replace(
                readout,
                tip_to_residual=replace(readout.tip_to_residual, value=None, interval=None, missing_because=why),
            )
        navigate: Any = self.pages[Phase.NAVIGATE]
        found = None if self.parameters is None else navigate.atRisk()
        if found is None:
            return readout
        name, distance, tooNear = found
        return replace(readout, risk=(name, distance), too_near=name if tooNear else "")

    def _makeShortcuts(self) -> list[Any]:
        window = slicer.util.mainWindow()
        if window is None:
            return []
        made = []
        for key, _name, work in self._keys():
            shortcut = qt.QShortcut(qt.QKeySequence(key), window)
            shortcut.connect("activated()", work)
            shortcut.enabled = False
            made.append(shortcut)
        return made

    def keyWords(self) -> str:
        """The keyboard shortcuts for a person."""
        return _("Keys: {keys}").format(keys=", ".join(f"{key} {name}" for key, name, _work in self._keys()))

    def _keys(self) -> list[tuple[str, str, Callable[[], None]]]:
        """Key, what it does in words, and its work: the one list of them.

        Slicer's views have letters, arrows and PgUp / PgDown for themselves (F and B scroll a slice, PgDown turns the
        3D view), its main window Ctrl with a letter or digit, the Segment Editor digits; with Shift a move of the mouse
        moves all slices, and Alt opens menus. None of them uses a function key.
        """
        return [
            ("F5", _("blend to before"), lambda: self._blend(-0.1)),
            ("F6", _("blend to now"), lambda: self._blend(+0.1)),
            ("F7", _("follow the pointer"), lambda: self._toggle("followPointer")),
            ("F8", _("residual as outline"), lambda: self._toggle("fillResidual")),
            ("F9", _("two views or four"), swap),
            ("Ctrl+PgUp", _("page back"), lambda: self._turn(-1)),
            ("Ctrl+PgDown", _("page on"), lambda: self._turn(+1)),
        ]

    def _blend(self, step: float) -> None:
        if self.parameters is not None:
            self.parameters.blend = min(1.0, max(0.0, self.parameters.blend + step))

    def _toggle(self, field: str) -> None:
        if self.parameters is not None:
            self.parameters.setValue(field, not self.parameters.getValue(field))

    def _turn(self, step: int) -> None:
        if self.parameters is not None:
            phases = list(Phase)
            self.open(phases[min(len(phases) - 1, max(0, phases.index(self.parameters.phase) + step))])
