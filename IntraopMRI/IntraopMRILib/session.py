"""One intraoperative session: wires the stages together. Free of Slicer.

socket thread -> wire -> receiver thread (sorts lines) -> queue of two scans -> worker thread (reconstruct, register,
assess) -> updates -> :meth:`Session.drain` on the main thread, which alone writes nodes.

Queues: raw data is lossless and holds the scanner back when the worker is behind; updates are lossless; poses and
live slices are latest-wins. A registration belongs to one image: a new image withdraws what rested on the old one.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from IntraopMRIReconstructionLib.data import Acquisition, Encoding, Image, Level, Matrix, Pose, Status, Verdict
from IntraopMRIReconstructionLib.errors import Cancelled, IntraopError, RegistrationError, SessionError, WireError
from IntraopMRIReconstructionLib.geometry import centre_of, pose_error
from IntraopMRIReconstructionLib.reconstruct.auto import Frame, reconstruct
from IntraopMRIReconstructionLib.reconstruct.live import SCAN_SILENT_S, LiveScan
from IntraopMRIReconstructionLib.wire import adapters
from IntraopMRIReconstructionLib.wire.endpoint import LinkEvent
from IntraopMRIReconstructionLib.wire.intake import IdentityGuard
from IntraopMRIReconstructionLib.wire.messages_array import ImageMessage
from IntraopMRIReconstructionLib.wire.messages_text import StatusMessage
from IntraopMRIReconstructionLib.wire.raw_data import RawDataReader
from IntraopMRIReconstructionLib.wire.recorder import ByteTap
from IntraopMRIReconstructionLib.wire.scanner_control import ScannerControl
from IntraopMRIReconstructionLib.wire.scanner_dialect import Transition, dialect_of
from IntraopMRIReconstructionLib.wire.transport import LATEST_TYPES, Client, Received
from IntraopMRIReconstructionLib.wire.trust import AS_SENT, PeerProfile

from .assess.carry import Mapping as PointMapping
from .assess.resection import cavity_volume
from .assess.residual import assess_residual
from .register.carry_over import Carried, shift_at
from .register.deformable import DeformableRegistration, register_deformable
from .register.rigid import RigidRegistration, register_rigid
from .session_implants import carriers, compared, found_implant, unknown_of
from .session_journal import Journal
from .session_plan import Plan, carried_plan, moved_trajectory
from .session_updates import (
    DeviceSaid,
    ImageReady,
    ImplantFound,
    PlanCarried,
    Problem,
    Registered,
    ResidualFound,
    Role,
    ScanPreview,
    ScanProgress,
    ShiftFound,
    StageProgress,
    Update,
)
from .workflow.record import utc_now

#: Scans that wait for the worker; more would only fill memory, the scanner waits instead.
WAITING_SCANS = 2
#: How far the brain may have moved at the tumour in a way that a rigid registration does not know (mm).
UNMODELLED_SHIFT_MM = 5.0
#: Two scans whose registrations differ by more than this at the centre show that the patient moved in between (mm).
MOVED_MM = 1.0
#: Different refusals that are told one by one; a peer that invents new ones would flood the screen.
TOLD_REFUSALS = 50
#: Words in a protocol's name that mean contrast agent.
CONTRAST_WORDS = ("contrast", "t1c", "post", "gd", "+c")


@dataclass(frozen=True)
class Link:
    """Where a peer listens, and what is known about the way it speaks."""

    host: str
    port: int
    profile: PeerProfile = AS_SENT


@dataclass(frozen=True, eq=False)
class _Scan:
    role: Role
    protocol: str
    last_byte_s: float
    frame: Frame | None = None
    image: Image | None = None
    live: LiveScan | None = None


@dataclass(frozen=True, eq=False)
class _Placed:
    """The preoperative volume in one scan; ``shift_error_mm``: of the deformable registration at the tumour."""

    rigid: RigidRegistration
    deformable: DeformableRegistration | None = None
    shift_error_mm: float = 0.0


@dataclass(eq=False)
class _State:
    """What the worker has established so far. Only the worker writes it.

    ``waits``: the contrast scan has found no native one to be compared with yet. ``agent_utc_s``: when the first scan
    with contrast agent was taken.
    """

    images: dict[Role, Image] = field(default_factory=dict)
    placed: dict[Role, _Placed] = field(default_factory=dict)
    last_pose: Matrix | None = None
    waits: bool = False
    agent_utc_s: float | None = None


def role_of(protocol: str) -> Role:
    """Whether a protocol's name speaks of contrast agent."""
    name = protocol.lower()
    return "contrast" if any(word in name for word in CONTRAST_WORDS) else "native"


