"""Vertebrae that a person accepts one by one, where no pose of the whole spine counts, and what rests on them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from IntraopMRIReconstructionLib.data import Image, Level, Measurement, Reason, Verdict
from IntraopMRIReconstructionLib.errors import RegistrationError
from IntraopMRIReconstructionLib.geometry import apply, middle_of

from ..register.vertebrae import VertebraRegistration
from .implants import alignment
from .plan import Plan
from .updates import ALIGNMENT, ImplantFound, deviation

#: How the reasons of a verdict begin that compare a vertebra with a neighbour.
TURN, SHIFT = "turn against ", "shift against "


@dataclass(frozen=True, eq=False)
class Bone:
    """A vertebra that was registered on its own. ``label``: preoperative; ``carries``: implants planned in it.

    ``accepted``: None until a person (``decided_by``, at ``decided_utc``, ISO 8601) has decided; only then anything
    rests on it.
    """

    found: VertebraRegistration
    label: Image
    carries: tuple[str, ...] = ()
    accepted: bool | None = None
    decided_by: str = ""
    decided_utc: str = ""

    @property
    def name(self) -> str:
        """Name of the vertebra."""
        return self.found.name

    @property
    def key(self) -> str:
        """Names the vertebra among all that a person decides on."""
        return f"vertebra.{self.name}"

    @property
    def verdict(self) -> Verdict:
        """Of its own pose."""
        return self.found.verdict

    @property
    def offered(self) -> bool:
        """Whether there is anything to accept."""
        return self.verdict.level is not Level.REFUSED

    @property
    def undecided(self) -> bool:
        """Whether it is offered and nobody has decided."""
        return self.offered and self.accepted is None

    @property
    def position_mm(self) -> npt.NDArray[np.float64]:
        """Its middle (1, 3), intraoperative RAS."""
        return np.asarray(apply(self.found.intraop_from_preop, middle_of(self.label)))[None]

    @property
    def neighbours(self) -> tuple[tuple[str, Reason, Reason], ...]:
        """Name of each neighbour that was found, and how it has turned (deg) and shifted (mm) against it."""
        by_name = {reason.name: reason for reason in self.verdict.reasons}
        names = [name.removeprefix(TURN) for name in by_name if name.startswith(TURN)]
        return tuple((name, by_name[TURN + name], by_name[SHIFT + name]) for name in names)

    @property
    def basis(self) -> str:
        """What a person has said of it, in words."""
        if self.accepted is None:
            return "nobody has accepted it" if self.offered else "its pose was refused"
        word = "accepted" if self.accepted else "rejected"
        return f"{word} by {self.decided_by} at {self.decided_utc[11:16]} UTC"

    def decided(self, accepted: bool, by: str, utc: str) -> Bone:
        """The same with a person's decision. Raises RegistrationError for what was not offered, or without a name."""
        if accepted and not self.offered:
            raise RegistrationError(f"'{self.name}' cannot be accepted: {self.verdict.text}; nothing rests on it")
        if not by.strip():
            raise RegistrationError(f"'{self.name}' needs the name of the person who decides: enter it first")
        return replace(self, accepted=accepted, decided_by=by.strip(), decided_utc=utc)


def bones_of(plan: Plan, found: Iterable[VertebraRegistration]) -> tuple[Bone, ...]:
    """The vertebrae of the plan as they were found, none accepted."""
    return tuple(
        Bone(each, plan.vertebrae[each.name], tuple(name for name, bone in plan.implanted.items() if bone == each.name))
        for each in found
    )


def shown_implants(
    plan: Plan, bones: Iterable[Bone], implants: Mapping[str, ImplantFound]
) -> dict[str, ImplantFound | str]:
    """Each planned implant by name: as it was found where its vertebra was accepted, otherwise why it is not shown."""
    by_name = {bone.name: bone for bone in bones}
    result: dict[str, ImplantFound | str] = {}
    for planned in plan.trajectories:
        bone = by_name.get(plan.implanted.get(planned.name, ""))
        if bone is None:
            result[planned.name] = "the pose of the whole spine was refused, and it lies in no vertebra"
        elif not bone.accepted:
            result[planned.name] = f"{bone.name}: {bone.basis}"
        else:
            result[planned.name] = implants.get(planned.name, f"not found with certainty in {bone.name}")
    return result


def standing(
    plan: Plan, bones: Iterable[Bone], implants: Mapping[str, ImplantFound], image_uid: str
) -> tuple[list[ImplantFound], list[Measurement]]:
    """What the record may hold: implants in accepted vertebrae; a dash with its reason for each of the others; and how
    the angles between the accepted vertebrae have changed."""
    bones = tuple(bones)
    shown = shown_implants(plan, bones, implants)
    definition = "Planned against actual position, carried by the vertebra that takes it"
    numbers = [
        Measurement(deviation(name), None, "mm", definition, missing_because=why)
        for name, why in shown.items()
        if isinstance(why, str)
    ]
    accepted = [bone.found for bone in bones if bone.accepted]
    changes = alignment(accepted, image_uid)
    if not changes:
        why = f"it needs two accepted vertebrae; accepted: {', '.join(each.name for each in accepted) or 'none'}"
        definition = "Rotation of the first accepted vertebra against the last one since the scan before surgery"
        changes = (Measurement(ALIGNMENT, None, "deg", definition, missing_because=why),)
    return [found for found in shown.values() if not isinstance(found, str)], [*numbers, *changes]
