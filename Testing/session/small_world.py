"""A theatre of a few thousand voxels in which any sequence of events takes milliseconds: scans whose truth is known.

What takes seconds in a real volume is stood in for, by name: :meth:`SmallWorld.stand_in` replaces the registrations and
the search for implants, and nothing else, by the true pose with the verdict that was asked for. Products, pairing, the
assessment of the residual and of the margin, decisions, record and report are the real ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from IntraopMRILib.assess.implant import Spread, Trajectory
from IntraopMRILib.assess.implant_detection import DetectedImplant
from IntraopMRILib.register.deformable import DeformableRegistration
from IntraopMRILib.register.rigid import RigidRegistration
from IntraopMRILib.register.vertebrae import VertebraRegistration
from IntraopMRILib.session import Plan
from IntraopMRILib.session.updates import Role
from IntraopMRIReconstructionLib.data import Image, Level, Progress, Reason, Verdict
from IntraopMRIReconstructionLib.errors import AssessmentError, Cancelled, RegistrationError

PATIENT = "TEST-1"
SIZE, VOXEL_MM = 24, 4.0
LEAD, LOOSE, SCREW = "Lead", "Loose", "Screw L2"
LEVELS = ("L1", "L2", "L3", "L4")
#: How the brain has moved beyond the rigid pose, mm.
BRAIN_SHIFT_MM = np.array([2.0, -1.0, 3.0])
#: When the first scan of a session was taken, POSIX seconds.
BEGUN_S = 1_700_000_000.0


@dataclass(frozen=True)
class Truth:
    """What the registrations say of one scan. ``defect``: stage that ends by a defect; ``lost``: names not found."""

    whole: Level = Level.GOOD
    shift: Level | None = Level.GOOD
    moved_mm: float = 0.0
    defect: str = ""
    lost: frozenset[str] = frozenset()


@dataclass
class SmallWorld:
    """Scans of one patient, and what is true of each, by name. ``during``: called in every stage that stands in."""

    during: Callable[[str], None] = lambda _stage: None
    truths: dict[str, Truth] = field(default_factory=dict)
    made: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(0)
        self.tissue = (600.0 + 60.0 * rng.random((SIZE, SIZE, SIZE))).astype(np.float32)
        self.grid = np.diag([VOXEL_MM, VOXEL_MM, VOXEL_MM, 1.0])
        self.grid[:3, 3] = -VOXEL_MM * (SIZE - 1) / 2.0

    def label(self, low: int, high: int, name: str = "label") -> Image:
        """A cube of voxels, preoperative."""
        array = np.zeros(self.tissue.shape, np.uint8)
        array[low:high, low:high, low:high] = 1
        return Image(array, self.grid, name)

    def before(self) -> Image:
        """The preoperative volume."""
        return Image(self.tissue, self.grid, "before", patient_id=PATIENT)

    def brain(self) -> Plan:
        """A tumour, a lead that is implanted through the same opening, and what lies around."""
        lead = Trajectory(np.array([0.0, 30.0, 20.0]), np.array([0.0, 2.0, 2.0]), 1.5, LEAD)
        return Plan(
            PATIENT, "test", self.before(), self.label(9, 15, "tumour"), (lead,),
            {"STN": (0.0, 2.0, 2.0)}, {"Tract": self.label(4, 7)}, {"Fork": (5.0, 5.0, 5.0)},
        )  # fmt: skip

    def spine(self) -> Plan:
        """Four vertebrae, a screw in the second, another implant in none."""
        screw = Trajectory(np.array([-20.0, 10.0, 0.0]), np.array([-20.0, 40.0, 0.0]), 5.0, SCREW)
        loose = Trajectory(np.array([30.0, 0.0, 30.0]), np.array([30.0, 30.0, 30.0]), 5.0, LOOSE)
        bones = {name: self.label(4 + 4 * n, 7 + 4 * n, name) for n, name in enumerate(LEVELS)}
        return Plan(
            PATIENT, "test", self.before(), trajectories=(screw, loose),
            vertebrae=bones, implanted={SCREW: "L2"}, measures=("cobb", "alignment"),
        )  # fmt: skip

    def scan(self, role: Role, truth: Truth, taken_utc_s: float | None, patient_id: str = PATIENT) -> Image:
        """The same tissue where the patient lies now, without most of the tumour; agent in the rest and in vessels."""
        array = self.tissue.copy()
        array[10:14, 10:14, 10:14] = 50.0
        if role == "contrast":
            array[9:10, 9:15, 9:15] *= 1.8
            array[::6, ::6, :] *= 1.6
        self.made[role] += 1
        name = f"T1 {role} {self.made[role]}"
        image = Image(array, self.pose(truth) @ self.grid, name, patient_id=patient_id, acquired_utc_s=taken_utc_s)
        self.truths[image.name] = truth
        return image

    @staticmethod
    def pose(truth: Truth) -> npt.NDArray[np.float64]:
        """Where the patient lies, intraop_from_preop."""
        result = np.eye(4)
        result[:3, 3] = (6.0 + truth.moved_mm, -4.0, 3.0)
        return result

    def stand_in(self, patch: pytest.MonkeyPatch) -> None:
        """Replace what is expensive: registrations and the search for an implant."""
        patch.setattr("IntraopMRILib.session.session.register_rigid", self._rigid)
        patch.setattr("IntraopMRILib.session.session.register_deformable", self._deformable)
        patch.setattr("IntraopMRILib.session.ahead.register_deformable", self._deformable)
        patch.setattr("IntraopMRILib.session.implants.register_vertebrae", self._vertebrae)
        patch.setattr("IntraopMRILib.session.implants.find_implant", self._implant)

    def _begin(self, stage: str, image: Image, progress: Progress | None) -> Truth:
        truth = self.truths[image.name]
        self.during(stage)
        if truth.defect == stage:
            raise ZeroDivisionError(f"in {stage}")
        if progress is not None and not progress(0.5, stage):
            raise Cancelled(f"{stage} was stopped")
        return truth

    def _rigid(self, fixed: Image, moving: Image, *, progress: Progress, **_: Any) -> RigidRegistration:
        truth = self._begin("register", fixed, progress)
        verdict = verdict_of("agreement", truth.whole)
        return RigidRegistration(self.pose(truth), verdict, 0.1, 0.9, 0.9, 0.4, 1.0, fixed.uid, moving.uid)

    def _deformable(
        self, fixed: Image, moving: Image, rigid: RigidRegistration, *, progress: Progress, **_: Any
    ) -> DeformableRegistration:
        truth = self._begin("follow", fixed, progress)
        if truth.shift is None:
            raise RegistrationError("no brain is there")
        grid = fixed.ras_from_ijk
        push = np.broadcast_to(BRAIN_SHIFT_MM, (SIZE, SIZE, SIZE, 3)).astype(np.float32)
        cavity, doubt = (np.zeros((SIZE, SIZE, SIZE), kind) for kind in (np.uint8, np.float32))
        cavity[10:14, 10:14, 10:14], doubt[...] = 1, 1.2
        fields = (Image(-push, grid), Image(push, grid), Image(cavity, grid, "cavity"))
        brain = Image(np.ones_like(cavity), grid, "brain")
        verdict = verdict_of("folding", truth.shift)
        uids = (fixed.uid, moving.uid)
        return DeformableRegistration(
            rigid.intraop_from_preop, *fields, brain, Image(doubt, grid), verdict, False, 0.1, *uids
        )

    def _vertebrae(
        self, fixed: Image, _moving: Image, masks: dict[str, Image], *, progress: Progress, **_: Any
    ) -> tuple[VertebraRegistration, ...]:
        truth = self._begin("vertebrae", fixed, progress)
        names = list(masks)
        return tuple(
            VertebraRegistration(
                name,
                self.pose(truth),
                0.9,
                0.3,
                verdict_of("bone", Level.REFUSED if name in truth.lost else Level.GOOD),
            )
            for name in names
        )

    def _implant(self, image: Image, near: Trajectory, **_: Any) -> DetectedImplant:
        truth = self._begin("implant", image, None)
        if near.name in truth.lost:
            raise AssessmentError(f"no signal void like '{near.name}' is there")
        beside = Trajectory(near.entry_ras_mm + 0.5, near.tip_ras_mm + 0.5, near.diameter_mm, near.name)
        return DetectedImplant(beside, Spread(0.3), None, verdict_of("void", Level.GOOD), image, 3.0)


def verdict_of(name: str, level: Level) -> Verdict:
    return Verdict((Reason(name, 0.5, "", "asked for", level),))
