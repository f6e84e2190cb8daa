"""What a session tells the main thread, in the order in which it happened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
from IntraopMRIReconstructionLib.data import Image, Measurement, Status, Verdict
from IntraopMRIReconstructionLib.errors import SessionError
from IntraopMRIReconstructionLib.reconstruct.ablation import RISK_ALARM_C, HeatNumbers
from IntraopMRIReconstructionLib.reconstruct.quantities import Heating
from IntraopMRIReconstructionLib.reconstruct.result import Reconstruction

from ..assess.course import Course
from ..assess.implant import Band, Trajectory
from ..assess.implant_detection import DetectedImplant
from ..assess.pedicle import Breach
from ..assess.residual import ResidualAssessment
from ..register.carry_over import Carried
from ..register.deformable import DeformableRegistration
from ..register.rigid import RigidRegistration

if TYPE_CHECKING:
    from .bones import Bone

#: What an intraoperative image is for: with or without contrast agent.
Role = Literal["native", "contrast"]
#: Names of numbers that a plan asks for, by which the record says that they are missing.
RESIDUAL, ALIGNMENT = "Residual enhancing tumour", "Change of alignment"


def deviation(implant: str) -> str:
    """The same for what is measured of an implant."""
    return f"{implant}: deviation from its plan"


def own_motion(vertebra: str) -> str:
    """The same for how far a vertebra is from where the pose of the whole spine would put it."""
    return f"{vertebra}: moved on its own"


@dataclass(frozen=True)
class ScanProgress:
    """A scan is arriving: ``fraction`` 0..1 of its planned lines."""

    scan_id: str
    protocol: str
    fraction: float


@dataclass(frozen=True, eq=False)
class ScanPreview:
    """A coarse picture of a scan of which ``fraction`` 0..1 has arrived; None when what was shown no longer holds.

    To look at while waiting: it is never registered and nothing is assessed on it.
    """

    protocol: str
    fraction: float
    image: Image | None


@dataclass(frozen=True)
class StageProgress:
    """A stage is working: ``fraction`` 0..1."""

    stage: str
    fraction: float
    what: str


@dataclass(frozen=True, eq=False)
class ImageReady:
    """An intraoperative volume; ``reconstruction`` is None when the scanner sent it finished.

    ``last_byte_s``: monotonic time at which the last of its data was received, None when a person chose it.
    """

    image: Image
    role: Role
    reconstruction: Reconstruction | None
    last_byte_s: float | None


@dataclass(frozen=True, eq=False)
class MapReady:
    """Maps of quantities in the frame of the scanner, the first one to be shown; each metadata name what, and its unit.

    ``picture``: of the same scan, to lie below them; None without one. They are looked at: nothing is registered to
    them and nothing that is registered rests on them.
    """

    maps: tuple[Image, ...]
    picture: Image | None


@dataclass(frozen=True)
class RiskHeat:
    """A structure at risk in a frame of thermometry; ``highest``: its temperature in the hottest frame so far."""

    name: str
    temperature: Measurement
    dose: Measurement
    note: str
    highest: Measurement

    @property
    def alarm(self) -> bool:
        """Whether it is in danger now."""
        return self.temperature.value is not None and self.temperature.value >= RISK_ALARM_C


@dataclass(frozen=True, eq=False)
class HeatMeasured:
    """What a frame of thermometry says in numbers, for the heat that a person has marked (``heating``).

    ``hottest_ras_mm``: where the map stands out most, whatever was marked; None when no place does. ``received_s``:
    monotonic time of the last line of the frame, ``latency_s`` from there to its map; ``stale_s`` later it is
    stale. ``ended``: the scan is over, so that its temperatures are of the past.
    """

    scan: str
    frame: int
    numbers: HeatNumbers
    risks: tuple[RiskHeat, ...]
    heating: Heating
    hottest_ras_mm: npt.NDArray[np.float64] | None
    received_s: float
    latency_s: float
    stale_s: float
    ended: bool


@dataclass(frozen=True, eq=False)
class Registered:
    """The preoperative volume was placed in an intraoperative image, or the attempt was refused: see its verdict."""

    registration: RigidRegistration
    image: Image


@dataclass(frozen=True, eq=False)
class ShiftFound:
    """The brain shift was followed from the rigid pose ``rigid``; ``shift`` is the measured one at the tumour.

    ``verdict`` joins the reasons of both. ``cavity``: volume of the resection cavity that it found. ``error_mm``:
    median 95 % radius of the tumour's place now.
    """

    rigid: RigidRegistration
    deformable: DeformableRegistration
    image: Image
    verdict: Verdict
    shift: Measurement
    cavity: Measurement
    error_mm: float


@dataclass(frozen=True, eq=False)
class PlanCarried:
    """Where the planned things are in ``image``: every item offered, none accepted; replaces what was told before.

    ``labels``: structures at risk by name, in intraoperative RAS: where the rigid pose puts them, and where their
    tissue is now (None when that is not offered).
    """

    items: tuple[Carried, ...]
    labels: Mapping[str, tuple[Image, Image | None]]
    image: Image


@dataclass(frozen=True)
class Judged:
    """A person has judged a piece of the residual not to be tumour: who, and when (ISO 8601)."""

    by: str
    utc: str


@dataclass(frozen=True, eq=False)
class ResidualFound:
    """The residual was assessed on the contrast scan, or a person has judged a piece of it: it takes the place of what
    was told before. ``notes``: what a person must know beside the number.

    ``cavity``: whether one was segmented, which is better evidence of what is gone than the carried-over tumour minus
    the residual. ``near``: the nearest structure at risk by the number of a piece, empty where the plan names none.
    ``judged``: what a person has excluded, by the number of a piece. ``courses``: how the enhancement of each changed
    since earlier contrast scans of this look, empty without any.
    """

    assessment: ResidualAssessment
    notes: tuple[str, ...] = ()
    cavity: bool = False
    near: Mapping[int, Measurement] = field(default_factory=dict)
    judged: Mapping[int, Judged] = field(default_factory=dict)
    courses: Mapping[int, Course] = field(default_factory=dict)

    @property
    def resected(self) -> Image | None:
        """The part to show as resected; None where the cavity shows it."""
        return None if self.cavity else self.assessment.resected


@dataclass(frozen=True, eq=False)
class ImplantFound:
    """One implant was found; ``planned`` is carried to intraoperative RAS, ``basis`` says in words by what.

    ``breach``: of the pedicle that it was planned through, None without one. ``drawn``: the plan in preoperative RAS
    where it has to be drawn under the pose of the whole, when a vertebra of its own carries it; None otherwise.
    ``stays``: whether it stays where it lies or is to be revised, None until a person (``decided_by``, at
    ``decided_utc``, ISO 8601) has decided.
    """

    planned: Trajectory
    detected: DetectedImplant
    measurements: tuple[Measurement, ...]
    band: Band
    basis: str = "rigid pose"
    breach: Breach | None = None
    drawn: Trajectory | None = None
    stays: bool | None = None
    decided_by: str = ""
    decided_utc: str = ""

    @property
    def grade(self) -> str:
        """Accuracy band and, with a pedicle, Gertzbein-Robbins grade; ranges where it cannot be told."""
        if self.breach is not None:
            return f"{self.band.text}; Gertzbein-Robbins {self.breach.text}"
        missing = any(m.value is None and m.name.endswith("pedicle breach") for m in self.measurements)
        return self.band.text + ("; Gertzbein-Robbins not graded" if missing else "")

    def decided(self, stays: bool, by: str, utc: str) -> ImplantFound:
        """The same with a person's decision. Raises SessionError without a name."""
        if not by.strip():
            raise SessionError(f"'{self.planned.name}' needs the name of the person who decides: enter it first")
        return replace(self, stays=stays, decided_by=by.strip(), decided_utc=utc)


@dataclass(frozen=True, eq=False)
class BonesFound:
    """The pose of the whole was refused and each vertebra was looked for on its own: none is accepted yet.

    ``preoperative``: the volume in which they were outlined.
    """

    bones: tuple[Bone, ...]
    image: Image
    preoperative: Image


@dataclass(frozen=True)
class DeviceSaid:
    """A device reported its state."""

    status: Status


@dataclass(frozen=True)
class Problem:
    """A stage failed or data was refused: ``text`` is one sentence for a person.

    ``fatal``: what this stage was to deliver will not come without a new scan. ``about``: name of the one number that
    is missing by this, everything else goes on; empty when it is about the whole stage.
    """

    stage: str
    text: str
    fatal: bool = True
    about: str = ""


Update = (
    ScanProgress
    | ScanPreview
    | StageProgress
    | ImageReady
    | MapReady
    | HeatMeasured
    | Registered
    | ShiftFound
    | PlanCarried
    | ResidualFound
    | ImplantFound
    | BonesFound
    | DeviceSaid
    | Problem
)
