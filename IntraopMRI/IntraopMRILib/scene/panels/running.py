"""What runs behind the session panel: the theatre, the session, and what came of them. Main thread only.

Nothing here survives the panel: a scene that is loaded brings choices and pictures, never a connection or a
confirmation.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import slicer
from IntraopMRIReconstructionLib.data import Level, Pose, Progress
from IntraopMRIReconstructionLib.errors import IntraopError
from IntraopMRIReconstructionLib.scene.task import BackgroundTask
from slicer.i18n import tr as _

from ...session.dicom import Gathered
from ...session.updates import (
    DeviceSaid,
    HeatMeasured,
    ImageReady,
    ImplantFound,
    MapReady,
    Problem,
    Registered,
    ResidualFound,
    ScanProgress,
    ShiftFound,
    StageProgress,
    Update,
)

#: A stream of slices that brings none for so long (s) stands still.
LIVE_OLD_S = 3.0


class Running:
    """Connection, progress and results. ``changed`` is called when a page may have to look different."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self.theatre: Any = None
        self.session: Any = None
        self.view: Any = None
        self.task: BackgroundTask | None = None
        #: What the finished task still does on the main thread, a step a tick.
        self._steps: Iterator[None] | None = None
        self.chosen: list[Any] = []
        self._preparer: Any = None
        self._reset()

    def _reset(self) -> None:
        #: (4, 4) scanner RAS from the tracker's frame; None until page 3 knows it, then no pointer is shown.
        self.scannerFromTracker: Any = None
        #: (4, 4) tip in the frame of each calibrated tool; None while nobody has confirmed it, then it is not shown.
        self.toolFromTip: dict[str, Any] = {}
        self.progress: tuple[float, str] | None = None
        self.problem = ""
        self.warnings: list[str] = []
        self.said = ""
        self.heard_s: float | None = None
        #: When the newest live slice came (monotonic s), and whether its name says that none has followed.
        self.slice_s: float | None = None
        self._stopped = False
        #: As the tracker sent it; with the calibrated tip, in the tracker's frame; in the scanner's frame.
        self.rawPose: Pose | None = None
        self.tipPose: Pose | None = None
        self.pose: Pose | None = None
        self.image: Any = None
        #: The newest maps of a quantity, while no newer scan has come.
        self.maps: MapReady | None = None
        #: The newest frame of thermometry in numbers, as long.
        self.heat: HeatMeasured | None = None
        self.registered: Any = None
        self.confirmed = False
        self.shift: Any = None
        self.residual: Any = None
        self.residualNotes: tuple[str, ...] = ()
        self.implants: dict[str, Any] = {}
        self.reportPath = ""
        self.gathered = Gathered()
        if self._preparer is not None:
            self._preparer.close()
            self._preparer = None

    @property
    def connected(self) -> bool:
        """Whether there is a session."""
        return self.session is not None

    @property
    def hasScanner(self) -> bool:
        """Whether a scanner sends the scans of this session; otherwise, as beside a robot, a person chooses them."""
        if self.session is None or "scanner" not in self.session.links():
            return False
        return self.session.control is None or self.session.control.dialect.start is not None

    @property
    def busy(self) -> bool:
        """Whether something works in the background that can be cancelled."""
        return self.task is not None or self.progress is not None

    @property
    def trusted(self) -> bool:
        """Whether a registration was accepted by its verdict and confirmed by a person."""
        return not self.untrustedBecause

    @property
    def unplacedBecause(self) -> str:
        """Why the plan has no place in the newest image, in words; empty when it has one."""
        if self.registered is None:
            return _("no scan yet") if self.image is None else _("the new image is not registered yet")
        refused = self.registered.registration.verdict.level is Level.REFUSED
        return _("registration refused") if refused else ""

    @property
    def untrustedBecause(self) -> str:
        """The same, or that nobody has confirmed that place."""
        return self.unplacedBecause or ("" if self.confirmed else _("registration not confirmed"))

    @property
    def bones(self) -> dict[str, Any]:
        """Vertebrae by key that a person decides on one by one, since the pose of the whole was refused; else none."""
        return {} if self.view is None else self.view.lone.items

    def shownImplants(self) -> dict[str, Any]:
        """Each implant by name as it was found, or why it is not shown."""
        return self.view.lone.implants() if self.bones else dict(self.implants)

    def judged(self, found: ImplantFound) -> None:
        """A person has decided on an implant."""
        self.implants[found.planned.name] = found
        self.view.lone.judged(found)

    def owns(self, node: Any) -> bool:
        """Whether the connected session shows this node and still wants it."""
        return self.view is not None and self.view.bridge.wants(node)

    # the session

    def start(
        self, what: str, work: Callable[[], Any], finished: Callable[[Any], None], discarded: Any = None
    ) -> BackgroundTask | None:
        """Do work in the background; its error becomes the problem that is shown. None while another one is busy."""
        if self.task is not None:
            self.problem = _("Still busy: {what}. Wait or cancel.").format(what=self.task.what)
            self._changed()
            return None
        self.problem = ""
        self.task = BackgroundTask(what, work, finished, self._failed, discarded or (lambda _result: None))
        self._changed()
        return self.task

    def startTold(
        self, what: str, work: Callable[[Progress], Any], finished: Callable[[Any], None], discarded: Any = None
    ) -> BackgroundTask | None:
        """As :meth:`start`, for work that tells how far it is, and by that learns that it was cancelled."""
        started: list[BackgroundTask] = []

        def progress(fraction: float, _what: str) -> bool:
            # The first words may come before this thread's task is known here.
            for task in started:
                task.fraction = fraction
            return not any(task.abandoned for task in started)

        task = self.start(what, lambda: work(progress), finished, discarded)
        if task is not None:
            started.append(task)
        return task

    def goOn(self, steps: Iterator[None]) -> None:
        """To be called when a task has finished: it ends with these steps, one a tick."""
        self._steps = steps

    def connect(self, plan: Callable[[], Any], peers: Mapping[str, tuple[str, int, str, str]]) -> None:
        """Make the plan and open the links in the background; then bring the plan into the scene.

        ``peers``: host, port, name of the profile and tool (see :class:`Link`) of scanner, tracker, live and robot, of
        those that are used.
        """

        def work() -> Any:
            # Loading what a session needs takes as long as a person notices: not in the click, nor in what follows it.
            from IntraopMRIReconstructionLib.wire.trust import profile_named

            from ...session import Link, Session
            from .. import session_view  # noqa: F401
            from ..prepared import preparePlan

            session = Session(plan())
            prepared = preparePlan(session.plan)
            links = {
                part: Link(host, port, profile_named(dialect), tool)
                for part, (host, port, dialect, tool) in peers.items()
            }
            session.connect(links.get("scanner"), links.get("tracker"), links.get("live"), links.get("robot"))
            return session, prepared

        self.start(_("connecting"), work, self._connected, lambda late: late[0].close())

    def _connected(self, made: Any) -> None:
        from ..bridge import SceneBridge
        from ..prepared import Preparer
        from ..session_view import SessionView

        session, prepared = made
        self._reset()
        self.session, self._preparer = session, Preparer()
        self._showChosen(False)
        self.view = SessionView(SceneBridge(slicer.mrmlScene), session.plan, prepared=prepared)
        self.heard_s = time.monotonic()

    def _showChosen(self, visible: bool) -> None:
        """The session shows its own copies of what a person chose: both at once would be read as two tumours."""
        for node in self.chosen:
            if node.GetScene() is not None:
                node.SetDisplayVisibility(visible)

    def _failed(self, sentence: str) -> None:
        self.problem = sentence

    def confirm(self) -> None:
        """A person has looked at the overlay and accepts it."""
        self.confirmed = True
        self.session.journal.event("confirmed", self.registered.registration.verdict.text)
        self._changed()

    def cancel(self) -> None:
        """Stop what works in the background; results stay."""
        if self.task is not None:
            self.task.abandon()
            self.task = None
        for _step in self._steps or ():
            pass  # a part of what is shown would look like the whole
        self._steps = None
        if self.session is not None and self.progress is not None:
            self.session.cancel()
        self.progress = None
        self._changed()

    def disconnect(self) -> None:
        """Close the session in the background; what it found stays in the scene, nothing stays trusted."""
        session, self.session = self.session, None
        if self.view is not None:
            self.view.bridge.withdraw(_("The session was closed."))
            self.view = None
        self._showChosen(True)
        self._reset()
        if session is not None:
            self.start(_("disconnecting"), session.close, lambda _result: None)

    def forgetScene(self) -> None:
        """The scene goes away: nothing may write to it any more. A simulated theatre goes on, as a real one would."""
        self._endSession()
        self.chosen.clear()

    def close(self) -> None:
        """End everything, threads and processes included; waits for them."""
        ending = self._endSession()
        theatre, self.theatre = self.theatre, None
        if theatre is not None:
            theatre.stop()
        for task in ending:
            task.join(timeout_s=30.0)

    def _endSession(self) -> list[BackgroundTask]:
        """Let go of session and task at once; their threads end by themselves. Returns what is still ending."""
        task, self.task = self.task, None
        self._steps = None
        session, self.session = self.session, None
        self.view = None
        self._reset()
        ending = []
        if task is not None:
            task.abandon()
            ending.append(task)
        if session is not None:
            ending.append(BackgroundTask("closing", session.close, lambda _result: None, lambda _error: None))
        return ending

    # the timer

    def tick(self) -> bool:
        """Take in what arrived: at most one thing a tick changes nodes. Whether one did: leave the rest for later."""
        worked = False
        if self._steps is not None:
            worked = True
            self._step()
        elif self.task is not None:
            task = self.task
            worked = task.poll()
            if worked and self.task is task and self._steps is None:
                self.task = None
                self._changed()
        if worked or self.session is None:
            return worked
        for update in self.session.drain():
            if isinstance(update, ScanProgress | StageProgress | DeviceSaid):
                self._take(update)
            else:
                self._preparer.put(update)
        update, prepared = self._preparer.next() or (None, None)
        if update is not None:
            self._take(update, prepared)
        elif prepared is not None:
            self.view.draw(prepared)
        self._follow()
        return prepared is not None

    def _step(self) -> None:
        try:
            next(self._steps or iter(()))
        except StopIteration:
            self._steps = self.task = None
            self._changed()

    def _follow(self) -> None:
        try:
            live = self.session.live_slice()
            if live is not None:
                self.view.bridge.setLiveSlice(live)
                self.slice_s, self._stopped = time.monotonic(), False
            elif self.slice_s is not None and not self._stopped and time.monotonic() - self.slice_s > LIVE_OLD_S:
                self._stopped = True
                at = datetime.now() - timedelta(seconds=time.monotonic() - self.slice_s)
                self.view.bridge.stopLiveSlice(_("none since {time}").format(time=f"{at:%H:%M:%S}"))
            pose = self.session.pose()
            if pose is not None:
                self.place(pose)
                self._move()
        except IntraopError as error:
            if str(error) not in self.warnings:
                self.warnings.append(str(error))
                self._changed()
        self.view.tick()

    def place(self, pose: Pose) -> None:
        """A pose as the tracker sent it, to its tip and into the scanner's frame as far as both are known."""
        self.rawPose = pose
        tip = self.toolFromTip.get(pose.tool, np.eye(4))
        self.tipPose = None if tip is None else replace(pose, ras_from_tool=pose.ras_from_tool @ tip)
        if self.tipPose is None or self.scannerFromTracker is None:
            self.pose = None
        else:
            self.pose = replace(self.tipPose, ras_from_tool=self.scannerFromTracker @ self.tipPose.ras_from_tool)

    def _move(self) -> None:
        if self.pose is None:
            self.view.bridge.setPointer(None)
        else:
            self.view.movePointer(self.pose)

    def _take(self, update: Update, prepared: Any = None) -> None:
        self.heard_s = time.monotonic()
        if isinstance(update, ScanProgress):
            self._progressed(update.fraction, _("receiving {scan}").format(scan=update.protocol or update.scan_id))
        elif isinstance(update, StageProgress):
            self._progressed(update.fraction, update.what or update.stage)
        elif isinstance(update, DeviceSaid):
            self.said = _("{device}: {text}").format(device=update.status.device, text=update.status.text)
        else:
            self._result(update, prepared)
        self._changed()

    def _progressed(self, fraction: float, what: str) -> None:
        self.progress = (fraction, what) if fraction < 1.0 else None

    def _result(self, update: Update, prepared: Any) -> None:
        self.view.apply(update, prepared)
        self.gathered.take(update)
        if isinstance(update, ImageReady):
            self.image, self.confirmed, self.maps, self.heat = update, False, None, None
            self.registered = self.shift = self.residual = None
            self.implants.clear()
            self.problem = self.reportPath = ""
        elif isinstance(update, MapReady):
            self.maps = update
        elif isinstance(update, HeatMeasured):
            self.heat = update
        elif isinstance(update, Registered):
            self.registered, self.confirmed = update, False
        elif isinstance(update, ShiftFound):
            self.shift = update
        elif isinstance(update, ResidualFound):
            self.residual, self.residualNotes = update.assessment, update.notes
        elif isinstance(update, ImplantFound):
            self.implants[update.planned.name] = update
        elif isinstance(update, Problem):
            self.progress = None
            if update.fatal:
                self.problem = update.text
            else:
                self.warnings.append(update.text)
