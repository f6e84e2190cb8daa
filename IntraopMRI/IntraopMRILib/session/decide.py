"""What a person decides on the newest scan: planned things, vertebrae, pieces of the residual, and what follows.

A decision may come before or after the implant that it is about was found, from another thread: the result is the same.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from IntraopMRIReconstructionLib.data import Image
from IntraopMRIReconstructionLib.errors import SessionError

from ..register.carry_over import Carried
from ..workflow.record import utc_now
from .bones import Bone, standing
from .implants import compared
from .journal import Journal
from .pieces import Distances, distances, judged, nearest, require_listed
from .plan import Plan, moved_trajectory
from .updates import ImplantFound, Judged, PlanCarried, ResidualFound, Update


class Decisions:
    """Of one session, from any thread. ``lock``: to be held while the newest scan, to which they belong, changes."""

    def __init__(self, plan: Plan, journal: Journal, tell: Callable[[Update], None]) -> None:
        self._plan, self._journal, self._tell = plan, journal, tell
        self.lock = threading.RLock()
        #: Planned things by key, with what was decided.
        self._items: dict[str, Carried] = {}
        self._implants: dict[str, ImplantFound] = {}
        #: Vertebrae by name where the whole was refused, with what was decided.
        self._bones: dict[str, Bone] = {}
        #: The residual in which all pieces count, how far they lie from structures at risk, what a person has excluded.
        self._residual: ResidualFound | None = None
        self._labels: Mapping[str, tuple[Image, Image | None]] = {}
        self._distances: Distances = {}
        self._excluded: dict[int, Judged] = {}

    def forget(self) -> None:
        """A new scan: whatever was found and decided belongs to the one before."""
        with self.lock:
            self._items, self._implants, self._bones = {}, {}, {}
            self._forget_residual({})

    def carried(self, carried: PlanCarried) -> None:
        """The plan was carried over anew: what was decided about an older registration is void."""
        with self.lock:
            # Bone does not follow a brain shift: without a tumour there is nothing to decide.
            if self._plan.tumour is not None:
                self._items = {item.key: item for item in carried.items}
                self._forget_residual(carried.labels)
                self._journal.carried(carried)

    def residual(self, found: ResidualFound) -> None:
        """The residual was assessed: it is written down and told, each piece with what lies near to it."""
        apart = distances(found.assessment.listed, self._labels)
        with self.lock:
            self._residual, self._distances, self._excluded = found, apart, {}
            self._pieces()

    @property
    def found(self) -> ResidualFound | None:
        """The residual in which all pieces count."""
        return self._residual

    def completed(self, before: ResidualFound, now: ResidualFound) -> None:
        """More is known of the same residual: judged as it is, it is told anew; nothing when it counts no longer."""
        with self.lock:
            if self._residual is before:
                self._residual = now
                self._pieces()

    def judge(self, number: int, tumour: bool, by: str) -> None:
        """See :meth:`.session.Session.judge_piece`."""
        with self.lock:
            found = require_listed(self._residual, number, by)
            self._excluded.pop(number, None)
            if not tumour:
                self._excluded[number] = Judged(by.strip(), utc_now())
            volume = next(piece.volume.value or 0.0 for piece in found.assessment.listed if piece.number == number)
            words = "counted as residual again" if tumour else "judged not tumour, excluded for this scan"
            self._journal.event("piece", f"{number} of {volume:.2f} cm3 {words}, by {by.strip()}")
            self._pieces()

    def _forget_residual(self, labels: Mapping[str, tuple[Image, Image | None]]) -> None:
        """What was found rests on an older registration; ``labels``: structures at risk by the newest one."""
        self._residual, self._labels, self._distances, self._excluded = None, labels, {}, {}

    def _pieces(self) -> None:
        """Write down and tell the residual as it counts now."""
        if self._residual is not None:
            uid = self._residual.assessment.measurements[0].based_on
            near = nearest(self._distances, self._items, uid[0] if uid else "")
            now = replace(judged(self._residual, self._excluded), near=near)
            self._journal.residual(now)
            self._tell(now)

    def implant(self, found: ImplantFound) -> None:
        """An implant was found, or its plan was decided on: it is compared, written down and told."""
        name = found.planned.name
        with self.lock:
            item = self._items.get(f"plan.{name}")
            # What a vertebra carries follows no brain shift.
            if item is not None and item.accepted is not None and name not in self._plan.implanted:
                planned, based_on = moved_trajectory(found.planned, item), found.measurements[0].based_on
                found = compared(planned, found.detected, based_on, item.basis, item.uncertainty_mm)
            self._implants[name] = found
            self._journal.implant(found)
            self._tell(found)

    def decide_implant(self, found: ImplantFound, stays: bool, by: str) -> ImplantFound:
        """See :meth:`.session.Session.decide_implant`."""
        decided, name = found.decided(stays, by, utc_now()), found.planned.name
        with self.lock:
            known = self._implants.get(name)
            # Compared anew, its numbers are others than the person has seen.
            _check(known is not None and known.measurements is found.measurements, name)
            self._journal.placement(decided)
            self._implants[name] = decided
        return decided

    def offer(self, bones: Iterable[Bone]) -> None:
        """Vertebrae were found each on its own: a person decides on them."""
        with self.lock:
            self._bones = {bone.name: bone for bone in bones}

    def decide(self, item: Carried, accepted: bool, by: str) -> Carried:
        """See :meth:`.session.Session.decide`."""
        decided = item.decided(accepted, by, utc_now())
        with self.lock:
            # The very same points: those of a scan that is registered again are alike, and not decided on.
            known = self._items.get(item.key)
            _check(known is not None and known.now_mm is item.now_mm, item.name)
            self._journal.decision(decided)
            self._items[item.key] = decided
            if item.kind == "risk" and self._distances:
                self._pieces()
            if item.kind == "plan" and item.name in self._implants:
                self.implant(self._implants[item.name])
        return decided

    def decide_bone(self, bone: Bone, accepted: bool, by: str) -> Bone:
        """See :meth:`.session.Session.decide_bone`."""
        decided = bone.decided(accepted, by, utc_now())
        with self.lock:
            known = self._bones.get(bone.name)
            _check(known is not None and known.found is bone.found, bone.name)
            self._journal.bone(decided)
            self._bones[bone.name] = decided
            self._stand()
        return decided

    def leave_bones(self, by: str) -> None:
        """See :meth:`.session.Session.leave_bones`."""
        with self.lock:
            _check(bool(self._bones), "the vertebrae")
            names = ", ".join(bone.name for bone in self._bones.values() if bone.undecided)
            self._journal.event("vertebra", f"left undecided by {by}, nothing rests on them: {names}")
            self._stand()

    def _stand(self) -> None:
        uid = self._journal.record.images[-1].uid
        self._journal.stands(*standing(self._plan, self._bones.values(), self._implants, uid))


def _check(offered: bool, what: str) -> None:
    if not offered:
        raise SessionError(f"{what}: a newer image has withdrawn what this belongs to; decide on the new one")
