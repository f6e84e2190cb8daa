"""The two scans that make a residual, without and with contrast agent, and the rules by which they are a pair.

Only from both does enhancement tell tumour from blood: the patient in the same position, the native scan taken before
the agent was given. In a second look agent may be left from the first one, which is said beside the number.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from IntraopMRIReconstructionLib.data import Image, Matrix
from IntraopMRIReconstructionLib.errors import SessionError
from IntraopMRIReconstructionLib.geometry import farthest_apart_mm

from ..register.deformable import DeformableRegistration
from ..register.rigid import RigidRegistration
from ..scan_facts import AGENT
from .updates import Role, ShiftFound

#: Between the two scans of one look lies an injection. In so long (s) it was operated on and bled: what is new in the
#: contrast scan would be taken for enhancement.
LONGEST_LOOK_S = 3600.0
#: What is operated on lies farther apart than this in two registrations when the patient has moved (mm).
MOVED_MM = 1.0


#: Said beside a residual of a native scan that an earlier contrast scan was compared with already.
AGAIN = (
    "The scan without agent is that of an earlier contrast scan: if anything was resected or bled in between, it looks "
    "like enhancement. Repeat both scans after a resection."
)


@dataclass(frozen=True, eq=False)
class Placed:
    """The preoperative volume in one scan; ``shift``: None while the brain shift is not followed in it."""

    rigid: RigidRegistration
    shift: ShiftFound | None = None

    @property
    def deformable(self) -> DeformableRegistration | None:
        """That of the brain shift."""
        return None if self.shift is None else self.shift.deformable


class ScanPair:
    """The newest scan of each role and where the preoperative volume lies in it. Written by the worker alone.

    ``waits``: the contrast scan has found no native one to be compared with yet. ``newest``: role of the scan that
    counts now, None before the first.
    """

    def __init__(self, operated_mm: npt.NDArray[np.float64]) -> None:
        """``operated_mm``: see :class:`.plan.Plan`."""
        self._operated_mm = operated_mm
        self._agent_utc_s: float | None = None
        #: Contrast scans since the native one, and those before the newest of them with their places.
        self._since_native = 0
        self._earlier: list[tuple[Image, Placed | None]] = []
        self._last_pose: Matrix | None = None
        self._chosen: set[Role] = set()
        self.images: dict[Role, Image] = {}
        self.placed: dict[Role, Placed] = {}
        self.newest: Role | None = None
        self.waits = False

    def take(self, image: Image, role: Role, chosen: bool = False) -> None:
        """A new scan takes the place of the one before it, whose registration goes with it.

        ``chosen``: by a person, in any order; others come in the order in which they were taken.
        """
        before, placed = self.images.get(role), self.placed.pop(role, None)
        if role == "native":
            self._earlier = []
        elif before is not None and self._since_native and before.uid != image.uid:
            self._earlier.append((before, placed))
        self.images[role], self.newest = image, role
        (self._chosen.add if chosen else self._chosen.discard)(role)
        self._since_native = self._since_native + 1 if role == "contrast" else 0
        if role == "contrast":
            self.waits = False
            known = [time for time in (self._agent_utc_s, image.acquired_utc_s) if time is not None]
            self._agent_utc_s = min(known, default=None)

    def start(self) -> Matrix | None:
        """Where the patient was last found, to look there first; only once, since a refused pose leaves none."""
        pose, self._last_pose = self._last_pose, None
        return pose

    def place(self, role: Role, found: RigidRegistration) -> None:
        """The scan of that role is registered."""
        self._last_pose = found.intraop_from_preop
        self.placed[role] = Placed(found)

    def follow(self, role: Role, shift: ShiftFound) -> None:
        """The brain shift is known in the registered scan of that role."""
        self.placed[role] = Placed(self.placed[role].rigid, shift)

    def registered(self, image_uid: str) -> tuple[Image, RigidRegistration]:
        """The image with that uid and its registration. Raises SessionError unless it is the newest and registered."""
        role = self.newest
        if role is None or self.images[role].uid != image_uid:
            raise SessionError("a newer image has replaced the one that this was drawn on: draw it on the new one")
        if role not in self.placed:
            name = self.images[role].name
            raise SessionError(f"'{name}' is not registered, so nothing is measured on it: wait, or scan again")
        return self.images[role], self.placed[role].rigid

    def newest_placed(self) -> tuple[Image, Placed]:
        """The newest image and where the preoperative volume lies in it. SessionError unless it is registered."""
        if self.newest is None:
            raise SessionError("there is no scan yet: nothing is proposed")
        image, _pose = self.registered(self.images[self.newest].uid)
        return image, self.placed[self.newest]

    def native(self, late: bool = False) -> Image:
        """The native scan. Raises SessionError unless it is known that the patient has not moved since, and that it was
        taken before the agent was given: agent that is still there hides enhancement, and the residual would look
        smaller than it is.

        ``late``: it arrived after the contrast scan that waits for it.
        """
        native, remedy = self.images.get("native"), "Repeat both scans"
        if native is None:
            why = "there is no native scan to compare with"
            if "contrast" in self._chosen:
                remedy = "Use the scan without contrast agent as well, both with the times at which they were taken"
        elif "native" not in self.placed:
            why = "the native scan was not registered, so a motion of the patient would not be seen"
        else:
            moved_mm = self._moved_mm(self.placed["native"])
            why = f"the patient moved {moved_mm:.1f} mm between the native and the contrast scan"
            if moved_mm <= MOVED_MM:
                why = wrong_order(native, self.images["contrast"], in_order=not late and not self._chosen)
                if not why:
                    if late:
                        self._since_native = 1
                    return native
                remedy = "Give the times at which they were taken, or repeat both scans"
        raise SessionError(
            f"no residual is given: {why}; the contrast scan alone does not tell enhancement from blood. {remedy}"
        )

    def earlier(self) -> tuple[Image, ...]:
        """Contrast scans since the native one, in the order in which they came, before the newest, in its position.

        Raises SessionError when there are some, and none of them can be compared with it.
        """
        newest, why = self.images["contrast"], ""
        kept = []
        for image, placed in self._earlier:
            agents = {each.metadata[AGENT] for each in (image, newest) if AGENT in each.metadata}
            if placed is None:
                why = f"'{image.name}' was not registered, so a motion of the patient would not be seen"
            elif len(agents) > 1:
                why = f"the headers of '{image.name}' and '{newest.name}' name two agents"
            elif (moved_mm := self._moved_mm(placed)) > MOVED_MM:
                why = f"the patient moved {moved_mm:.1f} mm since '{image.name}'"
            else:
                kept.append(image)
        if why and not kept:
            raise SessionError(why)
        return tuple(kept)

    def _moved_mm(self, before: Placed) -> float:
        """How far the operated place lies in the contrast scan from where it lay ``before``."""
        now, then = (each.rigid.intraop_from_preop for each in (self.placed["contrast"], before))
        return farthest_apart_mm(now, then, self._operated_mm)

    def notes(self, native: Image) -> tuple[str, ...]:
        """What must be known beside a residual of the pair with this native scan."""
        return agent_notes(native, self._agent_utc_s) + (AGAIN,) * (self._since_native > 1)


def wrong_order(native: Image, contrast: Image, in_order: bool) -> str:
    """Why two scans cannot be compared by when they were taken, in words; empty when they can.

    ``in_order``: they were received as they were taken, this one first; then times that nobody knows do no harm.
    """
    first, second = native.acquired_utc_s, contrast.acquired_utc_s
    if first is not None and second is not None:
        if 0.0 < second - first <= LONGEST_LOOK_S:
            return ""
        if first < second:
            return (
                f"'{native.name}', without contrast agent, was taken {(second - first) / 60.0:.0f} min before "
                f"'{contrast.name}', with it: what was done and bled since then would look like enhancement"
            )
        return (
            f"'{native.name}', without contrast agent, was not taken before '{contrast.name}', with it: agent that is "
            "still there hides enhancement, or both are exchanged"
        )
    unknown = [f"'{image.name}'" for image in (native, contrast) if image.acquired_utc_s is None]
    when = f"{' and '.join(unknown)} {'were' if len(unknown) > 1 else 'was'} taken"
    return "" if in_order else f"it is not known when {when}, so perhaps not before the contrast agent"


def agent_notes(native: Image, agent_utc_s: float | None) -> tuple[str, ...]:
    """What must be known beside a residual when agent had been given before its native scan, as in a second look."""
    if native.acquired_utc_s is None or agent_utc_s is None or native.acquired_utc_s <= agent_utc_s:
        return ()
    minutes = max(1, round((native.acquired_utc_s - agent_utc_s) / 60))
    return (
        f"Contrast agent had been given {minutes} min before the scan without it: agent that was still there hides "
        "enhancement, so more may be left than was measured.",
    )
