"""One intraoperative session: wires the stages together. Free of Slicer.

socket thread -> wire -> receiver thread (sorts lines) -> queue of two scans -> worker thread (reconstruct, register,
assess) -> updates -> :meth:`Session.drain` on the main thread, which alone writes nodes.

Queues: raw data is lossless and holds the scanner back when the worker is behind; updates are lossless; poses and
live slices are latest-wins. A registration belongs to one image: a new image withdraws what rested on the old one.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence

from IntraopMRIReconstructionLib.data import Image, Level, Measurement, Pose, Progress, no_progress
from IntraopMRIReconstructionLib.errors import AssessmentError, RegistrationError, SessionError
from IntraopMRIReconstructionLib.reconstruct.quantity_image import UNIT
from IntraopMRIReconstructionLib.wire.recorder import ByteTap
from IntraopMRIReconstructionLib.wire.scanner_control import ScannerControl

from ..assess.margin import no_margin
from ..assess.proposal import Proposal
from ..register.carry_over import Carried
from ..register.deformable import DeformableRegistration, register_deformable
from ..register.rigid import RigidRegistration, register_rigid
from ..register.vertebrae import VertebraRegistration
from ..workflow.record import utc_text
from .ahead import Ahead
from .baseline import compared
from .behind import Behind
from .bones import Bone, bones_of
from .decide import Decisions
from .heat import Thermometry
from .implants import carriers, found_implant, pedicle_for, unknown_of
from .journal import Journal
from .links import Link, Links, Tools
from .measures import PROPOSED, RECIPES, Drawn, Found, Scan, measured, rano_of
from .offer import WORDS, check_offer
from .pair import ScanPair
from .plan import Plan, carried_plan
from .products import Products, is_map, map_of
from .propose import POSITION, proposed, with_review
from .receive import ArrivedScan, Reception, role_of
from .resection import TO_COME, residual_found, shift_found
from .tell import Teller
from .updates import (
    ALIGNMENT,
    RESIDUAL,
    BonesFound,
    ImageReady,
    ImplantFound,
    PlanCarried,
    Problem,
    Registered,
    Role,
    ScanPreview,
    ShiftFound,
    Update,
    deviation,
    own_motion,
)

__all__ = ["Link", "Plan", "Session", "role_of"]

#: Scans that wait for the worker; more would only fill memory, the scanner waits instead.
WAITING_SCANS = 2


class Session:
    """Receives, reconstructs, registers and assesses in the background; tell it to :meth:`close` at the end.

    ``connect`` starts it. The main thread calls :meth:`drain` on a timer and asks for the newest :meth:`pose` and
    :meth:`live_slice`. ``journal`` keeps the record that the report is made from.
    """

    def __init__(self, plan: Plan, *, threads: int = 2, taps: Mapping[str, ByteTap] | None = None) -> None:
        """``taps``: recorders of the wire traffic by link: scanner, tracker, live."""
        self.plan = plan
        titles = {kind: RECIPES[kind].title for kind in plan.measures if kind in RECIPES}
        self.journal = Journal(plan.patient_id, plan.procedure, titles, plan.patient)
        self._threads, self._products = threads, Products(threads)
        self._scans: queue.Queue[ArrivedScan] = queue.Queue(WAITING_SCANS)
        self._pair = ScanPair(plan.operated_mm)
        #: What a person has chosen as scans, some of it before the worker has come to it.
        self._offered: dict[Role, Image] = {}
        #: Whether what came of the present scan is a picture; nothing is registered to a map.
        self._shows_patient = False
        #: What was proposed last, with the uid of the registered scan.
        self._proposal: tuple[str, Proposal] | None = None
        #: The newest pose of the whole, refused or not.
        self._whole: RigidRegistration | None = None
        self._closing, self._cancelled, self._over = threading.Event(), threading.Event(), threading.Event()
        #: Whether a scan is worked on, and whether the one that arrives is to be dropped.
        self._working, self._stopped = threading.Event(), threading.Event()
        self._teller = Teller(self.journal, self._cancelled)
        self._tell = self._teller.tell
        self._decisions = Decisions(plan, self.journal, self._tell)
        self._ahead = Ahead(plan, self.journal, self._tell)
        self._behind = Behind(plan, self._pair, self._decisions, self.journal, self._teller)
        self._links = Links(plan.patient_id, self.journal, self._tell, dict(taps or {}))
        #: Where it is heated, and what each frame of a temperature scan says of it.
        self.heat = Thermometry(self.journal, self._tell)
        self._workers: list[threading.Thread] = []

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Main thread

    def connect(
        self, scanner: Link | None, tracker: Link | None = None, live: Link | None = None, robot: Link | None = None
    ) -> None:
        """Connect and start working. Raises WireError, with nothing left open, when a peer cannot be reached."""
        if self._workers or self._closing.is_set():
            raise SessionError("a session is connected once: begin a new one to connect again")
        self._links.connect(scanner, tracker, live, robot)
        for doubt in self.plan.doubts():
            self._tell(Problem("check the plan", doubt, fatal=False))
        for work, name in ((self._receive, "intraop receiver"), (self._process, "intraop worker")):
            thread = threading.Thread(target=work, name=name, daemon=True)
            thread.start()
            self._workers.append(thread)

    def drain(self) -> list[Update]:
        """Everything that happened since the last call, oldest first. Never waits."""
        return self._teller.drain()

    def pose(self) -> Pose | None:
        """Newest pose that arrived since the last call, None when there is none. Never waits."""
        return self._links.pose()

    def tools(self) -> Tools:
        """Which tool of the tracker is the pointer, whether it has come, and what is seen beside it."""
        return self._links.tools()

    def live_slice(self) -> Image | None:
        """Newest slice of the live stream since the last call, None when there is none. Never waits."""
        return self._links.live_slice()

    def why_silent(self) -> str:
        """What is known about why the scanner sends nothing: a clause for the end of a sentence."""
        scanner = self._links.scanner
        if self._over.is_set():
            return "; the recording is over"
        return "; no scanner is connected" if scanner is None else scanner.why_silent()

    @property
    def working(self) -> bool:
        """Whether a scan is worked on, or waits for that."""
        return self._scans.unfinished_tasks > 0

    @property
    def measuring(self) -> bool:
        """Whether a number of the newest scan is still to come, although its residual was told."""
        return self.working and self._behind.waits

    @property
    def over(self) -> bool:
        """Whether no scan comes by itself any more: there is no scanner, or it was a recording and that is over."""
        return self._links.scanner is None or self._over.is_set()

    def links(self) -> dict[str, tuple[str, bool]]:
        """Address of each link and whether it is up now, by its part: scanner, tracker, live, robot."""
        return self._links.states()

    @property
    def scanner_state(self) -> str:
        """What is known of the scanner, in words; empty without one."""
        return "" if self.control is None else self.control.text

    @property
    def control(self) -> ScannerControl | None:
        """Control of the scanner, for its plane and its reset; None without a scanner."""
        return self._links.controls.get("scanner")

    @property
    def controls(self) -> dict[str, ScannerControl]:
        """Control of everything that an emergency stop must reach: scanner, robot."""
        return self._links.controls

    def scan(self, protocol: str = "") -> None:
        """Ask the scanner for a scan, for all when no name is given; what comes of it is told as it happens.

        Raises SessionError when it may not be asked now, WireError when it cannot be reached.
        """
        self._commanded().scan(protocol)

    def stop_scan(self) -> None:
        """Ask the scanner to stop, whatever it does. Raises as :meth:`scan`."""
        self._commanded().stop()

    def offer_scan(self, image: Image, role: Role) -> None:
        """A person chooses a finished volume as a scan; it goes the way of one that was sent. From any thread.

        Raises SessionError, with nothing changed, when it cannot be that scan or two others wait already.
        """
        if not self._workers:
            raise SessionError("the session is not running: connect, or go on without a scanner, before choosing scans")
        other: Role = "contrast" if role == "native" else "native"
        newest = self._offered.get(other) or self._pair.images.get(other)
        full = SessionError(f"two scans wait to be worked on: choose '{image.name}' when they are done")
        # First of all: the check learns the frame of reference.
        if self._scans.full():
            raise full
        check_offer(image, role, self.plan, self._links.identity, newest)
        try:
            self._scans.put_nowait(ArrivedScan(role, image.name, image=image, chosen=True))
        except queue.Full:
            raise full from None
        self._offered[role] = image
        taken = "at an unknown time" if image.acquired_utc_s is None else utc_text(image.acquired_utc_s)
        self.journal.event("scan", f"'{image.name}' was chosen as the scan {WORDS[role]}, taken {taken}")

    def _commanded(self) -> ScannerControl:
        if self.control is None:
            raise SessionError("no scanner is connected: connect it before commanding it")
        return self.control

    def decide(self, item: Carried, accepted: bool, by: str) -> Carried:
        """A person accepts or rejects that a planned thing is carried over; returns the item with the decision.

        An implant that was found is compared anew with its plan. Raises SessionError when a newer image has withdrawn
        the item, RegistrationError when it was not offered or nobody is named.
        """
        decided = self._decisions.decide(item, accepted, by)
        if item.offered and not accepted:
            # Whoever does not trust where it lies gets the next scan registered from the beginning.
            self._ahead.drop()
        return decided

    def judge_piece(self, number: int, tumour: bool, by: str) -> None:
        """A person judges a listed piece of the residual not to be ``tumour`` (vessel, dura, clot), or to be it again.

        It counts no more, for this scan only: the residual is told anew, with definitions that say so. Raises
        SessionError when there is no such piece on the newest scan, or nobody is named.
        """
        self._decisions.judge(number, tumour, by)

    def decide_bone(self, bone: Bone, accepted: bool, by: str) -> Bone:
        """A person accepts or rejects a vertebra that was found on its own; returns it with the decision.

        From the first decision on the record holds only what rests on accepted ones. Raises as :meth:`decide`.
        """
        return self._decisions.decide_bone(bone, accepted, by)

    def decide_implant(self, found: ImplantFound, stays: bool, by: str) -> ImplantFound:
        """A person says that a found implant stays where it lies, or is to be revised; returns it with the decision.

        Its numbers stay. Raises SessionError when a newer image or comparison has withdrawn it, or nobody is named.
        """
        return self._decisions.decide_implant(found, stays, by)

    def leave_bones(self, by: str) -> None:
        """A person goes on without deciding on the other vertebrae: nothing rests on them, and the record says so."""
        self._decisions.leave_bones(by)

    def measure(self, kind: str, drawn: Drawn, by: str = "") -> Found:
        """Numbers of one kind of :data:`.measures.RECIPES` from what a person (``by``) has drawn.

        They go with the image that they were drawn on, or by :meth:`withdraw`. Raises SessionError when that image is
        not the newest, not registered, or when something is missing; AssessmentError when it cannot be as drawn.
        """
        with self._decisions.lock:
            image, rigid = self._pair.registered(drawn.image_uid)
            rano = rano_of(self.journal.record.residual)
            scan = Scan(rigid.intraop_from_preop, rigid.residual_mm, float(image.spacing_mm.max()), rano)
            found = measured(self.plan, kind, drawn, scan)
            of, proposal = self._proposal or ("", None)
            if kind == PROPOSED and proposal is not None and of == image.uid and drawn.label is not None:
                if not by.strip():
                    raise SessionError("name the person who has reviewed the proposal first")
                found = with_review(found, proposal.label, drawn.label, self.journal.record)
            self.journal.drawn(found, image.uid, by)
        return found

    def propose(
        self, scan: Image | None = None, flair: Image | None = None, progress: Progress = no_progress
    ) -> Proposal:
        """Non-enhancing tumour that is probably left on the newest scan, for a person to review; from any thread.

        ``scan``: its T2 or FLAIR of the same look, the registered one itself when None; ``flair``: one from before
        surgery. Where the patient has moved between both, the proposal lies on the registered one. It is no result:
        what a person makes of it is measured by :meth:`measure`. Raises SessionError or AssessmentError when nothing
        can be proposed; Cancelled.
        """
        with self._decisions.lock:
            image, placed = self._pair.newest_placed()
            found = placed.deformable or self._ahead.found_in(image)
        on = image if scan is None else scan
        try:
            proposal, where = proposed(self.plan, image, found, on, flair, progress, self._threads)
        except (AssessmentError, SessionError) as error:
            self.journal.event("proposal", f"none: {error}")
            raise
        with self._decisions.lock:
            self._pair.registered(image.uid)
            self._proposal = image.uid, proposal
            self.journal.event(POSITION, where)
            self.journal.event("proposal", f"not reviewed by anybody yet: {proposal.rests_on}")
        return proposal

    def follow_up(self) -> tuple[Measurement, ...]:
        """What was left at the plan's baseline, and how the residual of now differs from it; () without a baseline."""
        return () if self.plan.baseline is None else compared(self.plan.baseline, self.journal.record)

    def withdraw(self, kind: str) -> None:
        """Take back the numbers of a measure. Raises SessionError when there are none."""
        self.journal.withdrawn(kind)

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
        self._ahead.close()
        while not self._scans.empty():
            self._scans.get_nowait().close()

    # Receiver thread

    def _receive(self) -> None:
        scanner = self._links.scanner
        if scanner is None:
            while not self._closing.wait(0.1):
                self._links.attend()
            return
        reception = Reception(
            self.plan.patient_id, scanner.profile, self.journal, self._tell, self._hand_over, self._stopped, self.heat
        )
        while not self._closing.is_set():
            ended = self._links.over
            received = scanner.receive(0.1)
            with self._teller.reporting("receive", fatal=False):
                if received is not None:
                    reception.take(received)
            with self._teller.reporting("receive", fatal=False):
                self._links.attend()
                reception.check()
            if ended and received is None and not self._over.is_set():
                reception.over()
                self._over.set()
        reception.close()

    def _hand_over(self, scan: ArrivedScan) -> None:
        self.journal.event("scan", f"'{scan.protocol}' is complete")
        while not self._closing.is_set():
            try:
                self._scans.put(scan, timeout=0.1)
                return
            except queue.Full:
                continue
        scan.close()

    # Worker thread

    def _process(self) -> None:
        while not self._closing.is_set():
            try:
                scan = self._scans.get(timeout=0.1)
            except queue.Empty:
                continue
            self._ahead.stop()
            self._cancelled.clear()
            if not self._closing.is_set():
                self._working.set()
                self._work_on(scan)
                self._working.clear()
            scan.close()
            self._work_ahead()
            self._scans.task_done()

    def _work_ahead(self) -> None:
        """While the scan with agent is still to come, what it will need is worked out in the one without."""
        pair, waits = self._pair, self._scans.empty() and not self._closing.is_set()
        if waits and self.plan.tumour is not None and pair.newest == "native" and "native" in pair.placed:
            self._ahead.begin(pair.images["native"], pair.placed["native"].rigid)

    def _work_on(self, scan: ArrivedScan) -> None:
        """One scan through its stages; the first one that fails is the last, unless it is about one number alone."""
        for stage, work in self._stages(scan):
            about = RESIDUAL if stage == "assess residual" else ""
            with (
                self._teller.reporting(stage, True, scan.protocol, about) as done,
                self._teller.timed(f"{stage}: {scan.protocol}"),
            ):
                work(scan)
                done.append(stage)
            if not done and (not about or self._cancelled.is_set()):
                self._tell(ScanPreview(scan.protocol, 1.0, None))
                return

    def _stages(self, scan: ArrivedScan) -> Iterator[tuple[str, Callable[[ArrivedScan], None]]]:
        yield "reconstruct", self._image
        if not self._shows_patient:
            return
        yield "register", self._register
        if self.plan.tumour is not None and scan.role == "contrast":
            yield "follow the brain shift", self._follow_shift
            yield "assess residual", self._assess_residual
        elif self.plan.tumour is not None and self._pair.waits:
            yield "assess residual", self._complete_pair
        yield from self._behind.stages()
        if self.plan.trajectories or self._each_bone:
            yield "assess implants", self._assess_implants

    @property
    def _each_bone(self) -> bool:
        """Whether vertebrae are registered each on its own."""
        plan = self.plan
        return len(plan.vertebrae) > 1 and bool(plan.implanted or "alignment" in plan.measures)

    def _image(self, scan: ArrivedScan) -> None:
        image, made = scan.image, scan.made
        if scan.live is not None:
            made = made or self._products.made(scan.live, self._teller.progress("reconstruct"))
            image = made.image
            for warning in made.warnings:
                self._tell(Problem("reconstruct", f"'{scan.protocol}': {warning}", fatal=False))
        assert image is not None
        if image.patient_id and image.patient_id != self.plan.patient_id:
            raise SessionError(
                f"the image '{image.name}' is of patient '{image.patient_id}', the session of "
                f"'{self.plan.patient_id}': it is not used"
            )
        self._shows_patient = not is_map(image)
        if self._shows_patient:
            if not scan.chosen:
                self._offered.pop(scan.role, None)
            with self._decisions.lock:
                self._pair.take(image, scan.role, scan.chosen)
                self._whole = None
                self._decisions.forget()
                self.journal.image(image, scan.role)
                self.heat.at_risk(None)
            self._tell(ImageReady(image, scan.role, made, scan.last_byte_s))
        if (maps := map_of(image, made)) is not None:
            self.journal.event("map", ", ".join(f"'{each.name}' in {each.metadata[UNIT]}" for each in maps.maps))
            self._tell(ScanPreview(scan.protocol, 1.0, None))
            self._tell(maps)

    def _register(self, scan: ArrivedScan) -> None:
        image = self._pair.images[scan.role]
        if self.plan.tumour is not None:
            self._ahead.outline(image)
        found = register_rigid(
            image,
            self.plan.preoperative,
            initial=self._pair.start(),
            progress=self._teller.progress("register"),
            threads=self._threads,
        )
        self._whole = found
        if found.verdict.level is Level.REFUSED:
            self._registered(found, image)
            if self._each_bone and self.plan.tumour is None:
                text = (
                    f"the pose of the whole spine in '{image.name}' was refused ({found.verdict.text}): nothing of it "
                    "is overlaid; each vertebra is looked for on its own, and only what lies in one that is found with "
                    "its neighbours is measured"
                )
                self._tell(Problem("register", text, fatal=False))
                return
            raise SessionError(
                f"the registration to '{image.name}' was refused ({found.verdict.text}): no overlay and no number is "
                "shown; check that both volumes show this patient, or give a start by landmarks"
            )
        self._pair.place(scan.role, found)
        self._registered(found, image)

    def _registered(self, found: RigidRegistration, image: Image) -> None:
        self.journal.registration(found, image, self.plan.preoperative)
        self._tell(Registered(found, image))
        if found.verdict.level is not Level.REFUSED:
            self._carry(carried_plan(self.plan, image, found))

    def _carry(self, carried: PlanCarried) -> None:
        self._decisions.carried(carried)
        self.heat.at_risk(carried)
        self._tell(carried)

    def _follow_shift(self, scan: ArrivedScan) -> None:
        """Deformable registration; when it cannot be trusted the rigid one stays, and the verdict says so."""
        pair, tumour, stage = self._pair, self.plan.tumour, "follow the brain shift"
        assert tumour is not None
        rigid, image = pair.placed[scan.role].rigid, pair.images[scan.role]
        try:
            found = register_deformable(
                image,
                self.plan.preoperative,
                rigid,
                fixed_mask=self._ahead.brain_in(image),
                moving_mask=self._ahead.brain_in(self.plan.preoperative),
                tumour=tumour,
                start=self._begun_ahead(),
                progress=self._teller.progress(stage),
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
        shift = shift_found(rigid, found, image, tumour)
        pair.follow(scan.role, shift)
        self._shifted(shift)

    def _begun_ahead(self) -> DeformableRegistration | None:
        """What was found ahead in the native scan, where that is one of the same position and look; else None."""
        native = self._pair.images.get("native")
        found = None if native is None else self._ahead.found_in(native)
        if native is None or found is None:
            return None
        try:
            self._pair.native()
        except SessionError:
            self.journal.event("ahead", f"what was found ahead in '{native.name}' is not used: the scans are no pair")
            return None
        return found

    def _shifted(self, found: ShiftFound) -> None:
        assert self.plan.tumour is not None
        self.journal.shift(found, self.plan.preoperative)
        self.journal.margin(no_margin(TO_COME, (found.image.uid, self.plan.tumour.uid)), found.image)
        self._tell(found)
        self._carry(carried_plan(self.plan, found.image, found.rigid, found.deformable))

    def _assess_residual(self, _scan: ArrivedScan) -> None:
        assert self.plan.tumour is not None
        self._pair.waits = True
        update = residual_found(self._pair, self.plan.tumour, self._teller.progress("assess residual"))
        self._pair.waits = False
        self._decisions.residual(update)

    def _complete_pair(self, scan: ArrivedScan) -> None:
        """A native scan arrived after the contrast scan that waited for it: taken before, both are one pair.

        The contrast scan's own registration is the one that counts then, since the residual lies on its grid.
        Raises SessionError when they are no pair.
        """
        self._pair.native(late=True)
        with self._decisions.lock:
            self._pair.newest = "contrast"
        contrast, placed = self._pair.images["contrast"], self._pair.placed["contrast"]
        self._whole = placed.rigid
        self._registered(placed.rigid, contrast)
        if placed.shift is not None:
            self._shifted(placed.shift)
        self._assess_residual(scan)

    def _assess_implants(self, scan: ArrivedScan) -> None:
        plan, newest = self.plan, self._pair.newest
        assert self._whole is not None
        assert newest is not None
        image = self._pair.images[newest]
        found = carriers(plan, image, self._whole, self._teller.progress("assess implants"), self._threads)
        levels = {self._whole.verdict.level, *(each.verdict.level for each in found.vertebrae)}
        if "alignment" in plan.measures and levels != {Level.REFUSED}:
            self._tell_lost(found.vertebrae)
        for measurement in found.measurements:
            self.journal.measurement(measurement)
        self.journal.parts(found.vertebrae)
        # Beside a tumour a person decides where each structure is now: nothing is measured to it before.
        around = plan.at_risk if plan.tumour is None else {}
        for trajectory in plan.trajectories if levels != {Level.REFUSED} else ():
            name = trajectory.name
            with self._teller.reporting("assess implants", True, scan.protocol, deviation(name)):
                pedicle = pedicle_for(plan, trajectory)
                implant = found_implant(image, trajectory, found.by_name[name], pedicle, around, plan.trajectories)
                self._decisions.implant(implant)
                if unknown := unknown_of(implant):
                    self._tell(Problem("assess implants", unknown, fatal=False))
        if self._whole.verdict.level is Level.REFUSED and found.vertebrae:
            # Last: what a person decides on is complete, and the worker writes nothing of it any more.
            bones = bones_of(plan, found.vertebrae)
            self._decisions.offer(bones)
            self._tell(BonesFound(bones, image, plan.preoperative))
        if levels == {Level.REFUSED}:
            raise SessionError("no vertebra was found on its own either: check that both volumes show this patient")

    def _tell_lost(self, vertebrae: Sequence[VertebraRegistration]) -> None:
        """Which vertebrae were not found, where the plan is about how they stand to one another."""
        lost = [each for each in vertebrae if each.verdict.level is Level.REFUSED]
        for each in lost:
            why = f"{each.name} was not found ({each.why or each.verdict.text})"
            text = f"{why}: check its outline, and that the scan covers it"
            self._tell(Problem("assess implants", text, fatal=False, about=own_motion(each.name)))
        if len(vertebrae) - len(lost) < 2:
            text = "no angle between vertebrae is given: it needs two of them, and fewer were found"
            self._tell(Problem("assess implants", text, about=ALIGNMENT))
