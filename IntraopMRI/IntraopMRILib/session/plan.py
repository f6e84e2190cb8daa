"""What is known before the operation, and where each thing of it is in an intraoperative image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from IntraopMRIReconstructionLib.data import Image, Matrix, checked_rigid
from IntraopMRIReconstructionLib.errors import SessionError
from IntraopMRIReconstructionLib.geometry import apply, centre_of

from ..assess.approach import approach_doubt, side_doubt
from ..assess.carry import carried_points, occupied
from ..assess.implant import Trajectory
from ..register.carry_over import Carried, CarryOver, Kind
from ..register.deformable import DeformableRegistration
from ..register.rigid import RigidRegistration
from .updates import PlanCarried

if TYPE_CHECKING:
    from .baseline import Baseline

#: A path is looked up this densely, mm: finer than the displacement changes.
PATH_STEP_MM = 1.0
#: Voxels around a carried-over structure, so that its surface closes.
MARGIN_VOXELS = 3
#: What a plan may be about beside tumour and implants; all but the last one need a person who draws.
MEASURES = (
    "vascular", "cord", "cobb", "sagittal", "hip", "leg", "length", "osteotomy", "nonenhancing", "alignment",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Plan:
    """Everything in preoperative RAS, mm: tumour labels and structures at risk as labels on any preoperative grid.

    ``targets``: named points (3,); the first is the one that the pointer is led to. ``landmarks``: named points (3,).
    ``vertebrae``: labels by name, from head to foot; ``implanted``: name of a trajectory to that of the vertebra which
    takes it and carries it along; ``pedicles``: label of the pedicle by the name of the trajectory that shall pass it.
    ``measures``: kinds of :data:`.measures.RECIPES` that this procedure is about, and 'alignment' of all
    vertebrae. ``nidus``: label of a vascular malformation. ``centreline``: points (n, 3) along the cord.
    ``correction``: planned motion (4, 4) of a bone that is cut, in preoperative RAS; its ``landmarks`` show it.
    ``patient``: name, date of birth and the like as the header of the preoperative volume says them, by DICOM's names.
    ``left_out``: what was planned and is not here, with the reason, by name. ``baseline``: what was left at an earlier
    session of this patient, which the residual is compared with.
    """

    patient_id: str
    procedure: str
    preoperative: Image
    tumour: Image | None = None
    trajectories: tuple[Trajectory, ...] = ()
    targets: Mapping[str, npt.ArrayLike] = field(default_factory=dict)
    at_risk: Mapping[str, Image] = field(default_factory=dict)
    landmarks: Mapping[str, npt.ArrayLike] = field(default_factory=dict)
    vertebrae: Mapping[str, Image] = field(default_factory=dict)
    implanted: Mapping[str, str] = field(default_factory=dict)
    pedicles: Mapping[str, Image] = field(default_factory=dict)
    measures: tuple[str, ...] = ()
    nidus: Image | None = None
    centreline: npt.ArrayLike | None = None
    correction: Matrix | None = None
    patient: Mapping[str, str] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    baseline: Baseline | None = None

    def __post_init__(self) -> None:
        if self.tumour is None and not self.trajectories and not self.measures:
            raise SessionError("the plan names neither a tumour nor an implant: there would be nothing to assess")
        if self.tumour is not None and not np.any(self.tumour.array):
            raise SessionError(
                f"the tumour segmentation '{self.tumour.name}' is empty: segment the tumour, or choose another one"
            )
        if self.preoperative.patient_id and self.preoperative.patient_id != self.patient_id:
            raise SessionError(
                f"the preoperative volume is of patient '{self.preoperative.patient_id}', the session of "
                f"'{self.patient_id}': check the patient before going on"
            )
        if self.baseline is not None:
            if self.tumour is None:
                raise SessionError("a baseline is about a residual: name the tumour, or leave the baseline out")
            if self.baseline.patient_id != self.patient_id:
                raise SessionError(
                    f"the baseline is of patient '{self.baseline.patient_id}', the session of '{self.patient_id}'"
                )
        kinds = (("structure at risk", self.at_risk), ("vertebra", self.vertebrae), ("pedicle of", self.pedicles))
        for kind, labels in kinds:
            for name, label in labels.items():
                if not np.any(label.array):
                    raise SessionError(f"the {kind} '{name}' is empty: segment it, or remove it")
        needs = {
            "vascular": (self.nidus is not None and np.any(self.nidus.array), "the label of the nidus"),
            "osteotomy": (self.correction is not None and len(self.landmarks) > 2, "a correction and three landmarks"),
            "alignment": (len(self.vertebrae) > 1, "the labels of two vertebrae or more"),
        }
        for kind in self.measures:
            if kind not in MEASURES:
                raise SessionError(f"'{kind}' is no measure: a plan may be about {', '.join(MEASURES)}")
            there, what = needs.get(kind, (True, ""))
            if not there:
                raise SessionError(f"the plan is about '{kind}' but has not what that needs: {what}")
        if self.correction is not None:
            checked_rigid(self.correction, "correction")
        planned = {trajectory.name for trajectory in self.trajectories}
        for name, vertebra in self.implanted.items():
            if name not in planned or vertebra not in self.vertebrae:
                raise SessionError(
                    f"'{name}' is planned for vertebra '{vertebra}', but the plan has the implants {sorted(planned)} "
                    f"and the vertebrae {list(self.vertebrae)}: name one of each"
                )
        if unknown := sorted(set(self.pedicles) - planned):
            raise SessionError(f"there are pedicles for {unknown}, which are no planned implants: name one of them")

    @property
    def operated_mm(self) -> npt.NDArray[np.float64]:
        """Points (n, 3) around what the operation is about: nothing of it moves farther than the farthest of them.

        Corners of the box around the tumour; without one, the ends of what is planned; without both, the middle of the
        volume.
        """
        if self.tumour is not None:
            return _box_around(self.tumour)
        if self.trajectories:
            return np.concatenate([[planned.entry_ras_mm, planned.tip_ras_mm] for planned in self.trajectories])
        k, j, i = self.preoperative.array.shape[:3]
        return centre_of(self.preoperative.ras_from_ijk, (i, j, k))[None]

    def doubts(self) -> list[str]:
        """What a person should check before all else: ends or sides of implants that are perhaps exchanged."""
        found = []
        for planned in self.trajectories:
            bone = self.implanted.get(planned.name, "")
            found.append(approach_doubt(planned, self.preoperative, bone))
            found.append(side_doubt(planned, self.vertebrae[bone], bone) if bone else "")
        return [words for words in found if words]

    def things(self) -> Iterator[tuple[Kind, str, npt.NDArray[np.float64]]]:
        """Kind, name and points (n, 3) of all that is carried over one by one."""
        for name, point in self.targets.items():
            yield "target", name, np.reshape(np.asarray(point, dtype=np.float64), (1, 3))
        for planned in self.trajectories:
            count = max(2, round(planned.length_mm / PATH_STEP_MM) + 1)
            along = np.linspace(0.0, 1.0, count)[:, None]
            yield "plan", planned.name, planned.entry_ras_mm + along * (planned.tip_ras_mm - planned.entry_ras_mm)
        for name, label in self.at_risk.items():
            yield "risk", name, apply(label.ras_from_ijk, np.argwhere(label.array != 0)[:, ::-1].astype(np.float64))
        for name, point in self.landmarks.items():
            yield "landmark", name, np.reshape(np.asarray(point, dtype=np.float64), (1, 3))


def carried_plan(
    plan: Plan, image: Image, rigid: RigidRegistration, deformable: DeformableRegistration | None = None
) -> PlanCarried:
    """Everything in the plan where it is in the intraoperative ``image``; nothing is accepted yet."""
    carry = CarryOver(rigid, deformable)
    items = tuple(carry.item(kind, name, points) for kind, name, points in plan.things())
    labels = {}
    for item in (item for item in items if item.kind == "risk"):
        label = plan.at_risk[item.name]
        now = _carried_label(label, image, deformable) if deformable is not None and item.offered else None
        labels[item.name] = (Image(label.array, rigid.intraop_from_preop @ label.ras_from_ijk, item.name), now)
    return PlanCarried(items, labels, image)


def moved_trajectory(planned: Trajectory, item: Carried) -> Trajectory:
    """A planned trajectory at the position that may be used: straight from its entry to its tip."""
    entry, tip = item.position_mm[0], item.position_mm[-1]
    return replace(planned, entry_ras_mm=entry, tip_ras_mm=tip)


def _carried_label(label: Image, image: Image, deformable: DeformableRegistration) -> Image:
    """The label where the tissue is now, on the part of the intraoperative grid that it covers; it may reach beyond."""
    ijk = carried_points(label.array != 0, label, image, deformable.intraop_from_preop_points)
    low = np.floor(ijk.min(axis=0)).astype(int) - MARGIN_VOXELS
    high = np.ceil(ijk.max(axis=0)).astype(int) + MARGIN_VOXELS
    k, j, i = (slice(0, int(size) + 1) for size in (high - low)[::-1])
    grid = image.ras_from_ijk.copy()
    grid[:3, 3] = apply(image.ras_from_ijk, low.astype(np.float64))
    return Image(occupied(ijk - low, (k, j, i)).astype(np.uint8), grid, label.name)


def _box_around(label: Image) -> npt.NDArray[np.float64]:
    inside = np.argwhere(label.array != 0)[:, ::-1]
    return apply(label.ras_from_ijk, list(product(*zip(inside.min(axis=0), inside.max(axis=0), strict=True))))