class Session:
    """Receives, reconstructs, registers and assesses in the background; tell it to :meth:`close` at the end.

    ``connect`` starts it. The main thread calls :meth:`drain` on a timer and asks for the newest :meth:`pose` and
    :meth:`live_slice`. ``journal`` keeps the record that the report is made from.
    """

    def __init__(self, plan: Plan, *, threads: int = 2, taps: Mapping[str, ByteTap] | None = None) -> None:
        """``taps``: recorders of the wire traffic by link: scanner, tracker, live."""
        self.plan = plan
        self._taps = dict(taps or {})
        self.journal = Journal(plan.patient_id, plan.procedure)
        self._threads = threads
        self._updates: queue.SimpleQueue[Update] = queue.SimpleQueue()
        self._scans: queue.Queue[_Scan] = queue.Queue(WAITING_SCANS)
        self._state = _State()
        # What a person decides belongs to the newest image: neither may change while the other is written down.
        self._deciding = threading.Lock()
        self._implants: dict[str, ImplantFound] = {}
        self._closing, self._cancelled = threading.Event(), threading.Event()
        #: Whether a scan is worked on, the scan that arrives, and whether it is to be dropped.
        self._working, self._stopped = threading.Event(), threading.Event()
        self._arriving: LiveScan | None = None
        self._strays_told = False
        self._links = ExitStack()
        self._scanner: Client | None = None
        self._control: ScannerControl | None = None
        self._tracker: Client | None = None
        self._live: Client | None = None
        self._workers: list[threading.Thread] = []
        self._refused: set[tuple[str, str]] = set()
        self._identity = IdentityGuard()
        self._identity.accept(patient_id=plan.patient_id)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Main thread

    def connect(self, scanner: Link | None, tracker: Link | None = None, live: Link | None = None) -> None:
        """Connect and start working. Raises WireError, with nothing left open, when a peer cannot be reached."""
        if self._workers:
            raise SessionError("the session is connected already: close it before connecting again")
        try:
            self._scanner = self._client("scanner", scanner, LATEST_TYPES)
            if scanner is not None and self._scanner is not None:
                dialect = dialect_of(scanner.profile.name)
                self._control = ScannerControl(self._scanner.send, dialect, on_transition=self._turned)
            self._tracker = self._client("tracker", tracker, LATEST_TYPES)
            self._live = self._client("live", live, LATEST_TYPES | {"IMAGE"})
        except WireError:
            self._links.close()
            raise
        self.journal.event("connected", ", ".join(str(c.address) for c in (self._scanner, self._tracker) if c))
        for work, name in ((self._receive, "intraop receiver"), (self._process, "intraop worker")):
            thread = threading.Thread(target=work, name=name, daemon=True)
            thread.start()
            self._workers.append(thread)

    def drain(self) -> list[Update]:
        """Everything that happened since the last call, oldest first. Never waits."""
        result = []
        while True:
            try:
                result.append(self._updates.get_nowait())
            except queue.Empty:
                return result

    def pose(self) -> Pose | None:
        """Newest pose that arrived since the last call, None when there is none. Never waits."""
        received = self._tracker.receive(0.0) if self._tracker is not None else None
        if received is None or received.message.type_name not in LATEST_TYPES:
            return None
        assert self._tracker is not None
        poses = adapters.poses_from_message(received.message, received, self._tracker.profile)
        return poses[0] if poses else None

    def live_slice(self) -> Image | None:
        """Newest slice of the live stream since the last call, None when there is none. Never waits."""
        received = self._live.receive(0.0, "IMAGE") if self._live is not None else None
        if received is None or not isinstance(received.message, ImageMessage):
            return None
        assert self._live is not None
        return adapters.image_from_message(received.message, self._live.profile, received)

    def why_silent(self) -> str:
        """What is known about why the scanner sends nothing, in words."""
        return "no scanner is connected" if self._scanner is None else self._scanner.why_silent()

    def links(self) -> dict[str, tuple[str, bool]]:
        """Address of each link and whether it is up now, by its part: scanner, tracker, live."""
        parts = {"scanner": self._scanner, "tracker": self._tracker, "live": self._live}
        return {part: (client.address, client.connected) for part, client in parts.items() if client is not None}

    @property
    def scanner_state(self) -> str:
        """What is known of the scanner, in words; empty without one."""
        return "" if self._control is None else self._control.text

    def scan(self, protocol: str = "") -> None:
        """Ask the scanner for a scan, for all when no name is given; what comes of it is told as it happens.

        Raises SessionError when it may not be asked now, WireError when it cannot be reached.
        """
        self._commanded().scan(protocol)

    def stop_scan(self) -> None:
        """Ask the scanner to stop, whatever it does. Raises as :meth:`scan`."""
        self._commanded().stop()

    def _commanded(self) -> ScannerControl:
        if self._control is None:
            raise SessionError("no scanner is connected: connect it before commanding it")
        return self._control

    def decide(self, item: Carried, accepted: bool, by: str) -> Carried:
        """A person accepts or rejects that a planned thing is carried over; returns the item with the decision.

        An implant that was found is compared anew with its plan. Raises SessionError when a newer image has withdrawn
        the item, RegistrationError when it was not offered or nobody is named.
        """
        decided = item.decided(accepted, by, utc_now())
        with self._deciding:
            self.journal.decision(decided)
            found = self._implants.get(item.name) if item.kind == "plan" else None
            if found is not None:
                planned = moved_trajectory(found.planned, decided)
                based_on = found.measurements[0].based_on
                self._found(compared(planned, found.detected, based_on, decided.basis, decided.uncertainty_mm))
        return decided

    def cancel(self) -> None:
        """Stop the work on the current scan, or drop the one that arrives. What was established before stays."""
        (self._cancelled if self._working.is_set() else self._stopped).set()

    def close(self) -> None:
        """End links and threads. Safe to call twice."""
        self._closing.set()
        self._cancelled.set()
        self._links.close()
        for thread in self._workers:
            thread.join()
        self._workers.clear()

    # Receiver thread

    def _client(self, part: str, link: Link | None, latest: frozenset[str]) -> Client | None:
        if link is None:
            return None
        client = Client(
            link.host,
            link.port,
            profile=link.profile,
            latest=latest,
            tap=self._taps.get(part),
            identity=self._identity,
            on_event=lambda event: self._heard(part, event),
        )
        return self._links.enter_context(client)

    def _heard(self, part: str, event: LinkEvent) -> None:
        """Links that came and went, and the first refusal of each kind; the counters have all of them."""
        if event.kind == "refused":
            if (part, event.text) in self._refused or len(self._refused) >= TOLD_REFUSALS:
                return
            self._refused.add((part, event.text))
            self._tell(Problem("receive", f"the {part} sent what is not used: {event.text}", fatal=False))
            return
        self.journal.event("link", f"{part} {event.peer} {event.kind} {event.text}".rstrip())
        if event.kind == "lost" and part == "scanner" and self._control is not None:
            self._control.link_lost(event.text)

    def _turned(self, transition: Transition) -> None:
        """The scanner's state has changed, or a command of ours."""
        self.journal.event("scanner", f"{transition.after.value}: {transition.reason}")
        if transition.is_trouble:
            text = f"the scanner: {transition.after.value}; {transition.reason}"
            self._tell(Problem("command the scanner", text, fatal=transition.is_urgent))

    def _receive(self) -> None:
        scanner = self._scanner
        if scanner is None:
            return
        reader = RawDataReader(self.plan.patient_id)
        while not self._closing.is_set():
            received = scanner.receive(0.1)
            with self._reporting("receive", fatal=False):
                if received is not None:
                    self._take(received, reader)
            if self._control is not None:
                # After the message: an answer that has waited here for us is not late.
                self._control.poll()
            # A scanner may report its state all the time: only lines show that a scan goes on.
            if self._arriving is not None and self._arriving.silent:
                self._lost(f"no line for {SCAN_SILENT_S:g} s; check the scanner and scan again")
            elif self._arriving is not None and self._stopped.is_set():
                self._lost("stopped by hand", fatal=False)
        if self._arriving is not None:
            self._arriving.close()

    def _take(self, received: Received, reader: RawDataReader) -> None:
        """Handle one message."""
        message = received.message
        if self._control is not None:
            self._control.on_message(message)
        if isinstance(message, StatusMessage):
            self._say(adapters.status_from_message(message))
            return
        if self._arriving is None and "ky" in message.metadata:
            # Of a scan that was refused or dropped as a whole, its lines say nothing new.
            if self._strays_told:
                return
            self._strays_told = True
        try:
            item = reader.feed(message, received)
        except WireError:
            self._strays_told = self._arriving is None
            raise
        if isinstance(item, Encoding):
            self._open(item)
        elif isinstance(item, Acquisition):
            self._lines(item, received)
        elif isinstance(message, ImageMessage):
            assert self._scanner is not None
            image = adapters.image_from_message(message, self._scanner.profile, received)
            if image.array.shape[0] > 1:
                self._hand_over(_Scan(role_of(image.name), image.name, received.received_monotonic_s, image=image))

    def _open(self, encoding: Encoding) -> None:
        if self._arriving is not None:
            self._lost("a new scan has begun")
        self._stopped.clear()
        self.journal.event("scan", f"'{encoding.protocol or encoding.scan_id}' began")
        self._tell(ScanProgress(encoding.scan_id, encoding.protocol, 0.0))
        self._strays_told = True
        self._arriving = LiveScan(encoding)

    def _lines(self, block: Acquisition, received: Received) -> None:
        live = self._arriving
        if live is None:
            raise SessionError(f"lines of scan '{block.scan_id}' came without an open scan: scan again")
        live.add(block)
        self._tell(ScanProgress(live.encoding.scan_id, live.encoding.protocol, live.fraction))
        if block.last:
            self._arriving = None
            self._hand_over(
                _Scan(role_of(live.name), live.name, received.received_monotonic_s, live.frame(), live=live)
            )
        elif (shown := live.preview()) is not None:
            self._tell(ScanPreview(live.name, live.fraction, shown.image))

    def _lost(self, why: str, fatal: bool = True) -> None:
        """The rest of the scan will not come, or is not wanted: nothing is made of it."""
        live = self._arriving
        assert live is not None
        self._arriving, self._strays_told = None, True
        live.close()
        self._tell(ScanPreview(live.name, live.fraction, None))
        self._tell(Problem("receive", f"scan '{live.name}' stopped at {live.fraction:.0%}: {why}", fatal))

    def _hand_over(self, scan: _Scan) -> None:
        self.journal.event("scan", f"'{scan.protocol}' is complete")
        while not self._closing.is_set():
            try:
                self._scans.put(scan, timeout=0.1)
                return
            except queue.Full:
                continue

    # Worker thread

    def _process(self) -> None:
        while not self._closing.is_set():
            try:
                scan = self._scans.get(timeout=0.1)
            except queue.Empty:
                continue
            self._cancelled.clear()
            if self._closing.is_set():
                return
            self._working.set()
            for stage, work in self._stages(scan):
                with self._reporting(stage, fatal=True, scan=scan) as done, self._timed(f"{stage}: {scan.protocol}"):
                    work(scan)
                    done.append(stage)
                if not done:
                    self._tell(ScanPreview(scan.protocol, 1.0, None))
                    break
            if scan.live is not None:
                scan.live.close()
            self._working.clear()

    def _stages(self, scan: _Scan) -> Iterator[tuple[str, Callable[[_Scan], None]]]:
        yield "reconstruct", self._image
        yield "register", self._register
        if self.plan.tumour is not None and scan.role == "contrast":
            yield "follow the brain shift", self._follow_shift
            yield "assess residual", self._assess_residual
        elif self.plan.tumour is not None and self._state.waits:
            yield "assess residual", self._complete_pair
        if self.plan.trajectories:
            yield "assess implants", self._assess_implants

    def _image(self, scan: _Scan) -> None:
        if scan.frame is not None:
            progress, begun = self._progress("reconstruct"), None if scan.live is None else scan.live.calibrations
            done = reconstruct(scan.frame, progress=progress, threads=self._threads, calibrations=begun)
            image, reconstruction = done.image, done
            for warning in done.warnings:
                self._tell(Problem("reconstruct", f"'{scan.protocol}': {warning}", fatal=False))
        else:
            assert scan.image is not None
            image, reconstruction = scan.image, None
        if image.patient_id and image.patient_id != self.plan.patient_id:
            raise SessionError(
                f"the image '{image.name}' is of patient '{image.patient_id}', the session of "
                f"'{self.plan.patient_id}': it is not used"
            )
        self._state.images[scan.role] = image
        self._state.placed.pop(scan.role, None)
        if scan.role == "contrast":
            self._state.waits = False
            if self._state.agent_utc_s is None:
                self._state.agent_utc_s = image.acquired_utc_s
        with self._deciding:
            self._implants.clear()
            self.journal.image(image, scan.role)
        self._tell(ImageReady(image, scan.role, reconstruction, scan.last_byte_s))

    def _register(self, scan: _Scan) -> None:
        state = self._state
        image, known, state.last_pose = state.images[scan.role], state.last_pose, None
        found = register_rigid(
            image,
            self.plan.preoperative,
            initial=known,
            progress=self._progress("register"),
            threads=self._threads,
        )
        if found.verdict.level is Level.REFUSED:
            self._registered(found, image)
            raise SessionError(
                f"the registration to '{image.name}' was refused ({found.verdict.text}): no overlay and no number is "
                "shown; check that both volumes show this patient, or give a start by landmarks"
            )
        state.last_pose = found.intraop_from_preop
        state.placed[scan.role] = _Placed(found)
        self._registered(found, image)

    def _registered(self, found: RigidRegistration, image: Image) -> None:
        self.journal.registration(found, image, self.plan.preoperative)
        self._tell(Registered(found, image))
        if found.verdict.level is not Level.REFUSED:
            self._carry(carried_plan(self.plan, image, found))

    def _carry(self, carried: PlanCarried) -> None:
        # Bone does not follow a brain shift: without a tumour there is nothing to decide.
        if self.plan.tumour is not None:
            self.journal.carried(carried)
        self._tell(carried)

    def _still_native(self) -> Image:
        """The native scan. Raises SessionError unless it is known that the patient has not moved since."""
        native, placed = self._state.images.get("native"), self._state.placed
        if native is None:
            why = "there is no native scan to compare with"
        elif "native" not in placed:
            why = "the native scan was not registered, so a motion of the patient would not be seen"
        else:
            middle = centre_of(self.plan.preoperative.ras_from_ijk, _size(self.plan.preoperative))
            poses = [placed[role].rigid.intraop_from_preop for role in ("contrast", "native")]
            moved_mm, _angle = pose_error(poses[0], poses[1], middle)
            if moved_mm <= MOVED_MM:
                return native
            why = f"the patient moved {moved_mm:.1f} mm between the native and the contrast scan"
        raise SessionError(
            f"no residual is given: {why}; the contrast scan alone does not tell enhancement from blood. "
            "Repeat both scans"
        )

    def _follow_shift(self, scan: _Scan) -> None:
        """Deformable registration; when it cannot be trusted the rigid one stays, and the verdict says so."""
        state, tumour, stage = self._state, self.plan.tumour, "follow the brain shift"
        assert tumour is not None
        rigid, image = state.placed[scan.role].rigid, state.images[scan.role]
        try:
            found = register_deformable(
                image,
                self.plan.preoperative,
                rigid,
                tumour=tumour,
                progress=self._progress(stage),
                threads=self._threads,
            )
        except RegistrationError as error:
            refused = str(error)
        else:
            refused = found.verdict.text if found.verdict.level is Level.REFUSED else ""
        if refused:
            text = f"the brain shift is not followed ({refused}): the rigid registration is shown"
            self._tell(Problem(stage, text, fatal=False))
            return
        state.placed[scan.role] = _Placed(rigid, found, shift_at(found, tumour)[1])
        self._shifted(rigid, found, image)

    def _shifted(self, rigid: RigidRegistration, found: DeformableRegistration, image: Image) -> None:
        tumour = self.plan.tumour
        assert tumour is not None
        update = ShiftFound(
            rigid,
            found,
            image,
            Verdict(rigid.verdict.reasons + found.verdict.reasons),
            shift_at(found, tumour)[0],
            cavity_volume(found.cavity, (found.fixed_uid, found.moving_uid)),
        )
        self.journal.shift(update, self.plan.preoperative)
        self._tell(update)
        self._carry(carried_plan(self.plan, image, rigid, found))

    def _assess_residual(self, _scan: _Scan) -> None:
        state, tumour = self._state, self.plan.tumour
        assert tumour is not None
        state.waits = True
        contrast, native, placed = state.images["contrast"], self._still_native(), state.placed["contrast"]
        if placed.deformable is None:
            mapping: PointMapping = placed.rigid.intraop_from_preop
            error_mm, unknown_mm = placed.rigid.residual_mm, UNMODELLED_SHIFT_MM
        else:
            mapping = placed.deformable.intraop_from_preop_points
            error_mm, unknown_mm = placed.shift_error_mm, 0.0
        assessment = assess_residual(
            contrast,
            native,
            tumour,
            mapping,
            registration_error_mm=error_mm,
            expected_shift_mm=unknown_mm,
            progress=self._progress("assess residual"),
        )
        state.waits = False
        cavity = placed.deformable is not None and bool(placed.deformable.cavity.array.any())
        update = ResidualFound(assessment, _agent_notes(native, state.agent_utc_s), cavity)
        self.journal.residual(update)
        self._tell(update)

    def _complete_pair(self, scan: _Scan) -> None:
        """A native scan arrived after the contrast scan that waited for it: taken before, both are one pair.

        The contrast scan's own registration is the one that counts then, since the residual lies on its grid.
        Raises SessionError when the native scan was not taken before the agent was given: agent that is still there
        hides enhancement, and the residual would look smaller than it is.
        """
        native, contrast = self._still_native(), self._state.images["contrast"]
        times = native.acquired_utc_s, contrast.acquired_utc_s
        if times[0] is None or times[1] is None or times[0] >= times[1]:
            raise SessionError(
                "no residual is given: the scan without contrast agent came after the one with it, and is not known to "
                "have been taken before; agent that is still there hides enhancement. Repeat both scans"
            )
        placed = self._state.placed["contrast"]
        self._registered(placed.rigid, contrast)
        if placed.deformable is not None:
            self._shifted(placed.rigid, placed.deformable, contrast)
        self._assess_residual(scan)

    def _assess_implants(self, scan: _Scan) -> None:
        image, plan = self._state.images[scan.role], self.plan
        rigid = self._state.placed[scan.role].rigid
        poses, moved = carriers(plan, image, rigid, self._progress("assess implants"), self._threads)
        for measurement in moved:
            self.journal.measurement(measurement)
        for trajectory in plan.trajectories:
            with self._reporting("assess implants", fatal=True, scan=scan):
                name = trajectory.name
                found = found_implant(image, trajectory, poses[name], plan.pedicles.get(name))
                self._found(found)
                if unknown := unknown_of(found):
                    self._tell(Problem("assess implants", unknown, fatal=False))

    def _found(self, found: ImplantFound) -> None:
        self._implants[found.planned.name] = found
        self.journal.implant(found)
        self._tell(found)

    # Telling

    def _tell(self, update: Update) -> None:
        if isinstance(update, Problem):
            self.journal.event("problem" if update.fatal else "warning", f"{update.stage}: {update.text}")
        self._updates.put(update)

    def _say(self, status: Status) -> None:
        self.journal.event("status", f"{status.device}: code {status.code} {status.text}".rstrip())
        self._tell(DeviceSaid(status))

    def _progress(self, stage: str) -> Callable[[float, str], bool]:
        def tell(fraction: float, what: str) -> bool:
            self._updates.put(StageProgress(stage, fraction, what))
            return not self._cancelled.is_set()

        return tell

    @contextmanager
    def _reporting(self, stage: str, fatal: bool, scan: _Scan | None = None) -> Iterator[list[str]]:
        """What goes wrong inside becomes a problem that is shown; the list stays empty unless the block fills it."""
        try:
            yield []
        except Cancelled:
            what = "" if scan is None else f" while working on '{scan.protocol}'"
            self._tell(Problem(stage, f"stopped{what}", fatal=False))
        except IntraopError as error:
            self._tell(Problem(stage, str(error), fatal))
        except Exception as error:
            # A defect must be said on screen, not end a thread in silence.
            logging.getLogger(__name__).exception("defect in stage '%s'", stage)
            text = f"a defect in this software stopped the stage ({type(error).__name__}: {error}); scan again"
            self._tell(Problem(stage, text))

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.journal.timing(stage, time.perf_counter() - started)


def _agent_notes(native: Image, agent_utc_s: float | None) -> tuple[str, ...]:
    """What must be known beside a residual when agent had been given before its native scan, as in a second look."""
    if native.acquired_utc_s is None or agent_utc_s is None or native.acquired_utc_s <= agent_utc_s:
        return ()
    minutes = max(1, round((native.acquired_utc_s - agent_utc_s) / 60))
    return (
        f"Contrast agent had been given {minutes} min before the scan without it: agent that was still there hides "
        "enhancement, so more may be left than was measured.",
    )


def _size(image: Image) -> tuple[int, int, int]:
    k, j, i = image.array.shape[:3]
    return i, j, k
