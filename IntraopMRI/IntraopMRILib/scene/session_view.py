"""Brings what a session found onto the screen: updates into nodes, poses into distances, all of it into a readout.

Main thread only. Nothing here computes: it decides what may be shown now and hands it to the bridge.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from IntraopMRIReconstructionLib.data import Image, Level, Measurement, Pose

from ..assess.course import Course
from ..assess.implant import Trajectory
from ..assess.pieces import Piece, Sure, counted
from ..navigate.distance import ResidualDistance, SurfaceDistance
from ..navigate.watch import PoseWatch, Trust
from ..register.carry_over import Carried, LocalShift, local_shift
from ..register.deformable import DeformableRegistration
from ..session import Plan
from ..session.updates import (
    BonesFound,
    HeatMeasured,
    ImageReady,
    ImplantFound,
    Judged,
    MapReady,
    PlanCarried,
    Problem,
    Registered,
    ResidualFound,
    ScanPreview,
    ShiftFound,
    Update,
)
from . import looks
from .bones import LoneBones
from .bridge import SceneBridge
from .contents import ATTRIBUTE
from .display import PieceText, Readout, shownOfImplant
from .heat_texts import heat_texts
from .prepared import Prepared, PreparedPlan, behind, prepare, preparePlan
from .roles import RESIDUAL

#: The circle around a piece lies so far outside of it, mm.
MARK_ROOM_MM = 3.0


class SessionView:
    """One session in one scene. ``clock``: monotonic seconds; ``wall``: POSIX seconds.

    ``prepared``: the plan's nodes when another thread has made them; here and in :meth:`apply` it is done otherwise.
    Nodes of a session before this one, or of a loaded scene, go: they may be of another plan or patient.
    """

    def __init__(
        self,
        bridge: SceneBridge,
        plan: Plan,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        prepared: PreparedPlan | None = None,
    ) -> None:
        prepared = prepared or preparePlan(plan)
        self.bridge = bridge
        self._clock, self._wall = clock, wall
        self._watch: PoseWatch | None = None
        self._steady: Pose | None = None
        self._readout = Readout()
        #: The newest frame of thermometry, while no newer scan has come.
        self.heat: HeatMeasured | None = None
        #: To the residual, where one was found.
        self.distance: ResidualDistance | None = None
        self._image: Image | None = None
        self._preview = ""
        self._deformable: DeformableRegistration | None = None
        self.centroid: npt.NDArray[np.float64] | None = None
        #: The pieces of the residual by number, the one that the views stand at, and what a person has excluded.
        self.pieces: dict[int, Piece] = {}
        self.piece: int | None = None
        self.judged: Mapping[int, Judged] = {}
        self.near: Mapping[int, Measurement] = {}
        self.courses: Mapping[int, Course] = {}
        self._toPieces: Mapping[int, SurfaceDistance] = {}
        #: Planned things by key where the newest registration puts them, with what a person has decided.
        self.items: dict[str, Carried] = {}
        #: Planned implants, and the names of those that are drawn where a vertebra of their own carries them.
        self._trajectories = {planned.name: planned for planned in plan.trajectories}
        self._withVertebra: set[str] = set()
        #: Where the pose of the whole was refused: vertebrae that a person decides on one by one.
        self.lone = LoneBones(bridge, plan)
        #: See :class:`Prepared`.
        self.risks: Mapping[str, tuple[SurfaceDistance, SurfaceDistance | None]] = {}
        bridge.beginAnew()
        with bridge.update():
            bridge.setPreoperative(plan.preoperative, content=prepared.preoperative)
            if plan.tumour is not None:
                bridge.setTumour(plan.tumour, content=prepared.tumour)
            for planned in plan.trajectories:
                self._drawPlan(planned)
            # Two names must not lie on one another: that of the highest point stands above it, the others below.
            highest = max((point[2] for point in map(np.asarray, plan.targets.values())), default=0.0)
            for name, point in plan.targets.items():
                bridge.setPoint(name, point, below=bool(np.asarray(point)[2] < highest))
            for name, labels in plan.at_risk.items():
                bridge.setStructureAtRisk(name, labels, prepared.at_risk[name])
            for name, point in plan.landmarks.items():
                bridge.setPoint(name, point, kind="landmark")

    def apply(self, update: Update, prepared: Prepared | None = None) -> None:
        """Take in one update. Progress changes nothing here."""
        ready = prepared or prepare(update)
        if isinstance(update, ImageReady):
            self._newImage(update, ready)
        elif isinstance(update, MapReady):
            self.bridge.setMaps(ready.maps)
        elif isinstance(update, HeatMeasured):
            self.heat = update
            self.bridge.setHeat(ready.heat)
            if (residual := self.bridge.node(RESIDUAL)) is not None:
                # Its wash would hide the temperature of what is to be ablated.
                looks.fill(residual, False)
        elif isinstance(update, Registered):
            self._registered(update)
        elif isinstance(update, ShiftFound):
            self._shift(update, ready)
        elif isinstance(update, PlanCarried):
            self.risks, self.items = ready.risks, {item.key: item for item in update.items}
        elif isinstance(update, ResidualFound):
            self._residual(update, ready)
        elif isinstance(update, ImplantFound):
            self._implant(update)
        elif isinstance(update, BonesFound):
            self.lone.take(update, ready.bones)
        elif isinstance(update, ScanPreview):
            self._preview = "" if update.image is None else f"{update.fraction:.0%}"
            self.bridge.setPreview(ready.content)
        elif isinstance(update, Problem) and update.fatal:
            self._failed(update)
        if prepared is None:
            for ready in behind(update):
                self.draw(ready)

    def draw(self, ready: Prepared) -> None:
        """What :func:`.prepared.behind` gives; nothing when its picture or its registration is gone meanwhile."""
        if ready.anatomy is not None and self._image is not None and ready.anatomy[1] == self._image.uid:
            self.bridge.setAnatomy(ready.anatomy[0], "Surface")
        if self.followsShift:
            self.bridge.setBrainShift(ready.drawn)

    def decided(self, item: Carried) -> None:
        """A person has decided about one planned thing: it moves, or goes back to where the rigid pose puts it."""
        self.bridge.carry(item.key, bool(item.accepted))
        self.items[item.key] = item

    @property
    def followsShift(self) -> bool:
        """Whether the brain shift is known for what is shown."""
        return self._deformable is not None and self.bridge.registration is not None

    def localShift(self, point: npt.ArrayLike) -> LocalShift | str:
        """Brain shift at a point (3,), intraoperative RAS mm; where it is not known, why in words."""
        if self._deformable is None or self.bridge.registration is None:
            return "not followed"
        return local_shift(self._deformable, point)

    def movePointer(self, pose: Pose) -> None:
        """A new pose: the pointer moves, or disappears when the tracker does not see it."""
        if self._watch is None or self._watch.tool != pose.tool:
            self._watch = PoseWatch(pose.tool, self._clock)
        self._watch.update(pose)
        # Of a tool that has just come back nothing is drawn, not even until the next tick.
        self.bridge.setPointer(self._watch.pose)

    def tick(self) -> None:
        """To be called regularly: hides the pointer when its pose has become stale."""
        if self.waitsForPose():
            self.bridge.setPointer(None)

    def waitsForPose(self) -> bool:
        """Whether a tool was tracked but its last pose may not be shown now."""
        return self._watch is not None and not self._watch.state().live

    def expectPointer(self) -> None:
        """A person wants to navigate: that the pointer is not seen is said large again."""
        if self._watch is not None:
            self._watch.expect()

    @property
    def pointerAside(self) -> bool:
        """Whether the pointer was laid aside: it is missed by nobody, and its numbers are not there."""
        return self._watch is not None and self._watch.state().trust is Trust.ASIDE

    def steady(self, pose: Pose) -> None:
        """The last pose without the tremor of the hand: from there all distances are measured."""
        self._steady = pose

    def tip(self) -> npt.NDArray[np.float64] | None:
        """Where the tip is now, (3,) RAS mm, steady where it is known; None while no pose may be shown."""
        pose = None if self._watch is None else self._watch.pose
        if pose is None:
            return None
        steady = self._steady
        if steady is not None and (steady.tool, steady.received_monotonic_s) == (pose.tool, pose.received_monotonic_s):
            return steady.tip_ras_mm
        return pose.tip_ras_mm

    def tipToResidual(self) -> Measurement | None:
        """Distance of the pointer's tip to the residual; without value and with the reason while it cannot be told."""
        return self._fromTip(self.distance, "Tip to residual")

    def tipToPiece(self, number: int) -> Measurement | None:
        """The same to one piece of the residual; None without a tracked tool."""
        return self._fromTip(self._toPieces.get(number), f"Tip to piece {number}")

    def _fromTip(self, distance: SurfaceDistance | None, name: str) -> Measurement | None:
        if distance is None or self._watch is None:
            return None
        tip = self.tip()
        if tip is None:
            return Measurement(name, None, "mm", "not shown", missing_because=self._watch.state().reason)
        return distance.measure(tip)

    def goTo(self, number: int | None) -> npt.NDArray[np.float64] | None:
        """Mark the piece of that number, and say where it is, (3,) RAS mm; None marks none."""
        piece = self.pieces.get(number or 0)
        self.piece = None if piece is None else piece.number
        if piece is None:
            self.bridge.setPieceMark(0, None)
            return None
        self.bridge.setPieceMark(piece.number, *piece.around(MARK_ROOM_MM))
        return piece.at_ras_mm

    def doubt(self, piece: Piece) -> str:
        """What speaks against its being residual, in words; empty when nothing does."""
        if piece.number in self.judged:
            return "excluded by a person"
        return "" if piece.sure is Sure.SURE else piece.sure.value

    def _pieceText(self) -> PieceText | None:
        piece = self.pieces.get(self.piece or 0)
        if piece is None:
            return None
        tip = self.tipToPiece(piece.number)
        return PieceText(piece.number, len(self.pieces), piece.volume, piece.place, self.doubt(piece), tip)

    def readout(self) -> Readout:
        """Everything that the texts of the views say now."""
        state = None if self._watch is None else self._watch.state()
        acquired = None if self._image is None else self._image.acquired_utc_s
        registration = self.bridge.registration
        return Readout(
            residual=self._readout.residual,
            extent_of_resection=self._readout.extent_of_resection,
            rano_class=self._readout.rano_class,
            tip_to_residual=self.tipToResidual(),
            implants=self.lone.readout() if self.lone.items else self._readout.implants,
            verdict=registration.verdict if registration is not None else self._readout.verdict,
            withdrawn=self.bridge.withdrawnBecause,
            image_age_s=None if acquired is None else self._wall() - acquired,
            pose_age_s=None if state is None else state.age_s,
            pose_trust=Trust.NEVER.value if state is None else state.trust.value,
            preview=self._preview if self._showsPreview else "",
            heat=None if self.heat is None else heat_texts(self.heat, self._clock()),
            piece=self._pieceText(),
            excluded=f"{counted(len(self.judged))} excluded by a person" if self.judged else "",
            alone=", ".join(self.lone.accepted) if self.lone.items else None,
        )

    def volume(self) -> Any | None:
        """Node of the intraoperative volume that the registration belongs to; while there is none, of the preview of a
        scan that arrives, else of the newest one."""
        registration = self.bridge.registration
        if self._showsPreview:
            return self.bridge.node("preview")
        shown = "" if self._image is None else self._image.uid
        if registration is not None:
            shown = registration.image_uid
        nodes = [self.bridge.node(f"intraop.{role}") for role in ("contrast", "native")]
        there = [node for node in nodes if node is not None]
        return next((node for node in there if node.GetAttribute(f"{ATTRIBUTE}Uid") == shown), (there or [None])[0])

    @property
    def _showsPreview(self) -> bool:
        """A preview takes nobody's place: overlays of a valid registration belong to another picture."""
        return bool(self._preview) and self.bridge.registration is None

    def _newImage(self, update: ImageReady, ready: Prepared) -> None:
        self._preview, self.heat = "", None
        self.bridge.setPreview(None)
        self.bridge.setHeat({})
        self._forget()
        self._loosen()
        self._image = update.image
        with self.bridge.update():
            self.bridge.setIntraoperative(update.image, update.role, ready.content)
            self.bridge.withdraw(f"the new image '{update.image.name}' is not registered yet")
            # Of the image before: that of this one comes behind it.
            self.bridge.setAnatomy(None)

    def _drawPlan(self, planned: Trajectory) -> None:
        """A planned implant, in preoperative RAS."""
        self.bridge.setPlan(planned.name, planned.entry_ras_mm, planned.tip_ras_mm, planned.diameter_mm / 2.0)

    def _registered(self, update: Registered) -> None:
        found = update.registration
        self._loosen()
        self._forgetPieces()
        # Where a vertebra was belongs to the scan in which it was found.
        for name in self._withVertebra:
            self._drawPlan(self._trajectories[name])
        self._withVertebra.clear()
        self._readout = Readout(verdict=found.verdict)
        self.bridge.setRegistration(
            found.intraop_from_preop, found.verdict, update.image.uid, f"{found.fixed_uid}:{found.moving_uid}"
        )
        if found.verdict.level is Level.REFUSED:
            self._forget(found.verdict)

    def _shift(self, update: ShiftFound, ready: Prepared) -> None:
        found = update.deformable
        self._readout = Readout(verdict=update.verdict)
        self._forgetPieces()
        self.bridge.setRegistration(
            found.intraop_from_preop, update.verdict, update.image.uid, found.shift.uid, found.shift, ready.content
        )
        self._deformable = found

    def _residual(self, update: ResidualFound, ready: Prepared) -> None:
        found = update.assessment
        self.bridge.setResidual(found.residual, update.resected, ready.content)
        self.centroid = found.residual_centroid_ras_mm
        self.distance = ready.distance
        self.pieces, self.judged = {piece.number: piece for piece in found.listed}, update.judged
        self.near, self.courses = update.near, update.courses
        self._toPieces = ready.pieces
        # The same piece as before, when a person has judged one; a new scan has forgotten it.
        self.goTo(self.piece)
        self._readout = replace(
            self._readout,
            residual=found.measurements[0],
            extent_of_resection=found.measurements[1],
            rano_class=found.rano.value,
        )

    def _implant(self, update: ImplantFound) -> None:
        if self.bridge.registration is None:
            # Its vertebra was found on its own, and nobody has accepted that yet.
            self.lone.implant(update)
            return
        if update.drawn is not None:
            self._withVertebra.add(update.drawn.name)
            self._drawPlan(update.drawn)
        actual = update.detected.trajectory
        self.bridge.setActualImplant(
            update.planned.name, actual.entry_ras_mm, actual.tip_ras_mm, actual.diameter_mm / 2.0
        )
        shown = shownOfImplant(update.measurements)
        self.centroid = (actual.entry_ras_mm + actual.tip_ras_mm) / 2.0
        self._readout = replace(self._readout, implants={**self._readout.implants, update.planned.name: shown})

    def _failed(self, update: Problem) -> None:
        """What that stage was to deliver is not there; what was established before, and by other stages, stays."""
        if update.stage == "register":
            self._loosen()
            self.bridge.withdraw(update.text)
        if update.stage in ("register", "assess residual"):
            self._forget(self._readout.verdict)

    def _loosen(self) -> None:
        """Nothing is known of the brain shift any more, and nothing that a person accepted holds."""
        self._deformable, self.risks = None, {}
        self.items.clear()
        self.lone.clear()

    def _forgetPieces(self) -> None:
        self.pieces, self.piece, self.judged, self.near, self._toPieces = {}, None, {}, {}, {}
        self.courses = {}
        self.bridge.setPieceMark(0, None)

    def _forget(self, verdict: Any | None = None) -> None:
        self.distance, self.centroid = None, None
        self._forgetPieces()
        self._readout = Readout(verdict=verdict)
