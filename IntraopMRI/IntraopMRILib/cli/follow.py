"""The main thread of one session in the terminal: progress bars, pictures, scene, record and report in one folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from IntraopMRIReconstructionLib.data import Level, Measurement, Pose
from IntraopMRIReconstructionLib.errors import IntraopError, SessionError

from ..report.html import Picture
from ..report.html import render as render_report
from ..session import Plan, Session
from ..session.dicom import DICOM, PIECE, Gathered, possible, save
from ..session.updates import (
    ALIGNMENT,
    RESIDUAL,
    BonesFound,
    ImageReady,
    ImplantFound,
    MapReady,
    PlanCarried,
    Problem,
    Registered,
    ResidualFound,
    Role,
    ScanProgress,
    ShiftFound,
    StageProgress,
    Update,
    deviation,
)
from ..workflow.record import as_document, write_results
from .heat import Heat, follow_heat
from .outcome import Outcome, PointerSample
from .results import words_of

#: How often the main thread looks for news (s): below what an eye sees as late.
TICK_S = 0.02
#: Size of the four-up picture in pixels.
PICTURE = (1920, 1200)
#: A map of the dose lets the tissue below it show through; height of the slices around what is heated, mm.
MAP_OPACITY, HEAT_HEIGHT_MM = 0.7, 110.0
#: What the times of the main thread were spent on; what comes again and again while a scan goes on is left out.
SHOWN = {
    ImageReady: "image",
    MapReady: "map",
    Registered: "registration",
    BonesFound: "vertebrae",
    ShiftFound: "brain shift",
    PlanCarried: "plan",
    ResidualFound: "residual",
    ImplantFound: "implant",
}
#: What is asked for where a person draws later, and of an ablation.
REGISTRATION, HEAT = "Registration", "Temperature scan"
#: A picture waits this long for a pose that may be shown (s): the tracker went on while the main thread was busy.
STEADY_S = 1.0
#: That of the pointer is taken within this distance of the residual (mm) where the tip was there while it was followed,
#: and waits this long for it to come back (s): from afar nothing is seen of what it points at.
NEAR_MM, RETURN_S = 12.0, 8.0
#: Seconds between two samples of the pointer that are kept.
SAMPLE_S = 0.1


def follow(
    plan: Plan,
    session: Session,
    folder: Path,
    wait_s: float,
    navigate_s: float = 0.0,
    heat: Heat | None = None,
    beside: Callable[[], dict[str, str]] = dict,
) -> Outcome:
    """Show what a running session finds until everything is assessed, then write the results.

    ``beside``: done before they are written; returns why what was asked for by it is missing, by its name. Raises as
    :func:`.run.run_session`.
    """
    return _Run(plan, session, folder, wait_s).to_the_end(navigate_s, heat, beside)


class _Run:
    """The main thread of one session."""

    def __init__(self, plan: Plan, session: Session, folder: Path, wait_s: float) -> None:
        from ..scene.bridge import SceneBridge
        from ..scene.headless import HeadlessScene
        from ..scene.session_view import SessionView

        self.plan, self.session, self.folder, self.wait_s = plan, session, folder, wait_s
        self.headless = HeadlessScene()
        self.bridge = SceneBridge(self.headless.scene)
        self.view = SessionView(self.bridge, plan)
        self.outcome = Outcome(session.journal.record)
        self.gathered = Gathered()
        self._bars: dict[str, Any] = {}
        self._told: set[str] = set()
        asked = {deviation(planned.name) for planned in plan.trajectories} | ({RESIDUAL} if plan.tumour else set())
        # Where a person draws later, the session is done when the scan is registered.
        self._asked = frozenset(asked or {ALIGNMENT if "alignment" in plan.measures else REGISTRATION})
        #: What the newest scan has not said yet, and why it will not.
        self._open, self._missing = set(self._asked), self.outcome.missing
        self._roles: set[Role] = set()
        self._last_byte_s: float | None = None

    def to_the_end(
        self, navigate_s: float, heat: Heat | None = None, beside: Callable[[], dict[str, str]] = dict
    ) -> Outcome:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        from ..scene.offscreen import OffscreenViews

        columns = (TextColumn("{task.description:<34}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
        with (
            Progress(*columns, TimeElapsedColumn()) as bars,
            OffscreenViews(self.headless.scene, self.headless.applicationLogic, PICTURE) as views,
        ):
            pictures: list[Picture] = []
            # A scan that comes while the pointer is followed takes the place of the one before.
            while self._open:
                self._until_assessed(bars)
                pictures = self._pictures(bars, views, navigate_s)
            if heat is not None:
                try:
                    pictures.append(self._ablate(bars, views, heat))
                except IntraopError as error:
                    self._trouble(Problem("follow the heat", str(error), about=HEAT), bars)
                    self.session.journal.missing(HEAT, str(error))
        self._missing.update(beside())
        self._write(pictures)
        return self.outcome

    def _pictures(self, bars: Any, views: Any, navigate_s: float) -> list[Picture]:
        """What the newest scan shows, then with the pointer when it is to be followed."""
        pictures = [self._picture(views, "overview.png", self._caption())]
        if self._last_byte_s is not None:
            self.outcome.overlay_s = time.monotonic() - self._last_byte_s
            self.session.journal.measurement(
                Measurement(
                    "Last byte of k-space to overlay",
                    self.outcome.overlay_s,
                    "s",
                    "From the reception of the last line of the scan to the rendered views with its overlay",
                )
            )
        pictures.append(self._picture(views, "blend.png", "Half of the preoperative volume shows through", 0.5))
        if navigate_s > 0:
            self._navigate(bars, navigate_s)
            caption = "The views follow the tip of the tracked pointer"
            pictures.append(self._picture(views, "pointer.png", caption, at_tip=True))
        return pictures

    def _until_assessed(self, bars: Any) -> None:
        heard_s = time.monotonic()
        while self._open:
            # Asked first: what was told until then is all that comes of it.
            working, over = self.session.working, self.session.over
            updates = self.session.drain()
            for update in updates:
                self._take(update, bars)
            if self.session.journal.record.parts and not working:
                self._open.discard(ALIGNMENT)
            self._listen()
            if updates or working:
                heard_s = time.monotonic()
            elif over or time.monotonic() - heard_s > self.wait_s:
                self._go_without(over)
            time.sleep(TICK_S)
        if not self._registered:
            raise SessionError("; ".join(self._reasons))

    def _go_without(self, over: bool) -> None:
        """Nothing more comes. Raises SessionError unless it is known why, and something is registered all the same."""
        if self._open - set(self._missing) or not self._registered:
            text = "nothing more comes" if over else f"nothing came from the scanner for {self.wait_s:g} s"
            raise SessionError("; ".join([f"{text}{self.session.why_silent()}", *self._reasons]))
        self._open.clear()

    @property
    def _registered(self) -> bool:
        """Whether the newest scan shows where anything is: the whole, or a bone on its own."""
        record = self.session.journal.record
        verdicts = [part.verdict for part in record.parts]
        verdicts += [] if record.registration is None else [record.registration.verdict]
        return any(verdict.level is not Level.REFUSED for verdict in verdicts)

    @property
    def _reasons(self) -> list[str]:
        return list(dict.fromkeys(self._missing.values()))

    def _trouble(self, problem: Problem, bars: Any) -> None:
        """What is missing by it is noted. Raises SessionError when nothing else can come."""
        from rich.markup import escape

        bars.console.print(f"  [yellow]{problem.stage}:[/] {escape(problem.text)}")
        first_of_pair = self.plan.tumour is not None and len(self._roles) < 2
        if problem.about:
            self._missing[problem.about] = problem.text
            # The scan that it is compared with may still come.
            if problem.about != RESIDUAL or not first_of_pair:
                self._open.discard(problem.about)
        elif problem.fatal and self._open:
            if not first_of_pair:
                raise SessionError(problem.text)
            self._missing.update(dict.fromkeys(self._open, problem.text))

    def _take(self, update: Update, bars: Any) -> None:
        started = time.perf_counter()
        self.view.apply(update)
        self.gathered.take(update)
        if isinstance(update, ScanProgress):
            self._bar(bars, f"receive {update.protocol or update.scan_id}", update.fraction)
        elif isinstance(update, StageProgress):
            self._bar(bars, update.stage, update.fraction)
        elif isinstance(update, Problem):
            self._trouble(update, bars)
        elif type(update) in SHOWN:
            self.session.journal.timing(f"show: {SHOWN[type(update)]}", time.perf_counter() - started)
        if isinstance(update, ImageReady):
            self._last_byte_s = update.last_byte_s
            self._roles.add(update.role)
            self._open = set(self._asked)
            self._missing.clear()
            for stage in ("reconstruct", "register", "follow the brain shift", "assess residual"):
                self._bars.pop(stage, None)
        elif isinstance(update, Registered):
            if update.registration.verdict.level is not Level.REFUSED:
                self._open.discard(REGISTRATION)
        elif isinstance(update, ResidualFound):
            self._open.discard(RESIDUAL)
            self._missing.pop(RESIDUAL, None)
        elif isinstance(update, PlanCarried):
            self.outcome.carried = update.items
            # Nobody decides here, and what nobody has decided on is not shown.
            self.bridge.leaveOut(frozenset(item.key for item in update.items if item.undecided))
        elif isinstance(update, ImplantFound):
            self._open.discard(deviation(update.planned.name))

    def _bar(self, bars: Any, what: str, fraction: float) -> None:
        if what not in self._bars:
            self._bars[what] = bars.add_task(what, total=1.0)
        bars.update(self._bars[what], completed=fraction)

    def _listen(self) -> Pose | None:
        """Newest pose and live slice onto the screen."""
        pose = None
        try:
            slice_ = self.session.live_slice()
            if slice_ is not None:
                self.bridge.setLiveSlice(slice_)
            pose = self.session.pose()
            if pose is not None:
                self.view.movePointer(pose)
        except IntraopError as error:
            if str(error) not in self._told:
                self._told.add(str(error))
                print(f"  follow the pointer: {error}")
        self.view.tick()
        return pose

    def _navigate(self, bars: Any, seconds: float) -> None:
        started = time.monotonic()
        sampled_s = 0.0
        while (passed := time.monotonic() - started) < seconds:
            for update in self.session.drain():
                self._take(update, bars)
            pose = self._listen()
            if pose is not None and passed - sampled_s > SAMPLE_S:
                sampled_s = passed
                shown = self.view.tipToResidual()
                self.outcome.samples.append(PointerSample(pose, None if shown is None else shown.value))
            self._bar(bars, "navigate", passed / seconds)
            time.sleep(TICK_S)
        self._bar(bars, "navigate", 1.0)
        last = self.view.tipToResidual()
        if isinstance(last, Measurement):
            self.session.journal.measurement(last)

    def _ablate(self, bars: Any, views: Any, heat: Heat) -> Picture:
        """Follow the temperature scan to its end; a picture of the dose then, the scan dimmed around it."""
        from ..scene.map_scale import MapScale
        from ..scene.offscreen import writePng
        from ..scene.roles import AROUND

        found = follow_heat(self.session, heat, self.wait_s, lambda update: self._take(update, bars), TICK_S)
        self._listen()
        centre = found.heating.spot_ras_mm or np.zeros(3)
        node = self.bridge.node
        self.bridge.surround(True, self.view.volume())
        shown, around = node("map.1") or node("map.0"), node(AROUND)
        views.show(node("map.picture"), shown, MAP_OPACITY, centre, HEAT_HEIGHT_MM, around=around)
        views.annotate(self.view.readout(), self.bridge.legend(), MapScale().of(shown))
        path = writePng(views.fourUp(), self.folder / "heat.png")
        caption = "Thermal dose at the end of the temperature scan; outline: above 240 CEM43"
        if around is not None:
            caption += "; outside the frame nothing is measured: the scan before it, dimmed"
        # For this picture only: the scene that is saved shows neither.
        self.bridge.surround(False)
        return Picture(path.read_bytes(), caption)

    def _picture(self, views: Any, name: str, caption: str, opacity: float = 1.0, at_tip: bool = False) -> Picture:
        """A four-up picture, the intraoperative volume with ``opacity`` over the preoperative one.

        Opaque unless the two are compared: a rim that enhanced before surgery would shine through as if still there.
        """
        from ..scene.offscreen import writePng

        self._settle(near=at_tip)
        # What is said belongs to the pose that is drawn, however long drawing takes.
        readout = self.view.readout()
        started = time.perf_counter()
        tip = self.view.tip() if at_tip else None
        centre = self.view.centroid if tip is None else tip
        views.show(
            self.bridge.node("preop.volume"),
            self.view.volume(),
            opacity,
            centre=np.zeros(3) if centre is None else centre,
        )
        views.annotate(readout, self.bridge.legend())
        path = writePng(views.fourUp(), self.folder / name)
        self.session.journal.timing(f"render {name}", time.perf_counter() - started)
        return Picture(path.read_bytes(), caption)

    def _settle(self, near: bool) -> None:
        """Take poses until the pointer may be shown again, but not for long: it may be out of sight.

        ``near``: until it is near the residual as well, where it has been there.
        """
        comes_back = near and any(_is_near(sample.distance_mm) for sample in self.outcome.samples)
        end_s = time.monotonic() + (RETURN_S if comes_back else STEADY_S)
        while time.monotonic() < end_s:
            self._listen()
            shown = self.view.tipToResidual()
            if not self.view.waitsForPose() and (not comes_back or _is_near(None if shown is None else shown.value)):
                return
            time.sleep(TICK_S)

    def _caption(self) -> str:
        if self.plan.tumour is not None:
            return "Residual (red) and what was resected (green) in the intraoperative scan"
        if not self.plan.trajectories:
            return "The intraoperative scan"
        return "Planned and actual implant in the intraoperative scan"

    def _write(self, pictures: Sequence[Picture]) -> None:
        from ..scene.scene_io import saveScene

        while self.session.measuring:
            time.sleep(TICK_S)
        for name, why in self.plan.left_out.items():
            self._missing[name] = why
            self.session.journal.missing(name, why)
        for measurement in self.session.follow_up():
            self.session.journal.measurement(measurement)
            print(f"  {words_of(measurement)}")
        started = time.perf_counter()
        saveScene(self.headless.scene, self.folder / "scene")
        self.session.journal.timing("save scene", time.perf_counter() - started)
        self.session.journal.finish()
        self._write_dicom()
        record = self.outcome.record = self.session.journal.record
        for piece in record.residual.pieces if record.residual is not None else ():
            bounds = piece.volume.interval or (piece.volume.value or 0.0,) * 2
            size = f"{piece.volume.value:.2f} cm3 ({bounds[0]:.2f} to {bounds[1]:.2f})"
            print(f"  piece {piece.number} of the residual: {size}, {piece.place}; {piece.sure}")
        pieces = self.gathered.pictures()
        for picture in pieces:
            (self.folder / f"{PIECE}{picture.piece}.png").write_bytes(picture.data)
        write_results(record, render_report(as_document(record), [*pictures, *pieces]), self.folder)

    def _write_dicom(self) -> None:
        """The same as DICOM objects, as far as this computer and this patient allow; a line says what came of it."""
        journal, why, started = self.session.journal, possible(), time.perf_counter()
        text = f"DICOM objects not written: {why}"
        try:
            if not why:
                text = save(self.gathered, journal.record, self.plan, self.folder / DICOM).text
        except IntraopError as error:
            text = f"DICOM objects not written: {error}"
        journal.event("dicom", text)
        journal.timing("write DICOM", time.perf_counter() - started)
        print(f"  {text}")


def _is_near(distance_mm: float | None) -> bool:
    return distance_mm is not None and distance_mm <= NEAR_MM
